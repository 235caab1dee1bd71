"""Effects of runs made up with known answers, every branch of the verdict, and what must not be published."""

import csv
import dataclasses
import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro import ledger, paper
from r1repro.ledger import Part, entry, judge, measure, parse_rule, verdict
from r1repro.records import Refusal

STEPS = (0, 25, 50, 75, 100)


def right_of_16(share, level, seed=0):
    """Easy levels 1 and 2 go from 8 to 16 right samples of 16, hard levels 3 and 4 from 0 to 12."""
    return round(8 + 8 * share) if level <= 2 else round(12 * share)


def write_world(out, *, tier="smoke", seeds=(0, 1, 2), steps=STEPS, per_level=10, right=right_of_16, length=None,
                mixed=lambda share: round(4 * share), words=lambda share, language: 1 + round(2 * share),
                commit="c" * 40, dirty=False, ids=lambda seed, index: f"q{index:04d}"):  # fmt: skip
    """Evaluation folders as `stages/evaluate` leaves them, with 16 samples a question and no chance in them."""
    length = length or (lambda share, level, is_right: round(100 + 100 * share))
    for seed in seeds:
        folder = out / tier / f"seed-{seed}"
        for step in steps:
            share = step / max(steps[-1], 1)
            rows = []
            for index in range(4 * per_level):
                level, language = index % 4 + 1, "zh" if index // 4 % 2 else "en"
                outputs = []
                for k in range(16):
                    is_right = k < right(share, level, seed)
                    own, other = ("we add", "然后") if language == "en" else ("我们相加", "so then")
                    reflect = {"en": " Wait", "zh": "等等"}[language] * words(share, language)
                    text = f"<think>{own if k >= mixed(share) else own + other}{reflect}</think> <answer>{k}</answer>"
                    outputs.append({
                        "text": text, "verdict": "right" if is_right else "wrong", "score": float(is_right),
                        "length": length(share, level, is_right), "truncated": k == 15 and step == 0,
                        "answer": "42" if is_right else str(1000 + k),
                    })  # fmt: skip
                rows.append({"id": ids(seed, index), "question": "?", "gold": "42", "language": language,
                             "level": level, "outputs": outputs})  # fmt: skip
            write_run(folder / "evaluate" / f"step-{step:06d}", rows, commit, dirty)
        write_run(folder / "r1_zero", [{"text": "sample"}], commit, dirty)
        metrics = [{"step": step, "reward/mean": step / 100} for step in range(1, steps[-1] + 1)]
        (folder / "r1_zero/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return out


def write_run(folder, rows, commit, dirty):
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"commit": commit, "dirty": dirty, "exit": "complete"}))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return ledger.read("smoke", write_world(tmp_path_factory.mktemp("world") / "out", per_level=20))


@pytest.mark.parametrize(
    "claim_id, effects",
    [
        ("C01", {"pass1_gain": (0.5 + 0.75) / 2}),
        ("C02", {"vote_gain_half": 1 - (0.75 + 0.375) / 2, "vote_gain_end": 1 - (1 + 0.75) / 2}),
        ("C03", {"vote_gain_slope": -0.225, "pass1_slope": 0.625}),  # gaps .25 .59375 .4375 .28125 .125, by hand
        ("C04", {"length_ratio": 2.0, "length_slope": 200 / 125 - 1, "right_length_ratio": 2.0}),
        ("C06", {"reflection_rate_ratio": 1.5, "reflection_count_ratio": 3.0}),
        ("C08", {"hard_minus_easy_gain": 0.75 - 0.5}),
        ("C09", {"mixed_slope": 0.25}),
    ],
)
def test_known_effects_come_out(seeds, claim_id, effects):
    measured = measure(claim_id, seeds)
    assert {name: part.value for name, part in measured.parts.items()} == pytest.approx(effects)
    for part in measured.parts.values():
        assert part.low <= part.value <= part.high
        assert part.seeds == pytest.approx((part.value,) * 3)
    found = verdict(paper.claim(claim_id).rule, measured.parts, paper.claim(claim_id).unit)
    assert found == ("inconclusive" if claim_id == "C03" else "reproduced")  # 80 questions tell too little of C03


