"""Dequantisation noise that belongs to the image, not to its place in a loader."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def keyed_uniform(images: Tensor, seed: int) -> Tensor:
    """Uniform noise in ``[0, 1)``, a pure function of ``(seed, image bytes)``.

    Parameters
    ----------
    images : uint8 ``(B, C, H, W)``
    seed : the benchmark's seed; another seed is another, equally valid, draw

    Returns
    -------
    float32 ``(B, C, H, W)`` on the images' device.
    """
    pixels = np.ascontiguousarray(images.cpu().numpy())
    noise = np.empty(pixels.shape, np.float32)
    for image, out in zip(pixels, noise):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(seed).encode()).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        generator.random(dtype=np.float32, out=out)
    return torch.from_numpy(noise).to(images.device)
