"""Predicted against measured sign and size of each gap, what the prediction assumes, and the moments of the data
that predict a sign without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import median

from oodbench.analysis.expected import SURE, Expected
from oodbench.analysis.verdicts import (
    AT_DATA,
    CLOSED,
    DATA,
    DIAGONAL,
    WHOLE,
    Judged,
    Tally,
    predicted_by_data,
    predictions,
    tally,
)
from oodbench.report.illustrations import Illustration, left_out
from oodbench.report.results import Results
from oodbench.report.section import Analysis, Pair, Section, Table
from oodbench.report.tables import distinct, short_names, text
from oodbench.store import Row

PAIR_HEADS = ["model", "in-dist", "OOD"]
GAP_HEADS = [*PAIR_HEADS, "measured", "predicted", "sign", "predicted / measured", "data alone"]
TERM_HEADS = [
    *PAIR_HEADS,
    "first order",
    "second order",
    "diagonal",
    "closed form",
    "at images",
]
ASSUMED_HEADS = [
    *PAIR_HEADS,
    "first / second order",
    "means apart",
    "off-diagonal in-dist",
    "off-diagonal OOD",
    "spread of vᵀHv / mean",
    "spread of −Σ log σ, nats",
]
TALLY_HEADS = ["prediction", "right", "wrong", "undecided", "pairs", "predicted / measured, median"]
DATA_HEADS = ["in-dist", "OOD", "variance sums", "OOD lies", "right for", "wrong for", "undecided"]
NAMED = {
    WHOLE: "first and second order",
    DIAGONAL: "diagonal second order, as in the paper",
    AT_DATA: "first order, and second with the curvature at images",
    CLOSED: "closed form",
    DATA: "data alone, models of all families",
}
WORDS = (
    "Around the in-dist mean, log p is replaced by its gradient and its Hessian: E_ood[log p] − E_in[log "
    "p] ≈ ∇log p·(µ_ood − µ_in) + ½ Tr[∇²log p (S_ood − S_in)], in nats. `diagonal` uses per-pixel "
    "variances alone, as the paper does; the closed form needs only the 1×1 convolutions of a "
    "constant-volume Glow; `at images` averages the curvature over in-dist images, each with other images as "
    "probes. `data alone` needs no model: where all channels of the OOD set have the smaller summed variance, "
    "it lies inside the in-dist set and is predicted to be likelier."
)
RULE = (
    "A sign is undecided where the prediction or the measurement lies within "
    f"{SURE} standard errors of zero; sizes are compared where the measurement does not."
)
ASSUMED = (
    "How valid is it? The expansion takes log p for a quadratic with one curvature, the diagonal form takes "
    "pixels for uncorrelated, the paper's argument takes the means for equal and the prior for N(0, I). The last "
    "table puts a number to each: the first-order term against the second-order one; the distance of the means in "
    "units of √Σσ² of the in-dist set; the share of the covariance's squares off its diagonal; the "
    "standard deviation of vᵀ∇²log p(x)v over in-dist images x, against its mean; and that of the prior's volume "
    "−Σ log σ, which N(0, I) keeps at 0."
)
UNKNOWN = "A dash stands where a row was measured before its number was stored."
VarianceSums = Mapping[str, list[Expected]]


def conclusion(analysis: Analysis) -> str:
    """How often each form predicts the sign, and the size; empty where nothing is predicted."""
    sums = variance_sums_of(analysis.results)
    return _lead(_tallies(_rows(analysis), [judged for _, judged in _by_data(analysis, sums)]))


def _rows(analysis: Analysis) -> list[Row]:
    return [row for row in analysis.of_kind("second-order") if not row["synthetic"]]


def section(analysis: Analysis) -> Section:
    rows = _rows(analysis)
    sums = variance_sums_of(analysis.results)
    by_data = _by_data(analysis, sums)
    tallies = _tallies(rows, [judged for _, judged in by_data])
    tables: list[Table] = [
        (TALLY_HEADS, [_tally_line(form, own) for form, own in tallies.items()]),
        (GAP_HEADS, [[*_names(analysis, row), *_gap(row, sums)] for row in rows]),
        (TERM_HEADS, [[*_names(analysis, row), *_terms_cells(row)] for row in rows]),
        (DATA_HEADS, _data_lines(analysis, by_data, sums)),
        (ASSUMED_HEADS, [[*_names(analysis, row), *_assumed(row)] for row in rows]),
    ]
    words = [_lead(tallies), WORDS, RULE, *_validity(rows)] if tallies else [WORDS]
    figures = analysis.figures("data")
    return Section("Why: location, variance and curvature", words, tables, figures)


def _names(analysis: Analysis, row: Row) -> list[str]:
    return [text(analysis.results.label(row)), text(row["in_dist"]), text(row["images"])]


# predictions and their tallies


def _terms(row: Row) -> dict[str, Expected | None]:
    sampled = {
        name: Expected(*row[name]) if row.get(name) else None
        for name in ("first", "second", "diagonal", "at_data")
    }
    # rows of before the prior's volume was stored have the closed form of learned priors too, for which it does not hold
    closed = row["closed_form"] if "prior_volume_spread" in row else None
    return {**sampled, "closed_form": None if closed is None else Expected(closed)}


def _judged(row: Row) -> dict[str, Judged]:
    """What each form predicts, beside what was measured."""
    measured = Expected(*row["measured"])
    return {form: Judged(found, measured) for form, found in predictions(_terms(row)).items()}


def _tallies(rows: list[Row], by_data: list[Judged]) -> dict[str, Tally]:
    """The tally of each form that predicts something here."""
    found: dict[str, list[Judged]] = {form: [] for form in NAMED}
    for row in rows:
        for form, judged in _judged(row).items():
            found[form].append(judged)
    found[DATA] = by_data
    return {form: tally(own) for form, own in found.items() if own}


def _tally_line(form: str, own: Tally) -> list[str]:
    counts = [f"{own.right}", f"{own.wrong}", f"{own.undecided}", f"{own.pairs}"]
    return [NAMED[form], *counts, "–" if form == DATA else _times(own.ratio)]


def _times(ratio: float | None) -> str:
    """A ratio of sizes as a cell."""
    return "–" if ratio is None else f"{ratio:,.0f} ×" if ratio >= 10 else f"{ratio:.2f} ×"


def _lead(tallies: Mapping[str, Tally]) -> str:
    return " ".join(
        _told(form, tallies[form]) for form in (WHOLE, DIAGONAL, DATA) if form in tallies
    )


TOLD = {
    WHOLE: "The expansion predicts",
    DIAGONAL: "The paper's diagonal form predicts",
    DATA: "The variances of the data alone, over models of all families, predict",
}


def _told(form: str, own: Tally) -> str:
    gaps = "gap" if own.pairs == 1 else "gaps"
    told = (
        f"{TOLD[form]} the sign of {own.pairs} {gaps}: {own.right} right, {own.wrong} wrong, "
        f"{own.undecided} undecided"
    )
    size = own.ratio is not None and form != DATA
    return told + (
        f"; in the median its size is {_times(own.ratio)} the measured one." if size else "."
    )


def _gap(row: Row, sums: VarianceSums) -> list[str]:
    judged = _judged(row)[WHOLE]
    shown = [_estimate(judged.measured), _estimate(judged.predicted)]
    return [*shown, judged.verdict, _times(judged.ratio), _data_alone(row, sums)]


def _estimate(value: Expected | None) -> str:
    return "–" if value is None else str(value)


def _terms_cells(row: Row) -> list[str]:
    terms = _terms(row)
    return [
        _estimate(terms[name]) for name in ("first", "second", "diagonal", "closed_form", "at_data")
    ]


# the data alone


def variance_sums_of(results: Results) -> dict[str, list[Expected]]:
    """Set → its variance sums by channel: with their errors, or without where only older rows have them."""
    found: dict[str, list[Expected]] = {}
    for row in (row for row in results.explained if row["kind"] == "second-order"):
        for name, sums in zip((row["in_dist"], row["images"]), row["variance_sums"], strict=True):
            found[name] = [Expected(value) for value in sums]
    for one in (one for row in results.curves if row["kind"] == "data" for one in row["sets"]):
        if "variance_sums" in one:
            found[one["set"]] = [Expected(*value) for value in one["variance_sums"]]
    return found


def _sign_of_data(in_dist: str, ood: str, sums: VarianceSums) -> Expected | None:
    known = in_dist in sums and ood in sums
    return predicted_by_data(sums[in_dist], sums[ood]) if known else None


def _by_data(analysis: Analysis, sums: VarianceSums) -> list[tuple[Pair, Judged]]:
    """What the data alone predict of each model's gap, beside what was measured."""
    found = []
    for test, ood in analysis.pairs(synthetic=False):
        predicted = _sign_of_data(ood["in_dist"], ood["images"], sums)
        measured = _measured_gap(test, ood)
        if predicted and measured:
            found.append(((test, ood), Judged(predicted, measured)))
    return found


