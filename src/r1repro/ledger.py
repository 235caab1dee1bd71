"""From evaluation folders of several seeds to claims measured, with intervals, and verdicts.

`read` takes the runs of a tier from disk; `measure` computes what the rule of a claim about R1-Zero names (those about
the models of the pipeline: `r1repro.ledger_models`); `verdict` is the one function that says what a measurement means;
`entry` is the line of `claims.json`; `problems` says why a ledger must not be published.  Figures and pages are made in
`r1repro.report`.
"""

import csv
import hashlib
import io
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from r1repro import paper
from r1repro.algo.estimators import bootstrap, effects, slope, vote_right, weighted_mean, weighted_spearman
from r1repro.config_arms import SUMS
from r1repro.records import Refusal
from r1repro.rewards.language import is_mixed, reflection_count
from r1repro.run import read_json, read_lines, readable
from r1repro.tinyworld import families

VERDICTS = ("reproduced", "trend", "contradicted", "inconclusive", "untestable")

WIDEST = {"accuracy": 0.05, "correlation": 0.2, "ratio": 0.2}
"""Largest half-width of a 95 % interval that still counts as a measurement: absolute, or (ratio) relative to the ratio.
Accuracies and ratios by the design of this project.  A rank correlation over 200 questions has a half-width of about
0.14 whatever the model does, so it gets a limit of its own."""

SMALLEST_RATIO = 0.25
"""Below it a ratio need not be known to a fifth of itself: a half-width of 0.2 * 0.25 = 0.05 will do, as for an
accuracy.  What fell to nearly nothing is never known to a fifth of the little that is left, but that it fell is."""

POWER = sum(map(NormalDist().inv_cdf, (0.975, 0.8))) / NormalDist().inv_cdf(0.975)
"""So many half-widths from the threshold, an effect's interval leaves the threshold out in four studies of five."""

FEWEST_SEEDS = 3
"""With fewer seeds a claim is at best a trend."""

LEDGER_SEEDS = (0, 1, 2)
"""The seeds that claims are measured on.  Further seeds are held back: run once, at the end, and shown beside, in the
table of seeds."""

EARLY = 0.05
"""Share of the steps that the slope of the length leaves out: the paper's length dips first (near step 115 of 8,400)
and its claim is about what follows the first few percent."""


