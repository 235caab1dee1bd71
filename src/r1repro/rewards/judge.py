"""What compares, in a sandbox of its own: it holds the tests, and asks the program for values over a socket.

    python -I -S -c <this text> UID CONTROL CPU_S MEMORY_BYTES

A program that shares a process with its tests can pass them all: by an `__eq__` that is always true, by another
`assert`, by leaving with status 0, by writing the verdict.  Here a test's calls go to another process, in another
sandbox, and come back as plain data or as the number of an object that stays there.  Plain data is compared here.
An object is neither equal nor unequal to anything.

This process forks a child for each case; the child's verdict is one line of JSON on CONTROL.  It imports nothing of
this project.
"""

import ast
import builtins
import importlib
import json
import os
import resource
import socket
import sys
from decimal import Decimal
from fractions import Fraction

ANSWER_BYTES = 16 << 20


class Gone(BaseException):
    """The program is gone, or answers what is no data: no `except` of a test may go on after that."""


class Program:
    """The other end of the socket: `ask` sends a request of `r1repro.rewards.guest` and gives the decoded answer."""

    def __init__(self, channel):
        self.channel, self.waiting, self.calls, self.gone = channel, b"", 0, ""

    def ask(self, *request):
        if self.gone:
            raise Gone(self.gone)
        try:
            self.channel.sendall(ascii(request).encode() + b"\n")
            while b"\n" not in self.waiting:
                got = self.channel.recv(1 << 16)
                if not got:
                    raise Gone("the program ended before its tests did")
                self.waiting += got
                if len(self.waiting) > ANSWER_BYTES:
                    raise Gone(f"an answer of more than {ANSWER_BYTES} bytes")
            line, _, self.waiting = self.waiting.partition(b"\n")
            state, given, *told = ast.literal_eval(line.decode("ascii"))
            if state == "ok":
                return self.decode(given)
        except Gone as gone:
            self.gone = str(gone)
            raise
        except OSError:
            self.gone = "the program ended before its tests did"
            raise Gone(self.gone) from None
        except Exception as error:
            self.gone = f"an answer that is no data ({type(error).__name__})"
            raise Gone(self.gone) from None
        raise self.raised(given, told)

    def raised(self, kinds, told):
        """The exception of the program as the nearest built-in one, never one that ends a process."""
        kind = getattr(builtins, kinds[0], None) if kinds else None
        plain = isinstance(kind, type) and issubclass(kind, Exception)
        message = " ".join(str(part) for part in told)
        try:
            error = kind(message) if plain else RuntimeError(f"{kinds[:1]} {message}")
        except Exception as strange:  # UnicodeDecodeError and the like want more arguments
            error = RuntimeError(f"{kinds[:1]} {message} ({type(strange).__name__})")
        error.of_program = kinds[0] if kinds else "an exception"
        return error

    def decode(self, value):
        if isinstance(value, list):
            return [self.decode(x) for x in value]
        if not isinstance(value, tuple):
            return value
        name, given = value[0], value[1]
        if name == "object":
            return Handle(self, given, value[2])
        if name == "dict":
            return {self.decode(k): self.decode(v) for k, v in given}
        if name == "module":
            if given.partition(".")[0] not in sys.stdlib_module_names:
                return None
            return importlib.import_module(given)
        if name == "int":
            return int(given, 16)
        if name == "range":
            return range(*value[1:])
        if name == "complex":
            return complex(float(given), float(value[2]))
        kinds = {"tuple": tuple, "set": set, "frozenset": frozenset, "float": float}
        return (kinds | {"Fraction": Fraction, "Decimal": Decimal})[name](self.decode(given))


class Handle:
    """An object of the program's, which stays there: to be called, read, written, iterated, indexed, passed back."""

    __slots__ = ("_kind", "_number", "_program")

    def __init__(self, program, number, kind):
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", int(number))
        object.__setattr__(self, "_kind", str(kind))

    def __call__(self, *arguments, **named):
        self._program.calls += 1
        return self._program.ask(
            "call", self._number, [encode(a) for a in arguments], [(name, encode(a)) for name, a in named.items()]
        )

    def __getattr__(self, name):
        return self._program.ask("get", self._number, name)

    def __setattr__(self, name, value):
        self._program.ask("set", self._number, name, encode(value))

    def __getitem__(self, key):
        return self._program.ask("item", self._number, encode(key))

    def __iter__(self):
        return iter(self._program.ask("iterate", self._number))

    def _no(self, *_):
        raise TypeError(f"an object of the program's own type {self._kind!r} is compared, and may say what it likes")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __contains__ = __hash__ = _no
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __float__ = __int__ = __index__ = __abs__ = _no


