"""Distillation of a student from traces of a teacher (section 2.4): fine-tuned, evaluated, written as a plain model.

sft/        the run of `sft.train`, with the traces' tokens      evaluate/   its samples and summary
model/      the student for everybody: merged, in Hugging Face form, with a card
"""

from pathlib import Path

from r1repro import config, students
from r1repro.engine import dist, export, shards, vocabulary
from r1repro.records import Refusal
from r1repro.run import read_json
from r1repro.stages import child, evaluate, sft
from r1repro.stages import traces as rows
from r1repro.stages.r1_zero import base_folder

TRACES = "traces.json"
"""Names the traces in the folder of a distillation."""


def start(settings: config.Distill, folder: Path | str, traces: Path | str) -> Path:
    """Teach a student, or go on, or return at once when done; returns the folder of the plain model.

    Args:
        traces: file or folder of traces, see `sft.train`.

    Raises:
        Refusal: another student or other traces lie in ``folder``; no such model, no traces; the device is not there.
    """
    config.check_runnable(settings.tier)
    folder = Path(folder)
    child.check(settings.machine)
    _begin(folder, traces)
    if child.runs_here(settings.machine):
        run(settings, folder)
    else:
        child.run("distill", settings, folder)
    return folder / "model"


def tokenise(settings: config.Distill, folder: Path | str, traces: Path | str) -> Path:
    """The traces as token ids, where `start` will look for them; returns their folder.

    Any number of processes may do this at a time, on machines without a GPU too: each makes parts of 4,096 rows.

    Raises:
        Refusal: as `start`; the student has learnt from them already.
    """
    config.check_runnable(settings.tier)
    folder = Path(folder)
    done = folder / "sft" / "manifest.json"
    if done.exists() and read_json(done).get("exit") == "complete":
        raise Refusal(f"{folder / 'sft'} is trained already, and keeps no tokens: choose another run_dir")
    files = rows.shards(_begin(folder, traces))
    words = vocabulary.of(base_folder(settings.base), settings.policy.template)
    place = folder / "sft" / "tokens"
    sft.tokenised(files, place, rows.digest(files), settings.sft.max_tokens, words, anew=False)
    return place


def _begin(folder: Path, traces: Path | str) -> Path:
    """Note in the folder which traces it is of; returns where they lie."""
    traces = Path(traces).expanduser()
    if not traces.exists():
        raise Refusal(f"no traces at {traces}: give a file of JSON lines or Parquet, or a folder of such files")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"traces": str(traces.resolve())}
    if (folder / TRACES).exists() and (before := read_json(folder / TRACES)) != wanted:
        raise Refusal(f"{folder} is of the traces {before.get('traces')}, not {traces}: choose another run_dir")
    shards.put_json(folder / TRACES, wanted)
    return traces


def run(settings: config.Distill, folder: Path) -> Path:
    """What `start` does, in this process."""
    target, machine = folder / "model", settings.machine
    known = students.students().get(settings.base)
    with child.at_work(machine):
        taught = sft.train(
            settings.sft, folder / "sft", base_folder(settings.base), read_json(folder / TRACES)["traces"], machine
        )
        evaluated = evaluate.run(settings.evaluate, folder / "evaluate", taught, machine)

        def plain() -> Path:
            return target if target.exists() else export.export(
                taught, target, base=known.base if known else None, evaluation=evaluated,
                max_positions=(known.max_positions or 0) if known else 0,
            )  # fmt: skip

        return dist.led(plain)
