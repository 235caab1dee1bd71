"""`kill -9` at random moments, then the same command: the end is that of a run left alone.

The program is in `models.py`: every stage runs once undisturbed, and once killed four times and started again.
`make test-kill` (R1REPRO_KILLS=13) kills each of the four stages thirteen times.
"""

import json
import os
import subprocess
import sys

import models
import pytest

KILLS = os.environ.get("R1REPRO_KILLS", "4")
"""How often each stage is killed."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, models.__file__, "kill", str(folder), KILLS],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=100 * int(KILLS),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("stage", models.STAGES)
def test_a_killed_stage_ends_as_one_left_alone(results, stage):
    found = results[stage]
    assert found["kills"] >= (1 if KILLS == "4" else int(KILLS)), "the stage is too fast for so many kills"
    alone = found["left"].pop("left-alone")
    assert alone["exit"] == "complete" and found["left"]
    for left in found["left"].values():
        assert left == alone
