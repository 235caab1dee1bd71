"""Shapes of models: what of a config.json decides about memory and time.

Axes and letters: L layers, D width, H heads, K heads of keys, W width of a head, F width of the feed-forward layer,
V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1repro import students
from r1repro.engine import hub
from r1repro.records import Refusal
from r1repro.run import read_json
from r1repro.tinyworld import base


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder with grouped queries and a gated feed-forward layer: Qwen2, Qwen3, Llama, Mistral."""

    name: str
    layers: int
    width: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    """Width of the feed-forward layer."""

    vocabulary: int
    is_tied: bool
    """Whether the head is the embedding."""

    has_bias: bool
    """Whether queries, keys and values have biases (Qwen2)."""

    max_positions: int = 0
    """Positions that the model was made for; 0: not known."""

    @property
    def queries(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of all heads of keys together; that of values is the same."""
        return self.key_heads * self.head_width

    @property
    def linear(self) -> int:
        """Weights of the linear layers, the head left out: what adapters stand beside, and what 4 bits are for."""
        return self.layers * (2 * self.width * (self.queries + self.keys) + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        """Weights of the head: it computes, whether it is the embedding or not."""
        return self.vocabulary * self.width

    @property
    def others(self) -> int:
        """All other weights: embedding, head, norms, biases."""
        biases = self.layers * (self.queries + 2 * self.keys) * self.has_bias
        return self.head * (1 if self.is_tied else 2) + (2 * self.layers + 1) * self.width + biases

    @property
    def parameters(self) -> int:
        """
        >>> round(shape("qwen-7b").parameters / 1e9, 2), round(shape("llama-70b").parameters / 1e9, 1)
        (7.62, 70.6)
        """
        return self.linear + self.others

    def adapters(self, rank: int) -> int:
        """Weights of one adapter beside every linear layer: rank * (inputs + outputs) each."""
        wide = (self.width + self.queries) * 2 + (self.width + self.keys) * 2 + (self.width + self.inner) * 3
        return self.layers * rank * wide


_QWEN, _LLAMA = dict(has_bias=True, vocabulary=152_064), dict(has_bias=False, vocabulary=128_256)
_TIED = dict(has_bias=True, vocabulary=151_936, is_tied=True)

_KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": dict(layers=24, width=896, heads=14, key_heads=2, inner=4864, max_positions=32768, **_TIED),
    "Qwen/Qwen2.5-1.5B": dict(layers=28, width=1536, heads=12, key_heads=2, inner=8960, max_positions=131072, **_TIED),
    "Qwen/Qwen2.5-Math-1.5B": dict(
        layers=28, width=1536, heads=12, key_heads=2, inner=8960, max_positions=4096, **_TIED
    ),
    "Qwen/Qwen2.5-3B": dict(layers=36, width=2048, heads=16, key_heads=2, inner=11008, max_positions=32768, **_TIED),
    "Qwen/Qwen2.5-Math-7B": dict(
        layers=28, width=3584, heads=28, key_heads=4, inner=18944, max_positions=4096, **_QWEN
    ),
    "Qwen/Qwen2.5-14B": dict(layers=48, width=5120, heads=40, key_heads=8, inner=13824, max_positions=131072, **_QWEN),
    "Qwen/Qwen2.5-32B": dict(layers=64, width=5120, heads=40, key_heads=8, inner=27648, max_positions=131072, **_QWEN),
    "meta-llama/Llama-3.1-8B": dict(
        layers=32, width=4096, heads=32, key_heads=8, inner=14336, max_positions=131072, **_LLAMA
    ),
    "meta-llama/Llama-3.3-70B-Instruct": dict(
        layers=80, width=8192, heads=64, key_heads=8, inner=28672, max_positions=131072, **_LLAMA
    ),
}
"""Bases of the students by their id on Hugging Face, from the config.json that stands there: a plan downloads
nothing."""


def shape(name: str) -> Shape:
    """The shape of a student by name, of a base of the tiny world, or of a folder with a config.json.

    Raises:
        Refusal: nothing of that name, or a model of another kind.

    >>> shape("qwen-0.5b").layers, shape("qwen-0.5b").keys
    (24, 128)
    """
    known = students.students().get(name)
    if known and known.base in _KNOWN:
        values = {"is_tied": False} | _KNOWN[known.base]
        return Shape(name=name, head_width=values["width"] // values["heads"], **values)
    folder = base.folder(name) if name in base.SHAPES else Path(name) if Path(name).is_dir() else hub.folder(name)
    return of_config(read_json(folder / "config.json"), name)


def of_config(config: Mapping[str, Any], name: str = "model") -> Shape:
    """The shape that a config.json describes.

    Raises:
        Refusal: it describes another kind of model.
    """
    try:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        return Shape(
            name=name,
            layers=config["num_hidden_layers"],
            width=width,
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or width // heads,
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            is_tied=bool(config.get("tie_word_embeddings", False)),
            has_bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
            max_positions=config.get("max_position_embeddings", 0),
        )
    except (KeyError, TypeError) as error:
        raise Refusal(
            f"the config.json of {name} lacks {error}: plans are for models of the kind of Qwen2 and Llama"
        ) from error
