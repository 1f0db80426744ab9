"""A model and a scorer in scikit-learn's outlier convention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_array

import oodbench as ob
from oodbench.errors import ModelError, ScorerError
from oodbench.testing import PixelHistogram


@pytest.fixture
def images(random):
    return random.integers(0, 256, (40, 1, 4, 4)).astype(np.uint8)


@pytest.fixture
def detector(images):
    return ob.OutlierDetector(PixelHistogram(images), "likelihood", contamination=0.1)


def test_signs_are_the_reverse_of_ours(detector, images):
    detector.fit(images)
    ours = -detector.model.log_prob(torch.from_numpy(images)).numpy()
    assert detector.score_samples(images) == pytest.approx(-ours)
    assert detector.offset_ == pytest.approx(np.quantile(-ours, 0.1))
    called = detector.predict(images)
    assert set(called) == {-1, 1}
    assert (called == -1).tolist() == (detector.decision_function(images) < 0).tolist()
    assert (called == -1).mean() == pytest.approx(0.1, abs=0.03)
    assert ours[called == -1].min() > ours[called == 1].max()


def test_a_fitted_scorer_and_a_name_of_the_zoo():
    sets = [f"{name}[:60]" for name in ("fashionmnist/ref", "fashionmnist/test", "mnist/test")]
    ref, test, ood = (ob.load_images(name).images for name in sets)
    detector = ob.OutlierDetector("glow-small-fashionmnist-1", "typicality").fit(ref)
    own = -detector.score_samples(test), -detector.score_samples(ood)
    glow = ob.load_model("glow-small-fashionmnist-1")
    columns = [ob.measure(glow, ob.load_images(name), "log_prob") for name in sets]
    score = ob.scorer("typicality").fitted(columns[0])
    assert own[0] == pytest.approx(score(columns[1]))
    assert ob.auroc(*own).value == pytest.approx(
        ob.auroc(score(columns[1]), score(columns[2])).value
    )


def test_flat_rows_and_whole_numbers_are_images(detector, images):
    as_images = detector.fit(images).score_samples(images)
    flat = images.reshape(len(images), -1)
    for same in (flat, flat.astype(np.float64), images.astype(np.int64)):
        assert detector.fit(same).score_samples(same) == pytest.approx(as_images)
    assert detector.n_features_in_ == 16


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda x: x / 255.0, "no whole numbers 0…255"),
    (lambda x: x.astype(int) + 1, "no whole numbers 0…255"),
    (lambda x: x[:, :, :3], r"X has 12 features, but OutlierDetector is expecting 16 features as input: images of shape"),
    (lambda x: x.transpose(0, 2, 3, 1), r"images of shape \(1, 4, 4\), not \(4, 4, 1\)"),
])  # fmt: skip
def test_what_is_no_image_is_refused(detector, images, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        detector.fit(change(images))


def test_what_cannot_be_is_said(images, detector):
    with pytest.raises(ModelError, match="needs a model"):
        ob.OutlierDetector().fit(images)
    with pytest.raises(ScorerError, match="this model has no background model"):
        detector.set_params(scorer="likelihood-ratio").fit(images)
    with pytest.raises(ValueError, match="contamination"):
        detector.set_params(scorer="likelihood", contamination=0.0).fit(images)


class OfReals(ob.OutlierDetector):
    """A detector whose images are made of scikit-learn's real-valued rows, of any width; all else is the class's own."""

    def _density(self):
        return None

    def _images(self, given):
        rows = check_array(given, ensure_min_samples=2 if not hasattr(self, "offset_") else 1)
        if rows.shape[1] < 2 and not hasattr(self, "offset_"):
            raise ValueError("Found array with 1 feature(s), while a minimum of 2 is required")
        levels = np.clip(128 + 20 * rows, 0, 255).astype(np.uint8)
        return levels.reshape(len(rows), 1, 1, -1)


@estimator_checks.parametrize_with_checks([OfReals(scorer="pixel-mean")])
def test_estimator_checks(estimator, check):
    check(estimator)
