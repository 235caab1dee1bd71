"""One function a figure: what the evaluations of several seeds show, beside what the paper shows.

Every function returns a matplotlib Figure; nothing is written or shown here.  ``seeds`` are those of `ledger.read`, or,
where a figure is about models, what `models.read` gives of each seed; ``metrics`` are lines of metrics.jsonl.  A band
is the 95 % bootstrap interval over seeds and questions, or, for the metrics of training, from the lowest to the highest
seed.  Colours are those of seaborn's colour-blind palette; every line has its own marker or dash as well, every bar its
hatch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from r1repro import ledger, paper
from r1repro.algo.estimators import Interval, bootstrap
from r1repro.engine.fleet import PARTS, TRAINERS, Outcome
from r1repro.ledger import Checkpoint, SeedRuns
from r1repro.models import NAMES, QUESTIONS, Model, Rows, students_in

BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = seaborn.color_palette("colorblind", 10)

STYLE = {
    "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False, "font.family": "DejaVu Sans",
    "axes.spines.top": False, "axes.spines.right": False, "grid.linewidth": 0.6,
}  # fmt: skip


def axes_grid(rows: int, columns: int, size: tuple[float, float], **options) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot, so that a kernel which draws a hundred of them keeps none."""
    with seaborn.axes_style("whitegrid", STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=110)
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(axes: Axes, title: str, y: str, x: str = "step (policy updates)", legend: str | None = "best") -> None:
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if legend:
        axes.legend(fontsize=9, frameon=False, loc=legend)


def _shares(axes: Axes, top: float | None = 1.0) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=0, top=None if top is None else top * 1.03)


Columns = Callable[[SeedRuns, Checkpoint], tuple[np.ndarray, np.ndarray]]
"""Of one checkpoint, per question: what is counted, and what it is divided by."""


def _draw(axes: Axes, seeds: Sequence[SeedRuns], columns: Columns, label: str, colour, style: str = "o-") -> None:
    """A curve over the checkpoints with its band; each seed as a faint line behind it."""
    tables = [np.stack([v for c in seed.checkpoints for v in columns(seed, c)], axis=1) for seed in seeds]

    def rates(means: np.ndarray) -> np.ndarray:
        return means[:, 0::2] / means[:, 1::2]

    value, low, high = bootstrap(tables, rates, shared=ledger.shared(seeds), draws=1000)
    steps = np.array(seeds[0].steps)
    known = np.isfinite(value) & np.isfinite(low) & np.isfinite(high)
    axes.plot(steps, value, style, color=colour, label=label, markersize=4.5, linewidth=1.8)
    axes.fill_between(steps[known], low[known], high[known], color=colour, alpha=0.18, linewidth=0)
    if len(seeds) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            for table in tables:
                axes.plot(steps, rates(table.mean(axis=0)[None])[0], "-", color=colour, alpha=0.35, linewidth=0.8)


def _mean(field: str) -> Columns:
    return lambda seed, c: (getattr(c, field).mean(axis=1), np.ones(len(seed.ids)))


def _who(seeds: Sequence[SeedRuns]) -> str:
    """What the curves rest on, for a title.

    >>> _who([])
    'no seeds'
    """
    if not seeds:
        return "no seeds"
    numbers = ", ".join(str(seed.seed) for seed in seeds)
    questions, k = len(seeds[0].ids), seeds[0].end.right_QK.shape[1]
    return f"seed{'s' * (len(seeds) > 1)} {numbers}; {questions} questions x {k} samples; band: 95 % interval"


def accuracy_curve(seeds: Sequence[SeedRuns]) -> Figure:
    """Figure 2 of the paper and ours: pass@1 and majority vote against the step."""
    figure, ((ours, theirs),) = axes_grid(1, 2, (10.5, 4), sharey=True)
    k = seeds[0].end.right_QK.shape[1]
    _draw(ours, seeds, lambda s, c: (c.vote_Q, np.ones(len(s.ids))), f"cons@{k}", ORANGE, "s--")
    _draw(ours, seeds, _mean("right_QK"), "pass@1", BLUE)
    _shares(ours)
    finish(ours, "Ours: accuracy on test sums", "sums answered rightly")
    for series, label, colour, style in (
        ("aime2024_cons16", "cons@16", ORANGE, "s--"),
        ("aime2024_pass1", "pass@1", BLUE, "o-"),
    ):
        theirs.plot(*zip(*paper.curve(series), strict=True), style, color=colour, label=label, markersize=3)
    finish(theirs, "The paper: R1-Zero on AIME 2024 (Fig. 2)", "", legend="lower right")
    figure.supxlabel(_who(seeds), fontsize=8, color="0.35")
    return figure


