"""Programs that test a function of a model in seven languages: the model's block, the task's tests, and a mark.

The tests of HumanEval-Mul's files (MultiPL-E) go on from the prompt, in the same file and process as the program: what
follows the function's opening brace there.  So a program that means to could pass by changing what the tests compare
with; one that leaves early does not, since a mark that is drawn anew for each run has to be the last line.
"""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from r1repro.evals.benchmark import Item
from r1repro.records import Score
from r1repro.rewards import code, languages, sandbox

PYTHON = ("python", "py", "python3")
"""What a fenced block of Python may say."""

_DEFINES = {
    "java": r"\b{name}\s*\([^;{{}}]*\)[^;{{}}()]*\{{",
    "cs": r"\b{name}\s*(?:<\w+>)?\([^;{{}}]*\)[^;{{}}()]*(?:\{{|=>)",
    "cpp": r"\b{name}\s*\([^;{{}}]*\)[^;{{}}()]*\{{",
    "js": r"\bfunction\s*\*?\s*{name}\b|\b{name}\s*=",
    "ts": r"\bfunction\s*{name}\b|\b{name}\s*(?::[^=;]*)?=",
    "php": r"\bfunction\s+&?\s*{name}\b",
    "sh": r"\b{name}\s*\(\s*\)|\bfunction\s+{name}\b",
}  # fmt: skip
"""What defines a function of this name, and does not merely call it."""

_CLOSES = {"java": "    }\n}\n", "cs": "    }\n}\n", "cpp": "}\n", "sh": "}\n"}
"""What the tests of a file close first, after a body that goes on from the prompt; in the others the body does."""

_PAIR = """package org.javatuples;
public final class Pair<A, B> {
    private final A a; private final B b;
    public Pair(A a, B b) { this.a = a; this.b = b; }
    public static <A, B> Pair<A, B> with(A a, B b) { return new Pair<A, B>(a, b); }
    public A getValue0() { return a; }
    public B getValue1() { return b; }
    @Override public boolean equals(Object o) {
        return o instanceof Pair && java.util.Objects.equals(a, ((Pair<?, ?>) o).a)
            && java.util.Objects.equals(b, ((Pair<?, ?>) o).b);
    }
    @Override public int hashCode() { return java.util.Objects.hash(a, b); }
    @Override public String toString() { return "[" + a + ", " + b + "]"; }
}
"""
"""The one class of the library org.javatuples that prompts and tests use."""


def name_of(language: str, prompt: str) -> str:
    """Name of the function that a prompt ends in.

    >>> name_of("cpp", "long add(long x, long y) {\\n"), name_of("sh", "add() {\\n")
    ('add', 'add')
    """
    line = prompt.rstrip().splitlines()[-1]
    names = re.findall(r"(\w+)\s*\(", line)
    if not names:
        raise ValueError(f"the prompt ends in {line[:80]!r}, no function of {language}: mend the row")
    return names[0]


def block_of(language: str, output: str, name: str) -> str | None:
    """The program in an output: of the fenced blocks of the language (or of none), the last that defines the function,
    else the last; without fences the whole answer if it defines the function; else None (unparsed).

    Where the paper is silent:
        Which block counts.  An example of use often follows a solution, so a block that defines the function is
        preferred; of several the last, so that a corrected one counts.
    """
    defines = re.compile(_DEFINES[language].format(name=re.escape(name)))
    found = code.blocks(output, languages.LANGUAGES[language].fences) or code.blocks(output, ("",))
    if found:
        return next((block for block in reversed(found) if defines.search(block)), found[-1])
    said = output.rpartition("</think>")[2]
    return said if defines.search(said) else None


def files(language: str, prompt: str, tests: str, block: str, mark: str) -> dict[str, str]:
    """The files of a program that prints ``mark`` as its last line when all tests have passed.

    A block that does not define the function goes on from the prompt, as outputs of base models do.

    Raises:
        ValueError: tests that have not the form of their language.
    """
    name = name_of(language, prompt)
    if not re.search(_DEFINES[language].format(name=re.escape(name)), block):
        block = prompt + block + "\n" + _CLOSES.get(language, "")
    file = languages.LANGUAGES[language].file
    return {file: _ASSEMBLE[language](prompt, tests, block, mark)} | ({JAVA_PAIR: _PAIR} if language == "java" else {})


JAVA_PAIR = "org/javatuples/Pair.java"


def _cut(pattern: str, tests: str) -> re.Match:
    found = re.fullmatch(pattern, tests.strip(), re.DOTALL)
    if not found:
        raise ValueError(f"tests begin with {tests[:60]!r}, another form than that of HumanEval-Mul: mend the row")
    return found


def _java(prompt: str, tests: str, block: str, mark: str) -> str:
    body = _cut(r"\}\s*public static void main\(String\[\] args\)\s*\{(.*)\}\s*\}", tests)[1]
    block = re.sub(r"^\s*package\s+[\w.]+\s*;", "", block, flags=re.MULTILINE)
    block = re.sub(r"^public\s+((?:final\s+|abstract\s+)?class\b)", r"\1", block, flags=re.MULTILINE)
    block = re.sub(r"\bmain(?=\s*\(\s*(?:final\s+)?String\b)", "main_of_the_output", block)
    program = _class(prompt, block, r"import\s+[\w.*\s]+;")
    return f"""{program}
class Tests extends Problem {{
    public static void main(String[] args) throws Exception {{{body}
        System.out.println("\\n{mark}");
    }}
}}
"""


