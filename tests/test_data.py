"""Image sets: identity, splits, views, sources, and sentences for what is wrong."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import oodbench as ob
from oodbench.data import arrays, copies, sources
from oodbench.data import images as images_module
from oodbench.data.catalog import catalog, data_card
from oodbench.data.division import (
    content_hash,
    drawn_rows,
    image_digests,
    part_indices,
    random_order,
    split_indices,
)
from oodbench.data.fetch import fetch
from oodbench.data.identifiers import Identifier, parse_identifier
from oodbench.data.images import shown_name
from oodbench.data.make_sample import write_sample
from oodbench.data.own import own_sets
from oodbench.data.views import apply_view, luma, view_between
from oodbench.errors import DataError, MissingDataError, OodbenchError, UnknownNameError

SAMPLE_HASHES = {
    "fashionmnist/test[first 2000]": "664828cf500c6725",
    "fashionmnist/ref[first 1000]": "1fee418b718d466a",
    "fashionmnist/train[100 drawn]": "6e16858b6797d7d4",
    "mnist/test[first 2000]": "de7b3b5bee3c364a",
    "mnist/ref[first 1000]": "80c757ec850d5feb",
    "mnist/train[100 drawn]": "64ad6ff1d365d3cf",
    "cifar10/test[first 2000]": "38b0954b965d9e67",
    "cifar10/ref[first 1000]": "36c4f2432eca33d5",
    "cifar10/train[100 drawn]": "6af439d1f6510ee7",
    "svhn/test[first 2000]": "3b62f04750bbc2e8",
}
TRAINED_ON = ("fashionmnist", "mnist", "cifar10")


@pytest.mark.parametrize("identifier", SAMPLE_HASHES)
def test_the_sample_is_what_it_says(identifier):
    drawn = "drawn" in identifier  # of `train` there is a draw alone
    images = ob.load_images(identifier if drawn else identifier.split("[")[0])
    assert images.identifier == identifier
    assert images.sha256[:16] == SAMPLE_HASHES[identifier]


def test_the_sample_is_cut_from_the_full_sets(shared_data, home):
    for identifier in ("fashionmnist/test", "mnist/ref", "cifar10/test", "svhn/test"):
        full = ob.load_images(identifier)
        sample = next(h for name, h in SAMPLE_HASHES.items() if name.startswith(identifier))
        assert len(full) > 2000
        assert full.prefix(1000 if "ref" in identifier else 2000).sha256[:16] == sample
    for name in ("fashionmnist", "mnist"):
        sample = SAMPLE_HASHES[f"{name}/train[100 drawn]"]
        assert ob.load_images(f"{name}/train").drawn(100).sha256[:16] == sample


@pytest.mark.parametrize("name", TRAINED_ON)
def test_training_images_in_the_sample_are_no_test_images(name):
    splits = [f"{name}/train[100 drawn]", f"{name}/ref", f"{name}/test"]
    train, *others = (set(image_digests(ob.load_images(split).images)) for split in splits)
    assert len(train) == 100
    assert not train & set.union(*others)


@pytest.mark.parametrize("name", TRAINED_ON)
def test_a_draw_in_the_sample_stands_in_for_no_training_set(name):
    whole = ob.load_images(f"{name}/train[100 drawn]")
    assert not whole.is_whole
    few = ob.load_images(f"{name}/train[:30]")
    assert few.identifier == f"{name}/train[30 drawn]"
    assert np.array_equal(few.images, whole.images[:30])
    assert whole.drawn(30).identifier == few.identifier
    why = rf"{name}/train is not on this machine; to get it: .* \(of its images only 100 are here, .*too few to be fitted"
    for identifier in ("train", "train[first 50]", "train[first 50][20 drawn]", "train[:101]"):
        with pytest.raises(MissingDataError, match=why):
            ob.load_images(f"{name}/{identifier}")
    assert sources.find(catalog()[name], "train") is None


def test_a_folder_with_the_sample_s_files_has_no_training_set(tmp_path, home, monkeypatch):
    monkeypatch.setenv("OODBENCH_DATA", str(sources.SAMPLE))
    assert sources.find(catalog()["mnist"], "train") is None


def test_sample_files_are_written_without_a_clock(tmp_path, home):
    images = ob.load_images("mnist/test[:50]")
    path = write_sample(images, tmp_path)
    once = path.read_bytes()
    assert write_sample(images, tmp_path).read_bytes() == once
    assert np.array_equal(np.load(path)["images"], images.images)


def test_ref_is_a_fixed_tenth_that_training_never_sees():
    whole = split_indices(60_000)
    assert len(whole["ref"]) == 6000
    assert not set(whole["ref"]) & set(whole["train"])
    assert whole["ref"][:4].tolist() == [3196, 59096, 40146, 39646]
    part = split_indices(60_000, here=20_000)
    assert part["ref"].tolist() == [i for i in whole["ref"] if i < 20_000]
    assert part["train"].tolist() == [i for i in whole["train"] if i < 20_000]


def test_views_follow_the_stated_rule():
    assert view_between((1, 28, 28), (1, 28, 28)) == ""
    assert view_between((1, 28, 28), (3, 32, 32)) == "pad32,rgb"
    assert view_between((3, 32, 32), (1, 28, 28)) == "crop28,grey"
    assert view_between((3, 64, 64), (3, 32, 32)) == "resize32-bilinear-aa"
    assert view_between((3, 218, 178), (3, 32, 32)) == "square,resize32-bilinear-aa"
    with pytest.raises(DataError, match="2 channels"):
        view_between((2, 28, 28), (3, 28, 28))


def test_views_do_what_they_say(random):
    grey = random.integers(0, 256, (3, 1, 28, 28)).astype(np.uint8)
    padded = apply_view(grey, "pad32,rgb")
    assert padded.shape == (3, 3, 32, 32)
    assert np.array_equal(padded[:, 1, 2:30, 2:30], grey[:, 0])
    assert padded[:, :, :2].sum() == 0
    assert np.array_equal(apply_view(padded, "crop28,grey"), grey)
    colour = random.integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    pillow = np.asarray(Image.fromarray(colour[0].transpose(1, 2, 0)).convert("L"))
    assert np.array_equal(luma(colour)[0, 0], pillow)
    assert apply_view(colour, "resize16-bilinear-aa").shape == (2, 3, 16, 16)
    assert not np.array_equal(
        apply_view(colour, "resize16-bilinear"), apply_view(colour, "resize16-bilinear-aa")
    )
    assert apply_view(colour[:, :, :, :20], "square").shape == (2, 3, 20, 20)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("blar3", "no view operation is called 'blar3'; did you mean 'blur'"),
        ("blur6", "'blur6' has no strength that exists: write one of 1 to 5 behind it, blur1 to"),
        ("blur", "'blur' has no strength"),
        ("rot45", "no view operation"),
        ("resize32", "must name its filter"),
        ("crop64", "cannot crop"),
        ("pad16", "cannot pad"),
    ],
)
def test_bad_views_are_named(view, message):
    with pytest.raises(DataError, match=message):
        ob.load_images(f"cifar10/test[:10]@{view}")


def test_identifiers_parse():
    assert parse_identifier("svhn") == Identifier("svhn", "test", None, None, None)
    whole = Identifier("svhn", "ref", None, 9, "grey,crop28")
    assert parse_identifier("svhn/ref[:9]@grey,crop28") == whole
    assert parse_identifier("svhn/ref[9 drawn]@grey,crop28") == whole
    assert parse_identifier("a/b.npy[first 20][:9]") == Identifier("a/b.npy", "all", 20, 9)


@pytest.mark.parametrize(
    "text", ["svhn[9]", "svhn[:0]", "svhn[0 drawn]", "svhn[9 drawn][first 20]", ""]
)
def test_what_is_no_identifier_is_named(text):
    with pytest.raises(DataError, match="is no image set; write name/split"):
        parse_identifier(text)


@pytest.mark.parametrize(
    "text",
    ["a/test", "a/ref[first 7]", "a/train[3 drawn]@grey", "a/test[first 7][3 drawn]@pad32,rgb"],
)
def test_identifiers_are_text_again(text):
    assert str(parse_identifier(text)) == text


def test_an_identifier_takes_another_split_or_view():
    own = parse_identifier("a/test[first 90][:5]@grey")
    assert own.in_split("test") == own
    assert str(own.in_split("ref")) == "a/ref@grey"
    assert str(own.seen_through("pad32")) == "a/test[first 90][5 drawn]@pad32"


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("mnist", "mnist/test[first 2000]"),
        ("mnist[:20]@pad32,rgb", "mnist/test[first 2000][20 drawn]@pad32,rgb"),
        ("mnist/ref[first 50][7 drawn]", "mnist/ref[first 50][7 drawn]"),
        ("mnist/test[first 9999]", "mnist/test[first 2000]"),
        ("mnist/test[:2000]", "mnist/test[first 2000]"),
        ("svhn10k/ref[:5]", "svhn10k/ref[first 83][5 drawn]"),
        ("noise[:5]", "noise/test[5 drawn]"),
        ("constant/test[first 9][3 drawn]", "constant/test[first 9][3 drawn]"),
    ],
)
def test_what_an_identifier_shows_opens_the_same_images(asked, shown):
    images = ob.load_images(asked)
    assert images.identifier == shown
    assert ob.load_images(shown).sha256 == images.sha256
    assert ob.load_images(shown).identifier == shown
    assert not images.images.flags.writeable


def test_views_are_part_of_the_identity():
    images = ob.load_images("mnist/test[:20]", shape=(3, 32, 32))
    assert images.identifier == "mnist/test[first 2000][20 drawn]@pad32,rgb"
    assert images.sha256 != ob.load_images("mnist/test[:20]").sha256


def test_the_order_of_draws_never_changes():
    assert random_order(10_000)[:4].tolist() == [3196, 1722, 7266, 8497]
    assert drawn_rows(4, 10_000).tolist() == [3196, 1722, 7266, 8497]


@pytest.mark.parametrize("here", [1, 60, 999, 1000])
def test_a_draw_is_the_beginning_of_a_larger_one_and_the_same_whatever_part_is_here(here):
    whole = drawn_rows(1000, 1000)
    assert sorted(whole) == list(range(1000))
    for n in (0, 1, 40, here):
        assert drawn_rows(n, here).tolist() == [i for i in whole if i < here][:n]


def test_a_draw_of_a_random_order_is_its_beginning():
    assert drawn_rows(3, 50, in_random_order=True).tolist() == [0, 1, 2]
    ref = ob.load_images("mnist/ref")
    assert np.array_equal(ref.drawn(9).images, ref.images[:9])


def test_a_draw_hits_classes_of_a_sorted_set(tmp_path, home):
    by_class = np.repeat(np.arange(10, dtype=np.uint8), 50)[:, None, None] * np.ones(
        (28, 28), np.uint8
    )
    by_class[:, 1, 0], by_class[:, 1, 1] = np.divmod(np.arange(500), 50)  # no two are equal
    np.savez(tmp_path / "sorted.npz", images=by_class)
    for split in ("all", "test", "ref"):  # the order of a user's own file is not known to be random
        found = ob.load_images(f"{tmp_path}/sorted.npz/{split}[:60]").images[:, 0, 0, 0]
        assert len(found) == 60
        assert set(found) == set(range(10))


def test_a_file_named_ref_is_drawn_from(tmp_path, home, monkeypatch):
    by_class = np.repeat(np.arange(10, dtype=np.uint8), 200)[:, None, None] * np.ones(
        (28, 28), np.uint8
    )
    np.savez(tmp_path / "mnist_ref.npz", images=by_class)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert set(ob.load_images("mnist/ref[:60]").images[:, 0, 0, 0]) == set(range(10))


def test_draws_of_draws_and_rows_of_columns():
    whole = ob.load_images("mnist/test")
    column = whole.images.mean((1, 2, 3))
    drawn = whole.drawn(50)
    assert np.array_equal(column[whole.drawn_rows(50)], drawn.images.mean((1, 2, 3)))
    fewer = drawn.drawn(7)
    assert fewer.identifier == "mnist/test[first 2000][7 drawn]"
    assert fewer.sha256 == whole.drawn(7).sha256
    assert drawn.drawn_rows(7).tolist() == list(range(7))
    assert drawn.drawn(50) is drawn.drawn(None) is drawn
    assert whole.drawn_rows(None).tolist() == whole.drawn_rows(9999).tolist() == list(range(2000))


def test_a_draw_is_the_same_from_a_part_and_from_the_whole(tmp_path, home, monkeypatch, random):
    pixels = random.integers(0, 256, (10_000, 4, 4)).astype(np.uint8)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    draws = {}
    for here in (10_000, 6000):
        np.savez(tmp_path / "kmnist_test.npz", images=pixels[:here])
        draws[here] = ob.load_images("kmnist[:300]")
    assert draws[10_000].identifier == "kmnist/test[300 drawn]"
    assert draws[6000].identifier == "kmnist/test[first 6000][300 drawn]"
    order = drawn_rows(300, 10_000)
    common = [pixels[i].tobytes() for i in order if i < 6000]
    assert [image.tobytes() for image in draws[6000].images][: len(common)] == common
    np.savez(tmp_path / "kmnist_test.npz", images=pixels)
    assert ob.load_images(draws[6000].identifier).sha256 == draws[6000].sha256


def test_hashes_of_shards_and_of_images():
    images = ob.load_images("mnist/test[:25]")
    hashes = images.shard_hashes(10)
    assert hashes == tuple(content_hash(images.images[i : i + 10]) for i in (0, 10, 20))
    assert images.shard_hashes(25) == (images.sha256,)
    assert images.shard_hashes(9)[0] == images.drawn(9).sha256
    digests = image_digests(images.images)
    assert digests[3] == hashlib.sha256(images.images[3].tobytes()).digest()
    assert len(set(digests)) == 25


def test_generated_sets_take_the_model_s_shape():
    noise = ob.load_images("noise", shape=(1, 28, 28))
    assert noise.images.shape == (500, 1, 28, 28)
    assert abs(noise.images.mean() - 127.5) < 1
    grey = ob.load_images("constant", shape=(1, 28, 28)).images
    assert sorted(grey[:, 0, 0, 0]) == list(range(256))
    colour = ob.load_images("constant", shape=(3, 32, 32)).images
    assert np.array_equal(colour.min((2, 3)), colour.max((2, 3)))


def test_unknown_and_missing_sets_say_what_to_do(home):
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10' or 'cifar100'"):
        ob.load_images("cifar")
    with pytest.raises(MissingDataError, match="oodbench data fetch kmnist"):
        ob.load_images("kmnist")
    with pytest.raises(MissingDataError, match=r"img_align_celeba\.zip"):
        ob.load_images("celeba/test")


def test_a_data_folder_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("OODBENCH_DATA", "/no/such/folder")
    with pytest.raises(
        OodbenchError, match="OODBENCH_DATA names /no/such/folder, which is no folder"
    ):
        ob.load_images("mnist")


def test_a_user_s_folder_of_arrays(tmp_path, home, monkeypatch, random):
    images = random.integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "mine_test.npz", images=images)
    np.savez(tmp_path / "svhn_test10k.npz", images=np.repeat(images, 100, 0))
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert own_sets(catalog()) == ["mine"]
    assert np.array_equal(ob.load_images("mine/test").images, images.transpose(0, 3, 1, 2))
    assert (
        ob.load_images("svhn").identifier == "svhn/test[first 3000]"
    )  # more images than the sample has


def test_parts_are_joined_in_the_order_of_their_numbers(tmp_path, home, monkeypatch):
    for part in (1, 2, 10):
        np.savez(tmp_path / f"mine_test_part{part}.npz", images=np.full((2, 8, 8), part, np.uint8))
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert ob.load_images("mine").images[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 10, 10]


def test_a_user_s_file_and_folder_of_images(tmp_path, home, random):
    pixels = random.integers(0, 256, (4, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.png")
    from_file, from_folder = (
        ob.load_images(str(tmp_path / "a.npy")),
        ob.load_images(str(tmp_path / "pictures")),
    )
    assert np.array_equal(from_file.images, from_folder.images)
    Image.fromarray(pixels[0][:20]).save(tmp_path / "pictures" / "9.png")
    with pytest.raises(DataError, match="unequal shapes"):
        ob.load_images(str(tmp_path / "pictures"))
    for size in (16, 12):
        viewed = ob.load_images(f"{tmp_path / 'pictures'}@square,resize{size}-box-aa")
        assert viewed.images.shape == (5, 1, size, size)
        assert viewed.identifier == f"pictures/all@square,resize{size}-box-aa"
    with pytest.raises(
        DataError, match=r"has shape \(1, 12, 12\), but the model takes \(1, 28, 28\)"
    ):
        ob.load_images(f"{tmp_path / 'pictures'}@square,resize12-box-aa", shape=(1, 28, 28))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 cut short", "cannot be read as images"),
        (b"<!DOCTYPE html>", "cannot be read as images"),
        (b"", "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, home, content, message):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        ob.load_images(str(path))
    assert str(path) in str(raised.value)


def test_a_truncated_archive_is_named(tmp_path, home):
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((50, 28, 28), np.uint8))
    damaged = bytearray(buffer.getvalue())
    damaged[5000] ^= 1
    (tmp_path / "x.npz").write_bytes(damaged)
    with pytest.raises(DataError, match="Bad CRC"):
        ob.load_images(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 28, 28)), "float64 values from 0 to 0"),
        (np.zeros((3, 5), np.uint8), "has shape"),
        (np.zeros((0, 28, 28), np.uint8), "no images"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path, home, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        ob.load_images(str(tmp_path / "x.npy"))


def test_pickled_arrays_are_never_opened(tmp_path, home):
    np.savez(tmp_path / "x.npz", images=np.array([object()], dtype=object))
    with pytest.raises(DataError, match="cannot be read as images"):
        ob.load_images(str(tmp_path / "x.npz"))


def test_a_changed_file_is_decoded_anew(tmp_path, home):
    for value in (1, 2):
        np.save(tmp_path / "x.npy", np.full((5 * value, 28, 28), value, np.uint8))
        assert ob.load_images(str(tmp_path / "x.npy")).images.max() == value


def test_files_of_one_name_and_size_have_a_copy_each(tmp_path, home):
    for value, folder in ((1, "a"), (2, "b"), (3, "a")):  # the third is the first, written again
        path = tmp_path / folder / "x.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((5, 8, 8), value, np.uint8))
        os.utime(path, ns=(value, value))
        assert ob.load_images(str(path)).images.max() == value


def noisy_file(folder, random):
    """An array file of noise, and what its decoded copy must hold."""
    pixels = random.integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    np.save(folder / "x.npy", pixels)
    return str(folder / "x.npy"), pixels


def the_copy(home):
    (copy,) = (home / "images").iterdir()
    return copy


def test_any_flipped_bit_of_a_copy_is_noticed_and_the_copy_made_again(
    tmp_path, home, random, caplog
):
    """Bits of every byte of the header and of the seal, and of pixels drawn at random."""
    path, pixels = noisy_file(tmp_path, random)
    ob.load_images(path)
    whole = the_copy(home).read_bytes()
    pixels_from = len(whole) - 64 - pixels.size
    edges = [*range(pixels_from), *range(len(whole) - 64, len(whole))]
    bytes_flipped = [*edges, *random.integers(pixels_from, len(whole) - 64, 200)]
    for number, position in enumerate(bytes_flipped, 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(random.integers(8))
        the_copy(home).write_bytes(damaged)
        assert np.array_equal(ob.load_images(path).images, pixels)
        assert the_copy(home).read_bytes() == whole
        assert len(caplog.records) == number
    assert "is damaged; it is made again from x.npy" in caplog.messages[0]


@pytest.mark.parametrize("kept", [0, 3, 63, 64, 200, -500, -1])
def test_a_truncated_copy_is_made_again(tmp_path, home, random, caplog, kept):
    path, pixels = noisy_file(tmp_path, random)
    ob.load_images(path)
    the_copy(home).write_bytes(the_copy(home).read_bytes()[:kept])
    assert np.array_equal(ob.load_images(path).images, pixels)
    assert len(caplog.records) == 1
    ob.load_images(path)
    assert len(caplog.records) == 1


def test_a_copy_is_read_not_made_when_nothing_changed(tmp_path, home, random, monkeypatch):
    path, pixels = noisy_file(tmp_path, random)
    ob.load_images(path)
    monkeypatch.setattr(arrays, "_read", None)
    assert np.array_equal(ob.load_images(path).images, pixels)


def test_a_copy_of_an_earlier_version_is_left_alone(tmp_path, home, random, monkeypatch):
    path, pixels = noisy_file(tmp_path, random)
    ob.load_images(path)
    the_copy(home).write_bytes(b"of an earlier version")
    earlier = the_copy(home)
    monkeypatch.setattr(copies, "VERSION", copies.VERSION + 1)
    assert np.array_equal(ob.load_images(path).images, pixels)
    assert earlier.read_bytes() == b"of an earlier version"


def test_a_copy_belongs_to_what_the_catalog_says_of_its_files(home, monkeypatch):
    """A corrected view or count of a card is another copy, though the files are the same."""
    folder = home / "raw" / "lsun_val"
    folder.mkdir(parents=True)
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(folder / "a.png")
    small, large = ({"lsun": replace(data_card("lsun"), base_view=f"crop{n}")} for n in (6, 8))
    monkeypatch.setattr(images_module, "catalog", lambda: small)
    for cards, size in ((small, 6), (large, 8)):
        monkeypatch.setattr(images_module, "data_card", cards.__getitem__)
        assert ob.load_images("lsun").shape == (1, size, size)


def test_a_changed_official_count_is_another_choice_of_ref(tmp_path, home, monkeypatch, random):
    np.savez(
        tmp_path / "mnist_train.npz",
        images=random.integers(0, 256, (20_000, 2, 2)).astype(np.uint8),
    )
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    card = data_card("mnist")
    for size in (60_000, 30_000):
        changed = replace(card, counts={"train": size, "test": 10_000})
        monkeypatch.setattr(images_module, "data_card", lambda name, changed=changed: changed)
        expected = split_indices(size, 20_000)["ref"]
        whole = np.load(tmp_path / "mnist_train.npz")["images"]
        ref = ob.load_images("mnist/ref")
        assert np.array_equal(ref.images[:, 0], whole[expected])
        assert np.array_equal(ref.drawn(9).images, ref.images[:9])


def test_a_copy_that_cannot_be_read_is_named(tmp_path, home, random):
    path, _ = noisy_file(tmp_path, random)
    ob.load_images(path)
    copy = the_copy(home)
    copy.unlink()
    copy.mkdir()
    with pytest.raises(DataError, match=r"the decoded copy .* cannot be read"):
        ob.load_images(path)


def test_shown_names_of_paths(tmp_path, home, monkeypatch):
    for name in ("blur_0.1", "blur_0.2", "two words, ümläut; [x]", "n" * 200):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "a.png")
    assert ob.load_images(str(tmp_path / "blur_0.1")).name == "blur_0.1"
    assert ob.load_images(f"{tmp_path}/blur_0.2/").name == "blur_0.2"
    assert ob.load_images(str(tmp_path / ("n" * 200))).name == "n" * 200
    np.save(tmp_path / "noise_0.5.npy", np.zeros((5, 4, 4), np.uint8))
    np.savez(tmp_path / "a.b.npz", images=np.zeros((5, 4, 4), np.uint8))
    assert ob.load_images(str(tmp_path / "noise_0.5.npy")).name == "noise_0.5"
    assert ob.load_images(str(tmp_path / "a.b.npz")).name == "a.b"
    monkeypatch.chdir(tmp_path / "blur_0.1")
    assert ob.load_images(".").identifier == "blur_0.1/all"
    assert shown_name(Path("/")) == "/"
    assert shown_name(tmp_path / "two words, ümläut; [x]") == "two words, ümläut; [x]"


def test_a_name_may_be_given(tmp_path, home):
    np.save(tmp_path / "x.npy", np.zeros((9, 4, 4), np.uint8))
    found = ob.load_images(f"{tmp_path / 'x.npy'}[:3]@pad8", name="my set: 1")
    assert found.identifier == "my set: 1/all[3 drawn]@pad8"
    assert (found.card, found.official) == ("", 9)


def test_only_a_set_of_the_catalog_bears_its_card(tmp_path, home):
    np.save(tmp_path / "noise.npy", np.zeros((9, 4, 4), np.uint8))
    assert ob.load_images("noise", name="static").card == "noise"
    assert ob.load_images("svhn10k/ref").card == "svhn10k"
    assert ob.load_images(str(tmp_path / "noise.npy")).card == ""


def test_planar_imagenet_archives(tmp_path, home, monkeypatch, random):
    rows = random.integers(0, 256, (6, 3072)).astype(np.uint8)
    (tmp_path / "Imagenet32_val_npz").mkdir()
    np.savez(tmp_path / "Imagenet32_val_npz" / "val_data.npz", data=rows)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert np.array_equal(ob.load_images("imagenet32").images.reshape(6, -1), rows)


def test_image_folders_of_known_sets(tmp_path, home, monkeypatch):
    folder = home / "raw" / "notMNIST_small" / "A"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((28, 28), 7, np.uint8)).save(folder / "a.png")
    assert ob.load_images("notmnist").identifier == "notmnist/test[first 1]"
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png is not a readable image"):
        ob.load_images("notmnist")


def test_every_card_has_its_terms_and_a_way_to_get_it():
    for card in catalog().values():
        assert card.title
        assert card.licence
        assert card.citation
        assert card.generated or card.how_to_get()


def known_to_torchvision():
    """MD5 sums that torchvision's classes hold, by set."""
    from torchvision import datasets as tv

    return {
        "fashionmnist": [md5 for _, md5 in tv.FashionMNIST.resources],
        "mnist": [md5 for _, md5 in tv.MNIST.resources],
        "kmnist": [md5 for _, md5 in tv.KMNIST.resources],
        "emnist-letters": [tv.EMNIST.md5],
        "omniglot": list(tv.Omniglot.zips_md5.values()),
        "cifar10": [tv.CIFAR10.tgz_md5],
        "cifar100": [tv.CIFAR100.tgz_md5],
        "svhn": [tv.SVHN.split_list[split][2] for split in ("train", "test")],
        "dtd": [tv.DTD._MD5],
    }


