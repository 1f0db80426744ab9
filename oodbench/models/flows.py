"""The bijections that flows are made of.

Each layer maps ``(B, C, H, W)`` to ``(y, log_det)``, with ``log_det`` of shape ``(B,)`` or ``()`` in float64 nats,
and undoes itself with :meth:`inverse`. A composition adds log-determinants; nothing else is kept between layers.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.errors import ModelError


class Bijection(Protocol):
    """What the layers below have in common, for the type checker."""

    def inverse(self, y: Tensor) -> Tensor: ...


def sum_per_image(x: Tensor) -> Tensor:
    """Sum all but the batch axis, accumulated in float64: float32 loses tenths of a nat over 3,072 terms."""
    return x.flatten(1).sum(1, dtype=torch.float64)


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """``log (1/k) Σ_i e^{w_i}`` over the second axis, ``(B, k) -> (B,)``: an importance-weighted bound from its draws."""
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


def gaussian_log_prob(
    z: Tensor, mean: Tensor | float = 0.0, log_std: Tensor | None = None
) -> Tensor:
    """Log density of a diagonal Gaussian, summed per image: ``(B, ...) -> (B,)`` in float64 nats."""
    if log_std is None:
        return sum_per_image(-0.5 * (z - mean) ** 2 - 0.5 * math.log(2 * math.pi))
    return sum_per_image(
        -0.5 * ((z - mean) * torch.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    )


class Squeeze(nn.Module):
    """Trade space for channels: ``(C, H, W) -> (4C, H/2, W/2)``; a permutation, so ``log_det = 0``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros((), dtype=torch.float64)

    def inverse(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(y, 2)


class ActNorm(nn.Module):
    """Per-channel affine map, set from the first training batch to zero mean and unit variance.

    ``y = (x + bias) · exp(log_scale)``, ``log_det = H·W·Σ log_scale``. Whether it has been set is part of the state
    dict, so a loaded layer never sets itself again and an unset one refuses to score.

    Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039.
    """

    initialised: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.uint8))

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        mean = x.mean((0, 2, 3), keepdim=True)
        std = x.std((0, 2, 3), keepdim=True, unbiased=False)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(std + 1e-6))
        self.initialised.fill_(1)

    def refuse_unset(self) -> None:
        """:class:`ModelError` where the layer was never set, for whoever scores with it or folds it into another."""
        if not self.initialised:
            raise ModelError(
                "this flow's ActNorm layers were never initialised, so its scores would mean nothing; "
                "train it, or load weights that carry the `initialised` flags"
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            self.refuse_unset()
        elif not self.initialised:
            self._initialise(x)
        y = (x + self.bias) * torch.exp(self.log_scale)
        return y, self.log_scale.double().sum() * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        return y * torch.exp(-self.log_scale) - self.bias


class InvertibleConv(nn.Module):
    """Invertible 1×1 convolution, a learned mixing of channels: ``log_det = H·W·log|det W|``, the same for every image.

    With ``lu`` the matrix is kept as ``P·L·(U + diag s)``, whose log-determinant is ``Σ log|s|``.

    Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039, §3.2.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, lu: bool = False):
        super().__init__()
        self.lu = lu
        weight, _ = torch.linalg.qr(torch.randn(channels, channels))
        if not lu:
            self.weight = nn.Parameter(weight)
            return
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = torch.diagonal(upper)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", torch.sign(diagonal))
        self.lower = nn.Parameter(torch.tril(lower, -1))
        self.log_diagonal = nn.Parameter(torch.log(torch.abs(diagonal)))
        self.upper = nn.Parameter(torch.triu(upper, 1))

    def matrix(self) -> Tensor:
        """The ``(C, C)`` mixing matrix ``W``."""
        if not self.lu:
            return self.weight
        eye = torch.eye(len(self.sign), dtype=self.lower.dtype, device=self.lower.device)
        lower = torch.tril(self.lower, -1) + eye
        upper = torch.triu(self.upper, 1) + torch.diag(self.sign * torch.exp(self.log_diagonal))
        return self.permutation @ lower @ upper

    def log_abs_det(self) -> Tensor:
        """``log|det W|`` in float64 nats for each pixel, shape ``()``."""
        return (
            self.log_diagonal.double().sum()
            if self.lu
            else torch.linalg.slogdet(self.weight.double())[1]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(
            x.device.type, enabled=False
        ):  # the flow itself stays in full precision
            y = F.conv2d(x, self.matrix()[:, :, None, None])
        return y, self.log_abs_det() * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.matrix().double()).to(y.dtype)
        return F.conv2d(y, inverse[:, :, None, None])


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3×3 convolution that starts at zero, so that what it parametrises starts as the identity."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def conv_net(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Glow's coupling network: 3×3, 1×1 and a zero-initialised 3×3 convolution with ReLU between."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 3, padding=1), nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1), nn.ReLU(),
        zero_conv(hidden, out_channels),
    )  # fmt: skip


class HighwayLayer(nn.Module):
    """``h ← t·relu(conv(h)) + (1 − t)·h`` with a gate ``t = σ(conv(h))`` that starts nearly closed."""

    def __init__(self, channels: int):
        super().__init__()
        self.candidate = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, -1.0)

    def forward(self, h: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(h))
        return gate * F.relu(self.candidate(h)) + (1 - gate) * h


def highway_net(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """The coupling network of Nalisnick et al. 2019: three highway layers between an input and an output convolution."""
    layers = [HighwayLayer(hidden) for _ in range(3)]
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 3, padding=1),
        nn.ReLU(),
        *layers,
        zero_conv(hidden, out_channels),
    )


COUPLING_NETS = {"conv": conv_net, "highway": highway_net}


class Coupling(nn.Module):
    """Change half of the channels by a function of the other half.

    ``additive``: ``y₂ = x₂ + t(x₁)``, which keeps volume. ``affine``: ``y₂ = (x₂ + t(x₁)) · σ(s(x₁) + 2)``, with
    ``log_det = Σ log σ(s(x₁) + 2)``.

    Dinh et al., ICLR 2017, arXiv:1605.08803; the sigmoid is Glow's.
    """

    def __init__(self, channels: int, hidden: int, kind: str = "affine", net: str = "conv"):
        super().__init__()
        if kind not in ("affine", "additive"):
            raise ModelError(f"no coupling is called {kind!r}; there are 'affine' and 'additive'")
        self.kept = channels // 2
        self.affine = kind == "affine"
        changed = channels - self.kept
        self.net = COUPLING_NETS[net](self.kept, hidden, changed * (2 if self.affine else 1))

    def _shift_and_log_scale(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.net(kept).to(kept.dtype)
        if not self.affine:
            return out, None
        shift, raw = out.chunk(2, 1)
        return shift, F.logsigmoid(raw + 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self._shift_and_log_scale(kept)
        if log_scale is None:
            return torch.cat([kept, changed + shift], 1), x.new_zeros((), dtype=torch.float64)
        return torch.cat([kept, (changed + shift) * torch.exp(log_scale)], 1), sum_per_image(
            log_scale
        )

    def inverse(self, y: Tensor) -> Tensor:
        kept, changed = y[:, : self.kept], y[:, self.kept :]
        shift, log_scale = self._shift_and_log_scale(kept)
        if log_scale is not None:
            changed = changed * torch.exp(-log_scale)
        return torch.cat([kept, changed - shift], 1)


class CheckerboardCoupling(nn.Module):
    """Change the pixels of one colour of a checkerboard by a function of the others.

    ``y = m·x + (1 − m)·(x + t(m·x))·σ(s(m·x) + 2)``, ``log_det = Σ (1 − m)·log σ(s + 2)``.

    Dinh et al., ICLR 2017, arXiv:1605.08803, §3.4.
    """

    def __init__(self, channels: int, hidden: int, parity: int, net: str = "conv"):
        super().__init__()
        self.parity = parity
        self.net = COUPLING_NETS[net](channels, hidden, 2 * channels)

    def _mask(self, x: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
        return ((rows[:, None] + columns + self.parity) % 2).to(x.dtype)

    def _shift_and_log_scale(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.net(mask * x).to(x.dtype).chunk(2, 1)
        return shift, F.logsigmoid(raw + 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = self._mask(x)
        shift, log_scale = self._shift_and_log_scale(x, mask)
        y = mask * x + (1 - mask) * (x + shift) * torch.exp(log_scale)
        return y, sum_per_image((1 - mask) * log_scale)

    def inverse(self, y: Tensor) -> Tensor:
        mask = self._mask(y)
        shift, log_scale = self._shift_and_log_scale(y, mask)
        return mask * y + (1 - mask) * (y * torch.exp(-log_scale) - shift)


class Flip(nn.Module):
    """Reverse the channels, so that the next coupling changes the other half; ``log_det = 0``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros((), dtype=torch.float64)

    def inverse(self, y: Tensor) -> Tensor:
        return y.flip(1)
