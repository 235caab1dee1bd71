"""`kill -9` at random moments, then the same command: the end is that of a run left alone.

The program is in `models.py`: every stage runs once undisturbed, and once killed four times and started again.
"""

import json
import os
import subprocess
import sys

import models
import pytest


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, models.__file__, "kill", str(folder)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("stage", models.STAGES)
def test_a_killed_stage_ends_as_one_left_alone(results, stage):
    found = results[stage]
    assert found["kills"] >= 1, "no kill came in time: the stage is too fast for this test"
    assert found["killed"]["exit"] == found["left-alone"]["exit"] == "complete"
    assert found["killed"]["hash"] == found["left-alone"]["hash"]
    assert found["killed"]["metrics"] == found["left-alone"]["metrics"]
