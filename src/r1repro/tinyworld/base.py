"""The base models of the tiny world: a million parameters and less, Qwen2 and Llama architectures, committed."""

import hashlib
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from r1repro.records import Refusal
from r1repro.run import read_json, sha256_file
from r1repro.tinyworld import tokenizer

SHAPES = {
    "tiny-1m": dict(hidden_size=128, intermediate_size=448, num_hidden_layers=4),
    "qwen-140k": dict(hidden_size=48, intermediate_size=160, num_hidden_layers=3),
    "qwen-280k": dict(hidden_size=64, intermediate_size=208, num_hidden_layers=4),
    "qwen-580k": dict(hidden_size=96, intermediate_size=320, num_hidden_layers=4),
    "llama-220k": dict(hidden_size=64, intermediate_size=208, num_hidden_layers=3),
    "llama-400k": dict(hidden_size=80, intermediate_size=256, num_hidden_layers=4),
}
"""Name -> what differs from `new`'s other settings.  The first is what R1-Zero and R1 start from, the others are the
students' bases; the architecture is in the name."""

ARCHITECTURES = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}

MAIN = "tiny-1m"
STUDENTS = tuple(name for name in SHAPES if name != MAIN)


def folder(name: str) -> Path:
    """Where the committed base model lies; `make base` writes it."""
    path = tokenizer.ASSETS / name
    if not (path / "model.safetensors").exists():
        raise Refusal(f"no base model at {path}: restore it with `git checkout`, or train it anew with `make base`")
    return path


def digest(path: Path | str) -> str:
    """SHA-256 of a model's weights and configuration, those of its base too where it is an adapter."""
    path = Path(path)
    about = path / "adapter_config.json"
    if about.exists():
        base = digest(read_json(about)["base_model_name_or_path"])
        return hashlib.sha256(f"{base}\n{sha256_file(path / 'adapter_model.safetensors')}".encode()).hexdigest()
    if not (path / "config.json").exists():
        raise Refusal(
            f"no base model at {path}: give the folder of a Hugging Face model, or restore it with `make base`"
        )
    files = [
        path / "config.json",
        *sorted([*path.glob("model*.safetensors"), *path.glob("shards/model/*.safetensors")]),
    ]
    return hashlib.sha256("".join(f"{file.name}:{sha256_file(file)}\n" for file in files).encode()).hexdigest()


def new(name: str, seed: int) -> PreTrainedModel:
    """An untrained model of a named shape, its weights drawn from ``seed``."""
    if name not in SHAPES:
        raise Refusal(f"no base model called {name!r}: choose one of {', '.join(SHAPES)}")
    config_of, model_of = ARCHITECTURES["llama" if name.startswith("llama") else "qwen"]
    shape = {"num_attention_heads": 4} | SHAPES[name]
    config = config_of(
        vocab_size=tokenizer.VOCABULARY,
        num_key_value_heads=shape["num_attention_heads"] // 2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.load().eos_token_id,
        pad_token_id=tokenizer.load().pad_token_id,
        bos_token_id=None,
        **shape,
    )
    torch.manual_seed(seed)
    return model_of(config)
