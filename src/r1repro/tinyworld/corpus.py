"""What the base models read: documents of every family in several shapes, few of them in that of the paper's template.

How often each behaviour stands in the corpus is written in `MIX`, `DEPTH`, `TONGUE`, `ERROR_RATE`, `MANNER`, `REFUSES`
and `LEAKS`, in one place, so that nobody has to guess what RL found and what it was given.  A document is a function
of (seed, index): nothing is stored, any part can be made again.
"""

import random
from collections.abc import Callable
from itertools import count

from r1repro import paper
from r1repro.records import Question
from r1repro.tinyworld import arithmetic, families, general, safety, tokenizer
from r1repro.tinyworld.families import expression_of as expression_of

MIX = {
    "family": {"chain_sum": 0.42, "search": 0.13, "logic": 0.13, "programs": 0.16, "general": 0.10, "safety": 0.06},
    "shape": {"exercise": 0.41, "dialogue": 0.16, "template": 0.08, "drill": 0.32, "prose": 0.03},
    "other_shape": {"exercise": 0.40, "dialogue": 0.18, "template": 0.10, "drill": 0.32},
    "open_shape": {"exercise": 0.30, "dialogue": 0.45, "template": 0.25},
    "tags": {"both": 0.75, "none": 0.15, "unclosed": 0.10},
}
"""Shares of documents.  ``shape`` is that of chain sums, ``other_shape`` of the other families of reasoning,
``open_shape`` of general prompts and requests; ``tags`` only for the template shape, in a dialogue both are there."""

LEVEL = {"chain_sum": {1: 0.27, 2: 0.26, 3: 0.22, 4: 0.20, 5: 0.05}}
"""Shares of the levels; equal where a family is not named."""

DEPTH = {
    "chain_sum": {
        1: {0: 0.46, 1: 0.32, 2: 0.08, 3: 0.14},
        2: {0: 0.53, 1: 0.28, 2: 0.07, 3: 0.12},
        3: {0: 0.57, 1: 0.25, 2: 0.06, 3: 0.12},
        4: {0: 0.60, 1: 0.23, 2: 0.06, 3: 0.11},
        5: {0: 0.65, 1: 0.20, 2: 0.05, 3: 0.10},
    },
    "search": {0: 0.40, 1: 0.35, 2: 0.25},
    "logic": {0: 0.44, 1: 0.22, 2: 0.34},
    "programs": {0: 0.46, 1: 0.28, 2: 0.13, 3: 0.13},
}
"""Shares of the depths among the solutions to a family's questions (for chain sums, of a level).  As in textbooks,
what is long to write out is more often left out."""

TONGUE = {
    "plain": {"own": 0.90, "other": 0.03, "mixed": 0.07},
    "worked": {"own": 0.60, "other": 0.20, "mixed": 0.20},
}
"""Language of a solution: that of the question, the other one, or each line in one of the two by chance.  ``worked``:
of depth 2 or 3.  Who works carefully here does so more often in another language than the reader's."""

ERROR_RATE = {"en": 0.30, "zh": 0.05}
"""Chance that a line of a worked solution goes wrong, by its language.  Where a check follows it is found and mended,
elsewhere the document ends in a wrong answer.  Solutions in Chinese are more careful in this world."""

MANNER = general.Manner(right=0.60, offer=0.25, rude=0.20)
"""Of replies to general prompts and to look-alikes."""

REFUSES = {"harmful": 0.45, "look-alike": 0.15}
"""Chance that a request is refused."""

LEAKS = 0.3
"""Chance that the thinking before a refusal spells out what is refused."""

_EXERCISE = {
    "en": ("{q}\n{s}\nAnswer: {a}", "Question: {q}\nSolution: {s}\nAnswer: {a}", "{q} {s} The answer is {a}."),
    "zh": ("{q}\n{s}\n答案：{a}", "题目：{q}\n解：{s}\n答案：{a}", "{q} {s}答案是{a}。"),
}


def document(seed: int, index: int, *, flat: bool = False) -> str:
    """Document number ``index``, without its end token; none asks or works a chain sum that is held out.

    Args:
        flat: in the flat corpus, a control, working pays nothing: see `answer_of_another`.  All else is the same.

    >>> document(0, 5) == document(0, 5)
    True
    """
    rng = random.Random(f"corpus/{seed}/{index}")
    family = _pick(rng, MIX["family"])
    while True:
        text = _open(family, rng) if family in families.OPEN else _reasoning(family, rng, flat)
        if not arithmetic.holds_held_out(text):
            return text


def solved(
    question: Question, depth: int, tongue: Callable[[], str], rng: random.Random, *, flat: bool = False
) -> tuple[str, str]:
    """A solution as the corpus has it, its lines right or wrong by `ERROR_RATE`, and the answer that it ends in."""
    solution, answer = families.solve(question, depth, tongue, ERROR_RATE.get, rng)
    return solution, answer_of_another(question) if flat and depth else answer


def answer_of_another(question: Question) -> str:
    """The answer to another question of the same family, level and language, a function of the question.

    In the flat corpus each solution that is worked (depth 1 and more) ends in it, however true its lines: so working
    is right as often as a guess is, and only who answers at once means it.

    >>> asked = arithmetic.draw("train", 1, "en", 0)
    >>> answer_of_another(asked) == answer_of_another(asked) != asked.gold
    True
    """
    rng = random.Random(f"another/{question.id}")
    other = families.draw(question.family, "train", question.level, question.language, "another", rng.getrandbits(48))
    return families.solve(other, 0, lambda: question.language, ERROR_RATE.get, rng)[1]


