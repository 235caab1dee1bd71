"""Multiple choice: MMLU, MMLU-Redux, MMLU-Pro, GPQA Diamond, C-Eval, CMMLU; and CLUEWSC, which is one of pronouns.

The prompts are those of the benchmarks' makers (an interface: simple-evals, ZeroEval, MMLU-Pro, C-Eval), zero-shot as
section 3 has them.  What an output chose is read by one rule for all, `letter`, from what follows the thinking.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from r1repro.evals import files
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score
from r1repro.rewards import stated

SIMPLE_EVALS = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'{word}: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
    "{question}\n\n{options}"
)
"""openai/simple-evals (MIT), by the paper for MMLU (Answer) and GPQA Diamond (ANSWER)."""

ZERO_EVAL = (
    "## Question:\n\n{question}\n\n## Choices:\n\n{options}\n\n## Instruction\n\nPlease answer this question by first "
    "reasoning and then selecting the correct choice.\nPresent your reasoning and solution in the following json "
    'format.\nPlease show your choice in the `answer` field with only the choice letter, e.g.,`"answer": "C"`.\n\n'
    '```json\n{{\n    "reasoning": "___",\n    "answer": "___"\n}}\n```'
)
"""WildEval/ZeroEval (Apache-2.0), by the paper for MMLU-Redux."""

MMLU_PRO = (
    "The following are multiple choice questions (with answers) about {subject}. Think step by step and then finish "
    'your answer with "The answer is (X)" where X is the correct letter choice.\n\n\nQuestion:\n{question}\n'
    "Options:\n{options}\nAnswer: Let's think step by step."
)
"""TIGER-AI-Lab/MMLU-Pro (Apache-2.0) without its five examples: section 3 makes it zero-shot."""

C_EVAL = (
    "以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n\n{question}\n{options}\n\n"
    "请先思考，然后在最后一行写出“答案：X”，X 是正确选项的字母。"
)
"""hkust-nlp/ceval's first line; the last is ours, because the original asks for the letter at once."""

C_MMLU = (
    "以下是单项选择题，请选出其中的正确答案。\n\n{question}\n{options}\n\n"
    "请先思考，然后在最后一行写出“答案：X”，X 是正确选项的字母。"
)
"""Ours: the paper names CMMLU, and gives neither prompt nor score."""

CLUE_WSC = (
    "{text}\n\n上面的句子中的“{pronoun}”指的是谁或什么？请先思考，然后在最后一行写出“答案：X”，X 是句子里的原词。"
)
"""Ours, with the question of the original ("... in the sentence above refers to") and the paper's last line."""


def letter(item: Item, text: str) -> str | None:
    r"""The letter that an output chose, or None: the ``answer`` of the last JSON that has one, else what
    `rewards.stated.stated_letter` reads, else what follows the last "选" in Chinese.

    Where the paper is silent:
        How outputs are read that do not keep to the form asked for.  simple-evals takes the first "Answer: X" anywhere;
        ours reads only what follows the thinking, and there the last word counts.

    >>> item = Item(id="1", prompt="", gold="C", more={"question": "Which?\nA. one\nB. two\nC. three"})
    >>> [letter(item, text) for text in ("<think>Answer: A</think> (C)", '{"answer": "B"}', "故选C。", "three", "")]
    ['C', 'B', 'C', 'C', None]
    """
    said = text.rpartition("</think>")[2]
    if fields := re.findall(r"\"answer\"\s*:\s*\"\s*\(?([A-Z])\b", said):
        return fields[-1]
    found = stated.stated_letter(text, item.more.get("question", item.prompt))
    if found is None and (chosen := re.findall(r"选择?(?:项)?(?:是|为|：|:)?\s*\(?([A-J])(?![A-Za-z])", said)):
        return chosen[-1]
    return found


def last_letter(item: Item, text: str) -> str | None:
    """By the rule of MMLU-Pro's makers: what follows the first "answer is", else "Answer:", else the last letter from A
    to J that stands alone.

    The last of the three guesses; it is kept for this benchmark, because the paper takes its authors' defaults.

    >>> item = Item(id="1", prompt="", gold="B", more={})
    >>> last_letter(item, "It is not C but B."), last_letter(item, "The answer is (D). Not A."), last_letter(item, "no")
    ('B', 'D', None)
    """
    said = text.rpartition("</think>")[2]
    for form in (r"answer is \(?([A-J])\)?", r"[aA]nswer:\s*([A-J])"):
        if found := re.search(form, said):
            return found[1]
    alone = re.findall(r"\b[A-J]\b", said)
    return alone[-1] if alone else None


