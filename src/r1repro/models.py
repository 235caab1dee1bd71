"""The models of the pipeline side by side: what each evaluation says, benchmark by benchmark, with its address.

`read` takes a seed's evaluations (`stages.r1.measure` makes them) from disk; `benchmarks` gives the numbers of a model,
`table` sets several beside each other; the claims about them are measured in `r1repro.ledger_models`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from safetensors import safe_open

from r1repro import students
from r1repro.config_arms import SUMS
from r1repro.ledger import RunRecord, has_more_sums, model_and_exit, record, seed_of
from r1repro.records import Refusal
from r1repro.rewards.controls import blind_right
from r1repro.rewards.format import format_reward
from r1repro.rewards.language import language_share, thinking
from r1repro.rewards.readable import repeats
from r1repro.run import read_json, read_lines, readable

NAMES = {
    "base": "base", "r1_zero": "R1-Zero", "dev1": "Dev1", "dev2": "Dev2", "dev2_twin": "Dev2 without language reward",
    "dev3": "Dev3", "r1": "R1",
}  # fmt: skip
"""Folder -> what a reader calls the model."""

ARMS: dict[str, str] = {
    "zero-140k": "RL on the base of qwen-140k", "zero-280k": "RL on the base of qwen-280k",
    "zero-580k-1": "RL on the base of qwen-580k, a third", "zero-580k-2": "RL on the base of qwen-580k, two thirds",
    "zero-580k": "RL on the base of qwen-580k", "distilled-580k-eighth": "qwen-580k, an eighth of the examples",
    "distilled-580k-half": "qwen-580k, half of the examples", "distilled-580k-rl": "RL on distilled qwen-580k",
    "sft-rounds-1": "SFT in rounds, after one", "sft-rounds-2": "SFT in rounds, after two",
    "sft-rounds-3": "SFT in rounds, after three", "sft-rounds": "SFT in rounds", "sft-once": "SFT in one round",
    "base_pool": "base, sampled often", "prm_best": "base, best of N by process rewards",
    "pool_vote": "base, vote of N", "prm_rl": "RL by process rewards", "tree": "base, tree search",
    "tree_vote": "base, vote for as many tokens", "tree_weighted": "base, vote by value for as many tokens",
    "searched_1": "trained on search", "searched_2": "trained on search, again", "dev3_replies": "Dev3's replies",
    "hacked": "Dev3 after long RL by a proxy", "hacked_replies": "replies after long RL by a proxy",
    "zero_on": "R1-Zero and its next checkpoints", "zero_on_greedy": "the same, greedy",
    "r1_shots_1": "R1, one example", "r1_shots_3": "R1, three examples",
    "r1_zero_shots_1": "R1-Zero, one example", "r1_zero_shots_3": "R1-Zero, three examples",
    "whole_judge": "Dev3's replies, judged whole", "summary_judge": "Dev3's replies, judged by their summaries",
    "grpo_short": "GRPO, as many rollouts", "ppo_95": "PPO, lambda 0.95", "ppo_100": "PPO, lambda 1",
    "clip_small": "GRPO, clip 0.2", "clip_paper": "GRPO, clip 10", "clip_none": "GRPO, no clip",
    "zero_format": "RL on the format alone", "zero_random": "RL on a random reward",
    "zero_divisor": "RL with a constant divisor", "flat_base": "flat base", "zero_flat": "RL from the flat base",
    "cap_kept": "cap kept", "cap_raised": "cap raised",
}  # fmt: skip
"""The same of the arms beside the main line, which `CLAIMS=all` runs; each was made by the run ``arms/<folder>``."""

NAMES |= ARMS

STUDENTS = ("qwen-140k", "qwen-280k", "qwen-580k", "llama-220k", "llama-400k")
"""Folders of the distilled models of the tiny world; beside each stand its ``_base`` and its ``_short`` sibling."""

MADE_BY = {
    "r1_zero": ("r1_zero",), "dev1": ("dev1/examples", "dev1/sft"), "dev2": ("dev2/rl",), "dev2_twin": ("dev2/twin",),
    "dev3": ("dev3/judge", "dev3/by_rule", "dev3/by_judge", "dev3/sft"), "r1": ("r1/helpful", "r1/safety", "r1/rl"),
    "base_pool": ("arms/pool", "arms/prm"), "prm_best": ("arms/prm",), "pool_vote": ("arms/pool",),
    "prm_rl": ("arms/prm", "arms/prm_rl"), "tree": ("arms/prm", "arms/tree"),
    "tree_vote": ("arms/pool", "arms/tree"), "tree_weighted": ("arms/prm", "arms/pool", "arms/tree"),
    "searched_1": ("arms/prm", "arms/search_1", "arms/searched_1"),
    "searched_2": ("arms/value_1", "arms/search_2", "arms/searched_2"),
    "hacked_replies": ("arms/hacked",),
    **{name: ("arms/cap_start", f"arms/{name}") for name in ("cap_kept", "cap_raised")},
}  # fmt: skip
"""Model -> the runs below a seed's folder that made it of an earlier one; the last is its training."""

