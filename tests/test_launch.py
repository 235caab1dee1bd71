"""Stages on several ranks: who starts them, who answers, what a refusal, a signal and a death come to.

`make test-cluster` does the same on a Ray cluster.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import tqdm.auto

from r1repro import chat, config, doctor
from r1repro.engine import cluster, dist, launch
from r1repro.records import Refusal
from r1repro.run import Stopped, read_json, write_json
from r1repro.stages import child, r1, r1_zero

HERE = Path(__file__).parent
SETTINGS = config.r1_zero("smoke")


def of(**machine):
    return replace(SETTINGS, machine=config.Machine(**machine))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder; the stage that a child does is `launched`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
    monkeypatch.setenv("R1REPRO_TEST_PLACE", str(tmp_path))
    command = launch.command
    monkeypatch.setattr(launch, "command", lambda machine, module, file: command(machine, "launched", file))
    monkeypatch.setattr(child, "check", lambda machine: None)
    return tmp_path


def starts(place):
    return {file.name: len(file.read_text().splitlines()) for file in place.glob("starts-*")}


# --- torchrun


def test_two_ranks_start_again_when_one_is_killed_and_the_first_one_answers(tiny, monkeypatch):
    monkeypatch.setenv("R1REPRO_TEST_KILLED", "1")
    settings = of(launcher="torchrun", ranks=2)
    assert child.run("r1_zero", settings, tiny, call="total") == (3, 2)
    assert starts(tiny) == {"starts-0": 2, "starts-1": 2}


# --- one process


def test_a_stage_that_is_asked_to_stop_from_outside_stops_where_it_would(tiny, monkeypatch):
    """What a batch system's script does: it makes a file."""
    stop = tiny / "time is up"
    monkeypatch.setenv(launch.STOP, str(stop))
    thread = threading.Thread(target=lambda: (_until((tiny / "at-work").exists), stop.touch()))
    thread.start()
    with pytest.raises(Stopped, match="SIGINT after its last checkpoint; run it again"):
        child.run("r1_zero", of(), tiny, call="until_asked")
    thread.join()


