"""Controls of R1-Zero: rewards that know nothing, a blind reading of answers, a flat corpus, what each arm changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro.records import Question, Refusal
from r1repro.rewards import combine, controls


def asked(id="0" * 16, gold="4"):
    return Question(id=id, text="2 + 2 =", gold=gold, language="en", level=1, family="chain_sum")


def values(seed=0, number=400, right=True):
    texts = [f"<think> {n} </think> <answer> {4 if right else n + 5} </answer>" for n in range(number)]
    return [score.value for score in controls.random_scores([asked()] * number, texts, seed)]


# --- rewards


def test_a_random_reward_is_a_function_of_seed_question_and_output():
    assert values() == values() != values(seed=1)
    other = controls.random_scores([asked(id="1" * 16)] * 400, [str(n) for n in range(400)])
    assert [s.value for s in other] != [
        s.value for s in controls.random_scores([asked()] * 400, [str(n) for n in range(400)])
    ]
    for some in (values(), values(seed=1), values(right=False)):  # four standard deviations around one half
        assert set(some) == {0.0, 1.0} and abs(sum(some) / 400 - 0.5) < 4 * 0.025


def test_a_random_reward_does_not_look_at_the_answer():
    texts = ["<answer> 4 </answer>", "<answer> 5 </answer>", "", "\ud800"]
    of_four = [s.value for s in controls.random_scores([asked(gold="4")] * 4, texts)]
    assert of_four == [s.value for s in controls.random_scores([asked(gold="5")] * 4, texts)]


def test_a_seed_is_in_the_import_path():
    (seven,) = combine.load(["r1repro.rewards.controls:random_scores_7"])
    texts = [str(n) for n in range(50)]
    assert seven([asked()] * 50, texts) == controls.random_scores([asked()] * 50, texts, 7)
    assert seven([asked()] * 50, texts) != controls.random_scores([asked()] * 50, texts, 0)
    assert combine.name(seven) == "random"
    for wrong in ("random_scores_", "random_scores_x", "nothing_7"):
        with pytest.raises(Refusal, match=f"controls:{wrong}' cannot be imported"):
            combine.load([f"r1repro.rewards.controls:{wrong}"])


def test_what_is_watched_is_judged_and_not_paid():
    rewards = combine.load(["r1repro.rewards.controls:watched_scores", "r1repro.rewards.format:format_scores"])
    texts = ["<think> 4 </think> <answer> 4 </answer>", "<think> 4 </think> <answer> 5 </answer>", "<answer>4</answer>"]
    totals, parts = combine.total(rewards, [asked()] * 3, texts)
    assert totals == [1.0, 1.0, 0.0]  # those of the format alone
    assert [score.verdict for score in parts["watched"]] == ["right", "wrong", "right"]


@pytest.mark.parametrize(
    "text, number",
    [
        ("<think> first 57+87=144, then 144-70=74. </think> <answer> 74 </answer>", "74"),
        ("<think> the sum is 74.", "74"),
        ("和是７４。", "74"),
        ("74 </answer> or so", "74"),
        ("1,074", "1074"),
        ("it is -74", "-74"),
        ("144-74", "74"),
        ("(144)-74", "74"),
        ("074", "74"),
        ("7.4", "7.4"),
        ("", None),
        ("nothing", None),
    ],
)
def test_the_last_number_counts_wherever_it_stands(text, number):
    assert controls.last_number(text) == number
    assert controls.blind_right("74", text) == (number == "74")


@given(st.integers(0, 10**6), st.text())
def test_what_stands_around_a_number_plays_no_part(number, words):
    words = "".join(c for c in words if not c.isdigit() and c not in ".,-)\u2212")
    assert controls.last_number(f"12 {words} {number} {words}") == str(number)
