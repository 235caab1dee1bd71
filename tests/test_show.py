"""What notebooks show: no output of a model becomes HTML, nothing is lost, no thread and no error stays behind."""

import html
import json
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro import config, run, show
from r1repro.algo import grpo
from r1repro.records import Refusal
from r1repro.rewards import accuracy

NASTY = '<script>alert("x")</script><think>a < b & <b>c</b></think> <answer><img src=x onerror=y>'


def tags(page):
    return {tag.lower() for tag in re.findall(r"<(\w+)", page)}


def words(page):
    """The text that a browser would show."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


# --- samples


def test_nothing_that_a_model_wrote_becomes_html():
    page = show.sample_table([{"question": "<i>q</i><script>", "verdict": "<u>", "<s>key": 1, "text": NASTY}])
    assert tags(page.html) <= {"table", "tr", "td", "div", "i", "span", "br", "b"}
    assert NASTY in words(page.html) and NASTY in repr(page)
    assert "onerror" not in "".join(re.findall(r"<[^>]*>", page.html))


def test_thinking_and_answer_are_told_apart():
    thinking, answer = show._STYLE["think"], show._STYLE["answer"]
    page = show.sample_table([{"text": "so <think>2 + 2</think> it is <answer>4</answer> then"}]).html
    spans = re.findall(r'<span style="([^"]*)">([^<]*)</span>', page)
    assert spans == [(thinking, "&lt;think&gt;2 + 2&lt;/think&gt;"), (answer, "&lt;answer&gt;4&lt;/answer&gt;")]


@pytest.mark.parametrize("text", ["<think>never closed", "</think><answer>", "<answer>4", "<think><think></think>", ""])
def test_broken_tags_are_shown_as_they_are(text):
    assert words(show.sample_table([{"text": text}]).html) == text


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<", "&", ">", "x", "\n", '"'])))
def test_no_character_is_lost(parts):
    assert words(show._coloured("".join(parts))) == "".join(parts)


def test_a_very_long_output_is_cut_and_says_so():
    page = show.sample_table([{"text": "x" * (show.LONGEST + 7)}])
    assert "[7 more characters]" in page.html and len(page.html) < show.LONGEST + 1000


def test_facts_that_are_none_are_left_out():
    page = show.sample_table([{"step": 3, "reward": None, "text": "."}])
    assert "step 3" in repr(page) and "reward" not in repr(page) + page.html


# --- source, figures and tiers


def test_source_is_the_file_s_own_text_with_its_address():
    page = show.source(grpo.advantages)
    assert "`r1repro/algo/grpo.py`, line " in page.markdown and "def advantages(" in page.markdown
    assert repr(page) in page.markdown and repr(page) in Path(grpo.__file__).read_text(encoding="utf-8")


def test_source_of_a_cached_function_has_the_address_of_its_own_file():
    assert "`r1repro/rewards/accuracy.py`" in show.source(accuracy.normalise).markdown


def test_tiers_hold_every_setting():
    page = show.tiers()
    for row in config.table():
        assert row["setting"] in repr(page) and row["setting"] in page.html
        assert html.escape(row["why the cpu tier differs"]) in page.html


# --- the run while it goes on


class Screen:
    """Stands for Jupyter's display: keeps what it is given."""

    def __init__(self):
        self.shown = []

    def display(self, thing):
        self.shown.append(thing)

    update = display


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(show, "DisplayHandle", lambda: screen)
    monkeypatch.setattr(show, "figure", lambda drawn: [len(line.get_xdata()) for line in drawn.axes[0].lines])
    return screen


def log(folder, steps, end="\n"):
    folder.mkdir(exist_ok=True)
    rows = [{"step": s, "reward/format": 0.5, "reward/accuracy": 0.2, "length/mean": 9.0} for s in steps]
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + end)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def curve_threads():
    return [thread for thread in threading.enumerate() if thread.name == "live curve"]


def test_the_curve_follows_the_run_and_leaves_no_thread(screen, tmp_path):
    with show.live_curve(tmp_path, every_s=0.01):
        assert screen.shown == [[0, 0]] and len(curve_threads()) == 1
        log(tmp_path, [1, 2])
        until(lambda: screen.shown[-1] == [2, 2])
        log(tmp_path, [3])
    assert screen.shown[-1] == [3, 3] and curve_threads() == []


def test_a_half_written_line_is_waited_for(screen, tmp_path):
    log(tmp_path, [1])
    log(tmp_path, [2], end="")
    with show.live_curve(tmp_path, every_s=0.01):
        pass
    assert screen.shown[-1] == [1, 1]


def test_the_body_s_error_comes_through_and_the_thread_ends(screen, tmp_path):
    with pytest.raises(Refusal, match="full"), show.live_curve(tmp_path, every_s=0.01):
        raise Refusal("the disk is full")
    assert curve_threads() == []


def test_an_error_in_drawing_is_raised_at_the_end(screen, tmp_path):
    with pytest.raises(Refusal, match="damaged"), show.live_curve(tmp_path, every_s=0.01):
        (tmp_path / "metrics.jsonl").write_text("no json\n")
        until(lambda: not curve_threads())
        (tmp_path / "metrics.jsonl").unlink()  # so that the last picture can be drawn


