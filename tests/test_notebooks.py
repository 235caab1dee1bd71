"""Notebooks as a reader meets them: the same parameters, the same order of parts, cells that run and bite.

Their shape (sizes, forbidden statements) is a rule of the house, see test_house.py.  Notebooks 03 to 08 train, so that
`make smoke` runs them; the others run here, cell by cell.
"""

import ast
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import matplotlib
import pandas
import pytest
from matplotlib import pyplot
from torch.random import fork_rng

from r1repro import config, models, notebooks
from r1repro.algo import grpo
from r1repro.records import Refusal
from r1repro.rewards import accuracy
from r1repro.stages import r1
from r1repro.tinyworld import base

FOLDER = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists()) / "notebooks"
QUIET = list(notebooks.SHARED)
"""Those that train nothing."""
LOUD = [*notebooks.MAKES, *notebooks.ARMS]
NAMES = QUIET + LOUD


def cells(name, kind=None):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def text(cell):
    return "".join(cell["source"])


def parameters(name):
    """Name -> default of the notebook's parameters."""
    (cell,) = [cell for cell in cells(name, "code") if "parameters" in cell["metadata"].get("tags", [])]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(text(cell)).body}


@contextlib.contextmanager
def quiet():
    """Figures go nowhere; what cells change in torch, pandas and matplotlib is put back."""
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    try:
        with fork_rng(devices=[]), matplotlib.rc_context(), pandas.option_context("display.max_colwidth", 50):
            yield
    finally:
        pyplot.close("all")
        matplotlib.use(before)


def draw_and_close():
    """What Jupyter does with figures after each cell."""
    for number in pyplot.get_fignums():
        pyplot.figure(number).canvas.draw()
    pyplot.close("all")


def execute(name, until=None, **given):
    """Run code cells from the top, with these parameters instead of the defaults."""
    space = {"__name__": "__main__"}
    with quiet():
        for number, cell in enumerate(cells(name, "code")[:until]):
            exec(compile(text(cell), f"{name}, code cell {number}", "exec"), space)
            draw_and_close()
            if "parameters" in cell["metadata"].get("tags", []):
                space |= given
    return space


@pytest.mark.parametrize("name", NAMES)
def test_one_driver_can_start_them_all(name):
    found = parameters(name)
    assert list(found) == ["tier", "seed", "run_dir", "overrides"]
    assert found["tier"] in config.RUNNABLE and found | {"tier": ""} == dict(tier="", seed=0, run_dir="", overrides={})


@pytest.mark.parametrize("name", NAMES)
def test_parts_stand_in_the_order_of_the_house(name):
    all_cells = cells(name)
    number = name[:2]
    assert text(all_cells[0]).startswith(f"# {number} - ")
    assert "parameters" in all_cells[2]["metadata"]["tags"] and all_cells[3]["cell_type"] == "code"
    heads = [line for cell in cells(name, "markdown") for line in text(cell).splitlines() if line.startswith("## ")]
    assert heads[-2] == "## Exercises" and heads[-1].startswith("## The claims")
    prose = "\n".join(map(text, cells(name, "markdown")))
    assert 2 <= prose.count("<details><summary>") == prose.count("</details>") <= 3
    assert all_cells[-1]["cell_type"] == "code"


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_is_for_hosted_notebooks_and_does_nothing_here(name, monkeypatch):
    first = text(cells(name)[1])
    assert first == text(cells("00_map")[1]) and len(first.splitlines()) <= 7
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("installs what is there"))
    exec(first, {})


