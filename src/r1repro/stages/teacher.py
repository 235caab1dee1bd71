"""Outputs of a teacher that answers over the network: examples for distillation (2.4) from any OpenAI-like server.

Each answer is written when it comes, a line of JSON; the same command goes on with the questions that have none.  A
file of settings stands beside: ``traces.jsonl`` and ``traces.summary.json``.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from r1repro import data
from r1repro.config import SOURCES, Teach, known_source, sources
from r1repro.engine import remote
from r1repro.records import Refusal
from r1repro.run import append_lines, drop_torn_line, environment, now, read_json, readable, writable, write_json
from r1repro.stages import traces

DRAWN = 1000
"""Questions of a source where no number is given."""


@dataclass(frozen=True, slots=True)
class Job:
    """One output to be asked for."""

    key: tuple[str, int]
    """First 16 hex digits of the question's SHA-256, and which of its outputs."""

    question: str
    kept: dict[str, Any]
    """What is known of the question beside its text."""


def ask(
    cfg: Teach, target: Path | str, *, at_once: int = 16, tries: int = 6, timeout_s: float = 1800.0
) -> dict[str, Any]:
    """Ask every question that has no answer yet in ``target``; returns the summary, which is also written beside it.

    Reasoning that comes in a field of its own is put between think tags before the answer.  An answer that was cut at
    the cap is kept and marked; `traces` leaves it out.

    Args:
        at_once: requests side by side.
        tries: of a question, where the server is busy, fails, or is too late.
        timeout_s: without a byte from the server, after which a request counts as lost.

    Where the paper is silent:
        How the teacher was asked.  One question, one turn, no system message, as the README of the released models
        advises.

    Raises:
        Refusal: no server, a wrong key, an unknown model; other settings in ``target``; questions that no try could
            get an answer to, once the others have theirs.
    """
    remote.check_above_0("at_once", at_once)
    target = Path(target)
    beside = target.with_suffix(".summary.json")
    with remote.Server(cfg.url, cfg.model, tries, timeout_s) as server:
        about = {"settings": _shown(cfg), "questions": _digest(cfg)}
        _check(target, beside, about)
        num_outputs = sum(1 for _ in _jobs(cfg, set()))
        if not num_outputs:
            raise Refusal(f"{cfg.questions} holds no question: give another source, file or folder")
        writable(target.parent)
        drop_torn_line(target)
        done = {(row["key"], row["index"]) for row in _rows(target)}
        if not done:
            write_json(beside, about | environment() | {"started": now(), "ended": None})
        failed = _run(cfg, target, done, server, at_once, num_outputs)
    summary = read_json(beside) | {"ended": now(), **_counts(target), "failed": len(failed)}
    write_json(beside, summary)
    if failed:
        raise Refusal(
            f"{len(failed)} of {summary['outputs'] + len(failed)} outputs could not be had (the last: {failed[-1]}): "
            "the same command asks for those again"
        )
    return summary


def _run(cfg: Teach, target: Path, done: set, server: remote.Server, at_once: int, num_outputs: int) -> list[str]:
    """Ask, write, and return why some have no answer."""
    bar = tqdm(desc="asking", unit="answer", initial=len(done), total=num_outputs, disable=len(done) == num_outputs)

    def answered(job: Job) -> dict[str, Any] | remote.Failure:
        return server.answer(_request(cfg, job), lambda body: _row(cfg, job, body))

    def keep(row: dict[str, Any]) -> None:
        bar.update()
        append_lines(target, [row])

    with bar:
        return remote.gather(_jobs(cfg, done), answered, keep, server, at_once)


def _request(cfg: Teach, job: Job) -> dict[str, Any]:
    said = f"{job.question}\n\n{cfg.instruction}" if cfg.instruction else job.question
    return {
        "model": cfg.model, "messages": [{"role": "user", "content": said}], "stream": False,
        "temperature": cfg.temperature, "top_p": cfg.top_p, "max_tokens": cfg.max_tokens,
    }  # fmt: skip


