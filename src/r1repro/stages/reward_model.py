"""Reward models: helpfulness from pairs, safety and the judge of rejection sampling from labels (2.3.3, 2.3.4).

The preferences of this world come from its hidden rules (`tinyworld.gold`), as those of the paper come from a judge
model and from people.  Helpfulness is judged several times with noise, the mean counts, pairs that are nearly equal
are dropped, and the lengths of chosen and rejected are balanced.  After training the rules are the gold metric only.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from r1repro import data
from r1repro.algo import preference
from r1repro.config import Machine, RewardModel
from r1repro.engine import actor as actors
from r1repro.engine import checkpoint, dist, fsdp, policy, scorer
from r1repro.records import Question, Refusal
from r1repro.run import Interrupts, Run, append_lines, drop_torn_line, read_lines, write_json
from r1repro.tinyworld import base, corpus, general, gold, safety

PAIRED = ("helpful", "whole")
"""Kinds that learn from pairs; the others from labels."""

HELD_OUT = 0.1
"""Share of the examples that a reward model is not trained on, by prompt; its agreement is measured there."""


def train(cfg: RewardModel, run_dir: Path | str, model_dir: Path | str, machine: Machine | None = None) -> Path:
    """Sample, label and train, or go on, or return at once when done; returns the folder of the reward model.

    ``agreement.json`` there says how often it agrees with the hidden rule on prompts that it was not trained on.

    Where the paper is silent:
        Which policy wrote the outputs that are compared.  Here it is the one whose weights the reward model starts
        from.
    """
    machine = machine or Machine()
    inputs = {"model": dist.led(lambda: base.digest(model_dir))}
    run = dist.open_run(run_dir, stage="reward_model", config=cfg, inputs=inputs, seed=cfg.seed)
    if run.complete:
        return checkpoint.folder_of(run.path, dist.led(lambda: checkpoint.steps_in(run.path))[-1])
    dist.check_enough(cfg.batch_size, "batch_size")
    if machine.shard:
        fsdp.check_ranks()
        policy.that_can_be_cut(Path(model_dir), cfg.policy)
    trained, held = labels(run, lambda: labelled(cfg, model_dir, machine, run.path / SAMPLED))
    start = scorer.load(model_dir, cfg.seed, cfg.policy, machine, machine.shard)
    model, folder = fit(run, start, trained, cfg, _backward_, cfg.kind)
    said_N = scorer.shared_scores(model, [text for row in trained[:2000] for text in _texts(row)])
    agrees = agreement(model, held, cfg) | {"trained on": len(trained)}

    def write() -> None:
        write_json(run.path / "scale.json", {"mean": said_N.mean().item(), "std": said_N.std().item()})
        write_json(run.path / "agreement.json", agrees)
        run.finish(examples=len(trained) + len(held))

    dist.led(write)
    return folder


def labels(run: Run, make: Callable[[], list[dict]]) -> tuple[list[dict], list[dict]]:
    """What is trained on and what is held out: made once, by all ranks together, and kept with the run.

    Raises:
        Refusal: there is nothing to train on, or nothing to test with.
    """

    def are_there() -> bool:
        rows = run.samples()
        return bool(rows) and rows[-1].get("step") == 0 and (run.path / "labelled.json").exists()

    if not dist.led(are_there):
        made = make()
        run.rewind(-1)
        run.add_samples({"step": 0, **row} for row in made)
        dist.led(lambda: write_json(run.path / "labelled.json", {"rows": len(run.samples())}))
    dist.led(lambda: (run.path / SAMPLED).unlink(missing_ok=True))
    rows = run.samples()
    trained, held = [r for r in rows if not r["held_out"]], [r for r in rows if r["held_out"]]
    if not trained or not held:
        raise Refusal(f"{len(rows)} labelled examples are too few to train on and to test: raise num_prompts")
    return trained, held


class Schedule(Protocol):
    """What `fit` asks of settings."""

    seed: int
    batch_size: int
    epochs: int
    learning_rate: float


def fit(
    run: Run, model: PreTrainedModel, rows: Sequence[dict], cfg: Schedule, backward_: Callable, kind: str
) -> tuple[PreTrainedModel, Path]:
    """Train a model with a scalar head on rows, or go on from the last checkpoint; the model, and its folder.

    Args:
        backward_: (model, some rows, settings) -> loss, whose gradient it adds to the model's, and the share of what is
            labelled that the model judges so; on several ranks each rank's part of both.
        kind: what the model is called where it is spoken of.
    """
    batches = _order(len(rows), cfg)
    optimizer = policy.adamw(model, cfg.learning_rate)
    dist.check_enough(min(map(len, batches)), "the smallest batch")
    steps = dist.led(lambda: checkpoint.steps_in(run.path))
    done = steps[-1] if steps else 0
    run.rewind(done)
    if done:
        checkpoint.load_(checkpoint.folder_of(run.path, done), model, optimizer=optimizer)
    with Interrupts("this step") as interrupts:
        for step in tqdm(range(done + 1, len(batches) + 1), initial=done, total=len(batches), desc=f"{kind} model"):
            optimizer.param_groups[0]["lr"] = cfg.learning_rate * min(1.0, step / max(1, 0.05 * len(batches)))
            loss, agreed = backward_(model, [rows[i] for i in batches[step - 1]], cfg)
            loss, agreed = (dist.total(torch.tensor(x, dtype=torch.float64)).item() for x in (loss, agreed))
            dist.add_gradients_(model)
            norm = policy.clip_(model, 1.0)
            if not math.isfinite(norm + loss):
                raise Refusal(f"step {step}: the loss is no number: lower the learning rate of the {kind} model")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.log(step, {"policy/loss": loss, "policy/grad_norm": norm.item(), "reward/agreement": agreed})
            came = dist.asked(interrupts)
            if step % 50 == 0 or step == len(batches) or came:
                checkpoint.save_(run.path, step, model, model.r1repro_words.tokenizer, optimizer=optimizer)
                checkpoint.keep_only(run.path, {step})
                run.keep_time()
            dist.stop(interrupts, came)
    return model, checkpoint.folder_of(run.path, len(batches))


def _texts(row: dict) -> list[str]:
    return [row[key] for key in ("chosen", "rejected", "text") if key in row]


def _order(count: int, cfg: Schedule) -> list[np.ndarray]:
    size = min(cfg.batch_size, count)
    epochs = [np.random.default_rng([cfg.seed, epoch, 3]).permutation(count) for epoch in range(cfg.epochs)]
    return [part for shuffled in epochs for part in np.array_split(shuffled, max(1, round(count / size)))]


def _backward_(model, rows: Sequence[dict], cfg: RewardModel) -> tuple[float, float]:
    """Add the gradient of a batch's loss to the model's, part by part where it is long; loss, and what `_loss` says.

    The loss is a mean over rows, so a part counts as much as its share of them; each rank has its share of the batch.
    """
    mine = rows[dist.share(len(rows))]
    parts = [list(range(len(mine)))]
    if model.r1repro_tokens is not None:
        width = [max(map(len, scorer.encoded(model, _texts(row), cfg.max_tokens))) for row in mine]
        each = len(_texts(mine[0]))  # texts of a row
        parts = list(scorer.parts(model, [each * w for w in width], len(mine)))

    def backward(scale: float) -> tuple[float, float]:
        total = agreed = 0.0
        for part, counts in policy.in_step(model, iter(parts)):
            share = counts * len(part) / len(rows)
            loss, agrees = _loss(model, [mine[i] for i in part], cfg)
            (loss * (share * scale)).backward()
            total, agreed = total + share * loss.item(), agreed + share * agrees
        return total, agreed

    return policy.scaled_(model, backward)


def _loss(model, rows: Sequence[dict], cfg: RewardModel) -> tuple[torch.Tensor, float]:
    """Loss of a batch, and the share of it that the model already judges as its label says."""
    if cfg.kind in PAIRED:
        texts = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
        score_N = scorer.forward(model, scorer.encoded(model, texts, cfg.max_tokens))
        chosen_N, rejected_N = score_N.chunk(2)
        return preference.pair_loss(chosen_N, rejected_N), preference.agreement(chosen_N.detach(), rejected_N.detach())
    score_N = scorer.forward(model, scorer.encoded(model, [row["text"] for row in rows], cfg.max_tokens))
    label_N = torch.tensor([float(row["label"]) for row in rows]).to(score_N.device)
    right = ((score_N > 0) == (label_N > 0)).double().mean().item()
    return preference.point_loss(score_N, label_N), right


def agreement(model, rows: Sequence[dict], cfg: RewardModel) -> dict[str, float]:
    """How a reward model agrees with the hidden rule, on rows that it was not trained on."""
    if cfg.kind in PAIRED:
        said_N = scorer.shared_scores(model, [row["chosen"] for row in rows] + [row["rejected"] for row in rows])
        gold_N = torch.tensor([row["gold"][0] - row["gold"][1] for row in rows])
        differs_N = gold_N != 0
        chosen_N, rejected_N = said_N.chunk(2)
        agrees_N = ((chosen_N - rejected_N) * gold_N)[differs_N] > 0
        return {"pairs": int(differs_N.sum()), "agreement with the hidden rule": agrees_N.double().mean().item()}
    said_N = scorer.shared_scores(model, [row["text"] for row in rows]) > 0
    label_N = torch.tensor([bool(row["label"]) for row in rows])
    result = {"outputs": len(rows), "agreement with the hidden rule": (said_N == label_N).double().mean().item()}
    for name, wanted in (("good", True), ("bad", False)):
        chosen_N = label_N == wanted
        if chosen_N.any():
            result[f"of the {name} ones"] = (said_N == label_N)[chosen_N].double().mean().item()
    return result


SAMPLED = "sampled.jsonl"
"""In the run folder, until all is labelled: the outputs of each round."""


def labelled(cfg: RewardModel, model_dir: Path | str, machine: Machine, kept: Path | None = None) -> list[dict]:
    """Pairs (``chosen``, ``rejected``: what the model reads of each) or labelled outputs (``text``, ``label``).

    Args:
        kept: a file that sampling goes on from, if it was stopped.

    The judge also learns from each reference itself, once a prompt that is not held out.  ``whole`` has the pairs of
    ``helpful``, chosen and balanced by what that one reads.
    """
    source = {"safety": "open", "judge": "with_reference"}.get(cfg.kind, "general")
    drawn = "helpful" if cfg.kind == "whole" else cfg.kind
    questions: list[Question] = []
    while len(questions) < cfg.num_prompts:
        count = min(ROUND, cfg.num_prompts - len(questions))
        questions += data.training_questions(source, f"{drawn}/{len(questions)}", cfg.seed, count)
    outputs = _outputs(cfg, questions, model_dir, machine, kept)
    rng = random.Random(f"{drawn}/{cfg.seed}")
    held = {q.id for q in questions if random.Random(f"held/{q.id}").random() < HELD_OUT}
    if cfg.kind in PAIRED:
        rows = [row for q, texts in zip(questions, outputs, strict=True) for row in _pairs(cfg, q, texts, rng)]
        rows = [row | row.pop("whole", {}) for row in balanced(rows)]
    else:
        rows = [
            {"id": q.id, "text": scorer.reads(cfg.kind, q, text), "label": _label(cfg.kind, q, text)}
            for q, texts in zip(questions, outputs, strict=True)
            for text in texts
        ]
    if cfg.kind == "judge":
        rows += [_reference(q) for q in questions if q.id not in held]
    rng.shuffle(rows)
    return [row | {"held_out": row["id"] in held} for row in rows]


def _reference(question: Question) -> dict:
    """The reference itself as an answer.  Where the policy is seldom right, a judge that never met a good answer
    rejects all, and is nearly always right."""
    return {"id": question.id, "text": scorer.reads("judge", question, corpus.output("", question.gold)), "label": True}


ROUND = 200
"""Prompts drawn at a time: within a round all are different, and there are not many more of some sorts."""


def _outputs(
    cfg: RewardModel, questions: Sequence[Question], model_dir, machine: Machine, kept: Path | None = None
) -> list[list[str]]:
    """The outputs to each question, sampled by all ranks in rounds."""
    found: list[list[str]] = []
    if kept and dist.led(kept.exists):
        dist.led(lambda: drop_torn_line(kept))
        found = [texts for row in read_lines(kept) for texts in row["outputs"]]
    actor, size, teams = actors.load(model_dir, cfg.policy, machine), cfg.outputs_per_prompt, machine.tensor_parallel
    cap = min(cfg.max_tokens, cfg.max_output)
    with closing(actor), Interrupts("this round") as interrupts:
        actor.begin(questions, cap)
        for first in tqdm(range(len(found), len(questions), ROUND), desc="sampling to be judged", unit="round"):
            chunk = questions[first : first + ROUND]
            mine = chunk[dist.share(len(chunk), teams)]
            sampled = actor.sample(mine, size, key=(cfg.seed, 2**29 + first), max_tokens=cap) if mine else None
            texts = actor.texts(sampled) if sampled else []
            outputs = dist.gathered([texts[i : i + size] for i in range(0, len(texts), size)], teams)
            found += outputs
            if kept:
                dist.led(partial(append_lines, kept, [{"outputs": outputs}]))
                dist.stop(interrupts)
    return found


def _label(kind: str, question: Question, text: str) -> bool:
    if kind == "safety":
        return not (question.family == "safety" and safety.unsafe(question, text))
    return general.follows(question, general.summary(text)) == 1.0


def _pairs(cfg: RewardModel, question: Question, texts: Sequence[str], rng: random.Random) -> list[dict]:
    """Every two outputs next to each other whose mean judgements differ by more than ``min_difference``."""
    gold_G = [gold.measure(question, text)["helpful"] for text in texts]
    judged_G = [value + rng.gauss(0.0, cfg.judge_noise / cfg.judge_calls**0.5) for value in gold_G]
    rows = []
    for a, b in zip(range(0, len(texts), 2), range(1, len(texts), 2), strict=False):
        first, second = (a, b) if judged_G[a] >= judged_G[b] else (b, a)
        if judged_G[first] - judged_G[second] > cfg.min_difference:
            pair = {"chosen": texts[first], "rejected": texts[second]}
            read = {kind: {k: scorer.reads(kind, question, t) for k, t in pair.items()} for kind in PAIRED}
            row = {"id": question.id, **read["helpful"], "gold": [gold_G[first], gold_G[second]]}
            rows.append(row | ({"whole": read["whole"]} if cfg.kind == "whole" else {}))
    return rows


def balanced(rows: Sequence[dict]) -> list[dict]:
    """Pairs without those that make the chosen ones longer (or shorter) on average: the most unequal go first.

    >>> pairs = [{"chosen": "long" * 9, "rejected": "x"}, {"chosen": "abc", "rejected": "abc"}]
    >>> balanced(pairs)
    [{'chosen': 'abc', 'rejected': 'abc'}]
    """
    kept = sorted(rows, key=lambda row: len(row["chosen"]) - len(row["rejected"]))
    excess = sum(len(row["chosen"]) - len(row["rejected"]) for row in kept)
    while kept and abs(excess) > len(kept):
        gone = kept.pop() if excess > 0 else kept.pop(0)
        excess -= len(gone["chosen"]) - len(gone["rejected"])
    return kept
