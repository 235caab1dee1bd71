"""One GRPO rollout, 16 questions x 16 outputs, with its updates: ours against TRL's GRPOTrainer.

Two rollouts in each process; the first is warm-up, the second is timed.  Ours runs first and leaves its tokens,
log-probabilities and weights; TRL then does the whole of its own work, but each token that it draws is replaced by
ours.  So both sides have the same prompts, tokens, rewards, mini-batches and updates, and every round compares the
log-probabilities, the advantages and the weights after the first rollout's updates.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from bench.worker import answer
from r1repro import data, paper
from r1repro.config import RL, Machine, Policy
from r1repro.engine import actor, policy
from r1repro.rewards import combine
from r1repro.run import sha256_file
from r1repro.stages import rl
from r1repro.tinyworld import base, tokenizer

CASES = {"short": 160, "long": 200}
"""Case -> cap of an output.  In the long case every output has that length, see `held`."""

NEVER = "<|never|>"
ROLLOUTS = 2
BASE = "tiny-1m"


def advantages(rewards_QG: Tensor, valid_QG: Tensor | None = None) -> Tensor:
    """Eq. 3 with TRL's denominator: the standard deviation with G - 1, plus 1e-4."""
    centred_QG = rewards_QG - rewards_QG.mean(1, keepdim=True)
    return centred_QG / (rewards_QG.std(1, keepdim=True) + 1e-4)


def settings(case: str, **changes: Any) -> RL:
    """Of both sides: four updates a rollout, the paper's KL and clip, our cpu tier's learning rate."""
    wanted = dict(questions_per_step=4, steps_per_rollout=4, outputs_per_question=16, max_tokens=CASES.get(case, 200))
    fixed = dict(num_rollouts=ROLLOUTS, learning_rate=4e-5, advantage="bench.rollout:advantages")
    return RL(**(wanted | fixed | changes))


def end_token(case: str) -> None:
    """TRL's side of what `held` does: it asks the tokenizer which token ends an output."""
    if case != "short":
        tokenizer.load().add_special_tokens({"eos_token": NEVER})
        assert tokenizer.load().eos_token_id >= tokenizer.VOCABULARY


def held(case: str, weights: Path) -> tuple[actor.Actor, actor.Reference]:
    """Actor and reference of a case; but for the short one the end token is one that the model has no row for."""
    made = actor.load(weights)
    if case != "short":
        words = replace(made.vocabulary, end=tokenizer.VOCABULARY, ends=(tokenizer.VOCABULARY,))
        made = replace(made, vocabulary=words)
    return made, actor.Reference(made, weights, Policy())


def one_rollout(
    cfg: RL,
    index: int,
    made: actor.Actor,
    reference: actor.Reference,
    optimizer,
    machine: Machine,
    watch: rl.Watch | None = None,
) -> tuple[rl.Rollout, dict]:
    """What `rl.train` does in one rollout, but for its files: sample, score, compare, count, update."""
    watch, rewards = watch or rl.Watch(), combine.load(cfg.rewards)
    questions = data.rollout_questions(cfg.questions, cfg.seed, index, cfg.questions_per_rollout)
    samples = made.sample(
        questions, cfg.outputs_per_question, key=(cfg.seed, index), max_tokens=cfg.max_tokens,
        temperature=cfg.temperature,
    )  # fmt: skip
    watch.lap("sample_s")
    texts = made.texts(samples)
    asked = [q for q in questions for _ in range(cfg.outputs_per_question)]
    totals, parts = combine.total(rewards, asked, texts)
    watch.lap("reward_s")
    rollout = rl._compare(made, made.vocabulary.prompts(questions), samples, totals, reference, cfg, machine)
    watch.lap("reference_s")
    rl._rollout_log(index, asked, texts, samples, totals, parts, cfg)
    watch.lap("log_s")
    for rows in rl.mini_batches(cfg, index):
        rl.update_(made.model, optimizer, rollout, rows, cfg, machine)
    watch.lap("update_s")
    return rollout, watch.laps


