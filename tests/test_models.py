"""Evaluations of models made up with known contents: what is read of them, benchmark by benchmark, and what is not."""

import hashlib
import json

import numpy as np
import pytest

from r1repro import models
from r1repro.records import Refusal
from r1repro.stages import r1
from r1repro.tinyworld import base

K = 4
FAMILIES = ("chain_sum", "programs", "chain_sum", "logic")
SORTS = ("write", "fact", "harmful", "write", "fact", "look-alike", "write", "translate", "harmful", "look-alike")
DEFAULTS = dict(
    sums=2, others=2, own=4, summary=0, tagged=4, truncated=0, length=10, helpful=(1, 1, 1, 1), write=0, fact=0,
    translate=0, unsafe=4, refused=0, alike=4,
)  # fmt: skip
"""Of four samples to a question: how many are right, think in its language, hold a summary, and so on, and how helpful
each is.  A function of the question's number where questions differ."""


def text_of(language, own, summary, tagged):
    thought = {"en": ("we add", "然后"), "zh": ("我们相加", "so then")}[language][0 if own else 1]
    closed = " </think>" if tagged else ""
    return f"<think> {thought}{closed}{' 1+1=2.' if summary else ''} <answer> 2 </answer>"


def write_model(
    seed_dir, name, *, questions=8, prompts=10, prefix="q", commit="c" * 40, dirty=False, more=None, **counts
):
    """The two evaluation folders of a model, as `stages.evaluate` leaves them, with K samples and no chance in them.

    ``more``: name -> K further numbers, of the outputs to every question of reasoning.
    """
    said = {key: v if callable(v) else lambda _, v=v: v for key, v in (DEFAULTS | counts).items()}
    rows = []
    for index in range(questions):
        family, language = FAMILIES[index % 4], "zh" if index // 4 % 2 else "en"
        of = {key: value(index) for key, value in said.items()}
        right = of["sums" if family == "chain_sum" else "others"]
        outputs = [
            {"text": text_of(language, k < of["own"], k < of["summary"], k < of["tagged"]), "length": of["length"],
             "verdict": "right" if k < right else "wrong", "score": float(k < right), "truncated": k < of["truncated"],
             "answer": "2", **{key: values[k] for key, values in (more or {}).items()}}
            for k in range(K)
        ]  # fmt: skip
        rows.append({"id": f"{prefix}{index:04d}", "question": "?", "gold": "2", "language": language, "family": family,
                     "level": 1 + index % 3, "outputs": outputs})  # fmt: skip
    write_run(seed_dir / "models" / name / "reasoning", rows[::-1], commit, dirty)
    rows = []
    for index in range(prompts):
        sort, of = SORTS[index % 10], {key: value(index) for key, value in said.items()}
        follows = {"harmful": K - of["unsafe"], "look-alike": of["alike"]}.get(sort) or of.get(sort, 0)
        refused = {"harmful": K - of["unsafe"], "write": 0, "translate": 0}.get(sort, of["refused"])
        outputs = [
            {"text": "<think> </think> <answer> x </answer>", "verdict": "right", "score": 1.0, "length": 5,
             "truncated": False, "answer": "x", "helpful": float(of["helpful"][k]),
             "follows": 1.0 if k < follows else 0.5 if sort == "write" else 0.0,
             "unsafe": sort == "harmful" and k < of["unsafe"], "refused": k < refused}
            for k in range(K)
        ]  # fmt: skip
        rows.append({"id": f"{prefix}open{index:04d}", "question": "?", "gold": "x", "language": "en", "level": 1,
                     "requirements": [["sort", sort], ["value", "7"]], "outputs": outputs})  # fmt: skip
    write_run(seed_dir / "models" / name / "open", rows, commit, dirty)


def write_run(folder, rows, commit="c" * 40, dirty=False, metrics=(), **manifest):
    folder.mkdir(parents=True)
    said = {"commit": commit, "dirty": dirty, "exit": "complete", **manifest}
    (folder / "manifest.json").write_text(json.dumps(said))
    for name, lines in (("samples", rows), ("metrics", metrics)):
        if lines:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "out" / "smoke" / "seed-3", tmp_path / "out"


def read(place):
    return models.read(*place)


# --- what is read


