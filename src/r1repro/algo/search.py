r"""Search over solutions that are cut into steps, and choosing among solutions: section 4.2, and nothing else.

A *tree* has a question at its root; a node is the beginning of a solution up to the end of a step, its children go on
by one step more.  Axes: A children of one node, K solutions to one question.

Numbers in, numbers out: what a step says, who proposes it and who values it, this file does not know.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Choosing among solutions


def weakest_step(values: Sequence[float]) -> float:
    """The value of a solution by that of its steps: that of the weakest, for one wrong step spoils all.

    Where the paper is silent:
        How the values of steps become one of a solution.  The weakest counts here, as in Math-Shepherd (2312.08935);
        their product (`every_step`) falls with each step, however good, so it prefers short solutions.

    >>> weakest_step([0.9, 0.2, 0.8])
    0.2
    """
    return min(values)


def every_step(values: Sequence[float]) -> float:
    """The product of the values of the steps: the chance that all are good, if they were independent.

    >>> every_step([0.5, 0.5])
    0.25
    """
    return math.prod(values)


def weighted_vote(answers_K: Sequence[Hashable | None], weights_K: Sequence[float]) -> int | None:
    """Which solution speaks for the answer with the largest sum of weights: the first with that answer.

    With equal weights it is `estimators.majority`; ties go to the answer that came first; None if nobody votes.

    >>> weighted_vote(["7", "8", "7"], [0.2, 0.9, 0.3]), weighted_vote(["7", "8", "7"], [1, 1, 1])
    (1, 0)
    """
    votes: dict[Hashable, float] = {}
    for answer, weight in zip(answers_K, weights_K, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + weight
    return list(answers_K).index(max(votes, key=votes.__getitem__)) if votes else None


def affordable(lengths_K: Sequence[int], budget: float) -> int:
    """How many solutions, taken in their order, a budget of tokens buys; the first is always bought.

    >>> affordable([30, 40, 50], 75), affordable([30, 40], 5)
    (2, 1)
    """
    return max(1, int(np.searchsorted(np.cumsum(lengths_K), budget, side="right")))


# Which child to look at next


def uct(mean_A: np.ndarray, visits_A: np.ndarray, c: float) -> np.ndarray:
    r"""Upper confidence bound of each child: its mean value, and more the less it has been visited.

    .. math:: Q_a + c\,\sqrt{\ln N / n_a},\qquad N=\sum_b n_b

    A child without a visit comes first of all.  Source: Kocsis and Szepesvari 2006.

    >>> uct(np.array([0.5, 0.5]), np.array([1, 0]), 1.0)
    array([0.5, inf])
    """
    visits_A = np.asarray(visits_A, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(visits_A > 0, mean_A + c * np.sqrt(np.log(max(visits_A.sum(), 1.0)) / visits_A), np.inf)


def puct(mean_A: np.ndarray, prior_A: np.ndarray, visits_A: np.ndarray, c: float) -> np.ndarray:
    r"""As `uct`, but what is explored first is what the policy finds probable.

    .. math:: Q_a + c\,P_a\,\frac{\sqrt N}{1 + n_a},\qquad N=\sum_b n_b

    Where the paper is silent:
        Which rule selects: it names Monte Carlo tree search and AlphaGo, whose rule this is (Silver et al. 2017).

    >>> puct(np.array([0.5, 0.1]), np.array([0.25, 0.75]), np.array([3, 1]), 1.0)
    array([0.625, 0.85 ])
    """
    visits_A = np.asarray(visits_A, dtype=float)
    return mean_A + c * prior_A * math.sqrt(visits_A.sum()) / (1.0 + visits_A)


def backed_up(mean: float, visits: int, value: float) -> tuple[float, int]:
    """Mean and visits of a node after one visit more, which found ``value``.

    >>> backed_up(0.5, 1, 1.0)
    (0.75, 2)
    """
    return mean + (value - mean) / (visits + 1), visits + 1


# The tree


@dataclass(slots=True)
class Node:
    """The beginning of a solution."""

    parent: int | None
    content: Any
    """What the step adds; whoever grows the tree knows what it is."""

    prior: float = 1.0
    finished: bool = False
    """The solution ends here, or is given up: no step follows."""

    mean: float = 0.0
    visits: int = 0
    value: float = 0.0
    """What the value model said of this node itself."""

    children: list[int] = field(default_factory=list)
    exhausted: bool = False
    """No node below is left to expand."""


class Tree:
    """Monte Carlo tree search with a value model: `select` a node, propose steps from it, `expand_` it by them.

    Where the paper is silent:
        *Evaluation.*  Each new node is valued once, by the value model and not by playing to the end, and that value
        is backed up along its path: a visit.  *Finished* nodes are never selected again: to look twice at the same
        solution tells nothing.  *Children* of a node are proposed once, all together: the cap on expansions that the
        paper blames for local optima is their number.

    >>> tree = Tree()
    >>> tree.expand_(tree.select(c=1.0), [("a", 0.5, False, 0.2), ("b", 0.5, False, 0.8)])
    >>> tree.nodes[0].mean, tree.nodes[tree.select(c=1.0)].content
    (0.5, 'b')
    """

    def __init__(self):
        self.nodes = [Node(parent=None, content=None)]

    def select(self, c: float) -> int | None:
        """The node to expand next: from the root, the child of largest `puct` until one has no children yet; None
        where there is nothing left to expand."""
        if self.nodes[0].exhausted:
            return None
        at = 0
        while self.nodes[at].children:
            known = [self.nodes[child] for child in self.nodes[at].children]
            mean_A, prior_A, visits_A = (np.array([getattr(n, x) for n in known]) for x in ("mean", "prior", "visits"))
            open_A = np.array([not n.exhausted for n in known])
            at = self.nodes[at].children[int(np.where(open_A, puct(mean_A, prior_A, visits_A, c), -np.inf).argmax())]
        return at

    def expand_(self, at: int, proposed: Sequence[tuple[Any, float, bool, float]]) -> None:
        """Give a node its children: (content, prior, whether it is finished, value) each, and back their values up."""
        for content, prior, finished, value in proposed:
            self.nodes[at].children.append(len(self.nodes))
            self.nodes.append(Node(at, content, prior, finished, value=value, exhausted=finished))
            self._back_up_(len(self.nodes) - 1, value)
        self.nodes[at].exhausted = not proposed  # what proposes nothing is never asked again
        up: int | None = at
        while up is not None:
            below = self.nodes[up].children
            self.nodes[up].exhausted |= bool(below) and all(self.nodes[child].exhausted for child in below)
            up = self.nodes[up].parent

    def _back_up_(self, at: int | None, value: float) -> None:
        while at is not None:
            node = self.nodes[at]
            node.mean, node.visits = backed_up(node.mean, node.visits, value)
            at = node.parent

    def path(self, at: int) -> list[int]:
        """The nodes from below the root to ``at``."""
        found = []
        while self.nodes[at].parent is not None:
            found.append(at)
            at = self.nodes[at].parent
        return found[::-1]

    def finished(self) -> list[int]:
        """The finished nodes, in the order in which they were found."""
        return [i for i, node in enumerate(self.nodes) if node.finished]

    def most_valued(self) -> int:
        """The node of highest value among those without children; the first of equals."""
        ends = [i for i, node in enumerate(self.nodes) if not node.children]
        return max(ends, key=lambda i: self.nodes[i].value)

    def share_below(self, right: dict[int, bool]) -> dict[int, float]:
        """Of each node with finished ones below it (or being one): the share of them that are right.

        Args:
            right: finished node -> whether its solution is right.

        >>> tree = Tree()
        >>> tree.expand_(0, [("a", 0.5, False, 0.5), ("b", 0.5, True, 0.5)])
        >>> tree.expand_(1, [("c", 1.0, True, 0.5)])
        >>> tree.share_below({2: False, 3: True})
        {0: 0.5, 1: 1.0, 2: 0.0, 3: 1.0}
        """
        below: dict[int, list[bool]] = {}
        for leaf, verdict in right.items():
            for node in (0, *self.path(leaf)):
                below.setdefault(node, []).append(verdict)
        return {node: float(np.mean(verdicts)) for node, verdicts in sorted(below.items())}
