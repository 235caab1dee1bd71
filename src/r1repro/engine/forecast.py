"""A plan in words: `python -m r1repro plan` asks here, and prints what comes back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1repro import config, paper, students
from r1repro.engine import advice, devices, planner, shapes
from r1repro.engine.planner import Job, Place, Setting
from r1repro.records import Refusal
from r1repro.tinyworld import base

STAGES = ("rl", "sft", "evaluate", "sampling")

USUAL_GPU = {"gpu": "rtx4090", "node": "h100", "cluster": "h100", "paper": "h800"}
"""Tier -> its GPU where none is named.  Ours, the first by its profile of 24 GB, but for the paper's
(hyperparameters.csv, r1_zero_rl compute)."""

BIG = {"policy.weights": "full", "policy.sampler": "vllm", "machine.device": "cuda"}
"""Where the tier says nothing: the paper trains all weights."""

CONTEXT = 32768
"""Tokens of context that the paper gives an output (hyperparameters.csv, r1_zero_rl max_length_initial)."""


def question_tokens() -> float:
    """Mean tokens of a question: the paper's of RL, by domain (v2 Table 4).

    >>> round(question_tokens())
    207
    """
    rows = [row for row in paper.table("v2_table4_rl_data") if row["avg_prompt_tokens"]]
    return _mean((float(row["avg_prompt_tokens"]), float(row["prompts"])) for row in rows)


def usual_length(stage: str, cap: int) -> float:
    """Mean tokens of an output, where the user says nothing, and never more than half of the cap.

    RL: the share of its cap that the paper's mean length took over the run of R1-Zero (Figure 3, v2 Figure 1b).  SFT:
    that of its 800,000 examples, evaluation and sampling: that of mathematics among them (v2 Table 5).

    >>> round(usual_length("rl", 32768)), usual_length("sft", 32768), usual_length("sft", 1000)
    (6061, 5355.3, 500.0)
    """
    rows = {row["domain"]: float(row["avg_tokens"]) for row in paper.table("v2_table5_sft_data")}
    if stage == "rl":
        usual = cap * mean_length() / paper.constant("r1_zero_rl", "max_length_initial")
    else:
        usual = rows["Total" if stage == "sft" else "Math"]
    return min(usual, cap / 2)


def curve() -> list[tuple[float, float, float]]:
    """(steps, mean length, cap) of parts of R1-Zero's run: between two points of its curve of lengths."""
    switch = paper.constant("r1_zero_rl", "length_switch_step")
    caps = [paper.constant("r1_zero_rl", name) for name in ("max_length_initial", "max_length_after_8200")]
    points = paper.curve("mean_response_length", whole_run=True)
    points.append((int(paper.constant("r1_zero_rl", "total_steps")), points[-1][1]))
    pairs = zip(points, points[1:], strict=False)
    return [(b - a, (x + y) / 2, caps[a >= switch]) for (a, x), (b, y) in pairs]


def mean_length() -> float:
    """Mean tokens of R1-Zero's outputs over its whole run."""
    return _mean((length, steps) for steps, length, _ in curve())


def _mean(pairs) -> float:
    pairs = list(pairs)
    return sum(x * weight for x, weight in pairs) / sum(weight for _, weight in pairs)


