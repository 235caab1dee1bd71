"""Win rates: every fit is made a second time in another way, and the published numbers come out where the data lies."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1repro.evals import judge, judging, preference, win_rates
from r1repro.evals.benchmark import Item
from r1repro.evals.win_rates import Battle, Coefficients
from r1repro.records import Refusal

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))


def comparisons(num=400, true=(-1.5, 1.0, -0.7), seed=0, gamed=0):
    """Lengths, difficulties, model flags, preferences and weights of made-up comparisons."""
    random = np.random.default_rng(seed)
    x_NP = np.stack([np.tanh(random.normal(size=num)), random.normal(size=num) * 1.5, np.ones(num)], 1)
    x_NP[:gamed, 2] = 0.0
    p_N = win_rates.sigmoid(x_NP @ np.array(true))
    certain_N = (random.random(num) < p_N).astype(float)
    return win_rates.Comparisons(x_NP, 0.9 * certain_N + 0.1 * p_N, np.where(np.arange(num) < gamed, 0.1, 1.0))


# --- the regression


@pytest.mark.parametrize("strength", [0.001, 0.01, 0.1, 1.0, 100.0, 10_000.0])
def test_the_penalised_fit_is_where_no_slope_is_left(strength):
    """By another package's derivatives: the slope equals the penalty's where a coefficient is, and is below it else."""
    x_NP, y_N, w_N = comparisons()
    beta_P = torch.tensor(win_rates.l1_logistic(x_NP, y_N, w_N, strength), requires_grad=True)
    logits = torch.tensor(x_NP) @ beta_P
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor(y_N), torch.tensor(w_N), reduction="sum"
    )
    (strength * loss).backward()
    slope_P, sign_P = beta_P.grad.numpy(), np.sign(beta_P.detach().numpy())
    loose = 1e-3 * max(1.0, strength)
    assert np.all(np.where(sign_P == 0, np.abs(slope_P) <= 1 + loose, np.abs(slope_P + sign_P) <= loose))
    if strength == 0.001:
        assert (sign_P == 0).any(), "a strong penalty leaves something out"


def test_the_regression_finds_what_the_comparisons_were_made_from():
    for gamed in (0, 3000):
        seen = comparisons(num=6000, seed=1, gamed=gamed)
        found = win_rates.regression(seen, win_rates.chosen_strength(seen))
        assert np.abs(np.array(found) - [-1.5, 1.0, -0.7]).max() < 0.2


def test_a_share_is_worth_its_two_halves():
    """A preference of 0.7 is 0.7 of a game won and 0.3 of a game lost, as the makers' tool writes it out."""
    x_NP, y_N, w_N = comparisons(num=100)
    twice = win_rates.l1_logistic(
        np.vstack([x_NP, x_NP]), np.append(np.ones(100), np.zeros(100)), np.append(w_N * y_N, w_N * (1 - y_N)), 1.0
    )
    assert twice == pytest.approx(win_rates.l1_logistic(x_NP, y_N, w_N, 1.0), abs=1e-5)


def test_lengths_are_standardised_with_n_less_one():
    baseline, model = [10, 20, 30, 45], [12, 10, 30, 5]
    delta = [-2, 10, 0, 40]
    std = (sum((d - 12) ** 2 for d in delta) / 3) ** 0.5
    assert win_rates.length_term(baseline, model) == pytest.approx(np.tanh(np.array(delta) / std))
    assert list(win_rates.length_term([5, 6], [1, 2])) == [0.0, 0.0] and list(win_rates.length_term([5], [1])) == [0.0]


def test_at_equal_length_the_length_term_is_gone():
    difficulty = np.array([-1.0, 0.0, 2.0])
    one, other = Coefficients(-5.0, 0.5, -1.0), Coefficients(9.0, 0.5, -1.0)
    by_hand = np.mean([1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(1.0)), 1 / (1 + np.exp(0.0))])
    assert win_rates.at_equal_length(one, difficulty) == win_rates.at_equal_length(other, difficulty)
    assert win_rates.at_equal_length(one, difficulty) == pytest.approx(by_hand)
    shares = np.array([0.5, 0.5, 0.0])
    assert win_rates.at_equal_length(one, difficulty, shares) == pytest.approx(
        (1 / (1 + np.exp(1.5)) + 1 / (1 + np.exp(1))) / 2
    )


