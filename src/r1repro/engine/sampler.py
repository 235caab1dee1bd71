"""The torch sampler: outputs, and the log-probabilities under which they were sampled.

Runs any Hugging Face causal model with rotary or learnt positions, on any machine.  Questions wait in a queue; a
cohort of them is prefilled, each prompt once and what all prompts begin with once in all, as soon as enough rows have
ended.  So the machine has work for many rows until the queue is empty.  Only the attention of the one-token step is
our own (`attention.Cohorts`); all else is the model's.

**Noise is a function, not a state.**  A token is where the cumulative distribution passes a uniform number that a
hash makes from (seed, rollout, question, output, position).  So the tokens of an output do not depend on what else is
in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from r1repro.algo.likelihood import precise
from r1repro.engine import attention, policy
from r1repro.records import Refusal


@dataclass(frozen=True, slots=True)
class Samples:
    """N = Q * G outputs; row q * G + g is output g to question q."""

    tokens_NT: Tensor
    logp_NT: Tensor
    """Log-probabilities in nats of the distribution that was sampled from; 0 at padding."""

    length_N: Tensor
    """Tokens of each output, its end token included."""

    truncated_N: Tensor
    """True where the cap came before the end token."""


COHORTS = 2
"""Where rows do not all fit side by side: cohorts of so many to a full batch.  More keep it fuller, and cost calls."""


def sample(
    model: PreTrainedModel,
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
    max_rows: int = 512,
    progress: str | None = None,
    when_done: Callable[[int, Samples], None] | None = None,
) -> Samples:
    """Sample ``num_outputs`` outputs to each of Q prompts.

    Args:
        key: what makes this sampling another one than the next: (seed, rollout).
        question_keys: an integer a question, which with ``key`` makes its noise.
        temperature: 0 takes the most probable token each time.
        ends: the tokens that end an output; the one that did is its last.
        top_p: 1.0 in rollouts, always: a cut distribution is not the policy (rollouts with 0.95 bias the ratio).
        max_rows: rows sampled side by side (those of one question at least); changes no token.
        progress: label of a progress bar over outputs; None for none.
        when_done: called with a question's number and its outputs as soon as they are whole, while others are still
            being sampled.

    Raises:
        Refusal: the model's log-probabilities are not finite, or its attention is of a kind that ours does not compute.
    """
    num_rows = len(prompts) * num_outputs
    every = Samples(
        tokens_NT=torch.full((num_rows, max_tokens), pad),
        logp_NT=torch.zeros(num_rows, max_tokens, dtype=precise(model.dtype)),
        length_N=torch.full((num_rows,), max_tokens),
        truncated_N=torch.zeros(num_rows, dtype=torch.bool),
    )
    noise_N = row_keys(key, [question_keys[q] for q in range(len(prompts))], num_outputs)
    size = len(prompts) if num_rows <= max_rows else max(1, max_rows // COHORTS // num_outputs)
    waiting = [range(q, min(q + size, len(prompts))) for q in range(0, len(prompts), size)][::-1]
    missing_Q, rows, end_E = [num_outputs] * len(prompts), _Rows(), torch.tensor(ends, dtype=torch.long)
    bar = tqdm(total=num_rows, desc=progress, disable=progress is None, unit="output", leave=False)

    def fits() -> bool:
        return bool(waiting) and (not len(rows) or len(rows) + len(waiting[-1]) * num_outputs <= max_rows)

    with torch.inference_mode(), bar:
        common = policy.beginning(model, prompts)
        while waiting or len(rows):
            while fits():
                chunk = waiting.pop()
                shared = policy.prefix(model, [prompts[q] for q in chunk], common)
                rows.admit(shared, torch.tensor(chunk), num_outputs, max_tokens)
            with attention.used_by(model, attention.ONE_TOKEN):
                while len(rows) and not fits():
                    row_N, age_N = rows.row_N, rows.age_N
                    uniform_N = uniform(noise_N[row_N.numpy()], age_N.numpy())
                    token_N, logp_N = choose(rows.logits_NV(model), uniform_N, temperature, top_p)
                    token_N, logp_N = token_N.cpu(), logp_N.cpu()
                    if not torch.isfinite(logp_N).all():
                        question = int(row_N[~torch.isfinite(logp_N)].min()) // num_outputs
                        raise Refusal(
                            f"the model's log-probabilities are no numbers (question {question + 1} of {len(prompts)}):"
                            " its weights are damaged or have diverged; take an earlier checkpoint"
                        )
                    every.tokens_NT[row_N, age_N], every.logp_NT[row_N, age_N] = token_N, logp_N
                    whole_N = torch.isin(token_N, end_E)
                    ended_N = whole_N | (age_N == max_tokens - 1)
                    gone_N = row_N[ended_N]
                    every.length_N[gone_N], every.truncated_N[gone_N] = age_N[ended_N] + 1, ~whole_N[ended_N]
                    rows.advance(token_N, ended_N)
                    bar.update(len(gone_N))
                    for q in (gone_N // num_outputs).tolist():
                        missing_Q[q] -= 1
                        if when_done and not missing_Q[q]:
                            when_done(q, of_question(every, q, num_outputs))
    return every


def of_question(every: Samples, question: int, num_outputs: int) -> Samples:
    """The outputs to one question: a view of those rows."""
    rows = slice(question * num_outputs, (question + 1) * num_outputs)
    return Samples(every.tokens_NT[rows], every.logp_NT[rows], every.length_N[rows], every.truncated_N[rows])


class _Rows:
    """The rows that are being sampled: number, newest token, position of the first token, age.

    What says which row is which stays on the CPU, whatever the model's device.
    """

    def __init__(self):
        self.cohorts = attention.Cohorts()
        self.row_N = self.token_N = self.start_N = self.age_N = torch.zeros(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.row_N)

    def admit(self, shared: policy.Prefix, question_Q: Tensor, num_outputs: int, max_tokens: int) -> None:
        """Add ``num_outputs`` rows to each of some questions, whose prompts but for the last token are prefilled."""
        self.cohorts.admit(shared.keys, shared.values, shared.mask_QP, num_outputs, max_tokens)
        row_N = (question_Q[:, None] * num_outputs + torch.arange(num_outputs)).flatten()
        self.row_N = torch.cat([self.row_N, row_N])
        self.token_N = torch.cat([self.token_N, shared.last_Q.repeat_interleave(num_outputs)])
        self.start_N = torch.cat([self.start_N, shared.length_Q.repeat_interleave(num_outputs)])
        self.age_N = torch.cat([self.age_N, torch.zeros_like(row_N)])

    def logits_NV(self, model: PreTrainedModel) -> Tensor:
        """One forward pass of the newest tokens."""
        return model(
            input_ids=self.token_N[:, None].to(model.device),
            position_ids=(self.start_N + self.age_N)[:, None].to(model.device),
            past_key_values=self.cohorts,
            use_cache=True,
        ).logits[:, -1]

    def advance(self, token_N: Tensor, ended_N: Tensor) -> None:
        """Give each row its next token, and drop those that have ended."""
        self.token_N, self.age_N = token_N, self.age_N + 1
        self.cohorts.advance()
        if ended_N.any():
            order = self.cohorts.drop(~ended_N)
            self.row_N, self.token_N, self.start_N, self.age_N = (
                x[order] for x in (self.row_N, self.token_N, self.start_N, self.age_N)
            )


def choose(logits_NV: Tensor, uniform_N: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Token of each row, and its log-probability in nats under what was sampled from (temperature and top-p applied).

    The token is the first whose cumulative probability passes the row's number from [0, 1).  With ``top_p`` below 1
    the most probable tokens are kept until their sum reaches it; the one that crosses it stays.  A temperature of 0 is
    greedy: the most probable token is certain, and the first of equals.

    >>> choose(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.99]), 0.0, 1.0)
    (tensor([1]), tensor([0.]))
    """
    logits_NV, uniform_N = logits_NV.to(precise(logits_NV.dtype)), uniform_N.to(logits_NV.device)
    if temperature == 0:
        best_N, token_N = logits_NV.max(-1)
        return token_N, best_N - best_N  # log 1; no number where the logits are none
    p_NV = torch.softmax(logits_NV if temperature == 1.0 else logits_NV / temperature, -1)
    index_NV = None
    if top_p < 1.0:
        # What lies below (1 - top_p) / V cannot be in the nucleus, so there is no need to sort it.
        width = max(1, int((p_NV >= (1 - top_p) / p_NV.shape[-1]).sum(-1).max()))
        p_NV, index_NV = p_NV.topk(width, -1)
        p_NV = p_NV.masked_fill(p_NV.cumsum(-1) - p_NV >= top_p, 0)
        p_NV = p_NV / p_NV.sum(-1, keepdim=True)
    best_N1 = _passed(p_NV, uniform_N[:, None])
    token_N1 = best_N1 if index_NV is None else index_NV.gather(-1, best_N1)
    return token_N1.squeeze(1), p_NV.gather(-1, best_N1).squeeze(1).log()


