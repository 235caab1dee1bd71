"""Losses and gradients of TRL's GRPOTrainer on small given tensors, into `tests/golden/trl_loss.json`.

`make bench-fixtures` writes the file anew; `tests/test_grpo.py` compares ours with it wherever it runs, without TRL.
Recorded are the settings under which both define the same thing: the ratio a token, and three ways to average.
"""

import json
import tempfile
from importlib import metadata
from typing import Any

import torch

from bench.worker import TOP
from r1repro.engine import policy
from r1repro.tinyworld import base, tokenizer

FILE = TOP / "tests" / "golden" / "trl_loss.json"

AVERAGES = {"grpo": "per_output_mean", "bnpo": "token_mean", "dr_grpo": "constant_divisor"}
"""TRL's name -> ours, of `r1repro.algo.grpo`."""

CASES = [
    {"loss_type": loss_type, "clip_low": low, "clip_high": high, "beta": beta}
    for loss_type in AVERAGES
    for low, high, beta in ((0.2, 0.2, 0.0), (0.2, 0.28, 0.04), (10.0, 10.0, 0.001))
]


def tensors() -> dict[str, torch.Tensor]:
    """Six outputs of up to seven tokens: ratios on both sides of each clip range, advantages of both signs and 0."""
    draw = torch.Generator().manual_seed(0)
    length_N = torch.tensor([7, 1, 4, 6, 3, 5])
    logp_NT = -3.0 * torch.rand(6, 7, generator=draw)
    return {
        "logp": logp_NT,
        "old_logp": logp_NT + 0.4 * torch.randn(6, 7, generator=draw),
        "ref_logp": logp_NT + 0.8 * torch.randn(6, 7, generator=draw),
        "advantage": torch.tensor([1.5, -0.7, 0.0, -1.2, 0.9, -0.5]),
        "mask": (torch.arange(7)[None] < length_N[:, None]).float(),
    }


def of_trl(case: dict[str, Any], given: dict[str, torch.Tensor]) -> dict[str, Any]:
    """TRL's loss of one case and its gradient by the log-probabilities."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=6,
            num_generations=2, max_completion_length=7, beta=case["beta"], epsilon=case["clip_low"],
            epsilon_high=case["clip_high"], loss_type=case["loss_type"], use_bias_correction_kl=False,
            gradient_checkpointing=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy.load(base.folder("tiny-1m")),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "1"}] * 6),
            processing_class=tokenizer.load(),
        )
        logp_NT = given["logp"].clone().requires_grad_()
        trainer.current_gradient_accumulation_steps = 1
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp_NT, torch.zeros_like(logp_NT), None)
        ones = torch.ones(6, 1, dtype=torch.long)
        loss = trainer._compute_loss(
            trainer.model,
            {
                "prompt_ids": ones, "prompt_mask": ones, "completion_ids": torch.ones(6, 7, dtype=torch.long),
                "completion_mask": given["mask"], "advantages": given["advantage"],
                "old_per_token_logps": given["old_logp"], "ref_per_token_logps": given["ref_logp"],
                "num_items_in_batch": given["mask"].sum(),
            },
        )  # fmt: skip
        loss.backward()
    return {"loss": loss.item(), "gradient": logp_NT.grad.tolist()}


def main() -> None:
    given = tensors()
    cases = [case | {"average": AVERAGES[case["loss_type"]]} | of_trl(case, given) for case in CASES]
    rows = ",\n".join("  " + json.dumps(case) for case in cases)
    inputs = json.dumps({name: tensor.tolist() for name, tensor in given.items()})
    FILE.write_text(f'{{"trl": "{metadata.version("trl")}",\n "inputs": {inputs},\n "cases": [\n{rows}\n ]}}\n')


if __name__ == "__main__":
    main()
