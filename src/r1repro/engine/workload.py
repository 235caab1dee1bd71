"""What a fleet (`engine.fleet`) is given: how long outputs are, and what the parts of a run take.

Seconds are measured by a gauge (`through`, see `bench.fleet`), or reckoned from the counts of `engine.plan` and rates
of a device (`costs_of`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from r1repro.config import Policy
from r1repro.engine import plan
from r1repro.engine.shapes import Shape
from r1repro.records import Refusal

ASSUMED = plan.Rates(flop=1 / (0.4 * 989e12), traffic=1 / (0.6 * 3.35e12), calls=2e-6)
"""Of one GPU.  Peaks: NVIDIA's data sheet of the H100 SXM, 989 TFLOPS of dense bfloat16 and 3.35 TB/s.  Share of the
operations: 38 to 43 % in training (arXiv 2407.21783, Table 4).  Share of the traffic and seconds of a call: ours,
assumed and not measured."""


class Lengths(Protocol):
    """How long outputs are: tokens of ``count`` of them, at least 1 each."""

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths whose logarithms are normal, cut at a cap: a long tail.

    >>> fitted = LogNormal.fitted([100, 400])
    >>> round(math.exp(fitted.log_mean)), round(math.exp(fitted.log_sd), 6), round(fitted.mean)
    (200, 2.0, 254)
    """

    log_mean: float
    log_sd: float
    cap: int = 2**31

    @classmethod
    def fitted(cls, lengths: Sequence[int], cap: int = 2**31) -> "LogNormal":
        """With the mean and standard deviation of the logarithms of some lengths, none of which was cut."""
        logs = np.log(lengths)
        return cls(float(logs.mean()), float(logs.std()), cap)

    @classmethod
    def of_mean(cls, mean: float, log_sd: float, cap: int = 2**31) -> "LogNormal":
        """With this mean before the cut."""
        return cls(math.log(mean) - log_sd**2 / 2, log_sd, cap)

    @property
    def mean(self) -> float:
        """Before the cut."""
        return math.exp(self.log_mean + self.log_sd**2 / 2)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        drawn = np.exp(rng.normal(self.log_mean, self.log_sd, count))
        return np.clip(np.rint(drawn), 1, self.cap).astype(int)


@dataclass(frozen=True, slots=True)
class Measured:
    """Lengths drawn from measured ones, each as likely."""

    lengths: tuple[int, ...]

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.choice(self.lengths, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the parts of a run take."""

    token_s: Sequence[float]
    """Seconds of a worker for one more token of each of n rows, at place n.  As many rows fit as there are places."""

    prompt_s: float = 0.0
    """Seconds of a worker for the prompt of one output; none of its rows advances meanwhile."""

    reward_s: float = 0.0
    """Seconds from the last output to its reward: the others are scored while that one is sampled."""

    train_s: float = 0.0
    """GPU-seconds of the update, a token of an output."""

    step_s: float = 0.0
    """Seconds of a step that no GPU shortens: collectives, the optimiser's calls."""

    sync_s: float = 0.0
    """Seconds until the workers have new weights; no row advances meanwhile."""

    def __post_init__(self):
        if len(self.token_s) < 2 or not all(s > 0 for s in self.token_s[1:]):
            raise Refusal(
                f"token_s is {list(self.token_s)[:4]}: give seconds above 0 for 1, 2, ... rows, after place 0"
            )

    @property
    def rows(self) -> int:
        """Rows that fit side by side."""
        return len(self.token_s) - 1

    @property
    def full_s(self) -> float:
        """Seconds of a worker for a token of one output, at best."""
        return min(seconds / n for n, seconds in enumerate(self.token_s) if n)


def through(points: Mapping[int, float]) -> list[float]:
    """``token_s`` through measured seconds, straight between them.

    >>> through({1: 1.0, 3: 2.0})
    [0.0, 1.0, 1.5, 2.0]
    """
    rows = sorted(points)
    return [0.0, *np.interp(range(1, rows[-1] + 1), rows, [points[n] for n in rows]).tolist()]


def costs_of(
    shape: Shape,
    rates: plan.Rates,
    *,
    gpus_per_worker: int,
    rows: int,
    mean_tokens: float,
    sync_s: float = 10.0,
    step_s: float = 1.0,
    reward_s: float = 5.0,
) -> Costs:
    """Costs of a model in bfloat16, all of whose weights are trained, from the counts of `engine.plan`.

    Sampling: products and traffic are shared by a worker's GPUs, calls are not.  Update: three passes and one more for
    recomputed layers, and the reference policy's.

    Args:
        rates: of one GPU.
        sync_s, step_s, reward_s: ours, assumed.
    """
    trained = Policy(dtype="bfloat16")
    halved = plan.Cost(traffic=(plan.BYTES["bfloat16"] - plan.SINGLE) * shape.parameters)  # weights as they are served

    def token_s(n: int) -> float:
        work = plan.Work(tokens=0, outputs=0, prompts=0, prompt_tokens=0, rows=n, mean_tokens=mean_tokens)
        cost = plan.sampling_cost(shape, trained, work) * (1 / mean_tokens) + halved
        shared = plan.Cost(cost.flop, cost.traffic, 0.0) * (1 / gpus_per_worker)
        return rates.seconds(shared + plan.Cost(calls=cost.calls))

    first, second = token_s(0), token_s(1)
    tokens, outputs = int(512 * mean_tokens), 512  # of a step, so that what is read once a step counts once
    work = plan.Work(tokens=tokens, outputs=outputs, prompts=0, prompt_tokens=0, recompute=True)
    pairs = tokens * mean_tokens / 2
    train = plan.update_cost(shape, trained, work) + plan.forward(shape, trained, tokens, pairs, tokens)
    return Costs(
        token_s=[first + n * (second - first) for n in range(rows + 1)],
        train_s=rates.seconds(train) / tokens,
        reward_s=reward_s,
        step_s=step_s,
        sync_s=sync_s,
    )


def rows_that_fit(shape: Shape, memory_bytes: float, gpus_per_worker: int, mean_tokens: float, share: float) -> int:
    """Rows whose keys and values lie beside the weights in that share of a worker's memory, all in bfloat16; those of
    a row at the mean of their lengths, as pages are handed out one by one (vLLM, arXiv 2309.06180)."""
    held = Policy(weights="lora", dtype="bfloat16")
    weights = plan.static_bytes(shape, held, plan.NOTHING)["weights"]
    free = share * memory_bytes * gpus_per_worker - weights
    if free <= 0:
        raise Refusal(
            f"the weights of {shape.name} take {weights / 1e9:.0f} GB and {gpus_per_worker} GPUs have "
            f"{share * memory_bytes * gpus_per_worker / 1e9:.0f} GB for them: take more GPUs a worker"
        )
    return int(free / plan.cache_bytes(shape, held, mean_tokens))
