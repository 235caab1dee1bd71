"""The policy: log-probabilities of outputs, with each prompt computed once a question.

Most tokens of a step are prompt: the paper's template, the same in all, then a question, shared by its group.  So the
work is cut in three: the tokens that all prompts begin with, once; the rest of each prompt, once a question; the
outputs.  The keys and values of a prompt are handed to its outputs, their gradients are added up and sent back
through the prompt once. Nothing of this changes a log-probability or a gradient; `tests/test_policy.py` compares with
repeated prompts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging

from r1repro.algo import likelihood
from r1repro.engine import attention, checkpoint
from r1repro.records import Refusal

logging.disable_progress_bar()  # it counts files, of which there is one


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model from a folder in Hugging Face form; safetensors only, no code from the folder is run."""
    if not (Path(folder) / "config.json").exists():
        raise Refusal(f"no model at {folder}: give the folder of a Hugging Face model, or `make base` for the tiny one")
    if (Path(folder) / "checkpoint.json").exists():
        checkpoint.verify(Path(folder))
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise Refusal(f"the model at {folder} cannot be loaded ({reason}): put it there whole") from error
    return model.eval()


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of Q prompts without their last token, left-padded to one length P.

    The first ``num_common`` positions are the tokens that all prompts begin with; no padding stands before them.
    """

    keys: list[Tensor]
    values: list[Tensor]
    """One tensor a layer: (Q, heads, P, width of a head)."""

    mask_QP: Tensor
    length_Q: Tensor
    """Tokens of each prompt without its last one: the position of that last one."""

    last_Q: Tensor
    """The last token of each prompt: the first input of the outputs."""

    num_common: int

    def end_to_end(self) -> list[Tensor]:
        """Keys, then values, of each layer without the padding: (1, heads, tokens of all prompts, width of a head)."""
        return [t.transpose(0, 1)[:, self.mask_QP].unsqueeze(0) for t in (*self.keys, *self.values)]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What prompts begin with: its tokens, and their keys and values, one tensor a layer (1, heads, tokens, width)."""

    tokens: list[int]
    keys: list[Tensor]
    values: list[Tensor]


