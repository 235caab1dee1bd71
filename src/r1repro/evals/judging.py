"""Judging outputs that are there: of an evaluation's run, or in the form of a benchmark's own tools.

verdicts.jsonl     one line an output: id, sample, verdict, score, final summary, what the protocol keeps
summary.json       the numbers, who judged in whose words, tokens as the server counted them, the environment
annotations.json   of AlpacaEval, model_judgment.jsonl of Arena-Hard: the same verdicts for the makers' tools
judge.jsonl        what the judge answered, by the content of the request
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1repro.config import data_folder
from r1repro.engine import remote
from r1repro.evals import catalogue, facts, judge, preference
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.evals.judge import Judge, Verdict
from r1repro.records import Refusal
from r1repro.run import environment, now, sha256_file, writable, write_json, write_text

BENCHMARKS = (*preference.BENCHMARKS, *facts.BENCHMARKS)
FOLDER = "judged"
"""Below the run of an evaluation, whose table then shows the verdicts."""

TEXT = ("output", "text", "response", "prediction")
NAMES = ("id", "question_id")
QUESTION = ("question", "instruction", "problem", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be judged."""

    benchmark: Benchmark
    folder: Path
    """Of the benchmark's data."""

    source: Path
    model: str
    """Whose outputs these are; as the file says it, else the name of the file."""

    items: list[Item]
    """Those that have outputs, in the benchmark's order."""

    outputs_QK: list[list[str]]
    verdicts: list[Verdict] | None
    """Those of a file that holds verdicts already; None: a judge is needed."""

    num_items: int
    """Of the whole benchmark."""


def named(name: str) -> Benchmark:
    """The judged benchmark of a name, whatever its capitals, spaces and dots, or of its folder's.

    >>> named("alpacaeval 2.0").name, named("c_simpleqa").name
    ('AlpacaEval 2.0', 'C-SimpleQA')
    """
    for one in BENCHMARKS:
        if _plain(name) in (_plain(one.name), _plain(one.folder)):
            return one
    raise Refusal(f"no judge is needed for {name!r}: choose one of {', '.join(one.name for one in BENCHMARKS)}")


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def prepare(name: str, source: Path | str) -> Task:
    """Read outputs and match them with the items of a benchmark, by id or by question.

    Args:
        source: ``samples.jsonl`` of an evaluation, or its folder; or rows, as JSON lines or one list, gzipped or not,
            with an ``id`` or a question and an ``output``; or AlpacaEval's ``model_outputs.json`` or
            ``annotations.json``, or Arena-Hard's ``model_answer`` or ``model_judgment`` file.

    Raises:
        Refusal: nothing there; a row that belongs to no item, holds no output, or comes twice.
    """
    benchmark = named(name)
    folder, source = data_folder() / benchmark.folder, Path(source)
    file = source / "samples.jsonl" if source.is_dir() else source
    items = catalogue.items_of(benchmark)
    by_name = {item.more["question"]: item for item in items} | {item.id: item for item in items}
    outputs: dict[str, list[str]] = {}
    verdicts: dict[str, list[Verdict | None]] = {}
    model = ""
    for where, row in _rows(file):
        item = next((by_name[row[key]] for key in (*NAMES, *QUESTION) if row.get(key) in by_name), None)
        if item is None:
            raise Refusal(f"{where} is no question of {benchmark.name}: give the outputs to that benchmark")
        if item.id in outputs:
            raise Refusal(f"{where} answers question {item.id} again: give a file with one row a question")
        verdict = benchmark.protocol.read(item, row)
        outputs[item.id] = _outputs(row, where, judged=verdict is not None)
        verdicts[item.id] = [verdict]
        model = model or next(
            (str(row[key]) for key in ("generator_2", "generator", "model_id", "model") if key in row), ""
        )
    if not outputs:
        raise Refusal(f"{file} holds no row: give the samples of an evaluation")
    chosen = [item for item in items if item.id in outputs]
    flat = [verdict for item in chosen for verdict in verdicts[item.id]]
    if any(flat) and not all(flat):
        raise Refusal(f"some rows of {file} hold verdicts and some do not: give one file of each kind")
    return Task(
        benchmark=benchmark, folder=folder, source=file, model=model or source.name.partition(".")[0], items=chosen,
        outputs_QK=[outputs[item.id] for item in chosen], verdicts=flat if all(flat) else None, num_items=len(items),
    )  # fmt: skip


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise Refusal(f"no {file}: give the samples.jsonl of an evaluation, or its folder") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read ({error}): give JSON lines, or a list of JSON, in UTF-8") from error
    whole = text.lstrip().startswith("[")
    parts = [(f"{file}", text)] if whole else [(f"{file}, line {n}", t) for n, t in enumerate(text.split("\n"), 1)]
    for where, part in parts:
        if not part.strip():
            continue
        try:
            found = json.loads(part)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"{where}: no JSON ({error}): mend it") from error
        for number, row in enumerate(found if whole else [found], 1):
            place = f"{where}, entry {number}" if whole else where
            if not isinstance(row, dict):
                raise Refusal(f"{place}: {type(row).__name__} where an object should be: mend it")
            yield place, row


