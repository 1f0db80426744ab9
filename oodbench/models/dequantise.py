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
    noise = np.stack([_uniform(image, seed) for image in pixels]) if len(pixels) else np.empty(pixels.shape, np.float32)
    return torch.from_numpy(noise).to(images.device)


def _uniform(image: np.ndarray, seed: int) -> np.ndarray:
    """24 random bits a pixel from a Philox stream, which numpy guarantees never to change, keyed by a hash."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(seed).encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(-(-image.size // 2))
    bits = stream.view(np.uint32)[: image.size].reshape(image.shape) >> 8
    return bits.astype(np.float32) * np.float32(2**-24)
