r"""What an output states as its answer where it keeps to no form: for reading other models' texts, never for training.

The accuracy reward wants a box or an answer block (`accuracy.final_answer`), and pays nothing without.  Benchmarks of
models that were asked for no form need a rule that reads prose, and such a rule can be played: the last number of a
text is right by chance more often than a box is.  So rollouts are never scored by it.
"""

import re

from r1repro.rewards.accuracy import MAX_CHARS, final_answer, readable

_CHAT = re.compile(r"<\|[a-z_]+\|>|</s>|\n(?:User|Human|Question|Q):")
_STATES = re.compile(
    r"####|(?:^|\n)[ \t>*#]*(?:A|Answer)[ \t*]*:|final answer(?: is| are)?"
    r"|\banswers? (?:is|are|was|would be|must be|should be)|\banswer\s*:"
    r"|r\u00e9ponse(?: finale)? est|respuesta(?: final)? es|\bAntwort ist|risposta \u00e8"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|\uff1a|:)|\u7b54\u3048\u306f",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|cannot|neither|nor)\b", re.IGNORECASE)
_HOPE = re.compile(r"\.?\s{0,9}I hope (?:it|this) is correct.*", re.DOTALL | re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?](?=\s|$|\*)|[\u3002\uff01\uff1f]|\n")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_FORMULA = re.compile(r"\$\$?[^$\n]{1,400}\$\$?|\\\((?:(?!\\\)).){1,400}\\\)|\\\[(?:(?!\\\]).){1,400}\\\]", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9.,^_])[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?:\s?\\?%)?(?![0-9])"
)


def stated_answer(text: str) -> str | None:
    r"""The answer that a text states, or None (unparsed).

    1. A box or an answer block, as the accuracy reward finds it; a box that never closes is no answer.
    2. Else what follows the last "the answer is", "A:", "####" or its like (six languages), up to the end of the
       sentence and after its last "is", if that is one number or formula.  If it is not, there is no answer.
    3. Else, of the last line that has any: the last bold text with a digit, formula or number.

    >>> stated_answer("So the answer is $7$. I hope it is correct."), stated_answer("The answer is 5, perhaps 6.")
    ('7', None)
    >>> stated_answer("She had 9 and ate 2.\nThat leaves **7 apples**.")
    '7'
    """
    strict = final_answer(text)
    if strict is not None:
        return strict
    said = _said(text)
    if "\\boxed" in said:  # it never closes
        return None
    states = list(_STATES.finditer(said))
    if states:
        rest = _rest(said, states[-1].end())
        return None if _DENIED.search(rest) else _one(re.split(r"\b(?:is|are|equals)\b", rest)[-1].strip())
    for line in reversed(said.splitlines()):
        parts = [*_FORMULA.finditer(line), *_NUMBER.finditer(line)]
        parts += [bold for bold in _BOLD.finditer(line) if re.search("[0-9]", bold[1])]
        if parts:  # the last to end; of a number within a formula or bold text, the whole
            last = max(parts, key=lambda part: (part.end(), -part.start()))
            whole = next((p for p in parts if p.start() < last.start() and p.end() >= last.end()), last)
            return _one(whole[1] if whole.re is _BOLD else whole[0])
    return None


def _said(text: str) -> str:
    """What follows the thinking, up to the next turn of a chat; the end of it, where it is long."""
    return _HOPE.sub("", _CHAT.split(text.rpartition("</think>")[2])[0])[-20 * MAX_CHARS :]


def _rest(said: str, begin: int) -> str:
    """What follows a statement, to the end of its sentence."""
    return _SENTENCE.split(said[begin:].lstrip(" :*\n\t\uff1a"))[0].rstrip(" *")


def stated_words(text: str) -> str | None:
    """The words that a text states as its answer, where the reference is words: as `stated_answer`, but for rule 3.

    >>> stated_words("So the answer is even.")
    'even'
    """
    strict = final_answer(text)
    if strict is not None:
        return strict
    said = _said(text)
    states = list(_STATES.finditer(said))
    return _rest(said, states[-1].end()) if states else said.strip()


def _one(text: str) -> str | None:
    """The one number or formula of some words, or None."""
    if not text or len(text) > MAX_CHARS:
        return None
    numbers = [number.replace("\u2212", "-") for number in _NUMBER.findall(text)]
    return numbers[0] if len(numbers) == 1 and not _FORMULA.search(text) else readable(text)


_LETTER = r"\(?\*{0,2}(?:\\(?:text|mathrm|textbf|mathbf)\{)?\(?([A-Z])\)?\}?\*{0,2}\)?"
_ONE_LETTER = re.compile(rf"[\s$.:]*{_LETTER}(?![A-Za-z0-9'\u2019])")
_ALSO = re.compile(r"\s*(?:,|/|or|and)+\s*\(?[A-Z]\)?(?![A-Za-z'\u2019])")
_WORDS = re.compile(r"(?:[^\S\n]*[^\W\dA-Z_][\w']*,?){1,4}[^\S\n]*")
_AT_LAST = re.compile(r"\(([A-Z])\)")


def stated_letter(text: str, question: str = "") -> str | None:
    """The letter of the choice that a text states, or None: none, or several.

    1. A box or an answer block; its text may also be that of one option of the question.
    2. Else the letter after the last "the answer is", at most four words between.
    3. Else a text that is a letter, or begins with one and a full stop, colon or bracket.
    4. Else the last letter in brackets of the last line that has one, if it is the only one there.

    >>> stated_letter("It is not (B), so the answer is (C)."), stated_letter("The answer is (A) or (C).")
    ('C', None)
    >>> stated_letter(r"<answer>\\text{(D)}</answer>"), stated_letter("D. It cannot be A.")
    ('D', 'D')
    """
    strict = final_answer(text)
    if strict is not None:
        return _first_letter(strict, whole=True) or _option(strict, question)
    said = _said(text)
    states = [m for m in _STATES.finditer(said) if not m[0].startswith("#")]
    if states:
        rest = said[states[-1].end() :].lstrip(" :*\n\t\uff1a")
        found = _first_letter(rest)
        if found is None and (words := _WORDS.match(rest)):
            found = None if _DENIED.search(words[0]) else _first_letter(rest[words.end() :])
        return found or _option(_SENTENCE.split(rest)[0], question)
    if re.match(rf"\s*{_LETTER}\s*(?:[.:)]|$)", said):
        return _first_letter(said)
    for line in reversed(said.splitlines()):
        if found := set(_AT_LAST.findall(line)):
            return found.pop() if len(found) == 1 else None
    return _option(said, question)


def _first_letter(text: str, whole: bool = False) -> str | None:
    found = _ONE_LETTER.match(text)
    if not found or _ALSO.match(text, found.end()):
        return None
    if found[1] in "AI" and re.match(r"\s+[a-z]", text[found.end() :]):  # a word, not a choice
        return None
    return None if whole and re.match(r"\s*[A-Za-z0-9]", text[found.end() :]) else found[1]


_OPTION = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])[.:)])\s*(.+?)\s*$", re.MULTILINE)


def _option(text: str, question: str) -> str | None:
    """The letter of the one option of the question that a text repeats."""
    wanted = " ".join(text.strip(" .*$").casefold().split())
    same = [
        a or b for a, b, said in _OPTION.findall(question) if " ".join(said.casefold().split()).strip(" .") == wanted
    ]
    return same[0] if wanted and len(same) == 1 else None
