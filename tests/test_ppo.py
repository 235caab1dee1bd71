"""PPO: rewards, advantages and losses worked apart, the value model against the plain way, and a run that goes on."""

import json
from dataclasses import replace

import models
import numpy as np
import pytest
import torch
from transformers import Qwen2ForSequenceClassification

from r1repro.algo import grpo, ppo
from r1repro.config_arms import PPO
from r1repro.engine import policy, scorer
from r1repro.records import Refusal
from r1repro.stages import ppo as stage
from r1repro.stages import rl

# --- the mathematics

LENGTH_N = torch.tensor([5, 1, 3])
MASK_NT = (torch.arange(5)[None] < LENGTH_N[:, None]).double()


def drawn(seed):
    """Numbers with garbage behind the end of each output, as a model gives it."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(MASK_NT.shape))


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_advantages_are_the_sum_of_what_comes_later(lam, gamma):
    """Against the definition: A_t is the sum of (gamma lambda)^k delta_{t+k} up to the end of its own output."""
    reward_NT, value_NT = drawn(0) * MASK_NT, drawn(1)
    found_NT = ppo.gae(reward_NT, value_NT, MASK_NT, lam=lam, gamma=gamma)
    for n, length in enumerate(LENGTH_N.tolist()):
        value = [*value_NT[n, :length].tolist(), 0.0]
        delta = [reward_NT[n, t].item() + gamma * value[t + 1] - value[t] for t in range(length)]
        expected = [sum((gamma * lam) ** k * delta[t + k] for k in range(length - t)) for t in range(length)]
        assert found_NT[n, :length].tolist() == pytest.approx(expected)
        assert (found_NT[n, length:] == 0).all()


def test_with_lambda_1_the_advantage_is_the_return_minus_the_value():
    reward_NT, value_NT = drawn(2) * MASK_NT, drawn(3)
    to_come_NT = reward_NT.flip(1).cumsum(1).flip(1)
    found_NT = ppo.gae(reward_NT, value_NT, MASK_NT, lam=1.0)
    torch.testing.assert_close(found_NT, (to_come_NT - value_NT) * MASK_NT)


def test_the_reward_comes_last_and_the_price_of_leaving_everywhere():
    logp_NT, ref_NT, reward_N = drawn(4), drawn(5), torch.tensor([1.0, 0.0, 2.0]).double()
    found_NT = ppo.token_rewards(reward_N, logp_NT, ref_NT, MASK_NT, beta=0.1)
    assert (found_NT * (1 - MASK_NT) == 0).all()
    expected_N = reward_N - 0.1 * ((logp_NT - ref_NT) * MASK_NT).sum(1)
    torch.testing.assert_close(found_NT.sum(1), expected_N)
    first, last = found_NT[0, 0].item(), found_NT[2, 2].item()
    assert first == pytest.approx(-0.1 * (logp_NT - ref_NT)[0, 0].item())
    assert last == pytest.approx(2.0 - 0.1 * (logp_NT - ref_NT)[2, 2].item())


def test_whitened_advantages_are_those_of_the_tokens_alone():
    found_NT = ppo.whitened(drawn(6), MASK_NT)
    on = found_NT[MASK_NT > 0]
    assert on.mean().item() == pytest.approx(0, abs=1e-9) and on.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(ppo.whitened(5 + 3 * drawn(6), MASK_NT), found_NT, atol=1e-5, rtol=0)
    assert (ppo.whitened(torch.ones(2, 2), torch.ones(2, 2)) == 0).all()


def test_the_gradient_of_the_value_loss_is_the_weighted_distance():
    value_NT, return_NT, weight_NT = drawn(7).requires_grad_(), drawn(8), MASK_NT / 9
    ppo.value_loss(value_NT, return_NT, weight_NT).backward()
    torch.testing.assert_close(value_NT.grad, weight_NT * (value_NT.detach() - return_NT))


def surrogate(advantage, logp_NT, old_NT, **clip):
    options = dict(clip_low=0.2, clip_high=0.2, beta=0.0) | clip
    return grpo.loss(logp_NT, old_NT, old_NT, advantage, MASK_NT / 9, **options)


def test_a_token_may_have_an_advantage_of_its_own():
    """The same for all tokens of an output it is GRPO's loss; else each token is cut by the sign of its own."""
    logp_NT, old_NT, advantage_N = drawn(9), drawn(10), torch.tensor([1.0, -2.0, 0.5]).double()
    spread_NT = advantage_N.unsqueeze(1).expand(3, 5)
    torch.testing.assert_close(surrogate(spread_NT, logp_NT, old_NT), surrogate(advantage_N, logp_NT, old_NT))
    above_NT = torch.zeros(3, 5).double().requires_grad_()
    own_NT = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]]).double().expand(3, 5)
    surrogate(own_NT, above_NT, above_NT.detach() - 0.5).backward()  # every ratio is e^0.5, above 1.2
    moved = (above_NT.grad != 0)[0].tolist()
    assert moved == [False, True, False, True, False]
    cut = grpo.clipped(above_NT.detach(), above_NT.detach() - 0.5, own_NT, clip_low=0.2, clip_high=0.2)
    assert cut[0].tolist() == [not m for m in moved]


