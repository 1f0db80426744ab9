"""Drawing that keeps what earlier pixels computed draws what the plain loop draws."""

from __future__ import annotations

import pytest
import torch
from test_pixelcnn import small_pixelcnn
from torch.nn.utils import parametrize

import oodbench as ob
from oodbench.models.logistic import LogisticMixture, mixture_width, scaled
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.pixelcnn_residuals import ResidualPixelCNN
from oodbench.models.pixelcnn_sampling import (
    KeptNetwork,
    SampledPixelCNN,
    draw_levels,
    sample_plainly,
)
from oodbench.zoo.cards import load_card
from oodbench.zoo.families import FAMILIES
from oodbench.zoo.scoring import scoring_form


def drawn(draw, *arguments, seed=3):
    return draw(*arguments, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "scales", "resnets"),
    [((1, 8, 8), 3, 2), ((3, 4, 12), 2, 1), ((2, 5, 3), 1, 1), ((3, 8, 4), 3, 1)],
)
def test_levels_are_the_plain_loop_s(shape, scales, resnets):
    model = small_pixelcnn(shape, scales=scales, resnets=resnets)
    images = drawn(model.sample, 5)
    assert images.shape == (5, *shape)
    assert images.dtype == torch.uint8
    assert torch.equal(images, drawn(sample_plainly, model, 5))
    assert not torch.equal(images, drawn(model.sample, 5, seed=4))


def test_the_folded_form_draws_the_same():
    model = small_pixelcnn((3, 8, 8))
    assert torch.equal(drawn(scoring_form(model).sample, 2), drawn(model.sample, 2))


def parameters_pixel_by_pixel(model, x):
    """The network's output ``(B, …, H, W)``, from images that are fed pixel by pixel."""
    network, found = KeptNetwork(model, len(x)), []
    for row in range(x.shape[2]):
        network.start_row(row)
        for column in range(x.shape[3]):
            found.append(network.parameters(column))
            network.feed(column, x[:, :, row, column])
    return torch.stack(found, 2).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("name", ["pixelcnn-fashionmnist", "pixelcnn-cifar10"])
def test_shipped_models_have_the_same_parameters_for_a_given_prefix(name):
    model = ob.load_model(name)
    source = f"{load_card(name).trained_on}/test[:2]"
    x = scaled(torch.from_numpy(ob.load_images(source).images.copy()), 256, torch.float32)
    with torch.inference_mode(), parametrize.cached():
        expected = model.network(x)
        found = parameters_pixel_by_pixel(model, x)
    scale = expected.abs().mean((0, 2, 3), keepdim=True).clamp(min=1)
    assert ((found - expected).abs() / scale).max().item() < 1e-5


def test_levels_are_drawn_from_the_mixture():
    torch.manual_seed(0)
    parameters = torch.randn(1, 3 * mixture_width(2), dtype=torch.float64)
    levels = drawn(draw_levels, parameters.expand(60_000, -1), 2, 3).long()
    frequency = torch.bincount(levels @ torch.tensor([3, 1]), minlength=9) / len(levels)
    images = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    mixture = LogisticMixture(parameters.expand(9, -1)[:, :, None, None], 2, 3)
    x = scaled(images, 3, torch.float64)[:, :, None, None]
    expected = torch.exp(mixture.log_prob_per_dim(x).flatten(1).sum(1))
    assert expected.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(frequency.double(), expected, atol=0.01)


def test_draws_are_images_like_others():
    model = small_pixelcnn((1, 4, 4))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = model.sample(2)
    images[0] = 0  # an inference tensor would refuse
    model.loss(images).sum().backward()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_sampler_and_the_residuals_leave_the_density_alone():
    entry = FAMILIES["pixelcnn++"]
    built = type(entry.build(shape=(1, 4, 4), filters=4))
    assert built.__mro__[:3] == (ResidualPixelCNN, SampledPixelCNN, PixelCNN)
    assert public_names(ResidualPixelCNN) == {"residuals", "seed"}
    assert public_names(SampledPixelCNN) == {"sample"}
    assert entry.density == PixelCNN.__module__.rpartition(".")[2]
    assert entry.sampler == SampledPixelCNN.__module__.rpartition(".")[2]


def public_names(own):
    return {name for name in vars(own) if not name.startswith("__")}
