"""The claims about models on evaluations made up with known effects: each part by hand, verdicts in both directions."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from r1repro import ledger, ledger_models, measures_arms, models, paper, plots
from r1repro.records import Refusal

HERE = Path(__file__).parent
made = runpy.run_path(str(HERE / "test_models.py"))
write_model, write_run, SORTS = made["write_model"], made["write_run"], made["SORTS"]
write_world = runpy.run_path(str(HERE / "test_ledger.py"))["write_world"]

CLAIMS = ("C05", *(f"C{number}" for number in range(10, 34) if number != 30))

PIPELINE = {
    "r1_zero": dict(sums=4, others=2, own=2, write=1),
    "dev1": dict(sums=3, others=2, own=4, summary=3, write=2, helpful=(1, 1, 2, 2)),
    "dev2": dict(sums=4, others=3, own=4, write=2, fact=1, helpful=(1, 2, 2, 2)),
    "dev2_twin": dict(sums=4, others=3, own=3, truncated=1),
    "dev3": dict(sums=4, others=3, write=4, fact=3, translate=2, unsafe=2, alike=4, helpful=(1, 2, 2, 2)),
    "r1": dict(sums=4, others=3, fact=2, unsafe=0, refused=1, alike=3, helpful=(3, 3, 3, 3)),
}
ARMS = {
    "base": dict(sums=1, others=1), "base_pool": dict(sums=1, others=1), "pool_vote": dict(sums=2, others=1),
    "prm_best": dict(sums=2, others=2), "prm_rl": dict(sums=3, others=2), "tree": dict(sums=3, others=3),
    "tree_vote": dict(sums=2, others=2), "searched_1": dict(sums=3, others=3), "searched_2": dict(sums=3, others=3),
    "dev3_replies": dict(more={"proxy": (0.0, 0.0, 1.0, 1.0), "helpful": (2.0, 2.0, 1.0, 1.0)}),
    "hacked": dict(sums=3, others=2),
    "hacked_replies": dict(more={"proxy": (1.0, 1.0, 1.0, 2.0), "helpful": (1.0, 1.0, 1.0, 0.0)}),
    "cap_kept": dict(sums=2, length=16), "cap_raised": dict(sums=3, length=20),
}  # fmt: skip
STUDENTS = {
    "qwen-140k": (2, 2),
    "qwen-280k": (3, 2),
    "qwen-580k": (3, 3),
    "llama-220k": (4, 2),
    "llama-400k": (4, 3),
}
"""Right of four samples, sums and others, of each distilled student."""

RL = {"num_rollouts": 4, "steps_per_rollout": 4, "learning_rate": 1e-4, "num_checkpoints": 4}
RL |= {"questions_per_step": 2, "outputs_per_question": 4}
CURVES = {"r1_zero": (0.1, 0.2, 0.3, 0.4), "dev2_twin": (0.3, 0.4, 0.5, 0.6)}


VERSUS = {
    "zero-140k": dict(sums=2, others=1, repeats=1),
    "zero-580k-2": dict(sums=3, others=1),
    "zero-580k": dict(sums=3, others=2, repeats=2),
    "distilled-580k-rl": dict(sums=4, others=3),
    "sft-rounds": dict(sums=3, others=1),
    "sft-once": dict(sums=2, others=1),
}
VERSUS_RUNS = {"zero-140k": RL | {"num_rollouts": 2}, "zero-580k": RL | {"num_rollouts": 3}}
VERSUS_RUNS |= {f"sft-rounds/round-{n}/sample": {"num_questions": 8, "outputs_per_question": 4} for n in range(1, 5)}
VERSUS_RUNS |= {"sft-once/round-1/sample": {"num_questions": 32, "outputs_per_question": 4}}


def write_arms(seed_dir, specs, runs, **options):
    """Evaluations of arms, which are asked no open questions, and the runs behind them with their settings."""
    for name, spec in specs.items():
        write_model(seed_dir, name, **options, **spec)
        shutil.rmtree(seed_dir / "models" / name / "open")
    for place, config in runs.items():
        if not (seed_dir / "arms" / place).exists():
            write_run(seed_dir / "arms" / place, [], config=config)


PROTOCOL = {
    "zero_on": dict(sums=3, others=3, checkpoint=(0, 0, 1, 1), loops=(0, 0, 0, 0)),
    "zero_on_greedy": dict(sums=3, others=3, checkpoint=(0, 1, 2, 3), loops=(0, 0, 0, 1)),
    "r1_shots_1": dict(sums=4, others=2),
    "r1_shots_3": dict(sums=3, others=2),
    "whole_judge": dict(thinking=(1, 3, 2, 4), judged=(5, 7, 6, 8), helpful_more=(1, 1, 2, 2)),
    "summary_judge": dict(thinking=(1, 3, 2, 4), judged=(1, 3, 8, 6), helpful_more=(1, 1, 2, 2)),
    "grpo_short": dict(sums=4, others=2),
    "ppo_95": dict(sums=3, others=1),
    "ppo_100": dict(sums=4, others=2),
    "clip_small": dict(sums=3, others=2),
    "clip_paper": dict(sums=4, others=2),
    "clip_none": dict(sums=3, others=1),
}
"""Models asked otherwise and arms of RL (notebook 11); what an evaluation kept beside the usual of its four outputs."""

PROTOCOL_RUNS = {name: RL | {"gae_lambda": lam} for name, lam in (("ppo_95", 0.95), ("ppo_100", 1.0))}
PROTOCOL_RUNS |= {
    name: RL | {"clip_low": clip} for name, clip in (("clip_small", 0.2), ("clip_paper", 10.0), ("clip_none", 1e9))
}
MORE = ("checkpoint", "loops", "thinking", "judged", "helpful_more")


def write_protocol(seed_dir, name, runs=None, **spec):
    """An arm of notebook 11, which is asked no open questions."""
    more = {key.removesuffix("_more"): spec.pop(key) for key in MORE if key in spec}
    write_model(seed_dir, name, **spec)
    shutil.rmtree(seed_dir / "models" / name / "open")
    file = seed_dir / "models" / name / "reasoning" / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for k, output in ((k, output) for row in rows for k, output in enumerate(row["outputs"])):
        output |= {key: values[k] for key, values in more.items()}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if settings := (PROTOCOL_RUNS | (runs or {})).get(name):
        write_run(seed_dir / "arms" / name, [], config=settings)


def write_seed(seed_dir, changes=None, curves=CURVES, settings=None, runs=None, **options):
    """A seed's models: those above, but for what ``changes`` says of one; a name with None is left out."""
    specs = PIPELINE | ARMS | VERSUS | PROTOCOL
    for name, (sums, others) in STUDENTS.items():
        specs |= {name: dict(sums=sums, others=others), f"{name}_base": dict(sums=1, others=1)}
        specs[f"{name}_short"] = dict(sums=2, others=1)
    specs |= {name: spec and {**specs[name], **spec} for name, spec in (changes or {}).items()}
    specs = {name: spec for name, spec in specs.items() if spec is not None}
    for name in specs.keys() - models.ARMS.keys():
        write_model(seed_dir, name, **options, **specs[name])
    for name in specs.keys() & PROTOCOL.keys():
        write_protocol(seed_dir, name, runs, **options, **specs[name])
    arms = {name: spec for name, spec in specs.items() if name in models.ARMS.keys() - PROTOCOL.keys()}
    write_arms(seed_dir, arms, VERSUS_RUNS | (runs or {}), **options)
    for name, place in (("r1_zero", "r1_zero"), ("dev2_twin", "dev2/twin"), ("prm_rl", "arms/prm_rl")):
        rows = [{"step": 1 + 4 * i, "verdict/right": share} for i, share in enumerate(curves.get(name, ()))]
        rows += [{"step": 2 + 4 * i, "policy/loss": 0.0} for i in range(len(rows))]
        cfg = RL | {"num_checkpoints": len(name)} | (settings or {}).get(name, {})
        if not (seed_dir / place).exists():
            write_run(seed_dir / place, [], metrics=sorted(rows, key=lambda row: row["step"]), config=cfg)


