"""What each rule of grading costs: wrong verdicts on real cases, and what hostile answers get past it.

    python -m bench.graders

reads the mathematics of `R1REPRO_DATA`/grading and 1,120 hostile answers (`tests/hostile_graders.py`), and writes
`results/graders.json`: for each rule how many right answers it rejects, how many wrong ones it accepts, and the ids
where ours is not as expected.  No text of a case is kept.
"""

import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from bench.run import RESULTS, commit
from r1repro.records import Refusal
from r1repro.rewards import accuracy, kinds
from r1repro.rewards.worker import Pool
from r1repro.run import now, write_json
from tests import hostile_graders

FILES = ("answer_pairs", "gsm8k_model_outputs", "math_model_outputs")
KINDS = ("answer_pair", "response", "think_response")
EACH = 20
"""Hostile answers of each family."""

_plain = Pool("bench.graders:plain", cpu_s=5.0, modules=["math_verify"])


def plain(payload: dict) -> dict:
    """math-verify as it comes: parse both texts, compare; its own timeouts off, as they want the main thread."""
    import math_verify

    gold, answer = (math_verify.parse(payload[key], parsing_timeout=None) for key in ("gold", "answer"))
    right = math_verify.verify(gold, answer, timeout_seconds=None)
    return {"verdict": "right" if right else "wrong", "reason": "math-verify"}


def last_number(gold: str, text: str) -> bool:
    found = re.findall(r"-?[0-9][0-9,]*(?:\.[0-9]+)?", text)
    return bool(found) and found[-1].replace(",", "") == gold.strip("$ ").replace(",", "")


RULES: dict[str, Callable[[str, str, str], bool]] = {
    "ours, as stated": lambda kind, gold, text: kinds.grade(kind, gold, text)["verdict"] == "right",
    "ours, box or block only": lambda kind, gold, text: accuracy.grade(gold, text)["verdict"] == "right",
    "math-verify as it comes": lambda kind, gold, text: (
        _plain.call({"gold": gold, "answer": text})["verdict"] == "right"
    ),
    "the last number": lambda kind, gold, text: last_number(gold, text),
    "the same text": lambda kind, gold, text: gold.strip() == text.strip(),
}


def main() -> None:
    folder = Path(os.environ.get("R1REPRO_DATA", "data")) / "grading"
    if not folder.is_dir():
        raise Refusal(f"no graded outputs in {folder}: set R1REPRO_DATA to the folder that has grading/")
    cases = [json.loads(line) for name in FILES for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    cases = [case for case in cases if case["kind"] in KINDS]
    draw = random.Random(0)
    hostile = []
    for make in hostile_graders.WRONG.values():
        for _ in range(EACH):
            gold = draw.randint(3, 99_999)
            hostile.append((str(gold), make(draw, gold)))
    rows, apart = [], []
    for rule, right in RULES.items():
        told = [(c, right(c["kind"], c["gold"], c["response_or_prediction"])) for c in tqdm(cases, desc=rule)]
        for tier in ("core", "extended", "convention"):
            some = [(case["expected"], said) for case, said in told if case["tier"] == tier]
            rows.append(
                {
                    "rule": rule,
                    "cases": tier,
                    "right": sum(wanted for wanted, _ in some),
                    "rejected": sum(wanted and not said for wanted, said in some),
                    "wrong": sum(not wanted for wanted, _ in some),
                    "accepted": sum(said and not wanted for wanted, said in some),
                }
            )
        passed = sum(right("response", gold, text) for gold, text in tqdm(hostile, desc=f"{rule}, hostile"))
        rows.append(
            {"rule": rule, "cases": "hostile", "right": 0, "rejected": 0, "wrong": len(hostile), "accepted": passed}
        )
        if rule == "ours, as stated":
            apart = [
                {"id": case["id"], "tier": case["tier"], "expected": case["expected"]}
                | kinds.grade(case["kind"], case["gold"], case["response_or_prediction"])
                for case, said in told
                if said != case["expected"]
            ]
    write_json(RESULTS / "graders.json", {"when": now(), "commit": commit(), "rules": rows, "apart": apart})
    for row in rows:
        sys.stdout.write(
            f"{row['rule']:26} {row['cases']:11} rejects {row['rejected']:4} of {row['right']:4} right, "
            f"accepts {row['accepted']:4} of {row['wrong']:5} wrong\n"
        )


if __name__ == "__main__":
    main()