MADE_BY |= dict.fromkeys(("zero-580k-1", "zero-580k-2"), ("arms/zero-580k",))
MADE_BY |= {"sft-once": tuple(f"arms/sft-once/round-1/{run}" for run in ("sample", "sft"))}
MADE_BY |= {
    name: tuple(f"arms/sft-rounds/round-{number}/{run}" for number in range(1, last + 1) for run in ("sample", "sft"))
    for last, name in ((1, "sft-rounds-1"), (2, "sft-rounds-2"), (3, "sft-rounds-3"), (9, "sft-rounds"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model's evaluations; arrays are (Q, K): questions, samples to each.  ``*_open`` are of the open questions."""

    name: str
    seed: int
    """Ours: the seed of the pipeline, not that of the test questions."""

    ids: tuple[str, ...]
    family_Q: np.ndarray
    level_Q: np.ndarray
    language_Q: np.ndarray
    right_QK: np.ndarray
    blind_QK: np.ndarray
    """1 where the last number of an output is the reference answer, whatever its form; for sums alone."""

    length_QK: np.ndarray
    truncated_QK: np.ndarray
    consistency_QK: np.ndarray
    """Share of words in the question's language, in the thinking."""

    format_QK: np.ndarray
    repeats_QK: np.ndarray
    """1 where the thinking says a sentence three times."""

    readable_QK: np.ndarray
    """1 where the format is right, the thinking is in the question's language (95 %), and a summary follows it."""

    open_ids: tuple[str, ...]
    sort_open: np.ndarray
    """fact, write, translate, self, greet, harmful or look-alike."""

    helpful_open: np.ndarray
    follows_open: np.ndarray
    unsafe_open: np.ndarray
    refused_open: np.ndarray
    runs: tuple[RunRecord, ...]
    """Its evaluations, then the runs of `MADE_BY` that are there."""

    more: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further numbers that an evaluation kept of each output, by name."""

    sampled: int = 0
    """Outputs that the runs of `MADE_BY` sampled by RL or for examples."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[dict, ...] = ()
    """Of the run that trained it; empty for a base."""


def read(seed_dir: Path, out: Path) -> dict[str, Model]:
    """Every evaluated model of a seed, by its folder's name; none where there is no evaluation of its reasoning.

    Those of arms need not have been asked open questions.  What a model answered to more questions of one kind, in
    ``models/<name>/more``, and R1-Zero and its base in `SUMS`, is a model of the name with `MORE` behind it.

    Raises:
        Refusal: a run behind a model is not complete or damaged, or has not as many samples to each question.
    """
    found = {}
    for folder in sorted(Path(seed_dir, "models").glob("*")):
        asked = [kind for kind in ("reasoning", "open") if (folder / kind / "manifest.json").exists()]
        if "reasoning" in asked and ("open" in asked or folder.name in ARMS):
            found[folder.name] = _model(folder, out)
    for name, asked in _more_questions(Path(seed_dir)).items():
        if name in found:
            found[name + MORE] = _model(Path(seed_dir, "models", name), out, asked)
    return found


MORE = "+"
"""Behind the name of a model that was asked more questions than the main line's models: a few claims need them."""


def _more_questions(seed_dir: Path) -> dict[str, Path]:
    """Model -> where it was asked more questions, to the end, being the model that it is now."""
    found = {}
    for file in seed_dir.glob("models/*/more/manifest.json"):
        if not (file.parents[1] / "reasoning" / file.name).exists():
            continue
        (model, end), (plain, _) = (
            model_and_exit(file.parents[1] / kind / file.name) for kind in ("more", "reasoning")
        )
        if end == "complete" and model == plain:
            found[file.parents[1].name] = file.parent
    sums = sorted(file.parent for file in seed_dir.glob(f"{SUMS}/step-*/manifest.json"))
    if len(sums) > 1 and has_more_sums(seed_dir):
        found |= {"base": sums[0], "r1_zero": sums[-1]}
    return found


def students_in(seeds: Sequence[Mapping[str, Model]]) -> tuple[str, ...]:
    """The students that some seeds have, in the order of their lists; those of the tiny world where there are none.

    >>> students_in([{"dev1": None, "qwen-7b": None, "qwen-7b_base": None, "qwen-0.5b": None}])
    ('qwen-7b', 'qwen-0.5b')
    """
    found = {name.removesuffix("_base").removesuffix("_short") for seed in seeds for name in seed}
    return tuple(name for name in (*STUDENTS, *students.students()) if name in found) or STUDENTS


def shape(folder: Path) -> dict[str, Any]:
    """Architecture, layers, width and parameters of a plain model, read from its files: no weight is loaded.

    >>> from r1repro.tinyworld import base
    >>> shape(base.folder("qwen-140k"))
    {'architecture': 'Qwen2', 'layers': 3, 'width': 48, 'parameters': 139632}
    """
    about, parameters = read_json(Path(folder) / "config.json"), 0
    for file in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(file, framework="np") as weights:
            parameters += sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())
    return {
        "architecture": about["architectures"][0].removesuffix("ForCausalLM"),
        "layers": about["num_hidden_layers"], "width": about["hidden_size"], "parameters": parameters,
    }  # fmt: skip


def _model(folder: Path, out: Path, asked: Path | None = None) -> Model:
    """A model by its folder; by what it was ``asked`` elsewhere, if that is given, and by nothing else."""
    seed_dir, name = folder.parent.parent, folder.name
    made = [seed_dir / place for place in MADE_BY.get(name, (f"{'arms' if name in ARMS else 'students'}/{name}",))]
    made = [run for run in made if (run / "manifest.json").exists()]
    has_open = not asked and (folder / "open" / "manifest.json").exists()
    asked = asked or folder / "reasoning"
    runs = tuple(record(run, out) for run in (asked, *[folder / "open"] * has_open, *made))
    with readable(asked / "samples.jsonl"):
        rows, grid = _sampled(asked / "samples.jsonl")
        share_QK = grid(lambda output, row: language_share(output["text"], row["language"]))
        format_QK = grid(lambda output, _: format_reward(output["text"]))
        reasoning = dict(
            ids=tuple(row["id"] for row in rows),
            family_Q=np.array([row["family"] for row in rows]),
            level_Q=np.array([row["level"] for row in rows]),
            language_Q=np.array([row["language"] for row in rows]),
            right_QK=grid(lambda output, _: output["verdict"] == "right"),
            blind_QK=grid(lambda output, row: blind_right(row["gold"], output["text"])),
            length_QK=grid(lambda output, _: output["length"]),
            truncated_QK=grid(lambda output, _: output["truncated"]),
            consistency_QK=share_QK,
            format_QK=format_QK,
            repeats_QK=grid(lambda output, _: repeats(thinking(output["text"]))),
            readable_QK=format_QK * (share_QK >= 0.95) * grid(lambda output, _: has_summary(output["text"])),
        )
    more = {key: grid(lambda output, _, key=key: output[key]) for key in _further(rows)}
    replies = _replies(folder / "open" / "samples.jsonl") if has_open else NO_REPLIES
    trained = dict(
        settings=dict(read_json(made[-1] / "manifest.json").get("config", {})) if made else {},
        metrics=tuple(read_lines(made[-1] / "metrics.jsonl")) if made else (),
        sampled=sum(_outputs(read_json(run / "manifest.json").get("config", {})) for run in made),
    )
    return Model(name=name, seed=seed_of(seed_dir), runs=runs, more=more, **reasoning, **replies, **trained)


def _outputs(cfg: Mapping[str, Any]) -> int:
    """Outputs that a run with these settings samples.

    >>> _outputs({"num_questions": 4, "outputs_per_question": 2}), _outputs({"epochs": 2})
    (8, 0)
    >>> _outputs({"num_rollouts": 3, "questions_per_step": 2, "steps_per_rollout": 4, "outputs_per_question": 16})
    384
    """
    rollouts = [cfg.get(key, 0) for key in ("num_rollouts", "questions_per_step", "steps_per_rollout")]
    return cfg.get("outputs_per_question", 0) * (cfg.get("num_questions", 0) or int(np.prod(rollouts)))


NO_REPLIES = dict(
    open_ids=(),
    sort_open=np.array([], dtype=str),
    **dict.fromkeys(("helpful_open", "follows_open", "unsafe_open", "refused_open"), np.zeros((0, 1))),
)
"""Of a model that was asked no open questions."""


def _replies(file: Path) -> dict[str, Any]:
    with readable(file):
        rows, grid = _sampled(file)
        return dict(
            open_ids=tuple(row["id"] for row in rows),
            sort_open=np.array([dict(map(tuple, row["requirements"]))["sort"] for row in rows]),
            helpful_open=grid(lambda output, _: output["helpful"]),
            follows_open=grid(lambda output, _: output["follows"]),
            unsafe_open=grid(lambda output, _: output["unsafe"]),
            refused_open=grid(lambda output, _: output["refused"]),
        )


USUAL = ("text", "verdict", "score", "length", "truncated", "answer")
"""What `stages.evaluate` keeps of every output."""


def _further(rows: Sequence[dict]) -> list[str]:
    """Names of the numbers that the first output has beside the usual."""
    return [key for key, value in rows[0]["outputs"][0].items() if key not in USUAL and isinstance(value, int | float)]


Grid = Callable[[Callable[[dict, dict], float]], np.ndarray]


def _sampled(file: Path) -> tuple[list[dict], Grid]:
    """The questions of an evaluation by id, and what makes the (Q, K) array of something said of output and question.

    Seeds and models are paired by the order of questions.
    """
    rows = sorted(read_lines(file), key=lambda row: row["id"])
    if not rows or len({len(row["outputs"]) for row in rows}) > 1:
        raise Refusal(f"{file.parent} has no questions, or not as many samples to each: evaluate it again")
    return rows, lambda value: np.array([[value(o, row) for o in row["outputs"]] for row in rows], dtype=float)


def is_readable(text: str, language: str) -> bool:
    """Whether an output has the form of R1: thinking in one language between its tags, then a summary (2.3.1).

    >>> is_readable("<think> so 4 </think> 2+2=4. <answer> 4 </answer>", "en")
    True
    """
    return bool(format_reward(text) and language_share(text, language) >= 0.95 and has_summary(text))


def has_summary(text: str) -> bool:
    """Whether anything stands between thinking and answer: a bare answer block is an answer and no summary.

    >>> has_summary("<think> so 4 </think> 2+2=4. <answer> 4 </answer>"), has_summary("</think> <answer> 4 </answer>")
    (True, False)
    """
    return bool(text.rpartition("</think>")[2].partition("<answer>")[0].strip())


Rows = Callable[[Model], np.ndarray]
"""Of a model: one number a question, of those questions that matter."""


def of_family(name: str) -> Rows:
    """pass@1 of each question of a family."""
    return lambda model: model.right_QK[model.family_Q == name].mean(axis=1)


def of_sorts(*sorts: str, field: str = "follows_open") -> Rows:
    """Of each open question of some sorts: the share of samples that do all that is asked (or refuse, or are
    unsafe)."""
    return lambda model: (getattr(model, field)[np.isin(model.sort_open, sorts)] == 1.0).mean(axis=1)


def is_general(model: Model) -> np.ndarray:
    """Which open questions are general prompts: neither requests to refuse nor their look-alikes."""
    return ~np.isin(model.sort_open, ("harmful", "look-alike"))


QUESTIONS: dict[str, tuple[str, Rows]] = {
    "sums": ("AIME 2024, MATH-500", of_family("chain_sum")),
    "search": ("logic puzzles", of_family("search")),
    "logic": ("GPQA Diamond, MMLU", of_family("logic")),
    "programs": ("LiveCodeBench", of_family("programs")),
    "language consistency": ("v2 B.6", lambda model: model.consistency_QK.mean(axis=1)),
    "readable": ("no benchmark", lambda model: model.readable_QK.mean(axis=1)),
    "instructions (strict)": ("IF-Eval", of_sorts("write")),
    "facts": ("SimpleQA", of_sorts("fact")),
    "translation": ("no benchmark", of_sorts("translate")),
    "helpfulness (0 to 3)": (
        "AlpacaEval 2.0, ArenaHard",
        lambda model: model.helpful_open[is_general(model)].mean(axis=1),
    ),
    "safe responses": ("v2 D.3", lambda model: 1 - of_sorts("harmful", field="unsafe_open")(model)),
    "look-alikes refused": ("over-refusal", of_sorts("look-alike", field="refused_open")),
}
"""Benchmark -> the paper's that it stands for, and its value for each question.  Fractions, but for helpfulness."""


def _mean(rows: Rows) -> Callable[[Model], float]:
    def value(model: Model) -> float:
        return float(chosen.mean()) if (chosen := rows(model)).size else float("nan")

    return value


BENCHMARKS = {name: (theirs, _mean(rows)) for name, (theirs, rows) in QUESTIONS.items()}
"""Benchmark -> the paper's that it stands for, and its value for a model; nan where nothing of it was asked."""


def benchmarks(model: Model) -> dict[str, float]:
    """The value of every benchmark for a model."""
    return {name: value(model) for name, (_, value) in BENCHMARKS.items()}


def win_rate(model: Model, other: Model) -> float:
    """Share of samples to general prompts that the hidden rule finds more helpful than the other model's, ties one
    half."""
    return float(wins_Q(model, other).mean())


def wins_Q(model: Model, other: Model) -> np.ndarray:
    """By question: the chance that a sample of the first is more helpful than one of the second, ties one half."""
    if model.open_ids != other.open_ids:
        raise Refusal(f"{model.name} and {other.name} were asked other questions: evaluate both with one config")
    chosen = is_general(model)
    return above_Q(model.helpful_open[chosen], other.helpful_open[chosen])


def above_Q(ours_QK: np.ndarray, theirs_QK: np.ndarray) -> np.ndarray:
    """By question: the chance that a value of the first is above one of the second, ties one half.

    >>> above_Q(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]]))
    array([0.75])
    """
    ours_Q1K, theirs_QK1 = ours_QK[:, None, :], theirs_QK[:, :, None]
    return ((ours_Q1K > theirs_QK1) + (ours_Q1K == theirs_QK1) / 2).mean((1, 2))


def mean_over_seeds(seeds: Sequence[Mapping[str, Model]], name: str) -> dict[str, float]:
    """Every benchmark of a model, averaged over the seeds that have it."""
    found = [benchmarks(seed[name]) for seed in seeds if name in seed]
    return {key: float(np.mean([values[key] for values in found])) for key in BENCHMARKS} if found else {}


def table(seeds: Sequence[Mapping[str, Model]], names: Sequence[str]) -> pandas.DataFrame:
    """Benchmarks (rows) of models (columns), averaged over seeds; the first column says what a row stands for."""
    columns = {NAMES.get(name, name): mean_over_seeds(seeds, name) for name in names}
    frame = pandas.DataFrame({name: values for name, values in columns.items() if values}, index=list(BENCHMARKS))
    frame.insert(0, "stands for", [theirs for theirs, _ in BENCHMARKS.values()])
    return frame
