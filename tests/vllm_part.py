"""The sampler that runs vLLM, beside our policy: `make test-vllm`, on vLLM's CPU build.

vLLM changes the process that it is in, so each engine runs in a program of its own (`python tests/vllm_part.py qwen2
<folder>`), which writes down what it saw; the tests look at that.  Models are random, in single precision, with heads
of 32, the smallest that vLLM's attention on CPUs takes.
"""

import copy
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
LIMIT_S = 400
"""Longest time for a program that takes half a minute on a quiet machine."""
CLOSE, FAR = 1e-3, 0.5
"""Nats: the same weights, other weights."""

PROMPTS = [[5, 6, 7, 8 + q, 9, *range(10, 12 + 3 * q)] for q in range(3)] + [[2 + i * i % 31 for i in range(150)]]
"""The last is long enough for vLLM's cache of prompts, which holds blocks of 128 tokens on a CPU."""
KEYS = [11, 12, 13, 2**63 + 14]
SETTINGS = dict(key=(0, 3), question_keys=KEYS, max_tokens=24, ends=[0], pad=1)
OUTPUTS = 6


# --- what the programs do


def policy_of(kind, seed=0):
    """A random model with four heads of 32, whose biases and norms are random, too."""
    import models

    model, draw = models.build(kind, seed=seed, dtype=torch.float32, hidden=128), torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = p.data / 2 if p.ndim > 1 else p.data + 0.3 * torch.randn(p.shape, generator=draw)
    return model


