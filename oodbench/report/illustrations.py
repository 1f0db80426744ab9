"""A figure as a value: what it shows, what it is drawn from, where it lies, and its caption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from oodbench.report.tables import text
from oodbench.store import Row, key_of

DRAWING = 3
"""Version of the drawing; a new one whenever :mod:`oodbench.report.figures` draws the same rows in
another way."""
INK = "#4d4d4d"
"""The colour of text and axes on a light ground."""
INK_STYLE = (
    f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#c8c8c8}}}}</style>"
)
"""In each figure, whose ink is ``currentColor``: it follows the reader's screen."""
BEYOND = "The axes leave out half a per cent at each set's ends, and what lies far outside its quartiles."


@dataclass(frozen=True)
class Illustration:
    """One figure: what it shows, of which model (or in-dist set), and its caption as inline markdown."""

    kind: str
    of: str
    caption: str
    drawn_from: list[Row] = field(default_factory=list, repr=False)
    file_name: str = ""
    """Of ``of``, where another figure's name is alike."""

    @property
    def label(self) -> str:
        """What stands in the figure's place where it cannot be shown."""
        return f"{self.kind} of {self.of}" if self.of else self.kind

    @property
    def file(self) -> str:
        """Path of its drawing, an SVG, relative to the results folder."""
        name = f"{self.file_name}-{self.kind}" if self.of else self.kind
        return f"figures/{name}.svg"

    @property
    def digest(self) -> str:
        """Hash of all that the drawing depends on."""
        return key_of(DRAWING, self.kind, self.drawn_from)


def left_out(rows: Iterable[Row]) -> str:
    """A sentence that counts the values of histograms that are not finite; nothing where all are."""
    sets = [one for row in rows for one in row.get("sets", []) if one.get("not_finite")]
    found = [f"{one['not_finite']:,} of {one['n']:,} values on {text(one['set'])}" for one in sets]
    return f" Left out, being NaN or infinite: {'; '.join(dict.fromkeys(found))}." if found else ""
