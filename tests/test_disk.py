"""A disk that fills up, or a folder that turns read-only, at ten places of every stage: one line, and nothing is lost.

Python tells an audit hook of each file that it opens for writing, each folder it makes and each rename, and lets the
hook fail it.  The place is a number: how many of these went well before.
"""

import errno
import os
import sys

import models
import pytest

from r1repro.records import Refusal
from r1repro.run import sha256_file

PLACES = 10


class Disk:
    """Counts what is written below a folder, and fails everything from the ``fail_at``-th write on."""

    def __init__(self):
        self.folder, self.count, self.fail_at, self.number = None, 0, None, 0

    def __call__(self, event, args):
        if self.folder is None or event not in ("open", "os.mkdir", "os.rename"):
            return
        path, *rest = args
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(self.folder):
            return
        if event == "open" and not (rest[1] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        self.count += 1
        if self.fail_at is not None and self.count > self.fail_at:
            raise OSError(self.number, os.strerror(self.number), os.fsdecode(path))


DISK = Disk()
sys.addaudithook(DISK)  # for good: Python has no way to take one off


@pytest.fixture
def disk():
    yield DISK
    DISK.folder = DISK.fail_at = None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A base model beside an evaluated seed, for the report."""
    folder = tmp_path_factory.mktemp("model")
    base = models.save_base(folder / "base")
    models._an_evaluated_seed(folder / "out" / "smoke" / "seed-0", base)
    return base


def attempt(disk, program, run, model, fail_at=None, number=0) -> int:
    """Run a stage, counting its writes below the folder of ``run``; returns how many there were."""
    disk.folder, disk.count, disk.fail_at, disk.number = str(run.parent), 0, fail_at, number
    try:
        program(run, model)
    finally:
        disk.folder = None
    return disk.count


@pytest.mark.parametrize("stage", models.STAGES)
def test_a_stage_that_cannot_write_says_so_in_one_line_and_goes_on_later(stage, disk, model, tmp_path, monkeypatch):
    monkeypatch.setitem(models.base.SHAPES, "tiny-test", models.TINY_SHAPE)
    program, result = models.STAGES[stage]
    writes = attempt(disk, program, tmp_path / "undisturbed" / "run", model)
    expected = sha256_file(tmp_path / "undisturbed" / "run" / result)
    assert writes > PLACES
    for i in range(PLACES):
        run = tmp_path / f"try-{i}" / "run"
        number = (errno.ENOSPC, errno.EROFS)[i % 2]
        with pytest.raises(Refusal) as caught:
            attempt(disk, program, run, model, fail_at=i * writes // PLACES, number=number)
        line = str(caught.value)
        assert "\n" not in line and "cannot write" in line and str(run.parent) in line
        assert ("disk is full" if number == errno.ENOSPC else "ead-only") in line
        attempt(disk, program, run, model)
        assert sha256_file(run / result) == expected, f"after a failure at write {i * writes // PLACES} of {writes}"
