"""A model that is trained in full and cut up over the ranks: FSDP2 (`fully_shard`), for what no single GPU holds.

Each rank keeps its rows of every weight, gradient and moment; a layer is whole on each rank while it computes.  The
numbers are those of one rank, up to the order of sums.  What the library leaves open:

- The head of a tied model is the embedding, which is kept whole from a pass to its gradient.
- Ranks must ask for the same layers in the same order, or they wait for each other for ever: so they agree on the
  number of their micro-batches (`evened`), and on what prompts have in common.
- A weight that has been trained is stale where it is still whole: `rest_` ends that after a pass without a gradient.

Checkpoints are safetensors that each rank writes its rows of, and that any number of ranks reads.
"""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from r1repro.engine import dist
from r1repro.records import Refusal

SHARDS = "shards"
"""Folder of a checkpoint, with one of these in it: ``model``, ``optimizer``, ``reference``."""


def is_cut(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


class TiedHead(nn.Module):
    """The head that is the embedding: it reads that one's weight, whole or not, and has none of its own."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self._embedding = (embedding,)

    @property
    def weight(self) -> Tensor:
        return self._embedding[0].weight

    def forward(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.weight)


def check_ranks() -> None:
    if not torch.distributed.is_initialized():
        raise Refusal("machine.shard cuts weights up over ranks: there are none: set machine.launcher, or shard=false")


def cut_(model: PreTrainedModel) -> None:
    """Cut a model's weights up over the ranks; an optimiser has to be made after that.

    Raises:
        Refusal: there is no process group.
    """
    check_ranks()
    body, embedding = model.base_model, model.get_input_embeddings()
    head = model.get_output_embeddings() or model.score  # that of a reward model
    if head.weight is embedding.weight:
        model.set_output_embeddings(TiedHead(embedding))
    else:
        fully_shard(head, reshard_after_forward=False)
    for layer in layers_of(model):
        fully_shard(layer)
    fully_shard(embedding, reshard_after_forward=False)
    fully_shard(body)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # token weights are made for the whole step
            module.set_force_sum_reduction_for_comms(True)  # the one that gloo has


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    return next(module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))


def rest_(model: nn.Module) -> None:
    """Give up what is whole: after it the rows that this rank keeps are all that there is."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def evened(count: int, model: nn.Module) -> int:
    """How many micro-batches every rank goes through, where this one has ``count``."""
    return int(dist.most(count)) if is_cut(model) else count


def load(
    folder: Path, device: str, kind: type = AutoModelForCausalLM, new: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """The model of a folder in Hugging Face form, or of a checkpoint that was cut up, in single precision; each rank
    reads its rows alone.

    Args:
        kind: the library's class for it, of language models or of models with a score.
        new: weights that are not taken from the folder, by name.
    """
    with torch.device("meta"):
        model = _unfilled(folder, torch.float32, kind)
    cut_(model)
    model.to_empty(device=device)
    body = model.base_model
    body.rotary_emb = type(body.rotary_emb)(config=model.config).to(device)  # its buffers are in no file
    _fill_all_(model, folder, new or {})
    return model


def whole(
    folder: Path, dtype: torch.dtype, kind: type = AutoModelForCausalLM, new: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """The plain model of a checkpoint that was cut up, in one process; see `load`."""
    model = _unfilled(folder, dtype, kind)
    _fill_all_(model, folder, new or {})
    model.tie_weights()
    return model.eval()


def _unfilled(folder: Path, dtype: torch.dtype, kind: type) -> PreTrainedModel:
    score = {"num_labels": 1} if kind is AutoModelForSequenceClassification else {}
    return kind.from_config(AutoConfig.from_pretrained(folder, **score), dtype=dtype)


@torch.no_grad()
def _fill_all_(model: PreTrainedModel, folder: Path, new: Mapping[str, Tensor]) -> None:
    weights = dict(model.named_parameters())
    fill_({name: weight for name, weight in weights.items() if name not in new}, folder, "model")
    for name, value in new.items():
        weight = weights[name]
        cut = hasattr(weight, "device_mesh")
        value = value.to(weight.device, weight.dtype)
        weight.copy_(distribute_tensor(value, weight.device_mesh, weight.placements) if cut else value)


def full(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The whole weights, one after the other: all ranks must ask, and for all."""
    rest_(model)
    for name, weight in model.named_parameters():
        yield name, weight.detach().full_tensor()


@torch.no_grad()
def copy_into_(plain: nn.Module, model: nn.Module) -> None:
    """Make a whole model of the same kind compute what the cut one does."""
    targets = dict(plain.named_parameters())
    for name, weight in full(model):
        targets[name].copy_(weight)


def save_plain(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> Path:
    """Have the whole model in ``folder`` on each node, as one that needs none of this; all ranks must ask.

    The first rank of a node writes it, and alone holds it whole in main memory.
    """
    writes = int(os.environ.get("LOCAL_RANK", 0)) == 0
    weights = {}
    for name, weight in full(model):
        if writes:
            weights[name] = weight.to("cpu", dtype)
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        about = copy.deepcopy(model.config)
        about.dtype = dtype
        about.save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    dist.meet()
    return folder


def save_(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that are cut up, each rank its rows."""
    with _told(folder):
        dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What went wrong on any rank as the error that it was there, or in a line."""
    try:
        yield
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        if isinstance(first, OSError):
            raise first from error
        reason = " ".join(str(first).strip().splitlines()[:1])
        raise Refusal(f"{folder} holds other weights than this model has ({reason}): give another folder") from error


def fill_(tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    """Fill tensors in place from the ``model``, ``optimizer`` or ``reference`` of a checkpoint, whether they, or its
    files, are cut up or not."""
    rows = folder / SHARDS / name
    reader = HuggingFaceStorageReader(str(rows if rows.is_dir() else folder))
    reader.fs = Only("*.safetensors" if rows.is_dir() else f"{name}*.safetensors")
    alone = dist.num_ranks() == 1
    with warnings.catch_warnings(), _told(folder):
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load({key: t.detach() for key, t in tensors.items()}, storage_reader=reader, no_dist=alone)


class Only(FileSystem):
    """Files whose names fit a pattern: a checkpoint of one rank has its parts side by side in one folder."""

    def __init__(self, pattern: str):
        super().__init__()
        self._pattern = pattern

    def ls(self, path: str) -> list[str]:
        return [file for file in super().ls(path) if fnmatch(Path(file).name, self._pattern)]
