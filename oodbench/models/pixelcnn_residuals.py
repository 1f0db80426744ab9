"""What PixelCNN++ leaves over: each value of an image as a standard normal number, given the values before it."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.models.logistic import (
    SMALLEST_LOG_SCALE,
    LogisticMixture,
    discretised_logistic_log_prob,
    scaled,
)
from oodbench.models.noise import keyed_uniform
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.pixelcnn_sampling import SampledPixelCNN

SMALLEST = 1e-7
"""What u keeps from 0 and 1, so that z stays within ±5.2."""


def cumulative(mixture: LogisticMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """``P(X < x_c | x_<c)`` and ``P(X ≤ x_c | x_<c)`` of each channel, ``(B, C, H, W)`` each; ``x`` is scaled to [−1, 1].

    ``Σ_k w_k σ((x ∓ δ − µ_k)/s_k)`` with ``δ = 1/(bins − 1)``, and ``w_k ∝ π_k Π_{j<c} p_k(x_j)``: the colours before tell
    which component is at work. The outer bins reach to infinity, so nothing is below level 0 or above the last one.
    """
    half, log_weights = 1 / (mixture.bins - 1), mixture.log_weights
    below, up_to = [], []
    for channel in range(mixture.channels):
        level, log_scale = x[:, channel, None], mixture.log_scales[:, :, channel]
        mean, weights = mixture.channel_mean(channel, x), log_weights.softmax(1)
        inverse = torch.exp(-log_scale.clamp(min=SMALLEST_LOG_SCALE))
        under, over = ((level + step - mean) * inverse for step in (-half, half))
        below.append((weights * under.sigmoid()).sum(1).where(x[:, channel] > -1 + half, 0.0))
        up_to.append((weights * over.sigmoid()).sum(1).where(x[:, channel] < 1 - half, 1.0))
        log_weights = log_weights + discretised_logistic_log_prob(
            level, mean, log_scale, mixture.bins
        )
    return torch.stack(below, 1), torch.stack(up_to, 1)


def mixture_residuals(model: PixelCNN, images: Tensor) -> Tensor:
    """``z = Φ⁻¹(u)`` with ``u = P(X < x | past) + v·P(X = x | past)``, float64 ``(B, C, H, W)``.

    v is uniform and keyed by (seed, image bytes), so that u is uniform, and z white standard normal noise, where the image is
    a draw from the model. In float64 after the network: float32 does not resolve u near 1. Takes any form of the model.
    """
    x = scaled(images, model.bins, torch.float64)
    parameters = model.network(x.to(next(model.parameters()).dtype)).double()
    below, up_to = cumulative(LogisticMixture(parameters, model.shape[0], model.bins), x)
    v = keyed_uniform(images, getattr(model, "seed", 0)).double()
    return torch.special.ndtri(torch.lerp(below, up_to, v).clamp(SMALLEST, 1 - SMALLEST))


class ResidualPixelCNN(SampledPixelCNN):
    """PixelCNN++ that gives its residuals; the density is :class:`PixelCNN`'s, the sampler :class:`SampledPixelCNN`'s.

    ``seed`` is of the noise that makes u uniform; the density has none.
    """

    seed = 0

    @torch.no_grad()
    def residuals(self, images: Tensor) -> Tensor:
        """Standard normal numbers ``(B, C, H, W)``, float64: see :func:`mixture_residuals`."""
        return mixture_residuals(self, images)
