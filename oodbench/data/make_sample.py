"""Makes the sample that travels in the package: ``python -m oodbench.data.make_sample FOLDER``, from the full sets."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from oodbench.data.images import ImageSet, load_images
from oodbench.data.sources import DRAWN
from oodbench.paths import write_whole

SAMPLED = (
    "fashionmnist/test[first 2000]",
    "fashionmnist/ref[first 1000]",
    f"fashionmnist/train[{DRAWN} drawn]",
    "mnist/test[first 2000]",
    "mnist/ref[first 1000]",
    f"mnist/train[{DRAWN} drawn]",
    "cifar10/test[first 2000]",
    "cifar10/ref[first 1000]",
    f"cifar10/train[{DRAWN} drawn]",
    "svhn/test[first 2000]",
    "emnist-letters/test[1000 drawn]",
    "omniglot-small/test[1000 drawn]",
)


def write_sample(images: ImageSet, folder: Path) -> Path:
    """Store an image set losslessly: an ``.npz`` whose ``images`` are LZMA-compressed.

    A draw gets a name that no search for the split finds.
    """
    drawn = "_drawn" * (images.drawn_from is not None)
    return write_array(folder / f"{images.name}_{images.split}{drawn}.npz", images.images)


def write_array(path: Path, images: np.ndarray) -> Path:
    """Store images losslessly, the same bytes each time."""

    def write(file: object) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:  # type: ignore[call-overload]
            member = zipfile.ZipInfo(
                "images.npy", (1980, 1, 1, 0, 0, 0)
            )  # no clock: the same bytes each time
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w") as out:
                np.lib.format.write_array(out, np.ascontiguousarray(images))

    write_whole(path, write)
    return path


def main(folder: str) -> None:
    for identifier in SAMPLED:
        images = load_images(identifier)
        path = write_sample(images, Path(folder))
        print(f"{path} {images.identifier} {images.sha256} {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
