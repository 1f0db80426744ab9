"""How a flow works: one coupling taken apart, and what the latents look like scale by scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Section
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import text
from oodbench.store import Row

HEADS = [
    "model",
    "in-dist",
    "images",
    "scale",
    "latents",
    "mean z²",
    "prior's −Σ log σ",
    "log|det|",
]
WORDS = (
    "A flow is a chain of steps that can be undone, from an image to latents z that look like noise. A coupling keeps "
    "some values m·x as they are (every other pixel of a checkerboard, or half of the channels) and computes from them "
    "alone a shift t and a log scale s for the others: y = m·x + (1 − m)·(x + t)·eˢ. Since what t and s are computed "
    "from stands unchanged in y, it is undone by x = y·e⁻ˢ − t, however complicated the network is; and since each changed value "
    "depends on no other changed one, log|det ∂y/∂x| is the sum of s over the changed values. The next coupling keeps what "
    "this one changed."
)
SCALES = (
    "After each scale but the last half of the channels are factored out as latents, standardised by a prior that the other "
    "half predicts or that is N(0, I); the rest goes on at half the resolution. Draws from the model have a mean z² of 1 "
    "at every scale. The table has it with its standard error, and the mean volumes of the scale, in nats: log|det| of its "
    "couplings without the constant D·log 256 of pixel levels, and −Σ log σ of its prior."
)


def section(analysis: Analysis) -> Section:
    rows = analysis.of_kind("flow")
    lines = [line for row in rows for line in _lines(analysis, row)]
    words = [WORDS, SCALES, *_verdicts(analysis, rows)]
    return Section("How flows work", words, [(HEADS, lines)], analysis.figures("coupling"))


def _lines(analysis: Analysis, row: Row) -> Iterator[list[str]]:
    names = [text(analysis.results.label(row)), text(row["in_dist"]), text(row["images"])]
    for number, scale in enumerate(row["scales"], 1):
        mean, error = scale["mean_square"]
        shape = "×".join(map(str, scale["shape"]))
        volumes = [f"{scale[name]:,.1f}" for name in ("prior_volume", "log_det")]
        yield [*names, f"{number}", shape, f"{mean:.3f} ± {error:.3f}", *volumes]


def _verdicts(analysis: Analysis, rows: list[Row]) -> list[str]:
    """Of each OOD set, the scale whose mean z² is furthest from that of the in-dist images."""
    tests = {_subject(row): row for row in rows if row["role"] == "test"}
    pairs = [
        (tests[_subject(row)], row)
        for row in rows
        if row["role"] == "ood" and _subject(row) in tests
    ]
    return [_verdict(analysis, test, ood) for test, ood in pairs]


def _verdict(analysis: Analysis, test: Row, ood: Row) -> str:
    squares = [[scale["mean_square"] for scale in row["scales"]] for row in (test, ood)]
    apart = [_apart(one, other) for one, other in zip(*squares, strict=True)]
    scale = max(range(len(apart)), key=lambda number: apart[number])
    (of_test, _), (of_ood, _) = squares[0][scale], squares[1][scale]
    return (
        f"{text(analysis.results.label(ood))}: the latents of {text(ood['images'])} differ most from in-dist ones at "
        f"scale {scale + 1} of {len(apart)}, mean z² {of_ood:.3f} against {of_test:.3f} "
        f"({apart[scale]:.0f} standard errors)."
    )


def _apart(one: list[float], other: list[float]) -> float:
    """Difference of two means in its standard errors."""
    error = math.hypot(one[1], other[1])
    return abs(one[0] - other[0]) / error if error else 0.0


def _subject(row: Row) -> tuple[str, str, int]:
    return row["model"], row["in_dist"], row["seed"]


def figure(results: Results, subject: Subject) -> Illustration | None:
    """The first coupling, and the latents of each scale, on one image of each set."""
    curves = results.curves_of("coupling", subject)
    if not curves:
        return None
    dets = [f"{text(one['set'])} {one['log_det']:+.1f}" for row in curves for one in row["sets"]]
    caption = (
        f"The first coupling of {text(subject.model)} on one test image of each set, black and white at the ends of each panel's "
        f"range, which is one for all images: what goes in, what is kept (white), shift, log scale, what comes out; "
        f"beside them the standardised latents of each scale. Its log-determinant in nats: {', '.join(dets)}. "
        f"{where_text(subject)}."
    )
    return Illustration("coupling", results.name_of(subject), caption, curves)
