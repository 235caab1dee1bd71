"""The policy: log-probabilities of outputs, with each prompt computed once a question.

Most tokens of a step are prompt: the paper's template, the same in all, then a question, shared by its group.  So the
work is cut in three: the tokens that all prompts begin with, once; the rest of each prompt, once a question; the
outputs.  The keys and values of a prompt are handed to its outputs, their gradients are added up and sent back
through the prompt once. Nothing of this changes a log-probability or a gradient; `tests/test_policy.py` compares with
repeated prompts.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.utils.checkpoint
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging

from r1repro.algo import likelihood
from r1repro.config import Policy
from r1repro.engine import adapters, attention, checkpoint, dist, fsdp
from r1repro.records import Refusal

logging.disable_progress_bar()  # it counts files, of which there is one


def load(
    folder: Path | str,
    dtype: torch.dtype = torch.float32,
    held: Policy | None = None,
    device: str = "cpu",
    shard: bool = False,
) -> PreTrainedModel:
    """A causal language model from a folder in Hugging Face form; safetensors only, no code from the folder is run.

    A folder that holds an adapter gives its base with the adapter beside it, or merged where all weights are held.

    Args:
        dtype: of the weights, where ``held`` does not say it.
        held: which weights are trained, and in which precision; None: all of them, in ``dtype``.
        shard: cut it up over the ranks, see `fsdp`.

    Raises:
        Refusal: no model there, a damaged one, one that computes something which is not supported; weights that are
            not cut up.
    """
    folder, held = Path(folder), held or Policy()
    base = adapters.base_of(folder)
    if (folder / "checkpoint.json").exists():
        checkpoint.verify(folder)
    if shard:
        model = fsdp.load(that_can_be_cut(folder, held), device)
    elif base is None:
        model = _plain(folder, dtype, held, device)
    else:
        model = _beside(folder, base, held, device)
    if held.weights == "full" and held.dtype != "float32":
        compute_in_(model, getattr(torch, held.dtype))
    return model.eval()


def that_can_be_cut(folder: Path, held: Policy) -> Path:
    """The folder of a model, or a refusal where `fsdp` does not cut up what is held so."""
    if held.weights != "full" or held.dtype == "float16":
        raise Refusal(
            f"machine.shard cuts up weights that are trained in full, in float32 or bfloat16, not policy.weights="
            f"{held.weights} in {held.dtype}: change the one or the other"
        )
    if not (folder / "config.json").exists():
        raise Refusal(f"{folder} is no plain model, which machine.shard needs: `python -m r1repro export` makes one")
    return folder


def _beside(folder: Path, base: Path, held: Policy, device: str) -> PreTrainedModel:
    """The model of a folder that holds an adapter; merged where all weights are held."""
    saved = adapters.held_of(folder)
    if held.weights not in ("full", saved.weights):
        raise Refusal(
            f"the adapter at {folder} was trained beside weights held as {saved.weights}, not {held.weights}: set "
            f"policy.weights={saved.weights}, or full to merge it"
        )
    model = _plain(base, torch.float32, saved, device)
    adapters.attach_saved_(model, folder, saved)
    if held.weights == "full":
        weights = adapters.merged(model)
        model = _plain(base, torch.float32, held, device)
        model.load_state_dict(weights, strict=False)
        model.tie_weights()
    return model


def _plain(folder: Path, dtype: torch.dtype, held: Policy, device: str) -> PreTrainedModel:
    """The model of a folder that holds no adapter."""
    if not (folder / "config.json").exists():
        raise Refusal(f"no model at {folder}: give the folder of a Hugging Face model, or `make base` for the tiny one")
    if (folder / fsdp.SHARDS).is_dir() and held.weights == "full":
        return fsdp.whole(folder, dtype).to(device)
    options = {}
    if held.weights != "full":
        dtype = getattr(torch, held.dtype)
    if held.weights == "qlora":
        options = {"quantization_config": adapters.quantised(dtype), "device_map": {"": device}}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise Refusal(f"the model at {folder} cannot be loaded ({reason}): put it there whole") from error
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise Refusal(f"the model at {folder} has {name} in its config.json, which is not supported: use another")
    if options:
        adapters.keep_layout_(model)
    return model if options else model.to(device)


def _computes_in(model: PreTrainedModel) -> torch.dtype:
    """In which precision products are computed."""
    return getattr(model, "r1repro_dtype", model.dtype)


def compute_in_(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Products in a lower precision than the weights, which stay single: a small step would be lost in them."""
    model.r1repro_dtype, cast = dtype, torch.autocast(model.device.type, dtype)
    for module in (model, model.base_model, model.get_output_embeddings()):
        module.forward = cast(module.forward)


