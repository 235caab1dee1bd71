r"""Losses of reward models: nothing else.  N outputs; a pair is two outputs to one prompt.  Tensors in, tensors out."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def pair_loss(chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
    r"""Minus the log-probability that the chosen one wins under Bradley and Terry's model, a mean over pairs.

    .. math:: -\log \sigma(r_{chosen} - r_{rejected})

    Only differences count, so the scores have no zero: see `standardised`.

    >>> pair_loss(torch.tensor([2.0]), torch.tensor([2.0]))
    tensor(0.6931)
    """
    return -logsigmoid(chosen_N - rejected_N).mean()


def point_loss(score_N: Tensor, label_N: Tensor) -> Tensor:
    """Cross-entropy between the label (1 good, 0 bad) and the score as a logit, a mean over outputs.

    >>> point_loss(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor(0.6931)
    """
    return binary_cross_entropy_with_logits(score_N, label_N)


def agreement(chosen_N: Tensor, rejected_N: Tensor) -> float:
    """Share of pairs in which the chosen one has the higher score; ties count one half.

    >>> agreement(torch.tensor([1.0, 0.0, 3.0, 1.0]), torch.tensor([0.0, 1.0, 2.0, 1.0]))
    0.625
    """
    return ((chosen_N > rejected_N).double() + (chosen_N == rejected_N).double() / 2).mean().item()


def standardised(score_N: Tensor, mean: float, std: float) -> Tensor:
    """Scores in standard deviations of those that a reward model gave while it was trained.

    Where the paper is silent:
        The size of the preference reward beside the rule rewards, which are 0 or 1.  Here one standard deviation of a
        reward model weighs as much as a right answer.
    """
    return (score_N - mean) / max(std, torch.finfo(score_N.dtype).tiny)
