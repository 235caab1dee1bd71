"""The R1-Zero pipeline of one seed: RL on the base model, then the evaluation of its checkpoints."""

from pathlib import Path

from r1repro import config
from r1repro.engine import checkpoint, hub
from r1repro.run import read_json, write_json
from r1repro.stages import child, evaluate, rl
from r1repro.tinyworld import base


def run(settings: config.R1Zero, seed_dir: Path | str) -> Path:
    """Train and evaluate; each part resumes, or returns at once when done.  Returns ``seed_dir``.

    Leaves ``r1_zero/`` (the RL run) and ``evaluate/step-<n>/`` (one evaluation a kept checkpoint) in it.
    """
    config.check_runnable(settings.tier)
    seed_dir, machine = Path(seed_dir), settings.machine
    child.check(machine)
    if not child.runs_here(machine):
        child.run("r1_zero", settings, seed_dir)
        return seed_dir
    with child.at_work(machine):
        rl.train(settings.rl, seed_dir / "r1_zero", base_folder(settings.base), machine)
        for step in rl.kept_steps(settings.rl):
            model = checkpoint.folder_of(seed_dir / "r1_zero", step)
            evaluate.run(settings.evaluate, seed_dir / "evaluate" / f"step-{step:06d}", model, machine)
    return seed_dir


def run_variants(tier: str, seed: int, seed_dir: Path | str) -> list[dict]:
    """Run `config.VARIANTS` beside the seed's own run; a row each: name, what is set, and the summaries by step."""
    rows = []
    for name, overrides in {"ours": {}, **config.VARIANTS}.items():
        settings = config.r1_zero(tier, seed, overrides)
        place = Path(seed_dir) if name == "ours" else Path(seed_dir) / "variants" / name
        run(settings, place)
        summaries = {
            str(step): read_json(place / "evaluate" / f"step-{step:06d}" / "summary.json")
            for step in rl.kept_steps(settings.rl)
        }
        rows.append({"name": name, "set": overrides, "by_step": summaries})
    write_json(Path(seed_dir) / "variants.json", rows)
    return rows


def base_folder(name: str) -> Path:
    """A base model of the tiny world by its name, or the folder of another: see `hub.folder`."""
    return base.folder(name) if name in base.SHAPES else hub.folder(name)
