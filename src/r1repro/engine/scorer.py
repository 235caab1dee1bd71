"""Reward models as machinery: a policy with a scalar head, what it reads, and what it says of many outputs.

The model is the library's own sequence classifier with one label: the policy's weights, and one number read off the
last token.  It is held as the policy is: whole, or frozen, in 4 bits too, beside an adapter that is trained with the
head.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.utils.checkpoint
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from r1repro import paper
from r1repro.algo import preference, search
from r1repro.algo.likelihood import precise
from r1repro.config import Machine, Policy
from r1repro.engine import adapters, checkpoint, dist, fsdp, policy, vocabulary
from r1repro.records import Question, Refusal, Score
from r1repro.run import read_json
from r1repro.tinyworld import base, general

MAX_ROWS = 256
"""Texts scored side by side."""


def load(
    folder: Path | str,
    seed: int | None = None,
    held: Policy | None = None,
    machine: Machine | None = None,
    shard: bool = False,
) -> PreTrainedModel:
    """A reward model from its folder; or, given a ``seed``, a new one: a policy's weights with a head drawn from it.

    Args:
        held: as the policy is; None: as the folder says, which is whole and in single precision where it holds no
            adapter.
        shard: cut it up over the ranks, see `fsdp`.

    Raises:
        Refusal: no model there, a damaged one, one that was held otherwise.
    """
    folder, machine, base = Path(folder), machine or Machine(), adapters.base_of(folder)
    if base is None and not (folder / "config.json").exists():
        raise Refusal(f"no model at {folder}: give the folder of a Hugging Face model")
    if (folder / "checkpoint.json").exists():
        checkpoint.verify(folder)
    saved = adapters.held_of(folder) if base else Policy()
    held = held or saved
    if held.weights != saved.weights and (base or seed is None):
        raise Refusal(
            f"the model at {folder} was trained as policy.weights={saved.weights}, not {held.weights}: set "
            f"policy.weights={saved.weights}"
        )
    if seed is not None:
        torch.manual_seed(seed)
    if shard or (folder / fsdp.SHARDS).is_dir():
        model = _from_rows(folder, seed, held, machine.device, shard)
    else:
        model = _classifier(base or folder, held, machine.device)
    if held.weights != "full":
        if base:
            adapters.attach_saved_(model, folder, held, with_head=seed is None)
        else:
            adapters.attach_(model, held, folder, seed)
        if seed is not None:
            adapters.head_(model, seed)
    _head_in_single_precision_(model, held)
    if machine.recompute:
        _recompute_layers_(model)
    has_own = any((folder / name).exists() for name in ("tokenizer_config.json", "tokenizer.json"))
    known = model.get_input_embeddings().num_embeddings
    words = vocabulary.of(folder if has_own or not base else base, known=known)
    # The classifier looks for the last token that is no padding, so the end token must not be that.
    model.config.pad_token_id = words.pad if words.pad != words.end else int(words.end == 0)
    model.r1repro_words = words
    is_whole = held.weights == "full" and model.device.type == "cpu"
    model.r1repro_tokens = None if is_whole else machine.micro_batch_tokens
    return model.eval()


def _from_rows(folder: Path, seed: int | None, held: Policy, device: str, shard: bool) -> PreTrainedModel:
    """The same where a model is to be cut up over the ranks, or where its folder holds one that was."""
    if shard:
        policy.that_can_be_cut(folder, held)
    elif held.weights != "full":
        raise Refusal(
            f"{folder} was cut up over ranks; adapters begin beside a plain model, which `export` makes of it"
        )
    try:
        about = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise Refusal(f"the reward model at {folder} cannot be loaded ({reason}): train it again") from error
    kind = AutoModelForSequenceClassification
    new = {} if seed is None else {f"{adapters.HEAD}.weight": adapters.drawn_head(about, seed)}
    if shard:
        return fsdp.load(folder, device, kind, new)
    return fsdp.whole(folder, torch.float32, kind, new).to(device)


def _classifier(folder: Path, held: Policy, device: str) -> PreTrainedModel:
    """The library's classifier of a plain model, its head new where the folder holds none."""
    dtype = torch.float32 if held.weights == "full" else getattr(torch, held.dtype)
    options = {}
    if held.weights == "qlora":
        options = {"quantization_config": adapters.quantised(dtype), "device_map": {"": device}}
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head of a new one is new is no news
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise Refusal(f"the reward model at {folder} cannot be loaded ({reason}): train it again") from error
    finally:
        logging.set_verbosity(loud)
    if options:
        adapters.keep_layout_(model)
    return model if options else model.to(device)


