"""Examples of other makers: every form is understood, what is none is refused with its place, nothing piles up."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from test_sft import ROWS, metrics, settings

from r1repro.engine import tokens, vocabulary
from r1repro.records import Refusal
from r1repro.run import append_lines
from r1repro.stages import sft, traces

ASKED, SAID = "What is 1 + 1?", "<think>\nOne more.\n</think>\n\n2"
USER, GPT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
SYSTEM = {"role": "system", "content": "Think."}
MARKED = "<|begin_of_thought|>\n\nOne more.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n2\n\n<|end_of_solution|>"


def lines(file, rows):
    file.unlink(missing_ok=True)
    append_lines(file, rows)
    return file


@pytest.mark.parametrize(
    "row",
    [
        {"question": ASKED, "output": SAID, "id": 3, "family": "sums"},
        {"problem": ASKED, "solution": SAID},
        {"prompt": ASKED, "response": SAID},
        {"instruction": ASKED, "input": "", "output": SAID},
        {"problem": ASKED, "generation": SAID, "solution": "what a book says", "answer": "2"},
        {"question": ASKED, "answer": SAID},
        {"problem": ASKED, "generations": [SAID, "other"], "solution": "book"},
        {"problem": ASKED, "generations": ["other", SAID], "correctness_math_verify": [False, True]},
        {"problem": ASKED, "generations": ["other", SAID], "correctness_a": None, "correctness_b": [None, True]},
        {"problem": ASKED, "generations": ["a", SAID], "correctness_a": [False, False], "correctness_b": [False, True]},
        {"messages": [USER, GPT]},
        {"messages": [SYSTEM, USER, GPT, USER | {"content": "And 2 + 2?"}, GPT | {"content": "4"}]},
        {"messages": [USER, {"role": "assistant", "content": "2", "reasoning_content": "One more.\n"}]},
        {"messages": [USER | {"content": [{"type": "text", "text": ASKED}]}, GPT]},
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]},
        {
            "system": "Think.",
            "conversations": [{"from": "user", "value": ASKED}, {"from": "assistant", "value": MARKED}],
        },
        {"prompt": ASKED, "response": "2", "reasoning": "One more."},
        {"question": ASKED, "output": "2", "thinking": "\nOne more. "},
        {"question": ASKED, "output": SAID, "reasoning": "said twice"},
        {"problem": ASKED, "solution": MARKED},
    ],
    ids=lambda row: " ".join(row),
)
def test_each_form_gives_the_same_example(row):
    assert traces.example(row) == (ASKED, SAID)


def test_our_own_outputs_are_not_touched():
    for text in ("", " <think> so </think> <answer> 2 </answer>", "no tags\n"):
        assert traces.example({"question": "q", "output": text, "reasoning_content": None}) == ("q", text)


def test_what_an_instruction_is_applied_to_is_part_of_the_question():
    row = {"instruction": "Translate.", "input": "two", "output": SAID}
    assert traces.example({"prompt": "p", "input": "not ours", "response": "r"}) == ("p", "r")
    assert traces.example({k: v for k, v in row.items() if k != "output"} | {"response": "r"})[0] == "Translate.\n\ntwo"
    assert traces.example(row)[0] == "Translate.\n\ntwo"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": ASKED, "generations": ["3", "4"], "correctness_x": [False, False]}, "no right output"),
        ({"question": ASKED, "output": SAID, "finish_reason": "length"}, "cut at the cap"),
    ],
)
def test_some_are_well_formed_and_not_to_be_learnt_from(row, reason):
    assert traces.example(row) == reason


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"question": "a"},
        {"output": "a"},
        {"question": "a", "output": 3},
        {"problem": " ", "solution": "b"},
        {"problem": "a", "solution": ""},
        {"problem": "a", "generations": []},
        {"generations": ["a"]},
        {"messages": []},
        {"messages": [GPT]},
        {"messages": [USER, SYSTEM]},
        {"messages": ["a", "b"]},
        {"conversations": [{"from": "human", "value": None}, {"from": "gpt", "value": "x"}]},
    ],
    ids=str,
)
def test_what_is_none_is_refused_with_its_place(row):
    with pytest.raises(Refusal, match=r"^x\.jsonl, line 7 has no text called question or output.*mend or remove"):
        traces.example(row, "x.jsonl, line 7")


@pytest.mark.parametrize(("text", "reason"), [("[1]\n", "line 2 is no record"), ("{", "line 2 is damaged")])
def test_a_damaged_line_is_named(tmp_path, tiny_base, text, reason):
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n" + text)
    with pytest.raises(Refusal, match=reason):
        sft.train(settings(), tmp_path / "run", tiny_base, file)
    assert not (tmp_path / "run" / "manifest.json").exists(), "a mended file can be trained on in the same folder"
    lines(file, ROWS)
    sft.train(settings(epochs=1), tmp_path / "run", tiny_base, file)
    with pytest.raises(Refusal, match="1.jsonl, line 3 has no text"):
        sft.read_examples(lines(tmp_path / "1.jsonl", [*ROWS[:2], {"a": 1}]))


# --- shards


def parquet_file(file, rows, **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file


def test_shards_of_both_kinds_train_as_one_file(tmp_path, tiny_base):
    """Bit for bit: the same rows in the same order."""
    sft.train(settings(), tmp_path / "one", tiny_base, lines(tmp_path / "all.jsonl", ROWS))
    folder = tmp_path / "shards"
    folder.mkdir()
    lines(folder / "b.jsonl", ROWS[3:5])
    parquet_file(folder / "a.parquet", ROWS[:3])
    parquet_file(folder / "c.parquet", ROWS[5:], row_group_size=2)
    (folder / "README.md").write_text("not an example")
    sft.train(settings(), tmp_path / "many", tiny_base, folder)
    one, many = ([row["policy/loss"] for row in metrics(tmp_path / name)] for name in ("one", "many"))
    assert one == many
    assert sft.read_examples(folder) == ROWS


def test_parquet_rows_are_named_and_columns_of_no_use_are_not_read(tmp_path):
    rows = [{"problem": "a", "solution": "b", "blob": "x"}] * 70 + [{"problem": "a", "solution": None, "blob": "x"}]
    (shard,) = traces.shards(parquet_file(tmp_path / "x.parquet", rows))
    found = list(shard.rows(skip=66))
    assert [number for number, _, _ in found] == [67, 68, 69, 70, 71] and found[0][1].keys() == {"problem", "solution"}
    with pytest.raises(Refusal, match=r"x\.parquet, row 71 has no text"):
        sft.read_examples(tmp_path / "x.parquet")


def test_a_damaged_parquet_file_is_refused_in_one_line(tmp_path):
    file = parquet_file(tmp_path / "x.parquet", ROWS)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Refusal, match="x.parquet cannot be read") as refusal:
        sft.read_examples(file)
    assert "\n" not in str(refusal.value)


def test_without_pyarrow_parquet_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(Refusal, match="x.parquet needs the package pyarrow"):
        sft.read_examples(tmp_path / "x.parquet")


def test_a_folder_without_shards_names_one_that_has_some(tmp_path):
    (tmp_path / "data").mkdir()
    lines(tmp_path / "data" / "0.jsonl", ROWS)
    with pytest.raises(Refusal, match=f"give one of {tmp_path}/data"):
        traces.shards(tmp_path)
    with pytest.raises(Refusal, match="give a folder that does"):
        (tmp_path / "empty").mkdir()
        traces.shards(tmp_path / "empty")


def test_a_changed_shard_is_another_set_of_examples(tmp_path):
    for name in ("a", "b"):
        lines(tmp_path / f"{name}.jsonl", ROWS)
    before = traces.digest(traces.shards(tmp_path))
    assert before == traces.digest(traces.shards(tmp_path))
    lines(tmp_path / "b.jsonl", ROWS[1:])
    assert traces.digest(traces.shards(tmp_path)) != before


# --- token ids on the disk


def made(tmp_path, tiny_base, rows, max_tokens=64, name="tokens", **more):
    files = traces.shards(lines(tmp_path / f"{name}.jsonl", rows))
    return sft.tokenised(files, tmp_path / name, traces.digest(files), max_tokens, vocabulary.of(tiny_base), **more)


def test_the_disk_gives_back_what_the_tokenizer_gave(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr(tokens, "PART", 3)
    monkeypatch.setattr(tokens, "AT_ONCE", 2)
    rows = [*ROWS, {"question": "x", "output": "so " * 100}, {"question": "y", "output": "", "finish_reason": "length"}]
    data = made(tmp_path, tiny_base, rows)
    prompts, outputs = sft.encoded(ROWS, 64, vocabulary.of(tiny_base))
    assert [data[i] for i in range(len(data))] == list(zip(prompts, outputs, strict=True))
    assert data.left_out == {"too long": 1, "cut at the cap": 1}
    assert list(data.output_lengths) == [len(output) for output in outputs]
    assert len(list((tmp_path / "tokens").glob("*.tokens"))) == 4


def test_the_run_counts_what_it_left_out_and_keeps_no_tokens(tmp_path, tiny_base):
    rows = [*ROWS, {"question": "x", "output": "so " * 100}]
    sft.train(settings(), tmp_path / "run", tiny_base, lines(tmp_path / "x.jsonl", rows))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    _, outputs = sft.encoded(ROWS, 64, vocabulary.of(tiny_base))
    assert manifest["left_out"] == {"too long": 1} and manifest["examples"] == 10
    assert manifest["tokens"] == {"trained": 2 * sum(map(len, outputs))}
    assert not (tmp_path / "run" / "tokens").exists()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"question": "x", "output": "so " * 100}], "no output of at most 64 tokens: raise sft.max_tokens"),
        ([{"question": "x", "output": "a", "finish_reason": "length"}], "no example to learn from .cut at the cap."),
    ],
)
def test_nothing_to_train_on_is_refused_and_leaves_no_run(tmp_path, tiny_base, rows, reason):
    with pytest.raises(Refusal, match=reason):
        sft.train(settings(), tmp_path / "run", tiny_base, lines(tmp_path / "x.jsonl", rows))
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_stopped_run_does_not_tokenise_again(tmp_path, tiny_base, monkeypatch):
    file, real = lines(tmp_path / "x.jsonl", ROWS), sft.update_
    monkeypatch.setattr(sft, "update_", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sft.train(settings(), tmp_path / "run", tiny_base, file)
    monkeypatch.setattr(sft, "update_", real)
    monkeypatch.setattr(traces, "example", lambda *_: 1 / 0)
    sft.train(settings(), tmp_path / "run", tiny_base, file)


def test_tokens_of_something_else_are_made_anew_before_the_run_and_refused_in_it(tmp_path, tiny_base):
    assert len(made(tmp_path, tiny_base, ROWS)) == 10 and len(made(tmp_path, tiny_base, ROWS[:4])) == 4
    with pytest.raises(Refusal, match="tokens was made of something else .max_tokens differs."):
        made(tmp_path, tiny_base, ROWS[:4], max_tokens=63, anew=False)
    assert len(made(tmp_path, tiny_base, ROWS[:4], anew=False)) == 4


CHILD = """
import pathlib, sys, time
from r1repro.engine import tokens, vocabulary
from r1repro.stages import sft, traces
file, place, base, pause = sys.argv[1:]
tokens.PART, tokens.AT_ONCE = 8, 4
plain = traces.example
traces.example = lambda *a: (time.sleep(float(pause)), plain(*a))[1]
files = traces.shards(file)
sft.tokenised(files, pathlib.Path(place), traces.digest(files), 64, vocabulary.of(base))
"""


def child(code, *words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], env=environment)


def test_killed_in_the_middle_it_goes_on_from_the_last_whole_part(tmp_path, tiny_base, monkeypatch):
    rows = [ROWS[i % 10] | {"question": f"{i}"} for i in range(100)]
    file, place = lines(tmp_path / "tokens.jsonl", rows), tmp_path / "tokens"
    running = child(CHILD, file, place, tiny_base, 0.02)
    while len(list(place.glob("part-*.json"))) < 3 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    whole = len(list(place.glob("part-*.json")))
    assert 3 <= whole < 12 and not (place / "whole.json").exists()
    seen, plain = [], traces.example
    monkeypatch.setattr(tokens, "PART", 8)
    monkeypatch.setattr(traces, "example", lambda row, at: (seen.append(at), plain(row, at))[1])
    resumed = made(tmp_path, tiny_base, rows)
    assert len(seen) == 100 - 8 * whole and seen[0].endswith(f"line {8 * whole + 1}")
    assert len(resumed) == 100
    alone = made(tmp_path, tiny_base, rows, name="alone")
    assert all(resumed[i] == alone[i] for i in range(100))


def test_two_that_tokenise_at_a_time_share_the_parts(tmp_path, tiny_base, monkeypatch):
    """The second comes while the first is at part 1 of 5: it makes those that follow, then waits for the first."""
    rows = [ROWS[i % 10] | {"question": f"{i}"} for i in range(40)]
    alone = made(tmp_path, tiny_base, rows, name="alone")
    monkeypatch.setattr(tokens, "PART", 8)
    monkeypatch.setattr(tokens, "AT_ONCE", 4)
    plain, write, parts, second = traces.example, tokens._write_part_, [[], []], []

    def example(row, at):
        if at.endswith("tokens.jsonl, line 14") and not second:
            second.append(True)
            with monkeypatch.context() as patch, pytest.raises(TimeoutError):
                patch.setattr(tokens.time, "sleep", lambda _: exec("raise TimeoutError"))
                made(tmp_path, tiny_base, rows)
            second.append(True)
        return plain(row, at)

    monkeypatch.setattr(traces, "example", example)
    monkeypatch.setattr(
        tokens, "_write_part_", lambda stem, *a: (parts[len(second) == 1].append(int(stem.name[-6:])), write(stem, *a))
    )
    both = made(tmp_path, tiny_base, rows)
    assert parts == [[0, 1], [2, 3, 4]]
    assert len(both) == 40 and all(both[i] == alone[i] for i in range(40))


def test_memory_does_not_grow_with_the_rows(tmp_path, tiny_base):
    """In bytes that Python and numpy ask for; held in memory, the texts would take 0.7 MB more and the ids 5."""
    text = " ".join(map(str, np.random.default_rng(0).integers(0, 1000, 200)))
    peak_bytes = {}
    for count in (10, 100, 1000):  # the first pays for what is loaded once
        file = lines(tmp_path / f"{count}.jsonl", [{"question": str(i), "output": text} for i in range(count)])
        tracemalloc.start()
        files = traces.shards(file)
        place = tmp_path / str(count)
        data = sft.tokenised(files, place, traces.digest(files), 10**6, vocabulary.of(tiny_base))
        assert sum(len(data[i][1]) for i in range(len(data))) > 700 * count
        peak_bytes[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes[1000] - peak_bytes[100] < 0.2 * 2**20, peak_bytes
