"""Drawing from PixelCNN++: a new pixel computes what it needs, and all that earlier ones computed is kept.

The upper stream runs once a row. What the left stream sees of the row above is summed once a row as well, so that a pixel
costs two small products a block. A coarser scale takes one row for two and one pixel for four.

Ramachandran et al., Fast Generation for Convolutional Autoregressive Models, 2017, arXiv:1704.06001.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from oodbench.models.autoregressive import sample_in_raster_order
from oodbench.models.logistic import (
    SMALLEST_LOG_SCALE,
    LogisticMixture,
    mixture_width,
    nearest_level,
    scaled,
)
from oodbench.models.pixelcnn import GatedResnet, PixelCNN, ShiftedConv, concat_elu


class RowConv:
    """A convolution of the upper stream, fed row by row: ``(n, C, 1, W) -> (n, C', 1, W / stride)``."""

    def __init__(self, layer: ShiftedConv):
        self.layer = layer
        self.above: Tensor | None = None

    def __call__(self, row: Tensor) -> Tensor:
        above = torch.zeros_like(row) if self.above is None else self.above
        self.above = row
        seen = torch.cat([above, row], 2)[:, :, -self.layer.conv.kernel_size[0] :]
        y: Tensor = self.layer.conv(F.pad(seen, self.layer.padding[:2]))
        return y


class PixelConv:
    """A convolution of the left stream, two rows high: its share of the row above is summed once a row."""

    def __init__(self, layer: ShiftedConv, n: int, width: int):
        weight, self.bias = layer.conv.weight, layer.conv.bias
        self.reach = weight.shape[3]
        self.upper = weight[:, :, :1]
        self.lower = weight[:, :, 1].permute(2, 1, 0).flatten(0, 1).contiguous()
        self.row = weight.new_zeros(n, self.reach - 1 + width, weight.shape[1])  # after its padding

    def start_row(self, other: Tensor | None = None) -> None:
        """Make the row that was fed the one above; ``other``, ``(n, C', 1, W)``, is added to each pixel's output."""
        above = F.conv2d(self.row.transpose(1, 2)[:, :, None], self.upper, self.bias)
        above = above if other is None else above + other
        self.above = above[:, :, 0].permute(2, 0, 1).contiguous()

    def feed(self, column: int, x: Tensor) -> None:
        """The input ``(n, C)`` of a pixel."""
        self.row[:, column + self.reach - 1] = x

    def __call__(self, column: int) -> Tensor:
        """The output ``(n, C')`` of a pixel that was fed, as all before it in its row."""
        own = self.row[:, column : column + self.reach].flatten(1)
        return torch.addmm(self.above[column], own, self.lower)


class RowBlock:
    """A :class:`GatedResnet` of the upper stream, fed row by row."""

    def __init__(self, block: GatedResnet):
        self.enter, self.skip, self.leave = RowConv(block.enter), block.skip, RowConv(block.leave)

    def __call__(self, x: Tensor, x_elu: Tensor, skip_elu: Tensor | None = None) -> Tensor:
        h = self.enter(x_elu)
        if self.skip is not None and skip_elu is not None:
            h = h + self.skip(skip_elu)
        a, b = self.leave(concat_elu(h)).chunk(2, 1)
        return torch.addcmul(x, a, torch.sigmoid(b))


class PixelBlock:
    """A :class:`GatedResnet` of the left stream, fed pixel by pixel; its look at the upper stream is taken once a row."""

    def __init__(self, block: GatedResnet, n: int, width: int):
        self.enter, self.leave = (
            PixelConv(layer, n, width) for layer in (block.enter, block.leave)
        )
        assert block.skip is not None
        weight, self.bias = block.skip.weight, block.skip.bias
        halves = weight.unflatten(1, (2, -1, weight.shape[0]))  # of elu(x) and elu(−x); of streams
        self.look = halves[:, :, 0].flatten(1, 2).contiguous()
        self.skip = halves[:, :, 1:].flatten(1, 3).flatten(1).T.contiguous()

    def start_row(self, up_elu: Tensor) -> None:
        self.enter.start_row(F.conv2d(up_elu, self.look, self.bias))
        self.leave.start_row()

    def __call__(
        self, column: int, x: Tensor, x_elu: Tensor, skip_elu: Tensor | None = None
    ) -> Tensor:
        self.enter.feed(column, x_elu)
        h = self.enter(column)
        h = h if skip_elu is None else torch.addmm(h, skip_elu, self.skip)
        self.leave.feed(column, concat_elu(h))
        a, b = self.leave(column).chunk(2, 1)
        return torch.addcmul(x, a, torch.sigmoid(b))


class Scale:
    """The blocks of one resolution, around the coarser ones; depth 0 is the image's own."""

    def __init__(self, model: PixelCNN, depth: int, n: int):
        width, last = model.shape[2] >> depth, model.scales - 1

        def pairs(
            ups: torch.nn.Module, lefts: torch.nn.Module
        ) -> list[tuple[RowBlock, PixelBlock]]:
            blocks = zip(ups.children(), lefts.children(), strict=True)
            return [(RowBlock(up), PixelBlock(left, n, width)) for up, left in blocks]  # type: ignore[arg-type]

        self.encode = pairs(model.encode_up[depth], model.encode_left[depth])
        self.decode = pairs(model.decode_up[last - depth], model.decode_left[last - depth])
        self.coarser = Coarser(model, depth, n) if depth < last else None

    def start_row(self, row: int, up: Tensor) -> Tensor:
        """The upper stream's row ``(n, C, 1, W)``, in and out."""
        seen = [concat_elu(up)]
        for up_block, left_block in self.encode:
            up = up_block(up, seen[-1])
            seen.append(concat_elu(up))
            left_block.start_row(seen[-1])
        if self.coarser:
            up = self.coarser.start_row(row, up)
        up_elu = concat_elu(up) if self.coarser else seen.pop()
        for up_block, left_block in self.decode:
            up = up_block(up, up_elu, seen.pop())
            up_elu = concat_elu(up)
            left_block.start_row(up_elu)
        return up

    def pixel(self, row: int, column: int, left: Tensor) -> Tensor:
        """The left stream's pixel ``(n, C)``, in and out."""
        seen = [concat_elu(left)]
        for _, block in self.encode:
            left = block(column, left, seen[-1])
            seen.append(concat_elu(left))
        if self.coarser:
            left = self.coarser.pixel(row, column, left)
        else:
            seen.pop()
        for _, block in self.decode:
            left = block(column, left, concat_elu(left), seen.pop())
        return left


class Coarser:
    """What a scale sees of the next, which takes one row for two and one pixel for four."""

    def __init__(self, model: PixelCNN, depth: int, n: int):
        width, decode = model.shape[2] >> depth, model.scales - 2 - depth
        self.scale = Scale(model, depth + 1, n)
        self.down_up = RowConv(model.down_up[depth])  # type: ignore[arg-type]
        self.down_left = PixelConv(model.down_left[depth], n, width)  # type: ignore[arg-type]
        self.up_up = model.up_up[decode]
        conv = cast(nn.ConvTranspose2d, model.up_left[decode].conv)
        assert conv.bias is not None
        self.spread = conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        self.bias = conv.bias.repeat(4)
        self.lefts = conv.weight.new_zeros(width // 2, n, 2, 2, conv.weight.shape[1])

    def start_row(self, row: int, up: Tensor) -> Tensor:
        down = self.down_up(up)  # at odd rows for what it keeps
        if row % 2 == 0:
            self.down_left.start_row()
            self.ups = self.up_up(self.scale.start_row(row // 2, down))
        return self.ups[:, :, row % 2 : row % 2 + 1]

    def pixel(self, row: int, column: int, left: Tensor) -> Tensor:
        self.down_left.feed(column, left)
        if row % 2 == 0 and column % 2 == 0:
            below = self.scale.pixel(row // 2, column // 2, self.down_left(column))
            four = torch.addmm(self.bias, below, self.spread)
            self.lefts[column // 2] = four.view(len(four), 2, 2, -1)
        return self.lefts[column // 2, :, row % 2, column % 2]


class KeptNetwork:
    """``PixelCNN.network`` for n images that are made pixel by pixel; dropout is off.

    For each row :meth:`start_row`, for each of its pixels :meth:`parameters` and then :meth:`feed`.
    """

    def __init__(self, model: PixelCNN, n: int):
        width = model.shape[2]
        first, second = model.enter_left
        self.enter_up, self.enter_above = RowConv(model.enter_up), RowConv(first)  # type: ignore[arg-type]
        self.enter_left = PixelConv(second, n, width)  # type: ignore[arg-type]
        self.scale = Scale(model, 0, n)
        self.weight, self.bias = model.out.weight[:, :, 0, 0].T.contiguous(), model.out.bias
        self.empty = model.out.weight.new_zeros(n, model.out.in_channels, 1, width)

    def start_row(self, row: int) -> None:
        """Begin a row; the one above is complete."""
        above = self.enter_left.row.transpose(1, 2)[:, :, None]
        up = self.enter_up(above.clone()) if row else self.empty
        left = self.enter_above(above) if row else self.empty
        self.entered = left[:, :, 0].permute(2, 0, 1)
        self.enter_left.start_row()
        self.scale.start_row(row, up)
        self.row = row

    def parameters(self, column: int) -> Tensor:
        """Mixture parameters ``(n, K·…)`` of the next pixel of the row."""
        left = self.entered[column]
        left = left + self.enter_left(column - 1) if column else left
        return torch.addmm(self.bias, F.elu(self.scale.pixel(self.row, column, left)), self.weight)

    def feed(self, column: int, x: Tensor) -> None:
        """What was drawn there, ``(n, C)`` in [−1, 1]."""
        self.enter_left.feed(column, F.pad(x, (0, 1), value=1.0))


class SampledPixelCNN(PixelCNN):
    """PixelCNN++ whose :meth:`sample` keeps what earlier pixels computed; the density is :class:`PixelCNN`'s."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``; :func:`sample_plainly` draws the same ones, many times slower."""

        def draw(_: Tensor, row: int, column: int) -> Tensor:
            if column == 0:
                network.start_row(row)
            levels = draw_levels(network.parameters(column), self.shape[0], self.bins, generator)
            network.feed(column, scaled(levels, self.bins, levels.dtype))
            return levels

        images = _black(self, n)  # made here, since an inference tensor cannot be changed later
        with torch.inference_mode(), parametrize.cached():
            network = KeptNetwork(self, n)
            return sample_in_raster_order(images, draw)


@torch.no_grad()
def sample_plainly(model: PixelCNN, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw uint8 images ``(n, C, H, W)``, one pass of the network a pixel: the reference for what is faster."""
    step, dtype = 2 ** (model.scales - 1), next(model.parameters()).dtype

    def draw(images: Tensor, row: int, column: int) -> Tensor:
        seen = images[:, :, : -(-(row + 1) // step) * step]  # rows below have no say
        parameters = model.network(scaled(seen, model.bins, dtype))[:, :, row, column]
        return draw_levels(parameters, model.shape[0], model.bins, generator)

    return sample_in_raster_order(_black(model, n), draw)


def draw_levels(
    parameters: Tensor, channels: int, bins: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the levels ``(n, C)`` of one pixel, in the dtype of its :class:`LogisticMixture`'s parameters ``(n, K·…)``.

    The noise is one uniform number for each component, ``argmax_k[w_k − log(−log u_k)]``, and one for each channel,
    ``µ + s·(log u − log(1 − u))`` of the chosen component.
    """
    components = parameters.unflatten(1, (-1, mixture_width(channels)))  # (n, K, …)
    count = components.shape[1]
    options: dict[str, Any] = {"dtype": parameters.dtype, "device": parameters.device}
    u = torch.rand(len(parameters), count + channels, generator=generator, **options)
    chosen = (components[:, :, 0] - torch.log(-torch.log(u[:, :count]))).argmax(1)
    own = components[torch.arange(len(parameters), device=parameters.device), chosen]
    logistic = LogisticMixture(own[:, :, None, None], channels, bins)
    scales = torch.exp(logistic.log_scales[:, 0].clamp(min=SMALLEST_LOG_SCALE))
    noise = scales * torch.logit(u[:, count:, None, None])
    levels, x = torch.empty_like(noise), torch.empty_like(noise)
    for channel in range(channels):
        value = logistic.channel_mean(channel, x)[:, 0] + noise[:, channel]
        levels[:, channel] = nearest_level(value, bins)
        x[:, channel] = scaled(levels[:, channel], bins, x.dtype)
    return levels[:, :, 0, 0]


def _black(model: PixelCNN, n: int) -> Tensor:
    device = next(model.parameters()).device
    return torch.zeros(n, *model.shape, dtype=torch.uint8, device=device)
