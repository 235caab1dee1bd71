"""The tiny world: true solutions, mistakes that are found, splits that do not touch, a tokenizer that never changes."""

import dataclasses
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
from r1repro.tinyworld import arithmetic, base, corpus, families, general, safety, tokenizer

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


def test_shares_sum_to_one_and_chances_are_chances():
    tables = [corpus.MIX, corpus.LEVEL, corpus.DEPTH["chain_sum"], corpus.TONGUE]
    depths = {family: shares for family, shares in corpus.DEPTH.items() if family != "chain_sum"}
    for what, shares in (item for table in (*tables, depths) for item in table.items()):
        assert sum(shares.values()) == pytest.approx(1), what
    assert set(corpus.MIX["family"]) == set(families.ALL) and set(corpus.DEPTH) == set(families.REASONING)
    assert set(corpus.DEPTH["chain_sum"]) == set(corpus.LEVEL["chain_sum"]) == set(arithmetic.LEVELS)
    manner = dataclasses.astuple(corpus.MANNER)
    for chance in (*corpus.ERROR_RATE.values(), *corpus.REFUSES.values(), *manner, corpus.LEAKS):
        assert 0 < chance < 1


START = paper.template("").partition(":")[0]
PROSE = set((tokenizer.ASSETS / "families.txt").read_text(encoding="utf-8").splitlines())
ASKED = {
    "chain_sum": "State the final|请给出下面",
    "search": "What numbers from|从",
    "logic": "What is right|哪个",
    "programs": "Make a program|写程序",
    "general": "What is (?:the|your)|What are|Who|Use|Make a list|Translate|Hello|Good|Thank|[用列翻小汤你早晚谢]|再见",
    "safety": "How|Please|怎么|请告诉|请帮",
}
DRILLED = {
    "chain_sum": r"\d+ [+-]|\d+[+-]\d+[:：]|first|先",
    "search": r"\d(?:, \d)+: \d+\n",
    "logic": r"A\) |(?:not |不是)?\d<\d",
    "programs": r"\d+-\d+=|\d \* \d=|so |所以",
}
OWN_SHAPE = {"chain_sum": "shape", "general": "open_shape", "safety": "open_shape"}


def told(text):
    """(family, shape) of a document, told from its text alone."""
    if text in PROSE:
        return "chain_sum", "prose"
    shape = "template" if text.startswith(START) else "dialogue" if text.startswith("User: ") else "exercise"
    body = re.sub("^(?s:.*User: )|^Question: |^题目：", "", text)
    asked = [family for family, begins in ASKED.items() if re.match(begins, body)]
    drilled = [family for family, begins in DRILLED.items() if re.match(begins, text)]
    (found,) = [(family, shape) for family in asked] + [(family, "drill") for family in drilled]
    return found


def near(count, total, share):
    """Whether a count is within four standard deviations of its share."""
    return abs(count / total - share) < 4 * (share * (1 - share) / total) ** 0.5 + 1e-9


def of_family(documents, *families):
    """Documents that ask a question of some families."""
    kinds = [(text, *told(text)) for text in documents]
    return [text for text, family, shape in kinds if family in families and shape not in ("prose", "drill")]


def asked(documents):
    return of_family(documents, "chain_sum")


def test_families_and_shapes_have_the_shares_that_are_told(documents):
    kinds = [told(text) for text in documents]
    for family, share in corpus.MIX["family"].items():
        assert near(sum(f == family for f, _ in kinds), len(documents), share), family
    for name in ("shape", "other_shape", "open_shape"):
        count = Counter(shape for family, shape in kinds if OWN_SHAPE.get(family, "other_shape") == name)
        assert set(count) == set(corpus.MIX[name])
        for shape, share in corpus.MIX[name].items():
            assert near(count[shape], count.total(), share), (name, shape, count)


def question_of(text):
    """(terms, solution) of a document with a chain sum."""
    expression = re.search(r"(?:problem: |最终答案：)([\d +-]+) =", text)[1]
    solution = text.split(f"{expression} =", 1)[1]
    return [int(n) for n in re.findall(r"\d+", expression)], solution