def beginning(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Beginning:
    """Run the tokens that all prompts begin with through the model."""
    tokens = list(prompts[0][: _common_length(prompts)])
    if not tokens:
        return Beginning([], [], [])
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Beginning(tokens, [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers])


def prefix(model: PreTrainedModel, prompts: Sequence[Sequence[int]], common: Beginning | None = None) -> Prefix:
    """Run Q prompts through the model, their common beginning once, or not at all where it is given."""
    common = common or beginning(model, prompts)
    num_common = len(common.tokens)
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(zip(common.keys, common.values, strict=True)):
        cache.update(keys.expand(len(prompts), -1, -1, -1), values.expand(len(prompts), -1, -1, -1), layer)
    tails = [list(p[num_common:-1]) for p in prompts]
    width = max(map(len, tails))
    length_Q = torch.tensor([len(p) - 1 for p in prompts])
    tail_mask_QP = torch.arange(width)[None] >= width - torch.tensor([len(t) for t in tails])[:, None]
    mask_QP = torch.cat([torch.ones(len(prompts), num_common, dtype=torch.bool), tail_mask_QP], 1)
    if width:
        tails_QP = torch.tensor([[0] * (width - len(t)) + t for t in tails])
        position_QP = (mask_QP.cumsum(1) - 1)[:, num_common:].clamp(min=0)
        model(
            input_ids=tails_QP,
            attention_mask=mask_QP.long(),
            position_ids=position_QP,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefix(
        keys=[layer.keys for layer in cache.layers],
        values=[layer.values for layer in cache.layers],
        mask_QP=mask_QP,
        length_Q=length_Q,
        last_Q=torch.tensor([p[-1] for p in prompts]),
        num_common=num_common,
    )


def _common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; each keeps at least two of its own, a tail and a last token."""
    shortest = min(map(len, prompts))
    for i in range(shortest - 2):
        if any(p[i] != prompts[0][i] for p in prompts):
            return i
    return max(shortest - 2, 0)


def output_logp(
    model: PreTrainedModel,
    shared: Prefix,
    prompts: Sequence[Tensor],
    question_N: Tensor,
    tokens_NT: Tensor,
    length_N: Tensor,
    temperature: float,
) -> Tensor:
    """Log-probability in nats of each token of N outputs, (N, T), 0 at padding; in the order of their questions.

    The outputs go through the model end to end, without padding; only attention knows where one begins.

    Args:
        prompts: ``shared.end_to_end()``.
    """
    half = len(prompts) // 2
    on_NT = torch.arange(tokens_NT.shape[1]) < length_N[:, None]
    inputs_NT = torch.cat([shared.last_Q[question_N][:, None], tokens_NT[:, :-1]], 1)
    position_NT = shared.length_Q[question_N][:, None] + torch.arange(tokens_NT.shape[1])
    layout = attention.Layout.of(question_N, length_N, shared.length_Q)
    with attention.used_by(model, attention.PACKED):
        logits_1MV = model(
            input_ids=inputs_NT[on_NT][None],
            position_ids=position_NT[on_NT][None],
            past_key_values=attention.PackedCache(prompts[:half], prompts[half:], layout),
            use_cache=True,
        ).logits
    logp_1M = likelihood.token_logp(logits_1MV, tokens_NT[on_NT][None], temperature)
    return logp_1M.new_zeros(tokens_NT.shape).masked_scatter(on_NT, logp_1M)


def text_logp(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """Log-probability in nats of each token of some texts but their first ones, end to end: (M,).

    Each text begins at position 0 and sees itself alone.
    """
    length_N = torch.tensor([len(text) - 1 for text in texts])
    inputs_1M = torch.tensor([[token for text in texts for token in text[:-1]]])
    tokens_1M = torch.tensor([[token for text in texts for token in text[1:]]])
    position_1M = torch.cat([torch.arange(length) for length in length_N.tolist()])[None]
    with attention.used_by(model, attention.PACKED):
        logits_1MV = model(
            input_ids=inputs_1M, position_ids=position_1M, past_key_values=attention.Alone(length_N), use_cache=True
        ).logits
    return likelihood.token_logp(logits_1MV, tokens_1M)[0]


def micro_batches(question_N: Tensor, length_N: Tensor, max_tokens: int) -> Iterator[Tensor]:
    """Indices of outputs in the order of their questions, at most ``max_tokens`` tokens at a time (at least one
    output)."""
    order = torch.argsort(question_N, stable=True)
    lengths, start, tokens = length_N[order].tolist(), 0, 0
    for i, length in enumerate(lengths):
        if i > start and tokens + length > max_tokens:
            yield order[start:i]
            start, tokens = i, 0
        tokens += length
    yield order[start:]


@torch.no_grad()
def all_logp(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    question_N: Tensor,
    tokens_NT: Tensor,
    length_N: Tensor,
    *,
    temperature: float,
    max_tokens: int,
) -> Tensor:
    """Log-probabilities of all outputs under a model, without gradients: (N, T), 0 at padding."""
    shared = prefix(model, prompts)
    keys_values = shared.end_to_end()
    logp_NT = torch.zeros(tokens_NT.shape, dtype=shared.keys[0].dtype)
    for rows in micro_batches(question_N, length_N, max_tokens):
        width = int(length_N[rows].max())
        logp_NT[rows, :width] = output_logp(
            model, shared, keys_values, question_N[rows], tokens_NT[rows, :width], length_N[rows], temperature
        )
    return logp_NT


def backward_(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    question_N: Tensor,
    tokens_NT: Tensor,
    length_N: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    temperature: float,
    max_tokens: int,
) -> Tensor:
    """Add the gradient of a loss over N outputs to the model's; returns the log-probabilities it was taken at: (N, T).

    Args:
        loss_of: (log-probabilities of some rows (n, t), their row numbers (n,)) -> a scalar that is a plain sum over
            tokens, so that the parts add up to the whole whatever the cut.
    """
    shared = prefix(model, prompts)
    keys_values = shared.end_to_end()
    leaves = [t.detach().requires_grad_() for t in keys_values]
    out_NT = torch.zeros(tokens_NT.shape, dtype=leaves[0].dtype)
    for rows in micro_batches(question_N, length_N, max_tokens):
        width = int(length_N[rows].max())
        logp_NT = output_logp(
            model, shared, leaves, question_N[rows], tokens_NT[rows, :width], length_N[rows], temperature
        )
        loss_of(logp_NT, rows).backward()
        out_NT[rows, :width] = logp_NT.detach()
    torch.autograd.backward(keys_values, [leaf.grad for leaf in leaves])
    return out_NT
