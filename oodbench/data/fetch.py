"""Downloading, only when asked: resumed where it stopped, verified, and renamed when whole."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from oodbench.data import sources
from oodbench.data.catalog import DataCard
from oodbench.data.copies import whole
from oodbench.data.images import ImageSet, load_images
from oodbench.data.layouts import check_md5, md5_of
from oodbench.data.remake import is_published
from oodbench.errors import DataError
from oodbench.paths import home

BLOCK = 1 << 18
Progress = Callable[[int], object]


def download(
    url: str,
    path: Path,
    md5: str,
    progress: Progress = lambda done: None,
    start: Progress = lambda total: None,
) -> None:
    """Download ``url`` to ``path`` through ``path.part``, which an interrupted download leaves to be resumed.

    Parameters
    ----------
    md5 : of the whole file; another one deletes the part and raises
    start : called once with the total size in bytes (0 where the server does not say)
    progress : called with the number of further bytes

    Raises
    ------
    DataError : no connection, an error answer, a broken transfer or a wrong hash
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"Range": f"bytes={have}-", "User-Agent": "oodbench"}
    )
    try:
        _receive(request, part, have, progress, start)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is already whole
            raise DataError(
                f"{url} answers {error.code} {error.reason}; try later, or get the file by hand to {path}"
            ) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{url} broke off ({reason}); what arrived is kept: run the same command to go on"
        ) from error
    try:
        check_md5(part, md5)
    except DataError:
        part.unlink()
        raise
    os.replace(part, path)


def _receive(
    request: urllib.request.Request, part: Path, have: int, progress: Progress, start: Progress
) -> None:
    with urllib.request.urlopen(request, timeout=60) as answer:
        resumed = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        start(length + have * resumed)
        if resumed:
            progress(have)
        received = 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(BLOCK):
                file.write(chunk)
                received += len(chunk)
                progress(len(chunk))
    if length and received < length:
        raise OSError(f"{received:,} of {length:,} bytes arrived")


def fetch(
    card: DataCard, start: Callable[[str, int], object], progress: Callable[[str, int], object]
) -> list[ImageSet]:
    """Download a set's files that are not here yet, then decode its splits.

    ``start(file, size)`` and ``progress(file, bytes)`` are told how it goes.

    Raises
    ------
    DataError : the set cannot be downloaded by a program; the message says how to get it
    """
    if not card.files:
        raise DataError(
            f"{card.name} cannot be fetched by a program: {card.how_to_get() or 'it is generated, not downloaded'}"
        )
    for file in card.files:
        path, name = home() / "raw" / file["path"], Path(file["path"]).name
        if path.exists() and md5_of(path) == file["md5"]:
            continue
        download(file["url"], path, file["md5"], partial(progress, name), partial(start, name))
    return [load_images(f"{card.name}/{split}") for split in card.splits]


def verify(card: DataCard) -> list[str]:
    """Check what is here of a set; returns a line a finding.

    Fetched files are compared with their MD5, and every split that is here is decoded anew.
    """
    findings = []
    for file in card.files:
        path = home() / "raw" / file["path"]
        if path.exists():
            check_md5(path, file["md5"])
            findings.append(f"{file['path']}: MD5 as it should be")
    for split in ("train", "ref", "test"):
        source = sources.find(card, split)
        if source is not None:
            images = whole(source.decode())
            compared = {None: "", True: ", as published", False: ", not those that were published"}
            findings.append(
                f"{card.name}/{split}: {len(images):,} images of {images.shape[1:]} from {source.where}"
                f"{compared[is_published(card, split, images)]}"
            )
    return findings
