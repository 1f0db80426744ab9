"""Scorers of VAEs."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer

HAVTORN = "Havtorn et al., ICML 2021, arXiv:2102.08248"


@register_scorer(
    "likelihood-regret", cite="Xiao et al., NeurIPS 2020, arXiv:2003.02977", groups="mean of scores"
)
def regret(likelihood_regret: np.ndarray) -> np.ndarray:
    """Nats of the bound that an encoder fitted to the image alone gains, ``log p_refitted(x) − log p(x)``."""
    return likelihood_regret


@register_scorer(
    "vae-kl",
    cite="a term of the ELBO, Kingma & Welling, ICLR 2014, arXiv:1312.6114",
    groups="mean of scores",
)
def divergence(kl: np.ndarray) -> np.ndarray:
    """``KL(q(z|x) ‖ p(z))``, in nats."""
    return kl


@register_scorer(
    "vae-reconstruction",
    cite="a term of the ELBO, Kingma & Welling, ICLR 2014, arXiv:1312.6114",
    groups="mean of scores",
)
def distortion(reconstruction: np.ndarray) -> np.ndarray:
    """Reconstruction error, ``−E_q log p(x|z)``, in nats."""
    return -reconstruction


@register_scorer(
    "hvae-ratio-1", cite=f"{HAVTORN}; in the form of the authors' code", groups="mean of scores"
)
def hvae_ratio_1(elbo: np.ndarray, elbo_above_1: np.ndarray) -> np.ndarray:
    """``LLR^{>1}(x) = L(x) − L^{>1}(x)``, one draw each, the lowest latent at the prior's mode in the second, in nats."""
    return elbo - elbo_above_1


@register_scorer(
    "hvae-ratio-2", cite=f"{HAVTORN}; in the form of the authors' code", groups="mean of scores"
)
def hvae_ratio_2(elbo: np.ndarray, elbo_above_2: np.ndarray) -> np.ndarray:
    """``LLR^{>2}(x) = L(x) − L^{>2}(x)``, one draw each, the two lowest latents at the prior's mode in the second, in nats."""
    return elbo - elbo_above_2


@register_scorer(
    "hvae-ratio-1-drawn",
    cite=f"{HAVTORN}; latents drawn, as the paper says",
    groups="mean of scores",
)
def hvae_ratio_1_drawn(log_prob: np.ndarray, log_prob_above_1: np.ndarray) -> np.ndarray:
    """What the lowest latent adds to the importance-weighted bound, in nats; left out, it is drawn from the prior."""
    return log_prob - log_prob_above_1


@register_scorer(
    "hvae-ratio-2-drawn",
    cite=f"{HAVTORN}; latents drawn, as the paper says",
    groups="mean of scores",
)
def hvae_ratio_2_drawn(log_prob: np.ndarray, log_prob_above_2: np.ndarray) -> np.ndarray:
    """What the two lowest latents add to the importance-weighted bound, in nats; left out, they are drawn from the prior."""
    return log_prob - log_prob_above_2
