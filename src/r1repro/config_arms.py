"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1repro import config
from r1repro.config import RL, Evaluate, Machine, Policy
from r1repro.records import Refusal

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "controls": dict(flat_steps=3, cap=32, rollouts_before=1, rollouts_after=1),
        "controls.rl": dict(
            questions_per_step=2, outputs_per_question=8, num_rollouts=1, max_tokens=96, refresh_reference_every=2
        ),
    },
    "cpu": {},
}
"""Tier -> part -> what an arm has of its own there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Notebook 14: R1-Zero's run again with one thing changed, from a flat base, and with a cap raised on the way."""

    tier: str
    seed: int
    """Ours: draws everything that the arms draw."""

    base: str = "tiny-1m"
    """What R1-Zero starts from; the flat base is made of it."""

    flat_steps: int = 160
    """Ours: updates of pre-training on the flat corpus, of as many tokens as the base's own; a minute or two."""

    flat_learning_rate: float = 2e-3
    """Ours: peak of their schedule."""

    cap: int = 96
    """Ours: cap of an output before it is raised to R1-Zero's.  Sums of levels 1 to 3 worked digit by digit fit (39, 71
    and 91 tokens on average), those of levels 4 and 5 do not (103 and 176).  The paper raised 32,768 to 65,536
    (hyperparameters.csv, r1_zero_rl max_length_initial)."""

    rollouts_before: int = 8
    """Ours: rollouts of the run that is forked; the paper raised its cap at step 8,200 of 10,400 (v2 2.1)."""

    rollouts_after: int = 8
    """Ours: rollouts of each fork."""

    rl: RL = field(default_factory=RL)
    """R1-Zero's."""

    evaluate: Evaluate = field(default_factory=Evaluate)
    """That of the models of the main line, so that arms are asked the same questions."""

    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self):
        for name in ("flat_steps", "flat_learning_rate", "cap", "rollouts_before", "rollouts_after"):
            if not getattr(self, name) > 0:
                raise Refusal(f"{name} is {getattr(self, name)}, but it must be above 0: leave it out for the tier's")
        if self.cap >= self.rl.max_tokens:
            raise Refusal(f"cap is {self.cap}, and it is raised to rl.max_tokens, {self.rl.max_tokens}: lower it")


def controls(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Controls:
    """Settings of notebook 14 at a tier; see `config.r1_zero`.

    >>> controls("cpu", 3).rl == config.r1_zero("cpu", 3).rl, controls("cpu").evaluate == config.r1("cpu").evaluate
    (True, True)
    """
    own = TIER_ARMS.get(tier, {}) if isinstance(tier, str) else {}
    parts = {
        "": own.get("controls", {}),
        "rl": config.TIER_RL.get(tier, {}) | own.get("controls.rl", {}),
        "evaluate": config.PIPELINE["evaluate"] | config.TIER_R1.get(tier, {}).get("evaluate", {}),
    }
    return config._settings(Controls, tier, seed, parts, overrides)
