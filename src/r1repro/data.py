"""Questions by name and split.  Drawing is a function of (seed, position): nothing to store, nothing to resume."""

from collections.abc import Iterator
from itertools import count as count_from

from r1repro.config import SOURCES
from r1repro.records import Question, Refusal
from r1repro.tinyworld import families
from r1repro.tinyworld.splits import SPLITS

LANGUAGES = ("en", "zh")

_REASONING = ("chain_sum", "programs", "chain_sum", "logic", "chain_sum", "search", "chain_sum", "programs")
_PATTERNS = {
    "reasoning": (*_REASONING, "chain_sum", "logic"),
    "open": ("general", "safety", "general"),
    "with_reference": ("general/1", "general/3"),
    "all_scenarios": ("chain_sum", "general", "programs", "safety", "chain_sum", "general", "logic", "general")
    + ("chain_sum", "safety", "search", "general", "chain_sum", "general", "programs", "safety"),
}
"""Source -> family (or family/level) of each position, over and over.  ``reasoning``: half sums, a fifth programs, a
fifth logic, a tenth
search, as near to the paper's shares of mathematics, code, science and logic as our families allow (v2 Table 4);
``all_scenarios``: half of it general prompts and requests."""


def rollout_questions(source: str, seed: int, rollout: int, count: int) -> list[Question]:
    """The ``count`` distinct questions of one rollout, of the training split; levels and languages in equal shares."""
    return _distinct(source, "train", ("rollout", seed, rollout), count, first=rollout * count)


def training_questions(source: str, purpose: str, seed: int, count: int) -> list[Question]:
    """``count`` distinct questions of the training split for something else than rollouts."""
    return _distinct(source, "train", (purpose, seed), count, first=0)


def split_questions(source: str, split: str, seed: int, count: int) -> list[Question]:
    """``count`` distinct questions of a split: levels in equal shares, languages in turn."""
    if split not in SPLITS:
        raise Refusal(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    return _distinct(source, split, (split, seed), count, first=0)


def _distinct(source: str, split: str, key: tuple, count: int, first: int) -> list[Question]:
    """``count`` questions with different ids, those of positions ``first``, ``first`` + 1, ... of the source.

    Of some things there are few (greetings, what the model is): where a place cannot be filled with something new
    after some tries, it goes to the next level.
    """
    questions: dict[str, Question] = {}
    attempts = count_from()
    tries = 0
    for family, level, language in _places(source, first):
        for _ in range(TRIES):
            question = families.draw(family, split, level, language, *key, next(attempts))
            if question.id not in questions:
                questions[question.id] = question
                break
        else:
            tries += 1
        if len(questions) == count:
            return list(questions.values())
        if tries > 200:
            raise Refusal(f"{count} distinct questions are more than the split {split} seems to have: ask for fewer")
    raise AssertionError("places do not end")


TRIES = 60
"""Draws for one place before it is given up."""


def _places(source: str, first: int) -> Iterator[tuple[str, int, str]]:
    """(family, level, language) of each position from ``first`` on."""
    pattern = pattern_of(source)
    seen = {family: (first // len(pattern)) * pattern.count(family) for family in pattern}
    for family in pattern[: first % len(pattern)]:
        seen[family] += 1
    for position in count_from(first):
        family = pattern[position % len(pattern)]
        number = seen[family]
        seen[family] += 1
        family, _, level = family.partition("/")
        levels = [int(level)] if level else families.levels(family)
        yield family, levels[number % len(levels)], LANGUAGES[number // len(levels) % 2]


def pattern_of(source: str) -> tuple[str, ...]:
    """The families of a source, in the order of its positions.

    >>> pattern_of("logic")
    ('logic',)
    """
    if source not in SOURCES:
        raise Refusal(f"no questions called {source!r}: choose one of {', '.join(SOURCES)}")
    return _PATTERNS.get(source, (source,))
