"""Laws of the second-order analysis, in float64 on models whose expansion is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.analysis.explain import explain
from oodbench.analysis.second_order import (
    closed_form,
    curvature,
    expand,
    log_density,
    scaled_pixels,
)
from oodbench.errors import ModelError
from oodbench.models.glow import Glow
from oodbench.testing import UniformModel


def linear_glow(scales=1, shape=(1, 8, 8), **options):
    """A Glow whose couplings are still the identity: a Gaussian over images."""
    torch.manual_seed(0)
    model = Glow(
        shape, scales, 2, **{"hidden": 4, "coupling": "additive", "prior": "standard", **options}
    ).double()
    model.log_prob(torch.randint(0, 256, (64, *shape), dtype=torch.uint8))  # sets ActNorm
    return model.eval()


@pytest.fixture
def sets(random):
    wide = random.integers(0, 256, (60, 1, 8, 8)).astype(np.uint8)
    narrow = (100 + wide[::-1] // 3).astype(np.uint8)
    return wide, narrow


@pytest.mark.parametrize("scales", [1, 2])
def test_the_expansion_is_exact_for_a_gaussian(sets, scales):
    model = linear_glow(scales)
    measured = [log_density(model, scaled_pixels(model, images)).mean().item() for images in sets]
    found = expand(model, *sets, probes=60)
    assert found.first.value + found.second.value == pytest.approx(
        measured[1] - measured[0], rel=1e-9
    )
    assert found.at_data.value == pytest.approx(
        found.second.value, rel=1e-9
    )  # the curvature is the same everywhere
    back = expand(model, *sets[::-1], probes=60)
    assert back.first.value + back.second.value == pytest.approx(
        measured[0] - measured[1], rel=1e-9
    )


@pytest.mark.parametrize(("scales", "prior"), [(1, "standard"), (1, "learned"), (2, "standard")])
def test_the_closed_form_is_the_trace_of_a_constant_volume_glow(sets, scales, prior):
    model = linear_glow(scales, prior=prior)
    if prior == "learned":  # of one scale: its σ are parameters, not predictions
        with torch.no_grad():
            model.top_prior.add_(0.3 * torch.randn_like(model.top_prior))
    y_in, y_ood = (scaled_pixels(model, images) for images in sets)
    centre = y_in.mean(0)
    variances = y_ood.var(0, unbiased=False) - y_in.var(0, unbiased=False)
    basis = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    trace = (
        curvature(model, centre.expand_as(basis), basis, basis) * variances.flatten().numpy()
    ).sum() / 2
    assert closed_form(model, variances) == pytest.approx(trace, rel=1e-9)
    found = expand(model, *sets, probes=400)
    assert found.closed_form == pytest.approx(found.diagonal.value, abs=4 * found.diagonal.error)


def test_curvature_is_the_hessian_s(sets):
    torch.manual_seed(0)
    model = linear_glow(coupling="affine")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    point = scaled_pixels(model, sets[0][:1])
    hessian = torch.autograd.functional.hessian(
        lambda y: log_density(model, y[None])[0], point[0]
    ).reshape(64, 64)
    u, v = torch.randn(2, 5, 1, 8, 8, dtype=torch.float64)
    expected = torch.einsum("bi,ij,bj->b", u.flatten(1), hessian, v.flatten(1))
    assert curvature(model, point.expand(5, -1, -1, -1), u, v) == pytest.approx(
        expected.numpy(), rel=1e-9
    )


@pytest.mark.parametrize("options", [{"coupling": "affine"}, {"scales": 2, "prior": "learned"}])
def test_a_volume_that_varies_has_no_closed_form(sets, options):
    model = linear_glow(**options)
    assert expand(model, *sets, probes=8).closed_form is None
    with pytest.raises(ModelError, match="a Glow of constant volume alone"):
        closed_form(model, scaled_pixels(model, sets[0]).var(0))


def test_other_models_have_no_expansion(sets):
    with pytest.raises(ModelError, match="UniformModel has none"):
        expand(UniformModel(), *sets)


def test_a_pair_is_explained_in_words_and_numbers():
    page = explain("glow-additive-fashionmnist", "fashionmnist", "mnist", limit=40, probes=4)
    ood, in_dist = (f"{name}/test[first 2000][40 drawn]" for name in ("mnist", "fashionmnist"))
    assert f"glow-additive-fashionmnist: E[log p] of {ood} minus that of {in_dist}, in nats" in page
    assert "closed form" not in page  # a learned prior's volume varies
    assert "the OOD set lies inside" in page
    measured = float(page.split("measured")[1].split()[0])
    model = ob.load_model("glow-additive-fashionmnist")
    sets = [ob.load_images(f"{name}/test[:40]") for name in ("mnist", "fashionmnist")]
    means = [ob.measure(model, images, "log_prob")["log_prob"].mean() for images in sets]
    assert measured == pytest.approx(means[0] - means[1], abs=0.06)
