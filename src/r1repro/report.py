"""The ledger as a reader meets it: claims.json, figures, the pages of `r1repro.site`, the same tables in Markdown.

`build` makes the local report of a tier, of whatever runs there are, and says aloud what is wrong with them.
`publish` makes the committed one, and refuses where `Material.problems` finds anything.
"""

import base64
import binascii
import io
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from r1repro import ledger_models, pack, paper, plots
from r1repro.models import students_in
from r1repro.records import Refusal
from r1repro.run import between_marks, read_json, read_lines, speaking_of, write_bytes, write_json, write_text
from r1repro.site import claims, ledger, material, notebook, page, samples, tables
from r1repro.site.claims import before_after, effect_text, measured
from r1repro.site.material import Material

LARGEST_NOTEBOOK = 1_500_000
LARGEST_REPORT = 20_000_000
"""Bytes.  The history of the repository must stay small, and a code host shows no larger notebook."""

FIGURES = {
    "benchmark_bars": "The models of the pipeline on each benchmark, as Figure 1 of the paper shows R1 beside others.",
    "accuracy_curve": "Accuracy on test sums over training, beside Figure 2 of the paper.",
    "length_curve": "Length of outputs over training, beside Figure 3 of the paper.",
    "accuracy_by_level": "Accuracy of sums by difficulty at the start, half-way and at the end.",
    "reflection_curve": "Reflection words, an output and per 1000 tokens.",
    "language_mixing": "Outputs of which under 95 % of the thinking is in the question's language.",
    "consistency_curve": "Reasoning RL of Dev1 with the language-consistency reward and without it.",
    "reward_model_scores": "RL for all scenarios: the score of the reward models, and the rules on the same rollouts.",
    "students": "Students, each as its base, distilled, and trained on the same answers without thinking.",
    "diagnosis": "Training itself: six curves that tell why a reward does or does not rise.",
}
"""Each is drawn by the function of this name in `r1repro.plots`, where there is something to draw."""


def build(tier: str, out: Path, folder: Path | None = None) -> Path:
    """Make the local report of a tier from the runs under `out`; returns its folder, `out/<tier>/report` by default."""
    out = Path(out)
    content = material.read(tier, out)
    folder = Path(folder or out / tier / "report")
    return _replace(folder, lambda new: _write(new, content, content.problems(), _hidden_from(out)))


def publish(tier: str, out: Path, reports: Path) -> Path:
    """Make the committed report `reports/<tier>` and refresh the results table of the README beside `reports`.

    Refusal where the runs are of dirty or mixed commits, where a rule is younger than the runs, where something is too
    large, or where the README has no place for the table.  Nothing is changed then.
    """
    out, reports = Path(out), Path(reports)
    content = material.read(tier, out)
    found = content.problems()
    if found:
        raise Refusal(f"tier {tier} is not published: {found[0]}" + f" ({len(found) - 1} more)" * (len(found) > 1))
    readme = reports.parent / "README.md"
    between_marks(readme, "results", "")  # refuses before anything is written

    def write(new: Path) -> None:
        said = remarks(reports / "remarks" / f"{tier}.md", content.runs[0].record.commit or "")
        hide = {f"{reports.parent.resolve()}/": ""} | _hidden_from(out)
        _write(new, content, [], hide, said, is_published=True)
        for path in sorted((new / "notebooks").glob("*")):
            if path.stat().st_size > LARGEST_NOTEBOOK:
                raise Refusal(
                    f"notebook {path.name} has {path.stat().st_size} bytes without its progress bars, at most "
                    f"{LARGEST_NOTEBOOK} can be published: show fewer or smaller figures in it"
                )
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
        if size > LARGEST_REPORT:
            raise Refusal(f"the report of {tier} has {size} bytes, at most {LARGEST_REPORT} can be published")

    folder = _replace(reports / tier, write)
    table = results_table(read_json(folder / "claims.json"), f"{reports.name}/{tier}/")
    write_text(readme, between_marks(readme, "results", table))
    return folder


