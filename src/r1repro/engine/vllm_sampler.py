"""The vLLM sampler: what `sampler.sample` gives, from an engine of vLLM that lives in this process.

For GPUs, and for vLLM's CPU build.  The engine keeps weights of its own, so after each change of the policy they are
handed over (`VLLM.update_`, or `VLLM.adapt_` for an adapter), and `probe.probe` checks that both then give the same
tokens the same log-probabilities.

**Noise.**  Each output has a seed of its own, made from (seed, rollout, question, output), so what is drawn does not
depend on the batch.  The logits do, in their last digits: a draw between two tokens at the very edge may then fall to
the other.  The noise is vLLM's, so the outputs are others than the torch sampler's.

**Weights** are handed over as tensors, in this process: vLLM loads them layer by layer into the places of the old
ones and packs them anew for its kernels.  Its transfer by CUDA handles is for two processes, since CUDA opens no
handle in the process that made it.

**Waits.**  The clock is looked at between steps of the engine and between tensors.  What a single step or the start of
the engine takes cannot be cut short from inside the process; where ranks work together, torch.distributed's own
timeout ends it.

Source: vLLM 0.32.0 (`LLM`, `SamplingParams`, `LLMEngine.step`, `reload_weights`, `LoRARequest`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from r1repro.engine import dist, sampler, vllm_process
from r1repro.engine.sampler import Samples
from r1repro.records import Refusal

CPU_BATCHED_TOKENS = 8192
"""Tokens a step on the CPU, at least one whole sequence."""


class VLLM:
    """An engine of vLLM that serves one policy; one at a time in a process.

    Several ranks each start one.  With ``tensor_parallel`` 1 each samples for itself; above, so many ranks serve one
    copy together and must make the same calls in the same order, also with the same arguments.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        dtype: str,
        max_prompt_tokens: int,
        max_tokens: int,
        max_rows: int,
        rank: int | None,
        memory_share: float,
        tensor_parallel: int,
        seed: int,
        timeout_s: float,
    ):
        """Start the engine with the weights in ``folder``, which may be a checkpoint.

        Args:
            folder: model in Hugging Face form, safetensors.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            max_prompt_tokens, max_tokens: of the longest prompt, and of the longest output.
            max_rows: outputs sampled side by side.
            rank: of the LoRA adapter that `adapt_` will serve; None: weights are handed over whole.
            memory_share: of a GPU's memory, from 0 to 1, for weights, keys and values; the CPU build takes
                VLLM_CPU_KVCACHE_SPACE GiB for keys and values instead.
            tensor_parallel: ranks that share one copy of the weights.
            seed: vLLM's own; no token depends on it.
            timeout_s: seconds that one call of `sample` or `update_` may take.

        Raises:
            Refusal: vLLM is not installed, or cannot serve this model so.
        """
        vllm_process.prepare()
        self.dtype, self.timeout_s = dtype, timeout_s
        self._max_prompt_tokens, self._max_tokens = max_prompt_tokens, max_tokens
        self._lora_rank, self._adapter, self._asleep, self._lacks = rank, None, [], ""
        self._names = vllm_process.names_in(Path(folder))
        length, alone = max_prompt_tokens + max_tokens, vllm_process.model_alone(Path(folder))
        with vllm_process.unchanged(), vllm_process.speaking_of(f"serve {folder}"), alone as model:
            from vllm import LLM
            from vllm.config.lora import MaxLoRARanks
            from vllm.platforms import current_platform

            self._on_cpu = current_platform.is_cpu()
            options: dict[str, Any] = dict(enforce_eager=self._on_cpu, enable_sleep_mode=not self._on_cpu)
            if self._on_cpu:
                # A prompt cut in two would need torch to turn a seeded generator back, which it cannot on a CPU.
                options |= dict(enable_chunked_prefill=False, max_num_batched_tokens=max(length, CPU_BATCHED_TOKENS))
            if rank is not None:
                fitting = [size for size in get_args(MaxLoRARanks) if size >= rank]
                if not fitting:
                    raise Refusal(f"an adapter of rank {rank} is more than vLLM serves: choose a smaller one")
                options |= dict(enable_lora=True, max_loras=1, max_lora_rank=fitting[0])
            if tensor_parallel > 1 or dist.num_ranks() > 1:
                options["distributed_executor_backend"] = "external_launcher"
            self._llm = LLM(
                str(model), dtype=dtype, max_model_len=length, max_num_seqs=max_rows, seed=seed,
                gpu_memory_utilization=memory_share, tensor_parallel_size=tensor_parallel,
                logprobs_mode="processed_logprobs", generation_config="vllm", skip_tokenizer_init=True,
                trust_remote_code=False, load_format="safetensors", use_tqdm_on_load=False, **options,
            )  # fmt: skip
        self._engine = self._llm.llm_engine

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        num_outputs: int,
        *,
        key: tuple[int, ...],
        question_keys: Sequence[int],
        max_tokens: int,
        ends: Sequence[int],
        pad: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        progress: str | None = None,
        when_done: Callable[[int, Samples], None] | None = None,
    ) -> Samples:
        """Sample ``num_outputs`` outputs to each of Q prompts; log-probabilities are float32.

        Args:
            key: what makes this sampling another one than the next: (seed, rollout).
            question_keys: an integer a question, which with ``key`` makes the seeds of its outputs.
            max_tokens: cap of an output.
            ends: tokens that end an output, and are its last one.  No other token does, the model's own neither.
            top_p: 1.0 in rollouts, always: a cut distribution is not the policy.
            progress: label of a progress bar over outputs; None for none.
            when_done: called with a question's number and its outputs as soon as they are whole, between two steps of
                the engine, while others are still being sampled.

        Raises:
            Refusal: a prompt or a cap beyond what the engine was started for, a temperature that vLLM changes, a model
                that its kernels do not take, log-probabilities that are no numbers, more time than ``timeout_s``.
        """
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        assert not self._lacks and not self._asleep, self._lacks or "asleep"
        self._check(prompts, max_tokens)
        vllm_process.check_temperature(temperature)
        num_rows = len(prompts) * num_outputs
        every = Samples(
            tokens_NT=torch.full((num_rows, max_tokens), pad),
            logp_NT=torch.zeros(num_rows, max_tokens),
            length_N=torch.zeros(num_rows, dtype=torch.long),
            truncated_N=torch.zeros(num_rows, dtype=torch.bool),
        )
        seeds = sampler.row_keys(key, [question_keys[q] for q in range(len(prompts))], num_outputs).tolist()
        missing_Q, until = [num_outputs] * len(prompts), time.monotonic() + self.timeout_s
        bar = tqdm(total=num_rows, desc=progress, disable=progress is None, unit="output", leave=False)
        with vllm_process.unchanged(), bar:
            try:
                with vllm_process.speaking_of("sample"):
                    for row, seed in enumerate(seeds):
                        wanted = SamplingParams(
                            temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_tokens, logprobs=0,
                            stop_token_ids=list(ends), ignore_eos=True, flat_logprobs=True, detokenize=False,
                            output_kind=RequestOutputKind.FINAL_ONLY,
                        )  # fmt: skip
                        prompt = tokens_input(list(prompts[row // num_outputs]))
                        self._engine.add_request(str(row), prompt, wanted, lora_request=self._adapter)
                while self._engine.has_unfinished_requests():
                    so_far = f"vLLM gave {num_rows - sum(missing_Q)} of {num_rows} outputs"
                    vllm_process.in_time(until, so_far, self.timeout_s)
                    with vllm_process.speaking_of("sample"):
                        finished = self._engine.step()
                    for given in finished:
                        row, q = int(given.request_id), int(given.request_id) // num_outputs
                        _keep(every, row, given.outputs[0], ends)
                        if not torch.isfinite(every.logp_NT[row]).all():
                            raise Refusal(
                                f"vLLM's log-probabilities are no numbers (question {q + 1} of {len(prompts)}): its "
                                "weights are damaged or have diverged; take an earlier checkpoint"
                            )
                        bar.update()
                        missing_Q[q] -= 1
                        if when_done and not missing_Q[q]:
                            when_done(q, sampler.of_question(every, q, num_outputs))
            finally:
                self._engine.abort_request([str(row) for row in range(num_rows)])
        return every

    def update_(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take new weights: all of them, whole, under their Hugging Face names, asked for one by one.

        Tensors may be on any device and of any precision.  An output tied to the embedding may be left out.

        Raises:
            Refusal: a name or shape that the model does not have, or more time than ``timeout_s``: weights of two
                updates may be mixed then, and this engine is of no more use.  Or a name is missing.
        """
        assert self._lora_rank is None, "this engine serves adapters: adapt_"
        assert self._lacks != "a new engine", "an update broke off: start a new engine"
        until, given = time.monotonic() + self.timeout_s, set()

        def handed_over() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in named_tensors:
                vllm_process.in_time(until, f"vLLM has {len(given)} of {len(self._names)} tensors", self.timeout_s)
                given.add(name)
                yield name, tensor.detach()

        self._lacks = "a new engine"
        if "weights" in self._asleep:
            self._engine.wake_up(["weights"])
            self._asleep.remove("weights")
        with vllm_process.speaking_of("take the policy's weights"):
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": handed_over()})
            if self._on_cpu:
                self._llm.apply_model(_pack_heads)
        self._lacks = "an update"
        missing = sorted(self._names - given - {"lm_head.weight"})
        if missing:
            raise Refusal(f"vLLM was not handed {missing[0]} ({len(missing)} are missing): hand over all weights")
        self._forget()
        self._lacks = ""

    def adapt_(self, folder: Path | str) -> None:
        """Serve the peft adapter in ``folder`` from now on, in place of the one before.

        Each gets a number of its own, so nothing that was computed under another is used again.

        Raises:
            Refusal: vLLM cannot serve that adapter (its rank, its kind, a module that vLLM does not adapt).
        """
        from vllm.lora.request import LoRARequest

        assert self._lora_rank is not None, "this engine serves whole weights: update_"
        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        new = LoRARequest(f"adapter-{number}", number, str(folder))
        with vllm_process.speaking_of(f"serve the adapter in {folder}"):
            self._engine.add_lora(new)
            if self._adapter is not None:
                self._engine.remove_lora(self._adapter.lora_int_id)
        assert self._engine.list_loras() == {number}, self._engine.list_loras()
        self._adapter = new
        self._forget()

    def sleep(self, keep: bool = False) -> None:
        """Give the GPU's memory back, after sampling; on a CPU nothing.

        Args:
            keep: the weights wait in main memory, as a base under adapters does.  Otherwise they are dropped, since
                `update_` brings new ones before anything is sampled again.
        """
        keep = keep or self._lora_rank is not None
        if not self._on_cpu and not self._asleep:
            self._engine.sleep(level=1 if keep else 2)
            self._asleep = ["weights", "kv_cache"]
            self._lacks = "" if keep else "an update"

    def wake(self) -> None:
        """Take the GPU's memory again: after `update_`, which itself takes only what the weights need."""
        if self._asleep:
            assert self._engine.wake_up(self._asleep), "vLLM is still asleep"
            self._asleep = []

    def close(self) -> None:
        """End the engine.  Where ranks work together do so before it goes out of use, or their group ends with it."""
        with vllm_process.group_kept(dist.num_ranks() > 1):
            self._engine.engine_core.shutdown()
        del self._llm, self._engine

    def _check(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        longest = max(map(len, prompts))
        if longest > self._max_prompt_tokens:
            raise Refusal(
                f"a prompt has {longest} tokens, but vLLM was started for at most {self._max_prompt_tokens}: raise "
                "that limit, or leave such questions out"
            )
        if max_tokens > self._max_tokens:
            raise Refusal(f"outputs of {max_tokens} tokens, but vLLM was started for {self._max_tokens}: raise that")

    def _forget(self) -> None:
        """Empty the cache of prompts, whose keys and values are of other weights."""
        if not self._engine.reset_prefix_cache():
            self._lacks = "a new engine"
            raise Refusal("vLLM could not empty its cache of prompts, since outputs are being sampled: start it anew")


def _pack_heads(model: torch.nn.Module) -> None:
    """Pack output layers anew: on CPUs one tied to the embedding multiplies by a packed copy, which reloading leaves
    as it was."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def _keep(every: Samples, row: int, given: Any, ends: Sequence[int]) -> None:
    """Write one output of vLLM into its row."""
    tokens, length = list(given.token_ids), len(given.token_ids)
    assert given.logprobs.token_ids == tokens, "a log-probability of another token"
    every.tokens_NT[row, :length] = torch.tensor(tokens)
    every.logp_NT[row, :length] = torch.tensor(given.logprobs.logprobs)
    every.length_N[row], every.truncated_N[row] = length, tokens[-1] not in ends
