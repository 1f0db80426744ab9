"""Who beats whom on how many pairs, by the paired test on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from oodbench.metrics.comparison import Difference, holm
from oodbench.report.comparison import ALPHA, auroc_of, paired_test
from oodbench.report.results import Results
from oodbench.report.tables import trial_of
from oodbench.store import Row, is_bar


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


def _against(comparisons: Sequence[Row], one: str, opponent: Callable[[Row], str | None]) -> Tally:
    both = [(row, opponent(row)) for row in comparisons if one in row["scorers"]]
    tests = [
        paired_test(row, one, other) for row, other in both if other and other in row["scorers"]
    ]
    return tally(tests)


class Bars:
    """The best baseline of each pair that sees no more data than a scorer."""

    def __init__(self, results: Results):
        self._rows = {
            (*trial_of(row), row["scorer"]): row
            for row in results.tried
            if row["group_size"] == 1 and row["status"] == "ok"
        }

    def name(self, comparison: Row, scorer: str) -> str | None:
        """Of one pair; None where no baseline bars the scorer."""
        own = self._row(comparison, scorer)
        known = [name for name in comparison["baselines"] if self._bars(comparison, name, own)]
        return max(known, key=lambda name: auroc_of(comparison, name), default=None)

    def _bars(self, comparison: Row, name: str, own: Row | None) -> bool:
        baseline = self._row(comparison, name)
        return own is not None and baseline is not None and is_bar(baseline, own)

    def _row(self, comparison: Row, scorer: str) -> Row | None:
        seed = comparison.get("seed", 0)
        trial = comparison["model"], comparison["in_dist"], comparison["ood"], seed
        return self._rows.get((*trial, scorer))

    def against(self, comparisons: Sequence[Row], scorer: str) -> Tally:
        """A scorer against the bar of each pair."""
        return _against(comparisons, scorer, lambda row: self.name(row, scorer))
