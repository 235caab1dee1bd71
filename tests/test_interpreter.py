"""The interpreter of tiny programs: always ends with a verdict, agrees with Python, and is passed by values alone."""

import ast
import re
import time
import warnings
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r1repro.records import VERDICTS, Question, Score
from r1repro.rewards import interpreter, reasoning

TESTS = "assert f(4) == 14\nassert f(9) == 29"
GOOD = "def f(x): return 3 * x + 2"
LIMITS = ("steps", "a number above", "calls within calls", "nested too deep")


def verdict(program, tests=TESTS):
    """The verdict; on the way every value is a number, the time short and the reason one line, without warnings."""

    def evaluate(machine, node, names, evaluated=interpreter._Machine._value):
        value = evaluated(machine, node, names)
        assert type(value) in (int, bool) and abs(value) <= interpreter.MAX_NUMBER
        return value

    with mock.patch.object(interpreter._Machine, "_value", evaluate), warnings.catch_warnings():
        warnings.simplefilter("error")
        begin = time.thread_time()
        found = interpreter.judge(program, tests)
        assert time.thread_time() - begin < 2  # 0.05 s at most where nothing else runs; endless is what is not meant
    assert found.keys() == {"verdict", "reason"} and found["verdict"] in VERDICTS and "\n" not in found["reason"]
    return found["verdict"]


# --- it is total

PIECES = """def f(x): return x 3 * x + 2 - // % / ** << 10000000000000 0xff 1_0 1e5 .5 2if ( ) [ ] { } , : ; . = := == != <
    > and or not in is if else elif for while in range( True None max( abs( lambda import assert pass break global try:
    except with as class del yield await async match case raise @ * ** ~ ... ' " f" \\ # __class__ __import__ ｆ é 变""".split()  # noqa: E501
PIECES += ["\n", "\n ", "\n  ", "\t", " ", "\0", "\ud800", "\f", "def f(x): return ", "\ndef f(x):\n ", "while True: "]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40), st.sampled_from(["", " "]))
def test_any_text_has_a_verdict(pieces, joint):
    verdict(joint.join(pieces))


@given(st.integers(0, len(GOOD)), st.integers(0, 3), st.sampled_from(PIECES))
def test_any_fault_in_a_good_program_has_a_verdict(at, cut, put):
    verdict(GOOD[:at] + put + GOOD[at + cut :])


@given(st.sampled_from(PIECES), st.sampled_from(PIECES), st.sampled_from([3, 30, 90, 190, 2000]), st.booleans())
def test_any_repetition_has_a_verdict(one, other, times, spaces):
    for unit in (f"{one}{other}", f"{one} {other} "):
        verdict((("def f(x): return " if spaces else "") + unit * times)[: interpreter.MAX_CHARS])


LEAVES = {"expr": ["Name", "Constant"], "stmt": ["Pass", "Return"], "pattern": ["MatchAs"]}
VALUES = {
    "identifier": ["f", "x", "max", "range", "__class__", "open"],
    "constant": [0, 1, 7, 10**13, True, None, ..., 1.5, 2j, "s", b"s"],
    "int": [-1],
    "string": [None],
}


@st.composite
def nodes(draw, kind, depth):
    """A node of a kind from Python's whole grammar, as the classes of `ast` describe their own fields."""
    if kind in VALUES:
        return draw(st.sampled_from(VALUES[kind]))
    kinds = [c for c in getattr(ast, kind).__subclasses__() if (c.__doc__ or "").startswith(c.__name__)]
    leaves = [getattr(ast, name) for name in LEAVES.get(kind, ())]
    cls = draw(st.sampled_from((leaves if depth <= 0 and leaves else kinds) or [getattr(ast, kind)]))
    fields, size = {}, draw(st.integers(1, 2))
    for of, many, name in re.findall(r"(\w+)([*?]?) (\w+)[,)]", cls.__doc__):
        if many == "*":
            fields[name] = [draw(nodes(of, depth - 1)) for _ in range(size if depth > 0 else 1)]
        else:
            fields[name] = draw(nodes(of, depth - 1)) if not many or depth > 0 and draw(st.booleans()) else None
    return cls(**fields)


@settings(max_examples=200)
@given(st.lists(nodes("stmt", 3), min_size=1, max_size=2), st.booleans())
def test_any_syntax_tree_has_a_verdict(statements, within):
    """Also one that no text has."""
    written = ast.parse(f"{GOOD}\nf(1)").body
    written[0].body[:0] = statements if within else []
    with mock.patch.object(interpreter, "_parsed", side_effect=[ast.parse(TESTS).body, [*statements, *written]]):
        verdict("")


