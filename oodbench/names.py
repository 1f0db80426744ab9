"""What may be a name: one rule for models, scorers, statistics, cards and suites."""

from __future__ import annotations

import keyword
import unicodedata

from oodbench.errors import OodbenchError

LONGEST = 100
MARKS = frozenset(".-_+=")


def checked_name(kind: str, name: str) -> str:
    """``name``, where it is one: letters and digits of any script and ``. - _ + =``, a letter or digit first.

    Raises
    ------
    OodbenchError : it is none, or longer than :data:`LONGEST` characters
    """
    if not isinstance(name, str) or not name:
        raise OodbenchError(f"a {kind} needs a name, a text that is not empty; {name!r} is none")
    if len(name) > LONGEST:
        raise OodbenchError(
            f"the {kind} name {name!r} has {len(name)} characters; {LONGEST} are the most"
        )
    strange = sorted({character for character in name if not _allowed(character)})
    if strange:
        named = ", ".join(map(ascii, strange))
        raise OodbenchError(
            f"the {kind} name {name!r} holds {named}; use letters, digits and . - _ + = alone"
        )
    if not _begins(name[0]):
        raise OodbenchError(f"the {kind} name {name!r} must begin with a letter or a digit")
    if not unicodedata.is_normalized("NFC", name):
        raise OodbenchError(
            f"the {kind} name {name!r} has letters in parts (é as e and an accent); write them composed"
        )
    return name


def checked_identifier(kind: str, name: str) -> str:
    """``name``, where it can also be an argument of a Python function; raises as :func:`checked_name`."""
    checked_name(kind, name)
    # Python composes the arguments of a function so, and a scorer asks for statistics by its arguments
    if (
        not name.isidentifier()
        or keyword.iskeyword(name)
        or not unicodedata.is_normalized("NFKC", name)
    ):
        raise OodbenchError(
            f"the {kind} name {name!r} cannot be an argument of a Python function, by which scorers ask for it; "
            "use letters, digits and _, a letter first"
        )
    return name


def _begins(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def _allowed(character: str) -> bool:
    # marks stand on letters in many scripts
    return character in MARKS or unicodedata.category(character)[0] in "LNM"
