"""Scorers that compare the model with other models: a background model, a general one, or an ensemble."""

from __future__ import annotations

import numpy as np

from oodbench.metrics import area_under_roc
from oodbench.registry import register_scorer
from oodbench.types import Columns

REN = "Ren et al., NeurIPS 2019, arXiv:1906.02845"
CHOI = "Choi, Jang, Alemi 2018, arXiv:1810.01392"


@register_scorer("likelihood-ratio", cite=REN, groups="mean of scores")
def likelihood_ratio(log_prob: np.ndarray, background_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-ratio to a background model trained on mutated images, ``log p₀(x) − log p(x)``, in nats."""
    return background_log_prob - log_prob


@register_scorer(
    "likelihood-ratio-tuned", cite=REN, grid={"background": "backgrounds"}, groups="mean of scores"
)
class TunedRatio:
    """Negative log-ratio to one of several background models, that which tells validation OOD images best, in nats.

    The background b with the largest AUROC of ``log p_b(x) − log p(x)``, in-dist reference images against validation OOD
    images; the first of equals. Ren et al. choose the share of mutated pixels so.
    """

    def tune(self, in_dist: Columns, validation: Columns) -> dict[str, int]:
        numbers = range(in_dist["backgrounds_log_prob"].shape[1])
        of_in, of_ood = ([self._ratio(side, b) for b in numbers] for side in (in_dist, validation))
        return {"background": int(np.argmax(list(map(area_under_roc, of_in, of_ood))))}

    def _ratio(self, columns: Columns, background: int) -> np.ndarray:
        return self.score({"background": background}, **columns)

    def score(
        self, tuned: dict[str, int], log_prob: np.ndarray, backgrounds_log_prob: np.ndarray
    ) -> np.ndarray:
        found: np.ndarray = backgrounds_log_prob[:, tuned["background"]] - log_prob
        return found


@register_scorer(
    "general-ratio",
    cite="Schirrmeister et al., NeurIPS 2020, arXiv:2006.10848",
    groups="mean of scores",
)
def general_ratio(log_prob: np.ndarray, general_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-ratio to a model of a broad set of images, ``log p_general(x) − log p(x)``, in nats."""
    return general_log_prob - log_prob


@register_scorer(
    "ensemble-likelihood",
    cite="Nalisnick et al., ICLR 2019, arXiv:1810.09136, appendix",
    groups="mean of scores",
)
def ensemble_likelihood(ensemble_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of the mixture of an ensemble's K members, ``−log (1/K) Σ_k p_k(x)``, in nats."""
    largest = ensemble_log_prob.max(1)
    found: np.ndarray = -np.log(np.exp(ensemble_log_prob - largest[:, None]).mean(1)) - largest
    return found


@register_scorer("waic", cite=CHOI, groups="mean of scores")
def waic(ensemble_log_prob: np.ndarray) -> np.ndarray:
    """Negative Watanabe–Akaike criterion of an ensemble, ``Var_k[log p_k(x)] − E_k[log p_k(x)]``, in nats.

    The variance over the K members is their mean squared deviation, divided by K.
    """
    return ensemble_log_prob.var(1) - ensemble_log_prob.mean(1)


@register_scorer("waic-per-dim", cite=CHOI, groups="mean of scores")
def waic_per_dim(ensemble_log_prob: np.ndarray, dimensions: np.ndarray) -> np.ndarray:
    """WAIC of ``log p(x)/D``, in nats a dimension, where the variance does not outgrow the mean as images do.

    The variance of nats grows with D² and their mean with D, so that the variance weighs D times less here than in WAIC.
    """
    return waic(ensemble_log_prob / dimensions[:, None])
