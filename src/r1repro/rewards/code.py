"""The accuracy reward for programs: do they pass tests, each in a sandbox of its own (section 2.2.2)?

Two kinds of tests.  A test script calls functions of the program: it runs in one sandbox, the program in another, and
they meet over a socket that carries data alone (`judge`, `guest`).  A list of inputs and outputs is for a program that
reads standard input: one sandbox for each input.

What a verdict means here: "timed_out" is the program's fault, and scores 0; "error" is the tests' or the machine's.
"""

import atexit
import contextlib
import json
import os
import queue
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from r1repro.records import Question, Refusal, Score
from r1repro.rewards import sandbox
from r1repro.rewards.sandbox import Limits

_JUDGE = Path(__file__).with_name("judge.py").read_text()

_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*((?:[cC]\#)?[\w+-]*)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE
)
_PYTHON = ("", "python", "py", "python3")


def program_of(text: str) -> str | None:
    r"""The program in an output, or None (unparsed).

    1. Thinking is no answer: only what follows the last `</think>` counts.
    2. There, the last fenced block that says Python, or says nothing, is the program.
    3. Without any fence, what stands in the last answer block, or all of it, if it is Python.

    Where the paper is silent:
        Which block counts when there are several; the last, as with boxes, so that a corrected one counts.

    >>> program_of("<think>?</think> So:\n```python\nprint(1)\n```\nDone.")
    'print(1)\n'
    >>> program_of("I would sort the list.") is None, program_of("def f(x):\n    return x")
    (True, 'def f(x):\n    return x')
    """
    said = text.rpartition("</think>")[2]
    if found := blocks(text, _PYTHON):
        return found[-1]
    begin = said.rfind("<answer>", 0, max(said.rfind("</answer>"), 0))
    bare = (said[begin + len("<answer>") :].partition("</answer>")[0] if begin >= 0 else said).strip("\n")
    try:
        compile(bare, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return bare if bare.strip() else None


def blocks(text: str, languages: Sequence[str]) -> list[str]:
    r"""The fenced blocks after the last `</think>` that say one of the languages, given in lower case.

    >>> blocks("```c#\nint a;\n```\n```\nb\n```\n```py\nc\n```", ["c#", ""])
    ['int a;\n', 'b\n']
    """
    found = _FENCE.findall(text.rpartition("</think>")[2])
    return [block for _, language, block in found if language.lower() in languages]


def code(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """1 for each output whose program passes all tests of its question (`Question.gold`), 0 if not.

    `gold` is a test script, or JSON {"inputs": [...], "outputs": [...]}.  None where the tests or the machine failed.
    """
    verdicts = grade_many((program_of(text), question.gold) for question, text in zip(questions, texts, strict=True))
    values = {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "timed_out": 0.0, "error": None}
    return [Score(value=values[v["verdict"]], verdict=v["verdict"]) for v in verdicts]


def grade_many(cases: Iterable[tuple[str | None, str]], limits: Limits | None = None) -> list[dict]:
    """`grade` of each (program, tests), as many at once as there are cores; in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda case: grade(*case, limits), cases))


def grade(program: str | None, tests: str, limits: Limits | None = None) -> dict:
    """The verdict on one program, with its reason: {"verdict": ..., "reason": ...}."""
    if program is None or not program.strip():
        return {"verdict": "unparsed", "reason": "no program"}
    pairs = _pairs(tests)
    if pairs is None:
        return _by_script(program, tests, limits or Limits())
    return _by_output(program, pairs, limits or Limits())


def _pairs(tests: str) -> list[tuple[str, str]] | None:
    """(input, output) of each test, or None where the tests are a script."""
    try:
        given = json.loads(tests)
        return list(zip(given["inputs"], given["outputs"], strict=True))
    except (ValueError, TypeError, KeyError):
        return None


def _by_output(program: str, pairs: list[tuple[str, str]], limits: Limits) -> dict:
    """All inputs, to the first that fails; output compared by lines, without the spaces at their ends."""
    if not pairs:
        return {"verdict": "error", "reason": "there are no tests"}
    for number, (given, wanted) in enumerate(pairs, 1):
        with _free:
            ended = sandbox.run(program, given, limits)
        if ended.stopped:
            return halted(ended.stopped)
        if ended.status:
            return {"verdict": "wrong", "reason": f"test {number}: exit status {ended.status}"}
        if _lines(ended.output.decode("utf-8", "replace")) != _lines(wanted):
            return {"verdict": "wrong", "reason": f"test {number}: other output"}
    return {"verdict": "right", "reason": f"all {len(pairs)} tests pass"}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def halted(reason: str) -> dict:
    """The verdict on a program that a limit of its sandbox stopped."""
    if reason == sandbox.NOT_MADE:
        return {"verdict": "error", "reason": reason}
    return {"verdict": "timed_out" if " s " in reason else "wrong", "reason": reason}


def _by_script(program: str, tests: str, limits: Limits) -> dict:
    with _free, _judge() as judge:
        here, there = socket.socketpair()
        with here, there, sandbox.Sandbox(limits, there, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as box:
            there.close()
            judge.begin({"program": program.encode("utf-8", "replace").decode(), "tests": tests}, here)
            here.close()
            while (verdict := judge.verdict(box.pause())) is None:
                if stopped := box.stopped():
                    return halted(stopped)  # and the judge, still busy, is replaced
            if verdict["verdict"] != "gone":
                return verdict
            ended = box.ended() if "ended" in verdict["reason"] else None
            return halted(ended.stopped) if ended and ended.stopped else verdict | {"verdict": "wrong"}


class Judge:
    """A process that compares (`judge.py`), in a sandbox of its own, for one case after another."""

    def __init__(self) -> None:
        mode, limits = sandbox.isolation(), Limits()
        self.control, there = socket.socketpair()
        self._received = b""
        with there:
            words = [*sandbox.PYTHON, _JUDGE, str(sandbox.fresh_uid(mode)), str(there.fileno()), "10", str(1 << 30)]
            if mode != "none":
                words = [*sandbox.bwrap(mode, limits), *words]
            self.child = subprocess.Popen(
                words,
                env={},
                pass_fds=(there.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.busy = True
        if self._line(30.0) != "ready":
            self.stop()
            raise Refusal("the process that runs tests did not start: see `python -m r1repro doctor`")
        self.busy = False

    def begin(self, case: dict, channel: socket.socket) -> None:
        message = json.dumps(case).encode()
        self.busy = True
        socket.send_fds(self.control, [b"%-16d" % len(message)], [channel.fileno()])
        self.control.sendall(message)

    def verdict(self, wait_s: float) -> dict | None:
        """The verdict, or None while there is none."""
        found = self._line(wait_s)
        self.busy = found is None
        return found

    def _line(self, wait_s: float):
        while b"\n" not in self._received:
            if not select.select([self.control], [], [], wait_s)[0]:
                return None
            try:
                got = self.control.recv(1 << 16)
            except ConnectionError:
                got = b""
            if not got:
                return {"verdict": "error", "reason": "the process that runs tests died"}
            self._received += got
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def stop(self) -> None:
        self.control.close()
        self.child.kill()
        self.child.wait()


def _forget() -> None:
    """Start from nothing; in a forked process the judges are the parent's."""
    global _idle, _free
    _idle = queue.SimpleQueue()
    _free = threading.BoundedSemaphore(os.cpu_count() or 1)  # more at once would pass their limits of wall time


_forget()
os.register_at_fork(after_in_child=_forget)


def turn() -> threading.BoundedSemaphore:
    """To be held while a sandbox runs: there are as many at once as there are cores."""
    return _free


@atexit.register
def _stop_all() -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            _idle.get_nowait().stop()


@contextlib.contextmanager
def _judge():
    """An idle judge, or a new one; given back for the next case unless it is still busy or broken."""
    try:
        judge = _idle.get_nowait()
    except queue.Empty:
        judge = Judge()
    try:
        yield judge
    except BaseException:  # an interrupted case would leave its verdict to the next one
        judge.stop()
        raise
    if judge.busy or judge.child.poll() is not None:
        judge.stop()
    else:
        _idle.put(judge)