def length_curve(seeds: Sequence[SeedRuns]) -> Figure:
    """Figure 3 of the paper and ours: mean length of all, right and wrong outputs, and how many were cut off."""
    figure, ((ours, cut, theirs),) = axes_grid(1, 3, (13, 4))
    _draw(ours, seeds, _mean("length_QK"), "all outputs", BLUE)
    for label, colour, style, right in (("right", GREEN, "^--", 1.0), ("wrong", RED, "v:", 0.0)):

        def tokens(_, c: Checkpoint, right: float = right) -> tuple[np.ndarray, np.ndarray]:
            chosen_QK = c.right_QK == right
            return (chosen_QK * c.length_QK).sum(axis=1), chosen_QK.sum(axis=1)

        _draw(ours, seeds, tokens, label, colour, style)
    ours.set_ylim(bottom=0)
    finish(ours, "Ours: length of an output", "tokens (mean)")
    _draw(cut, seeds, _mean("truncated_QK"), "cut at the cap", GREY, "X-")
    _shares(cut, top=None)
    cut.set_ylim(top=max(0.05, cut.get_ylim()[1]))
    finish(cut, "Ours: outputs cut at the cap", "outputs", legend=None)
    steps, tokens = zip(*paper.curve("mean_response_length"), strict=True)
    theirs.plot(steps, tokens, color=BLUE)
    theirs.set_ylim(bottom=0)
    finish(theirs, "The paper: R1-Zero in training (Fig. 3)", "tokens (mean, smoothed)", legend=None)
    figure.supxlabel(_who(seeds), fontsize=8, color="0.35")
    return figure


def reflection_curve(seeds: Sequence[SeedRuns]) -> Figure:
    """Reflection words an output and a thousand tokens; English (the paper's ten words) and Chinese (ours) apart."""
    figure, ((each, rate),) = axes_grid(1, 2, (10.5, 4))
    for label, colour, style, where in (
        ("English questions, the paper's ten words", BLUE, "o-", ledger.is_english),
        ("Chinese questions, our list", ORANGE, "s--", ledger.is_chinese),
    ):
        if not where(seeds[0]).any():
            continue

        def per_output(seed: SeedRuns, c: Checkpoint, where=where) -> tuple[np.ndarray, np.ndarray]:
            return where(seed) * c.reflection_QK.sum(axis=1), where(seed) * c.reflection_QK.shape[1]

        def per_1000_tokens(seed: SeedRuns, c: Checkpoint, where=where) -> tuple[np.ndarray, np.ndarray]:
            return where(seed) * 1000 * c.reflection_QK.sum(axis=1), where(seed) * c.length_QK.sum(axis=1)

        _draw(each, seeds, per_output, label, colour, style)
        _draw(rate, seeds, per_1000_tokens, label, colour, style)
    for axes in (each, rate):
        axes.set_ylim(bottom=0)
    finish(each, "Reflection words in an output", "words an output")
    finish(rate, "The same per 1000 tokens", "words per 1000 tokens", legend=None)
    figure.supxlabel(_who(seeds), fontsize=8, color="0.35")
    return figure


