"""What figures draw of columns and of pixels, small enough to be stored beside the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from oodbench.analysis.material import Material, SetValue
from oodbench.analysis.moments import variance_sums
from oodbench.contract import bits_per_dim
from oodbench.trials import curves

SHOWN = 300
"""Images of each set in a scatter plot."""
Result = tuple[dict[str, Any], Mapping[str, bytes]]


def likelihoods(material: Material) -> Result:
    """Histograms of log p over both sets of a pair and over training images, with each set's role and median bits/dim."""
    columns = {one.identifier: one.columns()["log_prob"] for one in material.sets}
    found = curves.histograms(columns)
    for entry, one in zip(found["sets"], material.sets, strict=True):
        entry["role"] = one.role
        entry["bits_per_dim_median"] = _median_bits(columns[one.identifier], one)
    return found, {}


def decomposition(material: Material) -> Result:
    """Histograms of one term of the change of variables over all sets."""
    name = material.options["column"]
    return curves.histograms({one.identifier: one.columns()[name] for one in material.sets}), {}


def contracted(material: Material) -> Result:
    """Histograms of log p over the images that were drawn of a set: as they are, and contracted."""
    rows = material.options["rows"]
    columns = {one.role: one.columns()["log_prob"] for one in material.sets}
    columns["test"] = columns["test"][rows]
    found = curves.histograms(columns)
    for entry, one in zip(found["sets"], material.sets, strict=True):
        entry |= {"set": one.identifier, "contraction": "" if one.role == "test" else one.role}
    return found, {}


def latents(material: Material) -> Result:
    """Points of log p against the norm of the standardised latents."""
    sets = []
    for one in material.sets:
        columns, rows = one.columns(), one.rows_of(SHOWN)
        points = curves.scatter(columns["latent_norm"][rows], columns["log_prob"][rows])
        sets.append({"set": one.identifier, "role": one.role, **points})
    return {"sets": sets}, {}


def grid(material: Material) -> Result:
    """Some images of a set, drawn as a limit would, as one picture."""
    (one,), options = material.sets, material.options
    picture = curves.grid(one.images()[one.rows_of(options["n"])], options["n"])
    median = _median_bits(one.columns()["log_prob"], one)
    return {
        "bits_per_dim_median": median,
        "sha256": hashlib.sha256(picture).hexdigest(),
    }, {options["file"]: picture}


def data(material: Material) -> Result:
    """Histograms of each pixel's mean or variance over the images of each set; with the variances, their sums."""
    quantity = material.options["quantity"]
    images = {one.identifier: one.images() for one in material.sets}
    found = curves.histograms(
        {name: curves.pixel_moments(own)[quantity] for name, own in images.items()}
    )
    for entry in found["sets"] if quantity == "variance" else []:
        sums = variance_sums(images[entry["set"]])
        entry["variance_sums"] = [[one.value, one.error] for one in sums]
    return found, {}


def _median_bits(log_prob: np.ndarray, one: SetValue) -> float | None:
    finite = log_prob[np.isfinite(log_prob)]
    return float(np.median(bits_per_dim(finite, (one.dimensions,)))) if len(finite) else None
