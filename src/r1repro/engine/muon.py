"""Muon, the optimiser of pre-training: momentum whose singular values are all made about one.

After Jordan et al. (2024), with the scale of Liu et al. (2025) by which its steps are as large as AdamW's.  torch has a
Muon too, which orthogonalises in bfloat16: processors without that type take as long for it as for the rest of a step.
"""

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial, as published: it takes singular values between 0 and 1 to between 0.7 and 1.2 in five turns."""


class Muon(torch.optim.AdamW):
    """Muon for the matrices inside a model, AdamW for embeddings, norms and biases, with one learning rate."""

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float):
        inside = [p for name, p in model.named_parameters() if p.ndim == 2 and not _is_outer(name)]
        outside = [p for name, p in model.named_parameters() if p.ndim != 2 or _is_outer(name)]
        groups = [{"params": inside, "inside": True}, {"params": outside, "inside": False}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        """One step; AdamW passes over what has no gradient any more."""
        for group in (group for group in self.param_groups if group["inside"]):
            for p in (p for p in group["params"] if p.grad is not None):
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(p.shape) ** 0.5
                p.add_(orthogonal(p.grad.lerp(momentum, 0.95)), alpha=-group["lr"] * size)
                p.grad = None
        return super().step(closure)


def _is_outer(name: str) -> bool:
    return "embed" in name or "lm_head" in name


def orthogonal(matrix: Tensor, turns: int = 5) -> Tensor:
    """A matrix with the singular vectors of another, and singular values near 1 for all of its that are not tiny.

    >>> values = torch.linalg.svdvals(orthogonal(torch.diag(torch.tensor([9.0, 3.0, 1.0]))))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / matrix.norm().clamp(min=1e-7)
    for _ in range(turns):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
