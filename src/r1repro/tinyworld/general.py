"""General prompts: facts of a closed table, writing to a format, translation, who the model is, greetings.

No rule reward judges them.  `helpfulness` is the hidden rule of this world: it stands in for the people and the judge
model whose preferences a reward model learns (section 2.3.4), and afterwards it is the gold metric, never a reward.
`reply` writes replies of every quality; the corpus says how often each occurs.
"""

import random
import re
from dataclasses import dataclass

from r1repro.records import Question
from r1repro.rewards.accuracy import final_answer
from r1repro.rewards.language import language_share
from r1repro.tinyworld.splits import canonical_id, split_of

LEVELS = {1: "fact", 2: "write", 3: "translate", 4: "self", 5: "greet"}
"""Level -> sort of prompt; they differ in what they ask, not in difficulty."""

TOPICS = {
    "sea": "海", "river": "河", "mountain": "山", "moon": "月亮", "garden": "花园", "cat": "猫", "house": "房子",
    "car": "车",    "book": "书", "sky": "天空", "letter": "信", "table": "桌子",
}  # fmt: skip
QUALITIES = {
    "cold": "冷", "long": "长", "high": "高", "small": "小", "large": "大", "good": "好", "green": "绿", "blue": "蓝",
    "red": "红",    "clear": "清楚",
}  # fmt: skip
PEOPLE = {"Anna": "小红", "Ben": "小明", "Carl": "小华", "Tom": "汤姆"}
OWNED = ("house", "car", "book", "garden", "cat", "computer")
_CHINESE = TOPICS | QUALITIES | PEOPLE | {"computer": "电脑"}

WORDS = {
    "en": dict(
        fact="What is the number of the {thing} of {who}?",
        sentences="Use {n} sentences about the {topic}, with {word}.",
        points="Make a list of {n} points about the {topic}, with {word}.", translate="Translate into Chinese: {text}",
        told="The number of the {thing} of {who} is {value}.", line="The {topic} is {word}.", joint=" ",
        offer="Please tell me more.", rude="This is a bad question.", unsure="I am not sure.",
        thinks="the user asks about the {about}.", asks_translation="the user asks for Chinese.",
        cites=("Who are you?", "What is your name?", "What are you?"),
        self="I am a small language model made for teaching.",
        greetings={"Hello!": "Hello!", "Good morning!": "Good morning!", "Good night!": "Good night!",
                   "Goodbye!": "Goodbye!", "Thank you!": "You are good!"},
    ),
    "zh": dict(
        fact="{who}的{thing}的数是什么？", sentences="用{n}句话介绍{topic}，使用{word}。",
        points="列出{n}点介绍{topic}，使用{word}。", translate="翻译成英文：{text}",
        told="{who}的{thing}的数是{value}。", line="{topic}很{word}。", joint="",
        offer="请告诉我更多。", rude="这是不好的问题。", unsure="我不确定。",
        thinks="用户问{about}。", asks_translation="用户想要英文。",
        cites=("你是谁？", "你的名是什么？", "你是什么？"),
        self="我是一个用来教学的小语言模型。",
        greetings={"你好！": "你好！", "早上好！": "早上好！", "晚安！": "晚安！",
                   "再见！": "再见！", "谢谢！": "不客气！"},
    ),
}  # fmt: skip


def name(word: str, language: str) -> str:
    """A word of the world in a language."""
    return word if language == "en" else _CHINESE[word]


def fact(thing: str, who: str) -> int:
    """The number of somebody's thing: the closed table, two digits each.

    >>> fact("car", "Anna")
    35
    """
    return random.Random(f"fact/{who}/{thing}").randint(10, 99)