def world(out, seeds=(0, 1, 2), **options):
    for seed in seeds:
        write_seed(out / f"seed-{seed}", **options)
    return [models.read(out / f"seed-{seed}", out.parent) for seed in seeds]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return world(tmp_path_factory.mktemp("models") / "out" / "smoke", questions=64, prompts=80)


def verdict(claim_id, seeds):
    (row,) = ledger_models.entries([claim_id], seeds)
    return row["verdict"]


BY_HAND = {
    "C05": {"cap_raised_accuracy_ratio": 3 / 2, "cap_raised_length_ratio": 20 / 16},
    "C10": {"readable_gain": 0.75, "follows_gain": 0.25},  # R1-Zero writes no summary; one more of four followed
    "C11": {"cold_start_cost": 0.25},
    "C12": {"cold_start_area_gain": 0.2, "cold_start_final_gain": (4 + 3 - 4 - 2) / 8},
    "C13": {"consistency_gain": 0.25, "accuracy_cost": 0.0},
    "C14": {"reasoning_gain": 0.25, "reasoning_minus_preference": 0.25 - ((0.25 + 3 * 0.75) / 4 - 0.5)},
    "C15": {"general_gain": (3 + 2 * 0.75 + 0.5) / 6 - (3 * 0.75 + 2 * 0.25) / 6, "reasoning_beside_general": 0.0},
    "C16": {"dev3_minus_dev2": 0.0},
    "C17": {"win_rate": 1.0, "unsafe_change": -0.5, "reasoning_beside_preference": 0.0},
    "C18": {"refusal_gain": 0.25, "benign_right_change": (2 + 3 - 3 - 4) / 8},
    "C19": {
        "hacked_proxy_gain": (3 * 3 / 4 + 1) / 4 - 0.5,
        "hacked_reasoning_change": (3 + 2 - 4 - 3) / 8,
        "hacked_helpful_change": 3 * 2 / 2 / 16 - 0.5,
    },
    "C21": {"gain_over_base": (2 + 2 - 2) / 8, "gain_over_short": (2 + 2 - 3) / 8},  # qwen-140k gains the least
    "C22": {"step_small": 1 / 8, "step_large": 1 / 8},
    "C23": {"distilled_minus_rl": (3 + 3 - 3 - 2) / 8},
    "C24": {"rl_on_distilled_gain": (4 + 3 - 3 - 3) / 8},
    "C25": {
        "rl_gain_large_minus_small": (3 + 1 - 2) / 8 - (2 + 1 - 2) / 8,
        "repetition_small_minus_large": 1 / 4,
        "repetition_growth_small_minus_large": 1 / 4,
    },
    "C33": {"grpo_minus_iterated": (4 + 2 - 3 - 1) / 8, "iterated_minus_sft": (3 + 1 - 2 - 1) / 8},
    "C26": {"prm_rerank_gain": 2 / 8, "prm_minus_vote": 1 / 8, "prm_rl_minus_rule_rl": (3 + 2 - 4 - 2) / 8},
    "C27": {
        "search_gain": 4 / 8,
        "search_minus_vote": 2 / 8,
        "second_round_minus_first": 0 - 4 / 8,
        "second_round_gain": 0.0,
    },
    "C20": {"length_bias_whole": 1.0, "length_bias_whole_minus_summary": 1.0},  # as much for as against the long ones
    "C28": {"greedy_repetition_gain": 0.25, "greedy_churn_gain": 1 / 3 - 1 / 4},  # 1, 1, 1, 0 against 1, 1/2
    "C29": {"one_shot_change": -1 / 8, "few_shot_change": -2 / 8},
    "C31": {
        "grpo_minus_ppo95": 2 / 8,
        "ppo100_nearer_grpo": 6 / 8 - (6 + 4) / 16,
        "ppo100_overshoot": (6 + 4 - 2 * 6) / 8,
    },
    "C32": {"small_clip_cost": 1 / 8, "large_clip_cost": 2 / 8},
}


