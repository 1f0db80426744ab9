"""Images kept as arrays, ``.npy`` and ``.npz``: which array of a file it is, and what has to be done to one that is none."""

from __future__ import annotations

import math
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from oodbench.data.copies import Arrays
from oodbench.data.folders import shown
from oodbench.errors import DataError
from oodbench.foreign import check_packing, printable, reason_of

ARRAY_SUFFIXES = (".npz", ".npy")
LABELS = "labels"
"""The array of an ``.npz`` that holds the class of each image."""
USUAL = "images"
"""The array of an ``.npz`` that is taken where it has several."""
Header = tuple[tuple[int, ...], np.dtype[Any]]


def array_files(files: tuple[Path, ...], member: str = "") -> Arrays:
    """``.npz`` or ``.npy`` files, joined in the order given.

    Parameters
    ----------
    member : name of the array in an ``.npz``; without one it is ``images``, or the only array that the file has
    """
    where = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name}"
    headers = [_header(file, member) for file in files]
    for file, (shape, dtype) in zip(files, headers, strict=True):
        if dtype.hasobject:
            raise unreadable(file, ValueError("it holds Python objects, which are never opened"))
        _layout(shape, file)
    n = sum(shape[0] for shape, _ in headers)
    recipe = f"arrays {member}".strip()
    told = all(file.suffix.lower() == ".npz" and LABELS in arrays_of(file) for file in files)
    labels = partial(_joined_labels, files) if told else None
    return Arrays(where, files, n, recipe, labels=labels, make=partial(_joined, files, member))


def _joined(files: tuple[Path, ...], member: str) -> np.ndarray:
    arrays = [_read(file, member) for file in files]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        names = " and ".join(file.name for file in files)
        raise DataError(
            f"{names} hold images of unequal shapes, {sorted(shapes)}, and are no one set"
        )
    return np.concatenate(arrays)


def _joined_labels(files: tuple[Path, ...]) -> np.ndarray:
    found = []
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found.append(arrays[LABELS])
        except Exception as error:  # as of images
            raise unreadable(file, error) from error
    return np.concatenate(found)


def arrays_of(file: Path) -> dict[str, Header]:
    """Name → shape and type of each array of an ``.npz``, from their headers alone."""
    with _reading(file), zipfile.ZipFile(file) as archive:
        members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
        return {one.filename.removesuffix(".npy"): _header_in(archive, one) for one in members}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Whatever zip, LZMA, npy and the system raise becomes the sentence of :func:`unreadable`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise unreadable(file, error) from error


def _header_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as opened:
        return _read_header(opened, member.file_size)


def _read_header(opened: Any, size: int) -> Header:
    """Shape and type, as far as the file holds what its header promises."""
    read = {1: npy_format.read_array_header_1_0, 2: npy_format.read_array_header_2_0}
    shape, _, dtype = read[npy_format.read_magic(opened)[0]](opened)
    promised, held = math.prod(shape) * dtype.itemsize, size - opened.tell()
    if min(shape, default=0) < 0 or (promised > held and not dtype.hasobject):
        raise ValueError(
            f"its header promises {promised:,} bytes, shape {shape} of {dtype}, and {held:,} are there"
        )
    return shape, dtype


def _header(file: Path, member: str = "") -> Header:
    if file.suffix.lower() != ".npy":
        with _reading(file):
            check_packing(file, _regular_size(file))
        arrays = arrays_of(file)
        return arrays[chosen_array(arrays, file, member)]
    if member:
        raise DataError(
            f"{shown(file)} is one array, of which {member!r} cannot be a part; name the file alone"
        )
    with _reading(file):
        size = _regular_size(file)
        with file.open("rb") as opened:
            return _read_header(opened, size)


def _regular_size(file: Path) -> int:
    """Bytes of a file; a pipe or a device, which would be waited for, is refused."""
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is no regular file: a folder, pipe, socket or device")
    return about.st_size


def chosen_array(arrays: Mapping[str, Header], file: Path, member: str) -> str:
    """The array of an ``.npz`` that is meant; :class:`DataError` lists them where it cannot be known."""
    if member in arrays or (not member and len(arrays) == 1):
        return member or next(iter(arrays))
    if not member and USUAL in arrays:
        return USUAL
    known = list(arrays.items())
    listed = ", ".join(f"{printable(name)} {dtype} {shape}" for name, (shape, dtype) in known[:20])
    listed += f" and {len(known) - 20} more" * (len(known) > 20)
    likely = [name for name, (shape, _) in arrays.items() if len(shape) >= 3] or list(arrays)
    if not arrays:
        raise DataError(f"{shown(file)} holds no array")
    fault = f"has no array {member!r}" if member else "has several arrays"
    raise DataError(
        f"{shown(file)} {fault}; it holds {listed}. Name the one that is meant: {shown(file)}#{likely[0]}"
    )


