"""The rows of a big batch job, made shard by shard by any number of workers: each row once, whoever is killed.

    job.json                   what the job is of: fingerprint, number of rows, rows a shard, lease
    shard-000123.jsonl         a finished shard: its rows, and a last line with their number and SHA-256, who and when
    shard-000123.claim-1       a worker is at it, and lives while the file is touched; claim-2: it was taken over
    end.claim-1                the same for the worker that looks through all shards once they are there
    whole.json                 there once that worker has found nothing wrong

A worker is any process that opens the job, on any machine that sees the folder.  There are no numbers of workers, no
master and no messages: they come, go and die as they like.  A claim is never removed and never changes hands: to take
over is to make the next one, which one worker alone can.

What this relies on.  Of the rows: each is a function of settings, seed and item, not of who makes it or beside what.
Of the file system: of several who create a file exclusively one succeeds; a rename is seen as a whole; what was closed
before it got its name is whole to who opens it then.  POSIX promises that, and so does NFS from version 3 on, where a
file is opened to learn when it was touched: answers to who merely asks may be a minute old.  A hard link to a name that
is taken fails, so the first to finish a shard stays; where there are no hard links the last does, and says the same.
Of clocks: the age of a claim lies between two times that the file system set, of the claim and of a file that the
worker has just touched.  On NFS both are the server's; elsewhere each may be that of the machine that touches (Lustre),
and those should agree to within a part of the lease.

A claim of a process that this machine had and has no more is old at once.  A wrong guess costs time and nothing else: a
shard of a worker that was thought dead is made twice, and one is thrown away.  A worker that hangs and does not die
keeps its claim: kill it.
"""

import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from tqdm.auto import tqdm

from r1repro.records import Refusal
from r1repro.run import append_lines, now, read_json, readable, sha256_file, speaking_of, writable

LEASE_S = 60.0
"""Ours: a claim that was not touched for so long is taken over.  What a kill costs, beside the shard in hand, and far
beyond what a file server that is busy lets a worker wait."""

BEATS = 6
"""Touches of a claim in the time of a lease: five may be lost."""

POLL_S = 1.0
"""Ours: between two looks of a worker that has nothing to do."""

_SHARD = re.compile(r"shard-(\d+)\.jsonl")
_CLAIM = re.compile(r"(.+)\.claim-(\d+)")
_HOST = socket.gethostname()


class Claims:
    """Who is at what in a folder, and the claim in hand, one at most: a thread touches its file inside ``with``."""

    def __init__(self, folder: Path, lease_s: float, beat: Callable[[], None] = lambda: None):
        self.folder, self.lease_s, self._also = folder, lease_s, beat
        self.token = secrets.token_hex(6)
        self.who = f"{_HOST}:{os.getpid()}:{self.token}"
        self.poll_s = min(POLL_S, lease_s / BEATS)
        self._clock = folder / f"clock-{self.token}"
        self._held: Path | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claims":
        with speaking_of(self._clock), suppress(FileNotFoundError):  # the folder is gone: `take` will say so
            self._clock.touch()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()
        self.release()
        with suppress(OSError):
            self._clock.unlink()

    def may_take(self, name: str, newest: int) -> bool:
        """Whether the newest claim of ``name`` is old, or there is none."""
        if not newest:
            return True
        file = self.folder / f"{name}.claim-{newest}"
        return self._now_s() - _touched_s(file) > self.lease_s or _has_died(file.read_text(encoding="utf-8"))

    def take(self, name: str, newest: int) -> bool:
        """Claim ``name``, whose newest claim is number ``newest`` (0: there is none), if that is older than the lease.

        False: a worker is at it, or another was faster.

        Raises:
            FileNotFoundError: the folder is gone.
            Refusal: the folder cannot be written.
        """
        if not self.may_take(name, newest):
            return False
        file = self.folder / f"{name}.claim-{newest + 1}"
        try:
            with open(file, "x", encoding="utf-8") as made:
                made.write(f"{self.who}\n")
        except FileExistsError:
            return False
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            with speaking_of(file):
                raise
        with self._lock:
            self._held = file
        return True

    def release(self) -> None:
        """Give up the claim in hand: from now on it counts as old."""
        with self._lock:
            if self._held:
                with suppress(FileNotFoundError):
                    os.utime(self._held, (0, 0))
            self._held = None

    def _now_s(self) -> float:
        """The time of the file system."""
        self._clock.touch()
        return _touched_s(self._clock)

    def _beat(self) -> None:
        while not self._over.wait(self.lease_s / BEATS):
            with self._lock, suppress(OSError):  # what cannot be touched is taken over: that is what it is for
                if self._held:
                    os.utime(self._held)
            self._also()


