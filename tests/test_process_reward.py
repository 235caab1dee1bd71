"""Process rewards: scores of steps as one pass a step would give them, labels by continuations, agreement by hand."""

import json
import zlib

import pytest
import torch
from models import save_base

from r1repro import data
from r1repro.algo import search
from r1repro.config_arms import ProcessReward
from r1repro.engine import actor as actors
from r1repro.engine import scorer
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Score
from r1repro.rewards import reasoning
from r1repro.stages import process_reward

SMALL = ProcessReward(
    num_questions=6, outputs_per_question=2, continuations=3, max_tokens=12, batch_size=4, learning_rate=1e-3, epochs=1
)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return scorer.load(save_base(tmp_path_factory.mktemp("policy")), seed=3)


@pytest.fixture
def often(monkeypatch):
    """A random model says no full stop: let half of the vocabulary end a line, and a hash say what is right."""
    monkeypatch.setattr(Vocabulary, "line_ends", lambda self: tuple(range(300, 800)))

    def judged(questions, texts):
        return [Score(value=float(zlib.crc32(text.encode()) % 2), verdict="right") for text in texts]

    monkeypatch.setattr(reasoning, "accuracy", judged)


def test_lines_end_at_the_full_stop_of_either_language(head):
    words = head.r1repro_words
    output = words.output("<think> 7+7=14. 得14。 so 14 </think> <answer> 14 </answer>")
    ends = scorer.cut(words.line_ends(), output)
    assert [words.text(output[: end + 1]) for end in ends[:-1]] == [" <think> 7+7=14.", " <think> 7+7=14. 得14。"]
    assert ends[-1] == len(output) - 1 and len(ends) == 3


def test_a_score_of_a_step_is_that_of_the_text_up_to_there(head):
    words = head.r1repro_words
    prompts = [words.prompt("12 + 13 ="), words.prompt("What is 71 - 20 =")]
    texts = ["<think> 2+3=5. 1+1=2. </think> <answer> 25 </answer>", "<think> a. </think> b", "<think> 1-0=1. 51"]
    outputs = [words.output(text) for text in texts]
    asked = [0, 0, 1]
    cuts = [scorer.Cut(q, o, scorer.cut(words.line_ends(), o)) for q, o in zip(asked, outputs, strict=True)]
    one_by_one = [
        scorer.forward(head, [[*prompts[cut.question], *cut.output[: place + 1]]])[0]
        for cut in cuts for place in cut.places
    ]  # fmt: skip
    assert torch.allclose(scorer.step_scores(head, prompts, cuts), torch.stack(one_by_one), atol=1e-5)
    values = scorer.step_values(head, prompts, cuts[::-1])  # in any order
    assert sum(values[::-1], []) == pytest.approx(torch.stack(one_by_one).sigmoid().tolist(), abs=1e-5)
    assert [len(steps) for steps in values] == [2, 2, 3]


def test_the_process_reward_is_that_of_the_weakest_step(head, tmp_path):
    head.save_pretrained(tmp_path)
    reward = scorer.Process(tmp_path)
    questions = data.training_questions("reasoning", "test", 0, 3)
    texts = ["<think> 2+3=5. 1+1=2. </think> <answer> 25 </answer>", "x", "<think> a. b. </think> c"]
    steps = reward.steps(questions, texts)
    assert [score.value for score in reward(questions, texts)] == [search.weakest_step(values) for values in steps]
    assert [len(values) for values in steps] == [3, 1, 3] and reward.inputs["process reward model"]
    read = reward.read(questions[0], texts[0])
    assert "".join(step for step, _ in read).strip() == texts[0]
    assert [value for _, value in read] == pytest.approx(steps[0], abs=1e-6)  # alone, it shares no beginning


