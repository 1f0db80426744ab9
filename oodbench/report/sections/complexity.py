"""Is it only complexity? What scorers add to the best baseline, and what they keep when the baselines are taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from oodbench.metrics.intervals import Estimate
from oodbench.report.comparison import ALPHA, bar, correlation_of, gap_text, test_of
from oodbench.report.results import subject_of
from oodbench.report.section import Analysis, Section
from oodbench.report.sections.statements import is_headline
from oodbench.report.tables import chance_mark, distinct, short_name, text
from oodbench.store import Row

TITLE = "Is it only complexity?"
WORDS = (
    "What a codec or a plain number of the pixels sees of an image needs no model. Three questions to each scorer. *Beats its "
    "bar*: is it above the best baseline that sees no more data, in the paired test on the same images (DeLong, 5 %)? "
    "*Correlation*: the largest rank correlation, in size, with a baseline. *Adjusted*: the AUROC of what is left of its score "
    "when {covariates} are taken out, by a regression fitted on one half of the in-dist reference images, linear or a cubic "
    "spline of each, straight beyond what the reference has; the other half fits the scorers that fit. An adjusted AUROC of ½ "
    "says that OOD images score what in-dist images of the same complexity would. Where OOD images lie beyond the reference, "
    "the two forms part: the regression then continues a line that no image supports."
)
AUROCS = ["AUROC", "adjusted, linear", "adjusted, spline"]
HEADS = ["scorer", "pairs", "beats its bar", "below it", "correlation", *AUROCS]
OF_PAIRS = ["model", "pair", "scorer", "less its bar", *AUROCS]


class Judged(NamedTuple):
    """One scorer on one pair: its AUROC as it is and adjusted, and the row of the pair's comparison, where there is one."""

    scorer: str
    row: Row
    compared: Row | None
    auroc: Estimate
    linear: Estimate
    spline: Estimate

    @property
    def bar(self) -> str:
        """The best baseline that sees no more data; empty where nothing was compared."""
        known = self.compared and self.scorer in self.compared["scorers"]
        return bar(self.compared, self.scorer) if self.compared and known else ""


def section(analysis: Analysis) -> Section:
    rows = analysis.of_kind("complexity")
    found = [one for row in rows for one in _judged(analysis, row)]
    if not found:
        return Section(TITLE, [])
    covariates = distinct(name for row in rows for name in row["covariates"])
    words = WORDS.format(covariates=", ".join(f"`{name}`" for name in covariates))
    scorers = distinct(one.scorer for one in found)
    lines = [_line([one for one in found if one.scorer == name]) for name in scorers]
    lines.sort(key=lambda line: line[-1], reverse=True)
    headline = [_of_pair(analysis, one) for one in found if _is_headline(analysis, one.row)]
    return Section(TITLE, [words, verdict(found)], [(HEADS, lines), (OF_PAIRS, headline)])


def _judged(analysis: Analysis, row: Row) -> Iterable[Judged]:
    compared = next((one for one in analysis.results.comparisons if _same_pair(one, row)), None)
    numbers = zip(row["scorers"], row["auroc"], row["linear"], row["spline"], strict=True)
    for name, *values in numbers:
        yield Judged(name, row, compared, *(Estimate(*one) for one in values))


def _same_pair(one: Row, row: Row) -> bool:
    return subject_of(one) == subject_of(row) and one["ood"] == row["images"]


def _is_headline(analysis: Analysis, row: Row) -> bool:
    pairs = (pair for pair in analysis.pairs(synthetic=False) if is_headline(pair))
    return any(_same_pair(row | {"ood": ood["images"]}, ood) for _, ood in pairs)


def verdict(found: Sequence[Judged]) -> str:
    """How many of the scorers' pairs beat their bar, and how many keep their whole adjusted interval above ½ in both forms."""
    tested = [_side(one) for one in found if one.bar]
    kept = [one for one in found if min(one.linear.low, one.spline.low) > 0.5]
    pairs = {(subject_of(one.row), one.row["images"]) for one in found}
    beats = (
        f"a scorer beats its bar {tested.count(1)} of {len(tested)} times, and is below it {tested.count(-1)} times; "
        if tested
        else ""
    )
    return (
        f"Over {len(pairs)} models and pairs of sets {beats}with the baselines taken out it stays above chance, by both forms, "
        f"{len(kept)} of {len(found)} times."
    )


def _side(one: Judged) -> int:
    """1 above its bar, −1 below it, 0 where the paired test does not tell."""
    assert one.compared
    test = test_of(one.compared, one.scorer, one.bar)
    return int(np.sign(test.estimate.value)) if test.p < ALPHA else 0


def _line(own: Sequence[Judged]) -> list[str]:
    sides = [_side(one) for one in own if one.bar]
    counts = [f"{sides.count(side)} of {len(sides)}" if sides else "–" for side in (1, -1)]
    means = [
        _mean([getattr(one, form).value for one in own]) for form in ("auroc", "linear", "spline")
    ]
    return [text(own[0].scorer), str(len(own)), *counts, _correlation(own), *means]


def _mean(values: Sequence[float]) -> str:
    """``mean (worst)``."""
    mean, worst = float(np.mean(values)), min(values)
    return f"{mean:.3f}{chance_mark(mean)} ({worst:.3f})"


def _correlation(own: Sequence[Judged]) -> str:
    """The mean over pairs of the largest correlation in size with a baseline, and the range."""
    found = [correlation_of(one.compared, one.scorer) for one in own if one.bar and one.compared]
    known = [value for value in found if value is not None]
    return f"{np.mean(known):.2f} [{min(known):.2f}, {max(known):.2f}]" if known else "–"


def _of_pair(analysis: Analysis, one: Judged) -> list[str]:
    ahead = "–"
    if one.compared and one.bar:
        gap = test_of(one.compared, one.scorer, one.bar).estimate
        ahead = f"{gap_text(gap)} ({text(one.bar)})"
    pair = f"{short_name(one.row['in_dist'])} → {short_name(one.row['images'])}"
    names = [text(analysis.results.label(one.row)), text(pair), text(one.scorer)]
    return [*names, ahead, *map(str, (one.auroc, one.linear, one.spline))]