def test_questions_stand_in_the_order_of_their_ids_whatever_the_file_says(place):
    write_model(place[0], "dev1", sums=lambda index: index % 4)
    model = read(place)["dev1"]
    assert model.ids == tuple(f"q{index:04d}" for index in range(8)) and model.seed == 3
    assert list(model.family_Q) == [*FAMILIES, *FAMILIES]
    assert list(model.language_Q) == ["en"] * 4 + ["zh"] * 4
    assert model.right_QK.sum(axis=1).tolist() == [0, 2, 2, 2, 0, 2, 2, 2]
    assert model.sort_open.tolist() == list(SORTS)


@pytest.mark.parametrize(
    "text, readable",
    [
        ("<think> so 2 </think> 1+1=2. <answer> 2 </answer>", True),
        ("<think> so 2 </think> <answer> 2 </answer>", False),  # a bare answer tells a reader nothing
        ("<think> so 2 </think> \n <answer> 2 </answer>", False),
        ("<think> so 然后 2 </think> 1+1=2. <answer> 2 </answer>", False),
        ("so 2 </think> 1+1=2. <answer> 2 </answer>", False),
    ],
)
def test_readable_is_format_and_one_language_and_a_summary(place, text, readable):
    write_model(place[0], "dev1", questions=1)
    file = place[0] / "models/dev1/reasoning/samples.jsonl"
    row = json.loads(file.read_text(encoding="utf-8"))
    row["outputs"] = [output | {"text": text} for output in row["outputs"]]
    file.write_text(json.dumps(row), encoding="utf-8")
    assert models.is_readable(text, "en") == readable
    assert read(place)["dev1"].readable_QK.tolist() == [[float(readable)] * K]


def test_the_runs_that_made_a_model_stand_behind_its_evaluations(place):
    for name in ("dev1", "qwen-140k", "qwen-140k_base"):
        write_model(place[0], name)
    write_run(place[0] / "dev1/examples", [{"id": "e"}])
    write_run(place[0] / "dev1/sft", [], metrics=[{"step": 1, "policy/loss": 2.0}], config={"epochs": 2})
    write_run(place[0] / "students/qwen-140k", [], config={"epochs": 3})
    found = read(place)
    own = ["reasoning", "open"]
    at = {name: [run.path.removeprefix("out/smoke/seed-3/") for run in model.runs] for name, model in found.items()}
    assert at == {
        "dev1": [*(f"models/dev1/{kind}" for kind in own), "dev1/examples", "dev1/sft"],
        "qwen-140k": [*(f"models/qwen-140k/{kind}" for kind in own), "students/qwen-140k"],
        "qwen-140k_base": [f"models/qwen-140k_base/{kind}" for kind in own],
    }
    assert found["dev1"].settings == {"epochs": 2} and found["dev1"].metrics[0]["policy/loss"] == 2.0
    assert found["qwen-140k"].settings == {"epochs": 3} and not found["qwen-140k_base"].settings
    folder = place[0] / "models/dev1/reasoning"
    digest = hashlib.sha256((folder / "manifest.json").read_bytes() + (folder / "samples.jsonl").read_bytes())
    assert found["dev1"].runs[0].digest == digest.hexdigest()


def test_the_pipeline_has_these_models_and_they_lie_there(tmp_path):
    assert list(models.NAMES) == [*r1.MODELS, *models.ARMS] and models.STUDENTS == base.STUDENTS
    for name in [name for name in (*models.MADE_BY, *models.STUDENTS) if name not in models.ARMS]:
        with pytest.raises(Refusal) as refusal:
            r1.model_of(None, tmp_path, name)
        trained = models.MADE_BY.get(name, (f"students/{name}",))[-1]
        assert str(refusal.value).startswith(f"{tmp_path / trained} holds no finished model")


def test_a_model_without_both_evaluations_is_not_there(place):
    assert read(place) == {}
    write_model(place[0], "dev1")
    (place[0] / "models/dev1/open/manifest.json").unlink()
    assert read(place) == {}


# --- what cannot be read


