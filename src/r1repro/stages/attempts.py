"""What did not work, of one seed (sections 4.2 and 2.2.2): process rewards, tree search, a proxy optimised for long.

    base ---- prm -------- prm_rl                        RL whose accuracy reward is a process reward model
         ---- pool ------- prm_best, pool_vote           best of N samples
         ---- tree ------- tree, tree_vote, tree_weighted     search, and plain samples for as many tokens
         ---- search_1 --- searched_1, value_1 --- search_2 --- searched_2, value_2     self-training
    dev3 ---- hacked -------------------------------------------  RL by the reward model of helpfulness alone

Every part resumes, or returns at once when it is done.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from r1repro.algo import estimators, search
from r1repro.config_arms import Attempts, Derived
from r1repro.engine import checkpoint, scorer
from r1repro.run import Run, read_json, read_lines, sha256_file, write_json
from r1repro.stages import arms, evaluate, process_reward, rl, sft, tree_search
from r1repro.stages.r1_zero import base_folder
from r1repro.tinyworld import base

ROUNDS = (1, 2)
"""Rounds of search and training: the second is what says whether the first can be repeated."""


def derived(target: Path, how: Derived, source: Path, make: Callable[[list[dict]], Iterable[dict]], **inputs) -> Path:
    """An evaluation folder made of the samples of another; returns it, at once where it is done.

    Args:
        make: the rows of the other -> those of this.
        inputs: digests of what else it depends on.
    """
    digests = {"evaluation": sha256_file(source / "samples.jsonl")} | inputs
    run = Run.open(target, stage="evaluate", config=how, inputs=digests)
    if not run.complete:
        run.rewind(-1)
        run.add_samples(make(read_lines(source / "samples.jsonl")))
        write_json(run.path / "summary.json", evaluate.summarise(run.samples()))
        run.finish()
    return run.path


# A process reward model: to choose among samples, and as a reward


def process_model(settings: Attempts, seed_dir: Path | str) -> Path:
    """The process reward model, trained from the base on steps of the base's own solutions; its folder."""
    place = arms.run_of(seed_dir, "prm")
    return process_reward.train(settings.process, place, base_folder(settings.base), settings.machine)


def pool(settings: Attempts, seed_dir: Path | str) -> Path:
    """Many samples of the base to each test question, each with what the process reward model says: ``process`` of its
    weakest step, ``product`` of all steps."""
    place, model = arms.run_of(seed_dir, "pool"), base_folder(settings.base)
    sampled = evaluate.run(settings.pool, place, model, settings.machine)
    model = process_model(settings, seed_dir)

    def valued(rows: list[dict]) -> Iterable[dict]:
        reward = scorer.Process(model)
        for row in rows:
            outputs = row["outputs"]
            steps = reward.steps([tree_search.question_of(row)] * len(outputs), [o["text"] for o in outputs])
            numbers = [{"process": search.weakest_step(x), "product": search.every_step(x)} for x in steps]
            yield row | {"outputs": [o | more for o, more in zip(outputs, numbers, strict=True)]}

    digest = {"process reward model": base.digest(model)}
    return derived(_evaluation(seed_dir, "base_pool"), Derived(how="process values"), sampled, valued, **digest)


def _evaluation(seed_dir: Path | str, name: str) -> Path:
    return Path(seed_dir) / "models" / name / "reasoning"


def blocks(outputs: Sequence[dict], count: int) -> list[list[dict]]:
    """Samples of a question in disjoint groups of so many, in their order; what is left over is left out.

    >>> [len(block) for block in blocks([{}] * 7, 3)]
    [3, 3]
    """
    found = [list(outputs[i : i + count]) for i in range(0, len(outputs), count)]
    return [block for block in found if len(block) == count]


Choose = Callable[[Sequence[dict]], int | None]


def chosen_of(block: Sequence[dict], choose: Choose) -> dict:
    """The output that is chosen; the first one where nobody can tell."""
    return block[choose(block) or 0]


def by_process(outputs: Sequence[dict]) -> int:
    """Which output's weakest step has the highest value; the first of equals."""
    return int(np.argmax([output["process"] for output in outputs]))


def by_vote(outputs: Sequence[dict]) -> int | None:
    """Which output speaks for the majority."""
    return estimators.majority([output["answer"] for output in outputs])


def by_weighted_vote(outputs: Sequence[dict]) -> int | None:
    """Which output speaks for the answer whose outputs have the largest sum of process values."""
    return search.weighted_vote([output["answer"] for output in outputs], [output["process"] for output in outputs])