def ours(case: str, folder: Path, model: str = "", micro_batch_tokens: int = 2048, **changes: Any) -> dict[str, Any]:
    """Seconds of the second rollout; leaves both rollouts' tokens and log-probabilities, and the first's weights."""
    cfg, machine = settings(case, **changes), Machine(micro_batch_tokens=micro_batch_tokens)
    weights = Path(model) if model else base.folder(BASE)
    made, reference = held(case, weights)
    optimizer = rl.new_optimizer(made.model, cfg)
    kept: dict[str, Tensor] = {}
    for index in range(ROLLOUTS):
        started = time.perf_counter()
        rollout, laps = one_rollout(cfg, index, made, reference, optimizer, machine)
        seconds = time.perf_counter() - started
        for name in ("tokens_NT", "length_N", "old_logp_NT", "ref_logp_NT", "advantage_N"):
            kept[f"{index}/{name}"] = getattr(rollout, name).contiguous()
        if index == 0:
            kept |= {f"weights/{n}": p.detach().clone() for n, p in made.model.named_parameters()}
    save_file(kept, folder / "ours.safetensors")
    length_N = kept[f"{ROLLOUTS - 1}/length_N"]
    return {
        "value": seconds,
        "unit": "s",
        "tokens": int(length_N.sum()),
        "mean_length": float(length_N.double().mean()),
        "weights": sha256_file(weights / "model.safetensors"),
        "parts": laps,
    }


class Replay(LogitsProcessor):
    """Every draw of row n, token t is the token that ours drew there."""

    def __init__(self, tokens_NT: Tensor, prompt_width: int):
        self.tokens_NT, self.prompt_width = tokens_NT, prompt_width

    def __call__(self, input_ids, scores):
        chosen_N1 = self.tokens_NT[:, input_ids.shape[1] - self.prompt_width, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_N1, 0.0)


def theirs(
    case: str,
    folder: Path,
    attention: str = "sdpa",
    micro_batch: int = 64,
    fused: bool = False,
    replay: bool = True,
    threads: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """Seconds of TRL's second rollout, with ours replayed; raises where the two sides differ.

    Args:
        micro_batch: rows of one forward and backward pass; their gradients are added up to one update of 64 rows.
        replay: False lets TRL sample freely; then its lengths are its own, its seconds are scaled to our number of
            tokens, and nothing is compared.
        more: further settings of GRPOConfig.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer import grpo_trainer

    if threads:
        torch.set_num_threads(threads)
    end_token(case)
    cfg, vocabulary = settings(case), tokenizer.load()
    kept = load_file(folder / "ours.safetensors")
    asked = [data.rollout_questions(cfg.questions, cfg.seed, i, cfg.questions_per_rollout) for i in range(ROLLOUTS)]
    questions = {q.id: q for some in asked for q in some}
    rows = [{"prompt": paper.template(q.text), "id": q.id} for some in asked for q in some]
    rewards = combine.load(cfg.rewards)

    model = policy.load(with_tokenizer(folder) if more.get("use_vllm") else base.folder(BASE))
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = vocabulary.eos_token_id
    generate, seen = model.generate, []
    if replay:

        def replaying(input_ids, **options):
            tokens_NT = kept[f"{len(seen)}/tokens_NT"]
            assert tokens_NT.shape[0] == input_ids.shape[0]
            processor = Replay(tokens_NT, input_ids.shape[1])
            return generate(input_ids, logits_processor=LogitsProcessorList([processor]), **options)

        model.generate = replaying

    def shuffle(batch: dict[str, Any]) -> dict[str, Any]:
        """Ours in the place of TRL's random order: the same mini-batches.  What passes here is also compared."""
        seen.append(batch)
        order = torch.cat(rl.mini_batches(cfg, len(seen) - 1))
        return {k: v if v is None or v.ndim == 0 else v[order] for k, v in batch.items()}

    grpo_trainer.shuffle_sequence_dict = shuffle

    def reward(completions, id, **_):
        return combine.total(rewards, [questions[i] for i in id], completions)[0]

    class Clock(TrainerCallback):
        """Notes the time after each update, and the weights after those of the first rollout."""

        def __init__(self):
            self.times, self.weights = {}, {}

        def on_step_end(self, args, state, control, **_):
            self.times[state.global_step] = time.perf_counter()
            if state.global_step == cfg.steps_per_rollout:
                self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}
                self.times[state.global_step] = time.perf_counter()

    clock, accumulate = Clock(), 64 // micro_batch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=cfg.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=fused
    )
    options = dict(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, num_generations=16,
        per_device_train_batch_size=micro_batch, gradient_accumulation_steps=accumulate,
        steps_per_generation=cfg.steps_per_rollout * accumulate, max_steps=cfg.steps_per_rollout * ROLLOUTS,
        max_completion_length=cfg.max_tokens, temperature=cfg.temperature, beta=cfg.kl_coefficient,
        epsilon=cfg.clip_low, epsilon_high=cfg.clip_high, loss_type="grpo", scale_rewards="group",
        use_bias_correction_kl=False, max_grad_norm=cfg.max_grad_norm, shuffle_dataset=False, save_strategy="no",
        report_to="none", disable_tqdm=True, logging_steps=100,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**(options | more)),
        train_dataset=Dataset.from_list(rows),
        processing_class=vocabulary,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=[clock],
    )
    trainer.train()
    seconds = clock.times[cfg.steps_per_rollout * ROLLOUTS] - clock.times[cfg.steps_per_rollout]
    length_N = seen[-1]["completion_mask"].sum(1)
    result = {
        "value": seconds,
        "unit": "s",
        "tokens": int(length_N.sum()),
        "mean_length": float(length_N.double().mean()),
        "weights": sha256_file(base.folder(BASE) / "model.safetensors"),
    }
    if replay:
        return result | {"checks": compared(kept, seen, clock.weights, cfg)}
    scale = int(kept[f"{ROLLOUTS - 1}/length_N"].sum()) / result["tokens"]
    return result | {"value": seconds * scale, "unscaled": seconds}


