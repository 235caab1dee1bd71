"""Outputs to read: the same two questions, put to each stage's model; nobody chose them by eye.

The questions are those with the smallest ids among the English ones, an id being a hash of the question: one that has
an answer, and one that is open.  Where no model is evaluated yet, the checkpoints of R1-Zero answer two of theirs.
Always the first sample is shown.
"""

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1repro.models import ARMS, NAMES, STUDENTS
from r1repro.run import read_lines
from r1repro.site.material import Material, Run, evaluation_of
from r1repro.site.style import PAGE, whole
from r1repro.site.tables import called

LONGEST = 6000
"""Characters of an output that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one model said: its output, as its evaluation keeps it, and the run."""

    who: str
    key: str
    output: dict
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and what the models said to it."""

    key: str
    question: str
    reference: str
    told: tuple[Told, ...]


def choose(content: Material) -> list[Asked]:
    """The questions with every model's first output; none where nothing is evaluated."""
    for seed, found in zip(content.seeds, content.models, strict=True):
        names = [name for name in NAMES if name in found and name not in ("dev2_twin", *ARMS)]
        names += [name for name in STUDENTS if name in found]
        if names:
            who = {name: NAMES.get(name) or called(name) for name in names}
            kinds = ("reasoning", "open")
            return [
                asked
                for number, kind in enumerate(kinds, 1)
                for asked in _asked(content, seed.seed, {f"models/{n}/{kind}": w for n, w in who.items()}, [0], number)
            ]
    first = content.seeds[0]
    steps = dict.fromkeys(c.step for c in (first.start, first.half, first.end) if c is not None)
    return _asked(content, first.seed, {evaluation_of("ours", str(s)): f"R1-Zero, step {s}" for s in steps}, [0, 1], 1)


def _asked(content: Material, seed: int, who: dict[str, str], places: Sequence[int], first: int) -> list[Asked]:
    """The questions at these places of all that every one of these runs asked, in the order of their ids."""
    runs = {run.name: run for run in content.runs if run.seed == seed and run.name in who}
    rows = {name: _by_id(content.seed_dir(seed) / name / "samples.jsonl") for name in who}
    common = sorted(set.intersection(*(set(found) for found in rows.values())))
    some = next(iter(rows.values()))
    ids = [i for i in common if some[i]["language"] == "en"] or common
    return [
        Asked(
            key=f"q{first + place}",
            question=some[ids[place]]["question"],
            reference=some[ids[place]].get("gold") or "",
            told=tuple(
                Told(
                    who=who[name],
                    key=f"q{first + place}-{number}",
                    output=found[ids[place]]["outputs"][0],
                    run=runs[name],
                )
                for number, (name, found) in enumerate(rows.items())
            ),
        )
        for place in places
        if place < len(ids)
    ]


def _by_id(file: Path) -> dict[str, dict]:
    return {row["id"]: row for row in read_lines(file)}


def parts(text: str) -> tuple[str | None, str]:
    """The thinking of an output, if it opens with it, and the rest.

    >>> parts(" <think> 2 + 2 </think> <answer> 4 </answer>"), parts("<think> 2 +"), parts("4")
    (('2 + 2', '<answer> 4 </answer>'), ('2 +', ''), (None, '4'))
    """
    text = text.strip()
    if not text.startswith("<think>"):
        return None, text
    thinking, _, rest = text.removeprefix("<think>").partition("</think>")
    return thinking.strip(), rest.strip()


def shown(text: str) -> str:
    r"""An output as HTML: nothing in it is a tag, hides itself, turns the line round, or was lost in decoding unseen.

    >>> shown("<b>\x1b \u202e \ufffd"), shown("好\n")
    ('&lt;b&gt;\\u001b \\u202e \\ufffd', '好\n')
    """
    more = f" [{len(text) - LONGEST} more characters]" if len(text) > LONGEST else ""
    return html.escape(visible(text[:LONGEST]) + more)


def visible(text: str) -> str:
    r"""A text whose characters can all be seen: control characters and lost ones are spelt out.

    >>> visible("a\x1b \ufffd\n") == "a" + r"\u001b \ufffd" + "\n"
    True
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    hidden = unicodedata.category(character).startswith("C") and character not in "\n\t"
    return f"\\u{ord(character):04x}" if hidden or character == "\ufffd" else character


def summary(questions: Sequence[Asked]) -> str:
    """A line a model for the page: whether it was right, in how many tokens, and the way to what it said."""
    lines = []
    for told in zip(*(asked.told for asked in questions), strict=True):
        cells = "".join(
            f'<td><a href="samples.html#{t.key}">{html.escape(_verdict(t.output))}</a>, '
            f'<a class="n" href="#{t.run.anchor}">{t.output["length"]}</a> tokens</td>'
            for t in told
        )
        lines.append(f'<tr class="ours"><th scope="row">{html.escape(told[0].who)}</th>{cells}</tr>')
    heads = "".join(f"<th>{shown(asked.question)}</th>" for asked in questions)
    head = f"<thead><tr><th>model</th>{heads}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _verdict(output: dict) -> str:
    extra = "".join(f", {word}" for word in ("refused", "unsafe") if output.get(word))
    return output["verdict"] + extra


def page(questions: Sequence[Asked], tier: str) -> str:
    """The page ``samples.html``: each output in full, the thinking folded."""
    body = [
        '<main><p class="small"><a href="index.html">The report</a></p><h1>Outputs to read</h1>',
        '<p class="lead">The same two questions, put to the model of each stage. They are those whose hash is smallest '
        "among the English ones, and the first sample is shown, right or wrong.</p>",
    ]
    for number, asked in enumerate(questions, 1):
        reference = f'<p class="small">Reference</p><pre>{shown(asked.reference)}</pre>' if asked.reference else ""
        body.append(
            f'<h2 id="{asked.key}">Question {number}</h2><div class="asked"><pre>{shown(asked.question)}</pre>'
            f"{reference}</div>"
        )
        body += map(_article, asked.told)
    return whole(f"r1repro: outputs of tier {tier}", PAGE, "\n".join([*body, "</main>"]))


def _article(told: Told) -> str:
    thinking, rest = parts(told.output["text"])
    cut = ", cut at the cap" if told.output["truncated"] else ""
    facts = (
        f'{html.escape(_verdict(told.output))}, <a class="n" href="index.html#{told.run.anchor}">'
        f"{told.output['length']}</a> tokens{cut}"
    )
    inner = []
    if thinking is not None:
        say = shown(thinking) or "empty"
        inner.append(f"<details><summary>thinking</summary><pre>{say}</pre></details>")
    inner.append(f"<pre>{shown(rest)}</pre>" if rest else '<p class="small">nothing after the thinking</p>')
    kind = "right" if told.output["verdict"] == "right" else "wrong"
    return (
        f'<article class="sample {kind}" id="{told.key}"><h3>{html.escape(told.who)} '
        f'<span class="facts">{facts}</span></h3>{"".join(inner)}</article>'
    )
