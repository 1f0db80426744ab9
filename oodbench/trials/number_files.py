"""Files of per-image numbers that were made elsewhere: ``.npz``, ``.csv`` and ``.parquet``, a column a number."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from oodbench.errors import DataError, did_you_mean
from oodbench.foreign import check_packing
from oodbench.registry import statistics
from oodbench.types import SEVERAL, split_need

HASHES = "image_sha256"
"""The column that says which image a line is of: the SHA-256 of its uint8 pixels ``(C, H, W)``, in hexadecimal."""
MISSING = ("", "NA", "null", "None")
KINDS = ".npz, .csv or .parquet"


@dataclass(frozen=True)
class Numbers:
    """The columns of one file.

    Attributes
    ----------
    columns : float64 ``(N,)`` or, of an ensemble, ``(N, K)``
    hashes : of the images, hexadecimal, in the order of the columns; none where the file has no column ``image_sha256``
    left_out : column → why it is no number of ours
    halved : columns that are stored in half precision
    """

    path: Path
    columns: Mapping[str, np.ndarray]
    hashes: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    halved: Sequence[str] = ()

    @property
    def n(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def sha256(self) -> str:
        """SHA-256 of names and numbers, and of the images' hashes."""
        digest = hashlib.sha256("\n".join(self.hashes).encode())
        for name, column in sorted(self.columns.items()):
            digest.update(f"{name} {column.shape}".encode())
            digest.update(np.ascontiguousarray(column, "<f8").tobytes())
        return digest.hexdigest()

    @property
    def images_sha256(self) -> str:
        """SHA-256 of the images' hashes; of all that the file holds where it does not say which images it is of."""
        if not self.hashes:
            return self.sha256
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()


def read_numbers(path: Path, scores: Sequence[str] = ()) -> Numbers:
    """The columns of a file that are statistics of ours, or named in ``scores``.

    Raises
    ------
    DataError : no such file, another kind, columns of unequal lengths, none that can be used
    """
    read = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if not path.is_file():
        raise DataError(f"there is no file {path}; give a {KINDS} with one number an image")
    if read is None:
        raise DataError(
            f"{path} is no {KINDS}; numpy writes one by np.savez(path, log_prob=…), pandas by frame.to_csv(path, index=False)"
        )
    found = read(path)
    _check_lengths(path, found)
    hashes = _hashes(path, found.pop(HASHES, None))
    kept, left_out, halved = {}, {}, []
    for name, values in found.items():
        why = _unusable(name, values, scores)
        if why:
            left_out[name] = why
            continue
        halved += [name] if values.dtype == np.float16 else []
        kept[name] = _as_column(values)
    if not kept:
        reasons = "; ".join(left_out.values()) or f"it has no columns beside {HASHES}"
        raise DataError(f"{path} holds no column that can be judged: {reasons}")
    return Numbers(path, kept, hashes, left_out, halved)


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        check_packing(path, path.stat().st_size)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip and npy each have their own ways to be broken
        pickled = "Object arrays" in str(error)
        why = "it holds Python objects, which are never unpickled here" if pickled else str(error)
        raise DataError(f"{path} cannot be read: {why}") from error


def _csv(path: Path) -> dict[str, np.ndarray]:
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception as error:  # whatever the parser stumbles over
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    texts = {str(name): frame[name].to_numpy(object).astype(str) for name in frame.columns}
    return {name: own if name == HASHES else _parsed(own) for name, own in texts.items()}


def _parsed(texts: np.ndarray) -> np.ndarray:
    """Numbers to the last bit, which pandas' own parsers do not all give; text where they are none."""
    try:
        return np.where(np.isin(texts, MISSING), "nan", texts).astype(np.float64)
    except ValueError:
        return texts


def _parquet(path: Path) -> dict[str, np.ndarray]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow: `pip install pyarrow`") from error
    except Exception as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error
    return {str(name): frame[name].to_numpy() for name in frame.columns}


def _check_lengths(path: Path, found: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(values) if values.ndim else 0 for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        named = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise DataError(
            f"{path} holds columns of unequal lengths ({named}); each has one number an image"
        )
    if not lengths or not max(lengths.values()):
        raise DataError(f"{path} holds no numbers")


def _hashes(path: Path, values: np.ndarray | None) -> tuple[str, ...]:
    if values is None:
        return ()
    found = tuple(one.decode() if isinstance(one, bytes) else str(one) for one in values.tolist())
    found = tuple(one.lower() for one in found)
    wrong = next((one for one in found if not re.fullmatch(r"[0-9a-f]{64}", one)), None)
    if wrong is not None:
        raise DataError(
            f"{path}: {HASHES} holds {wrong[:20]!r}, which is no SHA-256 in 64 hexadecimal digits"
        )
    return found


def _unusable(name: str, values: np.ndarray, scores: Sequence[str]) -> str:
    """Why a column is left out; empty where it is not."""
    known = split_need(name)[0] in statistics
    if name not in scores and not known:
        return (
            f"{name!r} is no statistic{did_you_mean(name, statistics) if _near(name) else ''}; "
            f"if it is a finished score, say which way it points: --larger-ood {shlex.quote(name)} or --smaller-ood …"
        )
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        return f"{name!r} holds {values.dtype} values, not numbers"
    if np.issubdtype(values.dtype, np.complexfloating):
        return f"{name!r} holds complex numbers"
    many = split_need(name)[1] in SEVERAL
    if values.ndim != (2 if many else 1) and values.shape[1:] != (1,):
        wanted = "one number an image and model, (N, K)" if many else "one number an image"
        return f"{name!r} has shape {values.shape}; give {wanted}"
    return ""


def _near(name: str) -> bool:
    """Whether some statistic is called nearly so: a list of all of them would drown the sentence."""
    return not did_you_mean(name, statistics).startswith("; known")


def _as_column(values: np.ndarray) -> np.ndarray:
    column = np.asarray(values, np.float64)
    return column.reshape(len(column)) if column.ndim == 2 and column.shape[1] == 1 else column
