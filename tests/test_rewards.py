import collections
import json
import math
import os
import pathlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1repro.records import Question, Refusal, Score
from r1repro.rewards import accuracy as accuracy_module
from r1repro.rewards import combine, language
from r1repro.rewards.accuracy import accuracy, compare, final_answer, grade, normalise
from r1repro.rewards.format import format_reward, format_scores

DATA = pathlib.Path(os.environ.get("R1REPRO_DATA", "data"))
few = settings(max_examples=60, deadline=None)


def question(gold="5"):
    return Question(id="0" * 16, text="2 + 3", gold=gold, language="en", level=1, family="chain_sum")


def verdict(gold, answer):
    return grade(gold, f"<think>7</think> <answer>{answer}</answer>")["verdict"]


@pytest.mark.parametrize(
    "text, answer",
    [
        ("<think>1</think> <answer>2</answer>", "2"),
        ("<think><answer>1</answer> \\boxed{1}</think> nothing", None),
        ("<think>a</think> <answer>1</answer> <think>b</think> <answer>2</answer>", "2"),
        ("<think>a</think> <answer>1</answer> </think>", None),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer><answer>2", "1"),
        ("<answer>1 <answer>2</answer>", "2"),
        ("<answer>1</answer></answer>", "1"),
        ("</answer>1<answer>", None),
        ("<answer> </answer>", None),
        ("<answer>1</answer> \\boxed{2}", "1"),
        ("<answer>it is \\boxed{1}, no, \\boxed{2}.</answer>", "2"),
        ("<answer>\\boxed{}</answer>", None),
        ("\\boxed{1} \\boxed{2} \\boxed{3", "2"),
        ("\\boxed{\\boxed{1}}", "1"),
        ("\\boxed {\\frac{1}{2}} and {", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("a } b \\boxed{ 1 } c }", "1"),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "answer, normal",
    [
        ("5", "5"),
        ("+ 5.", "5"),
        ("-0", "0"),
        ("-007", "-7"),
        ("1,024", "1024"),
        ("-1,000,000", "-1000000"),
        ("\uff11\uff0c\uff10\uff10\uff10\u3002", "1000"),
        ("\u22125", "-5"),
        ("1,2", "1,2"),
        ("12,34", "12,34"),
        ("1 2", "1 2"),
        ("5\u00b2", "5\u00b2"),
        ("5.0", "5.0"),
        (" x ", "x"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_votes_are_counted_by_value_for_integers(answer, normal):
    assert normalise(answer) == normal


@few
@given(st.integers(-(10**30), 10**30), st.sampled_from(["{}", " {}.", "{:,}", "{:+}", "{:05d}"]))
def test_an_integer_is_right_however_it_is_written_and_its_neighbour_is_wrong(number, form):
    assert normalise(form.format(number)) == str(number) == normalise(normalise(str(number)))
    assert [verdict(str(number + off), form.format(number)) for off in (0, 1)] == ["right", "wrong"]


@few
@given(st.text(alphabet="{}\\boxed 5<>/answerthik", max_size=80))
def test_any_text_has_an_answer_that_stands_in_it_or_none(text):
    answer = final_answer(text)
    assert answer is None or (answer and answer == answer.strip() and answer in text)
    assert format_reward(text) in (0.0, 1.0) and grade("5", text)["verdict"] in ("right", "wrong", "unparsed")


@few
@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_thought_does_not_change_the_answer(thought, answer):
    said = answer.replace("</think>", "")
    assert final_answer(f"<think>{thought}\\boxed{{9}}</think>{said}") == final_answer(said)


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        ("1/2", "0.5", "right"),
        ("\\frac{1}{2}", "\\dfrac12", "right"),
        ("1/2", "2/1", "wrong"),
        ("23", "123", "wrong"),
        ("123", "23", "wrong"),
        ("5", "5.0", "right"),
        ("5", "$5$", "right"),
        ("$5$", "\\(5\\)", "right"),
        ("5", "The answer is 5.", "right"),
        ("5", "5 apples", "right"),
        ("5", "\u7b54\u6848\u662f5", "right"),
        ("5", "2 + 3 = 5", "right"),
        ("5", "x = 5", "right"),
        ("5000", "5 \\times 10^3", "right"),
        ("6290000", "6,\\!290,\\!000", "right"),
        ("15\\mbox{ cm}^2", "15", "right"),
        ("3/2", "1 1/2", "right"),
        ("x^2 + 1", "1 + x^2", "right"),
        ("\\{1, 2\\}", "\\{2, 1\\}", "right"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "right"),
        ("Even", "\\text{even}", "right"),
        ("B", "(B)", "right"),
        ("odd", "oddd", "wrong"),
        ("B", "A", "wrong"),
        # hedges
        ("5", "3 or 5", "wrong"),
        ("5", "3, or perhaps 5", "unparsed"),
        ("5", "\\(3\\) or \\(5\\)", "wrong"),
        ("5", "1, 2, 3, 4, 5", "wrong"),
        ("3", "\\pm 3", "wrong"),
        ("11", "5 6", "unparsed"),
        ("11", "5 \\quad 6", "unparsed"),
        ("21", "1 2 3 4 5 6", "unparsed"),
        # the question said again
        ("5", "2 + 3", "wrong"),
        ("6", "2*3", "wrong"),
        ("8", "2^3", "wrong"),
        ("8", "2 (4)", "wrong"),
        ("-1", "2 \u2212 3", "wrong"),
        ("$5$", "2+3", "wrong"),
        ("5", "7 = 2 + 3", "wrong"),
        ("1", "\\frac{3}{3}", "right"),
        # not mathematics
        ("5", "five", "unparsed"),
        ("1/2", "0.5" + "0" * 2000, "unparsed"),
        ("5", "}{", "unparsed"),
        ("5", "\\boxed{5", "unparsed"),
        # a reference answer that cannot be read makes nobody right
        ("", "5", "error"),
        ("\\frac{", "\\frac{", "error"),
        ("$$", "$$", "error"),
        ("3 5", "8", "error"),
    ],
)
def test_verdicts(gold, answer, expected):
    assert verdict(gold, answer) == expected


def test_each_verdict_has_its_value(monkeypatch):
    texts = ["<answer>5</answer>", "<answer>6</answer>", "5"]
    assert accuracy([question()] * 3, texts) == [
        Score(value=1.0, verdict="right"),
        Score(value=0.0, verdict="wrong"),
        Score(value=0.0, verdict="unparsed"),
    ]
    for failed in ("timed_out", "error"):
        monkeypatch.setattr("r1repro.rewards.accuracy.grade", lambda *_, failed=failed: {"verdict": failed})
        assert accuracy([question()], ["5"]) == [Score(value=None, verdict=failed)]


HOSTILE = {
    "tower": "9**9**9**9",
    "tower_latex": "9^{9^{9^9}}",
    "factorial": "999999999!",
    "zero": "\\frac{1}{0}",
    "braces": "{" * 10_000 + "5" + "}" * 10_000,
    "few_braces": "{" * 500 + "5" + "}" * 500,
    "parentheses": "(" * 900 + "5" + ")" * 900,
    "fractions": "\\frac{" * 150 + "1" + "}{2}" * 150,
    "megabyte": "1+" * 500_000 + "1",
    "megabyte_of_digits": "1" * 1_000_000,
    "megabyte_of_boxes": "\\boxed{" * 150_000,
    "megabyte_of_tags": "<answer>" * 125_000,
    "megabyte_of_thoughts": "<think>" * 140_000 + "</think>",
    "unclosed": "\\boxed{",
    "sum": "+".join(["x^2"] * 400),
    "power": "(x+y+z)^{500}",
    "null": "\x00",
    "surrogate": "\ud800",
    "import": "__import__('os').system('true')",
}


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("gold", ["5", "\\frac{1}{2}"])
def test_hostile_answers_cost_bounded_time_and_are_never_right(attack, gold):
    begin = time.monotonic()
    verdicts = {verdict(gold, HOSTILE[attack]), grade(gold, HOSTILE[attack])["verdict"]}
    assert time.monotonic() - begin < 10  # two calls
    assert not verdicts & {"right", "error"}
    assert verdict("1/2", "0.5") == "right"


def test_plain_integers_are_scored_at_twenty_thousand_a_second():
    texts = [f"<think>{'12 + 30 = 42, so ' * 10}</think> <answer>{i}</answer>" for i in range(20_000)]
    begin = time.process_time()
    scores = accuracy([question("7")] * len(texts), texts)
    assert time.process_time() - begin < 1.0
    assert sum(score.value for score in scores) == 1


@pytest.mark.parametrize(
    "text, reward",
    [
        ("<think>a</think>\n<answer>b</answer>\n", 1),
        ("\n <think></think> b", 1),
        ("<think>a</think> \\boxed{b}", 1),
        ("<think>a</think> <answer></answer>", 0),
        ("<think>a</think>", 0),
        ("<think>a", 0),
        ("a", 0),
        ("", 0),
        ("</think>a<think>", 0),
        ("a <think>b</think> c", 0),
        ("<think><think>a</think> b", 0),
        ("<think>a<think>b</think></think>c", 0),
        ("<think>a</think> b </think>", 0),
        ("<think>a</think> b <think>c</think> d", 0),
    ],
)
def test_format(text, reward):
    assert format_reward(text) == reward
    assert format_scores([question()], [text]) == [Score(value=reward, verdict="right" if reward else "wrong")]


@pytest.mark.parametrize(
    "text, english, chinese",
    [
        ("<think>so we add</think> \u7b54\u6848", 1.0, 0.0),
        ("<think>\u6240\u4ee5</think> the answer", 0.0, 1.0),
        ("<think>wait \u6240\u4ee5 it", 0.5, 0.5),
        ("no tag \u6240\u4ee5</think> \u7b54\u6848", 0.5, 0.5),
        ("<think>1 + 2 = 3</think> so \u7b54", 1.0, 1.0),
        ("<think>\u8bbe x = 5, $\\text{so}$ \\(abc\\) \\frac</think>", 0.0, 1.0),
        ("<think>\u8bbe it costs $5 and $6</think>", 0.75, 0.25),
        ("<think>and \u0438\u043b\u0438</think>", 0.5, 0.0),
        ("<think>a <think> \u6240 </think> b \u4ee5</think> \u7b54", 1 / 3, 2 / 3),
        ("<think>don't</think>", 1.0, 0.0),
    ],
)
def test_language_share_is_of_the_words_of_the_thinking(text, english, chinese):
    assert language.language_share(text, "en") == pytest.approx(english)
    assert language.language_share(text, "zh") == pytest.approx(chinese)


@few
@given(st.text(alphabet="ab \u6240\u4ee5<think>/$\\()12", max_size=60))
def test_shares_are_fractions_and_the_answer_does_not_change_them(text):
    shares = [language.language_share(text, code) for code in ("en", "zh")]
    assert all(0 <= share <= 1 for share in shares)
    if "<think>" in text and "</think>" in text.partition("<think>")[2]:
        assert shares == [language.language_share(text + "\u6240 so", code) for code in ("en", "zh")]


def test_mixed_is_under_95_percent():
    nineteen = "<think>" + "so " * 19
    assert not language.is_mixed(nineteen + "\u6240", "en") and language.is_mixed(nineteen + "\u6240\u4ee5", "en")
    assert language.is_mixed(nineteen, "zh")


def test_reflection_words_are_whole_in_english_and_pieces_of_text_in_chinese():
    assert all(language.reflection_count(word, "en") == 1 for word in language.REFLECTION_EN)
    assert all(language.reflection_count(word, "zh") == 1 for word in language.REFLECTION_ZH)
    assert language.reflection_count("Wait. BUT await, checks, errors; butter", "en") == 2
    assert language.reflection_count("\u6211wait\u4e00", "en") == 1
    assert language.reflection_count("\u6211\u4eec\u68c0\u67e5\u4e00\u4e0b\uff0c\u4e0d\u5bf9", "zh") == 2
    assert len(language.REFLECTION_EN) == 10


@pytest.mark.parametrize("count", [language.language_share, language.reflection_count, language.is_mixed])
def test_an_unknown_language_is_refused(count):
    with pytest.raises(Refusal, match="'fr'"):
        count("bonjour", "fr")


def test_the_sum_has_equal_weights_and_none_masks_it():
    def mine(questions, texts):
        return [0.5, Score(value=None, verdict="timed_out"), None]

    both = combine.load(["r1repro.rewards.accuracy:accuracy", "r1repro.rewards.format:format_scores"])
    texts = ["<think>a</think> <answer>5</answer>"] * 3
    assert combine.total(both, [question()] * 3, texts)[0] == [2.0, 2.0, 2.0]
    totals, parts = combine.total([*both, mine], [question()] * 3, texts)
    assert totals == [2.5, None, None]
    assert list(parts) == ["accuracy", "format", "mine"]
    assert [score.verdict for score in parts["mine"]] == ["right", "timed_out", "error"]


@pytest.mark.parametrize(
    "given, match",
    [
        ([1.0], "1 scores for 2"),
        ([1.0, 1.0, 1.0], "3 scores for 2"),
        ([1.0, math.nan], "nan"),
        ([1.0, Score(value=math.inf, verdict="right")], "inf"),
        ([1.0, "good"], "'good'"),
    ],
)
def test_a_reward_that_gives_nonsense_is_refused(given, match):
    def mine(questions, texts):
        return given

    with pytest.raises(Refusal, match=match):
        combine.total([mine], [question()] * 2, ["a", "b"])


def test_two_rewards_of_one_name_are_refused():
    with pytest.raises(Refusal, match="'accuracy'"):
        combine.total([accuracy, accuracy], [question()], ["a"])


@pytest.mark.parametrize(
    "path, match",
    [("nowhere:f", "nowhere"), ("math:nothing", "nothing"), ("math", "module:function"), ("math:pi", "float")],
)
def test_a_reward_that_cannot_be_imported_is_refused_in_one_line(path, match):
    with pytest.raises(Refusal, match=match) as refusal:
        combine.load([path])
    assert "\n" not in str(refusal.value)


if DATA.is_dir():  # real cases: collected only where the data lies, so nothing is ever skipped

    def cases(name):
        with open(DATA / name, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    @pytest.mark.parametrize("name", ["math_model_outputs", "answer_pairs", "mcq_model_outputs"])
    def test_core_verdicts_agree_wherever_our_rule_finds_an_answer(name):
        kinds = ("response", "answer_pair", "think_response", "mcq_response")
        core = [case for case in cases(f"grading/{name}.jsonl") if case["tier"] == "core" and case["kind"] in kinds]
        found = [case for case in core if final_answer(case["response_or_prediction"])]
        said = {case["id"]: grade(case["gold"], case["response_or_prediction"])["verdict"] for case in found}
        assert [case["id"] for case in found if (said[case["id"]] == "right") != case["expected"]] == []
        assert found

    def test_core_verdicts_of_bare_short_answers_agree_in_a_block():
        pairs = [case for case in cases("grading/answer_pairs.jsonl") if case["tier"] == "core"]
        short = [case for case in pairs if case["kind"] == "answer_pair" and len(case["response_or_prediction"]) < 30]
        assert len(short) > 20
        said = {case["id"]: verdict(case["gold"], case["response_or_prediction"]) for case in short}
        assert [case["id"] for case in short if (said[case["id"]] == "right") != case["expected"]] == []

    def test_core_verdicts_of_the_think_tags_agree():
        tags = [case for case in cases("grading/format_cases.jsonl") if case["kind"] == "format_think"]
        assert tags and all(format_reward(case["response_or_prediction"]) == case["expected"] for case in tags)

    def test_reference_answers_are_right_and_other_questions_answers_are_not():
        golds = [case["answer"] for case in cases("math500/test.jsonl")]
        assert collections.Counter(verdict(gold, gold) for gold in golds) == {"right": len(golds)}
        pairs = [(a, b) for a, b in zip(golds, golds[1:], strict=False) if a not in b]
        assert {verdict(a, b) for a, b in pairs} <= {"wrong", "unparsed"}


class Workers:
    """Stands for the child process: says what it is told to, and counts."""

    def __init__(self, *verdicts):
        self.verdicts, self.calls = list(verdicts), 0

    def call(self, payload):
        self.calls += 1
        return {"verdict": self.verdicts[self.calls - 1], "reason": "told"}


def test_a_verdict_is_remembered_and_a_failure_is_not(monkeypatch):
    workers = Workers("timed_out", "error", "right")
    monkeypatch.setattr(accuracy_module, "_workers", workers)
    monkeypatch.setattr(accuracy_module, "_compared", {})
    assert [compare("x + 1", "1 + x")["verdict"] for _ in range(5)] == ["timed_out", "error", "right", "right", "right"]
    assert workers.calls == 3


def test_of_too_many_verdicts_all_are_forgotten(monkeypatch):
    monkeypatch.setattr(accuracy_module, "_workers", Workers("right", "wrong", "wrong"))
    monkeypatch.setattr(accuracy_module, "_compared", {})
    monkeypatch.setattr(accuracy_module, "MOST_COMPARED", 1)
    assert [compare("x", answer)["verdict"] for answer in "aba"] == ["right", "wrong", "wrong"]
