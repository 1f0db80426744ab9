"""The numbers of the paper's explanations, from columns; each function gives a row's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oodbench.analysis.material import Material, SetValue
from oodbench.contract import bits_per_dim
from oodbench.passes.columns import read_columns
from oodbench.passes.shards import OVERFLOWED, UNROUNDED
from oodbench.trials.curves import pixel_moments

TERMS = ("log_prob", "log_prob_z", "log_det", "latent_norm", "reconstruction", "kl")
Result = tuple[dict[str, Any], Mapping[str, bytes]]
"""A row's values, and files beside it."""


def summary(column: np.ndarray) -> list[float] | None:
    """Mean, its standard error, and median; None where a value is not finite."""
    if not np.isfinite(column).all():
        return None
    error = column.std(ddof=1) / np.sqrt(len(column)) if len(column) > 1 else 0.0
    return [float(value) for value in (column.mean(), error, np.median(column))]


def likelihood(material: Material) -> Result:
    """Summaries of log p, of its terms, and of the distance from the in-dist reference's mean."""
    own, ref = material.sets[0], material.find("ref")
    columns = own.columns()
    found: dict[str, Any] = {name: summary(columns[name]) for name in TERMS if name in columns}
    found["bits_per_dim"] = summary(bits_per_dim(columns["log_prob"], (own.dimensions,)))
    if ref:
        typical = ref.columns()["log_prob"].mean()
        found["typicality"] = summary(np.abs(columns["log_prob"] - typical))
    return found, {}


def graying(material: Material) -> Result:
    """Mean bits/dim of the same images at each factor of contraction, 100 % being the images themselves."""
    whole, test = material.of("images"), material.of("test")
    factors = [one for one in material.sets if one.role.isdigit()]
    curve = {100: whole.columns()["log_prob"][material.options["rows"]]}
    curve |= {int(one.role): one.columns()["log_prob"] for one in factors}
    of_test = test.columns()["log_prob"][material.options["test_rows"]]
    bits = {
        percent: summary(bits_per_dim(column, (whole.dimensions,)))
        for percent, column in sorted(curve.items())
    }
    return {
        "curve": [[percent, *(found or [])] for percent, found in bits.items()],
        "in_dist_bits_per_dim": summary(bits_per_dim(of_test, (test.dimensions,))),
    }, {}


def second_order(material: Material) -> Result:
    """The expansion's terms beside the measured gap, each with its standard error, and the data's variance sums."""
    from oodbench.analysis.second_order import Expected, expand, variance_sums
    from oodbench.passes.shards import load_verified

    options = material.options
    test, other = material.of("test"), material.of("images")
    of_in, of_ood = (Expected.of_mean(one.columns()["log_prob"]) for one in (test, other))
    model = load_verified(options["model"], options["identity"], options["seed"], "cpu", False)
    images = [one.images() for one in (test, other)]
    rows = [options[f"{role}_rows"] for role in ("test", "images")]
    few = [np.asarray(whole[chosen]) for whole, chosen in zip(images, rows, strict=True)]
    found = expand(model, few[0], few[1], options["probes"])
    terms = {"measured": of_ood - of_in, "first": found.first, "second": found.second}
    terms |= {"diagonal": found.diagonal, "at_data": found.at_data}
    return {
        **{name: [value.value, value.error] for name, value in terms.items()},
        "closed_form": found.closed_form,
        "variance_sums": [variance_sums(np.asarray(whole)).tolist() for whole in images],
    }, {}


def samples(material: Material) -> Result:
    """How many draws at temperature 1 are likelier than the median image of each set, and what draws are at each temperature."""
    drawn = {float(one.role): one for one in material.sets if one.draw}
    log_prob = drawn[1.0].columns()["log_prob"]
    real = [_beside_draws(one, log_prob) for one in material.sets if not one.draw]
    with_norm = material.options["with_norm"]
    return {
        "sets": real,
        "temperatures": [_drawn_at(at, drawn[at], with_norm) for at in sorted(drawn)],
    }, {}


def _beside_draws(one: SetValue, drawn: np.ndarray) -> dict[str, Any]:
    own = one.columns()["log_prob"]
    finite = own[np.isfinite(own)]
    likelier = int((drawn > np.median(finite)).sum()) if len(finite) else None
    about = {"set": one.identifier, "role": one.role, "pixel_variance": pixel_variance(one)}
    return {**about, "draws_likelier": likelier}


def _drawn_at(temperature: float, one: SetValue, with_norm: bool) -> dict[str, Any]:
    columns = one.columns()
    norm = summary(columns["latent_norm"]) if "latent_norm" in columns else None
    drawing = read_columns([one.draw]) if with_norm else None
    return {
        "temperature": temperature,
        "n": one.n,
        "bits_per_dim": summary(bits_per_dim(columns["log_prob"], (one.dimensions,))),
        "latent_norm": norm,
        "latent_norm_unrounded": drawing and summary(drawing.columns[UNROUNDED]),
        "overflowed": drawing and drawing.about[0][OVERFLOWED],
        "pixel_variance": pixel_variance(one),
    }


def pixel_variance(one: SetValue) -> float:
    """Variance of a pixel over the images of a set, in units of the full scale, averaged over pixels and channels."""
    return float(pixel_moments(one.images())["variance"].mean())


def training(material: Material) -> Result:
    """A training's log: the values stand in the task."""
    return {"log": material.options["log"]}, {}
