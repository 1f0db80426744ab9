"""Glow (Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from oodbench.models.flows import ActNorm, Bijection, Coupling, InvertibleConv
from oodbench.models.multiscale import MultiscaleFlow


class Step(nn.Module):
    """One step of flow: ActNorm, invertible 1×1 convolution, coupling."""

    def __init__(self, channels: int, hidden: int, coupling: str, net: str, lu: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                ActNorm(channels),
                InvertibleConv(channels, lu),
                Coupling(channels, hidden, coupling, net),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x), dtype=torch.float64)
        for layer in self.layers:
            x, change = layer(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            y = cast(Bijection, layer).inverse(y)
        return y


class Glow(MultiscaleFlow):
    """Glow: at each scale squeeze, then steps of flow.

    Parameters
    ----------
    steps : steps of flow a scale
    hidden : channels of the coupling networks
    coupling : ``affine`` or ``additive`` (volume-preserving)
    net : ``conv`` (Glow's) or ``highway`` (Nalisnick et al. 2019)
    lu : keep the 1×1 convolutions as LU factors
    shape, scales, prior, bins, seed : see :class:`oodbench.models.multiscale.MultiscaleFlow`
    """

    def __init__(
        self, shape: tuple[int, int, int], scales: int = 3, steps: int = 8, hidden: int = 64, coupling: str = "affine",
        net: str = "conv", lu: bool = False, prior: str = "learned", bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        def make_scale(channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                Step(4 * channels, hidden, coupling, net, lu) for _ in range(steps)
            )

        super().__init__(shape, scales, make_scale, True, prior, bins, seed)