# --- the value model


@pytest.fixture(scope="module")
def value_model():
    body = models.build()
    model = Qwen2ForSequenceClassification(body.config)
    model.model, model.score = body.model, torch.nn.Linear(32, 1, bias=False, dtype=torch.float64)
    model.score.weight.data = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 32)))
    return model.eval()


def asked():
    cfg = models.small_rl()
    found = models.rollout(models.build(), cfg)
    return found, (found.prompts, found.question_N, found.tokens_NT, found.length_N)


def plain_values(model, found):
    """Each row's prompt and output through the model: the head on the state before each token."""
    rows = []
    for n, length in enumerate(found.length_N.tolist()):
        prompt = found.prompts[found.question_N[n]]
        ids = torch.tensor([[*prompt, *found.tokens_NT[n, :length].tolist()]])
        values = model.score(model.model(input_ids=ids).last_hidden_state)[0, len(prompt) - 1 : -1, 0]
        rows.append(torch.nn.functional.pad(values, (0, found.tokens_NT.shape[1] - length)))
    return torch.stack(rows)


def test_values_and_their_gradient_are_those_of_a_plain_forward_pass(value_model):
    found, args = asked()
    how = dict(temperature=1.0, max_tokens=20, read=scorer.output_values)
    expected_NT = plain_values(value_model, found)
    torch.testing.assert_close(policy.all_logp(value_model, *args, **how), expected_NT.detach(), atol=1e-9, rtol=0)
    value_model.zero_grad()
    expected_NT.square().sum().backward()
    plain = {name: p.grad.clone() for name, p in value_model.named_parameters() if p.grad is not None}
    value_model.zero_grad()
    policy.backward_(value_model, *args, lambda value_NT, rows: value_NT.square().sum(), **how)
    assert plain.keys() >= {"score.weight", "model.layers.0.mlp.up_proj.weight"}
    for name, gradient in plain.items():
        torch.testing.assert_close(dict(value_model.named_parameters())[name].grad, gradient, atol=1e-9, rtol=1e-7)


def settings(**changes):
    small = {f: getattr(models.small_rl(), f) for f in models.small_rl().__dataclass_fields__}
    return PPO(**small | dict(kl_coefficient=0.0, kl_in_reward=0.05, value_learning_rate=3e-3) | changes)


@pytest.fixture
def critic(tiny_base, tmp_path):
    made = stage.Values(settings(gae_lambda=0.9), tiny_base, models.SMALL_MACHINE)
    made.load_(tmp_path, 0)
    return made


@pytest.fixture(scope="module")
def rollout(tiny_base):
    loaded, cfg = rl.actors.load(tiny_base, machine=models.SMALL_MACHINE), settings()
    questions = rl.data.rollout_questions("chain_sum", 0, 0, cfg.questions_per_rollout)
    samples = loaded.sample(questions, cfg.outputs_per_question, key=(0, 0), max_tokens=cfg.max_tokens)
    reference = rl.actors.Reference(loaded, tiny_base, cfg.policy)
    prompts = loaded.vocabulary.prompts(questions)
    return rl._compare(loaded, prompts, samples, [0.0] * 16, reference, cfg, models.SMALL_MACHINE)


TOTALS = [2.0, 0.0, 1.0, 0.0] * 4


