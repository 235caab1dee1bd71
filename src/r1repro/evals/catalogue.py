"""All benchmarks of the paper by name: those that can be asked, and those that cannot, with the reason.

A benchmark's questions are the files in the folder of its name below R1REPRO_DATA; where nothing is there and it has
an address on Hugging Face, its files are downloaded once into that folder.
"""

import fnmatch
import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from r1repro import paper
from r1repro.config import data_folder
from r1repro.evals import contests
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal
from r1repro.run import writable

MODULES = ("mathematics", "choice", "reading", "instructions", "judging", "programs", "contests", "exports")
"""Files of this room that have a tuple ``BENCHMARKS``."""

NOT_REPRODUCIBLE = {
    "AMC 12 2024": "no public set of its 25 questions, and points are printed, not shares; AMC 2023 stands beside",
    "2024 contest collection": "the 366 problems of 93 contests were not released",
    "ChatbotArena": "votes of people on a live platform",
    "Safety suite (SST, BBQ, ART, XSTest, Do-Not-Answer, HarmBench)": "numbers of HELM with its own judges, half "
    "of them behind a risk filter that is not public",
    "In-house safety taxonomy": "questions and prompts of the judge were not released",
}
"""Name in benchmarks.csv -> why it cannot be reproduced."""


@cache
def all_of_them() -> dict[str, Benchmark]:
    """Name -> benchmark, in the order of the files."""
    found = {}
    for name in MODULES:
        if importlib.util.find_spec(f"r1repro.evals.{name}"):
            module = importlib.import_module(f"r1repro.evals.{name}")
            found |= {benchmark.name: benchmark for benchmark in module.BENCHMARKS}
    return found


def named(name: str) -> Benchmark:
    """The benchmark of that name, in any case, with or without spaces and marks; LiveCodeBench of a window of days too.

    >>> named("aime2024").name, named("LiveCodeBench 2024-05-01 to 2024-07-31").name
    ('AIME 2024', 'LiveCodeBench (2024-05-01 to 2024-07-31)')
    """
    if window := contests.by_name(name):
        return window
    known = {_key(each): benchmark for each, benchmark in all_of_them().items()}
    if _key(name) in known:
        return known[_key(name)]
    for each, reason in NOT_REPRODUCIBLE.items():
        if _key(each) == _key(name):
            raise Refusal(f"{each} cannot be reproduced ({reason}): see `python -m r1repro benchmarks`")
    raise Refusal(f"no benchmark {name!r}: choose one of {', '.join(all_of_them())}")


def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def items_of(benchmark: Benchmark) -> list[Item]:
    """All questions of a benchmark, downloaded first where nothing is there.

    Raises:
        Refusal: nothing there and none to be had; a file that cannot be read.
    """
    place = data_folder() / benchmark.folder
    if not any(path.is_file() for path in place.rglob("*")):
        _download(benchmark, place)
    return benchmark.load(place)


def _download(benchmark: Benchmark, place: Path) -> None:
    """The files of a benchmark from Hugging Face, each put into its folder when it is whole."""
    where = f"of {benchmark.hub} " if benchmark.hub else ""
    missing = f"no questions of {benchmark.name} in {place}: put its files {where}there (R1REPRO_DATA names the folder)"
    if benchmark.note and not benchmark.files:
        missing = f"{missing}; {benchmark.note}"
    if not benchmark.hub or not benchmark.files:
        raise Refusal(missing)
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "no", "off", "false"):
        raise Refusal(f"{missing}, or unset HF_HUB_OFFLINE to have them loaded")
    import huggingface_hub

    try:
        hub = huggingface_hub.HfApi()
        listed = hub.list_repo_files(benchmark.hub, repo_type="dataset")
        wanted = [name for name in listed if fnmatch.fnmatch(name, benchmark.files)]
        got = [huggingface_hub.hf_hub_download(benchmark.hub, name, repo_type="dataset") for name in wanted]
    except Exception as error:
        raise Refusal(f"{missing}; the hub says {' '.join(str(error).split())[:200]}") from error
    if not got:
        raise Refusal(f"{missing}; {benchmark.hub} has no {benchmark.files}")
    writable(place)
    for name, file in zip(wanted, got, strict=True):
        target = place / name
        writable(target.parent)
        temporary = target.with_name(target.name + ".tmp")
        shutil.copyfile(file, temporary)
        os.replace(temporary, target)


_TABLE = {
    "IF-Eval": "IF-Eval", "AlpacaEval 2.0": "AlpacaEval2.0", "Arena-Hard": "ArenaHard",
    "SWE-bench Verified": "SWE Verified", "LiveCodeBench (2024-08 to 2025-01)": "LiveCodeBench",
    "LiveCodeBench": "LiveCodeBench",
}  # fmt: skip
"""Our name of a benchmark -> that of the paper's tables, where they differ."""

