"""Models of other libraries, each against what its own library says."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import oodbench as ob
from oodbench.digests import value_digest
from oodbench.errors import ModelError
from oodbench.models.noise import keyed_uniform
from oodbench.testing import check_model
from oodbench.zoo.adapters import (
    OTHERWISE,
    STANDARD_PRIOR,
    from_diffusers,
    from_flow,
    from_pythae,
    settle_actnorm,
)

SHAPE = (1, 28, 28)


@pytest.fixture
def images():
    return torch.from_numpy(ob.load_images("fashionmnist/test[:6]").images.copy())


def broken_promises(model):
    """What the contract's probe says; an untrained flow may well prefer noise."""
    return [fault for fault in check_model(model) if "uniform noise is more likely" not in fault]


def assert_told_apart(make, *changes):
    """Made twice a model is one; each change of a setting, and one changed weight, makes another."""
    models = [make(), *(make(**change) for change in changes), make()]
    with torch.no_grad():
        next(models[-1].parameters()).view(-1)[0] += 1e-3
    digests = [value_digest(model) for model in models]
    assert len(set(digests)) == len(digests)
    assert value_digest(make()) == digests[0]


class Shrink(nn.Module):
    """A flow that a person would write: ``z = s·y`` under a standard Gaussian."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def log_prob(self, y):
        dims = y[0].numel()
        y *= self.scale  # in place, as some libraries do
        return (-0.5 * y.flatten(1) ** 2).sum(1) - dims * (
            0.5 * math.log(2 * math.pi) - torch.log(self.scale)
        )


@pytest.mark.parametrize("logit", [None, 0.05])
def test_a_pixel_s_levels_sum_to_the_density_s_mass(logit):
    """Averaged over the noise, the levels' probabilities are the mass that the continuous density has in the image's range."""
    model = from_flow(Shrink(3.0), (1, 1, 1), "mnist", logit=logit, centre=0.0)
    levels = torch.arange(256, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    with torch.no_grad():
        noise = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
        total = (
            sum(
                model.log_prob_with(levels, torch.full(levels.shape, u)).exp().sum().item()
                for u in noise.tolist()
            )
            / 200
        )
    edge = math.log(0.95 / 0.05) if logit else None
    normal = torch.distributions.Normal(0.0, 1 / 3)
    low, high = (-edge, edge) if logit else (0.0, 1.0)
    mass = (normal.cdf(torch.tensor(high)) - normal.cdf(torch.tensor(low))).item()
    assert total == pytest.approx(mass, abs=1e-4)


def test_the_input_is_left_alone_and_scaling_has_its_constant(images):
    model, kept = from_flow(Shrink(), SHAPE, "fashionmnist"), images.clone()
    first = model.log_prob(images)
    assert torch.equal(images, kept)
    assert torch.equal(model.log_prob(images), first)
    y = (images.double() + keyed_uniform(images, 0)) / 256
    expected = Shrink().log_prob(y.flatten(1)) - 784 * math.log(256)
    assert torch.allclose(first, expected, rtol=1e-12)
    other = from_flow(Shrink(), SHAPE, "fashionmnist", levels=255, centre=0.5, flat=False)
    y = (images.double() + keyed_uniform(images, 0)) / 255 - 0.5
    assert torch.allclose(
        other.log_prob(images), Shrink().log_prob(y) - 784 * math.log(255), rtol=1e-12
    )


def test_wrong_scalings_and_results_are_named(images):
    with pytest.raises(ModelError, match="255 or by 256 levels, not by 128"):
        from_flow(Shrink(), SHAPE, "mnist", levels=128)
    with pytest.raises(ModelError, match=r"needs pixels in \[0, 1\)"):
        from_flow(Shrink(), SHAPE, "mnist", levels=255, logit=0.05)
    model = from_flow(Shrink(), SHAPE, "mnist", log_density=lambda y: y.mean())
    with pytest.raises(
        ModelError, match="one number for 6 images; it must give one number an image"
    ):
        model.log_prob(images)


class PlainActNorm(nn.Module):
    """An ActNorm whose flag is no part of the state dict, as in y0ast's Glow."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.inited = False


def test_a_flag_that_loading_lost_is_set_again():
    layer = PlainActNorm()
    with pytest.raises(ModelError, match="never initialised"):
        settle_actnorm(nn.Sequential(layer))
    with torch.no_grad():
        layer.bias.add_(1)
    settle_actnorm(nn.Sequential(layer))
    assert layer.inited


