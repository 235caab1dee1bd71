"""An exported model is plain, whole and the same: no peft to load it, no number moved but by rounding."""

import json
import os
import subprocess
import sys

import models
import pytest
import torch
import yaml
from test_sft import ROWS, settings
from test_vocabulary import PREFILLED, id_of
from test_vocabulary import made as save_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1repro import __main__ as cli
from r1repro import paper
from r1repro.config import Policy
from r1repro.engine import actor, adapters, checkpoint, export, policy
from r1repro.records import Refusal
from r1repro.run import append_lines, read_json, write_json
from r1repro.stages import sft

TEXTS = [[5, 9, 30, 200, 7, 8, 90, 11], [700, 3, 3, 12]]


def logp(model):
    with torch.no_grad():
        return policy.text_logp(model, TEXTS).float()


def adapted(folder, held, kind="qwen2", scale=0.1):
    """A checkpoint of an adapter that moves the model, and its log-probabilities."""
    base = folder / "base"
    models.build(kind, size=1024, dtype=torch.float32).save_pretrained(base)
    made = actor.load(base, held, trained=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        before = logp(made.model)
        for parameter in adapters._own(made.model, adapters.POLICY).values():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))
        after = logp(made.model)
    assert (after - before).abs().max() > 0.5
    return checkpoint.save_(folder / "run", 1, made.model, made.vocabulary.tokenizer), after


LORA, QLORA = (Policy(weights=weights, rank=4, alpha=8) for weights in ("lora", "qlora"))


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("held", [LORA, QLORA], ids=["lora", "qlora"])
def test_a_merged_adapter_computes_as_it_did(tmp_path, kind, held):
    """To 1e-4 nats in single precision: sums in another order."""
    saved, wanted = adapted(tmp_path, held, kind)
    done = export.export(saved, tmp_path / "plain", held, dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(done, dtype=torch.float32).eval()
    assert type(plain).__module__.startswith("transformers.models") and not adapters.has(plain)
    assert (logp(plain) - wanted).abs().max() < 1e-4
    assert not (done / adapters.CONFIG).exists() and "quantization_config" not in read_json(done / "config.json")


def test_weights_in_4_bits_are_merged_as_they_were_trained_beside(tmp_path):
    """Merged into the weights before their quantisation, as a stranger's adapter is, the model would be another."""
    saved, wanted = adapted(tmp_path, QLORA)
    said = AutoModelForCausalLM.from_pretrained(export.export(saved, tmp_path / "said", dtype="float32"))
    assert "4 bits (NF4)" in (tmp_path / "said" / "README.md").read_text()
    for name in (adapters.HELD, "checkpoint.json"):
        (saved / name).unlink()
    other = AutoModelForCausalLM.from_pretrained(export.export(saved, tmp_path / "other", dtype="float32"))
    assert (logp(said.eval()) - wanted).abs().max() < 1e-4 < 0.1 < (logp(other.eval()) - wanted).abs().max()


def test_4_bit_weights_are_the_same_before_and_after_a_pass_without_gradient(tmp_path):
    """bitsandbytes would repack them on some CPUs, with rounded scales; and training would see others than sampling."""
    saved, _ = adapted(tmp_path, QLORA)
    model = policy.load(saved, held=QLORA)
    layer = model.get_submodule("model.layers.0.mlp.up_proj").get_base_layer()
    before = adapters.plain_weight(layer)
    sampled = logp(model)
    trained = policy.text_logp(model, TEXTS)
    assert trained.requires_grad and (trained.detach() - sampled).abs().max() < 1e-5
    assert torch.equal(adapters.plain_weight(layer), before)
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)


@pytest.mark.parametrize(("dtype", "at_most"), [("bfloat16", 0.3), ("float16", 0.04)])
def test_rounding_moves_it_a_little(tmp_path, dtype, at_most):
    """Log-probabilities in nats, of a random model with large weights, computed in single precision."""
    saved, wanted = adapted(tmp_path, LORA)
    done = export.export(saved, tmp_path / "plain", LORA, dtype=dtype)
    assert AutoModelForCausalLM.from_pretrained(done).dtype == getattr(torch, dtype)
    plain = AutoModelForCausalLM.from_pretrained(done, dtype=torch.float32).eval()
    assert 0 < (logp(plain) - wanted).abs().max() < at_most


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base):
    """A run of supervised fine-tuning that trains adapters."""
    place = tmp_path_factory.mktemp("export")
    append_lines(place / "examples.jsonl", ROWS)
    cfg = settings(policy=Policy(weights="lora", rank=4, alpha=8))
    sft.train(cfg, place / "run", tiny_base, place / "examples.jsonl")
    return place / "run"


