"""Monte Carlo tree search over the lines of a solution, guided by a value model (section 4.2).

The trees of many questions grow together: each call of the sampler proposes lines from one node of every tree.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm.auto import tqdm

from r1repro import data
from r1repro.algo import search as algo
from r1repro.config import Evaluate, Machine
from r1repro.config_arms import TreeSearch
from r1repro.engine import actor as actors
from r1repro.engine import scorer
from r1repro.records import Question, Refusal
from r1repro.rewards import accuracy, reasoning
from r1repro.run import Interrupts, Run, read_lines, write_lines
from r1repro.stages import process_reward
from r1repro.tinyworld import base

CHUNK = 128
"""Questions whose trees grow side by side; a chunk is what a kill costs."""


@dataclass(slots=True)
class Growing:
    """The tree of one question, and the tokens sampled for it."""

    question: Question
    prompt: list[int]
    tree: algo.Tree
    tokens: int = 0

    def output(self, node: int) -> list[int]:
        """The tokens of the solution up to a node."""
        return [token for step in self.tree.path(node) for token in self.tree.nodes[step].content]


def run(
    cfg: TreeSearch,
    run_dir: Path | str,
    model_dir: Path | str,
    value_dir: Path | str,
    machine: Machine | None = None,
    asked: Evaluate | None = None,
) -> Path:
    """Search solutions to questions and keep the trees; goes on where it stopped, returns at once when done.

    Args:
        value_dir: the value model, a process reward model.
        asked: the evaluation whose questions are searched; None: training questions.

    Returns:
        The run folder; a line of its samples.jsonl is a question with its tree and the finished solutions in it.
    """
    machine = machine or Machine()
    inputs = {"model": base.digest(model_dir), "value model": base.digest(value_dir)} | data.fingerprint(cfg.questions)
    if asked:
        inputs |= {"asked": json.dumps(asdict(asked))}
    folder = Run.open(run_dir, stage="tree_search", config=cfg, inputs=inputs, seed=cfg.seed)
    if folder.complete:
        return folder.path
    if asked:
        questions = data.split_questions(asked.questions, asked.split, asked.seed, asked.num_questions)
    else:
        questions = data.training_questions(cfg.questions, "search", cfg.seed, cfg.num_questions)
    actor, value = actors.load(model_dir, cfg.policy, machine), scorer.load(value_dir)
    done = len(folder.samples()) // CHUNK * CHUNK
    folder.rewind(done)
    bar = tqdm(total=len(questions) * cfg.expansions, initial=done * cfg.expansions, desc="searching", unit="node")
    with closing(actor), Interrupts("these questions") as interrupts:
        for first in range(done, len(questions), CHUNK):
            chunk = [Growing(q, actor.vocabulary.prompt(q.text), algo.Tree()) for q in questions[first : first + CHUNK]]
            for number in range(cfg.expansions):
                grow_(chunk, actor, value, cfg, number)
                bar.update(len(chunk))
            finish_(chunk, actor, value, cfg)
            folder.add_samples({"step": first + i + 1, **_kept(one, actor)} for i, one in enumerate(chunk))
            folder.keep_time()
            interrupts.stop()
    bar.close()
    folder.finish(tokens={"sampled": sum(row["tokens"] for row in folder.samples())})
    return folder.path


def grow_(chunk: Sequence[Growing], actor: actors.Actor, value, cfg: TreeSearch, number: int) -> None:
    """One expansion of every tree that has a node left: select, propose lines, value them, back their values up.

    Where the paper is silent:
        *Proposals* are sampled from the policy; the share of equal ones is the prior of `search.puct`.  *Budget*: only
        tokens that the policy samples are counted, as for plain samples; what the value model reads is not.
    """
    picked = [(one, at) for one in chunk if (at := one.tree.select(cfg.exploration)) is not None]
    how = dict(key=(cfg.seed, 2**26 + number), max_tokens=cfg.max_line_tokens, ends=actor.vocabulary.line_ends())
    _expand_(picked, cfg.width, actor, value, cfg, **how)


def finish_(chunk: Sequence[Growing], actor: actors.Actor, value, cfg: TreeSearch) -> None:
    """Where no solution has come to its end, one is sampled on from the beginning of highest value."""
    picked = [(one, one.tree.most_valued()) for one in chunk if not one.tree.finished()]
    _expand_(picked, 1, actor, value, cfg, key=(cfg.seed, 2**25), max_tokens=cfg.max_tokens, ends=(), finished=True)


def _expand_(picked, width: int, actor: actors.Actor, value, cfg: TreeSearch, finished: bool = False, **how) -> None:
    """Give nodes their children.

    Args:
        picked: (what grows, its node) pairs.
        finished: whatever comes is a whole solution.
    """
    if not picked:
        return
    begun, prompts = [one.output(at) for one, at in picked], [one.prompt for one, _ in picked]
    beginnings = [[*prompt, *output] for prompt, output in zip(prompts, begun, strict=True)]
    lines = actor.tokens(actor.go_on(beginnings, width, temperature=cfg.temperature, top_p=cfg.top_p, **how))
    groups = [Counter(map(tuple, lines[i : i + width])) for i in range(0, len(lines), width)]
    cuts = [
        scorer.Cut(q, [*output, *line], [len(output) + len(line) - 1])
        for q, (output, group) in enumerate(zip(begun, groups, strict=True))
        for line in group
    ]
    said = iter(scorer.step_values(value, prompts, cuts))
    for (one, at), output, group in zip(picked, begun, groups, strict=True):
        one.tokens += sum(len(line) * times for line, times in group.items())
        whole = [finished or _is_whole(actor, cfg, [*output, *line]) for line in group]
        one.tree.expand_(at, [
            (line, times / width, done, next(said)[0])
            for (line, times), done in zip(group.items(), whole, strict=True)
        ])  # fmt: skip


def _is_whole(actor: actors.Actor, cfg: TreeSearch, output: Sequence[int]) -> bool:
    return output[-1] in actor.vocabulary.ends or len(output) >= cfg.max_tokens


def _kept(one: Growing, actor: actors.Actor) -> dict:
    """A question, its tree, and its finished solutions as `evaluate` keeps outputs."""
    tree, leaves = one.tree, one.tree.finished()
    outputs = [one.output(leaf) for leaf in leaves]
    texts = [actor.vocabulary.text(output) for output in outputs]
    graded = zip(leaves, outputs, texts, reasoning.accuracy([one.question] * len(texts), texts), strict=True)
    record = asdict(one.question)
    return {"question": record.pop("text"), **record} | {
        "tokens": one.tokens,
        "prompt": one.prompt,
        "nodes": [
            {"parent": node.parent, "tokens": list(node.content or ()), "prior": node.prior, "mean": node.mean,
             "visits": node.visits, "value": node.value, "finished": node.finished}
            for node in tree.nodes
        ],
        "outputs": [
            {"text": text, "verdict": score.verdict, "score": score.value, "length": len(output),
             "truncated": output[-1] not in actor.vocabulary.ends, "answer": answer_of(text), "node": leaf,
             "value": tree.nodes[leaf].value}
            for leaf, output, text, score in graded
        ],
    }  # fmt: skip


def answer_of(text: str) -> str | None:
    """The final answer of an output in the form in which votes are counted; None without one."""
    answer = accuracy.final_answer(text)
    return None if answer is None else accuracy.normalise(answer)


def tree_of(row: dict) -> algo.Tree:
    """The tree of a line of samples.jsonl."""
    tree = algo.Tree()
    tree.nodes = [
        algo.Node(
            node["parent"], tuple(node["tokens"]), node["prior"], node["finished"], node["mean"], node["visits"],
            node["value"],
        )
        for node in row["nodes"]
    ]  # fmt: skip
    for i, node in enumerate(tree.nodes[1:], start=1):
        tree.nodes[node.parent].children.append(i)
    return tree


def chosen(row: dict) -> int:
    """Which of the finished solutions of a search is its answer: by a vote that their values weigh.

    Where the paper is silent:
        How a search ends.  A vote, so that it can be compared with a vote over plain samples.
    """
    outputs = row["outputs"]
    speaker = algo.weighted_vote([o["answer"] for o in outputs], [o["value"] for o in outputs])
    return 0 if speaker is None else speaker


def examples(cfg: TreeSearch, searched: Path | str, target: Path) -> Path:
    """Right solutions that a search of training questions has found, those of highest value first, as examples for
    `sft`."""
    rows = []
    for row in read_lines(Path(searched) / "samples.jsonl"):
        right = [output for output in row["outputs"] if output["verdict"] == "right"]
        kept = sorted(right, key=lambda output: -output["value"])[: cfg.keep_per_question]
        about = {key: row[key] for key in ("id", "family", "level", "language", "question")}
        rows += [about | {"output": output["text"]} for output in kept]
    if not rows:
        raise Refusal(f"the search in {searched} found no right solution: search longer, or ask easier questions")
    write_lines(target, rows)
    return target


def solutions(searched: Path | str) -> list[dict]:
    """Every finished solution of a search of training questions as `process_reward.row`: a step's label is the share
    of the finished solutions below it that are right."""
    rows = []
    for found in read_lines(Path(searched) / "samples.jsonl"):
        tree, question = tree_of(found), question_of(found)
        share = tree.share_below({output["node"]: output["verdict"] == "right" for output in found["outputs"]})
        for output in found["outputs"]:
            path = tree.path(output["node"])
            tokens, places = [], []
            for node in path:
                tokens += tree.nodes[node].content
                places.append(len(tokens) - 1)
            labels = [share[node] for node in path]
            rows.append(process_reward.row(question, found["prompt"], tokens, places, labels))
    return rows


def question_of(row: dict) -> Question:
    """The question that a line of samples.jsonl keeps."""
    kept = ("id", "gold", "language", "level", "family", "kind")
    requirements = tuple(map(tuple, row["requirements"]))
    return Question(text=row["question"], requirements=requirements, **{key: row[key] for key in kept})
