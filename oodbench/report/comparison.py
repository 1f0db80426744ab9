"""Pages that compare scorers: paired tests, ranks over pairs, correlation with baselines, and both directions at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from oodbench.errors import ScorerError, did_you_mean
from oodbench.metrics.comparison import Difference, average_ranks, critical_difference, difference, holm
from oodbench.report.tables import HEAD, bare_name, chance_mark, distinct, table
from oodbench.store import Row

LEVEL = 0.05


def compare(contests: Iterable[Row], one: str, other: str) -> tuple[list[str], list[list[str]]]:
    """Two scorers on each pair that has both: AUROCs, their difference with its interval, and p-values (DeLong, Holm).

    Raises
    ------
    ScorerError : a scorer that no pair has, or no pair with both
    """
    known = list(contests)
    names = distinct(name for row in known for name in row["scorers"])
    for name in (one, other):
        if name not in names:
            raise ScorerError(f"no result of the scorer {name!r} is stored here{did_you_mean(name, names)}")
    shared = [row for row in known if one in row["scorers"] and other in row["scorers"]]
    if not shared:
        raise ScorerError(f"{one} and {other} were measured on no common model and pair of sets")
    found = [_difference(row, one, other) for row in shared]
    corrected = holm([test.p for test in found])
    lines = [
        [row["model"], f"{row['in_dist']} → {row['ood']}", *(f"{_auroc(row, name):.3f}" for name in (one, other)),
         f"{test.estimate.value:+.3f} [{test.estimate.low:+.3f}, {test.estimate.high:+.3f}]", _p(test.p), _p(p)]
        for row, test, p in zip(shared, found, corrected, strict=True)
    ]  # fmt: skip
    return ["model", "pair", one, other, "difference", "p", "p, Holm"], lines


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _auroc(row: Row, name: str) -> float:
    return float(row["auroc"][row["scorers"].index(name)])


def _difference(row: Row, one: str, other: str) -> Difference:
    places = [row["scorers"].index(name) for name in (one, other)]
    return difference(np.array(row["auroc"]), np.array(row["covariance"]), *places)


def comparison_page(contests: Sequence[Row], figure: str | None) -> str:
    """The page of a suite: difficulty and best scorer of each pair, ranks, and correlation with the baselines."""
    parts = [HEAD, "# Scorers compared on the same images\n", PAIRS, table(*_pairs_table(contests))]
    if can_be_ranked(contests):
        names, aurocs = common(contests)
        gap = critical_difference(len(names), len(aurocs))
        lines = [[name, f"{rank:.2f}", f"{mean:.3f}"] for name, rank, mean in ranked(names, aurocs)]
        parts += [
            RANKS.format(n=len(aurocs), k=len(names), gap=gap),
            table(["scorer", "mean rank", "mean AUROC"], lines),
        ]
        parts += [f"![Mean ranks and the critical difference]({figure})\n"] if figure else []
    parts += [CORRELATION, table(*_correlation_table(contests))]
    dual = [row for row in contests if row["oracle_dual_threshold"] is not None]
    if dual:
        lines = [
            [row["model"], f"{row['in_dist']} → {row['ood']}", *(f"{_auroc(row, n):.3f}" for n in ("likelihood", "lid")),
             f"{row['oracle_dual_threshold']:.3f}"]
            for row in dual
        ]  # fmt: skip
        heads = ["model", "pair", "AUROC of likelihood", "AUROC of lid", "oracle dual threshold"]
        parts += [ORACLE, table(heads, lines)]
    return "\n".join(parts)


PAIRS = """\
**difficulty**: the best AUROC of a model-free baseline, which a scorer with a model has to beat. **beats it**: the paired DeLong
test of the best scorer against that baseline on the same images, corrected by Holm over all lines. **as good**: scorers that the
same test, corrected over the scorers of the line, does not distinguish from the best at 5 %. The best of many is chosen on these
images: its lead is somewhat flattered.
"""
RANKS = """\
## Ranks

Mean rank over the {n} models and pairs, of the {k} scorers that were measured on each. Ranks that differ by less than the
critical difference {gap:.2f} (Nemenyi, 5 %) are not distinguished; pairs that share a model or a set are not independent, so
that it is a lower bound.
"""
CORRELATION = """\
## What a scorer measures

Spearman's correlation of each scorer with each model-free baseline over the images of both sets, averaged over models and pairs,
with its range: near ±1, the scorer sorts images as the baseline does.
"""


ORACLE = """\
## Likelihood and local dimension: an oracle

