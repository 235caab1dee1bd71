"""TRL's own trainer with our rewards (`r1repro.rewards.ecosystem`): two steps, each reward checked against ours.

    python -m bench.rewards

Prints a line for each reward: its mean as TRL logs it, and as our functions score the same outputs; ends with status 1
where they differ.  The outputs are drawn by TRL from the base model of the tiny world.
"""

import statistics
import sys
import tempfile

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1repro import data, paper
from r1repro.engine import policy
from r1repro.rewards import accuracy, code, ecosystem, format, language
from r1repro.tinyworld import base, tokenizer

QUESTIONS, OUTPUTS, STEPS = 8, 4, 2

REWARDS = (
    ecosystem.accuracy_reward, ecosystem.format_reward, ecosystem.language_reward, ecosystem.code_reward,
)  # fmt: skip


def own(name: str, questions: list, texts: list[str]) -> list[float]:
    """The same scores by the functions that our own stages call."""
    if name == "accuracy_reward":
        return [score.value for score in accuracy.accuracy(questions, texts)]
    if name == "format_reward":
        return [score.value for score in format.format_scores(questions, texts)]
    if name == "language_reward":
        return [language.language_share(text, q.language) for q, text in zip(questions, texts, strict=True)]
    return [
        1.0 if code.grade(code.program_of(text), "assert f(1) == 2")["verdict"] == "right" else 0.0 for text in texts
    ]


def main() -> int:
    asked = {q.id: q for i in range(STEPS) for q in data.rollout_questions("chain_sum", 0, i, QUESTIONS)}
    rows = [
        {"prompt": paper.template(q.text), "answer": q.gold, "language": q.language, "id": q.id,
         "tests": "assert f(1) == 2"}
        for q in asked.values()
    ]  # fmt: skip
    seen: list[tuple[list[str], list[str]]] = []

    def watch(completions, id, **_):
        """A reward of nothing, which notes what TRL hands over."""
        seen.append((list(id), list(completions)))
        return [0.0] * len(completions)

    model, vocabulary = policy.load(base.folder("tiny-1m")), tokenizer.load()
    model.generation_config.eos_token_id = vocabulary.eos_token_id
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=[*REWARDS, watch],
            args=GRPOConfig(
                output_dir=folder, max_steps=STEPS, per_device_train_batch_size=QUESTIONS * OUTPUTS,
                num_generations=OUTPUTS, max_completion_length=160, logging_steps=1, report_to="none", use_cpu=True,
                bf16=False, gradient_checkpointing=False, save_strategy="no", seed=0, disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=vocabulary,
        )  # fmt: skip
        trainer.train()
    logged, apart = [row for row in trainer.state.log_history if "reward" in row], 0.0
    for reward in REWARDS:
        name = reward.__name__
        theirs = statistics.mean(row[f"rewards/{name}/mean"] for row in logged)
        scores = [own(name, [asked[i] for i in ids], texts) for ids, texts in seen]
        ours = statistics.mean(statistics.mean(some) for some in scores)
        apart = max(apart, abs(ours - theirs))
        sys.stdout.write(f"{name:16} TRL logs {theirs:.6f}, ours {ours:.6f}\n")
    sys.stdout.write(f"{sum(len(ids) for ids, _ in seen)} outputs in {len(seen)} steps, at most {apart:.1e} apart\n")
    return int(apart > 1e-6 or len(seen) != STEPS or not torch.isfinite(torch.tensor(apart)))


if __name__ == "__main__":
    sys.exit(main())
