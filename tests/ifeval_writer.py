"""Texts made to measure for IF-Eval's prompts: each follows all instructions of its prompt, and says nothing else.

No answers to the prompts.  They show that our checkers can all be satisfied together, on every prompt.
"""

import json
import re

FILLER = {
    "hi": "यह मेरा घर है और वह उसके घर में है", "mr": "हे माझे घर आहे आणि ते त्याचे आहे",
    "ne": "यो मेरो घर हो र त्यो उसको छ",
    "kn": "ಇದು ನನ್ನ ಮನೆ", "vi": "đây là nhà của tôi và đó là nhà của bạn", "ko": "이것은 나의 집이다",
    "sw": "hii ni nyumba yangu na ile ni ya kwako", "de": "das ist mein Haus und das ist nicht dein Haus",
    "pa": "ਇਹ ਮੇਰਾ ਘਰ ਹੈ", "fa": "این خانه من است و آن خانه شما است", "ru": "это мой дом и я не там где он был",
    "bg": "това е моята къща и тя не е на него", "pt": "esta é a minha casa e não é a casa do meu pai",
    "gu": "આ મારું ઘર છે", "te": "ఇది నా ఇల్లు", "it": "questo è il mio giardino e non è il tuo",
    "ar": "هذا هو بيتي وهذه هي من التي",
    "ta": "இது என் வீடு", "fi": "tämä on minun taloni ja se ei ole sinun", "ur": "یہ میرا گھر ہے اور وہ اس کے گھر میں ہے",
    "th": "นี่คือบ้านของฉัน", "bn": "এটা আমার বাড়ি", "en": "the sun is on the hill and it is up",
}  # fmt: skip


def written(item):
    """A text that follows the instructions of an item."""
    asked = {kind: setting for kind, setting in item.gold}

    def has(kind):
        return next((asked[name] for name in asked if name.endswith(f":{kind}")), None)

    language = (has("response_language") or {"language": "en"})["language"]
    base = FILLER[language]
    banned = {word.lower() for word in (has("forbidden_words") or {"forbidden_words": []})["forbidden_words"]}
    letters = [s for kind, s in item.gold if kind.endswith("letter_frequency")]
    scarce = {s["letter"].lower() for s in letters if s["let_relation"] == "less than"}
    if language == "en":
        known = "the sun is on my hill and it was up by day as you can go for air of sky in fog".split()
        kept = [w for w in known if w not in banned and not scarce & set(w)]
        base = " ".join(kept)
    parts, words = [], base.split()
    for kind, setting in item.gold:
        parts += extra(kind.rpartition(":")[2], setting)
    text = "\n".join(parts)
    counts = [s for kind, s in item.gold if kind.endswith("number_words") and s["relation"] == "at least"]
    sentences = [s for kind, s in item.gold if kind.endswith("number_sentences") and s["relation"] == "at least"]
    num_sentences = max((s["num_sentences"] for s in sentences), default=1)
    num_words = max((s["num_words"] for s in counts), default=1)
    filler = " ".join(f"{' '.join(words[:6])}." for _ in range(num_sentences if sentences else 0))
    missing = num_words - len(re.findall(r"\w+", f"{filler} {text}"))
    least = 8 if language == "en" else 200  # more of the language than of what else is wanted
    filler += " " + " ".join(words[n % len(words)] for n in range(max(missing, least if not sentences else 0)))
    body = f"{filler.strip()}\n{text}".strip()
    return framed(body, filler.strip(), has, item)


def extra(kind, s):
    """What one instruction wants somewhere in the text, a line each."""
    if kind == "existence":
        return [" ".join(s["keywords"])]
    if kind == "frequency" and s["relation"] == "at least":
        return [" ".join([s["keyword"]] * s["frequency"])]
    if kind == "letter_frequency" and s["let_relation"] == "at least":
        return [s["letter"] * s["let_frequency"]]
    if kind == "number_placeholders":
        return [" ".join(["[x]"] * s["num_placeholders"])]
    if kind == "number_bullet_lists":
        return ["- b"] * s["num_bullets"]
    if kind == "constrained_response":
        return ["My answer is yes."]
    if kind == "number_highlighted_sections":
        return ["x " + " ".join(["*h*"] * s["num_highlights"])]
    if kind == "multiple_sections":
        return [f"{s['section_spliter']} {n}" for n in range(1, s["num_sections"] + 1)]
    if kind == "title":
        return ["<<t>>"]
    if kind == "capital_word_frequency" and s["capital_relation"] == "at least":
        return [" ".join(["UP"] * s["capital_frequency"])]
    if kind == "postscript":
        return [f"{s['postscript_marker']} ok"]
    return []


def framed(body, filler, has, item):
    """The text in the frame that the whole is to have: paragraphs, cases, quotation, JSON, first and last words."""
    paragraphs = has("number_paragraphs")
    first = [s for kind, s in item.gold if kind.endswith("nth_paragraph_first_word")]
    if first:
        (s,) = first
        flat = " ".join(body.split("\n")) if "number_bullet_lists" not in str(item.gold) else body
        made = [filler.split()[0]] * s["num_paragraphs"]
        made[s["nth_paragraph"] - 1] = s["first_word"]
        made[-1] += f"\n{flat}"
        body = "\n\n".join(made)
    if paragraphs:
        body = "\n***\n".join([body] + ["x"] * (paragraphs["num_paragraphs"] - 1))
    if has("two_responses") is not None:
        body = f"{body}\n******\n{body} x"
    if (end := has("end_checker")) is not None:
        body = f"{body}\n{end['end_phrase']}"
    if has("english_lowercase") is not None:
        body = body.lower()
    if has("english_capital") is not None:
        body = body.upper()
    if has("no_comma") is not None:
        body = body.replace(",", "")
    if (said := has("repeat_prompt")) is not None:
        body = f"{said['prompt_to_repeat']}\n{body}"
    if has("json_format") is not None:
        body = json.dumps({"said": body}, ensure_ascii=False)
    if has("quotation") is not None:
        body = f'"{body}"'
    return body
