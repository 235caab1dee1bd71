"""Functions: HumanEval-Mul in eight languages, HumanEval and MBPP in Python, run in the sandbox (`rewards.code`,
`rewards.languages`).  Whole programs are in `contests`, what other harnesses grade in `exports`; the list here has all.

What could not be run is not evaluated: its score is None, never 0.  `lacking` says so before anything is sampled.

Where the paper is silent:
    Prompts of HumanEval-Mul: not detailed; ours ask for the whole function in one fenced block.
    Time and memory of a program: not stated; those of `rewards.languages`, and `FUNCTION`.
"""

import ast
import re
from pathlib import Path

from r1repro.evals import contests, exports, files, harness
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.evals.harness import lacking, score
from r1repro.records import Refusal, Score
from r1repro.rewards import code, languages, sandbox
from r1repro.rewards.sandbox import Limits

FLAWED = ("java/136", "cs/12", "cs/136", "cs/162", "php/23")
"""Rows of HumanEval-Mul that no program can pass, as far as we have seen: their tests compare values of two types, call
a method of null, or want a function that PHP has.  They are graded all the same, as in the paper."""

FUNCTION = Limits(cpu_s=10, wall_s=15.0)
"""Ours: the slowest canonical solution of MBPP needs 3 s of a slow core."""

NAMES = {"python": "Python", "java": "Java", "cpp": "C++", "cs": "C#", "js": "JavaScript", "ts": "TypeScript",
         "php": "PHP", "sh": "Bash"}  # fmt: skip
"""The eight languages, by the names that the files have."""


def _given(record: files.Record, *names: str) -> str:
    """A text of a row as it stands, spaces included."""
    for name in names:
        if isinstance(value := record.row.get(name), str) and value.strip():
            return value
    raise Refusal(f"{record.where}: no {' or '.join(names)}: mend it, or take the file of its makers")


def _asked(language: str, prompt: str) -> str:
    fence = (
        "bash" if language == "sh" else languages.LANGUAGES[language].fences[0] if language != "python" else language
    )
    return (
        f"Complete this {NAMES[language]} function. Answer with the whole function, everything that is given included, "
        f"in one ```{fence} block.\n\n```{fence}\n{prompt.rstrip()}\n```"
    )


def load_human_eval_mul(folder: Path) -> list[Item]:
    """Rows of MultiPL-E's form (``name``, ``language``, ``prompt``, ``tests``) and of HumanEval's for Python.

    The language is the row's, or what follows ``humaneval-`` in the file's name.
    """
    items, seen = [], set()
    for record in files.records(folder):
        named = re.search(r"(?:humaneval|HumanEval)[-_](\w+)\.", Path(record.name).name)
        language = str(record.row.get("language") or (named[1] if named else "python")).lower()
        if language not in NAMES:
            raise Refusal(f"{record.where}: language {language[:40]!r}: HumanEval-Mul has {', '.join(NAMES)}")
        if language == "python":
            items.append(_python_function(record, files.text_of(record, "task_id", "name"), seen, f"{language}/"))
            continue
        prompt, tests = _given(record, "prompt"), _given(record, "tests", "test")
        try:
            harness.files(language, prompt, tests, "", "mark")
        except ValueError as error:
            raise Refusal(f"{record.where}: {error}") from error
        name = re.sub(r"^HumanEval_(\d+)_.*", r"\1", files.text_of(record, "name", "task_id"))
        items.append(
            Item(
                id=files.distinct(f"{language}/{name}", seen),
                prompt=_asked(language, prompt),
                gold=None,
                group=NAMES[language],
                more={"language": language, "given": prompt, "tests": tests},
            )
        )
    return items


def load_human_eval(folder: Path) -> list[Item]:
    """Rows with ``task_id``, ``prompt``, ``entry_point``, ``canonical_solution`` and ``test``."""
    seen: set[str] = set()
    return [_python_function(record, files.text_of(record, "task_id"), seen) for record in files.records(folder)]


def _python_function(record: files.Record, id: str, seen: set[str], prefix: str = "") -> Item:
    prompt, tests = _given(record, "prompt"), _given(record, "test")
    found = re.findall(r"^def\s+(\w+)", prompt, re.MULTILINE)
    if not (name := record.row.get("entry_point") or (found or [None])[-1]):
        raise Refusal(f"{record.where}: no function in the prompt and no entry_point: mend it")
    if not re.search(rf"^check\({name}\)", tests, re.MULTILINE):
        tests += f"\n\ncheck({name})\n"
    return Item(
        id=files.distinct(prefix + id.rpartition("/")[2] if prefix else id, seen),
        prompt=_asked("python", prompt),
        gold=record.row.get("canonical_solution"),
        group="Python",
        more={"language": "python", "given": prompt, "tests": tests, "name": name},
    )


