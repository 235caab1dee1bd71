"""Checkpoints: a folder in Hugging Face form with the optimiser, the reference and the data position beside it.

    step-000048/  config.json model*.safetensors tokenizer.json ...  the policy: loads anywhere
                  optimizer.safetensors                              AdamW's moments, by parameter name
                  reference.safetensors                              the reference policy, where there is one
                  shards/model/ shards/optimizer/ ...                in their place, where a model is cut up
                  checkpoint.json                                    step, state, SHA-256 of every other file

Written as `step-000048.tmp` and renamed, so a folder with the final name is whole.  No pickle anywhere.
"""

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1repro.engine import adapters, dist, fsdp
from r1repro.records import Refusal
from r1repro.run import read_json, sha256_file, speaking_of, write_json


def folder_of(run: Path, step: int) -> Path:
    return Path(run) / "checkpoints" / f"step-{step:06d}"


def steps_in(run: Path) -> list[int]:
    """Steps of the whole checkpoints of a run, in order."""
    return sorted(int(p.name[5:]) for p in (Path(run) / "checkpoints").glob("step-??????") if p.is_dir())


def end_of(run: Path, name: str = "it") -> Path:
    """The model at the end of a run; on several ranks all must ask.

    Args:
        name: what the run makes, for the refusal.

    Raises:
        Refusal: the run has not come to its end.
    """

    def found() -> Path:
        steps = steps_in(run)
        if not steps or read_json(Path(run) / "manifest.json")["exit"] != "complete":
            raise Refusal(f"{run} holds no finished model: run the notebook that makes {name} first")
        return folder_of(run, steps[-1])

    return dist.led(found)


