"""`python -m r1repro grade`: a file of cases in, the same cases with their verdicts out, case after case.

A case is a line of JSON with `id`, `kind` (`rewards.kinds.KINDS`), `gold`, `response_or_prediction` and, where the kind
wants it, `question`; other fields are handed through.  A verdict adds `verdict`, `score`, `reason` and `wall_s`.
"""

import collections
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from r1repro.records import VERDICTS, Refusal
from r1repro.rewards import kinds
from r1repro.run import append_lines, drop_torn_line, read_lines, readable

CHUNK = 64
"""Cases that are graded side by side and then written; what is written survives a kill."""


def grade_file(source: Path, target: Path) -> Path:
    """Grade the cases of a file, or go on where an earlier call was stopped, or return at once when all are done.

    Errors: `Refusal` names the line of a case that cannot be read; the verdicts before it are kept.
    """
    if not source.is_file():
        raise Refusal(f"no cases at {source}: name a file with a case a line")
    if source.resolve() == target.resolve():
        raise Refusal(f"{target} is the file of the cases: name another for the verdicts")
    target.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(target)
    done = read_lines(target) if target.exists() else []
    with readable(source), open(source, "rb") as lines:
        total = sum(1 for line in lines if line.strip())
    rows = _cases(source)
    for earlier, case in zip(done, rows, strict=False):
        if earlier.get("id") != case["id"]:
            raise Refusal(
                f"{target} has verdicts on other cases ({earlier.get('id')!r} where {source} has {case['id']!r}): "
                "remove it, or name another file"
            )
    if len(done) > total:
        raise Refusal(
            f"{target} has {len(done)} verdicts, {source} only {total} cases: remove it, or name another file"
        )
    bar = tqdm(total=total, initial=len(done), desc="grading", unit="case", disable=len(done) == total)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for chunk in _whole_chunks(islice(_cases(source), len(done), None)):
            append_lines(target, pool.map(_graded, chunk))
            bar.update(len(chunk))
    return target


def _whole_chunks(cases: Iterator[dict]) -> Iterator[list[dict]]:
    """Chunks of cases; where one cannot be read, those before it come first."""
    chunk: list[dict] = []
    try:
        for case in cases:
            chunk.append(case)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    except Refusal:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _cases(source: Path) -> Iterator[dict[str, Any]]:
    with readable(source), open(source, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _case(line, f"{source}, line {number}")


def _case(line: str, where: str) -> dict[str, Any]:
    try:
        case = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{where}: no JSON ({error}): mend the line") from error
    if not isinstance(case, dict):
        raise Refusal(f"{where}: {type(case).__name__} where an object should be: mend the line")
    for name, kind in (("id", str), ("kind", str), ("response_or_prediction", str)):
        if not isinstance(case.get(name), kind):
            raise Refusal(
                f"{where}: {name!r} is {case.get(name)!r}, no text: give each case an id, a kind and a response"
            )
    if case["kind"] not in kinds.KINDS:
        raise Refusal(f"{where}: kind {case['kind']!r} is not known: choose of {', '.join(kinds.KINDS)}")
    if not case["kind"].startswith("format") and not isinstance(case.get("gold"), str):
        raise Refusal(f"{where}: 'gold' is {case.get('gold')!r}, no text: kind {case['kind']!r} needs a reference")
    if not isinstance(case.get("question") or "", str):
        raise Refusal(f"{where}: 'question' is no text: give text, or leave it out")
    return case


def _graded(case: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    found = kinds.grade(case["kind"], case.get("gold"), case["response_or_prediction"], case.get("question") or "")
    return case | found | {"wall_s": round(time.perf_counter() - began, 4)}


def summary(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines for a person: verdicts; where cases say what is `expected`, agreement by tier and each disagreement."""
    rows = list(rows)
    counts = collections.Counter(row["verdict"] for row in rows)
    yield f"{len(rows)} cases: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    if rows:
        slowest = max(rows, key=lambda row: row["wall_s"])
        yield f"the slowest took {slowest['wall_s']:.2f} s ({slowest['id']})"
    told = [row for row in rows if isinstance(row.get("expected"), bool)]
    tiers = sorted({str(row.get("tier", "all")) for row in told})
    for tier in tiers:
        same = [(row["verdict"] == "right") == row["expected"] for row in told if str(row.get("tier", "all")) == tier]
        yield f"{tier}: {sum(same)} of {len(same)} as expected ({sum(same) / len(same):.1%})"
    for row in told:
        if (row["verdict"] == "right") != row["expected"]:
            wanted = "right" if row["expected"] else "not right"
            yield f"  {row['id']} ({row.get('tier', 'all')}): {row['verdict']}, expected {wanted}: {row['reason']}"
