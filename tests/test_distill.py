"""A student by name, from traces to a plain model; and pipelines as processes of their own, as on a GPU."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from transformers import AutoModelForCausalLM

from r1repro import __main__, chat, config
from r1repro.engine import actor, policy, scorer
from r1repro.records import Refusal
from r1repro.run import read_json
from r1repro.stages import child, distill, r1, rl
from r1repro.tinyworld import base

SMALL = {
    "policy.template": "r1_zero", "policy.rank": 4, "sft.epochs": 6, "sft.batch_size": 8, "sft.learning_rate": 0.02,
    "sft.max_tokens": 64, "evaluate.questions": "chain_sum", "evaluate.num_questions": 4, "evaluate.k": 2,
    "evaluate.max_tokens": 24,
}  # fmt: skip
TEXT = [[5, 6, 7, 8, 9, 10, 300, 301]]


@pytest.fixture
def traces(tmp_path):
    """Of another maker's form: problem and generations."""
    rows = [
        {"problem": f"{n} + 1 =", "generations": [f"<think> {n}+1={n + 1}. </think> <answer> {n + 1} </answer>"]}
        for n in range(16)
    ]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("weights", ["full", "lora", "qlora"])
def test_from_traces_to_a_plain_model(tmp_path, traces, tiny_base, weights):
    changes = SMALL | {"policy.weights": weights} | ({"sft.learning_rate": 3e-3} if weights == "full" else {})
    settings = config.distill("cpu", str(tiny_base), 0, changes)
    done = distill.start(settings, tmp_path / "run", traces)
    losses = [line["policy/loss"] for line in models._without_times(tmp_path / "run" / "sft" / "metrics.jsonl")]
    assert losses[-1] < 0.7 * losses[0]
    plain = AutoModelForCausalLM.from_pretrained(done, dtype=torch.float32).eval()
    taught = policy.load(models.newest(tmp_path / "run" / "sft"))
    with torch.no_grad():
        before_M, taught_M, plain_M = (policy.text_logp(m, TEXT) for m in (policy.load(tiny_base), taught, plain))
    rounded, moved = (plain_M - taught_M).abs().max(), (taught_M - before_M).abs().max()
    assert moved > 0.5 and rounded < moved / 4, (rounded, moved)  # written in bfloat16
    card = (done / "README.md").read_text(encoding="utf-8")
    assert "pass@1" in card and weights in card
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert distill.start(settings, tmp_path / "run", traces) == done
    assert {f: t for f, t in before.items() if f.name != distill.TRACES} == {
        file: file.stat().st_mtime_ns
        for file in (tmp_path / "run").rglob("*")
        if file.is_file() and file.name != distill.TRACES
    }


def test_the_settings_of_a_student_are_its_own():
    found = config.distill("gpu", "qwen-32b")
    assert found.base == "qwen-32b" and found.sft.learning_rate == 6e-5 and found.sft.final_share == 0.1
    assert (found.policy.weights, found.policy.dtype, found.policy.template) == ("qlora", "bfloat16", "chat")
    assert found.sft.policy == found.evaluate.policy == found.policy and found.machine.device == "cuda"
    assert config.distill("gpu", "qwen-32b", 0, {"profile": 80}).machine.max_rows > found.machine.max_rows
    with pytest.raises(Refusal, match="profile is 20: choose the next below"):
        config.distill("gpu", "qwen-32b", 0, {"profile": 20})


