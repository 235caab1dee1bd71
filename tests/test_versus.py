"""Distillation, RL and SFT in rounds side by side: equal shares, the right start of each arm, and honest counts."""

import json
import random
from dataclasses import replace

import pytest
import torch

from r1repro import config, config_arms
from r1repro.algo import budget, grpo
from r1repro.records import Refusal
from r1repro.stages import arms, collect, rl, sft, versus
from r1repro.tinyworld import base, families
from r1repro.tinyworld.corpus import output

# --- counts


def test_a_token_of_rl_costs_ten_passes_and_one_of_sft_six():
    """Sampled once, read once by the reference, learned from once; a backward pass is two forward passes."""
    rl_token = budget.operations(1, read=2, trained=1)
    assert (rl_token, budget.operations(1, trained=1)) == (10, 6)
    assert budget.operations(7, read=5) == 7 * budget.operations(1, read=5) == 70


@pytest.mark.parametrize("size", [2, 16])
def test_groups_that_teach_are_those_with_advantages(size):
    """By simulation: the share of groups whose advantages are not all zero."""
    rates = torch.tensor([0.02, 0.3, 0.97]).repeat(20_000)[:, None]
    rewards_QG = (torch.rand(len(rates), size, generator=torch.Generator().manual_seed(0)) < rates).float()
    taught = (grpo.advantages(rewards_QG).abs().max(dim=1).values > 0).float().mean().item()
    assert budget.mixed_groups([0.02, 0.3, 0.97], size) == pytest.approx(taught, abs=0.01)


@pytest.mark.parametrize("rates, size", [([], 4), ([1.5], 4), ([-0.1], 4), ([0.5], 0)])
def test_rates_that_are_none_are_refused(rates, size):
    with pytest.raises(ValueError, match="chances of one question"):
        budget.mixed_groups(rates, size)


def test_what_runs_took_is_added_up_and_only_rl_is_compared_with_a_reference(tmp_path):
    manifests = {
        "rl": {"stage": "rl", "tokens": {"sampled": 100, "trained": 90}, "wall_s": 60},
        "collect": {"stage": "collect", "tokens": {"sampled": 40}, "wall_s": 30},
        "sft": {"stage": "sft", "tokens": {"trained": 70}, "wall_s": 30},
        "judge": {"stage": "reward_model", "wall_s": 60},
    }
    for name, manifest in manifests.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    took = versus.spent(*(tmp_path / name for name in manifests))
    assert took == {"sampled": 140, "compared": 100, "trained": 160, "minutes": 3.0}