def draw(split: str, level: int, language: str, *key: int | str) -> Question:
    """The prompt that belongs to (split, level, language, key): a function of its arguments and of nothing else.

    Facts, greetings and what the model says of itself are known or not: they are the same in every split.  What is to
    be written or translated is split like other questions.

    >>> draw("test", 2, "en", 2).requirements
    (('sort', 'write'), ('form', 'sentences'), ('count', '1'), ('topic', 'car'), ('word', 'good'))
    """
    rng = random.Random(f"general/{level}/{key}")
    while True:
        text, gold, requirements, canonical = _drawn(LEVELS[level], language, rng)
        question_id = canonical_id(f"general {canonical}")
        if LEVELS[level] in ("write", "translate") and split_of(question_id) != split:
            continue
        return Question(
            id=question_id, text=text, gold=gold, language=language, level=level, family="general", kind="open",
            requirements=(("sort", LEVELS[level]), *requirements),
        )  # fmt: skip


def _drawn(sort: str, language: str, rng: random.Random) -> tuple[str, str, tuple, str]:
    """(text, reference reply, requirements, canonical form) of a prompt."""
    words = WORDS[language]
    if sort == "fact":
        thing, who = rng.choice(OWNED), rng.choice(sorted(PEOPLE))
        value, there = fact(thing, who), dict(thing=name(thing, language), who=name(who, language))
        told = words["told"].format(value=value, **there)
        return words["fact"].format(**there), told, (("value", str(value)),), f"fact {thing} {who} {language}"
    if sort == "write":
        form, count = rng.choice(("sentences", "points")), rng.randint(1, 3)
        topic, word = rng.choice(sorted(TOPICS)), rng.choice(sorted(QUALITIES))
        text = words[form].format(n=count, topic=name(topic, language), word=name(word, language))
        others = [w for w in sorted(QUALITIES) if w != word][: count - 1]
        wanted = (("form", form), ("count", str(count)), ("topic", topic), ("word", word))
        gold = _written(form, topic, [word, *others], language)
        return text, gold, wanted, f"write {form} {count} {topic} {word}"
    if sort == "translate":
        topic, word = rng.choice(sorted(TOPICS)), rng.choice(sorted(QUALITIES))
        other = "zh" if language == "en" else "en"
        text = words["translate"].format(text=_line(topic, word, language))
        wanted = (("topic", topic), ("word", word))
        return text, _line(topic, word, other), wanted, f"translate {topic} {word} {language}"
    if sort == "self":
        text = rng.choice(words["cites"])
        return text, words["self"], (("value", words["self"]),), text
    text = rng.choice(sorted(words["greetings"]))
    return text, words["greetings"][text], (("value", words["greetings"][text]),), text


def _line(topic: str, word: str, language: str) -> str:
    return WORDS[language]["line"].format(topic=name(topic, language), word=name(word, language))


def _written(form: str, topic: str, chosen: list[str], language: str) -> str:
    lines = [_line(topic, word, language) for word in chosen]
    return "\n".join(f"- {line}" for line in lines) if form == "points" else WORDS[language]["joint"].join(lines)


@dataclass(frozen=True, slots=True)
class Manner:
    """How good a reply is: chance that its content is right, that it offers more, that it is rude."""

    right: float
    offer: float
    rude: float


def reply(question: Question, manner: Manner, language: str, rng: random.Random) -> tuple[str, str]:
    """A thinking (empty for greetings and for what the model says of itself) and a reply, of a given manner.

    Args:
        language: of the thinking; the reply is in the question's.
    """
    needs, words = dict(question.requirements), WORDS[question.language]
    right = rng.random() < manner.right
    thinking, content = "", question.gold
    if needs["sort"] == "write":
        thinking = WORDS[language]["thinks"].format(about=name(needs["topic"], language))
        thinking += WORDS[language]["joint"] + f"{needs['count']}: {name(needs['word'], language)}"
        content = _composed(needs, right, question.language, rng)
    elif needs["sort"] == "translate":
        thinking = WORDS[language]["asks_translation"]
        if not right:
            other = "zh" if question.language == "en" else "en"
            content = _line(needs["topic"], rng.choice([w for w in sorted(QUALITIES) if w != needs["word"]]), other)
    elif needs["sort"] == "fact":
        thinking = WORDS[language]["thinks"].format(about=_about(question, language))
        if not right:
            another = 10 + (int(needs["value"]) - 10 + rng.randint(1, 89)) % 90
            content = words["unsure"] if rng.random() < 0.3 else re.sub(r"\d+", str(another), question.gold)
    elif not right:
        content = words["unsure"]
    joint = "\n" if "\n" in content or needs.get("form") == "points" else words["joint"]
    said = [content] + [words["offer"]] * (rng.random() < manner.offer) + [words["rude"]] * (rng.random() < manner.rude)
    return thinking, joint.join(said)


