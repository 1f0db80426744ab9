"""What autoregressive models share: an exact sum over dimensions, and sampling in raster order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.models.flows import sum_per_image


def sample_in_raster_order(images: Tensor, draw: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """Fill ``images`` pixel by pixel with ``draw(images so far, row, column)``, levels ``(n, C)``."""
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            images[:, :, row, column] = draw(images, row, column)
    return images


class Autoregressive(nn.Module):
    """What every model with ``log_prob_per_dim(images)``, ``(B, C, H, W)`` in nats, has: an exact sum."""

    log_prob_per_dim: Callable[[Tensor], Tensor]

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: negative log-probability in nats ``(B,)``."""
        return -sum_per_image(self.log_prob_per_dim(images))

    def log_prob(self, images: Tensor) -> Tensor:
        """Exact log-probability in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        return sum_per_image(self.log_prob_per_dim(images))


class SoftmaxAutoregressive(Autoregressive):
    """A softmax over the levels of each dimension.

    A subclass has ``logits(x)``, ``(B, bins, C, H, W)`` from standardised pixels ``(x/(bins − 1) − mean)/std``.
    """

    logits: Callable[[Tensor], Tensor]

    def __init__(self, shape: tuple[int, int, int], mean: float, std: float, bins: int):
        super().__init__()
        self.shape, self.mean, self.std, self.bins = tuple(shape), mean, std, bins

    def _standardised(self, images: Tensor) -> Tensor:
        return (images.to(next(self.parameters()).dtype) / (self.bins - 1) - self.mean) / self.std

    def log_prob_per_dim(self, images: Tensor) -> Tensor:
        """``log p(x_d | those before)`` of each pixel and channel, ``(B, C, H, W)`` in nats."""
        x = self._standardised(images)
        return -F.cross_entropy(self.logits(x).to(x.dtype), images.long(), reduction="none")

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``, one pass of the network a dimension."""

        def draw(images: Tensor, row: int, column: int) -> Tensor:
            for channel in range(self.shape[0]):
                logits = self.logits(self._standardised(images))[:, :, channel, row, column]
                level = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)
                images[:, channel, row, column] = level[:, 0].to(torch.uint8)
            return images[:, :, row, column]

        device = next(self.parameters()).device
        return sample_in_raster_order(
            torch.zeros(n, *self.shape, dtype=torch.uint8, device=device), draw
        )
