"""The sampler draws from the model's own distribution, and the same tokens whatever it is given to do beside them."""

import math

import models
import numpy as np
import pytest
import torch

from r1repro.engine import policy, sampler
from r1repro.records import Refusal

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 4, 4, 4, 3], [5, 6, 7, 2], [5, 6, 2, 2, 2]]
KEYS = [11, 12, 13, 2**60]


def draw(model, prompts=PROMPTS, num_outputs=6, keys=KEYS, key=(0, 0), **changes):
    return sampler.sample(
        model, prompts, num_outputs, key=key, question_keys=keys,
        **dict(max_tokens=14, end=models.END, pad=models.PAD) | changes,
    )  # fmt: skip


def one_by_one(model, **changes):
    parts = [draw(model, [p], keys=[k], **changes) for p, k in zip(PROMPTS, KEYS, strict=True)]
    return [torch.cat([getattr(part, name) for part in parts]) for name in ("tokens_NT", "logp_NT", "length_N")]


# --- the same tokens whatever the batch


@pytest.mark.parametrize("max_rows", [1, 6, 12, 13, 100])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.6, "top_p": 0.95}])
def test_tokens_do_not_depend_on_rows_side_by_side(max_rows, sampling):
    model = models.build()
    whole, parts = draw(model, **sampling), draw(model, max_rows=max_rows, **sampling)
    assert torch.equal(whole.tokens_NT, parts.tokens_NT) and torch.equal(whole.length_N, parts.length_N)
    torch.testing.assert_close(whole.logp_NT, parts.logp_NT, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_tokens_do_not_depend_on_the_other_questions(kind):
    model = models.build(kind)
    whole = draw(model)
    tokens_NT, logp_NT, length_N = one_by_one(model)
    assert torch.equal(whole.tokens_NT, tokens_NT) and torch.equal(whole.length_N, length_N)
    torch.testing.assert_close(whole.logp_NT, logp_NT, atol=1e-10, rtol=0)


def test_tokens_do_not_depend_on_the_number_of_outputs():
    model = models.build()
    few, many = draw(model, num_outputs=2), draw(model, num_outputs=6)
    chosen = torch.cat([torch.arange(q * 6, q * 6 + 2) for q in range(4)])
    assert torch.equal(few.tokens_NT, many.tokens_NT[chosen])


def test_a_longer_cap_only_goes_on():
    model = models.build()
    short, long = draw(model, max_tokens=5), draw(model, max_tokens=14)
    assert torch.equal(short.tokens_NT, long.tokens_NT[:, :5])


def test_in_single_precision_a_first_difference_comes_only_from_a_tie():
    """Where the tokens of two batch splits part, the two best keys (log p + noise) are nearly equal."""
    model = models.build(dtype=torch.float32)
    whole = draw(model, num_outputs=32)
    tokens_NT, *_ = one_by_one(model, num_outputs=32)
    exact = models.build()
    for row in (whole.tokens_NT != tokens_NT).any(1).nonzero()[:, 0].tolist():
        at = int((whole.tokens_NT[row] != tokens_NT[row]).nonzero()[0])
        question = row // 32
        ids = torch.tensor([[*PROMPTS[question], *tokens_NT[row, :at].tolist()]])
        logp_V = torch.log_softmax(exact(input_ids=ids).logits[0, -1], -1)
        noise_V = sampler.gumbel(sampler._row_keys((0, 0), [KEYS[question]], 32)[row % 32 :][:1], at, 40)[0]
        best, second = (logp_V + noise_V).topk(2).values.tolist()
        assert best - second < 1e-4


# --- the log-probabilities are the policy's


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    "prompts", [PROMPTS, [[5, 6], [7, 8]], [[5, 6, 7, 8], [9, 8], [4, 3, 2]], [[5, 6, 7]]],
    ids=["one beginning", "two tokens each", "no common beginning", "a single question"],
)  # fmt: skip
def test_log_probabilities_are_the_policys(kind, temperature, prompts):
    model = models.build(kind)
    found = draw(model, prompts, 24, KEYS[: len(prompts)], temperature=temperature)
    question_N = torch.arange(len(prompts)).repeat_interleave(24)
    expected_NT = policy.all_logp(
        model, prompts, question_N, found.tokens_NT, found.length_N, temperature=temperature, max_tokens=50
    )
    assert len(set(found.length_N.tolist())) > 1
    torch.testing.assert_close(found.logp_NT, expected_NT, atol=1e-9, rtol=0)


