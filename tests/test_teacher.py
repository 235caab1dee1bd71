"""A teacher over the network: a real server on this machine that speaks the protocol, and fails in every manner."""

import os
import signal
import subprocess
import sys
import time

import pytest
from protocol import said, server
from test_traces import lines

from r1repro import __main__ as cli
from r1repro.config import Teach
from r1repro.engine import remote
from r1repro.records import Refusal
from r1repro.run import read_json, read_lines
from r1repro.stages import sft, teacher, traces

KEY = "sk-very-secret-1234"
QUESTIONS = [
    {"id": str(n), "problem": f"What is {n} + 1?", "solution": "a book's", "gold": str(n + 1)} for n in range(12)
]


def fair(body, count):
    return right(body)


def right(body):
    question = body["messages"][0]["content"]
    return said(f"It is {question}", f"Thinking of {question}\n")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    for name in (*remote.KEYS, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def questions(tmp_path):
    return lines(tmp_path / "questions.jsonl", QUESTIONS)


def settings(made, questions, **changes):
    return Teach(**dict(url=getattr(made, "url", made), model="r1", questions=str(questions)) | changes)


def test_every_question_is_asked_once_and_its_answer_is_an_example(tmp_path, questions):
    target = tmp_path / "new" / "traces.jsonl"
    with server(fair) as made:
        summary = teacher.ask(settings(made, questions, max_tokens=500), target, at_once=4)
    assert sorted(made.asked) == sorted(row["problem"] for row in QUESTIONS)
    path, body = made.seen[0]
    assert path == "/v1/chat/completions" and body == {
        "model": "r1", "messages": body["messages"], "temperature": 0.6, "top_p": 0.95, "max_tokens": 500,
        "stream": False,
    }  # fmt: skip
    assert [message["role"] for message in body["messages"]] == ["user"]
    rows = {row["id"]: row for row in read_lines(target)}
    assert rows["3"]["question"] == "What is 3 + 1?" and rows["3"]["gold"] == "4" and "solution" not in rows["3"]
    assert rows["3"]["output"] == "<think>\nThinking of What is 3 + 1?\n</think>\n\nIt is What is 3 + 1?"
    assert rows["3"]["model"] == "deepseek-r1" and rows["3"]["finish_reason"] == "stop"
    assert (summary["outputs"], summary["prompt_tokens"], summary["completion_tokens"]) == (12, 36, 120)
    assert summary == read_json(target.with_suffix(".summary.json")) and summary["ended"] and summary["failed"] == 0
    assert len(sft.read_examples(target)) == 12


def test_requests_go_side_by_side_and_no_more_than_asked_for(tmp_path, questions):
    def slow(body, count):
        time.sleep(0.1)
        return right(body)

    with server(slow) as made:
        teacher.ask(settings(made, questions), tmp_path / "x.jsonl", at_once=5)
    assert made.most == 5


def test_a_second_call_asks_nothing_and_a_further_output_is_further(tmp_path, questions):
    with server(fair) as made:
        cfg = settings(made, questions)
        first = teacher.ask(cfg, tmp_path / "x.jsonl")
        before = (tmp_path / "x.jsonl").read_bytes()
        assert teacher.ask(cfg, tmp_path / "x.jsonl")["outputs"] == first["outputs"] and len(made.seen) == 12
        assert (tmp_path / "x.jsonl").read_bytes() == before
        lines(tmp_path / "twice.jsonl", [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]])
        cfg = settings(made, tmp_path / "twice.jsonl", outputs_per_question=3, num_questions=1)
        teacher.ask(cfg, tmp_path / "three.jsonl")
    assert sorted(row["index"] for row in read_lines(tmp_path / "three.jsonl")) == [0, 1, 2]
    assert made.asked[12:] == ["What is 0 + 1?"] * 3


def test_a_question_that_comes_twice_is_asked_once(tmp_path):
    twice = lines(tmp_path / "twice.jsonl", [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]])
    with server(fair) as made:
        assert teacher.ask(settings(made, twice), tmp_path / "x.jsonl")["outputs"] == 2
    assert sorted(made.asked) == ["What is 0 + 1?", "What is 1 + 1?"]