def test_a_claim_on_two_groups_of_questions_is_as_unsure_as_the_textbook_says(seeds):
    gain = measure("C01", seeds).parts["pass1_gain"]
    assert gain.half_width == pytest.approx(1.96 * 0.125 / 80**0.5, rel=0.1)  # gains .5 and .75, half and half


def test_the_gain_is_as_unsure_as_its_questions_are_few(tmp_path):
    """Sixteen samples to a question are no sixteen questions: gains of 1 and of 0 on half of 40 questions each."""
    world = write_world(tmp_path / "out", right=lambda share, level, seed: 16 * round(share) * (level % 2))
    gain = measure("C01", ledger.read("smoke", world)).parts["pass1_gain"]
    assert gain.value == 0.5 and gain.half_width == pytest.approx(1.96 * 0.5 / 40**0.5, rel=0.15)


def test_only_what_was_judged_right_is_right(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), steps=(0,), per_level=1)
    file = world / "smoke/seed-0/evaluate/step-000000/samples.jsonl"
    before = ledger.read("smoke", world)[0].start.right_QK
    text = file.read_text(encoding="utf-8")
    for said, score in (("unparsed", 0.0), ("timed_out", "null"), ("error", "null")):
        text = text.replace('"verdict": "wrong", "score": 0.0', f'"verdict": "{said}", "score": {score}', 3)
    file.write_text(text, encoding="utf-8")
    after = ledger.read("smoke", world)[0].start
    assert (after.right_QK == before).all() and after.ungraded == 6 / 64


def test_harder_questions_that_take_longer_right_answers_correlate(tmp_path):
    def length(share, level, is_right):
        return 100 * level if is_right else 5000  # wrong answers run to the cap and must not count

    def right(share, level, seed):
        return 16 - 3 * level

    measured = measure("C30", ledger.read("smoke", write_world(tmp_path / "out", length=length, right=right)))
    part = measured.parts["length_difficulty_spearman"]
    assert (part.value, part.low, part.high) == (1.0, 1.0, 1.0)


def test_the_early_dip_of_the_length_is_left_out_of_its_slope(tmp_path):
    def length(share, level, is_right):
        return 500 if share == 0 else round(100 + 100 * share)

    measured = measure("C04", ledger.read("smoke", write_world(tmp_path / "out", length=length)))
    assert measured.parts["length_slope"].value == pytest.approx(0.6)
    assert measured.parts["length_ratio"].value == pytest.approx(0.4)
    assert measured.detail["slope_over_steps"] == [25, 50, 75, 100]


def test_growth_is_told_relative_to_the_fitted_start(tmp_path):
    lengths = {0: 500, 0.25: 100, 0.5: 140, 0.75: 120, 1: 180}  # fitted: 102 to 168
    world = write_world(tmp_path / "out", length=lambda share, *_: lengths[share], per_level=1)
    assert measure("C04", ledger.read("smoke", world)).parts["length_slope"].value == pytest.approx(66 / 102)


def test_the_noise_of_adding_floats_decides_no_sign():
    seeds = [SimpleNamespace(ids=("q",))] * 3
    zero = ledger.part(seeds, lambda _: np.array([[0.1], [0.2], [0.3]]), lambda m: m[:, 0] + m[:, 1] - m[:, 2])
    assert (zero.value, zero.low, zero.high, zero.seeds) == (0, 0, 0, (0, 0, 0))


def test_growth_of_wrong_answers_alone_is_told_apart(tmp_path):
    def length(share, level, is_right):
        return 100 if is_right else round(100 + 400 * share)

    claim = paper.claim("C04")
    world = write_world(tmp_path / "out", length=length, right=lambda *_: 8)
    measured = measure("C04", ledger.read("smoke", world))
    assert measured.parts["length_ratio"].value == 3.0
    assert measured.parts["right_length_ratio"].value == 1.0
    assert entry(claim, measured)["verdict"] == "inconclusive"  # exactly the threshold: neither side


def test_a_rate_of_zero_to_begin_with_is_said_and_not_divided_by(tmp_path):
    world = write_world(tmp_path / "out", words=lambda share, language: round(2 * share))
    row = entry(paper.claim("C06"), measure("C06", ledger.read("smoke", world)))
    assert (row["ours"], row["low"], row["verdict"]) == (None, None, "inconclusive")
    assert "rate of zero at the start" in row["detail"]["why"]
    assert (row["detail"]["before"], row["detail"]["after"]) == pytest.approx((0, 1000 * 2 / 200))
    json.dumps(row, allow_nan=False)


