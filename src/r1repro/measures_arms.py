"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from r1repro.measures import SUMS, Measure, Models, gain, mean_of, pass1
from r1repro.models import NAMES, Model, Rows, above_Q

# Notebook 09: distillation beside RL


def repeats(model: Model) -> np.ndarray:
    """Of every reasoning question: the share of samples that repeat themselves."""
    return model.repeats_QK.mean(axis=1)


def _unequal_rl(models: Models) -> str:
    """RL on two bases is compared after as many rollouts with equal settings; the larger one's run goes on."""
    small, large = models["zero-140k"].settings, models["zero-580k-2"].settings
    if not small or not large:
        return "the runs of RL are not beside the evaluations"
    names = [key for key in sorted({*small, *large} - {"num_rollouts", "num_checkpoints"})
             if small.get(key) != large.get(key)]  # fmt: skip
    if 3 * small["num_rollouts"] != 2 * large["num_rollouts"]:
        names.append("num_rollouts")
    return f"RL on the smallest base and on the largest differ in {', '.join(names)}" if names else ""


def _other_outputs(first: str, second: str) -> Callable[[Models], str]:
    """Two ways to learn are compared after as many sampled outputs."""

    def unfit(models: Models) -> str:
        counts = [models[name].sampled for name in (first, second)]
        if counts[0] == counts[1] > 0:
            return ""
        return f"{NAMES[first]} sampled {counts[0]} outputs and {NAMES[second]} {counts[1]}"

    return unfit


SMALL, LARGE = ("qwen-140k_base", "zero-140k"), ("qwen-580k_base", "zero-580k-2")
"""The smallest and the largest base of one architecture that have read equally much, before and after RL."""

VERSUS: dict[str, Measure] = {
    "distilled_minus_rl": gain("zero-580k", "qwen-580k", pass1, "pass@1"),
    "rl_on_distilled_gain": gain("qwen-580k", "distilled-580k-rl", pass1, "pass@1"),
    "rl_gain_large_minus_small": Measure(
        before=(SMALL[0], LARGE[0]),
        after=(SMALL[1], LARGE[1]),
        quantity="pass@1, mean of the smallest and the largest base",
        value=mean_of(pass1),
        columns=lambda models: [pass1(models[after]) - pass1(models[before]) for before, after in (SMALL, LARGE)],
        effect=lambda means: means[:, 1] - means[:, 0],
        unfit=_unequal_rl,
    ),
    "repetition_small_minus_large": replace(
        gain(LARGE[1], SMALL[1], repeats, "outputs that repeat themselves, after RL"), unfit=_unequal_rl
    ),
    "repetition_growth_small_minus_large": Measure(
        before=(SMALL[0], LARGE[0]),
        after=(SMALL[1], LARGE[1]),
        quantity="outputs that repeat themselves, mean of the smallest and the largest base",
        value=mean_of(repeats),
        columns=lambda models: [repeats(models[after]) - repeats(models[before]) for before, after in (SMALL, LARGE)],
        effect=lambda means: means[:, 0] - means[:, 1],
        unfit=_unequal_rl,
    ),
    "grpo_minus_iterated": replace(
        gain("sft-rounds", "r1_zero", pass1, "pass@1"), unfit=_other_outputs("sft-rounds", "r1_zero")
    ),
    "iterated_minus_sft": replace(
        gain("sft-once", "sft-rounds", pass1, "pass@1"), unfit=_other_outputs("sft-once", "sft-rounds")
    ),
}

# Notebook 10: unsuccessful attempts


def _other_rl(models: Models) -> str:
    """Why RL by process rewards may not be compared with R1-Zero's: it is the same but for its rewards."""
    rule, process = (models[name].settings for name in ("r1_zero", "prm_rl"))
    allowed = {"rewards", "num_checkpoints"}
    names = [key for key in sorted({*rule, *process} - allowed) if rule.get(key) != process.get(key)]
    return f"RL by process rewards and R1-Zero's differ in {', '.join(names)}" if names else ""


def scored_higher(before: str, after: str, by: str, quantity: str) -> Measure:
    """Chance that a reply of the second model is scored higher than one of the first to the same prompt, ties one half,
    less one half.

    Args:
        by: ``proxy``, the reward model, or ``helpful``, the hidden rule.
    """

    def over_half(first: Model, second: Model) -> np.ndarray:
        return above_Q(second.more[by], first.more[by]) - 0.5

    return Measure(
        before=(before,),
        after=(after,),
        quantity=quantity,
        value=mean_of(lambda model: model.more[by].mean(axis=1)),
        columns=lambda models: [over_half(models[before], models[after])],
        effect=lambda means: means[:, 0],
    )


