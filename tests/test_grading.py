"""Answers stated in prose, letters, kinds, files of cases, and the rewards as other trainers call them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from r1repro import grade
from r1repro.__main__ import main
from r1repro.records import Question, Refusal
from r1repro.rewards import code, ecosystem, kinds, sandbox
from r1repro.rewards.stated import stated_answer, stated_letter, stated_words
from r1repro.run import read_lines

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))


@pytest.mark.parametrize(
    "text, answer",
    [
        (r"It is \boxed{7}. The answer is 8.", "7"),
        ("<think>The answer is 5.</think> The answer is 6.", "6"),
        ("So she has 3.5 apples.\nA: 3.5", "3.5"),
        ("#### 1,600", "1,600"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("La r\u00e9ponse est 12.", "12"),
        ("\u7b54\u6848\u662f\uff1a42\u3002", "42"),
        ("First 2, then 9.\nSo it is **11 km** in all, not 12... wait: **11**", "11"),
        ("x is 4\ny is 5", "5"),
        ("It rises by 100%.", "100%"),
        ("The answer is 5, perhaps 6.", None),
        ("The answer is not 5.", None),
        (r"The answer is \boxed{5", None),
        ("I do not know.", None),
        ("The answer is 4 <|im_end|> The answer is 5", "4"),
    ],
)
def test_stated_answers(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    "text, letter",
    [
        ("The answer is (C).", "C"),
        ("The answer is **(C)**", "C"),
        ("The answer is for sure D, it cannot be A or B", "D"),
        ("Answer: B", "B"),
        ("B", "B"),
        ("(B) because of A", "B"),
        (r"\boxed{\text{(E)}}", "E"),
        ("The answer is (A) or (G). However (A) is closer, so the answer is (A).", "A"),
        ("The answer is (A) or (B).", None),
        ("The answer is C or D.", None),
        ("The answer is definitely not B.", None),
        ("The answer is neither B nor C.", None),
        ("A B C D", None),
        ("The answer is a tree.", None),
        ("I would guess.", None),
        ("It is not (B).\nIt is (D).", "D"),
        ("Either (B) or (D).", None),
    ],
)
def test_stated_letters(text, letter):
    assert stated_letter(text) == letter


def test_the_text_of_an_option_is_its_letter():
    question = "Which?\n(A) one mole\n(B) two moles\n(C) two moles"
    assert stated_letter("<answer>One mole.</answer>", question) == "A"
    assert stated_letter("<answer>two moles</answer>", question) is None
    assert stated_letter("<answer>three</answer>", question) is None


def test_stated_words():
    assert stated_words("Since it ends in 4, the answer is even.") == "even"
    assert kinds.grade("response", "even", "The answer is odd.")["verdict"] == "wrong"


@pytest.mark.parametrize(
    "gold, text, verdict",
    [
        ("6 and 7", "7, 6", "right"),
        ("6, 7", "6, 7, 8", "wrong"),
        ("6", "6, 7", "wrong"),
        ("x=1,y=2", "y = 2, x = 1", "right"),
        ("x=1,y=2", "x = 2, y = 1", "wrong"),
        ("(1, 2)", "(2, 1)", "wrong"),
        ("2:3", "4:6", "right"),
        ("2:3", "3:2", "wrong"),
        ("0.\\overline{3}", "1/3", "right"),
        ("12", "12 cm", "right"),
        ("\\sin^2t", "\\sin^{2}(t)", "right"),
        ("1000", "1 000", "right"),
        ("1000.99", "1000,99", "right"),
        ("0,111", "0.111", "right"),
        ("3,5", "3.5", "wrong"),
        ("3.5", "3,5", "right"),
        ("12", "1 2", "unparsed"),
        ("B", "B. the second", "right"),
        ("\\boxed{1} papers and \\boxed{2} bins", "\\boxed{1,2}", "right"),
        ("5", "\\boxed{3} and \\boxed{5}", "wrong"),
    ],
)
def test_answer_pairs(gold, text, verdict):
    assert kinds.grade("answer_pair", gold, text)["verdict"] == verdict


def test_thinking_that_does_not_end_answers_nothing():
    assert kinds.grade("think_response", "4", "<think> \\boxed{4}")["verdict"] == "unparsed"
    assert kinds.grade("think_response", "4", "<think>5</think> \\boxed{4}")["verdict"] == "right"


def test_the_strict_format_wants_both_blocks_and_nothing_else():
    good = "<think>a</think>\n<answer>b</answer>"
    assert kinds.grade("format_think_answer", None, good)["verdict"] == "right"
    for bad in (f"Sure! {good}", f"{good} bye", good.replace("</answer>", ""), good * 2, "<think>a</think> b"):
        assert kinds.grade("format_think_answer", None, bad)["verdict"] == "wrong"


@pytest.mark.parametrize(
    "text, program",
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("First:\n```py\nx = 1\n```\nBetter:\n~~~\nx = 2\n~~~\n", "x = 2\n"),
        ("```bash\nls\n```\n```python\nx = 1\n```\n```json\n{}\n```", "x = 1\n"),
        ("<think>```python\nx = 1\n```</think> I cannot.", None),
        ("<answer>\nx = 1\n</answer>", "x = 1"),
        ("x = = 1", None),
        ("", None),
        ("\x00", None),
    ],
)
def test_the_program_of_an_output(text, program):
    assert code.program_of(text) == program


# --- files of cases


CASES = [
    {"id": f"a{i}", "kind": "answer_pair", "gold": str(i), "response_or_prediction": str(i + i % 2), "expected": True}
    for i in range(150)
]


def write(path, cases):
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    return path


def test_a_file_of_cases_is_graded_and_handed_through(tmp_path, capsys):
    source, target = write(tmp_path / "cases.jsonl", CASES), tmp_path / "sub" / "verdicts.jsonl"
    assert main(["grade", "--in", str(source), "--out", str(target)]) == 0
    rows = read_lines(target)
    assert [row["id"] for row in rows] == [case["id"] for case in CASES]
    assert all(row.items() >= case.items() for row, case in zip(rows, CASES, strict=True))
    assert [row["score"] for row in rows] == [1.0 - i % 2 for i in range(150)]
    assert all(row["wall_s"] >= 0 and row["reason"] for row in rows)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "150 cases: 75 right, 75 wrong" and said[2] == "all: 75 of 150 as expected (50.0%)"
    assert said[3].startswith("  a1 (all): wrong, expected right: ") and len(said) == 3 + 75


def test_grading_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    source, target = write(tmp_path / "cases.jsonl", CASES), tmp_path / "verdicts.jsonl"
    grade.grade_file(source, target)
    whole = [row["verdict"] for row in read_lines(target)]
    lines = target.read_text().splitlines(keepends=True)
    target.write_text("".join(lines[:70]) + lines[70][:25])
    asked, graded = [], kinds.grade
    monkeypatch.setattr(kinds, "grade", lambda *a: asked.append(a) or graded(*a))
    grade.grade_file(source, target)
    assert [row["verdict"] for row in read_lines(target)] == whole and len(asked) == 80
    grade.grade_file(source, target)
    assert len(asked) == 80


@pytest.mark.parametrize(
    "line, match",
    [
        ("{", "line 3: no JSON"),
        ("[1]", "line 3: list"),
        ('{"id": 3}', "line 3: 'id' is 3"),
        ('{"id": "x", "kind": "poem", "response_or_prediction": ""}', "kind 'poem' is not known: choose of answer"),
        ('{"id": "x", "kind": "response", "response_or_prediction": ""}', "line 3: 'gold' is None"),
        ('{"id": "x", "kind": "response", "gold": "1", "question": 5, "response_or_prediction": ""}', "'question'"),
    ],
)  # fmt: skip
def test_a_bad_case_is_one_line_and_the_verdicts_before_it_are_kept(tmp_path, capsys, line, match):
    source, target = write(tmp_path / "cases.jsonl", CASES[:2]), tmp_path / "verdicts.jsonl"
    source.write_text(source.read_text() + line + "\n")
    assert main(["grade", "--in", str(source), "--out", str(target)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert match in said and len(read_lines(target)) == 2
    write(source, CASES[:3])
    grade.grade_file(source, target)
    assert len(read_lines(target)) == 3


def test_verdicts_on_other_cases_are_not_gone_on_with(tmp_path):
    source, target = write(tmp_path / "cases.jsonl", CASES[:3]), tmp_path / "verdicts.jsonl"
    grade.grade_file(source, target)
    with pytest.raises(Refusal, match="verdicts on other cases"):
        grade.grade_file(write(tmp_path / "others.jsonl", CASES[1:]), target)
    with pytest.raises(Refusal, match="3 verdicts, .* only 2 cases"):
        grade.grade_file(write(tmp_path / "fewer.jsonl", CASES[:2]), target)
    with pytest.raises(Refusal, match="no cases at"):
        grade.grade_file(tmp_path / "nowhere", target)
    with pytest.raises(Refusal, match="is the file of the cases"):
        grade.grade_file(source, source)


def test_half_a_surrogate_pair_is_graded_and_written(tmp_path):
    source, target = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    source.write_text(
        '{"id": "s", "kind": "response", "gold": "1", "response_or_prediction": "\\ud800 \\\\boxed{1}"}\n'
    )
    grade.grade_file(source, target)
    assert read_lines(target)[0]["verdict"] == "right" and "\ud800" in read_lines(target)[0]["response_or_prediction"]


# --- as other trainers call them


def test_trl_columns_reach_the_rewards():
    completions = ["<think>.</think> <answer>4</answer>", "<answer>5</answer>"]
    assert ecosystem.accuracy_reward(completions, answer=["4", "4"], trainer_state=None) == [1.0, 0.0]
    assert ecosystem.accuracy_reward(completions=completions, prompts=["", ""], solution=[4, 5]) == [1.0, 1.0]
    assert ecosystem.format_reward(completions, completion_ids=[[1], [2]]) == [1.0, 0.0]
    assert ecosystem.language_reward(["<think>so \u6240</think>"] * 2, language=["en", "zh"]) == [0.5, 0.5]
    with pytest.raises(Refusal, match="no column 'answer' or 'solution' or 'gold'"):
        ecosystem.accuracy_reward(completions, label=["4", "4"])
    with pytest.raises(Refusal, match="one entry an output"):
        ecosystem.accuracy_reward(completions, answer="4")


def test_conversations_and_a_begun_thinking():
    messages = [[{"role": "assistant", "content": "so 4</think> <answer>4</answer>"}]]
    assert ecosystem.accuracy_reward(messages, answer=["4"]) == [1.0]
    assert ecosystem.format_reward(messages) == [0.0]
    assert ecosystem.format_reward(["so</think> 4"], prompts=["Question?<think>\n"]) == [1.0]


def test_a_grader_that_fails_gives_none_to_trl_and_0_to_verl():
    assert ecosystem.accuracy_reward([r"\boxed{x}"], answer=[r"\frac{"]) == [None]
    found = ecosystem.compute_score("math", r"<think>.</think> \boxed{x}", r"\frac{")
    assert found == {"score": 1.0, "accuracy": 0.0, "format": 1.0, "verdict": "error"}


def test_without_bubblewrap_no_program_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv(sandbox.UNSAFE, raising=False)
    sandbox.isolation.cache_clear()
    try:
        assert sandbox.refusal().startswith(
            "bubblewrap (bwrap) is not installed, so no program of a model is run: install"
        )
        with pytest.raises(Refusal, match=sandbox.UNSAFE):
            sandbox.run("print(1)")
    finally:
        sandbox.isolation.cache_clear()


if shutil.which("bwrap"):  # programs run in isolation or not at all; `make test-sandbox` has the attacks

    def question(gold):
        return Question(id="0" * 16, text="", gold=gold, language="en", level=1, family="")

    def test_programs_are_scored():
        tests = "assert f(1) == 2\nassert f(2) == 3"
        texts = [
            "```python\ndef f(x):\n    return x + 1\n```",
            "def f(x): return 2",
            "no program",
            "def f(x):\n  while 1: 0",
        ]
        scores = code.code([question(tests)] * 4, texts)
        assert [(s.value, s.verdict) for s in scores] == [
            (1.0, "right"), (0.0, "wrong"), (0.0, "unparsed"), (0.0, "timed_out"),
        ]  # fmt: skip
        assert code.code([question("assert (")], [texts[0]])[0].value is None
        assert ecosystem.code_reward(texts[:2], tests=[tests] * 2) == [1.0, 0.0]
        assert ecosystem.compute_score("code", texts[0], tests, {"kind": "code"})["accuracy"] == 1.0
        assert kinds.grade("code_python", tests, texts[3])["score"] == 0.0

    def test_all_inputs_and_the_whole_output_count():
        tests = json.dumps({"inputs": ["1\n", "5\n"], "outputs": ["1\n2\n", "5\n6 \n\n"]})
        good = "n = int(input())\nprint(n)\nprint(n + 1)"
        assert code.grade(good, tests)["verdict"] == "right"
        assert code.grade("n = int(open(0).read())\nprint(f'{n}\\n{n + 1}')", tests)["verdict"] == "right"
        for bad in ("print(input())", "print('1\\n2')", f"{good}\nprint()\nprint(3)", f"{good}\nraise SystemExit(1)"):
            assert code.grade(bad, tests)["verdict"] == "wrong", bad
        assert code.grade(good, '{"inputs": [], "outputs": []}')["verdict"] == "error"

    def test_what_passes_between_program_and_tests():
        program = """
