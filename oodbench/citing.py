"""What to cite for a run: a ``.bib`` of everything that its rows used, and a paragraph that says what was done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from oodbench import __version__
from oodbench.data.catalog import catalog
from oodbench.frames import tried
from oodbench.registry import scorers
from oodbench.report.made import shipped, sizes_words
from oodbench.report.tables import bare_name, distinct
from oodbench.store import Row, standing

FAMILIES = {
    "glow": "Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039",
    "realnvp": "Dinh, Sohl-Dickstein & Bengio, ICLR 2017, arXiv:1605.08803",
    "pixelcnn++": "Salimans et al., ICLR 2017, arXiv:1701.05517",
    "gated-pixelcnn": "van den Oord et al., NeurIPS 2016, arXiv:1606.05328",
    "masked-pixelcnn": "van den Oord et al., ICML 2016, arXiv:1601.06759",
    "vae": "Kingma & Welling, ICLR 2014, arXiv:1312.6114",
    "dcgan-vae": "Xiao et al., NeurIPS 2020, arXiv:2003.02977",
    "mlp-vae": "Kingma & Welling, ICLR 2014, arXiv:1312.6114",
    "hierarchical-vae": "Sønderby et al., NeurIPS 2016, arXiv:1602.02282; Havtorn et al., ICML 2021, arXiv:2102.08248",
    "residual-vae": "Kingma & Welling, ICLR 2014, arXiv:1312.6114",
    "flow-matching": "Lipman et al., ICLR 2023, arXiv:2210.02747",
    "classifier": "",
    "diffusion": "Ho et al., NeurIPS 2020, arXiv:2006.11239; Kingma et al., NeurIPS 2021, arXiv:2107.00630",
}
"""Family → what it was published in; nothing of a plain convolutional network."""
BOUND = "Burda et al., ICLR 2016, arXiv:1509.00519"
"""Of importance-weighted bounds."""
INTERVALS = "DeLong et al., Biometrics 44(3), 1988"
OWN = f"""@software{{oodbench,
  title = {{oodbench: out-of-distribution detection with deep generative models, measured}},
  author = {{{{The oodbench developers}}}},
  version = {{{__version__}}},
  year = {{2026}},
}}
"""
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
YEAR = re.compile(r"\b(19|20)\d\d\b")
SIGNS = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#"})


def cite(folder: Path) -> tuple[str, str]:
    """A run's bibliography as BibTeX, and its protocol as one paragraph.

    Entries hold what oodbench knows of a work: authors, year and, where it has one, its arXiv number; the note says it in words.
    Of the catalog's and the registry's references only those that name a work with its year become entries.
    """
    rows = tried(folder)
    entries: dict[str, str] = {}
    for reference in references(rows):
        key, entry = _entry(reference)
        entries.setdefault(key, entry)
    bibliography = "\n".join([OWN, *(entries[key] for key in sorted(entries))])
    return bibliography, protocol(rows)


def references(rows: Sequence[Row]) -> Iterator[str]:
    """Each work that the rows rest on, in words."""
    yield INTERVALS
    cards = [card for name in distinct(row["model"] for row in rows) if (card := shipped(name))]
    texts = [FAMILIES.get(card.family, "") for card in cards]
    if any("importance-weighted" in row["likelihood"] for row in rows):
        texts.append(BOUND)
    sets = {bare_name(row[side]) for row in rows for side in ("in_dist", "ood")}
    sets |= {card.trained_on for card in cards}
    texts += [catalog()[name].citation for name in sorted(sets) if name in catalog()]
    used = distinct(row["scorer"] for row in rows)
    texts += [scorers[name].cite for name in sorted(used) if name in scorers]
    for text in texts:
        yield from (part.strip() for part in text.split(";") if YEAR.search(part))


def _entry(reference: str) -> tuple[str, str]:
    """Key and entry of one work."""
    year, arxiv = YEAR.search(reference), ARXIV.search(reference)
    assert year is not None
    authors = _authors(reference[: year.start()])
    first = re.sub(r"\W", "", authors.split(" and ")[0].split()[-1]).lower()
    key = f"{first}{year[0]}" + (f"-{arxiv[1]}" if arxiv else "")
    fields = {"author": authors, "year": year[0], "note": reference.translate(SIGNS)}
    if arxiv:
        fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return key, "\n".join([f"@misc{{{key},", *lines, "}", ""])


def _authors(before: str) -> str:
    """The authors that a reference names before its year, as BibTeX joins them."""
    words = re.sub(r"^.*?\b(?:of|in|beside|by) (?=[A-Z])", "", before.strip(" ,"))
    names = re.split(r", | & | and ", words)
    people = [
        name
        for name in names
        if not re.fullmatch(r"[A-Z][\w.]*[A-Z]\w*.*|Proc.*|Biometrics.*|\d.*", name)
    ]
    return " and ".join(name.replace(" et al.", " and others") for name in people or names[:1])


def protocol(rows: Sequence[Row]) -> str:
    """What was done, in a paragraph whose every number is of the rows."""
    sound = [row for row in rows if row["status"] == "ok"]
    first = sound[0] if sound else rows[0]
    models = distinct(row["model"] for row in rows)
    pairs = {(row["in_dist"], row["ood"]) for row in rows if not row["synthetic"]}
    kinds = {
        kind: {row["scorer"] for row in rows if standing(row) == kind}
        for kind in ("scorer", "tuned", "baseline")
    }
    sizes = sizes_words(models)
    seeds = sorted({row["seed"] for row in rows})
    groups = sorted({row["group_size"] for row in rows} - {1})
    small = f" ({sizes})" if sizes else ""
    tuned = f" {len(kinds['tuned'])} of them choose parameters on validation OOD images and are ranked apart."
    said = [
        f"We evaluate {len(kinds['scorer']) + len(kinds['tuned'])} scores and {len(kinds['baseline'])} model-free baselines with "
        f"{len(models)} deep generative models{small} on {len(pairs)} pairs of an in-distribution "
        f"and an out-of-distribution image set with oodbench {_versions(sound)}, suite {first['suite']}.",
        _sizes(sound),
        "Larger scores mean more out-of-distribution; no score is re-signed. Scores that are fitted use held-out in-distribution "
        "reference images alone, which share no image with the test images."
        + tuned * bool(kinds["tuned"]),
        "We report AUROC with 95 % DeLong intervals on the logit scale, and AUPR and FPR@95 with 95 % intervals of "
        f"{first.get('bootstrap', 0):,} stratified bootstrap replicates; scores are compared on the same images by paired DeLong "
        "tests with Holm's correction.",
        f"Random draws have the seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."
        + (f" Groups of {', '.join(map(str, groups))} images are judged apart from single ones." if groups else ""),
    ]  # fmt: skip
    return " ".join(filter(None, said))


def _versions(rows: Sequence[Row]) -> str:
    made = distinct(str((row.get("provenance") or {}).get("oodbench", "")) for row in rows)
    return " and ".join(filter(None, made)) or __version__


def _sizes(rows: Sequence[Row]) -> str:
    single = [row for row in rows if row["group_size"] == 1 and not row["synthetic"]]
    if not single:
        return ""
    spans = [
        _span([row[n] for row in single]) for n in ("n_in", "n_ood")
    ]  # fmt: skip
    return f"Test sets have {spans[0]} in-distribution and {spans[1]} out-of-distribution images."


def _span(values: Sequence[int]) -> str:
    low, high = f"{min(values):,}", f"{max(values):,}"
    return low if low == high else f"{low} to {high}"
