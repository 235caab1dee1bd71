"""PPO as a baseline beside GRPO (v2, appendix A.3): the loop of `rl.train`, and a value model that judges each token.

The value model is the policy with a scalar head.  Before the updates of a rollout it says what it expects at each
token; `algo.ppo.gae` makes advantages of that; on each mini-batch it learns what came, beside the policy's own step.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from r1repro.algo import ppo
from r1repro.config import Machine
from r1repro.config_arms import PPO
from r1repro.engine import checkpoint, policy, scorer
from r1repro.records import Refusal
from r1repro.stages import rl


def train(cfg: PPO, run_dir: Path | str, base_dir: Path | str, machine: Machine | None = None) -> Path:
    """Train by PPO, or go on from the last checkpoint, or return at once when done; returns the run folder.

    Everything but the advantages is `rl.train`'s: questions, sampling, rewards, mini-batches, the clipped surrogate.
    The KL term is in the reward, as in usual PPO (v2 A.3), and so ``cfg.kl_coefficient`` is 0.

    Raises:
        Refusal: see `rl.train`; a policy that is not trained in full.
    """
    if cfg.policy.weights != "full" or cfg.policy.sampler != "torch":
        raise Refusal(
            f"PPO's value model is trained in full beside the torch sampler, not with policy.weights="
            f"{cfg.policy.weights}, policy.sampler={cfg.policy.sampler}: set them to full and torch"
        )
    return rl.train(cfg, run_dir, base_dir, machine, critic=Values(cfg, base_dir, machine or Machine()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(rl.Rollout):
    """A rollout with advantages of tokens, and with what the value model is to learn of it."""

    return_NT: Tensor
    explained: float
    """Ours: see the glossary's value/explained."""


class Values(rl.Critic):
    """The value model, its optimiser, and where they are kept: ``<run>/value``."""

    def __init__(self, cfg: PPO, base_dir: Path | str, machine: Machine):
        self.cfg, self.base_dir, self.machine = cfg, Path(base_dir), machine

    def load_(self, run: Path, step: int) -> None:
        self.model = scorer.load_value(self.base_dir).to(self.machine.device)
        self.optimizer = policy.adamw(self.model, self.cfg.value_learning_rate)
        if step:
            checkpoint.load_(checkpoint.folder_of(run / "value", step), self.model, optimizer=self.optimizer)

    def save_(self, run: Path, step: int) -> None:
        words = self.model.r1repro_words.tokenizer
        checkpoint.save_(run / "value", step, self.model, words, optimizer=self.optimizer)
        before = step - self.cfg.steps_per_rollout  # a kill may come before the policy's checkpoint of this step
        checkpoint.keep_only(run / "value", {step, before, *rl.kept_steps(self.cfg)})

    def judged(self, rollout: rl.Rollout, totals: Sequence[float | None]) -> Judged:
        """Advantages of each token, whitened over the rollout; 0 where the grader failed."""
        mask_NT, _ = rl.token_weights(rollout, torch.arange(len(totals)), self.cfg)
        known_NT = mask_NT * torch.tensor([t is not None for t in totals]).unsqueeze(1)
        reward_N = torch.tensor([0.0 if t is None else t for t in totals]).to(mask_NT.dtype)
        reward_NT = ppo.token_rewards(
            reward_N, rollout.old_logp_NT, rollout.ref_logp_NT, mask_NT, beta=self.cfg.kl_in_reward
        )
        asked = (rollout.prompts, rollout.question_N, rollout.tokens_NT, rollout.length_N)
        value_NT = policy.all_logp(
            self.model, *asked, temperature=1.0, max_tokens=self.machine.micro_batch_tokens, read=scorer.output_values
        )
        advantage_NT = ppo.gae(reward_NT, value_NT, mask_NT, lam=self.cfg.gae_lambda)
        come_NT = ppo.gae(reward_NT, torch.zeros_like(value_NT), mask_NT, lam=1.0)
        fields = {name: getattr(rollout, name) for name in rl.Rollout.__dataclass_fields__}
        return Judged(
            **fields | {"advantage_N": ppo.whitened(advantage_NT, known_NT)},
            return_NT=torch.where(known_NT > 0, advantage_NT + value_NT, value_NT),
            explained=_explained(value_NT, come_NT, known_NT),
        )

    def update_(self, rollout: Judged, rows: Tensor) -> dict[str, float]:
        """One step of the value model on the mini-batch of the policy's step, with the same weights of tokens."""
        started = time.monotonic()
        (_, weight_NT), return_NT = rl.token_weights(rollout, rows, self.cfg), rollout.return_NT[rows]
        losses: dict[int, Tensor] = {}

        def loss_of(value_NT: Tensor, some: Tensor) -> Tensor:
            came, weight = (x[some, : value_NT.shape[1]].to(value_NT.device) for x in (return_NT, weight_NT))
            loss = ppo.value_loss(value_NT, came, weight)
            losses[int(some[0])] = loss.detach()
            return loss

        policy.backward_(
            self.model, rollout.prompts, rollout.question_N[rows], rollout.tokens_NT[rows], rollout.length_N[rows],
            loss_of, temperature=1.0, max_tokens=self.machine.micro_batch_tokens, read=scorer.output_values,
        )  # fmt: skip
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.max_grad_norm)
        loss = torch.stack([*losses.values()]).sum()
        if not torch.isfinite(norm + loss):
            raise Refusal("the value model's loss is no number: lower ppo.value_learning_rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "value/loss": loss.item(),
            "value/grad_norm": norm.item(),
            "value/explained": rollout.explained,
            "time/value_s": time.monotonic() - started,
        }


def _explained(value_NT: Tensor, come_NT: Tensor, on_NT: Tensor) -> float:
    """1 minus the variance of what was not expected over that of what came; 0 where all that came was the same."""
    came, left = come_NT[on_NT > 0], (come_NT - value_NT)[on_NT > 0]
    spread = came.var(correction=0).item() if len(came) else 0.0
    return 1 - left.var(correction=0).item() / spread if spread > 0 else 0.0
