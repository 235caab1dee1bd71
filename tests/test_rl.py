"""The RL stage: what enters an update, what must not change it, and ten steps that were recorded."""

import dataclasses
import json
import math

import models
import pytest
import torch

from r1repro.algo import grpo
from r1repro.config import Machine
from r1repro.engine import actor, checkpoint, policy
from r1repro.records import VERDICTS, Refusal, Score
from r1repro.run import GLOSSARY
from r1repro.stages import rl

BIG = Machine(micro_batch_tokens=10**6)


def train(folder, base, **changes):
    run = rl.train(models.small_rl(**changes), folder, base, models.SMALL_MACHINE)
    return run, models._without_times(run / "metrics.jsonl")


def same(a, b, **tolerance):
    for name in a:
        torch.testing.assert_close(a[name], b[name], **(tolerance or dict(atol=0, rtol=0)))


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_base):
    """An undisturbed run: its folder and its metrics without times."""
    return train(tmp_path_factory.mktemp("rl") / "run", tiny_base)


# --- one update


@pytest.mark.parametrize("max_tokens", [1, 13, 24, 60])
@pytest.mark.parametrize("average", ["per_output_mean", "token_mean", "constant_divisor"])
def test_micro_batches_of_any_size_give_the_same_weights(max_tokens, average):
    cfg = models.small_rl(**models.THREE_STEPS, average=f"r1repro.algo.grpo:{average}")
    whole = models.weights_after(cfg, BIG)
    same(models.weights_after(cfg, Machine(micro_batch_tokens=max_tokens)), whole, atol=1e-10, rtol=0)
    untouched = dict(models.build().named_parameters())
    assert all((whole[name] - untouched[name]).abs().max() > 1e-3 for name in whole)


def test_tokens_count_as_much_as_their_importance_says():
    """Where another engine sampled: twice the weight is twice the gradient, none is none, and 1 changes nothing."""
    cfg, norms = models.small_rl(), {}
    drawn = models.rollout(models.build(), cfg)
    for weight in (None, 0.0, 1.0, 2.0):
        actor, rows = models.build(), rl.mini_batches(cfg, 0)[0]
        importance_NT = None if weight is None else torch.full_like(drawn.old_logp_NT, weight)
        weighed = dataclasses.replace(drawn, importance_NT=importance_NT)
        log = rl.update_(actor, rl.new_optimizer(actor, cfg), weighed, rows, cfg, models.SMALL_MACHINE)
        norms[weight] = log["policy/grad_norm"]
    assert norms[0.0] == 0 < norms[None] == norms[1.0]
    assert norms[2.0] == pytest.approx(2 * norms[1.0], rel=1e-9)


def test_dr_grpo_divides_by_the_cap_whatever_was_sampled():
    cfg = models.small_rl(average="r1repro.algo.grpo:constant_divisor")
    drawn = models.rollout(models.build(), cfg)

    def norm(max_tokens):
        actor, wider = models.build(), dataclasses.replace(cfg, max_tokens=max_tokens)
        rows = rl.mini_batches(cfg, 0)[0]
        return rl.update_(actor, rl.new_optimizer(actor, cfg), drawn, rows, wider, models.SMALL_MACHINE)[
            "policy/grad_norm"
        ]

    assert norm(3 * cfg.max_tokens) == pytest.approx(norm(cfg.max_tokens) / 3, rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_an_update_is_the_gradient_of_equation_1_over_its_rows(temperature):
    """Against the plain way: every row's prompt and output through the model, the loss over all, one AdamW step.

    Two steps, because AdamW's first is nearly the same whatever the size of the gradient.
    """
    cfg = models.small_rl(kl_coefficient=0.2, clip_low=0.1, clip_high=0.1, max_grad_norm=0.3, temperature=temperature)
    actor, plain = models.build(), models.build()
    drawn = models.rollout(actor, cfg)
    drawn.old_logp_NT.sub_(0.15)  # an older policy: ratios are off 1, so that the clip matters
    optimizer = rl.new_optimizer(actor, cfg)
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=cfg.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for rows in rl.mini_batches(cfg, 0):
        log = rl.update_(actor, optimizer, drawn, rows, cfg, models.SMALL_MACHINE)

        mask_NT = (torch.arange(cfg.max_tokens) < drawn.length_N[rows][:, None]).double()
        logp_NT = torch.stack(
            [
                torch.nn.functional.pad(
                    one_row(plain, drawn, row, temperature), (0, cfg.max_tokens - int(drawn.length_N[row]))
                )
                for row in rows.tolist()
            ]
        )
        loss = grpo.loss(
            logp_NT, drawn.old_logp_NT[rows], drawn.ref_logp_NT[rows], drawn.advantage_N[rows],
            grpo.per_output_mean(mask_NT), clip_low=0.1, clip_high=0.1, beta=0.2,
        )  # fmt: skip
        plain_optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
        plain_optimizer.step()
        assert (log["policy/loss"], log["policy/grad_norm"]) == pytest.approx((loss.item(), norm.item()))
        assert norm > 0.3
        same(dict(actor.named_parameters()), dict(plain.named_parameters()), atol=1e-9, rtol=0)


def one_row(model, drawn, row, temperature):
    prompt, tokens = drawn.prompts[drawn.question_N[row]], drawn.tokens_NT[row, : drawn.length_N[row]].tolist()
    logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]