def test_chinese_reflection_stands_apart(tmp_path):
    world = write_world(tmp_path / "out", words=lambda share, language: 1 if language == "en" else 1 + round(4 * share))
    measured = measure("C06", ledger.read("smoke", world))
    assert measured.parts["reflection_count_ratio"].value == 1.0
    assert measured.detail["chinese"]["count_ratio"]["value"] == 5.0


def test_nothing_changes_so_nothing_is_claimed(tmp_path):
    world = write_world(tmp_path / "out", right=lambda share, level, seed: 5, mixed=lambda share: 2,
                        length=lambda *_: 70, words=lambda *_: 1)  # fmt: skip
    seeds = ledger.read("smoke", world)
    for claim in paper.claims():
        # C02: five of sixteen are right and no two wrong ones alike, so the vote still wins.
        if of_r1_zero(claim) and claim.id != "C02":
            assert entry(claim, measure(claim.id, seeds))["verdict"] == "inconclusive", claim.id


def test_one_seed_that_disagrees_makes_a_trend_at_most(tmp_path):
    def right(share, level, seed):
        return round((1, 14, 15)[seed] * share) + (2 if seed == 0 and share == 0 else 0)

    row = entry(paper.claim("C01"), measure("C01", ledger.read("smoke", write_world(tmp_path / "out", right=right))))
    assert row["detail"]["parts"]["pass1_gain"]["seeds"] == pytest.approx([-1 / 16, 14 / 16, 15 / 16])
    assert row["verdict"] == "inconclusive"  # seeds so far apart measure nothing: half-width 0.5


def test_the_entry_says_all_that_was_agreed(seeds):
    row = entry(paper.claim("C01"), measure("C01", seeds))
    assert list(row) == [
        "id", "claim", "paper", "ours", "low", "high", "detail", "seeds", "verdict", "rule", "runs",
    ]  # fmt: skip
    assert row["seeds"] == [0, 1, 2] and row["verdict"] == "trend", "its controls were not run"
    without = dataclasses.replace(paper.claim("C01"), controls="")
    assert entry(without, measure("C01", seeds))["verdict"] == "reproduced"
    detail = row["detail"]
    assert (detail["before"], detail["after"], detail["questions"], detail["k"]) == (0.25, 0.875, 80, 16)
    assert detail["truncated"] == [1 / 16, 0.0] and detail["length_right"] == [100, 200]
    assert len(row["runs"]) == 3 * 6 and set(row["runs"][0]) == {"path", "digest", "commit"}
    assert row["runs"][0]["path"] == "out/smoke/seed-0/r1_zero" and len(row["runs"][0]["digest"]) == 64
    json.dumps(row, allow_nan=False)


