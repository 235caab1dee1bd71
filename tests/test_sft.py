"""Supervised fine-tuning: the loss is on outputs alone, every example is seen once an epoch, a stopped run goes on."""

import json

import numpy as np
import pytest
import torch
from models import SMALL_MACHINE

from r1repro import config, paper
from r1repro.config import SFT, Machine
from r1repro.engine import checkpoint, policy, vocabulary
from r1repro.records import Refusal
from r1repro.run import append_lines
from r1repro.stages import r1, sft
from r1repro.tinyworld import base, tokenizer

ROWS = [
    {"question": f"State {n} + 1", "output": f"<think> so {n + 1} </think> <answer> {n + 1} </answer>"}
    for n in range(10)
]


def settings(**changes):
    return SFT(**dict(epochs=2, batch_size=4, learning_rate=3e-3, max_tokens=64, checkpoint_every=2) | changes)


@pytest.fixture
def examples(tmp_path):
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_a_second_call_returns_at_once(tmp_path, tiny_base, examples):
    folder = sft.train(settings(epochs=20), tmp_path / "run", tiny_base, examples)
    losses = [line["policy/loss"] for line in metrics(tmp_path / "run")]
    assert np.mean(losses[-4:]) < 0.7 * losses[0]
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    assert sft.train(settings(epochs=20), tmp_path / "run", tiny_base, examples) == folder
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["exit"] == "complete" and manifest["examples"] == 10


def test_the_first_loss_is_the_mean_over_the_output_tokens_of_a_batch(tmp_path, tiny_base, examples):
    """Computed anew without packing or shared prompts; the prompt's tokens do not count."""
    cfg = settings()
    sft.train(cfg, tmp_path / "run", tiny_base, examples)
    prompts, outputs = sft.encoded(ROWS, cfg.max_tokens, vocabulary.of(tiny_base))
    model, total, count = policy.load(tiny_base), 0.0, 0
    for i in sft.order(len(ROWS), cfg)[0]:
        ids = torch.tensor([prompts[i] + outputs[i]])
        logp = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).squeeze(-1)
        total, count = total - logp[len(prompts[i]) - 1 :].sum().item(), count + len(outputs[i])
    assert metrics(tmp_path / "run")[0]["policy/loss"] == pytest.approx(total / count, rel=1e-5)


def test_outputs_are_what_a_rollout_would_have_to_write(tiny_base):
    prompts, outputs = sft.encoded(ROWS[:1], 64, vocabulary.of(tiny_base))
    whole = tokenizer.load().encode(f"{paper.template(ROWS[0]['question'])} {ROWS[0]['output']}")
    assert prompts[0] + outputs[0] == [*whole, tokenizer.load().eos_token_id]


def test_every_example_is_seen_once_an_epoch_in_another_order_each():
    batches = sft.order(10, settings())
    first, second = np.concatenate(batches[: len(batches) // 2]), np.concatenate(batches[len(batches) // 2 :])
    assert sorted(first) == sorted(second) == list(range(10)) and list(first) != list(second)
    assert {len(batch) for batch in batches} <= {4, 5, 6, 3, 2}
    assert [list(b) for b in sft.order(10, settings())] == [list(b) for b in batches]


def test_micro_batches_change_nothing(tmp_path, tiny_base, examples):
    for name, machine in (("whole", Machine()), ("cut", SMALL_MACHINE)):
        sft.train(settings(), tmp_path / name, tiny_base, examples, machine)
    whole, cut = (metrics(tmp_path / name) for name in ("whole", "cut"))
    assert [r["policy/loss"] for r in cut] == pytest.approx([r["policy/loss"] for r in whole], rel=1e-4)


def test_a_stopped_run_goes_on_as_if_never_stopped(tmp_path, tiny_base, examples, monkeypatch):
    cfg = settings()
    alone = sft.train(cfg, tmp_path / "alone", tiny_base, examples)
    real, calls = sft.update_, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("the power failed")
        return real(*arguments)

    monkeypatch.setattr(sft, "update_", failing)
    with pytest.raises(RuntimeError):
        sft.train(cfg, tmp_path / "run", tiny_base, examples)
    assert checkpoint.steps_in(tmp_path / "run") == [2]
    monkeypatch.setattr(sft, "update_", real)
    resumed = sft.train(cfg, tmp_path / "run", tiny_base, examples)
    weights = [checkpoint.load_file(folder / "model.safetensors") for folder in (alone, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [r["policy/loss"] for r in metrics(tmp_path / "run")] == [
        r["policy/loss"] for r in metrics(tmp_path / "alone")
    ]


def test_longer_outputs_are_left_out_whole(tiny_base):
    rows = [*ROWS, {"question": "x", "output": "so " * 100}]
    assert len(sft.encoded(rows, 64, vocabulary.of(tiny_base))[1]) == 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no examples at"),
        ("", "holds no example"),
        ('{"question": "a"}\n', "line 1 has no text called question or output"),
        ('{"question": "a", "output": 3}\n', "line 1 has no text"),
        ("not json\n", "is damaged"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, tiny_base, text, reason):
    file = tmp_path / "bad.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Refusal, match=reason):
        sft.train(settings(), tmp_path / "run", tiny_base, file)


def test_the_rate_warms_up_and_ends_at_a_tenth():
    cfg = settings(learning_rate=2.0, warmup=0.1)
    rates = [sft.cosine(i / 100, cfg) for i in range(1, 101)]
    assert max(rates) == pytest.approx(2.0) and rates[-1] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)


def test_a_sibling_is_trained_on_as_many_tokens_within_one_output(tmp_path):
    """Sampled outputs begin with a space, which is not trained on."""
    worked = [(f"{n} + 1 =", f" <think> {n}+1={n + 1}. </think> <answer> {n + 1} </answer>") for n in range(40)]
    rows = [{"id": str(n), "family": "chain_sum", "question": q, "output": o} for n, (q, o) in enumerate(worked)]
    (tmp_path / "dev3").mkdir()
    append_lines(tmp_path / "dev3" / "examples.jsonl", rows)
    words = vocabulary.of(base.folder("tiny-1m"))
    short = sft.read_examples(r1.short_examples(config.r1("smoke"), tmp_path))
    student, sibling = (sft.encoded(some, 512, words)[1] for some in (rows, short))
    gap = sum(map(len, sibling)) - sum(map(len, student))
    assert 0 <= gap < max(map(len, sibling)) and not any("+1=" in row["output"] for row in short)
