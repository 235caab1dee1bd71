"""Outputs become examples: right and readable ones, in the language of their question; the rest is counted."""

import json
import random
from collections import Counter

import pytest

from r1repro.config import Collect
from r1repro.records import Refusal
from r1repro.rewards import readable, reasoning
from r1repro.rewards.language import language_share
from r1repro.stages import collect
from r1repro.tinyworld import families, rewrite, tokenizer
from r1repro.tinyworld.corpus import output


def settings(**changes):
    return Collect(**dict(num_questions=24, outputs_per_question=3, max_tokens=300) | changes)


@pytest.fixture
def written(monkeypatch):
    """Worked solutions in the place of samples: some wrong, some mixed; a random policy writes nothing that is kept."""

    def sampled(_actor, questions, cfg):
        rng = random.Random(0)
        found = []
        for question in questions:
            texts = []
            for place in range(cfg.outputs_per_question):
                own = question.language
                tongue = (lambda: own) if place else (lambda: rng.choice(("en", "zh")))  # noqa: B023
                worked, answer = families.solve(question, 2, tongue, lambda _: 0.2, rng)
                texts.append(output(worked, answer))
            found.append(texts)
        return found, [sum(map(len, texts)) for texts in found]

    monkeypatch.setattr(collect, "_sampled", sampled)


def run(tmp_path, tiny_base, **changes):
    file = collect.collect(settings(**changes), tmp_path / "run", tiny_base)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((tmp_path / "run" / "summary.json").read_text())


def asked(row):
    """The question of an example."""
    for key in range(2000):
        question = families.draw(row["family"], "train", row["level"], row["language"], "collect", 0, key)
        if question.id == row["id"]:
            return question
    raise AssertionError(row)


def test_what_is_kept_is_right_and_readable(tmp_path, tiny_base, written):
    rows, summary = run(tmp_path, tiny_base)
    assert rows and len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert reasoning.accuracy([asked(row)], [row["output"]])[0].verdict == "right"
        assert language_share(row["output"], row["language"]) >= 0.95
    assert summary["outputs"] == 72 == len(rows) + sum(summary["dropped"].values())
    assert {"wrong", "mixed"} <= set(summary["dropped"]) and summary["general examples"] == 0


def test_of_a_question_the_first_ones_are_kept_or_the_longest():
    question = families.draw("chain_sum", "train", 1, "en", 0)
    texts = [output(thought, question.gold) for thought in ("so it is.", "so.", "so we add, and so it is.")]
    for longest, kept in ((False, texts[0]), (True, texts[2])):
        found = collect._kept(question, texts, [True] * 3, settings(longest=longest))
        assert [example["output"] for example in found["examples"]] == [kept]
        assert found["dropped"] == ["enough"] * 2


def test_a_second_call_returns_the_same_file(tmp_path, tiny_base, written):
    first, _ = run(tmp_path, tiny_base)
    assert run(tmp_path, tiny_base)[0] == first


def test_rewriting_saves_what_is_mixed_and_adds_a_summary(tmp_path, tiny_base, written):
    plain, before = run(tmp_path / "a", tiny_base)
    rows, after = run(tmp_path / "b", tiny_base, rewrite=True)
    assert after["dropped"].get("mixed", 0) < before["dropped"]["mixed"] and len(rows) >= len(plain)
    for row in rows:
        said = row["output"].rpartition("</think>")[2]
        assert said.partition("<answer>")[0].strip() and language_share(row["output"], row["language"]) == 1.0
        assert reasoning.accuracy([asked(row)], [row["output"]])[0].verdict == "right"


def test_an_editor_that_overlooks_everything_saves_nothing_that_is_mixed(tmp_path, tiny_base, written):
    _, before = run(tmp_path / "a", tiny_base)
    _, after = run(tmp_path / "b", tiny_base, rewrite=True, overlooked=1.0)
    assert after["dropped"]["mixed"] == before["dropped"]["mixed"]


def test_a_quarter_is_general_data_in_the_papers_proportion(tmp_path, tiny_base, written):
    rows, summary = run(tmp_path, tiny_base, general_share=0.25, num_questions=60, keep_per_question=3)
    assert summary["general examples"] == round(summary["reasoning examples"] / 3)
    families_of = Counter(row["family"] for row in rows)
    assert families_of["general"] + families_of["safety"] == summary["general examples"]


