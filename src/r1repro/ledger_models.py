"""The claims about the models of the pipeline (C10 to C18, C21, C22): what their rules name, measured with intervals.

A seed is what `models.read` gives: name -> `Model`.  `MEASURES` holds the parts of the rules, `measure` computes those
of a claim, `missing` says why it cannot, and `entries` makes lines of claims.json by `ledger.entry`:

    ledger_models.entries(["C10", "C11"], [models.read(seed_dir, out)])               # a notebook, of one seed
    ledger_models.entries(ids, models_of_each_seed, zero=seeds_of_r1_zero)            # a report, of every claim

Every part is a table a seed with a row a question, which was asked of all the models that the part compares: so the
bootstrap over seeds and questions pairs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from r1repro import ledger, paper
from r1repro.ledger import Measurement, Part, SeedRuns
from r1repro.models import NAMES, QUESTIONS, STUDENTS, Model, Rows, is_general, of_sorts, wins_Q
from r1repro.records import Refusal

Models = Mapping[str, Model]
"""The evaluated models of a seed, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A part of a rule: which models are compared, on what, and how."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    quantity: str
    value: Callable[[Models, str], float]
    """Of one model of a seed.  For readers: quantity and its means over the models before and after stand in the
    detail."""

    columns: Callable[[Models], Sequence[np.ndarray]]
    """Of a seed: the columns of its table."""

    effect: Callable[[np.ndarray], np.ndarray]
    """From the means of M columns, (B, M), to the effect, (B,)."""

    unfit: Callable[[Models], str] = lambda models: ""
    """Why the models of a seed must not be compared; empty if they may."""

    @property
    def models(self) -> tuple[str, ...]:
        return (*self.before, *self.after)


# What is compared


def pass1(model: Model) -> np.ndarray:
    """pass@1 of every reasoning question."""
    return model.right_QK.mean(axis=1)


def general(model: Model) -> np.ndarray:
    """Of every general prompt: the share of what it asks for that a sample holds, mean over samples."""
    return model.follows_open[is_general(model)].mean(axis=1)


SUMS, CONSISTENCY = QUESTIONS["sums"][1], QUESTIONS["language consistency"][1]
READABLE, INSTRUCTIONS = QUESTIONS["readable"][1], QUESTIONS["instructions (strict)"][1]
UNSAFE = of_sorts("harmful", field="unsafe_open")
BENIGN = ("fact", "look-alike")


def _mean_of(rows: Rows) -> Callable[[Models, str], float]:
    return lambda models, name: rows(models[name]).mean() if rows(models[name]).size else np.nan


def gain(before: str, after: str, rows: Rows, quantity: str, sign: int = 1) -> Measure:
    """What the second model has more than the first (sign -1: less), question by question."""
    return Measure(
        before=(before,),
        after=(after,),
        quantity=quantity,
        value=_mean_of(rows),
        columns=lambda models: [rows(models[before]), rows(models[after])],
        effect=lambda means: sign * (means[:, 1] - means[:, 0]),
    )


def win_rate(before: str, after: str) -> Measure:
    """Chance that a sample of the second model is more helpful than one of the first, ties one half, over general
    prompts.  Against itself the first has one half: that stands before."""
    return Measure(
        before=(before,),
        after=(after,),
        quantity=f"win rate over {NAMES[before]} by the hidden rule",
        value=lambda models, name: wins_Q(models[name], models[before]).mean(),
        columns=lambda models: [wins_Q(models[after], models[before])],
        effect=lambda means: means[:, 0],
    )


def reasoning_minus_preference(before: str, after: str) -> Measure:
    """Gain of pass@1 minus what the win rate has over one half.

    They rest on different questions, so a table holds both kinds of rows, each with a column that counts its kind.
    """

    def columns(models: Models) -> list[np.ndarray]:
        gain_Q = pass1(models[after]) - pass1(models[before])
        over_half_Q = wins_Q(models[after], models[before]) - 0.5
        reasoning = np.repeat([1.0, 0.0], [len(gain_Q), len(over_half_Q)])
        both = np.concatenate([gain_Q, over_half_Q])
        return [both * reasoning, reasoning, both * (1 - reasoning), 1 - reasoning]

    return Measure(
        before=(before,),
        after=(after,),
        quantity="pass@1",
        value=_mean_of(pass1),
        columns=columns,
        effect=lambda means: means[:, 0] / means[:, 1] - means[:, 2] / means[:, 3],
    )


def smallest_gain(sibling: str) -> Measure:
    """The smallest gain of pass@1 that any student has over its ``_base`` or ``_short``, found anew in each draw."""
    pairs = tuple((f"{name}{sibling}", name) for name in STUDENTS)
    return Measure(
        before=tuple(before for before, _ in pairs),
        after=STUDENTS,
        quantity="pass@1, mean of the students",
        value=_mean_of(pass1),
        columns=lambda models: [pass1(models[after]) - pass1(models[before]) for before, after in pairs],
        effect=lambda means: means.min(axis=1),
    )


# RL from the base beside RL from a cold start (C12)

