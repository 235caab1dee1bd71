"""Ranks add up: two and four gloo processes end with the weights of one, whole or cut up, and take over from each
other.  `ranks.py` does the work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import models
import pytest
import ranks
import torch
from safetensors.torch import load_file

from r1repro.config import Policy
from r1repro.engine import checkpoint, dist, export, fsdp, policy, scorer
from r1repro.records import Refusal
from r1repro.run import read_json

TIMEOUT_S = 300


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where `ranks.py` has left its work."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, ranks.__file__, str(folder)]
    result = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr[-3000:]
    return folder


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("work", ["grpo", "sft", "grpo-cut", "sft-cut"])
def test_ranks_end_with_the_weights_of_one_and_tell_the_same(done, work, count):
    """Ten steps on recorded rollouts in float64; the ranks have unlike shares, cut into unlike micro-batches."""
    alone, together = (
        load_file(done / f"{name}.safetensors") for name in (f"{work[:4].strip('-')}-1", f"{work}-{count}")
    )
    assert set(alone) == set(together)
    for name, weight in alone.items():
        torch.testing.assert_close(
            together[name], weight, atol=1e-8, rtol=0, msg=lambda said, name=name: f"{name}: {said}"
        )


def test_a_head_of_its_own_is_cut_up_too(done):
    alone, cut = (load_file(done / f"untied{name}.safetensors") for name in ("-1", "-cut-2"))
    assert "lm_head.weight" in alone
    for name, weight in alone.items():
        torch.testing.assert_close(cut[name], weight, atol=1e-8, rtol=0)


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_sample_the_tokens_of_one(done, count):
    alone, together = (load_file(done / f"sampled-{n}.safetensors") for n in (1, count))
    assert torch.equal(together["length"], alone["length"]) and len(set(alone["length"].tolist())) > 4
    assert torch.equal(together["tokens"], alone["tokens"])
    torch.testing.assert_close(together["logp"], alone["logp"], atol=1e-12, rtol=0)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", ["whole", "cut"])
def test_a_run_begun_on_two_ranks_goes_on_on_any_number(done, kind, count):
    """The last rank alone is told to stop, and all of them do, after the same rollout."""
    begun, ended, left_alone = done / f"{kind}-2", done / f"{kind}-2-{count}", done / "live-1"
    steps = checkpoint.steps_in(begun)
    assert 0 < steps[-1] < 8 and [line["step"] for line in lines(begun / "metrics.jsonl")] == [*range(1, steps[-1] + 1)]
    assert json.loads((ended / "manifest.json").read_text())["exit"] == "complete"
    assert lines(ended / "samples.jsonl") == lines(left_alone / "samples.jsonl")
    assert [line["step"] for line in lines(ended / "metrics.jsonl")] == [*range(1, 9)]
    last = checkpoint.folder_of(ended, 8)
    assert (last / "shards").exists() == (kind == "cut" and count > 1)
    alone = dict(policy.load(checkpoint.folder_of(left_alone, 8)).named_parameters())
    for name, weight in policy.load(last).named_parameters():
        torch.testing.assert_close(weight, alone[name], atol=1e-4, rtol=0)


def test_a_checkpoint_that_is_cut_up_is_verified_as_a_whole(done):
    """Any number of ranks reads it, and a damaged row is found."""
    folder = checkpoint.folder_of(done / "cut-2", 4)
    assert {p.name for p in (folder / "shards").iterdir()} == {"model", "optimizer", "reference"}
    (row, *_) = sorted((folder / "shards" / "optimizer").iterdir())
    whole = row.read_bytes()
    try:
        row.write_bytes(whole[:-4] + b"\1\2\3\4")
        with pytest.raises(Refusal, match="damaged .shards/optimizer"):
            checkpoint.verify(folder)
    finally:
        row.write_bytes(whole)


def test_what_is_cut_up_is_exported_as_one_plain_model(done, tmp_path):
    folder = checkpoint.folder_of(done / "cut-2", 4)
    plain = load_file(export.export(folder, tmp_path / "plain", dtype="float32") / "model.safetensors")
    weights = dict(policy.load(folder).named_parameters())
    assert set(plain) == set(weights) and not (tmp_path / "plain" / "shards").exists()
    assert all(torch.equal(plain[name], weight) for name, weight in weights.items())


def test_fine_tuning_as_a_stage_on_two_ranks(done):
    one, two = (done / f"sft-live-{n}" for n in (1, 2))
    alone, together = (load_file(run / "checkpoints" / "step-000003" / "model.safetensors") for run in (one, two))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, atol=1e-5, rtol=0)
    keys = [{k: v for k, v in line.items() if k == "tokens/trained"} for line in lines(two / "metrics.jsonl")]
    assert keys == [{"tokens/trained": line["tokens/trained"]} for line in lines(one / "metrics.jsonl")]
    assert not (two / "tokens").exists()


@pytest.mark.parametrize("name", ["whole-2", "cut-2", "cut-4"])
def test_a_reward_model_of_ranks_is_that_of_one_and_pays_alike(done, name):
    """Sampled, trained and asked by all ranks; on four of them most have rows of no head."""
    alone, together = (done / f"judge-{n}" for n in ("whole-1", name))
    assert lines(together / "samples.jsonl") == lines(alone / "samples.jsonl")
    (last,) = checkpoint.steps_in(alone)
    model, other = (scorer.load(checkpoint.folder_of(run, last)) for run in (alone, together))
    assert (checkpoint.folder_of(together, last) / "shards").exists() == ("cut" in name)
    weights = dict(model.named_parameters())
    for weight_name, weight in other.named_parameters():
        torch.testing.assert_close(weight, weights[weight_name], atol=1e-4, rtol=0)
    texts = [row["text"] for row in lines(alone / "samples.jsonl")]
    torch.testing.assert_close(scorer.scores(other, texts), scorer.scores(model, texts), atol=1e-4, rtol=0)
    for file in ("scale.json", "agreement.json"):
        assert read_json(together / file) == pytest.approx(read_json(alone / file), abs=1e-5)
    kept = [(done / f"kept-{n}" / "examples.jsonl").read_text() for n in ("whole-1", name)]
    assert kept[0] == kept[1] and read_json(done / "kept-whole-1" / "summary.json")["dropped"]["wrong"] > 0
    policies = [load_file(done / f"exported-{n}" / "model.safetensors") for n in ("whole-1", name)]
    for weight_name, weight in policies[0].items():
        torch.testing.assert_close(policies[1][weight_name], weight, atol=1e-3, rtol=0)
    asked = [[{k: v for k, v in row.items() if k != "reward"} for row in lines(done / f"open-{n}" / "samples.jsonl")]
             for n in ("whole-1", name)]  # fmt: skip
    assert asked[0] == asked[1]
    assert len(kept[0].splitlines()) > 3 and not (done / f"kept-{name}" / "shards").exists()
    for run, keys in (("judge", ("policy/loss", "policy/grad_norm", "reward/agreement")), ("open", ("reward/mean",))):
        told = [[[line.get(key) for key in keys] for line in lines(done / f"{run}-{n}" / "metrics.jsonl")]
                for n in ("whole-1", name)]  # fmt: skip
        assert told[1] == [pytest.approx(values, abs=1e-4) for values in told[0]]


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_share_an_evaluation(done, count):
    """Each takes questions as it has time, in teams of two where four are; all of them wait for the whole."""
    alone, together = (done / f"evaluated-{n}" for n in (1, count))
    assert (together / "samples.jsonl").read_bytes() == (alone / "samples.jsonl").read_bytes()
    assert json.loads((together / "summary.json").read_text()) == json.loads((alone / "summary.json").read_text())
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_what_ranks_tell_each_other(done):
    """A refusal of the first is every rank's; things of all come in the order of ranks, the narrower padded, of
    a team's ranks those of the first."""
    told = [json.loads((done / f"told-{rank}.json").read_text()) for rank in range(2)]
    few = "questions is 1, fewer than the 2 ranks: start fewer, or raise it"
    stacked = [[False, False, False], [True, True, True], [True, True, True]]
    begun = "/begun was begun by workers that take chunks as they come: go on with it with machine.shard=false"
    assert told[0] == told[1] == ["no", few, [0, 1, 1], 1.0, 0.0, stacked, [[0], [0]], begun]


