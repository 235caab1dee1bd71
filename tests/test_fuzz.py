"""Whatever a person hands over, in a call, on the command line or as a file: a value, or one line that says what is
wrong and what to do.  Nothing else is ever raised."""

import contextlib
import dataclasses
import json

import models
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from r1repro import __main__ as cli
from r1repro import config, data, ledger, paper, show
from r1repro.engine import attention, checkpoint, policy
from r1repro.records import Question, Refusal
from r1repro.rewards import accuracy, combine, format, language
from r1repro.run import Run, read_json, read_lines
from r1repro.tinyworld import arithmetic, tokenizer

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
LETTERS = "<>/think answerboxed{}\\$=+-*^0123456789,. \n\u2028\x00"
TEXT = st.text(max_size=200) | st.text(alphabet=LETTERS, max_size=200)
PARTS = {"rl.": config.RL, "evaluate.": config.Evaluate, "machine.": config.Machine}
NAMES = [part + field.name for part, kind in PARTS.items() for field in dataclasses.fields(kind)] + ["base", "seed"]
REWARDS = ["os:path", "r1repro.rewards.format:format_scores", ":", "a.b:c"]
WORDS = ["tiers", "evaluate", "r1-zero", "leaderboard", "--tier", "cpu", "--set", "--seed", "-1", "rl.beta=1",
         "--model", "nowhere", "--run-dir", "--name"]  # fmt: skip
RECORD = st.dictionaries(
    st.sampled_from(["id", "language", "level", "outputs", "step", "exit", "files"]), ANY, max_size=5
)
BYTES = (
    st.binary(max_size=60)
    | (ANY | RECORD).map(lambda value: json.dumps(value).encode())
    | st.lists(RECORD, max_size=3).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
)
FILES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def a_value_or_one_line():
    try:
        yield
    except Refusal as refusal:
        assert str(refusal) and "\n" not in str(refusal), refusal


# --- calls


@given(tier=st.sampled_from([*config.TIERS, "", "huge"]) | ANY, seed=ANY)
def test_any_tier_and_seed(tier, seed):
    with a_value_or_one_line():
        config.r1_zero(tier, seed)


@settings(max_examples=400)
@given(overrides=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), ANY, max_size=4) | ANY)
@example({"rl.learning_rate": float("nan")})
@example({"rl.max_tokens": 10**400})
@example({"rl.rewards": ["a:b", 3]})
def test_any_overrides(overrides):
    with a_value_or_one_line():
        found = config.r1_zero("cpu", 0, overrides)
        assert found.rl.outputs_per_question >= 2 and found.rl.learning_rate > 0 and found.evaluate.top_p <= 1


@given(
    paths=st.lists(
        st.text(max_size=30) | st.sampled_from(["os:path", "r1repro.rewards.format:format_scores", ":", "a.b:c"])
    )
)
def test_any_reward_by_name(paths):
    with a_value_or_one_line():
        assert all(callable(reward) for reward in combine.load(paths))


@given(given=st.lists(ANY, max_size=4), count=st.integers(0, 4))
def test_any_reward_by_value(given, count):
    def reward(questions, texts):
        return given

    with a_value_or_one_line():
        totals, _ = combine.total([reward], [None] * count, ["x"] * count)
        assert len(totals) == count and all(total is None or abs(total) < float("inf") for total in totals)


@given(text=TEXT)
def test_any_output(text):
    question = Question(id="00", text="1 + 1", gold="2", language="en", level=1, family="chain_sum")
    format.format_scores([question], [text])
    format.small_format_scores([question], [text])
    accuracy.final_answer(text), accuracy.normalise(text), accuracy.readable(text)
    for tongue in ("en", "zh"):
        assert 0 <= language.language_share(text, tongue) <= 1
        assert language.reflection_count(text, tongue) >= 0
    assert arithmetic.depth_of(language.thinking(text)) in arithmetic.DEPTHS
    assert isinstance(arithmetic.holds_held_out(text), bool)
    assert tokenizer.load().encode(paper.template(text))


@given(
    source=st.sampled_from(["chain_sum", "", "logic"]),
    split=st.sampled_from(["train", "validation", "x"]),
    seed=st.integers(0, 2**70),
    count=st.integers(0, 12),
)
def test_any_questions(source, split, seed, count):
    with a_value_or_one_line():
        found = data.split_questions(source, split, seed, count)
        assert len({q.id for q in found}) == count
        assert source != "chain_sum" or {arithmetic.split_of(q.id) for q in found} <= {split}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=5))
