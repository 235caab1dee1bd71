"""Arms beside the main line: where their runs lie, and how each is evaluated.

arms/<name>             the run that made the arm's model; none where a model of the main line is asked otherwise
models/<name>/reasoning its evaluation, and models/<name>/open where open questions were asked
models/<name>/more      its evaluation on more questions of one kind, where a claim needs them
"""

from pathlib import Path

from r1repro.config import Evaluate, Machine
from r1repro.engine import checkpoint
from r1repro.stages import evaluate


def run_of(seed_dir: Path | str, name: str) -> Path:
    """Where the run that makes an arm's model lies."""
    return Path(seed_dir) / "arms" / name


def model_of(seed_dir: Path | str, name: str) -> Path:
    """The model of an arm, at the end of its run.

    Raises:
        Refusal: the run has not come to its end.
    """
    return checkpoint.end_of(run_of(seed_dir, name), f"the arm {name}")


def measure(
    cfg: Evaluate, seed_dir: Path | str, name: str, model: Path | str, machine: Machine, kind: str = "reasoning"
) -> Path:
    """Evaluate an arm; returns the run folder.

    Args:
        kind: ``reasoning`` or ``open``, by the questions of ``cfg``; ``more`` for more of them.
    """
    return evaluate.run(cfg, Path(seed_dir) / "models" / name / kind, model, machine)