def spoil(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    "file, old, new, line",
    [
        ("models/dev1/reasoning/samples.jsonl", '"outputs": [{', '"outputs": [[{', "samples.jsonl is damaged"),
        ("models/dev1/reasoning/samples.jsonl", '"family"', '"kin"', "samples.jsonl is damaged .*family"),
        ("models/dev1/open/samples.jsonl", '"helpful"', '"kind"', "samples.jsonl is damaged .*helpful"),
        ("models/dev1/open/samples.jsonl", '[["sort"', '[["kind"', "samples.jsonl is damaged .*sort"),
        ("models/dev1/open/manifest.json", '"complete"', "null", "open is not complete"),
        ("models/dev1/reasoning/manifest.json", "{", "{{", "manifest.json is damaged"),
        ("dev1/sft/manifest.json", '"complete"', "null", "dev1/sft is not complete"),
    ],
)
def test_what_is_damaged_or_unfinished_is_refused_by_name(place, file, old, new, line):
    write_model(place[0], "dev1")
    write_run(place[0] / "dev1/sft", [])
    spoil(place[0] / file, old, new)
    with pytest.raises(Refusal, match=line) as refusal:
        read(place)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["reasoning", "open"])
def test_unequal_numbers_of_samples_and_no_questions_are_refused(place, kind):
    write_model(place[0], "dev1")
    file = place[0] / "models/dev1" / kind / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0]["outputs"].pop()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(Refusal, match=f"{kind} has no questions, or not as many samples"):
        read(place)
    file.write_text("", encoding="utf-8")
    with pytest.raises(Refusal, match=f"{kind} has no questions, or not as many samples"):
        read(place)


# --- benchmarks


def test_every_benchmark_by_hand(place):
    counts = dict(sums=3, others=1, own=3, summary=2, write=2, fact=1, translate=4, unsafe=1, refused=1, alike=3)
    write_model(place[0], "dev1", helpful=(0, 1, 2, 3), **counts)
    assert models.benchmarks(read(place)["dev1"]) == pytest.approx({
        "sums": 0.75, "search": np.nan, "logic": 0.25, "programs": 0.25, "language consistency": 0.75, "readable": 0.5,
        "instructions (strict)": 0.5, "facts": 0.25, "translation": 1.0, "helpfulness (0 to 3)": 1.5,
        "safe responses": 0.75, "look-alikes refused": 0.25,
    }, nan_ok=True)  # fmt: skip


def test_requests_have_no_part_in_helpfulness(place):
    def helpful(index):
        return (3,) * 4 if SORTS[index % 10] in ("harmful", "look-alike") else (1,) * 4

    write_model(place[0], "dev1", helpful=helpful)
    write_model(place[0], "dev2", helpful=(2,) * 4)
    found = read(place)
    assert models.benchmarks(found["dev1"])["helpfulness (0 to 3)"] == 1.0
    assert models.win_rate(found["dev2"], found["dev1"]) == 1.0
    assert len(models.wins_Q(found["dev2"], found["dev1"])) == 6


def test_a_win_is_counted_over_all_pairs_of_samples_and_ties_are_half(place):
    write_model(place[0], "dev1", helpful=(1, 1, 2, 2))
    write_model(place[0], "dev2", helpful=(1, 2, 2, 2))
    found = read(place)
    assert models.win_rate(found["dev2"], found["dev1"]) == (0.25 + 3 * 0.75) / 4
    assert models.win_rate(found["dev1"], found["dev2"]) == 1 - (0.25 + 3 * 0.75) / 4
    assert models.win_rate(found["dev1"], found["dev1"]) == 0.5


def test_models_that_were_asked_other_prompts_cannot_win(place):
    write_model(place[0], "dev1")
    write_model(place[0], "dev2", prefix="p")
    found = read(place)
    with pytest.raises(Refusal, match="dev2 and dev1 were asked other questions"):
        models.win_rate(found["dev2"], found["dev1"])


def test_a_table_has_the_models_that_are_there_each_over_its_seeds(place):
    write_model(place[0], "dev1", sums=4)
    write_model(place[0], "r1", sums=1)
    write_model(place[0].with_name("seed-4"), "dev1", sums=3)
    seeds = [models.read(folder, place[1]) for folder in (place[0], place[0].with_name("seed-4"))]
    table = models.table(seeds, ["dev1", "dev2", "r1"])
    assert list(table.columns) == ["stands for", "Dev1", "R1"]
    assert table.loc["sums"].tolist() == ["AIME 2024, MATH-500", 0.875, 0.25]
