"""What a program may try against the sandbox and the tests: `make test-sandbox` runs it, and needs bubblewrap.

Where an attack is for something outside (a secret, a socket, a process), the test looks outside whether it got there.
Where it is for the verdict, the verdict must not be "right".
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from r1repro.rewards import code, sandbox
from r1repro.rewards.sandbox import Limits

SECRET = "a-secret-4711"
QUICK = Limits(cpu_s=1, wall_s=2.0)


@pytest.fixture(autouse=True)
def isolated_and_clean():
    """Every attack runs isolated, ends within the limits, and leaves no process behind."""
    assert sandbox.isolation() in ("root", "user")
    before = _sandboxes()
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 15
    for _ in range(50):
        if len(_sandboxes()) <= max(len(before), 2 * (os.cpu_count() or 1) + 2):  # judges wait for the next case
            return
        time.sleep(0.1)
    raise AssertionError(f"processes left behind: {_sandboxes()}")


def _sandboxes() -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line[:120] for line in found if "bwrap" in line.split(" ")[0] or "program.py" in line]


def told(body: str, limits: Limits = QUICK) -> str:
    """What a program prints that runs ``body``, an exception of it included."""
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    text = f"import os, sys\ndef attack():\n{lines}\ntry:\n    print('RESULT', attack())\nexcept BaseException as e:\n    print('RAISED', type(e).__name__, e)\n"
    return sandbox.run(text, limits=limits).output.decode(errors="replace")


def verdict(program: str, tests: str = "assert f(1) == 2\nassert f(3) == 4", limits: Limits = QUICK) -> str:
    return code.grade(program, tests, limits)["verdict"]


# --- what is outside


def test_the_network_has_no_way_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        port = server.getsockname()[1]
        said = told(f"import socket\nreturn socket.create_connection(('127.0.0.1', {port}), timeout=1)")
        assert said.startswith("RAISED")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("address", ["192.0.2.1", "192.168.0.1", "10.0.0.1"])
def test_no_packet_can_be_sent(address):
    said = told(
        f"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nreturn s.sendto(b'x', ('{address}', 53))"
    )
    assert said.startswith("RAISED")


def test_only_loopback_exists():
    assert told("import socket\nreturn [name for _, name in socket.if_nameindex()]").strip() in (
        "RESULT ['lo']", "RESULT []",
    )  # fmt: skip


def test_an_abstract_socket_of_the_host_is_not_there():
    name = f"\0r1repro-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        said = told(f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({name!r})\nreturn 'in'")
        assert said.startswith("RAISED")


def test_the_home_directory_is_not_there(tmp_path, monkeypatch):
    secret = Path.home() / f".r1repro-secret-{os.getpid()}"
    secret.write_text(SECRET)
    try:
        said = told(f"return open({str(secret)!r}).read()")
        assert said.startswith("RAISED") and SECRET not in said
        assert SECRET not in told(
            f"return [os.path.join(a, f) for a, _, c in os.walk({str(Path.home())!r}) for f in c if 'secret' in f]"
        )
    finally:
        secret.unlink()


def test_a_file_in_the_hosts_tmp_is_not_there(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    assert SECRET not in told(f"return open({str(tmp_path / 'secret')!r}).read()")


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("R1REPRO_SECRET", SECRET)
    assert SECRET not in told("return dict(os.environ)")


def test_no_process_shows_an_environment(monkeypatch):
    monkeypatch.setenv("R1REPRO_SECRET", SECRET)
    said = told(
        "found = []\nfor p in os.listdir('/proc'):\n    if p.isdigit():\n        try: found.append(open(f'/proc/{p}/environ').read())\n"
        "        except OSError as e: found.append(str(e))\nreturn found"
    )
    assert SECRET not in said and "RESULT" in said


def test_only_its_own_processes_are_seen():
    said = told("return sorted(int(p) for p in os.listdir('/proc') if p.isdigit())")
    assert said.startswith("RESULT") and len(said.split(",")) <= 3


def test_this_projects_files_are_not_there():
    assert told(f"return os.listdir({str(Path(__file__).parent)!r})").startswith("RAISED")
    assert told("import r1repro").startswith("RAISED ModuleNotFoundError")


@pytest.mark.parametrize("place", ["/etc", "/var", "/home", "/run", "/sys", "/boot", "/mnt", "/opt", "/srv"])
def test_the_rest_of_the_system_is_not_there(place):
    said = told(f"return sorted(os.listdir('{place}'))")
    assert said.startswith("RAISED") or said.strip() in ("RESULT []", "RESULT ['ld.so.cache']")


@pytest.mark.parametrize(
    "place", ["/", "/usr", "/usr/bin", "/etc", "/proc/sys/kernel", "/dev", "/bin", "PREFIX", "LIBRARY"]
)
def test_nothing_can_be_written_outside_of_tmp(place):
    place = {"PREFIX": "{sys.prefix}", "LIBRARY": "{os.path.dirname(os.__file__)}"}.get(place, place)
    said = told(f"path = f'{place}/r1repro-{os.getpid()}'\nopen(path, 'w').write('x')\nreturn 'written'")
    assert "written" not in said
    assert not Path("/usr", f"r1repro-{os.getpid()}").exists()


def test_a_file_of_the_library_cannot_be_changed():
    assert told("import random\nopen(random.__file__, 'a').write('# x')\nreturn 'written'").startswith("RAISED")


def test_links_lead_nowhere(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    said = told(f"os.symlink({str(tmp_path / 'secret')!r}, '/tmp/link')\nreturn open('/tmp/link').read()")
    assert SECRET not in said
    assert "linked" not in told("os.link('/usr/bin/env', '/tmp/env')\nreturn 'linked'")


def test_a_program_leaves_nothing_to_the_next():
    told("open('/tmp/left', 'w').write('x')\nopen('/dev/shm/left', 'w').write('x')")
    assert told("return os.listdir('/tmp'), os.listdir('/dev/shm')").strip() == "RESULT ([], [])"


@pytest.mark.parametrize("device", ["/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse"])
def test_devices_are_not_there(device):
    assert told(f"return open('{device}', 'rb').read(1)").startswith("RAISED")


def test_a_device_cannot_be_made():
    said = told("import stat\nos.mknod('/tmp/disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0))\nreturn 'made'")
    assert said.startswith("RAISED")


# --- rights


@pytest.mark.parametrize(
    "attempt",
    [
        "os.setuid(0)",
        "os.setresuid(0, 0, 0)",
        "os.setgroups([0])",
        "os.chroot('/tmp')",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "os.nice(-5)",
        "__import__('time').clock_settime(0, 0)",
        "__import__('socket').sethostname('mine')",
        "__import__('resource').setrlimit(7, (4096, 4096))",
        "__import__('resource').setrlimit(0, (99, 99))",
        "open('/proc/sys/kernel/hostname', 'w').write('mine')",
        "open('/proc/sysrq-trigger', 'w').write('b')",
        "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    ],
)
def test_no_right_can_be_gained(attempt):
    assert told(f"{attempt}\nreturn 'GAINED'").startswith("RAISED")


@pytest.mark.parametrize(
    "call", ["mount(b'none', b'/tmp', b'tmpfs', 0, 0)", "umount2(b'/usr', 2)", "pivot_root(b'/', b'/tmp')", "reboot(0)"]
)
def test_no_file_system_can_be_mounted(call):
    name, arguments = call.split("(", 1)
    said = told(f"import ctypes\nlibc = ctypes.CDLL(None)\nreturn libc.{name}({arguments}")
    assert said.startswith("RAISED") or said.strip() == "RESULT -1"


def test_a_program_of_root_runs_as_nobody_in_particular():
    said = told("return os.getresuid(), os.getgroups(), open('/proc/self/status').read()")
    assert "(0, 0, 0)" not in said and "CapEff:\\t0000000000000000" in said and "NoNewPrivs:\\t1" in said


def test_two_programs_have_different_users():
    if sandbox.isolation() == "root":
        assert told("return os.getuid()") != told("return os.getuid()")


# --- processes


def test_a_fork_bomb_is_contained():
    began = time.monotonic()
    ended = sandbox.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n", limits=QUICK)
    assert ended.stopped and time.monotonic() - began < 10


def test_no_more_processes_than_the_limit():
    said = told(
        "made = 0\nimport time\ntry:\n    while made < 200:\n        if not os.fork():\n            time.sleep(5)\n            os._exit(0)\n        made += 1\n"
        "except OSError:\n    pass\nreturn made"
    )
    assert 0 < int(said.split()[1]) < Limits().processes


def test_a_bomb_of_threads_is_contained():
    said = told(
        "import threading, time\nfor i in range(500):\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nreturn 'all'"
    )
    assert "all" not in said


def test_a_daemon_dies_with_the_sandbox():
    mark = f"r1repro-daemon-{os.getpid()}"
    program = f"""
