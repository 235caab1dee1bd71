"""Tiny programs: write the function that three of its values belong to.  Judged by running it on other numbers.

The depths, in the order of their price in tokens:

    0  answer at once          the program is ready.
    1  the first difference    8-5=3, so 3 * x + 2.
    2  step by step            8-5=3, 11-8=3, so 3 * x. 3 * 1=3, 5-3=2, so + 2.
    3  step by step, checked   ... check 3 * 3=9, 9+2=11, right.            (a mistake that is found is mended)
"""

import random
import re
from collections.abc import Callable

from r1repro.records import Question
from r1repro.tinyworld.arithmetic import holds_held_out
from r1repro.tinyworld.splits import canonical_id, split_of

LEVELS = {
    1: "one operation",
    2: "two, from 0 or 1 on",
    3: "two, from larger numbers on",
    4: "with a difference",
    5: "with a square",
}

DEPTHS = (0, 1, 2, 3)

ASK = {"en": "Make a program with {0}", "zh": "写程序，使{0}"}

_WORDS = {
    "en": dict(
        at_once="the program is good.", comma=", ", so="so {0}. ", square="wrong, so x * x. ",
        check="check ", right="right.", wrong="wait, a mistake, again: ",
    ),
    "zh": dict(
        at_once="程序正确。", comma="，", so="所以{0}。", square="不对，所以x * x。", check="检查", right="正确。",
        wrong="等等，有错误，重新算：",
    ),
}  # fmt: skip


def draw(split: str, level: int, language: str, *key: int | str) -> Question:
    """The question that belongs to (split, level, language, key): a function of its arguments and of nothing else.

    Its gold is a test script; the numbers that it tries are not those that the question shows.  Training questions
    whose worked solution would contain a chain sum that is held out are passed over.

    >>> draw("test", 3, "en", 0).text
    'Make a program with f(3)=35, f(4)=41, f(5)=47'
    """
    rng = random.Random(f"programs/{level}/{key}")
    while True:
        square, factor, added, start = _parameters(level, rng)

        def value(x: int, square=square, factor=factor, added=added) -> int:
            return (x * x if square else factor * x) + added

        shown = [(x, value(x)) for x in range(start, start + 3)]
        question_id = canonical_id(f"programs {shown}")
        if split_of(question_id) != split or min(v for _, v in shown) < 0:
            continue
        tests = "\n".join(f"assert f({x}) == {value(x)}" for x in (start + 3, start + 5, start + 10))
        question = Question(
            id=question_id, text=ASK[language].format(", ".join(f"f({x})={v}" for x, v in shown)), gold=tests,
            language=language, level=level, family="programs", kind="program",
        )  # fmt: skip
        if split != "train" or not holds_held_out(solve(question, 3, lambda: "en", lambda _: 0.0, rng)[0]):
            return question


def _parameters(level: int, rng: random.Random) -> tuple[bool, int, int, int]:
    """(whether x * x takes the place of factor * x, factor, what is added, first x)."""
    if level == 1:
        added, factor = (rng.randint(1, 40), 1) if rng.random() < 0.6 else (0, rng.randint(2, 9))
        return False, factor, added, rng.randint(0, 5)
    if level == 2:
        return False, rng.randint(2, 7), rng.randint(1, 25), rng.randint(0, 1)
    if level == 3:
        return False, rng.randint(2, 7), rng.randint(0, 20), rng.randint(2, 4)
    if level == 4:
        return False, rng.randint(2, 8), -rng.randint(1, 15), rng.randint(2, 5)
    return True, 0, rng.randint(0, 40), rng.randint(0, 5)


def program(square: bool, factor: int, added: int) -> str:
    """The text of a program.

    >>> program(False, 3, -2), program(True, 0, 0)
    ('def f(x): return 3 * x - 2', 'def f(x): return x * x')
    """
    head = "x * x" if square else "x" if factor == 1 else f"{factor} * x"
    tail = f" + {added}" if added > 0 else f" - {-added}" if added < 0 else ""
    return f"def f(x): return {head}{tail}"


