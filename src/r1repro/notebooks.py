"""The notebooks as programs: executed by papermill, kept beside the runs they made."""

import os
import shutil
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from r1repro import config, config_arms
from r1repro.records import Refusal
from r1repro.run import READ_ONLY, default_folder, only_reading, read_json, source_fingerprint, writable, write_json

SHARED = ("00_map", "01_grpo", "02_rewards", "13_clusters")
"""Executed once a tier: no seed changes them."""

MAKES = {
    "03_r1_zero": ("r1_zero", "evaluate"),
    "04_cold_start": ("dev1", "models/base", "models/r1_zero", "models/dev1"),
    "05_reasoning_rl": ("dev2", "models/dev2", "models/dev2_twin"),
    "06_rejection_sampling": ("dev3", "models/dev3"),
    "07_all_scenarios": ("r1", "models/r1"),
    "08_distillation": ("students", "models/qwen-*", "models/llama-*"),
    "12_benchmarks": ("benchmarks",),
}
"""Executed once a seed, in this order; each with the runs that it makes, below the seed's folder."""

ARMS: dict[str, tuple[str, ...]] = {
    "09_distillation_vs_rl": tuple(
        f"{folder}/{name}" for folder in ("arms", "models") for name in ("zero-*", "distilled-*", "sft-*")
    ) + ("arms/fractions",),
    "10_unsuccessful_attempts": (
        "attempts", "arms/pool", "arms/prm*", "arms/tree", "arms/search*", "arms/value*", "arms/hacked",
        "models/base_pool", "models/prm_*", "models/pool_vote", "models/tree*", "models/searched_*",
        "models/dev3_replies", "models/hacked*",
    ),
    "11_evaluation_protocol": (
        "protocol", "arms/zero_on", "arms/whole_judge", "arms/ppo_*", "arms/clip_*", "models/zero_on*",
        "models/*_shots_*", "models/r1/more", "models/*_judge", "models/grpo_short", "models/ppo_*", "models/clip_*",
    ),
    "14_controls": (
        "arms/zero_format", "arms/zero_random", "arms/zero_divisor", "arms/zero_flat", "arms/flat_base",
        "arms/cap_*", "models/zero_format", "models/zero_random",
        "models/zero_divisor", "models/zero_flat", "models/flat_base", "models/cap_*",
    ),
}  # fmt: skip
"""The same of the notebooks beside the main line, which `CLAIMS=all` adds: controls, and claims that need runs of
their own."""

CLAIMS = ("main", "all")


def folder() -> Path:
    """Where the notebooks' sources are: in the checkout, or in the installed package."""
    package = Path(__file__).parent
    for place in (package / "_shipped" / "notebooks", package.parents[1] / "notebooks"):
        if place.is_dir():
            return place
    raise Refusal(f"no notebooks in {package}/_shipped or {package.parents[1]}: install r1repro again")


def execute_all(tier: str, seeds: list[int], again: list[str] | None = None, claims: str = "main") -> list[Path]:
    """Execute every notebook at a tier, those of training once a seed; what is done already is not done again.

    Args:
        again: notebooks of `MAKES` or `ARMS` whose runs are deleted first, to be made anew.  The same seed on the same
            machine makes the same runs, so those of later notebooks stay good.
        claims: ``main``, or ``all`` to add those of `ARMS`.

    Returns:
        The executed copies that were made by this call.

    Raises:
        Refusal: a notebook stopped; the line says which and why, and the copy up to there is kept.
    """
    config.check_runnable(tier)
    if again and only_reading():
        raise Refusal(f"{READ_ONLY} is set, and AGAIN={again[0]} deletes runs to make them anew: unset one of the two")
    if claims not in CLAIMS:
        raise Refusal(f"claims is {claims!r}: choose one of {', '.join(CLAIMS)}")
    if claims == "all":
        config_arms.check_runnable(tier)
    elif beside := [name for name in again or [] if name in ARMS]:
        raise Refusal(f"again is {beside[0]!r}, which is beside the main line: add CLAIMS=all (--claims all)")
    for name, seed in [(name, seed) for name in again or [] for seed in seeds]:
        _forget(name, default_folder(tier, seed))
    shared = [(name, 0, default_folder(tier, 0).parent / "notebooks") for name in SHARED]
    made_here = [*MAKES, *(ARMS if claims == "all" else ())]
    seeded = [(name, seed, default_folder(tier, seed) / "notebooks") for seed in seeds for name in made_here]
    todo = [(name, seed, place / f"{name}.ipynb") for name, seed, place in shared + seeded]
    todo = [(name, seed, target) for name, seed, target in todo if not _is_done(name, target, tier, seed)]
    bar = tqdm(todo, desc="notebooks", unit="notebook", disable=not todo)
    made = []
    for name, seed, target in bar:
        bar.set_postfix_str(f"{name}, seed {seed}")
        made.append(execute(name, target, tier=tier, seed=seed))
    return made


def _forget(name: str, seed_dir: Path) -> None:
    """Delete the runs of a notebook and its executed copy."""
    makes = MAKES | ARMS
    if name not in makes:
        raise Refusal(f"no notebook called {name!r} trains anything: choose one of {', '.join(makes)}")
    for pattern in makes[name]:
        for run in seed_dir.glob(pattern):
            shutil.rmtree(run)
    _mark(seed_dir / "notebooks" / f"{name}.ipynb").unlink(missing_ok=True)


def _mark(target: Path) -> Path:
    return target.with_suffix(".done.json")


def _stamp(name: str, tier: str, seed: int) -> dict:
    """What an executed copy was made from."""
    source = folder() / f"{name}.ipynb"
    return {"tier": tier, "seed": seed, "source": source_fingerprint(), "notebook": source.read_text(encoding="utf-8")}


def _is_done(name: str, target: Path, tier: str, seed: int) -> bool:
    mark = _mark(target)
    return target.exists() and mark.exists() and read_json(mark) == _stamp(name, tier, seed)


def execute(name: str, target: Path, *, tier: str, seed: int) -> Path:
    """Execute one notebook into ``target``, unless an executed copy of the same source and parameters is there."""
    if _is_done(name, target, tier, seed):
        return target
    source, stamp = folder() / f"{name}.ipynb", _stamp(name, tier, seed)
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
    _mark(target).unlink(missing_ok=True)
    os.replace(started, target)
    if not only_reading():  # of runs that another source may have made
        write_json(_mark(target), stamp)
    return target