def test_a_digest_changes_with_the_samples(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    before = ledger.read("smoke", world)[0].runs
    file = world / "smoke/seed-0/evaluate/step-000050/samples.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("Wait", "Well"), encoding="utf-8")
    after = ledger.read("smoke", world)[0].runs
    assert [run.path for run, old in zip(after, before, strict=True) if run.digest != old.digest] == [
        "out/smoke/seed-0/evaluate/step-000050"
    ]


def of_r1_zero(claim):
    """Whether the claim is about R1-Zero's run: the others are in `test_ledger_models`."""
    return bool(claim.rule) and {name for name, _, _ in parse_rule(claim.rule)} <= set(ledger.MEASURES)


def test_every_rule_about_r1_zero_can_be_measured_and_the_rest_says_why_not(seeds):
    for claim in paper.claims():
        measured = measure(claim.id, seeds)
        assert (measured is not None) == of_r1_zero(claim), claim.id
        row = entry(claim, measured)
        assert (row["verdict"] == "untestable") == (measured is None)
        assert measured is not None or row["detail"]["untested_because"]


def test_one_checkpoint_measures_nothing(tmp_path):
    assert measure("C01", ledger.read("smoke", write_world(tmp_path / "out", steps=(0,)))) is None


def test_two_checkpoints_have_no_half(tmp_path):
    world = ledger.read("smoke", write_world(tmp_path / "out", steps=(0, 100), per_level=2))
    assert entry(paper.claim("C02"), measure("C02", world))["verdict"] == "inconclusive"
    assert measure("C04", world).parts["length_slope"].value == 1.0  # all points, for want of three


def test_seeds_with_questions_of_their_own_are_not_paired(tmp_path, seeds):
    own = ledger.read("smoke", write_world(tmp_path / "out", per_level=20, ids=lambda seed, index: f"s{seed}q{index}"))
    assert ledger.shared(seeds) and not ledger.shared(own)
    apart, together = (measure("C01", s).parts["pass1_gain"].half_width for s in (own, seeds))
    assert apart == pytest.approx(together / 3**0.5, rel=0.15)


def with_more_sums(few, many, seeds=(0, 1, 2)):
    for number in seeds:
        (more := few / f"smoke/seed-{number}/protocol/sums").parent.mkdir()
        shutil.move(many / f"smoke/seed-{number}/evaluate", more)


def asked(world, **how):
    return [len(seed.ids) for seed in ledger.read("smoke", world, **how)]


def test_more_sums_take_the_place_of_few_where_every_seed_has_them(tmp_path):
    few, many = write_world(tmp_path / "out"), write_world(tmp_path / "more", per_level=20)
    with_more_sums(few, many, seeds=(0, 1))
    assert asked(few) == [40] * 3
    with_more_sums(few, many, seeds=(2,))
    assert asked(few) == [80] * 3 and asked(few, more=False) == [40] * 3
    assert {run.path for run in ledger.read("smoke", few)[0].runs} == {
        "out/smoke/seed-0/r1_zero", *(f"out/smoke/seed-0/protocol/sums/step-{step:06d}" for step in STEPS)
    }  # fmt: skip
    write_world(tmp_path / "out", seeds=(3,))  # held back
    assert asked(few) == [80] * 3 + [40]


@pytest.mark.parametrize("spoilt", [{}, {"exit": None}, {"exit": "complete", "inputs": {"model": "of another run"}}])
def test_more_sums_that_lack_a_step_or_are_of_another_model_are_not_read(tmp_path, spoilt):
    few, many = write_world(tmp_path / "out"), write_world(tmp_path / "more", per_level=20)
    with_more_sums(few, many)
    file = few / "smoke/seed-1/protocol/sums/step-000050/manifest.json"
    file.unlink() if not spoilt else file.write_text(json.dumps(spoilt))
    assert asked(few) == [40] * 3


def test_the_first_questions_are_those_alone(tmp_path):
    def right(share, level, seed):
        return round(16 * share) if level == 1 else 0

    (seed,) = ledger.read("smoke", write_world(tmp_path / "out", seeds=(0,), per_level=2, right=right))
    one = ledger.first_questions(seed, 1)  # questions go by their ids, and the first is of level 1
    assert measure("C01", [seed]).parts["pass1_gain"].value == 0.25
    assert measure("C01", [one]).parts["pass1_gain"].value == 1.0
    assert one.ids == seed.ids[:1] and one.level_Q.tolist() == [1] and one.end.mixed_QK.shape == (1, 16)


# What a measurement means


def part(value, low, high, seeds=None):
    return Part(value=value, low=low, high=high, seeds=(value,) * 3 if seeds is None else seeds)


TABLE = {  # rule "x > 0", unit accuracy
    "holds": (part(0.20, 0.16, 0.24), "reproduced"),
    "holds, but two seeds": (part(0.20, 0.16, 0.24, (0.2, 0.2)), "trend"),
    "holds, but one seed": (part(0.20, 0.16, 0.24, (0.2,)), "trend"),
    "holds, but a seed falls": (part(0.20, 0.16, 0.24, (0.3, 0.31, -0.01)), "trend"),
    "holds, but a seed stands still": (part(0.20, 0.16, 0.24, (0.3, 0.3, 0.0)), "trend"),
    "holds, but a seed is undefined": (part(0.20, 0.16, 0.24, (0.3, 0.3, None)), "trend"),
    "holds, but too wide": (part(0.20, 0.14, 0.26), "inconclusive"),
    "just narrow enough": (part(0.20, 0.15, 0.25), "reproduced"),
    "includes 0": (part(0.03, -0.01, 0.07), "trend"),
    "touches 0": (part(0.03, 0.0, 0.06), "trend"),
    "includes 0 and too wide": (part(0.03, -0.07, 0.13), "inconclusive"),
    "wrong sign, includes 0": (part(-0.01, -0.05, 0.03), "inconclusive"),
    "exactly 0": (part(0.0, 0.0, 0.0), "inconclusive"),
    "other side": (part(-0.20, -0.24, -0.16), "contradicted"),
    "other side, one seed": (part(-0.20, -0.24, -0.16, (-0.2,)), "contradicted"),
    "other side, but too wide": (part(-0.20, -0.30, -0.10), "inconclusive"),
    "touches 0 from the other side": (part(-0.03, -0.06, 0.0), "inconclusive"),
    "no value": (part(None, None, None), "inconclusive"),
    "no upper end": (part(3.0, 1.0, None), "inconclusive"),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_verdict_on_one_part(case):
    measured, expected = TABLE[case]
    assert verdict("x > 0", {"x": measured}, "accuracy") == expected
    assert judge("x > 0", {"x": measured}, "accuracy")[1]  # and says why


def test_an_effect_of_the_power_is_told_from_its_threshold_in_four_studies_of_five():
    """Studies of three seeds on the same 60 questions, whose effects differ by question and hardly by seed."""
    rng = np.random.default_rng(0)

    def study(effect):
        each = effect + rng.normal(0, 0.5, 60)
        tables = [np.stack([0 * each, each + rng.normal(0, 0.1, 60)], axis=1) for _ in range(3)]
        return ledger.part_of(tables, lambda means: means[:, 1] - means[:, 0], shared=True)

    power = np.mean([ledger.detectable(study(0.0), 0.0, "accuracy") for _ in range(40)])
    assert np.mean([study(power).low > 0 for _ in range(200)]) == pytest.approx(0.8, abs=0.09)


@pytest.mark.parametrize("ends", [(None, 0.1), (0.1, 0.1), (-1.5, 0.5)])
def test_where_nothing_varied_or_nothing_is_bounded_there_is_no_power(ends):
    low, high = ends
    unit = "ratio" if low == -1.5 else "accuracy"
    assert ledger.detectable(Part(value=0.1, low=low, high=high, seeds=()), 1.0, unit) is None


@pytest.mark.parametrize("case", TABLE)
def test_the_verdict_mirrored(case):
    measured, expected = TABLE[case]

    def minus(value):
        return None if value is None else -value

    mirrored = Part(value=minus(measured.value), low=minus(measured.high), high=minus(measured.low),
                    seeds=tuple(minus(v) for v in measured.seeds))  # fmt: skip
    assert verdict("x < 0", {"x": mirrored}, "accuracy") == expected


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("holds", "holds", "reproduced"),
        ("holds", "includes 0", "trend"),
        ("includes 0", "includes 0", "trend"),
        ("holds", "holds, but a seed falls", "trend"),
        ("holds", "wrong sign, includes 0", "inconclusive"),
        ("holds", "holds, but too wide", "inconclusive"),
        ("includes 0", "holds, but too wide", "inconclusive"),
        ("holds", "other side", "contradicted"),
        ("includes 0", "other side", "contradicted"),
        ("no value", "other side", "contradicted"),  # one false part makes the whole false
        ("holds, but too wide", "other side", "contradicted"),
        ("holds", "other side, but too wide", "inconclusive"),
        ("holds", "no value", "inconclusive"),
    ],
)
def test_the_verdict_on_two_parts_in_either_order(first, second, expected):
    x, y = TABLE[first][0], TABLE[second][0]
    assert verdict("x > 0; y > 0", {"x": x, "y": y}, "accuracy") == expected
    assert verdict("x > 0; y > 0", {"x": y, "y": x}, "accuracy") == expected


