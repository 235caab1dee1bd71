"""Judged comparisons: AlpacaEval 2.0 and Arena-Hard v0.1, each against the baseline of its makers.

The paper's judge is GPT-4-Turbo-1106 (``gpt-4-1106-preview``), and it sees the final summary alone.  The statistics are
in `win_rates`; files are read and written in the form of the makers' own tools.
"""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r1repro.evals import files, win_rates
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.evals.judge import Protocol, Reply, Request, Verdict, filled, needs_judge
from r1repro.evals.win_rates import Battle, Coefficients, Comparisons
from r1repro.records import Refusal, Score

# --- AlpacaEval 2.0

ALPACA_BASELINE = "gpt4_1106_preview"
COEFFICIENTS = "length_controlled_v1_baseline_gpt4_1106_preview.csv"
LEADERBOARD = "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
GAMED = "df_gamed.csv"
DIFFICULTY = "instruction_difficulty.csv"

ALPACA_FILES = "*_g[pa]*[_e][bd]*"
"""Of the hub: alpaca_eval_gpt4_baseline.json and df_gamed.csv."""

ALPACA_WORDING = """<|im_start|>system
You compare outputs of language models and say which one people would like better. Your whole reply is a name.
<|im_end|>
<|im_start|>user
Two models, m and M, were given the same instruction. Weigh how good and how fitting their outputs are, as a person who
wrote that instruction would, and choose the better one.

## Instruction
{instruction}

## Output of model m
{output_1}

## Output of model M
{output_2}

## Your choice
Reply with the name of the better model and with nothing else, no quotes and no spaces: m or M
<|im_end|>
"""
"""Ours, with the roles, names and reply of the makers' `alpaca_eval_clf` prompt."""


def load_alpaca(folder: Path) -> list[Item]:
    """The instructions, each with the baseline's output as its gold, in the order of the baseline's file."""
    items, seen = [], set()
    for record in files.records(folder, prefer=("gpt4_baseline", "model_outputs")):
        row = record.row
        if (
            row.get("generator") != ALPACA_BASELINE
            or "instruction" not in row
            or not isinstance(row.get("output"), str)
        ):
            continue
        instruction = files.text_of(record, "instruction")
        more = {"question": row["instruction"], "dataset": row.get("dataset") or "", "index": len(items)}
        own = files.distinct(files.hashed(row["instruction"]), seen)
        items.append(Item(id=own, prompt=instruction, gold=row["output"], group=str(more["dataset"]), more=more))
    if not items:
        raise Refusal(f"no outputs of {ALPACA_BASELINE} in {folder}: put its model_outputs.json there")
    return items


def _is_first(item: Item) -> bool:
    """Whether the model is shown as m, the first: a coin of the instruction's own, so that it never falls anew."""
    return int(files.hashed("order", item.id), 16) % 2 == 0


def alpaca_requests(item: Item, summary: str, words: str) -> list[Request]:
    """One comparison, in an order drawn by the instruction; the verdict is in the likeliest first tokens."""
    shown = (summary, item.gold) if _is_first(item) else (item.gold, summary)
    said = filled(words, instruction=item.more["question"], output_1=shown[0], output_2=shown[1])
    return [Request(messages=said, max_tokens=1, alternatives=5)]


def alpaca_verdict(item: Item, summary: str, replies: Sequence[Reply]) -> Verdict:
    """The weighted preference: 1 for the baseline, 2 for the model, and what the probabilities say in between.

    Where the description is silent:
        What of an output that says nothing: it loses, and no judge is asked.  What of a server that gives no
        log-probabilities: the preference is the name that it replies with, 1 or 2.
    """
    if not replies:
        return alpaca_told(1.0, summary)
    likely = {name: replies[0].first[name] for name in "mM" if name in replies[0].first}
    if likely:
        p_m = math.exp(likely.get("m", -math.inf) - float(np.logaddexp.reduce(list(likely.values()))))
    elif (named := replies[0].text.strip(" \n.*'\"`")) in ("m", "M"):
        p_m = float(named == "m")
    else:
        return alpaca_told(None, summary)
    return alpaca_told(1 + p_m if _is_first(item) else 2 - p_m, summary)


