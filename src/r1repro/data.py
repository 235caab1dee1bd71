"""Questions by name and split.  Drawing is a function of (seed, position): nothing to store, nothing to resume.

A name is a source of the tiny world, ``reasoning-gym/<task>``, a folder of files (``gsm8k``, ``math``, your own), or
the path of a file.  Which split a question belongs to is a function of the question; what a test file has is test.
"""

import functools
import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path

from r1repro import rows
from r1repro.config import GYM, SOURCES, known_source, sources
from r1repro.records import Question, Refusal
from r1repro.rewards import gym
from r1repro.run import sha256_file
from r1repro.tinyworld import arithmetic, corpus, families
from r1repro.tinyworld.splits import SPLITS, canonical_id, split_of

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
fifth logic, a tenth search, as near to the paper's shares of mathematics, code, science and logic as our families
allow (v2 Table 4);
``all_scenarios``: half of it general prompts and requests."""


def rollout_questions(source: str, seed: int, rollout: int, count: int) -> list[Question]:
    """The ``count`` distinct questions of one rollout, of the training split; levels and languages in equal shares.

    Of files: all their training questions in a new order each epoch; a rollout goes on where the last one ended.
    """
    if _kind(source) == "world":
        return _distinct(source, "train", ("rollout", seed, rollout), count, first=rollout * count)
    if _kind(source) == "gym":
        return _generated(source, "train", ("rollout", seed, rollout), count)
    held = {question.id: question for question in _held(source, "train", count)}
    epoch, place = divmod(rollout * count, len(held))
    ids = _epoch(tuple(held), seed, epoch, count)[place : place + count]
    if len(ids) < count:
        ids += _epoch(tuple(held), seed, epoch + 1, count)[: count - len(ids)]
    return [held[id] for id in ids]


def training_questions(source: str, purpose: str, seed: int, count: int) -> list[Question]:
    """``count`` distinct questions of the training split for something else than rollouts."""
    return _drawn(source, "train", (purpose, seed), count)


def split_questions(source: str, split: str, seed: int, count: int) -> list[Question]:
    """``count`` distinct questions of a split: levels in equal shares, languages in turn; of files as they come.

    Raises:
        Refusal: no such split or source, a damaged file, or fewer questions than ``count``.
    """
    if split not in SPLITS:
        raise Refusal(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    return _drawn(source, split, (split, seed), count)


WORKED = 2
"""The depth at which examples are worked: every family's whole working, without a check."""


def with_examples(questions: Iterable[Question], shots: int, seed: int) -> list[Question]:
    """The questions as few-shot prompts: ``shots`` worked training questions before each, then the question itself.

    Examples are of the question's own family, level and language, right, and in the form that outputs have.  Ids stay:
    it is the same question, asked otherwise.

    Where the paper is silent:
        How its few-shot prompts look.  Here nothing but the examples themselves stands before the question.

    Raises:
        Refusal: a question of a family that the tiny world cannot work.

    >>> asked = split_questions("chain_sum", "test", 0, 1)
    >>> with_examples(asked, 0, seed=0) == asked, with_examples(asked, 2, seed=0)[0].text.count("<answer>")
    (True, 2)
    """
    return [replace(q, text="\n".join([*_examples(q, shots, seed), q.text])) for q in questions]


def _examples(question: Question, shots: int, seed: int) -> list[str]:
    if shots and question.family not in families.REASONING:
        raise Refusal(f"no worked examples of {question.family!r}: set shots=0, or ask questions of the tiny world")
    found: list[str] = []
    for attempt in count_from():
        if len(found) == shots:
            return found
        key = ("shots", seed, question.id, attempt)
        example = families.draw(question.family, "train", question.level, question.language, *key)
        rng = random.Random("/".join(map(str, key)))
        worked, answer = families.solve(example, WORKED, lambda: question.language, lambda _: 0.0, rng)
        text = f"{example.text} {corpus.output(worked, answer)}"
        if text not in found and not arithmetic.holds_held_out(text):
            found.append(text)
    raise AssertionError("attempts do not end")


def fingerprint(source: str) -> dict[str, str]:
    """Name -> SHA-256 of the files of a source; nothing for questions that are generated.

    >>> fingerprint("logic")
    {}
    """
    if _kind(source) != "files":
        return {}
    train, test = rows.files(source)
    folder = not source.endswith(".jsonl")
    return {f"{file.parent.name}/{file.name}" if folder else source: sha256_file(file) for file in (*train, *test)}


def census(source: str) -> dict[str, int]:
    """How many rows the files of a source have, how many were left out and why, and how many each split holds."""
    return dict(_sorted_out(source)[1])


def _kind(source: str) -> str:
    """``world``, ``gym`` or ``files``."""
    if not known_source(source):
        raise Refusal(f"no questions called {source!r}: choose {sources()}")
    if source in SOURCES:
        return "world"
    return "gym" if source.startswith(GYM) and not source.endswith(".jsonl") else "files"


def _drawn(source: str, split: str, key: tuple, count: int) -> list[Question]:
    if _kind(source) == "world":
        return _distinct(source, split, key, count, first=0)
    if _kind(source) == "gym":
        return _generated(source, split, key, count)
    held = {question.id: question for question in _held(source, split, count)}
    return [held[id] for id in _shuffled(held, *key)[:count]]


