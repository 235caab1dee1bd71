"""What a person looks at in a notebook: source, samples, a talk, live curves, one question over steps or models.

All of it can be read as plain text too, says in words what it says in colours, and escapes what a model wrote.
"""

import html
import inspect
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import ipywidgets
import pandas
import seaborn
from IPython.display import DisplayHandle, Image
from matplotlib.figure import Figure

from r1repro import config, plots
from r1repro.compare import last_quarter, side_by_side, whole_lines
from r1repro.models import NAMES, is_readable
from r1repro.records import Refusal
from r1repro.rewards.format import format_reward
from r1repro.rewards.language import is_mixed
from r1repro.run import read_json, readable
from r1repro.site.claims import before_after, effect_text
from r1repro.site.samples import visible

STATIC = "R1REPRO_STATIC"
"""Environment variable: where it is set, `explorer` makes a page without widgets, for readers without a kernel."""


@dataclass(frozen=True, slots=True)
class Page:
    """Something to read, as plain text and in one richer form; Jupyter takes the richest that it can show."""

    text: str
    html: str | None = None
    markdown: str | None = None

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        forms = {"text/plain": self.text, "text/html": self.html, "text/markdown": self.markdown}
        return {kind: form for kind, form in forms.items() if form is not None}


def source(thing: Any) -> Page:
    """The source of a function or class, highlighted, with its address: the code that runs, never a copy.

    >>> from r1repro.algo import grpo
    >>> "def token_mean" in source(grpo.token_mean).markdown
    True
    """
    lines, first = inspect.getsourcelines(thing)
    address = f"{inspect.unwrap(thing).__module__.replace('.', '/')}.py"
    code = "".join(lines)
    return Page(text=code, markdown=f"`{address}`, line {first}\n\n````python\n{code}````\n")


def figure(drawn: Figure) -> Image:
    """A figure of `r1repro.plots` as a picture, with its titles as the text for those who cannot see it."""
    picture = io.BytesIO()
    drawn.savefig(picture, format="png", dpi=drawn.dpi)
    titles = [axes.get_title("left") for axes in drawn.axes]
    width = round(90 * drawn.get_figwidth())
    return Image(data=picture.getvalue(), format="png", alt="; ".join(filter(None, titles)), width=width)


def tiers() -> Page:
    """Every setting at every tier beside the paper's value, and why the cpu tier differs."""
    table = pandas.DataFrame(config.table()).set_index("setting")
    styled = table.style.set_uuid("tiers").set_properties(subset=["cpu", "paper"], **{"font-weight": "bold"})
    styled = styled.set_properties(subset=[table.columns[-1]], **{"text-align": "left", "min-width": "20em"})
    return Page(text=table.to_string(), html=styled.to_html())


_PARTS = re.compile(
    r"(?P<think>&lt;think&gt;.*?(?:&lt;/think&gt;|\Z))|(?P<answer>&lt;answer&gt;.*?(?:&lt;/answer&gt;|\Z))", re.DOTALL
)
_STYLE = {
    "think": "background:#e3eef7;color:#12344d;border-left:3px solid #0072b2;padding:0 3px",
    "answer": "background:#fdebd7;color:#5a2d00;border-left:3px double #d55e00;padding:0 3px;font-weight:bold",
}
"""Blue and orange are told apart by all; the answer is bold and its edge double, for a printer."""

LONGEST = 4000
"""Characters of an output that are shown."""


def sample_table(rows: Sequence[Mapping[str, Any]]) -> Page:
    """Outputs to read, one a row: thinking blue, answer orange and bold, all else as it came, tags kept.

    A row has "text", maybe "question", and other facts that stand beside the output (None: left out).

    >>> sample_table([{"question": "1 + 1 =", "step": 8, "text": "<think>2</think> <answer>2</answer>"}])
    step 8
    Question: 1 + 1 =
    Output: <think>2</think> <answer>2</answer>
    """
    cells, plain = [], []
    for row in rows:
        facts = {k.replace("_", " "): v for k, v in row.items() if k not in ("text", "question") and v is not None}
        text, question = row["text"], f"Question: {row['question']}" if row.get("question") else ""
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]} [{len(text) - LONGEST} more characters]"
        text = visible(text)
        lines = [", ".join(f"{k} {v}" for k, v in facts.items()), question, f"Output: {text}"]
        plain.append("\n".join(filter(None, lines)))
        said = "<br>".join(f"{html.escape(k)} <b>{html.escape(str(v))}</b>" for k, v in facts.items())
        said = said.replace("\n", "<br>")
        cells.append(
            f'<tr><td style="vertical-align:top;text-align:left;white-space:nowrap">{said}</td>'
            f'<td style="text-align:left"><div><i>{html.escape(question)}</i></div>'
            f'<div style="white-space:pre-wrap;font-family:monospace">{_coloured(text)}</div></td></tr>'
        )
    return Page(text="\n\n".join(plain), html=f"<table>{''.join(cells)}</table>")


