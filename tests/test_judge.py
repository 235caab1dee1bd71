"""Judged benchmarks: a real server on this machine plays the judge, well, badly, slowly, and not at all."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from protocol import said, server

from r1repro import __main__ as cli
from r1repro.engine import remote
from r1repro.evals import facts, judge, judging, preference
from r1repro.evals.benchmark import Item
from r1repro.records import Refusal
from r1repro.run import read_json, read_lines

SECRET = "the-thinking-that-nobody-may-judge"
WORDS = "zero one two three four five six seven eight nine ten eleven".split()


def lines(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


RANKS = ("good", "baseline", "bad")
NAMES = [benchmark.name for benchmark in judging.BENCHMARKS]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    for name in (*remote.KEYS, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Twelve questions of our own for each benchmark, in the form of its makers."""
    folder = tmp_path / "data"
    monkeypatch.setenv("R1REPRO_DATA", str(folder))
    for name in ("alpaca_eval", "arena_hard", "simpleqa", "c_simpleqa", "frames/articles"):
        (folder / name).mkdir(parents=True)
    rows = [{"id": f"q{n}", "question": f"Which word is number {n}?", "answer": word} for n, word in enumerate(WORDS)]
    own = {"generator": preference.ALPACA_BASELINE, "dataset": "ours"}
    baseline = [{"instruction": row["question"], "output": f"baseline {row['answer']}", **own} for row in rows]
    (folder / "alpaca_eval" / "model_outputs.json").write_text(json.dumps(baseline))
    turns = [{"question_id": row["id"], "cluster": "c", "turns": [{"content": row["question"]}]} for row in rows]
    lines(folder / "arena_hard" / "question.jsonl", turns)
    answers = [
        {"question_id": row["id"], "model_id": preference.ARENA_BASELINE,
         "choices": [{"turns": [{"content": f"baseline {row['answer']}"}]}]}
        for row in rows
    ]  # fmt: skip
    lines(folder / "arena_hard" / "model_answer.jsonl", answers)
    table = "metadata,problem,answer\n" + "".join(f"\"{{'topic': 'T'}}\",{r['question']},{r['answer']}\n" for r in rows)
    (folder / "simpleqa" / "simple_qa_test_set.csv").write_text(table)
    lines(folder / "c_simpleqa" / "chinese_simpleqa.jsonl", rows)
    lines(folder / "frames" / "frames.jsonl", rows)
    for row in rows:
        (folder / "frames" / "articles" / f"{row['id']}.txt").write_text(f"Number {row['id'][1:]} is {row['answer']}.")
    return folder


def items_of(name):
    benchmark = judging.named(name)
    return benchmark.load(Path(os.environ["R1REPRO_DATA"]) / benchmark.folder)


def samples(path, name, answer):
    """A file as an evaluation leaves it: thinking first, then what ``answer`` says of an item."""
    rows = [
        {"step": n, "id": item.id, "question": item.prompt,
         "outputs": [{"text": f"<think>\n{SECRET}\n</think>\n\n<answer>{answer(item)}</answer>", "length": 9}]}
        for n, item in enumerate(items_of(name), 1)
    ]  # fmt: skip
    return lines(path, rows)


def gold(item):
    """An answer that is right: the gold one, without what makes it the baseline's."""
    return f"good {item.gold.removeprefix('baseline ')}"


def fair(body, count=1):
    """A judge that reads: the answer that begins with "good" and ends in the gold word is the better, or the right."""
    text = body["messages"][-1]["content"]
    if "model m\n" in text or "Assistant A's" in text:
        one, other = (RANKS.index(word) for word in re.findall(r"(?:model [mM]|Answer\|>)\n(good|baseline|bad)", text))
        if "model m\n" in text:
            return weighed(0.9 if one < other else 0.1)
        return said("Mine. [[A>>B]]" if one < other else "Mine. [[B>>A]]")
    target, given = re.search(r"(?:target|answer|标准答案)[:：] ?(\S+)\n(?:Answer: |回答：)(.*)", text).groups()
    right = given.split()[-1:] == [target]
    return said(("TRUE" if right else "FALSE") if "Decision" in text else "A" if right else "B")


