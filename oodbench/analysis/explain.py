"""The paper's second-order explanation of one pair, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from oodbench.analysis.second_order import Expansion, Expected, expand, variance_sums
from oodbench.data.images import ImageSet, load_images
from oodbench.passes.batches import measure
from oodbench.zoo.describe import describe
from oodbench.zoo.load import load_model


def explain(reference: str, in_dist: str, ood: str, limit: int = 500, probes: int = 64) -> str:
    """Predicted against measured ``E_ood[log p] − E_in[log p]`` of a flow on two image sets, as a page of text.

    Parameters
    ----------
    reference : a flow, by name or card
    in_dist, ood : image sets, test splits by default
    limit : images of each set
    probes : images and vectors that the traces are estimated with

    Raises
    ------
    ModelError : a model without a differentiable density
    """
    model = load_model(reference)
    sets = [load_images(name, like=model).drawn(limit) for name in (in_dist, ood)]
    found = expand(model, sets[0].images, sets[1].images, probes)
    of_in, of_ood = (
        Expected.of_mean(measure(model, images, "log_prob")["log_prob"]) for images in sets
    )
    return "\n".join(_lines(describe(reference).name, sets, of_ood - of_in, found))


def _lines(name: str, sets: list[ImageSet], measured: Expected, found: Expansion) -> Iterator[str]:
    in_dist, ood = sets
    nats = math.prod(in_dist.shape) * math.log(2)
    yield f"{name}: E[log p] of {ood.identifier} minus that of {in_dist.identifier}, in nats"
    yield ""
    yield f"  measured                                        {measured}   ({measured.value / nats:+.3f} bits/dim)"
    yield f"  first order, from the means                     {found.first}"
    yield f"  second order, curvature at the in-dist mean     {found.second}"
    yield f"    from per-pixel variances alone                {found.diagonal}"
    if found.closed_form is not None:
        yield f"    closed form from the 1×1 convolutions         {found.closed_form:+.1f}"
    yield f"  second order, curvature at in-dist images       {found.at_data}"
    yield ""
    yield from _data_alone(in_dist, ood)
    yield from _verdict(measured, found)


def _data_alone(in_dist: ImageSet, ood: ImageSet) -> Iterator[str]:
    sums = [variance_sums(np.asarray(images.images)) for images in (in_dist, ood)]
    shown = [", ".join(f"{value:.1f}" for value in one) for one in sums]
    inside = bool((sums[1] < sums[0]).all())
    outside = bool((sums[1] > sums[0]).all())
    where = "inside" if inside else "outside" if outside else "neither inside nor outside"
    yield f"Data alone: summed pixel variances {shown[0]} in-dist and {shown[1]} OOD by channel, so the OOD set lies {where}"
    yield {
        "inside": "the in-dist set: under any density that falls off in all directions it is predicted to be likelier.",
        "outside": "the in-dist set: under any density that falls off in all directions it is predicted to be less likely.",
    }.get(where, "the in-dist set: the data alone predict no sign.")


def _verdict(measured: Expected, found: Expansion) -> Iterator[str]:
    predicted = found.first.value + found.second.value
    agrees = predicted * measured.value > 0
    yield (
        f"The expansion predicts {predicted:+.1f}: the sign is {'right' if agrees else 'wrong'}, "
        f"the size {abs(predicted / measured.value):.2f} × what is measured."
    )
    if abs(found.first.value) > abs(found.second.value):
        yield "The means differ so much that the first-order term leads: the sets share no centre, which the paper assumes."
    if _apart(found.diagonal, found.second):
        yield "Per-pixel variances alone give another number: the sets' covariances are far from diagonal."
    if _apart(found.at_data, found.second):
        yield "The curvature at images is not that at their mean: one quadratic does not describe this density."


def _apart(one: Expected, other: Expected) -> bool:
    """Whether two estimates differ by more than three errors and by more than a fifth."""
    difference = one - other
    return abs(difference.value) > max(3 * difference.error, 0.2 * abs(other.value))
