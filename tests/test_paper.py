"""The paper's data: complete, sourced, consistent with itself, and served without a slip."""

import hashlib
import re
from itertools import pairwise

import pytest

from r1repro import notebooks, paper
from r1repro.records import Refusal

PART = re.compile(r"[a-z][a-z0-9_]* [<>] -?\d+(\.\d+)?")


def column(name, key, value):
    return {row[key]: row[value] for row in paper.table(name)}


# the template


def test_the_template_is_the_papers_to_the_last_character():
    digest = hashlib.sha256(paper.template("prompt").encode()).hexdigest()
    assert digest == "7ea49a7d669beb46a7f1c4ea963e6514926f8d8fcb9ed3c3abd4eb1b7cb653c3"


@pytest.mark.parametrize(
    "question", ["", "What is 2 + 2?", "{prompt}", "{0} {x!r} %s", "\\1 \\g<0>", "3 \u52a0 4", " a\n"]
)
def test_a_question_enters_the_template_unaltered(question):
    before, after = paper.template("\0").split("\0")
    assert paper.template(question) == before + question + after
    assert after == ". Assistant:"


# claims


def test_claims_are_numbered_without_gaps_and_complete():
    assert [claim.id for claim in paper.claims()] == [f"C{number:02d}" for number in range(1, 34)]
    for claim in paper.claims():
        for field in ("section", "claim", "confirming_observable", "contradiction", "minimal_experiment", "source"):
            assert getattr(claim, field).strip(), f"{claim.id} has no {field}"
        assert claim.tier in ("core", "extra")
        assert claim.kind in ("quantitative", "qualitative")


def test_a_claim_has_a_rule_and_a_unit_or_a_reason_why_not():
    for claim in paper.claims():
        assert bool(claim.rule) == bool(claim.unit) == (not claim.untested_because), claim.id
        assert claim.unit in ("", "accuracy", "correlation", "ratio")
    assert {claim.id for claim in paper.claims() if claim.rule} == {
        "C01", "C02", "C03", "C04", "C05", "C06", "C08", "C09", "C10", "C11", "C12", "C13", "C14", "C15", "C16", "C17",
        "C18", "C19", "C20", "C21", "C22", "C23", "C24", "C25", "C26", "C27", "C28", "C29", "C30", "C31", "C32", "C33",
    }  # fmt: skip


def test_every_part_of_a_rule_parses_and_is_explained_once():
    readme = (paper.folder() / "README.md").read_text()
    explained = set(re.findall(r"`(\w+)`", readme.split("| Name in a rule")[1].split("\n\n")[0]))
    rules = [rule for claim in paper.claims() for rule in (claim.rule, claim.controls) if rule]
    parts = [part for rule in rules for part in rule.split("; ")]
    assert all(PART.fullmatch(part) for part in parts), parts
    names = [part.split()[0] for part in parts]
    assert len(set(names)) == len(names), "one name, one rule"
    assert set(names) == explained


OWN_BOUNDS = {
    "win_rate": 0.5, "reasoning_beside_general": -0.03, "dev3_minus_dev2": -0.03, "reasoning_beside_preference": -0.03,
    "accuracy_cost": 0.05, "second_round_gain": 0.03,
}  # fmt: skip
"""Those that the observables of the claims name themselves: as good as another, or worse by a stated margin at most."""


def test_a_bound_is_where_nothing_happens():
    """No change is 1 for a quotient and 0 for a difference: a claim is about a direction, not a size."""
    for claim in paper.claims():
        for part in filter(None, [*claim.rule.split("; "), *claim.controls.split("; ")]):
            name, _, number = part.split()
            nothing = 1 if name.endswith("_ratio") else 0
            assert float(number) == OWN_BOUNDS.get(name, nothing), f"{claim.id}: {part}"
            margin = f"{100 * abs(float(number)):g}"
            assert name not in OWN_BOUNDS or re.search(rf"\b{margin}( points|%)", claim.confirming_observable), claim.id


# the map