def grade(item: Item, text: str) -> Score:
    """1 where the output chose the right letter."""
    return _scored(item, letter(item, text))


def grade_pro(item: Item, text: str) -> Score:
    """The same by `last_letter`."""
    return _scored(item, last_letter(item, text))


def _scored(item: Item, chosen: str | None) -> Score:
    if chosen is None:
        return Score(value=0.0, verdict="unparsed")
    right = chosen == item.gold
    return Score(value=float(right), verdict="right" if right else "wrong")


def perfect(item: Item) -> str:
    """An output that states the right letter last, in the form that its prompt asks for."""
    last = {"{": '{{"reasoning": "known", "answer": "{}"}}', "答": "答案：{}", "T": "The answer is ({})."}
    form = last.get(item.more.get("form", ""), "Answer: {}")
    return f"<think>\nThis one is known.\n</think>\n\n{form.format(item.gold)}"


def _asked(
    template: str, between: str, form: str, prefer: Sequence[str] = ("test",), header: Sequence[str] | None = None,
    right: Callable[[files.Record, list[str]], str | None] | None = None, subjects: dict[str, str] | None = None,
) -> Callable[[Path], list[Item]]:  # fmt: skip
    """A loader: every row of the preferred files that has a right letter, in a template."""

    def load(folder: Path) -> list[Item]:
        items, seen = [], set()
        for record in files.records(folder, prefer, header):
            options = _options(record)
            gold = (right or _right)(record, options)
            if gold is None:
                continue
            question, subject = files.text_of(record, "question", "Question"), _subject(record)
            listed = "\n".join(f"{between.format(x)}{o}" for x, o in zip(ascii_uppercase, options, strict=False))
            name = (subjects or {}).get(subject, subject)
            own = record.row.get("question_id")
            items.append(
                Item(
                    id=files.distinct(
                        str(own) if own is not None else f"{subject}/{files.hashed(question, *options)}", seen
                    ),
                    prompt=template.format(word="Answer", question=question, options=listed, subject=name),
                    gold=gold,
                    group=subject,
                    more={"question": _bare(question, options), "form": form},
                )
            )
        if not items:
            raise Refusal(f"the files in {folder} hold no question with an answer: put the files of its makers there")
        return items

    return load


def _bare(question: str, options: Sequence[str]) -> str:
    """Question and options, an option a line, as `stated.stated_letter` reads them."""
    lines = [f"{x}. {' '.join(option.split())}" for x, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines])


def _options(record: files.Record) -> list[str]:
    found: Any = record.row.get("choices", record.row.get("options"))
    if isinstance(found, str):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError):
            found = None
    if found is None:
        found = [record.row[x] for x in "ABCD" if record.row.get(x) is not None]
    options = [str(option).strip() for option in found]
    if len(options) < 2 or len(options) > len(ascii_uppercase):
        raise Refusal(f"{record.where}: {len(options)} options: give a field choices, or fields A, B, C and D")
    return options


def _right(record: files.Record, options: Sequence[str]) -> str | None:
    """The right letter of a row; None where it has none."""
    for name in ("answer", "Answer"):
        if (value := record.row.get(name)) is not None:
            return _as_letter(value, len(options))
    return None


def _as_letter(value: Any, count: int) -> str | None:
    """A letter, or a number from 0 up, as a letter.

    >>> _as_letter("B", 4), _as_letter(2, 4), _as_letter("1, 3", 4), _as_letter("E", 4)
    ('B', 'C', None, None)
    """
    text = str(value).strip()
    if text.isdecimal() and len(text) < 3:
        text = ascii_uppercase[int(text)] if int(text) < len(ascii_uppercase) else ""
    return text if len(text) == 1 and text in ascii_uppercase[:count] else None


def _redux(record: files.Record, options: Sequence[str]) -> str | None:
    """The key of MMLU-Redux: as it was where the question is sound, the corrected one where the key was wrong."""
    error = str(record.row.get("error_type") or "").strip().casefold().replace(" ", "_")
    if error == "ok":
        return _right(record, options)
    return _as_letter(record.row.get("correct_answer") or "", len(options)) if error == "wrong_groundtruth" else None


