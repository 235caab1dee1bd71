"""Ranks.  A stage is one program that asks here for its rank; with one rank there is no process group at all.

Where RANK is set, by `torchrun` or by the worker of Ray Train that started it, `join` takes part in the group.  Each
rank does its share of the work, all of them hold the same results, and the first one alone writes: `open_run`, `led`.
Token weights are made for the whole step, so ranks add their gradients up and never average them.
"""

import functools
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from r1repro.records import Refusal
from r1repro.run import Follower, Interrupts, Run, Stopped

PATIENCE = timedelta(days=7)
"""Ours: how long a rank waits for another.  One that is lost is noticed by who started them, and ends them all; a
stage's first rank may work alone for hours (graders, reports) while the others wait."""

Found = TypeVar("Found")


def join() -> bool:
    """Take part in the process group that `torchrun` describes, if there is one; returns whether it was made here."""
    if "RANK" not in os.environ or dist.is_initialized():
        return False
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return True


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def num_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


_alone: list[bool] = []
"""Not empty while the first rank works and the others wait for it: then it is all that there is."""


def leads() -> bool:
    """Whether this rank is the one that writes."""
    return rank() == 0


def share(count: int, teams: int = 1) -> slice:
    """The part of ``count`` things that is this rank's: contiguous, sizes differ by one at most.

    Args:
        teams: so many ranks with numbers in a row do one share together, all of them all of it.

    >>> share(5)
    slice(0, 5, None)
    """
    team, number = rank() // teams, max(1, num_ranks() // teams)
    return slice(count * team // number, count * (team + 1) // number)


def check_enough(count: int, what: str) -> None:
    """Refuse work of which some rank would have no part."""
    if count < num_ranks():
        raise Refusal(f"{what} is {count}, fewer than the {num_ranks()} ranks: start fewer, or raise it")


def check_teams(size: int) -> None:
    """Refuse teams that some ranks would be left out of."""
    if num_ranks() > 1 and num_ranks() % size:
        raise Refusal(f"machine.tensor_parallel {size} does not divide the {num_ranks()} ranks: choose another")


def leads_team(size: int) -> bool:
    return rank() % size == 0


def in_team(thing: Found, size: int) -> Found:
    """What the first rank of this one's team says; all of the team must ask."""
    if size == 1 or num_ranks() == 1:
        return thing
    told = [thing]
    dist.broadcast_object_list(told, src=rank() // size * size, group=_teams(size, num_ranks())[rank() // size])
    return told[0]


@functools.cache
def _teams(size: int, ranks: int) -> list[Any]:
    """A group a team; all ranks make all of them, in the same order."""
    return [dist.new_group(range(i, i + size), timeout=PATIENCE, backend="gloo") for i in range(0, ranks, size)]


# One rank for all


def led(work: Callable[[], Found]) -> Found:
    """What the first rank alone finds, on every rank; what it refuses, all refuse.

    It must be small and plain: numbers, texts, paths, lists.  The work may be a whole stage: it sees one rank.
    """
    if num_ranks() == 1:
        return work()
    found: list[Any] = [None, None]
    if leads():
        _alone.append(True)
        try:
            found[0] = work()
        except Refusal as refusal:
            found[1] = str(refusal)
        finally:
            _alone.pop()
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise Refusal(found[1])
    return found[0]


def by_the_first(stage: Callable[..., Found]) -> Callable[..., Found]:
    """Makes a stage that knows no ranks one that the first of them does for all: see `led`."""

    @functools.wraps(stage)
    def done(*args: Any, **kwargs: Any) -> Found:
        return led(lambda: stage(*args, **kwargs))

    return done


def first(work: Callable[[], Found]) -> Found:
    """What ``work`` finds on each rank, the first rank before all others: it makes on the disk what they then find."""
    if num_ranks() == 1:
        return work()
    found: list[Found] = []
    led(lambda: found.append(work()))
    return found[0] if leads() else work()


def open_run(run_dir: Path | str, **about: Any) -> Run:
    """`Run.open` on the first rank; the others get what reads and does not write."""
    if num_ranks() == 1:
        return Run.open(run_dir, **about)
    opened: list[Run] = []

    def manifest() -> dict[str, Any]:
        opened.append(Run.open(run_dir, **about))
        return opened[0].manifest

    told = led(manifest)
    return opened[0] if leads() else Follower(Path(run_dir), told)


def meet() -> None:
    """Wait until every rank is here: what another has written is there then."""
    if num_ranks() > 1:
        dist.barrier()


def asked(interrupts: Interrupts) -> int:
    """The number of a signal that has come to any rank, the same on all; 0 for none."""
    return int(most(interrupts.came))


def stop(interrupts: Interrupts, number: int | None = None) -> None:
    """Raise `Stopped` on every rank if a signal has come to any; to be called where a checkpoint has been written.

    Args:
        number: what was `asked` when that was decided on: another signal may have come since.
    """
    if number := asked(interrupts) if number is None else number:
        raise Stopped(number, interrupts.after)


# All ranks' things together


def gathered(rows: Sequence[Found], teams: int = 1) -> list[Found]:
    """The plain things of all ranks, in the order of ranks, on every rank; of a team's ranks those of the first."""
    if num_ranks() == 1:
        return list(rows)
    parts: list[Any] = [None] * num_ranks()
    dist.all_gather_object(parts, list(rows))
    return [row for part in parts[::teams] for row in part]


def stacked(rows: Tensor, teams: int = 1) -> Tensor:
    """The rows of all ranks, in the order of ranks, of a team's ranks those of the first: (N,), or (N, T) as wide as
    the widest, with 0 beyond."""
    if num_ranks() == 1:
        return rows
    device, kind = rows.device, rows.dtype
    rows = (rows.to(torch.uint8) if kind == torch.bool else rows).cpu().contiguous()
    sizes = [torch.zeros(2, dtype=torch.long) for _ in range(num_ranks())]
    dist.all_gather(sizes, torch.tensor([rows.shape[0], rows.shape[1] if rows.ndim > 1 else 1]))
    tallest, widest = (max(int(size[axis]) for size in sizes) for axis in (0, 1))
    padded = rows.new_zeros((tallest, widest) if rows.ndim > 1 else (tallest,))
    padded[tuple(slice(0, length) for length in rows.shape)] = rows
    parts = [torch.empty_like(padded) for _ in range(num_ranks())]
    dist.all_gather(parts, padded)
    whole = [part[: int(size[0])] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat(whole[::teams]).to(device, kind)


def total(value: Tensor) -> Tensor:
    """The sum of a number over ranks."""
    return _reduced(value, dist.ReduceOp.SUM)


def most(value: float) -> float:
    """The largest of a number over ranks."""
    return _reduced(torch.tensor(float(value), dtype=torch.float64), dist.ReduceOp.MAX).item()


def least(value: float) -> float:
    return 0.0 - most(-value)


def _reduced(value: Tensor, how: Any) -> Tensor:
    if num_ranks() == 1:
        return value
    found = value.detach().cpu().clone()
    dist.all_reduce(found, how)
    return found.to(value.device)


def add_gradients_(model: nn.Module) -> None:
    """Sum the gradients of all ranks, in place; a model whose weights are cut up has done so by itself."""
    if num_ranks() > 1:
        for parameter in (p for p in model.parameters() if p.requires_grad and not hasattr(p, "device_mesh")):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