def _coloured(text: str) -> str:
    """Escaped first, so that the only tags in it are the ones that are put in here."""
    return _PARTS.sub(lambda part: f'<span style="{_STYLE[part.lastgroup]}">{part[0]}</span>', html.escape(text))


def beside(rows: Sequence[Mapping[str, str]]) -> Page:
    """Texts side by side, coloured as in `sample_table`: the headings are the keys of the first row.

    >>> beside([{"before": "2 + 2", "after": "<answer>4</answer>"}])
    before: 2 + 2
    after: <answer>4</answer>
    """
    rows = [{head: visible(text) for head, text in row.items()} for row in rows]
    heads = "".join(f'<th style="text-align:left">{html.escape(head)}</th>' for head in (rows[0] if rows else ()))
    style = "vertical-align:top;text-align:left;white-space:pre-wrap;font-family:monospace;max-width:32em"
    cells = ["".join(f'<td style="{style}">{_coloured(text)}</td>' for text in row.values()) for row in rows]
    plain = "\n\n".join("\n".join(f"{head}: {text}" for head, text in row.items()) for row in rows)
    return Page(text=plain, html=f"<table><tr>{heads}</tr>{''.join(f'<tr>{c}</tr>' for c in cells)}</table>")


def chat(
    model: Path | str,
    questions: str | Sequence[str],
    *,
    seed: int = 0,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    pipeline: config.R1 | None = None,
) -> Page:
    """A model's outputs to questions of one's own, each asked alone: the thinking folded, the answer below it.

    The outputs are those of `python -m r1repro chat` with the same seed and questions.

    Args:
        model: folder of a run (its last checkpoint is taken) or of a model, or the name of a base model.
        temperature, top_p, max_tokens: None for those of an evaluation at tier cpu.
        pipeline: settings of one, see `chat.answers`.

    Raises:
        Refusal: no such model, a question that is empty or too long, a setting out of range.
    """
    from r1repro import chat as talk  # here, because the models' libraries are slow to import

    changes = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    asked = [questions] if isinstance(questions, str) else questions
    found = talk.answers(model, asked, talk.settings(seed, changes), pipeline)
    plain = [f"Question: {output.question}\n{talk.told(output)}" for output in found]
    return Page(text="\n".join(plain), html="".join(map(_answered, found)))


def _answered(output: Any) -> str:
    """An output of `chat` as HTML, escaped."""
    wrap = "white-space:pre-wrap;font-family:monospace;text-align:left"
    parts = [f"<div><i>Question: {html.escape(output.question)}</i></div>"]
    if output.thinking is None:
        parts.append(f'<div style="{wrap}">{_coloured(output.text)}</div>')
    else:
        parts.append(
            f"<details><summary>thinking ({output.num_thinking} tokens)</summary>"
            f'<div style="{wrap};{_STYLE["think"]}">{html.escape(output.thinking)}</div></details>'
        )
    if output.answer:
        parts.append(
            f'<div style="{wrap}">answer: <span style="{_STYLE["answer"]}">{html.escape(output.answer)}</span></div>'
        )
    parts += [f"<div>({html.escape(note)})</div>" for note in output.notes]
    return f'<div style="margin-bottom:1em">{"".join(parts)}</div>'


def compare(first: Path | str, second: Path | str) -> pandas.DataFrame:
    """Two runs side by side, as `python -m r1repro compare` shows them, and all measures of families and levels.

    Columns: the value of each, second minus first, the ends of its 95 % interval, the questions they are means of.
    """
    table = pandas.DataFrame(side_by_side(first, second)).set_index(["part", "what"])
    numbers = ["difference", "low", "high"]
    return table.astype(dict.fromkeys(numbers, float) | {"questions": "Int64"})


