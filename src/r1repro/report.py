"""The ledger as a reader meets it: claims.json, figures, one self-contained page, and the same tables in Markdown.

`build` makes the local report of a tier, of whatever runs there are, and says aloud what is wrong with them.
`publish` makes the committed one, and refuses where `ledger.problems` finds anything.
"""

import html
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from r1repro import ledger, paper, plots
from r1repro.ledger import SeedRuns
from r1repro.records import Refusal
from r1repro.run import between_marks, read_json, speaking_of, write_json, write_text

LARGEST_NOTEBOOK = 1_500_000
LARGEST_REPORT = 20_000_000
"""Bytes.  The history of the repository must stay small, and a code host shows no larger notebook."""

"""The README's table stands between these and is never typed by hand."""

SIGN = {"reproduced": "++", "trend": "+", "contradicted": "--", "inconclusive": "?", "untestable": "o"}
"""Each verdict is told by its word, a sign and a colour (Okabe and Ito's, safe for colour-blind readers)."""

FIGURES = {
    "accuracy_curve": "Accuracy on test questions over training, beside Figure 2 of the paper.",
    "length_curve": "Length of outputs over training, beside Figure 3 of the paper.",
    "accuracy_by_level": "Accuracy by difficulty at the start, half-way and at the end.",
    "reflection_curve": "Reflection words, an output and per 1000 tokens.",
    "language_mixing": "Outputs that mix languages while they think.",
    "diagnosis": "Training itself: six curves that tell why a reward does or does not rise.",
}


def build(tier: str, out: Path, folder: Path | None = None) -> Path:
    """Make the local report of a tier from the runs under `out`; returns its folder, `out/<tier>/report` by default."""
    folder = Path(folder or Path(out, tier, "report"))
    seeds = ledger.read(tier, Path(out))
    notebooks = {path.stem: os.path.relpath(path, folder) for path in _notebooks(tier, Path(out), seeds[0].seed)}
    tables = _tables(tier, Path(out), seeds)
    return _replace(folder, lambda new: _write(new, tier, seeds, notebooks, ledger.problems(seeds), tables))


def publish(tier: str, out: Path, reports: Path) -> Path:
    """Make the committed report `reports/<tier>` and refresh the results table of the README beside `reports`.

    Refusal where the runs are of dirty or mixed commits, where a rule is younger than the runs, where something is too
    large, or where the README has no place for the table.  Nothing is changed then.
    """
    out, reports = Path(out), Path(reports)
    seeds = ledger.read(tier, out)
    found = ledger.problems(seeds)
    if found:
        raise Refusal(f"tier {tier} is not published: {found[0]}" + f" ({len(found) - 1} more)" * (len(found) > 1))
    readme = reports.parent / "README.md"
    between_marks(readme, "results", "")  # refuses before anything is written

    hide = {f"{reports.parent.resolve()}/": "", f"{out.parent.resolve()}/": "", f"{Path.home()}/": "~/"}

    def write(new: Path) -> None:
        notebooks = {}
        for path in _notebooks(tier, out, seeds[0].seed):
            (new / "notebooks").mkdir(exist_ok=True)
            target = new / "notebooks" / path.name
            write_json(target, static_notebook(read_json(path), hide))
            if target.stat().st_size > LARGEST_NOTEBOOK:
                raise Refusal(
                    f"{path} has {target.stat().st_size} bytes without its progress bars, at most {LARGEST_NOTEBOOK} "
                    "can be published: show fewer or smaller figures in it"
                )
            notebooks[path.stem] = f"notebooks/{path.name}"
        _write(new, tier, seeds, notebooks, [], _tables(tier, out, seeds))
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
        if size > LARGEST_REPORT:
            raise Refusal(f"the report of {tier} has {size} bytes, at most {LARGEST_REPORT} can be published")

    folder = _replace(reports / tier, write)
    table = results_table(read_json(folder / "claims.json"), f"{reports.name}/{tier}/")
    write_text(readme, between_marks(readme, "results", table))
    return folder