def test_a_stage_hears_in_a_process_that_was_started_deaf(tmp_path, monkeypatch):
    """As a worker of Ray's starts it, with SIGINT blocked, and as a shell does, with SIGINT ignored."""
    (tmp_path / "stop").touch()
    monkeypatch.setenv(launch.STOP, str(tmp_path / "stop"))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt), launch.listening():
            time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_a_signal_to_the_parent_is_its_childs(tiny):
    def interrupt():
        _until((tiny / "at-work").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread, before = threading.Thread(target=interrupt), signal.getsignal(signal.SIGTERM)
    thread.start()
    with pytest.raises(Stopped) as caught:
        child.run("r1_zero", of(), tiny, call="until_asked")
    thread.join()
    assert caught.value.number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before


def _until(there, patience_s=30.0):
    began = time.monotonic()
    while not there():
        assert time.monotonic() < began + patience_s
        time.sleep(0.01)


# --- what a rank does


def test_a_rank_that_is_told_to_work_where_one_has_refused_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    launch.end(tmp_path, refused="no such thing: take another")
    assert child.main(tmp_path / "nothing-there.json") == 0
    monkeypatch.setenv("RANK", "0")
    launch.end(tmp_path, stopped=2)
    assert launch.outcomes(tmp_path) == [{"stopped": 2}, {"refused": "no such thing: take another"}]


def test_a_rank_says_how_it_ended(tmp_path, monkeypatch, capsys):
    told = {"kind": "r1_zero", "settings": asdict(SETTINGS), "call": "run", "arguments": [{"path": str(tmp_path)}]}
    write_json(tmp_path / "child.json", told)
    for error, code, outcome in [
        (Refusal("no such thing: take another"), 2, {"refused": "no such thing: take another"}),
        (Stopped(signal.SIGTERM, "this rollout"), 143, {"stopped": 15}),
        (KeyboardInterrupt(), 130, {"stopped": 2}),
    ]:
        monkeypatch.setattr(r1_zero, "run", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert child.main(tmp_path / "child.json") == code and launch.outcomes(tmp_path) == [outcome]
        (tmp_path / "rank-000000.json").unlink()
    monkeypatch.setenv("RANK", "1")
    assert child.main(tmp_path / "child.json") == 0, "asked to stop, it is not to be started again"
    (tmp_path / "rank-000001.json").unlink()
    monkeypatch.setattr(r1_zero, "run", lambda settings, place: place)
    assert child.main(tmp_path / "child.json") == 0 and not (tmp_path / "answer.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert child.main(tmp_path / "child.json") == 0
    assert read_json(tmp_path / "answer.json") == {"found": {"path": str(tmp_path)}}


def test_only_the_first_rank_shows_bars_and_a_group_that_was_there_stays(monkeypatch, capsys):
    left = []
    monkeypatch.setattr(dist, "leave", lambda: left.append(True))
    for rank, ours in [(0, True), (1, True), (1, False)]:
        monkeypatch.setattr(dist, "join", lambda ours=ours: ours)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        with launch.at_work():
            list(tqdm.auto.tqdm([1], desc=f"bar of {rank}"))
    shown = capsys.readouterr().err
    assert "bar of 0" in shown and "bar of 1" not in shown and left == [True, True]
    list(tqdm.auto.tqdm([1], desc="afterwards"))
    assert "afterwards" in capsys.readouterr().err


def test_a_stage_within_a_stage_is_not_told_twice(tmp_path, monkeypatch):
    stop = tmp_path / "stop"
    monkeypatch.setenv(launch.STOP, os.pathsep.join([str(tmp_path / "never"), str(stop)]))
    monkeypatch.setattr(launch, "POLL_S", 0.1)
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        with launch.listening():
            time.sleep(0.05)  # the two would look at other times
            with launch.listening():
                time.sleep(0.2)
                assert heard == []
                stop.touch()
                time.sleep(0.3)
        stop.unlink()
        with launch.listening():
            time.sleep(0.2)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_was_started_ends_when_its_parent_is_killed(tmp_path):
    rank = "import os, time; from r1repro.engine import launch; launch.tie(); print(os.getpid(), flush=True); "
    rank += "time.sleep(60)"
    parent = "import sys; from pathlib import Path; from r1repro.engine import launch; "
    parent += f"launch.wait([sys.executable, '-c', {rank!r}], Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE) as process:
        try:
            started = int(process.stdout.readline())
        finally:
            process.kill()
    _until(lambda: not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE, 10.0)


def test_a_rank_ends_with_its_parent(tmp_path):
    code = "from r1repro.engine import launch; launch.tie(); print(flush=True); import time; time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), launch.TETHER: "1"}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as rank:
        try:
            assert rank.stdout.readline() == b"\n" and rank.poll() is None
            rank.stdin.close()
            assert rank.wait(10) == 1
        finally:
            rank.kill()


# --- where a stage runs


def test_a_launcher_takes_a_stage_out_of_this_process(monkeypatch):
    assert child.runs_here(config.Machine())
    for machine in (config.Machine(launcher="torchrun", ranks=2), config.Machine(launcher="ray", device="cuda")):
        monkeypatch.delenv("RANK", raising=False)
        assert not child.runs_here(machine)
        monkeypatch.setenv("RANK", "1")
        assert child.runs_here(machine)


def test_what_is_small_is_done_by_one_rank(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(child, "run", lambda kind, settings, *_, call: asked.append((call, settings.machine.ranks)))
    settings = config.r1("smoke", 0, {"machine.launcher": "torchrun", "machine.ranks": 4})
    chat.told_there(settings, tmp_path, ["a"], 0, [])
    r1.cold_start(settings, tmp_path)
    assert asked == [("told_there", 1), ("cold_start", 4)]


def test_what_goes_to_a_cluster_is_whole_and_lies_where_all_see_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1REPRO_OUT", "runs")
    seen = []

    def wait(command):
        seen.append((command, read_json(Path(command[-1]))))
        write_json(Path(command[-1]).parent / "answer.json", {"found": {"path": "x"}})

    monkeypatch.setattr(child, "_wait", wait)
    assert child.run("r1_zero", of(launcher="ray", ranks=2), Path("seed-0"), ["a", Path("b")]) == Path("x")
    (command, told), *_ = seen
    assert command[1:4] == ["-m", "r1repro.engine.cluster", "r1repro.stages.child"]
    assert Path(command[-1]).is_relative_to(tmp_path / "runs" / "ranks") and not Path(command[-1]).parent.exists()
    assert told["paths"] == [str(tmp_path / "seed-0")] and told["settings"]["machine"]["ranks"] == 2
    assert told["arguments"] == [{"path": str(tmp_path / "seed-0")}, ["a", {"path": str(tmp_path / "b")}]]


# --- refusals


def refused(work, *words):
    with pytest.raises(Refusal) as caught:
        work()
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (dict(launcher="slurm"), ("'slurm'", "torchrun")),
        (dict(ranks=2), ("machine.ranks is 2", "'here'", "ray")),
        (dict(launcher="ray", ranks=0), ("ranks is 0",)),
        (dict(launcher="ray", restarts=-1), ("restarts is -1",)),
    ],
)
def test_a_bad_machine_is_refused(machine, words):
    refused(lambda: config.Machine(**machine), *words)


def test_what_this_machine_lacks_is_refused_before_anything_is_started(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "wait", lambda *_: 1 / 0)
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    settings = of(launcher="ray", ranks=2, device="cuda")
    refused(lambda: r1_zero.run(settings, tmp_path), "'ray', which is not installed", "r1repro[cluster]")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    settings = of(launcher="torchrun", ranks=8, device="cuda")
    refused(lambda: r1_zero.run(settings, tmp_path), "machine.ranks is 8", "has 4 GPUs", "RAY_ADDRESS")
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_nothing_is_is_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(lambda: cluster.reach(f"127.0.0.1:{port}"), f"127.0.0.1:{port}", "nothing answers there")
    refused(lambda: cluster.reach("10.0.0.1"), "'10.0.0.1'", "nothing answers")
    refused(lambda: cluster.reach("ray://10.0.0.1:10001"), "ray://", "host:port")
    refused(lambda: cluster.reach("http://127.0.0.1:8265"), "http://", "host:port")
    cluster.reach("auto"), cluster.reach("")


def node(name, gpus=8, kind="H100", cpus=64):
    return {"id": name, "name": name, "cpus": cpus, "gpus": gpus, "kind": kind}


def sees(unseen=(), **versions):
    return {"versions": cluster.versions() | versions, "unseen": list(unseen)}


HEAD, ONE, TWO = node("head", gpus=0, kind=""), node("one"), node("two")


def checked(there, *, seen=None, **machine):
    return lambda: cluster.check(
        config.Machine(launcher="ray", **machine), "the cluster at h:1", there, seen or [sees() for _ in there]
    )


def test_a_good_cluster_is_let_through():
    checked([HEAD, ONE, TWO], device="cuda", ranks=16)()
    checked([node("a", gpus=0, cpus=1), node("b", gpus=0, cpus=3)], ranks=4)()


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (checked([HEAD, ONE, TWO], device="cuda", ranks=17), ("ranks is 17", "16 GPUs on 3 nodes")),
        (checked([node("a", cpus=1)], ranks=2), ("ranks is 2", "1 CPUs on 1 nodes")),
        (checked([HEAD, ONE, node("two", gpus=4)], device="cuda", ranks=2), ("one has 8 x H100", "two has 4 x H100")),
        (checked([ONE, node("two", kind="A100")], device="cuda", ranks=2), ("unequal", "two has 8 x A100")),
        (checked([ONE, TWO], seen=[sees(), sees(python="3.10.1")], ranks=2), ("node two has python 3.10.1",)),
        (checked([ONE, TWO], seen=[sees(torch="2.12.0"), sees()], ranks=2), ("node one has torch 2.12.0",)),
        (checked([ONE, TWO], seen=[sees(), sees(r1repro="0" * 12)], ranks=2), ("node two has r1repro 000000000000",)),
        (checked([ONE, TWO], seen=[sees(), sees(["/runs/a/.mark"])], ranks=2), ("node two does not see", "/runs/a:")),
    ],
)
def test_bad_cluster_input_is_one_line(work, words):
    refused(work, *words)


