"""Every architecture that people train, as a small random model: what we compute of it is what the library computes."""

import models
import pytest
import torch

from r1repro.config import Machine, Policy
from r1repro.engine import actor, adapters, checkpoint, policy, sampler
from r1repro.records import Refusal
from r1repro.tinyworld import tokenizer

KINDS = list(models.ARCHITECTURES)
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, *range(10, 34)], [5, 6, 7, 2]]
EXACT = dict(atol=1e-9, rtol=0)


def plain(model, prompts, question_N, tokens_NT, length_N):
    """Log-probabilities by the library's own forward pass, a row at a time."""
    rows = []
    for q, tokens, length in zip(question_N.tolist(), tokens_NT, length_N.tolist(), strict=True):
        ids = torch.tensor([[*prompts[q], *tokens[:length].tolist()]])
        logp = model(input_ids=ids, use_cache=False).logits[0, len(prompts[q]) - 1 : -1].log_softmax(-1)
        row = logp.gather(-1, tokens[:length, None])[:, 0]
        rows.append(torch.nn.functional.pad(row, (0, tokens_NT.shape[1] - length)))
    return torch.stack(rows)


def some_outputs(seed=0):
    draw = torch.Generator().manual_seed(seed)
    question_N, length_N = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([9, 2, 40, 7, 1])
    return question_N, torch.randint(2, 40, (5, 40), generator=draw), length_N


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_beside_each_other_have_the_librarys_log_probabilities_and_gradients(kind):
    """Positions reach 67, beyond where the rotary scaling of Llama 3 begins here."""
    model, asked = models.build(kind), (PROMPTS, *some_outputs())
    expected_NT = plain(model, *asked)
    expected_NT.square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    found_NT = policy.backward_(
        model, *asked, lambda logp_NT, rows: logp_NT.square().sum(), temperature=1.0, max_tokens=30, logits_at_once=200
    )
    torch.testing.assert_close(found_NT, expected_NT.detach(), **EXACT)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_draws_from_the_librarys_distribution(kind):
    model = models.build(kind)
    samples = sampler.sample(
        model, PROMPTS, 3, key=(0, 0), question_keys=[1, 2, 3], max_tokens=45, ends=(models.END, 3), pad=models.PAD
    )
    question_N = torch.arange(3).repeat_interleave(3)
    expected_NT = plain(model, PROMPTS, question_N, samples.tokens_NT, samples.length_N)
    torch.testing.assert_close(samples.logp_NT, expected_NT.detach(), **EXACT)
    rows = zip(samples.tokens_NT.tolist(), samples.length_N.tolist(), samples.truncated_N.tolist(), strict=True)
    for tokens, length, cut in rows:
        assert (tokens[length - 1] in (models.END, 3)) != cut and not {models.END, 3} & set(tokens[: length - 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["full", "lora", "qlora"])
def test_a_checkpoint_is_the_model_that_was_saved(kind, weights, tmp_path):
    """Written, read as it is held, and read whole: merged beside the weights that it was trained beside.

    In single precision; merged weights are rounded once more, so the last comparison is to 1e-4 nats.
    """
    start = models.build(kind, size=tokenizer.VOCABULARY, dtype=torch.float32)
    start.save_pretrained(tmp_path / "base")
    held, asked = Policy(weights=weights, rank=4, alpha=16), (PROMPTS, *some_outputs())
    trained = actor.load(tmp_path / "base", held, trained=1)
    optimizer, how = policy.adamw(trained.model, 0.02), dict(temperature=1.0, max_tokens=1000)
    before_NT = policy.all_logp(trained.model, *asked, **how)
    for _ in range(3):
        policy.backward_(trained.model, *asked, lambda logp_NT, rows: -logp_NT.sum() / 60, **how)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    after_NT = policy.all_logp(trained.model, *asked, **how)
    assert (after_NT - before_NT).abs().max() > 0.3
    folder = checkpoint.save_(tmp_path, 3, trained.model, trained.vocabulary.tokenizer, optimizer=optimizer)
    assert (folder / adapters.WEIGHTS).exists() == (weights != "full")
    again = actor.load(folder, held)
    assert torch.equal(policy.all_logp(again.model, *asked, **how), after_NT)
    whole = policy.load(folder)
    assert not adapters.has(whole) and {p.dtype for p in whole.parameters()} == {torch.float32}
    torch.testing.assert_close(policy.all_logp(whole, *asked, **how), after_NT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name, value", [("final_logit_softcapping", 30.0), ("logit_scale", 0.06)])
def test_logits_that_are_capped_or_scaled_are_refused(name, value, tmp_path):
    model = models.build(dtype=torch.float32)
    setattr(model.config, name, value)
    model.save_pretrained(tmp_path)
    with pytest.raises(Refusal, match=f"{name} in its config.json, which is not supported") as caught:
        policy.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_machine_may_compute_layers_twice(recompute, tmp_path):
    """The knob reaches the model: what is inside a layer runs once more for the gradient, and changes nothing."""
    models.build(size=tokenizer.VOCABULARY, dtype=torch.float32).save_pretrained(tmp_path)
    model = actor.load(tmp_path, machine=Machine(recompute=recompute), trained=0).model
    calls = []
    model.model.layers[0].mlp.up_proj.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    asked = (PROMPTS, *some_outputs())
    policy.backward_(model, *asked, lambda logp_NT, rows: logp_NT.sum(), temperature=1.0, max_tokens=10**6)
    assert len(calls) == (6 if recompute else 3)  # common beginning, prompts, outputs; all of them twice
