"""Examples as token ids on the disk: made once, part by part, then read one by one where they are needed.

    tokens/  key.json             what they were made of
             part-000000.tokens   ids as unsigned 32-bit numbers, end to end: prompt, output, prompt, output, ...
             part-000000.json     lengths of its prompts and outputs, what was left out and why, where the next begins
             whole.json           there once all parts are

A part is whole once its JSON file is there: a process that was killed goes on after the last whole one.  Several may do
it at a time: each reads all rows, and makes the parts that no other has made or is at (`shards.Claims`).
"""

import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from r1repro.engine import shards
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal
from r1repro.run import read_json, speaking_of, writable

PART = 4096
"""Rows of a part: what a killed process has to do again."""

AT_ONCE = 32
"""Rows that the tokenizer is given at a time; it spreads them over the cores."""

NUMBER = np.dtype("<u4")

Place = tuple[int, int, int]
"""After which row: number of its file, of the row in it, and the bytes up to there."""

Rows = Iterator[tuple[Place, tuple[str, str] | str]]
"""Each row's place, and its question and output, or why it is left out."""


class Examples:
    """Made by `prepared`.  What it holds in memory is some twenty bytes an example."""

    def __init__(self, folder: Path):
        records = _records(folder)
        self._files = [folder / f"part-{part:06d}.tokens" for part in range(len(records))]
        self._part_N = np.repeat(np.arange(len(records), dtype=np.int32), [len(r["outputs"]) for r in records])
        self._prompt_N = np.array([n for r in records for n in r["prompts"]], dtype=np.int32)
        self.output_lengths = np.array([n for r in records for n in r["outputs"]], dtype=np.int32)
        """Tokens of each output, its end token included: (N,)."""
        starts = [np.cumsum([0, *np.add(r["prompts"], r["outputs"])])[:-1] for r in records if r["outputs"]]
        self._start_N = np.concatenate(starts).astype(np.int64) if starts else np.zeros(0, np.int64)
        self.left_out = dict(sum((Counter(r["left out"]) for r in records), Counter()))
        """Reason -> rows."""

    def __len__(self) -> int:
        return len(self.output_lengths)

    def __getitem__(self, index: int) -> tuple[list[int], list[int]]:
        """Token ids of the prompt, and of the output with its end token, of one example."""
        num_prompt, num_output = int(self._prompt_N[index]), int(self.output_lengths[index])
        ids = np.fromfile(
            self._files[self._part_N[index]], NUMBER, num_prompt + num_output,
            offset=int(self._start_N[index]) * NUMBER.itemsize,
        ).tolist()  # fmt: skip
        if len(ids) < num_prompt + num_output:
            raise Refusal(f"{self._files[self._part_N[index]]} is cut short: delete its folder, it is made anew")
        return ids[:num_prompt], ids[num_prompt:]


def prepared(
    folder: Path, key: dict[str, Any], read: Callable[[Place], Rows], words: Vocabulary, max_tokens: int, anew: bool
) -> Examples:
    """The examples of ``folder``, made there, or made to the end, where they are not.

    Args:
        key: what they depend on besides ``words`` and ``max_tokens``.
        read: rows after a place.
        max_tokens: longer outputs are left out whole.
        anew: those of another key are thrown away; else they are a Refusal.

    Raises:
        Refusal: whatever ``read`` refuses; a full disk; another key.
    """
    key = key | {"vocabulary": words.digest(), "max_tokens": max_tokens}
    if (folder / "key.json").exists() and (there := read_json(folder / "key.json")) != key:
        if not anew:
            differs = ", ".join(name for name in key if there.get(name) != key[name])
            raise Refusal(
                f"{folder} was made of something else ({differs} differs): put that back, or choose another run_dir"
            )
        shutil.rmtree(folder)
    if not (folder / "whole.json").exists():
        writable(folder)
        shards.put_json(folder / "key.json", key)
        with shards.Claims(folder, shards.LEASE_S) as claims:
            while not _all_made(folder, read, words, max_tokens, claims):
                time.sleep(claims.poll_s)
    return Examples(folder)


def _records(folder: Path) -> list[dict[str, Any]]:
    """Of the whole parts up to the first that is not."""
    files = takewhile(Path.exists, (_stem(folder, part).with_suffix(".json") for part in count()))
    return [read_json(file) for file in files]


def _stem(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06d}"


def _all_made(
    folder: Path, read: Callable[[Place], Rows], words: Vocabulary, max_tokens: int, claims: shards.Claims
) -> bool:
    """Go through the rows once and make the parts that nobody has made or is at, then wait for the others; False where
    there is still one to be made."""

    def is_whole(stem: Path) -> bool:
        return stem.with_suffix(".json").exists()

    def newest(stem: Path) -> int:
        return shards.newest(folder).get(stem.name, 0)

    records = _records(folder)
    rows = read(tuple(records[-1]["after"]) if records else (0, 0, 0))
    part, others = len(records), []
    while chosen := list(islice(rows, min(AT_ONCE, PART))):
        stem = _stem(folder, part)
        if not is_whole(stem) and claims.take(stem.name, newest(stem)) and not is_whole(stem):
            _write_part_(stem, chosen, rows, words, max_tokens)
        else:
            others.append(stem)
            deque(islice(rows, PART - len(chosen)), maxlen=0)  # passed over
        claims.release()
        part += 1
    while others := [stem for stem in others if not is_whole(stem)]:
        if any(claims.may_take(stem.name, newest(stem)) for stem in others):
            return False
        time.sleep(claims.poll_s)
    shards.put_json(folder / "whole.json", {"parts": part})
    return True


def _write_part_(stem: Path, chosen: list, rows: Rows, words: Vocabulary, max_tokens: int) -> None:
    """Write a part: the rows that were ``chosen`` and those that follow, up to its size."""
    prompts, outputs, left_out, num_rows = [], [], Counter(), 0
    file = stem.with_suffix(".tokens")
    temporary = shards.beside(file)
    with speaking_of(file), open(temporary, "wb") as target:
        while chosen:
            num_rows, after = num_rows + len(chosen), chosen[-1][0]
            left_out.update(found for _, found in chosen if isinstance(found, str))
            kept = [found for _, found in chosen if not isinstance(found, str)]
            for prompt, output in words.pairs([q for q, _ in kept], [o for _, o in kept]):
                if len(output) > max_tokens:
                    left_out["too long"] += 1
                    continue
                target.write(np.array([*prompt, *output], NUMBER).tobytes())
                prompts.append(len(prompt))
                outputs.append(len(output))
            chosen = list(islice(rows, min(AT_ONCE, PART - num_rows)))
    os.replace(temporary, file)
    record = {"prompts": prompts, "outputs": outputs, "left out": left_out, "after": after}
    shards.put_json(stem.with_suffix(".json"), record)
