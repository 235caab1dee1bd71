"""Every kind of case that can be graded, by name: (gold, text, question) -> {"verdict", "reason"}.

`python -m r1repro grade` and the audit of notebook 02 use this table; rollouts use the reward functions themselves.
"""

import re
from collections.abc import Callable

from r1repro.rewards import accuracy, code, stated
from r1repro.rewards.format import format_reward

SCORES = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": None, "error": None}
"""Verdict -> score; None where the grader failed.  A program that runs out of time scores 0."""


def _answer_pair(gold: str, text: str, question: str) -> dict:
    """A short answer against a short reference; running text counts by what it states."""
    if re.fullmatch("[A-Z]", gold.strip()):
        return _choice(gold, text, question)
    if accuracy.final_answer(text) is None and not accuracy.is_prose(text):
        return accuracy.compare(gold, text)
    return _response(gold, text, question)


def _response(gold: str, text: str, question: str) -> dict:
    """A model's whole output, whatever form it was asked for."""
    if re.fullmatch("[A-Z]", gold.strip()):
        return _choice(gold, text, question)
    found = stated.stated_words(text) if accuracy.is_words(gold) else stated.stated_answer(text)
    if not found:
        return {"verdict": "unparsed", "reason": "no answer is stated"}
    return accuracy.compare(gold, found)


def _think_response(gold: str, text: str, question: str) -> dict:
    """An output that must think first: only what follows `</think>` counts, and without that tag nothing does."""
    if "</think>" not in text:
        return {"verdict": "unparsed", "reason": "the thinking does not end"}
    return _response(gold, text.rpartition("</think>")[2], question)


def _choice(gold: str, text: str, question: str) -> dict:
    """Multiple choice: the letter, or the whole text of an option where the question is there."""
    wanted = stated.stated_letter(gold) or gold.strip()
    found = stated.stated_letter(text, question)
    if found is None:
        return {"verdict": "unparsed", "reason": "no choice is stated, or several"}
    return {"verdict": "right" if found == wanted else "wrong", "reason": f"choice {found}"}


def _code_python(gold: str, text: str, question: str) -> dict:
    """A program against a test script, or inputs and outputs, in a sandbox."""
    return code.grade(code.program_of(text), gold)


def _format_think(gold: str | None, text: str, question: str) -> dict:
    """The tags alone."""
    return {"verdict": "right" if format_reward(text) else "wrong", "reason": "format"}


def _format_think_answer(gold: str | None, text: str, question: str) -> dict:
    """The tags of the paper's template: a think block, then an answer block, and nothing else."""
    shape = re.fullmatch(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", text, re.DOTALL)
    tags = re.findall(r"</?(?:think|answer)>", text)
    right = shape and tags == ["<think>", "</think>", "<answer>", "</answer>"] and format_reward(text)
    return {"verdict": "right" if right else "wrong", "reason": "format"}


KINDS: dict[str, Callable[[str, str, str], dict]] = {
    "answer_pair": _answer_pair,
    "response": _response,
    "think_response": _think_response,
    "mcq_pair": _choice,
    "mcq_response": _choice,
    "code_python": _code_python,
    "format_think": _format_think,
    "format_think_answer": _format_think_answer,
}


def grade(kind: str, gold: str | None, text: str, question: str = "") -> dict:
    """{"verdict", "score", "reason"} of one case.

    Errors: KeyError for a kind that is not in `KINDS`.

    >>> grade("mcq_response", "B", "So the answer is (B).")
    {'verdict': 'right', 'score': 1.0, 'reason': 'choice B'}
    """
    found = KINDS[kind](gold, text, question)
    late = kind == "code_python" and found["verdict"] == "timed_out"
    return {"verdict": found["verdict"], "score": 0.0 if late else SCORES[found["verdict"]], "reason": found["reason"]}
