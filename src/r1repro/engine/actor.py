"""A model that answers: its weights, its vocabulary, and who samples from it; and the reference that holds it.

What a stage works with.  It asks questions and gets outputs, whatever the model, its precision and the sampler.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1repro.config import Machine, Policy
from r1repro.engine import adapters, checkpoint, dist, fsdp, policy, sampler, vocabulary
from r1repro.engine.serving import Serving
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Question, Refusal


@dataclass(frozen=True, slots=True)
class Actor:
    """Make it with `load`."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    machine: Machine
    serving: Serving | None = None
    """Who samples, where that is not the torch sampler."""

    copy: PreTrainedModel | None = None
    """What the torch sampler samples from where the model is cut up over ranks: the same, whole."""

    def sample(
        self,
        questions: Sequence[Question],
        num_outputs: int,
        *,
        key: tuple[int, ...],
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        when_done: Callable[[int, sampler.Samples], None] | None = None,
    ) -> sampler.Samples:
        """``num_outputs`` outputs to each question; see `sampler.sample`."""
        prompts, keys = self.vocabulary.prompts(questions), [int(q.id, 16) for q in questions]
        if self.serving:
            return self.serving.sample(
                prompts, num_outputs, key=key, question_keys=keys, max_tokens=max_tokens,
                temperature=temperature, top_p=top_p, when_done=when_done,
            )  # fmt: skip
        return sampler.sample(
            self.copy or self.model, prompts, num_outputs, key=key, question_keys=keys, max_tokens=max_tokens,
            ends=self.vocabulary.ends, pad=self.vocabulary.pad, temperature=temperature, top_p=top_p,
            max_rows=self.machine.max_rows, when_done=when_done,
        )  # fmt: skip

    def go_on(
        self,
        prompts: Sequence[Sequence[int]],
        num_outputs: int,
        *,
        key: tuple[int, ...],
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        ends: Sequence[int] = (),
    ) -> sampler.Samples:
        """``num_outputs`` continuations of each of some beginnings, as token ids: a prompt, and part of an output.

        The torch sampler alone goes on.  What a beginning is followed by depends on its tokens and ``key`` alone.

        Args:
            ends: tokens that end a continuation, beside those that end an output.
        """
        keys = [zlib.crc32(np.array(prompt, dtype="<u4").tobytes()) for prompt in prompts]
        return sampler.sample(
            self.model, prompts, num_outputs, key=key, question_keys=keys, max_tokens=max_tokens,
            ends=(*self.vocabulary.ends, *ends), pad=self.vocabulary.pad, temperature=temperature, top_p=top_p,
            max_rows=self.machine.max_rows,
        )  # fmt: skip

    def begin(self, questions: Sequence[Question], max_tokens: int) -> None:
        """Start what samples, where ranks that take questions as they come start it together."""
        if self.serving and dist.num_ranks() > 1:
            self.serving.begin(self.vocabulary.prompts(questions), max_tokens)

    def changed_(self) -> None:
        """The model has been trained, or filled from a checkpoint: a sampler with weights of its own needs them."""
        if self.copy is not None:
            fsdp.copy_into_(self.copy, self.model)
        if self.serving:
            self.serving.changed_()

    def close(self) -> None:
        """End what samples."""
        if self.serving:
            self.serving.close()

    def tokens(self, samples: sampler.Samples) -> list[list[int]]:
        """Tokens of each output, its end token included."""
        rows = zip(samples.tokens_NT.tolist(), samples.length_N.tolist(), strict=True)
        return [row[:length] for row, length in rows]

    def texts(self, samples: sampler.Samples) -> list[str]:
        """Text of each output, without its end token."""
        return self.vocabulary.texts(samples.tokens_NT, samples.length_N)


def load(
    folder: Path | str, held: Policy | None = None, machine: Machine | None = None, *, trained: int | None = None
) -> Actor:
    """The model of a folder, ready to answer.

    Args:
        trained: it is to be trained, and a seed that new adapters are drawn from; None: it only answers.

    Raises:
        Refusal: see `policy.load` and `vocabulary.of`; a device that is not there.
    """
    held, machine = held or Policy(), machine or Machine()
    check_device(machine.device)
    shard = machine.shard and (trained is not None or (held.sampler == "vllm" and dist.num_ranks() > 1))
    model = policy.load(folder, held=held, device=machine.device, shard=shard)
    if trained is not None and held.weights != "full" and not adapters.has(model):
        adapters.attach_(model, held, Path(folder), trained)
    if machine.recompute:
        policy.recompute_layers_(model)
    words = vocabulary_of(folder, held.template, model.get_input_embeddings().num_embeddings)
    if held.sampler == "vllm":
        dist.check_teams(machine.tensor_parallel)
        return Actor(model, words, machine, Serving(model, words, held, machine, is_trained=trained is not None))
    return Actor(model, words, machine, copy=policy.load(folder, held=held, device=machine.device) if shard else None)


def vocabulary_of(folder: Path | str, template: str, known: int | None = None) -> Vocabulary:
    """The vocabulary of a model; that of its base where a folder with adapters has none of its own."""
    base = adapters.base_of(folder)
    has_own = (Path(folder) / "tokenizer_config.json").exists() or (Path(folder) / "tokenizer.json").exists()
    return vocabulary.of(folder if has_own or not base else base, template, known)


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.  Asking takes none of a GPU's memory."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and (not index or index.isdigit()):  # a tensor there would keep a context for the process's life
        is_here = int(index or 0) < torch.cuda.device_count()
    else:
        try:
            is_here = torch.empty(0, device=device) is not None
        except (RuntimeError, AssertionError):
            is_here = False
    if not is_here:
        raise Refusal(f"machine.device is {device!r}, which is not here: choose tier cpu, or set machine.device=cpu")


class Reference:
    """The reference policy: another model, or, where adapters are trained, a frozen one beside the same weights.

    Args:
        folder: what the actor was loaded from.
    """

    def __init__(self, actor: Actor, folder: Path | str, held: Policy):
        self._actor, self._other = actor.model, None
        if not adapters.has(actor.model):
            self._other = policy.load(folder, held=held, device=actor.machine.device, shard=fsdp.is_cut(actor.model))

    @contextmanager
    def model(self) -> Iterator[PreTrainedModel]:
        """The model that is the reference inside the block."""
        if self._other is not None:
            yield self._other
        else:
            with adapters.as_reference(self._actor) as model:
                yield model

    def refresh_(self) -> None:
        """The reference becomes the policy."""
        if self._other is None:
            adapters.refresh_reference_(self._actor)
        else:
            self._other.load_state_dict(self._actor.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Its own weights, for a checkpoint."""
        if self._other is None:
            return adapters.tensors(self._actor, adapters.REFERENCE)
        return checkpoint.own_tensors(self._other)
