"""HumanEval-Mul's harnesses, each in the language of its own: `make test-languages`.

Right programs of ours (`solutions`) pass, the same made wrong fail, for every toolchain that is here; where the data is
not there, small tasks of our own stand in for it.  What a missing toolchain does is tested in `test_programs.py`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from solutions import CONTESTS, CONTESTS_WRONG, FLAWED, PROGRAMS, made_wrong

from r1repro.evals import contests, harness, programs
from r1repro.rewards import languages, sandbox

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))
HERE = [name for name in languages.LANGUAGES if not languages.missing(name)]
FENCE = {name: language.fences[0] for name, language in languages.LANGUAGES.items()}

TASKS = {
    "java": (
        "import java.util.*;\nclass Problem {\n    // Twice.\n    public static long twice(long n) {\n",
        "    }\n    public static void main(String[] args) {\n    assert(twice((2l)) == (4l));\n"
        "    assert(twice((5l)) == (10l));\n    }\n\n}\n",
        "        return {}2 * n;\n",
    ),
    "cs": (
        "using System;\nusing System.Diagnostics;\nclass Problem {\n    // Twice.\n"
        "    public static long Twice(long n) {\n",
        "    }\n    public static void Main(string[] args) {\n    Debug.Assert(Twice((2L)) == (4L));\n"
        "    Debug.Assert(Twice((5L)) == (10L));\n    }\n\n}\n",
        "        return {}2 * n;\n",
    ),
    "cpp": (
        "#include<assert.h>\n// Twice.\nlong twice(long n) {\n",
        "}\nint main() {\n    auto candidate = twice;\n    assert(candidate((2)) == (4));\n"
        "    assert(candidate((5)) == (10));\n}\n",
        "    return {}2 * n;\n",
    ),
    "js": (
        "//Twice.\nfunction twice(n){\n",
        "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = twice;\n"
        "  assert.deepEqual(candidate(2),4);\n  assert.deepEqual(candidate(5),10);\n}\n\ntest();",
        "  return {}2 * n;\n}}\n",
    ),
    "ts": (
        "//Twice.\nfunction twice(n: number): number {\n",
        "declare var require: any;\nconst assert = require('node:assert');\n\n\nfunction test() {\n"
        "  let candidate = twice;\n  assert.deepEqual(candidate(2),4);\n  assert.deepEqual(candidate(5),10);\n}\n"
        "\ntest();",
        "  return {}2 * n;\n}}\n",
    ),
    "php": (
        "<?php\n// Twice.\nfunction twice($n) {\n",
        "function candidate(...$args) {\n    return twice(...$args);\n}\n\nfunction test(): void {\n"
        '    if (candidate(2) !== 4) { throw new Exception("Test failed!"); }\n'
        '    if (candidate(5) !== 10) { throw new Exception("Test failed!"); }\n}\n\ntest();',
        "    return {}2 * $n;\n}}\n",
    ),
    "sh": (
        "#!/bin/bash\n# Twice.\ntwice() {\n",
        '}\n\ncandidate() {\n    twice "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate "2") = "4" ]]\n'
        '    [[ $(candidate "5") = "10" ]]\n}\n\nrun_test',
        "  echo $(( {}2 * $1 ))\n",
    ),
}
"""Language: prompt, tests and body of a task of ours, in the form of the public files; {} takes what makes it wrong."""

LEAVES = {
    "java": "System.exit(0);",
    "cs": "System.Environment.Exit(0);",
    "cpp": "std::exit(0);",
    "js": "process.exit(0);",
    "ts": "declare var process: any; process.exit(0);",
    "php": "exit(0);",
    "sh": "trap 'exit 0' EXIT; kill $$;",
}


def verdict(name, prompt, tests, text):
    return harness.grade(name, prompt, tests, text)


if HERE:

    @pytest.mark.parametrize("name", HERE)
    def test_a_body_that_goes_on_from_the_prompt_is_right_and_a_wrong_one_is_not(name):
        prompt, tests, body = TASKS[name]
        right, wrong = (f"```{FENCE[name]}\n{body.format(change)}\n```" for change in ("", "3 + "))
        assert verdict(name, prompt, tests, right)["verdict"] == "right"
        assert verdict(name, prompt, tests, f"<think>\n{right}\n</think>\n{wrong}")["verdict"] == "wrong"

    @pytest.mark.parametrize("name", [name for name in HERE if name != "sh"])
    def test_a_program_that_leaves_early_with_status_0_is_wrong(name):
        prompt, tests, body = TASKS[name]
        head = "#include <cstdlib>\n" if name == "cpp" else ""
        line, _, rest = body.format("").partition("return")
        text = head + prompt.removeprefix("declare") + line + LEAVES[name].replace("declare var process: any; ", "")
        text = ("declare var process: any;\n" if name == "ts" else "") + text + "\n return" + rest
        text += harness._CLOSES.get(name, "")
        found = verdict(name, prompt, tests, f"```\n{text}\n```")
        assert found["verdict"] == "wrong" and "exit status 0" in found["reason"]

    @pytest.mark.parametrize("name", [name for name in HERE if languages.LANGUAGES[name].build])
    def test_what_the_compiler_refuses_is_wrong_and_says_why(name):
        prompt, tests, body = TASKS[name]
        found = verdict(name, prompt, tests, f"```\n{prompt}return no_such_name;\n}}}}\n```")
        assert found["verdict"] == "wrong" and found["reason"].startswith("not built")

    if DATA.is_dir():
        ITEMS = {item.id: item for item in programs.load_human_eval_mul(DATA / "humaneval_mul")}

        def verdict_of(id: str, text: str) -> dict:
            more = ITEMS[id].more
            return verdict(more["language"], more["given"], more["tests"], text)

        @pytest.mark.parametrize("name", HERE)
        def test_right_programs_are_accepted_and_wrong_ones_refused(name):
            """Of languages with a slow compiler four are made wrong, of the others all."""
            programs_of, built = PROGRAMS[name], name in ("cpp", "java", "ts")
            wrong = {n: made_wrong(n, text) for n, text in list(programs_of.items())[: 4 if built else None]}
            assert all(text != programs_of[n] for n, text in wrong.items())
            fence = f"```{FENCE[name]}"
            cases = {
                (n, "right"): f"<think>\n{fence}\nno\n```\n</think>\nSo:\n{fence}\n{text}\n```\nTry:\n```\n1 + 1\n```"
                for n, text in programs_of.items()
            } | {
                (n, "wrong"): f"{fence}\n{programs_of[n]}\n```\nOr:\n{fence}\n{text}\n```" for n, text in wrong.items()
            }
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                verdicts = pool.map(lambda case: verdict_of(f"{name}/{case[0]}", cases[case]), cases)
                found = dict(zip(cases, verdicts, strict=True))
            assert {case: v for case, v in found.items() if v["verdict"] != case[1]} == {}
            assert {case: v for case, v in found.items() if "not built" in v["reason"]} == {}

        @pytest.mark.parametrize("id", [id for id in FLAWED if id.split("/")[0] in HERE])
        def test_rows_that_accept_no_program_are_known(id):
            assert id in programs.FLAWED
            found = verdict_of(id, f"```\n{FLAWED[id]}\n```")
            assert found["verdict"] == "wrong" and "not built" not in found["reason"]


if DATA.is_dir() and not sandbox.refusal():

    @pytest.mark.parametrize("number", CONTESTS)
    def test_contest_problems_accept_right_programs_and_refuse_wrong_ones(number):
        item = contests.load_contests(DATA / "code_contests")[number]
        wrong = CONTESTS[number].replace(*CONTESTS_WRONG[number])
        found = [contests.grade_program(item, f"```python\n{text}```").verdict for text in (CONTESTS[number], wrong)]
        assert found == ["right", "wrong"]
