"""A flow's laws, in float64 on small spaces."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from oodbench.analysis.flow_parts import taken_apart
from oodbench.errors import ModelError
from oodbench.models.flows import COUPLING_NETS, CheckerboardCoupling
from oodbench.models.glow import Glow
from oodbench.models.noise import keyed_uniform
from oodbench.models.realnvp import RealNVP


def small_glow(shape=(2, 4, 4), seed=0, **options) -> Glow:
    """A Glow with every parameter away from its initial value, ActNorm set from noise, in float64."""
    torch.manual_seed(seed)
    glow = Glow(shape, **{"scales": 2, "steps": 2, "hidden": 6, **options}).double()
    with torch.no_grad():
        for parameter in glow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        glow.train().loss(torch.randint(0, glow.bins, (64, *shape)))
    return glow.eval()


def images_for(glow: Glow, n=5) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(1).integers(0, glow.bins, (n, *glow.shape)).astype(np.uint8)
    )


def small_flow(options):
    if options.get("family") != "realnvp":
        return small_glow(**options)
    torch.manual_seed(0)
    flow = RealNVP(
        (2, 4, 4),
        **{"hidden": 6, "couplings": 2, **{k: v for k, v in options.items() if k != "family"}},
    ).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        flow.train().loss(torch.randint(0, 256, (64, *flow.shape)))
    return flow.eval()


CONFIGURATIONS = [
    {},
    {"coupling": "additive"},
    {"net": "highway"},
    {"lu": True},
    {"prior": "standard"},
    {"coupling": "additive", "net": "highway", "lu": True, "prior": "standard", "scales": 1},
    {"family": "realnvp"},
    {"family": "realnvp", "prior": "learned", "net": "highway"},
]


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_log_det_equals_autograd(options):
    glow = small_flow(options)
    y = torch.rand(1, *glow.shape, dtype=torch.float64) - 0.5

    def flat(y):
        return torch.cat([z.flatten(1) for z in glow.flow(y)[0]], 1)[0]

    jacobian = torch.autograd.functional.jacobian(flat, y).reshape(y.numel(), y.numel())
    assert glow.flow(y)[2].item() == pytest.approx(
        torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9
    )


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_decode_undoes_encode(options):
    glow = small_flow(options)
    images = images_for(glow)
    z, _, _ = glow.encode(images)
    assert z.shape == (5, math.prod(glow.shape))
    assert torch.equal(glow.decode(z), images)


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_log_prob_is_the_sum_of_its_terms(options):
    glow = small_flow(options)
    images = images_for(glow)
    _, log_prob_z, log_det = glow.encode(images)
    noise = keyed_uniform(images, glow.seed)
    assert torch.allclose(glow.log_prob(images), log_prob_z + log_det, rtol=1e-12)
    assert torch.allclose(
        glow.log_prob(images), glow.log_prob_with(images, noise).detach(), rtol=1e-12
    )
    assert glow.log_prob(images).dtype == torch.float64


def test_density_sums_to_one():
    """The sum over all images, those beyond the range included, is a midpoint rule of the density's integral."""
    glow = small_glow((1, 2, 2), scales=1, bins=3)
    levels = range(-11, 14)
    everything = torch.tensor(list(itertools.product(levels, repeat=4))).reshape(-1, 1, 2, 2)
    with torch.no_grad():
        log_prob = glow.log_prob_with(everything, torch.full(everything.shape, 0.5))
    assert torch.exp(log_prob).sum().item() == pytest.approx(1, abs=2e-3)


def test_an_identity_flow_has_the_prior_s_density():
    glow = Glow((1, 2, 2), scales=1, steps=0, prior="standard").double().eval()
    images = images_for(glow)
    y = glow.dequantise(images, keyed_uniform(images, 0))
    expected = torch.distributions.Normal(0, 1).log_prob(y).flatten(1).sum(1) - 4 * math.log(256)
    assert torch.allclose(glow.log_prob(images), expected, rtol=1e-12)


def test_additive_couplings_keep_the_volume_of_every_image():
    glow = small_glow(coupling="additive")
    log_det = glow.encode(images_for(glow, 20))[2]
    assert torch.all(log_det == log_det[0])


@pytest.mark.parametrize("coupling", ["additive", "affine"])
@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_the_three_terms_and_one_constant_are_log_p(coupling, prior):
    glow = small_glow(coupling=coupling, prior=prior)
    with torch.no_grad():
        terms = glow.log_prob_terms(images_for(glow, 20))
    summed = terms["latent_term"] + terms["prior_volume"] + terms["log_det"]
    constant = math.prod(glow.shape) / 2 * math.log(2 * math.pi)
    assert torch.allclose(terms["log_prob"], summed - constant, atol=1e-9, rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_constant_volume_leaves_the_norm_and_one_constant(precision):
    glow = small_glow(coupling="additive", prior="standard").to(precision)
    with torch.no_grad():
        terms = glow.log_prob_terms(images_for(glow, 40))
    rest = terms["log_prob"] + terms["latent_norm"] ** 2 / 2
    assert (rest - rest[0]).abs().max() < 1e-6
    assert terms["latent_norm"].std() > 0.1


def test_lu_starts_as_the_matrix_it_factors():
    torch.manual_seed(3)
    glow = Glow((1, 4, 4), scales=1, steps=1, lu=True)
    matrix = glow.scales[0][0].layers[1].matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(4), atol=1e-5)


