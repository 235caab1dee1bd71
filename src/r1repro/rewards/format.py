"""The format reward of DeepSeek-R1: the thinking stands between its tags (section 2.2.2)."""

import re
from collections.abc import Sequence

from r1repro.records import Question, Score

_THINK_TAG = re.compile(r"</?think>")


def format_reward(text: str) -> float:
    """1 if `text` opens with its only think block and then says something; else 0.

    Where the paper is silent:
        Whether `<answer>` tags are checked.  It names the think tags alone, so we do not: a boxed answer is an answer
        too, and what the answer is, is the accuracy reward's business.  Tags without words around them say nothing, so
        an empty answer earns nothing; an empty thinking does.  How much it is worth: 1, as the accuracy reward, since
        the paper adds the two with equal weight.

    >>> format_reward("<think>2 + 2</think> <answer>4</answer>")
    1.0
    >>> format_reward("<think>2 + 2</think> <answer> </answer>")
    0.0
    >>> format_reward("<think>2</think> 4 <think>again</think>")
    0.0
    """
    opens = text.lstrip().startswith("<think>")
    only_block = _THINK_TAG.findall(text) == ["<think>", "</think>"]
    answer = text.rpartition("</think>")[2].replace("<answer>", "").replace("</answer>", "")
    return float(opens and only_block and bool(answer.strip()))


def small_format_scores(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """The format reward at a fifth of its weight: not the paper's, for comparison (`config.VARIANTS`)."""
    return [Score(value=score.value / 5, verdict=score.verdict) for score in format_scores(questions, texts)]


def format_scores(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """The format reward of each output, right or wrong; the questions play no part."""
    rewards = [format_reward(text) for text in texts]
    return [Score(value=reward, verdict="right" if reward else "wrong") for reward in rewards]
