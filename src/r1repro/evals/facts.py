"""Short facts, graded by a judge: SimpleQA, C-SimpleQA, and FRAMES with its articles in the prompt.

The model's answer to a question of SimpleQA is correct, incorrect, or not attempted; a model that knows what it does
not know is right more often when it attempts.  FRAMES asks for facts from several articles of Wikipedia; the paper puts
all of them before the question (the oracle prompt), so they are needed here.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from r1repro.evals import files, win_rates
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.evals.judge import Protocol, Reply, Request, Verdict, filled, needs_judge
from r1repro.records import Refusal, Score

GRADES = {"A": "correct", "B": "incorrect", "C": "not_attempted"}
ARTICLES = "articles"
LONGEST_REPLY = 1024
"""Ours: tokens of a grader's reply, of which it needs one."""

SIMPLE_QA_WORDING = """<|im_start|>user
Grade an answer to a question of fact, given the gold target. Give it one of three grades.

CORRECT: it says all that matters in the gold target and nothing that contradicts it. Wording, capitals, order, spelling
of names, hedging and further true remarks do not matter. A number must agree with the gold target to the last digit
that the target shows.

INCORRECT: something in it contradicts the gold target, also where it is hedged, or where several answers are offered
and one of them is wrong.

NOT_ATTEMPTED: what matters in the gold target is missing, and nothing contradicts it: it says that it does not know,
or asks back, or stays too vague to be checked.

What the question takes for granted need not be repeated in the answer.

Question: {question}
Gold target: {target}
Answer: {predicted_answer}

Reply with one letter and nothing else, A for CORRECT, B for INCORRECT, C for NOT_ATTEMPTED.
<|im_end|>
"""
"""Ours, with the three grades and the letters of the makers' prompt (openai/simple-evals, MIT)."""

C_SIMPLE_QA_WORDING = """<|im_start|>user
请根据标准答案，为一个事实性问题的回答打分。分数只有三种：

【正确】回答包含了标准答案的全部要点，且没有任何与之矛盾的内容。措辞、顺序、译名、语气的差别，以及额外的正确信息，都不影响评分。\
数字必须与标准答案的最后一位有效数字一致。

【错误】回答中有与标准答案矛盾的内容；即使语气并不肯定，或者给出了几个答案而其中有错，也算错误。

【未尝试】回答没有给出标准答案的要点，但也没有矛盾之处，例如表示不知道、反问，或者过于笼统而无法判断。

问题中已经默认的信息，回答里可以不再重复。

问题：{question}
标准答案：{target}
回答：{predicted_answer}

只回复一个字母，不要有其他内容：A 表示【正确】，B 表示【错误】，C 表示【未尝试】。
<|im_end|>
"""
"""Ours, with the three grades and the letters of the makers' prompt."""

FRAMES_WORDING = """<|im_start|>user
Decide whether an answer gives the fact that a gold answer gives. Other words, other units, more detail and further
remarks are fine, as long as the fact is the same and nothing contradicts it.

Question: {question}
Gold answer: {target}
Answer: {predicted_answer}

Explain yourself in a sentence or two, then end with a line "Decision: TRUE" if the answer gives that fact, or
"Decision: FALSE" if it does not.
<|im_end|>
"""
"""Ours, with the decision of the makers' prompt (arXiv 2409.12941)."""

ORACLE = (
    "{articles}\n\nAnswer from the articles of Wikipedia above, which hold all that is needed.\n\nQuestion: {question}"
)
"""Ours: the makers' oracle prompt puts the articles' text before the question."""


def load_simple(folder: Path) -> list[Item]:
    """The questions of SimpleQA or C-SimpleQA."""
    items, seen = [], set()
    for record in files.records(folder, prefer=("test", "simpleqa")):
        question, gold = files.text_of(record, "problem", "question"), files.text_of(record, "answer")
        own = files.distinct(str(record.row.get("id") or files.hashed(question)), seen)
        more = {"question": question}
        items.append(Item(id=own, prompt=question, gold=gold, group=_topic(record.row), more=more))
    return items


def _topic(row: Mapping[str, Any]) -> str:
    told = re.search(r"'topic': '([^']*)'", str(row.get("metadata") or ""))
    return told[1] if told else str(row.get("primary_category") or "")


