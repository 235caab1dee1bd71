"""What a person looks at in a notebook: source, samples, live curves, one question over the steps, a diagnosis.

All of it can be read as plain text too, says in words what it says in colours, and escapes what a model wrote.
"""

import html
import inspect
import io
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import ipywidgets
import pandas
from IPython.display import DisplayHandle, Image
from matplotlib.figure import Figure

from r1repro import config, plots
from r1repro.records import Refusal
from r1repro.run import readable

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
        lines = [", ".join(f"{k} {v}" for k, v in facts.items()), question, f"Output: {text}"]
        plain.append("\n".join(filter(None, lines)))
        said = "<br>".join(f"{html.escape(k)} <b>{html.escape(str(v))}</b>" for k, v in facts.items())
        cells.append(
            f'<tr><td style="vertical-align:top;text-align:left;white-space:nowrap">{said}</td>'
            f'<td style="text-align:left"><div><i>{html.escape(question)}</i></div>'
            f'<div style="white-space:pre-wrap;font-family:monospace">{_coloured(text)}</div></td></tr>'
        )
    return Page(text="\n\n".join(plain), html=f"<table>{''.join(cells)}</table>")


def _coloured(text: str) -> str:
    """Escaped first, so that the only tags in it are the ones that are put in here."""
    return _PARTS.sub(lambda part: f'<span style="{_STYLE[part.lastgroup]}">{part[0]}</span>', html.escape(text))


def explorer(seed_dir: Path | str, num_static: int = 2) -> Any:
    """The same question's output at each evaluated step.

    In a live kernel: widgets to choose any question and sample.  With R1REPRO_STATIC set: the first sample of the
    ``num_static`` questions with the smallest ids.  An id is a hash of the question, so nobody chose them by eye.
    """
    with readable(Path(seed_dir) / "evaluate"):
        return _explorer(seed_dir, num_static)


def _explorer(seed_dir: Path | str, num_static: int) -> Any:
    files = sorted(Path(seed_dir).glob("evaluate/step-*/samples.jsonl"))
    steps = {int(f.parent.name.removeprefix("step-")): {row["id"]: row for row in _lines(f)} for f in files}
    if not steps or not all(steps.values()):
        raise Refusal(f"{seed_dir} holds no evaluated step: run the notebook's training cell first")
    ids = sorted(set.intersection(*(set(rows) for rows in steps.values())))

    def view(question: str, sample: int = 0) -> Page:
        shown = []
        for step, row in ((step, rows[question]) for step, rows in steps.items()):
            output = row["outputs"][sample]
            facts = {"step": step, "level": row["level"], "reference": row["gold"], "verdict": output["verdict"]}
            shown.append(facts | {"tokens": output["length"], "question": row["question"], "text": output["text"]})
        return sample_table(shown)

    if os.environ.get(STATIC):
        pages = [view(question) for question in ids[:num_static]]
        return Page(text="\n\n".join(page.text for page in pages), html="".join(page.html for page in pages))
    first = next(iter(steps.values()))
    names = [(f"level {first[i]['level']}: {first[i]['question'][-40:]}", i) for i in ids]
    most = min(len(row["outputs"]) for rows in steps.values() for row in rows.values()) - 1
    return ipywidgets.interactive(
        view,
        question=ipywidgets.Dropdown(options=names, layout={"width": "34em"}),
        sample=ipywidgets.IntSlider(0, 0, most),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may be growing; a newline alone ends one (models write other separators)."""
    if not file.exists():
        return []
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    with readable(file):
        return [json.loads(line) for line in whole.split(b"\n") if line]


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
    rows = _lines(run / "metrics.jsonl")
    drawn, ((reward, length),) = plots.axes_grid(1, 2, (10.5, 3.4))
    plots.draw_metric(reward, [rows], "reward/format", "format", plots.ORANGE, "s--")
    plots.draw_metric(reward, [rows], "reward/accuracy", "accuracy", plots.BLUE, "o-")
    plots.draw_metric(length, [rows], "length/mean", "all outputs", plots.BLUE, "o-")
    plots.draw_metric(length, [rows], "length/right", "right outputs", plots.GREEN, "^--")
    plots.finish(reward, "Reward in training", "mean over a rollout")
    plots.finish(length, "Length in training", "tokens an output")
    reward.set_ylim(0, 1.03)
    length.set_ylim(bottom=0)
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
    metrics = pandas.DataFrame(_lines(Path(run_path) / "metrics.jsonl"))
    if metrics.empty:
        raise Refusal(f"{run_path} has no metrics yet: train first, then look")
    late = {key: column.dropna().tail(max(1, column.count() // 4)).mean() for key, column in metrics.items()}
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