def weighed(p_m, text=None):
    """A reply of one token with the probabilities of both names."""
    tops = [
        {"token": token, "logprob": math.log(p)} for token, p in (("M", 1 - p_m), ("m", p_m), ("Both", 1e-6)) if p > 0
    ]
    status, body = said(text or ("m" if p_m > 0.5 else "M"), finish="length")
    body["choices"][0]["logprobs"] = {"content": [{"token": "M", "logprob": 0.0, "top_logprobs": tops}]}
    return status, body


def judged(made, name, source, out, **more):
    """Results of judging a file, as the command does it."""
    by = judge.Judge(getattr(made, "url", made), "judge-1", out, **{"at_once": 4} | more)
    return judging.run(judging.prepare(name, source), out, by)["results"]


def headline(name, results):
    return results[judging.named(name).protocol.headline if "Alpaca" not in name else "win_rate"]


# --- what every judged benchmark does


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_model_scores_all_and_a_silent_one_nothing(tmp_path, data, name):
    with server(fair) as made:
        results = judged(made, name, samples(tmp_path / "s.jsonl", name, gold), tmp_path / "perfect")
        asked = len(made.seen)
        wrong = judged(made, name, samples(tmp_path / "w.jsonl", name, lambda item: "bad guess"), tmp_path / "wrong")
        rest = len(made.seen)
        silent = judged(made, name, samples(tmp_path / "0.jsonl", name, lambda item: " "), tmp_path / "silent")
        assert len(made.seen) == rest, "a judge was paid to read nothing"
    certain = pytest.approx(0.9 if "Alpaca" in name else 1.0), pytest.approx(0.1 if "Alpaca" in name else 0.0)
    assert (headline(name, results), headline(name, wrong)) == certain
    assert headline(name, silent) == pytest.approx(0.0) and silent["silent"] == 12
    assert asked == (24 if name == "Arena-Hard" else 12) and results["without a verdict"] == 0
    rows = read_lines(tmp_path / "perfect" / "verdicts.jsonl")
    assert [row["verdict"] for row in rows] == ["right"] * 12 and rows[3]["summary"] == "good three"


@pytest.mark.parametrize("name", NAMES)
def test_the_judge_never_sees_the_thinking(tmp_path, data, name):
    with server(fair) as made:
        judged(made, name, samples(tmp_path / "s.jsonl", name, gold), tmp_path)
    assert made.seen and SECRET not in json.dumps([body for _, body in made.seen])
    assert SECRET not in (tmp_path / "verdicts.jsonl").read_text() + (tmp_path / "judge.jsonl").read_text()
    assert all("</answer>" not in json.dumps(body) for _, body in made.seen)
    assert {body["temperature"] for _, body in made.seen} == {0.0} and {b["model"] for _, b in made.seen} == {"judge-1"}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("4", "4"),
        ("<think>2</think>4", "4"),
        ("2 + 2</think>\n4", "4"),
        ("<think>2", ""),
        ("<think>2</think>", ""),
        ("<think>a</think>b<think>c</think> d ", "d"),
        ("<think>a</think> <answer> 4 </answer>", "4"),
    ],
)
def test_the_final_summary(text, left):
    assert judge.summary(text) == left


def test_what_is_answered_is_not_asked_again(tmp_path, data):
    first = samples(tmp_path / "s.jsonl", "SimpleQA", gold)
    with server(fair) as made:
        before = judged(made, "SimpleQA", first, tmp_path / "out")
        kept = (tmp_path / "out" / "judge.jsonl").read_bytes()
        assert judged("http://127.0.0.1:9", "SimpleQA", first, tmp_path / "out") == before
        assert len(made.seen) == 12 and (tmp_path / "out" / "judge.jsonl").read_bytes() == kept
        other = samples(tmp_path / "t.jsonl", "SimpleQA", lambda item: "new" if item.gold == "five" else gold(item))
        assert judged(made, "SimpleQA", other, tmp_path / "out")["correct"] == pytest.approx(11 / 12)
        assert len(made.seen) == 13 and "new" in made.asked[-1]
        judged(made, "SimpleQA", first, tmp_path / "out", least_tokens=4000)
        assert len(made.seen) == 25, "other settings are another request"


