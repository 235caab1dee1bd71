"""Questions by name and split.  Drawing is a function of (seed, position): nothing to store, nothing to resume."""

from r1repro.config import SOURCES
from r1repro.records import Question, Refusal
from r1repro.tinyworld import arithmetic

LANGUAGES = ("en", "zh")


def rollout_questions(source: str, seed: int, rollout: int, count: int) -> list[Question]:
    """The ``count`` distinct questions of one rollout, of the training split; levels and languages in equal shares."""
    _known(source)
    questions: dict[str, Question] = {}
    attempt = 0
    while len(questions) < count:
        i = len(questions)
        level = list(arithmetic.LEVELS)[i % len(arithmetic.LEVELS)]
        language = LANGUAGES[(i // len(arithmetic.LEVELS) + rollout) % 2]
        question = arithmetic.draw("train", level, language, "rollout", seed, rollout, attempt)
        questions.setdefault(question.id, question)
        attempt += 1
        _check(attempt, count, "train")
    return list(questions.values())


def split_questions(source: str, split: str, seed: int, count: int) -> list[Question]:
    """``count`` distinct questions of a split: levels in equal shares, languages in turn."""
    _known(source)
    if split not in arithmetic.SPLITS:
        raise Refusal(f"no split {split!r}: choose one of {', '.join(arithmetic.SPLITS)}")
    questions: dict[str, Question] = {}
    attempt = 0
    while len(questions) < count:
        i = len(questions)
        level = list(arithmetic.LEVELS)[i % len(arithmetic.LEVELS)]
        language = LANGUAGES[i // len(arithmetic.LEVELS) % 2]
        question = arithmetic.draw(split, level, language, split, seed, attempt)
        questions.setdefault(question.id, question)
        attempt += 1
        _check(attempt, count, split)
    return list(questions.values())


def _check(attempt: int, count: int, split: str) -> None:
    if attempt > 20 * count + 1000:
        raise Refusal(f"{count} distinct questions are more than the split {split} seems to have: ask for fewer")


def _known(source: str) -> None:
    if source not in SOURCES:
        raise Refusal(f"no questions called {source!r}: choose one of {', '.join(SOURCES)}")
