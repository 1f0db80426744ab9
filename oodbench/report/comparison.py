"""Scorers compared on the same images: paired tests, who leads a pair, and ranks over pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from oodbench.errors import ScorerError, did_you_mean
from oodbench.metrics.comparison import (
    Difference,
    average_ranks,
    difference,
    holm,
    paired_difference,
)
from oodbench.metrics.intervals import Estimate
from oodbench.report.illustrations import Illustration
from oodbench.report.order import pair_key
from oodbench.report.results import Results
from oodbench.report.tables import distinct
from oodbench.store import Row

ALPHA = 0.05
"""The level of the paired tests."""
PAIRED = {"aupr_ood": "AUPR", "fpr95_ood": "FPR@95"}
"""Metrics whose paired differences stand beside that of the AUROC, OOD images being the positive class."""
LIKELIHOOD = "likelihood"
Table = tuple[list[str], list[list[str]]]


def compare(comparisons: Iterable[Row], one: str, other: str) -> Table:
    """Two scorers on each pair that has both: AUROCs, their difference with its interval and p-values
    (DeLong, Holm), and the paired differences of AUPR and FPR@95 (bootstrap).

    Raises
    ------
    ScorerError : a scorer that no pair has, or no pair with both
    """
    known = list(comparisons)
    names = distinct(name for row in known for name in row["scorers"])
    for name in (one, other):
        if name not in names:
            raise ScorerError(
                f"no result of the scorer {name!r} is stored here{did_you_mean(name, names)}"
            )
    shared = [row for row in known if one in row["scorers"] and other in row["scorers"]]
    if not shared:
        raise ScorerError(f"{one} and {other} were measured on no common model and pair of sets")
    found = [test_of(row, one, other) for row in shared]
    corrected = holm([test.p for test in found])
    lines = [
        [
            *_names(row, known),
            *_aurocs(row, one, other),
            *_tested(test, p),
            *paired_cells(row, one, other),
        ]
        for row, test, p in zip(shared, found, corrected, strict=True)
    ]
    paired = [f"{metric}, difference" for metric in PAIRED.values()]
    return ["model", "pair", one, other, "difference", "p", "p, Holm", *paired], lines


def _names(row: Row, known: list[Row]) -> list[str]:
    """The model and the pair of sets as plain text, with the seed where there are several."""
    seeds = {one.get("seed", 0) for one in known}
    seed = f", seed {row.get('seed', 0)}" if len(seeds) > 1 else ""
    return [f"{row['model']}{seed}", f"{row['in_dist']} → {row['ood']}"]


def _aurocs(row: Row, *names: str) -> list[str]:
    return [f"{auroc_of(row, name):.3f}" for name in names]


def _tested(test: Difference, corrected: float) -> list[str]:
    """The difference with its interval, its p-value and the corrected one."""
    return [gap_text(test.estimate), p_text(test.p), p_text(corrected)]


def gap_text(gap: Estimate) -> str:
    """A difference with its interval."""
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def paired_cells(row: Row, one: str, other: str) -> list[str]:
    """The paired differences of :data:`PAIRED`; dashes of rows that have none."""
    paired, places = row.get("paired"), [row["scorers"].index(name) for name in (one, other)]
    if not paired:
        return ["–"] * len(PAIRED)
    found = [paired[metric] for metric in PAIRED]
    gaps = [paired_difference(own["value"], own["low"], *places) for own in found]
    return [gap_text(gap) for gap in gaps]


def p_text(value: float) -> str:
    """A p-value as a cell; a dash where the test has none."""
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def auroc_of(row: Row, name: str) -> float:
    """The AUROC of one scorer of a comparison."""
    return float(row["auroc"][row["scorers"].index(name)])


def test_of(row: Row, one: str, other: str) -> Difference:
    """The paired DeLong test of two scorers of a comparison."""
    places = [row["scorers"].index(name) for name in (one, other)]
    aurocs = np.array([row["auroc"][place] for place in places])
    covariance = np.array([[row["covariance"][a][b] for b in places] for a in places])
    # older rows do not say how many images there were
    sizes = (row["n_in"], row["n_ood"]) if "n_in" in row else None
    return difference(aurocs, covariance, 0, 1, sizes)


def in_order(comparisons: Iterable[Row]) -> list[Row]:
    """Comparisons by in-dist set, model, OOD set and seed, the paper's first."""
    return sorted(comparisons, key=lambda row: (*pair_key(row), row.get("seed", 0)))


def ranks_figure(results: Results) -> Illustration | None:
    """Mean ranks on a line; None where ranks say nothing."""
    rows = in_order(results.comparisons)
    if not can_be_ranked(rows):
        return None
    caption = (
        f"Mean rank of the AUROC over {len(rows)} models and pairs of sets, best on the left; bars join "
        "scorers whose ranks differ by less than the critical difference (Nemenyi, 5 %)."
    )
    return Illustration("ranks", "", caption, rows)


