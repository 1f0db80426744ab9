"""What figures draw: histograms over one span, ROC curves, scatter plots, moments of pixels, image grids."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from oodbench.metrics.ranking import area_under_roc
from oodbench.trials.curves import grid, histograms, pixel_moments, roc, scatter


def test_each_value_is_counted_once(random):
    sets = {"a": random.normal(0, 1, 1000), "b": random.normal(3, 1, 500)}
    found = json.loads(json.dumps(histograms(sets, bins=30)))
    low, high = found["span"]
    for one, values in zip(found["sets"], sets.values()):
        within = (values >= low) & (values <= high)
        assert (sum(one["counts"]), one["outside"]) == (within.sum(), (~within).sum())
        assert one["counts"] == np.histogram(values[within], 30, (low, high))[0].tolist()
        assert (one["n"], one["not_finite"], one["median"]) == (len(values), 0, np.median(values))
    ends = np.quantile(sets["a"], 0.005), np.quantile(sets["b"], 0.995)
    margin = 0.05 * (ends[1] - ends[0])
    assert found["span"] == pytest.approx([ends[0] - margin, ends[1] + margin])


def test_a_far_outlier_leaves_the_others_their_bins(random):
    values = np.append(random.normal(0, 1, 20), -1e20)
    found = histograms({"a": values})
    assert found["span"][0] > -20
    assert found["sets"][0]["outside"] == 1


def test_values_that_are_not_finite_are_counted_and_left_out(random):
    holed = random.normal(0, 1, 100)
    plain = histograms({"a": holed[3:]})
    holed[:3] = np.nan, np.inf, -np.inf
    found = histograms({"a": holed})
    assert found["span"] == plain["span"]
    assert found["sets"] == [{**plain["sets"][0], "n": 100, "not_finite": 3}]


@pytest.mark.parametrize("values", [[np.nan, np.inf], []])
def test_a_set_without_a_finite_value_is_no_error(values):
    found = histograms({"a": np.array(values)}, bins=2)
    assert found["span"] is None
    assert found["sets"][0] == {
        "set": "a",
        "n": len(values),
        "not_finite": len(values),
        "outside": 0,
        "counts": [0, 0],
        "median": None,
    }
    beside = histograms({"a": np.array(values), "b": np.zeros(5)}, bins=2)
    assert beside["sets"][0]["counts"] == [0, 0]
    assert sum(beside["sets"][1]["counts"]) == 5


@pytest.mark.parametrize("value", [0.0, 7.0, -1e20, 1e308, np.finfo(float).max, 5e-324])
def test_a_constant_of_any_size_has_a_histogram(value):
    found = histograms({"a": np.full(9, value), "b": np.full(3, value)})
    assert [sum(one["counts"]) for one in found["sets"]] == [9, 3]
    assert np.isfinite(found["span"]).all()
    wide = histograms({"a": np.array([-1.7e308, 1.7e308])})
    assert np.isfinite(wide["span"]).all()


def test_a_roc_curve_keeps_its_area(random):
    scores = random.normal(0, 1, 3000), random.normal(1, 1, 2000)
    found = roc(*scores)
    assert len(found["flagged"]) == len(found["caught"]) == 201
    assert (found["flagged"][0], found["caught"][0], found["flagged"][-1], found["caught"][-1]) == (
        0,
        0,
        1,
        1,
    )
    assert np.trapezoid(found["caught"], found["flagged"]) == pytest.approx(
        area_under_roc(*scores), abs=2e-3
    )


def test_few_scores_keep_all_their_thresholds():
    assert roc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == {
        "flagged": [0, 0, 0.5, 1],
        "caught": [0, 0.5, 1, 1],
    }


def test_a_scatter_plot_shows_the_first_finite_points():
    x, y = np.array([np.nan, 1, 2, 3, 4]), np.array([0, np.inf, 5, 6, 7.0])
    found = scatter(x, y, shown=2)
    assert (found["x"], found["y"], found["not_finite"]) == ([2, 3], [5, 6], 2)
    assert found["x_ends"] == pytest.approx((2.005, 2.995))
    assert scatter(x[:1], y[:1])["y_ends"] is None


def test_moments_of_pixels_are_exact(random):
    images = random.integers(0, 256, (1500, 3, 4, 4)).astype(np.uint8)
    found, scaled = pixel_moments(images), images.reshape(1500, -1) / 255.0
    assert found["mean"] == pytest.approx(scaled.mean(0), rel=1e-12)
    assert found["variance"] == pytest.approx(scaled.var(0), rel=1e-9)
    assert pixel_moments(np.full((9, 1, 2, 2), 255, np.uint8))["variance"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grid_holds_its_images_row_by_row(random, channels):
    images = random.integers(0, 256, (12, channels, 5, 4)).astype(np.uint8)
    content = grid(images, 10)
    assert content == grid(images, 10)
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert picture.shape == (2 * 5, 8 * 4, 3)
    shown = [0, 0, 0] if channels < 3 else [0, 1, 2]
    assert np.array_equal(picture[5:10, 4:8], images[9, shown].transpose(1, 2, 0))
    assert (picture[5:, 8:] == 255).all()
