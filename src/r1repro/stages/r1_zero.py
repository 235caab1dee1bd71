"""The R1-Zero pipeline of one seed: RL on the base model, then the evaluation of its checkpoints."""

from pathlib import Path

from r1repro import config
from r1repro.engine import checkpoint
from r1repro.stages import evaluate, rl
from r1repro.tinyworld import base


def run(settings: config.R1Zero, seed_dir: Path | str) -> Path:
    """Train and evaluate; each part resumes, or returns at once when done.  Returns ``seed_dir``.

    Leaves ``r1_zero/`` (the RL run) and ``evaluate/step-<n>/`` (one evaluation a kept checkpoint) in it.
    """
    config.check_runnable(settings.tier)
    seed_dir = Path(seed_dir)
    rl.train(settings.rl, seed_dir / "r1_zero", base_folder(settings.base), settings.machine)
    for step in rl.kept_steps(settings.rl):
        model = checkpoint.folder_of(seed_dir / "r1_zero", step)
        evaluate.run(settings.evaluate, seed_dir / "evaluate" / f"step-{step:06d}", model, settings.machine)
    return seed_dir


def base_folder(name: str) -> Path:
    """A base model of the tiny world by its name, or the folder that a path names."""
    return base.folder(name) if name in base.SHAPES else Path(name)