_SHORT = {
    "AIME 2024": "aime2024_pass1", "MATH-500": "math500_pass1", "GPQA Diamond": "gpqa_diamond_pass1",
    "LiveCodeBench": "livecodebench_pass1", "LiveCodeBench (2024-08 to 2025-01)": "livecodebench_pass1",
    "Codeforces": "codeforces_rating",
}  # fmt: skip
_CONS = {"AIME 2024": "aime2024_cons64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the paper prints of one model on one benchmark."""

    value: float
    """As printed: per cent, or a rating."""

    metric: str
    source: str
    """The table, by its file in papers/deepseek-r1/tables."""


def published(benchmark: str, model: str = "DeepSeek-R1", consensus: bool = False) -> Published | None:
    """The paper's number, or None.

    Args:
        model: as the tables call it: DeepSeek-R1, DeepSeek-R1-Zero, DeepSeek-R1-Distill-Qwen-1.5B, DeepSeek-V3, ...;
            an organisation before it and other case are let through.
        consensus: that of cons@64.

    >>> published("MATH-500").value, published("AIME 2024", "DeepSeek-R1-Distill-Qwen-7B", consensus=True).value
    (97.3, 83.3)
    """
    model = model.rpartition("/")[2]
    short = (_CONS if consensus else _SHORT).get(benchmark)
    for table in ("table5", "table6", "table2") if short else ():
        for row in paper.table(table):
            if _key(row["model"]) == _key(model) and row[short] and not _replaced(table, row, short):
                return Published(value=float(row[short]), metric="cons@64" if consensus else "pass@1", source=table)
    if consensus:
        return None
    for table in ("table4", "v2_table3_stages", "v2_table12_base_to_r1"):
        for row in paper.table(table):
            if row.get("benchmark") == _TABLE.get(benchmark, benchmark) and row["metric"] != "Percentile":
                for column in row.keys() - {"category", "benchmark", "metric"}:
                    if _key(column) in (_key(model), _key(model).removeprefix("deepseek")) and row[column]:
                        return Published(value=float(row[column]), metric=row["metric"], source=table)
    return None


def _replaced(table: str, row: dict[str, str], column: str) -> bool:
    """Whether v2 prints another number in the place of a cell of v1: of R1-Zero's two, the tables of v2 are read."""
    return (
        table == "table2" and row["model"] == "DeepSeek-R1-Zero" and column in ("aime2024_pass1", "gpqa_diamond_pass1")
    )


def columns() -> list[str]:
    """The models that the paper prints numbers of, for `published`."""
    named = {row["model"] for table in ("table2", "table5", "table6") for row in paper.table(table)}
    for table in ("table4", "v2_table12_base_to_r1"):
        named |= paper.table(table)[0].keys() - {"category", "benchmark", "metric", "R1", "R1-Zero"}
    stages = paper.table("v2_table3_stages")[0].keys() - {"category", "benchmark", "metric", "R1", "R1-Zero"}
    return sorted(named | stages)


def own_column(model: str) -> str:
    """The paper's column for a model by its name; that of DeepSeek-R1 where it has none.

    >>> own_column("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"), own_column("out/r1")
    ('DeepSeek-R1-Distill-Qwen-1.5B', 'DeepSeek-R1')
    """
    last = Path(model).name
    return next((column for column in columns() if _key(column) == _key(last)), "DeepSeek-R1")


def check_column(model: str) -> None:
    """Refuse a model that the paper prints no numbers of."""
    if _key(model.rpartition("/")[2]) not in {_key(column) for column in columns()}:
        raise Refusal(f"the paper has no numbers of {model!r}: choose one of {', '.join(columns())}")


def lines() -> list[str]:
    """One line a benchmark: name, k, metric, the paper's number for DeepSeek-R1, where its files are looked for and
    whether they are there; then those that cannot be reproduced."""
    made = [f"{'benchmark':<36}{'k':>3}  {'metric':<18}{'R1':>7}  files"]
    for benchmark in all_of_them().values():
        there = (data_folder() / benchmark.folder).is_dir()
        number = published(benchmark.name)
        place = data_folder() / benchmark.folder
        state = (
            ""
            if there
            else f" (absent: {'downloaded from ' + benchmark.hub if _loads(benchmark) else 'put there by hand'})"
        )
        shown = f"{number.value:g}" if number else "-"
        made.append(f"{benchmark.name:<36}{benchmark.k:>3}  {benchmark.metric:<18}{shown:>7}  {place}{state}")
        if benchmark.note:
            made.append(f"{'':<39}  {benchmark.note}")
    made += ["", "not reproducible:", *(f"  {name}: {reason}" for name, reason in NOT_REPRODUCIBLE.items())]
    return made


def _loads(benchmark: Benchmark) -> bool:
    return bool(benchmark.hub and benchmark.files)
