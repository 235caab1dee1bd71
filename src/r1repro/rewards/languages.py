"""Programs of the eight languages of HumanEval-Mul, built and run in a sandbox each (section 3.1 of the paper).

A toolchain is what a machine has below /usr: `make setup-sandbox` installs what Debian and npm have.  A language that
lacks a part of its own is `missing`, and none of its programs is ever called wrong.

Where the paper is silent:
    Compilers, versions, standards and limits.  Ours are those of the distribution: C++17, Java with assertions on, C# 7
    (Mono), TypeScript with type errors as errors, PHP and Bash as they come.
"""

import functools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from r1repro.records import Refusal
from r1repro.rewards import sandbox
from r1repro.rewards.sandbox import Ended, Limits

NOT_BUILT = 77
"""Exit status of a program that its compiler refuses; what the compiler says is its output."""

_LAUNCHER = """
import os, subprocess
files, builds, words, environment = {parts!r}
os.environ.update(environment)
for name, text in files.items():
    os.makedirs(os.path.dirname("/tmp/" + name), exist_ok=True)
    with open("/tmp/" + name, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
for build in builds:
    done = subprocess.run(build, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        os.write(1, done.stdout[:2000])
        os._exit({not_built})
os.execv(words[0], words)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How programs of a language are named, built, run and limited."""

    name: str
    fences: tuple[str, ...]
    """What a fenced block of it may say, in lower case."""

    file: str
    """Name of the program's file."""

    build: tuple[tuple[str, ...], ...] = ()
    """Commands, each a tool of ``tools`` and its words."""

    start: tuple[str, ...] = ()
    """The command that runs what was built; the same."""

    tools: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, places): executables, or files below one of the places (patterns), each of which has to be there."""

    install: str = ""
    """Debian's packages, or npm's after "npm:"."""

    environment: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)


def _limits(memory_mib: int, address_gib: int, processes: int, *visible: str, cpu_s: int = 10) -> Limits:
    """Ours: a compiler or virtual machine needs about a second here; ten times that, and the clock four times more."""
    return Limits(
        cpu_s=cpu_s, wall_s=4.0 * cpu_s, memory_bytes=memory_mib << 20, address_bytes=address_gib << 30,
        processes=processes, visible=visible,
    )  # fmt: skip


_JVM = ("-Xmx256m", "-Xss16m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=48m")
_JVM += ("-XX:-UsePerfData", "-Dfile.encoding=UTF-8")
_NODE = ("--max-old-space-size=256", "--stack-size=3900")
_TSC = ("/usr/local/lib/node_modules/typescript/lib", "/usr/lib/node_modules/typescript/lib")
_TSC += ("/usr/share/nodejs/typescript/lib",)
_ETC = "/etc/alternatives"
"""Links of Debian, such as from awk to mawk."""

LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        Language(
            name="java",
            fences=("java",),
            file="Problem.java",
            build=(("javac", *(f"-J{word}" for word in _JVM), "-proc:none", "-nowarn", "-encoding", "UTF-8",
                    "-d", "/tmp", "-sourcepath", "/tmp", "/tmp/Problem.java"),),
            start=("java", "-ea", *_JVM, "-cp", "/tmp", "Tests"),
            tools=(("javac", ()), ("java", ())),
            install="default-jdk-headless",
            limits=_limits(768, 8, 64, "/etc/java-*-openjdk"),
        ),
        Language(
            name="cpp",
            fences=("cpp", "c++", "cc", "cxx", "c"),
            file="program.cpp",
            build=(("g++", "-std=c++17", "-w", "-o", "/tmp/program", "/tmp/program.cpp"),),
            start=("/tmp/program",),
            tools=(("g++", ()), ("as", ()), ("ld", ())),
            install="g++ libssl-dev",
            limits=_limits(1024, 2, 24, _ETC, cpu_s=15),
        ),
        Language(
            name="cs",
            fences=("csharp", "c#", "cs"),
            file="program.cs",
            build=(("mono", "mcs.exe", "-nologo", "-warn:0", "-d:DEBUG", "-main:Tests", "-r:System.Numerics.dll",
                    "-out:/tmp/program.exe", "/tmp/program.cs"),),
            start=("mono", "--debug", "/tmp/program.exe"),
            tools=(("mono", ()), ("mcs.exe", ("/usr/lib/mono/4.5",)), ("System.Core.dll", ("/usr/lib/mono/4.5",)),
                   ("System.Numerics.dll", ("/usr/lib/mono/4.5",))),
            install="mono-mcs libmono-system-core4.0-cil libmono-system-numerics4.0-cil",
            environment=(("MONO_GC_PARAMS", "max-heap-size=256m"),),
            limits=_limits(768, 4, 32, "/etc/mono"),
        ),
        Language(
            name="js",
            fences=("javascript", "js", "node", "nodejs"),
            file="program.js",
            start=("node", *_NODE, "/tmp/program.js"),
            tools=(("node", ()),),
            install="nodejs",
            limits=_limits(768, 8, 48, _ETC),
        ),
        Language(
            name="ts",
            fences=("typescript", "ts"),
            file="program.ts",
            build=(("node", *_NODE, "tsc.js", "--target", "es2022", "--module", "commonjs", "--lib", "es2022,dom",
                    "--moduleDetection", "force", "--skipLibCheck", "--noEmitOnError", "/tmp/program.ts"),),
            start=("node", *_NODE, "/tmp/program.js"),
            tools=(("node", ()), ("tsc.js", _TSC), ("lib.dom.d.ts", _TSC)),
            install="nodejs, npm:typescript",
            limits=_limits(768, 8, 48, _ETC, cpu_s=15),
        ),
        Language(
            name="php",
            fences=("php",),
            file="program.php",
            start=("php", "-d", "memory_limit=256M", "-d", "display_errors=stderr", "/tmp/program.php"),
            tools=(("php", ()),),
            install="php-cli php-mbstring",
            limits=_limits(512, 1, 16, "/etc/php"),
        ),
        Language(
            name="sh",
            fences=("bash", "sh", "shell"),
            file="program.sh",
            start=("bash", "/tmp/program.sh"),
            tools=(("bash", ()), ("awk", ()), ("bc", ()), ("rev", ())),
            install="bash mawk bc bsdextrautils",
            limits=_limits(512, 0, 32, _ETC),
        ),
    )
}  # fmt: skip
"""By the names that the files of HumanEval-Mul have; Python is `code`'s, which keeps tests and program apart."""


