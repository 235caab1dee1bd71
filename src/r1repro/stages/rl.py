"""R1-Zero: reinforcement learning on a base model with rule rewards alone (sections 2.2.1 to 2.2.4).

The loop is `train`; everything that it calls is shorter than its name.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from tqdm.auto import tqdm

from r1repro import data
from r1repro.algo import grpo
from r1repro.config import RL, Machine
from r1repro.engine import actor as actors
from r1repro.engine import checkpoint, dist, policy, sampler, scorer
from r1repro.records import Question, Refusal, Score
from r1repro.rewards import combine, language
from r1repro.run import Interrupts, Run, speaking_of
from r1repro.tinyworld import arithmetic, base


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampling: N = Q * G outputs with all that its updates need."""

    prompts: list[list[int]]
    tokens_NT: Tensor
    length_N: Tensor
    old_logp_NT: Tensor
    """Under which the outputs were sampled."""

    ref_logp_NT: Tensor
    advantage_N: Tensor
    """One an output, or (N, T), one a token, where a critic judges."""

    question_N: Tensor
    """Row of ``prompts`` that each output answers."""

    importance_NT: Tensor | None = None
    """Weights of the tokens where another engine than the policy's sampled, see `grpo.importance`."""

    sampler_nats: float | None = None
    """Mean k3 between that engine and the policy, nats a token."""


class Critic:
    """What judges the tokens of a rollout: nobody.  GRPO does without a value model; PPO's is `ppo.Values`."""

    def load_(self, run: Path, step: int) -> None:
        """Become what it was after a step; at step 0 what it was made as."""

    def judged(self, rollout: Rollout, totals: Sequence[float | None]) -> Rollout:
        """The rollout, with advantages by the rewards of its outputs and by what was expected of them."""
        return rollout

    def update_(self, rollout: Rollout, rows: Tensor) -> dict[str, float]:
        """Learn from a mini-batch what came; returns what is logged of it."""
        return {}

    def save_(self, run: Path, step: int) -> None:
        """Keep what it is after a step; comes before the policy's checkpoint, which alone says that a step is done."""


NO_CRITIC = Critic()


def train(
    cfg: RL,
    run_dir: Path | str,
    base_dir: Path | str,
    machine: Machine | None = None,
    preference: scorer.Preference | None = None,
    critic: Critic = NO_CRITIC,
) -> Path:
    """Train by GRPO, or go on from the last checkpoint, or return at once when done; returns the run folder.

    Each rollout: draw questions, sample G outputs to each, score them, compare within the group, split the rollout at
    random into mini-batches, update once on each; every so many steps the reference becomes the policy.

    Args:
        preference: the reward models of RL for all scenarios, a further reward beside those of ``cfg``; one with a true
            ``together`` is asked by all ranks at the same time.
        critic: a value model that gives each token an advantage of its own (`ppo.Values`); GRPO has none.

    Raises:
        Refusal: another run lies in ``run_dir``, no model in ``base_dir``, a damaged checkpoint, a full disk, weights
            or loss that are no longer numbers.
    """
    machine = machine or Machine()
    further = [preference] if preference else []
    together = [reward for reward in further if getattr(reward, "together", False)]
    rewards = [*combine.load(cfg.rewards), *(reward for reward in further if reward not in together)]
    combine.load([cfg.advantage, cfg.ratio, cfg.average])
    dist.check_enough(cfg.questions_per_rollout, "questions_per_rollout")
    dist.check_enough(min(map(len, mini_batches(cfg, 0))), "the smallest mini-batch")
    inputs = {"base": dist.led(lambda: base.digest(base_dir))} | (preference.inputs if preference else {})
    for source in filter(None, (cfg.questions, cfg.late_questions)):
        inputs |= data.fingerprint(source)
    run = dist.open_run(run_dir, stage="rl", config=cfg, inputs=inputs, seed=cfg.seed)
    if run.complete:
        return run.path
    actor = actors.load(base_dir, cfg.policy, machine, trained=cfg.seed)
    reference = actors.Reference(actor, base_dir, cfg.policy)
    optimizer = new_optimizer(actor.model, cfg)
    first = _resume_(run, actor, reference, optimizer, cfg)
    critic.load_(run.path, first * cfg.steps_per_rollout)

    with closing(actor), Interrupts("this rollout") as interrupts:
        for index in tqdm(range(first, cfg.num_rollouts), initial=first, total=cfg.num_rollouts, desc="rollouts"):
            watch = Watch()
            questions = data.rollout_questions(cfg.questions_at(index), cfg.seed, index, cfg.questions_per_rollout)
            mine = questions[dist.share(len(questions), machine.tensor_parallel)]
            with Grading(rewards, mine, actor.texts, together) as grading:
                samples = actor.sample(
                    mine, cfg.outputs_per_question, key=(cfg.seed, index), max_tokens=cfg.max_tokens,
                    temperature=cfg.temperature, when_done=grading.begin,
                )  # fmt: skip
                watch.lap("time/rollout_s")
                asked, texts, totals, parts = grading.end(machine.tensor_parallel)
            samples = of_all_ranks(samples, machine.tensor_parallel)
            watch.lap("time/reward_s")
            rollout = _compare(actor, actor.vocabulary.prompts(questions), samples, totals, reference, cfg, machine)
            rollout = critic.judged(rollout, totals)

            log = _rollout_log(index, asked, texts, samples, totals, parts, cfg) | watch.laps
            first_step = index * cfg.steps_per_rollout + 1
            for step, rows in enumerate(mini_batches(cfg, index), start=first_step):
                optimizer.param_groups[0]["lr"] = cfg.learning_rate * min(1.0, step / max(1, cfg.warmup_steps))
                try:
                    log |= update_(actor.model, optimizer, rollout, rows, cfg, machine)
                except FloatingPointError as error:
                    dead = partial(_post_mortem, run, step, rollout, rows, str(error))
                    raise Refusal(dist.led(dead)) from error
                log |= critic.update_(rollout, rows)
                if rollout.sampler_nats is not None:
                    log["sampler/divergence_nats"] = rollout.sampler_nats
                if step > first_step:
                    log.pop("sampler/divergence_nats")  # by now the policy has moved away from the sampler on purpose
                if step % cfg.refresh_reference_every == 0:
                    reference.refresh_()
                    log["policy/reference_refreshed"] = 1.0
                run.log(step, log | {"time/elapsed_s": run.seconds()})
                log = {}

            actor.changed_()
            run.add_samples(_some_samples(step, questions, texts, totals, cfg))
            critic.save_(run.path, step)
            _save_(run, step, actor, optimizer=optimizer, reference=reference.tensors())
            checkpoint.keep_only(run.path, {step, *kept_steps(cfg)})
            run.keep_time()
            dist.stop(interrupts)
    lines = run.metrics()
    run.finish(tokens={kind: sum(int(x.get(f"tokens/{kind}", 0)) for x in lines) for kind in ("sampled", "trained")})
    return run.path


