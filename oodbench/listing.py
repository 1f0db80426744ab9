"""What ``oodbench list`` and ``oodbench show`` print."""

from __future__ import annotations

import json

import yaml

from oodbench.data import sources
from oodbench.data.catalog import DataCard, catalog
from oodbench.data.copies import Source
from oodbench.data.division import split_indices
from oodbench.data.identifiers import Identifier
from oodbench.data.own import WHOLE, own_sets
from oodbench.errors import DataError, ModelError, UnknownNameError
from oodbench.registry import models as user_models
from oodbench.registry import scorers as all_scorers
from oodbench.registry import statistics as all_statistics
from oodbench.suite import load_suite, named, suite_names
from oodbench.types import Scorer, split_need
from oodbench.zoo.cards import Card, training_log, zoo
from oodbench.zoo.describe import describe
from oodbench.zoo.families import SCORING, family

Listing = tuple[list[str], list[list[str]]]


def models() -> Listing:
    """Name, training set, parameters, fit and kind of likelihood of each model."""
    lines = []
    for name in [*zoo(), *user_models]:
        model = describe(name)
        try:
            record = model.trained() if isinstance(model, Card) else {}
            state = f"{record['ref_bits_per_dim']:.3f}" if "ref_bits_per_dim" in record else "–"
        except ModelError:
            record, state = {}, "not trained"
        parameters = f"{record['parameters']:,}" if record else "–"
        lines.append(
            [
                name,
                model.trained_on,
                "×".join(map(str, model.shape)),
                parameters,
                state,
                model.likelihood,
            ]
        )
    return ["model", "trained on", "shape", "parameters", "ref bits/dim", "likelihood"], lines


def data() -> Listing:
    """What is here of each image set, its terms, and how to get the rest."""
    lines = []
    for card in catalog().values():
        rest = "" if card.generated or card.part or _whole(card) else card.how_to_get()
        lines.append([card.name, _here(card), card.licence, card.citation, rest])
    for name, found in own_that_open().items():
        here = "; ".join(
            f"{split} {source.n:,} ({source.where})" for split, source in found.items()
        )
        lines.append([_reference(name, found), here, "your own", "", ""])
    return ["set", "here", "licence", "citation", "to get the rest"], lines


BRIEF = {
    "models": ("model", "trained on", "ref bits/dim", "likelihood"),
    "data": ("set", "here"),
    "scorers": ("scorer", "score (larger = more OOD)"),
    "statistics": ("statistic", "unit", "pass"),
    "suites": ("suite", "title"),
}
"""Of each listing, the columns that fit 80 letters."""


def brief(what: str, heads: list[str], lines: list[list[str]]) -> Listing:
    """A listing's columns that say what a name is."""
    places = [heads.index(name) for name in BRIEF[what]]
    return list(BRIEF[what]), [[line[place] for place in places] for line in lines]


def own_that_open() -> dict[str, dict[str, Source]]:
    """The sets that only the user's folder knows, and that can be opened, with their splits."""
    found = {name: _opened(name) for name in own_sets(catalog())}
    return {name: splits for name, splits in found.items() if not isinstance(splits, str)}


def own_that_do_not_open() -> list[str]:
    """A sentence for each set of the user's folder that cannot be opened."""
    return [said for said in map(_opened, own_sets(catalog())) if isinstance(said, str)]


def _opened(name: str) -> dict[str, Source] | str:
    try:
        return sources.own_sources(name)
    except DataError as error:
        return str(error)


def _reference(name: str, found: dict[str, Source]) -> str:
    """What opens a set: its name, with a split where it has no ``test``."""
    plain = "test" in found or WHOLE in found
    split = "" if plain else f"/{next(iter(found))}"
    return Identifier(name).set_text + split


def _here(card: DataCard) -> str:
    if card.generated:
        return "generated at the model's shape"
    if card.part:
        return f"a part of {card.part['of']}"
    found = []
    for split in ("train", "test"):
        try:
            source = sources.find(card, split)
        except DataError as error:
            found.append(f"{split}: {error}")
            continue
        if source:
            count = f"{source.n:,} of {card.counts.get(split, source.n):,}"
            found.append(f"{split} {count} ({source.where})")
            found += source.remarks
        else:
            found += _drawn(card, split)
    return "; ".join(found) or "nothing"


def _drawn(card: DataCard, split: str) -> list[str]:
    """What is here of a split that is not."""
    found = []
    ref = sources.find(card, "ref") if split == "train" else None
    if ref is not None:
        official = len(split_indices(card.counts["train"])["ref"])
        found.append(f"ref {ref.n:,} of {official:,} ({ref.where})")
    if drawn := sources.drawn_sample(card, split):
        found.append(f"{split} {drawn.n:,} drawn ({drawn.where})")
    return found