BLOCK = 64
"""Probabilities are added up in blocks of so many, and one by one in the block that matters alone."""


def _passed(p_NV: Tensor, uniform_N1: Tensor) -> Tensor:
    """The first entry of each row whose cumulative sum passes that share of the row's sum: (N, 1)."""
    size = p_NV.shape[-1]
    block_NBW = torch.nn.functional.pad(p_NV, (0, -size % BLOCK)).unflatten(-1, (-1, BLOCK))
    below_NB = block_NBW.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted_N1 = uniform_N1 * below_NB[:, -1:]
    block_N1 = torch.searchsorted(below_NB, wanted_N1, right=True).clamp_(max=below_NB.shape[-1] - 1)
    rest_N1 = wanted_N1 - torch.nn.functional.pad(below_NB, (1, 0)).gather(-1, block_N1)
    inside_NW = block_NBW[torch.arange(len(p_NV), device=p_NV.device), block_N1[:, 0]].cumsum(-1, dtype=torch.float64)
    # The two sums differ in their last digits: what is left of a block falls to its last entry that is not 0.
    most_N1 = inside_NW[:, -1:].nextafter(torch.zeros_like(rest_N1))
    inside_N1 = torch.searchsorted(inside_NW, rest_N1.minimum(most_N1), right=True)
    return (block_N1 * BLOCK + inside_N1).clamp_(max=size - 1)


def uniform(key_N: np.ndarray, position_N: np.ndarray) -> Tensor:
    """A number from (0, 1) a row, float64, from a 32-bit hash of (row key, position): no state, no order."""
    with np.errstate(over="ignore"):
        bits_N = _mix(_mix(key_N ^ (position_N.astype(np.uint32) * np.uint32(0x9E3779B1))) + np.uint32(0x85EBCA77))
    return torch.from_numpy((bits_N + 0.5) * 2.0**-32)


def _mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 32-bit integers whose output bits depend on all input bits: two multiply-xorshift rounds."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def row_keys(key: tuple[int, ...], question_keys: Sequence[int], num_outputs: int) -> np.ndarray:
    """One 32-bit key a row, from (key, question, output): uint32, (N,)."""
    sequences = [np.random.SeedSequence([*key, q & 0xFFFFFFFFFFFFFFFF]) for q in question_keys]
    return np.concatenate([s.generate_state(num_outputs, dtype=np.uint32) for s in sequences])