@pytest.mark.parametrize(
    "rule, measured, expected",
    [
        ("x > 1", part(2.0, 1.6, 2.4), "reproduced"),  # a fifth of 2
        ("x > 1", part(2.0, 1.5, 2.5), "inconclusive"),
        ("x > 1", part(0.5, 0.42, 0.58), "contradicted"),
        ("x > 1", part(1.1, 0.95, 1.25), "trend"),
        ("x > 1", part(0.02, 0.0, 0.1), "contradicted"),  # nearly nothing is left: within 0.05
        ("x > 1", part(0.02, 0.0, 0.11), "inconclusive"),
        ("x > 1", part(0.2, 0.15, 0.25), "contradicted"),
        ("x > 1", part(0.26, 0.2, 0.32), "inconclusive"),
        ("x > 0", part(1.0, 0.6, 1.4), "reproduced"),  # the first line, as a relative change
        ("x > 0", part(1.0, 0.5, 1.5), "inconclusive"),
        ("x > 0", part(-0.5, -0.58, -0.42), "contradicted"),
    ],
)
def test_the_verdict_on_ratios_and_relative_changes(rule, measured, expected):
    assert verdict(rule, {"x": measured}, "ratio") == expected


@pytest.mark.parametrize("rule, parts", [("", {"x": part(1, 1, 1)}), ("x > 0", None), ("x > 0", {})])
def test_without_rule_or_measurement_a_claim_is_untestable(rule, parts):
    assert verdict(rule, parts, "accuracy") == "untestable"


