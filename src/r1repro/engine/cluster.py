"""Ranks by Ray Train: on the cluster at RAY_ADDRESS, or on a Ray of its own on this machine.

`TorchTrainer` places a worker for each rank, starts all of them again when one dies or its node does, and waits for a
node that takes its place.  A worker starts its rank as a process of its own and does nothing else: signals, vLLM and a
GPU's memory belong to a process, and a rank is the same process under Ray as under `torchrun`.  It dies with its
worker (`launch.tie`).  Nothing of ours is pickled but the name of a function of this module and a few texts.

``python -m r1repro.engine.cluster MODULE FILE`` is what `launch.command` starts; FILE holds ``settings.machine`` and
``paths``, which all nodes must see.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import r1repro
from r1repro.config import Machine
from r1repro.engine import launch
from r1repro.records import Refusal
from r1repro.run import now, read_json, source_fingerprint

REACH_S = 5.0
"""Ours: seconds in which something must answer at the address."""

LOOK_S = 300.0
"""Ours: seconds in which every node must have started a process and looked around; a cold disk takes a minute."""

GRACE_S = 30.0
"""Ours: seconds in which the other ranks end after one has refused or stopped; `torchrun` gives them as many."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
"""Ours: what Ray is told where the environment says nothing: to report nothing home; and to wait for workers longer
than its 60 s, which a busy machine misses."""

CARRIED = ("R1REPRO_", "HF_", "NCCL_", "GLOO_", "TORCH_", "VLLM_", "PYTORCH_")
"""Ours: environment variables that ranks get from the parent begin so."""


# --- what there is


def reach(address: str) -> None:
    """Refuse an address at which no Ray cluster can be.

    Raises:
        Refusal: nothing answers there within `REACH_S`, or it is not the address of a cluster's head.
    """
    if address in ("", "auto", "local"):
        return
    if "://" in address:
        raise Refusal(
            f"RAY_ADDRESS is {address!r}: give the address of the cluster's head as host:port, such as 10.0.0.1:6379, "
            "on a machine that is one of its nodes"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, ValueError) as error:
        raise Refusal(
            f"RAY_ADDRESS is {address!r}, and nothing answers there ({error}): start a cluster (launch/README.md), "
            "mend the address, or unset it to use this machine alone"
        ) from error


@contextmanager
def connected() -> Iterator[str]:
    """Within: this process is connected to the cluster at RAY_ADDRESS, or to a Ray of its own; gives its name.

    Raises:
        Refusal: there is none, or it runs another version of Ray or Python, or wants a token.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    reach(address)
    import ray

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    own = {"include_dashboard": False} if address in ("", "local") else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (RuntimeError, ConnectionError, ValueError, ray.exceptions.RayError) as error:
        where = address or "this machine"
        why = f"cannot use Ray at {where} ({_line(error)})"
        raise Refusal(f"{why}: see launch/README.md, 'Refused before any work'") from error
    try:
        yield f"the cluster at {address}" if address else "this machine"
    finally:
        ray.shutdown()


def nodes() -> list[dict[str, Any]]:
    """Of each living node: ``id``, ``name``, ``cpus``, ``gpus``, ``kind`` of its GPUs (empty: none or unknown)."""
    import ray

    found = []
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"]:
            kinds = [key.partition(":")[2] for key in has if key.startswith("accelerator_type:")]
            found.append(
                {"id": node["NodeID"], "name": f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                 "cpus": int(has.get("CPU", 0)), "gpus": int(has.get("GPU", 0)), "kind": ", ".join(sorted(kinds))}
            )  # fmt: skip
    return found


def versions() -> dict[str, str]:
    """What must be the same on every node."""
    own = {"python": ".".join(map(str, sys.version_info[:3])), "torch": metadata.version("torch")}
    return own | {"r1repro": source_fingerprint()[:12]}


def look(marks: Sequence[str]) -> dict[str, Any]:
    """What a node has: its `versions`, and which of some files it does not see."""
    return {"versions": versions(), "unseen": [mark for mark in marks if not os.path.exists(mark)]}


def looks(there: Sequence[dict[str, Any]], marks: Sequence[str] = ()) -> list[dict[str, Any]]:
    """`look` on each node.

    Raises:
        Refusal: a node cannot import r1repro, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    began = time.monotonic()
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["id"], soft=False)).remote(list(marks))
        for node in there
    ]
    found = []
    for node, answer in zip(there, asked, strict=True):
        try:
            found.append(ray.get(answer, timeout=max(1.0, LOOK_S + began - time.monotonic())))
        except ray.exceptions.GetTimeoutError as error:
            raise Refusal(f"node {node['name']} did not answer in {LOOK_S:.0f} s: see `ray status`") from error
        except ray.exceptions.RayError as error:
            raise Refusal(
                f"node {node['name']} cannot run r1repro ({_line(error)}): install it there, in the environment that "
                "Ray was started from"
            ) from error
    return found


