"""What a folder of pictures holds: its splits, the files that are pictures, and what is left out, counted by reason."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from oodbench.errors import DataError
from oodbench.foreign import shown_path

PICTURES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tif", ".tiff", ".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".avif",
})  # fmt: skip
"""Suffixes of files that are read as pictures; a file without a suffix is one where its first bytes say so."""
WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "ref": "ref",
}  # fmt: skip
"""Names of folders (in any case) that are splits."""
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")
SIGNATURES = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF", b"P1", b"P2", b"P3", b"P4", b"P5",
    b"P6", b"\x00\x00\x00\x0cjP  ", b"\xffO\xffQ", b"\x00\x00\x00 ftypavif", b"\x00\x00\x00\x1cftypavif",
)  # fmt: skip
LONGEST = 16
"""Bytes that hold any of these signatures."""
PARQUET = ".parquet"
FIRST_WORD = re.compile(r"[A-Za-z]+")
SHOWN = 4
"""Reasons that a sentence on files that were left out names one by one."""


@dataclass
class Listing:
    """The pictures below a folder in sorted order, and how many other files are there, by reason."""

    folder: Path
    pictures: tuple[Path, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def remark(self) -> str:
        """A sentence on the files that were left out; empty where there are none."""
        if not self.left_out:
            return ""
        common = self.left_out.most_common()
        reasons = [f"{n:,} {reason}" for reason, n in common[:SHOWN]]
        if len(common) > SHOWN:
            reasons.append(f"{sum(n for _, n in common[SHOWN:]):,} others")
        files = len(self.pictures) + sum(self.left_out.values())
        return f"{len(self.pictures):,} of {files:,} files in {shown(self.folder)} read: left out {', '.join(reasons)}"


def shown(path: Path | str) -> str:
    """A path as a text that can be printed, whatever bytes its name holds."""
    return shown_path(path)


def listing(folder: Path, broken: Collection[str] = ()) -> Listing:
    """All pictures below a folder, also behind links, without those named in ``broken``.

    Raises
    ------
    DataError : a folder cannot be opened, or a picture is a link to nothing
    """
    found: list[Path] = []
    made = Listing(folder)
    for path in _files(folder, made.left_out):
        reason = "known to be unreadable" if path.name in broken else _not_a_picture(path)
        if reason:
            made.left_out[reason] += 1
        else:
            found.append(path)
    made.pictures = tuple(sorted(found))
    return made


def _files(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Every file below a folder that is not hidden; a folder that two links reach is walked once."""
    walked = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(here)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        left_out["in hidden folders"] += sum(
            _files_in(os.path.join(here, name)) for name in folders if _hidden(name)
        )
        folders[:] = sorted(name for name in folders if not _hidden(name))
        left_out["hidden"] += sum(map(_hidden, files))
        yield from (Path(here, name) for name in files if not _hidden(name))
    for reason in [reason for reason, n in left_out.items() if not n]:
        del left_out[reason]


def _files_in(folder: str) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


def _refuse(error: OSError) -> None:
    raise DataError(
        f"the folder {shown(str(error.filename))} cannot be opened ({error.strerror}); permit reading it"
    ) from error


def _not_a_picture(path: Path) -> str:
    """Why a file is left out; empty for a picture."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(_dangling(path, error)) from error
    if not stat.S_ISREG(mode):
        return "no regular file (a pipe, socket or device)"
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return ""
    if suffix:
        return suffix
    return "" if begins_as_picture(first_bytes(path)) else "without a suffix"


def _dangling(path: Path, error: OSError) -> str:
    if path.is_symlink():
        target = shown(os.readlink(path))
        return f"{shown(path)} is a link to {target}, which cannot be opened ({error.strerror}); remove the link or mend it"
    return f"{shown(path)} cannot be opened ({error.strerror})"


def begins_as_picture(content: bytes) -> bool:
    """Whether the first bytes of a file are those of a picture."""
    return content.startswith(SIGNATURES)


def first_bytes(path: Path) -> bytes:
    """As many bytes as tell what a file is; none where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST)
    except OSError:
        return b""


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders that are the splits of a folder: ``train``, ``ref``, ``test`` → path; empty for a flat folder.

    A folder has splits where it holds ``train`` and one of ``test`` and ``val``, or nothing but such folders. ``val`` is
    ``ref`` where there is a ``test`` beside it, else it is ``test``.

    Raises
    ------
    DataError : two folders are the same split by their names
    """
    words, others = _folders(folder)
    whole = "train" in words and ("test" in words or "val" in words)
    alone = bool(words) and not others and not _has_pictures(folder)
    if not (whole or alone):
        return {}
    return _as_splits(words)


T = TypeVar("T")


def _as_splits(words: dict[str, T]) -> dict[str, T]:
    """What stands under words as splits: ``val`` is ``ref`` where there is a ``test`` beside it, else it is ``test``."""
    if "val" in words:
        words.setdefault("ref" if "test" in words else "test", words["val"])
    return {split: words[split] for split in ("train", "ref", "test") if split in words}


def _folders(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders that are named as splits, and the names of the others."""
    words: dict[str, Path] = {}
    others = []
    for name in _visible_folders(folder):
        word = WORDS.get(name.lower())
        if word is None:
            others.append(name)
        elif word in words:
            raise DataError(
                f"{shown(folder)} holds both {words[word].name} and {name}, which are one split by their names; "
                "rename one of them"
            )
        else:
            words[word] = folder / name
    return words, others


def _visible_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(one.name for one in entries if one.is_dir() and not _hidden(one.name))
    except OSError:
        return []


def _has_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(one.name).suffix.lower() in PICTURES for one in entries if one.is_file())


def parquet_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The parquet files of a folder, and of its folder ``data``, by the splits that the hub names them by.

    They are all under ``all`` where their names say no split.
    """
    found = sorted([*folder.glob(f"*{PARQUET}"), *folder.glob(f"data/*{PARQUET}")])
    by_word: dict[str, tuple[Path, ...]] = {}
    for file in found:
        by_word[_first_word(file)] = (*by_word.get(_first_word(file), ()), file)
    if not found:
        return {}
    if "" in by_word:
        return {"all": tuple(found)}
    return _as_splits(by_word)


def _first_word(file: Path) -> str:
    """The split that a file's name begins with; empty for none."""
    match = FIRST_WORD.match(file.name)
    return WORDS.get(match[0].lower(), "") if match else ""


def beside_splits(folder: Path, splits: Collection[Path]) -> str:
    """A sentence on what lies beside the splits of a folder and is not used; empty where nothing does."""
    others = [name for name in _visible_folders(folder) if folder / name not in splits]
    loose = [
        name
        for name in os.listdir(folder)
        if Path(name).suffix.lower() in PICTURES and not _hidden(name)
    ]
    parts = [f"the folder {name}" for name in others[:SHOWN]]
    parts += [f"{len(others) - SHOWN:,} more folders"] * (len(others) > SHOWN)
    parts += [f"{len(loose):,} loose pictures"] * bool(loose)
    used = ", ".join(sorted(path.name for path in splits))
    return (
        f"{shown(folder)} is read by its folders {used}; not used: {', '.join(parts)}"
        if parts
        else ""
    )
