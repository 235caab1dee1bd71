"""What a benchmark is: where its questions lie, how they are asked, how outputs are scored, what the paper says of it.

Each file of this room holds some benchmarks of one kind as `Benchmark` values; `evals.catalogue` lists them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1repro.records import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of a benchmark."""

    id: str
    """Stable: of the file where it has one, else a hash of its text."""

    prompt: str
    """What the model is asked, by the paper's protocol, before any chat template."""

    gold: Any
    """What the metric compares with, as JSON can hold it."""

    group: str = ""
    """Subject, level, language or date, for tables by group."""

    more: Mapping[str, Any] = field(default_factory=dict)
    """What else grading needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Questions, prompt, metric and address of one benchmark."""

    name: str
    """As in `papers/deepseek-r1/benchmarks.csv`."""

    folder: str
    """Below R1REPRO_DATA: any file of a form that `load` knows, or the files of its makers."""

    load: Callable[[Path], list[Item]]
    """The items of a folder, in the order of its files.  Refusal: nothing there, or a row that is none, with file and
    line."""

    grade: Callable[[Item, str], Score]
    """Score of one output: 1 right, 0 wrong, or a share (F1); None where the grader failed."""

    perfect: Callable[[Item], str] | None = None
    """An output that scores 1; None where only a judge can tell."""

    hub: str = ""
    """Dataset id of Hugging Face, where there is one."""

    files: str = ""
    """Which of the hub's files hold the questions, as a pattern; empty: nothing is downloaded."""

    answer: Callable[[Item, str], str | None] | None = None
    """What an output votes for in cons@k, None for no vote; None where there is nothing to vote on."""

    k: int = 1
    """Samples a question by the paper's protocol."""

    cap: int = 32768
    """Tokens of an output at most (v2, section 3)."""

    metric: str = "pass@1"
    """As the paper calls it."""

    judged: bool = False
    """Whether a model has to judge; then `grade` refuses, and `protocol` says how."""

    protocol: Any = None
    """How a judge is asked, and what is made of its verdicts: an `evals.judge.Protocol`."""

    licence: str = ""
    note: str = ""
    """Where our protocol departs from the paper's, or the paper is silent."""

    summarise: Callable[[Sequence[Item], Sequence[Sequence[float]]], dict[str, float]] | None = None
    """Further metrics of all scores, by item and sample; the mean is always there."""

    lacking: Callable[[Sequence[Item]], list[str]] | None = None
    """What this machine lacks to grade some of the items, a line each, for a person before anything is sampled; those
    items score None."""
