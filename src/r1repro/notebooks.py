"""The notebooks as programs: executed by papermill, kept beside the runs they made."""

import os
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from r1repro import config
from r1repro.records import Refusal
from r1repro.run import default_folder, read_json, source_fingerprint, writable, write_json

SHARED = ("00_map", "01_grpo", "02_rewards")
"""Executed once a tier: no seed changes them."""

SEEDED = ("03_r1_zero",)
"""Executed once a seed."""


def folder() -> Path:
    """Where the notebooks' sources are: in the checkout, or in the installed package."""
    package = Path(__file__).parent
    for place in (package / "_shipped" / "notebooks", package.parents[1] / "notebooks"):
        if place.is_dir():
            return place
    raise Refusal(f"no notebooks in {package}/_shipped or {package.parents[1]}: install r1repro again")


def execute_all(tier: str, seeds: list[int]) -> list[Path]:
    """Execute every notebook at a tier, those of training once a seed; what is done already is not done again.

    Raises:
        Refusal: a notebook stopped; the line says which and why, and the copy up to there is kept.
    """
    config.check_runnable(tier)
    shared = [(name, seeds[0], default_folder(tier, seeds[0]).parent / "notebooks") for name in SHARED]
    seeded = [(name, seed, default_folder(tier, seed) / "notebooks") for seed in seeds for name in SEEDED]
    made = []
    for name, seed, place in tqdm(shared + seeded, desc="notebooks", unit="notebook"):
        made.append(execute(name, place / f"{name}.ipynb", tier=tier, seed=seed))
    return made


def execute(name: str, target: Path, *, tier: str, seed: int) -> Path:
    """Execute one notebook into ``target``, unless an executed copy of the same source and parameters is there."""
    source = folder() / f"{name}.ipynb"
    stamp = {"tier": tier, "seed": seed, "source": source_fingerprint(), "notebook": source.read_text(encoding="utf-8")}
    mark = target.with_suffix(".done.json")
    if target.exists() and mark.exists() and read_json(mark) == stamp:
        return target
    writable(target.parent)
    started = target.with_suffix(".running.ipynb")
    os.environ["R1REPRO_STATIC"] = "1"
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment, not one of the user's
    try:
        papermill.execute_notebook(
            source, started, parameters={"tier": tier, "seed": seed}, kernel_name="python3", progress_bar=False
        )
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}".splitlines()[0]
        if error.ename == "Refusal":
            reason = error.evalue
        raise Refusal(f"notebook {name} stopped in cell {error.exec_count} ({reason}): see {started}") from error
    os.replace(started, target)
    write_json(mark, stamp)
    return target