def test_the_distribution_of_difficulties_is_found_from_win_rates():
    """Of 805 instructions that nobody tells, from 60 models' coefficients: the win rates of 40 others come out."""
    random = np.random.default_rng(3)
    hidden = np.append(random.normal(-1, 0.7, size=500), random.gamma(2.0, 1.0, size=305))
    models = [Coefficients(0.0, random.uniform(0.3, 1.4), random.normal(-1.5, 1.5)) for _ in range(100)]
    rates = [win_rates.at_equal_length(one, hidden) for one in models]
    grid, shares = win_rates.difficulties(models[:60], rates[:60])
    assert shares.sum() == pytest.approx(1) and shares.min() >= 0
    found = [win_rates.at_equal_length(one, grid, shares) for one in models[60:]]
    assert np.abs(np.array(found) - rates[60:]).max() < 0.001


def test_non_negative_least_squares_by_its_conditions():
    random = np.random.default_rng(0)
    for seed in range(20):
        a, b = random.normal(size=(12, 7)), random.normal(size=12)
        x = win_rates.non_negative(a, b)
        slope = a.T @ (a @ x - b)
        assert x.min() >= 0 and np.abs(slope[x > 0]).max(initial=0) < 1e-8 and slope[x == 0].min(initial=0) > -1e-8, (
            seed
        )


# --- the path from files to the number


def alpaca(tmp_path, num=300, **files):
    """A folder with made-up data, its items and rows of verdicts; and the same as arrays."""
    random = np.random.default_rng(5)
    difficulty = random.normal(size=num)
    items = [
        Item(id=str(n), prompt="?", gold="b" * int(random.integers(50, 200)), more={"question": f"{n}", "index": n})
        for n in range(num)
    ]
    lengths = random.integers(20, 200, size=num)
    term = win_rates.length_term([len(item.gold) for item in items], lengths)
    p = win_rates.sigmoid(-1.5 * term + 0.8 * difficulty - 0.5)
    rows = [
        {"id": item.id, "preference": 1 + float(x), "length": int(length), "generator": "ours"}
        for item, x, length in zip(items, (random.random(num) < p) * 0.98 + 0.01, lengths, strict=True)
    ]
    table = [
        {"index": n % num, "preference": float(random.random()), "std_delta_len": float(random.normal()), "model": "g",
         "instruction_difficulty": float(difficulty[n % num]), "not_gamed_baseline": False}
        for n in range(2 * num)
    ]  # fmt: skip
    return items, rows, difficulty, term, table


def save(file, rows):
    with open(file, "w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_length_controlled_win_rate_by_a_second_computation(tmp_path):
    """Torch minimises the same sum, without a penalty, to which cross-validation comes close."""
    items, rows, difficulty, term, table = alpaca(tmp_path)
    save(tmp_path / "df_gamed.csv", table)
    found, interval, how = preference.length_controlled(tmp_path, items, rows[::-1])
    x = torch.tensor(np.stack([term, difficulty, np.ones(300)], 1))
    g = torch.tensor([[np.tanh(row["std_delta_len"]), row["instruction_difficulty"], 0.0] for row in table])
    y = torch.tensor([row["preference"] - 1 for row in rows])
    gy = torch.tensor([row["preference"] for row in table], dtype=torch.float64)
    beta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    fit = torch.optim.LBFGS([beta], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def closure():
        fit.zero_grad()
        loss = loss_of(x @ beta, y, reduction="sum") + 0.1 * loss_of(g.double() @ beta, gy, reduction="sum")
        loss.backward()
        return loss

    fit.step(closure)
    with torch.no_grad():
        second = float(torch.sigmoid(beta[2] + beta[1] * torch.tensor(difficulty)).mean())
    assert interval[0] < found < interval[1] and interval[1] - interval[0] < 0.15
    assert how == "fitted with df_gamed.csv" and found == pytest.approx(second, abs=0.002)
    raw = float(np.mean([row["preference"] - 1 for row in rows]))
    assert abs(found - raw) > 0.01, "the lengths had something to say"


def test_difficulties_alone_and_none(tmp_path):
    items, rows, _, _, table = alpaca(tmp_path)
    none, _, how = preference.length_controlled(tmp_path, items, rows)
    assert none is None and "df_gamed.csv" in how
    names = ("index", "instruction_difficulty")
    save(tmp_path / "instruction_difficulty.csv", [{name: row[name] for name in names} for row in table[:300]])
    found, interval, how = preference.length_controlled(tmp_path, items, rows)
    assert 0.2 < found < 0.6 and how == "fitted with instruction_difficulty.csv, without gamed baselines"
    save(tmp_path / "df_gamed.csv", table[:7])
    with pytest.raises(Refusal, match="knows no difficulty of instruction 7: take df_gamed.csv"):
        preference.length_controlled(tmp_path, items, rows)


# --- Bradley-Terry

battles = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1, 3])
    ),
    min_size=1,
    max_size=30,
).map(lambda found: [Battle(*one) for one in found if one[0] != one[1]])