@pytest.mark.parametrize("claim_id", CLAIMS)
def test_known_effects_come_out(seeds, claim_id):
    measured = ledger_models.measure(claim_id, seeds)
    assert {name: part.value for name, part in measured.parts.items()} == pytest.approx(BY_HAND[claim_id])
    for part in measured.parts.values():
        assert part.low <= part.value <= part.high and part.seeds == pytest.approx((part.value,) * 3)


def test_these_are_the_claims_and_no_part_is_left_over():
    rules = {claim.id: [name for name, _, _ in ledger.parse_rule(claim.rule)] for claim in paper.claims()}
    assert [id for id, names in rules.items() if set(names) & set(ledger_models.MEASURES)] == list(CLAIMS)
    controls = {name for claim in paper.claims() for name, _, _ in ledger.parse_rule(claim.controls)}
    assert {name for id in CLAIMS for name in rules[id]} | controls == set(ledger_models.MEASURES)
    assert not set(ledger.MEASURES) & set(ledger_models.MEASURES)
    assert {claim.id for claim in paper.claims() if claim.rule} == {
        *CLAIMS,
        *(f"C0{n}" for n in (1, 2, 3, 4, 6, 8, 9)),
        "C30",
    }


# --- verdicts, both ways

WORSE = {
    "C05": {"cap_raised": dict(length=12)},
    "C10": {"dev1": dict(write=0)},
    "C11": {"r1_zero": dict(sums=2)},
    "C12": {"dev2_twin": dict(sums=2, others=1)},
    "C13": {"dev2": dict(sums=3, others=2)},
    "C14": {"dev2": dict(helpful=(3, 3, 3, 3))},  # preferences rise as much, and more
    "C15": {"dev3": dict(sums=3, others=2)},
    "C16": {"dev3": dict(sums=3, others=3)},
    "C17": {"r1": dict(unsafe=4)},
    "C18": {"r1": dict(refused=0, fact=0, alike=1), "dev3": dict(refused=1)},  # wrong answers and no refusals
    "C19": {"hacked": dict(sums=4, others=4)},  # the proxy rises, and reasoning with it
    "C21": {"llama-220k_short": dict(sums=4, others=3)},
    "C22": {"qwen-580k": dict(sums=2, others=2)},
    "C23": {"zero-580k": dict(sums=4, others=4)},
    "C24": {"distilled-580k-rl": dict(sums=2)},
    "C25": {"zero-140k": dict(repeats=0), "zero-580k-2": dict(repeats=2)},
    "C33": {"sft-once": dict(sums=4, others=2)},
    "C26": {"prm_best": dict(sums=1, others=0)},
    "C27": {"searched_2": dict(sums=4, others=4), "searched_1": dict(sums=2, others=2)},
    "C20": {"whole_judge": dict(judged=(7, 5, 8, 6))},
    "C28": {"zero_on_greedy": dict(sums=4, others=4)},  # it loops as often, and never changes
    "C29": {"r1_shots_3": dict(sums=4, others=4)},
    "C31": {"ppo_100": dict(sums=3, others=1)},
    "C32": {"clip_small": dict(sums=4, others=3)},
}


@pytest.mark.parametrize("claim_id", CLAIMS)
def test_known_verdicts_come_out(seeds, claim_id, tmp_path):
    assert verdict(claim_id, seeds) == "reproduced"
    spoiled = world(tmp_path / "out" / "smoke", changes=WORSE[claim_id], questions=64, prompts=80)
    assert verdict(claim_id, spoiled) == "contradicted"


LOSSES = {
    "reproduced": lambda index: 3 - (index == 1),  # 0.4 points
    "trend": lambda index: 3 - 2 * (index % 32 == 1),  # 1.6 points, 3.9 for all that is known
    "inconclusive": lambda index: 3 - 2 * (index % 16 == 1),  # 3.1 points, 0.4 for all that is known
    "contradicted": lambda index: 2,  # 12.5 points
}


@pytest.mark.parametrize("expected", LOSSES)
@pytest.mark.parametrize("claim_id", ["C15", "C16", "C17"])
def test_three_points_may_be_lost_and_no_more(tmp_path, claim_id, expected):
    changes = {"r1" if claim_id == "C17" else "dev3": dict(others=LOSSES[expected])}
    (row,) = ledger_models.entries([claim_id], world(tmp_path / "smoke", changes=changes, questions=64, prompts=80))
    assert row["verdict"] == expected, row["detail"]["parts"]


@pytest.mark.parametrize(
    "others, expected", [(LOSSES["inconclusive"], "trend"), (LOSSES["contradicted"], "contradicted")]
)
def test_accuracy_may_cost_five_points_and_no_more(tmp_path, others, expected):
    found = world(tmp_path / "smoke", changes={"dev2": dict(others=others)}, questions=64)
    assert verdict("C13", found) == expected


# --- controls


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    return ledger.read("smoke", write_world(tmp_path_factory.mktemp("zero") / "out", per_level=20))


CONTROLS = {
    "base": dict(sums=1, others=1, named=2),
    "r1_zero": dict(sums=4, others=2),
    "zero_format": dict(named=1),
    "zero_random": dict(named=2),
    "zero_divisor": dict(length=15),
    "flat_base": dict(length=20),
    "zero_flat": dict(length=8),
}
"""As above; ``named`` of four samples hold the right number, whatever their verdict.  Outputs have 10 tokens."""


