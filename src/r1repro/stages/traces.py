"""Examples of other makers, read one after another: a question and an output of each row, whatever its columns' names.

    {"question", "output"}                                      ours
    {"problem" | ..., "solution" | ...}                         see `QUESTIONS` and `OUTPUTS`
    {"problem", "generations": [...], "correctness_...": [...]} the first that is marked right, or the first of all
    {"messages": [{"role", "content"}]}                         and {"conversations": [{"from", "value"}]}

A set of examples is a JSONL file, a Parquet file, or a folder of such shards.  Nothing is ever held but a few rows.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1repro.records import Refusal
from r1repro.run import sha256_file

QUESTIONS = ("question", "problem", "prompt", "instruction")
OUTPUTS = ("output", "generation", "generated_solution", "response", "solution", "answer")
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names of columns, the first that holds text counts: what a model wrote comes before what a book says."""

TURNS = ("messages", "conversations")
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
KINDS = (".jsonl", ".parquet")
ROWS_AT_ONCE = 64
"""Of a Parquet file."""

_MARKED = re.compile(r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>(.*)", re.DOTALL)
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a set of examples."""

    file: Path
    size: int
    """Bytes."""

    def rows(self, skip: int = 0) -> Iterator[tuple[int, dict[str, Any], int]]:
        """(number from 1 up, row, bytes) of each row after the first ``skip``.

        Raises:
            Refusal: a row that is none, by its file and number; a file that cannot be read.
        """
        return _parquet_rows(self, skip) if self.file.suffix == ".parquet" else _jsonl_rows(self, skip)

    def place(self, number: int) -> str:
        """How a person finds a row."""
        return f"{self.file}, {'row' if self.file.suffix == '.parquet' else 'line'} {number}"


def shards(source: Path | str) -> list[Shard]:
    """The files of a set of examples, by name: a file, or those that lie in a folder (not deeper).

    Raises:
        Refusal: nothing there, or nothing that holds examples.
    """
    source = Path(source)
    if not source.exists():
        raise Refusal(
            f"no examples at {source}: run the stage that collects them, or name a JSONL or Parquet file, or a folder"
        )
    if source.is_file():
        files = [source]
    elif not (files := sorted(f for f in source.iterdir() if f.suffix in KINDS and f.is_file())):
        deeper = sorted({str(f.parent) for f in source.rglob("*") if f.suffix in KINDS})
        raise Refusal(
            f"{source} holds no .jsonl or .parquet file: give "
            + (f"one of {', '.join(deeper[:5])}" if deeper else "a folder that does")
        )
    return [Shard(file, file.stat().st_size) for file in files]


def digest(files: Sequence[Shard]) -> str:
    """SHA-256 of a set of examples: of the file itself where it is one, else of the names and bytes of all."""
    if len(files) == 1:
        return sha256_file(files[0].file)
    lines = [f"{shard.file.name}:{sha256_file(shard.file)}\n" for shard in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def example(row: Mapping[str, Any], place: str = "a row") -> tuple[str, str] | str:
    """(question, output) of a row, or why it is none to learn from although it is well formed.

    Reasoning that stands in a column of its own, or between other marks, is put between think tags before the answer.
    Of a talk the first question and the first output are taken, its system message and all that follows are not.

    Args:
        place: where it stands, for the line that refuses it.

    Where the paper is silent:
        In which form the students were given the reasoning.  That of the released students' template is used:
        ``<think>``, a line, the reasoning, a line, ``</think>``, an empty line, the answer.

    Raises:
        Refusal: no question or no output in it.

    >>> example({"problem": "1 + 1?", "generations": ["3", "<think>...</think> 2"], "correctness_x": [False, True]})
    ('1 + 1?', '<think>...</think> 2')
    >>> example({"question": "1 + 1?", "output": "2", "reasoning": "One more than 1."})[1]
    '<think>\\nOne more than 1.\\n</think>\\n\\n2'
    >>> example({"problem": "1 + 1?", "generations": ["3"], "correctness_x": [False]})
    'no right output'
    """
    if row.get("finish_reason") == "length":
        return "cut at the cap"
    if isinstance(row.get("question"), str) and isinstance(row.get("output"), str):
        return row["question"], joined(row["output"], _text_of(row, REASONING))
    if isinstance(row.get("generations"), list):
        said = _generated(row)
        if said is None:
            return "no right output"
        found = asked(row), said, None
    elif turns := next((row[name] for name in TURNS if isinstance(row.get(name), list) and row[name]), None):
        found = _talk(turns)
    else:
        found = asked(row), _text_of(row, OUTPUTS), _text_of(row, REASONING)
    question, output, reasoning = found
    if not question or not output:
        raise Refusal(
            f"{place} has no text called question or output, nor any other pair that is known here (problem and "
            "solution, messages, conversations): mend or remove it"
        )
    return question, joined(output, reasoning)


def asked(row: Mapping[str, Any]) -> str | None:
    """The question of a row, with what an instruction is to be applied to; None where there is no such text.

    >>> asked({"instruction": "Add up.", "input": "1 and 2"})
    'Add up.\\n\\n1 and 2'
    """
    question = _text_of(row, QUESTIONS)
    given = _text_of(row, ("input",)) if "instruction" in row else None
    return f"{question}\n\n{given}" if question and given else question


def question(row: Mapping[str, Any], place: str = "a row") -> str:
    """The question of a row, whether it has an output or not; see `example`.

    >>> question({"messages": [{"role": "user", "content": "1 + 1?"}]})
    '1 + 1?'
    """
    turns = next((row[name] for name in TURNS if isinstance(row.get(name), list) and row[name]), [])
    found = asked(row) or _talk(turns)[0]
    if not found:
        raise Refusal(f"{place} has no text called question (or problem, prompt, messages): mend or remove it")
    return found


def joined(answer: str, reasoning: str | None = None) -> str:
    """An output: its reasoning between think tags, then the answer; other marks than ours are rewritten.

    >>> joined("<|begin_of_thought|> 1, 2 <|end_of_thought|> <|begin_of_solution|> 2 <|end_of_solution|>")
    '<think>\\n1, 2\\n</think>\\n\\n2'
    """
    if not reasoning and (marked := _MARKED.fullmatch(answer)):
        reasoning, answer = marked[1], _SOLUTION.sub("", marked[2])
    if not reasoning or "</think>" in answer:
        return answer
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer.strip()}"


def _text_of(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of some columns that holds a text which is more than space."""
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _generated(row: Mapping[str, Any]) -> str | None:
    """The first generation that any list of marks calls right, or the first one where there are no marks."""
    texts = row["generations"]
    marks = [v for k, v in row.items() if k.startswith("correctness") and isinstance(v, list) and len(v) == len(texts)]
    for index, text in enumerate(texts):
        if isinstance(text, str) and (not marks or any(mark[index] is True for mark in marks)):
            return text
    return None if marks else ""


def _talk(turns: Sequence[Any]) -> tuple[str | None, str | None, str | None]:
    """Question, answer and reasoning of the first turn."""
    found: dict[str, Mapping] = {}
    for turn in turns:
        if isinstance(turn, Mapping):
            found.setdefault(ROLES.get(str(turn.get("role") or turn.get("from")), "other"), turn)
    said = {who: _content(turn) for who, turn in found.items()}
    return said.get("user"), said.get("assistant"), _text_of(found.get("assistant", {}), REASONING)


def _content(turn: Mapping[str, Any]) -> str | None:
    parts = turn.get("content")
    if isinstance(parts, list):  # a text may come in parts
        texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return _text_of(turn, ("content", "value"))


def _jsonl_rows(shard: Shard, skip: int) -> Iterator[tuple[int, dict[str, Any], int]]:
    with open(shard.file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number <= skip or not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                reason = " ".join(str(error).split())[:200]
                raise Refusal(f"{shard.place(number)} is damaged ({reason}): mend or remove it") from error
            if not isinstance(row, dict):
                raise Refusal(f"{shard.place(number)} is no record: mend or remove it")
            yield number, row, len(line)


def _parquet_rows(shard: Shard, skip: int) -> Iterator[tuple[int, dict[str, Any], int]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise Refusal(
            f"{shard.file} needs the package pyarrow, which is not here: `pip install pyarrow`, or give a JSONL file"
        ) from None
    try:
        with parquet.ParquetFile(shard.file) as file:
            total, number = file.metadata.num_rows, 0
            names = [name for name in file.schema_arrow.names if _is_read(name)]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                for row in batch.to_pylist() if number + len(batch) > skip else [None] * len(batch):
                    number += 1
                    if number > skip:
                        yield number, row, shard.size // total
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refusal(f"{shard.file} cannot be read ({reason}): put it there whole") from error


def _is_read(name: str) -> bool:
    """Whether `example` looks at a column."""
    known = (*QUESTIONS, *OUTPUTS, *REASONING, *TURNS, "input", "generations", "finish_reason")
    return name in known or name.startswith("correctness")
