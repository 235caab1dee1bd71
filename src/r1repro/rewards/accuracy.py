"""The accuracy reward of DeepSeek-R1 (section 2.2.2): is the final answer of an output the reference answer?

Three rules, each a function: `final_answer` finds the answer in the output, `readable` says what of it is mathematics,
`verify` compares (with math-verify, in a child process that can be killed).  Plain integers never leave this process.
"""

import functools
import logging
import re
from collections.abc import Sequence
from fractions import Fraction

from r1repro.records import Question, Score
from r1repro.rewards.worker import Pool

MAX_CHARS = 2000
"""A longer final answer is unparsed: no reference answer of MATH has 200, and math-verify is slow on long text."""

_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_FULL_WIDTH = str.maketrans(
    "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff0b\uff0d\u2212\uff0c\uff0e\u3002",
    "0123456789+--,..",
)
_INTEGER = re.compile(
    r"([+-]?)\s*([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?:[ \u00a0\u202f][0-9]{3})+)\.?"
)

_workers = Pool("r1repro.rewards.accuracy:verify", modules=["math_verify"])


def final_answer(text: str) -> str | None:
    r"""The final answer of an output, or None (unparsed) where our rule finds none.

    1. Thinking is not the answer: only what follows the last `</think>` counts (without one, the whole text does;
       that the tags are missing is the format reward's business).
    2. There, the last complete `<answer>...</answer>` block counts, or without one all of it.
    3. In that, the last `\boxed{...}` with balanced braces is the answer (several count as one list where only "and"
       or commas stand between them); a block without a box is, whole.
    An answer of nothing but spaces is none.

    Where the paper is silent:
        It asks for "the required form", for example a box, and its template asks for answer tags; it does not say what
        counts when both, several or neither are there.  By our rule the last word counts, and a number in running text
        without tags or box counts for nothing, so that no output is right by mentioning many numbers.

    >>> final_answer("<think>5?</think> It is <answer> 4 </answer>"), final_answer(r"<answer>So \boxed{4/2}.</answer>")
    ('4', '4/2')
    >>> final_answer(r"First \boxed{3}, better \boxed{4}"), final_answer("<think><answer>4</answer></think> 4")
    ('4', None)
    """
    said = text.rpartition("</think>")[2]
    begin = said.rfind("<answer>", 0, max(said.rfind("</answer>"), 0))
    block = said[begin + len("<answer>") :].partition("</answer>")[0] if begin >= 0 else None
    box = _last_boxes(said if block is None else block)
    return ((block if box is None else box) or "").strip() or None


_JOINT = re.compile(
    r"""(?:\s|\\[()\[\],;:!\s]|\$|\\q?quad|(?:(?:\b[a-z]+\s+)?\b)(?:and|or)\b|[,;]|[A-Za-z](?:_(?:\{\w{1,9}\}|\w))?\s*=
    |\\(?:text|mbox|textbf)\{[^{}]{0,30}\})*""",
    re.VERBOSE,
)
_AND = re.compile(r"\b(?:and|or)\b|[,;]")


def _last_boxes(text: str, side_by_side: bool = False) -> str | None:
    r"""The last box, or the last ones where nothing but "and" or a comma stands between them, as one list.

    Boxes ``side_by_side`` with nothing between them are a list in a reference answer, and not in an output.

    >>> _last_boxes(r"$x = \boxed{1}$ and $y = \boxed{2}$"), _last_boxes(r"\boxed{1}, no: \boxed{2}")
    ('1, 2', '2')
    """
    if "\\boxed" not in text:
        return None
    opened, boxes = [], []
    for brace in _BRACES.finditer(text):
        if brace[0] == "}":
            if opened and (opening := opened.pop())[0].startswith("\\"):
                boxes.append((opening.start(), opening.end(), brace.start()))
        elif brace[0] not in ("\\{", "\\}"):
            opened.append(brace)
    if not boxes:
        return None
    boxes.sort()
    chosen = [boxes.pop()]
    while boxes and boxes[-1][2] < chosen[0][0]:
        between = text[boxes[-1][2] + 1 : chosen[0][0]]
        joined = len(between) <= 80 and _AND.search(between) and _JOINT.fullmatch(between)
        if not joined and not (side_by_side and not between.strip()):
            break
        chosen.insert(0, boxes.pop())
    return ", ".join(text[begin:end].strip() for _, begin, end in chosen)