Kamkari et al. (ICML 2024) flag an image by either of two thresholds and report the area under the best rates that any pair of
thresholds reaches. The thresholds are chosen with the OOD images in sight: it is an upper bound that no detector has, no AUROC.
"""


def _is_baseline(row: Row, name: str) -> bool:
    return name in row["baselines"]


def _pairs_table(contests: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    found = []
    for row in contests:
        best = {
            kind: max((n for n in row["scorers"] if _is_baseline(row, n) is kind), key=lambda n: _auroc(row, n), default="")
            for kind in (False, True)
        }  # fmt: skip
        if all(best.values()):
            found.append((row, best[False], best[True], _difference(row, best[False], best[True])))
    corrected = holm([test.p for *_, test in found])
    lines = [
        [row["model"], f"{row['in_dist']} → {row['ood']}", f"{_auroc(row, baseline):.3f} ({baseline})",
         f"{_auroc(row, best):.3f} ({best})", _beats(test, p), ", ".join(_as_good(row, best)) or "–"]
        for (row, best, baseline, test), p in zip(found, corrected, strict=True)
    ]  # fmt: skip
    return ["model", "pair", "difficulty", "best scorer", "beats it", "as good"], lines


def _beats(test: Difference, p: float) -> str:
    return f"{'yes' if test.estimate.value > 0 and p < LEVEL else 'no'} ({test.estimate.value:+.3f}, p {_p(p)})"


def _as_good(row: Row, best: str) -> list[str]:
    others = [name for name in row["scorers"] if name != best and not _is_baseline(row, name)]
    corrected = holm([_difference(row, best, name).p for name in others])
    return [name for name, p in zip(others, corrected, strict=True) if p >= LEVEL]


def common(contests: Sequence[Row]) -> tuple[list[str], np.ndarray]:
    """The scorers that every pair has, and their AUROCs ``(pairs, scorers)``."""
    names = [n for n in (contests[0]["scorers"] if contests else []) if all(n in row["scorers"] for row in contests)]
    return names, np.array([[_auroc(row, name) for name in names] for row in contests])


def can_be_ranked(contests: Sequence[Row]) -> bool:
    """Whether ranks over pairs say anything: two pairs, and three scorers that both have."""
    return len(contests) > 1 and len(common(contests)[0]) > 2


def ranked(names: Sequence[str], aurocs: np.ndarray) -> list[tuple[str, float, float]]:
    """Scorers with mean rank and mean AUROC, best first."""
    ranks = average_ranks(aurocs)
    return sorted(zip(names, ranks.tolist(), aurocs.mean(0).tolist(), strict=True), key=lambda one: one[1])


def _correlation_table(contests: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    baselines = distinct(name for row in contests for name in row["correlation"])
    lines = []
    for scorer in sorted(distinct(n for row in contests for n in row["scorers"])):
        cells = []
        for baseline in baselines:
            found = [
                row["correlation"][baseline][row["scorers"].index(scorer)]
                for row in contests
                if scorer in row["scorers"] and baseline in row["correlation"]
            ]
            known = [value for value in found if value is not None]
            cells.append(f"{np.mean(known):+.2f} [{min(known):+.2f}, {max(known):+.2f}]" if known else "–")
        lines.append([scorer, *cells])
    return ["scorer", *baselines], lines


def matrix_page(rows: Iterable[Row]) -> str:
    """For each scorer the AUROC of every model (in-dist) on every OOD set, and what both directions of a pair come to."""
    sound = [r for r in rows if r["status"] == "ok" and r["group_size"] == 1 and not r["synthetic"]]
    parts = [HEAD, "# In-dist × OOD\n", MATRIX]
    for scorer in distinct(sorted(r["scorer"] for r in sound)):
        own = [r for r in sound if r["scorer"] == scorer]
        columns = sorted({bare_name(r["ood"]) for r in own})
        lines = []
        for model in distinct(r["model"] for r in sorted(own, key=lambda r: (r["in_dist"], r["model"]))):
            cells = {bare_name(r["ood"]): r for r in own if r["model"] == model}
            in_dist = bare_name(next(iter(cells.values()))["in_dist"])
            lines.append([in_dist, model, *(_cell(cells.get(name), name == in_dist) for name in columns)])
        parts += [f"## {scorer}\n", table(["in-dist", "model", *columns], lines)]
        traded = _directions(own)
        parts += [traded] if traded else []
    return "\n".join(parts)


MATRIX = """\
AUROC of each scorer: a line for each model and the set that it was trained on, a column for each OOD set; ▼ worse than chance.
Parts of a set count as the set. Below, pairs of sets with both directions, by the best model of each: a scorer that wins one
direction by losing the other has a low *lowest*.
"""


def _cell(row: Row | None, diagonal: bool) -> str:
    if row is None:
        return "·" if diagonal else ""
    return f"{row['auroc']:.3f}{chance_mark(row['auroc'])}"


def _directions(rows: list[Row]) -> str:
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        pair = bare_name(row["in_dist"]), bare_name(row["ood"])
        best[pair] = max(row["auroc"], best.get(pair, 0.0))
    both = [(a, b) for a, b in best if a < b and (b, a) in best]
    told = [
        f"{a} → {b} {best[a, b]:.3f}, {b} → {a} {best[b, a]:.3f}: lowest {min(best[a, b], best[b, a]):.3f}"
        for a, b in sorted(both)
    ]
    return "".join(f"- {line}\n" for line in told)
