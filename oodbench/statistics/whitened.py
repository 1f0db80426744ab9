"""What a model turns an image into, white standard normal noise where the image is a draw from it, and how far it is from that.

A flow's latents, and an autoregressive model's residuals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

OF_NOISE = (
    "ks",
    "anderson_darling",
    "chi2",
    "kurtosis",
    "skew",
    "spectrum_cv",
    "box_pierce",
    "projections",
)
OF_PICTURES = ("whiteness_2d", "whiteness_rows")
RESIDUAL = "residual_{}".format


@register_statistics(dict.fromkeys(OF_NOISE, "1"), version="1", capability="encode")
def latent(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Of a flow's z, standardised by its prior, in the order of ``encode``."""
    from oodbench.statistics.normality import normality

    z, _, _ = model.encode(images)
    return normality(z)


@register_statistics(
    dict.fromkeys((*OF_PICTURES, *map(RESIDUAL, OF_NOISE)), "1"), version="1", capability="residuals"
)  # fmt: skip
def residual(model: Any, images: Tensor) -> dict[str, Any]:
    """Of an autoregressive model's residuals ``z = Φ⁻¹(u)``, ``u = P(X < x | past) + v·P(X = x | past)``.

    The form in which a PixelCNN++ is scored has its density alone, so the residuals are taken from outside.
    """
    from oodbench.models.pixelcnn_residuals import mixture_residuals
    from oodbench.statistics.normality import normality
    from oodbench.statistics.whiteness import whiteness_2d, whiteness_rows

    own = getattr(model, "residuals", None)
    z = mixture_residuals(model, images) if own is None else own(images).double()
    noise = {RESIDUAL(name): column for name, column in normality(z).items()}
    picture = z.cpu().numpy()
    pictures = {"whiteness_2d": whiteness_2d(picture), "whiteness_rows": whiteness_rows(picture)}
    return {**pictures, **noise}