def test_where_the_package_is_not_the_first_cell_installs_it(tmp_path):
    """In an interpreter with the standard library alone, and a pip that writes down what it is told."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    says = "import pathlib, sys\npathlib.Path(sys.argv[0]).with_name('told').write_text(' '.join(sys.argv[1:]))\n"
    says += "made = pathlib.Path(sys.argv[0]).parents[1] / 'r1repro'\nmade.mkdir()\n(made / '__init__.py').touch()\n"
    (tmp_path / "pip" / "__main__.py").write_text(says)
    program = f"{text(cells('00_map')[1])}\nimport r1repro\n"
    for told in ("install --quiet git+https://example.org/r1repro.git", "nothing"):
        bare = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}
        subprocess.run([sys.executable, "-S", "-c", program], check=True, env=bare, cwd=tmp_path, timeout=60)
        assert (tmp_path / "pip" / "told").read_text() == told
        (tmp_path / "pip" / "told").write_text("nothing")


@pytest.mark.parametrize("name", NAMES)
def test_each_has_equations_sources_trials_and_figures(name):
    code, prose = "\n".join(map(text, cells(name, "code"))), "\n".join(map(text, cells(name, "markdown")))
    assert code.count("show.source(") >= 1 and len(re.findall(r"^assert ", code, re.M)) >= 3
    assert prose.count("*Try it.*") >= 1 and prose.count("*See it.*") >= 1
    assert statistics.median(len(text(cell).splitlines()) for cell in cells(name, "code")) <= 6


@pytest.mark.parametrize("name", NAMES)
def test_metadata_are_minimal(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec"} and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_s_words_are_used(name):
    words = re.findall(r"\b(completions?|episodes?|trajector\w+)\b", "\n".join(map(text, cells(name))), re.I)
    assert words == []


def test_no_equation_is_copied():
    """A formula of algo/ or rewards/ is called or shown, never written again."""
    everything = "\n".join(text(cell) for name in NAMES for cell in cells(name, "code"))
    for formula in (".clamp(1 -", "- 1).mean", ".std(", "re.search", "re.findall"):
        assert formula not in everything


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tier": "huge"}, "'huge'"),
        ({"seed": -1}, "-1"),
        ({"seed": "one"}, "'one'"),
        ({"overrides": {"rl.nothing": 1}}, "'rl.nothing'"),
        ({"overrides": {"evaluate.max_tokens": 0}}, "max_tokens is 0"),
        ({"overrides": [1]}, "[1]"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_in_one_line_by_the_setup(name, given, said):
    with pytest.raises(Refusal) as refusal:
        execute(name, until=3, **given)
    (line,) = refusal.value._render_traceback_()
    assert said in line and "\n" not in line


@pytest.mark.parametrize("name", LOUD)
def test_a_tier_that_cannot_train_is_refused_before_anything_is_drawn(name):
    with pytest.raises(Refusal, match="choose"):
        execute(name, until=3, tier="paper")


@pytest.mark.parametrize("name", LOUD[1:])
def test_what_a_notebook_needs_of_an_earlier_one_is_said_in_one_line(name, tmp_path):
    with pytest.raises(Refusal, match="run the notebook") as refusal:
        execute(name, tier="smoke", run_dir=str(tmp_path / "seed-0"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", QUIET)
def test_it_runs_from_top_to_bottom(name):
    execute(name, tier="smoke")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """`notebooks.execute_all` with every notebook but the executing itself: each leaves a copy, and runs to delete."""
    monkeypatch.setenv("R1REPRO_OUT", str(tmp_path))
    started = []

    def papermill(source, target, parameters, **_):
        started.append((source.stem, parameters["seed"]))
        Path(target).write_text("{}")
        for pattern in (notebooks.MAKES | notebooks.ARMS).get(source.stem, ()):
            (tmp_path / "smoke" / f"seed-{parameters['seed']}" / pattern.replace("*", "x")).mkdir(
                parents=True, exist_ok=True
            )

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", papermill)
    return started


def test_a_second_call_executes_nothing(driver):
    made = notebooks.execute_all("smoke", [0, 1])
    assert [path.stem for path in made] == QUIET + list(notebooks.MAKES) * 2 and len(driver) == len(made)
    assert notebooks.execute_all("smoke", [0, 1]) == [] and len(driver) == len(made)
    more = notebooks.execute_all("smoke", [0, 1], claims="all")
    assert [path.stem for path in more] == list(notebooks.ARMS) * 2
    with pytest.raises(Refusal, match="choose one of main, all"):
        notebooks.execute_all("smoke", [0], claims="some")


def test_one_stage_alone_is_made_again(driver, tmp_path):
    notebooks.execute_all("smoke", [0, 1])
    driver.clear()
    runs = tmp_path / "smoke" / "seed-1"
    (runs / "dev2" / "old").mkdir()
    assert [path.stem for path in notebooks.execute_all("smoke", [1], ["05_reasoning_rl"])] == ["05_reasoning_rl"]
    assert driver == [("05_reasoning_rl", 1)] and not (runs / "dev2" / "old").exists() and (runs / "dev1").exists()
    with pytest.raises(Refusal, match="choose one of 03_r1_zero"):
        notebooks.execute_all("smoke", [1], ["09_nothing"])


def test_where_runs_are_only_read_none_is_deleted_and_no_copy_counts_as_done(driver, tmp_path, monkeypatch):
    notebooks.execute_all("smoke", [1])
    monkeypatch.setattr(notebooks, "source_fingerprint", lambda: "a later one")
    monkeypatch.setenv("R1REPRO_READ_ONLY", "1")
    with pytest.raises(Refusal, match="AGAIN=05_reasoning_rl deletes runs"):
        notebooks.execute_all("smoke", [1], ["05_reasoning_rl"])
    assert (tmp_path / "smoke" / "seed-1" / "dev2").exists()
    copy = tmp_path / "smoke" / "seed-1" / "notebooks" / "05_reasoning_rl.ipynb"
    before = len(driver)
    notebooks.execute("05_reasoning_rl", copy, tier="smoke", seed=1)
    assert len(driver) == before + 1 and copy.exists() and not copy.with_suffix(".done.json").exists()


def test_what_is_beside_the_main_line_is_not_forgotten_without_being_made_again(driver, tmp_path):
    (tmp_path / "smoke" / "seed-1" / "arms" / "cap_kept").mkdir(parents=True)
    with pytest.raises(Refusal, match="again is '14_controls', which is beside the main line: add CLAIMS=all"):
        notebooks.execute_all("smoke", [1], ["14_controls"])
    assert (tmp_path / "smoke" / "seed-1" / "arms" / "cap_kept").exists() and driver == []
    with pytest.raises(Refusal, match="of the tiny world, not of tier gpu: choose smoke or cpu"):
        notebooks.execute_all("gpu", [1], claims="all")


def test_every_run_of_the_pipeline_is_made_by_a_notebook():
    patterns = [pattern for made in (notebooks.MAKES | notebooks.ARMS).values() for pattern in made]
    runs = [run for made in models.MADE_BY.values() for run in made] + ["students/qwen-140k", "evaluate/step-000000"]
    runs += [f"models/{name}" for name in (*r1.MODELS, *base.STUDENTS, *models.ARMS)]
    assert [run for run in runs if not any(fnmatch(run, p) or fnmatch(run, f"{p}/*") for p in patterns)] == []


WRONG = {
    "advantages": grpo.centred_advantages,
    "kl_to_reference": lambda logp_NT, ref_logp_NT: logp_NT - ref_logp_NT,
    "output_ratio": grpo.token_ratio,
    "per_output_mean": grpo.token_mean,
    "token_mean": grpo.per_output_mean,
}


@pytest.mark.parametrize("function", WRONG)
def test_the_assertions_of_01_notice_a_wrong_equation(function, monkeypatch):
    monkeypatch.setattr(grpo, function, WRONG[function])
    with pytest.raises(AssertionError):
        execute("01_grpo")


@pytest.mark.parametrize("verdict", ["wrong", "right"])
def test_the_assertions_of_02_notice_a_grader_that_always_says_the_same(verdict, monkeypatch):
    monkeypatch.setattr(accuracy, "grade", lambda gold, text: {"verdict": verdict, "reason": ""})
    with pytest.raises(AssertionError):
        execute("02_rewards")