def alpaca_told(preference: float | None, output: str, generator: str = "") -> Verdict:
    told = {"preference": preference, "length": len(output), "generator": generator}
    if preference is None:
        return Verdict(score=Score(value=None, verdict="unparsed"), told=told)
    share = _share(preference)
    return Verdict(score=Score(value=share, verdict="right" if share > 0.5 else "wrong"), told=told)


def _share(preference: float) -> float:
    """0 to 1 of a preference from 1 to 2; 0 is an old way to write a tie."""
    return (preference or 1.5) - 1


def alpaca_read(item: Item, row: Mapping[str, Any]) -> Verdict | None:
    """The verdict of a row of ``annotations.json``."""
    if "preference" not in row:
        return None
    value, output = row["preference"], row.get("output_2")
    if row.get("generator_1") != ALPACA_BASELINE or not isinstance(output, str):
        raise Refusal(
            f"these annotations compare {row.get('generator_2')} with {row.get('generator_1')}: give such as compare a "
            f"model (output_2) with {ALPACA_BASELINE} (output_1)"
        )
    if value is not None and (not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2)):
        raise Refusal(f"a preference is {str(value)[:40]!r}: give numbers from 1 (the baseline) to 2 (the model)")
    known = None if value is None or math.isnan(value) else float(value)
    return alpaca_told(known, output, str(row.get("generator_2") or ""))