def test_failures_in_between_are_tried_again(tmp_path, questions):
    """Busy, broken, cut off, no JSON, no answer in time: each goes by."""

    def moody(body, count):
        number = int(body["messages"][0]["content"].split()[2])
        if count > 2:
            return right(body)
        if number == 0:
            return 429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"}
        if number == 1:
            return 503, b"<html>busy</html>"
        if number == 2:
            raise ConnectionAbortedError
        if number == 3:
            return 200, b"<html>a proxy</html>"
        if number == 4:
            return 200, {"choices": []}
        if number == 5:
            return said("", "thought and said nothing")
        if number == 6:
            time.sleep(1.2)
        return right(body)

    with server(moody) as made:
        summary = teacher.ask(settings(made, questions), tmp_path / "x.jsonl", at_once=3, timeout_s=0.5)
    assert summary["outputs"] == 12 and summary["failed"] == 0
    counts = {number: made.asked.count(f"What is {number} + 1?") for number in range(12)}
    assert all(counts[number] == 3 for number in range(7)) and all(counts[number] == 1 for number in range(7, 12))


def test_tries_end_and_the_same_command_asks_again(tmp_path, questions):
    broken = {"What is 3 + 1?", "What is 8 + 1?"}
    with server(lambda body, n: (500, b"no") if body["messages"][0]["content"] in broken else right(body)) as made:
        cfg = settings(made, questions)
        with pytest.raises(Refusal, match="2 of 12 outputs could not be had .the last: 500 no, 3 tries.: the same"):
            teacher.ask(cfg, tmp_path / "x.jsonl", at_once=2, tries=3)
        assert len(made.seen) == 10 + 2 * 3 and len(read_lines(tmp_path / "x.jsonl")) == 10
        broken.clear()
        made.seen.clear()
        assert teacher.ask(cfg, tmp_path / "x.jsonl")["outputs"] == 12
        assert sorted(made.asked) == ["What is 3 + 1?", "What is 8 + 1?"]


def test_a_server_that_dies_is_given_up(tmp_path):
    many = lines(tmp_path / "many.jsonl", [{"question": f"What is {n} + 1?"} for n in range(200)])
    with server(lambda body, count: right(body) if len(made.seen) <= 20 else (502, b"")) as made:
        with pytest.raises(Refusal, match="8 requests failed one after another .the last: 502 , 2 tries.: the same"):
            teacher.ask(settings(made, many), tmp_path / "x.jsonl", at_once=2, tries=2)
    assert len(read_lines(tmp_path / "x.jsonl")) == 20 and len(made.seen) < 50


def test_waits_grow_and_the_servers_wish_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(remote, "LONGEST_WAIT_S", 0.5)
    times = []

    def busy(body, count):
        times.append(time.monotonic())
        return (429, b"", {"retry-after": "0.45"} if count == 1 else {}) if count < 4 else right(body)

    one = lines(tmp_path / "one.jsonl", QUESTIONS[:1])
    with server(busy) as made:
        teacher.ask(settings(made, one), tmp_path / "x.jsonl")
    first, second, third = (after - before for before, after in zip(times, times[1:], strict=False))
    assert first >= 0.44 and 0.14 < second < third


@pytest.mark.parametrize(
    ("status", "message", "needed"),
    [
        (401, f"Incorrect API key provided: {KEY}.", ["does not accept the key", "401", "R1REPRO_API_KEY"]),
        (403, "forbidden", ["does not accept the key", "OPENAI_API_KEY"]),
        (404, "The model `r1` does not exist.", ["has no model 'r1'", "does not exist", "/v1/models"]),
        (402, "Insufficient Balance", ["402 Insufficient Balance"]),
    ],
)
def test_what_no_question_would_mend_stops_at_once(tmp_path, questions, monkeypatch, status, message, needed):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with server(lambda *_: (status, {"error": {"message": message + "\nsecond line"}})) as made:
        with pytest.raises(Refusal) as refusal:
            teacher.ask(settings(made, questions), tmp_path / "x.jsonl", at_once=1)
    text = str(refusal.value)
    assert all(word in text for word in needed) and "\n" not in text and KEY not in text and len(made.seen) == 1


