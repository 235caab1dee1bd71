"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

import numpy as np

from r1repro.measures import SUMS, Measure, Models, gain, mean_of
from r1repro.models import Model, Rows

# Notebook 09: distillation beside RL

VERSUS: dict[str, Measure] = {}

# Notebook 10: unsuccessful attempts

ATTEMPTS: dict[str, Measure] = {}

# Notebook 11: the evaluation protocol

PROTOCOL: dict[str, Measure] = {}

# Notebook 14: controls of R1-Zero

BLINDLY, TOKENS = "pass@1 of sums where the last number counts, in any form", "tokens of an output to sums"


def blind(model: Model) -> np.ndarray:
    """pass@1 of each sum where the last number of an output is taken for its answer."""
    return model.blind_QK[model.family_Q == "chain_sum"].mean(axis=1)


def length(model: Model) -> np.ndarray:
    """Mean tokens of the outputs to each sum."""
    return model.length_QK[model.family_Q == "chain_sum"].mean(axis=1)


def blind_gain_over_half() -> Measure:
    """R1-Zero's gain of blind pass@1, less half of its gain as graded: below 0 where most of the gain is form."""
    pair = ("base", "r1_zero")

    def columns(models: Models) -> list[np.ndarray]:
        return [rows(models[name]) for rows in (blind, SUMS) for name in pair]

    return Measure(
        before=pair[:1],
        after=pair[1:],
        quantity=BLINDLY,
        value=mean_of(blind),
        columns=columns,
        effect=lambda means: (means[:, 1] - means[:, 0]) - 0.5 * (means[:, 3] - means[:, 2]),
    )


def ratio(before: str, after: str, rows: Rows, quantity: str) -> Measure:
    """What the second model has over what the first has, as a quotient of means."""
    return Measure(
        before=(before,),
        after=(after,),
        quantity=quantity,
        value=mean_of(rows),
        columns=lambda models: [rows(models[before]), rows(models[after])],
        effect=lambda means: means[:, 1] / means[:, 0],
    )


def growth_over(other: tuple[str, str], ours: tuple[str, str]) -> Measure:
    """How many times RL lengthens the outputs to sums of one base, over how many times those of another.

    Args:
        other, ours: each a base and the model that RL made of it.
    """
    return Measure(
        before=other,
        after=ours,
        quantity=TOKENS,
        value=mean_of(length),
        columns=lambda models: [length(models[name]) for name in (*other, *ours)],
        effect=lambda means: (means[:, 3] / means[:, 2]) / (means[:, 1] / means[:, 0]),
    )


CONTROLS: dict[str, Measure] = {
    "blind_gain_over_half": blind_gain_over_half(),
    "gain_over_format_only": gain("zero_format", "r1_zero", blind, BLINDLY),
    "gain_over_random": gain("zero_random", "r1_zero", blind, BLINDLY),
    "constant_divisor_length_ratio": ratio("base", "zero_divisor", length, TOKENS),
    "flat_base_growth_ratio": growth_over(("flat_base", "zero_flat"), ("base", "r1_zero")),
    "cap_raised_accuracy_ratio": ratio("cap_kept", "cap_raised", SUMS, "pass@1 of sums"),
    "cap_raised_length_ratio": ratio("cap_kept", "cap_raised", length, TOKENS),
}

MEASURES: dict[str, Measure] = VERSUS | ATTEMPTS | PROTOCOL | CONTROLS
"""What a rule in claims.csv may name, beside `measures.MEASURES` and `ledger.MEASURES`."""