def encode(value):
    """A test's value as nested literals, for the guest's `decode`; raises TypeError for what is no data."""
    kind = type(value)
    if kind is Handle:
        return ("object", value._number)
    if kind in (bool, type(None), str, bytes):
        return value
    if kind is int:
        return value if abs(value) < 1 << 4096 else ("int", hex(value))
    if kind is float:
        return value if value - value == 0 else ("float", repr(value))
    if kind is complex:
        return ("complex", repr(value.real), repr(value.imag))
    if kind is list:
        return [encode(x) for x in value]
    if kind in (tuple, set, frozenset):
        return (kind.__name__, [encode(x) for x in value])
    if isinstance(value, dict):
        return ("dict", [[encode(k), encode(v)] for k, v in value.items()])
    if kind is range:
        return ("range", value.start, value.stop, value.step)
    if kind in (Fraction, Decimal):
        return (kind.__name__, str(value))
    if getattr(value, "__module__", "") == "builtins" and getattr(builtins, getattr(value, "__name__", ""), 0) is value:
        return ("builtin", value.__name__)
    if hasattr(value, "__next__"):
        return ("iterator", [encode(x) for x in value])
    raise TypeError(f"a test hands over a {kind.__name__}, which is no data")


def wanted(tree):
    """The names that a test takes from the program.

    Never one of Python's own (a program could bring its own `len`), unless the test calls nothing else: then the
    function under test has such a name.
    """
    used, bound, called = set(), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
    free = {name for name in used - bound if not hasattr(builtins, name)}
    return sorted(free or {name for name in called if hasattr(builtins, name)})


def judge(tests, text, channel):
    """The verdict on a program by a test script: {"verdict", "reason"}; verdict "gone" where the program was lost."""
    try:
        tree = ast.parse(tests, "tests")
        code = compile(tree, "tests", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"verdict": "error", "reason": f"the tests cannot be read: {error}"[:200]}
    program = Program(channel)
    try:
        names = wanted(tree)
        found = {name: value for name, value in program.ask("load", text, names) if name in names}
    except Gone as gone:
        return {"verdict": "gone", "reason": str(gone)}
    except Exception as error:
        kind = getattr(error, "of_program", type(error).__name__)
        return {"verdict": "wrong", "reason": f"{kind} when the program is loaded: {error}"[:200]}
    try:
        exec(code, {"__name__": "tests", "__builtins__": builtins, **found})
    except Gone as gone:
        return {"verdict": "gone", "reason": str(gone)}
    except BaseException as error:
        where = error.__traceback__
        lines = []
        while where:
            lines += [where.tb_lineno] if where.tb_frame.f_code.co_filename == "tests" else []
            where = where.tb_next
        line = f"line {lines[-1]} of the tests: " if lines else ""
        if isinstance(error, AssertionError) and not hasattr(error, "of_program"):
            return {"verdict": "wrong", "reason": f"{line}not as it should be"}
        told = f"{getattr(error, 'of_program', type(error).__name__)}: {error}"
        return {"verdict": "wrong", "reason": f"{line}{told}"[:200]}
    if program.gone:
        return {"verdict": "gone", "reason": program.gone}
    if not program.calls:
        return {"verdict": "error", "reason": "the tests call nothing of the program"}
    return {"verdict": "right", "reason": "all tests pass"}


def main():
    uid, control_fd, cpu_s, memory_bytes = map(int, sys.argv[1:])
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    sys.set_int_max_str_digits(0)
    control = socket.socket(fileno=control_fd)
    control.sendall(b'"ready"\n')
    while True:
        head, fds, _, _ = socket.recv_fds(control, 16, 1)
        if not head:
            return
        while len(head) < 16:
            head += control.recv(16 - len(head))
        message = b""
        while len(message) < int(head):
            message += control.recv(min(1 << 20, int(head) - len(message)))
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            case = json.loads(message)
            try:
                verdict = judge(case["tests"], case["program"], socket.socket(fileno=fds[0]))
            except BaseException as error:
                verdict = {"verdict": "wrong", "reason": f"the comparison failed: {type(error).__name__}"}
            control.sendall(json.dumps(verdict).encode() + b"\n")
            os._exit(0)
        os.close(fds[0])
        status = os.waitpid(child, 0)[1]
        if status:
            reason = f"comparing took more than {cpu_s} s of CPU time, or died (status {status})"
            control.sendall(json.dumps({"verdict": "timed_out", "reason": reason}).encode() + b"\n")


if __name__ == "__main__":
    main()
