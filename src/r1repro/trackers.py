"""The metrics of a run once more, as TensorBoard reads them: `tensorboard --logdir out`.

One file a run, of a fixed name, appended to line by line beside metrics.jsonl and written anew from it when a run is
taken up: what a killed process left half written is gone then.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "events.out.tfevents.0.r1repro"


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