def alpaca_write(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """``annotations.json``."""
    by_id = {item.id: item for item in items}
    made = [
        {
            "instruction": by_id[row["id"]].more["question"], "output_1": by_id[row["id"]].gold,
            "generator_1": ALPACA_BASELINE, "dataset": by_id[row["id"]].group, "output_2": row["summary"],
            "generator_2": names["model"], "annotator": names["judge"], "preference": row["preference"],
        }
        for row in rows
    ]  # fmt: skip
    return json.dumps(made, indent=1) + "\n"


def alpaca_summary(folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Win rate as the makers count it, and length-controlled win rate with how it was had; fractions."""
    rows = [row for row in rows if row["preference"] is not None]
    share_N = np.array([_share(row["preference"]) for row in rows])
    if not len(share_N):
        return {"length_controlled_win_rate": None, "interval": None, "win_rate": None, "length_control": "no verdict"}
    controlled, interval, how = length_controlled(folder, items, rows)
    error = float(share_N.std(ddof=1) / len(share_N) ** 0.5) if len(share_N) > 1 else None
    return {
        "length_controlled_win_rate": controlled,
        "interval": interval,
        "length_control": how,
        "win_rate": float(share_N.mean()),
        "win_rate_interval": win_rates.bootstrap(lambda drawn: float(share_N[drawn].mean()), len(share_N)),
        "standard_error": error,
        "discrete_win_rate": float(((share_N > 0.5) + 0.5 * (share_N == 0.5)).mean()),
        "won": int((share_N > 0.5).sum()),
        "lost": int((share_N < 0.5).sum()),
        "drawn": int((share_N == 0.5).sum()),
        "length": float(np.mean([row["length"] for row in rows])),
    }


def length_controlled(
    folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]
) -> tuple[float | None, tuple[float, float] | None, str]:
    """The length-controlled win rate of rows that have a preference, its interval, and by which data.

    The regression needs the difficulty of each instruction, and comparisons of two gamed baselines that hold its other
    terms in place; both are in `GAMED`, which the makers publish on the hub.  With `DIFFICULTY` alone it does without
    the gamed baselines.  With neither, a model whose coefficients are published (`COEFFICIENTS`) is predicted from
    these, over the distribution of difficulties that the published win rates of all models imply; for any other model
    there is no number, rather than one that is biased.
    """
    if (folder / GAMED).exists() or (folder / DIFFICULTY).exists():
        return _fitted(folder, items, rows)
    generators = {row.get("generator") for row in rows}
    published = _published(folder)
    if len(generators) == 1 and (name := generators.pop()) in published:
        rate = win_rates.at_equal_length(published[name], *_distribution(folder, published, name))
        return rate, None, f"by the coefficients that are published of {name}"
    return None, None, f"not computed: put {GAMED} of the hub's data set tatsu-lab/alpaca_eval into {folder}"


def _fitted(
    folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]
) -> tuple[float, tuple[float, float], str]:
    """By the regression; the interval draws instructions and fits anew, at the strength that was chosen once."""
    by_id = {item.id: item for item in items}
    chosen = [by_id[row["id"]] for row in rows]
    gamed = _table(folder / GAMED) if (folder / GAMED).exists() else []
    how = f"fitted with {GAMED if gamed else f'{DIFFICULTY}, without gamed baselines'}"
    known = {int(float(r["index"])): float(r["instruction_difficulty"]) for r in gamed or _table(folder / DIFFICULTY)}
    difficulty_N = np.array([_at(known, item.more["index"], folder) for item in chosen])
    length_N = win_rates.length_term([len(item.gold) for item in chosen], [row["length"] for row in rows])
    ours = Comparisons(
        np.stack([length_N, difficulty_N, np.ones(len(rows))], 1),
        np.array([_share(row["preference"]) for row in rows]),
        np.ones(len(rows)),
    )
    held = [row for row in gamed if row["preference"] not in ("", "nan")]
    theirs = Comparisons(
        np.array([[math.tanh(float(r["std_delta_len"])), float(r["instruction_difficulty"]), 0] for r in held]).reshape(
            -1, 3
        ),
        np.array([float(row["preference"]) for row in held]),
        np.full(len(held), win_rates.SHARE_OF_GAMED / 2),
    )
    strength = win_rates.chosen_strength(_joined(theirs, ours))

    def rate(drawn: np.ndarray) -> float:
        fitted = win_rates.regression(_joined(theirs, ours.of(drawn)), strength)
        return win_rates.at_equal_length(fitted, difficulty_N[drawn])

    whole = np.arange(len(rows))
    return rate(whole), win_rates.bootstrap(rate, len(rows), rounds=win_rates.FITS), how


def _joined(first: Comparisons, second: Comparisons) -> Comparisons:
    return Comparisons(*(np.concatenate(both) for both in zip(first, second, strict=True)))


def _at(known: Mapping[int, float], index: int, folder: Path) -> float:
    if index not in known:
        raise Refusal(
            f"{folder} knows no difficulty of instruction {index}: take {GAMED} and the outputs of one version"
        )
    return known[index]


def _published(folder: Path) -> dict[str, Coefficients]:
    if not (folder / COEFFICIENTS).exists():
        return {}
    return {row[""]: Coefficients(*(float(v) for k, v in row.items() if k)) for row in _table(folder / COEFFICIENTS)}


def _distribution(folder: Path, published: Mapping[str, Coefficients], but: str) -> tuple[np.ndarray, np.ndarray]:
    """From the leaderboard's other models: the one in question does not vouch for itself."""
    rates = {row[""]: row["length_controlled_winrate"] for row in _table(folder / LEADERBOARD)}
    names = [name for name in published if name != but and rates.get(name)]
    if not names:
        raise Refusal(f"{folder / LEADERBOARD} has no model of {COEFFICIENTS}: take both of one version")
    return win_rates.difficulties([published[name] for name in names], [float(rates[name]) / 100 for name in names])


def _table(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refusal(f"{file} cannot be read ({error}): take it from the makers' repository") from error


# --- Arena-Hard v0.1

ARENA_BASELINE = "gpt-4-0314"
LABELS = {
    "A>>B": (1.0, win_rates.STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, win_rates.STRONG),
    "B<<A": (1.0, win_rates.STRONG), "B<A": (1.0, 1), "B=A": (0.5, 1), "A<B": (0.0, 1), "A<<B": (0.0, win_rates.STRONG),
}  # fmt: skip
"""What a verdict says: share that A wins, and in how many games it counts."""

ARENA_WORDING = """<|im_start|>system
You are an impartial judge of two assistants, A and B, that replied to the same prompt of a user. First write your own
answer to the prompt, before you compare anything. Then set both replies beside it: look for what is wrong or inexact
and name it, and weigh how helpful, to the point and concise they are, and, where it fits, whether they are creative and
say what the user would have missed. End with your verdict, one of these labels:

1. Assistant A is significantly better: [[A>>B]]
2. Assistant A is slightly better: [[A>B]]
3. A tie, about the same: [[A=B]]
4. Assistant B is slightly better: [[B>A]]
5. Assistant B is significantly better: [[B>>A]]

An example of a last line: "My final verdict is tie: [[A=B]]".
<|im_end|>
<|im_start|>user
<|User Prompt|>
{question_1}

<|The Start of Assistant A's Answer|>
{answer_1}
<|The End of Assistant A's Answer|>

<|The Start of Assistant B's Answer|>
{answer_2}
<|The End of Assistant B's Answer|>
<|im_end|>
"""
"""Ours, with the labels and the marks around the answers of the makers' prompt (Apache-2.0), which are an interface."""


def load_arena(folder: Path) -> list[Item]:
    """The questions, each with the baseline's answer as its gold."""
    questions, answers = [], {}
    for record in files.records(folder):
        row = record.row
        try:
            if "turns" in row:
                questions.append((row["question_id"], row["turns"][0]["content"], row.get("cluster") or ""))
            elif row.get("model_id") == ARENA_BASELINE:
                answers[row["question_id"]] = arena_answer(row)
        except (LookupError, TypeError) as error:
            raise Refusal(
                f"{record.where}: no {error}: take question.jsonl and {ARENA_BASELINE}.jsonl of v0.1"
            ) from error
    if not questions:
        raise Refusal(f"no questions in {folder}: put question.jsonl of arena-hard-v0.1 there")
    missing = [own for own, _, _ in questions if own not in answers]
    if missing:
        raise Refusal(f"no answer of {ARENA_BASELINE} to {missing[0]} in {folder}: put its model_answer file there")
    return [
        Item(id=own, prompt=text, gold=answers[own], group=group, more={"question": text})
        for own, text, group in questions
    ]


def arena_answer(row: Mapping[str, Any]) -> str:
    """What a row of a ``model_answer`` file holds; LookupError or TypeError where it holds none."""
    said = row["choices"][0]["turns"][0]["content"]
    return said["answer"] if isinstance(said, dict) else said


def arena_requests(item: Item, summary: str, words: str) -> list[Request]:
    """Two games: the baseline is A in the first and B in the second."""
    return [
        Request(messages=filled(words, question_1=item.more["question"], answer_1=a, answer_2=b), max_tokens=4096)
        for a, b in ((item.gold, summary), (summary, item.gold))
    ]


def arena_label(text: str) -> str | None:
    """The verdict of a judgement; None where there is none, or more than one.

    >>> arena_label("... so [[A>B]]"), arena_label("[[A>B]] or [[B>A]]"), arena_label("[[A]]")
    ('A>B', None, None)
    """
    found = {label for label in re.findall(r"\[\[([AB<>=]+)\]\]", text)}
    return label if len(found) == 1 and (label := found.pop()) in LABELS else None


def arena_again(request: Request, reply: Reply) -> Request | None:
    """A judgement without any label is to be brought to its end."""
    if re.search(r"\[\[[AB<>=]+\]\]", reply.text):
        return None
    more = (("assistant", reply.text), ("user", "Go on with your judgement, and end it with one of the five labels."))
    return Request(messages=(*request.messages, *more), max_tokens=request.max_tokens)


def arena_verdict(item: Item, summary: str, replies: Sequence[Reply]) -> Verdict:
    """The labels of both games.

    Where the makers are silent:
        What of an output that says nothing: it loses both games by far, and no judge is asked.
    """
    said = [reply.text for reply in replies]
    labels = [arena_label(text) for text in said] if replies else ["A>>B", "B>>A"]
    return arena_told(labels, said)


def arena_told(labels: Sequence[str | None], judgements: Sequence[str]) -> Verdict:
    told = {"games": list(labels), "judgements": list(judgements)}
    battles = arena_battles([told])
    if not battles:
        return Verdict(score=Score(value=None, verdict="unparsed"), told=told)
    share = sum(b.won * b.weight for b in battles) / sum(b.weight for b in battles)
    return Verdict(score=Score(value=share, verdict="right" if share > 0.5 else "wrong"), told=told)


def arena_battles(rows: Sequence[Mapping[str, Any]]) -> list[Battle]:
    """The games of some rows, each as the model's; one without a verdict is no game."""
    found = []
    for row in rows:
        for model_is_a, label in zip((False, True), row["games"], strict=True):
            if label:
                won, weight = LABELS[label]
                found.append(Battle("model", "baseline", won if model_is_a else 1 - won, weight))
    return found


def arena_read(item: Item, row: Mapping[str, Any]) -> Verdict | None:
    """The verdict of a row of a ``model_judgment`` file."""
    if "games" not in row:
        return None
    try:
        games = [game or {} for game in row["games"]]
        labels = [game.get("score") for game in games]
        said = [str(game.get("judgment") or "") for game in games]
    except (TypeError, AttributeError) as error:
        raise Refusal(f"the games of {item.id} cannot be read ({error}): give model_judgment files of v0.1") from error
    wrong = [label for label in labels if label is not None and label not in LABELS]
    if wrong or len(labels) != 2:
        raise Refusal(f"the games of {item.id} have the verdicts {labels}: give two of {', '.join(list(LABELS)[:5])}")
    return arena_told(labels, said)


def arena_write(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """A ``model_judgment`` file."""
    made = (
        {
            "question_id": row["id"], "model": names["model"], "judge": names["judge"],
            "games": [
                {"judgment": said, "score": label}
                for said, label in zip(row["judgements"] or ["", ""], row["games"], strict=True)
            ],
        }
        for row in rows
    )  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in made)


def arena_summary(folder: Path, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Win rate against the baseline with its interval; fractions.

    Where the makers are silent:
        That the two games of a question, and the three games that a strong verdict counts for, are not drawn
        independently of each other.  ``interval`` draws questions; ``interval_of_games`` draws games one by one, as the
        makers' table does, and is narrower than it should be.
    """
    rows = [row for row in rows if arena_battles([row])]
    if not rows:
        return {"win_rate": None, "interval": None, "interval_of_games": None, "games": 0}
    games = [arena_battles([row]) for row in rows]
    singly = [battle._replace(weight=1) for battles in games for battle in battles for _ in range(battle.weight)]
    tallies = np.array([[sum(b.won * b.weight for b in some), sum(b.weight for b in some)] for some in games])
    each = np.array([[b.won, 1.0] for b in singly])
    return {
        "win_rate": win_rates.win_rate([b for some in games for b in some], "model", "baseline"),
        "interval": win_rates.bootstrap(lambda drawn: _rate(tallies[drawn]), len(tallies)),
        "interval_of_games": win_rates.bootstrap(lambda drawn: _rate(each[drawn]), len(each)),
        "games": sum(map(len, games)),
    }


def _rate(tallies: np.ndarray) -> float:
    """Games won of games played: what `win_rates.bradley_terry` comes to for two players, without the fit."""
    won, played = tallies.sum(0)
    return float(won / played)


BENCHMARKS = (
    Benchmark(
        name="AlpacaEval 2.0", folder="alpaca_eval", hub="tatsu-lab/alpaca_eval", files=ALPACA_FILES,
        load=load_alpaca, grade=needs_judge, judged=True, metric="LC-winrate",
        licence="data CC BY-NC 4.0, code Apache-2.0",
        note="the judge's prompt is ours unless judge_prompt.txt holds the makers'",
        protocol=Protocol(
            wording=ALPACA_WORDING, requests=alpaca_requests, verdict=alpaca_verdict, summarise=alpaca_summary,
            headline="length_controlled_win_rate", own="annotations.json", write=alpaca_write, read=alpaca_read,
        ),
    ),
    Benchmark(
        name="Arena-Hard", folder="arena_hard", hub="lmarena-ai/arena-hard-auto", load=load_arena, grade=needs_judge,
        judged=True, metric="GPT-4-1106", licence="Apache-2.0",
        note="v0.1; the judge's prompt is ours unless judge_prompt.txt holds the makers'",
        protocol=Protocol(
            wording=ARENA_WORDING, requests=arena_requests, verdict=arena_verdict, again=arena_again,
            summarise=arena_summary, headline="win_rate", own="model_judgment.jsonl", write=arena_write,
            read=arena_read,
        ),
    ),
)  # fmt: skip
