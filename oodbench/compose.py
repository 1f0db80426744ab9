"""A suite made of what a command or a call names: a model, its in-dist set, OOD sets and scorers.

What it makes is an ordinary suite: written to a file it gives the same rows under the same keys.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from oodbench.data.catalog import catalog
from oodbench.data.identifiers import MEMBER, as_path, file_and_member, parse_identifier
from oodbench.data.images import in_split, load_images, shown_name
from oodbench.errors import DataError, ModelError, SuiteError, UnknownNameError
from oodbench.names import LONGEST, checked_name
from oodbench.paths import write_if_changed
from oodbench.registry import load_plugin, models, models_in, plugin_parts
from oodbench.suite import Entry, Suite, named, suite_of
from oodbench.zoo.cards import load_card, zoo

SCORERS = (
    "likelihood", "typicality", "input-complexity-png", "code-length-png", "pixel-variance", "pixel-mean",
)  # fmt: skip
"""What is asked where nothing else is: no scorer that needs a second model, and the baselines."""
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Suffixes by which a model that is not there is known to be meant as a file."""
GENERATED = ("noise", "constant")
"""OOD sets that are always there."""
SMALL_GLOW = {"scales": 2, "steps": 4, "hidden": 32}
"""A Glow that a CPU trains in minutes."""
LARGEST_SIDE, STEPS, VALIDATIONS, BATCH = 32, 1000, 10, 32
MARK = "# Written by oodbench; sha256 of the lines below: "


def composed(
    model: Entry, in_dist: str, ood: Sequence[str], scorers: Sequence[str] = (), *, name: str,
    plugins: Sequence[str] = (), **settings: Any,
) -> Suite:  # fmt: skip
    """The suite of one pair list and one model, which stands for the in-dist set whatever it was trained on.

    Parameters
    ----------
    model : an entry of a suite, as :func:`model_entry` gives
    in_dist, ood : names or paths of image sets, or ``shown=path``
    name : of the suite, see :func:`default_name`
    settings : further fields of the suite, ``limit`` or ``seed``; None leaves one as it is

    Raises
    ------
    SuiteError : a field that no suite can have
    """
    own, *others = set_entries([in_dist, *ood])
    shown_model, model_reference = named(model)
    return suite_of(
        {
            "name": as_name(name),
            "title": f"{shown_model or model_reference} on {_shown(own)}",
            "models": [model],
            "pairs": [{"in_dist": own, "ood": others, "models": [shown_model or model_reference]}],
            "scorers": list(scorers) or list(SCORERS),
            "plugins": list(plugins),
            **{field: value for field, value in settings.items() if value is not None},
        }
    )


def default_name(model: str, in_dist: str) -> str:
    """What a suite is called by default, as its folder: the model's and the in-dist set's shown names."""
    file, name = plugin_parts(model)
    own = name or (file.stem if file.suffix else Path(model).name)
    return as_name(f"{own}-on-{_shown(set_entries([in_dist])[0])}")


def as_name(title: str) -> str:
    """A text as a name, with - for what no name can hold."""
    plain = re.sub(r"[^\w.+=-]+", "-", title).strip("-_.+=")
    return plain[:LONGEST] or "own"


# image sets


def set_entries(texts: Sequence[str]) -> list[Entry]:
    """Entries of a suite for image sets as a person names them: paths made absolute, and no two shown alike.

    Two paths that end alike are shown by their last two parts.
    """
    parted = [_named_set(text) for text in texts]
    met = Counter(shown or _last(reference) for shown, reference in parted)
    entries: list[Entry] = []
    for shown, reference in parted:
        doubled = not shown and met[_last(reference)] > 1 and reference[:1] == os.sep
        own = _last_two(reference) if doubled else shown
        entries.append({own: reference} if own else reference)
    return entries


def _named_set(text: str) -> tuple[str, str]:
    """``shown=path`` as (shown name, reference); a path that holds a = and exists is a path."""
    shown, separator, reference = text.partition("=")
    if not separator or Path(text).expanduser().exists() or not shown:
        return "", _absolute(text)
    return checked_name("image set", shown), _absolute(reference)


def _absolute(text: str) -> str:
    """A reference whose path, where it begins with one, holds from every folder."""
    whole = Path(text).expanduser()
    if text in catalog():
        return text
    if whole.exists():
        return str(whole.absolute())
    parsed = parse_identifier(text)
    path = as_path(parsed.name)
    if path is None or not path.exists():
        return text
    _, member = file_and_member(parsed.name)
    name = f"{path.absolute()}{MEMBER if member else ''}{member}"
    if not text.startswith(parsed.name):  # in quotes, or the folder of a test folder
        return str(replace(parsed, name=name))
    return f"{name}{text[len(parsed.name) :]}"


def _last(reference: str) -> str:
    path = Path(reference)
    return shown_name(path) if path.is_absolute() else reference


def _last_two(reference: str) -> str:
    return as_name("-".join(Path(reference).parts[-2:]))


def bare_reference(text: str) -> str:
    """The name or absolute path of an image set as a person names it, without split, draw and view."""
    _, reference = named(set_entries([text])[0])
    whole = Path(reference)
    return reference if whole.exists() else parse_identifier(reference).name


def _shown(entry: Entry) -> str:
    shown, reference = named(entry)
    return shown or _last(reference)


# models


