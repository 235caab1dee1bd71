"""A function that can be killed: it runs in a child process under limits of CPU time, wall time and memory.

Graders call computer algebra on whatever a model wrote, and some of that never ends.  Timeouts by signals fail outside
the main thread (so in notebooks' helper threads and under Ray) and cannot stop compiled code.  Here the parent only
writes a line of JSON, reads a line of JSON, and kills; the limit of CPU time is a timer of the child's own.
"""

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence

from r1repro.records import Refusal
from r1repro.rewards.combine import load

START_S = 120.0
"""Wall seconds in which a child must have imported its function (a cold disk can take most of a minute)."""

RENEW_CALLS = 20_000
"""Calls after which a child is replaced: caches of parsers grow (about 3 KB a call with math-verify)."""

OUT_OF_MEMORY = 77
"""Exit status by which a child says that it ran into its limit of memory."""

_WORKERS: "weakref.WeakSet[Worker | Pool]" = weakref.WeakSet()


class Worker:
    """`call(payload)` is the function's own reply, or `{"verdict": "timed_out" | "error", "reason": ...}`.

    The function is named by import path and takes and gives JSON objects.  One child serves all threads, in turn; it
    starts at the first call, is used again, is replaced when it dies, and ends with this process (where that is killed,
    at the end of its call).  A process forked from this one gets a child of its own.

    `cpu_s` is CPU time of one call, so a busy machine does not change a verdict; `wall_s` (default: five times that)
    stops a call that sleeps.  `memory_bytes` limits the address space, on Linux only.  A child that dies without
    having been stopped by a limit of time (killed from outside, out of memory, a crash) gets one more try, fresh.
    `modules` are imported before the first call, so that no call's limit pays for them.  Sets of texts have the same
    order in every child.

    Errors: `Refusal` when the function or one of the modules cannot be imported in the child.
    """

    def __init__(
        self,
        target: str,
        *,
        cpu_s: float = 2.0,
        wall_s: float | None = None,
        memory_bytes: int = 1 << 30,
        modules: Sequence[str] = (),
    ):
        self.target, self.cpu_s, self.memory_bytes, self.modules = target, cpu_s, memory_bytes, modules
        self.wall_s = 5 * cpu_s if wall_s is None else wall_s
        self._forget()
        _WORKERS.add(self)

    def map(self, payloads: Iterable[dict]) -> list[dict]:
        """The replies, in order."""
        return [self.call(payload) for payload in payloads]

    def call(self, payload: dict) -> dict:
        """The reply to one payload."""
        line = json.dumps(payload).encode() + b"\n"
        with self._lock:
            try:
                return self._ask(line) or self._ask(line) or self._died_twice()
            except BaseException:  # an interrupted call would leave its reply to the next one
                self._stop()
                raise

    def _ask(self, line: bytes) -> dict | None:
        """The reply, or None when the child died for no fault of the time."""
        if self._child is None or self._child.poll() is not None or self._calls >= RENEW_CALLS:
            self._start()
        self._calls += 1
        try:
            reply = self._exchange(line, self.wall_s)
        except TimeoutError:
            self._stop()
            return {"verdict": "timed_out", "reason": f"more than {self.wall_s:g} s on the clock"}
        if reply is not None:
            return json.loads(reply)
        self._status = self._stop(patience_s=5)
        if self._status == -signal.SIGPROF:
            return {"verdict": "timed_out", "reason": f"more than {self.cpu_s:g} s of CPU time"}
        return None

    def _died_twice(self) -> dict:
        memory = f"more than {self.memory_bytes >> 20} MiB of memory"
        reason = memory if self._status == OUT_OF_MEMORY else f"exit status {self._status}"
        return {"verdict": "error", "reason": f"the grader's process died twice: {reason}"}

    def _start(self) -> None:
        self._stop()
        self._calls = 0
        limits = [str(self.cpu_s), str(self.memory_bytes)]
        search = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "r1repro.rewards.worker", *limits, self.target, *self.modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # an interrupt typed in the terminal is the parent's to handle
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": search},
        )
        self._finalizer = weakref.finalize(self, _end, self._child)
        for pipe in (self._child.stdin, self._child.stdout):
            os.set_blocking(pipe.fileno(), False)
        try:
            refused = json.loads(self._exchange(b"", START_S) or b'"it died at once"')
        except TimeoutError:
            refused = f"not ready after {START_S:g} s"
        if refused:
            raise Refusal(f"the grader's process for {self.target!r} did not start: {refused}")

    def _exchange(self, unsent: bytes, limit_s: float) -> bytes | None:
        """Send a line and read a line; None at the end of the pipe, TimeoutError at the limit."""
        deadline, received = time.monotonic() + limit_s, b""
        to_child, from_child = self._child.stdin.fileno(), self._child.stdout.fileno()
        while not received.endswith(b"\n"):
            poll = select.poll()
            poll.register(from_child, select.POLLIN)
            if unsent:
                poll.register(to_child, select.POLLOUT)
            events = dict(poll.poll(max(0, 1000 * (deadline - time.monotonic()))))
            if not events:
                raise TimeoutError
            if from_child in events:
                chunk = os.read(from_child, 1 << 16)
                if not chunk:
                    return None
                received += chunk
            elif events[to_child] & select.POLLOUT:
                try:
                    unsent = unsent[os.write(to_child, unsent[: 1 << 16]) :]
                except BrokenPipeError:
                    return None
            else:
                return None
        return received

    def _stop(self, patience_s: float = 0) -> int | None:
        """End the child, if there is one; its exit status (minus the number of the signal that ended it)."""
        child, self._child = self._child, None
        if child is None:
            return None
        self._finalizer.detach()
        return _end(child, patience_s)

    def _forget(self) -> None:
        """Start from nothing; in a forked process the child and the state of the lock are the parent's."""
        child = getattr(self, "_child", None)
        if child is not None:
            self._finalizer.detach()
            child.stdin.close()
            child.stdout.close()
            child.returncode = 0  # not ours to wait for
        self._child, self._finalizer, self._lock = None, None, threading.Lock()


