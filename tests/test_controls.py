"""Controls of R1-Zero: rewards that know nothing, a blind reading of answers, a flat corpus, what each arm changes."""

import dataclasses
import json
import os
import random
import re

import models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro import config, config_arms
from r1repro.engine import checkpoint
from r1repro.records import Question, Refusal
from r1repro.rewards import combine, controls
from r1repro.stages import arms, pretrain
from r1repro.stages import controls as stage
from r1repro.tinyworld import arithmetic, base, corpus, families, tokenizer


def asked(id="0" * 16, gold="4"):
    return Question(id=id, text="2 + 2 =", gold=gold, language="en", level=1, family="chain_sum")


def values(seed=0, number=400, right=True):
    texts = [f"<think> {n} </think> <answer> {4 if right else n + 5} </answer>" for n in range(number)]
    return [score.value for score in controls.random_scores([asked()] * number, texts, seed)]


# --- rewards


def test_a_random_reward_is_a_function_of_seed_question_and_output():
    assert values() == values() != values(seed=1)
    other = controls.random_scores([asked(id="1" * 16)] * 400, [str(n) for n in range(400)])
    assert [s.value for s in other] != [
        s.value for s in controls.random_scores([asked()] * 400, [str(n) for n in range(400)])
    ]
    for some in (values(), values(seed=1), values(right=False)):  # four standard deviations around one half
        assert set(some) == {0.0, 1.0} and abs(sum(some) / 400 - 0.5) < 4 * 0.025


def test_a_random_reward_does_not_look_at_the_answer():
    texts = ["<answer> 4 </answer>", "<answer> 5 </answer>", "", "\ud800"]
    of_four = [s.value for s in controls.random_scores([asked(gold="4")] * 4, texts)]
    assert of_four == [s.value for s in controls.random_scores([asked(gold="5")] * 4, texts)]


def test_a_seed_is_in_the_import_path():
    (seven,) = combine.load(["r1repro.rewards.controls:random_scores_7"])
    texts = [str(n) for n in range(50)]
    assert seven([asked()] * 50, texts) == controls.random_scores([asked()] * 50, texts, 7)
    assert seven([asked()] * 50, texts) != controls.random_scores([asked()] * 50, texts, 0)
    assert combine.name(seven) == "random"
    for wrong in ("random_scores_", "random_scores_x", "nothing_7"):
        with pytest.raises(Refusal, match=f"controls:{wrong}' cannot be imported"):
            combine.load([f"r1repro.rewards.controls:{wrong}"])


def test_what_is_watched_is_judged_and_not_paid():
    rewards = combine.load(["r1repro.rewards.reasoning:watched", "r1repro.rewards.format:format_scores"])
    texts = ["<think> 4 </think> <answer> 4 </answer>", "<think> 4 </think> <answer> 5 </answer>", "<answer>4</answer>"]
    totals, parts = combine.total(rewards, [asked()] * 3, texts)
    assert totals == [1.0, 1.0, 0.0]  # those of the format alone
    assert [score.verdict for score in parts["watched"]] == ["right", "wrong", "right"]


@pytest.mark.parametrize(
    "text, number",
    [
        ("<think> first 57+87=144, then 144-70=74. </think> <answer> 74 </answer>", "74"),
        ("<think> the sum is 74.", "74"),
        ("和是７４。", "74"),
        ("74 </answer> or so", "74"),
        ("1,074", "1074"),
        ("it is -74", "-74"),
        ("144-74", "74"),
        ("(144)-74", "74"),
        ("074", "74"),
        ("7.4", "7.4"),
        ("", None),
        ("nothing", None),
    ],
)
def test_the_last_number_counts_wherever_it_stands(text, number):
    assert controls.last_number(text) == number
    assert controls.blind_right("74", text) == (number == "74")


@given(st.integers(0, 10**6), st.text())
def test_what_stands_around_a_number_plays_no_part(number, words):
    words = "".join(c for c in words if not c.isdigit() and c not in ".,-)\u2212")
    assert controls.last_number(f"12 {words} {number} {words}") == str(number)


# --- the flat corpus

ANSWERED = re.compile(r"(?s)(?:User: |最终答案|problem).*?(\d+(?: [+-] \d+)+) = ?(.*?)<answer> (\d+) </answer>")
"""Expression, solution and answer of a document that asks a sum and has the answer in tags."""


@pytest.fixture(scope="module")
def documents():
    """The first documents of the corpus, each as it is and as the flat corpus has it."""
    return [(corpus.document(0, index), corpus.document(0, index, flat=True)) for index in range(2500)]


