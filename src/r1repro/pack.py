"""A seed in one file: what its runs measured, without the models, to be joined with seeds that were run elsewhere.

Seeds take hours, and may be run on different machines or days.  `pack` keeps of a seed's folder what every number of a
report is made of, the outputs of all evaluations included, so that each digest can be checked; `unpack` puts it back,
and `report.publish` makes one ledger of all the seeds that are there.
"""

import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from r1repro.records import Refusal
from r1repro.run import read_json, speaking_of, writable

KEPT = ("manifest.json", "metrics.jsonl", "samples.jsonl", "summary.json", "variants.json")
"""Names of the files that are kept of every complete run, and of the seed's own folder."""

SMALL = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**27, "nice_len": 273}]
"""Ours: as small as it gets, for seeds are committed.  Models are asked the same questions, so a window that holds
most of a seed finds each of them again.  Takes 1.5 GB of memory to write and 128 MB to read."""

LARGEST = 2**31
"""Ours: bytes that an archive may unfold to; it is read as data, and must not fill a disk."""


def pack(seed_dir: Path | str, target: Path | str) -> Path:
    """Write what is kept of a seed to ``target``, a ``.tar.xz``; returns that.  The same runs make the same bytes.

    Raises:
        Refusal: no complete run there.
    """
    seed_dir, target = Path(seed_dir), Path(target)
    files = sorted(_kept(seed_dir))
    if not files:
        raise Refusal(f"{seed_dir} holds no complete run: `make reproduce` makes them")
    writable(target.parent)
    temporary = target.with_name(target.name + ".tmp")
    with (
        speaking_of(target),
        lzma.open(temporary, "wb", filters=SMALL) as out,
        tarfile.open(fileobj=out, mode="w") as archive,
    ):
        for file in files:
            about = tarfile.TarInfo(f"{seed_dir.name}/{file.relative_to(seed_dir).as_posix()}")
            data = file.read_bytes()
            about.size, about.mode = len(data), 0o644
            archive.addfile(about, io.BytesIO(data))
    os.replace(temporary, target)
    return target


def _kept(seed_dir: Path) -> Iterator[Path]:
    for file in seed_dir.rglob("*"):
        if file.name in KEPT and file.is_file() and "checkpoints" not in file.relative_to(seed_dir).parts:
            manifest = file.parent / "manifest.json"
            if not manifest.exists() or read_json(manifest).get("exit") == "complete":
                yield file


def unpack(source: Path | str, tier_dir: Path | str) -> Path:
    """Put a packed seed under the folder of a tier; returns its folder there.

    Raises:
        Refusal: it is no packed seed, is damaged, or names files outside of its folder; the seed is there already.
    """
    source, tier_dir = Path(source), Path(tier_dir)
    try:
        found = dict(_read(source))
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, ValueError) as error:
        raise Refusal(f"{source} is no packed seed, or is damaged ({error}): give a file that `pack` wrote") from error
    folders = {path.parts[0] for path in found}
    if len(folders) != 1:
        raise Refusal(f"{source} holds {len(folders)} seeds: give a file that `pack` wrote")
    target = tier_dir / folders.pop()
    if target.exists():
        raise Refusal(f"{target} is there already and is not overwritten: move it away first")
    writable(tier_dir)
    temporary = target.with_name(f".{target.name}.new")
    with speaking_of(target):
        for path, data in found.items():
            place = temporary.joinpath(*path.parts[1:])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        temporary.rename(target)
    return target


def _read(source: Path) -> Iterator[tuple[Path, bytes]]:
    size = 0
    with lzma.open(source) as data, tarfile.open(fileobj=data, mode="r|") as archive:
        for about in archive:
            path = Path(about.name)
            size += about.size
            if path.is_absolute() or ".." in path.parts or not about.isreg() or path.name not in KEPT:
                raise ValueError(f"{about.name!r} is no file of a seed")
            if len(path.parts) < 2 or size > LARGEST:
                raise ValueError(f"{about.name!r} lies in no seed's folder, or is too large")
            yield path, archive.extractfile(about).read()