def test_the_readme_shows_the_map():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)` \| (yes|no) \| (.*?) \| (.*?) ?\|$", readme_map(), re.MULTILINE)
    shown = [
        paper.Section(
            section=section,
            title=title,
            notebook=notebook,
            exists=exists == "yes",
            modules=tuple(re.findall(r"`([\w.]+)`", modules)),
            claims=tuple(re.findall(r"C\d\d", claims)),
        )
        for section, title, notebook, exists, modules, claims in rows
    ]
    assert shown == list(paper.section_map())


def readme_map():
    return (paper.folder() / "README.md").read_text().split("## From section to code")[1].split("\n## ")[0]


def test_each_claim_stands_in_the_map_once():
    mapped = [claim for section in paper.section_map() for claim in section.claims]
    assert sorted(mapped) == [claim.id for claim in paper.claims()]


def test_this_version_and_the_planned_notebooks():
    existing = {section.notebook for section in paper.section_map() if section.exists}
    assert existing == {*notebooks.SHARED, *notebooks.MAKES, *notebooks.ARMS}
    numbers = sorted({int(section.notebook[:2]) for section in paper.section_map()})
    assert numbers == list(range(15))


def test_a_measured_claim_has_its_notebook_and_a_planned_one_names_it():
    home = {claim: section for section in paper.section_map() for claim in section.claims}
    for claim in paper.claims():
        planned = re.findall(r"planned: notebook (\d\d)", claim.untested_because)
        if claim.rule:
            assert home[claim.id].exists, claim.id
        elif home[claim.id].exists:
            assert claim.untested_because.endswith("(planned)"), claim.id
        else:
            assert planned == [home[claim.id].notebook[:2]], claim.id


def test_the_pipeline_leads_to_the_same_notebooks():
    notebooks = [section.notebook for section in paper.section_map()]
    rows = paper.table("pipeline")
    assert [row["notebook"] for row in rows] == [name for name in notebooks if "03" <= name[:2] <= "08"]
    starts = column("pipeline", "model", "starts_from")
    assert starts["R1-Dev3"] == starts["DeepSeek-R1-Zero"] == "DeepSeek-V3-Base", "SFT starts from the base again"


# settings


@pytest.mark.parametrize(
    "stage, name, expected",
    [
        ("r1_zero_rl", "learning_rate", 3e-6),
        ("r1_zero_rl", "kl_coefficient_beta", 0.001),
        ("r1_zero_rl", "group_size_G", 16),
        ("r1_zero_rl", "questions_per_step", 32),
        ("r1_zero_rl", "train_batch_per_step", 512),
        ("r1_zero_rl", "outputs_per_rollout", 8192),
        ("r1_zero_rl", "minibatches_per_rollout", 16),
        ("r1_zero_rl", "inner_epochs", 1),
        ("r1_zero_rl", "reference_model_refresh_steps", 400),
        ("r1_zero_rl", "rollout_temperature", 1.0),
        ("r1_zero_rl", "max_length_initial", 32768),
        ("r1_zero_rl", "total_steps", 10400),
        ("reasoning_rl_stage1", "clip_epsilon", 10),
        ("evaluation", "temperature", 0.6),
        ("evaluation", "top_p", 0.95),
        ("evaluation", "max_generation_tokens", 32768),
        ("evaluation", "k_training_curve_AIME", 16),
    ],
)
def test_constants_that_the_tiers_rest_on(stage, name, expected):
    assert paper.constant(stage, name) == expected
    assert paper.hyperparameters(stage)[name].confirmed
    assert paper.hyperparameters(stage)[name].source


def test_steps_and_rollouts_add_up():
    zero = {name: paper.constant("r1_zero_rl", name) for name in paper.hyperparameters("r1_zero_rl") if is_number(name)}
    batch = zero["questions_per_step"] * zero["group_size_G"]
    assert batch == zero["train_batch_per_step"]
    assert zero["outputs_per_rollout"] == batch * zero["minibatches_per_rollout"]
    rollouts = zero["total_steps"] / zero["minibatches_per_rollout"]
    assert rollouts == 650
    assert zero["reference_model_refresh_steps"] / zero["minibatches_per_rollout"] == 25, "a whole number of rollouts"
    draws = rollouts * zero["outputs_per_rollout"] / zero["group_size_G"]
    assert draws / zero["epochs"] == pytest.approx(208_000)


def is_number(name):
    return re.fullmatch(r"[\d.e-]+", paper.hyperparameters("r1_zero_rl")[name].value)


def test_no_setting_is_listed_twice_or_without_a_source():
    rows = paper.table("hyperparameters")
    assert len({(row["stage"], row["name"]) for row in rows}) == len(rows) == 140
    assert all(row["value"] and row["source"] and row["confirmed"] in ("yes", "no") for row in rows)


# the curves


def test_figure_2_starts_and_ends_where_the_text_says():
    pass1, vote = paper.curve("aime2024_pass1"), paper.curve("aime2024_cons16")
    assert pass1[0] == (200, pytest.approx(0.156, abs=5e-4)), "the first point is not the base"
    assert pass1[-1] == (8400, pytest.approx(0.710, abs=5e-4))
    assert vote[-1] == (8400, pytest.approx(0.867, abs=5e-4))
    assert [step for step, _ in pass1] == [step for step, _ in vote]
    assert all(below < above for (_, below), (_, above) in zip(pass1, vote, strict=True))


@pytest.mark.parametrize("series, items", [("aime2024_pass1", 30 * 16), ("aime2024_cons16", 30 * 5)])
def test_figure_2_is_made_of_whole_items(series, items):
    for step, value in paper.curve(series, whole_run=True):
        assert value == pytest.approx(round(value * items) / items, abs=6e-5), step


def test_figure_3_grows_from_half_a_thousand_tokens():
    length = paper.curve("mean_response_length")
    assert length[0] == (0, 555)
    assert length[-1] == (8400, 9555)


@pytest.mark.parametrize("series", ["aime2024_pass1", "aime2024_cons16", "mean_response_length"])
def test_the_whole_run_continues_the_published_figure(series):
    first, whole = paper.curve(series), paper.curve(series, whole_run=True)
    assert whole[: len(first)] == first
    assert first[-1][0] == 8400 < whole[-1][0] <= 10400
    assert all(a < b for (a, _), (b, _) in pairwise(whole))


def test_numbers_quoted_by_claims_are_those_of_the_curves():
    pass1, vote = (dict(paper.curve(f"aime2024_{name}", whole_run=True)) for name in ("pass1", "cons16"))
    gaps = [f"{vote[step] - pass1[step]:.3f} at step {step}" for step in (1200, 10000)]
    assert all(gap in paper.claim("C03").paper_numbers for gap in gaps), gaps
    rise = f"{pass1[8200]:.3f} (8200) -> {pass1[8800]:.3f} (8800)"
    assert rise in paper.claim("C05").paper_numbers, rise


# the tables, against one another


def test_tables_of_different_sections_agree():
    headline = {row["benchmark"]: row for row in paper.table("figure1")}
    full = {(row["benchmark"], row["metric"].split(" (")[0]): row for row in paper.table("table4")}
    for (name, metric), row in full.items():
        if name in headline and headline[name]["metric"] == metric:
            for model in ("DeepSeek-R1", "OpenAI-o1-1217", "OpenAI-o1-mini", "DeepSeek-V3"):
                assert headline[name][model] == row[model], (name, model)
    scores = ("aime2024_pass1", "aime2024_cons64", "math500_pass1", "gpqa_diamond_pass1", "livecodebench_pass1")
    by_model = {name: {row["model"]: row for row in paper.table(name)} for name in ("table2", "table5", "table6")}
    for here, there in (("table2", "table5"), ("table6", "table5")):
        for model in by_model[here].keys() & by_model[there].keys():
            for score in scores:
                assert by_model[here][model][score] == by_model[there][model][score], (model, score)
    for student in paper.table("students"):
        for score in (*scores, "codeforces_rating"):
            assert student[score] == by_model["table5"]["DeepSeek-R1-" + student["student"]][score], student["student"]


def test_stages_end_in_the_published_model():
    key = ("benchmark", "metric")
    full = {tuple(row[k].split(" (")[0] for k in key): row["DeepSeek-R1"] for row in paper.table("table4")}
    base_to_r1 = {tuple(row[k] for k in key): row for row in paper.table("v2_table12_base_to_r1")}
    stages = {tuple(row[k] for k in key): row for row in paper.table("v2_table3_stages")}
    assert stages.keys() == base_to_r1.keys() and len(stages) == 21
    for name, row in stages.items():
        assert row["R1"] == base_to_r1[name]["R1"] and row["R1-Zero"] == base_to_r1[name]["R1-Zero"], name
        assert row["R1"] == full.get(name, full.get((name[0], "Pass@1"))), name


def test_students_learn_at_the_listed_rates_and_end_at_a_tenth():
    rates = paper.hyperparameters("distill_sft")
    for row in paper.table("students"):
        assert row["initial_learning_rate"] == rates["learning_rate " + row["student"].removeprefix("Distill-")].value
        assert float(row["final_learning_rate"]) == pytest.approx(float(row["initial_learning_rate"]) / 10)


def test_the_800k_samples_add_up():
    samples = {domain: int(n) for domain, n in column("v2_table5_sft_data", "domain", "num_samples").items()}
    tokens = {domain: float(n) for domain, n in column("v2_table5_sft_data", "domain", "avg_tokens").items()}
    total = samples.pop("Total")
    assert total == sum(samples.values()) == paper.constant("sft_800k", "total_samples") == 804_745
    assert total - samples["General"] == 626_933
    mean = sum(samples[domain] * tokens[domain] for domain in samples) / total
    assert mean == pytest.approx(tokens["Total"], abs=0.05)


def test_the_bill_adds_up():
    hours = {item: int(n) for item, n in column("v2_table7_cost", "item", "h800_gpu_hours").items()}
    dollars = {item: int(n) for item, n in column("v2_table7_cost", "item", "usd_at_2_per_gpu_hour").items()}
    assert hours.pop("Total") == sum(hours.values()) == 147_000
    assert dollars.pop("Total") == sum(dollars.values()) == 294_000
    assert all(dollars[item] == 2 * hours[item] for item in hours)
    assert hours["DeepSeek-R1-Zero"] == pytest.approx(64 * 8 * 198, rel=0.01)


def test_rl_prompts_agree_with_the_settings():
    prompts = column("v2_table4_rl_data", "domain", "prompts")
    for domain, printed in prompts.items():
        assert paper.hyperparameters("rl_data")[f"{domain.lower()}_prompts"].value.split()[0] == printed


def test_difficulty_percentages_are_whole_items():
    for row in paper.table("v2_table14_lcb_by_difficulty"):
        items = int(row["n_problems_inferred"]) * paper.constant("evaluation", "k_LiveCodeBench")
        for model in ("R1-Zero", "R1-Dev1", "R1-Dev2", "R1-Dev3", "R1"):
            printed = float(row[model])
            assert printed == pytest.approx(100 * round(printed * items / 100) / items, abs=0.01), (row, model)
    assert sum(int(row["n_problems_inferred"]) for row in paper.table("v2_table14_lcb_by_difficulty")) == 112


def test_claims_quote_the_tables():
    stages = {row["benchmark"]: row for row in paper.table("v2_table3_stages") if row["metric"] != "Percentile"}
    named = {"AIME": "AIME 2024", "LiveCodeBench": "LiveCodeBench", "IF-Eval": "IF-Eval", "ArenaHard": "ArenaHard"}
    named |= {"AlpacaEval": "AlpacaEval2.0", "MMLU-Pro": "MMLU-Pro", "C-Eval": "C-Eval", "DROP": "DROP"}
    moves = {"C10": ("R1-Zero", "R1-Dev1"), "C11": ("R1-Zero", "R1-Dev1"), "C14": ("R1-Dev1", "R1-Dev2")}
    moves |= {"C15": ("R1-Dev2", "R1-Dev3"), "C17": ("R1-Dev3", "R1")}
    for id, (before, after) in moves.items():
        quoted = re.findall(r"([\w-]+) (\d+\.\d) -> (\d+\.\d)", paper.claim(id).paper_numbers)
        assert len(quoted) >= 3, id
        for name, low, high in quoted:
            if name in named:
                row = stages[named[name]]
                assert (low, high) == (row[before], row[after]), (id, name)
    zero = column("table2", "model", "aime2024_pass1")["DeepSeek-R1-Zero"]
    assert f"15.6 -> {zero} (v1, step 8400) -> {stages['AIME 2024']['R1-Zero']}" in paper.claim("C01").paper_numbers


# benchmarks, and what is refused


def test_benchmarks_are_named_once_and_their_folders_are_names():
    rows = paper.benchmarks()
    assert len({row["name"] for row in rows}) == len(rows) == 28
    for row in rows:
        assert re.fullmatch(r"(\w+(, \w+)*)?", row["data_folder"]), row["name"]


@pytest.mark.parametrize(
    "ask, way_out",
    [
        (lambda: paper.hyperparameters("r1_zero"), "r1_zero_rl"),
        (lambda: paper.constant("r1_zero_rl", "lr"), "learning_rate"),
        (lambda: paper.constant("r1_zero_rl", "clip_epsilon"), "not reported"),
        (lambda: paper.claim("C99"), "C33"),
        (lambda: paper.table("table3"), "table2"),
        (lambda: paper.table("../claims"), "table2"),
        (lambda: paper.curve("aime2024_human_mean"), "aime2024_pass1"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line_with_the_way_out(ask, way_out):
    with pytest.raises(Refusal) as refusal:
        ask()
    assert way_out in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_shipped_folder_comes_before_the_checkouts(tmp_path, monkeypatch):
    package = tmp_path / "src" / "r1repro"
    monkeypatch.setattr(paper, "__file__", str(package / "paper.py"))
    with pytest.raises(Refusal, match="install r1repro"):
        paper.folder()
    checkout, shipped = tmp_path / "papers/deepseek-r1", package / "_shipped/papers/deepseek-r1"
    checkout.mkdir(parents=True)
    assert paper.folder() == checkout
    shipped.mkdir(parents=True)
    assert paper.folder() == shipped


def test_what_is_served_cannot_be_spoiled_by_a_reader():
    for serve in (lambda: paper.table("table2"), paper.benchmarks):
        first = serve()
        first[0].clear()
        assert serve()[0]
    paper.hyperparameters("r1_zero_rl").clear()
    assert paper.hyperparameters("r1_zero_rl")


def test_the_data_is_plain_text_with_unix_line_ends_and_full_rows():
    files = [path for path in paper.folder().rglob("*") if path.suffix in (".csv", ".md", ".txt")]
    assert len(files) >= 23
    for path in files:
        assert b"\r" not in path.read_bytes(), path.name
        assert path.read_bytes().isascii(), path.name
        if path.suffix == ".csv":
            rows = paper.table(path.stem) if path.parent.name == "tables" else []
            assert all(None not in row and None not in row.values() for row in rows), f"{path.name}: a ragged row"
