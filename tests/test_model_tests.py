"""What `oodbench check` says of a person's model: it measures as runs do, and names the likely cause."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.errors import ScorerError
from oodbench.model_tests import check_model, measured
from oodbench.registry import register_model
from oodbench.runner import Options, run_suite
from oodbench.suite import Suite
from oodbench.testing import PixelHistogram, UniformModel, check

DIMS = 784
REF = ob.load_images("fashionmnist/ref[:300]").images


class Histogram(PixelHistogram):
    """Independent pixels; ``change`` is what a person gets wrong."""

    trained_on = "fashionmnist"

    def __init__(self, change=lambda log_prob: log_prob):
        super().__init__(REF)
        self.change = change

    def log_prob(self, images):
        return self.change(super().log_prob(images))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v / math.log(2), "as they would be if these were bits"),
        (lambda v: v / DIMS, "is it divided by their number"),
        (lambda v: v / (DIMS * math.log(2)), "is it divided by their number"),
        (lambda v: v.exp(), "between 0 and 1, as probabilities are"),
        (lambda v: v * 0 - 1.0, "every image, noise too, is given the same -1"),
        (lambda v: v + DIMS * math.log(256), r"D·log 256 .* may be missing \(with it, 4\.\d\d bits/dim"),
        (lambda v: -v, "wrong sign"),
        (lambda v: v.numpy(), r"returns a numpy array; return a tensor: torch\.from_numpy"),
        (lambda v: v.tolist(), r"returns a list, .*torch\.tensor\(…, dtype=torch\.float64\)"),
        (lambda v: (v, {}), "returns a tuple; return the log-probabilities alone"),
        (lambda v: None, "returns None; is a `return` missing"),
        (lambda v: v[:, None], r"returns shape \(64, 1\) for 64 images"),
        (lambda v: v.mean(), "one number for the whole batch"),
        (lambda v: v.float(), "sum in float64"),
        (lambda v: v * torch.nan, "64 of 64 log-probabilities are NaN or infinite"),
    ],
)  # fmt: skip
def test_each_fault_is_one_sentence_with_its_cause(change, said):
    (fault,) = check_model(Histogram(change))
    assert re.search(said, fault)


def test_models_without_a_fault_have_none():
    assert check_model(Histogram()) == []
    assert check_model(UniformModel((3, 32, 32))) == []


def test_a_model_that_wants_floats_is_told_what_comes():
    class Wants(Histogram):
        def log_prob(self, images):
            assert images.is_floating_point(), "expected floats"
            return super().log_prob((images * 255).byte())

    (fault,) = check_model(Wants())
    assert "raises AssertionError: expected floats" in fault
    assert "levels 0 … 255, and scaling them belongs inside" in fault


class Differentiating(Histogram):
    """A gradient inside log_prob, with or without asking for gradients first, as continuous flows and score models have."""

    def __init__(self, asks):
        super().__init__()
        self.asks = asks

    def log_prob(self, images):
        context = (
            torch.enable_grad() if self.asks else torch.set_grad_enabled(torch.is_grad_enabled())
        )
        with context:
            y = (images.double() / 255).requires_grad_()
            (gradient,) = torch.autograd.grad((y**2).sum(), y)
        return super().log_prob(images) - 1e-3 * gradient.flatten(1).pow(2).sum(1)


@pytest.mark.parametrize("asks", [True, False])
def test_a_gradient_inside_log_prob_works_in_check_and_in_runs(asks, images_few):
    model = Differentiating(asks)
    assert check_model(model) == []
    found = ob.measure(model, images_few, "log_prob")["log_prob"]
    y = images_few.images.astype(float).reshape(len(images_few), -1) / 255
    expected = measured(Histogram(), images_few.images) - 1e-3 * (4 * y**2).sum(1)
    assert np.allclose(found, expected, rtol=1e-12)


@pytest.fixture
def images_few():
    return ob.load_images("fashionmnist/test[:5]")


def test_a_column_is_no_log_prob_in_a_run_either(images_few):
    with pytest.raises(ScorerError, match=r"log_prob has shape \(5, 1\) for 5 images"):
        ob.measure(Histogram(lambda v: v[:, None]), images_few, "log_prob")


PLUGIN = """
import torch, oodbench as ob

@ob.register_model("checked-order")
class Order:
    '''Pixels in an order drawn when it is made.'''
    shape, likelihood, trained_on = (1, 28, 28), "bound", "fashionmnist"

    def __init__(self):
        SEED
        self.order = torch.randperm(784)

    def log_prob(self, images):
        drawn = images.double().flatten(1)[:, self.order]
        return -(drawn.diff(dim=1).abs() + 1).log().sum(1) - 784
"""


@pytest.mark.parametrize(("seed", "faults"), [("pass", 1), ("torch.manual_seed(0)", 0)])
def test_an_order_that_is_not_saved_is_found_by_making_the_model_again(tmp_path, seed, faults):
    path = tmp_path / "order.py"
    name = f"checked-order-{faults}"
    path.write_text(PLUGIN.replace("SEED", seed).replace("checked-order", name))
    found, checked = check(str(path))
    assert checked == [name]
    assert len(found) == faults
    for fault in found:
        assert "made again it gives other numbers, by up to" in fault
        assert "an order of pixels, a permutation, weights" in fault


def test_what_only_a_worker_process_makes_otherwise_is_found_there(tmp_path):
    path = tmp_path / "order.py"
    own = "import os; torch.manual_seed(os.getpid())"
    path.write_text(PLUGIN.replace("SEED", own).replace("checked-order", "checked-worker"))
    (fault,), _ = check(str(path))
    assert "made again, in another process, it gives other numbers" in fault


def test_a_name_that_is_no_set_is_told_once(tmp_path):
    path = tmp_path / "named.py"
    path.write_text(
        PLUGIN.replace("SEED", "torch.manual_seed(0)")
        .replace("checked-order", "checked-named")
        .replace('"fashionmnist"', '"FashionMNIST"')
    )
    (fault,), _ = check(str(path))
    assert fault.startswith("checked-named: trained_on: no image set is called 'FashionMNIST'; did")


def test_a_run_marks_an_exact_model_above_all_probability_as_failed(home, tmp_path):
    register_model("exact-above")(lambda: Histogram(lambda v: v + DIMS * math.log(256)))
    register_model("bound-above")(bound_above)
    suite = Suite(
        name="above", title="t", models=["exact-above", "bound-above"], limit=6, bootstrap=0,
        scorers=["likelihood", "pixel-mean"], pairs=[{"in_dist": "fashionmnist", "ood": ["mnist"]}],
    )  # fmt: skip
    rows = run_suite(suite, Options(), tmp_path / "out")
    status = {(row["model"], row["scorer"]): row["status"] for row in rows}
    assert status == {
        ("exact-above", "likelihood"): "failed", ("exact-above", "pixel-mean"): "ok",
        ("bound-above", "likelihood"): "ok", ("bound-above", "pixel-mean"): "ok",
    }  # fmt: skip
    (reason,) = (row["reason"] for row in rows if row["status"] == "failed")
    assert "says that it is exact, but gives -3." in reason
    assert "D·log 256" in reason


def bound_above():
    model = Histogram(lambda v: v + DIMS * math.log(256))
    model.likelihood = "a bound"
    return model