def _measured_gap(test: Row, ood: Row) -> Expected | None:
    if not (test.get("log_prob") and ood.get("log_prob")):
        return None
    return Expected(*ood["log_prob"][:2]) - Expected(*test["log_prob"][:2])


def _data_alone(row: Row, sums: VarianceSums) -> str:
    """Where the OOD set lies, and whether what follows is so."""
    predicted = _sign_of_data(row["in_dist"], row["images"], sums)
    if predicted is None:
        return "neither"
    return f"{_lies(predicted)}: {Judged(predicted, Expected(*row['measured'])).verdict}"


def _lies(predicted: Expected) -> str:
    return "inside" if predicted.value > 0 else "outside"


def _data_lines(
    analysis: Analysis, by_data: list[tuple[Pair, Judged]], sums: VarianceSums
) -> list[list[str]]:
    """A line for each pair of sets: the sums, and the models whose gap has the predicted sign."""
    models: dict[tuple[str, str], dict[str, list[str]]] = {}
    for (_, ood), judged in by_data:
        own = models.setdefault((ood["in_dist"], ood["images"]), {})
        own.setdefault(judged.verdict, []).append(text(analysis.results.label(ood)))
    return [_data_line(*sets, verdicts, sums) for sets, verdicts in sorted(models.items())]


