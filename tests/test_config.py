"""One dial: every setting can be told, every wrong one is refused in a line, and `paper` is the paper."""

import dataclasses
import math

import pytest

from r1repro import config, config_arms, data, paper
from r1repro.records import Refusal


def refused(function, *words):
    with pytest.raises(Refusal) as caught:
        function()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


# --- refusals


@pytest.mark.parametrize("tier", ["huge", "", "CPU", None, 3, ["cpu"]])
def test_an_unknown_tier_is_refused(tier):
    refused(lambda: config.r1_zero(tier), repr(tier), "smoke, cpu")
    refused(lambda: config.check_runnable(tier), "smoke, cpu")


def test_the_tier_of_the_paper_shows_settings_and_does_not_train():
    assert config.r1_zero("paper").tier == "paper"
    refused(lambda: config.check_runnable("paper"), "paper", "smoke", "trains nothing")


@pytest.mark.parametrize("tier, launcher, ranks", [("gpu", "here", 1), ("node", "torchrun", 8), ("cluster", "ray", 32)])
def test_a_tier_says_who_starts_its_stages_and_on_how_many_ranks(tier, launcher, ranks):
    for settings in (config.r1_zero(tier), config.r1(tier), config.distill(tier, "qwen-7b")):
        assert (settings.machine.device, settings.machine.launcher, settings.machine.ranks) == ("cuda", launcher, ranks)
        assert ranks % settings.machine.tensor_parallel == 0
    here = config.r1_zero(tier, 0, {"machine.launcher": "ray", "machine.ranks": 2}).machine
    assert (here.launcher, here.ranks) == ("ray", 2)


@pytest.mark.parametrize("tier", config.RUNNABLE)
def test_a_tier_with_a_model_trains(tier):
    config.check_runnable(tier)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True, None, math.nan])
def test_a_bad_seed_is_refused(seed):
    refused(lambda: config.r1_zero("cpu", seed), repr(seed), "whole number")


@pytest.mark.parametrize(
    "name",
    [
        "learning_rate",
        "rl.lr",
        "rl",
        "rl.",
        "",
        ".",
        "foo.k",
        "rl.seed",
        "tier",
        "seed",
        "rl.evaluate.k",
        "evaluate.tier",
    ],
)
def test_an_unknown_setting_is_refused_with_those_there_are(name):
    refused(lambda: config.r1_zero("cpu", 0, {name: 1}), repr(name), "rl.learning_rate")


