"""What TensorBoard reads of a run is what metrics.jsonl says, also after a kill in the middle of a line; wandb and
trackio are told it too."""

import json
import sys

import models
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from r1repro import trackers
from r1repro.run import Run
from r1repro.stages import rl


def seen(folder):
    """(step, value) of each scalar, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 5)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def said(run):
    found = {}
    for row in run.metrics():
        for key, value in row.items():
            if key != "step":
                found.setdefault(key, []).append((row["step"], round(value, 5)))
    return found


def test_every_metric_of_every_step_is_there(tmp_path, tiny_base):
    folder = rl.train(models.small_rl(), tmp_path / "run", tiny_base, models.SMALL_MACHINE)
    found, wanted = seen(folder), said(Run(folder, {}))
    assert found.keys() == wanted.keys() and "reward/mean" in found
    for key, points in wanted.items():
        assert [step for step, _ in found[key]] == [step for step, _ in points]
        assert all(abs(a - b) <= 1e-4 * max(1, abs(b)) for (_, a), (_, b) in zip(found[key], points, strict=True)), key


def test_what_is_done_again_stands_once_and_a_torn_end_is_mended(tmp_path):
    run = Run.open(tmp_path, stage="rl", config=models.small_rl(), inputs={})
    for step in (1, 2, 3):
        run.log(step, {"reward/mean": step / 2})
    file = tmp_path / trackers.FILE
    file.write_bytes(file.read_bytes()[:-5])
    run.rewind(1)
    run.log(2, {"reward/mean": 7.0})
    assert seen(tmp_path) == {"reward/mean": [(1, 0.5), (2, 7.0)]}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["manifest.json", "metrics.jsonl", trackers.FILE])


# --- wandb and trackio, in whose places stand small modules that write down what they are told

FAKE = """
import json, os, pathlib
NAME, TOLD = __name__, pathlib.Path(__file__).with_suffix(".told")
def note(*words):
    with TOLD.open("a") as out:
        out.write(json.dumps(words) + "\\n")
def init(**settings):
    note("init", settings)
    return __import__(NAME)
def log(values, step):
    if os.environ.get("BREAK") == NAME:
        raise OSError("no room\\nat all")
    note("log", step, values)
def finish():
    note("finish")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Both are installed; returns what each was told."""
    for name in trackers.OTHERS:
        (tmp_path / f"{name}.py").write_text(FAKE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("R1REPRO_TRACKERS", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def told(name):
        file = tmp_path / f"{name}.told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return told


def a_short_run(tmp_path):
    run = Run.open(tmp_path / "seed-0" / "r1_zero", stage="rl", config=models.small_rl(), inputs={})
    for step in (1, 2):
        run.log(step, {"reward/mean": step / 2})
    run.finish()
    return run


def test_those_that_are_installed_are_told_each_step_and_keep_it_here(tmp_path, installed):
    run = a_short_run(tmp_path)
    for name in trackers.OTHERS:
        (_, settings), *steps, end = installed(name)
        assert settings["project"] == "r1repro" and settings["name"] == "seed-0/r1_zero"
        assert settings["config"]["num_rollouts"] == 3
        assert steps == [["log", 1, {"reward/mean": 0.5}], ["log", 2, {"reward/mean": 1.0}]] and end == ["finish"]
    assert installed("wandb")[0][1]["mode"] == "offline" and installed("wandb")[0][1]["dir"] == str(run.path.absolute())
    assert "space_id" not in installed("trackio")[0][1]


@pytest.mark.parametrize("wanted, told", [("", []), ("trackio", ["trackio"]), ("wandb, trackio", ["wandb", "trackio"])])
def test_a_person_chooses_which_are_told(tmp_path, installed, monkeypatch, wanted, told):
    monkeypatch.setenv("R1REPRO_TRACKERS", wanted)
    a_short_run(tmp_path)
    assert [name for name in trackers.OTHERS if installed(name)] == told


def test_one_that_fails_is_left_and_the_run_goes_on(tmp_path, installed, monkeypatch, capsys):
    monkeypatch.setenv("BREAK", "wandb")
    run = a_short_run(tmp_path)
    assert run.complete and len(run.metrics()) == 2 and len(installed("trackio")) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert lines == ["wandb is told nothing more of this run (no room at all)"]
