"""Detection metrics on raw scores, larger = more OOD. numpy only: scores are ranked, never squashed or re-signed."""

from oodbench.metrics.detection import METRICS, detection_metrics
from oodbench.metrics.intervals import Estimate, auroc, proportion
from oodbench.metrics.ranking import area_under_roc, aupr, fpr_at_tpr

__all__ = [
    "METRICS",
    "Estimate",
    "area_under_roc",
    "aupr",
    "auroc",
    "detection_metrics",
    "fpr_at_tpr",
    "proportion",
]
