"""The model of a fleet (`engine.fleet`) held against rollouts of this machine; writes `results/cpu-fleet.json`.

    OMP_NUM_THREADS=1 python -m bench.fleet

A gauge says what a token takes of n rows side by side, and what a prompt takes: outputs that never end, to questions
that nothing else asks.  Then real rollouts of the bases, of other sizes, are sampled and timed.  The model is given the
gauge and how long the outputs came to be, and foretells the seconds.  Last comes a run at tier smoke with its updates:
rewards and updates are fitted on its first half, and the second half is foretold.

Seconds are those of the processor, of one thread: what else runs on the machine takes none of them, and where nothing
does they are those of a clock.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench import rollout
from bench.run import RESULTS, commit
from r1repro import config, data
from r1repro.config import Machine, Policy
from r1repro.engine import actor, fleet, sampler, workload
from r1repro.run import environment, now, write_json
from r1repro.stages import rl
from r1repro.tinyworld import base

FILE = RESULTS / "cpu-fleet.json"
AIM = 0.25
"""Largest relative error of a foretold time that the model is meant to have."""

GAUGE, ASKED = 1000, 2000
"""Seeds of the gauge's questions, and of those of the rollouts."""

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHORT, LONG = 8, 72
"""Tokens of two gauges, whose difference is tokens alone; real outputs of the bases have about 40 on the mean."""

GROUP = 16
TIMES = 3
"""Of each measurement; the shortest counts, as in `gauge.seconds`."""

BASES: dict[str, list[dict[str, int]]] = {
    "tiny-1m": [
        {"questions": 1},
        {"questions": 4},
        {"questions": 8},
        {"questions": 16},
        {"questions": 32},
        {"questions": 16, "cap": 48},
        {"questions": 16, "rows": 64},
        {"questions": 32, "rows": 128},
        {"questions": 64},
        {"questions": 16, "workers": 2},
        {"questions": 32, "workers": 4},
    ],
    "llama-400k": [{"questions": 8}, {"questions": 32}],
}
"""Base -> rollouts: questions, each with `GROUP` outputs; cap of an output, rows side by side, and workers, where they
are others than `USUAL`.  Workers sample their shares one after the other here, and the longest counts."""

USUAL = {"cap": 448, "rows": 512, "workers": 1}

FITTED = 4
"""Rollouts of the run at tier smoke, of eight, that rewards and updates are fitted on."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Lengths as they were measured, in the order of their outputs."""

    lengths: Sequence[int]

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return np.array(self.lengths[:count])


# What is foretold, from what stands in the file


def lengths_of(row: dict[str, Any]) -> list[int]:
    return [int(length) for length in row["lengths"].split()]


def costs_of(gauge: dict[str, Any], rows: int, **more: float) -> workload.Costs:
    token_s = workload.through({int(n): seconds for n, seconds in gauge["token_s"].items()})
    return workload.Costs(token_s=token_s[: rows + 1], prompt_s=gauge["prompt_s"], **more)


