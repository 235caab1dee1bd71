r"""The statistics of judged comparisons: length-controlled win rates (AlpacaEval 2.0), Bradley-Terry (Arena-Hard).

Length-controlled win rate, from its public description (arXiv 2404.04475): the judge's preference for the model over
the baseline is regressed on the length difference, the difficulty of the instruction, and the model,

.. math:: P(m \succ b \mid x) = \sigma\big(\phi\,\tanh(\Delta_x / \mathrm{std}(\Delta)) + \psi\,\gamma_x + \theta\big),

and the win rate is the mean of the prediction with the first term left out, as if both outputs were equally long.

Every array is of float64, and its name ends in its axes: N comparisons, P parameters, M models, D difficulties.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SHARE_OF_GAMED = 0.2
FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)
"""Of the published fit (`length_controlled_v1`): weight of each pair of gamed baselines, folds of its cross-validation,
and the inverse strengths of the L1 penalty that it chooses from."""

STRONG = 3
"""Arena-Hard v0.1: a much better answer counts as so many better ones."""

LARGEST = 30.0
"""Ours, of log-odds: the win rate is then 1 to twelve places."""

ROUNDS = 1000
FITS = 200
LEVEL = 0.95
"""Ours: bootstrap rounds, those where each is a fit, and level of an interval; Arena-Hard's own table takes 100."""


class Coefficients(NamedTuple):
    """Of the regression: in the order of the published file."""

    length: float
    difficulty: float
    model: float


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def length_term(baseline_N: Sequence[int], model_N: Sequence[int]) -> np.ndarray:
    """tanh of the standardised length differences, baseline less model, in characters.

    >>> length_term([5, 5, 5], [3, 5, 7]).round(3)
    array([ 0.762,  0.   , -0.762])
    """
    delta_N = np.asarray(baseline_N, float) - np.asarray(model_N, float)
    std = delta_N.std(ddof=1) if len(delta_N) > 1 else 0.0
    return np.tanh(delta_N / std) if std > 0 else np.zeros(len(delta_N))


class Comparisons(NamedTuple):
    """What the regression is fitted to."""

    x_NP: np.ndarray
    """Length term, difficulty, and 1 for a comparison of the model, 0 for one of gamed baselines, which only hold the
    other two terms."""

    preferred_N: np.ndarray
    """Share, 0 to 1."""

    weight_N: np.ndarray

    def of(self, rows: np.ndarray) -> "Comparisons":
        """Some of them, by number or mask."""
        return Comparisons(*(values[rows] for values in self))


def chosen_strength(seen: Comparisons) -> float:
    """The strength of the L1 penalty with the least cross-entropy on what is held out, each fold in turn.

    Where the description is silent:
        How rows are dealt to folds.  In turn, from the last.
    """
    fold_N = np.arange(len(seen.x_NP))[::-1] % FOLDS
    losses = []
    for strength in STRENGTHS:
        loss = 0.0
        for fold in range(FOLDS):
            held = seen.of(fold_N == fold)
            beta_P = l1_logistic(*seen.of(fold_N != fold), strength)
            loss += cross_entropy(held.x_NP @ beta_P, *held[1:]) / len(held.x_NP)
        losses.append(loss)
    return float(STRENGTHS[int(np.argmin(losses))])


def regression(seen: Comparisons, strength: float) -> Coefficients:
    """Weighted logistic regression without an intercept on shares, with an L1 penalty."""
    return Coefficients(*map(float, l1_logistic(*seen, strength)))


def cross_entropy(logit_N: np.ndarray, preferred_N: np.ndarray, weight_N: np.ndarray) -> float:
    """Weighted sum of the cross-entropies of shares, nats."""
    each_N = preferred_N * np.logaddexp(0, -logit_N) + (1 - preferred_N) * np.logaddexp(0, logit_N)
    return float((weight_N * each_N).sum())


def l1_logistic(
    x_NP: np.ndarray, preferred_N: np.ndarray, weight_N: np.ndarray, strength: float, *, steps: int = 200
) -> np.ndarray:
    r"""The minimum of :math:`\lVert\beta\rVert_1 + C \sum_i w_i\,\mathrm{CE}(y_i, \sigma(x_i^\top\beta))`.

    Proximal Newton steps: the quadratic model of the smooth part is minimised with its penalty by coordinate descent,
    and the step is halved until the objective falls.

    Args:
        strength: C, the inverse strength of the penalty.
    """
    beta_P = np.zeros(x_NP.shape[1])

    def objective(beta_P: np.ndarray) -> float:
        return np.abs(beta_P).sum() + strength * cross_entropy(x_NP @ beta_P, preferred_N, weight_N)

    value = objective(beta_P)
    for _ in range(steps):
        p_N = sigmoid(x_NP @ beta_P)
        slope_P = strength * x_NP.T @ (weight_N * (p_N - preferred_N))
        curve_PP = strength * (x_NP * (weight_N * p_N * (1 - p_N))[:, None]).T @ x_NP
        step_P = _l1_quadratic(curve_PP + 1e-9 * np.eye(len(beta_P)), slope_P, beta_P) - beta_P
        size = 1.0
        while (tried := objective(beta_P + size * step_P)) > value and size > 1e-6:
            size /= 2
        if value - tried < 1e-10 * (1 + abs(value)):
            break
        beta_P, value = beta_P + size * step_P, tried
    return beta_P


