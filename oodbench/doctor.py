"""What this machine has for oodbench, what it lacks, and how to get that."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from oodbench import __version__
from oodbench.cache import KINDS
from oodbench.data import sources
from oodbench.data.catalog import DataCard, catalog
from oodbench.errors import DataError
from oodbench.paths import home
from oodbench.zoo.cards import load_card, zoo

NEEDED = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "scikit-learn",
    "seaborn",
)
EXTRAS = {
    "imagecodecs": ("codecs", "code lengths of JPEG XL and JPEG-LS"),
    "huggingface_hub": ("hub", "weights that are hosted elsewhere"),
    "pyarrow": ("datasets", "parquet files"),
    "zuko": ("adapters", "flows of zuko, nflows and normflows"),
    "ray": ("", "runs over several machines: `pip install ray`"),
}
"""Module → the extra that brings it, and what it is for."""
DEVICES = """
import torch
found = [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
found += ["mps"] * torch.backends.mps.is_available()
print("; ".join([f"cpu, {torch.get_num_threads()} threads", *found]))
"""


def examined() -> Iterator[str]:
    """A line for each thing; what is missing says how to get it."""
    yield f"oodbench {__version__}, python {platform.python_version()}, {platform.platform()}"
    yield ", ".join(_version(name) for name in NEEDED)
    yield f"cores: {os.cpu_count()}; torch sees: {_devices()}"
    yield from _missing()
    yield from _data()
    yield from _models()
    yield from _disk()


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing: `pip install {name}`"


def _devices() -> str:
    """Asked of another process, so that a torch that cannot be loaded is a line and no end."""
    asked = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        told = asked.stderr.strip().splitlines() or ["it gives no reason"]
        return f"nothing: torch cannot be loaded ({told[-1]}): `pip install torch`"
    return asked.stdout.strip()


def _missing() -> Iterator[str]:
    for module, (extra, what) in EXTRAS.items():
        if find_spec(module) is None:
            how = f": `pip install 'oodbench[{extra}]'`" if extra else ""
            yield f"not installed: {module}, for {what}{how}"


def _data() -> Iterator[str]:
    """How many sets are whole, and how the others can be had."""
    states = {
        name: _state(card) for name, card in catalog().items() if not (card.generated or card.part)
    }
    for state in ("whole", "in part", "nothing"):
        names = [name for name, found in states.items() if found == state]
        if names:
            yield f"image sets, {state} here: {', '.join(names)}"
    lacking = [card for name, card in catalog().items() if states.get(name, "whole") != "whole"]
    fetched = [card.name for card in lacking if card.files]
    if fetched:
        yield f"the rest of these: `oodbench data fetch {' '.join(fetched)}`"
    others = [card.name for card in lacking if not card.files]
    if others:
        yield f"how to get {', '.join(others)}: `oodbench data list`"


def _state(card: DataCard) -> str:
    try:
        found = {split: sources.find(card, split) for split in card.counts}
    except DataError:
        return "nothing"
    if found and all(one and one.n >= card.counts[split] for split, one in found.items()):
        return "whole"
    return "in part" if any(found.values()) or sources.drawn_sample(card, "test") else "nothing"


def _models() -> Iterator[str]:
    names = list(zoo())
    lacking = [name for name in names if not load_card(name).weights.exists()]
    yield f"models: {len(names) - len(lacking)} of {len(names)} have their weights here"
    for name in lacking:
        hosted = load_card(name).hosted
        yield f"without weights: {name}: `oodbench {'fetch' if hosted else 'train'} {name}`"


def _disk() -> Iterator[str]:
    files = (file for kind, suffix in KINDS.items() for file in (home() / kind).rglob(f"*{suffix}"))
    size = sum(file.stat().st_size for file in files)
    there = next(path for path in (home(), *home().parents) if path.exists())
    free = shutil.disk_usage(there).free
    yield f"cache {home()}: {size / 1e6:,.1f} MB, {free / 1e9:,.1f} GB free; `oodbench cache` says more"
