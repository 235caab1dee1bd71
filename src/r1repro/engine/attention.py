"""Attention of outputs that share their prompts: the one layer of a model that is our own.

Each output token attends to its prompt, whose keys and values stand in memory once a question, and to what its own
output holds so far.  Both parts are computed apart and merged by their log-sum-exp, which is exact:
softmax over A and B together is the softmax over each, weighted by exp(lse_A) and exp(lse_B).

Axes.  Q questions, P prompt tokens, M output tokens end to end, H heads, K heads of keys, D width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, PreTrainedModel

from r1repro.records import Refusal

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@contextmanager
def used_by(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model attends by ``name`` inside the block, and as before after it.

    Raises:
        Refusal: the model's attention is of a kind that ours does not compute.
    """
    config = model.config
    if getattr(config, "use_sliding_window", bool(getattr(config, "sliding_window", None))):
        raise Refusal("the model attends within a sliding window, which is not supported: use one with full attention")
    if getattr(config, "attn_logit_softcapping", None):
        raise Refusal("the model caps its attention scores, which is not supported: use one that does not")
    before = config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the outputs of a micro-batch stand among its M tokens; outputs to one question stand side by side."""

    spans: list[tuple[slice, slice]]
    """(columns of the prompt, places of its outputs' tokens) of each question that is asked, in order; none where
    texts stand alone."""

    buckets: list[tuple[Tensor, Tensor]]
    """Outputs of like length, padded: (place among the M tokens (n, T), True at tokens (n, T))."""

    @classmethod
    def of(cls, question_N: Tensor, length_N: Tensor, prompt_length_Q: Tensor) -> "Layout":
        """Of outputs given in the order of their questions."""
        stop_Q, stop_N = prompt_length_Q.cumsum(0).tolist(), length_N.cumsum(0).tolist()
        asked, counts = question_N.unique_consecutive(return_counts=True)
        spans, row, place = [], 0, 0
        for q, count in zip(asked.tolist(), counts.tolist(), strict=True):
            row += count
            spans.append((slice(stop_Q[q] - int(prompt_length_Q[q]), stop_Q[q]), slice(place, stop_N[row - 1])))
            place = stop_N[row - 1]
        return cls(spans, list(_buckets(length_N)))

    def outputs(self) -> Iterator[tuple[int, int]]:
        """Where each output begins and stops among the tokens."""
        for place_NT, on_NT in self.buckets:
            for place_T, length in zip(place_NT, on_NT.sum(1).tolist(), strict=True):
                yield int(place_T[0]), int(place_T[0]) + length

    @classmethod
    def alone(cls, length_N: Tensor) -> "Layout":
        """Of texts that have no prompt."""
        return cls([], list(_buckets(length_N)))


def _buckets(length_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs by falling length, cut where a third of a bucket's width would be padding."""
    start_N = length_N.cumsum(0) - length_N
    order = torch.argsort(length_N, descending=True, stable=True)
    lengths = length_N[order].tolist()
    first = 0
    while first < len(order):
        stop = first + 1
        while stop < len(order) and 3 * lengths[stop] >= 2 * lengths[first]:
            stop += 1
        rows = order[first:stop]
        column_T = torch.arange(lengths[first])
        yield start_N[rows, None] + torch.minimum(column_T, length_N[rows, None] - 1), column_T < length_N[rows, None]
        first = stop


@dataclass(frozen=True, slots=True)
class PackedView:
    """What an attention layer is given as keys: the prompts' and the outputs' own."""

    prompt_keys: Tensor
    prompt_values: Tensor
    """(1, K, P, D): all prompts end to end."""

    keys: Tensor
    values: Tensor
    """(1, K, M, D)"""

    layout: Layout


class PackedCache:
    """Stands where transformers expects a cache; hands prompts and layout to the attention layers."""

    def __init__(self, prompt_keys: list[Tensor], prompt_values: list[Tensor], layout: Layout):
        self._prompts, self._layout = list(zip(prompt_keys, prompt_values, strict=True)), layout

    def get_seq_length(self, layer: int = 0) -> int:
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple[PackedView, None]:
        return PackedView(*self._prompts[layer], keys, values, self._layout), None


class Alone:
    """Stands where transformers expects a cache, for texts end to end that see neither each other nor a prompt."""

    def __init__(self, length_N: Tensor):
        self._layout = Layout.alone(length_N)

    def get_seq_length(self, layer: int = 0) -> int:
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple[PackedView, None]:
        return PackedView(keys[:, :, :0], values[:, :, :0], keys, values, self._layout), None


PACKED = "r1repro_packed"


def _packed(module, query: Tensor, view: PackedView, _, attention_mask, scaling: float, **unused):
    """Attention of M output tokens, (1, H, M, D) -> (1, M, H, D)."""
    function = _Packed.apply if query.device.type == "cpu" else _plain_packed
    # Under autocast the rotary positions have made queries and keys single again, and the values are not.
    parts = (query, view.keys, view.values, view.prompt_keys, view.prompt_values)
    out = function(*(x.to(view.values.dtype) for x in parts), view.layout, scaling)
    return out.transpose(1, 2), None


def _plain_packed(query, keys, values, prompt_keys, prompt_values, layout, scale):
    """The same output by output, with torch's public attention: for devices on which the kernel does not run.

    No mask is held in memory: an output's tokens are the last of the keys that they see, which torch's kernels for GPUs
    know as a case of their own.
    """
    out, groups = torch.empty_like(query), query.shape[1] // keys.shape[1]
    for first, stop in layout.outputs():
        prompt = next((prompt for prompt, part in layout.spans if part.start <= first < part.stop), slice(0, 0))
        seen, said = (
            torch.cat([before[:, :, prompt], own[:, :, first:stop]], 2).repeat_interleave(groups, 1)
            for before, own in ((prompt_keys, keys), (prompt_values, values))
        )
        bias = causal_lower_right(stop - first, seen.shape[2])
        out[:, :, first:stop] = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, first:stop], seen, said, attn_mask=bias, scale=scale
        )
    return out