class Grading:
    """Rewards of outputs, computed beside the sampling of others: a thread takes each question's as they are whole.

    Args:
        together: rewards that all ranks must ask at the same time: they are asked at the end, about all outputs.
    """

    def __init__(
        self,
        rewards: Sequence[combine.Reward],
        questions: Sequence[Question],
        texts_of: Callable[[sampler.Samples], list[str]],
        together: Sequence[combine.Reward] = (),
    ):
        self._rewards, self._questions, self._texts_of, self._together = rewards, questions, texts_of, together
        self._found: dict[int, Future] = {}
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Grading":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def begin(self, question: int, samples: sampler.Samples) -> None:
        self._found[question] = self._thread.submit(self._grade, self._questions[question], self._texts_of(samples))

    def _grade(self, question: Question, texts: list[str]) -> tuple:
        asked = [question] * len(texts)
        return asked, texts, *combine.total(self._rewards, asked, texts)

    def end(self, teams: int = 1) -> tuple[list[Question], list[str], list[float | None], dict[str, list[Score]]]:
        """Question, text and total of each output, and the scores of each reward, of all ranks; waits for those under
        way."""
        asked, texts, totals, parts = _joined([self._found[q].result() for q in range(len(self._questions))])
        if self._together:
            more, others = combine.total(self._together, asked, texts)
            totals = [None if a is None or b is None else a + b for a, b in zip(totals, more, strict=True)]
            parts |= others
        return _joined(dist.gathered([(asked, texts, totals, parts)], teams))


def _joined(found: Sequence[tuple]) -> tuple[list[Question], list[str], list[float | None], dict[str, list[Score]]]:
    """Question, text, total and scores of the outputs of some groups, end to end."""
    asked, texts, totals = ([x for group in found for x in group[i]] for i in range(3))
    return asked, texts, totals, {name: [x for group in found for x in group[3][name]] for name in found[0][3]}


def of_all_ranks(samples: sampler.Samples, teams: int = 1) -> sampler.Samples:
    """The outputs of all ranks, in the order of the questions, no wider than the longest; ranks that share one copy of
    vLLM's weights sampled the same."""
    width = int(dist.most(samples.length_N.max()))
    narrow = [samples.tokens_NT[:, :width], samples.logp_NT[:, :width], samples.length_N, samples.truncated_N]
    return sampler.Samples(*(dist.stacked(rows, teams) for rows in narrow))


