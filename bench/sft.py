"""Training on packed rows, 8 x 512 tokens a step: our pre-training step against TRL's SFTTrainer.

Rows are filled with documents end to end and made beforehand, for both sides, and each is read as one text; the
optimiser is the same object's class with the same settings.  Both sides start from the base model, take the same steps,
and their weights after those are compared.
"""

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bench.worker import answer
from r1repro.config import Pretrain
from r1repro.engine import policy
from r1repro.run import sha256_file
from r1repro.stages import pretrain
from r1repro.tinyworld import base, corpus, tokenizer

WARM, TIMED = 5, 20
RATE = 1e-4
"""Learning rate, constant; small, so that rounding is not blown up before the weights are compared."""

CFG = Pretrain()
ROWS, LENGTH = 8, 512
BASE = "tiny-1m"


def rows() -> list[list[list[int]]]:
    needed = ROWS * (LENGTH + 1)
    ids = ([x for text in corpus.texts(CFG.seed, s, 2 * needed) for x in text] for s in range(1, WARM + TIMED + 1))
    return [[row[i : i + LENGTH + 1] for i in range(0, needed, LENGTH + 1)] for row in ids]


def adamw(model, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, **more)


def outcome(seconds: float, rows_of_a_step: int = ROWS) -> dict[str, Any]:
    return {
        "value": TIMED * rows_of_a_step * LENGTH / seconds,
        "unit": "tokens/s",
        "tokens": TIMED * rows_of_a_step * LENGTH,
        "weights": sha256_file(base.folder(BASE) / "model.safetensors"),
    }


def ours(case: str, folder: Path) -> dict[str, Any]:
    """Tokens a second, and the share of the matrix-product rate; leaves the weights after the last step."""
    ready, given = rows(), pretrain.corpus.texts
    model = policy.load(base.folder(BASE)).train()
    optimizer = adamw(model)
    pretrain.corpus.texts = lambda seed, step, *_: ready[step - 1]
    for step in range(1, WARM + TIMED + 1):
        if step == WARM + 1:
            started = time.perf_counter()
        pretrain._step_(model, optimizer, CFG, step)
    seconds = time.perf_counter() - started
    pretrain.corpus.texts = given
    save_file({n: p.detach() for n, p in model.named_parameters()}, folder / "ours.safetensors")
    rate, plain = model_flops(model) * TIMED / seconds, matmul_rate(model)
    return outcome(seconds) | {"flops": rate, "matmul_flops": plain, "share_of_matmul": rate / plain}


def linear_shapes(model) -> list[tuple[int, int]]:
    """(outputs, inputs) of each matrix that a token is multiplied with, the output layer included."""
    return [tuple(m.weight.shape) for m in model.modules() if isinstance(m, torch.nn.Linear)]


def model_flops(model) -> float:
    """Floating-point operations of one step: its matrix products forward and backward, attention as far as causal.

    Nothing else is counted: no norm, activation, softmax, loss or optimiser.
    """
    tokens = ROWS * LENGTH
    linear = sum(6.0 * tokens * a * b for a, b in linear_shapes(model))
    attention = 6.0 * tokens * LENGTH * model.config.hidden_size * model.config.num_hidden_layers
    return linear + attention


def matmul_rate(model) -> float:
    """Operations a second of plain torch products of the shapes of the step's linear layers: y = x W', dx = dy W and
    dW = dy' x.  The best of five passes over all of them."""
    tokens, best = ROWS * LENGTH, float("inf")
    shapes = linear_shapes(model)
    x = {b: torch.randn(tokens, b) for _, b in shapes}
    dy = {a: torch.randn(tokens, a) for a, _ in shapes}
    weights = [torch.randn(a, b) for a, b in shapes]
    for _ in range(6):
        started = time.perf_counter()
        for w in weights:
            a, b = w.shape
            x[b] @ w.T, dy[a] @ w, dy[a].T @ x[b]
        best = min(best, time.perf_counter() - started)
    return sum(6.0 * tokens * a * b for a, b in shapes) / best


def theirs(
    case: str,
    folder: Path,
    attention: str = "sdpa",
    micro_batch: int = ROWS,
    fused: bool = False,
    threads: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """Tokens a second of TRL; raises where its weights after the last step are not ours."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    if threads:
        torch.set_num_threads(threads)
    model = policy.load(base.folder(BASE))
    model.set_attn_implementation(attention)
    optimizer, times = adamw(model, fused=fused), {}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            times[state.global_step] = time.perf_counter()

    options = dict(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None,
        per_device_train_batch_size=micro_batch, gradient_accumulation_steps=ROWS // micro_batch,
        max_steps=WARM + TIMED, max_grad_norm=1.0, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=1000, dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**(options | more)),
        train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for step in rows() for row in step]),
        processing_class=tokenizer.load(),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=[Clock()],
    )
    trainer.train()
    kept = load_file(folder / "ours.safetensors")
    apart = max(float((p.detach() - kept[n]).abs().max()) for n, p in model.named_parameters())
    assert apart <= 1e-4, f"weights differ by {apart}"
    return outcome(times[WARM + TIMED] - times[WARM]) | {"checks": {"weights_max": apart}}


if __name__ == "__main__":
    answer(ours, theirs)
