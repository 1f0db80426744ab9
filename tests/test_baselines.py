"""Baselines without a model: each statistic against a slow form, each scorer on images that are far OOD and on real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.data.images import ImageSet
from oodbench.errors import ScorerError
from oodbench.models.noise import keyed_uniform
from oodbench.passes.batches import prepare, run_pass
from oodbench.registry import scorers, statistics
from oodbench.statistics import linear, reference, whiteness
from oodbench.types import split_need

FREE = sorted(name for name, one in scorers.items() if one.baseline)
WITHOUT_REFERENCE = {
    "code-length-png", "code-length-png-short", "pixel-mean", "pixel-mean-low", "pixel-variance", "pixel-variance-low",
}  # fmt: skip
LINEAR = sorted(name for name in FREE if name.startswith("linear-"))
WITH_REFERENCE = sorted({*FREE} - {*LINEAR} - WITHOUT_REFERENCE)


def set_of(images, split="test"):
    return ImageSet("given", split, "", np.ascontiguousarray(images, np.uint8))


def smooth(random, n, shape=(1, 8, 8)):
    """Images whose neighbouring pixels are alike: a slow wave and a little noise."""
    channels, height, width = shape
    phase, level = random.uniform(0, 6, (n, 1, 1, 1)), random.uniform(60, 180, (n, 1, 1, 1))
    wave = np.sin(phase + np.arange(height)[:, None] / 3 + np.arange(width) / 4)
    images = level + 40 * wave + random.normal(0, 4, (n, channels, height, width))
    return images.clip(0, 255).astype(np.uint8)


# -- whiteness --------------------------------------------------------------------------------------------------------------


def slow_whiteness_2d(image):
    """The definition, pixel by pixel."""
    channels, height, width = image.shape
    squares = []
    for channel in image:
        z = (channel - channel.mean()) / channel.std()
        for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
            products = [
                z[y, x] * z[y + down, x + right]
                for y in range(height)
                for x in range(width)
                if 0 <= y + down < height and 0 <= x + right < width
            ]
            squares.append((sum(products) / len(products)) ** 2)
    return height * width * sum(squares) / len(squares)


def slow_whiteness_rows(image):
    flat = image.reshape(-1)
    z, width = (flat - flat.mean()) / flat.std(), image.shape[2]
    squares = []
    for lag in (width, 2 * width, 3 * width, 4 * width, 5 * width):
        products = [z[d] * z[d + lag] for d in range(len(z) - lag)]
        squares.append((sum(products) / len(products)) ** 2)
    return len(z) * sum(squares) / 5


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 8, 6)])
def test_whiteness_is_that_of_the_definition(shape, random):
    residuals = random.normal(1, 3, (4, *shape)).cumsum(3)
    for found, slow in (
        (whiteness.whiteness_2d(residuals), slow_whiteness_2d),
        (whiteness.whiteness_rows(residuals), slow_whiteness_rows),
    ):
        assert found == pytest.approx([slow(image) for image in residuals], rel=1e-10)


def test_white_noise_has_whiteness_one_and_structure_more(random):
    noise = random.normal(size=(400, 1, 24, 24))
    for measured in (whiteness.whiteness_2d, whiteness.whiteness_rows):
        assert measured(noise).mean() == pytest.approx(1, abs=0.2)
        assert np.median(measured(noise.cumsum(3).cumsum(2))) > 50
    assert whiteness.whiteness_2d(5 * noise - 7) == pytest.approx(whiteness.whiteness_2d(noise))


# -- linear residuals -------------------------------------------------------------------------------------------------------


def slow_linear(train, images):
    """Residuals by the regression of each value on all before it, in the order of pixels, channels last."""

    def values(given):
        noise = keyed_uniform(torch.from_numpy(given), 0).double().numpy()
        rows = [np.moveaxis(image, 0, 2).reshape(-1) for image in (given + noise) / 256]
        return np.array(rows)

    x, tested = values(train), values(images)
    mean = x.mean(0)
    covariance = np.cov(x.T, bias=True) + 1e-6 * np.eye(len(mean))
    residuals = np.empty_like(tested)
    for d in range(len(mean)):
        before, own = covariance[:d, :d], covariance[:d, d]
        weights = np.linalg.solve(before, own) if d else np.empty(0)
        left = tested[:, d] - mean[d] - (tested[:, :d] - mean[:d]) @ weights
        residuals[:, d] = left / math.sqrt(covariance[d, d] - own @ weights)
    channels, height, width = images.shape[1:]
    return np.moveaxis(residuals.reshape(-1, height, width, channels), 3, 1)


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 6)])
def test_linear_residuals_are_those_of_regressions(shape, random, monkeypatch):
    monkeypatch.setattr(linear, "BLOCK", 37)
    train, images = smooth(random, 250, shape), smooth(random, 5, shape)
    slow = slow_linear(train, images)
    predictor = linear.linear_predictor(train)
    assert linear.linear_residuals(images, predictor) == pytest.approx(slow, rel=1e-5, abs=1e-7)
    found = ob.measure(
        None, set_of(images), "linear_whiteness", "linear_whiteness_rows", "linear_mahalanobis",
        train=set_of(train),
    )  # fmt: skip
    assert found["linear_mahalanobis"] == pytest.approx((slow**2).sum((1, 2, 3)), rel=1e-5)
    assert found["linear_whiteness"] == pytest.approx(
        [slow_whiteness_2d(one) for one in slow], rel=1e-4
    )
    assert found["linear_whiteness_rows"] == pytest.approx(
        [slow_whiteness_rows(one) for one in slow], rel=1e-4
    )


def test_the_training_images_have_white_residuals_of_unit_variance(random):
    train = smooth(random, 300)
    residuals = linear.linear_residuals(train, linear.linear_predictor(train)).reshape(300, -1)
    covariance = np.cov(residuals.T, bias=True)
    assert covariance == pytest.approx(np.eye(64), abs=1e-2)


def test_prepared_on_too_few_or_no_images_says_so(random):
    images = set_of(smooth(random, 64))
    with pytest.raises(ScorerError, match="in-dist training images; give `train`"):
        ob.measure(None, images, "linear_whiteness", reference=images)
    with pytest.raises(ScorerError, match="at least 65 in-dist train images of 64 numbers each; here are 64"):  # fmt: skip
        ob.measure(None, images, "linear_whiteness", train=images)
    with pytest.raises(ScorerError, match="in-dist reference images; give `reference`"):
        ob.measure(None, images, "pca_residual")


# -- with in-dist reference -------------------------------------------------------------------------------------------------


def test_the_nearest_reference_image_is_found_by_going_through_all(random):
    given, known = smooth(random, 6, (3, 5, 5)), smooth(random, 30, (3, 5, 5))
    given[0] = known[7]
    column = ob.measure(
        None, set_of(given), "nearest_pixel_distance", reference=set_of(known, "ref")
    )["nearest_pixel_distance"]
    slow = [
        min(math.sqrt(((a / 255.0 - b / 255.0) ** 2).sum()) for b in known) for a in given
    ]
    assert column == pytest.approx(slow, abs=1e-9)
    assert column[0] == 0


@pytest.mark.parametrize("n", [40, 200])
def test_pca_keeps_the_fewest_components_that_hold_95_per_cent(n, random):
    known, given = smooth(random, n), smooth(random, 7)
    state = reference.principal_components(known)
    pixels = known.reshape(n, -1) / 255.0
    variances = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False) ** 2
    kept = len(state["components"])
    assert variances[:kept].sum() >= 0.95 * variances.sum() > variances[: kept - 1].sum()
    basis = state["components"]
    assert basis @ basis.T == pytest.approx(np.eye(kept), abs=1e-9)
    slow = []
    for image in given.reshape(7, -1) / 255.0:
        weights, *_ = np.linalg.lstsq(basis.T, image - pixels.mean(0), rcond=None)
        slow.append(((image - pixels.mean(0) - basis.T @ weights) ** 2).sum())
    assert reference.pca(given, state)["pca_residual"] == pytest.approx(slow)


def test_total_variation_adds_up_the_steps_between_neighbours():
    image = np.array([[[[0, 255], [51, 51]]]], np.uint8)
    found = ob.measure(None, set_of(image), "total_variation")["total_variation"]
    assert found == pytest.approx([1 + 0 + 0.2 + 0.8])


def test_the_kde_is_the_sum_over_reference_images_of_products_of_normals(random):
    scorer = scorers["image-numbers-kde"]
    known = {name: random.normal(9, 3, 50) for name in scorer.fit_needs}
    given = {name: random.normal(9, 4, 8) for name in scorer.needs}
    found = scorer.fitted(known)(given)
    h, slow = 50 ** (-1 / 10), []
    for row in range(8):
        terms = []
        for point in range(50):
            exponent = 0.0
            for name, column in known.items():
                step = (given[name][row] - column[point]) / column.std()
                exponent -= step**2 / (2 * h**2)
            terms.append(math.exp(exponent))
        slow.append(-math.log(sum(terms) / 50))
    assert found == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in FREE if name.endswith("two-sided")])
def test_two_sided_scores_are_distances_from_the_median(name, random):
    (need,) = scorers[name].needs
    known, given = random.normal(5, 2, 31), random.normal(5, 3, 9)
    found = scorers[name].fitted({need: known})({need: given})
    assert found == pytest.approx([abs(value - sorted(known)[15]) for value in given])


@pytest.mark.parametrize("name", ["linear-residual-whiteness", "linear-whiteness-mahalanobis"])
def test_the_larger_rank_counts_reference_values_that_are_no_larger(name, random):
    first, second = scorers[name].needs
    known = {first: random.normal(size=40), second: random.normal(size=40)}
    given = {first: random.normal(size=9), second: random.normal(size=9)}
    given[first][0] = known[first][3]
    slow = [
        max(sum(value <= given[need][row] for value in known[need]) / 40 for need in known)
        for row in range(9)
    ]
    assert scorers[name].fitted(known)(given) == pytest.approx(slow)


@pytest.mark.parametrize("name", [name for name in WITHOUT_REFERENCE if name.count("-") == 1])
def test_both_signs_are_there(name, random):
    other = {"code-length-png": "code-length-png-short"}.get(name, f"{name}-low")
    if other in scorers:
        (need,) = scorers[name].needs
        column = {need: random.normal(size=5)}
        assert scorers[other].fitted({})(column) == pytest.approx(-scorers[name].fitted({})(column))


# -- all of them ------------------------------------------------------------------------------------------------------------


def columns_of(names, images, known, train):
    """Columns of the needs of some scorers, of plain arrays."""
    found = {}
    for name in names:
        for need in (one for one in scorers[name].all_needs if one not in found):
            entry = statistics[split_need(need)[0]]
            state = prepare(entry, None, known if entry.prepared_on == "ref" else train)
            found |= run_pass(entry, None, images, state)
    return found


def aurocs(names, train, known, test, ood):
    sides = [columns_of(names, images, known, train) for images in (known, test, ood)]
    fitted = {name: scorers[name].fitted(sides[0]) for name in names}
    return {name: ob.auroc(score(sides[1]), score(sides[2])).value for name, score in fitted.items()}


MEASURED = [name for name in FREE if "jxl" not in name]


def test_far_ood_images_win_against_every_baseline_of_their_kind(random):
    """Of smooth in-dist images, noise of every level at once is far in every direction that has one."""
    train, known, test = (smooth(random, n) for n in (400, 120, 60))
    noise = random.integers(0, 256, (60, 1, 8, 8))
    found = aurocs(MEASURED, train, known, test, noise.astype(np.uint8))
    losers = {"code-length-png-short", "pixel-variance-low"}
    of_level = {"pixel-mean", "pixel-mean-low", "pixel-mean-two-sided"}
    for name in set(MEASURED) - losers - of_level:
        assert found[name] > 0.9, name
    assert all(found[name] < 0.1 for name in losers)
    white = np.full((60, 1, 8, 8), 255, np.uint8)
    found = aurocs(sorted({*losers, *of_level}), train, known, test, white)
    assert found.pop("pixel-mean-low") < 0.01
    assert min(found.values()) > 0.9, found
