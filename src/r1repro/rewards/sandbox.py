"""Untrusted programs behind bubblewrap, each in a sandbox of its own that is made for it and dies with it.

A program sees: namespaces of its own (processes, network without any device, IPC, host name, mounts), /usr and the
interpreter read-only, an empty /tmp in memory, no environment, no home, no file of this project, standard library only.
One in another language than Python (`languages`) sees the settings of its runtime below /etc too, read-only, and may
reserve more addresses than it may write to.
It has limits of CPU time, wall time, memory (each process, and all together), processes, file size, /tmp and output.
Where this process is root, each program gets a user id that nothing else has; else, a user namespace.

What it does not protect from: faults of the kernel or of bubblewrap (the kernel is shared, no system call is filtered);
side channels and the clock; what is world-readable under /usr; load (a sandbox may use its whole time on a core).
Tests which a wrong program passes by computing other values are a matter of the tests.
"""

import atexit
import contextlib
import functools
import os
import platform
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from r1repro.records import Refusal

UNSAFE = "R1REPRO_RUN_CODE_WITHOUT_SANDBOX"
UNSAFE_VALUE = "I understand that programs of models can read and delete my files"

_GUEST = Path(__file__).with_name("guest.py").read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use."""

    cpu_s: int = 3
    """Seconds of CPU time of each of its processes."""

    wall_s: float = 4.5
    """Seconds on the clock, from the start of the sandbox to the last answer."""

    memory_bytes: int = 512 << 20
    """Address space of each process, and resident memory of all together (looked at ten times a second)."""

    processes: int = 16
    """Processes and threads at one time."""

    tmp_bytes: int = 64 << 20
    """Size of /tmp, and of any one file."""

    output_bytes: int = 8 << 20
    """Standard output that is read; a program that writes more is stopped."""

    address_bytes: int = 0
    """Address space of each process, for runtimes that reserve much more than they use; then ``memory_bytes`` bounds
    what a process may write to (its private writable memory).  0: ``memory_bytes``."""

    visible: tuple[str, ...] = ()
    """Files and folders outside of /usr that the program sees too, read-only: settings that a runtime reads."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit status (128 plus the signal's number where one ended it), and what it wrote."""

    status: int
    stopped: str
    """Which limit stopped it, or ""."""

    output: bytes


@functools.cache
def isolation() -> str:
    """``root``, ``user`` or ``none``: how programs are isolated here, after a trial of it.

    Errors: `Refusal` where there is no isolation and the user has not accepted that.
    """
    why = "bubblewrap (bwrap) is not installed"
    if shutil.which("bwrap"):
        mode = "root" if _is_root() else "user"
        words = [*bwrap(mode, Limits()), *_python(Limits(), fresh_uid(mode), -1, 2)]
        done = subprocess.run(words, input=b"8\nprint(6)", capture_output=True, env={})
        if done.stdout == b"6\n":
            return mode
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        why = f"bubblewrap cannot make a sandbox here ({last[0][:200]})"
    if os.environ.get(UNSAFE) == UNSAFE_VALUE:
        warnings.warn(f"{why}: programs run with limits but without isolation, as {UNSAFE} asks", stacklevel=2)
        return "none"
    raise Refusal(
        f"{why}, so no program of a model is run: install Debian's or Ubuntu's package bubblewrap (Linux only), or set "
        f'{UNSAFE}="{UNSAFE_VALUE}", which gives every such program your files, your network and your rights'
    )


def _is_root() -> bool:
    """Whether this is the machine's root: its programs need users of their own, as no limit of processes binds it.
    The root of a container without privileges is another user outside, whom the limit binds."""
    mapped = Path("/proc/self/uid_map").read_text().split()
    return os.getuid() == 0 and mapped[:2] == ["0", "0"] and int(mapped[2]) > 1 << 31


def refusal() -> str:
    """Why no program is run here, in one line; "" where programs run in isolation, or without it by the user's will."""
    try:
        isolation()
    except Refusal as refused:
        return str(refused)
    return ""


