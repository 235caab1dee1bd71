"""The run folder: taken up, found complete, or refused; never half written, never silently another run's."""

import builtins
import errno
import json
import os
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro import run as run_folder
from r1repro.records import Refusal
from r1repro.run import Run

MANIFEST_KEYS = {
    "stage", "config", "inputs", "source", "commit", "dirty", "versions", "hardware", "threads", "seed", "started",
    "ended", "wall_s", "exit",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    words: tuple[str, ...] = ("a",)


def take(path, *, stage="rl", config=None, inputs=None, seed=0):
    return Run.open(path, stage=stage, config=config or Settings(), inputs=inputs or {"base": "f00d"}, seed=seed)


def one_line(caught, *words):
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_the_manifest_says_what_was_asked_and_where(tmp_path):
    take(tmp_path / "a" / "b", seed=4)
    manifest = json.loads((tmp_path / "a" / "b" / "manifest.json").read_text())
    assert manifest.keys() >= MANIFEST_KEYS
    assert manifest["config"] == {"steps": 3, "words": ["a"]} and manifest["seed"] == 4
    assert manifest["inputs"] == {"base": "f00d"} and manifest["exit"] is None and manifest["ended"] is None
    assert len(manifest["source"]) == 64 and {"python", "torch", "transformers"} <= manifest["versions"].keys()
    assert manifest["threads"] >= 1 and manifest["hardware"]["cpu_count"] >= 1


def test_a_run_is_taken_up_with_what_it_logged(tmp_path):
    first = take(tmp_path)
    first.log(1, {"policy/loss": 0.5})
    first.keep_time()
    again = take(tmp_path)
    again.log(2, {"policy/loss": 0.25})
    assert not again.complete
    assert again.metrics() == [{"step": 1, "policy/loss": 0.5}, {"step": 2, "policy/loss": 0.25}]
    assert again.manifest["started"] == first.manifest["started"]


def test_a_finished_run_is_complete_for_the_same_question_alone(tmp_path):
    take(tmp_path).finish(tokens={"sampled": 5})
    done = take(tmp_path)
    assert done.complete and done.manifest["tokens"] == {"sampled": 5} and done.manifest["ended"]
    with pytest.raises(Refusal):
        take(tmp_path, seed=1)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(stage="evaluate"), ["stage"]),
        (dict(config=Settings(steps=4)), ["steps", "3", "4"]),
        (dict(config=Settings(words=("b",))), ["words"]),
        (dict(inputs={"base": "beef"}), ["base", "f00d", "beef"]),
        (dict(inputs={"base": "f00d", "more": "x"}), ["more"]),
        (dict(seed=1), ["seed", "0", "1"]),
    ],
)
def test_a_folder_of_another_run_is_refused_untouched(tmp_path, changes, words, finished):
    mine = take(tmp_path)
    mine.log(1, {"policy/loss": 0.5})
    if finished:
        mine.finish()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(Refusal) as caught:
        take(tmp_path, **changes)
    one_line(caught, str(tmp_path), *words)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_of_other_source_is_refused(tmp_path, monkeypatch):
    take(tmp_path).finish()
    monkeypatch.setattr(run_folder, "source_fingerprint", lambda: "0" * 64)
    with pytest.raises(Refusal) as caught:
        take(tmp_path)
    one_line(caught, "source", str(tmp_path))


def test_where_runs_are_only_read_finished_ones_of_any_source_are_and_none_is_made(tmp_path, monkeypatch):
    take(tmp_path / "done").finish()
    take(tmp_path / "half")
    monkeypatch.setattr(run_folder, "source_fingerprint", lambda: "0" * 64)
    monkeypatch.setenv("R1REPRO_READ_ONLY", "1")
    assert take(tmp_path / "done").complete
    for path, words in (("half", "is not complete"), ("new", "holds no run")):
        with pytest.raises(Refusal, match=words):
            take(tmp_path / path)
    assert not (tmp_path / "new").exists()
    with pytest.raises(Refusal, match="seed"):
        take(tmp_path / "done", seed=5)


