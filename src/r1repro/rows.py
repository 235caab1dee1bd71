"""Rows of files of questions: which files a source has, and what of a row is question, reference answer and level.

Fields are known by the names in common use.  Ids and splits are `data`'s.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from r1repro.config import data_folder
from r1repro.records import Refusal
from r1repro.rewards.accuracy import final_answer
from r1repro.run import writable, write_text

QUESTION = ("question", "problem", "prompt")
ANSWER = ("answer", "final_answer")
LEVEL = ("level", "difficulty")

HUB = {
    "gsm8k": {
        "gsm8k/train.jsonl": ("openai/gsm8k", "main", "train"),
        "gsm8k/test.jsonl": ("openai/gsm8k", "main", "test"),
    },
    "math": {
        "math_train/train.jsonl": ("DigitalLearningGmbH/MATH-lighteval", "default", "train"),
        "math500/test.jsonl": ("HuggingFaceH4/MATH-500", "default", "test"),
    },
}
"""Source -> file below the folder of all data -> name, configuration and split of the hub's data set."""

GAPS = ("math_train/math.json",)
"""Published files in which rows without an answer are left out; in any other file they are refused.  It has four."""


class Row(NamedTuple):
    """What a row says."""

    text: str
    gold: str
    """Empty where a row of `GAPS` has none."""

    level: int
    """1 where the row has none; never below 1."""

    language: str


def files(source: str) -> tuple[list[Path], list[Path]]:
    """Training and test files of a source that is a path or the name of a folder, by the beginning of their names.

    Test files begin with ``test``.  Where some begin with ``train``, those are the training files, else all others
    are.  ``math`` has two folders: ``math_train`` (``math.json``, or JSON lines) and ``math500``.

    Raises:
        Refusal: nothing is there, and it could not be had from the hub.
    """
    if source.endswith(".jsonl"):
        found = [Path(source).expanduser()]
        if not found[0].is_file():
            raise Refusal(f"no file {source}: give the path of a file of JSON lines with fields question and answer")
    elif source == "math":
        return _below("math_train", source), _below("math500", source)
    else:
        found = _below(source, source)
    test = [file for file in found if file.name.startswith("test")]
    others = [file for file in found if file not in test]
    return [file for file in others if file.name.startswith("train")] or others, test


def _below(folder: str, source: str) -> list[Path]:
    """The files of a folder; where there are none, those that the hub has."""
    path = data_folder() / folder
    if not (found := _there(path)):
        save_from_hub(source, folder)
        found = _there(path)
    if not found:
        raise Refusal(f"no *.jsonl in {path}: put JSON lines there, or set R1REPRO_DATA to the folder of {folder}")
    return found


def _there(path: Path) -> list[Path]:
    whole = [path / "math.json"] if path.name == "math_train" else []
    return [file for file in (*whole, *sorted(path.glob("*.jsonl"))) if file.is_file()]


def save_from_hub(source: str, folder: str) -> None:
    """Write the files of a folder of `HUB`, from then on read like any others; nothing for a folder not in it.

    Raises:
        Refusal: the package ``datasets`` is not there, HF_HUB_OFFLINE is set, or the hub cannot be reached.
    """
    wanted = {file: hub for file, hub in HUB.get(source, {}).items() if file.split("/")[0] == folder}
    if not wanted:
        return
    names = " and ".join(sorted({hub[0] for hub in wanted.values()}))
    path, put = data_folder() / folder, f"put {' and '.join(Path(f).name for f in wanted)} of the hub's {names} there"
    missing = f"no *.jsonl in {path} for questions {source!r}: {put}, or set R1REPRO_DATA to the folder of {folder}"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "no", "off", "false"):
        raise Refusal(f"{missing}, or unset HF_HUB_OFFLINE to have it loaded")
    try:
        import datasets
    except ImportError as error:
        raise Refusal(f"{missing}, or `pip install datasets` to have it loaded") from error
    for file, (name, configuration, split) in wanted.items():
        try:
            records = [dict(record) for record in datasets.load_dataset(name, configuration, split=split)]
        except Exception as error:
            raise Refusal(f"{missing}; the hub says {' '.join(str(error).split())[:200]}") from error
        writable(path)
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(data_folder() / file, "".join(lines))