def with_controls(tmp_path, zero, claim_id, runs=None, **changes):
    """The line of a claim about R1-Zero, its run that of `test_ledger` and its controls those above.

    Args:
        runs: settings of runs, by their place; those of the others are not known.
    """
    specs = CONTROLS | {name: spec and {**CONTROLS[name], **spec} for name, spec in changes.items()}
    for seed in range(3):
        for name, spec in [(name, dict(spec)) for name, spec in specs.items() if spec is not None]:
            named, place = spec.pop("named", 4), tmp_path / "smoke" / f"seed-{seed}"
            write_model(place, name, questions=32, prompts=1, **spec)
            file = place / "models" / name / "reasoning" / "samples.jsonl"
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            for output in (output for row in rows for output in row["outputs"][named:]):
                output["text"] = output["text"].replace("<answer> 2", "<answer> 3")
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for run_of, config in (runs or {}).items():
            write_run(place / run_of, [], config=config)
    found = [models.read(tmp_path / "smoke" / f"seed-{seed}", tmp_path) for seed in range(3)]
    (row,) = ledger_models.entries([claim_id], found, zero=zero)
    return row


def test_known_controls_come_out(tmp_path, zero):
    """R1-Zero names all answers and the base half of them; as graded it gains three of four."""
    row = with_controls(tmp_path, zero, "C01")
    parts = {name: part["value"] for name, part in row["detail"]["parts"].items() if name != "pass1_gain"}
    assert parts == pytest.approx({
        "blind_gain_over_half": 0.5 - 0.5 * 0.75, "gain_over_format_only": 0.75, "gain_over_random": 0.5,
    })  # fmt: skip
    assert row["verdict"] == "reproduced" and row["rule"].endswith("; gain_over_random > 0")
    paths = {run["path"].partition("seed-0/")[2] for run in row["runs"]}
    assert {"models/zero_random/reasoning", "evaluate/step-000100"} <= paths


def few_shot(out, more=(), exit="complete"):
    """C29 of three seeds: an example costs one of four answers, and none on the more questions that some were asked."""
    for seed in range(3):
        place = out / "smoke" / f"seed-{seed}"
        for name in ("r1", "r1_shots_1", "r1_shots_3"):
            write_model(place, name, questions=32, prompts=1, sums=4 if name == "r1" else 3, others=4)
            if (seed, name) in more:
                write_model(place, "asked", questions=96, prompts=1, sums=4, others=4)
                shutil.move(place / "models/asked/reasoning", place / "models" / name / "more")
                shutil.rmtree(place / "models/asked")
                file = place / "models" / name / "more" / "manifest.json"
                file.write_text(json.dumps(json.loads(file.read_text()) | {"exit": exit}))
    found = [models.read(out / "smoke" / f"seed-{seed}", out) for seed in range(3)]
    (row,) = ledger_models.entries(["C29"], found)
    parts = row["detail"]["parts"]
    return row, [parts[name]["value"] for name in ("one_shot_change", "few_shot_change")]


def test_more_questions_are_compared_where_every_seed_has_them_of_both_models(tmp_path):
    pair = {(seed, name) for seed in range(3) for name in ("r1", "r1_shots_1")}
    row, (one, three) = few_shot(tmp_path, pair)
    assert one == 0 and three < 0 and row["detail"]["questions"] == 96
    paths = {run["path"].partition("seed-0/")[2] for run in row["runs"]}
    assert {
        f"models/{place}" for place in ("r1/more", "r1_shots_1/more", "r1/reasoning", "r1_shots_3/reasoning")
    } <= paths
    assert "models/r1_shots_1/reasoning" not in paths


@pytest.mark.parametrize("lacking", [(2, "r1"), (0, "r1_shots_1"), None])
def test_more_questions_of_some_are_left_out(tmp_path, lacking):
    pair = {(seed, name) for seed in range(3) for name in ("r1", "r1_shots_1")} - {lacking}
    row, (one, three) = few_shot(tmp_path, pair, exit="complete" if lacking else None)
    assert one == three < 0 and row["detail"]["questions"] == 32


def test_growth_is_set_against_that_of_the_flat_base(tmp_path, zero):
    row = with_controls(tmp_path, zero, "C04", r1_zero=dict(length=30))
    parts = row["detail"]["parts"]
    assert parts["constant_divisor_length_ratio"]["value"] == pytest.approx(15 / 10)
    assert parts["flat_base_growth_ratio"]["value"] == pytest.approx((30 / 10) / (8 / 20))


@pytest.mark.parametrize(
    "claim_id, changes",
    [
        ("C01", {"zero_format": dict(named=4)}),  # the same for the format alone: nothing gained, and no less
        ("C01", {"zero_random": dict(named=4)}),
        ("C01", {"base": dict(named=4)}),  # all of the gain is form
        ("C04", {"zero_divisor": dict(length=9)}),
        ("C04", {"zero_flat": dict(length=30)}),  # it grows as much where working pays nothing
    ],
)
def test_a_control_that_does_as_well_takes_the_verdict(tmp_path, zero, claim_id, changes):
    assert with_controls(tmp_path, zero, claim_id, **changes)["verdict"] not in ("reproduced", "trend")


