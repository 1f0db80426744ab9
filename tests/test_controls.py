"""What controls are made of: parts of a set, models before training, and pictures that lost resolution."""

from __future__ import annotations

import numpy as np
import pytest

from oodbench.data.identifiers import parse_identifier
from oodbench.data.images import load_images
from oodbench.data.views import alteration
from oodbench.errors import DataError, OodbenchError
from oodbench.plan import make_plan
from oodbench.suite import load_suite
from oodbench.zoo.describe import describe
from oodbench.zoo.load import load_model


@pytest.fixture
def stored(tmp_path):
    images = np.arange(11, dtype=np.uint8)[:, None, None, None].repeat(28, 2).repeat(28, 3)
    np.savez(tmp_path / "own_test.npz", images=images[:, 0])
    return str(tmp_path / "own_test.npz")


def test_parts_share_no_image_and_are_all(stored):
    parts = [load_images(f"{stored}/all[part {k} of 3]").images[:, 0, 0, 0] for k in (1, 2, 3)]
    assert sorted(map(len, parts)) == [3, 4, 4]
    assert sorted(np.concatenate(parts)) == list(range(11))


def test_a_draw_of_a_part_is_of_that_part(stored):
    whole, drawn = (load_images(f"{stored}/all[part 2 of 2]{n}") for n in ("", "[2 drawn]"))
    assert np.array_equal(drawn.images, whole.images[:2])
    assert drawn.identifier.endswith("/all[part 2 of 2][2 drawn]")


def test_a_part_is_found_by_its_identifier():
    found = load_images("mnist/test[part 1 of 2][20 drawn]")
    assert found.identifier == "mnist/test[first 2000][part 1 of 2][20 drawn]"
    assert load_images(found.identifier).sha256 == found.sha256
    assert str(parse_identifier(found.identifier)) == found.identifier


def test_there_is_no_third_half():
    with pytest.raises(DataError, match=r"part 3 of 2; the parts are 1 to 2"):
        parse_identifier("mnist[part 3 of 2]")


def test_resolution_that_is_lost_makes_other_pictures():
    assert alteration("resize14-box-aa,resize28-bilinear") == "resize14-box-aa"
    assert alteration("resize28-bilinear,rgb") == ""


def test_an_untrained_model_is_its_own():
    """It differs from the trained one, comes out alike each time, and gives finite log-probabilities."""
    trained, untrained = describe("glow-fashionmnist"), describe("untrained:glow-fashionmnist")
    assert (untrained.name, untrained.trained_on) == ("glow-fashionmnist-untrained", "fashionmnist")
    assert untrained.identity() != trained.identity()
    describe.cache_clear()
    assert describe("untrained:glow-fashionmnist").identity() == untrained.identity()
    images = load_images("fashionmnist/test[8 drawn]").images
    log_prob, of_trained = (
        load_model(name).log_prob(load_tensor(images))
        for name in ("untrained:glow-fashionmnist", "glow-fashionmnist")
    )
    assert log_prob.isfinite().all()
    assert (log_prob < of_trained).all()


def load_tensor(images):
    import torch

    return torch.from_numpy(np.array(images))


def test_no_such_model_has_an_untrained_one():
    with pytest.raises(OodbenchError, match="glow-fashionmist"):
        describe("untrained:glow-fashionmist")


def test_the_suite_plans_every_control():
    plan = make_plan(load_suite("controls"))
    pairs = {(trial.model.name, trial.test.name, trial.ood.name) for trial in plan.trials}
    for family in ("glow", "pixelcnn", "vae"):
        for name, other in (("fashionmnist", "mnist"), ("cifar10", "svhn")):
            for model in (f"{family}-{name}", f"{family}-{name}-untrained"):
                assert {(model, name, other), (model, name, f"{other}-half")} <= pairs
            halves = (f"{name}-first-half", f"{name}-second-half")
            assert (f"{family}-{name}", *halves) in pairs
    seen = {
        trial.ood.name for trial in plan.trials if trial.seen and trial.scorer.name == "likelihood"
    }
    assert seen == {"fashionmnist-second-half", "cifar10-second-half"}
