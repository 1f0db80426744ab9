"""Laws of the second-order analysis, in float64 on models whose expansion is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.analysis import kept
from oodbench.analysis.assumptions import check_assumptions
from oodbench.analysis.expected import Expected
from oodbench.analysis.explain import explain
from oodbench.analysis.moments import off_diagonal_share, variance_sums
from oodbench.analysis.second_order import (
    closed_form,
    curvature,
    expand,
    log_density,
    scaled_pixels,
    whole_moments_term,
)
from oodbench.analysis.verdicts import (
    AT_DATA,
    CLOSED,
    DIAGONAL,
    WHOLE,
    Judged,
    predicted_by_data,
    predictions,
    tally,
    trend,
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


class Quartic:
    """``log p(y) = −Σ y⁴ + constant``: the simplest density whose curvature, ``−12 y²``, is not the same everywhere."""

    def flow(self, y):
        return [], -(y.double() ** 4).flatten(1).sum(1), torch.zeros(len(y), dtype=torch.float64)


def gaussian_sets(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 1, 1, 4, generator=generator, dtype=torch.float64)


def test_two_halves_of_one_set_give_zero_at_images_too():
    """An image that were both point and probe would give ``½·E[12 y²·y² − 12 y²]·4 = 48`` in place of 0."""
    origin = torch.zeros(1, 1, 4, dtype=torch.float64)
    one, other = gaussian_sets(0, 4000)
    found = whole_moments_term(Quartic(), one, origin, one, other)
    assert found.error < 2
    assert abs(found.value) < 3 * found.error
    wide = whole_moments_term(Quartic(), one, origin, one, 1.5 * other)
    # ½·(−12)·(1.5² − 1)·4 = −30
    assert wide.value == pytest.approx(-30, abs=3 * wide.error)


def test_the_error_at_images_is_the_spread_over_repetitions():
    origin = torch.zeros(1, 1, 4, dtype=torch.float64)
    found = [
        whole_moments_term(Quartic(), one, origin, one, other)
        for one, other in (gaussian_sets(seed, 400) for seed in range(1, 61))
    ]
    standardised = np.array([one.value / one.error for one in found])
    assert 0.75 < standardised.std() < 1.25
    assert abs(standardised.mean()) < 0.4


def test_the_first_order_term_has_the_error_of_the_means(sets):
    model, found = linear_glow(), expand(linear_glow(), *sets, probes=8)
    y_in, y_ood = (scaled_pixels(model, images) for images in sets)
    centre = y_in.mean(0, keepdim=True).requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(model, centre).sum(), centre)
    shares = [(gradient * y).flatten(1).sum(1).numpy() for y in (y_in, y_ood)]
    errors = [one.std(ddof=1) / np.sqrt(60) for one in shares]
    assert found.first.value == pytest.approx(shares[1].mean() - shares[0].mean(), rel=1e-9)
    assert found.first.error == pytest.approx(np.hypot(*errors), rel=1e-9)


def test_three_images_are_too_few_for_halves(sets):
    found = expand(linear_glow(), sets[0], sets[1][:3], probes=8)
    assert found.at_data is None
    assert AT_DATA not in predictions(found.terms)


def reverse_over_reverse(model, points, left, right):
    """``leftᵀ ∇²log p(point) right`` by torch's double backward pass: the plain form."""
    x = points.expand_as(right).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(model, x).sum(), x, create_graph=True)
    (product,) = torch.autograd.grad((gradient * right).sum(), x)
    return (product * left).flatten(1).sum(1).numpy()


@pytest.mark.parametrize("coupling", ["affine", "additive"])
def test_curvatures_are_those_of_a_double_backward_pass(sets, coupling):
    model = linear_glow(2, coupling=coupling, prior="learned", net="highway")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    y, vectors = (scaled_pixels(model, images) for images in sets)
    for points in (y, y.mean(0, keepdim=True)):
        found = curvature(model, points, y, vectors)
        assert found == pytest.approx(reverse_over_reverse(model, points, y, vectors), rel=1e-9)