def moved(model, by=0.1):
    """The model after a large step in a random direction."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(1)
    for p in other.parameters():
        p.data += by * torch.randn(p.shape, generator=draw)
    return other


def serve(folder, **changes):
    from r1repro.engine.vllm_sampler import VLLM

    plain = dict(
        dtype="float32", max_prompt_tokens=160, max_tokens=24, max_rows=8, rank=None, memory_share=0.5,
        tensor_parallel=1, seed=0, timeout_s=120.0,
    )  # fmt: skip
    return VLLM(folder, **plain | changes)


def apart(every, model, prompts=PROMPTS, temperature=1.0):
    """Largest difference in nats between the log-probabilities of a sampling and those that a model gives."""
    from r1repro.engine import policy, probe

    question_N = torch.arange(len(prompts)).repeat_interleave(len(every.length_N) // len(prompts))
    logp_NT = policy.all_logp(
        model, prompts, question_N, every.tokens_NT, every.length_N, temperature=temperature, max_tokens=10**6
    )
    return probe.divergence_nats(every.logp_NT, logp_NT, every.length_N, "float32")


def refused(action, *args, **settings):
    """The line of the refusal; None if there is none."""
    from r1repro.records import Refusal

    try:
        action(*args, **settings)
    except Refusal as refusal:
        return str(refusal)


def rows_of(every):
    return [row[:n] for row, n in zip(every.tokens_NT.tolist(), every.length_N.tolist(), strict=True)]


def whole(kind, folder):
    """An engine whose weights are handed over whole; it starts from a checkpoint."""
    from r1repro.engine import checkpoint, probe
    from r1repro.tinyworld import tokenizer

    model = policy_of(kind)
    start = checkpoint.save_(
        folder, 1, model, tokenizer.load(), reference=checkpoint.own_tensors(policy_of(kind, seed=1))
    )
    random.seed(5), torch.manual_seed(5)
    before = (random.random(), torch.rand(1).item())
    random.seed(5), torch.manual_seed(5)
    set_num_threads, preload = torch.set_num_threads, os.environ.get("LD_PRELOAD")
    served, handed, found = serve(start), [], {}

    def keep(q, part):
        handed.append([q, rows_of(part), part.logp_NT.tolist()])

    first = served.sample(PROMPTS, OUTPUTS, when_done=keep, **SETTINGS)
    found["process"] = {
        "same_numbers": before == (random.random(), torch.rand(1).item()),
        "same_threads": set_num_threads is torch.set_num_threads,
        "same_preload": preload == os.environ.get("LD_PRELOAD"),
    }
    found["first"] = {name: getattr(first, name).tolist() for name in first.__slots__}
    found["handed"] = handed
    found["before"] = apart(first, model)
    cool = served.sample(PROMPTS, OUTPUTS, temperature=0.7, **SETTINGS)
    found["cool"], found["cool_as_warm"] = apart(cool, model, temperature=0.7), apart(cool, model)
    cut = served.sample(PROMPTS, OUTPUTS, top_p=0.5, **SETTINGS)
    found["above_cut"] = (cut.logp_NT.sum(1) - plain_logp(model, cut).sum(1)).min().item()

    # whatever is beside it
    alone = [
        served.sample([prompt], OUTPUTS, **SETTINGS | {"question_keys": [key]})
        for prompt, key in zip(PROMPTS, KEYS, strict=True)
    ]
    found["alone"] = [row for every in alone for row in rows_of(every)]
    found["fewer"] = rows_of(served.sample(PROMPTS, 2, **SETTINGS))
    found["again"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS))
    found["next"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS | {"key": (0, 4)}))
    found["shorter"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS | {"max_tokens": 5}))
    found["two_ends"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS | {"ends": [0, 7, 30]}))
    found["no_end"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS | {"ends": []}))

    # an update
    probing = dict(key=(0, 9), ends=[0], pad=1)
    changed = moved(model)
    found["probe"] = probe.probe(served, model, PROMPTS, **probing)
    found["probe_other"] = refused(probe.probe, served, changed, PROMPTS, **probing)
    served.sleep()
    served.update_(changed.named_parameters())
    served.wake()
    after = served.sample(PROMPTS, OUTPUTS, **SETTINGS)
    found["after"], found["after_as_old"] = apart(after, changed), apart(after, model)
    found["probe_after"] = probe.probe(served, changed, PROMPTS, **probing)
    found["probe_old"] = refused(probe.probe, served, model, PROMPTS, **probing)
    served.update_((name, p.double()) for name, p in model.named_parameters())
    found["back"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS))

    # what is refused
    found["long_prompt"] = refused(served.sample, [[5] * 161], 1, **SETTINGS)
    found["long_output"] = refused(served.sample, PROMPTS, 1, **SETTINGS | {"max_tokens": 25})
    found["cold"] = refused(served.sample, PROMPTS, 1, temperature=0.0, **SETTINGS)
    served.timeout_s = 0.0
    found["late"] = refused(served.sample, PROMPTS, 1, **SETTINGS)
    served.timeout_s = 120.0
    found["after_late"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS))
    gone = "model.layers.1.mlp.up_proj.weight"
    found["incomplete"] = refused(served.update_, ((n, p) for n, p in model.named_parameters() if n != gone))
    served.update_(model.named_parameters())
    found["mended"] = rows_of(served.sample(PROMPTS, OUTPUTS, **SETTINGS))
    broken = copy.deepcopy(model)
    broken.model.norm.weight.data[3] = float("nan")
    served.update_(broken.named_parameters())
    found["no_numbers"] = refused(served.sample, PROMPTS, 1, **SETTINGS)
    if kind == "qwen2":
        found["broken_off"] = refused(served.update_, [("model.layers.9.wrong.weight", torch.zeros(1))])
    else:
        served.timeout_s = 0.0
        found["broken_off"] = refused(served.update_, model.named_parameters())
    with pytest.raises(AssertionError, match="new engine"):
        served.sample(PROMPTS, 1, **SETTINGS)
    served.close()
    return found


def plain_logp(model, every):
    from r1repro.engine import policy

    question_N = torch.arange(len(PROMPTS)).repeat_interleave(OUTPUTS)
    return policy.all_logp(
        model, PROMPTS, question_N, every.tokens_NT, every.length_N, temperature=1.0, max_tokens=10**6
    )


def adapters(folder):
    """An engine whose weights stay, and whose adapters change."""
    import peft

    from r1repro.engine import probe

    found, probing = {}, dict(key=(0, 9), ends=[0], pad=1)
    base = policy_of("qwen2")
    base.save_pretrained(folder / "model")
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=linear))
    actor = wrapped.get_base_model()
    served = serve(folder / "model", rank=4)
    found["none"] = apart(served.sample(PROMPTS, OUTPUTS, **SETTINGS), actor)
    draw = torch.Generator().manual_seed(2)
    for step in (1, 2):
        old = copy.deepcopy(actor)
        for name, p in actor.named_parameters():
            if "lora_" in name:
                p.data += 0.2 * torch.randn(p.shape, generator=draw)
        wrapped.save_pretrained(folder / f"adapter-{step}")
        found[f"missed_{step}"] = refused(probe.probe, served, actor, PROMPTS, **probing)
        served.adapt_(folder / f"adapter-{step}")
        every = served.sample(PROMPTS, OUTPUTS, **SETTINGS)
        found[f"adapter_{step}"], found[f"as_before_{step}"] = apart(every, actor), apart(every, old)
        found[f"probe_{step}"] = probe.probe(served, actor, PROMPTS, **probing)
    found["nothing_there"] = refused(served.adapt_, folder / "nowhere")
    served.close()
    return found


def unfit(folder):
    """Engines that cannot be started, or cannot sample."""
    import models

    small = folder / "small"
    models.build(dtype=torch.float32).save_pretrained(small)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    found = {"elsewhere": refused(serve, small)}
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    found["nothing"] = refused(serve, folder / "nowhere")
    found["rank"] = refused(serve, small, rank=999)
    found["longer"] = refused(serve, small, max_prompt_tokens=10**6)
    served = serve(small)
    found["heads"] = refused(served.sample, PROMPTS, 1, **SETTINGS)
    served.close()
    return found


def ranks(folder):
    """Two ranks: first with one copy of the weights between them, then with one each, for two questions each."""
    from r1repro.engine import dist

    dist.join()
    model = policy_of("llama")
    if dist.rank() == 0:
        model.save_pretrained(folder / "model")
    torch.distributed.barrier()
    changed, mine, found = moved(model), dist.share(len(PROMPTS)), {"rank": dist.rank()}
    for name, parallel, part in (("together", 2, slice(None)), ("apart", 1, mine)):
        served, settings = serve(folder / "model", tensor_parallel=parallel), SETTINGS | {"question_keys": KEYS[part]}
        before = served.sample(PROMPTS[part], OUTPUTS, **settings)
        served.update_(changed.named_parameters())
        after = served.sample(PROMPTS[part], OUTPUTS, **settings)
        found[name] = [apart(before, model, PROMPTS[part]), apart(after, changed, PROMPTS[part])]
        found[f"{name}_rows"] = rows_of(after)
        served.close()
        together = torch.ones(1)
        torch.distributed.all_reduce(together)
        found[f"ranks_after_{name}"] = together.item()
    dist.leave()
    return found


def small_runs(folder):
    """Two rollouts of RL with each kind of weights, vLLM sampling; then the last checkpoint evaluated by it."""
    from r1repro import config
    from r1repro.stages import evaluate, rl
    from r1repro.tinyworld import base

    found = {}
    for kind in ("lora", "qlora"):
        changes = {"policy.sampler": "vllm", "policy.weights": kind, "policy.rank": 8, "rl.learning_rate": 5e-3}
        changes |= {"rl.num_rollouts": 2, "rl.num_checkpoints": 1, "rl.questions": "chain_sum", "rl.max_tokens": 64}
        changes |= {"evaluate.num_questions": 4, "evaluate.k": 2, "evaluate.max_tokens": 64}
        settings = config.r1_zero("smoke", overrides=changes | {"rl.questions_per_step": 4})
        run = rl.train(settings.rl, folder / kind, base.folder(base.MAIN), settings.machine)
        last = rl.checkpoint.folder_of(run, rl.checkpoint.steps_in(run)[-1])
        done = evaluate.run(settings.evaluate, folder / f"{kind}-evaluated", last, settings.machine)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[kind] = {
            "steps": len(lines),
            "nats": [line["sampler/divergence_nats"] for line in lines if "sampler/divergence_nats" in line],
            "moved": lines[-1]["policy/kl_reference_nats"],
            "questions": json.loads((done / "summary.json").read_text())["questions"],
        }
    return found


def cut_up(folder):
    """RL on two ranks, the policy cut up over them, each with a vLLM of its own; then its evaluation."""
    from r1repro import config
    from r1repro.engine import dist
    from r1repro.stages import evaluate, rl
    from r1repro.tinyworld import base

    dist.join()
    changes = {"policy.sampler": "vllm", "rl.learning_rate": 5e-4, "rl.num_rollouts": 2, "rl.num_checkpoints": 1}
    changes |= {"rl.questions": "chain_sum", "rl.max_tokens": 64, "rl.questions_per_step": 4, "machine.shard": True}
    changes |= {"evaluate.num_questions": 4, "evaluate.k": 2, "evaluate.max_tokens": 64}
    settings = config.r1_zero("smoke", overrides=changes)
    run = rl.train(settings.rl, folder / "rl", base.folder(base.MAIN), settings.machine)
    last = rl.checkpoint.folder_of(run, rl.checkpoint.steps_in(run)[-1])
    done = evaluate.run(settings.evaluate, folder / "evaluated", last, settings.machine)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {
        "rank": dist.rank(), "cut": (last / "shards").is_dir(), "moved": lines[-1]["policy/kl_reference_nats"],
        "nats": [line["sampler/divergence_nats"] for line in lines if "sampler/divergence_nats" in line],
        "questions": json.loads((done / "summary.json").read_text())["questions"],
    }  # fmt: skip
    dist.leave()
    return found


def notebook(folder):
    """Notebook 03 at smoke from its first cell to its last, vLLM sampling; its run's rewards."""
    import papermill

    changes = {"policy.sampler": "vllm", "rl.num_checkpoints": 1, "evaluate.num_questions": 8}
    papermill.execute_notebook(
        TOP / "notebooks" / "03_r1_zero.ipynb", folder / "03.ipynb", kernel_name="python3", progress_bar=False,
        parameters={"tier": "smoke", "seed": 0, "run_dir": str(folder / "seed-0"), "overrides": changes},
    )  # fmt: skip
    lines = (folder / "seed-0" / "r1_zero" / "metrics.jsonl").read_text().splitlines()
    manifest = json.loads((folder / "seed-0" / "r1_zero" / "manifest.json").read_text())
    rewards = [row["reward/mean"] for row in map(json.loads, lines) if "reward/mean" in row]
    return {"rewards": rewards, "sampler": manifest["config"]["policy"]["sampler"]}