@functools.cache
def tools(name: str) -> dict[str, str]:
    """Path of each tool of a language, links followed; "" where it is missing or lies where no sandbox sees it."""
    return {tool: _found(tool, places) for tool, places in LANGUAGES[name].tools}


def _found(tool: str, places: tuple[str, ...]) -> str:
    there = [Path(place, tool) for place in places] or [
        Path(shutil.which(tool, path="/usr/bin:/usr/local/bin") or "/-")
    ]
    real = next((os.path.realpath(path) for path in there if path.is_file()), "")
    return real if real.startswith("/usr/") else ""


def missing(name: str) -> str:
    """Why programs of a language are not run here, in one line; "" where they are."""
    lacking = [tool for tool, path in tools(name).items() if not path]
    if lacking:
        return (
            f"{name}: no {', '.join(lacking)} below /usr, so its programs are not evaluated: `make setup-sandbox` "
            f"installs {LANGUAGES[name].install}"
        )
    if why := sandbox.refusal():
        return f"{name}: its programs are not evaluated: {why}"
    if sandbox.isolation() == "none":  # they would write into one /tmp, beside each other
        return f"{name}: its programs are not evaluated without isolation: install bubblewrap"
    return ""


def run(
    name: str, files: dict[str, str], given: str = "", limits: Limits | None = None, links: tuple[str, ...] = ()
) -> Ended:
    """Build and run a program: ``files`` by name, the language's own file among them; ``given`` is its standard input,
    ``links`` are further words of the last build.

    Its status is `NOT_BUILT` where a compiler refuses it.

    Errors: `Refusal` where the toolchain is `missing`.
    """
    if why := missing(name):
        raise Refusal(why)
    language, paths = LANGUAGES[name], tools(name)
    builds = [[paths.get(word, word) for word in build] for build in language.build]
    if builds:
        builds[-1] += links
    words = [paths.get(word, word) for word in language.start]
    limits = _with_settings(limits or language.limits)
    environment = dict(language.environment)
    text = _LAUNCHER.format(parts=(files, builds, words, environment), not_built=NOT_BUILT)
    return sandbox.run(text, given, limits)


def _with_settings(limits: Limits) -> Limits:
    """The limits with patterns among the visible files resolved."""
    found = [str(path) for pattern in limits.visible for path in sorted(Path("/").glob(pattern[1:]))]
    return Limits(**{name: getattr(limits, name) for name in Limits.__slots__} | {"visible": tuple(found)})
