"""The claims about the models of the pipeline (C10 to C18, C21, C22): what their rules name, measured with intervals.

A seed is what `models.read` gives: name -> `Model`.  `MEASURES` holds the parts of the rules, `measure` computes those
of a claim, `missing` says why it cannot, and `entries` makes lines of claims.json by `ledger.entry`:

    ledger_models.entries(["C10", "C11"], [models.read(seed_dir, out)])               # a notebook, of one seed
    ledger_models.entries(ids, models_of_each_seed, zero=seeds_of_r1_zero)            # a report, of every claim

Every part is a table a seed with a row a question, which was asked of all the models that the part compares: so the
bootstrap over seeds and questions pairs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from r1repro import ledger, measures, measures_arms, paper
from r1repro.ledger import Measurement, Part, SeedRuns
from r1repro.measures import Measure, Models, mean_of, pass1, steps_to
from r1repro.models import ARMS, MORE, NAMES, Model
from r1repro.records import Refusal

MEASURES: dict[str, Measure] = measures.MEASURES | measures_arms.MEASURES
"""What a rule in claims.csv may name, beside `ledger.MEASURES`."""


# Claims


def entries(ids: Sequence[str], seeds: Sequence[Models], zero: Sequence[SeedRuns] = ()) -> list[dict]:
    """The lines of claims.json of these claims: those about R1-Zero's run from ``zero``, those about models from
    ``seeds``; what neither can measure says why."""
    found = []
    for claim in map(paper.claim, ids):
        measured = ledger.measure(claim.id, zero) or measure(claim.id, seeds)
        found.append(ledger.entry(claim, _controlled(measured, claim, seeds), missing(claim.id, seeds)))
    return found


def _controlled(measured: Measurement | None, claim: paper.Claim, seeds: Sequence[Models]) -> Measurement | None:
    """A measurement with the parts of the claim's controls, where each of its seeds has run them."""
    names = [name for name, _, _ in ledger.parse_rule(claim.controls)]
    if measured is None or not names:
        return measured
    controls = _measured(names, seeds)
    if controls is None or controls.seeds != measured.seeds:
        return measured
    runs = tuple(dict.fromkeys((*measured.runs, *controls.runs)))
    return replace(measured, parts=measured.parts | controls.parts, runs=runs)


def measure(claim_id: str, seeds: Sequence[Models]) -> Measurement | None:
    """What the rule of a claim names, over those of the seeds that have its models; None if none has them, or if the
    rule names something else.

    A seed that lacks a model is not made up for: fewer than three seeds are a trend at most.

    Raises:
        Refusal: the models of a seed were asked different questions.
    """
    return _measured(_parts_of(claim_id), seeds)


def _measured(names: Sequence[str], seeds: Sequence[Models]) -> Measurement | None:
    seeds = [seed for seed in seeds if names and not _unfit(names, seed)]
    if not seeds:
        return None
    asked = {name: _asked_more(MEASURES[name], seeds) for name in names}
    for name, found in asked.items():
        for seed in found:  # a part compares its own models alone
            _check_asked_alike([seed[model] for model in MEASURES[name].models])
    read = [seed[model] for name, found in asked.items() for seed in found for model in MEASURES[name].models]
    return Measurement(
        parts={name: part(MEASURES[name], found) for name, found in asked.items()},
        detail=_detail(names, asked),
        seeds=tuple(seed[_models_of(names)[0]].seed for seed in seeds),
        runs=tuple(dict.fromkeys(run for model in read for run in model.runs)),
    )


def _asked_more(of: Measure, seeds: Sequence[Models]) -> Sequence[Models]:
    """The seeds, with what the measure's models answered to more questions, where all of them have that."""
    if of.more and all(name + MORE in seed for seed in seeds for name in of.models):
        return [{**seed, **{name: seed[name + MORE] for name in of.models}} for seed in seeds]
    return seeds


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
    absent = [name for name in _models_of(names) if name not in seed]
    if absent:
        lacking = [NAMES.get(name, name) for name in absent]
        where = "notebooks 04 to 08" if set(absent) - set(ARMS) else "CLAIMS=all"
        more = f" and {len(lacking) - 3} more" * (len(lacking) > 3)
        return f"{', '.join(lacking[:3])}{more} not evaluated yet ({where})"
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
        kinds = zip(_asked(model), _asked(found[0]), strict=True)
        if any(ours and theirs and ours != theirs for ours, theirs in kinds):  # arms may lack the open questions
            raise Refusal(
                f"{model.runs[0].path} or the open evaluation beside it asked other questions than those of "
                f"{found[0].name}: move the older one away and run its notebook again"
            )


def _detail(names: Sequence[str], asked: Mapping[str, Sequence[Models]]) -> dict:
    """What a reader wants to see beside the effects: of the models before and after in the rule's first part, and in
    ``beside`` of each further part.

    Args:
        asked: part -> the seeds with the models that it compares.
    """
    first, seeds = MEASURES[names[0]], asked[names[0]]
    models = [seed[first.after[0]] for seed in seeds]

    def mean(value: Callable[[Models, str], float], part: str = names[0]) -> list[float | None]:
        of = MEASURES[part]
        sides = [np.mean([value(s, name) for s in asked[part] for name in side]) for side in (of.before, of.after)]
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
        "pass1": mean(mean_of(pass1)),
        "truncated": mean(lambda seed, name: seed[name].truncated_QK.mean()),
        "length_right": mean(lambda seed, name: _length_of_right(seed[name])),
        "beside": {
            name: {"quantity": MEASURES[name].quantity, "values": mean(MEASURES[name].value, name)}
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
