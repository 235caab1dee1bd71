"""The paper's benchmarks: files of every form, protocols, graders worked by hand, the runner, the table, contamination.

No question of a benchmark stands here: files are made up.  `benchmarks_part.py` has the real ones.
"""

import csv
import dataclasses
import gzip
import importlib.util
import io
import json
import random
import sys
import tarfile
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor

import models
import numpy as np
import pyarrow
import pytest
from pyarrow import ipc, parquet

from r1repro import __main__, config, paper
from r1repro.algo import estimators
from r1repro.evals import (
    catalogue,
    choice,
    contamination,
    files,
    instructions,
    lm_harness,
    mathematics,
    noise,
    reading,
    run,
)
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score
from r1repro.run import read_json, read_lines

SUMS = [
    {"id": n, "problem": f"What is {n} plus {n}, if {n} is counted twice over?", "answer": 2 * n} for n in range(12)
]
CHOICES = [
    {"question": f"Which of these is number {n}?", "A": f"{n}", "B": "x", "C": "y", "D": "z", "answer": "A"}
    for n in range(8)
]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table_csv(rows, header=True, delimiter=","):
    made = io.StringIO()
    writer = csv.DictWriter(made, rows[0].keys(), delimiter=delimiter)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("R1REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return put(
        tmp_path / "data", {"aime24/x.jsonl": lines(SUMS), "mmlu/test/deeds_test.csv": table_csv(CHOICES, False)}
    )


def put(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(function, *words):
    with pytest.raises(Refusal) as caught:
        function()
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said


# --- files


def packed(form, rows):
    """The same rows in a file of another form: name and bytes."""
    if form in (".parquet", ".arrow"):
        table, out = pyarrow.Table.from_pylist(rows), pyarrow.BufferOutputStream()
        if form == ".parquet":
            parquet.write_table(table, out)
        else:
            with ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
        return f"test{form}", out.getvalue().to_pybytes()
    if form == ".csv":
        return "test.csv", table_csv(rows).encode()
    if form == ";.csv":
        return "test.csv", table_csv(rows, delimiter=";").encode()
    if form == ".json":
        return "test.json", json.dumps(rows).encode()
    if form == ".jsonl.gz":
        return "test.jsonl.gz", gzip.compress(lines(rows).encode())
    out = io.BytesIO()
    if form == ".zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("inner/dev/x.jsonl", lines(rows[:1]))
            archive.writestr("inner/test/x.jsonl", lines(rows))
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, some in (("a/dev/x.jsonl", rows[:1]), ("a/test/x.jsonl", rows)):
                content = lines(some).encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return f"all{form}", out.getvalue()


@pytest.mark.parametrize("form", [".parquet", ".arrow", ".csv", ";.csv", ".json", ".jsonl.gz", ".zip", ".tar.gz"])
def test_any_form_of_file_gives_the_same_questions(form, tmp_path):
    name, content = packed(form, SUMS)
    put(tmp_path, {f"x/{name}": content, "x/LICENSE.txt": "no rows", "x/README.json": "{"})
    plain = mathematics.load(put(tmp_path / "plain", {"test.jsonl": lines(SUMS)}))
    assert mathematics.load(tmp_path / "x") == plain and len(plain) == 12


def test_the_preferred_split_alone_is_read(tmp_path):
    put(tmp_path, {"train.jsonl": lines(SUMS[:3]), "test.jsonl": lines(SUMS[3:5]), "contest.jsonl": lines(SUMS[5:])})
    assert [item.gold for item in mathematics.load(tmp_path)] == ["6", "8"]  # "contest" is no test


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", '{"problem": "1", "answer": 1}\n{"problem', ["x.jsonl, line 2", "JSON"]),
        ("x.json", "[1]", ["x.json, line 1", "int"]),
        ("x.parquet", b"PAR1", ["x.parquet"]),
        ("x.zip", b"PK", ["x.zip"]),
        ("x.jsonl.gz", b"no", ["x.jsonl.gz"]),
        ("x.jsonl", b'{"problem": "\xd5"}', ["x.jsonl"]),
        ("x.txt", "1", ["no questions in", "put its files there"]),
    ],
)
def test_a_damaged_file_is_named(name, content, words, tmp_path):
    refused(lambda: list(files.records(put(tmp_path, {name: content}))), *words)