def static_notebook(notebook: dict, hide: Mapping[str, str] | None = None) -> dict:
    """A copy for readers: no progress bars (stderr), no widgets, no notes of papermill, no folders of this machine.

    ``hide`` says what stands for the beginning of a path that is nobody's business.
    """
    notebook = _hidden(notebook, hide or {})
    for part in [notebook, *notebook["cells"]]:
        for key in ("papermill", "widgets", "execution"):
            part.get("metadata", {}).pop(key, None)
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not _moves(output)]
    return notebook


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


def _notebooks(tier: str, out: Path, seed: int) -> list[Path]:
    """Executed notebooks in reading order: those of the tier, and those of its first seed."""
    places = [out / tier / "notebooks", out / tier / f"seed-{seed}" / "notebooks"]
    found = (path for place in places for path in place.glob("*.ipynb") if not path.name.endswith(".running.ipynb"))
    return sorted(found, key=lambda path: path.name)


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


def _tables(tier: str, out: Path, seeds: Sequence[SeedRuns]) -> dict[str, list[dict[str, str]]]:
    """Further tables by their heading: a line a seed, and what other settings gave where they were run."""
    tables = {"Every seed": [ledger.seed_row(seed) for seed in seeds]}
    columns = (("pass@1", "pass@1", ".3f"), ("vote", "cons@k", ".3f"), ("tokens", "length", ".0f"))
    rows = [
        {
            "settings": row["name"],
            "what differs": ", ".join(f"{key} = {value}" for key, value in row["set"].items()) or "the paper's",
            **{
                name: " -> ".join(f"{summary[key]:{digits}}" for summary in row["by_step"].values())
                for name, key, digits in columns
            },
        }
        for file in sorted(Path(out, tier).glob("seed-*/variants.json"))
        for row in read_json(file)
    ]
    return tables | ({"Other settings and a control, by checkpoint": rows} if rows else {})


def _write(
    folder: Path,
    tier: str,
    seeds: Sequence[SeedRuns],
    notebooks: dict[str, str],
    found: Sequence[str],
    tables: dict[str, list[dict[str, str]]],
) -> None:
    everybody, seeds = seeds, ledger.of_the_ledger(seeds)
    entries = [ledger.entry(claim, ledger.measure(claim.id, seeds)) for claim in paper.claims()]
    write_json(folder / "claims.json", entries)
    write_json(folder / "digests.json", _digests(everybody))
    (folder / "figures").mkdir()
    for name in FIGURES:
        about = [seed.metrics for seed in seeds] if name == "diagnosis" else seeds
        getattr(plots, name)(about).savefig(folder / "figures" / f"{name}.png", metadata={"Software": None})
    write_text(folder / "README.md", _markdown(tier, seeds, entries, notebooks, found, tables))
    write_text(folder / "index.html", _page(tier, seeds, entries, notebooks, found, tables))


def _digests(seeds: Sequence[SeedRuns]) -> list[dict]:
    """A line a run behind the claims: where it lay, the digest that claims.json cites, and how to check it."""
    how = "sha256 of manifest.json followed by samples.jsonl"
    rows = [(seed.seed, run) for seed in seeds for run in seed.runs]
    return [
        {"seed": seed, "path": run.path, "digest": run.digest, "commit": run.commit, "dirty": run.dirty, "how": how}
        for seed, run in rows
    ]


# What is said


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:+.3f}" if abs(value) < 1 else f"{value:.2f}"


def effect_text(name: str, row: dict) -> str:
    """One part with its interval, for a table.

    >>> effect_text("pass1_gain", {"value": 0.625, "low": 0.6, "high": 0.65})
    'pass1_gain +0.625 [+0.600, +0.650]'
    """
    return f"{name} {_number(row['value'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _before_after(entry: dict) -> str:
    detail = entry["detail"]
    before, after = (_plain(detail[key]) for key in ("before", "after"))
    return f"{before} -> {after} ({detail['quantity']})"


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def _measured(entries: Sequence[dict]) -> list[dict]:
    return [entry for entry in entries if entry["verdict"] != "untestable"]


