"""Starts a stage on several ranks: by `torchrun` on this machine, or by Ray Train on a cluster (`engine.cluster`).

A rank is a process of its own, started by the same command whoever starts it (``python -m MODULE FILE``), in which the
stage joins the group that its environment describes (`dist.join`).  Who starts it restarts all ranks when one dies, and
a stage that is called again goes on from its last checkpoint.  Beside FILE, in one folder that all ranks see, lies what
they and their parent tell each other:

    rank-<n>.json   the rank refused, or stopped where it was asked to: nothing is started again
    stop            the parent's wish that they stop; so does each file that R1REPRO_STOP names, once it is there
"""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from types import FrameType

import torch
import tqdm.std

from r1repro.config import Machine
from r1repro.engine import dist
from r1repro.records import Refusal
from r1repro.run import Interrupts, Stopped, read_json, write_json

MARK = "R1REPRO_CHILD"
"""Environment variable that says that this process was started for one stage."""

STOP = "R1REPRO_STOP"
"""Environment variable that names files, apart as in PATH: once one of them is there, the stage stops at its next
checkpoint.  What a batch system's script has to say reaches ranks on any node so."""

TETHER = "R1REPRO_TETHER"
"""Environment variable that says that this process ends when its standard input does, that is, with its parent: what
is called again must not find another one that still writes."""

POLL_S = 0.5
"""Ours: seconds between two looks for a file that asks to stop."""


def is_rank() -> bool:
    """Whether `torchrun` or Ray Train has made this process one rank of a group."""
    return "RANK" in os.environ


def is_first() -> bool:
    """Whether this process answers for all: the first rank, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def command(machine: Machine, module: str, file: Path) -> list[str]:
    """What starts ``python -m module file`` on the ranks of a machine; the file is its last word.

    >>> command(Machine(launcher="torchrun", ranks=2), "stage", Path("told.json"))[3:]
    ['--standalone', '--nproc-per-node=2', '--max-restarts=3', '-m', 'stage', 'told.json']
    """
    if machine.launcher == "torchrun":
        ranks = [f"--nproc-per-node={machine.ranks}", f"--max-restarts={machine.restarts}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", *ranks]
        return [*torchrun, "-m", module, str(file)]
    if machine.launcher == "ray":
        return [sys.executable, "-m", "r1repro.engine.cluster", module, str(file)]
    return [sys.executable, "-m", module, str(file)]


def check(machine: Machine) -> None:
    """Refuse what cannot be started from here; what a cluster has, `cluster.check` asks.

    Raises:
        Refusal: Ray is not installed, or this machine has fewer GPUs than ranks.
    """
    if machine.launcher == "ray" and importlib.util.find_spec("ray") is None:
        raise Refusal(
            "machine.launcher is 'ray', which is not installed: pip install 'r1repro[cluster]' on every node, or set "
            "it to torchrun for the GPUs of this machine"
        )
    if machine.launcher == "torchrun" and machine.device != "cpu" and machine.ranks > torch.cuda.device_count():
        raise Refusal(
            f"machine.ranks is {machine.ranks}, but this machine has {torch.cuda.device_count()} GPUs: lower it, or "
            "set machine.launcher to ray and RAY_ADDRESS to a cluster with so many"
        )


# --- in the parent


def wait(words: Sequence[str], place: Path) -> None:
    """Run a command of `command` to its end; what it writes on stderr is shown here.

    A first SIGINT or SIGTERM asks all ranks to stop at their next checkpoint, a second one ends them at once.

    Args:
        place: folder of FILE.

    Raises:
        Refusal: a rank refused, in its words; or the command ended with another code than 0.
        Stopped: it was asked to stop, and has.
    """
    environment = os.environ | {MARK: "1", TETHER: "1"}
    environment[STOP] = os.pathsep.join(filter(None, [os.environ.get(STOP), _stop(place)]))
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0,
        start_new_session=True,
    )  # fmt: skip
    last = ""
    with _Forwarding(process, place) as forwarding, process.stdin, process.stderr:
        for line in process.stderr:
            sys.stderr.write(line)
            last = line.strip(" =\n") or last
        code = process.wait()
    for outcome in outcomes(place):
        if "refused" in outcome:
            raise Refusal(outcome["refused"])
    if forwarding.came or outcomes(place):
        raise Stopped(forwarding.came or outcomes(place)[0]["stopped"], forwarding.after)
    if code:
        raise Refusal(
            f"the stage's process ended with code {code} ({last[:200]}): run it again, it goes on from its last "
            "checkpoint"
        )


class _Forwarding(Interrupts):
    """Within ``with``: SIGINT and SIGTERM are put into the words of `wait`."""

    def __init__(self, process: subprocess.Popen, place: Path):
        super().__init__("its last checkpoint")
        self._process, self._place = process, place

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._came:
            os.killpg(self._process.pid, signal.SIGTERM)
            raise KeyboardInterrupt
        self._came = number
        Path(_stop(self._place)).touch()
        name = signal.Signals(number).name
        sys.stderr.write(f"\n{name}: stopping at the next checkpoint; once more to stop at once\n")


def outcomes(place: Path) -> list[dict]:
    """Of the ranks that refused or stopped, in their order: ``refused``, the line, or ``stopped``, the signal."""
    return [read_json(file) for file in sorted(place.glob("rank-*.json"))]


def _stop(place: Path) -> str:
    return str(place / "stop")


# --- in a rank


def end(place: Path, **outcome: str | int) -> None:
    """Say how this rank ended; see `outcomes`."""
    write_json(place / f"rank-{int(os.environ.get('RANK', 0)):06d}.json", outcome)


@contextmanager
def at_work() -> Iterator[None]:
    """Within: this process is a rank of its group, if it has one, and hears who asks it to stop.

    The first rank alone shows progress bars.  A group that was there before is left as it was.
    """
    ours = dist.join()
    try:
        with listening(), _bars(shown=dist.leads()):
            yield
    finally:
        if ours:
            dist.leave()


@contextmanager
def listening() -> Iterator[None]:
    """Within: this process gets a SIGINT as soon as one of the files of `STOP` is there."""
    files = [Path(name) for name in os.environ.get(STOP, "").split(os.pathsep) if name]
    over = threading.Event()

    def look() -> None:
        while not over.wait(POLL_S):
            if any(file.exists() for file in files):
                os.kill(os.getpid(), signal.SIGINT)
                return

    first = threading.current_thread() is threading.main_thread() and _listens.acquire(blocking=False)
    if first:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # a worker of Ray's starts its rank with it blocked
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it does not wait for
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if first and files:
        threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if first:
            _listens.release()


_listens = threading.Lock()
"""Held while a stage listens: one that is called by another is not told a second time, which would end it at once."""


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Within: whether progress bars are shown, whoever makes them."""
    before = tqdm.std.tqdm.__init__
    if not shown:
        tqdm.std.tqdm.__init__ = partialmethod(before, disable=True)
    try:
        yield
    finally:
        tqdm.std.tqdm.__init__ = before


def tie() -> None:
    """If this process is to end with its parent (`TETHER`), see to it."""

    def hold() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    if TETHER in os.environ:
        threading.Thread(target=hold, daemon=True).start()
