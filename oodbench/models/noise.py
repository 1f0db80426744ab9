"""Noise that belongs to the image, not to its place in a loader: dequantisation and posterior draws."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor


def keyed_uniform(images: Tensor, seed: int) -> Tensor:
    """Uniform noise in ``[0, 1)`` for each pixel, a pure function of ``(seed, image bytes)``.

    Parameters
    ----------
    images : uint8 ``(B, C, H, W)``
    seed : the benchmark's seed; another seed is another, equally valid, draw

    Returns
    -------
    float32 ``(B, C, H, W)`` on the images' device.
    """
    bits = _keyed_bits(images, seed, tuple(images.shape[1:])) >> 8  # as many as a float32 holds
    return torch.from_numpy(bits.astype(np.float32) * np.float32(2**-24)).to(images.device)


def keyed_normal(images: Tensor, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of any ``shape`` for each image: float64 ``(B, *shape)``, keyed like :func:`keyed_uniform`."""
    uniform = (_keyed_bits(images, seed, shape).astype(np.float64) + 0.5) * 2.0**-32
    return torch.from_numpy(ndtri(uniform)).to(images.device)


def _keyed_bits(images: Tensor, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """32 random bits from a Philox stream, which numpy guarantees never to change, keyed by a hash of the image."""
    pixels = np.ascontiguousarray(images.cpu().numpy())
    size = int(np.prod(shape))
    bits = np.empty((len(pixels), size), np.uint32)
    for image, out in zip(pixels, bits):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(seed).encode()).digest()
        stream = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(-(-size // 2))
        out[:] = stream.view(np.uint32)[:size]
    return bits.reshape(-1, *shape)
