r"""Formulas as MathML, which browsers show by themselves: the part of TeX that our notebooks use.

A formula that cannot be read stays as it was written, as code: a reader then sees TeX instead of nothing.
"""

import html
import re

GREEK = dict(
    zip(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
        "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell infty".split(),
        "αβγδϵεζηθικλμνξπρστυϕφχψωΓΔΘΛΞΠΣΦΨΩℓ∞",
        strict=True,
    )
)
SIGNS = {
    "pm": "±", "mp": "∓", "times": "×", "cdot": "⋅", "approx": "≈", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "ne": "≠", "neq": "≠", "equiv": "≡", "sim": "∼", "propto": "∝", "in": "∈", "notin": "∉", "to": "→",
    "leftarrow": "←", "rightarrow": "→", "mapsto": "↦", "Rightarrow": "⇒", "nabla": "∇", "partial": "∂", "wedge": "∧",
    "vee": "∨", "neg": "¬", "mid": "|", "vert": "|", "|": "‖", "Vert": "‖", "dots": "…", "ldots": "…", "cdots": "⋯",
    "{": "{", "}": "}", "#": "#", "%": "%", "&": "&", "_": "_", "$": "$", "lfloor": "⌊", "rfloor": "⌋", "cup": "∪",
    "cap": "∩", "forall": "∀", "exists": "∃", "langle": "⟨", "rangle": "⟩", "colon": ":", "ll": "≪", "gg": "≫",
    "circ": "∘", "odot": "⊙", "star": "⋆", "setminus": "∖", "subset": "⊂", "subseteq": "⊆", "emptyset": "∅",
}  # fmt: skip
LARGE = {"sum": "∑", "prod": "∏", "int": "∫"}
WORDS = "log exp min max sin cos tan arg lim sup inf Pr det clip std mean softmax argmax argmin".split()
SPACES = {",": 0.17, ":": 0.22, ";": 0.28, " ": 0.33, "!": -0.17, "quad": 1, "qquad": 2}
OVER = {"hat": "^", "bar": "¯", "tilde": "~", "vec": "→", "overline": "¯", "dot": "˙"}
SIZES = "big Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm".split()
STYLES = {"mathrm": "up", "operatorname": "up", "mathbf": "bold", "boldsymbol": "bold", "mathbb": "bold",
          "mathcal": "cal", "mathit": "it", "mathsf": "up"}  # fmt: skip
TEXTS = {"text": "", "textrm": "", "textit": "it", "textbf": "bold", "texttt": "code", "mathtt": "code"}

CLOSING = [f'<mo stretchy="false">{sign}</mo>' for sign in ")]}|⌋⟩"]

MATH = re.compile(
    r"(?P<code>```.*?```|~~~.*?~~~|`+[^`\n]+`+)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<line>[^$\s](?:[^$\n]*[^$\s\\])?)\$(?!\d)",
    re.DOTALL,
)
"""Code, which is left alone, and formulas, set apart or in the line, in a cell of Markdown."""


class _Unread(ValueError):
    """TeX that is not known here."""


def math(tex: str, block: bool = False) -> str:
    r"""A formula as MathML, its TeX as the text for those who cannot see it.

    >>> math("a_i")
    '<math alttext="a_i"><msub><mi>a</mi><mrow><mi>i</mi></mrow></msub></math>'
    >>> math(r"\\unheard of")
    '<code class="tex">\\\\unheard of</code>'
    """
    try:
        reader = _Reader(tex.strip())
        inner = reader.row()
        if reader.at < len(reader.text):
            raise _Unread(tex)
    except _Unread:
        return f'<code class="tex">{html.escape(tex.strip())}</code>'
    display = ' display="block"' if block else ""
    return f'<math{display} alttext="{html.escape(" ".join(tex.split()))}">{inner}</math>'


