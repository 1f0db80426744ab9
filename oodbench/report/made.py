"""What the shipped models are, in words made of their cards: size, training, and what the literature reports for their kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from oodbench.zoo.cards import Card, load_card, zoo

SMALL = 10_000_000
"""Parameters below which a model is called small."""


@cache
def shipped(name: str) -> Card | None:
    """The card of a trained model of the package; None of a user's model."""
    card = load_card(name) if name in zoo() else None
    return card if card and (card.folder / "trained.json").exists() else None


def size_words(name: str) -> str:
    """``small model: 0.90 M parameters, 3,000 steps``; empty of a user's model, whose size nobody recorded."""
    card = shipped(name)
    if card is None:
        return ""
    record = card.record()
    small = "small model: " if record["parameters"] < SMALL else ""
    return f"{small}{record['parameters'] / 1e6:.2f} M parameters, {record['steps']:,} steps"


def labelled(label: str, name: str) -> str:
    """A model's label with its size in brackets, as the subject of a sentence that judges something on it."""
    size = size_words(name)
    return f"{label} ({size})" if size else label


def sizes_words(names: Iterable[str]) -> str:
    """``small models of 0.23 to 1.38 M parameters, 2,500 to 16,000 steps``, of the shipped ones; empty where none is."""
    records = [card.record() for name in sorted(set(names)) if (card := shipped(name))]
    if not records:
        return ""
    counts, steps = ([one[field] for one in records] for field in ("parameters", "steps"))
    kind = "small models" if max(counts) < SMALL else "models"
    size = _span(*(f"{end / 1e6:.2f}" for end in (min(counts), max(counts))))
    training = _span(*(f"{end:,}" for end in (min(steps), max(steps))))
    return f"{kind} of {size} M parameters, {training} steps"


def sizes_sentence(names: Iterable[str]) -> str:
    """What the shipped ones among some models are, in a sentence; empty where none is shipped."""
    words = sizes_words(names)
    return f"The shipped models here are {words}." if words else ""


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def reported_bits(name: str) -> str:
    """Published bits/dim of a shipped model's family on its set, with their source; says so where none is known."""
    card = shipped(name)
    if card is None:
        return ""
    known = card.reported.get("bits_per_dim")
    return known or "none known for this family on this set"


def training_of(name: str) -> str:
    """What trainings share that differ in their seed alone: family, configuration, training set and recipe.

    Of a user's model it is the name, since nobody recorded its recipe.
    """
    card = shipped(name)
    if card is None or card.recipe is None:
        return name
    recipe = card.recipe.model_dump(exclude={"seed"})
    return json.dumps([card.family, card.config, card.trained_on, recipe], sort_keys=True)


def family_of(name: str) -> str:
    """The family of a shipped model; a user's model is a family of its own."""
    card = shipped(name)
    return card.family if card else name