def test_several_outputs_to_a_question(tmp_path, data):
    rows = [
        {"id": item.id, "outputs": [{"text": gold(item)}, {"text": "bad"}, {"text": gold(item)}]}
        for item in items_of("FRAMES")
    ]
    with server(fair) as made:
        results = judged(made, "FRAMES", lines(tmp_path / "s.jsonl", rows), tmp_path)
    assert results["accuracy"] == pytest.approx(2 / 3) and results["outputs"] == 36 and len(made.seen) == 24
    assert [row["sample"] for row in read_lines(tmp_path / "verdicts.jsonl")][:4] == [0, 1, 2, 0]


def test_a_judge_in_a_bad_mood_gets_there(tmp_path, data):
    """Busy, broken, cut off, no JSON, nothing said, late: each goes by, and the verdicts are those of a good day."""

    def moody(body, count):
        number = int(re.search(r"number (\d+)", made_text(body))[1])
        if count > 2:
            return fair(body)
        if number == 0:
            return 429, {"error": {"message": "rate limit"}}, {"retry-after": "0.05"}
        if number == 1:
            return 503, b"<html>busy</html>"
        if number == 2:
            raise ConnectionAbortedError
        if number == 3:
            return 200, b"<html>a proxy</html>"
        if number == 4:
            return 200, {"choices": [{"message": None}]}
        if number == 5:
            return said(" ")
        if number == 6:
            time.sleep(0.8)
        return fair(body)

    source = samples(tmp_path / "s.jsonl", "SimpleQA", gold)
    with server(moody) as made:
        assert judged(made, "SimpleQA", source, tmp_path, at_once=3, timeout_s=0.4)["correct"] == 1.0
    counts = Counter(int(re.search(r"number (\d+)", text)[1]) for text in made.asked)
    assert all(counts[number] == (3 if number < 7 else 1) for number in range(12))


def made_text(body):
    return body["messages"][-1]["content"]


def test_verdicts_that_could_not_be_had_are_asked_for_again(tmp_path, data):
    broken = {"number 3?", "number 8?"}
    source = samples(tmp_path / "s.jsonl", "SimpleQA", gold)

    def answer(body, count):
        return (500, b"no") if any(one in made_text(body) for one in broken) else fair(body)

    with server(answer) as made:
        with pytest.raises(Refusal, match="2 of 12 verdicts could not be had .the last: 500 no, 2 tries.: the same"):
            judged(made, "SimpleQA", source, tmp_path, at_once=2, tries=2)
        assert not (tmp_path / "summary.json").exists()
        broken.clear()
        made.seen.clear()
        assert judged(made, "SimpleQA", source, tmp_path)["correct"] == 1.0 and len(made.seen) == 2


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_no_verdict_is_counted_and_has_no_score(tmp_path, data, name):
    def answer(body, count):
        return said("I would rather not.") if "number 7?" in json.dumps(body) else fair(body)

    with server(answer) as made:
        results = judged(made, name, samples(tmp_path / "s.jsonl", name, gold), tmp_path)
    assert results["without a verdict"] == 1 and headline(name, results) == pytest.approx(
        0.9 if "Alpaca" in name else 1.0
    )
    row = read_lines(tmp_path / "verdicts.jsonl")[7]
    assert (row["verdict"], row["score"]) == ("unparsed", None)
    assert len(made.seen) == (12 if name != "Arena-Hard" else 26), (
        "a judgement without an end is asked for its end, once"
    )


