"""Puts the paper's data and the notebooks into the wheel; everything else of the build is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent
SHIPPED = ("papers", "notebooks")
"""Top-level folders that a wheel carries as `r1repro/_shipped/<name>`; a checkout reads them where they lie."""


class BuildWithShipped(build_py):
    """Copies the shipped folders beside the package's files; an editable install needs no copy."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = Path(self.build_lib) / "r1repro" / "_shipped" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(TOP / name, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithShipped})
