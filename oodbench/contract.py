"""The contract of a density model. Anything with ``shape`` and ``log_prob`` is one; nothing needs to be inherited."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Generator, Tensor


@runtime_checkable
class DensityModel(Protocol):
    """A density over 8-bit images.

    Further methods are capabilities that statistics may ask for: ``encode(images) -> (z, log_prob_z, log_det)`` with z
    standardised by the prior, ``residuals(images) -> z``, ``sample(n)``, ``decode(z)``. A model with a ``seed`` attribute
    draws noise, keyed by (seed, image bytes); one with a ``batch_size`` is given that many images at a time, any other 64.
    """

    shape: tuple[int, int, int]
    """``(C, H, W)`` of the images that it takes."""

    def log_prob(self, images: Tensor) -> Tensor:
        """uint8 ``(B, C, H, W)`` to float64 nats ``(B,)``: log-probability of the *discrete* image, or a bound on it.

        A pure function of each image: batch, order and repetition change nothing; the input is not modified.
        """


@runtime_checkable
class DrawingModel(DensityModel, Protocol):
    """A density model that draws images."""

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """uint8 ``(n, C, H, W)`` at temperature 1, of the generator's random stream alone."""


def bits_per_dim(log_prob: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``−log p(x) / (D·ln 2)``: nats an image to bits a dimension (pixel and channel)."""
    return -log_prob / (math.prod(shape) * math.log(2))
