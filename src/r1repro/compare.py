"""Two runs side by side: what differs in what was asked, and in what came out.

Evaluations are compared question by question, with the interval that this pairing earns; other runs by the means of
their last quarter, without one, since one run of each says nothing of how runs differ.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from r1repro.algo import estimators
from r1repro.records import Refusal
from r1repro.run import GLOSSARY, read_json, readable

MEASURES = ("pass@1", "cons@k", "length", "truncated")
"""Of an evaluation, as `stages.evaluate.summarise` defines them: means over questions of what `measured` returns."""

OUTCOME = ("started", "ended", "startup_s", "wall_s", "workers", "exit", "tokens")
"""Keys of a manifest that say how a run went, not what was asked of it."""

NO_MEANS = ("step", "rollout/index", "time/elapsed_s")
"""Keys of metrics.jsonl that count up: a mean of them says nothing."""

MOST_CHANGED = 3
"""Questions that are shown one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that both runs have a value of; ``difference`` is second minus first, with the ends of its 95 %
    interval where there is one."""

    part: str
    what: str
    first: Any
    second: Any
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    questions: int | None = None
    """How many the values are means of, where they are."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a run's folder."""

    path: Path
    manifest: dict[str, Any]
    took: dict[str, float]
    """Seconds, steps and tokens."""

    late: dict[str, float]
    """`last_quarter` of its metrics."""

    asked: dict[str, dict[str, Any]]
    """Questions of an evaluation by id, each with its outputs and what is `measured` of them; empty for other runs."""

    summary: dict[str, float]
    """Of an evaluation."""


def side_by_side(first: Path | str, second: Path | str) -> list[Row]:
    """All that can be said of two runs of any stage, part after part; what no terminal should get is written out.

    Raises:
        Refusal: a folder is no run, or a damaged one; two evaluations share no question.
    """
    a, b = read(Path(first)), read(Path(second))
    found = [Row(part="run", what="folder", first=str(first), second=str(second))]
    for what, key, otherwise in (("stage", "stage", None), ("state", "exit", "not complete")):
        values = [run.manifest.get(key) or otherwise for run in (a, b)]
        found.append(Row(part="run", what=what, first=values[0], second=values[1]))
    found += [*_different(a.manifest, b.manifest), *_numbers("took", a.took, b.took)]
    if a.asked and b.asked:
        with readable(a.path / "samples.jsonl"):
            found += _evaluations(a, b)
    else:
        found += _numbers("summary", a.summary, b.summary)
    found += _numbers("last quarter", a.late, b.late)
    return [_plain(row) for row in found]


