"""Golden numbers of the shipped weights: a change of arithmetic, noise or decoding shows here first."""

from __future__ import annotations

import pytest

import oodbench as ob

LOG_PROB: dict[str, list[float]] = {}


@pytest.mark.parametrize("name", LOG_PROB)
def test_log_prob_of_the_first_test_images(name):
    model = ob.load_model(name)
    images = ob.load_images(f"{'mnist' if model.shape[0] == 1 else 'svhn'}/test[:3]", like=model)
    assert ob.measure(model, images, "log_prob")["log_prob"] == pytest.approx(LOG_PROB[name], rel=1e-5)
