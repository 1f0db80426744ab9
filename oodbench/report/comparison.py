"""The page that compares scorers: paired tests, ranks over pairs, and correlation with baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from oodbench.errors import ScorerError, did_you_mean
from oodbench.metrics.comparison import (
    Difference,
    average_ranks,
    critical_difference,
    difference,
    holm,
    paired_difference,
)
from oodbench.metrics.intervals import Estimate
from oodbench.report.illustrations import Illustration
from oodbench.report.made import sizes_sentence
from oodbench.report.older import older_sentence
from oodbench.report.results import Results
from oodbench.report.tables import HEAD, distinct, pair_text, table, text
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
    return [f"{_auroc(row, name):.3f}" for name in names]


def _tested(test: Difference, corrected: float) -> list[str]:
    """The difference with its interval, its p-value and the corrected one."""
    return [gap_text(test.estimate), _p(test.p), _p(corrected)]


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


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _auroc(row: Row, name: str) -> float:
    return float(row["auroc"][row["scorers"].index(name)])


def test_of(row: Row, one: str, other: str) -> Difference:
    """The paired test of two scorers of a comparison."""
    places = [row["scorers"].index(name) for name in (one, other)]
    return difference(np.array(row["auroc"]), np.array(row["covariance"]), *places)


def comparison_page(results: Results, figure: str | None) -> str:
    """The page of a suite: difficulty and best scorer of each pair, ranks, and correlation with the
    baselines."""
    rows = in_order(results.comparisons)
    title = "# Scorers compared on the same images\n"
    sizes = sizes_sentence(row["model"] for row in rows)
    parts = [HEAD, title, *older_sentence(rows), PAIRS, *([f"{sizes}\n"] if sizes else [])]
    parts += [table(*_pairs_table(results, rows))]
    if any(row.get("paired") for row in rows):
        parts += [GAPS, table(*_gaps_table(results, rows))]
    if can_be_ranked(rows):
        parts += _ranks(rows)
        parts += [f"![Mean ranks and the critical difference]({figure})\n"] if figure else []
    parts += [CORRELATION, table(*_correlation_table(rows))]
    dual = [row for row in rows if row["oracle_dual_threshold"] is not None]
    if dual:
        lines = [[*_pair(results, row), *_oracle(row)] for row in dual]
        heads = ["model", "pair", "AUROC of likelihood", "AUROC of lid", "oracle dual threshold"]
        parts += [ORACLE, table(heads, lines)]
    return "\n".join(parts)


def in_order(comparisons: Iterable[Row]) -> list[Row]:
    """Comparisons by in-dist set, model, OOD set and seed."""
    return sorted(comparisons, key=lambda r: (r["in_dist"], r["model"], r["ood"], r.get("seed", 0)))


def _ranks(rows: Sequence[Row]) -> list[str]:
    names, aurocs = common(rows)
    gap = critical_difference(len(names), len(aurocs))
    lines = [[text(name), f"{rank:.2f}", f"{mean:.3f}"] for name, rank, mean in ranked(rows)]
    words = RANKS.format(n=len(aurocs), k=len(names), gap=gap)
    return [words, table(["scorer", "mean rank", "mean AUROC over in-dist sets"], lines)]


def _pair(results: Results, row: Row) -> list[str]:
    return [text(results.label(row)), pair_text(row)]


def _oracle(row: Row) -> list[str]:
    return [*_aurocs(row, "likelihood", "lid"), f"{row['oracle_dual_threshold']:.3f}"]


PAIRS = """\
**difficulty**: the best AUROC of a model-free baseline, which a scorer with a model has to beat; where it is below
chance, also what one would reach with its sign turned round, which only OOD images could tell. **beats its bar**: the
paired DeLong test of the best scorer, on the same images, against the best baseline that sees no more data than it
does, corrected by Holm over all lines. **as good**: scorers that the same test, corrected over the scorers of the
line, does not distinguish from the best at 5 %. The best of many is chosen on these images: its lead is somewhat
flattered.
"""
GAPS = """\
## AUPR and FPR@95, paired

The best scorer less the best baseline that sees no more data, and less likelihood, with OOD images as the positive
class: AUPR above zero and FPR@95 below zero favour the best scorer. Intervals are percentiles over bootstrap
replicates in which all scorers meet the same resampled images; that of the AUROC is DeLong's.
"""
RANKS = """\
## Ranks

Mean rank over the {n} models and pairs, of the {k} scorers that were measured on each. Ranks that differ
by less than the critical difference {gap:.2f} (Nemenyi, 5 %) are not distinguished; pairs that share a
model or a set are not independent, so that it is a lower bound.
"""
CORRELATION = """\
## What a scorer measures

Spearman's correlation of each scorer with each model-free baseline over the images of both sets, averaged
over models and pairs, with its range: near ±1, the scorer sorts images as the baseline does.
"""


ORACLE = """\
## Likelihood and local dimension: an oracle

