"""Equations 1 to 3 by hand and by property."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1repro.algo import grpo

CLIP = dict(clip_low=10, clip_high=10)
NARROW = dict(clip_low=0.2, clip_high=0.3)
DOUBLE = torch.float64


def random_step(num_outputs=4, num_tokens=6, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(0)
    logp, old, ref = (-torch.rand(num_outputs, num_tokens, generator=generator, dtype=dtype) for _ in range(3))
    mask = (torch.arange(num_tokens) < torch.tensor([6, 3, 1, 5])[:, None]).to(dtype)
    return logp, old, ref, torch.randn(num_outputs, generator=generator, dtype=dtype), mask


# --- advantages (Eq. 3)


def test_an_advantage_done_on_paper():
    rewards_QG = torch.tensor([[3.0, 1.0, 1.0, 1.0], [0.0, 2.0, 0.0, 2.0]], dtype=DOUBLE)  # std sqrt(3)/2 and 1
    expected = torch.tensor([[math.sqrt(3), *[-1 / math.sqrt(3)] * 3], [-1, 1, -1, 1]], dtype=DOUBLE)
    torch.testing.assert_close(grpo.advantages(rewards_QG, eps=0), expected)


def test_advantages_ignore_shift_and_scale_of_the_rewards():
    rewards_QG = torch.rand(3, 8, dtype=DOUBLE)
    torch.testing.assert_close(grpo.advantages(5 * rewards_QG + 7, eps=0), grpo.advantages(rewards_QG, eps=0))


@given(st.lists(st.floats(0, 2), min_size=8, max_size=8))
def test_a_group_is_compared_with_itself_alone(rewards):
    rewards_QG = torch.tensor(rewards, dtype=DOUBLE).view(2, 4)
    apart = torch.cat([grpo.advantages(row[None]) for row in rewards_QG])
    torch.testing.assert_close(grpo.advantages(rewards_QG), apart)
    torch.testing.assert_close(grpo.advantages(rewards_QG).sum(1), torch.zeros(2, dtype=DOUBLE), atol=1e-9, rtol=0)


@pytest.mark.parametrize("function", [grpo.advantages, grpo.centred_advantages])
def test_a_group_that_agrees_teaches_nothing(function):
    assert function(torch.full((1, 4), 0.7)).abs().max() < 1e-6


@pytest.mark.parametrize("function", [grpo.advantages, grpo.centred_advantages])
def test_an_output_whose_grader_failed_is_no_sibling(function):
    valid_QG = torch.tensor([[True, False, True, True], [False, False, False, False]])
    anything = torch.tensor([[1.0, math.nan, 0.0, 0.5], [9.0, 1.0, 2.0, math.nan]], dtype=DOUBLE)
    found = function(anything, valid_QG)
    assert found[0, 1] == 0 and (found[1] == 0).all()
    torch.testing.assert_close(found[0, [0, 2, 3]], function(anything[:1, [0, 2, 3]])[0])


def test_centred_advantages_keep_the_size_of_the_rewards():
    rewards_QG = torch.tensor([[4.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(grpo.centred_advantages(rewards_QG), torch.tensor([[3.0, -1.0, -1.0, -1.0]]))
    torch.testing.assert_close(grpo.centred_advantages(2 * rewards_QG), 2 * grpo.centred_advantages(rewards_QG))


# --- ratio and clip (Eq. 1)


@pytest.mark.parametrize(
    "advantage, ratio, expected, cut",
    [(+1, 0.5, 0.5, False), (+1, 2.0, 1.3, True), (-1, 0.5, -0.8, True), (-1, 2.0, -2.0, False)],
)
def test_clip_takes_the_pessimistic_branch_in_every_quadrant(advantage, ratio, expected, cut):
    old = torch.tensor([[-0.7]])
    logp = (old + math.log(ratio)).requires_grad_()
    advantage_N = torch.tensor([float(advantage)])
    out = grpo.loss(logp, old, logp.detach(), advantage_N, torch.ones(1, 1), **NARROW, beta=0.0)
    out.backward()
    assert out.item() == pytest.approx(-expected)
    assert logp.grad.item() == pytest.approx(0 if cut else -advantage * ratio)
    assert grpo.clipped(logp, old, advantage_N, **NARROW).item() is cut


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize("ratio", [0.79, 0.81, 1.0, 1.29, 1.31])
def test_clipped_says_where_the_gradient_vanishes(advantage, ratio):
    old = torch.tensor([[-0.7]], dtype=DOUBLE)
    logp = (old + math.log(ratio)).requires_grad_()
    advantage_N = torch.tensor([advantage], dtype=DOUBLE)
    grpo.loss(logp, old, logp.detach(), advantage_N, torch.ones_like(old), **NARROW, beta=0.0).backward()
    assert grpo.clipped(logp, old, advantage_N, **NARROW).item() == (logp.grad.item() == 0)


def test_the_old_policy_matters():
    logp, old, ref, adv, mask = random_step()
    weight = grpo.per_output_mean(mask)
    there, here = (grpo.loss(logp, x, ref, adv, weight, **CLIP, beta=0.0) for x in (old, logp))
    assert there != here


def test_a_better_output_becomes_likelier():
    logp, old, ref, _, mask = random_step()
    x = logp.clone().requires_grad_()
    adv = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=DOUBLE)
    grpo.loss(x, old, ref, adv, grpo.per_output_mean(mask), **CLIP, beta=0.0).backward()
    assert (x.grad[mask > 0] * adv[:, None].expand_as(x)[mask > 0] < 0).all()


def test_the_ratio_of_a_whole_output_is_the_product_of_its_tokens():
    logp, old, _, _, mask = random_step()
    product = ((logp - old) * mask).sum(1).exp()
    torch.testing.assert_close(grpo.output_ratio(logp, old, mask), product[:, None].expand_as(logp))
    one = torch.zeros_like(mask)
    one[:, 0] = 1
    torch.testing.assert_close(grpo.output_ratio(logp, old, one)[:, :1], grpo.token_ratio(logp, old, one)[:, :1])


@pytest.mark.parametrize("ratio", [grpo.token_ratio, grpo.output_ratio])
def test_at_the_first_update_both_ratios_give_the_policy_gradient(ratio):
    logp, _, ref, adv, mask = random_step()
    weight = grpo.constant_divisor(mask)
    x = logp.clone().requires_grad_()
    grpo.loss(x, logp, ref, adv, weight, **CLIP, beta=0.0, ratio=ratio).backward()
    share = mask.sum(1, keepdim=True) if ratio is grpo.output_ratio else 1
    torch.testing.assert_close(x.grad, -adv[:, None] * weight * share)


# --- reference (Eq. 2)


def test_kl_done_on_paper():
    twice = grpo.kl_to_reference(torch.tensor(0.0), torch.tensor(2.0).log())  # reference twice as likely: 2 - log 2 - 1
    assert twice.item() == pytest.approx(1 - math.log(2))


def test_kl_averages_to_the_true_divergence_over_a_whole_vocabulary():
    logp, ref = (torch.log_softmax(torch.tensor(x, dtype=DOUBLE), -1) for x in ([1.0, 0, -2], [0.0, 1, 1]))
    expected = (logp.exp() * (logp - ref)).sum()
    torch.testing.assert_close((logp.exp() * grpo.kl_to_reference(logp, ref)).sum(), expected)


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_kl_is_never_negative(logp, ref):
    assert grpo.kl_to_reference(torch.tensor(logp, dtype=DOUBLE), torch.tensor(ref, dtype=DOUBLE)) >= -1e-12


def test_with_no_advantage_a_step_moves_the_policy_towards_the_reference():
    logp, old, ref, adv, mask = random_step()
    x = logp.clone().requires_grad_()
    grpo.loss(x, old, ref, 0 * adv, grpo.per_output_mean(mask), **CLIP, beta=1.0).backward()
    assert ((x.grad * (logp - ref))[mask > 0] > 0).all()


def test_beta_weighs_the_divergence():
    logp, old, ref, adv, mask = random_step()
    weight = grpo.token_mean(mask)
    without, with_kl = (grpo.loss(logp, old, ref, adv, weight, **CLIP, beta=b) for b in (0.0, 0.5))
    torch.testing.assert_close(with_kl - without, 0.5 * (grpo.kl_to_reference(logp, ref) * weight).sum())


# --- averages and cuts


def test_averages_done_on_paper():
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert grpo.per_output_mean(mask).tolist() == [[0.25, 0.25, 0, 0], [0.125] * 4]
    torch.testing.assert_close(grpo.token_mean(mask), mask / 6)
    torch.testing.assert_close(grpo.constant_divisor(mask), mask / 8)


def test_short_and_long_outputs_count_alike_per_output_and_not_per_token():
    *_, mask = random_step()
    torch.testing.assert_close(grpo.per_output_mean(mask).sum(1), torch.full((4,), 0.25, dtype=DOUBLE))
    torch.testing.assert_close(grpo.token_mean(mask).sum(1), mask.sum(1) / 15)


def test_a_loss_done_on_paper():
    """Two outputs of one and two tokens; ratios 1 | 2, 1; advantages 1 and -1; the reference twice as likely once."""
    old = torch.tensor([[-1.0, 0.0], [-1.0, -1.0]], dtype=DOUBLE)
    logp = old + torch.tensor([[0.0, 5.0], [math.log(2), 0.0]], dtype=DOUBLE)  # 5.0 stands at padding
    ref = logp + torch.tensor([[math.log(2), 3.0], [0.0, 0.0]], dtype=DOUBLE)
    weight = grpo.per_output_mean(torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=DOUBLE))
    found = grpo.loss(logp, old, ref, torch.tensor([1.0, -1.0], dtype=DOUBLE), weight, **NARROW, beta=0.1)
    surrogate, kl = (1 + (-2 - 1) / 2) / 2, (1 - math.log(2)) / 2
    assert found.item() == pytest.approx(-(surrogate - 0.1 * kl))


@pytest.mark.parametrize("average", [grpo.per_output_mean, grpo.token_mean, grpo.constant_divisor])
@pytest.mark.parametrize("ratio", [grpo.token_ratio, grpo.output_ratio])
@pytest.mark.parametrize("cuts", [(2,), (1,), (3,), (1, 2)])
def test_cutting_the_step_anywhere_does_not_change_the_gradient(average, ratio, cuts):
    logp, old, ref, adv, mask = random_step()
    weight = average(mask)
    whole, parts = logp.clone().requires_grad_(), logp.clone().requires_grad_()
    grpo.loss(whole, old, ref, adv, weight, **NARROW, beta=1e-3, ratio=ratio).backward()
    for a, b in zip((0, *cuts), (*cuts, len(mask)), strict=True):
        rows = slice(a, b)
        args = (parts[rows], old[rows], ref[rows], adv[rows], weight[rows])
        grpo.loss(*args, **NARROW, beta=1e-3, ratio=ratio).backward()
    torch.testing.assert_close(whole.grad, parts.grad)


@pytest.mark.parametrize("ratio", [grpo.token_ratio, grpo.output_ratio])
def test_padding_changes_neither_loss_nor_gradient(ratio):
    logp, old, ref, adv, mask = random_step()
    weight = grpo.per_output_mean(mask)
    a, b = logp.clone().requires_grad_(), torch.where(mask > 0, logp, torch.full_like(logp, 900.0)).requires_grad_()
    loss_a, loss_b = (grpo.loss(x, old, ref, adv, weight, **CLIP, beta=1e-3, ratio=ratio) for x in (a, b))
    (loss_a + loss_b).backward()
    torch.testing.assert_close(loss_a, loss_b)
    torch.testing.assert_close(a.grad, b.grad)
    assert (a.grad[mask == 0] == 0).all()


@pytest.mark.parametrize("ratio", [grpo.token_ratio, grpo.output_ratio])
def test_gradient_is_that_of_finite_differences(ratio):
    logp, old, ref, adv, mask = random_step()
    weight = grpo.per_output_mean(mask)
    assert torch.autograd.gradcheck(
        lambda x: grpo.loss(x, old, ref, adv, weight, **CLIP, beta=1e-3, ratio=ratio), logp.requires_grad_()
    )


# --- the same as TRL's, where both define the same thing (bench/fixtures.py records it)

TRL = json.loads(Path(__file__).with_name("golden").joinpath("trl_loss.json").read_text())


@pytest.mark.parametrize(
    "case", TRL["cases"], ids=lambda case: f"{case['loss_type']}-{case['clip_high']}-{case['beta']}"
)
def test_loss_and_gradient_are_those_of_trl(case):
    assert TRL["trl"] == "1.16.0" and len(TRL["cases"]) == 9
    given = {name: torch.tensor(values) for name, values in TRL["inputs"].items()}
    logp_NT = given["logp"].requires_grad_()
    weight_NT = getattr(grpo, case["average"])(given["mask"])
    clip = {name: case[name] for name in ("clip_low", "clip_high")}
    loss = grpo.loss(
        logp_NT, given["old_logp"], given["ref_logp"], given["advantage"], weight_NT, beta=case["beta"], **clip
    )
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    torch.testing.assert_close(logp_NT.grad, torch.tensor(case["gradient"]), atol=1e-6, rtol=1e-5)


def test_the_recorded_cases_are_cut_by_the_clip_on_both_sides():
    """Otherwise equal losses would show nothing about the clip."""
    given = {name: torch.tensor(values) for name, values in TRL["inputs"].items()}
    on = given["mask"] > 0
    cut = grpo.clipped(given["logp"], given["old_logp"], given["advantage"], clip_low=0.2, clip_high=0.28) & on
    better = (given["advantage"] > 0)[:, None] & cut
    assert better.any() and (cut & ~better).any() and (on & ~cut).any()