def bwrap(mode: str, limits: Limits) -> list[str]:
    """The command that makes a sandbox, up to the words of what runs in it."""
    words = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    if mode == "root":  # to become a user of its own, before the program's first line
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    words += ["--new-session", "--clearenv", "--hostname", "sandbox"]
    words += ["--setenv", "PATH", "/usr/bin", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"]
    words += ["--ro-bind", "/usr", "/usr"]
    for folder in ("/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    prefix = Path(os.path.realpath(sys.base_prefix))
    if not prefix.is_relative_to("/usr"):
        for parent in [*prefix.parents][-2::-1]:  # which others may enter, unlike a home directory outside
            words += ["--perms", "0755", "--dir", str(parent)]
        words += ["--ro-bind", str(prefix), str(prefix)]
    for folder in sorted({str(parent) for path in limits.visible for parent in [*Path(path).parents][:-1]}):
        words += ["--perms", "0755", "--dir", folder]
    for path in ("/etc/ld.so.cache", *limits.visible):
        words += ["--ro-bind-try", path, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"]
    words += ["--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/dev/shm"]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


PYTHON = [os.path.realpath(sys._base_executable), "-I", "-S", "-B", "-X", "utf8", "-c"]
"""The interpreter without site-packages, the user's folder and variables."""


def _python(limits: Limits, uid: int, channel: int, ready: int) -> list[str]:
    memory = (limits.address_bytes or limits.memory_bytes, limits.memory_bytes)
    numbers = (limits.cpu_s, *memory, limits.tmp_bytes, limits.processes, uid, channel, ready)
    return [*PYTHON, _GUEST, *map(str, numbers)]


def fresh_uid(mode: str) -> int:
    """A user id that nobody has; 0: keep the one that the sandbox gives."""
    return random.SystemRandom().randrange(1 << 30, 1 << 31) if mode == "root" else 0


class Sandbox:
    """A program in a sandbox, from its start to the end of the `with` block, where it is killed.

    `channel` is the socket by which its guest answers requests; without one the program starts at once.
    """

    def __init__(self, limits: Limits, channel: socket.socket | None = None, **streams):
        self.limits, self._began = limits, time.monotonic()
        self._ready, ready = os.pipe()
        mode = isolation()
        words = _python(limits, fresh_uid(mode), channel.fileno() if channel else -1, ready)
        if mode != "none":
            first, *rest = bwrap(mode, limits)
            words = [first, "--die-with-parent", *rest, *words]  # the parent is this thread
        self._folder = tempfile.TemporaryDirectory() if mode == "none" else None
        try:
            self.child = subprocess.Popen(
                words,
                env={},
                cwd=self._folder.name if self._folder else "/",
                pass_fds=(ready, channel.fileno()) if channel else (ready,),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **streams,
            )
        except BaseException:
            os.close(self._ready)
            raise
        finally:
            os.close(ready)
        _alive.add(self.child)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, 9)
        self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()
        os.close(self._ready)
        if self._folder:
            self._folder.cleanup()
        _alive.discard(self.child)

    def stands(self) -> bool:
        """Whether the sandbox was made (ask when it has answered, or ended: this waits for one of the two)."""
        return os.read(self._ready, 1) == b"."

    def pause(self) -> float:
        """Seconds until the next look at the limits."""
        return min(0.1, max(0.0, self._began + self.limits.wall_s - time.monotonic()))

    def stopped(self) -> str:
        """The limit that was passed, of those that the kernel does not keep, or ""."""
        if time.monotonic() - self._began >= self.limits.wall_s:
            return f"more than {self.limits.wall_s:g} s on the clock"
        if resident(self.child.pid) > self.limits.memory_bytes:
            return f"more than {self.limits.memory_bytes >> 20} MiB of memory"
        return ""

    def ended(self, output: bytes = b"") -> Ended:
        """Wait for the end, as long as the limits allow."""
        while (status := self.child.poll()) is None:
            if stopped := self.stopped():
                return Ended(-1, stopped, output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(self.pause())
        if not self.stands():
            return Ended(-1, NOT_MADE, output)
        status = 128 - status if status < 0 else status
        late = time.monotonic() - self._began >= self.limits.cpu_s
        over = status == 128 + signal.SIGXCPU or (late and status == 128 + signal.SIGKILL)
        return Ended(status, f"more than {self.limits.cpu_s} s of CPU time" if over else "", output)


NOT_MADE = "the sandbox could not be made"

_alive: set[subprocess.Popen] = set()


@atexit.register
def _kill_all() -> None:
    for child in list(_alive):
        child.kill()


def run(program: str, given: str = "", limits: Limits | None = None) -> Ended:
    """Run a whole program, ``given`` being its standard input."""
    limits = limits or Limits()
    text = program.encode("utf-8", "replace")
    with tempfile.TemporaryFile() as file:
        file.write(b"%d\n" % len(text) + text + given.encode("utf-8", "replace"))
        file.seek(0)
        with Sandbox(limits, stdin=file, stdout=subprocess.PIPE) as sandbox:
            pipe, output = sandbox.child.stdout, b""
            while not (stopped := sandbox.stopped()):
                if not select.select([pipe], [], [], sandbox.pause())[0]:
                    continue
                chunk = os.read(pipe.fileno(), 1 << 16)
                if not chunk:
                    return sandbox.ended(output)
                output += chunk
                if len(output) > limits.output_bytes:
                    stopped = f"more than {limits.output_bytes} bytes of output"
                    break
            return Ended(-1, stopped, output)


def resident(pid: int) -> int:
    """Bytes of memory of a process and all below it, on Linux; 0 elsewhere, and where it has ended."""
    if platform.system() != "Linux":
        return 0
    total, waiting = 0, [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        with contextlib.suppress(OSError):
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in (folder / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total
