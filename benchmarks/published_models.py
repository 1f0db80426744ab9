"""Public full-size checkpoints, measured: bits/dim and the AUROC of likelihood beside what their authors or others report.

    python benchmarks/published_models.py FOLDER [--limit 500] [--device cuda] [--out runs/published]

FOLDER holds the files under the names below, at any depth. Nothing is downloaded: what is missing is said with where it comes
from, and the exit code is 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import oodbench as ob
from oodbench.errors import OodbenchError
from oodbench.zoo.importers import convert, write_card

SCORERS = ("likelihood", "typicality", "input-complexity-png", "code-length-png", "pixel-variance")
COLUMNS = ["ood", "scorer", "auroc", "auroc_low", "auroc_high", "n_in", "n_ood", "status", "reason"]


@dataclass(frozen=True)
class Published:
    """A checkpoint that others trained."""

    name: str
    files: tuple[str, ...]
    """The names under which its authors hand it out."""
    where: str
    licence: str
    in_dist: str
    ood: tuple[str, ...]
    reported: str
    """Its bits/dim by its source, or that there is none."""
    view: str = ""
    options: dict[str, Any] = field(default_factory=dict)


PUBLISHED = (
    Published(
        "glow-y0ast", ("glow_affine_coupling.pt",),
        "https://github.com/y0ast/Glow-PyTorch: its README links glow.zip, to be unpacked",
        "MIT", "cifar10", ("svhn", "cifar100"),
        "3.39 bits/dim on CIFAR-10 test (its README)",
    ),
    Published(
        "pixelcnn-pclucas14", ("pcnn_lr_0.00040_nr-resnet5_nr-filters160_889.pth",),
        "https://github.com/pclucas14/pixel-cnn-pp: its README links the file",
        "MIT", "cifar10", ("svhn", "cifar100"),
        "2.95 bits/dim on CIFAR-10 test (its README); 2.92 for the original (Salimans et al. 2017)",
    ),
    Published(
        "vae-likelihood-regret", ("netE_pixel.pth", "netG_pixel.pth"),
        "https://github.com/XavierXiao/Likelihood-Regret: saved_models/fmnist",
        "MIT", "fashionmnist", ("mnist",),
        "no bits/dim is reported",
        view="resize32-bilinear-aa",
    ),
    Published(
        "pixelcnn-shared-block", ("PixelCNN_MNIST.pth",),
        "https://github.com/Aliciiaa/Projet-DL-A.PRADIGNAC-A.LEMAIRE",
        "none stated: for local use only", "mnist", ("fashionmnist",),
        "no bits/dim is reported",
        options={"shape": [1, 28, 28], "repeats": 5, "mean": 0.1307, "std": 0.3081},
    ),
    Published(
        "vae-pytorch-example", ("vae_fashion_mnist.pth",),
        "https://github.com/TheJezzaS/M1SemiUnsupervisedLearning",
        "none stated: for local use only", "fashionmnist", ("mnist",),
        "no bits/dim: a Bernoulli likelihood is none of 8-bit images",
        options={"shape": [1, 28, 28]},
    ),
)  # fmt: skip
"""One for each format that ``oodbench import`` knows; the first two are of full size."""


def found(one: Published, folder: Path) -> list[Path]:
    """The files of a checkpoint below a folder; those that are missing are left out."""
    hits = [next(iter(sorted(folder.rglob(name))), None) for name in one.files]
    return [path for path in hits if path is not None]


def lacking(one: Published, folder: Path) -> list[str]:
    """Names of a checkpoint's files that do not lie below a folder."""
    there = {path.name for path in found(one, folder)}
    return [name for name in one.files if name not in there]


def measured(one: Published, folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """Import a checkpoint, judge it, and tell its numbers beside the reported ones."""
    card = args.out / "models" / one.name
    imported = convert(found(one, folder), one.options)
    record = {"command": "benchmarks/published_models.py", "imported": list(one.files)}
    write_card(imported, card, one.name, one.in_dist, one.view, record, overwrite=True)
    table = ob.evaluate(
        str(card), one.in_dist, one.ood, SCORERS,
        limit=args.limit, device=args.device, out=args.out / one.name,
    )  # fmt: skip
    sound = table[table.status == "ok"]
    fits = sorted({f"{value:.3f}" for value in sound.get("in_dist_bits_per_dim", ()) if value})
    yield f"  ours: {', '.join(fits) or 'no'} bits/dim in-dist, log p is {imported.likelihood}"
    yield table.reindex(columns=COLUMNS).to_string(index=False)


def told(one: Published, folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """What is known of a checkpoint, and its numbers where its files are here."""
    yield f"\n{one.name}: {', '.join(one.files)}"
    yield f"  from {one.where}; licence: {one.licence}"
    yield f"  reported: {one.reported}"
    missing = lacking(one, folder)
    if missing:
        yield f"  not measured: {', '.join(missing)} is not below {folder}"
        return
    try:
        yield from measured(one, folder, args)
    except OodbenchError as error:
        yield f"  not measured: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the checkpoints lie")
    parser.add_argument("--limit", type=int, help="images drawn of each set; all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    args = parser.parse_args()
    for one in PUBLISHED:
        for line in told(one, args.folder, args):
            print(line, flush=True)


if __name__ == "__main__":
    main()
