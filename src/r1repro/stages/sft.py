"""Supervised fine-tuning on outputs to questions: cold start (2.3.1), the 800k stage (2.3.3), distillation (2.4).

A file of examples has a line of JSON each: ``question`` (its text, put into the template here), ``output``, and
whatever else its maker wants to remember.  Those of other makers, in JSONL or Parquet, are read too: see `traces`.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from r1repro.algo import likelihood
from r1repro.config import SFT, Machine
from r1repro.engine import actor as actors
from r1repro.engine import adapters, checkpoint, dist, hub, policy, tokens, vocabulary
from r1repro.engine.vocabulary import Vocabulary
from r1repro.records import Refusal
from r1repro.run import Interrupts
from r1repro.stages import traces
from r1repro.stages.pretrain import schedule
from r1repro.tinyworld import base


def train(
    cfg: SFT, run_dir: Path | str, base_dir: Path | str, examples: Path | str, machine: Machine | None = None
) -> Path:
    """Fine-tune, or go on from the last checkpoint, or return at once when done; returns the folder of the model.

    Each step: the gradient of the mean negative log-likelihood over the output tokens of ``batch_size`` examples.
    Token ids of all examples lie in ``<run_dir>/tokens`` until the run is complete.

    Args:
        examples: a JSONL or Parquet file, or a folder of such; see `traces.shards`.

    Where the paper is silent:
        Loss masking, packing and warm-up.  Here the prompt is not trained on, outputs go end to end through the model
        without seeing each other, every token of a step counts alike, and a short warm-up comes first.

    Raises:
        Refusal: no examples, or a row that is none; another run lies in ``run_dir``.
    """
    machine, place = machine or Machine(), Path(run_dir) / "tokens"
    files = traces.shards(examples)
    inputs = dist.led(lambda: {"base": base.digest(base_dir), "examples": traces.digest(files)})
    open_run = partial(dist.open_run, run_dir, stage="sft", config=cfg, inputs=inputs, seed=cfg.seed)
    is_there = dist.led(lambda: (Path(run_dir) / "manifest.json").exists())
    run = open_run() if is_there else None  # bad examples leave no run behind
    if run and run.complete:
        dist.led(lambda: shutil.rmtree(place, ignore_errors=True))
        return checkpoint.folder_of(run.path, dist.led(lambda: checkpoint.steps_in(run.path))[-1])
    words = vocabulary.of(base_dir, cfg.policy.template)
    data = dist.first(lambda: tokenised(files, place, inputs["examples"], cfg.max_tokens, words, anew=run is None))
    if not data:
        raise Refusal(f"{examples} {_why_nothing(data, cfg)}")
    batches = order(len(data), cfg)
    dist.check_enough(min(map(len, batches)), "the smallest batch")
    run = run or open_run()
    last = checkpoint.folder_of(run.path, len(batches))
    model = actors.load(base_dir, cfg.policy, machine, trained=cfg.seed).model
    optimizer = policy.adamw(model, cfg.learning_rate)
    steps = dist.led(lambda: checkpoint.steps_in(run.path))
    done = steps[-1] if steps else 0
    run.rewind(done)
    if done:
        checkpoint.load_(checkpoint.folder_of(run.path, done), model, optimizer=optimizer)
    with Interrupts("this step") as interrupts:
        for step in tqdm(range(done + 1, len(batches) + 1), initial=done, total=len(batches), desc="fine-tuning"):
            rate = cosine(step / len(batches), cfg)
            optimizer.param_groups[0]["lr"] = rate
            prompts, outputs = zip(*(data[i] for i in batches[step - 1]), strict=True)
            log = update_(model, optimizer, prompts, outputs, cfg, machine)
            run.log(step, log | {"learning_rate": rate, "time/elapsed_s": run.seconds()})
            came = dist.asked(interrupts)
            if step % cfg.checkpoint_every == 0 or step == len(batches) or came:
                checkpoint.save_(run.path, step, model, words.tokenizer, optimizer=optimizer)
                checkpoint.keep_only(run.path, {step})
                run.keep_time()
            dist.stop(interrupts, came)
    trained = int(data.output_lengths.sum(dtype=np.int64)) * cfg.epochs
    run.finish(
        tokens={"trained": trained}, examples=len(data), left_out=data.left_out,
        base=hub.origin(adapters.base_of(base_dir) or base_dir),
    )  # fmt: skip
    dist.led(lambda: shutil.rmtree(place))
    return last


def tokenised(
    files: Sequence[traces.Shard], place: Path, digest: str, max_tokens: int, words: Vocabulary, anew: bool = True
) -> tokens.Examples:
    """The examples of some files as token ids on the disk at ``place``; goes on where it stopped.

    Args:
        digest: of the files.
        anew: see `tokens.prepared`.
    """
    total = sum(shard.size for shard in files)
    with tqdm(total=total, desc="tokenising", unit="B", unit_scale=True, disable=total < 2**24) as bar:

        def read(after: tokens.Place) -> tokens.Rows:
            first, skip, size = after
            bar.update(size - bar.n)
            for index, shard in enumerate(files[first:], start=first):
                for number, row, num_bytes in shard.rows(skip if index == first else 0):
                    bar.update(num_bytes)
                    size += num_bytes
                    yield (index, number, size), traces.example(row, shard.place(number))

        return tokens.prepared(place, {"examples": digest}, read, words, max_tokens, anew)


def _why_nothing(data: tokens.Examples, cfg: SFT) -> str:
    if "too long" in data.left_out:
        return f"has no output of at most {cfg.max_tokens} tokens: raise sft.max_tokens"
    if data.left_out:
        return f"holds no example to learn from ({', '.join(data.left_out)}): give others"
    return "holds no example: collect some first"


def read_examples(source: Path | str) -> list[dict]:
    """The examples of a small file, or of some, with all that their makers remember: texts, called ``question`` and
    ``output`` whatever they were called.

    Raises:
        Refusal: none there, or a row that is none.
    """
    rows = []
    for shard in traces.shards(source):
        for number, row, _ in shard.rows():
            found = traces.example(row, shard.place(number))
            if not isinstance(found, str):
                rows.append(row | {"question": found[0], "output": found[1]})
    if not rows:
        raise Refusal(f"{source} holds no example: collect some first")
    return rows


def encoded(
    rows: Sequence[dict], max_tokens: int, words: Vocabulary | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompts and of outputs with their end token; outputs beyond ``max_tokens`` are left out whole.

    Args:
        words: who reads and writes them; None: the tiny world's base model.
    """
    words = words or vocabulary.of(base.folder(base.MAIN))
    pairs = words.pairs([row["question"] for row in rows], [row["output"] for row in rows])
    kept = [(prompt, output) for prompt, output in pairs if len(output) <= max_tokens]
    return [prompt for prompt, _ in kept], [output for _, output in kept]


