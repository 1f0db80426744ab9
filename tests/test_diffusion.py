"""Laws of diffusion, in float64: on images of one pixel the exact likelihood is a product of small matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from oodbench.models.diffusion import Diffusion, linear_log_snr, log_normal_mass, small_diffusion
from oodbench.models.logistic import scaled

LEVELS = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
LOG_SNR = torch.tensor([3.0, 0.5, -3.0])


class Wavy(nn.Module):
    """Some smooth prediction of the noise."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64))

    def forward(self, x_t, t):
        slope = self.slope[t][:, None, None, None]
        return slope * x_t + 0.2 * torch.sin(2 * x_t)


class Best(nn.Module):
    """``E[ε|x_t]`` where the four levels are equally likely."""

    def __init__(self, log_snr):
        super().__init__()
        self.log_snr = nn.Parameter(log_snr.double())

    def forward(self, x_t, t):
        log_snr = self.log_snr[t][:, None, None, None]
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        levels = scaled(LEVELS, 4, torch.float64).flatten()
        noise = (x_t - alpha * levels) / sigma  # the last axis holds the levels
        return (torch.softmax(-0.5 * noise**2, 3) * noise).sum(3, keepdim=True)


def one_pixel(**options):
    return Diffusion((1, 1, 1), Wavy(), LOG_SNR, **{"terms": 2, "bins": 4, **options})


def exact(model):
    """Probabilities of the four levels, by integrating over x_3, x_2 and x_1 on a grid."""
    grid = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    step = grid[1] - grid[0]
    density = torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp()
    for t in (2, 1):
        mean, std = model.previous(grid[:, None, None, None], torch.full((len(grid),), t))
        density = (
            step
            * density
            @ torch.distributions.Normal(mean[:, 0, 0], std[:, 0, 0]).log_prob(grid).exp()
        )
    x = scaled(LEVELS, 4, torch.float64)
    likelihoods = [
        model.log_likelihood(one.expand(len(grid), 1, 1, 1), grid[:, None, None, None]).exp()
        for one in x
    ]
    return step * torch.stack(likelihoods) @ density


@torch.no_grad()
def test_the_bound_lies_below_the_exact_likelihood_which_sums_to_one():
    model = one_pixel()
    truth = exact(model)
    assert truth.sum().item() == pytest.approx(1, abs=1e-6)
    many = LEVELS.repeat(20_000, 1, 1, 1)
    torch.manual_seed(0)
    bound = model.bound(
        many, torch.rand(len(many), 2), torch.randn(len(many), 3, 1, 1, 1, dtype=torch.float64)
    )
    mean, error = bound.unflatten(0, (-1, 4)).mean(0), bound.std() / 20_000**0.5
    assert torch.all(mean < truth.log() + 3 * error)


@torch.no_grad()
def test_the_best_denoiser_makes_the_bound_tight():
    log_snr = torch.linspace(9, -9, 400)
    model = Diffusion((1, 1, 1), Best(log_snr), log_snr, terms=399, bins=4)
    many = LEVELS.repeat(100, 1, 1, 1)
    torch.manual_seed(0)
    noise = torch.randn(len(many), 400, 1, 1, 1, dtype=torch.float64)
    bound = model.bound(many, torch.rand(len(many), 399), noise).mean().item()
    assert bound == pytest.approx(-math.log(4), abs=0.1)


@torch.no_grad()
def test_a_part_of_the_terms_estimates_all_of_them():
    log_snr = torch.linspace(6, -6, 31)
    torch.manual_seed(0)
    means = {}
    for terms in (4, 30):
        model = Diffusion((1, 1, 1), Best(log_snr), log_snr, terms=terms, bins=4)
        many = LEVELS.repeat(10_000, 1, 1, 1)
        noise = torch.randn(len(many), terms + 1, 1, 1, 1, dtype=torch.float64)
        bound = model.bound(many, torch.rand(len(many), terms), noise)
        means[terms] = (bound.mean().item(), bound.std().item() / 200)
    assert means[4][0] == pytest.approx(means[30][0], abs=4 * means[4][1])


def test_samples_agree_with_the_density():
    model = one_pixel()
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten()
    with torch.no_grad():
        assert torch.allclose(torch.bincount(samples) / 20_000, exact(model).float(), atol=0.015)


@torch.no_grad()
def test_the_last_step_sums_to_one_over_the_levels():
    model = one_pixel(bins=256)
    levels = scaled(torch.arange(256).reshape(-1, 1, 1, 1), 256, torch.float64)
    for x_1 in (-2.0, -0.3, 0.999):
        log_prob = model.log_likelihood(levels, torch.full_like(levels, x_1))
        assert torch.exp(log_prob).sum().item() == pytest.approx(1, abs=1e-12)


def test_the_mass_of_an_interval_far_out_is_finite():
    mass = log_normal_mass(
        torch.tensor([30.0, -31, 0, -math.inf]).double(), torch.tensor([31.0, -30, 1, -30]).double()
    )
    assert torch.isfinite(mass).all()
    assert mass[0] == mass[1]
    assert mass[2].exp().item() == pytest.approx(0.3413447, abs=1e-7)


@torch.no_grad()
def test_the_score_of_gaussian_noise_is_exact_for_its_best_denoiser():
    log_snr = torch.tensor([2.0, -2.0])
    model = Diffusion((1, 1, 1), Best(log_snr), log_snr, terms=1, bins=4)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1).requires_grad_()
    t = torch.ones(9, dtype=torch.long)
    alpha, sigma = model.scales(t)
    with torch.enable_grad():
        means = alpha * scaled(LEVELS, 4, torch.float64).flatten()
        log_density = torch.logsumexp(-0.5 * ((x - means) / sigma) ** 2, 3).sum()
        (expected,) = torch.autograd.grad(log_density, x)
    assert torch.allclose(model.score(x.detach(), t), expected, rtol=1e-10)


@torch.no_grad()
def test_times_and_noise_belong_to_the_image():
    torch.manual_seed(0)
    model = small_diffusion((3, 28, 20), width=8, terms=3).eval()
    images = torch.randint(0, 256, (4, 3, 28, 20), dtype=torch.uint8)
    whole = model.log_prob(images)
    assert torch.allclose(model.log_prob(images.flip(0)).flip(0), whole, rtol=1e-5)
    assert torch.allclose(model.log_prob(images[1:2]), whole[1:2], rtol=1e-5)
    assert len(model.log_snr) == 1000
    assert model.log_snr[0] == linear_log_snr(1000).max()
    assert model.loss(images).shape == (4,)
