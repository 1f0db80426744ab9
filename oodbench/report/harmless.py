"""Whether a drawing can stand inside a page: a figure in a folder of others may hold what a browser runs or loads."""

from __future__ import annotations

import re
from xml.etree import ElementTree

ELEMENTS = frozenset({
    "svg", "g", "defs", "use", "path", "rect", "line", "circle", "ellipse", "polygon", "polyline", "text", "tspan",
    "clipPath", "image", "style", "metadata", "RDF", "Work", "type", "date", "format", "creator", "Agent", "title",
    "linearGradient", "radialGradient", "stop", "pattern", "marker",
})  # fmt: skip
"""Elements of drawings as matplotlib writes them, none of which runs anything."""
BEFORE = re.compile(r"\s*(<\?xml[^<>]*\?>)?\s*(<!DOCTYPE[^<>\[\]]*>)?\s*")
"""What may stand before the drawing; a page leaves it out."""
LOADS = re.compile(r"@import|url\((?!\s*[\"']?#)|expression|javascript:", re.IGNORECASE)
"""In a style or an attribute, what fetches or runs something."""
OWN_TARGETS = ("#", "data:image/png;base64,")


def is_harmless(drawing: str) -> bool:
    """Whether an SVG holds shapes and letters alone, to a reader of XML and of HTML alike."""
    start = drawing.find("<svg")
    if start < 0 or not BEFORE.fullmatch(drawing[:start]):
        return False
    shown = drawing[start:]
    if "<?" in shown or "<!" in shown.replace("<!--", ""):  # HTML ends them elsewhere than XML
        return False
    try:
        root = ElementTree.fromstring(shown)
    except ElementTree.ParseError:
        return False
    return all(map(_is_plain, root.iter()))


def _is_plain(element: ElementTree.Element) -> bool:
    if _local(element.tag) not in ELEMENTS or LOADS.search(element.text or ""):
        return False
    return all(_is_plain_attribute(name, value) for name, value in element.attrib.items())


def _is_plain_attribute(name: str, value: str) -> bool:
    local = _local(name)
    if local.lower().startswith("on") or LOADS.search(value):
        return False
    return local != "href" or value.startswith(OWN_TARGETS)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
