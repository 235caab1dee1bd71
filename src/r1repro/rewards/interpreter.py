"""A small, total part of Python, evaluated over its syntax tree: no sandbox is needed, because nothing can be reached.

What is there: functions of numbers, assignments, ``if``, ``for ... in range``, ``while``, ``return``, ``assert``,
arithmetic, comparisons, ``and``/``or``/``not``, the functions of `FUNCTIONS`.  No attribute, import, string, list or
name of Python's own can be spelled in it.  Every node costs a step and numbers have a size, so every program ends.
Functions are defined at the top and see their arguments alone: what one call does, no other call can know.
Real programs are judged by `rewards.code` in a sandbox; this is for the programs of the tiny world.
"""

import ast
import operator
import re
from collections.abc import Sequence

from r1repro.records import Question, Score
from r1repro.rewards.accuracy import final_answer

MAX_STEPS = 2000
"""Nodes that a program and its tests may evaluate."""

MAX_CHARS = 2000
MAX_NUMBER = 10**12
MAX_CALLS = 20
"""Calls within calls."""

_BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
FUNCTIONS = {"max": max, "min": min, "abs": abs}
"""The functions that a program may call beside its own."""

_WARNED = re.compile(r"\\|\b\d+[A-Za-z_]")
"""Of what Python's own parser warns on the terminal: escapes, and ``2if`` for ``2 if``."""


class Fault(Exception):
    """A program that is not of this language, goes wrong, or does not end; the message says which."""


class _Returned(Exception):
    def __init__(self, value):
        self.value = value


def judge(program: str, tests: str) -> dict:
    """The verdict on a program: {"verdict": ..., "reason": ...}; right if every assertion of ``tests`` holds.

    Tests that are no program, or without an assertion, are an error: by them nobody is right.

    >>> judge("def f(x): return 3 * x + 2", "assert f(4) == 14")["verdict"]
    'right'
    >>> judge("def f(x):\\n while True: x = x + 1", "assert f(4) == 14")
    {'verdict': 'wrong', 'reason': 'more than 2000 steps'}
    >>> judge("import os", "assert True")
    {'verdict': 'wrong', 'reason': 'Import is not part of the language'}
    """
    asserted = _parsed(tests)
    if not any(isinstance(statement, ast.Assert) for statement in asserted or ()):
        return {"verdict": "error", "reason": "tests without an assertion"}
    if len(program) > MAX_CHARS:
        return {"verdict": "unparsed", "reason": f"a program of more than {MAX_CHARS} characters"}
    written = _parsed(program)
    if written is None:
        return {"verdict": "unparsed", "reason": "no program"}
    machine = _Machine()
    try:
        machine.run(written, machine.names)
        machine.run(asserted, machine.names)
    except _Returned:
        return {"verdict": "wrong", "reason": "return outside a function"}
    except (Fault, RecursionError) as fault:
        return {"verdict": "wrong", "reason": str(fault) if isinstance(fault, Fault) else "nested too deep"}
    return {"verdict": "right", "reason": "every assertion holds"}


