"""The race of the README: who is first at a checkpoint that is surely good, and who may not take part."""

import json
import runpy
from pathlib import Path

import pytest

from r1repro import leaderboard, ledger
from r1repro.records import Refusal

write_world = runpy.run_path(str(Path(__file__).with_name("test_ledger.py")))["write_world"]


def world(tmp_path, *, steps=(0, 10, 20), per_level=50, right=None, times=True, seeds=(0, 1, 2)):
    """At share 0 none is right, half-way 14 of 16 (0.875), at the end all."""
    right = right or (lambda share, *_: round(28 * share) if share < 1 else 16)
    out = write_world(tmp_path / "out", steps=steps, per_level=per_level, right=right, seeds=seeds)
    for seed in seeds:
        metrics = out / "smoke" / f"seed-{seed}" / "r1_zero" / "metrics.jsonl"
        rows = [{"step": s, **({"time/elapsed_s": 60.0 * s + seed} if times else {})} for s in range(1, steps[-1] + 1)]
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def test_the_first_checkpoint_that_is_surely_good_counts(tmp_path):
    row = leaderboard.entry("ours", ledger.read("smoke", world(tmp_path)))
    assert [seed["step"] for seed in row["seeds"]] == [10, 10, 10]
    assert [seed["minutes"] for seed in row["seeds"]] == [10.0, 10.02, 10.03]
    assert row["minutes"] == 10.02 and row["checkpoints"] == [0, 10, 20]


def test_a_mean_above_the_goal_whose_interval_is_not_does_not_count(tmp_path):
    """Half of the questions 16 of 16, half 12 of 16: 0.875 on average, but 200 questions do not make it sure."""
    out = world(tmp_path, right=lambda share, level, seed: 0 if share == 0 else 16 if share == 1 or level < 4 else 7)
    row = leaderboard.entry("ours", ledger.read("smoke", out))
    assert [seed["step"] for seed in row["seeds"]] == [20, 20, 20]


@pytest.mark.parametrize(
    "changes, says",
    [
        (dict(seeds=(0, 1)), "2 seeds"),
        (dict(per_level=40), "160 questions"),
        (dict(right=lambda share, *_: round(13 * share)), "seed 0 has no checkpoint.*train longer"),
        (dict(times=False), "no time of step 10"),
    ],
)
def test_who_may_not_take_part(tmp_path, changes, says):
    with pytest.raises(Refusal, match=says):
        leaderboard.entry("ours", ledger.read("smoke", world(tmp_path, **changes)))


def test_joining_keeps_the_others_and_sorts(tmp_path):
    file, readme = tmp_path / "results" / "leaderboard.json", tmp_path / "README.md"
    readme.write_text("before\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nafter\n")
    file.parent.mkdir()
    file.write_text(json.dumps([{**leaderboard.entry("x", ledger.read("smoke", world(tmp_path))), "minutes": 2.0}]))
    for _ in range(2):  # a second entry of the same name takes the place of the first
        rows = leaderboard.join("smoke", tmp_path / "out", "ours", file, readme)
        assert [row["name"] for row in rows] == ["x", "ours"] == [row["name"] for row in json.loads(file.read_text())]
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("<!-- /leaderboard -->\nafter\n") and "old" not in text
    assert text.index("| 2.00 |") < text.index("| 10.02 |")
    readme.write_text("no marks")
    with pytest.raises(Refusal, match="no place"):
        leaderboard.join("smoke", tmp_path / "out", "ours", file, readme)
