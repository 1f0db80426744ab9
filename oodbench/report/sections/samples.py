"""Why samples do not look like the likelier OOD images."""

from __future__ import annotations

import math

from oodbench.data.catalog import may_be_shown
from oodbench.report.illustrations import BEYOND, Illustration
from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.section import Analysis, Section, bits
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import short_name, text
from oodbench.store import Row

ROLES = ("samples", "test", "ood")
HEADS = ["model", "images", "n", "bits/dim", "‖z‖/√D", "typicality"]
WORDS = (
    "If OOD images are likelier, why does a model not draw them? Draws come from where the probability "
    "is, not from where its density is largest: a standard Gaussian in D dimensions has its mode at 0 "
    "and its draws at ‖z‖ ≈ √D. The table says where samples, in-dist and OOD images lie: in bits/dim, "
    "in ‖z‖/√D with z standardised by the prior, and on typicality, the median distance of −log p from "
    "that of in-dist `ref` images, in bits/dim."
)


def section(analysis: Analysis) -> Section:
    real = [row for row in analysis.of_kind("likelihood") if not row["synthetic"]]
    rows = [row for row in real if row["role"] in ROLES]
    sampled = {subject_of(row) for row in rows if row["role"] == "samples"}
    ordered = sorted((row for row in rows if subject_of(row) in sampled), key=_order)
    lines = [[text(analysis.results.label(row)), *_line(row)] for row in ordered]
    figures = analysis.figures("latents")
    title = "Why samples do not look like the OOD images"
    return Section(title, [WORDS], [(HEADS, lines)], figures)


def _order(row: Row) -> tuple[str, str, int, int, str]:
    return row["in_dist"], row["model"], row["seed"], ROLES.index(row["role"]), row["images"]


def _line(row: Row) -> list[str]:
    norm, typical, dimensions = row.get("latent_norm"), row.get("typicality"), row["dimensions"]
    relative = f"{norm[0] / math.sqrt(dimensions):.3f}" if norm else "–"
    far = f"{typical[2] / (dimensions * math.log(2)):.3f}" if typical else "–"
    return [text(row["images"]), f"{row['n']:,}", bits(row), relative, far]


def _drawn(results: Results, subject: Subject) -> Row | None:
    """The likelihood row of the images drawn from a subject's model."""
    rows = [
        row for row in results.explained if row["kind"] == "likelihood" and row["role"] == "samples"
    ]
    return next((row for row in rows if subject_of(row) == subject), None)


def grids_figure(results: Results, subject: Subject) -> Illustration | None:
    """Images drawn from the model beside in-dist and OOD images."""
    drawn = _drawn(results, subject)
    if drawn is None:
        return None
    caption = (
        f"{drawn['n']} images drawn from {text(subject.model)} beside test images of the sets "
        f"whose terms permit showing them, with the median bits/dim of all; seed {subject.seed}."
    )
    grids = results.curves_of("grid", subject)
    curves = [row for row in grids if may_be_shown(short_name(row["set"]))]
    return Illustration("samples", results.name_of(subject), caption, curves)


def latents_figure(results: Results, subject: Subject) -> Illustration | None:
    """log p(x) against the norm of the standardised latents."""
    drawn = _drawn(results, subject)
    if drawn is None:
        return None
    caption = (
        f"log p(x) against ‖z‖, standardised by the prior, of {drawn['n']} samples of the model and up to "
        f"300 test images of each set; the line is √D. {where_text(subject)}. {BEYOND}"
    )
    curves = results.curves_of("latents", subject)
    return Illustration("latents", results.name_of(subject), caption, curves)