def test_a_new_value_model_expects_nothing_so_advantages_are_what_comes(critic, rollout):
    found = critic.judged(rollout, TOTALS)
    mask_NT, _ = rl.token_weights(rollout, torch.arange(16), critic.cfg)
    reward_NT = ppo.token_rewards(torch.tensor(TOTALS), rollout.old_logp_NT, rollout.ref_logp_NT, mask_NT, beta=0.05)
    advantage_NT = ppo.gae(reward_NT, torch.zeros_like(mask_NT), mask_NT, lam=0.9)
    torch.testing.assert_close(found.return_NT, advantage_NT)
    torch.testing.assert_close(found.advantage_N, ppo.whitened(advantage_NT, mask_NT))
    assert found.explained == pytest.approx(0.0, abs=1e-6) and found.tokens_NT is rollout.tokens_NT


def test_the_value_model_learns_what_comes(critic, rollout):
    """Taught the same rollout again and again, it comes to explain most of what comes of it."""
    found = critic.judged(rollout, TOTALS)
    losses = [critic.update_(found, torch.arange(16))["value/loss"] for _ in range(30)]
    assert losses[-1] < losses[0] / 3
    again = critic.judged(rollout, TOTALS)
    assert again.explained > 0.5 > found.explained


def test_an_output_that_was_not_graded_teaches_nothing(critic, rollout):
    totals = [None, *TOTALS[1:]]
    found = critic.judged(rollout, totals)
    assert (found.advantage_N[0] == 0).all() and (found.advantage_N[1:] != 0).any(1).all()
    assert critic.update_(found, torch.tensor([0]))["value/loss"] == 0.0


# --- a run


def test_a_stopped_run_goes_on_to_the_same_policy_and_the_same_values(tmp_path, tiny_base, monkeypatch):
    cfg = settings(gae_lambda=0.95)
    whole = stage.train(cfg, tmp_path / "whole", tiny_base, models.SMALL_MACHINE)

    def full_disk(*_, **__):
        raise Refusal("disk full")

    with monkeypatch.context() as patch:  # dies between the value model's checkpoint and the policy's
        saved = rl._save_
        patch.setattr(rl, "_save_", lambda run, step, *a, **k: (full_disk if step == 4 else saved)(run, step, *a, **k))
        with pytest.raises(Refusal, match="disk full"):
            stage.train(cfg, tmp_path / "stopped", tiny_base, models.SMALL_MACHINE)
    stopped = stage.train(cfg, tmp_path / "stopped", tiny_base, models.SMALL_MACHINE)
    for place in ("", "value"):
        a, b = (models.newest(run / place) / "model.safetensors" for run in (whole, stopped))
        assert a.read_bytes() == b.read_bytes()
    lines, again = (models._without_times(run / "metrics.jsonl") for run in (whole, stopped))
    assert lines == again and all({"value/loss", "value/explained", "policy/loss"} <= line.keys() for line in lines)
    assert stage.train(cfg, tmp_path / "whole", tiny_base, models.SMALL_MACHINE) == whole


def test_lambda_matters_and_the_rest_is_that_of_grpo(tmp_path, tiny_base):
    """The first rollout is sampled from the same base; what is learned of it differs with lambda."""
    runs = {
        lam: stage.train(settings(gae_lambda=lam, num_rollouts=2), tmp_path / str(lam), tiny_base, models.SMALL_MACHINE)
        for lam in (0.5, 1.0)
    }
    runs["grpo"] = rl.train(models.small_rl(num_rollouts=2), tmp_path / "grpo", tiny_base, models.SMALL_MACHINE)
    first, last = ({name: json.loads((run / "metrics.jsonl").read_text().splitlines()[at]) for name, run in
                    runs.items()} for at in (0, 2))  # fmt: skip
    assert first[0.5]["reward/mean"] == first[1.0]["reward/mean"] == first["grpo"]["reward/mean"]
    assert len({row["length/mean"] for row in last.values()}) > 1
    assert "value/loss" not in first["grpo"]


def test_what_cannot_be_trained_in_full_is_refused(tmp_path, tiny_base):
    cfg = settings()
    with pytest.raises(Refusal, match="trained in full"):
        stage.train(replace(cfg, policy=replace(cfg.policy, weights="lora")), tmp_path, tiny_base)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"gae_lambda": 1.1}, "gae_lambda is 1.1"), ({"kl_coefficient": 0.1}, "kl_in_reward"),
     ({"value_learning_rate": 0.0}, "value_learning_rate is 0.0"), ({"num_rollouts": 0}, "num_rollouts is 0")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(changes, said):
    with pytest.raises(Refusal, match=said):
        settings(**changes)
