"""SWE-bench Verified and Aider-Polyglot: what their own harnesses read, and the command that runs them.

Both need containers and repositories that are no part of this project, so the verdicts are theirs: `grade` is None.
SWE-bench reads predictions (JSON lines).  Aider asks the model itself, over OpenAI's protocol, so it reads settings.

Where the paper is silent:
    The paper's SWE-bench goes through the Agentless scaffold, which finds the places to edit and samples patches; its
    version and settings are not stated.  Ours is one patch for one prompt, or the patches that such a scaffold wrote.
    Aider: the diff format is stated, not the number of tries; its harness has two.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1repro.evals import files
from r1repro.evals.benchmark import Benchmark, Item
from r1repro.records import Refusal, Score
from r1repro.rewards import code
from r1repro.run import read_lines, writable, write_text

_INSTANCE = re.compile(r"[\w.-]+__[\w.-]+-\d+")
_PATCH = re.compile(r"^(?:diff --git |--- )\S.*?^@@ -\d+", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[\w.:-]+(?:/[\w.:-]+)*")


def load_swe_bench(folder: Path) -> list[Item]:
    """Rows with ``instance_id`` and ``problem_statement``; ``text``, which a retrieval wrote, is the whole prompt."""
    items, seen = [], set()
    for record in files.records(folder, prefer=("test",)):
        id, text = files.text_of(record, "instance_id"), record.row.get("text")
        problem, repository = files.text_of(record, "problem_statement"), record.row.get("repo") or "a repository"
        asked = (
            f"{problem}\n\nThis is an issue of {repository}. Resolve it. Answer with a patch that `git apply` takes, "
            "in one ```diff block."
        )
        if not _INSTANCE.fullmatch(id):
            raise Refusal(f"{record.where}: instance_id {id[:60]!r} is none of SWE-bench (owner__name-number): mend it")
        items.append(
            Item(id=files.distinct(id, seen), prompt=text if isinstance(text, str) and text else asked, gold=None)
        )
    return items


def load_polyglot(folder: Path) -> list[Item]:
    """One item for each exercise of a copy of Aider's polyglot-benchmark: <language>/exercises/practice/<name>."""
    found = sorted(folder.glob("*/exercises/practice/*/.docs/instructions.md"))
    if not found:
        raise Refusal(f"no exercises in {folder}: git clone https://github.com/Aider-AI/polyglot-benchmark {folder}")
    return [
        Item(
            id=f"{path.parts[-6]}/{path.parts[-3]}",
            prompt=path.read_text(encoding="utf-8"),
            gold=None,
            group=path.parts[-6],
        )
        for path in found
    ]


def grade(item: Item, text: str) -> Score:
    """No verdict: the benchmark's own harness has it."""
    return Score(value=None, verdict="error")


def lacking(items: Sequence[Item]) -> list[str]:
    """That nothing is graded here, in one line."""
    return [f"{len(items)} questions are not graded here: the benchmark's own harness does, see `evals/exports.py`"]


def patch_of(output: str) -> str | None:
    r"""The unified diff of an output: its last block that holds one, else all that follows the thinking; or None.

    >>> patch_of("<think>x</think>\n```diff\n--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-a\n+b\n```\n").splitlines()[0]
    '--- a/f.py'
    """
    found = [block for block in code.blocks(output, ("diff", "patch", "")) if _PATCH.search(block)]
    said = found[-1] if found else output.rpartition("</think>")[2]
    begin = _PATCH.search(said)
    return said[begin.start() :].rstrip("\n") + "\n" if begin else None


def predictions(outputs: Iterable[tuple[str, str]], model: str) -> list[dict[str, str]]:
    """SWE-bench's rows of (instance_id, output); an output without a patch gets an empty one, which the harness counts
    as unresolved."""
    return [
        {"instance_id": id, "model_name_or_path": model, "model_patch": patch_of(output) or ""}
        for id, output in outputs
    ]


def export_run(run_dir: Path | str, path: Path | str, model: str) -> str:
    """Write the first sample of each question of a run of SWE-bench as predictions; returns the harness's command.

    Raises:
        Refusal: no run there, or none of SWE-bench.
    """
    samples = Path(run_dir) / "samples.jsonl"
    if not samples.is_file():
        raise Refusal(f"no samples.jsonl in {run_dir}: give the folder of an evaluation of SWE-bench Verified")
    try:
        outputs = [(row["id"], row["outputs"][0]["text"]) for row in read_lines(samples)]
    except (KeyError, IndexError, TypeError) as error:
        raise Refusal(
            f"{samples} is no evaluation of a benchmark ({error}): give that of SWE-bench Verified"
        ) from error
    return save_swe_bench(predictions(outputs, model), path)


