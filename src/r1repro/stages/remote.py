"""A server that speaks OpenAI's protocol, asked for one output at a time: what to send, what to make of the answer.

It is asked again while it is busy or fails; what no asking would mend is told apart from what one question suffers.
"""

import os
import random
import re
import threading
from dataclasses import dataclass
from typing import Any

import httpx

from r1repro.config import Teach
from r1repro.records import Refusal
from r1repro.stages import traces

KEYS = ("R1REPRO_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the server's key, the first one first.  It is never written anywhere."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Before the second try, twice as long before each further one, up to the longest."""

CONNECT_S = 10.0
BUSY = (408, 409, 425, 429)
"""What a server says that may answer later; and all from 500 up."""


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


class Server:
    """Who is asked; to be used with ``with``, from any number of threads.

    Args:
        tries: of one output.
        timeout_s: without a byte, after which a try is lost.

    Raises:
        Refusal: an address that is none, or with a password in it; a key that cannot be sent.
    """

    def __init__(self, cfg: Teach, tries: int, timeout_s: float):
        self.cfg, self.tries, self.stopped = cfg, tries, threading.Event()
        self._address, self._key, self._was_there = _address(cfg.url), _key(), False
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
                    url = bare(self.cfg.url)
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
        code, said, url = reply.status_code, self._message(reply), bare(self.cfg.url)
        if code in (401, 403):
            way_out = f"set {KEYS[0]} (or {KEYS[1]}) to a key of that server"
            return Failure(f"{url} does not accept the key ({code} {said}): {way_out}", is_final=True)
        if code == 404:
            way_out = "mend the model's name (that address with /v1/models lists them), or the url"
            return Failure(f"{url} has no model {self.cfg.model!r} ({code} {said}): {way_out}", is_final=True)
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
        raise Refusal(f"teach.url is no address ({error}): give one such as http://localhost:8000") from error
    if whole.userinfo:
        raise Refusal(f"teach.url holds a name or a password: give {bare(url)}, and set {KEYS[0]} to the key")
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
