"""Finding image sets on this machine and decoding them; never on the network.

Three places are looked at: the folder ``$OODBENCH_DATA``, the fetched files under ``$OODBENCH_HOME/raw``, and the sample
in the package. The one with the most images wins, so a full set takes the place of the sample as soon as it is there.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from PIL import Image, UnidentifiedImageError

from oodbench.data.catalog import DataCard
from oodbench.data.views import apply_view
from oodbench.errors import DataError
from oodbench.paths import PACKAGE, data_folder, home

SAMPLE = PACKAGE / "data" / "sample"
DRAWN = 100
"""Training images of an in-dist set that travel in the package: the beginning of a draw, to be looked at, not to be fitted to."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}


@dataclass(frozen=True)
class Source:
    """Where one split can be read: the files, how many images, and how to decode them.

    Attributes
    ----------
    decode : returns uint8 ``(N, C, H, W)``
    recipe : all that ``decode`` depends on beside the files, in words; with them the identity of what it returns
    """

    where: str
    files: tuple[Path, ...]
    n: int
    decode: Callable[[], np.ndarray]
    recipe: str


def raw_roots() -> list[Path]:
    """Folders that may hold torchvision's layout or unpacked archives."""
    return [root for root in (data_folder(), home() / "raw") if root is not None]


def find(card: DataCard, split: str) -> Source | None:
    """The largest copy of ``card``'s split on this machine; among equals the user's own folder comes first."""
    candidates = [
        source for source in _candidates(card, split) if source is not None and source.n > 0
    ]
    return max(candidates, key=lambda source: source.n, default=None)


def own_sets(cards: Mapping[str, DataCard]) -> list[str]:
    """Names of the .npz sets in the user's folder that no card claims."""
    folder = data_folder()
    claimed = {file for card in cards.values() for files in card.npz.values() for file in files}
    files = [file for file in folder.glob("*.npz") if file.name not in claimed] if folder else []
    stems = {re.sub(r"(_(train|test|ref))?(_part\d+)?$", "", file.stem) for file in files}
    return sorted(stem for stem in stems if stem.replace("_", "-") not in cards)


def _candidates(card: DataCard, split: str) -> Iterable[Source | None]:
    folder = data_folder()
    if folder is not None:
        yield from (_npz(folder, patterns) for patterns in _npz_names(card, split))
    for root in raw_roots():
        if split in card.splits and all((root / file["path"]).exists() for file in card.files):
            yield _torchvision(card, split, root)
        if split in card.planar_npz:
            yield _planar(root, card.planar_npz[split])
        if split in card.folder:
            yield image_folder(root / card.folder[split], card.base_view, card.broken)
    yield _sample(card, split)


def _sample(card: DataCard, split: str) -> Source | None:
    found = _npz(SAMPLE, f"{card.name}_{split}.npz")
    order = "in the random order of ref" if split == "ref" else "in the official order"
    return found and replace(found, where=f"bundled sample, the first {order}")


def drawn_train(card: DataCard) -> Source | None:
    """The training images that travel in the package; no copy of the split, so that :func:`find` never takes them for one."""
    found = _npz(SAMPLE, f"{card.name}_train_drawn.npz")
    return found and replace(found, where="bundled sample, drawn")


def is_sample(source: Source) -> bool:
    """Whether a source is a file of the sample in the package."""
    return all(file.parent == SAMPLE for file in source.files)


def _npz_names(card: DataCard, split: str) -> list[str]:
    stem = card.name.replace("-", "_")
    names = [f"{stem}_{split}.npz", f"{stem}_{split}_part*.npz", *card.npz.get(split, [])]
    return names + [f"{stem}.npz"] * (split == "test")


def _npz(folder: Path, pattern: str) -> Source | None:
    files = tuple(sorted(folder.glob(pattern), key=_numbers_in_order))
    return array_files(files) if files else None


def _numbers_in_order(file: Path) -> list[tuple[int, str]]:
    """A sorting key that puts part 2 before part 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)
    ]


def array_files(files: tuple[Path, ...]) -> Source:
    """``.npz`` files with an ``images`` array, or ``.npy`` files, joined in the order given."""
    where = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name}"
    n = sum(map(_count, files))
    return Source(
        where, files, n, lambda: np.concatenate([_read(file) for file in files]), "arrays"
    )


def _count(file: Path, member: str = "images") -> int:
    """Number of images, from the array's header alone."""
    try:
        if file.suffix == ".npy":
            return int(np.load(file, mmap_mode="r", allow_pickle=False).shape[0])
        with zipfile.ZipFile(file) as archive, archive.open(f"{member}.npy") as header:
            read = {1: npy_format.read_array_header_1_0, 2: npy_format.read_array_header_2_0}
            return int(read[npy_format.read_magic(header)[0]](header)[0][0])
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, KeyError, IndexError) as error:
        raise _unreadable(file, error) from error