Kamkari et al. (ICML 2024) flag an image by either of two thresholds and report the area under the best
rates that any pair of thresholds reaches. The thresholds are chosen with the OOD images in sight: it is
an upper bound that no detector has, no AUROC.
"""


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


def _best(row: Row, baseline: bool) -> str:
    """The scorer with the largest AUROC, among baselines or among the others; empty where there is none."""
    names = row["baselines"] if baseline else _with_model(row)
    return max(names, key=lambda name: _auroc(row, name), default="")


def _with_model(row: Row) -> list[str]:
    """The scorers that read a model and did not tune on OOD images, which are ranked apart."""
    apart = {*row["baselines"], *row.get("tuned", ())}
    return [name for name in row["scorers"] if name not in apart]


def _pairs_table(results: Results, rows: Sequence[Row]) -> Table:
    judged = [row for row in rows if (best := _best(row, False)) and bar(row, best)]
    bests = [_best(row, False) for row in judged]
    tests = [test_of(row, best, bar(row, best)) for row, best in zip(judged, bests, strict=True)]
    corrected = holm([test.p for test in tests])
    lines = [
        [*_pair(results, row), *_named_best(row), _beats(test, p), ", ".join(_as_good(row)) or "–"]
        for row, test, p in zip(judged, tests, corrected, strict=True)
    ]
    return ["model", "pair", "difficulty", "best scorer", "beats its bar", "as good"], lines


def _gaps_table(results: Results, rows: Sequence[Row]) -> Table:
    """The best scorer of each pair against the best baseline and against likelihood."""
    bests = [_best(row, False) for row in rows]
    against = [
        (row, best, (bar(row, best), LIKELIHOOD)) for row, best in zip(rows, bests, strict=True)
    ]
    lines = [
        [*_pair(results, row), text(best), text(other), *_gaps(row, best, other)]
        for row, best, others in against
        for other in others
        if best and other in row["scorers"] and other != best
    ]
    return ["model", "pair", "best scorer", "less", "AUROC", *PAIRED.values()], lines


def _gaps(row: Row, one: str, other: str) -> list[str]:
    return [gap_text(test_of(row, one, other).estimate), *paired_cells(row, one, other)]


def _named_best(row: Row) -> list[str]:
    """The best baseline, with the best one of the other sign where it is below chance, and the best scorer with a model."""
    bar, best = (
        f"{_auroc(row, name):.3f} ({text(name)})" for name in (_best(row, True), _best(row, False))
    )
    return [bar + _reversed_bar(row), best]


def _reversed_bar(row: Row) -> str:
    """What the best baseline would reach with its sign turned; empty where one is above chance as it is."""
    lowest = min(row["baselines"], key=lambda name: _auroc(row, name))
    if (best_baseline(row) or 0.0) >= 0.5:
        return ""
    return f"; turned round {1 - _auroc(row, lowest):.3f} ({text(lowest)})"


def _beats(test: Difference, p: float) -> str:
    won = test.estimate.value > 0 and p < ALPHA
    return f"{'yes' if won else 'no'} ({test.estimate.value:+.3f}, p {_p(p)})"


def _as_good(row: Row) -> list[str]:
    """Scorers that the paired test does not distinguish from the best."""
    best = _best(row, False)
    others = [name for name in _with_model(row) if name != best]
    corrected = holm([test_of(row, best, name).p for name in others])
    return [text(name) for name, p in zip(others, corrected, strict=True) if p >= ALPHA]


def common(comparisons: Sequence[Row]) -> tuple[list[str], np.ndarray]:
    """The scorers that every pair has, but those that tuned on OOD images, and their AUROCs ``(pairs, scorers)``."""
    tuned = {name for row in comparisons for name in row.get("tuned", ())}
    first = [name for name in comparisons[0]["scorers"] if name not in tuned] if comparisons else []
    names = [name for name in first if all(name in row["scorers"] for row in comparisons)]
    return names, np.array([[_auroc(row, name) for name in names] for row in comparisons])


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


def correlation_of(row: Row, scorer: str) -> float | None:
    """The largest rank correlation, in size, of a scorer with a baseline; None where there is none."""
    place = row["scorers"].index(scorer)
    found = [own[place] for own in row["correlation"].values() if own[place] is not None]
    return max(map(abs, found), default=None)


def _correlation_table(rows: Sequence[Row]) -> Table:
    baselines = distinct(name for row in rows for name in row["correlation"])
    scorers = sorted(distinct(name for row in rows for name in row["scorers"]))
    lines = [
        [text(scorer), *(_correlation(rows, scorer, baseline) for baseline in baselines)]
        for scorer in scorers
    ]
    return ["scorer", *map(text, baselines)], lines


def _correlation(rows: Sequence[Row], scorer: str, baseline: str) -> str:
    """The mean over pairs, with the range."""
    both = [row for row in rows if scorer in row["scorers"] and baseline in row["correlation"]]
    found = [row["correlation"][baseline][row["scorers"].index(scorer)] for row in both]
    known = [value for value in found if value is not None]
    if not known:
        return "–"
    return f"{np.mean(known):+.2f} [{min(known):+.2f}, {max(known):+.2f}]"


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
    best = _best(row, False)
    others = [name for name in _with_model(row) if name != best]
    if not others:
        return None
    second = max(others, key=lambda name: _auroc(row, name))
    gap = test_of(row, best, second).estimate
    return Lead(best, second, _auroc(row, best), gap, _as_good(row))


def gap_of(row: Row, one: str, other: str) -> float | None:
    """The difference of two scorers' AUROCs; None of a row that lacks one of them."""
    if not {one, other} <= set(row["scorers"]):
        return None
    return _auroc(row, one) - _auroc(row, other)


def bar(row: Row, scorer: str) -> str:
    """The best baseline of those that see no more data than a scorer, which it has to beat; empty where there is none.

    Rows that do not say who looks at `ref` are of baselines that look at none.
    """
    looking = row.get("look_at_ref", ())
    names = [name for name in row["baselines"] if scorer in looking or name not in looking]
    return max(names, key=lambda name: _auroc(row, name), default="")


def best_baseline(row: Row) -> float | None:
    """The best AUROC of a model-free baseline; None of a row without one."""
    name = _best(row, True)
    return _auroc(row, name) if name else None