def test_the_fingerprint_covers_what_changes_numbers_and_not_the_pictures(tmp_path, monkeypatch):
    package = tmp_path / "r1repro"
    for name in ("run.py", "plots.py", "algo/grpo.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("1")
    monkeypatch.setattr(run_folder, "__file__", str(package / "run.py"))
    fingerprint = run_folder.source_fingerprint.__wrapped__
    first = fingerprint()
    (package / "plots.py").write_text("2")
    assert fingerprint() == first
    (package / "algo/grpo.py").write_text("2")
    assert fingerprint() != first


# --- lines


@pytest.mark.parametrize("torn", ['{"step": 3, "pol', "{", '{"step": 3}'])
@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_a_line_that_was_half_written_is_dropped(tmp_path, torn, name):
    first = take(tmp_path)
    first.log(1, {"policy/loss": 1.0})
    first.add_samples([{"step": 1, "text": "检查 \u2028 \u0085 \r yes"}])
    with open(tmp_path / name, "a", encoding="utf-8") as file:
        file.write(torn)
    again = take(tmp_path)
    assert again.metrics() == [{"step": 1, "policy/loss": 1.0}]
    assert again.samples() == [{"step": 1, "text": "检查 \u2028 \u0085 \r yes"}]
    again.log(2, {"policy/loss": 2.0})
    assert [row["step"] for row in again.metrics()] == [1, 2]


def test_a_line_torn_within_a_character_is_dropped(tmp_path):
    first = take(tmp_path)
    first.add_samples([{"step": 1, "text": "是"}])
    with open(tmp_path / "samples.jsonl", "ab") as file:
        file.write('{"step": 2, "text": "是'.encode()[:-1])
    assert take(tmp_path).samples() == [{"step": 1, "text": "是"}]


def test_rewinding_forgets_what_came_after(tmp_path):
    mine = take(tmp_path)
    for step in (1, 2, 3, 4):
        mine.log(step, {"policy/loss": float(step)})
        mine.add_samples([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
    mine.rewind(2)
    assert [row["step"] for row in mine.metrics()] == [1, 2]
    assert [row["step"] for row in mine.samples()] == [1, 1, 2, 2]


@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none())), max_size=4))
def test_any_text_comes_back_from_samples(tmp_path_factory, rows):
    mine = take(tmp_path_factory.mktemp("run"))
    mine.add_samples(rows)
    assert mine.samples() == rows


def test_a_key_without_a_line_in_the_glossary_is_a_mistake_of_ours(tmp_path):
    with pytest.raises(AssertionError, match="glossary"):
        take(tmp_path).log(1, {"policy/lust": 1.0})


def test_seconds_add_up_over_sessions(tmp_path, monkeypatch):
    clock = iter([100.0, 103.0, 103.0, 200.0, 205.5, 205.5])
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: next(clock))
    take(tmp_path).keep_time()
    take(tmp_path).finish()
    assert json.loads((tmp_path / "manifest.json").read_text())["wall_s"] in (8.5, 105.0 - 96.5)


# --- a disk that is full, a folder that cannot be written, a file that is damaged


@pytest.mark.parametrize("damage", [b'{"stage": "rl", ', b"", b"\xff\xfe\x00", b"[]"])
def test_a_damaged_manifest_is_refused_by_name(tmp_path, damage):
    take(tmp_path)
    (tmp_path / "manifest.json").write_bytes(damage)
    with pytest.raises(Refusal) as caught:
        take(tmp_path)
    one_line(caught, str(tmp_path))


def test_damaged_metrics_are_refused_by_name(tmp_path):
    take(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(Refusal) as caught:
        take(tmp_path).metrics()
    one_line(caught, "metrics.jsonl")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(Refusal) as caught:
            take(path)
        one_line(caught, str(path))


def refuse(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    "number, word",
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EFBIG, "arge"),
        (errno.EROFS, "ead-only"),
        (errno.EIO, "rror"),
    ],
)
@pytest.mark.parametrize("where", ["open", "replace"])
def test_what_cannot_be_written_is_told_in_one_line_and_leaves_the_old(tmp_path, monkeypatch, number, word, where):
    mine = take(tmp_path)
    mine.log(1, {"policy/loss": 1.0})
    before = {name: (tmp_path / name).read_bytes() for name in ("manifest.json", "metrics.jsonl")}
    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr(builtins, "open", refuse(number))
            patch.setattr("pathlib.Path.write_bytes", refuse(number))
            writers = [lambda: mine.log(2, {"policy/loss": 2.0}), lambda: mine.add_samples([{"step": 2}]), mine.finish]
        else:
            patch.setattr(os, "replace", refuse(number))
            writers = [mine.finish, lambda: mine.rewind(0)]
        for write in writers:
            with pytest.raises(Refusal) as caught:
                write()
            one_line(caught, str(tmp_path), word)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not take(tmp_path).complete


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", refuse(errno.EACCES))
    with pytest.raises(Refusal) as caught:
        take(tmp_path / "run")
    one_line(caught, str(tmp_path / "run"), "ermission")