def test_levels_and_depths_of_sums_have_the_shares_that_are_told(documents):
    texts, levels, depths = asked(documents), Counter(), Counter()
    shapes = {shape: level for level, shape in arithmetic.LEVELS.items()}
    for text in texts:
        numbers, solution = question_of(text)
        level = shapes[len(numbers), len(str(numbers[0]))]
        levels[level] += 1
        depths[level, arithmetic.depth_of(solution)] += 1
    for level, share in corpus.LEVEL["chain_sum"].items():
        assert near(levels[level], len(texts), share), (level, levels)
        for depth, share in corpus.DEPTH["chain_sum"][level].items():
            assert near(depths[level, arithmetic.DEPTHS[depth]], levels[level], share), (level, depth, depths)


ONE_LEVEL = {
    "search": r"(?:list |从)\d, \d, \d(?!,)",
    "logic": r"^(?!.*D\) )",
    "programs": r"def f\(x\): return x \* x",
    "general": "Translate|翻译",
    "safety": f"(?<!这会)(?:{'|'.join([*safety.HARMFUL, *safety.HARMFUL.values()])})",  # not the reason of a refusal
}
"""What is seen of the documents of just one level."""


@pytest.mark.parametrize("family", ONE_LEVEL)
def test_levels_have_equal_shares_elsewhere(documents, family):
    texts = of_family(documents, family)
    found = sum(re.search(ONE_LEVEL[family], text, re.DOTALL) is not None for text in texts)
    assert near(found, len(texts), 1 / len(families.levels(family))), (found, len(texts))


def first_of(family, text):
    """(what is looked at first in a solution, what is the first to be looked at): the former is None at depth 0."""
    if family == "search":
        return (re.findall(r"(\d)\+(\d)=", text) or [None])[0], re.search(r"(?:list |从)(\d), (\d)", text).groups()
    return (re.findall(r"([A-D])\) (?:not |不是)?\d[<>]\d(?: ?right| ?wrong|正确|不对)", text) or [None])[0], "A"


@pytest.mark.parametrize("family, sizes", [("search", (3, 6, 10)), ("logic", (3, 4, 4, 4))])
def test_depths_of_search_and_logic_have_the_shares_that_are_told(documents, family, sizes):
    """Who does not begin with the first looks at a few alone; some of those that do begin with it by chance."""
    texts, (at_once, some, _) = of_family(documents, family), corpus.DEPTH[family].values()
    firsts = [first_of(family, text) for text in texts]
    assert near(sum(looked is None for looked, _ in firsts), len(texts), at_once)
    elsewhere = some * (1 - sum(1 / size for size in sizes) / len(sizes))
    assert near(sum(looked not in (None, first) for looked, first in firsts), len(texts), elsewhere)


def depth_of_program(text):
    marks = {3: "check|检查", 2: r"\d \* \d+=", 1: r"\d-\d+="}
    return next((depth for depth, mark in marks.items() if re.search(mark, text)), 0)


def test_depths_of_programs_have_the_shares_that_are_told(documents):
    texts = of_family(documents, "programs")
    count = Counter(map(depth_of_program, texts))
    for depth, share in corpus.DEPTH["programs"].items():
        assert near(count[depth], len(texts), share), (depth, count)


def lines_of(text):
    """(depth, lines whose language can be seen, solution) of a document with a sum or a program."""
    if "f(" in text:
        depth, again = depth_of_program(text), len(re.findall("mistake|有错误", text))
        return depth, max(depth, 1) + 2 * again, re.split(r"f\(\d+\)=\d+", text)[-1].partition("def f")[0]
    numbers, solution = question_of(text)
    depth = arithmetic.DEPTHS.index(arithmetic.depth_of(solution))
    return depth, len(numbers) - 1 if depth else 1, solution


def test_languages_of_the_solutions_have_the_shares_that_are_told(documents):
    """Wholly in the other language, or with lines of both; what is mixed may by chance show one language alone."""
    frame = r"</?(?:think|answer)>|The answer is|Answer|Solution|Assistant|答案是?|解："
    seen, wanted, variance = Counter(), Counter(), Counter()
    for text in of_family(documents, "chain_sum", "programs"):
        depth, lines, solution = lines_of(text)
        solution = re.sub(frame, "", solution)
        english, chinese = re.search("[a-z]{2}", solution), re.search("[一-鿿]", solution)
        own = chinese if re.search("最终答案：|写程序", text) else english
        kind = "worked" if depth >= 2 else "plain"
        seen[kind, "mixed" if english and chinese else "own" if own else "other"] += 1
        told, alike = corpus.TONGUE[kind], 0.5 ** (lines - 1)
        for what, chance in {
            "mixed": told["mixed"] * (1 - alike),
            "other": told["other"] + told["mixed"] * alike / 2,
        }.items():
            wanted[kind, what] += chance
            variance[kind, what] += chance * (1 - chance)
    assert min(wanted.values()) > 5
    for key, count in wanted.items():
        assert abs(seen[key] - count) < 4 * variance[key] ** 0.5, (key, seen, wanted)


