"""The paper's benchmarks on their own files (from R1REPRO_DATA): all questions of all of them, outputs of other models
graded to their labels, a tiny model end to end, processes killed.

`make test-benchmarks`.  Where R1REPRO_DATA is no folder, what stays are tests that need none of it.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ifeval_writer
import models
import pytest

from r1repro import config
from r1repro.evals import catalogue, choice, instructions, mathematics, run
from r1repro.evals.benchmark import Item
from r1repro.records import Refusal
from r1repro.run import read_json
from r1repro.tinyworld import base

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))
OURS = ("mathematics", "choice", "reading", "instructions")
"""Modules whose benchmarks are graded here without a sandbox or a judge."""

SIZES = {
    "AIME 2024": 30, "MATH-500": 500, "CNMO 2024": 18, "GSM8K": 1319, "AMC 2023": 40, "MMLU": 14042,
    "MMLU-Redux": 5432, "MMLU-Pro": 12032, "C-Eval": 1346, "CMMLU": 11582, "DROP": 9440, "IF-Eval": 541,
}  # fmt: skip
"""Of 5,700 of MMLU-Redux those with one right answer; of 9,536 of DROP those on other passages than its examples."""


CONTRADICTIONS = {"374", "1627", "3369", "3371", "3718"}
"""Keys of IF-Eval's prompts that want a text repeated which breaks another of their instructions (a comma, a word):
nobody can follow them, so 99.1 % is the most that there is."""


def here():
    """Our benchmarks whose files are there."""
    modules = [__import__(f"r1repro.evals.{name}", fromlist=["BENCHMARKS"]) for name in OURS]
    every = [benchmark for module in modules for benchmark in module.BENCHMARKS]
    return [benchmark for benchmark in every if (DATA / benchmark.folder).is_dir()]


HERE = here()


def lines(file):
    return [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").split("\n") if line]


if HERE:

    @pytest.mark.parametrize("benchmark", HERE, ids=[benchmark.name for benchmark in HERE])
    def test_a_perfect_output_is_right_and_a_silent_one_wrong_on_every_question(benchmark):
        items = catalogue.items_of(benchmark)
        assert len(items) == SIZES[benchmark.name] and len({item.id for item in items}) == len(items)
        assert all(benchmark.grade(item, "").value == 0 for item in items)
        if benchmark.perfect:
            wrong = [item.id for item in items if benchmark.grade(item, benchmark.perfect(item)).value != 1]
            assert wrong == []
            if benchmark.answer:  # right answers vote together
                assert all(benchmark.answer(item, benchmark.perfect(item)) is not None for item in items)


def test_benchmarks_without_files_say_which_to_put_where(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    absent = [b for b in catalogue.all_of_them().values() if not (config.data_folder() / b.folder).is_dir()]
    for benchmark in absent:
        with pytest.raises(Refusal, match="put its files"):
            catalogue.items_of(benchmark)


if (DATA / "grading").is_dir():

    @pytest.mark.parametrize(
        ("file", "grade", "tiers"),
        [
            ("mcq_model_outputs.jsonl", choice.grade, ("core", "extended")),
            ("mcq_model_outputs.jsonl", choice.grade_pro, ("core", "extended")),
            ("gsm8k_model_outputs.jsonl", mathematics.grade_stated, ("core",)),
            ("math_model_outputs.jsonl", mathematics.grade, ("core", "extended", "convention")),
        ],
    )
    def test_outputs_of_other_models_are_graded_to_their_labels(file, grade, tiers):
        rows = lines(f"grading/{file}")
        wrong = []
        for row in rows:
            item = Item(id=row["id"], prompt="", gold=row["gold"], more={"question": row.get("question") or ""})
            right = grade(item, row["response_or_prediction"]).verdict == "right"
            wrong += [row["id"]] if right != row["expected"] and row["tier"] in tiers else []
        assert len(rows) > 80 and wrong == []


if (DATA / "mmlu_pro").is_dir():

    def test_all_outputs_of_a_model_on_mmlu_pro_are_read_as_its_makers_read_them():
        (file,) = (DATA / "mmlu_pro").glob("*.zip")
        with zipfile.ZipFile(file) as packed:
            rows = json.loads(packed.read(packed.namelist()[0]))
        item = Item(id="", prompt="", gold="")
        other = [row["question_id"] for row in rows if choice.last_letter(item, row["model_outputs"]) != row["pred"]]
        assert len(rows) == 12032 and other == []


if (DATA / "ifeval").is_dir():

    def test_texts_written_to_the_instructions_pass():
        """An output made to measure for each prompt passes all of its checks, but for prompts that no text can follow;
        and for every kind, the outputs to prompts without it fail somewhere, so no check is empty."""
        items = catalogue.items_of(catalogue.named("IF-Eval"))
        texts = [ifeval_writer.written(item) for item in items]
        pairs = list(zip(items, texts, strict=True))
        assert {item.id for item, text in pairs if not all(instructions.followed(item.gold, text))} == CONTRADICTIONS
        for kind in instructions.KINDS.keys() - {"keywords:forbidden_words"}:
            every = [setting for item in items for name, setting in item.gold if name == kind]
            settings = next(setting for setting in every if "less than" not in setting.values())
            others = [text for item, text in pairs if kind not in [name for name, _ in item.gold]]
            assert not all(instructions.followed([(kind, settings)], text)[0] for text in others), kind


EVERY = [b for b in catalogue.all_of_them().values() if (DATA / b.folder).is_dir()]
if EVERY:

    @pytest.fixture(scope="module")
    def with_articles(tmp_path_factory):
        """A folder of data whose FRAMES has articles: where they are not there, each question's is a line of ours."""
        if (DATA / "frames" / "articles").is_dir():
            return DATA
        folder = tmp_path_factory.mktemp("data")
        (folder / "frames" / "articles").mkdir(parents=True)
        for file in (DATA / "frames").iterdir():
            (folder / "frames" / file.name).write_bytes(file.read_bytes())
        for number, row in enumerate(lines("frames/frames.jsonl")):
            (folder / "frames" / "articles" / f"{row['id']}.txt").write_text(f"Stand-in {number}.")
        return folder

    @pytest.mark.parametrize("benchmark", EVERY, ids=[benchmark.name for benchmark in EVERY])
    def test_a_tiny_model_runs_end_to_end(benchmark, tmp_path, request, monkeypatch):
        if benchmark.name == "FRAMES":
            monkeypatch.setenv("R1REPRO_DATA", str(request.getfixturevalue("with_articles")))
        changes = {"exam.k": 2, "exam.limit": 2, "exam.max_tokens": 12}
        exam, machine = config.exam("smoke", benchmark.name, changes)
        place = run.place(tmp_path, benchmark.name)
        summary = read_json(run.run(exam, place, base.folder("qwen-140k"), machine) / "summary.json")
        assert summary["questions"] == 2 and summary["k"] == 2
        assert summary["metrics"] or benchmark.judged or summary["lacking"]
        assert benchmark.name in run.save_table(tmp_path)


if (DATA / "aime24").is_dir():

    def test_killed_at_ten_random_moments_it_ends_with_the_same_files(tmp_path):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        program = [sys.executable, models.__file__, "kill-benchmark", str(tmp_path), "10"]
        subprocess.run(program, env=environment, check=True, capture_output=True)
        torn = sorted(tmp_path.glob("torn-*"))
        assert len(torn) > 1
        for place in torn:
            for name in ("aime-2024/samples.jsonl", "aime-2024/summary.json", "table.md"):
                assert (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (place.name, name)
