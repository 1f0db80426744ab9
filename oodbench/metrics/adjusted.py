"""What is left of a score when covariates are taken out of it: the covariate-adjusted AUROC.

A score's regression on the covariates is fitted on in-dist reference images alone, so that OOD images have no part in it:
what images of the in-dist set score at such covariates is subtracted, and the residuals of test and OOD images are ranked. A
score that is a function of the covariates on in-dist images keeps no more than how wrong that function is on OOD ones. Janes &
Pepe, Biometrika 2009, adjust an AUROC by the reference class in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from scipy.special import ndtri

from oodbench.metrics.intervals import CONFIDENCE, Estimate
from oodbench.metrics.ranking import area_under_roc

Form = Literal["linear", "spline"]
FORMS: tuple[Form, ...] = get_args(Form)
"""Of the regression: linear in each covariate, or a sum of a cubic spline of each, straight beyond the reference's ends."""
Sides = Mapping[str, np.ndarray]
"""``ref``, ``in`` and ``ood`` → the numbers of their images."""
Design = Callable[[np.ndarray], np.ndarray]
KNOTS = 4
REPLICATES = 50
"""Of the bootstrap that gives a standard error; percentiles would need many more."""


def adjusted_aurocs(scores: Sides, covariates: Sides, form: Form, seed: int = 0) -> list[Estimate]:
    """AUROC of each of S scorers when B covariates are taken out, with a normal 95 % interval.

    Parameters
    ----------
    scores : ``(N, S)`` a side, larger = more OOD; ``ref`` of images that no scorer was fitted on
    covariates : ``(N, B)`` a side
    seed : of the bootstrap, which draws the images of each side anew

    Returns
    -------
    The interval holds what the images of all three sides may change: the regression is fitted anew in each replicate.
    """
    design = design_of(covariates["ref"], form)
    bases = {side: design(values) for side, values in covariates.items()}
    whole = {side: np.arange(len(values)) for side, values in bases.items()}
    values = _aurocs(scores, bases, whole)
    generator = np.random.default_rng(seed)
    drawn = [
        _aurocs(scores, bases, {side: generator.choice(rows, len(rows)) for side, rows in whole.items()})
        for _ in range(REPLICATES)
    ]  # fmt: skip
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * np.std(drawn, axis=0, ddof=1)
    ends = np.clip([values - half, values + half], 0.0, 1.0)
    return [Estimate(*map(float, one)) for one in zip(values, *ends, strict=True)]


def _aurocs(scores: Sides, bases: Sides, rows: Sides) -> np.ndarray:
    """AUROCs ``(S,)`` of the residuals of chosen images, after a least-squares fit on the chosen reference images."""
    fitted, *_ = np.linalg.lstsq(bases["ref"][rows["ref"]], scores["ref"][rows["ref"]], rcond=1e-9)
    of_in, of_ood = (
        scores[side][rows[side]] - bases[side][rows[side]] @ fitted for side in ("in", "ood")
    )
    return np.array([area_under_roc(*pair) for pair in zip(of_in.T, of_ood.T, strict=True)])


def design_of(reference: np.ndarray, form: Form) -> Design:
    """Covariates ``(N, B)`` → the columns ``(N, P)`` that a score is regressed on, an intercept first; scaled by the reference.

    A covariate that is constant on the reference is left out.
    """
    from sklearn.preprocessing import SplineTransformer

    kept = reference.std(0) > 0
    centre, scale = reference[:, kept].mean(0), reference[:, kept].std(0)

    def linear(values: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(values)), (values[:, kept] - centre) / scale])

    if form == "linear" or not kept.any():
        return linear
    splines = SplineTransformer(KNOTS, extrapolation="linear").fit(linear(reference)[:, 1:])

    def curved(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = splines.transform(linear(values)[:, 1:])
        return np.column_stack([np.ones(len(values)), found])

    return curved
