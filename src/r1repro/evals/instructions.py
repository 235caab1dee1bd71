r"""IF-Eval: 541 prompts with instructions that a program can check; a prompt counts where all of its own are followed.

Prompt-level strict accuracy, of what follows the thinking.  The checkers of all 25 kinds are our own, because those of
the benchmark's makers come with three packages (nltk with a downloaded model, langdetect, absl) that would enter our
locks for this file alone, and their sentence splitter and language detector change with the versions of those.  What a
kind means is theirs (google-research, instruction_following_eval): the same marks, counts and comparisons.

Where we may differ from theirs, by construction:
    Sentences are counted by marks and abbreviations (theirs: nltk's punkt), words in capitals by runs of letters
    (theirs: nltk's tokens), and a language is known by its script and commonest words (theirs: langdetect).
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1repro.evals import files
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score


def load(folder: Path) -> list[Item]:
    """Rows with key, prompt, instruction_id_list and kwargs.  Refusal: a kind of instruction that is not known."""
    items, seen = [], set()
    for record in files.records(folder):
        prompt, kinds = files.text_of(record, "prompt"), record.row.get("instruction_id_list")
        settings = record.row.get("kwargs")
        if not isinstance(kinds, list) or not isinstance(settings, list) or len(kinds) != len(settings):
            raise Refusal(f"{record.where}: no instruction_id_list and kwargs of one length: take the makers' file")
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise Refusal(f"{record.where}: instruction {unknown[0]!r} is not known: choose of {', '.join(KINDS)}")
        gold = [
            [kind, {name: value for name, value in (setting or {}).items() if value is not None}]
            for kind, setting in zip(kinds, settings, strict=True)
        ]
        id = record.row.get("key")
        items.append(
            Item(
                id=files.distinct(str(id) if id is not None else files.hashed(prompt), seen),
                prompt=str(record.row["prompt"]),
                gold=gold,
                more={"question": prompt},
            )
        )
    return items


def grade(item: Item, text: str) -> Score:
    """1 where what follows the thinking follows every instruction.  Nothing follows none."""
    said = text.rpartition("</think>")[2].strip("\n")
    if not said.strip():
        return Score(value=0.0, verdict="unparsed")
    right = all(followed(item.gold, said))
    return Score(value=float(right), verdict="right" if right else "wrong")


def followed(instructions: Sequence[tuple[str, dict[str, Any]]], text: str) -> list[bool]:
    """Whether a text follows each instruction: kind and settings.

    >>> followed([("punctuation:no_comma", {}), ("detectable_format:title", {})], "One, two.")
    [False, False]
    """
    return [bool(text.strip()) and bool(KINDS[kind](text, **settings)) for kind, settings in instructions]


def compared(count: int, relation: str, number: int) -> bool:
    """``count`` is "at least" or "less than" ``number``."""
    return count < number if relation == "less than" else count >= number


def _keywords(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return compared(len(re.findall(keyword, text, re.IGNORECASE)), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return compared(count_sentences(text), relation, num_sentences)


def _num_words(text: str, num_words: int, relation: str) -> bool:
    return compared(len(re.findall(r"\w+", text)), relation, num_words)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """Between lines of three stars; empty ones count at neither end, and are none in the middle."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    parts = parts[1:] if parts and not parts[0] else parts
    parts = parts[:-1] if parts and not parts[-1] else parts
    return all(parts) and len(parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    count = sum(1 for part in parts if part.strip())
    if nth_paragraph > count or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split("[.,?!'\"]", word)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    forms = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(forms.get(postscript_marker, re.escape(postscript_marker.lower())), text.lower()))


def _bullets(text: str, num_bullets: int) -> bool:
    found = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE) + re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(found) == num_bullets


def _constrained(text: str) -> bool:
    return any(f"My answer is {word}." in text for word in ("yes", "no", "maybe"))


def _highlights(text: str, num_highlights: int) -> bool:
    found = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(1 for part in found if part.strip("*").strip()) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", text)) >= num_sections


def _json(text: str) -> bool:
    bare = re.sub(r"^```(?:json|Json|JSON)?|```$", "", text.strip()).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(part.strip("<>").strip() for part in re.findall(r"<<[^\n]+>>", text))


def _two(text: str) -> bool:
    parts = text.split("******")
    middle, whole = parts[1:-1], [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in middle) and len(whole) == 2 and whole[0] != whole[1]


def _repeated(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return compared(
        sum(1 for word in re.findall(r"[\w'’-]+", text) if word.isupper()), capital_relation, capital_frequency
    )


def _quoted(text: str) -> bool:
    said = text.strip()
    return len(said) > 1 and said[0] == said[-1] == '"'


KINDS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda text, language: speaks(text, language),
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _num_words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeated,
    "startend:end_checker": _end,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text: text.isupper() and speaks(text, "en"),
    "change_case:english_lowercase": lambda text: text.islower() and speaks(text, "en"),
    "punctuation:no_comma": lambda text: "," not in text,
    "startend:quotation": _quoted,
}
"""Kind of instruction -> whether a text follows it, given the settings of the prompt."""

_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'])(?:[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z]|mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|eg|ie|no|vol|inc|ltd|co|fig|al)$",
    re.IGNORECASE,
)


