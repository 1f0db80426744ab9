"""PixelCNN++ (Salimans et al., ICLR 2017, arXiv:1701.05517): an exact autoregressive density over pixel levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from oodbench.errors import ModelError
from oodbench.models.autoregressive import Autoregressive, sample_in_raster_order
from oodbench.models.flows import sum_per_image
from oodbench.models.logistic import LogisticMixture, mixture_width, scaled


def concat_elu(x: Tensor) -> Tensor:
    """``elu([x, −x])``, which doubles the channels."""
    return F.elu(torch.cat([x, -x], 1))


class ShiftedConv(nn.Module):
    """A convolution that sees only what lies above (``right=False``), or above and to the left, of each output pixel.

    Its own pixel is included; :func:`shift_down` and :func:`shift_right` at the network's entrance exclude it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        right: bool,
        stride: int = 1,
    ):
        super().__init__()
        height, width = kernel
        self.padding = (
            (width - 1, 0, height - 1, 0)
            if right
            else ((width - 1) // 2, (width - 1) // 2, height - 1, 0)
        )
        self.conv = weight_norm(nn.Conv2d(in_channels, out_channels, kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, self.padding))
        return y


class ShiftedUpsample(nn.Module):
    """The transposed counterpart of :class:`ShiftedConv`, doubling height and width."""

    def __init__(self, channels: int, kernel: tuple[int, int], right: bool):
        super().__init__()
        self.kernel, self.right = kernel, right
        self.conv = weight_norm(nn.ConvTranspose2d(channels, channels, kernel, 2, output_padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        left = 0 if self.right else (self.kernel[1] - 1) // 2
        return y[:, :, : 2 * x.shape[2], left : left + 2 * x.shape[3]]


def shift_down(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0, 0, 0))[:, :, :, :-1]


class GatedResnet(nn.Module):
    """``x + a·σ(b)`` with ``[a, b]`` from two shifted convolutions, and a 1×1 look at ``skip`` between them."""

    def __init__(self, filters: int, right: bool, skips: int, dropout: float):
        super().__init__()
        kernel = (2, 2) if right else (2, 3)
        self.enter = ShiftedConv(2 * filters, filters, kernel, right)
        self.skip = weight_norm(nn.Conv2d(2 * skips * filters, filters, 1)) if skips else None
        self.dropout = nn.Dropout2d(dropout)
        self.leave = ShiftedConv(2 * filters, 2 * filters, kernel, right)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        h = self.enter(concat_elu(x))
        if self.skip is not None and skip is not None:
            h = h + self.skip(concat_elu(skip))
        a, b = self.leave(self.dropout(concat_elu(h))).chunk(2, 1)
        return x + a * torch.sigmoid(b)


class PixelCNN(Autoregressive):
    """PixelCNN++ in its shifted-convolution form, with a mixture of discretised logistics for each pixel.

    Two streams look at the pixels above, and at those above and to the left; a downward pass over ``scales``
    resolutions is followed by an upward one with skip connections. ``log_prob`` is exact.

    Parameters
    ----------
    shape : ``(C, H, W)``; H and W divisible by ``2**(scales − 1)``
    filters : channels of each stream
    resnets : gated residual blocks a scale and stream
    mixtures : logistics a pixel
    scales : resolutions
    dropout : within the blocks, while training
    bins : levels of a pixel, 256 for 8 bits
    """

    def __init__(
        self, shape: tuple[int, int, int], filters: int = 32, resnets: int = 2, mixtures: int = 5, scales: int = 3,
        dropout: float = 0.0, bins: int = 256,
    ):  # fmt: skip
        super().__init__()
        channels, height, width = shape
        if height % 2 ** (scales - 1) or width % 2 ** (scales - 1):
            raise ModelError(
                f"{scales} scales need height and width divisible by {2 ** (scales - 1)}, not {height}×{width}"
            )
        self.shape, self.bins, self.scales = tuple(shape), bins, scales

        def blocks(count: int, right: bool, skips: int) -> nn.ModuleList:
            return nn.ModuleList(GatedResnet(filters, right, skips, dropout) for _ in range(count))

        self.enter_up = ShiftedConv(channels + 1, filters, (2, 3), right=False)
        self.enter_left = nn.ModuleList([
            ShiftedConv(channels + 1, filters, (1, 3), right=False),
            ShiftedConv(channels + 1, filters, (2, 1), right=True),
        ])  # fmt: skip
        self.encode_up = nn.ModuleList(blocks(resnets, False, 0) for _ in range(scales))
        self.encode_left = nn.ModuleList(blocks(resnets, True, 1) for _ in range(scales))
        self.decode_up = nn.ModuleList(blocks(resnets + (s > 0), False, 1) for s in range(scales))
        self.decode_left = nn.ModuleList(blocks(resnets + (s > 0), True, 2) for s in range(scales))
        self.down_up = nn.ModuleList(
            ShiftedConv(filters, filters, (2, 3), False, 2) for _ in range(scales - 1)
        )
        self.down_left = nn.ModuleList(
            ShiftedConv(filters, filters, (2, 2), True, 2) for _ in range(scales - 1)
        )
        self.up_up = nn.ModuleList(
            ShiftedUpsample(filters, (2, 3), False) for _ in range(scales - 1)
        )
        self.up_left = nn.ModuleList(
            ShiftedUpsample(filters, (2, 2), True) for _ in range(scales - 1)
        )
        self.out = weight_norm(nn.Conv2d(filters, mixtures * mixture_width(channels), 1))

    def network(self, x: Tensor) -> Tensor:
        """Mixture parameters of each pixel from the pixels before it; ``x`` is scaled to [−1, 1]."""
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # tells padding from black
        up = shift_down(self.enter_up(x))
        left = shift_down(self.enter_left[0](x)) + shift_right(self.enter_left[1](x))
        ups, lefts = [up], [left]
        for scale in range(self.scales):
            for block_up, block_left in zip(
                self.encode_up[scale].children(), self.encode_left[scale].children(), strict=True
            ):
                up = block_up(up)
                left = block_left(left, up)
                ups.append(up)
                lefts.append(left)
            if scale < self.scales - 1:
                up, left = self.down_up[scale](up), self.down_left[scale](left)
                ups.append(up)
                lefts.append(left)
        up, left = ups.pop(), lefts.pop()
        for scale in range(self.scales):
            for block_up, block_left in zip(
                self.decode_up[scale].children(), self.decode_left[scale].children(), strict=True
            ):
                up = block_up(up, ups.pop())
                left = block_left(left, torch.cat([up, lefts.pop()], 1))
            if scale < self.scales - 1:
                up, left = self.up_up[scale](up), self.up_left[scale](left)
        parameters: Tensor = self.out(F.elu(left))
        return parameters

    def _mixture(self, x: Tensor) -> LogisticMixture:
        return LogisticMixture(self.network(x).to(x.dtype), self.shape[0], self.bins)

    def log_prob_per_dim(self, images: Tensor) -> Tensor:
        """``log p(x_d | x_<d)`` of each pixel and channel, ``(B, C, H, W)`` in nats, in raster order."""
        x = scaled(images, self.bins, next(self.parameters()).dtype)
        return self._mixture(x).log_prob_per_dim(x)

    def input_and_log_prob(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The input in units of the full scale, requiring its gradient, and log p as a function of it, ``(B,)``."""
        x = ((scaled(images, self.bins, next(self.parameters()).dtype) + 1) / 2).requires_grad_()
        inner = 2 * x - 1
        return x, sum_per_image(self._mixture(inner).log_prob_per_dim(inner))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``, one pass of the network a pixel: what the sampler's version 1 drew.

        Models of the zoo draw by :class:`~oodbench.models.pixelcnn_sampling.SampledPixelCNN`.
        """
        parameter = next(self.parameters())
        step = 2 ** (self.scales - 1)

        def draw(images: Tensor, row: int, column: int) -> Tensor:
            seen = images[:, :, : -(-(row + 1) // step) * step]  # rows below have no say
            levels = self._mixture(scaled(seen, self.bins, parameter.dtype)).sample(generator)
            return levels[:, :, row, column]

        return sample_in_raster_order(
            torch.zeros(n, *self.shape, dtype=torch.uint8, device=parameter.device), draw
        )
