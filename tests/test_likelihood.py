"""Log-probabilities at a temperature, and the loss of fine-tuning, beside torch's own."""

import pytest
import torch

from r1repro.algo import likelihood


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_token_logp_is_that_of_the_tempered_softmax(temperature):
    draw = torch.Generator().manual_seed(0)
    logits_NTV = torch.randn(2, 3, 7, generator=draw, dtype=torch.float64)
    tokens_NT = torch.randint(7, (2, 3), generator=draw)
    every_NTV = torch.stack(
        [likelihood.token_logp(logits_NTV, torch.full((2, 3), v), temperature) for v in range(7)], -1
    )
    torch.testing.assert_close(every_NTV.exp(), torch.softmax(logits_NTV / temperature, -1))
    chosen_NT = every_NTV.gather(-1, tokens_NT[..., None])[..., 0]
    torch.testing.assert_close(likelihood.token_logp(logits_NTV, tokens_NT, temperature), chosen_NT)


def test_token_logp_stands_large_logits():
    found = likelihood.token_logp(torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]]), torch.tensor([[0, 0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -1e4]]))


def test_gradient_of_token_logp_is_one_hot_less_probability():
    logits = torch.tensor([[[1.0, 2.0, 0.5]]], dtype=torch.float64, requires_grad=True)
    likelihood.token_logp(logits, torch.tensor([[1]]), 0.5).sum().backward()
    probability = torch.softmax(logits.detach() / 0.5, -1)
    torch.testing.assert_close(logits.grad, (torch.tensor([[[0.0, 1.0, 0.0]]]) - probability) / 0.5)


def test_sft_loss_is_cross_entropy_over_the_weighted_tokens():
    draw = torch.Generator().manual_seed(1)
    logits_NTV, tokens_NT = torch.randn(2, 3, 5, generator=draw), torch.randint(5, (2, 3), generator=draw)
    mask_NT = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    found = likelihood.sft_loss(likelihood.token_logp(logits_NTV, tokens_NT), mask_NT / mask_NT.sum())
    expected = torch.nn.functional.cross_entropy(logits_NTV[mask_NT > 0], tokens_NT[mask_NT > 0])
    torch.testing.assert_close(found, expected)