ENDLESS = {
    "while": "def f(x):\n while True: pass",
    "while that counts": "def f(x):\n while x > 0: x = x + 1",
    "at the top": "while 1: pass",
    "recursion": "def f(x): return f(x)",
    "two that call each other": "def g(x): return f(x)\ndef f(x): return g(x)",
    "a tree of calls": "def f(x): return x if x < 2 else f(x - 1) + f(x - 1)",
    "long range": "def f(x):\n for i in range(10**12): pass",
    "longer range": "def f(x):\n for i in range(0, 1000000000000): pass\n return 14",
    "range in range": "def f(x):\n for i in range(999999):\n  for j in range(999999): x = x + 1\n return x",
    "squares": "def f(x):\n while 1: x = x * x",
    "negative squares": "def f(x):\n while 1: x = -x * x",
    "factorial": "def f(x): return 1 if x < 1 else x * f(x - 1)\nf(30)",
    "chain": "def f(x): return " + " < ".join(["x"] * 400),
    "sum": "def f(x): return " + "+".join(["x"] * 990),
    "minus": "def f(x): return " + "-" * 1900 + "x",
    "not": "def f(x): return " + "not " * 480 + "x",
    "or": "def f(x): return " + " or ".join(["0"] * 400),
    "choices": "def f(x): return " + "x if x else " * 160 + "x",
    "brackets": "def f(x): return " + "(" * 900 + "x" + ")" * 900,
    "brackets that python can read": "def f(x): return " + "(" * 150 + "x" + ")" * 150 + "*0",
    "many arguments": "def f(x): return max(" + "x," * 980 + "x)",
    "calls in calls": "def f(x): return " + "abs(" * 180 + "x" + ")" * 180 + "*0",
    "blocks": "def f(x):\n" + "".join(" " * i + "if x:\n" for i in range(1, 60)) + " " * 60 + "return 0",
    "digits": "def f(x): return " + "9" * 1900,
    "hex": "def f(x): return 0x" + "f" * 1900,
    "tower": "def f(x): return 9 ** 9 ** 9 ** 9",
    "shift": "def f(x): return 1 << 10 ** 12",
}  # fmt: skip


@pytest.mark.parametrize("program", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_ended(program):
    assert verdict(program) in ("wrong", "unparsed")


def test_a_program_is_ended_on_a_deep_stack_too():
    """A notebook or a test has a stack of its own below."""

    def below(frames):
        return (
            below(frames - 1) if frames else [interpreter.judge(p, TESTS)["verdict"] for p in (*ENDLESS.values(), GOOD)]
        )

    *ended, good = below(700)
    assert good == "right" and set(ended) <= {"wrong", "unparsed"}


# --- it agrees with Python

EXPRESSION = st.recursive(
    st.integers(0, 30).map(str) | st.sampled_from(["x", "x", "a", "b", "i", "True", "False"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+ - * // % == != < <= > >= and or".split()), inner),
        st.builds("({} < {} <= {})".format, inner, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["max", "min", "g"]), inner, inner),
        st.builds("{}({})".format, st.sampled_from(["abs", "-", "not "]), inner).map("({})".format),
    ),
    max_leaves=5,
)
SIMPLE = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from("ab"), st.sampled_from(["=", "=", "+=", "-=", "*="]), EXPRESSION),
    st.builds("return {}".format, EXPRESSION),
    st.builds("assert {}".format, EXPRESSION),
    st.just("pass"),
).map(lambda line: [line])


def indented(head, block):
    return [head, *(f" {line}" for line in block)]


BLOCK = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(lambda one, other: one + other, inner, inner),
        st.builds(lambda e, block: indented(f"if {e}:", block), EXPRESSION, inner),
        st.builds(lambda e, one, other: indented(f"if {e}:", one) + indented("else:", other), EXPRESSION, inner, inner),
        st.builds(lambda e, block: indented(f"for i in range({e}):", block), EXPRESSION, inner),
        st.builds(
            lambda e, n, block: indented(f"for i in range({e}, {n}):", block), EXPRESSION, st.integers(0, 9), inner
        ),
        st.builds(
            lambda n, line: ["k = 4", *indented(f"while k > {n}:", [*line, "k = k - 1"])], st.integers(0, 4), SIMPLE
        ),
    ),
    max_leaves=6,
)
HELPERS = st.sampled_from(
    [
        "def g(x, y): return x - 2 * y",
        "def g(a, x): return x if a <= 0 else g(a - 1, x + 1)",
        "def max(x, y): return x * y\ndef g(x, y): return max(x, y)",
        "y = 7\ndef g(x, i): return min(x, i) % 5",
        "def g(x, y): return x\ndef g(x, y): return y",
    ]
)


