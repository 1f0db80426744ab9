"""Flow matching: a network that learns the velocity of straight paths from noise to images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from oodbench.models.diffusion import UNet
from oodbench.models.flow_of_noise import VelocityFlow
from oodbench.models.flows import sum_per_image

NEAREST = 0.02
STRETCH = math.log((1 + NEAREST) / NEAREST)
"""δ of :func:`share_of_time`: nearer to the data than this, time is no longer stretched."""


def share_of_time(t: Tensor) -> Tensor:
    """``s = log((1 − t + δ)/δ) / log((1 + δ)/δ)``: 0 at the data, 1 at the noise, and fast where 1 − t is small."""
    return torch.log((1 - t + NEAREST) / NEAREST) / STRETCH


def time_of_share(s: Tensor) -> Tensor:
    """The time t whose :func:`share_of_time` is s."""
    return 1 + NEAREST - NEAREST * torch.exp(STRETCH * s)


class VelocityUNet(UNet):
    """The diffusion family's U-Net in continuous time, without the Fourier features, which would make its field stiff."""

    def __init__(self, channels: int, width: int):
        super().__init__(channels, width, torch.zeros(0), frequencies=())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity of images ``(B, C, H, W)`` at times ``(B,)`` in [0, 1]."""
        # slow waves, or the field would need as many steps as the fastest one turns
        frequencies = 2.0 ** (torch.arange(8, device=t.device, dtype=t.dtype) / 2)
        angles = math.pi / 2 * share_of_time(t)[:, None] * frequencies
        time = self.embed(torch.cat([torch.sin(angles), torch.cos(angles)], 1).to(x.dtype))
        h = self.enter(x)
        skips = []
        for block in self.downs:
            h = block(h, time)
            skips.append(h)
            h = F.avg_pool2d(h, 2)
        h = self.middle(h, time)
        for block in self.ups:
            skip = skips.pop()
            h = block(torch.cat([F.interpolate(h, size=skip.shape[2:]), skip], 1), time)
        velocity: Tensor = self.leave(h)
        return velocity


class FlowMatching(VelocityFlow):
    """A continuous flow whose velocity is learned from straight paths between noise and images.

    ``x_t = (1 − t)·ε + t·y`` with ``ε ~ N(0, I)`` and y a dequantised image in [−1, 1); the network minimises
    ``E‖v(x_t, t) − (y − ε)‖²``, and ``dx/dt = v(x, t)`` carries noise at t = 0 to images at t = 1. Its density is that of
    :class:`~oodbench.models.flow_of_noise.FlowOfNoise`. Near the data the field changes fastest and decides the last bits:
    the solver's steps and the times of training are even in :func:`share_of_time`, which counts more of it there.

    Lipman et al., ICLR 2023, arXiv:2210.02747; Liu et al., ICLR 2023, arXiv:2209.03003.

    Parameters
    ----------
    shape : ``(C, H, W)``; H and W divisible by 4
    width : channels of the U-Net at full resolution; twice as many below
    steps, solver : of the ODE, ``heun`` or ``rk4``
    probes : random vectors that estimate the trace; None computes it, by one gradient a dimension
    seed : of dequantisation and probes, which are keyed by the image
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int = 32, steps: int = 80, solver: str = "heun",
        probes: int | None = 1, seed: int = 0,
    ):  # fmt: skip
        super().__init__(
            noise_time=0.0, data_time=1.0, network=VelocityUNet(shape[0], width), shape=shape, trained_on="", low=-1.0,
            high=1.0, solver=solver, steps=steps, probes=probes, seed=seed,
        )  # fmt: skip

    def times(self) -> list[float]:
        shares = torch.linspace(0, 1, self.solver_steps + 1, dtype=torch.float64)
        times: list[float] = time_of_share(shares).tolist()
        return times

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises, the velocity's squared error ``(B,)`` at one time an image."""
        y = self.dequantised(images, torch.rand(images.shape, device=images.device))
        noise = torch.randn_like(y)
        shares = (torch.arange(len(y)) + torch.rand(len(y))) / len(y)  # one from each stratum
        t = time_of_share(shares).to(y)
        at = t[:, None, None, None]
        error = self.network(torch.lerp(noise, y, at), t) - (y - noise)
        return sum_per_image(error**2)

    def validation_loss(self, images: Tensor) -> Tensor:
        """What training is judged by, since its loss is no likelihood: ``−log p(x)`` in nats ``(B,)``."""
        return -self.log_prob(images)
