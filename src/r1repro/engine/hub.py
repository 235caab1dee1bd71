"""Models by name: a folder, a student, or a repository of Hugging Face, out of the local cache where it is there.

Weights come as safetensors alone; no pickle and no program is ever downloaded.
"""

import os
import re
import shutil
from pathlib import Path

from r1repro import students
from r1repro.records import Refusal
from r1repro.run import read_json, speaking_of, writable, write_json

WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt")
UNWANTED = ("*.bin", "*.py", "*.pth", "*.pt", "*.gguf", "*.onnx", "*/*")
"""Files of a repository that are downloaded, and that are not whatever their names; none of its inner folders."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_CACHED = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([^/]+)")


def folder(name: Path | str, revision: str | None = None) -> Path:
    """The folder of a model.

    Args:
        name: a folder; the short name of a student; ``organisation/name`` or ``organisation/name@revision``.
        revision: branch, tag or commit; None: that of ``name``, or else the main branch.

    Returns:
        The folder as it is, or a snapshot in the cache of Hugging Face, whose own name is the commit: see `origin`.

    Raises:
        Refusal: no such folder, repository or revision; a licence that has to be accepted first; no network and not in
            the cache; no weights as safetensors.
    """
    if Path(name).exists():
        return Path(name)
    known = students.students().get(str(name))
    match = _ID.fullmatch(known.base if known else str(name))
    if not match or not _is_valid(match[1]):
        raise Refusal(
            f"no model at {name}: give a folder, organisation/name of Hugging Face (or organisation/name@revision), or "
            f"a student of {', '.join(students.students())}"
        )
    repository, revision = match[1], revision or match[2]
    found = _cached(repository, revision)
    if found is None:
        if _offline():
            raise Refusal(
                f"{_called(repository, revision)} is not whole in the cache at {_cache()}, and HF_HUB_OFFLINE forbids "
                f"the network: {_by_hand(repository, revision)}"
            )
        found = _downloaded(repository, revision)
    if lacks := _lacks(found):
        raise Refusal(
            f"{_called(repository, revision)} lacks {lacks}: give another revision or model, with safetensors"
        )
    return found


def origin(path: Path | str) -> str | None:
    """``organisation/name@commit`` of a folder in the cache of Hugging Face, or of one that `extended` made of it.

    >>> origin("/cache/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db64")
    'Qwen/Qwen2.5-0.5B@060db64'
    >>> origin("out/base") is None
    True
    """
    path = Path(path)
    links = [os.readlink(file) for file in sorted(path.glob("*.safetensors")) if file.is_symlink()]
    for place in (os.path.abspath(path), *links):
        if match := _CACHED.search(place.replace(os.sep, "/")):
            return f"{match[1]}/{match[2]}@{match[3]}"
    return None


def extended(model: Path | str, max_positions: int, target: Path) -> Path:
    """A model with at least ``max_positions`` positions: itself where it has them, else ``target``, made of it.

    Weights are links; ``max_position_embeddings`` of its ``config.json`` is raised and nothing else changed, as in
    the released Qwen-Math students (students.csv, note): rotary positions are computed, not stored.

    Raises:
        Refusal: a model whose positions are stored, such as GPT-2's; the disk cannot be written.
    """
    model = Path(model)
    about = read_json(model / "config.json")
    if about.get("max_position_embeddings", 0) >= max_positions:
        return model
    if "max_position_embeddings" not in about or not ({"rope_theta", "rope_parameters"} & about.keys()):
        raise Refusal(f"the model at {model} has no rotary positions, so it cannot be given more: choose another")
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    writable(temporary)
    with speaking_of(target):
        for file in sorted(model.iterdir()):
            if file.suffix == ".safetensors":
                (temporary / file.name).symlink_to(os.path.abspath(file))
            elif file.is_file():
                shutil.copyfile(file, temporary / file.name)
        write_json(temporary / "config.json", about | {"max_position_embeddings": max_positions})
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    return target


def _is_valid(repository: str) -> bool:
    from huggingface_hub import errors, utils

    try:
        utils.validate_repo_id(repository)
    except errors.HFValidationError:
        return False
    return True


def _called(repository: str, revision: str | None) -> str:
    return f"{repository}@{revision}" if revision else repository


def _by_hand(repository: str, revision: str | None) -> str:
    more = f" --revision {revision}" if revision else ""
    return (
        f"run `hf download {repository}{more}` where there is a network, copy that machine's cache here and set "
        "HF_HOME to it"
    )


def _cache() -> Path:
    """The cache as the environment says now; the library looks once, when it is imported."""
    from huggingface_hub import constants

    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    return Path(os.environ["HF_HOME"], "hub") if "HF_HOME" in os.environ else Path(constants.HF_HUB_CACHE)


def _offline() -> bool:
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)


def _snapshot(repository: str, revision: str | None, **options) -> Path:
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            repository, revision=revision, cache_dir=_cache(), allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED), **options,
        )
    )  # fmt: skip


def _cached(repository: str, revision: str | None) -> Path | None:
    """What the cache holds whole."""
    from huggingface_hub import errors

    try:
        found = _snapshot(repository, revision, local_files_only=True)
    except errors.LocalEntryNotFoundError:
        return None
    return None if _lacks(found) else found


def _lacks(found: Path) -> str | None:
    """What a snapshot is without and should have; a download that was stopped leaves some of the files."""
    if not (found / "config.json").exists():
        return "config.json"
    index = found / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["*.safetensors"]
    return next((name for name in names if not list(found.glob(name))), None)


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import errors

    called, page = _called(repository, revision), f"https://huggingface.co/{repository}"
    try:
        return _snapshot(repository, revision)
    except errors.GatedRepoError as error:
        raise Refusal(
            f"{repository} is given to those who accept its licence: accept it at {page}, then `hf auth login` with a "
            "token of that account, or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise Refusal(
            f"there is no {repository} on Hugging Face, or it is private: mend the name (organisation/name), or "
            "`hf auth login` with an account that may see it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise Refusal(
            f"{repository} has no revision {revision!r}: give organisation/name@revision with a branch, tag or commit "
            f"of {page}/commits/main"
        ) from error
    except (OSError, errors.HTTPError, errors.XetDownloadError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refusal(
            f"{called} cannot be downloaded ({reason}): the same command goes on where it stopped; without a network, "
            f"{_by_hand(repository, revision)}"
        ) from error
