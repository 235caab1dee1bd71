"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1repro import config, paper
from r1repro.config import RL, SFT, Collect, Evaluate, Machine, Policy, RewardModel
from r1repro.records import Refusal

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "versus": dict(rounds=2),
        "versus.rl": dict(questions_per_step=4, num_rollouts=2, max_tokens=128, num_checkpoints=1),
        "versus.student_rl": dict(questions_per_step=4, num_rollouts=3, max_tokens=128, num_checkpoints=3),
        "versus.distilled_rl": dict(questions_per_step=4, num_rollouts=1, max_tokens=128),
        "protocol.ppo": dict(questions_per_step=2, num_rollouts=4, num_checkpoints=1, value_learning_rate=1e-3),
        "protocol.clip": dict(
            questions_per_step=1,
            steps_per_rollout=4,
            num_rollouts=3,
            num_checkpoints=1,
            warmup_steps=4,
            refresh_reference_every=8,
        ),
        "protocol.on": dict(num_rollouts=2, num_checkpoints=2),
        "protocol.sums": dict(questions="chain_sum", num_questions=40),
        "protocol.more": dict(num_questions=40),
        "controls": dict(flat_steps=3, cap=32, rollouts_before=1, rollouts_after=1),
        "controls.rl": dict(
            questions_per_step=2, outputs_per_question=8, num_rollouts=1, max_tokens=96, refresh_reference_every=2
        ),
        "versus.on_the_way": dict(k=1),
    },
    "cpu": {
        "versus.student_rl": dict(num_rollouts=24, num_checkpoints=3),
        "versus.distilled_rl": dict(num_rollouts=12, num_checkpoints=1),
        "versus.on_the_way": dict(k=2),
        "protocol.ppo": dict(num_rollouts=8, num_checkpoints=1, value_learning_rate=1e-3),
        "protocol.clip": dict(
            questions_per_step=2,
            steps_per_rollout=16,
            num_rollouts=8,
            num_checkpoints=1,
            warmup_steps=32,
            refresh_reference_every=80,
        ),
        "protocol.on": dict(num_rollouts=4, num_checkpoints=4),
        "protocol.sums": dict(questions="chain_sum", num_questions=1200),
        "protocol.more": dict(num_questions=600),
    },
}
"""Tier -> part -> what an arm has of its own there; ``versus`` holds what no part has, ``versus.rl`` a part's."""


def check_runnable(tier: str) -> None:
    """Refuse a tier whose arms have no settings.

    >>> check_runnable("gpu")
    Traceback (most recent call last):
    r1repro.records.Refusal: the arms beside the main line are of the tiny world, not of tier gpu: choose smoke or cpu
    """
    config.check_runnable(tier)
    if tier not in config.TINY:
        known = " or ".join(config.TINY)
        raise Refusal(f"the arms beside the main line are of the tiny world, not of tier {tier}: choose {known}")


def _own(tier: str, notebook: str) -> dict[str, dict[str, Any]]:
    """Of a notebook's arms: part -> what it has of its own at a tier, by the part's own name."""
    own = TIER_ARMS.get(tier, {}) if isinstance(tier, str) else {}
    return {name.partition(".")[2]: values for name, values in own.items() if name.partition(".")[0] == notebook}


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
    own = _own(tier, "versus")
    parts = {part: parts.get(part, {}) | own.get(part, {}) for part in {**parts, **own}}
    return config.build(Versus, tier, seed, parts, overrides)


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
        config.check_positive(self, *names, "batch_size", "learning_rate", "epochs")
        config.check_not_negative(self, "seed")
        config.check_source(self)


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

    temperature: float = paper.constant("evaluation", "temperature")
    """Of proposed lines, as in evaluation (hyperparameters.csv, evaluation temperature), so that sampling and search
    draw from one distribution."""

    top_p: float = paper.constant("evaluation", "top_p")
    """Of proposed lines; hyperparameters.csv, evaluation top_p."""

    max_line_tokens: int = 1024
    """Ours: cap of a line; what is cut there goes on as another line."""

    max_tokens: int = 32768
    """Ours: cap of a solution, as in evaluation; a longer one is given up."""

    keep_per_question: int = 2
    """Ours: right solutions of a training question that are kept as examples, those of highest value first."""

    def __post_init__(self):
        names = ("num_questions", "expansions", "width", "temperature", "top_p", "max_line_tokens", "max_tokens")
        config.check_positive(self, *names, "keep_per_question")
        config.check_not_negative(self, "seed", "exploration")
        config.check_source(self)
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
        config.check_positive(self, "best_of")
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
        temperature=paper.constant("rl_all_scenarios_stage2", "rollout_temperature"),
    ),
    "evaluate_general": dict(questions="general", k=4),
}  # fmt: skip
"""Part -> how it differs from the defaults of its class, at every tier.  The reward model alone: no rule, no format."""

