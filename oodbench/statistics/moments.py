"""Model-free moments of an image's pixels, in units of the full scale (255 = 1)."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_statistics


@register_statistics(
    {"pixel_mean": "[0,1]", "pixel_variance": "[0,1]²", "dimensions": "1"}, version="2", model_free=True
)  # fmt: skip
def moments(images: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and variance over all pixels and channels of one image, and how many there are."""
    pixels = images.reshape(len(images), -1) / 255.0
    dimensions = np.full(len(images), pixels.shape[1], np.float64)
    return {"pixel_mean": pixels.mean(1), "pixel_variance": pixels.var(1), "dimensions": dimensions}


@register_statistics({"total_variation": "[0,1]"}, version="1", model_free=True)
def variation(images: np.ndarray) -> dict[str, np.ndarray]:
    """Anisotropic total variation: absolute differences of neighbouring pixels, summed over both axes and all channels."""
    x = images / 255.0
    down, right = np.abs(np.diff(x, axis=2)), np.abs(np.diff(x, axis=3))
    return {"total_variation": down.sum((1, 2, 3)) + right.sum((1, 2, 3))}
