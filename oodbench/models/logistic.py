"""The discretised logistic and its mixtures: densities over pixel levels that sum to one exactly.

Salimans et al., PixelCNN++, ICLR 2017, arXiv:1701.05517.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_LOG_SCALE = -7.0
"""Below this a logistic is narrower than a bin and only its gradient would suffer."""


def scaled(images: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    """Levels ``0 … bins−1`` to ``[−1, 1]``."""
    return images.to(dtype) * (2 / (bins - 1)) - 1


def nearest_level(x: Tensor, bins: int) -> Tensor:
    """Undo :func:`scaled`: the nearest of the levels ``0 … bins−1``, in the dtype of ``x``."""
    return torch.round((x + 1) * (bins - 1) / 2).clamp(0, bins - 1)


def discretised_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    """Log-probability of each level under a logistic integrated over its bin; the outer bins reach to infinity.

    ``log[σ((x + δ − µ)/s) − σ((x − δ − µ)/s)]`` with ``δ = 1/(bins − 1)``, as
    ``log(1 − e^{−2δ/s}) − softplus(−a) − softplus(b)`` for the two arguments ``a > b``, which never cancels.

    Parameters
    ----------
    x : levels scaled to [−1, 1]; broadcasts with ``mean`` and ``log_scale``
    """
    half = 1 / (bins - 1)
    inverse = torch.exp(-log_scale.clamp(min=SMALLEST_LOG_SCALE))
    upper, lower = (x + half - mean) * inverse, (x - half - mean) * inverse
    first, last = x < -1 + half, x > 1 - half
    below_upper = torch.where(last, torch.zeros_like(upper), -F.softplus(-upper))
    above_lower = torch.where(first, torch.zeros_like(lower), -F.softplus(lower))
    inside = torch.where(
        first | last, torch.zeros_like(upper), torch.log(-torch.expm1(-2 * half * inverse))
    )
    return below_upper + above_lower + inside


class LogisticMixture:
    """A mixture of logistics for each pixel, whose channels depend linearly on the earlier channels.

    Parameters
    ----------
    parameters : ``(B, K·(1 + 2C + C(C−1)/2), H, W)``: for each of K components a logit, C means, C log-scales, and the
        coefficients of green on red, blue on red and blue on green
    """

    def __init__(self, parameters: Tensor, channels: int, bins: int):
        self.channels, self.bins = channels, bins
        mixtures = parameters.shape[1] // mixture_width(channels)
        split = parameters.unflatten(1, (mixtures, -1))  # (B, K, …, H, W)
        self.log_weights = F.log_softmax(split[:, :, 0], 1)
        self.means = split[:, :, 1 : 1 + channels]
        self.log_scales = split[:, :, 1 + channels : 1 + 2 * channels]
        self.coefficients = torch.tanh(split[:, :, 1 + 2 * channels :])

    def channel_mean(self, channel: int, earlier: Tensor) -> Tensor:
        """Means ``(B, K, H, W)`` of one channel given the earlier ones ``(B, ≥channel, H, W)`` in [−1, 1]."""
        mean = self.means[:, :, channel]
        first = channel * (channel - 1) // 2
        for number in range(channel):
            mean = mean + self.coefficients[:, :, first + number] * earlier[:, None, number]
        return mean

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """Log-probability of each channel given the earlier ones, ``(B, C, H, W)``; ``x`` is scaled to [−1, 1].

        ``log p(x_c | x_<c) = LSE_k[w_k + Σ_{j≤c} l_kj] − LSE_k[w_k + Σ_{j<c} l_kj]``.
        """
        joint, before = self.log_weights, torch.zeros_like(self.log_weights[:, 0])
        found = []
        for channel in range(self.channels):
            mean, log_scale = self.channel_mean(channel, x), self.log_scales[:, :, channel]
            joint = joint + discretised_logistic_log_prob(
                x[:, None, channel], mean, log_scale, self.bins
            )
            total = torch.logsumexp(joint, 1)
            found.append(total - before)
            before = total
        return torch.stack(found, 1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw levels ``(B, C, H, W)``, uint8."""
        options: dict[str, Any] = {
            "generator": generator,
            "dtype": self.log_weights.dtype,
            "device": self.log_weights.device,
        }
        gumbel = -torch.log(-torch.log(torch.rand(self.log_weights.shape, **options)))
        chosen = (self.log_weights + gumbel).argmax(1, keepdim=True)
        drawn: list[Tensor] = []
        for channel in range(self.channels):
            earlier = torch.stack(drawn, 1) if drawn else self.means[:, 0, :0]
            mean = self.channel_mean(channel, earlier).gather(1, chosen)[:, 0]
            log_scale = (
                self.log_scales[:, :, channel].clamp(min=SMALLEST_LOG_SCALE).gather(1, chosen)[:, 0]
            )
            u = torch.rand(mean.shape, **options)
            value = mean + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u))
            drawn.append(scaled(nearest_level(value, self.bins), self.bins, mean.dtype))
        return nearest_level(torch.stack(drawn, 1), self.bins).to(torch.uint8)


def mixture_width(channels: int) -> int:
    """Parameters of one mixture component."""
    return 1 + 2 * channels + channels * (channels - 1) // 2
