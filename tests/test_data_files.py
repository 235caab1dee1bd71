"""Questions of files by name: what a row says, which split it is in, and in which order rollouts ask."""

import hashlib
import json
import os
import sys
import types
from collections import Counter
from pathlib import Path

import models
import pytest

from r1repro import config, data, rows
from r1repro.records import Refusal
from r1repro.rewards import reasoning
from r1repro.run import read_json, read_lines, sha256_file
from r1repro.stages import collect, evaluate, rl
from r1repro.tinyworld.splits import canonical_id, split_of

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))


def row(n, **more):
    return {"question": f"What is {n} plus {n} in base {n + 3}?", "answer": str(2 * n), **more}


def write(file, records):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("R1REPRO_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def everything(source, split):
    return data.split_questions(source, split, 0, data.census(source)[split])


def ids(questions):
    return [question.id for question in questions]


def refused(function, *words):
    with pytest.raises(Refusal) as caught:
        function()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


# --- what a row says


@pytest.mark.parametrize(
    "record, text, gold, level",
    [
        ({"question": " 1 + 1? ", "answer": " 2 "}, "1 + 1?", "2", 1),
        ({"problem": "p", "final_answer": 27.0, "difficulty": 3.0}, "p", "27", 3),
        ({"prompt": "p", "answer": 0.5, "level": "Level 4"}, "p", "0.5", 4),
        ({"prompt": "no", "question": "q", "answer": -3, "level": "hard", "difficulty": 2}, "q", "-3", 2),
        ({"question": "q", "answer": None, "solution": "so \\boxed{\\frac{1}{2}}."}, "q", "\\frac{1}{2}", 1),
        ({"question": "q", "answer": "a", "solution": "\\boxed{b}", "level": 0}, "q", "a", 1),
        ({"question": "q", "answer": "1,000 + 1 #### x\n#### $1,234,567", "level": True}, "q", "$1234567", 1),
        ({"question": "q", "answer": "the points 1,234 and 5,6", "level": 2.5}, "q", "the points 1,234 and 5,6", 1),
    ],
)
def test_fields_are_known_by_their_usual_names(record, text, gold, level):
    assert rows.row(record, "here")[:3] == (text, gold, level)


@pytest.mark.parametrize(
    "line, match",
    [
        ("{", "no JSON"),
        ("[1]", "list where an object should be"),
        ("3", "int where"),
        ('{"answer": "1"}', "no question"),
        ('{"question": "  ", "answer": "1"}', "no question"),
        ('{"question": "q"}', "no answer"),
        ('{"question": "q", "answer": ""}', "no answer"),
        ('{"question": "q", "answer": "5 + 5 = 10 ####"}', "no answer"),
        ('{"question": "q", "solution": "no box"}', "no answer"),
        ('{"question": 5, "answer": "1"}', "'question' is 5, no text"),
        ('{"question": [{"role": "user"}], "answer": "1"}', "no text"),
        ('{"question": "q", "answer": true}', "'answer' is True, no text"),
        ('{"question": "q", "answer": NaN}', "'answer' is nan, no text"),
        ('{"question": "q \\ud800", "answer": "1"}', "no text"),
    ],
)
def test_a_malformed_row_is_refused_with_its_file_and_line(tmp_path, line, match):
    file = write(tmp_path / "mine.jsonl", [row(1), row(2)])
    file.write_text(file.read_text() + "\n" + line + "\n" + json.dumps(row(3)) + "\n")
    refused(lambda: data.split_questions(str(file), "train", 0, 1), f"{file}, line 4: ", match)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.jsonl").write_bytes(b"\xff\xfe\x00")
    refused(lambda: data.census(str(tmp_path / "mine.jsonl")), "mine.jsonl cannot be read", "UTF-8")


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    file = write(tmp_path / "mine.jsonl", [{"question": "one\u2028two", "answer": "1"}])
    assert data.census(str(file))["rows"] == 1


def test_a_question_of_a_file(folder):
    write(folder / "riddles" / "all.jsonl", [{"question": "求  $x$\n的值", "answer": "7", "level": 2}])
    (held,) = [q for split in ("train", "validation", "test") for q in everything("riddles", split)]
    assert held.id == canonical_id("求 $x$ 的值")
    assert (held.text, held.gold, held.language, held.level, held.family, held.kind) == (
        "求  $x$\n的值", "7", "zh", 2, "riddles", "answer",
    )  # fmt: skip


# --- splits


def test_without_a_test_file_the_hash_of_the_question_decides(folder):
    write(folder / "riddles" / "a.jsonl", [row(n) for n in range(150)])
    write(folder / "riddles" / "b.jsonl", [row(n) for n in range(100, 300)])
    splits = {split: ids(everything("riddles", split)) for split in ("train", "validation", "test")}
    assert all({split_of(id) for id in some} == {split} for split, some in splits.items())
    assert len({id for some in splits.values() for id in some}) == sum(map(len, splits.values())) == 300
    assert data.census("riddles") | {"rows": 350, "duplicates": 50} == data.census("riddles")


def test_a_test_file_is_test_and_the_rest_is_not(folder):
    write(folder / "riddles" / "train-1.jsonl", [row(n) for n in range(200)])
    write(folder / "riddles" / "test_a.jsonl", [row(n) for n in range(500, 530)])
    write(folder / "riddles" / "other.jsonl", [row(n) for n in range(900, 910)])
    test, train, validation = (everything("riddles", split) for split in ("test", "train", "validation"))
    assert sorted(int(q.gold) // 2 for q in test) == list(range(500, 530))
    assert sorted(int(q.gold) // 2 for q in train + validation) == list(range(200))
    assert {split_of(q.id) for q in validation} == {"validation"} and 5 < len(validation) < 40
    assert {split_of(q.id) for q in train} == {"train", "test"}


def test_the_split_of_a_question_does_not_depend_on_the_others(folder):
    file = write(folder / "riddles" / "train.jsonl", [row(n) for n in range(100)])
    write(folder / "riddles" / "test.jsonl", [row(n) for n in range(500, 510)])
    before = {split: set(ids(everything("riddles", split))) for split in ("train", "validation")}
    write(file, [row(n, level=2) for n in reversed(range(50, 400))])
    after = {split: set(ids(everything("riddles", split))) for split in ("train", "validation")}
    assert not before["train"] & after["validation"] and not before["validation"] & after["train"]
    assert before["train"] & after["train"] and before["validation"] & after["validation"]


def test_training_is_cleared_of_the_test(folder):
    ten = "Nine short words that nobody would write twice by chance"
    train = [
        row(1), {"question": "What is  500 plus 500 in\nbase 503?", "answer": "0"},
        {"question": f"First. {ten.upper()}, and then more: how many?", "answer": "1"},
        {"question": f"Here {ten[:-7]} one is missing: how many?", "answer": "2"}, row(1, answer="9"),
    ]  # fmt: skip
    write(folder / "riddles" / "train.jsonl", train)
    write(folder / "riddles" / "test.jsonl", [row(500), {"question": f"{ten}: how many, then?", "answer": "3"}])
    found = data.census("riddles")
    assert {name: found[name] for name in ("rows", "duplicates", "in the test", "near the test", "test")} == {
        "rows": 7, "duplicates": 1, "in the test": 1, "near the test": 1, "test": 2,
    }  # fmt: skip
    kept = everything("riddles", "train") + everything("riddles", "validation")
    assert sorted(q.text[:6] for q in kept) == ["Here N", "What i"]
    assert {q.gold for q in kept} == {"2"}  # of two alike the first one counts


def test_a_test_file_alone_has_no_other_split(folder, tmp_path):
    write(folder / "exam" / "test.jsonl", [row(n) for n in range(20)])
    assert len(data.split_questions("exam", "test", 0, 20)) == 20
    for call in (
        lambda: data.rollout_questions("exam", 0, 0, 4),
        lambda: data.training_questions("exam", "collect", 0, 4),
        lambda: data.split_questions("exam", "validation", 0, 4),
    ):
        refused(call, "exam has test files alone, so no ", "train.jsonl")


def test_math_has_two_folders_and_leaves_out_what_has_no_answer(folder):
    problems = [
        {"problem": r["question"], "answer": r["answer"], "difficulty": 3.0, "type": "x"} for r in map(row, range(40))
    ]
    (folder / "math_train").mkdir()
    (folder / "math_train" / "math.json").write_text(json.dumps([*problems, {"problem": "?", "answer": None}]))
    refused(lambda: data.census("math"), "math500", "HuggingFaceH4/MATH-500", "R1REPRO_DATA")
    tests = [{"problem": r["question"], "solution": "\\boxed{1}", "answer": "1", "level": 5} for r in map(row, (3, 90))]
    write(folder / "math500" / "test.jsonl", tests)
    found = data.census("math")
    assert (found["rows"], found["without an answer"], found["in the test"], found["test"]) == (43, 1, 1, 2)
    assert {q.level for q in everything("math", "train")} == {3} and {q.level for q in everything("math", "test")} == {
        5
    }
    (folder / "math_train" / "math.json").rename(folder / "math_train" / "all.json")
    refused(lambda: data.census("math"), "no *.jsonl", "math_train")


def test_a_bad_entry_of_a_list_is_named(folder):
    (folder / "math_train").mkdir()
    (folder / "math_train" / "math.json").write_text('[{"problem": "p", "answer": "1"}, {"answer": "1"}]')
    write(folder / "math500" / "test.jsonl", [row(1)])
    refused(lambda: data.census("math"), "math.json, entry 2: no question")


# --- order


@pytest.mark.parametrize("size, count", [(10, 4), (10, 10), (7, 5), (5, 4), (9, 3), (50, 8)])
def test_each_epoch_asks_every_question_once_and_no_rollout_twice(tmp_path, monkeypatch, size, count):
    monkeypatch.setattr(data, "split_of", lambda id: "train")
    source = str(write(tmp_path / "mine.jsonl", [row(n) for n in range(size)]))
    rollouts = [ids(data.rollout_questions(source, 3, r, count)) for r in range(6 * size)]
    assert all(len(set(some)) == count for some in rollouts)
    asked = [id for some in rollouts for id in some]
    epochs = [asked[i : i + size] for i in range(0, len(asked), size)]
    assert all(len(set(epoch)) == size for epoch in epochs)
    assert len(set(map(tuple, epochs))) > len(epochs) / 2
    assert ids(data.rollout_questions(source, 3, 4 * size, count)) == rollouts[4 * size]


def test_seeds_and_purposes_draw_in_another_order(tmp_path):
    source = str(write(tmp_path / "mine.jsonl", [row(n) for n in range(200)]))
    orders = [
        tuple(ids(questions))
        for seed in (0, 1)
        for questions in (
            data.rollout_questions(source, seed, 0, 30),
            data.training_questions(source, "collect", seed, 30),
            data.training_questions(source, "other", seed, 30),
            data.split_questions(source, "train", seed, 30),
        )
    ]
    assert len(set(orders)) == len(orders)
    assert data.split_questions(source, "train", 0, 30)[:10] == data.split_questions(source, "train", 0, 10)


def test_more_than_there_are_is_refused(tmp_path):
    source = str(write(tmp_path / "mine.jsonl", [row(n) for n in range(60)]))
    held = data.census(source)["train"]
    assert len(data.rollout_questions(source, 0, 5, held)) == held
    refused(lambda: data.rollout_questions(source, 0, 0, held + 1), f"{held + 1} distinct", f"the {held} of {source}")
    refused(
        lambda: data.split_questions(source, "train", 0, held + 1), f"{held + 1} distinct", f"the {held} of {source}"
    )


# --- names, fingerprints, the hub


@pytest.mark.parametrize(
    "source", ["chain_sum", "gsm8k", "math", "reasoning-gym/countdown", "a/b c.jsonl", "~/mine.jsonl", "own-set.v2"]
)
def test_settings_take_every_kind_of_name(folder, source):
    (folder / "own-set.v2").mkdir()
    assert config.Evaluate(questions=source).questions == source
    assert config.RL(late_questions=source).late_questions == source
    assert config.Collect(questions=source).questions == source


@pytest.mark.parametrize(
    "source", ["", "riddles", "../gsm8k", "reasoning-gym/", "reasoning-gym/A b", ".jsonl", "a b", "/etc"]
)
def test_settings_refuse_nonsense(folder, source):
    for make in (
        lambda: config.RL(questions=source),
        lambda: config.Evaluate(questions=source),
        lambda: config.Collect(questions=source),
    ):
        refused(make, f"questions is {source!r}: choose one of chain_sum", "reasoning-gym/<task>", str(folder))
    if source:
        refused(lambda: config.RL(late_questions=source), f"rl.late_questions is {source!r}")


def test_the_editor_rewrites_the_tiny_world_alone():
    refused(lambda: config.Collect(questions="gsm8k", rewrite=True), "collect.rewrite is True", "'gsm8k'")


def test_what_is_not_there_is_refused_with_the_way_out(folder, monkeypatch):
    refused(lambda: data.census("gsm8k"), str(folder / "gsm8k"), "R1REPRO_DATA", "openai/gsm8k", "HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(lambda: data.rollout_questions("gsm8k", 0, 0, 1), str(folder / "gsm8k"), "pip install datasets")
    (folder / "empty").mkdir()
    refused(lambda: data.split_questions("empty", "test", 0, 1), f"no *.jsonl in {folder / 'empty'}")
    refused(lambda: data.fingerprint(str(folder / "no.jsonl")), f"no file {folder / 'no.jsonl'}")
    refused(lambda: data.split_questions("riddles", "test", 0, 1), "no questions called 'riddles'")
    refused(lambda: data.census("logic"), "'logic' is generated")


def test_the_hub_is_asked_once_and_its_rows_become_files(folder, monkeypatch):
    asked = []

    def load_dataset(name, configuration, split):
        asked.append((name, configuration, split))
        return [row(n) for n in (range(40) if split == "train" else range(80, 90))]

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert len(data.split_questions("gsm8k", "test", 0, 10)) == 10
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert {"gsm8k/train.jsonl", "gsm8k/test.jsonl"} == set(data.fingerprint("gsm8k")) and len(asked) == 2

    def fails(*_, **__):
        raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=fails))
    refused(lambda: data.census("math"), "math_train", "the hub says no network")


def test_a_fingerprint_is_of_the_bytes(folder):
    file = write(folder / "riddles" / "train.jsonl", [row(1)])
    test = write(folder / "riddles" / "test.jsonl", [row(2)])
    write(folder / "riddles" / "unused.jsonl", [row(3)])
    digest = {f"riddles/{f.name}": hashlib.sha256(f.read_bytes()).hexdigest() for f in (file, test)}
    assert data.fingerprint("riddles") == digest
    write(file, [row(1), row(4)])
    assert data.fingerprint("riddles") != digest and data.census("riddles")["rows"] == 3
    assert data.fingerprint(str(file)) == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert data.fingerprint("reasoning-gym/countdown") == data.fingerprint("logic") == {}


# --- stages


def test_a_run_asks_the_file_and_remembers_its_bytes(tmp_path, tiny_base):
    source, late = tmp_path / "mine.jsonl", "reasoning-gym/gcd"
    write(source, [row(n, level=n % 2 + 1) for n in range(90)])
    cfg = models.small_rl(questions=str(source), late_questions=late, num_rollouts=2, late_rollouts=1)
    run = rl.train(cfg, tmp_path / "rl", tiny_base, models.SMALL_MACHINE)
    assert read_json(run / "manifest.json")["inputs"][str(source)] == sha256_file(source)
    families = [{key for key in line if key.startswith("family/")} for line in read_lines(run / "metrics.jsonl")]
    assert [some for some in families if some] == [{"family/mine"}, {f"family/{late}"}]
    asked = models.small_evaluation(questions=str(source))
    seen = evaluate.run(asked, tmp_path / "evaluation", tiny_base, models.SMALL_MACHINE)
    samples = read_lines(seen / "samples.jsonl")
    assert [r["id"] for r in samples] == ids(data.split_questions(str(source), "test", 0, len(samples)))
    few = config.Collect(questions=str(source), num_questions=2, outputs_per_question=2, max_tokens=4)
    refused(lambda: collect.collect(few, tmp_path / "examples", tiny_base), "was right and readable")
    write(source, [row(n) for n in range(91)])
    refused(lambda: rl.train(cfg, tmp_path / "rl", tiny_base, models.SMALL_MACHINE), "holds another run", "mine.jsonl")
    refused(lambda: evaluate.run(asked, tmp_path / "evaluation", tiny_base), "holds another run", "mine.jsonl")
    refused(lambda: collect.collect(few, tmp_path / "examples", tiny_base), "holds another run", "mine.jsonl")


# --- real files


if DATA.is_dir():

    @pytest.fixture(scope="module")
    def gsm8k():
        return {split: everything("gsm8k", split) for split in ("train", "validation", "test")}

    def test_gsm8k_is_whole(gsm8k):
        found = data.census("gsm8k")
        assert (found["rows"], found["duplicates"], found["in the test"]) == (7473 + 1319, 0, 0)
        assert found["test"] == len(gsm8k["test"]) == 1319 and 0 < found["near the test"] < 20
        assert found["train"] + found["validation"] + found["near the test"] == 7473
        some = [set(ids(questions)) for questions in gsm8k.values()]
        assert len(set.union(*some)) == sum(map(len, some))
        assert 0.09 < found["validation"] / 7473 < 0.13

    def test_every_reference_of_gsm8k_is_the_number_that_its_row_ends_with(gsm8k):
        numbers = {}
        for name in ("train", "test"):
            for line in (DATA / "gsm8k" / f"{name}.jsonl").read_text().splitlines():
                record = json.loads(line)
                ending = record["answer"].splitlines()[-1].removeprefix("####").replace(",", "")
                numbers[record["question"].strip()] = int(ending)
        for questions in gsm8k.values():
            assert [int(q.gold) for q in questions] == [numbers[q.text] for q in questions]
            texts = [f"<think>so</think> <answer> {q.gold} </answer>" for q in questions]
            assert {score.verdict for score in reasoning.accuracy(questions, texts)} == {"right"}
            texts = [f"<think>so</think> <answer> {numbers[q.text] + 1} </answer>" for q in questions]
            assert {score.verdict for score in reasoning.accuracy(questions, texts)} == {"wrong"}

    def test_references_of_math_are_right_against_themselves():
        for split, count in (("test", 500), ("train", 300)):
            questions = data.split_questions("math", split, 0, count)
            assert set(Counter(q.level for q in questions)) == {1, 2, 3, 4, 5}
            texts = [f"<think>so</think> <answer> {q.gold} </answer>" for q in questions]
            assert {score.verdict for score in reasoning.accuracy(questions, texts)} == {"right"}

    def test_math_is_cleared_of_math_500():
        found = data.census("math")
        assert (found["rows"], found["without an answer"], found["test"]) == (7474 + 500, 4, 500)
        assert found["near the test"] > 100
        known = set().union(*(rows.runs(q.text, 10) for q in everything("math", "test")))
        for split in ("train", "validation"):
            assert all(known.isdisjoint(rows.runs(q.text, 10)) for q in everything("math", split))
