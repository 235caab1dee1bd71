"""GPU-hours of the paper's own runs, predicted from its settings, beside those that it printed (v2 Table 7).

A rollout ends when its longest output does, so its time is that output's length at the speed of one output, or all
tokens at the throughput of all GPUs, whichever is longer.  After it the reference reads the outputs once, and each is
trained on once.  Nothing here was fitted to the published hours; where the paper is silent a range stands for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from r1repro import paper
from r1repro.config import TIER_GPUS
from r1repro.engine import devices, forecast, lengths, mixture
from r1repro.engine.mixture import V3

GPUS, PER_NODE, GPU = TIER_GPUS["paper"], 8, "h800"
"""hyperparameters.csv, r1_zero_rl compute: 64 x 8 H800."""

FLOP_SHARE = (0.25, 0.3894)
"""Of the peak in bfloat16, at worst and at best: ours, assumed; what the same makers published of pre-training the same
model (arXiv 2505.09343, Table 4)."""

SPEED = (mixture.SLOWEST, mixture.FASTEST)
"""Tokens a second of one output, at worst and at best."""

STAGE_1_STEPS = (5000, 1700)
"""Of R1's first RL stage, at worst and at best.  The paper does not say: the one run of that stage that it plots has
5,000 (hyperparameters.csv, lc_ablation steps_plotted), the second stage 1,700."""

SAMPLED_PER_KEPT = (16, 4)
"""Outputs sampled for one that is kept, at worst and at best.  Ours: assumed; the paper says "several" (v2 B.3.2)."""

EPOCHS = (3, 2)
"""Of SFT, at worst and at best: v2 says 2 to 3, v1 says 2 (hyperparameters.csv, sft_800k epochs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of Table 7: predicted and published GPU-hours."""

    name: str
    item: str
    """As Table 7 calls it."""

    worst: float
    best: float
    published: float

    @property
    def verdict(self) -> str:
        """
        >>> Row(name="", item="", worst=10.0, best=4.0, published=20.0).verdict
        'MISSED: 2.0 times the worst'
        """
        if self.published > self.worst:
            return f"MISSED: {self.published / self.worst:.1f} times the worst"
        if self.published < self.best:
            return f"MISSED: {self.published / self.best:.2f} of the best"
        return "inside"


def rollout_hours(mean: float, cap: float, end: int) -> dict[str, float]:
    """GPU-hours of a rollout with its updates, at worst (``end`` 0) or at best (1): part -> hours."""
    outputs = paper.constant("r1_zero_rl", "outputs_per_rollout")
    waits = lengths.longest(mean, cap, outputs) / SPEED[end]
    throughput = outputs * mean / (mixture.DECODE * GPUS)
    pairs = outputs * (lengths.squares(mean, cap) / 2 + mean * forecast.question_tokens())
    read = V3.forward_flop(outputs * mean, pairs) / (devices.device(GPU).flop * FLOP_SHARE[end]) / 3600
    return {"rollout": max(waits, throughput) * GPUS / 3600, "reference": read, "update": 3 * read}


def _steps(parts: Iterator[tuple[float, float, float]] | list, end: int) -> dict[str, float]:
    """Hours of some steps, given as (steps, mean length, cap)."""
    a_rollout, found = paper.constant("r1_zero_rl", "minibatches_per_rollout"), {}
    for steps, mean, cap in parts:
        for name, hours in rollout_hours(mean, cap, end).items():
            found[name] = found.get(name, 0.0) + hours * steps / a_rollout
    return found


def r1_zero(end: int) -> dict[str, float]:
    """R1-Zero along its published curve of lengths: part -> GPU-hours."""
    return _steps(forecast.curve(), end)


def reasoning() -> tuple[float, float]:
    """How many reasoning examples were kept, and their mean tokens (v2 Table 5): what the model of R1's first RL stage
    writes."""
    rows = [row for row in paper.table("v2_table5_sft_data") if row["domain"] in ("Math", "Code", "STEM", "Logic")]
    count = sum(float(row["num_samples"]) for row in rows)
    return count, sum(float(row["num_samples"]) * float(row["avg_tokens"]) for row in rows) / count


def sft_data(end: int) -> dict[str, float]:
    """Sampling the reasoning examples, with those that were thrown away."""
    count, mean = reasoning()
    return {"sampling": count * SAMPLED_PER_KEPT[end] * mean / mixture.DECODE / 3600}


def r1(end: int) -> dict[str, float]:
    """Both RL stages and the SFT on 800,000 examples; cold start and reward models, which are smaller, left out."""
    steps = STAGE_1_STEPS[end] + paper.constant("rl_all_scenarios_stage2", "total_steps")
    found = _steps([(steps, reasoning()[1], paper.constant("reasoning_rl_stage1", "max_length"))], end)
    (total,) = (row for row in paper.table("v2_table5_sft_data") if row["domain"] == "Total")
    tokens = float(total["num_samples"]) * float(total["avg_tokens"]) * EPOCHS[end]
    flop = 3 * V3.forward_flop(tokens, tokens * float(total["avg_tokens"]))
    return found | {"SFT": flop / (devices.device(GPU).flop * FLOP_SHARE[end]) / 3600}


def rows() -> list[Row]:
    """The lines of Table 7.

    >>> [row.name for row in rows()]
    ['R1-Zero', 'SFT data', 'R1', 'in all']
    """
    published = {row["item"]: float(row["h800_gpu_hours"]) for row in paper.table("v2_table7_cost")}
    parts = (
        ("R1-Zero", "DeepSeek-R1-Zero", r1_zero), ("SFT data", "SFT data creation", sft_data),
        ("R1", "DeepSeek-R1", r1),
    )  # fmt: skip
    found = [
        Row(name=name, item=item, worst=sum(of(0).values()), best=sum(of(1).values()), published=published[item])
        for name, item, of in parts
    ]
    ends = {end: sum(getattr(row, end) for row in found) for end in ("worst", "best")}
    return [*found, Row(name="in all", item="Total", published=published["Total"], **ends)]


def lines(price: float) -> Iterator[str]:
    """The plan of the paper's runs, line by line."""
    device = devices.device(GPU)
    yield (
        f"the paper's own runs: DeepSeek-V3, {V3.parameters / 1e9:.0f} billion weights of which {V3.active / 1e9:.1f} "
        f"are active, on {GPUS} {device.title} in nodes of {PER_NODE}"
    )
    yield ""
    cap, rollout = (paper.constant("r1_zero_rl", name) for name in ("max_length_after_8200", "outputs_per_rollout"))
    memory = {
        f"training, {mixture.TRAINED} bytes a weight": mixture.TRAINED * V3.parameters / GPUS,
        f"sampling and reference, {mixture.SERVED} byte a weight each": 2 * mixture.SERVED * V3.parameters / GPUS,
        f"keys and values of {rollout / GPUS:.0f} outputs of {cap:,.0f} tokens": rollout / GPUS * V3.cache * cap,
        "there (each phase leaves the GPU before the next, v2 B.1)": device.memory,
    }
    yield "memory of a GPU where all share it, GB"
    for name, size in memory.items():
        yield f"  {name:58}{size / 1e9:>8.1f}"
    yield ""
    yield f"{'GPU-hours':14}{'at best':>12}{'at worst':>12}{'published':>12}   published is"
    for row in rows():
        yield f"  {row.name:12}{row.best:>12,.0f}{row.worst:>12,.0f}{row.published:>12,.0f}   {row.verdict}"
    whole = rows()[-1]
    yield f"cost of all at {price:g} a GPU-hour: {whole.best * price:,.0f} to {whole.worst * price:,.0f}"
    yield f"  worst is {whole.worst / whole.best:.1f} times best: inside means that nothing large is missing, no more"
    yield ""
    shares = [found["rollout"] / sum(found.values()) for found in map(r1_zero, (1, 0))]
    yield f"limit: R1-Zero waits {shares[0]:.0%} to {shares[1]:.0%} of its time for the longest outputs of a rollout"
    yield f"  its outputs have {forecast.mean_length():,.0f} tokens on average; of {rollout:,.0f} the longest reaches"
    yield "  the cap, if each token has the same chance to be the last (ours: assumed)"
    yield "change: let outputs that are not whole go on in the next rollout, or update while others are sampled"
    yield ""
    yield "between best and worst lie, none of it measured by us:"
    yield f"  {SPEED[1]:.0f} to {SPEED[0]:.0f} tokens a second of an output: their limit by network, their own service"
    yield f"    {mixture.SOURCES}"
    yield f"  {mixture.DECODE:,.0f} tokens a second and GPU at most: the same service"
    published = devices.published(GPU, "flop_share").source
    yield f"  {FLOP_SHARE[1]:g} to {FLOP_SHARE[0]:g} of {device.flop / 1e12:g} TFLOP/s: {published}; ours: assumed"
    few, many = SAMPLED_PER_KEPT[::-1]
    yield f"  {few} to {many} outputs sampled for one that is kept: ours, assumed (the paper: several)"
    steps = f"{STAGE_1_STEPS[1]:,} to {STAGE_1_STEPS[0]:,} steps of R1's first RL stage, which are not reported"
    yield f"  {steps}; {EPOCHS[1]} to {EPOCHS[0]} epochs of SFT"
