"""What a stage takes of memory and time, before it runs: every formula here, with where it comes from.

Memory is counted tensor by tensor, as `engine.policy` and `engine.sampler` hold them; `bench.plan` measures the same on
the CPU.  Time is a sum of four costs: products (floating-point operations), traffic (bytes that pass through memory),
calls (operators that have to be started) and exponentials, each at a rate of the device that was measured, never solved
from a time that is to be predicted.

Letters: M tokens of outputs that go through the policy at once, of which each layer keeps what its gradient needs;
N rows that are sampled side by side.  See `engine.shapes` for those of a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1repro.config import Policy
from r1repro.engine.shapes import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SINGLE = 4
"""Bytes of what is trained, of its gradients, and of each of AdamW's two moments: all in single precision."""

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half a byte, a scale of one byte for 64 of them, and one of four bytes for 256 of these
(QLoRA, arXiv 2305.14314, section 3: double quantisation)."""


def kept_by_layer(shape: Shape) -> int:
    """Numbers that a layer keeps of each token for its gradient.

    6 D: what goes into each of the two norms, the normalised, and the scaled that goes into the linear layers.
    2 queries, 2 keys: queries, keys, values and the output of the attention.  4 F: gate, its activation, up, and their
    product.  Heads: the log-sum-exp of the attention; 2: the scales of the norms.
    """
    return 6 * shape.width + 2 * shape.queries + 2 * shape.keys + 4 * shape.inner + shape.heads + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a stage does at a time on one device."""

    tokens: int
    """M: output tokens of a micro-batch, of all its outputs."""

    outputs: int
    """Outputs of a micro-batch."""

    prompts: int
    """Different prompts of a micro-batch; each goes through the model once."""

    prompt_tokens: int
    """Tokens of a prompt."""

    micro_batches: int = 1
    """Of a step: from the second on, the gradients of the first are there when the activations are most."""

    rows: int = 0
    """N: rows sampled side by side; 0 where nothing is sampled."""

    max_tokens: int = 0
    """Cap of an output, for which the sampler keeps room."""

    mean_tokens: float = 0.0
    """Mean length of an output."""

    logits_at_once: int = 2**25
    recompute: bool = False
    has_reference: bool = False
    """Whether a reference policy stands beside: in RL."""


# Memory


def static_bytes(shape: Shape, held: Policy, work: Work) -> dict[str, float]:
    """What is there all the time: part -> bytes."""
    parts: dict[str, float] = {}
    if held.weights == "full":
        parts["weights"] = SINGLE * shape.parameters
        parts["reference"] = SINGLE * shape.parameters * work.has_reference
        trained = shape.parameters
    else:
        each = NF4 if held.weights == "qlora" else BYTES[held.dtype]
        parts["weights"] = each * shape.linear + BYTES[held.dtype] * shape.others
        trained = shape.adapters(held.rank)
        parts["adapters"] = 2 * SINGLE * trained  # the policy's and the reference's
    parts["optimiser"] = 2 * SINGLE * trained
    return parts


def trained_weights(shape: Shape, held: Policy) -> int:
    return shape.parameters if held.weights == "full" else shape.adapters(held.rank)


def update_bytes(shape: Shape, held: Policy, work: Work) -> dict[str, float]:
    """What an update takes beyond that at its peak: part -> bytes."""
    return max(update_phases(shape, held, work), key=lambda phase: sum(phase.values()))


