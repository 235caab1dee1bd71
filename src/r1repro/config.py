"""Settings: one frozen dataclass a stage, and the tiers that shrink the paper's values to a machine.

The defaults of `RL` and `Evaluate` are the paper's, read from `papers/`.  A tier changes some of them; `table` sets all
tiers beside the paper and says why ours differs.  No other file knows what a tier is.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from r1repro import paper, students
from r1repro.records import Refusal

SOURCES = ("chain_sum", "search", "logic", "programs", "reasoning", "general", "safety", "open", "with_reference")
SOURCES += ("all_scenarios",)
"""Questions of the tiny world by name; `data` draws them."""

FOLDERS = ("gsm8k", "math")
"""Questions of files, by the name of their folder, that can be had from the hub too; any other folder has a name."""

GYM = "reasoning-gym/"
"""What stands before the name of a task of reasoning_gym."""

TIERS = ("smoke", "cpu", "gpu", "node", "cluster", "paper")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """Pre-training of a tiny-world base model (`make base`).  Not a stage of the paper; all values are ours."""

    model: str = "tiny-1m"
    """A shape of `tinyworld.base.SHAPES`."""

    seed: int = 0
    """Ours: draws the weights and the corpus."""

    steps: int = 3000
    """Ours: updates of ``tokens_per_step`` tokens; what two slow cores read in 35 minutes.  Students: 1,800."""

    tokens_per_step: int = 4096
    """Ours: tokens of the documents of a step, at most; each document stands alone, whole."""

    learning_rate: float = 5e-3
    """Ours: peak of a linear warm-up and cosine, of Muon (`engine.muon`)."""

    warmup: float = 0.05
    """Ours: share of the steps."""

    checkpoint_every: int = 250
    """Ours: steps between checkpoints."""

    flat: bool = False
    """Ours: read the flat corpus, where working pays nothing (`tinyworld.corpus.answer_of_another`): a control."""


def pretrain(model: str) -> Pretrain:
    """How a base model of the tiny world is pre-trained: those of students read less.

    >>> pretrain("tiny-1m").steps, pretrain("qwen-140k").steps
    (3000, 1800)
    """
    return Pretrain() if model == Pretrain().model else Pretrain(model=model, steps=1800)


KINDS = ("full", "lora", "qlora")
DTYPES = ("float32", "bfloat16", "float16")
TEMPLATES = ("r1_zero", "chat")
SAMPLERS = ("torch", "vllm")
LAUNCHERS = ("here", "torchrun", "ray")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a model is held and asked: which of its weights are trained, in which precision, and who samples.

    The paper trains all weights; adapters are what one GPU has room for.
    """

    weights: str = "full"
    """Ours: ``full``; ``lora``, adapters beside frozen weights; ``qlora``, beside weights in 4 bits (NF4)."""

    rank: int = 32
    """Ours: of the adapters, which stand beside every linear layer but the head."""

    alpha: int = 64
    """Ours: adapters are scaled by alpha / rank."""

    dtype: str = "float32"
    """Ours: in which frozen weights are stored and products are computed; what is trained is float32."""

    template: str = "r1_zero"
    """``r1_zero`` is the paper's Table 1; ``chat`` is the model's own chat template."""

    sampler: str = "torch"
    """Ours: ``torch`` runs anywhere, ``vllm`` is faster where it is installed.  Each draws its own outputs."""

    importance_cap: float = 2.0
    """Ours: where vLLM samples, the largest weight by which a token makes up for its rounding; see
    `grpo.importance`."""

    def __post_init__(self):
        check_positive(self, "rank", "alpha", "importance_cap")
        for name, known in (("weights", KINDS), ("dtype", DTYPES), ("template", TEMPLATES), ("sampler", SAMPLERS)):
            if getattr(self, name) not in known:
                raise Refusal(f"policy.{name} is {getattr(self, name)!r}: choose one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RL:
    """One GRPO stage.  The defaults are those of R1-Zero; `TIER_RL` shrinks them."""

    questions: str = "reasoning"
    """Source of questions: one of `SOURCES`, ``gsm8k``, ``math``, ``reasoning-gym/<task>``, a folder, a path."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws questions, noise and mini-batches."""

    late_questions: str = ""
    """Source of the questions of the last ``late_rollouts``; empty: the same."""

    late_rollouts: int = 0
    """Rollouts at the end that draw from ``late_questions`` (hyperparameters.csv, rl_all_scenarios_stage2
    steps_with_preference_reward: the last 400 of 1,700 steps)."""

    rewards: tuple[str, ...] = ("r1repro.rewards.reasoning:accuracy", "r1repro.rewards.format:format_scores")
    """Import paths; added with equal weight (hyperparameters.csv, r1_zero_rl reward)."""

    advantage: str = "r1repro.algo.grpo:advantages"
    """Import path of Eq. 3; ``centred_advantages`` is Dr. GRPO's."""

    ratio: str = "r1repro.algo.grpo:token_ratio"
    """Import path; ``output_ratio`` is Eq. 1 to the letter."""

    average: str = "r1repro.algo.grpo:per_output_mean"
    """Import path; ``token_mean`` is DAPO's, ``constant_divisor`` Dr. GRPO's."""

    questions_per_step: int = int(paper.constant("r1_zero_rl", "questions_per_step"))
    """hyperparameters.csv, r1_zero_rl questions_per_step."""

    outputs_per_question: int = int(paper.constant("r1_zero_rl", "group_size_G"))
    """G; hyperparameters.csv, r1_zero_rl group_size_G."""

    steps_per_rollout: int = int(paper.constant("r1_zero_rl", "minibatches_per_rollout"))
    """Mini-batches, each used once; hyperparameters.csv, r1_zero_rl minibatches_per_rollout."""

    num_rollouts: int = 650
    """hyperparameters.csv, r1_zero_rl total_steps 10,400 over 16 steps a rollout."""

    learning_rate: float = paper.constant("r1_zero_rl", "learning_rate")
    """Of AdamW, constant; hyperparameters.csv, r1_zero_rl learning_rate."""

    kl_coefficient: float = paper.constant("r1_zero_rl", "kl_coefficient_beta")
    """beta of Eq. 1; hyperparameters.csv, r1_zero_rl kl_coefficient_beta."""

    clip_low: float = paper.constant("reasoning_rl_stage1", "clip_epsilon")
    """epsilon of Eq. 1 below.  Reported for R1's first RL stage only (hyperparameters.csv, reasoning_rl_stage1); a
    ratio is positive, so 1 - 10 never binds."""

    clip_high: float = paper.constant("reasoning_rl_stage1", "clip_epsilon")
    """epsilon of Eq. 1 above; same source."""

    temperature: float = paper.constant("r1_zero_rl", "rollout_temperature")
    """hyperparameters.csv, r1_zero_rl rollout_temperature."""

    max_tokens: int = int(paper.constant("r1_zero_rl", "max_length_initial"))
    """Cap of an output; hyperparameters.csv, r1_zero_rl max_length_initial."""

    refresh_reference_every: int = int(paper.constant("r1_zero_rl", "reference_model_refresh_steps"))
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

    def questions_at(self, rollout: int) -> str:
        """Source of a rollout's questions."""
        late = rollout >= self.num_rollouts - self.late_rollouts
        return (late and self.late_questions) or self.questions

    @property
    def num_steps(self) -> int:
        return self.num_rollouts * self.steps_per_rollout

    def __post_init__(self):
        check_source(self)
        if self.late_questions:
            check_source(self, "late_questions")
        check_positive(self, "questions_per_step", "steps_per_rollout", "num_rollouts", "max_tokens", "temperature")
        check_positive(self, "learning_rate", "refresh_reference_every", "max_grad_norm", "num_checkpoints")
        check_positive(self, "clip_high")
        check_not_negative(self, "warmup_steps", "kl_coefficient", "clip_low", "late_rollouts")
        if self.late_rollouts and not self.late_questions:
            raise Refusal(
                f"rl.late_rollouts is {self.late_rollouts}, but rl.late_questions names no source for them: give one "
                f"of {', '.join(SOURCES)}"
            )
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
class SFT:
    """Supervised fine-tuning on outputs to questions; the loss is on the outputs alone.  The defaults are those of the
    800k stage (v2 B.4.2)."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: order of the examples."""

    epochs: int = int(paper.constant("sft_800k", "epochs_v1"))
    """hyperparameters.csv, sft_800k epochs_v1; v2 says 2 to 3."""

    batch_size: int = int(paper.constant("sft_800k", "batch_size"))
    """Examples a step; hyperparameters.csv, sft_800k batch_size (the unit is not stated there)."""

    learning_rate: float = 5e-5
    """Peak, of a cosine that ends at ``final_share`` of it; hyperparameters.csv, sft_800k learning_rate."""

    final_share: float = 0.1
    """5e-6 of 5e-5; hyperparameters.csv, sft_800k learning_rate."""

    warmup: float = 0.03
    """Ours: share of the steps; not reported."""

    max_tokens: int = int(paper.constant("sft_800k", "max_context"))
    """Longer outputs are left out; hyperparameters.csv, sft_800k max_context."""

    max_grad_norm: float = 1.0
    """Ours: not reported."""

    checkpoint_every: int = 50
    """Ours: steps between checkpoints that a stopped run goes on from."""

    def __post_init__(self):
        check_positive(self, "epochs", "batch_size", "learning_rate", "max_tokens", "max_grad_norm", "checkpoint_every")
        check_not_negative(self, "warmup", "final_share", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Collect:
    """Outputs of a model, sampled, filtered and kept as examples: cold start (v2 B.3.2), rejection sampling (2.3.3)."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws questions and noise."""

    questions: str = "reasoning"
    """Source of questions, of the training split."""

    num_questions: int = 4000
    """Ours: questions sampled; hyperparameters.csv has thousands (cold start) and 600,000 outputs (sft_800k)."""

    outputs_per_question: int = 4
    """Ours: "several" in v2 B.3.2; the number is not reported."""

    keep_per_question: int = 1
    """Ours: examples kept of one question at most."""

    num_examples: int = 0
    """Ours: examples kept in all at most; 0 for all that pass."""

    temperature: float = 1.0
    """hyperparameters.csv, cold_start_sft sampling_model."""

    max_tokens: int = 32768
    """Cap of an output; hyperparameters.csv, cold_start_sft max_context."""

    min_language_share: float = 0.95
    """Ours: least share of words in the question's language; the paper drops mixed languages without a threshold."""

    max_paragraph: int = 200
    """Ours: words of the longest paragraph; the paper drops long paragraphs without a number."""

    longest: bool = False
    """Ours: keep the longest of a question's outputs (cold start wants long chains), else the first ones, so that what
    is kept is a sample of what the model writes where it is right; the shortest would be lucky guesses."""

    rewrite: bool = False
    """Whether thinking is put into the question's language and a summary is added: section 2.3.1, v2 B.3.2."""

    overlooked: float = 0.0
    """Ours: chance that the editor leaves a phrase in the language that it is in.  How much DeepSeek-V3 overlooked is
    not reported.  (The run of B.6 begins with about 0.96 of its words in the question's language, but it starts
    from a distilled model and not from cold start.)"""

    general_share: float = 0.0
    """Share of general data in what is written: 200,000 of 800,000; hyperparameters.csv, sft_800k."""

    def __post_init__(self):
        check_positive(self, "num_questions", "outputs_per_question", "keep_per_question", "temperature", "max_tokens")
        check_not_negative(self, "num_examples", "general_share", "min_language_share", "overlooked", "seed")
        check_source(self)
        if self.rewrite and self.questions not in SOURCES:
            raise Refusal(
                f"collect.rewrite is True, but the editor knows no sentence of {self.questions!r}: set it to false, or "
                f"choose questions of {', '.join(SOURCES)}"
            )
        if self.overlooked > 1:
            raise Refusal(f"collect.overlooked is {self.overlooked}, but it is a chance: use a number from 0 to 1")
        if self.general_share >= 1:
            raise Refusal(f"collect.general_share is {self.general_share}, but it must be below 1: the paper's is 0.25")


@dataclass(frozen=True, kw_only=True, slots=True)
class Teach:
    """Outputs of a teacher that answers over the network, kept as examples: distillation (2.4)."""

    url: str
    """Of a server that speaks OpenAI's protocol, such as ``http://localhost:8000``."""

    model: str
    """As that server calls it."""

    questions: str = "reasoning"
    """Source of questions, of the training split; or a file or folder of rows that hold some."""

    num_questions: int = 0
    """Ours: at most; 0 for all of a file, and for 1,000 of a source."""

    seed: int = 0
    """Ours: draws the questions of a source.  What a server samples is its own."""

    outputs_per_question: int = 1
    """Ours: each is asked for by itself."""

    instruction: str = ""
    """Ours: put behind each question when it is asked, and not kept with it."""

    temperature: float = paper.constant("evaluation", "temperature")
    """hyperparameters.csv, evaluation temperature; how the 800,000 were sampled is not reported."""

    top_p: float = paper.constant("evaluation", "top_p")
    """hyperparameters.csv, evaluation top_p."""

    max_tokens: int = int(paper.constant("evaluation", "max_generation_tokens"))
    """Cap of an output, thinking included; hyperparameters.csv, evaluation max_generation_tokens."""

    def __post_init__(self):
        check_positive(self, "outputs_per_question", "temperature", "top_p", "max_tokens")
        check_not_negative(self, "num_questions", "seed")
        if not self.url.startswith(("http://", "https://")):
            raise Refusal(f"teach.url is {self.url!r}: give one that begins with http:// or https://")
        if self.top_p > 1:
            raise Refusal(f"teach.top_p is {self.top_p}, but it is a share of probability: use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardModel:
    """A policy with a scalar head, trained on pairs (Bradley-Terry) or on labelled outputs (point-wise), 2.3.4."""

    kind: str = "helpful"
    """``helpful`` (pairs, the summary alone), ``whole`` (the same pairs, the whole output: a control), ``safety`` or
    ``judge`` (labels; the whole output)."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws prompts, noise and order."""

    num_prompts: int = 66_000
    """hyperparameters.csv, helpful_rm data; safety_rm 106,000."""

    outputs_per_prompt: int = 4
    """Ours: outputs sampled of each prompt, of which pairs are made."""

    judge_calls: int = 4
    """Calls of the judge, whose mean counts; hyperparameters.csv, helpful_rm labeling."""

    judge_noise: float = 0.5
    """Ours: standard deviation of one call around the hidden rule; what an LLM judge is unsure of."""

    min_difference: float = 1.0
    """Pairs that differ by less are dropped; hyperparameters.csv, helpful_rm labeling."""

    batch_size: int = int(paper.constant("helpful_rm", "batch_size"))
    """hyperparameters.csv, helpful_rm batch_size."""

    learning_rate: float = paper.constant("helpful_rm", "learning_rate")
    """hyperparameters.csv, helpful_rm learning_rate."""

    epochs: int = int(paper.constant("helpful_rm", "epochs"))
    """hyperparameters.csv, helpful_rm epochs."""

    max_tokens: int = 8192
    """hyperparameters.csv, helpful_rm max_train_length."""

    max_output: int = 160
    """Ours: tokens of an output that is judged, at most; longer ones are cut."""

    def __post_init__(self):
        check_positive(self, "num_prompts", "outputs_per_prompt", "judge_calls", "batch_size", "learning_rate")
        check_positive(self, "epochs", "max_tokens", "max_output")
        check_not_negative(self, "judge_noise", "min_difference", "seed")
        if self.kind not in ("helpful", "whole", "safety", "judge"):
            raise Refusal(f"rewardmodel.kind is {self.kind!r}: choose helpful, whole, safety or judge")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """One evaluation by the protocol of section 3."""

    questions: str = "reasoning"
    """Source of questions."""

    split: str = "test"
    """``test`` for what is published; settings are chosen on ``validation`` alone."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws the questions (never from the training split)."""

    num_questions: int = 200
    """Ours: AIME has 30, MATH-500 500."""

    k: int = int(paper.constant("evaluation", "k_MATH_Codeforces"))
    """Samples a question; hyperparameters.csv, evaluation k_MATH_Codeforces."""

    temperature: float = paper.constant("evaluation", "temperature")
    """hyperparameters.csv, evaluation temperature."""

    top_p: float = paper.constant("evaluation", "top_p")
    """hyperparameters.csv, evaluation top_p."""

    max_tokens: int = int(paper.constant("evaluation", "max_generation_tokens"))
    """hyperparameters.csv, evaluation max_generation_tokens."""

    greedy: bool = False
    """Whether the most probable token is taken each time: one output, whatever temperature and top-p say (section 3
    avoids it)."""

    shots: int = 0
    """Worked training questions that stand before each question.  Section 3 asks without any."""

    draw: int = 0
    """Ours: another number draws other outputs to the same questions."""

    def __post_init__(self):
        check_source(self)
        check_positive(self, "num_questions", "k", "temperature", "top_p", "max_tokens")
        check_not_negative(self, "seed", "shots", "draw")
        if self.greedy and self.k > 1:
            raise Refusal(f"evaluate.k is {self.k}, but greedy outputs to a question are all the same: set it to 1")
        if self.split not in ("validation", "test"):
            raise Refusal(f"evaluate.split is {self.split!r}: choose validation or test, never what was trained on")
        if self.top_p > 1:
            raise Refusal(f"evaluate.top_p is {self.top_p}, but it is a share of probability: use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """One of the paper's benchmarks, asked by the protocol of section 3 (`evals`)."""

    benchmark: str
    """Its name, see `python -m r1repro benchmarks`."""

    policy: Policy = field(default_factory=Policy)

    seed: int = 0
    """Ours: draws the samples, and the questions where there is a ``limit``."""

    limit: int = 0
    """Ours: at most so many of its questions; 0 for all."""

    k: int = 0
    """Samples a question; 0 for the number of section 3 (hyperparameters.csv, evaluation k_MATH_Codeforces and its
    like), or ours where it gives none."""

    temperature: float = paper.constant("evaluation", "temperature")
    """hyperparameters.csv, evaluation temperature."""

    top_p: float = paper.constant("evaluation", "top_p")
    """hyperparameters.csv, evaluation top_p."""

    max_tokens: int = int(paper.constant("evaluation", "max_generation_tokens"))
    """hyperparameters.csv, evaluation max_generation_tokens; a benchmark may have a lower cap."""

    def __post_init__(self):
        check_positive(self, "temperature", "top_p", "max_tokens")
        check_not_negative(self, "seed", "limit", "k")
        if self.top_p > 1:
            raise Refusal(f"exam.top_p is {self.top_p}, but it is a share of probability: use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Knobs of speed and memory.  They change no equation, and no number but for the order of floating-point sums."""

    micro_batch_tokens: int = 2048
    """Ours: output tokens that go through the policy at once, those of one output at least."""

    max_rows: int = 512
    """Ours: outputs sampled side by side."""

    logits_at_once: int = 2**25
    """Ours: logits that an update holds at a time; those of all its tokens would be 152,000 a token for Qwen2.5."""

    recompute: bool = False
    """Ours: keep what goes into a layer alone, and compute the rest again for the gradient (activation
    checkpointing)."""

    device: str = "cpu"
    """Ours: ``cpu``, ``cuda``, or ``cuda:1``."""

    max_prompt_tokens: int = 1024
    """Ours: of the longest prompt that vLLM is started for."""

    sampler_memory: float = 0.4
    """Ours: share of a GPU's memory that vLLM may take."""

    sampler_timeout_s: float = 3600.0
    """Ours: seconds that vLLM may take for one rollout, or to take weights."""

    tensor_parallel: int = 1
    """Ours: ranks that share one copy of vLLM's weights."""

    launcher: str = "here"
    """Ours: who starts a stage: ``here``, one process; ``torchrun``, one for each GPU of this machine; ``ray``, on the
    cluster at RAY_ADDRESS (`engine.launch`)."""

    ranks: int = 1
    """Ours: processes that share a stage, with a GPU each where the device is one."""

    restarts: int = 3
    """Ours: how often all ranks are started again from the last checkpoint after one died, within one call."""

    shard: bool = False
    """Ours: cut weights, gradients and moments of a model that is trained in full up over the ranks (FSDP2)."""

    def __post_init__(self):
        check_positive(self, "micro_batch_tokens", "max_rows", "logits_at_once", "max_prompt_tokens")
        check_positive(self, "sampler_memory", "sampler_timeout_s", "tensor_parallel", "ranks")
        check_not_negative(self, "restarts")
        if self.launcher not in LAUNCHERS:
            raise Refusal(f"machine.launcher is {self.launcher!r}: choose one of {', '.join(LAUNCHERS)}")
        if self.launcher == "here" and self.ranks > 1:
            raise Refusal(
                f"machine.ranks is {self.ranks}, but machine.launcher is 'here', which starts one: set it to torchrun "
                "(this machine) or ray (a cluster)"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class R1Zero:
    """Notebook 03: the base model, its RL, and the evaluation of its checkpoints."""

    tier: str
    seed: int
    """Ours: draws questions, noise and mini-batches of the RL run."""

    base: str = "tiny-1m"
    """A base model of the tiny world, a student of `students`, ``organisation/name`` of Hugging Face, or a folder."""

    profile: int = 0
    """Ours: gigabytes of the GPU, of `PROFILES`; they choose knobs of `Machine`, which change no number.  0: none."""

    rl: RL = field(default_factory=RL)
    evaluate: Evaluate = field(default_factory=Evaluate)
    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True, slots=True)
class R1:
    """Notebooks 04 to 08: from R1-Zero's outputs to R1 and its students.

    At every tier the questions are the tiny world's: any model can read them, and only of them are the hidden rules
    known that label what the reward models learn from and measure what open prompts are answered with.  Where a stage
    needs neither, others can be asked (``reasoning_rl.questions``, ``rejection.questions``, ``evaluate.questions``).
    """

    tier: str
    seed: int
    """Ours: draws everything that the stages draw."""

    base: str = "tiny-1m"
    """Of R1-Zero, Dev1 and Dev3, and named as `R1Zero`'s: R1-Zero must have been trained from it, held alike."""

    profile: int = 0
    """Ours: see `R1Zero`."""

    students: tuple[str, ...] = ("qwen-140k", "qwen-280k", "qwen-580k", "llama-220k", "llama-400k")
    """Ours: by their names in the tiny world or in `students`.  They are asked in the pipeline's template."""

    own_rates: bool = True
    """Whether students of `students` have learning rates of their own (students.csv); those of the tiny world have
    ``distill.learning_rate``, as all have where that is overridden."""

    cold_start: Collect = field(default_factory=Collect)
    cold_start_sft: SFT = field(default_factory=SFT)
    reasoning_rl: RL = field(default_factory=RL)
    judge: RewardModel = field(default_factory=RewardModel)
    rejection: Collect = field(default_factory=Collect)
    judged: Collect = field(default_factory=Collect)
    sft: SFT = field(default_factory=SFT)
    helpful: RewardModel = field(default_factory=RewardModel)
    safety: RewardModel = field(default_factory=RewardModel)
    all_scenarios: RL = field(default_factory=RL)
    distill: SFT = field(default_factory=SFT)
    evaluate: Evaluate = field(default_factory=Evaluate)
    evaluate_open: Evaluate = field(default_factory=Evaluate)
    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)

    def taught(self, student: str) -> SFT:
        """How a student is fine-tuned, and its sibling.

        >>> r1("gpu").taught("llama-8b").learning_rate, r1("cpu").taught("qwen-140k").learning_rate
        (5e-05, 0.002)
        """
        known = students.students().get(student)
        return replace(self.distill, **known.sft()) if known and self.own_rates else self.distill

    def __post_init__(self):
        known = (*_default(R1, "students"), *students.students())
        for name in self.students:
            if name not in known:
                raise Refusal(f"no student called {name!r}: choose of {', '.join(known)}")
        if not self.students or len(set(self.students)) < len(self.students):
            raise Refusal(f"students is {list(self.students)}: give at least one, and each once")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distill:
    """A student taught by traces (section 2.4): fine-tuned, evaluated, written as a plain model."""

    tier: str
    seed: int
    """Ours: order of the traces."""

    base: str = "qwen-0.5b"
    """A student of `students`, a base of the tiny world, ``organisation/name`` of Hugging Face, or a folder."""

    profile: int = 0
    """Ours: see `R1Zero`."""

    sft: SFT = field(default_factory=SFT)
    evaluate: Evaluate = field(default_factory=Evaluate)
    policy: Policy = field(default_factory=Policy)
    machine: Machine = field(default_factory=Machine)


RULES = ("r1repro.rewards.reasoning:accuracy", "r1repro.rewards.format:format_scores")
LANGUAGE = "r1repro.rewards.language:language_consistency"

PIPELINE: dict[str, dict[str, Any]] = {
    "cold_start": dict(rewrite=True, longest=True),
    "cold_start_sft": dict(epochs=3),
    "reasoning_rl": dict(rewards=(*RULES, LANGUAGE)),
    "judge": dict(kind="judge"),
    "rejection": dict(general_share=0.25, num_questions=200_000),
    "judged": dict(questions="with_reference", num_questions=10_000),
    "sft": {},
    "helpful": {},
    "safety": dict(kind="safety", num_prompts=106_000),
    "all_scenarios": dict(
        rewards=(*RULES, LANGUAGE), temperature=paper.constant("rl_all_scenarios_stage2", "rollout_temperature"),
        late_questions="all_scenarios", num_rollouts=106, late_rollouts=25,
    ),
    "distill": dict(batch_size=int(paper.constant("distill_sft", "batch_size")), learning_rate=1e-4),
    "evaluate": {},
    "evaluate_open": dict(questions="open", k=4),
}  # fmt: skip
"""Part -> how the paper's stage differs from the defaults of its class.  1,700 steps are 106 rollouts of 16, their
last 400 steps 25 (hyperparameters.csv, rl_all_scenarios_stage2)."""

TIER_R1: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "cold_start": dict(num_questions=96, num_examples=48, max_tokens=200),
        "cold_start_sft": dict(learning_rate=1e-3, batch_size=8, max_tokens=512),
        "reasoning_rl": dict(
            questions_per_step=8, steps_per_rollout=2, num_rollouts=3, learning_rate=5e-4, max_tokens=200,
            warmup_steps=2, refresh_reference_every=4, num_checkpoints=1,
        ),
        "judge": dict(num_prompts=100, learning_rate=3e-4, batch_size=32, epochs=2, max_tokens=512),
        "rejection": dict(num_questions=128, keep_per_question=1, max_tokens=200),
        "judged": dict(num_questions=20, keep_per_question=1, max_tokens=160),
        "sft": dict(learning_rate=1e-3, batch_size=16, max_tokens=512),
        "helpful": dict(num_prompts=250, learning_rate=3e-4, batch_size=32, epochs=2, max_tokens=512),
        "safety": dict(num_prompts=100, learning_rate=3e-4, batch_size=32, epochs=2, max_tokens=512),
        "all_scenarios": dict(
            questions_per_step=8, steps_per_rollout=2, num_rollouts=3, late_rollouts=1, learning_rate=5e-4,
            max_tokens=200, warmup_steps=2, refresh_reference_every=4, num_checkpoints=1,
        ),
        "distill": dict(learning_rate=2e-3, batch_size=16, max_tokens=512),
        "evaluate": dict(num_questions=20, k=4, max_tokens=200),
        "evaluate_open": dict(num_questions=20, k=2, max_tokens=160),
    },
    "cpu": {
        "cold_start": dict(
            num_questions=512, num_examples=256, max_tokens=448, overlooked=0.15, min_language_share=0.5,
        ),
        "cold_start_sft": dict(learning_rate=4e-4, batch_size=8, max_tokens=512),
        "reasoning_rl": dict(
            questions_per_step=8, steps_per_rollout=4, num_rollouts=16, learning_rate=1.2e-4, max_tokens=448,
            warmup_steps=8, refresh_reference_every=20, num_checkpoints=2,
        ),
        "judge": dict(num_prompts=800, learning_rate=1e-3, batch_size=64, epochs=4, max_tokens=512),
        "rejection": dict(num_questions=2048, keep_per_question=2, max_tokens=448),
        "judged": dict(num_questions=96, keep_per_question=1, max_tokens=160),
        "sft": dict(learning_rate=1e-3, batch_size=32, max_tokens=512),
        "helpful": dict(num_prompts=1600, learning_rate=1e-3, batch_size=32, epochs=3, max_tokens=512),
        "safety": dict(num_prompts=800, learning_rate=1e-3, batch_size=64, epochs=2, max_tokens=512),
        "all_scenarios": dict(
            questions_per_step=8, steps_per_rollout=4, num_rollouts=17, late_rollouts=4, learning_rate=1.2e-4,
            max_tokens=448, warmup_steps=8, refresh_reference_every=20, num_checkpoints=1,
        ),
        "distill": dict(learning_rate=2e-3, batch_size=32, max_tokens=512),
        "evaluate": dict(num_questions=400, k=8, max_tokens=448, seed=14864973),
        "evaluate_open": dict(num_questions=200, k=8, max_tokens=160, seed=14864973),
    },
    "gpu": {
        "": dict(students=("qwen-0.5b",)),
        "cold_start": dict(num_questions=1024, num_examples=512, max_tokens=1024),
        "cold_start_sft": dict(learning_rate=1e-4, batch_size=16, max_tokens=2048),
        "reasoning_rl": dict(
            questions_per_step=8, steps_per_rollout=4, num_rollouts=40, learning_rate=1e-5, max_tokens=1024,
            refresh_reference_every=40, num_checkpoints=1,
        ),
        "judge": dict(num_prompts=800, learning_rate=1e-4, batch_size=64, epochs=2, max_tokens=2048, max_output=512),
        "rejection": dict(num_questions=2048, keep_per_question=2, max_tokens=1024),
        "judged": dict(num_questions=400, keep_per_question=1, max_tokens=512),
        "sft": dict(learning_rate=1e-4, batch_size=32, max_tokens=2048),
        "helpful": dict(num_prompts=1600, learning_rate=1e-4, batch_size=64, epochs=1, max_tokens=2048, max_output=512),
        "safety": dict(
            num_prompts=800, learning_rate=1e-4, batch_size=64, epochs=1, max_tokens=2048, max_output=512,
        ),
        "all_scenarios": dict(
            questions_per_step=8, steps_per_rollout=4, num_rollouts=34, late_rollouts=8, learning_rate=1e-5,
            max_tokens=1024, refresh_reference_every=40, num_checkpoints=1,
        ),
        "distill": dict(batch_size=32, max_tokens=2048),
        "evaluate": dict(num_questions=200, k=8, max_tokens=1024),
        "evaluate_open": dict(num_questions=200, k=4, max_tokens=512),
    },
    "node": {
        "": dict(students=("qwen-1.5b", "qwen-7b", "llama-8b")),
        "cold_start": dict(num_questions=4096, num_examples=2048, max_tokens=4096),
        "cold_start_sft": dict(learning_rate=1e-5, batch_size=32, max_tokens=8192),
        "reasoning_rl": dict(num_rollouts=100, max_tokens=8192),
        "judge": dict(num_prompts=4000, epochs=1, max_output=2048),
        "rejection": dict(num_questions=20_000, keep_per_question=1, max_tokens=4096),
        "judged": dict(num_questions=2000, keep_per_question=1, max_tokens=2048),
        "sft": dict(learning_rate=1e-5, batch_size=64, max_tokens=8192),
        "helpful": dict(num_prompts=8000, max_output=2048),
        "safety": dict(num_prompts=4000, max_output=2048),
        "all_scenarios": dict(num_rollouts=34, late_rollouts=8, max_tokens=8192),
        "distill": dict(max_tokens=8192),
        "evaluate": dict(num_questions=400, k=16, max_tokens=8192),
        "evaluate_open": dict(num_questions=400, k=4, max_tokens=2048),
    },
    "cluster": {
        "": dict(students=("qwen-32b", "llama-70b")),
        "cold_start": dict(num_questions=10_000, num_examples=5000),
        "reasoning_rl": dict(num_rollouts=300),
        "judged": dict(max_tokens=8192),
        "judge": dict(max_output=4096),
        "helpful": dict(max_output=4096),
        "safety": dict(max_output=4096),
        "evaluate": dict(num_questions=500),
        "evaluate_open": dict(num_questions=500, max_tokens=8192),
    },
}  # fmt: skip
"""Tier -> part -> what it changes.  Those of tier gpu are what one GPU should do in some hours, by estimate: adapters
learn at the rates that are usual for them.  Those of node are what eight GPUs should do in some days, all weights
trained; those of cluster are the paper's sizes but for the number of rollouts.  **Nothing of it was run on a GPU.**"""

TIER_RL: dict[str, dict[str, Any]] = {
    "smoke": dict(
        questions_per_step=8, steps_per_rollout=2, num_rollouts=8, learning_rate=5e-4, max_tokens=256,
        warmup_steps=4, refresh_reference_every=8, num_checkpoints=2,
    ),
    "cpu": dict(
        questions_per_step=8, steps_per_rollout=4, num_rollouts=16, learning_rate=1.2e-4, max_tokens=448,
        warmup_steps=8, refresh_reference_every=20, num_checkpoints=4,
    ),
    "gpu": dict(
        questions="gsm8k", questions_per_step=8, steps_per_rollout=4, num_rollouts=100, learning_rate=1e-5,
        max_tokens=2048, refresh_reference_every=100, num_checkpoints=4,
    ),
    "node": dict(questions="math", num_rollouts=100, max_tokens=8192),
    "cluster": dict(questions="math", num_rollouts=300),
    "paper": {},
}  # fmt: skip

TIER_EVALUATE: dict[str, dict[str, Any]] = {
    "smoke": dict(num_questions=20, k=4, max_tokens=256),
    "cpu": dict(num_questions=400, max_tokens=448, seed=14864973),
    "gpu": dict(questions="gsm8k", num_questions=200, max_tokens=2048),
    "node": dict(questions="math", num_questions=500, max_tokens=8192),
    "cluster": dict(questions="math", num_questions=500),
    "paper": dict(num_questions=500),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "format_only": {"rl.rewards": ["r1repro.rewards.format:format_scores"]},
    "small_clip": {
        "rl.rewards": ["r1repro.rewards.reasoning:accuracy", "r1repro.rewards.format:small_format_scores"],
        "rl.clip_low": 0.2,
        "rl.clip_high": 0.28,
        "rl.refresh_reference_every": 4_000_000,
    },
    "large_step": {"rl.learning_rate": 8e-4},
}
"""Run beside the paper's settings by `python -m r1repro variants`: no accuracy reward (a control); a small clip range
with a small format reward and a fixed reference, as is common; a larger step."""

# The seed of the published test questions was fixed after the settings: the first six hex digits of the commit that
# holds them, e2d24d85e8d1.

TINY = ("smoke", "cpu")
"""Tiers of the tiny world."""

RUNNABLE = (*TINY, "gpu", "node", "cluster")
"""Tiers that train.  The paper's shows its settings."""

PROFILES: dict[int, dict[str, Any]] = {
    16: dict(micro_batch_tokens=4096, max_rows=64, logits_at_once=2**24, recompute=True, sampler_memory=0.40),
    24: dict(micro_batch_tokens=8192, max_rows=128, logits_at_once=2**25, recompute=True, sampler_memory=0.45),
    48: dict(micro_batch_tokens=16384, max_rows=256, logits_at_once=2**26, recompute=True, sampler_memory=0.50),
    80: dict(micro_batch_tokens=32768, max_rows=512, logits_at_once=2**27, recompute=True, sampler_memory=0.50),
}
"""Gigabytes of a GPU -> knobs of `Machine`.  **Not yet measured on a GPU.**"""

TIER_MODEL: dict[str, dict[str, dict[str, Any]]] = {
    "gpu": {
        "": dict(base="qwen-1.5b-base", profile=24),
        "policy": dict(weights="qlora", dtype="bfloat16", sampler="vllm"),
        "machine": dict(device="cuda"),
    },
    "node": {
        "": dict(base="qwen-7b", profile=80),
        "policy": dict(dtype="bfloat16", sampler="vllm"),
        "machine": dict(device="cuda", launcher="torchrun", ranks=8, shard=True),
    },
    "cluster": {
        "": dict(base="qwen-32b", profile=80),
        "policy": dict(dtype="bfloat16", sampler="vllm"),
        "machine": dict(device="cuda", launcher="ray", ranks=32, shard=True, tensor_parallel=4),
    },
}
"""Tier -> its base, how it is held, and where; tiers of the tiny world have the defaults.  A node has eight GPUs of
80 GB; a cluster has four such nodes, and a 32B's weights in 16 bits (65 GB) are shared by four GPUs for sampling.  All
weights are trained: in single precision with AdamW's moments and gradients 16 bytes each, which 8 and 32 ranks share
(15 GB a GPU of 7.6 billion, 16 GB of 32.8 billion).  **By estimate, not run on a GPU.**"""

TIER_GPUS = {tier: model["machine"].get("ranks", 1) for tier, model in TIER_MODEL.items()} | {"paper": 512}
"""Tier -> GPUs that a plan reckons with where none are named; the paper's: hyperparameters.csv, r1_zero_rl compute,
64 x 8."""

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
    parts = {"rl": TIER_RL[tier], "evaluate": TIER_EVALUATE[tier]} if tier in TIERS else {}
    parts |= TIER_MODEL.get(tier, {}) if tier in TIERS else {}
    return build(R1Zero, tier, seed, parts, overrides)


def r1(tier: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> R1:
    """Settings of notebooks 04 to 08 at a tier; see `r1_zero`.

    Args:
        overrides: ``student`` is another word for ``students``; both take a name or a list of names.

    >>> r1("cpu", overrides={"cold_start.num_examples": 10}).cold_start.num_examples
    10
    """
    own, model = (by.get(tier, {}) if tier in TIERS else {} for by in (TIER_R1, TIER_MODEL))
    parts = {part: PIPELINE[part] | own.get(part, {}) for part in PIPELINE}
    parts |= model | {"": model.get("", {}) | own.get("", {})}
    if isinstance(overrides, Mapping) and "student" in overrides:
        overrides = {name: value for name, value in overrides.items() if name != "student"} | {
            "students": overrides["student"]
        }
    made = build(R1, tier, seed, parts, overrides)
    return replace(
        made, own_rates=made.own_rates and not {"distill.learning_rate", "distill.final_share"} & {*(overrides or ())}
    )


def teach(values: Mapping[str, Any]) -> Teach:
    """Settings of a teacher by name.

    >>> teach({"url": "http://localhost:8000", "model": "r1", "max_tokens": 100}).max_tokens
    100
    """
    known = _settable(Teach)
    for name in values:
        if name not in known:
            raise Refusal(f"no setting teach.{name}: choose one of {', '.join(sorted(known))}")
    return Teach(**{name: _typed(Teach, f"teach.{name}", name, value) for name, value in values.items()})


def exam(tier: str, benchmark: str, overrides: Mapping[str, Any] | None = None) -> tuple[Exam, Machine]:
    """Settings of one benchmark at a tier, which gives device and precision alone: the protocol is the paper's.

    Args:
        overrides: setting -> value: ``exam.k``, ``policy.template``, ``machine.max_rows`` and their like.

    >>> exam("cpu", "AIME 2024", {"exam.k": 4})[0].k
    4
    """
    check_tier(tier)
    parts = {name: dict(TIER_MODEL.get(tier, {}).get(name, {})) for name in ("policy", "machine")}
    values = {"exam": {}, **parts}
    values["policy"] |= {"weights": "full"} if values["policy"] else {}
    classes = {"exam": Exam, "policy": Policy, "machine": Machine}
    for name, value in (overrides or {}).items():
        part, _, key = name.partition(".")
        if part not in classes or key not in _settable(classes[part]) or key == "benchmark":
            known = [f"{p}.{k}" for p, c in classes.items() for k in _settable(c) if k != "benchmark"]
            raise Refusal(f"no setting {name!r}: choose one of {', '.join(sorted(known))}")
        values[part][key] = _typed(classes[part], name, key, value)
    held = Policy(**values["policy"])
    return Exam(benchmark=benchmark, policy=held, **values["exam"]), Machine(**values["machine"])


def distill(tier: str, student: str, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Distill:
    """Settings of the distillation of a student; its learning rates and template are its own.

    >>> distill("gpu", "llama-8b").sft.learning_rate, distill("gpu", "llama-8b").policy.template
    (5e-05, 'chat')
    """
    check_tier(tier)
    model = TIER_MODEL.get(tier, {})
    known = students.students().get(student)
    own, template = (known.sft(), {"template": known.template}) if known else ({}, {})
    parts = {
        **model,
        "": model.get("", {}) | {"base": student},
        "sft": PIPELINE["distill"] | TIER_R1.get(tier, {}).get("distill", {}) | own,
        "evaluate": TIER_EVALUATE[tier],
        "policy": model.get("policy", {}) | template,
    }
    return build(Distill, tier, seed, parts, overrides)


def build(
    cls: type, tier: str, seed: int, parts: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any] | None
) -> Any:
    """Settings of a pipeline: its parts at a tier, the seed in each that is not an evaluation, overrides last."""
    check_tier(tier)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise Refusal(f"seed is {seed!r}, not a whole number from 0 up: give one such as 0")
    if not isinstance(overrides, Mapping | None):
        raise Refusal(f"overrides is {overrides!r}: give a mapping such as {{'rl.learning_rate': 1e-4}}")
    classes = {f.name: f.default_factory for f in dataclasses.fields(cls) if f.default_factory is not MISSING}
    values = {name: dict(parts.get(name, {})) for name in ("", *classes)}
    for name, part in classes.items():
        if part not in (Evaluate, Machine, Policy):
            values[name]["seed"] = seed
    for name, value in (overrides or {}).items():
        part, _, key = name.rpartition(".")
        owner = cls if part == "" else classes.get(part)
        if owner is None or key not in _settable(owner):
            every = {"": cls, **classes}
            known = [f"{p}.{k}".lstrip(".") for p, c in every.items() for k in _settable(c)]
            raise Refusal(f"no setting {name!r}: choose one of {', '.join(sorted(known))}")
        values[part][key] = _typed(owner, name, key, value)
    own, policy = values.pop(""), Policy(**values.pop("policy"))
    if profile := own.get("profile"):
        if profile not in PROFILES:
            raise Refusal(f"profile is {profile}: choose the next below your GPU's of {', '.join(map(str, PROFILES))}")
        values["machine"] = PROFILES[profile] | values["machine"]
    for name, part in classes.items():
        if part not in (Machine, Policy):
            values[name]["policy"] = policy
    made = {name: classes[name](**given) for name, given in values.items()}
    return cls(tier=tier, seed=seed, policy=policy, **own, **made)


def check_tier(tier: str) -> None:
    if tier not in TIERS:
        raise Refusal(f"no tier {tier!r}: choose one of {', '.join(TIERS)}")


def check_runnable(tier: str) -> None:
    """Refuse to train where the settings are only shown."""
    check_tier(tier)
    if tier == "paper":
        raise Refusal(
            "tier paper shows the paper's own settings and trains nothing (512 H800 GPUs, about 198 hours): "
            f"see `python -m r1repro tiers`, and choose {', '.join(RUNNABLE[:-1])} or {RUNNABLE[-1]} to train"
        )


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
            if f.type in (str, bool) or f.name in ("seed", "rewards", "policy"):
                continue
            values = {tier: f"{getattr(replace(cls(), **tiers[tier]), f.name):g}" for tier in TIERS}
            if f.name in NOT_REPORTED:
                values["paper"] = "?"
            why = "" if values["cpu"] == values["paper"] else WHY[f.name]
            rows.append({"setting": f"{part}.{f.name}", **values, "why the cpu tier differs": why})
    return rows


def _settable(cls: type) -> dict[str, type]:
    plain = {
        f.name: f.type
        for f in dataclasses.fields(cls)
        if f.name not in ("tier", "seed") and f.default_factory is MISSING
    }
    return plain | ({"seed": int} if cls in (Evaluate, Exam, Teach) else {})


LISTS = {"rewards": "import paths", "students": "names"}
"""Settings that hold several texts, and of what."""


def _typed(cls: type, name: str, key: str, value: Any) -> Any:
    wanted = _settable(cls)[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if key == "students" and isinstance(value, str):
        return (value,)
    if key in LISTS and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if key in LISTS or not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
        kind = f"list of {LISTS[key]}" if key in LISTS else names[wanted]
        raise Refusal(f"{name} is {value!r}, not a {kind}: give one such as {_default(cls, key)!r}")
    if value != value or value in (float("inf"), float("-inf")):
        raise Refusal(f"{name} is {value!r}, not a finite number: give one such as {_default(cls, key)!r}")
    return value


def _default(cls: type, key: str) -> Any:
    return next(f.default for f in dataclasses.fields(cls) if f.name == key)


def check_positive(settings: Any, *names: str) -> None:
    """Refuse settings that are not above 0, by name."""
    part = type(settings).__name__.lower()
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            usual = _default(type(settings), name)
            raise Refusal(f"{part}.{name} is {value}, but it must be above 0: give one such as {usual}")


def check_not_negative(settings: Any, *names: str) -> None:
    """Refuse settings below 0, by name."""
    part = type(settings).__name__.lower()
    for name in names:
        value = getattr(settings, name)
        if value < 0:
            usual = _default(type(settings), name)
            raise Refusal(f"{part}.{name} is {value}, but it must not be below 0: give one such as {usual}")


def check_source(settings: Any, name: str = "questions") -> None:
    """Refuse a setting that names no source of questions."""
    source, part = getattr(settings, name), type(settings).__name__.lower()
    if not known_source(source):
        raise Refusal(f"{part}.{name} is {source!r}: choose {sources()}")


def known_source(source: str) -> bool:
    """Whether a text has the form of a source of questions; a folder's name other than `FOLDERS` must be there.

    Whether reasoning_gym has the task, or a path leads to a file, `data` finds out.

    >>> [known_source(name) for name in ("logic", "gsm8k", "reasoning-gym/countdown", "mine/riddles.jsonl", "Logic?")]
    [True, True, True, True, False]
    """
    if source in (*SOURCES, *FOLDERS) or re.fullmatch(rf"{GYM}[a-z0-9_]+|.+\.jsonl", source):
        return True
    return bool(re.fullmatch(r"[\w-][\w.-]*", source)) and (data_folder() / source).is_dir()


def sources() -> str:
    """The sources of questions, for a refusal."""
    names = ", ".join((*SOURCES, *FOLDERS))
    return f"one of {names}, {GYM}<task>, a path that ends in .jsonl, or a folder of such files in {data_folder()}"


def data_folder() -> Path:
    """The folder of all data: the variable R1REPRO_DATA, or ``data`` in the current folder."""
    return Path(os.environ.get("R1REPRO_DATA") or "data")