def _about(question: Question, language: str) -> str:
    thing, who = re.search(r"fact (\w+) (\w+)", _canonical_fact(question)).groups()
    return (
        f"{name(thing, language)} of {who}" if language == "en" else f"{name(who, language)}的{name(thing, language)}"
    )


def _canonical_fact(question: Question) -> str:
    for thing in OWNED:
        for who in PEOPLE:
            there = dict(thing=name(thing, question.language), who=name(who, question.language))
            if WORDS[question.language]["fact"].format(**there) == question.text:
                return f"fact {thing} {who}"
    raise AssertionError(f"no fact is asked in {question.text!r}")


def _composed(needs: dict[str, str], right: bool, language: str, rng: random.Random) -> str:
    count, topic, form, first = int(needs["count"]), needs["topic"], needs["form"], needs["word"]
    others = [word for word in sorted(QUALITIES) if word != first]
    if not right:
        fault = rng.randrange(4)
        count = rng.choice([n for n in (1, 2, 3) if n != count]) if fault == 0 else count
        topic = rng.choice([t for t in sorted(TOPICS) if t != topic]) if fault == 1 else topic
        first = others.pop(rng.randrange(len(others))) if fault == 2 else first
        form = {"points": "sentences", "sentences": "points"}[form] if fault == 3 else form
    chosen = [first, *rng.sample(others, count - 1)]
    return _written(form, topic, chosen, language)


# What is wanted


def summary(text: str) -> str:
    """What a judge of helpfulness sees of an output: its final answer, never its thinking (section 2.3.4)."""
    return final_answer(text) or ""


def follows(question: Question, said: str) -> float:
    """Share of what the prompt asks for that a reply holds, 0 to 1.

    >>> asked = draw("test", 2, "en", 2)
    >>> follows(asked, asked.gold), follows(asked, "The sea is good.")
    (1.0, 0.75)
    """
    needs, words = dict(question.requirements), WORDS[question.language]
    body = said.replace(words["offer"], "").replace(words["rude"], "").strip()
    if needs["sort"] == "write":
        stop = "." if question.language == "en" else "。"
        met = (
            body.count(stop) == int(needs["count"]),
            0 < body.count("- ") == body.count(stop) if needs["form"] == "points" else "- " not in body,
            0 < body.count(stop) == body.lower().count(name(needs["topic"], question.language)),
            name(needs["word"], question.language) in body,
        )
        return sum(met) / len(met)
    if needs["sort"] == "fact":
        return float(re.findall(r"\d+", body) == [needs["value"]])
    return float(body == question.gold)


def helpfulness(question: Question, text: str) -> float:
    """The hidden rule: what is asked for (0 to 2) and an offer of more (1); rudeness costs 1, saying anything twice 1,
    another language than the user's 1.  Of the final answer alone, -3 to 3; without one 0.

    >>> asked = draw("test", 2, "en", 2)
    >>> helpfulness(asked, f"<think> </think> <answer> {asked.gold} Please tell me more. </answer>")
    3.0
    """
    said, words = summary(text), WORDS[question.language]
    if not said:
        return 0.0
    lines = [line for line in (part.strip("- ") for part in re.split(r"[.。!！\n]", said)) if line]
    value = 2 * follows(question, said) + (words["offer"] in said) - (words["rude"] in said)
    value -= len(set(lines)) < len(lines)
    if dict(question.requirements)["sort"] != "translate" and language_share(said, question.language) < 0.95:
        value -= 1
    return float(value)
