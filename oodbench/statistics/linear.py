"""What the best linear predictor leaves of an image, fitted on in-dist training images: a baseline without a deep model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oodbench.registry import register_statistics
from oodbench.statistics.whiteness import whiteness_2d, whiteness_rows

SEED = 0
"""Of the noise, which is keyed by the image."""
RIDGE = 1e-6
"""Added to the diagonal of the covariance."""
BLOCK = 1000
"""Images at once in the sums of the covariance."""


def dequantised(images: np.ndarray) -> np.ndarray:
    """``(x + u) / 256`` with u in [0, 1) keyed by the image, pixel by pixel with channels last: float64 ``(B, H·W·C)``."""
    import torch

    from oodbench.models.noise import keyed_uniform

    noise = keyed_uniform(torch.from_numpy(np.array(images)), SEED).numpy()
    values = (images + noise.astype(np.float64)) / 256
    return values.transpose(0, 2, 3, 1).reshape(len(images), -1)


def linear_predictor(images: np.ndarray) -> dict[str, np.ndarray]:
    """``mean`` µ ``(D,)`` and ``factor`` L ``(D, D)`` with ``L Lᵀ = covariance + 10⁻⁶ I`` of dequantised training images."""
    dimensions = images[0].size
    total, products = np.zeros(dimensions), np.zeros((dimensions, dimensions))
    for start in range(0, len(images), BLOCK):
        # about mid-grey, so that the subtraction below loses no digits that count; one product of a matrix with itself
        # costs half of any other
        values = dequantised(images[start : start + BLOCK]) - 0.5
        total += values.sum(0)
        products += values.T @ values
    centre = total / len(images)
    covariance = products / len(images) - np.outer(centre, centre)
    covariance[np.diag_indices(dimensions)] += RIDGE
    return {"mean": centre + 0.5, "factor": np.linalg.cholesky(covariance)}


def linear_residuals(images: np.ndarray, predictor: Mapping[str, np.ndarray]) -> np.ndarray:
    """``r = L⁻¹ (x − µ)`` as images ``(B, C, H, W)``.

    L is triangular: r_d is, in units of its deviation, what is left of value d after the best linear prediction from all values
    before it.
    """
    from scipy.linalg import solve_triangular

    centred = dequantised(images) - predictor["mean"]
    flat = solve_triangular(predictor["factor"], centred.T, lower=True, check_finite=False).T
    channels, height, width = images.shape[1:]
    return flat.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)


@register_statistics(
    {"linear_whiteness": "1", "linear_whiteness_rows": "1", "linear_mahalanobis": "1"},
    version="1",
    model_free=True,
    prepare=linear_predictor,
    prepared_on="train",
    least_prepared=lambda dimensions: dimensions + 1,
)
def linear(images: np.ndarray, predictor: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whiteness of the linear residuals over neighbours and over rows, and their squared norm, the Mahalanobis distance."""
    residuals = linear_residuals(images, predictor)
    return {
        "linear_whiteness": whiteness_2d(residuals),
        "linear_whiteness_rows": whiteness_rows(residuals),
        "linear_mahalanobis": (residuals**2).sum((1, 2, 3)),
    }
