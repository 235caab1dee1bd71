"""Sampling 32 questions x 16 outputs: ours against transformers' `generate` and vLLM's CPU build.

Ours runs first and leaves the model, its tokens and their log-probabilities.  transformers then draws the same tokens
(`Replay`); vLLM, which has no such hook, gets the length of each row and draws its own.  Both must give each token
that they drew the log-probability that ours gives it.  Each process samples eight tokens an output to warm up, and
then everything on the clock.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LogitsProcessorList

from bench.rollout import Replay
from bench.worker import answer
from r1repro import data
from r1repro.algo import likelihood
from r1repro.engine import policy, sampler, vocabulary
from r1repro.run import sha256_file
from r1repro.tinyworld import base, tokenizer

QUESTIONS, OUTPUTS = 32, 16

SIZES = {
    "1M": base.SHAPES["tiny-1m"],
    "5M": dict(hidden_size=256, intermediate_size=960, num_hidden_layers=5, num_attention_heads=8),
    "20M": dict(hidden_size=512, intermediate_size=1600, num_hidden_layers=6, num_attention_heads=8),
    "50M": dict(hidden_size=768, intermediate_size=2304, num_hidden_layers=7, num_attention_heads=12),
}
"""Size -> shape.  The first is the base model itself, the others have random weights."""

CAPS = {"1M": 160, "20M": 48}
WARM = 8
"""Tokens an output before the clock starts."""
"""Case -> cap of an output.  A random model does not end, so all its outputs have that length."""


def model_folder(size: str, folder: Path) -> Path:
    """The model of a size, made in ``folder`` if it is not there: one file of weights for all sides."""
    target = folder / f"model-{size}"
    if not target.exists() and size == "1M":
        shutil.copytree(base.folder("tiny-1m"), target)
    elif not target.exists():
        base.SHAPES[size] = SIZES[size]
        base.new(size, 0).save_pretrained(target)
    return target


def prompts() -> list[list[int]]:
    questions = data.rollout_questions("chain_sum", 0, 0, QUESTIONS)
    return vocabulary.of(base.folder("tiny-1m")).prompts(questions)


def outcome(seconds: float, length_N: Tensor, folder: Path) -> dict[str, Any]:
    return {
        "value": int(length_N.sum()) / seconds,
        "unit": "tokens/s",
        "tokens": int(length_N.sum()),
        "mean_length": float(length_N.double().mean()),
        "weights": sha256_file(folder / "model.safetensors"),
    }


def ours(case: str, folder: Path) -> dict[str, Any]:
    """Tokens a second; leaves the model, the tokens and their log-probabilities."""
    where = model_folder(case, folder)
    model, words = policy.load(where), tokenizer.load()
    for max_tokens in (WARM, CAPS[case]):
        started = time.perf_counter()
        samples = sampler.sample(
            model, prompts(), OUTPUTS, key=(0, 0), question_keys=range(QUESTIONS), max_tokens=max_tokens,
            ends=(words.eos_token_id if case == "1M" else -1,), pad=words.pad_token_id, max_rows=512,
        )  # fmt: skip
        seconds = time.perf_counter() - started
    names = ("tokens_NT", "length_N", "logp_NT")
    save_file({name: getattr(samples, name).contiguous() for name in names}, folder / "ours.safetensors")
    return outcome(seconds, samples.length_N, where)


def transformers(
    case: str, folder: Path, attention: str = "sdpa", rows: int = 512, cache: str | None = None, threads: int = 0
) -> dict[str, Any]:
    """Tokens a second of `generate` with our tokens replayed, ``rows`` outputs side by side."""
    if threads:
        torch.set_num_threads(threads)
    kept, where = load_file(folder / "ours.safetensors"), model_folder(case, folder)
    model, words = policy.load(where), tokenizer.load()
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = words.eos_token_id if case == "1M" else None
    asked = [p for p in prompts() for _ in range(OUTPUTS)]
    width = max(map(len, asked))
    ids_NP = torch.tensor([[words.pad_token_id] * (width - len(p)) + p for p in asked])
    mask_NP = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked])
    cap = kept["tokens_NT"].shape[1]
    for max_tokens in (WARM, cap):
        started, parts = time.perf_counter(), []
        for cut in torch.arange(len(asked)).split(rows):
            replay = LogitsProcessorList([Replay(kept["tokens_NT"][cut], width)])
            out_NT = model.generate(
                ids_NP[cut], attention_mask=mask_NP[cut], logits_processor=replay, do_sample=True, top_k=0,
                max_new_tokens=max_tokens, pad_token_id=words.pad_token_id, cache_implementation=cache,
                disable_compile=True,
            )[:, width:]  # fmt: skip
            parts.append(torch.nn.functional.pad(out_NT, (0, cap - out_NT.shape[1]), value=words.pad_token_id))
        seconds = time.perf_counter() - started
    assert torch.equal(torch.cat(parts), kept["tokens_NT"]), "other tokens"
    mask_NT = torch.arange(cap)[None] < kept["length_N"][:, None]
    apart = (_plain_logp(model, ids_NP, mask_NP, kept["tokens_NT"]) - kept["logp_NT"])[mask_NT].abs().max()
    return outcome(seconds, kept["length_N"], where) | {"checks": _within(float(apart))}


@torch.no_grad()
def _plain_logp(model, ids_NP: Tensor, mask_NP: Tensor, tokens_NT: Tensor) -> Tensor:
    """Log-probabilities of outputs by the model's own forward pass, prompts repeated."""
    parts = []
    for cut in torch.arange(len(ids_NP)).split(32):
        ids = torch.cat([ids_NP[cut], tokens_NT[cut]], 1)
        mask = torch.cat([mask_NP[cut], torch.ones_like(tokens_NT[cut])], 1)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=position, use_cache=False).logits
        parts.append(likelihood.token_logp(logits[:, ids_NP.shape[1] - 1 : -1], tokens_NT[cut]))
    return torch.cat(parts)


