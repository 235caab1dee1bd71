"""Whole programs that read input and write output: LiveCodeBench, Codeforces and CodeContests, run in the sandbox.

Where the paper is silent:
    Which block of an output runs.  For LiveCodeBench the first of Python; so for all of them.
    How outputs are compared: by lines, without the spaces at their ends.
    Time and memory of a program: `CONTEST`.
"""

import base64
import binascii
import datetime
import json
import pickletools
import re
import zlib
from pathlib import Path
from typing import Any

from r1repro.evals import codeforces, files, harness
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.evals.harness import lacking, score
from r1repro.records import Refusal, Score
from r1repro.rewards import code, sandbox
from r1repro.rewards.sandbox import Limits

CONTEST = Limits(cpu_s=10, wall_s=15.0, memory_bytes=1 << 30)
"""Ours, for each test: contests allow from 1 to 10 s and mostly 256 MiB, to faster languages than Python."""

WINDOW = ("2024-08-01", "2025-01-31")
"""Days of LiveCodeBench in the paper, both included (section 3, "Evaluation Benchmarks")."""


def load_contests(folder: Path) -> list[Item]:
    """Rows with a ``problem`` and ``tests``: {"inputs": [...], "outputs": [...]}, or a list of {"input", "output"}."""
    items, seen = [], set()
    for record in files.records(folder, prefer=("test",)):
        problem = files.text_of(record, "problem", "question", "description")
        items.append(
            Item(
                id=files.distinct(str(record.row.get("id") or files.hashed(problem)), seen),
                prompt=_asked_program(problem),
                gold=_pairs(record),
                more={"language": "python"},
            )
        )
    return items


def load_codeforces(folder: Path) -> list[Item]:
    """Rows as `load_contests` wants them, with ``contest_id`` and ``index`` too; beside them the results of the
    contests as the public interface of Codeforces gives them (`codeforces.results`)."""
    items, seen = [], set()
    for record in files.records(folder):
        if "result" in record.row and "status" in record.row:
            continue  # a contest's results
        problem = files.text_of(record, "problem", "description", "question")
        parts = [problem, *(str(record.row[n]) for n in ("input_format", "output_format") if record.row.get(n))]
        contest, index = files.text_of(record, "contest_id"), files.text_of(record, "index")
        items.append(
            Item(
                id=files.distinct(f"{contest}{index}", seen),
                prompt=_asked_program("\n\n".join(parts)),
                gold=_pairs(record),
                group=contest,
                more={"language": "python", "contest": contest, "index": index, "folder": str(folder)},
            )
        )
    return items


def _asked_program(problem: str) -> str:
    return (
        f"{problem.strip()}\n\nSolve this in Python. The program reads its input from stdin and writes its output to "
        "stdout. Give it in one ```python block."
    )


def _pairs(record: files.Record) -> dict[str, list[str]]:
    tests = record.row.get("tests") or record.row.get("official_tests")
    if isinstance(tests, str):
        tests = _json(tests, record, "tests")
    if isinstance(tests, list) and all(isinstance(t, dict) for t in tests):
        tests = {"inputs": [t.get("input") for t in tests], "outputs": [t.get("output") for t in tests]}
    ins, outs = (tests.get("inputs"), tests.get("outputs")) if isinstance(tests, dict) else (None, None)
    good = isinstance(ins, list) and isinstance(outs, list) and len(ins) == len(outs) > 0
    if not good or not all(isinstance(text, str) for text in [*ins, *outs]):
        raise Refusal(f'{record.where}: no tests: give {{"inputs": [...], "outputs": [...]}} of as many texts')
    return {"inputs": ins, "outputs": outs}


