"""Likelihood of contracted sets: towards mid-grey, as in the paper, and towards their own mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

from oodbench.analysis.contraction import MODERATE, moderate
from oodbench.analysis.expected import Expected
from oodbench.analysis.verdicts import trend
from oodbench.report.illustrations import Illustration, left_out
from oodbench.report.made import labelled
from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.section import Analysis, Section
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import text
from oodbench.store import Row

HEADS = ["model", "set", "bits/dim", "overtakes in-dist at", "likeliest at", "bits/dim there"]
CHANGE_HEADS = ["model", "set", "towards mid-grey", "towards its own mean"]
WORDS = (
    "Contraction moves pixels towards a centre and scales a set's variances by the square of its factor. The paper "
    "contracts CIFAR-10 towards mid-grey and finds the likelihood raised. That moves the set's mean too; contraction "
    "towards the set's own mean does not, and so tests on every model what the second-order analysis says: less "
    "variance, likelier. The first table gives the largest factor at which a set contracted towards grey becomes "
    "likelier than the in-dist set as it is: `as it is` for sets that are so without contraction. The second has "
    "the change of mean log p at moderate factors, in nats."
)
CENTRES = {"change": "towards mid-grey", "own_mean_change": "towards its own mean"}
"""Field of a row, and the contraction that it is of."""


def overtaking(row: Row) -> float | None:
    """The largest factor, in per cent, at which a contracted set is likelier than the in-dist set.

    Between measured factors by linear interpolation; None where it never is.
    """
    limit = row["in_dist_bits_per_dim"][0]
    curve = [(percent, mean - limit) for percent, mean in _measured(row)]
    if curve and curve[-1][1] < 0:
        return 100.0
    for (low, below), (high, above) in zip(curve[-2::-1], curve[:0:-1]):
        if below < 0 <= above:
            return low + (high - low) * below / (below - above)
    return None


def _measured(row: Row) -> list[tuple[float, float]]:
    """Factor and mean bits/dim of the points whose values are all finite."""
    return [(point[0], point[1]) for point in row["curve"] if len(point) > 1]


def section(analysis: Analysis) -> Section:
    known = [row for row in analysis.of_kind("graying") if row["in_dist_bits_per_dim"]]
    rows = sorted((row for row in known if _measured(row)), key=_order)
    names = [[text(analysis.results.label(row)), text(row["images"])] for row in rows]
    lines = [[*name, *_line(row)] for name, row in zip(names, rows, strict=True)]
    moved = [[*name, *_moved(row)] for name, row in zip(names, rows, strict=True)]
    own = [row for row in rows if row["role"] == "test"]
    words = [*_summary(own), WORDS, *(_sentence(_subject(analysis, row), row) for row in own)]
    tables = [(HEADS, lines), (CHANGE_HEADS, moved)]
    return Section("Graying", words, tables, analysis.figures("graying"))


def conclusion(analysis: Analysis) -> str:
    """What moderate contraction of in-dist sets does to their likelihood, over all models; empty where none was measured."""
    known = [row for row in analysis.of_kind("graying") if row["in_dist_bits_per_dim"]]
    return " ".join(_summary([row for row in known if row["role"] == "test" and _measured(row)]))


# what moderate contraction does


def moderate_changes(row: Row, field: str) -> dict[int, Expected]:
    """Per cent → change of mean log p in nats at moderate factors; empty where a row has none of that contraction.

    Rows of before the change was stored have the curve towards grey alone; its errors are not paired, and so too wide.
    """
    if field in row:
        return moderate({point[0]: Expected(*point[1:]) for point in row[field] if len(point) > 1})
    return moderate(_unpaired(row)) if field == "change" else {}


def _unpaired(row: Row) -> dict[int, Expected]:
    nats = row["dimensions"] * math.log(2)
    bits = {
        point[0]: Expected(-nats * point[1], nats * point[2])
        for point in row["curve"]
        if len(point) > 1
    }
    whole = bits.pop(100, None)
    return {percent: one - whole for percent, one in bits.items()} if whole else {}


def _moved(row: Row) -> list[str]:
    return [_changes_text(moderate_changes(row, field)) or "–" for field in CENTRES]


def _changes_text(changes: Mapping[int, Expected]) -> str:
    return ", ".join(
        f"{percent} %: {changes[percent]}" for percent in sorted(changes, reverse=True)
    )


def _subject(analysis: Analysis, row: Row) -> str:
    return labelled(text(analysis.results.label(row)), row["model"])


def _sentence(subject: str, row: Row) -> str:
    """What contraction of the in-dist set does to one model, with the numbers."""
    found = {centre: moderate_changes(row, field) for field, centre in CENTRES.items()}
    told = [
        f"{centre} it {trend(changes)} ({_changes_text(changes)} nats)"
        for centre, changes in found.items()
        if changes
    ]
    if not told:
        return f"{subject}: no moderate contraction of {text(row['images'])} was measured."
    return f"{subject}, moderate contraction of {text(row['images'])}: {'; '.join(told)}."


def _summary(rows: list[Row]) -> list[str]:
    """How many models find their in-dist set likelier when it is contracted."""
    found = {
        centre: [trend(changes) for row in rows if (changes := moderate_changes(row, field))]
        for field, centre in CENTRES.items()
    }
    told = [_counted(centre, trends) for centre, trends in found.items() if trends]
    return (
        [
            f"Moderate contraction of the in-dist set, to {MODERATE[0]} % and less far: {'; '.join(told)}."
        ]
        if told
        else []
    )


def _counted(centre: str, trends: list[str]) -> str:
    raised, lowered = (trends.count(f"{verb} log p") for verb in ("raises", "lowers"))
    return (
        f"{centre} it raises the likelihood of {raised} of {len(trends)} models, lowers that of {lowered}, and does "
        f"neither throughout for {len(trends) - raised - lowered}"
    )


def _order(row: Row) -> tuple[str, str, int, bool, str]:
    return row["in_dist"], row["model"], row["seed"], row["role"] != "test", row["images"]


def _line(row: Row) -> list[str]:
    curve = _measured(row)
    best, there = min(curve, key=lambda point: point[1])
    factor = overtaking(row)
    at = "never" if factor is None else "as it is" if factor == 100 else f"{factor:.0f} %"
    if (
        row["role"] == "test" and factor == 100
    ):  # the images drawn of it happen to be likelier than all of it
        at = "it is in-dist"
    return [f"{curve[-1][1]:.3f}", at, f"{best} %", f"{there:.3f}"]


def figure(results: Results, subject: Subject) -> Illustration | None:
    """Mean bits/dim of each set against the factor of contraction, and histograms of the in-dist set contracted, as in
    the paper's Figure 6."""
    rows = [row for row in results.explained if row["kind"] == "graying"]
    own = [row for row in rows if subject_of(row) == subject]
    if not own:
        return None
    both = any("own_mean_curve" in row for row in own)
    towards = (
        "towards mid-grey (left) and towards its own mean (right)" if both else "towards mid-grey"
    )
    curves = results.curves_of("contracted", subject)
    below = " Below: histograms of log p(x) of the in-dist images, as they are and contracted."
    caption = (
        f"Mean bits/dim of {max(row['n'] for row in own)} test images of each set, contracted {towards}: 100 % is the "
        f"image, 0 % the centre. Bars: standard errors.{below * bool(curves)} "
        f"{where_text(subject)}.{left_out(curves)}"
    )
    return Illustration("graying", results.name_of(subject), caption, [*own, *curves])
