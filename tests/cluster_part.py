"""A Ray cluster of two nodes on this machine: `make test-cluster`, in an environment that has Ray.

A node is the set of Ray's processes that a machine would run, with one core.  Notebook 03 runs on both while a worker
and then a node are killed, and ends with the weights of a run that was left alone.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from r1repro import config
from r1repro.engine import checkpoint, cluster, launch
from r1repro.records import Refusal
from r1repro.run import Stopped, read_json, read_lines, sha256_file
from r1repro.stages import child, r1_zero

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
LIMIT_S = 900
"""Longest time for what takes one or two minutes on a quiet machine."""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TOP / 'src'}{os.pathsep}{TOP / 'tests'}", "R1REPRO_TRACKERS": "",
    "JUPYTER_PREFER_ENV_PATH": "1",
}  # fmt: skip
QUICK = {"evaluate.num_questions": 12, "evaluate.k": 2}
"""Of tier smoke: what is looked at here is training."""


@pytest.fixture(scope="module")
def nodes():
    """The cluster; its second node can be taken away and given back."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


def said(*words, folder, **more):
    """Exit code, and what `python -m r1repro` says on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "r1repro", *words], cwd=folder, env=os.environ | more, capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    return done.returncode, done.stderr


# --- bad clusters


@pytest.mark.parametrize(
    ("ranks", "address", "words"),
    [(2, "127.0.0.1:1", ("127.0.0.1:1", "nothing answers there")), (9, "", ("ranks is 9", "2 CPUs on 2 nodes"))],
)
def test_a_bad_cluster_is_refused_in_one_line_before_any_work(nodes, tmp_path, ranks, address, words):
    run = ["r1-zero", "--tier", "smoke", "--run-dir", "run", "--set", "machine.launcher=ray", f"machine.ranks={ranks}"]
    code, lines = said(*run, folder=tmp_path, RAY_ADDRESS=address or nodes.address, R1REPRO_OUT=str(tmp_path / "out"))
    refusals = {line for line in lines.splitlines() if line.startswith("r1repro: ")}
    assert code == 2 and len(refusals) == 1 and all(word in refusals.copy().pop() for word in words), lines
    assert "Traceback" not in lines and not (tmp_path / "run").exists()
    assert list((tmp_path / "out" / "ranks").iterdir()) == []


def test_a_node_with_another_source_or_without_the_folder_is_seen(nodes, tmp_path, monkeypatch):
    with cluster.connected() as where:
        there = cluster.nodes()
        assert [(node["cpus"], node["gpus"], node["kind"]) for node in there] == [(1, 0, ""), (1, 0, "")]
        assert [seen["versions"] for seen in cluster.looks(there)] == [cluster.versions()] * 2
        with cluster.marked([tmp_path / "run"]) as marks:
            assert [seen["unseen"] for seen in cluster.looks(there, marks)] == [[], []]
        lost = cluster.looks(there, [str(tmp_path / "gone" / "mark")])
        with pytest.raises(Refusal, match=r"does not see the folder .*/gone: put the runs"):
            cluster.check(config.Machine(), where, there, lost)
    for room in ("src", "papers"):
        shutil.copytree(TOP / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    with open(tmp_path / "src" / "r1repro" / "records.py", "a") as file:
        file.write("# of another version\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    other = nodes.add_node(num_cpus=1)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    try:
        with pytest.raises(Refusal, match=r"node .* has r1repro \w{12}, this machine \w{12}: install the same"):
            cluster.report()
    finally:
        nodes.remove_node(other)
    assert "2 nodes, 2 cores, 0 GPUs, equal versions" in cluster.report()


# --- what ranks tell their parent, and it them


@pytest.fixture
def tiny(nodes, tmp_path, monkeypatch):
    """Gives a function that does a stage of `launched` on both nodes."""
    command = launch.command
    monkeypatch.setattr(launch, "command", lambda machine, module, file: command(machine, "launched", file))
    monkeypatch.setenv("R1REPRO_TEST_PLACE", str(tmp_path))
    monkeypatch.setenv("R1REPRO_OUT", str(tmp_path / "out"))
    settings = config.r1_zero("smoke", 0, {"machine.launcher": "ray", "machine.ranks": 2})
    return lambda call: child.run("r1_zero", settings, tmp_path, call=call)


def test_a_refusal_of_one_rank_is_the_parents(tiny, tmp_path):
    with pytest.raises(Refusal, match="^no such thing: take another$"):
        tiny("refused_by_one")
    assert {(tmp_path / f"starts-{rank}").read_text() for rank in range(2)} == {"once\n"}, "nor are they started again"
    assert list((tmp_path / "out" / "ranks").iterdir()) == []


def test_a_file_asks_the_ranks_of_all_nodes_to_stop(tiny, tmp_path, monkeypatch):
    stop = tmp_path / "time is up"
    monkeypatch.setenv(launch.STOP, str(stop))
    thread = threading.Thread(target=lambda: (_until((tmp_path / "at-work").exists, None, tmp_path), stop.touch()))
    thread.start()
    with pytest.raises(Stopped, match="run it again to go on from there"):
        tiny("until_asked")
    thread.join()
    assert {(tmp_path / f"starts-{rank}").read_text() for rank in range(2)} == {"once\n"}, "they are not started again"


# --- a run while things die


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run by torchrun, which nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        r1_zero.run(config.r1_zero("smoke", 0, QUICK | {"machine.launcher": "torchrun", "machine.ranks": 2}), folder)
    return folder / "r1_zero"


def test_notebook_03_ends_as_if_no_worker_and_no_node_had_died(nodes, alone, tmp_path):
    seed_dir = tmp_path / "out" / "smoke" / "seed-0"
    overrides = QUICK | {"machine.launcher": "ray", "machine.ranks": 2}
    parameters = {"tier": "smoke", "seed": 0, "run_dir": str(seed_dir), "overrides": overrides}
    executed = tmp_path / "03.ipynb"
    with open(tmp_path / "log", "w") as log:
        notebook = subprocess.Popen(
            [sys.executable, "-m", "papermill", str(TOP / "notebooks" / "03_r1_zero.ipynb"), str(executed),
             "--kernel", "python3", "--no-progress-bar", "--parameters_yaml", json.dumps(parameters)],
            cwd=tmp_path, env=os.environ | {"R1REPRO_OUT": str(tmp_path / "out"), "R1REPRO_STATIC": "1"},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _until(lambda: _steps(seed_dir) >= 3, notebook, tmp_path)
        _worker_of(1, tmp_path / "out").kill()
        _until(lambda: _steps(seed_dir) < 3 or _steps(seed_dir) >= 7, notebook, tmp_path)
        _until(lambda: _steps(seed_dir) >= 7, notebook, tmp_path)
        (second,) = nodes.worker_nodes
        nodes.remove_node(second, allow_graceful=False)
        time.sleep(2)
        nodes.add_node(num_cpus=1)
        assert notebook.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()[-4000:]
    finally:
        notebook.kill()
    run = seed_dir / "r1_zero"
    assert read_json(run / "manifest.json")["exit"] == "complete"
    assert len(read_lines(run / "metrics.jsonl")) == len(read_lines(alone / "metrics.jsonl")) == 16
    steps = checkpoint.steps_in(run)
    assert steps == checkpoint.steps_in(alone) and steps[-1] == 16
    for step in steps:
        files = [checkpoint.folder_of(place, step) / "model.safetensors" for place in (run, alone)]
        assert sha256_file(files[0]) == sha256_file(files[1]), step
    assert executed.read_text().count("rank 0 of 2 on ") == 3, "once, and again after each of the two deaths"
    assert list((tmp_path / "out" / "ranks").iterdir()) == []


def _steps(seed_dir):
    metrics = seed_dir / "r1_zero" / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def _until(there, process, folder):
    began = time.monotonic()
    while not there():
        lives = process is None or process.poll() is None
        assert lives and time.monotonic() < began + LIMIT_S, (folder / "log").read_text()[-4000:]
        time.sleep(0.05)


def _worker_of(rank, out):
    """The process of Ray's that started a rank of the run in a folder."""
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, names = process.info["cmdline"] or [], process.info["environ"] or {}
        if "r1repro.stages.child" in words and words[-1].startswith(str(out)) and names.get("RANK") == str(rank):
            return process.parent()
    raise AssertionError(f"no rank {rank} there")