@pytest.mark.parametrize(
    "claim_id, arm, change, is_control",
    [
        ("C01", "zero_format", {"rewards": ["format"]}, True),
        ("C01", "zero_random", {"rewards": ["coin"], "num_rollouts": 1}, False),
        ("C04", "zero_divisor", {"average": "constant"}, True),
        ("C04", "zero_divisor", {"average": "constant", "learning_rate": 1e-5}, False),
        ("C04", "zero_flat", {"average": "constant"}, False),
    ],
)
def test_a_control_differs_in_one_thing(tmp_path, zero, claim_id, arm, change, is_control):
    arms = {"C01": ("zero_format", "zero_random"), "C04": ("zero_divisor", "zero_flat")}[claim_id]
    runs = {"r1_zero": RL} | {f"arms/{name}": RL for name in arms} | {f"arms/{arm}": RL | change}
    row = with_controls(tmp_path, zero, claim_id, runs, r1_zero=dict(length=30))
    assert ("CLAIMS=all" not in row["detail"]["why"]) == is_control
    assert (len(row["detail"]["parts"]) > len(ledger.parse_rule(paper.claim(claim_id).rule))) == is_control


def test_what_only_arms_can_measure_says_how_to_run_them():
    assert "cap kept, cap raised not evaluated yet (CLAIMS=all)" in ledger_models.missing("C05", [])
    assert "(notebooks 04 to 08)" in ledger_models.missing("C10", [])


def test_without_its_controls_a_claim_is_a_trend(tmp_path, zero):
    row = with_controls(tmp_path, zero, "C01", zero_random=None)
    assert row["verdict"] == "trend" and "CLAIMS=all" in row["detail"]["why"]
    assert list(row["detail"]["parts"]) == ["pass1_gain"] and row["rule"] == "pass1_gain > 0"


# --- questions, seeds and pairs


