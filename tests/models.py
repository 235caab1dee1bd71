"""Tiny random models for tests, small settings, rewards to name, and programs that tests start as processes.

Weights come from numpy's generator, the same on every machine.  `python tests/models.py <verb> <folder>` runs a
program: `record` writes `golden/rl.json` anew (with a CHANGELOG line), `kill`, `peak` and `share` serve `test_kill`,
`test_policy` and `test_shards`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from r1repro import config
from r1repro.engine import checkpoint, policy, sampler, shards
from r1repro.run import sha256_file
from r1repro.stages import collect, evaluate, pretrain, rl
from r1repro.tinyworld import base, corpus, families, tokenizer

GOLDEN = Path(__file__).with_name("golden") / "rl.json"
END, PAD = 0, 1
"""Of the models with a small vocabulary."""


WIDTH = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
ARCHITECTURES = {
    "qwen2": (Qwen2Config, dict(num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen2-untied": (Qwen2Config, dict(num_key_value_heads=1, tie_word_embeddings=False)),
    "qwen3": (Qwen3Config, dict(num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)),
    "llama": (LlamaConfig, dict(num_key_value_heads=4)),
    "llama3": (LlamaConfig, dict(num_key_value_heads=2, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=False)),
    "llama-biased": (LlamaConfig, dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True)),
    "mistral": (MistralConfig, dict(num_key_value_heads=2, sliding_window=None)),
}  # fmt: skip
"""Kind -> its configuration.  What differs between the models that people train: tied or untied embeddings, shared
keys, biases, the width of a head, norms of queries and keys, scaled rotary positions."""


def build(
    kind: str = "qwen2", *, size: int = 40, end: int = END, seed: int = 0, dtype=torch.float64, hidden: int = 32
) -> PreTrainedModel:
    """A random model of an architecture; its end token is likely enough that outputs end at many lengths."""
    if kind == "gpt2":
        made = GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    else:
        config_of, own = ARCHITECTURES[kind]
        made = config_of(**dict(vocab_size=size) | WIDTH | dict(hidden_size=hidden) | own)
    model = AutoModelForCausalLM.from_config(made)
    draw = np.random.default_rng(seed)
    for name, p in model.named_parameters():
        if p.ndim > 1:
            p.data = torch.from_numpy(0.3 * draw.standard_normal(tuple(p.shape)))
            if "embed_tokens" in name or "lm_head" in name or "wte" in name:
                p.data[end] *= 3.0
        elif name.endswith("bias") and "biased" in kind:
            p.data = torch.from_numpy(0.1 * draw.standard_normal(tuple(p.shape)))
    model.generation_config.eos_token_id = model.generation_config.bos_token_id = None
    return (_with_exact_norms(model) if dtype == torch.float64 else model).to(dtype).eval()


def _with_exact_norms(model: PreTrainedModel) -> PreTrainedModel:
    """transformers' RMS norms compute in single precision whatever they are given: torch's own in their places."""
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            exact = torch.nn.RMSNorm(module.weight.shape, module.variance_epsilon)
            exact.weight = module.weight
            model.set_submodule(name, exact)
    return model


def save_base(folder: Path, seed: int = 0) -> Path:
    """A random model over the tiny world's tokenizer, as a base folder."""
    model = build(size=tokenizer.VOCABULARY, end=tokenizer.load().eos_token_id, seed=seed, dtype=torch.float32)
    model.save_pretrained(folder)
    return Path(folder)


def small_rl(**changes) -> config.RL:
    """Settings of an RL run of under a second: 3 rollouts of 2 steps, 16 short outputs each."""
    small = dict(
        questions_per_step=2, outputs_per_question=4, steps_per_rollout=2, num_rollouts=3, learning_rate=3e-3,
        max_tokens=12, refresh_reference_every=4, num_checkpoints=1, rewards=("models:by_text",),
    )  # fmt: skip
    return config.RL(**small | changes)


