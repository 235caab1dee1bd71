"""Notebook 11: models of the main line asked otherwise (sections 3 and 5), and GRPO's choices beside others (v2 A.3).

    protocol/greedy/step-<n>    greedy evaluations of R1-Zero's checkpoints and of those after its end
    protocol/sampled/step-<n>   sampled ones of those after its end
    protocol/sums/step-<n>      R1-Zero's checkpoints asked more sums, which its claims are measured on
    models/zero_on_greedy, models/zero_on         both of neighbouring checkpoints, each as one evaluation
    models/r1_shots_<n>, models/r1_zero_shots_<n> few-shot; models/r1*/more  R1 asked more questions, with and without
    arms/whole_judge              a judge that reads the whole output
    models/whole_judge, models/summary_judge      the same replies, judged by it and by their summaries alone
    arms/ppo_*, arms/clip_*, and their models     RL from the base, beside R1-Zero after as many rollouts

Every part resumes, or returns at once when it is done.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from r1repro import config
from r1repro.config import Evaluate
from r1repro.config_arms import CLIPS, LAMBDAS, SHOTS, SUMS, Protocol
from r1repro.engine import checkpoint, scorer
from r1repro.records import Question, Refusal
from r1repro.rewards.language import thinking
from r1repro.rewards.readable import loops
from r1repro.run import Run, read_lines, sha256_file, write_json
from r1repro.stages import arms, evaluate, ppo, r1, reward_model, rl
from r1repro.stages.r1_zero import base_folder
from r1repro.tinyworld import base, tokenizer

# Greedy beside sampling


def neighbours(settings: Protocol, seed_dir: Path | str) -> dict[int, Path]:
    """Step -> checkpoint of R1-Zero at its end and, trained on, after each further rollout: with little to learn left,
    what changes between them is mostly chance."""
    end = r1.model_of(settings, seed_dir, "r1_zero")
    run = rl.train(settings.on, arms.run_of(seed_dir, "zero_on"), end, settings.machine)
    first = step_of(end)
    return {first + step: checkpoint.folder_of(run, step) for step in checkpoint.steps_in(run) if step} | {first: end}


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its folder's name.

    >>> step_of(Path("r1_zero/checkpoints/step-000064"))
    64
    """
    return int(Path(folder).name.removeprefix("step-"))


def greedy(settings: Protocol, seed_dir: Path | str) -> tuple[Path, Path]:
    """Neighbouring checkpoints, sampled and greedy; the two evaluations.

    Each checkpoint is sampled with noise of its own: with the noise of its neighbour it would be like it for no merit
    of the sampling.
    """
    place, found = Path(seed_dir) / "protocol", sorted(neighbours(settings, seed_dir).items())
    sampled = {found[0][0]: Path(seed_dir) / "models" / "r1_zero" / "reasoning"}
    sampled |= {step: place / "sampled" / f"step-{step:06d}" for step, _ in found[1:]}
    certain = {step: place / "greedy" / f"step-{step:06d}" for step, _ in found}
    for draw, (step, model) in enumerate(found):
        evaluate.run(replace(settings.evaluate, draw=draw), sampled[step], model, settings.machine)
        evaluate.run(_greedy(settings.evaluate), certain[step], model, settings.machine)
    return (
        gathered(settings.evaluate, Path(seed_dir) / "models" / "zero_on" / "reasoning", sampled),
        gathered(_greedy(settings.evaluate), Path(seed_dir) / "models" / "zero_on_greedy" / "reasoning", certain),
    )


def _greedy(cfg: Evaluate) -> Evaluate:
    return replace(cfg, greedy=True, k=1)


def greedy_while_trained(settings: Protocol, seed_dir: Path | str) -> dict[int, Path]:
    """Greedy evaluations of all that R1-Zero has kept, from the untouched base on, beside notebook 03's samples of
    them; by step."""
    zero, found = config.r1_zero(settings.tier, settings.seed), {}
    for step in rl.kept_steps(zero.rl):
        model = checkpoint.folder_of(Path(seed_dir) / "r1_zero", step)
        place = Path(seed_dir) / "protocol" / "greedy-while-trained" / f"step-{step:06d}"
        found[step] = evaluate.run(_greedy(zero.evaluate), place, model, settings.machine)
    return found


