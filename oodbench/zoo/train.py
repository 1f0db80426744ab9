"""Training a card's model with Lightning: progress, checkpoints, resume, early stop, and a record of what was done."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import logging
import math
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torchvision
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from oodbench.data.images import ImageSet, in_split, load_images
from oodbench.data.labels import load_labels
from oodbench.errors import ModelError
from oodbench.metrics.ranking import area_under_roc
from oodbench.paths import write_whole
from oodbench.zoo.cards import Card, Recipe
from oodbench.zoo.describe import unknown_names
from oodbench.zoo.load import build

WATCHED_IMAGES = 500
"""Images of `ref` and of each watched set whose likelihoods are compared."""

PREVIEWED = 16
"""Images of a preview."""
HALF_LIMIT, HALF_CHECK_IMAGES = 1e-3, 256
"""Weights are stored in half precision where no image of this many moves by as much, in bits/dim."""
HALF_FROM = 2000
"""Smaller tensors stay in full precision: scales, biases and 1×1 convolutions weigh little and matter most."""


def mutate(images: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Replace each pixel-channel, with probability ``rate``, by a uniform draw from the 256 levels.

    The perturbation under which a background model of the likelihood ratio is trained (Ren et al., NeurIPS 2019,
    arXiv:1906.02845); a replaced pixel keeps its value with probability 1/256.
    """
    options: dict[str, Any] = {"device": images.device, "generator": generator}
    chosen = torch.rand(images.shape, **options) < rate
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8, **options)
    return torch.where(chosen, noise, images)


def _per_dim(nats: Tensor, images: Tensor) -> Tensor:
    """The mean over images, in bits a dimension."""
    return nats.mean() / (images[0].numel() * math.log(2))


