"""Talk to a stage: a question in the paper's template, one output, the thinking apart from the answer.

Every question is asked alone, as in training: the model sees no question and no output before it.  The paper's own
data is nearly all of single turns too (v2 Table 5).
"""

import dataclasses
import importlib.util
import io
import os
import re
import sys
import textwrap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from transformers import PreTrainedModel

from r1repro import config
from r1repro.engine import adapters, checkpoint, policy, sampler, vocabulary
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal
from r1repro.rewards.format import format_reward
from r1repro.run import readable
from r1repro.stages import child
from r1repro.tinyworld import base


@dataclass(frozen=True, slots=True)
class Partner:
    """A model to talk to, its vocabulary, and how it is sampled."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    manner: config.Evaluate
    """Temperature, top-p, cap and seed; the rest plays no part."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output and its parts."""

    question: str
    text: str
    """As sampled, without its end token."""

    thinking: str | None
    """What stands between the tags, if the output opens with its only ones; to its end, if they are never closed."""

    answer: str | None
    """What follows the thinking, without the answer's tags; None where there is no thinking, or no end of it."""

    num_thinking: int
    """Tokens up to the closing tag, both tags included, or all where it never comes; 0 where there is no thinking."""

    length: int
    """Tokens of the output, its end token included."""

    truncated: bool
    """Whether the cap came before the end."""

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the output: how it misses the format, and whether it was cut."""
        missing = "the format is missing: not one <think> ... </think> at the beginning, shown as it is"
        if self.thinking is not None:
            missing = f"the format is missing: {'no end of the thinking' if self.answer is None else 'no answer'}"
        notes = [] if format_reward(self.text) else [missing]
        return notes + [f"cut at {self.length} tokens"] * self.truncated


def settings(seed: int = 0, changes: Mapping[str, Any] | None = None) -> config.Evaluate:
    """How to sample: as evaluations do at tier cpu, but for ``changes`` (None: none of that setting).

    >>> chosen = settings(changes={"top_p": None, "max_tokens": 9})
    >>> chosen.temperature, chosen.top_p, chosen.max_tokens
    (0.6, 0.95, 9)
    """
    given = {f"evaluate.{name}": value for name, value in (changes or {}).items() if value is not None}
    return config.r1_zero("cpu", 0, given | {"evaluate.seed": seed}).evaluate


def find(model: Path | str) -> Path:
    """The folder of a model: a base model by its name, the folder of a model, or a run's last checkpoint."""
    if str(model) in base.SHAPES:
        return base.folder(str(model))
    path = Path(model)
    if any((path / name).exists() for name in ("config.json", adapters.CONFIG)):
        return path
    with readable(path / "checkpoints"):
        if steps := checkpoint.steps_in(path):
            return checkpoint.folder_of(path, steps[-1])
    if runs := sorted(str(inner.parent) for inner in path.glob("*/checkpoints")):
        raise Refusal(f"no model at {model}: give one of {', '.join(runs)}")
    raise Refusal(
        f"no model at {model}: give the folder of a run that keeps checkpoints, or of a Hugging Face model, or a name "
        f"of {', '.join(base.SHAPES)}"
    )


def load(model: Path | str, manner: config.Evaluate, held: config.Policy | None = None, device: str = "cpu") -> Partner:
    """The model that `find` finds, with the tokenizer of its folder, or else that of its base or the tiny world's.

    Args:
        held: see `policy.load`.

    Raises:
        Refusal: no model, a damaged one, none of its tokenizer; a cap that leaves no room for a question.
    """
    folder = find(model)
    found = policy.load(folder, held=held, device=device)
    template = held.template if held else "r1_zero"
    words = vocabulary.of(folder, template, found.get_input_embeddings().num_embeddings)
    partner = Partner(found, words, manner)
    if len(words.prompt("")) >= _room(partner):
        raise Refusal(
            f"{manner.max_tokens} tokens of output leave no room for a question, the model at {folder} has "
            f"{found.config.max_position_embeddings} positions: give fewer"
        )
    return partner


def _room(partner: Partner) -> float:
    """Tokens of a prompt that leave room for the output."""
    positions = getattr(partner.model.config, "max_position_embeddings", None)
    return float("inf") if positions is None else positions - partner.manner.max_tokens


def prompt_of(partner: Partner, question: str) -> list[int]:
    """Token ids of a question in the paper's template.  Refusal: an empty question, one too long, or no text."""
    if not question.strip():
        raise Refusal(f"question {question!r} is empty: ask something")
    shown = repr(question if len(question) <= 40 else question[:40] + "...")
    if re.search("[\ud800-\udfff]", question):
        raise Refusal(f"question {shown} has bytes that are no UTF-8: give it as UTF-8")
    prompt = partner.vocabulary.prompt(question)
    if len(prompt) > _room(partner):
        raise Refusal(
            f"question {shown} has {len(prompt)} tokens in the template, {_room(partner)} is the most that leaves room "
            f"for {partner.manner.max_tokens} of output: ask a shorter one, or give fewer to the output"
        )
    return prompt