@settings(max_examples=400)
@given(HELPERS, BLOCK, st.integers(0, 20))
@example("", ["return 7 // -2 * 10 + -7 % 3"], 0)
def test_a_program_of_the_language_does_what_python_does(helper, block, x):
    program = "\n".join([helper, *indented("def f(x):", [*block, "return a * 1000 + x"])])
    if any(limit in interpreter.judge(program, f"assert f({x}) == 0")["reason"] for limit in LIMITS):
        return  # and Python might not end
    space = {"__builtins__": {"max": max, "min": min, "abs": abs, "range": range}}
    try:
        exec(program, space)
        value = space["f"](x)
    except (ArithmeticError, NameError, TypeError, AssertionError):
        assert verdict(program, f"assert f({x}) == f({x})") == "wrong"
    else:
        assert verdict(program, f"assert f({x}) == {value}") == "right"
        assert verdict(program, f"assert f({x}) == {value + 1}") == "wrong"


def test_that_comparison_is_not_empty():
    """The generated programs reach values, faults and limits."""
    found = {"value": 0, "fault": 0, "limit": 0}

    @settings(max_examples=100, database=None)
    @given(HELPERS, BLOCK)
    def count(helper, block):
        program = "\n".join([helper, *indented("def f(x):", [*block, "return a * 1000 + x"])])
        reason = interpreter.judge(program, "assert f(3) == f(3)")["reason"]
        found["value" if "holds" in reason else "limit" if any(limit in reason for limit in LIMITS) else "fault"] += 1

    count()
    assert found["value"] > 20 and found["fault"] > 20, found


# --- it is passed by values alone

