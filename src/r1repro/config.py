"""Settings: one frozen dataclass a stage, and the tiers that shrink the paper's values to a machine.

The defaults of `RL` and `Evaluate` are the paper's, read from `papers/`.  A tier changes some of them; `table` sets all
tiers beside the paper and says why ours differs.  No other file knows what a tier is.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from r1repro import paper
from r1repro.records import Refusal

SOURCES = ("chain_sum",)
"""Questions by name; `data` draws them."""

TIERS = ("smoke", "cpu", "gpu", "node", "cluster", "paper")


def _paper(stage: str, name: str) -> float:
    return paper.constant(stage, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """Pre-training of a tiny-world base model (`make base`).  Not a stage of the paper; all values are ours."""

    model: str = "tiny-1m"
    """A shape of `tinyworld.base.SHAPES`."""

    seed: int = 0
    """Ours: draws the weights and the corpus."""

    steps: int = 3600
    """Ours: updates of ``rows`` x ``length`` tokens; what two cores read in under half an hour."""

    rows: int = 8
    """Ours: rows a step."""

    length: int = 512
    """Ours: tokens a row; documents stand end to end in it."""

    learning_rate: float = 1.5e-3
    """Ours: peak of a linear warm-up and cosine."""

    warmup: float = 0.05
    """Ours: share of the steps."""

    checkpoint_every: int = 250
    """Ours: steps between checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RL:
    """One GRPO stage.  The defaults are those of R1-Zero; `TIER_RL` shrinks them."""

    questions: str = "chain_sum"
    """Source of questions, see `SOURCES`."""

    seed: int = 0
    """Ours: draws questions, noise and mini-batches."""

    rewards: tuple[str, ...] = ("r1repro.rewards.accuracy:accuracy", "r1repro.rewards.format:format_scores")
    """Import paths; added with equal weight (hyperparameters.csv, r1_zero_rl reward)."""

    advantage: str = "r1repro.algo.grpo:advantages"
    """Import path of Eq. 3; ``centred_advantages`` is Dr. GRPO's."""

    ratio: str = "r1repro.algo.grpo:token_ratio"
    """Import path; ``output_ratio`` is Eq. 1 to the letter."""

    average: str = "r1repro.algo.grpo:per_output_mean"
    """Import path; ``token_mean`` is DAPO's, ``constant_divisor`` Dr. GRPO's."""

    questions_per_step: int = int(_paper("r1_zero_rl", "questions_per_step"))
    """hyperparameters.csv, r1_zero_rl questions_per_step."""

    outputs_per_question: int = int(_paper("r1_zero_rl", "group_size_G"))
    """G; hyperparameters.csv, r1_zero_rl group_size_G."""

    steps_per_rollout: int = int(_paper("r1_zero_rl", "minibatches_per_rollout"))
    """Mini-batches, each used once; hyperparameters.csv, r1_zero_rl minibatches_per_rollout."""

    num_rollouts: int = 650
    """hyperparameters.csv, r1_zero_rl total_steps 10,400 over 16 steps a rollout."""

    learning_rate: float = _paper("r1_zero_rl", "learning_rate")
    """Of AdamW, constant; hyperparameters.csv, r1_zero_rl learning_rate."""

    kl_coefficient: float = _paper("r1_zero_rl", "kl_coefficient_beta")
    """beta of Eq. 1; hyperparameters.csv, r1_zero_rl kl_coefficient_beta."""

    clip_low: float = _paper("reasoning_rl_stage1", "clip_epsilon")
    """epsilon of Eq. 1 below.  Reported for R1's first RL stage only (hyperparameters.csv, reasoning_rl_stage1); a
    ratio is positive, so 1 - 10 never binds."""

    clip_high: float = _paper("reasoning_rl_stage1", "clip_epsilon")
    """epsilon of Eq. 1 above; same source."""

    temperature: float = _paper("r1_zero_rl", "rollout_temperature")
    """hyperparameters.csv, r1_zero_rl rollout_temperature."""

    max_tokens: int = int(_paper("r1_zero_rl", "max_length_initial"))
    """Cap of an output; hyperparameters.csv, r1_zero_rl max_length_initial."""

    refresh_reference_every: int = int(_paper("r1_zero_rl", "reference_model_refresh_steps"))
    """Steps; hyperparameters.csv, r1_zero_rl reference_model_refresh_steps."""

    warmup_steps: int = 0
    """Ours: steps of linear warm-up; none is reported.  AdamW's first steps are full-sized, whatever the gradient."""

    max_grad_norm: float = 1.0
    """Ours: the paper does not say whether gradients are clipped."""

    num_checkpoints: int = 4
    """Ours: equal parts of the run that end in a checkpoint to be evaluated."""

    @property
    def questions_per_rollout(self) -> int:
        return self.questions_per_step * self.steps_per_rollout

    @property
    def num_steps(self) -> int:
        return self.num_rollouts * self.steps_per_rollout

    def __post_init__(self):
        _known_source(self)
        _positive(self, "questions_per_step", "steps_per_rollout", "num_rollouts", "max_tokens", "temperature")
        _positive(self, "learning_rate", "refresh_reference_every", "max_grad_norm", "num_checkpoints", "clip_high")
        _not_negative(self, "warmup_steps", "kl_coefficient", "clip_low")
        if self.outputs_per_question < 2:
            raise Refusal(
                f"rl.outputs_per_question is {self.outputs_per_question}, but a group of one has no siblings to be "
                "compared with (Eq. 3): use 2 or more; the paper uses 16"
            )
        if self.refresh_reference_every % self.steps_per_rollout:
            raise Refusal(
                f"rl.refresh_reference_every is {self.refresh_reference_every}, not a multiple of steps_per_rollout "
                f"({self.steps_per_rollout}): the reference changes between rollouts, so choose a multiple"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """One evaluation by the protocol of section 3."""

    questions: str = "chain_sum"
    """Source of questions."""

    split: str = "test"
    """``test`` for what is published; settings are chosen on ``validation`` alone."""

    seed: int = 0
    """Ours: draws the questions (never from the training split)."""

    num_questions: int = 200
    """Ours: AIME has 30, MATH-500 500."""

    k: int = int(_paper("evaluation", "k_MATH_Codeforces"))
    """Samples a question; hyperparameters.csv, evaluation k_MATH_Codeforces."""

    temperature: float = _paper("evaluation", "temperature")
    """hyperparameters.csv, evaluation temperature."""

    top_p: float = _paper("evaluation", "top_p")
    """hyperparameters.csv, evaluation top_p."""

    max_tokens: int = int(_paper("evaluation", "max_generation_tokens"))
    """hyperparameters.csv, evaluation max_generation_tokens."""

    def __post_init__(self):
        _known_source(self)
        _positive(self, "num_questions", "k", "temperature", "top_p", "max_tokens")
        _not_negative(self, "seed")
        if self.split not in ("validation", "test"):
            raise Refusal(f"evaluate.split is {self.split!r}: choose validation or test, never what was trained on")
        if self.top_p > 1:
            raise Refusal(f"evaluate.top_p is {self.top_p}, but it is a share of probability: use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Knobs of speed and memory.  They change no equation, and no number but for the order of floating-point sums."""

    micro_batch_tokens: int = 2048
    """Ours: output tokens that go through the policy at once, those of one output at least."""

    max_rows: int = 512
    """Ours: outputs sampled side by side."""

    def __post_init__(self):
        _positive(self, "micro_batch_tokens", "max_rows")


@dataclass(frozen=True, kw_only=True, slots=True)
class R1Zero:
    """Notebook 03: the base model, its RL, and the evaluation of its checkpoints."""

    tier: str
    seed: int
    """Ours: draws questions, noise and mini-batches of the RL run."""

    base: str = "tiny-1m"
    """Name of a tiny-world base model, or the folder of a Hugging Face model."""

    rl: RL = field(default_factory=RL)
    evaluate: Evaluate = field(default_factory=Evaluate)
    machine: Machine = field(default_factory=Machine)


TIER_RL: dict[str, dict[str, Any]] = {
    "smoke": dict(
        questions_per_step=8, steps_per_rollout=2, num_rollouts=8, learning_rate=4e-4, max_tokens=256,
        warmup_steps=4, refresh_reference_every=8, num_checkpoints=2,
    ),
    "cpu": dict(
        questions_per_step=8, steps_per_rollout=4, num_rollouts=16, learning_rate=4.5e-5, max_tokens=448,
        warmup_steps=8, refresh_reference_every=20, num_checkpoints=4,
    ),
    "gpu": dict(
        questions_per_step=8, steps_per_rollout=4, num_rollouts=100, learning_rate=1e-5, max_tokens=2048,
        refresh_reference_every=100, num_checkpoints=4,
    ),
    "node": dict(num_rollouts=100, max_tokens=8192),
    "cluster": dict(num_rollouts=300),
    "paper": {},
}  # fmt: skip

TIER_EVALUATE: dict[str, dict[str, Any]] = {
    "smoke": dict(num_questions=20, k=4, max_tokens=256),
    "cpu": dict(num_questions=200, max_tokens=448, seed=11557232),
    "gpu": dict(num_questions=200, max_tokens=2048),
    "node": dict(num_questions=500, max_tokens=8192),
    "cluster": dict(num_questions=500),
    "paper": dict(num_questions=500),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "format_only": {"rl.rewards": ["r1repro.rewards.format:format_scores"]},
    "small_clip": {
        "rl.rewards": ["r1repro.rewards.accuracy:accuracy", "r1repro.rewards.format:small_format_scores"],
        "rl.clip_low": 0.2,
        "rl.clip_high": 0.28,
        "rl.refresh_reference_every": 4_000_000,
    },
    "large_step": {"rl.learning_rate": 4e-4},
}
"""Run beside the paper's settings by `python -m r1repro variants`: no accuracy reward (a control); a small clip range
with a small format reward and a fixed reference, as is common; a larger step."""

# The seed of the published test questions was fixed after the settings: the first six hex digits of the commit that
# holds them, b05970d39d0b.

RUNNABLE = ("smoke", "cpu")
"""Tiers whose model is here.  The others show their settings; their models arrive with the stages for real
checkpoints."""

WHY = {
    "questions_per_step": "a million parameters learn from small steps; 32 would quadruple the minutes",
    "steps_per_rollout": "fewer mini-batches a rollout: still off-policy, so that ratio and clip matter",
    "num_rollouts": "what a few minutes on two cores hold",
    "learning_rate": "a model 700,000 times smaller moves in larger steps",
    "max_tokens": "the longest checked solution takes about 400 tokens, mistakes and mends included",
    "refresh_reference_every": "a shorter run, refreshed about as often in proportion",
    "num_checkpoints": "the paper evaluates more often; each evaluation costs ten to twenty-five seconds here",
    "num_questions": "generated, so as many as the time allows",
    "outputs_per_question": "the paper's",
    "kl_coefficient": "the paper's",
    "clip_low": "the paper's for R1's first RL stage",
    "clip_high": "the paper's for R1's first RL stage",
    "temperature": "the paper's",
    "k": "the paper's for MATH-500",
    "top_p": "the paper's",
    "max_grad_norm": "not reported; a common value",
    "warmup_steps": "not reported; without it the first steps throw rare tokens far from the reference",
}
"""Setting -> why the cpu tier has the value it has."""


NOT_REPORTED = ("max_grad_norm", "warmup_steps", "num_checkpoints")
"""Settings for which the paper gives no value: its column shows a question mark."""


def r1_zero(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> R1Zero:
    """Settings of notebook 03 at a tier.

    Args:
        overrides: setting -> value, by dotted name (``rl.learning_rate``, ``evaluate.k``, ``base``).

    Raises:
        Refusal: unknown tier or setting, value of the wrong type or out of range.

    >>> r1_zero("smoke", overrides={"rl.num_rollouts": 2}).rl.num_rollouts
    2
    """
    check_tier(tier)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise Refusal(f"seed is {seed!r}, not a whole number from 0 up: give one such as 0")
    parts: dict[str, dict[str, Any]] = {
        "rl": TIER_RL[tier] | {"seed": seed},
        "evaluate": dict(TIER_EVALUATE[tier]),
        "machine": {},
        "": {},
    }
    classes = {"rl": RL, "evaluate": Evaluate, "machine": Machine, "": R1Zero}
    if not isinstance(overrides, Mapping | None):
        raise Refusal(f"overrides is {overrides!r}: give a mapping such as {{'rl.learning_rate': 1e-4}}")
    for name, value in (overrides or {}).items():
        part, _, key = name.rpartition(".")
        if part not in classes or key not in _settable(classes[part]):
            known = [f"{p}.{k}".lstrip(".") for p, c in classes.items() for k in _settable(c)]
            raise Refusal(f"no setting {name!r}: choose one of {', '.join(sorted(known))}")
        parts[part][key] = _typed(classes[part], name, key, value)
    return R1Zero(
        tier=tier,
        seed=seed,
        rl=RL(**parts["rl"]),
        evaluate=Evaluate(**parts["evaluate"]),
        machine=Machine(**parts["machine"]),
        **parts[""],
    )


def check_tier(tier: str) -> None:
    if tier not in TIERS:
        raise Refusal(f"no tier {tier!r}: choose one of {', '.join(TIERS)}")


def check_runnable(tier: str) -> None:
    """Refuse to train where the settings are only shown."""
    check_tier(tier)
    if tier == "paper":
        raise Refusal(
            "tier paper shows the paper's own settings and trains nothing (512 H800 GPUs, about 198 hours): "
            "see `python -m r1repro tiers`, and choose smoke or cpu to train"
        )
    if tier not in RUNNABLE:
        raise Refusal(f"tier {tier} has settings but no model in this version: choose one of {', '.join(RUNNABLE)}")


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Overrides from a command line.

    >>> parse_overrides(["rl.learning_rate=1e-4", "base=tiny-1m"])
    {'rl.learning_rate': 0.0001, 'base': 'tiny-1m'}
    """
    overrides = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Refusal(f"override {pair!r} has no '=': write it as setting=value, such as rl.learning_rate=1e-4")
        try:
            overrides[name] = json.loads(text)
        except ValueError:  # no JSON, or a number too long to read
            overrides[name] = text
    return overrides


def table() -> list[dict[str, str]]:
    """Every setting of `RL` and `Evaluate` at every tier, the paper's value, and why the cpu tier's differs."""
    rows = []
    for part, cls, tiers in (("rl", RL, TIER_RL), ("evaluate", Evaluate, TIER_EVALUATE)):
        for f in dataclasses.fields(cls):
            if f.type is str or f.name in ("seed", "rewards"):
                continue
            values = {tier: f"{getattr(replace(cls(), **tiers[tier]), f.name):g}" for tier in TIERS}
            if f.name in NOT_REPORTED:
                values["paper"] = "?"
            why = "" if values["cpu"] == values["paper"] else WHY[f.name]
            rows.append({"setting": f"{part}.{f.name}", **values, "why the cpu tier differs": why})
    return rows


def _settable(cls: type) -> dict[str, type]:
    return {
        f.name: f.type for f in dataclasses.fields(cls) if f.name not in ("tier", "seed", "rl", "evaluate", "machine")
    } | ({"seed": int} if cls is Evaluate else {})


def _typed(cls: type, name: str, key: str, value: Any) -> Any:
    wanted = _settable(cls)[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if key == "rewards" and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if key == "rewards" or not isinstance(value, wanted) or isinstance(value, bool):
        kind = (
            "list of import paths" if key == "rewards" else {int: "whole number", float: "number", str: "text"}[wanted]
        )
        raise Refusal(f"{name} is {value!r}, not a {kind}: give one such as {_default(cls, key)!r}")
    if value != value or value in (float("inf"), float("-inf")):
        raise Refusal(f"{name} is {value!r}, not a finite number: give one such as {_default(cls, key)!r}")
    return value


def _default(cls: type, key: str) -> Any:
    return next(f.default for f in dataclasses.fields(cls) if f.name == key)


def _positive(settings: Any, *names: str) -> None:
    part = type(settings).__name__.lower()
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            usual = _default(type(settings), name)
            raise Refusal(f"{part}.{name} is {value}, but it must be above 0: give one such as {usual}")


def _not_negative(settings: Any, *names: str) -> None:
    part = type(settings).__name__.lower()
    for name in names:
        value = getattr(settings, name)
        if value < 0:
            usual = _default(type(settings), name)
            raise Refusal(f"{part}.{name} is {value}, but it must not be below 0: give one such as {usual}")


def _known_source(settings: Any) -> None:
    if settings.questions not in SOURCES:
        part = type(settings).__name__.lower()
        raise Refusal(f"{part}.questions is {settings.questions!r}: choose one of {', '.join(SOURCES)}")
