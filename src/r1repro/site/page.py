"""`index.html`: what came out of the pipeline, in the order of the paper, each number of ours with its address."""

import html
from collections.abc import Mapping, Sequence

from r1repro import config, paper
from r1repro.site import claims, material, samples
from r1repro.site.material import STAGES, Material
from r1repro.site.style import PAGE, whole
from r1repro.site.tables import Cell, Row, Table, is_number

HEADLINE = ("benchmark_bars", "accuracy_curve", "length_curve")
"""The analogues of the paper's Figures 1 to 3, which stand before the tables; the others come later."""

TINY = (
    "The questions are made by rules: sums, searches, small puzzles of logic, programs of one line, and general "
    "prompts from a closed world, in English and Chinese. The models have a million parameters or less, and the corpus "
    "that they were pre-trained on holds worked solutions of every depth, wrong ones among them.",
    "So this can show that the recipe of the paper finds the behaviour that pays, how fast, at what price in length "
    "and readability, and whether the paper's claims hold in kind. It cannot show that a behaviour arises that no text "
    "contained, nor what happens at scale, and its numbers are not the paper's.",
)
"""For the tiers whose models are the tiny world's."""

LEDGER = '<a href="ledger.html">The ledger</a> has all claims, also those not tested, by verdict and by section.'

SMOKE = "Tier smoke only shows that everything runs: nothing here has been trained for long enough to mean anything."


def page(
    content: Material,
    entries: Sequence[dict],
    tables: Sequence[Table],
    figures: Mapping[str, str],
    notebooks: Sequence[str],
    asked: Sequence[samples.Asked],
    found: Sequence[str],
    cells: claims.Cells,
) -> str:
    """The whole page.

    Args:
        figures: name -> caption, of those that are drawn.
        notebooks: names of the executed notebooks that lie in ``notebooks/``.
        found: what forbids publishing.
        cells: where the notebooks show each claim.
    """
    by_key = {table.key: table for table in tables}
    sections: list[tuple[str, str, str]] = []

    def add(key: str, title: str, inner: str) -> None:
        if inner:
            sections.append((key, title, inner))

    def add_table(key: str) -> None:
        if key in by_key:
            add(key, by_key[key].title, table_html(by_key[key], notebooks))

    add_table("pipeline")
    add("figures", "Figures of the paper, and ours", _figures({n: figures[n] for n in HEADLINE if n in figures}))
    for key in ("stages", "beside-others", "r1-zero", "students", "versus"):
        add_table(key)
    measured = claims.measured(entries)
    cards = "".join(claims.card(entry, content, cells) for entry in measured)
    add(
        "claims",
        "Claims",
        cards and f'<p class="small">{html.escape(f"{claims.VERDICTS_TEXT} {claims.POWER_TEXT}")} {LEDGER}</p>{cards}',
    )
    add("samples", "Outputs to read", asked and _samples(asked))
    add("more-figures", "More figures", _figures({n: c for n, c in figures.items() if n not in HEADLINE}))
    add_table("seeds")
    add_table("variants")
    add("notebooks", "Executed notebooks", _notebooks(notebooks))
    add("untested", "Claims not tested yet", claims.untested(entries))
    add("runs", "Runs behind the numbers", _runs(content))
    contents = "".join(f'<li><a href="#{key}">{html.escape(title)}</a></li>' for key, title, _ in sections)
    body = [
        *_opening(content, entries, found),
        f'<nav aria-label="Contents"><b>Contents</b><ul>{contents}</ul></nav>',
        f"<main>{_problems(found)}",
    ]
    body += [f'<h2 id="{key}">{html.escape(title)}</h2>\n{inner}' for key, title, inner in sections]
    return whole(f"r1repro: {content.tier}", PAGE, "\n".join([*body, "</main>"]))


def heading(content: Material) -> str:
    """The runs in two sentences: tier, seeds, questions, intervals."""
    first = content.seeds[0]
    numbers = ", ".join(str(seed.seed) for seed in content.seeds)
    return (
        f"Tier {content.tier}, seeds {numbers}; R1-Zero: {len(first.ids)} test questions (sums) with "
        f"{first.end.right_QK.shape[1]} samples each at steps {', '.join(map(str, first.steps))}. "
        "Intervals: 95 % bootstrap over seeds and questions."
    )


def _opening(content: Material, entries: Sequence[dict], found: Sequence[str]) -> list[str]:
    rules = "" if found else " Verdicts are computed from rules that were committed before the runs."
    rules += f" {html.escape(content.harder())}"
    said = [f"<p>{html.escape(text)}</p>" for text in TINY if content.tier in config.TINY]
    said += [f"<p><strong>{html.escape(SMOKE)}</strong></p>"] * (content.tier == "smoke")
    return [
        f"<header><h1>DeepSeek-R1, reproduced: tier {html.escape(content.tier)}</h1>",
        f'<p class="lead">{html.escape(heading(content))}</p>',
        claims.tally(entries),
        f'<div class="text">{"".join(said)}<p class="small">Every number of ours with a dotted line leads to the runs '
        f"that it comes from, with their digests, at the foot of the page.{rules}</p></div></header>",
    ]