def _read(file: Path, member: str) -> np.ndarray:
    _header(file, member)  # what it promises may have changed since
    with _reading(file):
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            images = loaded
        else:
            with loaded:
                images = loaded[chosen_array(arrays_of(file), file, member)]
    return channels_first(images, file)


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file whose arrays cannot be read."""
    return DataError(
        f"{shown(file)} cannot be read as images ({reason_of(error)}). It should be a .npz with an array `images`, or a .npy, "
        "uint8 of shape (N, H, W), (N, H, W, 3) or (N, C, H, W); the file may be cut short or damaged: get it again."
    )


def channels_first(images: np.ndarray, file: Path | str) -> np.ndarray:
    """``(N,H,W)``, ``(N,H,W,1|3)`` or ``(N,1|3,H,W)`` uint8 to ``(N,C,H,W)``; anything else is a :class:`DataError`."""
    layout = _layout(images.shape, file)
    if images.dtype != np.uint8:
        raise DataError(f"{shown(file)} holds {images.dtype} values{_advice(images)}")
    if images.size and images.max() == 1 and images.min() == 0:
        raise DataError(
            f"{shown(file)} holds the values 0 and 1 alone, which would be black and almost black of 0…255; "
            "if 1 is white, multiply by 255"
        )
    if layout == "NHW":
        return images[:, None]
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)


def _layout(shape: tuple[int, ...], file: Path | str) -> str:
    """``NHW``, ``NCHW`` or ``NHWC``; :class:`DataError` where a shape is none of them, or may be two."""
    if 0 in shape[1:]:
        raise DataError(f"{shown(file)} has shape {shape}: its images have no pixels")
    if len(shape) == 3 and not _may_be_one_picture(shape):
        return "NHW"
    if len(shape) == 4:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first != last or (first and shape[1] == shape[3] == 1):
            return "NCHW" if first else "NHWC"
    raise DataError(f"{shown(file)} has shape {shape}; {_shape_advice(shape)}")


def _may_be_one_picture(shape: tuple[int, ...]) -> bool:
    """Whether three axes may be channels, height and width, or height, width and channels."""
    return shape[0] == 3 or shape[2] in (1, 3) or (shape[2] == 4 and shape[1] > 4)


def _shape_advice(shape: tuple[int, ...]) -> str:
    wanted = "images must be (N,H,W), (N,H,W,3) or (N,C,H,W)"
    if len(shape) == 2:
        return (
            f"{wanted}: reshape the rows to images, or one picture to (1, {shape[0]}, {shape[1]})"
        )
    if len(shape) == 3:
        return f"{wanted}: one picture, or grey ones? Save one picture as x[None], and several grey ones as x[:, None]"
    if len(shape) == 4 and shape[2] in (1, 3):
        return f"{wanted}: with the images last, save x.transpose(3, 0, 1, 2)"
    if len(shape) == 4 and 4 in (shape[1], shape[3]):
        return f"{wanted}: four channels are read of picture files alone; composite the alpha on a ground and save three"
    if len(shape) == 4 and shape[1] in (1, 3):
        return f"{wanted}: the channels may be the second part or the last; save it as (N,C,H,W) with more than 3 columns"
    return wanted


def _advice(images: np.ndarray) -> str:
    """What to do with values that are not uint8, by their range."""
    what = "; images must be uint8 in 0…255"
    if images.dtype == bool:
        return f"{what}: x.astype(np.uint8) * 255"
    if images.dtype.kind not in "iuf" or not images.size:
        return what
    finite = images[np.isfinite(images)]
    if len(finite) < images.size:
        return f", {images.size - finite.size:,} of them not finite{what}: mend those first"
    low, high = finite.min(), finite.max()
    span = f" from {low:g} to {high:g}{what}"
    if images.dtype.kind in "iu":
        return f"{span}: {_integer_advice(int(low), int(high))}"
    return f"{span}: {_float_advice(float(low), float(high))}"


def _integer_advice(low: int, high: int) -> str:
    if low >= 0 and high <= 1:
        return "if 1 is white, (x * 255).astype(np.uint8)"
    if low >= 0 and high <= 255:
        return "x.astype(np.uint8)"
    return "divide by the value that is white, 65535 or another, and save (x / white * 255).round().astype(np.uint8)"


def _float_advice(low: float, high: float) -> str:
    if low >= 0 and high <= 1:
        return "values in [0, 1] become (x * 255).round().astype(np.uint8)"
    if low >= -0.5 and high <= 0.5:
        return "values in [−½, ½] become ((x + 0.5) * 255).round().astype(np.uint8)"
    if low >= -1 and high <= 1:
        return "values in [−1, 1] become ((x + 1) * 127.5).round().astype(np.uint8)"
    if low >= 0 and high <= 255:
        return "values in [0, 255] become x.round().astype(np.uint8)"
    return "they seem standardised or scaled; undo that first, then round and cast"
