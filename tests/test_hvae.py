"""Laws of the hierarchical VAE, in float64: with one latent number a level the exact likelihood is a small integral."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from oodbench.errors import ModelError
from oodbench.models.hvae import HierarchicalVAE
from oodbench.models.logistic import scaled

EVERYTHING = torch.tensor(list(itertools.product(range(3), repeat=4)), dtype=torch.uint8).reshape(
    -1, 1, 2, 2
)


def small_hvae(decoder="logistic", **options):
    torch.manual_seed(0)
    model = HierarchicalVAE((1, 2, 2), (1, 1), 4, decoder, **{"bins": 3, **options}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def exact(model):
    """``log ∫ p(x|z) p(z) dz`` of every image: the noise that the prior turns into z is standard normal."""
    line = torch.linspace(-6, 6, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_prior = (-0.5 * grid**2 - 0.5 * math.log(2 * math.pi) + math.log(line[1] - line[0])).sum(1)
    out, _ = model._decode(grid, [None, None])
    x = scaled(EVERYTHING, model.bins, torch.float64)
    return torch.stack(
        [
            torch.logsumexp(
                model.pixels.log_prob(image.expand(len(out), 1, 2, 2), out) + log_prior, 0
            )
            for image in x
        ]
    )


@pytest.mark.parametrize("decoder", ["categorical", "logistic"])
@torch.no_grad()
def test_bounds_lie_below_the_exact_likelihood_which_sums_to_one(decoder):
    model = small_hvae(decoder)
    truth = exact(model)
    assert torch.exp(truth).sum().item() == pytest.approx(1, abs=1e-6)
    noise = torch.randn(len(EVERYTHING), 2000, 2, dtype=torch.float64)
    for skip in (0, 1):
        weights = model.log_weights(EVERYTHING, noise, skip)
        elbo, iwae = (
            weights.mean(1),
            (torch.logsumexp(weights.unflatten(1, (200, 10)), 2) - math.log(10)).mean(1),
        )
        assert torch.all(elbo < iwae)
        assert torch.all(iwae < truth + 0.05)
        assert torch.allclose(torch.logsumexp(weights, 1) - math.log(2000), truth, atol=0.5)


@torch.no_grad()
def test_samples_agree_with_the_density():
    model = small_hvae()
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten(1).long()
    frequency = torch.bincount((samples * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81) / len(
        samples
    )
    assert torch.allclose(frequency.double(), torch.exp(exact(model)), atol=0.01)


@torch.no_grad()
def test_the_skipped_bound_ignores_what_the_encoder_saw_below():
    model = small_hvae()
    before, above = model.log_prob(EVERYTHING[:5]), model.log_prob_above(EVERYTHING[:5], 1)
    model.levels[0].posterior.bias.add_(1)
    assert torch.equal(model.log_prob_above(EVERYTHING[:5], 1), above)
    assert not torch.allclose(model.log_prob(EVERYTHING[:5]), before)


@torch.no_grad()
def test_draws_belong_to_the_image():
    torch.manual_seed(0)
    model = HierarchicalVAE((3, 28, 20), (2, 3, 4), 8, samples=3).eval()
    images = torch.randint(0, 256, (4, 3, 28, 20), dtype=torch.uint8)
    whole = model.log_prob(images)
    assert torch.allclose(model.log_prob(images.flip(0)).flip(0), whole, rtol=1e-6)
    assert torch.allclose(model.log_prob(images[1:2]), whole[1:2], rtol=1e-6)
    model.seed = 1
    assert not torch.allclose(model.log_prob(images), whole, rtol=1e-6)


def test_leaving_out_every_latent_is_refused():
    with pytest.raises(ModelError, match="fewer than all, can be left out, not 2"):
        small_hvae().log_prob_above(EVERYTHING, 2)
