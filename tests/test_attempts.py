"""Evaluations made of others: what is chosen among samples, at what price, and what a curve says of it, by hand."""

import json

import pytest

from r1repro import config
from r1repro.config_arms import Derived, attempts
from r1repro.engine import checkpoint
from r1repro.records import Refusal
from r1repro.stages import attempts as stage


def output(answer, verdict, process, length=10, **more):
    return {
        "text": f"<answer> {answer} </answer>", "answer": answer, "verdict": verdict,
        "score": float(verdict == "right"), "process": process,
        "product": process / length, "length": length, "truncated": False, **more,
    }  # fmt: skip


ROWS = [
    {"id": "a", "outputs": [
        output("1", "wrong", 0.2), output("2", "right", 0.9), output("1", "wrong", 0.3), output("1", "wrong", 0.1),
    ]},
    {"id": "b", "outputs": [
        output("5", "right", 0.6, length=20), output("5", "right", 0.5), output("6", "wrong", 0.7),
        output(None, "unparsed", 0.1),
    ]},
]  # fmt: skip


def test_who_is_chosen():
    a, b = (row["outputs"] for row in ROWS)
    assert (stage.by_process(a), stage.by_process(b)) == (1, 2)
    assert (stage.by_product(a), stage.by_product(b)) == (1, 2)
    assert (stage.by_vote(a), stage.by_vote(b)) == (0, 0)
    assert (stage.by_weighted_vote(a), stage.by_weighted_vote(b)) == (1, 0)


def test_the_curve_is_a_mean_over_questions_and_disjoint_samples():
    one, two, four = stage.best_of_curve(ROWS, (1, 2, 4))
    assert [one[name] for name in stage.CHOICES] == [3 / 8] * 4 and one["any right"] == 3 / 8
    assert two["majority vote"] == (0 + 0 + 1 + 0) / 4 and two["weakest step"] == (1 + 0 + 1 + 0) / 4
    assert four["majority vote"] == 0.5 and four["weakest step"] == 0.5 and four["vote by weakest step"] == 1.0
    assert four["any right"] == 1.0 and two["tokens"] == 2 * (7 * 10 + 20) / 8


def evaluation(folder, rows=ROWS):
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def samples(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_derived_evaluation_is_made_once_and_knows_what_it_was_made_of(tmp_path):
    source, made = evaluation(tmp_path / "source"), []

    def choose(rows):
        made.append(1)
        return [row | {"outputs": [stage.chosen_of(row["outputs"], stage.by_process)]} for row in rows]

    how = Derived(how="prm_best", samples=4)
    found = stage.derived(tmp_path / "run", how, source, choose)
    assert [row["outputs"] for row in samples(found)] == [[ROWS[0]["outputs"][1]], [ROWS[1]["outputs"][2]]]
    assert json.loads((found / "summary.json").read_text())["pass@1"] == 0.5
    assert stage.derived(tmp_path / "run", how, source, choose) == found and made == [1]
    (source / "samples.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(Refusal, match="holds another run"):
        stage.derived(tmp_path / "run", how, source, choose)


def test_every_choice_has_samples_of_its_own(tmp_path, monkeypatch):
    source = evaluation(tmp_path / "pool")
    monkeypatch.setattr(stage, "pool", lambda *args: source)
    best, vote = stage.rerank(attempts("smoke", overrides={"best_of": 2}), tmp_path / "seed-0")
    assert [[o["process"] for o in row["outputs"]] for row in samples(best)] == [[0.9, 0.3], [0.6, 0.7]]
    assert [[o["process"] for o in row["outputs"]] for row in samples(vote)] == [[0.2, 0.3], [0.6, 0.7]]
    with pytest.raises(Refusal, match="raise pool.k"):
        attempts("smoke", overrides={"best_of": 99})


def test_a_vote_has_as_many_samples_as_the_search_had_tokens(tmp_path, monkeypatch):
    searched = [
        {"id": "a", "tokens": 25, "nodes": [], "prompt": [], "outputs": [output("2", "right", 0.5, value=0.5)]},
        {"id": "b", "tokens": 999, "nodes": [], "prompt": [], "outputs": [
            output("5", "right", 0.5, value=0.2), output("6", "wrong", 0.5, value=0.9),
        ]},
    ]  # fmt: skip
    run, pool = evaluation(tmp_path / "tree", searched), evaluation(tmp_path / "pool")
    monkeypatch.setattr(stage.tree_search, "run", lambda *args, **more: run)
    monkeypatch.setattr(stage, "process_model", lambda *args: None)
    monkeypatch.setattr(stage, "pool", lambda *args: pool)
    stage.tree(attempts("smoke"), tmp_path / "seed-0")
    place = tmp_path / "seed-0" / "models"
    vote, weighted, tree = (samples(place / name / "reasoning") for name in ("tree_vote", "tree_weighted", "tree"))
    assert [row["outputs"][0]["samples"] for row in vote] == [2, 4]
    assert [row["outputs"][0]["verdict"] for row in vote] == ["wrong", "right"]
    assert [row["outputs"][0]["verdict"] for row in weighted] == ["right", "right"]
    assert [row["outputs"][0]["verdict"] for row in tree] == ["right", "wrong"]
    assert [row["outputs"][0]["searched_tokens"] for row in tree] == [25, 999] and "nodes" not in tree[0]


def test_the_first_checkpoint_is_dev3_and_the_last_one_the_arm(tmp_path):
    places = [stage._hacking_places("s", step, [0, 8, 16]) for step in (0, 8, 16)]
    assert [tuple(map(str, pair)) for pair in places] == [
        ("s/models/dev3_replies/reasoning", "s/models/dev3/reasoning"),
        ("s/attempts/hacked-step-000008/scored", "s/attempts/hacked-step-000008/reasoning"),
        ("s/models/hacked_replies/reasoning", "s/models/hacked/reasoning"),
    ]


def test_what_an_earlier_notebook_makes_is_asked_for_in_one_line(tmp_path):
    with pytest.raises(Refusal, match="run the notebook that makes it first"):
        checkpoint.end_of(tmp_path)


@pytest.mark.parametrize("tier", ["smoke", "cpu"])
def test_rl_by_process_rewards_differs_from_r1_zeros_in_its_rewards_alone(tier):
    ours, theirs = attempts(tier, 3).process_rl, config.r1_zero(tier, 3).rl
    different = {name for name in ours.__dataclass_fields__ if getattr(ours, name) != getattr(theirs, name)}
    assert different == {"rewards"} and "r1repro.rewards.reasoning:accuracy" not in ours.rewards
    main = config.r1(tier, 3).evaluate
    assert attempts(tier, 3).evaluate == main
    assert attempts(tier, 3).hacking.rewards == ()
