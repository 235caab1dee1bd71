"""From R1-Zero to R1 and its students: the stages of one seed, each handing its model to the next by path.

    r1_zero ---- cold_start ---- dev1 --- reasoning_rl --- dev2 --- rejection ---+
                                                                                 |
    base ------------------------------------------------------------- sft -- dev3 -- all_scenarios -- r1
    students' bases -------------------------------------------------- sft -- students

Dev1, Dev2, Dev3 are the paper's names for the models between (v2 Table 3).  Every part resumes, or returns at once
when it is done, and where the machine is a GPU it is a process of its own (`child`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from r1repro import config
from r1repro.engine import checkpoint, dist, scorer, vocabulary
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal
from r1repro.run import read_lines, sha256_file, write_lines
from r1repro.stages import child, collect, evaluate, reward_model, rl, sft
from r1repro.stages.r1_zero import base_folder

MODELS = ("base", "r1_zero", "dev1", "dev2", "dev2_twin", "dev3", "r1")
"""The models of the pipeline in the order of their making; the twin is Dev2 without the language-consistency reward."""


def model_of(settings: config.R1, seed_dir: Path | str, name: str) -> Path:
    """Where a model of the pipeline lies: one of `MODELS`, ``<student>``, ``<student>_short`` or ``<student>_base``.

    Raises:
        Refusal: the stage that makes it has not come to its end.
    """
    seed_dir = Path(seed_dir)
    runs = {
        "r1_zero": "r1_zero", "dev1": "dev1/sft", "dev2": "dev2/rl", "dev2_twin": "dev2/twin", "dev3": "dev3/sft",
        "r1": "r1/rl",
    }  # fmt: skip
    if name == "base":
        return base_folder(settings.base)
    if name.endswith("_base"):
        return base_folder(name.removesuffix("_base"))
    run = seed_dir / runs.get(name, f"students/{name}")
    return checkpoint.end_of(run, name)


@child.of_its_own("r1")
def measure(settings: config.R1, seed_dir: Path | str, name: str) -> tuple[Path, Path]:
    """Evaluate a model of the pipeline on reasoning and on open questions; returns the two run folders."""
    model, place = model_of(settings, seed_dir, name), Path(seed_dir) / "models" / name
    return (
        evaluate.run(settings.evaluate, place / "reasoning", model, settings.machine),
        evaluate.run(settings.evaluate_open, place / "open", model, settings.machine),
    )


@child.of_its_own("r1")
def cold_start(settings: config.R1, seed_dir: Path | str) -> Path:
    """Notebook 04: readable long chains of R1-Zero, then SFT of the base on them; returns Dev1."""
    place = Path(seed_dir) / "dev1"
    zero = model_of(settings, seed_dir, "r1_zero")
    examples = collect.collect(settings.cold_start, place / "examples", zero, settings.machine)
    return sft.train(settings.cold_start_sft, place / "sft", base_folder(settings.base), examples, settings.machine)


@child.of_its_own("r1")
def reasoning_rl(settings: config.R1, seed_dir: Path | str) -> tuple[Path, Path]:
    """Notebook 05: reasoning RL of Dev1 with the language-consistency reward, and its twin without; the run folders."""
    place, start = Path(seed_dir) / "dev2", model_of(settings, seed_dir, "dev1")
    rewards = tuple(r for r in settings.reasoning_rl.rewards if r != config.LANGUAGE)
    return (
        rl.train(settings.reasoning_rl, place / "rl", start, settings.machine),
        rl.train(replace(settings.reasoning_rl, rewards=rewards), place / "twin", start, settings.machine),
    )


@child.of_its_own("r1")
def rejection(settings: config.R1, seed_dir: Path | str) -> Path:
    """Notebook 06: the examples of the 800k stage, sampled from Dev2, and SFT of the base on them; returns Dev3."""
    place, teacher = Path(seed_dir) / "dev3", model_of(settings, seed_dir, "dev2")
    examples = rejection_examples(settings, place, teacher)
    return sft.train(settings.sft, place / "sft", base_folder(settings.base), examples, settings.machine)


def by_rule(settings: config.R1, place: Path, teacher: Path, shared: bool = False) -> Path:
    """Examples judged by rule, where `rejection_examples` looks for them; what most of its time goes to.

    Args:
        shared: see `collect.collect`.
    """
    return collect.collect(settings.rejection, place / "by_rule", teacher, settings.machine, shared=shared)


def rejection_examples(settings: config.R1, place: Path, teacher: Path) -> Path:
    """Examples judged by rule and general data, and those judged by the trained judge, in one file."""
    trained = reward_model.train(settings.judge, place / "judge", teacher, settings.machine)
    judge = scorer.Judge(trained, settings.policy, settings.machine)
    ruled = by_rule(settings, place, teacher)
    judged = collect.collect(
        settings.judged, place / "by_judge", teacher, settings.machine, judge=judge, inputs=judge.inputs
    )
    return _joined(place / "examples.jsonl", ruled, judged)


@dist.by_the_first
def _joined(target: Path, *parts: Path) -> Path:
    """The lines of some files in one."""
    write_lines(target, [row for part in parts for row in read_lines(part)])
    return target


@child.of_its_own("r1")
def reward_models(settings: config.R1, seed_dir: Path | str) -> tuple[Path, Path]:
    """The reward models of helpfulness and of safety, both from Dev3; their folders."""
    place, start = Path(seed_dir) / "r1", model_of(settings, seed_dir, "dev3")
    return (
        reward_model.train(settings.helpful, place / "helpful", start, settings.machine),
        reward_model.train(settings.safety, place / "safety", start, settings.machine),
    )


@child.of_its_own("r1")
def scores(settings: config.R1, folder: Path, texts: Sequence[str]) -> tuple[float, ...]:
    """What a reward model says of texts, for who holds none: a notebook's kernel."""
    machine = settings.machine
    model = scorer.load(folder, None, settings.policy, machine, machine.shard)
    return tuple(scorer.shared_scores(model, texts).tolist())


