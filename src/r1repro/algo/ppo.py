r"""PPO beside GRPO (v2, appendix A.3): rewards, advantages and the value loss, token by token; and nothing else.

Axes.  N outputs, T tokens.  Tensors in, tensors out.  PPO's clipped surrogate is GRPO's: `grpo.loss` takes an advantage
of each token as well as one of each output.  What PPO has of its own stands here: it asks a value model what an output
is worth at each of its tokens, where GRPO compares outputs to the same question.
"""

import torch
from torch import Tensor


def token_rewards(reward_N: Tensor, logp_NT: Tensor, ref_logp_NT: Tensor, mask_NT: Tensor, *, beta: float) -> Tensor:
    r"""The reward of each token: that of the whole output at its last one, and a price of leaving the reference.

    .. math:: r_t = [t = T]\,R - \beta \log\frac{\pi_{old}(o_t)}{\pi_{ref}(o_t)}

    Added up over an output the second part is what the paper holds against it (v2 A.3): it is paid for every token, so
    a longer output pays more.  GRPO has its KL term in the loss in its place.

    >>> on = torch.tensor([[1.0, 1.0, 0.0]])
    >>> token_rewards(torch.tensor([2.0]), torch.full((1, 3), -1.0), torch.full((1, 3), -3.0), on, beta=0.5)
    tensor([[-1.,  1.,  0.]])
    """
    last_NT = mask_NT * (mask_NT.cumsum(1) == mask_NT.sum(1, keepdim=True))
    return last_NT * reward_N.unsqueeze(1) - beta * (logp_NT - ref_logp_NT) * mask_NT


def gae(reward_NT: Tensor, value_NT: Tensor, mask_NT: Tensor, *, lam: float, gamma: float = 1.0) -> Tensor:
    r"""Generalised advantage estimation: how much better an output goes on from each token than the values expected.

    .. math:: \hat A_t = \delta_t + \gamma\lambda\,\hat A_{t+1}, \qquad \delta_t = r_t + \gamma V_{t+1} - V_t

    ``value_NT`` is the value before each token; behind the last one it is 0.  With lambda 1 (and gamma 1) the values
    in between cancel: what is left is the rewards to come minus the value.  With lambda below 1 what comes k tokens
    later counts lambda^k, and the values must stand in for it: at 0.95 a reward 100 tokens away counts 0.006.

    Source: Schulman et al. 2015, arXiv 1506.02438, eq. 16.

    Where the paper is silent:
        Gamma, which is 1 here: a reward is worth as much after a long output.  An output that is cut at the cap ends
        there; nothing is expected of what it might have become.

    >>> reward, value, on = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2)
    >>> gae(reward, value, on, lam=1.0), gae(reward, value, on, lam=0.0)
    (tensor([[0.5000, 0.7500]]), tensor([[-0.2500,  0.7500]]))
    """
    next_N = torch.zeros_like(value_NT[:, 0])
    value_NT = value_NT * mask_NT
    following_NT = torch.cat([value_NT[:, 1:], next_N.unsqueeze(1)], 1)
    delta_NT = (reward_NT + gamma * following_NT - value_NT) * mask_NT
    advantages = []
    for delta_N in delta_NT.unbind(1)[::-1]:
        next_N = delta_N + gamma * lam * next_N
        advantages.append(next_N)
    return torch.stack(advantages[::-1], 1)


def whitened(advantage_NT: Tensor, mask_NT: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Advantages with mean 0 and standard deviation 1 over the tokens of a rollout; 0 elsewhere.

    Where the paper is silent:
        Whether its PPO does this.  It is usual, and it gives a step the size that it has in GRPO, which divides by the
        standard deviation of a group.

    >>> whitened(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[-1.0000,  1.0000,  0.0000]])
    """
    num = mask_NT.sum().clamp(min=1)
    centred_NT = (advantage_NT - (advantage_NT * mask_NT).sum() / num) * mask_NT
    return centred_NT / ((centred_NT.square().sum() / num).sqrt() + eps)


def value_loss(value_NT: Tensor, return_NT: Tensor, weight_NT: Tensor) -> Tensor:
    r"""Half the weighted squared distance of the values from what came, a scalar to minimise.

    .. math:: \tfrac12 \sum_t w_t\,(V_t - \hat R_t)^2, \qquad \hat R_t = \hat A_t + V^{old}_t

    The weights are made once for a whole step, as those of `grpo.loss`.

    Where the paper is silent:
        Whether values are clipped as ratios are.  They are not here: the value model has an optimiser of its own.

    >>> value_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
    tensor(0.2500)
    """
    return (weight_NT * (value_NT - return_NT).square()).sum() / 2
