"""Distillation beside RL (section 4.1), RL on bases of several sizes (v2 G.1), and SFT in rounds beside RL.

    students' bases ---- rl ---- zero-140k, zero-280k, zero-580k
    qwen-580k's base --- sft --- distilled-580k-eighth, distilled-580k-half    (on the whole file: the main line's)
    qwen-580k ---------- rl ---- distilled-580k-rl
    R1-Zero's base --- (sample, sft) x rounds --- sft-rounds
                   --- sample, sft -------------- sft-once

Each is an arm (`stages.arms`), made of the main line's runs at the same seed.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from r1repro.config import Collect
from r1repro.config_arms import Versus
from r1repro.records import Refusal
from r1repro.run import read_json, read_lines, write_lines
from r1repro.stages import arms, collect, rl, sft
from r1repro.stages.r1_zero import base_folder
from r1repro.tinyworld import base

STUDENT = "qwen-580k"
"""The student that is both distilled and trained by RL: the largest of one architecture, as the paper's Qwen-32B is."""

SIZES = ("qwen-140k", "qwen-280k", STUDENT)
"""Bases of one architecture that have read equally much."""

FRACTIONS = {"eighth": 1 / 8, "half": 1 / 2}
"""Name -> share of the examples of the 800k stage; the whole is the student of the main line."""


def rl_from_base(settings: Versus, seed_dir: Path | str, student: str) -> Path:
    """R1-Zero's RL on the base of a student (the paper's Qwen-32B-Zero); the run folder.

    `STUDENT`'s has more rollouts than the others', whose settings are those of its checkpoint after as many.

    Where the paper is silent:
        How the settings of RL depend on the size of the base.  The 32B was trained with a learning rate of 2e-6 in the
        place of 3e-6 and all else equal (hyperparameters.csv, zero_qwen32b_rl); here all is equal, the rate too.
    """
    if student not in SIZES:
        raise Refusal(f"no base called {student!r} in this comparison: choose one of {', '.join(SIZES)}")
    cfg = settings.student_rl if student == STUDENT else settings.rl
    return rl.train(cfg, arms.run_of(seed_dir, zero(student)), base.folder(student), settings.machine)


def zero(student: str) -> str:
    """The arm of RL on a student's base.

    >>> zero("qwen-140k")
    'zero-140k'
    """
    return f"zero-{student.rpartition('-')[2]}"


def rl_from_distilled(settings: Versus, seed_dir: Path | str, model: Path | str) -> Path:
    """RL of the distilled student (``model``); the run folder."""
    return rl.train(settings.distilled_rl, arms.run_of(seed_dir, "distilled-580k-rl"), model, settings.machine)


def distill_fraction(settings: Versus, seed_dir: Path | str, name: str) -> Path:
    """The student of a part of the examples, at as many epochs; the model.

    Raises:
        Refusal: no such part; the examples are not there.
    """
    if name not in FRACTIONS:
        raise Refusal(f"no part of the examples called {name!r}: choose one of {', '.join(FRACTIONS)}")
    source, target = Path(seed_dir) / "dev3" / "examples.jsonl", Path(seed_dir) / "arms" / "fractions" / f"{name}.jsonl"
    rows = part_of(sft.read_examples(source), FRACTIONS[name], settings.seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_lines(target, rows)
    run = arms.run_of(seed_dir, f"distilled-580k-{name}")
    return sft.train(settings.distill, run, base.folder(STUDENT), target, settings.machine)


def part_of(rows: Sequence[dict], share: float, seed: int) -> list[dict]:
    """A part of some examples, drawn at random; a smaller part lies within a larger one.

    >>> half, whole = (part_of([{"id": n} for n in range(8)], share, 0) for share in (0.5, 1.0))
    >>> len(half), half == whole[:4]
    (4, True)
    """
    return random.Random(f"part/{seed}").sample(list(rows), len(rows))[: max(1, round(share * len(rows)))]


def samplings(settings: Versus, rounds: int) -> list[Collect]:
    """What each of some rounds samples: together as many outputs as `Versus.rl` draws, sampled as it samples.

    Every round asks new training questions.

    Raises:
        Refusal: the questions cannot be divided among the rounds.
    """
    like, total = settings.rl, settings.rl.num_rollouts * settings.rl.questions_per_rollout
    if total % rounds:
        raise Refusal(f"rounds is {rounds}, but {total} questions cannot be divided so: choose a divisor of {total}")
    return [
        replace(
            settings.sample, questions=like.questions, num_questions=total // rounds, temperature=like.temperature,
            outputs_per_question=like.outputs_per_question, max_tokens=like.max_tokens,
            seed=FIRST_SEED + 100 * settings.seed + (number if rounds > 1 else 0),
        )
        for number in range(1, rounds + 1)
    ]  # fmt: skip


FIRST_SEED = 10_000
"""Far from the seeds of the main line, so that no round asks the questions of rejection sampling."""


def sft_in_rounds(settings: Versus, seed_dir: Path | str, rounds: int | None = None) -> list[Path]:
    """Sample, keep what is right, fine-tune the sampler on it, and again: expert iteration; the model of each round.

    One round is plain SFT on rejection-sampled outputs of the untouched base.

    Args:
        rounds: None: those of the settings.

    Where the paper is silent:
        The peer-review file says "iterative SFT" and no more.  Here a round goes on from the model of the round before
        and learns from its own outputs alone, which is nearest to RL: what differs is that wrong outputs teach nothing
        and that the policy that samples changes once a round.  Going back to the base with all outputs so far would
        learn from those of weaker policies again.
    """
    rounds = rounds or settings.rounds
    place = arms.run_of(seed_dir, "sft-rounds" if rounds > 1 else "sft-once")
    models = [base_folder(settings.base)]
    for number, cfg in enumerate(samplings(settings, rounds), start=1):
        run = place / f"round-{number}"
        examples = collect.collect(cfg, run / "sample", models[-1], settings.machine)
        models.append(sft.train(settings.sft, run / "sft", models[-1], examples, settings.machine))
    return models[1:]


def spent(*runs: Path) -> dict[str, float]:
    """What some runs took: tokens ``sampled``, ``compared`` with a reference and ``trained``, and ``minutes``.

    Tokens of outputs; what reward models and judges sampled and read is not counted, but their minutes are.
    """
    found = dict.fromkeys(("sampled", "compared", "trained", "minutes"), 0.0)
    for run in runs:
        manifest = read_json(run / "manifest.json")
        tokens = manifest.get("tokens", {})
        found["sampled"] += tokens.get("sampled", 0)
        found["compared"] += tokens.get("sampled", 0) if manifest["stage"] == "rl" else 0
        found["trained"] += tokens.get("trained", 0)
        found["minutes"] += manifest["wall_s"] / 60
    return found


def spent_until(run: Path, step: int) -> dict[str, float]:
    """What a run of RL took until a step, as `spent` counts it; minutes of sampling, scoring and updates alone."""
    rows = [row for row in read_lines(run / "metrics.jsonl") if row["step"] <= step]
    sampled, trained = (sum(row.get(f"tokens/{kind}", 0.0) for row in rows) for kind in ("sampled", "trained"))
    laps = sum(row.get(f"time/{part}_s", 0.0) for row in rows for part in ("rollout", "reward", "update"))
    return {"sampled": sampled, "compared": sampled, "trained": trained, "minutes": laps / 60}