def _replace(folder: Path, write: Callable[[Path], None]) -> Path:
    """Fill a new folder, then put it in the place of the old one: a reader sees the one or the other, never half."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    try:
        with speaking_of(folder):
            for path in (new, old):
                shutil.rmtree(path, ignore_errors=True)
            new.mkdir(parents=True)
            write(new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
    return folder


# What is written


def _write(
    folder: Path,
    content: Material,
    found: Sequence[str],
    hide: Mapping[str, str],
    said: Mapping[str, str] | None = None,
    is_published: bool = False,
) -> None:
    entries = ledger_models.entries([claim.id for claim in paper.claims()], content.models, zero=content.seeds)
    for claim_id, remark in (said or {}).items():
        entry = next((entry for entry in entries if entry["id"] == claim_id), {})
        if entry.get("verdict") in (None, "reproduced"):
            raise Refusal(f"{claim_id} is no claim that did not come out: take its paragraph out of the remarks")
        entry["detail"]["remark"] = remark
    write_json(folder / "claims.json", entries)
    write_json(folder / "digests.json", digests(content))
    (folder / "figures").mkdir()
    drawn = {}
    for name, caption in FIGURES.items():
        if figure := draw(name, content):
            png = io.BytesIO()
            figure.savefig(png, metadata={"Software": None})
            write_bytes(folder / "figures" / f"{name}.png", fewer_colours(png.getvalue()))
            drawn[name] = caption
    notebooks, cells = _write_notebooks(folder, content, hide)
    asked, shown = samples.choose(content), tables.every(content)
    if asked:
        write_text(folder / "samples.html", samples.page(asked, content.tier))
    write_text(folder / "README.md", markdown(content, entries, shown, drawn, notebooks, found))
    write_text(folder / "index.html", page.page(content, entries, shown, drawn, notebooks, asked, found, cells))
    write_text(folder / "ledger.html", ledger.page(content, entries, cells))
    if is_published:
        for seed in content.everybody:
            pack.pack(content.seed_dir(seed.seed), folder / "seeds" / f"seed-{seed.seed}.tar.xz")


def draw(name: str, content: Material) -> Figure | None:
    """A figure of `FIGURES`; None where there is nothing to show in it."""
    if name == "diagnosis":
        return plots.diagnosis([seed.metrics for seed in content.seeds])
    if name == "benchmark_bars":
        names = [name for name in content.evaluated if name != "dev2_twin"]
        return plots.benchmark_bars(content.models, names) if names else None
    if name == "students":
        has_students = any(name in students_in(content.models) for seed in content.models for name in seed)
        return plots.students(content.models) if has_students else None
    if name == "consistency_curve":
        runs = [_metrics(content, run) for run in ("dev2/rl", "dev2/twin")]
        return plots.consistency_curve(*runs) if all(runs) else None
    if name == "reward_model_scores":
        runs = _metrics(content, "r1/rl")
        return plots.reward_model_scores(runs) if runs else None
    return getattr(plots, name)(content.seeds)


def _metrics(content: Material, name: str) -> list[list[dict]]:
    """The metrics of a run of training, one list of lines a seed that has it."""
    runs = [run for run in content.runs if run.name == name]
    return [read_lines(content.seed_dir(run.seed) / run.name / "metrics.jsonl") for run in runs]


def digests(content: Material) -> list[dict]:
    """A line a run behind a number: where it lay, the digest that claims.json cites, and how to check it."""
    how = "sha256 of manifest.json followed by samples.jsonl"
    rows = [(run.seed, run.record) for run in sorted(content.runs, key=lambda run: (run.seed, run.name))]
    return [
        {"seed": seed, "path": run.path, "digest": run.digest, "commit": run.commit, "dirty": run.dirty, "how": how}
        for seed, run in rows
    ]


# Notebooks


def _write_notebooks(folder: Path, content: Material, hide: Mapping[str, str]) -> tuple[list[str], claims.Cells]:
    """Put the executed notebooks, still, and their pages into the report; returns their names, and where they show
    which claim."""
    paths, cells, pictures = _notebooks(content), defaultdict(list), {}
    if paths:
        (folder / "notebooks" / notebook.PICTURES).mkdir(parents=True)
    for path in paths:
        still = static_notebook(read_json(path), hide)
        write_json(folder / "notebooks" / path.name, still)
        write_text(folder / "notebooks" / f"{path.stem}.html", notebook.page(still, path.stem, pictures))
        address, ids = notebook.claims_shown(still, path.stem)
        for claim_id in ids:
            cells[claim_id].append((path.stem, address))
    for name, picture in pictures.items():
        write_bytes(folder / "notebooks" / notebook.PICTURES / name, picture)
    return [path.stem for path in paths], cells


def _notebooks(content: Material) -> list[Path]:
    """Executed notebooks in reading order: those of the tier, and those of its first seed that has any here."""
    seeds = [_executed(content.seed_dir(seed.seed) / "notebooks") for seed in content.seeds]
    found = [*_executed(content.out / content.tier / "notebooks"), *next(filter(None, seeds), [])]
    return sorted(found, key=lambda path: path.name)


def _executed(place: Path) -> list[Path]:
    return [path for path in place.glob("*.ipynb") if not path.name.endswith(".running.ipynb")]


def static_notebook(notebook: dict, hide: Mapping[str, str] | None = None) -> dict:
    """A copy for readers: no progress bars (stderr), no widgets, no notes of papermill, no folders of this machine.

    ``hide`` says what stands for the beginning of a path that is nobody's business.  Characters that were lost in
    decoding have no glyph, so they are spelt out.
    """
    notebook = _hidden(notebook, {**(hide or {}), "\ufffd": r"\ufffd"})
    for part in [notebook, *notebook["cells"]]:
        for key in ("papermill", "widgets", "execution"):
            part.get("metadata", {}).pop(key, None)
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not _moves(output)]
            for output in cell["outputs"]:
                if picture := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = lighter("".join(picture))
    return notebook


COLOURS = 64
"""Ours: of a picture.  Curves and bars have fewer, edges included; less than a third of the bytes is left."""


def lighter(picture: str) -> str:
    """A PNG in base64 with at most `COLOURS` colours; what is no picture, or gets no smaller, as it was."""
    try:
        return base64.b64encode(fewer_colours(base64.b64decode(picture))).decode()
    except (binascii.Error, UnidentifiedImageError):
        return picture


def fewer_colours(png: bytes) -> bytes:
    """The same of a PNG's bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(small, "PNG", optimize=True)
    return min(small.getvalue(), png, key=len)