def model_entry(text: str, card_folder: Path, trained_on: str) -> tuple[Entry, tuple[str, ...]]:
    """The suite's entry for a model as a person names it, and the plugin that holds it.

    Parameters
    ----------
    text : a name (``oodbench list models``), a card's folder, a checkpoint that ``oodbench import`` knows, or
        ``file.py[:name]``
    card_folder, trained_on : of a checkpoint: where its card is written, and its in-dist set

    Raises
    ------
    UnknownNameError : none of these
    ModelError, OodbenchError : a file that holds no model, or several and no name
    """
    file, _ = plugin_parts(text)
    if file.suffix == ".py":
        return _model_of_file(text)
    path = Path(text).expanduser()
    if text in zoo() or text in models:
        return text, ()
    if (path / "card.yaml").is_file() or path.name == "card.yaml":
        folder = (path.parent if path.is_file() else path).absolute()
        return {load_card(str(folder)).name: str(folder)}, ()
    if path.is_file():
        return _imported(path, card_folder, trained_on), ()
    if path.is_dir():
        raise ModelError(f"{path} is no model: a model's folder holds a card.yaml")
    if os.sep in text or path.suffix in CHECKPOINTS:
        raise ModelError(f"there is no {path}, seen from {Path.cwd()}; is the path right?")
    hint = "A card's folder, a checkpoint or file.py:Name works too."
    raise UnknownNameError("model", text, [*zoo(), *models], hint)


def _model_of_file(text: str) -> tuple[Entry, tuple[str, ...]]:
    file, name = plugin_parts(text)
    load_plugin(file)
    found = models_in(file)
    if not name:
        if len(found) != 1:
            raise ModelError(_which_model(file, found))
        name = found[0]
    plugin = str(file) if name in models.by_plugin(file) else f"{file}:{name}"
    load_plugin(f"{file}:{name}")
    return name, (plugin,)


def _which_model(file: Path, found: Sequence[str]) -> str:
    if not found:
        return f"{file} holds no model: a class with `shape` and `log_prob(images)`, or what @ob.register_model registers"
    return f"{file} holds {len(found)} models; name one of them: {', '.join(f'{file.name}:{one}' for one in found)}"


def _imported(file: Path, folder: Path, trained_on: str) -> Entry:
    """A checkpoint as a card in ``folder``."""
    from oodbench.zoo.importers import convert, write_card

    try:
        imported = convert([file], {})
    except ModelError as error:
        raise ModelError(
            f"{error}. `oodbench import` takes options and several files; the folder that it writes stands for --model"
        ) from error
    name = checked_name("model", as_name(file.stem))
    record = {"command": f"oodbench run --model {file}", "imported": [file.name]}
    _not_somebody_elses(folder, {"imported": [file.name]})
    write_card(imported, folder, name, trained_on, "", record, overwrite=True)
    return {name: str(folder.absolute())}


def _not_somebody_elses(folder: Path, record: Mapping[str, Any]) -> None:
    """:class:`ModelError` where a folder holds a card that another command made."""
    if not folder.exists():
        return
    own = load_card(str(folder)).record() if (folder / "card.yaml").is_file() else {}
    if any(own.get(name) != value for name, value in record.items()):
        raise ModelError(
            f"{folder} is in the way: it holds another model; name another --out, or remove it"
        )


def small_card(in_dist: str, folder: Path) -> Entry:
    """Write the card of a small Glow for an image set into ``folder``, to be trained; returns the suite's entry.

    Its shape is the set's own, up to 32 × 32; every image of another shape reaches it by the stated rule.
    """
    (entry,) = set_entries([in_dist])
    reference = bare_reference(in_dist)
    images = load_images(in_split(reference, "train"))
    channels, height, width = images.shape
    side = min(height, width, LARGEST_SIDE) // 4 * 4
    if not side:
        raise DataError(
            f"{images.identifier} has images of {height}×{width}; a Glow needs at least 4×4"
        )
    batch = min(BATCH, len(images))
    name = as_name(f"glow-{_shown(entry)}")
    card = {
        "name": name,
        "family": "glow",
        "config": {"shape": [channels, side, side], **SMALL_GLOW},
        "trained_on": reference,
        "likelihood": "uniform dequantisation, one draw",
        "licence": "of the images",
        "recipe": {
            "seed": 0,
            "steps": STEPS,
            "learning_rate": 5e-3,
            "batch_size": batch,
            "validate_every": STEPS // VALIDATIONS,
            "patience": 3,
        },
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    path = folder / "card.yaml"
    if path.exists() and path.read_text("utf-8") != text:
        raise ModelError(f"{path} is another card; remove its folder, or name another --out")
    write_if_changed(path, text.encode())
    return {name: str(folder.absolute())}


# the suite's file


def write_suite(suite: Suite, path: Path) -> None:
    """Write a suite as the file that ``oodbench run --suite`` reads; one that a person has edited is left alone.

    Raises
    ------
    SuiteError : the file was edited, or is not ours
    """
    fields = suite.model_dump(exclude_defaults=True)
    body = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110)
    if path.exists() and not _is_ours(path.read_text("utf-8", errors="replace")):
        raise SuiteError(
            f"{path} was edited since oodbench wrote it, or is not its own, and is not written over; run it with "
            f"`oodbench run --suite {path}`, or name another --out"
        )
    write_if_changed(path, f"{MARK}{_hash(body)}\n{body}".encode())


def _is_ours(text: str) -> bool:
    head, _, body = text.partition("\n")
    return head == f"{MARK}{_hash(body)}"


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
