"""Checkpoint files as named tensors: opened without running anything, unwrapped, and with an account of what was read.

A file is opened with ``weights_only=True``: tensors and plain containers, nothing is executed.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from oodbench.errors import ModelError, did_you_mean
from oodbench.foreign import check_size, parsing
from oodbench.zoo.cards import wrong_file

State = Mapping[str, Tensor]

MOST = 200 << 30
"""Bytes of the largest checkpoint that is opened."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and Lightning modules put before every name."""


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a file by name. What is read is noted, so that what nobody read can be told.

    Attributes
    ----------
    path : of the file
    notes : what was chosen among its entries and dropped from its names, in sentences
    """

    def __init__(self, path: Path, tensors: State, notes: list[str]):
        self.path, self.notes = path, notes
        self._tensors, self._read = dict(tensors), set[str]()

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._tensors:
            raise ModelError(
                f"{self.path} has no {key!r}: it is cut short, or a variant of this format that is not known here"
            )
        self._read.add(key)
        return self._tensors[key]

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def leave(self, key: str, reason: str) -> None:
        """Count a tensor as read that says nothing of the density, and note why; one that is not here is nothing."""
        if key in self._tensors:
            self._read.add(key)
            self.notes.append(f"{self.path.name}: {key} is not used, since {reason}")

    @property
    def unread(self) -> list[str]:
        """Names of the tensors that nobody read."""
        return [key for key in self._tensors if key not in self._read]


def read_checkpoint(path: Path, state: str = "") -> Checkpoint:
    """The tensors of a ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file, without what stands before every name.

    Parameters
    ----------
    state : the entry of a file that holds several, such as ``ema``; or what names begin with

    Raises
    ------
    ModelError : not a checkpoint of tensors, or one that holds several states; the message says which
    """
    loaded, notes = _opened(path), list[str]()
    if not isinstance(loaded, Mapping):
        raise ModelError(
            f"{path} is not a state dict of tensors but a {type(loaded).__name__}; "
            "save one with torch.save(model.state_dict(), …)"
        )
    with parsing(path, ModelError, "a state dict of tensors"):
        tensors = _chosen(path, loaded, state, notes)
        for key, tensor in tensors.items():
            _check_tensor(path, key, tensor)
        return Checkpoint(path, _without_prefixes(path, tensors, notes), notes)


def _opened(path: Path) -> Any:
    try:
        check_size(path, MOST, ModelError, "a checkpoint")
        if path.suffix != ".safetensors":
            _refuse_packed(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # on the file's pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # each damage fails in its own way, a reader in Rust by no Exception
        raise ModelError(f"{path} {_why_not(path, error)}") from error


def _refuse_packed(path: Path) -> None:
    """Refuse a zip with compressed members, which torch never writes: a few kilobytes could become the whole memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        packed = any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
    if packed:
        raise ModelError(
            f"{path} is a compressed zip, as torch.save never writes one; unpack it, or save the state dict again"
        )


def _why_not(path: Path, error: BaseException) -> str:
    """What a file that cannot be opened seems to be, and what to do."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror}"
    with path.open("rb") as file:
        start = file.read(8)
    if start[:1] == b"<":
        return f"cannot be opened: {wrong_file(start)}"
    if isinstance(error, pickle.UnpicklingError) and (start[:1] == b"\x80" or start[:2] == b"PK"):
        return (
            "holds more than tensors and is not opened, since unpickling runs whatever it says. Save the "
            "state dict alone: torch.save(model.state_dict(), …)"
        )
    return "cannot be opened: it is cut short, damaged or no checkpoint; get it again"


def _states(loaded: Mapping[Any, Any], name: str = "") -> dict[str, State]:
    """Dotted name → each dictionary of named tensors that a checkpoint's dictionaries hold; empty for the whole."""
    if _is_state(loaded):
        return {name: loaded}
    found: dict[str, State] = {}
    for key, value in loaded.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            found |= _states(value, f"{name}.{key}".lstrip("."))
    return found


def _is_state(value: Mapping[Any, Any]) -> bool:
    named = all(isinstance(key, str) for key in value)
    tensors = all(isinstance(one, Tensor) for one in value.values())
    # a dictionary of single numbers is a record of losses
    return named and tensors and any(one.ndim for one in value.values())


def _chosen(path: Path, loaded: Mapping[Any, Any], state: str, notes: list[str]) -> State:
    """The state of a checkpoint that is meant, with a note on what else it holds."""
    states = _states(loaded)
    if not states:
        raise ModelError(f"{path} is not a state dict of tensors: {_holds(loaded)}")
    if state in states and state:
        if len(loaded) > 1 or "." in state:
            notes.append(f"{path.name}: {state!r} is read; it holds {_holds(loaded)}")
        return states[state]
    if len(states) > 1:
        known = ", ".join(f"{name} ({len(one)} tensors)" for name, one in states.items())
        wrong = f", none is called {state!r}" if state else ""
        raise ModelError(
            f"{path} holds several states{wrong}: {known}. Choose one: --state {list(states)[-1]}"
        )
    ((name, only),) = states.items()
    if name and len(loaded) > 1:
        notes.append(f"{path.name}: {name!r} is read; it holds {_holds(loaded)}")
    return _beginning_with(path, only, state, notes) if state else only


def _beginning_with(path: Path, tensors: State, start: str, notes: list[str]) -> State:
    """The tensors whose names begin with ``start.``, without that."""
    found = {
        key.removeprefix(f"{start}."): tensor
        for key, tensor in tensors.items()
        if key.startswith(f"{start}.")
    }
    if not found:
        starts = first_words(tensors)
        raise ModelError(
            f"{path} has no entry {start!r}, and no name of its begins with {start}.{did_you_mean(start, starts)}"
        )
    left = len(tensors) - len(found)
    notes.append(f"{path.name}: the {len(found)} tensors of {start}. are read, {left} others not")
    return found


def first_words(names: Mapping[str, Any]) -> dict[str, int]:
    """What the names of tensors begin with, up to the first dot, and how many do."""
    found: dict[str, int] = {}
    for name in names:
        word = name.partition(".")[0]
        found[word] = found.get(word, 0) + 1
    return found


def _holds(loaded: Mapping[Any, Any]) -> str:
    """The entries of a dictionary with their kinds, the first few."""
    kinds = [f"{key} ({_kind(value)})" for key, value in list(loaded.items())[:8]]
    return ", ".join(kinds) + ", …" * (len(loaded) > 8) if kinds else "it is empty"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    return (
        f"{type(value).__name__} of {len(value)}"
        if isinstance(value, (Mapping, list))
        else type(value).__name__
    )


def _check_tensor(path: Path, key: str, tensor: Tensor) -> None:
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_complex():
        kind = "quantised" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype}"
        raise ModelError(f"{path}: {key} is a {kind} tensor; save plain real numbers")
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise ModelError(
            f"{path}: {key} has shape {tuple(tensor.shape)} over {held:,} bytes: it shows each number more than once; "
            "save it as tensor.contiguous()"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise ModelError(
            f"{path}: {key} holds NaN or infinite numbers, so its training went wrong; take an earlier checkpoint"
        )


def _without_prefixes(path: Path, tensors: State, notes: list[str]) -> State:
    """The tensors by names without the known prefixes that all of them have; each is noted."""
    found = dict(tensors)
    while True:
        common = next((p for p in PREFIXES if all(key.startswith(p) for key in found)), None)
        if common is None:
            return found
        notes.append(f"{path.name}: the prefix {common} of every name is dropped")
        found = {key.removeprefix(common): tensor for key, tensor in found.items()}
