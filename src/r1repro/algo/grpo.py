r"""GRPO: equations 1-3 of DeepSeek-R1, section 2.2.1, its published variants, and nothing else.

Axes.  Q questions, G outputs to each, N = Q*G outputs in all, T tokens.
A name ends in its axes: ``rewards_QG`` is (Q, G), ``logp_NT`` is (N, T).

Tensors in, tensors out.  This file never samples, logs, shards or reads a config.
"""

import torch
from torch import Tensor


def advantages(rewards_QG: Tensor, valid_QG: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    r"""How far each output beats its siblings, in group standard deviations (Eq. 3).

    .. math:: A_i = \frac{r_i - \mathrm{mean}(r_1..r_G)}{\mathrm{std}(r_1..r_G)}

    Args:
        valid_QG: False where the grader failed; such an output gets advantage 0 and is no sibling to the others.

    Where the paper is silent:
        *std* is the population one (divide by G): the G outputs are the whole group, not a draw from it.
        Dividing by G - 1 would shrink every advantage by 13 % at G = 4 and 3 % at G = 16.  Both are in use.
        *eps* keeps a group whose rewards all agree at 0 instead of 0/0; nothing else needs it.
        Such groups stay in the batch: they teach nothing but their outputs still feel the KL term.

    >>> advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    tensor([[ 1.7320, -0.5773, -0.5773, -0.5773]])
    """
    valid_QG = torch.ones_like(rewards_QG) if valid_QG is None else valid_QG.to(rewards_QG.dtype)
    num_Q1 = valid_QG.sum(1, keepdim=True).clamp(min=1)
    rewards_QG = torch.where(valid_QG > 0, rewards_QG, torch.zeros_like(rewards_QG))
    centred_QG = (rewards_QG - rewards_QG.sum(1, keepdim=True) / num_Q1) * valid_QG
    std_Q1 = (centred_QG.square().sum(1, keepdim=True) / num_Q1).sqrt()
    return centred_QG / (std_Q1 + eps)


def centred_advantages(rewards_QG: Tensor, valid_QG: Tensor | None = None) -> Tensor:
    """Reward minus the group's mean, not divided by the standard deviation: Dr. GRPO's, for comparison.

    Dividing by the standard deviation gives questions that are nearly always or nearly never solved a larger say.
    """
    valid_QG = torch.ones_like(rewards_QG) if valid_QG is None else valid_QG.to(rewards_QG.dtype)
    rewards_QG = torch.where(valid_QG > 0, rewards_QG, torch.zeros_like(rewards_QG))
    return (rewards_QG - rewards_QG.sum(1, keepdim=True) / valid_QG.sum(1, keepdim=True).clamp(min=1)) * valid_QG


def kl_to_reference(logp_NT: Tensor, ref_logp_NT: Tensor) -> Tensor:
    r"""Never-negative estimate of KL(policy || reference), one per token, in nats (Eq. 2).

    .. math:: \frac{\pi_{ref}}{\pi_\theta} - \log\frac{\pi_{ref}}{\pi_\theta} - 1

    Unbiased for tokens drawn from the policy itself, not for those of an older one.
    """
    log_ratio_NT = ref_logp_NT - logp_NT
    return log_ratio_NT.exp() - log_ratio_NT - 1


def token_ratio(logp_NT: Tensor, old_logp_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """New over old probability, token by token: the ratio of DeepSeekMath Eq. 3, our default."""
    return torch.where(mask_NT > 0, logp_NT - old_logp_NT, torch.zeros_like(logp_NT)).exp()


def output_ratio(logp_NT: Tensor, old_logp_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """New over old probability of the whole output, the same at each of its tokens: Eq. 1 taken to the letter.

    A product over all tokens, so it leaves any clip range within a few updates when outputs are long.
    """
    log_ratio_NT = torch.where(mask_NT > 0, logp_NT - old_logp_NT, torch.zeros_like(logp_NT))
    return log_ratio_NT.sum(1, keepdim=True).exp().expand_as(log_ratio_NT)


def loss(
    logp_NT: Tensor,
    old_logp_NT: Tensor,
    ref_logp_NT: Tensor,
    advantage_N: Tensor,
    weight_NT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    beta: float,
    ratio=token_ratio,
) -> Tensor:
    r"""Minus the GRPO objective (Eq. 1): a scalar to minimise.

    .. math:: \min(\rho A,\ \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) A) - \beta D_{KL}

    ``weight_NT`` says how the tokens are averaged and is 0 wherever the policy did not sample.  It is made once for a
    whole step, by ``per_output_mean``, ``token_mean`` or ``constant_divisor``, and then cut along with the batch: so
    micro-batches and ranks of any size simply add up to the same gradient.

    Args:
        advantage_N: one an output, or (N, T), one a token: see `of_tokens`.

    Where the paper is silent:
        Eq. 1 writes the ratio for a whole output; we take it per token, as DeepSeekMath Eq. 3 does.  The letter of
        Eq. 1 is ``ratio=output_ratio``.
    """
    mask_NT = weight_NT > 0
    ratio_NT = ratio(logp_NT, old_logp_NT, mask_NT)
    advantage_N1 = of_tokens(advantage_N)
    surrogate_NT = torch.minimum(
        ratio_NT * advantage_N1,
        ratio_NT.clamp(1 - clip_low, 1 + clip_high) * advantage_N1,
    )
    kl_NT = kl_to_reference(torch.where(mask_NT, logp_NT, ref_logp_NT), ref_logp_NT)
    return -((surrogate_NT - beta * kl_NT) * weight_NT).sum()


def of_tokens(advantage: Tensor) -> Tensor:
    """The advantage of each token: (N, 1), the same for all tokens of an output; or (N, T) as it is, where each token
    has its own (PPO).

    >>> of_tokens(torch.zeros(3)).shape, of_tokens(torch.zeros(3, 5)).shape
    (torch.Size([3, 1]), torch.Size([3, 5]))
    """
    return advantage.unsqueeze(1) if advantage.ndim == 1 else advantage


def importance(policy_logp_NT: Tensor, sampler_logp_NT: Tensor, cap: float) -> Tensor:
    """Weights that make up for a sampler that computes otherwise than the policy, cut at ``cap``: (N, T).

    The outputs were drawn from the sampler's distribution; the gradient is meant over the policy's, as it was then.

    Where the paper is silent:
        Whether its sampler and its trainer agree to the last digit.  Cut weights bound what a rare token can do
        (truncated importance sampling); with one engine for both every weight is 1.

    >>> importance(torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -3.0]]), cap=2.0)
    tensor([[1., 2.]])
    """
    return (policy_logp_NT - sampler_logp_NT).exp().clamp(max=cap)


def clipped(logp_NT: Tensor, old_logp_NT: Tensor, advantage_N: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """True where the clip cuts a token's gradient: the ratio has left the range in the direction of its advantage."""
    ratio_NT = (logp_NT - old_logp_NT).exp()
    advantage_N1 = of_tokens(advantage_N)
    return ((ratio_NT > 1 + clip_high) & (advantage_N1 > 0)) | ((ratio_NT < 1 - clip_low) & (advantage_N1 < 0))


def per_output_mean(mask_NT: Tensor) -> Tensor:
    """Weights that average over each output's own tokens, then over outputs: short and long count alike (our
    default)."""
    return mask_NT / mask_NT.sum(dim=1, keepdim=True).clamp(min=1) / len(mask_NT)


def token_mean(mask_NT: Tensor) -> Tensor:
    """Weights that average over all tokens of the step (DAPO): a long output counts for more."""
    return mask_NT / mask_NT.sum().clamp(min=1)


def constant_divisor(mask_NT: Tensor) -> Tensor:
    """Weights that divide by one constant, the cap T (Dr. GRPO): no pull towards long wrong outputs."""
    return mask_NT / (mask_NT.shape[0] * mask_NT.shape[1])
