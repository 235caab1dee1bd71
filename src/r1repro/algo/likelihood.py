r"""Log-probabilities of tokens, and the loss of supervised fine-tuning: nothing else.

Axes.  N sequences, T tokens, V vocabulary.  Tensors in, tensors out.
"""

from torch import Tensor


def token_logp(logits_NTV: Tensor, tokens_NT: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Log-probability of each token under softmax(logits / temperature), in nats: (N, T).

    Where the paper is silent:
        Whether the ratio of Eq. 1 is taken at the temperature of the sampling.  It is here: the old policy is the
        distribution that the outputs were really drawn from.

    >>> import torch
    >>> token_logp(torch.zeros(1, 1, 4), torch.tensor([[2]])).exp()
    tensor([[0.2500]])
    """
    scaled_NTV = logits_NTV if temperature == 1.0 else logits_NTV / temperature
    chosen_NT = scaled_NTV.gather(-1, tokens_NT.unsqueeze(-1)).squeeze(-1)
    return chosen_NT - scaled_NTV.logsumexp(-1)


def sft_loss(logp_NT: Tensor, weight_NT: Tensor) -> Tensor:
    """Minus the weighted log-likelihood, a scalar to minimise; the weights are made once for a whole step.

    Where the paper is silent:
        Whether prompts are trained on.  Pre-training weighs every token alike; SFT gives the prompt weight 0.
    """
    return -(logp_NT * weight_NT).sum()
