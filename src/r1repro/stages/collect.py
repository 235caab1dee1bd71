"""Outputs of a model turned into examples: cold start (2.3.1) and rejection sampling (2.3.3).

Sample several outputs to each training question, keep the right and readable ones, count why the others were dropped.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from r1repro import data
from r1repro.config import Collect, Machine
from r1repro.engine import actor as actors
from r1repro.engine import dist, vocabulary, work
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Question, Refusal
from r1repro.rewards import reasoning
from r1repro.rewards.accuracy import final_answer
from r1repro.rewards.format import format_reward
from r1repro.rewards.language import thinking
from r1repro.rewards.readable import unreadable
from r1repro.run import Interrupts, Run, append_lines, sha256_file, write_json, write_text
from r1repro.tinyworld import base, corpus, families, general, rewrite, safety

CHUNK = 256
"""Questions sampled between two writes."""

Judge = Callable[[Sequence[Question], Sequence[str]], Sequence[bool]]
"""Whether outputs to questions that no rule can judge agree with their references.  One with a true ``together`` must
be asked by all ranks at the same time, each about outputs of its own, or about none."""


def collect(
    cfg: Collect,
    run_dir: Path | str,
    model_dir: Path | str,
    machine: Machine | None = None,
    judge: Judge | None = None,
    inputs: dict[str, str] | None = None,
    shared: bool = False,
) -> Path:
    """Sample, filter and write; goes on where it stopped, returns at once when done.  Returns ``examples.jsonl``.

    ``summary.json`` counts what was sampled, what was kept and why the rest was dropped.

    Args:
        judge: for open questions with a reference; without it they are refused.  It may find nothing right.
        inputs: further digests that the run depends on, such as that of the judge.
        shared: other processes are given, or may be given, the same to do: each makes a part (see `engine.work`).

    Raises:
        Refusal: nothing passes the filters; another run lies in ``run_dir``.
    """
    machine = machine or Machine()
    digests = {"model": base.digest(model_dir)} | (inputs or {}) | data.fingerprint(cfg.questions)
    open_run = partial(Run.open, run_dir, stage="collect", config=cfg, inputs=digests, seed=cfg.seed)
    in_step = getattr(judge, "together", False)
    run = dist.first(open_run) if in_step else work.open_run(run_dir, open_run, shared)
    target = run.path / "examples.jsonl"
    if dist.led(lambda: run.complete):
        return target
    questions = data.training_questions(cfg.questions, "collect", cfg.seed, cfg.num_questions)
    actor = actors.load(model_dir, cfg.policy, machine)
    actor.begin(questions, cfg.max_tokens)
    with work.of(
        run, len(questions), CHUNK, shared, machine.tensor_parallel, in_step, desc="sampling examples", unit="question"
    ) as job:
        with closing(actor), Interrupts("these questions") as interrupts:
            for items in job.take(partial(dist.stop, interrupts) if in_step else interrupts.stop):
                chunk = questions[items.start : items.stop]
                outputs, tokens = _sampled(actor, chunk, cfg)
                sampled = zip(items, chunk, outputs, tokens, _right(chunk, outputs, judge), strict=True)
                job.update(len(chunk))
                job.keep(
                    {"step": item + 1, "tokens": tokens, **_kept(question, outputs, right, cfg)}
                    for item, question, outputs, tokens, right in sampled
                )
        if not job.elsewhere:
            _finish(cfg, run, target, model_dir, judge)
    dist.meet()
    return target


def _finish(cfg: Collect, run: Run, target: Path, model_dir: Path | str, judge: Judge | None) -> None:
    """Write the examples and the summary, once all rows are there."""
    rows = run.samples()
    examples = [example for row in rows for example in row["examples"]]
    examples = _shuffled(examples, cfg.seed)[: cfg.num_examples or None]
    if not examples and judge is None:
        raise Refusal(f"no output of {model_dir} was right and readable: train it longer, or ask easier questions")
    reasoned = len(examples)
    examples = _shuffled(examples + general_examples(cfg, reasoned), cfg.seed + 1)
    write_text(target, "")
    append_lines(target, examples)
    reasons = Counter(reason for row in rows for reason in row["dropped"])
    write_json(
        run.path / "summary.json",
        {
            "questions": len(rows),
            "outputs": len(rows) * cfg.outputs_per_question,
            "reasoning examples": reasoned,
            "general examples": len(examples) - reasoned,
            "by family": dict(Counter(example["family"] for example in examples)),
            "dropped": dict(reasons.most_common()),
        },
    )
    run.finish(examples=sha256_file(target), tokens={"sampled": sum(row["tokens"] for row in rows)})


def _sampled(actor: actors.Actor, questions: Sequence[Question], cfg: Collect) -> tuple[list[list[str]], list[int]]:
    """Of each question: its outputs, and how many tokens they have in all."""
    if not questions:
        return [], []
    samples = actor.sample(
        questions, cfg.outputs_per_question,
        key=(cfg.seed, 2**30), max_tokens=cfg.max_tokens, temperature=cfg.temperature,
    )  # fmt: skip
    texts, size = actor.texts(samples), cfg.outputs_per_question
    tokens = samples.length_N.view(-1, size).sum(dim=1).tolist()
    return [texts[i : i + size] for i in range(0, len(texts), size)], tokens


def _kept(question: Question, outputs: list[str], right: Sequence[bool], cfg: Collect) -> dict:
    """The examples that come of one question's outputs, and why each other one was dropped."""
    rng = random.Random(f"editor/{cfg.seed}/{question.id}")
    dropped, found = [], []
    for text, is_right in zip(outputs, right, strict=True):
        if is_right and cfg.rewrite and format_reward(text):  # what has no form is dropped, not given one
            text = rewrite.rewritten(
                question, thinking(text).strip(), final_answer(text), lambda: rng.random() < cfg.overlooked
            )
        reason = "wrong" if not is_right else unreadable(
            text, question.language, min_share=cfg.min_language_share, max_paragraph=cfg.max_paragraph
        )  # fmt: skip
        if reason is None and text in found:
            reason = "the same"
        if reason:
            dropped.append(reason)
        else:
            found.append(text)
    if cfg.longest:
        found.sort(key=len, reverse=True)
    kept, more = found[: cfg.keep_per_question], found[cfg.keep_per_question :]
    examples = [
        {"id": question.id, "family": question.family, "level": question.level, "language": question.language,
         "question": question.text, "output": text}
        for text in kept
    ]  # fmt: skip
    return {"id": question.id, "dropped": dropped + ["enough"] * len(more), "examples": examples}