def test_a_question_that_is_refused_does_not_stop_the_others(tmp_path, questions):
    long = "What is 7 + 1?"
    with server(
        lambda b, n: (400, {"message": "too long"}) if b["messages"][0]["content"] == long else right(b)
    ) as made:
        with pytest.raises(Refusal, match="1 of 12 outputs could not be had .the last: 400 too long."):
            teacher.ask(settings(made, questions), tmp_path / "x.jsonl")
    assert made.asked.count(long) == 1 and len(read_lines(tmp_path / "x.jsonl")) == 11


def test_failures_that_are_far_apart_do_not_give_a_server_up(tmp_path):
    many = lines(tmp_path / "many.jsonl", [{"question": f"What is {n} + 1?"} for n in range(30)])

    def answer(body, count):
        return (400, b"no") if int(body["messages"][0]["content"].split()[2]) % 3 == 0 else right(body)

    with server(answer) as made, pytest.raises(Refusal, match="10 of 30 outputs could not be had"):
        teacher.ask(settings(made, many), tmp_path / "x.jsonl", at_once=1)
    assert len(read_lines(tmp_path / "x.jsonl")) == 20


def test_no_server_is_said_at_once(tmp_path, questions):
    with server(fair) as made:
        url = made.url
    with pytest.raises(Refusal, match=f"no server at {url} .*start it, or mend the url"):
        teacher.ask(settings(url, questions), tmp_path / "x.jsonl", tries=1000)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_server_that_has_moved_is_not_followed_with_the_key(tmp_path, questions):
    with server(lambda *_: (307, b"", {"location": "http://127.0.0.1:9/"})) as made:
        with pytest.raises(Refusal, match="has moved to http://127.0.0.1:9/: give that url"):
            teacher.ask(settings(made, questions), tmp_path / "x.jsonl")


@pytest.mark.parametrize("variable", remote.KEYS)
def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, questions, monkeypatch, variable, capfd):
    monkeypatch.setenv(variable, f"{KEY}\n")
    with server(fair) as made:
        url = f"{made.url}/v1?token=abc"
        words = ["teach", "--url", url, "--model", "r1", "--questions", questions, "--out", tmp_path / "x.jsonl"]
        assert cli.main([str(word) for word in words]) == 0
    assert {headers["authorization"] for headers in map(_lower, made.headers)} == {f"Bearer {KEY}"}
    assert {path for path, _ in made.seen} == {"/v1/chat/completions?token=abc"}
    out, err = capfd.readouterr()
    assert '"outputs": 12' in out
    kept = out + err + "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in kept and "token=abc" not in kept and f"{made.url}/v1" in kept


def test_a_key_that_cannot_be_sent_is_not_shown(tmp_path, questions, monkeypatch):
    monkeypatch.setenv("R1REPRO_API_KEY", "sk-\u2026secret")
    with server(fair) as made, pytest.raises(Refusal, match="R1REPRO_API_KEY holds something") as refusal:
        teacher.ask(settings(made, questions), tmp_path / "x.jsonl")
    assert "secret" not in str(refusal.value)


def _lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def test_without_a_key_none_is_sent(tmp_path, questions):
    with server(fair) as made:
        teacher.ask(settings(made, questions), tmp_path / "x.jsonl")
    assert all("authorization" not in _lower(headers) for headers in made.headers)


def test_an_answer_cut_at_the_cap_is_marked_and_not_learnt_from(tmp_path, questions):
    with server(lambda body, n: said(None, "so far", "length") if " 5 " in str(body) else right(body)) as made:
        summary = teacher.ask(settings(made, questions), tmp_path / "x.jsonl")
    assert summary["outputs"] == 12 and summary["cut at the cap"] == 1
    assert len(sft.read_examples(tmp_path / "x.jsonl")) == 11


