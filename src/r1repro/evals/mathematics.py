r"""Mathematics with a short final answer: AIME, MATH-500, CNMO, and, beside the paper, GSM8K and AMC.

Asked zero-shot with the sentence that wants the answer in a box, graded by the rule of the accuracy reward
(`rewards.accuracy`: box or answer block, math-verify): what is measured is what was trained.

Where the paper is silent:
    The sentence behind the question.  It is the one that the README of the released models advises.
    Outputs that are cut within the thinking.  The rule reads the whole text where no thinking ends, so a box in
    unfinished thinking counts; `truncated` in a table says how often that could be.
"""

from pathlib import Path
from typing import Any

from r1repro import rows
from r1repro.evals import files
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Question, Score
from r1repro.rewards import accuracy, kinds

ASKED = "Please reason step by step, and put your final answer within \\boxed{}."
"""README of deepseek-ai/DeepSeek-R1, usage recommendations."""


def load(folder: Path) -> list[Item]:
    """Rows with a question and an answer under any of the names in common use (`rows.row`); of test files alone where
    there are some."""
    items, seen = [], set()
    for record in files.records(folder, prefer=("test",)):
        said = rows.row(record.row, record.where)
        id = record.row.get("unique_id") or record.row.get("id")
        id = str(id) if isinstance(id, str | int) else files.hashed(said.text)
        items.append(
            Item(
                id=files.distinct(id, seen),
                prompt=f"{said.text}\n{ASKED}",
                gold=said.gold,
                group=_group(record),
                more={"question": said.text},
            )
        )
    return items


def _group(record: files.Record) -> str:
    """The level where a row has one; the paper of AIME I or II where the file's name says it."""
    if (level := rows.row(record.row, record.where).level) > 1 or "level" in record.row:
        return f"level {level}"
    stem = Path(record.name).stem
    return stem.rpartition("-")[2] if stem.endswith(("-I", "-II")) else ""


def grade(item: Item, text: str) -> Score:
    """By the accuracy reward of 2.2.2."""
    question = Question(id=item.id, text=item.prompt, gold=item.gold, language="en", level=1, family="")
    return accuracy.accuracy([question], [text])[0]


def grade_stated(item: Item, text: str) -> Score:
    """The same, but an answer that is stated in words or after "####" counts too, as GSM8K's own outputs have it."""
    if accuracy.final_answer(text) is not None:
        return grade(item, text)
    found = kinds.grade("response", item.gold, text.rpartition("</think>")[2], item.prompt)
    return Score(value=found["score"], verdict=found["verdict"])


def answer(item: Item, text: str) -> str | None:
    """What an output votes for in cons@k."""
    found = accuracy.final_answer(text)
    return None if found is None else accuracy.normalise(found)


def perfect(item: Item) -> str:
    """An output whose box holds the reference answer."""
    return f"<think>\nThis one is known.\n</think>\n\nThe answer is \\boxed{{{item.gold}}}."


def _mathematics(name: str, folder: str, hub: str, **more: Any) -> Benchmark:
    usual = {"load": load, "grade": grade, "answer": answer, "perfect": perfect}
    return Benchmark(name=name, folder=folder, hub=hub, **(usual | more))


BENCHMARKS = (
    _mathematics(
        "AIME 2024", "aime24", "HuggingFaceH4/aime_2024", files="data/*.parquet", k=64, metric="pass@1; cons@64",
        licence="statements (c) MAA; cards say MIT or nothing",
        note="thirty questions: one is 3.3 points. The authors used AIME as their validation set (v2 G.1)",
    ),
    _mathematics(
        "MATH-500", "math500", "HuggingFaceH4/MATH-500", files="test.jsonl", k=16, licence="MIT (rights disputed)"
    ),
    _mathematics(
        "CNMO 2024", "cnmo2024", "opencompass/LiveMathBench", files="*CNMO_en*", k=16, licence="CC BY 4.0",
        note="the paper's items, language and k are not published; 18 public items stand in, one is 5.6 points; k ours",
    ),
    _mathematics(
        "AIME 2025", "aime25", "math-ai/aime25", files="*.jsonl", k=64, licence="statements (c) MAA",
        note="the paper asks AIME II alone (15 items) and prints a score out of 15; public sets hold 30",
    ),
    _mathematics(
        "GSM8K", "gsm8k", "openai/gsm8k", files="main/test-*", k=4, licence="MIT", grade=grade_stated,
        note="not in the paper; k ours; an answer that is stated without a box counts too",
    ),
    _mathematics(
        "AMC 2023", "amc23", "math-ai/amc23", files="data/test-*", k=64, licence="statements (c) MAA",
        note="not in the paper, which prints points for AMC 12 2024, of which there is no public set; k ours",
    ),
)  # fmt: skip