def accuracy_by_level(seeds: Sequence[SeedRuns]) -> Figure:
    """pass@1 of each stratum of difficulty at the start, half-way and at the end of training."""
    figure, ((axes,),) = axes_grid(1, 1, (7, 4))
    levels = sorted({int(level) for level in seeds[0].level_Q})
    moments = [("start", GREY, ""), ("half", SKY, "//"), ("end", BLUE, "")]
    if seeds[0].half is None:
        del moments[1]
    width = 0.8 / len(moments)
    for place, (which, colour, hatch) in enumerate(moments):
        tables = [_by_level(seed, getattr(seed, which), levels) for seed in seeds]
        rates = bootstrap(tables, lambda m: m[:, 0::2] / m[:, 1::2], shared=ledger.shared(seeds), draws=1000)
        value, low, high = (np.nan_to_num(v, posinf=1.0, neginf=0.0) for v in rates)
        at = np.arange(len(levels)) + (place - (len(moments) - 1) / 2) * width
        step = getattr(seeds[0], which).step
        axes.bar(at, value, width * 0.92, color=colour, hatch=hatch, edgecolor="white", label=f"{which} (step {step})")
        axes.errorbar(at, value, [value - low, high - value], fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    _shares(axes)
    finish(
        axes, "Accuracy of sums by difficulty, before, during and after training", "pass@1", "level (1 is the easiest)"
    )
    axes.set_xticks(np.arange(len(levels)), [str(level) for level in levels])
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel(_who(seeds).replace("band", "whisker"), fontsize=8, color="0.35")
    return figure


def _by_level(seed: SeedRuns, checkpoint: Checkpoint, levels: Sequence[int]) -> np.ndarray:
    pass1_Q = checkpoint.right_QK.mean(axis=1)
    chosen = [(seed.level_Q == level).astype(float) for level in levels]
    return np.stack([column for chosen_Q in chosen for column in (chosen_Q * pass1_Q, chosen_Q)], axis=1)


def language_mixing(seeds: Sequence[SeedRuns]) -> Figure:
    """Share of outputs whose thinking has under 95 % words of the question's language, by language of the question."""
    figure, ((axes,),) = axes_grid(1, 1, (6.5, 4))
    _draw(axes, seeds, _mean("mixed_QK"), "all questions", GREY)
    for label, colour, style, where in (
        ("English questions", BLUE, "^--", ledger.is_english),
        ("Chinese questions", ORANGE, "s:", ledger.is_chinese),
    ):
        if where(seeds[0]).any():
            chosen = lambda s, c, where=where: (where(s) * c.mixed_QK.mean(axis=1), where(s))  # noqa: E731
            _draw(axes, seeds, chosen, label, colour, style)
    _shares(axes, top=None)
    axes.set_ylim(top=max(0.05, axes.get_ylim()[1]))
    finish(axes, "Outputs that think in another language, in part or wholly", "outputs")
    figure.supxlabel(_who(seeds), fontsize=8, color="0.35")
    return figure


DIAGNOSIS = (
    ("Groups that teach nothing", "groups", True, [("group/no_variance", "all rewards agree", GREY, "-")]),
    ("Clipping", "tokens", True, [("policy/clip_share", "surrogate cut", BLUE, "-")]),
    ("Truncation", "outputs", True, [("length/truncated", "cut at the cap", RED, "-")]),
    ("Format against accuracy", "mean reward", False,
     [("reward/accuracy", "accuracy", BLUE, "-"), ("reward/format", "format", ORANGE, "--")]),
    ("Divergence", "nats a token", False,
     [("policy/kl_reference_nats", "policy from reference", BLUE, "-"),
      ("sampler/divergence_nats", "sampler from policy", ORANGE, "--")]),
    ("Gradient and entropy", "norm; nats a token", False,
     [("policy/grad_norm", "norm of the gradient", BLUE, "-"), ("policy/entropy_nats", "entropy", ORANGE, "--")]),
)  # fmt: skip
"""Panels of `diagnosis`: title, unit, whether it is a share, and (key of metrics.jsonl, label, colour, dash)."""


def diagnosis(metrics: Sequence[Sequence[dict]]) -> Figure:
    """Why does my reward not rise: six panels from the metrics of training, one list of lines a seed."""
    figure, grid = axes_grid(2, 3, (12, 6.4))
    for axes, (title, unit, is_share, lines) in zip(grid.flat, DIAGNOSIS, strict=True):
        for key, label, colour, dash in lines:
            draw_metric(axes, metrics, key, label, colour, dash)
        if is_share:
            _shares(axes, top=None)
            top = max(0.05, axes.get_ylim()[1])
            axes.set_ylim(-0.02 * top, top)  # a line that is 0 throughout must not lie on the frame
        if title == "Divergence":
            axes.set_yscale("symlog", linthresh=1e-9)
            axes.axhline(1e-8, color="0.4", linewidth=1, linestyle=":", label="bound for the sampler")
            axes.set_ylim(top=1e3)  # room for the legend above the curves
        elif not is_share:
            axes.set_ylim(bottom=0)
        finish(axes, title, unit)
    _under(figure, metrics)
    return figure


def _under(figure: Figure, metrics: Sequence[Sequence[dict]]) -> None:
    """What line and band are, where there are several seeds."""
    if len(metrics) > 1:
        figure.supxlabel("line: mean over seeds; band: lowest to highest seed", fontsize=8, color="0.35")


def draw_metric(axes: Axes, metrics: Sequence[Sequence[dict]], key: str, label: str, colour, dash: str) -> None:
    by_seed = [{row["step"]: row[key] for row in rows if row.get(key) is not None} for rows in metrics]
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if not steps:
        axes.plot([], [], dash, color=colour, label=f"{label} (not logged)")
        return
    values = np.array([[seed[step] for step in steps] for seed in by_seed], dtype=float)
    axes.plot(steps, values.mean(axis=0), dash, color=colour, label=label, linewidth=1.6)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)


