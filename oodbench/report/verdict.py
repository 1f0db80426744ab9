"""Two scorers of a run, in a sentence: on how many pairs one is better, worse, or not told from the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from oodbench.errors import ScorerError
from oodbench.metrics.comparison import Difference, difference, holm
from oodbench.report.comparison import ALPHA
from oodbench.report.tables import set_name, short_name
from oodbench.store import Row


def chosen(comparisons: Iterable[Row], models: Sequence[str], pairs: Sequence[str]) -> list[Row]:
    """The comparisons of some models, and of pairs written ``in-dist:ood``; all where none are named.

    Raises
    ------
    ScorerError : none is of them, or a pair that is not written so
    """
    known = list(comparisons)
    wrong = next((pair for pair in pairs if pair.count(":") != 1), None)
    if wrong is not None:
        raise ScorerError(f"--pair {wrong!r} must be IN_DIST:OOD, for instance cifar10:svhn")
    found = [row for row in known if not models or row["model"] in models]
    found = [row for row in found if not pairs or any(_is_of(row, pair) for pair in pairs)]
    if not found:
        there = sorted({f"{row['model']} on {_pair(row)}" for row in known})
        raise ScorerError(
            f"no comparison is of these models and pairs; there are {', '.join(there)}"
        )
    return found


def _is_of(row: Row, pair: str) -> bool:
    sides = zip(pair.split(":"), (row["in_dist"], row["ood"]), strict=True)
    return all(name in (whole, set_name(whole), short_name(whole)) for name, whole in sides)


def _pair(row: Row) -> str:
    return f"{set_name(row['in_dist'])}:{set_name(row['ood'])}"


def verdict(comparisons: Iterable[Row], one: str, other: str) -> str:
    """How often the paired test, corrected by Holm over all pairs, finds the first scorer better than the second."""
    shared = [row for row in comparisons if {one, other} <= set(row["scorers"])]
    tests = [_test(row, one, other) for row in shared]
    counts = Counter(map(_outcome, tests, holm([test.p for test in tests])))
    said = [f"{what} on {counts[what]}" for what in ("better", "worse") if counts[what]]
    said.sort(key=lambda part: -int(part.split()[-1]))
    said += [f"undecided on {counts['undecided']}"] if counts["undecided"] else []
    first, *rest = said
    n = len(shared)
    return (
        f"{one} against {other}: " + ", ".join([f"{first} of {n} pair{'s' * (n > 1)}", *rest]) + "."
    )


def _test(row: Row, one: str, other: str) -> Difference:
    places = [row["scorers"].index(name) for name in (one, other)]
    return difference(np.array(row["auroc"]), np.array(row["covariance"]), *places)


def _outcome(test: Difference, p: float) -> str:
    if p >= ALPHA:
        return "undecided"
    return "better" if test.estimate.value > 0 else "worse"