def test_the_model_is_left_as_it_was():
    model = models.build()
    before = model.config._attn_implementation
    draw(model)
    assert model.config._attn_implementation == before
    with pytest.raises(IndexError):
        draw(model, keys=[1])
    model.forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        draw(model)
    assert model.config._attn_implementation == before


# --- the distribution is the model's


def reference_nucleus(logits_V, temperature, top_p):
    """The nucleus by its definition: tokens by falling probability until their sum reaches top-p, renormalised."""
    probability = torch.softmax(logits_V / temperature, -1).tolist()
    kept, total = {}, 0.0
    for token in sorted(range(len(probability)), key=lambda v: -probability[v]):
        kept[token] = probability[token]
        total += probability[token]
        if total >= top_p:
            break
    return torch.tensor([kept.get(v, 0.0) / total for v in range(len(probability))], dtype=torch.float64)


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95), (1.0, 0.9), (2.0, 0.5), (1.0, 1e-6)])
def test_first_tokens_follow_the_distribution(temperature, top_p):
    model, num = models.build(), 4000
    logits_V = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    expected_V = reference_nucleus(logits_V.detach(), temperature, top_p)
    found = draw(model, PROMPTS[:1], num, KEYS[:1], max_tokens=1, temperature=temperature, top_p=top_p, max_rows=num)
    count_V = torch.bincount(found.tokens_NT[:, 0], minlength=40).double()
    assert (count_V[expected_V == 0] == 0).all()
    on_V = expected_V > 0
    chi_square = ((count_V - num * expected_V)[on_V].square() / (num * expected_V[on_V])).sum().item()
    freedom = int(on_V.sum()) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 1e-9
    torch.testing.assert_close(found.logp_NT[:, 0].exp(), expected_V[found.tokens_NT[:, 0]], atol=1e-9, rtol=0)


