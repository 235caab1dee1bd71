r"""Log-probabilities of tokens, and the loss of supervised fine-tuning: nothing else.

Axes.  N sequences, T tokens, V vocabulary.  Tensors in, tensors out.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def token_logp(logits_NTV: Tensor, tokens_NT: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Log-probability of each token under softmax(logits / temperature), in nats: (N, T).

    Where the paper is silent:
        Whether the ratio of Eq. 1 is taken at the temperature of the sampling.  It is here: the old policy is the
        distribution that the outputs were really drawn from.

    >>> token_logp(torch.zeros(1, 1, 4), torch.tensor([[2]])).exp()
    tensor([[0.2500]])
    """
    scaled_NTV = logits_NTV if temperature == 1.0 else logits_NTV / temperature
    return _TokenLogp.apply(scaled_NTV, tokens_NT)


class _TokenLogp(torch.autograd.Function):
    """log softmax at one token.  Its gradient, one-hot minus softmax, is made in place of what the forward pass saved:
    three passes over the logits in all, where autograd makes ten."""

    @staticmethod
    def forward(ctx, logits_NTV: Tensor, tokens_NT: Tensor) -> Tensor:
        logp_NTV = logits_NTV.log_softmax(-1)
        ctx.save_for_backward(logp_NTV, tokens_NT)
        return logp_NTV.gather(-1, tokens_NT.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NT: Tensor) -> tuple[Tensor, None]:
        logp_NTV, tokens_NT = ctx.saved_tensors
        grad_NTV = logp_NTV.exp_().mul_(-grad_NT.unsqueeze(-1))
        return grad_NTV.scatter_add_(-1, tokens_NT.unsqueeze(-1), grad_NT.unsqueeze(-1)), None


def sft_loss(logp_NT: Tensor, weight_NT: Tensor) -> Tensor:
    """Minus the weighted log-likelihood, a scalar to minimise; the weights are made once for a whole step.

    Where the paper is silent:
        Whether prompts are trained on.  Pre-training weighs every token alike; SFT gives the prompt weight 0.
    """
    return -(logp_NT * weight_NT).sum()
