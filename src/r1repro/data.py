"""Questions by name and split.  Drawing is a function of (seed, position): nothing to store, nothing to resume."""

from r1repro.records import Question, Refusal
from r1repro.tinyworld import arithmetic

LANGUAGES = ("en", "zh")
SOURCES = ("chain_sum",)


def rollout_questions(source: str, seed: int, rollout: int, count: int) -> list[Question]:
    """The ``count`` questions of one rollout, from the training split: levels and languages in equal shares, shuffled
    by hash."""
    _known(source)
    questions = []
    for i in range(count):
        level = list(arithmetic.LEVELS)[i % len(arithmetic.LEVELS)]
        language = LANGUAGES[(i // len(arithmetic.LEVELS) + rollout) % 2]
        questions.append(arithmetic.draw("train", level, language, "rollout", seed, rollout, i))
    return questions


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
    return list(questions.values())


def _known(source: str) -> None:
    if source not in SOURCES:
        raise Refusal(f"no questions called {source!r}: choose one of {', '.join(SOURCES)}")
