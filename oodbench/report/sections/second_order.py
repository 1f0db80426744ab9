"""Predicted against measured sign of each pair, and the moments of the data that predict it."""

from __future__ import annotations

from oodbench.report.illustrations import Illustration, left_out
from oodbench.report.results import Results
from oodbench.report.section import Analysis, Section
from oodbench.report.tables import distinct, short_names, text
from oodbench.store import Row

HEADS = [
    "model",
    "in-dist",
    "OOD",
    "measured",
    "first order",
    "second order",
    "diagonal",
    "closed form",
    "sign",
    "data alone",
]
WORDS = (
    "Around the in-dist mean, log p is replaced by its gradient and its Hessian: E_ood[log p] − E_in[log "
    "p] ≈ ∇log p·(µ_ood − µ_in) + ½ Tr[∇²log p (S_ood − S_in)], in nats. `diagonal` uses per-pixel "
    "variances alone, as the paper does; the closed form needs only the 1×1 convolutions of a "
    "constant-volume Glow. `data alone` needs no model: where all channels of the OOD set have the "
    "smaller summed variance, it lies inside the in-dist set and is predicted to be likelier."
)


def section(analysis: Analysis) -> Section:
    rows = [row for row in analysis.of_kind("second-order") if not row["synthetic"]]
    lines = [[*_names(analysis, row), *_numbers(row), _sign(row), _data_alone(row)] for row in rows]
    words = [WORDS, _tally(rows)]
    figures = analysis.figures("data")
    return Section("Why: location, variance and curvature", words, [(HEADS, lines)], figures)


def _names(analysis: Analysis, row: Row) -> list[str]:
    return [text(analysis.results.label(row)), text(row["in_dist"]), text(row["images"])]


def _numbers(row: Row) -> list[str]:
    closed = "–" if row["closed_form"] is None else f"{row['closed_form']:+,.1f}"
    terms = [_estimate(row[name]) for name in ("measured", "first", "second", "diagonal")]
    return [*terms, closed]


def _estimate(value: list[float]) -> str:
    return f"{value[0]:+,.1f}" + f" ± {value[1]:,.1f}" * (value[1] > 0)


def _predicted(row: Row) -> float:
    return float(row["first"][0] + row["second"][0])


def _is_right(row: Row) -> bool:
    return _predicted(row) * float(row["measured"][0]) > 0


def _sign(row: Row) -> str:
    uncertain = abs(_predicted(row)) < 2 * row["second"][1]
    return ("right" if _is_right(row) else "wrong") + " (within its error)" * uncertain


def _inside(row: Row) -> bool | None:
    """Whether the OOD set lies inside the in-dist set by its summed variances; None where it does in some
    channels alone."""
    of_in, of_ood = row["variance_sums"]
    smaller = [b < a for a, b in zip(of_in, of_ood, strict=True)]
    return smaller[0] if all(smaller) or not any(smaller) else None


def _is_right_of_data(row: Row) -> bool:
    return (row["measured"][0] > 0) is _inside(row)


def _data_alone(row: Row) -> str:
    """Where the OOD set lies, and whether what follows is so."""
    inside = _inside(row)
    if inside is None:
        return "neither"
    verdict = "right" if _is_right_of_data(row) else "wrong"
    return f"{'inside' if inside else 'outside'}: {verdict}"


def _tally(rows: list[Row]) -> str:
    signs = sum(map(_is_right, rows))
    predicted = [row for row in rows if _inside(row) is not None]
    right = sum(map(_is_right_of_data, predicted))
    return (
        f"The expansion has the sign right on {signs} of {len(rows)} pairs of a flow and an OOD set; the "
        f"data alone predict a sign on {len(predicted)}, rightly on {right}."
    )


def figures(results: Results) -> list[Illustration]:
    """Histograms of each pixel's mean and variance over a set, as in the paper's Figure 5; one figure an
    in-dist set."""
    likelihoods = [row for row in results.explained if row["kind"] == "likelihood"]
    curves = [row for row in results.curves if row["kind"] == "data"]
    found = distinct(sorted(row["in_dist"] for row in [*likelihoods, *curves]))
    names = short_names(found)
    return [_figure(name, in_dist, likelihoods, curves) for in_dist, name in names.items()]


def _figure(name: str, in_dist: str, likelihoods: list[Row], curves: list[Row]) -> Illustration:
    own = [row for row in curves if row["in_dist"] == in_dist]
    drawn = [one["set"] for row in own for one in row["sets"]]
    measured = [row for row in likelihoods if row["in_dist"] == in_dist and row["role"] == "ood"]
    real = sorted(row["images"] for row in measured if not row["synthetic"])
    known = drawn or [in_dist, *real]
    sets = ", ".join(text(one) for one in distinct(known))
    caption = (
        "Mean and variance of each pixel over the images of a set, in units of the full scale: "
        f"{sets}.{left_out(own)}"
    )
    return Illustration("data", name, caption, own)