def read(folder: Path) -> Found:
    """What a run has kept so far; it may be going on."""
    if not (folder / "manifest.json").exists():
        inner = sorted({str(p.parent) for depth in ("*", "*/*") for p in folder.glob(f"{depth}/manifest.json")})
        way_out = f"give one of {', '.join(inner[:4])}" if inner else "give the folder of a run, such as one below out"
        raise Refusal(f"{folder} is no run (it has no manifest.json): {way_out}")
    manifest, file = read_json(folder / "manifest.json"), folder / "summary.json"
    if not isinstance(manifest, dict):
        raise Refusal(f"{folder}/manifest.json is damaged (no manifest in it): give the folder of another run")
    with readable(folder):
        samples, metrics = whole_lines(folder / "samples.jsonl"), whole_lines(folder / "metrics.jsonl")
        asked = {str(row["id"]): row for row in samples if "outputs" in row}
        for row in asked.values():
            row["measured"] = measured(row["outputs"])
        summary = last_quarter([read_json(file)] if file.exists() else [])
        return Found(folder, manifest, _took(manifest, metrics), last_quarter(metrics), asked, summary)


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may be growing; a newline alone ends one (models write other separators)."""
    if not file.exists():
        return []
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    with readable(file):
        return [json.loads(line) for line in whole.split(b"\n") if line]


def measured(outputs: Sequence[Mapping[str, Any]]) -> list[float]:
    """The `MEASURES` of the outputs to one question.

    >>> right = {"score": 1.0, "answer": "4", "verdict": "right", "length": 9, "truncated": False}
    >>> wrong = {"score": 0.0, "answer": "5", "verdict": "wrong", "length": 6, "truncated": True}
    >>> measured([wrong, right, right])
    [0.6666666666666666, 1.0, 8.0, 0.3333333333333333]
    """
    right_K = [output["verdict"] == "right" for output in outputs]
    return [
        estimators.pass_at_1([[output["score"] for output in outputs]]),
        estimators.cons_at_k([[output["answer"] for output in outputs]], [right_K]),
        *(float(np.mean([output[key] for output in outputs])) for key in ("length", "truncated")),
    ]


def last_quarter(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number over the last quarter of the lines that have it (not all lines have all keys).

    >>> last_quarter([{"a": 1.0}, {"a": 2.0, "b": 5.0}, {"a": 3.0}, {"a": 4.0}])
    {'a': 4.0, 'b': 5.0}
    """
    logged: dict[str, list[float]] = {}
    for line in lines:
        for key, value in line.items():
            if isinstance(value, int | float) and not isnan(value):
                logged.setdefault(key, []).append(value)
    return {key: float(np.mean(values[-max(1, len(values) // 4) :])) for key, values in logged.items()}


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Row]:
    """What the manifests say differently of what was asked, and of the machine; None where one says nothing."""
    a, b = dict(_flat(a)), dict(_flat(b))
    for what in dict.fromkeys([*a, *b]):
        if a.get(what) != b.get(what) and what.partition(".")[0] not in OUTCOME:
            yield Row(part="differs", what=what, first=a.get(what), second=b.get(what))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _took(manifest: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds, steps and tokens; tokens that a run in progress has not counted yet are added up."""
    took = {"wall_s": manifest["wall_s"]} if "wall_s" in manifest else {}
    if metrics:
        took["steps"] = max(line["step"] for line in metrics)
    tokens = manifest.get("tokens") or {
        kind: sum(line.get(f"tokens/{kind}", 0) for line in metrics) for kind in ("sampled", "trained")
    }
    took |= {f"tokens {kind}": count for kind, count in tokens.items() if count}
    if odd := [what for what, value in took.items() if not isinstance(value, int | float)]:
        raise TypeError(f"{odd[0]} is no number")
    return took


def _numbers(part: str, a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[Row]:
    """What both have, in the order of the glossary."""
    order = [*GLOSSARY, *a]
    for what in sorted((key for key in a if key in b and key not in NO_MEANS), key=order.index):
        yield Row(part=part, what=what, first=a[what], second=b[what], difference=b[what] - a[what])


def _evaluations(a: Found, b: Found) -> Iterator[Row]:
    """The measures over the questions that both were asked, in all, by family and by level; what changed most."""
    shared = [id for id in a.asked if id in b.asked]
    if not shared:
        raise Refusal(
            f"{a.path} and {b.path} share no question: compare evaluations with one evaluate.questions, split and seed"
        )
    yield Row(part="asked", what="questions", first=len(a.asked), second=len(b.asked))
    yield Row(part="asked", what="questions in both", first=len(shared), second=len(shared))
    samples = [sorted({len(run.asked[id]["outputs"]) for id in shared}) for run in (a, b)]
    yield Row(part="asked", what="outputs to each", first=_one(samples[0]), second=_one(samples[1]))
    for part, ids in _strata(a, shared):
        yield from paired(part, [a.asked[id]["measured"] for id in ids], [b.asked[id]["measured"] for id in ids])
    pairs = {id: (a.asked[id]["measured"][0], b.asked[id]["measured"][0]) for id in shared}
    changed = [id for id, (first, second) in pairs.items() if first != second]
    for id in sorted(changed, key=lambda id: (-round(abs(pairs[id][1] - pairs[id][0]), 9), id))[:MOST_CHANGED]:
        first, second = pairs[id]
        what = f"{id} {a.asked[id].get('question', '')}".strip()
        yield Row(part="changed most", what=what, first=first, second=second, difference=second - first)


def _one(counts: list[int]) -> int | str:
    return counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _strata(run: Found, ids: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Names and questions: all of them, each family where there are several, each level of a family."""
    yield "all questions", list(ids)
    kinds = {id: (str(run.asked[id].get("family", "")), run.asked[id].get("level")) for id in ids}
    families = sorted({family for family, _ in kinds.values()})
    for family in families:
        if len(families) > 1:
            yield family, [id for id in ids if kinds[id][0] == family]
        levels = sorted({level for name, level in kinds.values() if name == family and level is not None})
        for level in levels if len(levels) > 1 else []:
            name = f"{family}, level {level}" if len(families) > 1 else f"level {level}"
            yield name, [id for id in ids if kinds[id] == (family, level)]


def paired(part: str, first_QM: Sequence[Sequence[float]], second_QM: Sequence[Sequence[float]]) -> list[Row]:
    """The `MEASURES` of both runs and their difference, with the interval of a bootstrap over questions.

    A question is drawn for both runs at once, so what makes it hard for both takes no part in the doubt.  One question
    alone has no interval.
    """
    table_QM = np.hstack([np.asarray(first_QM, dtype=float), np.asarray(second_QM, dtype=float)])
    size, means_M = len(MEASURES), table_QM.mean(axis=0)
    ends = [(None, None)] * size
    if len(table_QM) > 1:
        interval = estimators.bootstrap([table_QM], lambda means_BM: means_BM[:, size:] - means_BM[:, :size])
        ends = list(zip(map(float, interval.low), map(float, interval.high), strict=True))
    pairs = zip(MEASURES, means_M[:size].tolist(), means_M[size:].tolist(), ends, strict=True)
    return [
        Row(part=part, what=what, first=first, second=second, difference=second - first, low=low, high=high,
            questions=len(table_QM))
        for what, first, second, (low, high) in pairs
    ]  # fmt: skip


# What a terminal shows

HEADINGS = {
    "summary": "summary (no interval: one of them has no samples)",
    "all questions": "all questions in both, with the 95 % interval of the difference",
    "last quarter": "last quarter of metrics.jsonl, means (no interval: one run of each)",
    "changed most": "changed most, pass@1",
}
WIDEST = 30
"""Characters of a value that stands beside the other; a longer one gets a line of its own."""


def lines(found: Sequence[Row]) -> Iterator[str]:
    """The rows as text.  Families and levels show pass@1 alone; `show.compare` has their other measures."""
    yield from _columns([row for row in found if row.part == "run"])
    if not any(row.part == "differs" for row in found):
        yield from ("", "differs", "  nothing that the manifests hold")
    strata = [row for row in found if row.questions and row.part != "all questions"]
    for part, group in groupby((row for row in found if row.part != "run" and row not in strata), lambda row: row.part):
        yield from ("", HEADINGS.get(part, part))
        yield from _columns(list(group))
        if part == "all questions" and strata:
            yield from ("", "pass@1 by family and level")
            yield from _columns([row for row in strata if row.what == MEASURES[0]], name=lambda row: row.part)
    if not any(row.part in ("all questions", "summary", "last quarter") for row in found):
        yield from ("", "nothing was measured in both")


def _columns(group: Sequence[Row], name=lambda row: row.what) -> Iterator[str]:
    table = []
    for row in group:
        ends = "" if row.low is None else f"[{_said(row, row.low, '+')}, {_said(row, row.high, '+')}]"
        change = "" if row.difference is None else _said(row, row.difference, "+")
        count = "" if row.questions is None else f"n={row.questions:,}"
        cells = [_said(row, row.first), _said(row, row.second), change, ends, count]
        table.append([*cells[:3], name(row)] if row.part == "changed most" else [name(row), *cells])
    short = [cells for cells in table if max(map(len, cells[1:3])) <= WIDEST]
    widths = [max(map(len, column)) for column in zip(*short, strict=True)]
    for cells in table:
        if cells in short:
            yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        else:
            yield from (f"  {cells[0]}", f"    {cells[1]}", f"    {cells[2]}")


def _said(row: Row, value: Any, sign: str = "") -> str:
    """A value as text: shares to three places, lengths to one, means to four digits, hashes by their first twelve."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return _visible(text[:12] if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) else text)
    if row.part == "differs":
        return str(value)
    if row.part == "changed most" or row.questions:
        return f"{value:{sign},.1f}" if row.what == "length" else f"{value:{sign}.3f}"
    form = ",.4g" if abs(value) < 1000 and not isinstance(value, int) else ",.0f"
    return f"{value:{sign}{form}}"


def _plain(row: Row) -> Row:
    texts = {key: getattr(row, key) for key in ("part", "what", "first", "second")}
    return replace(row, **{key: _visible(text) for key, text in texts.items() if isinstance(text, str)})


def _visible(text: str) -> str:
    """On one line, with what is no printable character written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
