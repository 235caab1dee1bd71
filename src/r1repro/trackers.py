"""The metrics of a run once more, for the tools that people watch runs with.

TensorBoard (`tensorboard --logdir out`): one file a run, of a fixed name, appended to line by line beside metrics.jsonl
and written anew from it when a run is taken up: what a killed process left half written is gone then.

wandb and trackio, where they are installed: told each step as it is logged.  Both keep to this machine unless their own
settings say otherwise (WANDB_MODE=online, TRACKIO_SPACE_ID).  R1REPRO_TRACKERS names those to be told; empty: none.
What a tracker does never stops a run.
"""

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "events.out.tfevents.0.r1repro"
PROJECT = "r1repro"
OTHERS = ("wandb", "trackio")


def append(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """One more step."""
    file = folder / FILE
    new = not file.exists()
    with file.open("ab") as out:
        _write(out, [*([_header()] if new else []), _event(step, values)])


def rewrite(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """All steps anew, from the rows of metrics.jsonl; under a temporary name first."""
    file = folder / FILE
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as out:
        _write(out, [_header(), *(_event(row["step"], row) for row in rows)])
    temporary.replace(file)


def _write(out, events: Iterable) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = RecordWriter(out)
    for event in events:
        records.write(event.SerializeToString())


def _header():
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time.time(), file_version="brain.Event:2")


def _event(step: int, values: Mapping[str, Any]):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=key, simple_value=value) for key, value in values.items() if key != "step"]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))


class Watchers:
    """Those of `OTHERS` that are installed and wanted, begun for one run when the first step is logged."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        wanted = os.environ.get("R1REPRO_TRACKERS")
        names = OTHERS if wanted is None else [name for name in OTHERS if name in wanted.replace(",", " ").split()]
        place = Path(folder).absolute()
        self._told = {}
        for name in names:
            if importlib.util.find_spec(name) is not None:
                self._try(name, lambda name=name: self._begin(name, place, dict(config)))

    def _begin(self, name: str, place: Path, config: dict[str, Any]) -> None:
        tool, called = importlib.import_module(name), f"{place.parent.name}/{place.name}"
        if name == "wandb":
            mode = os.environ.get("WANDB_MODE", "offline")
            self._told[name] = tool.init(project=PROJECT, name=called, dir=str(place), config=config, mode=mode)
        else:
            tool.init(project=PROJECT, name=called, config=config, resume="allow", embed=False)
            self._told[name] = tool

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, run in list(self._told.items()):
            self._try(name, lambda run=run: run.log(dict(values), step=step))

    def finish(self) -> None:
        for name, run in list(self._told.items()):
            self._try(name, run.finish)
        self._told = {}

    def _try(self, name: str, act) -> None:
        """A tracker that fails is told of once, and left."""
        try:
            act()
        except Exception as error:
            self._told.pop(name, None)
            sys.stderr.write(f"{name} is told nothing more of this run ({' '.join(str(error).split())[:200]})\n")
