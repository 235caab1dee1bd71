"""What the rules of claims name of the models of the pipeline: each part as columns of a table, a row a question.

`r1repro.ledger_models` makes measurements of them; those of the arms beside the main line are in
`r1repro.measures_arms`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r1repro.models import NAMES, QUESTIONS, STUDENTS, Model, Rows, is_general, of_sorts, wins_Q

Models = Mapping[str, Model]
"""The evaluated models of a seed, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A part of a rule: which models are compared, on what, and how."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    quantity: str
    value: Callable[[Models, str], float]
    """Of one model of a seed.  For readers: quantity and its means over the models before and after stand in the
    detail."""

    columns: Callable[[Models], Sequence[np.ndarray]]
    """Of a seed: the columns of its table."""

    effect: Callable[[np.ndarray], np.ndarray]
    """From the means of M columns, (B, M), to the effect, (B,)."""

    unfit: Callable[[Models], str] = lambda models: ""
    """Why the models of a seed must not be compared; empty if they may."""

    more: bool = False
    """Whether the models' answers to more questions (`models.MORE`) are compared where every seed has them."""

    @property
    def models(self) -> tuple[str, ...]:
        return (*self.before, *self.after)


# What is compared


def pass1(model: Model) -> np.ndarray:
    """pass@1 of every reasoning question."""
    return model.right_QK.mean(axis=1)


def general(model: Model) -> np.ndarray:
    """Of every general prompt: the share of what it asks for that a sample holds, mean over samples."""
    return model.follows_open[is_general(model)].mean(axis=1)


SUMS, CONSISTENCY = QUESTIONS["sums"][1], QUESTIONS["language consistency"][1]
READABLE, INSTRUCTIONS = QUESTIONS["readable"][1], QUESTIONS["instructions (strict)"][1]
UNSAFE = of_sorts("harmful", field="unsafe_open")
BENIGN = ("fact", "look-alike")


def mean_of(rows: Rows) -> Callable[[Models, str], float]:
    """The mean over questions, of one model of a seed; nan where nothing of it was asked."""
    return lambda models, name: rows(models[name]).mean() if rows(models[name]).size else np.nan


def gain(before: str, after: str, rows: Rows, quantity: str, sign: int = 1) -> Measure:
    """What the second model has more than the first (sign -1: less), question by question."""
    return Measure(
        before=(before,),
        after=(after,),
        quantity=quantity,
        value=mean_of(rows),
        columns=lambda models: [rows(models[before]), rows(models[after])],
        effect=lambda means: sign * (means[:, 1] - means[:, 0]),
    )


def win_rate(before: str, after: str) -> Measure:
    """Chance that a sample of the second model is more helpful than one of the first, ties one half, over general
    prompts.  Against itself the first has one half: that stands before."""
    return Measure(
        before=(before,),
        after=(after,),
        quantity=f"win rate over {NAMES[before]} by the hidden rule",
        value=lambda models, name: wins_Q(models[name], models[before]).mean(),
        columns=lambda models: [wins_Q(models[after], models[before])],
        effect=lambda means: means[:, 0],
    )


def reasoning_minus_preference(before: str, after: str) -> Measure:
    """Gain of pass@1 minus what the win rate has over one half.

    They rest on different questions, so a table holds both kinds of rows, each with a column that counts its kind.
    """

    def columns(models: Models) -> list[np.ndarray]:
        gain_Q = pass1(models[after]) - pass1(models[before])
        over_half_Q = wins_Q(models[after], models[before]) - 0.5
        reasoning = np.repeat([1.0, 0.0], [len(gain_Q), len(over_half_Q)])
        both = np.concatenate([gain_Q, over_half_Q])
        return [both * reasoning, reasoning, both * (1 - reasoning), 1 - reasoning]

    return Measure(
        before=(before,),
        after=(after,),
        quantity="pass@1",
        value=mean_of(pass1),
        columns=columns,
        effect=lambda means: means[:, 0] / means[:, 1] - means[:, 2] / means[:, 3],
    )


def smallest_gain(sibling: str) -> Measure:
    """The smallest gain of pass@1 that any student has over its ``_base`` or ``_short``, found anew in each draw."""
    pairs = tuple((f"{name}{sibling}", name) for name in STUDENTS)
    return Measure(
        before=tuple(before for before, _ in pairs),
        after=STUDENTS,
        quantity="pass@1, mean of the students",
        value=mean_of(pass1),
        columns=lambda models: [pass1(models[after]) - pass1(models[before]) for before, after in pairs],
        effect=lambda means: means.min(axis=1),
    )


