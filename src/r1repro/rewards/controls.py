"""What R1-Zero's gain is held against: a reward that knows nothing, and a reading of answers that is blind to format.

Nothing here is of the paper.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

from r1repro.records import Question, Score
from r1repro.rewards import accuracy


def random_scores(questions: Sequence[Question], texts: Sequence[str], seed: int = 0) -> list[Score]:
    """1 or 0 with equal chance for each output, by a hash of (seed, question, output): a control, it knows nothing.

    The same output to the same question earns the same again, so that a run can be resumed; but hardly a question is
    asked twice in a run, and what is learned from one says nothing of another.

    >>> asked = Question(id="0", text="", gold="4", language="en", level=1, family="x")
    >>> [score.value for score in random_scores([asked] * 4, ["4", "5", "6", "7"])]
    [1.0, 0.0, 0.0, 0.0]
    """
    pairs = zip(questions, texts, strict=True)
    keys = [f"{seed}/{question.id}/{text}".encode("utf-8", "surrogatepass") for question, text in pairs]
    values = [float(hashlib.sha256(key).digest()[0] % 2) for key in keys]
    return [Score(value=value, verdict="right" if value else "wrong") for value in values]


def __getattr__(name: str) -> Callable[[Sequence[Question], Sequence[str]], list[Score]]:
    """`random_scores` of a seed by the name ``random_scores_<seed>``, for settings name a reward by its import path.

    >>> __getattr__("random_scores_7")([], [])
    []
    """
    first, _, seed = name.rpartition("_")
    if first != "random_scores" or not seed.isdecimal():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def scores(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
        return random_scores(questions, texts, int(seed))

    scores.__name__ = first
    return scores


_NUMBER = re.compile(r"(?:(?<![\d)])[-\u2212])?\d+(?:[.,]\d+)*")


def last_number(text: str) -> str | None:
    """The last number in a text, wherever it stands, in the form of `accuracy.normalise`; None where there is none.

    Tags, boxes and words count for nothing, so a model that knows the answer and no format loses nothing by it.

    >>> last_number("the sum is 1,024."), last_number("<think> 57-87 = -30"), last_number("144-87"), last_number("?")
    ('1024', '-30', '87', None)
    """
    found = _NUMBER.findall(text)
    return accuracy.normalise(found[-1]) if found else None


def blind_right(gold: str, text: str) -> bool:
    """Whether the last number of an output is the reference answer; for questions whose answer is a number.

    >>> blind_right("214", "<think> the sum is 214."), blind_right("214", "<answer> 214 </answer> or 215")
    (True, False)
    """
    return last_number(text) == accuracy.normalise(gold)