import collections, fractions, decimal
class Node:
    def __init__(self, v): self.v, self.next = v, None
def same(x): return x
def size(n): return 1 + size(n.next) if n else 0
def pairs(d): return collections.OrderedDict(d)
def gen(n): yield from range(n)
def adder(n): return lambda x: x + n
LIMIT = 7
"""
        tests = """
for x in (None, True, 0, -5, 10 ** 5000, 1.5, float("inf"), 1j, "a\\ud800\\n", b"x\\x00", [1, [2]], (1, (2,)), {1, 2},
          frozenset({3}), {"a": [1], (1, 2): None}, range(3), [], (), {}, set()):
    assert same(x) == x and type(same(x)) is type(x), x
assert same(float("nan")) != same(float("nan"))
a = Node(1); a.next = Node(2); assert size(a) == 2 and a.next.v == 2
assert pairs({1: 2}) == {1: 2} and list(gen(3)) == [0, 1, 2] and adder(3)(4) == 7 and LIMIT == 7
assert same(iter([1, 2])).__class__ and same(int) is not None
"""
        assert code.grade(program, tests) == {"verdict": "right", "reason": "all tests pass"}


if DATA.is_dir():

    @pytest.fixture(scope="module")
    def verdicts(tmp_path_factory):
        names = ["answer_pairs", "format_cases", "gsm8k_model_outputs", "math_model_outputs", "mcq_model_outputs"]
        names += ["code_model_outputs"] if shutil.which("bwrap") else []
        source = tmp_path_factory.mktemp("grading") / "cases.jsonl"
        source.write_text("".join((DATA / "grading" / f"{name}.jsonl").read_text() for name in names))
        return read_lines(grade.grade_file(source, source.with_name("verdicts.jsonl")))

    @pytest.mark.parametrize("tier, share", [("core", 0.99), ("extended", 0.95)])
    def test_real_cases_are_graded_as_expected(verdicts, tier, share):
        rows = [row for row in verdicts if row["tier"] == tier]
        apart = [(row["id"], row["reason"]) for row in rows if (row["verdict"] == "right") != row["expected"]]
        assert len(rows) > 100 and len(apart) <= (1 - share) * len(rows), apart
        assert max(row["wall_s"] for row in rows) < 5