def setting(
    tier: str,
    student: str | None = None,
    stage: str = "rl",
    *,
    gpus: int | None = None,
    per_node: int = 8,
    gpu: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    mean_tokens: float | None = None,
    examples: int | None = None,
) -> Setting:
    """What a plan is made of.

    Args:
        student: of `students`, a base of the tiny world, or a folder with a config.json; None: the tier's base.
        gpus, gpu: None for those of `config.TIER_GPUS` and `USUAL_GPU`.
        overrides: setting -> value, as for the stage itself; what chooses speed and memory is chosen for the GPU else.
        mean_tokens: of an output; None: `usual_length`.
        examples: of SFT; None: the paper's 804,745.

    Raises:
        Refusal: an unknown tier, stage, GPU, student or setting; GPUs that cannot be divided so.
    """
    config.check_tier(tier)
    if tier not in config.TIER_GPUS:
        raise Refusal(
            f"tier {tier} takes minutes on this machine, so there is nothing to plan: choose one of "
            f"{', '.join(config.TIER_GPUS)}"
        )
    if stage not in STAGES:
        raise Refusal(f"no stage {stage!r} to plan: choose one of {', '.join(STAGES)}")
    model = config.TIER_MODEL.get(tier, {})
    device = devices.device(gpu or USUAL_GPU[tier])
    student = student or model.get("", {}).get("base") or "qwen-32b"
    shape, given = shape_of(student), dict(overrides or {})
    profile = max((size for size in config.PROFILES if size * 1e9 <= device.memory), default=min(config.PROFILES))
    usual = {"profile": profile, "policy.dtype": device.dtype} | ({} if model else BIG)
    asked = usual | given
    if stage == "sft":
        made = config.distill(tier, student, 0, asked)
        job = sft_job(made.sft, examples)
    elif stage == "sampling":
        made = config.r1(tier, 0, {"base": student} | asked)
        job = Job(
            cycles=1, sampled=made.rejection.num_questions * made.rejection.outputs_per_question,
            question=question_tokens(), mean=usual_length(stage, made.rejection.max_tokens),
            cap=made.rejection.max_tokens, group=made.rejection.outputs_per_question,
        )  # fmt: skip
    else:
        made = config.r1_zero(tier, 0, {"base": student} | asked)
        job = rl_job(made.rl) if stage == "rl" else evaluate_job(made.evaluate)
    if mean_tokens is not None:
        if not 0 < mean_tokens <= job.cap:
            raise Refusal(f"outputs of {mean_tokens:,.0f} tokens on average, but their cap is {job.cap}: give less")
        job = replace(job, mean=mean_tokens)
    place = Place(device=device, gpus=config.TIER_GPUS[tier] if gpus is None else gpus, per_node=per_node)
    found = Setting(shape=shape, held=made.policy, machine=made.machine, job=job, place=place)
    advice.check(found)
    if made.policy.dtype == "bfloat16" and device.dtype != "bfloat16":
        raise Refusal(f"{device.title} computes in no bfloat16: set policy.dtype={device.dtype}")
    if "machine.tensor_parallel" in given or not job.sampled:
        return found
    widths = [t for t in (1, 2, 4, 8) if t == 1 or advice.may_divide(found, t)]
    tried = [replace(found, machine=replace(found.machine, tensor_parallel=t)) for t in widths]
    fitting = [one for one in tried if fits(one)]
    if not fitting:
        return min(tried, key=planner.shortage)
    return min(fitting, key=lambda one: planner.total(planner.cycle(one, False)))


def shape_of(student: str) -> shapes.Shape:
    """The shape of a student, of a base's id, of a base of the tiny world, or of a folder; nothing is downloaded."""
    known = students.of_base(student)
    if known is None and student not in (*students.students(), *base.SHAPES) and not Path(student).is_dir():
        raise Refusal(
            f"no student called {student!r}: choose one of {', '.join((*students.students(), *base.SHAPES))}, or a "
            "folder with a config.json"
        )
    if Path(student).is_dir() and not (Path(student) / "config.json").is_file():
        raise Refusal(f"no config.json in {student}: give the folder of a model in Hugging Face form")
    return shapes.shape(known.name if known else student)


def rl_job(rl: config.RL) -> Job:
    """A rollout with its updates."""
    outputs = rl.questions_per_rollout * rl.outputs_per_question
    return Job(
        cycles=rl.num_rollouts, sampled=outputs, trained=rl.questions_per_step * rl.outputs_per_question,
        steps=rl.steps_per_rollout, prompts=rl.questions_per_rollout, question=question_tokens(),
        mean=usual_length("rl", rl.max_tokens), cap=rl.max_tokens, reads=2, has_reference=True,
        group=rl.outputs_per_question,
    )  # fmt: skip


def sft_job(sft: config.SFT, examples: int | None = None) -> Job:
    """A step; the number of examples is the paper's (hyperparameters.csv, sft_800k total_samples)."""
    count = int(paper.constant("sft_800k", "total_samples")) if examples is None else examples
    return Job(
        cycles=max(1, round(count / sft.batch_size)) * sft.epochs, trained=sft.batch_size, steps=1,
        prompts=sft.batch_size, question=question_tokens(), mean=usual_length("sft", sft.max_tokens),
        cap=sft.max_tokens,
    )  # fmt: skip


def evaluate_job(evaluate: config.Evaluate) -> Job:
    return Job(
        cycles=1, sampled=evaluate.num_questions * evaluate.k, question=question_tokens(),
        mean=usual_length("evaluate", evaluate.max_tokens), cap=evaluate.max_tokens, group=evaluate.k,
    )  # fmt: skip


# Words


