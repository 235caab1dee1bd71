"""Talking to a stage: which model answers, what it is asked, that a talk can be had again, and what a reader sees."""

import html
import io
import json
import os
import re
import sys

import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

from r1repro import __main__ as cli
from r1repro import chat, paper, show
from r1repro.engine import checkpoint, policy, sampler
from r1repro.records import Refusal
from r1repro.rewards.format import format_reward
from r1repro.stages import rl
from r1repro.tinyworld import base, tokenizer

ASKED = ["What is 12 + 30?", "7 - 4 =", "What is 12 + 30?"]
TEN = chat.settings(changes={"max_tokens": 10})
RIGHT = "<think>12 + 30 = 42</think> <answer>42</answer>"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def spoken(partner, questions, out=None, **more):
    """What a talk writes, and its complaints."""
    out, err = out or io.StringIO(), io.StringIO()
    chat.talk(partner, questions, out, err, **more)
    return out.getvalue(), err.getvalue()


def says(monkeypatch, *texts, truncated=False):
    """The sampler gives these texts, one after another."""
    end, waiting = tokenizer.load().eos_token_id, iter(texts)

    def sample(model, prompts, num_outputs, **settings):
        ids = tokenizer.load().encode(next(waiting)) + [end] * (not truncated)
        length_N, truncated_N = torch.tensor([len(ids)]), torch.tensor([truncated])
        return sampler.Samples(torch.tensor([ids]), torch.zeros(1, len(ids)), length_N, truncated_N)

    monkeypatch.setattr(chat.sampler, "sample", sample)


@pytest.fixture(scope="module")
def partner(tiny_base):
    return chat.load(tiny_base, TEN)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base):
    return rl.train(models.small_rl(num_rollouts=2), tmp_path_factory.mktemp("seed") / "rl", tiny_base)


# --- which model


def test_a_run_is_its_last_checkpoint(trained):
    assert chat.find(trained) == checkpoint.folder_of(trained, 4) and (trained / "checkpoints/step-000000").exists()
    assert chat.find(checkpoint.folder_of(trained, 0)) == checkpoint.folder_of(trained, 0)
    found = chat.load(trained, TEN).model.state_dict()
    assert all(torch.equal(p, found[name]) for name, p in policy.load(models.newest(trained)).named_parameters())


def test_a_base_model_goes_by_its_name(tiny_base):
    assert chat.find("tiny-1m") == base.folder("tiny-1m")
    assert chat.find(str(tiny_base)) == tiny_base


def test_what_has_no_model_is_refused_with_the_way_out(tmp_path, trained):
    with pytest.raises(Refusal, match="no model at .*nowhere.*folder of a run.*tiny-1m"):
        chat.find(tmp_path / "nowhere")
    with pytest.raises(Refusal, match=f"no model at {trained.parent}: give one of {trained}$"):
        chat.find(trained.parent)


def test_a_damaged_checkpoint_is_not_talked_to(tmp_path, tiny_base):
    run = rl.train(models.small_rl(num_rollouts=1), tmp_path / "rl", tiny_base)
    file = models.newest(run) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Refusal, match="model.safetensors"):
        chat.load(run, TEN)


# --- whose tokenizer


def words_tokenizer(folder, size, **special):
    """A tokenizer of single characters and little else."""
    letters = sorted(set(paper.template("0123456789 +?")))
    vocabulary = {"<end>": 0, "<unk>": 1} | {letter: i for i, letter in enumerate(letters, 2)}
    vocabulary |= {f"<{i}>": i for i in range(len(vocabulary), size)}
    made = Tokenizer(vocabularies.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special).save_pretrained(folder)
    return folder


def test_a_folder_brings_its_own_tokenizer(tmp_path, monkeypatch):
    models.build(size=80, dtype=torch.float32).save_pretrained(tmp_path)
    partner = chat.load(words_tokenizer(tmp_path, 80, eos_token="<end>"), TEN)
    seen, honest = [], sampler.sample
    monkeypatch.setattr(chat.sampler, "sample", lambda *a, **k: seen.append((a, k)) or honest(*a, **k))
    chat.answer(partner, "1 + 1?", 1)
    ((_, (prompt,), _), settings), *_ = seen
    assert prompt == [partner.vocabulary.tokenizer.convert_tokens_to_ids(c) for c in paper.template("1 + 1?")]
    assert 1 not in prompt and settings["ends"] == (0,)