def _data_line(
    in_dist: str, ood: str, verdicts: Mapping[str, list[str]], sums: VarianceSums
) -> list[str]:
    shown = [", ".join(f"{one.value:.1f}" for one in sums[name]) for name in (in_dist, ood)]
    predicted = _sign_of_data(in_dist, ood, sums)
    assert predicted is not None
    whose = [", ".join(verdicts.get(name, [])) or "–" for name in ("right", "wrong", "undecided")]
    return [text(in_dist), text(ood), " against ".join(shown), _lies(predicted), *whose]


# what is assumed


def _curvature_spread(row: Row) -> float | None:
    mean, spread = row.get("curvature_spread") or (0.0, 0.0)
    return spread / abs(mean) if mean else None


def _first_share(row: Row) -> float | None:
    return abs(row["first"][0] / row["second"][0]) if row["second"][0] else None


def _off_diagonal(row: Row, number: int) -> float | None:
    return (row.get("off_diagonal") or (None, None))[number]


ASSUMPTIONS: tuple[tuple[Callable[[Row], float | None], str], ...] = (
    (_first_share, "{:.2f}"),
    (lambda row: row.get("means_apart"), "{:.2f}"),
    (lambda row: _off_diagonal(row, 0), "{:.0%}"),
    (lambda row: _off_diagonal(row, 1), "{:.0%}"),
    (_curvature_spread, "{:.2f}"),
    (lambda row: row.get("prior_volume_spread"), "{:,.1f}"),
)
"""Each number and how it is shown, in the order of the table's heads."""


def _assumed(row: Row) -> list[str]:
    found = [(number(row), shown) for number, shown in ASSUMPTIONS]
    return ["–" if value is None else shown.format(value) for value, shown in found]


def _validity(rows: list[Row]) -> list[str]:
    """What is assumed, with the medians over pairs of what was stored."""
    if not rows:
        return []
    middles = [_median(map(number, rows)) for number, _ in ASSUMPTIONS]
    known = [
        None if middle is None else shown.format(middle)
        for middle, (_, shown) in zip(middles, ASSUMPTIONS, strict=True)
    ]
    phrases = (
        "the first order is {} × the second",
        "the means lie {} in-dist radii apart",
        "{} of the in-dist covariance's squares lie off its diagonal",
        "{} of the OOD set's",
        "the curvature spreads by {} × its mean",
        "the prior's volume by {} nats",
    )
    told = [phrase.format(one) for phrase, one in zip(phrases, known, strict=True) if one]
    lacking = any("means_apart" not in row for row in rows)
    return [f"{ASSUMED} In the median {', '.join(told)}." + f" {UNKNOWN}" * lacking]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


# figures


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
