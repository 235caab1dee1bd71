"""Plans: shapes, memory against what is held in truth, the arithmetic of time; devices, the planner and its verb."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from bench import plan as bench_plan
from bench.run import RESULTS
from r1repro import __main__ as cli
from r1repro import config, students
from r1repro.config import Policy
from r1repro.engine import advice, devices, forecast, gauge, lengths, mixture, paper_plan, plan, planner, policy, shapes
from r1repro.records import Refusal
from r1repro.run import read_json
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
    "recomputed, long prompts": (
        made(8, 256, 8, 2, 704, 1024), FULL, dict(tokens=512, outputs=32, prompts=32, recompute=True)
    ),
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
    beside = 2 * 2 * shape.adapters(LORA.rank) * (100 + 10)  # the adapters' own, forward and backward
    assert full.flop / (lora.flop - beside) == pytest.approx(1.5)
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


# --- devices, lengths, the paper's model


@pytest.mark.parametrize("name", devices.devices())
def test_a_device_is_whole_and_says_where_it_comes_from(name):
    device = devices.device(name)
    assert 1e13 < device.flop < 1e16 and 1e10 < device.memory < 1e12 and 1e11 < device.bandwidth < 1e13
    assert device.bandwidth > device.link >= device.host / 2 and device.link >= device.network
    assert len(device.source) > 20 and device.network_source.startswith(("NVIDIA", "arXiv", "Ours: assumed"))


def test_what_is_assumed_says_so_and_what_is_measured_is_the_measurement():
    rows = devices._rows("assumptions.csv")
    for row in rows:
        begins = {"assumed": "Ours: ", "measured": "bench/results/", "published": "arXiv "}[row["kind"]]
        assert row["source"].startswith(begins), row
    assert {row["device"] for row in rows if row["kind"] == "measured"} == {"cpu"}
    (sft,) = (row for row in read_json(RESULTS / "cpu.json") if "share_of_matmul" in row)
    assert devices.share("cpu", "flop_share").low == pytest.approx(sft["share_of_matmul"], abs=1e-4)
    assert devices.share("h800", "flop_share").kind == "assumed", "others' figures are shown, not reckoned with"


@pytest.mark.parametrize("mean, cap", [(10.0, 1e6), (300.0, 1000.0), (499.0, 1000.0), (900.0, 1000.0)])
def test_lengths_have_the_mean_that_is_asked_for(mean, cap):
    draw = np.random.default_rng(0).exponential(min(lengths.scale(mean, cap), 1e9), 400_000).clip(max=cap)
    assert draw.mean() == pytest.approx(mean, rel=0.01)
    assert (draw**2).mean() == pytest.approx(lengths.squares(mean, cap), rel=0.02)
    longest = draw.reshape(-1, 1000).max(1).mean()
    assert lengths.longest(mean, cap, 1000) == pytest.approx(longest, rel=0.05)


def test_deepseek_v3_is_counted_as_its_makers_count():
    """README of its weights: 671 billion, 37 active.  arXiv 2505.09343: 70,272 bytes, 250 GFLOP a token at 4,096."""
    assert mixture.V3.parameters / 1e9 == pytest.approx(671, abs=0.5)
    assert mixture.V3.active / 1e9 == pytest.approx(37, abs=0.5)
    assert mixture.V3.cache == 70_272
    assert 3 * mixture.V3.forward_flop(1, 4096 / 2) / 1e9 == pytest.approx(250, rel=0.01)


# --- the planner


def planned(**changes):
    usual = dict(tier="cluster", student="qwen-32b", stage="rl", gpu="h100", gpus=64)
    return forecast.setting(**usual | changes)


def test_states_are_divided_by_the_ranks_and_adapters_are_not():
    few, many = planned(gpus=32), planned(gpus=64)
    for part in ("weights", "reference", "optimiser"):
        assert planner.static_bytes(few)[part] == 2 * planner.static_bytes(many)[part]
    weights = planner.static_bytes(many)
    assert sum(weights.values()) * 64 == 16 * many.shape.parameters, "weights, reference, two moments"
    assert planner.update_bytes(many)["gradients"] * 64 == 4 * many.shape.parameters
    layer = many.shape.linear / many.shape.layers
    gathered = planner.update_bytes(few)["layers gathered whole"]
    assert gathered == (3 * 2 + 2 + 2 * 4) * layer, "three in half precision, a gradient, and two in single"
    beside = [planned(gpus=n, overrides={"policy.weights": "qlora"}) for n in (8, 64)]
    assert planner.static_bytes(beside[0]) == planner.static_bytes(beside[1])
    assert planner.static_bytes(beside[0])["weights"] > 0.5 * many.shape.parameters


def test_vllm_divides_weights_and_keys_by_tensor_parallelism():
    two, eight = (planned(overrides={"machine.tensor_parallel": n}) for n in (2, 8))
    assert planner.vllm_bytes(two)["vLLM: weights"] == 4 * planner.vllm_bytes(eight)["vLLM: weights"]
    assert planner.cache_of_token(two) == 4 * planner.cache_of_token(eight)
    assert planner.cache_of_token(two) * 2 == 2 * 2 * 64 * 1024, "two tensors of 64 layers, 8 heads of 128, two bytes"
    assert two.copies == 32 and eight.copies == 8


def test_one_token_takes_the_longer_of_reading_and_computing():
    s, at = planned(overrides={"machine.tensor_parallel": 8}), planner.reached(devices.device("h100"), True)
    one, many = (planner.decode_step(s, at, np.array([float(n)]), np.array([0.0])) for n in (1, 10_000))
    read = 2 * s.shape.parameters / 8 / (0.8 * 3.35e12)
    assert one["memory bandwidth"] == pytest.approx(read) and one["compute"] == 0
    assert many["memory bandwidth"] == 0
    assert many["compute"] == pytest.approx(1e4 * 2 * (s.shape.linear + s.shape.head) / 8 / (0.5 * 989.5e12))
    assert one["calls and waits"] == 0.002 and one["interconnect"] > 2 * 64 * 1e-5


def test_a_rollout_waits_for_its_longest_output():
    s = planned(overrides={"machine.tensor_parallel": 8})
    at = planner.reached(s.place.device, True)
    few = replace(s, job=replace(s.job, sampled=8 * 8))
    steps = lengths.longest(s.job.mean, s.job.cap, 8)
    seconds = sum(planner.rollout_seconds(few, at).values())
    alone = sum(float(x[0]) for x in planner.decode_step(s, at, np.array([1.0]), np.array([0.0])).values())
    assert steps * alone < seconds < 1.3 * steps * alone, "eight outputs a copy cost what the longest costs"
    assert sum(planner.rollout_seconds(s, at).values()) > 2 * seconds


def test_an_update_costs_its_operations_and_the_fullest_rank():
    s, at = planned(), planner.reached(devices.device("h100"), True)
    even = replace(s, job=replace(s.job, mean=float(s.job.cap)))
    assert planner.fullest_share(even, 512) == 1.0 and 1.5 < planner.fullest_share(s, 512) < s.job.cap / s.job.mean
    flop = planner.update_seconds(even, at)["compute"] * at.flop
    tokens = 512 / 64 * even.job.cap
    assert flop > 8 * tokens * (s.shape.linear), "forward, backward, and forward again"
    without = replace(even, machine=replace(even.machine, recompute=False))
    assert planner.update_seconds(without, at)["compute"] * at.flop / flop == pytest.approx(0.75, abs=0.03)
    slow = replace(s, place=replace(s.place, device=replace(s.place.device, network=1e9)))
    assert planner.update_seconds(slow, at)["interconnect"] > 0 == planner.update_seconds(slow, at)["compute"]


@pytest.mark.parametrize(
    "changes, limit",
    [
        ({}, "compute"),
        ({"stage": "evaluate"}, "rollout bandwidth"),
        ({"overrides": {"machine.tensor_parallel": 1}}, "memory"),
        ({"gpu": "l40s", "stage": "sft", "student": "qwen-7b", "mean_tokens": 100}, "interconnect"),
    ],
)
def test_the_limit_is_named(changes, limit):
    assert planner.limit(planned(**changes))[0] == limit


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": {"machine.tensor_parallel": 1}},
        {"gpus": 8, "overrides": {"rl.max_tokens": 8192}},
        {"tier": "gpu", "student": "qwen-7b", "gpus": 1, "gpu": "a100-40", "overrides": {"rl.max_tokens": 32768}},
    ],
)
def test_what_is_to_be_changed_makes_it_fit(changes):
    s = planned(**changes)
    assert planner.shortage(s) > 0
    differs, other = advice.mended(s)
    assert planner.shortage(other) <= 0
    again = config.parse_overrides(differs)
    assert planner.shortage(planned(**changes | {"overrides": changes.get("overrides", {}) | again})) <= 0


def test_the_papers_hours_stand_beside_what_is_predicted():
    rows = {row.name: row for row in paper_plan.rows()}
    assert [row.published for row in rows.values()] == [101_000, 5_000, 41_000, 147_000]
    for row in rows.values():
        assert 0 < row.best < row.worst
        assert (row.verdict == "inside") == (row.best <= row.published <= row.worst)
    hours = paper_plan.rollout_hours(6000.0, 32768.0, 0)
    assert hours["rollout"] == pytest.approx(32768 / 20 * 512 / 3600), "the longest at 20 tokens a second"
    assert hours["update"] == 3 * hours["reference"]


# --- the verb


@pytest.mark.parametrize(
    "words, needed",
    [
        (["--tier", "huge"], ["'huge'", "cluster"]),
        (["--tier", "cpu"], ["cpu", "gpu, node, cluster, paper"]),
        (["--tier", "paper", "--gpus", "64"], ["paper", "--student"]),
        (["--tier", "node", "--gpu", "h1000"], ["'h1000'", "h100"]),
        (["--tier", "node", "--student", "gpt-5"], ["'gpt-5'", "qwen-32b"]),
        (["--tier", "node", "--stage", "dream"], ["'dream'", "sft"]),
        (["--tier", "node", "--gpus", "0"], ["0 GPUs"]),
        (["--tier", "node", "--gpus", "some"], ["--gpus", "'some'"]),
        (["--tier", "cluster", "--gpus", "12"], ["12 GPUs", "multiple of 8"]),
        (["--tier", "cluster", "--gpus", "1024"], ["1024", "512 outputs"]),
        (["--tier", "node", "--set", "machine.tensor_parallel=3"], ["tensor_parallel", "3"]),
        (["--tier", "node", "--set", "rl.size=3"], ["'rl.size'"]),
        (["--tier", "node", "--set", "policy.sampler=torch"], ["policy.sampler", "vllm"]),
        (["--tier", "gpu", "--gpu", "t4", "--set", "policy.dtype=bfloat16"], ["T4", "float16"]),
        (["--tier", "gpu", "--student", "llama-70b"], ["does not fit on 1 rtx4090", "whatever is set"]),
        (["--tier", "node", "--student", "qwen-32b", "--gpus", "1"], ["does not fit on 1 h100", "--gpu"]),
        (["--tier", "node", "--price", "dear"], ["--price", "'dear'"]),
        (["--tier", "node", "--mean-tokens", "9999999"], ["9,999,999", "8192"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_a_wrong_plan_is_answered_with_one_line(capfd, words, needed):
    try:
        code = cli.main(["plan", *words])
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("r1repro: ") and all(word in err for word in needed), err


@pytest.mark.parametrize("stage", forecast.STAGES)
@pytest.mark.parametrize("tier", ["gpu", "node", "cluster"])
def test_a_plan_says_what_it_is_asked_for(capfd, tier, stage):
    code = cli.main(["plan", "--tier", tier, "--stage", stage, "--student", "qwen-7b", "--gpu", "h100"])
    out = capfd.readouterr().out
    assert code == 0 and all(len(line) < 200 for line in out.splitlines())
    for word in ("memory of a GPU, GB", "in all", "GPU-hours", "cost at 2", "limit: ", "change: ", "32,768 tokens"):
        assert word in out
    if stage == "rl":
        assert all(part in out for part in ("rollout", "reward", "update", "sync of weights"))
    assert "assumed" in out and "data sheet" in out


def test_a_plan_that_does_not_fit_says_how_it_would(capfd):
    words = ["plan", "--tier", "cluster", "--student", "qwen-32b", "--set", "machine.tensor_parallel=1"]
    assert cli.main(words) == 1
    out = capfd.readouterr().out
    assert "NO" in out and "limit: memory" in out and "change: --set machine.tensor_parallel=" in out


def test_the_plan_of_the_paper(capfd):
    assert cli.main(["plan", "--tier", "paper"]) == 0
    out = capfd.readouterr().out
    for word in ("671 billion", "101,000", "5,000", "41,000", "published", "assumed"):
        assert word in out


# --- predictions against measurements, as committed


@pytest.fixture(scope="module")
def committed():
    return read_json(RESULTS / "cpu-plan.json")


def test_the_committed_predictions_come_out_of_the_formulas(committed):
    """A formula that changes without a new measurement, or rates that were fitted on something else, are seen."""
    rates = bench_plan.fit(committed["rows"])
    for phase, of in rates.items():
        assert asdict(of) == pytest.approx(committed["rates"][phase], rel=1e-6)
    for new, old in zip(bench_plan.compared(committed["rows"], rates), committed["rows"], strict=True):
        for phase in bench_plan.PHASES:
            assert new[phase]["foretold"] == pytest.approx(old[phase]["foretold"], rel=1e-6), old["configuration"]
            assert new[phase]["error"] == pytest.approx(old[phase]["error"], abs=1e-6)


def test_what_was_held_out_is_foretold(committed):
    """Memory within 10 %, time within 25 %, on configurations that the rates were not fitted on."""
    held_out = [row for row in committed["rows"] if row["role"] == "held out"]
    fitted = [row["configuration"] for row in committed["rows"] if row["role"] == "fit"]
    assert [row["configuration"] for row in held_out] == [asdict(one) for one in bench_plan.HELD_OUT]
    assert len(held_out) == 8 and not [row for row in held_out if row["configuration"] in fitted]
    for of in (lambda one: one.shape().parameters, lambda one: one.length, lambda one: one.outputs):
        assert max(map(of, bench_plan.HELD_OUT)) >= 10 * min(map(of, bench_plan.HELD_OUT))
    for row in held_out:
        for phase in bench_plan.PHASES:
            assert abs(row[phase]["error"]["bytes"]) <= 0.10, row["configuration"]
            assert abs(row[phase]["error"]["seconds"]) <= 0.25, row["configuration"]
