"""Questions are drawn by name and split, the same each time, in equal shares, and no split meets another."""

import re
from collections import Counter

import pytest

from r1repro import data
from r1repro.records import Refusal
from r1repro.tinyworld import arithmetic


def rollouts(seed, num=10, count=32):
    return [data.rollout_questions("chain_sum", seed, index, count) for index in range(num)]


def test_the_same_call_gives_the_same_questions():
    assert rollouts(0, 2) == rollouts(0, 2)
    assert data.split_questions("chain_sum", "test", 0, 20) == data.split_questions("chain_sum", "test", 0, 20)


@pytest.mark.parametrize("source", ["chain_sum", "open"])
def test_no_questions_are_drawn_at_once(source):
    assert data.split_questions(source, "test", 0, 0) == []


def test_seed_and_rollout_draw_other_questions():
    ids = [{q.id for q in questions} for seed in (0, 1) for questions in rollouts(seed, 3, 40)]
    for i, some in enumerate(ids):
        for others in ids[:i]:
            assert len(some & others) <= 2


def test_more_questions_begin_with_the_same():
    assert data.split_questions("chain_sum", "test", 0, 30)[:10] == data.split_questions("chain_sum", "test", 0, 10)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_questions_of_a_split_are_distinct_and_its_own(split):
    questions = data.split_questions("chain_sum", split, 0, 300)
    assert len({q.id for q in questions}) == len({q.text for q in questions}) == 300
    assert {arithmetic.split_of(q.id) for q in questions} == {split}


def test_train_validation_and_test_are_disjoint():
    """By the expression itself, so that the same sum in another language counts as the same."""
    expressions = {
        "train": {q.text.split("：")[-1].split(": ")[-1] for questions in rollouts(0, 40) for q in questions},
        **{s: {q.text.split("：")[-1].split(": ")[-1] for q in data.split_questions("chain_sum", s, 0, 400)}
           for s in ("validation", "test")},
    }  # fmt: skip
    assert all(len(e) > 300 for e in expressions.values())
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not expressions[one] & expressions[other]


def test_no_training_question_works_one_that_is_held_out():
    """57 + 87 is a question of level 1, the beginning of 57 + 87 - 70, and the first line of its solution."""
    worked = 0
    for question in (q for questions in rollouts(0, 10) for q in questions):
        terms = re.findall(r"[+-]?\d+", question.text.replace(" ", ""))
        size = len(terms[0])
        for number in range(2, len(terms) + 1):
            lines = ["".join(terms[:number])]  # the question's beginnings, and the line of their last term
            lines.append(f"{sum(map(int, terms[: number - 1]))}{terms[number - 1]}")
            for line in lines:
                numbers = re.findall(r"\d+", line)
                if {len(n) for n in numbers} == {size} and (len(numbers), size) in arithmetic.LEVELS.values():
                    worked += 1
                    assert arithmetic.split_of(arithmetic.canonical_id(line)) == "train", (question.text, line)
    assert worked > 300


@pytest.mark.parametrize("split", ["rollout", "test"])
def test_levels_and_languages_have_equal_shares(split):
    if split == "rollout":
        questions = [q for some in rollouts(0, 10, 32) for q in some]
    else:
        questions = data.split_questions("chain_sum", "test", 0, 200)
    levels, languages = Counter(q.level for q in questions), Counter(q.language for q in questions)
    both = Counter((q.level, q.language) for q in questions)
    assert set(levels) == set(arithmetic.LEVELS)
    for level, count in levels.items():
        assert count / len(questions) == pytest.approx(1 / len(arithmetic.LEVELS), abs=0.02), level
    for language, count in languages.items():
        assert count / len(questions) == pytest.approx(1 / 2, abs=0.05), language
    assert min(both.values()) > 0.06 * len(questions)


def test_every_question_of_a_rollout_is_asked_once():
    """Twice the same question would be twice the same noise, and so twice the same group."""
    repeated = [index for index, questions in enumerate(rollouts(0, 300)) if len({q.id for q in questions}) < 32]
    assert repeated == []


def test_unknown_names_are_refused():
    with pytest.raises(Refusal, match="no questions called 'riddles': choose one of chain_sum"):
        data.rollout_questions("riddles", 0, 0, 4)
    with pytest.raises(Refusal, match="no questions called 'riddles'"):
        data.split_questions("riddles", "test", 0, 4)
    with pytest.raises(Refusal, match="no split 'exam': choose one of train, validation, test"):
        data.split_questions("chain_sum", "exam", 0, 4)


def test_more_questions_than_there_are_is_refused_and_not_waited_for(monkeypatch):
    few, calls = [arithmetic.draw("test", 1, "en", key) for key in range(3)], iter(range(100_000))
    monkeypatch.setattr(arithmetic, "draw", lambda *_: few[next(calls) % 3])
    with pytest.raises(Refusal):
        data.split_questions("chain_sum", "test", 0, 10)