def test_metrics_of_an_update_are_those_of_its_rows():
    cfg = models.small_rl(clip_low=0.1, clip_high=0.1)
    actor = models.build()
    drawn = models.rollout(actor, cfg)
    drawn.old_logp_NT.sub_(0.15)
    rows = rl.mini_batches(cfg, 0)[1]
    on = torch.arange(cfg.max_tokens) < drawn.length_N[rows][:, None]
    log = rl.update_(actor, rl.new_optimizer(actor, cfg), drawn, rows, cfg, models.SMALL_MACHINE)
    better = (drawn.advantage_N[rows] > 0)[:, None].expand_as(on)[on]
    assert log["policy/ratio_max"] == pytest.approx(math.exp(0.15))
    assert log["policy/clip_share"] == pytest.approx(better.double().mean().item())
    assert log["tokens/trained"] == on.sum() == drawn.length_N[rows].sum()
    assert log["policy/entropy_nats"] == pytest.approx(-drawn.old_logp_NT[rows][on].mean().item())
    assert log["sampler/divergence_nats"] == pytest.approx(math.exp(0.15) - 0.15 - 1)
    assert log["policy/kl_reference_nats"] > 0


def test_dropout_takes_no_part_in_an_update():
    """The ratio is that of the policy which sampled; a model that drops out at random is another one at each call."""
    cfg, actor = models.small_rl(), models.build("gpt2")
    for module in actor.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    log = rl.update_(
        actor, rl.new_optimizer(actor, cfg), models.rollout(actor, cfg), rl.mini_batches(cfg, 0)[0], cfg, BIG
    )
    assert log["sampler/divergence_nats"] < 1e-8 and not actor.training