def command(made, source, out, *words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    usual = ["judge", "--outputs", source, "--benchmark", "Arena-Hard", "--out", out, "--url", made.url, "--model", "j"]
    whole = [sys.executable, "-m", "r1repro", *map(str, usual), "--yes", "--at-once", "2", *words]
    return subprocess.Popen(whole, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_it_asks_only_for_what_is_missing(tmp_path, data, number):
    go_on = threading.Event()

    def slow(body, count):
        go_on.wait(0.08)
        return fair(body)

    source = samples(tmp_path / "s.jsonl", "Arena-Hard", gold)
    with server(slow) as made:
        running = command(made, source, tmp_path / "out")
        while len(made.seen) < 8 and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(number)
        _, err = running.communicate(timeout=30)
        assert running.returncode == (-9 if number == signal.SIGKILL else 128 + 15), err
        kept = read_lines(tmp_path / "out" / "judge.jsonl")
        asked = len(made.seen)
        assert 4 <= len(kept) < 24 and len(kept) >= asked - 2
        with open(tmp_path / "out" / "judge.jsonl", "a") as file:
            file.write('{"key": "torn')
        go_on.set()
        results = judging.run(
            judging.prepare("arena_hard", source),
            tmp_path / "out",
            judge.Judge(made.url, "j", tmp_path / "out", at_once=4),
        )["results"]
        assert len(made.seen) == asked + 24 - len(kept)
        alone = judging.run(
            judging.prepare("arena_hard", source),
            tmp_path / "alone",
            judge.Judge(made.url, "j", tmp_path / "alone", at_once=4),
        )["results"]
    assert results == alone
    first, second = ((tmp_path / name / "verdicts.jsonl").read_bytes() for name in ("out", "alone"))
    assert first == second


# --- the command: costs first, then verdicts


def told(capfd, *words):
    code = cli.main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_costs_are_told_and_nothing_is_asked_without_a_yes(tmp_path, data, capfd):
    source = samples(tmp_path / "s.jsonl", "Arena-Hard", gold)
    with server(fair) as made:
        usual = ["judge", "--outputs", source, "--benchmark", "Arena-Hard", "--out", tmp_path / "o", "--url", made.url]
        usual += ["--model", "j", "--at-once", "4", "--price-in", "10", "--price-out", "30"]
        code, out, _ = told(capfd, *usual)
        assert code == 0 and not made.seen and "add --yes" in out
        found = re.match(
            r"24 requests \(0 more are answered\): about ([\d,]+) tokens in, at most 98,304 out; costs", out
        )
        estimate = int(found[1].replace(",", ""))
        code, out, _ = told(capfd, *usual, "--yes")
        assert code == 0 and re.search(r"win rate +100.00 %   .92.3 % is the paper's number for DeepSeek-R1", out)
        code, out, _ = told(capfd, *usual)
        assert "0 requests (24 more are answered)" in out and "100.00 %" in out and len(made.seen) == 24
    sent = sum(len(message["content"]) for _, body in made.seen for message in body["messages"])
    assert estimate == pytest.approx(sent / 4, rel=0.02)
    summary = read_json(tmp_path / "o" / "summary.json")
    assert (summary["answers"], summary["prompt_tokens"], summary["output_tokens"]) == (24, 72, 240)
    assert summary["judge"] == "j" and summary["wording"] == "ours" and summary["versions"]["python"]


def test_what_it_costs():
    to_ask = judge.Forecast(requests=3, known=0, prompt_tokens=2_000_000, output_tokens=100_000)
    assert to_ask.cost((10.0, 30.0)) == (20.0, 23.0)
    assert judge.tokens("a" * 400) == 100 and judge.tokens("汉字" * 50) == 100


def test_the_makers_own_words_are_asked_where_they_lie_in_the_folder(tmp_path, data):
    words = "<|im_start|>system\nTheirs {here}.\n<|im_end|>\n<|im_start|>user\n"
    words += "{question}|{target}|{predicted_answer}\n<|im_end|>"
    (data / "simpleqa" / "judge_prompt.txt").write_text(words)
    rows = [{"question": item.prompt, "output": "it is {target}"} for item in items_of("SimpleQA")]
    with server(lambda body, count: said("C")) as made:
        task = judging.prepare("SimpleQA", lines(tmp_path / "s.jsonl", rows))
        summary = judging.run(task, tmp_path, judge.Judge(made.url, "j", tmp_path, at_once=4))
    system, user = sorted((b["messages"] for _, b in made.seen), key=lambda m: m[1]["content"])[0]
    assert system == {"role": "system", "content": "Theirs {here}."} and user["role"] == "user"
    assert user["content"] == "Which word is number 0?|zero|it is {target}", "a name within a value is a name no more"
    assert summary["wording"].startswith("judge_prompt.txt ") and summary["results"]["not_attempted"] == 1.0
    (data / "simpleqa" / "judge_prompt.txt").write_text("Which is better?")
    with pytest.raises(Refusal, match="holds none of {question}, {target}, {predicted_answer}: put them where"):
        judging.forecast(task, judge.Judge("http://x", "j", tmp_path))


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"--benchmark": "MATH-500"}, "no judge is needed for 'MATH-500': choose one of AlpacaEval 2.0, Arena-Hard"),
        ({"--outputs": "nowhere.jsonl"}, "no nowhere.jsonl: give the samples.jsonl of an evaluation"),
        ({"--url": "localhost:8000"}, "begins with http"),
        ({"--url": ""}, "holds no verdicts: give --url and --model of a judge"),
        ({"--price-in": "cheap"}, "--price-in 'cheap' is no price"),
        ({"--at-once": "0"}, "at_once is 0"),
        ({"--timeout": "soon"}, "--timeout 'soon' is not a whole number"),
        ({"row": {"id": "q99", "output": "x"}}, "line 1 is no question of SimpleQA"),
        ({"row": {"question": "Which word is number 1?"}}, "line 1 holds no output"),
        ({"row": {"question": "Which word is number 1?", "output": 3}}, "an output is no text"),
        ({"row": [1]}, "entry 1: int where an object should be"),
        ({"row": "a"}, "line 1: str where an object should be"),
        ({"row": None}, "holds no row"),
        ({"twice": True}, "line 13 answers question"),
    ],
)
def test_a_wrong_command_is_one_line(tmp_path, data, capfd, monkeypatch, change, needed):
    monkeypatch.chdir(tmp_path)
    source = samples(tmp_path / "s.jsonl", "SimpleQA", gold)
    if "row" in change:
        source.write_text("" if change["row"] is None else f" {json.dumps(change['row'])}\n")
    if "twice" in change:
        source.write_text(source.read_text() * 2)
    usual = {
        "--outputs": source,
        "--benchmark": "SimpleQA",
        "--out": "o",
        "--url": "http://127.0.0.1:9",
        "--model": "j",
    }
    usual |= {word: value for word, value in change.items() if word.startswith("--")}
    code, out, err = told(capfd, "judge", *(word for pair in usual.items() for word in pair), "--yes")
    assert code == 2 and out == "" and err.count("\n") == 1 and needed in err, err
    assert not (tmp_path / "o").exists()


