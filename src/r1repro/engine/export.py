"""A checkpoint as one plain folder of Hugging Face: merged weights, tokenizer, settings of sampling, a model card.

It loads wherever such folders load, without peft, bitsandbytes or this package.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from r1repro.config import DTYPES, Evaluate, Policy
from r1repro.engine import adapters, card, checkpoint, hub, policy, vocabulary
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal
from r1repro.run import read_json, readable, speaking_of, write_text

SCORERS = ("reward_model", "process_reward")
"""Stages whose models end in a score in the place of a head."""

SHARD = "5GB"
"""Size of a file of weights at most."""


def export(
    model: Path | str,
    target: Path | str,
    held: Policy | None = None,
    *,
    dtype: str = "bfloat16",
    base: str | None = None,
    evaluation: Path | str | None = None,
    max_positions: int = 0,
) -> Path:
    """Write the model of a folder to ``target``; returns that.  Written beside it first and renamed, so it is whole.

    Args:
        model: a checkpoint, of all weights or of an adapter, or any folder in Hugging Face form.
        held: how it was trained, for the card, and its template; None: as the adapter or the manifest of its run says.
        dtype: of the weights that are written.
        base: id of its base on Hugging Face, for the card; None: as the run or the base's folder says.
        evaluation: folder of an evaluation whose summary the card is to show.
        max_positions: of the context, at least; see `hub.extended`.

    Where the paper is silent:
        An adapter beside weights in 4 bits is merged into those 4-bit weights, dequantised, for it was trained beside
        them and not beside the weights before.
        Sampling is set as the paper evaluates (section 3), and every token that ends an output is named.

    Raises:
        Refusal: ``target`` is there; no model, see `policy.load` and `vocabulary.of`; the disk is full.
    """
    model, target = Path(model), Path(target)
    if dtype not in DTYPES:
        raise Refusal(f"dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
    if target.exists():
        raise Refusal(f"{target} is there already and is not overwritten: choose another folder, or move it away")
    summary = _summary(evaluation)
    manifest = _manifest(model)
    if manifest.get("stage") in SCORERS:
        raise Refusal(
            f"{model} is a reward model and writes nothing: give a policy's folder, such as out/cpu/seed-0/r1_zero"
        )
    beside = adapters.base_of(model)
    held = held or (adapters.held_of(model) if beside else _held(manifest, model))
    plain = _merged(model, beside, getattr(torch, dtype)) if beside else policy.load(model, getattr(torch, dtype))
    words = vocabulary.of(_with_tokenizer(model, beside), held.template, plain.get_input_embeddings().num_embeddings)
    plain.generation_config = _sampling(words)
    if getattr(plain.config, "max_position_embeddings", max_positions) < max_positions:
        plain.config.max_position_embeddings = max_positions
    base = base or manifest.get("base") or hub.origin(beside or model)
    text = card.card(target.name, plain, held, words, manifest, base=base, summary=summary)
    temporary = target.with_name(target.name + ".tmp")
    with speaking_of(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            plain.save_pretrained(temporary, max_shard_size=SHARD)
        except SafetensorError as error:
            raise OSError(error) from error
        checkpoint.save_tokenizer(words.tokenizer, temporary)
        write_text(temporary / "README.md", text)
        os.replace(temporary, target)
    return target


def _merged(model: Path, base: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The plain model that computes as an adapter beside its base; the base is in memory once more while it is made."""
    weights = adapters.merged(policy.load(model, held=adapters.held_of(model)), dtype)
    with torch.device("meta"):  # a frame without weights
        frame = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=dtype)
    missing, unexpected = frame.load_state_dict(weights, strict=False, assign=True)
    frame.tie_weights()
    assert not unexpected and not any(p.is_meta for p in frame.parameters()), (missing, unexpected)
    return frame


def _sampling(words: Vocabulary) -> GenerationConfig:
    """Base models come with caps and greedy sampling of their own, which would cut or loop a long output."""
    paper = Evaluate()
    return GenerationConfig(
        do_sample=True, temperature=paper.temperature, top_p=paper.top_p, pad_token_id=words.pad,
        bos_token_id=words.tokenizer.bos_token_id, eos_token_id=list(words.ends),
    )  # fmt: skip


def _with_tokenizer(model: Path, base: Path | None) -> Path:
    own = any((model / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    return model if own or base is None else base


def _manifest(model: Path) -> dict[str, Any]:
    """Of the run that a checkpoint belongs to; empty where there is none."""
    file = model.parent.parent / "manifest.json"
    if model.parent.name != "checkpoints" or not file.exists():
        return {}
    found = read_json(file)
    return found if isinstance(found, dict) else {}


def _held(manifest: dict[str, Any], model: Path) -> Policy:
    with readable(model.parent.parent / "manifest.json"):
        return Policy(**manifest.get("config", {}).get("policy", {}))


def _summary(evaluation: Path | str | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    file = Path(evaluation) / "summary.json"
    if not file.exists():
        raise Refusal(f"no evaluation at {evaluation}: give the folder of a run of `python -m r1repro evaluate`")
    return read_json(file)
