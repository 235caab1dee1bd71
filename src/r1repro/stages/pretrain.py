"""Pre-training of a base model of the tiny world: next-token prediction on `tinyworld.corpus`, document by document.

Not a stage of the paper, which starts from DeepSeek-V3-Base.  `make base` runs it; its result is committed.
"""

import math
import shutil
from pathlib import Path

import torch
from tqdm.auto import tqdm

from r1repro.algo import likelihood
from r1repro.config import Pretrain
from r1repro.engine import checkpoint, muon, policy
from r1repro.records import Refusal
from r1repro.run import Interrupts, Run, speaking_of
from r1repro.tinyworld import base, corpus, tokenizer


def train(cfg: Pretrain, run_dir: Path, start: Path | None = None) -> Path:
    """Pre-train, or go on, or return at once when done; returns the folder of the last checkpoint.

    Args:
        start: a model that reads on; None: one whose weights are drawn from ``cfg.seed``.
    """
    inputs = {"tokenizer": tokenizer.digest()} | ({"base": base.digest(start)} if start else {})
    run = Run.open(run_dir, stage="pretrain", config=cfg, inputs=inputs, seed=cfg.seed)
    last = checkpoint.folder_of(run.path, cfg.steps)
    if run.complete:
        return last
    model = policy.load(start) if start else base.new(cfg.model, cfg.seed)
    optimizer = muon.Muon(model, lr=cfg.learning_rate, weight_decay=0.1)
    done = _resume_(run, model, optimizer)
    with Interrupts("this step") as interrupts:
        for step in tqdm(range(done + 1, cfg.steps + 1), initial=done, total=cfg.steps, desc="pre-training"):
            for group in optimizer.param_groups:
                group["lr"] = cfg.learning_rate * schedule(step / cfg.steps, cfg.warmup)
            loss, num_tokens = _step_(model, optimizer, cfg, step)
            rate = optimizer.param_groups[0]["lr"]
            run.log(step, {"policy/loss": loss, "learning_rate": rate, "tokens/trained": num_tokens})
            if step % cfg.checkpoint_every == 0 or step == cfg.steps or interrupts.asked:
                checkpoint.save_(run.path, step, model, tokenizer.load(), optimizer=optimizer)
                checkpoint.keep_only(run.path, {step})
                run.keep_time()
            interrupts.stop()
    run.finish(tokens={"trained": sum(int(line["tokens/trained"]) for line in run.metrics())})
    return last


def schedule(done: float, warmup: float, final: float = 0.05) -> float:
    """Share of the peak learning rate after a share ``done`` of the run: linear warm-up, then a cosine to ``final``.

    >>> [round(schedule(x, 0.1), 3) for x in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.05]
    """
    if done < warmup:
        return done / warmup
    return final + (1 - final) * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def _resume_(run: Run, model, optimizer) -> int:
    steps = checkpoint.steps_in(run.path)
    done = steps[-1] if steps else 0
    run.rewind(done)
    if steps:
        checkpoint.load_(checkpoint.folder_of(run.path, done), model, optimizer=optimizer)
    return done


def _step_(model, optimizer, cfg: Pretrain, step: int) -> tuple[float, int]:
    """One step; its loss in nats a token, and how many tokens it was taken over."""
    logp_M = policy.text_logp(model, corpus.texts(cfg.seed, step, cfg.tokens_per_step, flat=cfg.flat))
    loss = likelihood.sft_loss(logp_M, torch.full_like(logp_M, 1 / logp_M.numel()))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not torch.isfinite(norm + loss):
        raise Refusal(
            f"step {step}: loss {loss.item()} and gradient norm {norm.item()} are no longer numbers: lower "
            f"learning_rate (its batch is corpus.texts({cfg.seed}, {step}, {cfg.tokens_per_step}); the last "
            "checkpoint of the run is intact)"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), logp_M.numel()


def make_base(cfg: Pretrain, run_dir: Path) -> Path:
    """Pre-train, then put model, configuration and manifest where the package looks for its base.

    The weights are stored in bfloat16, as those of published bases are, which halves them; they are read in float32.
    """
    target = tokenizer.ASSETS / cfg.model
    source = target.with_name(f"{cfg.model}.tmp")
    model = policy.load(train(cfg, run_dir)).to(torch.bfloat16)
    with speaking_of(target):
        shutil.rmtree(source, ignore_errors=True)
        model.save_pretrained(source)
        shutil.copyfile(Path(run_dir) / "manifest.json", source / "manifest.json")
        target.mkdir(exist_ok=True)
        for file in sorted(source.iterdir()):
            file.replace(target / file.name)
        source.rmdir()
    return target