PROGRAMS = {
    "qwen2": lambda folder: whole("qwen2", folder),
    "llama": lambda folder: whole("llama", folder),
    "adapters": adapters,
    "unfit": unfit,
    "small_runs": small_runs,
    "notebook": notebook,
    "ranks": ranks,
    "cut_up": cut_up,
}
ON_RANKS = ("ranks", "cut_up")


# --- what the tests look at


def run(name, folder):
    path = os.pathsep.join([str(TOP / "src"), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if name in ON_RANKS else []
    done = subprocess.run(
        [sys.executable, *launch, __file__, name, str(folder)], capture_output=True, text=True, timeout=LIMIT_S,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(file.read_text()) for file in sorted(folder.glob("found-*.json"))]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each program wrote down, a list with an entry a rank; two programs run at a time."""
    folders = [tmp_path_factory.mktemp(name) for name in PROGRAMS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PROGRAMS, pool.map(run, PROGRAMS, folders), strict=True))


@pytest.fixture(params=["qwen2", "llama"])
def found(request, seen):
    return seen[request.param][0]


@pytest.fixture
def adapted(seen):
    return seen["adapters"][0]


def rows(every):
    return [row[:n] for row, n in zip(every["tokens_NT"], every["length_N"], strict=True)]


def test_log_probabilities_are_the_policys(found):
    assert found["before"] < CLOSE and found["probe"] < CLOSE


def test_log_probabilities_are_of_what_was_sampled_from(found):
    assert found["cool"] < CLOSE and found["cool_as_warm"] > 0.1
    assert found["above_cut"] > 0  # a cut distribution gives what is left more


def test_an_update_arrives(found):
    assert found["after"] < CLOSE and found["after_as_old"] > FAR
    assert found["probe_after"] < CLOSE
    assert found["back"] == rows(found["first"])


def test_an_end_token_is_kept_and_a_cut_is_told(found):
    first = found["first"]
    assert {n < 24 for n in first["length_N"]} == {True, False}
    for row, truncated, logp in zip(rows(first), first["truncated_N"], first["logp_NT"], strict=True):
        assert truncated == (row[-1] != 0) and 0 not in row[:-1]
        assert len(row) == 24 or not truncated
        assert all(x < 0 for x in logp[: len(row)]) and set(logp[len(row) :]) <= {0.0}
    for row, n in zip(first["tokens_NT"], first["length_N"], strict=True):
        assert set(row[n:]) <= {1}


def test_any_of_several_ends_ends_an_output_and_nothing_else_does(found):
    for row, whole_row in zip(found["two_ends"], found["no_end"], strict=True):
        ends = [i for i, token in enumerate(whole_row) if token in (0, 7, 30)]
        assert len(whole_row) == 24 and row == whole_row[: ends[0] + 1 if ends else 24]
    assert {row[-1] for row in found["two_ends"] if len(row) < 24} > {0}


def test_outputs_depend_on_their_keys_and_not_on_what_is_beside_them(found):
    first = rows(found["first"])
    assert found["again"] == found["alone"] == first
    assert found["fewer"] == [row for q in range(4) for row in first[q * OUTPUTS : q * OUTPUTS + 2]]
    assert found["shorter"] == [row[:5] for row in first]
    assert sum(a != b for a, b in zip(found["next"], first, strict=True)) > 12
    assert sum(len({tuple(row) for row in first[q * OUTPUTS : (q + 1) * OUTPUTS]}) > 2 for q in range(4)) >= 3


def test_each_question_is_handed_over_once_it_is_whole(found):
    first = rows(found["first"])
    assert sorted(q for q, *_ in found["handed"]) == [0, 1, 2, 3]
    for q, tokens, logp in found["handed"]:
        part = slice(q * OUTPUTS, (q + 1) * OUTPUTS)
        assert tokens == first[part] and logp == found["first"]["logp_NT"][part]


def test_the_process_stays_as_it_was(found):
    assert found["process"] == {"same_numbers": True, "same_threads": True, "same_preload": True}


@pytest.mark.parametrize("name", ["probe_other", "probe_old"])
def test_the_probe_refuses_other_weights(found, name):
    assert "serves other weights than the policy" in found[name] and "\n" not in found[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("long_prompt", "161 tokens"),
        ("long_output", "25 tokens"),
        ("cold", "temperature is 0.0"),
        ("late", "0 of 4 outputs"),
        ("incomplete", "up_proj"),
        ("broken_off", ""),
        ("no_numbers", "are no numbers (question 1 of 4)"),
    ],
)
def test_what_goes_wrong_is_one_line(found, name, said):
    assert said in found[name] and "\n" not in found[name] and ("policy.sampler" in found[name] or ": " in found[name])


def test_an_update_that_breaks_off_says_why(found):
    assert "'layers.9'" in found["broken_off"] or "vLLM has 0 of 21 tensors" in found["broken_off"]


def test_after_a_refusal_the_engine_goes_on(found):
    assert found["after_late"] == found["mended"] == rows(found["first"])


def test_each_adapter_arrives(adapted):
    assert adapted["none"] < CLOSE
    for step in (1, 2):
        assert adapted[f"adapter_{step}"] < CLOSE and adapted[f"probe_{step}"] < CLOSE
        assert adapted[f"as_before_{step}"] > FAR
        assert "serves other weights" in adapted[f"missed_{step}"]
    assert "nowhere" in adapted["nothing_there"] and "\n" not in adapted["nothing_there"]


def test_ranks_share_an_engine_or_have_one_each(seen):
    first, second = seen["ranks"]
    for found in (first, second):
        assert max(found["together"] + found["apart"]) < CLOSE
        assert found["ranks_after_together"] == found["ranks_after_apart"] == 2.0
    assert first["together_rows"] == second["together_rows"] == first["apart_rows"] + second["apart_rows"]


def test_ranks_serve_what_they_train_between_them(seen):
    """Each rank's vLLM has the weights that both of them hold in part, before and after they have moved."""
    first, second = seen["cut_up"]
    assert first["rank"] != second["rank"] and first["cut"] and first["questions"] == 4
    assert len(first["nats"]) == 2 and max(first["nats"]) < 1e-4 and first["moved"] > 1e-6
    assert first["nats"] == second["nats"]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_rl_samples_from_what_it_has_just_trained(seen, kind):
    """Adapters beside plain and beside 4-bit weights: vLLM serves the base as it is held, and each new adapter."""
    found = seen["small_runs"][0][kind]
    assert found["steps"] == 4 and found["questions"] == 4 and found["moved"] > 1e-3
    assert len(found["nats"]) == 2 and max(found["nats"]) < 1e-6


def test_notebook_03_learns(seen):
    """As `tests/test_learning.py` asks of the torch sampler."""
    found = seen["notebook"][0]
    assert found["sampler"] == "vllm" and len(found["rewards"]) == 8
    assert sum(found["rewards"][-3:]) / 3 > sum(found["rewards"][:2]) / 2 + 0.15, found


def test_an_engine_that_cannot_serve_says_why(seen):
    said = seen["unfit"][0]
    assert "unset it" in said["elsewhere"] and "no weights at" in said["nothing"] and "rank 999" in said["rank"]
    for name, reason in (("longer", "max_model_len"), ("heads", "head_dim=8")):
        assert reason in said[name] and "policy.sampler=torch" in said[name] and "\n" not in said[name]


if __name__ == "__main__":
    where = Path(sys.argv[2])
    (where / f"found-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(PROGRAMS[sys.argv[1]](where)))
