"""Bits/dim of training, test and OOD images, and the histograms of log p(x)."""

from __future__ import annotations

import math

from oodbench.report.comparison import LIKELIHOOD
from oodbench.report.illustrations import BEYOND, Illustration, left_out
from oodbench.report.order import oods_in_order
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Section, bits, marked
from oodbench.report.tables import distinct, sentence, text
from oodbench.store import Row

HEADS = [
    "model",
    "in-dist",
    "OOD",
    "train bits/dim",
    "test bits/dim",
    "OOD bits/dim",
    "AUROC of −log p",
]
SECOND_HEADS = [
    "model",
    "test images",
    "bits/dim",
    "second test set",
    "n",
    "bits/dim there",
    "gap / nats",
]
WORDS = (
    "Each model is trained on one set alone. Fewer bits a dimension mean a likelier image; ▼ marks pairs "
    "on which the OOD images are the likelier ones, so that raw likelihood ranks them as more in-dist "
    "than the in-dist ones. ± is the standard error of the mean."
)
SECOND_WORDS = (
    "A second test set is drawn in another way from what a model's training set is of. It is no OOD set: no "
    "scorer judges it. The gap is its mean log p less that of the test images."
)


def section(analysis: Analysis) -> Section:
    lines = []
    for test, ood in analysis.pairs():
        model = text(analysis.results.label(ood))
        names = [model, text(ood["in_dist"]), text(ood["images"])]
        means = [_train_bits(analysis, ood), bits(test), bits(ood)]
        lines.append([*names, *means, marked(analysis.auroc(ood))])
    missing = [row for row in analysis.results.skips if not row["scorer"]]
    why = distinct(
        f"{text(row['in_dist'])} → {text(row['ood'])}: {sentence(row['reason'])}" for row in missing
    )
    second = [
        _second_line(analysis, row)
        for row in analysis.of_kind("likelihood")
        if row["role"] == "second test"
    ]
    words = [WORDS, *([SECOND_WORDS] if second else []), *(f"Not shown: {line}." for line in why)]
    figures = analysis.figures("likelihoods", "samples")
    tables = [(HEADS, lines), (SECOND_HEADS, second)]
    return Section("Likelihoods: in-dist and OOD", words, tables, figures)


def _train_bits(analysis: Analysis, ood: Row) -> str:
    """Bits/dim of training images with their number, since they are few beside the test images."""
    row = analysis.train(ood)
    return f"{bits(row)} (n = {row['n']:,})" if row else bits(row)


def _second_line(analysis: Analysis, row: Row) -> list[str]:
    test = analysis.likelihood(row, "test", row["in_dist"])
    both = test and [test["log_prob"], row["log_prob"]]
    gap = "–"
    if both and all(both):
        (own, own_error, _), (other, other_error, _) = both
        gap = f"{other - own:+,.0f} ± {math.hypot(own_error, other_error):.0f}"
    names = [text(analysis.results.label(row)), text(row["in_dist"]), bits(test)]
    return [*names, text(row["images"]), f"{row['n']:,}", bits(row), gap]


def figure(results: Results, subject: Subject) -> Illustration:
    """Histograms of log p(x) over the in-dist and each OOD test set and over training images, as in the paper's Figures 2
    and 3."""
    curves = drawn_curves(results, subject)
    trained = {
        one["set"]: one["n"] for row in curves for one in row["sets"] if one.get("role") == "train"
    }
    of_train = "".join(
        f", and unfilled of {n:,} of its training images ({text(name)})"
        for name, n in trained.items()
    )
    end = f"{sizes_text(results, subject)} {BEYOND}{left_out(curves)}"
    caption = f"Histograms of log p(x) of test images{of_train}, with median bits/dim. {end}"
    return Illustration("likelihoods", results.name_of(subject), caption, curves)


def drawn_curves(results: Results, subject: Subject) -> list[Row]:
    """The stored histograms of one subject in the order of pages, each with the AUROC of likelihood and whether its OOD set is
    synthetic."""
    rows = results.of_subject(subject)
    singles = [row for row in rows if row["scorer"] == LIKELIHOOD and row["group_size"] == 1]
    known = {row["ood"]: row for row in singles if row["status"] == "ok"}
    synthetic = {row["ood"]: row["synthetic"] for row in rows}
    curves = {row["ood"]: row for row in results.curves_of("likelihoods", subject)}
    return [
        {
            **curves[ood],
            "auroc": known[ood]["auroc"] if ood in known else None,
            "synthetic": synthetic[ood],
        }
        for ood in oods_in_order(rows)
        if ood in curves
    ]


def sizes_text(results: Results, subject: Subject) -> str:
    """Model, seed and the numbers of images of its sets, as the end of a caption."""
    sizes: dict[str, int] = {}
    own = [
        row
        for row in results.of_subject(subject)
        if row["status"] == "ok" and row["group_size"] == 1
    ]
    sizes |= {row["in_dist"]: row["n_in"] for row in own}
    sizes |= {row["ood"]: row["n_ood"] for row in own}
    named = ", ".join(f"{text(name)} (n = {n:,})" for name, n in sizes.items())
    return f"{text(subject.model)}, seed {subject.seed}: {named}."


def where_text(subject: Subject) -> str:
    """Model, in-dist set and seed, for a caption."""
    return f"{text(subject.model)} on {text(subject.in_dist)}, seed {subject.seed}"