def solve(
    question: Question, depth: int, tongue: Callable[[], str], error_rate: Callable[[str], float], rng: random.Random
) -> tuple[str, str]:
    """A worked solution and the program it arrives at.

    Args:
        tongue: called once for each line, so that a solution in two languages is one whose calls disagree.
        error_rate: chance, by language, that a line goes wrong somewhere; at depth 3 the check finds it.
    """
    shown = [(int(x), int(v)) for x, v in re.findall(r"f\((\d+)\)=(\d+)", question.text)]
    (start, v0), (_, v1), (last, v2) = shown
    square = v1 - v0 != v2 - v1
    factor = 0 if square else v1 - v0
    added = v0 - (start * start if square else factor * start)
    language = tongue()
    if depth == 0:
        return _WORDS[language]["at_once"], program(square, factor, added)
    wrong = rng.random() < error_rate(language)
    if depth == 1:
        added += rng.choice((-2, -1, 1, 2)) * wrong
        said = program(square, factor, added).removeprefix("def f(x): return ")
        return f"{v1}-{v0}={v1 - v0}{_WORDS[language]['comma']}" + _WORDS[language]["so"].format(said).strip(), program(
            square, factor, added
        )
    text, found = _steps(shown, rng.choice((-1, 1)) * wrong, rng.randrange(2), tongue)
    if depth == 3:
        check, holds = _check(last, v2, square, found, tongue())
        text += check
        if not holds:
            again, found = _steps(shown, 0, 0, tongue)
            text += again
    return text.strip(), program(square, *found)


def _steps(shown, slip: int, where: int, tongue) -> tuple[str, tuple[int, int]]:
    """The two lines of a solution; ``slip`` is added to the product (``where`` 0) or to the last difference (1)."""
    (start, v0), (_, v1), (_, v2) = shown
    words = _WORDS[tongue()]
    square = v1 - v0 != v2 - v1
    factor = 0 if square else v1 - v0
    text = f"{v1}-{v0}={v1 - v0}{words['comma']}{v2}-{v1}={v2 - v1}{words['comma']}"
    text += words["square"] if square else words["so"].format(f"{factor} * x")
    words = _WORDS[tongue()]
    product = max((start * start if square else factor * start) + slip * (where == 0), 0)
    added = max(abs(v0 - product) + slip * (where == 1), 0)
    sign, first, second = ("+", v0, product) if v0 >= product else ("-", product, v0)
    text += f"{start if square else factor} * {start}={product}{words['comma']}{first}-{second}={added}{words['comma']}"
    text += words["so"].format(f"{sign} {added}")
    return text, (factor, added if sign == "+" else -added)


def _check(last: int, wanted: int, square: bool, found: tuple[int, int], language: str) -> tuple[str, bool]:
    words, (factor, added) = _WORDS[language], found
    product = last * last if square else factor * last
    total = product + added
    line = f"{words['check']}{last if square else factor} * {last}={product}{words['comma']}{product}{added:+d}={total}"
    return f"{line}{words['comma']}{words['right' if total == wanted else 'wrong']}", total == wanted


def drill(language: str, rng: random.Random) -> str:
    """The skill without a question: differences of small numbers, products, and programs from their parts."""
    join = _WORDS[language]["comma"]
    kind = rng.randrange(3)
    if kind == 0:
        differences: list[str] = []
        while len(differences) < 6:
            a, difference = rng.randint(0, 40), rng.randint(0, 12)
            if not holds_held_out(f"{a + difference}-{a}"):
                differences.append(f"{a + difference}-{a}={difference}")
        return join.join(differences)
    if kind == 1:
        pairs = [(rng.randint(1, 9), rng.randint(0, 6)) for _ in range(6)]
        return join.join(f"{a} * {b}={a * b}" for a, b in pairs)
    square, factor, added, _ = _parameters(rng.choice(sorted(LEVELS)), rng)
    head, sign = ("x * x" if square else f"{factor} * x"), "+" if added >= 0 else "-"
    said = _WORDS[language]["so"].format(head) + _WORDS[language]["so"].format(f"{sign} {abs(added)}").strip()
    return f"{said}\n{program(square, factor, added)}"