def test_uninitialised_flow_refuses_to_score():
    glow = Glow((1, 4, 4), scales=1, steps=1).eval()
    with pytest.raises(ModelError, match="never initialised"):
        glow.log_prob(images_for(glow))


def test_actnorm_state_travels_with_the_weights():
    glow = small_glow()
    copy = Glow(glow.shape, scales=2, steps=2, hidden=6).double()
    copy.load_state_dict(glow.state_dict())
    first, second = images_for(glow, 4), images_for(glow, 9)[4:]
    one = copy.train().log_prob(first), copy.log_prob(second)
    other = glow.log_prob(second), glow.log_prob(first)
    assert torch.equal(one[0], other[1])
    assert torch.equal(one[1], other[0])


def test_samples_agree_with_the_density():
    """On one pixel block, the frequency of each image among samples is its probability."""
    glow = small_glow((1, 2, 2), scales=1, bins=2, seed=4)
    with torch.no_grad():  # move the mass into the range of the two levels
        glow.top_prior.mul_(0.0)
    samples = glow.sample(40_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    index = (samples.long() * torch.tensor([8, 4, 2, 1])).sum(1)
    frequency = torch.bincount(index, minlength=16) / len(samples)
    grid = torch.tensor(list(itertools.product(range(-9, 11), repeat=4))).reshape(-1, 1, 2, 2)
    with torch.no_grad():
        probability = torch.exp(glow.log_prob_with(grid, torch.full(grid.shape, 0.5)))
    index = (grid.clamp(0, 1).flatten(1) * torch.tensor([8, 4, 2, 1])).sum(
        1
    )  # sampling clamps to the range
    expected = torch.zeros(16, dtype=torch.float64).index_add_(0, index, probability)
    assert torch.allclose(frequency.double(), expected, atol=0.012)


def test_shapes_that_do_not_halve_are_refused():
    with pytest.raises(ModelError, match="divisible by 8, not 28×28"):
        Glow((1, 28, 28), scales=3)
    with pytest.raises(ModelError, match="no coupling is called 'spline'"):
        Glow((1, 28, 28), scales=2, coupling="spline")
    with pytest.raises(ModelError, match="no prior is called 'flat'"):
        Glow((1, 28, 28), scales=2, prior="flat")


def test_a_checkerboard_changes_one_colour_and_sees_the_other():
    torch.manual_seed(0)
    coupling = CheckerboardCoupling(1, 4, parity=0).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    changed = (coupling(x)[0] != x)[0, 0]
    assert changed.tolist() == [
        [(row + column) % 2 == 0 for column in range(4)] for row in range(4)
    ]


def test_noise_belongs_to_the_image():
    images = images_for(small_glow(), 6)
    noise = keyed_uniform(images, 7)
    assert torch.equal(keyed_uniform(images.flip(0), 7).flip(0), noise)
    assert torch.equal(keyed_uniform(images[2:3], 7), noise[2:3])
    assert not torch.equal(keyed_uniform(images, 8), noise)
    assert 0 <= noise.min() <= noise.max() < 1
    changed = images.clone()
    changed[0, 0, 0, 0] ^= 1
    assert not torch.equal(keyed_uniform(changed, 7)[0], noise[0])


def test_noise_is_uniform():
    images = torch.from_numpy(
        np.arange(200 * 100, dtype=np.int64).reshape(200, 1, 10, 10).astype(np.uint8)
    )
    images[:, 0, 0, 0] = torch.arange(200)
    noise = keyed_uniform(images, 0).flatten().numpy()
    assert np.abs(np.histogram(noise, 10, (0, 1))[0] / len(noise) - 0.1).max() < 0.01


@pytest.mark.parametrize("net", COUPLING_NETS)
def test_coupling_networks_start_at_the_identity(net):
    assert torch.all(COUPLING_NETS[net](2, 4, 6)(torch.randn(1, 2, 4, 4)) == 0)


@pytest.mark.parametrize("options", [{"family": "realnvp"}, {}, {"coupling": "additive"}])
@torch.no_grad()
def test_a_coupling_taken_apart_is_the_coupling(options):
    """``y = m·x + (1 − m)·(x + t)·eˢ`` and ``log_det = Σ s``, of what its forward and inverse alone show."""
    flow = small_flow(options)
    y = flow.dequantise(images_for(flow, 1), torch.tensor(0.5))
    parts, log_det = taken_apart(flow, y)
    kept, changed = parts["kept"] == 1, parts["kept"] == 0
    assert kept.sum() == changed.sum() == 16
    if "family" in options:
        rows, columns = np.indices((4, 4))
        assert np.array_equal(kept, np.broadcast_to((rows + columns) % 2 == 1, kept.shape))
    assert np.array_equal(parts["out"][kept], parts["into"][kept])
    expected = (parts["into"] + parts["shift"]) * np.exp(parts["log scale"])
    assert np.allclose(parts["out"][changed], expected[changed], atol=1e-5)
    assert parts["log scale"].sum() == pytest.approx(log_det, abs=1e-4)
    if options.get("coupling") == "additive":
        assert np.allclose(parts["log scale"], 0, atol=1e-6)
    # the images' own size, tiles of the first scale's channels
    assert parts["z 1"].shape == flow.shape