class _Reader:
    """Reads TeX from left to right; every method returns MathML and leaves `at` behind what it has read."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    def row(self, end: str = "") -> str:
        """What stands up to ``end``, a closing brace or bracket or the end of a \\left ... \\right."""
        parts = []
        while True:
            self._skip()
            if self.at >= len(self.text) or (end and self.text.startswith(end, self.at)):
                return "".join(parts)
            if self.text[self.at] == "}" or self.text.startswith("\\right", self.at) and end != "\\right":
                raise _Unread(self.text)
            signed = self.text[self.at] in "+-" and (
                not parts or parts[-1].endswith("</mo>") and parts[-1] not in CLOSING
            )
            part = self._scripted()
            parts.append(part.replace("<mo>", '<mo form="prefix">', 1) if signed else part)

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _scripted(self) -> str:
        """An atom with what stands below and above it."""
        large = re.match(rf"\\(?:{'|'.join(LARGE)}|lim|underbrace|overbrace)(?![A-Za-z])", self.text[self.at :])
        atom, below, above = self._atom(), "", ""
        while True:
            self._skip()
            mark = self.text[self.at : self.at + 1]
            if mark == "'":
                self.at += 1
                above += "<mo>′</mo>"
            elif mark and mark in "_^":
                self.at += 1
                found = self._argument()
                below, above = (found, above) if mark == "_" else (below, above + found)
            else:
                break
        kind = ("munder", "mover", "munderover") if large else ("msub", "msup", "msubsup")
        if below and above:
            return f"<{kind[2]}>{atom}{_one(below)}{_one(above)}</{kind[2]}>"
        if below or above:
            tag = kind[0] if below else kind[1]
            return f"<{tag}>{atom}{_one(below or above)}</{tag}>"
        return atom

    def _argument(self) -> str:
        self._skip()
        if self.at >= len(self.text):
            raise _Unread(self.text)
        if self.text[self.at].isdigit():  # \frac12 is a half
            self.at += 1
            return f"<mn>{self.text[self.at - 1]}</mn>"
        return self._atom()

    def _group(self) -> str:
        self.at += 1
        inner = self.row("}")
        self._expect("}")
        return f"<mrow>{inner}</mrow>"

    def _expect(self, text: str) -> None:
        if not self.text.startswith(text, self.at):
            raise _Unread(self.text)
        self.at += len(text)

    def _raw(self) -> str:
        """The text of a group as it is, braces in it counted; without a brace the next character."""
        self._skip()
        if self.text[self.at : self.at + 1].isalnum():
            self.at += 1
            return self.text[self.at - 1]
        self._expect("{")
        first, depth = self.at, 1
        while depth:
            if self.at >= len(self.text):
                raise _Unread(self.text)
            depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            self.at += 1
        return self.text[first : self.at - 1]

    def _atom(self) -> str:
        rest = self.text[self.at :]
        if rest[0] == "{":
            return self._group()
        if command := re.match(r"\\([A-Za-z]+\*?|.)", rest):
            self.at += len(command[0])
            return self._command(command[1])
        if number := re.match(r"\d+(?:\.\d+)?", rest):
            self.at += len(number[0])
            return f"<mn>{number[0]}</mn>"
        self.at += 1
        if rest[0].isalpha():
            return f"<mi>{rest[0]}</mi>"
        if rest[0] in "&~^_}\\":
            raise _Unread(self.text)
        return _sign("−" if rest[0] == "-" else rest[0])

    def _command(self, name: str) -> str:
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}em"></mspace>'
        if name in GREEK:
            return f"<mi>{GREEK[name]}</mi>"
        if name in LARGE:
            return f'<mo movablelimits="true">{LARGE[name]}</mo>'
        if name in SIGNS:
            return _sign(SIGNS[name])
        if name in WORDS:
            return f'<mi class="up">{name}</mi>'
        if name in TEXTS:
            text = html.escape(_said(self._raw())).replace(" ", "\N{NO-BREAK SPACE}")
            return f'<mtext class="{TEXTS[name]}">{text}</mtext>' if TEXTS[name] else f"<mtext>{text}</mtext>"
        if name in STYLES:
            return f'<mi class="{STYLES[name]}">{html.escape(_said(self._raw()))}</mi>'
        if name in ("frac", "tfrac", "dfrac"):
            return f"<mfrac>{self._argument()}{self._argument()}</mfrac>"
        if name == "binom":
            inner = f'<mfrac linethickness="0">{self._argument()}{self._argument()}</mfrac>'
            return f"<mrow><mo>(</mo>{inner}<mo>)</mo></mrow>"
        if name == "sqrt":
            return self._root()
        if name in OVER:
            return f'<mover accent="true">{self._argument()}<mo>{OVER[name]}</mo></mover>'
        if name == "underbrace":
            return f'<mrow class="under">{self._argument()}</mrow>'
        if name == "overbrace":
            return f'<mrow class="over">{self._argument()}</mrow>'
        if name in SIZES:
            size = {"b": "1.2em", "B": "1.8em"}[name[0]] if "gg" not in name else "2.4em"
            return self._delimiter(f'stretchy="true" minsize="{size}" maxsize="{size}"')
        if name == "left":
            fence = 'stretchy="true" fence="true"'
            before, inner = self._delimiter(fence), self.row("\\right")
            self._expect("\\right")
            return f"<mrow>{before}{inner}{self._delimiter(fence)}</mrow>"
        raise _Unread(name)

    def _root(self) -> str:
        self._skip()
        if self.text.startswith("[", self.at):
            self.at += 1
            degree = self.row("]")
            self._expect("]")
            return f"<mroot>{self._argument()}<mrow>{degree}</mrow></mroot>"
        return f"<msqrt>{self._argument()}</msqrt>"

    def _delimiter(self, attributes: str) -> str:
        self._skip()
        found = re.match(r"\\([A-Za-z]+|.)|[^\\]", self.text[self.at :])
        if not found:
            raise _Unread(self.text)
        self.at += len(found[0])
        sign = found[0] if found[1] is None else SIGNS.get(found[1])
        if sign is None:
            raise _Unread(found[0])
        return "" if sign == "." else f"<mo {attributes}>{html.escape(sign)}</mo>"


def _sign(sign: str) -> str:
    """A sign; brackets keep the size of the line, as they do in TeX."""
    stretchy = ' stretchy="false"' if sign in "()[]{}|‖⌊⌋⟨⟩" else ""
    return f"<mo{stretchy}>{html.escape(sign)}</mo>"


def _one(parts: str) -> str:
    return f"<mrow>{parts}</mrow>"


def _said(text: str) -> str:
    return re.sub(r"\\([#%&_{}$ ])", r"\1", text)