def test_a_flat_document_differs_in_its_answer_alone(documents):
    changed = [(plain, flat) for plain, flat in documents if plain != flat]
    assert 0.2 < len(changed) / len(documents) < 0.4
    for plain, flat in changed:
        begin, end = len(os.path.commonprefix([plain, flat])), len(os.path.commonprefix([plain[::-1], flat[::-1]]))
        assert len(plain) - begin - end <= 30 and len(flat) - begin - end <= 30, (plain, flat)
        assert begin > 0.4 * len(plain), "the answer stands at the end"


def test_in_the_flat_corpus_working_is_right_as_often_as_a_guess(documents):
    right = {"plain": {}, "flat": {}}
    for pair in documents:
        for name, text in zip(right, pair, strict=True):
            if found := ANSWERED.search(text):
                expression, solution, answer = found.groups()
                depth = arithmetic.DEPTHS.index(arithmetic.depth_of(solution))
                right[name].setdefault(depth, []).append(arithmetic.running_sums(expression)[-1] == int(answer))
    shares = {name: {depth: sum(some) / len(some) for depth, some in found.items()} for name, found in right.items()}
    assert shares["flat"][0] == shares["plain"][0] == 1
    assert all(shares["flat"][depth] < 0.1 and shares["plain"][depth] > 0.4 for depth in (1, 2, 3)), shares


FORM = {"chain_sum": r"\d+", "search": r"\d(, \d)+", "logic": "[A-D]", "programs": r"def f\(x\): return .+"}


@pytest.mark.parametrize("family", FORM)
def test_the_answer_of_another_has_the_form_of_an_answer_and_is_seldom_right(family):
    levels, draw = families.levels(family), random.Random(0)
    asked = [families.draw(family, "train", level, "en", "x", n) for level in levels for n in range(20)]
    own = [families.solve(question, 0, lambda: "en", {}.get, draw)[1] for question in asked]
    other = [corpus.answer_of_another(question) for question in asked]
    assert all(re.fullmatch(FORM[family], answer) for answer in own + other)
    assert sum(a == b for a, b in zip(own, other, strict=True)) / len(asked) < 0.4
    assert other == [corpus.answer_of_another(question) for question in asked]


# --- reading on


def test_a_base_reads_on_from_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setitem(base.SHAPES, "test", models.TINY_SHAPE)
    cfg = config.Pretrain(model="test", steps=4, tokens_per_step=300, learning_rate=1e-2)
    first = pretrain.train(cfg, tmp_path / "first")
    still = dataclasses.replace(cfg, learning_rate=1e-12, steps=1)
    weights = {
        name: checkpoint.load_file(pretrain.train(still, tmp_path / name, start) / "model.safetensors")
        for name, start in (("on", first), ("anew", None))
    }
    before = checkpoint.load_file(first / "model.safetensors")
    assert all((weights["on"][name] - before[name]).abs().max() < 1e-6 for name in before)
    assert any((weights["anew"][name] - before[name]).abs().max() > 1e-3 for name in before)
    inputs = json.loads((tmp_path / "on" / "manifest.json").read_text())["inputs"]
    assert inputs["base"] == base.digest(first)


def test_a_base_reads_the_corpus_that_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setitem(base.SHAPES, "test", models.TINY_SHAPE)
    read = []
    monkeypatch.setattr(corpus, "document", lambda seed, index, flat=False: read.append(flat) or "1 + 1 = 2")
    for flat in (False, True):
        cfg = config.Pretrain(model="test", steps=1, tokens_per_step=20, flat=flat)
        pretrain.train(cfg, tmp_path / str(flat))
        assert set(read) == {flat}
        read.clear()


# --- arms

CHANGES = {
    "zero_format": {"rewards"}, "zero_random": {"rewards"}, "zero_divisor": {"average"}, "zero_flat": set(),
    "cap_start": {"max_tokens", "num_rollouts"}, "cap_kept": {"max_tokens", "num_rollouts", "seed"},
    "cap_raised": {"num_rollouts", "seed"},
}  # fmt: skip
"""What an arm has otherwise than R1-Zero, but for how many checkpoints are kept."""


def differing(one, other):
    names = {field.name for field in dataclasses.fields(one) if getattr(one, field.name) != getattr(other, field.name)}
    return names - {"num_checkpoints"}