def _json(text: str, record: files.Record, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refusal(f"{record.where}: {name} is no JSON ({' '.join(str(error).split())[:80]}): mend it") from error


def grade_program(item: Item, text: str) -> Score:
    """Whether the first block of Python (LiveCodeBench's protocol) passes every test of its problem."""
    if why := sandbox.refusal():
        return score({"verdict": "error", "reason": why})
    found = code.blocks(text, harness.PYTHON)
    program = found[0] if found else code.program_of(text)
    tests = item.more.get("script") or json.dumps(item.gold)
    return score(code.grade(program, tests, CONTEST))


# --- LiveCodeBench


def live_code_bench(first: str, last: str, name: str = "") -> Benchmark:
    """LiveCodeBench of the problems of some days, both included, as YYYY-MM-DD.

    Raises:
        Refusal: what is no day, or a last day before the first.
    """
    days = [_day(text, "give a day as YYYY-MM-DD") for text in (first, last)]
    if days[0] > days[1]:
        raise Refusal(f"{first} to {last} holds no day: give the earlier one first")
    return Benchmark(
        name=name or f"LiveCodeBench ({first} to {last})",
        folder="livecodebench",
        load=lambda folder: load_live_code_bench(folder, days[0], days[1]),
        grade=grade_program,
        hub="livecodebench/code_generation_lite",
        files="test[45].jsonl" if (first, last) == WINDOW else "test*.jsonl",  # releases are cumulative: v4, v5
        k=8,
        metric="pass@1",
        licence="cc (card); statements of LeetCode, AtCoder and Codeforces",
        lacking=lacking,
        note="the paper's items are about 112 of these months, its list is not published; release_v5 has more of them",
    )


def by_name(name: str) -> Benchmark | None:
    """LiveCodeBench of a window that a name gives, or None where it is another name.

    >>> by_name("LiveCodeBench 2024-05-01 to 2024-07-31").name
    'LiveCodeBench (2024-05-01 to 2024-07-31)'
    >>> by_name("LiveCodeBench (2024-08 to 2025-01)") is None
    True
    """
    found = re.fullmatch(
        r"live\s*code\s*bench\W*(\d{4}-\d\d-\d\d)\W+(?:to\W+)?(\d{4}-\d\d-\d\d)\W*", name, re.IGNORECASE
    )
    return live_code_bench(found[1], found[2]) if found else None


def _day(text: str, way_out: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text[:10])
    except ValueError as error:
        raise Refusal(f"{text[:40]!r} is no day: {way_out}") from error


def load_live_code_bench(folder: Path, first: datetime.date, last: datetime.date) -> list[Item]:
    """Rows of the data set's own files whose ``contest_date`` lies in the window.

    Raises:
        Refusal: a row without date or tests, or no problem of these days.
    """
    items, seen, dates = [], set(), []
    for record in files.records(folder):
        day = _day(files.text_of(record, "contest_date"), f"mend contest_date in {record.where}")
        dates.append(day)
        if not first <= day <= last:
            continue
        tests = [*_cases(record, "public_test_cases"), *_cases(record, "private_test_cases")]
        question, start = files.text_of(record, "question_content"), str(record.row.get("starter_code") or "").strip()
        more: dict[str, Any] = {"language": "python", "date": day.isoformat()}
        gold = None
        if any(test.get("testtype") == "functional" for test in tests):
            told = record.row.get("metadata")
            function = (_json(told, record, "metadata") if isinstance(told, str) else told or {}).get("func_name")
            more["script"] = _script(tests, function, record)
        else:
            gold = {"inputs": [t["input"] for t in tests], "outputs": [t["output"] for t in tests]}
        items.append(
            Item(
                id=files.distinct(files.text_of(record, "question_id"), seen),
                prompt=_asked_start(question, start) if start else _asked_program(question),
                gold=gold,
                group=str(record.row.get("difficulty") or ""),
                more=more,
            )
        )
    if not items:
        there = f"its {len(dates)} problems are of {min(dates)} to {max(dates)}" if dates else "it holds no problem"
        raise Refusal(f"{folder}: no problem of {first} to {last}; {there}: add the release that has those days")
    return items


def _asked_start(question: str, start: str) -> str:
    return (
        f"{question.strip()}\n\nSolve this in Python, beginning with this code; nothing is read from stdin.\n\n"
        f"```python\n{start}\n```\n\nGive the whole program in one ```python block."
    )


def _cases(record: files.Record, name: str) -> list[dict[str, Any]]:
    """The tests of a field: JSON, or JSON that was pickled, packed and written in base 64."""
    given = record.row.get(name) or "[]"
    if isinstance(given, str):
        given = given if given.lstrip().startswith("[") else _unpacked(given, f"{record.where}: {name}")
        given = _json(given, record, name)
    if not isinstance(given, list) or not all(isinstance(t, dict) and {"input", "output"} <= t.keys() for t in given):
        raise Refusal(f"{record.where}: {name} is no list of tests with input and output: take the file of its makers")
    return given


_ONE_TEXT = {
    "PROTO",
    "FRAME",
    "MEMOIZE",
    "BINPUT",
    "LONG_BINPUT",
    "STOP",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
}
UNPACKED_BYTES = 1 << 30


def _unpacked(text: str, what: str) -> str:
    """The one text that a pickle holds.  It is read, never run: any other content is refused."""
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text, validate=True), UNPACKED_BYTES)
        if packed.unconsumed_tail:
            raise ValueError(f"more than {UNPACKED_BYTES} bytes")
        steps = list(pickletools.genops(data))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise Refusal(
            f"{what} cannot be unpacked ({' '.join(str(error).split())[:80]}): take its makers' file"
        ) from error
    others = sorted({step.name for step, _, _ in steps} - _ONE_TEXT)
    texts = [value for step, value, _ in steps if "UNICODE" in step.name]
    if others or len(texts) != 1:
        raise Refusal(f"{what} is a pickle of more than one text ({', '.join(others) or len(texts)}), which is not run")
    return texts[0]


def _script(tests: list[dict[str, Any]], function: str | None, record: files.Record) -> str:
    """Tests of a method of class Solution: arguments are JSON, a line each; a tuple counts as a list."""
    if not function or not str(function).isidentifier():
        raise Refusal(f"{record.where}: metadata names no func_name: take the file of its makers")
    lines = [
        "def plain(x):",
        "    if isinstance(x, (list, tuple)):",
        "        return [plain(y) for y in x]",
        "    return {k: plain(v) for k, v in x.items()} if isinstance(x, dict) else x",
    ]
    for test in tests:
        given = [_json(line, record, "input") for line in test["input"].split("\n") if line.strip()]
        wanted = _json(test["output"], record, "output")
        lines.append(f"assert plain(Solution().{function}(*{given!r})) == {wanted!r}")
    return "\n".join(lines) + "\n"


BENCHMARKS = (
    live_code_bench(*WINDOW, name="LiveCodeBench (2024-08 to 2025-01)"),
    Benchmark(
        name="Codeforces", folder="codeforces", load=load_codeforces, grade=grade_program, lacking=lacking, k=16,
        metric="rating; percentile", summarise=codeforces.summarise, hub="open-r1/codeforces", licence="ODC-By 4.0",
        note="the paper's 10 contests, their tests and the formula of its expected rating are not published",
    ),
    Benchmark(
        name="CodeContests", folder="code_contests", load=load_contests, grade=grade_program, lacking=lacking, k=16,
        hub="deepmind/code_contests", licence="CC BY 4.0",
        note="not in the paper: contest problems with tests that anybody can have. Outputs are compared by lines, so a "
        "problem with several right outputs is judged too strictly",
    ),
)  # fmt: skip
