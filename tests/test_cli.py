"""A person's mistake is answered with one line and exit code 2, in a shell and in a notebook cell."""

import json
import os
import subprocess
import sys

import models
import pytest
from IPython.core.interactiveshell import InteractiveShell

from r1repro import __main__ as cli
from r1repro.engine import checkpoint
from r1repro.records import Refusal

SMALL = [
    "rl.num_rollouts=1", "rl.questions_per_step=1", "rl.steps_per_rollout=2", "rl.outputs_per_question=2",
    "rl.max_tokens=6", "rl.refresh_reference_every=2", "rl.num_checkpoints=1", "evaluate.num_questions=2",
    "evaluate.k=2", "evaluate.max_tokens=6",
]  # fmt: skip


def words_for(run_dir, base, *more, seed="0"):
    return [
        "r1-zero",
        "--tier",
        "smoke",
        "--seed",
        seed,
        "--run-dir",
        str(run_dir),
        "--set",
        f"base={base}",
        *SMALL,
        *more,
    ]


def refused(capfd, words, *needed):
    """The one line that a command leaves on stderr; nothing on stdout."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == "" and err.startswith("r1repro: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert all(word in err for word in needed), err
    return err


@pytest.fixture
def done(tmp_path, tiny_base, capfd):
    """A small R1-Zero run, trained and evaluated."""
    assert cli.main(words_for(tmp_path / "run", tiny_base)) == 0
    assert capfd.readouterr().out.strip() == str(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "words, needed",
    [
        (["r1-zero", "--tier", "huge"], ["'huge'", "smoke, cpu"]),
        (["reproduce", "--tier", "huge"], ["'huge'", "smoke, cpu"]),
        (["evaluate", "--tier", "huge", "--model", "x", "--run-dir", "y"], ["'huge'"]),
        (["report", "--tier", "huge"], ["'huge'"]),
        (["r1-zero", "--tier", "paper"], ["paper", "trains nothing"]),
        (["reproduce", "--tier", "paper"], ["paper", "trains nothing"]),
        (["r1-zero", "--tier", "gpu"], ["cuda", "tier cpu"]),
        (["r1-zero", "--tier", "node"], ["machine.device is", "choose tier cpu"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.learning_rate=fast"], ["rl.learning_rate", "'fast'", "number"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.num_rollouts=2.5"], ["rl.num_rollouts", "2.5", "whole"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.learning_rate=NaN"], ["nan", "finite"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.outputs_per_question=1"], ["use 2 or more"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.refresh_reference_every=3"], ["multiple"]),
        (["r1-zero", "--tier", "smoke", "--set", "evaluate.top_p=1.5"], ["top_p", "1.5"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.lr=1"], ["'rl.lr'", "rl.learning_rate"]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.learning_rate"], ["="]),
        (["r1-zero", "--tier", "smoke", "--set", "rl.max_tokens=" + "9" * 5000], ["rl.max_tokens"]),
        (["r1-zero", "--tier", "smoke", "--seed", "-1"], ["-1"]),
        (["r1-zero", "--tier", "smoke", "--seed", "1.5"], ["1.5", "whole number"]),
        (["reproduce", "--tier", "smoke", "--seeds", "0", "one"], ["'one'", "whole number"]),
        (["reproduce", "--tier", "smoke", "--seeds"], ["--seeds"]),
        (["r1-zero", "--tire", "smoke"], ["--tire"]),
        (["train"], ["train"]),
        ([], ["verb"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_a_wrong_command_is_answered_with_one_line(capfd, tmp_path, monkeypatch, words, needed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1REPRO_OUT", str(tmp_path / "out"))
    refused(capfd, words, *needed)
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_a_split_that_does_not_exist_is_refused_before_the_training(capfd, tmp_path, tiny_base):
    refused(capfd, words_for(tmp_path / "run", tiny_base, "evaluate.split=exam"), "split", "exam")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["r1-zero", "evaluate"])
@pytest.mark.parametrize("model", ["nothing", "empty", "no-weights", "truncated"])
def test_a_missing_or_damaged_base_is_answered_with_one_line(capfd, tmp_path, tiny_base, verb, model):
    folder = tmp_path / model
    if model != "nothing":
        folder.mkdir()
    if model in ("no-weights", "truncated"):
        (folder / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    if model == "truncated":
        (folder / "model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes()[:-9])
    more = ["evaluate", "--tier", "smoke", "--model", folder, "--run-dir", tmp_path / "run", "--set", "evaluate.k=2"]
    refused(capfd, words_for(tmp_path / "run", folder) if verb == "r1-zero" else more, str(folder))


def test_a_run_folder_of_another_config_is_answered_with_one_line(capfd, done, tiny_base):
    before = {p: p.read_bytes() for p in done.rglob("*") if p.is_file()}
    refused(capfd, words_for(done, tiny_base, "rl.learning_rate=1e-5"), "r1_zero", "learning_rate", "another run")
    refused(capfd, words_for(done, tiny_base, seed="1"), "seed")
    refused(capfd, words_for(done, tiny_base, "evaluate.k=3"), "evaluate", "k (2 there, 3 now)")
    refused(capfd, words_for(done, models.save_base(done.parent / "other", seed=7)), "base")
    assert {p: p.read_bytes() for p in done.rglob("*") if p.is_file()} == before


def test_the_same_command_again_returns_at_once(capfd, done, tiny_base, monkeypatch):
    monkeypatch.setattr("r1repro.engine.policy.load", lambda *_: pytest.fail("a finished run must load no model"))
    assert cli.main(words_for(done, tiny_base)) == 0
    assert json.loads((done / "evaluate" / "step-000002" / "summary.json").read_text())["questions"] == 2


@pytest.mark.parametrize("interrupted", ["training", "evaluation"])
def test_a_truncated_checkpoint_is_answered_with_one_line(capfd, done, tiny_base, interrupted):
    file = done / "r1_zero" / "checkpoints" / "step-000002" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    manifest = done / ("r1_zero" if interrupted == "training" else "evaluate/step-000002") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"exit": "complete"', '"exit": null'))
    refused(capfd, words_for(done, tiny_base), "step-000002", "model.safetensors")


def test_a_truncated_checkpoint_given_to_evaluate_is_answered_with_one_line(capfd, done, tmp_path):
    folder = checkpoint.folder_of(done / "r1_zero", 2)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    words = ["evaluate", "--tier", "smoke", "--model", folder, "--run-dir", tmp_path / "e", "--set", *SMALL[-3:]]
    refused(capfd, words, str(folder), "model.safetensors")


def test_a_folder_that_cannot_be_written_is_answered_with_one_line(capfd, tmp_path, tiny_base):
    (tmp_path / "file").write_text("")
    refused(capfd, words_for(tmp_path / "file" / "run", tiny_base), str(tmp_path / "file"))


def shell(words, limit_bytes):
    """A command in a shell of its own; beyond the limit every write of a file fails, as on a full disk."""

    def limit():
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [sys.executable, "-m", "r1repro", *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )


def test_a_full_disk_is_answered_with_one_line_and_the_run_goes_on_later(tmp_path, tiny_base, capfd):
    """60,000 bytes hold all files but the weights; what a shell shows is that line and nothing of any library."""
    words = words_for(tmp_path / "run", tiny_base)
    done = shell(words, 60_000)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("r1repro: cannot write ") and str(tmp_path / "run") in done.stderr
    assert cli.main(words) == 0


def test_settings_of_all_tiers_are_shown(capfd):
    assert cli.main(["tiers"]) == 0
    out = capfd.readouterr().out
    assert "rl.learning_rate" in out and "3e-06" in out and out.count("\n") > 10


def test_a_notebook_cell_shows_the_line_alone(capfd):
    cell = InteractiveShell.instance()
    ran = cell.run_cell("from r1repro import config\nconfig.r1_zero('huge')")
    shown = "".join(capfd.readouterr())
    InteractiveShell.clear_instance()
    assert isinstance(ran.error_in_exec, Refusal)
    line = "Refused: no tier 'huge': choose one of smoke, cpu, gpu, node, cluster, paper"
    assert shown.strip().splitlines() == [line]


def test_an_interrupted_command_says_how_to_go_on(capfd, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_tiers", interrupt)
    assert cli.main(["tiers"]) == 130
    assert "go on" in capfd.readouterr().err


# --- shared work


@pytest.mark.parametrize(
    "words",
    [
        ("reject", "--tier", "smoke", "--run-dir"),
        ("evaluate", "--model", "tiny-1m", "--run-dir"),
        ("evaluate", "--model", "scripted:silent", "--benchmark", "aime2024", "--out"),
    ],
)
def test_shared_work_needs_a_folder_that_is_there(capfd, tmp_path, words):
    refused(capfd, [*words, tmp_path / "none", "--shared"], f"no folder {tmp_path}/none here", "mkdir -p")
    assert not (tmp_path / "none").exists()


def test_lm_eval_is_not_shared(capfd, tmp_path):
    words = ("evaluate", "--model", "tiny-1m", "--out", tmp_path, "--shared", "--lm-eval", "ifeval")
    refused(capfd, words, "--shared does not share tasks of lm_eval")


@pytest.mark.parametrize("shared", [[], ["--shared"]])
def test_reject_collects_with_the_settings_of_notebook_06(capfd, tmp_path, tiny_base, monkeypatch, shared):
    asked = []
    monkeypatch.setattr("r1repro.stages.collect.collect", lambda *a, **k: asked.append((*a, k["shared"])) or "made")
    words = ["reject", "--tier", "smoke", "--seed", "3", "--model", str(tiny_base), "--run-dir", str(tmp_path), *shared]
    assert cli.main([*words, "--set", "rejection.num_questions=9"]) == 0
    ((cfg, folder, model, _, is_shared),) = asked
    assert (cfg.seed, cfg.num_questions, cfg.general_share) == (3, 9, 0.25)
    assert (folder, model, is_shared) == (str(tmp_path), tiny_base, bool(shared))
    assert capfd.readouterr().out == "made\n"


def test_reject_is_done_for_notebook_06(capfd, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("R1REPRO_OUT", str(tmp_path))
    monkeypatch.setattr("r1repro.stages.collect.collect", lambda *a, **k: asked.append(a) or "made")
    monkeypatch.setattr("r1repro.stages.r1.model_of", lambda _, seed_dir, name: seed_dir / name)
    assert cli.main(["reject", "--tier", "smoke"]) == 0
    place = tmp_path / "smoke" / "seed-0"
    assert asked[0][1:3] == (place / "dev3" / "by_rule", place / "dev2")
    assert capfd.readouterr().out == "made\n"
    refused(capfd, ["reject", "--tier", "smoke", "--seed", "1", "--shared"], f"no folder {tmp_path}/smoke/seed-1")