# The models of the pipeline

BARS = tuple(zip((GREY, SKY, ORANGE, GREEN, BLUE, PURPLE, BROWN), ("", "//", "", "..", "", "xx", "\\\\"), strict=True))
"""Colour and hatch of the models in a group of bars; neighbours differ in lightness as well."""

PANELS = (("Reasoning and its form", range(0, 6)), ("Open prompts", range(6, 12)))
"""Of `benchmark_bars`: title, and which benchmarks stand in it."""


def _interval(seeds: Sequence[Mapping[str, Model]], name: str, rows: Rows) -> Interval | None:
    """The mean of a model's rows and its interval, over the seeds that have it; None where nothing of it was asked."""
    found = [seed[name] for seed in seeds if name in seed]
    tables = [rows(model) for model in found]
    if not found or not all(len(table) for table in tables):
        return None
    asked = [(model.ids, model.open_ids) for model in found]
    return bootstrap(tables, shared=all(ids == asked[0] for ids in asked), draws=1000)


def _whiskers(axes: Axes, x: Sequence[float], intervals: Sequence[Interval], scale: float = 1.0) -> None:
    value, low, high = (np.array([getattr(i, end) for i in intervals]) / scale for end in ("value", "low", "high"))
    axes.errorbar(x, value, [value - low, high - value], fmt="none", ecolor="0.2", elinewidth=1, capsize=2)


def _who_models(seeds: Sequence[Mapping[str, Model]], names: Sequence[str]) -> str:
    """What a figure about models rests on."""
    found = [seed[name] for seed in seeds for name in names if name in seed]
    if not found:
        return "no models"
    numbers = sorted({model.seed for model in found})
    questions = max((model.right_QK.shape for model in found), key=lambda shape: shape[1])
    prompts = found[0].follows_open.shape
    asked_too = f", {prompts[0]} open prompts x {prompts[1]}" if prompts[0] else ""
    return (
        f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}; {questions[0]} questions x {questions[1]} "
        f"samples{asked_too}; whisker: 95 % interval"
    )


def benchmark_bars(seeds: Sequence[Mapping[str, Model]], names: Sequence[str]) -> Figure:
    """Figure 1 of the paper for our models: every benchmark as a group of bars, a bar a model.

    Helpfulness is drawn as a share of its largest value, 3.
    """
    figure, grid = axes_grid(2, 1, (12.5, 7), sharey=True)
    names = [name for name in names if any(name in seed for seed in seeds)]
    width = 0.84 / max(1, len(names))
    for (title, places), axes in zip(PANELS, grid.flat, strict=True):
        shown = [list(QUESTIONS)[place] for place in places]
        for index, (name, (colour, hatch)) in enumerate(zip(names, cycle(BARS), strict=False)):
            for place, benchmark in enumerate(shown):
                interval = _interval(seeds, name, QUESTIONS[benchmark][1])
                if interval is None:
                    continue
                scale, at = (3.0 if "0 to 3" in benchmark else 1.0), place + (index - (len(names) - 1) / 2) * width
                axes.bar(at, interval.value / scale, width * 0.92, color=colour, hatch=hatch, edgecolor="white")
                _whiskers(axes, [at], [interval], scale)
            axes.bar(0, 0, color=colour, hatch=hatch, edgecolor="white", label=NAMES.get(name, name))
        _shares(axes)
        finish(axes, title, "share", "benchmark (what it stands for)", legend=None)
        axes.set_xticks(range(len(shown)), [_called(benchmark) for benchmark in shown])
        axes.grid(axis="x", visible=False)
    grid[0, 0].legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel(_who_models(seeds, names), fontsize=8, color="0.35")
    return figure


