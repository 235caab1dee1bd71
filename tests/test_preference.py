"""Reward models: losses worked by hand, what each reads, pairs that are kept, and rewards for open questions alone."""

import json
import math
import random
import signal
from dataclasses import replace

import pytest
import torch
from models import save_base

from r1repro.algo import preference
from r1repro.config import Machine, Policy, RewardModel
from r1repro.engine import actor, adapters, checkpoint, scorer
from r1repro.records import Refusal
from r1repro.run import Stopped
from r1repro.stages import reward_model
from r1repro.tinyworld import families, general


def test_the_pair_loss_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert preference.pair_loss(chosen, rejected).item() == pytest.approx(expected)
    assert preference.pair_loss(chosen + 5, rejected + 5).item() == pytest.approx(expected)  # only differences count


def test_the_point_loss_by_hand():
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert preference.point_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])).item() == pytest.approx(expected)


def test_scores_are_measured_in_standard_deviations():
    assert preference.standardised(torch.tensor([3.0, 1.0]), 1.0, 2.0).tolist() == [1.0, 0.0]


ASKED = families.draw("general", "train", 2, "en", 0)
REQUEST = families.draw("safety", "train", 1, "en", 0)
OUTPUT = "<think> secret thoughts </think> <answer> The sea is cold. </answer>"


