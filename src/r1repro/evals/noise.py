r"""How sure a benchmark can be: what of the doubt more samples take away, and what only more questions could.

A question q is answered right with a chance p_q of its own.  A score is the mean over Q questions of K samples each,
so it is off for two reasons: K samples of a chance (within), and Q questions of all that could be asked (between).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Noise(NamedTuple):
    """Variances of one sample's score."""

    within: float
    """Mean over questions of p (1 - p): a question answered again."""

    between: float
    """Of p over questions: another question asked."""


def noise(scores_QK: Sequence[Sequence[float]]) -> Noise:
    r"""Both variances, estimated without bias from K >= 2 samples to each of Q >= 2 questions.

    .. math:: w=\frac1Q\sum_q\frac{1}{K-1}\sum_k(s_{qk}-\bar s_q)^2,\qquad
        b=\max\Big(0,\ \frac{1}{Q-1}\sum_q(\bar s_q-\bar s)^2-\frac wK\Big)

    >>> noise([[1.0, 1.0], [0.0, 0.0]])
    Noise(within=0.0, between=0.5)
    """
    scores_QK = np.asarray(scores_QK, dtype=float)
    if scores_QK.ndim != 2 or min(scores_QK.shape) < 2:
        raise ValueError(f"scores have the shape {scores_QK.shape}: give two questions with two samples each, or more")
    within = float(scores_QK.var(axis=1, ddof=1).mean())
    between = float(scores_QK.mean(axis=1).var(ddof=1)) - within / scores_QK.shape[1]
    return Noise(within, max(0.0, between))


def standard_error(of: Noise, num_questions: int, k: int) -> float:
    r"""Of a score over other questions of the same kind, as a fraction.

    .. math:: \mathrm{se}=\sqrt{\frac{1}{Q}\Big(b+\frac{w}{K}\Big)}

    More samples take w / K away and leave b: with thirty questions of very different difficulty, k = 64 makes the
    score of *these* thirty sharp and says hardly more about all others.

    >>> one, many = (standard_error(Noise(within=0.1, between=0.1), 30, k) for k in (1, 64))
    >>> round(one, 3), round(many, 3)
    (0.082, 0.058)
    """
    return float(np.sqrt((of.between + of.within / k) / num_questions))


def repeated(of: Noise, num_questions: int, k: int) -> float:
    r"""The standard error of asking the *same* questions again: the part that k shrinks.

    .. math:: \mathrm{se}=\sqrt{\frac{w}{QK}}

    >>> round(repeated(Noise(within=0.1, between=0.1), 30, 64), 4)
    0.0072
    """
    return float(np.sqrt(of.within / num_questions / k))
