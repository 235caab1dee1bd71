"""The model of a fleet: worked by hand, against closed forms, by its properties, and against what was measured here."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fleet as bench_fleet
from r1repro.engine import failures, fleet, plan, workload
from r1repro.engine.failures import Hazards, survived
from r1repro.engine.fleet import PARTS, Fleet, timeline
from r1repro.engine.shapes import shape
from r1repro.engine.workload import Costs, LogNormal, Measured
from r1repro.records import Refusal
from r1repro.run import read_json

CONSTANT = Measured((100,))
COSTS = Costs(token_s=[0, 0.015, 0.02], reward_s=0.5, train_s=0.01, step_s=0.25, sync_s=0.3)


@dataclass(frozen=True)
class InTurn:
    """Lengths that come in this order in every rollout."""

    lengths: tuple[int, ...]

    def draw(self, rng, count):
        return np.array(self.lengths)[np.arange(count) % len(self.lengths)]


@dataclass(frozen=True)
class Exponential:
    mean: float

    def draw(self, rng, count):
        return np.ceil(rng.exponential(self.mean, count)).astype(int)


# --- by hand


def test_constant_lengths_by_hand():
    """Full batches: 100 tokens at 0.02 s, 0.5 s of rewards, 800 tokens learned from by 4 GPUs, 2 steps, 0.3 s."""
    done = timeline(Fleet(gpus=4), COSTS, CONSTANT, outputs=8, steps=2, rollouts=3)
    assert done.ends_s == pytest.approx([5.3, 10.6, 15.9])
    assert done.utilisation == pytest.approx((2.0 + 2.0) / 5.3)
    by_hand = {"sampling": 2.0, "update": 2.0, "reward": 0.5, "slack": 0.5, "sync": 0.3}
    assert {part: done.spent[part] / 12 for part in PARTS} == pytest.approx(dict.fromkeys(PARTS, 0.0) | by_hand)


def test_half_empty_workers_are_thin_by_hand():
    """One row of two: 1.5 s in the place of the 1.0 s that 100 tokens take of a full batch."""
    done = timeline(Fleet(gpus=4), replace(COSTS, train_s=0.0), CONSTANT, outputs=4, steps=1)
    assert done.wall_s == pytest.approx(1.5 + 0.5 + 0.25 + 0.3)
    assert (done.spent["sampling"], done.spent["thin"]) == pytest.approx((4 * 1.0, 4 * 0.5))


def test_one_long_output_keeps_all_others_waiting():
    """Two workers of one row; lengths 10 and 30: the first waits for 20 tokens, and the update for none."""
    done = timeline(Fleet(gpus=2), Costs(token_s=[0, 1.0]), InTurn((10, 30)), outputs=2, rollouts=2)
    assert done.wall_s == 60 and done.spent["tail"] == 40 and done.utilisation == pytest.approx(80 / 120)


def test_a_free_row_takes_the_next_output():
    """Two rows, lengths 1, 4, 2, 1 at one second a token whatever is alive: 1 + 2 + 1 beside 4."""
    costs = Costs(token_s=[0, 1.0, 1.0])
    assert timeline(Fleet(gpus=1), costs, InTurn((1, 4, 2, 1)), outputs=4).wall_s == 4
    in_pairs = timeline(Fleet(gpus=1, chunk=2), costs, InTurn((1, 4, 2, 1)), outputs=4)
    assert in_pairs.wall_s == 4 + 2  # both rows must be free


def test_prompts_stop_all_rows_of_a_worker():
    costs = Costs(token_s=[0, 1.0, 1.0], prompt_s=0.5)
    done = timeline(Fleet(gpus=1), costs, InTurn((2, 4, 1)), outputs=3)
    assert done.wall_s == pytest.approx(2 * 0.5 + 2 + 0.5 + 2) and sum(done.spent.values()) == pytest.approx(
        done.wall_s
    )


def test_an_update_waits_for_the_longest_output_of_each_step():
    lengths, costs = [1, 1, 1, 5, 2, 2, 2, 2], Costs(token_s=[0, 1.0], train_s=1.0)
    assert fleet.update_s(lengths, 2, Fleet(gpus=4), costs) == (4.0, 5.0 + 2.0)
    assert fleet.update_s(lengths, 2, Fleet(gpus=4, gpus_per_worker=4), costs) == (4.0, 4.0)


def test_synchronous_and_partially_asynchronous_by_hand():
    """Four samplers take 10 s a rollout, four trainers 4 s: one after the other 14 s, side by side 10 s."""
    costs = Costs(token_s=[0, 0.1], train_s=0.04)
    apart = timeline(Fleet(gpus=8, trainers=4), costs, CONSTANT, outputs=4, rollouts=3)
    beside = timeline(Fleet(gpus=8, trainers=4, staleness=1), costs, CONSTANT, outputs=4, rollouts=3, warm=1)
    assert apart.wall_s == pytest.approx(42) and beside.wall_s == pytest.approx(30)
    assert apart.stale == 0 and beside.stale == 1
    assert beside.utilisation == pytest.approx((4 * 10 + 4 * 4) / 80) and beside.spent["idle"] == pytest.approx(4 * 18)


def test_a_long_output_is_carried_over():
    """Every fourth output takes 10 times as long: with a bound of 3 no rollout waits for its own."""
    costs, lengths = Costs(token_s=[0, *[1.0] * 16]), InTurn((10, 10, 10, 100))
    together = timeline(Fleet(gpus=1), costs, lengths, outputs=4, rollouts=4)
    carried = timeline(Fleet(gpus=2, trainers=1, staleness=3), costs, lengths, outputs=4, rollouts=4, warm=8)
    assert together.wall_s == 400 and carried.wall_s < 150


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_no_more_is_begun_than_the_bound_on_staleness_allows(staleness):
    allowed = Fleet(gpus=4, trainers=1, staleness=staleness)
    run = fleet._Run(allowed, Costs(token_s=[0, *[1.0] * 99]), Exponential(50), 6, 1, 0, False)
    for updates in range(1, 5):
        run.until(updates)
        assert run.begun == (updates + 1 + staleness) * 6  # there are rows for all


# --- closed forms


@pytest.mark.parametrize("workers", [1, 4, 32])
def test_the_barrier_is_the_mean_of_the_longest_of_n_draws(workers):
    """Of exponential lengths it is the mean times 1 + 1/2 + ... + 1/n."""
    lengths, rollouts = Exponential(1e5), 400
    done = timeline(Fleet(gpus=workers), Costs(token_s=[0, 1.0]), lengths, outputs=workers, rollouts=rollouts)
    harmonic = sum(1 / n for n in range(1, workers + 1))
    assert done.wall_s / rollouts == pytest.approx(1e5 * harmonic, rel=0.08)
    assert done.utilisation == pytest.approx(1 / harmonic, rel=0.08)


@pytest.mark.parametrize("trainers", [0, 8])
def test_one_slow_worker_slows_all(trainers):
    """It is there with chance 1 - (1 - p)^n; then a rollout takes as many times as long as that worker."""
    slow = Fleet(gpus=16 + trainers, trainers=trainers, slow_chance=0.05, slow_factor=3.0)
    costs, rollouts = Costs(token_s=[0, 0.01], train_s=0.01 * max(1, trainers) / 16), 1000
    each = np.diff([0.0, *timeline(slow, costs, CONSTANT, outputs=16, rollouts=rollouts).ends_s])
    chance, update_s = 1 - 0.95**16, 100 * 0.01 * 16 * max(1, trainers) / 16 / (trainers or 16)
    late = 1 - 0.95**trainers if trainers else chance
    mean_s = 1.0 * (1 + 2 * chance) + update_s * (1 + 2 * late)
    assert each.mean() == pytest.approx(mean_s, abs=4 * each.std() / math.sqrt(rollouts))
    assert each.min() == pytest.approx(1.0 + update_s) and each.max() == pytest.approx(3 * (1.0 + update_s))


def an_hour(gpus=64):
    """A run of rollouts of a minute each, without anything else."""
    spent = dict.fromkeys(PARTS, 0.0) | {"sampling": gpus * 3600.0}
    return fleet.Outcome(gpus, 3600.0, spent, tuple(60.0 * n for n in range(1, 61)))


def test_failures_cost_what_the_closed_form_says():
    """Work of 20 minutes and a checkpoint, anew after each failure; a failure an hour and a half."""
    hazards = Hazards(gpu_mtbf_s=64 * 5400.0, restart_s=300.0, checkpoint_s=30.0, every=20)
    done = survived(an_hour(), hazards, repeats=1000)
    wanted_s = 3000 * failures.expected_s(20 * 60 + 30, 300.0, 5400.0)
    assert done.wall_s == pytest.approx(wanted_s, rel=0.01)
    assert sum(done.spent.values()) == pytest.approx(64 * done.wall_s)
    assert done.spent["restart"] / (64 * 300) == pytest.approx(
        (done.wall_s - done.spent["restart"] / 64) / 5400, rel=0.06
    )


def test_what_is_kept_is_what_would_have_been_without_failures():
    run = timeline(Fleet(gpus=8), COSTS, Exponential(50), outputs=32, rollouts=5)
    done = survived(run, Hazards(gpu_mtbf_s=8 * 20.0, restart_s=3.0, checkpoint_s=1.0), repeats=4)
    assert {p: done.spent[p] for p in PARTS if p not in ("lost", "restart", "checkpoint")} == pytest.approx(
        {p: 4 * run.spent[p] for p in PARTS if p not in ("lost", "restart", "checkpoint")}
    )
    assert done.spent["checkpoint"] == 8 * 20 and done.spent["lost"] > 0 and done.utilisation < run.utilisation
    assert len(done.ends_s) == 20 and list(done.ends_s) == sorted(done.ends_s)


def test_the_best_interval_is_youngs():
    """A checkpoint of half a minute, a failure in four hours: sqrt(2 * 0.5 * 240), or 15.5 rollouts of a minute."""
    walls = {}
    for every in (2, 4, 8, 12, 15, 20, 30, 60, 120):
        hazards = Hazards(gpu_mtbf_s=64 * 14_400.0, restart_s=0.0, checkpoint_s=30.0, every=every)
        walls[every] = survived(an_hour(), hazards, repeats=2000).wall_s
    best = failures.young_s(30.0, 14_400.0) / 60
    assert best == pytest.approx(15.49, abs=0.01)
    assert 12 <= min(walls, key=walls.get) <= 20
    assert walls[15] < 1.002 * min(walls.values()) and walls[60] > 1.03 * walls[15] and walls[2] > 1.1 * walls[15]


@pytest.mark.parametrize(("mtbf_min", "printed"), [(24 * 60, 117), (6 * 60, 57), (15, 9.1)])
def test_dalys_own_figures(mtbf_min, printed):
    """Figures 3 to 5 of the paper: a checkpoint of five minutes."""
    assert failures.daly_s(5 * 60, mtbf_min * 60) / 60 == pytest.approx(printed, abs=0.5 if printed > 10 else 0.05)
    assert failures.daly_s(600, 60) == 60


def test_a_gpu_fails_once_in_five_years():
    """466 interruptions in 54 days on 16,384 GPUs are one in 2.8 hours."""
    assert failures.GPU_MTBF_S / 16_384 / 3600 == pytest.approx(2.78, abs=0.01)


# --- properties

fleets = st.builds(
    lambda workers, each, trainers, staleness, chunk, slow: Fleet(
        gpus=(workers + trainers) * each, gpus_per_worker=each, trainers=trainers * each,
        staleness=staleness if trainers else 0, chunk=chunk, slow_chance=slow, slow_factor=2.5,
    ),
    st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4),
    st.sampled_from([0.0, 0.3]),
)  # fmt: skip
rows = st.integers(1, 6).map(lambda n: [0.0, *(1.0 + 0.2 * i for i in range(n))])
costs = st.builds(
    lambda token_s, prompt_s, train_s, other_s: Costs(
        token_s=token_s, prompt_s=prompt_s, reward_s=other_s, train_s=train_s, step_s=other_s, sync_s=2 * other_s
    ),
    rows, st.sampled_from([0.0, 0.7]), st.sampled_from([0.0, 0.1, 2.0]), st.sampled_from([0.0, 1.3]),
)  # fmt: skip


@settings(max_examples=60)
@given(fleets, costs, st.integers(1, 12), st.integers(0, 2), st.integers(0, 99))
def test_every_gpu_second_is_somewhere(some, dear, outputs, warm, seed):
    how = dict(outputs=outputs, steps=1 + outputs // 5, rollouts=3, warm=warm, seed=seed)
    done = timeline(some, dear, Exponential(20), **how)
    assert sum(done.spent.values()) == pytest.approx(some.gpus * done.wall_s)
    assert min(done.spent.values()) > -1e-6 * some.gpus * done.wall_s and 0 <= done.utilisation <= 1 + 1e-9
    assert done.ends_s[-1] == pytest.approx(done.wall_s) and len(done.ends_s) == 3
    assert some.staleness or done.stale == 0
    assert timeline(some, dear, Exponential(20), **how) == done


@settings(max_examples=40)
@given(rows, st.integers(1, 24), st.integers(1, 6), st.integers(0, 99))
def test_more_gpus_for_the_same_work_are_never_used_better(token_s, outputs, workers, seed):
    """Twice as many: the work of use is the same, and all else is not less.  (Seconds may be more, where a long output
    meets other company.)"""
    dear, how = (
        Costs(token_s=token_s, train_s=0.5, step_s=1.0, sync_s=1.0),
        dict(outputs=outputs, rollouts=2, seed=seed),
    )
    few, many = (timeline(Fleet(gpus=n), dear, Exponential(20), **how) for n in (workers, 2 * workers))
    for part in ("sampling", "update"):
        assert few.spent[part] == pytest.approx(many.spent[part])
    assert many.utilisation <= few.utilisation * (1 + 1e-9)


def test_the_parts_of_a_trace_fill_each_lane():
    some = Fleet(gpus=6, gpus_per_worker=2, trainers=2, staleness=1)
    done = timeline(some, COSTS, Exponential(50), outputs=6, rollouts=3, trace=True)
    for lane in (fleet.TRAINERS, 0, 1):
        spans = sorted((begin, end) for who, _, begin, end, _ in done.spans if who == lane)
        assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(done.wall_s)
        assert [begin for begin, _ in spans[1:]] == pytest.approx([end for _, end in spans[:-1]])
    assert {alive for _, part, _, _, alive in done.spans if part == "sampling"} <= {0.5, 1.0}


# --- what a fleet is given


def test_lengths_are_fitted_and_cut():
    true = LogNormal.of_mean(8000, 0.8, cap=20_000)
    drawn = true.draw(np.random.default_rng(0), 50_000)
    assert drawn.max() == 20_000 and 0.02 < (drawn == 20_000).mean() < 0.08
    again = LogNormal.fitted(LogNormal.of_mean(8000, 0.8).draw(np.random.default_rng(1), 50_000))
    assert again.mean == pytest.approx(8000, rel=0.02) and again.log_sd == pytest.approx(0.8, rel=0.02)
    assert set(Measured((3, 5)).draw(np.random.default_rng(0), 50).tolist()) == {3, 5}
    assert LogNormal.of_mean(0.1, 0.5).draw(np.random.default_rng(0), 9).min() == 1


def test_costs_of_a_model_by_hand():
    """A token of one row reads all weights; a token learned from takes ten operations a weight, the reference's two."""
    seven, rates = shape("qwen-7b"), plan.Rates(flop=1e-14, traffic=1e-12, calls=0.0)
    one = workload.costs_of(seven, rates, gpus_per_worker=1, rows=64, mean_tokens=1000)
    read_s = 2 * seven.parameters * 1e-12
    assert one.rows == 64 and one.token_s[1] == pytest.approx(read_s, rel=0.05)
    assert one.token_s[64] - one.token_s[63] == pytest.approx(one.token_s[2] - one.token_s[1])
    assert one.train_s == pytest.approx(10 * (seven.linear + seven.head) * 1e-14, rel=0.15)
    four = workload.costs_of(seven, rates, gpus_per_worker=4, rows=64, mean_tokens=1000)
    assert four.token_s[64] == pytest.approx(one.token_s[64] / 4)
    calls = workload.costs_of(seven, plan.Rates(0, 0, 1.0), gpus_per_worker=4, rows=1, mean_tokens=1000)
    assert calls.token_s[1] == pytest.approx((plan.CALLS + 20) * seven.layers + plan.STEP_CALLS, rel=0.01)