import os, time
def f(x):
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execv("/usr/bin/env", ["{mark}", "sleep", "60"])
        os._exit(0)
    return x + 1
"""
    verdict(program)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    time.sleep(0.3)
    assert "sleep 60" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("target", ["os.getppid()", "1", "-1", "0"])
def test_killing_others_kills_only_itself(target):
    guard = subprocess.Popen(["sleep", "30"])
    program = f"import os\ndef f(x):\n    os.kill({target}, 9)\n    return x + 2\n"
    assert verdict(program) == "wrong"
    assert guard.poll() is None
    guard.kill()
    guard.wait()
    assert verdict("def f(x): return x + 1") == "right"


def test_a_process_outside_cannot_be_signalled():
    guard = subprocess.Popen(["sleep", "30"])
    told(f"os.kill({guard.pid}, 9)")
    assert guard.poll() is None
    guard.kill()
    guard.wait()


@pytest.mark.parametrize("pid", ["1", "os.getppid()"])
def test_the_parent_cannot_be_traced_or_read(pid):
    said = told(f"import ctypes\nreturn ctypes.CDLL(None).ptrace(16, {pid}, 0, 0)")
    traced = said.strip() == "RESULT 0"  # without root the sandbox's own first process has the same user
    assert not traced or sandbox.isolation() == "user"
    assert (
        verdict(f"import os\ndef f(x):\n    open(f'/proc/{{{pid}}}/mem', 'r+b').write(b'x')\n    return 0") == "wrong"
    )


def test_stopping_itself_ends_at_the_clock():
    assert verdict("import os\ndef f(x):\n    os.kill(os.getpid(), 19)\n    return x + 1") == "timed_out"


# --- amounts


def test_a_large_allocation_fails():
    assert told("return len(bytearray(1 << 32))").startswith("RAISED MemoryError")


def test_memory_of_many_processes_is_counted_together():
    program = "import os, time\nfor i in range(8):\n    if not os.fork():\n        x = bytearray(200 << 20)\n        time.sleep(9)\ntime.sleep(9)\n"
    assert "memory" in sandbox.run(program, limits=Limits(wall_s=8.0)).stopped


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_the_disk_cannot_be_filled(place):
    said = told(
        f"n = 0\ntry:\n    while True:\n        open(f'{place}/{{n}}', 'wb').write(bytes(1 << 20))\n        n += 1\nexcept OSError as e:\n    return n, e.strerror",
        Limits(),
    )
    assert said.startswith("RESULT") and int(said.split("(")[1].split(",")[0]) <= Limits().tmp_bytes >> 20


def test_a_large_file_cannot_be_made():
    said = told(
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nf = open('/tmp/x', 'wb')\nf.truncate(1 << 33)\nreturn 'made'"
    )
    assert said.startswith("RAISED")


def test_a_flood_of_output_is_stopped():
    ended = sandbox.run("while True: print('x' * 100000)", limits=QUICK)
    assert "output" in ended.stopped and len(ended.output) <= QUICK.output_bytes + (1 << 16)


def test_a_flood_of_errors_goes_nowhere():
    assert (
        verdict(
            "import sys\ndef f(x):\n    sys.stderr.write('x' * (1 << 26))\n    print('y' * (1 << 26))\n    return x + 1",
            limits=Limits(),
        )
        == "right"
    )


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time\n    time.sleep(99)",
        "import re\n    re.match('(a+)+$', 'a' * 60 + 'b')",
        "return 7 ** 7 ** 9",
        "import signal\n    for s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n    while True: pass",
        "import itertools\n    return itertools.count()",
        "class E(Exception):\n        def __str__(self):\n            while True: pass\n    raise E()",
        "class L(list):\n        def __iter__(self):\n            while True: pass\n    return iter(L())",
        "import threading\n    threading.Event().wait()",
        "input(); open('/dev/zero').read()",
    ],
)  # fmt: skip
def test_what_does_not_end_is_stopped(body):
    began = time.monotonic()
    assert verdict(f"def f(x):\n    {body}\n", "assert list(f(1)) == 2", Limits(cpu_s=1, wall_s=2.0)) != "right"
    assert time.monotonic() - began < 5


def test_a_loop_when_it_is_loaded_is_stopped():
    assert verdict("while True: pass\ndef f(x): return x + 1") == "timed_out"


@pytest.mark.parametrize("value", ["'x' * (1 << 27)", "[0] * 10 ** 7", "10 ** 10 ** 6", "list(range(10 ** 6)) * 9"])
def test_a_huge_answer_is_wrong(value):
    assert verdict(f"def f(x): return {value}", limits=Limits()) in ("wrong", "timed_out")


def test_a_deep_answer_is_wrong():
    assert verdict("def f(x):\n    a = []\n    for _ in range(10 ** 5): a = [a]\n    return a") == "wrong"
    assert verdict("def f(x):\n    a = []\n    a.append(a)\n    return a") == "wrong"


def test_endless_recursion_and_a_crash_are_wrong():
    assert verdict("def f(x): return f(x)") == "wrong"
    assert verdict("import ctypes\ndef f(x): return ctypes.string_at(0)") == "wrong"


# --- the verdict


@pytest.mark.parametrize(
    "returned",
    [
        "E()", "[E()]", "(E(),)", "{1: E()}", "I(7)", "F(7)", "S('7')", "L([7])", "D({7: 7})", "T((7,))", "lambda: 2",
        "E", "type('X', (), {'__eq__': lambda s, o: True, '__class__': int})()",
        "type('M', (type,), {'__eq__': lambda s, o: True, '__hash__': type.__hash__})('C', (), {})",
    ],
)  # fmt: skip
def test_an_object_that_is_equal_to_everything_is_not(returned):
    program = """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __hash__(self): return 1
    def __bool__(self): return True
    def __abs__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __sub__