def test_an_instruction_is_asked_and_not_kept(tmp_path, questions):
    with server(fair) as made:
        teacher.ask(settings(made, questions, instruction="Box it."), tmp_path / "x.jsonl")
    assert all(text.endswith("?\n\nBox it.") for text in made.asked)
    assert all(row["question"].endswith("?") for row in read_lines(tmp_path / "x.jsonl"))


def test_a_source_is_drawn_as_ever(tmp_path):
    with server(fair) as made:
        cfg = settings(made, "chain_sum", num_questions=5, seed=3)
        teacher.ask(cfg, tmp_path / "x.jsonl")
    rows = read_lines(tmp_path / "x.jsonl")
    assert len(rows) == 5 and all(row["family"] == "chain_sum" and row["gold"] for row in rows)


def test_other_settings_or_questions_are_refused(tmp_path, questions):
    with server(fair) as made:
        target = tmp_path / "x.jsonl"
        teacher.ask(settings(made, questions), target)
        for change, needed in (
            ({"temperature": 1.0}, "temperature .0.6 there, 1.0 now"),
            ({"model": "v3"}, "model .r1"),
        ):
            with pytest.raises(Refusal, match=f"holds answers to other settings, {needed}.*choose another file"):
                teacher.ask(settings(made, questions, **change), target)
        lines(questions, QUESTIONS[:3])
        with pytest.raises(Refusal, match="questions .another content"):
            teacher.ask(settings(made, questions), target)
        (tmp_path / "x.summary.json").unlink()
        with pytest.raises(Refusal, match="is there without x.summary.json"):
            teacher.ask(settings(made, questions), target)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--url", "localhost:8000"], "begins with http"),
        (["--url", "http://x:y"], "no address"),
        (["--url", "http://me:word@x"], "holds a name or a password: give http://x, and set R1REPRO_API_KEY"),
        (["--questions", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--questions", "No Such"], "no questions at No Such: give a file or folder of rows, or "),
        (["--at-once", "0"], "at_once is 0"),
        (["--tries", "many"], "--tries 'many'"),
        (["--set", "tokens=3"], "no setting teach.tokens: choose one of"),
        (["--set", "max_tokens=-3"], "teach.max_tokens is -3"),
        (["--set", "temperature=warm"], "teach.temperature is 'warm', not a number"),
    ],
)
def test_a_wrong_command_is_one_line(tmp_path, capfd, monkeypatch, words, needed):
    monkeypatch.chdir(tmp_path)
    usual = {"--url": "http://127.0.0.1:9", "--model": "r1", "--questions": "chain_sum", "--out": "x.jsonl"}
    usual |= dict(zip(words[::2], words[1::2], strict=True))
    assert cli.main(["teach", *(word for pair in usual.items() for word in pair)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and needed in err, err
    assert list(tmp_path.iterdir()) == []


# --- stopped


def command(made, questions, target):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = ["teach", "--url", made.url, "--model", "r1", "--questions", questions, "--out", target, "--at-once", "2"]
    command = [sys.executable, "-m", "r1repro", *map(str, words)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_it_asks_only_for_what_is_missing(tmp_path, questions, number):
    def slow(body, count):
        time.sleep(0.1)
        return right(body)

    target = tmp_path / "x.jsonl"
    with server(slow) as made:
        running = command(made, questions, target)
        while len(made.seen) < 5 and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(number)
        _, err = running.communicate(timeout=30)
        assert running.returncode == (-9 if number == signal.SIGKILL else 128 + 15), err
        kept = read_lines(target)
        asked = len(made.seen)
        assert 2 < len(kept) < 12
        if number == signal.SIGTERM:
            assert len(kept) == asked, "the answers under way are kept"
        with open(target, "a") as file:
            file.write('{"key": "torn')
        cfg = settings(made, questions)
        assert teacher.ask(cfg, target)["outputs"] == 12
        assert len(made.seen) == asked + 12 - len(kept)
    assert len({row["key"] for row in traces_of(target)}) == 12


def traces_of(target):
    (shard,) = traces.shards(target)
    return [row for _, row, _ in shard.rows()]