def _outputs(row: Mapping[str, Any], where: str, judged: bool) -> list[str]:
    """The outputs of a row, thinking and all."""
    try:
        if judged:  # annotations hold what was judged; judgements hold no output
            found = [row.get("output_2") or ""]
        elif "outputs" in row:
            found = [one if isinstance(one, str) else one["text"] for one in row["outputs"]]
        elif "choices" in row:
            found = [preference.arena_answer(row)]
        else:
            found = [next(row[name] for name in TEXT if name in row)]
    except (StopIteration, LookupError, TypeError) as error:
        raise Refusal(f"{where} holds no output: give a field output, or outputs with a text each") from error
    if not found or not all(isinstance(text, str) for text in found):
        raise Refusal(f"{where}: an output is no text: mend it")
    return found


def forecast(task: Task, by: Judge) -> judge.Forecast:
    """What a judge will be asked, for the costs."""
    return by.forecast(judge.requests(task.benchmark, task.folder, task.items, task.outputs_QK))


def run(task: Task, out: Path | str, by: Judge | None = None) -> dict[str, Any]:
    """Have the outputs judged, or take the verdicts that are there; write the files above and return the summary.

    The same call goes on where an earlier one stopped, and asks nothing when all is answered.
    """
    out = Path(out)
    writable(out)
    if task.verdicts is not None:
        done = judge.collected(task.benchmark, task.folder, task.items, task.outputs_QK, task.verdicts)
        judged_by: dict[str, Any] = {"judge": None, "verdicts": f"those in {task.source.name}"}
    elif by is None:
        raise Refusal(f"{task.source} holds no verdicts: give --url and --model of a judge")
    else:
        done = judge.judged(task.benchmark, task.folder, task.items, task.outputs_QK, by)
        judged_by = {
            "judge": by.model, "url": remote.bare(by.url), "wording": judge.whose_wording(task.folder), **by.spent(),
        }  # fmt: skip
    results = json.loads(json.dumps(done.summary))  # as it will be read
    summary = {
        "benchmark": task.benchmark.name, "model": task.model, "items": len(task.items), "of": task.num_items,
        "results": results, "metrics": _metrics(task.benchmark, results), **judged_by,
        "source": sha256_file(task.source), "ended": now(), **environment(),
    }  # fmt: skip
    write_text(out / "verdicts.jsonl", "".join(json.dumps(row) + "\n" for row in done.rows))
    protocol = task.benchmark.protocol
    if protocol.write and by is not None and task.verdicts is None:
        names = {"model": task.model, "judge": by.model}
        write_text(out / protocol.own, protocol.write(task.items, done.rows, names))
    write_json(out / "summary.json", summary)
    return summary


def _metrics(benchmark: Benchmark, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline and its interval, as the table of an evaluation has them."""
    value, interval = results[benchmark.protocol.headline], results["interval"]
    bounds = {"low": interval[0], "high": interval[1]} if value is not None and interval else {}
    return [{"name": benchmark.metric, "value": value, **bounds}]


def lines(benchmark: Benchmark, summary: Mapping[str, Any], beside: str = "DeepSeek-R1") -> list[str]:
    """The summary for a person, the paper's number for a model beside it."""
    headline, results = benchmark.protocol.headline, summary["results"]
    number = catalogue.published(benchmark.name, beside)
    made = [f"{benchmark.name}: {summary['items']} of {summary['of']} questions, outputs of {summary['model']}"]
    for name in (
        headline,
        *(name for name, value in results.items() if name != headline and not isinstance(value, str)),
    ):
        paper = f"   ({number.value:g} % is the paper's number for {beside})" if name == headline and number else ""
        made.append(f"  {name.replace('_', ' '):27} {_number(name, results[name])}{paper}")
    return made + [f"  {name.replace('_', ' ')}: {value}" for name, value in results.items() if isinstance(value, str)]


def _number(name: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, Sequence):
        return " to ".join(f"{100 * float(one):.2f}" for one in value) + " %"
    return f"{value:,.0f}" if name == "length" or isinstance(value, int) else f"{100 * float(value):.2f} %"
