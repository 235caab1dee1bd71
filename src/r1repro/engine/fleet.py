"""A run of GRPO on many GPUs as discrete events: where the GPU-seconds go, before a GPU is rented.

Workers sample the outputs of a rollout.  The rows of a worker advance by a token at a time, all together, so when a row
will end is known when it begins, and between two ends nothing changes: `timeline` goes from end to end.  Then the
rollout is scored and learned from, and the new weights go to the workers.  One number, the staleness, makes a run
synchronous (0) or partially asynchronous.  `failures.survived` puts failures and checkpoints over what came out.

Lengths and seconds are given (`engine.workload`).  What is left out: a token takes as long at the end of an output as
at its beginning, new weights find the keys and values of unfinished outputs as the old ones left them, and networks
have no shape.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from r1repro.engine.workload import Costs, Lengths
from r1repro.records import Refusal

PARTS = {
    "sampling": "tokens, at the speed of a worker whose rows are all alive",
    "update": "learning from them, spread evenly over the GPUs",
    "thin": "what sampling took longer because few rows were alive, or the worker was slow",
    "tail": "samplers without rows, while outputs of others are not whole",
    "idle": "samplers that wait for an update, GPUs of the update that wait for outputs",
    "reward": "waiting for the last rewards",
    "slack": "what an update took longer: the longest output of a step, a slow worker, what no GPU shortens",
    "sync": "new weights on their way",
    "checkpoint": "state on its way to a disk",
    "restart": "from a failure until the run goes on",
    "lost": "work since the last checkpoint that a failure undid",
}
"""Where GPU-seconds go.  The first two are of use: work that is kept, at the best speed there is."""

TRAINERS = -1
"""Stands in the place of a worker's number for the GPUs that only update."""

Span = tuple[int, str, float, float, float]
"""Worker or `TRAINERS`, part, begin and end in seconds, share of the rows that are alive (1 where there are none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """GPUs, and who does what on them."""

    gpus: int
    gpus_per_worker: int = 1
    """That sample together, and at most learn from one output together."""

    trainers: int = 0
    """GPUs that only update; 0: all sample, then all update."""

    staleness: int = 0
    """Rollouts that may be begun beyond the one that is learned from: outputs begun <= (updates done + 1 + staleness)
    * outputs of a rollout (the bound of AReaL, arXiv 2505.24298).  0 is synchronous.  Above it a rollout is what is
    whole first, and longer outputs are carried over."""

    chunk: int = 1
    """Rows that a worker begins at a time; it waits until so many are free."""

    slow_chance: float = 0.0
    """That a worker is slow, from one update to the next."""

    slow_factor: float = 1.0
    """How many times as long a slow worker takes for tokens and updates."""

    def __post_init__(self):
        for name in ("gpus", "gpus_per_worker", "chunk", "slow_factor"):
            if not getattr(self, name) >= 1:
                raise Refusal(f"{name} is {getattr(self, name)!r}: at least 1")
        for name in ("gpus", "trainers"):
            if getattr(self, name) % self.gpus_per_worker:
                raise Refusal(f"{name} is {getattr(self, name)}: choose a multiple of {self.gpus_per_worker} a worker")
        if not 0 <= self.trainers < self.gpus:
            raise Refusal(f"trainers is {self.trainers} of {self.gpus} GPUs: leave one worker at least that samples")
        if self.staleness < 0 or self.staleness and not self.trainers:
            raise Refusal(
                f"staleness is {self.staleness} with {self.trainers} trainers: asynchronous runs need GPUs that only "
                "update, synchronous ones have staleness 0"
            )
        if not 0 <= self.slow_chance <= 1:
            raise Refusal(f"slow_chance is {self.slow_chance}: a chance lies between 0 and 1")

    @property
    def samplers(self) -> int:
        """Workers that sample."""
        return (self.gpus - self.trainers) // self.gpus_per_worker


def balanced(gpus: int, gpus_per_worker: int, costs: Costs) -> int:
    """GPUs to be trainers so that sampling with full batches keeps step with the updates: whole workers, one at least.

    >>> balanced(16, 2, Costs(token_s=[0, 1.0], train_s=2 / 3))  # 2 GPU-seconds to sample a token, 2/3 to learn from it
    4
    """
    sampling_s = costs.full_s * gpus_per_worker
    workers = gpus // gpus_per_worker * costs.train_s / (costs.train_s + sampling_s)
    return gpus_per_worker * min(max(1, round(workers)), gpus // gpus_per_worker - 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    gpus: int
    wall_s: float
    spent: Mapping[str, float]
    """Part -> GPU-seconds; they add up to all there are."""

    ends_s: tuple[float, ...]
    """When the workers had the weights of each rollout, from where counting began."""

    stale: float = 0.0
    """Updates between the beginning of an output and the one that learns from it, mean."""

    spans: Sequence[Span] = ()

    @property
    def utilisation(self) -> float:
        """Useful GPU-seconds of all GPU-seconds."""
        return (self.spent["sampling"] + self.spent["update"]) / (self.gpus * self.wall_s)

    def share(self, part: str) -> float:
        return self.spent[part] / (self.gpus * self.wall_s)


def timeline(
    fleet: Fleet,
    costs: Costs,
    lengths: Lengths,
    *,
    outputs: int,
    steps: int = 1,
    rollouts: int = 1,
    warm: int = 0,
    seed: int = 0,
    trace: bool = False,
) -> Outcome:
    """Some rollouts without failures.  The same arguments give the same outcome.

    Args:
        outputs: of a rollout.
        steps: of a rollout; its outputs are split among them.
        warm: rollouts before counting begins: an asynchronous run starts with empty hands.
        trace: keep what each worker did when, for a figure.

    >>> from r1repro.engine.workload import Measured
    >>> constant = Measured((100,))
    >>> done = timeline(Fleet(gpus=4), Costs(token_s=[0, 0.01, 0.01], train_s=0.002), constant, outputs=8)
    >>> round(done.wall_s, 6), round(done.utilisation, 6)  # 100 tokens, then 800 tokens by 4 GPUs
    (1.4, 1.0)
    """
    if outputs < 1 or rollouts < 1 or not 1 <= steps <= outputs:
        raise Refusal(f"{outputs} outputs, {steps} steps, {rollouts} rollouts: at least 1 each, and an output a step")
    run = _Run(fleet, costs, lengths, outputs, steps, seed, trace)
    run.until(warm)
    before_s, before = run.now_s, dict(run.spent)
    run.until(warm + rollouts)
    return Outcome(
        gpus=fleet.gpus,
        wall_s=run.now_s - before_s,
        spent={part: run.spent[part] - before[part] for part in PARTS},
        ends_s=tuple(end - before_s for end in run.ends_s[warm:]),
        stale=float(np.mean(run.stale[warm : warm + rollouts])),
        spans=run.spans,
    )


@dataclass(slots=True)
class _Worker:
    rows: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Heap of the rows alive: at how many of the worker's tokens it ends, number, length, updates done at its begin."""

    tokens: float = 0.0
    """That a row would have which had been alive all the time."""

    at_s: float = 0.0
    """Until when its GPU-seconds are counted; later than now while weights are on their way."""

    stall_s: float = 0.0
    """Seconds of prompts still to be read."""

    slow: float = 1.0
    stamp: int = 0
    """Of its newest event; older ones are void."""


