r"""Codeforces: the rating that fits a model's places in contests, and the share of humans it beats (section 3).

In each contest the model is set beside the humans who were rated in it.  The rating is the one at which its expected
place is the place that it took, by the public formula of Codeforces (a newcomer's seed, blog entry 20762):

.. math:: \mathrm{rank}(R) = 1 + \sum_i \frac{1}{1 + 10^{(R - r_i)/400}}

Where the paper is silent:
    How "expected rating" was computed; ours is the mean over contests, and over the k samples as k takings part.
    Points.  A solved problem earns its whole points: a model has no time of submission and makes no wrong attempts.
    Ties.  A human with as many points counts half, as a draw does in the formula.
    The first or last place has no finite rating: `LOWEST` and `HIGHEST` bound it.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1repro.evals.benchmark import Item
from r1repro.records import Refusal

LOWEST, HIGHEST = 0.0, 4000.0
"""Ours: almost no human has ever had a rating outside of these."""

RATINGS = "codeforces_rating"
"""Folder below R1REPRO_DATA: ratings_*.json, a map from rating to number of humans, and the results of contests."""


def expected_rank(rating: float, rivals: Iterable[float]) -> float:
    """The place that a rating can expect among rivals' ratings; 1 is the first.

    >>> round(expected_rank(1500, [1500, 1500]), 6), round(expected_rank(1900, [1500]), 6)
    (2.0, 1.090909)
    """
    return 1 + sum(1 / (1 + 10 ** ((rating - rival) / 400)) for rival in rivals)


def rating_of(rank: float, rivals: Sequence[float]) -> float:
    """The rating whose expected place is ``rank``; `LOWEST` to `HIGHEST`.

    Raises:
        ValueError: a rank that nobody can have among so many.

    >>> round(rating_of(2.0, [1500, 1500]), 6), rating_of(1.0, [1500, 1500])
    (1500.0, 4000.0)
    """
    if not 1 <= rank <= len(rivals) + 1:
        raise ValueError(f"rank {rank} among {len(rivals)} rivals: give one from 1 to {len(rivals) + 1}")
    low, high = LOWEST, HIGHEST
    if expected_rank(high, rivals) >= rank:
        return high
    if expected_rank(low, rivals) <= rank:
        return low
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if expected_rank(middle, rivals) > rank else (low, middle)
    return (low + high) / 2


def percentile(rating: float, humans: Mapping[int, int]) -> float:
    """Share of humans with a lower rating, an equal one counting half; in percent.

    >>> percentile(1500, {1400: 3, 1500: 2, 1600: 5})
    40.0
    """
    total = sum(humans.values())
    return 100 * sum(n * (1.0 if r < rating else 0.5 if r == rating else 0.0) for r, n in humans.items()) / total


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Results of the humans of one contest."""

    id: str
    points: Mapping[str, float]
    """Of each problem, by its index; 1 where the contest counts problems."""

    humans: Sequence[tuple[float, float]]
    """(rating before the contest, points won)."""

    def rank(self, solved: Iterable[str]) -> float:
        """The place of who solved these problems."""
        won = sum(self.points.get(index, 0.0) for index in solved)
        above = sum(points > won for _, points in self.humans)
        return 1 + above + sum(points == won for _, points in self.humans) / 2

    def rating(self, solved: Iterable[str]) -> float:
        return rating_of(self.rank(solved), [rating for rating, _ in self.humans])


def results(folder: Path) -> dict[str, Contest]:
    """The contests of which a folder has both answers of the public interface of Codeforces, saved as they come:
    ``contest.standings`` (who won how many points) and ``contest.ratingChanges`` (with which rating).

    Raises:
        Refusal: an answer that is none, or that lacks what is needed; the line names the file.
    """
    standings, changes = {}, {}
    for path in sorted(folder.glob("*.json")):
        answer = _read(path)
        if not isinstance(answer, dict) or "result" not in answer:
            continue
        if answer.get("status") != "OK":
            raise Refusal(
                f"{path}: Codeforces answered {str(answer.get('comment') or answer.get('status'))[:80]}: ask again"
            )
        told = answer["result"]
        try:
            if isinstance(told, list):
                changes[str(told[0]["contestId"])] = {change["handle"]: float(change["oldRating"]) for change in told}
            else:
                standings[str(told["contest"]["id"])] = _standing(told)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__} {error}"[:80]
            raise Refusal(
                f"{path}: no answer of contest.standings or contest.ratingChanges ({reason}): ask again"
            ) from error
    return {
        id: Contest(
            id=id, points=points, humans=[(changes[id][handle], won[handle]) for handle in won if handle in changes[id]]
        )
        for id, (points, won) in standings.items()
        if id in changes and any(handle in changes[id] for handle in won)
    }


def _standing(told: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    points = {problem["index"]: float(problem.get("points") or 1.0) for problem in told["problems"]}
    rows = [row for row in told["rows"] if row["party"].get("participantType", "CONTESTANT") == "CONTESTANT"]
    return points, {row["party"]["members"][0]["handle"]: float(row["points"]) for row in rows}


def humans(folder: Path) -> dict[int, int]:
    """How many humans have each rating, of the last ``ratings_*.json`` of a folder; {} where there is none."""
    found = sorted(folder.glob("ratings_*.json"))
    if not found:
        return {}
    try:
        return {int(rating): int(number) for rating, number in _read(found[-1]).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise Refusal(f"{found[-1]}: no map from rating to number of humans ({error}): mend it") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{path} cannot be read ({' '.join(str(error).split())[:80]}): put it there whole") from error


def summarise(items: Sequence[Item], scores_QK: Sequence[Sequence[float | None]]) -> dict[str, float]:
    """Rating and percentile, over the contests whose results are there and whose samples were all graded.

    ``contests`` says how many those are; without any there is no rating.
    """
    place = Path(items[0].more["folder"]).parent / RATINGS if items else Path(os.devnull)
    known = results(place) if place.is_dir() else {}
    by_contest = defaultdict(list)
    for item, scores_K in zip(items, scores_QK, strict=True):
        by_contest[item.more["contest"]].append((item.more["index"], scores_K))
    ratings = []
    for id, rows in by_contest.items():
        counts = {len(scores_K) for _, scores_K in rows}
        if (
            id not in known
            or len(counts) != 1
            or 0 in counts
            or any(s is None or math.isnan(s) for _, k in rows for s in k)
        ):
            continue
        takes = [known[id].rating(index for index, scores_K in rows if scores_K[j] == 1) for j in range(counts.pop())]
        ratings.append(sum(takes) / len(takes))
    if not ratings:
        return {"contests": 0.0}
    found = {"contests": float(len(ratings)), "rating": sum(ratings) / len(ratings)}
    beaten = humans(place)
    return found | ({"percentile": percentile(found["rating"], beaten)} if beaten else {})
