"""A stage as a process of its own: a GPU's memory comes back when it ends, and an interrupted kernel loses nothing.

On a CPU a stage runs where it is called.  The child is told its settings by a file, shows its progress bars where the
parent would, and what it refuses is refused by the parent in the same line.  So a notebook's kernel never holds memory
of a GPU: what it wants of a model, scores or answers, it asks a child for as well.
"""

import dataclasses
import functools
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from r1repro import config
from r1repro.engine import actor
from r1repro.records import Refusal
from r1repro.run import read_json, write_json

MARK = "R1REPRO_CHILD"
"""Environment variable that says that this process is the child already."""


def runs_here(machine: config.Machine) -> bool:
    """Whether a stage runs in this process: on a CPU, or because it is the child."""
    return machine.device == "cpu" or MARK in os.environ


KINDS = {
    "r1_zero": (config.R1Zero, "r1repro.stages.r1_zero"),
    "r1": (config.R1, "r1repro.stages.r1"),
    "distill": (config.Distill, "r1repro.stages.distill"),
    "chat": (config.R1, "r1repro.chat"),
}
"""Name -> class of the settings, and the module whose functions of settings and more are the work."""


def run(kind: str, settings: Any, *arguments: Any, call: str = "run") -> Any:
    """A function of a module of `KINDS` in a child; returns what it returns.

    Args:
        arguments: after the settings: texts, numbers, paths, and lists of such.  What comes back is so too, and a list
            comes back as a tuple.

    Raises:
        Refusal: the child refused, in its words; or it died, with its exit code.
    """
    with tempfile.TemporaryDirectory(prefix="r1repro-") as place:
        file = Path(place) / "child.json"
        told = {"kind": kind, "settings": dataclasses.asdict(settings), "call": call, "arguments": _plain(arguments)}
        write_json(file, told)
        _wait([sys.executable, "-m", "r1repro.stages.child", str(file)])
        return _whole(read_json(file)["found"])


def of_its_own(kind: str) -> Callable[[Callable], Callable]:
    """Makes a function of settings and more one that runs in a child where the settings' machine is a GPU.

    Its name in the module of `KINDS` is its own.
    """

    def decorated(work: Callable) -> Callable:
        @functools.wraps(work)
        def stage(settings: Any, *arguments: Any) -> Any:
            config.check_runnable(settings.tier)
            if runs_here(settings.machine):
                with speaking_of_memory(settings.machine):
                    return work(settings, *arguments)
            actor.check_device(settings.machine.device)
            return run(kind, settings, *arguments, call=work.__name__)

        return stage

    return decorated


def _plain(value: Any) -> Any:
    """What can be written as JSON, paths marked as such."""
    if isinstance(value, Path):
        return {"path": str(value)}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _whole(value: Any) -> Any:
    """What `_plain` was given, with tuples for lists."""
    if isinstance(value, dict):
        return Path(value["path"])
    return tuple(_whole(one) for one in value) if isinstance(value, list) else value


def _wait(command: list[str]) -> None:
    """Run a child to its end; its last line on stderr is its refusal."""
    child = subprocess.Popen(command, env=os.environ | {MARK: "1"}, stderr=subprocess.PIPE, text=True, bufsize=0)
    last = ""
    with child.stderr:
        for line in child.stderr:
            sys.stderr.write(line)
            last = line.strip() or last
    if code := child.wait():
        refused = last.startswith("r1repro: ")
        raise Refusal(
            last.removeprefix("r1repro: ")
            if refused
            else f"the stage's process ended with code {code} ({last[:200]}): run it again, it goes on from its last "
            "checkpoint"
        )


def read_settings(kind: str, record: dict[str, Any]) -> Any:
    """Settings of a pipeline as `dataclasses.asdict` wrote them.

    >>> whole = config.r1_zero("smoke")
    >>> read_settings("r1_zero", dataclasses.asdict(whole)) == whole
    True
    """
    return _made(KINDS[kind][0], record)


def _made(cls: type, record: dict[str, Any]) -> Any:
    inner = {f.name: f.type for f in dataclasses.fields(cls) if dataclasses.is_dataclass(f.type)}
    given = {name: _made(inner[name], value) if name in inner else value for name, value in record.items()}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


@contextmanager
def speaking_of_memory(machine: config.Machine) -> Iterator[None]:
    """A device that is full as one line that says which knobs to turn.

    Raises:
        Refusal: out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(".")[0]
        raise Refusal(
            f"the GPU's memory is full ({reason}): set machine.recompute=true, halve machine.micro_batch_tokens (now "
            f"{machine.micro_batch_tokens}) or machine.max_rows ({machine.max_rows}), lower machine.sampler_memory "
            f"({machine.sampler_memory}), or take a smaller profile; the run goes on from its last checkpoint"
        ) from error


def main(file: Path) -> int:
    """What the child does; returns its exit code."""
    told = read_json(file)
    work = importlib.import_module(KINDS[told["kind"]][1])
    try:
        settings = read_settings(told["kind"], told["settings"])
        found = getattr(work, told["call"])(settings, *_whole(told["arguments"]))
        write_json(file, {"found": _plain(found)})
    except Refusal as refusal:
        sys.stderr.write(f"\nr1repro: {refusal}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
