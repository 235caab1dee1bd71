"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1repro import config
from r1repro.config import RL, SFT, Collect, Evaluate, Machine, Policy
from r1repro.records import Refusal

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "versus": dict(rounds=2),
        "versus.rl": dict(questions_per_step=4, num_rollouts=2, max_tokens=128, num_checkpoints=1),
        "versus.student_rl": dict(questions_per_step=4, num_rollouts=3, max_tokens=128, num_checkpoints=3),
        "versus.distilled_rl": dict(questions_per_step=4, num_rollouts=1, max_tokens=128),
        "versus.on_the_way": dict(k=1),
    },
    "cpu": {
        "versus.student_rl": dict(num_rollouts=24, num_checkpoints=3),
        "versus.distilled_rl": dict(num_rollouts=12, num_checkpoints=1),
        "versus.on_the_way": dict(k=2),
    },
}
"""Tier -> part -> what an arm has of its own there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """Notebook 09: distillation beside RL (4.1), RL on bases of several sizes (v2 G.1), SFT in rounds beside RL."""

    tier: str
    seed: int
    """Ours: draws everything that the arms draw."""

    base: str = "tiny-1m"
    """What R1-Zero and the arms in rounds start from."""

    rounds: int = 4
    """Ours: of sampling and fine-tuning; the peer-review file of Nature names iterative SFT and no number."""

    rl: RL = field(default_factory=RL)
    """R1-Zero's, for the bases of the other students; the arms in rounds sample as many outputs as it draws."""

    student_rl: RL = field(default_factory=RL)
    """The same for the student that is also distilled, and half as long again: "large-scale RL" (section 4.1) must not
    be the arm that was given less."""

    distilled_rl: RL = field(default_factory=RL)
    """Of the distilled student: R1's first stage, as after any cold start (section 3.2 names RL and no reward)."""

    distill: SFT = field(default_factory=SFT)
    sample: Collect = field(default_factory=Collect)
    """How a round samples and filters; how many, `stages.versus.samplings` says."""

    sft: SFT = field(default_factory=SFT)
    evaluate: Evaluate = field(default_factory=Evaluate)
    """That of the models of the main line, so that arms are asked the same questions."""

    on_the_way: Evaluate = field(default_factory=Evaluate)
    """The same questions with fewer samples: of what stands in a figure and in no rule, to save minutes."""

    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self):
        if self.rounds < 1:
            raise Refusal(f"rounds is {self.rounds}, but it must be 1 or more: give one such as 4")


EVERY_RIGHT_ONE = dict(min_language_share=0.0, max_paragraph=10**6, keep_per_question=10**6)
"""The filter of the arms in rounds: the accuracy and format rules of R1-Zero's reward, and neither language nor length
of paragraphs, which that reward does not see."""


def versus(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Versus:
    """Settings of notebook 09 at a tier; see `config.r1_zero`.

    >>> versus("cpu").rl == config.r1_zero("cpu").rl, versus("cpu").distill == config.r1("cpu").distill
    (True, True)
    """
    zero, main = config.TIER_RL.get(tier, {}), config.TIER_R1.get(tier, {})
    parts = {
        "rl": zero,
        "student_rl": zero,
        "sample": EVERY_RIGHT_ONE,
        **{part: config.PIPELINE[part] | main.get(part, {}) for part in ("distill", "sft", "evaluate")},
        "on_the_way": config.PIPELINE["evaluate"] | main.get("evaluate", {}),
        "distilled_rl": config.PIPELINE["reasoning_rl"] | main.get("reasoning_rl", {}),
    }
    own = {name.partition(".")[2]: values for name, values in TIER_ARMS.get(tier, {}).items() if name[:6] == "versus"}
    parts = {part: parts.get(part, {}) | own.get(part, {}) for part in {**parts, **own}}
    return config._settings(Versus, tier, seed, parts, overrides)