def more_sums(settings: Protocol, seed_dir: Path | str) -> dict[int, Path]:
    """All that R1-Zero has kept, asked as many sums as its claims need to be known narrowly; by step.

    Notebook 03 asks few, in the time that a reader has; a report takes these where every seed has them.
    """
    steps, machine = rl.kept_steps(config.r1_zero(settings.tier, settings.seed).rl), settings.machine
    places = {step: Path(seed_dir) / SUMS / f"step-{step:06d}" for step in steps}
    for step, place in places.items():
        evaluate.run(settings.sums, place, checkpoint.folder_of(Path(seed_dir) / "r1_zero", step), machine)
    return places


def gathered(cfg: Evaluate, run_dir: Path | str, parts: Mapping[int, Path]) -> Path:
    """Evaluations of several checkpoints as one, the outputs of all to a question in one row; returns the run folder.

    Each output keeps its ``checkpoint``, and whether it ``loops`` (`readable.loops`).
    """

    def row(rows: tuple[dict, ...]) -> dict:
        outputs = [
            {**output, "checkpoint": step, "loops": int(loops(output["text"]))}
            for step, part in zip(parts, rows, strict=True)
            for output in part["outputs"]
        ]
        return rows[0] | {"outputs": outputs}

    return _derived(cfg, run_dir, {f"step {step}": part for step, part in parts.items()}, row)


def _derived(
    cfg: Evaluate,
    run_dir: Path | str,
    parts: Mapping[str, Path],
    row_of: Callable[[tuple[dict, ...]], dict | None],
    inputs: Mapping[str, str] | None = None,
) -> Path:
    """An evaluation made of others: a row of the rows to the same question, or none.  Returns the run folder.

    Raises:
        Refusal: the parts asked different questions.
    """
    digests = {name: sha256_file(part / "samples.jsonl") for name, part in parts.items()} | dict(inputs or {})
    run = Run.open(run_dir, stage="derived", config=cfg, inputs=digests, seed=cfg.seed)
    if run.complete:
        return run.path
    rows = [read_lines(part / "samples.jsonl") for part in parts.values()]
    if len({tuple(row["id"] for row in part) for part in rows}) > 1:
        raise Refusal(f"{', '.join(map(str, parts.values()))} asked different questions: evaluate them with one config")
    run.rewind(0)
    run.add_samples(filter(None, map(row_of, zip(*rows, strict=True))))
    write_json(run.path / "summary.json", evaluate.summarise(run.samples()))
    run.finish()
    return run.path


# Few-shot beside zero-shot


def few_shot(settings: Protocol, seed_dir: Path | str) -> list[Path]:
    """R1 and R1-Zero with worked examples before each question; the evaluations, `SHOTS` of each model.

    R1 is asked more questions besides, without examples too, for the claim is about it.
    """
    for shots in (0, *SHOTS):
        arms.measure(
            replace(settings.more, shots=shots), seed_dir, f"r1_shots_{shots}" if shots else "r1",
            r1.model_of(settings, seed_dir, "r1"), settings.machine, kind="more",
        )  # fmt: skip
    return [
        arms.measure(
            replace(settings.evaluate, shots=shots), seed_dir, f"{name}_shots_{shots}",
            r1.model_of(settings, seed_dir, name), settings.machine,
        )
        for name in ("r1", "r1_zero")
        for shots in SHOTS
    ]  # fmt: skip


# The whole output beside its summary

JUDGED = "dev3"
"""Whose replies are judged twice: the policy whose outputs both judges learned from, so that neither was trained
against."""


