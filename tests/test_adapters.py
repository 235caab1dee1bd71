"""Adapters: what is trained and what is not, the reference beside them, 4-bit weights, and what belongs together."""

import json

import models
import pytest
import torch

from r1repro import config
from r1repro.config import Machine, Policy
from r1repro.engine import actor, adapters, checkpoint, policy
from r1repro.records import Refusal
from r1repro.stages import evaluate, rl, sft
from r1repro.tinyworld import base

LORA, QLORA = Policy(weights="lora", rank=4, alpha=8), Policy(weights="qlora", rank=4, alpha=8)
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 2]]
ASKED = (PROMPTS, torch.tensor([0, 0, 1]), torch.arange(2, 26).view(3, 8), torch.tensor([8, 5, 6]))
HOW = dict(temperature=1.0, max_tokens=1000)


def logp(model):
    return policy.all_logp(model, *ASKED, **HOW)


def loss(logp_NT, rows):
    return -logp_NT.sum() / 19


def step_(model, optimizer):
    policy.backward_(model, *ASKED, loss, **HOW)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("held", [LORA, QLORA], ids=["lora", "qlora"])
def test_new_adapters_change_nothing_and_are_all_that_is_trained(tiny_base, held):
    plain, adapted = policy.load(tiny_base, held=held), actor.load(tiny_base, held, trained=3).model
    assert torch.equal(logp(plain), logp(adapted))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    layers = {f"model.layers.{i}" for i in range(2)}
    linear = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    assert set(trained) == {f"{i}.{x}.lora_{m}.policy.weight" for i in layers for x in linear for m in "AB"}
    assert adapted.get_output_embeddings().weight.data_ptr() == adapted.get_input_embeddings().weight.data_ptr()
    same, other = (actor.load(tiny_base, held, trained=seed).model for seed in (3, 4))
    drawn = [adapters.tensors(model) for model in (adapted, same, other)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not any(torch.equal(t, drawn[2][name]) for name, t in drawn[0].items() if "lora_A" in name)


def test_their_gradient_is_that_of_the_whole_weight_seen_through_them(tiny_base):
    """W + s B A, so dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW, with dL/dW of the merged model."""
    adapted = actor.load(tiny_base, LORA, trained=3).model
    optimizer = policy.adamw(adapted, 0.05)
    for _ in range(2):
        step_(adapted, optimizer)
    policy.backward_(adapted, *ASKED, loss, **HOW)
    whole = policy.load(tiny_base)
    whole.load_state_dict(adapters.merged(adapted), strict=False)
    policy.backward_(whole, *ASKED, loss, **HOW)
    for name, p in whole.named_parameters():
        if name.endswith("_proj.weight"):
            layer, scale = adapted.get_submodule(name.removesuffix(".weight")), 8 / 4
            a, b = layer.lora_A["policy"].weight, layer.lora_B["policy"].weight
            torch.testing.assert_close(b.grad, scale * p.grad @ a.T, atol=2e-5, rtol=1e-3)
            torch.testing.assert_close(a.grad, scale * b.T @ p.grad, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("held", [LORA, QLORA], ids=["lora", "qlora"])
def test_the_reference_is_the_base_until_it_is_refreshed(tiny_base, held):
    made = actor.load(tiny_base, held, trained=3)
    reference, before = actor.Reference(made, tiny_base, held), logp(made.model)
    optimizer = policy.adamw(made.model, 0.05)
    for _ in range(2):
        step_(made.model, optimizer)
    after = logp(made.model)
    assert (after - before).abs().max() > 0.1
    with reference.model() as model:
        assert torch.equal(logp(model), before)
    reference.refresh_()
    with reference.model() as model:
        assert torch.equal(logp(model), after)
    step_(made.model, optimizer)  # the policy is trained again, the reference is not
    with reference.model() as model:
        assert torch.equal(logp(model), after)
    assert not torch.equal(logp(made.model), after)


def test_weights_in_4_bits_are_nf4_with_quantised_scales():
    """Of the tiny world's base: bitsandbytes rounds matrices of 32 x 32 worse on a CPU, by 0.3 in the place of 0.09."""
    model, plain = policy.load(base.folder(base.MAIN), held=QLORA), policy.load(base.folder(base.MAIN))
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    state = layer.weight.quant_state
    assert layer.weight.dtype == torch.uint8 and state.quant_type == "nf4" and state.nested
    for name, p in plain.named_parameters():
        if name.endswith("_proj.weight"):
            held = adapters.plain_weight(model.get_submodule(name.removesuffix(".weight")))
            relative = (held - p).square().mean().sqrt() / p.square().mean().sqrt()
            assert 0.05 < relative < 0.12, (name, relative)
        elif "norm" in name or "embed" in name:
            assert torch.equal(model.get_parameter(name), p)


@pytest.mark.parametrize("held", [LORA, QLORA], ids=["lora", "qlora"])
def test_rl_with_adapters_goes_on_where_it_was_stopped(tiny_base, tmp_path, monkeypatch, held):
    cfg = models.small_rl(policy=held, learning_rate=0.02)
    alone = rl.train(cfg, tmp_path / "alone", tiny_base, models.SMALL_MACHINE)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep_only", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rl.train(cfg, tmp_path / "run", tiny_base, models.SMALL_MACHINE)
    assert checkpoint.steps_in(tmp_path / "run") == [0, 2]
    run = rl.train(cfg, tmp_path / "run", tiny_base, models.SMALL_MACHINE)
    lines = [models._without_times(folder / "metrics.jsonl") for folder in (alone, run)]
    assert lines[0] == lines[1] and max(line["sampler/divergence_nats"] for line in lines[0][::2]) < 1e-9
    for name in (adapters.WEIGHTS, "reference.safetensors"):
        last = [checkpoint.load_file(models.newest(folder) / name) for folder in (alone, run)]
        assert all(torch.equal(t, last[1][key]) for key, t in last[0].items())
    assert not list(run.rglob("model*.safetensors"))
    assert json.loads((run / "manifest.json").read_text())["config"]["policy"]["weights"] == held.weights
    done = evaluate.run(models.small_evaluation(policy=held), tmp_path / "e", models.newest(run), models.SMALL_MACHINE)
    assert json.loads((done / "summary.json").read_text())["questions"] == 6


def test_an_adapter_goes_beside_what_it_was_trained_beside(tiny_base, tmp_path):
    made = actor.load(tiny_base, QLORA, trained=0)
    folder = checkpoint.save_(tmp_path, 1, made.model, made.vocabulary.tokenizer)
    with pytest.raises(Refusal, match="trained beside weights held as qlora, not lora: set policy.weights=qlora"):
        policy.load(folder, held=LORA)
    about = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps(about | {"base_model_name_or_path": str(tmp_path / "gone")}))
    (folder / "checkpoint.json").unlink()
    with pytest.raises(Refusal, match="gone, where no model is: put its base back there"):
        policy.load(folder, held=QLORA)


def test_a_damaged_adapter_is_refused_in_one_line(tiny_base, tmp_path):
    made = actor.load(tiny_base, LORA, trained=0)
    folder = checkpoint.save_(tmp_path, 1, made.model, made.vocabulary.tokenizer)
    (folder / "checkpoint.json").unlink()
    weights = folder / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Refusal, match="cannot be put beside its base.*put it there whole") as caught:
        policy.load(folder, held=LORA)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(tiny_base, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(Refusal, match="package bitsandbytes.*policy.weights=lora"):
        policy.load(tiny_base, held=QLORA)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(Refusal, match="package peft.*policy.weights=full"):
        actor.load(tiny_base, LORA, trained=0)


def test_grpo_beside_4_bit_weights_raises_its_reward(tmp_path):
    """Sums at smoke with QLoRA, from the tiny world's base: what is measured is the reward of its own rollouts."""
    changes = {"rl.learning_rate": 2e-3, "rl.num_rollouts": 5, "rl.max_tokens": 160, "rl.questions": "chain_sum"}
    settings = config.r1_zero("smoke", overrides=changes | {"policy.weights": "qlora"})
    run = rl.train(settings.rl, tmp_path / "run", base.folder(base.MAIN), settings.machine)
    rewards = [line["reward/mean"] for line in models._without_times(run / "metrics.jsonl") if "reward/mean" in line]
    assert rewards[-1] > rewards[0] + 0.15 and sum(rewards[-2:]) > sum(rewards[:2]) + 0.3, rewards


def test_a_student_learns_beside_4_bit_weights_and_keeps_it_when_merged(tmp_path, tiny_base):
    rows = [
        {"question": f"{n} + 1 =", "output": f"<think> {n}+1={n + 1}. </think> <answer> {n + 1} </answer>"}
        for n in range(16)
    ]
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cfg = config.SFT(policy=QLORA, epochs=12, batch_size=8, learning_rate=0.02, max_tokens=64)
    folder = sft.train(cfg, tmp_path / "run", tiny_base, file, Machine(micro_batch_tokens=100))
    losses = [line["policy/loss"] for line in models._without_times(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.6 * losses[0]
    again, whole = (policy.load(folder, held=held) for held in (QLORA, None))
    torch.testing.assert_close(logp(whole), logp(again), atol=1e-4, rtol=0)
    unquantised = actor.load(tiny_base, LORA, trained=0).model
    adapters.load_(unquantised, checkpoint.load_file(folder / adapters.WEIGHTS))
    assert (logp(unquantised) - logp(again)).abs().max() > 1e-2  # merged beside other weights it is another model