def test_helpfulness_is_read_off_the_summary_and_safety_off_everything():
    assert "secret" not in scorer.reads("helpful", ASKED, OUTPUT) and "cold" in scorer.reads("helpful", ASKED, OUTPUT)
    assert ASKED.text in scorer.reads("helpful", ASKED, OUTPUT)
    assert "secret" in scorer.reads("safety", REQUEST, OUTPUT)
    assert ASKED.gold in scorer.reads("judge", ASKED, OUTPUT) and "secret" not in scorer.reads("judge", ASKED, OUTPUT)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A reward model with random weights."""
    return scorer.load(save_base(tmp_path_factory.mktemp("policy")), seed=3)


def test_a_score_does_not_depend_on_what_is_scored_beside_it(head):
    texts = ["a b c", "the sea is cold and long and high", "x", "one two"]
    together = scorer.scores(head, texts)
    alone = torch.cat([scorer.scores(head, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5) and together.std() > 0


def test_the_head_is_drawn_from_the_seed(tmp_path):
    folder = save_base(tmp_path)
    weights = [scorer.load(folder, seed=s).score.weight for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def settings(**changes):
    small = dict(
        num_prompts=40, outputs_per_prompt=4, batch_size=8, learning_rate=1e-3, epochs=1, max_tokens=200,
        judge_noise=0.0, min_difference=0.4,
    )  # fmt: skip
    return RewardModel(**small | changes)


def written(monkeypatch):
    """Outputs of every quality in the place of samples: a random policy writes none that differ."""

    def outputs(cfg, questions, *_):
        rng = random.Random(cfg.seed)
        manner = general.Manner(right=0.5, offer=0.5, rude=0.3)

        def one(q):
            if q.family == "general":
                thought, said = general.reply(q, manner, q.language, rng)
            else:
                thought, said = families.safety.reply(q, manner, 0.5, 0.2, q.language, rng)
            return f"<think> {thought} </think> <answer> {said} </answer>"

        return [[one(q) for _ in range(cfg.outputs_per_prompt)] for q in questions]

    monkeypatch.setattr(reward_model, "_outputs", outputs)


@pytest.mark.parametrize("kind", ["helpful", "safety"])
def test_a_reward_model_learns_what_the_hidden_rule_says(tmp_path, monkeypatch, kind):
    written(monkeypatch)
    cfg = settings(kind=kind, num_prompts=300, epochs=4, learning_rate=3e-3, batch_size=32)
    folder = reward_model.train(cfg, tmp_path / "run", save_base(tmp_path / "policy"))
    losses = [json.loads(line)["policy/loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.1
    found = json.loads((tmp_path / "run" / "agreement.json").read_text())
    assert found["agreement with the hidden rule"] > 0.6 and found["trained on"] > 50
    assert reward_model.train(cfg, tmp_path / "run", tmp_path / "policy") == folder


def test_sampling_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    cfg = settings(kind="safety", num_prompts=20, outputs_per_prompt=2, max_output=6)
    start = save_base(tmp_path / "policy")
    monkeypatch.setattr(reward_model, "ROUND", 8)
    reward_model.train(cfg, tmp_path / "alone", start)
    asked, plain = [], actor.Actor.sample

    def sample(self, questions, *args, **kwargs):
        asked.append(len(questions))
        if len(asked) == 2:
            signal.raise_signal(signal.SIGTERM)  # in the second round, which is ended and kept
        return plain(self, questions, *args, **kwargs)

    monkeypatch.setattr(actor.Actor, "sample", sample)
    with pytest.raises(Stopped, match="SIGTERM after this round"):
        reward_model.train(cfg, tmp_path / "run", start)
    with (tmp_path / "run" / reward_model.SAMPLED).open("a") as file:
        file.write('{"outputs": [["torn')
    reward_model.train(cfg, tmp_path / "run", start)
    assert asked == [8, 8, 4]
    alone, again = ((tmp_path / run / "samples.jsonl").read_bytes() for run in ("alone", "run"))
    assert again == alone and not (tmp_path / "run" / reward_model.SAMPLED).exists()


def test_held_out_prompts_are_in_no_training_example(tmp_path, monkeypatch):
    written(monkeypatch)
    reward_model.train(settings(), tmp_path / "run", save_base(tmp_path / "policy"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    held = {row["id"] for row in rows if row["held_out"]}
    assert held and not held & {row["id"] for row in rows if not row["held_out"]}


def test_the_judge_meets_a_good_answer_to_every_prompt_that_is_not_held_out(monkeypatch):
    monkeypatch.setattr(
        reward_model, "_outputs", lambda cfg, questions, *_: [["<answer> no </answer>"]] * len(questions)
    )
    rows = reward_model.labelled(settings(kind="judge", num_prompts=60, outputs_per_prompt=1), None, None)
    held, good = {row["id"] for row in rows if row["held_out"]}, [row for row in rows if row["label"]]
    assert held and held.isdisjoint(row["id"] for row in good) and len(good) + 2 * len(held) >= len(rows) / 2
    for row in good:
        reference, answer = row["text"].rpartition("User: ")[2].split(" Answer: ")[1].split("\nAssistant: ")
        assert reference == answer != "no"


def test_pairs_that_differ_by_too_little_are_dropped(monkeypatch):
    texts = [f"<answer> {ASKED.gold} </answer>", "<answer> nothing </answer>"] * 2
    kept = reward_model._pairs(settings(min_difference=1.0), ASKED, texts, random.Random(0))
    assert len(kept) == 2 and all(row["gold"][0] > row["gold"][1] + 1 for row in kept)
    assert all(ASKED.gold in row["chosen"] and ASKED.gold not in row["rejected"] for row in kept)
    assert reward_model._pairs(settings(min_difference=9.0), ASKED, texts, random.Random(0)) == []


def test_lengths_of_chosen_and_rejected_are_balanced():
    rows = [{"chosen": "x" * (10 + n), "rejected": "y" * 10} for n in range(40)]
    rows += [{"chosen": "x" * 5, "rejected": "y" * 10}] * 10
    kept = reward_model.balanced(rows)
    excess = sum(len(row["chosen"]) - len(row["rejected"]) for row in kept) / len(kept)
    assert abs(excess) <= 1 and len(kept) >= 15


@pytest.fixture(scope="module")
def pair_of_models(tmp_path_factory):
    """Folders of two reward models with their scales."""
    folders = []
    for seed in (1, 2):
        run = tmp_path_factory.mktemp(f"rm{seed}")
        folder = run / "checkpoints" / "step-000001"
        scorer.load(save_base(tmp_path_factory.mktemp(f"policy{seed}"), seed), seed=seed).save_pretrained(folder)
        (run / "scale.json").write_text(json.dumps({"mean": 0.5, "std": 2.0}))
        folders.append(folder)
    return folders


def test_each_open_question_has_its_own_model_and_reasoning_has_none(pair_of_models):
    reward = scorer.Preference(*pair_of_models)
    sums = families.draw("chain_sum", "train", 1, "en", 0)
    values = [score.value for score in reward([ASKED, REQUEST, sums], [OUTPUT] * 3)]
    helpful, safety = (scorer.load(folder) for folder in pair_of_models)
    first = scorer.scores(helpful, [scorer.reads("helpful", ASKED, OUTPUT)]).item()
    second = scorer.scores(safety, [scorer.reads("safety", REQUEST, OUTPUT)]).item()
    assert values == [pytest.approx((first - 0.5) / 2), pytest.approx((second - 0.5) / 2), 0.0]
    assert set(reward.inputs) == {"reward model general", "reward model safety"}


def test_thinking_does_not_move_the_helpfulness_reward(pair_of_models):
    reward = scorer.Preference(*pair_of_models)
    other = OUTPUT.replace("secret thoughts", "all other thoughts")
    one, two = reward([ASKED] * 2, [OUTPUT, other])
    assert one.value == pytest.approx(two.value, abs=1e-6)
    one, two = reward([REQUEST] * 2, [OUTPUT, other])
    assert abs(one.value - two.value) > 1e-4


def test_a_thinking_that_is_never_closed_is_no_summary():
    one, two = (scorer.reads("helpful", ASKED, f"<think> {thought} <answer> Hello! </answer>") for thought in "ab")
    assert one == two and "Hello!" not in one
    assert scorer.reads("helpful", ASKED, "Hello!").endswith("Hello!")  # what never thinks is all summary


def test_a_missing_reward_model_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no model at"):
        scorer.load(tmp_path)


# --- beside frozen weights, as on a GPU

LORA, QLORA = Policy(weights="lora", rank=4, alpha=8), Policy(weights="qlora", rank=4, alpha=8)
BOTH = pytest.mark.parametrize("held", [LORA, QLORA], ids=["lora", "qlora"])
TEXTS = ["a b c", "the sea is cold and long and high", "x", "one two"]


@pytest.fixture
def adapted(tmp_path, tiny_base):
    """Makes the checkpoint of a policy that has learned something beside frozen weights."""

    def made(held):
        found = actor.load(tiny_base, held, trained=3)
        draw = torch.Generator().manual_seed(5)
        for name, p in found.model.named_parameters():
            if p.requires_grad and "lora_B" in name:
                p.data = 0.1 * torch.randn(p.shape, generator=draw)
        return checkpoint.save_(tmp_path / "policy", 1, found.model, found.vocabulary.tokenizer)

    return made


@BOTH
def test_a_new_one_reads_as_the_policy_does_and_trains_adapter_and_head_alone(adapted, held):
    folder = adapted(held)
    model, policy = scorer.load(folder, 1, held), actor.load(folder, held).model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        hidden = policy.base_model(input_ids=ids).last_hidden_state[0, -1]
        score = scorer.forward(model, ids.tolist())
    torch.testing.assert_close(score[0], (model.score.weight @ hidden)[0])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"score.weight"}
    assert all(p.dtype == torch.float32 for p in trained.values()) and not any("reference" in name for name in trained)
    again, other = (scorer.load(folder, seed, held).score.weight for seed in (1, 2))
    assert torch.equal(again, model.score.weight) and not torch.equal(other, again)
    assert type(model.score) is torch.nn.Linear


@BOTH
def test_an_adapter_learns_goes_on_and_comes_back(tmp_path, monkeypatch, adapted, held):
    written(monkeypatch)
    small = dict(num_prompts=12, outputs_per_prompt=2, epochs=9, learning_rate=0.02, batch_size=3, max_tokens=48)
    cfg, machine = settings(kind="safety", policy=held, **small), Machine(micro_batch_tokens=100)
    start = adapted(held)
    folder = reward_model.train(cfg, tmp_path / "alone", start, machine)
    losses = [json.loads(x)["policy/loss"] for x in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) > 51 and sum(losses[-9:]) < sum(losses[:9]) - 0.5
    kept = checkpoint.keep_only
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep_only", lambda run, steps: 1 / 0 if steps == {50} else kept(run, steps))
        with pytest.raises(ZeroDivisionError):
            reward_model.train(cfg, tmp_path / "run", start, machine)
    assert checkpoint.steps_in(tmp_path / "run")[-1] == 50
    again = reward_model.train(cfg, tmp_path / "run", start, machine)
    assert again.name == folder.name and not list(again.glob("model*.safetensors"))
    saved = [checkpoint.load_file(where / adapters.WEIGHTS) for where in (folder, again)]
    assert all(torch.equal(t, saved[1][name]) for name, t in saved[0].items())
    assert "base_model.model.score.weight" in saved[0]
    said = scorer.scores(scorer.load(folder), TEXTS)
    alone = scorer.scores(scorer.load(again, None, held, Machine(micro_batch_tokens=1)), TEXTS)
    torch.testing.assert_close(said, alone, atol=1e-4, rtol=1e-4)
    assert said.std() > 0 and torch.equal(said, scorer.scores(scorer.load(again), TEXTS))
    about = json.loads((folder / adapters.CONFIG).read_text())
    assert about["task_type"] == "SEQ_CLS" and about["modules_to_save"] == ["score"]
    judge = scorer.Judge(folder, held, machine)
    assert judge([ASKED], [OUTPUT]) == [scorer.scores(scorer.load(folder), [scorer.reads("judge", ASKED, OUTPUT)]) > 0]


def test_another_library_reads_the_same_scores(tmp_path, adapted):
    """peft's own class, from the files alone."""
    from peft import PeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification

    made = scorer.load(adapted(LORA), 1, LORA)
    folder = checkpoint.save_(tmp_path / "rm", 1, made, made.r1repro_words.tokenizer)
    base = adapters.base_of(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    plain.config.pad_token_id = made.config.pad_token_id
    theirs = PeftModelForSequenceClassification.from_pretrained(plain, folder).eval()
    ids = scorer.encoded(made, TEXTS[:1])
    with torch.no_grad():
        score = theirs(input_ids=torch.tensor(ids)).logits[:, 0]
    torch.testing.assert_close(score, scorer.scores(made, TEXTS[:1]))


@pytest.mark.parametrize("kind", ["helpful", "safety"])
def test_a_batch_in_parts_has_the_same_gradient(adapted, kind):
    words = ["one", "two three", "four five six seven eight nine", "ten"] * 3
    rows = [{"chosen": a, "rejected": f"{b} no"} for a, b in zip(words, reversed(words), strict=True)]
    if kind == "safety":
        rows = [{"text": row["chosen"], "label": i % 2 == 0} for i, row in enumerate(rows)]
    folder, found = adapted(LORA), []
    small = dict(micro_batch_tokens=16)
    for machine in (Machine(micro_batch_tokens=10**6), Machine(**small), Machine(**small, recompute=True)):
        model = scorer.load(folder, 1, LORA, machine)
        said = reward_model._backward_(model, rows, settings(kind=kind))
        found.append((said, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    for said, gradient in found[1:]:
        assert said == pytest.approx(found[0][0])
        for name, grad in gradient.items():
            torch.testing.assert_close(grad, found[0][1][name], atol=1e-6, rtol=1e-4)
    assert len(list(scorer.parts(model, [5] * 12, 12))) == 4


def test_where_all_weights_are_trained_on_a_cpu_no_batch_is_cut(tiny_base):
    model = scorer.load(tiny_base, 1, Policy(), Machine(micro_batch_tokens=1))
    assert list(scorer.parts(model, [3, 1, 2], 9)) == [[1, 2, 0]]


@pytest.mark.parametrize("held", [replace(LORA, dtype="bfloat16"), replace(LORA, dtype="float16"),
                                  Policy(dtype="bfloat16")], ids=["lora", "half", "full"])  # fmt: skip
def test_the_head_is_in_single_precision_whatever_the_policy_s_is(adapted, tiny_base, held):
    whole = held.weights == "full"
    model = scorer.load(tiny_base if whole else adapted(held), 1, held)
    score = scorer.forward(model, scorer.encoded(model, TEXTS))
    assert model.score.weight.dtype == score.dtype == torch.float32
    rows = [{"text": text, "label": i % 2 == 0} for i, text in enumerate(TEXTS)]
    reward_model._backward_(model, rows, settings(kind="safety"))
    exact = scorer.load(tiny_base, 1) if whole else scorer.load(adapted(LORA), 1, LORA)
    reward_model._backward_(exact, rows, settings(kind="safety"))
    ours, theirs = (dict(m.named_parameters())["score.weight"].grad for m in (model, exact))
    assert torch.isfinite(ours).all() and (ours - theirs).norm() < 0.1 * theirs.norm()


def test_the_end_is_read_where_a_model_pads_with_its_end_token(tiny_base, monkeypatch):
    words = scorer.vocabulary.of(tiny_base)
    monkeypatch.setattr(scorer.vocabulary, "of", lambda *_, **__: replace(words, pad=words.end))
    model = scorer.load(tiny_base, 3)
    assert model.config.pad_token_id != words.end
    ids = scorer.encoded(model, ["a b"])
    with torch.no_grad():
        hidden = model.base_model(input_ids=torch.tensor(ids)).last_hidden_state[0, -1]
    torch.testing.assert_close(scorer.scores(model, ["a b", "the sea is cold"])[0], (model.score.weight @ hidden)[0])


def test_one_that_was_held_otherwise_is_refused(tmp_path, adapted, tiny_base):
    with pytest.raises(Refusal, match="trained as policy.weights=lora, not qlora: set policy.weights=lora"):
        scorer.load(adapted(LORA), 1, QLORA)
    folder = tmp_path / "whole"
    scorer.load(tiny_base, 1).save_pretrained(folder)
    with pytest.raises(Refusal, match="trained as policy.weights=full, not lora"):
        scorer.load(folder, None, LORA)
