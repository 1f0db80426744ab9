"""Why trials were left out, in scorers' words: a line a reason, what does not apply to a family of models said once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from oodbench.report.made import family_of
from oodbench.report.tables import distinct, sentence, skip_lines, text
from oodbench.store import Row

ASKED = re.compile(r", which \w+ asks for$")
"""The statistic that asks, which says nothing that the scorer's name does not."""


def skip_list(skips: Sequence[Row], rows: Iterable[Row]) -> list[str]:
    """A bullet for each reason: first what models lack, then sets that are not here; ``rows`` are those that were tried."""
    models = distinct(row["model"] for row in rows)
    lacking = [row for row in skips if row["scorer"] and row["model"]]
    others = [row for row in skips if not (row["scorer"] and row["model"])]
    lines = [f"- {line}" for line in _lacking(lacking, models)]
    told = ((text(row["in_dist"]), text(row["ood"]), sentence(row["reason"])) for row in others)
    return lines + [f"- {line}" for line in skip_lines(sorted(told))]


def _lacking(skips: Sequence[Row], models: Sequence[str]) -> list[str]:
    """``scorers: models have no …``, of scorers that lack the same for the same models."""
    concerned: dict[tuple[str, str], list[str]] = {}
    for row in skips:
        concerned.setdefault((row["scorer"], _predicate(row)), []).append(row["model"])
    together: dict[tuple[str, str], list[str]] = {}
    for (scorer, predicate), own in concerned.items():
        who = _who(distinct(own), models)
        together.setdefault((who, predicate), []).append(scorer)
    return sorted(
        f"**{', '.join(map(text, scorers))}**: {who} {sentence(predicate)}"
        for (who, predicate), scorers in together.items()
    )


def _predicate(row: Row) -> str:
    """A reason without the model that it begins with, and without the statistic that asks."""
    plain = ASKED.sub("", row["reason"].removeprefix(f"{row['model']} "))
    return plain if plain != row["reason"] else row["reason"]


def _who(own: Sequence[str], models: Sequence[str]) -> str:
    """Models, by family where a whole family of several is concerned."""
    every = distinct([*models, *own])
    shown = distinct(_family_or_name(name, own, every) for name in own)
    return f"{', '.join(sorted(shown))}:"


def _family_or_name(name: str, own: Sequence[str], every: Sequence[str]) -> str:
    family = family_of(name)
    alike = [one for one in every if family_of(one) == family]
    whole = len(alike) > 1 and set(alike) <= set(own)
    return f"all {text(family)} models" if whole else text(name)