def load_frames(folder: Path) -> list[Item]:
    """The questions of FRAMES, each in the oracle prompt.

    The texts of the articles lie in ``articles`` below the folder, plain or Markdown: where the rows give links to
    Wikipedia (``wiki_links``), each in a file of its title; else those of a question in a folder, or a file, of the
    question's id.

    Raises:
        Refusal: articles that are not there; the line names the first.
    """
    rows = [record for record in files.records(folder, prefer=("test", "frames")) if ARTICLES not in record.name]
    known = _Articles(folder / ARTICLES)
    items, seen = [], set()
    for record in rows:
        question, gold = (
            files.text_of(record, "question", "Prompt", "prompt"),
            files.text_of(record, "answer", "Answer"),
        )
        own = files.distinct(str(record.row.get("id") or files.hashed(question)), seen)
        texts = known.of(own, _links(record.row))
        prompt = ORACLE.replace("{articles}", "\n\n".join(texts)).replace("{question}", question)
        group = str(record.row.get("reasoning_types") or "")
        items.append(Item(id=own, prompt=prompt, gold=gold, group=group, more={"question": question}))
    return items


def _links(row: Mapping[str, Any]) -> list[str]:
    given = row.get("wiki_links") or [v for k, v in sorted(row.items()) if k.startswith("wikipedia_link") and v]
    if isinstance(given, str):
        try:
            given = ast.literal_eval(given)
        except (ValueError, SyntaxError):
            given = [given]
    return [str(link) for link in given]


class _Articles:
    """The articles of a folder, by title or by question."""

    def __init__(self, folder: Path):
        self.folder, self._files = folder, {}
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if file.suffix in (".txt", ".md"):
                self._files.setdefault(_title(file.stem), file)
                if file.parent != folder:
                    self._files.setdefault(("question", file.parent.name), []).append(file)

    def of(self, question_id: str, links: Sequence[str]) -> list[str]:
        if links:
            return [self._read(self._found(_title(link.rpartition("/wiki/")[2]), link)) for link in links]
        several = self._files.get(("question", question_id))
        return [
            self._read(file) for file in several or [self._found(_title(question_id), f"of question {question_id}")]
        ]

    def _found(self, title: str, what: str) -> Path:
        if title not in self._files:
            raise Refusal(
                f"FRAMES is asked with its articles, and {self.folder} has none {what}: put the texts there, a file "
                "<title>.txt for each link of wiki_links, or a folder <id of the question> of .txt files"
            )
        return self._files[title]

    def _read(self, file: Path) -> str:
        try:
            return f"# {file.stem.replace('_', ' ')}\n\n{file.read_text(encoding='utf-8').strip()}"
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(f"{file} cannot be read ({error}): put it there whole, in UTF-8") from error


def _title(text: str) -> str:
    """A title as a key: without an anchor, escapes, and what file systems do not take.

    >>> _title("Ada_Lovelace%27s#Life") == _title("Ada Lovelace's")
    True
    """
    return re.sub(r"[\s_/:]+", " ", unquote(text.partition("#")[0].partition("?")[0])).strip().casefold()


def requests(item: Item, summary: str, words: str) -> list[Request]:
    """One grading of an answer beside the gold one."""
    said = filled(words, question=item.more["question"], target=item.gold, predicted_answer=summary)
    return [Request(messages=said, max_tokens=LONGEST_REPLY)]


def simple_verdict(item: Item, summary: str, replies: Sequence[Reply]) -> Verdict:
    """Correct, incorrect or not attempted.

    Where the makers are silent:
        What of an answer that says nothing: it is not attempted, and no judge is asked.  What of a reply without a
        grade: theirs count as not attempted, ours as a verdict that could not be had.
    """
    return _graded(simple_grade(replies[0].text) if replies else "not_attempted")


def simple_grade(text: str) -> str | None:
    """The grade in a grader's reply; None where there is none, or several.

    >>> simple_grade("**A**"), simple_grade("B: INCORRECT"), simple_grade("NOT_ATTEMPTED"), simple_grade("A or B")
    ('correct', 'incorrect', 'not_attempted', None)
    """
    letters = re.findall(r"(?<![A-Za-z'])([ABC])(?![A-Za-z']| (?!or\b|and\b)[a-z])", text)
    words = re.findall(r"\b(INCORRECT|CORRECT|NOT_ATTEMPTED)\b", text)
    found = {GRADES[letter] for letter in letters} | {word.casefold() for word in words}
    return found.pop() if len(found) == 1 else None


