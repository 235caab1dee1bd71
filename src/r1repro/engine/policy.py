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
from r1repro.engine import checkpoint
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
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
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

    def tensors(self) -> list[Tensor]:
        return [*self.keys, *self.values]


def prefix(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Prefix:
    """Run Q prompts through the model, the common beginning once."""
    num_common = _common_length(prompts)
    common_1P = torch.tensor([list(prompts[0][:num_common])])
    cache = DynamicCache(config=model.config)
    if num_common:
        model(input_ids=common_1P, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(prompts))
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
    model: PreTrainedModel, shared: Prefix, question_N: Tensor, tokens_NT: Tensor, temperature: float
) -> Tensor:
    """Log-probability in nats of each token of N right-padded outputs, (N, T); at padding it means nothing."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(zip(shared.keys, shared.values, strict=True)):
        cache.update(keys[question_N], values[question_N], layer)
    inputs_NT = torch.cat([shared.last_Q[question_N][:, None], tokens_NT[:, :-1]], 1)
    position_NT = shared.length_Q[question_N][:, None] + torch.arange(tokens_NT.shape[1])
    mask_NPT = torch.cat([shared.mask_QP[question_N], torch.ones_like(tokens_NT, dtype=torch.bool)], 1)
    logits_NTV = model(
        input_ids=inputs_NT,
        attention_mask=mask_NPT.long(),
        position_ids=position_NT,
        past_key_values=cache,
        use_cache=True,
    ).logits
    return likelihood.token_logp(logits_NTV, tokens_NT, temperature)


def micro_batches(length_N: Tensor, max_tokens: int) -> Iterator[Tensor]:
    """Indices of outputs of like length, at most ``max_tokens`` padded tokens at a time (at least one output)."""
    order = torch.argsort(length_N, descending=True, stable=True)
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, int(length_N[order[start]])))
        yield order[start : start + size]
        start += size


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
    logp_NT = torch.zeros(tokens_NT.shape, dtype=shared.keys[0].dtype)
    for rows in micro_batches(length_N, max_tokens):
        width = int(length_N[rows].max())
        logp_NT[rows, :width] = output_logp(model, shared, question_N[rows], tokens_NT[rows, :width], temperature)
    return logp_NT.masked_fill_(torch.arange(tokens_NT.shape[1])[None] >= length_N[:, None], 0.0)


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
    graph = prefix(model, prompts)
    leaves = [t.detach().requires_grad_() for t in graph.tensors()]
    half = len(leaves) // 2
    shared = Prefix(leaves[:half], leaves[half:], graph.mask_QP, graph.length_Q, graph.last_Q, graph.num_common)
    out_NT = torch.zeros(tokens_NT.shape, dtype=leaves[0].dtype)
    for rows in micro_batches(length_N, max_tokens):
        width = int(length_N[rows].max())
        logp_NT = output_logp(model, shared, question_N[rows], tokens_NT[rows, :width], temperature)
        loss_of(logp_NT, rows).backward()
        out_NT[rows, :width] = logp_NT.detach()
    torch.autograd.backward(graph.tensors(), [leaf.grad for leaf in leaves])
    return out_NT
