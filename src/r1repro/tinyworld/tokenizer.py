"""The tokenizer of the tiny world: one for all its families and models, frozen.

A byte-fallback BPE of 1,024 entries: 256 bytes, the tags and control tokens, single digits, each Chinese character of
the sample text, whole English words (those of the template and of the paper's reflection list first, then by
frequency), a few merges, and 64 reserved entries.  Any text can be encoded and comes back unchanged.

Changing a byte of it would make every base model and every committed figure worthless; a test holds its hash.
"""

import functools
import json
import random
from collections import Counter
from importlib import resources
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1repro import paper
from r1repro.rewards.language import REFLECTION_EN
from r1repro.run import sha256_file
from r1repro.tinyworld import arithmetic

VOCABULARY = 1024
NUM_RESERVED = 64
NUM_MERGES = 24
END, PAD = "<|end|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
ASSETS = Path(str(resources.files("r1repro.tinyworld"))) / "assets"

_PIECES = "|".join(
    (
        r"[一-鿿]",  # a Chinese character is a token: no segmentation to learn
        r"\d",  # so is a digit
        r" [+\-*/=] (?=\d)",  # ` + ` between numbers
        r"[,:;.] (?=\d)",  # a stop before a number takes the space
        r" ?[A-Za-z]+",
        r" ?[^\sA-Za-z\d一-鿿]",
        r"\s",
    )
)


def build() -> Tokenizer:
    """The tokenizer, made anew from the sample text of all families: the same each time."""
    text = _sample_text()
    splitter = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    counts = Counter(piece for line in text for piece, _ in splitter.pre_tokenize_str(line))
    template = {p for p, _ in splitter.pre_tokenize_str(paper.template(""))}
    reflection = {f" {word}" for word in REFLECTION_EN}

    fixed = [PAD, END, *TAGS, *(f"<0x{byte:02X}>" for byte in range(256))]
    reserved = [f"<|reserved_{i}|>" for i in range(NUM_RESERVED)]
    characters = sorted({c for line in text for c in line} | {chr(i) for i in range(32, 127)} | {"\n"})

    subwords = Tokenizer(models.BPE())
    subwords.pre_tokenizer = splitter
    room = VOCABULARY - len(fixed) - len(reserved)
    trainer = trainers.BpeTrainer(
        vocab_size=len(characters) + NUM_MERGES,
        initial_alphabet=characters,
        show_progress=False,
        limit_alphabet=len(characters),
    )
    subwords.train_from_iterator(text, trainer)
    learned = subwords.get_vocab()
    merges = _merges(subwords)
    pieces = sorted(learned, key=learned.get)
    frequent = sorted(counts, key=lambda piece: (-counts[piece], piece))
    for word in sorted((template | reflection) - set(pieces)) + frequent:
        if len(pieces) < room and word not in pieces:
            pieces.append(word)
    vocabulary = {piece: i for i, piece in enumerate(fixed + pieces + reserved)}
    if len(vocabulary) != VOCABULARY:
        raise AssertionError(f"{len(vocabulary)} entries, not {VOCABULARY}")

    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, ignore_merges=True, fuse_unk=False)
    )
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, END, *reserved)])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return tokenizer


@functools.cache
def load() -> PreTrainedTokenizerFast:
    """The frozen tokenizer in Hugging Face form."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(ASSETS / "tokenizer.json"),
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _sample_text() -> list[str]:
    """What the words are counted on: the template, worked solutions of every depth, and each family's sample lines."""
    lines = (ASSETS / "families.txt").read_text(encoding="utf-8").splitlines()
    text = [line for line in lines if not line.startswith("# ")] * 3 + [paper.template("")] * 50
    for i in range(500):
        rng, language = random.Random(i), ("en", "zh")[i % 2]
        expression = f"{rng.randint(200, 999)} - {rng.randint(10, 99)} + {rng.randint(10, 999)}"
        solution, answer = arithmetic.solve(expression, i % 4, lambda: language, 0.2, rng)  # noqa: B023
        text.append(f"{arithmetic.ASK[language].format(expression=expression)}\n{solution}\n{answer}\n")
    return text


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:

    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in merges]


def digest() -> str:
    """SHA-256 of the frozen tokenizer's file."""
    return sha256_file(ASSETS / "tokenizer.json")
