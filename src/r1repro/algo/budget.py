r"""What training costs in operations, and how much of a rollout can teach: counts for setting runs side by side.

Plain numbers in, plain numbers out.
"""

from collections.abc import Sequence

import numpy as np


def operations(parameters: float, *, read: float = 0, trained: float = 0) -> float:
    r"""Floating-point operations of a model on some tokens.

    .. math:: C \approx 2 N D_{read} + 6 N D_{trained}

    A forward pass multiplies and adds once with each of N parameters, a backward pass costs two forward passes.
    Source: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.

    Args:
        read: tokens that pass forward alone: sampled ones, and those that a reference policy reads.
        trained: tokens of the forward and backward pass of an update; prompts too, where they go through it.

    Where the paper is silent:
        How distillation and RL are set on one scale.  It names the steps of RL and no price.  Here attention is left
        out, which is small for outputs of a hundred tokens, and embeddings are in, since the head is one of them.

    >>> operations(10, read=3, trained=2)
    180
    """
    return 2 * parameters * read + 6 * parameters * trained


def mixed_groups(rates_Q: Sequence[float], size: int) -> float:
    r"""The share of groups that hold both right and wrong outputs, so that their advantages (Eq. 3) are not all 0.

    .. math:: \frac1Q \sum_q 1 - p_q^G - (1 - p_q)^G

    Args:
        rates_Q: each question's chance of a right output.
        size: G, outputs to a question.

    Where the paper is silent:
        Why small bases fail.  A base that is never right on a question has no group there to learn from, however long
        it samples; this counts how often that is so.  The format reward, which can differ as well, is left out.

    >>> mixed_groups([0.0, 0.5, 1.0], size=2)
    0.16666666666666666
    """
    rates_Q = np.asarray(rates_Q, dtype=float)
    if rates_Q.size == 0 or size < 1 or rates_Q.min() < 0 or rates_Q.max() > 1:
        raise ValueError(f"rates must be chances of one question at least, and size ({size}) 1 or more")
    return float((1 - rates_Q**size - (1 - rates_Q) ** size).mean())
