"""Rewards named by import path, and their sum: R = R_accuracy + R_format, equal weights (section 2.2.2)."""

import importlib
import math
from collections.abc import Callable, Sequence

from r1repro.records import Question, Refusal, Score

Reward = Callable[[Sequence[Question], Sequence[str]], Sequence[Score | float]]
"""(question of each output, its text) -> a score each.  In training it is called in a thread beside the sampling, with
the outputs to one question at a time."""


def load(paths: Sequence[str]) -> list[Callable]:
    """The callables that `paths` name, each "module:function".

    Errors: `Refusal` when one cannot be imported or called.

    >>> load(["r1repro.rewards.format:format_scores"])[0].__name__
    'format_scores'
    >>> load(["math:pi"])
    Traceback (most recent call last):
    r1repro.records.Refusal: reward 'math:pi' is a float, not a function: name something that can be called
    """
    found = []
    for path in paths:
        module, _, name = path.partition(":")
        if not (module and name) or path.startswith("."):
            raise Refusal(f"reward {path!r} is no import path: write it as 'module:function'")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise Refusal(f"reward {path!r} cannot be imported ({error}): check the name, or PYTHONPATH") from error
        if not callable(function):
            kind = type(function).__name__
            raise Refusal(f"reward {path!r} is a {kind}, not a function: name something that can be called")
        found.append(function)
    return found


def name(reward: Reward) -> str:
    """What metrics call a reward: its function's name, without a last "_scores" or "_reward".

    >>> [name(reward) for reward in load(["r1repro.rewards.accuracy:accuracy", "r1repro.rewards.format:format_scores"])]
    ['accuracy', 'format']
    """
    full = getattr(reward, "__name__", type(reward).__name__)
    return full.removesuffix("_scores").removesuffix("_reward") or full


def total(
    rewards: Sequence[Reward], questions: Sequence[Question], texts: Sequence[str]
) -> tuple[list[float | None], dict[str, list[Score]]]:
    """The sum of the rewards of each output, and every reward's scores by its `name`.

    A plain number from a reward becomes a `Score`: right above 0, else wrong.  None in any part (or a plain None: the
    reward cannot tell) makes the sum None, and the output takes no part in its group's advantages.

    Errors: `Refusal` when a reward gives another number of scores than outputs, or something that is no finite number.

    Where the paper is silent:
        The weights beyond "equal": we add the rewards as they come, so a reward of another size weighs more.

    >>> def short(questions, texts):
    ...     return [float(len(text) < 4) for text in texts]
    >>> total([short], [None, None], ["yes", "perhaps"])[0]
    [1.0, 0.0]
    """
    parts: dict[str, list[Score]] = {}
    for reward in rewards:
        if name(reward) in parts:
            raise Refusal(f"two rewards are called {name(reward)!r}: rename one, so that metrics can tell them apart")
        given = list(reward(questions, texts))
        if len(given) != len(texts):
            raise Refusal(f"reward {name(reward)!r} gave {len(given)} scores for {len(texts)} outputs: give one each")
        parts[name(reward)] = [_score(name(reward), value) for value in given]
    rows = zip(*parts.values(), strict=True) if parts else ((),) * len(texts)
    return [None if any(s.value is None for s in row) else sum((s.value for s in row), 0.0) for row in rows], parts


def _score(reward: str, given: Score | float | None) -> Score:
    if given is None or (isinstance(given, Score) and given.value is None):
        return given or Score(value=None, verdict="error")
    try:
        value = float(given.value if isinstance(given, Score) else given)
    except (TypeError, ValueError) as error:
        raise Refusal(f"reward {reward!r} gave {given!r}: give a number or a Score") from error
    if not math.isfinite(value):
        raise Refusal(f"reward {reward!r} gave {value}: give a finite number, or None when it cannot tell")
    return Score(value=value, verdict=given.verdict if isinstance(given, Score) else "right" if value > 0 else "wrong")
