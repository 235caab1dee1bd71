"""What a report is made of, read once: seeds, evaluated models, claims, and the address of every run behind a number.

`read` takes it from disk; `Material.runs` is what stands in the table of runs at the foot of the page, and
`Material.anchor` is the place in that table which a number of ours leads to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1repro import ledger, models, paper
from r1repro.config_arms import SUMS
from r1repro.ledger import RunRecord, SeedRuns
from r1repro.models import ARMS, NAMES, STUDENTS, Model
from r1repro.run import read_json, readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of the pipeline: the paper's section, the runs that make its model, and those that measure it."""

    key: str
    section: str
    makes: str
    trained: tuple[str, ...]
    measured: tuple[str, ...]

    @property
    def anchor(self) -> str:
        return f"runs-{self.key}"


STAGES = (
    Stage(
        key="r1-zero", section="2.2.4", makes="R1-Zero", trained=("r1_zero",),
        measured=("evaluate/step-*", f"{SUMS}/step-*", "models/base/*", "models/r1_zero/*"),
    ),
    Stage(
        key="cold-start", section="2.3.1", makes="Dev1", trained=("dev1/examples", "dev1/sft"),
        measured=("models/dev1/*",),
    ),
    Stage(
        key="reasoning-rl", section="2.3.2", makes="Dev2", trained=("dev2/rl", "dev2/twin"),
        measured=("models/dev2/*", "models/dev2_twin/*"),
    ),
    Stage(
        key="rejection", section="2.3.3", makes="Dev3",
        trained=("dev3/judge", "dev3/by_rule", "dev3/by_judge", "dev3/sft"), measured=("models/dev3/*",),
    ),
    Stage(
        key="all-scenarios", section="2.3.4", makes="R1", trained=("r1/helpful", "r1/safety", "r1/rl"),
        measured=("models/r1/*",),
    ),
    Stage(
        key="distillation", section="2.4, 3.2", makes="students", trained=("students/*",),
        measured=tuple(f"models/{name}{kind}/*" for name in STUDENTS for kind in ("", "_base", "_short")),
    ),
    Stage(key="arms", section="", makes="what runs beside the main line", trained=("arms/**",),
          measured=("models/*/*",)),
    Stage(key="variants", section="", makes="other settings", trained=("variants/*/r1_zero",),
          measured=("variants/*/evaluate/step-*",)),
)  # fmt: skip
"""In the order of the pipeline.  Patterns are of folders below a seed's; the first stage that one fits has the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run with its place in the report."""

    seed: int
    name: str
    """Folder below the seed's, the same in every seed: ``models/r1/open``."""

    stage: Stage
    trains: bool
    record: RunRecord
    tokens: dict[str, int]

    @property
    def anchor(self) -> str:
        return f"run-{self.seed}-{_slug(self.name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One tier's runs and what they say."""

    tier: str
    out: Path
    everybody: tuple[SeedRuns, ...]
    """Every evaluated seed, those that were held back too."""

    seeds: tuple[SeedRuns, ...]
    """Those that the claims rest on."""

    models: tuple[dict[str, Model], ...]
    """Of each of these seeds, its evaluated models."""

    runs: tuple[Run, ...]
    variants: tuple[tuple[int, dict], ...]
    """Seed and row of ``variants.json``, for those whose runs are there."""

    @property
    def evaluated(self) -> list[str]:
        """Folders of the pipeline's models that any seed has evaluated, in the order of their making."""
        return [name for name in NAMES if name not in ARMS and any(name in seed for seed in self.models)]

    def anchor(self, name: str) -> str:
        """Where the runs of this name stand, one a seed."""
        assert any(run.name == name for run in self.runs), name
        return f"runs-{_slug(name)}"

    def seed_dir(self, seed: int) -> Path:
        return self.out / self.tier / f"seed-{seed}"

    def problems(self) -> list[str]:
        """Why nothing of this must be published: `ledger.problems` of every run that a number rests on."""
        by_seed = {
            seed.seed: tuple(run.record for run in self.runs if run.seed == seed.seed) for seed in self.everybody
        }
        return ledger.problems([replace(seed, runs=by_seed[seed.seed]) for seed in self.everybody])

    def harder(self) -> str:
        """What was added to rules after the commit of the runs, in a sentence; empty where nothing was."""
        added = ledger.harder(next(run.record.commit or "" for run in self.runs))
        told = ", ".join(f"{claim_id}: {'; '.join(parts)}" for claim_id, parts in added.items())
        return told and f"Added to rules since the commit of the runs, which only makes them harder to meet: {told}."


