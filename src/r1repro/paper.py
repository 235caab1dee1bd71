"""The paper, served from `papers/deepseek-r1`: its template, settings, results and claims, each with its source.

Nothing of the paper is typed into code: a number that comes from it is read here and carries the section that prints
it.  v1 is arXiv 2501.12948 of January 2025, v2 that of January 2026; Nature is volume 645, pages 633-638.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from r1repro.records import Refusal


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as printed, which may be a phrase; `confirmed` is False where one reader alone read it off a plot."""

    value: str
    source: str
    confirmed: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement of the paper that a run can support or contradict.

    `rule` is what a ledger checks: parts joined by `; `, each `name > number` or `name < number`.  It is empty for a
    claim that this version does not measure; then `untested_because` says why.  `controls` are parts of the same form,
    measured only where the arms beside the main line are run (`CLAIMS=all`); without them a claim is at best a trend.
    `unit` (accuracy, correlation or ratio) sets how narrow an interval must be to count as a measurement.
    """

    id: str
    tier: str
    section: str
    claim: str
    kind: str
    paper_numbers: str
    confirming_observable: str
    contradiction: str
    minimal_experiment: str
    source: str
    rule: str
    controls: str
    unit: str
    untested_because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Where a section of the paper lives here: notebook, whether it `exists`, modules below r1repro, claims."""

    section: str
    title: str
    notebook: str
    exists: bool
    modules: tuple[str, ...]
    claims: tuple[str, ...]


def folder() -> Path:
    """The folder of the paper's data: the one shipped inside the package, else the one of the checkout."""
    package = Path(__file__).resolve().parent
    for place in (package / "_shipped", package.parents[1]):
        if (place / "papers/deepseek-r1").is_dir():
            return place / "papers/deepseek-r1"
    raise Refusal(f"no papers/deepseek-r1 in {package}/_shipped or {package.parents[1]}: install r1repro again")


def template(question: str) -> str:
    """The prompt of R1-Zero for `question`: the paper's Table 1 (section 2.2.3), word for word.

    Plain text, without chat tokens.  It ends in `Assistant:` and the output follows at once.

    Where the paper is silent:
        Whether the full stop after the placeholder belongs to the template.  It is printed, so we keep it; a question
        that ends in its own mark then ends in two ("?.").  The question itself is never altered.
        Line breaks: those of the PDF are its typesetting.  The template is one line.
        Who writes the opening `<think>`.  Here the model does: the template stops before it, so an output is scored
        from its own first token and the format is learned rather than given.  The official README, for later use of
        R1 and not for its training, advises to force `<think>` and a new line.
        How the model learns to box a mathematical answer: the template does not ask for it, and nor do we.

    >>> template("What is 3 + 4?")[-32:]
    'User: What is 3 + 4?. Assistant:'
    """
    before, after = _template()
    return before + question + after


def hyperparameters(stage: str) -> dict[str, Value]:
    """The settings of `stage` by name, as the paper reports them; the stages are listed in the Refusal for another.

    >>> hyperparameters("r1_zero_rl")["clip_epsilon"].value
    'not reported'
    """
    rows = _rows("tables/hyperparameters.csv")
    if stage not in (stages := dict.fromkeys(row["stage"] for row in rows)):
        raise Refusal(f"the paper has no settings for {stage!r}: choose one of {', '.join(stages)}")
    rows = [row for row in rows if row["stage"] == stage]
    return {r["name"]: Value(r["value"], r["source"], r["confirmed"] == "yes", r["note"]) for r in rows}


def constant(stage: str, name: str) -> float:
    """One setting as a number; Refusal (a ValueError) where the paper prints no number or knows no such name.

    >>> constant("r1_zero_rl", "learning_rate")
    3e-06
    """
    values = hyperparameters(stage)
    if name not in values:
        raise Refusal(f"{stage} has no setting {name!r}: choose one of {', '.join(values)}")
    try:
        return float(text := values[name].value)
    except ValueError:
        raise Refusal(f"{stage}.{name} is {text!r}, not a number: read it with hyperparameters({stage!r})") from None


@cache
def claims() -> tuple[Claim, ...]:
    """All claims of the paper that we know how to test, in the order of their ids.

    >>> len(claims()), sum(bool(claim.rule) for claim in claims())
    (33, 32)
    """
    return tuple(Claim(**row) for row in _rows("claims.csv"))


def claim(id: str) -> Claim:
    """The claim with this id.

    >>> claim("C01").rule
    'pass1_gain > 0'
    """
    by_id = {claim.id: claim for claim in claims()}
    if id not in by_id:
        raise Refusal(f"there is no claim {id!r}: ids run from {min(by_id)} to {max(by_id)}")
    return by_id[id]


def table(name: str) -> list[dict[str, str]]:
    """The rows of `tables/<name>.csv`, every cell as text.

    >>> next(row["aime2024_pass1"] for row in table("table2") if row["model"] == "DeepSeek-R1-Zero")
    '71.0'
    """
    if name not in (names := sorted(path.stem for path in (folder() / "tables").glob("*.csv"))):
        raise Refusal(f"the paper has no table {name!r} here: choose one of {', '.join(names)}")
    return [dict(row) for row in _rows(f"tables/{name}.csv")]


def benchmarks() -> list[dict[str, str]]:
    """The paper's benchmarks: protocol, size, licence, and `data_folder`, the name of its data under $R1REPRO_DATA.

    >>> next(row["n_problems"] for row in benchmarks() if row["name"] == "AIME 2024")
    '30'
    """
    return [dict(row) for row in _rows("benchmarks.csv")]


@cache
def section_map() -> tuple[Section, ...]:
    """The sections of the paper in reading order, each with its notebook, modules and claims.

    >>> [section.notebook for section in section_map() if "C01" in section.claims]
    ['03_r1_zero']
    """

    def section(exists: str, modules: str, claims: str, **text: str) -> Section:
        return Section(exists=exists == "yes", modules=tuple(modules.split()), claims=tuple(claims.split()), **text)

    return tuple(section(**row) for row in _rows("map.csv"))


def curve(series: str, *, whole_run: bool = False) -> list[tuple[int, float]]:
    """(step, value) as plotted in v1: Figure 2 (`aime2024_pass1`, `aime2024_cons16`) or 3 (`mean_response_length`).

    `whole_run` adds what v2 plots after step 8400, where the figures of v1 end.

    >>> curve("aime2024_pass1")[-1]
    (8400, 0.7104)
    """
    rows = [row for row in _rows("tables/fig2_fig3.csv") if row["kind"] == "plotted" and row["step"]]
    if series not in (names := dict.fromkeys(row["series"] for row in rows)):
        raise Refusal(f"no curve {series!r} was read from the paper: choose one of {', '.join(names)}")
    rows = [row for row in rows if row["series"] == series and (whole_run or row["figure"].startswith("v1"))]
    return [(int(row["step"]), float(row["value"])) for row in rows]


@cache
def _template() -> list[str]:
    return (folder() / "template.txt").read_text(encoding="utf-8").rstrip("\n").split("{prompt}")


@cache
def _rows(path: str) -> tuple[dict[str, str], ...]:
    with (folder() / path).open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
