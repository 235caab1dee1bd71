"""The tables of a report, the paper's numbers beside ours: the same for the page and for Markdown.

Each number of ours is a `Number`: its text, and the place in the table of runs where the digests of its runs stand.
Each number of the paper comes from papers/deepseek-r1/tables through `paper.table`.  A table without data is None.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

import numpy as np

from r1repro import ledger, models, paper
from r1repro.algo.estimators import vote_right
from r1repro.ledger import SeedRuns
from r1repro.models import BENCHMARKS, NAMES, Model, students_in
from r1repro.run import read_lines
from r1repro.site import material
from r1repro.site.material import STAGES, Material, evaluation_of

STANDS = (
    "Our questions are made by rules and stand in for the paper's benchmarks: each is named beside what it stands for, "
    "and their values are not comparable. Per cent of samples, but for helpfulness (0 to 3). "
)
BRIEFLY = "Per cent; stand-ins again. "
"""What the first table of models says of all of them, and what the others repeat."""

DASH = "\N{EN DASH}"
"""Where there is no value."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of ours and the anchor of its runs."""

    text: str
    anchor: str


Cell = tuple["str | Number", ...]
"""Pieces that stand one after the other."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table; ``kind``: ours, the paper's, both, more (of the line above) or neither (plain)."""

    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``groups`` stand above the columns: a name and how many columns it spans."""

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()


def text_of(cell: Cell) -> str:
    return "".join(piece if isinstance(piece, str) else piece.text for piece in cell)


def is_number(cell: Cell) -> bool:
    """Whether a cell holds one value or none, so that it stands best to the right.

    >>> is_number(("71.0",)), is_number((Number("1,000", "runs"),)), is_number(("MATH-500",))
    (True, True, False)
    """
    return not text_of(cell).strip(f"0123456789.,+-{DASH}")


def every(content: Material) -> list[Table]:
    """All tables that have data, in the order of the page."""
    beside = [
        table for table in (made(content) for made in (stages, beside_others, r1_zero, students, versus)) if table
    ]
    said = [STANDS, *[BRIEFLY] * len(beside)]
    beside = [replace(table, note=note + table.note) for note, table in zip(said, beside, strict=False)]
    others = variants(content)
    return [pipeline(content), *beside, seeds(content), *([others] if others else [])]


# What it took


def pipeline(content: Material) -> Table:
    """A row a stage: the model it makes, its notebook, minutes and tokens; and what the evaluations took."""
    chosen = {seed.seed for seed in content.seeds}
    everything = [run for run in content.runs if run.seed in chosen and run.stage.key != "variants"]
    rows = []
    for stage in STAGES:
        if runs := [run for run in everything if run.stage == stage and run.trains]:
            made = (f"{material.title(stage)} ({stage.section})", stage.makes) if stage.section else (stage.makes, "")
            cells = (*made, material.notebook_of(stage))
            rows.append(Row("plain", tuple((cell,) for cell in cells) + _cost(runs, stage.anchor)))
    measured = [run for run in everything if not run.trains]
    rows.append(Row("plain", (("all evaluations",), ("",), ("",), *_cost(measured, "runs"))))
    theirs = "; ".join(f"{row['item']} {int(row['h800_gpu_hours']):,}" for row in paper.table("v2_table7_cost"))
    return Table(
        key="pipeline",
        title="The pipeline and what it took",
        note="Minutes and tokens of one seed, the mean over seeds, from the manifests of the runs. A stage's control "
        f"and reward models are counted with it. The paper's cost in hours of an H800 GPU (v2 Table 7): {theirs}.",
        columns=("stage (section)", "makes", "notebook", "minutes", "tokens sampled", "tokens trained on"),
        rows=tuple(rows),
    )


def _cost(runs: Sequence[material.Run], anchor: str) -> tuple[Cell, ...]:
    seeds = len({run.seed for run in runs}) or 1
    sums = {kind: sum(run.tokens.get(kind, 0) for run in runs) / seeds for kind in ("sampled", "trained")}
    minutes = Number(f"{sum(run.record.wall_s for run in runs) / 60 / seeds:.1f}", anchor)
    return ((minutes,), *((Number(f"{count:,.0f}", anchor) if count else DASH,) for count in sums.values()))


# Models side by side


def stages(content: Material) -> Table | None:
    """Table 3 of v2: what each stage changed, benchmark by benchmark; below ours, the paper's of the same stages."""
    if not any(_has(content, name) for name in ("dev1", "dev2", "dev3", "r1")):
        return None
    names = ["base"] * _has(content, "base") + ["r1_zero", "dev1", "dev2", "dev3", "r1"]
    rows = []
    for benchmark, (stands_for, _) in BENCHMARKS.items():
        rows.append(Row("ours", ((benchmark,), *(_value(content, name, benchmark) for name in names))))
        for row in theirs(stands_for, "v2_table3_stages"):
            shown = [row.get(NAMES[name]) or row.get(f"R1-{NAMES[name]}") or "" for name in names]
            rows.append(Row("paper", tuple((cell,) for cell in (_name(row), *shown))))
    return Table(
        key="stages",
        title="Stage by stage (Table 3 of v2)",
        note="Under each line of ours, set apart, the paper's. Of look-alikes refused, the fewer the better.",
        columns=("benchmark", *(NAMES[name] for name in names)),
        rows=tuple(rows),
    )


