"""Rows of the files of a benchmark, whatever their form: JSON lines, JSON, CSV, TSV, Parquet, Arrow, packed or not.

A benchmark's folder may hold the files of its makers as they come.  What a row says is the benchmark's to read.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1repro.records import Refusal

FORMS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = (".gz", ".zip", ".tar", ".tgz")
_NO_DATA = re.compile(r"(?:^|/)(?:\.|licen[cs]e|readme|provenance|dataset_infos?|__macosx)", re.IGNORECASE)


class Record(NamedTuple):
    """One row."""

    where: str
    """File, what of it, and line, for a person."""

    name: str
    """Path below the folder, for what only a file's name says: split, subject, language."""

    number: int
    """Place in its file, from 0."""

    row: dict[str, Any]


def records(folder: Path, prefer: Sequence[str] = (), header: Sequence[str] | None = None) -> Iterator[Record]:
    """All rows of a folder's files, sorted by path; folders within it and archives included.  Or of one file.

    Args:
        prefer: words such as ``test``: where some paths have the first of them, those alone are read; where none has,
            the next is tried; where no path has any, all files are read.
        header: names of the fields of CSV files that have no line of names.

    Raises:
        Refusal: no folder, no file of a known form, or one that cannot be read; the line says where.
    """
    found = sorted(_files(folder), key=lambda each: each[0]) if folder.exists() else []
    if not found:
        raise Refusal(f"no questions in {folder}: put its files there ({', '.join(FORMS)}; .gz, .zip or .tar of those)")
    names = [name for name, _, _ in found]
    word = next((word for word in prefer if any(_has(name, word) for name in names)), None)
    for name, file, read in found:
        if word is None or _has(name, word):
            yield from _rows(name, _shown(file, name), read, header)


def _has(name: str, word: str) -> bool:
    return re.search(rf"(?<![a-z]){word}(?![a-z])", name.casefold()) is not None


def _shown(file: Path, name: str) -> str:
    return str(file) if name.endswith(file.name) else f"{file}, {name.rpartition('/')[2]}"


def _files(folder: Path) -> Iterator[tuple[str, Path, Callable[[], bytes]]]:
    """Name below the folder, file, and how to read it; what lies in archives too."""
    for file in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.name if file == folder else file.relative_to(folder).as_posix()
        if _NO_DATA.search(name):
            continue
        with _readable(file):
            if file.suffix in FORMS:
                yield name, file, file.read_bytes
            elif file.suffix == ".zip":
                yield from _zipped(name, file)
            elif file.name.endswith((".tar", ".tar.gz", ".tgz")):
                yield from _tarred(name, file)
            elif file.suffix == ".gz" and file.with_suffix("").suffix in FORMS:
                yield name, file, lambda file=file: gzip.decompress(file.read_bytes())


def _zipped(name: str, file: Path) -> Iterator[tuple[str, Path, Callable[[], bytes]]]:
    with zipfile.ZipFile(file) as packed:
        inner = [member for member in packed.namelist() if _is_data(member)]

    def read(member: str) -> bytes:
        with zipfile.ZipFile(file) as packed:
            return packed.read(member)

    yield from ((f"{name}/{member}", file, lambda member=member: read(member)) for member in inner)


def _tarred(name: str, file: Path) -> Iterator[tuple[str, Path, Callable[[], bytes]]]:
    with tarfile.open(file) as packed:  # read whole: a seek in a compressed one unpacks it from its beginning
        held = {m.name: packed.extractfile(m).read() for m in packed.getmembers() if m.isfile() and _is_data(m.name)}
    yield from ((f"{name}/{member}", file, lambda data=data: data) for member, data in held.items())


def _is_data(member: str) -> bool:
    return member.endswith(FORMS) and not _NO_DATA.search(member)


class _readable:
    """Turn what a damaged file raises into one line that names it."""

    def __init__(self, what: object):
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, UnicodeError)):
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Refusal(f"{self.what} cannot be read ({reason}): put it there whole") from error


def _rows(name: str, where: str, read: Callable[[], bytes], header: Sequence[str] | None) -> Iterator[Record]:
    with _readable(where):
        data = read()
    form = Path(name.removesuffix(".gz")).suffix
    if form in (".parquet", ".arrow"):
        yield from _numbered(name, where, _table(data, form, where))
        return
    with _readable(where):
        text = _text(data, form)
    if form in (".csv", ".tsv"):
        lines = io.StringIO(text, newline="")
        first = text.partition("\n")[0]
        semicolons = header is None and first.count(";") > first.count(",")
        given = csv.DictReader(
            lines, fieldnames=header, delimiter="\t" if form == ".tsv" else ";" if semicolons else ","
        )
        yield from _numbered(name, where, given)
    elif form == ".json" and text.lstrip().startswith("["):
        yield from _numbered(name, where, _parsed(text, where))
    else:
        for number, line in enumerate(text.split("\n")):
            if line.strip():
                yield from _numbered(name, where, [_parsed(line, f"{where}, line {number + 1}")], number)


def _numbered(name: str, where: str, rows: Any, first: int = 0) -> Iterator[Record]:
    for number, row in enumerate(rows, first):
        if not isinstance(row, dict):
            raise Refusal(f"{where}, line {number + 1}: {type(row).__name__} where an object should be: mend it")
        yield Record(f"{where}, line {number + 1}", name, number, row)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{where}: no JSON ({' '.join(str(error).split())[:120]}): mend it") from error


def _text(data: bytes, form: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if form != ".csv":
            raise
        return data.decode("mac_roman")  # of a spreadsheet: one of MMLU-Redux has a curly apostrophe of a Mac's


def _table(data: bytes, form: str, where: str) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if form == ".arrow":
            return ipc.open_stream(io.BytesIO(data)).read_all().to_pylist()
        return parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise Refusal(f"{where} cannot be read ({' '.join(str(error).split())[:200]}): put it there whole") from error


def text_of(record: Record, *names: str) -> str:
    """The first of the named fields that holds text or a number, without spaces around it.

    Raises:
        Refusal: none does.
    """
    for name in names:
        value = record.row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise Refusal(f"{record.where}: no {' or '.join(names)}: mend it, or take the file of its makers")


def hashed(*parts: str) -> str:
    """An id made of texts: 16 hex digits."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def distinct(id: str, seen: set[str]) -> str:
    """``id``, or with a number behind it where it was seen before; notes it in ``seen``.

    >>> seen = set()
    >>> [distinct("a", seen), distinct("a", seen)]
    ['a', 'a-2']
    """
    made, number = id, 1
    while made in seen:
        number += 1
        made = f"{id}-{number}"
    seen.add(made)
    return made
