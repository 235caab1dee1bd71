"""Prompts and outputs of tokenizers as models bring them: whose tag it is, which token ends a turn, what is never
written twice.  Tokenizers are real ones, of single characters and some special tokens."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

from r1repro import paper
from r1repro.engine import vocabulary
from r1repro.records import Refusal
from r1repro.run import write_json

LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]
SPECIAL = ["<|unk|>", "<|begin|>", "<|end|>", "<|turn|>", "<|user|>", "<|model|>"]
TURNS = (
    "{% for m in messages %}<|{{ 'user' if m.role == 'user' else 'model' }}|>\n{{ m.content }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|model|>\n{% endif %}"
)
PAST_STRIPPED = TURNS.replace("m.content", "m.content.split('</think>')[-1].lstrip()")
PREFILLED = TURNS.replace("<|model|>\n{% endif %}", "<|model|>\n<think>\n{% endif %}")
UNTHINKING = TURNS.replace("<|model|>\n{% endif %}", "<|model|>\n<think>\n\n</think>\n\n{% endif %}")
BEGUN = "{{ bos_token }}" + TURNS
DATED = "Today: {% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%s') }}{% endif %}" + TURNS
THOUGHT = "<think>\n1 and 1.\n</think>\n\n2"


def made(folder, template=None, *, tags=(), begin=False, behind=False, bos="<|begin|>", about=None, **special):
    """A tokenizer saved in a folder.

    Args:
        tags: those of the think tags that are tokens, and whether they are special ones.
        begin: whether it puts a BOS token before a text; behind: an end token behind it.
    """
    names = [*SPECIAL, *LETTERS]
    ids = {name: i for i, name in enumerate(names)}
    backend = Tokenizer(vocabularies.WordLevel(ids, unk_token="<|unk|>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    for tag, is_special in tags:
        backend.add_tokens([AddedToken(tag, special=is_special, normalized=False)])
    if begin or behind:
        single = " ".join(["<|begin|>"] * begin + ["$A"] + ["<|end|>"] * behind)
        backend.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(name, ids[name]) for name in ("<|begin|>", "<|end|>")]
        )
    special = {"bos_token": bos, "eos_token": "<|end|>", "unk_token": "<|unk|>"} | special
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in special.items() if v})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", {"vocab_size": len(tokenizer)} | (about or {}))
    return folder


def asked(words, question="1+1?"):
    """The prompt as text, special tokens shown."""
    return words.tokenizer.decode(words.prompt(question))


def trained(words, text):
    return words.tokenizer.decode(words.output(text))


def id_of(name):
    return SPECIAL.index(name)


@pytest.mark.parametrize("template", [TURNS, PAST_STRIPPED], ids=["plain", "drops past thinking"])
def test_thinking_is_trained_on_whatever_the_template_does_to_past_turns(tmp_path, template):
    words = vocabulary.of(made(tmp_path, template), "chat")
    assert asked(words) == "<|user|>\n1+1?<|turn|>\n<|model|>\n"
    assert trained(words, THOUGHT) == f"{THOUGHT}<|turn|>"
    assert words.text(words.output(THOUGHT)) == THOUGHT


def test_a_prefilled_tag_is_the_templates_and_not_the_models(tmp_path):
    """It is not trained on, it is shown, and nothing that the model writes after it is lost."""
    words = vocabulary.of(made(tmp_path, PREFILLED), "chat")
    assert asked(words).endswith("<|model|>\n<think>\n") and words.opening == "<think>\n"
    assert trained(words, THOUGHT) == "1 and 1.\n</think>\n\n2<|turn|>"
    assert words.text(words.output(THOUGHT)) == THOUGHT
    assert (asked(words) + trained(words, THOUGHT)).count("<think>") == 1


def test_an_answer_without_thinking_closes_the_prefilled_tag(tmp_path):
    words = vocabulary.of(made(tmp_path, PREFILLED), "chat")
    assert asked(words) + trained(words, "2") == "<|user|>\n1+1?<|turn|>\n<|model|>\n<think>\n\n</think>\n\n2<|turn|>"


def test_a_template_that_forbids_thinking_is_not_followed_in_that(tmp_path):
    words = vocabulary.of(made(tmp_path, UNTHINKING), "chat")
    assert asked(words).endswith("<|model|>\n") and words.opening == ""
    assert trained(words, THOUGHT) == f"{THOUGHT}<|turn|>"
    assert words.prompt("so <think></think>") != words.prompt("so ") and asked(words, "<think></think>").count(
        "<think>"
    )


def test_tags_that_a_template_only_speaks_of_are_no_prefill(tmp_path):
    words = vocabulary.of(made(tmp_path, "Think in <think> and </think>.\n" + TURNS), "chat")
    assert words.opening == "" and asked(words).startswith("Think in <think> and </think>.\n<|user|>")


@pytest.mark.parametrize("template", [None, ""])
def test_without_a_template_chat_is_refused_and_the_papers_is_not(tmp_path, template):
    folder = made(tmp_path, template)
    with pytest.raises(Refusal, match="no chat template: set policy.template=r1_zero"):
        vocabulary.of(folder, "chat")
    words = vocabulary.of(folder)
    assert asked(words) == paper.template("1+1?") and trained(words, " 2 ") == " 2<|end|>"


@pytest.mark.parametrize("template", ["{{ raise_exception('two\nlines') }}", "{% if %}", "{{ messages.x.y }}"])
def test_a_template_that_fails_is_refused_in_one_line(tmp_path, template):
    with pytest.raises(Refusal, match="chat template of the model at .* cannot be used .*r1_zero") as refusal:
        vocabulary.of(made(tmp_path, template), "chat")
    assert "\n" not in str(refusal.value)


def test_the_turns_end_is_trained_and_both_ends_end_an_output(tmp_path):
    """Qwen2.5: the tokenizer's own end is that of a text, the template's that of a turn."""
    words = vocabulary.of(made(tmp_path, TURNS), "chat")
    assert words.end == id_of("<|turn|>") and words.ends == (id_of("<|turn|>"), id_of("<|end|>"))
    assert vocabulary.of(tmp_path).end == id_of("<|end|>") and vocabulary.of(tmp_path).ends == (id_of("<|end|>"),)


@pytest.mark.parametrize("after", [" <|turn|>\n", "\n<|turn|>"])
def test_space_before_the_turns_end_does_not_hide_it(tmp_path, after):
    words = vocabulary.of(made(tmp_path, TURNS.replace("<|turn|>\n", after)), "chat")
    assert words.end == id_of("<|turn|>")


def test_a_template_that_ends_turns_with_words_or_drops_them_leaves_the_models_end(tmp_path):
    for template in (TURNS.replace("<|turn|>", "."), "<|begin|>{{ messages[0].content }}"):
        assert vocabulary.of(made(tmp_path, template), "chat").end == id_of("<|end|>")


def test_every_end_of_the_generation_settings_counts(tmp_path):
    folder = made(tmp_path, about={"eos_token_id": id_of("<|end|>")})
    write_json(folder / "generation_config.json", {"eos_token_id": [id_of("<|turn|>"), id_of("<|user|>")]})
    words = vocabulary.of(folder)
    assert words.ends == tuple(map(id_of, ("<|end|>", "<|turn|>", "<|user|>")))
    assert words.text([*words.output("2")[:-1], id_of("<|user|>")]) == " 2"


def test_without_any_end_a_model_is_refused_unless_its_configuration_names_one(tmp_path):
    with pytest.raises(Refusal, match="no end token: name an eos_token"):
        vocabulary.of(made(tmp_path, eos_token=None))
    assert vocabulary.of(made(tmp_path, eos_token=None, about={"eos_token_id": 3})).end == 3


def test_a_missing_pad_is_borrowed_from_the_end(tmp_path):
    assert vocabulary.of(made(tmp_path)).pad == id_of("<|end|>")
    assert vocabulary.of(made(tmp_path, pad_token="<|unk|>")).pad == id_of("<|unk|>")


@pytest.mark.parametrize("is_special", [True, False])
def test_tags_that_are_tokens_are_whole_and_shown(tmp_path, is_special):
    tags = [(tag, is_special) for tag in ("<think>", "</think>")]
    for template in (TURNS, PREFILLED):
        words = vocabulary.of(made(tmp_path, template, tags=tags), "chat")
        ids = words.output(THOUGHT)
        assert words.tokenizer.convert_tokens_to_ids("</think>") in ids
        assert (words.tokenizer.convert_tokens_to_ids("<think>") in ids) == (template is TURNS)
        assert words.text(ids) == THOUGHT


@pytest.mark.parametrize("template", [TURNS, BEGUN])
def test_a_first_token_stands_once(tmp_path, template):
    """Llama: the tokenizer puts it before every text, and the chat template writes it too."""
    folder = made(tmp_path, template, begin=True)
    chat, plain = vocabulary.of(folder, "chat"), vocabulary.of(folder)
    assert chat.prompt("q").count(id_of("<|begin|>")) == (template is BEGUN)
    assert plain.prompt("q").count(id_of("<|begin|>")) == 1 and plain.prompt("q")[0] == id_of("<|begin|>")
    for words in (chat, plain):
        assert id_of("<|begin|>") not in words.output(THOUGHT)


def test_a_tokenizer_that_ends_every_text_does_not_end_a_prompt(tmp_path):
    words = vocabulary.of(made(tmp_path, begin=True, behind=True))
    assert asked(words) == "<|begin|>" + paper.template("1+1?")
    assert trained(words, "2") == " 2<|end|>"


@pytest.mark.parametrize("text", ["2<|turn|>", "<|begin|>2", "2<|end|><|turn|>\n", "2<|user|>"])
def test_what_another_model_left_in_its_text_does_not_end_an_output_early(tmp_path, text):
    words = vocabulary.of(made(tmp_path, TURNS), "chat")
    assert trained(words, text) == "2<|turn|>"


def test_a_prompt_does_not_depend_on_the_day(tmp_path):
    assert asked(vocabulary.of(made(tmp_path, DATED), "chat")).startswith(f"Today: {vocabulary.DAY}<|user|>")


@pytest.mark.parametrize("template", ["r1_zero", "chat"])
def test_many_at_once_are_what_they_are_alone(tmp_path, template):
    words = vocabulary.of(made(tmp_path, PREFILLED, begin=True), template)
    texts = [THOUGHT, "2", "", "<think>\n</think> 3", "x" * 300]
    pairs = words.pairs([f"q{i}" for i in range(5)], texts)
    assert pairs == [(words.prompt(f"q{i}"), words.output(text)) for i, text in enumerate(texts)]
    assert words.pairs([], []) == []


def test_a_vocabulary_is_known_by_all_that_it_depends_on(tmp_path):
    digests = [vocabulary.of(made(tmp_path, template), "chat").digest() for template in (TURNS, BEGUN, TURNS)]
    assert digests[0] == digests[2] != digests[1]
    assert vocabulary.of(tmp_path).digest() not in digests
    tagged = made(tmp_path, TURNS, tags=[("<think>", False)])
    assert vocabulary.of(tagged, "chat").digest() not in digests
