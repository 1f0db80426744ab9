"""Why one image set is likelier than another, in words and numbers: the paper's second-order analysis of a pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from oodbench.analysis.assumptions import Assumptions, check_assumptions
from oodbench.analysis.contraction import changes
from oodbench.analysis.expected import SURE, Expected
from oodbench.analysis.moments import variance_sums
from oodbench.analysis.second_order import Expansion, expand
from oodbench.analysis.verdicts import (
    WHOLE,
    predicted_by_data,
    predictions,
    size_ratio,
    trend,
    verdict_of_sign,
)
from oodbench.data.images import ImageSet, load_images
from oodbench.models.multiscale import MultiscaleFlow
from oodbench.passes.batches import measure
from oodbench.zoo.describe import describe
from oodbench.zoo.load import load_model

FACTORS = (87, 75, 50)
"""Per cent to which sets are contracted."""


def explain(reference: str, in_dist: str, ood: str, limit: int = 500, probes: int = 64) -> str:
    """Why one set is likelier under a model, as a page of text.

    For every model: the measured ``E_ood[log p] − E_in[log p]``, the sign that the data alone predict, and what
    contraction of each set towards its own mean does to log p. For a flow of ours also the second-order expansion,
    and how far its assumptions hold.

    Parameters
    ----------
    reference : a model, by name or card
    in_dist, ood : image sets, test splits by default
    limit : images of each set
    probes : images and vectors that the expansion's traces are estimated with
    """
    model = load_model(reference)
    sets = [load_images(name, like=model).drawn(limit) for name in (in_dist, ood)]
    columns = [_log_prob(model, images) for images in sets]
    of_in, of_ood = map(Expected.of_mean, columns)
    lines = [*_measured(describe(reference).name, sets, of_ood - of_in)]
    if isinstance(model, MultiscaleFlow):
        pixels = [np.asarray(images.images) for images in sets]
        found = expand(model, *pixels, probes)
        lines += [*_terms(found), "", *_verdict(of_ood - of_in, found)]
        lines += ["", *_validity(found, check_assumptions(model, *pixels, probes))]
    lines += ["", *_data_alone(sets, of_ood - of_in)]
    return "\n".join([*lines, "", *_contraction(model, sets, columns)])


def _log_prob(model: Any, images: ImageSet) -> np.ndarray:
    return measure(model, images, "log_prob")["log_prob"]


def _measured(name: str, sets: list[ImageSet], measured: Expected) -> Iterator[str]:
    in_dist, ood = sets
    nats = math.prod(in_dist.shape) * math.log(2)
    yield f"{name}: E[log p] of {ood.identifier} minus that of {in_dist.identifier}, in nats"
    yield ""
    yield f"  measured                                        {measured}   ({measured.value / nats:+.3f} bits/dim)"


def _terms(found: Expansion) -> Iterator[str]:
    yield f"  first order, from the means                     {found.first}"
    yield f"  second order, curvature at the in-dist mean     {found.second}"
    yield f"    from per-pixel variances alone                {found.diagonal}"
    if found.closed_form is not None:
        yield f"    closed form from the 1×1 convolutions         {found.closed_form:+,.1f}"
    if found.at_data is not None:
        yield f"  second order, curvature at in-dist images       {found.at_data}"


def _verdict(measured: Expected, found: Expansion) -> Iterator[str]:
    forms = predictions(found.terms)
    size = size_ratio(forms[WHOLE], measured)
    yield (
        f"The expansion predicts {forms[WHOLE]}: the sign is {verdict_of_sign(forms[WHOLE], measured)}"
        + (f", the size {size:,.2f} × what is measured." if size else ".")
    )
    others = [f"{form} {verdict_of_sign(forms[form], measured)}" for form in forms if form != WHOLE]
    yield f"The sign by its other forms: {', '.join(others)}."
    yield (
        f"A sign is undecided where what predicts it, or what was measured, lies within {SURE} standard errors of 0."
    )


def _validity(found: Expansion, held: Assumptions) -> Iterator[str]:
    """Each assumption with its number, and what does not hold."""
    mean, spread = held.curvature_spread
    shares = [_share(one) for one in held.off_diagonal]
    yield "How valid is it?"
    yield f"  distance of the means                           {held.means_apart:.2f} in-dist radii (the paper: 0)"
    yield f"  first order / second order                      {_relative(found.first, found.second)}"
    yield f"  covariance off its diagonal                     {shares[0]} in-dist, {shares[1]} OOD (the paper's form: 0 %)"
    yield f"  vᵀHv over in-dist images                        {mean:+,.0f} ± {spread:,.0f} (spread; a quadratic: 0)"
    yield f"  the prior's −Σ log σ over in-dist images        ± {held.prior_volume_spread:,.1f} nats (spread; N(0, I): 0)"
    if abs(found.first.value) > abs(found.second.value):
        yield "The means differ so much that the first-order term leads: the sets share no centre, which the paper assumes."
    if _apart(found.diagonal, found.second):
        yield "Per-pixel variances alone give another number: the sets' covariances are far from diagonal."
    if found.at_data is not None and _apart(found.at_data, found.second):
        yield "The curvature at images is not that at their mean: one quadratic does not describe this density."


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _relative(one: Expected, other: Expected) -> str:
    return f"{abs(one.value / other.value):.2f}" if other.value else "–"


def _apart(one: Expected, other: Expected) -> bool:
    """Whether two estimates differ by more than three errors and by more than a fifth."""
    difference = one - other
    return abs(difference.value) > max(3 * difference.error, 0.2 * abs(other.value))


def _data_alone(sets: list[ImageSet], measured: Expected) -> Iterator[str]:
    sums = [variance_sums(np.asarray(images.images)) for images in sets]
    shown = [", ".join(f"{one.value:.1f}" for one in own) for own in sums]
    yield f"Data alone: summed pixel variances {shown[0]} in-dist and {shown[1]} OOD by channel."
    predicted = predicted_by_data(*sums)
    if predicted is None:
        yield "Neither set has the smaller ones in all channels by more than their error: the data alone predict no sign."
        return
    lies, likelier = ("inside", "likelier") if predicted.value > 0 else ("outside", "less likely")
    yield (
        f"The OOD set lies {lies} the in-dist set: under any density that falls off in all directions it is predicted to be "
        f"{likelier}; the sign is {verdict_of_sign(predicted, measured)}."
    )


def _contraction(model: Any, sets: list[ImageSet], columns: list[np.ndarray]) -> Iterator[str]:
    """What less variance does, which any model can say: each set contracted towards its own mean."""
    yield "Contracted towards its own mean, a set has less variance and is otherwise the same. Change of mean log p, nats:"
    yield ""
    yield " " * 12 + "".join(f"{f'to {percent} %':>24}" for percent in FACTORS)
    found = [_changes(model, *one) for one in zip(sets, columns, strict=True)]
    for name, own in zip(("in-dist", "OOD"), found, strict=True):
        yield f"  {name:<10}" + "".join(f"{own[percent]!s:>24}" for percent in FACTORS)
    yield ""
    yield _claim(*found)


def _changes(model: Any, images: ImageSet, as_it_is: np.ndarray) -> dict[int, Expected]:
    contracted = {
        percent: _log_prob(model, images.through(f"shrink{percent}")) for percent in FACTORS
    }
    return changes(as_it_is, contracted)


def _claim(of_in: Mapping[int, Expected], of_ood: Mapping[int, Expected]) -> str:
    """One sentence on whether less variance is likelier here."""
    signs = {one.sign for own in (of_in, of_ood) for one in own.values()}
    holds = {
        frozenset({1}): "holds",
        frozenset({1, 0}): "holds where it is decided",
        frozenset({-1}): "does not hold",
        frozenset({-1, 0}): "does not hold where it is decided",
        frozenset({0}): "is undecided",
    }
    verdict = holds.get(frozenset(signs), "does not hold throughout")
    return (
        f"The claim that less variance is likelier {verdict} here: of the in-dist set contraction {trend(of_in)}; of the "
        f"OOD set it {trend(of_ood)}."
    )