def lines(s: Setting, title: str, price: float) -> Iterator[str]:
    """The plan, line by line.

    Args:
        price: of a GPU and hour.

    Raises:
        Refusal: it does not fit, whatever is set.
    """
    lacks = planner.shortage(s)
    mended = advice.mended(s) if lacks > 0 else None
    if lacks > 0 and not mended:
        raise Refusal(cannot_fit(s, lacks))
    yield from _heading(s, title)
    yield ""
    yield from _memory(s)
    yield ""
    yield from _time(s)
    yield from _cost(s, price)
    yield ""
    yield from _assumed(s)
    yield ""
    yield from _limit(s, mended)
    yield from context_lines(s)


def fits(s: Setting) -> bool:
    return planner.shortage(s) <= 0


def cannot_fit(s: Setting, lacks: float) -> str:
    ways = []
    if count := advice.needed_gpus(s):
        ways.append(f"--gpus {count}")
    for device in sorted(devices.devices().values(), key=lambda d: d.memory):
        other = replace(s, place=replace(s.place, device=device))
        if device.memory > s.place.device.memory and advice.mended(other):
            ways.append(f"--gpu {device.name}")
            break
    ways = ways or ["a smaller student, or a lower cap of outputs"]
    where = f"{s.place.gpus} {s.place.device.name}"
    return (
        f"{s.shape.name} does not fit on {where} whatever is set ({s.place.device.memory / 1e9:.0f} GB a GPU, "
        f"{lacks / 1e9:.1f} GB too few as asked): give {' or '.join(ways)}"
    )


def _heading(s: Setting, title: str) -> Iterator[str]:
    place, tp = s.place, s.machine.tensor_parallel
    nodes = f" in nodes of {place.per_node}" if place.gpus > place.per_node else ""
    weights = f"{s.shape.name}, {s.shape.parameters / 1e9:.1f} billion weights"
    yield f"{title}: {weights}, on {place.gpus} {place.device.title}{nodes}"
    if not s.job.trained:
        held = "the policy"
    elif s.held.weights == "full":
        held = "all weights trained"
    else:
        held = f"adapters of rank {s.held.rank} beside {'NF4' if s.held.weights == 'qlora' else s.held.dtype} weights"
    where = f"divided over {place.gpus} ranks by FSDP2" if s.is_sharded else "whole on each GPU"
    micro = f", micro-batches of {s.micro_batch:,.0f} tokens" if s.job.trained else ""
    yield f"  {held}, {where}; products in {s.held.dtype}{micro}"
    if s.job.sampled and s.held.sampler == "vllm":
        rows = planner.side_by_side(s)
        yield f"  vLLM: copies on {tp} GPUs each, {s.copies:.0f} in all; {rows:.0f} outputs side by side in each"
    said = "the paper's mean" if s.job.trained and not s.job.sampled else "assumed; see --mean-tokens"
    yield (
        f"  outputs of {s.job.mean:,.0f} tokens on average ({said}), {s.job.cap:,} at most; prompts of "
        f"{s.job.question:.0f}"
    )


def _memory(s: Setting) -> Iterator[str]:
    phases = planner.memory(s)
    names = list(dict.fromkeys(name for parts in phases.values() for name in parts))
    yield _row("memory of a GPU, GB", *phases)
    for name in names:
        yield _row(f"  {name}", *(f"{parts[name] / 1e9:.2f}" if name in parts else "" for parts in phases.values()))
    yield _row("  in all", *(f"{sum(parts.values()) / 1e9:.2f}" for parts in phases.values()))
    room = s.place.device.memory - planner.RESERVE
    yield _row(f"  there, less {planner.RESERVE / 1e9:.0f} kept back (assumed)", *[f"{room / 1e9:.2f}"] * len(phases))
    yield _row("  fits", *("yes" if sum(parts.values()) <= room else "NO" for parts in phases.values()))
    if s.job.sampled and s.held.sampler == "vllm":
        one = planner.cache_of_token(s) * (s.job.question + s.job.cap)
        there = planner.vllm_bytes(s)["vLLM: keys and values"]
        yield _row("  longest outputs that fit side by side", f"{there / one:.1f}" + " (NO)" * (there < one))


def _time(s: Setting) -> Iterator[str]:
    best, worst = planner.cycle(s, True), planner.cycle(s, False)
    what = f"a rollout with {s.job.steps} updates" if s.job.reads else "a step" if s.job.trained else "all outputs"
    yield _row(f"time of {what}, s", "at best", "at worst", after="waits mostly for")
    for part in best:
        waits = max(worst[part], key=worst[part].get)
        yield _row(f"  {part}", *(f"{sum(x[part].values()):.1f}" for x in (best, worst)), after=waits)
    yield _row("  in all", *(f"{planner.total(x):.1f}" for x in (best, worst)))