def _problems(found: Sequence[str]) -> str:
    """What forbids publishing: the first in sight, the others folded."""
    if not found:
        return ""
    first, *others = map(html.escape, found)
    more = "".join(f"<li>{other}</li>" for other in others)
    more = more and f"<details><summary>{len(others)} more</summary><ul>{more}</ul></details>"
    return f'<div class="problem"><strong>Not for publishing:</strong> {first}{more}</div>'


# Tables


def table_html(table: Table, notebooks: Sequence[str]) -> str:
    """A table in a box of its own that scrolls; the first column stays."""
    numeric = [all(is_number(row.cells[place]) for row in table.rows) for place in range(len(table.columns))]
    groups = "".join(
        f'<th colspan="{span}"{_number_class(span == 1 and is_numeric)}>{html.escape(name)}</th>'
        for (name, span), is_numeric in zip(table.groups, numeric, strict=False)
    )
    head = "".join(
        f"<th{_number_class(is_numeric)}>{html.escape(name)}</th>"
        for name, is_numeric in zip(table.columns, numeric, strict=True)
    )
    rows = "".join(_row(row, table, notebooks) for row in table.rows)
    return (
        f'<p class="small text">{html.escape(table.note)}</p><div class="wide"><table><thead>'
        + (f'<tr class="groups">{groups}</tr>' if groups else "")
        + f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: Row, table: Table, notebooks: Sequence[str]) -> str:
    cells, ours = [], dict(table.groups).get("ours", 0)
    for number, (name, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        if name == "notebook":
            cells.append(f"<td>{_notebook_link(cell[0], notebooks)}</td>")
        elif number == 0:
            cells.append(f'<th scope="row">{_cell(cell)}</th>')
        else:
            side = (" o" if number <= ours else " t") if ours else ""
            cells.append(f"<td{_number_class(is_number(cell), side)}>{_cell(cell)}</td>")
    return f'<tr class="{row.kind}">{"".join(cells)}</tr>'


def _number_class(is_numeric: bool, side: str = "") -> str:
    names = ("num" * is_numeric + side).strip()
    return f' class="{names}"' if names else ""


def _cell(cell: Cell) -> str:
    return "".join(
        claims.arrows(piece)
        if isinstance(piece, str)
        else f'<a class="n" href="#{html.escape(piece.anchor)}">{html.escape(piece.text)}</a>'
        for piece in cell
    )


def _notebook_link(name: str, notebooks: Sequence[str]) -> str:
    said = html.escape(name)
    return f'<a href="notebooks/{said}.html">{said}</a>' if name in notebooks else said


def _notebooks(notebooks: Sequence[str]) -> str:
    """A line a notebook, with the sections of the paper that it is about."""
    items = []
    for name in notebooks:
        about = "; ".join(f"{s.title} ({s.section})" for s in paper.section_map() if s.notebook == name)
        items.append(
            f'<li>{_notebook_link(name, notebooks)} <span class="small">{html.escape(about)} \N{MIDDLE DOT} '
            f'<a href="notebooks/{html.escape(name)}.ipynb">.ipynb</a></span></li>'
        )
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _figures(figures: Mapping[str, str]) -> str:
    return "".join(
        f'<figure><div class="wide"><a href="figures/{name}.png"><img src="figures/{name}.png" '
        f'alt="{html.escape(caption)}" loading="lazy"></a></div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, caption in figures.items()
    )


def _samples(asked: Sequence[samples.Asked]) -> str:
    return (
        '<p class="small text">The same two questions to each stage, those with the smallest hash, and the first '
        f'sample of each. <a href="samples.html">Read them</a>, the thinking unfolds.</p>{samples.summary(asked)}'
    )


# The runs


def _runs(content: Material) -> str:
    """Every run behind a number, stage by stage: where it lay, what it was made from, and how long it took."""
    chosen = {seed.seed for seed in content.seeds}
    head = '<thead><tr><th>run</th><th>seed</th><th>digest</th><th>commit</th><th class="num">minutes</th></tr></thead>'
    parts = []
    for stage in STAGES:
        runs = [run for run in content.runs if run.stage == stage]
        bodies = "".join(
            f'<tbody id="{content.anchor(name)}">'
            + "".join(_run(run, run.seed in chosen) for run in runs if run.name == name)
            + "</tbody>"
            for name in material.names_of(runs)
        )
        title = html.escape(material.title(stage))
        if runs:
            parts.append(
                f'<section class="runs" id="{stage.anchor}"><h3>{title[:1].upper()}{title[1:]}</h3>'
                f'<div class="wide"><table>{head}{bodies}</table></div></section>'
            )
    return (
        '<p class="small text">The digest is the SHA-256 of manifest.json followed by samples.jsonl, here its first 16 '
        'digits, in full in <a href="digests.json">digests.json</a>; the claims as data are in '
        f'<a href="claims.json">claims.json</a>.</p>{"".join(parts)}'
    )


def _run(run: material.Run, chosen: bool) -> str:
    commit = html.escape((run.record.commit or "none")[:12]) + " (dirty)" * run.record.dirty
    return (
        f'<tr id="{run.anchor}"><th scope="row"><code>{html.escape(run.record.path)}</code></th>'
        f"<td>{run.seed}{'' if chosen else ' (held back)'}</td><td><code>{run.record.digest[:16]}</code></td>"
        f'<td><code>{commit}</code></td><td class="num">{run.record.wall_s / 60:.1f}</td></tr>'
    )
