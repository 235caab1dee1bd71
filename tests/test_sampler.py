"""The sampler draws from the model's own distribution, and the same tokens whatever it is given to do beside them."""

import copy
import math

import models
import numpy as np
import pytest
import torch

from r1repro.engine import attention, policy, sampler
from r1repro.records import Refusal

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 4, 4, 4, 3], [5, 6, 7, 2], [5, 6, 2, 2, 2]]
KEYS = [11, 12, 13, 2**60]


def draw(model, prompts=PROMPTS, num_outputs=6, keys=KEYS, key=(0, 0), **changes):
    return sampler.sample(
        model, prompts, num_outputs, key=key, question_keys=keys,
        **dict(max_tokens=14, ends=(models.END,), pad=models.PAD) | changes,
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


def test_in_single_precision_a_first_difference_comes_only_from_an_edge():
    """Where the tokens of two batch splits part, the row's number lies at the edge between two tokens."""
    model = models.build(dtype=torch.float32)
    whole = draw(model, num_outputs=32)
    tokens_NT, *_ = one_by_one(model, num_outputs=32)
    exact = models.build()
    for row in (whole.tokens_NT != tokens_NT).any(1).nonzero()[:, 0].tolist():
        at = int((whole.tokens_NT[row] != tokens_NT[row]).nonzero()[0])
        question = row // 32
        ids = torch.tensor([[*PROMPTS[question], *tokens_NT[row, :at].tolist()]])
        below_V = torch.softmax(exact(input_ids=ids).logits[0, -1], -1).cumsum(-1)
        key = sampler.row_keys((0, 0), [KEYS[question]], 32)[row % 32 :][:1]
        assert (below_V - sampler.uniform(key, np.array([at]))).abs().min() < 1e-5


@pytest.mark.parametrize("max_rows", [1, 12, 13, 24, 48, 100])
def test_each_question_is_handed_over_once_it_is_whole(max_rows):
    seen = {}

    def keep(q, part):
        assert q not in seen
        seen[q] = copy.deepcopy(part)  # as it is now, not as it will be

    found = draw(models.build(), max_rows=max_rows, when_done=keep)
    assert sorted(seen) == [0, 1, 2, 3]
    for q, part in seen.items():
        rows = slice(q * 6, q * 6 + 6)
        for name in ("tokens_NT", "logp_NT", "length_N", "truncated_N"):
            assert torch.equal(getattr(part, name), getattr(found, name)[rows])


def test_rows_are_filled_up_while_questions_wait(monkeypatch):
    """Never more rows than asked for, and a new cohort as soon as there is room for one."""
    sizes, admit = [], sampler._Rows.admit
    monkeypatch.setattr(sampler._Rows, "admit", lambda rows, *a: (admit(rows, *a), sizes.append(len(rows))))
    prompts = [[5, 6, 7, q % 30 + 3] for q in range(40)]
    found = draw(models.build(), prompts, 4, list(range(40)), max_rows=32)
    assert max(sizes) <= 32 and len(sizes) == 10 and sizes.count(32) > 0 and min(sizes[1:]) > 16
    assert (found.length_N > 0).all()


# --- attention


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_attention_without_the_kernel_is_the_same(kind, monkeypatch):
    """Other machines than CPUs compute the parts in plain torch: the same tokens, log-probabilities and gradients."""
    model, question_N = models.build(kind), torch.arange(4).repeat_interleave(6)

    def everything():
        found = draw(model)
        args = (model, PROMPTS, question_N, found.tokens_NT, found.length_N, lambda logp, rows: logp.exp().sum())
        logp_NT = policy.backward_(*args, temperature=1.0, max_tokens=50)
        gradients = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        return found, logp_NT, gradients

    expected, logp_NT, gradients = everything()
    monkeypatch.setattr(attention, "_part", attention._plain_part)
    monkeypatch.setattr(attention._Packed, "apply", attention._plain_packed)
    found, plain_NT, plain_gradients = everything()
    assert torch.equal(found.tokens_NT, expected.tokens_NT)
    for a, b in [(plain_NT, logp_NT), (found.logp_NT, expected.logp_NT), *zip(plain_gradients, gradients, strict=True)]:
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("setting", [{"use_sliding_window": True}, {"attn_logit_softcapping": 30.0}])
def test_attention_of_another_kind_is_refused(setting):
    model = models.build()
    for name, value in setting.items():
        setattr(model.config, name, value)
    with pytest.raises(Refusal, match="not supported: use one"):
        draw(model)


# --- the log-probabilities are the policy's


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    "prompts", [PROMPTS, [[5, 6], [7, 8]], [[5, 6, 7, 8], [9, 8], [4, 3, 2]], [[5, 6, 7]]],
    ids=["one beginning", "two tokens each", "no common beginning", "a single question"],
)  # fmt: skip
def test_log_probabilities_are_the_policys(kind, temperature, prompts):
    model = models.build(kind)
    found = draw(model, prompts, 24, KEYS[: len(prompts)], key=(0, 3), temperature=temperature)
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
    last_N = torch.tensor([0.999, 0.9999, 1 - 2.0**-33], dtype=torch.float64)
    token_N, logp_N = sampler.choose(logits, last_N, 1.0, 0.76)
    assert set(token_N.tolist()) <= {2, 3}
    torch.testing.assert_close(logp_N.exp(), torch.full((3,), 1 / 7, dtype=torch.float64))
    token_N, logp_N = sampler.choose(logits, last_N, 1.0, 0.74)
    assert token_N.tolist() == [1] * 3
    torch.testing.assert_close(logp_N.exp(), torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_a_token_without_probability_is_never_chosen(top_p):
    """Whatever the row's number, the smallest and the greatest among them."""
    logits = torch.full((3, 5), -torch.inf)
    logits[:, 1], logits[:, 3] = 0.0, 1.0
    token_N, _ = sampler.choose(logits, torch.tensor([2.0**-33, 0.5, 1 - 2.0**-33], dtype=torch.float64), 1.0, top_p)
    assert set(token_N.tolist()) == {1, 3}


# --- the noise


def numbers(key=(0, 0), question=7, outputs=400, positions=256):
    keys = sampler.row_keys(key, [question], outputs)
    return torch.stack([sampler.uniform(keys, np.full(outputs, t)) for t in range(positions)], 1)


def test_noise_is_uniform():
    noise = numbers()
    assert noise.mean().item() == pytest.approx(0.5, abs=0.004)
    assert noise.var().item() == pytest.approx(1 / 12, abs=0.002)
    count = torch.histc(noise, 64, 0, 1)
    assert ((count - noise.numel() / 64).square() / (noise.numel() / 64)).sum() < 63 + 4 * math.sqrt(2 * 63)


def test_noise_lies_inside_its_range(monkeypatch):
    """Never 0 and never 1, whatever the bits: at the ends a token without probability could be chosen."""
    monkeypatch.setattr(sampler, "_mix", lambda x: x)
    keys = np.array([0, 2**32 - 1, 1], dtype=np.uint32) - np.uint32(0x85EBCA77)
    noise = sampler.uniform(keys, np.zeros(3, dtype=np.int64))
    assert (noise > 0).all() and (noise < 1).all() and noise.max() > 1 - 2.0**-31


def test_noise_is_independent_between_positions_and_outputs():
    noise = numbers()
    for a, b in [(noise[:, :-1], noise[:, 1:]), (noise[:-1], noise[1:]), (noise[:-1, :-1], noise[1:, 1:])]:
        both = torch.stack([a.flatten(), b.flatten()])
        assert abs(torch.corrcoef(both)[0, 1].item()) < 0.015
        assert abs(torch.corrcoef(both.log())[0, 1].item()) < 0.015  # sees ties of small values too


def test_noise_differs_by_seed_rollout_question_output_and_position():
    def noise(output=0, position=0, **changes):
        return numbers(outputs=4, positions=4, **changes)[output, position].item()

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
            model, [[1, 2, 3], [1, 2, 4]], 2, key=(0, 0), question_keys=[1, 2], max_tokens=4, ends=(0,), pad=1
        )  # fmt: skip