def save_(
    run: Path,
    step: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    reference: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of ``step``; returns its folder.  A full disk is a Refusal and leaves earlier ones
    intact.  All ranks must ask for it; the first one writes, and each its rows of what is cut up.

    Args:
        reference: weights of the reference policy, see `own_tensors`.
    """
    folder = folder_of(run, step)
    temporary = folder.with_suffix(".tmp")
    fsdp.rest_(model)
    kept = {"optimizer": _moments(model, optimizer)} if optimizer is not None else {}
    kept |= {"reference": dict(reference)} if reference is not None else {}

    def begin() -> None:
        with speaking_of(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def end() -> None:
        with speaking_of(folder):
            save_tokenizer(tokenizer, temporary)
            files = sorted(p for p in temporary.rglob("*") if p.is_file())
            hashes = {p.relative_to(temporary).as_posix(): sha256_file(p) for p in files}
            write_json(temporary / "checkpoint.json", {"step": step, "state": dict(state or {}), "files": hashes})
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)

    dist.led(begin)
    if fsdp.is_cut(model):
        with speaking_of(folder):
            _save_rows(temporary, model, kept)
    else:
        dist.led(lambda: _save_whole(folder, temporary, model, kept))
    dist.led(end)
    return folder


def _save_whole(folder: Path, temporary: Path, model: PreTrainedModel, kept: Mapping[str, dict[str, Tensor]]) -> None:
    with speaking_of(folder):
        try:
            adapters.save_(model, temporary) if adapters.has(model) else model.save_pretrained(temporary)
            for name, tensors in kept.items():
                save_file(tensors, temporary / f"{name}.safetensors")
        except SafetensorError as error:
            raise OSError(error) from error


def _save_rows(temporary: Path, model: PreTrainedModel, kept: Mapping[str, dict[str, Tensor]]) -> None:
    """Save what is cut up, each rank its rows."""
    about = copy.deepcopy(model.config)
    about.architectures = [type(model).__name__]
    dist.led(lambda: about.save_pretrained(temporary))
    for name, tensors in {"model": own_tensors(model), **kept}.items():
        fsdp.save_(temporary / fsdp.SHARDS / name, tensors)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save it, with a failure to write told as what it is: the library raises a bare Exception."""
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:
        raise OSError(error) from error


def load_(
    folder: Path,
    model: PreTrainedModel,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    reference: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Fill model, optimiser and reference (its own tensors, in place) from a checkpoint; returns its state.

    Raises:
        Refusal: a file is missing, truncated or changed.
    """
    record = dist.led(lambda: verify(folder))
    if fsdp.is_cut(model) or (folder / fsdp.SHARDS).is_dir():
        _load_rows_(folder, model, optimizer, reference)
        return record["state"]
    if adapters.has(model):
        adapters.load_(model, load_file(folder / adapters.WEIGHTS), (adapters.POLICY,))
    else:
        found = [model.load_state_dict(load_file(file), strict=False) for file in _weights_in(folder)]
        missing = set.intersection(*(set(one.missing_keys) for one in found))
        unexpected = [name for one in found for name in one.unexpected_keys]
        assert not unexpected and missing <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
    if reference is not None:
        saved = load_file(folder / "reference.safetensors")
        with torch.no_grad():
            for name, tensor in reference.items():
                tensor.copy_(saved[name])
    if optimizer is not None:
        _set_moments_(model, optimizer, load_file(folder / "optimizer.safetensors"))
    return record["state"]


def _load_rows_(folder: Path, model: PreTrainedModel, optimizer, reference) -> None:
    """The same where the model, or the checkpoint, is cut up, or both, over as many ranks as may be."""
    fsdp.rest_(model)
    fsdp.fill_(dict(model.named_parameters()), folder, "model")
    if reference is not None:
        fsdp.fill_(reference, folder, "reference")
    if optimizer is not None:
        for p in (p for p in model.parameters() if p.requires_grad):
            moments = {name: torch.zeros_like(p, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] |= {"step": torch.tensor(0.0)} | moments
        fsdp.fill_(_moments(model, optimizer), folder, "optimizer")


def _weights_in(folder: Path) -> list[Path]:
    """The files of a model's weights: one, or, above the size at which the library cuts them, those that its index
    names."""
    index = folder / "model.safetensors.index.json"
    names = set(read_json(index)["weight_map"].values()) if index.exists() else {"model.safetensors"}
    return [folder / name for name in sorted(names)]


def verify(folder: Path) -> dict[str, Any]:
    """The checkpoint's record, after every file has been compared with its hash."""
    if not (folder / "checkpoint.json").exists():
        raise Refusal(f"{folder} holds no checkpoint: delete that folder, and the run goes on from the one before")
    record = read_json(folder / "checkpoint.json")
    if not (isinstance(record, dict) and isinstance(record.get("files"), dict)):
        raise Refusal(f"{folder}/checkpoint.json is damaged: delete that folder, and the run takes up the one before")
    for name, digest in record["files"].items():
        if not (folder / name).exists() or sha256_file(folder / name) != digest:
            raise Refusal(
                f"checkpoint {folder} is damaged ({name} is missing, truncated or changed): "
                "delete that folder, and the run goes on from the one before; "
                "a run that was complete has to be made again"
            )
    return record


def keep_only(run: Path, steps: set[int]) -> None:
    """Delete the checkpoints of other steps."""

    def delete() -> None:
        for step in steps_in(run):
            if step not in steps:
                shutil.rmtree(folder_of(run, step))

    dist.led(delete)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters without the tied copies, contiguous."""
    return {name: p.detach().contiguous() for name, p in module.named_parameters()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": torch.as_tensor(value).detach().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
        for key, value in optimizer.state[p].items()
    }


def _set_moments_(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, moment = key.rsplit("/", 1)
        parameter = parameters[name]
        if moment == "step" and type(optimizer).__module__.startswith("bitsandbytes"):
            optimizer.state[parameter][moment] = int(value)  # which it counts in Python
        else:
            optimizer.state[parameter][moment] = value.to(parameter.device) if value.ndim else value
