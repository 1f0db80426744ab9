"""RealNVP (Dinh, Sohl-Dickstein, Bengio, ICLR 2017, arXiv:1605.08803)."""

from __future__ import annotations

from torch import nn

from oodbench.models.flows import ActNorm, CheckerboardCoupling, Coupling, Flip, Squeeze
from oodbench.models.multiscale import MultiscaleFlow


class RealNVP(MultiscaleFlow):
    """RealNVP: at each scale couplings over a checkerboard of pixels, a squeeze, and couplings over halves of the channels.

    ActNorm stands where the paper has batch normalisation, so that an image's score does not depend on a batch, and
    scales are those of Glow's couplings, ``σ(s + 2)``.

    Parameters
    ----------
    couplings : of each kind a scale, alternating in what they change
    hidden : channels of the coupling networks
    net : ``conv`` or ``highway``
    shape, scales, prior, bins, seed : see :class:`oodbench.models.multiscale.MultiscaleFlow`
    """

    def __init__(
        self, shape: tuple[int, int, int], scales: int = 2, couplings: int = 3, hidden: int = 64, net: str = "conv",
        prior: str = "standard", bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        def make_scale(channels: int) -> nn.ModuleList:
            layers: list[nn.Module] = []
            for number in range(couplings):
                layers += [
                    ActNorm(channels),
                    CheckerboardCoupling(channels, hidden, number % 2, net),
                ]
            layers.append(Squeeze())
            for _ in range(couplings):
                layers += [
                    ActNorm(4 * channels),
                    Coupling(4 * channels, hidden, "affine", net),
                    Flip(),
                ]
            return nn.ModuleList(layers)

        super().__init__(shape, scales, make_scale, False, prior, bins, seed)
