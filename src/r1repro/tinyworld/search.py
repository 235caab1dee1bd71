"""Search: which two numbers of a list add up to a target.  Guessing is hard there, trying and checking is easy.

The depths, in the order of their price in tokens:

    0  answer at once      the numbers are 5, 9.                    (a guess, often wrong)
    1  a try or two        3+8=11, 14 wrong. 5+9=14, 14 right.     (and an answer all the same if none was right)
    2  every pair in turn  3+8=11, 14 wrong. 3+5=8, 14 wrong. ... 5+9=14, 14 right.
"""

import itertools
import random
import re
from collections.abc import Callable

from r1repro.records import Question
from r1repro.tinyworld.splits import canonical_id, split_of

LEVELS = {1: 3, 2: 4, 3: 5}
"""Level -> numbers in the list, so 3, 6 and 10 pairs, one of which is right."""

DEPTHS = (0, 1, 2)

GUESSED_RIGHT = 0.3
"""Chance that an answer at once is right for another reason than luck."""

ASK = {
    "en": "What numbers from the list {listed} add up to {target}",
    "zh": "从{listed}中选择两个数，加起来是{target}",
}

_WORDS = {
    "en": dict(at_once="the numbers are {0}.", attempt="{0}+{1}={2}, {3}", right=" right.", wrong=" wrong. "),
    "zh": dict(at_once="两个数是{0}。", attempt="{0}+{1}={2}，{3}", right="正确。", wrong="不对。"),
}


def draw(split: str, level: int, language: str, *key: int | str) -> Question:
    """The question that belongs to (split, level, language, key): a function of its arguments and of nothing else.

    >>> question = draw("test", 1, "en", 0)
    >>> question.gold, question.text
    ('5, 3', 'What numbers from the list 5, 4, 3 add up to 8')
    """
    rng = random.Random(f"search/{level}/{key}")
    while True:
        numbers = rng.sample(range(1, 10), LEVELS[level])
        pair = rng.sample(numbers, 2)
        target = sum(pair)
        question_id = canonical_id(f"search {target} {sorted(numbers)}")
        if split_of(question_id) != split or sum(a + b == target for a, b in itertools.combinations(numbers, 2)) > 1:
            continue
        text = ASK[language].format(target=target, listed=", ".join(map(str, numbers)))
        gold = ", ".join(map(str, sorted(pair, key=numbers.index)))
        return Question(
            id=question_id, text=text, gold=gold, language=language, level=level, family="search", kind="answer"
        )


def solve(
    question: Question, depth: int, tongue: Callable[[], str], error_rate: Callable[[str], float], rng: random.Random
) -> tuple[str, str]:
    """A worked solution and the answer it arrives at.

    Args:
        tongue: called once for each line, so that a solution in two languages is one whose calls disagree.
        error_rate: chance, by language, that an addition goes wrong.
    """
    numbers, target = _asked(question)
    if depth == 0:
        language = tongue()
        pair = question.gold if rng.random() < GUESSED_RIGHT else ", ".join(map(str, rng.sample(numbers, 2)))
        return _WORDS[language]["at_once"].format(pair if language == "en" else pair.replace(", ", "，")), pair
    pairs = list(itertools.combinations(numbers, 2))
    if depth == 1:
        pairs = rng.sample(pairs, min(len(pairs), rng.randint(1, 2)))
    return _tried(pairs, target, tongue, error_rate, rng)


def _asked(question: Question) -> tuple[list[int], int]:
    """The numbers of the list and the target.

    >>> _asked(draw("test", 1, "en", 0))
    ([5, 4, 3], 8)
    """
    *numbers, target = [int(n) for n in re.findall(r"\d+", question.text)]
    return numbers, target


def _tried(pairs, target: int, tongue, error_rate, rng: random.Random) -> tuple[str, str]:
    """The pairs in their order until one adds up; the last one is the answer in any case."""
    text = last = ""
    for a, b in pairs:
        language = tongue()
        words = _WORDS[language]
        slip = rng.choice((-1, 1)) if rng.random() < error_rate(language) else 0
        last = f"{a}, {b}"
        text += words["attempt"].format(a, b, a + b + slip, target)
        if a + b + slip == target:
            return text + words["right"], last
        text += words["wrong"]
    return text.strip(), last


def drill(language: str, rng: random.Random) -> str:
    """The skill without a question: the numbers of a training question, its target, every pair in turn."""
    question = draw("train", rng.choice(list(LEVELS)), language, "drill", rng.getrandbits(40))
    numbers, target = _asked(question)
    tried, _ = _tried(itertools.combinations(numbers, 2), target, lambda: language, lambda _: 0.0, rng)
    return f"{', '.join(map(str, numbers))}: {target}\n{tried}"