def test_each_setting_of_one_flow_is_another_model():
    settings = [{"levels": 255}, {"centre": 0.5}, {"logit": 0.05}, {"seed": 1}, {"flat": False}]
    assert_told_apart(lambda **change: from_flow(Shrink(), SHAPE, "mnist", **change), *settings)
    density = [lambda y: -y.sum(1), lambda y: -2 * y.sum(1)]
    one, two = (
        value_digest(from_flow(Shrink(), SHAPE, "mnist", log_density=each)) for each in density
    )
    assert one != two


def test_zuko(images):
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    flow = zuko.flows.NICE(784, transforms=2, hidden_features=(16,))
    model = from_flow(flow, SHAPE, "fashionmnist", centre=0.5)
    y = (images.float() + keyed_uniform(images, 0)) / 256 - 0.5
    assert_told_apart(
        lambda **change: from_flow(copy.deepcopy(flow), SHAPE, "fashionmnist", **change),
        {"centre": 0.5},
    )
    with torch.no_grad():
        assert torch.allclose(
            model.log_prob(images),
            flow().log_prob(y.flatten(1)).double() - 784 * math.log(256),
            rtol=1e-6,
        )
        assert broken_promises(model) == []


def test_nflows(images):
    pytest.importorskip("nflows")
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import ActNorm, CompositeTransform, RandomPermutation

    torch.manual_seed(0)
    flow = Flow(CompositeTransform([ActNorm(784), RandomPermutation(784)]), StandardNormal([784]))
    with pytest.raises(
        ModelError, match=r"_transform\._transforms\.0 is an ActNorm that was never initialised"
    ):
        from_flow(flow, SHAPE, "fashionmnist")
    flow.train()
    flow.log_prob((torch.rand(64, 784) + 0.1) / 2)
    assert_told_apart(
        lambda **change: from_flow(copy.deepcopy(flow), SHAPE, "fashionmnist", **change),
        {"centre": 0.5},
    )
    with torch.no_grad():
        assert broken_promises(from_flow(flow, SHAPE, "fashionmnist", logit=0.05)) == []


def test_normflows(images):
    nf = pytest.importorskip("normflows")
    torch.manual_seed(0)
    flows = [nf.flows.GlowBlock(4, 8, split_mode="channel", scale=True), nf.flows.Squeeze()]
    flow = nf.MultiscaleFlow(
        [nf.distributions.DiagGaussian((4, 14, 14))], [flows], [], class_cond=False
    )
    options = {"flat": False, "log_density": lambda y: flow.log_prob(y, None)}
    with pytest.raises(ModelError, match="never initialised"):
        from_flow(flow, SHAPE, "fashionmnist", **options)
    with torch.no_grad():
        flow.log_prob(torch.rand(16, 1, 28, 28), None)
        model = from_flow(flow, SHAPE, "fashionmnist", **options)
        y = (images.float() + keyed_uniform(images, 0)) / 256
        assert torch.allclose(
            model.log_prob(images), flow.log_prob(y, None).double() - 784 * math.log(256), rtol=1e-6
        )
        assert broken_promises(model) == []

    def make(**change):
        own = copy.deepcopy(flow)
        density = {"flat": False, "log_density": lambda y: own.log_prob(y, None)}
        return from_flow(own, SHAPE, "fashionmnist", **density, **change)

    assert_told_apart(make, {"centre": 0.5})


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_pythae(images, loss):
    pytest.importorskip("pythae")
    from pythae.models import VAE, VAEConfig

    torch.manual_seed(0)
    theirs = VAE(VAEConfig(input_dim=SHAPE, latent_dim=3, reconstruction_loss=loss)).eval()
    model = from_pythae(theirs, "fashionmnist", samples=200)
    with torch.no_grad():
        ours = model.log_prob(images)
        mean = theirs.get_nll(
            images / 255, n_samples=200, batch_size=200
        )  # of the log-likelihood, whatever its name
    constant = 784 * math.log(255) if loss == "mse" else 0
    assert ours.mean().item() + constant == pytest.approx(mean, rel=1e-3)
    assert "no density of 8-bit images" in model.likelihood
    assert model.sample(2).shape == (2, *SHAPE)

    def make(samples=1):
        return from_pythae(copy.deepcopy(theirs), "fashionmnist", samples=samples)

    assert_told_apart(make, {"samples": 64})


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_diffusers(images, kind):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    model = from_diffusers(unet, scheduler, SHAPE, "fashionmnist", terms=4)

    def make(terms=4):
        return from_diffusers(copy.deepcopy(unet), scheduler, SHAPE, "fashionmnist", terms=terms)

    assert_told_apart(make, {"terms": 5})
    x, noise = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    t = torch.tensor([5, 300, 900])
    with torch.no_grad():
        x_t = scheduler.add_noise(x, noise, t)
        assert torch.allclose(model.noised(x, t, noise), x_t, atol=1e-5)
        assert torch.isfinite(model.log_prob(images)).all()
        if kind != "v_prediction":  # theirs recovers the image from its prediction
            return
        expected = scheduler.step(unet(x_t[1:2], t[1:2]).sample, 300, x_t[1:2]).pred_original_sample
        assert torch.allclose(model.denoised(x_t[1:2], t[1:2]).clamp(-1, 1), expected, atol=1e-4)


