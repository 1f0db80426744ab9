"""The page that compares scorers: who beats whom, each pair's best, ranks over pairs, and correlation with baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from oodbench.metrics.comparison import Difference, critical_difference, holm
from oodbench.report.comparison import (
    ALPHA,
    LIKELIHOOD,
    PAIRED,
    Table,
    as_good,
    auroc_of,
    bar,
    best_baseline,
    best_of,
    can_be_ranked,
    common,
    gap_text,
    in_order,
    p_text,
    paired_cells,
    ranked,
    test_of,
    with_model,
)
from oodbench.report.duels import Tally, duel
from oodbench.report.links import Links, page_head
from oodbench.report.made import sizes_sentence
from oodbench.report.older import older_sentence
from oodbench.report.results import Results
from oodbench.report.tables import bare_table, distinct, folded, set_name, short, text
from oodbench.store import Row

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


DUELS = """\
On how many models and pairs the scorer of the row is **better–worse–undecided** against that of the column, by the paired
DeLong test on the same images, corrected over the pairs (Holm, 5 %). Columns: the scorers of best mean rank, and likelihood.
Any two, pair by pair: `oodbench compare {one} {other}`.
"""
COLUMNS = 5
"""Scorers that each other is set against, beside likelihood."""


def comparison_page(results: Results, figure: str | None, links: Links | None = None) -> str:
    """The page of a suite: who beats whom, difficulty and best scorer of each pair, ranks, and correlation with the
    baselines."""
    rows = in_order(results.comparisons)
    title = "Scorers compared on the same images"
    parts = page_head(title, links, "comparison.md") if links else [f"# {title}\n"]
    parts += _duels(rows) + _each_pair(results, rows) + _ranks(rows, figure)
    if any(row.get("paired") for row in rows):
        parts += [GAPS, folded("Each pair", bare_table(*_gaps_table(results, rows)))]
    parts += [CORRELATION, bare_table(*_correlation_table(rows))]
    dual = [row for row in rows if row["oracle_dual_threshold"] is not None]
    if dual:
        lines = [[*_pair(results, row), *_oracle(row)] for row in dual]
        heads = ["model", "pair", "AUROC of likelihood", "AUROC of lid", "oracle dual threshold"]
        parts += [ORACLE, bare_table(heads, lines)]
    return "\n".join([*parts, *older_sentence(rows)])


def _duels(rows: Sequence[Row]) -> list[str]:
    """A line for each scorer with a model against the best ranked ones; nothing of fewer than two scorers."""
    names = distinct(name for row in rows for name in with_model(row))
    if len(names) < 2:
        return []
    first = [name for name, _, _ in ranked(rows) if name in names] if common(rows)[0] else []
    columns = distinct([*first[:COLUMNS], *([LIKELIHOOD] if LIKELIHOOD in names else [])])
    found = {(one, other): duel(rows, one, other) for one in names for other in columns}
    order = sorted(names, key=lambda name: _standing_of(name, first, columns, found))
    lines = [
        [text(one), *(_duel_cell(found[one, other], one == other) for other in columns)]
        for one in order
    ]
    words = DUELS.format(one=order[0], other=order[1])
    return [bare_table(["scorer", *map(text, columns)], lines), words]


def _standing_of(
    name: str, first: Sequence[str], columns: Sequence[str], found: Mapping[tuple[str, str], Tally]
) -> tuple[int, float, str]:
    """Ranked scorers in their order, then the others by their share of won less lost pairs."""
    own = [found[name, other] for other in columns if other != name]
    share = sum(one.better - one.worse for one in own) / max(1, sum(one.pairs for one in own))
    return first.index(name) if name in first else len(first), -share, name


def _duel_cell(found: Tally, same: bool) -> str:
    return "·" if same else str(found) if found.pairs else ""


def _each_pair(results: Results, rows: Sequence[Row]) -> list[str]:
    sizes = sizes_sentence(row["model"] for row in rows)
    table = bare_table(*_pairs_table(results, rows))
    words = f"{PAIRS}{sizes}\n" if sizes else PAIRS
    return [
        "## Each pair\n",
        folded("Difficulty and best scorer of each pair", f"{words}\n{table}"),
    ]


def _ranks(rows: Sequence[Row], figure: str | None) -> list[str]:
    if not can_be_ranked(rows):
        return []
    names, aurocs = common(rows)
    gap = critical_difference(len(names), len(aurocs))
    lines = [[text(name), f"{rank:.2f}", short(mean)] for name, rank, mean in ranked(rows)]
    words = RANKS.format(n=len(aurocs), k=len(names), gap=gap)
    drawn = [f"![Mean ranks and the critical difference]({figure})\n"] if figure else []
    return [
        words,
        bare_table(["scorer", "mean rank", "mean AUROC over in-dist sets"], lines),
        *drawn,
    ]


def _pair(results: Results, row: Row) -> list[str]:
    sets = (text(set_name(row[side])) for side in ("in_dist", "ood"))
    return [text(results.label(row)), " → ".join(sets)]


def _oracle(row: Row) -> list[str]:
    return [
        *(f"{auroc_of(row, name):.3f}" for name in ("likelihood", "lid")),
        f"{row['oracle_dual_threshold']:.3f}",
    ]


def _pairs_table(results: Results, rows: Sequence[Row]) -> Table:
    judged = [row for row in rows if (best := best_of(row, False)) and bar(row, best)]
    bests = [best_of(row, False) for row in judged]
    tests = [test_of(row, best, bar(row, best)) for row, best in zip(judged, bests, strict=True)]
    corrected = holm([test.p for test in tests])
    lines = [
        [*_pair(results, row), *_named_best(row), _beats(test, p), _as_good_cell(row)]
        for row, test, p in zip(judged, tests, corrected, strict=True)
    ]
    return ["model", "pair", "difficulty", "best scorer", "beats its bar", "as good"], lines


def _as_good_cell(row: Row) -> str:
    return ", ".join(map(text, as_good(row))) or "–"


def _gaps_table(results: Results, rows: Sequence[Row]) -> Table:
    """The best scorer of each pair against the best baseline and against likelihood."""
    bests = [best_of(row, False) for row in rows]
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
    hardest, best = (
        f"{auroc_of(row, name):.3f} ({text(name)})"
        for name in (best_of(row, True), best_of(row, False))
    )
    return [hardest + _reversed_bar(row), best]


def _reversed_bar(row: Row) -> str:
    """What the best baseline would reach with its sign turned; empty where one is above chance as it is."""
    lowest = min(row["baselines"], key=lambda name: auroc_of(row, name))
    if (best_baseline(row) or 0.0) >= 0.5:
        return ""
    return f"; turned round {1 - auroc_of(row, lowest):.3f} ({text(lowest)})"


def _beats(test: Difference, p: float) -> str:
    won = test.estimate.value > 0 and p < ALPHA
    return f"{'yes' if won else 'no'} ({test.estimate.value:+.3f}, p {p_text(p)})"


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