def save_swe_bench(
    rows: Iterable[Mapping[str, Any]],
    path: Path | str,
    dataset: str = "princeton-nlp/SWE-bench_Verified",
    workers: int = 4,
) -> str:
    """Write predictions as SWE-bench's harness reads them; returns the command that runs it.

    Raises:
        Refusal: a row without one of the three fields, another model's, an instance twice, or a patch that is no
            unified diff; the line says which row.
    """
    path, seen, models, lines = Path(path), set(), set(), []
    for number, row in enumerate(rows, 1):
        where = f"prediction {number}"
        wanted = ("instance_id", "model_name_or_path", "model_patch")
        bad = (
            [name for name in wanted if not isinstance(row.get(name), str)]
            if isinstance(row, Mapping)
            else list(wanted)
        )
        if bad:
            raise Refusal(f"{where}: no text in {', '.join(bad)}: give {', '.join(wanted)}")
        id, model, patch = (row[name] for name in wanted)
        if not _INSTANCE.fullmatch(id):
            raise Refusal(
                f"{where}: instance_id {id[:60]!r} is none of SWE-bench: give one such as astropy__astropy-12907"
            )
        if id in seen:
            raise Refusal(f"{where}: {id} is there twice: the harness takes one patch of an instance, so keep one")
        if patch and not _PATCH.search(patch):
            raise Refusal(f"{where}: the patch of {id} is no unified diff ({patch[:40]!r}): give one, or an empty text")
        seen.add(id)
        models.add(model)
        lines.append(json.dumps({name: row[name] for name in wanted}, ensure_ascii=False) + "\n")
    if len(models) != 1 or not all(_NAME.fullmatch(model) for model in models):
        raise Refusal(f"predictions of {sorted(models) or 'no model'}: give those of one model, named without spaces")
    writable(path.parent)
    write_text(path, "".join(lines))
    name = re.sub(r"[^\w.-]+", "__", models.pop())
    return shlex.join(
        ["python", "-m", "swebench.harness.run_evaluation", "--dataset_name", dataset, "--predictions_path", str(path),
         "--max_workers", str(workers), "--run_id", name]
    )  # fmt: skip


def save_aider(
    folder: Path | str, model: str, url: str, *, max_tokens: int = 32768, temperature: float = 0.6, threads: int = 4
) -> str:
    """Write the two files of settings that Aider reads for a model behind a server of OpenAI's protocol; returns the
    commands for its benchmark, diff format as in the paper.

    Raises:
        Refusal: a model's name with spaces, a url that is none, no positive number of tokens or threads.
    """
    if not _NAME.fullmatch(model):
        raise Refusal(f"model {model!r}: give the name under which the server has it, without spaces")
    if not re.fullmatch(r"https?://[^\s/]+(?:/\S*)?", url):
        raise Refusal(f"url {url!r}: give that of the server, such as http://localhost:8000/v1")
    for what, number in (("max_tokens", max_tokens), ("threads", threads)):
        if number < 1:
            raise Refusal(f"{what} {number}: give a positive number")
    folder, name = Path(folder), f"openai/{model}"
    # JSON is YAML too, so no package is needed to write what Aider reads as YAML.
    settings = [
        {
            "name": name,
            "edit_format": "diff",
            "use_repo_map": True,
            "use_system_prompt": False,  # the README of the released models: no system prompt
            "use_temperature": temperature,
            "reasoning_tag": "think",
            "extra_params": {"max_tokens": max_tokens, "top_p": 0.95},
        }
    ]
    limits = {name: {"max_output_tokens": max_tokens, "litellm_provider": "openai", "mode": "chat"}}
    writable(folder)
    write_text(folder / ".aider.model.settings.yml", json.dumps(settings, indent=2) + "\n")
    write_text(folder / ".aider.model.metadata.json", json.dumps(limits, indent=2) + "\n")
    run = re.sub(r"[^\w.-]+", "-", model)
    quoted = shlex.quote(str(folder / ".aider.model.settings.yml"))
    return "\n".join(
        [
            f"export OPENAI_API_BASE={shlex.quote(url)} OPENAI_API_KEY=none",
            f"./benchmark/benchmark.py {shlex.quote(run)} --model {shlex.quote(name)} --edit-format diff "
            f"--threads {threads} --exercises-dir polyglot-benchmark --read-model-settings {quoted}",
        ]
    )


BENCHMARKS = (
    Benchmark(
        name="SWE-bench Verified", folder="swe_bench_verified", load=load_swe_bench, grade=grade, lacking=lacking,
        hub="princeton-nlp/SWE-bench_Verified", files="data/test-*", metric="resolved %",
        licence="none on the card; code MIT",
        note="graded by its own harness, in containers: `python -m r1repro export-swe-bench`. The paper goes through "
        "the Agentless scaffold, ours is one patch for one prompt",
    ),
    Benchmark(
        name="Aider-Polyglot", folder="polyglot_benchmark", load=load_polyglot, grade=grade, lacking=lacking,
        metric="accuracy", licence="those of the Exercism tracks",
        note="Aider's harness asks the model itself, in several turns: `python -m r1repro export-aider`",
    ),
)  # fmt: skip