def count_sentences(text: str) -> int:
    """Sentences of a text: what ends in a mark of the end, or stands behind the last one.

    >>> count_sentences("Dr. Smith paid 3.5 dollars, e.g. twice. Did he? Yes!"), count_sentences("None ends here")
    (3, 1)
    """
    count, begin = 0, 0
    for mark in re.finditer(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？।؟۔]+", text):
        sentence = text[begin : mark.end()]
        if mark[0][0] == "." and _ABBREVIATION.search(text[begin : mark.start()]) and text[mark.end() :].strip():
            continue
        count += bool(re.search(r"\w", sentence))
        begin = mark.end()
    return count + bool(re.search(r"\w", text[begin:]))


_SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff", "Cyrillic": "\u0400-\u04ff", "Greek": "\u0370-\u03ff",
    "Hebrew": "\u0590-\u05ff", "Arabic": "\u0600-\u06ff", "Devanagari": "\u0900-\u097f", "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f", "Gujarati": "\u0a80-\u0aff", "Tamil": "\u0b80-\u0bff", "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff", "Malayalam": "\u0d00-\u0d7f", "Thai": "\u0e00-\u0e7f", "Hangul": "\uac00-\ud7af",
    "Kana": "\u3040-\u30ff", "Han": "\u4e00-\u9fff",
}  # fmt: skip
_OWN_SCRIPT = {
    "el": "Greek", "he": "Hebrew", "bn": "Bengali", "pa": "Gurmukhi", "gu": "Gujarati", "ta": "Tamil", "te": "Telugu",
    "kn": "Kannada", "ml": "Malayalam", "th": "Thai", "ko": "Hangul", "zh": "Han", "zh-cn": "Han", "zh-tw": "Han",
    "ja": "Kana",
}  # fmt: skip
_COMMON = {
    "Latin": {
        "en": "the of and to in is that it for you with on are this be as was have at not your will can by from",
        "de": "der die das und ist nicht ein eine zu in den mit von für auf sie ich es dem im werden auch sich",
        "fr": "le la les et est des une un dans que pour qui sur pas vous nous avec au du ce cette sont",
        "es": "el la los las y es de que en un una por con para no su se del al lo como más está",
        "pt": "o a os as e é de que em um uma para com não do da no na se por mais como você são",
        "it": "il la i gli e è di che in un una per con non del della sono si da le come più questo",
        "nl": "de het een en van is dat niet in te op met voor zijn ik je aan ook er maar",
        "sv": "och att det är en som på av för inte med den till ett jag har om vi så",
        "pl": "i w na nie się jest to z do że o jak po co dla tak przez ale od są",
        "tr": "ve bir bu için da de ile çok olarak ne gibi daha var en değil olan ben sen",
        "vi": "là và của có không được cho một những với trong này các tôi bạn để khi người đã như",
        "sw": "na ya wa kwa ni za katika la kuwa hii hiyo yake cha si au kama lakini watu sana yako ili",
        "fi": "ja on ei että se hän oli mutta kun niin joka ovat kuin myös olla tai voi tämä sen sinun",
        "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada mereka",
    },
    "Cyrillic": {
        "ru": "и в не на что с это как он по но из для я мы вы бы так все ты они или если быть",
        "bg": "и на да се е от за в не са с че ще като си по ли до но той тя това съм при един",
        "uk": "і в не на що та з це як до є він для ми ви але або був від ти вони про коли",
    },
    "Devanagari": {
        "hi": "है और में के का की को से पर हैं यह कि ने एक नहीं था लिए भी हो आप इस तो",
        "mr": "आहे आणि या आहेत एक हे तो ते नाही मी व ही होते करून मध्ये साठी त्या आपण असे तर",
        "ne": "छ र छन् को मा हो गर्न यो भएको पनि लागि थियो गरेको एक हुन् तपाईं गर्नुहोस् छैन यस",
    },
    "Arabic": {
        "ar": "في من على إلى أن هذا هذه التي الذي لا ما عن مع كان هو هي و ذلك قد لم",
        "fa": "در از به که این است را با برای آن می و شما من تا ها های شود یک کند",
        "ur": "ہے میں کے کی اور سے کا کو یہ نے پر ہیں آپ ایک کہ تھا اس بھی لیے نہیں",
    },
}
"""The commonest words of languages that share a script."""


def speaks(text: str, language: str) -> bool:
    """Whether a text is in a language: most of its letters are of its script, and no other language of that script
    has more of its commonest words there.

    Where the makers' checker is silent:
        A text too short to tell (their detector fails) passes there; here one of the right script does.

    >>> speaks("Das ist nicht der Weg.", "de"), speaks("This is not the way.", "de"), speaks("यह मेरा घर है", "hi")
    (True, False, True)
    """
    counts = {name: len(re.findall(f"[{letters}]", text)) for name, letters in _SCRIPTS.items()}
    counts["Han"] = 0 if counts["Kana"] else counts["Han"]
    script = max(counts, key=counts.__getitem__)
    if not counts[script]:
        return False
    if language in _OWN_SCRIPT:
        return script == _OWN_SCRIPT[language]
    words = re.findall(r"[^\s\d.,;:!?\"'()\[\]{}*_#<>।؟،۔“”-]+", text.lower())
    found = {name: sum(word in known.split() for word in words) for name, known in _COMMON.get(script, {}).items()}
    return language in found and found[language] == max(found.values())


BENCHMARKS = (
    Benchmark(
        name="IF-Eval", folder="ifeval", hub="google/IFEval", files="ifeval_input_data.jsonl", load=load, grade=grade,
        metric="Prompt Strict", licence="Apache-2.0",
        note="what follows the thinking is checked, by our own checkers; five prompts contradict themselves, so 99.1 % "
        "is the most; k is not stated: 1",
    ),
)  # fmt: skip
