"""The probe tells the policy's weights from others, with the torch sampler in the place of one with its own weights."""

import dataclasses

import models
import pytest
import torch

from r1repro.engine import probe, sampler
from r1repro.records import Refusal

PROMPTS = [[5, 6, 7, 8 + q, 9] for q in range(4)]
SETTINGS = dict(key=(0, 1), ends=[models.END], pad=models.PAD)


@dataclasses.dataclass
class Served:
    model: object
    dtype: str = "float32"
    off_nats: float = 0.0

    def sample(self, prompts, num_outputs, *, ends, **settings):
        every = sampler.sample(self.model, prompts, num_outputs, ends=ends, **settings)
        return dataclasses.replace(every, logp_NT=every.logp_NT + self.off_nats)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_same_weights_pass(temperature):
    model = models.build(dtype=torch.float32)
    assert 0 <= probe.probe(Served(model), model, PROMPTS, temperature=temperature, **SETTINGS) < 1e-4


def test_other_weights_are_refused():
    with pytest.raises(Refusal, match="other weights than the policy") as caught:
        probe.probe(Served(models.build(seed=1)), models.build(), PROMPTS, **SETTINGS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", probe.TOLERANCE)
def test_each_precision_has_its_limit(dtype):
    model, limit = models.build(), probe.TOLERANCE[dtype]
    below, above = Served(model, dtype, 0.99 * limit), Served(model, dtype, 1.01 * limit)
    assert probe.probe(below, model, PROMPTS, **SETTINGS) == pytest.approx(0.99 * limit)
    with pytest.raises(Refusal, match=dtype):
        probe.probe(above, model, PROMPTS, **SETTINGS)


def test_one_token_is_enough_in_single_precision_and_not_below():
    served_NT, policy_NT, length_N = torch.zeros(4, 25), torch.zeros(4, 25), torch.full((4,), 25)
    served_NT[2, 24] = -0.5
    assert probe.divergence_nats(served_NT, policy_NT, length_N, "float32") == 0.5
    assert probe.divergence_nats(served_NT, policy_NT, length_N, "bfloat16") == pytest.approx(0.005)
    assert probe.divergence_nats(served_NT, policy_NT, length_N - 1, "float32") == 0.0


def test_what_is_no_number_is_refused():
    with pytest.raises(Refusal):
        probe.check(float("nan"), "bfloat16")
