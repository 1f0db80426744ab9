"""The numbers of the paper's explanations, from columns; each function gives a row's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from oodbench.analysis.contraction import changes, factors
from oodbench.analysis.expected import Expected
from oodbench.analysis.material import Material, SetValue
from oodbench.analysis.moments import variance_sums
from oodbench.contract import bits_per_dim
from oodbench.metrics.ranking import area_under_roc
from oodbench.passes.columns import read_columns
from oodbench.passes.shards import OVERFLOWED, UNROUNDED
from oodbench.trials.curves import pixel_moments

VOLUMES = ("prior_volume", "log_det")
"""The terms of the change of variables that say how much space is stretched."""
TERMS = ("log_prob", "latent_term", *VOLUMES, "latent_norm", "reconstruction", "kl")
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
    """Mean bits/dim of the same images at each factor of contraction, 100 % being the images themselves, and the paired
    change of log p; towards mid-grey, and towards the set's own mean."""
    whole, test = material.of("images"), material.of("test")
    as_it_is = whole.columns()["log_prob"][material.options["rows"]]
    of_test = test.columns()["log_prob"][material.options["test_rows"]]
    columns = {one.role: one.columns()["log_prob"] for one in material.sets}
    found: dict[str, Any] = {}
    for centre, prefix in (("contract", ""), ("shrink", "own_mean_")):
        curve = factors(columns, centre)
        found[f"{prefix}curve"] = _curve({**curve, 100: as_it_is}, whole.dimensions)
        found[f"{prefix}change"] = _changes(as_it_is, curve)
    found["in_dist_bits_per_dim"] = summary(bits_per_dim(of_test, (test.dimensions,)))
    return found, {}


def _curve(columns: Mapping[int, np.ndarray], dimensions: int) -> list[list[float]]:
    """``[per cent, mean bits/dim, standard error, median]`` of each factor; the per cent alone where one is not finite."""
    bits = {
        percent: summary(bits_per_dim(column, (dimensions,)))
        for percent, column in sorted(columns.items())
    }
    return [[percent, *(found or [])] for percent, found in bits.items()]


def _changes(as_it_is: np.ndarray, curve: Mapping[int, np.ndarray]) -> list[list[float]]:
    """``[per cent, change, standard error]`` of each factor; the per cent alone where one is not finite."""
    found = changes(as_it_is, dict(sorted(curve.items())))
    return [
        [percent, *([one.value, one.error] if np.isfinite(one.value) else [])]
        for percent, one in found.items()
    ]


def second_order(material: Material) -> Result:
    """The expansion's terms beside the measured gap, each with its standard error; what it assumes; and the data's
    variance sums."""
    from oodbench.analysis.assumptions import check_assumptions
    from oodbench.analysis.kept import KeptCurvature
    from oodbench.analysis.second_order import expand
    from oodbench.passes.shards import load_verified

    options = material.options
    test, other = material.of("test"), material.of("images")
    of_in, of_ood = (Expected.of_mean(one.columns()["log_prob"]) for one in (test, other))
    model = load_verified(options["model"], options["identity"], options["seed"], "cpu", False)
    images = [one.images() for one in (test, other)]
    rows = [options[f"{role}_rows"] for role in ("test", "images")]
    few = [np.asarray(whole[chosen]) for whole, chosen in zip(images, rows, strict=True)]
    kept, probes = KeptCurvature(options["identity"]), options["probes"]
    found = expand(model, few[0], few[1], probes, curvature=kept)
    terms = {"measured": of_ood - of_in, **found.terms}
    return {
        **{name: [value.value, value.error] if value else None for name, value in terms.items()},
        "closed_form": found.closed_form,
        "variance_sums": [[one.value for one in variance_sums(whole)] for whole in images],
        **asdict(check_assumptions(model, few[0], few[1], probes, curvature=kept)),
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


def members(material: Material) -> Result:
    """AUROC of −log p of each member by itself, in the order of the ensemble."""
    columns = {one.role: -one.columns()["log_prob"] for one in material.sets}
    sides = (
        [columns[role] for role in columns if role.startswith(side)] for side in ("test", "ood")
    )
    return {"aurocs": [area_under_roc(*pair) for pair in zip(*sides, strict=True)]}, {}


def training(material: Material) -> Result:
    """A training's log: the values stand in the task."""
    return {"log": material.options["log"]}, {}
