"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1repro import config
from r1repro.config import RL, Evaluate, Machine, Policy, RewardModel
from r1repro.records import Refusal

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "protocol.ppo": dict(questions_per_step=2, num_rollouts=4, num_checkpoints=1, value_learning_rate=1e-3),
        "protocol.clip": dict(
            questions_per_step=1, steps_per_rollout=4, num_rollouts=3, num_checkpoints=1, warmup_steps=4,
            refresh_reference_every=8,
        ),
        "protocol.on": dict(num_rollouts=2, num_checkpoints=2),
    },
    "cpu": {
        "protocol.ppo": dict(num_rollouts=8, num_checkpoints=1, value_learning_rate=1e-3),
        "protocol.clip": dict(
            questions_per_step=2, steps_per_rollout=16, num_rollouts=8, num_checkpoints=1, warmup_steps=32,
            refresh_reference_every=80,
        ),
        "protocol.on": dict(num_rollouts=4, num_checkpoints=4),
    },
}  # fmt: skip
"""Tier -> part -> what an arm has of its own there."""


# Notebook 11: the evaluation protocol, and PPO beside GRPO


@dataclass(frozen=True, kw_only=True, slots=True)
class PPO(RL):
    """PPO as a baseline (v2 A.3): a value model and generalised advantages in the place of groups."""

    kl_coefficient: float = 0.0
    """Of the loss: PPO has its KL term in the reward (v2 A.3)."""

    kl_in_reward: float = config._paper("r1_zero_rl", "kl_coefficient_beta")
    """Ours: beta of GRPO's KL term (hyperparameters.csv, r1_zero_rl kl_coefficient_beta); PPO's is not reported."""

    gae_lambda: float = 1.0
    """0.95 and 1.0 in the appendix (v2 A.3)."""

    value_learning_rate: float = 3e-5
    """Ours: of the value model, whose head is new: ten times the policy's."""

    def __post_init__(self):
        RL.__post_init__(self)
        config._positive(self, "value_learning_rate")
        config._not_negative(self, "kl_in_reward", "gae_lambda")
        if self.gae_lambda > 1:
            raise Refusal(f"ppo.gae_lambda is {self.gae_lambda}, but it is a rate of decay: use a number from 0 to 1")
        if self.kl_coefficient:
            raise Refusal("ppo.kl_coefficient is not 0, but PPO has its KL term in the reward: set ppo.kl_in_reward")


LAMBDAS = {"ppo_95": 0.95, "ppo_100": 1.0}
"""Arm -> its lambda (v2 A.3)."""

CLIPS = {"clip_small": 0.2, "clip_paper": config._paper("reasoning_rl_stage1", "clip_epsilon"), "clip_none": 1e9}
"""Arm -> its epsilon, on both sides.  0.2 is the value in common use; the last never cuts anything.  The paper's is 10,
and it reports no other (v2 3.2.1)."""

SHOTS = (1, 3)
"""Worked examples before a question.  Ours: the paper gives no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """Notebook 11: models of the main line asked otherwise, and GRPO's choices beside others (v2 A.3, v2 3.2.1)."""

    tier: str
    seed: int
    """Ours: draws everything that the arms draw."""

    base: str = "tiny-1m"
    """What R1-Zero and the arms of RL start from."""

    ppo: PPO = field(default_factory=PPO)
    """With R1-Zero's settings, for fewer rollouts; `LAMBDAS` are its arms, and R1-Zero's own checkpoint after as many
    stands beside them."""

    clip: RL = field(default_factory=RL)
    """The same questions cut into the paper's 16 mini-batches a rollout, in the place of the tier's fewer: only where a
    policy moves far within a rollout does a clip matter.  `CLIPS` are its arms."""

    on: RL = field(default_factory=RL)
    """R1-Zero trained on after its end, with a checkpoint after each rollout: neighbours, for the spread of scores."""

    whole: RewardModel = field(default_factory=RewardModel)
    """The helpfulness model of notebook 07, which reads the whole output."""

    evaluate: Evaluate = field(default_factory=Evaluate)
    """That of the main line's models."""

    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self):
        zero = config.r1_zero(self.tier, self.seed).rl
        marks = [zero.num_rollouts * i / zero.num_checkpoints for i in range(1, zero.num_checkpoints + 1)]
        if self.ppo.num_rollouts not in marks:
            raise Refusal(
                f"ppo.num_rollouts is {self.ppo.num_rollouts}, where R1-Zero keeps no checkpoint to compare with: "
                f"choose one of {', '.join(f'{mark:g}' for mark in marks)}"
            )


def protocol(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Settings of notebook 11 at a tier; see `config.r1_zero`.

    >>> arms, zero = protocol("cpu"), config.r1_zero("cpu").rl
    >>> arms.ppo.learning_rate == zero.learning_rate, arms.clip.questions_per_rollout == zero.questions_per_rollout
    (True, True)
    """
    zero, main = config.TIER_RL.get(tier, {}), config.TIER_R1.get(tier, {})
    parts = {
        "ppo": zero,
        "clip": zero,
        "on": zero | {"warmup_steps": 0},
        "whole": config.PIPELINE["helpful"] | main.get("helpful", {}) | {"kind": "whole"},
        "evaluate": config.PIPELINE["evaluate"] | main.get("evaluate", {}),
    }
    own = {name.partition(".")[2]: set_ for name, set_ in TIER_ARMS.get(tier, {}).items() if name[:8] == "protocol"}
    parts = {part: values | own.get(part, {}) for part, values in parts.items()}
    return config._settings(Protocol, tier, seed, parts, overrides)