def foretold(row: dict[str, Any], gauge: dict[str, Any]) -> float:
    """Seconds of a rollout's sampling, by the model."""
    lengths, rows = lengths_of(row), row["rows"]
    each = len(lengths) // row["workers"]
    chunk = each if each <= rows else max(1, rows // sampler.COHORTS // GROUP) * GROUP
    some = fleet.Fleet(gpus=row["workers"], chunk=chunk if row["workers"] == 1 else 1)
    return fleet.timeline(some, costs_of(gauge, rows), InTurn(lengths), outputs=len(lengths)).wall_s


def fitted(rollouts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What rewards take, and what the reference and the updates take of a token, in some rollouts."""
    tokens = sum(sum(lengths_of(row)) for row in rollouts)
    return {
        "reward_s": statistics.mean(row["laps"]["reward_s"] + row["laps"]["log_s"] for row in rollouts),
        "train_s": sum(row["laps"]["reference_s"] + row["laps"]["update_s"] for row in rollouts) / tokens,
    }


def foretold_whole(row: dict[str, Any], gauge: dict[str, Any], fit: dict[str, float]) -> float:
    """Seconds of a rollout with rewards and updates, by the model."""
    lengths = lengths_of(row)
    costs = costs_of(gauge, len(lengths), **fit)
    one = fleet.Fleet(gpus=1, chunk=len(lengths))
    return fleet.timeline(one, costs, InTurn(lengths), outputs=len(lengths)).wall_s


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The file with what is foretold, and the errors beyond the aim by name."""
    rollouts = [row | {"foretold_s": foretold(row, found["gauges"][row["base"]])} for row in found["rollouts"]]
    fit = fitted(found["run"][:FITTED])
    gauge = found["gauges"]["tiny-1m"]
    run = found["run"][:FITTED] + [
        row | {"foretold_s": foretold_whole(row, gauge, fit)} for row in found["run"][FITTED:]
    ]
    told = [row for row in rollouts + run if "foretold_s" in row]
    errors = {row["name"]: row["foretold_s"] / row["seconds"] - 1 for row in told}
    missed = {name: error for name, error in errors.items() if abs(error) > AIM}
    worst = max(errors.values(), key=abs)
    return found | {"rollouts": rollouts, "run": run, "fit": fit, "worst": worst, "missed": missed}


# What is measured


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and what came of it the last time."""
    seconds = []
    for _ in range(TIMES):
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    return min(seconds), result


class Processor(rl.Watch):
    """A watch of the processor's seconds."""

    def __init__(self):
        self.laps, self._at = {}, time.process_time()

    def lap(self, key: str) -> None:
        now = time.process_time()
        self.laps[key], self._at = now - self._at, now


def sampled(made: actor.Actor, questions: list, outputs: int, cap: int, rows: int, ends: bool) -> sampler.Samples:
    return sampler.sample(
        made.model, made.vocabulary.prompts(questions), outputs, key=(0, 0),
        question_keys=[int(q.id, 16) for q in questions], max_tokens=cap, ends=made.vocabulary.ends if ends else (),
        pad=made.vocabulary.pad, max_rows=rows,
    )  # fmt: skip


def gauged(made: actor.Actor) -> dict[str, Any]:
    token_s = {}
    for rows in ROWS:
        questions = data.rollout_questions("reasoning", GAUGE, 0, max(1, rows // GROUP))
        both = [timed(lambda q=questions, n=rows, t=t: sampled(made, q, min(n, GROUP), t, n, False))[0]
                for t in (SHORT, LONG)]  # fmt: skip
        token_s[str(rows)] = (both[1] - both[0]) / (LONG - SHORT)
    questions = data.rollout_questions("reasoning", GAUGE, 1, 16)
    first_s, _ = timed(lambda: sampled(made, questions, GROUP, 1, 512, False))
    return {"token_s": token_s, "prompt_s": max(0.0, first_s - token_s["256"]) / 256}


def measured(name: str, made: actor.Actor, number: int, changes: dict[str, int]) -> dict[str, Any]:
    row = USUAL | changes
    questions = data.rollout_questions("reasoning", ASKED + number, 0, row["questions"])
    each = len(questions) // row["workers"]
    shares = [questions[i * each : (i + 1) * each] for i in range(row["workers"])]
    seconds, lengths = [], []
    for share in shares:
        taken_s, samples = timed(lambda share=share: sampled(made, share, GROUP, row["cap"], row["rows"], True))
        seconds.append(taken_s)
        lengths.append(samples.length_N.tolist())
    differs = [f"{key} {value}" for key, value in changes.items() if key != "questions"]
    said = ", ".join([f"{name}, {row['questions']} x {GROUP}", *differs])
    dealt = [length for dealing in zip(*lengths, strict=True) for length in dealing]  # as the model deals them out
    return {"name": said, "base": name, **row, "seconds": max(seconds), "lengths": " ".join(map(str, dealt))}


def smoke_run() -> list[dict[str, Any]]:
    """What R1-Zero does at tier smoke, but for its files and the warm-up of its learning rate; see
    `rollout.one_rollout`."""
    cfg, weights = config.r1_zero("smoke", 0).rl, base.folder("tiny-1m")
    made = actor.load(weights)
    reference, optimizer = actor.Reference(made, weights, Policy()), rl.new_optimizer(made.model, cfg)
    rows = []
    for index in range(cfg.num_rollouts):
        done, laps = rollout.one_rollout(cfg, index, made, reference, optimizer, Machine(), Processor())
        lengths = " ".join(map(str, done.length_N.tolist()))
        name = f"tier smoke, rollout {index}"
        rows.append({"name": name, "seconds": sum(laps.values()), "laps": laps, "lengths": lengths})
    return rows


def main() -> None:
    began = time.perf_counter()
    found: dict[str, Any] = {
        "when": now(), "commit": commit(), "machine": environment(), "threads": torch.get_num_threads(), "aim": AIM,
        "gauges": {}, "rollouts": [],
    }  # fmt: skip
    for name, cases in BASES.items():
        made = actor.load(base.folder(name))
        sampled(made, data.rollout_questions("reasoning", GAUGE, 2, 4), GROUP, LONG, 512, True)  # warm
        found["gauges"][name] = gauged(made)
        found["rollouts"] += [measured(name, made, number, changes) for number, changes in enumerate(cases)]
    smoke_run()  # warm
    found = judged(found | {"run": smoke_run()})
    found["on_processor"] = time.process_time() / (time.perf_counter() - began)
    write_json(FILE, found)
    for row in found["rollouts"] + found["run"][FITTED:]:
        error = row["foretold_s"] / row["seconds"] - 1
        print(f"{row['name']:44} {row['seconds']:8.3f} s, foretold {row['foretold_s']:8.3f} s, {error:+.1%}")
    print(f"beyond {AIM:.0%}: {', '.join(found['missed']) or 'none'}; {found['on_processor']:.0%} of a processor")


if __name__ == "__main__":
    main()
