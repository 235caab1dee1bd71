"""The pages of a report: numbers with addresses, hostile outputs, what is missing, notebooks without a network."""

import base64
import hashlib
import html
import io
import json
import re
import runpy
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from r1repro import ledger, models, paper, report
from r1repro.records import Refusal
from r1repro.run import read_lines
from r1repro.site import material, mathml, notebook, page, samples, tables

write_world = runpy.run_path(str(Path(__file__).with_name("test_ledger.py")))["write_world"]

STUDENTS = ("qwen-140k", "llama-220k")
PIPELINE = {
    "base": 0.2, "r1_zero": 0.7, "dev1": 0.5, "dev2": 0.75, "dev2_twin": 0.8, "dev3": 0.8, "r1": 0.9,
    **{f"{name}{kind}": share for name in STUDENTS for kind, share in (("", 0.6), ("_base", 0.1), ("_short", 0.3))},
}  # fmt: skip
"""Folder of a made-up model -> its share of right samples."""
RUNS = (
    "dev1/examples", "dev1/sft", "dev2/rl", "dev2/twin", "dev3/judge", "dev3/by_rule", "dev3/by_judge", "dev3/sft",
    "r1/helpful", "r1/safety", "r1/rl", *(f"students/{name}{kind}" for name in STUDENTS for kind in ("", "_short")),
)  # fmt: skip
FAMILIES = ("chain_sum", "search", "logic", "programs")
SORTS = ("fact", "write", "translate", "greet", "harmful", "look-alike")
NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(1)> \x1b[2J \u202e \ufffd \ud800"


def an_id(*words):
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def write_models(out, shares, *, tier="smoke", seeds=(0, 1, 2), per=4, k=4, text=None, commit="c" * 40, dirty=False):
    """Evaluations as `stages.r1.measure` leaves them; a sample is right if its number is small enough."""
    for seed in seeds:
        for name, share in shares.items():
            place = out / tier / f"seed-{seed}" / "models" / name
            wanted = round(share * k)
            for kind, sorts in (("reasoning", FAMILIES), ("open", SORTS)):
                rows = []
                for number, sort in enumerate(sort for sort in sorts for _ in range(per)):
                    language = "en" if number % 2 else "zh"
                    outputs = [an_output(name, i < wanted, sort, kind, language, text) for i in range(k)]
                    rows.append({
                        "step": number + 1, "id": an_id(kind, number), "question": f"{sort} {number}?", "gold": "4",
                        "language": language, "level": number % 3 + 1,
                        "family": sort if kind == "reasoning" else "general",
                        "kind": "answer" if kind == "reasoning" else "open",
                        "requirements": [["sort", sort]] if kind == "open" else [], "outputs": outputs,
                    })  # fmt: skip
                write_run(place / kind, rows, commit=commit, dirty=dirty, tokens={"sampled": 1000})
    return out


def an_output(name, is_right, sort, kind, language, text):
    said = "we add" if language == "en" else "我们相加"
    output = {
        "text": text or f" <think> {said} 2 + 2 </think> So it is 4. <answer> {4 if is_right else 5} </answer>",
        "verdict": "right" if is_right else "wrong", "score": float(is_right), "length": 12, "truncated": False,
        "answer": "4" if is_right else f"{name}",
    }  # fmt: skip
    if kind == "open":
        output |= {"helpful": 3.0 * is_right, "follows": float(is_right), "unsafe": not is_right and sort == "harmful",
                   "refused": sort in ("harmful", "look-alike") and is_right}  # fmt: skip
    return output


def write_run(folder, rows, *, commit="c" * 40, dirty=False, exit="complete", wall_s=90.0, tokens=None):
    folder.mkdir(parents=True)
    manifest = {"commit": commit, "dirty": dirty, "exit": exit, "wall_s": wall_s, "tokens": tokens or {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(lines)


def write_pipeline(out, *, tier="smoke", seeds=(0, 1, 2), runs=RUNS, commit="c" * 40):
    """The runs of training between the models."""
    for seed in seeds:
        for name in runs:
            place = out / tier / f"seed-{seed}" / name
            write_run(place, [], commit=commit, tokens={"trained": 12_345} if "sft" in name else None)
            values = [{"step": step, "language/consistency": 0.9, "reward/accuracy": 0.5} for step in (1, 2, 3, 4)]
            (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
    return out


class Reader(HTMLParser):
    """What a page says and where: ids, links, tags, the text inside each element that has an id."""

    VOID = ("img", "meta", "br", "link", "mspace", "input", "wbr")

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.links, self.tags, self.inside = [], [], [], set(), {}
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        assert not any(name.startswith("on") for name in attributes), attributes
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in self.VOID:
            self.stack.append((tag, attributes.get("id")))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack and self.stack.pop()[0] == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        for _, name in self.stack:
            if name:
                self.inside[name] = self.inside.get(name, "") + data


def read(folder, name="index.html"):
    return Reader((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three whole seeds and a fourth that is held back."""
    out = write_world(tmp_path_factory.mktemp("checkout") / "out", seeds=(0, 1, 2, 3), per_level=2)
    variant = {
        "name": "small_clip",
        "set": {"rl.clip_low": 0.2},
        "by_step": {"0": {"pass@1": 0.25, "cons@k": 0.5, "length": 9}},
    }
    gone = variant | {"name": "gone"}
    (out / "smoke/seed-0/variants.json").write_text(json.dumps([variant, gone]))
    for part in ("r1_zero", "evaluate/step-000000"):
        write_run(out / "smoke/seed-0/variants/small_clip" / part, [])
    return write_pipeline(write_models(out, PIPELINE))


@pytest.fixture(scope="module")
def content(out):
    return material.read("smoke", out)


@pytest.fixture(scope="module")
def folder(out):
    return report.build("smoke", out)


# --- numbers with addresses

THEIR_COLUMNS = {"makes", "notebook", "what differs", "stands for", "seed", *paper.table("table4")[0]}


def test_every_number_of_ours_leads_to_runs_in_the_page(content, folder):
    ids = read(folder).ids
    numbers = 0
    for table in tables.every(content):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                ours = row.kind != "paper" and column not in THEIR_COLUMNS and column != table.columns[0]
                for piece in cell:
                    assert isinstance(piece, tables.Number) or not (ours and re.search(r"\d", piece)), (table.key, cell)
                    assert isinstance(piece, str) or ours and piece.anchor in ids, (table.key, cell)
                    numbers += isinstance(piece, tables.Number)
    assert numbers > 200


def test_every_link_into_a_page_finds_its_place(folder):
    pages = {name: read(folder, name) for name in ("index.html", "samples.html", "ledger.html")}
    for name, found in pages.items():
        assert len(set(found.ids)) == len(found.ids), name
        for link in found.links:
            file, _, place = link.partition("#")
            assert (folder / file).exists(), link
            assert not place or place in pages[file or name].ids, link


def test_the_place_that_a_number_leads_to_has_the_digests_of_its_runs(content, folder):
    table = next(table for table in tables.every(content) if table.key == "stages")
    row = next(row for row in table.rows if row.cells[0] == ("sums",))
    number = row.cells[table.columns.index("Dev1")][0]
    assert number.text == "50.0"
    said = read(folder).inside[number.anchor]
    for seed in content.models:
        reasoning, other = seed["dev1"].runs[:2]
        assert reasoning.digest[:16] in said and reasoning.path in said and other.digest[:16] not in said
    row = next(row for row in table.rows if row.cells[0] == ("helpfulness (0 to 3)",))
    assert row.cells[table.columns.index("Dev1")][0].anchor == "runs-models-dev1-open"


def test_open_questions_lead_to_the_evaluation_of_open_questions(content):
    model = content.models[0]["r1"]
    kinds = {name: tables.kind_of(value, model) for name, (_, value) in models.BENCHMARKS.items()}
    reasoning = {"sums", "search", "logic", "programs", "language consistency", "readable"}
    assert {name for name, kind in kinds.items() if kind == "reasoning"} == reasoning


def test_a_mean_is_over_the_seeds_that_have_the_model(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0, 1), steps=(0,), per_level=1)
    for seed, share in ((0, 0.25), (1, 0.75)):
        write_models(out, {"base": share, "r1_zero": share}, seeds=(seed,), per=2)
    write_models(out, {"dev1": 0.5}, seeds=(1,), per=2)
    shown = {table.key: table for table in tables.every(material.read("smoke", out))}
    sums = [tables.text_of(cell) for cell in shown["stages"].rows[0].cells]
    assert sums == ["sums", "50.0", "50.0", "50.0", "\N{EN DASH}", "\N{EN DASH}", "\N{EN DASH}"]


def test_the_vote_is_of_the_commonest_answer_to_sums(content):
    shown = next(table for table in tables.every(content) if table.key == "r1-zero")
    by_model = {tables.text_of(row.cells[0]): tables.text_of(row.cells[2]) for row in shown.rows}
    assert by_model["base"] == "0.0" and by_model["R1-Zero"] == "100.0"  # 1 and 3 of 4 right, the wrong ones alike
    assert shown.columns[2] == "sums, cons@4"


def test_a_claim_names_the_runs_that_it_rests_on(folder):
    page = read(folder)
    entries = {entry["id"]: entry for entry in json.loads((folder / "claims.json").read_text(encoding="utf-8"))}
    paths = {run["path"] for run in entries["C10"]["runs"]}
    text = (folder / "index.html").read_text(encoding="utf-8")
    card = text[text.index('id="C10"') : text.index("</section>", text.index('id="C10"'))]
    places = set(re.findall(r'href="#(runs-[^"]+)"', card))
    listed = {path for place in places for path in paths if path in page.inside[place]}
    assert listed == paths
    zero = text[text.index('id="C01"') : text.index("</section>", text.index('id="C01"'))]
    assert set(re.findall(r'href="#([^"]+)"', zero)) == {"runs-r1-zero"}


def cards(folder):
    """Claim -> (its card, verdict, place of its section) on the ledger's page."""
    text = (folder / "ledger.html").read_text(encoding="utf-8")
    found = re.findall(
        r'<section class="claim" id="(C\d\d)" data-verdict="(\w+)" data-section="(\d+)">(.*?)</section>', text
    )
    return {id: (card, verdict, int(place)) for id, verdict, place, card in found}


def test_the_ledger_has_every_claim_with_what_a_reader_asks(folder):
    entries = {entry["id"]: entry for entry in json.loads((folder / "claims.json").read_text(encoding="utf-8"))}
    found = cards(folder)
    assert list(found) == list(entries)
    for id, (card, verdict, place) in found.items():
        said, claim = html.unescape(re.sub("<[^>]+>", "", card)).replace("\N{RIGHTWARDS ARROW}", "->"), paper.claim(id)
        assert (
            claim.claim in said
            and claim.paper_numbers in said
            and verdict == entries[id]["verdict"]
            and verdict in said
        )
        assert id in paper.section_map()[place].claims and (claim.rule in said)
        for part in entries[id]["detail"].get("parts", {}).values():
            assert all(
                f"{value:+.3f}"[:6] in said
                for value in (part["value"], part["low"], part["high"])
                if value and abs(value) < 1
            )
        assert verdict == "untestable" or "index.html#runs-" in card
        assert verdict != "untestable" or entries[id]["detail"]["untested_because"] in said
    assert "Controls that were not run: blind_gain_over_half" in re.sub("<[^>]+>", "", found["C01"][0])


def test_the_filter_has_a_button_and_a_rule_for_each_verdict_and_section(folder):
    text, found = (folder / "ledger.html").read_text(encoding="utf-8"), cards(folder)
    assert "<script" not in text and "<form" not in text
    verdicts, places = Counter(v for _, v, _ in found.values()), Counter(str(p) for *_, p in found.values())
    for key, counts in (("verdict", verdicts), ("section", places)):
        buttons = re.findall(
            rf'<label><input type="radio" name="{key}" id="{key}-(\w+)"( checked)?><span>(.*?)</span></label>', text
        )
        assert {name for name, *_ in buttons} == {"all", *counts} and [name for name, on, _ in buttons if on] == ["all"]
        for name, _, said in buttons[1:]:
            assert said.endswith(f"({counts[name]})")
            rule = f'main:has(#{key}-{name}:checked) .claim:not([data-{key}="{name}"]) {{ display: none; }}'
            assert text.count(rule) == 1


def test_arms_stand_behind_their_claims_and_in_no_figure_of_the_pipeline(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0, 1, 2), per_level=1)
    shares = {"base": 0.2, "r1_zero": 0.7, "cap_kept": 0.5, "cap_raised": 0.75}
    write_pipeline(write_models(out, shares, per=2), runs=("arms/cap_start", "arms/cap_kept", "arms/cap_raised"))
    content = material.read("smoke", out)
    assert content.evaluated == ["base", "r1_zero"]
    assert [told.who for told in samples.choose(content)[0].told] == ["base", "R1-Zero"]
    arms = {run.name: run.trains for run in content.runs if run.stage.key == "arms"}
    assert arms == {
        **{f"arms/{name}": True for name in ("cap_kept", "cap_raised", "cap_start")},
        **{f"models/{name}/{kind}": False for name in ("cap_kept", "cap_raised") for kind in ("open", "reasoning")},
    }
    folder = report.build("smoke", out)
    card, verdict, _ = cards(folder)["C05"]
    assert "cap kept" in card and "cap raised" in card and verdict != "untestable"
    assert set(re.findall(r'href="index.html#([^"]+)"', card)) == {"runs-arms"} <= set(read(folder).ids)
    names = [tables.text_of(row.cells[0]) for row in tables.pipeline(content).rows]
    assert names == ["R1-Zero (2.2.4)", "what runs beside the main line", "all evaluations"]


def test_rl_and_distillation_stand_side_by_side_with_what_each_took(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0, 1, 2), per_level=1)
    shares = {"qwen-580k_base": 0.2, "zero-580k": 0.4, "qwen-580k": 0.6, "distilled-580k-rl": 0.7}
    assert tables.versus(material.read("smoke", out)) is None
    runs = ("students/qwen-580k", "arms/zero-580k", "arms/distilled-580k-rl")
    write_pipeline(write_models(out, {"r1_zero": 0.5} | shares, per=2), runs=runs)
    table = tables.versus(material.read("smoke", out))
    rows = {tables.text_of(row.cells[0]): [tables.text_of(cell) for cell in row.cells[1:]] for row in table.rows}
    assert sum(span for _, span in table.groups) == len(table.columns) == 11 and {len(r) for r in rows.values()} == {10}
    minutes = {name: cells[-3] for name, cells in rows.items()}
    assert minutes == {
        "qwen-580k, base": "\N{EN DASH}", "RL on the base of qwen-580k": "1.5", "qwen-580k, distilled": "1.5",
        "RL on distilled qwen-580k": "3.0",  # the student's distillation is paid too
        **{row["model"]: "\N{EN DASH}" for row in paper.table("table6")},
    }  # fmt: skip
    assert rows["DeepSeek-R1-Distill-Qwen-32B"][:2] == ["72.6", "83.3"]
    places = set(read(report.build("smoke", out)).ids)
    assert len({row.cells[-3][0].anchor for row in table.rows[1:4]} & places) == 3
    assert {made.key for made in tables.every(material.read("smoke", out))} <= places


def test_the_pictures_of_pages_lie_beside_them_and_are_the_same():
    png = io.BytesIO()
    whole = Image.new("RGB", (40, 30), (10, 200, 90))
    whole.save(png, "PNG")
    picture = base64.b64encode(png.getvalue()).decode()
    output = {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}}
    cell = a_notebook(("code", "1"))["cells"][0] | {"outputs": [output, output]}
    shown = a_notebook(("code", "1")) | {"cells": [cell]}
    pictures = {}
    text = notebook.page(shown, "03_x", pictures)
    ((name, webp),) = pictures.items()
    assert text.count(f'src="pictures/{name}"') == 2 and "base64" not in text
    with Image.open(io.BytesIO(webp)) as image:
        assert image.format == "WEBP" and list(image.convert("RGB").getdata()) == list(whole.getdata())
    assert notebook.page(shown, "03_x").count("data:image/webp;base64,") == 2


def test_a_claim_leads_to_the_cells_that_show_it():
    cell = {"cell_type": "code", "id": "14-60", "source": ['entries = made(["C01", "C05"])\n', "show.claims(entries)"]}
    shown = {"cells": [a_notebook(("markdown", "show.claims(")).get("cells")[0], cell]}
    address, ids = notebook.claims_shown(shown, "14_controls")
    assert address == "notebooks/14_controls.html#cell-id=14-60" and ids == {"C01", "C05", "C07"}
    assert 'id="cell-id=14-60"' in notebook.page(
        a_notebook(("code", "show.claims(1)")) | {"cells": [a_notebook(("code", "1"))["cells"][0] | cell]},
        "14_controls",
    )
    assert notebook.claims_shown(a_notebook(("code", "1")), "14_controls") == ("", set())


def test_minutes_and_tokens_are_those_of_a_seed(content):
    rows = {tables.text_of(row.cells[1]): row.cells[3:] for row in tables.pipeline(content).rows}
    assert [tables.text_of(cell) for cell in rows["Dev1"]] == ["3.0", "\N{EN DASH}", "12,345"]  # two runs of 90 s
    assert [tables.text_of(cell) for cell in rows["Dev3"]] == ["6.0", "\N{EN DASH}", "12,345"]
    measured = 2 * len(PIPELINE)  # the fourth seed is held back and counts nowhere, in neither sum nor mean
    assert [tables.text_of(cell) for cell in rows[""]][:2] == [f"{1.5 * measured:.1f}", f"{1000 * measured:,}"]


def test_runs_that_are_not_complete_are_left_out(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0,), steps=(0,), per_level=1)
    write_run(out / "smoke/seed-0/dev1/sft", [], exit=None)
    assert not [run for run in material.read("smoke", out).runs if run.name.startswith("dev1")]


def test_held_back_seeds_are_listed_and_no_mean_has_them(out, content, folder):
    assert [seed.seed for seed in content.seeds] == [0, 1, 2] and len(content.models) == 3
    listed = read(folder).inside["run-3-evaluate-step-000000"]
    assert "(held back)" in listed and "(held back)" not in read(folder).inside["run-2-evaluate-step-000000"]


def test_other_settings_without_their_runs_are_not_told(content, folder):
    names = [tables.text_of(row.cells[0]) for row in tables.variants(content).rows]
    assert names == ["small_clip"] and "variants/gone" not in (folder / "digests.json").read_text()


@pytest.mark.parametrize(
    "spoilt", ["models/dev1/open", "dev3/judge", "students/qwen-140k", "variants/small_clip/r1_zero"]
)
def test_a_dirty_run_behind_any_number_forbids_publishing(tmp_path, spoilt):
    out = write_pipeline(
        write_models(write_world(tmp_path / "out", seeds=(0,), steps=(0,), per_level=1), PIPELINE, seeds=(0,)),
        seeds=(0,),
    )
    write_run(out / "smoke/seed-0/variants/small_clip/r1_zero", [])
    write_run(out / "smoke/seed-0/variants/small_clip/evaluate/step-000000", [])
    row = {"name": "small_clip", "set": {}, "by_step": {"0": {"pass@1": 0.2, "cons@k": 0.5, "length": 9}}}
    (out / "smoke/seed-0/variants.json").write_text(json.dumps([row]))
    assert not any("uncommitted" in problem for problem in material.read("smoke", out).problems())
    file = out / "smoke/seed-0" / spoilt / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dirty": True}))
    assert any(f"{spoilt} and 0 more" in problem for problem in material.read("smoke", out).problems())


def test_digests_are_those_of_the_runs(out, folder):
    for row in json.loads((folder / "digests.json").read_text()):
        run = out.parent / row["path"]
        assert (
            row["digest"]
            == hashlib.sha256(b"".join((run / n).read_bytes() for n in ("manifest.json", "samples.jsonl"))).hexdigest()
        )


# --- the paper beside


def test_the_papers_numbers_are_the_papers(content):
    shown = {table.key: table for table in tables.every(content)}
    cells = [[tables.text_of(cell) for cell in row.cells] for row in shown["beside-others"].rows]
    assert next(row for row in cells if row[4] == "AIME 2024 (Pass@1)")[-1] == "79.8"
    stages = [[tables.text_of(cell) for cell in row.cells] for row in shown["stages"].rows]
    assert ["IF-Eval (Prompt Strict)", "", "46.6", "71.7", "72.0", "78.1", "83.3"] in stages
    assert shown["stages"].columns[1:] == ("base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1")
    assert any(tables.text_of(row.cells[0]) == "DeepSeek-R1-Distill-Qwen-32B" for row in shown["students"].rows)
    assert "AIME pass@1 77.9" in shown["r1-zero"].note


def test_what_stands_for_a_benchmark_of_the_paper_is_found_in_its_table():
    named = [name for stands_for, _ in models.BENCHMARKS.values() for name in stands_for.split(", ")]
    absent = [name for name in named if not tables.theirs(name, "table4")]
    assert set(absent) <= {"logic puzzles", "no benchmark", "v2 B.6", "v2 D.3", "over-refusal"}


def test_markdown_and_page_have_the_same_tables(content, folder):
    text, page = (folder / "README.md").read_text(encoding="utf-8"), read(folder)
    for table in tables.every(content):
        assert f"## {table.title}\n" in text and table.key in page.ids and table.note in text
    assert "| sums | 25.0 | 75.0 | 50.0 | 75.0 | 75.0 | 100.0 |" in text
    assert "| _AIME 2024 (Pass@1)_ |  | 77.9 | 59.0 | 74.0 | 78.1 | 79.8 |" in text
    assert "stand in for the paper's benchmarks" in text


# --- what is not there


@pytest.mark.parametrize(
    "shares, runs, absent, present",
    [
        ({}, (), {"stages", "beside-others", "r1-zero", "students"}, {"samples", "seeds", "claims"}),
        ({"base": 0.2}, (), {"stages", "beside-others", "r1-zero", "students"}, {"samples"}),
        ({"base": 0.2, "r1_zero": 0.7}, (), {"stages", "beside-others", "students"}, {"r1-zero"}),
        ({"r1_zero": 0.7, "dev1": 0.5}, RUNS[:2], {"beside-others", "students"}, {"r1-zero", "stages"}),
        ({"r1": 0.9}, RUNS[:4], {"r1-zero", "students"}, {"stages", "beside-others"}),
        ({"qwen-140k_base": 0.1}, (), {"stages", "beside-others", "r1-zero"}, {"students"}),
    ],
)  # fmt: skip
def test_what_has_no_data_is_not_there(tmp_path, shares, runs, absent, present):
    out = write_world(tmp_path / "out", seeds=(0, 1), steps=(0, 100), per_level=1)
    write_pipeline(write_models(out, shares, seeds=(1,), per=2, k=2), seeds=(1,), runs=runs)
    folder = report.build("smoke", out)
    page = read(folder)
    assert not absent & set(page.ids) and present <= set(page.ids)
    assert not {f"#{key}" for key in absent} & set(page.links)
    for link in page.links:
        assert (folder / link.partition("#")[0]).exists() and (not link.startswith("#") or link[1:] in page.ids), link
    read(folder, "samples.html")


def test_one_checkpoint_of_one_seed_is_a_page_too(tmp_path):
    folder = report.build("smoke", write_world(tmp_path / "out", seeds=(4,), steps=(0,), per_level=1))
    assert "claims" not in read(folder).ids and "runs" in read(folder).ids


# --- outputs to read


def test_the_questions_are_those_with_the_smallest_hash(content):
    asked = samples.choose(content)
    english = {
        kind: sorted(an_id(kind, n) for n in range(1, 4 * per, 2)) for kind, per in (("reasoning", 4), ("open", 6))
    }
    for kind, question in zip(("reasoning", "open"), asked, strict=True):
        rows = read_lines(content.seed_dir(0) / f"models/r1/{kind}/samples.jsonl")
        first = next(row for row in rows if row["id"] == english[kind][0])
        assert question.question == first["question"]
    names = [told.who for told in asked[0].told]
    assert names == ["base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1", "qwen-140k, distilled", "llama-220k, distilled"]
    assert names == [told.who for told in asked[1].told]


def test_without_models_the_checkpoints_answer(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0,), per_level=1)
    asked = samples.choose(material.read("smoke", out))
    assert [told.who for told in asked[0].told] == ["R1-Zero, step 0", "R1-Zero, step 50", "R1-Zero, step 100"]
    assert [question.key for question in asked] == ["q1", "q2"]


def test_the_thinking_is_folded_and_all_is_there(folder):
    text = (folder / "samples.html").read_text(encoding="utf-8")
    assert text.count("<details><summary>thinking</summary><pre>we add 2 + 2</pre></details>") == 16
    assert "<details open" not in text and html.escape("So it is 4. <answer> 4 </answer>") in text


def test_nothing_that_a_model_wrote_becomes_html(tmp_path):
    out = write_world(tmp_path / "out", seeds=(0,), steps=(0,), per_level=1)
    write_models(out, {"base": 0.5, "r1": 0.5}, seeds=(0,), per=2, k=2, text=f"<think>{NASTY}</think>{NASTY}")
    folder = report.build("smoke", out)
    for name in ("index.html", "samples.html", "ledger.html"):
        page = read(folder, name)
        assert not {"script", "img"} & page.tags or name == "index.html" and "script" not in page.tags
    text = html.unescape((folder / "samples.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in text  # as text, for it is what the model wrote
    assert all(mark in text for mark in ("\\u001b[2J", "\\u202e", "\\ufffd", "\\ud800"))
    assert not {"\x1b", "\u202e", "\ufffd"} & set(text)


def test_a_very_long_output_is_cut_and_says_so():
    assert samples.shown("x" * (samples.LONGEST + 3)).endswith("x [3 more characters]")


@pytest.mark.parametrize(
    "text, thinking, rest",
    [
        ("a <think> b </think> c", None, "a <think> b </think> c"),
        ("<think></think>", "", ""),
        ("<think> a </think> b </think> c", "a", "b </think> c"),
        ("", None, ""),
    ],
)
def test_an_output_without_the_form_is_shown_whole(text, thinking, rest):
    assert samples.parts(text) == (thinking, rest)


# --- notebooks


def a_notebook(*cells):
    made = [
        {"cell_type": kind, "id": f"c{number}", "metadata": {}, "source": [source],
         **({} if kind == "markdown" else {"execution_count": 1, "outputs": outputs})}
        for number, (kind, source, *outputs) in enumerate(cells)
    ]  # fmt: skip
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_a_notebook_needs_no_network_and_keeps_its_outputs():
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "aGVsbG8="}}
    said = {"output_type": "stream", "name": "stdout", "text": "a < b\n"}
    text = notebook.page(
        a_notebook(("markdown", "# T\nEq. $a_i * b_i$ and `$x$`"), ("code", "1", said, picture)), "03_x"
    )
    Reader(text)
    assert "http" not in text.replace("http://www.w3.org/1998/Math/MathML", "") and "<script" not in text
    assert "<msub><mi>a</mi>" in text and "<code>$x$</code>" in text and "R1FORMULA" not in text
    assert "data:image/png;base64,aGVsbG8=" in text and "a &lt; b" in text
    assert 'href="../index.html"' in text and 'href="03_x.ipynb"' in text


def test_formulas_survive_markdown():
    text = notebook.page(a_notebook(("markdown", "$$\\sum_{i} a_{i} * b_{i} * c_{i}$$\n\ncosts $5 and $6 more")), "x")
    assert "<em>" not in text and 'display="block"' in text and "costs $5 and $6 more" in text


def test_what_notebooks_fold_stays_folded():
    text = notebook.page(a_notebook(("markdown", "<details><summary>Solution</summary>\n\n4\n\n</details>")), "x")
    assert "<details><summary>Solution</summary>" in text


def test_a_damaged_notebook_is_named():
    broken = a_notebook(("code", "1")) | {"metadata": {"kernelspec": {"name": "p"}}}
    with pytest.raises(Refusal, match="notebook 07_x is damaged") as refusal:
        notebook.page(broken, "07_x")
    assert "\n" not in str(refusal.value)


SOURCES = sorted((paper.folder().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_every_formula_of_our_notebooks_is_read(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    for found in (found for text in texts for found in mathml.MATH.finditer(text) if not found["code"]):
        made = mathml.math(found["block"] or found["line"])
        assert made.startswith("<math"), found[0]
        ElementTree.fromstring(made)


@pytest.mark.parametrize(
    "tex, part",
    [
        (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
        (r"\frac{a}{b+1}", "<mfrac><mrow><mi>a</mi></mrow>"),
        (r"x_i^2", "<msubsup><mi>x</mi><mrow><mi>i</mi></mrow><mrow><mn>2</mn></mrow></msubsup>"),
        (r"\sum_{i=1}^{G} r_i", "<munderover><mo movablelimits"),
        (r"[-9, 11]", '<mo form="prefix">−</mo><mn>9</mn>'),
        (r"1-p", "<mn>1</mn><mo>−</mo><mi>p</mi>"),
        (r"(a)-b", "</mo><mo>−</mo><mi>b</mi>"),
        (r"\text{a <b> & c}", "<mtext>a\N{NO-BREAK SPACE}&lt;b&gt;\N{NO-BREAK SPACE}&amp;\N{NO-BREAK SPACE}c</mtext>"),
        (r"\left(\frac{a}{b}\right)", '<mo stretchy="true" fence="true">)</mo></mrow>'),
        (r"\mathcal J", '<mi class="cal">J</mi>'),
        (r"\pi_{\theta_{old}}", "<msub><mi>π</mi>"),
    ],
)
def test_tex_becomes_mathml(tex, part):
    made = mathml.math(tex)
    assert part in made
    ElementTree.fromstring(made)


@pytest.mark.parametrize(
    "tex",
    [
        r"\begin{cases} a \end{cases}",
        "a_",
        "{a",
        "a}",
        r"\left( a",
        r"\right)",
        r"\frac{a}",
        "<script>",
        r"\unknown{x}",
        "\\",
    ],
)
def test_tex_that_is_not_known_stays_as_it_was(tex):
    made = mathml.math(tex)
    assert "<script" not in made and (
        made == f'<code class="tex">{html.escape(tex)}</code>' or made.startswith("<math")
    )
    ElementTree.fromstring(made)


@given(
    st.lists(
        st.sampled_from(
            ["\\frac", "{", "}", "_", "^", "a", "1", "\\left(", "\\right)", "[", "\\text", "<", "&", "'", " ", "\\"]
        )
    )
)
def test_any_tex_ends_and_is_well_formed(parts):
    ElementTree.fromstring(mathml.math("".join(parts)))


# --- the whole


def test_every_figure_is_drawn_and_names_its_axes_in_ascii(content, folder):
    assert {path.stem for path in (folder / "figures").iterdir()} == set(report.FIGURES)
    for name in ("benchmark_bars", "students", "consistency_curve", "reward_model_scores"):
        for axes in report.draw(name, content).axes:
            labels = [text.get_text() for text in (*axes.get_xticklabels(), *axes.get_yticklabels())]
            texts = [axes.get_title("left"), axes.get_xlabel(), *labels, *axes.get_legend_handles_labels()[1]]
            assert texts[0] and texts[1] and all(text.replace("\N{MINUS SIGN}", "-").isascii() for text in texts), texts


def test_all_of_it_can_be_published(out, monkeypatch):
    monkeypatch.setattr(ledger, "problems", lambda seeds: [])
    root, name = out.parent, "05_reasoning_rl"
    (root / "README.md").write_text("<!-- results -->\n<!-- /results -->\n")
    (out / "smoke/notebooks").mkdir(exist_ok=True)
    (out / f"smoke/notebooks/{name}.ipynb").write_text(json.dumps(a_notebook(("markdown", f"# {out.resolve()}/x"))))
    published = report.publish("smoke", out, root / "reports")
    assert "| C10 " in (root / "README.md").read_text(encoding="utf-8")
    page = read(published)
    assert page.links.count(f"notebooks/{name}.html") == 2  # from its stage, and from the list
    assert str(root) not in (published / f"notebooks/{name}.html").read_text(encoding="utf-8")
    largest = max((published / "notebooks").iterdir(), key=lambda path: path.stat().st_size)
    assert largest.suffix == ".html"
    monkeypatch.setattr(report, "LARGEST_NOTEBOOK", largest.stat().st_size - 1)
    with pytest.raises(Refusal, match=f"{largest.name} has .* can be published"):
        report.publish("smoke", out, root / "reports")
    assert (published / "index.html").exists()


def test_the_contents_lead_to_every_section(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    wanted = re.findall(r'<h2 id="([^"]+)"', text)
    nav = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', nav) == wanted and len(wanted) >= 12


def test_no_folder_of_this_machine_is_told(out, folder):
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".md", ".json"):
            text = path.read_text(encoding="utf-8")
            assert str(out.parent) not in text and str(Path.home()) + "/" not in text, path


def test_pages_have_no_script_and_name_fonts_with_chinese(folder):
    for name in ("index.html", "samples.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "<script" not in text and "Noto Sans CJK SC" in text and "PingFang SC" in text and "http" not in text
    assert (folder / "index.html").stat().st_size < 400_000


def test_a_tier_of_real_models_does_not_speak_of_the_tiny_world(content):
    said = " ".join(page._opening(content, [], []))
    assert page.TINY[0] in html.unescape(said) and page.SMOKE in html.unescape(said)
    other = " ".join(page._opening(replace(content, tier="gpu"), [], []))
    assert "million parameters" not in other


def test_arms_have_addresses_and_stand_in_no_table_of_the_pipeline():
    empty = dict(tier="smoke", out=Path("out"), everybody=(), seeds=(), runs=(), variants=())
    content = material.Material(models=({"tree": None, "r1": None},), **empty)
    assert content.evaluated == ["r1"]
    patterns = [(stage.key, pattern) for stage in material.STAGES for pattern in (*stage.trained, *stage.measured)]
    first = {name: next(key for key, pattern in patterns if fnmatch(name, pattern)) for name in (
        "arms/tree", "models/tree/reasoning", "models/r1/reasoning", "models/qwen-140k/reasoning",
    )}  # fmt: skip
    assert list(first.values()) == ["arms", "arms", "all-scenarios", "distillation"]
