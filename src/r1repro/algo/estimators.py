r"""What an evaluation says and how sure it is of it: section 3 of DeepSeek-R1, and the bootstrap.

Axes.  Q questions, K samples to each, B bootstrap draws, M columns of a table.  A seed is one whole training run.

Left out on purpose: p-values, and corrections for a small number of seeds.  A percentile interval over three seeds is
right (95 %) where questions are the larger source of doubt, and too short where seeds differ more than questions do: at
worst three seeds cover the truth 77 times in 100 and five 87 times (`tests/test_estimators.py` holds the simulation).
That is why the ledger asks in addition that all seeds agree in sign, and shows each of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np


def pass_at_1(scores_QK) -> float:
    r"""The chance that one sample is right: the mean over a question's samples, then over questions (section 3).

    .. math:: \frac1Q \sum_q \frac1K \sum_i p_{q,i}

    A score is 1 or 0; None or nan (the grader failed) counts as not right, because it was not shown to be right.

    >>> pass_at_1([[1, 0, 1, 1], [0, 0, 0, 1]])
    0.5
    >>> pass_at_1([[1, None]])
    0.5
    """
    scores_QK = np.nan_to_num(np.asarray(scores_QK, dtype=float), nan=0.0)
    if scores_QK.ndim != 2 or scores_QK.size == 0:
        raise ValueError(f"scores have the shape {scores_QK.shape}: give one row a question and one column a sample")
    return float(scores_QK.mean(axis=1).mean())


def pass_at_k(num_right_Q: Sequence[int], num_samples: int, k: int) -> float:
    r"""The chance that at least one of k samples is right, without bias, from n >= k samples a question.

    .. math:: \frac1Q \sum_q 1 - \binom{n - c_q}{k} \Big/ \binom{n}{k}

    Raising the measured pass@1 to a power instead (1 - (1 - c/n)^k) would be too low.  Source: Chen et al. 2021,
    arXiv 2107.03374, eq. 1.

    >>> pass_at_k([1], num_samples=4, k=2)
    0.5
    >>> pass_at_k([1, 4, 0], num_samples=4, k=1) == pass_at_1([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    True
    """
    num_right_Q = [int(c) for c in num_right_Q]
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}, but there are {num_samples} samples a question: k goes from 1 to {num_samples}")
    if not num_right_Q or min(num_right_Q) < 0 or max(num_right_Q) > num_samples:
        raise ValueError(f"counts of right samples must lie in 0..{num_samples}, for one question at least")
    whole = math.comb(num_samples, k)
    return sum(1 - math.comb(num_samples - c, k) / whole for c in num_right_Q) / len(num_right_Q)


def majority(answers_K: Sequence[Hashable | None]) -> int | None:
    """Which sample speaks for the majority: the first one whose answer has the most votes.  None if nobody votes.

    Where the paper is silent:
        *Ties* go to the answer that was sampled first.  Samples are exchangeable, so this favours no answer over
        another, never looks at the reference, needs no random number, and makes cons@1 and cons@2 the first sample
        (two voters can decide nothing).  Taking the smallest number, say, would favour a kind of answer.
        *Unparsed* outputs (None) do not vote: they hold no answer that one could vote for.

    >>> majority(["7", "8", "8"]), majority(["8", "7"]), majority([None, None, "7"]), majority([None])
    (1, 0, 2, None)
    """
    votes = Counter(answer for answer in answers_K if answer is not None)  # keeps the order of first appearance
    if not votes:
        return None
    return list(answers_K).index(max(votes, key=votes.__getitem__))  # max returns the first of equals


def vote_right(answers_QK: Sequence[Sequence[Hashable | None]], right_QK) -> np.ndarray:
    """1.0 for each question whose majority answer is right, else 0.0: shape (Q,).  Nobody voted: wrong.

    >>> vote_right([["7", "8", "8"], [None, None, None]], [[0, 1, 1], [0, 0, 0]])
    array([1., 0.])
    """
    speakers = [majority(answers) for answers in answers_QK]
    pairs = zip(speakers, right_QK, strict=True)
    return np.array([0.0 if i is None else float(bool(right[i])) for i, right in pairs])


def cons_at_k(answers_QK: Sequence[Sequence[Hashable | None]], right_QK) -> float:
    """The share of questions that a majority vote over their K samples gets right (section 3, cons@64).

    ``answers_QK`` holds normalised answers, so that equal answers are equal; ``right_QK`` says which were graded right.

    >>> cons_at_k([["7", "8", "8"], ["1", "2", None]], [[0, 1, 1], [0, 1, 0]])
    0.5
    """
    return float(vote_right(answers_QK, right_QK).mean())


def cons_at_n(answers_QK: Sequence[Sequence[Hashable | None]], right_QK, n: int) -> float:
    """What a majority vote of n samples gets right, from K of them: the mean over as many votes of n as K samples make.

    Samples are exchangeable, so any n are a vote; those here share none.  cons@1 is pass@1, cons@K `cons_at_k`.

    >>> cons_at_n([["7", "8", "8", "7"]], [[0, 1, 1, 0]], 2)
    0.5
    """
    num_samples = len(answers_QK[0])
    if not 1 <= n <= num_samples:
        raise ValueError(f"n is {n}, but there are {num_samples} samples a question: n goes from 1 to {num_samples}")
    parts = [slice(first, first + n) for first in range(0, num_samples - n + 1, n)]
    votes = [vote_right([row[part] for row in answers_QK], [row[part] for row in right_QK]) for part in parts]
    return float(np.mean(votes))


def slope(x_M, y) -> np.ndarray:
    """Least-squares slope of y over x, along the last axis of y.

    >>> float(slope([0, 1, 2], [1.0, 2.0, 6.0]))
    2.5
    """
    centred_M = np.asarray(x_M, dtype=float) - np.mean(x_M)
    spread = (centred_M**2).sum()
    if spread == 0:
        raise ValueError(f"no slope over x = {list(x_M)}: two different points are needed")
    return np.asarray(y, dtype=float) @ centred_M / spread


def _midranks(weights_BQ: np.ndarray, x_Q: np.ndarray) -> np.ndarray:
    """Ranks of x in a sample that holds question q ``weights_BQ[b, q]`` times; equals share their mean rank."""
    _, group_Q = np.unique(x_Q, return_inverse=True)
    order = np.argsort(group_Q, kind="stable")
    starts = np.searchsorted(group_Q[order], np.arange(group_Q.max() + 1))
    size_BG = np.add.reduceat(weights_BQ[:, order], starts, axis=1)
    return (size_BG.cumsum(axis=1) - size_BG + (size_BG + 1) / 2)[:, group_Q]


def weighted_spearman(weights_BQ: np.ndarray, x_Q: np.ndarray, y_Q: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each of B resamples, given how often each question was drawn: shape (B,).

    nan where x or y has no spread.  Ties share their mean rank.
    """
    weights_BQ = np.asarray(weights_BQ, dtype=float)
    total_B1 = weights_BQ.sum(axis=1, keepdims=True)
    x_BQ, y_BQ = (_midranks(weights_BQ, np.asarray(v, dtype=float)) for v in (x_Q, y_Q))
    x_BQ = x_BQ - (total_B1 + 1) / 2  # midranks always average to this
    y_BQ = y_BQ - (total_B1 + 1) / 2
    over = (weights_BQ * x_BQ * y_BQ).sum(axis=1)
    under = np.sqrt((weights_BQ * x_BQ**2).sum(axis=1) * (weights_BQ * y_BQ**2).sum(axis=1))
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)


def spearman(x_Q, y_Q) -> float:
    """Spearman's rank correlation; ties share their mean rank; nan if x or y has no spread.

    >>> spearman([1, 2, 3, 4], [10, 20, 30, 25])
    0.8
    """
    return float(weighted_spearman(np.ones((1, len(x_Q))), x_Q, y_Q)[0])


class Interval(NamedTuple):
    """An effect and the ends of its interval; floats, or arrays where the effect has several numbers."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


def weighted_mean(weights_BQ: np.ndarray, table_QM: np.ndarray) -> np.ndarray:
    """The mean of each column in each of B resamples: shape (B, M)."""
    return weights_BQ @ table_QM / weights_BQ.sum(axis=1, keepdims=True)


def first_column(means_BM: np.ndarray) -> np.ndarray:
    """The effect that is simply the mean of the only column."""
    return means_BM[:, 0]


def effects(tables, effect: Callable = first_column, *, summary: Callable = weighted_mean) -> list:
    """The effect in each seed by itself, in the order of ``tables``; see ``bootstrap``."""
    return [_value([_columns(table)], effect, summary) for table in tables]


def bootstrap(
    tables: Sequence,
    effect: Callable[[np.ndarray], np.ndarray] = first_column,
    *,
    summary: Callable[[np.ndarray, np.ndarray], np.ndarray] = weighted_mean,
    shared: bool = True,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """An effect with its percentile bootstrap interval over seeds and questions; over questions alone for one seed.

    ``tables`` holds one table a seed, a row a question.  Each draw takes as many seeds as there are, with
    replacement, then as many questions as there are; ``summary`` turns drawn questions into M numbers (default:
    column means), these are averaged over the drawn seeds, and ``effect`` turns (B, M) into (B,) or (B, E).  Whatever
    must be paired, such as accuracy before and after, stands in one table, so the same questions are drawn on both
    sides.

    ``shared``: row q is the same question in every seed.  Then one draw of questions serves all its seeds, because a
    hard question is hard for each of them; drawing anew for each seed would make the interval up to sqrt(seeds) too
    short.  False where each seed has questions of its own.

    A draw in which the effect is undefined (0/0) counts as minus infinity for the low end and as plus infinity for the
    high end: what was not seen is not held in our favour.

    >>> bootstrap([[0.0, 1.0, 1.0, 1.0] * 25]).value
    0.75
    >>> paired = np.array([[0.0, 0.5], [0.5, 1.0]] * 50)  # each question gains one half: nothing to be unsure of
    >>> [round(x, 6) for x in bootstrap([paired, paired, paired], lambda m: m[:, 1] - m[:, 0])]
    [0.5, 0.5, 0.5]
    """
    tables = [_columns(table) for table in tables]
    sizes = {len(table) for table in tables}
    if not tables or 0 in sizes:
        raise ValueError("nothing to resample: give one table a seed with one row a question at least")
    if shared and len(sizes) > 1:
        raise ValueError(f"seeds share their questions, but have {sorted(sizes)} of them: pass shared=False")
    rng = np.random.default_rng(seed)
    counts_BQ = _counts(rng, draws, len(tables[0])) if shared else None
    picked_BS = rng.integers(len(tables), size=(draws, len(tables)))
    total = 0.0
    for place in range(len(tables)):
        summaries = None
        for index, table in enumerate(tables):
            rows = np.flatnonzero(picked_BS[:, place] == index)
            drawn = counts_BQ[rows] if shared else _counts(rng, len(rows), len(table))
            numbers = summary(drawn, table)
            summaries = np.empty((draws, numbers.shape[1])) if summaries is None else summaries
            summaries[rows] = numbers
        total = total + summaries
    with np.errstate(divide="ignore", invalid="ignore"):
        sample = effect(total / len(tables))
    undefined = np.isnan(sample)
    tail = (1 - level) / 2
    low = np.quantile(np.where(undefined, -np.inf, sample), tail, axis=0, method="lower")
    high = np.quantile(np.where(undefined, np.inf, sample), 1 - tail, axis=0, method="higher")
    if sample.ndim == 1:
        low, high = float(low), float(high)
    return Interval(_value(tables, effect, summary), low, high)


def _columns(table) -> np.ndarray:
    table = np.asarray(table, dtype=float)
    return table[:, None] if table.ndim == 1 else table


def _counts(rng: np.random.Generator, draws: int, size: int) -> np.ndarray:
    """How often each of ``size`` things is in each of ``draws`` resamples of that size: (draws, size), as floats."""
    flat = rng.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _value(tables: list[np.ndarray], effect: Callable, summary: Callable):
    means_1M = sum(summary(np.ones((1, len(table))), table) for table in tables) / len(tables)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = effect(means_1M)[0]
    return float(value) if np.ndim(value) == 0 else value
