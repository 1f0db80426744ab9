"""Contraction of a set towards mid-grey and towards its own mean: the pixels, the plan, the rows, and the words."""

from __future__ import annotations

import numpy as np
import pytest

import oodbench as ob
from oodbench.analysis import explain as page
from oodbench.analysis.contraction import changes, factors, moderate
from oodbench.analysis.expected import Expected
from oodbench.data.images import ImageSet
from oodbench.data.views import shrunk
from oodbench.errors import DataError
from oodbench.passes.shards import open_images
from oodbench.plan import make_plan
from oodbench.suite import Analysis, Pair, Suite
from oodbench.testing import UniformModel


def test_a_set_shrinks_towards_its_own_mean_in_whole_levels(random):
    images = random.integers(0, 256, (37, 3, 6, 6)).astype(np.uint8)
    assert np.array_equal(shrunk(images, 100), images)
    mean = images.astype(float).mean(0)
    assert np.abs(shrunk(images, 0) - mean).max() <= 0.5
    assert len(np.unique(shrunk(images, 0), axis=0)) == 1
    for percent in (25, 50, 87):
        exact = mean + percent / 100 * (images - mean)
        found = shrunk(images, percent)
        assert found.dtype == np.uint8
        assert np.abs(found - exact).max() <= 0.5 + 1e-9
        assert found.mean() == pytest.approx(images.mean(), abs=0.1)
        assert found.var(0).sum() == pytest.approx(
            (percent / 100) ** 2 * images.var(0).sum(), rel=0.01
        )


def test_halves_are_rounded_up():
    images = np.uint8([[[[0]]], [[[1]]], [[[2]]], [[[3]]]])  # the mean is 1.5
    assert shrunk(images, 0).ravel().tolist() == [2, 2, 2, 2]
    assert shrunk(images, 50).ravel().tolist() == [1, 1, 2, 2]  # .75, 1.25, 1.75, 2.25


def test_an_image_set_is_seen_through_a_further_view(random):
    images = random.integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)
    whole = ImageSet("a", "test", "rgb", images, 6)
    few = whole.drawn(4)
    shrink = few.through("shrink50")
    assert shrink.identifier == "a/test[4 drawn]@rgb,shrink50"
    assert np.array_equal(shrink.images, shrunk(few.images, 50))
    assert not np.array_equal(shrink.images, shrunk(images, 50)[few.drawn_rows(4)])
    grey = few.through("contract50")
    assert grey.identifier == "a/test[4 drawn]@rgb,contract50"
    with pytest.raises(DataError, match="no view operation is called 'shrink101'"):
        few.through("shrink101")


def test_no_identifier_asks_for_the_mean_of_what_is_yet_to_be_drawn():
    with pytest.raises(DataError, match=r"call `\.through\('shrink50'\)`"):
        ob.load_images("mnist/test[:20]@shrink50")


def test_the_plan_contracts_as_many_images_as_the_setting_says_towards_both_centres():
    settings = Analysis(images=9, gray=(25, 50), gray_images=6, samples=0, probes=4)
    suite = Suite(
        name="t", title="t", models=["glow-cifar10"], limit=10, bootstrap=0, analysis=settings,
        pairs=[Pair(in_dist="cifar10", ood=["mnist"])], scorers=["likelihood"],
    )  # fmt: skip
    (subject,) = make_plan(suite).subjects
    (ood,) = subject.oods
    assert set(subject.grayed[ood]) == {"contract25", "contract50", "shrink25", "shrink50"}
    drawn = open_images(ood.ref).images[:6]
    found = open_images(subject.grayed[ood]["shrink25"].ref)
    assert found.identifier == "mnist/test[first 2000][6 drawn]@pad32,rgb,shrink25"
    assert np.array_equal(found.images, shrunk(drawn, 25))
    labels = {subject.density[one].label for one in subject.grayed[ood].values()}
    plain = "density of glow-cifar10 on mnist/test[first 2000][6 drawn]@pad32,rgb, contracted"
    assert labels == {plain}


def test_both_centres_cost_what_one_did():
    settings = Analysis()
    assert 2 * settings.gray_images == settings.images


def test_changes_are_paired_image_by_image(random):
    as_it_is = random.normal(-1000, 500, 50)
    by = {
        "contract50": as_it_is + 3,
        "shrink50": as_it_is - 2,
        "shrink12": as_it_is,
        "test": as_it_is,
    }
    grey, own = (changes(as_it_is, factors(by, centre)) for centre in ("contract", "shrink"))
    assert grey.keys() == {50}
    assert own.keys() == {50, 12}
    assert grey[50].value == pytest.approx(3)
    assert own[50].value == pytest.approx(-2)
    assert own[50].error < 1e-9  # unpaired it would be 100
    assert moderate(own).keys() == {50}


class Bell(UniformModel):
    """An isotropic bell about mid-grey, for which less variance is likelier wherever the mean stays."""

    def log_prob(self, images):
        return -((images.flatten(1).double() / 127.5 - 1) ** 2).sum(1)


def claimed(model, random, factor=1):
    images = 128 + factor * random.integers(-40, 40, (30, 1, 28, 28))
    sets = [ImageSet(name, "test", "", images.astype(np.uint8), 30) for name in ("a", "b")]
    columns = [page._log_prob(model, one) for one in sets]
    return list(page._contraction(model, sets, columns))[-1]


def test_the_claim_holds_for_a_bell_and_is_undecided_for_a_uniform_density(random):
    assert claimed(Bell(), random).startswith("The claim that less variance is likelier holds here")
    assert "is undecided here" in claimed(UniformModel(), random)

    class Bowl(Bell):
        def log_prob(self, images):
            return -super().log_prob(images)

    assert "does not hold here" in claimed(Bowl(), random)


@pytest.mark.parametrize(
    ("of_in", "of_ood", "expected"),
    [
        (9, 9, "holds here"),
        (9, 1, "holds where it is decided here"),
        (9, -9, "does not hold throughout here"),
        (1, -9, "does not hold where it is decided here"),
        (-9, -9, "does not hold here"),
        (1, 1, "is undecided here"),
    ],
)
def test_the_claim_is_judged_on_both_sets(of_in, of_ood, expected):
    told = page._claim({50: Expected(of_in, 1)}, {50: Expected(of_ood, 1)})
    assert told.startswith(
        f"The claim that less variance is likelier {expected}: of the in-dist set contraction "
    )


def test_the_claim_says_what_each_set_does():
    told = page._claim({50: Expected(9, 1)}, {50: Expected(-9, 1)})
    assert told.endswith(
        "of the in-dist set contraction raises log p; of the OOD set it lowers log p."
    )