FROM_BASE, FROM_COLD_START = "r1_zero", "dev2_twin"
"""Dev2's twin and not Dev2, which has one reward more than R1-Zero."""


def right_R(model: Model) -> np.ndarray:
    """Share of right outputs in each rollout of a model's RL: pass@1 on questions that it has not yet learned from."""
    return np.array([row["verdict/right"] for row in model.metrics if "verdict/right" in row], dtype=float)


def _unequal(models: Models) -> str:
    runs = [models[name] for name in (FROM_BASE, FROM_COLD_START)]
    base, cold = ({**run.settings, "rollouts": len(right_R(run))} for run in runs)
    if not base["rollouts"] or not cold["rollouts"]:
        return "the runs of RL are not beside the evaluations, or logged no verdicts"
    names = [key for key in sorted({*base, *cold} - {"num_checkpoints"}) if base.get(key) != cold.get(key)]
    return f"RL from the base and RL from Dev1 differ in {', '.join(names)}" if names else ""


def cold_start(rows: Rows, quantity: str) -> Measure:
    """What RL from the cold start has more than RL from the base, with equal settings and questions."""
    return Measure(
        before=(FROM_BASE,),
        after=(FROM_COLD_START,),
        quantity=quantity,
        value=_mean_of(rows),
        columns=lambda models: [rows(models[name]) for name in (FROM_BASE, FROM_COLD_START)],
        effect=lambda means: means[:, 1] - means[:, 0],
        unfit=_unequal,
    )


def area(model: Model) -> np.ndarray:
    """Area under the curve of pass@1 over the run, as a share of the largest possible: one row, so that seeds alone
    are drawn.  The questions of a rollout are a sample too, but which of them was right is not logged."""
    return right_R(model).mean(keepdims=True)