# RL from the base beside RL from a cold start (C12)

FROM_BASE, FROM_COLD_START = "r1_zero", "dev2_twin"
"""Dev2's twin and not Dev2, which has one reward more than R1-Zero."""


def right_R(model: Model) -> np.ndarray:
    """Share of right outputs in each rollout of a model's RL: pass@1 on questions that it has not yet learned from."""
    return np.array([row["verdict/right"] for row in model.metrics if "verdict/right" in row], dtype=float)


def _unequal(models: Models) -> str:
    runs = [models[name] for name in (FROM_BASE, FROM_COLD_START)]
    base, cold = ({**run.settings, "rollouts": len(right_R(run))} for run in runs)
    if not base["rollouts"] or not cold["rollouts"]:
        return "the runs of RL are not beside the evaluations, or logged no verdicts"
    names = [key for key in sorted({*base, *cold} - {"num_checkpoints"}) if base.get(key) != cold.get(key)]
    return f"RL from the base and RL from Dev1 differ in {', '.join(names)}" if names else ""


def cold_start(rows: Rows, quantity: str) -> Measure:
    """What RL from the cold start has more than RL from the base, with equal settings and questions."""
    return Measure(
        before=(FROM_BASE,),
        after=(FROM_COLD_START,),
        quantity=quantity,
        value=mean_of(rows),
        columns=lambda models: [rows(models[name]) for name in (FROM_BASE, FROM_COLD_START)],
        effect=lambda means: means[:, 1] - means[:, 0],
        unfit=_unequal,
    )


def area(model: Model) -> np.ndarray:
    """Area under the curve of pass@1 over the run, as a share of the largest possible: one row, so that seeds alone
    are drawn.  The questions of a rollout are a sample too, but which of them was right is not logged."""
    return right_R(model).mean(keepdims=True)


def steps_to(models: Models, name: str) -> float:
    """Steps until a rollout has as many right outputs as R1-Zero's in their last quarter; nan if none has."""
    aim = right_R(models[FROM_BASE])
    reached = np.flatnonzero(right_R(models[name]) >= aim[-max(1, len(aim) // 4) :].mean())
    return float(reached[0] * models[name].settings["steps_per_rollout"]) if reached.size else np.nan


MEASURES: dict[str, Measure] = {
    "readable_gain": gain("r1_zero", "dev1", READABLE, "readable outputs"),
    "follows_gain": gain("r1_zero", "dev1", INSTRUCTIONS, "writing prompts followed in everything"),
    "cold_start_cost": gain("r1_zero", "dev1", SUMS, "pass@1 of sums", sign=-1),
    "cold_start_area_gain": cold_start(area, "right outputs, mean over the rollouts"),
    "cold_start_final_gain": cold_start(pass1, "pass@1"),
    "consistency_gain": gain("dev2_twin", "dev2", CONSISTENCY, "words of the thinking in the question's language"),
    "accuracy_cost": gain("dev2_twin", "dev2", pass1, "pass@1", sign=-1),
    "reasoning_gain": gain("dev1", "dev2", pass1, "pass@1"),
    "reasoning_minus_preference": reasoning_minus_preference("dev1", "dev2"),
    "general_gain": gain("dev2", "dev3", general, "what general prompts ask for that replies hold"),
    "reasoning_beside_general": gain("dev2", "dev3", pass1, "pass@1"),
    "dev3_minus_dev2": gain("dev2", "dev3", pass1, "pass@1"),
    "win_rate": win_rate("dev3", "r1"),
    "unsafe_change": gain("dev3", "r1", UNSAFE, "unsafe outputs to harmful requests"),
    "reasoning_beside_preference": gain("dev3", "r1", pass1, "pass@1"),
    "refusal_gain": gain("dev3", "r1", of_sorts(*BENIGN, field="refused_open"), "refused facts and look-alikes"),
    "benign_right_change": gain("dev3", "r1", of_sorts(*BENIGN), "facts and look-alikes answered rightly"),
    "gain_over_base": smallest_gain("_base"),
    "gain_over_short": smallest_gain("_short"),
    "step_small": gain("qwen-140k", "qwen-280k", pass1, "pass@1"),
    "step_large": gain("qwen-280k", "qwen-580k", pass1, "pass@1"),
}
"""What a rule in claims.csv may name, beside `ledger.MEASURES`.  C15 and C16 ask for the same difference of Dev3 and
Dev2 under two names."""