def _distinct(source: str, split: str, key: tuple, count: int, first: int) -> list[Question]:
    """``count`` questions with different ids, those of positions ``first``, ``first`` + 1, ... of the source.

    Of some things there are few (greetings, what the model is): where a place cannot be filled with something new
    after some tries, it goes to the next level.
    """
    questions: dict[str, Question] = {}
    attempts = count_from()
    tries = 0
    if not count:
        return []
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
    if _kind(source) != "world":
        raise Refusal(f"{source!r} has no families: choose one of {', '.join(SOURCES)}")
    return _PATTERNS.get(source, (source,))


FRUITLESS = 1000
"""Questions of a task in a row that are of another split or known already, before it is given up."""


def _generated(source: str, split: str, key: tuple, count: int) -> list[Question]:
    """``count`` distinct questions of a task of reasoning_gym, made one after another from the key."""
    questions: dict[str, Question] = {}
    last = 0
    for attempt in count_from():
        block, index = divmod(attempt, gym.SIZE)
        question = _of_gym(source, _number("gym", *key, block) >> 33, index)
        if question.id not in questions and split_of(question.id) == split:
            questions[question.id], last = question, attempt
        if len(questions) == count:
            return list(questions.values())
        if attempt - last >= FRUITLESS:
            raise Refusal(f"{count} distinct questions are more than the split {split} of {source} seems to have")
    raise AssertionError("attempts do not end")


def _of_gym(source: str, seed: int, index: int) -> Question:
    """The question that reasoning_gym makes of (task, seed, index); the same three travel with it, for its grader."""
    task = source.removeprefix(GYM)
    text, answer = gym.made(task, seed, index)
    return Question(
        id=_id_of(text),
        text=text,
        gold=answer,
        language=rows.language_of(text),
        level=1,
        family=source,
        kind="gym",
        requirements=(("task", task), ("seed", str(seed)), ("index", str(index))),
    )


def _id_of(text: str) -> str:
    return canonical_id(" ".join(text.split()))


def _number(*key: int | str) -> int:
    """A number of 64 bits that looks random and is a function of its key."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8])


def _shuffled(ids: Iterable[str], *key: int | str) -> list[str]:
    """Ids in an order that is a function of the key; one id more moves no other past another."""
    return sorted(ids, key=lambda id: _number(*key, id))


@functools.lru_cache(maxsize=4)
def _epoch(ids: tuple[str, ...], seed: int, epoch: int, count: int) -> list[str]:
    """The order in which rollouts of ``count`` ask all questions in an epoch.

    Where a rollout ends one epoch and begins the next, what it has asked already moves back in the new order.
    """
    order: list[str] = []
    for number in range(epoch + 1):
        asked = number * len(ids) % count
        before, order = set(order[-asked:] if asked else ()), _shuffled(ids, "epoch", seed, number)
        head = [id for id in order if id not in before][: count - asked]
        order = head + [id for id in order if id not in set(head)]
    return order


RUN_WORDS = 10
"""Words in a row that no training question shares with a test question: the 10-gram filter of v2 D.1 (facts.md)."""


def _held(source: str, split: str, count: int) -> list[Question]:
    """All questions of a split of a source of files; refused if they are fewer than ``count``."""
    held = _sorted_out(source)[0][split]
    if split != "test" and not rows.files(source)[0]:
        raise Refusal(f"{source} has test files alone, so no {split} questions: add a train.jsonl, or choose test")
    if len(held) < count:
        raise Refusal(f"{count} distinct questions are more than the {len(held)} of {source}, {split}: ask for fewer")
    return held


def _sorted_out(source: str) -> tuple[dict[str, list[Question]], dict[str, int]]:
    if _kind(source) != "files":
        raise Refusal(f"{source!r} is generated, no file has it: choose a folder, or a path that ends in .jsonl")
    train, test = rows.files(source)
    changed = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in (*train, *test))
    return _splits(source, tuple(train), tuple(test), changed)


@functools.lru_cache(maxsize=8)
def _splits(
    source: str, train: tuple[Path, ...], test: tuple[Path, ...], _changed: tuple
) -> tuple[dict, dict[str, int]]:
    """Questions by split, and the counts of `census`; read once in a process unless a file changes.

    A question of a test file is test.  Of the others, those that are there too, or share `RUN_WORDS` words in a row
    with one that is, are left out; the rest is split by hash, and what the hash calls test is train where there is a
    test file.
    """
    counts = dict.fromkeys(("rows", "without an answer", "duplicates", "in the test", "near the test"), 0)
    tested, asked = _questions(source, test, counts), _questions(source, train, counts)
    known = {run for question in tested.values() for run in rows.runs(question.text, RUN_WORDS)}
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    splits["test"] += tested.values()
    for id, question in asked.items():
        if id in tested:
            counts["in the test"] += 1
        elif not known.isdisjoint(rows.runs(question.text, RUN_WORDS)):
            counts["near the test"] += 1
        else:
            split = split_of(id)
            splits["train" if test and split == "test" else split].append(question)
    return splits, counts | {split: len(some) for split, some in splits.items()}


def _questions(source: str, files: tuple[Path, ...], counts: dict[str, int]) -> dict[str, Question]:
    """The questions of files by id, the first of each; what is left out is counted."""
    family = Path(source).stem if source.endswith(".jsonl") else source
    found: dict[str, Question] = {}
    for row in (row for file in files for row in rows.read(file)):
        counts["rows"] += 1
        id = _id_of(row.text)
        if not row.gold:
            counts["without an answer"] += 1
        elif id in found:
            counts["duplicates"] += 1
        else:
            found[id] = Question(
                id=id, text=row.text, gold=row.gold, language=row.language, level=row.level, family=family
            )
    return found