def _graded(grade: str | None) -> Verdict:
    told = {"grade": grade}
    if grade is None:
        return Verdict(score=Score(value=None, verdict="unparsed"), told=told)
    right = grade == "correct"
    return Verdict(score=Score(value=float(right), verdict="right" if right else "wrong"), told=told)


def simple_summary(folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of the three grades, of correct answers among the attempted ones, and the harmonic mean of the two."""
    grades = [row["grade"] for row in rows if row["grade"]]
    count = {grade: grades.count(grade) for grade in GRADES.values()}
    attempted, num = count["correct"] + count["incorrect"], max(len(grades), 1)
    correct, given = count["correct"] / num, count["correct"] / attempted if attempted else 0.0
    return {
        "correct": correct,
        "interval": _interval(grades),
        "incorrect": count["incorrect"] / num,
        "not_attempted": count["not_attempted"] / num,
        "correct_given_attempted": given,
        "f": 2 * correct * given / (correct + given) if correct + given else 0.0,
    }


def frames_verdict(item: Item, summary: str, replies: Sequence[Reply]) -> Verdict:
    """Whether the answer gives the gold one's fact; an answer that says nothing does not."""
    decision = frames_decision(replies[0].text) if replies else False
    return _graded(None if decision is None else "correct" if decision else "incorrect")


def frames_decision(text: str) -> bool | None:
    r"""The last decision of a grader's reply; None where there is none.

    >>> frames_decision("It is TRUE that ...\n**Decision:** FALSE"), frames_decision("TRUE"), frames_decision("Yes.")
    (False, True, None)
    """
    found = re.findall(r"decision\W*(true|false)", text, re.IGNORECASE) or re.findall(r"\b(TRUE|FALSE)\b", text)
    return found[-1].casefold() == "true" if found else None


def frames_summary(folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    grades = [row["grade"] for row in rows if row["grade"]]
    return {"accuracy": grades.count("correct") / max(len(grades), 1), "interval": _interval(grades)}


def _interval(grades: Sequence[str]) -> tuple[float, float] | None:
    right_N = np.array([grade == "correct" for grade in grades])
    return win_rates.bootstrap(lambda drawn: float(right_N[drawn].mean()), len(right_N)) if grades else None


def _protocol(wording: str, verdict: Callable, summarise: Callable, headline: str) -> Protocol:
    return Protocol(wording=wording, requests=requests, verdict=verdict, summarise=summarise, headline=headline)


BENCHMARKS = (
    Benchmark(
        name="SimpleQA", folder="simpleqa", hub="basicv8vc/SimpleQA", files="*.csv", load=load_simple,
        grade=needs_judge, judged=True, metric="Correct", licence="MIT",
        protocol=_protocol(SIMPLE_QA_WORDING, simple_verdict, simple_summary, "correct"),
        note="the grader's prompt is ours unless judge_prompt.txt holds the makers'; k is not stated: 1",
    ),
    Benchmark(
        name="C-SimpleQA", folder="c_simpleqa", hub="OpenStellarTeam/Chinese-SimpleQA", files="*.jsonl",
        load=load_simple, grade=needs_judge, judged=True, metric="Correct", licence="CC BY-NC-SA 4.0",
        protocol=_protocol(C_SIMPLE_QA_WORDING, simple_verdict, simple_summary, "correct"),
        note="the grader's prompt is ours unless judge_prompt.txt holds the makers'; k is not stated: 1",
    ),
    Benchmark(
        name="FRAMES", folder="frames", hub="google/frames-benchmark", files="*.tsv", load=load_frames,
        grade=needs_judge, judged=True, metric="Acc.", licence="Apache-2.0",
        protocol=_protocol(FRAMES_WORDING, frames_verdict, frames_summary, "accuracy"),
        note="oracle prompt: the articles are the user's to put beside the questions; k is not stated: 1",
    ),
)  # fmt: skip
