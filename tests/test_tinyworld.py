"""The tiny world: true solutions, mistakes that are found, splits that do not touch, a tokenizer that never changes."""

import json
import random
import re
import shutil
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1repro import paper
from r1repro.records import Refusal
from r1repro.tinyworld import arithmetic, base, corpus, tokenizer

LEVELS = st.sampled_from(sorted(arithmetic.LEVELS))
LANGUAGES = st.sampled_from(["en", "zh"])
NUM_DOCUMENTS = 3000


@pytest.fixture(scope="module")
def documents():
    return [corpus.document(0, index) for index in range(NUM_DOCUMENTS)]


def solve(question, depth, error_rate=0.0, seed=0, language=None):
    expression = corpus.expression_of(question.text)
    return arithmetic.solve(expression, depth, language or (lambda: question.language), error_rate, random.Random(seed))


# --- questions


@given(LEVELS, LANGUAGES, st.sampled_from(arithmetic.SPLITS), st.integers(0, 10**6))
def test_a_question_is_what_was_asked_for(level, language, split, key):
    question = arithmetic.draw(split, level, language, key)
    expression = corpus.expression_of(question.text)
    terms, digits = arithmetic.LEVELS[level]
    numbers = re.findall(r"\d+", expression)
    assert len(numbers) == terms and {len(n) for n in numbers} == {digits}
    assert str(eval(expression)) == question.gold  # noqa: S307 (digits and signs alone, by the line above)
    assert (question.level, question.language) == (level, language)
    assert bool(re.search(r"[一-鿿]", question.text)) == (language == "zh")
    assert arithmetic.split_of(question.id) == split
    sums = arithmetic.running_sums(expression)
    assert min(sums) >= 0 and sums[-1] == int(question.gold)


def test_a_question_has_one_identity_in_both_languages():
    for key in range(50):
        english, chinese = (arithmetic.draw("train", 2, language, key) for language in ("en", "zh"))
        assert english.id == chinese.id and english.gold == chinese.gold and english.text != chinese.text
    assert arithmetic.canonical_id("5 + 7") == arithmetic.canonical_id("5+7") != arithmetic.canonical_id("7+5")


def test_splits_are_by_hash_and_have_their_shares():
    sums = [f"{a}+{b}" for a in range(10, 100) for b in range(10, 100)]
    shares = Counter(arithmetic.split_of(arithmetic.canonical_id(e)) for e in sums)
    assert shares["train"] / 8100 == pytest.approx(0.8, abs=0.02)
    assert shares["validation"] / 8100 == pytest.approx(0.1, abs=0.02)
    assert shares["test"] / 8100 == pytest.approx(0.1, abs=0.02)
    assert arithmetic.split_of("00000000ffffffff") == "test" and arithmetic.split_of("00000001ffffffff") == "validation"


# --- solutions


@given(LEVELS, LANGUAGES, st.sampled_from([0, 1, 2, 3]), st.integers(0, 10**6))
def test_without_errors_every_depth_is_right(level, language, depth, key):
    question = arithmetic.draw("train", level, language, key)
    text, answer = solve(question, depth)
    assert str(answer) == question.gold
    assert question.gold in text
    assert arithmetic.depth_of(text) == arithmetic.DEPTHS[depth]


@given(LEVELS, st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 10**6), st.integers(0, 100))
def test_checking_mends_every_error(level, error_rate, key, seed):
    question = arithmetic.draw("train", level, "en", key)
    text, answer = solve(question, 3, error_rate, seed)
    assert str(answer) == question.gold
    assert text.count("mistake") == text.count("again")


@pytest.mark.parametrize("depth", [1, 2])
def test_unchecked_errors_are_carried_to_the_answer(depth):
    wrong = 0
    for key in range(200):
        question = arithmetic.draw("train", 3, "en", key)
        text, answer = solve(question, depth, 1.0, key)
        wrong += str(answer) != question.gold
        assert str(answer) in text
    assert wrong > 150


def test_at_depth_3_an_error_is_found_whenever_one_is_made():
    found = sum("mistake" in solve(arithmetic.draw("train", 1, "en", key), 3, 1.0, key)[0] for key in range(200))
    assert found > 180
    assert "mistake" not in solve(arithmetic.draw("train", 5, "en", 0), 3)[0]


def untrue(text):
    """The equations in a worked solution that do not hold; a borrowed or carried digit holds modulo ten."""
    faults = []
    for left, right, mark in re.findall(r"(?<![\d=])([\d+-]+)=(-?\d+)( ?(?:carry|borrow|进|借))?", text):
        value = eval(left)  # noqa: S307 (digits and signs alone)
        if "borrow" in mark or "借" in mark:
            good = value < 0 and value + 10 == int(right)
        elif mark:
            good = value > 9 and value == int(right)
        else:
            good = value == int(right)
        if not good:
            faults.append(f"{left}={right}{mark}")
    return faults