def beside_others(content: Material) -> Table | None:
    """Table 4: R1 beside other models; ours beside its base and R1-Zero, the paper's beside the models of its day."""
    if not _has(content, "r1"):
        return None
    names = [name for name in ("base", "r1_zero", "r1") if _has(content, name)]
    peers = [column for column in paper.table("table4")[0] if column not in ("category", "benchmark", "metric")]
    rows = []
    for benchmark, (stands_for, _) in BENCHMARKS.items():
        kind, ours = "both", ((benchmark,), *(_value(content, name, benchmark) for name in names))
        for row in theirs(stands_for, "table4") or [None]:
            printed = [row[peer] or DASH for peer in peers] if row else [DASH] * len(peers)
            rows.append(Row(kind, (*ours, (_name(row) if row else stands_for,), *((cell,) for cell in printed))))
            kind, ours = "more", (("",),) * (1 + len(names))
    without = [
        row["benchmark"]
        for row in paper.table("table4")
        if row["category"] != "Model" and not _stood_for(row["benchmark"])
    ]
    return Table(
        key="beside-others",
        title="R1 beside other models (Table 4)",
        note=f"The paper's benchmarks that nothing here stands for: {', '.join(dict.fromkeys(without))}.",
        groups=(("", 1), ("ours", len(names)), ("the paper", 1 + len(peers))),
        columns=("benchmark", *(NAMES[name] for name in names), "stands for", *peers),
        rows=tuple(rows),
    )


COLUMNS = (
    ("AIME 2024", "pass@1", "aime2024_pass1", "sums"),
    ("AIME 2024", "cons@64", "aime2024_cons64", "vote"),
    ("MATH-500", "pass@1", "math500_pass1", ""),
    ("GPQA Diamond", "pass@1", "gpqa_diamond_pass1", "logic"),
    ("LiveCodeBench", "pass@1", "livecodebench_pass1", "programs"),
    ("Codeforces", "rating", "codeforces_rating", ""),
    ("logic puzzles", "", "", "search"),
)
"""Of Tables 2 and 5: benchmark, metric, column in papers/, and the benchmark of ours that stands for it."""


def r1_zero(content: Material) -> Table | None:
    """Table 2: R1-Zero, ours beside the base it began from, the paper's beside two models of OpenAI."""
    if not _has(content, "r1_zero"):
        return None
    names = ["base"] * _has(content, "base") + ["r1_zero"]
    notes = [f" {row['model']}: {row['note']}." for row in paper.table("table2") if row["note"]]
    return _by_model(content, "r1-zero", "R1-Zero (Table 2)", names, "table2", "".join(notes))


def students(content: Material) -> Table | None:
    """Table 5: students, each as its base, distilled from the examples, and from the same answers without thinking."""
    kinds = ("_base", "", "_short")
    names = [name + kind for name in students_in(content.models) for kind in kinds if _has(content, name + kind)]
    note = " Each of our students three times: its base, distilled, and trained on the same answers without thinking."
    return _by_model(content, "students", "Students (Table 5)", names, "table5", note) if names else None


VERSUS = {
    "qwen-580k_base": (), "zero-580k": ("arms/zero-580k",), "qwen-580k": ("students/qwen-580k",),
    "distilled-580k-rl": ("students/qwen-580k", "arms/distilled-580k-rl"),
}  # fmt: skip
"""Of Table 6: models of ours, and the runs that each takes from the student's base on."""


