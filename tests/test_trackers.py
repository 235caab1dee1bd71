"""What TensorBoard reads of a run is what metrics.jsonl says, also after a kill in the middle of a line."""

import models
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
