"""What a diffusion model's single noise levels say of an image, against plain forms and closed ones."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from oodbench.errors import ModelError
from oodbench.models.diffusion import Diffusion, linear_log_snr
from oodbench.models.noise import keyed_normal
from oodbench.statistics import denoising
from oodbench.statistics.diffusion import reconstructions

SHAPE = (2, 4, 4)


class Scaling(nn.Module):
    """``ε̂ = a_t x``: its Jacobian is a_t I."""

    def __init__(self, steps=1000):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.5, 1.5, steps, dtype=torch.float64))

    def forward(self, x_t, t):
        return self.slope[t][:, None, None, None] * x_t


class Leaning(Scaling):
    """One that sees a corner of the image, so that it follows no motion."""

    def forward(self, x_t, t):
        place = torch.arange(16, dtype=x_t.dtype).reshape(4, 4) / 16
        return super().forward(x_t, t) * (1 + place)


def model(network):
    return Diffusion(SHAPE, network, linear_log_snr(1000), terms=2).double()


@pytest.fixture
def images(random):
    return torch.from_numpy(random.integers(0, 256, (5, *SHAPE), dtype=np.uint8))


def noised(one, images, levels, number, t):
    x = images.double() * 2 / 255 - 1
    noise = keyed_normal(images, one.seed, (levels, *SHAPE))[:, number]
    log_snr = float(one.log_snr[t])
    alpha, sigma = (1 / (1 + math.exp(-s * log_snr)) ** 1 for s in (1, -1))
    return x, noise, alpha**0.5 * x + sigma**0.5 * noise, (alpha**0.5, sigma**0.5)


@torch.no_grad()
def test_a_network_without_a_direction_has_no_gap(images):
    found = denoising.equivariance(model(Scaling()), images)["equivariance_gaps"]
    assert found.shape == (5, 4)
    assert torch.all(found < 1e-12)


@torch.no_grad()
def test_the_gap_is_that_of_a_plain_loop(images):
    one = model(Leaning())
    found = denoising.equivariance(one, images)["equivariance_gaps"].numpy()
    motions = [
        (lambda a: a[:, :, ::-1], lambda a: a[:, :, ::-1]),
        (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
        (lambda a: np.rot90(a, 1, (1, 2)), lambda a: np.rot90(a, -1, (1, 2))),
        (lambda a: np.rot90(a, 2, (1, 2)), lambda a: np.rot90(a, -2, (1, 2))),
        (lambda a: np.roll(a, 1, 2), lambda a: np.roll(a, -1, 2)),
        (lambda a: np.roll(a, 1, 1), lambda a: np.roll(a, -1, 1)),
    ]

    def pooled(a):
        return np.mean(sorted((a**2).mean(0).ravel())[-4:])  # three tenths of 16 pixels

    for level, signal in enumerate((0.99997, 0.9999, 0.9979, 0.9969)):
        log_snr = math.log(signal**2 / (1 - signal**2))
        t = min(range(1000), key=lambda k: abs(float(one.log_snr[k]) - log_snr))
        _, _, x_t, _ = noised(one, images, 4, level, t)
        factor = float(one.network.slope[t]) * (1 + np.arange(16).reshape(4, 4) / 16)
        for n, image in enumerate(x_t.numpy()):
            still = factor * image
            gaps = [pooled(back(factor * there(image)) - still) for there, back in motions]
            expected = sum(gaps) / 7 / (pooled(still) + 1e-8)
            assert found[n, level] == pytest.approx(expected, rel=1e-9)


def test_the_trace_ratio_of_a_scaling_is_known(images):
    """``tr ∇s = a D/σ`` for ``s = a x/σ``, whatever the signs of the probe."""
    one = model(Scaling())
    found = denoising.curvature(one, images)["score_trace_ratios"]
    for number, t in enumerate((0, 299)):
        _, _, x_t, (_, sigma) = noised(one, images, 2, number, t)
        slope = one.network.slope[t].item()
        squared = ((slope * x_t / sigma) ** 2).flatten(1).sum(1)
        expected = squared / (slope * 32 / sigma)
        assert torch.allclose(found[:, number], expected, rtol=1e-9)
    assert not found.requires_grad


def test_the_ratio_is_one_in_the_mean_where_the_network_is_right():
    """Images that are noise alone: the score of N(0, I) is −x, and ``E‖x‖² = D``."""

    class Right(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_snr = nn.Parameter(linear_log_snr(1000))

        def forward(self, x_t, t):
            return torch.sigmoid(-self.log_snr[t]).sqrt()[:, None, None, None] * x_t

    images = torch.randint(0, 256, (300, 2, 4, 4), dtype=torch.uint8)
    ratios = denoising.curvature(model(Right()), images)["score_trace_ratios"]
    x = images.double() * 2 / 255 - 1
    assert ratios[:, 0].mean().item() == pytest.approx((x**2).mean().item(), rel=0.05)


@torch.no_grad()
def test_losses_and_errors_are_those_of_a_plain_loop(images):
    one = model(Leaning())
    losses = denoising.matching(one, images)["matching_losses"]
    errors = denoising.one_step(one, images)["denoising_errors"]
    factor = 1 + torch.arange(16).reshape(4, 4).double() / 16
    for k in (0, 7, 31):
        t = round((k + 0.5) / 32 * 999)
        _, noise, x_t, _ = noised(one, images, 32, k, t)
        away = (noise - one.network.slope[t] * factor * x_t).abs().flatten(1).mean(1)
        assert torch.allclose(losses[:, k], ((k + 0.5) / 32 + 0.5) * away, rtol=1e-9)
    for k, log_snr in enumerate((2, 0, -2)):
        t = min(range(1000), key=lambda n: abs(float(one.log_snr[n]) - log_snr))
        x, _, x_t, (alpha, sigma) = noised(one, images, 3, k, t)
        guess = (x_t - sigma * one.network.slope[t] * factor * x_t) / alpha
        assert torch.allclose(errors[:, k], ((guess - x) ** 2).flatten(1).mean(1), rtol=1e-9)


@torch.no_grad()
def test_numbers_belong_to_the_image(images):
    one = model(Leaning())
    for compute in (denoising.equivariance, denoising.matching, denoising.one_step):
        ((name, whole),) = compute(one, images).items()
        assert torch.allclose(compute(one, images[1:2])[name], whole[1:2], rtol=1e-12)
        assert torch.allclose(compute(one, images.flip(0))[name].flip(0), whole, rtol=1e-12)


class SquaredDistance(nn.Module):
    """In place of LPIPS: the mean squared difference of what it is given, whose shape it keeps."""

    def __init__(self, net, verbose):
        super().__init__()
        assert net == "alex"

    def forward(self, one, other):
        self.seen = one.shape, one.abs().max()
        return ((one - other) ** 2).mean((1, 2, 3), keepdim=True)


@torch.no_grad()
def test_the_perceptual_error_sees_the_reconstructions_in_colour_and_large_enough(
    images, monkeypatch, tmp_path
):
    pytest.importorskip("torchvision")
    package = types.ModuleType("lpips")
    package.LPIPS = SquaredDistance
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    one = Diffusion((1, 32, 32), Scaling(), linear_log_snr(1000), terms=2).double()
    grey = torch.randint(100, 150, (3, 1, 32, 32), dtype=torch.uint8)
    with pytest.raises(ModelError, match="needs the weights of AlexNet"):
        denoising.perceptual(one, grey)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    found = denoising.perceptual(one, grey)["perceptual_errors"]
    assert found.shape == (3, 4)
    # its squares are those of the shipped reconstructions where nothing was cut to [−1, 1]
    plain = reconstructions(one, grey)["reconstruction_errors"]
    assert torch.allclose(found[:, 0], plain[:, 0], rtol=1e-3)