def order(num_examples: int, cfg: SFT) -> list[np.ndarray]:
    """Examples of each step: a new order each epoch, a function of (seed, epoch); the last step of an epoch may be
    smaller."""
    size = min(cfg.batch_size, num_examples)
    epochs = [np.random.default_rng([cfg.seed, epoch, 2]).permutation(num_examples) for epoch in range(cfg.epochs)]
    return [chosen for shuffled in epochs for chosen in np.array_split(shuffled, max(1, round(num_examples / size)))]


def cosine(done: float, cfg: SFT) -> float:
    """Learning rate after a share ``done`` of the steps: linear warm-up, then a cosine to ``final_share`` of the peak.

    >>> [round(cosine(x, SFT(learning_rate=1.0, warmup=0.1)), 3) for x in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.1]
    """
    return cfg.learning_rate * schedule(done, cfg.warmup, cfg.final_share)


def update_(
    model, optimizer, prompts: Sequence[list[int]], outputs: Sequence[list[int]], cfg: SFT, machine: Machine
) -> dict[str, float]:
    """One step on some examples, of which each rank takes its share."""
    num_tokens, mine = sum(map(len, outputs)), dist.share(len(outputs))
    prompts, outputs = prompts[mine], outputs[mine]
    length_N = torch.tensor([len(o) for o in outputs])
    tokens_NT = torch.zeros(len(outputs), int(length_N.max()), dtype=torch.long)
    for row, output in enumerate(outputs):
        tokens_NT[row, : len(output)] = torch.tensor(output)
    weight = 1.0 / num_tokens
    losses: dict[int, Tensor] = {}

    def loss_of(logp_NT: Tensor, rows: Tensor) -> Tensor:
        mask_NT = (torch.arange(logp_NT.shape[1])[None] < length_N[rows][:, None]).to(logp_NT)
        loss = likelihood.sft_loss(logp_NT, mask_NT * weight)
        losses[int(rows[0])] = loss.detach()  # asked again for a smaller scale, it stands once
        return loss

    policy.backward_(
        model, prompts, torch.arange(len(outputs)), tokens_NT, length_N, loss_of,
        temperature=1.0, max_tokens=machine.micro_batch_tokens, logits_at_once=machine.logits_at_once,
    )  # fmt: skip
    dist.add_gradients_(model)
    norm = policy.clip_(model, cfg.max_grad_norm)
    loss = dist.total(torch.stack([*losses.values()]).sum())
    if not torch.isfinite(norm + loss):
        raise Refusal(f"loss {loss.item()} and gradient norm {norm.item()} are no numbers: lower sft.learning_rate")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"policy/loss": loss.item(), "policy/grad_norm": norm.item(), "tokens/trained": float(num_tokens)}