def rerank(settings: Attempts, seed_dir: Path | str) -> tuple[Path, Path]:
    """Outputs to each test question, each chosen among N samples of its own: by the process reward model, and by a
    vote."""
    source, count = pool(settings, seed_dir), settings.best_of
    made = []
    for name, choose in (("prm_best", by_process), ("pool_vote", by_vote)):

        def one_of_each(rows: list[dict], choose=choose) -> Iterable[dict]:
            for row in rows:
                yield row | {"outputs": [chosen_of(block, choose) for block in blocks(row["outputs"], count)]}

        made.append(derived(_evaluation(seed_dir, name), Derived(how=name, samples=count), source, one_of_each))
    return tuple(made)


def by_product(outputs: Sequence[dict]) -> int:
    """Which output's steps have the largest product of values; the first of equals."""
    return int(np.argmax([output["product"] for output in outputs]))


CHOICES = {
    "majority vote": by_vote,
    "weakest step": by_process,
    "product of steps": by_product,
    "vote by weakest step": by_weighted_vote,
}
"""Ways to choose one of N outputs."""


def best_of_curve(rows: Sequence[dict], counts: Sequence[int]) -> list[dict[str, float]]:
    """How often each of `CHOICES` is right, by N: a mean over questions and over as many disjoint N as there are.

    ``any right`` is pass@N, what a perfect chooser would have; ``tokens`` are those of N samples.
    """
    found = []
    all_right = [sum(output["verdict"] == "right" for output in row["outputs"]) for row in rows]
    lengths = [output["length"] for row in rows for output in row["outputs"]]
    for count in counts:
        groups = [block for row in rows for block in blocks(row["outputs"], count)]
        shares = {
            name: float(np.mean([chosen_of(block, choose)["verdict"] == "right" for block in groups]))
            for name, choose in CHOICES.items()
        }
        perfect = estimators.pass_at_k(all_right, len(rows[0]["outputs"]), count)
        found.append({"N": count, **shares, "any right": perfect, "tokens": count * float(np.mean(lengths))})
    return found


def process_rl(settings: Attempts, seed_dir: Path | str) -> Path:
    """RL of the base as R1-Zero's, with the process reward in the place of the accuracy reward; the run folder."""
    reward = scorer.Process(process_model(settings, seed_dir))
    run, start = arms.run_of(seed_dir, "prm_rl"), base_folder(settings.base)
    rl.train(settings.process_rl, run, start, settings.machine, preference=reward)
    arms.measure(settings.evaluate, seed_dir, "prm_rl", checkpoint.end_of(run), settings.machine)
    return run


# Tree search: at inference, and to train on what it finds


def tree(settings: Attempts, seed_dir: Path | str) -> Path:
    """Search of every test question by the base and the process reward model, its answer as an evaluation, and votes
    over as many plain samples as its tokens buy; the run folder of the search."""
    model, value = base_folder(settings.base), process_model(settings, seed_dir)
    found = tree_search.run(
        settings.search, arms.run_of(seed_dir, "tree"), model, value, settings.machine, asked=settings.evaluate
    )
    digest = {"search": sha256_file(found / "samples.jsonl")}
    derived(_evaluation(seed_dir, "tree"), Derived(how="search"), found, answered)
    budget = {row["id"]: row["tokens"] for row in read_lines(found / "samples.jsonl")}
    for name, choose in (("tree_vote", by_vote), ("tree_weighted", by_weighted_vote)):

        def within(rows: list[dict], choose=choose) -> Iterable[dict]:
            for row in rows:
                outputs = row["outputs"][: search.affordable([o["length"] for o in row["outputs"]], budget[row["id"]])]
                yield row | {"outputs": [chosen_of(outputs, choose) | {"samples": len(outputs)}]}

        derived(_evaluation(seed_dir, name), Derived(how=name), pool(settings, seed_dir), within, **digest)
    return found


def answered(rows: Sequence[dict]) -> Iterable[dict]:
    """Searched questions with the one solution that answers each, and the tokens of the whole search."""
    for row in rows:
        kept = {key: value for key, value in row.items() if key not in ("nodes", "prompt", "tokens")}
        yield kept | {"outputs": [row["outputs"][tree_search.chosen(row)] | {"searched_tokens": row["tokens"]}]}