def test_the_catalog_agrees_with_torchvision():
    from torchvision import datasets

    for name, sums in known_to_torchvision().items():
        assert sorted(file["md5"] for file in data_card(name).files) == sorted(sums), name
    for card in catalog().values():
        for options in card.splits.values():
            inspect.signature(getattr(datasets, card.torchvision)).bind(
                "root", **options, download=False
            )


def test_sets_without_files_say_how_to_get_them():
    with pytest.raises(DataError, match="cannot be fetched by a program"):
        fetch(data_card("celeba"), lambda name, size: None, lambda name, n: None)


def test_sample_members_hold_images_only():
    for path in sources.SAMPLE.glob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["images.npy"]


def test_a_part_has_splits_of_its_own_that_share_no_image(tmp_path, home, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9000, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "svhn_test.npz", images=images)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    parts = {split: ob.load_images(f"svhn10k/{split}") for split in ("train", "ref", "test")}
    found = [image.tobytes() for part in parts.values() for image in part.images]
    assert sorted(found) == sorted(image.tobytes() for image in images.transpose(0, 3, 1, 2))
    smaller = part_indices({"train": 8000, "ref": 500, "test": 1500})["ref"]
    assert len(parts["ref"]) == (smaller < 9000).sum()  # of what is here
    assert parts["ref"].identifier == f"svhn10k/ref[first {len(parts['ref'])}]"
    assert ob.load_images("svhn10k/test", shape=(1, 2, 2)).identifier.endswith("@grey")
    assert np.array_equal(parts["ref"].drawn(9).images, parts["ref"].images[:9])
