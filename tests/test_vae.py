"""Laws of the VAE, in float64: with one latent the exact likelihood is a one-dimensional integral."""

from __future__ import annotations

import math

import pytest
import torch

from oodbench.errors import ModelError
from oodbench.models.logistic import scaled
from oodbench.models.noise import keyed_normal
from oodbench.models.residual_vae import residual_vae
from oodbench.models.vae import dcgan_vae, mlp_vae, rosca_vae


def small_vae(decoder, bins=2, shape=(1, 4, 4), **options):
    torch.manual_seed(1)
    vae = (
        rosca_vae(shape, **{"latent": 1, "width": 2, "decoder": decoder, "bins": bins, **options})
        .double()
        .eval()
    )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(2.0)
    return vae


def exact(vae, images):
    """``log ∫ p(x|z) N(z; 0, 1) dz`` by a fine rule."""
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    x = scaled(images, vae.bins, torch.float64)
    log_prior = -0.5 * grid**2 - 0.5 * math.log(2 * math.pi) + math.log(grid[1] - grid[0])
    found = []
    for image in x:
        log_joint = (
            vae.log_likelihood(image.expand(len(grid), *image.shape), grid[:, None]) + log_prior
        )
        found.append(torch.logsumexp(log_joint, 0))
    return torch.stack(found)


@pytest.mark.parametrize("decoder", ["categorical", "logistic"])
def test_elbo_below_iwae_below_exact(decoder):
    vae = small_vae(decoder, bins=256)
    images = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8)
    with torch.no_grad():
        truth = exact(vae, images)
        weights = vae.log_weights(images, torch.randn(4, 4000, 1))
        elbo = weights.mean(1)
        iwae = (torch.logsumexp(weights.unflatten(1, (400, 10)), 2) - math.log(10)).mean(1)
        estimate = torch.logsumexp(weights, 1) - math.log(4000)
    assert torch.all(elbo < iwae)
    assert torch.all(iwae < truth + 0.05)
    assert torch.allclose(estimate, truth, atol=0.5)


@pytest.mark.parametrize("decoder", ["categorical", "logistic"])
def test_the_likelihood_sums_to_one_over_all_images(decoder):
    vae = small_vae(decoder)
    everything = (torch.arange(2**16)[:, None] >> torch.arange(16) & 1).reshape(-1, 1, 4, 4)
    with torch.no_grad():
        log_prob = vae.log_likelihood(
            scaled(everything, 2, torch.float64), torch.full((len(everything), 1), 0.7).double()
        )
    assert torch.exp(log_prob).sum().item() == pytest.approx(1, abs=1e-9)


def test_draws_belong_to_the_image():
    vae = small_vae("logistic", bins=256, samples=5)
    images = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    with torch.no_grad():
        whole = vae.log_prob(images)
        assert torch.allclose(vae.log_prob(images.flip(0)).flip(0), whole, rtol=1e-12)
        assert torch.allclose(vae.log_prob(images[3:4]), whole[3:4], rtol=1e-12)
        vae.seed = 1
        assert not torch.allclose(vae.log_prob(images), whole, rtol=1e-6)


def test_images_far_apart_in_likelihood_do_not_disturb_each_other():
    """The log-sum-exp has a maximum for each image, not one for the batch."""
    vae = small_vae("logistic", bins=256, samples=3)
    images = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 255.0)]).to(torch.uint8)
    with torch.no_grad():
        vae.decoder[-1].bias.copy_(torch.tensor([-1.0, -6.9]))
        together = vae.log_prob(images)
        alone = torch.cat([vae.log_prob(images[:1]), vae.log_prob(images[1:])])
    assert (together[0] - together[1]).abs() > 1000
    assert torch.allclose(together, alone, rtol=1e-12)


def test_keyed_normals_are_normal():
    noise = keyed_normal(torch.arange(200).reshape(200, 1, 1, 1).to(torch.uint8), 0, (5, 50))
    assert noise.shape == (200, 5, 50)
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("decoder", ["categorical", "logistic"])
def test_samples_follow_the_decoder(decoder):
    vae = small_vae(decoder, shape=(1, 4, 4))
    samples = vae.sample(4000, torch.Generator().manual_seed(0))
    assert samples.max() <= 1
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)[:, None]
    weight = torch.softmax(-0.5 * grid[:, 0] ** 2, 0)
    one = torch.ones(601, 1, 4, 4, dtype=torch.uint8)
    with torch.no_grad():
        zero = one.clone()
        zero[:, 0, 0, 0] = 0
        ratio = vae.log_likelihood(scaled(one, 2, torch.float64), grid) - vae.log_likelihood(
            scaled(zero, 2, torch.float64), grid
        )
    expected = (weight * torch.sigmoid(ratio)).sum().item()
    assert samples[:, 0, 0, 0].double().mean().item() == pytest.approx(expected, abs=0.03)


def test_bad_configurations_are_named():
    with pytest.raises(ModelError, match="divisible by 4, not 30×30"):
        rosca_vae((1, 30, 30))
    with pytest.raises(ModelError, match="no VAE decoder is called 'poisson'"):
        rosca_vae((1, 28, 28), decoder="poisson")


@pytest.mark.parametrize("make", [dcgan_vae, mlp_vae])
def test_other_networks_fit_the_same_density(make):
    torch.manual_seed(0)
    vae = make((1, 32, 32), samples=3).eval()
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        whole = vae.log_prob(images)
        assert torch.allclose(vae.log_prob(images[2:3]), whole[2:3], rtol=1e-5)
    assert whole.shape == (5,)
    assert vae.loss(images).shape == (5,)
    assert vae.sample(2).shape == (2, 1, 32, 32)


def test_a_residual_vae_s_latents_keep_a_place_and_its_bound_is_that_of_its_draws():
    torch.manual_seed(0)
    vae = residual_vae((3, 32, 32), width=16, blocks=1, samples=2).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    assert vae.latent == 16 * 8 * 8
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        found = vae.log_prob(images)
        weights = vae.log_weights(images, keyed_normal(images, 0, (2, vae.latent)))
        assert torch.allclose(found, torch.logsumexp(weights, 1) - math.log(2), rtol=1e-6)
        assert torch.allclose(vae.log_prob(images[1:2]), found[1:2], rtol=1e-5)
        mean, log_std = vae.posterior(vae.as_input(images))
    assert mean.shape == log_std.shape == (3, 1024)
    assert ((log_std > -6) & (log_std < 0)).all()
    assert vae.sample(2).shape == (2, 3, 32, 32)
    kl = vae.log_prob_terms(images)["kl"]
    torch.manual_seed(1)
    free, elbo = vae.loss(images), vae.validation_loss(images)
    assert kl.mean() > 1024  # so that no latent is below what is free, and both are one objective
    assert free.mean().item() == pytest.approx(elbo.mean().item(), rel=0.02)
    with pytest.raises(ModelError, match="divisible by 4"):
        residual_vae((1, 30, 30))