class Fit(pl.LightningModule):
    """Minimises the model's ``loss`` in bits a dimension."""

    monitor: ClassVar = "ref_bits_per_dim"
    """What validations on ``ref`` measure, and the weights are chosen by: the smallest."""

    def __init__(self, model: nn.Module, recipe: Recipe, made_from: str = ""):
        super().__init__()
        self.model: Any = model
        self.recipe, self.made_from = recipe, made_from

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note of which card the checkpoint is, since a training goes on from it."""
        checkpoint["oodbench_card"] = self.made_from

    @property
    def validated(self) -> Callable[[Tensor], Tensor]:
        """What validation measures, in nats: the loss, or what a model whose loss is no likelihood names beside it."""
        found: Callable[[Tensor], Tensor] = getattr(self.model, "validation_loss", self.model.loss)
        return found

    def on_fit_start(self) -> None:
        """Let each process draw noise and mutations of its own: the seed that they share would draw alike."""
        if self.trainer.world_size > 1:
            torch.manual_seed(self.recipe.seed + self.global_rank)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        images = mutate(batch[0], self.recipe.mutation) if self.recipe.mutation else batch[0]
        loss = _per_dim(self.model.loss(images), images)
        likelihood = self.validated == self.model.loss
        self.log("train_bits_per_dim" if likelihood else "train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log(
            self.monitor,
            _per_dim(self.validated(batch[0]), batch[0]),
            prog_bar=True,
            batch_size=len(batch[0]),
            sync_dist=True,  # all processes must choose the same weights
        )

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *limits: Any, **more: Any
    ) -> None:
        """Clip the global norm; a step whose gradient is not finite is left out, or it would end the training."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)
        if not torch.isfinite(norm):
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimiser = torch.optim.AdamW(
            self.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, recipe.warmup))
            return warm * 0.5 * (1 + math.cos(math.pi * min(step / recipe.steps, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class FitClasses(Fit):
    """Minimises a classifier's ``loss`` in nats an image; a batch holds images and their classes."""

    monitor: ClassVar = "ref_cross_entropy"

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss: Tensor = self.model.loss(*batch).mean()
        self.log("train_cross_entropy", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        images, labels = batch
        right = (self.model.classify(images)[0].argmax(1) == labels).float().mean()
        found = {self.monitor: self.model.loss(images, labels).mean(), "ref_accuracy": right}
        self.log_dict(found, prog_bar=True, batch_size=len(images))


class Watch(pl.Callback):
    """Logs, at each validation, the AUROC of raw likelihood against other image sets as ``auroc_<name>``.

    How well a model detects and how well it fits part ways during training (Nalisnick et al. 2019, appendix).
    """

    def __init__(self, ref: Tensor, others: dict[str, Tensor]):
        self.ref, self.others = ref, others

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        own = self._scores(module, self.ref)
        for name, images in self.others.items():
            other = self._scores(module, images)
            finite = np.isfinite(own).all() and np.isfinite(other).all()
            area = area_under_roc(own, other) if finite else math.nan
            module.log(f"auroc_{name}", area, sync_dist=True)

    def _scores(self, module: Any, images: Tensor) -> np.ndarray:
        batches = images.split(module.recipe.batch_size)
        log_prob = torch.cat([module.model.log_prob(batch.to(module.device)) for batch in batches])
        return -log_prob.double().cpu().numpy()


class _Bar(TQDMProgressBar):
    """Lightning's bar without its version number."""

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().get_metrics(trainer, module).items()
            if name != "v_num"
        }


def _quiet_lightning() -> None:
    """Silence hints about hardware, loggers and workers, which a card's recipe has settled."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")


class Dealt(Sampler[int]):
    """An epoch's images for one of several processes: dealt out in one random order, so that none has another's image.

    The order is of (seed, epoch); each process has every ``processes``-th image of it, and the few that are left over wait for
    another epoch. Batches of one step are then a batch of as many images in that order.
    """

    def __init__(self, n: int, processes: int, seed: int):
        self.n, self.processes, self.seed, self.epoch = n, processes, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning tells the epoch before it begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.processes

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return iter(order[rank :: self.processes][: len(self)].tolist())


def _loader(
    *columns: np.ndarray, batch_size: int, shuffle: bool = False, dealt: Dealt | None = None
) -> DataLoader[Any]:
    return DataLoader(
        TensorDataset(*(torch.from_numpy(np.array(column)) for column in columns)),
        batch_size,
        shuffle=shuffle and dealt is None,
        sampler=dealt,
        drop_last=shuffle,
    )


def _loaders(
    card: Card, recipe: Recipe, images: ImageSet, ref: ImageSet, devices: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Of the training images in random order, and of those that validations look at; with classes where the model needs them."""
    fitted, judged = [images.images], [_validation_images(ref, recipe)]
    if card.uses_labels:
        fitted.append(load_labels(in_split(card.trained_on, "train")))
        classes = load_labels(in_split(card.trained_on, "ref"))
        judged.append(classes[ref.drawn_rows(recipe.validate_images)])
    size = recipe.batch_size
    dealt = Dealt(len(images), devices, recipe.seed) if devices > 1 else None
    fitting = _loader(*fitted, batch_size=size // devices, shuffle=True, dealt=dealt)
    return fitting, _loader(*judged, batch_size=size)


def _validation_images(ref: ImageSet, recipe: Recipe) -> np.ndarray:
    """The first images of `ref`, mutated once and for all where the training images are mutated afresh."""
    images = np.array(ref.drawn(recipe.validate_images).images)
    if not recipe.mutation:
        return images
    return mutate(
        torch.from_numpy(images), recipe.mutation, torch.Generator().manual_seed(recipe.seed)
    ).numpy()


def _watch(recipe: Recipe, ref: ImageSet) -> list[pl.Callback]:
    sets = {name: load_images(name, shape=ref.shape) for name in recipe.watch}
    tensors = {
        name: torch.from_numpy(np.array(found.drawn(WATCHED_IMAGES).images))
        for name, found in sets.items()
    }
    return (
        [Watch(torch.from_numpy(np.array(ref.drawn(WATCHED_IMAGES).images)), tensors)]
        if sets
        else []
    )


def _made_from(card: Card) -> str:
    """What a training that goes on must share with its beginning: all of the card but how long it takes."""
    recipe = (
        card.recipe.model_dump(exclude={"steps", "patience", "watch", "validate_images"})
        if card.recipe
        else {}
    )
    return json.dumps([card.family, card.config, card.trained_on, recipe], sort_keys=True)


def _check_same_card(card: Card, last: Path) -> None:
    """:class:`ModelError` where another card's training was begun in this folder."""
    if not last.exists():
        return
    begun = torch.load(last, map_location="cpu", weights_only=True).get("oodbench_card")
    if begun not in (None, _made_from(card)):
        raise ModelError(
            f"{last.parent} holds the training of another card or recipe, which cannot go on as {card.name}; choose another "
            "--out, or remove that folder"
        )


def _trainer(device: str, devices: int, **settings: Any) -> pl.Trainer:
    if devices > 1:
        settings |= {"strategy": "ddp", "use_distributed_sampler": False}
    try:
        return pl.Trainer(accelerator=device, devices=devices, **settings)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ModelError(f"the device {device!r} cannot be trained on here: {error}") from error


def _best(
    fit: Fit, trainer: pl.Trainer, best: ModelCheckpoint, loader: DataLoader[Any]
) -> tuple[dict[str, Tensor], float]:
    """The weights of the best validation, and what it measured on ``ref``; the last step's are validated first."""
    last = {key: tensor.detach().cpu().clone() for key, tensor in fit.model.state_dict().items()}
    path = Path(best.dirpath or "") / "best.ckpt"
    found = torch.load(path, map_location="cpu", weights_only=True)
    score = float(found["callbacks"][best.state_key]["current_score"])
    if trainer.global_step % fit.recipe.validate_every:
        (metrics,) = trainer.validate(fit, loader, verbose=False)
        if metrics[fit.monitor] < score or not math.isfinite(score):
            return _finite(last, metrics[fit.monitor])
    state = found["state_dict"].items()
    return _finite(
        {key.removeprefix("model."): tensor.contiguous() for key, tensor in state}, score
    )


def _finite(weights: dict[str, Tensor], score: float) -> tuple[dict[str, Tensor], float]:
    if not math.isfinite(score):
        raise ModelError(
            "the training diverged: no validation gave a finite likelihood; try a smaller learning_rate or gradient_clip"
        )
    return {key: tensor.contiguous() for key, tensor in weights.items()}, score


def _joined_logs(folder: Path) -> str:
    """The metrics of all sittings of an interrupted training, in the order of steps."""
    logs = [pd.read_csv(path) for path in sorted(folder.glob("version_*/metrics.csv"))]
    return str(pd.concat(logs).groupby("step", as_index=False).last().to_csv(index=False))


@torch.no_grad()
def _stored(
    model: Any, weights: dict[str, Tensor], ref: ImageSet, recipe: Recipe
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The large weights in half precision, unless that moves the log-probability of some image by more than the limit."""
    if not hasattr(model, "log_prob"):
        return weights, {"storage": "float32"}
    checked = min(HALF_CHECK_IMAGES, recipe.validate_images)
    images = torch.from_numpy(np.array(ref.drawn(checked).images))
    half = {
        key: value.half() if value.numel() >= HALF_FROM else value for key, value in weights.items()
    }
    log_prob = []
    for stored in (weights, half):
        model.cpu().eval().load_state_dict(stored)
        log_prob.append(torch.cat([model.log_prob(batch) for batch in images.split(64)]))
    moved = ((log_prob[0] - log_prob[1]).abs().max() / (images[0].numel() * math.log(2))).item()
    if moved < HALF_LIMIT:
        return half, {"storage": "float16", "storage_moves_bits_per_dim": round(moved, 6)}
    return weights, {"storage": "float32"}


@torch.no_grad()
def _accuracy(model: Any, weights: dict[str, Tensor], ref: DataLoader[Any]) -> dict[str, float]:
    """``ref_accuracy`` of a classifier: the share of ``ref`` whose class has the largest logit; nothing of other models."""
    if not hasattr(model, "classify"):
        return {}
    model.cpu().eval().load_state_dict(weights)
    right = [model.classify(images)[0].argmax(1) == labels for images, labels in ref]
    return {"ref_accuracy": round(torch.cat(right).float().mean().item(), 4)}


def _solved(model: Any, ref: ImageSet) -> dict[str, Any]:
    """How well a model whose density is an ODE's solves it: what halving its steps moves, and the trace's error."""
    if not hasattr(model, "solver_steps"):
        return {}
    images = torch.from_numpy(np.array(ref.images))
    whole = solved_in(model, images, model.solver_steps)
    moved = (whole - solved_in(model, images, model.solver_steps // 2)).abs()
    return {
        "halving_moves_bits_per_dim": round(moved.max().item(), 6),
        "trace_error_bits_per_dim": round(model.trace_error(images), 6),
    }


@torch.no_grad()
def solved_in(model: Any, images: Tensor, steps: int) -> Tensor:
    """Bits/dim of images under so many steps of the model's solver, ``(B,)``."""
    usual = model.solver_steps
    model.solver_steps = steps
    try:
        log_prob = torch.cat([model.log_prob(batch) for batch in images.split(64)])
    finally:
        model.solver_steps = usual
    return -log_prob / (images[0].numel() * math.log(2))


def _checked_recipe(card: Card) -> Recipe:
    """The card's recipe, where there is one, its names exist and its settings go together."""
    recipe = card.recipe
    if recipe is None:
        raise ModelError(f"{card.name}'s card has no recipe to train by")
    unknown = unknown_names(card)
    if unknown:
        raise ModelError("; ".join(unknown))
    if card.uses_labels and (recipe.watch or recipe.mutation):
        raise ModelError(
            f"{card.name}: recipe.watch and recipe.mutation are for models with a likelihood; leave them out"
        )
    if recipe.validate_every > recipe.steps:
        raise ModelError(
            f"{card.name}: recipe.validate_every is {recipe.validate_every}, more than the {recipe.steps} steps, so that no "
            f"validation could choose the weights; make it {recipe.steps} or less"
        )
    return recipe


def _check_divides(card: Card, recipe: Recipe, devices: int) -> None:
    if recipe.batch_size % devices:
        raise ModelError(
            f"{card.name}: a batch of {recipe.batch_size} cannot be divided among {devices} devices; choose --devices that "
            "divides it, or another recipe.batch_size"
        )


def _check_enough(images: ImageSet, recipe: Recipe) -> None:
    if len(images) < recipe.batch_size:
        raise ModelError(
            f"{images.identifier} has {len(images)} images, fewer than a batch of {recipe.batch_size}; "
            "make recipe.batch_size smaller, or train on more images"
        )


def logger_at(path: str, out: Path) -> Any:
    """A logger of Lightning by its import path, ``module.Class`` or ``module:name``.

    A class is made with ``save_dir=out`` where it takes that; a function is called; an instance is taken as it is.

    Raises
    ------
    ModelError : no such module or name, one that cannot be made, or no logger of Lightning
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        if not isinstance(found, Logger):
            takes = inspect.signature(found).parameters
            found = found(**({"save_dir": str(out)} if "save_dir" in takes else {}))
    except Exception as error:  # an import may raise anything, and so may making a logger
        raise ModelError(
            f"--logger {path} cannot be had ({type(error).__name__}: {error}); give module.Class, such as "
            "pytorch_lightning.loggers.TensorBoardLogger, or module:name of one that you have made"
        ) from error
    if not isinstance(found, Logger):
        raise ModelError(f"--logger {path} gives a {type(found).__name__}, no logger of Lightning")
    return found


class Previews(pl.Callback):
    """Draws images at the first validation, the second, the fourth, the eighth, …: early ones show most.

    They are written to ``folder`` as one picture each, and shown by every logger that can show images.
    """

    def __init__(self, folder: Path):
        self.folder, self.validations = folder, 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.validations += 1
        if self.validations & (self.validations - 1):
            return
        generator = torch.Generator(module.device).manual_seed(module.recipe.seed)
        images = module.model.sample(PREVIEWED, generator=generator).cpu()
        grid = torchvision.utils.make_grid(images, nrow=math.isqrt(PREVIEWED))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{trainer.global_step:06}.png"
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path)
        for logger in trainer.loggers:
            _show(logger, grid, path, trainer.global_step)


def _show(logger: Any, grid: Tensor, path: Path, step: int) -> None:
    """Hand a preview to a logger, by whichever way it takes images; one without any has the file beside it."""
    experiment = logger.experiment
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image("samples", [str(path)], step=step)
    elif hasattr(experiment, "add_image"):  # TensorBoard
        experiment.add_image("samples", grid, step)


def train(
    card: Card,
    out: Path,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    logger: str = "",
    devices: int = 1,
) -> dict[str, Any]:
    """Train ``card``'s model by its recipe and write a complete card folder to ``out``.

    The last step is validated too, whatever the interval; the weights are those of the best validation. An interrupted
    training goes on from its last validation when called again with the same ``out``.

    Parameters
    ----------
    logger : import path of a logger of Lightning that is told the metrics too, and shown early samples; see :func:`logger_at`
    devices : processes that share each batch of the recipe, one a device; their gradients' mean is that of the batch

    Returns
    -------
    the record that is also written to ``trained.json``, by the first process

    Raises
    ------
    ModelError : before any work, settings that exclude one another, names that do not exist, too few images, a device that
        is not here, a folder in which another card was begun; afterwards, a training without one finite validation
    """
    recipe = _checked_recipe(card)
    images = load_images(in_split(card.trained_on, "train"), shape=card.shape)
    ref = load_images(in_split(card.trained_on, "ref"), shape=card.shape)
    _check_enough(images, recipe)
    _check_divides(card, recipe, devices)
    told = [logger_at(logger, out)] if logger else []
    _quiet_lightning()
    if threads:
        torch.set_num_threads(threads)
    pl.seed_everything(recipe.seed, verbose=False)
    out.mkdir(parents=True, exist_ok=True)
    checkpoints = out / "checkpoints"
    last = checkpoints / "last.ckpt"
    _check_same_card(card, last)

    loaders = _loaders(card, recipe, images, ref, devices)
    task = FitClasses if card.uses_labels else Fit
    best = ModelCheckpoint(
        checkpoints,
        "best",
        monitor=task.monitor,
        save_last=True,
        enable_version_counter=False,
    )
    trainer = _trainer(
        device,
        devices,
        max_steps=recipe.steps,
        precision=recipe.precision,
        val_check_interval=recipe.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, recipe.validate_every),
        logger=[CSVLogger(out, name="lightning"), *told],
        callbacks=[
            best,
            EarlyStopping(task.monitor, patience=recipe.patience),
            *_watch(recipe, ref),
            *([Previews(out / "previews")] if told and card.gives("sample") else []),
            _Bar(refresh_rate=20),
        ],
        enable_model_summary=False,
        inference_mode=False,  # under which an ODE's trace could take no gradient
    )
    fit = task(build(card).to(memory_format=torch.channels_last), recipe, _made_from(card))
    goes_on = last if last.exists() else None
    try:
        trainer.fit(fit, *loaders, ckpt_path=goes_on)
    except (
        SystemExit
    ) as ended:  # how Lightning ends on Ctrl-C, and on a signal that is raised like it
        cause = ended.__context__
        raise cause if isinstance(cause, KeyboardInterrupt) else KeyboardInterrupt from ended
    steps = trainer.global_step  # a last validation sets it back
    weights, reached = _best(fit, trainer, best, loaders[1])
    if not trainer.is_global_zero:
        sys.exit()  # the first process writes for all
    weights, storage = _stored(fit.model, weights, ref, recipe)
    content = save_safetensors(weights)
    validated = ref.drawn(recipe.validate_images)
    record = {
        **storage,
        **_solved(fit.model, validated),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in fit.model.parameters()),
        fit.monitor: round(reached, 4),
        **_accuracy(fit.model, weights, loaders[1]),
        "steps": steps,
        "train": {"set": images.identifier, "sha256": images.sha256},
        "ref": {"set": validated.identifier, "sha256": validated.sha256},
        "recipe": recipe.model_dump(),
        "command": command,
        "torch": torch.__version__,
        **({"devices": devices} if devices > 1 else {}),
        "machine": f"{platform.machine()} {trainer.accelerator.__class__.__name__}, {torch.get_num_threads()} threads",
    }
    write_whole(out / "weights.safetensors", lambda file: file.write(content))
    write_whole(out / "log.csv", lambda file: file.write(_joined_logs(out / "lightning").encode()))
    if card.folder.resolve() != out.resolve():
        shutil.copyfile(card.folder / "card.yaml", out / "card.yaml")
    write_whole(
        out / "trained.json",
        lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()),
    )
    return record