def by_minorising(games, baseline, rounds=4000):
    """Zermelo's iteration for the same likelihood: another algorithm, on strengths themselves."""
    names = sorted({name for game in games for name in game[:2]} | {baseline})
    strength = dict.fromkeys(names, 1.0)
    won = dict.fromkeys(names, 0.0)
    for one in games:
        won[one.first] += one.won * one.weight
        won[one.second] += (1 - one.won) * one.weight
    for _ in range(rounds):
        for name in names:
            below = sum(one.weight / (strength[one.first] + strength[one.second]) for one in games if name in one[:2])
            strength[name] = won[name] / below if below else 1.0
        scale = strength[baseline]
        strength = {name: value / scale for name, value in strength.items()}
    return {name: float(np.log(value)) for name, value in strength.items()}


@given(battles)
def test_bradley_terry_by_a_second_computation(games):
    games += [Battle(x, y, 0.5) for x, y in ("ab", "bc", "ca")]  # nobody has won or lost all
    first, second = win_rates.bradley_terry(games, "a"), by_minorising(games, "a", rounds=300)
    assert first == pytest.approx(second, abs=1e-4)


def test_arena_hard_by_a_second_computation():
    """As the makers write it: games of weight 3 repeated, every game twice, a tie won once by each; base 10, 400."""
    random = np.random.default_rng(7)
    labels = random.choice(list(preference.LABELS)[:5], size=(500, 2), p=[0.15, 0.3, 0.1, 0.3, 0.15])
    rows = [{"games": list(pair)} for pair in labels]
    results = preference.arena_summary(Path(), [], rows)
    x, y = [], []
    for pair in labels:
        for label, model_is_a in zip(pair, (False, True), strict=True):
            better = "tie" if label == "A=B" else "model" if label.startswith("A") == model_is_a else "baseline"
            for _ in range(3 if ">>" in label else 1):
                x += [np.log(10.0), np.log(10.0)]
                y += [1.0, 0.0] if better == "tie" else [float(better == "model")] * 2
    rating = torch.zeros(1, dtype=torch.float64, requires_grad=True)  # in units of 400 points above the baseline
    fit = torch.optim.LBFGS([rating], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        fit.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(x) * rating, torch.tensor(y))
        loss.backward()
        return loss

    fit.step(closure)
    elo = 1000 + 400 * float(rating.detach())
    assert results["win_rate"] == pytest.approx(1 / (1 + 10 ** ((1000 - elo) / 400)), abs=1e-6)
    assert results["games"] == 1000 and results["interval"][0] < results["win_rate"] < results["interval"][1]
    share = np.array(y)[::2] / 2 + np.array(y)[1::2] / 2
    half = 1.96 * share.std() / len(share) ** 0.5
    low, high = results["interval_of_games"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert results["interval"][1] - results["interval"][0] > high - low, "two games of a question hang together"


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for seed in range(60):
        sample = random.random(80) < 0.3
        low, high = win_rates.bootstrap(lambda drawn, sample=sample: float(sample[drawn].mean()), 80, seed=seed)
        held += low <= 0.3 <= high
    assert held >= 50


def test_whoever_won_all_is_sure_to_win():
    assert win_rates.win_rate([Battle("m", "b", 1.0)] * 5, "m", "b") == pytest.approx(1.0, abs=1e-9)
    assert win_rates.win_rate([Battle("b", "m", 1.0)] * 5, "m", "b") == pytest.approx(0.0, abs=1e-9)
    assert win_rates.win_rate([], "m", "b") == 0.5


if DATA.is_dir():  # collected only where the data lies, so nothing is ever skipped
    ALPACA = DATA / "alpaca_eval"
    ANNOTATED = "alpaca-farm-ppo-human_weighted_gpt4_turbo_annotations.json.gz"

    def published(name):
        with open(ALPACA / preference.LEADERBOARD, newline="") as rows:
            return next(row for row in csv.DictReader(rows) if row[""] == name)

    def test_the_annotated_model_has_its_published_numbers(tmp_path):
        """4.10 % and 6.42 %, each within 0.1; the same code as after a judge: only the verdicts are read, not asked."""
        results = judging.run(judging.prepare("AlpacaEval 2.0", ALPACA / ANNOTATED), tmp_path)["results"]
        row = published("alpaca-farm-ppo-human")
        assert 100 * results["win_rate"] == pytest.approx(4.10, abs=0.1)
        assert 100 * results["length_controlled_win_rate"] == pytest.approx(6.42, abs=0.1)
        assert 100 * results["win_rate"] == pytest.approx(float(row["win_rate"]), abs=1e-9)
        assert 100 * results["standard_error"] == pytest.approx(float(row["standard_error"]), abs=1e-9)
        assert 100 * results["discrete_win_rate"] == pytest.approx(float(row["discrete_win_rate"]), abs=1e-9)
        assert [results[name] for name in ("won", "lost", "drawn")] == [32, 770, 3]
        assert int(results["length"]) == int(row["avg_length"])

    def test_every_published_model_is_predicted_from_the_others():
        """One at a time left out: the difficulties that the others imply give its length-controlled win rate."""
        known = preference._published(ALPACA)
        with open(ALPACA / preference.LEADERBOARD, newline="") as rows:
            rates = {row[""]: float(row["length_controlled_winrate"] or "nan") for row in csv.DictReader(rows)}
        gaps = []
        for name in sorted(known)[::10]:
            if rates.get(name, float("nan")) == rates.get(name):
                grid, shares = preference._distribution(ALPACA, known, name)
                gaps.append(abs(100 * win_rates.at_equal_length(known[name], grid, shares) - rates[name]))
        assert len(gaps) >= 18 and max(gaps) < 0.1 and np.median(gaps) < 0.02

    def test_the_makers_files_are_read_whole():
        counts = {one.name: len(one.load(DATA / one.folder)) for one in judging.BENCHMARKS if one.name != "FRAMES"}
        assert counts == {"AlpacaEval 2.0": 805, "Arena-Hard": 500, "SimpleQA": 4326, "C-SimpleQA": 3000}
        with pytest.raises(Refusal, match="FRAMES is asked with its articles"):
            judging.named("FRAMES").load(DATA / "frames")

    def test_the_annotations_verdicts_are_what_their_probabilities_say():
        """A judge's reply as it was kept, read by our rule, gives the preference that was published."""
        annotations = json.loads(gzip.decompress((ALPACA / ANNOTATED).read_bytes()))
        differences = []
        for row in [row for row in annotations if row["raw_completion"]]:
            tops = row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
            reply = judge.Reply(text="", first={one["token"]: one["logprob"] for one in tops})
            item = Item(id="x", prompt="", gold="", more={"question": row["instruction"]})
            ours = preference.alpaca_verdict(item, row["output_2"], [reply]).told["preference"]
            differences.append(min(abs(ours - row["preference"]), abs(3 - ours - row["preference"])))
        assert len(differences) > 700 and max(differences) < 1e-6, (
            "up to the order, which the makers drew in their own way"
        )
