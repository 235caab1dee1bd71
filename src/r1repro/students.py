"""The students of distillation by name: the paper's six (section 2.4, Table 5), and smaller ones for a small machine.

What the paper and its release say of a student is read from ``papers/``; nothing of it is typed here.
"""

from dataclasses import dataclass
from functools import cache

from r1repro import paper
from r1repro.records import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A base model and how it is taught.

    Where the paper is silent:
        The template.  The released students bring a chat template of DeepSeek's own; here the base's own is used, or
        ``r1_zero``, which no base has to know.
        The bases are pre-trained models, so nothing is said of new tokens: the tags stay text, of several tokens each.
    """

    name: str

    base: str
    """Id of its base on Hugging Face."""

    architecture: str

    parameters: str
    """As its maker says, such as ``1.5B``."""

    template: str = "chat"
    """See `config.Policy`."""

    tags: str = "text"
    """The tags of thinking and answer are ``text``: several tokens each in the vocabularies of Qwen2.5 and Llama 3."""

    max_positions: int | None = None
    """Ours, where the base has fewer positions than an output may take; None: the base's own.  The released Qwen-Math
    students raise 4,096 to 131,072 and leave rope_theta at 10,000 (students.csv, note)."""

    learning_rate: float
    final_learning_rate: float
    """Of the cosine, its first and its last: students.csv; for those that the paper has not, Ours."""

    licence: str
    """Of the base."""

    source: str
    """Where these values come from."""

    @property
    def final_share(self) -> float:
        """The last learning rate as a share of the first.

        >>> student("llama-8b").final_share
        0.1
        """
        return round(self.final_learning_rate / self.learning_rate, 6)

    def sft(self) -> dict[str, float]:
        """The settings of `config.SFT` that are a student's own.

        >>> student("qwen-32b").sft()
        {'learning_rate': 6e-05, 'final_share': 0.1}
        """
        return {"learning_rate": self.learning_rate, "final_share": self.final_share}


EXTENDED = 131_072
"""Positions of the released students that were extended (students.csv, note of the 1.5B)."""

_OURS = (
    # name, base, parameters, licence
    ("qwen-0.5b", "Qwen/Qwen2.5-0.5B", "0.5B", "Apache-2.0"),
    ("qwen-1.5b-base", "Qwen/Qwen2.5-1.5B", "1.5B", "Apache-2.0"),
    ("qwen-3b", "Qwen/Qwen2.5-3B", "3B", "Qwen Research"),
)


@cache
def students() -> dict[str, Student]:
    """Every student by its short name, the paper's first.

    >>> list(students())[:6]
    ['qwen-1.5b', 'qwen-7b', 'qwen-14b', 'qwen-32b', 'llama-8b', 'llama-70b']
    >>> students()["qwen-7b"].base, students()["qwen-7b"].learning_rate
    ('Qwen/Qwen2.5-Math-7B', 8e-05)
    """
    found = [_of_row(row) for row in paper.table("students")]
    smallest = found[0]
    found += [
        Student(
            name=name, base=base, architecture="Qwen2 dense decoder", parameters=parameters, licence=licence,
            learning_rate=smallest.learning_rate, final_learning_rate=smallest.final_learning_rate,
            source=f"Ours: not a student of the paper; learning rates of its smallest, {smallest.name}",
        )
        for name, base, parameters, licence in _OURS
    ]  # fmt: skip
    return {student.name: student for student in found}


def student(name: str) -> Student:
    """The student of a name.

    Raises:
        Refusal: none is called so.

    >>> student("qwen-3b").licence
    'Qwen Research'
    """
    if name not in students():
        raise Refusal(f"no student called {name!r}: choose one of {', '.join(students())}")
    return students()[name]


def of_base(base: str | None) -> Student | None:
    """The student whose base has an id of Hugging Face; None where there is none.

    >>> of_base("Qwen/Qwen2.5-14B").name
    'qwen-14b'
    """
    return next((one for one in students().values() if one.base == base), None)


def _of_row(row: dict[str, str]) -> Student:
    return Student(
        name=row["student"].removeprefix("Distill-").lower(),
        base=row["base_model_hf_id"],
        architecture=row["architecture_family"],
        parameters=row["params_nominal"],
        max_positions=EXTENDED if "-Math-" in row["base_model_hf_id"] else None,
        learning_rate=float(row["initial_learning_rate"]),
        final_learning_rate=float(row["final_learning_rate"]),
        licence=row["base_license"],
        source="students.csv",
    )