# --- choice


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Answer: B", "B"), ("ANSWER: $B$", "B"), ("**Answer: B**", "B"), ("The answer is (B).", "B"),
        ("<think>Answer: A</think>\nAnswer: B", "B"), ("Answer: A. No, that is wrong.\nAnswer: B", "B"),
        ('```json\n{"reasoning": "so", "answer": "B"}\n```', "B"), ("\\boxed{B}", "B"), ("<answer>B</answer>", "B"),
        ("答案：B", "B"), ("所以故选B。", "B"), ("<think>Answer: B</think>", None),
        ("", None), ("I cannot say.", None), ("The answer is (A) or (B).", None),
    ],
)  # fmt: skip
def test_which_letter_an_output_chose(text, chosen):
    item = Item(id="1", prompt="", gold="B", more={"question": "Which?\nA. one\nB. two"})
    assert choice.letter(item, text) == chosen
    wanted = {None: "unparsed", "B": "right"}[chosen]
    assert choice.grade(item, text) == Score(value=float(wanted == "right"), verdict=wanted)


def test_mmlu_pro_is_read_by_its_makers_rule():
    item = Item(id="1", prompt="", gold="J")
    assert choice.grade_pro(item, "<think>The answer is (A).</think>The answer is (J).").value == 1
    assert choice.grade_pro(item, "Not B. It must be J").value == 1
    assert choice.grade_pro(item, "<think>J</think>").verdict == "unparsed"


def test_prompts_of_choice_benchmarks(tmp_path):
    by_name = {b.name: b for b in choice.BENCHMARKS}
    put(
        tmp_path,
        {"m/test/deeds_test.csv": table_csv(CHOICES, False), "m/dev/deeds_dev.csv": table_csv(CHOICES[:1], False)},
    )
    items = by_name["MMLU"].load(tmp_path / "m")
    assert len(items) == 8 and items[0].group == "deeds" and items[0].gold == "A"
    assert "'Answer: $LETTER'" in items[0].prompt and items[0].prompt.endswith("?\n\nA) 0\nB) x\nC) y\nD) z")
    ten = [{"question_id": 7, "question": "Q?", "options": [*"abcdefghij"], "answer": "J", "category": "law"}]
    (item,) = by_name["MMLU-Pro"].load(put(tmp_path / "p", {"test.jsonl": lines(ten)}))
    assert item.id == "7" and item.gold == "J" and "about law" in item.prompt and "\nJ. j\n" in item.prompt
    assert item.prompt.endswith("Answer: Let's think step by step.") and item.prompt.count("Question:") == 1
    put(tmp_path, {"c/val/logic_val.csv": table_csv(CHOICES), "c/test/logic_test.csv": table_csv(CHOICES[:2])})
    ceval = by_name["C-Eval"].load(tmp_path / "c")
    assert len(ceval) == 8 and "逻辑学" in ceval[0].prompt  # the test's answers are not public


def test_mmlu_redux_keeps_questions_with_one_right_answer(tmp_path):
    rows = [
        ("ok", "1", ""), ("OK ", "1", ""), ("Wrong Groundtruth", "1", "C"), ("wrong_groundtruth", "1", "3"),
        ("wrong_groundtruth", "1", ""), ("multiple correct answers", "1", "1, 3"), ("bad_question_clarity", "1", ""),
        ("no_correct_answer", "1", ""),
    ]  # fmt: skip
    rows = [
        {"question": f"Q{n}", "choices": "['a', 'b', 'c', 'd']", "answer": a, "error_type": e, "correct_answer": c}
        for n, (e, a, c) in enumerate(rows)
    ]
    redux = next(b for b in choice.BENCHMARKS if b.name == "MMLU-Redux")
    items = redux.load(put(tmp_path, {"mmlu_deeds.csv": table_csv(rows)}))
    assert [item.gold for item in items] == ["B", "B", "C", "D"]
    assert redux.grade(items[0], redux.perfect(items[0])).value == 1


def test_the_options_of_gpqa_are_shuffled_for_good(tmp_path):
    rows = [
        {"Question": f"Q{n}?", "Correct Answer": f"right {n}", "Record ID": f"r{n}"}
        | {f"Incorrect Answer {i}": f"wrong {n} {i}" for i in (1, 2, 3)}
        for n in range(200)
    ]
    first = choice.load_gpqa(put(tmp_path / "a", {"gpqa_diamond.csv": table_csv(rows), "gpqa_main.csv": "x\n1\n"}))
    again = choice.load_gpqa(put(tmp_path / "b", {"gpqa_diamond.csv": table_csv(rows[::-1])}))
    assert first == again[::-1] and len(first) == 200
    for item in first:
        assert f"{item.gold}) right {item.id[1:]}\n" in item.prompt + "\n" and "'ANSWER: $LETTER'" in item.prompt
    counts = [sum(item.gold == letter for item in first) for letter in "ABCD"]
    assert min(counts) > 30, counts