def _row(cfg: Teach, job: Job, body: dict[str, Any]) -> dict[str, Any] | None:
    """None where a reply holds no answer."""
    if (found := remote.said(body)) is None:
        return None
    message, finish, usage = found
    reasoning = next((message[name] for name in traces.REASONING if message.get(name)), None)
    return {
        **job.kept, "key": job.key[0], "index": job.key[1], "question": job.question,
        "output": traces.joined(message.get("content") or "", reasoning), "model": str(body.get("model") or cfg.model),
        "finish_reason": finish, "usage": usage,
    }  # fmt: skip


def _shown(cfg: Teach) -> dict[str, Any]:
    return dataclasses.asdict(cfg) | {"url": remote.bare(cfg.url)}


def _is_source(questions: str) -> bool:
    return questions in SOURCES or not Path(questions).exists()


def _digest(cfg: Teach) -> str | dict[str, str]:
    """What the questions are; those that are generated are known by the name of their source."""
    if _is_source(cfg.questions):
        if not known_source(cfg.questions):
            raise Refusal(f"no questions at {cfg.questions}: give a file or folder of rows, or {sources()}")
        return data.fingerprint(cfg.questions) or cfg.questions
    return traces.digest(traces.shards(cfg.questions))


def _jobs(cfg: Teach, done: set[tuple[str, int]]) -> Iterator[Job]:
    """What is to be asked, without what is done; a question that comes twice is asked once."""
    seen: set[str] = set()
    for text, kept in _questions(cfg):
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if key in seen:
            continue
        if len(seen) == (cfg.num_questions or float("inf")):
            return
        seen.add(key)
        for index in range(cfg.outputs_per_question):
            if (key, index) not in done:
                yield Job((key, index), text, kept)


def _questions(cfg: Teach) -> Iterator[tuple[str, dict[str, Any]]]:
    names = ("id", "family", "level", "language", "gold", "kind")
    if _is_source(cfg.questions):
        for question in data.training_questions(cfg.questions, "teach", cfg.seed, cfg.num_questions or DRAWN):
            yield question.text, {name: getattr(question, name) for name in names}
        return
    for shard in traces.shards(cfg.questions):
        for number, row, _ in shard.rows():
            kept = {name: row[name] for name in names if isinstance(row.get(name), str | int)}
            yield traces.question(row, shard.place(number)), kept


def _rows(target: Path) -> Iterator[dict[str, Any]]:
    """What has been answered."""
    if not target.exists():
        return
    (shard,) = traces.shards(target)
    for number, row, _ in shard.rows():
        if not (isinstance(row.get("key"), str) and isinstance(row.get("index"), int)):
            raise Refusal(f"{shard.place(number)} was not written by this command: choose another file")
        yield row


def _counts(target: Path) -> dict[str, Any]:
    """Over all rows: outputs, those cut at the cap, and tokens as the server counted them."""
    found = {"outputs": 0, "cut at the cap": 0, "prompt_tokens": 0, "completion_tokens": 0}
    for row in _rows(target):
        found["outputs"] += 1
        found["cut at the cap"] += row["finish_reason"] == "length"
        for name in ("prompt_tokens", "completion_tokens"):
            found[name] += row["usage"][name]
    return found


def _check(target: Path, beside: Path, about: dict[str, Any]) -> None:
    """Refuse a file that holds answers to something else."""
    if not target.exists() or not target.stat().st_size:
        return
    if not beside.exists():
        raise Refusal(f"{target} is there without {beside.name}, so it is of something else: choose another file")
    with readable(beside):
        there = read_json(beside)
        old, new = there["settings"], about["settings"]
        changed = [f"{name} ({old.get(name)} there, {new[name]} now)" for name in new if old.get(name) != new[name]]
        if there["questions"] != about["questions"] and not changed:
            changed = ["questions (another content now)"]
    if changed:
        raise Refusal(f"{target} holds answers to other settings, {', '.join(changed[:3])}: choose another file")
