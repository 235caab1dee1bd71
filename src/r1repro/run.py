"""The run folder: what was asked, what happened, and whether it is complete.

    manifest.json      config, inputs, source fingerprint, commit, versions, hardware, seed, times, tokens, exit
    metrics.jsonl      one line a step, keys of `GLOSSARY`; the same for TensorBoard in a file beside it
    samples.jsonl      what a person may want to read

A run is *complete* for its config, the fingerprint of the package's source and the hashes of its inputs: asked for
again, it returns at once.  With anything else in the folder the caller is refused, and nothing is overwritten. Files
are written under a temporary name and renamed; a line that a killed process left half written is dropped on resume.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from r1repro import trackers
from r1repro.records import Refusal

GLOSSARY = {
    "rollout/index": "number of the rollout that the step belongs to",
    "reward/mean": "mean over a rollout's outputs of the sum of the rewards",
    "reward/accuracy": "mean accuracy reward of a rollout's outputs, 0 to 1",
    "reward/format": "mean format reward of a rollout's outputs, 0 to 1",
    "reward/language_consistency": "mean language-consistency reward of a rollout's outputs, 0 to 1",
    "reward/preference": "mean preference reward of the outputs to open questions, standard deviations of the model",
    "reward/process": "mean process reward of a rollout's outputs, 0 to 1",
    "reward/agreement": "share of a step's pairs or outputs that the reward model judges as labelled",
    "family/chain_sum": "fraction of outputs to chain sums that were right",
    "family/search": "fraction of outputs to searches that were right",
    "family/logic": "fraction of outputs to questions of logic that were right",
    "family/programs": "fraction of programs that passed their tests",
    "family/": "fraction of outputs to questions of another source that were right (its name after the stroke)",
    "language/consistency": "mean share of words in the question's language, in the thinking",
    "reward/accuracy_level": "mean accuracy reward on the questions of one level (suffix _1 to _5)",
    "verdict/right": "fraction of outputs whose final answer was judged right",
    "verdict/wrong": "fraction judged wrong",
    "verdict/unparsed": "fraction without a final answer that the grader could read",
    "verdict/timed_out": "fraction on which the grader ran out of time; masked, not scored 0",
    "verdict/error": "fraction on which the grader failed; masked, not scored 0",
    "length/mean": "tokens an output, end token included",
    "length/right": "tokens an output, over right outputs",
    "length/wrong": "tokens an output, over wrong outputs",
    "length/truncated": "fraction of outputs cut at the cap",
    "group/no_variance": "fraction of groups whose rewards all agree: they teach nothing",
    "language/mixed": "fraction of outputs whose thinking has under 95 % words of the question's language",
    "reflection/per_answer": "reflection words an output, in the question's language",
    "reflection/per_1000_tokens": "reflection words a thousand sampled tokens",
    "depth/answer_at_once": "fraction of outputs to chain sums that answer at once",
    "depth/line_a_term": "fraction of outputs to chain sums that work a line a term",
    "depth/digit_by_digit": "fraction of outputs to chain sums that work digit by digit",
    "depth/checked": "fraction of outputs to chain sums that check themselves",
    "policy/loss": "minus the GRPO objective of the step (Eq. 1), or the cross-entropy in pre-training, nats a token",
    "policy/grad_norm": "norm of the gradient before clipping",
    "policy/clip_share": "fraction of tokens whose surrogate was cut by the clip",
    "policy/ratio_max": "largest ratio of new to old probability of a token",
    "policy/kl_reference_nats": "mean k3 estimate of KL(policy || reference), nats a token",
    "policy/entropy_nats": "mean of -log p over sampled tokens, nats",
    "policy/reference_refreshed": "1 on the step after which the reference became the policy",
    "value/loss": "half the squared distance of the values from what came, a mean as the policy's loss is one (PPO)",
    "value/grad_norm": "norm of the value model's gradient before clipping (PPO)",
    "value/explained": "share of the variance of what came that the values before the rollout's updates explain (PPO)",
    "sampler/divergence_nats": "mean k3 between the sampler's and the policy's log-probabilities, nats a token",
    "time/rollout_s": "seconds spent on sampling the rollout",
    "time/reward_s": "seconds spent on scoring it",
    "time/update_s": "seconds spent on the step",
    "time/value_s": "seconds spent on the value model's part of it (PPO)",
    "time/elapsed_s": "seconds from the start of the process to the end of the step, over all sessions of the run",
    "tokens/sampled": "tokens sampled for the rollout",
    "tokens/trained": "output tokens in the step",
    "learning_rate": "step size of the optimiser",
}
"""Key of metrics.jsonl -> what it says."""


READ_ONLY = "R1REPRO_READ_ONLY"
"""Environment variable.  Where it is set no run is made or gone on with, and finished ones are read, whatever source
made them: so notebooks of a later version can be executed on them."""


def only_reading() -> bool:
    return os.environ.get(READ_ONLY, "0") not in ("", "0")


class Run:
    """One run folder.  Open it with `Run.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest, self._opened = path, manifest, time.monotonic()
        self._watchers: trackers.Watchers | None = None

    @classmethod
    def open(cls, path: Path | str, *, stage: str, config: Any, inputs: dict[str, str], seed: int = 0) -> "Run":
        """Create the folder, or take up what lies there.

        Args:
            config: a dataclass; every field of it is part of the run's identity.
            inputs: name -> SHA-256 of what the run reads (base model, earlier stage).

        Raises:
            Refusal: the folder holds a run of another config, source or input; or it cannot be written.  Where
                `READ_ONLY` is set: it holds no finished run.
        """
        path = Path(path)
        wanted = {
            "stage": stage,
            "seed": seed,
            "config": json.loads(json.dumps(dataclasses.asdict(config))),
            "inputs": inputs,
            "source": source_fingerprint(),
        }
        file = path / "manifest.json"
        if file.exists():
            manifest = read_json(file)
            if not isinstance(manifest, dict):
                raise Refusal(f"{file} is damaged (no manifest in it): move its folder away and run the stage again")
            for key, value in wanted.items():
                if manifest.get(key) != value and not (key == "source" and only_reading()):
                    raise Refusal(_difference(path, key, manifest.get(key), value))
            run = cls(path, manifest)
            if only_reading() and not run.complete:
                raise Refusal(f"{path} is not complete and {READ_ONLY} is set, so it is not gone on with: unset that")
            if not run.complete:
                drop_torn_line(run.path / "metrics.jsonl")
                drop_torn_line(run.path / "samples.jsonl")
            return run
        if only_reading():
            raise Refusal(f"{path} holds no run and {READ_ONLY} is set, so none is made: unset that")
        writable(path)
        startup_s = round(time.time() - psutil.Process().create_time(), 3)
        times = {"started": now(), "ended": None, "startup_s": startup_s, "wall_s": 0.0, "exit": None}
        run = cls(path, wanted | environment() | times)
        write_json(file, run.manifest)
        return run

    @property
    def complete(self) -> bool:
        return self.manifest.get("exit") == "complete"

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line to metrics.jsonl; every key has a line in `GLOSSARY`."""
        for key in values:
            told = key in GLOSSARY or key.rsplit("_", 1)[0] in GLOSSARY or key.startswith("family/")
            assert told, f"{key} is not in the glossary"
        append_lines(self.path / "metrics.jsonl", [{"step": step, **values}])
        with speaking_of(self.path / trackers.FILE):
            trackers.append(self.path, step, values)
        self._watchers = self._watchers or trackers.Watchers(self.path, self.manifest.get("config", {}))
        self._watchers.log(step, values)

    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.path / "metrics.jsonl")

    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step``: the work since the last checkpoint is done again."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            file = self.path / name
            if file.exists():
                kept = [row for row in read_lines(file) if row.get("step", 0) <= step]
                write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
                if name == "metrics.jsonl":
                    with speaking_of(self.path / trackers.FILE):
                        trackers.rewrite(self.path, kept)

    def add_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        append_lines(self.path / "samples.jsonl", rows)

    def samples(self) -> list[dict[str, Any]]:
        return read_lines(self.path / "samples.jsonl")

    def seconds(self) -> float:
        """Seconds that the run has taken so far, over all its sessions, and from the start of the process that made
        the folder to its making (imports, and in a notebook the cells before)."""
        startup_s = self.manifest.get("startup_s", 0.0)
        return round(startup_s + self.manifest["wall_s"] + time.monotonic() - self._opened, 3)

    def keep_time(self) -> None:
        """Add the seconds since the last call (or since the run was opened) to the manifest's wall_s."""
        spent, self._opened = time.monotonic() - self._opened, time.monotonic()
        self.manifest["wall_s"] = round(self.manifest["wall_s"] + spent, 3)
        write_json(self.path / "manifest.json", self.manifest)

    def finish(self, **extra: Any) -> None:
        """Mark the run complete."""
        if self._watchers:
            self._watchers.finish()
        self.manifest |= {"ended": now(), "exit": "complete", **extra}
        self.keep_time()


class Follower(Run):
    """A run as ranks other than the first one have it: it reads what the first one writes, and writes nothing."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def add_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        pass

    def keep_time(self) -> None:
        pass

    def finish(self, **extra: Any) -> None:
        self.manifest |= {"exit": "complete", **extra}


class Stopped(KeyboardInterrupt):
    """A run stopped where it was asked to, by signal ``number``; its checkpoint is written."""

    def __init__(self, number: int, after: str):
        super().__init__(f"stopped by {signal.Signals(number).name} after {after}; run it again to go on from there")
        self.number = number


class Interrupts:
    """Within ``with``: SIGINT and SIGTERM wait for a place where nothing is lost; a second signal stops at once.

    In another thread than the main one signals are not ours to take, and nothing is changed.

    Args:
        after: what is finished first, for the line that answers the signal.
    """

    def __init__(self, after: str):
        self.after, self._came, self._before = after, 0, {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def came(self) -> int:
        """Number of the signal that has come; 0 where none has."""
        return self._came

    @property
    def asked(self) -> bool:
        return self._came > 0

    def stop(self) -> None:
        """Raise `Stopped` if a signal has come; to be called where a checkpoint has just been written."""
        if self._came:
            raise Stopped(self._came, self.after)

    def _note(self, number: int, _frame) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = number
        sys.stderr.write(f"\n{signal.Signals(number).name}: stopping after {self.after}; once more to stop at once\n")


def _difference(path: Path, key: str, old: Any, new: Any) -> str:
    what = f"{key} {str(old)[:16]} there, {str(new)[:16]} now"
    if isinstance(old, dict) and isinstance(new, dict):
        changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
        what = f"{key} differs in " + ", ".join(f"{k} ({old.get(k)} there, {new.get(k)} now)" for k in changed[:3])
    way_out = "choose another run_dir, or move that folder away (`make clean` removes all runs)"
    if key == "source":
        way_out += f"; with {READ_ONLY}=1 finished runs are read all the same, and none is made"
    return f"run folder {path} holds another run ({what}): {way_out}"


def default_folder(tier: str, seed: int) -> Path:
    """Where a seed's runs go: ``<out>/<tier>/seed-<seed>``."""
    return out_folder() / tier / f"seed-{seed}"


def out_folder() -> Path:
    """The folder of all runs: the variable R1REPRO_OUT, or ``out`` of the checkout, also for a notebook that runs in
    ``notebooks/``; for an installed package ``out`` of the current folder."""
    if "R1REPRO_OUT" in os.environ:
        return Path(os.environ["R1REPRO_OUT"])
    checkout = Path(__file__).parents[2]
    return Path(os.path.relpath(checkout / "out") if (checkout / "pyproject.toml").exists() else "out")


def append_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    with speaking_of(file), open(file, "a", encoding="utf-8") as f:
        f.write("".join(_line(row) for row in rows))


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """All records of a file at once.  Where runs are only read, a file that is there stays as it is."""
    if not (only_reading() and file.exists()):
        write_text(file, "".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False)
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as a model or a file may have it
        line = json.dumps(row)
    return line + "\n"


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file, one a line; none where there is no file.  A damaged one is a Refusal that names it."""
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # splitlines would also cut at U+2028 inside a text
        rows = [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise _damaged(file, error) from error
    if not all(isinstance(row, dict) for row in rows):
        raise _damaged(file, "a line that is no record")
    return rows


def _damaged(file: Path, why: object) -> Refusal:
    return Refusal(f"{file} is damaged ({' '.join(str(why).split())}): move its folder away and run the stage again")


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what records of another make raise, where they are read, into one line that names their file."""
    try:
        yield
    except Refusal:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(file, f"or of another make, {type(error).__name__}: {error}") from error


def drop_torn_line(file: Path) -> None:
    """Remove the last line if the process died while writing it."""
    if file.exists():
        data = file.read_bytes()
        if data and not data.endswith(b"\n"):
            write_bytes(file, data[: data.rfind(b"\n") + 1])


def read_json(file: Path) -> Any:
    """Contents of a JSON file; a damaged one is a Refusal that names it."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(file, error) from error


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def write_text(file: Path, text: str) -> None:
    write_bytes(file, text.encode())


def write_bytes(file: Path, data: bytes) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the new one, never half of one."""
    temporary = file.with_name(file.name + ".tmp")
    with speaking_of(file):
        temporary.write_bytes(data)
        os.replace(temporary, file)


def between_marks(file: Path, mark: str, content: str) -> str:
    """The text of a file, with ``content`` in the place of what stands between the lines ``<!-- mark -->`` and
    ``<!-- /mark -->``.  Refusal where they do not stand there once, in that order."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise Refusal(f"{file} has no place for the {mark}: put the lines {first} and {last} into it once")
    return f"{text[: text.index(first)]}{first}\n\n{content.strip()}\n\n{text[text.index(last) :]}"


class speaking_of:
    """Turn a failure to write ``file`` (disk full, read-only) into one line that names it."""

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
            raise Refusal(
                f"cannot write {self.file}: {reason}; free some space or choose another folder, "
                "then give the same command again: it goes on from the last checkpoint"
            ) from error


def writable(folder: Path) -> None:
    with speaking_of(folder):
        folder.mkdir(parents=True, exist_ok=True)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def sha256_file(file: Path) -> str:
    with open(file, "rb") as data:  # a model's may be larger than the memory
        return hashlib.file_digest(data, "sha256").hexdigest()


def sha256_folder(folder: Path, pattern: str = "*") -> str:
    """SHA-256 over the names and bytes of the files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(folder).rglob(pattern) if p.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


PRESENTATION = {
    "plots.py",
    "show.py",
    "report.py",
    "ledger.py",
    "ledger_models.py",
    "measures.py",
    "measures_arms.py",
    "leaderboard.py",
    "models.py",
    "chat.py",
    "compare.py",
    "grade.py",
    "__main__.py",
    "doctor.py",
    "notebooks.py",
}
"""Files of the package that no number of a run depends on."""


@functools.cache
def source_fingerprint() -> str:
    """SHA-256 of the package's source that can change a run's numbers."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if name not in PRESENTATION and not name.startswith(("_shipped/", "site/")):
            digest.update(f"{name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


@functools.cache
def environment() -> dict[str, Any]:
    """Commit, versions, hardware: what the manifest says of the machine."""
    import torch

    names = ("torch", "transformers", "tokenizers", "numpy", "reasoning-gym", "math-verify")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in names}},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu_count": os.cpu_count(),
            "simd": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
    }


def _git(*words: str) -> str | None:
    """What git says in the source's checkout; None outside one."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