def test_a_kept_curvature_is_computed_once(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_HOME", str(tmp_path))
    calls = []

    def counted(*given):
        calls.append(given)
        return curvature(*given)

    monkeypatch.setattr(kept, "curvature", counted)
    model, (wide, narrow) = linear_glow(), sets
    plain = expand(model, wide, narrow, probes=8)
    assert expand(model, wide, narrow, probes=8, curvature=kept.KeptCurvature("a")) == plain
    assert len(calls) == 5
    again = expand(model, wide, narrow, probes=8, curvature=kept.KeptCurvature("a"))
    assert (again, len(calls)) == (plain, 5)
    # beside another set, what is of the in-dist images alone is there
    expand(model, wide, narrow // 2, probes=8, curvature=kept.KeptCurvature("a"))
    assert len(calls) == 8
    expand(model, wide, narrow, probes=8, curvature=kept.KeptCurvature("b"))
    assert len(calls) == 13


# verdicts


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [
        (Expected(5, 2), Expected(9, 1), "right"),
        (Expected(-5, 2), Expected(9, 1), "wrong"),
        (Expected(-5, 2), Expected(-9, 1), "right"),
        (Expected(3.9, 2), Expected(9, 1), "undecided"),
        (Expected(5, 2), Expected(-31, 47), "undecided"),
        (Expected(5), Expected(9), "right"),
        (Expected(float("nan"), 1), Expected(9, 1), "undecided"),
        (Expected(0), Expected(9, 1), "undecided"),
    ],
)
def test_a_sign_within_its_error_is_undecided(predicted, measured, expected):
    judged = Judged(predicted, measured)
    assert judged.verdict == expected
    if measured.value > 0:
        assert judged.ratio == abs(predicted.value) / 9 or np.isnan(predicted.value)
    if measured == Expected(-31, 47):
        assert judged.ratio is None


def test_a_tally_counts_each_verdict_and_has_the_median_ratio():
    sure = Expected(10, 1)
    found = tally([Judged(Expected(value, 1), sure) for value in (20, 40, -300, 1)])
    assert found[:3] == (2, 1, 1)
    assert found.pairs == 4
    assert found.ratio == pytest.approx(3.0)
    assert tally([Judged(sure, Expected(1, 5))]).ratio is None


def test_each_form_has_its_terms():
    terms = {"first": 1, "second": 10, "diagonal": 100, "at_data": 1000}
    found = predictions({name: Expected(value) for name, value in terms.items()})
    assert {form: one.value for form, one in found.items()} == {
        WHOLE: 11,
        DIAGONAL: 100,
        AT_DATA: 1001,
    }
    closed = predictions({"closed_form": Expected(7)})
    assert closed == {CLOSED: Expected(7)}


def test_the_data_alone_predict_a_sign_where_all_channels_agree_beyond_their_errors():
    wide, narrow = [Expected(60, 1), Expected(70, 1)], [Expected(50, 1), Expected(60, 1)]
    assert predicted_by_data(wide, narrow).value == 1
    assert predicted_by_data(narrow, wide).value == -1
    assert predicted_by_data(wide, [narrow[0], wide[1]]) is None
    assert predicted_by_data([Expected(60, 10)], [Expected(50, 10)]) is None


def test_a_trend_names_the_factors_that_part_ways():
    up, down, open_ = Expected(9, 1), Expected(-9, 1), Expected(1, 1)
    assert trend({87: up, 50: up}) == "raises log p"
    assert trend({87: down, 50: down}) == "lowers log p"
    assert trend({87: open_, 50: open_}) == "leaves log p within its error"
    mixed = trend({50: up, 75: up, 87: down, 62: up})
    assert mixed == "raises log p at 75 %, 62 % and 50 %, lowers log p at 87 %"


# what is assumed


def test_the_assumptions_hold_for_a_gaussian_and_independent_pixels(random):
    images = random.integers(0, 256, (400, 1, 8, 8)).astype(np.uint8)
    found = check_assumptions(linear_glow(2), images[:200], images[200:], probes=20)
    assert found.means_apart < 0.15  # two samples of 200: √(2/200) = 0.1
    # a plain covariance of 200 images would say 64/(64 + 200) = 24 %
    assert all(abs(share) < 0.05 for share in found.off_diagonal)
    assert abs(found.curvature_spread[1] / found.curvature_spread[0]) < 1e-9
    assert found.prior_volume_spread == 0


def test_a_learned_prior_and_affine_couplings_break_them(sets):
    torch.manual_seed(1)
    model = linear_glow(2, coupling="affine", prior="learned")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    found = check_assumptions(model, *sets, probes=20)
    assert found.curvature_spread[1] > 0
    y = scaled_pixels(model, sets[0][:20])
    first, _ = model._by_scale(y)
    volumes = first.log_std.flatten(1).sum(1)  # the last scale's are one number
    assert found.prior_volume_spread == pytest.approx(volumes.std().item(), rel=1e-9)
    apart = (scaled_pixels(model, sets[1]) - scaled_pixels(model, sets[0]).mean(0)).mean(0)
    radius = scaled_pixels(model, sets[0]).var(0, unbiased=False).sum().sqrt()
    assert found.means_apart == pytest.approx((apart.norm() / radius).item(), rel=1e-9)


def test_the_off_diagonal_share_is_that_of_the_covariance(random):
    """Over many small samples the two sums average to those of the law, here of two equal pixels and one apart."""
    base = random.integers(0, 256, (60000, 2))
    images = base[:, [0, 0, 1]].reshape(-1, 1, 1, 3).astype(np.uint8)
    variances = np.array([1.0, 1.0, 1.0])
    squares = np.outer(variances, variances) * np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    expected = 1 - np.trace(squares) / squares.sum()
    assert off_diagonal_share(images[:4000]) == pytest.approx(expected, abs=0.02)
    assert off_diagonal_share(images[:3]) is None
    assert off_diagonal_share(np.zeros((8, 1, 2, 2), np.uint8)) is None


def test_variance_sums_are_numpy_s_with_the_error_of_a_mean(random):
    images = random.integers(0, 256, (1500, 2, 4, 4)).astype(np.uint8)
    found = variance_sums(images)
    plain = (images / 255).var(0).sum((1, 2))
    assert [one.value for one in found] == pytest.approx(plain, rel=1e-12)
    again = [variance_sums(part)[0].value for part in np.split(images, 30)]
    assert found[0].error * np.sqrt(30) == pytest.approx(np.std(again, ddof=1), rel=0.5)


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
    assert "The OOD set lies inside" in page
    measured = float(page.split("measured")[1].split()[0].replace(",", ""))
    model = ob.load_model("glow-additive-fashionmnist")
    sets = [ob.load_images(f"{name}/test[:40]") for name in ("mnist", "fashionmnist")]
    means = [ob.measure(model, images, "log_prob")["log_prob"].mean() for images in sets]
    assert measured == pytest.approx(means[0] - means[1], abs=0.06)


def test_a_set_against_another_part_of_itself_is_undecided():
    page = explain(
        "glow-small-fashionmnist-1", "fashionmnist", "fashionmnist/ref", limit=30, probes=8
    )
    assert "the sign is undecided" in page
    assert "× what is measured" not in page
    assert "the sign is right" not in page
    assert "the sign is wrong" not in page


def test_explain_tests_the_claim_of_variances_on_any_model():
    """Of a model that is no flow of ours: the measured gap, and paired changes under contraction."""
    page = explain("vae-fashionmnist", "fashionmnist", "mnist", limit=12)
    assert "second order" not in page
    model = ob.load_model("vae-fashionmnist")
    images = ob.load_images("fashionmnist/test[:12]")
    mean = images.images.astype(float).mean(0)
    half = np.floor(mean + 0.5 * (images.images - mean) + 0.5).astype(np.uint8)
    both = [torch.from_numpy(np.array(one)) for one in (half, images.images)]
    with torch.inference_mode():
        change = (model.log_prob(both[0]) - model.log_prob(both[1])).numpy()
    line = next(line for line in page.splitlines() if line.startswith("  in-dist "))
    shown = [float(word.replace(",", "")) for word in line.split()[1:] if word != "±"]
    assert shown[-2] == pytest.approx(change.mean(), abs=0.06)
    assert shown[-1] == pytest.approx(change.std(ddof=1) / np.sqrt(12), abs=0.06)
    assert "The claim that less variance is likelier" in page
