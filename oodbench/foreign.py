"""What others wrote: parsers that are not ours, names of files inside files, and text that is shown to people.

Whatever a foreign parser raises becomes one sentence with the file's name; sizes have a limit, which the sentence names.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

from oodbench.errors import OodbenchError

BOMB, RATIO = 1 << 30, 200
"""Bytes from which a zip is refused that keeps them in less than a two-hundredth."""
LARGEST_JSON = 64 << 20
"""Bytes of a JSON file that is read at once."""
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that show nothing, or tell a terminal what to do: controls, marks that turn the order of letters."""
OF_RUST = "PanicException"
"""What a parser in Rust raises where it stumbles: no Exception for Python."""
REASON = 300
"""Characters of a parser's own words that a sentence repeats."""


def printable(text: object) -> str:
    """Text of others for a terminal: what would move the cursor, hide or turn letters is shown as its number.

    Line feeds stay.

    >>> printable("a\\x1b[2J\\nb")
    'a\\\\x1b[2J\\nb'
    """
    shown = str(text)
    if shown.isascii() and shown.replace("\n", "").isprintable():
        return shown
    return "".join(map(_plain, shown))


def _plain(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in HIDDEN:
        return character
    return ascii(character)[1:-1]


def shown_path(path: object) -> str:
    """A path on one line, whatever bytes its name holds."""
    text = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
    return printable(text).replace("\n", "\\n")


def reason_of(error: BaseException) -> str:
    """What a parser said, on one line and not without end."""
    try:
        said = " ".join(printable(error).split())
    except Exception:  # its class may fail to say what it is
        said = ""
    said = said if len(said) <= REASON else said[:REASON] + "…"
    return said or type(error).__name__


@contextmanager
def parsing(
    path: object, kind: type[OodbenchError], what: str, remedy: str = "get it again"
) -> Iterator[None]:
    """Whatever a foreign parser raises inside becomes one sentence of ``kind`` that names the file.

    Parameters
    ----------
    what : what the file should be, as in "cannot be read as …"
    """
    try:
        yield
    except OodbenchError:
        raise
    except RecursionError as error:
        raise kind(
            f"{shown_path(path)} cannot be read as {what} (it is nested too deep); {remedy}"
        ) from error
    except Exception as error:  # each parser has its own ways to fail
        raise kind(_sentence(path, what, error, remedy)) from error
    except BaseException as error:
        if type(error).__name__ != OF_RUST:
            raise
        raise kind(_sentence(path, what, error, remedy)) from error


def _sentence(path: object, what: str, error: BaseException, remedy: str) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
    return f"{shown_path(path)} cannot be read as {what} ({reason}); {remedy}"


def check_size(path: Path, most: int, kind: type[OodbenchError], what: str) -> None:
    """:class:`OodbenchError` of ``kind`` for a file that is none (a pipe, a device), or has more bytes than ``most``."""
    mode, size = os.stat(path).st_mode, os.stat(path).st_size
    if not stat.S_ISREG(mode):
        raise kind(f"{shown_path(path)} is no regular file (a folder, pipe, socket or device)")
    if size > most:
        raise kind(
            f"{shown_path(path)} has {size:,} bytes, more than the {most:,} that are read of {what}"
        )


def check_packing(file: Path | IO[bytes], size: int) -> None:
    """:class:`ValueError` for a zip that would grow beyond measure: numbers and pictures are not so, bombs are."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > BOMB and unpacked > RATIO * size:
        raise ValueError(
            f"its {size:,} bytes would become {unpacked:,}, more than {RATIO} times as many"
        )


def read_json(path: Path, kind: type[OodbenchError], what: str, remedy: str) -> dict[str, Any]:
    """The object in a JSON file; :class:`OodbenchError` of ``kind`` where it cannot be read or holds none."""
    with parsing(path, kind, what, remedy):
        check_size(path, LARGEST_JSON, kind, what)
        found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise kind(f"{shown_path(path)} is not {what} (it holds no object); {remedy}")
    return found


def inside(folder: Path, name: object, kind: type[OodbenchError], where: object) -> Path:
    """The file ``name`` below ``folder``, where a file of others named it; one that leads out of the folder is refused."""
    text = name if isinstance(name, str) else ""
    parts = PurePath(text)
    if not text or "\0" in text or parts.is_absolute() or ".." in parts.parts:
        raise kind(
            f"{shown_path(where)} names the file {printable(repr(name))}, which is not below {shown_path(folder)}; "
            "files are named relative to their folder, without .."
        )
    return folder / parts
