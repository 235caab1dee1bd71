"""A server that speaks OpenAI's protocol, asked from many threads: teachers and judges.

It is asked again while it is busy or fails; what no asking would mend is told apart from what one question suffers.
"""

import os
import queue
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from r1repro.records import Refusal
from r1repro.run import Interrupts

KEYS = ("R1REPRO_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the server's key, the first one first.  It is never written anywhere."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Before the second try, twice as long before each further one, up to the longest."""

CONNECT_S = 10.0
BUSY = (408, 409, 425, 429)
"""What a server says that may answer later; and all from 500 up."""


IN_A_ROW = 8
"""Requests that get no answer, one after another (but as many as are asked at once), until a server is given up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no output."""

    reason: str
    is_final: bool = False
    """Whether no other question would fare better."""


class Server:
    """Who is asked; to be used with ``with``, from any number of threads.

    Args:
        tries: of one request.
        timeout_s: without a byte, after which a try is lost.

    Raises:
        Refusal: an address that is none, or with a password in it; a key that cannot be sent.
    """

    def __init__(self, url: str, model: str, tries: int, timeout_s: float):
        for name, value in {"tries": tries, "timeout_s": timeout_s}.items():
            check_above_0(name, value)
        self.url, self.model, self.tries, self.stopped = url, model, tries, threading.Event()
        self._address, self._key, self._was_there = _address(url), _key(), False
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            limits=httpx.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self._client.close()

    def answer(self, body: dict[str, Any], read: Callable[[Any], Any | None]) -> Any | Failure:
        """What ``read`` makes of the reply to a request, or why there is none.

        Args:
            read: of a reply's JSON; None where it holds no answer, and it is asked for again.
        """
        reason, pause_s = "stopped", 0.0
        for number in range(self.tries):
            if self.stopped.wait(pause_s):
                break
            pause_s = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
            try:
                reply = self._client.post(self._address, json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reason = self._plain(error)
                if not self._was_there:
                    url = bare(self.url)
                    return Failure(f"no server at {url} ({reason}): start it, or mend the url", is_final=True)
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
            elif (found := _read(reply, read)) is not None:
                return found
            else:
                reason = f"an answer that is none ({self._plain(reply.text[:80])!r})"
        return Failure(f"{reason}, {self.tries} tries")

    def _refused(self, reply: httpx.Response) -> Failure:
        code, said, url = reply.status_code, self._message(reply), bare(self.url)
        if code in (401, 403):
            way_out = f"set {KEYS[0]} (or {KEYS[1]}) to a key of that server"
            return Failure(f"{url} does not accept the key ({code} {said}): {way_out}", is_final=True)
        if code == 404:
            way_out = "mend the model's name (that address with /v1/models lists them), or the url"
            return Failure(f"{url} has no model {self.model!r} ({code} {said}): {way_out}", is_final=True)
        if code in (301, 302, 307, 308):
            moved = self._plain(reply.headers.get("location", "elsewhere"))
            return Failure(f"{url} has moved to {moved}: give that url", is_final=True)
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


def _read(reply: httpx.Response, read: Callable[[Any], Any | None]) -> Any | None:
    try:
        return read(reply.json())
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def said(body: dict[str, Any]) -> tuple[dict[str, Any], str | None, dict[str, int]] | None:
    """The message of a reply's first choice, why it ended, tokens as the server counts them; None: it says nothing.

    >>> said({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}})
    ({'content': '4'}, 'stop', {'prompt_tokens': 3, 'completion_tokens': 0})
    """
    choice = body["choices"][0]
    message, finish, usage = choice["message"], choice.get("finish_reason"), body.get("usage") or {}
    content = message.get("content") or ""
    if not isinstance(content, str) or not (content.strip() or finish == "length"):
        return None
    return message, finish, {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}


def gather(
    jobs: Iterator[Any], ask: Callable[[Any], Any | Failure], keep: Callable[[Any], None], server: Server, at_once: int
) -> list[str]:
    """Ask all jobs, ``at_once`` side by side; hand what comes to ``keep``, in this thread; returns why some have none.

    The threads are daemons: a second signal need not wait for them.

    Raises:
        Refusal: what no other job would fare better with, or many failures one after another.
        Stopped: by a signal, when the answers under way are kept.
    """
    waiting, answered = queue.Queue(), queue.Queue()
    for _ in range(at_once):
        threading.Thread(target=_work, args=(server, ask, waiting, answered), daemon=True).start()
    failed, in_a_row, under_way = [], 0, 0
    with Interrupts("the answers under way") as interrupts:
        while True:
            while under_way < at_once and not interrupts.asked and (job := next(jobs, None)) is not None:
                waiting.put(job)
                under_way += 1
            if not under_way:
                break
            found = _next(answered)
            under_way -= 1
            if not isinstance(found, Failure):
                keep(found)
                in_a_row = 0
                continue
            failed.append(found.reason)
            in_a_row += 1
            if found.is_final or in_a_row >= max(at_once, IN_A_ROW):
                while not answered.empty():
                    if not isinstance(late := answered.get(), Failure):
                        keep(late)
                raise Refusal(found.reason if found.is_final else _gave_up(found.reason, in_a_row))
        interrupts.stop()
    return failed


def check_above_0(name: str, value: float) -> None:
    if not value > 0:
        raise Refusal(f"{name} is {value}, but it must be above 0: give one such as 1")


def _next(answered: queue.Queue) -> Any | Failure:
    while True:
        with suppress(queue.Empty):
            return answered.get(timeout=0.2)  # so that a signal is seen


def _gave_up(reason: str, count: int) -> str:
    return f"{count} requests failed one after another (the last: {reason}): the same command goes on from here"


def _work(server: Server, ask: Callable, waiting: queue.Queue, answered: queue.Queue) -> None:
    while not server.stopped.is_set():
        try:
            job = waiting.get(timeout=1.0)
        except queue.Empty:
            continue
        try:
            found = ask(job)
        except Exception as error:  # told by the main thread, which would wait for ever
            found = Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", is_final=True)
        answered.put(found)


def _key() -> str | None:
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise Refusal(f"{name} holds something that no server takes as a key: set it anew")
            return key
    return None


def _asked_to_wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT_S) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _address(url: str) -> str:
    """Where a server's chat is.

    >>> _address("http://localhost:8000"), _address("https://api.deepseek.com/v1/?a=1")
    ('http://localhost:8000/v1/chat/completions', 'https://api.deepseek.com/v1/chat/completions?a=1')
    """
    try:
        whole = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Refusal(f"the url is no address ({error}): give one such as http://localhost:8000") from error
    if whole.userinfo:
        raise Refusal(f"the url holds a name or a password: give {bare(url)}, and set {KEYS[0]} to the key")
    path = whole.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d[^/]*(/openai)?$", path) else "/v1/chat/completions"
    return str(whole.copy_with(path=path))


def bare(url: str) -> str:
    """An address without what may be secret in it.

    >>> bare("https://me:word@host:1/v1?key=3")
    'https://host:1/v1'
    """
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
