"""A model as judge: asked over the network, each answer kept on disk, so that no verdict is paid for twice.

Any server that speaks OpenAI's protocol will do.  A judge sees the final summary of an output, what follows the
thinking, and never the thinking (section 3).  Which questions it is asked, and what its answers mean, is a `Protocol`
of `preference` or `facts`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from r1repro.engine import remote
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score
from r1repro.run import append_lines, drop_torn_line, read_lines, readable, sha256_file, writable

CACHE = "judge.jsonl"
WORDING = "judge_prompt.txt"
"""In a benchmark's folder: what is asked instead of our words, such as the prompt of its makers as they publish it."""

CHARS_A_TOKEN = 4
"""Ours: of ASCII text, for a forecast of costs; other characters count as a token each."""


def summary(text: str) -> str:
    r"""The final summary of an output: what follows the thinking, without the tags of an answer.

    Where the paper is silent:
        What of an output whose thinking has no end.  It has no summary: nothing is judged, and it counts as silent.

    >>> summary("<think>\n2 + 2\n</think>\n\n<answer>4</answer>"), summary("4"), summary("<think>2 + ")
    ('4', '4', '')
    """
    before, closed, after = text.rpartition("</think>")
    said = after if closed else "" if "<think>" in text else text
    return re.sub(r"</?answer>", "", said).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a judge is asked."""

    messages: tuple[tuple[str, str], ...]
    """Role and text of each."""

    max_tokens: int
    """Of its answer."""

    alternatives: int = 0
    """How many of the likeliest first tokens are to come with their log-probabilities."""

    def body(self, model: str, least_tokens: int = 0, logprobs: bool = True) -> dict[str, Any]:
        """The request in OpenAI's protocol, at temperature 0."""
        said = [{"role": role, "content": _whole(text)} for role, text in self.messages]
        made = {"model": model, "messages": said, "stream": False, "temperature": 0.0}
        made["max_tokens"] = max(self.max_tokens, least_tokens)
        return made | ({"logprobs": True, "top_logprobs": self.alternatives} if self.alternatives and logprobs else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a judge answered."""

    text: str
    """After its own thinking, where it is a model that thinks."""

    first: Mapping[str, float]
    """The likeliest first tokens and their log-probabilities, nats; empty where the server gives none."""

    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to be asked, and what that will take at most."""

    requests: int
    known: int
    """Answered already."""

    prompt_tokens: int
    """Estimated from the number of characters."""

    output_tokens: int
    """If every answer is as long as it may be."""

    def cost(self, per_million: tuple[float, float]) -> tuple[float, float]:
        """What the prompts alone will cost, and all with the longest answers, by prices of a million tokens in, out."""
        asked = self.prompt_tokens * per_million[0] / 1e6
        return asked, asked + self.output_tokens * per_million[1] / 1e6

    def told(self, per_million: tuple[float, float]) -> str:
        """One line for a person, in the currency of the prices.

        >>> Forecast(1000, 5, 2_000_000, 500_000).told((10, 30))
        '1,000 requests (5 more are answered): about 2,000,000 tokens in, at most 500,000 out; costs 20.00 to 35.00'
        """
        least, most = self.cost(per_million)
        costs = f"costs {least:.2f} to {most:.2f}" if any(per_million) else "no prices given"
        return (
            f"{self.requests:,} requests ({self.known:,} more are answered): about {self.prompt_tokens:,} tokens in, "
            f"at most {self.output_tokens:,} out; {costs}"
        )


class Judge:
    """A model on a server, and a file of what it has answered so far.

    Args:
        folder: where the answers are kept (`CACHE`), by content: model, messages and settings, not the address.
        least_tokens: of an answer, where a protocol allows fewer: for judges that think before they answer.
        logprobs: whether to ask for log-probabilities where a protocol weighs by them; some servers refuse to.
        tries, timeout_s: see `engine.remote.Server`.
    """

    def __init__(
        self, url: str, model: str, folder: Path | str, *, at_once: int = 16, tries: int = 6, timeout_s: float = 600.0,
        least_tokens: int = 0, logprobs: bool = True,
    ):  # fmt: skip
        remote.check_above_0("at_once", at_once)
        if not url.startswith(("http://", "https://")):
            raise Refusal(f"the url is {url!r}: give one that begins with http:// or https://")
        self.url, self.model, self.file = url, model, Path(folder) / CACHE
        self._at_once, self._tries, self._timeout_s = at_once, tries, timeout_s
        self._least_tokens, self._logprobs = least_tokens, logprobs
        drop_torn_line(self.file)
        with readable(self.file):
            self._known = {row["key"]: _reply(row) for row in read_lines(self.file)}

    def spent(self) -> dict[str, int]:
        """Answers on disk, and their tokens as the server counted them."""
        known = list(self._known.values())
        return {
            "answers": len(known),
            "prompt_tokens": sum(reply.prompt_tokens for reply in known),
            "output_tokens": sum(reply.output_tokens for reply in known),
        }

    def forecast(self, requests: Sequence[Request]) -> Forecast:
        """What of these is still to be asked; the same request counts once."""
        missing = dict(self._missing(requests))
        known = len({self._key(request) for request in requests}) - len(missing)
        return Forecast(
            len(missing),
            known,
            sum(tokens(text) for request in missing.values() for _, text in request.messages),
            sum(max(request.max_tokens, self._least_tokens) for request in missing.values()),
        )

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """The judge's answers, those on disk first; each other one is written when it comes.

        Raises:
            Refusal: no server, a wrong key, an unknown model; or requests that no try could get an answer to, once the
                others have theirs.
        """
        missing = list(self._missing(requests))
        if missing:
            writable(self.file.parent)
            with remote.Server(self.url, self.model, self._tries, self._timeout_s) as server:
                failed = self._gather(server, missing)
            if failed:
                raise Refusal(
                    f"{len(failed)} of {len(missing)} verdicts could not be had (the last: {failed[-1]}): the same "
                    "command asks for those again"
                )
        return [self._known[self._key(request)] for request in requests]

    def _gather(self, server: remote.Server, missing: list[tuple[str, Request]]) -> list[str]:
        def ask(job: tuple[str, Request]) -> dict[str, Any] | remote.Failure:
            return server.answer(self._body(job[1]), lambda said: _row(job[0], said))

        def keep(row: dict[str, Any]) -> None:
            append_lines(self.file, [row])
            self._known[row["key"]] = _reply(row)
            bar.update()

        with tqdm(desc="judging", unit="verdict", total=len(missing)) as bar:
            return remote.gather(iter(missing), ask, keep, server, self._at_once)

    def _missing(self, requests: Sequence[Request]) -> Iterator[tuple[str, Request]]:
        seen = set(self._known)
        for request in requests:
            if (key := self._key(request)) not in seen:
                seen.add(key)
                yield key, request

    def _key(self, request: Request) -> str:
        return hashlib.sha256(json.dumps(self._body(request), sort_keys=True).encode()).hexdigest()

    def _body(self, request: Request) -> dict[str, Any]:
        return request.body(self.model, self._least_tokens, self._logprobs)


def tokens(text: str) -> int:
    """About how many tokens a text has, without knowing the judge's tokenizer.

    >>> tokens("eight characters are two tokens"), tokens("\u4e2d\u6587")
    (8, 2)
    """
    ascii = sum(character.isascii() for character in text)
    return -(-ascii // CHARS_A_TOKEN) + len(text) - ascii


def _whole(text: str) -> str:
    """Text without halves of surrogate pairs, which no server takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _row(key: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """What is kept of a reply; None where it holds no answer."""
    if (found := remote.said(body)) is None:
        return None
    message, finish, usage = found
    given = (body["choices"][0].get("logprobs") or {}).get("content") or [{}]
    first = {str(one["token"]): float(one["logprob"]) for one in given[0].get("top_logprobs") or ()}
    return {
        "key": key, "said": message.get("content") or "", "first": first, "model": str(body.get("model") or ""),
        "finish_reason": finish, "usage": usage,
    }  # fmt: skip


def _reply(row: dict[str, Any]) -> Reply:
    usage = row["usage"]
    counts = {"prompt_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
    return Reply(text=summary(row["said"]), first=row["first"], **counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one output."""

    score: Score
    """`unparsed` where the judge gave no verdict that could be read: such an output is counted, and has no value."""

    told: Mapping[str, Any] = field(default_factory=dict)
    """What the protocol keeps of it, as JSON can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a benchmark is judged."""

    wording: str
    """What the judge is asked, in our words: blocks ``<|im_start|>role`` ... ``<|im_end|>``, names in braces."""

    requests: Callable[[Item, str, str], list[Request]]
    """Of an item, a final summary that says something, and a wording."""

    verdict: Callable[[Item, str, Sequence[Reply]], Verdict]
    """By the replies to `requests`; by none for a summary that says nothing."""

    again: Callable[[Request, Reply], Request | None] = lambda request, reply: None
    """What to ask where a reply holds no verdict; None: nothing.  Its reply takes the place of the first."""

    summarise: Callable[[Path, Sequence[Item], Sequence[Mapping[str, Any]]], dict[str, Any]]
    """The benchmark's numbers, of its folder, its items and the rows of `judged`."""

    headline: str
    """Which of them the paper reports."""

    own: str = ""
    """Name of the file of verdicts in the form of the benchmark's makers; empty: they have none."""

    write: Callable[[Sequence[Item], Sequence[Mapping[str, Any]], Mapping[str, str]], str] | None = None
    """That file's text, by the rows of `judged`, and the names of ``model`` and ``judge``."""

    read: Callable[[Item, Mapping[str, Any]], Verdict | None] = lambda item, row: None
    """The verdict that a row of such a file holds; None: it holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Scores and verdicts of some outputs."""

    scores_QK: list[list[float | None]]
    """By item and output; None: the judge's answer could not be read."""

    rows: list[dict[str, Any]]
    """One an output: id, sample, verdict, score, summary, and what the protocol keeps."""

    summary: dict[str, Any]
    """Its numbers; fractions."""


def requests(
    benchmark: Benchmark, folder: Path, items: Sequence[Item], outputs_QK: Sequence[Sequence[str]]
) -> list[Request]:
    """All that a judge will be asked first, for a forecast of the costs."""
    words = wording(benchmark, folder)
    asked = _each(items, outputs_QK)
    return [r for _, item, said in asked if said for r in benchmark.protocol.requests(item, said, words)]


def judged(
    benchmark: Benchmark, folder: Path, items: Sequence[Item], outputs_QK: Sequence[Sequence[str]], judge: Judge
) -> Judged:
    """Scores and verdicts of outputs, thinking and all, of which the judge sees the final summaries.

    Args:
        folder: of the benchmark's data; see `WORDING`.
    """
    protocol, words = benchmark.protocol, wording(benchmark, folder)
    each = list(_each(items, outputs_QK))
    asked = [protocol.requests(item, said, words) if said else [] for _, item, said in each]
    flat = [request for some in asked for request in some]
    replies = judge.ask(flat)
    further = [protocol.again(request, reply) for request, reply in zip(flat, replies, strict=True)]
    late = iter(judge.ask([request for request in further if request]))
    replies = iter([next(late) if more else reply for more, reply in zip(further, replies, strict=True)])
    verdicts = [
        protocol.verdict(item, said, [next(replies) for _ in some])
        for (_, item, said), some in zip(each, asked, strict=True)
    ]
    return collected(benchmark, folder, items, outputs_QK, verdicts)


def collected(
    benchmark: Benchmark,
    folder: Path,
    items: Sequence[Item],
    outputs_QK: Sequence[Sequence[str]],
    verdicts: Sequence[Verdict],
) -> Judged:
    """Rows, scores and numbers, of one verdict an output."""
    rows = [
        {
            "id": item.id, "sample": k, "verdict": verdict.score.verdict, "score": verdict.score.value,
            "summary": said, **verdict.told,
        }
        for (k, item, said), verdict in zip(_each(items, outputs_QK), verdicts, strict=True)
    ]  # fmt: skip
    values = iter(verdict.score.value for verdict in verdicts)
    scores_QK = [[next(values) for _ in outputs] for outputs in outputs_QK]
    counted = {
        "outputs": len(rows),
        "silent": sum(not row["summary"] for row in rows),
        "without a verdict": sum(row["score"] is None for row in rows),
    }
    return Judged(scores_QK=scores_QK, rows=rows, summary=counted | benchmark.protocol.summarise(folder, items, rows))


def _each(items: Sequence[Item], outputs_QK: Sequence[Sequence[str]]) -> Iterator[tuple[int, Item, str]]:
    for item, outputs in zip(items, outputs_QK, strict=True):
        yield from ((k, item, summary(text)) for k, text in enumerate(outputs))


def wording(benchmark: Benchmark, folder: Path) -> str:
    """What the judge is asked: the file `WORDING` of the benchmark's folder where it is there, else our words."""
    file = folder / WORDING
    if not file.exists():
        return benchmark.protocol.wording
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read ({error}): give a prompt in UTF-8, or take it away") from error


def whose_wording(folder: Path) -> str:
    """Whose words the judge is asked in, for the record: ``ours``, or the file with the beginning of its SHA-256."""
    file = folder / WORDING
    return f"{WORDING} {sha256_file(file)[:16]}" if file.exists() else "ours"


def filled(words: str, **values: str) -> tuple[tuple[str, str], ...]:
    """The messages of a wording, with the values in the places of their names; other braces stay.

    Raises:
        Refusal: none of the names stands in it.

    >>> filled("<|im_start|>system\\nBe fair.\\n<|im_end|>\\n<|im_start|>user\\n{a} {b}\\n<|im_end|>", a="{b}")
    (('system', 'Be fair.'), ('user', '{b} {b}'))
    """
    blocks = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", words, re.DOTALL) or [("user", words)]
    name = re.compile(r"\{(" + "|".join(map(re.escape, values)) + r")\}")
    if not name.search(words):
        names = ", ".join(f"{{{one}}}" for one in values)
        raise Refusal(f"{WORDING} holds none of {names}: put them where the question and the output belong")
    return tuple((role, name.sub(lambda found: values[found[1]], text).strip()) for role, text in blocks)


def needs_judge(item: Item, text: str) -> Score:
    """`grade` of a benchmark that is judged.  Refusal: always."""
    raise Refusal("this benchmark needs a judge: give the samples to `python -m r1repro judge`")
