"""The torch sampler: outputs, and the log-probabilities under which they were sampled.

Runs any Hugging Face causal model with rotary or learnt positions, on any machine.  Each prompt is prefilled once a
question, and what all prompts begin with once in all.  Keys and values of a row live in a static block that is
written in place; rows that have ended are dropped.  Only the attention of the one-token step is our own; all else is
the model's.

**Noise is a function, not a state.**  A token is the argmax of log p + g, with g Gumbel noise that a hash makes from
(seed, rollout, question, output, position, token).  So the tokens of an output do not depend on what else is in the
batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AttentionInterface, PreTrainedModel

from r1repro.engine import policy
from r1repro.records import Refusal


@dataclass(frozen=True, slots=True)
class Samples:
    """N = Q * G outputs; row q * G + g is output g to question q."""

    tokens_NT: Tensor
    logp_NT: Tensor
    """Log-probabilities in nats of the distribution that was sampled from; 0 at padding."""

    length_N: Tensor
    """Tokens of each output, its end token included."""

    truncated_N: Tensor
    """True where the cap came before the end token."""


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    num_outputs: int,
    *,
    key: tuple[int, ...],
    question_keys: Sequence[int],
    max_tokens: int,
    end: int,
    pad: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_rows: int = 512,
    progress: str | None = None,
) -> Samples:
    """Sample ``num_outputs`` outputs to each of Q prompts.

    Args:
        key: what makes this sampling another one than the next: (seed, rollout).
        question_keys: an integer a question, which with ``key`` makes its noise.
        top_p: 1.0 in rollouts, always: a cut distribution is not the policy (rollouts with 0.95 bias the ratio).
        max_rows: rows sampled side by side; changes no token.
        progress: label of a progress bar over outputs; None for none.
    """
    num_rows = len(prompts) * num_outputs
    tokens_NT = torch.full((num_rows, max_tokens), pad)
    logp_NT = torch.zeros(num_rows, max_tokens, dtype=next(model.parameters()).dtype)
    length_N = torch.zeros(num_rows, dtype=torch.long)
    bar = tqdm(total=num_rows, desc=progress, disable=progress is None, unit="output", leave=False)
    before = model.config._attn_implementation
    per_chunk = max(1, max_rows // num_outputs)
    with torch.inference_mode():
        for first in range(0, len(prompts), per_chunk):
            chunk = range(first, min(first + per_chunk, len(prompts)))
            shared = policy.prefix(model, [prompts[q] for q in chunk])
            noise = _row_keys(key, [question_keys[q] for q in chunk], num_outputs)
            rows = slice(first * num_outputs, chunk.stop * num_outputs)
            model.set_attn_implementation(ATTENTION)
            try:
                _decode_(
                    model, shared, noise, tokens_NT[rows], logp_NT[rows], length_N[rows], end, temperature, top_p, bar
                )
            finally:
                model.set_attn_implementation(before)
    bar.close()
    if not torch.isfinite(logp_NT).all():
        row = int((~torch.isfinite(logp_NT)).any(1).nonzero()[0])
        raise Refusal(
            f"the model's log-probabilities are no numbers (question {row // num_outputs + 1} of {len(prompts)}): its "
            "weights are damaged or have diverged; take an earlier checkpoint"
        )
    truncated_N = tokens_NT[torch.arange(num_rows), length_N - 1] != end
    return Samples(tokens_NT, logp_NT.clone(), length_N, truncated_N)


def _decode_(model, shared, noise_N, tokens_NT, logp_NT, length_N, end, temperature, top_p, bar) -> None:
    """Sample one chunk, writing tokens, log-probabilities and lengths in place."""
    num_outputs = len(noise_N) // len(shared.last_Q)
    cache = _Cache(shared, num_outputs, tokens_NT.shape[1])
    question_N = torch.arange(len(shared.last_Q)).repeat_interleave(num_outputs)
    row_N = torch.arange(len(noise_N))
    token_N, position_N = shared.last_Q[question_N], shared.length_Q[question_N]
    length_N.fill_(tokens_NT.shape[1])
    for t in range(tokens_NT.shape[1]):
        logits_NV = model(
            input_ids=token_N[:, None], position_ids=position_N[:, None] + t, past_key_values=cache, use_cache=True
        ).logits[:, -1]
        token_N, chosen_N = choose(logits_NV, gumbel(noise_N, t, logits_NV.shape[-1]), temperature, top_p)
        tokens_NT[row_N, t], logp_NT[row_N, t] = token_N, chosen_N
        cache.advance()
        alive_N = token_N != end
        if not alive_N.all():
            length_N[row_N[~alive_N]] = t + 1
            bar.update(int((~alive_N).sum()))
            order = cache.close_ranks(alive_N)
            if not len(order):
                return
            row_N, token_N, position_N = row_N[order], token_N[order], position_N[order]
            noise_N = noise_N[order.numpy()]
    bar.update(len(row_N))


def choose(logits_NV: Tensor, gumbel_NV: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Token of each row, and its log-probability in nats under what was sampled from (temperature and top-p applied).

    With ``top_p`` below 1 the most probable tokens are kept until their sum reaches it; the one that crosses it stays.
    """
    logp_NV = torch.log_softmax(logits_NV / temperature, -1)
    index_NV = None
    if top_p < 1.0:
        size = logp_NV.shape[-1]
        # What lies below (1 - top_p) / V cannot be in the nucleus, so there is no need to sort it.
        width = int((logp_NV >= math.log((1 - top_p) / size)).sum(-1).max())
        logp_NV, index_NV = logp_NV.topk(width, -1)
        before_NV = logp_NV.exp().cumsum(-1) - logp_NV.exp()
        logp_NV = torch.log_softmax(logp_NV.masked_fill(before_NV >= top_p, -torch.inf), -1)
        gumbel_NV = gumbel_NV.gather(-1, index_NV)
    best_N1 = (logp_NV + gumbel_NV).argmax(-1, keepdim=True)
    token_N1 = best_N1 if index_NV is None else index_NV.gather(-1, best_N1)
    return token_N1.squeeze(1), logp_NV.gather(-1, best_N1).squeeze(1)


