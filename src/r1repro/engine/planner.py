"""Will it fit, how long will it take, what limits it, what would change that: for a stage on GPUs, before it runs.

Memory is `plan`'s, spread over ranks.  Where all weights are trained, FSDP2 divides weights, gradients and moments by
the ranks, and gathers a layer whole, with the next one, while it computes (ZeRO, arXiv 1910.02054, section 5;
documentation of ``torch.distributed.fsdp.fully_shard``).  Adapters are not divided: each rank holds all of a frozen
base.  vLLM divides weights, keys and values by the ranks of a copy (tensor parallelism, arXiv 1909.08053, section 3).

Time is the sum of what follows one after the other in `stages.rl`: sampling, the last rewards, reading the outputs
by the old policy and the reference, the updates, handing the weights over.  Each is what its slowest resource takes:
products at a share of the device's peak, bytes at a share of its bandwidth, collective operations at a share of the
links.  The shares are in ``assumptions.csv``: no GPU has run this code, so they are ranges, and so is what comes out.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from r1repro.config import Machine, Policy
from r1repro.engine import devices, lengths, plan
from r1repro.engine.devices import Device
from r1repro.engine.shapes import Shape

RESERVE = 3e9
"""Bytes of a GPU that no tensor can have: CUDA's context, NCCL's buffers, graphs of a sleeping vLLM, fragments.
Ours: assumed."""

WORKSPACE = 2e9
"""Bytes that vLLM takes for what a step computes.  Ours: assumed."""

LIMITS = ("memory bandwidth", "compute", "interconnect", "calls and waits")
Times = dict[str, dict[str, float]]
"""Part of a stage -> resource that it waits for -> seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a stage asks, whatever it runs on.  A cycle is a rollout with its updates, a step of SFT, or all."""

    cycles: int
    sampled: int = 0
    """Outputs sampled in a cycle."""

    trained: int = 0
    """Outputs of a step."""

    steps: int = 0
    """Of a cycle."""

    prompts: int = 0
    """Different prompts of a cycle; of them a rank asks those of its own outputs."""

    question: float
    """Tokens of a prompt."""

    mean: float
    """Tokens of an output."""

    cap: int
    reads: int = 0
    """How often the outputs are read without a gradient: by the old policy where vLLM sampled, by the reference."""

    has_reference: bool = False

    group: int = 0
    """Outputs that are graded together, where rules grade them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """So many GPUs, ``per_node`` in a machine."""

    device: Device
    gpus: int
    per_node: int

    @property
    def bus(self) -> float:
        """Bytes a second at which each rank takes part in gathering something whole: inside a node its link, across
        nodes all cards of its node, through which every rank's part comes once (nccl-tests, PERFORMANCE.md)."""
        return min(self.device.link, self.device.network * self.per_node if self.gpus > self.per_node else math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that memory and time depend on."""

    shape: Shape
    held: Policy
    machine: Machine
    job: Job
    place: Place

    @property
    def is_sharded(self) -> bool:
        return self.held.weights == "full" and self.place.gpus > 1

    @property
    def copies(self) -> float:
        """Copies of the model that sample."""
        return self.place.gpus / (self.machine.tensor_parallel if self.held.sampler == "vllm" else 1)

    @property
    def size(self) -> int:
        return plan.BYTES[self.held.dtype]

    def prompts(self, outputs: float) -> int:
        """How many prompts a rank's share of some outputs asks at most."""
        return min(self.job.prompts, math.ceil(outputs / self.place.gpus))

    @property
    def micro_batch(self) -> float:
        """Most tokens that go through an update at once: at least one whole output."""
        mine = math.ceil(self.job.trained / self.place.gpus)
        return min(max(self.machine.micro_batch_tokens, self.job.cap), mine * self.job.cap)


# Memory


def static_bytes(s: Setting) -> dict[str, float]:
    """What a rank holds all the time: part -> bytes."""
    work = replace(plan.NOTHING, has_reference=s.job.has_reference)
    parts = plan.static_bytes(s.shape, s.held, work)
    if not s.job.trained:
        parts = {name: size for name, size in parts.items() if name != "optimiser"}
    return {name: size / (s.place.gpus if s.is_sharded else 1) for name, size in parts.items() if size}


def update_bytes(s: Setting) -> dict[str, float]:
    """What an update takes beyond that at its peak."""
    tokens = int(s.micro_batch)
    work = plan.Work(
        tokens=tokens, outputs=max(1, round(tokens / s.job.mean)), prompts=s.prompts(s.job.trained),
        prompt_tokens=math.ceil(s.job.question), micro_batches=2, logits_at_once=s.machine.logits_at_once,
        recompute=s.machine.recompute, has_reference=s.job.has_reference,
    )  # fmt: skip
    phases = [phase for phase in plan.update_phases(s.shape, s.held, work) if "a root of moments" not in phase]
    if s.is_sharded:
        layer, head = s.shape.linear / s.shape.layers, s.shape.head
        for parts in phases:
            parts["gradients"] /= s.place.gpus
            parts.pop("weights for products", None)
            # This layer, the next one as it is gathered and as it is taken apart, this one's gradient; and in single
            # precision those of this one and of the one before, on their way to the ranks' sum (torch 2.13,
            # FSDPCommContext keeps one all_gather_result and one reduce_scatter_input).
            parts["layers gathered whole"] = (4 * s.size + 2 * plan.SINGLE) * layer
            parts["embedding and head gathered whole"] = s.size * s.shape.others + plan.SINGLE * head
    return max(phases, key=lambda parts: sum(parts.values()))


def vllm_bytes(s: Setting) -> dict[str, float]:
    """What vLLM takes of a GPU while it samples: its share of the memory, which keys and values fill."""
    weights = s.size * s.shape.parameters / s.machine.tensor_parallel
    rest = s.machine.sampler_memory * s.place.device.memory - weights - WORKSPACE
    return {"vLLM: weights": weights, "vLLM: workspace": WORKSPACE, "vLLM: keys and values": max(0.0, rest)}


def cache_of_token(s: Setting) -> float:
    """Bytes of keys and values of a token on each GPU of a copy; heads of keys are divided while there are enough."""
    return plan.cache_bytes(s.shape, s.held, 1) / min(s.machine.tensor_parallel, s.shape.key_heads)


def memory(s: Setting) -> dict[str, dict[str, float]]:
    """Phase -> part -> bytes on one GPU."""
    static, phases = static_bytes(s), {}
    if s.job.sampled and s.held.sampler == "vllm":
        phases["rollout"] = static | vllm_bytes(s)
    elif s.job.sampled:
        rows = min(s.machine.max_rows, math.ceil(s.job.sampled / s.copies))
        work = replace(plan.NOTHING, rows=rows, max_tokens=s.job.cap, prompts=rows, prompt_tokens=int(s.job.question))
        phases["rollout"] = static | plan.sampling_bytes(s.shape, s.held, work)
    if s.job.trained:
        phases["update"] = static | update_bytes(s)
        own = plan.SINGLE * plan.trained_weights(s.shape, s.held) / (s.place.gpus if s.is_sharded else 1)
        # torch's AdamW takes the roots of all second moments at a time on a GPU.
        phases["step"] = static | {"gradients": own, "roots of moments": own}
    return phases


def shortage(s: Setting) -> float:
    """Bytes that the fullest phase lacks, negative where some are left; vLLM also needs room for one whole output."""
    room = s.place.device.memory - RESERVE
    lacks = [sum(parts.values()) - room for parts in memory(s).values()]
    if s.job.sampled and s.held.sampler == "vllm":
        lacks.append(cache_of_token(s) * (s.job.question + s.job.cap) - vllm_bytes(s)["vLLM: keys and values"])
    return max(lacks)


# Time


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What is reached of a device: its data sheet times shares, all of them at their best or at their worst."""

    flop: float
    bandwidth: float
    link: float
    step_s: float
    latency_s: float
    grading_s: float
    disk: float


def reached(device: Device, best: bool) -> Reached:
    def of(quantity: str) -> float:
        found = devices.share(device.name, quantity)
        return found.high if best else found.low

    return Reached(
        flop=device.flop * of("flop_share"), bandwidth=device.bandwidth * of("bandwidth_share"),
        link=of("link_share"), step_s=of("step_s"), latency_s=of("latency_s"), grading_s=of("grading_s"),
        disk=of("disk_bytes_per_s"),
    )  # fmt: skip


def side_by_side(s: Setting) -> float:
    """Outputs that one copy samples at a time: what is asked for, what it may, and what keys and values have room for;
    each holds on average what it has at half its way."""
    mine = s.job.sampled / s.copies
    rows = min(s.machine.max_rows, mine)
    if s.held.sampler == "vllm":
        seen = s.job.question + lengths.squares(s.job.mean, s.job.cap) / (2 * s.job.mean)
        rows = min(rows, vllm_bytes(s)["vLLM: keys and values"] / (cache_of_token(s) * seen))
    return max(1.0, rows)


def decode_step(s: Setting, at: Reached, rows: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Seconds of one token of so many rows that see so many, on one copy: resource -> seconds.

    All weights, and the keys and values of each row, are read; products take 2 operations a weight and row.  Two sums
    over the ranks of a copy follow in each layer (arXiv 1909.08053, section 3).
    """
    tp = s.machine.tensor_parallel if s.held.sampler == "vllm" else 1
    weights = s.size * s.shape.parameters / tp
    read = (weights + cache_of_token(s) * rows * seen) / at.bandwidth
    flop = 2.0 * (s.shape.linear + s.shape.head) * rows + plan.attention_flop(s.shape, 1.0) * rows * seen
    compute, calls = flop / tp / at.flop, at.step_s
    if s.held.sampler == "torch":
        calls = TORCH_CALL * s.shape.layers * (plan.CALLS + 20)
    moved = 2 * s.size * s.shape.width * rows * (tp - 1) / tp / (s.place.device.link * at.link)
    sums = 2 * s.shape.layers * (at.latency_s + moved) if tp > 1 else 0.0 * rows
    return {
        "memory bandwidth": np.where(read >= compute, read, 0.0),
        "compute": np.where(read < compute, compute, 0.0),
        "interconnect": sums,
        "calls and waits": calls + 0.0 * rows,
    }


TORCH_CALL = 1e-5
"""Seconds that torch takes to start an operator on a GPU from Python.  Ours: assumed."""


def rollout_seconds(s: Setting, at: Reached) -> dict[str, float]:
    """Sampling: all rows at work while outputs wait, then ever fewer, until the longest output ends."""
    rows, mine = side_by_side(s), s.job.sampled / s.copies
    full = max(0.0, mine - rows) * s.job.mean / rows
    seen = s.job.question + lengths.squares(s.job.mean, s.job.cap) / (2 * s.job.mean)
    early = decode_step(s, at, np.array([rows]), np.array([seen]))
    scale = lengths.scale(s.job.mean, s.job.cap)
    edges = np.linspace(0.0, lengths.longest(s.job.mean, s.job.cap, rows), 257)
    ages, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    alive = np.maximum(1.0, rows * (np.exp(-ages / scale) if math.isfinite(scale) else np.ones_like(ages)))
    late = decode_step(s, at, alive, s.job.question + ages)
    found = {limit: full * float(early[limit][0]) + float((late[limit] * widths).sum()) for limit in LIMITS}
    prompts = plan.forward(s.shape, s.held, mine * s.job.question, mine * s.job.question**2 / 2, 0).flop
    found["compute"] += prompts / (s.machine.tensor_parallel if s.held.sampler == "vllm" else 1) / at.flop
    return found


def fullest_share(s: Setting, outputs: float) -> float:
    """Tokens of the rank that has most, over the mean: outputs differ in length, and ranks have few each.

    The largest of R normal sums is about sqrt(2 ln R) standard deviations above their mean (Gumbel); no share exceeds
    all outputs at the cap.
    """
    if s.place.gpus == 1:
        return 1.0
    relative = math.sqrt(max(0.0, lengths.squares(s.job.mean, s.job.cap) / s.job.mean**2 - 1))
    mine = max(1.0, outputs / s.place.gpus)
    above = relative / math.sqrt(mine) * math.sqrt(2 * math.log(s.place.gpus))
    return min(1 + above, s.job.cap / s.job.mean)


def pass_flop(s: Setting, outputs: float, prompts: float) -> tuple[float, float]:
    """Operations of a pass over some outputs and prompts, and of the logits among them."""
    pairs = outputs * (lengths.squares(s.job.mean, s.job.cap) / 2 + s.job.mean * s.job.question)
    pairs += prompts * s.job.question**2 / 2
    tokens, asked = outputs * s.job.mean, prompts * s.job.question
    head = 2.0 * s.shape.head * tokens
    return plan.forward(s.shape, s.held, tokens + asked, pairs, 0).flop + head, head


def gather_seconds(s: Setting, at: Reached, size: float) -> float:
    """To have all weights on all ranks, or to add their gradients up, at so many bytes a weight."""
    if s.place.gpus == 1:
        return 0.0
    share = (s.place.gpus - 1) / s.place.gpus
    return size * s.shape.parameters * share / (s.place.bus * at.link)


def overlapped(compute: float, link: float) -> dict[str, float]:
    """FSDP2 gathers the next layer while one computes, so the longer of the two is waited for."""
    return {"compute": compute if compute >= link else 0.0, "interconnect": link if link > compute else 0.0}


def read_seconds(s: Setting, at: Reached) -> dict[str, float]:
    """Reading the outputs of a rollout without a gradient, as often as the job asks."""
    mine = s.job.sampled / s.place.gpus
    flop = pass_flop(s, mine, s.prompts(s.job.sampled))[0] * fullest_share(s, s.job.sampled)
    micro_batches = max(1, math.ceil(mine * s.job.mean / s.micro_batch))
    gathered = gather_seconds(s, at, s.size) * micro_batches if s.is_sharded else 0.0
    return {limit: s.job.reads * x for limit, x in overlapped(flop / at.flop, gathered).items()}


def update_seconds(s: Setting, at: Reached) -> dict[str, float]:
    """One step: forward, backward, and forward again of what was not kept; gradients added up; the optimiser.

    Weights are gathered for the forward pass and again for the backward pass, and gradients are added up in single
    precision, in each micro-batch.
    """
    mine = s.job.trained / s.place.gpus
    once, head = pass_flop(s, mine, s.prompts(s.job.trained))
    flop = once * (3.0 if s.held.weights == "full" else 2.0) + (once - head) * s.machine.recompute
    if mine * s.job.mean > s.machine.logits_at_once // s.shape.vocabulary:
        flop += head
    fullest = fullest_share(s, s.job.trained)
    micro_batches = max(1, math.ceil(mine * s.job.mean * fullest / s.micro_batch))
    trained = plan.trained_weights(s.shape, s.held)
    if s.is_sharded:
        link = micro_batches * (gather_seconds(s, at, 2 * s.size) + gather_seconds(s, at, plan.SINGLE))
        found = overlapped(flop * fullest / at.flop, link)
    else:
        whole = 2.0 * gather_seconds(s, at, plan.SINGLE) * trained / s.shape.parameters  # there and back
        found = {"compute": flop * fullest / at.flop, "interconnect": whole}
    moved = plan.STEP_TRAFFIC * plan.SINGLE * trained / (s.place.gpus if s.is_sharded else 1)
    return found | {"memory bandwidth": moved / at.bandwidth}


def sync_seconds(s: Setting, at: Reached) -> dict[str, float]:
    """Handing the policy to vLLM: all weights in single precision, written in half; or an adapter by a folder, while
    its base comes back from the CPU's memory, where it waited."""
    tp = s.machine.tensor_parallel
    written = s.size * s.shape.parameters / tp
    if s.held.weights == "full":
        read = plan.SINGLE * s.shape.parameters / at.bandwidth
        return {"interconnect": gather_seconds(s, at, plan.SINGLE), "memory bandwidth": read + written / at.bandwidth}
    adapter = 2.0 * plan.SINGLE * s.shape.adapters(s.held.rank)
    return {"interconnect": 2.0 * written / (s.place.device.host * at.link), "calls and waits": adapter / at.disk}


def cycle(s: Setting, best: bool) -> Times:
    """Seconds of a cycle by part and by the resource that each waits for."""
    at, found = reached(s.place.device, best), {}
    if s.job.sampled:
        found["rollout"] = rollout_seconds(s, at)
    if s.job.group:  # a thread grades while others are sampled, and waits for the last question
        sampling, grading = sum(found["rollout"].values()), at.grading_s * s.job.sampled / s.place.gpus
        found["reward"] = {"calls and waits": max(at.grading_s * s.job.group, grading - sampling)}
    if s.job.reads:
        found["old policy and reference"] = read_seconds(s, at)
    if s.job.trained:
        found["update"] = {limit: s.job.steps * x for limit, x in update_seconds(s, at).items()}
    if s.job.sampled and s.job.trained and s.held.sampler == "vllm":
        found["sync of weights"] = sync_seconds(s, at)
    return found


def total(times: Times) -> float:
    return sum(seconds for part in times.values() for seconds in part.values())


def gpu_hours(s: Setting) -> tuple[float, float]:
    """Of all cycles, at best and at worst."""
    return tuple(total(cycle(s, best)) * s.job.cycles * s.place.gpus / 3600 for best in (True, False))


def limit(s: Setting) -> tuple[str, float, float]:
    """What binds: ``memory`` where it does not fit, else the resource that is waited for longest, between the best and
    the worst; with its share of the time in both."""
    if shortage(s) > 0:
        return "memory", 1.0, 1.0
    shares = []
    for best in (True, False):
        times = cycle(s, best)
        whole = total(times)
        found = {name: sum(part.get(name, 0.0) for part in times.values()) / whole for name in LIMITS}
        found["rollout bandwidth"] = times.get("rollout", {}).get("memory bandwidth", 0.0) / whole
        found["memory bandwidth"] -= found["rollout bandwidth"]
        shares.append(found)
    name = max(shares[0], key=lambda key: math.sqrt(max(0.0, shares[0][key] * shares[1][key])))
    return name, *sorted(found[name] for found in shares)
