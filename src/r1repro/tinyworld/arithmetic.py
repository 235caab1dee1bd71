"""Chain sums: questions from reasoning-gym, and worked solutions at four depths.

The depths, in the order of their price in tokens:

    0  answer at once            the sum is 214.
    1  a line a term             first 57+87=144, then 144+70=214.
    2  digit by digit            57+87: 7+7=14 carry, 5+8+1=14, so 144. ...
    3  digit by digit, each line then checked by taking the term off again; a mistake that is found is mended:
            57+87: 7+7=14 carry, 5+8+1=14, so 144. check 144-87: 4-7=7 borrow, 4-8-1=5 borrow, 1-1=0, so 57, right.
            57+87: 7+7=15 carry, 5+8+1=14, so 145. check 145-87: 5-7=8 borrow, 4-8-1=5 borrow, 1-1=0, so 58,
            wait, a mistake, again: 57+87: ...

All four are in the corpus that the base model reads (`corpus.py` says how often), and in all that are written out a
mistake is equally frequent: only checking mends it.  So none of these behaviours is invented by RL here: RL finds out
which of them pays, and makes it frequent and reliable.
"""

import functools
import random
import re
from collections.abc import Callable, Sequence

from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

from r1repro.records import Question
from r1repro.tinyworld.splits import SPLITS as SPLITS
from r1repro.tinyworld.splits import canonical_id, split_of

LEVELS = {1: (2, 2), 2: (3, 2), 3: (3, 3), 4: (4, 2), 5: (5, 3)}
"""Level -> (terms, digits a term).  One answer takes 1, 2, 2, 3, 4 additions of 2, 2, 3, 2, 3 digits."""

DEPTHS = ("answer_at_once", "line_a_term", "digit_by_digit", "checked")

ASK = {
    "en": "State the final answer to the following arithmetic problem: {expression} =",
    "zh": "请给出下面算式的最终答案：{expression} =",
}
"""How a question is put; the English wording is reasoning-gym's own."""


def draw(split: str, level: int, language: str, *key: int | str) -> Question:
    """The question that belongs to (split, level, language, key): a function of its arguments and of nothing else.

    Expressions come from reasoning-gym's ``chain_sum``.  Those with a running sum below zero are passed over, because
    the worked solutions know no negative numbers, and so are those of other splits.  Of training questions those are
    passed over too whose worked solution would contain a question that is held out: ``57 + 87`` is a question of
    level 1, and the first line of ``57 + 87 - 70``.

    >>> draw("test", 1, "en", 0) == draw("test", 1, "en", 0)
    True
    """
    rng = random.Random(f"{level}/{key}")
    while True:
        entry = _dataset(level)[rng.getrandbits(48)]
        expression = entry["metadata"]["expression"]
        question_id = canonical_id(expression)
        if split_of(question_id) != split or min(running_sums(expression)) < 0:
            continue
        worked = solve(expression, len(DEPTHS) - 1, lambda: "en", 0.0, rng)[0]
        if split != "train" or not holds_held_out(f"{expression}: {worked}"):
            text = ASK[language].format(expression=expression)
            return Question(
                id=question_id, text=text, gold=entry["answer"], language=language, level=level, family="chain_sum"
            )


@functools.cache
def _dataset(level: int) -> ChainSumDataset:
    terms, digits = LEVELS[level]
    return ChainSumDataset(
        ChainSumConfig(min_terms=terms, max_terms=terms, min_digits=digits, max_digits=digits, seed=0, size=2**31)
    )


def holds_held_out(text: str) -> bool:
    """Whether a text states a chain sum that is, or begins with, a question of the validation or test split.

    >>> holds_held_out("10+10-400: "), holds_held_out("10+11-400: ")
    (True, False)
    """
    shapes = set(LEVELS.values())
    for chain in re.findall(r"\d+(?: ?[+-] ?\d+)+", text):
        numbers = re.findall(r"[+-]?\d+", chain.replace(" ", ""))
        for i in range(2, len(numbers) + 1):
            digits = {len(n.lstrip("+-")) for n in numbers[:i]}
            if len(digits) == 1 and (i, *digits) in shapes:
                if split_of(canonical_id("".join(numbers[:i]))) != "train":
                    return True
    return False


def terms_of(expression: str) -> list[int]:
    """Signed terms of a chain sum.

    >>> terms_of("57 + 87 - 70")
    [57, 87, -70]
    """
    return [int(sign + digits) for sign, digits in re.findall(r"([+-]?) ?(\d+)", expression)]


def running_sums(expression: str) -> list[int]:
    """Partial sums after each term.

    >>> running_sums("57 + 87 - 70")
    [57, 144, 74]
    """
    total, sums = 0, []
    for term in terms_of(expression):
        total += term
        sums.append(total)
    return sums