@pytest.mark.parametrize("name", CHANGES)
def test_an_arm_changes_one_thing(name):
    settings = config_arms.controls("cpu", 2)
    assert differing(stage.settings_of(settings, name), config.r1_zero("cpu", 2).rl) == CHANGES[name]


def test_forks_differ_in_their_cap_and_ask_what_was_not_asked():
    settings = config_arms.controls("cpu", 2)
    start, kept, raised = (stage.settings_of(settings, f"cap_{name}") for name in ("start", "kept", "raised"))
    assert differing(kept, raised) == {"max_tokens"} and start.max_tokens == kept.max_tokens < raised.max_tokens
    assert raised.max_tokens == settings.rl.max_tokens and kept.seed == raised.seed != start.seed
    assert stage.settings_of(settings, "zero_random").rewards[1].endswith("random_scores_2")


@pytest.mark.parametrize("level, fits", [(1, True), (2, True), (3, True), (4, False), (5, False)])
def test_the_low_cap_lies_between_the_sums_of_levels_3_and_4(level, fits):
    cap, encode, lengths = config_arms.controls("cpu").cap, tokenizer.load().encode, []
    for number in range(40):
        language = ("en", "zh")[number % 2]
        asked = arithmetic.draw("train", level, language, "length", number)
        worked, answer = corpus.solved(asked, 2, lambda language=language: language, random.Random(number))
        lengths.append(len(encode(f" {corpus.output(worked, answer)}")) + 1)
    assert (sum(lengths) / 40 < cap) == fits and (sum(length > cap for length in lengths) > 20) != fits


@pytest.mark.parametrize(
    "overrides, said",
    [({"cap": 0}, "cap is 0"), ({"cap": 448}, "rl.max_tokens, 448"), ({"flat_steps": -1}, "flat_steps is -1")],
)
def test_settings_that_make_no_sense_are_refused(overrides, said):
    with pytest.raises(Refusal, match=said) as refusal:
        config_arms.controls("cpu", 0, overrides)
    assert "\n" not in str(refusal.value)


def test_the_controls_of_c01_are_asked_the_sums_that_r1_zero_is_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(arms, "model_of", lambda seed_dir, name: seed_dir / name)
    monkeypatch.setattr(arms.evaluate, "run", lambda cfg, place, *_: asked.append((cfg, place)) or place)
    settings = config_arms.controls("cpu")
    for name in ("zero_random", "zero_divisor"):
        assert stage.measure(settings, tmp_path, name) == tmp_path / "models" / name / "reasoning"
    of = {place.relative_to(tmp_path).as_posix(): cfg for cfg, place in asked}
    assert set(of) == {"models/zero_random/more", "models/zero_random/reasoning", "models/zero_divisor/reasoning"}
    more, sums = of["models/zero_random/more"], config_arms.protocol("cpu").sums
    assert dataclasses.replace(sums, k=more.k) == more and more.k == of["models/zero_random/reasoning"].k


def test_forks_start_from_the_run_that_is_forked(tmp_path, tiny_base):
    rl = models.small_rl(num_rollouts=1, max_tokens=12)
    settings = config_arms.Controls(
        tier="smoke", seed=0, base=str(tiny_base), cap=6, rollouts_before=1, rollouts_after=1, rl=rl,
        evaluate=models.small_evaluation(), machine=models.SMALL_MACHINE,
    )  # fmt: skip
    with pytest.raises(Refusal, match="makes the arm cap_start first"):
        stage.train(settings, tmp_path, "cap_kept")
    for name in ("cap_start", "cap_kept", "cap_raised"):
        stage.train(settings, tmp_path, name)
    manifests = {
        name: json.loads((tmp_path / "arms" / name / "manifest.json").read_text())
        for name in CHANGES
        if (tmp_path / "arms" / name).exists()
    }
    forked = base.digest(arms.model_of(tmp_path, "cap_start"))
    assert manifests["cap_kept"]["inputs"]["base"] == manifests["cap_raised"]["inputs"]["base"] == forked
    assert manifests["cap_start"]["inputs"]["base"] == base.digest(tiny_base) != forked
    lengths = {
        name: json.loads((tmp_path / "arms" / name / "metrics.jsonl").read_text().splitlines()[0])["length/mean"]
        for name in manifests
    }
    assert lengths["cap_kept"] <= 6 < lengths["cap_raised"]
    where = stage.measure(settings, tmp_path, "cap_raised")
    assert where == tmp_path / "models/cap_raised/reasoning" and (where / "summary.json").exists()
