"""Benchmarks of programs: what is read from files and outputs, and what is said of what cannot be run here.

The harnesses of the other languages run in `languages_part`; what a sandbox holds off is in `attacks_languages`.
"""

import base64
import json
import os
import pickle
import shutil
import zlib
from pathlib import Path

import pytest

from r1repro import doctor
from r1repro.config import Exam, Policy
from r1repro.evals import contests, harness, programs, run
from r1repro.evals.benchmark import Item
from r1repro.records import Refusal
from r1repro.rewards import code, languages, sandbox
from r1repro.run import read_json

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))


def put(folder, name, rows):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def refused(function, *words):
    with pytest.raises(Refusal) as caught:
        function()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


# --- what counts as the program


ONE, TWO = "long f(long n) { return 1; }\n", "long f(long n) { return 2; }\n"


@pytest.mark.parametrize(
    "output, block",
    [
        (f"```cpp\n{ONE}```\n```cpp\nint main() {{ f(2); }}\n```", ONE),
        (f"```cpp\n{ONE}```\n```cpp\n{TWO}```", TWO),
        (f"<think>```cpp\n{ONE}```</think>\n```c++\nreturn 2;\n```", "return 2;\n"),
        (f"```python\nf = 1\n```\n```\n{TWO}```", TWO),
        (TWO, TWO),
        ("I would call f(2).", None),
        ("", None),
    ],
)
def test_the_block_that_defines_the_function_counts(output, block):
    assert harness.block_of("cpp", output, "f") == block


@pytest.mark.parametrize(
    "language, defining, calling",
    [
        ("java", "static long f(long n) {", "if (x) { f(2); }"),
        ("java", "public static Optional<String> f(ArrayList<String> s) throws Exception {", "g(f(2));"),
        ("cs", "static long f(long n) => n;", "Console.Write(f(2));"),
        ("cs", "static long f(long n)\n{", "f(2);"),
        ("cpp", "std::vector<long> f(std::vector<long> v) {", "auto x = f({1});"),
        ("js", "const f = (n) => n;", "console.log(f(2) == 3);"),
        ("js", "async function f(n) {", "f(2);"),
        ("ts", "const f: (n: number) => number = n => n;", "f(2);"),
        ("php", "function f($n) {", "echo f(2);"),
        ("sh", "f () {", "x=$(f 2)"),
        ("sh", "function f {", "f 2"),
    ],
)
def test_a_definition_is_told_from_a_call(language, defining, calling):
    fence = languages.LANGUAGES[language].fences[0]
    text = f"```{fence}\n{defining}\n```\n```{fence}\n{calling}\n```"
    assert harness.block_of(language, text, "f") == defining + "\n"


def test_a_block_without_the_imports_gets_those_of_the_prompt_once():
    prompt = "import java.util.*;\nimport java.math.*;\nclass Problem {\n    public static long f(long n) {\n"
    tests = "    }\n    public static void main(String[] args) {\n    assert(f((1l)) == (1l));\n    }\n\n}\n"
    block = "package mine;\nimport java.util.*;\npublic class Problem { public static long f(long n) { return n; } }"
    made = harness.files("java", prompt, tests, block, "m4rk")["Problem.java"]
    assert made.count("import java.util.*;") == 1 and "import java.math.*;" in made
    assert "package" not in made and "public class" not in made and made.count("class Problem") == 1
    assert made.index("assert(f((1l))") < made.index("m4rk")


def test_tests_of_another_form_are_no_program():
    with pytest.raises(ValueError, match="another form"):
        harness.files("java", "class Problem {\n public static long f(long n) {\n", "assert f(1) == 1", "", "mark")


@pytest.mark.parametrize(
    "text, program",
    [
        (
            "```python\ndef f():\n    return 1\n```\n```python\nprint(f())\n```",
            "def g(): pass\n\ndef f():\n    return 1\n",
        ),
        ("```\n    return 2\n```", "def g(): pass\ndef f():\n    return 2\n"),
        ("No idea.", None),
    ],
)
def test_the_python_program_has_what_the_prompt_gives(text, program):
    assert programs.python_of(text, "def g(): pass\ndef f():\n", "f") == program