def test_no_key_is_written_anywhere(tmp_path, data, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    source = samples(tmp_path / "s.jsonl", "SimpleQA", gold)
    with server(fair) as made:
        words = [
            "--outputs",
            source,
            "--benchmark",
            "SimpleQA",
            "--out",
            tmp_path / "o",
            "--model",
            "j",
            "--yes",
            "--at-once",
            "4",
        ]
        code, out, err = told(capfd, "judge", *words, "--url", f"{made.url}/v1?token=abc")
    assert code == 0 and {headers["Authorization"] for headers in made.headers} == {"Bearer sk-very-secret"}
    kept = out + err + "".join(file.read_text() for file in (tmp_path / "o").iterdir())
    assert "sk-very-secret" not in kept and "token=abc" not in kept


def test_samples_of_an_evaluation_are_judged_into_its_table(tmp_path, data, capfd):
    """A scripted model, as everybody runs it; the verdicts then stand where the table had none."""
    usual = ["evaluate", "--model", "scripted:silent", "--benchmark", "SimpleQA", "Arena-Hard", "--out", tmp_path / "o"]
    code, out, err = told(capfd, *usual)
    assert code == 0 and out.count("samples, not judged") == 2, err
    for name in ("simpleqa", "arena-hard"):
        words = ["--outputs", tmp_path / "o" / name, "--benchmark", name, "--url", "http://127.0.0.1:9", "--model", "j"]
        code, out, err = told(capfd, "judge", *words)
        assert code == 0 and "0.00 %" in out, err
    code, out, _ = told(capfd, *usual)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
    found = {row[0]: (row[1], row[4], row[6]) for row in rows}
    assert found == {"SimpleQA": ("Correct", "0.0", "30.1"), "Arena-Hard": ("GPT-4-1106", "0.0", "92.3")}


def test_an_evaluation_says_that_a_judge_is_needed(data):
    for benchmark in judging.BENCHMARKS:
        assert benchmark.judged and benchmark.k == 1
        with pytest.raises(Refusal, match="needs a judge: give the samples to `python -m r1repro judge`"):
            benchmark.grade(items_of(benchmark.name)[0], "x")


# --- AlpacaEval 2.0


def alpaca(made, tmp_path, answer, **more):
    return judged(
        made, "AlpacaEval 2.0", samples(tmp_path / "s.jsonl", "AlpacaEval 2.0", answer), tmp_path / "o", **more
    )


def test_a_judge_that_likes_a_place_likes_half_of_the_models(tmp_path, data):
    with server(lambda body, count: weighed(1.0)) as made:
        results = alpaca(made, tmp_path, gold)
    first = sum("model m\ngood" in made_text(body) for _, body in made.seen)
    assert 2 < first < 10 and results["win_rate"] == pytest.approx(first / 12), "the order is drawn by the instruction"
    assert (results["won"], results["lost"]) == (first, 12 - first)
    assert {b["max_tokens"] for _, b in made.seen} == {1} and {b["top_logprobs"] for _, b in made.seen} == {5}


def test_the_preference_is_weighed_by_the_probabilities(tmp_path, data):
    def answer(body, count):
        return weighed(0.7 if "model m\ngood" in made_text(body) else 0.3, text="Both")

    with server(answer) as made:
        results = alpaca(made, tmp_path, gold)
    rows = read_lines(tmp_path / "o" / "verdicts.jsonl")
    assert [row["preference"] for row in rows] == pytest.approx([1.7] * 12)
    assert results["win_rate"] == pytest.approx(0.7) and results["discrete_win_rate"] == 1.0


def test_a_server_without_probabilities_is_taken_at_its_word(tmp_path, data):
    with server(lambda body, count: said("m." if "model m\ngood" in made_text(body) else "**M**")) as made:
        results = alpaca(made, tmp_path, gold, logprobs=False, least_tokens=300)
    assert results["win_rate"] == 1.0 and "logprobs" not in made.seen[0][1] and made.seen[0][1]["max_tokens"] == 300


def test_a_judge_that_thinks_is_read_after_its_thinking(tmp_path, data):
    with server(
        lambda body, count: said(f"<think>m or M?</think>\n{fair(body)[1]['choices'][0]['message']['content']}")
    ) as made:
        assert alpaca(made, tmp_path, gold, least_tokens=2000)["win_rate"] == 1.0
    with server(lambda body, count: said("<think>\nM", finish="length")) as made:
        assert alpaca(made, tmp_path, gold, least_tokens=2)["without a verdict"] == 12, "a thought is no verdict"


def test_annotations_are_read_back_as_they_were_written(tmp_path, data, capfd):
    with server(fair) as made:
        before = alpaca(made, tmp_path, lambda item: gold(item) if int(item.more["index"]) % 3 else "bad")
    file = tmp_path / "o" / "annotations.json"
    rows = json.loads(file.read_text())
    assert rows[1]["output_1"] == "baseline one" and rows[1]["output_2"] == "good one" and rows[1]["preference"] == 1.9
    code, out, _ = told(capfd, "judge", "--outputs", file, "--benchmark", "alpaca_eval", "--out", tmp_path / "again")
    after = read_json(tmp_path / "again" / "summary.json")
    assert code == 0 and after["results"] == before and after["judge"] is None and after["model"] == "s"
    rows[2] |= {"preference": None}
    rows[3] |= {"preference": 0}
    file.write_text(json.dumps(rows))
    changed = judging.run(judging.prepare("alpaca_eval", file), tmp_path / "changed")["results"]
    assert changed["without a verdict"] == 1 and changed["drawn"] == 1
    for wrong, needed in (
        ({"preference": 3}, "a preference is '3'"),
        ({"generator_1": "other"}, "compare s with other"),
    ):
        file.write_text(json.dumps([rows[0] | wrong]))
        with pytest.raises(Refusal, match=needed):
            judging.prepare("alpaca_eval", file)


def test_without_difficulties_there_is_no_length_control(tmp_path, data):
    with server(fair) as made:
        results = alpaca(made, tmp_path, gold)
    assert results["length_controlled_win_rate"] is None
    assert results["length_control"].startswith("not computed: put df_gamed.csv of the hub's data set tatsu-lab")


# --- Arena-Hard


def arena(labels):
    """A judge that gives the labels of a question's two games in turn, whoever plays."""
    return lambda body, count: said(labels["A's Answer|>\nbaseline" not in made_text(body)])


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("[[B>A]]", "[[A>B]]", 1.0),
        ("[[A>B]]", "[[B>A]]", 0.0),
        ("[[A>B]]", "[[A>B]]", 0.5),  # whoever comes first
        ("[[A=B]]", "[[A=B]]", 0.5),
        ("[[B>>A]]", "[[B>A]]", 0.75),  # three games to one
        ("[[A>>B]]", "[[A=B]]", 0.125),
        ("[[A>>B]] or [[A>B]]", "[[A>B]]", 1.0),  # two labels are none
    ],
)
def test_places_are_swapped_and_strong_verdicts_count_three_times(tmp_path, data, first, second, share):
    source = samples(tmp_path / "s.jsonl", "Arena-Hard", gold)
    with server(arena((first, second))) as made:
        results = judged(made, "Arena-Hard", source, tmp_path / "o")
    assert results["win_rate"] == pytest.approx(share, abs=1e-9)
    assert [row["games"] for row in read_lines(tmp_path / "o" / "verdicts.jsonl")][0][1] == second.strip("[]")
    again = judging.run(judging.prepare("Arena-Hard", tmp_path / "o" / "model_judgment.jsonl"), tmp_path / "again")
    assert again["results"]["win_rate"] == results["win_rate"] and again["model"] == "s"
    assert again["results"]["interval"] == results["interval"]