def test_nothing_right_is_said_and_nothing_is_written(tmp_path, tiny_base, monkeypatch):
    none = lambda _, qs, cfg: ([["no"] * cfg.outputs_per_question for _ in qs], [3] * len(qs))  # noqa: E731
    monkeypatch.setattr(collect, "_sampled", none)
    with pytest.raises(Refusal, match="no output of .* was right and readable"):
        collect.collect(settings(), tmp_path / "run", tiny_base)
    assert not (tmp_path / "run" / "examples.jsonl").exists()


def test_open_questions_need_a_judge(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr(collect, "_sampled", lambda _, qs, cfg: ([[output("", q.gold)] * 3 for q in qs], [9] * len(qs)))
    with pytest.raises(Refusal, match="give a judge"):
        collect.collect(settings(questions="with_reference"), tmp_path / "a", tiny_base)
    file = collect.collect(
        settings(questions="with_reference"), tmp_path / "b", tiny_base, judge=lambda qs, texts: [True] * len(texts)
    )
    assert len(file.read_text().splitlines()) == 24


def test_short_examples_have_no_thinking_and_as_many_tokens():
    long = [
        {"id": "1", "family": "search", "output": "<think> 1+2=3, 3 right. </think> 1+2=3. <answer> 1, 2 </answer>"},
        {"id": "2", "family": "general", "output": "<think> </think> <answer> Hello! </answer>"},
    ]
    short = collect.short_examples(long, 200, seed=0)
    assert {row["output"] for row in short if row["family"] == "search"} == {"<think> </think> <answer> 1, 2 </answer>"}
    tokens = sum(len(ids) + 1 for ids in tokenizer.load()([f" {r['output']}" for r in short])["input_ids"])
    assert 200 <= tokens < 230


# --- filters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think> so 4 </think> <answer> 4 </answer>", None),
        ("so 4 <answer> 4 </answer>", "format"),
        ("<think> so 所以 4 </think> <answer> 4 </answer>", "mixed"),
        (f"<think> {'so ' * 30} </think> 4", "paragraph"),
        ("<think> def f(x): return x </think> 4", "code"),
        ("<think> ```\nx\n``` </think> 4", "code"),
        (f"<think> {'so it is 4. ' * 3} </think> 4", "repetition"),
        ("<think> so 4 </think> 所以 4", None),  # of the thinking alone
    ],
)
def test_why_an_output_is_dropped(text, reason):
    assert readable.unreadable(text, "en", min_share=0.95, max_paragraph=20) == reason


# --- the editor


@pytest.mark.parametrize("family", families.REASONING)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_editor_puts_any_mixture_into_the_language_of_the_question(family, language):
    for key in range(60):
        rng = random.Random(key)
        levels = families.levels(family)
        question = families.draw(family, "train", levels[key % len(levels)], language, key)
        depths = families.REASONING[family].DEPTHS if family != "chain_sum" else (0, 1, 2, 3)
        depth = depths[key % len(depths)]
        mixed, answer = families.solve(question, depth, lambda: rng.choice(("en", "zh")), lambda _: 0.2, rng)  # noqa: B023
        text = rewrite.translate(mixed, question)
        assert language_share(text, language) == 1.0, (mixed, text)
        own, _ = families.solve(question, depth, lambda: language, lambda _: 0.2, rng)
        assert rewrite.translate(own, question) == own.strip()  # what is in one language already is left alone
        digits = [c for c in mixed if c.isdigit()]
        assert [c for c in text if c.isdigit()] == digits  # no number is touched


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_editor_overlooks_phrases_one_by_one(language):
    question = families.draw("chain_sum", "train", 3, language, 5)
    other = "zh" if language == "en" else "en"
    thinking, _ = families.solve(question, 2, lambda: other, lambda _: 0.0, random.Random(5))
    text = f"<think> {thinking} </think>"
    answers = iter([True, *[False] * 99])
    shares = [
        language_share(rewrite.translate(text, question, overlooks), language)
        for overlooks in (lambda: False, lambda: next(answers), lambda: True)
    ]
    assert shares[0] == 1.0 > shares[1] > shares[2] == 0.0
    assert len(list(answers)) < 98  # asked at every phrase
