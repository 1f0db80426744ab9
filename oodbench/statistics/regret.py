"""How much better a VAE could have encoded an image (Xiao et al., NeurIPS 2020, arXiv:2003.02977)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

STEPS, LEARNING_RATE, WEIGHT_DECAY = 100, 2e-4, 5e-5
"""Of Adam, as in the authors' code."""


@register_statistics(
    {"likelihood_regret": "nats"}, version="1", capability="posterior", differentiates=True
)  # fmt: skip
def regret(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``log p_refitted(x) − log p(x)``: the bound after the encoder was fitted to this image alone, less the bound before.

    The decoder stays. Each image has its own copy of the encoder, refitted by 100 steps of Adam on the one-draw ELBO; all
    copies of a batch are refitted at once. Both bounds use the same draws, as many as the model's ``log_prob``.
    """
    import torch
    from torch.func import functional_call, grad, vmap

    from oodbench.models.flows import log_mean_exp
    from oodbench.models.noise import keyed_normal

    x = model.as_input(images)
    seen = model.encoder_input(x)
    draws = keyed_normal(images, model.seed, (model.samples, model.latent)).to(x.dtype)
    # another stream than that of the bound, or the encoder would be fitted to the very draws that judge it
    noise = keyed_normal(images, model.seed + 1, (STEPS, model.latent)).to(x.dtype)
    parameters = {name: p.detach() for name, p in model.encoder.named_parameters()}
    own = {name: p.expand(len(x), *p.shape).clone() for name, p in parameters.items()}

    def weights(encoder: dict[str, Tensor], x: Tensor, seen: Tensor, noise: Tensor) -> Tensor:
        """``log p(x|z) + log p(z) − log q(z|x)`` for draws ``(k, latent)`` of one image, ``(1, k)``."""
        mean, log_std = functional_call(model.encoder, encoder, (seen[None],)).chunk(2, 1)
        return model.weighed(x[None], mean, log_std, noise[None]).sum(2)

    def bound(*given: Any) -> Tensor:
        return log_mean_exp(weights(*given))[0]

    slope = vmap(grad(lambda *given: weights(*given).sum()))
    optimiser = torch.optim.Adam(own.values(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    with torch.no_grad():
        before = vmap(bound, in_dims=(None, 0, 0, 0))(parameters, x, seen, draws)
        for step in range(STEPS):
            uphill = slope(own, x, seen, noise[:, step : step + 1])
            for name, parameter in own.items():
                parameter.grad = -uphill[name]
            optimiser.step()
        return {"likelihood_regret": vmap(bound)(own, x, seen, draws) - before}
