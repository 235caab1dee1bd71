"""Measure every entry and write `bench/results/cpu.json`; `--tries` measures the peers' settings instead.

An entry runs in rounds: ours, then each peer, each in a process of its own, with nothing beside it.  Round 0 shows
that both sides do the same work and is not counted; the figures are medians over the rounds after it.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.worker import TOP, call
from r1repro.run import environment, now, write_json

RESULTS = TOP / "bench" / "results"

TRL, TRANSFORMERS, VLLM = "TRL 1.16", "transformers generate", "vLLM 0.32, CPU build"

VLLM_CPU = {"env.VLLM_ENABLE_V1_MULTIPROCESSING": 0, "env.VLLM_CPU_KVCACHE_SPACE": 1, "env.VLLM_LOGGING_LEVEL": "ERROR"}
"""The engine in this process, and 1 GiB for keys and values."""

SPINNING = {"env.GOMP_SPINCOUNT": 300_000}
"""libgomp's own number."""

BEST: dict[tuple[str, str], dict[str, Any]] = {
    ("rollout-16x16-short", TRL): SPINNING,
    ("rollout-16x16-long", TRL): SPINNING,
    ("sample-32x16-1M", TRANSFORMERS): {"rows": 128},
    ("sample-32x16-1M", VLLM): VLLM_CPU | {"block_size": 32, "eager": False},
    ("sample-32x16-20M", TRANSFORMERS): {"rows": 128},
    ("sample-32x16-20M", VLLM): VLLM_CPU | {"block_size": 32, "eager": False},
    ("sft-packed", TRL): SPINNING,
}
"""(entry, peer) -> the peer's best settings, found by ``--tries``; `results/cpu-tries.json` has every figure."""

ENTRIES: dict[str, tuple[str, str, dict[str, str]]] = {
    "rollout-16x16-short": ("rollout", "short", {TRL: "theirs"}),
    "rollout-16x16-long": ("rollout", "long", {TRL: "theirs"}),
    "sample-32x16-1M": ("sampling", "1M", {TRANSFORMERS: "transformers", VLLM: "vllm"}),
    "sample-32x16-20M": ("sampling", "20M", {TRANSFORMERS: "transformers", VLLM: "vllm"}),
    "sft-packed": ("sft", "packed", {TRL: "theirs"}),
}
"""Entry -> module, case, and the side of each peer."""

EAGER = {"attention": "eager"}

TRL_VLLM = VLLM_CPU | {
    "replay": False, "use_vllm": True, "vllm_importance_sampling_correction": False, "vllm_max_model_length": 320,
}  # fmt: skip
"""TRL sampling by vLLM in its own process; the settings of vLLM beyond these are TRL's."""

TRIES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("rollout-16x16-short", TRL): [
        {}, {"micro_batch": 32}, {"micro_batch": 16}, {"micro_batch": 8}, EAGER, {"micro_batch": 16} | EAGER,
        {"fused": True}, {"threads": 1}, SPINNING, {"cache_implementation": "static"},
        {"use_transformers_continuous_batching": True},
        {"replay": False}, TRL_VLLM,
    ],
    ("rollout-16x16-long", TRL): [{}, {"micro_batch": 16}, {"micro_batch": 8}, EAGER, SPINNING],
    ("sample-32x16-1M", TRANSFORMERS): [
        {}, {"rows": 256}, {"rows": 128}, EAGER, {"cache": "static"}, {"threads": 1}, SPINNING,
    ],
    ("sample-32x16-20M", TRANSFORMERS): [{}, {"rows": 128}, EAGER, {"cache": "static"}, SPINNING],
    ("sample-32x16-1M", VLLM): [
        VLLM_CPU | more
        for more in (
            {}, {"logprobs": None}, {"eager": False}, {"max_num_seqs": 256}, {"max_num_batched_tokens": 4096},
            {"block_size": 32}, {"block_size": 128}, SPINNING, {"env.VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            {"block_size": 32, "eager": False},
        )
    ],
    ("sample-32x16-20M", VLLM): [
        VLLM_CPU | more
        for more in (
            {}, {"eager": False}, {"max_num_seqs": 256}, {"block_size": 128}, SPINNING,
            {"block_size": 32}, {"block_size": 32, "eager": False},
            {"block_size": 32, "eager": False, "max_num_seqs": 256},
        )
    ],
    ("sft-packed", TRL): [
        {}, {"micro_batch": 4}, {"micro_batch": 2}, {"micro_batch": 1}, EAGER, {"fused": True}, {"threads": 1},
        SPINNING,
    ],
}  # fmt: skip
"""(entry, peer) -> settings to try, each once; the first are the library's own, but for fp32 without checkpointing."""