def test_an_end_token_is_taken_from_the_model_where_the_tokenizer_has_none(tmp_path):
    model = models.build(size=80, dtype=torch.float32)
    model.save_pretrained(words_tokenizer(tmp_path, 80))
    with pytest.raises(Refusal, match="no end token.*eos_token"):
        chat.load(tmp_path, TEN)
    model.generation_config.eos_token_id = [7, 8]
    model.save_pretrained(tmp_path)
    assert chat.load(tmp_path, TEN).vocabulary.ends == (7, 8)


def test_the_tiny_worlds_tokenizer_is_lent_to_its_models_alone(tmp_path):
    models.build(size=tokenizer.VOCABULARY + 8, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(Refusal, match="knows 1032 tokens and its tokenizer 1024"):
        chat.load(tmp_path, TEN)
    tokenizer.load().save_pretrained(tmp_path)  # its own, with rows to spare
    assert chat.load(tmp_path, TEN).vocabulary.end == tokenizer.load().eos_token_id


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path):
    models.build(size=80, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(Refusal, match="knows 80 tokens and its tokenizer 1024"):
        chat.load(tmp_path, TEN)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Refusal, match="tokenizer.json cannot be read") as caught:
        chat.load(tmp_path, TEN)
    assert "\n" not in str(caught.value)


# --- what is asked, and how


def test_the_question_stands_in_the_papers_template_and_is_sampled_with_the_settings(partner, monkeypatch):
    seen, honest = [], sampler.sample

    def watch(model, prompts, num_outputs, **settings):
        seen.append((prompts, num_outputs, settings))
        return honest(model, prompts, num_outputs, **settings)

    monkeypatch.setattr(chat.sampler, "sample", watch)
    manner = chat.settings(5, {"temperature": 0.9, "top_p": 0.8, "max_tokens": 7})
    chat.answer(chat.Partner(partner.model, partner.vocabulary, manner), ASKED[0], 3)
    ((prompts, num_outputs, settings),) = seen
    assert tokenizer.load().decode(prompts[0]) == paper.template(ASKED[0]) and num_outputs == 1
    assert (settings["temperature"], settings["top_p"], settings["max_tokens"]) == (0.9, 0.8, 7)
    assert settings["key"] == (5, 3) and settings["ends"] == (tokenizer.load().eos_token_id,)


def test_left_to_itself_a_talk_is_sampled_as_an_evaluation():
    found = chat.settings()
    assert (found.temperature, found.top_p, found.max_tokens, found.seed) == (0.6, 0.95, 448, 0)


def test_the_same_talk_gives_the_same_outputs_and_another_seed_others(partner, tiny_base):
    first = chat.answers(tiny_base, ASKED, TEN)
    assert chat.answers(tiny_base, ASKED, TEN) == first
    assert chat.answer(partner, ASKED[2], 3) == first[2]
    assert first[0].text != first[2].text, "asked again, a question gets another output"
    other = chat.answers(tiny_base, ASKED, chat.settings(1, {"max_tokens": 10}))
    assert [o.text for o in other] != [o.text for o in first]


def test_a_refused_question_leaves_the_others_as_they_are(partner):
    out, err = spoken(partner, [ASKED[0], "  ", "9" * 40_000, *ASKED[1:]])
    assert out == spoken(partner, ASKED)[0]
    assert (
        err.startswith("r1repro: question '  ' is empty: ask something\nr1repro: question '999")
        and err.count("\n") == 2
    )


