"""The model card of an exported model: what it is, what it was made of, how it is asked."""

import json
from typing import Any

from transformers import PreTrainedModel

from r1repro import paper, students
from r1repro.config import Policy
from r1repro.engine.vocabulary import Vocabulary

KNOWN = {"Apache-2.0": "apache-2.0"}
"""Licences that Hugging Face has a word for; the others are named and linked."""

LLAMA = (
    "\nThe licence of Llama asks that a model made from it says \"Built with Llama\" and that its name begins with "
    "\"Llama\".\n"
)  # fmt: skip


def card(
    name: str,
    model: PreTrainedModel,
    held: Policy,
    words: Vocabulary,
    manifest: dict[str, Any],
    *,
    base: str | None,
    summary: dict[str, Any],
) -> str:
    """The text of a ``README.md``: a header that Hugging Face reads, and what a person wants to know.

    Args:
        manifest: of the run; empty where there is none.
        base: ``organisation/name`` or ``organisation/name@commit``; None: not recorded.
        summary: of an evaluation; its numbers are shown.
    """
    student = students.of_base(base.partition("@")[0] if base else None)
    stage = manifest.get("stage")
    facts = {
        "base": f"`{base}`" if base else "not recorded",
        "licence of the base": student.licence if student else "not known here: read it where the base comes from",
        "stage": f"`{stage}`" if stage else "no run of this project is beside it",
        "commit of the code": _commit(manifest),
        **{f"SHA-256 of the {what}": f"`{digest}`" for what, digest in manifest.get("inputs", {}).items()},
        "examples": manifest.get("examples"),
        "tokens trained on": manifest.get("tokens", {}).get("trained"),
        "weights trained": _trained(held),
        "stored in": str(model.dtype).removeprefix("torch."),
        "positions": getattr(model.config, "max_position_embeddings", None),
    }
    parts = [
        _header(base, student, stage),
        f"\n# {name}\n\nMade by r1repro, an open re-implementation of the "
        "[DeepSeek-R1 paper](https://arxiv.org/abs/2501.12948), and not by the paper's authors.\n",
        _table(("", ""), facts),
        LLAMA if student and student.licence.startswith("Llama") else "",
        _evaluated(summary),
        f"\n## How to ask\n\n{_asked(words)}\n\n{_program(name, words)}",
    ]
    if manifest.get("config"):
        settings = json.dumps(manifest["config"], indent=1, ensure_ascii=False)
        parts.append(f"\n## Settings\n\n```json\n{settings}\n```\n")
    return "".join(parts)


def _header(base: str | None, student: students.Student | None, stage: str | None) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    if base:
        repository, _, revision = base.partition("@")
        lines += [f"base_model: {repository}"] + ([f"base_model_revision: {revision}"] if revision else [])
    if student and student.licence in KNOWN:
        lines.append(f"license: {KNOWN[student.licence]}")
    elif student:
        name = student.licence.lower().replace(" ", "-")
        link = f"https://huggingface.co/{student.base}"
        lines += ["license: other", f"license_name: {name}", f"license_link: {link}"]
    tags = ["r1repro", "reasoning", *([stage] if stage else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _table(heads: tuple[str, str], rows: dict[str, Any]) -> str:
    cells = [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    return "\n".join(["", f"| {heads[0]} | {heads[1]} |", "|---|---|", *cells, ""])


def _commit(manifest: dict[str, Any]) -> str | None:
    if not manifest.get("commit"):
        return None
    return f"`{manifest['commit']}`" + (", with changes that were not committed" if manifest.get("dirty") else "")


def _trained(held: Policy) -> str:
    if held.weights == "full":
        return "all"
    beside = "in 4 bits (NF4), dequantised before the merge" if held.weights == "qlora" else f"in {held.dtype}"
    return f"adapters of rank {held.rank} and alpha {held.alpha} beside weights {beside}; merged here"


def _evaluated(summary: dict[str, Any]) -> str:
    rows = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    return "\n## Evaluation\n" + _table(("measure", "value"), rows) if rows else ""


def _asked(words: Vocabulary) -> str:
    if words.template == "chat":
        opened = f" The template writes `{words.opening.strip()}` itself." if words.opening else ""
        return f"By its chat template, one question at a time.{opened}"
    return (
        f"In the template of the paper's Table 1, one question at a time:\n\n```text\n{paper.template('QUESTION')}\n```"
    )


def _program(name: str, words: Vocabulary) -> str:
    if words.template == "chat":
        prompt = 'tokenizer.apply_chat_template([{"role": "user", "content": "What is 12 + 30?"}], tokenize=False, '
        prompt += "add_generation_prompt=True)"
    else:
        prompt = json.dumps(paper.template("What is 12 + 30?"))
    special = words.template != "chat"
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
prompt = {prompt}
inputs = tokenizer(prompt, add_special_tokens={special}, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=512)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(output))
```
"""