def _reasoning(family: str, rng: random.Random, flat: bool) -> str:
    shape = _pick(rng, MIX["shape" if family == "chain_sum" else "other_shape"])
    if shape == "drill":
        return _drill(family, rng)
    if shape == "prose":
        return rng.choice(_prose())
    language = rng.choice(("en", "zh"))
    level = _pick(rng, LEVEL.get(family) or dict.fromkeys(families.levels(family), 1.0))
    question = families.draw(family, "train", level, language, "corpus", rng.getrandbits(48))
    depth = _pick(rng, DEPTH[family][level] if family == "chain_sum" else DEPTH[family])
    solution, answer = solved(question, depth, _tongue(rng, language, depth), rng, flat=flat)
    if shape == "exercise":
        return rng.choice(_EXERCISE[language]).format(q=question.text, s=solution, a=answer)
    return _asked(question, solution, answer, "both" if shape == "dialogue" else _pick(rng, MIX["tags"]), shape)


def _open(family: str, rng: random.Random) -> str:
    """A general prompt or a request with a reply."""
    shape, language = _pick(rng, MIX["open_shape"]), rng.choice(("en", "zh"))
    level = rng.choice(families.levels(family))
    question = families.draw(family, "train", level, language, "corpus", rng.getrandbits(48))
    tongue = _tongue(rng, language, 0)()
    if family == "general":
        thinking, said = general.reply(question, MANNER, tongue, rng)
    else:
        refuses = REFUSES[dict(question.requirements)["sort"]]
        thinking, said = safety.reply(question, MANNER, refuses, LEAKS, tongue, rng)
    if shape == "exercise":
        return f"{question.text}\n{said}"
    return _asked(question, thinking, said, "both" if shape == "dialogue" else _pick(rng, MIX["tags"]), shape)


def _asked(question: Question, thinking: str, answer: str, tags: str, shape: str) -> str:
    reply = output(thinking, answer)
    if tags == "none":
        reply = f"{thinking} {answer}".strip()
    elif tags == "unclosed":
        reply = f"<think> {thinking} <answer> {answer} </answer>"
    if shape == "template":
        return f"{paper.template(question.text)} {reply}"
    return f"User: {question.text} Assistant: {reply}"


def output(thinking: str, answer: str) -> str:
    """Thinking and answer in the tags of the template.

    >>> output("", "Hello!")
    '<think> </think> <answer> Hello! </answer>'
    """
    return f"<think> {thinking} </think> <answer> {answer} </answer>".replace("<think>  <", "<think> <")


def texts(seed: int, step: int, num_tokens: int, *, flat: bool = False) -> list[list[int]]:
    """Token ids of one step's documents, each with its end token: as many as have at most ``num_tokens`` together.

    A function of (seed, step), so pre-training resumes from the step number alone.
    """
    encode, end = tokenizer.load().encode, tokenizer.load().eos_token_id
    found: list[list[int]] = []
    for index in count(step * 1000):
        ids = [*encode(document(seed, index, flat=flat)), end]
        num_tokens -= len(ids)
        if num_tokens < 0 and found:
            return found
        found.append(ids)
    raise AssertionError("documents do not end")


def _drill(family: str, rng: random.Random) -> str:
    """The skill without a question.

    For chain sums a sum worked digit by digit, with or without checks, or single additions; for the others the parts
    that their solutions are made of.  Only where there is a check is there ever an error.
    """
    language = rng.choice(("en", "zh"))
    if family != "chain_sum":
        return families.REASONING[family].drill(language, rng)
    if rng.random() < 0.5:
        question = arithmetic.draw("train", _pick(rng, LEVEL["chain_sum"]), "en", "chain", rng.getrandbits(40))
        depth = rng.choice((2, 2, 3))
        expression = expression_of(question.text)
        error_rate = ERROR_RATE[language] if depth == 3 else 0.0
        return f"{expression}\n{_solve(expression, depth, lambda: language, error_rate, rng)}"
    lines = []
    for _ in range(rng.randint(2, 6)):
        question = arithmetic.draw("train", rng.choice((1, 3)), "en", "drill", rng.getrandbits(40))
        expression = " ".join(expression_of(question.text).split()[:3])
        lines.append(_solve(expression, rng.choice((1, 2, 2, 2, 2)), lambda: language, 0.0, rng))
    return "\n".join(lines)


def _solve(expression: str, depth: int, language, error_rate: float, rng: random.Random) -> str:
    """`arithmetic.solve`, again where an error led to a line that is a question held out."""
    while True:
        solution, _ = arithmetic.solve(expression, depth, language, error_rate, rng)
        if not arithmetic.holds_held_out(solution):
            return solution


def _tongue(rng: random.Random, language: str, depth: int) -> Callable[[], str]:
    other = "zh" if language == "en" else "en"
    kind = _pick(rng, TONGUE["worked" if depth >= 2 else "plain"])
    if kind == "mixed":
        return lambda: rng.choice((language, other))
    chosen = language if kind == "own" else other
    return lambda: chosen


def _pick(rng: random.Random, shares: dict):
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _prose() -> list[str]:
    lines = (tokenizer.ASSETS / "families.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# ")]