def test_the_longest_question_leaves_room_for_the_output(tmp_path):
    model = models.build(size=tokenizer.VOCABULARY, dtype=torch.float32)
    bare = len(tokenizer.load().encode(paper.template("")))
    model.config.max_position_embeddings = bare + 10 + 5
    model.save_pretrained(tmp_path)
    partner = chat.load(tmp_path, TEN)
    assert chat.answer(partner, "7" * 5, 1).length <= 10
    with pytest.raises(Refusal, match=f"{bare + 6} tokens.*{bare + 5} is the most.*10 of output"):
        chat.prompt_of(partner, "7" * 6)
    with pytest.raises(Refusal, match=f"15 tokens of output leave no room.*{bare + 15} positions"):
        chat.load(tmp_path, chat.settings(changes={"max_tokens": 15}))


@given(st.text(min_size=1, max_size=60))
def test_any_text_can_be_asked(partner, text):
    if text.strip():
        assert tokenizer.load().decode(chat.prompt_of(partner, text)) == paper.template(text)


def test_what_is_no_text_is_refused(partner):
    with pytest.raises(Refusal, match=r"'a\\ud800' has bytes that are no UTF-8"):
        chat.prompt_of(partner, "a\ud800")


# --- thinking and answer


@pytest.mark.parametrize(
    "text, thinking, answer",
    [
        (RIGHT, "12 + 30 = 42", "42"),
        ("\n<think>\na\n\nb </think>\nSo it is <answer>4</answer>.", "a\n\nb", "So it is 4."),
        ("<think></think> 4", "", "4"),
        ("<think>a</think>", "a", ""),
        ("<think>a", "a", None),
        ("42", None, None),
        ("", None, None),
        ("so <think>a</think> 4", None, None),
        ("<think>a</think> 4 <think>b</think>", None, None),
        ("<think>a <think>b</think> 4", None, None),
        ("</think>4", None, None),
    ],
)
def test_an_output_is_split_where_its_format_allows_it(text, thinking, answer):
    assert chat.split(text) == (thinking, answer)


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "4", " ", "\n", "x", "\x1b"]))


@given(PIECES)
def test_what_earns_the_format_reward_is_split_and_all_else_has_a_note(pieces):
    text = "".join(pieces)
    output = chat.Output("q", text, *chat.split(text), 3, 9, False)
    assert (format_reward(text) == 1.0) == bool(output.answer) == (not output.notes)
    assert "\x1b" not in chat.told(output)


def test_tokens_of_the_thinking_are_counted_to_its_closing_tag(partner, monkeypatch):
    says(monkeypatch, RIGHT, "<think>2 + 2", "2 + 2")
    found = [chat.answer(partner, "?", n) for n in (1, 2, 3)]
    count = len(tokenizer.load().encode("<think>12 + 30 = 42</think>"))
    assert [o.num_thinking for o in found] == [count, found[1].length, 0]
    assert found[0].length == len(tokenizer.load().encode(RIGHT)) + 1 and not found[0].notes


def test_what_a_reader_sees_in_a_pipe(partner, monkeypatch):
    says(monkeypatch, RIGHT, "It is 42", "<think>1\n2", "<think>a</think>")
    texts = [chat.told(chat.answer(partner, "?", n)) for n in (1, 2, 3, 4)]
    count = len(tokenizer.load().encode("<think>12 + 30 = 42</think>"))
    assert texts[0] == f"thinking ({count} tokens)\n  12 + 30 = 42\n42\n"
    assert texts[1].startswith("It is 42\n(the format is missing: not one <think>")
    assert re.fullmatch(
        r"thinking \(\d+ tokens\)\n  1\n  2\n\(the format is missing: no end of the thinking\)\n", texts[2]
    )
    assert texts[3].endswith("\n  a\n(the format is missing: no answer)\n")
    says(monkeypatch, "It is 4", truncated=True)
    assert re.search(r"\n\(cut at \d+ tokens\)\n$", chat.told(chat.answer(partner, "?", 1)))


# --- the talk


