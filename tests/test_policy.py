"""Shared prompts change neither log-probabilities nor gradients: compared with every prompt repeated, in float64."""

import os
import subprocess
import sys

import models
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from r1repro.algo import likelihood
from r1repro.config import Policy
from r1repro.engine import policy
from r1repro.records import Refusal

PROMPTS = {
    "one beginning": [[5, 6, 7, 8, 9], [5, 6, 7, 4, 4, 4, 3], [5, 6, 7, 2]],
    "no common beginning": [[5, 6, 7, 8], [9, 8], [4, 3, 2, 6, 6, 6, 6]],
    "the same twice": [[5, 6, 7, 8], [5, 6, 7, 8]],
    "one begins the other": [[5, 6, 7], [5, 6, 7, 8, 9]],
    "two tokens each": [[5, 6], [7, 8], [5, 8]],
    "a single question": [[5, 6, 7, 8]],
    "a single question of two tokens": [[5, 6]],
}
EXACT = dict(atol=1e-10, rtol=0)


def outputs(num_questions, num_outputs):
    """Random tokens, lengths 1 to 7, and the question of each; the last question has one output."""
    draw = torch.Generator().manual_seed(0)
    question_N = torch.arange(num_questions).repeat_interleave(num_outputs)
    question_N = question_N[: len(question_N) - num_outputs + 1]
    length_N = torch.randint(1, 8, (len(question_N),), generator=draw)
    length_N[0] = 7
    tokens_NT = torch.randint(2, 40, (len(question_N), 7), generator=draw)
    return question_N, tokens_NT.masked_fill(torch.arange(7) >= length_N[:, None], models.PAD), length_N


def repeated(model, prompts, question_N, tokens_NT, length_N, temperature):
    """Log-probabilities the plain way: prompt and output of each row through the model, one row at a time."""
    rows = []
    for q, tokens, length in zip(question_N.tolist(), tokens_NT, length_N.tolist(), strict=True):
        ids = torch.tensor([[*prompts[q], *tokens[:length].tolist()]])
        logits = model(input_ids=ids).logits[:, len(prompts[q]) - 1 : -1]
        logp = likelihood.token_logp(logits, tokens[None, :length], temperature)[0]
        rows.append(torch.nn.functional.pad(logp, (0, tokens_NT.shape[1] - length)))
    return torch.stack(rows)