def adamw(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with betas (0.9, 0.95) and no decay, over what is trained.

    Where weights stand in 4 bits on a GPU its moments are paged: moved to the CPU's memory while the GPU's is full.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    kind = torch.optim.AdamW
    if getattr(model, "is_loaded_in_4bit", False) and model.device.type == "cuda":
        from bitsandbytes.optim import PagedAdamW32bit as kind
    return kind(trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)


def clip_(model: torch.nn.Module, max_norm: float) -> Tensor:
    """Clip the gradient by its norm, which is returned: of the whole gradient, also where it is cut up over ranks."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


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
    ends: tuple[Tensor, ...] = ()
    """Of a model that is cut up over ranks, what its last layer gave at each position: of the common beginning, of the
    rest."""

    def end_to_end(self) -> list[Tensor]:
        """Keys, then values, of each layer without the padding: (1, heads, tokens of all prompts, width of a head)."""
        return [t.transpose(0, 1)[:, self.mask_QP].unsqueeze(0) for t in (*self.keys, *self.values)]


class _Repeatable(DynamicCache):
    """A cache that a layer may be put through twice, as where it is computed again for the gradient: what comes the
    second time is answered as the first time, and not kept."""

    def __init__(self, model: PreTrainedModel, keys: list[Tensor], values: list[Tensor]):
        super().__init__(config=model.config)
        self._there, self._grown = list(zip(keys, values, strict=True)), set()
        for layer, (k, v) in enumerate(self._there):
            super().update(k, v, layer)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        if layer_idx not in self._grown:
            self._grown.add(layer_idx)
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if not self._there:
            return key_states, value_states
        keys, values = self._there[layer_idx]
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What prompts begin with: its tokens, and their keys and values, one tensor a layer (1, heads, tokens, width)."""

    tokens: list[int]
    keys: list[Tensor]
    values: list[Tensor]
    ends: tuple[Tensor, ...] = ()


def beginning(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Beginning:
    """Run the tokens that all prompts begin with through the model."""
    length = _common_length(prompts)
    tokens = list(prompts[0][: int(dist.least(length)) if fsdp.is_cut(model) else length])
    if not tokens:
        return Beginning([], [], [])
    cache = _Repeatable(model, [], [])
    inputs = torch.tensor([tokens], device=model.device)
    ends = _end(model, input_ids=inputs, past_key_values=cache, use_cache=True)
    return Beginning(tokens, [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers], ends)


def prefix(model: PreTrainedModel, prompts: Sequence[Sequence[int]], common: Beginning | None = None) -> Prefix:
    """Run Q prompts through the model, their common beginning once, or not at all where it is given."""
    common = common or beginning(model, prompts)
    num_common = len(common.tokens)
    many = (len(prompts), -1, -1, -1)
    cache = _Repeatable(model, [k.expand(many) for k in common.keys], [v.expand(many) for v in common.values])
    tails = [list(p[num_common:-1]) for p in prompts]
    width = max(map(len, tails))
    length_Q = torch.tensor([len(p) - 1 for p in prompts])
    tail_mask_QP = torch.arange(width)[None] >= width - torch.tensor([len(t) for t in tails])[:, None]
    mask_QP = torch.cat([torch.ones(len(prompts), num_common, dtype=torch.bool), tail_mask_QP], 1)
    ends = common.ends
    if width:
        tails_QP = torch.tensor([[0] * (width - len(t)) + t for t in tails])
        position_QP = (mask_QP.cumsum(1) - 1)[:, num_common:].clamp(min=0)
        ends += _end(
            model,
            input_ids=tails_QP.to(model.device),
            attention_mask=mask_QP.long().to(model.device),
            position_ids=position_QP.to(model.device),
            past_key_values=cache,
            use_cache=True,
        )
    return Prefix(
        keys=[layer.keys for layer in cache.layers],
        values=[layer.values for layer in cache.layers],
        mask_QP=mask_QP,
        length_Q=length_Q,
        last_Q=torch.tensor([p[-1] for p in prompts]),
        num_common=num_common,
        ends=ends,
    )


def _end(model: PreTrainedModel, **inputs: Any) -> tuple[Tensor, ...]:
    """Run tokens through the model for what it leaves in its cache; gives what `Prefix.ends` holds of it."""
    end = model.base_model(**inputs).last_hidden_state
    return (end,) if fsdp.is_cut(model) else ()


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
    logits_at_once: int = likelihood.LOGITS_AT_ONCE,
) -> Tensor:
    """Log-probability in nats of each token of N outputs, (N, T), 0 at padding; in the order of their questions.

    Args:
        prompts: ``shared.end_to_end()``.
        logits_at_once: how many logits are held in memory, those of one token at least; changes no number.
    """
    hidden_MD, on_NT = output_hidden(model, shared, prompts, question_N, tokens_NT, length_N)
    logp_M = likelihood.head_logp(
        hidden_MD, model.get_output_embeddings(), tokens_NT[on_NT].to(model.device), temperature, logits_at_once
    )
    return logp_M.new_zeros(tokens_NT.shape).masked_scatter(on_NT.to(model.device), logp_M)


def output_hidden(
    model: PreTrainedModel,
    shared: Prefix,
    prompts: Sequence[Tensor],
    question_N: Tensor,
    tokens_NT: Tensor,
    length_N: Tensor,
) -> tuple[Tensor, Tensor]:
    """What a head is given before each token of N outputs: (M, width); and which of (N, T) are those M tokens.

    The outputs go through the model end to end, without padding; only attention knows where one begins.
    """
    half = len(prompts) // 2
    on_NT = torch.arange(tokens_NT.shape[1]) < length_N[:, None]
    inputs_NT = torch.cat([shared.last_Q[question_N][:, None], tokens_NT[:, :-1]], 1)
    position_NT = shared.length_Q[question_N][:, None] + torch.arange(tokens_NT.shape[1])
    layout = attention.Layout.of(question_N, length_N, shared.length_Q)
    cache = attention.PackedCache(prompts[:half], prompts[half:], layout)
    return _hidden(model, inputs_NT[on_NT], position_NT[on_NT], cache), on_NT


Read = Callable[..., Tensor]
"""`output_logp`, or what takes the same arguments and gives another number of each token."""


def recompute_layers_(model: PreTrainedModel) -> None:
    """Keep the input of each layer alone in an update, of prompts and of outputs, and compute the rest once more for
    the gradient.

    transformers' own switch takes the cache away from the layers, and with it what they see of the prompts.
    """
    layers = next(module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList))

    def again(plain: Callable, *args, **kwargs):
        given = (*args, *kwargs.values())
        packed = any(isinstance(x, attention.PackedCache | attention.Alone) for x in given)
        if not torch.is_grad_enabled() or not (packed or any(isinstance(x, _Repeatable) for x in given)):
            return plain(*args, **kwargs)

        def forward(*args):
            with attention.used_by(model, attention.PACKED) if packed else nullcontext():
                return plain(*args, **kwargs)  # also when the gradient asks for it, long after

        return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False)

    for layer in layers:
        layer.forward = functools.partial(again, layer.forward)


