"""Claims as a reader meets them: verdict by word, sign and colour, effects with their intervals, the runs behind."""

import html
from collections.abc import Callable, Mapping, Sequence

from r1repro import paper
from r1repro.ledger import parse_rule
from r1repro.site import material
from r1repro.site.material import Material

SIGN = {"reproduced": "++", "trend": "+", "contradicted": "--", "inconclusive": "?", "untestable": "o"}
"""Each verdict is told by its word, a sign and a colour (Okabe and Ito's, safe for colour-blind readers)."""

VERDICTS_TEXT = (
    "reproduced: every part of the rule holds with its interval, all of at least three seeds agree; trend: the sign is "
    "right, but the interval includes the threshold, or seeds disagree or are too few; contradicted: an interval lies "
    "on the other side; inconclusive: known too roughly, or none of these; untestable: not measured here."
)

POWER_TEXT = (
    "Power: an effect so far from its threshold (a ratio: by such a factor) would be told from it in four studies of "
    "five at best, by the width of the interval and the normal approximation."
)

MANY = 4
"""So many kinds of runs of one stage are named by their stage."""


def measured(entries: Sequence[dict]) -> list[dict]:
    return [entry for entry in entries if entry["verdict"] != "untestable"]


def effect_text(name: str, row: dict) -> str:
    """One part with its interval, for a table.

    >>> effect_text("pass1_gain", {"value": 0.625, "low": 0.6, "high": 0.65})
    'pass1_gain +0.625 [+0.600, +0.650]'
    """
    return f"{name} {_number(row['value'])} [{_number(row['low'])}, {_number(row['high'])}]"


def power_text(entry: dict) -> str:
    """The power of each part of a claim's rule.

    >>> power_text({"detail": {"parts": {"pass1_gain": {"detectable": 0.0629}, "none": {"detectable": None}}}})
    'pass1_gain 0.063'
    """
    parts = entry["detail"]["parts"].items()
    return ", ".join(f"{name} {_plain(row['detectable'])}" for name, row in parts if row["detectable"] is not None)


def before_after(entry: dict) -> str:
    detail = entry["detail"]
    before, after = (_plain(detail.get(key)) for key in ("before", "after"))
    models = detail.get("models", ())
    if models and not any("," in names for names in models):
        before, after = f"{models[0]} {before}", f"{models[1]} {after}"
    return f"{before} -> {after} ({detail.get('quantity', 'no quantity')})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:+.3f}" if abs(value) < 1 else f"{value:.2f}"


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def behind(entry: dict, content: Material) -> dict[str, str]:
    """What the runs behind a claim are called, and their anchors: a stage where it is many, else run by run."""
    paths = {run["path"] for run in entry["runs"]}
    runs = [run for run in content.runs if run.record.path in paths]
    assert len(runs) == len(paths), f"{entry['id']} rests on runs that the report does not list"
    found = {}
    for stage in material.STAGES:
        names = material.names_of([run for run in runs if run.stage == stage])
        if len(names) >= MANY:
            found[f"{material.title(stage)} and its evaluations"] = stage.anchor
        else:
            found |= {name: content.anchor(name) for name in names}
    return found


def badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{html.escape(SIGN[verdict])} {verdict}</span>'


def arrows(text: str) -> str:
    """A text as HTML, its arrows drawn.

    >>> arrows("1 -> 2")
    '1 → 2'
    """
    return html.escape(text).replace("-&gt;", "\N{RIGHTWARDS ARROW}")


def tally(entries: Sequence[dict]) -> str:
    """How many claims have which verdict, as badges that lead to the first of them."""
    items = []
    for verdict in SIGN:
        ids = [entry["id"] for entry in entries if entry["verdict"] == verdict]
        if ids:
            place = "untested" if verdict == "untestable" else ids[0]
            items.append(f'<li><a href="#{html.escape(place)}"><b>{len(ids)}</b> {badge(verdict)}</a></li>')
    return f'<ul class="tally">{"".join(items)}</ul>'


Cells = Mapping[str, Sequence[tuple[str, str]]]
"""Claim -> the notebooks that show it, each with the address of the cell."""