def load_mbpp(folder: Path) -> list[Item]:
    """Rows with ``task_id``, ``text``, ``test_list`` and ``code``; where all tasks are there, those of the test split
    (11 to 510)."""
    records = list(files.records(folder))
    numbers = [record.row.get("task_id") for record in records]
    whole = all(isinstance(n, int) for n in numbers) and any(n > 510 for n in numbers)
    items = []
    for record in records:
        if whole and not 11 <= record.row["task_id"] <= 510:
            continue
        tests = record.row.get("test_list")
        if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
            raise Refusal(f"{record.where}: no test_list: mend it, or take the file of its makers")
        text, listed = files.text_of(record, "text", "prompt"), "\n".join(tests).replace("\r", "")
        items.append(
            Item(
                id=f"MBPP/{files.text_of(record, 'task_id')}",
                prompt=f"{text}\n\nWrite it in Python; the program has to pass these tests:\n\n"
                f"```python\n{listed}\n```\n\nAnswer with the program in one ```python block.",
                gold=(record.row.get("code") or "").replace("\r", "") or None,
                group="Python",
                more={
                    "language": "python",
                    "given": "",
                    "tests": f"{record.row.get('test_setup_code') or ''}\n{listed}".replace("\r", ""),
                    "name": _called(tests[0]),
                },
            )
        )
    return items


def _called(test: str) -> str:
    """Name of the function that a test calls first."""
    try:
        calls = [node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return ""
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if name not in ("set", "sorted", "len", "abs", "str", "list", "tuple")), "")


def grade_function(item: Item, text: str) -> Score:
    """Whether the function passes its tests; Python's in a process apart from them (`rewards.judge`)."""
    more = item.more
    if more["language"] != "python":
        return score(harness.grade(more["language"], more["given"], more["tests"], text))
    if why := sandbox.refusal():
        return score({"verdict": "error", "reason": why})
    return score(code.grade(python_of(text, more["given"], more["name"]), more["tests"], FUNCTION))


def python_of(text: str, given: str, name: str) -> str | None:
    r"""The program of an output: its last block that defines the function, else its last; what the prompt gives before
    the function stands before it, and the whole prompt where the output goes on from it.

    >>> python_of("```python\ndef f():\n    return g()\n```\n```python\nf()\n```", "def g(): pass\ndef f():\n", "f")
    'def g(): pass\n\ndef f():\n    return g()\n'
    """
    defines = re.compile(rf"^(?:async\s+def|def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", re.MULTILINE)
    found = code.blocks(text, ("", *harness.PYTHON))
    block = next((block for block in reversed(found) if defines.search(block)), None) or code.program_of(text)
    if block is None:
        return None
    if not defines.search(block) and given:
        return given + block
    head = given[: found.start()] if (found := defines.search(given)) else ""
    return f"{head}\n{block}" if head else block


def perfect_function(item: Item) -> str:
    """The canonical solution in a block."""
    return f"```python\n{item.more['given']}{item.gold}\n```"


BENCHMARKS = (
    Benchmark(
        name="HumanEval-Mul", folder="humaneval_mul", load=load_human_eval_mul, grade=grade_function, lacking=lacking,
        hub="nuprl/MultiPL-E", licence="BSD-3 with a restriction: never for training (MultiPL-E); MIT (HumanEval)",
        note="named in the paper without a score; 164 Python originals. Prompts ours. C# is what Mono compiles "
        "(C# 7). Five rows accept no program (`programs.FLAWED`). The files have answers for Python alone",
    ),
    Benchmark(
        name="HumanEval", folder="humaneval", load=load_human_eval, grade=grade_function, lacking=lacking,
        perfect=perfect_function, hub="openai/openai_humaneval", files="openai_humaneval/test-*", licence="MIT",
        note="not in the paper but in its HumanEval-Mul; zero-shot, prompt ours",
    ),
    Benchmark(
        name="MBPP", folder="mbpp", load=load_mbpp, grade=grade_function, lacking=lacking, perfect=perfect_function,
        hub="google-research-datasets/mbpp", files="full/test-*", licence="CC BY 4.0",
        note="not in the paper; zero-shot, prompt ours with the tests in it",
    ),
    *contests.BENCHMARKS,
    *exports.BENCHMARKS,
)  # fmt: skip