def test_a_judgement_without_a_label_is_brought_to_its_end(tmp_path, data):
    def answer(body, count):
        return said("[[B>A]]" if len(body["messages"]) > 2 else "I am not done yet")

    with server(answer) as made:
        results = judged(made, "Arena-Hard", samples(tmp_path / "s.jsonl", "Arena-Hard", gold), tmp_path)
    assert results["win_rate"] == pytest.approx(0.5) and results["games"] == 24 and len(made.seen) == 48
    late = [body["messages"] for _, body in made.seen if len(body["messages"]) > 2]
    assert {tuple(m["role"] for m in messages) for messages in late} == {("system", "user", "assistant", "user")}
    assert {messages[2]["content"] for messages in late} == {"I am not done yet"}


def test_judgements_of_another_make_are_refused(tmp_path, data):
    for games, needed in (
        ([{"score": "A>B"}], "have the verdicts"),
        ([{"score": "A>C"}, None], "A>C"),
        ([1, 2], "read"),
    ):
        file = lines(tmp_path / "j.jsonl", [{"question_id": "q1", "model": "m", "games": games}])
        with pytest.raises(Refusal, match=needed):
            judging.prepare("Arena-Hard", file)


# --- facts


def test_grades_add_up_and_attempts_are_told_apart(tmp_path, data):
    letters = dict(zip(WORDS, "AAAABBCCCCCC", strict=True))

    def answer(body, count):
        return said(letters[re.search(r"target: (\S+)", made_text(body))[1]])

    with server(answer) as made:
        results = judged(made, "SimpleQA", samples(tmp_path / "s.jsonl", "SimpleQA", gold), tmp_path)
    assert results["correct"] == pytest.approx(4 / 12) and results["incorrect"] == pytest.approx(2 / 12)
    assert results["not_attempted"] == 0.5 and results["correct_given_attempted"] == pytest.approx(4 / 6)
    assert results["f"] == pytest.approx(2 / (12 / 4 + 6 / 4))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("A", "correct"), (" b", None), ("C.", "not_attempted"), ("B) INCORRECT", "incorrect"), ("(A)", "correct"),
        ("A sound answer: CORRECT", "correct"), ("NOT_ATTEMPTED", "not_attempted"), ("CORRECT or INCORRECT?", None),
        ("Grade: C", "not_attempted"), ("A or B", None), ("I can't say", None), ("", None), ("【正确】 A", "correct"),
    ],
)  # fmt: skip
def test_grades_are_read(text, grade):
    assert facts.simple_grade(text) == grade


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ('Decision: "TRUE"', True), ("It is TRUE.\nDecision: FALSE", False), ("decision - true", True),
        ("FALSE", False), ("That is true enough.", None), ("", None), ("**Decision**: **TRUE**", True),
    ],
)  # fmt: skip
def test_decisions_are_read(text, decision):
    assert facts.frames_decision(text) is decision