def some_loss(weight_NT):
    """A plain sum over tokens that is not linear in the log-probabilities."""
    return lambda logp_NT, rows: ((logp_NT.exp() + logp_NT.square()) * weight_NT[rows, : logp_NT.shape[1]]).sum()


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_shared_prompts_equal_repeated_prompts(prompts, kind, temperature):
    model = models.build(kind)
    question_N, tokens_NT, length_N = outputs(len(prompts), 3)
    weight_NT = torch.rand(tokens_NT.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight_NT *= torch.arange(7) < length_N[:, None]
    plain_NT = repeated(model, prompts, question_N, tokens_NT, length_N, temperature)
    some_loss(weight_NT)(plain_NT, torch.arange(len(question_N))).backward()
    expected = gradients(model)

    args = (model, prompts, question_N, tokens_NT, length_N)
    logp_NT = policy.backward_(*args, some_loss(weight_NT), temperature=temperature, max_tokens=10)
    torch.testing.assert_close(logp_NT * (weight_NT > 0), plain_NT.detach() * (weight_NT > 0), **EXACT)
    torch.testing.assert_close(gradients(model), expected, **EXACT)
    torch.testing.assert_close(
        policy.all_logp(*args, temperature=temperature, max_tokens=10), plain_NT.detach(), **EXACT
    )


def test_half_precision_differs_by_its_rounding_alone():
    """In bfloat16 the log-sum-exp that merges prompt and output stays in single precision."""
    question_N, tokens_NT, length_N = outputs(3, 3)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = models.build(dtype=dtype)
        args = (model, PROMPTS["one beginning"], question_N, tokens_NT, length_N, lambda logp, rows: logp.sum())
        logp_NT = policy.backward_(*args, temperature=1.0, max_tokens=10).float()
        found.append((logp_NT, torch.cat([p.grad.flatten().float() for p in model.parameters()])))
    (logp_NT, grad), (half_NT, half_grad) = found
    assert (half_NT - logp_NT).abs().max() < 0.3
    assert torch.nn.functional.cosine_similarity(grad, half_grad, dim=0) > 0.99


@pytest.mark.parametrize("logits_at_once", [1, 100, 321, 10**6])
def test_logits_at_once_change_nothing(logits_at_once):
    """Of 40 tokens: one, two and eight at a time, and all; log-probabilities and gradients to 1e-10."""
    model, prompts = models.build(), PROMPTS["one beginning"]
    question_N, tokens_NT, length_N = outputs(3, 4)
    args = (model, prompts, question_N, tokens_NT, length_N)
    weight_NT = (torch.arange(7) < length_N[:, None]).double()
    plain_NT = repeated(*args, 0.7)
    some_loss(weight_NT)(plain_NT, torch.arange(len(question_N))).backward()
    expected, how = gradients(model), dict(temperature=0.7, max_tokens=30, logits_at_once=logits_at_once)
    logp_NT = policy.backward_(*args, some_loss(weight_NT), **how)
    torch.testing.assert_close(logp_NT * weight_NT, plain_NT.detach() * weight_NT, **EXACT)
    torch.testing.assert_close(gradients(model), expected, **EXACT)
    texts = [prompts[q] + row[:n].tolist() for q, row, n in zip(question_N, tokens_NT, length_N, strict=True)]
    whole, cut = (policy.text_logp(model, texts, n) for n in (10**6, logits_at_once))
    torch.testing.assert_close(cut, whole, **EXACT)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_layers_that_are_computed_twice_give_the_same_gradient(kind):
    model, question_N = models.build(kind), outputs(3, 4)[0]
    args = (model, PROMPTS["one beginning"], *outputs(3, 4), some_loss(torch.ones(len(question_N), 7).double()))
    first_NT = policy.backward_(*args, temperature=1.0, max_tokens=10)
    expected, calls = gradients(model), []
    policy.recompute_layers_(model)
    layer = next(m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList))[0]
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    inner = next(m for m in layer.modules() if isinstance(m, torch.nn.Linear | Conv1D))
    inner.register_forward_pre_hook(lambda *_: calls.append(2))
    assert torch.equal(policy.backward_(*args, temperature=1.0, max_tokens=10), first_NT)
    torch.testing.assert_close(gradients(model), expected, **EXACT)
    assert calls.count(2) > calls.count(1)  # the layer's inside was computed once more


def test_a_step_runs_the_prompts_that_it_asks():
    """Of three prompts one is asked: the others go through no layer, and change nothing."""
    model, tokens = models.build(), []
    _, tokens_NT, length_N = outputs(1, 4)
    tokens_NT, length_N = tokens_NT.repeat(3, 1), length_N.repeat(3)
    how = (some_loss(torch.ones(3, 7).double()),), dict(temperature=1.0, max_tokens=100)
    alone_NT = policy.backward_(model, [[5, 6, 7, 2]], torch.zeros(3).long(), tokens_NT, length_N, *how[0], **how[1])
    expected = gradients(model)
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompts = [[9] * 30, [5, 6, 7, 2], [8] * 40]
    asked_NT = policy.backward_(model, prompts, torch.ones(3).long(), tokens_NT, length_N, *how[0], **how[1])
    torch.testing.assert_close(asked_NT, alone_NT, **EXACT)
    torch.testing.assert_close(gradients(model), expected, **EXACT)
    assert sum(tokens) == 3 + int(length_N.sum()), "the prompt without its last token, and the outputs"


def test_half_precision_scales_its_loss_and_leaves_no_step_out(tmp_path):
    """A loss of 1e-9 has gradients that float16 cannot hold, one of 1e4 has ones that are too large when scaled up."""
    question_N, tokens_NT, length_N = outputs(3, 2)
    args = (PROMPTS["one beginning"], question_N, tokens_NT, length_N)
    models.build(dtype=torch.float32).save_pretrained(tmp_path)
    for size in (1e-9, 1.0, 1e4):
        found = []
        for dtype in ("float32", "float16"):
            model = policy.load(tmp_path, held=Policy(dtype=dtype))
            policy.backward_(model, *args, lambda logp, rows: size * logp.sum(), temperature=1.0, max_tokens=10)  # noqa: B023
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]) / size)
            assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999, size
        assert (found[0].norm() / found[1].norm() - 1).abs() < 0.02, size


