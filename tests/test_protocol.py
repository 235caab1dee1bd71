"""The evaluation protocol and its opposites: greedy outputs, worked examples, replies judged twice, arms of RL."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import models
import numpy as np
import pytest
import torch

from r1repro import config, config_arms, data, measures_arms, paper
from r1repro.algo import estimators
from r1repro.config import Evaluate
from r1repro.config_arms import CLIPS, LAMBDAS, SHOTS
from r1repro.engine import policy, sampler, scorer, vocabulary
from r1repro.records import Refusal
from r1repro.rewards import reasoning
from r1repro.rewards.readable import loops
from r1repro.run import read_lines, write_json
from r1repro.stages import evaluate, protocol, reward_model
from r1repro.tinyworld import arithmetic, families, general
from r1repro.tinyworld.splits import split_of

# --- greedy


def test_greedy_takes_the_most_probable_token_whatever_the_noise():
    logits_NV = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 40)))
    for noise in (1e-9, 0.5, 1 - 1e-9):
        token_N, logp_N = sampler.choose(logits_NV, torch.full((50,), noise, dtype=torch.float64), 0.0, 0.95)
        assert torch.equal(token_N, logits_NV.argmax(-1)) and (logp_N == 0).all()
    broken_N = sampler.choose(torch.full((1, 4), torch.nan), torch.tensor([0.5]), 0.0, 1.0)[1]
    assert not torch.isfinite(broken_N).any()  # so that `sample` refuses it


def test_a_greedy_evaluation_is_the_argmax_of_every_step(tmp_path, tiny_base):
    cfg = models.small_evaluation(num_questions=2, k=1, greedy=True)
    rows = read_lines(evaluate.run(cfg, tmp_path / "run", tiny_base, models.SMALL_MACHINE) / "samples.jsonl")
    model, words = policy.load(tiny_base), vocabulary.of(tiny_base)
    for row in rows:
        ids, found = words.prompt(row["question"]), []
        while len(found) < cfg.max_tokens and (not found or found[-1] not in words.ends):
            found.append(model(input_ids=torch.tensor([ids + found])).logits[0, -1].argmax().item())
        (output,) = row["outputs"]
        assert (output["text"], output["length"]) == (words.text(found), len(found))


def test_greedy_outputs_to_a_question_are_all_the_same_so_one_is_enough():
    with pytest.raises(Refusal, match="evaluate.k is 3"):
        models.small_evaluation(greedy=True)


def test_another_draw_asks_the_same_questions_and_gets_other_outputs(tmp_path, tiny_base):
    first, same, other = (
        read_lines(evaluate.run(models.small_evaluation(draw=d), tmp_path / n, tiny_base, models.SMALL_MACHINE)
                   / "samples.jsonl")
        for n, d in (("a", 0), ("b", 0), ("c", 1))
    )  # fmt: skip
    assert first == same and [row["id"] for row in first] == [row["id"] for row in other]
    assert all(a["outputs"] != b["outputs"] for a, b in zip(first, other, strict=True))


# --- few-shot


@pytest.fixture(scope="module")
def asked():
    return data.split_questions("reasoning", "test", 0, 20)


@pytest.mark.parametrize("shots", SHOTS)
def test_examples_are_right_and_of_the_questions_own_kind(asked, shots, monkeypatch):
    drawn, honest = [], families.draw
    monkeypatch.setattr(families, "draw", lambda *args: drawn.append(honest(*args)) or drawn[-1])
    for question, shown in zip(asked, data.with_examples(asked, shots, seed=0), strict=True):
        *examples, last = shown.text.split("\n")
        assert last == question.text and replace(shown, text=question.text) == question
        assert len(set(examples)) == len(examples) == shots
        for example in examples:
            (made,) = {d for d in drawn if example.startswith(f"{d.text} <think>")}
            kind = (made.family, made.level, made.language)
            assert kind == (question.family, question.level, question.language)
            (score,) = reasoning.accuracy([made], [example.removeprefix(made.text)])
            assert score.verdict == "right"


def test_examples_hold_no_question_of_the_test(asked, monkeypatch):
    drawn, honest = [], families.draw
    monkeypatch.setattr(families, "draw", lambda *args: drawn.append(honest(*args)) or drawn[-1])
    shown = data.with_examples(asked, 3, seed=0)
    assert {split_of(question.id) for question in drawn} == {"train"}
    for question in shown:
        before = question.text.rpartition("\n")[0]
        assert not arithmetic.holds_held_out(before)
        assert not any(other.text in before for other in asked)


def test_examples_are_a_function_of_seed_and_question(asked):
    first, again, other = (data.with_examples(asked, 1, seed=seed) for seed in (0, 0, 1))
    assert first == again and all(a.text != b.text for a, b in zip(first, other, strict=True))
    assert data.with_examples(asked[::-1], 1, seed=0) == first[::-1]


def test_questions_that_nobody_can_work_get_no_examples():
    with pytest.raises(Refusal, match="no worked examples of 'general'"):
        data.with_examples(data.split_questions("open", "test", 0, 1), 1, seed=0)


def test_an_evaluation_with_examples_asks_with_them(tmp_path, tiny_base, monkeypatch):
    heard, honest = [], sampler.sample
    monkeypatch.setattr(
        sampler, "sample", lambda model, prompts, *a, **k: heard.extend(prompts) or honest(model, prompts, *a, **k)
    )
    cfg = models.small_evaluation(shots=2, num_questions=2)
    rows = read_lines(evaluate.run(cfg, tmp_path / "run", tiny_base, models.SMALL_MACHINE) / "samples.jsonl")
    texts = vocabulary.of(tiny_base).tokenizer.batch_decode(heard)
    assert [text.count("<answer>") - paper.template("").count("<answer>") for text in texts] == [2, 2]
    assert [row["question"] in text for row, text in zip(rows, texts, strict=True)] == [True, True]


# --- neighbouring checkpoints


def test_a_loop_is_found_wherever_it_stands():
    line = "12+5=17, 17+5=22, so 22"  # 17 digits, words and signs
    assert loops(f"first. {line}. {line}. {line}. so") and not loops(f"{line}. {line}.")
    assert loops("so " * 18) and not loops("so " * 17)
    assert loops("所以得" * 8) and not loops("12+5=17, 13+5=18, 14+5=19, 15+5=20, 16+5=21")


@pytest.fixture
def fake(monkeypatch):
    """Evaluations that sample nothing: each writes two questions, and what it was asked with is kept."""
    heard = {}

    def run(cfg, run_dir, model_dir, machine=None):
        if (run_dir / "samples.jsonl").exists():
            return run_dir
        run_dir.mkdir(parents=True)
        heard[run_dir.parent.name, run_dir.name] = (cfg, model_dir)
        outputs = [{"text": f"{model_dir.name} {k}", "verdict": "right", "score": 1.0, "length": 3, "truncated": False,
                    "answer": "1"} for k in range(cfg.k)]  # fmt: skip
        rows = [{"step": n + 1, "id": f"q{n}", "question": "?", "family": "logic", "outputs": outputs} for n in (0, 1)]
        (run_dir / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return run_dir

    monkeypatch.setattr(protocol.evaluate, "run", run)
    return heard


def test_neighbours_are_sampled_each_with_its_own_noise_and_taken_greedily(tmp_path, monkeypatch, fake):
    settings = config_arms.protocol("smoke")
    found = {8: tmp_path / "step-000008", 4: tmp_path / "step-000004", 6: tmp_path / "step-000006"}
    monkeypatch.setattr(protocol, "neighbours", lambda *_: found)
    sampled, certain = (read_lines(run / "samples.jsonl") for run in protocol.greedy(settings, tmp_path))
    draws = {model.name: cfg for (place, _), (cfg, model) in fake.items() if place in ("sampled", "r1_zero")}
    assert [draws[f"step-00000{n}"] for n in (4, 6, 8)] == [replace(settings.evaluate, draw=d) for d in range(3)]
    greedy = [cfg for (place, _), (cfg, _) in fake.items() if place == "greedy"]
    assert greedy == [replace(settings.evaluate, greedy=True, k=1)] * 3
    assert [o["checkpoint"] for o in certain[0]["outputs"]] == [4, 6, 8]
    assert [o["text"] for o in certain[1]["outputs"]] == ["step-000004 0", "step-000006 0", "step-000008 0"]
    assert [o["checkpoint"] for o in sampled[0]["outputs"]] == [n for n in (4, 6, 8) for _ in range(4)]
    assert [row["id"] for row in sampled] == ["q0", "q1"] and sampled[0]["outputs"][0]["loops"] == 0
    assert protocol.greedy(settings, tmp_path)[0] == tmp_path / "models" / "zero_on" / "reasoning"


def test_r1_zeros_checkpoints_are_asked_more_sums_and_nothing_else_is_changed(tmp_path, fake):
    places = protocol.more_sums(config_arms.protocol("smoke"), tmp_path)
    more = {"evaluate.questions": "chain_sum", "evaluate.num_questions": 40}
    asked = config.r1_zero("smoke", 0, more).evaluate
    kept = protocol.rl.kept_steps(config.r1_zero("smoke").rl)
    models = {step: protocol.checkpoint.folder_of(tmp_path / "r1_zero", step) for step in kept}
    assert fake == {("sums", f"step-{step:06d}"): (asked, models[step]) for step in kept} and len(kept) > 1
    assert places == {step: tmp_path / config_arms.SUMS / f"step-{step:06d}" for step in kept}


def test_r1_is_asked_more_questions_than_the_others_with_and_without_examples(tmp_path, monkeypatch, fake):
    monkeypatch.setattr(protocol.r1, "model_of", lambda settings, seed_dir, name: tmp_path / name)
    settings = config_arms.protocol("smoke")
    places = protocol.few_shot(settings, tmp_path)
    assert [place.parent.name for place in places] == ["r1_shots_1", "r1_shots_3", "r1_zero_shots_1", "r1_zero_shots_3"]
    more = {place: asked for (place, kind), asked in fake.items() if kind == "more"}
    names = {0: "r1", 1: "r1_shots_1", 3: "r1_shots_3"}
    assert more == {
        name: (replace(settings.evaluate, num_questions=40, shots=n), tmp_path / "r1") for n, name in names.items()
    }
    assert fake["r1_shots_3", "reasoning"] == (replace(settings.evaluate, shots=3), tmp_path / "r1")


def test_evaluations_of_other_questions_are_not_gathered(tmp_path):
    for name, id in (("a", "q0"), ("b", "q1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text(json.dumps({"id": id, "outputs": []}) + "\n")
    with pytest.raises(Refusal, match="asked different questions"):
        protocol.gathered(Evaluate(), tmp_path / "run", {0: tmp_path / "a", 1: tmp_path / "b"})


def model_of(right, checkpoint, **more):
    arrays = {"checkpoint": np.array([checkpoint] * len(right)), **more}
    return SimpleNamespace(right_QK=np.array(right, dtype=float), more=arrays, ids=tuple(map(str, range(len(right)))))


def test_churn_by_hand():
    """Half, then all, then none of the samples right: 0.5^2 and 1^2; and a question that never changes."""
    found = model_of([[1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0]], [8, 8, 9, 9, 10, 10])
    assert measures_arms.by_checkpoint(found).tolist() == [[0.5, 1.0, 0.0], [0.5, 0.5, 0.5]]
    assert measures_arms.churn(found).tolist() == [(0.25 + 1.0) / 2, 0.0]


def test_the_mean_of_k_samples_moves_less_than_one_of_them():
    """Independent samples of a policy that does not change: churn falls as one over k, so the rule is about noise."""
    draw = np.random.default_rng(0).random((4000, 2 * 16)) < 0.5
    many = model_of(draw, [0] * 16 + [1] * 16)
    one = model_of(draw[:, [0, 16]], [0, 1])
    assert measures_arms.churn(many).mean() == pytest.approx(2 * 0.25 / 16, rel=0.1)
    assert measures_arms.churn_of_one(many).mean() == pytest.approx(2 * 0.25, rel=0.1)
    assert measures_arms.churn(one).mean() == pytest.approx(2 * 0.25, rel=0.1)


# --- judged twice


def judged(thinking, said, helpful):
    more = {name: np.array(values, dtype=float) for name, values in
            (("thinking", thinking), ("judged", said), ("helpful", helpful))}  # fmt: skip
    return model_of(np.zeros_like(more["thinking"]), [0] * more["thinking"].shape[1], **more)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (lambda length, good: length, 1.0),
        (lambda length, good: -3 * length, -1.0),
        (lambda length, good: 100 * good + length, 1.0),  # what the rule sees as well is no bias
    ],
)
def test_the_bias_is_what_length_does_among_equally_good_replies(said, expected):
    draw = np.random.default_rng(0)
    good = draw.integers(0, 3, (30, 8))
    length = 5.0 * good + draw.integers(0, 20, (30, 8)) + 40 * np.arange(30)[:, None]
    found = judged(length, said(length, good), good)
    assert measures_arms.length_bias(found) == pytest.approx(expected)


def test_a_judge_that_sees_quality_alone_has_no_bias():
    draw = np.random.default_rng(1)
    good = draw.integers(0, 3, (200, 8))
    noise = draw.standard_normal((200, 8))
    found = judged(5.0 * good + draw.integers(0, 20, (200, 8)), 3 * good + noise, good)
    assert abs(measures_arms.length_bias(found)) < 0.08
    with np.errstate(invalid="ignore"):
        assert np.isnan(measures_arms.length_bias(judged(good * 5.0, good * 3.0, good)))  # nothing varies


def test_the_judge_of_whole_outputs_learns_from_the_pairs_of_the_other(monkeypatch):
    def outputs(cfg, questions, *_):
        rng = np.random.default_rng(cfg.seed)
        said = [[q.gold, "nothing", f"{q.gold}", "no idea at all"] for q in questions]
        return [[f"<think> {'so ' * rng.integers(1, 9)}</think> <answer> {s} </answer>" for s in four] for four in said]

    monkeypatch.setattr(reward_model, "_outputs", outputs)
    cfg = config.RewardModel(num_prompts=40, judge_noise=0.0, min_difference=0.4)
    short, whole = (reward_model.labelled(replace(cfg, kind=kind), None, None) for kind in ("helpful", "whole"))
    assert len(short) == len(whole) > 10
    for one, other in zip(short, whole, strict=True):
        assert one.keys() == other.keys()
        assert {k: one[k] for k in ("id", "gold", "held_out")} == {k: other[k] for k in ("id", "gold", "held_out")}
        for key in ("chosen", "rejected"):
            assert "<think>" not in one[key].split("Assistant:")[-1] and "so " in other[key].split("Assistant:")[-1]
            assert other[key].split("</think>")[-1] == one[key].split("Assistant:")[-1]


def test_a_judge_scores_what_it_reads(tmp_path, tiny_base):
    questions = [families.draw("general", "test", 2, "en", n) for n in range(3)]
    questions.append(families.draw("safety", "test", 1, "en", 0))
    rows = [
        {"step": n + 1, "question": q.text, **{key: getattr(q, key) for key in protocol.KEPT}, "outputs": [
            {"text": f"<think> {'so ' * k}</think> <answer> {q.gold} </answer>", "verdict": "right", "score": 1.0,
             "length": 3, "truncated": False, "answer": "1", "helpful": 2.0} for k in (1, 5)]}
        for n, q in enumerate(questions)
    ]  # fmt: skip
    place = tmp_path / "models" / protocol.JUDGED / "open"
    place.mkdir(parents=True)
    (place / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judge = tmp_path / "judge"
    scorer.load(tiny_base, seed=1).save_pretrained(judge)
    found = {
        kind: read_lines(protocol.judged(Evaluate(), tmp_path, f"{kind}_judge", kind, judge) / "samples.jsonl")
        for kind in ("helpful", "whole")
    }
    assert [row["id"] for row in found["whole"]] == [q.id for q in questions[:3]]  # general prompts alone
    for short, whole in zip(found["helpful"], found["whole"], strict=True):
        a, b = short["outputs"]
        assert a["judged"] == pytest.approx(b["judged"], abs=1e-6) and a["thinking"] < b["thinking"]
        a, b = whole["outputs"]
        assert abs(a["judged"] - b["judged"]) > 1e-4
    text = scorer.reads("whole", questions[0], rows[0]["outputs"][0]["text"])
    (expected,) = scorer.scores(scorer.load(judge), [text]).tolist()
    assert found["whole"][0]["outputs"][0]["judged"] == pytest.approx(expected, abs=1e-6)


# --- arms of RL


@pytest.fixture
def heard(monkeypatch):
    """Runs of RL that train nothing: the settings of each by its name.  A quarter of the tokens of the first step are
    cut where the range is narrower than ``heard["cut below"]``."""
    found = {"cut below": 100.0}

    def train(cfg, run, *_):
        found[run.name] = cfg
        run.mkdir(parents=True)
        rows = [{"step": 1, "policy/clip_share": 0.25 * (cfg.clip_high < found["cut below"])}, {"step": 2}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(protocol.rl, "train", train)
    monkeypatch.setattr(protocol.ppo, "train", train)
    return found


def test_a_clip_that_never_cuts_is_no_clip(tmp_path, monkeypatch, fake, heard):
    """Then the run without one would be the same, and is not made again."""
    heard["cut below"] = 10.0
    monkeypatch.setattr(protocol.arms, "model_of", lambda seed_dir, name: seed_dir / name)
    (tmp_path / "r1_zero" / "checkpoints" / "step-000032").mkdir(parents=True)
    protocol.reinforced(config_arms.protocol("cpu"), tmp_path)
    assert "clip_none" not in heard and {"clip_small", "clip_paper"} <= heard.keys()
    assert {fake[name, "reasoning"][1].name for name in ("clip_none", "clip_paper")} == {"clip_paper"}


def test_each_arm_differs_from_r1_zero_in_what_it_is_made_for(tmp_path, monkeypatch, fake, heard):
    monkeypatch.setattr(protocol.arms, "model_of", lambda seed_dir, name: seed_dir / name)
    settings = config_arms.protocol("cpu", 5)
    (tmp_path / "r1_zero" / "checkpoints" / "step-000032").mkdir(parents=True)
    protocol.reinforced(settings, tmp_path)
    zero = asdict(config.r1_zero("cpu", 5).rl)
    del heard["cut below"]
    differs = {name: {k for k, v in zero.items() if asdict(cfg)[k] != v} for name, cfg in heard.items()}
    rollouts = {"num_rollouts", "num_checkpoints"}
    cut = rollouts | {"questions_per_step", "steps_per_rollout", "warmup_steps", "refresh_reference_every"}
    assert differs == {
        "ppo_95": rollouts | {"kl_coefficient"}, "ppo_100": rollouts | {"kl_coefficient"}, "clip_paper": cut,
        "clip_small": cut | {"clip_low", "clip_high"}, "clip_none": cut | {"clip_low", "clip_high"},
    }  # fmt: skip
    finer = zero["steps_per_rollout"] / heard["clip_paper"].steps_per_rollout
    for key in ("warmup_steps", "refresh_reference_every"):  # as many rollouts
        assert asdict(heard["clip_paper"])[key] * finer == zero[key]
    assert {name: heard[name].gae_lambda for name in LAMBDAS} == LAMBDAS
    assert {name: heard[name].clip_high for name in CLIPS} == CLIPS
    asked = {name: model.name for (name, _), (_, model) in fake.items()}
    assert asked == {name: name for name in heard} | {"grpo_short": "step-000032"}
    assert {cfg for cfg, _ in fake.values()} == {settings.evaluate}


def test_r1_zero_must_have_a_checkpoint_after_as_many_rollouts(tmp_path):
    with pytest.raises(Refusal, match="ppo.num_rollouts is 7.*one of 4, 8, 12, 16"):
        config_arms.protocol("cpu", overrides={"ppo.num_rollouts": 7})
    with pytest.raises(Refusal, match="run the notebook that makes r1_zero"):
        protocol.after_as_many(config_arms.protocol("cpu"), tmp_path)


def test_r1_zero_trained_on_starts_at_its_end(tmp_path, monkeypatch):
    end = tmp_path / "r1_zero" / "checkpoints" / "step-000016"
    end.mkdir(parents=True)
    write_json(tmp_path / "r1_zero" / "manifest.json", {"exit": "complete"})
    started = []

    def train(cfg, run, base, machine):
        started.append((cfg, base))
        for step in (0, 2, 4):
            (run / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
        return run

    monkeypatch.setattr(protocol.rl, "train", train)
    settings = config_arms.protocol("smoke")
    found = protocol.neighbours(settings, tmp_path)
    assert started == [(settings.on, end)] and settings.on.warmup_steps == 0
    assert settings.on.num_checkpoints == settings.on.num_rollouts
    run = tmp_path / "arms" / "zero_on" / "checkpoints"
    assert found == {16: end, 18: run / "step-000002", 20: run / "step-000004"}


# --- votes against samples


def test_a_vote_of_n_is_the_mean_over_all_that_can_be_had_of_the_samples():
    answers, right = [["7", "8", "8", "7", "7", "9"]], [[1, 0, 0, 1, 1, 0]]
    assert estimators.cons_at_n(answers, right, 1) == pytest.approx(3 / 6)
    assert estimators.cons_at_n(answers, right, 3) == pytest.approx(1 / 2)  # 8 8 wins the first three, 7 7 the last
    assert estimators.cons_at_n(answers, right, 4) == pytest.approx(1.0)  # 7 8 8 7: a tie, and 7 came first
    assert estimators.cons_at_n(answers, right, 6) == estimators.cons_at_k(answers, right)
    with pytest.raises(ValueError, match="n is 7"):
        estimators.cons_at_n(answers, right, 7)


def test_helpfulness_does_not_read_the_thinking():
    """What makes equal quality the same for both judges: the hidden rule itself is blind to it."""
    question = families.draw("general", "test", 2, "en", 2)
    long, short = (f"<think> {'so ' * n}</think> <answer> {question.gold} </answer>" for n in (1, 30))
    assert general.helpfulness(question, long) == general.helpfulness(question, short)