def answer(partner: Partner, question: str, number: int) -> Output:
    """One output to a question, a function of the seed, of ``number`` (its place in the talk) and of the question."""
    samples = sampler.sample(
        partner.model, [prompt_of(partner, question)], 1, key=(partner.manner.seed, number), question_keys=[0],
        max_tokens=partner.manner.max_tokens, ends=partner.vocabulary.ends, pad=partner.vocabulary.pad,
        temperature=partner.manner.temperature, top_p=partner.manner.top_p,
    )  # fmt: skip
    length, truncated = int(samples.length_N[0]), bool(samples.truncated_N[0])
    ids = samples.tokens_NT[0, :length].tolist()

    def text_of(count: int) -> str:
        return partner.vocabulary.text(ids[:count])

    thinking, said = split(text_of(length))
    closed = bisect_left(range(length), True, key=lambda count: "</think>" in text_of(count))
    return Output(question, text_of(length), thinking, said, 0 if thinking is None else closed, length, truncated)


def split(text: str) -> tuple[str | None, str | None]:
    """Thinking and answer of an output; (None, None) unless it opens with its only think tags.

    >>> split("<think>2 + 2</think> It is <answer>4</answer>"), split("<think>2 +"), split("It is 4")
    (('2 + 2', 'It is 4'), ('2 +', None), (None, None))
    """
    _, opened, rest = text.partition("<think>")
    thinking, closed, said = rest.partition("</think>")
    if not text.lstrip().startswith("<think>") or re.search("</?think>", thinking + said):
        return None, None
    return thinking.strip(), said.replace("<answer>", "").replace("</answer>", "").strip() if closed else None


def answers(
    model: Path | str, questions: Iterable[str], manner: config.Evaluate, pipeline: config.R1 | None = None
) -> list[Output]:
    """An output to each question, those of the same talk in a terminal; refused before any is sampled.

    Args:
        pipeline: settings of one, whose policy says how the model is held and asked; where its machine is a GPU, in a
            process of its own.
    """
    if pipeline is None:
        return _answers(load(model, manner), list(questions))
    changes = {name: getattr(manner, name) for name in ("temperature", "top_p", "max_tokens")}
    found = told_there(pipeline, find(model), list(questions), manner.seed, list(changes.items()))
    return [Output(*values) for values in found]


def _answers(partner: Partner, questions: list[str]) -> list[Output]:
    for question in questions:
        prompt_of(partner, question)
    return [answer(partner, question, number) for number, question in enumerate(questions, 1)]


@child.of_its_own("chat", alone=True)
def told_there(pipeline: config.R1, model: Path, questions: Sequence[str], seed: int, changes: Sequence) -> list[tuple]:
    """`answers` as plain values, in the order of `Output`'s fields."""
    partner = load(model, settings(seed, dict(changes)), pipeline.policy, pipeline.machine.device)
    return [dataclasses.astuple(output) for output in _answers(partner, list(questions))]


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
DIM, PLAIN, ERASE = "\x1b[2m", "\x1b[0m", "\r\x1b[K"


def visible(text: str) -> str:
    r"""Text with its control characters written out, for what a model wrote is not to steer a terminal.

    >>> visible("a\x1b[2J\n")
    'a\\x1b[2J\n'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def told(output: Output, dim: str = "", plain: str = "") -> str:
    """An output as lines to read: thinking indented below its heading, answer, notes in brackets.

    Args:
        dim, plain: what a terminal is told before and after the thinking.
    """
    lines = []
    if output.thinking is None:
        lines.append(visible(output.text))
    else:
        thinking = textwrap.indent(visible(output.thinking), "  ")
        lines += [f"{dim}thinking ({output.num_thinking} tokens)", f"{thinking}{plain}"]
        lines += [visible(output.answer)] if output.answer else []
    return "\n".join([*lines, *(f"({note})" for note in output.notes)]) + "\n"


def talk(partner: Partner, questions: Iterable[str], out: TextIO, err: TextIO, *, echo: bool = True) -> int:
    """Answer one question after another, and write what `told` makes of it; returns how many were refused.

    Ctrl-C stops the output that is being sampled and no more.  A refused question is answered with one line on ``err``
    and has no number, so the outputs after it are those of a talk without it; a stopped one has.

    Args:
        echo: whether each question is written before its output, as nobody has typed it where that is read.
    """
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")
    dim, plain = (DIM, PLAIN) if out.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    number = refused = 0
    for question in questions:
        try:
            prompt_of(partner, question)
        except Refusal as refusal:
            err.write(f"r1repro: {refusal}\n")
            refused += 1
            continue
        number += 1
        if echo:
            out.write(f"Question: {visible(question)}\n")
        try:
            with _progress(out):
                output = answer(partner, question, number)
            out.write(told(output, dim, plain) + "\n")
        except KeyboardInterrupt:
            out.write("(stopped)\n\n")
        out.flush()
    return refused


@contextmanager
def _progress(out: TextIO) -> Iterator[None]:
    """On a terminal a word that stands while the body runs."""
    on, off = ("...", ERASE) if out.isatty() else ("", "")
    out.write(on)
    out.flush()
    try:
        yield
    finally:
        out.write(off)


def typed(out: TextIO) -> Iterator[str]:
    """Questions from standard input, a line each, up to its end, Ctrl-C, an empty line or `exit`.

    A terminal gets a sign that it is its turn, and what Python has for editing lines.
    """
    sign = ""
    if sys.stdin.isatty() and out.isatty():
        sign = "> "
        if importlib.util.find_spec("readline"):
            importlib.import_module("readline")  # input() takes it up
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input(sign)
        except (EOFError, KeyboardInterrupt):
            out.write("\n" if sign else "")
            return
        if line == "" or line.strip() == "exit":
            return
        yield line