class E(Same): pass
class I(Same, int): __hash__ = int.__hash__
class F(Same, float): __hash__ = float.__hash__
class S(Same, str): __hash__ = str.__hash__
class L(Same, list): pass
class D(Same, dict): pass
class T(Same, tuple): __hash__ = tuple.__hash__
"""
    for tests in ("assert f(1) == 2", "assert 2 == f(1)", "assert f(1) != 3 and f(1) == 2", "assert f(1) in [2]",
                  "assert abs(f(1) - 2) < 1e-6", "assert not f(1) != 2", "assert [f(1)] == [2]", "assert sorted([f(1)]) == [2]"):  # fmt: skip
        assert verdict(f"{program}\ndef f(x): return {returned}", tests) == "wrong", tests


@pytest.mark.parametrize("returned", ["object()", "lambda: 2", "E", "E()", "iter([])", "f", "print"])
def test_an_object_is_not_unequal_to_anything_either(returned):
    program = f"class E:\n    pass\ndef f(x): return {returned}"
    for tests in ("assert f(1) != 3", "assert f(1)", "assert f(1) not in [3]", "assert not f(1) == 3"):
        assert verdict(program, tests) == "wrong", tests


@pytest.mark.parametrize(
    "trick",
    [
        "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})",
        "import builtins\nbuiltins.len = builtins.abs = lambda *a: 0\nbuiltins.all = builtins.any = lambda *a: True",
        "def assert_(*a): pass\ndef check(*a): pass\ndef len(*a): return 0\ndef abs(*a): return 0\ndef isinstance(*a): return True\n"
        "def sorted(*a): return 0\ndef all(*a): return True",
        "import sys\nsys.settrace(lambda *a: None)\nsys.exit = lambda *a: None",
        "import sys\nclass Fake:\n    def __getattr__(self, n): return lambda *a, **k: True\nfor n in list(sys.modules): sys.modules[n] = Fake()",
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals['judge'] = frame.f_globals['encode'] = lambda *a: 2\n    frame = frame.f_back",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'verdict' in o: o['verdict'] = 'right'",
        "import unittest, doctest\nunittest.TestCase.assertEqual = lambda *a: None",
        "import __main__\n__main__.check = lambda *a: None",
        "import operator\noperator.eq = lambda *a: True",
        "__builtins__ = {}\nassert_ = None",
    ],
)  # fmt: skip
def test_nothing_that_a_program_overwrites_reaches_the_tests(trick):
    program = f"{trick}\ndef f(x):\n    return 7\n"
    for tests in ("assert f(1) == 2", "def check(candidate):\n    assert abs(candidate(1) - 2) < 1e-6\ncheck(f)",
                  "assert len([f(1)]) == 1 and sorted([f(1)]) == [2]", "assert all(f(i) == i + 1 for i in range(3))"):  # fmt: skip
        assert verdict(program, tests) != "right", tests


@pytest.mark.parametrize(
    "way",
    ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit", "exit()", "quit(0)",
     "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)", "import os\nos.execv('/usr/bin/true', ['true'])",
     "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "raise KeyboardInterrupt", "raise GeneratorExit"],
)  # fmt: skip
def test_leaving_early_with_status_0_is_wrong(way):
    assert verdict(f"def f(x): return x + 1\n{way}\n") == "wrong"
    inside = "\n".join("    " + line for line in way.splitlines())
    assert verdict(f"def f(x):\n{inside}\n") == "wrong"


def test_a_verdict_cannot_be_written():
    forged = '{"verdict": "right", "reason": "all tests pass"}'
    program = f"""
