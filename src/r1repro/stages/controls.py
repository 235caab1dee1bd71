"""Controls of R1-Zero (C01, C04), and a cap that is raised in mid-run (C05): each run is an arm beside the main line.

    base ---- zero_format, zero_random      R1-Zero's RL, rewarded for the format alone, and at random
         ---- zero_divisor                  with Dr. GRPO's constant divisor in the place of the mean over each output
         ---- flat_base ---- zero_flat      R1-Zero's RL from a base in whose corpus working pays nothing
         ---- cap_start ---- cap_kept       R1-Zero's RL under a cap that binds, then forked:
                        ---- cap_raised     the cap kept, and the cap raised to R1-Zero's

Every part resumes, or returns at once when it is done.
"""

from dataclasses import replace
from pathlib import Path

from r1repro.config import RL, Pretrain
from r1repro.config_arms import Controls
from r1repro.stages import arms, pretrain, rl
from r1repro.stages.r1_zero import base_folder
from r1repro.tinyworld import base

WATCHED = "r1repro.rewards.reasoning:watched"
FORMAT = "r1repro.rewards.format:format_scores"
RANDOM = "r1repro.rewards.controls:random_scores"

FORKED = 10_000
"""Added to the seed of the runs after a fork, and of the documents of the flat base: their questions and documents are
others than those that were learned from before."""


def settings_of(settings: Controls, name: str) -> RL:
    """The RL of an arm: R1-Zero's with one thing changed.

    Where the paper is silent:
        What became of the optimiser's moments and of the reference when the cap was raised.  Both forks begin anew:
        without moments, with the warm-up, the reference being the policy that was forked.  So their difference is the
        cap's, while the first steps of either are not those of a run that goes on undisturbed.

    >>> from r1repro import config_arms
    >>> settings_of(config_arms.controls("cpu"), "cap_kept").max_tokens
    96
    """
    plain = replace(settings.rl, num_checkpoints=1)
    capped = replace(plain, max_tokens=settings.cap, num_rollouts=settings.rollouts_before)
    forked = replace(capped, seed=settings.seed + FORKED, num_rollouts=settings.rollouts_after)
    return {
        "zero_format": replace(plain, rewards=(WATCHED, FORMAT)),
        "zero_random": replace(plain, rewards=(WATCHED, f"{RANDOM}_{settings.seed}")),
        "zero_divisor": replace(plain, average="r1repro.algo.grpo:constant_divisor"),
        "zero_flat": plain,
        "cap_start": capped,
        "cap_kept": forked,
        "cap_raised": replace(forked, max_tokens=settings.rl.max_tokens),
    }[name]


STARTS = {"zero_flat": "flat_base", "cap_kept": "cap_start", "cap_raised": "cap_start"}
"""Arm -> the arm whose model it starts from; the others start from the base."""


def train(settings: Controls, seed_dir: Path | str, name: str) -> Path:
    """Train an arm by RL, or go on, or return at once when done; returns the run folder.

    Raises:
        Refusal: the arm that it starts from is not finished.
    """
    start = arms.model_of(seed_dir, STARTS[name]) if name in STARTS else base_folder(settings.base)
    return rl.train(settings_of(settings, name), arms.run_of(seed_dir, name), start, settings.machine)


def read_on(settings: Controls, seed_dir: Path | str) -> Path:
    """Make the flat base: the base, pre-trained for some steps more on the flat corpus.  Returns its folder."""
    cfg = Pretrain(
        model=base.MAIN, seed=settings.seed + FORKED, steps=settings.flat_steps,
        learning_rate=settings.flat_learning_rate, checkpoint_every=20, flat=True,
    )  # fmt: skip
    return pretrain.train(cfg, arms.run_of(seed_dir, "flat_base"), base_folder(settings.base))


def measure(settings: Controls, seed_dir: Path | str, name: str) -> Path:
    """Evaluate an arm on the questions of the main line's models; returns the run folder.  Those that C01 is
    controlled by are asked as many sums as R1-Zero's checkpoints besides (notebook 11)."""
    model = arms.model_of(seed_dir, name)
    if name in ASKED_MORE:
        arms.measure(settings.sums, seed_dir, name, model, settings.machine, kind="more")
    return arms.measure(settings.evaluate, seed_dir, name, model, settings.machine)


ASKED_MORE = ("zero_format", "zero_random")