@given(LEVELS, LANGUAGES, st.sampled_from([1, 2, 3]), st.integers(0, 10**6))
def test_without_errors_every_line_is_true(level, language, depth, key):
    question = arithmetic.draw("train", level, language, key)
    text, _ = solve(question, depth)
    assert untrue(text) == []
    equations = len(re.findall("=", text))
    terms, digits = arithmetic.LEVELS[level]
    assert equations >= (terms - 1) * (1 if depth == 1 else digits)


def test_an_untrue_line_is_seen():
    assert untrue("57+87: 7+7=14 carry, 5+8+1=14, so 144. 144-90: 4-0=4, 4-9=5 borrow, 1-0-1=0, so 54.") == []
    assert untrue("first 57+87=145, then 145-1=144.") == ["57+87=145"]
    assert untrue("7+7=14借") == ["7+7=14借"] and untrue("7+7=4 carry") == ["7+7=4 carry"]


@given(LEVELS, st.sampled_from([1, 2, 3]), st.integers(0, 10**4))
def test_a_solution_is_in_the_language_asked_for_line_by_line(level, depth, key):
    question = arithmetic.draw("train", level, "en", key)
    chinese = r"[一-鿿]"
    english, other = solve(question, depth)[0], solve(question, depth, language=lambda: "zh")[0]
    assert not re.search(chinese, english) and re.search("[a-z]", english)
    assert not re.search("[a-z]", other) and re.search(chinese, other)
    if level > 1:
        turns = iter(["en", "zh"] * 50)
        mixed = solve(question, depth, language=lambda: next(turns))[0]
        assert re.search(chinese, mixed) and re.search("[a-z]", mixed)


# --- corpus


def test_a_document_is_a_function_of_seed_and_index(documents):
    assert [corpus.document(0, i) for i in range(50)] == documents[:50]
    assert corpus.document(1, 0) != documents[0]
    assert len(set(documents)) > 0.95 * len(documents)


def test_mix_sums_to_one():
    for what, shares in [*corpus.MIX.items(), *corpus.DEPTH.items()]:
        assert sum(shares.values()) == pytest.approx(1), what


def parts(documents):
    """Documents by shape, told from their text alone."""
    prose = {line for line in (tokenizer.ASSETS / "families.txt").read_text(encoding="utf-8").splitlines()}
    start = paper.template("").partition(":")[0]
    shapes = {"template": [], "dialogue": [], "prose": [], "exercise": [], "drill": []}
    for text in documents:
        asks = "arithmetic problem: " in text or "最终答案：" in text
        shape = (
            "template" if text.startswith(start)
            else "prose" if text in prose
            else "dialogue" if text.startswith("User: ")
            else "exercise" if asks
            else "drill"
        )  # fmt: skip
        shapes[shape].append(text)
    return shapes


def near(count, total, share):
    """Whether a count is within four standard deviations of its share."""
    return abs(count / total - share) < 4 * (share * (1 - share) / total) ** 0.5 + 1e-9


def test_shapes_have_the_shares_that_are_told(documents):
    for shape, texts in parts(documents).items():
        assert near(len(texts), len(documents), corpus.MIX["shape"][shape]), (shape, len(texts))


def asked(documents):
    shapes = parts(documents)
    return [text for shape in ("template", "dialogue", "exercise") for text in shapes[shape]]


def question_of(text):
    """(terms, solution) of a document with a question."""
    expression = re.search(r"(?:problem: |最终答案：)([\d +-]+) =", text)[1]
    solution = text.split(f"{expression} =", 1)[1]
    return [int(n) for n in re.findall(r"\d+", expression)], solution


def test_levels_and_depths_have_the_shares_that_are_told(documents):
    texts, levels, depths = asked(documents), Counter(), Counter()
    shapes = {shape: level for level, shape in arithmetic.LEVELS.items()}
    for text in texts:
        numbers, solution = question_of(text)
        level = shapes[len(numbers), len(str(numbers[0]))]
        levels[level] += 1
        depths[level, arithmetic.depth_of(solution)] += 1
    for level, share in corpus.MIX["level"].items():
        assert near(levels[level], len(texts), share), (level, levels)
        for depth, share in corpus.DEPTH[level].items():
            assert near(depths[level, arithmetic.DEPTHS[depth]], levels[level], share), (level, depth, depths)