NUMBER = st.integers(-20, 20).map(lambda n: n / 100)


@given(value=NUMBER, below=st.integers(0, 8), above=st.integers(0, 8), seeds=st.lists(NUMBER, min_size=1, max_size=5))
def test_a_verdict_is_never_better_than_its_parts(value, below, above, seeds):
    measured = part(value, value - below / 100, value + above / 100, tuple(seeds))
    found = verdict("x > 0", {"x": measured}, "accuracy")
    assert found in ledger.VERDICTS and found != "untestable"
    if found == "reproduced":
        assert measured.low > 0 and len(seeds) >= 3 and min(seeds) > 0 and measured.half_width <= 0.05 + 1e-9
    if found == "trend":
        assert value > 0
    if found == "contradicted":
        assert measured.high < 0 and measured.half_width <= 0.05 + 1e-9
    opposite = verdict("x < 0", {"x": measured}, "accuracy")
    assert (found == "contradicted") == (opposite in ("reproduced", "trend") and measured.high < 0)


def test_rules_are_read_or_refused():
    assert parse_rule("") == []
    assert parse_rule("a > 1; b < -0.5") == [("a", ">", 1.0), ("b", "<", -0.5)]
    for wrong in ("a >= 1", "a > 1;b < 2", "a", "a > x"):
        with pytest.raises(Refusal, match="cannot be read"):
            parse_rule(wrong)
    with pytest.raises(Refusal, match="unit 'metres'"):
        verdict("x > 0", {"x": part(1, 1, 1)}, "metres")


# What cannot be read, and what must not be published


def refuse(tmp_path, line):
    with pytest.raises(Refusal, match=line) as refusal:
        ledger.read("smoke", tmp_path / "out")
    assert "\n" not in str(refusal.value)


def test_no_runs_are_refused(tmp_path):
    refuse(tmp_path, "holds no evaluated seed")