# --- what is missing here


@pytest.mark.parametrize("name", languages.LANGUAGES)
def test_a_missing_toolchain_is_one_line_and_no_wrong_answer(name, monkeypatch):
    monkeypatch.setattr(sandbox, "refusal", lambda: "")
    monkeypatch.setattr(languages, "tools", lambda name: dict.fromkeys(("tool", "other"), ""))
    why = languages.missing(name)
    assert why.startswith(f"{name}: no tool, other ") and "make setup-sandbox" in why and "\n" not in why
    item = Item(id="1", prompt="", gold=None, more={"language": name, "given": "x f() {", "tests": ""})
    score = programs.grade_function(item, "```\nf\n```")
    assert (score.value, score.verdict) == (None, "error")
    assert programs.lacking([item, item]) == [f"{why} (2 questions)"]
    lines = {what: (state, detail) for state, what, detail in doctor.report()}
    assert lines[f"programs, {name}"] == ("note", why.removeprefix(f"{name}: "))
    with pytest.raises(Refusal):
        languages.run(name, {})


def test_a_tool_that_no_sandbox_sees_is_missing(tmp_path, monkeypatch):
    (tmp_path / "node").write_text("")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda tool, path: str(tmp_path / tool))
    assert languages._found("node", ()) == ""
    assert languages._found("tsc.js", (str(tmp_path),)) == ""


def test_without_a_sandbox_nothing_is_evaluated(monkeypatch):
    monkeypatch.setattr(sandbox, "refusal", lambda: "no bubblewrap")
    function = Item(id="1", prompt="", gold=None, more={"language": "python", "given": "", "tests": "", "name": "f"})
    program = Item(id="2", prompt="", gold={"inputs": ["1"], "outputs": ["1"]}, more={"language": "python"})
    assert programs.grade_function(function, "```\nf = 1\n```").value is None
    assert contests.grade_program(program, "```python\nprint(1)\n```").value is None
    assert harness.lacking([function, program]) == ["no bubblewrap (2 questions)"]


def test_a_program_that_cannot_be_isolated_is_an_error_and_one_out_of_time_is_wrong():
    assert harness.score(code.halted(sandbox.NOT_MADE)).value is None
    assert harness.score(code.halted("more than 3 s of CPU time")).value == 0.0


# --- rows


ROW = {"name": "HumanEval_53_add", "language": "sh", "prompt": "#!/bin/bash\nadd() {\n", "tests": "}\n\nrun_test"}
CASE = {
    "task_id": "HumanEval/53",
    "prompt": "def add(x, y):\n",
    "canonical_solution": "    return x + y\n",
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
}


def test_humaneval_mul_knows_the_language_by_the_row_or_by_the_file(tmp_path):
    put(tmp_path, "humaneval-sh.jsonl", [{k: v for k, v in ROW.items() if k != "language"}])
    put(tmp_path, "humaneval-python.jsonl", [CASE | {"task_id": "Python/53"}])
    items = programs.load_human_eval_mul(tmp_path)
    assert [(item.id, item.group) for item in items] == [("python/53", "Python"), ("sh/53", "Bash")]
    assert "```bash\n#!/bin/bash\nadd() {\n```" in items[1].prompt and "check(add)" in items[0].more["tests"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"language": "cobol"}, ["cobol", "line 1"]),
        ({"tests": 5}, ["tests", "line 1"]),
        ({"prompt": "no function"}, ["no function", "line 1"]),
        ({"tests": "run_test"}, ["another form", "line 1"]),
    ],
)
def test_a_row_that_is_none_is_refused(change, words, tmp_path):
    refused(lambda: programs.load_human_eval_mul(put(tmp_path, "humaneval-sh.jsonl", [ROW | change])), *words)


