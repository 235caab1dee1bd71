"""Logic: which of some statements about numbers is right?  Multiple choice, where each choice can be checked.

The depths, in the order of their price in tokens:

    0  answer at once         the answer is C.                                     (a guess, often wrong)
    1  one choice looked at   B) 2<5 right, 6<4 wrong, so C.
    2  choice after choice    A) 7<3 wrong. B) 2<5 right, 6<4 wrong. C) not 8<3 right, so C.
"""

import itertools
import random
import re
from collections.abc import Callable

from r1repro.records import Question
from r1repro.tinyworld.splits import canonical_id, split_of

LEVELS = {1: (3, 1, False), 2: (4, 2, False), 3: (4, 2, True), 4: (4, 3, True)}
"""Level -> (choices, comparisons in one at most, whether some are denied)."""

DEPTHS = (0, 1, 2)

GUESSED_RIGHT = 0.4
"""Chance that an answer at once is right for another reason than luck."""

PAIRS = list(itertools.combinations(range(1, 10), 2))

WORDS = {
    "en": dict(
        asks="What is right? {0}", join=" and ", deny="not ", at_once="the answer is {0}.",
        right=" right", wrong=" wrong", comma=", ", so=", so {0}.", stop=". ",
    ),
    "zh": dict(
        asks="哪个正确？{0}", join="和", deny="不是", at_once="答案是{0}。", right="正确", wrong="不对",
        comma="，", so="，所以{0}。",        stop="。",
    ),
}  # fmt: skip


def draw(split: str, level: int, language: str, *key: int | str) -> Question:
    """The question that belongs to (split, level, language, key): a function of its arguments and of nothing else.

    >>> draw("test", 2, "en", 0).text
    'What is right? A) 2<3 and 8<7 B) 8<4 C) 2<9 and 2<4 D) 8<3 and 9<5'
    """
    rng = random.Random(f"logic/{level}/{key}")
    size, most, denied = LEVELS[level]
    while True:
        right = rng.randrange(size)
        choices = [_choice(number == right, rng.randint(1, most), denied, rng) for number in range(size)]
        question_id = canonical_id(f"logic {choices}")
        if split_of(question_id) == split and len(set(map(str, choices))) == size:
            break
    words = WORDS[language]
    listed = " ".join(f"{letter}) {_written(parts, words)}" for letter, parts in zip("ABCD", choices, strict=False))
    return Question(
        id=question_id, text=words["asks"].format(listed), gold="ABCD"[right], language=language, level=level,
        family="logic", kind="answer",
    )  # fmt: skip


def _choice(right: bool, size: int, denied: bool, rng: random.Random) -> list[tuple[bool, int, int]]:
    """Comparisons a<b (denied, a, b) that all hold, or of which one at least does not."""
    wrong_at = None if right else rng.randrange(size)
    parts = []
    for place, (a, b) in enumerate(rng.sample(PAIRS, size)):
        deny = denied and rng.random() < 0.4
        holds = True if right else place != wrong_at and rng.random() < 0.6
        parts.append((deny, a, b) if holds != deny else (deny, b, a))
    return parts


def _written(parts, words: dict[str, str]) -> str:
    return words["join"].join(f"{words['deny'] * deny}{a}<{b}" for deny, a, b in parts)


def parsed(question: Question) -> list[list[tuple[bool, int, int]]]:
    """The comparisons of each choice."""
    words = WORDS[question.language]
    choices = re.split(r" ?[A-D]\) ", question.text)[1:]
    pattern = rf"({words['deny']})?(\d)<(\d)"
    return [[(bool(d), int(a), int(b)) for d, a, b in re.findall(pattern, choice)] for choice in choices]


def solve(
    question: Question, depth: int, tongue: Callable[[], str], error_rate: Callable[[str], float], rng: random.Random
) -> tuple[str, str]:
    """A worked solution and the answer it arrives at.

    Args:
        tongue: called once for each choice, so that a solution in two languages is one whose calls disagree.
        error_rate: chance, by language, that a choice is judged wrongly.
    """
    choices = parsed(question)
    letters = "ABCD"[: len(choices)]
    if depth == 0:
        answer = question.gold if rng.random() < GUESSED_RIGHT else rng.choice(letters)
        return WORDS[tongue()]["at_once"].format(answer), answer
    order = list(range(len(choices))) if depth == 2 else [rng.randrange(len(choices))]
    return _judged(choices, order, tongue, error_rate, rng)


def _judged(choices, order, tongue, error_rate, rng: random.Random) -> tuple[str, str]:
    """Choices in some order until one holds; if none does, one of the others is the answer, the last if there is
    none."""
    letters, text, words = "ABCD"[: len(choices)], "", {}
    for place, number in enumerate(order):
        language = tongue()
        words = WORDS[language]
        flipped = rng.randrange(len(choices[number])) if rng.random() < error_rate(language) else None
        verdicts, holds = _verdicts(choices[number], words, flipped)
        text += f"{letters[number]}) {verdicts}"
        if holds:
            return text + words["so"].format(letters[number]), letters[number]
        if place < len(order) - 1:
            text += words["stop"]
    answer = rng.choice([x for x in letters if letters.index(x) not in order] or [letters[-1]])
    return text + words["so"].format(answer), answer


def _verdicts(parts, words: dict[str, str], flipped: int | None = None) -> tuple[str, bool]:
    """Each comparison with its verdict, up to the first that does not hold, and whether all do; one may be judged
    wrongly."""
    said, holds = [], True
    for at, (deny, a, b) in enumerate(parts):
        holds = ((a < b) != deny) != (at == flipped)
        said.append(f"{words['deny'] * deny}{a}<{b}{words['right' if holds else 'wrong']}")
        if not holds:
            break
    return words["comma"].join(said), holds


def drill(language: str, rng: random.Random) -> str:
    """The skill without a question: comparisons, or choices, each looked at."""
    _, most, denied = LEVELS[rng.choice(sorted(LEVELS))]
    words, size = WORDS[language], rng.randint(2, 4)
    if rng.random() < 0.5:
        comparisons = [_choice(rng.random() < 0.5, 1, True, rng) for _ in range(8)]
        return words["comma"].join(_verdicts(parts, words)[0] for parts in comparisons)
    right = rng.randrange(size)
    choices = [_choice(number == right, rng.randint(1, most), denied, rng) for number in range(size)]
    listed = " ".join(f"{letter}) {_written(parts, words)}" for letter, parts in zip("ABCD", choices, strict=False))
    return f"{listed}\n{_judged(choices, range(size), lambda: language, lambda _: 0.0, rng)[0]}"
