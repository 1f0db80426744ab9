"""Public sets in the files that their authors and torchvision use, archived or unpacked, each split by itself.

Nothing is unpacked on disk, and no code of a file is run: CIFAR's pickles are opened only where their MD5 is the published
one.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from oodbench.data.catalog import DataCard, Place
from oodbench.data.copies import Arrays, Source
from oodbench.data.folders import PICTURES, shown
from oodbench.data.pictures import Picture
from oodbench.data.reading import Pictures
from oodbench.errors import DataError
from oodbench.foreign import inside, parsing

IDX_IMAGES, IDX_LABELS = 0x803, 0x801
CIFAR_LABELS = ("labels", "fine_labels")
"""What batches of CIFAR-10 and of CIFAR-100 call the classes."""
Made = Source | None


def layout_source(card: DataCard, split: str, root: Path) -> Source | None:
    """The split of a card in a folder of raw files, or None where that is not here whole enough to be read."""
    place = card.places.get(split)
    if place is None:
        return None
    makers: dict[str, Callable[[DataCard, Place, Path], Made]] = {
        "idx": _idx, "cifar": _cifar, "mat": _mat, "libsvm": _libsvm, "pictures": _pictures,
    }  # fmt: skip
    return makers[place.kind](card, place, root)


def found_in_part(card: DataCard, split: str, root: Path) -> str:
    """A sentence where a folder holds something of a card but not what this split needs; empty where it holds nothing."""
    place = card.places.get(split)
    if place is None:
        return ""
    wanted = [path for path in (*place.unpacked, place.archive) if path]
    everything = [file["path"] for file in card.files]
    for other in card.places.values():
        everything += [*other.unpacked, other.archive, other.listed]
    tops = {PurePosixPath(path).parts[0] for path in everything if path}
    here = sorted(top for top in tops if _something_at(root, top))
    if not here:
        return ""
    needs = " or ".join(wanted[:2])
    return f"{', '.join(shown(root / name) for name in here)} is there without a whole {needs}"


def _something_at(root: Path, top: str) -> bool:
    path = root / top
    part = path.with_name(f"{path.name}.part")
    return path.is_file() or part.exists() or (path.is_dir() and any(path.iterdir()))


def _where(card: DataCard, root: Path) -> str:
    return f"torchvision {card.torchvision} in {root}"


def md5_of(file: Path) -> str:
    """MD5 of a file, which the catalog's sources publish."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def check_md5(file: Path, expected: str) -> None:
    """Raise :class:`DataError` unless the file has this MD5."""
    found = md5_of(file)
    if found != expected:
        raise DataError(
            f"{file} has MD5 {found}, not {expected}: it is damaged or another version; delete it and fetch it again"
        )


def _verified(card: DataCard, root: Path, path: str) -> None:
    for file in card.files:
        if file["path"] == path:
            check_md5(root / path, file["md5"])


def _damaged(card: DataCard, file: Path, error: Exception) -> DataError:
    how = card.how_to_get()
    return DataError(f"{shown(file)} cannot be read as {card.name} ({error}); get it again: {how}")


def _idx(card: DataCard, place: Place, root: Path) -> Made:
    """MNIST's format: unpacked, gzipped, or gzipped in a zip."""
    for path, opening in ((place.unpacked[0], open), (f"{place.unpacked[0]}.gz", gzip.open)):
        if (root / path).is_file():
            labels = _beside(path)
            known = (root / labels).is_file()
            of_labels: Any = partial(opening, root / labels, "rb") if known else None
            return _idx_source(
                card, root, path, partial(opening, root / path, "rb"), labels, of_labels
            )
    if place.archive and (root / place.archive).is_file():
        opened = partial(_gzip_in_zip, root / place.archive, place.inside)
        of_labels = partial(_gzip_in_zip, root / place.archive, _beside(place.inside))
        return _idx_source(card, root, place.archive, opened, place.archive, of_labels)
    return None


def _beside(images: str) -> str:
    """The file of labels that belongs to one of images."""
    return images.replace("images-idx3", "labels-idx1")


def _gzip_in_zip(archive: Path, member: str) -> gzip.GzipFile:
    with zipfile.ZipFile(archive) as opened:
        return gzip.open(io.BytesIO(opened.read(member)))


