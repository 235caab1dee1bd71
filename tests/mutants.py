"""Wrong versions of the code, each of which must break a test: `make mutants`, or `python tests/mutants.py [name ...]`.

`mutants.toml` is the list.  The tracked files are copied to a temporary folder; there each mutant's text is replaced,
its tests run, and the file is put back.  The outcome is *killed* (a test failed), *SURVIVED* (all tests passed: one is
missing) or *ERROR* (the text does not stand once in the file, or the tests cannot be run or do not end: that could be
the machine's fault as well).  Exits with 1 if any mutant is not killed, or if the tests fail without one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tqdm.auto import tqdm

TOP = Path(__file__).resolve().parents[1]
WORKERS = 2
"""Mutants tried at a time, each in a copy of the tree of its own, with one thread."""

LIMIT_S = 120
"""Seconds in which a mutant's tests must end: without a mutant, those of the slowest one take about 15."""


def load() -> list[dict]:
    """The mutants, in the order of the list."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["mutant"]


def source(mutant: dict, top: Path = TOP) -> Path:
    """The file that a mutant changes."""
    return top / "src" / "r1repro" / mutant["file"]


def mutated(mutant: dict, text: str) -> str:
    """A file's text with the mutant's replacement; ValueError unless what it replaces stands there exactly once."""
    if (count := text.count(mutant["find"])) != 1:
        raise ValueError(f"the text to find stands {count} times in {mutant['file']}")
    return text.replace(mutant["find"], mutant["replace"])


def copy_tree(target: Path) -> Path:
    """Copy the tracked files, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (TOP / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / name, target / name)
    return target


def run_tests(tree: Path, tests: list[str], *options: str) -> tuple[int | None, str]:
    """Exit status of pytest (None: it did not end in time), and the first test that failed, or pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tree.parent / 'tmp'}"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    # A mutant and its original may have one size and one second of change, which is all that cached bytecode looks at.
    environment |= {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command += [*options, *(f"tests/{test}" for test in tests)]
    limit_s = LIMIT_S if "-x" in options else None
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"did not end in {LIMIT_S} s"
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", done.stdout, re.M)
    return done.returncode, failed[1] if failed else (done.stdout + done.stderr).strip().rpartition("\n")[2]


def outcome(mutant: dict, tree: Path) -> tuple[str, str]:
    """(killed, SURVIVED or ERROR; by what or why) of one mutant in a copy of the tree, which is left as it was."""
    file = source(mutant, tree)
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(mutated(mutant, text), encoding="utf-8")
        status, said = run_tests(tree, mutant["tests"], "-x")
    except ValueError as error:
        return "ERROR", str(error)
    finally:
        file.write_text(text, encoding="utf-8")
    return {0: "SURVIVED", 1: "killed"}.get(status, "ERROR"), said


def main(names: list[str]) -> int:
    began, mutants = time.monotonic(), load()
    if not (TOP / ".git").exists():
        sys.exit(f"{TOP} is no git checkout: the files to copy are those that git tracks")
    if unknown := set(names) - {mutant["name"] for mutant in mutants}:
        sys.exit(f"no mutant called {', '.join(sorted(unknown))}: the names are in tests/mutants.toml")
    mutants = [mutant for mutant in mutants if not names or mutant["name"] in names]
    trees: SimpleQueue[Path] = SimpleQueue()

    def row(mutant: dict) -> tuple[str, str, str, float]:
        tree, start = trees.get(), time.monotonic()
        found = outcome(mutant, tree)
        trees.put(tree)
        return mutant["name"], *found, time.monotonic() - start

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        for number in range(WORKERS):
            tree = copy_tree(Path(folder) / str(number) / "tree")
            trees.put(tree)
        status, said = run_tests(tree, sorted({test for mutant in mutants for test in mutant["tests"]}))
        if status != 0:
            sys.exit(f"the tests fail without any mutant: {said}")
        rows = list(tqdm(pool.map(row, mutants), total=len(mutants), desc="mutants", unit="mutant"))
    width = max(len(name) for name, *_ in rows)
    for name, found, said, seconds in rows:
        print(f"{name:{width}}  {found:8}  {seconds:5.1f} s  {said}")
    alive = [(name, found, said) for name, found, said, _ in rows if found != "killed"]
    print(f"\n{len(rows) - len(alive)} of {len(rows)} mutants killed in {time.monotonic() - began:.0f} s")
    for name, found, said in alive:
        print(f"{found}: {name}: {said}")
    return 1 if alive else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help="mutants to run (default: all)")
    sys.exit(main(parser.parse_args().names))