@functools.lru_cache(maxsize=1 << 14)
def normalise(answer: str) -> str:
    """The form in which answers are counted in a vote: integers in one way of writing, other text stripped.

    >>> [normalise(answer) for answer in (" +1,024. ", "007", "-0", "\uff14\uff12", "1,2", " x + 1 ")]
    ['1024', '7', '0', '42', '1,2', 'x + 1']
    """
    integer = _INTEGER.fullmatch(answer.translate(_FULL_WIDTH).strip().removeprefix("\\$").strip("$ "))
    if integer is None:
        return answer.strip()
    digits = re.sub(r"\D", "", integer[2]).lstrip("0")
    return ("-" if integer[1] == "-" else "") + digits if digits else "0"


def accuracy(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """1 for each output whose final answer is the reference answer, 0 if it is another or none.

    A grader that times out or fails scores nothing (None): that is no fault of the output.
    """
    verdicts = [grade(question.gold, text)["verdict"] for question, text in zip(questions, texts, strict=True)]
    values = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": None, "error": None}
    return [Score(value=values[verdict], verdict=verdict) for verdict in verdicts]


def grade(gold: str, text: str) -> dict:
    """The verdict on one output, with its reason: {"verdict": ..., "reason": ...}."""
    answer = final_answer(text)
    if answer is None:
        return {"verdict": "unparsed", "reason": "no box and no answer block"}
    return compare(gold, answer)


def compare(gold: str, answer: str) -> dict:
    """The verdict on a final answer: integers here, all else in the child process (`verify`)."""
    wanted, given = normalise(gold), normalise(answer)
    if _INTEGER.fullmatch(wanted) and _INTEGER.fullmatch(given):
        return {"verdict": "right" if wanted == given else "wrong", "reason": "integers"}
    if len(given) > MAX_CHARS:
        return {"verdict": "unparsed", "reason": f"an answer of more than {MAX_CHARS} characters"}
    found = _compared.get((wanted, given))
    if found is None:
        found = _workers.call({"gold": wanted, "answer": given})
        if found["verdict"] not in ("timed_out", "error"):
            if len(_compared) >= MOST_COMPARED:
                _compared.clear()
            _compared[wanted, given] = found
    return dict(found)


MOST_COMPARED = 1 << 14
_compared: dict[tuple[str, str], dict] = {}
"""Verdicts of the child process on (reference, answer): sixteen outputs to a question give few different answers.  A
time-out is none, for it may come from a busy machine."""


MAX_DEPTH = 20
"""Brackets nested deeper are unparsed: the time of the grammar doubles with every few of them."""

_DELIMITERS = re.compile(r"(\$\$?)([^$]+)\1|\\\(((?:(?!\\\)).)*)\\\)|\\\[((?:(?!\\\]).)*)\\\]", re.DOTALL)
_TEXT = re.compile(r"\\(?:text(?:normal|bf|it|rm)?|mbox|mathrm)\s*\{([^{}]*)\}")
_WORD_ARGUMENT = re.compile(r"\\[A-Za-z]+\s*\{[^{}0-9\\]*\}")
_NUMBER = re.compile(r"(?<![A-Za-z0-9.,^])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?![0-9])")
_PROSE = re.compile(
    r"(?!(?:sin|cos|tan|log|exp|sqrt|and)\b)(?<![A-Za-z\\])[A-Za-z]{3,}|[\u0400-\u1fff\u3040-\u9fff\uac00-\ud7a3]"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[!,])(?=[0-9]{3}(?![0-9]))")
_MIXED = re.compile(r"(?<![\w./])([0-9]+)\s+([0-9]+)/([0-9]+)(?![\w./])")
_SIDE_BY_SIDE = re.compile(r"[0-9](?:\s|~|\\[,;:!\s]|\\q?quad)+[0-9]")
_ENDLESS = re.compile(
    r"[0-9][eE][-+]?[0-9]{4,}|(?:[0-9]{4,}|[)}\]])\s*!|!\s*!\s*!|\\(?:binom|Gamma|prod|sum)[^0-9]*(?:[0-9]{4,}|[0-9]+\s*\^)"
)
"""Numbers that would take for ever to write out: unparsed, as no reference answer is of this kind."""
_POWER_OF_TEN = re.compile(r"(?:\\times|\\cdot|\*|\u00d7)\s*10\s*\^\s*(?:\{[0-9]+\}|[0-9])")
_UNFINISHED = re.compile(
    r"[0-9)}!]\s*(?:[-+*/:\u2212\u00b7\u00d7\u00f7]|\\(?:times|cdot|div|ast)\b)|[0-9)]\s*(?:\(|\^\s*\{?-?[0-9])"
)


def readable(answer: str) -> str | None:
    r"""What of a short answer is mathematics, in LaTeX; None where we do not guess.

    Running text counts by its one formula or number, so "5 apples" is 5, and "3, or perhaps 5" is nothing.  Two numbers
    side by side are nothing either, but for thousands and mixed numbers (math-verify would add them up).

    >>> readable("The answer is 5."), readable("3, or perhaps 5"), readable("1 1/2"), readable("5 6")
    ('5', None, '1\\frac{1}{2}', None)
    """
    answer = _mended(answer.strip().removesuffix(".").strip())
    if whole := _DELIMITERS.fullmatch(answer):
        answer = next(part for part in whole.groups()[1:] if part is not None).strip()
    answer = _MIXED.sub(r"\1\\frac{\2}{\3}", _THOUSANDS.sub("", answer))
    if is_prose(answer):
        parts = [found[0] for found in _DELIMITERS.finditer(answer)] or [found[0] for found in _NUMBER.finditer(answer)]
        return readable(parts[0]) if len(parts) == 1 else None
    if _SIDE_BY_SIDE.search(answer) or _ENDLESS.search(answer) or not _well_nested(answer):
        return None
    return answer or None


_UPRIGHT = re.compile(r"\\(?:mathrm|text|operatorname)\s*\{\s*([ei])\s*\}")
_TRIG_POWER = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc))\s*\^\s*(?:\{([0-9]+)\}|([0-9]))\s*([A-Za-z]\b|\\(?:theta|alpha|beta|phi|pi)\b)"
)


