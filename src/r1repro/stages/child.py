"""A stage as a process of its own: a GPU's memory comes back when it ends, and an interrupted kernel loses nothing.

On a CPU a stage runs where it is called.  The child is told its settings by a file, shows its progress bars where the
parent would, and what it refuses is refused by the parent in the same line.  So a notebook's kernel never holds memory
of a GPU: what it wants of a model, scores or answers, it asks a child for as well.  A child may be several ranks, here
or on a cluster (`engine.launch`): each does what this file says, and the first one answers.
"""

import dataclasses
import functools
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from r1repro import config
from r1repro.engine import actor, launch
from r1repro.engine.launch import MARK
from r1repro.records import Refusal
from r1repro.run import out_folder, read_json, writable, write_json


def runs_here(machine: config.Machine) -> bool:
    """Whether a stage runs in this process: on a CPU alone, or because it is the child or a rank already."""
    return MARK in os.environ or launch.is_rank() or (machine.device == "cpu" and machine.launcher == "here")


def check(machine: config.Machine) -> None:
    """Refuse a machine that is not this one; what a cluster has is asked when a stage is started there.

    Raises:
        Refusal: the device is not here, there are too few, or Ray is not installed.
    """
    if runs_here(machine) or machine.launcher != "ray":
        actor.check_device(machine.device)
    if not runs_here(machine):
        launch.check(machine)


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
        Stopped: it was asked to stop, and has.
    """
    afar = settings.machine.launcher == "ray"
    told = {"kind": kind, "settings": dataclasses.asdict(settings), "call": call}
    paths = [str(one.absolute()) for one in arguments if isinstance(one, Path)]
    told |= {"arguments": _plain(arguments, afar), "paths": paths}
    place = _place(afar)
    write_json(place / "child.json", told)
    kept = False
    try:
        _wait(launch.command(settings.machine, "r1repro.stages.child", place / "child.json"))
        return _whole(read_json(place / "answer.json")["found"])
    except Refusal:
        kept = afar and not launch.outcomes(place)  # ranks died: what they wrote last is in their logs
        raise
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)


def _place(afar: bool) -> Path:
    """A new folder for what a child is told and tells; all nodes see it if they see the folder of all runs."""
    if not afar:
        return Path(tempfile.mkdtemp(prefix="r1repro-"))
    folder = out_folder().absolute() / "ranks"
    writable(folder)
    return Path(tempfile.mkdtemp(dir=folder))


def of_its_own(kind: str, *, alone: bool = False) -> Callable[[Callable], Callable]:
    """Makes a function of settings and more one that runs in a child where the settings' machine is a GPU.

    Its name in the module of `KINDS` is its own.

    Args:
        alone: it is too small to be shared, so one rank does it wherever there are several.
    """

    def decorated(work: Callable) -> Callable:
        @functools.wraps(work)
        def stage(settings: Any, *arguments: Any) -> Any:
            config.check_runnable(settings.tier)
            if runs_here(settings.machine):
                with at_work(settings.machine):
                    return work(settings, *arguments)
            check(settings.machine)
            if alone:
                settings = replace(settings, machine=replace(settings.machine, ranks=1))
            return run(kind, settings, *arguments, call=work.__name__)

        return stage

    return decorated


def _plain(value: Any, afar: bool = False) -> Any:
    """What can be written as JSON, paths marked as such, and whole where they are to be read elsewhere."""
    if isinstance(value, Path):
        return {"path": str(value.absolute() if afar else value)}
    return [_plain(one, afar) for one in value] if isinstance(value, list | tuple) else value


def _whole(value: Any) -> Any:
    """What `_plain` was given, with tuples for lists."""
    if isinstance(value, dict):
        return Path(value["path"])
    return tuple(_whole(one) for one in value) if isinstance(value, list) else value


def _wait(command: list[str]) -> None:
    """Run a child to its end."""
    launch.wait(command, Path(command[-1]).parent)


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


@contextmanager
def at_work(machine: config.Machine) -> Iterator[None]:
    """Within: a stage is done here, by one process or as one rank of several.

    Raises:
        Refusal: see `speaking_of_memory`.
    """
    with speaking_of_memory(machine), launch.at_work():
        yield


def main(file: Path) -> int:
    """What the child does, and each of its ranks; returns its exit code."""
    launch.tie()
    place = file.parent
    if launch.outcomes(place):
        return 0  # started again, though a rank has refused or was asked to stop
    told = read_json(file)
    work = importlib.import_module(KINDS[told["kind"]][1])
    try:
        settings = read_settings(told["kind"], told["settings"])
        found = getattr(work, told["call"])(settings, *_whole(told["arguments"]))
        if launch.is_first():
            write_json(place / "answer.json", {"found": _plain(found)})
    except Refusal as refusal:
        launch.end(place, refused=str(refusal))
        sys.stderr.write(f"\nr1repro: {refusal}\n")
        return 2
    except KeyboardInterrupt as stopped:
        number = getattr(stopped, "number", signal.SIGINT)
        launch.end(place, stopped=int(number))
        sys.stderr.write("\nr1repro: stopped\n")
        return 0 if launch.is_rank() else 128 + number
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
