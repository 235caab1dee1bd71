"""Checkpoints come back whole or are refused by name, and load anywhere."""

import errno
import os
import shutil
from functools import partialmethod

import models
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from r1repro.engine import checkpoint, policy
from r1repro.records import Refusal
from r1repro.tinyworld import tokenizer

FILES = ("model.safetensors", "optimizer.safetensors", "reference.safetensors", "config.json", "tokenizer.json")


def new(seed=0):
    model = models.build(size=tokenizer.VOCABULARY, end=1, seed=seed, dtype=torch.float32)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def step_(model, optimizer):
    loss = model(input_ids=torch.tensor([[5, 6, 7]])).logits.square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def saved(run, step=4, seed=0):
    model, optimizer = new(seed)
    step_(model, optimizer)
    folder = checkpoint.save_(
        run,
        step,
        model,
        tokenizer.load(),
        optimizer=optimizer,
        reference=checkpoint.own_tensors(new(9)[0]),
        state={"position": 12},
    )
    return folder, model, optimizer


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_checkpoint_comes_back_whole(tmp_path):
    folder, model, optimizer = saved(tmp_path)
    other, other_optimizer = new(1)
    reference, _ = new(2)
    state = checkpoint.load_(folder, other, optimizer=other_optimizer, reference=checkpoint.own_tensors(reference))
    assert state == {"position": 12}
    assert same(other, model) and same(reference, new(9)[0])
    for _ in range(2):  # the moments too: both go on alike
        step_(model, optimizer)
        step_(other, other_optimizer)
    assert same(other, model)


def test_weights_in_several_files_come_back_whole(tmp_path, monkeypatch):
    """As the library cuts those of a large model."""
    whole = transformers.PreTrainedModel.save_pretrained
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", partialmethod(whole, max_shard_size="40KB"))
    folder, model, optimizer = saved(tmp_path)
    assert len(list(folder.glob("model-*.safetensors"))) > 1 and not (folder / "model.safetensors").exists()
    other, other_optimizer = new(1)
    assert checkpoint.load_(folder, other, optimizer=other_optimizer) == {"position": 12} and same(other, model)
    step_(model, optimizer)
    step_(other, other_optimizer)
    assert same(other, model) and same(policy.load(folder), saved(tmp_path / "again")[1])
    next(folder.glob("model-*.safetensors")).unlink()
    with pytest.raises(Refusal, match="is damaged .model-0.*safetensors is missing"):
        checkpoint.load_(folder, other)


def test_bitsandbytes_optimiser_goes_on_too(tmp_path):
    """The paged AdamW of 4-bit training counts its steps in Python; on a CPU it is the same without pages."""
    from bitsandbytes.optim import AdamW32bit

    pairs = []
    for seed in (0, 1):
        model, _ = new(seed)
        pairs.append((model, AdamW32bit(model.parameters(), lr=1e-2, betas=(0.9, 0.95))))
    (model, optimizer), (other, other_optimizer) = pairs
    step_(model, optimizer)
    folder = checkpoint.save_(tmp_path, 1, model, tokenizer.load(), optimizer=optimizer)
    checkpoint.load_(folder, other, optimizer=other_optimizer)
    for _ in range(2):
        step_(model, optimizer)
        step_(other, other_optimizer)
    assert same(other, model) and not same(other, new(0)[0])


def test_a_checkpoint_is_independent_of_the_model_it_came_from(tmp_path):
    folder, model, optimizer = saved(tmp_path)
    other, other_optimizer = new(1)
    checkpoint.load_(folder, other, optimizer=other_optimizer)
    before = {name: p.clone() for name, p in other.named_parameters()}
    step_(model, optimizer)
    assert all(torch.equal(before[name], p) for name, p in other.named_parameters())


def test_it_loads_with_plain_transformers(tmp_path):
    folder, model, _ = saved(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
    words = PreTrainedTokenizerFast.from_pretrained(folder)  # AutoTokenizer takes Qwen2's own instead
    text = "<think> 57+87=144 检查 </think> <answer> 144 </answer>"
    assert words.encode(text) == tokenizer.load().encode(text)
    assert (words.eos_token, words.pad_token) == (tokenizer.END, tokenizer.PAD)


def test_there_is_no_pickle_in_it(tmp_path):
    folder, *_ = saved(tmp_path)
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name, damage):
    folder, *_ = saved(tmp_path)
    data = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        (folder / name).write_bytes(data[:-7] if damage == "truncated" else flipped)
    model, optimizer = new(1)
    for read in (checkpoint.verify, lambda x: checkpoint.load_(x, model, optimizer=optimizer)):
        with pytest.raises(Refusal) as caught:
            read(folder)
        assert name in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert same(model, new(1)[0]), "a refused checkpoint must leave the model as it was"