def _l1_quadratic(curve_PP: np.ndarray, slope_P: np.ndarray, from_P: np.ndarray) -> np.ndarray:
    """The minimum of the L1 norm and a quadratic with this slope and curvature at ``from_P``."""
    beta_P = from_P.copy()
    for _ in range(1000):
        before_P = beta_P.copy()
        for p in range(len(beta_P)):
            pull = curve_PP[p, p] * beta_P[p] - slope_P[p] - curve_PP[p] @ (beta_P - from_P)
            beta_P[p] = np.sign(pull) * max(abs(pull) - 1.0, 0.0) / curve_PP[p, p]
        if np.abs(beta_P - before_P).max() < 1e-12:
            break
    return beta_P


def at_equal_length(fitted: Coefficients, difficulty_D: np.ndarray, share_D: np.ndarray | None = None) -> float:
    """The length-controlled win rate: the mean prediction without the length term, over instructions or, with
    ``share_D``, over a distribution of difficulties.  A fraction."""
    return float(np.average(sigmoid(fitted.model + fitted.difficulty * difficulty_D), weights=share_D))


def difficulties(
    fitted: Sequence[Coefficients], win_rate_M: Sequence[float], grid_D: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How difficulties are distributed, found from published coefficients and win rates of many models.

    A length-controlled win rate depends on the difficulties through their distribution alone, so each model's is an
    equation that is linear in the shares; they are solved by non-negative least squares.

    Returns:
        A grid of difficulties and their shares, which add up to 1.
    """
    grid_D = np.linspace(-6.0, 6.0, 61) if grid_D is None else grid_D
    predicted_MD = np.stack([sigmoid(one.model + one.difficulty * grid_D) for one in fitted])
    heavy = np.sqrt(len(fitted))  # the shares' sum is one more equation, and is to hold
    share_D = non_negative(np.vstack([predicted_MD, heavy * np.ones_like(grid_D)]), np.append(win_rate_M, heavy))
    return grid_D, share_D / share_D.sum()


def non_negative(a_MD: np.ndarray, b_M: np.ndarray, steps: int = 1000) -> np.ndarray:
    """The least-squares solution of a x = b with no x below 0, by the active sets of Lawson and Hanson.

    >>> non_negative(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2.0, -1.0]))
    array([2., 0.])
    """
    x_D, active_D = np.zeros(a_MD.shape[1]), np.zeros(a_MD.shape[1], bool)
    for _ in range(steps):
        slope_D = np.where(active_D, -np.inf, a_MD.T @ (b_M - a_MD @ x_D))
        if slope_D.max() <= 1e-10:
            break
        active_D[slope_D.argmax()] = True
        while True:
            wanted_D = np.zeros_like(x_D)
            wanted_D[active_D] = np.linalg.lstsq(a_MD[:, active_D], b_M, rcond=None)[0]
            falling_D = active_D & (wanted_D <= 0)
            if not falling_D.any():
                break
            x_D += (x_D[falling_D] / (x_D[falling_D] - wanted_D[falling_D])).min() * (wanted_D - x_D)
            active_D &= x_D > 1e-14
            x_D[~active_D] = 0.0
        x_D = wanted_D
    return x_D


class Battle(NamedTuple):
    """One game, or several that ended alike."""

    first: str
    second: str
    won: float
    """By the first: 1, 0, or 0.5 for a tie."""

    weight: float = 1


def bradley_terry(battles: Sequence[Battle], baseline: str, *, steps: int = 100) -> dict[str, float]:
    """Log-odds by which each player beats ``baseline``, of greatest likelihood; a tie is half a game won by each.

    A player who has won or lost every game has no such number; it is cut at `LARGEST` in size.

    >>> found = bradley_terry([Battle("a", "b", 1.0, 3), Battle("a", "b", 0.0)], "b")
    >>> float(np.exp(found["a"]).round(6))
    3.0
    """
    names = sorted({name for battle in battles for name in battle[:2]} - {baseline})
    place = {name: i for i, name in enumerate([baseline, *names])}
    won_MM = np.zeros((len(place), len(place)))
    for one in battles:
        won_MM[place[one.first], place[one.second]] += one.won * one.weight
        won_MM[place[one.second], place[one.first]] += (1 - one.won) * one.weight
    games_MM, strength_M = won_MM + won_MM.T, np.zeros(len(place))
    for _ in range(steps):
        p_MM = sigmoid(strength_M[:, None] - strength_M[None])
        slope_M = (won_MM - games_MM * p_MM).sum(1)
        spread_MM = games_MM * p_MM * (1 - p_MM)
        curve_MM = np.diag(spread_MM.sum(1)) - spread_MM + 1e-12 * np.eye(len(place))
        step_M = (
            np.append(0.0, np.clip(np.linalg.solve(curve_MM[1:, 1:], slope_M[1:]), -2, 2)) if names else 0 * slope_M
        )
        before_M, strength_M = strength_M, np.clip(strength_M + step_M, -LARGEST, LARGEST)
        if np.abs(strength_M - before_M).max() < 1e-10:
            break
    return {name: float(strength_M[i]) for name, i in place.items()}


def bootstrap(
    statistic: Callable[[np.ndarray], float], num: int, *, seed: int = 0, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Interval of a statistic of ``num`` things drawn with replacement; it is given their numbers.  See `ROUNDS`."""
    random = np.random.default_rng(seed)
    values = [statistic(random.integers(num, size=num)) for _ in range(rounds)]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def win_rate(battles: Sequence[Battle], model: str, baseline: str) -> float:
    """The share of games that ``model`` is expected to win against ``baseline``, by `bradley_terry`."""
    return float(sigmoid(np.array(bradley_terry(battles, baseline).get(model, 0.0))))