def test_a_node_is_asked_for_files_of_which_it_can_have_no_others(tmp_path):
    place, model = tmp_path / "run" / "seed-0", tmp_path / "model"
    model.mkdir()
    with cluster.marked([place, model]) as marks:
        assert [str(Path(mark).parent) for mark in marks] == [str(tmp_path), str(model)]
        assert cluster.look([*marks, str(tmp_path / "not-there")])["unseen"] == [str(tmp_path / "not-there")]
        assert cluster.look(marks)["versions"] == cluster.versions()
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and list(model.iterdir()) == []


def test_what_the_driver_refuses_is_the_parents_line(monkeypatch, tmp_path):
    told = {"settings": {"machine": asdict(config.Machine(launcher="ray", ranks=2))}, "paths": [str(tmp_path)]}
    write_json(tmp_path / "child.json", told)
    monkeypatch.setenv("RAY_ADDRESS", "ray://nowhere:1")
    assert cluster.main(["launched", str(tmp_path / "child.json")]) == 2
    assert "ray://nowhere:1" in launch.outcomes(tmp_path)[0]["refused"]


def test_a_rank_that_waits_for_one_that_has_refused_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "GRACE_S", 0.2)
    monkeypatch.setattr(launch, "POLL_S", 0.05)
    with subprocess.Popen(["sleep", "60"]) as waits:
        launch.end(tmp_path, refused="no such thing: take another")
        assert cluster._code(waits, tmp_path) == -signal.SIGKILL
    with subprocess.Popen(["sh", "-c", "sleep 0.3; exit 3"]) as fails:
        assert cluster._code(fails, tmp_path / "elsewhere") == 3


def test_the_engine_room_needs_no_ray():
    code = "import sys; sys.modules['ray'] = None; import r1repro.engine.cluster, r1repro.stages.child"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


def test_the_doctor_looks_at_the_cluster_of_the_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert list(doctor.clusters()) == []
    monkeypatch.setenv("RAY_ADDRESS", "ray://nowhere:1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    ((state, what, detail),) = doctor.clusters()
    assert (state, what) == ("missing", "cluster") and "ray://nowhere:1" in detail
    monkeypatch.setattr(cluster, "report", lambda: "2 nodes")
    assert list(doctor.clusters()) == [("ok", "cluster", "2 nodes")]


def test_a_told_machine_comes_back_as_it_was():
    settings = of(launcher="ray", ranks=2, restarts=1)
    assert child.read_settings("r1_zero", json.loads(json.dumps(asdict(settings)))) == settings