_WORDS = {
    "en": dict(
        at_once="the sum is {0}.", first="first {0}", then=", then {0}", stop=".", head="{0}: ", carry=" carry",
        borrow=" borrow", comma=", ", so=", so {0}", check=" check ", right=", right.",
        wrong=", wait, a mistake, again: ",
    ),
    "zh": dict(
        at_once="和是{0}。", first="先{0}", then="，再{0}", stop="。", head="{0}：", carry="进",
        borrow="借", comma="，", so="，得{0}", check=" 检查", right="，正确。",
        wrong="，等等，有错误，重新算：",
    ),
}  # fmt: skip


def solve(
    expression: str,
    depth: int,
    language: Callable[[], str],
    error_rate: float | Callable[[str], float],
    rng: random.Random,
) -> tuple[str, int]:
    """A worked solution and the answer it arrives at, which is wrong where an error was made and not mended.

    Args:
        language: called once for each line, so that a solution in two languages is one whose calls disagree.
        error_rate: chance that an addition goes wrong, or that chance by language; the wrong result is carried on.
            At depth 0 never used.
    """
    terms = terms_of(expression)
    rate = error_rate if callable(error_rate) else lambda _: error_rate
    if depth == 0:
        return _WORDS[language()]["at_once"].format(sum(terms)), sum(terms)
    if depth == 1:
        return _line_a_term(terms, language, rate, rng)
    return _digit_by_digit(terms, language, rate, rng, checked=depth == 3)


def _line_a_term(terms: Sequence[int], language, rate, rng) -> tuple[str, int]:
    total, text = terms[0], ""
    for i, term in enumerate(terms[1:]):
        tongue = language()
        result = _slip(total + term, rng) if rng.random() < rate(tongue) else total + term
        text += _WORDS[tongue]["then" if i else "first"].format(f"{total}{term:+d}={result}")
        total = result
    return text + _WORDS[language()]["stop"], total


def _digit_by_digit(terms: Sequence[int], language, rate, rng, *, checked: bool) -> tuple[str, int]:
    total, lines = terms[0], []
    for term in terms[1:]:
        tongue = language()
        words = _WORDS[tongue]
        wrong_at = rng.randrange(2) if rng.random() < rate(tongue) else None
        line, result = _one_addition(total, term, words, wrong_at, rng)
        if result < term:  # cannot be checked by taking the term off again
            line, result = _one_addition(total, term, words, None, rng)
        line += words["stop"]
        if checked:
            check, back = _one_addition(result, -term, words, None, rng)
            line += words["check"] + check + words["right" if back == total else "wrong"]
            if back != total:
                again, result = _one_addition(total, term, words, None, rng)
                line += again + words["stop"]
        lines.append(line)
        total = result
    return " ".join(lines), total


def _one_addition(a: int, term: int, words: dict[str, str], wrong_at: int | None, rng) -> tuple[str, int]:
    """One line, right to left.  ``wrong_at`` counts digits from the right: that digit's sum is off by one or two."""
    b, sign = abs(term), 1 if term >= 0 else -1
    carried, parts, digits = 0, [], []
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        value = x + sign * y + sign * carried
        if place == wrong_at:
            value = max(value + rng.choice((-2, -1, 1, 2)), 0) if sign > 0 else value + rng.choice((-1, 1))
        shown = value if value >= 0 else value + 10
        tail = words["carry"] if value > 9 else words["borrow"] if value < 0 else ""
        mark = "+" if sign > 0 else "-"
        parts.append(f"{x}{mark}{y}{f'{mark}1' if carried else ''}={shown}{tail}")
        carried = 1 if value > 9 or value < 0 else 0
        digits.append(shown % 10)
    result = sum(d * 10**i for i, d in enumerate(digits))
    if sign > 0 and carried:
        result += 10 ** len(digits)
        parts[-1] = parts[-1].removesuffix(words["carry"])
    return words["head"].format(f"{a}{term:+d}") + words["comma"].join(parts) + words["so"].format(result), result


def _slip(value: int, rng: random.Random) -> int:
    """A near miss, as people make them: one digit's place off by one or two."""
    return max(value + rng.choice((-20, -10, -2, -1, 1, 2, 10, 20)), 0)


def depth_of(thinking: str) -> str:
    """Which of ``DEPTHS`` a thinking has the marks of; the deepest mark counts.

    >>> depth_of("57+87: 7+7=14 carry, 5+8+1=14, so 144.")
    'digit_by_digit'
    """
    if re.search(r"check|检查", thinking):
        return DEPTHS[3]
    if re.search(r"\d[+-]\d+(:|：)", thinking):
        return DEPTHS[2]
    return DEPTHS[1] if re.search(r"\d[+-]\d+=\d", thinking) else DEPTHS[0]