def vllm(
    case: str, folder: Path, eager: bool = True, logprobs: int | None = 0, max_num_seqs: int = 512,
    max_num_batched_tokens: int = 16384, block_size: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Tokens a second of vLLM in this process, each output of the length that ours had; prefix cache emptied before.

    Its own draws differ, so their log-probabilities are compared with those that our engine gives to the same tokens.
    """
    from vllm import LLM, SamplingParams

    kept, where = load_file(folder / "ours.safetensors"), model_folder(case, folder)
    options = {} if block_size is None else {"block_size": block_size}
    llm = LLM(
        str(where), dtype="float32", enforce_eager=eager, max_model_len=512, max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens, skip_tokenizer_init=True, **options,
    )  # fmt: skip
    asked = [{"prompt_token_ids": p} for p in prompts() for _ in range(OUTPUTS)]
    for most in (WARM, CAPS[case]):
        wanted = [
            SamplingParams(
                temperature=1.0, max_tokens=min(n, most), ignore_eos=True, logprobs=logprobs, detokenize=False
            )
            for n in kept["length_N"].tolist()
        ]
        llm.reset_prefix_cache()
        started = time.perf_counter()
        given = [request.outputs[0] for request in llm.generate(asked, wanted, use_tqdm=False)]
        seconds = time.perf_counter() - started
    length_N = torch.tensor([len(g.token_ids) for g in given])
    assert torch.equal(length_N, kept["length_N"]), "other lengths"
    result = outcome(seconds, length_N, where)
    if logprobs is None:
        return result
    tokens_NT = torch.zeros_like(kept["tokens_NT"])
    logp_NT = torch.zeros_like(kept["logp_NT"])
    for row, g in enumerate(given):
        tokens_NT[row, : length_N[row]] = torch.tensor(list(g.token_ids))
        logp_NT[row, : length_N[row]] = torch.tensor(
            [step[token].logprob for token, step in zip(g.token_ids, g.logprobs, strict=True)]
        )
    question_N = torch.arange(QUESTIONS).repeat_interleave(OUTPUTS)
    same_NT = policy.all_logp(
        policy.load(where), prompts(), question_N, tokens_NT, length_N, temperature=1.0, max_tokens=2048
    )
    return result | {"checks": _within(float((same_NT - logp_NT).abs().max()))}


def _within(apart: float) -> dict[str, float]:
    assert apart <= 1e-4, f"log-probabilities differ by {apart} nats"
    return {"logp_nats": apart}


if __name__ == "__main__":
    answer(ours, transformers, vllm)