def _cost(s: Setting, price: float) -> Iterator[str]:
    hours = planner.gpu_hours(s)
    if s.job.cycles > 1:
        what = "rollouts" if s.job.reads else "steps"
        yield _row(f"  {s.job.cycles:,} {what}, hours", *(f"{x / s.place.gpus:,.1f}" for x in hours))
    yield _row("GPU-hours", *map(_amount, hours))
    yield _row(f"cost at {price:g} a GPU-hour", *(_amount(x * price) for x in hours))


def _amount(x: float) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


def _assumed(s: Setting) -> Iterator[str]:
    device = s.place.device
    flop, read = (devices.share(device.name, name) for name in ("flop_share", "bandwidth_share"))
    if flop.kind == "assumed":
        yield f"no {device.title} has run this code; between best and worst lie (ours: assumed, see assumptions.csv)"
    yield (
        f"  {flop.low:g} to {flop.high:g} of its {device.flop / 1e12:g} TFLOP/s, {read.low:g} to {read.high:g} of its "
        f"{device.bandwidth / 1e9:,.0f} GB/s"
    )
    if others := devices.published(device.name, "flop_share"):
        yield f"  others published {others.low:g} to {others.high:g} of those TFLOP/s: {others.source}"
    yield f"  data: {device.source}" + (f"; {device.network_source}" if s.place.gpus > s.place.per_node else "")


def _limit(s: Setting, mended: tuple[Sequence[str], Setting] | None) -> Iterator[str]:
    name, low, high = planner.limit(s)
    if mended:
        other = mended[1]
        left, hours = -planner.shortage(other) / 1e9, planner.gpu_hours(other)
        yield f"limit: memory, {planner.shortage(s) / 1e9:.1f} GB too few"
        took = " to ".join(_amount(x) for x in hours)
        yield f"change: --set {' '.join(mended[0])} fits, with {left:.1f} GB to spare; {took} GPU-hours"
        count = advice.needed_gpus(s) if other.held != s.held else None
        if count:
            yield f"  or --gpus {count}, all weights trained"
        return
    yield f"limit: {name}, {low:.0%} to {high:.0%} of the time"
    if s.job.sampled and s.held.sampler == "vllm":
        rows, most = planner.side_by_side(s), min(s.machine.max_rows, s.job.sampled / s.copies)
        if rows < 0.95 * most:
            yield f"  keys and values have room for {rows:.0f} outputs side by side, of {most:.0f}"
    if better := advice.faster(s):
        yield f"change: --set {' '.join(better[0])} saves {better[1]:.0%} of the time at worst"
    else:
        yield "change: no single setting saves a twentieth of the time; more GPUs share it"


def context_lines(s: Setting) -> Iterator[str]:
    """What outputs of 32,768 tokens need, beside what is asked."""
    grown = replace(s.job, cap=CONTEXT, mean=max(s.job.mean, s.job.mean * CONTEXT / s.job.cap))
    other = replace(s, job=grown) if s.job.cap < CONTEXT else s
    needs = []
    if s.job.sampled:
        per_output = planner.cache_of_token(other) * CONTEXT
        needs.append(f"keys and values of one take {per_output / 1e9:.2f} GB of a GPU")
    if s.job.trained:
        needs.append(f"its update {sum(planner.update_bytes(other).values()) / 1e9:.1f} GB beside the rest")
    yield f"{CONTEXT:,} tokens of context: {', '.join(needs)}"
    if s.shape.max_positions and s.shape.max_positions < CONTEXT:
        yield f"  its base has {s.shape.max_positions:,} positions: the paper's students raise max_position_embeddings"
    if other is s:
        return
    times = [planner.total(planner.cycle(other, best)) for best in (True, False)]
    if fits(other):
        yield f"  fits as set; {times[0]:,.0f} to {times[1]:,.0f} s in the place of the above"
    elif mended := advice.mended(other):
        yield f"  fits with --set {' '.join(mended[0])}"
    else:
        count = advice.needed_gpus(other)
        yield f"  does not fit on {s.place.gpus} of these GPUs" + (f"; on {count} it does" if count else "")


def _row(first: str, *cells: object, after: str = "") -> str:
    return f"{first:44}{''.join(f'{cell!s:>12}' for cell in cells)}   {after}".rstrip()