def _head_in_single_precision_(model: PreTrainedModel, held: Policy) -> None:
    """Compute in the policy's precision, and the score from what that gives in single precision."""
    if held.dtype == "float32":
        return
    model.r1repro_dtype = getattr(torch, held.dtype)
    if held.weights == "full":
        model.base_model.forward = torch.autocast(model.device.type, model.r1repro_dtype)(model.base_model.forward)
    model.get_submodule(adapters.HEAD).register_forward_pre_hook(lambda _, given: (given[0].float(),))


def _recompute_layers_(model: PreTrainedModel) -> None:
    """Keep the input of each layer alone, and compute the rest once more for the gradient: no cache is in the way."""

    def again(plain, *args, **kwargs):
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        return torch.utils.checkpoint.checkpoint(plain, *args, use_reentrant=False, **kwargs)

    for layer in next(module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList)):
        layer.forward = functools.partial(again, layer.forward)


def reads(kind: str, question: Question, text: str) -> str:
    """What a reward model of a kind reads of an output.

    ``helpful``: question and summary, never the thinking; ``safety`` and ``whole``: the whole output; ``judge``:
    question, reference and answer (sections 2.3.3 and 2.3.4).  An output that opens its thinking and never closes it
    has no summary.
    """
    if kind in ("safety", "whole"):
        return f"{paper.template(question.text)} {text.strip()}"
    if kind == "helpful":
        _, closed, after = text.rpartition("</think>")
        said = after if closed or "<think>" not in after else ""
        return f"{paper.template(question.text)} {said.strip()}"
    return f"User: {question.text} Answer: {question.gold}\nAssistant: {general.summary(text)}"


def encoded(model: PreTrainedModel, texts: Sequence[str], max_tokens: int = 0) -> list[list[int]]:
    """Token ids with an end token, cut to ``max_tokens`` from the left where that is given."""
    words = model.r1repro_words
    return [[*ids, words.end][-max_tokens:] for ids in words.tokenizer(list(texts))["input_ids"]]


def forward(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> Tensor:
    """Score of each text, (N,); padded on the right, read off the last token."""
    width, pad = max(map(len, ids)), model.config.pad_token_id
    ids_NT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids]).to(model.device)
    mask_NT = torch.arange(width)[None] < torch.tensor([len(row) for row in ids])[:, None]
    return model(input_ids=ids_NT, attention_mask=mask_NT.long().to(model.device), use_cache=False).logits[:, 0]


def parts(model: PreTrainedModel, tokens: Sequence[int], most: int) -> Iterator[list[int]]:
    """Which texts go through the model at once: short and long ones apart, at most ``most``, and of their tokens,
    padding included, as many as ``machine.micro_batch_tokens`` (those of one text at least).

    Tokens are not counted where all weights are trained on a CPU.
    """
    limit, some = getattr(model, "r1repro_tokens", None), []
    for i in sorted(range(len(tokens)), key=lambda i: tokens[i]):
        if some and (len(some) == most or limit is not None and (len(some) + 1) * tokens[i] > limit):
            yield some
            some = []
        some.append(i)
    yield some


def load_value(folder: Path | str) -> PreTrainedModel:
    """A value model (v2 A.3): a policy's weights, and a head that expects nothing of any token yet."""
    model = load(folder, seed=0)
    torch.nn.init.zeros_(model.score.weight)
    return model


def output_values(
    model: PreTrainedModel, shared: policy.Prefix, prompts, question_N: Tensor, tokens_NT: Tensor, length_N: Tensor, *_
) -> Tensor:
    """What a model with a scalar head expects before each token of N outputs, (N, T), 0 at padding.

    To be passed as ``read`` to `policy.all_logp` and `policy.backward_`; temperature and logits mean nothing here.
    """
    hidden_MD, on_NT = policy.output_hidden(model, shared, prompts, question_N, tokens_NT, length_N)
    value_M = model.score(hidden_MD)[:, 0].to(precise(hidden_MD.dtype))
    return value_M.new_zeros(tokens_NT.shape).masked_scatter(on_NT.to(model.device), value_M)


