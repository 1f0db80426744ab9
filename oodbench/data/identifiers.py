"""Names of image sets: ``name/split[first N][n drawn, seed S]@view``, where the name is a set's or a path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from oodbench.data.catalog import catalog
from oodbench.data.folders import parquet_files, split_folders
from oodbench.data.own import WHOLE, own_files
from oodbench.data.views import check_view
from oodbench.errors import DataError

TAIL = re.compile(
    r"(\[(?P<division>\d+/\d+/\d+)\])?(/(?P<split>all|train|ref|test))?"
    r"(\[first (?P<prefix>[1-9]\d*)\])?(\[part (?P<part>[1-9]\d*) of (?P<parts>[1-9]\d*)\])?"
    r"(\[(:(?P<limit>[1-9]\d*)|(?P<draw>[1-9]\d*) drawn(, seed (?P<seed>[1-9]\d*))?)\])?"
    r"(@(?P<view>[\w,-]+))?"
)
COUNTS = re.compile(r"\[[^]]*\]")
SHARED = re.compile(r"\[\d+ shared\]$")
"""Stands behind the name of images of which only those are meant that another run has too."""
DIVIDED = re.compile(r"\[\d+/\d+/\d+\]$")
QUOTED = re.compile(r"(?P<quote>['\"])(?P<name>.+?)(?P=quote)(?P<tail>($|[/\[@]).*)", re.DOTALL)
ODD = re.compile(r"[@\[\]'\"\n]")
"""Letters that a name has to be quoted for, where it is no path that exists."""
MEMBER = "#"
"""Stands between a file and the name of one of the arrays, or columns, that it holds."""
Part = tuple[int, int]
Division = tuple[int, int, int]
"""Per cent of `train`, `ref` and `test`."""
DIVISION: Division = (70, 15, 15)


@dataclass(frozen=True)
class Identifier:
    """``name[division]/split[first N][part k of m][n drawn]@view`` in its parts; as text again by ``str``.

    Attributes
    ----------
    name : of a set, or a path, with ``#`` and a name behind it where a file holds several arrays
    split : ``train``, ``ref`` or ``test``; ``all`` is a flat folder or array as a whole
    prefix : the first N images of the official split, in its order; None: all that are here
    draw : n images of those, drawn by :func:`oodbench.data.division.drawn_rows`; None: all of them
    view : None leaves it to the rule, ``""`` cannot be written
    division : per cent of a flat folder or array that are ``train``, ``ref`` and ``test``; None: 70, 15 and 15
    part : (k, m): the k-th of m parts of the first N, in a fixed random order, which share no image; None: all
    seed : of the draw; 0 draws the beginning of the usual order, and every other seed has an order of its own
    """

    name: str
    split: str = "test"
    prefix: int | None = None
    draw: int | None = None
    view: str | None = None
    division: Division | None = None
    part: Part | None = None
    seed: int = 0

    def __str__(self) -> str:
        return self.set_text + self.tail

    @property
    def tail(self) -> str:
        """What stands behind the set: ``/split[first N][part k of m][n drawn, seed S]@view``."""
        first = "" if self.prefix is None else f"[first {self.prefix}]"
        of_seed = f", seed {self.seed}" * bool(self.seed)
        drawn = "" if self.draw is None else f"[{self.draw} drawn{of_seed}]"
        view = f"@{self.view}" if self.view else ""
        return f"/{self.split}{first}{shown_part(self.part)}{drawn}{view}"

    @property
    def set_text(self) -> str:
        """The name as it has to be written, with the division where that is not the usual one."""
        odd = ODD.search(self.name) or os.path.lexists(f"{self.name}/{self.split}")
        name = _quoted(self.name) if odd else self.name
        return name + shown_division(self.division)

    def in_split(self, split: str) -> Identifier:
        """The same set in the same view: itself for its own split, the whole of any other.

        A flat folder or array as a whole stands for its ``test``.
        """
        if split == self.split or (split == "test" and self.split == WHOLE):
            return replace(self, split=split)
        return Identifier(self.name, split, view=self.view, division=self.division)

    def seen_through(self, view: str) -> Identifier:
        """The same images in another view."""
        return replace(self, view=view)


def shown_part(part: Part | None) -> str:
    """A part as an identifier shows it; empty for the whole."""
    return "" if part is None else "[part {} of {}]".format(*part)


def shown_division(division: Division | None) -> str:
    """A division as an identifier shows it; empty for the usual one."""
    return "" if division in (None, DIVISION) else "[{}/{}/{}]".format(*division)


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def parse_identifier(identifier: str) -> Identifier:
    """``name/split[first N][n drawn]@view`` into its parts, of which only the name must be there.

    ``[:n]`` is short for ``[n drawn]``, which is the draw of seed 0. A name of the catalog is that set; else the longest
    beginning that is a path is that path, whatever letters it holds. Any other name that holds ``@`` or ``[`` may be put in
    quotes. Without a split, a flat folder or array is meant as a whole, and ``test`` of anything else.

    >>> str(parse_identifier("mnist[:500]@pad32"))
    'mnist/test[500 drawn]@pad32'

    Raises
    ------
    DataError : it is no identifier, or its view or its division is none
    """
    name, tail = _name_and_tail(identifier)
    if tail["view"]:
        check_view(tail["view"])
    prefix, draw = _count(tail["prefix"]), _count(tail["draw"] or tail["limit"])
    division, part = _division(tail["division"], identifier), _part(tail, identifier)
    seed = _count(tail["seed"]) or 0
    folder = None if tail["split"] else _test_of(name)
    if folder is not None:
        return Identifier(folder, "test", prefix, draw, tail["view"], division, part, seed)
    split = tail["split"] or _usual_split(name)
    return Identifier(name, split, prefix, draw, tail["view"], division, part, seed)


def _name_and_tail(identifier: str) -> tuple[str, re.Match[str]]:
    """The set's name in an identifier, and the match of what stands behind it."""
    quoted = QUOTED.fullmatch(identifier)
    if quoted and (tail := TAIL.fullmatch(quoted["tail"])) and not os.path.lexists(identifier):
        return quoted["name"], tail
    readings = _readings(identifier)
    plain = next(((name, tail) for name, tail in readings if not ODD.search(name)), None)
    if plain and plain[0] in catalog():
        return plain
    for name, tail in reversed(readings):
        if os.path.lexists(os.path.expanduser(name)) or (ODD.search(name) and own_files(name)):
            return name, tail
    if plain is None:
        raise DataError(
            f"{identifier!r} is no image set; write name/split[first N][n drawn]@view, for instance "
            "cifar10/test[500 drawn]@grey, with the name in quotes where it holds @ or [; no path is called so"
        )
    return plain


def _readings(identifier: str) -> list[tuple[str, re.Match[str]]]:
    """The ways to take an identifier apart, the shortest name first."""
    ends = [i for i in range(1, len(identifier)) if identifier[i] in "/[@"]
    tails = [(end, TAIL.fullmatch(identifier, end)) for end in (*ends, len(identifier))]
    return [(identifier[:end], tail) for end, tail in tails if tail and end]


def in_parts(identifier: str) -> tuple[str, str]:
    """The name in an identifier as rows hold it, and what stands behind it; nothing is looked up on this machine.

    >>> in_parts("a.b@home [x]/test[500 drawn]@pad32")
    ('a.b@home [x]', '/test[500 drawn]@pad32')
    """
    name, tail = _readings(identifier)[0]
    return name, tail[0]


def without_counts(identifier: str) -> str:
    """An identifier without how many of the set's images are meant, and how the set was divided."""
    name, tail = in_parts(SHARED.sub("", identifier))
    return name + COUNTS.sub("", tail)


def _count(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _part(tail: re.Match[str], identifier: str) -> Part | None:
    if tail["part"] is None:
        return None
    part, parts = int(tail["part"]), int(tail["parts"])
    if part > parts:
        raise DataError(f"{identifier} means part {part} of {parts}; the parts are 1 to {parts}")
    return part, parts


def _division(text: str | None, identifier: str) -> Division | None:
    if text is None:
        return None
    train, ref, test = (int(part) for part in text.split("/"))
    return checked_division((train, ref, test), identifier)


def checked_division(division: Division, where: str) -> Division:
    """A division whose parts are some per cent each and 100 together; :class:`DataError` for any other."""
    if sum(division) != 100 or min(division) < 1:
        shown = "/".join(map(str, division))
        raise DataError(
            f"{where}: the division {shown} into train, ref and test must be three whole numbers above 0 "
            "that make 100 together, for instance 60/20/20"
        )
    return division


def as_path(name: str) -> Path | None:
    """The path that a set's name is, without the member of a file; None for a name that is none.

    A name of the catalog is no path; ``./mnist`` is one.
    """
    if name in catalog():
        return None
    path = Path(file_and_member(name)[0]).expanduser()
    return path if os.path.lexists(path) or looks_like_path(name) else None


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path, be it there or not."""
    return os.sep in name or name.startswith((".", "~")) or bool(Path(name).suffix in FILE_SUFFIXES)


FILE_SUFFIXES = (".npz", ".npy", ".mat", ".png", ".jpg", ".jpeg", ".parquet", ".zip", ".h5", ".pt")


def file_and_member(name: str) -> tuple[str, str]:
    """``file#member`` in its parts; the member is empty where none is named, or where the path itself holds the ``#``."""
    if MEMBER not in name or os.path.lexists(os.path.expanduser(name)):
        return name, ""
    file, _, member = name.rpartition(MEMBER)
    return file, member


def bare_set(name: str) -> str:
    """The name of a set without its division and quotes, for names that no split may follow."""
    return name if os.path.lexists(name) else DIVIDED.sub("", name).strip("'\"")


def _test_of(name: str) -> str | None:
    """The folder with splits of which a path is the ``test`` folder, or None."""
    path = as_path(name)
    if path is None or not path.is_dir() or not path.name:
        return None
    found = split_folders(path.parent)
    same = "test" in found and os.path.samefile(found["test"], path)
    return os.path.dirname(name.rstrip(os.sep)) or "." if same else None


def _usual_split(name: str) -> str:
    """The split that is meant where none is named."""
    path = as_path(name)
    if path is None:
        flat = name not in catalog() and set(own_files(name)) == {WHOLE}
    else:
        flat = not (path.is_dir() and (split_folders(path) or len(parquet_files(path)) > 1))
    return WHOLE if flat else "test"


def set_key(reference: str) -> str:
    """What two references to one set have in common: the name, or the real path."""
    parsed = parse_identifier(reference)
    file, member = file_and_member(parsed.name)
    key = (
        parsed.name if as_path(parsed.name) is None else os.path.realpath(os.path.expanduser(file))
    )
    return f"{key}{MEMBER if member else ''}{member}"
