"""How the cost of ours grows: outputs a group, questions, length and size; into `bench/results/cpu-scaling.json`.

One rollout with its four updates (`bench/rollout.py`, every output of a forced length), one thing changed at a time.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.run import RESULTS, commit, merge
from bench.sampling import SIZES, model_folder
from bench.worker import call
from r1repro.run import now

FIXED = {"questions_per_step": 2, "outputs_per_question": 8, "max_tokens": 64}
"""Where nothing else is said: 8 questions x 8 outputs x 64 tokens."""

AXES: dict[str, dict[Any, dict[str, Any]]] = {
    "outputs": {g: {"outputs_per_question": g} for g in (4, 8, 16, 32, 64)},
    "questions": {4 * q: {"questions_per_step": q} for q in (1, 2, 4, 8, 16)},
    "length": {
        t: {"questions_per_step": 1, "outputs_per_question": 4, "max_tokens": t} for t in (64, 256, 1024, 2048, 4096)
    },
    "size": {size: {"model": size} for size in SIZES},
}
"""What is changed -> its value -> settings; the lengths with 4 questions x 4 outputs."""


def measure(axis: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for value, changes in AXES[axis].items():
            settings = FIXED | changes
            if "model" in settings:
                settings["model"] = str(model_folder(settings["model"], Path(folder)))
            found = [call("rollout", "ours", "forced", Path(folder), **settings) for _ in range(count)]
            middle = sorted(found, key=lambda answer: answer["value"])[count // 2]
            row = {
                "axis": axis,
                "value": value,
                "seconds": statistics.median(answer["value"] for answer in found),
                "tokens": middle["tokens"],
                "parts": middle["parts"],
                "runs": [answer["value"] for answer in found],
                "settings": FIXED | changes,
            }
            merge(RESULTS / "cpu-scaling.json", [row | {"when": now(), "commit": commit()}], ("axis", "value"))
            print(f"{axis:10} {value!s:>6} {row['seconds']:8.2f} s {row['tokens']:8} tokens", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("axes", nargs="*", metavar="axis", help=f"of {', '.join(AXES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for axis in asked.axes or AXES:
        if axis not in AXES:
            parser.error(f"no axis {axis!r}: choose of {', '.join(AXES)}")
        measure(axis, asked.rounds)


if __name__ == "__main__":
    main()
