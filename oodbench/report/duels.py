"""Who beats whom on how many pairs, by the paired test on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from oodbench.metrics.comparison import Difference, holm
from oodbench.report.comparison import ALPHA, bar, test_of
from oodbench.store import Row


class Tally(NamedTuple):
    """On how many pairs one scorer is better than another, worse, and not told from it (DeLong, Holm, 5 %)."""

    better: int
    worse: int
    undecided: int

    def __str__(self) -> str:
        return f"{self.better}–{self.worse}–{self.undecided}"

    @property
    def pairs(self) -> int:
        return sum(self)


def tally(tests: Sequence[Difference]) -> Tally:
    """Of paired tests, one a pair, corrected over all of them."""
    corrected = holm([test.p for test in tests])
    told = [test.estimate.value for test, p in zip(tests, corrected, strict=True) if p < ALPHA]
    better = sum(value > 0 for value in told)
    return Tally(better, len(told) - better, len(tests) - len(told))


def duel(comparisons: Sequence[Row], one: str, other: str) -> Tally:
    """One scorer against another, over the pairs that have both."""
    return _against(comparisons, one, lambda _: other)


def _against(comparisons: Sequence[Row], one: str, opponent: Callable[[Row], str]) -> Tally:
    both = [(row, opponent(row)) for row in comparisons if one in row["scorers"]]
    tests = [test_of(row, one, other) for row, other in both if other in row["scorers"]]
    return tally(tests)


def against_bar(comparisons: Sequence[Row], scorer: str) -> Tally:
    """A scorer against the best baseline of each pair that sees no more data than it."""
    return _against(comparisons, scorer, lambda row: bar(row, scorer))