class _Packed(torch.autograd.Function):
    """Forward and backward by torch's own kernel, a part at a time.

    The kernel's backward takes the output and the log-sum-exp of the whole softmax, so each part's gradient comes out
    right, and the prompts' gradients are added up over the outputs without a copy of any prompt.
    """

    @staticmethod
    def forward(ctx, query, keys, values, prompt_keys, prompt_values, layout, scale):
        _, heads, tokens, width = query.shape
        out_MHD, own_MHD = query.new_zeros(2, tokens, heads, width)
        dtype = torch.promote_types(query.dtype, torch.float32)
        lse_MH, own_lse_MH = query.new_full((2, tokens, heads), -torch.inf, dtype=dtype)
        for prompt, part in layout.spans:
            out, lse = _flash(query[:, :, part], prompt_keys[:, :, prompt], prompt_values[:, :, prompt], scale=scale)
            out_MHD[part], lse_MH[part] = out[0].transpose(0, 1), lse[0].T
        for place_NT, on_NT in layout.buckets:
            out, lse = _flash(*(_padded(x, place_NT) for x in (query, keys, values)), is_causal=True, scale=scale)
            at = place_NT[on_NT]
            own_MHD[at], own_lse_MH[at] = out.transpose(1, 2)[on_NT], lse.transpose(1, 2)[on_NT]
        lse_MH = _merge_(out_MHD, lse_MH, own_MHD, own_lse_MH)
        out, lse = out_MHD.transpose(0, 1)[None], lse_MH.T.contiguous()[None]
        ctx.save_for_backward(query, keys, values, prompt_keys, prompt_values, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        query, keys, values, prompt_keys, prompt_values, out, lse = ctx.saved_tensors
        d_query_MHD, d_keys_MKD, d_values_MKD = (
            x.new_zeros(x.shape[2], x.shape[1], x.shape[3]) for x in (query, keys, values)
        )
        d_prompt_keys, d_prompt_values = torch.zeros_like(prompt_keys), torch.zeros_like(prompt_values)
        for prompt, part in ctx.layout.spans:
            dq, d_prompt_keys[:, :, prompt], d_prompt_values[:, :, prompt] = _flash_backward(
                grad[:, :, part], query[:, :, part], prompt_keys[:, :, prompt], prompt_values[:, :, prompt],
                out[:, :, part], lse[:, :, part], 0.0, False, scale=ctx.scale,
            )  # fmt: skip
            d_query_MHD[part] = dq[0].transpose(0, 1)
        for place_NT, on_NT in ctx.layout.buckets:
            grad_N = _padded(grad, place_NT).masked_fill_(~on_NT[:, None, :, None], 0.0)
            query_N, keys_N, values_N, out_N = (_padded(x, place_NT) for x in (query, keys, values, out))
            lse_N = lse[0][:, place_NT].transpose(0, 1)
            dq, dk, dv = _flash_backward(grad_N, query_N, keys_N, values_N, out_N, lse_N, 0.0, True, scale=ctx.scale)
            at = place_NT[on_NT]
            d_query_MHD[at] += dq.transpose(1, 2)[on_NT]
            d_keys_MKD[at] = dk.transpose(1, 2)[on_NT]
            d_values_MKD[at] = dv.transpose(1, 2)[on_NT]
        d_query, d_keys, d_values = (d.transpose(0, 1)[None] for d in (d_query_MHD, d_keys_MKD, d_values_MKD))
        return d_query, d_keys, d_values, d_prompt_keys, d_prompt_values, None, None


def _padded(x: Tensor, place_NT: Tensor) -> Tensor:
    """(1, H, M, D) -> (n, H, T, D); what lies beyond an output's end is another's token, and is masked or unseen."""
    return x[0].transpose(0, 1)[place_NT].transpose(1, 2)


class Cohorts:
    """Keys and values of the rows that are being sampled; stands where transformers expects a cache.

    Those of a prompt stand once a question, and each question has the same number of seats, one a living row.  Those
    of a row's own tokens stand in a static block that is written in place: one block a cohort, whose rows are all of
    one age.  Rows that have ended are dropped.
    """

    def __init__(self):
        self._prompts: list[tuple[Tensor, Tensor]] = []
        self._own: list[list[tuple[Tensor, Tensor]]] = []
        self.ages: list[int] = []
        self.sizes: list[int] = []

    def admit(self, keys: list[Tensor], values: list[Tensor], mask_QP: Tensor, num_outputs: int, max_tokens: int):
        """A new cohort of ``num_outputs`` rows a question.

        Args:
            keys, values: of the prompts, a tensor a layer: (Q, K, P, D), of which ``mask_QP`` is True at tokens.
        """
        num_rows, (_, heads, _, width) = len(mask_QP) * num_outputs, keys[0].shape
        keys = [k.to(v.dtype) for k, v in zip(keys, values, strict=True)]
        shape = (num_rows, heads, max_tokens, width)
        self._own.append([(k.new_empty(shape), k.new_empty(shape)) for k in keys])
        self.ages, self.sizes = [*self.ages, 0], [*self.sizes, num_rows]
        question_N = torch.arange(len(mask_QP)).repeat_interleave(num_outputs)
        new = list(zip(keys, values, strict=True))
        if self._prompts:
            question_N = torch.cat([self._question_N, len(self._mask_QP) + question_N])
            new = [
                tuple(_stacked(a, b, 2) for a, b in zip(old, more, strict=True))
                for old, more in zip(self._prompts, new, strict=True)
            ]
            mask_QP = _stacked(self._mask_QP, mask_QP, 1)
        self._prompts, self._mask_QP, self._question_N = new, mask_QP, question_N
        self._seat()

    def _seat(self) -> None:
        """Give the living rows seats: the questions that have any, and as many seats as the fullest of them needs."""
        asked, self._question_N, count_Q = self._question_N.unique(return_inverse=True, return_counts=True)
        self._mask_QP = self._mask_QP[asked]
        if len(asked) < len(self._prompts[0][0]):
            self._prompts = [(k[asked], v[asked]) for k, v in self._prompts]
        self._seats = (len(asked), int(count_Q.max()) if len(asked) else 0)
        order = torch.argsort(self._question_N, stable=True)
        rank_N = torch.empty_like(order)
        rank_N[order] = torch.arange(len(order)) - (count_Q.cumsum(0) - count_Q).repeat_interleave(count_Q)
        self._seat_N = self._question_N * self._seats[1] + rank_N
        self._bias = None
        if not self._mask_QP.all():
            key = self._prompts[0][0]
            bias_QP = key.new_zeros(self._mask_QP.shape).masked_fill(~self._mask_QP.to(key.device), -torch.inf)
            self._bias = bias_QP[:, None, None]

    def advance(self) -> None:
        """The rows' newest tokens have keys and values now."""
        self.ages = [age + 1 for age in self.ages]

    def drop(self, alive_N: Tensor) -> Tensor:
        """Drop ended rows; the last living ones of a cohort move into their places.  Returns the new order of rows."""
        orders, first = [], 0
        for blocks, age, alive in zip(self._own, self.ages, alive_N.split(self.sizes), strict=True):
            order = torch.arange(int(alive.sum()))
            if len(order) < len(alive):
                living, ended = alive.nonzero().squeeze(1), (~alive).nonzero().squeeze(1)
                movers, holes = living[living >= len(living)], ended[ended < len(living)]
                for block in (b for pair in blocks for b in pair):
                    block[holes, :, :age] = block[movers, :, :age]
                order[holes] = movers
            orders.append(first + order)
            first += len(alive)
        order = torch.cat(orders)
        kept = [i for i, part in enumerate(orders) if len(part)]
        self._own, self.ages = [self._own[i] for i in kept], [self.ages[i] for i in kept]
        self.sizes = [len(orders[i]) for i in kept]
        self._question_N, self._seat_N = self._question_N[order], self._seat_N[order]
        if 4 * len(order) < 3 * self._seats[0] * self._seats[1]:
            self._seat()
        return order

    def get_seq_length(self, layer: int = 0) -> int:
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple["CohortsView", None]:
        return CohortsView(self, layer, keys, values), None

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Note the rows' new keys and values, (N, K, 1, D), and attend: (N, H, 1, D) -> (N, H, D)."""
        rows, heads, _, width = query.shape
        seats = query.new_zeros(*self._seats, heads, width)
        seats.view(-1, heads, width)[self._seat_N] = query[:, :, 0]
        out, lse = _part(seats.transpose(1, 2), *self._prompts[layer], scale, self._bias)
        out_NHD = out.transpose(1, 2).reshape(-1, heads, width)[self._seat_N]
        lse_NH = lse.transpose(1, 2).reshape(-1, heads)[self._seat_N]

        parts, grouped = [], query.reshape(rows, keys.shape[1], -1, width)
        new = zip(*(x.split(self.sizes) for x in (grouped, keys, values)), strict=True)
        for blocks, age, (queries, new_keys, new_values) in zip(self._own, self.ages, new, strict=True):
            own_keys, own_values = (block[: len(queries), :, : age + 1] for block in blocks[layer])
            own_keys[:, :, -1:], own_values[:, :, -1:] = new_keys, new_values
            parts.append(_part(queries, own_keys, own_values, scale))
        own_out, own_lse = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        _merge_(out_NHD, lse_NH, own_out.reshape(rows, heads, width), own_lse.reshape(rows, heads))
        return out_NHD


def _stacked(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Both along the first axis, the narrower padded with zeros along ``axis``."""
    wide = max(a.shape[axis], b.shape[axis])
    return torch.cat(
        [torch.nn.functional.pad(x, (*[0, 0] * (x.ndim - 1 - axis), 0, wide - x.shape[axis])) for x in (a, b)]
    )


@dataclass(frozen=True, slots=True)
class CohortsView:
    cohorts: Cohorts
    layer: int
    keys: Tensor
    values: Tensor


ONE_TOKEN = "r1repro_one_token"


def _one_token(module, query: Tensor, view: CohortsView, _, attention_mask, scaling: float, **unused):
    """Attention of one new token a row, (N, H, 1, D) -> (N, 1, H, D)."""
    query, keys = query.to(view.values.dtype), view.keys.to(view.values.dtype)
    return view.cohorts.attend(view.layer, query, keys, view.values, scaling).unsqueeze(1), None


def _merge_(out_NHD: Tensor, lse_NH: Tensor, other_NHD: Tensor, other_lse_NH: Tensor) -> Tensor:
    """Attention over two sets of keys from attention over each: merged into the first; returns the log-sum-exp."""
    both_NH = torch.logaddexp(lse_NH, other_lse_NH)
    out_NHD *= (lse_NH - both_NH).exp_().to(out_NHD.dtype).unsqueeze(2)
    out_NHD.addcmul_(other_NHD, (other_lse_NH - both_NH).exp_().to(out_NHD.dtype).unsqueeze(2))
    return both_NH


def _part(query: Tensor, keys: Tensor, values: Tensor, scale: float, bias: Tensor | None = None):
    """Softmax attention over some keys, and its log-sum-exp: (B, H, T, D), (B, K, P, D) -> (B, H, T, D), (B, H, T)."""
    if query.device.type == "cpu":
        return _flash(query, keys, values, attn_mask=bias, scale=scale)
    return _plain_part(query, keys, values, scale, bias)


def _plain_part(query: Tensor, keys: Tensor, values: Tensor, scale: float, bias: Tensor | None = None):
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    score = (query * scale) @ keys.transpose(2, 3)
    score = score if bias is None else score + bias
    return score.softmax(-1) @ values, score.logsumexp(-1)


AttentionInterface.register(PACKED, _packed)
AttentionInterface.register(ONE_TOKEN, _one_token)
