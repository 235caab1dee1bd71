"""The nouns of the project: question, score, and the line that tells a person what to mend.

Axes.  A tensor's name ends in its axes, in this order and with these letters, everywhere:

    Q  questions                 G  outputs to each question        N  Q * G outputs
    P  prompt tokens             T  output tokens                   V  vocabulary
    1  an axis of length one, there to be broadcast

so ``rewards_QG`` has shape (Q, G) and ``logp_NT`` has shape (N, T).
"""

from dataclasses import dataclass

VERDICTS = ("right", "wrong", "unparsed", "timed_out", "error")
"""What a grader can say of an output.  The last two are no fault of the output: they are masked, never scored 0."""


class Refusal(ValueError):
    """One line for a person: the value, the reason, the way out.

    The command line prints it and exits with 2; a notebook cell shows the line instead of a traceback.

    >>> raise Refusal("tier 'huge' does not exist: choose one of smoke, cpu")
    Traceback (most recent call last):
    r1repro.records.Refusal: tier 'huge' does not exist: choose one of smoke, cpu
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Refused: {self}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question and all that a reward may know of it."""

    id: str
    """First 16 hex digits of the SHA-256 of the canonical question: the same in every split, file and run."""

    text: str
    gold: str
    """The reference answer."""

    language: str
    """Target language of the thinking: ``en`` or ``zh``."""

    level: int
    """Stratum of difficulty, 1 the easiest."""

    family: str

    kind: str = "answer"
    """How it is judged: ``answer`` by its final answer, ``program`` by running it, ``gym`` by its task of
    reasoning_gym, ``open`` by a reward model."""

    requirements: tuple[tuple[str, str], ...] = ()
    """(name, value).  What the reply to an open question is to hold: for the hidden rule, never for a reward.  Of a
    question of reasoning_gym, what it is made from: task, seed, index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a reward says of one output."""

    value: float | None
    """None: the grader failed, so the output takes no part in its group's advantages."""

    verdict: str
    """One of ``VERDICTS``."""
