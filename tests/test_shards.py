"""Shards: whatever is killed, held up, torn or mixed up, each row is there once, and a run is that of one process."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import shard_worker
from shard_worker import ROWS, SIZE, row

from r1repro.engine import shards, work
from r1repro.records import Refusal
from r1repro.run import Run, read_json, read_lines, write_json

MODELS = Path(__file__).with_name("models.py")
ALL = [row(item) for item in range(ROWS)]


def lines(folder):
    return [json.loads(line) for part in shards.joined(folder) for line in part.decode().split("\n") if line]


def finish(folder, **changes):
    """One worker to the end; returns the first items of the shards that it made."""
    with shard_worker.job(folder, **changes) as job:
        return [(items.start, job.keep(row(i) for i in items))[0] for items in job.take()]


def grow_old(folder, name="*"):
    for file in folder.glob(f"{name}.claim-*"):
        os.utime(file, (1, 1))


# --- real processes, killed


def test_no_row_is_lost_and_none_comes_twice_whoever_is_killed(tmp_path):
    """Nine of three workers are killed, or held up for longer than a lease, while at a shard, and others take over."""
    folder, draw, kills = tmp_path / "job", random.Random(0), 0
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start():
        return subprocess.Popen(
            [sys.executable, shard_worker.__file__, str(folder)], env=env, stderr=subprocess.DEVNULL
        )

    workers, stopped = [start() for _ in range(3)], []
    while any(worker.poll() is None for worker in workers):
        time.sleep(draw.uniform(0.02, 0.12))
        victim = draw.choice(workers)
        if kills < 9 and victim.poll() is None and at_work(folder, victim.pid):
            if kills in (3, 6):
                victim.send_signal(signal.SIGSTOP)
                stopped.append(victim)
            else:
                victim.kill()
                victim.wait()
            workers[workers.index(victim)] = start()
            kills += 1
    for worker in stopped:
        worker.send_signal(signal.SIGCONT)
    assert [worker.wait(timeout=20) for worker in [*workers, *stopped]] == [0] * 5
    assert kills == 9 and lines(folder) == ALL
    assert list(folder.glob("shard-*.claim-2")), "nothing was taken over"
    assert len(list(folder.glob("shard-*.jsonl"))) == -(-ROWS // SIZE) and not list(folder.glob("*.damaged"))


def at_work(folder, pid):
    claims = [file.read_text() for file in folder.glob("shard-*.claim-*") if not shard_of(file).exists()]
    return any(f":{pid}:" in who for who in claims)


def shard_of(claim):
    return claim.with_name(claim.name.partition(".")[0] + ".jsonl")


# --- claims


def test_of_two_takers_of_an_old_claim_one_succeeds(tmp_path):
    with shards.Claims(tmp_path, 5.0) as dead, shards.Claims(tmp_path, 5.0) as one, shards.Claims(tmp_path, 5.0) as two:
        assert dead.take("a", 0) and not one.take("a", 1)
        grow_old(tmp_path)
        assert one.take("a", 1)
        assert not two.take("a", 1)  # it had looked before, and thinks as the first one did
        assert not two.take("a", 2)  # it looks again


def test_of_many_takers_at_once_one_succeeds(tmp_path):
    (tmp_path / "a.claim-1").write_text("dead\n")
    grow_old(tmp_path)
    barrier, took = threading.Barrier(8), []

    def taker():
        with shards.Claims(tmp_path, 5.0) as claims:
            barrier.wait()
            took.append(claims.take("a", 1))
            barrier.wait()

    threads = [threading.Thread(target=taker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took) == [False] * 7 + [True]


def test_a_claim_is_kept_for_as_long_as_its_worker_lives(tmp_path):
    with shards.Claims(tmp_path, 0.3) as busy, shards.Claims(tmp_path, 0.3) as idle:
        assert busy.take("a", 0)
        for _ in range(8):
            time.sleep(0.1)
            assert not idle.take("a", 1)
        busy.release()
        assert idle.take("a", 1)


@pytest.mark.parametrize("off_s", [-86400, 86400])
def test_the_clock_of_a_worker_does_not_count(tmp_path, monkeypatch, off_s):
    with shards.Claims(tmp_path, 5.0) as busy, shards.Claims(tmp_path, 5.0) as idle:
        busy.take("a", 0), busy.take("b", 0)
        grow_old(tmp_path, "b")
        honest = time.time
        monkeypatch.setattr(time, "time", lambda: honest() + off_s)
        assert not idle.take("a", 1) and idle.take("b", 1)


def test_a_worker_that_stops_gives_its_shard_up_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt), shard_worker.job(tmp_path, lease_s=60.0) as job:
        for _ in job.take():
            raise KeyboardInterrupt
    began = time.monotonic()
    assert finish(tmp_path) == [*range(SIZE, ROWS, SIZE), 0] and time.monotonic() - began < 5


# --- shards


@pytest.mark.parametrize("first", ["sleeper", "other"])
def test_a_worker_that_wakes_up_after_its_claim_was_taken_over(tmp_path, first):
    with shard_worker.job(tmp_path) as sleeper, shard_worker.job(tmp_path) as other:
        asleep, elsewhere, kept = sleeper.take(), other.take(), []
        items = next(asleep)
        sleeper._claims._over.set()  # it touches its claim no more
        while (others := next(elsewhere)) != items:
            other.keep(row(i) for i in others)
        early, late = (sleeper, other) if first == "sleeper" else (other, sleeper)

        def overtaken():  # the rows of the late one, who begins to write before the early one is done
            kept.append(early.keep(row(i) for i in items))
            yield from (row(i) for i in items)

        kept.append(late.keep(overtaken()))
        assert kept == [True, False]
        assert f'"who": "{early.who}"' in (tmp_path / "shard-000000.jsonl").read_text(encoding="utf-8")
        for job, taken in ((sleeper, asleep), (other, elsewhere)):
            for more in taken:
                job.keep(row(i) for i in more)
    assert lines(tmp_path) == ALL


DAMAGE = {
    "cut short": lambda data: data[:-40],
    "without its last line": lambda data: data[: data.rindex(b"\n", 0, -1) + 1],
    "without a row": lambda data: data[data.index(b"\n") + 1 :],
    "a flipped bit": lambda data: bytes([*data[:20], data[20] ^ 1, *data[21:]]),
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("change", [*DAMAGE, "another shard's"])
def test_a_damaged_shard_is_found_and_made_again(tmp_path, change):
    finish(tmp_path)
    file = tmp_path / "shard-000004.jsonl"
    if change in DAMAGE:
        file.write_bytes(DAMAGE[change](file.read_bytes()))
    else:
        shutil.copy(tmp_path / "shard-000005.jsonl", file)
    with pytest.raises(Refusal, match="shard-000004.jsonl is damaged: start a worker again"):
        lines(tmp_path)
    assert finish(tmp_path) == [12]
    assert lines(tmp_path) == ALL


def test_what_is_damaged_before_the_end_is_made_again_by_the_last_worker(tmp_path):
    made = []
    with shard_worker.job(tmp_path) as job:
        for items in job.take():
            made.append(items.start)
            job.keep(row(i) for i in items)
            if items.start == 9:
                (tmp_path / "shard-000001.jsonl").write_bytes(b"{")
                (tmp_path / "shard-000007.jsonl.0123abcd").write_bytes(b'{"item": 2')  # of a worker that was killed
    assert made == [*range(0, ROWS, SIZE), 3] and lines(tmp_path) == ALL


def test_a_missing_shard_is_named(tmp_path):
    finish(tmp_path)
    (tmp_path / "shard-000002.jsonl").unlink()
    with pytest.raises(Refusal, match="shard-000002.jsonl is missing"):
        lines(tmp_path)
    assert finish(tmp_path) == [6] and lines(tmp_path) == ALL


def test_without_hard_links_rows_are_the_same(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    finish(tmp_path)
    assert lines(tmp_path) == ALL and not [file for file in tmp_path.iterdir() if file.name.count(".") > 1]


def test_progress_counts_the_rows_of_all_workers(tmp_path):
    with shard_worker.job(tmp_path) as one, shard_worker.job(tmp_path) as two:
        first, second = one.take(), two.take()
        one.keep(row(i) for i in next(first))
        next(first)
        next(second)
        two.update(2)
        assert two.bar.n == SIZE + 2 and two.bar.total == ROWS


# --- what a person passed


def test_another_job_in_the_folder_is_refused(tmp_path):
    finish(tmp_path)
    for change in ({"rows": 51}, {"of": {"seed": 1}}):
        with pytest.raises(Refusal, match="holds another job .*: choose another folder") as caught:
            shard_worker.job(tmp_path, **change)
        assert "\n" not in str(caught.value)
    assert finish(tmp_path, size=7, lease_s=9.0) == []  # how it is cut is for its first worker to say


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot write .*file/job: Not a directory"):
        shard_worker.job(tmp_path / "file" / "job")


def test_a_damaged_job_is_refused(tmp_path):
    shard_worker.job(tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(Refusal, match="job.json is damaged"):
        shard_worker.job(tmp_path)


# --- the work of a run


@dataclass
class Settings:
    rows: int = 10


class Stage:
    """A stage like those of ours: rows in chunks of three; ``made`` are the first items of those that this one made."""

    def __init__(self, folder, shared=True):
        self.folder, self.made = Path(folder), []
        self.run = work.open_run(
            self.folder, lambda: Run.open(folder, stage="test", config=Settings(), inputs={}), shared
        )
        self.job = None if self.run.complete else work.of(self.run, 10, 3, shared, desc="testing", unit="row")

    def go(self, stop_after=99, dies_in=""):
        if self.job is None:
            return self
        with self.job as job:
            for items in job.take(lambda: None):
                if len(self.made) == stop_after:
                    raise KeyboardInterrupt
                self.made.append(items.start)
                job.keep({"step": i + 1, "text": f"行 {i / 7}"} for i in items)
            if dies_in == "end":
                raise KeyboardInterrupt
            if not job.elsewhere:
                write_json(self.folder / "summary.json", {"rows": len(self.run.samples())})
                self.run.finish()
        return self


def left(folder):
    """What is in a run folder, but for times."""
    manifest = {k: v for k, v in read_json(folder / "manifest.json").items() if k not in ("started", "ended", "wall_s")}
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.name != "manifest.json"}
    return found | {"manifest": {k: v for k, v in manifest.items() if k not in ("workers", "startup_s")}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return left(Stage(tmp_path_factory.mktemp("alone") / "run", shared=False).go().folder)


def test_a_shared_run_leaves_what_one_process_leaves(tmp_path, alone):
    stage = Stage(tmp_path / "run").go()
    assert left(stage.folder) == alone and stage.run.manifest["workers"] == 1
    assert Stage(tmp_path / "run").go().made == []


def test_workers_are_counted_and_their_seconds_added_up(tmp_path, alone):
    one, two = Stage(tmp_path / "run"), Stage(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        one.go(stop_after=2)
    file = tmp_path / "run" / "shards" / "shard-000000.jsonl"
    file.write_text(file.read_text().replace('"wall_s": 0.0', '"wall_s": 50.0'))
    two.go()
    assert one.made == [0, 3] and two.made == [9, 6] and left(two.folder) == alone
    found = read_json(tmp_path / "run" / "manifest.json")
    assert found["workers"] == 2 and found["wall_s"] > 50


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_run_goes_on_in_the_other_way(tmp_path, alone, before, after):
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path / "run", before).go(stop_after=2)
    stage = Stage(tmp_path / "run", after).go()
    assert sorted(stage.made) == [6, 9] and left(stage.folder) == alone


def test_a_worker_that_dies_at_the_end_is_replaced(tmp_path, alone):
    one, two = Stage(tmp_path / "run"), Stage(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        one.go(dies_in="end")
    assert left(two.go().folder) == alone and two.made == []


def test_a_worker_that_comes_when_all_is_done_makes_nothing(tmp_path, alone):
    early, late, later = Stage(tmp_path / "run"), Stage(tmp_path / "run"), Stage(tmp_path / "run")
    early.go()
    later.job._job = shards.Job.open(tmp_path / "run" / "shards", {}, 10, 3)  # it makes the folder that was removed
    assert late.go().made == later.go().made == []
    assert late.job.elsewhere and later.job.elsewhere and left(late.folder) == alone


def test_a_worker_that_is_still_at_a_shard_when_all_is_done(tmp_path, alone):
    slow, fast = Stage(tmp_path / "run"), Stage(tmp_path / "run")
    with slow.job as job:
        taken = job.take(lambda: None)
        items = next(taken)
        place = tmp_path / "run" / "shards"
        threading.Thread(target=lambda: (time.sleep(0.3), grow_old(place))).start()
        fast.go()
        job.keep({"step": i + 1, "text": "no"} for i in items)
        assert list(taken) == [] and job.elsewhere
    assert left(fast.folder) == alone


def test_shards_that_vanish_are_no_finished_run(tmp_path):
    stage = Stage(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "shards")
    with pytest.raises(Refusal, match="shards"):
        stage.go()
    assert not read_json(tmp_path / "run" / "manifest.json")["exit"]


def test_a_worker_with_other_versions_is_refused(tmp_path):
    manifest = Stage(tmp_path / "run").run.manifest
    manifest["versions"] = manifest["versions"] | {"python": "3.0", "torch": "1.0"}
    write_json(tmp_path / "run" / "manifest.json", manifest)
    with pytest.raises(Refusal, match="was begun with torch 1.0, this worker has 2.* one environment"):
        Stage(tmp_path / "run")


def test_several_workers_begin_a_run_at_the_same_moment(tmp_path, alone):
    barrier, made = threading.Barrier(4), []

    def worker():
        barrier.wait()
        made.extend(Stage(tmp_path / "run").go().made)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 3, 6, 9] and left(tmp_path / "run") == alone


def test_a_process_that_is_gone_from_this_machine_is_not_waited_for(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    with shards.Claims(tmp_path, 60.0) as claims:
        host, _, token = claims.who.split(":")
        for name, who in (("a", f"{host}:{gone.pid}:{token}"), ("b", f"another:{gone.pid}:{token}"), ("c", "")):
            (tmp_path / f"{name}.claim-1").write_text(f"{who}\n")
        assert [claims.take(name, 1) for name in "abc"] == [True, False, False]


# --- the stages themselves


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """What collection and evaluation left: of one process, and of two at a time, one of which was killed."""
    folder = tmp_path_factory.mktemp("stages")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(MODELS), "share", str(folder)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("stage", ["collect", "evaluate"])
def test_two_workers_one_of_them_killed_make_the_run_of_one_process(stages, stage):
    one, two = stages / stage / "alone", stages / stage / "shared"
    assert left(two) == left(one) and len(read_lines(one / "samples.jsonl")) == 24
    assert read_json(two / "manifest.json")["workers"] == 2 and "workers" not in read_json(one / "manifest.json")
    if stage == "collect":
        assert len(read_lines(one / "examples.jsonl")) > 4
