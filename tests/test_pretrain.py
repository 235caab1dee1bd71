"""Pre-training: the schedule, a loss that falls, and a base that is a function of its settings."""

import json
import math
import shutil

import pytest
import torch

from r1repro import config
from r1repro.engine import checkpoint, muon
from r1repro.stages import pretrain
from r1repro.tinyworld import base, corpus, tokenizer


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shape = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    monkeypatch.setitem(base.SHAPES, "test", shape)


def settings(**changes):
    return config.Pretrain(
        **dict(model="test", steps=25, tokens_per_step=400, checkpoint_every=10, learning_rate=1e-2) | changes
    )


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_schedule_warms_up_and_falls_to_a_twentieth():
    points = [pretrain.schedule(i / 1000, 0.1) for i in range(1, 1001)]
    assert points[49] == pytest.approx(0.5) and points[99] == pytest.approx(1) and points[-1] == pytest.approx(0.05)
    assert points[549] == pytest.approx(0.525)  # half-way down the cosine
    assert all(a < b for a, b in zip(points[:99], points[1:100], strict=True))
    assert all(a > b for a, b in zip(points[100:-1], points[101:], strict=True))
    assert max(abs(a - b) for a, b in zip(points[:-1], points[1:], strict=True)) < 0.011
    assert pretrain.schedule(0.01, 0.0) == pytest.approx(1, abs=1e-3)


def test_the_loss_falls_and_everything_is_kept(tmp_path):
    folder = pretrain.train(settings(), tmp_path)
    lines = metrics(tmp_path)
    losses = [line["policy/loss"] for line in lines]
    assert [line["step"] for line in lines] == list(range(1, 26))
    assert losses[0] == pytest.approx(math.log(tokenizer.VOCABULARY), abs=0.2)
    assert sum(losses[-3:]) / 3 < losses[0] - 1.5
    assert max(line["learning_rate"] for line in lines) == pytest.approx(1e-2, rel=0.1)
    assert checkpoint.steps_in(tmp_path) == [25] and folder == checkpoint.folder_of(tmp_path, 25)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["exit"] == "complete" and manifest["tokens"] == {
        "trained": sum(line["tokens/trained"] for line in lines)
    }
    assert manifest["inputs"] == {"tokenizer": tokenizer.digest()}


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    cfg, model = settings(), base.new("test", 0)
    texts = [torch.tensor(text) for text in corpus.texts(cfg.seed, 3, cfg.tokens_per_step)]
    alone = [
        torch.nn.functional.cross_entropy(model(input_ids=ids[None, :-1]).logits[0], ids[1:], reduction="sum")
        for ids in texts
    ]
    num_tokens = sum(len(ids) - 1 for ids in texts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    expected = sum(alone).item() / num_tokens
    assert len(texts) > 1 and pretrain._step_(model, optimizer, cfg, 3) == (
        pytest.approx(expected, abs=1e-5),
        num_tokens,
    )


def test_steps_of_muon_are_orthogonal():
    model = base.new("test", 0)
    optimizer = muon.Muon(model, lr=0.1, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(input_ids=torch.arange(1, 40)[None]).logits.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    step = {name: (before[name] - p.detach()) / 0.1 for name, p in model.named_parameters()}
    inside = [name for name in step if name.endswith("proj.weight")]
    assert len(inside) == 7
    for name in inside:
        values = torch.linalg.svdvals(step[name]) / (0.2 * max(step[name].shape) ** 0.5)
        assert values.max() < 1.3 and (values > 0.5).double().mean() > 0.5
        assert (step[name] * gradients[name]).sum() > 0, "down the gradient"
    embedding = step["model.embed_tokens.weight"][1:40]
    assert embedding.abs().max() <= 1.01 and embedding.abs().median() > 0.9, "the first step of AdamW"


def test_muon_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    optimizers = []
    for _ in range(2):
        model = base.new("test", 0)
        optimizers.append((model, muon.Muon(model, lr=0.01, weight_decay=0.1)))
    (one, first), (two, second) = optimizers
    for step in (1, 2):
        pretrain._step_(one, first, settings(), step)
    pretrain._step_(two, second, settings(), 1)
    checkpoint.save_(tmp_path, 1, two, tokenizer.load(), optimizer=second)
    three = base.new("test", 1)
    third = muon.Muon(three, lr=0.01, weight_decay=0.1)
    checkpoint.load_(checkpoint.folder_of(tmp_path, 1), three, optimizer=third)
    pretrain._step_(three, third, settings(), 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = pretrain.train(settings(), tmp_path / "whole")
    calls, honest = iter(range(99)), pretrain._step_
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_step_", lambda *a: honest(*a) if next(calls) < 17 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain.train(settings(), tmp_path / "stopped")
    assert checkpoint.steps_in(tmp_path / "stopped") == [10]
    again = pretrain.train(settings(), tmp_path / "stopped")
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_finished_run_returns_at_once(tmp_path, monkeypatch):
    first = pretrain.train(settings(steps=2), tmp_path)
    monkeypatch.setattr(base, "new", lambda *_: pytest.fail("a finished run must make no model"))
    assert pretrain.train(settings(steps=2), tmp_path) == first


def test_the_base_is_put_where_the_package_looks_for_it(tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    for name in ("tokenizer.json", "families.txt"):
        shutil.copy(tokenizer.ASSETS / name, tmp_path / "assets" / name)
    monkeypatch.setattr(tokenizer, "ASSETS", tmp_path / "assets")
    made = pretrain.make_base(settings(steps=2), tmp_path / "run")
    assert made == base.folder("test")
    assert {p.name for p in made.iterdir()} >= {"config.json", "model.safetensors", "manifest.json"}
    assert not list(made.glob("*.tmp"))
    last = checkpoint.folder_of(tmp_path / "run", 2)
    stored, trained = (checkpoint.load_file(folder / "model.safetensors") for folder in (made, last))
    assert all(torch.equal(stored[name], trained[name].to(torch.bfloat16)) for name in trained)
    assert not list(tokenizer.ASSETS.glob("*.tmp"))
    assert json.loads((made / "manifest.json").read_text())["exit"] == "complete"
