"""Model-free baselines with in-dist reference: how unlike the reference an image is in numbers that need no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import CHUNK, Standard

TWO_SIDED = "model-free form of two-sided likelihood (thu-ml/ood-dgm)"
LEAST = 20
"""Reference images without which no density is estimated."""


@register_scorer("code-length-png-two-sided", cite=TWO_SIDED)
class PngTwoSided:
    """Distance of the PNG file's length from its median over reference images, ``|L(x) − median L|``, in nats."""

    def fit(self, code_length_png: np.ndarray) -> float:
        return float(np.median(code_length_png))

    def score(self, median: float, code_length_png: np.ndarray) -> np.ndarray:
        return np.abs(code_length_png - median)


@register_scorer("code-length-jp2-two-sided", cite=TWO_SIDED)
class Jp2TwoSided:
    """Distance of the JPEG 2000 codestream's length from its median over reference images, in nats."""

    def fit(self, code_length_jp2: np.ndarray) -> float:
        return float(np.median(code_length_jp2))

    def score(self, median: float, code_length_jp2: np.ndarray) -> np.ndarray:
        return np.abs(code_length_jp2 - median)


@register_scorer("code-length-webp-two-sided", cite=TWO_SIDED)
class WebpTwoSided:
    """Distance of the lossless WebP file's length from its median over reference images, in nats."""

    def fit(self, code_length_webp: np.ndarray) -> float:
        return float(np.median(code_length_webp))

    def score(self, median: float, code_length_webp: np.ndarray) -> np.ndarray:
        return np.abs(code_length_webp - median)


@register_scorer("code-length-jxl-two-sided", cite=TWO_SIDED)
class JxlTwoSided:
    """Distance of the lossless JPEG XL codestream's length from its median over reference images, in nats."""

    def fit(self, code_length_jxl: np.ndarray) -> float:
        return float(np.median(code_length_jxl))

    def score(self, median: float, code_length_jxl: np.ndarray) -> np.ndarray:
        return np.abs(code_length_jxl - median)


@register_scorer("pixel-variance-two-sided", cite=TWO_SIDED)
class VarianceTwoSided:
    """Distance of the variance of the image's pixels from its median over reference images."""

    def fit(self, pixel_variance: np.ndarray) -> float:
        return float(np.median(pixel_variance))

    def score(self, median: float, pixel_variance: np.ndarray) -> np.ndarray:
        return np.abs(pixel_variance - median)


@register_scorer("pixel-mean-two-sided", cite=TWO_SIDED)
class MeanTwoSided:
    """Distance of the mean of the image's pixels from its median over reference images."""

    def fit(self, pixel_mean: np.ndarray) -> float:
        return float(np.median(pixel_mean))

    def score(self, median: float, pixel_mean: np.ndarray) -> np.ndarray:
        return np.abs(pixel_mean - median)


@dataclass(frozen=True)
class ProductKernel:
    """A Gaussian product kernel density estimate on standardised columns, Scott's bandwidth ``N^(−1/(K+4))``."""

    standard: Standard
    points: np.ndarray
    bandwidth: float

    @classmethod
    def of(cls, reference: np.ndarray) -> ProductKernel:
        standard = Standard.of(reference)
        points = standard(reference)
        n, dimensions = points.shape
        return cls(standard, points, float(n ** (-1 / (dimensions + 4))))

    def negative_log_density(self, columns: np.ndarray) -> np.ndarray:
        """``−log (1/N) Σ_i Π_k N(x_k; x_ik, h²)`` of each row, up to a constant; ever larger far away."""
        values = self.standard(columns)
        rows = max(1, CHUNK // self.points.size)
        starts = range(0, len(values), rows)
        return np.concatenate([self._of(values[start : start + rows]) for start in starts])

    def _of(self, values: np.ndarray) -> np.ndarray:
        squares = ((values[:, None] - self.points) ** 2).sum(2)
        exponents = -0.5 * squares / self.bandwidth**2
        largest = exponents.max(1)
        found: np.ndarray = -largest - np.log(np.exp(exponents - largest[:, None]).mean(1))
        return found


@register_scorer(
    "image-numbers-kde", cite="this benchmark; model-free kin of DoSE", least_reference=LEAST
)
class ImageNumbersKde:
    """Negative log-density of three code lengths, mean, variance and total variation, by a Gaussian product kernel on ``ref``."""

    def fit(
        self, code_length_png: np.ndarray, code_length_jp2: np.ndarray, code_length_webp: np.ndarray,
        pixel_mean: np.ndarray, pixel_variance: np.ndarray, total_variation: np.ndarray,
    ) -> ProductKernel:  # fmt: skip
        codes = code_length_png, code_length_jp2, code_length_webp
        return ProductKernel.of(np.stack([*codes, pixel_mean, pixel_variance, total_variation], 1))

    def score(
        self, state: ProductKernel, code_length_png: np.ndarray, code_length_jp2: np.ndarray,
        code_length_webp: np.ndarray, pixel_mean: np.ndarray, pixel_variance: np.ndarray, total_variation: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        codes = code_length_png, code_length_jp2, code_length_webp
        columns = [*codes, pixel_mean, pixel_variance, total_variation]
        return state.negative_log_density(np.stack(columns, 1))


@register_scorer("nearest-pixels", cite="nearest neighbour on raw pixels")
def nearest_pixels(nearest_pixel_distance: np.ndarray) -> np.ndarray:
    """Euclidean distance to the nearest reference image, over all pixels and channels."""
    return nearest_pixel_distance


@register_scorer("pca-reconstruction", cite="principal components of raw pixels")
def pca_reconstruction(pca_residual: np.ndarray) -> np.ndarray:
    """Squared error of the reconstruction from the principal components that hold 95 % of the reference's variance."""
    return pca_residual