def versus(content: Material) -> Table | None:
    """Table 6: one student by RL on its base, by distillation, and by both; with what each took, which it lacks."""
    names = [name for name in VERSUS if _has(content, name)]
    if "zero-580k" not in names:
        return None
    made = _by_model(
        content, "versus", "RL on a small base beside distillation (Table 6)", names, "table6",
        " The price is the student's alone, from its base on; what its teacher took stands in the first table. "
        "Notebook 09 has what lies on the way, and the price in operations.",
    )  # fmt: skip
    prices = [_price(content, VERSUS[name]) for name in names]
    prices += [((DASH,),) * 3] * (len(made.rows) - len(names))
    return replace(
        made,
        groups=(*made.groups, ("what it took", 3)),
        columns=(*made.columns, "minutes", "tokens sampled", "tokens trained on"),
        rows=tuple(replace(row, cells=row.cells + more) for row, more in zip(made.rows, prices, strict=True)),
    )


def _price(content: Material, names: Sequence[str]) -> tuple[Cell, ...]:
    """What some runs took together, in the seeds that have all of them."""
    by_seed = {
        seed.seed: [run for run in content.runs if run.seed == seed.seed and run.name in names]
        for seed in content.seeds
    }
    runs = [run for found in by_seed.values() if len(found) == len(names) for run in found]
    return _cost(runs, content.anchor(names[-1])) if runs else ((DASH,),) * 3


def _by_model(content: Material, key: str, title: str, names: Sequence[str], table: str, note: str) -> Table:
    k = next(seed[names[-1]].right_QK.shape[1] for seed in content.models if names[-1] in seed)
    rows = [
        Row("ours", ((called(name),), *(_measured(content, name, benchmark) for *_, benchmark in COLUMNS)))
        for name in names
    ]
    for row in paper.table(table):
        rows.append(Row("paper", ((row["model"],), *((row.get(column, DASH),) for _, _, column, _ in COLUMNS))))
    ours = tuple(f"sums, cons@{k}" if name == "vote" else name or DASH for *_, name in COLUMNS)
    heads = [f"{benchmark} {metric}".strip() for benchmark, metric, *_ in COLUMNS]
    return Table(
        key=key,
        title=title,
        note=f"Under ours, set apart, the paper's, of the benchmarks that are named above ours.{note}",
        groups=(("", 1), *((head, 1) for head in heads)),
        columns=("model", *ours),
        rows=tuple(rows),
    )


def called(name: str) -> str:
    """What a reader calls a model.

    >>> called("dev1"), called("qwen-140k"), called("qwen-140k_short")
    ('Dev1', 'qwen-140k, distilled', 'qwen-140k, short answers')
    """
    student, kind = _student(name)
    return NAMES.get(name) or student + {"_base": ", base", "_short": ", short answers", "": ", distilled"}[kind]


def _student(name: str) -> tuple[str, str]:
    kind = next((kind for kind in ("_base", "_short") if name.endswith(kind)), "")
    return name.removesuffix(kind), kind


def _has(content: Material, name: str) -> bool:
    return any(name in seed for seed in content.models)


def _measured(content: Material, name: str, benchmark: str) -> Cell:
    if benchmark != "vote":
        return _value(content, name, benchmark) if benchmark else (DASH,)
    value = np.mean([_vote(content, seed.seed, name) for seed, found in _pairs(content) if name in found])
    return (Number(_percent(float(value)), content.anchor(f"models/{name}/reasoning")),)


def _pairs(content: Material) -> Iterator[tuple[SeedRuns, Mapping[str, Model]]]:
    return zip(content.seeds, content.models, strict=True)


def _vote(content: Material, seed: int, name: str) -> float:
    """Share of the sums whose commonest answer is right."""
    rows = read_lines(content.seed_dir(seed) / "models" / name / "reasoning" / "samples.jsonl")
    rows = [row["outputs"] for row in rows if row["family"] == "chain_sum"]
    right = [[output["verdict"] == "right" for output in outputs] for outputs in rows]
    answers = [[output["answer"] for output in outputs] for outputs in rows]
    return float(np.mean(vote_right(answers, np.array(right, dtype=float)))) if rows else float("nan")


