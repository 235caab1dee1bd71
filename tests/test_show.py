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
from r1repro.rewards import accuracy, readable

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


def test_a_fact_of_several_lines_keeps_them():
    page = show.sample_table([{"reference": "assert f(1) == 2\nassert f(2) < 4", "text": "."}])
    assert "assert f(1) == 2<br>assert f(2) &lt; 4" in page.html


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


def test_the_language_reward_is_drawn_where_there_is_one(tmp_path):
    log(tmp_path, [1])
    assert [line.get_label() for line in show._live(tmp_path).axes[0].lines] == ["format", "accuracy"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward/language_consistency": 0.5}) + "\n")
    assert show._live(tmp_path).axes[0].lines[-1].get_label() == "language"


def test_lines_end_at_newlines_alone(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert show.whole_lines(file) == [{"text": "a\u2028b\x85c"}]


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


# --- one question over the models


@pytest.fixture
def measured(tmp_path):
    for name in ("r1_zero", "dev1"):
        for kind, families in (("reasoning", ("logic", "search")), ("open", ("general", "safety"))):
            folder = tmp_path / "models" / name / kind
            folder.mkdir(parents=True)
            rows = [
                {"id": id, "question": f"Q-{id}", "gold": "", "language": "en", "level": 1, "family": families[i % 2],
                 "requirements": [["sort", "greet"]] if kind == "open" and i < 2 else [],
                 "outputs": [{"text": f"{id}/{name}/{k}{NASTY}", "verdict": "wrong", "length": 3} for k in range(2)]}
                for i, id in enumerate(("ccc", "aaa", "ddd", "bbb"))
            ]  # fmt: skip
            (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_static_models_answer_the_smallest_hash_of_each_family(measured, monkeypatch):
    monkeypatch.setenv(show.STATIC, "1")
    page = show.model_explorer(measured, ["r1_zero", "dev1"])
    shown = re.findall(r"(\w{3})/(\w+)/(\d)", repr(page))
    assert shown == [("aaa", "r1_zero", "0"), ("aaa", "dev1", "0"), ("ccc", "r1_zero", "0"), ("ccc", "dev1", "0")]
    assert "model R1-Zero" in repr(page) and "model Dev1" in repr(page)
    assert "script" not in tags(page.html) and NASTY in words(page.html)


def test_open_questions_are_told_apart_by_sort(measured, monkeypatch):
    monkeypatch.setenv(show.STATIC, "1")
    page = show.model_explorer(measured, ["dev1"], kind="open")
    assert re.findall(r"(\w{3})/dev1", repr(page)) == ["aaa", "bbb", "ddd"]


def test_the_live_models_offer_every_question_and_sample(measured, monkeypatch):
    monkeypatch.delenv(show.STATIC, raising=False)
    widget = show.model_explorer(measured, ["r1_zero", "dev1"])
    question, sample = widget.children[:2]
    assert [value for _, value in question.options] == ["aaa", "bbb", "ccc", "ddd"] and sample.max == 1
    assert "ddd/dev1/1" in repr(widget.f(question="ddd", sample=1))


def test_a_model_without_evaluation_is_refused(measured):
    with pytest.raises(Refusal, match="measure r1 first"):
        show.model_explorer(measured, ["dev1", "r1"])


# --- the form of outputs, what became of them, and texts side by side


def test_the_form_is_counted_by_family_and_over_all(tmp_path):
    texts = {
        "logic": ["<think> so 4 </think> 2+2=4. <answer> 4 </answer>", "<think> so 4 </think> <answer> 4 </answer>"],
        "search": ["<think> so \u6240\u4ee5 4 </think> 2+2=4. <answer> 4 </answer>", "so 4 <answer> 4 </answer>"],
    }
    rows = [
        {"family": family, "language": "en",
         "outputs": [{"text": text, "verdict": "right" if family == "logic" else "wrong"} for text in found]}
        for family, found in texts.items()
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = show.form(tmp_path)
    assert table.loc["logic"].to_dict() == {"outputs": 2, "format": 1, "one language": 1, "readable": 0.5, "right": 1}
    assert table.loc["search"].to_dict() == {
        "outputs": 2,
        "format": 0.5,
        "one language": 0.5,
        "readable": 0,
        "right": 0,
    }
    assert table.index[-1] == "all" and table.loc["all", "outputs"] == 4 and table.loc["all", "format"] == 0.75


def test_the_form_of_nothing_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no evaluation"):
        show.form(tmp_path)


def test_what_became_of_outputs_adds_up(tmp_path):
    reasons = {"wrong": 50, "mixed": 6, "enough": 10, "a new reason": 1}
    summary = {"outputs": 100, "reasoning examples": 20, "general examples": 7, "dropped": reasons}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    table = show.dropped(tmp_path)
    assert table.index[0] == "kept" and table.loc["kept", "outputs"] == 20
    assert table["outputs"].sum() == 100 and table["share"].sum() == pytest.approx(1)
    assert table.loc["languages mixed", "share"] == 0.06 and table.loc["code in the thinking", "outputs"] == 0
    assert table.loc["beyond the number wanted", "outputs"] == 13 and table.loc["a new reason", "outputs"] == 1


def test_what_became_of_nothing_is_refused(tmp_path):
    with pytest.raises(Refusal, match="collect first"):
        show.dropped(tmp_path)


def test_every_reason_to_drop_an_output_has_words():
    assert set(readable.REASONS) < set(show.FATES)


def test_claims_are_told_with_every_part_and_the_reason():
    parts = {"a_gain": {"value": 0.5, "low": 0.4, "high": 0.6}, "a_cost": {"value": -0.01, "low": -0.02, "high": 0.03}}
    detail = {"before": 0.25, "after": 0.75, "quantity": "pass@1", "why": "2 seeds", "parts": parts}
    told = {"claim": "it rises", "paper": "1 -> 2", "verdict": "trend"}
    waiting = {"id": "C2", **told, "verdict": "untestable", "detail": {"untested_because": "no run"}}
    table = show.claims([{"id": "C1", **told, "detail": detail}, waiting])
    assert list(table.index) == ["C1", "C2"] and table["why"].tolist() == ["2 seeds", "no run"]
    assert table.loc["C1"].str.contains("0.250 -> 0.750").any()
    effects = table["effect with its 95 % interval"]
    assert "a_gain +0.500 [+0.400, +0.600]; a_cost -0.010 [-0.020, +0.030]" == effects["C1"] and effects["C2"] == ""


def test_texts_side_by_side_stay_text():
    page = show.beside([{"before": NASTY, "<b>after": "x"}, {"before": "", "<b>after": NASTY}])
    assert tags(page.html) == {"table", "tr", "th", "td", "span"}
    assert words(page.html) == f"before<b>after{NASTY}x{NASTY}" and "before: x" not in repr(page)
    assert show.beside([]).html == "<table><tr></tr></table>"


def test_shares_in_training_have_a_panel_a_run_and_a_line_a_metric(monkeypatch):
    monkeypatch.setattr(show, "figure", lambda drawn: drawn)
    rows = [{"step": s, "depth/checked": 0.1 * s, "depth/answer_at_once": 0.5, "family/logic": 1.0} for s in (1, 2)]
    drawn = show.shares({"with": rows, "without": rows[:1]}, "depth/", "Depths")
    assert [axes.get_title("left") for axes in drawn.axes] == ["with", "without"]
    assert [line.get_label() for line in drawn.axes[0].lines] == ["checked", "answer at once"]
    assert list(drawn.axes[0].lines[0].get_ydata()) == [0.1, 0.2] and len(drawn.axes[1].lines[0].get_ydata()) == 1


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


@pytest.mark.parametrize("page", [lambda t: show.beside([{"a": t}]), lambda t: show.sample_table([{"text": t}])])
def test_characters_that_nobody_sees_are_spelt_out(page):
    made = page("lost \ufffd, turned \u202e, <b>")
    for text in (made.text, made.html):
        assert r"lost \ufffd, turned \u202e," in text and not {"\ufffd", "\u202e"} & set(text)