class _Run:
    """The state of a timeline.  `until` takes events in the order of time: a row ends, or a phase of the trainers."""

    def __init__(self, fleet: Fleet, costs: Costs, lengths: Lengths, outputs: int, steps: int, seed: int, trace: bool):
        self.fleet, self.costs, self.lengths = fleet, costs, lengths
        self.outputs, self.steps, self.seed, self.trace = outputs, steps, seed, trace
        self.full_s, self.spent, self.spans = costs.full_s, dict.fromkeys(PARTS, 0.0), []
        self.now_s = self.trainers_at_s = 0.0
        self.updates = self.begun = self.pushed = 0
        self.events: list[tuple[float, int, int, int]] = []  # when, in which order of those, whose, stamp
        self.whole: list[tuple[int, int, int]] = []  # number, length, updates done at its begin
        self.phase, self.phases = "", []  # no phase: the trainers wait for outputs
        self.ends_s, self.stale, self.drawn = [], [], {}
        self.workers = [_Worker() for _ in range(fleet.samplers)]
        self._slow_down()
        self._begin(range(len(self.workers)))

    def until(self, updates: int) -> None:
        while self.updates < updates:
            time_s, _, who, stamp = heapq.heappop(self.events)
            if who != TRAINERS and stamp != self.workers[who].stamp:
                continue
            self.now_s = time_s
            if who == TRAINERS:
                self._next_phase()
            else:
                self._end_rows(who)
            if not self.phase and len(self.whole) >= self.outputs:
                self._learn()

    # Sampling

    def _begin(self, workers: Sequence[int]) -> None:
        """Begin outputs, the emptiest worker first, as far as the bound on staleness and the rows allow."""
        room = (self.updates + 1 + self.fleet.staleness) * self.outputs - self.begun
        emptiest = [(len(self.workers[i].rows), i) for i in workers]
        heapq.heapify(emptiest)
        while room:
            alive, i = emptiest[0]
            chunk = min(self.fleet.chunk, self.costs.rows, room)
            if alive + chunk > self.costs.rows:
                break
            worker = self.workers[i]
            for number in range(self.begun, self.begun + chunk):
                length = self._length(number)
                heapq.heappush(worker.rows, (worker.tokens + length, number, length, self.updates))
            worker.stall_s += chunk * self.costs.prompt_s
            self.begun, room = self.begun + chunk, room - chunk
            heapq.heapreplace(emptiest, (alive + chunk, i))
        for i in workers:
            self._expect(i)

    def _length(self, number: int) -> int:
        """Of an output: a function of the seed and its number alone."""
        block, place = divmod(number, self.outputs)
        if block not in self.drawn:
            self.drawn[block] = self.lengths.draw(np.random.default_rng([self.seed, 0, block]), self.outputs).tolist()
        return self.drawn[block][place]

    def _expect(self, i: int) -> None:
        """Put the end of a worker's next row among the events, in the place of what was expected before."""
        worker = self.workers[i]
        worker.stamp += 1
        if worker.rows:
            left = (worker.rows[0][0] - worker.tokens) * self.costs.token_s[len(worker.rows)] * worker.slow
            self._push(worker.at_s + worker.stall_s + left, i, worker.stamp)

    def _push(self, time_s: float, who: int, stamp: int = 0) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (time_s, self.pushed, who, stamp))

    def _end_rows(self, i: int) -> None:
        worker = self.workers[i]
        self._pass(i)
        worker.tokens = worker.rows[0][0]
        while worker.rows and worker.rows[0][0] <= worker.tokens:
            self.whole.append(heapq.heappop(worker.rows)[1:])
        self._begin([i])

    def _pass(self, i: int) -> None:
        """Bring a worker to the present, and count what its GPUs did since."""
        worker = self.workers[i]
        seconds, alive = self.now_s - worker.at_s, len(worker.rows)
        if seconds <= 0:
            return
        if not alive:
            part = self.phase or "tail"
            self._count(i, part if not self.fleet.trainers or part == "tail" else "idle", worker.at_s, self.now_s)
        else:
            read_s = min(seconds, worker.stall_s)
            worker.stall_s -= read_s
            made = (seconds - read_s) / (self.costs.token_s[alive] * worker.slow)
            worker.tokens += made
            useful_s = read_s + made * alive * self.full_s
            self._count(i, "sampling", worker.at_s, self.now_s, alive / self.costs.rows)
            thin = (seconds - useful_s) * self.fleet.gpus_per_worker
            self.spent["sampling"] -= thin
            self.spent["thin"] += thin
        worker.at_s = self.now_s

    def _count(self, who: int, part: str, begin_s: float, end_s: float, alive: float = 1.0) -> None:
        gpus = self.fleet.trainers if who == TRAINERS else self.fleet.gpus_per_worker
        self.spent[part] += gpus * (end_s - begin_s)
        if self.trace and gpus and end_s > begin_s:
            self.spans.append((who, part, begin_s, end_s, alive))

    # Learning

    def _learn(self) -> None:
        """Take what is whole first, and go through the phases of a rollout."""
        taken, self.whole = sorted(self.whole[: self.outputs]), self.whole[self.outputs :]
        self.stale.append(np.mean([self.updates - begun for _, _, begun in taken]))
        work_s, whole_s = update_s([length for _, length, _ in taken], self.steps, self.fleet, self.costs)
        slack_s = whole_s * self.slowest - work_s
        self.phases = [
            ("sync", self.costs.sync_s), ("slack", slack_s), ("update", work_s), ("reward", self.costs.reward_s)
        ]  # fmt: skip
        self._next_phase()

    def _next_phase(self) -> None:
        everyone = range(len(self.workers))
        for i in everyone:
            self._pass(i)
        self._count(TRAINERS, self.phase or "idle", self.trainers_at_s, self.now_s)
        self.trainers_at_s = self.now_s
        if self.phase == "sync":
            self.updates += 1
            self.ends_s.append(self.now_s)
            self._slow_down()
        self.phase, seconds = self.phases.pop() if self.phases else ("", 0.0)
        if self.phase:
            self._push(self.now_s + seconds, TRAINERS)
        if self.phase == "sync":
            for i in everyone:
                self._count(i, "sync", self.now_s, self.now_s + seconds)
                self.workers[i].at_s = self.now_s + seconds
                self._expect(i)
        elif not self.phase:
            self._begin(everyone)

    def _slow_down(self) -> None:
        """Draw anew which workers are slow; those of the update wait for the slowest of them."""
        count = self.fleet.gpus // self.fleet.gpus_per_worker
        drawn = np.random.default_rng([self.seed, 1, self.updates]).random(count)
        factors = np.where(drawn < self.fleet.slow_chance, self.fleet.slow_factor, 1.0).tolist()
        for worker, factor in zip(self.workers, factors, strict=False):
            worker.slow = factor
        self.slowest = max(factors[len(self.workers) :] or factors)


def update_s(lengths: Sequence[int], steps: int, fleet: Fleet, costs: Costs) -> tuple[float, float]:
    """Seconds of a rollout's update: if all tokens were spread evenly, and with what keeps them from it.

    A step is not over before its longest output is, which a worker's GPUs learn from and no others.

    >>> update_s([1, 1, 1, 5], 1, Fleet(gpus=4), Costs(token_s=[0, 1], train_s=1.0, step_s=0.5))
    (2.0, 5.5)
    """
    of_steps = np.array_split(np.asarray(lengths), steps)
    spread_s = [costs.train_s * float(part.sum()) / (fleet.trainers or fleet.gpus) for part in of_steps]
    longest_s = [costs.train_s * float(part.max()) / fleet.gpus_per_worker for part in of_steps]
    return sum(spread_s), sum(map(max, spread_s, longest_s)) + steps * costs.step_s
