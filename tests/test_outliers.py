"""What is fitted to a table of several columns: tails, covariance, mixture by BIC."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, skew

import oodbench as ob
from oodbench.errors import ScorerError
from oodbench.scorers.outliers import Covariance, Tails, mixture_by_bic


def pyod(reference, image):
    """PyOD's COPOD of an image: ECDFs of the reference and the image together, the maximum inside the sum."""
    both = np.concatenate([reference, image[None]])
    left = -np.log(np.apply_along_axis(rankdata, 0, both, "max") / len(both))
    right = -np.log(np.apply_along_axis(rankdata, 0, -both, "max") / len(both))
    side = np.where(skew(both) > 0, right, left)
    return np.maximum(side, (left + right) / 2).sum(1)[-1]


def test_the_tails_are_pyod_s_of_the_reference_and_one_image(random):
    reference = np.stack([random.exponential(size=400), -random.exponential(size=400)], 1)
    images = np.array([[0.5, -0.5], [7.0, 0.1], [-1.0, -9.0]])
    expected = [pyod(reference, image) for image in images]
    assert Tails.of(reference).score(images) == pytest.approx(expected, rel=1e-12)


def test_no_tail_is_empty_and_no_image_moves_another(random):
    reference, far = random.normal(size=(99, 3)), np.full((1, 3), 1e9)
    tails = Tails.of(reference)
    assert tails.score(far) == pytest.approx(tails.score(-far), abs=3 * np.log(100))
    assert tails.score(far).max() <= 3 * np.log(100) + 1e-9
    assert tails.score(np.concatenate([reference, far]))[:99] == pytest.approx(tails.score(reference))  # fmt: skip


def test_constant_columns_are_dropped_and_a_sum_of_others_adds_nothing(random):
    table = random.normal(size=(200, 2)) * [3, 0.1] + [5, 7]
    more = np.column_stack([table, np.full(200, -2300.0), table.sum(1)])
    expected = Covariance.of(table).score(table)
    assert Covariance.of(more).score(more) == pytest.approx(expected, rel=1e-6)
    assert Tails.of(more[:, :3]).score(more[:, :3]) == pytest.approx(Tails.of(table).score(table))
    with pytest.raises(ScorerError, match="constant over the in-dist reference images"):
        Tails.of(np.ones((9, 2)))


def test_the_criterion_finds_as_many_components_as_there_are(random):
    one = random.normal(size=(600, 2))
    three = one + np.array([[0, 0], [9, 9], [-9, 9]])[random.integers(3, size=600)]
    assert [mixture_by_bic(table).mixture.n_components for table in (one, three)] == [1, 3]


def test_a_cross_beside_the_diagonal_is_far_though_each_column_is_usual(random):
    """Mahalanobis and the mixture look at both columns at once; tails look at each."""
    line = random.normal(size=500)
    table = np.stack([line, line + 0.1 * random.normal(size=500)], 1)
    across = table * [1, -1]
    aurocs = {}
    for kind, score in (
        ("mahalanobis", Covariance.of(table).score),
        ("mixture", mixture_by_bic(table).negative_log_density),
        ("tails", Tails.of(table).score),
    ):
        aurocs[kind] = ob.auroc(score(table), score(across)).value
    assert min(aurocs["mahalanobis"], aurocs["mixture"]) > 0.9
    assert aurocs["tails"] < 0.8