def self_train(settings: Attempts, seed_dir: Path | str) -> list[Path]:
    """Search training questions, train the actor and the value model on what was found, and again; the SFT runs.

    Where the paper is silent:
        What each round starts from.  The actor is the base, fine-tuned on the right solutions of this round; the value
        model is the last round's, trained on all solutions of this one.  The questions are the same in every round.
    """
    actor, value, runs = base_folder(settings.base), process_model(settings, seed_dir), []
    for number in ROUNDS:
        found = tree_search.run(
            settings.search, arms.run_of(seed_dir, f"search_{number}"), actor, value, settings.machine
        )
        examples = tree_search.examples(settings.search, found, found / "examples.jsonl")
        run = arms.run_of(seed_dir, f"searched_{number}")
        actor = sft.train(settings.searched_sft, run, base_folder(settings.base), examples, settings.machine)
        arms.measure(settings.evaluate, seed_dir, f"searched_{number}", actor, settings.machine)
        value = process_reward.learn(
            settings.value, arms.run_of(seed_dir, f"value_{number}"), value,
            lambda found=found: tree_search.solutions(found), inputs={"search": sha256_file(found / "samples.jsonl")},
        )  # fmt: skip
        runs.append(run)
    return runs


# A reward model that is optimised for too long


def hack(settings: Attempts, seed_dir: Path | str, dev3: Path) -> Path:
    """RL of Dev3 on general prompts by the reward model of helpfulness alone, and what its checkpoints are worth; the
    run folder.

    No rule is a reward, not even the format's.  Checkpoints answer general prompts, scored by the reward model and by
    the hidden rule, and questions of reasoning.
    """
    helpful, safety = (checkpoint.end_of(Path(seed_dir) / "r1" / kind) for kind in ("helpful", "safety"))
    run, cfg = arms.run_of(seed_dir, "hacked"), settings.hacking
    rl.train(cfg, run, dev3, settings.machine, preference=scorer.Preference(helpful, safety))
    steps = rl.kept_steps(cfg)
    for step in steps:
        model, (replies, reasoning) = checkpoint.folder_of(run, step), _hacking_places(seed_dir, step, steps)
        place = Path(seed_dir) / "attempts" / f"hacked-step-{step:06d}" / "general"
        asked = evaluate.run(settings.evaluate_general, place, model, settings.machine)
        scored(replies, asked, helpful, safety)
        if step:
            evaluate.run(settings.evaluate, reasoning, model, settings.machine)
    return run


def _hacking_places(seed_dir: Path | str, step: int, steps: Sequence[int]) -> tuple[Path, Path]:
    """Where the evaluations of a checkpoint lie: scored replies, and reasoning.  The first one is Dev3."""
    between = Path(seed_dir) / "attempts" / f"hacked-step-{step:06d}"
    at_ends = {0: ("dev3_replies", "dev3"), steps[-1]: ("hacked_replies", "hacked")}
    if step in at_ends:
        return tuple(_evaluation(seed_dir, name) for name in at_ends[step])
    return between / "scored", between / "reasoning"


def scored(target: Path, source: Path, helpful: Path, safety: Path) -> Path:
    """An evaluation of general prompts, each reply with the score that RL pays for: ``proxy``."""

    def proxies(rows: list[dict]) -> Iterable[dict]:
        reward = scorer.Preference(helpful, safety)
        for row in rows:
            texts = [output["text"] for output in row["outputs"]]
            scores = reward([tree_search.question_of(row)] * len(texts), texts)
            yield row | {"outputs": [o | {"proxy": s.value} for o, s in zip(row["outputs"], scores, strict=True)]}

    digest = {"reward model": base.digest(helpful)}
    return derived(target, Derived(how="reward model of helpfulness"), source, proxies, **digest)


def hacking_curve(settings: Attempts, seed_dir: Path | str) -> list[dict]:
    """Of each checkpoint of `hack`: step, mean score by the reward model, mean points by the hidden rule, pass@1."""
    rows, steps = [], rl.kept_steps(settings.hacking)
    for step in steps:
        replies, reasoning = _hacking_places(seed_dir, step, steps)
        outputs = [o for row in read_lines(replies / "samples.jsonl") for o in row["outputs"]]
        means = {key: float(np.mean([o[key] for o in outputs])) for key in ("proxy", "helpful", "length")}
        rows.append({"step": step, **means, "pass@1": read_json(reasoning / "summary.json")["pass@1"]})
    return rows
