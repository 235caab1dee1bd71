"""The work of a run: its rows, chunk by chunk, made by one process or by all that call the stage with ``shared``.

A stage makes the rows of each chunk and hands them in.  It asks neither who makes the others nor what was made before:

    with work.of(run, rows, size, shared, desc=..., unit=...) as job:
        for items in job.take(interrupts.stop):
            job.keep(rows of items)
        if job.elsewhere:
            return            # another worker has finished the run
        ...                   # samples.jsonl is whole; this worker alone gets here

Alone, rows are appended to ``samples.jsonl``.  Shared, they lie in ``shards/`` of the run folder (see `shards`) until
the last worker joins them; ranks of one group share in this way, unless they must ask something all at once: then each
makes its part of every chunk (`InStep`), and the first one appends the rows as if it were alone.  A run that was begun
alone goes on shared, and the other way round: what one process has made counts as shards, and where there are shards a
stage is shared, told so or not.  Both end with the same files, but for the times and the number of workers in the
manifest; machines of several kinds round differently, so there a row is one of those that they would have made.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from r1repro.engine import dist, shards
from r1repro.records import Refusal
from r1repro.run import Run, environment, only_reading, read_json

FOLDER = "shards"
"""In the run folder, until the run is complete."""

IDENTITY = ("stage", "seed", "config", "inputs", "source")
"""What in a manifest a run's rows depend on."""


def open_run(run_dir: Path | str, opened: Callable[[], Run], shared: bool = False) -> Run:
    """What ``opened``, a `Run.open`, gives; of several workers that find no run one makes it."""
    place = Path(run_dir)
    alone = not shared and dist.num_ranks() == 1
    if alone or only_reading() or (place / "manifest.json").exists():
        return opened()
    with shards.turn(place / FOLDER, "begin"):
        return opened()


def check_seen(folder: Path | str) -> None:
    """Refuse a folder of shared work that does not exist yet: that is how a machine which does not see it is noticed.

    Raises:
        Refusal: no such folder.
    """
    if not Path(folder).is_dir():
        raise Refusal(
            f"no folder {folder} here: workers share one that is there before they start, so that a machine which does "
            f"not see it says so; mkdir -p {folder} once, on a disk that all of them see"
        )


def of(
    run: Run, rows: int, size: int, shared: bool = False, team: int = 1, in_step: bool = False, *, desc: str, unit: str
) -> "Alone | Shared | InTeam | InStep":
    """The work of a run that is not complete.

    Args:
        size: rows a chunk; in step, of each team.
        team: so many ranks make each chunk together (`Machine.tensor_parallel`).
        in_step: ranks make each chunk together, each a part of it, since they ask what all of them must ask at once.
        desc: of the progress bar.

    Raises:
        Refusal: shared with workers that have other versions of what computes; begun by such, and now to be made in
            step.
    """
    if in_step and dist.num_ranks() > 1:
        return InStep(run, rows, size, team, desc, unit)
    if dist.num_ranks() > 1 and team > 1:
        return InTeam(run, rows, size, team, desc, unit)
    if shared or dist.num_ranks() > 1 or (run.path / FOLDER).exists():
        return Shared(run, rows, size, desc, unit)
    return Alone(run, rows, size, desc, unit)


