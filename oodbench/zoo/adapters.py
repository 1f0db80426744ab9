"""Models of other libraries as density models of 8-bit images: flows, pythae's VAEs, diffusers' U-Nets.

None of those libraries is imported here; each adapter takes an object that the user has made and loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError
from oodbench.models.diffusion import Diffusion
from oodbench.models.flows import sum_per_image
from oodbench.models.noise import keyed_uniform
from oodbench.models.vae import VAE

INITIALISED_FLAGS = ("initialized", "data_dep_init_done", "inited", "is_initialized")
"""What nflows, normflows, y0ast's Glow and others call the flag of an ActNorm that has seen its first batch."""


def settle_actnorm(module: nn.Module) -> None:
    """Keep loaded ActNorm layers from setting themselves on the first batch that is scored.

    Some libraries keep the flag outside the state dict, so that it is lost on loading: a layer whose parameters are not
    those of a new one counts as initialised. A new one is a :class:`ModelError`.
    """
    for name, layer in module.named_modules():
        for flag in INITIALISED_FLAGS:
            if flag not in vars(layer) and flag not in layer._buffers:
                continue
            if bool(getattr(layer, flag)):
                continue
            if not any(parameter.any() for parameter in layer.parameters(recurse=False)):
                raise ModelError(
                    f"{name} is an ActNorm that was never initialised, so scores would depend on the first batch; "
                    "load trained weights before wrapping the flow"
                )
            old = getattr(layer, flag)
            setattr(layer, flag, torch.ones_like(old) if isinstance(old, Tensor) else True)


