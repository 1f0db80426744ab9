"""The figure of ROC curves."""

from __future__ import annotations

from oodbench.report.illustrations import Illustration
from oodbench.report.order import oods_in_order
from oodbench.report.results import Results, Subject
from oodbench.report.sections.likelihoods import sizes_text


def roc_figure(results: Results, subject: Subject) -> Illustration:
    """ROC curves on each pair of real images of one subject: of the best scorers, likelihood and the best baseline."""
    rows = results.of_subject(subject)
    real = [row for row in rows if not row["synthetic"]] or rows
    order = oods_in_order(real)
    curves = [row for row in results.curves_of("roc", subject) if row["ood"] in order]
    curves.sort(key=lambda row: (order.index(row["ood"]), row["scorer"]))
    end = sizes_text(results, subject)
    caption = (
        "ROC curves, single images, of the five scorers of best mean over these pairs, likelihood and (dotted) each pair's "
        f"best model-free baseline; AUROC beside each. {end}"
    )
    return Illustration("roc", results.name_of(subject), caption, curves)