def test_languages_of_the_solutions_have_the_shares_that_are_told():
    """Of solutions of several lines: wholly in the other language, or with lines of both."""
    frame = r"</?(?:think|answer)>|The answer is|Answer|Solution|Assistant|答案是?|^\n?解："
    count, told = Counter(), corpus.MIX["language"]
    for text in asked(corpus.document(1, index) for index in range(9000)):
        numbers, solution = question_of(text)
        if len(numbers) > 2 and arithmetic.depth_of(solution) != "answer_at_once":
            solution = re.sub(frame, "", solution)
            english, chinese = re.search("[a-z]", solution), re.search("[一-鿿]", solution)
            own = chinese if "最终答案：" in text else english
            count["mixed" if english and chinese else "own" if own else "other"] += 1
    total = count.total()
    assert total > 1500
    assert 0.5 * told["mixed"] < count["mixed"] / total < 1.1 * told["mixed"], count
    assert 0.7 * told["other"] < count["other"] / total < told["other"] + 0.5 * told["mixed"], count


def test_tags_of_the_template_have_the_shares_that_are_told(documents):
    replies = [text.split("Assistant:")[-1] for text in parts(documents)["template"]]
    count = Counter(
        "both" if "</think>" in reply else "unclosed" if "<think>" in reply else "none" for reply in replies
    )
    for kind, share in corpus.MIX["tags"].items():
        assert near(count[kind], len(replies), share), (kind, count)


def test_errors_have_the_shares_that_are_told(documents):
    made, additions = Counter(), Counter()
    for text in asked(documents):
        numbers, solution = question_of(text)
        depth = arithmetic.DEPTHS.index(arithmetic.depth_of(solution))
        additions[depth] += len(numbers) - 1
        if depth == 1:
            made[1] += len(untrue(solution))
        if depth == 3:
            made[3] += len(re.findall("mistake|有错误", solution))
    assert near(made[1], additions[1], corpus.ERROR_RATE[1]), (made, additions)
    assert made[3] / additions[3] == pytest.approx(corpus.ERROR_RATE[3], abs=0.06), (made, additions)


def held_out(expression):
    """Whether some text is a question that was kept out of training."""
    numbers = re.findall(r"\d+", expression)
    shape = (len(numbers), len(numbers[0]))
    a_question = {len(n) for n in numbers} == {shape[1]} and shape in arithmetic.LEVELS.values()
    return a_question and arithmetic.split_of(arithmetic.canonical_id(expression)) != "train"


def test_no_question_kept_for_tests_is_asked_in_the_corpus(documents):
    seen = [e for text in documents for e in re.findall(r"\d+(?: [+-] \d+)+", text)]
    assert len(seen) > 0.6 * len(documents)
    assert [e for e in seen if held_out(e)] == []


def test_no_question_kept_for_tests_is_worked_in_the_corpus(documents):
    """Neither as a line of a longer sum, nor as its beginning, nor as a check."""
    chains = [e for text in documents for e in re.findall(r"(?<![\d+-])\d+(?: ?[+-] ?\d+)+", text)]
    beginnings = [re.match(rf"\d+(?: ?[+-] ?\d+){{{n}}}(?!\d)", e) for e in chains for n in (1, 2, 3, 4)]
    assert sum(b is not None for b in beginnings) > 10_000
    assert [b[0] for b in beginnings if b and held_out(b[0])] == []
    assert not any(map(arithmetic.holds_held_out, documents))


@given(LEVELS, LANGUAGES, st.integers(0, 10**6))
def test_no_training_question_contains_one_that_is_held_out(level, language, key):
    question = arithmetic.draw("train", level, language, key)
    assert not arithmetic.holds_held_out(question.text)
    assert not arithmetic.holds_held_out(solve(question, 3)[0])


@given(LEVELS, st.sampled_from(["validation", "test"]), st.integers(0, 10**6))
def test_a_held_out_question_is_seen_in_a_text(level, split, key):
    expression = corpus.expression_of(arithmetic.draw(split, level, "en", key).text)
    for text in (expression, f"first {expression}=7", f"{expression} + 1234", expression.replace(" ", "") + "-5: "):
        assert arithmetic.holds_held_out(text)
    assert not arithmetic.holds_held_out(f"1234 + {expression}")


def test_the_texts_of_a_step_are_a_function_of_it():
    texts = corpus.texts(0, 3, 600)
    assert texts == corpus.texts(0, 3, 600) != corpus.texts(0, 4, 600)
    assert 300 < sum(map(len, texts)) <= 600 and corpus.texts(0, 3, 1200)[: len(texts)] == texts
    assert tokenizer.load().decode(texts[0]) == corpus.document(0, 3000) + tokenizer.END


def test_a_document_longer_than_a_step_is_read_whole():
    (text,) = corpus.texts(0, 3, 1)
    assert tokenizer.load().decode(text) == corpus.document(0, 3000) + tokenizer.END