def small_evaluation(**changes) -> config.Evaluate:
    return config.Evaluate(**dict(num_questions=6, k=3, max_tokens=12) | changes)


SMALL_MACHINE = config.Machine(micro_batch_tokens=40, max_rows=6)
CHUNKS_OF_TWO = config.Machine(max_rows=1)
"""Evaluates, with three samples a question, two questions at a time (`evaluate.CHUNK` times one row)."""


def by_text(questions, texts) -> list[float]:
    """A reward that any random output can earn: a hash of its text, from 0 to 1."""
    return [zlib.crc32(text.encode()) % 11 / 10 for text in texts]


def fails_for_some(questions, texts) -> list[float | None]:
    """As `by_text`, but the grader fails on a third of the outputs."""
    failed = [zlib.crc32(b"fail" + text.encode()) % 3 == 0 for text in texts]
    return [None if f else reward for f, reward in zip(failed, by_text(questions, texts), strict=True)]


def fails_for_all(questions, texts) -> list[None]:
    return [None] * len(texts)


def rollout(actor: PreTrainedModel, cfg: config.RL, index: int = 0) -> rl.Rollout:
    """A rollout of ``actor`` with random rewards, its reference another random model."""
    prompts = [[5, 6, 7, 8 + q, 9, *range(10, 11 + q)] for q in range(cfg.questions_per_rollout)]
    samples = sampler.sample(
        actor, prompts, cfg.outputs_per_question, key=(cfg.seed, index), question_keys=list(range(len(prompts))),
        max_tokens=cfg.max_tokens, ends=(END,), pad=PAD, temperature=cfg.temperature,
    )  # fmt: skip
    question_N = torch.arange(len(prompts)).repeat_interleave(cfg.outputs_per_question)
    draw = np.random.default_rng(index)
    return rl.Rollout(
        prompts=prompts,
        tokens_NT=samples.tokens_NT,
        length_N=samples.length_N,
        old_logp_NT=samples.logp_NT,
        ref_logp_NT=policy.all_logp(
            build(seed=99, dtype=samples.logp_NT.dtype), prompts, question_N, samples.tokens_NT, samples.length_N,
            temperature=cfg.temperature, max_tokens=10**6,
        ),
        advantage_N=torch.from_numpy(draw.standard_normal(len(question_N))).to(samples.logp_NT.dtype),
        question_N=question_N,
    )  # fmt: skip


def weights_after(cfg: config.RL, machine: config.Machine, steps: int = 3) -> dict[str, torch.Tensor]:
    """Weights after updates on one recorded rollout, in float64."""
    actor = build()
    optimizer, drawn = rl.new_optimizer(actor, cfg), rollout(actor, cfg)
    for rows in rl.mini_batches(cfg, 0)[:steps]:
        rl.update_(actor, optimizer, drawn, rows, cfg, machine)
    return {name: p.detach().clone() for name, p in actor.named_parameters()}


THREE_STEPS = dict(steps_per_rollout=3, refresh_reference_every=3, kl_coefficient=0.1)


def _peak(folder: Path, num_outputs: str) -> None:
    """Bytes that an update takes at most beyond what is there before it: 2 prompts of 1,500 tokens, outputs of 8."""
    model, size = build(dtype=torch.float32), 2 * int(num_outputs)
    prompts = [[2 + (q + i * i) % 30 for i in range(1500)] for q in range(2)]
    question_N, length_N = torch.arange(2).repeat_interleave(int(num_outputs)), torch.full((size,), 8)
    tokens_NT = 2 + torch.arange(size * 8).view(size, 8) % 30
    args = (model, prompts, question_N, tokens_NT, length_N, lambda logp_NT, rows: logp_NT.sum())
    policy.backward_(*args, temperature=1.0, max_tokens=10**6)  # what stays is there now
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    policy.backward_(*args, temperature=1.0, max_tokens=10**6)
    (folder / f"peak-{num_outputs}").write_text(str(_status("VmHWM") - before))


