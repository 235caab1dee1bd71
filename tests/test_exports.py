"""What SWE-bench's and Aider's own harnesses read."""

import json
import shlex

import pytest

from r1repro.__main__ import main
from r1repro.evals import exports
from r1repro.records import Refusal

PATCH = "diff --git a/f.py b/f.py\n--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n-a\n+b\n c\n"
ROW = {"instance_id": "astropy__astropy-12907", "model_name_or_path": "r1/student-7b", "model_patch": PATCH}


@pytest.mark.parametrize(
    "output, patch",
    [
        (f"<think>?</think>\nHere:\n```diff\n{PATCH}```\n", PATCH),
        (
            f"```python\nx = 1\n```\n```patch\n{PATCH}```\n```diff\n{PATCH.replace('+b', '+d')}```",
            PATCH.replace("+b", "+d"),
        ),
        (f"<think>```diff\n{PATCH}```</think>\nI give up.", None),
        (f"The patch:\n{PATCH}", PATCH),
        ("```diff\n-a\n+b\n```", None),
        ("", None),
    ],
)
def test_the_patch_of_an_output(output, patch):
    assert exports.patch_of(output) == patch


def test_predictions_are_written_as_the_harness_reads_them(tmp_path):
    outputs = [("astropy__astropy-12907", f"```diff\n{PATCH}```"), ("django__django-11099", "No idea.")]
    rows = exports.predictions(outputs, "r1/student-7b")
    path = tmp_path / "with space" / "predictions.jsonl"
    words = shlex.split(exports.save_swe_bench(rows, path, workers=8))
    assert words[:3] == ["python", "-m", "swebench.harness.run_evaluation"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options == {
        "--dataset_name": "princeton-nlp/SWE-bench_Verified", "--predictions_path": str(path), "--max_workers": "8",
        "--run_id": "r1__student-7b",
    }  # fmt: skip
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert [set(row) for row in read] == [{"instance_id", "model_name_or_path", "model_patch"}] * 2
    assert [row["model_patch"] for row in read] == [PATCH, ""]


@pytest.mark.parametrize(
    "rows, words",
    [
        ([], ["no model"]),
        ([ROW, "row"], ["prediction 2"]),
        ([ROW | {"model_patch": None}], ["prediction 1", "model_patch"]),
        ([{"instance_id": "astropy__astropy-12907"}], ["model_name_or_path, model_patch"]),
        ([ROW | {"instance_id": "astropy"}], ["'astropy'"]),
        ([ROW | {"instance_id": "../x__y-1/z"}], ["none of SWE-bench"]),
        ([ROW, ROW], ["prediction 2", "twice"]),
        ([ROW | {"model_patch": "I would change f.py"}], ["no unified diff"]),
        ([ROW, ROW | {"instance_id": "django__django-11099", "model_name_or_path": "other"}], ["one model"]),
        ([ROW | {"model_name_or_path": "two words"}], ["without spaces"]),
    ],
)
def test_a_malformed_row_is_refused_and_nothing_is_written(rows, words, tmp_path):
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(Refusal) as caught:
        exports.save_swe_bench(rows, path)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
    assert not path.exists()


def test_aider_gets_its_settings_and_the_command(tmp_path):
    command = exports.save_aider(tmp_path, "r1/student-7b", "http://localhost:8000/v1", max_tokens=4096, threads=2)
    (settings,) = json.loads((tmp_path / ".aider.model.settings.yml").read_text())
    assert settings["name"] == "openai/r1/student-7b" and settings["edit_format"] == "diff"
    assert settings["extra_params"] == {"max_tokens": 4096, "top_p": 0.95} and settings["use_temperature"] == 0.6
    limits = json.loads((tmp_path / ".aider.model.metadata.json").read_text())
    assert limits[settings["name"]]["max_output_tokens"] == 4096
    first, second = command.splitlines()
    assert "OPENAI_API_BASE=http://localhost:8000/v1" in shlex.split(first)
    words = shlex.split(second)
    assert words[1] == "r1-student-7b" and words[words.index("--edit-format") + 1] == "diff"
    assert words[words.index("--read-model-settings") + 1] == str(tmp_path / ".aider.model.settings.yml")


@pytest.mark.parametrize(
    "model, url, more",
    [
        ("two words", "http://x", {}), ("m; rm", "http://x", {}), ("m", "localhost:8000", {}), ("m", "http:// x", {}),
        ("m", "http://x", {"max_tokens": 0}), ("m", "http://x", {"threads": -1}),
    ],
)  # fmt: skip
def test_settings_that_aider_could_not_use_are_refused(model, url, more, tmp_path):
    with pytest.raises(Refusal):
        exports.save_aider(tmp_path / "out", model, url, **more)
    assert not (tmp_path / "out").exists()


def test_instances_and_exercises_are_read_and_never_graded_here(tmp_path):
    swe, polyglot = exports.BENCHMARKS
    row = {"instance_id": "astropy__astropy-12907", "problem_statement": "It breaks.", "repo": "astropy/astropy"}
    (tmp_path / "test.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"instance_id": "a__b-2", "text": "All of it."})
    )
    items = swe.load(tmp_path)
    assert [item.id for item in items] == ["astropy__astropy-12907", "a__b-2"]
    assert "It breaks." in items[0].prompt and "```diff" in items[0].prompt and items[1].prompt == "All of it."
    assert swe.grade(items[0], "x").value is None
    docs = tmp_path / "polyglot" / "rust" / "exercises" / "practice" / "bowling" / ".docs"
    docs.mkdir(parents=True)
    (docs / "instructions.md").write_text("Score it.")
    assert [(i.id, i.group, i.prompt) for i in polyglot.load(tmp_path / "polyglot")] == [
        ("rust/bowling", "rust", "Score it.")
    ]
    with pytest.raises(Refusal, match="git clone"):
        polyglot.load(tmp_path / "nothing")
    (tmp_path / "test.jsonl").write_text(json.dumps(row | {"instance_id": "astropy"}) + "\n")
    with pytest.raises(Refusal, match="line 1"):
        swe.load(tmp_path)


def test_a_run_is_exported_and_its_command_printed(tmp_path, capsys):
    row = {"id": "astropy__astropy-12907", "outputs": [{"text": f"```diff\n{PATCH}```"}, {"text": ""}]}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    words = ["export-swe-bench", "--run", str(tmp_path), "--to", str(tmp_path / "p.jsonl"), "--name", "ours"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("python -m swebench.harness.run_evaluation ")
    assert json.loads((tmp_path / "p.jsonl").read_text()) == ROW | {"model_name_or_path": "ours"}
    assert main(["export-aider", "--url", "http://x:1/v1", "--model", "m", "--to", str(tmp_path / "aider")]) == 0
    assert "benchmark.py m --model openai/m" in capsys.readouterr().out
    (tmp_path / "samples.jsonl").write_text('{"step": 1}\n')
    for run in (tmp_path, tmp_path / "nothing"):
        words[2] = str(run)
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1
