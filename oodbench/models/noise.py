"""Noise that belongs to the image, not to its place in a loader: dequantisation and posterior draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """What a model asks of the noise of an image.

    Attributes
    ----------
    law : 32 random bits to numbers
    seed : the benchmark's seed; another seed is another, equally valid, draw
    shape : numbers for each image
    """

    law: Callable[[np.ndarray], np.ndarray]
    seed: int
    shape: tuple[int, ...]

    def of(self, images: Tensor) -> Tensor:
        """``(B, *shape)`` on the CPU, for uint8 images wherever they are."""
        return torch.from_numpy(self.law(_keyed_bits(images, self.seed, self.shape)))


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
    return _keyed(images, Noise(_uniform, seed, tuple(images.shape[1:])))


def keyed_normal(images: Tensor, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of any ``shape`` for each image: float64 ``(B, *shape)``, keyed like :func:`keyed_uniform`."""
    return _keyed(images, Noise(_normal, seed, tuple(shape)))


def _uniform(bits: np.ndarray) -> np.ndarray:
    found: np.ndarray = (bits >> 8).astype(np.float32) * np.float32(2**-24)  # what a float32 holds
    return found


def _normal(bits: np.ndarray) -> np.ndarray:
    found: np.ndarray = ndtri((bits.astype(np.float64) + 0.5) * 2.0**-32)
    return found


@dataclass
class Ahead:
    """The noise of one batch, drawn before the model asks for it, and what the model asked for.

    Attributes
    ----------
    images : the batch, on the model's device
    drawn : noise on the same device
    asked : what was asked of this batch, which tells what to draw for the next
    """

    images: Tensor
    drawn: Mapping[Noise, Tensor] = field(default_factory=dict)
    asked: set[Noise] = field(default_factory=set)


_AHEAD: ContextVar[Ahead | None] = ContextVar("noise drawn ahead", default=None)


@contextmanager
def drawn_ahead(batch: Ahead) -> Iterator[None]:
    """Inside, :func:`keyed_uniform` and :func:`keyed_normal` of this very batch take what is drawn."""
    token = _AHEAD.set(batch)
    try:
        yield
    finally:
        _AHEAD.reset(token)


def _keyed(images: Tensor, noise: Noise) -> Tensor:
    ahead = _AHEAD.get()
    if ahead is None or ahead.images is not images:
        return torch.as_tensor(_Keyed.apply(images, noise))
    ahead.asked.add(noise)
    found = ahead.drawn.get(noise)
    return noise.of(images).to(images.device) if found is None else found


class _Keyed(torch.autograd.Function):
    """Noise as an operation of torch, so that ``torch.vmap`` may go over images that need some."""

    @staticmethod
    def forward(images: Tensor, noise: Noise) -> Tensor:
        return noise.of(images).to(images.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, images: Tensor, noise: Noise) -> tuple[Tensor, int]:
        images = images.movedim(in_dims[0], 0)
        sizes = images.shape[:2]
        found = torch.as_tensor(_Keyed.apply(images.flatten(0, 1), noise))
        return found.unflatten(0, sizes), 0


def _keyed_bits(images: Tensor, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """32 random bits from a Philox stream, which numpy guarantees never to change, keyed by a hash of the image."""
    pixels = np.ascontiguousarray(images.cpu().numpy())
    size = int(np.prod(shape))
    bits = np.empty((len(pixels), size), np.uint32)
    stream = np.random.Philox(0)
    for image, out in zip(pixels, bits):
        digest = hashlib.blake2b(image, digest_size=16, key=str(seed).encode()).digest()
        # a new generator would gather entropy that the key makes idle
        stream.state = _start(np.frombuffer(digest, np.uint64))
        out[:] = stream.random_raw(-(-size // 2)).view(np.uint32)[:size]
    return bits.reshape(-1, *shape)


def _start(key: np.ndarray) -> Any:
    """The state in which ``np.random.Philox(key=…)`` starts."""
    zeros = np.zeros(4, np.uint64)
    return {
        "bit_generator": "Philox",
        "state": {"counter": zeros, "key": key},
        "buffer": zeros,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
