"""Low-rank adapters beside frozen weights (LoRA), and weights in 4 bits under them (QLoRA), by peft and bitsandbytes.

The model stays the library's own: adapters are put into its linear layers.  There are two of them, `POLICY`, which is
trained, and `REFERENCE`, frozen, which makes the same model the reference policy.  A new adapter adds nothing, so at
first the reference is the model as it was.

    adapter_config.json  adapter_model.safetensors      as peft writes them; the first names the folder of the base
    policy.json                                         how the base was held: an adapter is of those weights alone

A reward model has its head beside the policy's adapter, in the same file: see `head_`.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from r1repro.config import Policy
from r1repro.records import Refusal
from r1repro.run import read_json, write_json

POLICY, REFERENCE = "policy", "reference"
CONFIG, WEIGHTS, HELD = "adapter_config.json", "adapter_model.safetensors", "policy.json"
HEAD = "score"
"""Name of the head of a reward model, the library's."""


def _peft():
    try:
        import peft
    except ImportError:
        raise Refusal(
            "adapters need the package peft, which is not here: `make setup`, or policy.weights=full"
        ) from None
    return peft


def quantised(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Weights of linear layers in 4 bits: NF4, their scales quantised too; products are computed in ``dtype``."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise Refusal(
            "4-bit weights need the package bitsandbytes, which is not here: `make setup`, or policy.weights=lora"
        ) from None
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def keep_layout_(model: PreTrainedModel) -> None:
    """Leave weights in 4 bits as they were quantised.

    On CPUs with bfloat16 instructions bitsandbytes packs them anew in the first pass without a gradient and rounds
    their scales, for good: samples would be drawn from other weights than those that were trained beside, and a merge
    would read them in the wrong order.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def attach_(model: PreTrainedModel, held: Policy, base: Path, seed: int) -> None:
    """Put new adapters beside every linear layer but the head, and freeze everything else.

    Where the paper is silent:
        It has no adapters.  A is drawn as peft draws it, from ``seed``; B is 0.  Both are float32 whatever the model's
        precision: a step of 1e-5 is lost in bfloat16.
    """
    peft = _peft()
    torch.manual_seed(seed)
    about = peft.LoraConfig(
        r=held.rank, lora_alpha=held.alpha, target_modules=_linear_names(model), task_type="CAUSAL_LM",
        base_model_name_or_path=str(Path(base).resolve()),
    )  # fmt: skip
    _inject_(model, about, held)


def attach_saved_(model: PreTrainedModel, folder: Path, held: Policy, with_head: bool = False) -> None:
    """Put the adapter of a folder beside a model: the policy's, and as a copy of it the reference's.

    Args:
        with_head: it is that of a reward model, whose head lies there too.

    Raises:
        Refusal: the folder's files cannot be read, or are of another model.
    """
    peft = _peft()
    try:
        about = peft.LoraConfig.from_pretrained(folder)
        about.inference_mode = False
        if with_head:
            about.task_type, about.modules_to_save = "CAUSAL_LM", None  # as before `save_`; the head is not injected
        _inject_(model, about, held)
        if with_head:
            head_(model)
        load_(model, peft.utils.load_peft_weights(str(folder), device="cpu"))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refusal(
            f"the adapter at {folder} cannot be put beside its base ({reason}): put it there whole"
        ) from error


@torch.no_grad()
def head_(model: PreTrainedModel, seed: int | None = None) -> None:
    """Train the head of a reward model, whole and in single precision, beside the policy's adapter.

    Args:
        seed: it is drawn from; None: it stays as it is.
    """
    head = model.get_submodule(HEAD).float()
    if seed is not None:
        head.weight.copy_(drawn_head(model.config, seed))
    model.r1repro_head = f"{HEAD}.weight"
    _use_(model, POLICY)


def drawn_head(about: PreTrainedConfig, seed: int) -> Tensor:
    """The weight of a new head of one score: (1, width)."""
    drawn = torch.empty(1, about.hidden_size)
    return drawn.normal_(std=about.initializer_range, generator=torch.Generator().manual_seed(seed))


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of a model's linear layers, without the head's."""
    head = model.get_output_embeddings() or getattr(model, HEAD, None)
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    return sorted(found)


def _inject_(model: PreTrainedModel, about, held: Policy) -> None:
    """Two adapters of one shape; the reference begins as a copy of the policy."""
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():  # of what is meant: a second adapter, and layers that are stored transposed
        warnings.filterwarnings("ignore", message="Already found a `peft_config`|fan_in_fan_out", category=UserWarning)
        for name in (POLICY, REFERENCE):
            inject_adapter_in_model(about, model, adapter_name=name)
    for parameter in _own(model).values():
        parameter.data = parameter.data.float()
    model.r1repro_adapter, model.r1repro_held = about, held
    refresh_reference_(model)
    _use_(model, POLICY)


def has(model: nn.Module) -> bool:
    """Whether a model has adapters."""
    return hasattr(model, "r1repro_adapter")


def _own(model: nn.Module, name: str | None = None) -> dict[str, nn.Parameter]:
    """Parameters of one adapter, or of both, by their names in the model; a reward model's head is the policy's."""
    wanted = (name,) if name else (POLICY, REFERENCE)
    return {n: p for n, p in model.named_parameters() if _owner(model, n) in wanted}


