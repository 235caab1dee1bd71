"""What the ranks of `test_dist` do: the same work on 1, 2 and 4 of them, each a fork of this process.

`python tests/ranks.py <folder>` leaves `<folder>/<work>-<ranks>.safetensors` and the runs that were begun on two ranks
and ended on one and on four.
"""

import json
import os
import shutil
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import models
import torch
from safetensors.torch import save_file

from r1repro import config
from r1repro.engine import checkpoint, dist, export, fsdp, policy, sampler, scorer, work
from r1repro.records import Refusal
from r1repro.run import Stopped
from r1repro.stages import collect, evaluate, reward_model, rl, sft
from r1repro.tinyworld import corpus

RANKS = (1, 2, 4)
MACHINE = config.Machine(micro_batch_tokens=14, max_rows=6)
"""Micro-batches so small that ranks have unlike numbers of them."""

RL = models.small_rl(steps_per_rollout=5, num_rollouts=2, kl_coefficient=0.1, refresh_reference_every=5)
SFT = config.SFT(batch_size=8, learning_rate=3e-3)
JUDGE = config.RewardModel(
    kind="judge", num_prompts=24, outputs_per_prompt=2, batch_size=7, epochs=3, learning_rate=3e-3, max_tokens=96,
    max_output=16,
)  # fmt: skip
REFERENCED = config.Collect(
    questions="with_reference", num_questions=10, outputs_per_question=4, max_tokens=16, min_language_share=0.0,
    max_paragraph=10**6, keep_per_question=3, general_share=0.2,
)  # fmt: skip
OPEN = models.small_rl(questions="open", num_rollouts=2, max_tokens=16)
LIVE = models.small_rl(rewards=("ranks:by_text",), num_rollouts=4, kl_coefficient=0.1)


def by_text(questions, texts) -> list[float]:
    """`models.by_text`; where a test asks for it, the last rank is told to stop as it judges its STOPS-th question."""
    if os.environ.get("STOPS") and dist.rank() == dist.num_ranks() - 1:
        os.environ["STOPS"] = str(int(os.environ["STOPS"]) - 1)
        if os.environ["STOPS"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)
    return models.by_text(questions, texts)


def _model(shard: bool, kind: str):
    model = models.build(kind)
    if shard:
        fsdp.cut_(model)
    return model


def _weights(model) -> dict[str, torch.Tensor]:
    found = fsdp.full(model) if fsdp.is_cut(model) else model.named_parameters()
    return {name: p.detach().clone() for name, p in found}


def grpo(shard: bool, kind: str) -> dict[str, torch.Tensor]:
    """Ten steps on two recorded rollouts, in float64."""
    recorded = models.build(kind)
    drawn = [models.rollout(recorded, RL, index) for index in range(2)]
    model = _model(shard, kind)
    optimizer = rl.new_optimizer(model, RL)
    said = []
    for index, rollout in enumerate(drawn):
        for rows in rl.mini_batches(RL, index):
            log = rl.update_(model, optimizer, rollout, rows, RL, MACHINE)
            said.append([value for key, value in sorted(log.items()) if not key.startswith("time/")])
    return _weights(model) | {"log": torch.tensor(said, dtype=torch.float64)}


def fine_tuning(shard: bool, kind: str) -> dict[str, torch.Tensor]:
    """Ten steps of SFT on recorded outputs, in float64."""
    recorded = models.build(kind)
    rollout = models.rollout(recorded, RL)
    model = _model(shard, kind)
    optimizer = policy.adamw(model, SFT.learning_rate)
    lengths = rollout.length_N.tolist()
    for step in range(10):
        rows = [(7 * step + 3 * i) % len(lengths) for i in range(8)]
        outputs = [rollout.tokens_NT[row, : lengths[row]].tolist() for row in rows]
        prompts = [rollout.prompts[int(rollout.question_N[row])] for row in rows]
        sft.update_(model, optimizer, prompts, outputs, SFT, MACHINE)
    return _weights(model)


def sampled() -> dict[str, torch.Tensor]:
    """Outputs to ten questions, each rank those to its share."""
    prompts = [[5, 6, 7, 8 + q, 9, *range(10, 11 + q)] for q in range(10)]
    mine = range(10)[dist.share(10)]
    samples = rl.of_all_ranks(
        sampler.sample(
            models.build(),
            [prompts[q] for q in mine],
            4,
            key=(0, 0),
            question_keys=list(mine),
            max_tokens=12,
            ends=(models.END,),
            pad=models.PAD,
        )  # fmt: skip
    )
    return {"tokens": samples.tokens_NT, "logp": samples.logp_NT, "length": samples.length_N}


def recorded(folder: Path) -> None:
    found = {"sampled": sampled(), "grpo": grpo(False, "qwen2"), "sft": fine_tuning(False, "qwen2")}
    if dist.num_ranks() > 1:
        found |= {"grpo-cut": grpo(True, "qwen2"), "sft-cut": fine_tuning(True, "qwen2")}
    if dist.num_ranks() < 4:
        found["untied" + "-cut" * (dist.num_ranks() > 1)] = grpo(dist.num_ranks() > 1, "llama3")
    for name, tensors in found.items():
        if dist.leads():
            save_file(
                {k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}-{dist.num_ranks()}.safetensors"
            )
    if dist.num_ranks() == 2:
        told = [_refused(lambda: dist.led(_refuses)), _refused(lambda: dist.check_enough(1, "questions"))]
        told += [dist.gathered([dist.rank()] * (dist.rank() + 1)), dist.most(dist.rank()), dist.least(dist.rank())]
        team = [dist.gathered([dist.rank()], 2), dist.stacked(torch.tensor([dist.rank()]), 2).tolist()]
        wide = dist.stacked(torch.full((dist.rank() + 1, 2 + dist.rank()), dist.rank() > 0)).tolist()
        (folder / "begun" / "shards").mkdir(parents=True, exist_ok=True)
        begun = SimpleNamespace(path=folder / "begun")
        late = _refused(lambda: work.of(begun, 4, 2, in_step=True, desc="", unit="")).removeprefix(str(folder))
        (folder / f"told-{dist.rank()}.json").write_text(json.dumps([*told, wide, team, late]))


