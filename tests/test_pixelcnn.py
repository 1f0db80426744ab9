"""Laws of autoregressive densities, in float64 on small spaces."""

from __future__ import annotations

import itertools

import pytest
import torch

from oodbench.errors import ModelError
from oodbench.models.gated_pixelcnn import GatedPixelCNN
from oodbench.models.logistic import (
    LogisticMixture,
    discretised_logistic_log_prob,
    mixture_width,
    scaled,
)
from oodbench.models.masked_pixelcnn import MaskedPixelCNN
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.pixelcnn_sampling import SampledPixelCNN


def small_pixelcnn(shape, seed=0, **options):
    torch.manual_seed(seed)
    options = {"filters": 4, "resnets": 1, "mixtures": 2, "scales": 2, **options}
    model = SampledPixelCNN(shape, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def everything(shape, bins):
    count = shape[0] * shape[1] * shape[2]
    return torch.tensor(
        list(itertools.product(range(bins), repeat=count)), dtype=torch.uint8
    ).reshape(-1, *shape)


@pytest.mark.parametrize(
    ("mean", "log_scale"), [(0.0, -1.0), (0.9, -6.5), (-3.0, 0.0), (0.2, 4.0), (0.0, -9.0)]
)
def test_levels_sum_to_one(mean, log_scale):
    levels = scaled(torch.arange(256), 256, torch.float64)
    log_prob = discretised_logistic_log_prob(
        levels, torch.tensor(mean), torch.tensor(log_scale).double(), 256
    )
    assert torch.exp(log_prob).sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.isfinite(log_prob).all()


@pytest.mark.parametrize(
    ("shape", "bins"), [((1, 2, 2), 3), ((3, 1, 2), 2), ((3, 2, 1), 2), ((2, 2, 2), 2)]
)
def test_images_sum_to_one(shape, bins):
    model = small_pixelcnn(shape, bins=bins, scales=1)
    assert torch.exp(model.log_prob(everything(shape, bins))).sum().item() == pytest.approx(
        1, abs=1e-10
    )


def test_images_sum_to_one_across_scales():
    model = small_pixelcnn((1, 2, 4), bins=2, scales=2)
    assert torch.exp(model.log_prob(everything((1, 2, 4), 2))).sum().item() == pytest.approx(
        1, abs=1e-10
    )


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_each_pixel_depends_on_all_before_it_and_on_none_after(scales):
    model = small_pixelcnn((1, 8, 8), scales=scales, resnets=2)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    for row, column in [(0, 0), (0, 5), (3, 0), (3, 4), (7, 7)]:
        (gradient,) = torch.autograd.grad(model.network(x)[0, :, row, column].sum(), x)
        seen = (gradient[0, 0] != 0).flatten()
        position = row * 8 + column
        assert not seen[position:].any()
        if scales == 3:
            assert seen[:position].all()


def test_channels_follow_red_green_blue():
    model = small_pixelcnn((3, 4, 4))
    images = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    base = model.log_prob_per_dim(images)
    for channel in range(3):
        changed = images.clone()
        changed[0, channel, 2, 1] = 255 - changed[0, channel, 2, 1]
        moved = (model.log_prob_per_dim(changed) != base)[0]
        assert not moved[:channel, 2, 1].any()
        assert moved[channel:, 2, 1].all()
        assert not moved[:, :2].any()
        assert not moved[:, 2, 0].any()


def test_log_prob_is_the_sum_over_dimensions():
    model = small_pixelcnn((3, 4, 4))
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert torch.allclose(
        model.log_prob(images), model.log_prob_per_dim(images).flatten(1).sum(1), rtol=1e-12
    )
    assert torch.allclose(model.loss(images), -model.log_prob(images), rtol=1e-12)


def test_the_mixture_s_joint_is_a_weighted_sum_of_products():
    parameters = torch.randn(2, 3 * mixture_width(3), 1, 1, dtype=torch.float64)
    x = scaled(torch.randint(0, 256, (2, 3, 1, 1)), 256, torch.float64)
    mixture = LogisticMixture(parameters, 3, 256)
    joint = 0
    for k in range(3):
        term = torch.exp(mixture.log_weights[:, k])
        for channel in range(3):
            mean = mixture.channel_mean(channel, x)[:, k]
            log_scale = mixture.log_scales[:, k, channel]
            term = term * torch.exp(
                discretised_logistic_log_prob(x[:, channel], mean, log_scale, 256)
            )
        joint = joint + term
    assert torch.allclose(mixture.log_prob_per_dim(x).sum(1), torch.log(joint), rtol=1e-10)


def test_samples_agree_with_the_density():
    model = small_pixelcnn((1, 2, 2), bins=2, scales=1)
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten(1).long()
    frequency = torch.bincount((samples * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / len(
        samples
    )
    expected = torch.exp(model.log_prob(everything((1, 2, 2), 2)))
    assert torch.allclose(frequency.double(), expected, atol=0.015)


def test_sampled_colours_agree_with_the_density():
    model = small_pixelcnn((3, 1, 1), bins=2, scales=1)
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten(1).long()
    frequency = torch.bincount((samples * torch.tensor([4, 2, 1])).sum(1), minlength=8) / len(
        samples
    )
    assert torch.allclose(
        frequency.double(), torch.exp(model.log_prob(everything((3, 1, 1), 2))), atol=0.015
    )


def small_gated(shape, bins):
    torch.manual_seed(0)
    return GatedPixelCNN(shape, features=8 * shape[0], layers=2, bins=bins).double()


def small_masked(shape, bins):
    torch.manual_seed(0)
    return MaskedPixelCNN(shape, hidden=3, repeats=2, bins=bins).double()


@pytest.mark.parametrize("make", [small_gated, small_masked])
@pytest.mark.parametrize(("shape", "bins"), [((1, 2, 2), 3), ((3, 1, 2), 2)])
def test_softmax_models_keep_the_same_laws(make, shape, bins):
    model = make(shape, bins)
    expected = torch.exp(model.log_prob(everything(shape, bins)))
    assert expected.sum().item() == pytest.approx(1, abs=1e-10)
    samples = model.sample(20_000, torch.Generator().manual_seed(0)).flatten(1).long()
    weights = bins ** torch.arange(samples.shape[1]).flip(0)
    frequency = torch.bincount((samples * weights).sum(1), minlength=len(expected)) / len(samples)
    assert torch.allclose(frequency.double(), expected, atol=0.015)


@pytest.mark.parametrize("make", [small_gated, small_masked])
def test_a_softmax_pixel_depends_on_those_before_and_on_none_after(make):
    model = make((1, 8, 8), 4)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    for row, column in [(0, 0), (0, 5), (3, 0), (3, 4), (7, 7)]:
        (gradient,) = torch.autograd.grad(model.logits(x)[..., row, column].sum(), x)
        assert not (gradient != 0).flatten()[row * 8 + column :].any()


def test_the_gated_pixelcnn_has_no_blind_spot():
    model = small_gated((1, 7, 7), 4)
    x = torch.rand(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.logits(x)[..., 4, 2].sum(), x)
    assert (gradient != 0).flatten()[: 4 * 7 + 2].all()


def test_the_gated_pixelcnn_s_colours_follow_red_green_blue():
    model = small_gated((3, 3, 3), 4)
    x = torch.rand(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    for colour in range(3):
        (gradient,) = torch.autograd.grad(model.logits(x)[:, :, colour, 1, 1].sum(), x)
        assert (gradient[0, :, 1, 1] != 0).tolist() == [earlier < colour for earlier in range(3)]
        assert not (gradient[0, :, 1, 2] != 0).any()
        assert not (gradient[0, :, 2] != 0).any()
        assert (gradient[0, :, 0] != 0).all()


def test_features_that_the_colours_cannot_share_are_refused():
    with pytest.raises(ModelError, match="divisible by that, not 32"):
        GatedPixelCNN((3, 32, 32), features=32)


def test_shapes_that_do_not_halve_are_refused():
    with pytest.raises(ModelError, match="divisible by 8, not 28×28"):
        PixelCNN((1, 28, 28), scales=4)
