"""Search worked by hand: bounds, backed-up means, votes, budgets, and trees small enough to draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro.algo import estimators, search

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_puct_by_hand():
    mean_A, prior_A, visits_A = np.array([0.6, 0.4, 0.0]), np.array([0.5, 0.25, 0.25]), np.array([7, 2, 0])
    bound_A = search.puct(mean_A, prior_A, visits_A, 2.0)
    assert bound_A == pytest.approx([0.6 + 2 * 0.5 * 3 / 8, 0.4 + 2 * 0.25 * 3 / 3, 0 + 2 * 0.25 * 3 / 1])
    assert search.puct(mean_A, prior_A, visits_A, 0.0) == pytest.approx(mean_A)


def test_uct_by_hand():
    bound_A = search.uct(np.array([0.6, 0.4, 0.0]), np.array([7, 2, 0]), 2.0)
    assert bound_A == pytest.approx([0.6 + 2 * (np.log(9) / 7) ** 0.5, 0.4 + 2 * (np.log(9) / 2) ** 0.5, np.inf])


@given(VALUES)
def test_what_is_backed_up_is_the_mean(values):
    mean, visits = 0.0, 0
    for value in values:
        mean, visits = search.backed_up(mean, visits, value)
    assert mean == pytest.approx(np.mean(values)) and visits == len(values)


@given(st.lists(st.sampled_from([None, "7", "8", "9"]), min_size=1, max_size=9))
def test_a_vote_with_equal_weights_is_the_majority(answers):
    assert search.weighted_vote(answers, [0.5] * len(answers)) == estimators.majority(answers)


def test_a_heavy_answer_wins_and_its_first_voter_speaks():
    assert search.weighted_vote(["7", "8", "7", "8"], [0.1, 0.5, 0.2, 0.6]) == 1
    assert search.weighted_vote([None, "7"], [0.9, 0.1]) == 1 and search.weighted_vote([None], [1.0]) is None


@pytest.mark.parametrize(("budget", "count"), [(1, 1), (29, 1), (69, 1), (70, 2), (119, 2), (120, 3), (999, 3)])
def test_a_budget_buys_whole_solutions_and_one_at_least(budget, count):
    assert search.affordable([30, 40, 50], budget) == count


@given(VALUES)
def test_a_solution_is_worth_no_more_than_its_weakest_step(values):
    assert search.every_step(values) <= search.weakest_step(values) + 1e-12
    assert search.weakest_step(values) == sorted(values)[0]


def toy():
    """Root -> a (0.2), b (0.8); b -> c (0.4), d (0.6, finished)."""
    tree = search.Tree()
    tree.expand_(0, [("a", 0.5, False, 0.2), ("b", 0.5, False, 0.8)])
    tree.expand_(2, [("c", 0.5, False, 0.4), ("d", 0.5, True, 0.6)])
    return tree


def test_values_go_up_the_path_and_nowhere_else():
    tree = toy()
    means = {node.content: (node.mean, node.visits) for node in tree.nodes}
    assert means[None] == (pytest.approx((0.2 + 0.8 + 0.4 + 0.6) / 4), 4)
    assert means["b"] == (pytest.approx((0.8 + 0.4 + 0.6) / 3), 3) and means["a"] == (0.2, 1)
    assert [tree.nodes[i].content for i in tree.path(4)] == ["b", "d"] and tree.finished() == [4]


def test_selection_follows_the_bound_and_passes_over_what_is_finished():
    tree = toy()
    assert tree.nodes[tree.select(c=0.0)].content == "c"  # b has the higher mean, and d is finished
    assert tree.nodes[tree.select(c=10.0)].content == "a"  # visited least
    tree.expand_(3, [("e", 1.0, True, 0.1)])
    assert tree.nodes[tree.select(c=0.0)].content == "a"  # nothing is left below b
    tree.expand_(1, [("f", 1.0, True, 0.1)])
    assert tree.select(c=0.0) is None


def test_a_rare_proposal_is_looked_at_later():
    tree = search.Tree()
    tree.expand_(0, [("rare", 0.1, False, 0.5), ("usual", 0.9, False, 0.5)])
    assert tree.nodes[tree.select(c=1.0)].content == "usual" and tree.nodes[tree.select(c=0.0)].content == "rare"


def test_the_share_of_right_ends_below_each_node():
    tree = toy()
    tree.expand_(3, [("e", 0.5, True, 0.1), ("f", 0.5, True, 0.1)])
    assert tree.share_below({4: True, 5: True, 6: False}) == {
        0: pytest.approx(2 / 3), 2: pytest.approx(2 / 3), 3: 0.5, 4: 1.0, 5: 1.0, 6: 0.0,
    }  # fmt: skip


def test_what_has_the_highest_value_among_the_ends():
    assert toy().nodes[toy().most_valued()].content == "d"  # b is worth more, and goes on


@pytest.mark.parametrize("goal", range(16))
def test_a_good_value_model_leads_to_the_one_right_end_of_sixteen(goal):
    """Four choices of two: the value of a beginning is 0.9 where the goal lies below it, else 0.1."""
    tree = search.Tree()
    for _ in range(4):
        at = tree.select(c=0.5)
        path = [tree.nodes[i].content for i in tree.path(at)]
        tree.expand_(at, [
            (bit, 0.5, len(path) == 3, 0.9 if [*path, bit] == bits(goal)[: len(path) + 1] else 0.1) for bit in (0, 1)
        ])  # fmt: skip
    best = max(tree.finished(), key=lambda i: tree.nodes[i].value)
    assert [tree.nodes[i].content for i in tree.path(best)] == bits(goal)


def bits(number):
    return [number >> place & 1 for place in (3, 2, 1, 0)]