def judged_twice(settings: Protocol, seed_dir: Path | str) -> tuple[Path, Path]:
    """Dev3's replies to general prompts, scored by notebook 07's helpfulness model, which reads the summary, and by one
    that reads the whole output; the two evaluations.

    Both start from the same weights and learn from the same pairs in the same order.  That long is good is in no
    label: the hidden rule reads the final answer alone.
    """
    seed_dir, start = Path(seed_dir), r1.model_of(settings, seed_dir, JUDGED)
    judges = {
        "summary": checkpoint.end_of(seed_dir / "r1" / "helpful", "the helpfulness model"),
        "whole": reward_model.train(settings.whole, arms.run_of(seed_dir, "whole_judge"), start, settings.machine),
    }
    return tuple(
        judged(settings.evaluate, seed_dir, f"{name}_judge", "helpful" if name == "summary" else name, judge)
        for name, judge in judges.items()
    )


def judged(cfg: Evaluate, seed_dir: Path, name: str, kind: str, judge: Path) -> Path:
    """The replies with what a judge says of each (``judged``), and the tokens of its ``thinking``; the evaluation.

    Args:
        kind: what the judge reads, see `scorer.reads`.
    """
    source = seed_dir / "models" / JUDGED / "open"
    if not (source / "samples.jsonl").exists():
        raise Refusal(f"{source} holds no replies: run the notebook that makes {JUDGED} first")
    model, words = scorer.load(judge), tokenizer.load()

    def row(same: tuple[dict, ...]) -> dict | None:
        (given,) = same
        if given["family"] != "general":
            return None
        question = Question(text=given["question"], **{key: given[key] for key in KEPT})
        texts = [output["text"] for output in given["outputs"]]
        scores = scorer.scores(model, [scorer.reads(kind, question, text) for text in texts]).tolist()
        outputs = [
            {**output, "thinking": len(words.encode(thinking(text))), "judged": score}
            for output, text, score in zip(given["outputs"], texts, scores, strict=True)
        ]
        return given | {"outputs": outputs}

    place, digest = seed_dir / "models" / name / "reasoning", base.digest(judge)
    return _derived(replace(cfg, questions="open"), place, {"replies": source}, row, {"judge": digest})


KEPT = ("id", "gold", "language", "level", "family")


# PPO and the clip range


def reinforced(settings: Protocol, seed_dir: Path | str) -> None:
    """The arms of RL, each from the base with R1-Zero's questions and rewards: PPO, beside R1-Zero's own checkpoint
    after as many rollouts; and the clip ranges, the paper's among them.

    Where the paper's range never cut a token, the run without a clip is the same run, number for number, and is not
    made: its model is that one.
    """
    start, machine = base_folder(settings.base), settings.machine
    for name, lam in LAMBDAS.items():
        ppo.train(replace(settings.ppo, gae_lambda=lam), arms.run_of(seed_dir, name), start, machine)
    for name, epsilon in CLIPS.items():
        if name != "clip_none" or cuts(arms.run_of(seed_dir, "clip_paper")):
            cfg = replace(settings.clip, clip_low=epsilon, clip_high=epsilon)
            rl.train(cfg, arms.run_of(seed_dir, name), start, machine)
    for name in (*LAMBDAS, *CLIPS):
        made = name if arms.run_of(seed_dir, name).exists() else "clip_paper"
        arms.measure(settings.evaluate, seed_dir, name, arms.model_of(seed_dir, made), machine)
    arms.measure(settings.evaluate, seed_dir, "grpo_short", after_as_many(settings, seed_dir), machine)


def cuts(run: Path) -> bool:
    """Whether the clip took the gradient of any token in any step of a run."""
    return any(row.get("policy/clip_share", 0) > 0 for row in read_lines(run / "metrics.jsonl"))


def after_as_many(settings: Protocol, seed_dir: Path | str) -> Path:
    """R1-Zero's checkpoint after as many steps as the arms of PPO have.

    Raises:
        Refusal: R1-Zero kept none there.
    """
    folder = checkpoint.folder_of(Path(seed_dir) / "r1_zero", settings.ppo.num_steps)
    if not folder.exists():
        raise Refusal(f"{folder} is not there: run the notebook that makes r1_zero first, with its own checkpoints")
    return folder
