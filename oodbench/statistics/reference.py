"""How far an image lies from in-dist reference images, by their pixels alone. Pixels are in units of the full scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oodbench.registry import register_statistics

EXPLAINED = 0.95
"""Share of the variance over the reference images that the principal components hold."""


def pixel_vectors(images: np.ndarray) -> dict[str, np.ndarray]:
    """The reference images themselves, ``(N, D)`` uint8."""
    return {"pixels": np.array(images).reshape(len(images), -1)}


@register_statistics(
    {"nearest_pixel_distance": "[0,1]"}, version="1", model_free=True, prepare=pixel_vectors
)
def nearest_pixels(
    images: np.ndarray, reference: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Euclidean distance to the nearest reference image, over all pixels and channels."""
    # whole numbers below 2⁵³ throughout: the squares are exact whatever the order of the sums
    x = images.reshape(len(images), -1).astype(np.float64)
    y = reference["pixels"].astype(np.float64)
    squares = (x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1)
    return {"nearest_pixel_distance": np.sqrt(squares.min(1)) / 255}


def principal_components(images: np.ndarray) -> dict[str, np.ndarray]:
    """``mean`` ``(D,)`` and ``components`` ``(K, D)``: the fewest that hold :data:`EXPLAINED` of the variance."""
    pixels = images.reshape(len(images), -1) / 255.0
    mean = pixels.mean(0)
    variances, directions = _principal(pixels - mean)
    held = np.cumsum(variances) / variances.sum()
    return {"mean": mean, "components": directions[: int(np.searchsorted(held, EXPLAINED)) + 1]}


def _principal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances times N, the largest first, and their unit directions ``(K, D)``, by the smaller of the two Gram matrices."""
    n, dimensions = centred.shape
    if n >= dimensions:
        variances, directions = np.linalg.eigh(centred.T @ centred)
        return variances[::-1], directions.T[::-1]
    variances, weights = np.linalg.eigh(centred @ centred.T)
    # centred images have one degree of freedom less than there are images: the smallest is rounding alone
    directions = weights.T[:0:-1] @ centred
    return variances[:0:-1], directions / np.linalg.norm(directions, axis=1, keepdims=True)


@register_statistics(
    {"pca_residual": "[0,1]²"}, version="1", model_free=True, prepare=principal_components
)
def pca(images: np.ndarray, components: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``‖x − x̂‖²``, where x̂ is the projection onto the principal components of the reference images."""
    centred = images.reshape(len(images), -1) / 255.0 - components["mean"]
    projected = centred @ components["components"].T @ components["components"]
    return {"pca_residual": ((centred - projected) ** 2).sum(1)}