_BARE_FRACTION = re.compile(r"\\[dt]?frac\s*([0-9]|\\pi\b)\s*([0-9]|\\pi\b)")
_REPEATING = re.compile(r"([0-9]{0,9})\.([0-9]{0,9})\\overline\s*\{?([0-9]{1,9})\}?")


def _fraction(whole: str, once: str, again: str) -> str:
    shift, nines = 10 ** len(once), 10 ** len(again) - 1
    return rf"\frac{{{int(whole + once + again) - int(whole + once or 0)}}}{{{shift * nines}}}"


def _mended(answer: str) -> str:
    r"""Writings that math-verify does not know, in one that it does.

    >>> _mended(r"\sin^2t"), _mended(r"\mathrm{e}^2"), _mended(r"0.\overline{3}")
    ('\\sin^{2}(t)', 'e^2', '\\frac{3}{9}')
    """
    answer = re.sub(r"(?<!\\)%", r"\\%", _UPRIGHT.sub(r"\1", answer)).replace("\\varnothing", "\\emptyset")
    answer = _REPEATING.sub(lambda m: _fraction(*m.groups()), answer)
    answer = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", answer).removeprefix("\\approx")
    return _TRIG_POWER.sub(r"\1^{\2\3}(\4)", answer).rstrip("\\ ")


