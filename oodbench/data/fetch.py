"""Downloading, only when asked: resumed where it stopped, verified, and renamed when whole."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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
    start : called once with the total size in bytes
    progress : called with the number of further bytes

    Raises
    ------
    DataError : no connection, an address or a redirect that anybody on the way could answer, an error answer, no size or
        more bytes than it, more than the disk has room for, a broken transfer or a wrong hash
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    _check_address(url)
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
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
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


def _check_address(url: str) -> None:
    """Refuse what is not https: MD5 guards against accidents, not against who stands between; this machine's own aside."""
    address = urllib.parse.urlsplit(url)
    own = address.hostname in ("127.0.0.1", "::1", "localhost")
    if address.scheme != "https" and not (own and address.scheme == "http"):
        raise DataError(f"{url} is not fetched, since it is no https address; get the file by hand")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(
    request: urllib.request.Request, part: Path, have: int, progress: Progress, start: Progress
) -> None:
    with urllib.request.build_opener(_Redirects).open(request, timeout=60) as answer:
        resumed = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        _check_room(request.full_url, part.parent, length)
        start(length + have * resumed)
        if resumed:
            progress(have)
        received = 0
        with part.open("ab" if resumed else "wb") as file:
            while received < length and (chunk := answer.read(min(BLOCK, length - received))):
                file.write(chunk)
                received += len(chunk)
                progress(len(chunk))
    if received < length:
        raise OSError(f"{received:,} of {length:,} bytes arrived")


def _check_room(url: str, folder: Path, length: int) -> None:
    """The size is known before the first byte is written, and there is room for it."""
    if length <= 0:
        raise DataError(f"{url} does not say how large it is, and is not fetched; get it by hand")
    free = shutil.disk_usage(folder).free
    if length > free:
        raise DataError(f"{url} has {length:,} bytes, and {folder} has room for {free:,}")


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
