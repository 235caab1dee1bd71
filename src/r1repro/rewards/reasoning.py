"""The accuracy reward over questions of several kinds (section 2.2.2): each is judged as its kind asks."""

from collections.abc import Callable, Sequence

from r1repro.records import Question, Score
from r1repro.rewards import accuracy as answers
from r1repro.rewards import gym, interpreter

JUDGES: dict[str, Callable[[Sequence[Question], Sequence[str]], list[Score]]] = {
    "answer": answers.accuracy,
    "program": interpreter.accuracy,
    "gym": gym.accuracy,
}
"""Kind of question -> its accuracy reward."""


def accuracy(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """1 for each output that is right, 0 for the others; None where the grader failed.

    Open questions have no accuracy reward, because no rule can judge them: 0 for each, unparsed.

    >>> asked = Question(id="0", text="", gold="assert f(1) == 2", language="en", level=1, family="x", kind="program")
    >>> accuracy([asked], ["<answer>def f(x): return x + 1</answer>"])[0].verdict
    'right'
    """
    scores: list[Score] = []
    for question, text in zip(questions, texts, strict=True):
        if question.kind == "open":
            scores.append(Score(value=0.0, verdict="unparsed"))
        else:
            scores += JUDGES[question.kind]([question], [text])
    return scores


def watched(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """The verdicts of `accuracy`, worth nothing: where something else is rewarded, they are still looked at.

    >>> asked = Question(id="0", text="", gold="2", language="en", level=1, family="x")
    >>> watched([asked], ["<answer> 2 </answer>"])
    [Score(value=0.0, verdict='right')]
    """
    return [Score(value=0.0, verdict=score.verdict) for score in accuracy(questions, texts)]