def test_the_nucleus_is_exact_where_probabilities_tie_the_edge():
    """Probabilities 1/2, 1/4, 1/8, 1/8: a top-p of 3/4 keeps two, anything above it three."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log().repeat(3, 1)
    eager_for_last = torch.tensor([[0.0, 0.0, 50.0, 60.0]]).repeat(3, 1)
    token_N, logp_N = sampler.choose(logits, eager_for_last, 1.0, 0.76)
    assert set(token_N.tolist()) <= {2, 3}
    torch.testing.assert_close(logp_N.exp(), torch.full((3,), 1 / 7, dtype=torch.float64))
    token_N, logp_N = sampler.choose(logits, torch.tensor([[0.0, 20.0, 50.0, 60.0]]).repeat(3, 1), 1.0, 0.74)
    assert token_N.tolist() == [1] * 3
    torch.testing.assert_close(logp_N.exp(), torch.full((3,), 1 / 3, dtype=torch.float64))


# --- the noise


def test_noise_is_standard_gumbel():
    noise = torch.cat([sampler.gumbel(sampler._row_keys((0, 0), [7], 100), t, 1024) for t in range(4)]).double()
    assert noise.mean().item() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    for x in (-1.0, 0.0, 1.0, 3.0):
        assert (noise < x).double().mean().item() == pytest.approx(math.exp(-math.exp(-x)), abs=0.004)
    assert torch.isfinite(noise).all()


def test_noise_chooses_no_token_by_itself(monkeypatch):
    """The largest noise is finite whatever the bits: an infinite one would choose a token that has no probability."""
    every = np.array([[0, 1, 2**31, 2**32 - 2, 2**32 - 1]], dtype=np.uint32)
    monkeypatch.setattr(sampler, "_mix", lambda x: every if x.ndim == 2 else x)
    noise = sampler.gumbel(np.zeros(1, dtype=np.uint32), 0, 5)
    assert not noise.isnan().any() and noise.max() < 30 and noise[0, 0] > 20


def test_noise_is_independent_between_tokens_positions_and_outputs():
    keys = sampler._row_keys((0, 0), [7], 64)
    here, there = sampler.gumbel(keys, 3, 1024).double(), sampler.gumbel(keys, 4, 1024).double()
    pairs = [(here, there), (here[:, :-1], here[:, 1:]), (here[:-1], here[1:]), (here[:, 1:], there[:, :-1])]
    for a, b in pairs:
        both = torch.stack([a.flatten(), b.flatten()])
        assert abs(torch.corrcoef(both)[0, 1].item()) < 0.02
        assert abs(torch.corrcoef(both.neg().exp())[0, 1].item()) < 0.02  # exponential: sees ties of small values too


def test_noise_differs_by_seed_rollout_question_output_and_position():
    def noise(key=(0, 0), question=7, output=0, position=0):
        row_key = sampler._row_keys(key, [question], 4)[output : output + 1]
        return tuple(sampler.gumbel(row_key, position, 8)[0].tolist())

    different = [noise(), noise(key=(1, 0)), noise(key=(0, 1)), noise(key=(1, 1)), noise(question=8),
                 noise(question=7 + 2**32), noise(output=1), noise(position=1)]  # fmt: skip
    assert len(set(different)) == len(different)
    assert noise() == noise()


def test_outputs_differ_by_rollout_and_seed():
    model = models.build()
    found = [draw(model, key=key).tokens_NT.tolist() for key in ((0, 0), (0, 1), (1, 0))]
    assert found[0] != found[1] != found[2] != found[0]


# --- ends


def test_an_output_ends_at_its_first_end_token_or_at_the_cap():
    found = draw(models.build(), num_outputs=32)
    assert {True, False} == set(found.truncated_N.tolist())
    for tokens, logp, length, truncated in zip(
        found.tokens_NT.tolist(), found.logp_NT, found.length_N.tolist(), found.truncated_N.tolist(), strict=True
    ):
        ended = models.END in tokens
        assert length == (tokens.index(models.END) + 1 if ended else 14)
        assert truncated == (not ended)
        assert all(t == models.PAD for t in tokens[length:])
        assert (logp[length:] == 0).all() and (logp[:length] < 0).all()


def always(token):
    """A model that says one token and nothing else."""
    model = models.build("llama")
    model.lm_head.weight.data.zero_()
    model.model.norm.weight.data.zero_()
    bias = torch.zeros(40, dtype=torch.float64)
    bias[token] = 1e3
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model


def test_all_rows_may_end_at_once():
    found = draw(always(models.END))
    assert found.length_N.tolist() == [1] * 24 and not found.truncated_N.any()
    assert found.tokens_NT[:, 0].tolist() == [models.END] * 24 and (found.tokens_NT[:, 1:] == models.PAD).all()


def test_no_row_may_end():
    found = draw(always(9), max_rows=6)
    assert found.length_N.tolist() == [14] * 24 and found.truncated_N.all()
    assert (found.tokens_NT == 9).all()


def test_an_end_token_at_the_cap_is_no_truncation():
    found = draw(always(models.END), max_tokens=1)
    assert found.length_N.tolist() == [1] * 24 and not found.truncated_N.any()


def test_a_model_whose_weights_are_no_numbers_is_refused():
    model = models.build()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(Refusal, match="no numbers .question 1 of 2.*earlier checkpoint"):
        sampler.sample(
            model, [[1, 2, 3], [1, 2, 4]], 2, key=(0, 0), question_keys=[1, 2], max_tokens=4, end=0, pad=1
        )  # fmt: skip
