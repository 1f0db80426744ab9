"""Likelihood against the factor of contraction."""

from __future__ import annotations

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.section import Analysis, Section
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import text
from oodbench.store import Row

HEADS = ["model", "set", "bits/dim", "overtakes in-dist at", "likeliest at", "bits/dim there"]
WORDS = (
    "Contracting an image towards mid-grey shrinks its variance and leaves what it shows. The paper "
    "finds that this raises the likelihood. The table gives the largest factor at which a contracted set "
    "becomes likelier than the in-dist set as it is: `as it is` for sets that are so without "
    "contraction."
)


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
    rows = [row for row in known if _measured(row)]
    lines = [[text(analysis.results.label(row)), *_line(row)] for row in sorted(rows, key=_order)]
    return Section("Graying", [WORDS], [(HEADS, lines)], analysis.figures("graying"))


def _order(row: Row) -> tuple[str, str, int, bool, str]:
    return row["in_dist"], row["model"], row["seed"], row["role"] != "test", row["images"]


def _line(row: Row) -> list[str]:
    curve = _measured(row)
    best, there = min(curve, key=lambda point: point[1])
    factor = overtaking(row)
    at = "never" if factor is None else "as it is" if factor == 100 else f"{factor:.0f} %"
    return [text(row["images"]), f"{curve[-1][1]:.3f}", at, f"{best} %", f"{there:.3f}"]


def figure(results: Results, subject: Subject) -> Illustration | None:
    """Mean bits/dim of each set against the factor of contraction, as in the paper's Figure 6."""
    rows = [row for row in results.explained if row["kind"] == "graying"]
    own = [row for row in rows if subject_of(row) == subject]
    if not own:
        return None
    caption = (
        f"Mean bits/dim of {max(row['n'] for row in own)} test images of each set, contracted "
        "towards mid-grey: 100 % is the image, 0 % is a grey square. Bars: standard errors. "
        f"{where_text(subject)}."
    )
    return Illustration("graying", results.name_of(subject), caption, own)