def test_the_body_s_error_matters_more_than_one_in_drawing(screen, tmp_path):
    with pytest.raises(Refusal), show.live_curve(tmp_path, every_s=0.01):
        (tmp_path / "metrics.jsonl").write_text("no json\n")
        until(lambda: not curve_threads())
        raise Refusal("lower the learning rate")


def test_the_axis_reaches_to_the_end_of_the_run(tmp_path):
    manifest = {"config": {"num_rollouts": 6, "steps_per_rollout": 4}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert show._live(tmp_path).axes[0].get_xlim() == (0, 24)


def test_lines_end_at_newlines_alone(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert show._lines(file) == [{"text": "a\u2028b\x85c"}]


# --- one question over the steps


@pytest.fixture
def seed_dir(tmp_path):
    for step in (0, 8):
        folder = tmp_path / "evaluate" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        rows = [
            {"id": id, "question": f"Q-{id}", "gold": "4", "language": "en", "level": 1,
             "outputs": [{"text": f"{id}/{step}/{k}{NASTY}", "verdict": "wrong", "length": 3} for k in range(2)]}
            for id in ("ccc", "aaa", "ddd", "bbb")
        ]  # fmt: skip
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_static_explorer_takes_the_smallest_hashes(seed_dir, monkeypatch):
    monkeypatch.setenv(show.STATIC, "1")
    page = show.explorer(seed_dir)
    shown = re.findall(r"(\w{3})/(\d)/(\d)", repr(page))
    assert shown == [("aaa", "0", "0"), ("aaa", "8", "0"), ("bbb", "0", "0"), ("bbb", "8", "0")]
    assert re.findall(r"(\w{3})/(\d)/(\d)", page.html) == shown and "script" not in tags(page.html)


def test_the_live_explorer_offers_every_question_and_sample(seed_dir, monkeypatch):
    monkeypatch.delenv(show.STATIC, raising=False)
    widget = show.explorer(seed_dir)
    question, sample = widget.children[:2]
    assert [value for _, value in question.options] == ["aaa", "bbb", "ccc", "ddd"]
    assert (sample.min, sample.max) == (0, 1)
    assert "ccc/8/1" in repr(widget.f(question="ccc", sample=1))


def test_an_explorer_of_nothing_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no evaluated step"):
        show.explorer(tmp_path)


# --- why does my reward not rise


def metrics(folder, **late):
    healthy = {"group/no_variance": 0.2, "reward/format": 0.95, "reward/accuracy": 0.8, "verdict/unparsed": 0.0,
               "verdict/timed_out": 0.0, "verdict/error": 0.0, "length/truncated": 0.0, "policy/clip_share": 0.0,
               "policy/ratio_max": 1.5, "policy/kl_reference_nats": 0.01, "policy/entropy_nats": 0.3,
               "policy/grad_norm": 0.5, "sampler/divergence_nats": 0.0}  # fmt: skip
    rows = [{"step": 1, **dict.fromkeys(healthy, 0.0)}, *({"step": s, **healthy} for s in (2, 3))]
    rows.append({"step": 4, **healthy, **{key.replace("__", "/"): value for key, value in late.items()}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = show.diagnosis(folder)
    return set(table.index[table["state"] == "LOOK"]), table


def test_a_healthy_run_has_no_suspect(tmp_path):
    assert metrics(tmp_path)[0] == set()


@pytest.mark.parametrize(
    ("late", "suspect"),
    [
        ({"group__no_variance": 0.9}, "groups whose rewards all agree"),
        ({"reward__format": 0.3, "reward__accuracy": 0.2}, "format reward"),
        ({"reward__accuracy": 0.1}, "format ahead of accuracy"),
        ({"verdict__unparsed": 0.5}, "no readable answer, outputs"),
        ({"verdict__timed_out": 0.05}, "grader failed, outputs"),
        ({"length__truncated": 0.4}, "cut at the cap, outputs"),
        ({"policy__clip_share": 0.3}, "clipped, tokens"),
        ({"policy__ratio_max": 40.0}, "largest ratio in a step"),
        ({"policy__kl_reference_nats": 1.0}, "policy from reference, nats a token"),
        ({"sampler__divergence_nats": 1e-3}, "sampler from policy, nats a token"),
        ({"policy__entropy_nats": 0.001}, "entropy, nats a token"),
        ({"policy__grad_norm": 0.0}, "norm of the gradient"),
    ],
)
def test_each_suspect_is_named_alone(tmp_path, late, suspect):
    assert metrics(tmp_path, **late)[0] == {suspect}


def test_a_value_of_whole_rollouts_is_found_though_the_last_steps_lack_it(tmp_path):
    rows = [{"step": 1, "group/no_variance": 0.1}, {"step": 5, "group/no_variance": 0.9}]
    rows += [{"step": s, "policy/clip_share": 0.0} for s in (6, 7, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = show.diagnosis(tmp_path)
    assert table.loc["groups whose rewards all agree", "value"] == "0.9"
    assert table.loc["entropy, nats a token", "state"] == "not logged"


def test_no_metrics_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no metrics yet"):
        show.diagnosis(tmp_path)


def test_every_suspect_is_in_the_glossary():
    derived = {"format ahead", "verdict/failed"}
    assert {key for _, key, *_ in show.CHECKS} - derived <= set(run.GLOSSARY)