def test_any_command_line(words, tmp_path_factory, capfd):
    try:
        code = cli.main([*words, "--out", str(tmp_path_factory.getbasetemp() / "nothing-here")])
    except SystemExit as stop:  # argparse, after its own lines
        code = stop.code
    assert code in (0, 2)
    assert "Traceback" not in capfd.readouterr().err


# --- files


@FILES
@given(content=BYTES)
def test_any_file_in_the_place_of_a_runs(content, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with a_value_or_one_line():
        read_lines(tmp_path / "metrics.jsonl")
    (tmp_path / "manifest.json").write_bytes(content)
    with a_value_or_one_line():
        read_json(tmp_path / "manifest.json")
    with a_value_or_one_line():
        Run.open(tmp_path, stage="rl", config=models.small_rl(), inputs={})


@FILES
@given(content=BYTES)
def test_any_file_in_the_place_of_a_checkpoints_record(content, tmp_path):
    (tmp_path / "checkpoint.json").write_bytes(content)
    with a_value_or_one_line():
        checkpoint.verify(tmp_path)


@FILES
@given(content=BYTES)
def test_any_file_in_the_place_of_a_models_config(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Refusal) as caught:
        policy.load(tmp_path)
    assert "\n" not in str(caught.value)


@FILES
@given(content=BYTES, name=st.sampled_from(["manifest.json", "metrics.jsonl", "samples.jsonl", "summary.json"]))
def test_any_file_in_a_seed_that_is_reported_on(content, name, tmp_path):
    run = tmp_path / "smoke" / "seed-0" / "evaluate" / "step-000000"
    run.mkdir(parents=True, exist_ok=True)
    (run / "manifest.json").write_text('{"exit": "complete"}')
    (run / name).write_bytes(content)
    with a_value_or_one_line():
        ledger.read("smoke", tmp_path)
    with a_value_or_one_line():
        show.explorer(tmp_path / "smoke" / "seed-0")


# --- packing: every token once, and nothing but the tokens


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), data=st.data())
def test_any_lengths_are_packed_and_bucketed_without_loss(lengths, data):
    length_N = torch.tensor(lengths)
    question_N = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=len(lengths), max_size=len(lengths))))
    most = data.draw(st.integers(1, 100))
    batches = list(policy.micro_batches(question_N, length_N, most))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or length_N[rows].sum() <= most
        tokens = int(length_N[rows].sum())
        layout = attention.Layout.of(question_N[rows], length_N[rows], torch.arange(2, 8))
        assert sorted(place for _, part in layout.spans for place in range(part.start, part.stop)) == list(
            range(tokens)
        )
        assert sorted(torch.cat([place[on] for place, on in layout.buckets]).tolist()) == list(range(tokens))
        assert all(3 * on.sum() >= 2 * on.numel() for _, on in layout.buckets)
        for prompt, part in layout.spans:
            q = prompt.stop - prompt.start - 2
            assert part.stop - part.start == length_N[rows][question_N[rows] == q].sum()


# --- the run folder: what is kept is what was said, whatever is done in whatever order

ACTIONS = st.lists(st.sampled_from(["log", "samples", "torn", "rewind", "again", "time"]), max_size=12)


@FILES
@given(actions=ACTIONS)
def test_any_order_of_writing_rewinding_and_dying(actions, tmp_path_factory):
    folder, step, kept = tmp_path_factory.mktemp("run"), 0, []
    cfg = models.small_rl()

    def opened():
        return Run.open(folder, stage="rl", config=cfg, inputs={"base": "0"}, seed=3)

    run = opened()
    for action in actions:
        if action == "log":
            step += 1
            run.log(step, {"policy/loss": step / 3})
            kept.append(("metrics", step))
        elif action == "samples":
            step += 1
            run.add_samples([{"step": step, "text": "\u2028\n\x00"}])
            kept.append(("samples", step))
        elif action == "torn":
            with open(folder / "metrics.jsonl", "a") as file:
                file.write('{"step": 99, "po')
            run = opened()
        elif action == "rewind":
            step = step // 2
            run.rewind(step)
            kept = [(kind, at) for kind, at in kept if at <= step]
        elif action == "time":
            run.keep_time()
        else:
            run = opened()
        assert [row["step"] for row in run.metrics()] == [at for kind, at in kept if kind == "metrics"]
        assert [row["step"] for row in run.samples()] == [at for kind, at in kept if kind == "samples"]
    run.finish()
    assert opened().complete