def card(entry: dict, content: Material, cells: Cells, page: str = "") -> str:
    """A claim: the paper's words and numbers, ours, every effect of its rule and of its controls, verdict, the runs it
    rests on and the notebooks that show it; or why it is not tested.

    Args:
        page: file that has the table of runs, where that is another than this one.
    """
    say, claim = html.escape, paper.claim(entry["id"])
    body = _measured(entry, content, page) if entry["detail"].get("parts") else _untested(entry)
    shown = [f'<a href="{say(address)}">{say(name)}</a>' for name, address in cells.get(entry["id"], ())]
    return (
        f'<section class="claim" id="{say(entry["id"])}" data-verdict="{entry["verdict"]}" '
        f'data-section="{place_of(entry["id"])}"><p class="id">{say(entry["id"])} {badge(entry["verdict"])} '
        f"{claim.tier}, section {say(claim.section)}</p><h3>{say(entry['claim'])}</h3>{body}"
        + (f"<p class=small>Shown in: {', '.join(shown)}.</p>" if shown else "")
        + "</section>"
    )


def place_of(claim_id: str) -> int:
    """The place of a claim's section in the map."""
    return next(number for number, section in enumerate(paper.section_map()) if claim_id in section.claims)


def _measured(entry: dict, content: Material, page: str) -> str:
    say, detail, runs = html.escape, entry["detail"], behind(entry, content)
    first = next(iter(runs.values()), "runs")

    def linked(text: str) -> str:
        return f'<a class="n" href="{page}#{say(first)}">{say(text)}</a>'

    controls = {name for name, _, _ in parse_rule(paper.claim(entry["id"]).controls)}
    rows = "".join(
        f"<tr><th scope=row><code>{say(name).replace('_', '_<wbr>')}</code>{' (control)' * (name in controls)}</th>"
        f"<td class=num>{linked(_number(row['value']))}</td>"
        f"<td>{linked(_number(row['low']))} to {linked(_number(row['high']))}</td>"
        f"<td>{', '.join(linked(_number(value)) for value in row['seeds'])}</td>"
        f"<td class=num>{linked(_plain(row['detectable']))}</td></tr>"
        for name, row in detail["parts"].items()
    )
    seeds = ", ".join(map(str, entry["seeds"]))
    head = (
        f"<tr><th>effect</th><th class=num>value</th><th>95 % interval</th><th>seed {say(seeds)}</th>"
        "<th class=num>power</th></tr>"
    )
    chips = ", ".join(f'<a href="{page}#{say(anchor)}">{say(name)}</a>' for name, anchor in runs.items())
    not_run = say(paper.claim(entry["id"]).controls) if controls - detail["parts"].keys() else ""
    return (
        f"<dl>{_theirs(entry)}<dt>Ours</dt><dd>"
        f'<a class="n" href="{page}#{say(first)}">{arrows(before_after(entry))}</a></dd></dl>'
        f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        + (f'<p class="text"><i>What we think:</i> {say(detail["remark"])}</p>' if "remark" in detail else "")
        + f"<p class=small>Verdict: {say(detail['why'])}. Rule: <code>{say(entry['rule'])}</code>. "
        + (f"Controls that were not run: <code>{not_run}</code>. " if not_run else "")
        + f"{_asides(detail, linked)}Runs: {chips}.</p>"
    )


def _untested(entry: dict) -> str:
    rule = f" Rule: <code>{html.escape(entry['rule'])}</code>." if entry["rule"] else ""
    why = html.escape(entry["detail"]["untested_because"])
    return f"<dl>{_theirs(entry)}</dl><p class=small>Not tested: {why}.{rule}</p>"


def _theirs(entry: dict) -> str:
    return f"<dt>The paper</dt><dd>{arrows(entry['paper'])}</dd>"


def _asides(detail: dict, linked: Callable[[str], str]) -> str:
    """What stands beside the effects: how many outputs were cut, and how long the right ones were, before and after."""
    cut = ["none" if value is None else f"{100 * value:.1f} %" for value in detail.get("truncated", ())]
    right = [_plain(value) for value in detail.get("length_right", ())]
    told = (("Outputs cut at the cap", cut), ("Tokens of right outputs", right))
    return "".join(f"{what}: {' to '.join(map(linked, values))}. " for what, values in told if values)


def untested(entries: Sequence[dict]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(entry['id'])}</td><td>{html.escape(entry['claim'])}</td>"
        f"<td>{html.escape(entry['detail']['untested_because'])}</td></tr>"
        for entry in entries
        if entry["verdict"] == "untestable"
    )
    head = f"<tr><th>id</th><th>claim</th><th>why it is not tested {badge('untestable')}</th></tr>"
    return f'<div class="wide"><table>{head}{rows}</table></div>'