import os
def f(x):
    for fd in range(64):
        for text in ({forged!r}, "['ok', 2]", '"ready"'):
            try: os.write(fd, (text + "\\n").encode())
            except OSError: pass
    return 7
"""
    assert verdict(program, "assert f(1) == 5\nassert f(3) == 4") != "right"
    assert verdict(program, "assert f(1) == f(2) == 9") != "right"


@pytest.mark.parametrize(
    "line",
    ["['ok', ('object', 0, 'x')]", "['ok', ('module', 'os')]", "['ok', ('range', 1)]", "['raised', 5, 5]", "__import__('os')",
     "['ok', ('Decimal', 'x')]", "['ok', ('tuple', 5)]", "[]", "7", "{'ok': 2}", "['ok', ('dict', [[[], 1]])]", "(" * 5000,
     "['ok', ('object', -1, 'x')]", "['raised', ['SystemExit'], 'x']", "['raised', ['AssertionError'], 'x']", "\\xff\\xfe"],
)  # fmt: skip
def test_an_answer_that_is_no_answer_is_wrong(line):
    program = f"""
import os
def f(x):
    for fd in range(3, 64):
        try: os.write(fd, b"{line}" + b"\\n")
        except OSError: pass
    return 7
"""
    for tests in (
        "assert f(1) == 2",
        "try:\n    assert f(1) == 2\nexcept Exception:\n    raise",
        "assert f(1) == 2 or f(1) == 3",
    ):
        assert verdict(program, tests) != "right"


def test_a_test_that_forgives_everything_still_wants_the_program():
    forgiving = "try:\n    f(1)\nexcept BaseException:\n    pass"
    assert verdict("import os\ndef f(x): os._exit(0)", forgiving) == "wrong"
    assert verdict("def f(x): return 1", "x = 1") == "error"


def test_the_tests_are_not_to_be_found():
    program = f"""