def test_tags_of_the_template_have_the_shares_that_are_told(documents):
    replies = [text.split("Assistant:")[-1] for text in documents if told(text)[1] == "template"]
    count = Counter(
        "both" if "</think>" in reply else "unclosed" if "<think>" in reply else "none" for reply in replies
    )
    for kind, share in corpus.MIX["tags"].items():
        assert near(count[kind], len(replies), share), (kind, count)


def judged_lines(text):
    """(language, whether it is right) of the first writing of each line that may go wrong: of a sum, or a try."""
    for word, left, right in re.findall(r"(first|then|先|再) ?(\d+[+-]\d+)=(\d+)", text):
        yield "en" if word.isascii() else "zh", eval(left) == int(right)  # noqa: S307 (digits and signs alone)
    new = r"(?<!\d)(?<!check )(?<!检查)(?<!again: )(?<!重新算：)"
    for left, colon, right in re.findall(rf"{new}(\d+[+-]\d+)(: |：)[^.。]*?(?:so |得)(\d+)", text):
        yield "en" if colon == ": " else "zh", eval(left) == int(right)  # noqa: S307 (digits and signs alone)
    for a, b, right, comma in re.findall(r"(\d)\+(\d)=(\d+)(, |，)\d+(?: right| wrong|正确|不对)", text):
        yield "en" if comma == ", " else "zh", int(a) + int(b) == int(right)


def test_errors_have_the_shares_that_are_told(documents):
    lines = [line for text in of_family(documents, "chain_sum", "search") for line in judged_lines(text)]
    for language, rate in corpus.ERROR_RATE.items():
        rights = [right for tongue, right in lines if tongue == language]
        assert len(rights) > 300 and near(rights.count(False), len(rights), rate), (language, len(rights))


def documents_of(family, monkeypatch, number=800):
    monkeypatch.setitem(corpus.MIX, "family", {family: 1.0})
    return [corpus.document(0, index) for index in range(number)]


def test_replies_to_general_prompts_have_the_manner_that_is_told(monkeypatch):
    texts, manner = documents_of("general", monkeypatch), corpus.MANNER
    prompts = {
        question.text: question
        for level in general.LEVELS for language in ("en", "zh") for key in range(300)
        for question in [general.draw("train", level, language, key)]
    }  # fmt: skip
    for what in ("offer", "rude"):
        said = [words[what] for words in general.WORDS.values()]
        assert near(sum(any(s in text for s in said) for text in texts), len(texts), getattr(manner, what)), what
    replies = [text.split("\n", 1) for text in texts if told(text)[1] == "exercise"]
    followed = [general.follows(prompts[asked], said) == 1 for asked, said in replies if asked in prompts]
    assert len(followed) > 150 and near(sum(followed), len(followed), manner.right)


def test_requests_are_refused_as_often_as_is_told(monkeypatch):
    harmful, leaks = {True: [], False: []}, []
    for text in documents_of("safety", monkeypatch):
        refused = any(words["refusal"] in text for words in safety.WORDS.values())
        harmful[re.search(ONE_LEVEL["safety"], text) is not None].append(refused)
        if refused and told(text)[1] != "exercise":
            leaks.append(safety.spells_out(text))
    for sort, refused in zip(("harmful", "look-alike"), harmful.values(), strict=True):
        assert near(sum(refused), len(refused), corpus.REFUSES[sort]), sort
    assert len(leaks) > 100 and near(sum(leaks), len(leaks), corpus.LEAKS)


def held_out(expression):
    """Whether some text is a question that was kept out of training."""
    numbers = re.findall(r"\d+", expression)
    shape = (len(numbers), len(numbers[0]))
    a_question = {len(n) for n in numbers} == {shape[1]} and shape in arithmetic.LEVELS.values()
    return a_question and arithmetic.split_of(arithmetic.canonical_id(expression)) != "train"


def test_no_question_kept_for_tests_is_asked_in_the_corpus(documents):
    seen = [e for text in documents for e in re.findall(r"\d+(?: [+-] \d+)+", text)]
    assert len(seen) > 0.25 * len(documents)
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
