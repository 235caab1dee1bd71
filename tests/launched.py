"""A tiny stage for the tests of launching: `python -m launched FILE` is what each of its ranks does.

The settings are those of R1-Zero, of which only the machine counts.
"""

import os
import signal
import sys
import time
from pathlib import Path


def started(place: Path) -> int:
    """How often this rank has been started, this time included."""
    with open(place / f"starts-{os.environ.get('RANK', '0')}", "a+") as file:
        file.write("once\n")
        file.seek(0)
        return len(file.readlines())


def total(settings, place: Path) -> list:
    """Sum of 1, 2, ... over the ranks, and their number."""
    import torch

    from r1repro.engine import dist
    from r1repro.stages import child

    with child.at_work(settings.machine):
        number = torch.tensor([dist.rank() + 1])
        if dist.num_ranks() > 1:
            torch.distributed.all_reduce(number)
        return [number.item(), dist.num_ranks()]


def until_asked(settings, place: Path) -> None:
    """Works on until it is asked to stop."""
    from r1repro import run
    from r1repro.stages import child

    with child.at_work(settings.machine), run.Interrupts("this nap") as interrupts:
        (place / "at-work").touch()
        while True:
            time.sleep(0.05)
            interrupts.stop()


def refused_by_one(settings, place: Path) -> None:
    """The second rank refuses, while the first one waits for it."""
    import torch

    from r1repro.engine import dist
    from r1repro.records import Refusal
    from r1repro.stages import child

    with child.at_work(settings.machine):
        if not dist.leads():
            raise Refusal("no such thing: take another")
        torch.distributed.barrier()


def main(file: Path) -> int:
    place = Path(os.environ["R1REPRO_TEST_PLACE"])
    if started(place) == 1 and os.environ.get("R1REPRO_TEST_KILLED", "nobody") == os.environ.get("RANK", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    from r1repro import config
    from r1repro.stages import child

    child.KINDS["r1_zero"] = (config.R1Zero, "launched")
    return child.main(file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
