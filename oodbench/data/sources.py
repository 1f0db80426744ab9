"""Finding image sets on this machine; never on the network.

Three places are looked at: the folder ``$OODBENCH_DATA``, the fetched files under ``$OODBENCH_HOME/raw``, and the sample
in the package. The one with the most images wins, so a full set takes the place of the sample as soon as it is there. What
was found and is not used is said.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from oodbench.data import tables
from oodbench.data.arrays import ARRAY_SUFFIXES, array_files, arrays_of, unreadable
from oodbench.data.catalog import DataCard
from oodbench.data.copies import Arrays, Source
from oodbench.data.folders import (
    PARQUET,
    PICTURES,
    beside_splits,
    listing,
    parquet_files,
    shown,
    split_folders,
)
from oodbench.data.layouts import found_in_part, layout_source
from oodbench.data.own import WHOLE, first_files, numbers_in_order, own_files
from oodbench.data.reading import image_folder
from oodbench.errors import DataError
from oodbench.paths import PACKAGE, data_folder, home

SAMPLE = PACKAGE / "data" / "sample"
DRAWN = 100
"""Training images of an in-dist set that travel in the package: the beginning of a draw, to be looked at, not to be fitted to."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
OTHER_FILES = {
    ".mat": "is a MATLAB file; save its array, np.savez('x.npz', images=scipy.io.loadmat(file)['X']), with the images first",
    ".h5": "is an HDF5 file; save its array with np.savez('x.npz', images=…)",
    ".pt": "is a PyTorch file; save its tensor with np.savez('x.npz', images=tensor.numpy())",
    ".pkl": "is a pickle, which is never opened; save its array with np.savez('x.npz', images=…)",
    ".arrow": "is one file of a saved dataset; name the folder that `datasets` saved",
}
OTHER_FILES |= {
    ".hdf5": OTHER_FILES[".h5"],
    ".pth": OTHER_FILES[".pt"],
    ".pickle": OTHER_FILES[".pkl"],
}


def raw_roots() -> list[Path]:
    """Folders that may hold torchvision's layout or unpacked archives."""
    return [root for root in (data_folder(), home() / "raw") if root is not None]


def find(card: DataCard, split: str) -> Source | None:
    """The largest copy of ``card``'s split on this machine; among equals the user's own folder comes first."""
    candidates = [
        source for source in _candidates(card, split) if source is not None and source.n > 0
    ]
    chosen = max(candidates, key=lambda source: source.n, default=None)
    if chosen is None:
        return None
    return replace(chosen, remarks=(*chosen.remarks, *_unused(card, split, chosen, candidates)))


def _unused(
    card: DataCard, split: str, chosen: Source, candidates: Iterable[Source]
) -> Iterable[str]:
    """Where the sample stands in for files that are there: a sentence on each of them."""
    if not is_sample(chosen):
        return
    said = f"{card.name}/{split} is the {chosen.where} {chosen.n:,}"
    for source in candidates:
        if not is_sample(source):
            yield f"{said}, since {source.where} has fewer, {source.n:,}"
    for sentence in in_part(card, split):
        yield f"{said}: {sentence}"


def in_part(card: DataCard, split: str) -> list[str]:
    """Sentences on what is here of a card and does not make up this split."""
    found = (found_in_part(card, split, root) for root in raw_roots())
    return [sentence for sentence in found if sentence]


def _candidates(card: DataCard, split: str) -> Iterable[Source | None]:
    folder = data_folder()
    if folder is not None:
        yield from (_npz(folder, patterns) for patterns in _npz_names(card, split))
    yield from _official(card, split)
    yield _sample(card, split)


def official(card: DataCard, split: str) -> Source | None:
    """A split in the files that its authors publish, and in no array that was made of them."""
    return next((source for source in _official(card, split) if source is not None), None)


def _official(card: DataCard, split: str) -> Iterable[Source | None]:
    for root in raw_roots():
        yield layout_source(card, split, root)
        if split in card.planar_npz:
            yield _planar(root, card.planar_npz[split])
        if split in card.folder and (root / card.folder[split]).is_dir():
            yield image_folder(root / card.folder[split], card.base_view, card.broken)


def _sample(card: DataCard, split: str) -> Source | None:
    found = _npz(SAMPLE, f"{card.name}_{split}.npz")
    order = "in the random order of ref" if split == "ref" else "in the official order"
    return found and replace(found, where=f"bundled sample, the first {order}")


def drawn_sample(card: DataCard, split: str) -> Source | None:
    """The beginning of a draw of a split that travels in the package; no copy of the split, so that :func:`find` never takes it
    for one."""
    found = _npz(SAMPLE, f"{card.name}_{split}_drawn.npz")
    return found and replace(found, where="bundled sample, drawn")


