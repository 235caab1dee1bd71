"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

from dataclasses import replace

import numpy as np

from r1repro.measures import Measure, Models, gain, mean_of, pass1
from r1repro.models import Model

# Notebook 09: distillation beside RL

VERSUS: dict[str, Measure] = {}

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