@torch.no_grad()
def scores(model: PreTrainedModel, texts: Sequence[str]) -> Tensor:
    """Score of each text, (N,); short and long ones apart, so that little is padded.

    Of a model that is cut up all ranks must ask, each for texts of its own, or for none.
    """
    ids = encoded(model, texts) if texts else []
    batches = list(parts(model, [len(text) for text in ids], MAX_ROWS)) if ids else []
    found_N = torch.zeros(len(ids), dtype=model.score.weight.dtype)
    lacking = fsdp.evened(len(batches), model) - len(batches)  # which ranks agree on before the first pass
    for rows in batches:
        found_N[rows] = forward(model, [ids[i] for i in rows]).cpu()
    for _ in range(lacking):
        forward(model, [[model.r1repro_words.end]])
    fsdp.rest_(model)
    return found_N


def shared_scores(model: PreTrainedModel, texts: Sequence[str]) -> Tensor:
    """`scores` of texts that all ranks ask for: each does its share, and has those of all."""
    return dist.stacked(scores(model, texts[dist.share(len(texts))]))


@dataclass(frozen=True, slots=True)
class Cut:
    """An output as tokens, cut into steps."""

    question: int
    """Row of the prompts that it answers."""

    output: Sequence[int]
    places: Sequence[int]
    """The last token of each step, counted from the output's first."""


def cut(line_ends: Collection[int], output: Sequence[int]) -> list[int]:
    """Where the steps of an output end: at each full stop, and at its last token.

    >>> cut({9}, [5, 9, 6, 7])
    [1, 3]
    """
    return [place for place, token in enumerate(output) if token in line_ends or place == len(output) - 1]


def step_scores(model: PreTrainedModel, prompts: Sequence[Sequence[int]], outputs: Sequence[Cut]) -> Tensor:
    """What a model says of each step of some outputs: a score at its last token, of all up to there; end to end, (M,).

    A causal model sees at a place what stands before it, so one pass gives what a pass a step would.

    Args:
        outputs: in the order of their questions.
    """
    shared = policy.prefix(model, prompts)
    question_N = torch.tensor([output.question for output in outputs])
    length_N = torch.tensor([len(output.output) + 1 for output in outputs])  # what comes after the last token counts
    tokens_NT = torch.zeros(len(outputs), int(length_N.max()), dtype=torch.long)
    for row, output in enumerate(outputs):
        tokens_NT[row, : len(output.output)] = torch.tensor(output.output)
    hidden_MD, _ = policy.output_hidden(model, shared, shared.end_to_end(), question_N, tokens_NT, length_N)
    start_N = (length_N.cumsum(0) - length_N).tolist()
    places = [start + place + 1 for start, output in zip(start_N, outputs, strict=True) for place in output.places]
    return model.score(hidden_MD[places])[:, 0]


@torch.no_grad()
def step_values(model: PreTrainedModel, prompts: Sequence[Sequence[int]], outputs: Sequence[Cut]) -> list[list[float]]:
    """Chance of a right end after each step of some outputs, by a model whose scores are its logits."""
    order = sorted(range(len(outputs)), key=lambda i: outputs[i].question)
    found: list[list[float]] = [[] for _ in outputs]
    for first in range(0, len(order), MAX_ROWS):
        rows = order[first : first + MAX_ROWS]
        asked = list(dict.fromkeys(outputs[i].question for i in rows))
        some = [replace(outputs[i], question=asked.index(outputs[i].question)) for i in rows]
        value_M = step_scores(model, [prompts[q] for q in asked], some).sigmoid()
        for i, values in zip(rows, value_M.split([len(output.places) for output in some]), strict=True):
            found[i] = values.tolist()
    return found


