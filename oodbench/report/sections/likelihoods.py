"""Bits/dim of training, test and OOD images, and the histograms of log p(x)."""

from __future__ import annotations

from oodbench.report.illustrations import BEYOND, Illustration, left_out
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Section, bits, marked
from oodbench.report.tables import distinct, sentence, text

HEADS = [
    "model",
    "in-dist",
    "OOD",
    "train bits/dim",
    "test bits/dim",
    "OOD bits/dim",
    "AUROC of −log p",
]
WORDS = (
    "Each model is trained on one set alone. Fewer bits a dimension mean a likelier image; ▼ marks pairs "
    "on which the OOD images are the likelier ones, so that raw likelihood ranks them as more in-dist "
    "than the in-dist ones. ± is the standard error of the mean."
)


def section(analysis: Analysis) -> Section:
    lines = []
    for test, ood in analysis.pairs():
        model = text(analysis.results.label(ood))
        names = [model, text(ood["in_dist"]), text(ood["images"])]
        means = [bits(analysis.train(ood)), bits(test), bits(ood)]
        lines.append([*names, *means, marked(analysis.auroc(ood))])
    missing = [row for row in analysis.results.skips if not row["scorer"]]
    why = distinct(
        f"{text(row['in_dist'])} → {text(row['ood'])}: {sentence(row['reason'])}" for row in missing
    )
    words = [WORDS, *(f"Not shown: {line}." for line in why)]
    figures = analysis.figures("likelihoods", "samples")
    return Section("Likelihoods: in-dist and OOD", words, [(HEADS, lines)], figures)


def figure(results: Results, subject: Subject) -> Illustration:
    """Histograms of log p(x) over the in-dist and each OOD test set, as in the paper's Figures 2 and 3."""
    curves = results.curves_of("likelihoods", subject)
    end = f"{sizes_text(results, subject)} {BEYOND}{left_out(curves)}"
    caption = f"Histograms of log p(x), with median bits/dim. {end}"
    return Illustration("likelihoods", results.name_of(subject), caption, curves)


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