def test_cluewsc_asks_for_the_words(tmp_path):
    def row(label, n):
        target = {"span1_text": f"张{n}", "span1_index": 0, "span2_text": "他", "span2_index": 9}
        return {"text": f"张{n}说他来了。", "label": label, "target": target}

    rows = [row("true", 1), row("false", 2), row(1, 3), row("0", 4)]
    (_, item) = items = choice.load_cluewsc(put(tmp_path, {"dev.json": lines(rows), "test.json": lines(rows[:1])}))
    assert [i.gold for i in items] == ["张1", "张3"] and "“他”" in item.prompt
    wsc = next(b for b in choice.BENCHMARKS if b.name == "CLUEWSC")
    assert wsc.grade(item, wsc.perfect(item)).value == 1 and wsc.grade(item, "张5").value == 0
    assert wsc.grade(item, "<think>答案：张3</think>").verdict == "unparsed"


# --- reading


@pytest.mark.parametrize(
    ("answer", "golds", "value"),
    [
        ("The Bears", ["bears"], 1.0),  # articles and case
        ("24-yard", ["24 yard"], 1.0),  # hyphens part words
        ("1,000", ["1000"], 1.0),  # a number in one of its writings
        ("10 yards", ["12 yards"], 0.0),  # a number that is another, whatever else agrees
        ("twelve yards", ["12 yards"], 0.0),
        ("12", ["12 yards"], 0.67),  # precision 1, recall 1/2
        ("red blue green", ["red blue", "red blue green"], 1.0),  # the best of the accepted
        ("red", ["blue"], 0.0),
        ("Jones, Smith", [["Smith", "Jones"]], 1.0),  # spans in any order
        ("Smith", [["Smith", "Jones"]], 0.5),
        ("Smith, Jones and Brown", [["Smith", "Jones"]], 0.67),  # one too many
        ("", ["red"], 0.0),
    ],
)
def test_drops_f1_by_hand(answer, golds, value):
    assert reading.f1(answer, golds) == value


def test_drop_keeps_three_examples_and_asks_the_rest(tmp_path):
    rows = [
        {"context": f"Passage: There were {n} {x} things.\nQuestion: How many?\nAnswer:", "ref_text": f"{n}|{n} things"}
        for n in range(6) for x in "ab"
    ]  # fmt: skip
    items = reading.load(put(tmp_path, {"drop_v0_dev.jsonl": lines(rows)}))
    assert len(items) == 9  # twelve passages, three of them examples
    examples = items[0].prompt.partition("# Your Task")[0]
    assert examples.count("Passage:") == 3 and all(i.prompt.partition("# Your Task")[0] == examples for i in items)
    assert not any(i.more["question"].partition("\n")[0] in examples for i in items)
    put(tmp_path, {"drop_v0_train.jsonl": lines([{**rows[0], "context": f"Passage: {n}.\nAnswer:"} for n in range(5)])})
    assert len(reading.load(tmp_path)) == 12  # with a train file nothing is left out
    assert reading.grade(items[0], reading.perfect(items[0])).value == 1
    assert reading.grade(items[0], "<think>Answer: 3</think>").verdict == "unparsed"


# --- instructions