def test_colours_and_signs_are_for_terminals_alone(partner, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    says(monkeypatch, *[RIGHT] * 3)
    plain, _ = spoken(partner, ["?"])
    assert plain.startswith("Question: ?\nthinking (") and "\x1b" not in plain and "..." not in plain
    shown, _ = spoken(partner, ["?"], Terminal(), echo=False)
    assert shown.startswith(f"...{chat.ERASE}{chat.DIM}thinking (") and f"= 42{chat.PLAIN}\n42\n" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert chat.DIM not in spoken(partner, ["?"], Terminal())[0]


def test_no_output_steers_a_terminal(partner, monkeypatch):
    says(monkeypatch, "\x1b[2J\x1b]0;owned\x07<think>", "<think>\x1b[31m\r</think>\x9b4\x00")
    out, _ = spoken(partner, ["\x1b[31m?", "?"])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out) and r"\x1b[2J" in out and r"\x9b4\x00" in out


def test_an_interrupt_stops_one_output_and_no_more(partner, monkeypatch):
    whole, _ = spoken(partner, ASKED)
    calls, honest = iter(range(10**6)), sampler.uniform
    stop_at = chat.answer(partner, ASKED[0], 1).length + 2  # in the second output

    def interrupted(*key):
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        return honest(*key)

    monkeypatch.setattr(sampler, "uniform", interrupted)
    out, _ = spoken(partner, ASKED)
    first, _, third = whole.rstrip("\n").split("\n\nQuestion: ")
    assert out.rstrip("\n").split("\n\nQuestion: ") == [first, f"{ASKED[1]}\n(stopped)", third]


def test_a_model_that_is_no_longer_numbers_ends_the_talk(tmp_path, tiny_base):
    partner = chat.load(tiny_base, TEN)
    partner.model.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(Refusal, match="no numbers"):
        spoken(partner, ASKED)


@pytest.mark.parametrize("end", ["", "\n", "exit\n", " exit \n"])
def test_a_talk_ends_with_the_input_an_empty_line_or_exit(monkeypatch, end):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n  \ntwo\n" + end + ("three\n" if end else "")))
    out = io.StringIO()
    assert list(chat.typed(out)) == ["one", "  ", "two"] and out.getvalue() == ""


@pytest.mark.parametrize("how", [EOFError, KeyboardInterrupt])
def test_a_terminal_gets_a_sign_that_it_is_its_turn(monkeypatch, how):
    signs = []

    def answer(sign):
        signs.append(sign)
        if len(signs) == 2:
            raise how
        return "one"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", answer)
    out = Terminal()
    assert list(chat.typed(out)) == ["one"] and signs == ["> ", "> "] and out.getvalue() == "\n"


# --- the command


def command(capfd, *words):
    """Exit code, output and complaints of a command."""
    try:
        code = cli.main(["chat", *map(str, words)])
    except SystemExit as stop:
        code = stop.code
    return code, *capfd.readouterr()


def test_a_pipe_and_the_option_say_the_same_and_a_notebook_too(tiny_base, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{question}\n" for question in ASKED)))
    piped = command(capfd, "--model", tiny_base, "--max-tokens", 10)
    options = [word for question in ASKED for word in ("--question", question)]
    given = command(capfd, "--model", tiny_base, "--max-tokens", "10", *options)
    assert piped == given and given[0] == 0 and given[2] == ""
    assert given[1].count("Question: ") == 3 and "\x1b" not in given[1]
    page = show.chat(tiny_base, ASKED, max_tokens=10)
    assert repr(page) + "\n" == given[1]
    assert command(capfd, "--model", tiny_base, "--max-tokens", 10, "--seed", 1, *options)[1] != given[1]


def test_a_bad_question_is_one_line_and_the_others_are_answered(tiny_base, monkeypatch, capfd):
    words = ["--model", tiny_base, "--max-tokens", 10]
    code, out, err = command(capfd, *words, "--question", "", "--question", ASKED[0])
    assert code == 2 and err == "r1repro: question '' is empty: ask something\n"
    assert out == command(capfd, *words, "--question", ASKED[0])[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f" \n{ASKED[0]}\n"))
    assert command(capfd, *words) == (2, out, "r1repro: question ' ' is empty: ask something\n")


def test_a_slip_of_the_hand_at_a_terminal_is_no_failure(tiny_base, monkeypatch, capfd):
    lines = iter([" ", ASKED[0], ""])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    code, out, err = command(capfd, "--model", tiny_base, "--max-tokens", 10)
    assert code == 0 and err.count("\n") == 1 and "Question" not in out and out.strip()