def rounds(name: str, folder: Path, count: int, best: dict[str, dict[str, Any]]) -> Iterator[dict[str, dict]]:
    """Each round's answers: ours, then every peer's, after round 0, whose answers are dropped."""
    module, case, peers = ENTRIES[name]
    for number in range(count + 1):
        found = {"ours": call(module, "ours", case, folder)}
        for peer, side in peers.items():
            found[peer] = call(module, side, case, folder, **best[peer])
            same_work(name, found["ours"], found[peer])
        if number:
            yield found


def same_work(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise unless both sides had the same weights file and the same number of tokens."""
    for key in ("weights", "tokens", "unit"):
        if ours[key] != theirs[key]:
            raise ValueError(f"{name}: {key} is {ours[key]} on our side and {theirs[key]} on theirs")


def entry(name: str, peer: str, best: dict[str, Any], found: list[dict[str, dict]]) -> dict[str, Any]:
    """One line of the results: medians, and their ratio, above 1 where ours is better."""
    ours, theirs = ([answers[side]["value"] for answers in found] for side in ("ours", peer))
    unit, last = found[0]["ours"]["unit"], found[-1]
    row = {
        "name": name,
        "peer": peer,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "unit": unit,
        "ratio": ratio(statistics.median(ours), statistics.median(theirs), unit),
        "runs": [{"ours": a, "theirs": b, "ratio": ratio(a, b, unit)} for a, b in zip(ours, theirs, strict=True)],
        "tokens": last["ours"]["tokens"],
        "checks": last[peer].get("checks", {}),
        "settings": best,
    }
    if "share_of_matmul" in last["ours"]:
        row["share_of_matmul"] = statistics.median(answers["ours"]["share_of_matmul"] for answers in found)
    return row


def ratio(ours: float, theirs: float, unit: str) -> float:
    """How many times better ours is: of seconds fewer are better, of tokens a second more.

    >>> ratio(2.0, 6.0, "s"), ratio(6.0, 2.0, "tokens/s")
    (3.0, 3.0)
    """
    return theirs / ours if unit == "s" else ours / theirs


def merge(file: Path, rows: Iterable[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Put rows into a JSON list, in the place of those with the same key; a run of one entry keeps the others."""
    rows = list(rows)
    old = json.loads(file.read_text()) if file.exists() else []
    new = {tuple(json.dumps(row[k]) for k in key) for row in rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, [row for row in old if tuple(json.dumps(row[k]) for k in key) not in new] + rows)


def commit() -> str:
    """The commit that is measured, "-dirty" if a file differs from it; results do, as soon as one entry is written."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=TOP, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")


def measure(name: str, count: int) -> None:
    best = {peer: BEST[name, peer] for peer in ENTRIES[name][2]}
    with tempfile.TemporaryDirectory() as folder:
        found = list(rounds(name, Path(folder), count, best))
    stamp = {"when": now(), "commit": commit(), "machine": environment()}
    rows = [entry(name, peer, best[peer], found) | stamp for peer in best]
    merge(RESULTS / "cpu.json", rows, ("name", "peer"))
    for row in rows:
        print(f"{name:20} {row['peer']:24} {row['ours']:10.2f} {row['theirs']:10.2f} {row['unit']} x{row['ratio']:.2f}")


def try_settings(name: str) -> None:
    """Each of the peers' settings once, after ours once; one that fails is told with its last line."""
    module, case, peers = ENTRIES[name]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        call(module, "ours", case, Path(folder))
        for peer, side in peers.items():
            for settings in TRIES[name, peer]:
                row = {"name": name, "peer": peer, "settings": settings}
                try:
                    answer = call(module, side, case, Path(folder), **settings)
                    row |= {key: answer[key] for key in ("value", "unit", "tokens")}
                except RuntimeError as error:
                    row["failed"] = str(error).splitlines()[-1][:200]
                rows.append(row)
                print(name, peer, settings, row.get("value", row.get("failed")), flush=True)
    merge(RESULTS / "cpu-tries.json", rows, ("name", "peer", "settings"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="entry", help=f"of {', '.join(ENTRIES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each entry")
    parser.add_argument("--tries", action="store_true", help="measure the peers' settings, into cpu-tries.json")
    asked = parser.parse_args()
    for name in asked.names or ENTRIES:
        if name not in ENTRIES:
            parser.error(f"no entry {name!r}: choose of {', '.join(ENTRIES)}")
        try_settings(name) if asked.tries else measure(name, asked.rounds)


if __name__ == "__main__":
    main()