def _owner(model: nn.Module, parameter: str) -> str | None:
    """The adapter that a parameter belongs to; None for frozen weights."""
    if parameter == getattr(model, "r1repro_head", None):
        return POLICY
    return parameter.split(".")[-2] if "lora_" in parameter else None


def _use_(model: nn.Module, name: str) -> None:
    """Compute with one adapter; only the policy's is ever trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(name)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(_owner(model, key) == POLICY)


@contextmanager
def as_reference(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model is the reference policy inside the block."""
    _use_(model, REFERENCE)
    try:
        yield model
    finally:
        _use_(model, POLICY)


@torch.no_grad()
def refresh_reference_(model: nn.Module) -> None:
    """The reference becomes the policy."""
    policy = _own(model, POLICY)
    for name, parameter in _own(model, REFERENCE).items():
        parameter.copy_(policy[name.replace(f".{REFERENCE}.", f".{POLICY}.")])


def tensors(model: nn.Module, name: str = POLICY) -> dict[str, Tensor]:
    """Weights of an adapter under the names that peft saves them by."""
    return {
        f"base_model.model.{key.replace(f'.{name}.', '.')}": parameter.detach().contiguous()
        for key, parameter in _own(model, name).items()
    }


@torch.no_grad()
def load_(model: nn.Module, saved: Mapping[str, Tensor], names: tuple[str, ...] = (POLICY, REFERENCE)) -> None:
    """Fill adapters with saved weights; KeyError where one is missing, ValueError where a shape differs."""
    for name in names:
        for key, parameter in _own(model, name).items():
            given = saved[f"base_model.model.{key.replace(f'.{name}.', '.')}"]
            if given.shape != parameter.shape:
                raise ValueError(f"{key} has shape {tuple(parameter.shape)}, the saved one {tuple(given.shape)}")
            parameter.copy_(given)


def save_(model: PreTrainedModel, folder: Path) -> None:
    """Write the policy's adapter as peft would; a reward model's head is one of its ``modules_to_save``."""
    from safetensors.torch import save_file

    save_file({key: t.cpu() for key, t in tensors(model).items()}, Path(folder) / WEIGHTS, metadata={"format": "pt"})
    about = model.r1repro_adapter
    if hasattr(model, "r1repro_head"):
        about = copy.copy(about)
        about.task_type, about.modules_to_save = "SEQ_CLS", [HEAD]
    about.save_pretrained(str(folder))
    write_json(Path(folder) / HELD, asdict(model.r1repro_held))


def base_of(folder: Path | str) -> Path | None:
    """The base that the adapter in a folder stands beside; None where there is no adapter.

    Raises:
        Refusal: the base is not where the adapter says.
    """
    file = Path(folder) / CONFIG
    if not file.exists():
        return None
    about = read_json(file)
    base = Path(str(about.get("base_model_name_or_path") if isinstance(about, dict) else None))
    if not (base / "config.json").exists():
        raise Refusal(f"the adapter at {folder} stands beside {base}, where no model is: put its base back there")
    return base


def held_of(folder: Path | str) -> Policy:
    """How the base of an adapter was held when it was trained; that of a stranger's: in single precision."""
    file = Path(folder) / HELD
    return Policy(**read_json(file)) if file.exists() else Policy(weights="lora")


@torch.no_grad()
def merged(model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights of the plain model that computes as this one: W + alpha / rank * B A, added up in single precision.

    Weights in 4 bits are dequantised first; so the merge is of what the adapter was trained beside, and not of the
    weights before their quantisation.  Names are those of the plain model; tied copies are left out.

    Args:
        dtype: what they are rounded to.
    """
    from peft.tuners.lora import LoraLayer

    found = {name: t.float() for name, t in _base_weights(model).items()}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            delta = module.get_delta_weight(POLICY).float()
            is_turned = getattr(module.get_base_layer(), "source_cls", None) is Conv1D
            found[f"{name}.weight"] = found[f"{name}.weight"] + (delta.T if is_turned else delta)
    return {name: t.to(dtype).contiguous() for name, t in found.items()}


@torch.no_grad()
def save_plain(model: PreTrainedModel, folder: Path) -> None:
    """Write the model without its adapters as one that needs neither peft nor bitsandbytes: the base as it is held.

    In the precision of the model; weights in 4 bits as the numbers that they stand for.
    """
    weights = {name: t.to(model.dtype) for name, t in _base_weights(model).items()}
    about = copy.deepcopy(model.config)
    if hasattr(about, "quantization_config"):
        del about.quantization_config
    about.dtype = model.dtype
    with torch.device("meta"):
        plain = type(model)(about)
    plain.load_state_dict(weights, strict=False, assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)


@torch.no_grad()
def _base_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Weights of the model without its adapters, by the names of the plain model; tied copies are left out."""
    found = {}
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            owner = model.get_submodule(name.rpartition(".")[0])
            weight = parameter.detach()
            if name.endswith(".weight") and type(owner).__name__ == "Linear4bit":
                weight = plain_weight(owner)
                if getattr(owner, "source_cls", None) is Conv1D:  # which stands the other way round in 4 bits
                    weight = weight.T
            found[name.replace(".base_layer.", ".")] = weight
    return found


def plain_weight(layer: nn.Module) -> Tensor:
    """The weight of a linear layer in single precision, dequantised where it stands in 4 bits."""
    weight = layer.weight
    if type(layer).__name__ == "Linear4bit":
        import bitsandbytes.functional as bnb

        return bnb.dequantize_4bit(weight.data, weight.quant_state).float()
    return weight.detach().float()
