"""Ranks.  A stage is one program that asks here for its rank; with one rank there is no process group at all.

Under `torchrun` (RANK is set) `join` takes part in the group; elsewhere it does nothing.  Token weights are made for
the whole step, so ranks add their gradients up and never average them.
"""

import os

import torch
import torch.distributed as dist
from torch import nn


def join() -> None:
    """Take part in the process group that `torchrun` describes, if there is one."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def num_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: int) -> slice:
    """The part of ``count`` things that is this rank's: contiguous, sizes differ by one at most.

    >>> share(5)
    slice(0, 5, None)
    """
    return slice(count * rank() // num_ranks(), count * (rank() + 1) // num_ranks())


def add_gradients_(model: nn.Module) -> None:
    """Sum the gradients of all ranks, in place."""
    if num_ranks() > 1:
        for parameter in (p for p in model.parameters() if p.requires_grad):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