CHEATS = {
    "equal to everything": "class f:\n def __init__(self, x): pass\n def __eq__(self, other): return True",
    "not equal to anything": "class f(int):\n def __ne__(self, other): return False",
    "another f inside": "def f(x):\n def f(x): return 29\n return 14",
    "a function of the tests inside": "def g(x):\n def f(x): return 14\n return 0\ng(1)",
    "a global": "n = 0\ndef f(x):\n global n\n n = n + 1\n return 14 if n == 1 else 29",
    "a global by its name": "n = 0\ndef f(x):\n n += 1\n return 14 if n == 1 else 29",
    "a global that is read": "n = 3\ndef f(x): return n * x + 2",
    "a default": "def f(x, seen=[]):\n seen.append(x)\n return 14 if len(seen) == 1 else 29",
    "a default number": "def f(x, n=3): return n * x + 2",
    "a keyword": "def f(x, *, n=3): return n * x + 2",
    "any arguments": "def f(*x): return 14",
    "any keywords": "def f(**x): return 14",
    "by position": "def f(x, /): return 3 * x + 2",
    "two of one name": "def f(x, x): return 3 * x + 2",
    "a decorator": "def g(f): return f\n@g\ndef f(x): return 3 * x + 2",
    "a lambda": "f = lambda x: 3 * x + 2",
    "a coroutine": "async def f(x): return 3 * x + 2",
    "a generator": "def f(x): yield 3 * x + 2",
    "a name for a function": "def g(x): return 3 * x + 2\nf = g",
    "an argument that is called": "def g(h): return h(4)\ndef f(x): return g(abs)",
    "a number that is called": "def g(x): return 3 * x + 2\ndef f(g): return g(g)",
    "a number called max": "max = 3\ndef f(x): return max(x, 0) * 3 + 2",
    "a range of its own": "def range(x): return 3 * x\ndef f(x):\n for i in range(x): x = x + 2\n return x",
    "a range with a keyword": "def f(x):\n for i in range(2 * x + 2, step=1): x = x + 1\n return x",
    "max with a key": "def f(x): return max(3 * x + 2, 0, key=abs)",
    "starred": "def f(x): return max(*[3 * x + 2, 0])",
    "no f": "def g(x): return 3 * x + 2",
    "a number for f": "f = 14",
    "assert renamed": "def assert(x): return True",
    "true renamed": "True = 0",
    "debug switched off": "__debug__ = False",
    "return first": "return",
    "return a value first": f"return 14\n{GOOD}",
    "an assertion that does not hold": f"assert f(4) == 15\n{GOOD}",
    "exit": f"{GOOD}\nexit()",
    "stop": "def f(x): raise SystemExit(0)",
    "skip": "def f(x): raise AssertionError",
    "no value": "def f(x): pass",
    "nothing": "def f(x): return",
    "none": "def f(x): return None",
    "not implemented": "def f(x): return NotImplemented",
    "text": "def f(x): return '14'",
    "float": "def f(x): return 3.0 * x + 2.0",
    "true division": "def f(x): return (6 * x + 4) / 2",
    "nan": "nan = float('nan')\ndef f(x): return nan",
    "walrus": "def f(x): return (y := 3 * x + 2)",
    "tuple": "def f(x):\n a, b = 3, 2\n return a * x + b",
    "two targets": "def f(x):\n a = b = 3 * x + 2\n return a",
    "annotated": "def f(x):\n a: int = 3 * x + 2\n return a",
    "list": "def f(x): return [3 * x + 2][0]",
    "comprehension": "def f(x): return sum([3 for i in range(x)]) + 2",
    "dictionary": "def f(x): return {4: 14, 9: 29}[x]",
    "attribute": "def f(x): return (3 * x + 2).real",
    "dunder": "def f(x): return (3 * x).__add__(2)",
    "ladder": "def f(x): return ().__class__.__bases__[0].__subclasses__()",
    "f-string": "def f(x): return int(f'{3 * x + 2}')",
    "import": "import os\ndef f(x): return 3 * x + 2",
    "import from": f"from os import *\n{GOOD}",
    "dunder import": f"__import__('os')\n{GOOD}",
    "builtins": "def f(x): return __builtins__",
    "eval": "def f(x): return eval('3 * x + 2')",
    "the tests": "def f(x): return tests",
    "frames": "def f(x):\n try: 1 // 0\n except ZeroDivisionError as e: return e.__traceback__.tb_frame.f_back",
    "try": "def f(x):\n try: return 3 * x + 2\n finally: pass",
    "with": "def f(x):\n with x: return 3 * x + 2",
    "match": "def f(x):\n match x:\n  case 4: return 14\n  case 9: return 29",
    "del": "def f(x):\n del x\n return 14",
    "else of a loop": "def f(x):\n for i in range(1): pass\n else: return 3 * x + 2",
    "break": "def f(x):\n while True: break\n return 3 * x + 2",
    "in": "def f(x): return 14 if x in (4,) else 29",
    "is": "def f(x): return 14 if x is 4 else 29",
    "bits": "def f(x): return x << 1 | x & 0",
    "plus": "def f(x): return +3 * x + 2",
    "power": "def f(x): return x ** 1 * 3 + 2",
    "matrix": "def f(x): return x @ x",
    "ellipsis": "...\ndef f(x): return 3 * x + 2",
    "docstring": 'def f(x):\n "doc"\n return 3 * x + 2',
    "backslash": "def f(x): return 3 * x \\\n + 2",
    "no space": "def f(x): return 3 * x + 2if x else 0",
    "null": f"{GOOD}\0",
    "null inside": "def f(x):\0 return 3 * x + 2",
    "no python": "the program is good.",
    "a fence": f"```python\n{GOOD}\n```",
    "the question": "f(1)=5, f(2)=8, f(3)=11",
    "too long": GOOD + " " * 2000 + "# good",
}  # fmt: skip


@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS)
def test_what_is_not_of_the_language_is_never_right(program):
    assert verdict(program) in ("wrong", "unparsed")
    assert verdict(program, "assert f(4)") != "right" or program == "f = 14"


@pytest.mark.parametrize(
    "program",
    [
        GOOD,
        f"  {GOOD} \n\n",
        f"{GOOD}  # 好 it's",
        "def ｆ(x): return 3 * x + 2",  # Python reads full-width letters as these
        "def f(数): return 3 * 数 + 2",
        "def f(x) -> int: return 3 * x + 2",
        "def max(x, y): return 3 * x + y\ndef f(x): return max(x, 2)",
        f"{GOOD}\nassert f(1) == 5, 6 / 0",  # the message is for a failure
        f"def f(x): return 0\n{GOOD}",
        f"n = 0\nfor i in range(3): n = n + i\nassert n == 3\n{GOOD}",
        "def f(x):\n if x > 0: return 3 * x + 2\n import os",  # never reached
        "def f(x): return 2 + x if x == 0 else f(x - 1) + 3",
        "def f(x):\n total = 2\n for i in range(x): total += 3\n return total",
        "def f(x):\n y = 2\n while x: y = y + 3; x = x - 1\n return y",
        "def f(x): return 3 * x + True + True",
    ],
)
def test_what_is_of_the_language_is_right(program):
    assert verdict(program) == "right"
    assert verdict(program, TESTS.replace("29", "28")) == "wrong"


