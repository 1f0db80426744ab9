"""Sets of one's own: which path is meant, how it is divided, and that no image is on both sides."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

import oodbench as ob
from oodbench import listing
from oodbench.data.division import divided, image_digests
from oodbench.data.identifiers import parse_identifier, set_key
from oodbench.data.images import in_split
from oodbench.errors import DataError, MissingDataError, UnknownNameError
from oodbench.passes.shards import forget
from oodbench.plan import make_plan
from oodbench.registry import load_plugin, models
from oodbench.suite import Pair, Suite

SPLITS = ("train", "ref", "test")


def write(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:03d}.png")


@pytest.fixture
def noise(random):
    return lambda n: random.integers(0, 256, (n, 28, 28)).astype(np.uint8)


def sets(reference, **options):
    found = (ob.load_images(in_split(reference, split), **options) for split in SPLITS)
    return dict(zip(SPLITS, found, strict=True))


def shared(one, other):
    return len(set(image_digests(one.images)) & set(image_digests(other.images)))


# --- paths ----------------------------------------------------------------------------------------


def test_a_path_that_exists_is_that_path(tmp_path, home, noise):
    train, val, test = noise(10), noise(3), noise(5)
    for name, pictures in (("train", train), ("val", val), ("test", test)):
        write(tmp_path / "flowers" / name, pictures)
    path = f"{tmp_path}/flowers"
    for reference, pictures, shown in (
        (path, test, "flowers/test"),
        (f"{path}/test", test, "flowers/test"),
        (f"{path}/test/", test, "flowers/test"),
        (f"{path}/train", train, "flowers/train/all"),
        (f"{path}/val", val, "flowers/val/all"),
        (f"{path}/ref", val, "flowers/ref"),
        (f"'{path}'/train", train, "flowers/train"),
    ):
        found = ob.load_images(reference)
        assert np.array_equal(found.images[:, 0], pictures), reference
        assert found.identifier == shown
    assert in_split(f"{path}/test", "train") == f"'{path}'/train"
    assert len(ob.load_images(f"{path}/test[:2]@pad32")) == 2


def test_val_is_test_where_there_is_none(tmp_path, home, noise):
    pictures = noise(25)
    write(tmp_path / "f" / "Training", pictures[:20])
    write(tmp_path / "f" / "Validation", pictures[20:])
    found = sets(f"{tmp_path}/f")
    assert [len(one) for one in found.values()] == [18, 2, 5]
    assert np.array_equal(found["test"].images[:, 0], pictures[20:])


def test_classes_that_are_called_as_splits_are_classes(tmp_path, home, noise):
    for name in ("bus", "train", "car"):
        write(tmp_path / "vehicles" / name, noise(2))
    assert ob.load_images(f"{tmp_path}/vehicles").identifier == "vehicles/all"


def test_what_lies_beside_the_splits_is_told(tmp_path, home, noise, caplog):
    for name in ("train", "test", "masks"):
        write(tmp_path / "f" / name, noise(2))
    Image.fromarray(noise(1)[0]).save(tmp_path / "f" / "loose.png")
    ob.load_images(f"{tmp_path}/f")
    assert "is read by its folders test, train; not used: the folder masks, 1 loose" in caplog.text


def test_two_folders_for_one_split_are_refused(tmp_path, home, noise):
    for name in ("train", "Training", "test"):
        write(tmp_path / "f" / name, noise(2))
    with pytest.raises(DataError, match="holds both Training and train"):
        ob.load_images(f"{tmp_path}/f")


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path, home, noise):
    write(tmp_path / "f" / "train", noise(20))
    with pytest.raises(MissingDataError, match=r"f has no split 'test' .* train \(20 images\)"):
        ob.load_images(f"{tmp_path}/f")


@pytest.mark.parametrize(
    "name", ["a@2x", "x[1]", "s p a c e", "v0.1", "b[first 3]", "it's", "q/t@rgb"]
)
def test_odd_names_are_reached_and_written_back(tmp_path, home, noise, name):
    write(tmp_path / name, noise(8))
    path = f"{tmp_path}/{name}"
    for reference in (path, f"{path}[:3]@pad32", f"{path}/test"):
        found = ob.load_images(reference)
        again = ob.load_images(str(parse_identifier(reference)))
        assert again.sha256 == found.sha256
    assert len(ob.load_images(f"{path}[:3]@pad32")) == 3


def test_names_of_the_catalog_are_no_paths(tmp_path, home, noise, monkeypatch):
    write(tmp_path / "mnist" / "test", noise(4))
    monkeypatch.chdir(tmp_path)
    assert ob.load_images("mnist/test").card == "mnist"
    assert len(ob.load_images("./mnist/test")) == 4


@pytest.mark.parametrize("reference", ["/no/such/folder", "./no", "no/such.npz"])
def test_a_path_to_nothing_is_named(home, reference):
    with pytest.raises(DataError, match=r"no.* cannot be opened \(No such file or directory\)"):
        ob.load_images(reference)


def test_a_bare_name_that_is_nothing_offers_own_sets_too(tmp_path, home, noise, monkeypatch):
    np.savez(tmp_path / "scans_test.npz", images=noise(3))
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    with pytest.raises(UnknownNameError, match="did you mean 'scans'"):
        ob.load_images("scan")


def test_what_is_no_set_says_what_it_is(tmp_path, home, noise):
    Image.fromarray(noise(1)[0]).save(tmp_path / "one.png")
    for name in ("x.mat", "x.zip", "x.h5", "x.pt", "x.pkl", "notes"):
        (tmp_path / name).write_bytes(b"PK")
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("one.png", "is one picture; a set is a folder"),
        ("x.mat", "is a MATLAB file; save its array"),
        ("x.zip", "is an archive; unpack it"),
        ("x.h5", "is an HDF5 file"),
        ("x.pt", "is a PyTorch file"),
        ("x.pkl", "is a pickle, which is never opened"),
        ("notes", "is no file of images that is known"),
        ("pipe.npy", "is a pipe, socket or device"),
        ("empty", "is a folder without pictures"),
    ):
        with pytest.raises(DataError, match=message):
            ob.load_images(f"{tmp_path}/{name}")


# --- the folder of arrays -------------------------------------------------------------------------


def test_the_list_names_what_opens(tmp_path, home, noise, monkeypatch):
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    for name in (
        "cifar10.1_test",
        "cifar-c_test",
        "a_part1",
        "a_part2",
        "only_train",
        "glob[1]_test",
        "b@2",
    ):
        np.savez(tmp_path / f"{name}.npz", images=noise(12))
    (tmp_path / "torn_test.npz").write_bytes(b"PK")
    os.mkfifo(tmp_path / "pipe_test.npz")
    listed = [line[0] for line in listing.data()[1] if line[2] == "your own"]
    assert listed == ["a", "'b@2'", "cifar-c", "cifar10.1", "'glob[1]'", "only/train"]
    assert [len(ob.load_images(name)) for name in listed] == [24, 12, 12, 12, 12, 11]
    assert len(ob.load_images("glob[1]")) == 12
    assert "torn_test.npz cannot be read" in "".join(listing.own_that_do_not_open())
    with pytest.raises(MissingDataError, match="write only/train"):
        ob.load_images("only")


# --- arrays ---------------------------------------------------------------------------------------


def test_the_array_of_an_npz_is_chosen_by_name(tmp_path, home, noise):
    train, test = noise(6), noise(4)
    path = tmp_path / "k.npz"
    np.savez(path, x_train=train, y_train=np.arange(6), x_test=test)
    with pytest.raises(
        DataError, match=r"several arrays; it holds x_train uint8 \(6, 28, 28\), .*#x_train"
    ):
        ob.load_images(str(path))
    assert np.array_equal(ob.load_images(f"{path}#x_test").images[:, 0], test)
    assert ob.load_images(f"{path}#x_train[:2]@pad32").identifier == "k#x_train/all[2 drawn]@pad32"
    with pytest.raises(DataError, match="has no array 'z'"):
        ob.load_images(f"{path}#z")
    np.savez(path, train)
    assert np.array_equal(ob.load_images(str(path)).images[:, 0], train)


@pytest.mark.parametrize("shape", [(32, 32, 3), (3, 32, 32), (32, 32, 1), (32, 32, 4)])
def test_one_picture_is_no_set_of_rows(tmp_path, home, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="one picture, or grey ones"):
        ob.load_images(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((10, 784), "reshape the rows"),
        ((32, 32, 3, 10), r"x\.transpose\(3, 0, 1, 2\)"),
        ((10, 32, 32, 4), "composite the alpha"),
        ((10, 3, 32, 3), "the channels may be the second part or the last"),
        ((10,), "images must be"),
    ],
)
def test_other_shapes_get_advice(tmp_path, home, shape, advice):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=advice):
        ob.load_images(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("low", "high", "kind", "advice"),
    [
        (0, 1, float, r"\(x \* 255\)"),
        (-1, 1, np.float32, r"\(x \+ 1\) \* 127\.5"),
        (-0.5, 0.5, float, r"\(x \+ 0\.5\) \* 255"),
        (0, 255, np.float16, r"x\.round\(\)"),
        (-2.1, 2.6, float, "standardised"),
        (0, np.nan, float, "not finite"),
        (0, 255, np.int64, r"x\.astype\(np\.uint8\)"),
        (0, 65535, np.uint16, "the value that is white"),
        (0, 1, bool, r"\* 255"),
        (0, 1, np.uint8, "0 and 1 alone"),
    ],
)
def test_values_get_advice_by_their_range(tmp_path, home, low, high, kind, advice):
    values = np.tile(np.array([low, high]), (5, 8, 4)).astype(kind)
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=advice):
        ob.load_images(str(tmp_path / "x.npy"))


# --- division -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "array"])
def test_a_flat_set_is_divided_70_15_15_and_says_so(tmp_path, home, noise, kind):
    pictures = noise(200)
    path = tmp_path / ("own" if kind == "folder" else "own.npy")
    write(path, pictures) if kind == "folder" else np.save(path, pictures)
    found = sets(str(path))
    assert [len(one) for one in found.values()] == [140, 30, 30]
    assert not any(
        shared(found[a], found[b])
        for a, b in (("train", "ref"), ("ref", "test"), ("train", "test"))
    )
    assert "divided by oodbench 70/15/15" in found["test"].remarks[-1]
    assert len(ob.load_images(str(path))) == 200
    other = sets(f"{path}[60/10/30]")
    assert [len(one) for one in other.values()] == [120, 20, 60]
    assert other["test"].identifier == "own[60/10/30]/test"
    small = ob.load_images(f"{path}/test", shape=(1, 8, 8))
    assert len(small) == 30
    assert in_split(f"{path}[60/10/30]", "ref") == f"{path}[60/10/30]/ref"


@pytest.mark.parametrize("division", ["60/20/30", "100/0/0"])
def test_a_division_that_is_none_is_refused(tmp_path, division):
    np.save(tmp_path / "x.npy", np.zeros((9, 5, 5), np.uint8))
    with pytest.raises(DataError, match="three whole numbers above 0 that make 100"):
        ob.load_images(f"{tmp_path}/x.npy[{division}]/test")


def test_parts_are_the_fixed_order_s_and_copies_stay_together(random):
    digests = [bytes([n]) for n in random.permutation(100)]
    rows = divided(digests, {"test": 15, "ref": 15, "train": 70})
    assert sorted(np.concatenate(list(rows.values()))) == list(range(100))
    again = divided(digests + digests, {"test": 15, "ref": 15, "train": 70})
    for part in rows:
        assert {digests[row % 100] for row in again[part]}.isdisjoint(
            {digests[row % 100] for other in rows if other != part for row in again[other]}
        )
    few = divided([b"a", b"b", b"c"] * 20, {"test": 15, "ref": 15, "train": 70})
    assert [len(part) for part in few.values()] == [20, 20, 20]
    kept = divided(digests, {"ref": 10, "train": 90}, elsewhere=digests[:50])
    assert {row for part in kept.values() for row in part} == set(range(50, 100))


def test_training_images_that_test_holds_too_are_left_out_and_told(tmp_path, home, noise):
    pictures = noise(50)
    write(tmp_path / "f" / "train", pictures[:40])
    write(tmp_path / "f" / "test", pictures[35:])
    found = sets(f"{tmp_path}/f")
    assert [len(one) for one in found.values()] == [32, 3, 15]
    assert not shared(found["train"], found["test"])
    assert not shared(found["ref"], found["test"])
    assert "5 of the 40 images of f/train are in test too" in found["train"].remarks[-1]


# --- plans ----------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path, home):
    """A plan for a model that says what it was trained on."""
    made = []

    def plan(trained_on, in_dist, ood=("mnist",), named=False):
        name = f"own-set-model-{len(made)}-{os.getpid()}-{id(made)}"
        source = tmp_path / f"m{len(made)}.py"
        source.write_text(
            "import oodbench as ob\nfrom oodbench.testing import UniformModel\n"
            f"@ob.register_model({name!r})\nclass M(UniformModel):\n    trained_on = {trained_on!r}\n"
        )
        made.append(name)
        load_plugin(source)
        pair = Pair(in_dist=in_dist, ood=list(ood), models=[name] * named)
        suite = Suite(
            name="t", title="t", models=[name], pairs=[pair], scorers=["likelihood", "typicality"]
        )
        return make_plan(suite)

    yield plan
    for name in made:
        models._entries.pop(name, None)


def test_a_path_as_in_dist_is_fitted_on_other_images_than_it_is_tested_on(tmp_path, planned, noise):
    np.save(tmp_path / "scans.npy", noise(40))
    np.save(tmp_path / "other.npy", noise(40))
    path = f"{tmp_path}/scans.npy"
    plan = planned(path, path, [f"{tmp_path}/other.npy"])
    assert not plan.skips
    (trial,) = (trial for trial in plan.trials if trial.ref)
    assert (trial.test.n, trial.ref.n, trial.ood.n) == (6, 6, 40)
    assert trial.test.identifier == "scans/test"
    assert "divided by oodbench 70/15/15" in " ".join(plan.remarks)


def test_reference_and_test_images_that_are_the_same_are_a_skip(tmp_path, planned, noise):
    pictures = noise(60)
    for name, part in (("train", pictures[:20]), ("val", pictures[20:50]), ("test", pictures[45:])):
        write(tmp_path / "f" / name, part)
    plan = planned(str(tmp_path / "f"), f"{tmp_path}/f/test")
    assert [trial.scorer.name for trial in plan.trials] == ["likelihood"]
    (skip,) = plan.skips
    assert "5 of the 30 images of f/ref are in f/test too" in skip.reason


def test_a_path_is_one_set_however_it_is_written(tmp_path, planned, noise, monkeypatch):
    np.save(tmp_path / "scans.npy", noise(40))
    monkeypatch.chdir(tmp_path)
    assert set_key("./scans.npy") == set_key(f"{tmp_path}/scans.npy/test")
    assert len(planned(f"{tmp_path}/scans.npy", "./scans.npy").trials) == 2


def test_a_suite_that_divides_otherwise_than_the_training_is_a_skip(tmp_path, planned, noise):
    np.save(tmp_path / "scans.npy", noise(100))
    path = f"{tmp_path}/scans.npy"
    assert planned(f"{path}[60/20/20]", f"{path}[60/20/20]").trials[0].test.n == 20
    plan = planned(path, f"{path}[60/20/20]")
    assert not plan.trials
    assert "divided 70/15/15, and the suite divides it 60/20/20" in plan.skips[0].reason


def test_a_folder_that_changed_since_a_card_was_trained_on_it_is_a_skip(
    tmp_path, planned, noise, monkeypatch
):
    from oodbench import plan as planning

    np.save(tmp_path / "scans.npy", noise(40))
    path = f"{tmp_path}/scans.npy"
    trained = ob.load_images(f"{path}/train").sha256
    monkeypatch.setattr(planning, "_trained_images", lambda reference: trained)
    assert len(planned(path, path).trials) == 2
    np.save(tmp_path / "scans.npy", noise(41))
    forget()
    plan = planned(path, path)
    assert not plan.trials
    assert "was trained on other images than scans/train holds now" in plan.skips[0].reason


def test_a_card_may_stand_for_a_folder_that_it_was_not_trained_on(
    tmp_path, planned, noise, monkeypatch
):
    from oodbench import plan as planning

    np.save(tmp_path / "scans.npy", noise(40))
    path = f"{tmp_path}/scans.npy"
    monkeypatch.setattr(planning, "_trained_images", lambda reference: "another")
    assert len(planned("cifar10", path, named=True).trials) == 2


def test_an_array_is_read_whatever_the_case_of_its_suffix(tmp_path, home, noise):
    np.save(tmp_path / "scans.npy", noise(7))
    (tmp_path / "scans.npy").rename(tmp_path / "scans.NPY")
    assert len(ob.load_images(f"{tmp_path}/scans.NPY")) == 7


def test_images_without_pixels_are_refused(tmp_path, home):
    np.save(tmp_path / "x.npy", np.zeros((4, 0, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"x\.npy has shape \(4, 0, 8, 3\): .* no pixels"):
        ob.load_images(f"{tmp_path}/x.npy")


def test_images_are_like_a_model_and_no_name_of_one(home):
    with pytest.raises(DataError, match=r"'glow-mnist' has no shape"):
        ob.load_images("mnist[:5]", like="glow-mnist")


def test_an_image_set_shown_in_a_notebook_is_not_its_pixels(tmp_path, home, noise):
    np.save(tmp_path / "scans.npy", noise(7))
    assert "array" not in repr(ob.load_images(f"{tmp_path}/scans.npy"))


def test_a_view_of_grounds_alone_is_followed_by_the_rule(tmp_path, home, random):
    folder = tmp_path / "stickers"
    write(folder, random.integers(0, 256, (4, 40, 40, 4)).astype(np.uint8))
    found = ob.load_images(f"{folder}@on255", shape=(3, 32, 32))
    assert found.identifier == "stickers/all@on255,resize32-bilinear-aa"
