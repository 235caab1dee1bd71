"""The report of runs made up in `test_ledger`: links, well-formed pages, what is published and what is not."""

import base64
import io
import json
import os
import re
import runpy
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r1repro import ledger, pack, paper, plots, report
from r1repro.records import Refusal
from r1repro.site import claims, material, style

write_world = runpy.run_path(str(Path(__file__).with_name("test_ledger.py")))["write_world"]

PICTURE = base64.b64encode(b"not really a picture").decode()


ZERO = ("accuracy_curve", "length_curve", "accuracy_by_level", "reflection_curve", "language_mixing", "diagnosis")
"""The figures that the runs of R1-Zero alone fill."""
NOTEBOOKS = [f"notebooks/{name}.{kind}" for name in ("00_map", "03_r1_zero") for kind in ("html", "ipynb")]


def notebook(*outputs, source="1 + 1"):
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {"execution": {"x": 1}, "tags": ["parameters"]},
            "id": "a", "source": [source], "outputs": list(outputs)}  # fmt: skip
    metadata = {
        "papermill": {"input_path": "notebooks/03.ipynb"},
        "widgets": {"state": {}},
        "kernelspec": {"name": "p", "display_name": "p"},
    }
    return {"cells": [cell, {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["# x"]}],
            "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}  # fmt: skip


def add_notebooks(out, tier="smoke"):
    for place, name in (
        ("notebooks", "00_map"),
        ("seed-0/notebooks", "03_r1_zero"),
        ("seed-1/notebooks", "03_r1_zero"),
    ):
        (out / tier / place).mkdir(parents=True)
        (out / tier / place / f"{name}.ipynb").write_text(json.dumps(notebook(source=place)))


class Page(HTMLParser):
    """Every tag closed in order, and what the page points to."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.links, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        assert tag != "img" or attributes["alt"]
        if tag not in ("img", "meta", "br", "link", "input", "wbr"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    write_world(root / "out", per_level=20)
    add_notebooks(root / "out")
    return root


@pytest.fixture(scope="module")
def built(world):
    return report.build("smoke", world / "out")


def test_the_local_report_lies_in_out_and_every_local_link_exists(built, world):
    assert built == world / "out/smoke/report"
    page = Page((built / "index.html").read_text(encoding="utf-8"))
    files = {link.split("#")[0] for link in page.links} - {""}
    assert files == {"samples.html", "ledger.html", "claims.json", "digests.json",
                     *(f"figures/{name}.png" for name in ZERO), *NOTEBOOKS}  # fmt: skip
    for link in files:
        assert (built / link).resolve().is_file(), link
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert not link.startswith("#") or link[1:] in page.ids, link
    assert "seed-0/notebooks" in (built / "notebooks/03_r1_zero.ipynb").read_text(encoding="utf-8")


def test_links_and_figures_of_the_markdown_exist(built):
    text = (built / "README.md").read_text(encoding="utf-8")
    links = [piece.split(")")[0] for piece in text.split("](")[1:]]
    assert len(links) == len(ZERO) + 2 + 3  # figures, notebooks of the tier and the first seed, data and ledger
    for link in links:
        assert (built / link).resolve().is_file(), link


def test_the_page_needs_nothing_from_elsewhere(built):
    for file in ("index.html", "samples.html", "ledger.html", "notebooks/03_r1_zero.html"):
        text = (built / file).read_text(encoding="utf-8")
        assert "http" not in text and "<script" not in text and 'name="viewport"' in text, file


def test_claims_json_has_every_claim_of_the_paper(built):
    entries = json.loads((built / "claims.json").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in entries] == [claim.id for claim in paper.claims()]
    verdicts = {entry["id"]: entry["verdict"] for entry in entries}
    assert verdicts["C08"] == "reproduced" and verdicts["C10"] == "untestable"
    assert verdicts["C01"] == "trend", "it would be reproduced, if its controls had been run"
    texts = " ".join(Page((built / "index.html").read_text(encoding="utf-8")).texts)
    for entry in entries:
        assert entry["claim"] in texts and (entry["rule"] or entry["detail"]["untested_because"]) in texts


def test_the_local_report_says_what_forbids_publishing(built):
    for name in ("index.html", "README.md"):
        assert "Not for publishing" in (built / name).read_text(encoding="utf-8")


def test_every_verdict_is_told_by_a_word_and_a_sign_and_not_by_colour_alone():
    assert set(claims.SIGN) == set(ledger.VERDICTS) and len(set(claims.SIGN.values())) == 5
    for verdict in ledger.VERDICTS:
        assert f".{verdict} " in style.PAGE and verdict in claims.badge(verdict)


def test_a_second_build_replaces_the_first_whole(built, world):
    (built / "stale.txt").write_text("from another time")
    before = (built / "claims.json").read_bytes()
    report.build("smoke", world / "out")
    assert not (built / "stale.txt").exists() and (built / "claims.json").read_bytes() == before
    assert {path.name for path in built.parent.iterdir()} == {"report", "notebooks", "seed-0", "seed-1", "seed-2"}


def test_a_failed_build_leaves_the_old_one(built, world, monkeypatch):
    def fail(seeds):
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "language_mixing", fail)
    with pytest.raises(RuntimeError):
        report.build("smoke", world / "out")
    assert (built / "index.html").is_file()
    assert not [path for path in built.parent.iterdir() if path.name.startswith(".")]


def test_strange_text_does_not_break_the_pages(world, monkeypatch):
    claims = [c for c in paper.claims() if c.id in ("C01", "C10")]
    strange = [type(c)(**{**{f: getattr(c, f) for f in c.__slots__}, "claim": "a < b & <b> | c"}) for c in claims]
    monkeypatch.setattr(paper, "claims", lambda: tuple(strange))
    monkeypatch.setattr(report, "FIGURES", {"language_mixing": "x < y"})
    folder = report.build("smoke", world / "out", world / "elsewhere")
    assert "a < b & <b> | c" in " ".join(Page((folder / "index.html").read_text(encoding="utf-8")).texts)
    rows = [line for line in (folder / "README.md").read_text(encoding="utf-8").splitlines() if "a < b" in line]
    assert len(rows) == 2 and all("\\| c" in row for row in rows)


def test_no_runs_no_report(tmp_path):
    with pytest.raises(Refusal, match="make reproduce TIER=smoke"):
        report.build("smoke", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps, seeds", [((0,), (0,)), ((0, 100), (4,))])
def test_few_checkpoints_and_one_seed_make_a_report_too(tmp_path, steps, seeds):
    folder = report.build("smoke", write_world(tmp_path / "out", seeds=seeds, steps=steps, per_level=2))
    entries = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    assert not {"reproduced"} & {entry["verdict"] for entry in entries}
    Page((folder / "index.html").read_text(encoding="utf-8"))


def test_published_notebooks_are_still():
    bar = {"output_type": "stream", "name": "stderr", "text": ["100%|####|"]}
    said = {"output_type": "stream", "name": "stdout", "text": ["made in /home/someone/checkout/out/cpu \ufffd\n"]}
    figure = {"output_type": "display_data", "data": {"image/png": "/home/someone/checkout/" + PICTURE}, "metadata": {}}
    slider = {"output_type": "display_data", "metadata": {},
              "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}}  # fmt: skip
    before = notebook(bar, said, figure, slider)
    text = json.dumps(before)
    after = report.static_notebook(before, {"/home/someone/checkout/": ""})
    assert json.dumps(before) == text  # a copy
    outputs = after["cells"][0]["outputs"]
    assert [output["output_type"] for output in outputs] == ["stream", "display_data"]
    assert outputs[0]["text"] == ["made in out/cpu \\ufffd\n"] and outputs[1] == figure
    assert after["metadata"] == {"kernelspec": {"name": "p", "display_name": "p"}}
    assert after["cells"][0]["metadata"] == {"tags": ["parameters"]}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the rules committed, complete clean runs of that commit, and a README with the marks."""
    data = tmp_path / "papers/deepseek-r1"
    data.mkdir(parents=True)
    (data / "claims.csv").write_bytes((paper.folder() / "claims.csv").read_bytes())
    (tmp_path / "README.md").write_text("# top\n<!-- results -->\nof yesterday\n<!-- /results -->\nbottom\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "rules"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)
    commit = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    problems = ledger.problems
    monkeypatch.setattr(ledger, "problems", lambda seeds: problems(seeds, data / "claims.csv"))
    return tmp_path, commit


def publish(root):
    return report.publish("smoke", root / "out", root / "reports")


def test_publishing_fills_reports_and_the_table_of_the_readme(checkout):
    root, commit = checkout
    write_world(root / "out", commit=commit, per_level=2)
    add_notebooks(root / "out")
    folder = publish(root)
    assert folder == root / "reports/smoke"
    names = {os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {"README.md", "index.html", "samples.html", "ledger.html", "claims.json", "digests.json",
                     *NOTEBOOKS, *(f"seeds/seed-{seed}.tar.xz" for seed in range(3)),
                     *(f"figures/{name}.png" for name in ZERO)}  # fmt: skip
    for link in Page((folder / "index.html").read_text(encoding="utf-8")).links:
        assert (folder / link.split("#")[0]).exists(), link
    digests = {row["path"]: row["digest"] for row in json.loads((folder / "digests.json").read_text())}
    for entry in json.loads((folder / "claims.json").read_text(encoding="utf-8")):
        assert all(digests[run["path"]] == run["digest"] for run in entry["runs"])
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# top\n<!-- results -->\n") and readme.endswith("<!-- /results -->\nbottom\n")
    assert "| C01 " in readme and "of yesterday" not in readme and "reports/smoke/README.md" in readme
    publish(root)
    assert (root / "README.md").read_text(encoding="utf-8") == readme
    everything = b"".join(
        path.read_bytes() for path in folder.rglob("*") if path.suffix in (".html", ".md", ".json", ".ipynb")
    )
    assert str(root).encode() not in everything and b"Not for publishing" not in everything


def test_what_is_thought_of_a_claim_is_published_with_the_runs_it_is_about_alone(checkout):
    root, commit = checkout
    write_world(root / "out", commit=commit, per_level=20)
    (root / "reports/remarks").mkdir(parents=True)
    said = root / "reports/remarks/smoke.md"
    said.write_text(f"# Of the runs of {commit[:7]}\n\n## C03\n\nFour questions\nare <few>.\n\n## C07\n\nNo base.\n")
    folder = publish(root)
    told = (folder / "README.md").read_text(encoding="utf-8")
    entries = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    reproduced = next(entry["id"] for entry in entries if entry["verdict"] == "reproduced")
    power = r"Power: vote_gain_slope 0\.[0-9]+, pass1_slope 0\.[0-9]+"
    assert re.search(
        rf"- C03 inconclusive: .*\. {power}\n\n  \*What we think:\* Four questions are <few>\.\n\n- ", told
    )
    for page in ("index.html", "ledger.html"):
        assert "What we think:</i> Four questions are &lt;few&gt;." in (folder / page).read_text(encoding="utf-8")
        assert "Not for publishing" not in (folder / page).read_text(encoding="utf-8") + told
    for text, words in (
        ("# Of the runs of 0123456\n\n## C03\n\nOld.\n", "about the runs of '0123456'"),
        ("", "about the runs of ''"),
        (f"# Of {commit}\n\n## C99\n\nWhat?\n", "C99 is no claim"),
        (f"# Of {commit}\n\n## {reproduced}\n\nFine.\n", f"{reproduced} is no claim"),
    ):
        said.write_text(text)
        with pytest.raises(Refusal, match=words):
            publish(root)
    assert (folder / "README.md").read_text(encoding="utf-8") == told


def test_every_published_claim_that_did_not_come_out_has_its_paragraph():
    files = sorted((Path(__file__).parent.parent / "reports").glob("*/claims.json"))
    assert files
    for file in files:
        owed = [e for e in json.loads(file.read_text()) if e["verdict"] in ("contradicted", "inconclusive")]
        assert not [entry["id"] for entry in owed if "remark" not in entry["detail"]]


def test_the_published_seeds_make_the_same_report_elsewhere(checkout, tmp_path):
    """Their executed notebooks are not packed: those of a seed that was run here are published with them."""
    root, commit = checkout
    write_world(root / "out", commit=commit, per_level=1)
    add_notebooks(root / "out")
    first = json.loads((publish(root) / "claims.json").read_text())
    for seed in (0, 2):
        shutil.rmtree(root / "out" / "smoke" / f"seed-{seed}")
        pack.unpack(root / "reports/smoke/seeds" / f"seed-{seed}.tar.xz", root / "out" / "smoke")
    folder = publish(root)
    assert json.loads((folder / "claims.json").read_text()) == first
    assert "seed-1/notebooks" in (folder / "notebooks/03_r1_zero.ipynb").read_text()


def test_a_picture_of_few_colours_is_lighter_and_looks_the_same():
    figure = plots.Figure(figsize=(5, 3))
    figure.subplots().plot(range(9), label="a curve")
    whole = io.BytesIO()
    figure.savefig(whole)
    few = base64.b64decode(report.lighter(base64.b64encode(whole.getvalue()).decode()))
    first, second = (
        np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (whole.getvalue(), few)
    )
    assert len(few) < 0.6 * len(whole.getvalue()) and abs(first - second).mean() < 1
    assert report.lighter(PICTURE) == PICTURE


@pytest.mark.parametrize(
    "spoil, line",
    [
        (lambda root, commit: {"commit": commit, "dirty": True}, "uncommitted changes"),
        (lambda root, commit: {"commit": "e" * 40}, "rule of C01"),
        (lambda root, commit: (root / "README.md").write_text("no marks") and {"commit": commit}, "no place"),
        (lambda root, commit: (root / "README.md").unlink() or {"commit": commit}, "no place"),
    ],
)
def test_what_must_not_be_published_is_refused_and_changes_nothing(checkout, spoil, line):
    root, commit = checkout
    write_world(root / "out", per_level=1, seeds=(0,), **spoil(root, commit))
    before = (root / "README.md").read_bytes() if (root / "README.md").exists() else None
    with pytest.raises(Refusal, match=line) as refusal:
        publish(root)
    assert "\n" not in str(refusal.value)
    assert not (root / "reports").exists()
    assert before is None or (root / "README.md").read_bytes() == before


@pytest.mark.parametrize("limit", ["LARGEST_NOTEBOOK", "LARGEST_REPORT"])
def test_what_is_too_large_is_refused_and_the_old_report_stays(checkout, limit, monkeypatch):
    root, commit = checkout
    write_world(root / "out", commit=commit, per_level=1, seeds=(0,))
    add_notebooks(root / "out")
    monkeypatch.setattr(report, "FIGURES", {"language_mixing": "One figure is enough here."})
    publish(root)
    monkeypatch.setattr(report, limit, 100)
    with pytest.raises(Refusal, match="at most 100 can be published"):
        publish(root)
    assert [path.name for path in (root / "reports").iterdir()] == ["smoke"]


def test_a_figure_shows_what_the_runs_hold(world):
    seeds = ledger.read("smoke", world / "out")
    ours, theirs = plots.accuracy_curve(seeds).axes
    lines = {line.get_label(): line for line in ours.lines}
    assert list(lines["pass@1"].get_xdata()) == [0, 25, 50, 75, 100]
    assert lines["pass@1"].get_ydata() == pytest.approx([0.25, 0.40625, 0.5625, 0.71875, 0.875])
    assert lines["cons@16"].get_ydata() == pytest.approx([0.5, 1, 1, 1, 1])
    assert list(theirs.lines[1].get_ydata()) == [value for _, value in paper.curve("aime2024_pass1")]


def test_rates_are_divided_by_what_they_are_rates_of(world):
    seeds = ledger.read("smoke", world / "out")
    each, rate = plots.reflection_curve(seeds).axes
    english = next(line for line in rate.lines if line.get_label().startswith("English"))
    assert english.get_ydata()[[0, -1]] == pytest.approx([1000 * 1 / 100, 1000 * 3 / 200])
    right = next(line for line in plots.length_curve(seeds).axes[0].lines if line.get_label() == "right")
    assert right.get_ydata() == pytest.approx([100, 125, 150, 175, 200])
    end = plots.accuracy_by_level(seeds).axes[0].containers[-2]
    assert [bar.get_height() for bar in end.patches] == pytest.approx([1, 1, 0.75, 0.75])


def test_every_figure_names_its_axes_in_ascii(world):
    content = material.read("smoke", world / "out")
    for name in ZERO:
        for axes in report.draw(name, content).axes:
            assert axes.get_title("left") and axes.get_xlabel(), name
            texts = [axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel(), *axes.get_legend_handles_labels()[1]]
            assert all(text.isascii() for text in texts), texts


def test_a_diagnosis_without_metrics_says_so():
    labels = [label for axes in plots.diagnosis([[]]).axes for label in axes.get_legend_handles_labels()[1]]
    assert "all rewards agree (not logged)" in labels
