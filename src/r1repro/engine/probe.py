"""The probe: does the sampler serve the weights that the policy has?

A sampler with weights of its own can fall behind without a word: an update that did not arrive, a stale cache, another
adapter.  Its outputs would then be another policy's.  So after each change a few outputs are sampled, and the policy
gives the same tokens log-probabilities of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1repro.engine import policy
from r1repro.engine.sampler import Samples
from r1repro.records import Refusal

TOLERANCE: Mapping[str, float] = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
"""Precision of the sampler -> nats that its log-probabilities may be away from the policy's (see `divergence_nats`).

float32 bounds the largest difference.  bfloat16 and float16 bound the mean one, since single tokens of a low
probability are noisy there; both figures are estimates, **not yet measured on a GPU**.  What an update changes by less
than this cannot be told from noise; if updates fail to arrive, what they add up to can."""


class Served(Protocol):
    """A sampler that serves weights of its own, such as `vllm_sampler.VLLM`."""

    dtype: str

    def sample(self, prompts: Sequence[Sequence[int]], num_outputs: int, **settings) -> Samples: ...


def divergence_nats(served_NT: Tensor, policy_NT: Tensor, length_N: Tensor, dtype: str) -> float:
    """How far two log-probabilities of the same tokens are apart, in nats: the largest difference in float32, the mean
    one in lower precision.

    >>> served_NT, policy_NT = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-1.5, -2.0, 9.0]])
    >>> divergence_nats(served_NT, policy_NT, torch.tensor([2]), "float32")
    0.5
    >>> divergence_nats(served_NT, policy_NT, torch.tensor([2]), "bfloat16")
    0.25
    """
    on_NT = torch.arange(served_NT.shape[1]) < length_N[:, None]
    apart = (served_NT.double() - policy_NT.double())[on_NT].abs()
    return float(apart.max() if dtype == "float32" else apart.mean())


def check(nats: float, dtype: str) -> float:
    """The divergence itself, if it is within the tolerance of that precision; not a number is beyond.

    >>> check(2e-5, "float32")
    2e-05

    Raises:
        Refusal: it is beyond.
    """
    if not nats <= TOLERANCE[dtype]:
        raise Refusal(
            f"the sampler serves other weights than the policy: log-probabilities are {nats:.2g} nats apart, and "
            f"{TOLERANCE[dtype]:g} is the limit in {dtype}; go on from the last checkpoint, and if it comes again "
            "choose policy.sampler=torch"
        )
    return nats


def probe(
    served: Served,
    actor: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    key: tuple[int, ...],
    ends: Sequence[int],
    pad: int,
    max_tokens: int = 16,
    temperature: float = 1.0,
) -> float:
    """Sample one output to each of a few prompts, score it with the policy, and compare: the divergence in nats.

    Raises:
        Refusal: the sampler serves other weights than the policy.
    """
    every = served.sample(
        prompts, 1, key=key, question_keys=range(len(prompts)), max_tokens=max_tokens, ends=ends, pad=pad,
        temperature=temperature,
    )  # fmt: skip
    policy_NT = policy.all_logp(
        actor, prompts, torch.arange(len(prompts)), every.tokens_NT, every.length_N, temperature=temperature,
        max_tokens=len(prompts) * max_tokens,
    )  # fmt: skip
    return check(divergence_nats(every.logp_NT, policy_NT, every.length_N, served.dtype), served.dtype)