@pytest.mark.parametrize(
    "name, value",
    [
        ("rl.learning_rate", "fast"), ("rl.learning_rate", True), ("rl.learning_rate", None), ("rl.learning_rate", [1]),
        ("rl.num_rollouts", 1.5), ("rl.num_rollouts", "3"), ("rl.num_rollouts", False), ("rl.questions", 3),
        ("rl.num_rollouts", True), ("evaluate.k", True),
        ("rl.rewards", "a:b"), ("rl.rewards", [1]), ("base", 3), ("evaluate.k", 2.0), ("machine.max_rows", "many"),
        ("evaluate.split", 1), ("rl.advantage", None),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_type_is_refused(name, value):
    refused(lambda: config.r1_zero("cpu", 0, {name: value}), name, repr(value), "give one such as")


@pytest.mark.parametrize(
    "name, value",
    [
        ("rl.outputs_per_question", 1), ("rl.outputs_per_question", 0), ("rl.outputs_per_question", -4),
        ("rl.questions_per_step", 0), ("rl.steps_per_rollout", 0), ("rl.num_rollouts", 0), ("rl.num_rollouts", -1),
        ("rl.max_tokens", 0), ("rl.temperature", 0.0), ("rl.temperature", -1.0), ("rl.learning_rate", 0.0),
        ("rl.learning_rate", -1e-4), ("rl.learning_rate", math.nan), ("rl.learning_rate", math.inf),
        ("rl.kl_coefficient", -math.inf), ("rl.kl_coefficient", -0.1),
        ("rl.kl_coefficient", math.nan), ("rl.clip_low", math.nan), ("rl.clip_low", -0.1), ("rl.clip_high", 0.0),
        ("rl.clip_high", -1.0), ("rl.refresh_reference_every", 0), ("rl.refresh_reference_every", 6),
        ("rl.max_grad_norm", 0.0), ("rl.num_checkpoints", 0), ("rl.questions", "riddles"),
        ("evaluate.num_questions", 0), ("evaluate.k", 0), ("evaluate.temperature", 0.0), ("evaluate.top_p", 0.0),
        ("evaluate.top_p", 1.01), ("evaluate.max_tokens", 0), ("evaluate.seed", -1), ("evaluate.split", "exam"),
        ("evaluate.split", "train"), ("evaluate.questions", "riddles"), ("evaluate.temperature", math.nan),
        ("machine.micro_batch_tokens", 0), ("machine.max_rows", 0), ("machine.max_rows", -5),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_before_anything_runs(name, value):
    refused(lambda: config.r1_zero("cpu", 0, {name: value}), name.rpartition(".")[2], str(value))


@pytest.mark.parametrize("overrides", [3, "rl.learning_rate=1", ["rl.learning_rate"], [("rl.learning_rate", 1e-4)]])
def test_overrides_that_are_no_mapping_are_refused(overrides):
    refused(lambda: config.r1_zero("cpu", 0, overrides), "mapping")


def test_a_refresh_between_rollouts_is_a_multiple_of_the_steps():
    overrides = {"rl.steps_per_rollout": 3, "rl.refresh_reference_every": 6}
    assert config.r1_zero("cpu", 0, overrides).rl.refresh_reference_every == 6
    refused(lambda: config.r1_zero("cpu", 0, overrides | {"rl.refresh_reference_every": 7}), "7", "3", "multiple")


# --- what is told is what is done


def test_a_setting_that_is_told_is_the_only_one_that_changes():
    plain = dataclasses.asdict(config.r1_zero("cpu", 3))
    told = dataclasses.asdict(config.r1_zero("cpu", 3, {"rl.learning_rate": 1, "evaluate.k": 5, "base": "x"}))
    assert (told["rl"].pop("learning_rate"), told["evaluate"].pop("k"), told.pop("base")) == (1.0, 5, "x")
    for part in (plain["rl"].pop("learning_rate"), plain["evaluate"].pop("k"), plain.pop("base")):
        assert part
    assert told == plain
    assert config.r1_zero("cpu", 3).rl.seed == 3


@pytest.mark.parametrize("tier", config.TIERS)
def test_every_setting_can_be_told_its_own_value(tier):
    whole = config.r1_zero(tier)
    parts = {"rl": whole.rl, "evaluate": whole.evaluate, "machine": whole.machine, "policy": whole.policy}
    told = {f"{p}.{f.name}": getattr(x, f.name) for p, x in parts.items() for f in dataclasses.fields(x)}
    del told["rl.seed"], told["rl.policy"], told["evaluate.policy"]
    assert config.r1_zero(tier, 0, told) == whole


@pytest.mark.parametrize(
    "pair, value",
    [
        ("rl.learning_rate=1e-4", 1e-4), ("evaluate.k=4", 4), ("base=tiny-1m", "tiny-1m"), ("base=a=b", "a=b"),
        ('rl.rewards=["a:b", "c:d"]', ["a:b", "c:d"]), ("base=", ""), ("rl.learning_rate=NaN", math.nan),
    ],
)  # fmt: skip
def test_overrides_parse(pair, value):
    name = pair.partition("=")[0]
    assert repr(config.parse_overrides([pair])) == repr({name: value})


def test_an_override_without_a_value_is_refused():
    refused(lambda: config.parse_overrides(["rl.learning_rate"]), "rl.learning_rate", "=")


# --- paper and table


def test_the_paper_tier_is_the_paper():
    rl, evaluate = config.r1_zero("paper").rl, config.r1_zero("paper").evaluate
    zero, stage1 = (paper.hyperparameters(stage) for stage in ("r1_zero_rl", "reasoning_rl_stage1"))
    printed = {
        "questions_per_step": zero["questions_per_step"], "outputs_per_question": zero["group_size_G"],
        "steps_per_rollout": zero["minibatches_per_rollout"], "learning_rate": zero["learning_rate"],
        "kl_coefficient": zero["kl_coefficient_beta"], "clip_high": stage1["clip_epsilon"],
        "clip_low": stage1["clip_epsilon"], "temperature": zero["rollout_temperature"],
        "max_tokens": zero["max_length_initial"], "refresh_reference_every": zero["reference_model_refresh_steps"],
    }  # fmt: skip
    for name, value in printed.items():
        assert getattr(rl, name) == float(str(getattr(value, "value", value)).replace(",", "")), name
    assert rl.questions_per_rollout * rl.outputs_per_question == 8192 and rl.num_steps == 10400
    assert (evaluate.temperature, evaluate.top_p, evaluate.max_tokens) == (0.6, 0.95, 32768)


def test_the_cpu_tier_samples_as_the_paper_and_refreshes_twice():
    ours, theirs = config.r1_zero("cpu").rl, config.r1_zero("paper").rl
    for name in ("outputs_per_question", "temperature", "clip_low", "clip_high", "rewards", "ratio", "average"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.steps_per_rollout > 1 and ours.num_steps // ours.refresh_reference_every >= 2


def test_the_table_has_every_number_and_a_reason_wherever_cpu_differs():
    rows = {row["setting"]: row for row in config.table()}
    for part, settings in (("rl", config.RL()), ("evaluate", config.Evaluate())):
        for f in dataclasses.fields(settings):
            if f.name != "seed" and f.type in (int, float):
                assert f"{part}.{f.name}" in rows
    for name, row in rows.items():
        part, _, key = name.partition(".")
        assert row["paper"] != "?" or key in config.NOT_REPORTED
        for tier in [tier for tier in config.TIERS if row[tier] != "?"]:
            assert float(row[tier]) == pytest.approx(getattr(getattr(config.r1_zero(tier), part), key)), (name, tier)
        differs = row["cpu"] != row["paper"]
        assert bool(row["why the cpu tier differs"]) == differs, name


def _askers(settings, place=""):
    """Whatever of some settings asks a fixed number of questions, by its name."""
    for name in (field.name for field in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if isinstance(value, config.Evaluate | config.Collect):
            yield f"{place}{name}", value
        elif dataclasses.is_dataclass(value):
            yield from _askers(value, f"{place}{name}.")


@pytest.mark.parametrize("tier", ["smoke", "cpu"])
def test_there_are_as_many_questions_as_a_tier_asks(tier):
    """Open prompts are few: a number that is too large stopped a run after an hour and a quarter."""
    whole = [config.r1_zero(tier, 0), config.r1(tier, 0)]
    arms = (config_arms.versus, config_arms.attempts, config_arms.protocol, config_arms.controls)
    whole += [of(tier, 0) for of in arms]
    asked = [asker for settings in whole for asker in _askers(settings)]
    assert len(asked) > 12
    for name, cfg in asked:
        if isinstance(cfg, config.Evaluate):
            found = data.split_questions(cfg.questions, cfg.split, cfg.seed, cfg.num_questions)
        else:
            found = data.training_questions(cfg.questions, "collect", cfg.seed, cfg.num_questions)
        assert len(found) == cfg.num_questions, name