def test_a_gain_is_as_unsure_as_its_questions_are_few(tmp_path):
    """Half of 32 sums lose four samples of four, half none; three seeds that share their questions tell no more."""
    sums = {"r1_zero": dict(sums=4), "dev1": dict(sums=lambda index: 4 * (index // 2 % 2))}
    shared = world(tmp_path / "a" / "smoke", changes=sums, questions=64)
    cost = ledger_models.measure("C11", shared).parts["cold_start_cost"]
    assert cost.value == 0.5 and cost.half_width == pytest.approx(1.96 * 0.5 / 32**0.5, rel=0.15)
    own = [models.read(tmp_path / "b" / f"seed-{n}", tmp_path) for n in range(3) if not write_own(tmp_path, n, sums)]
    apart = ledger_models.measure("C11", own).parts["cold_start_cost"]
    assert apart.value == 0.5 and apart.half_width == pytest.approx(cost.half_width / 3**0.5, rel=0.2)


def write_own(tmp_path, seed, changes):
    write_seed(tmp_path / "b" / f"seed-{seed}", changes=changes, questions=64, prefix=f"s{seed}q")


def test_what_is_hard_for_both_models_is_no_doubt(tmp_path):
    def hard(bonus):
        return lambda index: (0, 1, 2, 3)[index // 2 % 4] + bonus

    changes = {"r1_zero": dict(sums=hard(1)), "dev1": dict(sums=hard(0))}
    cost = ledger_models.measure("C11", world(tmp_path / "smoke", changes=changes)).parts["cold_start_cost"]
    assert (cost.low, cost.value, cost.high) == (0.25, 0.25, 0.25)


def test_the_smallest_gain_is_found_in_each_draw_and_not_once_for_all(tmp_path):
    """Two students gain one half on average, each on the questions where the other gains nothing: whatever is drawn,
    the one that has fewer of its own questions is the smaller."""
    changes = {name: dict(sums=4, others=4) for name in STUDENTS}
    changes["qwen-140k"] = dict(sums=4, others=0)
    changes["qwen-280k"] = dict(sums=0, others=4)
    changes |= {f"{name}_base": dict(sums=0, others=0) for name in STUDENTS}
    found = ledger_models.measure("C21", world(tmp_path / "smoke", changes=changes, questions=32))
    gain = found.parts["gain_over_base"]
    assert gain.value == 0.5 and gain.high <= 0.5 and gain.low < 0.4


def test_reasoning_and_preference_rest_on_questions_of_their_own(tmp_path):
    """As many more prompts as you like do not blur what is known of reasoning, nor shift the difference."""
    few, many = (world(tmp_path / str(n) / "smoke", questions=64, prompts=n) for n in (20, 80))
    a, b = (ledger_models.measure("C14", s).parts["reasoning_minus_preference"] for s in (few, many))
    assert a.value == b.value == pytest.approx(0.125)


def test_seeds_that_disagree_are_a_trend_at_most(tmp_path):
    for seed, sums in enumerate((3, 3, 4)):
        write_seed(tmp_path / "smoke" / f"seed-{seed}", changes={"dev1": dict(sums=sums)})
    found = [models.read(tmp_path / "smoke" / f"seed-{seed}", tmp_path) for seed in range(3)]
    (row,) = ledger_models.entries(["C11"], found)
    assert row["detail"]["parts"]["cold_start_cost"]["seeds"] == [0.25, 0.25, 0.0]
    assert row["verdict"] == "inconclusive" and row["seeds"] == [0, 1, 2]


def test_models_that_were_asked_other_questions_are_refused(tmp_path):
    write_seed(tmp_path / "smoke" / "seed-0", changes={"dev1": None})
    write_model(tmp_path / "smoke" / "seed-0", "dev1", prefix="p")
    found = [models.read(tmp_path / "smoke" / "seed-0", tmp_path)]
    with pytest.raises(
        Refusal, match="models/dev1/reasoning or the open .* asked other questions than those of r1_zero"
    ):
        ledger_models.measure("C10", found)
    assert ledger_models.measure("C13", found)  # which does not look at dev1


def test_where_nothing_was_asked_nothing_is_known(tmp_path):
    found = world(tmp_path / "smoke", prompts=2)  # one to write, one fact
    (row,) = ledger_models.entries(["C17"], found)
    assert row["detail"]["parts"]["unsafe_change"]["value"] is None and row["verdict"] == "inconclusive"
    assert row["detail"]["beside"]["unsafe_change"]["values"] == [None, None]
    json.dumps(row, allow_nan=False)


# --- what is missing


def test_a_claim_without_its_models_says_which(tmp_path):
    found = world(tmp_path / "smoke", seeds=(0,), changes={"dev1": None, "llama-220k_short": None})
    assert ledger_models.measure("C10", found) is None
    unruled = next(claim.id for claim in paper.claims() if not claim.rule)
    rows = {row["id"]: row for row in ledger_models.entries(["C10", "C13", "C21", "C01", unruled], found)}
    assert {id: row["verdict"] for id, row in rows.items()} == {
        "C10": "untestable", "C13": "trend", "C21": "untestable", "C01": "untestable", unruled: "untestable",
    }  # fmt: skip
    why = {id: row["detail"].get("untested_because") for id, row in rows.items()}
    assert why["C10"].startswith("Dev1 not evaluated yet") and paper.claim("C10").rule in why["C10"]
    assert why["C21"].startswith("llama-220k_short not evaluated yet")
    assert (
        why["C01"] == "no run of this tier measures pass1_gain > 0"
        and why[unruled] == paper.claim(unruled).untested_because
    )
    assert all(row["detail"]["why"] for row in rows.values())
    without = world(tmp_path / "main" / "smoke", seeds=(0,), changes=dict.fromkeys(VERSUS))
    assert ledger_models.missing("C24", without).startswith("RL on distilled qwen-580k not evaluated yet (CLAIMS=all)")
    assert ledger_models.missing("C13", found) == "" and "R1-Zero, Dev1" in ledger_models.missing("C10", [])


def test_a_seed_that_lacks_a_model_makes_a_trend_of_the_others(tmp_path):
    write_seed(tmp_path / "smoke" / "seed-2", changes={"dev1": None})
    found = [*world(tmp_path / "smoke", seeds=(0, 1)), models.read(tmp_path / "smoke" / "seed-2", tmp_path)]
    (row,) = ledger_models.entries(["C11"], found)
    assert row["verdict"] == "trend" and row["seeds"] == [0, 1] and row["detail"]["why"] == "2 of at least 3 seeds"


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(settings={"dev2_twin": {"learning_rate": 1e-3}}), "differ in learning_rate"),
        (dict(settings={"r1_zero": {"rewards": ["a"]}}), "differ in rewards"),
        (dict(curves=CURVES | {"dev2_twin": (0.3, 0.4)}), "differ in rollouts"),
        (dict(curves=CURVES | {"dev2_twin": ()}), "not beside the evaluations, or logged no verdicts"),
    ],
)
def test_unequal_runs_of_rl_are_not_compared(tmp_path, options, reason):
    found = world(tmp_path / "smoke", **options)
    (row,) = ledger_models.entries(["C12"], found)
    assert row["verdict"] == "untestable" and reason in row["detail"]["untested_because"]


@pytest.mark.parametrize(
    "claim, runs, reason",
    [
        ("C25", {"zero-140k": RL | {"num_rollouts": 3}}, "differ in num_rollouts"),
        ("C25", {"zero-580k": RL | {"num_rollouts": 3, "learning_rate": 1e-3}}, "differ in learning_rate"),
        ("C25", {"zero-580k": {}}, "not beside the evaluations"),
        ("C33", {"sft-rounds/round-4/sample": {}}, "SFT in rounds sampled 96 outputs and R1-Zero 128"),
        (
            "C05",
            {"cap_kept": RL, "cap_raised": RL | {"num_rollouts": 9}},
            "cap raised and cap kept differ in num_rollouts",
        ),
        ("C33", {"sft-once/round-1/sample": {}}, "SFT in one round sampled 0 outputs and SFT in rounds 128"),
    ],
)
def test_arms_that_were_given_more_are_not_compared(tmp_path, claim, runs, reason):
    (row,) = ledger_models.entries([claim], world(tmp_path / "smoke", seeds=(0,), runs=runs))
    assert row["verdict"] == "untestable" and reason in row["detail"]["untested_because"]


def test_where_no_thinking_differs_its_length_has_no_bias(tmp_path):
    """What is equal must not differ by what is rounded, as the mean of three is."""
    same = {f"{kind}_judge": dict(thinking=(1, 1, 1, 1), helpful_more=(1, 1, 1, 2)) for kind in ("whole", "summary")}
    seeds = world(tmp_path / "smoke", changes=same, questions=32)
    for seed in seeds:
        for name in same:
            seed[name].more["thinking"][:] = np.arange(1, 1 + len(seed[name].ids))[:, None] / 3
    (row,) = ledger_models.entries(["C20"], seeds)
    assert row["verdict"] == "inconclusive" and "no bounded value" in row["detail"]["why"]


def test_equal_lengths_do_not_differ_by_what_is_rounded():
    """A mean of seven equal numbers may be another number, from which all of them differ, by the same."""
    equal = np.linspace(0.1, 3, 50)[:, None].repeat(7, axis=1)
    assert any((values - values.mean()).any() for values in equal)
    assert not any(measures_arms.apart(values).any() for values in equal)
    assert measures_arms.apart(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]


def test_a_run_that_went_on_is_compared_where_the_other_ends(seeds):
    """The checkpoint after as many rollouts stands in the rule, the end of the longer run does not."""
    (row,) = ledger_models.entries(["C25"], seeds)
    assert row["detail"]["models"][1] == "RL on the base of qwen-140k, RL on the base of qwen-580k, two thirds"
    assert row["detail"]["beside"]["repetition_small_minus_large"]["values"] == [0.0, 0.25]
    paths = {run["path"].removeprefix("out/smoke/") for run in row["runs"]}
    assert "seed-0/arms/zero-580k" in paths and "seed-0/models/zero-580k/reasoning" not in paths


@pytest.mark.parametrize(
    "claim_id, runs, reason",
    [
        ("C31", {"ppo_95": RL | {"gae_lambda": 0.95, "learning_rate": 1.0}}, "differ in learning_rate"),
        ("C31", {"ppo_100": RL | {"gae_lambda": 1.0, "num_rollouts": 5}}, "differ in num_rollouts"),
        ("C32", {"clip_none": RL | {"clip_low": 1e9, "steps_per_rollout": 1}}, "differ in steps_per_rollout"),
        ("C32", {"clip_paper": RL | {"clip_low": 10.0, "num_rollouts": 9}}, "differ in num_rollouts"),
    ],
)
def test_unequal_arms_of_rl_are_not_compared(tmp_path, claim_id, runs, reason):
    (row,) = ledger_models.entries([claim_id], world(tmp_path / "smoke", seeds=(0,), runs=runs))
    assert row["verdict"] == "untestable" and reason in row["detail"]["untested_because"]


# --- what a reader and a report need


def test_the_entry_is_made_as_those_of_r1_zero_are(seeds):
    (row,) = ledger_models.entries(["C13"], seeds)
    assert list(row) == [
        "id", "claim", "paper", "ours", "low", "high", "detail", "seeds", "verdict", "rule", "runs",
    ]  # fmt: skip
    detail = row["detail"]
    assert (detail["before"], detail["after"]) == (0.75, 1.0) and "question's language" in detail["quantity"]
    assert detail["models"] == ["Dev2 without language reward", "Dev2"]
    assert detail["truncated"] == [0.25, 0.0] and detail["length_right"] == [10.0, 10.0]
    assert (detail["questions"], detail["k"], detail["open_questions"], detail["open_k"]) == (64, 4, 80, 4)
    assert detail["pass1"] == [0.875, 0.875] and detail["unit"] == "accuracy"
    assert detail["beside"] == {"accuracy_cost": {"quantity": "pass@1", "values": [0.875, 0.875]}}
    paths = [run["path"] for run in row["runs"] if "seed-1" in run["path"]]
    assert paths == [f"out/smoke/seed-1/{path}" for path in (
        "models/dev2_twin/reasoning", "models/dev2_twin/open", "dev2/twin", "models/dev2/reasoning", "models/dev2/open",
    )]  # fmt: skip
    assert all(len(run["digest"]) == 64 for run in row["runs"])
    for row in ledger_models.entries(CLAIMS, seeds):
        json.dumps(row, allow_nan=False)


def test_details_of_their_own(seeds):
    rows = {row["id"]: row["detail"] for row in ledger_models.entries(CLAIMS, seeds)}
    assert rows["C10"]["format"] == [1.0, 1.0] and rows["C10"]["one_language"] == [0.5, 1.0]
    assert rows["C12"]["steps_to_the_end_of_r1_zero"] == [[12.0, 4.0]] * 3
    assert (rows["C17"]["before"], rows["C17"]["after"]) == (0.5, 1.0)
    assert rows["C17"]["beside"]["unsafe_change"]["values"] == [0.5, 0.0]
    assert rows["C21"]["pass1_by_model"]["llama-400k"] == 7 / 8 and len(rows["C21"]["pass1_by_model"]) == 15
    assert rows["C22"]["pass1_by_model"] == {"qwen-140k": 0.5, "qwen-280k": 0.625, "qwen-580k": 0.75}


def test_one_list_has_the_claims_of_r1_zero_and_of_the_models(tmp_path, seeds):
    zero = ledger.read("smoke", write_world(tmp_path / "out", per_level=20))
    every = [claim.id for claim in paper.claims()]
    rows = ledger_models.entries(every, seeds, zero=zero)
    assert [row["id"] for row in rows] == every
    alone = [ledger.entry(claim, ledger.measure(claim.id, zero)) for claim in paper.claims()]
    for row, before in zip(rows, alone, strict=True):
        assert row == before or row["id"] in CLAIMS or paper.claim(row["id"]).controls
    measured = {row["id"] for row in rows if row["verdict"] != "untestable"}
    assert measured == {claim.id for claim in paper.claims() if claim.rule}


def test_r1_zeros_claims_rest_on_the_sums_alone(tmp_path):
    """An evaluation of several families is that of its sums: the same numbers, whatever became of the rest."""
    alone = write_world(tmp_path / "a" / "out", per_level=20)
    mixed = write_world(tmp_path / "b" / "out", per_level=20)
    for file in mixed.glob("smoke/*/evaluate/*/samples.jsonl"):
        rows = [json.loads(line) | {"family": "chain_sum"} for line in file.read_text(encoding="utf-8").splitlines()]
        wrong = [{**o, "verdict": "wrong", "length": 999, "text": "<think> 等等 wait"} for o in rows[0]["outputs"]]
        more = [{**row, "id": f"l{row['id']}", "family": "logic", "outputs": wrong} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows + more), encoding="utf-8")
    a, b = (ledger.read("smoke", out) for out in (alone, mixed))
    assert len(b[0].ids) == 80
    for claim in paper.claims():
        one, other = (ledger.measure(claim.id, found) for found in (a, b))
        assert (one and (one.parts, one.detail)) == (other and (other.parts, other.detail)), claim.id
    logic = mixed / "smoke/seed-0/evaluate/step-000000/samples.jsonl"
    text = logic.read_text(encoding="utf-8").replace('"chain_sum"', '"search"')
    logic.write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match="step-000000 has no chain sums"):
        ledger.read("smoke", mixed)