def _idx_source(
    card: DataCard, root: Path, path: str, opening: Callable[[], Any], labels: str,
    of_labels: Callable[[], Any] | None,
) -> Source:  # fmt: skip
    file = root / path

    def count() -> int:
        with opening() as opened:
            return _idx_shape(opened.read(16))[0]

    def make() -> np.ndarray:
        _verified(card, root, path)
        try:
            with opening() as opened:
                shape = _idx_shape(opened.read(16))
                images = np.frombuffer(opened.read(), np.uint8).reshape(shape)[:, None]
        except Exception as error:  # zip, gzip and the format itself each break in their own ways
            raise _damaged(card, file, error) from error
        return images.swapaxes(2, 3) if card.transposed else images

    try:
        n = count()
    except Exception:  # decoding says what is wrong with the file
        n = max(card.counts.values())
    recipe = f"idx {card.transposed}"
    told = of_labels and partial(_idx_labels, card, root, labels, of_labels)
    return Arrays(_where(card, root), (file,), n, recipe, labels=told, make=make)


def _idx_labels(card: DataCard, root: Path, path: str, opening: Callable[[], Any]) -> np.ndarray:
    _verified(card, root, path)
    try:
        with opening() as opened:
            kind, n = struct.unpack(">II", opened.read(8))
            labels = np.frombuffer(opened.read(), np.uint8)
        if kind != IDX_LABELS or len(labels) != n:
            raise ValueError(f"it begins with {kind:#x} and holds {len(labels)} of {n} labels")
    except Exception as error:  # as of images
        raise _damaged(card, root / path, error) from error
    return labels


def _idx_shape(head: bytes) -> tuple[int, int, int]:
    kind, n, height, width = struct.unpack(">IIII", head)
    if kind != IDX_IMAGES:
        raise ValueError(f"it begins with {kind:#x}, not with {IDX_IMAGES:#x}")
    return n, height, width


def _one_file(
    card: DataCard, place: Place, root: Path, recipe: str, read: Callable[[Path], np.ndarray]
) -> Made:
    """A split that is one file, which ``read`` takes apart."""
    file = root / place.unpacked[0]
    if not file.is_file():
        return None

    def make() -> np.ndarray:
        _verified(card, root, place.unpacked[0])
        try:
            return read(file)
        except Exception as error:  # as above
            raise _damaged(card, file, error) from error

    return Arrays(_where(card, root), (file,), card.counts[place.split], recipe, make=make)


def _mat(card: DataCard, place: Place, root: Path) -> Made:
    """SVHN's MATLAB files, ``X`` of shape (32, 32, 3, N)."""
    return _one_file(card, place, root, "mat X", _read_mat)


def _read_mat(file: Path) -> np.ndarray:
    from scipy.io import loadmat

    return np.asarray(loadmat(file)["X"]).transpose(3, 2, 0, 1)


def _cifar(card: DataCard, place: Place, root: Path) -> Made:
    """CIFAR's batches, unpacked or in their archive; of the unpacked ones, those before the first that is missing."""
    here = []
    for path in place.unpacked:
        if not (root / path).is_file():
            break
        here.append(path)
    each = card.counts[place.split] // len(place.unpacked)
    archive = root / place.archive
    if len(here) < len(place.unpacked) and archive.is_file():
        contents = partial(_from_tar, card, place, root)
        n, files = card.counts[place.split], [archive]
    elif here:
        contents = partial(_from_batches, place, [root / path for path in here])
        n, files = each * len(here), [root / path for path in here]
    else:
        return None
    make, labels = partial(_images_of, contents), partial(_labels_of, contents)
    where = _where(card, root)
    return Arrays(where, tuple(files), n, "cifar batches", labels=labels, make=make)


def _from_tar(card: DataCard, place: Place, root: Path) -> list[bytes]:
    archive = root / place.archive
    _verified(card, root, place.archive)
    try:
        with tarfile.open(archive) as opened:
            return [_member(opened, path) for path in place.unpacked]
    except Exception as error:  # as above
        raise _damaged(card, archive, error) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    opened = archive.extractfile(name)
    if opened is None:
        raise ValueError(f"{name} is no file")
    return opened.read()


def _from_batches(place: Place, files: Iterable[Path]) -> list[bytes]:
    found = []
    for file in files:
        check_md5(file, place.md5[file.name])
        found.append(file.read_bytes())
    return found


def _images_of(contents: Callable[[], list[bytes]]) -> np.ndarray:
    rows = [np.asarray(_batch(content)["data"]) for content in contents()]
    return np.concatenate(rows).reshape(-1, 3, 32, 32)


def _labels_of(contents: Callable[[], list[bytes]]) -> np.ndarray:
    batches = map(_batch, contents())
    return np.concatenate([next(b[name] for name in CIFAR_LABELS if name in b) for b in batches])