def _hidden(model: PreTrainedModel, inputs_M: Tensor, position_M: Tensor, cache) -> Tensor:
    """What the head is given for tokens end to end that attend as ``cache`` says: (M, width)."""
    with attention.used_by(model, attention.PACKED):
        return model.base_model(
            input_ids=inputs_M[None].to(model.device),
            position_ids=position_M[None].to(model.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[0]


def text_logp(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], logits_at_once: int = likelihood.LOGITS_AT_ONCE
) -> Tensor:
    """Log-probability in nats of each token of some texts but their first ones, end to end: (M,).

    Each text begins at position 0 and sees itself alone.
    """
    length_N = torch.tensor([len(text) - 1 for text in texts])
    inputs_M = torch.tensor([token for text in texts for token in text[:-1]])
    tokens_M = torch.tensor([token for text in texts for token in text[1:]])
    position_M = torch.cat([torch.arange(length) for length in length_N.tolist()])
    hidden_MD = _hidden(model, inputs_M, position_M, attention.Alone(length_N))
    return likelihood.head_logp(
        hidden_MD, model.get_output_embeddings(), tokens_M.to(model.device), 1.0, logits_at_once
    )


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


def in_step(model: PreTrainedModel, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, float]]:
    """Micro-batches, and 1.0 each; where ranks hold parts of one model, as many on every rank: the first one again,
    which counts 0.0."""
    found = list(batches)
    for i in range(fsdp.evened(len(found), model)):
        yield (found[i], 1.0) if i < len(found) else (found[0], 0.0)


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
    logits_at_once: int = likelihood.LOGITS_AT_ONCE,
    read: Read = output_logp,
) -> Tensor:
    """Log-probabilities of all outputs under a model, without gradients: (N, T), 0 at padding.

    Args:
        read: what is computed of each token in their place.
    """
    shared = prefix(model, prompts)
    keys_values = shared.end_to_end()
    logp_NT = torch.zeros(tokens_NT.shape, dtype=likelihood.precise(model.dtype))
    for rows, _ in in_step(model, micro_batches(question_N, length_N, max_tokens)):
        width = int(length_N[rows].max())
        logp_NT[rows, :width] = read(
            model, shared, keys_values, question_N[rows], tokens_NT[rows, :width], length_N[rows], temperature,
            logits_at_once,
        ).cpu()  # fmt: skip
    fsdp.rest_(model)
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
    logits_at_once: int = likelihood.LOGITS_AT_ONCE,
    read: Read = output_logp,
) -> Tensor:
    """Add the gradient of a loss over N outputs to the model's; returns the log-probabilities it was taken at: (N, T).

    In half precision a small gradient would be lost, so the loss is scaled up and the gradient down again; where that
    is too much for some value, all is done again with a smaller scale.  No step is left out.

    Args:
        loss_of: (log-probabilities of some rows (n, t) on the model's device, their row numbers (n,) on the CPU) -> a
            scalar that is a plain sum over tokens, so that the parts add up to the whole whatever the cut.
        read: what is computed of each token in the place of its log-probability.
    """
    asked = (model, prompts, question_N, tokens_NT, length_N)
    how = dict(temperature=temperature, max_tokens=max_tokens, logits_at_once=logits_at_once, read=read)
    return scaled_(model, lambda scale: _backward_(*asked, lambda *some: scale * loss_of(*some), **how))