# What the runs hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One evaluation: what each of K samples to each of Q questions did; arrays are (Q, K) unless said otherwise."""

    step: int
    right_QK: np.ndarray
    """1 right, 0 not.  An output that could not be graded is not right; `ungraded` is the share of those."""

    vote_Q: np.ndarray
    """1 where the majority of the K samples is right."""

    length_QK: np.ndarray
    """Tokens generated."""

    truncated_QK: np.ndarray
    reflection_QK: np.ndarray
    """Reflection words of the question's language."""

    mixed_QK: np.ndarray
    ungraded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The address of a run: folder below `out`, SHA-256 of manifest.json followed by samples.jsonl, commit."""

    path: str
    digest: str
    commit: str | None
    dirty: bool
    wall_s: float
    """Seconds of all its sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRuns:
    """One seed: the run of RL and its evaluations, in the order of steps, all over the same questions."""

    seed: int
    ids: tuple[str, ...]
    language_Q: np.ndarray
    level_Q: np.ndarray
    checkpoints: tuple[Checkpoint, ...]
    metrics: tuple[dict, ...]
    runs: tuple[RunRecord, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    @property
    def start(self) -> Checkpoint:
        return self.checkpoints[0]

    @property
    def end(self) -> Checkpoint:
        return self.checkpoints[-1]

    @property
    def half(self) -> Checkpoint | None:
        """The checkpoint nearest to half of the steps, neither first nor last; the earlier one of two as near."""
        inner = self.checkpoints[1:-1]
        return min(inner, key=lambda c: (abs(c.step - self.end.step / 2), c.step)) if inner else None


def read(tier: str, out: Path, more: bool = True) -> list[SeedRuns]:
    """Every evaluated seed of a tier under `out`, by number.  Refusal where seeds cannot be set side by side.

    Args:
        more: whether evaluations on more sums (`SUMS`) are read where every seed that claims rest on has them, and not
            notebook 03's.
    """
    folders = {
        int(file.parent.name.removeprefix("seed-")): file.parent for file in Path(out, tier).glob("seed-*/evaluate")
    }
    chosen = LEDGER_SEEDS if set(LEDGER_SEEDS) <= set(folders) else folders
    places = dict.fromkeys(folders, "evaluate")
    if more and all(has_more_sums(folders[seed]) for seed in chosen):
        places |= {seed: SUMS for seed, folder in folders.items() if has_more_sums(folder)}
    seeds = [read_seed(folders[seed], Path(out), places[seed]) for seed in sorted(folders)]
    seeds = [seed for seed in seeds if seed is not None]
    if not seeds:
        raise Refusal(f"{Path(out, tier)} holds no evaluated seed: run `make reproduce TIER={tier}` first")
    for other in seeds[1:]:
        if other.steps != seeds[0].steps:
            raise Refusal(
                f"seed {other.seed} was evaluated at steps {list(other.steps)} and seed {seeds[0].seed} at "
                f"{list(seeds[0].steps)}: finish both with one config, or move one of them out of {Path(out, tier)}"
            )
    return seeds


def of_the_ledger(seeds: Sequence[SeedRuns]) -> list[SeedRuns]:
    """The seeds that the claims rest on: `LEDGER_SEEDS` where they are all there, else every one."""
    chosen = [seed for seed in seeds if seed.seed in LEDGER_SEEDS]
    return chosen if len(chosen) == len(LEDGER_SEEDS) else list(seeds)


def seed_row(seed: SeedRuns) -> dict[str, str]:
    """One seed in a line: accuracy and vote at the start, half-way and at the end, length, truncation, minutes."""
    marks = [c for c in (seed.start, seed.half, seed.end) if c is not None]
    k = seed.end.right_QK.shape[1]
    return {
        "seed": str(seed.seed) + ("" if seed.seed in LEDGER_SEEDS else " (held back)"),
        "pass@1": " -> ".join(f"{c.right_QK.mean():.3f}" for c in marks),
        f"cons@{k}": " -> ".join(f"{c.vote_Q.mean():.3f}" for c in marks),
        "tokens": " -> ".join(f"{c.length_QK.mean():.0f}" for c in marks),
        "cut at the cap": " -> ".join(f"{c.truncated_QK.mean():.3f}" for c in marks),
        "pass@1 by level at the end": " ".join(
            f"{pass1_at(seed.end, seed.level_Q == level):.2f}" for level in sorted(set(seed.level_Q.tolist()))
        ),
        "minutes of RL": f"{sum(run.wall_s for run in seed.runs if run.path.endswith('/r1_zero')) / 60:.1f}",
    }


def has_more_sums(folder: Path) -> bool:
    """Whether each checkpoint that notebook 03 has evaluated, and no other, has been asked more sums to the end."""
    few, many = (
        {manifest.parent.name: model_and_exit(manifest) for manifest in folder.glob(f"{place}/step-*/manifest.json")}
        for place in ("evaluate", SUMS)
    )
    of = [{step: model for step, (model, _) in found.items()} for found in (few, many)]
    return of[0] == of[1] and all(end == "complete" for _, end in many.values())


def model_and_exit(manifest: Path) -> tuple[str | None, str | None]:
    """The digest of the model that an evaluation asked, and how the evaluation ended.  Refusal where it is damaged."""
    with readable(manifest):
        about = read_json(manifest)
        return about.get("inputs", {}).get("model"), about.get("exit")


def read_seed(folder: Path, out: Path, place: str = "evaluate") -> SeedRuns | None:
    """The runs of one seed folder; None if it has no evaluation.  An evaluation without a manifest does not exist.

    Of an evaluation that asked several families, the chain sums alone (`headline`): the claims about R1-Zero (C01 to
    C09, C30) are measured on them, as the paper's on mathematics.

    Args:
        place: where in the folder the evaluations lie, notebook 03's or `SUMS`.
    """
    evaluations = sorted(folder.glob(f"{place}/step-*/manifest.json"))
    if not evaluations:
        return None
    records, checkpoints, questions = [], [], None
    rl = folder / "r1_zero"
    if (rl / "manifest.json").exists():
        records.append(record(rl, out))
    for manifest in evaluations:
        run = manifest.parent
        records.append(record(run, out))
        with readable(run / "samples.jsonl"):
            rows = headline(sorted(read_lines(run / "samples.jsonl"), key=lambda row: row["id"]))
            asked = [(row["id"], row["language"], row["level"]) for row in rows]
            if not rows or len({len(row["outputs"]) for row in rows}) > 1:
                raise Refusal(f"{run} has no chain sums, or not as many samples to each: evaluate it again")
            if questions is not None and asked != questions:
                raise Refusal(f"{run} asked other questions than the first checkpoint of its seed: evaluate both again")
            questions = asked
            checkpoints.append(_checkpoint(int(run.name.removeprefix("step-")), rows))
    checkpoints.sort(key=lambda c: c.step)
    if checkpoints[0].step != 0:
        raise Refusal(f"{folder} has no evaluation of the untouched base (step 0): evaluate step 0 too")
    return SeedRuns(
        seed=seed_of(folder),
        ids=tuple(id for id, _, _ in questions),
        language_Q=np.array([language for _, language, _ in questions]),
        level_Q=np.array([level for _, _, level in questions]),
        checkpoints=tuple(checkpoints),
        metrics=tuple(read_lines(rl / "metrics.jsonl")),
        runs=tuple(records),
    )


def headline(rows: list[dict]) -> list[dict]:
    """The rows that the claims about R1-Zero are measured on: of the tiny world the chain sums, of other questions all.

    Evaluations from before there were families name none.

    >>> headline([{"id": 1, "family": "logic"}, {"id": 2, "family": "chain_sum"}])
    [{'id': 2, 'family': 'chain_sum'}]
    >>> headline([{"id": 1}]), headline([{"id": 1, "family": "gsm8k"}])
    ([{'id': 1}], [{'id': 1, 'family': 'gsm8k'}])
    """
    world = [row for row in rows if row.get("family", "chain_sum") in families.ALL]
    return [row for row in world if row.get("family", "chain_sum") == "chain_sum"] if world else rows


def first_questions(seed: SeedRuns, count: int) -> SeedRuns:
    """The same seed with ``count`` of its questions, the first by their hashes; of no runs.

    What is told of all questions together, the share that was not graded and the metrics of training, stays.
    """

    def cut(part: Checkpoint | SeedRuns) -> dict[str, np.ndarray]:
        return {f.name: getattr(part, f.name)[:count] for f in fields(part) if f.name.endswith(("_Q", "_QK"))}

    checkpoints = tuple(replace(checkpoint, **cut(checkpoint)) for checkpoint in seed.checkpoints)
    return replace(seed, ids=seed.ids[:count], checkpoints=checkpoints, runs=(), **cut(seed))


def seed_of(folder: Path) -> int:
    """The number in the folder's name, or, where a person chose another name, the one the RL run was given."""
    number = folder.name.removeprefix("seed-")
    return int(number) if number.isdecimal() else int(read_json(folder / "r1_zero" / "manifest.json")["seed"])


def _checkpoint(step: int, rows: list[dict]) -> Checkpoint:
    def grid(value: Callable[[dict, str], float]) -> np.ndarray:
        return np.array([[value(output, row["language"]) for output in row["outputs"]] for row in rows], dtype=float)

    right_QK = grid(lambda output, _: output["verdict"] == "right")
    return Checkpoint(
        step=step,
        right_QK=right_QK,
        vote_Q=vote_right([[output["answer"] for output in row["outputs"]] for row in rows], right_QK),
        length_QK=grid(lambda output, _: output["length"]),
        truncated_QK=grid(lambda output, _: output["truncated"]),
        reflection_QK=grid(lambda output, language: reflection_count(output["text"], language)),
        mixed_QK=grid(lambda output, language: is_mixed(output["text"], language)),
        ungraded=float(grid(lambda output, _: output["score"] is None).mean()),
    )


def record(run: Path, out: Path) -> RunRecord:
    manifest = read_json(run / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("exit") != "complete":
        raise Refusal(f"{run} is not complete: start it again with the same command and it goes on where it stopped")
    digest = hashlib.sha256()
    for name in ("manifest.json", "samples.jsonl"):
        digest.update((run / name).read_bytes() if (run / name).exists() else b"")
    path, commit, dirty = f"{out.name}/{run.relative_to(out).as_posix()}", manifest.get("commit"), manifest.get("dirty")
    wall_s = manifest.get("wall_s", 0.0)
    return RunRecord(path=path, digest=digest.hexdigest(), commit=commit, dirty=bool(dirty), wall_s=wall_s)


# What a claim's rule names


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One named effect: value over all seeds, ends of its 95 % interval (None: without bound), and each seed's."""

    value: float | None
    low: float | None
    high: float | None
    seeds: tuple[float | None, ...]

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The parts of a claim's rule, in its order, with what a reader wants to see beside them."""

    parts: dict[str, Part]
    detail: dict
    seeds: tuple[int, ...]
    runs: tuple[RunRecord, ...]


def shared(seeds: Sequence[SeedRuns]) -> bool:
    """Whether all seeds were asked the same questions, so that one draw of questions serves them all."""
    return all(seed.ids == seeds[0].ids for seed in seeds)


def part(
    seeds: Sequence[SeedRuns],
    columns: Callable[[SeedRuns], Sequence[np.ndarray]],
    effect: Callable[[np.ndarray], np.ndarray],
    summary: Callable = weighted_mean,
) -> Part:
    """An effect of per-question columns, with its bootstrap over seeds and questions."""
    return part_of([np.stack(columns(seed), axis=1) for seed in seeds], effect, summary, shared=shared(seeds))


def part_of(tables: Sequence[np.ndarray], effect: Callable, summary: Callable = weighted_mean, *, shared: bool) -> Part:
    """An effect of tables, one a seed with a row a question; see `bootstrap`.

    Rounded to nine digits, so that the noise of adding floats in another order never decides a sign.  Where the effect
    is undefined (a rate of zero to begin with) the value is None, and so are the ends of the interval that it opens.
    """
    interval = bootstrap(tables, effect, summary=summary, shared=shared)
    each = tuple(_finite(value) for value in effects(tables, effect, summary=summary))
    value, low, high = (_finite(x) for x in interval)
    return Part(value=value, low=low, high=high, seeds=each)


def _finite(value: float) -> float | None:
    return round(float(value), 9) if np.isfinite(value) else None


def _gain(means: np.ndarray) -> np.ndarray:
    return means[:, 1] - means[:, 0]


def _change(seeds: Sequence[SeedRuns], value_Q: Callable[[Checkpoint], np.ndarray]) -> Part:
    """Least-squares slope over all checkpoints times the steps of the run: the change over the whole run."""
    steps = seeds[0].steps
    return part(
        seeds,
        lambda seed: [value_Q(c) for c in seed.checkpoints],
        lambda means: slope(steps, means) * (steps[-1] - steps[0]),
    )


def _vote_gain(checkpoint: Checkpoint) -> np.ndarray:
    return checkpoint.vote_Q - checkpoint.right_QK.mean(axis=1)


def _vote_gain_half(seeds: Sequence[SeedRuns]) -> Part:
    if seeds[0].half is None:
        return Part(value=None, low=None, high=None, seeds=tuple(None for _ in seeds))
    return part(seeds, lambda seed: [_vote_gain(seed.half)], lambda means: means[:, 0])


def _ratio(seeds: Sequence[SeedRuns], over: Callable, under: Callable, where: Callable | None = None) -> Part:
    """(over/under at the end) to (over/under at the start), each a sum over all outputs of the chosen questions."""

    def columns(seed: SeedRuns) -> list[np.ndarray]:
        chosen_Q = np.ones(len(seed.ids)) if where is None else where(seed)
        return [chosen_Q * f(c).sum(axis=1) for c in (seed.start, seed.end) for f in (over, under)]

    return part(seeds, columns, lambda m: (m[:, 2] / m[:, 3]) / (m[:, 0] / m[:, 1]))


def fitted_steps(steps: Sequence[int]) -> list[int]:
    """Indices of the checkpoints that the slope of the length uses: those after the first 5 % of the steps.

    If fewer than three would be left, all are used, step 0 too: then the slope may hold the early dip.

    >>> fitted_steps([0, 10, 20, 30]), fitted_steps([0, 4, 100, 200]), fitted_steps([0, 10, 20])
    ([1, 2, 3], [0, 1, 2, 3], [0, 1, 2])
    """
    late = [i for i, step in enumerate(steps) if step > EARLY * steps[-1]]
    return late if len(late) >= 3 else list(range(len(steps)))


def _length_slope(seeds: Sequence[SeedRuns]) -> Part:
    used = fitted_steps(seeds[0].steps)
    steps = np.array(seeds[0].steps, dtype=float)[used]

    def growth(means: np.ndarray) -> np.ndarray:
        rise = slope(steps, means) * (steps[-1] - steps[0])
        fitted_start = means.mean(axis=1) - rise * (steps.mean() - steps[0]) / (steps[-1] - steps[0])
        return rise / fitted_start

    return part(seeds, lambda seed: [seed.checkpoints[i].length_QK.mean(axis=1) for i in used], growth)


def hard_levels(level_Q: np.ndarray) -> list[int]:
    """The two highest levels that were asked, as levels 4 and 5 of MATH; the highest alone where there are but two."""
    levels = sorted({int(level) for level in level_Q})
    return levels[-2:] if len(levels) > 2 else levels[-1:]


def _hard_minus_easy(seeds: Sequence[SeedRuns]) -> Part:
    def columns(seed: SeedRuns) -> list[np.ndarray]:
        hard_Q = np.isin(seed.level_Q, hard_levels(seed.level_Q)).astype(float)
        gain_Q = seed.end.right_QK.mean(axis=1) - seed.start.right_QK.mean(axis=1)
        return [hard_Q * gain_Q, hard_Q, (1 - hard_Q) * gain_Q, 1 - hard_Q]

    return part(seeds, columns, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3])


def _length_of_right(checkpoint: Checkpoint) -> np.ndarray:
    return checkpoint.right_QK * checkpoint.length_QK


def _difficulty_spearman(seeds: Sequence[SeedRuns]) -> Part:
    """Spearman(1 - pass@1, mean length of right answers) over the questions answered rightly at least once, at the
    end; in each seed by itself, then averaged."""

    def columns(seed: SeedRuns) -> list[np.ndarray]:
        right_Q = seed.end.right_QK.sum(axis=1)
        return [1 - seed.end.right_QK.mean(axis=1), _length_of_right(seed.end).sum(axis=1), right_Q]

    def correlation(weights_BQ: np.ndarray, table_QM: np.ndarray) -> np.ndarray:
        solved = table_QM[:, 2] > 0
        if not solved.any():
            return np.full((len(weights_BQ), 1), np.nan)
        hard_Q, length_Q, right_Q = table_QM[solved].T
        return weighted_spearman(weights_BQ[:, solved], hard_Q, length_Q / right_Q)[:, None]

    return part(seeds, columns, lambda means: means[:, 0], summary=correlation)


def is_english(seed: SeedRuns) -> np.ndarray:
    return (seed.language_Q == "en").astype(float)


def is_chinese(seed: SeedRuns) -> np.ndarray:
    return (seed.language_Q == "zh").astype(float)


def _reflection_rate(seeds: Sequence[SeedRuns], where: Callable = is_english) -> Part:
    return _ratio(seeds, lambda c: c.reflection_QK, lambda c: c.length_QK, where)


def _reflection_count(seeds: Sequence[SeedRuns], where: Callable = is_english) -> Part:
    return _ratio(seeds, lambda c: c.reflection_QK, lambda c: np.ones_like(c.length_QK), where)


MEASURES: dict[str, Callable[[Sequence[SeedRuns]], Part]] = {
    "pass1_gain": lambda s: part(
        s, lambda seed: [seed.start.right_QK.mean(axis=1), seed.end.right_QK.mean(axis=1)], _gain
    ),
    "pass1_slope": lambda s: _change(s, lambda c: c.right_QK.mean(axis=1)),
    "vote_gain_half": _vote_gain_half,
    "vote_gain_end": lambda s: part(s, lambda seed: [_vote_gain(seed.end)], lambda means: means[:, 0]),
    "vote_gain_slope": lambda s: _change(s, _vote_gain),
    "length_ratio": lambda s: _ratio(s, lambda c: c.length_QK, lambda c: np.ones_like(c.length_QK)),
    "length_slope": _length_slope,
    "right_length_ratio": lambda s: _ratio(s, _length_of_right, lambda c: c.right_QK),
    "reflection_rate_ratio": _reflection_rate,
    "reflection_count_ratio": _reflection_count,
    "hard_minus_easy_gain": _hard_minus_easy,
    "mixed_slope": lambda s: _change(s, lambda c: c.mixed_QK.mean(axis=1)),
    "length_difficulty_spearman": _difficulty_spearman,
}
"""What a rule in claims.csv may name."""


# What stands beside an effect


def _words_per_1000_tokens(checkpoint: Checkpoint, chosen_Q: np.ndarray) -> float:
    chosen = chosen_Q > 0
    return _share(1000 * checkpoint.reflection_QK[chosen].sum(), checkpoint.length_QK[chosen].sum())


def _share(over: float, under: float) -> float:
    return float(over / under) if under else float("nan")


def length_of_right(checkpoint: Checkpoint) -> float:
    """Mean tokens of the right outputs; nan if there is none."""
    return _share(_length_of_right(checkpoint).sum(), checkpoint.right_QK.sum())


def pass1_at(checkpoint: Checkpoint, chosen_Q: np.ndarray) -> float:
    """pass@1 over the chosen questions; nan if there is none."""
    return _share((checkpoint.right_QK.mean(axis=1) * chosen_Q).sum(), chosen_Q.sum())


QUANTITIES: dict[str, tuple[str, Callable[[SeedRuns, Checkpoint], float]]] = {
    "pass1_gain": ("pass@1", lambda _, c: c.right_QK.mean()),
    "vote_gain_half": ("cons@k minus pass@1", lambda _, c: _vote_gain(c).mean()),
    "vote_gain_slope": ("cons@k minus pass@1", lambda _, c: _vote_gain(c).mean()),
    "length_ratio": ("tokens of an output", lambda _, c: c.length_QK.mean()),
    "reflection_rate_ratio": (
        "reflection words per 1000 tokens, English questions",
        lambda s, c: _words_per_1000_tokens(c, is_english(s)),
    ),
    "hard_minus_easy_gain": (
        "pass@1 of the hard levels",
        lambda s, c: pass1_at(c, np.isin(s.level_Q, hard_levels(s.level_Q))),
    ),
    "mixed_slope": ("share of outputs that mix languages", lambda _, c: c.mixed_QK.mean()),
    "length_difficulty_spearman": ("mean tokens of right outputs", lambda _, c: length_of_right(c)),
}
"""By the first part of a rule: what `before` and `after` in the detail are."""


def _detail(names: Sequence[str], seeds: Sequence[SeedRuns]) -> dict:
    def mean(value: Callable[[SeedRuns, Checkpoint], float], *checkpoints: str) -> list[float | None]:
        values = [[value(s, getattr(s, which)) for s in seeds] for which in checkpoints or ("start", "end")]
        return [_finite(np.mean(row)) for row in values]

    first, steps = seeds[0], seeds[0].steps
    quantity, value = QUANTITIES.get(names[0], (names[0], lambda *_: float("nan")))
    before, after = mean(value)
    detail = {
        "quantity": quantity,
        "before": before,
        "after": after,
        "questions": len(first.ids),
        "k": first.end.right_QK.shape[1],
        "steps": list(steps),
        "pass1": mean(lambda _, c: c.right_QK.mean()),
        "truncated": mean(lambda _, c: c.truncated_QK.mean()),
        "length_right": mean(lambda _, c: length_of_right(c)),
        "ungraded": mean(lambda _, c: c.ungraded),
    }
    if "vote_gain_half" in names and first.half is not None:
        detail["half"] = {"step": first.half.step, "pass1": mean(lambda _, c: c.right_QK.mean(), "half")[0]}
        detail["half"]["cons"] = mean(lambda _, c: c.vote_Q.mean(), "half")[0]
    if names[0].startswith("vote_gain"):
        detail["cons"] = mean(lambda _, c: c.vote_Q.mean())
    if "length_slope" in names:
        detail["slope_over_steps"] = [steps[i] for i in fitted_steps(steps)]
    if names[0].startswith("reflection"):
        rate, count = _reflection_rate(seeds, is_chinese), _reflection_count(seeds, is_chinese)
        detail["chinese"] = {"rate_ratio": _part_row(rate), "count_ratio": _part_row(count)}
        detail["chinese"]["per_1000_tokens"] = mean(lambda s, c: _words_per_1000_tokens(c, is_chinese(s)))
    if names[0] == "hard_minus_easy_gain":
        levels = sorted({int(level) for level in first.level_Q})
        detail["hard_levels"] = hard_levels(first.level_Q)
        detail["pass1_by_level"] = {
            str(level): mean(lambda s, c, level=level: pass1_at(c, s.level_Q == level)) for level in levels
        }
    return detail


def detectable(measured: Part, threshold: float, unit: str) -> float | None:
    """The power of a design, told by its interval: an effect so far from its threshold is told from it in four studies
    of five.  Of a ratio (and of a relative change, as a ratio) the factor above its threshold, or below.

    By the normal approximation, and at best: where seeds disagree, the interval of three is narrower than it should be.
    None where the interval has no width or no bound: nothing varied, so nothing says what would have been seen.

    >>> round(detectable(Part(value=0.5, low=0.46, high=0.54, seeds=()), 0.0, "accuracy"), 4)
    0.0572
    >>> round(detectable(Part(value=2.0, low=1.6, high=2.5, seeds=()), 1.0, "ratio"), 3)
    1.376
    """
    if measured.half_width is None or measured.half_width <= 0:
        return None
    if unit != "ratio":
        return _finite(POWER * measured.half_width)
    low, high = (end + (1 - threshold) for end in (measured.low, measured.high))
    return _finite((high / low) ** (POWER / 2)) if low > 0 else None


def _part_row(measured: Part) -> dict:
    names = ("value", "low", "high", "half_width")
    return {name: getattr(measured, name) for name in names} | {"seeds": list(measured.seeds)}


def measure(claim_id: str, seeds: Sequence[SeedRuns]) -> Measurement | None:
    """What the rule of a claim names, over these seeds; None if the rule is empty or names what is not measured here.

    Also None with a single checkpoint: nothing has been trained that could be compared with the base.
    """
    names = [name for name, _, _ in parse_rule(paper.claim(claim_id).rule)]
    if not names or any(name not in MEASURES for name in names) or not seeds or len(seeds[0].checkpoints) < 2:
        return None
    return Measurement(
        parts={name: MEASURES[name](seeds) for name in names},
        detail=_detail(names, seeds),
        seeds=tuple(seed.seed for seed in seeds),
        runs=tuple(record for seed in seeds for record in seed.runs),
    )


# What a measurement means


def parse_rule(rule: str) -> list[tuple[str, str, float]]:
    """The parts of a rule in claims.csv: name, `>` or `<`, threshold.

    >>> parse_rule("length_ratio > 1; vote_gain_slope < 0")
    [('length_ratio', '>', 1.0), ('vote_gain_slope', '<', 0.0)]
    """
    terms = [re.fullmatch(r"(\w+) ([<>]) (-?\d+(?:\.\d+)?)", term) for term in rule.split("; ") if rule]
    if None in terms:
        raise Refusal(f"rule {rule!r} cannot be read: write `name > number; name < number`")
    return [(term[1], term[2], float(term[3])) for term in terms]


def verdict(rule: str, parts: Mapping[str, Part] | None, unit: str) -> str:
    """What a measurement means for a claim: one of VERDICTS.  See `judge` for the order of the questions.

    >>> gain = Part(value=0.5, low=0.46, high=0.54, seeds=(0.5, 0.48, 0.52))
    >>> verdict("pass1_gain > 0", {"pass1_gain": gain}, "accuracy")
    'reproduced'
    """
    return judge(rule, parts, unit)[0]


def judge(rule: str, parts: Mapping[str, Part] | None, unit: str) -> tuple[str, str]:
    """The verdict on a claim, and why, in one line.  A rule is a conjunction: all of its parts belong to the claim.

    1. *untestable*: no rule, or nothing measured.
    2. *contradicted*: the interval of a part lies wholly on the wrong side, and this part is measured narrowly enough
       (`WIDEST`).  First, because one false part makes the whole claim false, however vague the others; and with any
       number of seeds, because bad news must not be easier to lose than good news.
    3. *inconclusive*: a part is not measured narrowly enough, or not at all (undefined, without bound).  Even if its
       interval excludes the threshold: what is known only roughly is not a measurement, on either side.
    4. *reproduced*: every interval lies on the right side, every seed has the right sign in every part, and there are
       three seeds at least.
    5. *trend*: every value is on the right side, but an interval includes the threshold, or the seeds disagree, or are
       too few.
    6. *inconclusive*: a value on the wrong side (or on the threshold) whose interval includes the threshold.

    A ratio is measured if its half-width is at most a fifth of it, or of `SMALLEST_RATIO` where it is smaller.  A
    relative change, such as `length_slope > 0`, is a ratio less one, so a fifth of (1 + value) is asked of it: the same
    measurement, written in another way, must get the same verdict.
    """
    terms = parse_rule(rule)
    if not terms or not parts:
        return "untestable", "nothing was measured"
    held = [(name, threshold, 1.0 if sign == ">" else -1.0, parts[name]) for name, sign, threshold in terms]
    vague = {name: _why_not_measured(part, threshold, unit) for name, threshold, _, part in held}
    for name, threshold, sign, part in held:
        if not vague[name] and max(sign * (part.low - threshold), sign * (part.high - threshold)) < 0:
            return "contradicted", f"the interval of {name} lies on the other side of {threshold:g}"
    for name, reason in vague.items():
        if reason:
            return "inconclusive", f"{name} {reason}"
    wrong = [name for name, threshold, sign, part in held if sign * (part.value - threshold) <= 0]
    if wrong:
        return "inconclusive", f"the value of {wrong[0]} lies on the other side of its threshold, its interval on both"
    for name, threshold, sign, part in held:
        if min(sign * (part.low - threshold), sign * (part.high - threshold)) <= 0:
            return "trend", f"the interval of {name} includes {threshold:g}"
    for name, threshold, sign, part in held:
        if any(value is None or sign * (value - threshold) <= 0 for value in part.seeds):
            return "trend", f"not every seed agrees in {name}"
    for *_, part in held:
        if len(part.seeds) < FEWEST_SEEDS:
            return "trend", f"{len(part.seeds)} of at least {FEWEST_SEEDS} seeds"
    return "reproduced", "every part holds with its interval, and all seeds agree"


def _why_not_measured(measured: Part, threshold: float, unit: str) -> str:
    if unit not in WIDEST:
        raise Refusal(f"unit {unit!r} of a claim is unknown: use one of {', '.join(WIDEST)}")
    if measured.value is None or measured.half_width is None:
        return "has no bounded value (a rate of zero at the start, or nothing to compare)"
    scale = max(abs(measured.value + (1 - threshold)), SMALLEST_RATIO) if unit == "ratio" else 1.0
    widest = WIDEST[unit] * scale
    if measured.half_width <= widest + 1e-9:
        return ""
    return f"is known too roughly: half-width {measured.half_width:.3g}, at most {widest:.3g} counts as measured"


def entry(claim: paper.Claim, measurement: Measurement | None, because: str = "") -> dict:
    """The line of claims.json: ours, low and high are the effect of the rule's first part; the rest is in detail.

    ``because`` says why a claim that has a rule is not measured.
    """
    row = {"id": claim.id, "claim": claim.claim, "paper": claim.paper_numbers}
    if measurement is None:
        why = claim.untested_because or because or f"no run of this tier measures {claim.rule}"
        detail = {"untested_because": why, "why": why}
        row |= {"ours": None, "low": None, "high": None, "detail": detail, "seeds": []}
        return row | {"verdict": verdict(claim.rule, None, claim.unit), "rule": claim.rule, "runs": []}
    first = next(iter(measurement.parts.values()))
    controls = [name for name, _, _ in parse_rule(claim.controls)]
    has_controls = bool(controls) and all(name in measurement.parts for name in controls)
    rule = "; ".join([claim.rule, *[claim.controls] * has_controls])
    found, why = judge(rule, measurement.parts, claim.unit)
    if controls and not has_controls and found == "reproduced":
        found, why = "trend", f"its controls were not run with these seeds and settings (CLAIMS=all): {claim.controls}"
    detail = {"why": why, "unit": claim.unit, **measurement.detail}
    limits = {name: threshold for name, _, threshold in parse_rule(claim.rule) + parse_rule(claim.controls)}
    detail["parts"] = {
        name: _part_row(measured) | {"detectable": detectable(measured, limits[name], claim.unit)}
        for name, measured in measurement.parts.items()
    }
    row |= {"ours": first.value, "low": first.low, "high": first.high, "detail": detail}
    runs = [{"path": run.path, "digest": run.digest, "commit": run.commit} for run in measurement.runs]
    return row | {"seeds": list(measurement.seeds), "verdict": found, "rule": rule, "runs": runs}


# What forbids publishing


def problems(seeds: Sequence[SeedRuns], claims_file: Path | None = None) -> list[str]:
    """Why this ledger must not be published, a line each: dirty or mixed commits, rules younger than the runs.

    The age of a rule is that of the commit which last changed the rule or the unit of that very claim, so a claim
    added later does not spoil the runs of the others.  A rule that has only been made harder since may stay: `harder`.
    """
    runs = [run for seed in seeds for run in seed.runs]
    dirty, commits = [run.path for run in runs if run.dirty], sorted({run.commit or "none" for run in runs})
    found = []
    if dirty:
        found.append(f"{dirty[0]} and {len(dirty) - 1} more runs were made with uncommitted changes: commit, run again")
    if len(commits) > 1 or "none" in commits:
        found.append(f"the runs come from commits {', '.join(c[:12] for c in commits)}: make them all from one commit")
        return found
    file = claims_file or paper.folder() / "claims.csv"
    kept = harder(commits[0], file)
    for claim_id, commit in rule_commits(file).items():
        if commit is None:
            found.append(f"the rule of {claim_id} in {file.name} is not committed: commit it, then run")
        elif claim_id not in kept and _git(file.parent, "merge-base", "--is-ancestor", commit, commits[0]) is None:
            found.append(
                f"the rule of {claim_id} was changed in {commit[:12]}, which the runs of {commits[0][:12]} "
                "do not contain: run again from a commit that has the rule"
            )
    return found


def rule_commits(claims_file: Path) -> dict[str, str | None]:
    """By claim that has a rule: the commit that gave it its present rule and unit; None if that is not committed."""
    now = _rules(claims_file.read_text(encoding="utf-8"))
    since: dict[str, str | None] = dict.fromkeys(now)
    waiting = set(now)
    for commit in (_git(claims_file.parent, "log", "--format=%H", "--", claims_file.name) or "").split():
        then = _rules(_git(claims_file.parent, "show", f"{commit}:./{claims_file.name}") or "")
        waiting = {claim_id for claim_id in waiting if then.get(claim_id) == now[claim_id]}
        since |= dict.fromkeys(waiting, commit)
    return since


def harder(commit: str, claims_file: Path | None = None) -> dict[str, list[str]]:
    """By claim whose rule has only been made harder to meet since a commit: the parts that were added to it."""
    file = claims_file or paper.folder() / "claims.csv"
    then = _rules(_git(file.parent, "show", f"{commit}:./{file.name}") or "")
    found = {}
    for claim_id, (rule, controls, unit) in _rules(file.read_text(encoding="utf-8")).items():
        before = then.get(claim_id, ("", "", None))
        was, now = ([set(text.split("; ")) - {""} for text in texts] for texts in (before[:2], (rule, controls)))
        if before[2] == unit and was != now and all(old <= new for old, new in zip(was, now, strict=True)):
            found[claim_id] = sorted(now[0] - was[0]) + sorted(now[1] - was[1])
    return found


def _rules(text: str) -> dict[str, tuple[str, ...]]:
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row.get("rule")]
    return {row["id"]: (row["rule"], row.get("controls") or "", row["unit"]) for row in rows}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, or None if it fails: not a repository, no such commit, or the answer is no."""
    result = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None