def explorer(seed_dir: Path | str, num_static: int = 2) -> Any:
    """The same question's output at each evaluated step.

    In a live kernel: widgets to choose any question and sample.  With R1REPRO_STATIC set: the first sample of the
    ``num_static`` questions with the smallest ids.  An id is a hash of the question, so nobody chose them by eye.
    """
    with readable(Path(seed_dir) / "evaluate"):
        files = sorted(Path(seed_dir).glob("evaluate/step-*/samples.jsonl"))
        rows = {int(f.parent.name.removeprefix("step-")): _by_id(f) for f in files}
        if not rows or not all(rows.values()):
            raise Refusal(f"{seed_dir} holds no evaluated step: run the notebook's training cell first")
        return _explorer("step", rows, lambda ids: ids[:num_static])


def model_explorer(seed_dir: Path | str, names: Sequence[str], kind: str = "reasoning") -> Any:
    """The same question's output of several models, as `explorer` shows those of several steps.

    Without a kernel: the first sample of the question with the smallest id of each family (of open questions, of each
    sort).

    Args:
        names: folders below ``models/`` of the seed, in the order of the columns to read.
        kind: ``reasoning`` or ``open``, the evaluation that is read.
    """
    rows = {}
    for name in names:
        file = Path(seed_dir) / "models" / name / kind / "samples.jsonl"
        with readable(file):
            rows[NAMES.get(name, name)] = _by_id(file)
        if not rows[NAMES.get(name, name)]:
            raise Refusal(f"{file.parent} holds no evaluation: measure {name} first")
    first = next(iter(rows.values()), {})
    return _explorer("model", rows, lambda ids: sorted({_sort(first[i]): i for i in reversed(ids)}.values()))


def _sort(row: Mapping[str, Any]) -> str:
    return dict(map(tuple, row.get("requirements") or ())).get("sort", row.get("family", ""))


def _by_id(file: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in whole_lines(file)}


def _explorer(what: str, rows: Mapping[Any, dict[str, dict]], chosen: Callable[[list[str]], list[str]]) -> Any:
    """Outputs to one question by step or by model; ``chosen`` names the questions of a page without widgets."""
    ids = sorted(set.intersection(*(set(found) for found in rows.values())))

    def view(question: str, sample: int = 0) -> Page:
        shown = []
        for name, row in ((name, found[question]) for name, found in rows.items()):
            output = row["outputs"][sample]
            facts = {what: name, "level": row["level"], "reference": row["gold"] or None}
            facts |= {"verdict": output["verdict"], "tokens": output["length"]}
            shown.append(facts | {"question": row["question"], "text": output["text"]})
        return sample_table(shown)

    if os.environ.get(STATIC):
        pages = [view(question) for question in chosen(ids)]
        return Page(text="\n\n".join(page.text for page in pages), html="".join(page.html for page in pages))
    first = next(iter(rows.values()))
    names = [(f"level {first[i]['level']}: {first[i]['question'][-40:]}", i) for i in ids]
    most = min(len(found[i]["outputs"]) for found in rows.values() for i in ids) - 1
    return ipywidgets.interactive(
        view,
        question=ipywidgets.Dropdown(options=names, layout={"width": "34em"}),
        sample=ipywidgets.IntSlider(0, 0, most),
    )


def form(run_path: Path | str) -> pandas.DataFrame:
    """The form of an evaluation's outputs, as shares: a row a family, and one of all.

    Columns: how many outputs; ``format``, the thinking between its tags; ``one language``, 95 % of its words in the
    question's; ``readable``, both and a summary (`models.is_readable`); ``right``.
    """
    file = Path(run_path) / "samples.jsonl"
    with readable(file):
        rows = [_form_of(row, output) for row in whole_lines(file) for output in row["outputs"]]
    if not rows:
        raise Refusal(f"{run_path} holds no evaluation: evaluate first, then look")
    table = pandas.DataFrame(rows)
    table = pandas.concat([table, table.assign(family="all")])
    found = table.groupby("family", sort=False).mean()
    found.insert(0, "outputs", table.groupby("family", sort=False).size())
    return found