def best_of(row: Row, baseline: bool) -> str:
    """The scorer with the largest AUROC, among baselines or among the others; empty where there is none."""
    names = row["baselines"] if baseline else with_model(row)
    return max(names, key=lambda name: auroc_of(row, name), default="")


def with_model(row: Row) -> list[str]:
    """The scorers that read a model and did not tune on OOD images, which are ranked apart."""
    apart = {*row["baselines"], *row.get("tuned", ())}
    return [name for name in row["scorers"] if name not in apart]


def as_good(row: Row) -> list[str]:
    """Scorers that the paired test does not distinguish from the best."""
    best = best_of(row, False)
    others = [name for name in with_model(row) if name != best]
    corrected = holm([test_of(row, best, name).p for name in others])
    return [name for name, p in zip(others, corrected, strict=True) if p >= ALPHA]


def common(comparisons: Sequence[Row]) -> tuple[list[str], np.ndarray]:
    """The scorers that every pair has, but those that tuned on OOD images, and their AUROCs ``(pairs, scorers)``."""
    tuned = {name for row in comparisons for name in row.get("tuned", ())}
    first = [name for name in comparisons[0]["scorers"] if name not in tuned] if comparisons else []
    names = [name for name in first if all(name in row["scorers"] for row in comparisons)]
    return names, np.array([[auroc_of(row, name) for name in names] for row in comparisons])


def can_be_ranked(comparisons: Sequence[Row]) -> bool:
    """Whether ranks over pairs say anything: two pairs, and three scorers that both have."""
    return len(comparisons) > 1 and len(common(comparisons)[0]) > 2


def ranked(comparisons: Sequence[Row]) -> list[tuple[str, float, float]]:
    """Scorers with their mean rank over pairs and their mean AUROC over in-dist sets, best first.

    An in-dist set counts once, with the mean over its models and pairs.
    """
    names, aurocs = common(comparisons)
    ranks = average_ranks(aurocs)
    in_dists = np.array([row["in_dist"] for row in comparisons])
    of_sets = [aurocs[in_dists == name].mean(0) for name in distinct(in_dists)]
    means = np.mean(of_sets, axis=0)
    lines = zip(names, ranks.tolist(), means.tolist(), strict=True)
    return sorted(lines, key=lambda one: one[1])


def undistinguished(ranks: Sequence[float], gap: float) -> list[tuple[float, float]]:
    """The widest spans of ranks that differ by less than ``gap``, as (lowest, highest)."""
    spans = dict.fromkeys((low, max(high for high in ranks if high - low < gap)) for low in ranks)
    return [
        (low, high)
        for low, high in spans
        if high > low and not any(a < low and high <= b for a, b in spans)
    ]


def correlation_of(row: Row, scorer: str) -> float | None:
    """The largest rank correlation, in size, of a scorer with a baseline; None where there is none."""
    place = row["scorers"].index(scorer)
    found = [own[place] for own in row["correlation"].values() if own[place] is not None]
    return max(map(abs, found), default=None)


class Lead(NamedTuple):
    """How far the best scorer with a model is ahead of the next one on a pair."""

    best: str
    next: str
    auroc: float
    gap: Estimate
    """The paired difference of their AUROCs."""
    as_good: list[str]
    """Scorers that the paired test does not tell from the best."""


def lead(row: Row) -> Lead | None:
    """Who is ahead on a pair, among scorers with a model; None of fewer than two."""
    best = best_of(row, False)
    others = [name for name in with_model(row) if name != best]
    if not others:
        return None
    second = max(others, key=lambda name: auroc_of(row, name))
    gap = test_of(row, best, second).estimate
    return Lead(best, second, auroc_of(row, best), gap, as_good(row))


def gap_of(row: Row, one: str, other: str) -> float | None:
    """The difference of two scorers' AUROCs; None of a row that lacks one of them."""
    if not {one, other} <= set(row["scorers"]):
        return None
    return auroc_of(row, one) - auroc_of(row, other)


def bar(row: Row, scorer: str) -> str:
    """The best baseline of those that see no more data than a scorer, which it has to beat; empty where there is none.

    Rows that do not say who looks at `ref` are of baselines that look at none.
    """
    looking = row.get("look_at_ref", ())
    names = [name for name in row["baselines"] if scorer in looking or name not in looking]
    return max(names, key=lambda name: auroc_of(row, name), default="")


def best_baseline(row: Row) -> float | None:
    """The best AUROC of a model-free baseline; None of a row without one."""
    name = best_of(row, True)
    return auroc_of(row, name) if name else None
