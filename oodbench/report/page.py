"""A story as one self-contained HTML page, and as its markdown twin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from oodbench.report.gallery import INK, Illustration
from oodbench.report.story import Section
from oodbench.report.tables import HEAD, slug, table


def markdown_page(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
    """The story in markdown, its figures as PNG files beside it."""
    parts = [HEAD, f"# {title}\n", *(f"{line}\n" for line in intro)]
    for section in sections:
        parts += [f"## {section.title}\n", *(f"{line}\n" for line in section.text)]
        parts += [table(*one) for one in section.tables if one[1]]
        parts += [f"![{one.label}]({one.stem}.png)\n\n*{one.caption}*\n" for one in section.figures]
    return "\n".join(parts)


def html_page(title: str, intro: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """The story as one file: figures inside as SVG, no script, nothing loaded; light or dark as the reader's screen is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"slug": slug, "prose": _prose}
    template = environment.get_template("page.html.j2")
    return template.render(
        head=HEAD, title=title, intro=intro, sections=sections, svg=lambda one: _svg(folder, one), numeric=_is_number
    )


def _prose(text: str) -> Markup:
    """Text with its `code` and [links](to)."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', marked))


def _is_number(cell: str) -> bool:
    return bool(re.match(r"[+−-]?\d", cell)) or cell in ("–", "")


def _svg(folder: Path, illustration: Illustration) -> Markup:
    """A figure's drawing, its ink the page's; empty where it was not drawn."""
    path = folder / f"{illustration.stem}.svg"
    if not path.exists():
        return Markup("")
    drawing = path.read_text("utf-8")
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    label = escape(illustration.label)
    head, rest = drawing.split(">", 1)
    points = re.search(r' width="([\d.]+)pt"', head)
    least = round(float(points[1])) if points else 0  # narrower, and letters cannot be read: a phone scrolls
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # the page decides; the viewBox keeps the proportions
    return Markup(f'{head} role="img" aria-label="{label}" style="min-width: {least}px">{rest}')
