"""The families of models: what builds one, the version of its code, what it can do. Imports no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oodbench.digests import code_digest
from oodbench.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import nn

SCORING = "2"
"""Version of the folded form in which models are scored; a new one whenever its numbers change."""

SCORING_MODULES = ("oodbench.zoo.scoring", "oodbench.models.pixelcnn_scoring")
"""The modules that :data:`SCORING` is the version of."""

MATHEMATICS = "oodbench.models"
"""The package whose modules a family's code digest follows."""


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes
    ----------
    builder : ``module:name`` in ``oodbench.models``, which takes a card's configuration; imported when called
    capabilities : methods that statistics ask for, so that a plan knows them without loading a model
    version : part of every model's identity; a new one whenever the family's numbers change
    sampler_version : part of every drawn set's identity; None where the family draws none
    draws_at_once : a draw takes one pass of the network, not one for each pixel or step
    solves_an_ode : its density is the solution of one, of which a card's ``solver``, ``steps`` and ``probes`` tell
    density, sampler : the modules in ``oodbench.models`` that ``version`` and ``sampler_version`` are of, where the
        builder's adds something else; else the builder's own
    """

    builder: str
    capabilities: frozenset[str]
    version: str
    sampler_version: str | None = None
    draws_at_once: bool = False
    solves_an_ode: bool = False
    density: str = ""
    sampler: str = ""

    @property
    def module(self) -> str:
        """Name of the module that holds the builder."""
        return f"{MATHEMATICS}.{self.builder.partition(':')[0]}"

    def build(self, **config: Any) -> nn.Module:
        """A model of the family with this configuration, not yet trained."""
        builder = getattr(importlib.import_module(self.module), self.builder.partition(":")[2])
        model: nn.Module = builder(**config)
        return model

    def code(self) -> str:
        """Digest of the density's code: its module, and what that imports of our mathematics."""
        return self._code_of(self.density)

    def sampler_code(self) -> str:
        """Digest of the sampler's code: its module, and what that imports of our mathematics."""
        return self._code_of(self.sampler)

    def _code_of(self, part: str) -> str:
        module = f"{MATHEMATICS}.{part}" if part else self.module
        return code_digest(module, within=MATHEMATICS)


def scoring_code() -> str:
    """Digest of the code that :data:`SCORING` is the version of."""
    return code_digest(*SCORING_MODULES, within="oodbench.zoo.scoring")


ANY = frozenset({"log_prob", "parameters"})
DRAWS = ANY | {"sample"}
DIFFERENTIABLE = DRAWS | {"input_and_log_prob"}
FLOW = DIFFERENTIABLE | {"encode", "decode", "latent_shapes", "sample_with_norm"}
VAE = DIFFERENTIABLE | {"posterior"}


FAMILIES: dict[str, Family] = {
    "glow": Family("glow:Glow", FLOW, version="2", sampler_version="2", draws_at_once=True),
    "realnvp": Family(
        "realnvp:RealNVP", FLOW, version="2", sampler_version="2", draws_at_once=True
    ),
    "pixelcnn++": Family(
        "pixelcnn_residuals:ResidualPixelCNN",
        DIFFERENTIABLE | {"residuals"},
        version="1",
        sampler_version="2",
        density="pixelcnn",
        sampler="pixelcnn_sampling",
    ),
    "gated-pixelcnn": Family(
        "gated_pixelcnn:GatedPixelCNN", DRAWS, version="2", sampler_version="2"
    ),
    "masked-pixelcnn": Family(
        "masked_pixelcnn:MaskedPixelCNN", DRAWS, version="2", sampler_version="2"
    ),
    "vae": Family("vae:rosca_vae", VAE, version="1", sampler_version="1", draws_at_once=True),
    "dcgan-vae": Family("vae:dcgan_vae", VAE, version="1", sampler_version="1", draws_at_once=True),
    "mlp-vae": Family("vae:mlp_vae", VAE, version="1", sampler_version="1", draws_at_once=True),
    "residual-vae": Family(
        "residual_vae:residual_vae", VAE, version="1", sampler_version="1", draws_at_once=True
    ),
    "hierarchical-vae": Family(
        "hvae:HierarchicalVAE",
        DRAWS | {"log_prob_above"},
        version="1",
        sampler_version="1",
        draws_at_once=True,
    ),
    "classifier": Family("classifier:Classifier", frozenset({"classify"}), version="1"),
    "diffusion": Family(
        "diffusion:small_diffusion", DRAWS | {"score"}, version="1", sampler_version="1"
    ),
    "flow-matching": Family(
        "flow_matching:FlowMatching",
        DRAWS | {"encode", "decode"},
        version="1",
        sampler_version="1",
        solves_an_ode=True,
    ),
}
"""Every family by its name in cards; the one place where a family is entered."""


def family(name: str) -> Family:
    """The family called ``name``; :class:`UnknownNameError` offers the nearest ones."""
    if name not in FAMILIES:
        raise UnknownNameError("model family", name, FAMILIES)
    return FAMILIES[name]