LENGTH, FORMAT, CONTENT = "length_constraints:", "detectable_format:", "detectable_content:"
WORDS, CASE = "keywords:", "change_case:"
SECOND = {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "three"}
TWO_CAPITALS = {"capital_frequency": 2, "capital_relation": "at least"}
PARTS = "One two.\n\nThree four.\n\nFive six."
GIVEN = [
    (WORDS + "existence", {"keywords": ["rain", "snow"]}, "Rain, then SNOW.", "Rain alone."),
    (WORDS + "frequency", {"keyword": "go", "frequency": 2, "relation": "at least"}, "Go on, go.", "Go."),
    (WORDS + "frequency", {"keyword": "go", "frequency": 2, "relation": "less than"}, "Go.", "Go on, go."),
    (WORDS + "forbidden_words", {"forbidden_words": ["cat"]}, "A category.", "A cat."),
    (WORDS + "letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "at least"}, "Eee.", "Ee."),
    ("language:response_language", {"language": "de"}, "Das ist nicht mein Haus und auch nicht", "That is mine."),
    ("language:response_language", {"language": "hi"}, "यह मेरा घर है", "Hello."),
    ("language:response_language", {"language": "mr"}, "हे घर आहे आणि", "यह घर है और"),
    ("language:response_language", {"language": "bg"}, "Това е моята къща и не се", "Это не мой дом но я там был"),
    (LENGTH + "number_sentences", {"num_sentences": 2, "relation": "at least"}, "Mr. X came. He left!", "Mr. X came."),
    (LENGTH + "number_sentences", {"num_sentences": 2, "relation": "less than"}, "It costs 3.50.", "One. Two."),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    (LENGTH + "number_paragraphs", {"num_paragraphs": 2}, "***\nOne.\n***\nTwo.\n***", "One.\n***\n***\nTwo."),
    (LENGTH + "number_words", {"num_words": 3, "relation": "at least"}, "One two three", "One two"),
    (LENGTH + "number_words", {"num_words": 3, "relation": "less than"}, "One two", "One two three"),
    (LENGTH + "nth_paragraph_first_word", SECOND, PARTS, "Three\n\none\n\ntwo"),
    (LENGTH + "nth_paragraph_first_word", SECOND, PARTS, f"{PARTS}\n\nMore."),
    (CONTENT + "number_placeholders", {"num_placeholders": 2}, "[name] of [town]", "[name]"),
    (CONTENT + "postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. I am late.", "Bye."),
    (CONTENT + "postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S late", "Bye.\nP.S. late"),
    (FORMAT + "number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n- two\n* three"),
    (FORMAT + "number_bullet_lists", {"num_bullets": 1}, "* one\n**bold**", "**bold**"),
    (FORMAT + "constrained_response", {}, "Well. My answer is maybe. Bye.", "My answer is perhaps."),
    (FORMAT + "number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
    (FORMAT + "multiple_sections", {"section_spliter": "Day", "num_sections": 2}, "Day 1\nx\nDay 2\ny", "Day 1\nx"),
    (FORMAT + "json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    (FORMAT + "title", {}, "<<A day>>\nIt rained.", "<<>> It rained."),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. I did.", "I did. Say it."),
    ("startend:end_checker", {"end_phrase": "That is all"}, 'So "that is all"', "That is all."),
    (CASE + "capital_word_frequency", TWO_CAPITALS, "WE ARE here", "We ARE here"),
    (CASE + "english_capital", {}, "THIS IS THE END OF IT.", "THIS IS the END."),
    (CASE + "english_lowercase", {}, "this is the end of it.", "This is the end."),
    (CASE + "english_lowercase", {}, "this is the end of it.", "das ist das ende und nicht der anfang."),
    ("punctuation:no_comma", {}, "One and two.", "One, two."),
    ("startend:quotation", {}, ' "All of it." ', '"A part" of it.'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "setting", "good", "bad"), GIVEN, ids=[f"{n}-{case[0]}" for n, case in enumerate(GIVEN)]
)
def test_an_instruction_by_hand(kind, setting, good, bad):
    assert instructions.followed([(kind, setting)], good) == [True]
    assert instructions.followed([(kind, setting)], bad) == [False]
    assert instructions.followed([(kind, setting)], "  ") == [False]


def test_all_kinds_of_instruction_are_tried():
    assert {case[0] for case in GIVEN} == set(instructions.KINDS) and len(instructions.KINDS) == 25


def test_a_prompt_counts_where_all_of_its_instructions_are_followed(tmp_path):
    row = {"key": 5, "prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"]}
    (item,) = instructions.load(put(tmp_path, {"x.jsonl": lines([row | {"kwargs": [{}, {"num_bullets": None}]}])}))
    assert instructions.grade(item, "<think>One, two.</think>\n<<A>> b").value == 1  # thinking is not checked
    assert instructions.grade(item, "<<A>> b, c").value == 0
    assert instructions.grade(item, "<think><<A>></think>\n").verdict == "unparsed"
    row["instruction_id_list"][0] = "keywords:mood"
    wrong = put(tmp_path / "b", {"x.jsonl": lines([row | {"kwargs": [{}, {}]}])})
    refused(lambda: instructions.load(wrong), "line 1", "keywords:mood", "choose")


# --- the catalogue

ELSEWHERE = {
    "judging": {"SimpleQA", "FRAMES", "C-SimpleQA", "AlpacaEval 2.0", "Arena-Hard"},
    "programs": {"HumanEval-Mul"},
    "contests": {"LiveCodeBench (2024-08 to 2025-01)", "Codeforces"},
}
"""Files of the room that this version may be without, and what they hold."""
EXPORTED = {"SWE-bench Verified", "Aider-Polyglot"}
"""Graded by their own harnesses, for which predictions are written."""


def test_every_benchmark_of_the_paper_is_there_or_said_not_to_be():
    modules = {name for name in catalogue.MODULES if importlib.util.find_spec(f"r1repro.evals.{name}")}
    pending = {benchmark for module, some in ELSEWHERE.items() if module not in modules for benchmark in some}
    known = {*catalogue.all_of_them(), *catalogue.NOT_REPRODUCIBLE}
    named = {row["name"] for row in paper.benchmarks()}
    assert named - known - pending - EXPORTED == set()
    assert set(catalogue.NOT_REPRODUCIBLE) <= named


def test_published_numbers():
    def of(*words, **more):
        found = catalogue.published(*words, **more)
        return found and (found.value, found.source)

    assert of("AIME 2024") == (79.8, "table4") and of("GPQA Diamond", "OpenAI-o1-1217") == (75.7, "table4")
    assert of("AIME 2024", "DeepSeek-R1-Zero") == (77.9, "v2_table3_stages")  # v2 replaces 71.0
    assert of("MATH-500", "DeepSeek-R1-Zero") == (95.9, "table2")
    assert of("AIME 2024", "DeepSeek-R1-Zero", consensus=True) == (86.7, "table2")
    assert of("MMLU", "DeepSeek-V3-Base") == (87.1, "v2_table12_base_to_r1") and of("DROP", "R1-Dev2")[0] == 91.1
    assert of("Codeforces")[0] == 2029 and of("CMMLU") is None and of("AIME 2024", "GPT-9") is None


def test_a_name_is_found_in_any_writing_and_others_are_refused():
    assert catalogue.named("gpqa diamond").name == catalogue.named("GPQA-Diamond").name == "GPQA Diamond"
    refused(lambda: catalogue.named("aime"), "'aime'", "choose one of AIME 2024")
    refused(lambda: catalogue.named("chatbot arena"), "cannot be reproduced", "votes")


def test_what_is_missing_is_said_with_the_place_for_it(data):
    refused(lambda: catalogue.items_of(catalogue.named("AIME 2025")), "aime25", "math-ai/aime25", "HF_HUB_OFFLINE")
    refused(lambda: catalogue.items_of(catalogue.named("GPQA Diamond")), "gpqa", "gpqa_diamond.csv", "put its files")


def test_files_of_the_hub_are_put_into_the_folder(data, tmp_path, monkeypatch):
    import huggingface_hub

    there = put(tmp_path / "hub", {"data/test.jsonl": lines(SUMS), "x.bin": "no"})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: ["x.bin", "data/test.jsonl"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name, **__: str(there / name))
    assert len(catalogue.items_of(catalogue.named("AIME 2025"))) == 12
    assert [p.name for p in (data / "aime25").rglob("*") if p.is_file()] == ["test.jsonl"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: 1 / 0)
    refused(lambda: catalogue.items_of(catalogue.named("AMC 2023")), "amc23", "the hub says division")


# --- the runner


def exam(name="AIME 2024", **more):
    return config.exam("smoke", name, {f"exam.{key}": value for key, value in more.items()})[0]


@pytest.mark.parametrize(("script", "value"), [("perfect", 1.0), ("silent", 0.0)])
def test_a_scripted_model_scores_all_or_nothing(script, value, data, tmp_path):
    for name in ("AIME 2024", "MMLU"):
        summary = read_json(run.run(exam(name), tmp_path / name, f"scripted:{script}") / "summary.json")
        assert [metric["value"] for metric in summary["metrics"]] == [value] * len(summary["metrics"])
        assert summary["questions"] == len(catalogue.items_of(catalogue.named(name)))
    assert [m["name"] for m in read_json(tmp_path / "AIME 2024" / "summary.json")["metrics"]] == ["pass@1", "cons@64"]


def test_workers_that_share_a_benchmark_leave_what_one_leaves(data, tmp_path):
    few = config.Machine(max_rows=64)  # two questions a chunk
    alone = run.run(exam(), tmp_path / "alone", "scripted:perfect", few)
    with ThreadPoolExecutor(2) as workers:
        done = [workers.submit(run.run, exam(), tmp_path / "both", "scripted:perfect", few, True) for _ in range(2)]
    assert [future.result() for future in done] == [tmp_path / "both"] * 2
    for name in ("samples.jsonl", "summary.json"):
        assert (tmp_path / "both" / name).read_bytes() == (alone / name).read_bytes()
    assert {file.name for file in (tmp_path / "both").iterdir()} == {file.name for file in alone.iterdir()}
    assert "workers" in read_json(tmp_path / "both" / "manifest.json")


def test_a_model_is_sampled_by_the_protocol(data, tmp_path, tiny_base, monkeypatch):
    asked, honest = [], run.actors.Actor.sample

    def watch(self, questions, num_outputs, **given):
        asked.append((len(questions), num_outputs, given["temperature"], given["top_p"], given["max_tokens"]))
        return honest(self, questions, num_outputs, **given)

    monkeypatch.setattr(run.actors.Actor, "sample", watch)
    done = run.run(exam(k=3, limit=5, max_tokens=9), tmp_path / "r", tiny_base, models.SMALL_MACHINE)
    assert sum(call[0] for call in asked) == 5 and {call[1:] for call in asked} == {(3, 0.6, 0.95, 9)}
    rows = read_lines(done / "samples.jsonl")
    assert len(rows) == 5 and rows[0].keys() == {"step", "id", "group", "prompt", "gold", "outputs"}
    for output in (output for row in rows for output in row["outputs"]):
        assert output.keys() == {"text", "verdict", "score", "length", "truncated", "answer"} and output["length"] <= 9
    manifest = read_json(done / "manifest.json")
    assert manifest["versions"]["torch"] and manifest["config"]["temperature"] == 0.6 and manifest["exit"] == "complete"
    summary = read_json(done / "summary.json")
    assert summary["departs"] == ["5 of 12 questions", "k 3, not 64", "cap 9, not 32768"]


def test_ten_interruptions_change_no_byte(data, tmp_path, tiny_base, monkeypatch):
    machine, cfg = config.Machine(max_rows=2), exam(k=2, limit=8, max_tokens=4)
    whole = run.run(cfg, tmp_path / "whole", tiny_base, machine)
    honest, chance, actor = run._graded, random.Random(0), run.actors.load(tiny_base, cfg.policy, machine)
    monkeypatch.setattr(run.actors, "load", lambda *_: actor)

    def stop_now_and_then(*given):
        if chance.random() < 0.2:
            raise KeyboardInterrupt
        return honest(*given)

    stopped = 0
    while stopped < 10:
        with monkeypatch.context() as patch:
            patch.setattr(run, "_graded", stop_now_and_then)
            try:
                run.run(cfg, tmp_path / "torn", tiny_base, machine)
                (tmp_path / "torn").rename(tmp_path / f"done-{stopped}")  # it got through: begin anew
            except KeyboardInterrupt:
                stopped += 1
        with open(tmp_path / "torn" / "samples.jsonl", "a") if (tmp_path / "torn").exists() else io.StringIO() as file:
            file.write('{"step": 99, "outp')  # as a kill leaves it
    again = run.run(cfg, tmp_path / "torn", tiny_base, machine)
    for name in ("samples.jsonl", "summary.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_finished_evaluation_returns_at_once_and_another_is_refused(data, tmp_path, monkeypatch):
    folder = run.run(exam(k=2), tmp_path / "r", "scripted:perfect")
    with monkeypatch.context() as patch:
        patch.setattr(run, "_answered", lambda *_: 1 / 0)
        assert run.run(exam(k=2), tmp_path / "r", "scripted:perfect") == folder
    refused(lambda: run.run(exam(k=3), tmp_path / "r", "scripted:perfect"), "k (2 there, 3 now)")
    refused(lambda: run.run(exam(k=2), tmp_path / "r", "scripted:silent"), "model")
    put(data, {"aime24/x.jsonl": lines([*SUMS[:-1], SUMS[-1] | {"answer": 1}])})
    refused(lambda: run.run(exam(k=2), tmp_path / "r", "scripted:perfect"), "questions")
    refused(lambda: run.run(exam(), tmp_path / "s", "scripted:loud"), "'loud'", "scripted:perfect")


def test_a_prompt_that_leaves_no_room_gets_no_output(data, tmp_path, tiny_base):
    positions = read_json(tiny_base / "config.json")["max_position_embeddings"]
    long = {"id": 99, "problem": "one " * positions, "answer": 1}
    put(data, {"aime24/x.jsonl": lines([*SUMS[:2], long])})
    done = run.run(exam(k=1), tmp_path / "r", tiny_base, models.SMALL_MACHINE)
    rows, summary = read_lines(done / "samples.jsonl"), read_json(done / "summary.json")
    assert [row.get("too_long", False) for row in rows] == [False, False, True] and summary["too long"] == 1
    assert (
        rows[2]["outputs"][0] | {"text": ""} == rows[2]["outputs"][0] and rows[2]["outputs"][0]["verdict"] == "unparsed"
    )
    assert summary["cap"] < positions and "1 too long" in summary["departs"]


def outputs(*scores):
    verdicts = {1.0: "right", 0.0: "wrong", None: "error"}
    return [dict(text="", verdict=verdicts[s], score=s, length=4, truncated=False, answer=str(s)) for s in scores]


def test_a_summary_by_hand():
    benchmark = Benchmark(
        name="x", folder="x", load=lambda _: [], grade=lambda i, t: None, answer=lambda i, t: t,
        metric="rating; percentile",
        summarise=lambda items, scores: {"rating": 100.0 * len(items) + sum(map(sum, scores))},
    )  # fmt: skip
    items = [Item(id=x, prompt=x, gold="", group=g) for x, g in ("ab", "cb", "dd", "ee")]
    rows = [
        {"outputs": outputs(*scores)} for scores in ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, None, 0.0), (None,) * 3)
    ]
    made = run.summarise(benchmark, items, rows)
    assert [(m["name"], round(m["value"], 4)) for m in made["metrics"]] == [
        ("pass@1", round((2 + 1 + 1) / 12, 4)), ("cons@3", 0.5), ("rating", 404.0)
    ]  # fmt: skip
    assert made["groups"] == {"b": 0.5, "d": pytest.approx(1 / 3), "e": 0.0} and made["grader failed"] == 4
    lacking = run.summarise(benchmark, items, rows, ["no compiler"])
    assert lacking["not evaluated"] == 1 and lacking["metrics"][0]["value"] == pytest.approx(4 / 9)
    assert run.summarise(dataclasses.replace(benchmark, judged=True), items, rows)["metrics"] == []


