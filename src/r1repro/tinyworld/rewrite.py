"""The editor of the tiny world: puts a thinking into the language of its question, and writes a summary of it.

In the paper DeepSeek-V3 does this (v2 B.3.2): it translates the thinking, and adds a solution for the reader that is
faithful to it.  Here a table of phrases does, because the world's sentences are known; it repairs no reasoning.
"""

import re
from collections.abc import Callable

from r1repro.records import Question
from r1repro.tinyworld.corpus import output

_PHRASES = {
    "chain_sum": (
        ("wait, a mistake, again: ", "等等，有错误，重新算："), ("the sum is ", "和是"), ("first ", "先"),
        ("then ", "再"), (" carry", "进"), (" borrow", "借"), ("so ", "得"),
        (" check ", " 检查"), ("right", "正确"),
    ),
    "search": (("the numbers are ", "两个数是"), (" wrong. ", "不对。"), (" wrong", "不对"), (" right", "正确")),
    "programs": (
        ("wait, a mistake, again: ", "等等，有错误，重新算："), ("the program is good", "程序正确"), ("so ", "所以"),
        ("check ", "检查"), ("wrong", "不对"), ("right", "正确"),
    ),
    "logic": (("the answer is ", "答案是"), ("so ", "所以"), ("not ", "不是"), (" wrong", "不对"), (" right", "正确")),
}  # fmt: skip
_STOPS = ((", ", "，"), (": ", "："), (". ", "。"), (".", "。"))


def translate(thinking: str, question: Question, overlooks: Callable[[], bool] = lambda: False) -> str:
    """A thinking in the language of its question; what the table does not know stays as it is.

    Args:
        overlooks: asked at each place where a phrase of the other language stands; where it says so, the phrase stays.

    >>> from r1repro.tinyworld import arithmetic
    >>> asked = arithmetic.draw("train", 1, "en", 0)
    >>> translate("先57+87=144，再144+70=214。", asked)
    'first 57+87=144, then 144+70=214.'
    """
    english = question.language == "en"
    for pair in (*_PHRASES[question.family], *_STOPS):
        other, own = reversed(pair) if english else pair
        thinking = re.sub(re.escape(other), lambda found, own=own: found[0] if overlooks() else own, thinking)
    if english:
        thinking = re.sub(r"(?<=[.])(?=\w)", " ", thinking)
    return re.sub(r" +", " ", thinking).strip()


def summary(question: Question, answer: str) -> str:
    """What a reader is told after the thinking: what came out, in the question's language, and no new step.

    A summary of sums that goes over the lines again would be worked out anew, at one go and often wrongly, where the
    thinking had been right.  Numbers and letters are those of the reference, for an answer may be right and be written
    in many ways.

    >>> from r1repro.tinyworld import arithmetic
    >>> summary(arithmetic.draw("train", 2, "en", 0), "255")
    'So it is 255.'
    """
    if question.family == "chain_sum":
        return f"So it is {question.gold}." if question.language == "en" else f"所以是{question.gold}。"
    if question.family == "search":
        first, second = question.gold.split(", ")
        return f"{first}+{second}={int(first) + int(second)}."
    if question.family == "programs":
        return f"f(x)={answer.removeprefix('def f(x): return ')}."
    choice = re.search(rf"{question.gold}\) (.+?)(?= [A-D]\)|$)", question.text)[1]
    return f"{choice} is right." if question.language == "en" else f"{choice}正确。"


def rewritten(question: Question, thinking: str, answer: str, overlooks: Callable[[], bool] = lambda: False) -> str:
    """The whole output in the form of R1: thinking, then a summary that ends in the answer (section 2.3.1)."""
    text = output(translate(thinking, question, overlooks), answer)
    return text.replace("</think> ", f"</think> {summary(question, answer)} ", 1)