class Watch:
    """Seconds of the parts of a rollout, by their key of metrics.jsonl."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._at = time.monotonic()

    def lap(self, key: str) -> None:
        now = time.monotonic()
        self.laps[key], self._at = now - self._at, now


def new_optimizer(actor, cfg: RL) -> torch.optim.Optimizer:
    """AdamW; the loop sets its learning rate, constant after a short linear warm-up.

    Where the paper is silent:
        Optimiser, betas, weight decay, warm-up and schedule.  AdamW with (0.9, 0.95), no decay, `RL.warmup_steps`.
    """
    return policy.adamw(actor, cfg.learning_rate)


def kept_steps(cfg: RL) -> list[int]:
    """Steps whose checkpoints stay, for evaluation: the untouched base (0), equal parts of the run, its end.

    >>> kept_steps(RL(num_rollouts=6, steps_per_rollout=4, num_checkpoints=3))
    [0, 8, 16, 24]
    """
    marks = [round(cfg.num_rollouts * i / cfg.num_checkpoints) for i in range(cfg.num_checkpoints + 1)]
    return [mark * cfg.steps_per_rollout for mark in marks]


def mini_batches(cfg: RL, rollout: int) -> list[Tensor]:
    """Rows of each step of a rollout: a random split of its outputs, a function of (seed, rollout)."""
    rng = np.random.default_rng([cfg.seed, rollout, 1])
    order = torch.from_numpy(rng.permutation(cfg.questions_per_rollout * cfg.outputs_per_question))
    return list(order.chunk(cfg.steps_per_rollout))


def token_weights(rollout: Rollout, rows: Tensor, cfg: RL) -> tuple[Tensor, Tensor]:
    """1 at each token of some rows and how much it counts in a step on them: both (n, T), 0 at padding."""
    # The weights are made at the full width, the cap: Dr. GRPO divides by it.
    mask_NT = _mask(rollout.length_N[rows], cfg.max_tokens).to(rollout.old_logp_NT.dtype)
    width = rollout.tokens_NT.shape[1]
    return mask_NT[:, :width], _function(cfg.average)(mask_NT)[:, :width]


def update_(actor, optimizer, rollout: Rollout, rows: Tensor, cfg: RL, machine: Machine) -> dict[str, float]:
    """One step: the gradient of Eq. 1 over the mini-batch ``rows``, clipped by its norm, and the optimiser.

    Each rank takes its share of the rows; the token weights are those of the whole step.  The policy stays in
    evaluation mode: dropout would make it another one than the policy that sampled.
    """
    started = time.monotonic()
    mask_NT, weight_NT = token_weights(rollout, rows, cfg)
    if rollout.importance_NT is not None:
        weight_NT = weight_NT * rollout.importance_NT[rows]
    old_NT, ref_NT = rollout.old_logp_NT[rows], rollout.ref_logp_NT[rows]
    advantage_N = rollout.advantage_N[rows]
    mine = dist.share(len(rows))
    on_device = [x[mine].to(actor.device) for x in (old_NT, ref_NT, advantage_N, weight_NT)]
    losses: dict[int, Tensor] = {}

    def loss_of(logp_NT: Tensor, some: Tensor) -> Tensor:
        old, ref, advantage, weight = (x[some] for x in on_device)
        width = logp_NT.shape[1]
        loss = grpo.loss(
            logp_NT, old[:, :width], ref[:, :width], grpo.of_tokens(advantage)[:, :width], weight[:, :width],
            clip_low=cfg.clip_low, clip_high=cfg.clip_high, beta=cfg.kl_coefficient, ratio=_function(cfg.ratio),
        )  # fmt: skip
        losses[int(some[0])] = loss.detach()  # asked again for a smaller scale, it stands once
        return loss

    logp_NT = policy.backward_(
        actor, rollout.prompts, rollout.question_N[rows[mine]], rollout.tokens_NT[rows[mine]],
        rollout.length_N[rows[mine]], loss_of,
        temperature=cfg.temperature, max_tokens=machine.micro_batch_tokens, logits_at_once=machine.logits_at_once,
    )  # fmt: skip
    dist.add_gradients_(actor)
    norm = policy.clip_(actor, cfg.max_grad_norm)
    loss, logp_NT = dist.total(torch.stack([*losses.values()]).sum()), dist.stacked(logp_NT)
    if not torch.isfinite(norm + loss):
        raise FloatingPointError(f"loss {loss.item()} and gradient norm {norm.item()} are no longer numbers")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    on_NT = mask_NT > 0
    clip = grpo.clipped(logp_NT, old_NT, advantage_N, clip_low=cfg.clip_low, clip_high=cfg.clip_high)
    return {
        "policy/loss": loss.item(),
        "policy/grad_norm": norm.item(),
        "policy/clip_share": clip[on_NT].double().mean().item(),
        "policy/ratio_max": (logp_NT - old_NT)[on_NT].max().exp().item(),
        "policy/kl_reference_nats": grpo.kl_to_reference(logp_NT, ref_NT)[on_NT].double().mean().item(),
        "policy/entropy_nats": -old_NT[on_NT].double().mean().item(),
        "sampler/divergence_nats": divergence(logp_NT, old_NT, on_NT),
        "tokens/trained": float(on_NT.sum()),
        "time/update_s": time.monotonic() - started,
    }


def _post_mortem(run: Run, step: int, rollout: Rollout, rows: Tensor, error: str) -> str:
    """Save the mini-batch of a step that failed; returns what to say of it."""
    good = checkpoint.folder_of(run.path, checkpoint.steps_in(run.path)[-1])
    batch = {name: getattr(rollout, name)[rows].contiguous() for name in BATCH}
    file = run.path / f"failed-step-{step:06d}.safetensors"
    with speaking_of(file):
        file.with_suffix(".tmp").write_bytes(safetensors.torch.save(batch))
        file.with_suffix(".tmp").replace(file)
    return (
        f"step {step}: {error}; its batch is in {file}, the last good checkpoint in {good}: "
        "lower learning_rate and choose another run_dir"
    )


BATCH = ("question_N", "tokens_NT", "length_N", "old_logp_NT", "ref_logp_NT", "advantage_N")
"""What of a rollout is saved when a step fails."""


def divergence(logp_NT: Tensor, old_logp_NT: Tensor, on_NT: Tensor) -> float:
    """Mean k3 between sampler and policy, nats a token: 0 when the policy has not moved and both compute alike.

    In double precision, because it is the difference of numbers near 1.
    """
    return grpo.kl_to_reference(old_logp_NT[on_NT].double(), logp_NT[on_NT].double()).mean().item()


def _compare(
    actor: actors.Actor, prompts: list[list[int]], samples: sampler.Samples, totals, reference: actors.Reference,
    cfg: RL, machine: Machine,
) -> Rollout:  # fmt: skip
    """Advantages within each group, and the reference's log-probabilities, once for all steps of the rollout.

    Where another engine sampled, the old policy is what the policy itself says of the outputs, and tokens are weighed.
    """
    dtype, width = samples.logp_NT.dtype, int(samples.length_N.max())
    shape = (len(prompts), cfg.outputs_per_question)
    rewards_QG = torch.tensor([0.0 if t is None else t for t in totals], dtype=dtype).view(shape)
    valid_QG = torch.tensor([t is not None for t in totals]).view(shape)
    question_N = torch.arange(len(prompts)).repeat_interleave(cfg.outputs_per_question)
    tokens_NT = samples.tokens_NT[:, :width].clone()
    questions = dist.share(len(prompts))
    mine = slice(questions.start * shape[1], questions.stop * shape[1])

    def logp_of(model) -> Tensor:
        """Of all outputs; each rank computes those to its own questions."""
        own = policy.all_logp(
            model, prompts[questions], question_N[mine] - questions.start, tokens_NT[mine], samples.length_N[mine],
            temperature=cfg.temperature, max_tokens=machine.micro_batch_tokens, logits_at_once=machine.logits_at_once,
        )  # fmt: skip
        return dist.stacked(own)

    with reference.model() as model:
        ref_logp_NT = logp_of(model)
    old_logp_NT, more = samples.logp_NT[:, :width].clone(), {}
    if actor.serving:
        served_NT, old_logp_NT = old_logp_NT, logp_of(actor.model)
        on_NT = _mask(samples.length_N, width)
        more = dict(
            importance_NT=grpo.importance(old_logp_NT, served_NT, cfg.policy.importance_cap),
            sampler_nats=divergence(old_logp_NT, served_NT, on_NT),
        )
    return Rollout(
        prompts=prompts,
        tokens_NT=tokens_NT,
        length_N=samples.length_N.clone(),
        old_logp_NT=old_logp_NT,
        ref_logp_NT=ref_logp_NT,
        advantage_N=_function(cfg.advantage)(rewards_QG, valid_QG).view(-1),
        question_N=question_N,
        **more,
    )


def _function(path: str):
    """A variant of an equation by its import path, as rewards are."""
    return combine.load([path])[0]


def _mask(length_N: Tensor, width: int) -> Tensor:
    return torch.arange(width)[None] < length_N[:, None]


def _resume_(run: Run, actor: actors.Actor, reference: actors.Reference, optimizer, cfg: RL) -> int:
    """Load the last checkpoint, if there is one; returns the rollout to go on with."""
    steps = dist.led(lambda: checkpoint.steps_in(run.path))
    if not steps:
        _save_(run, 0, actor)
    elif steps[-1]:
        folder = checkpoint.folder_of(run.path, steps[-1])
        checkpoint.load_(folder, actor.model, optimizer=optimizer, reference=reference.tensors())
        actor.changed_()
    done = steps[-1] if steps else 0
    run.rewind(done)
    return done // cfg.steps_per_rollout


def _save_(run: Run, step: int, actor: actors.Actor, **more) -> None:
    checkpoint.save_(run.path, step, actor.model, actor.vocabulary.tokenizer, **more)


def _rollout_log(index, asked, texts, samples, totals, parts: dict[str, list[Score]], cfg: RL) -> dict[str, float]:
    """What a rollout's outputs look like, as fractions and means."""
    length = samples.length_N.numpy()
    log = {"rollout/index": float(index), "tokens/sampled": float(length.sum())}
    log["reward/mean"] = float(np.mean([t for t in totals if t is not None] or [0.0]))
    ruled = np.array([q.kind != "open" for q in asked])
    for name, scores in parts.items():
        chosen = (
            scores
            if name == "format"
            else [x for x, r in zip(scores, ruled == (name != "preference"), strict=True) if r]
        )
        if f"reward/{name}" in LOGGED and chosen:
            log[f"reward/{name}"] = float(np.mean([s.value for s in chosen if s.value is not None] or [0.0]))
    verdicts = np.array([s.verdict for s in next(iter(parts.values()))])[ruled]
    levels, families = (np.array(x)[ruled] for x in ([q.level for q in asked], [q.family for q in asked]))
    for verdict in ("right", "wrong", "unparsed", "timed_out", "error"):
        log[f"verdict/{verdict}"] = float(np.mean(verdicts == verdict)) if len(verdicts) else 0.0
    for level in sorted(set(levels)):
        log[f"reward/accuracy_level_{level}"] = float(np.mean(verdicts[levels == level] == "right"))
    for family in sorted(set(families)):
        log[f"family/{family}"] = float(np.mean(verdicts[families == family] == "right"))
    log["length/mean"] = float(length.mean())
    for verdict in ("right", "wrong"):
        if (verdicts == verdict).any():
            log[f"length/{verdict}"] = float(length[ruled][verdicts == verdict].mean())
    log["length/truncated"] = float(samples.truncated_N.double().mean())
    size = cfg.outputs_per_question
    groups = [{t for t in totals[i : i + size] if t is not None} for i in range(0, len(totals), size)]
    log["group/no_variance"] = float(np.mean([len(different) < 2 for different in groups]))
    log["language/mixed"] = float(
        np.mean([language.is_mixed(t, q.language) for q, t in zip(asked, texts, strict=True)])
    )
    shares = [language.language_share(t, q.language) for q, t in zip(asked, texts, strict=True)]
    log["language/consistency"] = float(np.mean(shares))
    reflections = sum(language.reflection_count(t, q.language) for q, t in zip(asked, texts, strict=True))
    log["reflection/per_answer"] = reflections / len(texts)
    log["reflection/per_1000_tokens"] = 1000 * reflections / float(length.sum())
    sums = [
        arithmetic.depth_of(language.thinking(t)) for q, t in zip(asked, texts, strict=True) if q.family == "chain_sum"
    ]
    for depth in arithmetic.DEPTHS if sums else ():
        log[f"depth/{depth}"] = float(np.mean(np.array(sums) == depth))
    return log


LOGGED = ("reward/accuracy", "reward/format", "reward/language_consistency", "reward/preference", "reward/process")
"""Rewards whose means are logged by name: accuracy over questions with a rule, preference over those without."""


def _some_samples(step, questions: Sequence[Question], texts, totals, cfg: RL) -> list[dict]:
    """The first output to the two questions with the smallest ids: chosen by hash, never by eye."""
    chosen = sorted(range(len(questions)), key=lambda i: questions[i].id)[:2]
    first = cfg.outputs_per_question
    return [
        {"step": step, "id": questions[i].id, "question": questions[i].text, "gold": questions[i].gold,
         "text": texts[i * first], "reward": totals[i * first]}
        for i in chosen
    ]  # fmt: skip