class DequantisedFlow(nn.Module):
    """A continuous density of scaled images, turned into one of 8-bit images by uniform dequantisation inside.

    ``log p(x) ≥ E_u[log p_y(y) + log|dy/dx|]`` with ``y = (x + u)/levels − centre``, or ``y = logit(α + (1 − 2α)·(x + u)/256)``;
    ``u`` is keyed by (seed, image bytes), and one draw estimates the bound.

    Parameters
    ----------
    flow : the module that holds the weights
    log_density : ``y -> (B,)`` nats; ``y`` is ``(B, C, H, W)``, or ``(B, C·H·W)`` where ``flat``
    shape : ``(C, H, W)``
    trained_on : name of the image set
    flat : whether the flow takes vectors
    logit : α of the logit transform that the flow was trained behind, None for none
    levels : 256, or 255 where pixels were divided by 255
    centre : what was subtracted from scaled pixels, for instance ½
    seed : of the noise
    """

    likelihood = "uniform dequantisation, one draw"

    def __init__(
        self, flow: nn.Module, log_density: Callable[[Tensor], Tensor], shape: tuple[int, int, int], trained_on: str,
        flat: bool, logit: float | None, levels: int, centre: float, seed: int,
    ):  # fmt: skip
        super().__init__()
        if levels not in (255, 256):
            raise ModelError(f"pixels are scaled by 255 or by 256 levels, not by {levels}")
        if logit is not None and (levels == 255 or centre):
            raise ModelError("a logit transform needs pixels in [0, 1): levels=256 and centre=0")
        settle_actnorm(flow)
        self.flow, self.log_density = flow, log_density
        self.shape, self.trained_on, self.flat, self.seed = tuple(shape), trained_on, flat, seed
        self.logit, self.levels, self.centre = logit, levels, centre

    def transformed(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` of dequantised images and ``log|dy/dx|`` in float64 nats ``(B,)``."""
        dtype = next(self.flow.parameters(), torch.empty(0)).dtype
        y = (images.to(dtype) + noise.to(dtype)) / self.levels
        volume = -math.prod(self.shape) * math.log(self.levels)
        if self.logit is None:
            return y - self.centre, torch.full(
                (len(y),), volume, dtype=torch.float64, device=y.device
            )
        inside = self.logit + (1 - 2 * self.logit) * y
        log_inside, log_outside = torch.log(inside), torch.log1p(-inside)
        slope = sum_per_image(math.log(1 - 2 * self.logit) - log_inside - log_outside)
        return log_inside - log_outside, slope + volume

    def log_prob_with(self, images: Tensor, noise: Tensor) -> Tensor:
        """The bound in nats ``(B,)`` under the given dequantisation noise in ``[0, 1)``."""
        y, log_volume = self.transformed(images, noise)
        found = self.log_density(y.flatten(1) if self.flat else y)
        if found.shape != (len(images),):
            raise ModelError(
                f"the flow gives {tuple(found.shape) or 'one number'} for {len(images)} images; it must give one number an image"
            )
        return found.double() + log_volume

    def log_prob(self, images: Tensor) -> Tensor:
        """Log-probability in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        return self.log_prob_with(images, keyed_uniform(images, self.seed))


def from_flow(
    flow: Any, shape: tuple[int, int, int], trained_on: str, flat: bool = True, logit: float | None = None,
    levels: int = 256, centre: float = 0.0, log_density: Callable[[Tensor], Tensor] | None = None, seed: int = 0,
) -> DequantisedFlow:  # fmt: skip
    """A flow of nflows, normflows or zuko, or of any library whose object has ``log_prob(y)`` or gives a distribution.

    Parameters
    ----------
    log_density : where ``flow.log_prob(y)`` is not what is wanted, such as ``lambda y: flow.log_prob(y, None)`` for a
        normflows ``MultiscaleFlow`` without classes
    flow, shape, trained_on, flat, logit, levels, centre, seed : see :class:`DequantisedFlow`

    Raises
    ------
    ModelError : an ActNorm was never initialised; a scaling that does not exist; not one number an image
    """
    own = flow.log_prob if hasattr(flow, "log_prob") else lambda y: flow().log_prob(y)
    return DequantisedFlow(
        flow, log_density or own, shape, trained_on, flat, logit, levels, centre, seed
    ).eval()


class _PythaeEncoder(nn.Module):
    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        out = self.encoder(x)
        return torch.cat([out.embedding, out.log_covariance / 2], 1)


class _PythaeDecoder(nn.Module):
    """Logits of a decoder that ends in a sigmoid, where the likelihood is Bernoulli; else its output."""

    def __init__(self, decoder: nn.Module, shape: tuple[int, int, int], bernoulli: bool):
        super().__init__()
        self.decoder, self.shape, self.bernoulli = decoder, shape, bernoulli

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z)["reconstruction"].reshape(-1, *self.shape)
        return torch.logit(out, eps=1e-6) if self.bernoulli else out


STANDARD_PRIOR = (
    "VAE", "BetaVAE", "BetaTCVAE", "DisentangledBetaVAE", "FactorVAE", "INFOVAE_MMD", "IWAE", "MIWAE", "CIWAE", "PIWAE",
)  # fmt: skip
"""Models of pythae whose latents have the prior N(0, I) and a diagonal Gaussian posterior; unlike training changes no density."""
OTHERWISE = {
    "VAMP": "its prior is a mixture of posteriors of pseudo-inputs",
    "VAE_IAF": "its posterior is a flow",
    "VAE_LinNF": "its posterior is a flow",
    "HVAE": "its posterior is a Hamiltonian flow",
    "RHVAE": "its latent space has a metric of its own",
    "SVAE": "its latents lie on a sphere",
    "PoincareVAE": "its latents lie in hyperbolic space",
    "VQVAE": "its latents are codes, for which it has no prior",
    "MSSSIM_VAE": "its reconstruction is a similarity and no likelihood",
    "VAEGAN": "its reconstruction is a discriminator's and no likelihood",
} | dict.fromkeys(
    ("AE", "WAE_MMD", "RAE_GP", "RAE_L2", "Adversarial_AE"), "it is an autoencoder without a density"
)  # fmt: skip
"""Other models of pythae → why they are not what the bound here is of."""


def _check_pythae(model: Any) -> None:
    """:class:`ModelError` unless the model is one of pythae's with the prior N(0, I)."""
    name = type(model).__name__
    if name in STANDARD_PRIOR:
        return
    why = OTHERWISE.get(name, "it is no class of pythae that is known here")
    raise ModelError(
        f"pythae's {name} is not supported, since {why}; supported, with the prior N(0, I): {', '.join(STANDARD_PRIOR)}"
    )


def from_pythae(model: Any, trained_on: str, samples: int = 16, seed: int = 0) -> VAE:
    """A pythae ``VAE`` over pixels in [0, 1], image by image, with the importance-weighted bound.

    So are its other models with the prior N(0, I) and a Gaussian posterior, :data:`STANDARD_PRIOR`; all others are a
    :class:`ModelError` that says why.

    Its own ``get_nll`` is one mean over the data, of the log-likelihood and not of its negative. pythae's ``bce`` is a
    Bernoulli on grey values and its ``mse`` a Gaussian of unit variance; neither is a density of 8-bit images, which
    ``likelihood`` says.
    """
    _check_pythae(model)
    config = model.model_config
    kinds = {"bce": "bernoulli", "mse": "gaussian"}
    if config.reconstruction_loss not in kinds:
        raise ModelError(
            f"pythae's reconstruction loss {config.reconstruction_loss!r} is no likelihood that is known here"
        )
    kind, shape = kinds[config.reconstruction_loss], tuple(config.input_dim)
    decoder = _PythaeDecoder(model.decoder, shape, kind == "bernoulli")
    vae: Any = VAE(
        shape,
        _PythaeEncoder(model.encoder),
        decoder,
        kind,
        config.latent_dim,
        samples,
        False,
        seed=seed,
    )
    vae.trained_on = trained_on
    vae.likelihood = f"importance-weighted bound, k = {samples}, {kind} on grey values: no density of 8-bit images"
    return vae.eval()


class _DiffusersNoise(nn.Module):
    """What a U-Net of diffusers says of the noise, whichever of noise, image or velocity it was trained to predict."""

    alpha: Tensor
    sigma: Tensor

    def __init__(self, unet: nn.Module, kind: str, log_snr: Tensor):
        super().__init__()
        self.unet, self.kind = unet, kind
        self.register_buffer("alpha", torch.sigmoid(log_snr).sqrt().float(), persistent=False)
        self.register_buffer("sigma", torch.sigmoid(-log_snr).sqrt().float(), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.unet(x_t, t).sample
        alpha, sigma = (scale[t][:, None, None, None] for scale in (self.alpha, self.sigma))
        if self.kind == "v_prediction":
            return alpha * out + sigma * x_t
        return (x_t - alpha * out) / sigma if self.kind == "sample" else out


SPENT = (0.0, 2.0**-24)
"""Shares of the signal at the last time that mean none: schedulers of diffusers write the second in place of zero."""


def from_diffusers(
    unet: Any,
    scheduler: Any,
    shape: tuple[int, int, int],
    trained_on: str,
    terms: int = 16,
    seed: int = 0,
) -> Diffusion:
    """A ``UNet2DModel`` of diffusers with the scheduler that it was trained under; pixels in [−1, 1], as there.

    Under a zero terminal signal-to-noise ratio the last time, where no signal is left, is left out: the bound is that of
    the diffusion which begins at the time before it.

    Raises
    ------
    ModelError : a U-Net that is conditional, of another kind or also predicts variances; a scheduler without a noise schedule
        (flow matching, EDM); a prediction type that is not known
    """
    _check_unet(unet, shape)
    kept = _kept_signal(scheduler)
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    if kind not in ("epsilon", "sample", "v_prediction"):
        raise ModelError(
            f"the prediction type {kind!r} is not known; there are 'epsilon', 'sample' and 'v_prediction'"
        )
    usable = kept[:-1] if kept[-1].item() in SPENT else kept
    log_snr = torch.log(usable) - torch.log1p(-usable)
    model: Any = Diffusion(shape, _DiffusersNoise(unet, kind, log_snr), log_snr, terms, seed=seed)
    model.trained_on = trained_on
    left_out = len(kept) - len(usable)
    without = f" ({left_out} without signal left out)" if left_out else ""
    model.likelihood = f"variational bound, {len(log_snr)} steps{without}, {terms} terms drawn"
    return model.eval()


def _check_unet(unet: Any, shape: tuple[int, int, int]) -> None:
    name = type(unet).__name__
    if name != "UNet2DModel":
        raise ModelError(
            f"{name} is not supported, only an unconditional UNet2DModel of diffusers; for a network of another kind there "
            "are oodbench.from_noise_predictor and oodbench.from_velocity"
        )
    config = unet.config
    classes, embedding = (
        getattr(config, field, None) for field in ("num_class_embeds", "class_embed_type")
    )
    if classes or embedding:
        raise ModelError(
            f"the U-Net is class-conditional (num_class_embeds={classes}, class_embed_type={embedding!r}): it gives "
            "log p(x|class), which is not what is compared here; train or load an unconditional one"
        )
    if config.in_channels != shape[0]:
        raise ModelError(
            f"the U-Net takes {config.in_channels} channels for images of {shape[0]}; does it work on latents?"
        )
    if config.out_channels != shape[0]:
        raise ModelError(
            f"the U-Net gives {config.out_channels} channels for images of {shape[0]}; learned variances are not supported"
        )


def _kept_signal(scheduler: Any) -> Tensor:
    """``ᾱ_t`` of a diffusers scheduler in float64, from the least noise on."""
    name = type(scheduler).__name__
    if "FlowMatch" in name:
        raise ModelError(
            f"{name} trains a velocity, not a diffusion's noise; its density is oodbench.from_velocity(lambda x, t: "
            "unet(x, 1000 * t).sample, shape, noise_time=1.0, data_time=0.0), in a module that holds the U-Net"
        )
    kept = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(kept, Tensor):
        raise ModelError(
            f"{name} has no noise schedule alphas_cumprod, so it is no diffusion that keeps the variance and is not supported"
        )
    kept = kept.double()
    falls = (kept[:-1].diff() < 0).all() and (kept[-1] < kept[-2] or kept[-1].item() in SPENT)
    if not falls or kept[0] >= 1:
        raise ModelError(
            f"the alphas_cumprod of {name} do not fall from below 1; is it the scheduler of the training?"
        )
    return kept
