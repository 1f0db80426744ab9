"""Images along fixed random directions, without a model."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_statistics


@register_statistics({"pixel_projections": "[0,1]"}, version="1", model_free=True)
def pixel_projections(images: np.ndarray) -> dict[str, np.ndarray]:
    """Products of the pixels with the 50 unit vectors on which a flow's z is projected, ``(B, 50)``."""
    from oodbench.statistics.normality import directions

    pixels = images.reshape(len(images), -1) / 255.0
    # an image at a time: a product of matrices sums in another order for another number of images
    vectors = directions(pixels.shape[1]).numpy()
    return {"pixel_projections": np.stack([image @ vectors for image in pixels])}
