"""Weights that are hosted elsewhere: on the Hugging Face hub, or in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from oodbench.errors import ModelError
from oodbench.foreign import check_size, inside, reason_of
from oodbench.paths import home, write_whole
from oodbench.zoo.cards import MOST, Card, Hosted


def fetch_weights(card: Card) -> Path:
    """Bring a card's hosted weights here; their hash is compared with the card's before they are kept.

    Raises
    ------
    ModelError : nothing is hosted, huggingface_hub is not installed, no connection, no such file, or another hash
    """
    if card.hosted is None:
        raise ModelError(f"the card of {card.name} names no place where its weights are hosted")
    found = _located(card.name, card.hosted)
    check_size(found, MOST, ModelError, "weights")
    content = found.read_bytes()
    card.verify(content, card.hosted.repo)
    write_whole(card.weights, lambda file: file.write(content))
    return card.weights


def _located(name: str, hosted: Hosted) -> Path:
    folder = Path(hosted.repo).expanduser()
    if folder.is_dir():
        return _checked_file(inside(folder, hosted.file, ModelError, f"the card of {name}"))
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ModelError(
            f"the weights of {name} are on the Hugging Face hub; install its client: pip install 'oodbench[hub]'"
        ) from error
    endpoint, cache = os.environ.get("HF_ENDPOINT"), home() / "hub"
    try:
        found = hf_hub_download(
            hosted.repo, hosted.file, revision=hosted.revision, endpoint=endpoint, cache_dir=cache
        )
    except Exception as error:  # its own exceptions, those of its transport, and OSError
        raise ModelError(
            f"{hosted.file} of {hosted.repo}@{hosted.revision} cannot be fetched: {reason_of(error)}"
        ) from error
    return Path(found)


def _checked_file(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"there is no file {path}, which the card names as its weights")
    return path