def preference(settings: config.R1, seed_dir: Path | str) -> scorer.Preference:
    """The preference reward of `all_scenarios` by `scores`, for a notebook."""
    folders = reward_models(settings, seed_dir)
    return scorer.Preference(*folders, afar=lambda folder, texts: scores(settings, folder, texts))


@child.of_its_own("r1")
def all_scenarios(settings: config.R1, seed_dir: Path | str) -> Path:
    """Notebook 07: RL of Dev3 with rules, and with the reward models in the last rollouts; the run folder of R1."""
    reward = scorer.Preference(*reward_models(settings, seed_dir), settings.policy, settings.machine)
    start = model_of(settings, seed_dir, "dev3")
    return rl.train(settings.all_scenarios, Path(seed_dir) / "r1" / "rl", start, settings.machine, reward)


@child.of_its_own("r1")
def distill(settings: config.R1, seed_dir: Path | str, student: str) -> tuple[Path, Path]:
    """Notebook 08: SFT of a student's base on the examples of the 800k stage, and of its sibling on short answers.

    Both see as many tokens.  Returns the two models.
    """
    if student not in settings.students:
        known = ", ".join(settings.students)
        raise Refusal(f"no student called {student!r}: choose one of {known}, or name it in the setting students")
    place, examples = Path(seed_dir) / "students", Path(seed_dir) / "dev3" / "examples.jsonl"
    start, cfg = base_folder(student), settings.taught(student)
    short = short_examples(settings, seed_dir, words_of(settings, student))
    return (
        sft.train(cfg, place / student, start, examples, settings.machine),
        sft.train(cfg, place / f"{student}_short", start, short, settings.machine),
    )


def words_of(settings: config.R1, model: str) -> Vocabulary:
    """What a base or a student reads and writes, by its name."""
    return vocabulary.of(base_folder(model), settings.policy.template)


@dist.by_the_first
def short_examples(settings: config.R1, seed_dir: Path | str, words: Vocabulary | None = None) -> Path:
    """The examples of the 800k stage without thinking, repeated until they have as many tokens.

    Args:
        words: who counts the tokens, the student; None: the base of the pipeline.
    """
    words = words or words_of(settings, settings.base)
    examples = sft.read_examples(Path(seed_dir) / "dev3" / "examples.jsonl")
    digest = sha256_file(Path(seed_dir) / "dev3" / "examples.jsonl")[:12]
    target = Path(seed_dir) / "students" / f"short-{digest}-{len(words.tokenizer)}.jsonl"
    if not target.exists():
        tokens = sum(len(words.output(example["output"])) for example in examples)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_lines(target, collect.short_examples(examples, tokens, settings.seed, words))
    return target
