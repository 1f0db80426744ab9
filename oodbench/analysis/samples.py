"""Images drawn from a model, kept in the cache as an image set of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oodbench.errors import ModelError
from oodbench.passes.shards import ImageRef, model_identity
from oodbench.paths import home, write_whole
from oodbench.store import key_of
from oodbench.zoo.describe import describe


def samples_path(model: str, n: int, seed: int) -> Path:
    """Where ``n`` images drawn from a model lie, or will; the name is a hash of weights, n and seed."""
    key = key_of(model_identity(model), n, seed)
    return home() / "samples" / f"samples-of-{describe(model).name}-{key[:16]}.npy"


def samples_ref(model: str, n: int, seed: int) -> ImageRef:
    """The drawn images as an image set."""
    return ImageRef(str(samples_path(model, n, seed)), describe(model).shape)


def draw_samples(model: str, n: int, seed: int, device: str = "cpu") -> Path:
    """Draw ``n`` images from a model at temperature 1, unless they lie in the cache already.

    The sampler's random stream starts at ``seed``; images belong to the device that they were drawn on.

    Raises
    ------
    ModelError : what the model draws is not uint8 images of its shape
    """
    import torch

    from oodbench.zoo.load import load_model

    path = samples_path(model, n, seed)
    if not path.exists():
        generator = torch.Generator(device).manual_seed(seed)
        images = np.asarray(load_model(model, seed, device).sample(n, generator=generator).cpu())
        wanted = (n, *describe(model).shape)
        if images.dtype != np.uint8 or images.shape != wanted:
            raise ModelError(
                f"sample(n, generator=…) of {describe(model).name} gave {images.dtype} {images.shape}, not uint8 {wanted}"
            )
        write_whole(path, lambda file: np.save(file, images))
    return path