def _value(content: Material, name: str, benchmark: str) -> Cell:
    found = models.mean_over_seeds(content.models, name)
    if not found or isnan(found[benchmark]):
        return (DASH,)
    model = next(seed[name] for seed in content.models if name in seed)
    anchor = content.anchor(f"models/{name}/{kind_of(BENCHMARKS[benchmark][1], model)}")
    text = f"{found[benchmark]:.2f}" if "0 to 3" in benchmark else _percent(found[benchmark])
    return (Number(text, anchor),)


def _percent(value: float) -> str:
    return DASH if isnan(value) else f"{100 * value:.1f}"


def kind_of(value: Callable[[Model], float], model: Model) -> str:
    """The evaluation that a benchmark is computed from, ``open`` or ``reasoning``, by what it looks at."""
    seen = []

    class Watched:
        def __getattr__(self, field: str):
            seen.append(field)
            return getattr(model, field)

    value(Watched())
    return "open" if any(field.endswith("_open") for field in seen) else "reasoning"


def theirs(stands_for: str, table: str) -> list[dict[str, str]]:
    """The rows of one of the paper's tables that a benchmark of ours stands for.

    >>> [row["benchmark"] for row in theirs("AIME 2024, MATH-500", "table4")]
    ['AIME 2024', 'MATH-500']
    """
    names = [_plain_name(name) for name in stands_for.split(", ")]
    return [row for name in names for row in paper.table(table) if _plain_name(row["benchmark"]) == name]


def _stood_for(benchmark: str) -> bool:
    names = [name for stands_for, _ in BENCHMARKS.values() for name in stands_for.split(", ")]
    return _plain_name(benchmark) in map(_plain_name, names)


def _plain_name(name: str) -> str:
    return name.replace(" ", "").casefold()


def _name(row: Mapping[str, str]) -> str:
    return f"{row['benchmark']} ({row['metric'].partition(' (')[0]})"


# Seed by seed, and other settings


def seeds(content: Material) -> Table:
    """`ledger.seed_row` of every seed, each number with the address of its checkpoint."""
    rows = []
    for seed in content.everybody:
        row = ledger.seed_row(seed)
        marks = [c.step for c in (seed.start, seed.half, seed.end) if c is not None]
        runs = {run.record.path: run.anchor for run in content.runs if run.seed == seed.seed}
        own = {record.path.rpartition("/step-")[2]: record.path for record in seed.runs}
        steps = [runs[own[f"{step:06d}"]] for step in marks]
        cells = [_arrows(text.split(" -> "), steps) for text in row.values()]
        names = list(row)
        cells[names.index("seed")] = (row["seed"],)
        cells[names.index("pass@1 by level at the end")] = (Number(row["pass@1 by level at the end"], steps[-1]),)
        cells[names.index("minutes of RL")] = (Number(row["minutes of RL"], "runs-r1-zero"),)
        rows.append(Row("plain", tuple(cells)))
    return Table(
        key="seeds",
        title="Every seed of R1-Zero",
        note="Before training, half-way, and at its end. Seeds that are held back were run once, at the end, and no "
        "claim rests on them.",
        columns=tuple(ledger.seed_row(content.everybody[0])),
        rows=tuple(rows),
    )


def variants(content: Material) -> Table | None:
    """What other settings gave, by checkpoint."""
    columns = (("pass@1", "pass@1", ".3f"), ("vote", "cons@k", ".3f"), ("tokens", "length", ".0f"))
    rows = []
    for seed, row in content.variants:
        runs = {run.name: run.anchor for run in content.runs if run.seed == seed}
        steps = [runs[evaluation_of(row["name"], step)] for step in row["by_step"]]
        cells = [(row["name"],), (", ".join(f"{k} = {v}" for k, v in row["set"].items()) or "the paper's",)]
        for _, key, digits in columns:
            cells.append(_arrows([f"{summary[key]:{digits}}" for summary in row["by_step"].values()], steps))
        rows.append(Row("plain", tuple(cells)))
    return rows and Table(
        key="variants",
        title="Other settings and a control, by checkpoint",
        note="One seed each, beside the same seed with the paper's settings.",
        columns=("settings", "what differs", *(name for name, *_ in columns)),
        rows=tuple(rows),
    )


def _arrows(texts: Sequence[str], anchors: Sequence[str]) -> Cell:
    pieces = [piece for text, anchor in zip(texts, anchors, strict=False) for piece in (Number(text, anchor), " -> ")]
    return tuple(pieces[:-1])