def test_what_is_not_there_is_refused_in_one_line(tmp_path, traces, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    words = ["distill", "--traces", str(traces), "--run-dir", str(tmp_path / "run"), "--tier"]
    for more, said in (
        (["gpu", "--student", "qwen-0.5b"], "machine.device is 'cuda', which is not here"),
        (["cpu", "--student", "qwen-9b"], "no model at qwen-9b"),
        (["cpu", "--student", "qwen-0.5b"], "HF_HUB_OFFLINE"),
        (["paper", "--student", "qwen-0.5b"], "trains nothing"),
    ):
        assert __main__.main([*words, *more]) == 2
        line = capsys.readouterr().err.splitlines()
        assert said in line[-1], line
    with pytest.raises(Refusal, match="no traces at .*gone"):
        distill.start(config.distill("cpu", "tiny-1m"), tmp_path / "other", tmp_path / "gone")


def test_another_teacher_needs_another_folder(tmp_path, traces, tiny_base):
    settings = config.distill("cpu", str(tiny_base), 0, SMALL | {"sft.epochs": 1})
    distill.start(settings, tmp_path / "run", traces)
    other = tmp_path / "other.jsonl"
    other.write_text(traces.read_text())
    with pytest.raises(Refusal, match="is of the traces .*traces.jsonl, not .*other.jsonl: choose another run_dir"):
        distill.start(settings, tmp_path / "run", other)


def test_tokens_that_were_made_before_are_learnt_from(tmp_path, traces, tiny_base, monkeypatch, capsys):
    settings, run = config.distill("cpu", str(tiny_base), 0, SMALL | {"sft.epochs": 1}), tmp_path / "run"
    words = ["tokenise", "--student", str(tiny_base), "--traces", str(traces), "--run-dir", str(run), "--shared"]
    assert __main__.main([*words, "--set", *(f"{k}={v}" for k, v in SMALL.items())]) == 2
    assert f"mkdir -p {run} once" in capsys.readouterr().err
    run.mkdir()
    assert __main__.main([*words, "--set", *(f"{k}={v}" for k, v in SMALL.items())]) == 0
    monkeypatch.setattr("r1repro.stages.traces.example", lambda *_: 1 / 0)
    taught = distill.sft.train(settings.sft, run / "sft", tiny_base, traces, settings.machine)
    assert (taught / "checkpoint.json").exists()
    with pytest.raises(Refusal, match="sft is trained already"):
        distill.tokenise(settings, run, traces)


# --- processes of their own


def test_a_child_does_what_its_parent_would(tmp_path, tiny_base):
    changes = {"base": str(tiny_base), "rl.num_rollouts": 2, "rl.num_checkpoints": 1, "rl.questions_per_step": 2}
    changes |= {"rl.outputs_per_question": 2, "rl.max_tokens": 8, "evaluate.num_questions": 2, "evaluate.max_tokens": 8}
    settings = config.r1_zero("smoke", 0, changes)
    child.run("r1_zero", settings, tmp_path / "child")
    here = rl.train(settings.rl, tmp_path / "here", tiny_base, settings.machine)
    lines = [models._without_times(run / "metrics.jsonl") for run in (tmp_path / "child" / "r1_zero", here)]
    assert lines[0] == lines[1] and len(lines[0]) == 4
    assert len(list((tmp_path / "child" / "evaluate").glob("*/summary.json"))) == 2
    assert not (tmp_path / "child" / "child.json").exists()


def test_a_childs_refusal_is_its_parents(tmp_path):
    with pytest.raises(Refusal, match="no model at .*nowhere") as caught:
        child.run("r1_zero", config.r1_zero("smoke", 0, {"base": str(tmp_path / "nowhere")}), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_child_that_dies_is_told_with_its_code(tmp_path, monkeypatch):
    monkeypatch.setattr(child.sys, "executable", "/bin/false")
    with pytest.raises(Refusal, match="ended with code 1 .*goes on from its last checkpoint"):
        child.run("r1_zero", config.r1_zero("smoke"), tmp_path / "run")


def test_a_full_gpu_names_the_knobs():
    machine = config.Machine(micro_batch_tokens=777)
    with pytest.raises(Refusal, match="machine.recompute=true.*micro_batch_tokens.*777.*max_rows") as caught:
        with child.speaking_of_memory(machine):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "\n" not in str(caught.value)


def test_only_a_gpu_gets_a_child(monkeypatch):
    assert child.runs_here(config.Machine()) and not child.runs_here(config.Machine(device="cuda"))
    monkeypatch.setenv(child.MARK, "1")
    assert child.runs_here(config.Machine(device="cuda"))
    assert base.MAIN == config.r1_zero("cpu").base


# --- stages of the pipeline as processes of their own


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """This machine counts as one with a GPU; returns how to do in this process what a child would, which is slow to
    start."""

    def here(command):
        with monkeypatch.context() as patch:
            patch.setenv(child.MARK, "1")
            assert child.main(Path(command[-1])) == 0

    monkeypatch.setattr(child, "runs_here", lambda machine: child.MARK in child.os.environ)
    return lambda: monkeypatch.setattr(child, "_wait", here)


PIPELINE = {
    "evaluate.num_questions": 2, "evaluate.k": 2, "evaluate.max_tokens": 8, "evaluate_open.num_questions": 2,
    "evaluate_open.k": 2, "evaluate_open.max_tokens": 8, "machine.device": "cpu", "policy.sampler": "torch",
    "policy.weights": "lora", "policy.rank": 4, "policy.dtype": "float32",
}  # fmt: skip


def test_a_stage_of_the_pipeline_is_a_child_and_so_is_what_a_notebook_asks(tmp_path, tiny_base, as_on_a_gpu):
    settings = config.r1("gpu", 0, PIPELINE | {"base": str(tiny_base)})
    with pytest.raises(Refusal, match=r"^.*dev1/sft holds no finished model: run the notebook that makes dev1 first$"):
        r1.reasoning_rl(settings, tmp_path)  # a real child
    as_on_a_gpu()
    found = r1.measure(settings, tmp_path, "base")
    assert found == (tmp_path / "models/base/reasoning", tmp_path / "models/base/open")
    assert read_json(found[0] / "manifest.json")["exit"] == "complete"
    folder = tmp_path / "reward"
    scorer.load(tiny_base, 1).save_pretrained(folder)
    full = replace(settings, policy=config.Policy())
    texts = ["the sea", "is cold"]
    assert r1.scores(full, folder, texts) == tuple(scorer.scores(scorer.load(folder), texts).tolist())
    manner = chat.settings(3, {"max_tokens": 6})
    assert chat.answers(tiny_base, ["57 + 87 ="], manner, full) == chat.answers(tiny_base, ["57 + 87 ="], manner)


def test_a_device_that_is_not_here_is_refused_before_a_child_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(Refusal, match="machine.device is 'cuda', which is not here"):
        r1.cold_start(config.r1("gpu"), tmp_path)
    monkeypatch.setattr(actor, "check_device", lambda device: None)
    with pytest.raises(Refusal, match="machine.ranks is 8, but this machine has 0 GPUs"):
        r1.cold_start(config.r1("node"), tmp_path)


def test_asking_for_a_gpu_takes_none_of_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: 1 / 0)
    for device in ("cuda", "cuda:0"):
        actor.check_device(device)
    with pytest.raises(Refusal, match="machine.device is 'cuda:1', which is not here"):
        actor.check_device("cuda:1")


def test_what_a_child_is_told_and_tells_keeps_its_kind():
    told = ("text", 2, 0.1, [Path("a/b"), None], True)
    assert child._whole(json.loads(json.dumps(child._plain(told)))) == ("text", 2, 0.1, (Path("a/b"), None), True)
    settings = config.r1("gpu", 5, {"students": ["qwen-7b", "llama-8b"], "profile": 48})
    assert child.read_settings("r1", json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