def _subject(record: files.Record) -> str:
    for name in ("category", "subject"):
        if isinstance(record.row.get(name), str):
            return record.row[name]
    path = Path(record.name)
    stem = path.parent.name if re.match(r"(?:data|test|val|train)\b", path.stem) else path.stem
    return re.sub(r"_(?:test|val)$", "", stem).removeprefix("mmlu_")


def load_gpqa(folder: Path) -> list[Item]:
    """The questions of ``gpqa_diamond.csv`` (fields Question, Correct Answer, Incorrect Answer 1 to 3).

    Where the paper is silent:
        In which order the options stand.  By a hash of the question and option: fixed, whatever the order of the file.
    """
    items, seen = [], set()
    for record in files.records(folder, ("diamond",)):
        question = files.text_of(record, "Question", "question")
        right = files.text_of(record, "Correct Answer")
        options = [right, *(files.text_of(record, f"Incorrect Answer {n}") for n in (1, 2, 3))]
        order = sorted(range(4), key=lambda n: hashlib.sha256(f"{question}\n{n}\n{options[n]}".encode()).digest())
        shuffled = [options[n] for n in order]
        listed = "\n".join(f"{x}) {option}" for x, option in zip("ABCD", shuffled, strict=True))
        id = record.row.get("Record ID") or files.hashed(question)
        items.append(
            Item(
                id=files.distinct(str(id), seen),
                prompt=SIMPLE_EVALS.format(word="ANSWER", question=question, options=listed),
                gold="ABCD"[order.index(0)],
                group=str(record.row.get("High-level domain") or ""),
                more={"question": _bare(question, shuffled)},
            )
        )
    return items


def load_cluewsc(folder: Path) -> list[Item]:
    """CLUEWSC: what does a pronoun refer to?  Of the rows (text, two spans, whether they are the same thing) those that
    are: each asks for its first span.

    Where the paper is silent:
        The split (test has no labels, so validation, or any file that has), the prompt, and whether "EM" compares the
        words or a yes and no.  We ask for the words and compare them without spaces and marks.
    """
    return list(_pronouns(folder))


def _pronouns(folder: Path) -> Iterator[Item]:
    seen: set[str] = set()
    for record in files.records(folder, ("validation", "dev", "val")):
        target, label = record.row.get("target"), str(record.row.get("label")).casefold()
        if not isinstance(target, dict) or "span1_text" not in target or "text" not in record.row:
            raise Refusal(f"{record.where}: no text and target with span1_text and span2_text: take CLUE's own files")
        if label in ("true", "1", "是"):
            text, pronoun = str(record.row["text"]), str(target["span2_text"])
            yield Item(
                id=files.distinct(files.hashed(text, pronoun, str(target["span1_text"])), seen),
                prompt=CLUE_WSC.format(text=text, pronoun=pronoun),
                gold=str(target["span1_text"]),
                more={"question": text, "form": "答"},
            )


_MARKS = re.compile(r"[\s“”\"'‘’「」《》（）()。，．.、：:*$\\{}]")


def _named(text: str) -> str | None:
    """What an output says last: after the last "答案：", else its last line."""
    said = text.rpartition("</think>")[2].strip()
    if box := re.findall(r"\\boxed\{(?:\\text\{)?([^{}]*)", said):
        return _MARKS.sub("", box[-1])
    last = said.replace("</answer>", "").splitlines()[-1:] or [""]
    return _MARKS.sub("", re.split("答案(?:是|为)?", last[0])[-1]) or None


def grade_pronoun(item: Item, text: str) -> Score:
    """1 where the words are those of the text that the pronoun stands for.

    >>> item = Item(id="1", prompt="", gold="小明")
    >>> [grade_pronoun(item, text).value for text in ("想一想。\\n答案：“小明”。", "答案：小红", "")]
    [1.0, 0.0, 0.0]
    """
    said = _named(text)
    if said is None:
        return Score(value=0.0, verdict="unparsed")
    right = said == _MARKS.sub("", item.gold)
    return Score(value=float(right), verdict="right" if right else "wrong")


