"""Golden numbers of the shipped weights: a change of arithmetic, noise or decoding shows here first."""

from __future__ import annotations

import pytest

import oodbench as ob

LOG_PROB = {
    "glow-cifar10": [-5127.5700, -5018.5030, -5588.9179],
    "glow-cifar10-background": [-9073.0574, -7802.7048, -8136.2800],
    "glow-fashionmnist": [-832.9727, -1120.2496, -531.1193],
    "glow-fashionmnist-background": [-1084.9702, -1357.2872, -795.3200],
    "glow-mnist": [-629.5188, -841.8363, -395.8392],
    "pixelcnn-fashionmnist": [-702.4109, -943.6719, -409.2861],
    "pixelcnn-fashionmnist-background": [-864.0297, -1087.3254, -587.2486],
    "vae-fashionmnist": [-949.6801, -1237.8484, -556.8943],
}
"""First three MNIST (28×28) or SVHN (32×32) test images, nats, seed 0."""


@pytest.mark.parametrize("name", LOG_PROB)
def test_log_prob_of_the_first_test_images(name):
    model = ob.load_model(name)
    images = ob.load_images(f"{'mnist' if model.shape[0] == 1 else 'svhn'}/test[:3]", like=model)
    assert ob.measure(model, images, "log_prob")["log_prob"] == pytest.approx(LOG_PROB[name], rel=1e-5)