def test_intervals_know_doubt_where_all_questions_agree():
    value, low, high = run.interval([1.0] * 30)
    assert (value, high) == (1.0, 1.0) and low == pytest.approx(0.025 ** (1 / 30))
    assert run.interval([0.0] * 30) == (0.0, 0.0, 1 - 0.025 ** (1 / 30))
    mixed = [n % 5 / 4 for n in range(200)] + [1.0] * 30
    assert run.interval(mixed) == pytest.approx(estimators.bootstrap([mixed]), abs=0.01)
    value, low, high = run.interval([1.0] * 24 + [0.0] * 6)  # AIME at 80 %: about 7 points a standard error
    assert value == 0.8 and 0.6 < low < 0.72 and 0.9 <= high <= 0.94


def test_the_noise_of_questions_and_of_samples():
    """Examinations drawn a thousand times: their spread is the formula's, and its parts are found again."""
    draw = np.random.default_rng(0)
    truth = noise.Noise(within=0.5 * 0.5 - 0.05, between=0.05)  # chances with mean 1/2 and variance 1/20
    shape = (0.25 / 0.05 - 1) / 2
    chance_EQ = draw.beta(shape, shape, size=(1000, 30))
    for k in (1, 16):
        scores_E = draw.binomial(k, chance_EQ).mean(axis=1) / k
        assert np.std(scores_E) == pytest.approx(noise.standard_error(truth, 30, k), rel=0.08)
    many_QK = draw.random((4000, 8)) < draw.beta(shape, shape, size=(4000, 1))
    found = noise.noise(many_QK)
    assert found.within == pytest.approx(0.2, rel=0.03) and found.between == pytest.approx(0.05, rel=0.1)
    with pytest.raises(ValueError, match="two questions"):
        noise.noise([[1.0, 0.0]])


