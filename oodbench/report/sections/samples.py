"""Why samples do not look like the likelier OOD images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from oodbench.data.catalog import may_be_shown
from oodbench.report.illustrations import BEYOND, Illustration
from oodbench.report.made import labelled
from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.section import Analysis, Section, bits
from oodbench.report.sections.likelihoods import where_text
from oodbench.report.tables import short_name, text
from oodbench.store import Row

ROLES = ("samples", "test", "ood")
HEADS = ["model", "images", "n", "bits/dim", "‖z‖/√D", "unrounded", "typicality", "draws likelier"]
COOLED = [
    "model",
    "images",
    "temperature",
    "n",
    "bits/dim",
    "‖z‖/√D",
    "unrounded",
    "pixel variance",
]
SHELL = math.sqrt(2)
"""Two standard deviations of ‖z‖ of a standard Gaussian of many dimensions: how wide the shell is to either side of √D."""
RARE = 0.05
"""Share of draws that are likelier than most of a set, below which that is called rare."""
WORDS = (
    "If OOD images are likelier, why does a model not draw them? The argument of the shell: a standard "
    "Gaussian in D dimensions has its mode at 0, but its draws at ‖z‖ = √D, give or take 0.7; images whose "
    "latents lie inside that shell are likelier than draws and are not drawn. It applies to OOD images "
    "whose median ‖z‖, standardised by the prior, is smaller than that of in-dist images and than "
    "√D − √2, which is two standard deviations of a draw's. The table has medians of ‖z‖; `unrounded`, of "
    "the draws before they became 8-bit images; `typicality`, the median distance of −log p from that of "
    "in-dist `ref` images, in bits/dim; and how many draws are likelier than the median image of a set."
)
COOLED_WORDS = (
    "At a lower temperature a flow's draws lie nearer to the mode, and the table says whether they are "
    "likelier for it, and what becomes of their variance (of a pixel over the images, averaged over pixels; full scale 1)."
)


@dataclass(frozen=True)
class Drawn:
    """What rows say of one model, its draws, and the real image sets beside them; rows of earlier versions lack the last."""

    label: str
    draws: Row
    test: Row
    oods: list[Row]
    about: Row | None

    @property
    def real(self) -> list[Row]:
        return [self.test, *self.oods]

    @cached_property
    def temperatures(self) -> list[Row]:
        return self.about["temperatures"] if self.about else []

    @property
    def unrounded(self) -> Row | None:
        """The draws at temperature 1 with their norm before rounding, where it was measured."""
        known = (one for one in self.temperatures if one["temperature"] == 1)
        return next((one for one in known if one["latent_norm_unrounded"]), None)

    def beside(self, row: Row) -> Row | None:
        """What the draws are beside a set."""
        sets = self.about["sets"] if self.about else []
        return next((one for one in sets if one["set"] == row["images"]), None)

    def likelier(self, row: Row) -> int | None:
        """Draws that are likelier than the median image of a set."""
        found = self.beside(row)
        return found["draws_likelier"] if found else None


def section(analysis: Analysis) -> Section:
    models = _models(analysis)
    cooled = [one for one in models if len(one.temperatures) > 1]
    lines = [line for one in models for line in _lines(one)]
    cooled_lines = [line for one in cooled for line in _cooled_lines(one)]
    words = [WORDS, *_shells(models), *_overflows(models), *([COOLED_WORDS] if cooled else [])]
    words += [f"{labelled(text(one.label), one.test['model'])}: {verdict(one)}" for one in models]
    tables = [(HEADS, lines), (COOLED, cooled_lines)]
    title = "Why samples do not look like the OOD images"
    return Section(title, words, tables, analysis.figures("latents"))


def conclusion(analysis: Analysis) -> str:
    """To how many OOD sets the shell argument applies, and how many draws are likelier; empty where nothing was drawn."""
    models = _models(analysis)
    flows = [one for one in models if one.test.get("latent_norm")]
    within = sum(_is_inside(row, one.test) for one in flows for row in one.oods)
    sets = sum(len(one.oods) for one in flows)
    shell = (
        f"The latents of {within} of {sets} OOD sets lie inside the shell of draws" if sets else ""
    )
    known = [(one, row) for one in models for row in one.oods if one.likelier(row) is not None]
    rare = sum((one.likelier(row) or 0) <= RARE * one.draws["n"] for one, row in known)
    likelier = f"at most {RARE:.0%} of the draws are likelier than the median OOD image on {rare} of {len(known)} pairs"
    told = [shell] * bool(sets) + [likelier] * bool(known)
    return f"{'; '.join(told)}." if told else ""


def _models(analysis: Analysis) -> list[Drawn]:
    """Every model that was drawn from, by in-dist set and name."""
    about = {subject_of(row): row for row in analysis.of_kind("samples")}
    own: dict[Subject, list[Row]] = {}
    for row in analysis.of_kind("likelihood"):
        if row["role"] in ROLES and not row["synthetic"]:
            own.setdefault(subject_of(row), []).append(row)
    return [
        _model(analysis.results, rows, about.get(subject))
        for subject, rows in own.items()
        if {"samples", "test"} <= {row["role"] for row in rows}
    ]


def _model(results: Results, rows: list[Row], about: Row | None) -> Drawn:
    draws, test = (_of_role(rows, role)[0] for role in ("samples", "test"))
    oods = sorted(_of_role(rows, "ood"), key=lambda row: row["images"])
    return Drawn(results.label(test), draws, test, oods, about)


def _of_role(rows: Sequence[Row], role: str) -> list[Row]:
    return [row for row in rows if row["role"] == role]


# tables


def _lines(one: Drawn) -> list[list[str]]:
    return [_line(one, row) for row in (one.draws, *one.real)]


def _line(one: Drawn, row: Row) -> list[str]:
    typical, dimensions = row.get("typicality"), row["dimensions"]
    far = f"{typical[2] / (dimensions * math.log(2)):.3f}" if typical else "–"
    at = one.unrounded if row is one.draws else None
    before = _relative(at["latent_norm_unrounded"] if at else None, dimensions)
    count = one.likelier(row)
    likelier = "–" if count is None else f"{count} of {one.draws['n']}"
    names = [text(one.label), text(row["images"]), f"{row['n']:,}", bits(row)]
    return [*names, _relative(row.get("latent_norm"), dimensions), before, far, likelier]


def _relative(norm: list[float] | None, dimensions: int) -> str:
    """The median of a norm, in units of √D, as a cell."""
    return f"{norm[2] / math.sqrt(dimensions):.3f}" if norm else "–"


def _cooled_lines(one: Drawn) -> list[list[str]]:
    """A line for each temperature, and one for each real set."""
    lines = [_cooled_line(one, at) for at in one.temperatures]
    return lines + [_uncooled_line(one, row) for row in one.real]


def _cooled_line(one: Drawn, at: Row) -> list[str]:
    fields = ("latent_norm", "latent_norm_unrounded")
    norms = [_relative(at[name], one.draws["dimensions"]) for name in fields]
    names = [text(one.label), "samples", f"{at['temperature']:g}", f"{at['n']:,}"]
    return [*names, bits(at), *norms, f"{at['pixel_variance']:.4f}"]


def _uncooled_line(one: Drawn, row: Row) -> list[str]:
    norm, beside = _relative(row.get("latent_norm"), row["dimensions"]), one.beside(row)
    variance = f"{beside['pixel_variance']:.4f}" if beside else "–"
    return [
        text(one.label),
        text(row["images"]),
        "–",
        f"{row['n']:,}",
        bits(row),
        norm,
        "–",
        variance,
    ]


# what they come to


def _shells(models: list[Drawn]) -> list[str]:
    """Where the draws of all flows lie, before and after rounding, in a sentence."""
    flows = [one for one in models if one.draws.get("latent_norm")]
    if not flows:
        return []
    after = _span([_in_roots(one.draws["latent_norm"], one) for one in flows])
    known = [(one, one.unrounded) for one in flows]
    before = [_in_roots(at["latent_norm_unrounded"], one) for one, at in known if at]
    measured = (
        f"at {_span(before)} √D before that" if before else "before that they were not measured"
    )
    lacking = len(flows) - len(before)
    but = f" ({lacking} of {len(flows)} flows were not measured so)" if before and lacking else ""
    return [
        f"Rounded to 8 bits and clamped, as images are, the draws of these flows lie at {after} √D; {measured}{but}."
    ]


def _overflows(models: list[Drawn]) -> list[str]:
    """How many draws at temperature 1 were lost, in a sentence; nothing where none was."""
    known = [(one, one.unrounded["overflowed"]) for one in models if one.unrounded]
    lost = [
        f"{count} of {count + one.draws['n']} of {text(one.label)}" for one, count in known if count
    ]
    if not lost:
        return []
    return [
        "Draws that overflowed on their way through the inverse of a flow, which are no images and were "
        f"drawn again: {', '.join(lost)}."
    ]


def _in_roots(norm: list[float], one: Drawn) -> float:
    return norm[2] / math.sqrt(one.draws["dimensions"])


def _span(values: list[float]) -> str:
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def verdict(one: Drawn) -> str:
    """One sentence on a model: whether the shell argument applies, and how many draws are likelier than OOD images."""
    return f"{_shell(one)}; {_counted(one)}."


def _shell(one: Drawn) -> str:
    if not one.test.get("latent_norm"):
        return "it gives no latents whose norm could be compared"
    within = [row for row in one.oods if _is_inside(row, one.test)]
    outside = [row for row in one.oods if row not in within]
    parts = [("applies", within), ("does not apply", outside)]
    said = " and ".join(f"{verb} to {_at(rows, one)}" for verb, rows in parts if rows)
    draws = one.draws.get("latent_norm")
    of_draws = f", of draws {_in_roots(draws, one):.2f}" if draws else ""
    in_dist = f"in-dist {_in_roots(one.test['latent_norm'], one):.2f}"
    return f"the shell argument {said}; in brackets ‖z‖/√D, {in_dist}{of_draws}"


def _is_inside(row: Row, test: Row) -> bool:
    """Whether the latents of a set lie inside the shell, and nearer to the mode than in-dist ones."""
    norm = row.get("latent_norm")
    if not norm:
        return False
    return bool(norm[2] < min(test["latent_norm"][2], math.sqrt(row["dimensions"]) - SHELL))


def _at(rows: list[Row], one: Drawn) -> str:
    return ", ".join(f"{_name(row)} ({_where(row, one)})" for row in rows)


def _where(row: Row, one: Drawn) -> str:
    norm = row.get("latent_norm")
    return f"{_in_roots(norm, one):.2f}" if norm else "not finite"


def _name(row: Row) -> str:
    return text(short_name(row["images"]))


def _counted(one: Drawn) -> str:
    counts = [(row, one.likelier(row)) for row in one.oods]
    known = [(row, count) for row, count in counts if count is not None]
    if not known:
        return "how many draws are likelier than the median OOD image was not measured"
    than = [f"{count} than the median {_name(row)} image" for row, count in known]
    in_dist = one.likelier(one.test)
    than += [] if in_dist is None else [f"{in_dist} than the median in-dist one"]
    return f"of {one.draws['n']} draws are likelier: {', '.join(than)}"


# figures


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
    grids = results.curves_of("grid", subject)
    curves = [row for row in grids if may_be_shown(short_name(row["set"]))]
    shown = next((row["n"] for row in curves if row["role"] == "samples"), drawn["n"])
    of_all = "" if shown == drawn["n"] else f" of {drawn['n']}"
    caption = (
        f"{shown}{of_all} images drawn from {text(subject.model)} beside test images of the sets "
        f"whose terms permit showing them, with the median bits/dim of all; seed {subject.seed}."
    )
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
