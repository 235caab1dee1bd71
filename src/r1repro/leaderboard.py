"""The race: minutes from the start of the process to the first checkpoint that is surely good, evaluation not counted.

*Surely good*: the lower end of the 95 % bootstrap interval of pass@1 over the test questions is at least `GOAL`.  Any
tier, settings, model or machine may take part: run at least three seeds, then `python -m r1repro leaderboard`.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from r1repro import ledger
from r1repro.algo.estimators import bootstrap
from r1repro.ledger import SeedRuns
from r1repro.records import Refusal
from r1repro.run import between_marks, read_json, write_json, write_text

GOAL = 0.85
FEWEST_QUESTIONS = 200
FEWEST_SEEDS = 3


def finish(seed: SeedRuns) -> dict | None:
    """The first checkpoint of a seed that reaches the goal; None if none does."""
    elapsed_s = {line["step"]: line.get("time/elapsed_s") for line in seed.metrics}
    for checkpoint in seed.checkpoints:
        interval = bootstrap([checkpoint.right_QK.mean(axis=1)])
        if interval.low >= GOAL:
            if checkpoint.step == 0 or elapsed_s.get(checkpoint.step) is None:
                raise Refusal(f"seed {seed.seed} has no time of step {checkpoint.step}: only trained steps can race")
            return {
                "seed": seed.seed,
                "step": checkpoint.step,
                "minutes": round(elapsed_s[checkpoint.step] / 60, 2),
                "pass@1": round(interval.value, 4),
                "low": round(interval.low, 4),
            }
    return None


def entry(name: str, seeds: Sequence[SeedRuns]) -> dict:
    """The row of one participant.  Refusal: too few seeds or questions, or one did not reach the goal."""
    if len(seeds) < FEWEST_SEEDS or len(seeds[0].ids) < FEWEST_QUESTIONS:
        raise Refusal(
            f"{len(seeds)} seeds with {len(seeds[0].ids)} questions: the race takes at least {FEWEST_SEEDS} seeds "
            f"with {FEWEST_QUESTIONS} each"
        )
    found = [finish(seed) for seed in seeds]
    late = [seed.seed for seed, row in zip(seeds, found, strict=True) if row is None]
    if late:
        raise Refusal(f"seed {late[0]} has no checkpoint whose lower bound is at least {GOAL}: train longer")
    return {
        "name": name,
        "minutes": median(row["minutes"] for row in found),
        "seeds": found,
        "checkpoints": list(seeds[0].steps),
        "commit": seeds[0].runs[0].commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def join(tier: str, out: Path, name: str, file: Path, readme: Path) -> list[dict]:
    """Put the runs of a tier into the list in ``file``, and the list into the table of ``readme``; returns the list."""
    new = entry(name, ledger.of_the_ledger(ledger.read(tier, out, more=False)))
    rows = [row for row in (read_json(file) if file.exists() else []) if row["name"] != name]
    rows = sorted([*rows, new], key=lambda row: row["minutes"])
    text = between_marks(readme, "leaderboard", table(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, rows)
    write_text(readme, text)
    return rows


def table(rows: Sequence[dict]) -> str:
    """The leaderboard as a Markdown table."""
    lines = ["| minutes (median) | seeds | step | who | machine | commit |", "|" + "---|" * 6]
    for row in rows:
        each = ", ".join(f"{seed['minutes']:.2f}" for seed in row["seeds"])
        steps = ", ".join(str(seed["step"]) for seed in row["seeds"])
        commit = (row["commit"] or "")[:7]
        lines.append(f"| {row['minutes']:.2f} | {each} | {steps} | {row['name']} | {row['machine']} | {commit} |")
    return "\n".join(lines) + "\n"