def _touched_s(file: Path) -> float:
    with open(file, "rb") as opened:
        return os.fstat(opened.fileno()).st_mtime


def _has_died(who: str) -> bool:
    """Whether a worker was a process of this machine, which is gone; not if its number is another's by now."""
    host, pid, *_ = (*who.strip().split(":"), "", "")
    if host != _HOST or not pid.isdigit():
        return False
    return not psutil.pid_exists(int(pid))


def newest(folder: Path) -> dict[str, int]:
    """Number of the newest claim in a folder, by name."""
    return _look(folder)[1]


def _look(folder: Path) -> tuple[set[int], dict[str, int]]:
    """Numbers of the finished shards, and the number of the newest claim by name."""
    done: set[int] = set()
    claims: dict[str, int] = {}
    for file in os.listdir(folder):
        if found := _SHARD.fullmatch(file):
            done.add(int(found[1]))
        elif found := _CLAIM.fullmatch(file):
            claims[found[1]] = max(claims.get(found[1], 0), int(found[2]))
    return done, claims


@contextmanager
def turn(folder: Path, name: str) -> Iterator[None]:
    """Inside, this worker alone: the others wait, or take the turn over if it dies.  Nobody waits once the folder is
    gone."""
    writable(folder)
    with Claims(folder, LEASE_S) as claims:
        with suppress(FileNotFoundError):
            while not claims.take(name, newest(folder).get(name, 0)):
                time.sleep(claims.poll_s)
        yield


