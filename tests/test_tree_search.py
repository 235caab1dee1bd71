"""Tree search with a model: what grows, what it costs, what is kept of it, and that a kill costs a chunk alone."""

import json
import zlib

import pytest
from models import save_base

from r1repro import data
from r1repro.config import Machine
from r1repro.config_arms import TreeSearch
from r1repro.engine import actor as actors
from r1repro.engine import scorer
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal, Score
from r1repro.rewards import reasoning
from r1repro.stages import tree_search

SMALL = TreeSearch(num_questions=5, expansions=5, width=3, max_line_tokens=6, max_tokens=14, temperature=1.0, top_p=1.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folders of a random policy and of a random value model."""
    policy = save_base(tmp_path_factory.mktemp("policy"))
    value = tmp_path_factory.mktemp("value")
    scorer.load(policy, seed=3).save_pretrained(value)
    return policy, value


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Half of the vocabulary ends a line, and a hash says what is right."""
    monkeypatch.setattr(Vocabulary, "line_ends", lambda self: tuple(range(300, 800)))

    def judged(questions, texts):
        values = [float(zlib.crc32(text.encode()) % 2) for text in texts]
        return [Score(value=value, verdict="right" if value else "wrong") for value in values]

    monkeypatch.setattr(reasoning, "accuracy", judged)


def searched(pair, place, cfg=SMALL):
    run = tree_search.run(cfg, place, *pair, Machine())
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_solution_is_the_sum_of_its_lines_and_every_token_is_counted(pair, tmp_path):
    rows = searched(pair, tmp_path / "run")
    assert len(rows) == 5 and len({row["id"] for row in rows}) == 5
    words, sampled = scorer.load(pair[1]).r1repro_words, 0
    for row in rows:
        tree = tree_search.tree_of(row)
        assert [output["node"] for output in row["outputs"]] == tree.finished() and row["outputs"]
        for output in row["outputs"]:
            tokens = [token for node in tree.path(output["node"]) for token in tree.nodes[node].content]
            assert output["text"] == words.text(tokens) and output["length"] == len(tokens)
            assert output["truncated"] == (tokens[-1] not in words.ends)
        inner = [node for node in tree.nodes if node.children]
        assert len(inner) <= SMALL.expansions + 1 and all(len(node.children) <= SMALL.width for node in inner)
        for node in inner:
            shares = [tree.nodes[child].prior for child in node.children]
            assert sum(shares) == pytest.approx(1.0)
            width = 1 if shares == [1.0] and not tree.nodes[node.children[0]].children else SMALL.width
            sampled += sum(round(tree.nodes[c].prior * width) * len(tree.nodes[c].content) for c in node.children)
    assert sum(row["tokens"] for row in rows) >= sampled > 0
    for node in (node for row in rows for node in row["nodes"][1:]):
        assert len(node["tokens"]) <= SMALL.max_line_tokens or node["finished"]


def test_equal_lines_are_one_child_and_all_are_paid_for(pair, tmp_path):
    cfg = TreeSearch(**as_dict(SMALL) | dict(expansions=1, temperature=0.01, num_questions=2))
    for row in searched(pair, tmp_path / "run", cfg):
        first, *rest = row["nodes"][1:]
        assert first["prior"] == 1.0 and first["parent"] == 0
        assert row["tokens"] == cfg.width * len(first["tokens"]) + sum(len(node["tokens"]) for node in rest)


def test_a_value_is_what_the_value_model_says_of_the_beginning(pair, tmp_path):
    row = searched(pair, tmp_path / "run")[0]
    tree, value = tree_search.tree_of(row), scorer.load(pair[1])
    for at in range(1, len(tree.nodes)):
        tokens = [token for node in tree.path(at) for token in tree.nodes[node].content]
        alone = scorer.forward(value, [[*row["prompt"], *tokens]]).sigmoid().item()
        assert tree.nodes[at].value == pytest.approx(alone, abs=1e-5)


def test_children_of_a_beginning_depend_on_nothing_beside_it(pair, tmp_path):
    """The trees of other questions grow in the same call of the sampler."""
    together = searched(pair, tmp_path / "a")
    actor, value = actors.load(pair[0]), scorer.load(pair[1])
    question = tree_search.question_of(together[2])
    alone = [tree_search.Growing(question, actor.vocabulary.prompt(question.text), tree_search.algo.Tree())]
    for number in range(SMALL.expansions):
        tree_search.grow_(alone, actor, value, SMALL, number)
    tree_search.finish_(alone, actor, value, SMALL)
    ours = [node.content for node in alone[0].tree.nodes[1:]]
    assert ours == [tuple(node["tokens"]) for node in together[2]["nodes"][1:]]
    assert alone[0].tokens == together[2]["tokens"]


def test_a_stopped_search_ends_with_the_same_file(pair, tmp_path, monkeypatch):
    whole = searched(pair, tmp_path / "whole")
    monkeypatch.setattr(tree_search, "CHUNK", 2)
    honest, calls = tree_search.finish_, []

    def stops(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        honest(*args)

    monkeypatch.setattr(tree_search, "finish_", stops)
    with pytest.raises(KeyboardInterrupt):
        searched(pair, tmp_path / "stopped")
    assert len((tmp_path / "stopped" / "samples.jsonl").read_text().splitlines()) == 2
    rows = searched(pair, tmp_path / "stopped")
    assert [row["id"] for row in rows] == [row["id"] for row in whole] and len(calls) == 4
    assert [row["nodes"][1]["tokens"] for row in rows] == [row["nodes"][1]["tokens"] for row in whole]
    assert searched(pair, tmp_path / "stopped") == rows and len(calls) == 4


def test_what_is_kept_to_train_on(pair, tmp_path):
    rows = searched(pair, tmp_path / "run", TreeSearch(**{**as_dict(SMALL), "keep_per_question": 1}))
    target = tree_search.examples(SMALL, tmp_path / "run", tmp_path / "examples.jsonl")
    examples = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        right = [output for output in row["outputs"] if output["verdict"] == "right"]
        own = [example["output"] for example in examples if example["id"] == row["id"]]
        best = sorted(right, key=lambda output: -output["value"])[: SMALL.keep_per_question]
        assert own == [output["text"] for output in best]
    assert examples


def as_dict(cfg):
    return {name: getattr(cfg, name) for name in cfg.__dataclass_fields__}


def test_solutions_carry_the_share_of_right_ends_below_each_line(pair, tmp_path):
    rows = {row["id"]: row for row in searched(pair, tmp_path / "run")}
    solutions = tree_search.solutions(tmp_path / "run")
    assert len(solutions) == sum(len(row["outputs"]) for row in rows.values())
    for solution in solutions:
        row = rows[solution["id"]]
        right = [output["verdict"] == "right" for output in row["outputs"]]
        words = scorer.load(pair[1]).r1repro_words
        verdicts = {output["text"]: output["verdict"] for output in row["outputs"]}
        assert solution["labels"][-1] == (verdicts[words.text(solution["output"])] == "right")
        assert solution["places"][-1] == len(solution["output"]) - 1
        begun = words.text(solution["output"][: solution["places"][0] + 1])
        below = [ok for ok, output in zip(right, row["outputs"], strict=True) if output["text"].startswith(begun)]
        assert solution["labels"][0] in {sum(below) / len(below), *solution["labels"]}


def test_an_answer_is_voted_for_by_value():
    outputs = [{"answer": "7", "value": 0.3}, {"answer": "8", "value": 0.5}, {"answer": "7", "value": 0.4}]
    assert tree_search.chosen({"outputs": outputs}) == 0
    assert tree_search.chosen({"outputs": [{"answer": None, "value": 0.9}]}) == 0


def test_a_search_that_found_nothing_is_refused(tmp_path):
    about = dict.fromkeys(("id", "family", "level", "language", "question"), "x")
    (tmp_path / "samples.jsonl").write_text(json.dumps(about | {"outputs": [{"verdict": "wrong"}]}) + "\n")
    with pytest.raises(Refusal, match="found no right solution"):
        tree_search.examples(SMALL, tmp_path, tmp_path / "examples.jsonl")


def test_a_question_comes_back_as_it_was(pair, tmp_path):
    row = searched(pair, tmp_path / "run")[0]
    assert tree_search.question_of(row) in data.training_questions("reasoning", "search", 0, 5)
