"""What this machine has, what will run on it, what is missing and how to get it."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from r1repro import config, paper
from r1repro.engine import cluster
from r1repro.records import Refusal
from r1repro.rewards import languages, sandbox
from r1repro.run import out_folder
from r1repro.tinyworld import base, tokenizer

NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "reasoning-gym", "math-verify", "papermill",
          "jupyterlab", "seaborn", "pandas", "tqdm", "ipywidgets")  # fmt: skip
OPTIONAL = {
    "peft": "LoRA and QLoRA", "bitsandbytes": "4-bit weights", "vllm": "the vLLM sampler", "ray": "several machines",
}  # fmt: skip


def report() -> Iterator[tuple[str, str, str]]:
    """Lines of (state, what, detail); state is ``ok``, ``missing`` or ``note``."""
    yield "ok", "machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_memory()}"
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield "ok" if good else "missing", "python", version if good else f"{version}: use 3.11, 3.12 or 3.13"
    for name in NEEDED:
        yield _package(name, "run `make setup`")
    for name, use in OPTIONAL.items():
        state, what, detail = _package(name, f"only for {use}: pip install 'r1repro[gpu]' or [cluster]")
        yield "note" if state == "missing" else state, what, detail
    yield "ok", "simd", torch.backends.cpu.get_cpu_capability()
    yield "ok", "threads", f"torch uses {torch.get_num_threads()}"
    if torch.cuda.is_available():
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield "ok", "gpu", f"{torch.cuda.get_device_name()}, {gigabytes:.0f} GiB"
    else:
        yield "note", "gpu", "none that torch sees; tiers smoke and cpu need none"
    yield from clusters()
    yield _sandbox()
    yield from map(_language, languages.LANGUAGES)
    yield _asset("paper data", lambda: str(paper.folder().name))
    yield _asset("base model", lambda: f"{base.folder('tiny-1m').name}, {base.digest(base.folder('tiny-1m'))[:12]}")
    yield _asset("tokenizer", lambda: f"{tokenizer.VOCABULARY} entries, {tokenizer.digest()[:12]}")
    yield _disk()
    data = Path(os.environ.get("R1REPRO_DATA", "data"))
    found = f"{len(list(data.iterdir()))} entries in {data}" if data.is_dir() else f"no folder {data}"
    yield "ok" if data.is_dir() else "note", "R1REPRO_DATA", f"{found}; files of questions (gsm8k, math) are read there"
    yield "ok", "will run", f"tiers {', '.join(config.RUNNABLE)}: `make reproduce TIER=...`"


def clusters() -> Iterator[tuple[str, str, str]]:
    """A line on the cluster at RAY_ADDRESS, where there is such an address."""
    if os.environ.get("RAY_ADDRESS") and importlib.util.find_spec("ray") is not None:
        try:
            yield "ok", "cluster", cluster.report()
        except Refusal as refusal:
            yield "missing", "cluster", str(refusal)


def _sandbox() -> tuple[str, str, str]:
    if why := sandbox.refusal():
        return "note", "sandbox", f"only for grading programs: {why}"
    mode = sandbox.isolation()
    kind = {"root": "a user of its own for each program", "user": "a user namespace for each program"}
    return ("ok" if mode in kind else "note"), "sandbox", f"bubblewrap, {kind[mode]}" if mode in kind else "none"


def _language(name: str) -> tuple[str, str, str]:
    """One line for each language that programs are evaluated in, besides Python."""
    if why := languages.missing(name):
        return "note", f"programs, {name}", why.removeprefix(f"{name}: ")
    return "ok", f"programs, {name}", f"evaluated, with {next(iter(languages.tools(name).values()))}"


def _package(name: str, how: str) -> tuple[str, str, str]:
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        return "missing", name, how
    return "ok", name, metadata.version(name)


def _asset(what: str, look) -> tuple[str, str, str]:
    try:
        return "ok", what, look()
    except Refusal as refusal:
        return "missing", what, str(refusal)


def _disk() -> tuple[str, str, str]:
    folder = out_folder()
    place = folder if folder.exists() else folder.absolute().parent
    free = shutil.disk_usage(place).free / 2**30
    if not os.access(place, os.W_OK):
        return "missing", "output folder", f"{folder} cannot be written: set R1REPRO_OUT to a folder that can"
    return ("ok" if free > 1 else "missing"), "disk", f"{free:.1f} GiB free for {folder}/ (a seed takes about 0.1)"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (ValueError, OSError):
        return "memory unknown"
