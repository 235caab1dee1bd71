"""Estimators worked by hand, against slow versions, and the coverage of the interval where the truth is known."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro.algo import estimators
from r1repro.algo.estimators import bootstrap, cons_at_k, effects, majority, pass_at_1, pass_at_k, slope, spearman

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9)


def test_pass_at_1_averages_samples_first_then_questions():
    assert pass_at_1([[1, 1, 1, 1], [1, 0, 0, 0]]) == pytest.approx((1 + 0.25) / 2)
    assert pass_at_1([[1, np.nan], [0, 1]]) == 0.5  # not graded is not right, and stays in the count


@pytest.mark.parametrize("scores", [[], [[]], [1, 0]])
def test_pass_at_1_wants_questions_by_samples(scores):
    with pytest.raises(ValueError, match="one row a question"):
        pass_at_1(scores)


@pytest.mark.parametrize("num_samples, right, k", [(4, 1, 2), (5, 2, 3), (6, 0, 2), (6, 6, 2), (6, 5, 3), (16, 3, 4)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample(num_samples, right, k):
    samples = [1] * right + [0] * (num_samples - right)
    subsets = list(itertools.combinations(samples, k))
    assert pass_at_k([right], num_samples, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_by_hand_over_two_questions():
    assert pass_at_k([1, 2], num_samples=4, k=2) == pytest.approx((1 / 2 + 5 / 6) / 2)


@pytest.mark.parametrize("right, k", [([5], 2), ([-1], 2), ([], 2), ([1], 0), ([1], 5)])
def test_pass_at_k_refuses_what_cannot_be(right, k):
    with pytest.raises(ValueError):
        pass_at_k(right, 4, k)


@pytest.mark.parametrize(
    "answers, speaker",
    [
        (["7", "8", "8"], 1),
        (["8", "7", "7", "8"], 0),  # a tie: the answer sampled first
        (["7", "8", "8", "7", "8"], 1),
        ([None, None, None, "7"], 3),  # silence is no vote, however loud
        (["7", None, None], 0),
        ([None, None], None),
        (["9", "1", "1", "9", None], 0),
    ],
)
def test_the_majority_by_hand(answers, speaker):
    assert majority(answers) == speaker


@given(ANSWERS)
def test_the_majority_is_a_first_voter_with_most_votes(answers):
    speaker = majority(answers)
    votes = [a for a in answers if a is not None]
    if not votes:
        assert speaker is None
        return
    winner = answers[speaker]
    most = max(votes.count(a) for a in votes)
    assert votes.count(winner) == most
    assert speaker == min(answers.index(a) for a in votes if votes.count(a) == most)


@given(ANSWERS, st.permutations(["1", "2", "3"]))
def test_the_vote_does_not_care_what_the_answers_are_called(answers, names):
    renamed = [None if a is None else names[int(a) - 1] for a in answers]
    assert majority(renamed) == majority(answers)


def test_cons_by_hand():
    answers = [["1", "2", "2", None], ["3", "4", "3", "4"], [None] * 4, ["5", "6", "7", "8"]]
    right = [[0, 1, 1, 0], [0, 1, 0, 1], [0] * 4, [1, 0, 0, 0]]
    assert cons_at_k(answers, right) == 0.5  # voted right; tie to the first, wrong; nobody votes, wrong; tie, right
    with pytest.raises(ValueError):
        cons_at_k(answers, right[:3])


def test_slope_by_hand_and_along_the_last_axis():
    np.testing.assert_allclose(slope([0, 10, 20], [[1, 2, 3], [3, 1, 2]]), [0.1, -0.05])
    with pytest.raises(ValueError, match="two different points"):
        slope([5, 5], [1, 2])


def slow_spearman(x, y):
    def ranks(v):
        return [sum(u < w for u in v) + (sum(u == w for u in v) + 1) / 2 for w in v]

    return np.corrcoef(ranks(x), ranks(y))[0, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=12))
def test_weighted_ranks_equal_ranks_of_the_repeated_sample(rows):
    x, y, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    x_long, y_long = (np.repeat(v, weights.astype(int)) for v in (x, y))
    fast = estimators.weighted_spearman(weights[None], x, y)[0]
    if len(set(x_long)) < 2 or len(set(y_long)) < 2:
        assert np.isnan(fast)
    else:
        assert fast == pytest.approx(slow_spearman(list(x_long), list(y_long)))


def test_spearman_with_ties_by_hand():
    assert spearman([0, 0, 1, 1], [5, 6, 7, 8]) == pytest.approx(np.sqrt(0.8))
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(1).normal(3, 2, 400)
    value, low, high = bootstrap([values])
    standard_error = values.std() / 20
    assert value == pytest.approx(values.mean())
    np.testing.assert_allclose([low, high], values.mean() + standard_error * np.array([-1.96, 1.96]), atol=0.02)


def test_paired_sides_draw_the_same_questions():
    base = np.random.default_rng(2).random(200)
    table = np.stack([base, base + 0.1], axis=1)
    value, low, high = bootstrap([table, table], lambda m: m[:, 1] - m[:, 0])
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))
    ratio = bootstrap([table], lambda m: m[:, 1] / m[:, 0])
    assert ratio.high - ratio.low < 0.06  # unpaired it would be some 0.25


def test_the_value_pools_seeds_and_each_seed_is_told():
    tables = [[[1.0, 2.0]], [[3.0, 12.0]]]
    assert bootstrap(tables, lambda m: m[:, 1] / m[:, 0]).value == 14 / 4
    assert effects(tables, lambda m: m[:, 1] / m[:, 0]) == [2.0, 4.0]


def test_seeds_that_disagree_widen_the_interval():
    same, apart = [np.full(50, v) for v in (0.5, 0.5, 0.5)], [np.full(50, v) for v in (0.3, 0.5, 0.7)]
    assert bootstrap(same)[1:] == (0.5, 0.5)
    assert bootstrap(apart)[1:] == pytest.approx((0.3, 0.7))  # three times the same seed: 1 draw in 27 each way


def test_an_undefined_draw_widens_both_ends():
    table = np.zeros((30, 2))
    table[0] = [1, 1]  # missed by a third of the draws
    value, low, high = bootstrap([table], lambda m: m[:, 1] / m[:, 0])
    assert (value, low, high) == (1.0, -np.inf, np.inf)


def test_several_numbers_at_once_are_the_numbers_one_by_one():
    table = np.random.default_rng(3).random((40, 3))
    together = bootstrap([table, table], lambda m: m)
    for column in range(3):
        alone = bootstrap([table, table], lambda m, column=column: m[:, column])
        assert tuple(part[column] for part in together) == pytest.approx(tuple(alone))


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    values = np.random.default_rng(4).random(50)
    assert bootstrap([values]) == bootstrap([values])
    assert bootstrap([values]) != bootstrap([values], seed=1)


@pytest.mark.parametrize("tables", [[], [[]], [[1.0], [1.0, 2.0]]])
def test_the_bootstrap_refuses_what_cannot_be_resampled(tables):
    with pytest.raises(ValueError):
        bootstrap(tables)


def coverage(num_seeds, seed_sd, question_sd, *, shared_truth, shared, repeats=300, num_questions=60):
    rng, hits = np.random.default_rng(5), 0
    for repeat in range(repeats):
        hard = rng.normal(0, question_sd, (1 if shared_truth else num_seeds, num_questions))
        seeds = rng.normal(0, seed_sd, (num_seeds, 1))
        tables = list(hard + seeds + rng.normal(0, 0.3, (num_seeds, num_questions)))
        _, low, high = bootstrap(tables, shared=shared, draws=300, seed=repeat)
        hits += low <= 0 <= high
    return hits / repeats


@pytest.mark.parametrize("num_seeds, shared_truth", [(1, True), (3, True), (3, False)])
def test_the_interval_covers_the_truth_as_often_as_it_says(num_seeds, shared_truth):
    assert 0.91 <= coverage(num_seeds, 0.0, 1.0, shared_truth=shared_truth, shared=shared_truth) <= 0.99


def test_drawing_shared_questions_anew_for_each_seed_would_be_too_sure():
    assert coverage(3, 0.0, 1.0, shared_truth=True, shared=False) < 0.85


def test_the_known_weakness_three_seeds_that_differ_more_than_questions_are_covered_too_seldom():
    assert 0.7 < coverage(3, 0.3, 0.5, shared_truth=True, shared=True, num_questions=200) < 0.85


def test_with_many_seeds_their_spread_is_covered_too():
    assert coverage(12, 0.3, 0.5, shared_truth=True, shared=True, repeats=200) > 0.9


def test_five_seeds_of_400_questions_and_20_columns_take_under_a_second():
    tables = [np.random.default_rng(s).random((400, 20)) for s in range(5)]
    started = time.process_time()
    bootstrap(tables)
    assert time.process_time() - started < 1.0