def less_again(start: str, once: str, twice: str) -> Measure:
    """What a second round gains of pass@1, less what the first one gained."""
    return Measure(
        before=(start, once),
        after=(once, twice),
        quantity="pass@1, mean of the models before a round, and after it",
        value=mean_of(pass1),
        columns=lambda models: [pass1(models[name]) for name in (start, once, twice)],
        effect=lambda means: means[:, 2] - 2 * means[:, 1] + means[:, 0],
    )


ATTEMPTS: dict[str, Measure] = {
    "prm_rerank_gain": gain("base_pool", "prm_best", pass1, "pass@1, one sample chosen of N"),
    "prm_minus_vote": gain("pool_vote", "prm_best", pass1, "pass@1, one sample chosen of N"),
    "prm_rl_minus_rule_rl": replace(gain("r1_zero", "prm_rl", pass1, "pass@1"), unfit=_other_rl),
    "search_gain": gain("base_pool", "tree", pass1, "pass@1, the answer of a search"),
    "search_minus_vote": gain("tree_vote", "tree", pass1, "pass@1 for as many tokens"),
    "second_round_minus_first": less_again("base", "searched_1", "searched_2"),
    "second_round_gain": gain("searched_1", "searched_2", pass1, "pass@1"),
    "hacked_proxy_gain": scored_higher(
        "dev3_replies", "hacked_replies", "proxy", "score by the reward model of helpfulness (its standard deviations)"
    ),
    "hacked_helpful_change": scored_higher("dev3_replies", "hacked_replies", "helpful", "helpfulness, the hidden rule"),
    "hacked_reasoning_change": gain("dev3", "hacked", pass1, "pass@1"),
}

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
            x, y = (apart(values[good_K == good]) for values in (length_K, score_K))
            sums_Q3[q] += (x @ y, x @ x, y @ y)
    return sums_Q3


def apart(values: np.ndarray) -> np.ndarray:
    """Deviations from the mean; equal values have none, not even that of rounding."""
    return values - values.mean() if np.ptp(values) > 0 else np.zeros_like(values)


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
    "one_shot_change": replace(gain("r1", "r1_shots_1", pass1, "pass@1"), more=True),
    "few_shot_change": replace(gain("r1", "r1_shots_3", pass1, "pass@1"), more=True),
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
    "ppo100_overshoot": Measure(
        before=(PPO_95, FEWER_ROLLOUTS),
        after=(PPO_100,),
        quantity="pass@1",
        value=mean_of(pass1),
        columns=lambda models: [pass1(models[name]) for name in (PPO_95, FEWER_ROLLOUTS, PPO_100)],
        effect=lambda means: means[:, 2] + means[:, 0] - 2 * means[:, 1],
        unfit=_unequal(PPO_95, PPO_100, "r1_zero", by=LAMBDA),
    ),
    "small_clip_cost": _clip_cost("clip_small"),
    "large_clip_cost": _clip_cost("clip_none"),
}

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
    return replace(gain(before, after, rows, quantity), effect=lambda means: means[:, 1] / means[:, 0])


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


def _but_for(setting: str, arm: str, other: str = "r1_zero") -> Callable[[Models], str]:
    """A control is another run with one thing changed: why two are not that."""

    def unfit(models: Models) -> str:
        ours, theirs = (dict(models[name].settings) if name in models else {} for name in (arm, other))
        keys = sorted({*ours, *theirs} - {setting, "num_checkpoints"})
        differ = [key for key in keys if ours.get(key) != theirs.get(key)]
        return f"{NAMES[arm]} and {NAMES[other]} differ in {', '.join(differ)}" if differ else ""

    return unfit


_RAISED = _but_for("max_tokens", "cap_raised", "cap_kept")
CONTROLS: dict[str, Measure] = {
    "blind_gain_over_half": replace(blind_gain_over_half(), more=True),
    "gain_over_format_only": replace(
        gain("zero_format", "r1_zero", blind, BLINDLY), unfit=_but_for("rewards", "zero_format"), more=True
    ),
    "gain_over_random": replace(
        gain("zero_random", "r1_zero", blind, BLINDLY), unfit=_but_for("rewards", "zero_random"), more=True
    ),
    "constant_divisor_length_ratio": replace(
        ratio("base", "zero_divisor", length, TOKENS), unfit=_but_for("average", "zero_divisor")
    ),
    "flat_base_growth_ratio": replace(
        growth_over(("flat_base", "zero_flat"), ("base", "r1_zero")), unfit=_but_for("", "zero_flat")
    ),
    "cap_raised_accuracy_ratio": replace(ratio("cap_kept", "cap_raised", SUMS, "pass@1 of sums"), unfit=_RAISED),
    "cap_raised_length_ratio": replace(ratio("cap_kept", "cap_raised", length, TOKENS), unfit=_RAISED),
}

MEASURES: dict[str, Measure] = VERSUS | ATTEMPTS | PROTOCOL | CONTROLS
"""What a rule in claims.csv may name, beside `measures.MEASURES` and `ledger.MEASURES`."""
