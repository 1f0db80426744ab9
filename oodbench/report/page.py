"""The report as one self-contained HTML page, and as its markdown twin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from oodbench.report.harmless import is_harmless
from oodbench.report.illustrations import INK_STYLE, Illustration
from oodbench.report.section import Section
from oodbench.report.tables import HEAD, only_here_notes, slug, table, text

INLINE = re.compile(
    r"\\(?P<letter>[\\|`<*~$\[_&])"
    r"|`(?P<code>[^`]+)`"
    r"|\[(?P<label>[^\]]+)\]\((?P<target>(?!//)[\w./#-]+)\)"
)
"""The inline markdown that texts may hold: an escaped letter, code, a link to a file beside the page."""


VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
BROAD = 1.7
"""Width over height above which a figure takes the full width."""
LEAST_WIDTH = 600
"""Pixels below which no figure shrinks."""


def markdown_page(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
    """The report in markdown, its figures as SVG files beside it."""
    parts = [HEAD, f"# {title}\n", *(f"{line}\n" for line in intro)]
    for section in sections:
        parts += [f"## {section.title}\n", *(f"{line}\n" for line in section.text)]
        parts += [table(*one) for one in section.tables if one[1]]
        parts += [_figure(one) for one in section.figures]
    return "\n".join(parts)


def _figure(one: Illustration) -> str:
    return f"![{text(one.label)}]({one.file})\n\n*{one.caption}*\n"


def html_page(title: str, intro: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """The report as one file: figures inside as SVG, no script, nothing loaded; light or dark as the
    reader's screen is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": slug, "prose": prose, "bare": bare}
    return environment.get_template("page.html.j2").render(
        head=HEAD,
        title=title,
        intro=intro,
        sections=sections,
        headline=next((one for section in sections for one in section.figures), None),
        svg=lambda one: _svg(folder, one),
        broad=lambda one: _is_broad(folder, one),
        numeric=_is_number,
        notes=only_here_notes,
    )


def prose(words: str) -> Markup:
    """Inline markdown as HTML; whatever is not of that kind is shown letter by letter."""
    shown, done = Markup(""), 0
    for found in INLINE.finditer(words):
        shown += escape(words[done : found.start()]) + _marked_up(found)
        done = found.end()
    return shown + escape(words[done:])


def _marked_up(found: re.Match[str]) -> Markup:
    if found["letter"]:
        return escape(found["letter"])
    if found["code"]:
        return Markup("<code>{}</code>").format(found["code"])
    return Markup('<a href="{}">{}</a>').format(found["target"], found["label"])


def bare(words: str) -> str:
    """Inline markdown as plain text, for an attribute."""
    return prose(words).striptags()


def _is_number(cell: str) -> bool:
    return bool(re.match(r"[+−-]?\d", cell)) or cell in ("–", "")


def _is_broad(folder: Path, illustration: Illustration) -> bool:
    """Whether a figure has its panels side by side, and takes the full width of the page."""
    path = folder / illustration.file
    found = VIEW_BOX.search(path.read_text("utf-8")) if path.exists() else None
    return bool(found) and float(found[1]) > BROAD * float(found[2])  # type: ignore[index]


def _svg(folder: Path, illustration: Illustration) -> Markup:
    """A figure's drawing, its ink the page's; empty where it was not drawn."""
    path = folder / illustration.file
    drawing = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if not is_harmless(drawing):
        return Markup("")
    drawing = drawing[drawing.index("<svg") :].replace(INK_STYLE, "")  # the page has its own
    label = escape(illustration.label)
    head, rest = drawing.split(">", 1)
    points = re.search(r' width="([\d.]+)pt"', head)
    # narrower, and letters cannot be read: a phone scrolls the figure, not the page
    least = min(round(float(points[1])), LEAST_WIDTH) if points else 0
    head = re.sub(
        r' (width|height)="[^"]*"', "", head
    )  # the page decides; the viewBox keeps the proportions
    return Markup(f'{head} role="img" aria-label="{label}" style="min-width: {least}px">{rest}')
