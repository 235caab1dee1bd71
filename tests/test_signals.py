"""SIGINT and SIGTERM: the run stops where nothing is lost, says how to go on, and ends as one left alone."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from r1repro.engine import checkpoint
from r1repro.run import Interrupts, Stopped, read_json, read_lines, sha256_file

SETTINGS = ["rl.num_rollouts=12", "rl.steps_per_rollout=1", "rl.questions_per_step=2", "rl.num_checkpoints=1",
            "rl.refresh_reference_every=2", "rl.max_tokens=24", "evaluate.num_questions=4", "evaluate.k=2",
            "evaluate.max_tokens=24"]  # fmt: skip


def start(folder):
    command = [sys.executable, "-m", "r1repro", "r1-zero", "--tier", "smoke", "--run-dir", str(folder), "--set"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *SETTINGS], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    out, err = (process := start(folder)).communicate(timeout=200)
    assert process.returncode == 0, err
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on(tmp_path, alone, number):
    process, metrics = start(tmp_path), tmp_path / "r1_zero" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT) if number == signal.SIGINT else process.send_signal(number)  # as Ctrl-C does
    _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    assert "go on from the last checkpoint" in err.splitlines()[-1] and "Traceback" not in err
    steps = checkpoint.steps_in(tmp_path / "r1_zero")
    assert 0 < steps[-1] == len(read_lines(metrics)) < 12  # nothing that was done is to be done again
    assert (process := start(tmp_path)).communicate(timeout=200) and process.returncode == 0
    for run in (alone, tmp_path):
        assert read_json(run / "r1_zero" / "manifest.json")["exit"] == "complete"
    last = "r1_zero/checkpoints/step-000012/model.safetensors"
    assert sha256_file(tmp_path / last) == sha256_file(alone / last)


def test_a_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt) as caught, Interrupts("this step") as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.asked
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")
    assert not isinstance(caught.value, Stopped)


def test_handlers_are_as_before_when_the_run_is_over():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts("this step") as interrupts:
        interrupts.stop()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped, match="SIGINT after this step") as caught:
            interrupts.stop()
    assert caught.value.number == signal.SIGINT
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Interrupts("this step") as interrupts:
            seen.append(signal.getsignal(signal.SIGINT) is before)
            interrupts.stop()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