def _read(file: Path) -> np.ndarray:
    try:
        loaded = np.load(file, allow_pickle=False)
        images = loaded if isinstance(loaded, np.ndarray) else loaded["images"]
    except Exception as error:  # zip, LZMA and npy each have their own ways to be broken
        raise _unreadable(file, error) from error
    return channels_first(images, file)


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read as images ({error}). It should be a .npz with an array `images`, or a .npy, "
        "uint8 of shape (N, H, W), (N, H, W, 3) or (N, C, H, W); the file may be cut short or damaged: get it again."
    )


def channels_first(images: np.ndarray, file: Path | str) -> np.ndarray:
    """``(N,H,W)``, ``(N,H,W,1|3)`` or ``(N,1|3,H,W)`` uint8 to ``(N,C,H,W)``; anything else is a :class:`DataError`."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{file} holds {images.dtype} values; images must be uint8 in 0…255 (round and cast them first)"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    raise DataError(
        f"{file} has shape {images.shape}; images must be (N,H,W), (N,H,W,3) or (N,C,H,W)"
    )


def _planar(root: Path, pattern: str) -> Source | None:
    """The ``data`` arrays of Chrabaszcz et al.: one row an image, all red, then green, then blue."""
    files = tuple(sorted(root.glob(pattern), key=_numbers_in_order))

    def decode() -> np.ndarray:
        rows = np.concatenate([np.load(file, allow_pickle=False)["data"] for file in files])
        side = round((rows.shape[1] / 3) ** 0.5)
        return rows.reshape(-1, 3, side, side)

    if not files:
        return None
    n = sum(_count(file, "data") for file in files)
    return Source(files[0].parent.name, files, n, decode, "planar arrays")


def image_folder(folder: Path, view: str = "", broken: Collection[str] = ()) -> Source | None:
    """All image files below a folder in sorted order; grey when every one is, else RGB.

    Images of unequal sizes need a ``view`` that makes them equal. Files named in ``broken``, known to be unreadable in
    the original, are left out.
    """
    found = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    files = tuple(sorted(file for file in found if file.name not in broken))
    if not files:
        return None
    where = str(folder)
    return Source(
        where, files, len(files), lambda: _stack(map(_open, files), view, where), f"pictures@{view}"
    )


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"{file} is not a readable image ({error}); remove it or get it again"
        ) from error


def _stack(images: Iterable[Image.Image], view: str, where: str) -> np.ndarray:
    decoded = [np.asarray(image if image.mode == "L" else image.convert("RGB")) for image in images]
    colour = any(image.ndim == 3 for image in decoded)
    arrays = []
    for image in decoded:
        array = (
            image.transpose(2, 0, 1)
            if image.ndim == 3
            else np.repeat(image[None], 3 if colour else 1, axis=0)
        )
        arrays.append(apply_view(array[None], view))
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        some = " and ".join(str(shape[1:]) for shape in sorted(shapes)[:2])
        raise DataError(
            f"{where} holds images of unequal shapes ({some}, …); name a view such as @square,resize32-bilinear-aa"
        )
    return np.concatenate(arrays)


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


def _torchvision(card: DataCard, split: str, root: Path) -> Source | None:
    """A torchvision class over files that are already there and whole."""
    files = tuple(root / file["path"] for file in card.files)
    marker = root / card.torchvision.lower()
    if not files and not marker.is_dir():
        return None

    def decode() -> np.ndarray:
        from torchvision import datasets

        for file in (
            card.files
        ):  # else `download=True`, which unpacks archives, would fetch a damaged one again
            check_md5(root / file["path"], file["md5"])
        try:
            dataset = getattr(datasets, card.torchvision)(
                root, **card.splits[split], download=bool(files)
            )
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"torchvision cannot read {card.name} from {root} ({error}); get it: {card.how_to_get()}"
            ) from error
        if not hasattr(dataset, "data"):
            pictures = (dataset[i][0] for i in range(len(dataset)))
            images = _stack(
                (p.convert("L") if card.inverted else p for p in pictures),
                card.base_view,
                card.name,
            )
        else:
            images = channels_first(np.asarray(dataset.data), card.name)
        images = images.swapaxes(2, 3) if card.transposed else images
        return 255 - images if card.inverted else images

    options = [card.splits[split], card.base_view, card.transposed, card.inverted]
    recipe = f"{card.torchvision} {json.dumps(options, sort_keys=True)}"
    where = f"torchvision {card.torchvision} in {root}"
    return Source(where, files or (marker,), card.counts[split], decode, recipe)