def test_mini_batches_split_a_rollout_at_random():
    cfg = models.small_rl(questions_per_step=8, outputs_per_question=16)
    first, second = rl.mini_batches(cfg, 0), rl.mini_batches(cfg, 1)
    assert sorted(torch.cat(first).tolist()) == list(range(256)) and [len(rows) for rows in first] == [128, 128]
    assert not torch.equal(first[0], second[0]) and torch.equal(first[0], rl.mini_batches(cfg, 0)[0])
    assert torch.cat(first).tolist() != list(range(256))
    assert {row // 16 for row in first[0].tolist()} == {row // 16 for row in first[1].tolist()} == set(range(16))


def test_each_rollout_of_each_seed_has_its_own_noise(tiny_base):
    """The same questions again, as a long run asks them: they are answered otherwise."""
    questions, loaded = rl.data.rollout_questions("chain_sum", 0, 0, 4), actor.load(tiny_base)
    first, later, other = (
        loaded.sample(questions, 4, key=key, max_tokens=12).tokens_NT.tolist() for key in ((0, 0), (0, 1), (1, 0))
    )
    assert first != later and first != other


# --- advantages


def compare(base, totals, **changes):
    cfg = models.small_rl(**changes)
    questions = rl.data.rollout_questions("chain_sum", 0, 0, cfg.questions_per_rollout)
    loaded = actor.load(base, machine=models.SMALL_MACHINE)
    samples = loaded.sample(
        questions, cfg.outputs_per_question, key=(0, 0), max_tokens=cfg.max_tokens, temperature=cfg.temperature
    )
    reference = actor.Reference(loaded, base, cfg.policy)
    return rl._compare(
        loaded, loaded.vocabulary.prompts(questions), samples, totals, reference, cfg, models.SMALL_MACHINE
    )


def test_outputs_are_compared_within_their_own_question(tiny_base):
    totals = [1.0, 0.0, 0.0, 0.0] + [2.0, 2.0, 0.0, 0.0] + [0.0] * 4 + [0.5] * 4
    found = compare(tiny_base, totals).advantage_N.view(4, 4)
    expected = [[3**0.5, *[-(3**-0.5)] * 3], [1, 1, -1, -1], [0] * 4, [0] * 4]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_a_masked_output_has_no_advantage_and_the_others_ignore_it(tiny_base):
    totals = [1.0, None, 0.0, None] + [None] * 4 + [0.0] * 8
    found = compare(tiny_base, totals).advantage_N.view(4, 4)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0, -1, 0]), atol=1e-4, rtol=0)
    assert (found[1:] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_reference_and_sampling_policy_agree_before_the_first_update(tiny_base, temperature):
    found = compare(tiny_base, [0.0] * 16, temperature=temperature)
    torch.testing.assert_close(found.ref_logp_NT, found.old_logp_NT, atol=2e-5, rtol=0)


def test_a_run_samples_at_its_temperature(tmp_path, tiny_base):
    """Drawn at another one, outputs would have other log-probabilities than those that the first step takes."""
    _, lines = train(tmp_path / "run", tiny_base, temperature=0.7)
    assert max(line["sampler/divergence_nats"] for line in lines if "sampler/divergence_nats" in line) < 1e-6


# --- a run


def test_every_step_is_logged_with_known_keys(done):
    _, lines = done
    assert [line["step"] for line in lines] == list(range(1, 7))
    first, later = lines[0::2], lines[1::2]
    assert [line["rollout/index"] for line in first] == [0, 1, 2]
    assert all("rollout/index" not in line and "sampler/divergence_nats" not in line for line in later)
    for line in lines:
        assert {"policy/loss", "policy/grad_norm", "policy/kl_reference_nats", "tokens/trained"} <= line.keys()
        assert all(k == "step" or k in GLOSSARY or k.rsplit("_", 1)[0] in GLOSSARY for k in line)
        assert all(math.isfinite(v) for v in line.values())
    for a, b in zip(first, later, strict=True):
        assert a["tokens/sampled"] == a["tokens/trained"] + b["tokens/trained"]


def test_the_sampler_and_the_policy_agree_at_the_first_update(done):
    assert all(line["sampler/divergence_nats"] <= 1e-8 for line in done[1][0::2])


class Length:
    """A further reward of one's own, with no more to it than what is asked of one."""

    __name__ = "length"
    inputs = {"by": "length"}  # noqa: RUF012

    def __call__(self, questions, texts):
        self.most = max(len(texts), getattr(self, "most", 0))
        return [len(text) / 100 for text in texts]


class AllAtOnce(Length):
    together = True


def test_a_further_reward_is_added_asked_by_question_or_for_all_at_once(done, tmp_path, tiny_base):
    cfg, found = models.small_rl(), []
    for reward, most in ((Length(), cfg.outputs_per_question), (AllAtOnce(), 16)):
        run = rl.train(cfg, tmp_path / type(reward).__name__, tiny_base, models.SMALL_MACHINE, reward)
        found.append(models._without_times(run / "metrics.jsonl"))
        assert reward.most == most
    assert found[0] == found[1] and found[0][0]["reward/mean"] > done[1][0]["reward/mean"]


def test_the_same_seed_twice_gives_identical_metrics_and_weights(done, tmp_path, tiny_base):
    run, lines = train(tmp_path / "again", tiny_base)
    assert lines == done[1]
    name = "model.safetensors"
    assert (models.newest(run) / name).read_bytes() == (models.newest(done[0]) / name).read_bytes()
    assert (run / "samples.jsonl").read_bytes() == (done[0] / "samples.jsonl").read_bytes()


def test_another_seed_gives_another_run(done, tmp_path, tiny_base):
    assert train(tmp_path / "other", tiny_base, seed=1)[1] != done[1]


def test_a_finished_run_returns_at_once(done, tiny_base, monkeypatch):
    monkeypatch.setattr(policy, "load", lambda *_: pytest.fail("a finished run must load no model"))
    assert rl.train(models.small_rl(), done[0], tiny_base, models.SMALL_MACHINE) == done[0]


def test_the_manifest_counts_the_tokens_of_all_sessions(tmp_path, tiny_base, monkeypatch):
    """Also when a session dies between a checkpoint and the manifest."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep_only", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run", tiny_base)
    run, lines = train(tmp_path / "run", tiny_base)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["tokens"]["sampled"] == sum(line.get("tokens/sampled", 0) for line in lines)
    assert manifest["tokens"]["trained"] == sum(line["tokens/trained"] for line in lines)


def test_the_reference_becomes_the_policy_exactly_at_its_steps(tmp_path, tiny_base, monkeypatch):
    """After steps 4 and 8, and never in between: seen in what `_compare` is handed and in what checkpoints hold."""
    handed, honest = [], rl._compare

    def watch(actor, prompts, samples, totals, reference, cfg, machine):
        with reference.model() as model:
            handed.append(model.model.embed_tokens.weight.detach().clone())
        return honest(actor, prompts, samples, totals, reference, cfg, machine)

    monkeypatch.setattr(rl, "_compare", watch)
    run, lines = train(tmp_path / "run", tiny_base, num_rollouts=5, refresh_reference_every=4, num_checkpoints=5)
    assert [line["step"] for line in lines if line.get("policy/reference_refreshed")] == [4, 8]
    policies = {step: weights(run, step)["model.embed_tokens.weight"] for step in (0, 2, 4, 6, 8, 10)}
    for index, step in enumerate([0, 0, 4, 4, 8]):
        assert torch.equal(handed[index], policies[step]), index
    for step, holds in ((2, 0), (4, 4), (6, 4), (8, 8), (10, 8)):
        assert torch.equal(weights(run, step, "reference")["model.embed_tokens.weight"], policies[holds]), step


def test_the_learning_rate_warms_up_and_stays(tmp_path, tiny_base, monkeypatch):
    rates, honest = [], rl.update_

    def watch(actor, optimizer, *rest):
        rates.append(optimizer.param_groups[0]["lr"])
        return honest(actor, optimizer, *rest)

    monkeypatch.setattr(rl, "update_", watch)
    train(tmp_path / "run", tiny_base, warmup_steps=4, learning_rate=2e-3)
    assert rates == pytest.approx([5e-4, 1e-3, 1.5e-3, 2e-3, 2e-3, 2e-3])


def weights(run, step, name="model"):
    return checkpoint.load_file(checkpoint.folder_of(run, step) / f"{name}.safetensors")


def test_checkpoints_of_equal_parts_stay_and_the_first_is_the_base(tmp_path, tiny_base):
    run, _ = train(tmp_path / "run", tiny_base, num_rollouts=4, num_checkpoints=2)
    assert checkpoint.steps_in(run) == rl.kept_steps(models.small_rl(num_rollouts=4, num_checkpoints=2)) == [0, 4, 8]
    base = checkpoint.load_file(tiny_base / "model.safetensors")
    assert all(torch.equal(base[name], tensor) for name, tensor in weights(run, 0).items())


@pytest.mark.parametrize("updates", [0, 3, 5])
def test_a_run_goes_on_from_its_checkpoint_as_if_never_stopped(done, tmp_path, tiny_base, monkeypatch, updates):
    """Stopped in each of its three rollouts; before the last of them the reference has been refreshed."""
    calls, honest = iter(range(100)), rl.update_
    with monkeypatch.context() as patch:
        patch.setattr(rl, "update_", lambda *a: honest(*a) if next(calls) < updates else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run", tiny_base)
    run, lines = train(tmp_path / "run", tiny_base)
    assert lines == done[1]
    assert (run / "samples.jsonl").read_bytes() == (done[0] / "samples.jsonl").read_bytes()
    same(weights(run, 6), weights(done[0], 6))
    same(weights(run, 6, "optimizer"), weights(done[0], 6, "optimizer"))


# --- what goes wrong


def test_a_loss_that_is_no_number_is_refused_and_the_last_checkpoint_stays(tmp_path, tiny_base, monkeypatch):
    calls, honest = iter(range(100)), grpo.loss
    monkeypatch.setattr(grpo, "loss", lambda *a, **k: honest(*a, **k) * (1.0 if next(calls) < 8 else math.nan))
    with pytest.raises(Refusal, match="^step [345]: .*nan.*lower learning_rate") as caught:
        train(tmp_path / "run", tiny_base)
    assert "\n" not in str(caught.value)
    newest = models.newest(tmp_path / "run")
    assert str(newest) in str(caught.value)
    (file,) = (tmp_path / "run").glob("failed-step-*.safetensors")
    batch = checkpoint.load_file(file)
    assert str(file) in str(caught.value) and set(batch) == set(rl.BATCH)
    assert len(batch["tokens_NT"]) == len(batch["advantage_N"]) > 0
    assert newest.name != "step-000006"
    checkpoint.verify(newest)
    assert all(torch.isfinite(t).all() for t in checkpoint.load_file(newest / "model.safetensors").values())


def test_a_grader_that_fails_masks_and_is_counted(tmp_path, tiny_base):
    _, lines = train(tmp_path / "some", tiny_base, rewards=("models:fails_for_some",))
    for line in lines[0::2]:
        assert 0 < line["verdict/error"] < 1
        assert sum(line[f"verdict/{verdict}"] for verdict in VERDICTS) == pytest.approx(1)


def test_a_rollout_whose_grader_always_fails_moves_nothing_but_by_the_reference(tmp_path, tiny_base):
    run, lines = train(tmp_path / "all", tiny_base, rewards=("models:fails_for_all",), kl_coefficient=0.0)
    assert all(line["policy/loss"] == 0 and line["policy/grad_norm"] == 0 for line in lines)
    assert all(line["group/no_variance"] == 1 for line in lines[0::2])
    same(weights(run, 6), weights(run, 0))


def test_masked_outputs_are_left_out_of_the_mean_accuracy(tiny_base):
    cfg = models.small_rl()
    questions = rl.data.rollout_questions("chain_sum", 0, 0, cfg.questions_per_rollout)
    loaded = actor.load(tiny_base)
    samples = loaded.sample(questions, cfg.outputs_per_question, key=(0, 0), max_tokens=cfg.max_tokens)
    scores = [Score(value=1.0, verdict="right")] * 4 + [Score(value=None, verdict="timed_out")] * 12
    asked = [q for q in questions for _ in range(4)]
    log = rl._rollout_log(
        0, asked, loaded.texts(samples), samples, [s.value for s in scores], {"accuracy": scores}, cfg
    )
    assert log["reward/mean"] == 1.0 and log["verdict/timed_out"] == 0.75
    assert log["reward/accuracy"] == 1.0


@pytest.mark.parametrize("setting", ["rewards", "advantage", "ratio", "average", "questions"])
def test_a_name_that_does_not_exist_is_refused_and_can_be_mended(tmp_path, tiny_base, setting):
    """The folder is not taken by the wrong settings: the right ones then run in it."""
    wrong = ("models:nothing",) if setting == "rewards" else "models:nothing"
    with pytest.raises(Refusal) as caught:
        train(tmp_path / "run", tiny_base, **{setting: wrong})
    assert "nothing" in str(caught.value) and "\n" not in str(caught.value)
    train(tmp_path / "run", tiny_base, num_rollouts=1)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, tiny_base, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("r1repro.run.Run.finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run", tiny_base)
    file = models.newest(tmp_path / "run") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Refusal, match="step-000006 is damaged .*model.safetensors"):
        train(tmp_path / "run", tiny_base)


# --- golden


def test_ten_steps_are_as_they_were_recorded(tmp_path):
    """Recorded outputs, numpy's weights: only the arithmetic can differ.  `python tests/models.py record` renews it."""
    recorded = json.loads(models.GOLDEN.read_text())
    steps, _ = models.golden_run(tmp_path, recorded["tokens"])
    assert len(steps) == len(recorded["steps"]) == 10
    for number, (step, expected) in enumerate(zip(steps, recorded["steps"], strict=True)):
        assert step == pytest.approx(expected, abs=1e-4, rel=1e-4), number