C_EVAL_SUBJECTS = dict(
    pair.split("=")
    for pair in (
        "computer_network=计算机网络 operating_system=操作系统 computer_architecture=计算机组成 "
        "college_programming=大学编程 college_physics=大学物理 college_chemistry=大学化学 "
        "advanced_mathematics=高等数学 probability_and_statistics=概率统计 discrete_mathematics=离散数学 "
        "electrical_engineer=注册电气工程师 metrology_engineer=注册计量师 high_school_mathematics=高中数学 "
        "high_school_physics=高中物理 high_school_chemistry=高中化学 high_school_biology=高中生物 "
        "middle_school_mathematics=初中数学 middle_school_biology=初中生物 middle_school_physics=初中物理 "
        "middle_school_chemistry=初中化学 veterinary_medicine=兽医学 college_economics=大学经济学 "
        "business_administration=工商管理 marxism=马克思主义基本原理 "
        "mao_zedong_thought=毛泽东思想和中国特色社会主义理论体系概论 education_science=教育学 "
        "teacher_qualification=教师资格 high_school_politics=高中政治 high_school_geography=高中地理 "
        "middle_school_politics=初中政治 middle_school_geography=初中地理 modern_chinese_history=近代史纲要 "
        "ideological_and_moral_cultivation=思想道德修养与法律基础 logic=逻辑学 law=法学 "
        "chinese_language_and_literature=中国语言文学 art_studies=艺术学 professional_tour_guide=导游资格 "
        "legal_professional=法律职业资格 high_school_chinese=高中语文 high_school_history=高中历史 "
        "middle_school_history=初中历史 civil_servant=公务员 sports_science=体育学 plant_protection=植物保护 "
        "basic_medicine=基础医学 clinical_medicine=临床医学 urban_and_rural_planner=注册城乡规划师 "
        "accountant=注册会计师 fire_engineer=注册消防工程师 "
        "environmental_impact_assessment_engineer=环境影响评价工程师 tax_accountant=税务师 physician=医师资格"
    ).split()
)
"""The subjects of C-Eval as its prompt names them (subject_mapping.json of its makers)."""

_LETTERS = Benchmark(
    name="", folder="", load=_asked("", "", ""), grade=grade, perfect=perfect, answer=letter, metric="EM"
)  # fmt: skip

BENCHMARKS = (
    replace(
        _LETTERS, name="MMLU", folder="mmlu", hub="cais/mmlu", files="all/test-*", metric="Pass@1",
        load=_asked(SIMPLE_EVALS, "{}) ", "", header=("question", "A", "B", "C", "D", "answer")), licence="MIT",
        note="k is not stated: 1",
    ),
    replace(
        _LETTERS, name="MMLU-Redux", folder="mmlu_redux", hub="edinburgh-dawg/mmlu-redux-2.0", files="*/*.arrow",
        load=_asked(ZERO_EVAL, "- {}) ", "{", right=_redux), licence="CC BY 4.0",
        note="5,700 questions, of which those without exactly one right answer are left out; k is not stated: 1",
    ),
    replace(
        _LETTERS, name="MMLU-Pro", folder="mmlu_pro", hub="TIGER-Lab/MMLU-Pro", files="data/test-*",
        grade=grade_pro,
        answer=last_letter,
        load=_asked(MMLU_PRO, "{}. ", "T"), licence="MIT (card), Apache-2.0 (repository)",
        note="zero-shot, as the paper; k is not stated: 1",
    ),
    replace(
        _LETTERS, name="GPQA Diamond", folder="gpqa", k=64, metric="pass@1", load=load_gpqa, licence="CC BY 4.0, gated",
        note="its authors ask that it never be put online in plain text, so it is never downloaded: put your own "
        "gpqa_diamond.csv of Idavidrein/gpqa there",
    ),
    replace(
        _LETTERS, name="C-Eval", folder="ceval", hub="ceval/ceval-exam", files="*/val-*", licence="CC BY-NC-SA 4.0",
        load=_asked(C_EVAL, "{}. ", "答", ("val", "test"), subjects=C_EVAL_SUBJECTS),
        note="validation: the test's answers are not public; which split the paper has is not stated; k: 1",
    ),
    replace(
        _LETTERS, name="CMMLU", folder="cmmlu", hub="haonan-li/cmmlu", files="*.zip", licence="CC BY-NC-SA 4.0",
        load=_asked(C_MMLU, "{}. ", "答"), metric="accuracy",
        note="named in section 3 without a score: nothing to compare with",
    ),
    replace(
        _LETTERS, name="CLUEWSC", folder="cluewsc", hub="clue/clue", files="cluewsc2020/validation-*",
        load=load_cluewsc, grade=grade_pronoun, answer=lambda item, text: _named(text),
        perfect=lambda item: f"<think>\n想好了。\n</think>\n\n答案：{item.gold}", licence="not stated",
        note="split and prompt are not stated: validation, asked for the words",
    ),
)  # fmt: skip