def _well_nested(answer: str) -> bool:
    braces, depth, deepest = re.sub(r"\\[{}]", "", answer), 0, 0
    for character in answer:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return braces.count("{") == braces.count("}") and deepest <= MAX_DEPTH


def verify(payload: dict) -> dict:
    r"""Compare {"gold", "answer"}: the function that runs in the child process.

    A reference answer of words is compared as words, in any case.  All else is parsed and compared by math-verify; its
    own timeouts are off (they are signals), and so is its fallback to comparing what it could not parse as text.

    Where the paper is silent:
        Whether an answer must be worked out.  "2 + 3" equals 5, and a policy paid for it would learn to repeat the
        question; so for an integer reference an answer with +, -, *, /, : or a power left between numbers is wrong
        (after the last "=", if there is one; `\frac{6}{2}` and "5 * 10^3" are taken as ways of writing a number).
    """
    gold, answer = _last_boxes(payload["gold"], side_by_side=True) or payload["gold"], payload["answer"]
    found = _compare(gold, answer)
    if found["verdict"] != "right" and len(wanted := _parts(gold)) == len(given := _parts(answer)) > 1:
        for one in wanted:
            same = next((other for other in given if _same_part(one, other)), None)
            if same is None:
                return {"verdict": "wrong", "reason": "a list: one of its parts is missing"}
            given.remove(same)
        return {"verdict": "right", "reason": "a list, part by part"}
    return found


def _compare(gold: str, answer: str) -> dict:
    if gold.split() == answer.split() and re.search(r"\w", gold) and _well_nested(gold):
        return {"verdict": "right", "reason": "the same text"}
    if is_words(gold):
        same = _words(gold).casefold() == _words(answer).casefold()
        return {"verdict": "right" if same else "wrong", "reason": "words"}
    if _DECIMAL.fullmatch(gold.strip("$ ")) and _WITH_COMMA.fullmatch(answer.strip("$ ")):
        gold, answer = gold.replace(",", "."), answer.replace(",", ".")
    if _NUMERIC.fullmatch(_TEXT.sub("", gold)):
        answer = _UNIT.sub(r"\1", answer)
    if (ratio := _ratio(gold)) and (other := _ratio(answer)):
        return {"verdict": "right" if ratio == other else "wrong", "reason": "ratios"}
    wanted, text = _parse_gold(gold), readable(answer)
    if not wanted:
        return {"verdict": "error", "reason": "math-verify cannot parse the reference answer"}
    result = _POWER_OF_TEN.sub("", _TEXT.sub("m", (text or "").rpartition("=")[2]))
    if getattr(wanted[0], "is_Integer", False) and _UNFINISHED.search(result):
        return {"verdict": "wrong", "reason": "not worked out"}
    given = _parse(text)
    if not given:
        return {"verdict": "unparsed", "reason": "math-verify cannot parse the answer"}
    import math_verify

    equal = math_verify.verify(wanted, given, timeout_seconds=None, raise_on_error=True)
    return {"verdict": "right" if equal else "wrong", "reason": "math-verify"}


_NUMERIC = re.compile(r"[-$0-9.,\s]+")
_UNIT = re.compile(
    r"([0-9])\s*(?:[kcmd]?m|km/h|m/s|mph|[km]?g|s|h|min|ft|in|lbs?|oz|m?[lL]|[kM]?J|k?N|k?W|V|Hz|K|\u00b0C?)"
    r"(?:\s*(?:\^\s*\{?[23]\}?|[\u00b2\u00b3]))?\s*\.?\s*$"
)
"""A unit after a number, where the reference is a number."""
_DECIMAL = re.compile(r"-?(?:[0-9]+\.[0-9]+|0,[0-9]+)")
_WITH_COMMA = re.compile(r"-?(?:0[.,][0-9]+|[1-9][0-9]*,(?:[0-9]{1,2}|[0-9]{4,}))")
"""A decimal fraction with a comma that cannot be one of thousands; read so where the reference is a decimal fraction,
since "3,5" may also be a list."""


