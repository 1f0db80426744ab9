"""The gated PixelCNN (van den Oord et al., NeurIPS 2016, arXiv:1606.05328), which Nalisnick et al. 2019 examine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.errors import ModelError
from oodbench.models.standardised import StandardisedAutoregressive


def colour_mask(inward: Tensor, outward: Tensor, own: bool) -> Tensor:
    """``(out, in)``: which colours an output may see at its own pixel: those before it, and with ``own`` its own."""
    return (inward[None] <= outward[:, None]) if own else (inward[None] < outward[:, None])


class RowConv(nn.Conv2d):
    """A convolution over the pixels to the left, and over the permitted colours of the pixel itself."""

    mask: Tensor

    def __init__(self, inward: Tensor, outward: Tensor, width: int, own: bool):
        super().__init__(len(inward), len(outward), (1, width))
        mask = torch.ones(len(outward), len(inward), 1, width)
        mask[:, :, 0, -1] = colour_mask(inward, outward, own)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (self.kernel_size[1] - 1, 0)), self.weight * self.mask, self.bias)


def gate(x: Tensor) -> Tensor:
    """``tanh(a)·σ(b)`` of the two halves of the channels."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """A vertical stack that sees the rows above, and a horizontal one that sees its row's left part and the vertical one.

    ``first``: the layer that sees pixels, whose own row (vertically) and own colour (horizontally) are left out.
    """

    def __init__(self, inward: Tensor, colours: Tensor, kernel: int, first: bool):
        super().__init__()
        features, reach = len(colours), kernel // 2
        self.first, self.reach = first, reach
        twice = torch.cat([colours, colours])
        self.vertical = nn.Conv2d(len(inward), 2 * features, (reach + 1, kernel))
        self.down = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = RowConv(inward, twice, reach + 1, own=not first)
        self.leave = RowConv(colours, colours, 1, own=True)

    def forward(self, above: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        padding = (self.reach, self.reach, self.reach + self.first, 0)
        vertical = self.vertical(F.pad(above, padding)[:, :, : above.shape[2] + self.reach])
        horizontal = self.leave(gate(self.horizontal(left) + self.down(vertical)))
        return gate(vertical), horizontal if self.first else left + horizontal


class GatedPixelCNN(StandardisedAutoregressive):
    """Gated convolutions in two stacks without a blind spot, and a softmax over the levels. ``log_prob`` is exact.

    Red, green and blue follow one another: each third of the features belongs to a colour.

    Parameters
    ----------
    shape : ``(C, H, W)``
    features : of each stack, divisible by C; 32 for the paper's FashionMNIST, 128 for its other sets
    layers : gated layers after the first; 5 and 15 in the paper
    kernel : side of the inner convolutions; the first layer's is 7
    mean, std : that standardise pixels in [0, 1]; one number, or one a channel
    bins : levels of a pixel, 256 for 8 bits
    """

    def __init__(
        self, shape: tuple[int, int, int], features: int = 32, layers: int = 5, kernel: int = 3,
        mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5, bins: int = 256,
    ):  # fmt: skip
        super().__init__(shape, mean, std, bins)
        channels = shape[0]
        if features % channels:
            raise ModelError(
                f"a gated PixelCNN of {channels} colours needs features divisible by that, not {features}"
            )
        pixels = torch.arange(channels)
        colours = pixels.repeat_interleave(features // channels)
        self.enter = GatedLayer(pixels, colours, 7, first=True)
        self.layers = nn.ModuleList(
            GatedLayer(colours, colours, kernel, first=False) for _ in range(layers)
        )
        self.leave = nn.Sequential(
            nn.ReLU(), RowConv(colours, colours, 1, own=True),
            nn.ReLU(), RowConv(colours, pixels.repeat_interleave(bins), 1, own=True),
        )  # fmt: skip

    def logits(self, x: Tensor) -> Tensor:
        """``(B, bins, C, H, W)`` from standardised pixels."""
        above, left = self.enter(x, x)
        for layer in self.layers:
            above, left = layer(above, left)
        logits: Tensor = self.leave(left)
        return logits.unflatten(1, (self.shape[0], self.bins)).transpose(1, 2)