class Pool:
    """Workers of one function for as many threads as call at the same time, at most one a core."""

    def __init__(self, target: str, **limits):
        self._make = lambda: Worker(target, **limits)
        self._forget()
        _WORKERS.add(self)

    def call(self, payload: dict) -> dict:
        """The reply to one payload (`Worker.call`), from a worker that no other thread has."""
        with self._free:
            try:
                worker = self._idle.pop()
            except IndexError:
                worker = self._make()
            try:
                return worker.call(payload)
            finally:
                self._idle.append(worker)

    def _forget(self) -> None:
        self._idle: list[Worker] = []
        self._free = threading.BoundedSemaphore(os.cpu_count() or 1)


def _end(child: subprocess.Popen, patience_s: float = 0) -> int:
    child.stdin.close()
    child.stdout.close()
    try:
        return child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _forget_all() -> None:
    for worker in list(_WORKERS):
        worker._forget()


os.register_at_fork(after_in_child=_forget_all)


def serve(cpu_s: float, memory_bytes: int, target: str, *modules: str) -> None:
    """The child's life: a line that says what could not be imported (or ""), then a reply to each line of JSON."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which finishes its rollout and needs grades
    os.dup2(2, 1)  # what the function prints must not be taken for a reply
    try:
        for module in modules:
            importlib.import_module(module)
        (function,) = load([target])
    except (ImportError, Refusal) as error:
        replies.write(json.dumps(str(error)).encode() + b"\n")
        return
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    replies.write(b'""\n')
    for request in requests:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # counts CPU time, in compiled code too; at 0 it ends the process
        try:
            reply = function(json.loads(request))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # a counted verdict, with its reason
            reply = {"verdict": "error", "reason": f"{type(error).__name__}: {error}"[:300]}
        line = json.dumps(reply).encode() + b"\n"
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(line)


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
