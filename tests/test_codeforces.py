"""Ratings and percentiles from the results of contests: known answers."""

import json
import math
import os
from pathlib import Path

import pytest

from r1repro import paper
from r1repro.evals import codeforces
from r1repro.evals.benchmark import Item
from r1repro.records import Refusal

DATA = Path(os.environ.get("R1REPRO_DATA", "data"))


@pytest.mark.parametrize("rating", [800, 1500, 2029, 3500])
def test_among_equals_the_middle_place_is_worth_their_rating(rating):
    assert codeforces.rating_of(1 + 7 / 2, [rating] * 7) == pytest.approx(rating)


@pytest.mark.parametrize("odds", [1 / 10, 1, 10, 100])
def test_ten_to_one_is_worth_400_points(odds):
    """One rival of 1500 who wins with these odds: place 1 + odds / (1 + odds)."""
    assert codeforces.rating_of(1 + odds / (1 + odds), [1500]) == pytest.approx(1500 - 400 * math.log10(odds))


def test_expected_places_of_all_add_up():
    """n players: each expects a place among the others, and the places 1 to n add up to n (n + 1) / 2."""
    ratings = [1200, 1350, 1500, 1999, 2400, 1500]
    places = [codeforces.expected_rank(r, [x for j, x in enumerate(ratings) if j != i]) for i, r in enumerate(ratings)]
    assert sum(places) == pytest.approx(6 * 7 / 2)


def test_a_rating_is_found_again_from_its_expected_place():
    rivals = [900 + 7 * i for i in range(200)]
    for rating in (600, 1234, 1987, 2800):
        assert codeforces.rating_of(codeforces.expected_rank(rating, rivals), rivals) == pytest.approx(rating, abs=1e-6)


def test_first_and_last_place_are_bounded_and_no_place_is_refused():
    assert codeforces.rating_of(1, [1500] * 9) == codeforces.HIGHEST
    assert codeforces.rating_of(10, [1500] * 9) == codeforces.LOWEST
    for rank in (0, 0.5, 10.5, math.nan):
        with pytest.raises(ValueError, match="rivals"):
            codeforces.rating_of(rank, [1500] * 9)


CONTEST = codeforces.Contest(
    id="1", points={"A": 500, "B": 1000}, humans=[(1500, 1500), (1400, 500), (1300, 500), (1200, 0)]
)


@pytest.mark.parametrize("solved, place", [("AB", 1.5), ("B", 2), ("A", 3), ("", 4.5), ("ABZ", 1.5)])
def test_a_draw_is_half_a_place(solved, place):
    assert CONTEST.rank(solved) == place


def test_solving_more_is_never_worth_less():
    ratings = [CONTEST.rating(solved) for solved in ("", "A", "B", "AB")]
    assert ratings == sorted(ratings) and len(set(ratings)) == 4


def answers(folder, id, points, rated):
    """A contest's two files as the public interface answers; rated: handle -> (rating, points)."""
    folder.mkdir(exist_ok=True, parents=True)
    problems = [{"index": index, **({"points": value} if value else {})} for index, value in points.items()]
    rows = [
        {"party": {"members": [{"handle": handle}], "participantType": "CONTESTANT"}, "points": won}
        for handle, (_, won) in rated.items()
    ]
    rows.append({"party": {"members": [{"handle": "guest"}], "participantType": "VIRTUAL"}, "points": 9999.0})
    rows.append({"party": {"members": [{"handle": "unrated"}], "participantType": "CONTESTANT"}, "points": 9999.0})
    changes = [{"contestId": id, "handle": handle, "oldRating": rating} for handle, (rating, _) in rated.items()]
    told = {"contest": {"id": id}, "problems": problems, "rows": rows}
    for name, result in (("standings", told), ("changes", changes)):
        (folder / f"{id}.{name}.json").write_text(json.dumps({"status": "OK", "result": result}))


def item(folder, contest, index):
    more = {"contest": contest, "index": index, "folder": str(folder)}
    return Item(id=f"{contest}{index}", prompt="", gold=None, more=more)


def test_rating_and_percentile_of_contests(tmp_path):
    place = tmp_path / codeforces.RATINGS
    answers(place, 7, {"A": 500.0, "B": 1000.0}, {"a": (1500, 1500.0), "b": (1500, 500.0)})
    answers(place, 8, {"A": None}, {"a": (2000, 1.0), "b": (2000, 0.0)})
    (place / "ratings_2024.json").write_text('{"1000": 1, "1500": 2, "2500": 1}')
    items = [item(tmp_path / "codeforces", contest, index) for contest, index in (("7", "A"), ("7", "B"), ("8", "A"))]
    # 7: B alone has 1000 points, second of three. 8: A solved in one of two samples: places 1.5 and 2.5 of three.
    found = codeforces.summarise(items, [[0, 0], [1, 1], [1, 0]])
    eighth = [codeforces.rating_of(rank, [2000, 2000]) for rank in (1.5, 2.5)]
    assert sum(eighth) / 2 == pytest.approx(2000)
    assert found == pytest.approx({"contests": 2, "rating": (1500 + 2000) / 2, "percentile": 75})
    assert codeforces.summarise(items, [[0, 0], [1, None], [1, 0]]) == pytest.approx(
        {"contests": 1, "rating": 2000, "percentile": 75}
    )
    assert codeforces.summarise(items, [[None], [None], [None]]) == {"contests": 0}


def test_without_results_there_is_no_rating(tmp_path):
    assert codeforces.summarise([item(tmp_path / "codeforces", "7", "A")], [[1]]) == {"contests": 0.0}
    assert codeforces.summarise([], []) == {"contests": 0.0}


@pytest.mark.parametrize(
    "text, word",
    [
        ("{", "cannot be read"),
        ('{"status": "FAILED", "comment": "contestId: not found", "result": []}', "not found"),
        ('{"status": "OK", "result": {"contest": {"id": 7}}}', "problems"),
        ('{"status": "OK", "result": []}', "contest.standings"),
        ('{"status": "OK", "result": [{"contestId": 7, "handle": "a"}]}', "oldRating"),
    ],
)
def test_an_answer_that_is_none_is_refused(text, word, tmp_path):
    (tmp_path / "7.json").write_text(text)
    with pytest.raises(Refusal, match=word) as caught:
        codeforces.results(tmp_path)
    assert "7.json" in str(caught.value) and "\n" not in str(caught.value)


def test_ratings_that_are_no_map_are_refused(tmp_path):
    (tmp_path / "ratings_2024.json").write_text("[1, 2]")
    with pytest.raises(Refusal, match="ratings_2024"):
        codeforces.humans(tmp_path)


if DATA.is_dir():  # collected only where the data lies, so nothing is ever skipped

    def test_percentiles_that_others_print():
        """DeepCoder-14B's card, which counts the same humans: 1936 beats 95.3 %.  The paper, which counts those of a
        year before: Table 4."""
        humans = codeforces.humans(DATA / "codeforces_rating")
        assert codeforces.percentile(1936, humans) == pytest.approx(95.3, abs=0.05)
        rows = [line.split(",") for line in (paper.folder() / "tables" / "table4.csv").read_text().splitlines()]
        shares, ratings = (
            next(row for row in rows if row[1:3] == ["Codeforces", kind]) for kind in ("Percentile", "Rating")
        )
        assert codeforces.percentile(float(ratings[-1]), humans) == pytest.approx(float(shares[-1]), abs=0.2)