def _peak_vocabulary(folder: Path, size: str, logits_at_once: str) -> None:
    """Bytes that an update takes at most beyond what is there before it: 4 outputs of 200 tokens, ``size`` tokens."""
    model, length_N = build(size=int(size), dtype=torch.float32), torch.full((4,), 200)
    args = (model, [[2, 3, 4]], torch.zeros(4, dtype=torch.long), 2 + torch.arange(800).view(4, 200) % 30, length_N)
    how = dict(temperature=1.0, max_tokens=10**6, logits_at_once=int(logits_at_once))
    policy.backward_(*args, lambda logp_NT, rows: logp_NT.sum(), **how)  # what stays is there now
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    policy.backward_(*args, lambda logp_NT, rows: logp_NT.sum(), **how)
    (folder / f"peak-{size}-{logits_at_once}").write_text(str(_status("VmHWM") - before))


def _status(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


# --- kill: a stage, killed at random moments and started again, beside the same stage left alone

TINY_SHAPE = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
PRETRAIN = config.Pretrain(model="tiny-test", steps=14, tokens_per_step=100, checkpoint_every=3)


def _report(out: Path, target: Path) -> None:
    from r1repro import report  # with all that draws figures, which few tests need

    report.build("smoke", out, target)


STAGES = {
    "pretrain": (
        lambda run, _: pretrain.train(PRETRAIN, run),
        "checkpoints/step-000014/model.safetensors",
    ),
    "rl": (
        lambda run, model: rl.train(small_rl(num_rollouts=6), run, model, SMALL_MACHINE),
        "checkpoints/step-000012/model.safetensors",
    ),
    "evaluate": (
        lambda run, model: evaluate.run(small_evaluation(num_questions=16), run, model, CHUNKS_OF_TWO),
        "samples.jsonl",
    ),
    "report": (
        lambda run, model: _report(model.parent / "out", run),
        "claims.json",
    ),
}
"""Stage -> how to run it at a small size, and the file that holds its result."""


def _kill(folder: Path, kills: str = "4") -> None:
    """Run each stage undisturbed, and killed ``kills`` times; writes what each left to ``folder/results.json``.

    Kills come at any moment, and within milliseconds of a line that was logged since the last checkpoint.  After four
    kills a run is let go to its end, and the next ones are for a new one.  Stages run in forks of this process, so that
    its imports are paid for once.
    """
    base.SHAPES["tiny-test"] = TINY_SHAPE
    model, results = save_base(folder / "base"), {}
    _wait(_fork(_an_evaluated_seed, folder / "out" / "smoke" / "seed-0", model))
    for stage, (program, result) in STAGES.items():
        began = time.monotonic()
        assert _wait(_fork(program, folder / stage / "left-alone", model)) == 0
        took, done, tries, runs = time.monotonic() - began, 0, 0, []
        while done < int(kills) and tries < 10 * int(kills):
            runs.append(folder / stage / f"killed-{len(runs)}")
            for moment in ("any", "line", "line", "any")[: int(kills) - done]:
                child = _fork(program, runs[-1], model)
                if moment == "line" and stage != "report":
                    _next_line(runs[-1], child)
                    time.sleep(random.uniform(0, 0.01))
                else:
                    time.sleep(took * random.uniform(0.0, 0.6))
                os.kill(child, signal.SIGKILL)
                done, tries = done + (_wait(child) == -signal.SIGKILL), tries + 1
            assert _wait(_fork(program, runs[-1], model)) == 0
        left = {run.name: _what_is_left(run, result) for run in (folder / stage / "left-alone", *runs)}
        results[stage] = {"kills": done, "left": left}
    (folder / "results.json").write_text(json.dumps(results))


def _on_aime(place: Path, _) -> None:
    from r1repro.evals import run  # with all benchmarks, which few tests need

    changes = {"exam.k": 2, "exam.limit": 12, "exam.max_tokens": 24, "machine.max_rows": 2}
    exam, machine = config.exam("smoke", "AIME 2024", changes)
    run.run(exam, run.place(place, "AIME 2024"), base.folder("qwen-140k"), machine)
    run.save_table(place)


def _kill_benchmark(folder: Path, kills: str) -> None:
    """Ask AIME 2024 undisturbed (``whole``), and killed ``kills`` times in all, to the end each time (``torn-<n>``)."""
    began = time.monotonic()
    assert _wait(_fork(_on_aime, folder / "whole", folder)) == 0
    took, left, place = time.monotonic() - began, int(kills), 0
    while left:
        place += 1
        for _ in range(min(left, 4)):
            child = _fork(_on_aime, folder / f"torn-{place}", folder)
            time.sleep(random.uniform(0.05, 0.6) * took)
            os.kill(child, signal.SIGKILL)
            left -= _wait(child) == -signal.SIGKILL
        assert _wait(_fork(_on_aime, folder / f"torn-{place}", folder)) == 0


def _what_is_left(run: Path, result: str) -> dict:
    manifest = run / "manifest.json"
    return {
        "hash": sha256_file(run / result),
        "metrics": _without_times(run / "metrics.jsonl"),
        "exit": json.loads(manifest.read_text())["exit"] if manifest.exists() else "complete",
        "files": sorted(p.relative_to(run).as_posix() for p in run.rglob("*")),
    }


def _an_evaluated_seed(seed: Path, model: Path) -> None:
    cfg = small_rl(num_rollouts=2)
    rl.train(cfg, seed / "r1_zero", model, SMALL_MACHINE)
    for step in rl.kept_steps(cfg):
        trained = checkpoint.folder_of(seed / "r1_zero", step)
        evaluate.run(small_evaluation(), seed / "evaluate" / f"step-{step:06d}", trained, SMALL_MACHINE)


def _next_line(run: Path, child: int) -> None:
    """Return when the run has logged one more line than it had, or has ended: work that no checkpoint holds yet."""

    def size():
        return sum(file.stat().st_size for file in run.glob("*.jsonl"))

    began = size()
    while size() <= began and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        began = min(began, size())  # a resumed run first drops what it does again
        time.sleep(0.001)


def _fork(program, run: Path, model: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        program(run, model)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _without_times(file: Path) -> list[dict]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


# --- share: a stage in one process, and in two at a time, one of which is killed


def _collect(run: Path, model: Path, shared: bool) -> None:
    cfg = config.Collect(num_questions=24, outputs_per_question=2, max_tokens=8, general_share=0.25)
    collect.collect(cfg, run, model, SMALL_MACHINE, shared=shared)


def _evaluate(run: Path, model: Path, shared: bool) -> None:
    evaluate.run(small_evaluation(num_questions=24), run, model, CHUNKS_OF_TWO, shared)


def _share(folder: Path) -> None:
    """Collection and evaluation, each to the end alone, then by two workers on one folder; one of them is killed while
    it is at a shard, after both have made some.  All are forks of this process."""
    honest = collect._sampled

    def solved(actor, questions, cfg):  # a random model is never right: some of its outputs are replaced
        texts, tokens = honest(actor, questions, cfg)
        for question, some in zip(questions, texts, strict=True):
            draw = random.Random(question.id)
            worked, answer = families.solve(question, 2, lambda q=question: q.language, lambda _: 0.3, draw)
            some[draw.randrange(len(some))] = corpus.output(worked, answer)
        return texts, tokens

    def slow(sample):
        return lambda *a, **k: (time.sleep(0.05), sample(*a, **k))[1]

    model = save_base(folder / "base")
    collect._sampled, collect.CHUNK, shards.LEASE_S = solved, 2, 0.5
    for name, program in (("collect", _collect), ("evaluate", _evaluate)):
        place = folder / name
        assert _wait(_fork(lambda run, m, p=program: p(run, m, False), place / "alone", model)) == 0
        quick, sampler.sample = sampler.sample, slow(sampler.sample)
        workers = [_fork(lambda run, m, p=program: p(run, m, True), place / "shared", model) for _ in range(2)]
        while not _is_at_its_second_shard(place / "shared" / "shards", workers[0]):
            assert os.waitid(os.P_PID, workers[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "it is done already"
            time.sleep(0.001)
        os.kill(workers[0], signal.SIGKILL)
        assert [_wait(worker) for worker in workers] == [-signal.SIGKILL, 0]
        sampler.sample = quick


def _is_at_its_second_shard(place: Path, worker: int) -> bool:
    claims = [c for c in place.glob("shard-*.claim-1") if f":{worker}:" in c.read_text()]
    done = [c for c in claims if (place / f"{c.name.partition('.')[0]}.jsonl").exists()]
    return bool(done) and len(claims) > len(done)


# --- golden: ten steps of RL on recorded outputs

GOLDEN_CFG = dict(
    questions="chain_sum", num_rollouts=5, kl_coefficient=0.05, clip_low=0.2, clip_high=0.28, max_grad_norm=0.5,
    learning_rate=1e-3,
)  # fmt: skip
GOLDEN_KEYS = ("policy/loss", "policy/grad_norm", "policy/clip_share", "policy/kl_reference_nats", "reward/mean")


def golden_run(folder: Path, tokens: list[list[list[int]]] | None) -> tuple[list[dict], list[list[list[int]]]]:
    """Metrics of ten steps, and the outputs; those of ``tokens`` are taken in place of sampled ones, if given."""
    model, used, honest = save_base(folder / "base"), [], sampler.sample

    def recorded(actor, prompts, num_outputs, **settings):
        key, max_tokens, temperature = settings["key"], settings["max_tokens"], settings["temperature"]
        pad, ends = settings["pad"], settings["ends"]
        if tokens is None:
            drawn = honest(actor, prompts, num_outputs, **settings)
            used.append([row[:n] for row, n in zip(drawn.tokens_NT.tolist(), drawn.length_N.tolist(), strict=True)])
            return drawn
        rows = tokens[key[1]]
        length_N = torch.tensor([len(row) for row in rows])
        tokens_NT = torch.tensor([row + [pad] * (max_tokens - len(row)) for row in rows])
        question_N = torch.arange(len(prompts)).repeat_interleave(num_outputs)
        logp_NT = policy.all_logp(
            actor, prompts, question_N, tokens_NT, length_N, temperature=temperature, max_tokens=10**6
        )
        every = sampler.Samples(tokens_NT, logp_NT, length_N, torch.tensor([row[-1] not in ends for row in rows]))
        for q in range(len(prompts)):
            settings["when_done"](q, sampler.of_question(every, q, num_outputs))
        return every

    sampler.sample = recorded
    try:
        run = rl.train(small_rl(**GOLDEN_CFG), folder / "run", model)
    finally:
        sampler.sample = honest
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in GOLDEN_KEYS if key in line} for line in lines], used


def _record(folder: Path) -> None:
    steps, tokens = golden_run(folder, None)
    GOLDEN.parent.mkdir(exist_ok=True)
    rows = ",\n".join("  " + json.dumps(step) for step in steps)
    outputs = ",\n".join("  " + json.dumps(rollout) for rollout in tokens)
    GOLDEN.write_text(f'{{"steps": [\n{rows}\n ],\n "tokens": [\n{outputs}\n ]}}\n')
    shutil.rmtree(folder)


def newest(run: Path) -> Path:
    """Folder of a run's last checkpoint."""
    return checkpoint.folder_of(run, checkpoint.steps_in(run)[-1])


PROGRAMS = {
    "record": _record, "kill": _kill, "kill-benchmark": _kill_benchmark, "peak": _peak,
    "peak-vocabulary": _peak_vocabulary, "share": _share,
}  # fmt: skip

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
