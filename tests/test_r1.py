"""The pipeline after R1-Zero as tier gpu has it, on a CPU: adapters from stage to stage, the students' own rates.

Sizes are the smallest at which something is left to hand on; whether stages learn is for other tests.
"""

from dataclasses import replace

import pytest
from models import _without_times as lines
from models import newest

from r1repro import config, models
from r1repro.engine import adapters, scorer
from r1repro.records import Refusal
from r1repro.stages import r1, r1_zero
from r1repro.tinyworld import base, families

RL = {
    "questions_per_step": 2, "steps_per_rollout": 1, "num_rollouts": 1, "outputs_per_question": 4, "max_tokens": 16,
    "refresh_reference_every": 1, "num_checkpoints": 1, "questions": "chain_sum",
}  # fmt: skip
SFT = {"epochs": 1, "batch_size": 16, "max_tokens": 256}
JUDGED = {"num_prompts": 16, "outputs_per_prompt": 2, "batch_size": 32, "epochs": 1, "max_tokens": 64, "max_output": 16}
ASKED = {"num_questions": 2, "k": 2, "max_tokens": 16}
HERE = {
    "machine.device": "cpu", "policy.sampler": "torch", "policy.dtype": "float32", "policy.rank": 4,
}  # fmt: skip


TEXTS = ["the sea is cold", "<think> so. </think> Yes."]


def settings(weights, start):
    parts = {
        "cold_start": dict(num_questions=8, num_examples=4, max_tokens=64, questions="logic"),
        "cold_start_sft": SFT, "reasoning_rl": RL, "judge": JUDGED,
        "rejection": dict(num_questions=8, max_tokens=64, questions="logic"),
        "judged": dict(num_questions=2, max_tokens=24), "sft": SFT,
        "helpful": JUDGED | dict(min_difference=0.0, num_prompts=24), "safety": JUDGED,
        "all_scenarios": RL | dict(late_rollouts=1, questions_per_step=4), "distill": SFT, "evaluate": ASKED,
        "evaluate_open": ASKED,
    }  # fmt: skip
    told = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return config.r1("gpu", 0, HERE | {"policy.weights": weights, "base": start, "students": "llama-220k"} | told)


@pytest.mark.parametrize(("weights", "start"), [("lora", "qwen-140k"), ("qlora", "tiny-1m")])
def test_every_stage_hands_its_adapter_to_the_next(tmp_path, weights, start):
    """In 4 bits the smallest base is right about nothing, so there it is a larger one."""
    place, asked = tmp_path / "gpu" / "seed-0", settings(weights, start)
    zero = {f"rl.{name}": value for name, value in RL.items()} | {"evaluate.questions": "chain_sum"}
    zero |= {f"evaluate.{name}": value for name, value in ASKED.items()}
    r1_zero.run(config.r1_zero("gpu", 0, HERE | {"policy.weights": weights, "base": start} | zero), place)
    dev1 = r1.cold_start(asked, place)
    assert adapters.base_of(dev1) == r1.model_of(asked, place, "base") and adapters.held_of(dev1) == asked.policy
    r1.reasoning_rl(asked, place)
    r1.rejection(asked, place)
    r1.all_scenarios(asked, place)
    assert not list(place.rglob("model*.safetensors"))
    preference = [line.get("reward/preference") for line in lines(place / "r1" / "rl" / "metrics.jsonl")]
    assert preference[0] not in (None, 0.0)
    judge = newest(place / "dev3" / "judge")
    assert r1.scores(asked, judge, TEXTS) == tuple(scorer.scores(scorer.load(judge), TEXTS).tolist())
    helpful, safety = r1.reward_models(asked, place)
    afar, here = r1.preference(asked, place), scorer.Preference(helpful, safety)
    prompt = families.draw("general", "train", 1, "en", 0)
    assert afar([prompt] * 2, TEXTS) == here([prompt] * 2, TEXTS) and afar.inputs == here.inputs

    r1.distill(asked, place, "llama-220k")
    for name in ("dev3", "llama-220k_base", "llama-220k"):
        r1.measure(asked, place, name)
    assert set(models.read(place, tmp_path)) == {"dev3", "llama-220k_base", "llama-220k"}
    with pytest.raises(Refusal, match="no student called 'qwen-7b': choose one of llama-220k, or name it in"):
        r1.distill(asked, place, "qwen-7b")


def test_a_real_student_has_its_own_rate_unless_one_is_given():
    found = config.r1("gpu")
    assert found.students == ("qwen-0.5b",) and found.distill.learning_rate == 1e-4
    assert found.taught("llama-70b").learning_rate == 2e-5 and found.taught("qwen-32b").final_share == 0.1
    assert replace(found, own_rates=False).taught("llama-70b") == found.distill
    given = config.r1("gpu", 0, {"student": "llama-8b", "distill.learning_rate": 3e-4})
    assert given.students == ("llama-8b",) and given.taught("llama-8b").learning_rate == 3e-4
    tiny = config.r1("cpu")
    assert tiny.students == base.STUDENTS and {tiny.taught(name).learning_rate for name in tiny.students} == {2e-3}


def test_tier_gpu_is_held_as_notebook_03_s_and_has_settings_for_every_stage():
    pipeline, zero = config.r1("gpu", 0, {"profile": 48}), config.r1_zero("gpu", 0, {"profile": 48})
    assert (pipeline.base, pipeline.policy, pipeline.machine) == (zero.base, zero.policy, zero.machine)
    assert {*config.TIER_R1["gpu"]} - {""} == {*config.PIPELINE}
    assert pipeline.helpful.policy == pipeline.policy and pipeline.machine.device == "cuda"


@pytest.mark.parametrize(
    ("students", "said"), [(["qwen-9b"], "no student called 'qwen-9b': choose of qwen-140k"), ([], "at least one"),
                           (["qwen-7b"] * 2, "each once"), (7, "students is 7, not a list of names"),
                           ([7], "not a list of names")],
)  # fmt: skip
def test_students_that_are_none_are_refused(students, said):
    with pytest.raises(Refusal, match=said) as caught:
        config.r1("gpu", 0, {"students": students})
    assert "\n" not in str(caught.value)
