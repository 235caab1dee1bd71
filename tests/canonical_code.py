"""HumanEval and MBPP (from R1REPRO_DATA): every canonical solution passes, and solutions made wrong do not.

Part of `make test-sandbox`.  A solution is made wrong from outside, by a wrapper around the function under test; some
tests cannot tell, because they ask too little, and those tasks are listed.
"""

import ast
import json
import os
import re
import time
from pathlib import Path

import pytest

from r1repro.rewards import code
from r1repro.rewards.sandbox import Limits

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))

WRAP = """
def _made_wrong(f):
    def g(*arguments, **named):
        x = f(*arguments, **named)
        {body}
    return g
{name} = _made_wrong({name})
"""
WRONG = {
    "none": "return None",
    "negated": "return (not x) if isinstance(x, bool) or x is None else -x if isinstance(x, (int, float, complex)) "
    "else x[::-1] if isinstance(x, (str, list, tuple)) and x != x[::-1] else (x,)",
    "off-by-one": "return x + 1 if isinstance(x, (int, float, complex)) else x + x[:1] + type(x)(' ' if isinstance(x, str) "
    "else [0]) if isinstance(x, (str, list, tuple)) else 0",
}  # fmt: skip

SURVIVORS = {
    "none": set(),
    "negated": {"MBPP/371", "MBPP/627"},
    "off-by-one": set(),
}
"""Tasks that pass a solution made wrong in this way.  These two call themselves an even number of times on the way to
what is tested, so the sign returns."""


def rows(name):
    with open(DATA / name, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def human_eval():
    for row in rows("humaneval/HumanEval.jsonl"):
        tests = f"{row['test']}\n\ncheck({row['entry_point']})\n"
        yield row["task_id"], row["prompt"] + row["canonical_solution"], row["entry_point"], tests


def mbpp():
    for row in rows("mbpp/mbpp.jsonl"):
        tests = "\n".join([*row["test_list"], *row["challenge_test_list"]]).replace("\r", "")
        called = [
            n.func.id
            for n in ast.walk(ast.parse(row["test_list"][0]))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        defined = re.findall(r"^(?:def|class)\s+(\w+)", row["code"], re.MULTILINE)
        name = next(n for n in called if n in defined)
        yield f"MBPP/{row['task_id']}", row["code"] + "\n" + row["test_setup_code"], name, tests


if DATA.is_dir():  # collected only where the data lies, so nothing is ever skipped
    TASKS = {"human_eval": list(human_eval()), "mbpp": list(mbpp())}

    PATIENT = Limits(cpu_s=30, wall_s=90)
    """The slowest canonical solution, MBPP/123, needs nearly the 3 s of the default on a quiet machine."""

    @pytest.mark.parametrize("name", TASKS)
    def test_every_canonical_solution_passes(name):
        verdicts = code.grade_many(((program, tests) for _, program, _, tests in TASKS[name]), PATIENT)
        assert {task: v for (task, *_), v in zip(TASKS[name], verdicts, strict=True) if v["verdict"] != "right"} == {}

    @pytest.mark.parametrize("way", WRONG)
    @pytest.mark.parametrize("name", TASKS)
    def test_a_solution_made_wrong_fails(name, way):
        wrapped = [
            (program + WRAP.format(name=entry, body=WRONG[way]), tests) for _, program, entry, tests in TASKS[name]
        ]
        verdicts = code.grade_many(wrapped)
        passed = {task for (task, *_), v in zip(TASKS[name], verdicts, strict=True) if v["verdict"] == "right"}
        assert passed == {task for task in SURVIVORS[way] if task.startswith("MBPP") == (name == "mbpp")}


def test_sixty_programs_a_second():
    """On two cores; the best of three, since the machine may be busy with other things."""
    program, tests = "def f(x):\n    return x + 1\n", "assert f(1) == 2\nassert f(2) == 3\n"
    code.grade_many([(program, tests)] * 8)
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        verdicts = code.grade_many([(program, tests)] * 150)
        rates.append(150 / (time.perf_counter() - began))
        assert all(v["verdict"] == "right" for v in verdicts)
    print(f"programs a second: {', '.join(f'{rate:.0f}' for rate in rates)}")
    assert max(rates) >= 30 * min(os.cpu_count() or 1, 2)