def is_sample(source: Source) -> bool:
    """Whether a source is a file of the sample in the package."""
    return all(file.parent == SAMPLE for file in source.files)


def _npz_names(card: DataCard, split: str) -> list[str]:
    stem = glob.escape(card.name.replace("-", "_"))
    names = [f"{stem}_{split}.npz", f"{stem}_{split}_part*.npz", *card.npz.get(split, [])]
    return names + [f"{stem}.npz"] * (split == "test")


def _npz(folder: Path, pattern: str) -> Source | None:
    files = first_files(folder, [pattern])
    return array_files(files) if files else None


def _planar(root: Path, pattern: str) -> Source | None:
    """The ``data`` arrays of Chrabaszcz et al.: one row an image, all red, then green, then blue."""
    files = tuple(sorted(root.glob(pattern), key=numbers_in_order))
    if not files:
        return None
    n = sum(_rows(file) for file in files)
    make = partial(_from_planar, files)
    return Arrays(files[0].parent.name, files, n, "planar arrays", make=make)


def _rows(file: Path) -> int:
    try:
        return arrays_of(file)["data"][0][0]
    except (KeyError, IndexError) as error:
        raise unreadable(file, error) from error


def _from_planar(files: Iterable[Path]) -> np.ndarray:
    rows = np.concatenate([np.load(file, allow_pickle=False)["data"] for file in files])
    side = round((rows.shape[1] / 3) ** 0.5)
    return rows.reshape(-1, 3, side, side)


def own_sources(name: str) -> dict[str, Source]:
    """The splits of a set that only the user's folder knows, ``all`` where it has none; empty for no such set."""
    return {split: array_files(files) for split, files in own_files(name).items()}


def sources_at(path: Path, member: str = "") -> dict[str, Source]:
    """The splits that are at a path, or ``all`` for a flat folder or file.

    Parameters
    ----------
    member : array of an ``.npz`` or column of a table, where several are there

    Raises
    ------
    DataError : nothing is there, or nothing that holds images
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(_nothing_at(path, error)) from error
    if stat.S_ISDIR(mode):
        return _in_folder(path, member)
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{shown(path)} is a pipe, socket or device; name a folder of pictures, an .npz or an .npy file"
        )
    return {WHOLE: _in_file(path, member)}


def _nothing_at(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return f"{shown(path)} is a link to {shown(os.readlink(path))}, which is not there; mend the link"
    return f"{shown(path)} cannot be opened ({error.strerror}); is the path right, seen from {shown(Path.cwd())}?"


def _in_file(file: Path, member: str) -> Source:
    suffix = file.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return array_files((file,), member)
    if suffix == PARQUET:
        return tables.table_source((file,), member)
    if suffix in PICTURES:
        raise DataError(f"{shown(file)} is one picture; a set is a folder of them: name the folder")
    if suffix in ARCHIVES:
        raise DataError(f"{shown(file)} is an archive; unpack it and name the folder of pictures")
    kind = OTHER_FILES.get(suffix, "is no file of images that is known")
    raise DataError(
        f"{shown(file)} {kind}. Images are read from folders of pictures, .npz, .npy and parquet files"
    )


def _in_folder(folder: Path, member: str) -> dict[str, Source]:
    splits = split_folders(folder)
    if not splits:
        return _flat(folder, member)
    beside = beside_splits(folder, splits.values())
    found = {split: _flat(path, member) for split, path in splits.items()}
    made = {}
    for split, sources in found.items():
        if set(sources) != {WHOLE}:
            raise DataError(
                f"{shown(splits[split])} has splits of its own; name that folder, or one below it"
            )
        source = sources[WHOLE]
        made[split] = replace(source, remarks=(*source.remarks, *filter(None, [beside])))
    return made


def _flat(folder: Path, member: str) -> dict[str, Source]:
    if (folder / tables.STATE).is_file():
        return {WHOLE: tables.saved_source(folder, member)}
    pictures = image_folder(folder)
    if pictures is not None and not member:
        return {WHOLE: pictures}
    parquet = parquet_files(folder)
    if parquet:
        return {split: tables.table_source(files, member) for split, files in parquet.items()}
    raise DataError(_no_pictures(folder))


def _no_pictures(folder: Path) -> str:
    left_out = listing(folder).left_out
    there = ", ".join(f"{n:,} {reason}" for reason, n in left_out.most_common(4))
    arrays = sorted(file.name for file in folder.glob("*.np[yz]"))
    advice = (
        f"name one of its arrays, {shown(folder / arrays[0])}"
        if arrays
        else "name a folder that holds some"
    )
    return f"{shown(folder)} is a folder without pictures (it holds {there or 'nothing'}); {advice}"