@pytest.mark.parametrize("damage", [None, "{", '{"step": 4}'])
def test_a_damaged_record_is_refused_by_name(tmp_path, damage):
    folder, *_ = saved(tmp_path)
    (folder / "checkpoint.json").unlink() if damage is None else (folder / "checkpoint.json").write_text(damage)
    with pytest.raises(Refusal) as caught:
        checkpoint.verify(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "last", ["model.save_pretrained", "tokenizer.save_pretrained", "save_file", "write_json", "os.replace"]
)
def test_an_interrupted_write_leaves_the_earlier_one(tmp_path, monkeypatch, last):
    """Whatever write is the last to begin, the newest checkpoint is a whole one, and the next attempt succeeds."""
    first, *_ = saved(tmp_path, step=4)
    model, optimizer = new(3)

    def die(*args, **_):
        if last == "os.replace" and not str(args[1]).endswith("step-000008"):
            return rename(*args)
        raise KeyboardInterrupt

    rename = os.replace

    with monkeypatch.context() as patch:
        place = {"model": model, "tokenizer": type(tokenizer.load()), "os": os}.get(last.partition(".")[0], checkpoint)
        patch.setattr(place, last.rpartition(".")[2], die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save_(tmp_path, 8, model, tokenizer.load(), optimizer=optimizer)
    assert checkpoint.steps_in(tmp_path) == [4]
    checkpoint.verify(first)
    step_(model, optimizer)
    checkpoint.save_(tmp_path, 8, model, tokenizer.load(), optimizer=optimizer)
    assert checkpoint.steps_in(tmp_path) == [4, 8]
    checkpoint.verify(checkpoint.folder_of(tmp_path, 8))


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_of_rust(*_, **__):
    raise Exception("No space left on device (os error 28)")


@pytest.mark.parametrize("failing", ["config", "weights", "tokenizer", "tokenizer of rust"])
def test_a_full_disk_is_told_in_one_line_and_leaves_the_earlier_one(tmp_path, monkeypatch, failing):
    first, *_ = saved(tmp_path, step=4)
    model, optimizer = new(3)
    step_(model, optimizer)
    words = tokenizer.load()
    with monkeypatch.context() as patch:
        if failing == "tokenizer of rust":  # `tokenizers` raises a bare Exception
            patch.setattr(type(words), "save_pretrained", full_disk_of_rust)
        elif failing == "tokenizer":
            patch.setattr(type(words), "save_pretrained", full_disk)
        elif failing == "config":
            patch.setattr(model.config, "save_pretrained", full_disk, raising=False)
            patch.setattr(model, "save_pretrained", full_disk)
        else:
            patch.setattr(checkpoint, "save_file", full_disk)
        with pytest.raises(Refusal) as caught:
            checkpoint.save_(tmp_path, 8, model, words, optimizer=optimizer)
    assert "\n" not in str(caught.value) and "step-000008" in str(caught.value)
    assert checkpoint.steps_in(tmp_path) == [4]
    checkpoint.verify(first)


def test_a_weight_file_that_does_not_fit_is_told_in_one_line(tmp_path, monkeypatch):
    """A real failure of safetensors, by writing into a folder that is gone."""
    model, optimizer = new(3)
    step_(model, optimizer)
    honest = checkpoint.save_file

    def into_nowhere(tensors, file):
        shutil.rmtree(file.parent)
        honest(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", into_nowhere)
    with pytest.raises(Refusal) as caught:
        checkpoint.save_(tmp_path, 8, model, tokenizer.load(), optimizer=optimizer)
    assert "\n" not in str(caught.value) and "step-000008" in str(caught.value)


def test_steps_are_those_of_whole_checkpoints_in_order(tmp_path):
    steps = [16, 4, 30, 9, 2, 100, 25, 1, 64, 8]
    for step in steps:
        checkpoint.folder_of(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000020.tmp").mkdir()
    assert checkpoint.steps_in(tmp_path) == sorted(steps)
    checkpoint.keep_only(tmp_path, {4, 30, 99})
    assert checkpoint.steps_in(tmp_path) == [4, 30]
    assert checkpoint.steps_in(tmp_path / "nothing") == []