def test_frames_is_asked_with_all_its_articles(data):
    items = items_of("FRAMES")
    assert "Number 3 is three." in items[3].prompt and "Number 4" not in items[3].prompt
    assert items[3].prompt.endswith("Question: Which word is number 3?")
    (data / "frames" / "articles" / "q3.txt").unlink()
    with pytest.raises(Refusal, match="has none of question q3: put the texts there, a file <title>.txt") as refusal:
        items_of("FRAMES")
    assert "\n" not in str(refusal.value)
    (data / "frames" / "articles" / "q3").mkdir()
    for name in ("one", "two"):
        (data / "frames" / "articles" / "q3" / f"{name}.md").write_text(f"Article {name}.")
    assert "Article one." in (found := items_of("FRAMES")[3].prompt) and "Article two." in found


def test_frames_finds_articles_by_their_links(data):
    articles = data / "frames" / "articles"
    rows = [
        {"Prompt": "Who?", "Answer": "Ada", "reasoning_types": "Temporal",
         "wiki_links": "['https://en.wikipedia.org/wiki/Ada_Lovelace%27s_life#Work', 'https://en.wikipedia.org/wiki/AC/DC']"}
    ]  # fmt: skip
    lines(data / "frames" / "frames.jsonl", rows)
    (articles / "Ada Lovelace's life.txt").write_text("She wrote.")
    with pytest.raises(Refusal, match="has none https://en.wikipedia.org/wiki/AC/DC"):
        items_of("FRAMES")
    (articles / "AC_DC.txt").write_text("They played.")
    (item,) = items_of("FRAMES")
    assert item.prompt.index("She wrote.") < item.prompt.index("They played.") and item.group == "Temporal"


def test_items_of_other_files_are_refused(data):
    (data / "alpaca_eval" / "model_outputs.json").write_text('[{"instruction": "a", "output": "b", "generator": "c"}]')
    with pytest.raises(Refusal, match="no outputs of gpt4_1106_preview"):
        items_of("AlpacaEval 2.0")
    (data / "arena_hard" / "model_answer.jsonl").unlink()
    with pytest.raises(Refusal, match="no answer of gpt-4-0314 to q0"):
        items_of("Arena-Hard")


def test_words_of_a_prompt_stay_whole():
    item = Item(id="1", prompt="", gold="{predicted_answer}", more={"question": "{target} \\1 {x}?"})
    (request,) = facts.requests(item, "\ud800", facts.SIMPLE_QA_WORDING)
    text = request.body("j")["messages"][0]["content"]
    assert "Question: {target} \\1 {x}?\nGold target: {predicted_answer}\nAnswer: \ufffd\n" in text
