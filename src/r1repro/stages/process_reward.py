"""A process reward model: a policy with a scalar head that says, after each step, how likely a right end is (4.2).

Nobody labels steps here.  Solutions are sampled and cut after each line, several continuations are sampled from each
cut, and the label of a step is the share of them that end right: Monte Carlo estimates, as in Math-Shepherd
(2312.08935), by the rule alone.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from r1repro import data
from r1repro.algo import preference
from r1repro.config import Machine
from r1repro.config_arms import ProcessReward
from r1repro.engine import actor as actors
from r1repro.engine import checkpoint, scorer
from r1repro.records import Question
from r1repro.rewards import reasoning
from r1repro.run import Run, write_json
from r1repro.stages import reward_model
from r1repro.tinyworld import base


def train(cfg: ProcessReward, run_dir: Path | str, model_dir: Path | str, machine: Machine | None = None) -> Path:
    """Sample, cut, go on, label and train, or go on, or return at once when done; the folder of the model.

    ``agreement.json`` says how it agrees with the labels of questions that it was not trained on, ``held_out.json``
    what it says of each of their steps.

    Where the paper is silent:
        All of it: there are no numbers.  The model starts from the policy that wrote the solutions, as reward models
        do in `stages.reward_model`.
    """
    machine = machine or Machine()
    return learn(cfg, run_dir, model_dir, lambda: labelled(cfg, model_dir, machine), head=cfg.seed)


def learn(
    cfg: ProcessReward,
    run_dir: Path | str,
    model_dir: Path | str,
    make: Callable[[], list[dict]],
    *,
    head: int | None = None,
    inputs: dict[str, str] | None = None,
) -> Path:
    """Train a process reward model on labelled solutions; returns its folder.

    Args:
        make: the solutions, see `row`.
        head: draws the head of a policy that has none; None: the model in ``model_dir`` is a reward model already.
        inputs: further digests that the solutions depend on.
    """
    digests = {"model": base.digest(model_dir)} | (inputs or {})
    run = Run.open(run_dir, stage="process_reward", config=cfg, inputs=digests, seed=cfg.seed)
    if run.complete:
        return checkpoint.folder_of(run.path, checkpoint.steps_in(run.path)[-1])
    trained, held = reward_model.labels(run, lambda: held_out(make()))
    model, folder = reward_model.fit(run, scorer.load(model_dir, seed=head), trained, cfg, _backward_, "process")
    found = said(model, held)
    write_json(run.path / "held_out.json", found)
    write_json(run.path / "agreement.json", agreement(found) | {"trained on": len(trained)})
    run.finish(examples=len(trained) + len(held))
    return folder


def row(question: Question, prompt: Sequence[int], output: Sequence[int], places: Sequence[int], labels) -> dict:
    """A labelled solution: its tokens, where its steps end (see `scorer.Cut`), and their labels."""
    parts = {"prompt": [*prompt], "output": [*output], "places": [*places], "labels": [*labels]}
    return {"id": question.id} | parts


def held_out(rows: Sequence[dict]) -> list[dict]:
    """Labelled solutions, those to a tenth of the questions marked as held out: to one question at least.

    >>> [row["held_out"] for row in held_out([{"id": "a"}, {"id": "b"}, {"id": "a"}])]
    [True, False, True]
    """
    order = sorted({row["id"] for row in rows}, key=lambda id: random.Random(f"held/{id}").random())
    held = set(order[: max(1, round(reward_model.HELD_OUT * len(order)))])
    return [row | {"held_out": row["id"] in held} for row in rows]


def labelled(cfg: ProcessReward, model_dir: Path | str, machine: Machine) -> list[dict]:
    """Solutions to training questions with the label of each step: the share of continuations that end right.

    The last step of a solution needs none: whether it is right is known.
    """
    questions = data.training_questions(cfg.questions, "process", cfg.seed, cfg.num_questions)
    rows = []
    with closing(actors.load(model_dir, cfg.policy, machine)) as actor:
        for first in tqdm(range(0, len(questions), ROUND), desc="labelling steps", unit="round"):
            rows += _labelled(cfg, questions[first : first + ROUND], actor, first)
    random.Random(f"process/{cfg.seed}").shuffle(rows)
    return rows


ROUND = 128
"""Questions whose solutions are labelled at a time."""


def _labelled(cfg: ProcessReward, questions: Sequence[Question], actor: actors.Actor, first: int) -> list[dict]:
    how = dict(max_tokens=cfg.max_tokens, temperature=cfg.temperature)
    words = actor.vocabulary
    prompts, line_ends = words.prompts(questions), frozenset(words.line_ends())
    samples = actor.sample(questions, cfg.outputs_per_question, key=(cfg.seed, 2**28 + first), **how)
    outputs = actor.tokens(samples)
    asked = np.repeat(np.arange(len(questions)), cfg.outputs_per_question).tolist()
    places = [scorer.cut(line_ends, output) for output in outputs]
    whole = list(zip(asked, outputs, places, strict=True))
    cuts = {(q, *output[: place + 1]): 0.0 for q, output, steps in whole for place in steps[:-1]}
    if cuts:
        begun = [[*prompts[q], *prefix] for q, *prefix in cuts]
        more = actor.tokens(actor.go_on(begun, cfg.continuations, key=(cfg.seed, 2**27 + first), **how))
        for i, (q, *prefix) in enumerate(list(cuts)):
            group = more[i * cfg.continuations : (i + 1) * cfg.continuations]
            cuts[q, *prefix] = share_right(questions[q], [words.text([*prefix, *end]) for end in group])
    return [
        row(questions[q], prompts[q], output, steps, [
            *(cuts[q, *output[: place + 1]] for place in steps[:-1]), share_right(questions[q], [words.text(output)]),
        ])
        for q, output, steps in whole
    ]  # fmt: skip


def share_right(question: Question, texts: Sequence[str]) -> float:
    """The share of outputs that are right, among those that the grader could judge; 0 if it could judge none."""
    scores = reasoning.accuracy([question] * len(texts), texts)
    return float(np.mean([score.value for score in scores if score.value is not None] or [0.0]))


def _backward_(model, rows: Sequence[dict], cfg: ProcessReward) -> tuple[float, float]:
    loss, agreed = _loss(model, rows, cfg)
    loss.backward()
    return loss.item(), agreed


def _loss(model, rows: Sequence[dict], cfg: ProcessReward) -> tuple[torch.Tensor, float]:
    """Cross-entropy of all steps of some solutions, and the share of them that are judged as labelled."""
    score_M = scorer.step_scores(model, *_cut(rows))
    label_M = torch.tensor([label for row in rows for label in row["labels"]], dtype=score_M.dtype)
    right = ((score_M > 0) == (label_M > 0.5)).double().mean().item()
    return preference.point_loss(score_M, label_M), right


def _cut(rows: Sequence[dict]) -> tuple[list[list[int]], list[scorer.Cut]]:
    """Prompts and outputs of some rows; each has its own prompt."""
    return [row["prompt"] for row in rows], [scorer.Cut(i, row["output"], row["places"]) for i, row in enumerate(rows)]


def said(model, rows: Sequence[dict]) -> list[dict]:
    """What the model says of each step of some solutions, beside the labels."""
    values = scorer.step_values(model, *_cut(rows))
    return [
        {"id": row["id"], "values": value, "labels": row["labels"]} for row, value in zip(rows, values, strict=True)
    ]


def agreement(found: Sequence[dict]) -> dict[str, float]:
    """How a model agrees with the labels of solutions that it was not trained on.

    ``ranking``: of every right and every wrong solution to one question, how often the right one has the higher value
    at its end; 0.5 is chance.
    """
    steps = [pair for row in found for pair in list(zip(row["values"], row["labels"], strict=True))[:-1]]
    ends = [(row["values"][-1], row["labels"][-1]) for row in found]
    result = {"solutions": len(found), "steps": len(steps) + len(ends)}
    for name, pairs in (("all steps", steps + ends), ("steps before the end", steps), ("whole solutions", ends)):
        if pairs:
            result[f"agreement, {name}"] = float(np.mean([(value > 0.5) == (label > 0.5) for value, label in pairs]))
            result[f"always saying wrong, {name}"] = float(np.mean([label <= 0.5 for _, label in pairs]))
    better, worse = [], []
    for id in dict.fromkeys(row["id"] for row in found):
        own = [(row["values"][-1], row["labels"][-1]) for row in found if row["id"] == id]
        pairs = [(a, b) for a, right in own for b, wrong in own if right == 1.0 and wrong == 0.0]
        better += [a for a, _ in pairs]
        worse += [b for _, b in pairs]
    if better:
        result["ranking"] = preference.agreement(torch.tensor(better), torch.tensor(worse))
    return result