def is_prose(text: str) -> bool:
    """Whether there are words in a text, beyond those in LaTeX and the names of functions."""
    return bool(_PROSE.search(_WORD_ARGUMENT.sub(" ", text)))


def is_words(gold: str) -> bool:
    """Whether a reference answer is words, or a letter, and no mathematics."""
    words = _words(gold)
    return not re.search(r"[0-9\\]", words) and bool(_PROSE.search(words) or re.fullmatch("[A-Z]", words))


_NAMED = re.compile(r"\s*([A-Za-z](?:_(?:\{\w+\}|\w))?)\s*=(.*)", re.DOTALL)


def _same_part(gold: str, answer: str) -> bool:
    """Whether two parts of lists are equal; where both have a name ("x = 3"), the names too."""
    named, other = _NAMED.fullmatch(gold), _NAMED.fullmatch(answer)
    if named and other and named[1] != other[1]:
        return False
    gold, answer = named[2] if named else gold, other[2] if other else answer
    return gold.split() == answer.split() or _compare(gold, answer)["verdict"] == "right"


_SPLIT = re.compile(
    r"\\q?quad|\\(?:text|mbox)\s*\{\s*(?:and|or|,)\s*\}|\b(?:and|or)\b|;|,(?!(?<=[0-9],)[0-9]{3}(?![0-9]))"
)


def _parts(answer: str) -> list[str]:
    r"""What stands side by side in a list, outside all brackets: for a tuple or an interval only itself.

    >>> _parts(r"x = 1,000 \text{ and } y = 2"), _parts("(1, 2), (3, 4)"), _parts("$3,5$")
    (['x = 1,000', 'y = 2'], ['(1, 2)', '(3, 4)'], ['3', '5'])
    """
    if len(answer) > MAX_CHARS:
        return []
    answer = re.sub(r"\$|\\[()\[\]]|\\boxed", " ", answer)
    depth, depths = 0, []
    for character in answer:
        depth += character in "({["
        depths.append(depth)
        depth -= character in ")}]"
    parts, begin = [], 0
    for cut in _SPLIT.finditer(answer):
        if depths[cut.start()] == 0:
            parts.append(answer[begin : cut.start()])
            begin = cut.end()
    parts = [part.strip() for part in [*parts, answer[begin:]]]
    return [part for part in parts if part]


_RATIO = re.compile(r"[0-9.]+(?:\s*(?::|\\colon)\s*[0-9.]+)+")


def _ratio(answer: str) -> list[Fraction] | None:
    """The shares that "7 : 32" gives, or None for anything else."""
    text = re.sub(r"\$|\\[()\[\],;!]", "", answer).rpartition("=")[2].strip(" .")
    if not _RATIO.fullmatch(text) or len(text) > 100:
        return None
    try:
        numbers = [Fraction(number) for number in re.split(r":|\\colon", text.replace(" ", ""))]
        return [number / sum(numbers) for number in numbers]
    except (ValueError, ZeroDivisionError):
        return None


def _parse(text: str | None) -> list:
    import math_verify  # and with it sympy: heavy, and needed in the child alone

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the timeouts that we switch off
    in_a_box = [math_verify.LatexExtractionConfig()]
    return math_verify.parse(f"\\boxed{{{text}}}", in_a_box, "no_fallback", parsing_timeout=None) if text else []


@functools.lru_cache(maxsize=1 << 12)
def _parse_gold(gold: str) -> list:
    return _parse(readable(gold))


def _words(answer: str) -> str:
    answer = _TEXT.sub(r"\1", answer.replace("$", ""))
    return " ".join(answer.strip(" .()\n").split())