def check(machine: Machine, where: str, there: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]]) -> None:
    """Refuse a cluster that cannot do the work, before any of it is done.

    Args:
        where: name of the cluster.
        there, seen: of its `nodes`, and what each of them sees (`look`).

    Raises:
        Refusal: too few GPUs or CPUs, GPU nodes that differ, versions that differ, a folder that a node does not see.
    """
    what = "CPUs" if machine.device == "cpu" else "GPUs"
    counts = [node[what.lower()] for node in there]
    if sum(counts) < machine.ranks:
        raise Refusal(
            f"machine.ranks is {machine.ranks}, but {where} has {sum(counts)} {what} on {len(there)} nodes: lower it, "
            "or add nodes"
        )
    armed = [node for node in there if node["gpus"]]
    for node in armed if machine.device != "cpu" else ():
        if (node["gpus"], node["kind"]) != (armed[0]["gpus"], armed[0]["kind"]):
            pair = [f"{n['name']} has {n['gpus']} x {n['kind'] or 'GPU'}" for n in (armed[0], node)]
            raise Refusal(f"unequal nodes ({pair[0]}, {pair[1]}), so all would wait for the slowest: use equal ones")
    mine = versions()
    for node, found in zip(there, seen, strict=True):
        for name, version in found["versions"].items():
            if version != mine[name]:
                raise Refusal(
                    f"node {node['name']} has {name} {version}, this machine {mine[name]}: install the same on every "
                    "node (requirements/gpu.txt, one checkout)"
                )
        if found["unseen"]:
            folder = Path(found["unseen"][0]).parent
            raise Refusal(
                f"node {node['name']} does not see the folder {folder}: put the runs (R1REPRO_OUT, run_dir) and models "
                "on a file system that all nodes mount at the same path"
            )


