"""vLLM beside a policy: started when it is first asked, handed what has changed, and probed each time.

What is served is what the policy has: all its weights; or its base, with the same adapter beside it; a base in 4 bits
is served as the numbers that those stand for.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from r1repro.config import Machine, Policy
from r1repro.engine import adapters, dist, fsdp, probe
from r1repro.engine.sampler import Samples
from r1repro.engine.vllm_sampler import VLLM
from r1repro.engine.vocabulary import Vocabulary

PROBED = 4
"""Prompts of a probe, 16 tokens each."""


class Serving:
    """The sampler of an `actor.Actor` whose ``policy.sampler`` is vllm.

    Args:
        is_trained: the policy will have other weights after each sampling.
    """

    def __init__(
        self, model: PreTrainedModel, words: Vocabulary, held: Policy, machine: Machine, is_trained: bool = True
    ):
        self._model, self._words, self._held, self._machine = model, words, held, machine
        self._is_trained = is_trained
        self._engine: VLLM | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="r1repro-")
        self._changed, self._adapters = False, 0

    def changed_(self) -> None:
        """The policy has other weights than those that were handed over."""
        self._changed = True

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        num_outputs: int,
        *,
        key: tuple[int, ...],
        question_keys: Sequence[int],
        max_tokens: int,
        temperature: float,
        top_p: float,
        when_done: Callable[[int, Samples], None] | None,
    ) -> Samples:
        """See `sampler.sample`; sleeps afterwards, so that a GPU's memory is the update's.

        Raises:
            Refusal: vLLM cannot be started or serves other weights than the policy; see `VLLM.sample`.
        """
        engine = self._ready(max_tokens, prompts, key)
        samples = engine.sample(
            prompts, num_outputs, key=key, question_keys=question_keys, max_tokens=max_tokens,
            ends=self._words.ends, pad=self._words.pad, temperature=temperature, top_p=top_p, when_done=when_done,
        )  # fmt: skip
        engine.sleep(keep=not self._is_trained)
        return samples

    def begin(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        """Start the engine, and have it asleep with its weights."""
        self._ready(max_tokens, prompts, (0,)).sleep(keep=True)

    def _ready(self, max_tokens: int, prompts: Sequence[Sequence[int]], key: tuple[int, ...]) -> VLLM:
        """The engine, awake and with the policy's weights."""
        begins = self._engine is None
        if begins:
            self._engine = self._started(max_tokens)
        adapted = adapters.has(self._model)
        if self._changed and not adapted:
            cut = fsdp.is_cut(self._model)
            self._engine.update_(fsdp.full(self._model) if cut else self._model.named_parameters())
        self._engine.wake()
        if adapted and (begins or self._changed):
            self._engine.adapt_(self._adapter())
        if begins or self._changed:
            probe.probe(
                self._engine, self._model, list(prompts[:PROBED]), key=(*key, 1), ends=self._words.ends,
                pad=self._words.pad, max_tokens=min(16, max_tokens),
            )  # fmt: skip
        self._changed = False
        return self._engine

    def _started(self, max_tokens: int) -> VLLM:
        """An engine that serves the base under an adapter, or all weights as they are now."""
        folder, adapted = Path(self._folder.name) / "weights", adapters.has(self._model)
        if fsdp.is_cut(self._model):
            folder = fsdp.save_plain(self._model, self._of_node() / "weights", getattr(torch, self._held.dtype))
        else:
            adapters.save_plain(self._model, folder)
        self._changed = False
        return VLLM(
            folder, dtype=self._held.dtype, max_prompt_tokens=self._machine.max_prompt_tokens, max_tokens=max_tokens,
            max_rows=self._machine.max_rows, rank=self._model.r1repro_adapter.r if adapted else None,
            memory_share=self._machine.sampler_memory, tensor_parallel=self._machine.tensor_parallel, seed=0,
            timeout_s=self._machine.sampler_timeout_s,
        )  # fmt: skip

    def _of_node(self) -> Path:
        """A folder that the ranks of a node share: that of the first of them."""
        first = dist.rank() - int(os.environ.get("LOCAL_RANK", dist.rank()))
        return Path(dist.gathered([self._folder.name])[first])

    def _adapter(self) -> Path:
        """The policy's adapter, written to a folder of its own: vLLM may read it again."""
        self._adapters += 1
        folder = Path(self._folder.name) / f"adapter-{self._adapters % 2}"
        folder.mkdir(exist_ok=True)
        adapters.save_(self._model, folder)
        return folder

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._folder.cleanup()