def test_an_unfinished_run_is_refused(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    (world / "smoke/seed-0/evaluate/step-000050/manifest.json").write_text(json.dumps({"exit": None}))
    refuse(tmp_path, "step-000050 is not complete")


def test_an_evaluation_without_a_manifest_does_not_exist(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    (world / "smoke/seed-0/evaluate/step-000050/manifest.json").unlink()
    assert ledger.read("smoke", world)[0].steps == (0, 25, 75, 100)


def test_the_base_must_have_been_evaluated(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    (world / "smoke/seed-0/evaluate/step-000000/manifest.json").unlink()
    refuse(tmp_path, "untouched base")


def test_seeds_with_other_checkpoints_are_refused(tmp_path):
    write_world(tmp_path / "out", seeds=(0,), per_level=1)
    write_world(tmp_path / "out", seeds=(1,), per_level=1, steps=(0, 50, 100))
    refuse(tmp_path, "seed 1 was evaluated at steps")


def test_other_questions_at_another_checkpoint_are_refused(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    file = world / "smoke/seed-0/evaluate/step-000050/samples.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("q0003", "q0009"), encoding="utf-8")
    refuse(tmp_path, "other questions")


def test_a_unicode_line_separator_in_an_output_is_text(tmp_path):
    world = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    file = world / "smoke/seed-0/evaluate/step-000050/samples.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("Wait", "Wait\u2028\u0085"), encoding="utf-8")
    assert len(ledger.read("smoke", world)[0].ids) == 4


@pytest.fixture
def repository(tmp_path):
    """A git repository with a claims.csv of two rules; `commit(rules)` writes and commits it, and says the commit."""
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*words):
        return subprocess.run(
            ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def write(**rules):
        with (folder / "claims.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "rule", "unit"])
            writer.writerows([id, rule, "accuracy"] for id, rule in rules.items())

    def commit(**rules):
        write(**rules)
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "rules")
        return git("rev-parse", "HEAD")

    git("init", "-q")
    return folder / "claims.csv", commit, write


def made_at(seeds, commit, dirty=False):
    runs = [tuple(dataclasses.replace(run, commit=commit, dirty=dirty) for run in seed.runs) for seed in seeds]
    return [dataclasses.replace(seed, runs=r) for seed, r in zip(seeds, runs, strict=True)]


def test_runs_of_one_clean_commit_that_holds_the_rules_may_be_published(seeds, repository):
    file, commit, _ = repository
    first = commit(C01="x > 0", C02="y > 0")
    later = commit(C01="x > 0", C02="y > 0", C09="")
    assert ledger.rule_commits(file) == {"C01": first, "C02": first}
    for runs_from in (first, later):
        assert ledger.problems(made_at(seeds, runs_from), file) == []


def test_a_rule_changed_after_the_runs_is_a_problem_of_that_claim_alone(seeds, repository):
    file, commit, _ = repository
    first = commit(C01="x > 0", C02="y > 0")
    second = commit(C01="x > 0.1", C02="y > 0")
    (problem,) = ledger.problems(made_at(seeds, first), file)
    assert "rule of C01" in problem and second[:12] in problem
    assert ledger.problems(made_at(seeds, second), file) == []
    third = commit(C01="x > 0", C02="y > 0")  # going back is a change too
    assert ledger.rule_commits(file) == {"C01": third, "C02": first}


def test_a_rule_may_be_made_harder_after_the_runs_and_it_is_told(seeds, repository):
    file, commit, write = repository
    first = commit(C01="x > 0", C02="y > 0", C03="a > 0; b > 0")
    commit(C01="x > 0; z < 1", C02="y > 0", C03="a > 0; b > 0")
    assert ledger.problems(made_at(seeds, first), file) == []
    assert ledger.harder(first, file) == {"C01": ["z < 1"]}
    for rules in ({"C01": "x > 0.1; z < 1"}, {"C03": "a > 0"}, {"C02": "y < 0; y > 1"}):
        commit(**{"C01": "x > 0", "C02": "y > 0", "C03": "a > 0; b > 0"} | rules)
        (changed,) = rules
        assert any(f"rule of {changed} was" in problem for problem in ledger.problems(made_at(seeds, first), file))
        assert ledger.harder(first, file) == {}
    write(C01="x > 0; z < 1", C02="y > 0", C03="a > 0; b > 0")
    assert any("not committed" in problem for problem in ledger.problems(made_at(seeds, first), file))


def test_a_rule_that_is_not_committed_is_a_problem(seeds, repository):
    file, commit, write = repository
    first = commit(C01="x > 0")
    write(C01="x > 0.2")
    (problem,) = ledger.problems(made_at(seeds, first), file)
    assert "C01" in problem and "not committed" in problem


def test_dirty_mixed_and_unknown_commits_are_problems(seeds, repository):
    file, commit, _ = repository
    first = commit(C01="x > 0")
    (dirty,) = ledger.problems(made_at(seeds, first, dirty=True), file)
    assert "uncommitted changes" in dirty
    mixed = made_at(seeds[:1], first) + made_at(seeds[1:], "d" * 40)
    assert "from commits" in ledger.problems(mixed, file)[0]
    assert "from commits none" in ledger.problems(made_at(seeds, None), file)[0]


def test_an_interval_that_reaches_the_threshold_is_told_before_too_few_seeds():
    parts = {
        "a": Part(value=0.5, low=0.48, high=0.52, seeds=(0.5,)),
        "b": Part(value=0.01, low=-0.01, high=0.03, seeds=(0.01,)),
    }
    assert ledger.judge("a > 0; b > 0", parts, "accuracy") == ("trend", "the interval of b includes 0")
    assert ledger.judge("a > 0", parts, "accuracy") == ("trend", "1 of at least 3 seeds")