def _parsed(text: str) -> list[ast.stmt] | None:
    try:
        return None if _WARNED.search(text) else ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def accuracy(questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
    """1 for each output whose final answer is a program that passes its question's assertions, else 0.

    A question whose gold has no assertion scores nothing (None): that is no fault of the output.
    """
    scores = []
    for question, text in zip(questions, texts, strict=True):
        program = final_answer(text)
        verdict = "unparsed" if program is None else judge(program, question.gold)["verdict"]
        scores.append(Score(value=None if verdict == "error" else float(verdict == "right"), verdict=verdict))
    return scores


class _Machine:
    def __init__(self):
        self.names: dict = {}
        self.steps = self.depth = 0

    def run(self, body: Sequence[ast.stmt], names: dict) -> None:
        for statement in body:
            self._statement(statement, names)

    def _count(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Fault(f"more than {MAX_STEPS} steps")

    def _statement(self, node: ast.stmt, names: dict) -> None:
        self._count()
        match node:
            case ast.FunctionDef(name=name, args=ast.arguments(args=[*_], vararg=None, kwarg=None, kwonlyargs=[])):
                if names is not self.names:
                    raise Fault("a function within a function")
                if node.decorator_list or node.args.defaults or node.args.posonlyargs:
                    raise Fault("functions have plain arguments alone")
                self.names[name] = node
            case ast.Return(value=value) if value is not None:
                raise _Returned(self._value(value, names))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = self._value(value, names)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                names[name] = self._binary(op, self._name(name, names), self._value(value, names))
            case ast.If(test=test, body=body, orelse=orelse):
                self.run(body if self._value(test, names) else orelse, names)
            case ast.While(test=test, body=body, orelse=[]):
                while self._value(test, names):
                    self.run(body, names)
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=ends, keywords=[]), orelse=[]
            ) if "range" not in names | self.names:
                for number in self._range([self._value(end, names) for end in ends]):
                    self._count()
                    names[name] = number
                    self.run(node.body, names)
            case ast.Assert(test=test):
                if not self._value(test, names):
                    raise Fault("an assertion does not hold")
            case ast.Pass():
                pass
            case _:
                raise Fault(f"{type(node).__name__} is not part of the language")

    def _range(self, ends: list) -> range:
        if not 1 <= len(ends) <= 2:
            raise Fault("range takes one or two numbers")
        return range(*ends)

    def _value(self, node: ast.expr, names: dict):
        self._count()
        match node:
            case ast.Constant(value=value) if type(value) in (int, bool) and abs(value) <= MAX_NUMBER:
                return value
            case ast.Name(id=name):
                return self._name(name, names)
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(op, self._value(left, names), self._value(right, names))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._binary(ast.Sub(), 0, self._value(operand, names))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._value(operand, names)
            case ast.BoolOp(op=op, values=values):
                for part in values:
                    value = self._value(part, names)
                    if bool(value) == isinstance(op, ast.Or):
                        break
                return value
            case ast.Compare(left=left, ops=ops, comparators=others):
                value = self._value(left, names)
                for op, other in zip(ops, others, strict=True):
                    value, before = self._value(other, names), value
                    if type(op) not in _COMPARE:
                        raise Fault(f"{type(op).__name__} is not part of the language")
                    if not _COMPARE[type(op)](before, value):
                        return False
                return True
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._value(body if self._value(test, names) else orelse, names)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name, [self._value(a, names) for a in arguments], names)
        raise Fault(f"{type(node).__name__} is not part of the language")

    def _name(self, name: str, names: dict):
        value = names.get(name)
        if value is None or isinstance(value, ast.AST):
            raise Fault(f"no value called {name}")
        return value

    def _binary(self, op: ast.operator, left, right):
        if type(op) not in _BINARY:
            raise Fault(f"{type(op).__name__} is not part of the language")
        try:
            value = _BINARY[type(op)](left, right)
        except ZeroDivisionError as error:
            raise Fault("division by zero") from error
        if abs(value) > MAX_NUMBER:
            raise Fault(f"a number above {MAX_NUMBER}")
        return value

    def _call(self, name: str, arguments: list, names: dict):
        function = names.get(name, self.names.get(name))
        if isinstance(function, ast.FunctionDef):
            if len(arguments) != len(function.args.args):
                raise Fault(f"{name} takes {len(function.args.args)} numbers")
            if self.depth >= MAX_CALLS:
                raise Fault(f"more than {MAX_CALLS} calls within calls")
            self.depth += 1
            try:
                local = {a.arg: value for a, value in zip(function.args.args, arguments, strict=True)}
                self.run(function.body, local)
            except _Returned as returned:
                return returned.value
            finally:
                self.depth -= 1
            raise Fault(f"{name} returns nothing")
        if function is None and name in FUNCTIONS and len(arguments) >= (1 if name == "abs" else 2):
            if name == "abs" and len(arguments) > 1:
                raise Fault("abs takes one number")
            return FUNCTIONS[name](*arguments)
        raise Fault(f"no function called {name}")