def update_phases(shape: Shape, held: Policy, work: Work) -> list[dict[str, float]]:
    """What it takes where the backward pass begins, where the optimiser steps, and, where layers are computed again,
    where those of the prompts are: part -> bytes of each."""
    size, layer = BYTES[held.dtype], kept_by_layer(shape)
    at_once = min(work.tokens, max(1, work.logits_at_once // shape.vocabulary))
    logits, head = 2.0 * SINGLE * at_once * shape.vocabulary, SINGLE * shape.head * (held.weights == "full")
    if at_once < work.tokens:
        logits += 2 * head  # its gradient so far, and that of some more tokens, to be added
    kept, prompts = float(layer * work.tokens), work.prompts * work.prompt_tokens
    parts: dict[str, float] = {}
    if work.micro_batches > 1:
        parts["gradients"] = float(SINGLE * trained_weights(shape, held))
    if work.recompute:
        # Of prompts the input of each layer, and their keys and values: as they come, end to end, and their gradients.
        parts["inputs of prompts"] = float(size * shape.layers * (shape.width + 6 * shape.keys) * prompts)
        parts["inputs of layers"] = float(size * shape.layers * shape.width * work.tokens)
        # The logits are gone when the last layer is computed again.
        again = size * (kept + shape.inner * work.tokens) + head
        parts |= {"a layer computed again": again} if again > logits else {"logits": logits}
    else:
        parts["activations of prompts"] = float(size * shape.layers * layer * prompts)
        first = size * (2 * shape.inner + 2 * shape.width) * work.tokens + head  # gradients inside the last layer
        parts["activations"] = size * kept * shape.layers
        parts |= {"gradients of activations": first} if first > logits else {"logits": logits}
    if held.weights != "full":  # what goes through the adapters, in single precision
        parts["activations of adapters"] = SINGLE * 7.0 * held.rank * shape.layers * work.tokens
    elif held.dtype != "float32":
        parts["weights for products"] = float(size * shape.parameters)
    parts["ends of the model"] = SINGLE * 4.0 * shape.width * work.tokens  # embedding, last norm, gradient of the head
    gradients = {"gradients": float(SINGLE * trained_weights(shape, held))}
    phases = [parts, gradients | {"a root of moments": float(SINGLE * max(shape.head, shape.width * shape.inner))}]
    if work.recompute:  # between them: of the outputs all gradients are there, and prompts are computed again
        again = {"a layer of prompts computed again": float(size * (layer + shape.inner) * prompts)}
        phases.append({"inputs of prompts": parts["inputs of prompts"]} | again | gradients)
    return phases


def cache_bytes(shape: Shape, held: Policy, tokens: float) -> float:
    """Keys and values of some tokens in all layers."""
    return 2.0 * BYTES[held.dtype] * shape.layers * shape.keys * tokens


def sampling_bytes(shape: Shape, held: Policy, work: Work) -> dict[str, float]:
    """What the torch sampler takes beyond the static: part -> bytes."""
    return {
        "keys and values": cache_bytes(shape, held, work.rows * work.max_tokens),
        "keys and values of prompts": cache_bytes(shape, held, work.prompts * work.prompt_tokens),
        "logits": 4.0 * SINGLE * work.rows * shape.vocabulary,
    }


def peak_bytes(shape: Shape, held: Policy, work: Work) -> tuple[float, dict[str, float]]:
    """Most bytes at one time, and their parts: the static ones, and those of the larger of sampling and update."""
    static = static_bytes(shape, held, work)
    phases = [update_bytes(shape, held, work)] if work.tokens else []
    phases += [sampling_bytes(shape, held, work)] if work.rows else []
    largest = max(phases, key=lambda phase: sum(phase.values()))
    parts = static | {name: size for name, size in largest.items()}
    return sum(parts.values()), parts


# Time


@dataclass(frozen=True, slots=True)
class Cost:
    """What work asks of a device."""

    flop: float = 0.0
    """Of products of matrices."""

    traffic: float = 0.0
    """Bytes that pass through memory, or through the caches that hold what one core works on."""

    calls: float = 0.0
    """Operators that are started one after the other."""

    exps: float = 0.0
    """Exponentials: of attention, of the gate, of the softmax over the vocabulary.  Each takes as long as many
    products."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(a * times for a in _values(self)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of one floating-point operation, of one byte, one call, one exponential: measured on a device."""

    flop: float
    traffic: float
    calls: float
    exps: float = 0.0

    def seconds(self, cost: Cost) -> float:
        return sum(rate * amount for rate, amount in zip(_values(self), _values(cost), strict=True))


def _values(of: Cost | Rates) -> tuple[float, ...]:
    return of.flop, of.traffic, of.calls, of.exps


def fitted(costs: Sequence[Cost], seconds: Sequence[float]) -> Rates:
    """Rates from measured times: least squares of relative errors, none below 0.

    >>> costs = [Cost(1, 0, 0), Cost(0, 2, 0), Cost(1, 1, 1), Cost(2, 1, 5)]
    >>> rates = fitted(costs, [2.0, 6.0, 6.0, 12.0])
    >>> [round(x, 6) for x in (rates.flop, rates.traffic, rates.calls)]
    [2.0, 3.0, 1.0]
    """
    table = np.array([_values(cost) for cost in costs]) / np.array(seconds)[:, None]
    scale = np.abs(table).max(axis=0)
    chosen = [i for i in range(len(scale)) if scale[i] > 0]
    rates = np.zeros(len(scale))
    while chosen:
        found = np.linalg.lstsq(table[:, chosen] / scale[chosen], np.ones(len(seconds)), rcond=None)[0]
        if (found >= 0).all():
            rates[chosen] = found / scale[chosen]
            break
        chosen.pop(int(found.argmin()))
    return Rates(*map(float, rates))


def attention_flop(shape: Shape, pairs: float) -> float:
    """Of the two products of the attention, forward, for so many pairs of a token and one that it sees."""
    return 4.0 * shape.layers * shape.queries * pairs


CALLS = 30.0
"""Operators of a layer in a pass, by count of the library's code: norms, linear layers, rotation, attention, gate."""

ADAPTER_CALLS = 7 * 6.0
"""More of them where an adapter stands beside each of the seven linear layers: cast, down, up, scale, add, cast."""

PROMPT_CALLS = 3.0
"""Operators of a layer for each prompt that outputs see: its attention, and where it is put (`engine.attention`)."""

STEP_CALLS = 80.0
"""Operators of a sampled token beside the layers': noise, softmax, sums, search, bookkeeping of rows."""

TENSORS, TENSOR_CALLS = 12.0, 17.0
"""Trained tensors of a layer, and operators of each in a step: of clipping 3, of AdamW 14."""

STEP_TRAFFIC = 21.0
"""Numbers read and written of each trained weight in a step: clipping reads the gradient, scales it (3), AdamW without
fusing moves both moments, root, quotient and weight one after the other (18)."""

NOTHING = Work(tokens=0, outputs=0, prompts=0, prompt_tokens=0)


def forward(shape: Shape, held: Policy, tokens: float, pairs: float, head_tokens: float, passes: float = 1.0) -> Cost:
    """Passes through the model, so many for all these tokens: 2 operations a weight and token (Kaplan et al., arXiv
    2001.08361, section 2.1)."""
    flop = 2.0 * (shape.linear * tokens + shape.head * head_tokens) + attention_flop(shape, pairs)
    moved = shape.layers * kept_by_layer(shape) * tokens + 3 * shape.vocabulary * head_tokens
    weights = static_bytes(shape, held, NOTHING)["weights"]
    traffic, calls = BYTES[held.dtype] * moved + weights * passes, CALLS * shape.layers * passes
    if held.weights != "full":
        flop += 2.0 * shape.adapters(held.rank) * tokens
        wide = 2 * shape.width + shape.queries + 2 * shape.keys + 2 * shape.inner  # outputs of the linear layers
        traffic += SINGLE * 4.0 * shape.layers * wide * tokens
        calls += ADAPTER_CALLS * shape.layers * passes
    exps = shape.layers * (shape.inner * tokens + shape.heads * pairs) + shape.vocabulary * head_tokens
    return Cost(flop, traffic, calls, exps)


def update_cost(shape: Shape, held: Policy, work: Work) -> Cost:
    """An update of all micro-batches, forward and backward, and the optimiser's step.

    Backward takes twice the operations of forward where all weights are trained, once where they are frozen: there is
    no gradient of the weights then.  Recomputed layers, and logits in chunks, are passed forward once more.
    """
    length, outputs = work.tokens / max(1, work.outputs), work.outputs * work.micro_batches
    tokens, prompts = work.tokens * work.micro_batches, work.prompts * work.micro_batches
    asked = prompts * work.prompt_tokens
    pairs = outputs * (length * (length + 1) / 2 + length * work.prompt_tokens) + asked * work.prompt_tokens / 2
    passes = 1.0 + work.micro_batches
    once = forward(shape, held, tokens + asked, pairs, tokens, passes)
    once += Cost(calls=PROMPT_CALLS * shape.layers * prompts)
    twice = 2.0 if held.weights == "full" else 1.0
    found = once + Cost(twice * once.flop, 2.0 * once.traffic, 2.0 * once.calls, once.exps)
    if work.recompute:
        found += forward(shape, held, tokens + asked, pairs, 0, passes)
    if work.tokens > work.logits_at_once // shape.vocabulary:
        logits = shape.vocabulary * tokens
        found += Cost(2.0 * shape.head * tokens, 3.0 * SINGLE * logits, 0.0, logits)
    trained = trained_weights(shape, held)
    return found + Cost(0.0, STEP_TRAFFIC * SINGLE * trained, TENSOR_CALLS * TENSORS * shape.layers)


def sampling_cost(shape: Shape, held: Policy, work: Work) -> Cost:
    """Sampling of ``rows`` outputs of ``mean_tokens``, a token a row at a time, prompts first.

    Each step reads all weights, and of each row the keys and values that it has so far.
    """
    prompts = work.prompts * work.prompt_tokens
    begun = forward(shape, held, prompts, prompts * work.prompt_tokens / 2, 0)
    seen = work.prompt_tokens + work.mean_tokens / 2
    one = forward(shape, held, work.rows, work.rows * seen, work.rows)
    chosen = 4.0 * SINGLE * shape.vocabulary * work.rows  # softmax, sums of blocks
    read = Cost(0.0, cache_bytes(shape, held, work.rows * seen) + chosen, 20.0 * shape.layers + STEP_CALLS)
    return begun + (one + read) * work.mean_tokens