def read(tier: str, out: Path) -> Material:
    """All runs of a tier that a report tells of; Refusal where there are none, or where one is damaged."""
    out = Path(out)
    everybody = ledger.read(tier, out)
    seeds = ledger.of_the_ledger(everybody)
    chosen = {seed.seed for seed in seeds}
    found = tuple(models.read(out / tier / f"seed-{seed.seed}", out) for seed in seeds)
    known = {record.path: record for seed in everybody for record in seed.runs}
    known |= {record.path: record for seed in found for model in seed.values() for record in model.runs}
    variants = tuple(row for seed in seeds for row in _variants(out / tier / f"seed-{seed.seed}", seed.seed))
    wanted = {f"variants/{row['name']}" for _, row in variants}
    runs = tuple(
        run
        for seed in everybody
        for run in _runs(out, out / tier / f"seed-{seed.seed}", seed.seed, known, whole=seed.seed in chosen)
        if run.stage.key != "variants" or run.name.rsplit("/evaluate", 1)[0].removesuffix("/r1_zero") in wanted
    )
    return Material(
        tier=tier, out=out, everybody=tuple(everybody), seeds=tuple(seeds), models=found, runs=runs, variants=variants
    )


def _runs(out: Path, folder: Path, seed: int, known: dict[str, RunRecord], whole: bool) -> list[Run]:
    """The complete runs of a seed, stage by stage; of a seed that is held back, those of R1-Zero alone."""
    found, taken = [], set()
    for stage in STAGES if whole else STAGES[:1]:
        for pattern in (*stage.trained, *stage.measured):
            for manifest in sorted(folder.glob(f"{pattern}/manifest.json")):
                name = manifest.parent.relative_to(folder).as_posix()
                details = read_json(manifest)
                if name in taken or not isinstance(details, dict) or details.get("exit") != "complete":
                    continue
                taken.add(name)
                path = f"{out.name}/{manifest.parent.relative_to(out).as_posix()}"
                found.append(
                    Run(
                        seed=seed,
                        name=name,
                        stage=stage,
                        trains=pattern in stage.trained,
                        record=known.get(path) or ledger.record(manifest.parent, out),
                        tokens={kind: count for kind, count in details.get("tokens", {}).items() if count},
                    )
                )
    return found


def _variants(folder: Path, seed: int) -> list[tuple[int, dict]]:
    """The rows of variants.json whose evaluations are there: a number without them would have no address."""
    file = folder / "variants.json"
    rows = read_json(file) if file.exists() else []
    with readable(file):
        return [
            (seed, row)
            for row in rows
            if all((folder / evaluation_of(row["name"], step) / "manifest.json").exists() for step in row["by_step"])
        ]


def evaluation_of(variant: str, step: str) -> str:
    """The name of the run that evaluated a variant at a step.

    >>> evaluation_of("ours", "16"), evaluation_of("small_clip", "16")
    ('evaluate/step-000016', 'variants/small_clip/evaluate/step-000016')
    """
    place = "" if variant == "ours" else f"variants/{variant}/"
    return f"{place}evaluate/step-{int(step):06d}"


def title(stage: Stage) -> str:
    """What the stage is called in papers/map.csv, without what follows a colon."""
    found = next((s.title for s in paper.section_map() if s.section == stage.section), stage.makes)
    return found.partition(":")[0].partition(" and its")[0]


def notebook_of(stage: Stage) -> str:
    return next((s.notebook for s in paper.section_map() if s.section == stage.section), "")


def names_of(runs: Sequence[Run]) -> list[str]:
    """The names of runs, each once, in their order."""
    return list(dict.fromkeys(run.name for run in runs))


def _slug(name: str) -> str:
    return name.replace("/", "-")