def with_tokenizer(folder: Path) -> Path:
    """The base model beside its tokenizer, where vLLM looks for one."""
    target = folder / "with-tokenizer"
    shutil.copytree(base.folder(BASE), target, dirs_exist_ok=True)
    tokenizer.load().save_pretrained(target)
    return target


def compared(kept: dict[str, Tensor], seen: list[dict], weights: dict[str, Tensor], cfg: RL) -> dict[str, float]:
    """The greatest differences between the sides, each held to its limit.

    Tokens and lengths are equal in both rollouts; log-probabilities and advantages are compared in the first, whose
    weights are the same file, and the weights after its updates.
    """
    for i, batch in enumerate(seen):
        mask_NT = torch.arange(kept[f"{i}/tokens_NT"].shape[1])[None] < kept[f"{i}/length_N"][:, None]
        assert torch.equal(batch["completion_mask"].bool(), mask_NT), "other lengths"
        assert torch.equal(batch["completion_ids"][mask_NT], kept[f"{i}/tokens_NT"][mask_NT]), "other tokens"
    first, mask_NT = seen[0], seen[0]["completion_mask"].bool()

    def apart(theirs: Tensor, name: str) -> float:
        return float((theirs - kept[f"0/{name}"]).abs().max())

    before = policy.load(base.folder(BASE)).requires_grad_(False)
    before = dict(before.named_parameters())
    moved = torch.cat([(weights[n] - w).flatten() for n, w in before.items()])
    by = torch.cat([(weights[n] - kept[f"weights/{n}"]).flatten() for n in weights])
    found = {
        "logp_nats": apart(first["old_per_token_logps"] * mask_NT, "old_logp_NT"),
        "reference_logp_nats": apart(first["ref_per_token_logps"] * mask_NT, "ref_logp_NT"),
        "advantage": apart(first["advantages"], "advantage_N"),
        "weights_mean": float(by.abs().mean()),
        "weights_max": float(by.abs().max()),
        "weights_moved": float(moved.abs().mean()),
    }
    limits = {"logp_nats": 2e-4, "reference_logp_nats": 2e-4, "advantage": 1e-4, "weights_max": 5e-5}
    # AdamW makes a whole step of a gradient near 0, so one weight may be off where the mean is not.
    limits["weights_mean"] = 1e-4 * found["weights_moved"]
    for name, limit in limits.items():
        assert found[name] <= limit, f"{name} differs by {found[name]}, more than {limit}"
    return found


if __name__ == "__main__":
    answer(ours, theirs)