def _right(questions: Sequence[Question], outputs: Sequence[list[str]], judge: Judge | None) -> list[list[bool]]:
    """Of each question, which of its outputs are right: by rule, or by the judge, who is asked once for all."""
    pairs = [(question, text) for question, texts in zip(questions, outputs, strict=True) for text in texts]
    by_judge = [(question, text) for question, text in pairs if question.kind == "open"]
    if by_judge and judge is None:
        family = by_judge[0][0].family
        raise Refusal(f"questions of {family} have no rule: give a judge, or collect another source")
    said = iter(judge([q for q, _ in by_judge], [text for _, text in by_judge]) if judge else ())

    def ruled(question: Question, texts: list[str]) -> list[bool]:
        return [score.verdict == "right" for score in reasoning.accuracy([question] * len(texts), texts)]

    return [
        [next(said) for _ in texts] if question.kind == "open" else ruled(question, texts)
        for question, texts in zip(questions, outputs, strict=True)
    ]


EDITOR = general.Manner(right=0.90, offer=0.45, rude=0.03)
REFUSES = {"harmful": 0.80, "look-alike": 0.06}
LEAKS = 0.10
"""Of the general data: it comes from another model, as the paper's from DeepSeek-V3; good, and not perfect."""


def general_examples(cfg: Collect, reasoned: int) -> list[dict]:
    """As many examples of general prompts and requests that ``general_share`` of all are such; 200,000 to 600,000.

    The thinking is empty for greetings and for what the model says of itself.
    """
    count = round(reasoned * cfg.general_share / (1 - cfg.general_share))
    examples = []
    for index in range(count):
        rng = random.Random(f"general/{cfg.seed}/{index}")
        family, language = ("general", "general", "safety")[index % 3], ("en", "zh")[index // 3 % 2]
        level = rng.choice(families.levels(family))
        question = families.draw(family, "train", level, language, "examples", cfg.seed, index)
        if family == "general":
            thought, said = general.reply(question, EDITOR, language, rng)
        else:
            refuses = REFUSES[dict(question.requirements)["sort"]]
            thought, said = safety.reply(question, EDITOR, refuses, LEAKS, language, rng)
        examples.append(
            {"id": question.id, "family": family, "level": level, "language": language, "question": question.text,
             "output": corpus.output(thought, said)}
        )  # fmt: skip
    return examples


def short_examples(
    examples: Sequence[dict], wanted_tokens: int, seed: int, words: Vocabulary | None = None
) -> list[dict]:
    """The answers of reasoning examples without any thinking, drawn again and again until they have as many tokens.

    What the students' siblings learn from (claim C21): the same questions, the same answers, nothing between.  Examples
    of general prompts and requests stay as they are.

    Args:
        words: who counts the tokens; None: the tiny world's base model.
    """
    words = words or vocabulary.of(base.folder(base.MAIN))
    short = [
        example | {"output": corpus.output("", final_answer(example["output"]) or "")}
        if example["family"] not in families.OPEN
        else example
        for example in examples
    ]
    lengths = [len(words.output(example["output"])) for example in short]
    found, tokens, rng = [], 0, random.Random(f"short/{seed}")
    while tokens < wanted_tokens:
        for index in rng.sample(range(len(short)), len(short)):
            found.append(short[index])
            tokens += lengths[index]
            if tokens >= wanted_tokens:
                break
    return found


def _shuffled(rows: list, seed: int) -> list:
    return random.Random(f"shuffle/{seed}").sample(rows, len(rows))