class Process:
    """The process reward: what a process reward model says of the weakest step of an output, 0 to 1 (section 4.2).

    To be passed to `rl.train` as `Preference` is; and what values solutions in `stages.attempts`.
    """

    __name__ = "process"

    def __init__(self, folder: Path | str):
        self.folder, self.model = Path(folder), load(folder)
        self.line_ends = frozenset(self.model.r1repro_words.line_ends())

    @property
    def inputs(self) -> dict[str, str]:
        return {"process reward model": base.digest(self.folder)}

    def steps(self, questions: Sequence[Question], texts: Sequence[str]) -> list[list[float]]:
        """The value of each step of each output."""
        asked = list(dict.fromkeys(question.text for question in questions))
        pairs = self.model.r1repro_words.pairs([question.text for question in questions], texts)
        prompts = {question.text: prompt for question, (prompt, _) in zip(questions, pairs, strict=True)}
        outputs = [
            Cut(asked.index(question.text), output, cut(self.line_ends, output))
            for question, (_, output) in zip(questions, pairs, strict=True)
        ]
        return step_values(self.model, [prompts[text] for text in asked], outputs)

    def read(self, question: Question, text: str) -> list[tuple[str, float]]:
        """Each step of an output, and its value."""
        words = self.model.r1repro_words
        output = words.output(text)
        ends = [0, *(place + 1 for place in cut(self.line_ends, output))]
        steps = [words.text(output[first:last]) for first, last in pairwise(ends)]
        return list(zip(steps, self.steps([question], [text])[0], strict=True))

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
        values = [search.weakest_step(steps) for steps in self.steps(questions, texts)]
        return [Score(value=value, verdict="right" if value > 0.5 else "wrong") for value in values]


class Preference:
    """The preference reward of RL for all scenarios: each open question has one reward model, reasoning has none.

    R = R_reasoning + R_general + R_language (v2 Eq. 8 to 10); this is what R_general has beside the format.  To be
    passed to `rl.train` as a reward.

    Args:
        helpful, safety: folders of the reward models.
        held, machine: see `load`; with ``machine.shard`` they are cut up over the ranks.
        afar: what scores texts in the place of models that are loaded here: folder and texts -> their scores.
    """

    __name__ = "preference"
    together: bool
    """The models are cut up: all ranks must ask at the same time, those with nothing to ask too."""

    def __init__(
        self, helpful: Path, safety: Path, held: Policy | None = None, machine: Machine | None = None,
        afar: Callable[[Path, list[str]], Sequence[float]] | None = None,
    ):  # fmt: skip
        self.folders = {"general": Path(helpful), "safety": Path(safety)}
        self.kinds = {"general": "helpful", "safety": "safety"}
        self.together = not afar and machine is not None and machine.shard
        loaded = {} if afar else {p: load(p, None, held, machine, self.together) for p in self.folders.values()}
        self._scores = afar or (lambda folder, texts: scores(loaded[folder], texts))
        self.scales = {family: read_json(folder.parents[1] / "scale.json") for family, folder in self.folders.items()}

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of the reward models, for the manifest of the run that uses them."""
        return {f"reward model {family}": base.digest(folder) for family, folder in self.folders.items()}

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
        values = [0.0] * len(texts)
        for family, folder in self.folders.items():
            rows = [i for i, question in enumerate(questions) if question.family == family]
            if rows or self.together:
                said = [reads(self.kinds[family], questions[i], texts[i]) for i in rows]
                scale = self.scales[family]
                score_N = torch.as_tensor(self._scores(folder, said))
                found = preference.standardised(score_N, scale["mean"], scale["std"])
                for i, value in zip(rows, found.tolist(), strict=True):
                    values[i] = value
        return [Score(value=value, verdict="right" if value > 0 else "wrong") for value in values]


class Judge:
    """A trained judge: whether an answer says what the reference says (2.3.3).

    Args:
        held, machine: see `load`; with ``machine.shard`` it is cut up over the ranks.
    """

    together: bool
    """It is cut up: all ranks must ask at the same time, those with nothing to ask too."""

    def __init__(self, folder: Path, held: Policy | None = None, machine: Machine | None = None):
        self.together = machine is not None and machine.shard
        self.folder, self.model = Path(folder), load(folder, None, held, machine, self.together)

    @property
    def inputs(self) -> dict[str, str]:
        return {"judge": base.digest(self.folder)}

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[bool]:
        said = [reads("judge", question, text) for question, text in zip(questions, texts, strict=True)]
        return (scores(self.model, said) > 0).tolist()
