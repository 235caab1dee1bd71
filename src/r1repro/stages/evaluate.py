"""Evaluation as section 3 of the paper: k samples a question at temperature 0.6 and top-p 0.95, all of them kept."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from r1repro import data
from r1repro.algo import estimators
from r1repro.config import Evaluate, Machine
from r1repro.engine import actor as actors
from r1repro.engine import checkpoint, dist, sampler, work
from r1repro.records import Question, Score
from r1repro.rewards import accuracy, reasoning
from r1repro.run import Interrupts, Run, write_json
from r1repro.tinyworld import base, gold

CHUNK = 8
"""Questions of a chunk fill the sampler's rows so many times; a chunk ends with few rows, and is what a kill costs."""


def run(
    cfg: Evaluate,
    run_dir: Path | str,
    model_dir: Path | str,
    machine: Machine | None = None,
    shared: bool = False,
) -> Path:
    """Sample, grade and keep; goes on where it stopped, returns at once when done.  Returns the run folder.

    Questions are taken in chunks whose make-up does not depend on where an earlier try stopped, and a chunk's samples
    are written only when it is whole: so an interrupted evaluation ends with the same file as an undisturbed one.

    Args:
        shared: other processes are given, or may be given, the same to do: each makes a part (see `engine.work`).
    """
    machine = machine or Machine()
    if (Path(model_dir) / "checkpoint.json").exists():
        checkpoint.verify(Path(model_dir))
    inputs = {"model": base.digest(model_dir)} | data.fingerprint(cfg.questions)
    open_run = partial(Run.open, run_dir, stage="evaluate", config=cfg, inputs=inputs, seed=cfg.seed)
    folder = work.open_run(run_dir, open_run, shared)
    if dist.led(lambda: folder.complete):
        return folder.path
    questions = data.split_questions(cfg.questions, cfg.split, cfg.seed, cfg.num_questions)
    questions = data.with_examples(questions, cfg.shots, cfg.seed)
    actor = actors.load(model_dir, cfg.policy, machine)
    actor.begin(questions, cfg.max_tokens)
    per_chunk = max(1, CHUNK * machine.max_rows // cfg.k)
    with work.of(
        folder, len(questions), per_chunk, shared, machine.tensor_parallel, desc="evaluating", unit="question"
    ) as job:
        with closing(actor), Interrupts("these questions") as interrupts:
            for items in job.take(interrupts.stop):
                job.keep(_answered(actor, questions[items.start : items.stop], cfg, items.start, job.update))
        if not job.elsewhere:
            write_json(folder.path / "summary.json", summarise(folder.samples()))
            folder.finish(tokens={"sampled": sum(o["length"] for r in folder.samples() for o in r["outputs"])})
    dist.meet()
    return folder.path


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """pass@1, cons@k, length and truncation of an evaluation's samples; fractions, and tokens an output."""
    scores_QK = [[o["score"] for o in row["outputs"]] for row in rows]
    answers_QK = [[o["answer"] for o in row["outputs"]] for row in rows]
    right_QK = [[o["verdict"] == "right" for o in row["outputs"]] for row in rows]
    outputs = [o for row in rows for o in row["outputs"]]
    return {
        "questions": len(rows),
        "k": len(rows[0]["outputs"]),
        "pass@1": float(estimators.pass_at_1(scores_QK)),
        "cons@k": float(estimators.cons_at_k(answers_QK, right_QK)),
        "length": sum(o["length"] for o in outputs) / len(outputs),
        "truncated": sum(o["truncated"] for o in outputs) / len(outputs),
    }


def _answered(
    actor: actors.Actor, questions: list[Question], cfg: Evaluate, first: int, count: Callable[[], None]
) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(1) as thread:
        found: dict[int, Future] = {}

        def grade(q: int, samples: sampler.Samples) -> None:
            found[q] = thread.submit(_graded, questions[q], samples, actor.texts(samples))
            count()

        actor.sample(
            questions, cfg.k, key=(cfg.seed, 2**31 + cfg.draw), max_tokens=cfg.max_tokens,
            temperature=0.0 if cfg.greedy else cfg.temperature, top_p=cfg.top_p, when_done=grade,
        )  # fmt: skip
        return [
            {"step": first + i + 1, **_without_text(q), "outputs": found[i].result()} for i, q in enumerate(questions)
        ]


def _graded(question: Question, samples: sampler.Samples, texts: list[str]) -> list[dict[str, Any]]:
    """The outputs to one question with their verdicts; of open questions with what the hidden rules say of them."""
    if question.kind == "open":
        found = [gold.measure(question, text) for text in texts]
        verdicts = ["right" if measured["follows"] == 1.0 else "wrong" for measured in found]
        scores = [Score(value=float(verdict == "right"), verdict=verdict) for verdict in verdicts]
    else:
        found, scores = [{}] * len(texts), reasoning.accuracy([question] * len(texts), texts)
    return [
        {
            "text": text,
            "verdict": score.verdict,
            "score": score.value,
            "length": length,
            "truncated": truncated,
            "answer": None if (answer := accuracy.final_answer(text)) is None else accuracy.normalise(answer),
            **measured,
        }
        for text, score, length, truncated, measured in zip(
            texts, scores, samples.length_N.tolist(), samples.truncated_N.tolist(), found, strict=True
        )
    ]


def _without_text(question: Question) -> dict[str, Any]:
    record = asdict(question)
    return {"question": record.pop("text"), **record}
