"""The ladder of corruptions, and flipped and turned images: what each view does, and that it is a function of the image."""

from __future__ import annotations

import numpy as np
import pytest

import oodbench as ob
from oodbench.data.corruptions import KINDS, STRENGTHS, corrupted, rung
from oodbench.data.views import alteration, apply_view, until_corruption
from oodbench.errors import DataError

RANDOM = {"gaussnoise", "shotnoise", "impulse", "speckle", "fog"}
COLOUR = ob.load_images("cifar10/test[:40]").images
GREY = ob.load_images("fashionmnist/test[:40]").images


def changed(images: np.ndarray, operation: str) -> float:
    """Root mean square of what an operation does to the levels."""
    return float(np.sqrt(((corrupted(images, operation) - images.astype(float)) ** 2).mean()))


def test_there_are_ten_kinds_and_more_of_five_strengths():
    assert len(KINDS) >= 10
    assert all(len(kind.values) == len(STRENGTHS) == 5 for kind in KINDS.values())


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_strength_changes_more_than_the_one_before(kind, images):
    if kind == "faded" and images.shape[1] == 1:
        pytest.skip("grey images have no colour to lose")
    found = [changed(images, f"{kind}{strength}") for strength in STRENGTHS]
    assert found[0] > 0.5
    if (
        kind == "pixelate"
    ):  # 30 of 32 pixels on a side blur more than 27 do where edges fall together
        found = [found[0], found[-1]]
    assert found == sorted(found)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_corruption_is_a_function_of_the_image_alone(kind):
    view = f"{kind}3"
    before = COLOUR.copy()
    whole = corrupted(COLOUR, view)
    order = np.random.default_rng(0).permutation(len(COLOUR))
    assert np.array_equal(corrupted(COLOUR[order], view), whole[order])
    assert np.array_equal(np.concatenate([corrupted(one[None], view) for one in COLOUR]), whole)
    assert np.array_equal(COLOUR, before)
    many = np.concatenate([COLOUR] * 7)  # more than a block
    assert np.array_equal(corrupted(many, view)[-len(COLOUR) :], whole)


@pytest.mark.parametrize("kind", sorted(RANDOM))
def test_noise_differs_between_images(kind):
    flat = np.full((2, 3, 32, 32), 120, np.uint8)
    flat[1, 0, 0, 0] = 121
    one, other = corrupted(flat, f"{kind}3").astype(int)
    assert (one != other).mean() > 0.02


def test_noise_has_the_deviation_that_its_table_says():
    flat = np.full((20, 3, 32, 32), 128, np.uint8)
    for image, level in zip(flat, range(110, 130), strict=True):
        image[0, 0, 0] = level
    for strength, deviation in zip(STRENGTHS, KINDS["gaussnoise"].values, strict=True):
        noisy = corrupted(flat, f"gaussnoise{strength}").astype(float)
        assert noisy.mean() == pytest.approx(128, abs=0.5)
        assert noisy.std() == pytest.approx(255 * deviation, rel=0.02)
    shot = corrupted(flat, "shotnoise5").astype(float)
    assert shot.std() == pytest.approx(255 * np.sqrt(128 / 255 / 50), rel=0.03)  # Poisson of 25
    assert shot.mean() == pytest.approx(128, abs=1)
    salted = corrupted(flat, "impulse5")
    assert ((salted == 0) | (salted == 255)).mean() == pytest.approx(0.07, abs=0.005)


def test_blurs_keep_the_mean_and_spread_a_point():
    point = np.zeros((1, 1, 21, 21), np.uint8)
    point[0, 0, 10, 10] = 255
    blurred = corrupted(point, "blur5").astype(float)[0, 0]
    assert blurred[10, 10] == pytest.approx(255 / (2 * np.pi), abs=1.5)  # a Gaussian of one pixel
    assert blurred[10, 11] == pytest.approx(blurred[10, 10] * np.exp(-0.5), abs=1)
    moved = corrupted(point, "motion1")[0, 0]
    assert moved[10].tolist() == [0] * 9 + [85] * 3 + [0] * 9
    flat = np.full((1, 3, 32, 32), 77, np.uint8)
    for kind in ("blur", "defocus", "motion", "pixelate"):
        assert np.array_equal(corrupted(flat, f"{kind}5"), flat)


def test_contrast_brightness_and_colour():
    assert np.array_equal(
        corrupted(COLOUR, "brighter5").astype(int), np.rint(COLOUR + 76.5).clip(0, 255).astype(int)
    )
    pale = corrupted(COLOUR, "contrast5")
    assert pale.astype(float).std((2, 3)) == pytest.approx(0.15 * COLOUR.std((2, 3)), abs=0.4)
    grey = corrupted(COLOUR, "faded5")
    assert np.array_equal(grey[:, 0], grey[:, 1])
    with pytest.raises(DataError, match="grey images have none"):
        corrupted(GREY, "faded1")


def test_views_turn_and_mirror():
    image = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4)
    assert apply_view(image, "hflip")[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert apply_view(image, "vflip")[0, 0, :, 0].tolist() == [8, 4, 0]
    assert apply_view(image, "rot90")[0, 0, 0].tolist() == [3, 7, 11]
    assert np.array_equal(apply_view(image, "rot90,rot270"), image)
    assert np.array_equal(apply_view(image, "rot180"), apply_view(image, "hflip,vflip"))


def test_what_is_drawn_is_corrupted():
    view = "cifar10/test[:30]@noise"
    images = ob.load_images(view.replace("noise", "blur3"))
    assert images.identifier == "cifar10/test[first 2000][30 drawn]@blur3"
    plain = ob.load_images("cifar10/test[:30]")
    assert np.array_equal(images.images, corrupted(plain.images, "blur3"))
    again = ob.load_images(images.identifier)
    assert again.sha256 == images.sha256
    assert not images.images.flags.writeable
    padded = ob.load_images("mnist/test[:5]@blur2,pad32,rgb", shape=(3, 32, 32))
    assert padded.shape == (3, 32, 32)
    with pytest.raises(DataError, match="has shape"):
        ob.load_images("mnist/test[:5]@blur2", shape=(3, 32, 32))


def test_views_are_taken_apart():
    assert until_corruption("pad32,rgb") == ("pad32,rgb", "")
    assert until_corruption(None) == (None, "")
    assert until_corruption("grey,blur3,pad32") == ("grey", "blur3,pad32")
    assert rung("cifar10/test[first 2000]@grey,blur3") == ("blur", 3)
    assert rung("cifar10/test@hflip") is rung("blur3") is rung("cifar10@blur1,jpeg2") is None
    assert alteration("pad32,rgb") == ""
    assert alteration("hflip,pad32,jpeg2") == "hflip,jpeg2"