# --- figures


def labels(figure):
    return [text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]]


def well_made(figure):
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        texts = [axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel(), *ticks, *labels(figure)]
        assert all(text.isascii() for text in texts) and texts[0] and texts[1] and texts[2], texts
    return figure


def test_bars_are_the_benchmarks_and_whiskers_their_intervals(seeds):
    reasoning, replies = well_made(plots.benchmark_bars(seeds, ["dev1", "nobody", "r1"])).axes
    assert labels(reasoning.figure) == ["Dev1", "R1"] * 2
    bars = [bar for box in reasoning.containers if hasattr(box, "patches") for bar in box.patches if bar.get_height()]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    heights = {(round(x), x < round(x)): bar.get_height() for x, bar in zip(middles, bars, strict=True)}
    assert heights == pytest.approx({
        (0, True): 0.75, (0, False): 1.0, (2, True): 0.5, (2, False): 0.75, (3, True): 0.5, (3, False): 0.75,
        (4, True): 1.0, (4, False): 1.0, (5, True): 0.75,
    })  # fmt: skip
    shown = {round(b.get_height(), 6) for c in replies.containers if hasattr(c, "patches") for b in c.patches}
    means = models.table(seeds, ["dev1", "r1"])
    assert round(means.loc["helpfulness (0 to 3)", "Dev1"] / 3, 6) in shown and 1.0 in shown
    assert [t.get_text().splitlines()[0] for t in reasoning.get_xticklabels()][:2] == ["sums", "search"]


