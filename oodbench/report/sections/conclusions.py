"""What the findings come to: a sentence for each, with its number and its exception."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oodbench.report import leads
from oodbench.report.made import sizes_sentence
from oodbench.report.section import Analysis, Pair, Section
from oodbench.report.sections import graying, samples, second_order
from oodbench.report.sections.constant_volume import is_constant_volume
from oodbench.report.sections.decomposition import volume_share
from oodbench.report.sections.statements import is_headline
from oodbench.report.tables import short_name, text

WORDS = "Each answer is made of the rows of this run, and holds for its models and its sets, which are named above."
GANS = (
    "GANs have no row: they draw images but give no likelihood of one, so that none of these questions can be asked "
    "of them."
)


def section(analysis: Analysis) -> Section:
    """The answers as text, since a table would hide their ends sideways; nothing where no row answers."""
    found = [(question, answer(analysis)) for question, answer in QUESTIONS]
    models = sizes_sentence(row["model"] for row in analysis.results.tried)
    of_which = " (small models)" if "small models" in models else ""
    told = [f"{question.rstrip('?')}{of_which}? {said}" for question, said in found if said]
    words = f"{WORDS} {models}".strip()
    return Section("Conclusions", [words, *told, GANS] if told else [])


def _inverted(analysis: Analysis) -> str:
    """How often OOD images are the likelier ones, on the paper's pairs and on the others."""
    rows = [
        (pair, row) for pair in analysis.pairs(synthetic=False) if (row := analysis.auroc(pair[1]))
    ]
    paper = [(pair, row) for pair, row in rows if is_headline(pair)]
    others = [(pair, row) for pair, row in rows if not is_headline(pair)]
    told = []
    for which, own in (("on the paper's inversions", paper), ("on all other pairs", others)):
        below = [pair for pair, row in own if row["auroc"] < 0.5]
        if own:
            exceptions = [pair for pair, row in own if (row["auroc"] < 0.5) is not (own is paper)]
            told.append(f"{which} on {len(below)} of {len(own)}{_but(analysis, exceptions)}")
    return f"Raw likelihood is below chance {'; '.join(told)}." if told else ""


def _but(analysis: Analysis, pairs: Sequence[Pair]) -> str:
    named = [_pair_name(analysis, pair) for pair in pairs]
    return f" (exceptions: {', '.join(named)})" if named else ""


def _pair_name(analysis: Analysis, pair: Pair) -> str:
    ood = pair[1]
    return f"{text(analysis.results.label(ood))} → {text(short_name(ood['images']))}"


def _volume(analysis: Analysis) -> str:
    """Whether volume makes the gap."""
    pairs = analysis.pairs(synthetic=False)
    free = [(pair, volume_share(pair)) for pair in pairs if not is_constant_volume(pair[0])]
    known = [(pair, share) for pair, share in free if share is not None]
    if not known:
        return ""
    less = [pair for pair, share in known if share <= 0.5]
    most = (
        f"Volume makes more than half of the gap on {len(known) - len(less)} of {len(known)} pairs"
    )
    return f"{most}{_but(analysis, less)}."


def _without_volume(analysis: Analysis) -> str:
    """Whether the inversion stays where volume is constant."""
    still = [pair for pair in analysis.pairs(synthetic=False) if is_constant_volume(pair[0])]
    rows = [(pair, analysis.auroc(pair[1])) for pair in still if is_headline(pair)]
    known = [(pair, row) for pair, row in rows if row]
    if not known:
        return ""
    shown = [f"{_pair_name(analysis, pair)} {row['auroc']:.3f}" for pair, row in known]
    below = sum(row["auroc"] < 0.5 for _, row in known)
    return f"With constant volume the paper's pairs are inverted {below} of {len(known)} times: {', '.join(shown)}."


def _ensembles(analysis: Analysis) -> str:
    """Whether an ensemble's likelihood lifts a pair above chance."""
    pairs = [pair for pair in analysis.pairs(synthetic=False) if is_headline(pair)]
    rows = [(pair, analysis.auroc(pair[1], "ensemble-likelihood")) for pair in pairs]
    known = [(pair, row) for pair, row in rows if row]
    if not known:
        return ""
    below = [pair for pair, row in known if row["auroc"] < 0.5]
    above = [pair for pair, row in known if row["auroc"] >= 0.5]
    counted = f"{len(below)} of {len(known)} of the paper's pairs{_but(analysis, above)}"
    return f"The ensemble's likelihood stays below chance on {counted}."


QUESTIONS: tuple[tuple[str, Callable[[Analysis], str]], ...] = (
    ("Is it so?", _inverted),
    ("Is it the volume?", _volume),
    ("Does it stay without volume?", _without_volume),
    ("Do location, variance and curvature predict it?", second_order.conclusion),
    ("Does less variance mean likelier?", graying.conclusion),
    ("Why do draws look otherwise?", samples.conclusion),
    ("Does an ensemble help?", _ensembles),
    ("Which scorer wins?", leads.conclusion),
)
"""Questions in the paper's order, and what answers each from the rows; an empty answer is left out."""