import gc, os, sys
def f(x):
    seen = [open("/proc/self/cmdline", "rb").read().decode(), str(dict(os.environ)), str(sys.argv)]
    seen += [o for o in gc.get_objects() if isinstance(o, str)] + [str(c.co_consts) for c in gc.get_objects() if hasattr(c, "co_consts")]
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals)]
        frame = frame.f_back
    for name in os.listdir("/proc/self/fd"):
        try: seen.append(os.readlink("/proc/self/fd/" + name))
        except OSError: pass
    return any("{SECRET[:8]}" + "{SECRET[8:]}" in text for text in seen)
"""
    assert verdict(program, f"assert f(1) is False, '{SECRET}'\nassert f(2) is False", Limits()) == "right"


def test_answers_given_in_advance_are_not_taken():
    """Lines written before they are asked for: the second test would find the first one's forged answer."""
    program = """
import os
def f(x):
    for fd in range(3, 64):
        try: os.write(fd, b"['ok', 2]\\n['ok', 4]\\n")
        except OSError: pass
    return 0
"""
    assert verdict(program, "assert f(1) == 3") == "wrong"


def test_exceptions_of_the_program_do_not_pass_for_those_of_the_tests():
    wanted = (
        "try:\n    f(-1)\n    raise RuntimeError('nothing was raised')\nexcept ValueError:\n    pass\nassert f(1) == 2"
    )
    assert verdict("def f(x):\n    if x < 0: raise ValueError('x')\n    return x + 1", wanted) == "right"
    assert verdict("def f(x):\n    if x < 0: raise KeyError('x')\n    return x + 1", wanted) == "wrong"