class Alone:
    """All chunks in this process, from where an earlier one stopped."""

    elsewhere = False

    def __init__(self, run: Run, rows: int, size: int, desc: str, unit: str):
        self._run, self._rows, self._size = run, rows, size
        self._done = len(run.samples()) // size * size
        self._new_bar = partial(tqdm, total=rows, initial=self._done, desc=desc, unit=unit)

    def __enter__(self) -> "Alone":
        self._run.rewind(self._done)
        self._bar = self._new_bar()
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def take(self, pause: Callable[[], None]) -> Iterator[range]:
        """The items of one chunk after another; ``pause`` is called after each."""
        for first in range(self._done, self._rows, self._size):
            yield range(first, min(first + self._size, self._rows))
            pause()

    def keep(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the rows of the chunk that was taken last."""
        self._run.add_samples(rows)
        self._run.keep_time()

    def update(self, rows: int = 1) -> None:
        """So many more rows are made, for the progress bar."""
        self._bar.update(rows)


class Shared:
    """Chunks that no other worker has made or is at; see `Alone` for what it does."""

    def __init__(self, run: Run, rows: int, size: int, desc: str, unit: str):
        self.elsewhere = False
        """Whether another worker has finished the run."""
        self._run, self._place = run, run.path / FOLDER
        _check_versions(run)
        identity = {key: run.manifest[key] for key in IDENTITY}
        self._job = shards.Job.open(self._place, identity, rows, size, desc=desc, unit=unit)

    def __enter__(self) -> "Shared":
        self._job.__enter__()
        before = [] if self._is_complete() else self._run.samples()
        for number in self._job.numbers:
            items = self._job.items(number)
            if items.stop <= len(before):
                self._job.place(number, before[items.start : items.stop])
        return self

    def __exit__(self, *error) -> None:
        if self._is_complete():
            _remove(self._place)
        self._job.__exit__(*error)

    def take(self, pause: Callable[[], None]) -> Iterator[range]:
        if not self._is_complete():  # it may have been finished, and its shards removed, since we opened it
            yield from self._job.take(pause)
        self.elsewhere = not self._job.last or self._is_complete()
        if self.elsewhere:
            if not self._is_complete():
                raise Refusal(f"{self._place} has vanished: give the same command again, and leave that folder alone")
            return
        try:
            shards.put(self._run.path / "samples.jsonl", shards.joined(self._place))
        except (Refusal, FileNotFoundError):
            self.elsewhere = self._is_complete()  # this worker slept, was thought dead, and another did it
            if not self.elsewhere:
                raise
            return
        others = [seal for seal in self._job.seals if seal["who"] != self._job.who]
        self._run.manifest["workers"] = len({seal["who"] for seal in others}) + 1
        self._run.manifest["wall_s"] += sum(seal["wall_s"] for seal in others)

    def keep(self, rows: Iterable[dict[str, Any]]) -> None:
        self._job.keep(rows)

    def update(self, rows: int = 1) -> None:
        self._job.update(rows)

    def _is_complete(self) -> bool:
        return read_json(self._run.path / "manifest.json").get("exit") == "complete"


class InTeam:
    """The same for ranks that hold one copy of vLLM's weights between them: the first of them takes chunks and keeps
    their rows, and all of them make them."""

    def __init__(self, run: Run, rows: int, size: int, team: int, desc: str, unit: str):
        self._team, self._job = team, Shared(run, rows, size, desc, unit) if dist.leads_team(team) else None
        self.elsewhere = True

    def __enter__(self) -> "InTeam":
        if self._job:
            self._job.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self._job:
            self._job.__exit__(*error)

    def take(self, pause: Callable[[], None]) -> Iterator[range]:
        own = self._job.take(pause) if self._job else iter(())
        while (items := dist.in_team(next(own, None), self._team)) is not None:
            yield items
        self.elsewhere = self._job.elsewhere if self._job else True

    def keep(self, rows: Iterable[dict[str, Any]]) -> None:
        made = list(rows)  # all of the team sample
        if self._job:
            self._job.keep(made)

    def update(self, rows: int = 1) -> None:
        if self._job:
            self._job.update(rows)


class InStep:
    """Chunks of which each rank, or each team, makes its share, all at the same time; the first writes their rows."""

    def __init__(self, run: Run, rows: int, size: int, team: int, desc: str, unit: str):
        if dist.led((run.path / FOLDER).exists):
            raise Refusal(
                f"{run.path} was begun by workers that take chunks as they come: go on with it with machine.shard=false"
            )
        self.elsewhere = not dist.leads()
        self._alone = Alone(run, rows, size * dist.num_ranks() // team, desc, unit) if dist.leads() else None
        self._team = team

    def __enter__(self) -> "InStep":
        if self._alone:
            self._alone.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self._alone:
            self._alone.__exit__(*error)

    def take(self, pause: Callable[[], None]) -> Iterator[range]:
        chunks = self._alone.take(lambda: None) if self._alone else iter(())
        while chunk := dist.led(lambda: next(chunks, None)):
            self._size = len(chunk)
            yield chunk[dist.share(len(chunk), self._team)]
            pause()

    def keep(self, rows: Iterable[dict[str, Any]]) -> None:
        made = dist.gathered(list(rows), self._team)
        if self._alone:
            self._alone.update(self._size)
            self._alone.keep(made)

    def update(self, rows: int = 1) -> None:
        """Rows are counted as they are kept: others make some of them."""


def _check_versions(run: Run) -> None:
    there, here = run.manifest.get("versions", {}), environment()["versions"]
    for name in here:
        if name != "python" and there.get(name) != here[name]:
            raise Refusal(
                f"{run.path} was begun with {name} {there.get(name)}, this worker has {here[name]}: give all of them "
                "one environment, or choose another run_dir"
            )


def _remove(folder: Path) -> None:
    """First its name, at once: a worker that is still at something there is to see that it is gone."""
    gone = folder.with_name(f"{folder.name}-{secrets.token_hex(6)}")
    with suppress(FileNotFoundError):
        os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