@pytest.mark.parametrize("shape", [dict(weights="lora"), dict(dtype="float16")])
def test_what_cannot_be_cut_up_is_refused(tmp_path, shape):
    with pytest.raises(Refusal, match="machine.shard cuts up weights that are trained in full"):
        policy.load(tmp_path, held=Policy(**shape), shard=True)


def test_cutting_up_without_ranks_is_refused():
    with pytest.raises(Refusal, match="there are none: set machine.launcher, or shard=false"):
        fsdp.cut_(models.build())


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 14])
def test_shares_are_all_of_it_once_and_as_even_as_can_be(monkeypatch, num_ranks, count):
    monkeypatch.setattr(dist, "num_ranks", lambda: num_ranks)
    shares = []
    for rank in range(num_ranks):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        shares.append(list(range(count))[dist.share(count)])
    assert sum(shares, []) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_of_a_team_have_one_share(monkeypatch):
    monkeypatch.setattr(dist, "num_ranks", lambda: 4)
    shares = []
    for rank in range(4):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        shares.append(list(range(5))[dist.share(5, teams=2)])
    assert shares == [[0, 1], [0, 1], [2, 3, 4], [2, 3, 4]]
    with pytest.raises(Refusal, match="machine.tensor_parallel 3 does not divide the 4 ranks"):
        dist.check_teams(3)


def test_with_one_rank_there_is_no_group():
    dist.join()
    assert (dist.rank(), dist.num_ranks()) == (0, 1) and not torch.distributed.is_initialized()
    model = torch.nn.Linear(2, 2)
    dist.add_gradients_(model)
    assert model.weight.grad is None
    dist.leave()