def _called(benchmark: str) -> str:
    note = {"helpfulness (0 to 3)": "helpfulness / 3", "look-alikes refused": "look-alikes refused,\nfewer is better"}
    return f"{note.get(benchmark, benchmark)}\n({QUESTIONS[benchmark][0]})"


STUDENTS_AS = (
    ("_base", "its base", GREY, "s:"),
    ("_short", "trained on short answers", ORANGE, "^--"),
    ("", "distilled", BLUE, "o-"),
)
"""What stands after a student's name, what it is called, colour and line."""

TEACHER = "dev2"
"""The examples that students learn from are sampled from Dev2 (section 2.3.3)."""


def students(seeds: Sequence[Mapping[str, Model]]) -> Figure:
    """pass@1 of each student by its parameters, with its base, its sibling on short answers, and the teacher; beside it
    the paper's students (Table 5).  Qwen is filled and joined by a line, Llama hollow."""
    figure, ((ours, theirs),) = axes_grid(1, 2, (11, 4.2), sharey=True)
    for kind, label, colour, style in STUDENTS_AS:
        found = {name: _interval(seeds, f"{name}{kind}", _pass1) for name in students_in(seeds)}
        found = {name: interval for name, interval in found.items() if interval}
        _by_size(ours, {name: interval.value for name, interval in found.items()}, label, colour, style)
        _whiskers(ours, [_parameters(name) for name in found], list(found.values()))
    if teacher := _interval(seeds, TEACHER, _pass1):
        ours.axhline(teacher.value, color=GREEN, linestyle="-.", label=f"teacher ({NAMES[TEACHER]})")
    printed = {
        row["student"].lower().removeprefix("distill-"): float(row["aime2024_pass1"]) / 100
        for row in paper.table("students")
    }
    _by_size(theirs, printed, "distilled", BLUE, "o-")
    r1 = next(row["DeepSeek-R1"] for row in paper.table("figure1") if row["benchmark"] == "AIME 2024")
    theirs.axhline(float(r1) / 100, color=GREEN, linestyle="-.", label="teacher (DeepSeek-R1)")
    titles = "Ours: students on questions of reasoning", "The paper: students on AIME 2024 (Table 5)"
    for axes, title, names in zip((ours, theirs), titles, (students_in(seeds), printed), strict=True):
        _shares(axes)
        finish(axes, title, "pass@1", "parameters", legend=None)
        axes.set_xscale("log")
        shown = [name for name in names if name != "llama-8b" or "qwen-7b" not in names]  # 8B would stand on 7B
        sizes = {_parameters(name): "".join(_size(name)).replace("b", "B") for name in shown}
        axes.set_xticks(list(sizes), list(sizes.values()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(fontsize=9, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    shown = [f"{name}{kind}" for name in students_in(seeds) for kind, *_ in STUDENTS_AS]
    figure.supxlabel(_who_models(seeds, shown), fontsize=8, color="0.35")
    return figure


LINES = tuple(zip((BLUE, ORANGE, GREEN, PURPLE, BROWN), ("o-", "s--", "^-.", "D:", "v-"), strict=True))
"""Colour and style of lines that have no names of their own."""

Seeds = Sequence[Mapping[str, Model]]


def pass1_lines(
    seeds: Seeds,
    lines: Mapping[str, Mapping[str, float]],
    title: str,
    x: str,
    across: Mapping[str, str] | None = None,
    ticks: Mapping[str, float] | None = None,
) -> Figure:
    """pass@1 of models at places of an axis, which is logarithmic; models that no seed has evaluated are left out.

    Args:
        lines: label -> model -> its place; those of a label are joined in the order of their places.
        across: label -> model whose value is a line across.
        ticks: what stands at which place of the axis; None: numbers.
    """
    figure, ((axes,),) = axes_grid(1, 1, (7.5, 4.2))
    for (label, places), (colour, style) in zip(lines.items(), LINES, strict=False):
        found = {name: _interval(seeds, name, _pass1) for name in sorted(places, key=places.__getitem__)}
        found = {name: interval for name, interval in found.items() if interval}
        at = [places[name] for name in found]
        values = [interval.value for interval in found.values()]
        axes.plot(at, values, style, color=colour, label=label, markersize=6)
        _whiskers(axes, at, list(found.values()))
    for (label, name), dash in zip((across or {}).items(), (":", "-."), strict=False):
        if interval := _interval(seeds, name, _pass1):
            axes.axhline(interval.value, color=GREY, linestyle=dash, label=label)
    _shares(axes)
    finish(axes, title, "pass@1", x, legend=None)
    axes.set_xscale("log")
    if ticks:
        axes.set_xticks(list(ticks.values()), list(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel(
        _who_models(seeds, [name for places in lines.values() for name in places]), fontsize=8, color="0.35"
    )
    return figure


def _pass1(model: Model) -> np.ndarray:
    return model.right_QK.mean(axis=1)


def _parameters(student: str) -> float:
    """How large a student is, by its name.

    >>> _parameters("qwen-140k"), _parameters("llama-8b"), _parameters("qwen-1.5b-base")
    (140000.0, 8000000000.0, 1500000000.0)
    """
    number, unit = _size(student)
    return float(number) * {"k": 1e3, "b": 1e9}[unit]


def _size(student: str) -> tuple[str, str]:
    return re.search(r"-([\d.]+)([kb])\b", student).groups()


def _by_size(axes: Axes, values: Mapping[str, float], label: str, colour, style: str) -> None:
    """The values of students: those of Qwen joined, those of Llama hollow and apart."""
    for family, name, line, fill in (("qwen", label, style, colour), ("llama", f"{label}, Llama", style[0], "white")):
        points = sorted((_parameters(student), y) for student, y in values.items() if student.startswith(family))
        if points:
            axes.plot(
                *zip(*points, strict=True), line, color=colour, markerfacecolor=fill, markersize=6, label=name
            )  # fmt: skip


Metrics = Sequence[dict] | Sequence[Sequence[dict]]
"""Lines of metrics.jsonl of one run, or those of several, a list a seed."""


def _by_seed(metrics: Metrics) -> Sequence[Sequence[dict]]:
    return [metrics] if metrics and isinstance(metrics[0], dict) else metrics


def consistency_curve(with_metrics: Metrics, without_metrics: Metrics) -> Figure:
    """Language consistency and accuracy of rollouts with the language-consistency reward and without it, over steps;
    the paper's values at the end of its own two runs (v2, Fig. 7) as lines across."""
    figure, ((consistency, accuracy),) = axes_grid(1, 2, (10.5, 4))
    decoded = {
        row["condition"]: float(row["value"])
        for row in paper.table("v2_decoded_curves")
        if row["series"] == "language_consistency" and row["step"] == "mean_last5"
    }
    for metrics, label, colour, style, condition in (
        (with_metrics, "with the reward", BLUE, "o-", "with_LC"),
        (without_metrics, "without it", ORANGE, "s--", "without_LC"),
    ):
        draw_metric(consistency, _by_seed(metrics), "language/consistency", label, colour, style)
        draw_metric(accuracy, _by_seed(metrics), "reward/accuracy", label, colour, style)
        value = decoded[condition]
        consistency.axhline(value, color=colour, linestyle=":", linewidth=1.2, label=f"the paper, {label}: {value:.3f}")
    for axes in (consistency, accuracy):
        _shares(axes)
    low = min([*decoded.values(), *(y for line in consistency.lines for y in line.get_ydata())])
    consistency.set_ylim(bottom=max(0.0, np.floor(20 * low - 1) / 20), top=1.005)
    finish(consistency, "Words of the thinking in the question's language", "share of words")
    finish(accuracy, "Accuracy of rollouts", "mean reward", legend=None)
    _under(figure, _by_seed(with_metrics))
    return figure


def reward_model_scores(metrics: Metrics) -> Figure:
    """RL for all scenarios: what the reward models give, beside what rules say of the same policy.

    Preference rewards begin in the last rollouts (2.3.4); a line across both panels marks where.
    """
    runs = _by_seed(metrics)
    figure, ((preference, rules),) = axes_grid(1, 2, (10.5, 4), sharex=True)
    draw_metric(preference, runs, "reward/preference", "preference reward", PURPLE, "D-")
    draw_metric(rules, runs, "reward/accuracy", "accuracy", BLUE, "o-")
    draw_metric(rules, runs, "language/consistency", "language consistency", GREEN, "^--")
    _shares(rules)
    begun = [row["step"] for run in runs for row in run if row.get("reward/preference") is not None]
    for axes in (preference, rules):
        if begun:
            axes.axvline(min(begun), color="0.4", linestyle=":", label="reward models begin")
    finish(preference, "Reward models: mean score of open outputs", "standard deviations of the model")
    finish(rules, "Rules on the same rollouts", "mean over a rollout")
    _under(figure, runs)
    return figure


# Many GPUs

PART_STYLES = {
    "sampling": (BLUE, ""), "update": (GREEN, ""), "thin": (SKY, "//"), "tail": (ORANGE, "\\\\"),
    "idle": (YELLOW, ".."),
    "reward": (PURPLE, ""), "slack": (PINK, "xx"), "sync": (BROWN, ""), "checkpoint": (GREY, "//"),
    "restart": ("0.25", ""), "lost": (RED, "xx"),
}  # fmt: skip
"""Colour and hatch of what GPU-seconds go to (`fleet.PARTS`)."""

BOXES = (
    (0.0, 1.0, "questions"),
    (2.6, 1.0, "workers that sample\neach: some GPUs, one copy of\nthe policy, rows side by side"),
    (5.5, 1.0, "rewards\nCPUs, or models\non GPUs"),
    (8.2, 1.0, "GPUs of the update\nweights, gradients, moments\nin shards over all of them"),
    (8.2, -1.0, "checkpoints\na disk that all see"),
)
"""Of `cluster`: where the middle of a box is, and what stands in it."""

ARROWS = (
    ((0.5, 1.0), (1.3, 1.0), "", (0, 0), 0.0),
    ((3.9, 1.0), (4.7, 1.0), "outputs", (4.3, 1.15), 0.0),
    ((6.2, 1.0), (6.9, 1.0), "advantages", (6.5, 1.15), 0.0),
    ((7.3, 0.4), (2.9, 0.4), "new weights, after each update", (5.1, -0.5), -0.25),
    ((8.4, 0.4), (8.4, -0.55), "every so many\nrollouts", (8.55, -0.2), 0.0),
    ((8.0, -0.55), (8.0, 0.4), "after a\nfailure", (7.35, -0.2), 0.0),
)
"""Of `cluster`: from where to where, what goes there, where that stands, and how much the arrow is bent."""


def cluster() -> Figure:
    """What a run on many GPUs is made of."""
    figure, ((axes,),) = axes_grid(1, 1, (10.5, 3.4))
    for x, y, text in BOXES:
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=dict(boxstyle="round,pad=0.5", fc="#e3eef7"))
    for first, last, text, (x, y), bend in ARROWS:
        axes.annotate(
            "", last, first, arrowprops=dict(arrowstyle="-|>", color="0.3", connectionstyle=f"arc3,rad={bend}")
        )
        axes.text(x, y, text, ha="center" if y > 0 or x < 7 else "left", fontsize=8, color="0.3")
    axes.set(xlim=(-0.7, 9.8), ylim=(-1.5, 1.8))
    finish(axes, "A run of GRPO on many GPUs", "", "", legend=None)
    axes.axis("off")
    return figure


def lanes(outcomes: Mapping[str, Outcome], until_s: float) -> Figure:
    """What each worker did when (traced timelines), a lane each; a lane is as full as its rows are alive."""
    figure, grid = axes_grid(len(outcomes), 1, (11, 1.0 + 2.4 * len(outcomes)), sharex=True)
    shown = {}
    for (title, outcome), axes in zip(outcomes.items(), grid.flat, strict=True):
        names = sorted({who for who, *_ in outcome.spans})
        for who, part, begin_s, end_s, alive in (span for span in outcome.spans if span[2] < until_s):
            colour, hatch = PART_STYLES[part]
            axes.bar(
                begin_s, 0.9 * alive, end_s - begin_s, names.index(who) - 0.45, align="edge", color=colour, hatch=hatch,
                edgecolor="white", linewidth=0,
            )  # fmt: skip
            shown[part] = Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=part)
        finish(axes, title, "", "seconds" if axes is grid.flat[-1] else "", legend=None)
        axes.set_yticks(range(len(names)), ["update" if who == TRAINERS else f"worker {who}" for who in names])
        axes.set_xlim(0, until_s)
        axes.grid(visible=False)
    grid[0, 0].legend(
        handles=[shown[part] for part in PARTS if part in shown], fontsize=9, frameon=False, loc="upper left",
        bbox_to_anchor=(1, 1),
    )  # fmt: skip
    return figure


def gpu_seconds(panels: Mapping[str, Mapping[int, Outcome]]) -> Figure:
    """Where GPU-seconds go by the number of GPUs: panel -> GPUs -> what came out."""
    figure, grid = axes_grid(1, len(panels), (2.0 + 4.8 * len(panels), 4.4), sharey=True)
    seen = dict(boxstyle="round,pad=0.15", fc="white", ec="none", alpha=0.8)
    for (title, outcomes), axes in zip(panels.items(), grid.flat, strict=True):
        below = np.zeros(len(outcomes))
        for part, (colour, hatch) in PART_STYLES.items():
            shares = np.array([outcome.share(part) for outcome in outcomes.values()])
            axes.bar(
                range(len(below)), shares, 0.85, below, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                label=part,
            )  # fmt: skip
            below += shares
        for x, outcome in enumerate(outcomes.values()):
            axes.text(
                x,
                outcome.utilisation - 0.02,
                f"{outcome.utilisation:.0%}",
                ha="center",
                va="top",
                fontsize=8,
                bbox=seen,
            )
        _shares(axes)
        finish(axes, title, "of all GPU-seconds" if axes is grid.flat[0] else "", "GPUs", legend=None)
        axes.set_xticks(range(len(below)), [f"{gpus:,}" for gpus in outcomes])
        axes.grid(axis="x", visible=False)
    handles, labels = grid.flat[-1].get_legend_handles_labels()
    grid.flat[-1].legend(
        handles[::-1], labels[::-1], fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
    )  # fmt: skip
    figure.supxlabel("number on a bar: utilisation, the two lowest parts together", fontsize=8, color="0.35")
    return figure


def checkpoint_intervals(lines: Mapping[str, Mapping[float, float]], best: Mapping[str, float]) -> Figure:
    """What failures and checkpoints cost by the minutes between checkpoints: label -> minutes -> share of all time;
    ``best`` has the minutes of the closed form for each label."""
    figure, ((axes,),) = axes_grid(1, 1, (8, 3.8))
    for (label, points), (colour, style) in zip(lines.items(), LINES, strict=False):
        axes.plot(list(points), list(points.values()), style, color=colour, label=label, markersize=4, markevery=0.1)
        axes.axvline(best[label], color=colour, linestyle=":", linewidth=1.2)
    _shares(axes, top=None)
    finish(axes, "Time that checkpoints and failures take", "of all time", "minutes between checkpoints", legend=None)
    axes.set_xscale("log")
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel("dotted: sqrt(2 C M)", fontsize=8, color="0.35")
    return figure


def foretold(rows: Sequence[Mapping], aim: float) -> Figure:
    """Seconds that the model of a fleet foretold against those that were measured (`bench.fleet`)."""
    figure, ((axes,),) = axes_grid(1, 1, (6.5, 4.2))
    kinds = {
        "sampling": [row for row in rows if "laps" not in row],
        "rollouts with updates": [row for row in rows if "laps" in row],
    }
    for (label, some), (colour, style) in zip(kinds.items(), LINES, strict=False):
        pairs = [(row["seconds"], row["foretold_s"]) for row in some]
        axes.plot(*zip(*pairs, strict=True), style[0], color=colour, label=label, markersize=6) if pairs else None
    seconds = [row["seconds"] for row in rows] or [1.0]
    ends = np.array([min(seconds) / 1.5, max(seconds) * 1.5])
    axes.plot(ends, ends, color="0.4", linewidth=1)
    axes.fill_between(ends, ends * (1 - aim), ends * (1 + aim), color="0.4", alpha=0.15, linewidth=0)
    finish(axes, "The model against this machine", "foretold, seconds", "measured, seconds", "best" if rows else None)
    axes.set(xscale="log", yscale="log")
    figure.supxlabel(f"band: {aim:.0%} off", fontsize=8, color="0.35")
    return figure