def _form_of(row: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    text, language = output["text"], row["language"]
    return {
        "family": row["family"],
        "format": float(format_reward(text)),
        "one language": float(not is_mixed(text, language)),
        "readable": float(is_readable(text, language)),
        "right": float(output["verdict"] == "right"),
    }


def claims(entries: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Lines of claims.json to read: the paper's numbers, ours, each part of the rule with its interval, and why."""
    rows = []
    for entry in entries:
        detail = entry["detail"]
        parts = detail.get("parts", {})
        rows.append(
            {
                "id": entry["id"],
                "claim": entry["claim"],
                "the paper": entry["paper"],
                "ours: before -> after": before_after(entry) if parts else "",
                "effect with its 95 % interval": "; ".join(effect_text(*part) for part in parts.items()),
                "verdict": entry["verdict"],
                "why": detail.get("why") or detail.get("untested_because", ""),
            }
        )
    return pandas.DataFrame(rows).set_index("id")


def shares(runs: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str, title: str) -> Image:
    """The metrics of training that begin with a prefix and are shares, a panel a run, a line a metric.

    Args:
        runs: title of the panel -> lines of metrics.jsonl.
        prefix: such as ``family/`` or ``depth/``.
    """
    keys = list(dict.fromkeys(key for rows in runs.values() for row in rows for key in row if key.startswith(prefix)))
    drawn, (panels,) = plots.axes_grid(1, len(runs), (5.2 * len(runs), 3.6), sharey=True)
    for axes, (name, rows) in zip(panels, runs.items(), strict=True):
        for key, colour, dash in zip(keys, seaborn.color_palette("colorblind"), _DASHES, strict=False):
            plots.draw_metric(axes, [rows], key, key.removeprefix(prefix).replace("_", " "), colour, dash)
        plots.finish(axes, name, "share of outputs" if axes is panels[0] else "", legend=None)
        axes.set_ylim(0, 1.03)
    panels[-1].legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    drawn.suptitle(title, fontsize=11)
    return figure(drawn)


_DASHES = ("o-", "s--", "^-.", "D:", "v-", "X--", "P-.", "*:")
"""Lines are told apart without their colours too."""


FATES = {
    "wrong": "wrong answer", "format": "no format", "mixed": "languages mixed", "paragraph": "a long paragraph",
    "code": "code in the thinking", "repetition": "repeats itself", "the same": "the same as another",
    "enough": "more than are kept of a question",
}  # fmt: skip
"""Why an output became no example, in the words of ``samples.jsonl`` and in a reader's; in the order of the filters."""


def dropped(run_path: Path | str) -> pandas.DataFrame:
    """What became of the outputs that a stage collected: how many were kept as examples, why each other one was not.

    The rows add up to all that were sampled.
    """
    file = Path(run_path) / "summary.json"
    if not file.exists():
        raise Refusal(f"{run_path} has no summary yet: collect first, then look")
    with readable(file):
        summary = read_json(file)
        counts = {"kept": summary["reasoning examples"]} | {words: 0 for words in FATES.values()}
        counts |= {FATES.get(reason, reason): count for reason, count in summary["dropped"].items()}
        counts["beyond the number wanted"] = summary["outputs"] - sum(counts.values())
        table = pandas.DataFrame({"outputs": counts})
        return table.assign(share=table["outputs"] / summary["outputs"])


@contextmanager
def live_curve(run_path: Path | str, every_s: float = 10.0) -> Iterator[None]:
    """Draw reward and length of a run while the body of the `with` makes it; the last picture stays.

    It only reads metrics.jsonl, so the run may be in this process or another.  What goes wrong in drawing is raised at
    the end, unless the body has failed by itself: then its own error is the one that matters.
    """
    file, handle, stop, failed = Path(run_path) / "metrics.jsonl", DisplayHandle(), threading.Event(), []

    def follow() -> None:
        seen = None
        try:
            while not stop.wait(every_s):
                if file.exists() and (now := file.stat().st_size) != seen:
                    handle.update(figure(_live(Path(run_path))))
                    seen = now
        except BaseException as error:  # raised again below, in the thread that a person looks at
            failed.append(error)

    handle.display(figure(_live(Path(run_path))))
    thread = threading.Thread(target=follow, name="live curve", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
    handle.update(figure(_live(Path(run_path))))


def _live(run: Path) -> Figure:
    rows = whole_lines(run / "metrics.jsonl")
    drawn, ((reward, length),) = plots.axes_grid(1, 2, (10.5, 3.4))
    plots.draw_metric(reward, [rows], "reward/format", "format", plots.ORANGE, "s--")
    plots.draw_metric(reward, [rows], "reward/accuracy", "accuracy", plots.BLUE, "o-")
    if any("reward/language_consistency" in row for row in rows):
        plots.draw_metric(reward, [rows], "reward/language_consistency", "language", plots.GREEN, "^-.")
    plots.draw_metric(length, [rows], "length/mean", "all outputs", plots.BLUE, "o-")
    plots.draw_metric(length, [rows], "length/right", "right outputs", plots.GREEN, "^--")
    plots.finish(reward, "Reward in training", "mean over a rollout")
    plots.finish(length, "Length in training", "tokens an output")
    reward.set_ylim(0, 1.03)
    length.set_ylim(bottom=0)
    drawn.supxlabel("/".join(run.parts[-2:]), fontsize=8, color="0.35")
    if (run / "manifest.json").exists():
        cfg = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["config"]
        for axes in (reward, length):
            axes.set_xlim(0, cfg["num_rollouts"] * cfg["steps_per_rollout"])
    return drawn


CHECKS = (
    ("groups whose rewards all agree", "group/no_variance", None, 0.6,
     "High reward: learned, ask harder questions. Low: nobody succeeds; more outputs a question, or a better base."),
    ("format reward", "reward/format", 0.8, None, "Accuracy follows it. More rollouts, or a base that knows the tags."),
    ("format ahead of accuracy", "format ahead", None, 0.5, "Only the easy half is learned. Easier questions?"),
    ("no readable answer, outputs", "verdict/unparsed", None, 0.1, "Read samples.jsonl: tags missing, or cut?"),
    ("grader failed, outputs", "verdict/failed", None, 0.01, "Masked, so they teach nothing. See rewards/accuracy.py."),
    ("cut at the cap, outputs", "length/truncated", None, 0.1, "Thinking longer is punished so. Raise rl.max_tokens."),
    ("clipped, tokens", "policy/clip_share", None, 0.05,
     "Too far within one rollout. Lower rl.learning_rate or rl.steps_per_rollout, or widen rl.clip_high."),
    ("largest ratio in a step", "policy/ratio_max", None, 11.0,
     "Late steps of a rollout learn from outputs that the policy would hardly write now. Lower rl.learning_rate."),
    ("policy from reference, nats a token", "policy/kl_reference_nats", None, 0.2,
     "It runs away from its reference. Lower rl.learning_rate, or raise rl.kl_coefficient."),
    ("sampler from policy, nats a token", "sampler/divergence_nats", None, 1e-8,
     "They disagree before any update: temperature, top-p or old weights. The ratio is biased."),
    ("entropy, nats a token", "policy/entropy_nats", 0.02, 1.5,
     "Low: all outputs alike, nothing to compare. High: noise; too large a learning rate breaks a policy."),
    ("norm of the gradient", "policy/grad_norm", 1e-4, 10.0,
     "Zero: no group has variance. Very large: lower rl.learning_rate, and look at the largest ratio."),
)  # fmt: skip
"""Name, key of metrics.jsonl, lowest and highest healthy value, advice if it is outside.  The ranges are ours: rules of
thumb from runs of the tiny world, not the paper's."""


def diagnosis(run_path: Path | str) -> pandas.DataFrame:
    """Why does my reward not rise: value, healthy range and plain advice of each suspect, in the last quarter of a run.

    Means over the steps that log a value; one that was never logged is nan.
    """
    file = Path(run_path) / "metrics.jsonl"
    with readable(file):
        late = last_quarter(whole_lines(file))
    if not late:
        raise Refusal(f"{run_path} has no metrics yet: train first, then look")
    late["format ahead"] = late.get("reward/format", nan) - late.get("reward/accuracy", nan)
    late["verdict/failed"] = late.get("verdict/timed_out", nan) + late.get("verdict/error", nan)
    rows = []
    for name, key, low, high, advice in CHECKS:
        value = float(late.get(key, nan))
        healthy = (low is None or value >= low) and (high is None or value <= high)
        state = "not logged" if value != value else "healthy" if healthy else "LOOK"
        limits = f"at most {high:g}" if low is None else f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
        rows.append({"suspect": name, "value": f"{value:.3g}", "healthy": limits, "state": state, "if not": advice})
    return pandas.DataFrame(rows).set_index("suspect")