# --- tokenizer

FROZEN = "6a19648f3edf6f5fa1e7d9a8c76e463bbe885331e05cf5c79798ef301ff234ed"
"""Every base model and every figure rests on this tokenizer: a new hash makes all of them anew."""


def encode(text):
    return tokenizer.load().encode(text)


def test_the_tokenizer_is_frozen():
    assert tokenizer.digest() == FROZEN


def test_the_tokenizer_can_be_built_anew():
    committed = json.loads((tokenizer.ASSETS / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(tokenizer.build().to_str()) == committed


@given(st.text())
def test_any_text_comes_back(text):
    if any(mark in text for mark in (tokenizer.END, tokenizer.PAD)):
        return
    ids = encode(text)
    assert tokenizer.load().decode(ids) == text
    assert max(ids, default=0) < tokenizer.VOCABULARY


@pytest.mark.parametrize(
    "text",
    ["", " ", "a  b\t\n\r\n c", "😀 é ß ñ", "检查，等等。", "\x00\x7f", "<think>", "x = 3*y**2 % 7", "\\boxed{4/2}"],
)
def test_awkward_text_comes_back(text):
    assert tokenizer.load().decode(encode(text)) == text


@given(
    st.integers(0, 10**12),
    st.sampled_from(["{}", "{}+{}=", "{} + {} =", "first {}", "，{}。", "<answer> {} </answer>"]),
)
def test_digits_stand_single(number, frame):
    tokens = tokenizer.load().convert_ids_to_tokens(encode(frame.format(number, number)))
    assert [t for t in tokens if re.search(r"\d", t)] == list(str(number)) * frame.count("{}")


@pytest.mark.parametrize("tag", tokenizer.TAGS)
@pytest.mark.parametrize("frame", ["{}", "a{}b", " {} ", "检{}查", "1{}2"])
def test_tags_are_whole_and_stay_in_the_text(tag, frame):
    ids = encode(frame.format(tag))
    assert tokenizer.load().convert_tokens_to_ids(tag) in ids
    assert tokenizer.load().decode(ids, skip_special_tokens=True) == frame.format(tag)


def test_words_of_the_template_are_whole():
    template = paper.template("")
    pieces = re.findall(r"</?[a-z]+>| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s", template)
    assert "".join(pieces) == template
    assert len(encode(template)) <= len(pieces)


def test_words_of_the_solutions_are_whole():
    for language, words in (("en", 1.0), ("zh", 1.0)):
        text = " ".join(solve(arithmetic.draw("train", 5, language, key), 3, 0.5, key)[0] for key in range(20))
        pieces = re.findall(r" ?[A-Za-z]+|[一-鿿]|\d|[^A-Za-z\d一-鿿]", text)
        assert len(encode(text)) <= words * len(pieces)


def test_the_vocabulary_is_small_and_leaves_room():
    vocabulary = tokenizer.load().get_vocab()
    assert len(vocabulary) == tokenizer.VOCABULARY <= 1024
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert sum(bool(re.fullmatch(r"<\|reserved_\d+\|>", word)) for word in vocabulary) == 64
    assert all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))


@pytest.mark.parametrize("mark", [tokenizer.END, tokenizer.PAD, "<|reserved_0|>"])
def test_control_tokens_are_left_out_of_texts(mark):
    assert tokenizer.load().decode(encode(f"a{mark}b"), skip_special_tokens=True) == "ab"


# --- base


def test_the_digest_of_a_base_covers_weights_and_configuration(tmp_path, tiny_base):
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    first = base.digest(folder)
    for name in ("model.safetensors", "config.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert base.digest(folder) != first, name
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("nothing to do with it")
    assert base.digest(folder) == first


def test_the_digest_of_a_checkpoint_is_that_of_its_policy(tmp_path, tiny_base):
    """The optimiser beside it, or a run below it, makes no other model."""
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    first = base.digest(folder)
    (folder / "optimizer.safetensors").write_bytes(b"moments")
    (folder / "below").mkdir()
    (folder / "below" / "config.json").write_text("{}")
    assert base.digest(folder) == first


def test_a_new_model_is_a_function_of_its_seed(monkeypatch):
    monkeypatch.setitem(
        base.SHAPES, "test", dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    one, same, other = (base.new("test", seed).state_dict() for seed in (0, 0, 1))
    assert all(one[name].equal(same[name]) for name in one)
    assert any(not one[name].equal(other[name]) for name in one)
    assert base.new("test", 0).config.eos_token_id == tokenizer.load().eos_token_id


def test_an_unknown_base_is_refused():
    with pytest.raises(Refusal, match="no base model called 'huge': choose one of tiny-1m"):
        base.new("huge", 0)