SIFTED = ("rejection.num_questions=1280", "rejection.outputs_per_question=2", "rejection.max_tokens=64")
"""Five shards."""


def test_rejection_sampling_loses_no_row_under_the_same_kills(nodes, tmp_path):
    """A task of Ray a node, each the very same command; one's worker is killed, then the node of the other."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    words = [sys.executable, "-m", "r1repro", "reject", "--tier", "smoke", "--model", "tiny-1m", "--set", *SIFTED]
    shared.mkdir()
    subprocess.run([*words, "--run-dir", str(alone)], check=True, capture_output=True, cwd=tmp_path)
    with cluster.connected():
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        task = ray.remote(num_cpus=1, max_retries=5)(subprocess.run)
        there = [On(node["id"], soft=True) for node in cluster.nodes()]
        command = [*words, "--run-dir", str(shared), "--shared"]
        asked = [task.options(scheduling_strategy=node).remote(command, check=True) for node in there]
        _until(lambda: _shards(shared) >= 1, None, tmp_path)
        _task_of(shared).parent().kill()
        _until(lambda: _shards(shared) >= 2, None, tmp_path)
        (second,) = nodes.worker_nodes
        nodes.remove_node(second, allow_graceful=False)
        nodes.add_node(num_cpus=1)
        ray.get(asked, timeout=LIMIT_S)
    for name in ("samples.jsonl", "examples.jsonl", "summary.json"):
        assert (shared / name).read_bytes() == (alone / name).read_bytes(), name
    assert len(read_lines(shared / "samples.jsonl")) == 1280 and not (shared / "shards").exists()
    assert read_json(shared / "manifest.json")["exit"] == "complete"


def _shards(run):
    manifest = run / "manifest.json"
    is_complete = manifest.exists() and read_json(manifest)["exit"] == "complete"
    return 5 if is_complete else len(list((run / "shards").glob("shard-*.jsonl")))


def _task_of(run):
    """A process that works on the shards of a run."""
    for process in psutil.process_iter(["cmdline"]):
        if str(run) in (process.info["cmdline"] or []):
            return process
    raise AssertionError(f"nobody works on {run}")


# --- what the files of launch/ say to Ray


def test_ray_takes_the_file_of_ray_up():
    from ray.autoscaler._private.util import prepare_config, validate_config

    file = yaml.safe_load((TOP / "launch" / "ray-up.yaml").read_text())
    made = prepare_config(file)
    validate_config(made)
    (kind,) = made["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(file["provider"]["worker_ips"]) == 3


def test_ray_knows_the_commands_and_options_that_the_files_name():
    from ray.scripts.scripts import cli

    text = "\n".join(file.read_text() for file in sorted((TOP / "launch").iterdir()))
    verbs = ("start", "stop", "up", "exec", "attach", "down", "status", "symmetric-run", "get-auth-token")
    named = set(re.findall(rf"(?:^|[\s/`'(])ray ({'|'.join(verbs)})\b", text))
    assert named == set(verbs) <= set(cli.commands)
    for name in named:
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        for words in re.findall(rf"ray {name}\b([^\n`']*)", text):
            own = words.partition(" -- ")[0]
            assert set(re.findall(r"(?<=\s)--[a-z-]+", own)) <= known, (name, own)
