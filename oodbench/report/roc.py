"""The figure of ROC curves."""

from __future__ import annotations

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results, Subject
from oodbench.report.sections.likelihoods import sizes_text


def roc_figure(results: Results, subject: Subject) -> Illustration:
    """ROC curves of all scorers on each pair of one subject."""
    end = sizes_text(results, subject)
    caption = f"ROC curves of all scorers, single images; dashed: model-free baselines. {end}"
    return Illustration("roc", results.name_of(subject), caption, results.curves_of("roc", subject))