def _refuses():
    assert (dist.rank(), dist.num_ranks(), torch.distributed.get_rank()) == (0, 1, 0), "work for the first rank alone"
    raise Refusal("no")


def _refused(work) -> str:
    try:
        work()
    except Refusal as refusal:
        return str(refusal)
    return ""


def live(folder: Path, name: str, shard: bool) -> None:
    """RL from a folder, as a stage: begun, or gone on with."""
    machine = config.Machine(micro_batch_tokens=40, max_rows=6, shard=shard)
    try:
        rl.train(LIVE, folder / name, folder / "base", machine)
    except Stopped as stopped:
        assert stopped.number == signal.SIGTERM


def trained(folder: Path) -> None:
    """SFT as a stage, twice: the second time it is done."""
    for _ in range(2):
        cfg = config.SFT(batch_size=4, epochs=1, max_tokens=64)
        sft.train(cfg, folder / f"sft-live-{dist.num_ranks()}", folder / "base", folder / "examples.jsonl")


def shared(folder: Path) -> None:
    """An evaluation and a collection as stages; on four ranks in two teams, as if each held one copy of vLLM."""
    name, team = dist.num_ranks(), dist.num_ranks() // 2 or 1
    machine = config.Machine(max_rows=1, tensor_parallel=team)
    asked = models.small_evaluation(num_questions=12, k=2)
    evaluate.run(asked, folder / f"evaluated-{name}", folder / "base", machine)
    assert (folder / f"evaluated-{name}" / "summary.json").exists(), "a rank went on before all was done"
    evaluate.run(asked, folder / f"evaluated-{name}", folder / "base", machine)


def _written(_, questions, cfg) -> tuple[list[list[str]], list[int]]:
    """In the place of a random model's outputs, which no judge likes: every other one is the reference."""
    thoughts = [f"no {i} ." for i in range(cfg.outputs_per_question)]
    outputs = [[corpus.output(t, q.gold if i % 2 else t) for i, t in enumerate(thoughts)] for q in questions]
    return outputs, [9] * len(questions)


def rewarded(folder: Path, name: str, shard: bool) -> None:
    """A reward model as a stage, twice, RL by two of its kind, and outputs that one judges; texts in batches of few
    tokens, in double precision."""
    machine = config.Machine(micro_batch_tokens=40, max_rows=6, shard=shard, tensor_parallel=1 + (name == "cut-4"))
    plain, backward_ = scorer.load, reward_model._backward_

    def exact(*args, **kwargs):
        model = plain(*args, **kwargs).double()
        model.r1repro_tokens = 200
        return model

    def stopped(model, rows, cfg):
        """The last rank is told to stop in the fifth step."""
        steps.append(len(rows))
        if len(steps) == 5 and dist.rank() == dist.num_ranks() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return backward_(model, rows, cfg)

    scorer.load, steps = exact, []
    if name == "cut-2":
        reward_model._backward_ = stopped
        try:
            reward_model.train(JUDGE, folder / f"judge-{name}", folder / "base", machine)
        except Stopped:
            assert 5 <= len(steps) < 20, steps
    for _ in range(2):
        found = reward_model.train(JUDGE, folder / f"judge-{name}", folder / "base", machine)
    assert not steps or len(steps) == 27, "steps were made twice, or none was left to the second call"
    preference = scorer.Preference(found, found, None, machine)
    policy = rl.train(OPEN, folder / f"open-{name}", folder / "base", machine, preference)
    last = checkpoint.end_of(policy)
    dist.led(lambda: str(export.export(last, folder / f"exported-{name}", dtype="float32")))
    judge = scorer.Judge(folder / "judge-whole-1" / "checkpoints" / found.name, None, machine)
    collect.CHUNK, collect._sampled = 2, _written
    collect.collect(REFERENCED, folder / f"kept-{name}", folder / "base", machine, judge=judge, inputs=judge.inputs)
    scorer.load = plain


def on_ranks(count: int, work, *arguments, **environment) -> None:
    """Run work on ranks that are forks of this process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        children.append(os.fork())
        if not children[-1]:
            try:
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
                os.environ.update(group | own | environment)
                dist.join()
                work(*arguments)
                dist.leave()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    left = set(children)
    while left:
        child, status = os.waitpid(-1, 0)
        left.discard(child)
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)


def main(folder: Path) -> None:
    models.save_base(folder / "base")
    rows = [{"question": f"{i} + 1?", "output": f"<think> {i} </think> <answer> {i + 1} </answer>"} for i in range(12)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for count in RANKS:
        on_ranks(count, recorded, folder)
    on_ranks(1, live, folder, "live-1", False)
    for kind, shard in (("whole", False), ("cut", True)):
        on_ranks(2, live, folder, f"{kind}-2", shard, STOPS="3")
        for count in (1, 4):
            shutil.copytree(folder / f"{kind}-2", folder / f"{kind}-2-{count}")
            on_ranks(count, live, folder, f"{kind}-2-{count}", shard and count > 1)
    for count in (1, 2):
        on_ranks(count, trained, folder)
    for count in RANKS:
        on_ranks(count, shared, folder)
    for count, shard in ((1, False), (2, False), (2, True), (4, True)):
        on_ranks(count, rewarded, folder, f"{'cut' if shard else 'whole'}-{count}", shard)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
