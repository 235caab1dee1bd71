"""Plans: shapes of known models, memory against what is held in truth, and the arithmetic of time."""

import math

import pytest
import torch

from r1repro import students
from r1repro.config import Policy
from r1repro.engine import gauge, plan, policy, shapes
from r1repro.records import Refusal
from r1repro.tinyworld import base

FULL, LORA = Policy(), Policy(weights="lora", rank=8)


def made(layers, width, heads, key_heads, inner, vocabulary, is_tied=True, has_bias=True):
    return shapes.Shape(
        name="made", layers=layers, width=width, heads=heads, key_heads=key_heads, head_width=width // heads,
        inner=inner, vocabulary=vocabulary, is_tied=is_tied, has_bias=has_bias,
    )  # fmt: skip


@pytest.mark.parametrize("name", students.students())
def test_a_student_has_as_many_weights_as_its_name_says(name):
    said = float(students.student(name).parameters.removesuffix("B"))
    assert shapes.shape(name).parameters / 1e9 == pytest.approx(said, rel=0.1)


@pytest.mark.parametrize("name", ["tiny-1m", "qwen-140k", "llama-220k"])
def test_a_base_is_counted_to_the_last_weight(name):
    model, shape = policy.load(base.folder(name)), shapes.shape(name)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.linear == sum(
        m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head
    )


def test_adapters_are_counted_to_the_last_weight():
    shape = made(2, 64, 4, 2, 96, 128, is_tied=False, has_bias=False)
    model = gauge.random_model(shape, LORA)
    assert shape.adapters(8) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_what_no_plan_is_made_for_is_refused():
    with pytest.raises(Refusal, match="lacks 'num_attention_heads'"):
        shapes.of_config({"model_type": "mamba"}, "mine")


# --- memory: none of these is among those that the counts were read off from

UPDATES = {
    "ten layers, few tokens": (made(10, 128, 4, 2, 320, 512), FULL, dict(tokens=512, outputs=8, prompts=2)),
    "wide, many tokens": (made(2, 384, 6, 6, 1152, 1024), FULL, dict(tokens=4096, outputs=32, prompts=4)),
    "long outputs": (made(3, 192, 6, 3, 640, 2048), FULL, dict(tokens=4096, outputs=4, prompts=2)),
    "a large vocabulary in chunks": (
        made(3, 256, 4, 2, 512, 20000, is_tied=False, has_bias=False),
        FULL,
        dict(tokens=1024, outputs=8, prompts=1, logits_at_once=2**21),
    ),
    "recomputed": (made(8, 256, 8, 2, 704, 1024), FULL, dict(tokens=2048, outputs=16, prompts=2, recompute=True)),
    "two micro-batches": (
        made(4, 256, 4, 4, 768, 1024), FULL, dict(tokens=1024, outputs=8, prompts=1, micro_batches=2)
    ),
    "adapters": (made(6, 256, 4, 2, 704, 1024), LORA, dict(tokens=2048, outputs=16, prompts=2)),
}  # fmt: skip
SAMPLINGS = {
    "many rows": (made(4, 128, 4, 4, 320, 1024), dict(rows=256, max_tokens=32, prompts=8)),
    "long rows": (made(6, 192, 6, 2, 512, 512), dict(rows=16, max_tokens=128, prompts=4)),
}


@pytest.mark.parametrize("name", UPDATES)
def test_the_memory_of_an_update_is_foretold(name):
    shape, held, values = UPDATES[name]
    work = plan.Work(prompt_tokens=32, **values)
    peak = gauge.peak_bytes(gauge.update(shape, held, work))
    there = sum(plan.static_bytes(shape, held, work).values())
    foretold, parts = plan.peak_bytes(shape, held, work)
    assert foretold == pytest.approx(peak + there, rel=0.1), parts
    assert sum(plan.update_bytes(shape, held, work).values()) == pytest.approx(peak, rel=0.15), parts


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_memory_of_sampling_is_foretold(name):
    shape, values = SAMPLINGS[name]
    work = plan.Work(tokens=0, outputs=0, prompt_tokens=32, **values)
    peak = gauge.peak_bytes(gauge.sampling(shape, FULL, work))
    assert sum(plan.sampling_bytes(shape, FULL, work).values()) == pytest.approx(peak, rel=0.1)


def test_what_is_there_all_the_time():
    shape, work = made(2, 64, 4, 2, 96, 128), plan.Work(
        tokens=1, outputs=1, prompts=1, prompt_tokens=1, has_reference=True
    )  # fmt: skip
    assert sum(plan.static_bytes(shape, FULL, work).values()) == 16 * shape.parameters  # weights, reference, 2 moments
    small = plan.static_bytes(shape, Policy(weights="qlora", dtype="bfloat16", rank=8), work)
    assert small["weights"] == pytest.approx(0.5158691 * shape.linear + 2 * shape.others)
    assert small["adapters"] == 8 * shape.adapters(8) == small["optimiser"]


# --- time


def test_a_pass_counts_two_operations_a_weight_and_token():
    shape = made(2, 64, 4, 2, 96, 128, has_bias=False)
    cost = plan.forward(shape, FULL, tokens=10, pairs=0, head_tokens=10)
    assert cost.flop == 2 * 10 * (shape.linear + shape.head)
    assert plan.attention_flop(shape, 1) == 4 * 2 * 64


def test_an_update_of_all_weights_takes_three_passes_and_one_beside_frozen_ones_two():
    shape = made(2, 64, 4, 2, 96, 128)
    work = plan.Work(tokens=100, outputs=10, prompts=1, prompt_tokens=10)
    full, lora = plan.update_cost(shape, FULL, work), plan.update_cost(shape, LORA, work)
    assert full.flop / lora.flop == pytest.approx(1.5)
    again = plan.update_cost(
        shape, FULL, plan.Work(tokens=100, outputs=10, prompts=1, prompt_tokens=10, recompute=True)
    )
    assert again.flop > full.flop


def test_rates_come_out_of_what_was_measured():
    costs = [
        plan.Cost(10.0**a, 10.0**b, c) for a, b, c in ((9, 6, 10), (8, 8, 10), (6, 6, 500), (9, 8, 100), (7, 7, 7))
    ]
    true = plan.Rates(1e-11, 2e-10, 5e-6)
    found = plan.fitted(costs, [true.seconds(cost) for cost in costs])
    for name in ("flop", "traffic", "calls"):
        assert math.isclose(getattr(found, name), getattr(true, name), rel_tol=1e-6)
    assert plan.fitted(costs[:2], [-1.0, -1.0]) == plan.Rates(0.0, 0.0, 0.0)
