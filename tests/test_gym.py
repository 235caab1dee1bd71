"""Tasks of reasoning_gym as sources of questions: the same in every process, judged by their own scorers, safely."""

import ast
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1repro import data
from r1repro.records import Question, Refusal
from r1repro.rewards import gym, reasoning
from r1repro.tinyworld.splits import split_of

TASKS = ("countdown", "gcd", "word_sorting", "simple_integration", "word_ladder")


def verdicts(questions, answers):
    scores = reasoning.accuracy(questions, [f"<think>so</think> <answer> {answer} </answer>" for answer in answers])
    values = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": None, "error": None}
    assert all(score.value == values[score.verdict] for score in scores)
    return [score.verdict for score in scores]


@pytest.fixture(scope="module")
def drawn():
    return {task: data.split_questions(f"reasoning-gym/{task}", "test", 0, 5) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_reference_is_right_and_another_answer_is_wrong(drawn, task):
    questions = drawn[task]
    assert verdicts(questions, [q.gold for q in questions]) == ["right"] * 5
    assert verdicts(questions, ["7 apples"] * 5) == ["wrong"] * 5
    assert reasoning.accuracy(questions[:1], [f"<think>{questions[0].gold}</think>"])[0].verdict == "unparsed"
    assert {(q.kind, q.family, q.language, q.level) for q in questions} == {("gym", f"reasoning-gym/{task}", "en", 1)}


def test_an_answer_that_is_right_in_its_own_way_is_right(drawn):
    """An antiderivative with another constant, and a sum in another order: no comparison with the reference."""
    (question, *_), (sums, *_) = drawn["simple_integration"], drawn["countdown"]
    assert verdicts([question], [question.gold.replace("C", "5")]) == ["right"]
    assert verdicts([sums], [f"({sums.gold}) "]) == ["right"]
    assert verdicts([sums], [f"{sums.gold} + 1"]) == ["wrong"]


def test_what_a_scorer_pays_in_part_is_wrong():
    (question,) = data.split_questions("reasoning-gym/spell_backward", "train", 0, 1)
    assert verdicts([question], [question.gold[:-1]]) == ["wrong"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_questions_are_distinct_and_of_their_split(split):
    questions = data.split_questions("reasoning-gym/gcd", split, 0, 60)
    assert len({q.id for q in questions}) == 60 and {split_of(q.id) for q in questions} == {split}
    assert questions[:20] == data.split_questions("reasoning-gym/gcd", split, 0, 20)
    assert not {q.id for q in questions} & {q.id for q in data.split_questions("reasoning-gym/gcd", split, 1, 60)}


def test_rollouts_ask_training_questions_and_others_each_time():
    rollouts = [data.rollout_questions("reasoning-gym/countdown", seed, r, 16) for seed in (0, 1) for r in (0, 1)]
    asked = [q.id for questions in rollouts for q in questions]
    assert len(set(asked)) == 64 and {split_of(id) for id in asked} == {"train"}
    assert rollouts[0] == data.rollout_questions("reasoning-gym/countdown", 0, 0, 16)


@pytest.mark.parametrize("task", ["word_ladder", "isomorphic_strings", "polynomial_multiplication", "ransom_note"])
def test_every_process_makes_the_same_questions(task):
    """These tasks depend on the order of sets, which Python draws anew in each process."""
    code = f"from r1repro.rewards import gym; print(ascii([gym.made({task!r}, 777, i) for i in range(30)]))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "src"},
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {ascii([gym.made(task, 777, i) for i in range(30)]) + "\n"}


def test_more_than_there_are_is_refused_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(gym, "made", lambda task, seed, index: (f"Which of {index % 3}?", "1"))
    with pytest.raises(Refusal, match="10 distinct questions are more than the split train of reasoning-gym/gcd"):
        data.rollout_questions("reasoning-gym/gcd", 0, 0, 10)


@pytest.mark.parametrize(
    "task, words",
    [("countdwn", "reasoning_gym has no task 'countdwn': choose one like countdown")]
    + [(task, f"task '{task}' of reasoning_gym is not asked, {why}") for task, why in gym.UNFIT.items()],
)
def test_a_task_that_cannot_be_asked_is_refused(task, words):
    with pytest.raises(Refusal) as caught:
        data.split_questions(f"reasoning-gym/{task}", "test", 0, 1)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# --- what a model writes


TOUCH = "__import__('pathlib').Path({!r}).touch()"


@pytest.mark.parametrize(
    "task",
    ["binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "countdown"]
    + ["simple_integration", "intermediate_integration", "polynomial_multiplication"],
)
def test_no_answer_is_run(task, tmp_path):
    (question,) = data.split_questions(f"reasoning-gym/{task}", "train", 0, 1)
    code = TOUCH.format(str(tmp_path / "ran"))
    spelt = "+".join(f"chr({ord(letter)})" for letter in code)
    assert verdicts([question] * 4, [code, f"[{code}]", f"exec({spelt})", f"[exec({spelt})]"]) == ["wrong"] * 4
    assert not (tmp_path / "ran").exists()


def test_every_scorer_that_evaluates_an_answer_is_known():
    """A new version of reasoning_gym may evaluate in other places."""
    top = Path(importlib.util.find_spec("reasoning_gym").origin).parent
    found = {}
    for file in sorted(top.rglob("*.py")):
        tree = ast.parse(file.read_text())
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "score_answer"):
            calls = {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
            if calls := {
                c for c in calls if c.rpartition(".")[2] in ("eval", "exec", "compile", "parse_expr", "sympify")
            }:
                found[".".join(file.relative_to(top).with_suffix("").parts)] = calls
    of_sympy = {name for name, calls in found.items() if calls <= {"sympy.parse_expr", "sp.parse_expr"}}
    assert found.keys() - of_sympy == {*gym.LITERALS, *gym.FORMULAS, "algorithmic.number_sorting"}  # its own reference
    assert {name for name, calls in found.items() if calls == {"parse_expr"}} == set(gym.FORMULAS)


@pytest.mark.parametrize(
    "text, is_one",
    [
        ("x**2/2 - 3*exp(x)*sin(2*x) + C", True), ("(3 + 4)*6 / 2", True), ("1.5e3", True), ("X*log(X) - X", True),
        ("open(1)", False), ("x.subs(1, 2)", False), ("x.__class__", False), ("'a'", False), ("[1]", False),
        ("lambda: 1", False), ("a if b else c", False), ("1if 1else 2", False), ("\uff45xec(1)", False), ("x;y", False),
        ("Integral(x, x)", False), ("x=1", False),
    ],
)  # fmt: skip
def test_formulas(text, is_one):
    assert gym.is_formula(text) == is_one


def test_an_answer_that_never_ends_is_stopped(drawn, monkeypatch):
    monkeypatch.setattr(gym, "_workers", gym.Pool("r1repro.rewards.gym:reply", cpu_s=1.5, modules=["reasoning_gym"]))
    began = time.monotonic()
    assert verdicts(drawn["countdown"][:1], ["9**9**9**9**9"]) == ["timed_out"]
    assert verdicts(drawn["countdown"][:1], [drawn["countdown"][0].gold]) == ["right"]
    assert time.monotonic() - began < 60


def test_not_a_number_is_no_number():
    questions = data.split_questions("reasoning-gym/complex_arithmetic", "train", 0, 3)
    for answer in ("nan", "NaN + nanj", "nan+nanj"):
        assert verdicts(questions, [answer] * 3) == ["wrong"] * 3
    assert verdicts(questions, [q.gold for q in questions]) == ["right"] * 3


def test_a_scorer_that_an_answer_breaks_finds_it_wrong_and_a_broken_one_is_an_error():
    (question,) = data.split_questions("reasoning-gym/prime_factorization", "train", 0, 1)
    assert verdicts([question], ["two times two"]) == ["wrong"]

    class Broken:
        def score_answer(self, answer, entry):
            raise KeyError("metadata")

    with pytest.raises(KeyError):
        gym._scored(Broken(), {"answer": "1"}, "2")


def test_a_question_that_is_not_the_tasks_own_is_an_error(drawn):
    real = drawn["gcd"][0]
    other = Question(
        id=real.id, text="Another?", gold=real.gold, language="en", level=1, family=real.family, kind="gym",
        requirements=real.requirements,
    )  # fmt: skip
    assert verdicts([other], [real.gold]) == ["error"]


def test_a_very_long_answer_is_unparsed(drawn):
    assert verdicts(drawn["gcd"][:1], ["9" * (gym.MAX_CHARS + 1)]) == ["unparsed"]