def test_a_step_is_labelled_by_what_its_own_continuations_come_to(often, tmp_path, monkeypatch):
    calls, honest = [], actors.Actor.go_on

    def go_on(self, prompts, num_outputs, **more):
        samples = honest(self, prompts, num_outputs, **more)
        calls.append((prompts, self.tokens(samples)))
        return samples

    monkeypatch.setattr(actors.Actor, "go_on", go_on)
    base = save_base(tmp_path)
    rows = process_reward.labelled(SMALL, base, actors.Machine())
    ((prompts, ends),) = calls
    begun = [tuple(prompt) for prompt in prompts]
    assert len(rows) == 12 and len(set(begun)) == len(begun) > 3  # equal beginnings are continued once
    words = scorer.load(base, seed=0).r1repro_words

    def share(outputs):
        return process_reward.share_right(None, [words.text(output) for output in outputs])

    for row in rows:
        assert row["places"][-1] == len(row["output"]) - 1 and row["labels"][-1] == share([row["output"]])
        for place, label in zip(row["places"][:-1], row["labels"], strict=False):
            prefix = row["output"][: place + 1]
            at = 3 * begun.index((*row["prompt"], *prefix))
            assert label == share([[*prefix, *end] for end in ends[at : at + 3]])
    assert len({label for row in rows for label in row["labels"]}) > 2


def solutions(count=80):
    """Solutions to 40 questions; those with token 7 are right, and from that token on they are known to be."""
    rows = []
    for index in range(count):
        right, prompt = index % 2 == 0, [20 + index // 2, 21, 22, 23]
        output = [30, 31, 7 if right else 8, 32, 33]
        parts = {"prompt": prompt, "output": output, "places": [1, 4], "labels": [0.5, float(right)]}
        rows.append({"id": f"{index // 2:016x}", **parts})
    return rows


def test_a_model_learns_which_token_makes_a_solution_right(tmp_path):
    cfg = ProcessReward(batch_size=8, learning_rate=1e-2, epochs=5)
    base = save_base(tmp_path / "base")
    folder = process_reward.learn(cfg, tmp_path / "run", base, solutions, head=1)
    found = json.loads((tmp_path / "run" / "agreement.json").read_text())
    assert found["agreement, whole solutions"] == found["ranking"] == 1.0 and found["trained on"] == 72
    held = json.loads((tmp_path / "run" / "held_out.json").read_text())
    assert all(abs(row["values"][0] - 0.5) < 0.2 for row in held)  # where nothing is known yet
    assert process_reward.learn(cfg, tmp_path / "run", base, list, head=1) == folder  # done: nothing is made again
    later = process_reward.learn(ProcessReward(epochs=1, learning_rate=1e-9), tmp_path / "next", folder, solutions)
    heads = [scorer.load(place).score.weight.detach() for place in (folder, later)]
    assert torch.allclose(*heads, atol=1e-6)  # it goes on from there, with no new head


def test_no_held_out_question_is_trained_on_and_one_is_held_out():
    rows = process_reward.held_out(solutions())
    held = {row["id"] for row in rows if row["held_out"]}
    assert len(held) == 4 and not held & {row["id"] for row in rows if not row["held_out"]}
    assert sum(row["held_out"] for row in process_reward.held_out(solutions(4))) == 2


def test_agreement_by_hand():
    found = [
        {"id": "a", "values": [0.9, 0.8], "labels": [0.4, 1.0]},
        {"id": "a", "values": [0.2, 0.6], "labels": [0.0, 0.0]},
        {"id": "b", "values": [0.1], "labels": [0.0]},
        {"id": "a", "values": [0.6], "labels": [1.0]},
    ]
    agreed = process_reward.agreement(found)
    assert agreed["steps"] == 6 and agreed["agreement, all steps"] == pytest.approx(4 / 6)
    assert agreed["agreement, steps before the end"] == 0.5 and agreed["agreement, whole solutions"] == 0.75
    assert agreed["always saying wrong, whole solutions"] == 0.5
    assert agreed["ranking"] == 0.75  # 0.8 beats 0.6, and 0.6 ties with it


def test_what_the_grader_could_not_judge_takes_no_part(monkeypatch):
    scores = [Score(value=1.0, verdict="right"), Score(value=None, verdict="error"), Score(value=0.0, verdict="wrong")]
    monkeypatch.setattr(reasoning, "accuracy", lambda questions, texts: scores[: len(texts)])
    assert process_reward.share_right(None, ["a", "b", "c"]) == 0.5
    scores[0] = scores[1]
    assert process_reward.share_right(None, ["a"]) == 0.0
