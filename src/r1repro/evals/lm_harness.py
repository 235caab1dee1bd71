"""The tasks of lm-evaluation-harness over our sampler, and a table of where they are not the paper's protocol.

lm_eval is optional: `pip install lm_eval` adds it.  Its tasks ask and grade; our sampler answers, at temperature 0.6
and top-p 0.95 with the paper's cap, whatever a task says (most say greedy and a short cap).  What a task sees is what
follows the thinking, and its stop strings cut that alone: in the thinking they would cut reasoning short.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1repro.config import Exam, Machine
from r1repro.engine import actor as actors
from r1repro.evals import files
from r1repro.records import Question, Refusal
from r1repro.run import Interrupts, Run, write_text

DEPARTURES: dict[str, tuple[str, str]] = {
    "ifeval": ("IF-Eval", ""),
    "mmlu_pro": (
        "MMLU-Pro",
        "five examples by default: asked with none here; no answer where no 'answer is (X)' stands",
    ),
    "aime24": ("AIME 2024", "'Question: ... Answer:' without the sentence that asks for a box; exact match of text"),
    "aime25": ("AIME 2025", "as aime24; 30 questions, the paper AIME II alone"),
    "minerva_math500": ("MATH-500", "its prompt wants 'Final Answer: ...'; four examples by default, none here"),
    "hendrycks_math500": ("MATH-500", "'Problem: ... Answer:' without the sentence that asks for a box; text compared"),
    "gpqa_diamond_cot_zeroshot": ("GPQA Diamond", "another prompt than simple-evals', another order of options"),
    "mmlu": ("MMLU", "log-likelihood of letters: nothing is generated, so nothing is reasoned; use mmlu_generative"),
    "mmlu_redux_generative": ("MMLU-Redux", "asks for the letter alone and takes the first A to D of the output"),
    "drop": ("DROP", "no examples and no form asked for; its stop string is a full stop"),
    "ceval-valid": ("C-Eval", "log-likelihood of letters: nothing is reasoned"),
    "cmmlu": ("CMMLU", "log-likelihood of letters; the paper has no score"),
    "gsm8k": ("GSM8K", "five examples by default; not in the paper"),
}
"""Task of lm_eval 0.4.13 -> benchmark of the paper, and where prompt or grader depart; empty: they are the makers'."""


def lines() -> list[str]:
    """One line a task."""
    return [f"{task:<28}{name:<14}{why or 'follows'}" for task, (name, why) in DEPARTURES.items()]


def run(
    cfg: Exam, run_dir: Path | str, model: Path | str, tasks: Sequence[str], machine: Machine | None = None
) -> Path:
    """Ask a model some tasks; the results as lm_eval gives them go to ``results.json``.  Returns the run folder.

    Outputs are kept in ``samples.jsonl`` as they come; an interrupted run takes them up.

    Args:
        cfg: ``benchmark`` is ``lm-eval``; ``limit`` is handed on.

    Raises:
        Refusal: lm_eval is not installed, knows no such task, or wants log-likelihoods.
    """
    harness = _harness()
    from r1repro.tinyworld import base

    inputs = {"model": base.digest(model), "tasks": " ".join(tasks)}
    folder = Run.open(run_dir, stage="lm-eval", config=cfg, inputs=inputs, seed=cfg.seed)
    if folder.complete:
        return folder.path
    actor = actors.load(model, cfg.policy, machine or Machine())
    try:
        found = harness.simple_evaluate(
            model=language_model(actor, cfg, folder), tasks=list(tasks), num_fewshot=0, limit=cfg.limit or None,
            bootstrap_iters=2000, log_samples=False, random_seed=cfg.seed,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Refusal(f"lm_eval cannot run {', '.join(tasks)} ({reason}): see `lm_eval ls tasks`") from error
    finally:
        actor.close()
    write_text(folder.path / "results.json", json.dumps(found["results"], indent=1, default=str) + "\n")
    folder.finish(versions_of=harness.__version__)
    return folder.path


def _harness() -> Any:
    try:
        import lm_eval
    except ImportError as error:
        raise Refusal("lm_eval is not here: `pip install lm_eval`, or use --benchmark, which needs none") from error
    return lm_eval


def language_model(actor: actors.Actor, cfg: Exam, folder: Run) -> Any:
    """An actor in the form that lm_eval calls: a subclass of its ``LM`` that generates."""
    _harness()
    from lm_eval.api.model import LM

    class Sampled(LM):
        """Samples by the paper's protocol."""

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            raise Refusal(
                "this task compares log-likelihoods, so nothing is reasoned: the paper has every answer generated; "
                "choose a task that generates, or --benchmark"
            )

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            return _generated(actor, cfg, folder, [request.args for request in requests])

    return Sampled()


def _generated(actor: actors.Actor, cfg: Exam, folder: Run, asked: Sequence[tuple[str, Any]]) -> list[str]:
    """What follows the thinking of one output to each prompt, up to the first of its stop strings."""
    known = {row["id"]: row["text"] for row in folder.samples()}
    ids = [files.hashed(prompt) for prompt, _ in asked]
    missing = {id: prompt for id, (prompt, _) in zip(ids, asked, strict=True) if id not in known}
    questions = [Question(id=i, text=p, gold="", language="en", level=1, family="lm-eval") for i, p in missing.items()]
    size = max(1, 2 * actor.machine.max_rows)
    with Interrupts("these questions") as interrupts:
        for first in range(0, len(questions), size):
            chunk = questions[first : first + size]
            samples = actor.sample(
                chunk, 1, key=(cfg.seed, 2**31), max_tokens=cfg.max_tokens, temperature=cfg.temperature, top_p=cfg.top_p
            )
            texts = actor.texts(samples)
            rows = [{"id": q.id, "prompt": q.text, "text": text} for q, text in zip(chunk, texts, strict=True)]
            folder.add_samples(rows)
            known |= {row["id"]: row["text"] for row in rows}
            interrupts.stop()
    return [_cut(known[id], settings) for id, (_, settings) in zip(ids, asked, strict=True)]


def _cut(text: str, settings: Any) -> str:
    r"""What follows the thinking, up to a stop string.

    >>> _cut("<think>Question: 1.</think> It is 2. Question: 3", {"until": ["Question:"]})
    ' It is 2. '
    """
    said = text.rpartition("</think>")[2]
    until = settings.get("until", []) if isinstance(settings, dict) else []
    for stop in [until] if isinstance(until, str) else until:
        said = said.split(stop)[0] if stop else said
    return said
