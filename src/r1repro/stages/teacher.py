"""Outputs of a teacher that answers over the network: examples for distillation (2.4) from any OpenAI-like server.

Each answer is written when it comes, a line of JSON; the same command goes on with the questions that have none.  A
file of settings stands beside: ``traces.jsonl`` and ``traces.summary.json``.
"""

import dataclasses
import hashlib
import os
import queue
import random
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tqdm.auto import tqdm

from r1repro import data
from r1repro.config import SOURCES, Teach
from r1repro.records import Refusal
from r1repro.run import Interrupts, append_lines, drop_torn_line, environment, now, read_json, writable, write_json
from r1repro.stages import traces

KEYS = ("R1REPRO_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the server's key, the first one first.  It is never written anywhere."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Before the second try, twice as long before each further one, up to the longest."""

CONNECT_S = 10.0
BUSY = (408, 409, 425, 429)
"""What a server says that may answer later; and all from 500 up."""

IN_A_ROW = 8
"""Questions that get no answer, one after another (but as many as are asked at once), until the server is given up."""

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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no output."""

    reason: str
    is_final: bool = False
    """Whether no other question would fare better."""


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
    _check_limits(cfg, at_once=at_once, tries=tries, timeout_s=timeout_s)
    target = Path(target)
    about = {"settings": _shown(cfg), "questions": _digest(cfg)}
    beside = target.with_suffix(".summary.json")
    is_begun = target.exists() and target.stat().st_size > 0
    if is_begun and not beside.exists():
        raise Refusal(f"{target} is there without {beside.name}, so it is of something else: choose another file")
    if is_begun:
        _check(read_json(beside), about, target)
    num_outputs = sum(1 for _ in _jobs(cfg, set()))
    if not num_outputs:
        raise Refusal(f"{cfg.questions} holds no question: give another source, file or folder")
    writable(target.parent)
    drop_torn_line(target)
    done = {(row["key"], row["index"]) for row in _rows(target)}
    if not done:
        write_json(beside, about | environment() | {"started": now(), "ended": None})
    with _Server(cfg, tries, timeout_s) as server:
        failed = _run(cfg, target, done, server, at_once, num_outputs)
    summary = read_json(beside) | {"ended": now(), **_counts(target), "failed": len(failed)}
    write_json(beside, summary)
    if failed:
        raise Refusal(
            f"{len(failed)} of {summary['outputs'] + len(failed)} outputs could not be had (the last: {failed[-1]}): "
            "the same command asks for those again"
        )
    return summary


def _run(cfg: Teach, target: Path, done: set, server: "_Server", at_once: int, num_outputs: int) -> list[str]:
    """Ask, write, and return why some have no answer.  Threads are daemons: a second signal need not wait for them."""
    waiting, answered = queue.Queue(), queue.Queue()
    for _ in range(at_once):
        threading.Thread(target=_work, args=(server, waiting, answered), daemon=True).start()
    failed, in_a_row, under_way = [], 0, 0
    jobs = _jobs(cfg, done)
    with (
        Interrupts("the answers under way") as interrupts,
        tqdm(desc="asking", unit="answer", initial=len(done)) as bar,
    ):
        while True:
            while under_way < at_once and not interrupts.asked and (job := next(jobs, None)):
                waiting.put(job)
                under_way += 1
            if not under_way:
                break
            found = _next(answered)
            under_way -= 1
            if isinstance(found, dict):
                bar.update()
                append_lines(target, [found])
                in_a_row = 0
                continue
            failed.append(found.reason)
            in_a_row += 1
            if found.is_final or in_a_row >= max(at_once, IN_A_ROW):
                _keep_what_is_there(target, answered)
                raise Refusal(found.reason if found.is_final else _gave_up(found.reason, in_a_row))
        interrupts.stop()
    return failed


def _next(answered: queue.Queue) -> dict[str, Any] | Failure:
    while True:
        with suppress(queue.Empty):
            return answered.get(timeout=0.2)  # so that a signal is seen


def _keep_what_is_there(target: Path, answered: queue.Queue) -> None:
    while not answered.empty():
        if isinstance(found := answered.get(), dict):
            append_lines(target, [found])


def _gave_up(reason: str, count: int) -> str:
    return f"{count} requests failed one after another (the last: {reason}): the same command goes on from here"


def _work(server: "_Server", waiting: queue.Queue, answered: queue.Queue) -> None:
    while not server.stopped.is_set():
        try:
            job = waiting.get(timeout=1.0)
        except queue.Empty:
            continue
        try:
            found = server.answer(job)
        except Exception as error:  # told by the main thread, which would wait for ever
            found = Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", is_final=True)
        answered.put(found)


class _Server:
    """Who is asked."""

    def __init__(self, cfg: Teach, tries: int, timeout_s: float):
        self.cfg, self.tries, self.stopped = cfg, tries, threading.Event()
        self._key = _key()
        self._address, self._was_there = _address(cfg.url), False
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            limits=httpx.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self._client.close()

    def answer(self, job: Job) -> dict[str, Any] | Failure:
        """The row of a question, or why there is none."""
        reason, pause_s = "stopped", 0.0
        for number in range(self.tries):
            if self.stopped.wait(pause_s):
                break
            pause_s = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
            try:
                reply = self._client.post(self._address, json=self._request(job))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reason = self._plain(error)
                if not self._was_there:
                    bare = _bare(self.cfg.url)
                    return Failure(f"no server at {bare} ({reason}): start it, or mend the url", is_final=True)
                continue
            except httpx.HTTPError as error:
                reason = f"no answer, {type(error).__name__} {self._plain(error)}".strip()
                continue
            self._was_there = True
            if reply.status_code in BUSY or reply.status_code >= 500:
                reason = f"{reply.status_code} {self._message(reply)}"
                pause_s = max(pause_s, _asked_to_wait_s(reply))
            elif reply.status_code != 200:
                return self._refused(reply)
            elif (row := self._row(job, reply)) is not None:
                return row
            else:
                reason = f"an answer that is none ({self._plain(reply.text[:80])!r})"
        return Failure(f"{reason}, {self.tries} tries")

    def _request(self, job: Job) -> dict[str, Any]:
        said = f"{job.question}\n\n{self.cfg.instruction}" if self.cfg.instruction else job.question
        return {
            "model": self.cfg.model, "messages": [{"role": "user", "content": said}], "stream": False,
            "temperature": self.cfg.temperature, "top_p": self.cfg.top_p, "max_tokens": self.cfg.max_tokens,
        }  # fmt: skip

    def _row(self, job: Job, reply: httpx.Response) -> dict[str, Any] | None:
        """None where an answer does not hold one."""
        try:
            body = reply.json()
            choice = body["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            said, usage = message.get("content") or "", body.get("usage") or {}
            reasoning = next((message[name] for name in traces.REASONING if message.get(name)), None)
            counts = {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        if not isinstance(said, str) or not (said.strip() or finish == "length"):
            return None
        return {
            **job.kept, "key": job.key[0], "index": job.key[1], "question": job.question,
            "output": traces.joined(said, reasoning), "model": str(body.get("model") or self.cfg.model),
            "finish_reason": finish, "usage": counts,
        }  # fmt: skip

    def _refused(self, reply: httpx.Response) -> Failure:
        code, said, bare = reply.status_code, self._message(reply), _bare(self.cfg.url)
        if code in (401, 403):
            way_out = f"set {KEYS[0]} (or {KEYS[1]}) to a key of that server"
            return Failure(f"{bare} does not accept the key ({code} {said}): {way_out}", is_final=True)
        if code == 404:
            way_out = "mend the model's name (that address with /v1/models lists them), or the url"
            return Failure(f"{bare} has no model {self.cfg.model!r} ({code} {said}): {way_out}", is_final=True)
        if code in (301, 302, 307, 308):
            moved = self._plain(reply.headers.get("location", "elsewhere"))
            return Failure(f"{bare} has moved to {moved}: give that url", is_final=True)
        return Failure(f"{code} {said}", is_final=code == 402)  # no money left

    def _message(self, reply: httpx.Response) -> str:
        """What a server says of an error."""
        try:
            said = reply.json()
            said = said.get("error", said) if isinstance(said, dict) else said
            said = said.get("message", said) if isinstance(said, dict) else said
        except ValueError:
            said = reply.text
        return self._plain(said)

    def _plain(self, said: object) -> str:
        """In one short line, and without the key, which some servers repeat."""
        text = " ".join(str(said).split())
        return (text.replace(self._key, "...") if self._key else text)[:200]


def _key() -> str | None:
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise Refusal(f"{name} holds something that no server takes as a key: set it anew")
            return key
    return None


def _check_limits(cfg: Teach, **limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise Refusal(f"{name} is {value}, but it must be above 0: give one such as 1")
    try:
        url = httpx.URL(cfg.url)
    except httpx.InvalidURL as error:
        raise Refusal(f"teach.url is no address ({error}): give one such as http://localhost:8000") from error
    if url.userinfo:
        raise Refusal(f"teach.url holds a name or a password: give {_bare(cfg.url)}, and set {KEYS[0]} to the key")


def _asked_to_wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT_S) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _address(url: str) -> str:
    """Where a server's chat is.

    >>> _address("http://localhost:8000"), _address("https://api.deepseek.com/v1/?a=1")
    ('http://localhost:8000/v1/chat/completions', 'https://api.deepseek.com/v1/chat/completions?a=1')
    """
    whole = httpx.URL(url)
    path = whole.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d[^/]*(/openai)?$", path) else "/v1/chat/completions"
    return str(whole.copy_with(path=path))


def _bare(url: str) -> str:
    """An address without what may be secret in it.

    >>> _bare("https://me:word@host:1/v1?key=3")
    'https://host:1/v1'
    """
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))


def _shown(cfg: Teach) -> dict[str, Any]:
    return dataclasses.asdict(cfg) | {"url": _bare(cfg.url)}


def _is_source(questions: str) -> bool:
    return questions in SOURCES and not Path(questions).exists()


def _digest(cfg: Teach) -> str:
    """What the questions are; a source is known by its name."""
    if _is_source(cfg.questions):
        return cfg.questions
    if not Path(cfg.questions).exists():
        raise Refusal(f"no questions at {cfg.questions}: give a file or folder, or a source of {', '.join(SOURCES)}")
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


def _check(there: dict[str, Any], about: dict[str, Any], target: Path) -> None:
    old, new = there.get("settings", {}), about["settings"]
    changed = [f"{name} ({old.get(name)} there, {new[name]} now)" for name in new if old.get(name) != new[name]]
    if there.get("questions") != about["questions"] and not changed:
        changed = ["questions (another content now)"]
    if changed:
        raise Refusal(f"{target} holds answers to other settings, {', '.join(changed[:3])}: choose another file")
