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
from oodbench.passes.values import ImageRef
from oodbench.plan import make_plan
from oodbench.registry import lent_model, scorers, statistics
from oodbench.resolver import InDist, Resolver, resolved_images
from oodbench.statistics import linear, reference, whiteness
from oodbench.store import is_bar
from oodbench.suite import Pair, Suite, load_suite
from oodbench.testing import UniformModel
from oodbench.trials.rows import skip_rows, trial_tasks
from oodbench.work import shard_tasks

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
    height, width = image.shape[1:]
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
    slow = [min(math.sqrt(((a / 255.0 - b / 255.0) ** 2).sum()) for b in known) for a in given]
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


# -- all of them ------------------------------------------------------------------------------------------------------------


def aurocs(names, train, known, test, oods):
    """OOD set → scorer → AUROC, of scorers that are fitted and prepared on plain arrays."""
    needs = {need for name in names for need in scorers[name].all_needs}
    passes = {statistics[need].name: statistics[need] for need in needs}
    sides = {"ref": known, "test": test, **oods}
    columns = {side: {} for side in sides}
    for entry in passes.values():
        state = prepare(entry, None, known if entry.prepared_on == "ref" else train)
        for side, images in sides.items():
            columns[side] |= run_pass(entry, None, images, state)
    fitted = {name: scorers[name].fitted(columns["ref"]) for name in names}
    return {
        ood: {
            name: auroc_of(score, columns["test"], columns[ood]) for name, score in fitted.items()
        }
        for ood in oods
    }


def auroc_of(score, test, ood):
    return ob.auroc(score(test), score(ood)).value


MEASURED = [name for name in FREE if "jxl" not in name]


