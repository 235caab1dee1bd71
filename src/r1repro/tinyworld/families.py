"""The families of the tiny world by name: how to draw a question of each, and how it is worked."""

import random
from collections.abc import Callable

from r1repro.records import Question
from r1repro.tinyworld import arithmetic, general, logic, programs, safety, search

REASONING = {"chain_sum": arithmetic, "search": search, "logic": logic, "programs": programs}
"""Families that a rule can judge."""

OPEN = {"general": general, "safety": safety}
"""Families that a reward model judges."""

ALL = REASONING | OPEN


def draw(family: str, split: str, level: int, language: str, *key: int | str) -> Question:
    """The question that belongs to (family, split, level, language, key).

    >>> draw("logic", "test", 1, "en", 0).family
    'logic'
    """
    return ALL[family].draw(split, level, language, *key)


def levels(family: str) -> list[int]:
    return list(ALL[family].LEVELS)


def solve(
    question: Question, depth: int, tongue: Callable[[], str], error_rate: Callable[[str], float], rng: random.Random
) -> tuple[str, str]:
    """A worked solution of a reasoning question and the answer it arrives at; see the family's own ``solve``."""
    if question.family == "chain_sum":
        worked, answer = arithmetic.solve(expression_of(question.text), depth, tongue, error_rate, rng)
        return worked, str(answer)
    return REASONING[question.family].solve(question, depth, tongue, error_rate, rng)


def expression_of(question: str) -> str:
    """The chain sum in a question's text.

    >>> expression_of("State the final answer to the following arithmetic problem: 5 + 7 =")
    '5 + 7'
    """
    return question.removesuffix(" =").replace("：", ": ").rsplit(": ", 1)[1]