@given(st.integers(0, 9), st.integers(-9, 9), st.integers(0, 9), st.integers(-9, 9))
def test_a_program_is_right_if_and_only_if_its_values_are(a, b, c, d):
    tests = "\n".join(f"assert f({x}) == {c * x + d}" for x in (3, 8))
    assert (verdict(f"def f(x): return {a} * x + {b}", tests) == "right") == ((a, b) == (c, d))


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_every_assertion_counts(holds):
    tests = "\n".join(f"assert f({i}) == {3 * i + 2 if good else 0}" for i, good in enumerate(holds))
    assert (verdict(GOOD, tests) == "right") == all(holds)


@pytest.mark.parametrize("tests", ["", "f(4)", "pass", "assert", "assert f(4) ==", "\0", "# assert f(4) == 14"])
def test_by_tests_that_assert_nothing_nobody_is_right(tests):
    assert verdict(GOOD, tests) == "error" == verdict("no program", tests)


# --- limits


def test_the_limits_are_where_they_are_told():
    times = "def f(x):\n for i in range(x): pass\n return 1"  # 2 steps a turn, and 9 beside them
    most = (interpreter.MAX_STEPS - 9) // 2
    assert [verdict(times, f"assert f({n}) == 1") for n in (most, most + 1)] == ["right", "wrong"]
    down = "def f(x): return 0 if x == 0 else f(x - 1)"
    calls = interpreter.MAX_CALLS
    assert [verdict(down, f"assert f({n}) == 0") for n in (calls - 1, calls)] == ["right", "wrong"]
    big = interpreter.MAX_NUMBER
    assert [verdict("def f(x): return x + 1", f"assert f({n}) > 0") for n in (big - 1, big)] == ["right", "wrong"]
    assert [verdict("def f(x): return x", f"assert f({n}) > 0") for n in (big, big + 1)] == ["right", "wrong"]
    room = interpreter.MAX_CHARS - len(GOOD)
    assert [verdict(GOOD + " " * n) for n in (room, room + 1)] == ["right", "unparsed"]


def test_the_tests_share_the_steps_of_the_program():
    wasteful = "def f(x):\n for i in range(400): pass\n return 1"
    assert verdict(wasteful, "assert f(1) == 1") == verdict(wasteful, "assert f(1) == 1\n" * 2) == "right"
    assert verdict(wasteful, "assert f(1) == 1\n" * 3) == "wrong"


# --- the reward


def question(gold=TESTS, kind="program"):
    return Question(id="0" * 16, text="", gold=gold, language="en", level=1, family="programs", kind=kind)


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"<think> a </think> <answer> {GOOD} </answer>", "right"),
        (f"<think> a </think> <answer>\n{GOOD}\n</answer>", "right"),
        (f"<answer>{GOOD}</answer>", "right"),
        (f"<think> a </think> <answer> \\boxed{{{GOOD}}} </answer>", "right"),
        (f"<think> a </think> <answer> {GOOD} </answer> <answer> def f(x): return 0 </answer>", "wrong"),
        (f"<think> <answer> {GOOD} </answer> </think> <answer> def f(x): return 0 </answer>", "wrong"),
        (f"<think> {GOOD} </think>", "unparsed"),
        (f"<think> a </think> {GOOD}", "unparsed"),
        (f"<think> a </think> <answer> the program is {GOOD} </answer>", "unparsed"),
        ("<answer> </answer>", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_the_program_of_an_output_is_its_final_answer(text, expected):
    score = Score(value=float(expected == "right"), verdict=expected)
    assert interpreter.accuracy([question()], [text]) == [score] == reasoning.accuracy([question()], [text])


@given(st.lists(st.sampled_from([*PIECES, "<think>", "</think>", "<answer>", "</answer>", GOOD]), max_size=12))
def test_any_output_has_a_score(pieces):
    (score,) = interpreter.accuracy([question()], [" ".join(pieces)])
    assert score.verdict in ("right", "wrong", "unparsed") and score.value == float(score.verdict == "right")


def test_a_question_that_asserts_nothing_scores_nothing():
    assert interpreter.accuracy([question(gold="")], [f"<answer>{GOOD}</answer>"]) == [
        Score(value=None, verdict="error")
    ]


def test_each_question_is_judged_as_its_kind_asks():
    texts = ["<answer> 5 </answer>", f"<answer> {GOOD} </answer>"]
    assert [score.value for score in reasoning.accuracy([question("5", "answer"), question()], texts)] == [1, 1]
    assert [score.value for score in reasoning.accuracy([question("5", "answer"), question()], texts[::-1])] == [0, 0]
    assert reasoning.accuracy([], []) == []
    assert reasoning.accuracy([question(kind="open")], texts[1:]) == [Score(value=0.0, verdict="unparsed")]
    with pytest.raises(ValueError):
        reasoning.accuracy([question()], [])