def test_rows_that_fit_by_hand():
    """7B in half precision is 15.2 GB; a token's keys and values of 28 layers, 4 heads of 128, are 57 KB."""
    seven = shape("qwen-7b")
    found = workload.rows_that_fit(seven, 80e9, 1, 8000, 0.9)
    assert found == int((72e9 - 2 * seven.parameters) / (2 * 2 * 28 * 512 * 8000))
    with pytest.raises(Refusal, match="take more GPUs a worker"):
        workload.rows_that_fit(shape("llama-70b"), 80e9, 1, 8000, 0.9)


def test_trainers_that_keep_step():
    some = Costs(token_s=[0, 0.1, 0.1], train_s=0.05)  # 0.05 GPU-seconds to sample a token, as many to learn from it
    assert fleet.balanced(64, 1, some) == 32 and fleet.balanced(2, 1, replace(some, train_s=9.0)) == 1
    done = [
        timeline(Fleet(gpus=16, trainers=n, staleness=1), some, CONSTANT, outputs=32, rollouts=4, warm=2)
        for n in (4, 8, 12)
    ]
    assert done[1].utilisation == pytest.approx(1.0) and max(done[0].utilisation, done[2].utilisation) < 0.7


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Fleet(gpus=0), "gpus is 0"),
        (lambda: Fleet(gpus=10, gpus_per_worker=4), "multiple of 4"),
        (lambda: Fleet(gpus=8, trainers=8), "leave one worker"),
        (lambda: Fleet(gpus=8, staleness=1), "staleness is 1 with 0 trainers"),
        (lambda: Fleet(gpus=8, slow_chance=2), "between 0 and 1"),
        (lambda: Costs(token_s=[0.0]), "after place 0"),
        (lambda: Costs(token_s=[0.0, 0.0]), "after place 0"),
        (lambda: Hazards(every=0), "a checkpoint every"),
        (lambda: timeline(Fleet(gpus=1), COSTS, CONSTANT, outputs=2, steps=3), "2 outputs, 3 steps"),
        (lambda: survived(an_hour(), Hazards(gpu_mtbf_s=64.0)), "the run gets nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(make, said):
    with pytest.raises(Refusal, match=said) as refusal:
        make()
    assert "\n" not in str(refusal.value)


# --- against what was measured here (`python -m bench.fleet`)


def test_a_rollout_is_foretold_from_its_lengths_and_the_gauge_alone():
    """A second a token whatever is alive: three rows take as long as the longest; two workers as the slower of them."""
    gauge = {"token_s": {"1": 1.0, "512": 1.0}, "prompt_s": 0.25}
    row = {"lengths": "1 2 3", "rows": 512, "workers": 1}
    assert bench_fleet.foretold(row, gauge) == pytest.approx(0.75 + 3)
    dealt = {"lengths": "1 9 2 3", "rows": 512, "workers": 2}  # 1 and 2 to the one, 9 and 3 to the other
    assert bench_fleet.foretold(dealt, gauge) == pytest.approx(0.5 + 9)
    in_cohorts = {"lengths": " ".join(["1"] * 47 + ["4"]), "rows": 32, "workers": 1}  # of 16; as the sampler's queue
    assert bench_fleet.foretold(in_cohorts, gauge) == pytest.approx(48 * 0.25 + 1 + 4)
    run = {"lengths": "1 2 3", "laps": {"reward_s": 1.0, "log_s": 0.5, "reference_s": 2.0, "update_s": 10.0}}
    fit = bench_fleet.fitted([run])
    assert fit == {"reward_s": 1.5, "train_s": 2.0}
    assert bench_fleet.foretold_whole(run, gauge, fit) == pytest.approx(0.75 + 3 + 1.5 + 12)


def test_what_the_file_foretells_follows_from_what_it_measured():
    found = read_json(bench_fleet.FILE)
    again = bench_fleet.judged(found)
    told, anew = ([row.get("foretold_s") for row in x["rollouts"] + x["run"]] for x in (found, again))
    assert [t is None for t in told] == [t is None for t in anew] and told.count(None) == bench_fleet.FITTED
    assert [t for t in anew if t] == pytest.approx([t for t in told if t])
    assert again["missed"] == pytest.approx(found["missed"]) and again["worst"] == pytest.approx(found["worst"])
    assert "dirty" not in found["commit"] and found["threads"] == 1
    sizes = [len(bench_fleet.lengths_of(row)) for row in found["rollouts"]]
    assert max(sizes) >= 64 * min(sizes)


def test_what_is_foretold_was_not_fitted():
    """Other seconds of what is foretold change nothing but the errors."""
    found = read_json(bench_fleet.FILE)
    late = [
        row | {"seconds": 9.9, "laps": {key: 9.9 for key in row["laps"]}} for row in found["run"][bench_fleet.FITTED :]
    ]
    rollouts = [row | {"seconds": 9.9} for row in found["rollouts"]]
    other = found | {"rollouts": rollouts, "run": found["run"][: bench_fleet.FITTED] + late}
    told, anew = (bench_fleet.judged(x) for x in (found, other))
    for key in ("rollouts", "run"):
        assert [row.get("foretold_s") for row in told[key]] == [row.get("foretold_s") for row in anew[key]]
    assert told["fit"] == anew["fit"] and told["worst"] != anew["worst"]
