"""What to change in a plan: settings with which it fits, the one that saves most time, and what cannot run at all."""

from collections.abc import Iterator
from dataclasses import replace

from r1repro.engine import planner
from r1repro.engine.planner import Setting
from r1repro.records import Refusal


def changes(s: Setting) -> Iterator[tuple[list[str], Setting]]:
    """Other settings that change no number of the run, then adapters in the place of all weights: fewest first."""
    own, widths = s.machine, [t for t in (1, 2, 4, 8) if may_divide(s, t)]
    options = {
        "recompute": dict.fromkeys([own.recompute, True]),
        "micro_batch_tokens": dict.fromkeys([own.micro_batch_tokens, 4096]),
        "logits_at_once": dict.fromkeys([own.logits_at_once, 2**24]),
        "tensor_parallel": dict.fromkeys([own.tensor_parallel, *widths]),
        "sampler_memory": dict.fromkeys([own.sampler_memory, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85]),
    }
    if s.held.sampler == "torch":  # it keeps room for each row up to the cap
        options = {"max_rows": dict.fromkeys([own.max_rows, 64, 16]), **options, "sampler_memory": [own.sampler_memory]}
    found = []
    for kind in dict.fromkeys([s.held.weights, *(("lora", "qlora") if s.job.trained else ())]):
        chosen: list[dict] = [{}]
        for name, values in options.items():
            chosen = [one | {name: value} for one in chosen for value in values]
        for one in chosen:
            differs = [f"machine.{n}={_text(v)}" for n, v in one.items() if v != getattr(own, n)]
            differs += [f"policy.weights={kind}"] * (kind != s.held.weights)
            other = replace(s, machine=replace(own, **one), held=replace(s.held, weights=kind))
            found.append((differs, other))
    yield from sorted(found, key=lambda pair: (pair[1].held.weights != s.held.weights, len(pair[0])))


def may_divide(s: Setting, tp: int) -> bool:
    """Whether so many GPUs can share a copy: in one node, and dividing GPUs and heads."""
    inside = tp <= min(s.place.gpus, s.place.per_node) and s.place.gpus % tp == 0
    return inside and s.held.sampler == "vllm" and s.shape.heads % tp == 0


def mended(s: Setting) -> tuple[list[str], Setting] | None:
    """The fewest changes with which it fits; the fastest of equals."""
    fitting = [(differs, other) for differs, other in changes(s) if planner.shortage(other) <= 0]
    if not fitting:
        return None
    first = (fitting[0][1].held, len(fitting[0][0]))
    fewest = [(differs, other) for differs, other in fitting if (other.held, len(differs)) == first]
    return min(fewest, key=lambda pair: planner.total(planner.cycle(pair[1], False)))


def faster(s: Setting) -> tuple[list[str], float] | None:
    """The one change that saves most, and the share of the time that it saves at worst; none below a twentieth."""
    before, own, found = planner.total(planner.cycle(s, False)), s.machine, []
    tries = [{"max_rows": 2 * own.max_rows}, {"recompute": False}, {"micro_batch_tokens": 2 * own.micro_batch_tokens}]
    tries += [{"tensor_parallel": t} for t in (1, 2, 4, 8) if may_divide(s, t)]
    tries += [{"sampler_memory": x} for x in (0.6, 0.7, 0.8)]
    for one in tries:
        other = replace(s, machine=replace(own, **one))
        if planner.shortage(other) <= 0:
            name, value = next(iter(one.items()))
            found.append((1 - planner.total(planner.cycle(other, False)) / before, [f"machine.{name}={_text(value)}"]))
    saved, differs = max(found, default=(0.0, []))
    return (differs, saved) if saved >= 0.05 else None


def needed_gpus(s: Setting) -> int | None:
    """How many of these GPUs would do, with all settings that change no number: whole nodes, doubled."""
    gpus = s.place.gpus
    while gpus <= 4096:
        other = replace(s, place=replace(s.place, gpus=gpus))
        if s.job.trained and gpus > s.job.trained:
            return None
        if any(o.held == s.held and planner.shortage(o) <= 0 for _, o in changes(other)):
            return gpus
        gpus = 2 * gpus if gpus >= s.place.per_node else min(2 * gpus, s.place.per_node)
    return None


def check(s: Setting) -> None:
    """Refuse what cannot run whatever memory there is.

    Raises:
        Refusal: too few or too many GPUs, nodes that are not full, a copy of vLLM over GPUs that are not there.
    """
    place, tp = s.place, s.machine.tensor_parallel
    if place.gpus < 1 or place.per_node < 1:
        raise Refusal(f"{place.gpus} GPUs in nodes of {place.per_node}: give at least one")
    if place.gpus > place.per_node and place.gpus % place.per_node:
        raise Refusal(
            f"{place.gpus} GPUs do not fill nodes of {place.per_node}: give a multiple of {place.per_node}, or another "
            "--gpus-per-node"
        )
    if s.job.trained and place.gpus > s.job.trained:
        raise Refusal(
            f"{place.gpus} GPUs, but a step has {s.job.trained} outputs to share among them: give at most so many GPUs"
        )
    if s.held.sampler == "torch" and s.is_sharded and s.job.sampled:
        raise Refusal(
            "policy.sampler is torch, which would gather all weights for each token: set policy.sampler=vllm, or "
            "policy.weights=qlora"
        )
    if tp > 1 and not may_divide(s, tp):
        raise Refusal(
            f"machine.tensor_parallel is {tp}, but {place.gpus} GPUs in nodes of {place.per_node} and {s.shape.heads} "
            "heads cannot be divided so: choose a smaller power of 2"
        )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
