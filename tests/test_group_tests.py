"""Tests of groups against scipy's and plain loops, and a toy where only the group is far."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, multivariate_normal

import oodbench as ob
from oodbench.scorers.group_tests import ks_of_two
from oodbench.statistics.normality import directions
from oodbench.statistics.projections import pixel_projections

NAMES = ("god1ks", "god2ks", "klod-diagonal", "mmd")


@pytest.fixture
def groups(random):
    return random.normal(0.2, 1.1, (4, 6, 50))


@pytest.fixture
def reference(random):
    return random.normal(size=(80, 50))


def judged(name, reference, groups):
    scorer = ob.scorer(name)
    (need,) = scorer.needs
    return scorer.scored_groups(scorer.state_of({need: reference}), {need: groups})


def test_ks_distances_are_scipy_s(groups, reference):
    one = [np.mean([kstest(g[:, k], "norm").statistic for k in range(50)]) for g in groups]
    two = [np.mean([ks_2samp(g[:, k], reference[:, k]).statistic for k in range(50)]) for g in groups]  # fmt: skip
    assert judged("god1ks", reference, groups) == pytest.approx(one, rel=1e-12)
    assert judged("god2ks", reference, groups) == pytest.approx(two, rel=1e-12)
    assert judged("god2ks-pixels", reference, groups) == pytest.approx(two, rel=1e-12)


def test_ties_count_once(random):
    groups, reference = random.integers(0, 4, (9, 6)), np.sort(random.integers(0, 4, 30))
    expected = [ks_2samp(group, reference).statistic for group in groups]
    assert ks_of_two(groups, reference) == pytest.approx(expected, rel=1e-12)


def test_the_divergence_is_that_of_two_gaussians(groups, reference):
    """∫ N(m, s²) ln N(m, s²)/N(0, 1), by a fine rule."""
    grid = np.linspace(-14, 14, 20001)
    expected = []
    for group in groups:
        own = []
        for k in range(50):
            p = multivariate_normal(group[:, k].mean(), group[:, k].var() + 1e-6).pdf(grid)
            q = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
            inside = p > 1e-300
            own.append(np.trapezoid(np.where(inside, p * np.log(np.where(inside, p, 1) / q), 0), grid))  # fmt: skip
        expected.append(np.mean(own))
    assert judged("klod-diagonal", reference, groups) == pytest.approx(expected, rel=1e-5)


def test_the_discrepancy_is_that_of_a_plain_loop(groups, reference):
    pairs = [((a - b) ** 2).sum() for n, a in enumerate(reference) for b in reference[:n]]
    h = np.median(pairs)

    def kernel(a, b):
        return math.exp(-((a - b) ** 2).sum() / h)

    expected = []
    for group in groups:
        own = np.mean([kernel(a, b) for i, a in enumerate(group) for j, b in enumerate(group) if i != j])  # fmt: skip
        across = np.mean([kernel(a, b) for a in group for b in reference])
        expected.append(own + np.mean([math.exp(-one / h) for one in pairs]) - 2 * across)
    assert judged("mmd", reference, groups) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [*NAMES, "god2ks-pixels"])
def test_a_far_group_wins_and_its_order_says_nothing(name, random, reference):
    near, far = random.normal(size=(60, 10, 50)), random.normal(0.5, 1.4, (60, 10, 50))
    of_near, of_far = (judged(name, reference, one) for one in (near, far))
    assert ob.auroc(of_near, of_far).value > 0.95
    assert judged(name, reference, far[:, ::-1]) == pytest.approx(of_far, rel=1e-9)
    assert judged(name, reference, far[3:4]) == pytest.approx(of_far[3:4], rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_image_is_a_group_of_one(name, reference, groups):
    scorer = ob.scorer(name)
    alone = scorer.fitted({"projections": reference})({"projections": groups[0]})
    assert alone == pytest.approx(judged(name, reference, groups[0][:, None]))


def test_pixels_are_projected_one_image_at_a_time(random):
    images = random.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    found = pixel_projections(images)["pixel_projections"]
    expected = images.reshape(5, 16) / 255 @ directions(16).numpy()
    assert found == pytest.approx(expected, rel=1e-12)
    assert np.array_equal(pixel_projections(images[2:3])["pixel_projections"], found[2:3])
