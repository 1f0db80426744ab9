"""``p(x|z)`` of a decoder: a distribution for each pixel level, independent given the latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oodbench.errors import ModelError
from oodbench.models.flows import sum_per_image
from oodbench.models.logistic import discretised_logistic_log_prob, nearest_level

LIKELIHOODS = ("categorical", "logistic", "bernoulli", "gaussian")


class PixelLikelihood:
    """What a decoder's output channels mean.

    Parameters
    ----------
    kind : ``categorical`` (``bins·C`` logits) or ``logistic`` (C means and C log-scales of discretised logistics); and,
        on grey values in [0, 1], which makes them no densities of 8-bit images, ``bernoulli`` (C logits) or ``gaussian``
        (C means, unit variance, times the width of a bin)
    channels : C of the images
    bins : levels of a pixel
    """

    def __init__(self, kind: str, channels: int, bins: int):
        if kind not in LIKELIHOODS:
            raise ModelError(
                f"no VAE decoder is called {kind!r}; there are {', '.join(LIKELIHOODS)}"
            )
        self.kind, self.channels, self.bins = kind, channels, bins

    @property
    def outputs(self) -> int:
        """Channels that the decoder gives."""
        return {"categorical": self.bins, "logistic": 2, "bernoulli": 1, "gaussian": 1}[
            self.kind
        ] * self.channels

    def log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Float64 nats ``(B,)`` of pixels scaled to [−1, 1] under a decoder's output."""
        out = out.to(x.dtype)
        if self.kind == "logistic":
            mean, log_scale = out.chunk(2, 1)
            return sum_per_image(discretised_logistic_log_prob(x, mean, log_scale, self.bins))
        if self.kind == "bernoulli":
            return -sum_per_image(
                F.binary_cross_entropy_with_logits(out, (x + 1) / 2, reduction="none")
            )
        if self.kind == "gaussian":
            width = math.log(self.bins - 1) + 0.5 * math.log(2 * math.pi)
            return sum_per_image(-0.5 * ((x + 1) / 2 - out) ** 2 - width)
        logits = out.unflatten(1, (self.bins, self.channels))
        return -sum_per_image(
            F.cross_entropy(logits, nearest_level(x, self.bins).long(), reduction="none")
        )

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 levels ``(B, C, H, W)``; the grey values' means for ``bernoulli`` and ``gaussian``."""
        options: dict[str, Any] = {"generator": generator, "dtype": out.dtype, "device": out.device}
        u = torch.rand(len(out), self.channels, *out.shape[2:], **options)
        if self.kind in ("bernoulli", "gaussian"):
            grey = torch.sigmoid(out) if self.kind == "bernoulli" else out.clamp(0, 1)
            return torch.round(grey * (self.bins - 1)).to(torch.uint8)
        if self.kind == "categorical":
            cumulative = torch.softmax(out.unflatten(1, (self.bins, self.channels)), 1).cumsum(1)
            return (cumulative < u[:, None]).sum(1).clamp(max=self.bins - 1).to(torch.uint8)
        mean, log_scale = out.chunk(2, 1)
        value = mean + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u))
        return nearest_level(value, self.bins).to(torch.uint8)