def test_the_table_stands_beside_the_paper(data, tmp_path):
    for name, script in (("AIME 2024", "perfect"), ("MMLU", "silent")):
        run.run(exam(name, k=2), run.place(tmp_path, name), f"scripted:{script}")
    text = run.save_table(tmp_path, "DeepSeek-R1-Zero")
    rows = {(row["benchmark"], row["metric"]): row for row in read_json(tmp_path / "table.json")["rows"]}
    assert text == (tmp_path / "table.md").read_text() and "paper (DeepSeek-R1-Zero)" in text
    aime = rows["AIME 2024", "pass@1"]
    assert (aime["ours"], aime["paper"], aime["paper inside"]) == ("100.0", "77.9", "yes")  # twelve questions: 73.5 up
    assert rows["MMLU", "Pass@1"]["paper inside"] == "no" and rows["MMLU", "Pass@1"]["paper"] == "88.8"
    assert rows["AIME 2024", "cons@2"]["paper"] == "-"  # the paper's is of 64
    refused(lambda: run.save_table(tmp_path / "none"), "no finished benchmark")
    refused(lambda: run.save_table(tmp_path, "GPT-9"), "GPT-9", "choose one of")


# --- tasks of lm_eval


def test_without_lm_eval_the_way_out_is_said(data, tmp_path, tiny_base, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    cfg = config.exam("smoke", "lm-eval")[0]
    refused(lambda: lm_harness.run(cfg, tmp_path / "r", tiny_base, ["ifeval"]), "pip install lm_eval", "--benchmark")
    for line in lm_harness.lines():
        name = line[28:42].strip()
        assert name in catalogue.all_of_them()


def test_tasks_of_lm_eval_are_answered_by_the_protocol(tmp_path, tiny_base, monkeypatch):
    """A stand-in for lm_eval with its names and shapes: one task that asks two prompts, and one of likelihoods."""
    said = []

    def simple_evaluate(model, tasks, num_fewshot, limit, **_):
        assert num_fewshot == 0 and limit is None
        if tasks == ["nothing"]:
            raise KeyError("nothing")
        if tasks == ["likelihoods"]:
            model.loglikelihood([])
        asked = [("What is 1 + 1?", {"until": ["."], "temperature": 0.0}), ("What is 2 + 2?", {})]
        said.append(model.generate_until([types.SimpleNamespace(args=each) for each in asked]))
        return {"results": {tasks[0]: {"acc": 0.5}}}

    class LM:
        pass

    fake = types.SimpleNamespace(simple_evaluate=simple_evaluate, __version__="0")
    monkeypatch.setitem(sys.modules, "lm_eval", fake)
    monkeypatch.setitem(sys.modules, "lm_eval.api", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", types.SimpleNamespace(LM=LM))
    monkeypatch.setattr(
        run.actors.Actor, "texts", lambda self, samples: ["<think>a.b</think>c.d"] * len(samples.length_N)
    )
    cfg = config.exam("smoke", "lm-eval", {"exam.max_tokens": 5})[0]
    done = lm_harness.run(cfg, tmp_path / "r", tiny_base, ["task"], models.SMALL_MACHINE)
    assert said == [["c", "c.d"]] and read_json(done / "results.json") == {"task": {"acc": 0.5}}
    assert [row["prompt"] for row in read_lines(done / "samples.jsonl")] == ["What is 1 + 1?", "What is 2 + 2?"]
    refused(lambda: lm_harness.run(cfg, tmp_path / "s", tiny_base, ["nothing"]), "cannot run nothing")
    refused(lambda: lm_harness.run(cfg, tmp_path / "t", tiny_base, ["likelihoods"]), "log-likelihoods")


# --- contamination


def test_contamination_by_ten_words(data, tmp_path):
    exact, phrase = SUMS[0]["problem"], "and what is 3 plus 3, if 3 is counted twice then"
    rows = [{"q": "Nothing of it."}, {"deep": [{"said": f"I know: {exact.upper()}"}]}, {"q": phrase}]
    (report,) = contamination.check(put(tmp_path, {"train.jsonl": lines(rows)}) / "train.jsonl", ["aime2024"])
    assert report.items == 12 and report.rows == 3
    assert report.found == {"0": {2: 1.0}, "3": {3: pytest.approx(1 / 2, abs=0.5)}}
    assert "2 of 12 questions (16.7%)" in report.line() and "2 of 3 rows" in report.line()
    contamination.save([report], tmp_path / "found.jsonl")
    assert read_lines(tmp_path / "found.jsonl")[0] == {"benchmark": "AIME 2024", "id": "0", "rows": {"2": 1.0}}


def test_what_a_protocol_says_around_each_question_is_no_contamination(data, tmp_path):
    """A text that has the end of a question and what is asked behind it, as any text on that protocol does."""
    around = f"If 3 is counted twice over? {mathematics.ASKED}"
    assert around.casefold() in catalogue.items_of(catalogue.named("AIME 2024"))[3].prompt.casefold().replace("\n", " ")
    file = put(tmp_path, {"t.jsonl": lines([{"q": around}])}) / "t.jsonl"
    (report,) = contamination.check(file, ["aime2024"])
    assert report.found == {} and report.short == 0
    refused(lambda: contamination.check(tmp_path / "none.jsonl", ["MMLU"]), "none.jsonl")


# --- the command line


def test_the_verbs(data, tmp_path, capsys):
    words = [
        "evaluate",
        "--tier",
        "smoke",
        "--model",
        "scripted:perfect",
        "--benchmark",
        "aime2024",
        "mmlu",
        "--k",
        "2",
    ]
    assert __main__.main([*words, "--limit", "3", "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "o" / "table.md").read_text() and "| AIME 2024 | pass@1" in said and "79.8" in said
    assert __main__.main(["benchmarks"]) == 0
    said = capsys.readouterr().out
    assert "GPQA Diamond" in said and "not reproducible:" in said and "put there by hand" in said
    put(tmp_path, {"t.jsonl": lines(SUMS[:2])})
    assert __main__.main(["contamination", "--train", str(tmp_path / "t.jsonl"), "--benchmark", "aime2024"]) == 0
    assert "2 of 12 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--benchmark", "aime2024"], "--out"),
        ([], "--benchmark"),
        (["--benchmark", "nothing", "--out", "x"], "'nothing'"),
        (["--benchmark", "gpqadiamond", "--out", "x"], "gpqa_diamond.csv"),
        (["--benchmark", "aime2024", "--out", "x", "--k", "many"], "--k"),
        (["--benchmark", "aime2024", "--out", "x", "--beside", "GPT-9"], "GPT-9"),
        (["--benchmark", "aime2024", "--out", "x", "--set", "exam.benchmark=b"], "exam.benchmark"),
        (["--benchmark", "aime2024", "--out", "x", "--set", "evaluate.top_p=2"], "top_p"),
    ],
)
def test_a_mistake_is_answered_with_one_line(words, said, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["evaluate", "--model", "scripted:perfect", *words]) == 2
    answer = capsys.readouterr()
    assert answer.out == "" and answer.err.count("\n") == 1 and said in answer.err and not (tmp_path / "x").exists()
