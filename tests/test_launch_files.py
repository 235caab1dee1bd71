"""The files of launch/: what they name exists, and slurm.sh does what its comments say, with stand-ins for Slurm.

Against Ray's own commands and schema they are checked by `make test-cluster`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from r1repro import __main__, config
from r1repro.engine import checkpoint, cluster, launch
from r1repro.run import read_json

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
FILES = {file.name: file.read_text() for file in sorted((TOP / "launch").iterdir())}


def test_the_files_are_those_that_were_made():
    assert set(FILES) == {"Containerfile", "README.md", "kuberay.yaml", "ray-up.yaml", "slurm.sh"}


@pytest.mark.parametrize("name", ["kuberay.yaml", "ray-up.yaml", "slurm.sh", "Containerfile"])
def test_each_says_first_that_we_have_not_run_it(name):
    first = [line for line in FILES[name].splitlines() if not line.startswith("#!")][0]
    assert re.match(r"# Not (run|built) by us yet", first)


@pytest.mark.parametrize(("name", "edits"), [("kuberay.yaml", 2), ("ray-up.yaml", 2), ("slurm.sh", 2)])
def test_each_has_two_places_to_edit(name, edits):
    assert [int(n) for n in re.findall(r"EDIT (\d) of 2", FILES[name])] == list(range(1, edits + 1))
    assert FILES[name].count("EDIT") == edits


@pytest.mark.parametrize("name", FILES)
def test_the_verbs_tiers_settings_targets_and_files_that_they_name_exist(name):
    text = FILES[name]
    verbs = set(__main__._parser()._subparsers._group_actions[0].choices)
    assert set(re.findall(r"python -m r1repro ([a-z][\w-]+)", text)) <= verbs
    tiers = set(re.findall(r"(?:--tier |TIER=)(\w+)", text))
    assert tiers <= set(config.RUNNABLE)
    knobs = {f"machine.{name}" for name in config.Machine.__dataclass_fields__}
    assert set(re.findall(r"\bmachine\.\w+", text)) <= knobs
    targets = re.findall(r"^([a-z][\w-]*):", (TOP / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake ([a-z][\w-]+)", text)) <= {*targets}
    for path in re.findall(r"\b((?:launch|tests|requirements)/[\w./-]+\w)", text):
        assert (TOP / path).exists(), path
    for path in re.findall(r"^COPY (?!\. )(\S+)", text, re.M):
        assert (TOP / path).exists(), path
    known = {"R1REPRO_OUT", "R1REPRO_DATA", launch.STOP, "R1REPRO_SHARED"}
    assert set(re.findall(r"\bR1REPRO_[A-Z]+\b", text)) <= known


def test_they_agree_with_the_lock_and_with_each_other():
    lock = (TOP / "requirements" / "gpu.txt").read_text()
    version = re.search(r"^ray==(\S+)$", lock, re.M)[1]
    job = yaml.safe_load(FILES["kuberay.yaml"])
    spec = job["spec"]["rayClusterSpec"]
    assert job["kind"] == "RayJob" and spec["rayVersion"] == version
    (group,) = spec["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    nodes = int(re.search(r"^#SBATCH --nodes=(\d+)$", FILES["slurm.sh"], re.M)[1])
    machine = config.r1_zero("cluster").machine
    assert group["replicas"] * gpus == machine.ranks == 8 * nodes
    assert "--gpus-per-node=8" in FILES["slurm.sh"] and gpus == config.r1_zero("node").machine.ranks
    pods = [part["template"]["spec"] for part in (spec["headGroupSpec"], group)]
    for pod in pods:
        claims = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == claims
    python = re.search(r"Python (3\.\d+)", lock)[1]
    assert f"python:{python}-" in FILES["Containerfile"]


def test_the_time_that_slurm_gives_is_longer_than_the_patience():
    lead = int(re.search(r"--signal=B:USR1@(\d+)$", FILES["slurm.sh"], re.M)[1])
    assert 30 <= lead - int(re.search(r"^patience=(\d+)", FILES["slurm.sh"], re.M)[1]) <= 120


def test_the_page_tells_what_the_code_does():
    page = FILES["README.md"]
    for begin in cluster.CARRIED:
        assert f"`{begin}`" in page
    assert f"`machine.restarts` times ({config.Machine().restarts})" in page and len(page.splitlines()) < 70


# --- slurm.sh

SETTINGS = ["rl.num_rollouts=12", "rl.steps_per_rollout=1", "rl.questions_per_step=2", "rl.num_checkpoints=1",
            "rl.refresh_reference_every=2", "rl.max_tokens=24", "evaluate.num_questions=4", "evaluate.k=2",
            "evaluate.max_tokens=24"]  # fmt: skip
STAND_INS = {
    "srun": 'echo "srun $*" >>"$CALLS"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "ray": 'echo "ray $*" >>"$CALLS"\nwhile [[ $1 != -- ]]; do shift; done\nshift\nexec "$@"',
    "scontrol": 'echo "scontrol $*" >>"$CALLS"\nif [[ $1 == show ]]; then printf "one\\ntwo\\n"; fi',
}


@pytest.fixture
def slurm(tmp_path):
    """Gives a function that runs slurm.sh as Slurm would, with its commands as stand-ins that note their words."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    started = []

    def start(*words, nodes=2):
        job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": str(nodes), "SLURM_JOB_NODELIST": "n[1-2]", "OMP_NUM_THREADS": "1"}
        job |= {"R1REPRO_SHARED": str(tmp_path / "shared"), "CALLS": str(tmp_path / "calls")}
        job |= {"PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])}
        job |= {"PYTHONPATH": os.pathsep.join(sys.path)}
        with open(tmp_path / "log", "a") as log:
            process = subprocess.Popen(
                ["bash", TOP / "launch" / "slurm.sh", *words], cwd=tmp_path, env=os.environ | job, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def test_at_the_time_limit_the_run_leaves_a_checkpoint_and_goes_back_into_the_queue(slurm, tmp_path):
    run = tmp_path / "run" / "r1_zero"
    command = ["python", "-m", "r1repro", "r1-zero", "--tier", "smoke", "--run-dir", str(tmp_path / "run"), "--set"]
    job = slurm(*command, *SETTINGS)
    while len(lines(run / "metrics.jsonl")) < 2:
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)  # to the script alone, as --signal=B: does
    assert job.wait(100) == 0, (tmp_path / "log").read_text()
    calls = lines(tmp_path / "calls")
    assert calls[-1] == "scontrol requeue 7" and calls.count(calls[-1]) == 1
    assert [call.split()[0] for call in calls[:3]] == ["scontrol", "srun", "ray"]
    assert "--nodes=2 --ntasks=2" in calls[1]
    assert "--address one:6379 --min-nodes 2 -- env RAY_ADDRESS=one:6379" in calls[2]
    stopped = checkpoint.steps_in(run)[-1]
    assert 0 < stopped == len(lines(run / "metrics.jsonl")) < 12, "nothing that was done is to be done again"
    assert "stopped; give the same command again" in (tmp_path / "log").read_text()

    job = slurm(*command, *SETTINGS)
    assert job.wait(100) == 0, (tmp_path / "log").read_text()
    assert read_json(run / "manifest.json")["exit"] == "complete"
    again = lines(tmp_path / "calls")[len(calls) :]
    assert len(again) == 3 and "requeue" not in " ".join(again)
    assert not list((tmp_path / "shared" / "out").glob("stop-*"))


def test_what_slurm_takes_away_is_asked_to_stop_once(slurm, tmp_path):
    """SIGTERM goes to every process, and only who knows where to stop minds it."""
    waits = "echo begun; for i in $(seq 100); do [[ -e $R1REPRO_STOP ]] && exit 130; sleep 0.05; done; exit 5"
    job = slurm("bash", "-c", waits, nodes=1)
    while "begun" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGTERM)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 0, (tmp_path / "log").read_text()
    assert lines(tmp_path / "calls") == ["scontrol requeue 7"]
    assert (tmp_path / "log").read_text().count("asked to stop") == 1


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("code", [0, 3, 137])
def test_without_a_signal_the_job_ends_as_its_work_does(slurm, tmp_path, monkeypatch, code, slow):
    """Also on a machine so busy that the work is over before the script comes to wait for it."""
    if slow:
        (tmp_path / "busy").write_text("""trap '[[ -z ${work-} ]] || sleep 0.1' DEBUG""")
        monkeypatch.setenv("BASH_ENV", str(tmp_path / "busy"))
    assert slurm("bash", "-c", f"exit {code}", nodes=1).wait(20) == code
    assert lines(tmp_path / "calls") == []


def test_the_secret_of_a_cluster_is_made_once_and_read_by_its_owner_alone(slurm, tmp_path):
    (tmp_path / "shared").mkdir()
    for _ in range(2):
        assert slurm("bash", "-c", 'cat "$RAY_AUTH_TOKEN_PATH" >>secrets; echo >>secrets').wait(20) == 0
    secret = tmp_path / "shared" / "ray-token"
    first, second = lines(tmp_path / "secrets")
    assert first == second and re.fullmatch("[0-9a-f]{64}", first) and secret.stat().st_mode & 0o77 == 0


def test_bash_can_read_the_script():
    assert subprocess.run(["bash", "-n", TOP / "launch" / "slurm.sh"]).returncode == 0
    assert shutil.which("bash") and os.access(TOP / "launch" / "slurm.sh", os.X_OK)
