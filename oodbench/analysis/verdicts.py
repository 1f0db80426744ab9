"""What numbers say of a claim: the one place where signs are judged, for pages, tables and tallies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

from oodbench.analysis.expected import Expected

Verdict = Literal["right", "wrong", "undecided"]
WHOLE, DIAGONAL, AT_DATA, CLOSED, DATA = (
    "whole second order",
    "diagonal",
    "curvature at images",
    "closed form",
    "data alone",
)
"""The forms of the prediction."""


def verdict_of_sign(predicted: Expected, measured: Expected) -> Verdict:
    """Whether a predicted sign is the measured one; undecided where either lies within its error."""
    agreement = predicted.sign * measured.sign
    return "undecided" if agreement == 0 else "right" if agreement > 0 else "wrong"


def size_ratio(predicted: Expected, measured: Expected) -> float | None:
    """``|predicted / measured|``; None where what was measured lies within its error."""
    return abs(predicted.value / measured.value) if measured.sign else None


def predictions(terms: Mapping[str, Expected | None]) -> dict[str, Expected]:
    """What each form of the expansion predicts of the gap, from its terms; forms whose terms are lacking are left out.

    The whole form is the gradient's term and the curvature's at the in-dist mean; `curvature at images` takes the
    latter over in-dist images. The diagonal and the closed form are the paper's, which assume one centre.
    """
    first, second, at_data = (terms.get(name) for name in ("first", "second", "at_data"))
    found = {
        WHOLE: first + second if first and second else None,
        DIAGONAL: terms.get("diagonal"),
        AT_DATA: first + at_data if first and at_data else None,
        CLOSED: terms.get("closed_form"),
    }
    return {form: value for form, value in found.items() if value is not None}


def predicted_by_data(of_in: Sequence[Expected], of_ood: Sequence[Expected]) -> Expected | None:
    """The sign that two sets' variance sums predict of the gap, as +1 or −1; None where the channels do not agree.

    A set of smaller variance lies inside the other and is predicted to be likelier.
    """
    signs = {(one - other).sign for one, other in zip(of_in, of_ood, strict=True)}
    return Expected(float(signs.pop())) if signs in ({1}, {-1}) else None


class Judged(NamedTuple):
    """A prediction beside what was measured."""

    predicted: Expected
    measured: Expected

    @property
    def verdict(self) -> Verdict:
        return verdict_of_sign(*self)

    @property
    def ratio(self) -> float | None:
        return size_ratio(*self)


class Tally(NamedTuple):
    """How often a form has the sign right, and the median of its size ratios."""

    right: int
    wrong: int
    undecided: int
    ratio: float | None

    @property
    def pairs(self) -> int:
        return self.right + self.wrong + self.undecided


def tally(judged: Iterable[Judged]) -> Tally:
    """The tally of one form."""
    found = list(judged)
    counts = Counter(one.verdict for one in found)
    ratios = [one.ratio for one in found if one.ratio is not None]
    middle = median(ratios) if ratios else None
    return Tally(counts["right"], counts["wrong"], counts["undecided"], middle)


def trend(changes: Mapping[int, Expected]) -> str:
    """What contraction does to log p, in words: ``raises log p``, or which factors raise, lower and leave it open."""
    words = {1: "raises log p", -1: "lowers log p", 0: "leaves log p within its error"}
    factors = {
        sign: [
            percent for percent in sorted(changes, reverse=True) if changes[percent].sign == sign
        ]
        for sign in words
    }
    found = {sign: own for sign, own in factors.items() if own}
    if len(found) == 1:
        return words[next(iter(found))]
    return ", ".join(f"{words[sign]} at {_listed(own)}" for sign, own in found.items())


def _listed(percents: Sequence[int]) -> str:
    *before, last = (f"{percent} %" for percent in percents)
    return " and ".join(filter(None, (", ".join(before), last)))