def _whole(card: DataCard) -> bool:
    try:
        found = {split: sources.find(card, split) for split in card.counts}
    except DataError:
        return False
    return bool(found) and all(
        source and source.n >= card.counts[split] for split, source in found.items()
    )


def scorers() -> Listing:
    """What each scorer computes, from which statistics, and what it tunes on."""
    lines = [
        [s.name, s.summary, ", ".join(s.all_needs), s.tunes_on, s.cite]
        for s in sorted(all_scorers.values(), key=lambda s: (s.baseline, s.name))
    ]
    return ["scorer", "score (larger = more OOD)", "needs", "tunes on", "reference"], lines


def statistics() -> Listing:
    """Unit, pass and version of each statistic, with the libraries that its numbers depend on."""
    lines = []
    for name, entry in all_statistics.items():
        made = " ".join(filter(None, (entry.version, entry.built_with)))
        depends_on = "image" if entry.model_free else "model and image"
        lines.append([name, entry.statistics[name], entry.name, made, depends_on])
    return ["statistic", "unit", "pass", "version", "depends on"], lines


def suites() -> Listing:
    """The suites that come with oodbench."""
    loaded = [load_suite(name) for name in suite_names()]
    lines = []
    for suite in loaded:
        shown = [name or reference for name, reference in map(named, suite.models)]
        lines.append([suite.name, suite.title, ", ".join(shown)])
    return ["suite", "title", "models"], lines


def show(name: str) -> str:
    """All that is known of a named thing, as YAML."""
    known = {*zoo(), *user_models, *catalog(), *all_scorers, *all_statistics, *suite_names()}
    if name in user_models or name in zoo():
        model = describe(name)
        if not isinstance(model, Card):
            return f"model {name}: shape {model.shape}, trained on {model.trained_on or 'not stated'}, {model.likelihood}"
        fields = model.model_dump(exclude={"folder"})
        fields["versions"] = _versions(model)
        trained: dict[str, object] = {"trained": "not trained"}
        if model.weights.exists():
            trained = {"trained": model.trained(), "during training": _trajectory(model)}
        return _yaml(fields | trained)
    if name in catalog():
        card = catalog()[name]
        return _yaml({"name": name, "title": card.title, "licence": card.licence, "citation": card.citation,
                      "official counts": card.counts, "order": card.order, "resizing": card.resizing, "published": card.published,
                      "only here": card.only_here or "no", "here": _here(card), "to get it": card.how_to_get()})  # fmt: skip
    if name in suite_names():
        return _yaml(load_suite(name).model_dump())
    if name in all_scorers:
        entry = all_scorers[name]
        return _yaml({"scorer": name, "score": entry.summary, "needs": list(entry.needs), "fit needs": list(entry.fit_needs),
                      "asks of the model": _asked(entry), "tunes on": entry.tunes_on,
                      "chooses from": dict(entry.grid), "baseline": entry.baseline, "reference": entry.cite})  # fmt: skip
    if name in all_statistics:
        found = all_statistics[name]
        unit = found.statistics[name]
        return _yaml(
            {
                "statistic": name,
                "unit": unit,
                "pass": found.identity,
                "model-free": found.model_free,
            }
        )
    raise UnknownNameError("model, image set, scorer, statistic or suite", name, known)


def _versions(card: Card) -> dict[str, str | None]:
    """Versions of the code that a card's numbers come from."""
    own = family(card.family)
    return {card.family: own.version, "sampler": own.sampler_version, "scoring": SCORING}


def _asked(scorer: Scorer) -> list[str]:
    """The methods that a model must have for a scorer, ``log_prob`` aside."""
    named = [split_need(need)[0] for need in scorer.all_needs]
    return sorted({all_statistics[name].capability_for(name) for name in named} - {""})


def _trajectory(card: Card) -> list[str]:
    """A line for each validation: bits/dim of `ref`, and the AUROC of raw likelihood where sets were watched."""
    return [
        f"step {line['step'] + 1:.0f}: {line['ref_bits_per_dim']:.3f} bits/dim"
        + "".join(
            f", AUROC {k.removeprefix('auroc_')} {v:.3f}"
            for k, v in line.items()
            if k.startswith("auroc_")
        )
        for line in training_log(card)
    ]


def _yaml(fields: dict[str, object]) -> str:
    plain = json.loads(json.dumps(fields))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110).rstrip()