def gumbel(key_N: np.ndarray, position: int, size: int) -> Tensor:
    """Standard Gumbel noise, (N, size), from a 32-bit hash of (row key, position, token): no state, no order."""
    with np.errstate(over="ignore"):
        row_N = _mix(key_N ^ np.uint32(position * 0x9E3779B1 & 0xFFFFFFFF))
        bits_NV = _mix(row_N[:, None] + np.arange(size, dtype=np.uint32)[None] * np.uint32(0x85EBCA77))
    uniform_NV = torch.from_numpy(bits_NV.astype(np.float32)).add_(0.5).mul_(2.0**-32)
    return uniform_NV.neg_().log1p_().neg_().log_().neg_()


def _mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 32-bit integers whose output bits depend on all input bits: two multiply-xorshift rounds."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def _row_keys(key: tuple[int, ...], question_keys: Sequence[int], num_outputs: int) -> np.ndarray:
    """One 32-bit key a row, from (key, question, output)."""
    sequences = [np.random.SeedSequence([*key, q & 0xFFFFFFFFFFFFFFFF]) for q in question_keys]
    return np.concatenate([s.generate_state(num_outputs, dtype=np.uint32) for s in sequences])


class _Cache:
    """Keys and values: what all rows share, and a static block of (rows, heads, tail + T, width) a layer."""

    def __init__(self, shared: policy.Prefix, num_outputs: int, max_tokens: int):
        common = shared.num_common
        self._common = [(k[0, :, :common], v[0, :, :common]) for k, v in zip(shared.keys, shared.values, strict=True)]
        self._blocks = [
            (_block(k[:, :, common:], num_outputs, max_tokens), _block(v[:, :, common:], num_outputs, max_tokens))
            for k, v in zip(shared.keys, shared.values, strict=True)
        ]
        tail_QP = shared.mask_QP[:, common:]
        bias_QP = torch.zeros(tail_QP.shape, dtype=shared.keys[0].dtype).masked_fill(~tail_QP, -torch.inf)
        self._bias = bias_QP.repeat_interleave(num_outputs, 0)
        self._slot = tail_QP.shape[1]
        self._rows = len(self._bias)

    def get_seq_length(self, layer: int = 0) -> int:
        return self._common[0][0].shape[1] + self._slot

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple["_View", None]:
        block_keys, block_values = self._blocks[layer]
        block_keys[: self._rows, :, self._slot] = keys[:, :, 0]
        block_values[: self._rows, :, self._slot] = values[:, :, 0]
        upto = self._slot + 1
        return _View(
            *self._common[layer], block_keys[: self._rows, :, :upto], block_values[: self._rows, :, :upto], self._bias
        ), None

    def advance(self) -> None:
        self._slot += 1

    def close_ranks(self, alive_N: Tensor) -> Tensor:
        """Drop ended rows; the last living ones move into their places.  Returns the new order of rows."""
        living, ended = alive_N.nonzero().squeeze(1), (~alive_N).nonzero().squeeze(1)
        movers, holes = living[living >= len(living)], ended[ended < len(living)]
        for block in (b for pair in self._blocks for b in pair):
            block[holes, :, : self._slot] = block[movers, :, : self._slot]
        order = torch.arange(len(living))
        order[holes] = movers
        self._bias, self._rows = self._bias[order], len(order)
        return order


def _block(tail: Tensor, num_outputs: int, max_tokens: int) -> Tensor:
    questions, heads, width, size = tail.shape
    block = tail.new_empty(questions * num_outputs, heads, width + max_tokens, size)
    block[:, :, :width] = tail.repeat_interleave(num_outputs, 0)
    return block


@dataclass(frozen=True, slots=True)
class _View:
    common_keys: Tensor
    common_values: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor


ATTENTION = "r1repro_one_token"


def _attend(module, query: Tensor, view: _View, _, attention_mask, scaling: float, **unused) -> tuple[Tensor, None]:
    """Attention of one new token a row over what all rows share and over the row's own block."""
    rows, heads, _, size = query.shape
    kv_heads, at = view.keys.shape[1], view.common_keys.shape[1]
    query = query.reshape(rows, kv_heads, heads // kv_heads, size) * scaling
    per_head = rows * (heads // kv_heads)
    across = query.transpose(0, 1).reshape(kv_heads, per_head, size)
    common = (across @ view.common_keys.transpose(1, 2)).view(kv_heads, rows, heads // kv_heads, at).transpose(0, 1)
    own = query @ view.keys.transpose(2, 3)
    own[..., : view.bias.shape[1]] += view.bias[:, None, None]
    weights = torch.cat([common, own], -1).softmax(-1)
    shared_part = weights[..., :at].transpose(0, 1).reshape(kv_heads, per_head, at) @ view.common_values
    out = shared_part.view(kv_heads, rows, heads // kv_heads, size).transpose(0, 1) + weights[..., at:] @ view.values
    return out.reshape(rows, 1, heads, size), None


AttentionInterface.register(ATTENTION, _attend)
