"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from r1repro.measures import Measure, Models, gain, mean_of, pass1
from r1repro.models import NAMES, Model

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


def proxy_gain(before: str, after: str) -> Measure:
    """Chance that the reward model scores a reply of the second model higher than one of the first to the same prompt,
    ties one half, less one half."""

    def over_half(first: Model, second: Model) -> np.ndarray:
        ours_Q1K, theirs_QK1 = second.more["proxy"][:, None, :], first.more["proxy"][:, :, None]
        return ((ours_Q1K > theirs_QK1) + (ours_Q1K == theirs_QK1) / 2).mean((1, 2)) - 0.5

    return Measure(
        before=(before,),
        after=(after,),
        quantity="score by the reward model of helpfulness (its standard deviations)",
        value=mean_of(lambda model: model.more["proxy"].mean(axis=1)),
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
    "hacked_proxy_gain": proxy_gain("dev3_replies", "hacked_replies"),
    "hacked_reasoning_change": gain("dev3", "hacked", pass1, "pass@1"),
}

# Notebook 11: the evaluation protocol

PROTOCOL: dict[str, Measure] = {}

# Notebook 14: controls of R1-Zero

CONTROLS: dict[str, Measure] = {}

MEASURES: dict[str, Measure] = VERSUS | ATTEMPTS | PROTOCOL | CONTROLS
"""What a rule in claims.csv may name, beside `measures.MEASURES` and `ledger.MEASURES`."""