def scaled_(model: PreTrainedModel, backward: Callable[[float], Any]) -> Any:
    """Add a gradient to the model's, in half precision that of a loss scaled up, scaled down again.

    Args:
        backward: scale of the loss -> whatever is wanted besides; adds the gradient of the scaled loss to the model's.
    """
    if _computes_in(model) != torch.float16:
        return backward(1.0)
    trained = [p for p in model.parameters() if p.requires_grad]
    there = [p.grad for p in trained]
    for scale in SCALES:
        model.zero_grad(set_to_none=True)
        found = backward(scale)
        if all(torch.isfinite(p.grad).all() for p in trained if p.grad is not None):
            break
    for p, before in zip(trained, there, strict=True):
        p.grad = p.grad if p.grad is None else p.grad / scale
        p.grad = before if p.grad is None else p.grad if before is None else before + p.grad
    return found


SCALES = (2.0**14, 2.0**10, 2.0**6, 4.0, 2.0**-2, 2.0**-6)
"""Of the loss in half precision, each tried where the one before gave what is no number.  Powers of 2 are exact."""


def _backward_(
    model, prompts, question_N, tokens_NT, length_N, loss_of, *, temperature, max_tokens, logits_at_once, read
) -> Tensor:
    asked, question_N = question_N.unique(return_inverse=True)  # of a rollout's prompts a step asks some
    shared = prefix(model, [prompts[q] for q in asked.tolist()])
    keys_values = shared.end_to_end()
    leaves = [t.detach().requires_grad_() for t in keys_values]
    out_NT = torch.zeros(tokens_NT.shape, dtype=likelihood.precise(model.dtype))
    for rows, counts in in_step(model, micro_batches(question_N, length_N, max_tokens)):
        width = int(length_N[rows].max())
        logp_NT = read(
            model, shared, leaves, question_N[rows], tokens_NT[rows, :width], length_N[rows], temperature,
            logits_at_once,
        )  # fmt: skip
        (counts * loss_of(logp_NT, rows)).backward()
        out_NT[rows, :width] = logp_NT.detach().cpu()
    learns = [(t, leaf.grad) for t, leaf in zip(keys_values, leaves, strict=True) if t.requires_grad]
    if fsdp.is_cut(model):  # a layer is made whole for its gradient by what comes back through its output
        learns += [(hidden, torch.zeros_like(hidden)) for hidden in shared.ends]
    torch.autograd.backward(*zip(*learns, strict=True))
    return out_NT