def _cs(prompt: str, tests: str, block: str, mark: str) -> str:
    body = _cut(r"\}\s*public static void Main\(string\[\] args\)\s*\{(.*)\}\s*\}", tests)[1]
    body = re.sub(r"^(\s*)Debug\.Assert\(", r"\1Check(", body, flags=re.MULTILINE)
    program = _class(prompt, re.sub(r"\b(?:static|sealed)\s+(class\s+Problem\b)", r"\1", block), r"using\s+[\w.=\s]+;")
    return f"""{program}
class Tests : Problem {{
    static void Check(bool right) {{ if (!right) Environment.Exit(1); }}
    public static void Main(string[] args) {{{body}
        Console.WriteLine("\\n{mark}");
    }}
}}
"""


def _class(prompt: str, block: str, imports: str) -> str:
    """A block with the prompt's imports before it, in class Problem if it is bare functions."""
    statement = re.compile(rf"^[ \t]*{imports}[ \t]*$", re.MULTILINE)
    head = [found.strip() for found in [*statement.findall(prompt), *statement.findall(block)]]
    rest = statement.sub("", block)
    if not re.search(r"\bclass\s+Problem\b", rest):
        rest = f"class Problem {{\n{rest}\n}}"
    return "\n".join([*dict.fromkeys(head), rest])


def _cpp(prompt: str, tests: str, block: str, mark: str) -> str:
    body = _cut(r"\}\s*(int main\(\)\s*\{.*)\}", tests)[1]
    head = re.findall(r"^#include.*$", prompt, re.MULTILINE)
    for union in re.finditer(r"^union (\w+)\s*\{.*?^\};$", prompt, re.MULTILINE | re.DOTALL):
        if not re.search(rf"\bunion\s+{union[1]}\s*\{{", block):
            head.append(union[0])
    block = re.sub(r"\bmain(?=\s*\()", "main_of_the_output", block)
    lines = [*head, block, "#undef assert", "#undef NDEBUG", "#include <cassert>", "#include <cstdio>"]
    return "\n".join(lines) + f'\n{body}\n    std::puts("\\n{mark}");\n}}\n'


def _js(prompt: str, tests: str, block: str, mark: str) -> str:
    return f'{block}\n(function () {{\n{tests}\nconsole.log("\\n{mark}");\n}})();\n'


def _ts(prompt: str, tests: str, block: str, mark: str) -> str:
    declared = "declare var require: any;"
    head = "" if re.search(r"^declare\s+\w+\s+require\b", block, re.MULTILINE) else f"{declared}\n"
    return head + _js(prompt, tests.replace(declared, ""), block, mark)


def _php(prompt: str, tests: str, block: str, mark: str) -> str:
    block = re.sub(r"^\s*<\?(?:php)?|\?>\s*$", "", block)
    return f'<?php\n{block}\n{tests}\necho "\\n{mark}\\n";\n'


def _sh(prompt: str, tests: str, block: str, mark: str) -> str:
    body = _cut(r"\}\s*(.*)", tests)[1]
    return f"{block}\n{body}\nprintf '\\n%s\\n' {mark}\n"


_ASSEMBLE = {"java": _java, "cs": _cs, "cpp": _cpp, "js": _js, "ts": _ts, "php": _php, "sh": _sh}


def grade(language: str, prompt: str, tests: str, output: str) -> dict:
    """The verdict on an output, with its reason.

    "error" where the toolchain is missing or the sandbox could not be made: then the program is not evaluated.
    """
    if why := languages.missing(language):
        return {"verdict": "error", "reason": why}
    block = block_of(language, output, name_of(language, prompt))
    if block is None or not block.strip():
        return {"verdict": "unparsed", "reason": "no program"}
    links = ("-lcrypto",) if language == "cpp" and "openssl/" in block else ()  # MD5, which C++ itself has not
    if links and not Path("/usr/include/openssl").is_dir():
        return {
            "verdict": "error",
            "reason": "cpp: no openssl headers below /usr: `make setup-sandbox` installs libssl-dev",
        }
    mark = secrets.token_hex(16)
    with code.turn():
        ended = languages.run(language, files(language, prompt, tests, block, mark), links=links)
    if ended.stopped:
        return code.halted(ended.stopped)
    said = ended.output.decode("utf-8", "replace").strip().splitlines()
    if ended.status == languages.NOT_BUILT:
        return {"verdict": "wrong", "reason": f"not built: {' '.join(said[:3])[:200]}"}
    if ended.status or not said or said[-1] != mark:
        return {"verdict": "wrong", "reason": f"exit status {ended.status}, not all tests reached and passed"}
    return {"verdict": "right", "reason": "all tests pass"}


def score(verdict: dict) -> Score:
    """1 right; 0 wrong, unparsed or out of time, which is the program's fault; None where it could not be run."""
    values = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": 0.0, "error": None}
    return Score(value=values[verdict["verdict"]], verdict=verdict["verdict"])


def lacking(items: Sequence[Item]) -> list[str]:
    """One line for each language of the items that no program can be run in here: they are not evaluated."""
    wanted = dict.fromkeys(item.more.get("language", "python") for item in items)
    why = {name: languages.missing(name) if name in languages.LANGUAGES else sandbox.refusal() for name in wanted}
    return [
        f"{line} ({sum(i.more.get('language', 'python') == n for i in items)} questions)"
        for n, line in why.items()
        if line
    ]
