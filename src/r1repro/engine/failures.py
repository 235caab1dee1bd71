"""Failures, restarts and checkpoints over a timeline of `engine.fleet`, and how often a checkpoint pays."""

import math
from dataclasses import dataclass

import numpy as np

from r1repro.engine.fleet import Outcome
from r1repro.records import Refusal

GPU_MTBF_S = 54 * 86_400 * 16_384 / 466
"""GPU-seconds to an interruption: 466 in 54 days on 16,384 GPUs, of which 419 were not planned (Llama 3,
arXiv 2407.21783, section 3.3.4).  That is one in 5.2 years of a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazards:
    """Failures and what is done against them."""

    gpu_mtbf_s: float = GPU_MTBF_S
    """Mean time between failures of one GPU, with its share of all that can fail; times are exponential."""

    restart_s: float = 600.0
    """Seconds from a failure until the run goes on.  Ours, assumed: ten minutes, as in Daly's examples."""

    checkpoint_s: float = 60.0
    """Seconds of a checkpoint, in which nothing else is done.  Ours, assumed."""

    every: int = 1
    """Rollouts from one checkpoint to the next; unfinished outputs are part of it."""

    def __post_init__(self):
        if not self.gpu_mtbf_s > 0 or self.restart_s < 0 or self.checkpoint_s < 0 or self.every < 1:
            raise Refusal(f"{self}: give seconds above 0 between failures, and a checkpoint every 1, 2, ... rollouts")


MOST_TRIES = 1000
"""Failures without one checkpoint between them, after which a run is given up.  Ours."""


def survived(run: Outcome, hazards: Hazards, *, repeats: int = 1, seed: int = 0) -> Outcome:
    """A timeline, so many times over, with failures, restarts and checkpoints.

    A failure, of any GPU, stops the whole run and takes it back to its last checkpoint, from where the same comes
    again: so the timeline itself need not be run again, and this is as exact as if it had been.  None comes during a
    restart.

    Raises:
        Refusal: no checkpoint is reached, since failures come too often.
    """
    rng, gap_s = np.random.default_rng([seed, 2]), hazards.gpu_mtbf_s / run.gpus
    each_s = np.tile(np.diff([0.0, *run.ends_s]), repeats)
    spent = {part: seconds * repeats for part, seconds in run.spent.items()}
    now_s, ends_s, failure_s = 0.0, [], rng.exponential(gap_s)
    for first in range(0, len(each_s), hazards.every):
        some_s = each_s[first : first + hazards.every]
        safe_s, tries = float(some_s.sum()) + hazards.checkpoint_s, 0
        while failure_s < safe_s:
            now_s += failure_s + hazards.restart_s
            spent["lost"] += run.gpus * failure_s
            spent["restart"] += run.gpus * hazards.restart_s
            failure_s, tries = rng.exponential(gap_s), tries + 1
            if tries > MOST_TRIES:
                raise Refusal(
                    f"{run.gpus} GPUs fail every {gap_s:.3g} s and a checkpoint comes after {safe_s:.3g} s: the run "
                    "gets nowhere; write checkpoints more often"
                )
        failure_s -= safe_s
        ends_s += (now_s + np.cumsum(some_s)).tolist()
        now_s += safe_s
        spent["checkpoint"] += run.gpus * hazards.checkpoint_s
    return Outcome(run.gpus, now_s, spent, tuple(ends_s), run.stale)


def young_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Seconds of work between checkpoints that cost least, to first order: sqrt(2 C M) (Young, Communications of the
    ACM 17(9), 1974).

    >>> young_s(5 * 60, 24 * 3600) / 60
    120.0
    """
    return math.sqrt(2 * checkpoint_s * mtbf_s)


def daly_s(checkpoint_s: float, mtbf_s: float) -> float:
    """The same to higher order; the mean time between failures where a checkpoint takes twice as long (Daly, Future
    Generation Computer Systems 22(3), 2006, eq. 37).

    >>> round(daly_s(5 * 60, 24 * 3600) / 60)  # his Figure 3
    117
    """
    x = checkpoint_s / (2 * mtbf_s)
    if x >= 1:
        return mtbf_s
    return young_s(checkpoint_s, mtbf_s) * (1 + math.sqrt(x) / 3 + x / 9) - checkpoint_s


def rollouts_between(run: Outcome, hazards: Hazards) -> int:
    """Rollouts between checkpoints by `young_s`, one at least."""
    return max(1, round(young_s(hazards.checkpoint_s, hazards.gpu_mtbf_s / run.gpus) * len(run.ends_s) / run.wall_s))


def expected_s(work_s: float, restart_s: float, mtbf_s: float) -> float:
    """Mean seconds until work that cannot be interrupted is done, where it begins anew after each failure.

    .. math:: (M + R)(e^{w / M} - 1)

    Daly's cost function has :math:`M e^{R / M}` in the place of :math:`M + R`, since failures come during restarts
    there.

    >>> round(expected_s(1.0, 0.0, 1e9), 6)
    1.0
    """
    return (mtbf_s + restart_s) * math.expm1(work_s / mtbf_s)