@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 1024, 1500])
def test_a_draw_is_the_first_entry_that_passes(size):
    """By blocks as by one sum over all; never an entry of probability 0, even at the ends of [0, 1)."""
    generator = torch.Generator().manual_seed(size)
    p_NV = torch.softmax(4 * torch.randn(4000, size, generator=generator), -1)
    p_NV[:, ::3] *= torch.rand(4000, 1, generator=generator) < 0.5
    p_NV[:, size // 2] += 1e-30
    uniform_N1 = torch.rand(4000, 1, generator=generator, dtype=torch.float64)
    uniform_N1[:200], uniform_N1[200:400] = 0.5 * 2.0**-32, 1 - 0.5 * 2.0**-32
    drawn_N1 = sampler._passed(p_NV, uniform_N1)
    assert (p_NV.gather(1, drawn_N1) > 0).all()
    below_NV = p_NV.double().cumsum(-1)
    plain_N1 = torch.searchsorted(below_NV, uniform_N1 * below_NV[:, -1:], right=True).clamp(max=size - 1)
    differs_N = (drawn_N1 != plain_N1).squeeze(1)
    edge_N1 = below_NV.gather(1, torch.minimum(drawn_N1, plain_N1)) - uniform_N1 * below_NV[:, -1:]
    assert (edge_N1[differs_N].abs() < 1e-13).all() and differs_N.sum() < 10
