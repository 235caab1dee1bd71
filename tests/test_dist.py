"""Ranks add up: two gloo processes end with the weights of one, in float64."""

import os
import socket
import subprocess
import sys

import models
import pytest
import torch

from r1repro.engine import dist

TIMEOUT_S = 120


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_two_ranks_end_with_the_weights_of_one(tmp_path):
    """Three steps on a recorded rollout; the ranks have unlike shares, and each starts as `torchrun` would start it."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    group["PYTHONPATH"] = os.pathsep.join(sys.path)
    ranks = [
        subprocess.Popen(
            [sys.executable, models.__file__, "rank", str(tmp_path)],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=TIMEOUT_S)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    alone = models.weights_after(models.small_rl(**models.THREE_STEPS), models.SMALL_MACHINE)
    together = [torch.load(tmp_path / f"rank-{rank}-of-2.pt", weights_only=True) for rank in range(2)]
    for name, weight in alone.items():
        torch.testing.assert_close(together[0][name], weight, atol=1e-10, rtol=0)
        assert torch.equal(together[0][name], together[1][name])


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 14])
def test_shares_are_all_of_it_once_and_as_even_as_can_be(monkeypatch, ranks, count):
    monkeypatch.setattr(dist, "num_ranks", lambda: ranks)
    shares = []
    for rank in range(ranks):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        shares.append(list(range(count))[dist.share(count)])
    assert sum(shares, []) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_with_one_rank_there_is_no_group():
    dist.join()
    assert (dist.rank(), dist.num_ranks()) == (0, 1) and not torch.distributed.is_initialized()
    model = torch.nn.Linear(2, 2)
    dist.add_gradients_(model)
    assert model.weight.grad is None
    dist.leave()
