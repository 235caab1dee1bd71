"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from r1repro.measures import Measure, Models, gain, mean_of, pass1
from r1repro.models import Model

# Notebook 09: distillation beside RL

VERSUS: dict[str, Measure] = {}

# Notebook 10: unsuccessful attempts

ATTEMPTS: dict[str, Measure] = {}

# Notebook 11: the evaluation protocol

SEQUENCE, CERTAIN = "zero_on", "zero_on_greedy"
"""Neighbouring checkpoints, sampled and greedy."""


def looping(model: Model) -> np.ndarray:
    """Of each question: the share of outputs that repeat themselves (`readable.loops`)."""
    return model.more["loops"].mean(axis=1)


def by_checkpoint(model: Model) -> np.ndarray:
    """The mean correctness of each question at each of several checkpoints, in their order: (Q, checkpoints)."""
    steps = np.unique(model.more["checkpoint"])
    return np.stack([model.right_QK[:, model.more["checkpoint"][0] == step].mean(axis=1) for step in steps], axis=1)


def churn(model: Model) -> np.ndarray:
    """Of each question: the squared change of its score from a checkpoint to the next, mean over neighbours.

    What the score of a whole test set moves by is made of these: were questions to go their own ways, the variance of
    its change would be their mean divided by their number.
    """
    return (np.diff(by_checkpoint(model), axis=1) ** 2).mean(axis=1)


def churn_of_one(model: Model) -> np.ndarray:
    """What `churn` would be expected to be with a single sample at each checkpoint: the chance that it changes.

    Greedy outputs are single ones too, so this says how much of what greedy changes is owed to there being but one.
    """
    score_QC = by_checkpoint(model)
    before, after = score_QC[:, :-1], score_QC[:, 1:]
    return (before * (1 - after) + after * (1 - before)).mean(axis=1)


def within(model: Model) -> np.ndarray:
    """Of each question: how a judge's score and the length of the thinking vary together among replies that the hidden
    rule finds equally good, and each by itself; sums of products of deviations from the mean of those replies, (Q, 3).

    Both are in standard deviations of all replies: a judge's score has no unit, and seeds are averaged.
    """
    sums_Q3 = np.zeros((len(model.ids), 3))
    scaled = (model.more[key] / max(model.more[key].std(), 1e-12) for key in ("thinking", "judged"))
    columns = (*scaled, model.more["helpful"])
    for q, (length_K, score_K, good_K) in enumerate(zip(*columns, strict=True)):
        for good in np.unique(good_K):
            x, y = (values[good_K == good] - values[good_K == good].mean() for values in (length_K, score_K))
            sums_Q3[q] += (x @ y, x @ x, y @ y)
    return sums_Q3


def correlation(sums_B3: np.ndarray) -> np.ndarray:
    """From means of what `within` gives, (B, 3): the correlation, nan where one of the two never varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums_B3[:, 0] / np.sqrt(sums_B3[:, 1] * sums_B3[:, 2])


def length_bias(model: Model) -> float:
    """Correlation of a judge's score with the length of the thinking, among equally good replies to one question."""
    return float(correlation(within(model).mean(axis=0)[None])[0])


def _bias(effect: Callable[[np.ndarray], np.ndarray]) -> Measure:
    """Of the columns of the judge that reads all, then those of the one that reads the summary."""
    return Measure(
        before=("summary_judge",),
        after=("whole_judge",),
        quantity="correlation of a judge's score with the length of the thinking, at equal helpfulness",
        value=lambda models, name: length_bias(models[name]),
        columns=lambda models: [*within(models["whole_judge"]).T, *within(models["summary_judge"]).T],
        effect=effect,
    )


FEWER_ROLLOUTS = "grpo_short"
"""R1-Zero after as many rollouts as the arms of PPO had."""

MAY_DIFFER = {"num_rollouts", "num_checkpoints", "kl_coefficient", "kl_in_reward", "value_learning_rate"}
"""Settings in which an arm of PPO may differ from R1-Zero beside lambda; rollouts because R1-Zero's checkpoint after as
many is compared."""


def _unequal(*names: str, by: tuple[str, ...]) -> Callable[[Models], str]:
    """Why arms of RL must not be compared: a setting other than ``by`` differs."""

    def unfit(models: Models) -> str:
        runs = {name: dict(models[name].settings) for name in names if name in models}
        if (
            runs.get("clip_none") == {}
        ):  # the same run as the paper's range, where that never cut: `protocol.reinforced`
            del runs["clip_none"]
        keys = set().union(*runs.values()) - MAY_DIFFER - set(by)
        differ = sorted(key for key in keys if len({str(run.get(key)) for run in runs.values()}) > 1)
        rollouts = {run.get("num_rollouts") for name, run in runs.items() if name != "r1_zero"}
        differ += ["num_rollouts"] * (len(rollouts) > 1)
        return f"runs of RL that are compared differ in {', '.join(differ)}" if differ else ""

    return unfit


def _clip_cost(name: str) -> Measure:
    """What GRPO with the paper's clip range has more than with another."""
    return replace(gain(name, "clip_paper", pass1, "pass@1"), unfit=_unequal(name, "clip_paper", by=CLIP))


CLIP = ("clip_low", "clip_high")
PPO_95, PPO_100, LAMBDA = "ppo_95", "ppo_100", ("gae_lambda",)

PROTOCOL: dict[str, Measure] = {
    "greedy_repetition_gain": gain(SEQUENCE, CERTAIN, looping, "outputs that repeat themselves"),
    "greedy_churn_gain": gain(SEQUENCE, CERTAIN, churn, "squared change of a question's score between checkpoints"),
    "one_shot_change": gain("r1", "r1_shots_1", pass1, "pass@1"),
    "few_shot_change": gain("r1", "r1_shots_3", pass1, "pass@1"),
    "length_bias_whole": _bias(lambda means: correlation(means[:, :3])),
    "length_bias_whole_minus_summary": _bias(lambda means: correlation(means[:, :3]) - correlation(means[:, 3:])),
    "grpo_minus_ppo95": replace(
        gain(PPO_95, FEWER_ROLLOUTS, pass1, "pass@1"), unfit=_unequal(PPO_95, "r1_zero", by=LAMBDA)
    ),
    "ppo100_nearer_grpo": Measure(
        before=(PPO_95, FEWER_ROLLOUTS),
        after=(PPO_100,),
        quantity="pass@1",
        value=mean_of(pass1),
        columns=lambda models: [pass1(models[name]) for name in (PPO_95, FEWER_ROLLOUTS, PPO_100)],
        effect=lambda means: means[:, 2] - (means[:, 0] + means[:, 1]) / 2,
        unfit=_unequal(PPO_95, PPO_100, "r1_zero", by=LAMBDA),
    ),
    "small_clip_cost": _clip_cost("clip_small"),
    "large_clip_cost": _clip_cost("clip_none"),
}

# Notebook 14: controls of R1-Zero

CONTROLS: dict[str, Measure] = {}

MEASURES: dict[str, Measure] = VERSUS | ATTEMPTS | PROTOCOL | CONTROLS
"""What a rule in claims.csv may name, beside `measures.MEASURES` and `ledger.MEASURES`."""
