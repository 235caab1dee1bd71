"""A wheel is enough: it carries base model, paper data and notebooks, and nothing of a developer's machine."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
INPUTS = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "papers", "notebooks"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Files in a wheel built from a copy of the tree, for a build writes beside its sources."""
    tree, wheels = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in INPUTS:
        copy = shutil.copytree if (TOP / name).is_dir() else shutil.copy
        copy(TOP / name, tree / name)
    (tree / "notebooks" / ".ipynb_checkpoints").mkdir(exist_ok=True)
    (tree / "notebooks" / ".ipynb_checkpoints" / "00_map-checkpoint.ipynb").write_text("{}")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", wheels, tree], check=True, timeout=120)
    (wheel,) = wheels.glob("r1repro-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def below(folder, *, skip=("__pycache__", ".ipynb_checkpoints")):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not {*p.parts} & {*skip}}


@pytest.mark.parametrize("room", ["papers", "notebooks"])
def test_the_wheel_ships_the_top_level_rooms(names, room):
    wanted = {f"r1repro/_shipped/{room}/{name}" for name in below(TOP / room)}
    assert wanted and wanted <= names


def test_the_wheel_ships_the_base_model_and_the_tokenizer(names):
    assets = below(TOP / "src" / "r1repro" / "tinyworld" / "assets")
    assert {f"r1repro/tinyworld/assets/{name}" for name in assets} <= names
    assert [name for name in names if "/assets/" in name and name.endswith(".safetensors")]
    assert [name for name in names if "/assets/" in name and "tokenizer" in name]


def test_the_wheel_ships_the_tables_of_devices(names):
    assert {f"r1repro/engine/{name}.csv" for name in ("devices", "assumptions")} <= names


def test_the_wheel_ships_every_module(names):
    modules = {f"r1repro/{name}" for name in below(TOP / "src" / "r1repro") if name.endswith(".py")}
    assert modules and modules <= names


def test_the_wheel_ships_nothing_else(names):
    roots = {name.split("/")[0] for name in names}
    assert roots == {"r1repro", *(root for root in roots if root.endswith(".dist-info"))}
    assert [name for name in names if "checkpoint.ipynb" in name or name.endswith(".pyc")] == []