def _hidden_from(out: Path) -> dict[str, str]:
    above = out.parent.resolve()
    return ({f"{above}/": ""} if above != above.parent else {}) | {f"{Path.home()}/": "~/"}


def _hidden(value, hide: Mapping[str, str]):
    """A copy with the paths replaced in every text; pictures are left alone, for they are no text."""
    if isinstance(value, str):
        for path, instead in hide.items():
            value = value.replace(path, instead)
        return value
    if isinstance(value, list):
        return [_hidden(item, hide) for item in value]
    if isinstance(value, dict):
        return {key: item if key.startswith("image/") else _hidden(item, hide) for key, item in value.items()}
    return value


def _moves(output: dict) -> bool:
    """Whether this output is alive only while the notebook runs: a bar on stderr, or a widget."""
    is_widget = any(kind.startswith("application/vnd.jupyter.widget") for kind in output.get("data", {}))
    return is_widget or (output["output_type"] == "stream" and output.get("name") == "stderr")


# Markdown


def results_table(entries: Sequence[dict], base: str = "") -> str:
    """The measured claims as a Markdown table, with a line that leads to the report.

    ``base`` is the way from the file that will hold the table to the folder of the report.
    """
    head = ("claim", "the paper", "ours: before -> after", "effect with its 95 % interval", "verdict")
    rows = []
    for entry in measured(entries):
        parts = "<br>".join(effect_text(name, row) for name, row in entry["detail"]["parts"].items())
        what = f"{entry['id']} {entry['claim']}"
        rows.append((what, entry["paper"], before_after(entry), parts, f"**{entry['verdict']}**"))
    where = f"in [the report]({base}README.md)" if base else "below"
    lacking = len(entries) - len(measured(entries))
    more = f"{lacking} further {'claim is' if lacking == 1 else 'claims are'} not tested yet; why, is said {where}."
    return "\n".join([*_lines(head, rows), "", more]) + "\n"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table of Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    first, *others = (f"| {' | '.join(row)} |" for row in cells)
    return [first, "|" + "---|" * len(head), *others]


