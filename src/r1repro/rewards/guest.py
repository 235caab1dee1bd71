"""What runs inside the sandbox beside an untrusted program; it imports nothing of this project.

    python -I -S -c <this text> CPU_S ADDRESS_BYTES DATA_BYTES FILE_BYTES PROCESSES UID CHANNEL READY

With CHANNEL -1 the program's text comes first on standard input, after a line with its length in bytes, and its own
input after that.  Else CHANNEL is a socket: one request a line, one answer a line, both Python literals.  A byte on
READY says that the sandbox stands; the program comes after it.  Whatever the program does to this module is its own
loss: an answer is only ever read as data (`r1repro.rewards.judge`).
"""

import posix
import resource
import sys

TYPES = (bool, type(None), str, bytes)


def confine(cpu_s, address_bytes, data_bytes, file_bytes, processes, uid):
    """Limits that no program can raise again, then the user of its own where the sandbox was made by root."""
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_AS: (address_bytes, address_bytes),
        resource.RLIMIT_DATA: (data_bytes, data_bytes),
        resource.RLIMIT_FSIZE: (file_bytes, file_bytes),
        resource.RLIMIT_NPROC: (processes, processes),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
    }
    for limit, (soft, hard) in limits.items():
        resource.setrlimit(limit, (soft, hard))
    if uid:
        posix.setgroups([])
        posix.setresgid(uid, uid, uid)
        posix.setresuid(uid, uid, uid)


def encode(value, objects, depth=0):
    """A value as nested literals: what is plain by its content, anything else by its number in ``objects``."""
    kind = type(value)
    if kind in TYPES:
        return value
    if isinstance(value, int):
        value = int.__int__(value)
        return value if abs(value) < 1 << 4096 else ("int", hex(value))
    if isinstance(value, float):
        value = float.__float__(value)
        return value if value - value == 0 else ("float", repr(value))
    if isinstance(value, complex):
        return ("complex", repr(value.real), repr(value.imag))
    if isinstance(value, str):
        return str.__str__(value)
    if depth < 200:
        if isinstance(value, list):
            return [encode(x, objects, depth + 1) for x in list.__iter__(value)]
        for base, name in ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
            if isinstance(value, base):
                return (name, [encode(x, objects, depth + 1) for x in base.__iter__(value)])
        if isinstance(value, dict):
            pairs = dict.items(value)
            return ("dict", [[encode(k, objects, depth + 1), encode(v, objects, depth + 1)] for k, v in pairs])
        if kind is range:
            return ("range", value.start, value.stop, value.step)
        if kind.__module__ in ("fractions", "decimal") and kind.__name__ in ("Fraction", "Decimal"):
            return (kind.__name__, str(value))
        if kind is type(sys):
            return ("module", value.__name__)
    objects.append(value)
    return ("object", len(objects) - 1, kind.__name__)


def decode(value, objects):
    """The inverse of the judge's `encode`."""
    if isinstance(value, list):
        return [decode(x, objects) for x in value]
    if not isinstance(value, tuple):
        return value
    name, given = value[0], value[1]
    if name == "object":
        return objects[given]
    if name == "dict":
        return {decode(k, objects): decode(v, objects) for k, v in given}
    if name == "int":
        return int(given, 16)
    if name in ("Fraction", "Decimal"):
        return getattr(__import__(name.lower() + "s" * (name == "Fraction")), name)(given)
    if name == "builtin":
        return getattr(__import__("builtins"), given)
    if name == "range":
        return range(*value[1:])
    if name == "complex":
        return complex(float(given), float(value[2]))
    kinds = {"tuple": tuple, "set": set, "frozenset": frozenset, "float": float, "iterator": iter}
    return kinds[name](decode(given, objects))


def module_of(text):
    """Run the program as the main module; `exit` and `quit` are there as in any script."""
    import _sitebuiltins
    import builtins

    builtins.exit, builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D"), _sitebuiltins.Quitter("quit", "Ctrl-D")
    module = type(sys)("__main__")
    module.__dict__.update(__builtins__=builtins, __file__="program.py")
    sys.modules["__main__"], sys.argv = module, ["program.py"]
    exec(compile(text, "program.py", "exec"), module.__dict__)
    return module


def answer(request, state):
    """One request: ("load", text, names), ("call", object, arguments, named), ("get", object, name), ("set", object,
    name, value), ("item", object, key) or ("iterate", object)."""
    objects, verb = state["objects"], request[0]
    if verb == "load":
        state["module"] = module_of(request[1])
        found = state["module"].__dict__
        return ["ok", [[name, encode(found[name], objects)] for name in request[2] if name in found]]
    it = objects[request[1]]
    if verb == "call":
        named = {name: decode(value, objects) for name, value in request[3]}
        value = it(*[decode(argument, objects) for argument in request[2]], **named)
    elif verb == "get":
        value = getattr(it, request[2])
    elif verb == "set":
        value = setattr(it, request[2], decode(request[3], objects))
    elif verb == "item":
        value = it[decode(request[2], objects)]
    else:
        value = list(it)
    return ["ok", encode(value, objects)]


def serve(channel):
    """Answer requests until the judge hangs up."""
    state, waiting = {"objects": []}, b""
    while True:
        while b"\n" not in waiting:
            got = posix.read(channel, 1 << 16)
            if not got:
                return
            waiting += got
        line, _, waiting = waiting.partition(b"\n")
        try:
            reply = ascii(answer(eval(line), state))
        except BaseException as error:  # of the program, for the judge to raise again
            kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
            try:
                told = str(error)[:200]
            except BaseException as strange:
                told = f"its message cannot be read: {type(strange).__name__}"
            reply = ascii(["raised", kinds, told])
        unsent = reply.encode() + b"\n"
        while unsent:
            unsent = unsent[posix.write(channel, unsent) :]


def first_bytes():
    """The program's text off standard input, and not one byte of what follows (it may open descriptor 0 itself)."""
    length, text = b"", b""
    while not length.endswith(b"\n"):
        length += posix.read(0, 1)
    while len(text) < int(length):
        text += posix.read(0, int(length) - len(text))
    return text


def main():
    *limits, channel, ready = map(int, sys.argv[1:])
    confine(*limits)
    sys.set_int_max_str_digits(0)
    posix.write(ready, b".")
    posix.close(ready)
    if channel < 0:
        module_of(first_bytes().decode())
    else:
        serve(channel)


if __name__ == "__main__":
    main()