def results_table(entries: Sequence[dict], base: str = "") -> str:
    """The measured claims as a Markdown table, with a line that leads to the report.

    ``base`` is the way from the file that will hold the table to the folder of the report.
    """
    lines = [
        "| claim | the paper | ours: before -> after | effect with its 95 % interval | verdict |",
        "|" + "---|" * 5,
    ]
    for entry in _measured(entries):
        parts = "<br>".join(effect_text(name, row) for name, row in entry["detail"]["parts"].items())
        what = f"{entry['id']} {entry['claim']}"
        cells = (what, entry["paper"], _before_after(entry), parts, f"**{entry['verdict']}**")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    where = f"in [the report]({base}README.md)" if base else "below"
    lines += ["", f"{len(entries) - len(_measured(entries))} further claims are not tested yet; why, is said {where}."]
    return "\n".join(lines) + "\n"


def _heading(tier: str, seeds: Sequence[SeedRuns]) -> str:
    first = seeds[0]
    numbers = ", ".join(str(seed.seed) for seed in seeds)
    return (
        f"Tier {tier}, seeds {numbers}; {len(first.ids)} test questions with {first.end.right_QK.shape[1]} samples "
        f"each at steps {', '.join(map(str, first.steps))}. Intervals: 95 % bootstrap over seeds and questions."
    )


VERDICTS_TEXT = (
    "reproduced: every part of the rule holds with its interval, all of at least three seeds agree; trend: the sign is "
    "right, but the interval includes the threshold, or seeds disagree or are too few; contradicted: an interval lies "
    "on the other side; inconclusive: known too roughly, or none of these; untestable: not measured here."
)


def _markdown(tier, seeds: Sequence[SeedRuns], entries: Sequence[dict], notebooks, found, tables) -> str:
    lines = [f"# What the runs of tier {tier} say", "", _heading(tier, seeds), ""]
    lines += [f"> **Not for publishing:** {problem}\n" for problem in found]
    lines += [results_table(entries), VERDICTS_TEXT, "", "## Why these verdicts", ""]
    lines += [f"- {entry['id']} {entry['verdict']}: {entry['detail']['why']}" for entry in _measured(entries)]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.values()) + " |" for row in rows]
    lines += ["", "## Figures", ""]
    for name, caption in FIGURES.items():
        lines += [f"![{caption}](figures/{name}.png)", "", caption, ""]
    if notebooks:
        lines += ["## Executed notebooks", "", *(f"- [{name}]({path})" for name, path in notebooks.items()), ""]
    lines += ["## Not tested yet", "", "| claim | why |", "|---|---|"]
    for entry in entries:
        if entry["verdict"] == "untestable":
            cells = (f"{entry['id']} {entry['claim']}", entry["detail"]["untested_because"])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "Data: [claims.json](claims.json), [digests.json](digests.json) of every run behind a claim."]
    return "\n".join(lines) + "\n"


CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 2px solid #ddd; }
.claim { border: 1px solid #ccc; border-radius: .5rem; padding: .8rem 1rem; margin: 1rem 0; }
.claim h3 { margin: 0 0 .4rem; font-size: 1.05rem; } .claim p { margin: .3rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; font-size: .85rem; font-weight: 700; }
.reproduced { background: #0072b2; color: #fff; } .trend { background: #56b4e9; color: #000; }
.contradicted { background: #a63c00; color: #fff; } .inconclusive { background: #f0e442; color: #000; }
.untestable { background: #e6e6e6; color: #333; }
.problem { border-left: .4rem solid #a63c00; background: #fdf0e8; padding: .5rem .8rem; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: .9rem; }
.small { color: #555; font-size: .9rem; }
code { overflow-wrap: anywhere; }
"""


def _page(tier, seeds: Sequence[SeedRuns], entries: Sequence[dict], notebooks, found, tables) -> str:
    say = html.escape
    body = [f"<h1>DeepSeek-R1, reproduced: tier {say(tier)}</h1>", f"<p>{say(_heading(tier, seeds))}</p>"]
    body += [f'<p class="problem"><strong>Not for publishing:</strong> {say(problem)}</p>' for problem in found]
    body += ["<h2>Claims measured</h2>", f'<p class="small">{say(VERDICTS_TEXT)}</p>']
    body += [_claim_card(entry) for entry in _measured(entries)]
    for title, rows in tables.items():
        head = "".join(f"<th>{say(name)}</th>" for name in rows[0])
        lines = "".join("<tr>" + "".join(f"<td>{say(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
        body += [f"<h2>{say(title)}</h2>", f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>']
    body += ["<h2>Figures</h2>"]
    for name, caption in FIGURES.items():
        picture = f'<img src="figures/{name}.png" alt="{say(caption)}" loading="lazy">'
        body.append(f"<figure>{picture}<figcaption>{say(caption)}</figcaption></figure>")
    if notebooks:
        links = "".join(f'<li><a href="{say(path)}">{say(name)}</a></li>' for name, path in notebooks.items())
        body += ["<h2>Executed notebooks</h2>", f"<ul>{links}</ul>"]
    rows = "".join(
        f"<tr><td>{say(entry['id'])}</td><td>{say(entry['claim'])}</td>"
        f"<td>{_badge('untestable')} {say(entry['detail']['untested_because'])}</td></tr>"
        for entry in entries
        if entry["verdict"] == "untestable"
    )
    head = "<tr><th>id</th><th>claim</th><th>why it is not tested</th></tr>"
    body += ["<h2>Not tested yet</h2>", f'<div class="wide"><table>{head}{rows}</table></div>']
    body += ["<h2>Runs behind the claims</h2>", _runs_table(seeds)]
    body += ['<p>Data: <a href="claims.json">claims.json</a>, <a href="digests.json">digests.json</a>.</p>']
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>r1repro: {say(tier)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n" + "\n".join(body)
    ) + "\n</body>\n</html>\n"


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{html.escape(SIGN[verdict])} {verdict}</span>'


def _claim_card(entry: dict) -> str:
    say, detail = html.escape, entry["detail"]
    rows = "".join(
        f"<tr><td><code>{say(name)}</code></td><td>{_number(row['value'])}</td>"
        f"<td>{_number(row['low'])} to {_number(row['high'])}</td>"
        f"<td>{', '.join(_number(value) for value in row['seeds'])}</td></tr>"
        for name, row in detail["parts"].items()
    )
    head = "<tr><th>effect</th><th>value</th><th>95 % interval</th><th>each seed</th></tr>"
    truncated = " -> ".join("none" if v is None else f"{100 * v:.1f} %" for v in detail["truncated"])
    right = " -> ".join(_plain(value) for value in detail["length_right"])
    return (
        f'<section class="claim" id="{say(entry["id"])}"><h3>{say(entry["id"])} {_badge(entry["verdict"])} '
        f"{say(entry['claim'])}</h3><p>The paper: {say(entry['paper'])}</p><p>Ours: {say(_before_after(entry))}</p>"
        f'<div class="wide"><table>{head}{rows}</table></div>'
        f'<p class="small">Rule: <code>{say(entry["rule"])}</code>. Verdict: {say(detail["why"])}. '
        f"Outputs cut at the cap {truncated}; tokens of right outputs {right}.</p></section>"
    )


def _runs_table(seeds: Sequence[SeedRuns]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(run.path)}</code></td><td><code>{run.digest[:16]}</code></td>"
        f"<td><code>{html.escape((run.commit or 'none')[:12])}{' (dirty)' if run.dirty else ''}</code></td></tr>"
        for seed in seeds
        for run in seed.runs
    )
    head = "<tr><th>run</th><th>digest (in full in digests.json)</th><th>commit</th></tr>"
    return f'<div class="wide"><table>{head}{rows}</table></div>'
