"""PixelCNN++ as it is scored on a CPU: each activation is computed once, where the next convolution reads it.

``elu(x)`` and ``elu(−x)`` lie one behind the other below a row of zeros, and a convolution of ``elu([x, −x])`` becomes one in
three dimensions, the first of which is those two. So nothing is copied to concatenate or to pad, and every loop runs over
whole rows. Without gradients only: under autograd the plain network is faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.models.pixelcnn import GatedResnet, PixelCNN, shift_down, shift_right
from oodbench.models.pixelcnn_sampling import SampledPixelCNN

LOG2_E = math.log2(math.e)
UP, LEFT = 0, 1
"""Columns of zeros left of the streams' activations; what the upper one's convolutions need on both sides is their own."""


def elu_below(x: Tensor) -> Tensor:
    """``exp(−|x|) − 1``: elu of the negative one of x and −x. A power of two takes half the time of ``exp``."""
    return x.abs().mul_(-LOG2_E).exp2_().sub_(1)


def activated(x: Tensor, left: int) -> Tensor:
    """``elu(x)`` and ``elu(−x)``, below a row of zeros and right of ``left`` columns of zeros: ``(B, C, 2, 1 + H, left + W)``.

    With ``e = exp(−|x|) − 1`` they are ``max(x, e)`` and ``max(−x, e)``: one exponential for both.
    """
    count, channels, height, width = x.shape
    out = torch.empty(
        (count, channels, 2, 1 + height, left + width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d,
    )
    out[:, :, :, 0].zero_()
    out[..., :left].zero_()
    inside = out[:, :, :, 1:, left:]
    below = elu_below(x)
    torch.maximum(x, below, out=inside[:, :, 0])
    torch.maximum(-x, below, out=inside[:, :, 1])
    return out


class ActivatedConv(nn.Module):
    """A convolution of ``elu([x, −x])``, as one of what :func:`activated` gives.

    Parameters
    ----------
    weight : ``(O, 2C, h, w)``
    bias : ``(O,)``, or None
    beside : columns of zeros on either side that :func:`activated` did not add
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, beside: int = 0):
        super().__init__()
        halves = weight.unflatten(1, (2, -1)).transpose(1, 2)
        self.register_buffer("weight", halves.contiguous(memory_format=torch.channels_last_3d))
        self.register_buffer("bias", bias)
        self.padding = (0, 0, beside)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.weight, self.bias, padding=self.padding)[:, :, 0]


def looks(skip: nn.Conv2d, streams: int) -> Iterator[ActivatedConv]:
    """A look at several streams, ``elu([x, y, −x, −y])``, as one look at each; the first has the bias."""
    parts = skip.weight.unflatten(1, (2, streams, -1))
    for number in range(streams):
        bias = skip.bias if number == 0 else None
        yield ActivatedConv(parts[:, :, number].flatten(1, 2), bias)


class ScoredBlock(nn.Module):
    """A :class:`GatedResnet` that is given its inputs as they are and :func:`activated`."""

    def __init__(self, block: GatedResnet, streams: int):
        super().__init__()
        enter, leave = (cast(nn.Conv2d, layer.conv) for layer in (block.enter, block.leave))
        left, right = block.enter.padding[:2]
        self.left = left - right
        assert leave.bias is not None
        self.enter = ActivatedConv(enter.weight, enter.bias, right)
        # apart, so that the gate works on dense memory
        parts = zip(leave.weight.chunk(2), leave.bias.chunk(2), strict=True)
        self.value, self.gate = (ActivatedConv(*part, right) for part in parts)
        self.looks = nn.ModuleList(looks(block.skip, streams) if block.skip else ())

    def forward(self, x: Tensor, x_elu: Tensor, *seen: Tensor) -> Tensor:
        h: Tensor = self.enter(x_elu)
        for look, stream in zip(self.looks, seen, strict=True):
            h += look(stream)[:, :, 1:, stream.shape[4] - x.shape[3] :]
        h_elu = activated(h, self.left)
        value: Tensor = self.value(h_elu)
        gate: Tensor = self.gate(h_elu).sigmoid_()
        return torch.addcmul(x, value, gate, out=value)


class ScoredPixelCNN(SampledPixelCNN):
    """:class:`PixelCNN` whose network is computed as above on a CPU without gradients, and plainly elsewhere."""

    scored_encode_up: nn.ModuleList
    scored_encode_left: nn.ModuleList
    scored_decode_up: nn.ModuleList
    scored_decode_left: nn.ModuleList

    @classmethod
    def of(cls, model: PixelCNN) -> ScoredPixelCNN:
        """A model with the modules of another, whose weights may not change from now on."""
        scored = cls.__new__(cls)  # without `__init__`, which would draw random weights
        scored.__dict__ = {**vars(model), "_modules": dict(model._modules)}
        scored.scored_encode_up = _scored(model.encode_up, 0)
        scored.scored_encode_left = _scored(model.encode_left, 1)
        scored.scored_decode_up = _scored(model.decode_up, 1)
        scored.scored_decode_left = _scored(model.decode_left, 2)
        return scored

    def network(self, x: Tensor) -> Tensor:
        if x.requires_grad or x.device.type != "cpu":
            return super().network(x)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # tells padding from black
        up = shift_down(self.enter_up(x))
        left = shift_down(self.enter_left[0](x)) + shift_right(self.enter_left[1](x))
        left = self._decode(*self._encode(up, left))
        parameters: Tensor = self.out(torch.maximum(left, elu_below(left)))
        return parameters.contiguous()  # the mixture takes channels apart

    def _encode(
        self, up: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Both streams at the coarsest scale, and what was activated on the way there and is looked at again."""
        ups: list[Tensor] = []
        lefts: list[Tensor] = []
        for scale, blocks_up in enumerate(self.scored_encode_up.children()):
            ups.append(activated(up, UP))
            lefts.append(activated(left, LEFT))
            blocks_left = self.scored_encode_left[scale]
            for block_up, block_left in zip(
                blocks_up.children(), blocks_left.children(), strict=True
            ):
                up = block_up(up, ups[-1])
                ups.append(activated(up, UP))
                left = block_left(left, lefts[-1], ups[-1])
                lefts.append(activated(left, LEFT))
            if scale < self.scales - 1:
                up, left = self.down_up[scale](up), self.down_left[scale](left)
        return up, left, ups[:-1], lefts[:-1]

    def _decode(self, up: Tensor, left: Tensor, ups: list[Tensor], lefts: list[Tensor]) -> Tensor:
        """The left stream at the image's own scale."""
        for scale, blocks_up in enumerate(self.scored_decode_up.children()):
            up_elu = activated(up, UP)
            blocks_left = self.scored_decode_left[scale]
            for block_up, block_left in zip(
                blocks_up.children(), blocks_left.children(), strict=True
            ):
                up = block_up(up, up_elu, ups.pop())
                up_elu = activated(up, UP)
                left = block_left(left, activated(left, LEFT), up_elu, lefts.pop())
            if scale < self.scales - 1:
                up, left = self.up_up[scale](up), self.up_left[scale](left)
        return left


def _scored(scales: nn.ModuleList, streams: int) -> nn.ModuleList:
    """A stream's blocks by scale, which look at so many other streams."""
    return nn.ModuleList(
        nn.ModuleList(ScoredBlock(cast(GatedResnet, block), streams) for block in blocks.children())
        for blocks in scales.children()
    )
