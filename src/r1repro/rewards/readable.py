"""What makes a thinking hard to read (sections 2.3.1 and 2.3.3): the filters of cold start and rejection sampling.

Where the paper is silent:
    It names mixed languages, long paragraphs, code blocks and repetition, and gives no threshold for any of them.
"""

import re
from collections import Counter

from r1repro.rewards.format import format_reward
from r1repro.rewards.language import language_share, thinking

REASONS = ("format", "mixed", "paragraph", "code", "repetition")
"""Why an output is not readable."""


def unreadable(text: str, language: str, *, min_share: float, max_paragraph: int) -> str | None:
    """The first of `REASONS` for which an output is dropped, or None.

    >>> unreadable("<think> so \u6240\u4ee5 4 </think> <answer> 4 </answer>", "en", min_share=0.95, max_paragraph=200)
    'mixed'
    """
    thought = thinking(text)
    if not format_reward(text):
        return "format"
    if language_share(text, language) < min_share:
        return "mixed"
    if longest_paragraph(thought) > max_paragraph:
        return "paragraph"
    if has_code(thought):
        return "code"
    return "repetition" if repeats(thought) else None


def longest_paragraph(text: str) -> int:
    """Words of the longest paragraph; a paragraph ends with a sentence or a line.

    >>> longest_paragraph("first 5+7=12. then 12+1=13.")
    2
    """
    return max(len(part.split()) for part in re.split(r"[.\u3002\n]", text))


def has_code(text: str) -> bool:
    """Whether a text holds a block of code.

    >>> has_code("so def f(x): return x"), has_code("so 3 * x")
    (True, False)
    """
    return "```" in text or re.search(r"\bdef \w+\(", text) is not None


def loops(text: str, size: int = 16, times: int = 3) -> bool:
    """Whether some ``size`` words, digits or signs in a row stand in a text ``times`` times: an n-gram detector.

    It also finds a loop that never ends a sentence, which `repeats` does not.

    Where the paper is silent:
        What counts as repetition.  With 16 in a row no worked solution of the corpus' kinds counts, although checks and
        searches say the same again and again; with 8 an eighth of the sums that are checked would.

    >>> loops("5+3=8, 8+1=9, " * 4), loops("5+3=8, 8+1=9, so 9")
    (True, False)
    """
    pieces = re.findall(r"[A-Za-z]+|\S", text)
    runs = Counter(tuple(pieces[i : i + size]) for i in range(len(pieces) - size + 1))
    return any(count >= times for count in runs.values())


def repeats(text: str, times: int = 3) -> bool:
    """Whether a sentence of eight characters or more stands in a text ``times`` times.

    >>> repeats("try 3+4=7, wrong. " * 3)
    True
    """
    sentences = Counter(part.strip() for part in re.split(r"[.\u3002\n]", text))
    return any(count >= times for sentence, count in sentences.items() if len(sentence) >= 8)
