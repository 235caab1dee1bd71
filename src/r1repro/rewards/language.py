"""Statistics of the language of an output: consistency (section 2.3.2), mixing (C09) and reflection words (C06).

Where the paper is silent:
    How words are segmented, how their language is told, and what formulas count.  Here the script decides: a run of
    Latin letters (with inner apostrophes) is one English word, each CJK ideograph is one Chinese word, a run of other
    letters is one word of neither.  Digits, punctuation, tags, LaTeX commands and what stands between dollar signs,
    `\\(...\\)` or `\\[...\\]` are no words, nor is a single letter ("let x be ...", "so A."), except "a", "I", and "A"
    before another word.  So German counts as English, and Chinese weighs more than by words of a dictionary (about 1.5
    ideographs each).
"""

import re
from collections.abc import Sequence

from r1repro.records import Question, Refusal, Score

_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_LATIN}]+(?:['\u2019][{_LATIN}]+)*|[{_IDEOGRAPHS}]|[^\W\d_{_LATIN}{_IDEOGRAPHS}]+")
_LABEL = re.compile(rf"(?<![{_LATIN}'\u2019])A(?! ?[{_LATIN}'\u2019])")
"""The letter of an option."""

_OF = {"en": re.compile(f"[{_LATIN}]"), "zh": re.compile(f"[{_IDEOGRAPHS}]")}
_NO_WORDS = re.compile(
    r"</?(?:think|answer)>|\$\$[^$]*\$\$|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)|\\\([^()]*?\\\)|\\\[[^\[\]]*?\\\]|\\[A-Za-z]+"
)

REFLECTION_EN = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
"""The ten words that the paper counts (facts, section 2.2.4; v2 C.2)."""

REFLECTION_ZH = ("等等", "错误", "然而", "但是", "重试", "不对", "验证", "检查", "评估", "再算")
"""Our own counterparts, fixed before any run; the paper counts English only, so these are reported apart."""

_REFLECTION = {
    "en": re.compile(rf"\b(?:{'|'.join(REFLECTION_EN)})\b", re.IGNORECASE | re.ASCII),  # an ideograph ends a word
    "zh": re.compile("|".join(REFLECTION_ZH)),
}


def thinking(text: str) -> str:
    """What stands between the first `<think>` and the last `</think>`, or the end of the text if not closed after it.

    Where the paper is silent: an output without the opening tag counts from its beginning, so that leaving out a tag
    does not hide the language of the thinking.

    >>> thinking("<think>2 + 2</think> <answer>4</answer>"), thinking("<think>2 +")
    ('2 + 2', '2 +')
    """
    _, opened, rest = text.partition("<think>")
    before, closed, _ = (rest if opened else text).rpartition("</think>")
    return before if closed else rest if opened else text


def words(text: str) -> list[str]:
    """The words of `text`, of whatever language.

    >>> words("<think>Let x = 12, so $x + y = 20$. \u6240\u4ee5 it doesn't fit")
    ['Let', 'so', '\u6240', '\u4ee5', 'it', "doesn't", 'fit']
    """
    found = _WORD.findall(_LABEL.sub(" ", _NO_WORDS.sub(" ", text)))
    return [word for word in found if len(word) > 1 or word in ("a", "A", "I") or _OF["zh"].match(word)]


def language_share(text: str, language: str) -> float:
    """Words of the target language over all words, of the THINKING of `text` (section 2.3.2); 1.0 if it has no words.

    A thinking of bare sums mixes no languages; as a reward this must stand beside accuracy, never alone.

    >>> language_share("<think>so we add \u4e00</think> \u7b54\u6848", "en")
    0.75
    """
    if language not in _OF:
        raise Refusal(f"language {language!r} is not known: choose one of {', '.join(_OF)}")
    found = words(thinking(text))
    return sum(bool(_OF[language].match(word)) for word in found) / len(found) if found else 1.0


def language_consistency(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """The language-consistency reward (section 2.3.2): the share of words of the question's language in each thinking.

    Added to the others with weight 1.  A proportion, not a flag, and of the thinking alone.
    """
    shares = [language_share(text, question.language) for question, text in zip(questions, texts, strict=True)]
    return [Score(value=share, verdict="right" if share == 1.0 else "wrong") for share in shares]


def is_mixed(text: str, language: str, threshold: float = 0.95) -> bool:
    """Whether under `threshold` of the words of the thinking are of the target language (claim C09)."""
    return language_share(text, language) < threshold


def reflection_count(text: str, language: str) -> int:
    """How often `text` holds a reflection word: whole words in any case for "en", pieces of text for "zh" (C06).

    Inflected forms ("checked") are not on the paper's list and do not count.

    >>> reflection_count("Wait, I checked. But check again: WAIT.", "en")
    4
    """
    if language not in _REFLECTION:
        raise Refusal(f"language {language!r} has no list of reflection words: choose one of {', '.join(_REFLECTION)}")
    return len(_REFLECTION[language].findall(text))
