"""Which term of the change of variables makes the gap."""

from __future__ import annotations

import math

from oodbench.report.illustrations import BEYOND, Illustration, left_out
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Pair, Section, outliers_rule
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import text
from oodbench.store import Row

TERMS = {
    "latent_term": "of −½‖z‖²",
    "prior_volume": "of the prior's volume",
    "log_det": "of the log-determinant",
}
"""The terms of the change of variables, and what the table calls them."""
OLDER = {"log_prob_z": "of log p(z)", "log_det": "of the log-determinant"}
"""The terms that rows hold which were measured before log p(z) was taken apart."""
NAMES = ["model", "in-dist", "OOD", "gap of log p(x)"]
WORDS = (
    "log p(x) = −½‖z‖² − Σ log σ + log|det ∂f/∂x| + a constant, with z standardised by the prior and σ the "
    "prior's. The last two are volume: how much the flow, and a prior that predicts σ from the image, stretch "
    "space there. The table takes the difference of means, OOD minus in-dist, apart in nats; in brackets the share "
    "of the gap. The shares add up to 100 %. Where a few images make a mean, the difference of medians stands "
    "beside it."
)
OLDER_WORDS = (
    "Learned prior, two terms: these rows were measured before log p(z) was taken apart. With a learned prior, "
    "log p(z) holds the volume −Σ log σ beside −½‖z‖², so that the table does not say what of the gap is volume, "
    "and additive couplings alone do not make the volume constant."
)


def volume_share(pair: Pair) -> float | None:
    """Volume's share of a pair's gap of mean log p, of medians where outliers rule; None where the terms are not known."""
    if not _has(pair, TERMS):
        return None
    place = 2 if _outliers_rule(pair) else 0
    gap, latent = (difference(pair, name, place) for name in ("log_prob", "latent_term"))
    return 1 - latent / gap if gap else None


def _outliers_rule(pair: Pair) -> bool:
    """Whether a few images make the mean of either set."""
    return any(outliers_rule(row["log_prob"]) for row in pair)


def section(analysis: Analysis) -> Section:
    pairs = analysis.pairs(synthetic=False)
    known = [pair for pair in pairs if _has(pair, TERMS)]
    older = [pair for pair in pairs if _has(pair, OLDER)]
    tables = [
        _table(analysis, own, terms) for own, terms in ((known, TERMS), (older, OLDER)) if own
    ]
    words = [WORDS, _tally(known)] if known else []
    words += [OLDER_WORDS] if older else []
    figures = analysis.figures("decomposition")
    return Section("The change of variables, taken apart", words, tables, figures)


def _has(pair: Pair, terms: dict[str, str]) -> bool:
    return all(row.get(name) for row in pair for name in ("log_prob", *terms))


def _table(
    analysis: Analysis, pairs: list[Pair], terms: dict[str, str]
) -> tuple[list[str], list[list[str]]]:
    lines = []
    for pair in pairs:
        ood = pair[1]
        names = [text(analysis.results.label(ood)), text(ood["in_dist"]), text(ood["images"])]
        lines.append([*names, *_shares(pair, terms)])
    return [*NAMES, *terms.values()], lines


def _shares(pair: Pair, terms: dict[str, str]) -> list[str]:
    """The gap with its error, and what each term makes of it."""
    test, ood = pair
    gap = difference(pair, "log_prob")
    error = math.hypot(ood["log_prob"][1], test["log_prob"][1])
    means = [f"{gap:+,.1f} ± {error:,.1f}"]
    means += [f"{difference(pair, name):+,.1f}{_share(pair, name)}" for name in terms]
    if not _outliers_rule(pair):
        return means
    medians = [f"{difference(pair, name, 2):+,.1f}" for name in ("log_prob", *terms)]
    return [f"{mean}, median {median}" for mean, median in zip(means, medians, strict=True)]


def difference(pair: Pair, name: str, place: int = 0) -> float:
    """OOD minus in-dist of a term's mean, or of what else its summary has at ``place``."""
    test, ood = pair
    return float(ood[name][place] - test[name][place])


def _share(pair: Pair, name: str) -> str:
    gap = difference(pair, "log_prob")
    return f" ({round(difference(pair, name) / gap, 2) + 0.0:+.0%})" if gap else ""


def _tally(pairs: list[Pair]) -> str:
    shares = [share for pair in pairs if (share := volume_share(pair)) is not None]
    most = sum(share > 0.5 for share in shares)
    return f"Volume makes more than half of the gap on {most} of {len(shares)} pairs of a flow and an OOD set."


def figure(results: Results, subject: Subject) -> Illustration:
    """Histograms of the terms over the in-dist and the OOD test sets, as in the paper's Figure 4."""
    curves = results.curves_of("decomposition", subject)
    caption = (
        f"{_named(curves)} of all test images; log|det ∂f/∂x| is in pixel levels. "
        f"{where_text(subject)}. {BEYOND}{left_out(curves)}"
    )
    return Illustration("decomposition", results.name_of(subject), caption, curves)


def _named(curves: list[Row]) -> str:
    older = any(row["column"] == "log_prob_z" for row in curves)
    terms = (
        ["log p(z)"] if older else ["−½‖z‖² (z standardised by the prior)", "the prior's −Σ log σ"]
    )
    return f"The terms of log p(x), {', '.join(terms)} and log|det ∂f/∂x|,"
