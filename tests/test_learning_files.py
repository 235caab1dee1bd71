"""GSM8K and MATH from their files through the whole loop, with the tiny world's base: it learns the form of an answer,
and its answers are graded for what they are.  Not defined where `R1REPRO_DATA` does not have them."""

import json
import os
from pathlib import Path

import models
import pytest

from r1repro import config
from r1repro.stages import r1_zero

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))

SMALL = {
    "rl.num_rollouts": 4, "rl.num_checkpoints": 1, "rl.max_tokens": 80, "evaluate.num_questions": 6, "evaluate.k": 2,
    "evaluate.max_tokens": 80,
}  # fmt: skip

if (DATA / "gsm8k").is_dir():

    @pytest.mark.parametrize("source", ["gsm8k", "math"])
    def test_the_form_is_learned_and_answers_are_graded(tmp_path, source):
        """The format reward rises; nothing is an error of the grader; a digest of the files is in the manifest."""
        changes = SMALL | {"rl.questions": source, "evaluate.questions": source}
        folder = r1_zero.run(config.r1_zero("smoke", 0, changes), tmp_path / "seed-0")
        lines = [line for line in models._without_times(folder / "r1_zero" / "metrics.jsonl") if "reward/mean" in line]
        formats = [line["reward/format"] for line in lines]
        assert formats[-1] > formats[0] + 0.15 and formats[-1] > 0.75, formats
        for line in lines:
            verdicts = {name: line[f"verdict/{name}"] for name in ("right", "wrong", "unparsed", "timed_out", "error")}
            assert sum(verdicts.values()) == pytest.approx(1) and verdicts["error"] == verdicts["timed_out"] == 0
            assert verdicts["wrong"] + verdicts["right"] > 0.1 > verdicts["right"]
        manifest = json.loads((folder / "r1_zero" / "manifest.json").read_text())
        assert any(name.endswith(".jsonl") or name.endswith(".json") for name in manifest["inputs"])
        summaries = [json.loads(p.read_text()) for p in sorted(folder.glob("evaluate/*/summary.json"))]
        assert len(summaries) == 2 and all(s["questions"] == 6 and s["k"] == 2 for s in summaries)
