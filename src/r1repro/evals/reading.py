"""DROP: questions on a passage whose answers are numbers, dates or words of it, scored by the F1 of words, 3-shot.

The one benchmark of the paper's tables that keeps examples in its prompt (section 3).
"""

import itertools
import re
import string
from collections.abc import Sequence
from pathlib import Path

from r1repro.evals import files
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score

SHOTS = 3
"""Section 3: DROP stays 3-shot."""

ASKED = (
    "You will be asked to read a passage and answer a question. Some examples of passages and Q&A are provided below."
    "\n\n# Examples\n---\n{examples}\n\n# Your Task\n---\n{context}\nThink step by step, then write a line of the form "
    '"Answer: $ANSWER" at the end of your response.'
)
"""openai/simple-evals (MIT), by the paper."""


def load(folder: Path) -> list[Item]:
    """The questions of ``dev`` (simple-evals' rows: context, ref_text), with three examples before each.

    Examples are those of a ``train`` file, if one is there; else three of ``dev`` on different passages, chosen by
    hash; all questions on those passages are then left out.

    Where the paper is silent:
        Which examples.  simple-evals draws three anew for each question from its train file; ours are the same for all.
    """
    rows = [record for record in files.records(folder, ("dev", "validation", "test"))]
    train = [record for record in files.records(folder, ("train",)) if "train" in record.name]
    shots = _shots(train or rows)
    passages = {_passage(_context(record)) for record in shots}
    examples = "\n---\n".join(f"{_context(record)} {_golds(record)[0]}" for record in shots)
    items, seen = [], set()
    for record in rows:
        context = _context(record)
        if _passage(context) in passages:
            continue
        items.append(
            Item(
                id=files.distinct(files.hashed(context), seen),
                prompt=ASKED.format(examples=examples, context=context),
                gold=_golds(record),
                more={"question": context.removeprefix("Passage:").removesuffix("Answer:").strip()},
            )
        )
    if not items:
        raise Refusal(
            f"the files in {folder} hold no question besides the {SHOTS} examples: put drop_v0_dev.jsonl.gz there"
        )
    return items


def _shots(records: Sequence[files.Record]) -> list[files.Record]:
    found: dict[str, files.Record] = {}
    for record in sorted(records, key=lambda record: files.hashed("shot", _context(record))):
        found.setdefault(_passage(_context(record)), record)
        if len(found) == SHOTS:
            break
    return list(found.values())


def _context(record: files.Record) -> str:
    """Passage and question, up to "Answer:"; of the hub's rows put together."""
    if "passage" in record.row:
        passage, question = files.text_of(record, "passage"), files.text_of(record, "question")
        return f"Passage: {passage}\nQuestion: {question}\nAnswer:"
    return files.text_of(record, "context")


def _passage(context: str) -> str:
    return context.partition("\nQuestion:")[0]


def _golds(record: files.Record) -> list[str | list[str]]:
    """The accepted answers: texts, or lists of spans."""
    if isinstance(spans := record.row.get("answers_spans"), dict):
        found = [str(span) for span in spans.get("spans", [])]
        return [found[0] if len(found) == 1 else found] if found else []
    golds = [gold.strip() for gold in files.text_of(record, "ref_text").split("|")]
    return [gold for gold in golds if gold]


def grade(item: Item, text: str) -> Score:
    """The F1 of what follows the last "Answer:" after the thinking; of all of it where there is none."""
    said = answer(item, text)
    if said is None:
        return Score(value=0.0, verdict="unparsed")
    value = f1(said, item.gold)
    return Score(value=value, verdict="right" if value == 1 else "wrong")


def answer(item: Item, text: str) -> str | None:
    r"""What an output answers, or None for nothing.

    >>> item = Item(id="1", prompt="", gold=["7"])
    >>> answer(item, "<think>Answer: 3</think>So\nAnswer: 7 yards"), answer(item, "<think>Answer: 3</think>")
    ('7 yards', None)
    """
    said = text.rpartition("</think>")[2].strip()
    stated = re.findall(r"answer\W{0,3}:\**[ \t]*([^\n]+)", said, re.IGNORECASE)
    if stated:
        return stated[-1].strip(" *$").removesuffix("</answer>") or None
    return said or None


def f1(answer: str, golds: Sequence[str | Sequence[str]]) -> float:
    r"""The best F1 of words with any accepted answer, to two digits: DROP's own metric (Dua et al. 2019).

    A text is the set of its words: lower case, cut at spaces and hyphens, without articles and, but in numbers,
    punctuation; numbers are compared by value, and where the reference has numbers, an answer without any of them has
    F1 0.  Where the reference is several spans, an answer is split at commas and "and" into as many as it gives, and
    the two are matched as well as can be.

    >>> f1("the 7-yard run", ["7 yard run"]), f1("12 yards", ["12"]), f1("13", ["12"]), f1("3.0", ["3"])
    (1.0, 0.67, 0.0, 1.0)
    >>> f1("Smith and Jones", [["Jones", "Smith"]]), f1("Smith", [["Jones", "Smith"]])
    (1.0, 0.5)
    """
    return max((_f1(answer, gold) for gold in golds), default=0.0)


def _f1(answer: str, gold: str | Sequence[str]) -> float:
    wanted = [_words(gold)] if isinstance(gold, str) else [_words(span) for span in gold]
    parts = [answer] if len(wanted) == 1 else [part for part in re.split(r",|;|\band\b", answer) if part.strip()]
    given = [_words(part) for part in parts[:MOST_SPANS]]
    if not given or not wanted:
        return 0.0
    few, many = sorted((wanted[:MOST_SPANS], given), key=len)
    swapped = few is given
    best = max(
        sum(_overlap(w, g) if not swapped else _overlap(g, w) for w, g in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )
    return round(best / max(len(wanted), len(parts)), 2)


MOST_SPANS = 7
"""Spans that are matched in every order; no reference of DROP's development set has more."""


def _overlap(wanted: frozenset[str], given: frozenset[str]) -> float:
    common = len(wanted & given)
    numbers = {word for word in wanted if _number(word) is not None}
    if numbers and not numbers & given:
        return 0.0
    precision = common / len(given) if given else 1.0
    recall = common / len(wanted) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


_ARTICLES = {"a", "an", "the", ""}
_MARKS = str.maketrans("", "", string.punctuation)


def _words(text: str) -> frozenset[str]:
    words = (_normal(word) for word in re.split(r"[ \-\n\t]", text.lower()))
    return frozenset(word for word in words if word not in _ARTICLES)


def _normal(word: str) -> str:
    value = _number(word)
    if value is None:
        word = word.translate(_MARKS)
        value = _number(word)
    return word if value is None else str(value)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def perfect(item: Item) -> str:
    """An output that gives the first accepted answer on its last line."""
    first = item.gold[0]
    return f"<think>\nThis one is known.\n</think>\n\nAnswer: {first if isinstance(first, str) else ', '.join(first)}"


BENCHMARKS = (
    Benchmark(
        name="DROP", folder="drop", hub="ucinlp/drop", files="data/validation-*", load=load, grade=grade,
        perfect=perfect, answer=answer, metric="3-shot F1", licence="CC BY-SA 4.0",
        note="the examples are three of the questions where there is no train file; k is not stated: 1",
    ),
)  # fmt: skip
