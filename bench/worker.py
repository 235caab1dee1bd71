"""One measurement is one process: `call` starts it, `answer` is its other end.

    python -m bench.rollout theirs short FOLDER attention=eager

runs `theirs("short", FOLDER, attention="eager")` of `bench/rollout.py` and prints what it returns as one line of JSON.
Sides of one comparison meet only in FOLDER: the first to run leaves there what the others are compared with.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1repro.__main__ import SPINS

TOP = Path(__file__).resolve().parents[1]
MARK = "bench-answer "
THREADS = {"GOMP_SPINCOUNT": SPINS}
"""As in the Makefile, for all sides; the tries have a line with libgomp's own."""


def call(module: str, side: str, case: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """What ``side`` of a comparison answers, run in a process of its own; a setting ``env.NAME`` is put in its
    environment.

    Raises:
        RuntimeError: the process failed; its last lines are told.
    """
    environment = {k.removeprefix("env."): str(v) for k, v in settings.items() if k.startswith("env.")}
    words = [f"{k}={json.dumps(v)}" for k, v in settings.items() if not k.startswith("env.")]
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", side, case, str(folder), *words],
        cwd=TOP,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | THREADS | environment,
        capture_output=True,
        text=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"bench.{module} {side} {case} {settings} ended with {done.returncode}:\n{last}")
    return json.loads(answers[-1].removeprefix(MARK))


def answer(*sides: Callable[..., dict[str, Any]]) -> None:
    """Run the side that the command line names, and print what it returns."""
    side, case, folder, *words = sys.argv[1:]
    pairs = (word.partition("=") for word in words)
    settings = {key: json.loads(value) for key, _, value in pairs}
    result = {s.__name__: s for s in sides}[side](case, Path(folder), **settings)
    print(MARK + json.dumps(result), flush=True)
