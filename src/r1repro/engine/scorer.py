"""Reward models as machinery: a policy with a scalar head, what it reads, and what it says of many outputs.

The model is the library's own sequence classifier with one label: the policy's weights, and one number read off the
last token.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from r1repro import paper
from r1repro.algo import preference
from r1repro.algo.likelihood import precise
from r1repro.engine import policy, vocabulary
from r1repro.records import Question, Refusal, Score
from r1repro.run import read_json
from r1repro.tinyworld import base, general

MAX_ROWS = 256
"""Texts scored side by side."""


def load(folder: Path | str, seed: int | None = None) -> PreTrainedModel:
    """A reward model from its folder; or, given a ``seed``, a new one: a policy's weights with a head drawn from it."""
    if not (Path(folder) / "config.json").exists():
        raise Refusal(f"no model at {folder}: give the folder of a Hugging Face model")
    if seed is not None:
        torch.manual_seed(seed)
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head of a new one is new is no news
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise Refusal(f"the reward model at {folder} cannot be loaded ({reason}): train it again") from error
    finally:
        logging.set_verbosity(loud)
    model.r1repro_words = vocabulary.of(folder, known=model.get_input_embeddings().num_embeddings)
    model.config.pad_token_id = model.r1repro_words.pad
    return model.eval()


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
    ids_NT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids])
    mask_NT = torch.arange(width)[None] < torch.tensor([len(row) for row in ids])[:, None]
    return model(input_ids=ids_NT, attention_mask=mask_NT.long(), use_cache=False).logits[:, 0]


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
    """Score of each text, (N,); short and long ones apart, so that little is padded."""
    ids = encoded(model, texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found_N = torch.zeros(len(ids))
    for first in range(0, len(order), MAX_ROWS):
        rows = order[first : first + MAX_ROWS]
        found_N[rows] = forward(model, [ids[i] for i in rows])
    return found_N


class Preference:
    """The preference reward of RL for all scenarios: each open question has one reward model, reasoning has none.

    R = R_reasoning + R_general + R_language (v2 Eq. 8 to 10); this is what R_general has beside the format.  To be
    passed to `rl.train` as a reward.
    """

    __name__ = "preference"

    def __init__(self, helpful: Path, safety: Path):
        self.folders = {"general": Path(helpful), "safety": Path(safety)}
        self.kinds = {"general": "helpful", "safety": "safety"}
        self.models = {family: load(folder) for family, folder in self.folders.items()}
        self.scales = {family: read_json(folder.parents[1] / "scale.json") for family, folder in self.folders.items()}

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of the reward models, for the manifest of the run that uses them."""
        return {f"reward model {family}": base.digest(folder) for family, folder in self.folders.items()}

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[Score]:
        values = [0.0] * len(texts)
        for family, model in self.models.items():
            rows = [i for i, question in enumerate(questions) if question.family == family]
            if rows:
                said = [reads(self.kinds[family], questions[i], texts[i]) for i in rows]
                scale = self.scales[family]
                found = preference.standardised(scores(model, said), scale["mean"], scale["std"])
                for i, value in zip(rows, found.tolist(), strict=True):
                    values[i] = value
        return [Score(value=value, verdict="right" if value > 0 else "wrong") for value in values]


class Judge:
    """A trained judge: whether an answer says what the reference says (2.3.3)."""

    def __init__(self, folder: Path):
        self.folder, self.model = Path(folder), load(folder)

    @property
    def inputs(self) -> dict[str, str]:
        return {"judge": base.digest(self.folder)}

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[bool]:
        said = [reads("judge", question, text) for question, text in zip(questions, texts, strict=True)]
        return (scores(self.model, said) > 0).tolist()
