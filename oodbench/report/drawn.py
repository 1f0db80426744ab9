"""Which figures on disk are those that the stored rows give: ``figures/drawn.json`` says what each was
drawn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from oodbench.paths import write_if_changed
from oodbench.report.harmless import is_harmless
from oodbench.report.illustrations import Illustration

MANIFEST = Path("figures") / "drawn.json"


def draw_stale(folder: Path, illustrations: Iterable[Illustration]) -> None:
    """Draw the figures that are missing or were drawn from something else; remove those that are drawn
    from nothing now."""
    wanted = list(illustrations)
    known = _manifest(folder)
    todo = stale(folder, wanted)
    if todo:
        # here, since matplotlib takes a second that a folder without changes saves
        from oodbench.report.figures import draw

        draw(folder, todo)
    for path in orphans(folder, wanted):
        path.unlink()
    drawable = {one.file: _record(folder, one) for one in wanted if one.drawn_from}
    if drawable or known:
        content = json.dumps(drawable, indent=0, sort_keys=True, ensure_ascii=False)
        write_if_changed(folder / MANIFEST, f"{content}\n".encode())


def stale(folder: Path, illustrations: Iterable[Illustration]) -> list[Illustration]:
    """The figures that can be drawn and are not there as they would be."""
    known = _manifest(folder)
    drawable = [one for one in illustrations if one.drawn_from]
    return [one for one in drawable if not _is_drawn(folder, one, known.get(one.file))]


def _is_drawn(folder: Path, one: Illustration, known: dict[str, str] | None) -> bool:
    """Whether a figure's file is there and is the one that was drawn."""
    record = _record(folder, one)
    return record == known and "sha256" in record and _can_be_shown(folder / one.file)


def _can_be_shown(path: Path) -> bool:
    """Whether a page can hold the drawing; one that others made to do more is drawn again."""
    return path.suffix != ".svg" or is_harmless(path.read_text("utf-8", errors="replace"))


def _record(folder: Path, one: Illustration) -> dict[str, str]:
    """What a figure is drawn from, and the hash of its file where that is there."""
    path = folder / one.file
    known = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
    return {"from": one.digest, **known}


def orphans(folder: Path, illustrations: Iterable[Illustration]) -> list[Path]:
    """Files of figures that were drawn from rows and have none any more."""
    wanted = {one.file for one in illustrations}
    paths = [folder / name for name in sorted(_manifest(folder)) if name not in wanted]
    return [path for path in paths if path.is_file() and path.parent == folder / "figures"]


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # a figure is only drawn again
    return (
        {name: one for name, one in found.items() if isinstance(one, dict)}
        if isinstance(found, dict)
        else {}
    )
