"""A masked PixelCNN with a softmax over the levels (van den Oord et al., ICML 2016, arXiv:1601.06759)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.models.standardised import StandardisedAutoregressive


class MaskedConv(nn.Conv2d):
    """A convolution that sees the pixels before its own in raster order (mask A), or its own too (mask B)."""

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, own: bool):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2 + own :] = 0
        mask[kernel // 2 + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedPixelCNN(StandardisedAutoregressive):
    """One residual bottleneck block, applied ``repeats`` times with the same weights, between masked convolutions.

    ``log_prob`` is exact; the channels of a pixel are independent given the pixels before it.

    Parameters
    ----------
    shape : ``(C, H, W)``
    hidden : channels of the bottleneck; twice as many outside
    repeats : applications of the block
    mean, std : that standardise pixels in [0, 1]; one number, or one a channel
    bins : levels of a pixel, 256 for 8 bits
    """

    def __init__(
        self, shape: tuple[int, int, int], hidden: int = 16, repeats: int = 5,
        mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5, bins: int = 256,
    ):  # fmt: skip
        super().__init__(shape, mean, std, bins)
        self.repeats = repeats
        self.enter = MaskedConv(shape[0], 2 * hidden, 7, own=False)
        self.block = nn.Sequential(
            MaskedConv(2 * hidden, hidden, 1, own=True), nn.ReLU(),
            MaskedConv(hidden, hidden, 3, own=True), nn.ReLU(),
            MaskedConv(hidden, 2 * hidden, 1, own=True), nn.ReLU(),
        )  # fmt: skip
        self.leave = nn.Sequential(
            nn.ReLU(), MaskedConv(2 * hidden, 2 * hidden, 1, own=True),
            nn.ReLU(), MaskedConv(2 * hidden, bins * shape[0], 1, own=True),
        )  # fmt: skip

    def logits(self, x: Tensor) -> Tensor:
        """``(B, bins, C, H, W)`` from standardised pixels."""
        h = self.enter(x)
        for _ in range(self.repeats):
            h = h + self.block(h)
        logits: Tensor = self.leave(h)
        return logits.unflatten(1, (self.bins, self.shape[0]))
