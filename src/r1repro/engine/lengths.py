"""How long outputs are: a constant chance to end at each token, up to a cap.

Ours: of all distributions with a given mean it assumes least (largest entropy), and it has the long tail that makes
rollouts wait.  s is the scale, the mean that there would be without the cap C; x = C / s.
"""

import math


def scale(mean: float, cap: float) -> float:
    """s, of which s (1 - exp(-C / s)) is the mean; infinite where all outputs reach the cap.

    >>> round(scale(100.0, 10_000.0), 6), scale(64.0, 64.0)
    (100.0, inf)
    """
    low, high = 1e-3, 1e6  # x; the mean falls with it
    if mean >= cap * (1 - low / 2):
        return math.inf
    for _ in range(100):
        x = math.sqrt(low * high)
        low, high = (x, high) if -math.expm1(-x) / x > mean / cap else (low, x)
    return cap / x


def squares(mean: float, cap: float) -> float:
    """Mean of the squared length: what attention pays for.

    >>> round(squares(100.0, 1e6)), squares(64.0, 64.0)
    (20000, 4096.0)
    """
    s = scale(mean, cap)
    return cap * cap if s == math.inf else 2 * s * s - 2 * s * math.exp(-cap / s) * (s + cap)


def longest(mean: float, cap: float, count: float) -> float:
    """Expected length of the longest of so many outputs: s (ln count + 0.577), or the cap.

    >>> round(longest(100.0, 1e6, 8192)), longest(6000.0, 32768.0, 8192)
    (959, 32768.0)
    """
    s = scale(mean, cap)
    return cap if s == math.inf else min(cap, s * (math.log(max(1.0, count)) + EULER))


EULER = 0.5772156649
"""Of the largest of many exponential numbers (Gumbel's mean)."""