def markdown(
    content: Material,
    entries: Sequence[dict],
    shown: Sequence[tables.Table],
    figures: Mapping[str, str],
    notebooks: Sequence[str],
    found: Sequence[str],
) -> str:
    """The report for a code host that shows no HTML: the same tables, figures and links."""
    lines = [
        f"# What the runs of tier {content.tier} say",
        "",
        f"{page.heading(content)} {content.harder()}".rstrip(),
        "",
    ]
    lines += [f"> **Not for publishing:** {problem}\n" for problem in found]
    lines += [results_table(entries), claims.VERDICTS_TEXT, "", "## Why these verdicts", "", claims.POWER_TEXT, ""]
    lines += [_why(entry) for entry in measured(entries)]
    for table in shown:
        heads = list(table.columns)
        if any(name for name, _ in table.groups):
            above = [name for name, span in table.groups for _ in range(span)]
            heads = [
                ": ".join(word for word in pair if word.strip(tables.DASH)) for pair in zip(above, heads, strict=True)
            ]
        rows = [[_marked(row, number, cell) for number, cell in enumerate(row.cells)] for row in table.rows]
        lines += ["", f"## {table.title}", "", *_lines(heads, rows), "", table.note]
    lines += ["", "## Figures", ""]
    for name, caption in figures.items():
        lines += [f"![{caption}](figures/{name}.png)", "", caption, ""]
    if notebooks:
        lines += ["## Executed notebooks", "", *(f"- [{name}](notebooks/{name}.ipynb)" for name in notebooks), ""]
    rows = [
        (f"{entry['id']} {entry['claim']}", entry["detail"]["untested_because"])
        for entry in entries
        if entry["verdict"] == "untestable"
    ]
    lines += ["## Not tested yet", "", *_lines(("claim", "why"), rows)]
    lines += ["", "Data: [claims.json](claims.json), [digests.json](digests.json) of every run behind a number."]
    lines += ["", "All claims, to be filtered by verdict and section: [ledger.html](ledger.html)."]
    return "\n".join(lines) + "\n"


def _why(entry: dict) -> str:
    """A verdict's reason, the power of a design that did not reproduce, and what its makers think of it."""
    power = claims.power_text(entry) if entry["verdict"] != "reproduced" else ""
    lines = [f"- {entry['id']} {entry['verdict']}: {entry['detail']['why']}" + (f". Power: {power}" if power else "")]
    if remark := entry["detail"].get("remark"):
        lines += ["", f"  *What we think:* {remark}", ""]
    return "\n".join(lines)


def remarks(file: Path, commit: str) -> dict[str, str]:
    """What its makers think of claims that did not come out, a paragraph each; none where there is no file.

    The first line of the file ends in the commit of the runs that it is about.

    Raises:
        Refusal: it is about other runs.
    """
    if not file.exists():
        return {}
    heading, *parts = file.read_text(encoding="utf-8").split("\n## ")
    about = (heading.splitlines() or [""])[0].rpartition(" ")[2]
    if not about or not commit.startswith(about):
        raise Refusal(
            f"{file} is about the runs of {about!r}, and these are of {commit[:12]}: write it anew, or remove it"
        )
    return {id: " ".join(text.split()) for id, _, text in (part.partition("\n") for part in parts)}


def _marked(row: tables.Row, number: int, cell: tables.Cell) -> str:
    """A cell for Markdown, where no colour tells whose line it is: the paper's first cells stand in italics."""
    text = tables.text_of(cell)
    return f"_{text}_" if number == 0 and row.kind == "paper" else text
