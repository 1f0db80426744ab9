"""The sets that only a user's folder of arrays knows: ``$OODBENCH_DATA/NAME_test.npz`` and the like."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from oodbench.data.catalog import DataCard
from oodbench.paths import data_folder

SPLIT_OF_A_NAME = re.compile(r"(_(train|test|ref))?(_part\d+)?$")
WHOLE = "all"
"""The split that is every image of a flat folder or array."""


def own_sets(cards: Mapping[str, DataCard]) -> list[str]:
    """Names of the .npz sets in the user's folder that no card claims."""
    folder = data_folder()
    claimed = {file for card in cards.values() for files in card.npz.values() for file in files}
    files = [file for file in folder.glob("*.npz") if file.name not in claimed] if folder else []
    stems = {SPLIT_OF_A_NAME.sub("", file.stem) for file in files if file.is_file()}
    return sorted(stem for stem in stems if stem and stem.replace("_", "-") not in cards)


def own_files(name: str) -> dict[str, tuple[Path, ...]]:
    """The files of a set that only the user's folder knows, by split; ``all`` where they are not divided."""
    folder = data_folder()
    if folder is None:
        return {}
    found = {}
    for split in ("train", "ref", "test"):
        patterns = [pattern for stem in _stems(name) for pattern in _patterns(f"{stem}_{split}")]
        found[split] = first_files(folder, patterns)
    flat = first_files(folder, [one for stem in _stems(name) for one in _patterns(stem)])
    if flat and not any(found.values()):
        return {WHOLE: flat}
    found["test"] = found["test"] or flat
    return {split: files for split, files in found.items() if files}


def _stems(name: str) -> list[str]:
    """A name as the files may spell it, literally first."""
    return list(dict.fromkeys([name, name.replace("-", "_")]))


def _patterns(stem: str) -> Iterator[str]:
    yield f"{glob.escape(stem)}.npz"
    yield f"{glob.escape(stem)}_part*.npz"


def first_files(folder: Path, patterns: Iterable[str]) -> tuple[Path, ...]:
    """The regular files of the first pattern that fits some, part 2 before part 10."""
    matches = ([file for file in folder.glob(pattern) if file.is_file()] for pattern in patterns)
    return tuple(sorted(next(filter(None, matches), []), key=numbers_in_order))


def numbers_in_order(file: Path) -> list[tuple[int, str]]:
    """A sorting key that puts part 2 before part 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)
    ]