@contextmanager
def marked(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Within: a file in each of some folders, or in what is to hold them, that nodes can be asked for.

    A folder that cannot be written, such as a model's, is asked for itself.
    """
    marks: dict[Path, bool] = {}
    for path in paths:
        folder = next(place for place in (path, *path.parents) if place.is_dir())
        mark = folder / f".r1repro-{uuid.uuid4().hex}"
        with suppress(OSError):
            mark.touch()
        marks[mark if mark.exists() else path] = mark.exists()
    try:
        yield [str(mark) for mark in marks]
    finally:
        for mark, ours in marks.items():
            if ours:
                mark.unlink(missing_ok=True)


def report() -> str:
    """One line on the cluster at RAY_ADDRESS, for `doctor`.

    Raises:
        Refusal: see `connected`, `looks` and `check`.
    """
    with connected() as where:
        there = nodes()
        machine = Machine(device="cuda") if any(node["gpus"] for node in there) else Machine()
        check(machine, where, there, looks(there))
    gpus, kinds = sum(node["gpus"] for node in there), {node["kind"] for node in there if node["gpus"]}
    kind = f" ({', '.join(sorted(filter(None, kinds)))})" if kinds - {""} else ""
    cores = sum(node["cpus"] for node in there)
    return f"{where}: {len(there)} nodes, {cores} cores, {gpus} GPUs{kind}, equal versions"


# --- the work


def main(words: Sequence[str]) -> int:
    """Start a stage on the ranks of the cluster; returns the exit code."""
    launch.tie()
    module, file = words[0], Path(words[1])
    told = read_json(file)
    machine = Machine(**told["settings"]["machine"])
    try:
        paths = [file.parent, *map(Path, told["paths"])]
        with connected() as where, marked(paths) as marks, _shown(file.parent / "rank-0.log"):
            there = nodes()
            check(machine, where, there, looks(there, marks))
            return _fit(machine, module, file)
    except Refusal as refusal:
        launch.end(file.parent, refused=str(refusal))
        sys.stderr.write(f"\nr1repro: {refusal}\n")
        return 2


def _fit(machine: Machine, module: str, file: Path) -> int:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    on_gpu = machine.device != "cpu"
    names = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    told = {"module": module, "file": str(file), "folder": os.getcwd(), "environment": names}
    trainer = TorchTrainer(
        rank,
        train_loop_config=told,
        scaling_config=ScalingConfig(num_workers=machine.ranks, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="gloo"),  # of the workers, who agree on a port by it; ranks make their own
        run_config=RunConfig(
            name="ray", storage_path=str(file.parent), failure_config=FailureConfig(max_failures=machine.restarts)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        tries = f"failed {machine.restarts + 1} times" if machine.restarts else "failed"
        sys.stderr.write(f"\nthe ranks {tries} ({_line(error)}): see {file.parent}\n")
        return 1
    return 0


def rank(told: dict[str, Any]) -> None:
    """What a worker of Ray Train does: start its rank as a process, and end as that does."""
    place, number = Path(told["file"]).parent, int(os.environ["RANK"])
    environment = os.environ | told["environment"] | {"MASTER_PORT": str(_agreed_port(number)), launch.TETHER: "1"}
    home = str(Path(r1repro.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    folder = told["folder"] if os.path.isdir(told["folder"]) else None
    with open(place / f"rank-{number}.log", "ab") as log:
        log.write(f"rank {number} of {environment['WORLD_SIZE']} on {socket.gethostname()}, {now()}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", told["module"], told["file"]], env=environment, cwd=folder,
            stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            code = _code(process, place)
        finally:
            process.kill()
    if code and not launch.outcomes(place):  # else there is nothing to start again
        lines = (place / f"rank-{number}.log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"rank {number} ended with code {code}: {lines[-1][:200] if lines else 'it said nothing'}")


def _code(process: subprocess.Popen, place: Path) -> int:
    """Exit code of a rank.  One that waits for another, which has refused or stopped, is ended."""
    over = float("inf")
    while (code := process.poll()) is None:
        time.sleep(launch.POLL_S)
        if over == float("inf") and launch.outcomes(place):
            over = time.monotonic() + GRACE_S
        if time.monotonic() > over:
            process.kill()
    return code


def _agreed_port(number: int) -> int:
    """A port that is free at the first rank, told to all by the workers' own group."""
    port = torch.zeros(1, dtype=torch.int64)
    if number == 0:
        with socket.socket() as tried:
            tried.bind(("", 0))
            port[0] = tried.getsockname()[1]
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast(port, src=0)
    return int(port)


@contextmanager
def _shown(log: Path) -> Iterator[None]:
    """Within: what is written to a file is written here as well, as it comes."""
    over = threading.Event()

    def follow() -> None:
        done = 0
        while True:
            last = over.wait(launch.POLL_S)
            if log.exists():
                with open(log, "rb") as lines:
                    lines.seek(done)
                    new = lines.read()
                done += len(new)
                sys.stderr.write(new.decode(errors="replace"))
                sys.stderr.flush()
            if last:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _line(error: BaseException) -> str:
    """The last line of what an error says, which is the one with the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


if __name__ == "__main__":
    from r1repro.engine import cluster  # so that what is pickled is the name of a function there, and not its code

    sys.exit(cluster.main(sys.argv[1:]))