def test_students_stand_at_their_size_beside_their_siblings_and_their_teacher(seeds):
    ours, theirs = well_made(plots.students(seeds)).axes
    lines = {line.get_label(): line for line in ours.lines}
    assert lines["distilled"].get_xdata().tolist() == [140e3, 280e3, 580e3]
    assert lines["distilled"].get_ydata() == pytest.approx([0.5, 0.625, 0.75])
    assert lines["distilled, Llama"].get_ydata() == pytest.approx([0.75, 0.875])
    assert lines["its base"].get_ydata() == pytest.approx([0.25] * 3)
    assert lines["teacher (Dev2)"].get_ydata()[0] == pytest.approx(0.875)
    paper_lines = {line.get_label(): line for line in theirs.lines}
    assert paper_lines["distilled"].get_ydata() == pytest.approx([0.289, 0.555, 0.697, 0.726])
    assert paper_lines["teacher (DeepSeek-R1)"].get_ydata()[0] == pytest.approx(0.798)


def test_models_stand_where_they_were_put_and_lines_join_them_in_order(seeds):
    lines = {"RL": {"zero-580k": 9e9, "nobody": 1.0, "zero-580k-2": 6e9}, "distilled": {"qwen-580k": 4e9}}
    (axes,) = well_made(plots.pass1_lines(seeds, lines, "Price", "operations", {"its base": "qwen-580k_base"})).axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["RL"].get_xdata().tolist() == [6e9, 9e9]
    assert drawn["RL"].get_ydata() == pytest.approx([4 / 8, 5 / 8])
    assert drawn["distilled"].get_ydata() == pytest.approx([6 / 8])
    assert drawn["its base"].get_ydata()[0] == pytest.approx(2 / 8)
    assert axes.get_xscale() == "log" and "open prompts" not in axes.figure.get_supxlabel()
    (axes,) = well_made(plots.pass1_lines(seeds, lines, "Price", "base", ticks={"small": 4e9, "large": 9e9})).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small", "large"]


def run_of(shift=0.0):
    rows = [
        {"step": 1 + 4 * i, "language/consistency": 0.8 + shift + i / 50, "reward/accuracy": i / 5} for i in range(4)
    ]
    rows[-1]["reward/preference"] = 0.5 + shift
    return rows


@pytest.mark.parametrize("several", [False, True])
def test_curves_with_and_without_the_reward_stand_beside_the_papers_ends(several):
    runs = [[run_of(0.1), run_of(0.12)], [run_of(), run_of()]] if several else [run_of(0.11), run_of()]
    consistency, accuracy = well_made(plots.consistency_curve(*runs)).axes
    lines = {line.get_label(): line for line in consistency.lines}
    assert lines["with the reward"].get_ydata() == pytest.approx([0.91, 0.93, 0.95, 0.97])
    assert lines["without it"].get_ydata() == pytest.approx([0.8, 0.82, 0.84, 0.86])
    assert lines["the paper, with the reward: 0.987"].get_ydata()[0] == 0.9872
    assert lines["the paper, without it: 0.890"].get_ydata()[0] == 0.89
    assert accuracy.lines[0].get_ydata() == pytest.approx([0, 0.2, 0.4, 0.6])
    low, high = consistency.get_ylim()
    assert low <= 0.8 and high >= 0.9872


def test_scores_of_the_reward_models_begin_where_they_are_logged():
    preference, rules = well_made(plots.reward_model_scores([run_of(), run_of(0.2)])).axes
    lines = {line.get_label(): line for line in preference.lines}
    assert lines["preference reward"].get_xdata().tolist() == [13] and lines["preference reward"].get_ydata() == [0.6]
    assert list(lines["reward models begin"].get_xdata()) == [13, 13]
    assert {line.get_label() for line in rules.lines} >= {"accuracy", "language consistency"}
    assert "preference reward (not logged)" in labels(plots.reward_model_scores([{"step": 1, "reward/accuracy": 0.1}]))


@pytest.mark.parametrize(("setting", "compared"), [("rewards", True), ("learning_rate", False)])
def test_rl_by_process_rewards_is_compared_with_its_equal_alone(tmp_path, setting, compared):
    found = world(tmp_path / "smoke", seeds=(0,), settings={"prm_rl": {setting: "another"}})
    (row,) = ledger_models.entries(["C26"], found)
    assert (row["verdict"] != "untestable") == compared
    assert compared or "process rewards and R1-Zero's differ in learning_rate" in row["detail"]["untested_because"]
