"""Questions of reasoning_gym and their accuracy reward, the task's own scorer, both in a child that can be killed.

A question is a function of (task, seed, index), so those travel with it, and a scorer makes its entry again: what it
needs is of many types, and JSON would change some of them.  Some tasks depend on the order of sets, which is the same
in every child of a `Worker`.

Some scorers evaluate what a model wrote as Python (by ``eval``, or by sympy, which is the same).  In the child a
literal is all that is evaluated, and of formulas what is spelled with numbers, one-letter names and `FUNCTIONS`.
"""

import ast
import copy
import difflib
import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any

from r1repro.records import Question, Refusal, Score
from r1repro.rewards.accuracy import final_answer
from r1repro.rewards.worker import Pool

SIZE = 500
"""Questions made with one seed; some tasks need to know beforehand."""

MAX_CHARS = 20_000
"""A longer answer is unparsed; the longest references are grids of a few thousand characters."""

_workers = Pool("r1repro.rewards.gym:reply", cpu_s=10.0, memory_bytes=2 << 30, modules=["reasoning_gym"])


def made(task: str, seed: int, index: int) -> tuple[str, str]:
    """The question that reasoning_gym makes of (task, seed, index), and an answer that is right ("" if it gives none).

    Raises:
        Refusal: no such task, or it fails.

    >>> made("leg_counting", 3, 0) == made("leg_counting", 3, 0)
    True
    """
    found = _workers.call({"task": task, "seed": seed, "index": index})
    if "question" not in found:
        raise Refusal(found["reason"])
    return found["question"], found["answer"]


def accuracy(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """1 for each output whose final answer the question's task scores 1, else 0; None where the scorer failed.

    Where the paper is silent:
        It uses no such tasks.  Their scorers give fractions for answers that are nearly right, or only well formed;
        none of that is paid, because the paper's accuracy reward is for what is right.
    """
    verdicts = [_verdict(question, text) for question, text in zip(questions, texts, strict=True)]
    values = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": None, "error": None}
    return [Score(value=values[verdict], verdict=verdict) for verdict in verdicts]


def _verdict(question: Question, text: str) -> str:
    answer = final_answer(text)
    if answer is None or len(answer) > MAX_CHARS:
        return "unparsed"
    needed = dict(question.requirements)
    payload = {"task": needed["task"], "seed": int(needed["seed"]), "index": int(needed["index"])}
    return _workers.call(payload | {"asked": question.text, "answer": answer})["verdict"]


def reply(payload: dict[str, Any]) -> dict[str, str]:
    """What the child says to {"task", "seed", "index"}: question and answer; with "asked" and "answer": a verdict."""
    task, seed = payload["task"], payload["seed"]
    if task in UNFIT:
        return {
            "verdict": "error",
            "reason": f"task {task!r} of reasoning_gym is not asked, {UNFIT[task]}: choose another",
        }
    if task not in (names := _tasks()):
        near = ", ".join(difflib.get_close_matches(task, names, n=3) or names[:3])
        return {"verdict": "error", "reason": f"reasoning_gym has no task {task!r}: choose one like {near}"}
    entry = _entry(task, seed, payload["index"])
    if "answer" not in payload:
        return {"question": entry["question"], "answer": str(entry["answer"] or "")}
    if entry["question"] != payload["asked"]:
        return {"verdict": "error", "reason": f"{task} makes another question of the same seed here"}
    return _scored(_dataset(task, seed), entry, payload["answer"])


def _scored(dataset: Any, entry: dict[str, Any], answer: str) -> dict[str, str]:
    """The verdict of a task's scorer.

    Some raise where an answer has not the form that they expect: that answer is wrong, unless the task's own makes them
    raise too.  "nan" is no number here, because ``min(1.0, nan)`` is 1.0 in Python.
    """
    _tame()
    if _NAN.search(answer) and not _NAN.search(str(entry["answer"])):
        return {"verdict": "wrong", "reason": "not a number"}
    try:
        score = dataset.score_answer(answer, copy.deepcopy(entry))
    except MemoryError:
        raise
    except Exception as error:
        dataset.score_answer(entry["answer"], copy.deepcopy(entry))
        return {"verdict": "wrong", "reason": f"not of the form: {type(error).__name__}: {error}"[:200]}
    return {"verdict": "right" if score >= 1 else "wrong", "reason": f"score {score:g}"}


_NAN = re.compile(r"(?<![a-z])nanj?(?![a-z])", re.IGNORECASE)

UNFIT = {
    "codeio": "it makes other questions of the same seed",
    "coin_flip": "its scorer takes 0 for any chance",
    "composite": "it is a mixture of other tasks",
    "game_of_life_halting": "its scorer takes any text for right, or none",
    "puzzle24": "its scorer takes 6+6+6+6 for any four numbers",
}
"""Tasks that are no source of questions, and why (reasoning_gym 0.1.25)."""


@functools.cache
def _tasks() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS.keys() - set(UNFIT))


@functools.lru_cache(maxsize=256)
def _entry(task: str, seed: int, index: int) -> dict[str, Any]:
    return _dataset(task, seed)[index]


@functools.lru_cache(maxsize=8)
def _dataset(task: str, seed: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(task, seed=seed, size=SIZE)


LITERALS = ("algorithmic.binary_matrix", "algorithmic.spiral_matrix", "algorithmic.string_insertion", "games.n_queens")
"""Modules whose scorers evaluate an answer that should be a list; it can be right as a text alone."""

FORMULAS = ("games.countdown", "games.puzzle24")
"""Modules whose scorers parse an answer by sympy under a name of their own; others call it as ``sympy.parse_expr``."""

FUNCTIONS = frozenset(
    "sin cos tan sec csc cot sinh cosh tanh asin acos atan asinh acosh atanh exp log ln sqrt pi Abs erf Integer".split()
)


@functools.cache
def _tame() -> None:
    """Put harmless functions in the place of those by which scorers evaluate answers."""
    import sympy

    parse = sympy.parse_expr

    def harmless(text: str, *arguments: Any, **named: Any) -> Any:
        if not is_formula(text):
            raise ValueError("no formula")
        return parse(text, *arguments, **named)

    sympy.parse_expr = harmless
    for name in FORMULAS:
        importlib.import_module(f"reasoning_gym.{name}").parse_expr = harmless
    for name in LITERALS:
        importlib.import_module(f"reasoning_gym.{name}").eval = ast.literal_eval


def is_formula(text: str) -> bool:
    """Whether nothing but mathematics can be spelled in a text: no attribute, string, or name that is not ours.

    >>> is_formula("-x**2/2 + sin(3*x) + C"), is_formula("exec(chr(120))"), is_formula("x.free_symbols")
    (True, False, False)
    """
    words = set(re.findall(r"[A-Za-z]{2,}", text))
    return re.fullmatch(r"[0-9A-Za-z\s+\-*/^().,]*", text) is not None and words <= FUNCTIONS