TIER_ARMS["smoke"] |= {
    "attempts": dict(best_of=4),
    "attempts.process": dict(
        num_questions=24, outputs_per_question=2, continuations=2, max_tokens=160, learning_rate=1e-3, epochs=1,
        batch_size=16,
    ),
    "attempts.process_rl": config.TIER_RL["smoke"],
    "attempts.pool": config.TIER_R1["smoke"]["evaluate"] | dict(k=8),
    "attempts.search": dict(num_questions=12, expansions=6, width=3, max_line_tokens=48, max_tokens=200),
    "attempts.searched_sft": dict(learning_rate=1e-3, batch_size=8, max_tokens=512),
    "attempts.value": dict(learning_rate=3e-4, batch_size=16),
    "attempts.hacking": dict(
        questions_per_step=8, steps_per_rollout=2, num_rollouts=3, learning_rate=5e-4, max_tokens=96, warmup_steps=2,
        refresh_reference_every=4, num_checkpoints=3,
    ),
    "attempts.evaluate": config.TIER_R1["smoke"]["evaluate"],
    "attempts.evaluate_general": dict(num_questions=16, k=2, max_tokens=96),
}  # fmt: skip
TIER_ARMS["cpu"] |= {
    "attempts.process": dict(
        num_questions=384, outputs_per_question=4, continuations=6, max_tokens=320, learning_rate=1e-3, epochs=3,
        batch_size=32,
    ),
    "attempts.process_rl": config.TIER_RL["cpu"],
    "attempts.pool": config.TIER_R1["cpu"]["evaluate"] | dict(k=32),
    "attempts.search": dict(num_questions=256, expansions=12, width=4, max_line_tokens=64, max_tokens=448),
    "attempts.searched_sft": dict(learning_rate=1e-3, batch_size=16, max_tokens=512),
    "attempts.value": dict(learning_rate=3e-4, batch_size=32),
    "attempts.hacking": dict(
        questions_per_step=8, steps_per_rollout=4, num_rollouts=32, learning_rate=1.2e-4, max_tokens=160,
        warmup_steps=8, refresh_reference_every=20, num_checkpoints=4,
    ),
    "attempts.evaluate": config.TIER_R1["cpu"]["evaluate"],
    "attempts.evaluate_general": dict(num_questions=160, k=16, max_tokens=160, seed=14864973),
}  # fmt: skip


def attempts(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Attempts:
    """Settings of notebook 10 at a tier; see `config.r1_zero`.

    RL by the process reward is R1-Zero's in everything but its rewards, and evaluations are the main line's.

    >>> attempts("cpu", overrides={"search.width": 2}).search.width
    2
    """
    own = _own(tier, "attempts")
    parts = {part: ATTEMPTS.get(part, {}) | own.get(part, {}) for part in (*ATTEMPTS, *own)}
    return config.build(Attempts, tier, seed, parts, overrides)


# Notebook 11: the evaluation protocol, and PPO beside GRPO


@dataclass(frozen=True, kw_only=True, slots=True)
class PPO(RL):
    """PPO as a baseline (v2 A.3): a value model and generalised advantages in the place of groups."""

    kl_coefficient: float = 0.0
    """Of the loss: PPO has its KL term in the reward (v2 A.3)."""

    kl_in_reward: float = paper.constant("r1_zero_rl", "kl_coefficient_beta")
    """Ours: beta of GRPO's KL term (hyperparameters.csv, r1_zero_rl kl_coefficient_beta); PPO's is not reported."""

    gae_lambda: float = 1.0
    """0.95 and 1.0 in the appendix (v2 A.3)."""

    value_learning_rate: float = 3e-5
    """Ours: of the value model, whose head is new: ten times the policy's."""

    def __post_init__(self):
        RL.__post_init__(self)
        config.check_positive(self, "value_learning_rate")
        config.check_not_negative(self, "kl_in_reward", "gae_lambda")
        if self.gae_lambda > 1:
            raise Refusal(f"ppo.gae_lambda is {self.gae_lambda}, but it is a rate of decay: use a number from 0 to 1")
        if self.kl_coefficient:
            raise Refusal("ppo.kl_coefficient is not 0, but PPO has its KL term in the reward: set ppo.kl_in_reward")


LAMBDAS = {"ppo_95": 0.95, "ppo_100": 1.0}
"""Arm -> its lambda (v2 A.3)."""

CLIPS = {"clip_small": 0.2, "clip_paper": paper.constant("reasoning_rl_stage1", "clip_epsilon"), "clip_none": 1e9}
"""Arm -> its epsilon, on both sides.  0.2 is the value in common use; the last never cuts anything.  The paper's is 10,
and it reports no other (v2 3.2.1)."""

SUMS = "protocol/sums"
"""Below a seed's folder: evaluations of R1-Zero's checkpoints on more sums than notebook 03 asks."""

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

    sums: Evaluate = field(default_factory=Evaluate)
    """That of R1-Zero's checkpoints, with more sums and nothing else.  Ours: so many that C03, C08 and C09, whose
    half-widths were 0.058 to 0.092 on 200 sums, come to about the 0.05 that counts as measured (LOG.md)."""

    more: Evaluate = field(default_factory=Evaluate)
    """That of the main line's models, with more questions, for R1 with and without examples (C29)."""

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
        "sums": config.TIER_EVALUATE.get(tier, {}),
        "more": config.PIPELINE["evaluate"] | main.get("evaluate", {}),
    }
    own = _own(tier, "protocol")
    parts = {part: values | own.get(part, {}) for part, values in parts.items()}
    return config.build(Protocol, tier, seed, parts, overrides)


# Notebook 14: controls of R1-Zero


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

    sums: Evaluate = field(default_factory=Evaluate)
    """The same with more sums and nothing else, those of notebook 11, for the controls of C01."""

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
    own = _own(tier, "controls")
    parts = {
        "": own.get("", {}),
        "rl": config.TIER_RL.get(tier, {}) | own.get("rl", {}),
        "evaluate": config.PIPELINE["evaluate"] | config.TIER_R1.get(tier, {}).get("evaluate", {}),
    }
    parts["sums"] = parts["evaluate"] | _own(tier, "protocol").get("sums", {})
    return config.build(Controls, tier, seed, parts, overrides)
