r"""The same rewards in the form that other trainers call.

TRL: pass the functions themselves, `GRPOTrainer(reward_funcs=[accuracy_reward, format_reward], ...)`.  The data set's
columns reach them by name: `answer` (or `solution`, or `gold`) for accuracy, `tests` for code, `language` for language.

verl: `custom_reward_function.path=.../r1repro/rewards/ecosystem.py`, `custom_reward_function.name=compute_score`.

Where a chat template has already written `<think>`, an output begins within it; the tag is put back before scoring.
"""

from collections.abc import Sequence
from typing import Any

from r1repro.records import Question, Refusal, Score
from r1repro.rewards import accuracy, code, format, language

Output = str | list[dict[str, str]]
"""A text, or messages of a conversation, of which the last is scored."""


def accuracy_reward(completions: Sequence[Output], prompts: Sequence[Output] | None = None, **columns: Any) -> list:
    """1.0, 0.0, or None where the grader failed, for each output: `accuracy.accuracy` against column `answer`."""
    golds = _column(columns, ("answer", "solution", "gold"), len(completions))
    return _values(accuracy.accuracy(_questions(golds), _texts(completions, prompts)))


def format_reward(completions: Sequence[Output], prompts: Sequence[Output] | None = None, **columns: Any) -> list:
    """1.0 or 0.0 for each output: `format.format_reward`."""
    return [format.format_reward(text) for text in _texts(completions, prompts)]


def language_reward(completions: Sequence[Output], prompts: Sequence[Output] | None = None, **columns: Any) -> list:
    """The share of target-language words in the thinking (`language.language_share`); column `language`, else "en"."""
    targets = columns.get("language") or ["en"] * len(completions)
    texts = _texts(completions, prompts)
    return [language.language_share(text, target) for text, target in zip(texts, targets, strict=True)]


def code_reward(completions: Sequence[Output], prompts: Sequence[Output] | None = None, **columns: Any) -> list:
    """1.0, 0.0, or None where the tests failed to run, for each output: `code.code` against column `tests`."""
    golds = _column(columns, ("tests",), len(completions))
    return _values(code.code(_questions(golds), _texts(completions, prompts)))


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **unused: Any
) -> dict[str, Any]:
    """verl's entry: accuracy plus format, each 0 or 1, with both parts beside the sum in ``score``.

    Programs are graded where ``extra_info`` says ``{"kind": "code"}``.  A grader that fails scores 0 there, because
    verl knows no missing reward; ``verdict`` tells the two apart.

    >>> compute_score("gsm8k", "<think>2 + 2</think> <answer>4</answer>", "4")
    {'score': 2.0, 'accuracy': 1.0, 'format': 1.0, 'verdict': 'right'}
    """
    is_code = (extra_info or {}).get("kind") == "code"
    text = _texts([solution_str], [(extra_info or {}).get("prompt", "")])[0]
    (score,) = (code.code if is_code else accuracy.accuracy)(_questions([ground_truth]), [text])
    shaped = format.format_reward(text)
    right = score.value or 0.0
    return {"score": right + shaped, "accuracy": right, "format": shaped, "verdict": score.verdict}


def _column(columns: dict[str, Any], names: Sequence[str], size: int) -> Sequence[Any]:
    found = next((columns[name] for name in names if columns.get(name) is not None), None)
    if found is None or isinstance(found, str) or len(found) != size:
        raise Refusal(f"the data set has no column {' or '.join(map(repr, names))} with one entry an output: add it")
    return found


def _questions(golds: Sequence[Any]) -> list[Question]:
    return [Question(id="", text="", gold=str(gold), language="en", level=1, family="") for gold in golds]


def _texts(completions: Sequence[Output], prompts: Sequence[Output] | None) -> list[str]:
    prompts = [""] * len(completions) if prompts is None else prompts
    return [_text(output, prompt) for output, prompt in zip(completions, prompts, strict=True)]


def _text(output: Output, prompt: Output) -> str:
    text = output if isinstance(output, str) else output[-1]["content"] or ""
    begun = isinstance(prompt, str) and prompt.rstrip().endswith("<think>") and not text.lstrip().startswith("<think>")
    return f"<think>{text}" if begun else text


def _values(scores: Sequence[Score]) -> list[float | None]:
    return [score.value for score in scores]
