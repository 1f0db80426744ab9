"""Which term of the change of variables makes the gap."""

from __future__ import annotations

import math

from oodbench.report.illustrations import BEYOND, Illustration, left_out
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Section
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import text
from oodbench.store import Row

HEADS = ["model", "in-dist", "OOD", "gap of log p(x)", "of log p(z)", "of the log-determinant"]
WORDS = (
    "log p(x) = log p(z) + log|det ∂z/∂x|. The table takes the difference of means, OOD minus in-dist, "
    "apart in nats; in brackets the share of the gap that each term explains. The shares add up to 100 "
    "%. A gap with an error as large as itself is that of a few images."
)


def section(analysis: Analysis) -> Section:
    lines = []
    for test, ood in analysis.pairs(synthetic=False):
        if test.get("log_det") and ood.get("log_det"):
            names = [text(analysis.results.label(ood)), text(ood["in_dist"]), text(ood["images"])]
            lines.append([*names, *_shares(test, ood)])
    figures = analysis.figures("decomposition")
    return Section("The change of variables, taken apart", [WORDS], [(HEADS, lines)], figures)


def _shares(test: Row, ood: Row) -> list[str]:
    """The gap with its error, and what each term makes of it."""
    gap, *terms = (ood[name][0] - test[name][0] for name in ("log_prob", "log_prob_z", "log_det"))
    error = math.hypot(ood["log_prob"][1], test["log_prob"][1])
    return [f"{gap:+,.1f} ± {error:,.1f}", *(f"{term:+,.1f}{_share(term, gap)}" for term in terms)]


def _share(term: float, gap: float) -> str:
    return f" ({round(term / gap, 2) + 0.0:+.0%})" if gap else ""


def figure(results: Results, subject: Subject) -> Illustration:
    """Histograms of log p(z) and of log|det| over the in-dist and the OOD test sets, as in the paper's
    Figure 4."""
    curves = results.curves_of("decomposition", subject)
    caption = (
        "The two terms of log p(x) of all test images: log p(z), and log|det ∂z/∂x| in pixel levels. "
        f"{where_text(subject)}. {BEYOND}{left_out(curves)}"
    )
    return Illustration("decomposition", results.name_of(subject), caption, curves)