def _batch(content: bytes) -> dict[str, Any]:
    """One batch, whose MD5 was compared, or that of its archive."""
    return dict(pickle.loads(content, encoding="latin1"))


def _libsvm(card: DataCard, place: Place, root: Path) -> Made:
    """USPS as LIBSVM's text has it, a line an image: its label, and ``number:level`` of each pixel with levels in [−1, 1]."""
    return _one_file(card, place, root, "libsvm rounded", _read_libsvm)


def _read_libsvm(file: Path) -> np.ndarray:
    with bz2.open(file, "rt") as opened:
        levels = [[part.split(":")[1] for part in line.split()[1:]] for line in opened]
    values = np.array(levels, np.float64).reshape(-1, 1, 16, 16)
    return np.rint((values + 1) / 2 * 255).astype(np.uint8)


def _pictures(card: DataCard, place: Place, root: Path) -> Made:
    """Pictures in a folder or an archive, all in sorted order, or those that a list names."""
    folder, archive = root / place.unpacked[0], root / place.archive
    if folder.is_dir():
        source = _unpacked(card, place, root, folder)
    elif place.archive and archive.is_file():
        source = _archived(card, place, root, archive)
    else:
        source = None
    return source and source.through(card.base_view)


def _unpacked(card: DataCard, place: Place, root: Path, folder: Path) -> Pictures | None:
    if place.listed:
        if not (root / place.listed).is_file():
            return None
        names = _listed(place, _text_of(root / place.listed))
        paths = [inside(folder, name, DataError, root / place.listed) for name in names]
        files = [path for path in paths if path.is_file()]
    else:
        files = sorted(
            file
            for file in folder.rglob("*")
            if _belongs(place, file.relative_to(folder).as_posix()) and file.is_file()
        )
    if not files:
        return None
    pictures = [Picture(str(file), file) for file in files]
    return Pictures(_where(card, root), tuple(files), len(files), "", pictures=lambda: pictures)


def _archived(card: DataCard, place: Place, root: Path, archive: Path) -> Pictures | None:
    if place.listed and not place.list_inside and not (root / place.listed).is_file():
        return None

    def pictures() -> Iterator[Picture]:
        _verified(card, root, place.archive)
        with parsing(archive, DataError, card.name, f"get it again: {card.how_to_get()}"):
            yield from _in_archive(archive, place, root)

    try:
        n = (
            len(_names(archive, place, root))
            if archive.suffix == ".zip"
            else card.counts[place.split]
        )
    except Exception:  # decoding says what is wrong with the file
        n = card.counts[place.split]
    return Pictures(_where(card, root), (archive,), n, "", pictures=pictures)


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def _belongs(place: Place, name: str) -> bool:
    """Whether a picture, by its name below the split's folder, is the split's where no list says so."""
    chosen = not place.folders or PurePosixPath(name).parts[0] in place.folders
    return chosen and _is_picture(name)


def _text_of(file: Path) -> str:
    with parsing(file, DataError, "a list of pictures"):
        return file.read_text("utf-8")


def _listed(place: Place, text: str) -> list[str]:
    """The names in a list of a split: the first word of each line, of those that end in the split's code, where it has one."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [line[0] for line in lines if not place.code or line[-1] == place.code]


def _names(archive: Path, place: Place, root: Path) -> list[str]:
    """Members of a zip that are the split's pictures, in order."""
    with zipfile.ZipFile(archive) as opened:
        names = _below(place, opened.namelist())
    if place.listed:
        wanted = _listed(place, _text_of(root / place.listed))
        there = set(names)
        return [place.inside + name for name in wanted if place.inside + name in there]
    return names


def _below(place: Place, names: Iterable[str]) -> list[str]:
    """Members of an archive that are the split's pictures where no list says so, in sorted order."""
    start = place.inside
    found = [
        name
        for name in names
        if name.startswith(start) and _belongs(place, name.removeprefix(start))
    ]
    return sorted(found, key=lambda name: PurePosixPath(name).parts)


def _in_archive(archive: Path, place: Place, root: Path) -> Iterator[Picture]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for name in _names(archive, place, root):
                yield Picture(f"{archive}/{name}", opened.read(name))
        return
    with tarfile.open(archive) as opened:
        for name in _names_in_tar(opened, place):
            yield Picture(f"{archive}/{name}", _member(opened, name))


def _names_in_tar(archive: tarfile.TarFile, place: Place) -> list[str]:
    if not place.listed:
        return _below(place, archive.getnames())
    names = _listed(place, _member(archive, place.list_inside).decode())
    return [place.inside + name for name in names]
