"""Public sets in the layout of torchvision: by split, archived or unpacked; and tables of pictures."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from PIL import Image

import oodbench as ob
from oodbench.data import layouts, remake, sources
from oodbench.data.catalog import catalog, data_card
from oodbench.data.copies import whole
from oodbench.data.division import content_hash, part_indices
from oodbench.data.layouts import layout_source, md5_of
from oodbench.data.remake import is_published, make
from oodbench.errors import DataError, MissingDataError


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(images):
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


@pytest.fixture
def raw(home):
    return home / "raw"


@pytest.fixture
def pixels(random):
    return random.integers(0, 256, (6, 28, 28)).astype(np.uint8)


def with_md5(name, root):
    """A card whose published sums are those of the files that a test made."""
    card = data_card(name)
    files = [
        {**file, "md5": md5_of(root / file["path"])}
        for file in card.files
        if (root / file["path"]).exists()
    ]
    return replace(card, files=files)


def test_mnist_is_read_by_split_unpacked_or_not(raw, pixels):
    put(raw / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
    card = with_md5("mnist", raw)
    source = layout_source(card, "test", raw)
    assert (source.n, layout_source(card, "train", raw)) == (6, None)
    assert np.array_equal(source.decode()[:, 0], pixels)
    put(raw / "MNIST/raw/t10k-images-idx3-ubyte", idx(255 - pixels))
    assert np.array_equal(layout_source(card, "test", raw).decode()[:, 0], 255 - pixels)


def test_a_damaged_archive_is_named(raw, pixels):
    path = put(raw / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
    card = with_md5("mnist", raw)
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="MD5"):
        layout_source(card, "test", raw).decode()
    path.unlink()
    put(raw / "MNIST/raw/t10k-images-idx3-ubyte", b"torn")
    with pytest.raises(DataError, match="cannot be read as mnist"):
        layout_source(card, "test", raw).decode()


def test_emnist_comes_upright_out_of_its_zip(raw, pixels):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "gzip/emnist-letters-test-images-idx3-ubyte.gz", gzip.compress(idx(pixels))
        )
    put(raw / "EMNIST/raw/gzip.zip", buffer.getvalue())
    source = layout_source(with_md5("emnist-letters", raw), "test", raw)
    assert np.array_equal(source.decode()[:, 0], pixels.transpose(0, 2, 1))


@pytest.mark.parametrize("archived", [True, False])
def test_cifar_is_read_by_split_from_batches_or_archive(raw, random, monkeypatch, archived):
    rows = random.integers(0, 256, (6, 3072)).astype(np.uint8)
    content = pickle.dumps({"data": rows})
    card = data_card("cifar10")
    if archived:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in card.places["test"].unpacked:
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        put(raw / "cifar-10-python.tar.gz", buffer.getvalue())
        card = with_md5("cifar10", raw)
    else:
        put(raw / "cifar-10-batches-py/test_batch", content)
        with pytest.raises(DataError, match="MD5"):  # another pickle is never opened
            layout_source(card, "test", raw).decode()
        place = replace(card.places["test"], md5={"test_batch": hashlib.md5(content).hexdigest()})
        card = replace(card, places={"test": place})
    source = layout_source(card, "test", raw)
    assert source.n == 10_000
    assert np.array_equal(source.decode().reshape(6, -1), rows)


def test_svhn_needs_the_file_of_its_split_alone(raw, random):
    images = random.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    (raw).mkdir(parents=True)
    scipy.io.savemat(raw / "test_32x32.mat", {"X": images.transpose(1, 2, 3, 0)})
    source = layout_source(with_md5("svhn", raw), "test", raw)
    assert np.array_equal(source.decode(), images.transpose(0, 3, 1, 2))


def put_pictures(folder, names, content, archived):
    """Pictures as files, or in a zip that is called as the folder that they lie in."""
    if not archived:
        for name in names:
            put(folder / name, content)
        return
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    put(folder / f"{names[0].split('/')[0]}.zip", inside.getvalue())


@pytest.mark.parametrize("archived", [True, False])
def test_omniglot_is_inked_bright_unpacked_or_not(raw, archived):
    picture = np.where(np.eye(105) > 0, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).convert("1").save(buffer, "PNG")
    names = [f"images_evaluation/{script}/character01/0001_01.png" for script in ("B", "A")]
    put_pictures(raw / "omniglot-py", names, buffer.getvalue(), archived)
    source = layout_source(with_md5("omniglot", raw), "test", raw)
    (block,) = source.decode().blocks
    assert block.shape == (2, 1, 28, 28)
    assert source.n == 2
    assert block.mean() < 40


@pytest.mark.parametrize("archived", [True, False])
def test_celeba_takes_the_pictures_that_its_list_names(raw, archived):
    put(raw / "celeba/list_eval_partition.txt", b"000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    buffer = io.BytesIO()
    Image.fromarray(np.full((218, 178, 3), 9, np.uint8)).save(buffer, "JPEG")
    names = [f"img_align_celeba/00000{n}.jpg" for n in (1, 2, 3)]
    put_pictures(raw / "celeba", names, buffer.getvalue(), archived)
    found = ob.load_images("celeba/test")
    assert (found.shape, len(found)) == ((3, 32, 32), 1)


def test_the_sample_never_stands_in_without_a_word(raw, pixels, caplog, tmp_path, monkeypatch):
    put(raw / "MNIST/raw/t10k-labels-idx1-ubyte.gz", b"labels")
    found = ob.load_images("mnist/test[:5]")
    (said,) = found.remarks
    assert "mnist/test is the bundled sample" in said
    assert "MNIST is there without a whole MNIST/raw/t10k-images-idx3-ubyte" in said
    assert said in caplog.text
    put(raw / "KMNIST/raw/x", b"x")
    with pytest.raises(MissingDataError, match="KMNIST is there without a whole"):
        ob.load_images("kmnist")
    np.savez(tmp_path / "svhn_test.npz", images=np.zeros((5, 32, 32, 3), np.uint8))
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert "since svhn_test.npz has fewer, 5" in ob.load_images("svhn").remarks[0]
    assert not ob.load_images("fashionmnist").remarks


def test_nothing_is_unpacked_on_disk(raw, pixels):
    put(raw / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
    before = sorted(raw.rglob("*"))
    layout_source(with_md5("mnist", raw), "test", raw).decode()
    assert sorted(raw.rglob("*")) == before
    assert layouts.IDX_IMAGES == 0x803


# --- tables of pictures ---------------------------------------------------------------------------


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow", reason="reads tables with the extra `datasets`")


def pictures_of(pixels):
    contents = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        contents.append({"bytes": buffer.getvalue(), "path": None})
    return contents


def table(arrow, pixels, **columns):
    return arrow.table({"image": pictures_of(pixels), "label": list(range(len(pixels))), **columns})


def test_a_parquet_file_with_a_column_of_pictures(arrow, tmp_path, home, pixels):
    from pyarrow import parquet

    parquet.write_table(table(arrow, pixels), tmp_path / "x.parquet")
    found = ob.load_images(str(tmp_path / "x.parquet"))
    assert np.array_equal(found.images[:, 0], pixels)
    parquet.write_table(
        table(arrow, pixels, other=pictures_of(255 - pixels)), tmp_path / "two.parquet"
    )
    with pytest.raises(DataError, match="several columns of pictures"):
        ob.load_images(str(tmp_path / "two.parquet"))
    other = ob.load_images(f"{tmp_path}/two.parquet#other")
    assert np.array_equal(other.images[:, 0], 255 - pixels)
    parquet.write_table(arrow.table({"label": [1, 2]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"no column of pictures; it has label \(int64\)"):
        ob.load_images(str(tmp_path / "none.parquet"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        ob.load_images(str(tmp_path / "torn.parquet"))


def test_a_folder_as_the_hub_keeps_it(arrow, tmp_path, home, pixels):
    from pyarrow import parquet

    (tmp_path / "set/data").mkdir(parents=True)
    for split, part in (("train", pixels[:4]), ("test", pixels[4:])):
        parquet.write_table(
            table(arrow, part), tmp_path / f"set/data/{split}-00000-of-00001.parquet"
        )
    assert np.array_equal(ob.load_images(f"{tmp_path}/set").images[:, 0], pixels[4:])
    assert (
        len(ob.load_images(f"{tmp_path}/set/train")) + len(ob.load_images(f"{tmp_path}/set/ref"))
        == 4
    )


def test_a_folder_that_datasets_saved(arrow, tmp_path, home, pixels):
    def save(folder, part):
        folder.mkdir(parents=True)
        made = table(arrow, part)
        file = arrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb")
        with file, arrow.ipc.new_stream(file, made.schema) as stream:
            stream.write_table(made, max_chunksize=2)
        (folder / "state.json").write_text(
            '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
        )

    save(tmp_path / "flat", pixels)
    assert np.array_equal(ob.load_images(str(tmp_path / "flat")).images[:, 0], pixels)
    for split, part in (("train", pixels[:4]), ("test", pixels[4:])):
        save(tmp_path / "both" / split, part)
    (tmp_path / "both/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert np.array_equal(ob.load_images(str(tmp_path / "both")).images[:, 0], pixels[4:])


def test_a_table_without_pyarrow_says_what_to_install(tmp_path, home, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(sources.tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"needs the package pyarrow: `pip install 'oodbench\[datasets\]'`"
    ):
        ob.load_images(str(tmp_path / "x.parquet"))


# --- sets of published rows, made again


def published(card, **counts):
    """A card whose published images are the first of those that a test put into its official files."""
    made = {
        split: {"n": n, "sha256": content_hash(whole(sources.official(card, split).decode())[:n])}
        for split, n in counts.items()
    }
    return replace(card, published=made)


@pytest.fixture
def mnist_files(raw, pixels):
    put(raw / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
    return with_md5("mnist", raw)


def test_a_published_set_is_made_again_from_its_files(mnist_files, pixels, tmp_path):
    card = published(mnist_files, test=6)
    assert list(make(card)) == ["mnist/test: 6 images are those that were published"]
    first = published(mnist_files, test=4)
    said, path = make(first, tmp_path)
    assert said == "mnist/test: the first 4 of 6 images are those that were published"
    assert path == str(tmp_path / "mnist_test.npz")
    assert np.array_equal(np.load(path)["images"][:, 0], pixels)
    assert card.published["test"]["sha256"] == content_hash(pixels[:, None])


def test_other_images_than_were_published_are_named_and_not_written(mnist_files, tmp_path):
    other = replace(mnist_files, published={"test": {"n": 6, "sha256": "0" * 64}})
    with pytest.raises(DataError, match=r"mnist/test: the files give other images .* not 000"):
        list(make(other, tmp_path))
    assert not list(tmp_path.glob("*.npz"))
    more = replace(mnist_files, published={"test": {"n": 60, "sha256": "0" * 64}})
    with pytest.raises(DataError, match="only 6 of the 60 published images"):
        list(make(more))


def test_what_cannot_be_made_says_why(home, tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    np.savez(tmp_path / "svhn_test.npz", images=np.zeros((10, 32, 32, 3), np.uint8))
    with pytest.raises(MissingDataError, match=r"official files of svhn/test .* fetch svhn"):
        list(make(data_card("svhn")))  # an array is no official file
    with pytest.raises(DataError, match=r"celeba5k cannot be made again: .* JPEG-coded twice"):
        list(make(data_card("celeba5k")))
    with pytest.raises(DataError, match="kmnist stands in no published row"):
        list(make(data_card("kmnist")))


def test_a_part_is_made_from_the_set_that_it_is_of(raw, random, monkeypatch, tmp_path):
    images = random.integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    raw.mkdir(parents=True)
    scipy.io.savemat(raw / "test_32x32.mat", {"X": images.transpose(1, 2, 3, 0)})
    whole_set, sizes = with_md5("svhn", raw), {"train": 6, "ref": 2, "test": 2}
    monkeypatch.setattr(remake, "data_card", lambda name: whole_set)
    of_parts = part_indices(sizes)
    known = {
        split: {"n": len(rows), "sha256": content_hash(images[rows].transpose(0, 3, 1, 2))}
        for split, rows in of_parts.items()
    }
    part = {"of": "svhn/test", "sizes": sizes}
    card = replace(data_card("svhn10k"), part=part, published=known)
    assert [line.split(":")[0] for line in make(card)] == [f"svhn10k/{one}" for one in sizes]


def test_usps_is_read_as_libsvm_has_it(raw):
    levels = np.linspace(-1, 1, 512).reshape(2, 256)
    lines = (
        f"{label} " + " ".join(f"{i}:{level:.6f}" for i, level in enumerate(row, 1))
        for label, row in zip((10, 3), levels, strict=True)
    )
    put(raw / "usps.t.bz2", bz2.compress("\n".join(lines).encode() + b"\n"))
    source = layout_source(with_md5("usps", raw), "test", raw)
    assert np.array_equal(
        source.decode(), np.rint((levels + 1) * 127.5).astype(np.uint8).reshape(2, 1, 16, 16)
    )
    put(raw / "usps.t.bz2", bz2.compress(b"3 1:x\n"))
    with pytest.raises(DataError, match=r"usps\.t\.bz2 cannot be read as usps"):
        layout_source(with_md5("usps", raw), "test", raw).decode()


@pytest.mark.parametrize("archived", [True, False])
def test_the_small_omniglot_is_its_eight_alphabets(raw, archived):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((105, 105), np.uint8)).convert("1").save(buffer, "PNG")
    scripts = ("Tagalog", "Tifinagh", "Balinese")
    names = [f"images_background/{script}/character01/0001_01.png" for script in scripts]
    put_pictures(raw / "omniglot-py", names, buffer.getvalue(), archived)
    source = sources.official(with_md5("omniglot-small", raw), "test")
    assert source.n == 2
    assert [picture.name.split("/")[-3] for picture in source.pictures()] == ["Balinese", "Tagalog"]


def test_ten_textures_come_out_of_the_archive(raw):
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 50, np.uint8)).save(buffer, "PNG")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("cracked/b.png", "zigzagged/a.png", "banded/c.png"):
            member = tarfile.TarInfo(f"dtd/images/{name}")
            member.size = len(buffer.getvalue())
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    put(raw / "dtd/dtd-r1.0.1.tar.gz", packed.getvalue())
    source = sources.official(with_md5("dtd10", raw), "test")
    assert [picture.name[-12:] for picture in source.pictures()] == ["banded/c.png", "racked/b.png"]
    assert whole(source.decode()).shape == (2, 3, 32, 32)


def test_arrays_at_hand_are_those_that_were_published(shared_data, home):
    """Whoever has arrays of published sets finds that they are the very ones."""
    compared = []
    for card in catalog().values():
        for split in card.published if not card.part else ():
            source = sources.find(card, split)
            if source is not None and source.n >= card.published[split]["n"]:
                images = np.asarray(whole(source.decode()))
                compared.append((card.name, split, is_published(card, split, images)))
    assert compared
    assert [one for one in compared if not one[2]] == []
