"""What the base model reads: documents in several shapes, few of them in the shape of the paper's template.

How often each behaviour stands in the corpus is written in `MIX`, `DEPTH` and `ERROR_RATE`, in one place, so that
nobody has to guess what RL found and what it was given.  A document is a function of (seed, index): nothing is
stored, any part can be made again.
"""

import random
from collections.abc import Iterator

from r1repro import paper
from r1repro.tinyworld import arithmetic, tokenizer

MIX = {
    "shape": {"exercise": 0.41, "dialogue": 0.16, "template": 0.08, "drill": 0.32, "prose": 0.03},
    "level": {1: 0.27, 2: 0.26, 3: 0.22, 4: 0.20, 5: 0.05},
    "language": {"own": 0.88, "other": 0.04, "mixed": 0.08},
    "tags": {"both": 0.75, "none": 0.15, "unclosed": 0.10},
}
"""Shares of the corpus.  ``language``: the solution is in the question's language, in the other one, or each line in
one of the two by chance.  ``tags``: only for the template shape; in a dialogue both are always there."""

DEPTH = {
    1: {0: 0.46, 1: 0.32, 2: 0.08, 3: 0.14},
    2: {0: 0.53, 1: 0.28, 2: 0.07, 3: 0.12},
    3: {0: 0.57, 1: 0.25, 2: 0.06, 3: 0.12},
    4: {0: 0.60, 1: 0.23, 2: 0.06, 3: 0.11},
    5: {0: 0.65, 1: 0.20, 2: 0.05, 3: 0.10},
}
"""Shares of the depths among the solutions to questions of a level (`arithmetic.DEPTHS`).  As in textbooks, what is
long to write out is more often left out."""

ERROR_RATE = {0: 0.0, 1: 0.15, 2: 0.15, 3: 0.15}
"""Chance, by depth, that an addition goes wrong.  At depths 1 and 2 the document then ends in a wrong answer; at depth
3 the check finds it and the line is written again without it."""

_EXERCISE = {
    "en": ("{q}\n{s}\nAnswer: {a}", "Question: {q}\nSolution: {s}\nAnswer: {a}", "{q} {s} The answer is {a}."),
    "zh": ("{q}\n{s}\n答案：{a}", "题目：{q}\n解：{s}\n答案：{a}", "{q}{s}答案是{a}。"),
}


def document(seed: int, index: int) -> str:
    """Document number ``index``, without its end token.

    >>> document(0, 5) == document(0, 5)
    True
    """
    rng = random.Random(f"corpus/{seed}/{index}")
    shape = _pick(rng, MIX["shape"])
    if shape == "drill":
        return _drill(rng)
    if shape == "prose":
        return rng.choice(_prose())
    language = rng.choice(("en", "zh"))
    level = _pick(rng, MIX["level"])
    question = arithmetic.draw("train", level, language, "corpus", seed, index)
    depth = _pick(rng, DEPTH[level])
    solution, answer = _solve(expression_of(question.text), depth, _tongue(rng, language), ERROR_RATE[depth], rng)
    if shape == "exercise":
        return rng.choice(_EXERCISE[language]).format(q=question.text, s=solution, a=answer)
    tags = "both" if shape == "dialogue" else _pick(rng, MIX["tags"])
    reply = {
        "both": f"<think> {solution} </think> <answer> {answer} </answer>",
        "none": f"{solution} {answer}",
        "unclosed": f"<think> {solution} <answer> {answer} </answer>",
    }[tags]
    if shape == "template":
        return f"{paper.template(question.text)} {reply}"
    return f"User: {question.text} Assistant: {reply}"


def expression_of(question: str) -> str:
    """The chain sum in a question's text.

    >>> expression_of("State the final answer to the following arithmetic problem: 5 + 7 =")
    '5 + 7'
    """
    return question.removesuffix(" =").replace("：", ": ").rsplit(": ", 1)[1]


def rows(seed: int, step: int, num_rows: int, length: int) -> list[list[int]]:
    """Token ids of one step's batch: ``num_rows`` rows of ``length`` + 1, each filled with documents end to end.

    A row is a function of (seed, step, its number), so pre-training resumes from the step number alone.  The last
    document of a row is cut where the row ends.
    """
    return [_row(seed, step * num_rows + r, length + 1) for r in range(num_rows)]


def _row(seed: int, number: int, length: int) -> list[int]:
    encode, end = tokenizer.load().encode, tokenizer.load().eos_token_id
    ids: list[int] = []
    for index in _indices(number):
        ids += [*encode(document(seed, index)), end]
        if len(ids) >= length:
            return ids[:length]
    raise AssertionError("documents do not end")


def _indices(number: int) -> Iterator[int]:
    return iter(range(number * 1000, (number + 1) * 1000))


def _drill(rng: random.Random) -> str:
    """The skill without a question: a sum worked digit by digit, with or without checks, or single additions.

    Only where there is a check is there ever an error: it is found and mended.
    """
    language = rng.choice(("en", "zh"))
    if rng.random() < 0.5:
        question = arithmetic.draw("train", _pick(rng, MIX["level"]), "en", "chain", rng.getrandbits(40))
        depth = rng.choice((2, 2, 3))
        expression = expression_of(question.text)
        error_rate = ERROR_RATE[3] if depth == 3 else 0.0
        return f"{expression}\n{_solve(expression, depth, lambda: language, error_rate, rng)[0]}"
    lines = []
    for _ in range(rng.randint(2, 6)):
        question = arithmetic.draw("train", rng.choice((1, 3)), "en", "drill", rng.getrandbits(40))
        expression = " ".join(expression_of(question.text).split()[:3])
        lines.append(_solve(expression, rng.choice((1, 2, 2, 2, 2)), lambda: language, 0.0, rng)[0])
    return "\n".join(lines)


def _solve(expression: str, depth: int, language, error_rate: float, rng: random.Random) -> tuple[str, int]:
    """`arithmetic.solve`, again where an error led to a line that is a question held out."""
    while True:
        solution, answer = arithmetic.solve(expression, depth, language, error_rate, rng)
        if not arithmetic.holds_held_out(solution):
            return solution, answer


def _tongue(rng: random.Random, language: str):
    other = "zh" if language == "en" else "en"
    kind = _pick(rng, MIX["language"])
    if kind == "mixed":
        return lambda: rng.choice((language, other))
    chosen = language if kind == "own" else other
    return lambda: chosen


def _pick(rng: random.Random, shares: dict):
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _prose() -> list[str]:
    lines = (tokenizer.ASSETS / "families.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# ")]
