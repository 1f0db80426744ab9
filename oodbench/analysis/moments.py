"""Moments of image sets, without any model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oodbench.analysis.expected import Expected

BLOCK = 1024
"""Images whose squares are held at a time."""


def variance_sums(images: np.ndarray) -> list[Expected]:
    """Per channel the sum over pixels of the variances of images scaled to [0, 1]: the paper's data statistics.

    It is the mean squared distance of an image from the mean image, hence its standard error.
    """
    distances = np.concatenate(list(_squared_distances(images)))
    return [Expected.of_mean(channel) for channel in distances.T]


def _squared_distances(images: np.ndarray) -> Iterator[np.ndarray]:
    """Of each image from the mean image, by channel ``(B, C)``, a block at a time."""
    mean = images.mean(0, dtype=np.float64)
    for start in range(0, len(images), BLOCK):
        yield (((images[start : start + BLOCK] - mean) / 255) ** 2).sum((2, 3))


def distance_of_means(of_in: np.ndarray, of_ood: np.ndarray) -> float:
    """``‖µ_ood − µ_in‖ / √(Σ σ²_in)``: how far the OOD set's mean lies, in units of the in-dist set's own radius."""
    apart = of_ood.mean(0, dtype=np.float64) - of_in.mean(0, dtype=np.float64)
    return float(np.sqrt((apart**2).sum() / of_in.var(0, dtype=np.float64).sum()))


def off_diagonal_share(images: np.ndarray) -> float | None:
    """``Σ_{j≠k} C²_jk / Σ_jk C²_jk`` of the covariance C of pixels: 0 for independent ones.

    Estimated without bias in both sums, where the covariance of n images would show 1/n of the squared trace as
    correlations: differences of disjoint pairs of images have mean 0 and covariance 2C, and products of two unlike
    differences have the expectation of the squares. None below four images, and for a set of equal images.
    """
    n = len(images) // 2
    if n < 2:
        return None
    halves = images[: 2 * n].reshape(2, n, -1).astype(np.float64)
    differences = halves[0] - halves[1]
    squares = differences**2
    whole = ((differences @ differences.T) ** 2).sum() - (squares.sum(1) ** 2).sum()
    diagonal = (squares.sum(0) ** 2).sum() - (squares**2).sum()
    return float(1 - diagonal / whole) if whole > 0 else None