def test_a_checkpoint_took_what_was_logged_until_its_step(tmp_path):
    rows = [{"step": n, "tokens/trained": 7.0, "time/update_s": 10.0, "time/elapsed_s": 900.0} for n in range(1, 9)]
    begins = {"tokens/sampled": 20.0, "time/rollout_s": 60.0, "time/reward_s": 20.0}
    rows = [row | (begins if row["step"] % 4 == 1 else {}) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert versus.spent_until(tmp_path, 4) == {"sampled": 20, "compared": 20, "trained": 28, "minutes": 2}
    assert versus.spent_until(tmp_path, 8)["sampled"] == 40


# --- settings: what is equal


@pytest.mark.parametrize("tier", ["smoke", "cpu"])
def test_bases_of_all_sizes_have_one_rl_and_the_students_goes_on(tier):
    found = config_arms.versus(tier, 3)
    small, large = (
        {key: getattr(cfg, key) for key in cfg.__slots__ if key not in ("num_rollouts", "num_checkpoints")}
        for cfg in (found.rl, found.student_rl)
    )
    assert small == large and 3 * found.rl.num_rollouts == 2 * found.student_rl.num_rollouts
    assert found.rl.num_rollouts * found.rl.steps_per_rollout in rl.kept_steps(found.student_rl)
    assert found.rl.seed == found.sample.seed == 3


def test_at_the_cpu_tier_arms_change_nothing_else():
    found, zero, main = config_arms.versus("cpu", 2), config.r1_zero("cpu", 2), config.r1("cpu", 2)
    assert (found.rl, found.distill, found.sft) == (zero.rl, main.distill, main.sft)
    assert found.evaluate == main.evaluate == replace(found.on_the_way, k=main.evaluate.k)
    length = {"num_rollouts": main.reasoning_rl.num_rollouts, "num_checkpoints": main.reasoning_rl.num_checkpoints}
    assert replace(found.distilled_rl, **length) == main.reasoning_rl


@pytest.mark.parametrize("tier", ["smoke", "cpu"])
def test_rounds_sample_as_much_as_rl_and_ask_new_questions(tier):
    found = config_arms.versus(tier, 1)
    outputs = found.rl.num_rollouts * found.rl.questions_per_rollout * found.rl.outputs_per_question
    for rounds in (1, found.rounds):
        cfgs = versus.samplings(found, rounds)
        assert sum(cfg.num_questions * cfg.outputs_per_question for cfg in cfgs) == outputs and len(cfgs) == rounds
        assert {(cfg.max_tokens, cfg.temperature) for cfg in cfgs} == {(found.rl.max_tokens, found.rl.temperature)}
    other = config_arms.versus(tier, 2)
    seeds = [cfg.seed for s in (found, other) for n in (1, s.rounds) for cfg in versus.samplings(s, n)]
    assert len(set(seeds)) == len(seeds) and min(seeds) > 1000


def test_questions_that_cannot_be_divided_are_refused():
    with pytest.raises(Refusal, match="rounds is 7, but 512 questions"):
        versus.samplings(config_arms.versus("cpu"), 7)
    with pytest.raises(Refusal, match="rounds is 0"):
        config_arms.versus("cpu", 0, {"rounds": 0})


def test_what_is_right_and_has_the_form_is_kept_in_any_language():
    """The filter of the rounds is R1-Zero's reward: no rule of language or length, every right one is kept."""
    cfg = versus.samplings(config_arms.versus("cpu"), 4)[0]
    question = families.draw("chain_sum", "train", 1, "en", 0)
    mixed, other, long = ("so 所以 we add.", "所以我们相加.", "so " * 500)
    texts = [output(thought, question.gold) for thought in (mixed, other, long)]
    texts += [output("so", "no"), f"so <answer> {question.gold} </answer>"]
    (right,) = collect._right([question], [texts], None)
    found = collect._kept(question, texts, right, cfg)
    assert [example["output"] for example in found["examples"]] == texts[:3]
    assert found["dropped"] == ["wrong", "format"]


# --- where each arm begins


@pytest.fixture
def started(monkeypatch):
    """RL and SFT that train nothing and remember what they were given."""
    calls = []
    monkeypatch.setattr(rl, "train", lambda cfg, run, model, machine: calls.append((cfg, run, model)) or run)
    monkeypatch.setattr(
        sft, "train", lambda cfg, run, model, examples, machine: calls.append((cfg, run, model, examples)) or run
    )
    return calls


def test_rl_begins_with_the_untouched_base_of_each_size_or_with_the_distilled_student(tmp_path, started):
    found = config_arms.versus("cpu")
    for student in versus.SIZES:
        versus.rl_from_base(found, tmp_path, student)
    versus.rl_from_distilled(found, tmp_path, tmp_path / "student")
    assert [(cfg, run.name) for cfg, run, _ in started] == [
        (found.rl, "zero-140k"), (found.rl, "zero-280k"), (found.student_rl, "zero-580k"),
        (found.distilled_rl, "distilled-580k-rl"),
    ]  # fmt: skip
    assert [model for *_, model in started] == [*map(base.folder, versus.SIZES), tmp_path / "student"]
    with pytest.raises(Refusal, match="no base called 'llama-220k'"):
        versus.rl_from_base(found, tmp_path, "llama-220k")


def test_a_fraction_of_the_examples_is_that_much_of_them_and_a_smaller_one_lies_within(tmp_path, started):
    (tmp_path / "dev3").mkdir()
    rows = [{"question": f"{n}?", "output": f"{n}!"} for n in range(80)]
    (tmp_path / "dev3" / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = config_arms.versus("cpu", 4)
    for name in versus.FRACTIONS:
        versus.distill_fraction(found, tmp_path, name)
    read = [sft.read_examples(examples) for *_, examples in started]
    assert list(map(len, read)) == [10, 40] and read[0] == read[1][:10]
    assert all(row in rows for row in read[1]) and read[1] != rows[:40]
    assert {(cfg, model) for cfg, _, model, _ in started} == {(found.distill, base.folder(versus.STUDENT))}
    with pytest.raises(Refusal, match="no part of the examples called 'third'"):
        versus.distill_fraction(found, tmp_path, "third")


@pytest.fixture
def worked(monkeypatch):
    """Worked solutions in the place of samples, a third of them wrong."""

    def sampled(_actor, questions, cfg):
        rng = random.Random(cfg.seed)
        found = [
            [output(*families.solve(q, 2, lambda q=q: q.language, lambda _: 0.2, rng)) for _ in range(2)]
            for q in questions
        ]
        return found, [20] * len(questions)

    monkeypatch.setattr(collect, "_sampled", sampled)


SMALL = {
    "rounds": 2, "rl.questions_per_step": 4, "rl.steps_per_rollout": 2, "rl.refresh_reference_every": 2,
    "rl.num_rollouts": 2, "rl.outputs_per_question": 2, "rl.max_tokens": 300, "sft.epochs": 1,
}  # fmt: skip


def test_each_round_samples_from_the_round_before_and_goes_on_from_it(tmp_path, tiny_base, worked):
    found = config_arms.versus("smoke", 0, SMALL | {"base": str(tiny_base)})
    first, last = versus.sft_in_rounds(found, tmp_path)
    (once,) = versus.sft_in_rounds(found, tmp_path, 1)
    places = [tmp_path / "arms" / place for place in ("sft-rounds/round-1", "sft-rounds/round-2", "sft-once/round-1")]
    manifests = [
        json.loads((place / run / "manifest.json").read_text()) for place in places for run in ("sample", "sft")
    ]
    models = [m["inputs"].get("model") or m["inputs"]["base"] for m in manifests]
    untouched, after = base.digest(tiny_base), base.digest(first)
    assert models == [untouched, untouched, after, after, untouched, untouched]
    assert [m["config"].get("num_questions") for m in manifests[::2]] == [8, 8, 16]
    assert manifests[0]["tokens"] == {"sampled": 160} and manifests[4]["tokens"] == {"sampled": 320}
    assert len({base.digest(model) for model in (first, last, once, tiny_base)}) == 4
    asked = [{row["id"] for row in sft.read_examples(place / "sample" / "examples.jsonl")} for place in places[:2]]
    assert asked[0] and asked[1] and not asked[0] & asked[1]
    assert versus.sft_in_rounds(found, tmp_path) == [first, last]


def test_an_arm_without_its_run_is_said(tmp_path):
    with pytest.raises(Refusal, match="arms/zero-140k holds no finished model"):
        arms.model_of(tmp_path, versus.zero("qwen-140k"))
