"""`ledger.html`: every claim, tested or not, to be filtered by verdict and by section of the paper.

The filter is two groups of radio buttons and a style that hides what does not fit them: no script, so it works from a
file, by the keyboard, and where scripts are off.  A browser that does not know ``:has`` shows every claim.
"""

import html
from collections.abc import Sequence

from r1repro import paper
from r1repro.site import claims
from r1repro.site.claims import SIGN, Cells
from r1repro.site.material import Material
from r1repro.site.style import PAGE, whole

FILTER = """
fieldset { border: 1px solid var(--line); border-radius: .5rem; margin: .8rem 0; padding: .4rem .9rem .7rem; }
legend { color: var(--soft); font-size: .88rem; padding: 0 .3rem; }
fieldset div { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; }
fieldset label { display: inline-flex; align-items: baseline; gap: .45rem; padding: .3rem 0; font-size: .92rem; }
fieldset input { accent-color: var(--link); flex: none; width: 1.05rem; height: 1.05rem; margin: 0;
  align-self: center; }
label:has(:focus-visible) { outline: 2px solid var(--link); outline-offset: .15rem; border-radius: .2rem; }
label:has(:checked) { font-weight: 700; }
.claims { display: flex; flex-direction: column; counter-reset: shown; }
.claims .claim { counter-increment: shown; }
.claims .count { order: -1; margin: 1rem 0 0; }
.count::after { content: counter(shown); }
"""


def page(content: Material, entries: Sequence[dict], cells: Cells) -> str:
    """The whole page."""
    sections = paper.section_map()
    counted = {n: sum(entry["id"] in section.claims for entry in entries) for n, section in enumerate(sections)}
    by_section = {
        str(number): f"{html.escape(sections[number].section)} {html.escape(sections[number].title.partition(':')[0])} "
        f"({count})"
        for number, count in counted.items()
        if count
    }
    found = [entry["verdict"] for entry in entries]
    by_verdict = {name: f"{claims.badge(name)} ({found.count(name)})" for name in SIGN if name in found}
    cards = "".join(claims.card(entry, content, cells, "index.html") for entry in entries)
    rules = "".join(
        f'main:has(#{key}-{name}:checked) .claim:not([data-{key}="{name}"]) {{ display: none; }}\n'
        for key, names in (("verdict", by_verdict), ("section", by_section))
        for name in names
    )
    body = (
        f'<header><p><a href="index.html">The report</a></p><h1>The ledger: tier {html.escape(content.tier)}</h1>'
        '<p class="lead">Every claim of the paper that we know how to test: its numbers, ours with their intervals, '
        "the rule, its controls, the verdict that follows, and the runs and notebooks behind it.</p>"
        f'<p class="small text">{html.escape(f"{claims.VERDICTS_TEXT} {claims.POWER_TEXT}")}</p></header><main>'
        f"{_choice('verdict', 'Verdict', by_verdict)}{_choice('section', 'Section of the paper', by_section)}"
        f'<div class="claims">{cards}<p class="count small">Claims shown: </p></div></main>'
    )
    return whole(f"r1repro: the ledger, {content.tier}", PAGE + FILTER + rules, body)


def _choice(key: str, title: str, options: dict[str, str]) -> str:
    """A group of radio buttons, the first for all."""
    labels = "".join(
        f'<label><input type="radio" name="{key}" id="{key}-{name}"{" checked" * (name == "all")}>'
        f"<span>{said}</span></label>"
        for name, said in ({"all": "all"} | options).items()
    )
    return f"<fieldset><legend>{title}</legend><div>{labels}</div></fieldset>"