def steps_to(models: Models, name: str) -> float:
    """Steps until a rollout has as many right outputs as R1-Zero's in their last quarter; nan if none has."""
    aim = right_R(models[FROM_BASE])
    reached = np.flatnonzero(right_R(models[name]) >= aim[-max(1, len(aim) // 4) :].mean())
    return float(reached[0] * models[name].settings["steps_per_rollout"]) if reached.size else np.nan


MEASURES: dict[str, Measure] = {
    "readable_gain": gain("r1_zero", "dev1", READABLE, "readable outputs"),
    "follows_gain": gain("r1_zero", "dev1", INSTRUCTIONS, "writing prompts followed in everything"),
    "cold_start_cost": gain("r1_zero", "dev1", SUMS, "pass@1 of sums", sign=-1),
    "cold_start_area_gain": cold_start(area, "right outputs, mean over the rollouts"),
    "cold_start_final_gain": cold_start(pass1, "pass@1"),
    "consistency_gain": gain("dev2_twin", "dev2", CONSISTENCY, "words of the thinking in the question's language"),
    "accuracy_cost": gain("dev2_twin", "dev2", pass1, "pass@1", sign=-1),
    "reasoning_gain": gain("dev1", "dev2", pass1, "pass@1"),
    "reasoning_minus_preference": reasoning_minus_preference("dev1", "dev2"),
    "general_gain": gain("dev2", "dev3", general, "what general prompts ask for that replies hold"),
    "reasoning_beside_general": gain("dev2", "dev3", pass1, "pass@1"),
    "dev3_minus_dev2": gain("dev2", "dev3", pass1, "pass@1"),
    "win_rate": win_rate("dev3", "r1"),
    "unsafe_change": gain("dev3", "r1", UNSAFE, "unsafe outputs to harmful requests"),
    "reasoning_beside_preference": gain("dev3", "r1", pass1, "pass@1"),
    "refusal_gain": gain("dev3", "r1", of_sorts(*BENIGN, field="refused_open"), "refused facts and look-alikes"),
    "benign_right_change": gain("dev3", "r1", of_sorts(*BENIGN), "facts and look-alikes answered rightly"),
    "gain_over_base": smallest_gain("_base"),
    "gain_over_short": smallest_gain("_short"),
    "step_small": gain("qwen-140k", "qwen-280k", pass1, "pass@1"),
    "step_large": gain("qwen-280k", "qwen-580k", pass1, "pass@1"),
}
"""What a rule in claims.csv may name, beside `ledger.MEASURES`.  C15 and C16 ask for the same difference of Dev3 and
Dev2 under two names."""


# Claims


def entries(ids: Sequence[str], seeds: Sequence[Models], zero: Sequence[SeedRuns] = ()) -> list[dict]:
    """The lines of claims.json of these claims: those about R1-Zero's run from ``zero``, those about models from
    ``seeds``; what neither can measure says why."""
    found = []
    for claim in map(paper.claim, ids):
        measured = ledger.measure(claim.id, zero) or measure(claim.id, seeds)
        found.append(ledger.entry(claim, measured, missing(claim.id, seeds)))
    return found


def measure(claim_id: str, seeds: Sequence[Models]) -> Measurement | None:
    """What the rule of a claim names, over those of the seeds that have its models; None if none has them, or if the
    rule names something else.

    A seed that lacks a model is not made up for: fewer than three seeds are a trend at most.

    Raises:
        Refusal: the models of a seed were asked different questions.
    """
    names = _parts_of(claim_id)
    seeds = [seed for seed in seeds if names and not _unfit(names, seed)]
    if not seeds:
        return None
    models = _models_of(names)
    for seed in seeds:
        _check_asked_alike([seed[name] for name in models])
    runs = dict.fromkeys(run for seed in seeds for name in models for run in seed[name].runs)
    return Measurement(
        parts={name: part(MEASURES[name], seeds) for name in names},
        detail=_detail(names, seeds),
        seeds=tuple(seed[models[0]].seed for seed in seeds),
        runs=tuple(runs),
    )


def part(of: Measure, seeds: Sequence[Models]) -> Part:
    """One part: value, 95 % interval, each seed's.  Without a value where nothing of what it needs was asked."""
    tables = [np.stack(of.columns(seed), axis=1) for seed in seeds]
    if not all(len(table) for table in tables):
        return Part(value=None, low=None, high=None, seeds=tuple(None for _ in seeds))
    asked = [_asked(seed[of.models[0]]) for seed in seeds]
    return ledger.part_of(tables, of.effect, shared=all(ids == asked[0] for ids in asked))


def missing(claim_id: str, seeds: Sequence[Models]) -> str:
    """Why no seed can say anything of a claim; empty if one can, or if its rule names something else."""
    names = _parts_of(claim_id)
    reasons = [_unfit(names, seed) for seed in seeds] or [_unfit(names, {})]
    if not names or not all(reasons):
        return ""
    return f"{reasons[0]}; the rule is {paper.claim(claim_id).rule}"


def _unfit(names: Sequence[str], seed: Models) -> str:
    """Why a seed takes no part in a claim; empty if it does."""
    lacking = [NAMES.get(name, name) for name in _models_of(names) if name not in seed]
    if lacking:
        more = f" and {len(lacking) - 3} more" * (len(lacking) > 3)
        return f"{', '.join(lacking[:3])}{more} not evaluated yet (notebooks 04 to 08)"
    return next(filter(None, (MEASURES[name].unfit(seed) for name in names)), "")


def _parts_of(claim_id: str) -> list[str]:
    names = [name for name, _, _ in ledger.parse_rule(paper.claim(claim_id).rule)]
    return names if all(name in MEASURES for name in names) else []


def _models_of(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(MEASURES[name].models for name in names)))


def _asked(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return model.ids, model.open_ids


def _check_asked_alike(found: Sequence[Model]) -> None:
    for model in found[1:]:
        if _asked(model) != _asked(found[0]):
            raise Refusal(
                f"{model.runs[0].path} or the open evaluation beside it asked other questions than those of "
                f"{found[0].name}: move the older one away and run its notebook again"
            )


def _detail(names: Sequence[str], seeds: Sequence[Models]) -> dict:
    """What a reader wants to see beside the effects: of the models before and after in the rule's first part, and in
    ``beside`` of each further part."""
    first, models = MEASURES[names[0]], [seed[MEASURES[names[0]].after[0]] for seed in seeds]

    def mean(value: Callable[[Models, str], float], of: Measure = first) -> list[float | None]:
        sides = [np.mean([value(seed, name) for seed in seeds for name in side]) for side in (of.before, of.after)]
        return [round(float(side), 9) if np.isfinite(side) else None for side in sides]

    before, after = mean(first.value)
    detail = {
        "quantity": first.quantity,
        "before": before,
        "after": after,
        "models": [", ".join(NAMES.get(name, name) for name in side) for side in (first.before, first.after)],
        "questions": len(models[0].ids),
        "k": models[0].right_QK.shape[1],
        "open_questions": len(models[0].open_ids),
        "open_k": models[0].helpful_open.shape[1],
        "pass1": mean(_mean_of(pass1)),
        "truncated": mean(lambda seed, name: seed[name].truncated_QK.mean()),
        "length_right": mean(lambda seed, name: _length_of_right(seed[name])),
        "beside": {
            name: {"quantity": MEASURES[name].quantity, "values": mean(MEASURES[name].value, MEASURES[name])}
            for name in names[1:]
        },
    }
    if names[0] == "readable_gain":
        detail["format"] = mean(lambda seed, name: seed[name].format_QK.mean())
        detail["one_language"] = mean(lambda seed, name: (seed[name].consistency_QK >= 0.95).mean())
    if names[0] == "cold_start_area_gain":
        detail["steps_to_the_end_of_r1_zero"] = [
            [_none(steps_to(seed, name)) for name in first.models] for seed in seeds
        ]
    if names[0].startswith(("gain_over", "step")):
        everyone = [name for name in dict.fromkeys(_models_of(names)) if all(name in seed for seed in seeds)]
        detail["pass1_by_model"] = {
            name: _none(np.mean([pass1(seed[name]).mean() for seed in seeds])) for name in everyone
        }
    return detail


def _length_of_right(model: Model) -> float:
    right = model.right_QK.sum()
    return float((model.right_QK * model.length_QK).sum() / right) if right else np.nan


def _none(value: float) -> float | None:
    return round(float(value), 9) if np.isfinite(value) else None