def test_mbpp_asks_the_test_split_where_all_tasks_are_there(tmp_path):
    def row(number):
        return {
            "task_id": number,
            "text": "Add.",
            "test_list": ["assert add(1, 2) == 3"],
            "code": "def add(a, b):\r\n  return a + b",
        }

    whole = put(tmp_path / "a", "mbpp.jsonl", map(row, (1, 10, 11, 510, 511, 974)))
    assert [item.id for item in programs.load_mbpp(whole)] == ["MBPP/11", "MBPP/510"]
    assert [item.id for item in programs.load_mbpp(put(tmp_path / "b", "mbpp.jsonl", map(row, (2, 3))))] == [
        "MBPP/2",
        "MBPP/3",
    ]
    refused(
        lambda: programs.load_mbpp(put(tmp_path / "c", "x.jsonl", [row(11) | {"test_list": []}])), "test_list", "line 1"
    )


def packed(tests):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/evil",))


def problem(day, **more):
    cases = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    return {
        "question_id": f"q{day}", "question_content": "Add one.", "contest_date": f"{day}T00:00:00",
        "difficulty": "easy", "starter_code": "", "metadata": "{}", "public_test_cases": json.dumps(cases),
        "private_test_cases": packed(cases * 2),
    } | more  # fmt: skip


def test_live_code_bench_by_date_window(tmp_path):
    days = ("2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01")
    put(tmp_path, "test5.jsonl", map(problem, days))
    named = {benchmark.name: benchmark for benchmark in programs.BENCHMARKS}
    items = named["LiveCodeBench (2024-08 to 2025-01)"].load(tmp_path)
    assert [item.more["date"] for item in items] == ["2024-08-01", "2025-01-31"]
    assert items[0].gold == {"inputs": ["1\n"] * 3, "outputs": ["2\n"] * 3} and items[0].group == "easy"
    assert len(contests.live_code_bench("2024-07-31", "2024-07-31").load(tmp_path)) == 1
    refused(lambda: contests.live_code_bench("2023-01-01", "2023-02-01").load(tmp_path), "2024-07-31 to 2025-02-01")
    refused(lambda: contests.live_code_bench("2023-05-02", "2023-05-01"), "no day")
    refused(lambda: contests.live_code_bench("May", "June"), "May")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(["a", "b"]), pickle.dumps(Evil()), b"no pickle", pickle.dumps(json.dumps([])[:-1]),
        pickle.dumps(json.dumps([{"input": "1"}])),
    ],
)  # fmt: skip
def test_a_pickle_is_read_and_never_run(content, tmp_path):
    Path("/tmp/evil").unlink(missing_ok=True)
    text = base64.b64encode(zlib.compress(content)).decode()
    folder = put(tmp_path, "test.jsonl", [problem("2024-09-01", private_test_cases=text)])
    window = contests.live_code_bench(*contests.WINDOW)
    refused(lambda: window.load(folder), "line 1", "private_test_cases")
    assert not Path("/tmp/evil").exists()
    refused(
        lambda: window.load(put(tmp_path, "test.jsonl", [problem("2024-09-01", private_test_cases="?")])), "private"
    )


@pytest.mark.parametrize(
    "tests",
    [None, [], {}, {"inputs": [], "outputs": []}, {"inputs": ["1"], "outputs": []}, {"inputs": ["1"], "outputs": [2]},
     "{", [{"input": "1"}]],
)  # fmt: skip
def test_a_contest_problem_needs_tests(tests, tmp_path):
    refused(
        lambda: contests.load_contests(put(tmp_path, "x.jsonl", [{"problem": "Add.", "tests": tests}])),
        "line 1",
        "tests",
    )


def test_names_are_those_of_the_papers_table():
    from r1repro import paper

    table = (paper.folder() / "benchmarks.csv").read_text()
    for benchmark in programs.BENCHMARKS:
        assert benchmark.name in table or benchmark.note.startswith("not in the paper"), benchmark.name


# --- programs in Python, run


