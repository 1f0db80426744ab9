"""The scoring form is the same density as the model that it is folded from."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import oodbench as ob
from oodbench.errors import ModelError
from oodbench.models.flows import ActNorm
from oodbench.models.gated_pixelcnn import GatedPixelCNN
from oodbench.models.glow import Glow
from oodbench.models.logistic import scaled
from oodbench.models.pixelcnn import PixelCNN, ShiftedConv, concat_elu
from oodbench.models.pixelcnn_scoring import (
    LEFT,
    UP,
    ActivatedConv,
    ScoredPixelCNN,
    activated,
)
from oodbench.models.realnvp import RealNVP
from oodbench.zoo.cards import load_card, zoo
from oodbench.zoo.scoring import LARGEST_BATCH, scoring_form


def images_of(model, n=4):
    return torch.randint(0, 256, (n, *model.shape), dtype=torch.uint8)


@pytest.mark.parametrize(
    "name", [one for one in zoo() if (load_card(one).folder / "trained.json").exists() and load_card(one).gives("log_prob")]
)  # fmt: skip
@torch.no_grad()
def test_a_shipped_model_and_its_scoring_form_agree(name):
    model = ob.load_model(name)
    if load_card(name).solver:
        model.solver_steps = 4  # all of them take a second an image
    own = load_card(name).trained_on
    source = (
        f"{own}/ref" if own in ("fashionmnist", "mnist", "cifar10") else "svhn/test"
    )  # what the sample holds
    images = torch.from_numpy(ob.load_images(source, like=model).images[:8].copy())
    before = model.log_prob(images)
    form = scoring_form(model)
    difference = (form.log_prob(images) - before).numpy()
    assert ob.bits_per_dim(difference, model.shape) == pytest.approx(0, abs=1e-5)
    assert torch.equal(model.log_prob(images), before)  # the original is as it was


@pytest.mark.parametrize(
    "make",
    [
        lambda: Glow((3, 8, 8), 2, 2, 8),
        lambda: Glow((3, 8, 8), 2, 2, 8, lu=True, coupling="additive", prior="standard"),
        lambda: RealNVP((1, 8, 8), 2, 2, 4),
        lambda: PixelCNN((3, 8, 8), 8, 1, 2),
    ],
    ids=["glow", "glow with LU", "realnvp", "pixelcnn++"],
)
@torch.no_grad()
def test_folding_is_exact_in_float64(make):
    torch.manual_seed(0)
    model = make().double()
    model.log_prob(images_of(model, 32))  # in training mode: sets ActNorm
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    form, images = scoring_form(model.eval()), images_of(model)
    assert torch.allclose(form.log_prob(images), model.log_prob(images), rtol=1e-12)
    assert not any(parametrize.is_parametrized(module) for module in form.modules())
    assert not any(parameter.requires_grad for parameter in form.parameters())
    model.train()
    assert model.loss(images).shape == (4,)  # the original can still be trained


@torch.no_grad()
def test_a_folded_flow_still_inverts():
    form = scoring_form(ob.load_model("glow-fashionmnist"))
    assert sum(isinstance(module, ActNorm) for module in form.modules()) == 0
    images = torch.from_numpy(ob.load_images("fashionmnist/test[:4]").images.copy())
    z, *_ = form.encode(images)
    assert torch.equal(form.decode(z), images)


@pytest.mark.parametrize("lu", [False, True])
def test_a_flow_that_was_never_set_is_refused_in_both_forms(lu):
    glow = Glow((1, 4, 4), 2, 2, hidden=4, lu=lu).eval()
    with pytest.raises(ModelError) as unfolded:
        glow.log_prob(images_of(glow))
    with pytest.raises(ModelError) as folded:
        scoring_form(glow)
    assert str(folded.value) == str(unfolded.value)


def test_batches_shrink_where_layers_are_large():
    sizes = [scoring_form(PixelCNN((1, 32, 32), width, 1, 2)).batch_size for width in (8, 256)]
    assert sizes[0] == LARGEST_BATCH
    assert sizes[1] < sizes[0]


def test_convolving_what_is_activated_is_convolving_concat_elu():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    layers = [ShiftedConv(8, 5, (2, 3), False).double(), ShiftedConv(8, 5, (2, 2), True).double()]
    for layer, left, beside in zip(layers, (UP, LEFT), (1, 0), strict=True):
        conv = ActivatedConv(layer.conv.weight, layer.conv.bias, beside)
        found = conv(activated(x, left))
        assert torch.allclose(found, layer(concat_elu(x)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "scales", "resnets"),
    [((1, 8, 8), 3, 2), ((3, 4, 12), 2, 1), ((2, 5, 3), 1, 1), ((1, 4, 4), 2, 0)],
)
def test_the_scored_network_is_the_plain_one(shape, scales, resnets):
    torch.manual_seed(0)
    model = PixelCNN(shape, 6, resnets, 2, scales).double().eval()
    form, images = scoring_form(model), images_of(model)
    x = scaled(images, 256, torch.float64)
    with torch.no_grad():
        found, expected = form.network(x), model.network(x)
    assert isinstance(form, ScoredPixelCNN)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    assert torch.equal(x, scaled(images, 256, torch.float64))


def test_one_exponential_is_elu_to_a_rounding():
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([-0.0, 1e-30, -1e-8])])
    both = activated(x[None, None, None], LEFT)[0, 0, :, 1, LEFT:]
    expected = torch.stack([F.elu(x), F.elu(-x)])
    assert (both - expected).abs().max().item() < 1.2e-7
    assert activated(x[None, None, None], LEFT)[0, 0, :, 0].count_nonzero() == 0


def test_a_gradient_with_respect_to_the_image_goes_through_the_plain_network():
    torch.manual_seed(0)
    model = PixelCNN((1, 4, 4), 6, 1, 2, 2).double().eval()
    form, images = scoring_form(model), images_of(model)
    gradients = []
    for one in (form, model):
        x, log_prob = one.input_and_log_prob(images)
        gradients.append(torch.autograd.grad(log_prob.sum(), x)[0])
    assert torch.allclose(*gradients, rtol=1e-10)
    assert torch.allclose(form.log_prob(images), model.log_prob(images), rtol=1e-12)


@torch.no_grad()
def test_a_relu_overwrites_only_what_a_product_before_it_made():
    flow = scoring_form(ob.load_model("glow-fashionmnist"))
    assert all(module.inplace for module in flow.modules() if isinstance(module, nn.ReLU))
    torch.manual_seed(0)
    gated = GatedPixelCNN((1, 4, 4), features=4, layers=1).eval()
    first = scoring_form(gated).leave[0]
    assert isinstance(first, nn.ReLU)
    assert not first.inplace  # its input belongs to the caller
