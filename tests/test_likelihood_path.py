"""Norms along a VAE's way, for each of its decoders, and what they are decorrelated by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata

import oodbench as ob
from oodbench.models.pixel_likelihood import PixelLikelihood
from oodbench.models.vae import rosca_vae
from oodbench.scorers.likelihood_path import Decorrelated
from oodbench.statistics.likelihood_path import likelihood_path, mean_image


@torch.no_grad()
def test_norms_are_those_of_the_model_s_own_parts():
    torch.manual_seed(0)
    vae = rosca_vae((1, 8, 8), latent=3, width=2, decoder="categorical").double().eval()
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    found = likelihood_path(vae, images)
    x = images.double() * 2 / 255 - 1
    mean, log_std = vae.encoder(x).chunk(2, 1)
    share = vae.decoder(mean).reshape(6, 256, 1, 8, 8).softmax(1)
    levels = torch.arange(256).double() * 2 / 255 - 1
    expected = sum(level * share[:, number] for number, level in enumerate(levels))
    error = (x - expected).flatten(1).pow(2).sum(1).sqrt()
    assert torch.allclose(found["path_error"], error, rtol=1e-9)
    assert torch.allclose(found["path_mean_norm"], mean.pow(2).sum(1).sqrt(), rtol=1e-9)
    assert torch.allclose(found["path_std_norm"], log_std.exp().pow(2).sum(1).sqrt(), rtol=1e-9)
    assert torch.allclose(likelihood_path(vae, images[2:3])["path_error"], error[2:3], rtol=1e-9)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian", "logistic"])
def test_the_mean_image_is_the_mean_of_draws(kind):
    pixels = PixelLikelihood(kind, 1, 256)
    torch.manual_seed(0)
    out = torch.randn(1, pixels.outputs, 1, 3).double()
    if kind == "logistic":
        out[:, 1] = -4  # narrow, so that little of it is cut
        out[:, 0] = torch.tensor([[-0.5, 0.0, 0.6]])
    if kind == "gaussian":
        out = out.clamp(0.1, 0.9)
    draws = pixels.sample(out.expand(4000, -1, -1, -1)).double() * 2 / 255 - 1
    assert torch.allclose(mean_image(pixels, out)[0], draws.mean(0), atol=0.05)


def test_the_reference_is_normal_and_uncorrelated_after_the_transform(random):
    shared = random.normal(size=(500, 1))
    table = np.exp(np.concatenate([shared, shared + random.normal(size=(500, 1)), -shared], 1))
    table[:, 2] += random.exponential(size=500)
    turned = Decorrelated.of(table)(table)
    assert np.corrcoef(turned.T) == pytest.approx(np.eye(3), abs=1e-6)
    # with one column nothing turns: the normal quantiles of ranks, but for the ends
    one = Decorrelated.of(table[:, :1])(table[:, :1])[:, 0]
    expected = norm.ppf((rankdata(table[:, 0]) - 1) / 499)
    assert one[np.isfinite(expected)] == pytest.approx(expected[np.isfinite(expected)], abs=1e-3)


def test_the_usual_values_in_an_unusual_order_are_far(random):
    """Mahalanobis and COPOD see what is unusual together where each norm by itself is usual."""
    shared = random.normal(size=400)
    usual = {"path_error": shared + 9, "path_mean_norm": 9 - shared + 0.1 * random.normal(size=400)}
    usual["path_std_norm"] = random.normal(3, 0.1, 400)
    strange = {**usual, "path_mean_norm": 9 + shared + 0.1 * random.normal(size=400)}
    for name in ("likelihood-path-copod", "likelihood-path-mahalanobis"):
        score = ob.scorer(name).fitted(usual)
        assert ob.auroc(score(usual), score(strange)).value > 0.8
