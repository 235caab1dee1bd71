"""What a model reads and writes: its tokenizer, its end tokens, and how a question is put to it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from r1repro import paper
from r1repro.records import Question, Refusal
from r1repro.run import read_json
from r1repro.tinyworld import tokenizer as tiny

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FULL_STOPS = ".\u3002"
DAY = "26 Jul 2024"
"""Given to templates that tell the model a date, as Llama's do, which take today's if they get none: a prompt does not
depend on the day."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Prompts to token ids, token ids to texts.  Make it with `of`."""

    tokenizer: PreTrainedTokenizerBase

    template: str
    """``r1_zero`` or ``chat``, see `config.Policy`."""

    end: int
    """The token that an output is trained to end with."""

    ends: tuple[int, ...]
    """All tokens that end an output: a chat template may end a turn with another than the model's own."""

    pad: int
    """Stands where there is no token.  It is never read, so a model without one borrows its end token."""

    opening: str
    """What a chat template writes of the output itself, such as ``<think>`` and a new line; empty for most."""

    hidden: frozenset[int]
    """Tokens that no text shows: special ones, but for the tags, which some tokenizers count among them."""

    first: tuple[int, ...]
    """What the tokenizer puts before every text, such as one BOS token.  A chat template writes its own."""

    def prompt(self, question: str) -> list[int]:
        """Token ids of a question in the template.

        Where the paper is silent:
            A chat template that answers for the model that it does not think (``<think>``, nothing, ``</think>``) is
            not followed in that: the prompt ends before it.
        """
        return self._prompts([question])[0]

    def prompts(self, questions: Sequence[Question]) -> list[list[int]]:
        """Token ids of each question in the template."""
        return self._prompts([question.text for question in questions])

    def output(self, text: str) -> list[int]:
        """Token ids of an output to be trained on, its end token last; what the template has written is left out.

        The chat template is never asked to write an output: many drop the thinking of turns that are past.  Nor does
        an output hold a special token before its end, though another model may have left one in its text.
        """
        return self._outputs([text])[0]

    def pairs(self, questions: Sequence[str], outputs: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """`prompt` and `output` of each of some examples; many at once are faster than one by one."""
        return list(zip(self._prompts(questions), self._outputs(outputs), strict=True))

    def _prompts(self, questions: Sequence[str]) -> list[list[int]]:
        if self.template == "chat":
            return self._ids([_asked(self.tokenizer, question) for question in questions])
        return [[*self.first, *ids] for ids in self._ids([paper.template(question) for question in questions])]

    def _outputs(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._ids([self._said(text.strip()) for text in texts])
        return [[*(token for token in ids if token not in self.hidden), self.end] for ids in found]

    def _said(self, text: str) -> str:
        """What is left of an output for the model to write."""
        if self.template != "chat":
            return f" {text}"  # the template ends in "Assistant:"
        if not self.opening:
            return text
        begun = self.opening.strip()
        return text.removeprefix(begun).lstrip() if text.startswith(begun) else f"\n</think>\n\n{text}"

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def line_ends(self) -> tuple[int, ...]:
        """Tokens with a full stop in them, of either language: each ends a line of a thinking.

        Where the paper is silent:
            What a step is, which it calls hard to define in general reasoning (4.2).  Here it is a line, up to its
            full stop; what comes after the last one, the answer, is the last step.
        """
        return tuple(i for i in range(len(self.tokenizer)) if set(self.tokenizer.decode([i])) & set(FULL_STOPS))

    def digest(self) -> str:
        """SHA-256 of all that prompts and outputs depend on."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        whole = backend.to_str() if backend else str(sorted(self.tokenizer.get_vocab().items()))
        asked = self.tokenizer.chat_template if self.template == "chat" else self.template
        said = (whole, str(asked), self.opening, self.end, sorted(self.hidden), self.first)
        return hashlib.sha256(repr(said).encode()).hexdigest()

    def texts(self, tokens_NT: Tensor, length_N: Tensor) -> list[str]:
        """Text of each output, see `text`."""
        rows = zip(tokens_NT.tolist(), length_N.tolist(), strict=True)
        return [self.text(row[:length]) for row, length in rows]

    def text(self, ids: Sequence[int]) -> str:
        """Text of an output, without its end token and with what the template has written of it."""
        shown = [token for token in ids if token not in self.hidden]
        return self.opening + self.tokenizer.decode(
            shown, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def of(folder: Path | str, template: str = "r1_zero", known: int | None = None) -> Vocabulary:
    """The vocabulary of the model in a folder; that of the tiny world where a folder holds none and the sizes agree.

    Args:
        known: tokens that the model knows, to be compared with; read from its ``config.json`` when not given.

    Raises:
        Refusal: no tokenizer, one that cannot be read or does not fit the model, no end token, no chat template.
    """
    folder = Path(folder)
    about = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    known = known or about.get("vocab_size")
    own = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    found = _tokenizer(folder) if own else tiny.load()
    # Many models have rows to spare; a borrowed tokenizer must fit exactly.
    if known is not None and (len(found) > known or not own and len(found) != known):
        raise Refusal(
            f"the model at {folder} knows {known} tokens and its tokenizer {len(found)}: put the tokenizer.json that "
            "it was trained with beside it"
        )
    ends = _ends(folder, about, found)
    end, opening = ends[0] if ends else None, ""
    if template == "chat":
        if not found.chat_template:
            raise Refusal(f"the model at {folder} has no chat template: set policy.template=r1_zero")
        try:
            turn, opening = _turn(found)
        except (TemplateError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Refusal(
                f"the chat template of the model at {folder} cannot be used ({reason}): set policy.template=r1_zero"
            ) from error
        end = end if turn is None else turn
    if end is None:
        raise Refusal(f"the model at {folder} has no end token: name an eos_token in its tokenizer_config.json")
    pad = found.pad_token_id if found.pad_token_id is not None else end
    hidden = {i for i, t in found.added_tokens_decoder.items() if t.special and t.content not in TAGS}
    ends = tuple(dict.fromkeys((end, *ends)))
    return Vocabulary(found, template, end, ends, pad, opening, frozenset(hidden | set(ends)), _first(found))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # Chosen by the architecture in config.json, the library's class of a tokenizer adds tokens of its own.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").exists() else AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises that of a file that it cannot read
        reason = " ".join(str(error).split())[:200]
        raise Refusal(f"{folder}/tokenizer.json cannot be read ({reason}): put it there whole") from error


def _ends(folder: Path, about: dict, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """End tokens of a model by its tokenizer, its generation settings and its configuration, each once."""
    file = folder / "generation_config.json"
    generation = read_json(file) if file.exists() else {}
    found = [tokenizer.eos_token_id]
    for said in (generation.get("eos_token_id"), about.get("eos_token_id")):
        found += said if isinstance(said, list) else [said]
    return list(dict.fromkeys(token for token in found if token is not None))


def _first(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What a tokenizer puts before a text.  What some put behind it, an end token, would be no prompt's."""
    with_them, without = (tokenizer("a", add_special_tokens=whether)["input_ids"] for whether in (True, False))
    for count in range(len(with_them) - len(without) + 1):
        if with_them[count : count + len(without)] == without:
            return tuple(with_them[:count])
    return ()


def _asked(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The text of a question in a chat template, up to where the model goes on."""
    said = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, date_string=DAY)
    before, tag, after = text.rpartition("<think>")
    return before if tag and after.strip() == "</think>" else text


def _turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, str]:
    """How a chat template goes on: the token that ends an assistant's turn, and what it writes of the output itself.

    Found by asking it: the first special token behind the words of a finished turn, and what the generation prompt
    ends with.
    """
    words = "qqq"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": words}]
    _, found, after = tokenizer.apply_chat_template(said, tokenize=False, date_string=DAY).rpartition(words)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if found and after else []
    end = next((token for token in ids if token in tokenizer.added_tokens_decoder), None)
    _, opened, rest = _asked(tokenizer, "a").rpartition("<think>")
    return end, opened + rest if opened and not rest.strip() else ""
