"""Which questions of a benchmark does a training set hold?  By runs of ten words, as the filter of v2 D.1.

A paraphrase is not found, and the paper says so of its own filter; nor is a question of fewer than ten words.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from r1repro import rows
from r1repro.data import RUN_WORDS
from r1repro.evals import catalogue, files
from r1repro.evals.benchmark import Item
from r1repro.records import Refusal
from r1repro.run import write_text

MOST = 0.5
"""Share of a question's runs in one row from which on it is more than a phrase.  Ours: the paper's filter, which drops
whatever shares one run, has no such number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `check` found."""

    benchmark: str
    items: int
    short: int
    """Questions of fewer words than a run, which cannot be found."""

    rows: int
    """Of the training set."""

    found: dict[str, dict[int, float]]
    """Id of a question -> number of a row that shares a run with it, from 1 -> the share of the question's runs that
    the row has: 1 is the whole question, little a phrase in common."""

    def line(self) -> str:
        """For a person."""
        share = len(self.found) / self.items if self.items else 0.0
        lines = len({number for numbers in self.found.values() for number in numbers})
        most = sum(max(numbers.values()) >= MOST for numbers in self.found.values())
        return (
            f"{self.benchmark}: {len(self.found)} of {self.items} questions ({share:.1%}) share {RUN_WORDS} words in a "
            f"row with {lines} of {self.rows} rows, {most} of them at least half of their text with one row; "
            f"{self.short} are too short to tell"
        )


def check(train: Path, names: Sequence[str]) -> list[Report]:
    """Search a training set for the questions of some benchmarks.

    Args:
        train: a file of rows (JSON lines, JSON, CSV, Parquet, also packed), or a folder of such; all texts of a row
            count, questions and outputs alike.

    Where the paper is silent:
        What of a prompt is compared.  The question alone: what the protocol says around it, and runs that more than a
        tenth of a benchmark's questions share (headings, forms), are left out.

    Raises:
        Refusal: no such file or benchmark, or rows that cannot be read.
    """
    wanted = {benchmark.name: catalogue.items_of(benchmark) for benchmark in map(catalogue.named, names)}
    known = {name: _index(items) for name, items in wanted.items()}
    found: dict[str, dict[str, dict[int, float]]] = {name: defaultdict(dict) for name in wanted}
    sizes = {name: {i.id: len(rows.runs(_question(i), RUN_WORDS)) for i in items} for name, items in wanted.items()}
    count = 0
    for count, row in enumerate(tqdm(_rows(train), desc="searching", unit="row"), 1):
        seen = {hash(run) for text in _texts(row) for run in rows.runs(text, RUN_WORDS)}
        for name, index in known.items():
            for id, shared in Counter(id for run in seen & index.keys() for id in index[run]).items():
                found[name][id][count] = round(shared / sizes[name][id], 3)
    if not count:
        raise Refusal(f"{train} holds no row: give a file of rows, such as JSON lines")
    return [
        Report(
            benchmark=name,
            items=len(items),
            short=sum(1 for size in sizes[name].values() if not size),
            rows=count,
            found={item.id: found[name][item.id] for item in items if item.id in found[name]},
        )
        for name, items in wanted.items()
    ]


def _index(items: Sequence[Item]) -> dict[int, list[str]]:
    """Hash of a run -> ids of the questions that have it, but for runs that many have."""
    index: dict[int, list[str]] = defaultdict(list)
    for item in items:
        for run in rows.runs(_question(item), RUN_WORDS):
            index[hash(run)].append(item.id)
    most = max(3, len(items) // 10)
    return {run: ids for run, ids in index.items() if len(ids) <= most}


def _question(item: Item) -> str:
    return str(item.more.get("question", item.prompt))


def _rows(train: Path) -> Iterator[dict[str, Any]]:
    if not train.exists():
        raise Refusal(f"no training set at {train}: give a file or folder of rows")
    yield from (record.row for record in files.records(train))


def _texts(value: Any) -> Iterator[str]:
    """All texts in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def save(reports: Sequence[Report], target: Path) -> None:
    """One line a question that was found: benchmark, id, and the rows, each with the share of the question it has."""
    lines = [
        json.dumps({"benchmark": report.benchmark, "id": id, "rows": numbers}, ensure_ascii=False) + "\n"
        for report in reports
        for id, numbers in report.found.items()
    ]
    write_text(target, "".join(lines))