class UNet2DModel(nn.Module):
    """Stands for diffusers' U-Net, so that what is refused is tested without that library."""

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(**{"in_channels": 1, "out_channels": 1} | config)
        self.weight = nn.Parameter(torch.tensor(0.1))

    def forward(self, x, t):
        return SimpleNamespace(sample=self.weight * x)


def scheduled(name="DDPMScheduler", kept=None, kind="v_prediction"):
    own = type(name, (), {})()
    own.config = SimpleNamespace(prediction_type=kind)
    own.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    if kept is not None:
        own.alphas_cumprod = kept(own.alphas_cumprod)
    return own


@pytest.mark.parametrize(
    ("unet", "scheduler", "said"),
    [
        ({"num_class_embeds": 10}, {}, r"is class-conditional \(num_class_embeds=10"),
        ({"class_embed_type": "timestep"}, {}, "is class-conditional"),
        ({"in_channels": 4, "out_channels": 4}, {}, "does it work on latents"),
        ({"out_channels": 2}, {}, "learned variances are not supported"),
        ({}, {"name": "FlowMatchEulerDiscreteScheduler"}, r"trains a velocity.*from_velocity"),
        ({}, {"name": "EDMEulerScheduler", "kept": lambda kept: None}, "EDMEulerScheduler has no noise schedule"),
        ({}, {"kept": lambda kept: kept.flip(0)}, "do not fall from below 1"),
        ({}, {"kind": "flow_prediction"}, "'flow_prediction' is not known"),
    ],
)  # fmt: skip
def test_diffusers_that_are_another_density_are_refused_by_name(unet, scheduler, said):
    with pytest.raises(ModelError, match=said):
        from_diffusers(UNet2DModel(**unet), scheduled(**scheduler), (1, 28, 28), "fashionmnist")
    with pytest.raises(ModelError, match="Shrink is not supported, only an unconditional UNet2D"):
        from_diffusers(Shrink(), scheduled(), (1, 28, 28), "fashionmnist")


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_no_image_is_infinite_without_signal_at_the_last_time(images, kind):
    """A zero terminal signal-to-noise ratio: the bound of the diffusion without its last time."""

    def rescaled(kept):
        root = kept.sqrt()
        return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2

    spent = from_diffusers(UNet2DModel(), scheduled(kept=rescaled, kind=kind), SHAPE, "mnist")
    with torch.no_grad():
        found = spent.log_prob(images)
    assert torch.isfinite(found).all()
    assert "999 steps (1 without signal left out)" in spent.likelihood

    def shorter(kept):
        return rescaled(kept)[:-1]

    same = from_diffusers(UNet2DModel(), scheduled(kept=shorter, kind=kind), SHAPE, "mnist")
    with torch.no_grad():
        assert torch.equal(same.log_prob(images), found)


@pytest.mark.parametrize("name", ["VAMP", "VAE_IAF", "SVAE", "VQVAE", "MyVAE"])
def test_pythae_models_with_another_prior_are_refused_by_name(name):
    model = type(name, (), {"model_config": None})()
    with pytest.raises(ModelError, match=rf"pythae's {name} is not supported, since i"):
        from_pythae(model, "fashionmnist")


def test_every_model_of_pythae_is_supported_or_refused_with_its_reason():
    models = pytest.importorskip("pythae.models")
    kinds = {name for name in models.__dict__ if name in models.__all__}
    kinds = {name for name in kinds if not name.endswith(("Config", "Output"))} - {
        "AutoModel",
        "BaseAE",
    }
    assert kinds <= set(STANDARD_PRIOR) | set(OTHERWISE)


def test_zuko_s_continuous_flow_in_check_and_run(images):
    """It differentiates inside log_prob."""
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    flow = zuko.flows.CNF(16, hidden_features=(8,))
    model = from_flow(flow, (1, 4, 4), "fashionmnist")
    assert broken_promises(model) == []
    found = ob.measure(model, ob.load_images("fashionmnist/test[:3]", like=model), "log_prob")
    assert np.isfinite(found["log_prob"]).all()


def test_diffusers_that_learn_variances_are_refused():
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        in_channels=1, out_channels=2, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    with pytest.raises(ModelError, match="learned variances are not supported"):
        from_diffusers(unet, diffusers.DDPMScheduler(), SHAPE, "fashionmnist")
