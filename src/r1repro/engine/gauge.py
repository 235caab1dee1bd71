"""What `engine.plan` predicts, measured on this machine: random weights of a shape, an update or a sampling of them.

Speed and memory do not depend on what the weights are.
"""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from r1repro.config import Policy
from r1repro.engine import adapters, plan, policy, sampler
from r1repro.engine.shapes import Shape
from r1repro.records import Refusal


def random_model(shape: Shape, held: Policy, device: str = "cpu") -> PreTrainedModel:
    """A model of a shape with drawn weights, held as a policy is; weights in 4 bits are left to folders."""
    if held.weights == "qlora":
        raise Refusal("random weights of 4 bits are not made here: measure policy.weights=lora, or a folder's model")
    torch.manual_seed(0)
    of = Qwen2Config if shape.has_bias else LlamaConfig
    about = of(
        hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads, head_dim=shape.head_width, intermediate_size=shape.inner,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.is_tied, max_position_embeddings=131_072,
    )  # fmt: skip
    dtype = torch.float32 if held.weights == "full" else getattr(torch, held.dtype)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(about, dtype=dtype).eval()
    if held.weights == "lora":
        adapters.attach_(model, held, ".", 0)
    elif held.dtype != "float32":
        policy.compute_in_(model, getattr(torch, held.dtype))
    return model


def peak_bytes(work: Callable[[], None], device: str = "cpu") -> int:
    """Most bytes of tensors that work holds at one time, beyond those that are there before it."""
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for _, size in sorted(events):
        now += size
        peak = max(peak, now)
    return peak


def seconds(work: Callable[[], None], device: str = "cpu", times: int = 3) -> float:
    """The shortest of some runs, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


def update(shape: Shape, held: Policy, work: plan.Work, device: str = "cpu") -> Callable[[], None]:
    """An update of ``work.micro_batches`` micro-batches, with the optimiser's step; call it as often as you like."""
    model = random_model(shape, held, device)
    if work.recompute:
        policy.recompute_layers_(model)
    optimizer = policy.adamw(model, 1e-6)
    count = work.outputs * work.micro_batches
    length, num_prompts = work.tokens // work.outputs, work.prompts * work.micro_batches
    prompts = _prompts(shape, num_prompts, work.prompt_tokens)
    question_N = torch.arange(num_prompts).repeat_interleave(count // num_prompts)
    tokens_NT = (torch.arange(count * length).view(count, length) * 7919) % shape.vocabulary
    asked = (model, prompts, question_N, tokens_NT, torch.full((count,), length))
    how = dict(temperature=1.0, max_tokens=work.tokens, logits_at_once=work.logits_at_once)

    def run() -> None:
        policy.backward_(*asked, lambda logp_NT, _: logp_NT.sum() * 1e-6, **how)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    run()  # the optimiser's moments are there from now on
    return run


def sampling(shape: Shape, held: Policy, work: plan.Work, device: str = "cpu") -> Callable[[], None]:
    """Sampling of ``work.rows`` outputs of ``work.max_tokens`` tokens, none of which ends before."""
    model = random_model(shape, held, device)
    prompts = _prompts(shape, work.prompts, work.prompt_tokens)

    def run() -> None:
        sampler.sample(
            model, prompts, work.rows // work.prompts, key=(0, 0), question_keys=range(work.prompts),
            max_tokens=work.max_tokens, ends=[], pad=0, max_rows=work.rows,
        )  # fmt: skip

    return run


def _prompts(shape: Shape, count: int, length: int) -> list[list[int]]:
    """Prompts that have nothing in common, so that none of them is spared."""
    return [[(7 * q + i * i + 3) % shape.vocabulary for i in range(length)] for q in range(count)]
