"""Train, validation and test: which split a question belongs to is a function of the question alone."""

import hashlib

SPLITS = ("train", "validation", "test")


def canonical_id(canonical: str) -> str:
    """First 16 hex digits of the SHA-256 of a question's canonical form without its spaces.

    The language does not enter: the same question in two languages is one question.

    >>> canonical_id("5 + 7") == canonical_id("5+7")
    True
    """
    return hashlib.sha256(canonical.replace(" ", "").encode()).hexdigest()[:16]


def split_of(question_id: str) -> str:
    """The split that a question belongs to, by the hash of its canonical form: 80 % train, 10 % validation, 10 % test.

    The same in every run, file and language.
    """
    bucket = int(question_id[:8], 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"