if shutil.which("bwrap"):

    @pytest.mark.parametrize(
        "text, value",
        [
            ("```python\ndef add(x, y):\n    return x + y\n```\n```python\nprint(add(1, 2))\n```", 1.0),
            ("```python\n    return y + x\n```", 1.0),
            ("```python\ndef add(x, y):\n    return x - y\n```", 0.0),
            ("<think>```python\ndef add(x, y):\n    return x + y\n```</think>It adds.", 0.0),
            ("", 0.0),
        ],
    )
    def test_a_function_in_python(text, value, tmp_path):
        (item,) = programs.load_human_eval(put(tmp_path, "x.jsonl", [CASE]))
        assert programs.grade_function(item, text).value == value
        assert programs.grade_function(item, programs.perfect_function(item)).value == 1.0

    @pytest.mark.parametrize(
        "text, value",
        [
            ("```python\nprint(int(input()) + 1)\n```\n```python\nprint(0)\n```", 1.0),
            ("```python\nprint(0)\n```\n```python\nprint(int(input()) + 1)\n```", 0.0),
            ("```python\nprint(2)\n```", 0.0),
            ("No.", 0.0),
        ],
    )
    def test_the_first_program_of_an_output_reads_stdin(text, value, tmp_path):
        rows = [{"problem": "Add one.", "tests": {"inputs": ["1\n", "5\n"], "outputs": ["2\n", "6\n"]}}]
        (item,) = contests.load_contests(put(tmp_path, "x.jsonl", rows))
        assert contests.grade_program(item, text).value == value

    def test_a_method_of_live_code_bench(tmp_path):
        case = {"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}
        start = "class Solution:\n    def more(self, a, b):\n"
        row = problem("2024-09-01", starter_code=start, metadata='{"func_name": "more"}', private_test_cases="[]")
        folder = put(tmp_path, "test.jsonl", [row | {"public_test_cases": json.dumps([case])}])
        (item,) = contests.live_code_bench(*contests.WINDOW).load(folder)
        right, wrong = (f"```python\n{start}        return {body}\n```" for body in ("(*a, b)", "a"))
        assert start.strip() in item.prompt
        assert (contests.grade_program(item, right).value, contests.grade_program(item, wrong).value) == (1.0, 0.0)


if DATA.is_dir():  # collected only where the data lies, so nothing is ever skipped

    def test_the_public_files_are_read():
        items = {b.name: b.load(DATA / b.folder) for b in programs.BENCHMARKS if (DATA / b.folder).is_dir()}
        assert {len({i.id for i in items["HumanEval-Mul"] if i.group == name}) for name in programs.NAMES.values()} == {
            77, 79, 80, 82,
        }  # fmt: skip
        assert {name: len(found) for name, found in items.items()} == {
            "HumanEval-Mul": 635, "HumanEval": 82, "MBPP": 500, "CodeContests": 165,
        }  # fmt: skip
        assert all(len({item.id for item in found}) == len(found) for found in items.values())
        assert set(programs.FLAWED) <= {item.id for item in items["HumanEval-Mul"]}


def test_what_a_machine_lacks_is_said_and_left_out_of_the_numbers(tmp_path, monkeypatch, capsys):
    put(tmp_path / "humaneval_mul", "humaneval-sh.jsonl", [ROW])
    put(
        tmp_path / "humaneval_mul",
        "humaneval-php.jsonl",
        [ROW | {"language": "php", "prompt": "<?php\nfunction add() {\n"}],
    )
    monkeypatch.setenv("R1REPRO_DATA", str(tmp_path))
    monkeypatch.setattr(sandbox, "refusal", lambda: "")
    monkeypatch.setattr(sandbox, "isolation", lambda: "root")
    monkeypatch.setattr(languages, "tools", lambda name: {"php": "" if name == "php" else "/usr/bin/env"})
    cfg = Exam(benchmark="HumanEval-Mul", k=2, policy=Policy(template="r1_zero"))
    summary = read_json(run.run(cfg, tmp_path / "run", "scripted:silent") / "summary.json")
    assert (summary["questions"], summary["not evaluated"], len(summary["lacking"])) == (2, 1, 1)
    assert summary["metrics"][0]["value"] == 0.0 and "groups" not in summary
    assert [line for line in capsys.readouterr().err.splitlines() if "php: no php below /usr" in line]