def test_every_baseline_wins_where_ood_images_are_far_in_what_it_measures(random):
    shape = (1, 8, 8)
    train, known, test = (smooth(random, n) for n in (400, 60, 40))
    far = {
        "noise": random.integers(0, 256, (40, *shape)),
        "stripes": np.broadcast_to((np.arange(8) % 4) // 2 * 200, (40, *shape)),
        "black": np.zeros((40, *shape)),
        "white": np.full((40, *shape), 255),
    }
    oods = {kind: np.array(images, np.uint8) for kind, images in far.items()}
    found = aurocs(MEASURED, train, known, test, oods)
    assert min(max(found[kind][name] for kind in far) for name in MEASURED) > 0.97
    blind = {"pixel-mean-two-sided"}  # stripes are as bright as the others
    looking = {*WITH_REFERENCE, *LINEAR} & {*MEASURED} - blind
    assert min(found["stripes"][name] for name in looking) > 0.95
    assert found["noise"]["code-length-png"] == 1 == found["stripes"]["code-length-png-short"]
    assert found["noise"]["pixel-variance"] == 1 == found["black"]["pixel-variance-low"]
    assert found["white"]["pixel-mean"] == 1 == found["black"]["pixel-mean-low"]


def shrunk(images, by):
    """Smaller images: each pixel the rounded mean of ``by × by``."""
    n, channels, height, width = images.shape
    squares = images.reshape(n, channels, height // by, by, width // by, by)
    return np.rint(squares.mean((3, 5))).astype(np.uint8)


GOLDEN = {
    ("fashionmnist", "mnist", 2): {
        "linear-mahalanobis": 0.879,
        "linear-mahalanobis-two-sided": 0.865,
        "linear-residual-whiteness": 0.619,
        "linear-whiteness": 0.561,
        "linear-whiteness-mahalanobis": 0.817,
        "linear-whiteness-rows": 0.650,
    },
    ("cifar10", "svhn", 4): {
        "linear-mahalanobis": 0.129,
        "linear-mahalanobis-two-sided": 0.660,
        "linear-residual-whiteness": 0.792,
        "linear-whiteness": 0.641,
        "linear-whiteness-mahalanobis": 0.525,
        "linear-whiteness-rows": 0.812,
    },
}
"""AUROC of the linear baselines on images of less than 200 numbers: 400 of ``ref`` prepare, the others fit, 100 are judged."""


def golden(in_dist, ood, by):
    ref, test = (ob.load_images(f"{in_dist}/{split}") for split in ("ref", "test"))
    other = ob.load_images(f"{ood}/test", shape=ref.shape)
    images = ref.images[:400], ref.images[400:], test.drawn(100).images, other.drawn(100).images
    train, known, tested, others = (shrunk(one, by) for one in images)
    return aurocs(LINEAR, train, known, tested, {ood: others})[ood]


@pytest.mark.parametrize("pair", GOLDEN)
def test_golden_aurocs_of_real_images(pair):
    assert golden(*pair) == pytest.approx(GOLDEN[pair], abs=0.0015)


# -- in a run ---------------------------------------------------------------------------------------------------------------


class Flat(UniformModel):
    """Every image of 8 × 8 grey pixels equally likely."""

    def __init__(self):
        super().__init__((1, 8, 8))


def own_run(folder, images, ood, names):
    """Scorer → row of a run on own images, without pages and figures."""
    for name, pixels in (("own", images), ("other", ood)):
        np.save(folder / f"{name}.npy", pixels)
    with lent_model(Flat()) as model:
        pair = Pair(
            in_dist=str(folder / "own.npy"), ood=[str(folder / "other.npy")], models=[model]
        )
        plan = make_plan(Suite(name="own", title="", models=[model], pairs=[pair], scorers=names))
        for task in (task for one in plan.passes for task in shard_tasks(one)):
            task.perform()
        rows = [task.perform().row for task in trial_tasks(plan)] + skip_rows("own", plan.skips)
    return {row["scorer"]: row for row in rows}


def test_linear_baselines_run_where_train_is_here_and_say_what_they_saw(home, tmp_path, random):
    stripes = np.broadcast_to((np.arange(8) % 4) // 2 * 200, (60, 1, 8, 8)).astype(np.uint8)
    names = [*LINEAR, "nearest-pixels", "code-length-png-two-sided", "code-length-png"]
    found = own_run(tmp_path, smooth(random, 400), stripes, names)
    assert {row["status"] for row in found.values()} == {"ok"}
    assert {row["baseline"] for row in found.values()} == {True}
    assert all(found[name]["auroc"] > 0.95 for name in names[:-1])
    told = {name: (row["tunes_on"], row["ref_division"]) for name, row in found.items()}
    assert told["linear-whiteness"] == ("in-dist train", None)
    assert told["linear-mahalanobis-two-sided"][0] == "in-dist train"
    assert told["linear-mahalanobis-two-sided"][1].startswith("all of ref fits and scores")
    assert told["nearest-pixels"] == ("in-dist ref", "all of ref prepares")
    assert told["code-length-png"] == ("none", None)
    hashed = [name for name, row in found.items() if "train" in row["inputs"]["images"]]
    assert sorted(hashed) == LINEAR
    kept = list((home / "prepared").rglob("*.npz"))
    assert len(kept) == 2  # of the linear pass and of the neighbours


def test_linear_baselines_are_skipped_where_train_is_small_or_not_here(tmp_path, random):
    found = own_run(tmp_path, smooth(random, 70), smooth(random, 20), ["linear-whiteness"])
    few = found["linear-whiteness"]
    assert few["status"] == "skipped"
    assert "on at least 65 in-dist train images of 64 numbers each" in few["reason"]
    plan = make_plan(load_suite("field"), ["glow-fashionmnist", "linear-mahalanobis", "mnist"])
    (skip,) = plan.skips
    assert "fitted on in-dist training images, and fashionmnist/train is not on" in skip.reason


def test_columns_of_prepared_passes_are_known_by_the_images_that_prepared_them(random):
    images = smooth(random, 90)
    changed = images.copy()
    changed[5, 0, 0, 0] ^= 1

    def resolved(pixels, split):
        return resolved_images(ImageRef(split, (1, 8, 8)), set_of(pixels, split))

    def keys(need, ref, train):
        in_dist = InDist(resolved(ref, "ref"), resolved(train, "train"))
        resolver, model = Resolver(0, "cpu"), None
        (one,) = resolver.passes_of(model, need, resolved(images, "test"), in_dist)
        return one.keys

    for need, of_ref, of_train in (
        ("linear_whiteness", False, True),
        ("nearest_pixel_distance", True, False),
        ("pixel_mean", False, False),
    ):
        before = keys(need, images, images)
        assert (keys(need, changed, images) != before) is of_ref
        assert (keys(need, images, changed) != before) is of_train


def row(baseline, tunes_on, ref=None):
    return {"baseline": baseline, "tunes_on": tunes_on, "ref": ref}


def test_a_baseline_bars_the_scorers_that_see_no_less_than_it():
    likelihood, typicality = row(False, "none"), row(False, "in-dist ref", "set/ref")
    prepared, tuned = row(False, "in-dist ref", "set/ref"), row(False, "validation OOD", "set/ref")
    length, two_sided = row(True, "none"), row(True, "in-dist ref", "set/ref")
    linear_alone, linear_fitted = row(True, "in-dist train"), row(True, "in-dist train", "set/ref")
    for one in (likelihood, typicality, prepared, tuned):
        assert is_bar(length, one)
        assert is_bar(linear_alone, one)
        assert is_bar(two_sided, one) is is_bar(linear_fitted, one) is (one is not likelihood)
        assert not is_bar(one, likelihood)
    assert not is_bar(length, two_sided)