@pytest.mark.parametrize(
    "words, needed",
    [
        (["--model", "nowhere"], ["nowhere", "folder of a run"]),
        (["--temperature", "0"], ["temperature", "0"]),
        (["--temperature", "hot"], ["temperature", "'hot'", "number"]),
        (["--temperature", "NaN"], ["temperature", "finite"]),
        (["--top-p", "1.5"], ["top_p", "1.5"]),
        (["--max-tokens", "2.5"], ["max_tokens", "2.5", "whole"]),
        (["--max-tokens", "0"], ["max_tokens", "0"]),
        (["--max-tokens", "999999"], ["999999", "no room"]),
        (["--seed", "-1"], ["seed", "'-1'"]),
        (["--seed", "one"], ["seed", "'one'"]),
        (["--temprature", "1"], ["--temprature"]),
    ],
)
def test_a_wrong_command_is_answered_with_one_line(words, needed, tiny_base, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capfd, "--model", tiny_base, "--question", "1 + 1 =", *words)
    assert code == 2 and out == "" and err.startswith("r1repro: ") and err.count("\n") == 1, err
    assert all(word in err for word in needed), err


def test_the_help_says_that_each_question_stands_alone(capfd):
    assert "single turn" in command(capfd, "--help")[1]


def test_bytes_that_are_no_text_end_no_talk(tiny_base, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe 1 + 1\n")))
    code, out, _ = command(capfd, "--model", tiny_base, "--max-tokens", 3)
    assert code == 0 and out.startswith("Question: \ufffd\ufffd 1 + 1\n")
    undecodable = os.fsdecode(b"\xff")
    code, out, err = command(capfd, "--model", tiny_base, "--question", undecodable)
    assert code == 2 and out == "" and "UTF-8" in err and err.count("\n") == 1


# --- in a notebook


def tags(page):
    return {tag.lower() for tag in re.findall(r"<(\w+)", page)}


def words(page):
    """The text that a browser would show."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def test_thinking_is_folded_and_the_answer_below_it(tiny_base, monkeypatch):
    says(monkeypatch, RIGHT)
    page = show.chat(tiny_base, "12 + 30 =")
    assert re.search(
        r"<details><summary>thinking \(\d+ tokens\)</summary>.*12 \+ 30 = 42.*</details>.*answer: .*42", page.html
    )
    assert "Question: 12 + 30 =\nthinking (" in repr(page) and repr(page).endswith("\n42\n")


def test_nothing_that_a_model_wrote_becomes_html(tiny_base, monkeypatch):
    nasty = '<script>alert("x")</script><img src=x onerror=y>'
    says(monkeypatch, f"<think>{nasty}</think> </details>{nasty}", nasty, f"<think>{nasty}")
    page = show.chat(tiny_base, [f"<i>?</i>{nasty}", "?", "?"])
    assert tags(page.html) <= {"div", "i", "details", "summary", "span"}
    assert page.html.count("</details>") == 2 and words(page.html).count(nasty) == 5
    assert "onerror" not in "".join(re.findall(r"<[^>]*>", page.html))
    assert "the format is missing" in page.html and "the format is missing" in repr(page)


def test_a_bad_question_in_a_notebook_is_refused_before_any_is_sampled(tiny_base, monkeypatch):
    monkeypatch.setattr(chat.sampler, "sample", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(Refusal, match="question '' is empty"):
        show.chat(tiny_base, ["1 + 1 =", ""])
    with pytest.raises(Refusal, match="top_p is 2"):
        show.chat(tiny_base, ["1 + 1 ="], top_p=2.0)


def test_a_run_can_be_asked_in_a_notebook(trained):
    page = show.chat(trained, "1 + 1 =", max_tokens=5, seed=3)
    (output,) = chat.answers(models.newest(trained), ["1 + 1 ="], chat.settings(3, {"max_tokens": 5}))
    assert repr(page) == f"Question: 1 + 1 =\n{chat.told(output)}"
    assert json.dumps(page._repr_mimebundle_())
