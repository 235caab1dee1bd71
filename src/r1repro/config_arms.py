"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1repro import config
from r1repro.config import RL, SFT, Evaluate, Machine, Policy
from r1repro.records import Refusal

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {"smoke": {}, "cpu": {}}
"""Tier -> part -> what an arm has of its own there."""

# Notebook 10: unsuccessful attempts


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessReward:
    """A process reward model (section 4.2): a policy with a scalar head, trained on steps."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws questions, noise and order."""

    questions: str = "reasoning"
    """Source of questions, of the training split."""

    num_questions: int = 16_000
    """Ours: no size is reported; section 4.2 says only that labels by a model are poor and labels by people do not
    scale."""

    outputs_per_question: int = 4
    """Ours: solutions of each question that are cut into steps."""

    continuations: int = 8
    """Ours: sampled from each cut; their share of right ends is the label.  Math-Shepherd's (2312.08935)."""

    temperature: float = 1.0
    """Ours: of solutions and continuations, as in rollouts (hyperparameters.csv, r1_zero_rl rollout_temperature)."""

    max_tokens: int = 32768
    """Ours: cap of a solution, and of a continuation."""

    batch_size: int = 32
    """Ours: solutions a step of training."""

    learning_rate: float = 6e-6
    """Ours: that of the reward models (hyperparameters.csv, helpful_rm learning_rate)."""

    epochs: int = 1
    """Ours: that of the reward models (hyperparameters.csv, helpful_rm epochs)."""

    def __post_init__(self):
        names = ("num_questions", "outputs_per_question", "continuations", "temperature", "max_tokens")
        config._positive(self, *names, "batch_size", "learning_rate", "epochs")
        config._not_negative(self, "seed")
        config._known_source(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeSearch:
    """Monte Carlo tree search over the lines of a solution, guided by a value model (section 4.2)."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws training questions and noise."""

    questions: str = "reasoning"
    """Source of the training questions."""

    num_questions: int = 16_000
    """Ours: training questions searched in one iteration; no number is reported."""

    expansions: int = 16
    """Ours: nodes of a tree that are given children."""

    width: int = 4
    """Ours: lines proposed from a node, equal ones counted together.  The cap on expansions of section 4.2, which may
    leave the search in a local optimum; its size is not reported."""

    exploration: float = 1.0
    """Ours: c of `search.puct`; values lie between 0 and 1."""

    temperature: float = config._paper("evaluation", "temperature")
    """Of proposed lines, as in evaluation (hyperparameters.csv, evaluation temperature), so that sampling and search
    draw from one distribution."""

    top_p: float = config._paper("evaluation", "top_p")
    """Of proposed lines; hyperparameters.csv, evaluation top_p."""

    max_line_tokens: int = 1024
    """Ours: cap of a line; what is cut there goes on as another line."""

    max_tokens: int = 32768
    """Ours: cap of a solution, as in evaluation; a longer one is given up."""

    keep_per_question: int = 2
    """Ours: right solutions of a training question that are kept as examples, those of highest value first."""

    def __post_init__(self):
        names = ("num_questions", "expansions", "width", "temperature", "top_p", "max_line_tokens", "max_tokens")
        config._positive(self, *names, "keep_per_question")
        config._not_negative(self, "seed", "exploration")
        config._known_source(self)
        if self.top_p > 1:
            raise Refusal(
                f"treesearch.top_p is {self.top_p}, but it is a share of probability: use a number from 0 to 1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """An evaluation that is made of another: outputs chosen among its samples, or its samples with a number more."""

    how: str
    """By what."""

    samples: int = 0
    """Ours: of each question, those that were chosen among; 0: not so many for each, or all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """Notebook 10: a process reward model, tree search, and a reward model that is optimised for too long."""

    tier: str
    seed: int
    """Ours: draws everything that the stages draw."""

    base: str = "tiny-1m"
    """Name of a tiny-world base model, or the folder of a Hugging Face model."""

    best_of: int = 8
    """Ours: samples of which the process reward model, or a vote, chooses one: as many as an evaluation has at tier
    cpu.  A pool of several times as many gives several choices a question, whose mean is less a matter of luck."""

    process: ProcessReward = field(default_factory=ProcessReward)
    process_rl: RL = field(default_factory=RL)
    pool: Evaluate = field(default_factory=Evaluate)
    search: TreeSearch = field(default_factory=TreeSearch)
    searched_sft: SFT = field(default_factory=SFT)
    value: ProcessReward = field(default_factory=ProcessReward)
    hacking: RL = field(default_factory=RL)
    evaluate: Evaluate = field(default_factory=Evaluate)
    evaluate_general: Evaluate = field(default_factory=Evaluate)
    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self):
        config._positive(self, "best_of")
        if self.pool.k < self.best_of:
            raise Refusal(
                f"attempts.best_of is {self.best_of}, but pool.k is {self.pool.k}: nobody can choose among more "
                "samples than there are, so raise pool.k"
            )


PROCESS_REWARDS = ("r1repro.rewards.reasoning:watched", "r1repro.rewards.format:format_scores")
"""Beside the process reward: the format, and the verdicts of the accuracy rule, which are looked at and not paid."""

ATTEMPTS: dict[str, dict[str, Any]] = {
    "process_rl": dict(rewards=PROCESS_REWARDS),
    "hacking": dict(
        rewards=(), questions="general", num_rollouts=106,
        temperature=config._paper("rl_all_scenarios_stage2", "rollout_temperature"),
    ),
    "evaluate_general": dict(questions="general", k=4),
}  # fmt: skip
"""Part -> how it differs from the defaults of its class, at every tier.  The reward model alone: no rule, no format."""

TIER_ARMS["smoke"] |= {
    "": dict(best_of=4),
    "process": dict(
        num_questions=24, outputs_per_question=2, continuations=2, max_tokens=160, learning_rate=1e-3, epochs=1,
        batch_size=16,
    ),
    "process_rl": config.TIER_RL["smoke"],
    "pool": config.TIER_R1["smoke"]["evaluate"] | dict(k=8),
    "search": dict(num_questions=12, expansions=6, width=3, max_line_tokens=48, max_tokens=200),
    "searched_sft": dict(learning_rate=1e-3, batch_size=8, max_tokens=512),
    "value": dict(learning_rate=3e-4, batch_size=16),
    "hacking": dict(
        questions_per_step=8, steps_per_rollout=2, num_rollouts=3, learning_rate=5e-4, max_tokens=96, warmup_steps=2,
        refresh_reference_every=4, num_checkpoints=3,
    ),
    "evaluate": config.TIER_R1["smoke"]["evaluate"],
    "evaluate_general": dict(num_questions=16, k=2, max_tokens=96),
}  # fmt: skip
TIER_ARMS["cpu"] |= {
    "process": dict(
        num_questions=384, outputs_per_question=4, continuations=6, max_tokens=320, learning_rate=1e-3, epochs=3,
        batch_size=32,
    ),
    "process_rl": config.TIER_RL["cpu"],
    "pool": config.TIER_R1["cpu"]["evaluate"] | dict(k=32),
    "search": dict(num_questions=256, expansions=12, width=4, max_line_tokens=64, max_tokens=448),
    "searched_sft": dict(learning_rate=1e-3, batch_size=16, max_tokens=512),
    "value": dict(learning_rate=3e-4, batch_size=32),
    "hacking": dict(
        questions_per_step=8, steps_per_rollout=4, num_rollouts=32, learning_rate=1.2e-4, max_tokens=160,
        warmup_steps=8, refresh_reference_every=20, num_checkpoints=4,
    ),
    "evaluate": config.TIER_R1["cpu"]["evaluate"],
    "evaluate_general": dict(num_questions=300, k=8, max_tokens=160, seed=14864973),
}  # fmt: skip


def attempts(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Attempts:
    """Settings of notebook 10 at a tier; see `config.r1_zero`.

    RL by the process reward is R1-Zero's in everything but its rewards, and evaluations are the main line's.

    >>> attempts("cpu", overrides={"search.width": 2}).search.width
    2
    """
    own = TIER_ARMS.get(tier, {})
    parts = {part: ATTEMPTS.get(part, {}) | own.get(part, {}) for part in (*ATTEMPTS, *own)}
    return config._settings(Attempts, tier, seed, parts, overrides)