@pytest.mark.parametrize("max_tokens", [1, 7, 8, 15, 1000])
def test_a_micro_batch_of_any_size_gives_the_same_gradient(max_tokens):
    model, prompts = models.build(), PROMPTS["one beginning"]
    question_N, tokens_NT, length_N = outputs(3, 4)
    weight_NT = (torch.arange(7) < length_N[:, None]).double()
    args = (model, prompts, question_N, tokens_NT, length_N, some_loss(weight_NT))
    policy.backward_(*args, temperature=1.0, max_tokens=10**6)
    whole = gradients(model)
    policy.backward_(*args, temperature=1.0, max_tokens=max_tokens)
    torch.testing.assert_close(gradients(model), whole, **EXACT)


def test_gradients_are_added_to_what_is_there():
    model, prompts = models.build(), PROMPTS["one beginning"]
    question_N, tokens_NT, length_N = outputs(3, 2)
    args = (model, prompts, question_N, tokens_NT, length_N, some_loss(torch.ones(tokens_NT.shape).double()))
    policy.backward_(*args, temperature=1.0, max_tokens=10)
    once = gradients(model)
    for _ in range(2):
        policy.backward_(*args, temperature=1.0, max_tokens=10)
    torch.testing.assert_close(gradients(model), {name: 2 * g for name, g in once.items()}, **EXACT)


@pytest.mark.parametrize("max_tokens", [1, 5, 12, 100])
def test_micro_batches_hold_every_output_once_and_keep_to_their_size(max_tokens):
    question_N, length_N = torch.tensor([2, 0, 1, 2, 0, 1, 1, 0]), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    batches = list(policy.micro_batches(question_N, length_N, max_tokens))
    assert sorted(torch.cat(batches).tolist()) == list(range(8))
    assert all(len(rows) == 1 or length_N[rows].sum() <= max_tokens for rows in batches)
    assert question_N[torch.cat(batches)].tolist() == sorted(question_N.tolist())


@pytest.mark.parametrize("name, common", [("one beginning", 2), ("two tokens each", 0), ("no common beginning", 0),
                                          ("the same twice", 2), ("one begins the other", 1)])  # fmt: skip
def test_the_common_beginning_leaves_every_prompt_a_tail_and_a_last_token(name, common):
    shared = policy.prefix(models.build(), PROMPTS[name])
    assert shared.num_common == common
    assert shared.last_Q.tolist() == [p[-1] for p in PROMPTS[name]]
    assert shared.mask_QP.sum(1).tolist() == shared.length_Q.tolist() == [len(p) - 1 for p in PROMPTS[name]]


def test_no_log_probability_stands_at_padding():
    question_N, tokens_NT, length_N = outputs(3, 2)
    args = (models.build(), PROMPTS["one beginning"], question_N, tokens_NT, length_N)
    found = policy.all_logp(*args, temperature=1.0, max_tokens=10)
    assert (found[torch.arange(7) >= length_N[:, None]] == 0).all()


def test_a_missing_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(Refusal, match="^no model at .*nothing: .*$"):
        policy.load(tmp_path / "nothing")


def test_a_folder_without_weights_is_refused_in_one_line(tmp_path, tiny_base):
    (tmp_path / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    with pytest.raises(Refusal) as caught:
        policy.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_weights_are_refused_in_one_line(tmp_path, tiny_base):
    models.save_base(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(Refusal) as caught:
        policy.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def peak_of(tmp_path, program, *words):
    """What a program of `models` measured, in a process of its own with one thread."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    # Freed memory goes back to the system at once, so that a peak is what is in use.
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    subprocess.run(
        [sys.executable, models.__file__, program, str(tmp_path), *words], env=environment, check=True, timeout=120
    )
    return int((tmp_path / "-".join(["peak", *words])).read_text())


def test_memory_grows_with_distinct_tokens_not_with_prompts_times_outputs(tmp_path):
    """64 outputs to a prompt of 1,500 tokens in place of 4: 1.3 times the distinct tokens, 16 times the repeated."""
    peaks = [peak_of(tmp_path, "peak", num_outputs) for num_outputs in ("4", "64")]
    assert peaks[0] > 1e6 and peaks[1] < 2 * peaks[0], peaks


def test_memory_does_not_grow_with_tokens_times_vocabulary(tmp_path):
    """800 tokens: 6 and 130 MB of logits for vocabularies of 2,000 and 40,000.  What grows with the second is a
    gradient of the head, (V, 32): a twenty-fifth of its logits, and not with the tokens."""
    small, large, whole = (
        peak_of(tmp_path, "peak-vocabulary", *words)
        for words in (("2000", "1000000"), ("40000", "1000000"), ("40000", "1000000000"))
    )
    assert large < small + 8 * 40_000 * 32 * 4 and whole > 3 * large, (small, large, whole)