def read(file: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        Refusal: a row that is no JSON, no object, or has no question or no answer, or one that is no text; the line
            says where.
    """
    gaps = file.as_posix().endswith(GAPS)
    return [row(record, where, gaps) for where, record in _records(file)]


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    """Where each record stands, and the record: of JSON lines, or of one JSON list in a file that ends in .json."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read ({error}): give a file of JSON lines in UTF-8") from error
    if file.suffix == ".json" and text.lstrip().startswith("["):
        yield from ((f"{file}, entry {n}", record) for n, record in enumerate(_parsed(text, f"{file}, the list"), 1))
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028 inside a text
        if line.strip():
            yield f"{file}, line {number}", _parsed(line, f"{file}, line {number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{where}: no JSON ({error}): mend it") from error


def row(record: Any, where: str, gaps: bool = False) -> Row:
    r"""What one record says.

    The question is the field ``question``, ``problem`` or ``prompt``; the reference answer is ``answer`` or
    ``final_answer`` (text or a number; of GSM8K's worked answers what follows "####"), else the box of ``solution``.

    Args:
        gaps: let a record without an answer through.

    >>> row({"problem": "1 + 1 = ?", "solution": r"It is \boxed{2}.", "level": "Level 3"}, "here")
    Row(text='1 + 1 = ?', gold='2', level=3, language='en')
    >>> row({"question": "How many?", "answer": "500 + 734 = 1,234\n#### 1,234"}, "here").gold
    '1234'
    """
    if not isinstance(record, dict):
        raise Refusal(f"{where}: {type(record).__name__} where an object should be: mend it")
    text = _text(record, QUESTION, where)
    if not text:
        raise Refusal(f"{where}: no question: give a field {', '.join(QUESTION[:-1])} or {QUESTION[-1]} with text")
    gold = _text(record, ANSWER, where, numbers=True)
    if "####" in gold:
        gold = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", gold.rpartition("####")[2].strip())
    gold = gold or final_answer(_text(record, ("solution",), where)) or ""
    if not gold and not gaps:
        raise Refusal(f"{where}: no answer: give a field {' or '.join(ANSWER)}, or a solution with a box")
    return Row(text=text, gold=gold, level=_level(record), language=language_of(text))


def _text(record: dict[str, Any], names: tuple[str, ...], where: str, numbers: bool = False) -> str:
    """The first of the named fields that holds something, without spaces around it; "" where none does."""
    for name in names:
        value = record.get(name)
        if numbers and type(value) in (int, float) and math.isfinite(value):
            value = str(int(value) if value == int(value) else value)
        if value is not None and not _is_text(value):
            raise Refusal(f"{where}: {name!r} is {repr(value)[:60]}, no text: mend it")
        if value and value.strip():
            return value.strip()
    return ""


def _is_text(value: Any) -> bool:
    """Whether a value is text that can be written: no half of a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


_A_LEVEL = re.compile(r"(?:level )?([0-9]{1,3})(?:\.0)?", re.IGNORECASE)


def _level(record: dict[str, Any]) -> int:
    """The level that a record gives as a whole number, also as "Level 3" or 3.0; 1 where it gives none, or 0."""
    found = (_A_LEVEL.fullmatch(str(record.get(name)).strip()) for name in LEVEL)
    return max(1, next((int(level[1]) for level in found if level), 1))


_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def language_of(text: str) -> str:
    """``zh`` where more than a twentieth of the characters are ideographs (formulas are long), else ``en``.

    >>> language_of("1 + 1 = ?"), language_of("求 $x$ 的值"), language_of("The sign 道 is read dao in Chinese.")
    ('en', 'zh', 'en')
    """
    return "zh" if 20 * len(_IDEOGRAPH.findall(text)) > len("".join(text.split())) else "en"


_WORD = re.compile(rf"{_IDEOGRAPH.pattern}|[^\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def runs(text: str, size: int) -> set[tuple[str, ...]]:
    """All runs of ``size`` words in a text, in lower case; an ideograph is a word.

    >>> sorted(runs("A cat, a Hat", 3))
    [('a', 'cat', 'a'), ('cat', 'a', 'hat')]
    """
    words = _WORD.findall(text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