class Job:
    """Rows to be made, of items 0 to ``rows - 1``.  Make it with `open`; work inside ``with``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with Job.open(Path(place), "squares", 5, size=2) as job:
    ...         for items in job.take():
    ...             _ = job.keep({"square": i * i} for i in items)
    ...     b"".join(joined(Path(place))).decode().split()[-1]
    '16}'
    """

    def __init__(self, folder: Path, rows: int, size: int, lease_s: float, desc: str = "", unit: str = "row"):
        self.folder, self.rows, self.size = folder, rows, size
        self._new_bar = partial(tqdm, total=rows, desc=desc, unit=unit)
        self.last = False
        """Whether this worker has found all shards whole: while it holds the job open no other worker ends."""
        self.seals: list[dict[str, Any]] = []
        """What the last lines of the shards say, once all are whole."""
        self._claims = Claims(folder, lease_s, self._show)
        self._hand: tuple[int, float] | None = None
        self._own = 0

    @classmethod
    def open(
        cls, folder: Path, of: Any, rows: int, size: int, *, lease_s: float = 0.0, desc: str = "", unit: str = "row"
    ) -> "Job":
        """Begin a job, or join it.

        Args:
            of: what the rows depend on, as JSON holds it.
            size: rows a shard; of a job that lies there already it is as its first worker had it, and so is the lease.
            lease_s: 0 for `LEASE_S`.
            desc: of the progress bar, which counts the rows of all workers.

        Raises:
            Refusal: another job in the folder; it cannot be written.
        """
        folder = Path(folder)
        writable(folder)
        file, wanted = folder / "job.json", {"of": json.loads(json.dumps(of)), "rows": rows}
        if not file.exists():
            text = json.dumps(wanted | {"size": size, "lease_s": lease_s or LEASE_S}, indent=1) + "\n"
            _put_first(file, [text.encode()])
        try:
            there = read_json(file)
        except FileNotFoundError:  # a last worker has just removed it
            return cls.open(folder, of, rows, size, lease_s=lease_s, desc=desc, unit=unit)
        with readable(file):
            if differs := [key for key in wanted if there[key] != wanted[key]]:
                was, asked = (str(what[differs[0]])[:60] for what in (there, wanted))
                raise Refusal(
                    f"{folder} holds another job ({differs[0]} {was} there, {asked} now): choose another folder, or "
                    "move that one away"
                )
            return cls(folder, rows, int(there["size"]), float(there["lease_s"]), desc, unit)

    def __enter__(self) -> "Job":
        self.bar = self._new_bar()
        self._claims.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.last and kind is None and self.folder.exists():
            put_json(self.folder / "whole.json", {"rows": self.rows})
        self._claims.__exit__(kind, error, trace)
        self.bar.close()

    def items(self, number: int) -> range:
        """Items of a shard.

        >>> Job(Path(), 5, 2, LEASE_S).items(2)
        range(4, 5)
        """
        return range(number * self.size, min((number + 1) * self.size, self.rows))

    @property
    def who(self) -> str:
        """This worker, for people."""
        return self._claims.who

    @property
    def numbers(self) -> range:
        """Of the shards."""
        return range(-(-self.rows // self.size))

    def take(self, pause: Callable[[], None] = lambda: None) -> Iterator[range]:
        """The items of a shard, claimed, and of another, until all shards are whole; their rows go to `keep`.

        Damaged shards are made again.  Ends too where the folder is gone, as the last worker may leave it.

        Args:
            pause: called after each shard and while there is nothing to do; what it raises ends the work.
        """
        began_late = None
        try:
            while True:
                done, claims = _look(self.folder)
                missing = [number for number in self.numbers if number not in done]
                self._show(done)
                began_late = not missing if began_late is None else began_late
                if not missing and self._ends(claims.get("end", 0), began_late):
                    return
                for number in sorted(missing, key=lambda n: claims.get(_name(n), 0)):  # what nobody has begun first
                    if self._claims.take(_name(number), claims.get(_name(number), 0)):
                        if not self._file(number).exists():  # it may have come since we looked
                            self._hand = number, time.monotonic()
                            yield self.items(number)
                        self._claims.release()
                        break
                else:
                    time.sleep(self._claims.poll_s)
                pause()
        except FileNotFoundError:
            if self.folder.exists():
                raise

    def keep(self, rows: Iterable[dict[str, Any]]) -> bool:
        """Put the rows of the shard in hand in place; False where another worker was first with it."""
        assert self._hand is not None, "no shard in hand"
        number, began = self._hand
        placed = self.place(number, rows, time.monotonic() - began)
        self._hand, self._own = None, 0
        return placed

    def place(self, number: int, rows: Iterable[dict[str, Any]], wall_s: float = 0.0) -> bool:
        """Put the rows of any shard in place; False where it lay there."""
        file = self._file(number)
        if file.exists():
            return False
        rows = list(rows)
        assert len(rows) == len(self.items(number)), f"{len(rows)} rows of {self.items(number)}"
        temporary = beside(file)
        try:
            append_lines(temporary, rows)
            about = {"shard": number, "rows": len(rows), "sha256": sha256_file(temporary), "who": self._claims.who}
            append_lines(temporary, [{"manifest": about | {"when": now(), "wall_s": round(wall_s, 3)}}])
            return _named_first(temporary, file)
        except (Refusal, FileNotFoundError):
            if self.folder.exists():
                raise
            return False  # the last worker was content without us, and has removed it
        finally:
            temporary.unlink(missing_ok=True)

    def update(self, rows: int = 1) -> None:
        """So many rows of the shard in hand are made, for the progress bar."""
        self._own += rows
        self.bar.update(rows)

    def _ends(self, newest: int, began_late: bool) -> bool:
        """Whether all is done: this worker has looked through the shards, or, unless it came when all were there
        already, another has."""
        if self._is_whole(began_late):
            return True
        if not self._claims.take("end", newest):
            return False
        if self._is_whole(began_late):  # it has become so since
            self._claims.release()
            return True
        self.seals = []
        for number in self.numbers:
            if found := _sealed(self._file(number), number, len(self.items(number))):
                self.seals.append(found[0])
            else:
                with suppress(FileNotFoundError):
                    self._file(number).rename(self._file(number).with_suffix(".damaged"))
        self.last = len(self.seals) == len(self.numbers)
        if not self.last:
            self._claims.release()
        return self.last

    def _is_whole(self, began_late: bool) -> bool:
        return not began_late and (self.folder / "whole.json").exists()

    def _file(self, number: int) -> Path:
        return self.folder / f"{_name(number)}.jsonl"

    def _show(self, done: set[int] | None = None) -> None:
        """Rows of all workers: of finished shards, and of ours in hand."""
        with suppress(OSError):
            done = _look(self.folder)[0] if done is None else done
            self.bar.n = sum(len(self.items(number)) for number in done) + self._own
            self.bar.refresh()


def joined(folder: Path) -> Iterator[bytes]:
    """The rows of each shard of a finished job as lines, in the order of the items, held against its last line.

    Raises:
        Refusal: a shard is missing or damaged.
    """
    job = read_json(folder / "job.json")
    with readable(folder / "job.json"):
        rows, size = job["rows"], job["size"]
    for number, first in enumerate(range(0, rows, size)):
        file = folder / f"{_name(number)}.jsonl"
        if not (found := _sealed(file, number, min(size, rows - first))):
            what = "damaged" if file.exists() else "missing"
            raise Refusal(f"{file} is {what}: start a worker again, it makes that shard anew")
        yield found[1]


def _sealed(file: Path, number: int, count: int) -> tuple[dict[str, Any], bytes] | None:
    """What the last line of a shard says, and its rows; None where that is not so, or it is not there."""
    try:
        data = file.read_bytes()
        start = data.rindex(b"\n", 0, -1) + 1
        about = json.loads(data[start:])["manifest"]
        told = about["shard"], about["rows"], about["sha256"], data[-1:]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    rows = data[:start]
    return (about, rows) if told == (number, count, hashlib.sha256(rows).hexdigest(), b"\n") else None


def put(file: Path, parts: Iterable[bytes]) -> None:
    """Write a file that several workers may write at a time: a reader sees that of one of them, whole."""
    temporary = beside(file)
    with speaking_of(file):
        try:
            _write(temporary, parts)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def put_json(file: Path, value: Any) -> None:
    """`run.write_json`, as `put` does it."""
    put(file, [json.dumps(value, indent=1, ensure_ascii=False).encode(), b"\n"])


def _put_first(file: Path, parts: Iterable[bytes]) -> bool:
    """As `put`, but what is there stays; False then."""
    temporary = beside(file)
    with speaking_of(file):
        try:
            _write(temporary, parts)
            return _named_first(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def _write(file: Path, parts: Iterable[bytes]) -> None:
    with open(file, "xb") as out:
        out.writelines(parts)


def _named_first(temporary: Path, file: Path) -> bool:
    """Give a file its name, once it is on the disk; False where the name is taken."""
    with speaking_of(file):
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: whoever comes last stays, and says the same
            os.replace(temporary, file)
        return True


def beside(file: Path) -> Path:
    """A name beside a file that nobody else has."""
    return file.with_name(f"{file.name}.{secrets.token_hex(6)}")


def _name(number: int) -> str:
    return f"shard-{number:06d}"
