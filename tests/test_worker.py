import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from r1repro.records import Refusal
from r1repro.rewards.worker import Worker


def task(payload: dict) -> dict:
    """What the child of these tests does: the one thing that the payload asks for."""
    match payload["do"]:
        case "echo":
            return {"said": payload["say"], "pid": os.getpid()}
        case "endless":
            while True:
                pass
        case "power":
            return {"said": len(str(9**9**9))}
        case "sleep":
            time.sleep(60)
        case "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case "memory":
            return {"said": len(bytearray(4 << 30))}
        case "raise":
            raise KeyError("what is this")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "once":
            if not os.path.exists(payload["file"]):
                open(payload["file"], "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return {"said": "second try"}
        case "print":
            print('{"said": "forged"}', flush=True)
            os.write(1, b'{"said": "forged"}\n')
            return {"said": "honest"}
    return {}


def worker(**limits):
    return Worker(f"{__name__}:task", **{"cpu_s": 0.3, "wall_s": 3.0} | limits)


@pytest.fixture(scope="module")
def shared():
    return worker()


def say(child, text="hello"):
    return child.call({"do": "echo", "say": text})


def test_one_child_answers_every_call(shared):
    replies = shared.map({"do": "echo", "say": text} for text in ("", "two\nlines", "\u7b54\u6848", "\x00"))
    assert [reply["said"] for reply in replies] == ["", "two\nlines", "\u7b54\u6848", "\x00"]
    assert {reply["pid"] for reply in replies} == {say(shared)["pid"]} and replies[0]["pid"] != os.getpid()


@pytest.mark.parametrize(
    "do, verdict, reason",
    [
        ("endless", "timed_out", "0.3 s of CPU"),
        ("power", "timed_out", "0.3 s of CPU"),
        ("sleep", "timed_out", "1 s on the clock"),
        ("ignore", "timed_out", "1 s on the clock"),
        ("memory", "error", "1024 MiB"),
        ("die", "error", "-9"),
        ("raise", "error", "KeyError: 'what is this'"),
    ],
)
def test_whatever_the_child_does_the_verdict_comes_in_time_and_the_next_call_works(do, verdict, reason):
    child = worker(wall_s=1.0)
    assert say(child)["said"] == "hello"  # limits are of every call, not of the first
    begin = time.monotonic()
    reply = child.call({"do": do})
    assert (reply["verdict"], reason in reply["reason"]) == (verdict, True), reply
    assert time.monotonic() - begin < 5
    assert say(child)["said"] == "hello"


def test_an_exception_of_the_function_does_not_cost_a_new_child(shared):
    before = say(shared)["pid"]
    shared.call({"do": "raise"})
    assert say(shared)["pid"] == before


def test_calls_within_the_limit_do_not_add_up_to_it():
    child = worker(cpu_s=0.2)
    say(child)
    burn = child._child.pid
    for _ in range(5000):
        say(child, "x" * 5000)
    assert child._child.pid == burn


def test_what_the_function_prints_is_no_reply(shared):
    assert [shared.call({"do": "print"})["said"], say(shared)["said"]] == ["honest", "hello"]


def test_a_child_killed_between_two_calls_is_replaced_and_that_costs_no_try(shared, tmp_path):
    before = say(shared)["pid"]
    os.kill(before, signal.SIGKILL)
    shared._child.wait(5)
    assert shared.call({"do": "once", "file": str(tmp_path / "died")}) == {"said": "second try"}
    assert say(shared)["pid"] != before


def test_a_child_killed_during_a_call_gets_one_more_try(shared, tmp_path):
    assert shared.call({"do": "once", "file": str(tmp_path / "died")}) == {"said": "second try"}


def test_a_megabyte_goes_there_and_back(shared):
    assert say(shared, "x" * (1 << 20))["said"] == "x" * (1 << 20)


def test_threads_share_a_child_and_each_gets_its_own_reply(shared):
    replies = {}

    def ask(i):
        replies[i] = shared.call({"do": "endless"})["verdict"] if i == 3 else say(shared, i)["said"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert replies == {i: "timed_out" if i == 3 else i for i in range(8)}


def test_a_forked_process_has_its_own_child_even_if_the_lock_was_held(shared):
    ours = say(shared)["pid"]
    read, write = os.pipe()
    shared._lock.acquire()  # as if another thread were in a call
    forked = os.fork()
    if forked == 0:
        os.write(write, json.dumps(say(shared)).encode() + b"\n")
        shared._stop()
        os._exit(0)
    shared._lock.release()
    readable = select.select([read], [], [], 20)[0]
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)
    assert readable, "the forked process hangs"
    theirs = json.loads(os.read(read, 1000))
    assert theirs["said"] == "hello" and theirs["pid"] != ours and say(shared)["pid"] == ours


def test_an_interrupted_call_leaves_no_reply_for_the_next():
    script = f"""
        import signal, threading, time, os
        from r1repro.rewards.worker import Worker
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell begins without it
        child = Worker("{__name__}:task", cpu_s=2, wall_s=20)
        child.call({{"do": "echo", "say": "warm"}})
        threading.Timer(0.3, lambda: os.killpg(0, signal.SIGINT)).start()  # Ctrl-C in a terminal
        try:
            child.call({{"do": "sleep"}})
        except KeyboardInterrupt:
            print(child.call({{"do": "echo", "say": "after"}})["said"])
    """
    ended = run_python(script)
    assert (ended.stdout, ended.stderr) == ("after\n", "")


BUSY = 'threading.Thread(target=child.call, args=({"do": "sleep"},), daemon=True).start(); time.sleep(0.5)'


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)", BUSY])
def test_the_child_ends_with_its_parent(end):
    script = f"""
        import os, threading, time
        from r1repro.rewards.worker import Worker
        child = Worker("{__name__}:task")
        print(child.call({{"do": "echo", "say": ""}})["pid"], flush=True)
        {end}
    """
    pid, deadline = int(run_python(script).stdout), time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def run_python(script):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, start_new_session=True)


def is_running(pid):
    """Orphans that nobody waits for stay as zombies in a container without an init: those have ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_children_are_renewed_before_their_caches_fill_the_memory(monkeypatch):
    monkeypatch.setattr("r1repro.rewards.worker.RENEW_CALLS", 2)
    child = worker()
    pids = [say(child)["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


@pytest.mark.parametrize(
    "target, modules, why",
    [
        ("r1repro.rewards.nowhere:f", [], "nowhere"),
        ("math:pi", [], "not a function"),
        ("math:floor", ["no_such_module"], "no_such_module"),
    ],
)
def test_a_function_that_cannot_be_imported_is_refused_in_one_line(target, modules, why):
    with pytest.raises(Refusal, match=why) as refusal:
        Worker(target, modules=modules).call({})
    assert "\n" not in str(refusal.value)
