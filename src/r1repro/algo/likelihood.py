r"""Log-probabilities of tokens, and the loss of supervised fine-tuning: nothing else.

Axes.  N sequences, T tokens, V vocabulary.  Tensors in, tensors out.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25
"""Logits held in memory at a time, 128 MiB in single precision: 220 tokens of a vocabulary of 152,000."""


def precise(dtype: torch.dtype) -> torch.dtype:
    """In which log-probabilities are computed: single precision at least.

    >>> precise(torch.bfloat16), precise(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def token_logp(logits_NTV: Tensor, tokens_NT: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Log-probability of each token under softmax(logits / temperature), in nats: (N, T).

    Where the paper is silent:
        Whether the ratio of Eq. 1 is taken at the temperature of the sampling.  It is here: the old policy is the
        distribution that the outputs were really drawn from.

    >>> token_logp(torch.zeros(1, 1, 4), torch.tensor([[2]])).exp()
    tensor([[0.2500]])
    """
    logits_NTV = logits_NTV.to(precise(logits_NTV.dtype))
    scaled_NTV = logits_NTV if temperature == 1.0 else logits_NTV / temperature
    return _TokenLogp.apply(scaled_NTV, tokens_NT)


def head_logp(
    hidden_MD: Tensor,
    head: Callable[[Tensor], Tensor],
    tokens_M: Tensor,
    temperature: float = 1.0,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    r"""As `token_logp`, from what the head is given: (M,); memory does not grow with tokens times vocabulary.

    Some tokens at a time; their logits are computed once more for the gradient instead of being kept.  Where all fit
    at once nothing is computed twice.

    Args:
        head: the last linear layer, (m, D) -> (m, V).
        logits_at_once: those of one token at least; changes no number.
    """
    size = max(1, logits_at_once // head.weight.shape[0])
    if len(hidden_MD) <= size:
        return token_logp(head(hidden_MD[None]), tokens_M[None], temperature)[0]

    def part(hidden_mD: Tensor, tokens_m: Tensor) -> Tensor:
        return token_logp(head(hidden_mD[None]), tokens_m[None], temperature)[0]

    parts = zip(hidden_MD.split(size), tokens_M.split(size), strict=True)
    return torch.cat([checkpoint(part, *pair, use_reentrant=False) for pair in parts])


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