# --- many at once, and without isolation


def test_many_attacks_at_once_and_the_right_ones_among_them():
    good = ("def f(x): return x + 1", "assert f(1) == 2")
    bad = [("while True: pass", "assert f(1) == 2"), ("import os\nos._exit(0)", "assert f(1) == 2"),
           ("def f(x): return [0] * 10 ** 9", "assert f(1) == 2"), ("def f(x): raise SystemExit", "assert f(1) == 2")]  # fmt: skip
    cases = [case for wrong in bad for case in (good, wrong)] * 2
    verdicts = [v["verdict"] for v in code.grade_many(cases, QUICK)]
    assert verdicts[::2] == ["right"] * 8 and "right" not in verdicts[1::2]


def test_threads_share_the_judges():
    found = []
    threads = [threading.Thread(target=lambda: found.append(verdict("def f(x): return x + 1"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["right"] * 12


def test_without_isolation_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sandbox.isolation.cache_clear()
    try:
        with pytest.raises(sandbox.Refusal, match=sandbox.UNSAFE):
            sandbox.run("print(1)")
        monkeypatch.setenv(sandbox.UNSAFE, "1")
        with pytest.raises(sandbox.Refusal, match="read and delete my files"):
            sandbox.run("print(1)")
    finally:
        sandbox.isolation.cache_clear()


def test_an_interrupt_leaves_no_sandbox_behind():
    words = "from r1repro.rewards import sandbox\nsandbox.run('import time\\ntime.sleep(60)', limits=sandbox.Limits(wall_s=60.0))"
    child = subprocess.Popen([os.sys.executable, "-c", words], stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(1)
    assert "time.sleep(60)" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