def test_the_whole_way_from_a_run_to_a_program_without_peft(tmp_path, trained, capfd):
    """As a stranger loads it, in a process that has neither peft nor this package."""
    target = tmp_path / "student"
    assert cli.main(["export", "--model", str(trained), "--to", str(target), "--dtype", "float32"]) == 0
    assert capfd.readouterr().out.strip() == str(target)
    (saved,) = (trained / "checkpoints").iterdir()
    wanted = logp(policy.load(saved, held=Policy(weights="lora", rank=4, alpha=8)))
    code = f"""
import json, sys
sys.modules |= dict.fromkeys(("peft", "bitsandbytes", "r1repro"))
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(target)!r})
tokenizer = AutoTokenizer.from_pretrained({str(target)!r})
found = []
for text in {TEXTS}:
    ids = torch.tensor([text])
    logp = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
    found += logp.gather(-1, ids[0, 1:, None]).squeeze(-1).tolist()
print(json.dumps([found, tokenizer("<think> 1")["input_ids"]]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, ids = json.loads(done.stdout.splitlines()[-1])
    assert found == pytest.approx(wanted.tolist(), abs=1e-4) and len(ids) > 1


def test_all_weights_are_copied_to_the_bit(tmp_path, tiny_base):
    done = export.export(tiny_base, tmp_path / "plain", dtype="float32")
    before, after = (policy.load(folder).state_dict() for folder in (tiny_base, done))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_all_weights_are_stored_as_asked(tmp_path, tiny_base):
    done = export.export(tiny_base, tmp_path / "plain")
    assert AutoModelForCausalLM.from_pretrained(done).dtype == torch.bfloat16
    assert policy.load(tiny_base).dtype == torch.float32


def test_it_is_the_policy_that_is_merged_and_not_the_reference(tmp_path):
    made, _ = adapted(tmp_path, LORA)
    model = policy.load(made, held=LORA)
    wanted = logp(model)
    for parameter in adapters._own(model, adapters.REFERENCE).values():
        parameter.data.zero_()
    plain = policy.load(tmp_path / "base")
    plain.load_state_dict(adapters.merged(model), strict=False)
    assert (logp(plain) - wanted).abs().max() < 1e-4


def test_large_weights_come_in_shards(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr(export, "SHARD", "60KB")
    done = export.export(tiny_base, tmp_path / "plain", dtype="float32")
    assert (done / "model.safetensors.index.json").exists() and len(list(done.glob("*.safetensors"))) > 1
    assert torch.equal(logp(policy.load(done)), logp(policy.load(tiny_base)))


def test_sampling_is_the_papers_and_stops_at_every_end(tmp_path):
    """A base brings a cap of its own (Qwen2.5: 2,048 tokens), and ends that its chat template does not use."""
    base = save_tokenizer(tmp_path / "base", PREFILLED, tags=[("<think>", False)])
    size = read_json(base / "config.json")["vocab_size"]
    models.build("llama", size=size, dtype=torch.float32).save_pretrained(base)
    write_json(base / "generation_config.json", {"max_new_tokens": 2048, "eos_token_id": id_of("<|end|>")})
    done = export.export(base, tmp_path / "plain", Policy(template="chat"), max_positions=131072)
    found = GenerationConfig.from_pretrained(done)
    assert set(found.eos_token_id) == {id_of("<|turn|>"), id_of("<|end|>")} and found.max_new_tokens is None
    assert (found.temperature, found.top_p, found.do_sample) == (0.6, 0.95, True)
    assert found.temperature == paper.constant("evaluation", "temperature")
    assert AutoTokenizer.from_pretrained(done).chat_template == PREFILLED
    assert read_json(done / "config.json")["max_position_embeddings"] == 131072
    text = (done / "README.md").read_text()
    assert "apply_chat_template" in text and "The template writes `<think>` itself" in text
    assert "Table 1" not in text and "add_special_tokens=False" in text


def test_the_card_says_what_it_was_made_of(tmp_path, trained):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    write_json(evaluation / "summary.json", {"questions": 30, "pass@1": 0.289, "by_family": {"sums": 1}})
    (saved,) = (trained / "checkpoints").iterdir()
    done = export.export(saved, tmp_path / "student", base="Qwen/Qwen2.5-3B@abc", evaluation=evaluation)
    text = (done / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "base_model": "Qwen/Qwen2.5-3B",
        "base_model_revision": "abc", "license": "other", "license_name": "qwen-research",
        "license_link": "https://huggingface.co/Qwen/Qwen2.5-3B", "tags": ["r1repro", "reasoning", "sft"],
    }  # fmt: skip
    manifest = read_json(trained / "manifest.json")
    for fact in (
        *manifest["inputs"].values(),
        manifest["commit"] or "rank 4",
        "rank 4 and alpha 8",
        "| pass@1 | 0.289 |",
        "bfloat16",
    ):
        assert str(fact) in body
    assert f"| tokens trained on | {manifest['tokens']['trained']} |" in body and "by_family" not in body
    assert paper.template("QUESTION") in body and '"learning_rate": 0.003' in body


@pytest.mark.parametrize(
    ("base", "licence", "built"),
    [
        ("Qwen/Qwen2.5-0.5B", {"license": "apache-2.0"}, False),
        ("meta-llama/Llama-3.1-8B@1", {"license": "other", "license_name": "llama-3.1-community"}, True),
        ("someone/else", {}, False),
        (None, {}, False),
    ],
)
def test_the_licence_is_that_of_the_base_or_not_said(tmp_path, tiny_base, base, licence, built):
    text = (export.export(tiny_base, tmp_path / "x", base=base) / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert {key: header[key] for key in header if key in ("license", "license_name")} == licence
    assert header.get("base_model") == (base and base.partition("@")[0]) and ("Built with Llama" in text) == built
    assert ("not known here" in text) == (not licence)


def test_nothing_is_overwritten_and_half_of_nothing_stays(tmp_path, tiny_base, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(Refusal, match="there is there already and is not overwritten"):
        export.export(tiny_base, tmp_path / "there")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_text", full)
    with pytest.raises(Refusal, match="the disk is full"):
        export.export(tiny_base, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert (export.export(tiny_base, tmp_path / "new") / "README.md").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "int8"}, "'int8': choose one of float32, bfloat16, float16"),
        ({"evaluation": "nowhere"}, "no evaluation at nowhere"),
        ({"model": "nowhere"}, "no model at nowhere"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, tiny_base, change, reason):
    with pytest.raises(Refusal, match=reason):
        export.export(**{"model": tiny_base, "target": tmp_path / "x"} | change)
    assert not list(tmp_path.iterdir())
