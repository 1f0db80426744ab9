"""What a notebook asks for: a table in one call, and the per-image scores of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oodbench.compose import bare_reference, composed, default_name, model_entry
from oodbench.data.arrays import channels_first
from oodbench.data.images import ImageSet
from oodbench.errors import DataError, ModelError, StoreError
from oodbench.registry import lent_model
from oodbench.runner import Options, adapted, as_many, run_suite
from oodbench.store import Row, read_rows
from oodbench.suite import Entry, named
from oodbench.trials.scores import columns_of, scores_in_place

if TYPE_CHECKING:
    import pandas as pd

Set = str | Path | np.ndarray | ImageSet
"""An image set as a caller has it: a name, a path, uint8 images, or what ``load_images`` gave."""
CHIEF = (
    "model", "in_dist", "ood", "scorer", "baseline", "auroc", "auroc_low", "auroc_high", "aupr_ood", "fpr95_ood", "n_in",
    "n_ood", "in_dist_bits_per_dim", "status", "reason",
)  # fmt: skip
"""Columns of :func:`evaluate` that stand first."""


def evaluate(
    model: Any, in_dist: Set, ood: Set | Iterable[Set] | Mapping[str, Set], scorers: str | Iterable[str] = (), *,
    limit: int | None = None, seed: int | None = None, plugins: str | Path | Iterable[str | Path] = (),
    workers: int = 1, device: str = "cpu", out: str | Path | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Judge one model on one in-dist set against OOD sets, as ``oodbench run --model … --in-dist … --ood …`` does.

    What was measured before is not measured again.

    Parameters
    ----------
    model : an object with ``shape`` and ``log_prob``, its class, a name (``oodbench list models``), a card's folder, or
        ``file.py:Name``; it stands for the in-dist set, whatever its ``trained_on`` says
    in_dist : images that the model was trained on: a name, a path, uint8 ``(N, C, H, W)``, or an ImageSet
    ood : one or several of the same, or shown name → one
    scorers : names (``oodbench list scorers``); by default those that need no second model, and the baselines
    limit : draw N images of each set, in an order that never changes
    plugins : files that register scorers or statistics
    out : results folder with leaderboard and figures; by default nothing but the table is kept

    Returns
    -------
    one row a scorer and OOD set, the largest AUROC first; all fields of ``docs/rows.md``, the chief ones first

    Example
    -------
    >>> import oodbench as ob
    >>> table = ob.evaluate("glow-fashionmnist", "fashionmnist", "mnist", "likelihood", limit=20)
    >>> bool(table.auroc[0] < 0.5)  # MNIST is the likelier one
    True
    """
    import pandas as pd

    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        sets = _references(folder, {"in_dist": in_dist}, "in_dist") + _references(
            folder, ood, "ood"
        )
        own, *others = sets
        results = Path(out) if out is not None else folder / "results"
        with _named(model, results, own) as (entry, files):
            suite = composed(
                entry, own, others, as_many(scorers), name=default_name(_shown(entry), own), limit=limit, seed=seed,
                plugins=[*files, *(str(Path(path).resolve()) for path in as_many(plugins))],
            )  # fmt: skip
            rows = run_suite(adapted(suite, None, None, ()), Options(workers, device), results)
    table = pd.json_normalize(rows)
    first = [name for name in CHIEF if name in table]
    rest = [name for name in table if name not in first]
    table = table[[*first, *rest]]
    if "auroc" not in table:
        return table
    return table.sort_values("auroc", ascending=False, ignore_index=True)


def _shown(entry: Entry) -> str:
    shown, reference = named(entry)
    return shown or reference


@contextmanager
def _named(model: Any, results: Path, in_dist: str) -> Iterator[tuple[Entry, tuple[str, ...]]]:
    """A suite's entry for what a caller gives as model; an object has a name while the call lasts."""
    if isinstance(model, str | Path):
        yield model_entry(
            str(model), results.with_name(f"{results.name}-model"), bare_reference(in_dist)
        )
        return
    if not callable(getattr(model, "log_prob", None)):
        raise ModelError(
            f"{model!r} is no model: it has no method log_prob(images); give such an object, a name or a path"
        )
    with lent_model(model) as name:
        yield name, ()


def _references(folder: Path, given: Any, usual: str) -> list[str]:
    """References for image sets as a caller has them; arrays are written into ``folder`` to be read as files."""
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        several = isinstance(given, list | tuple)
        pairs = [(None, one) for one in (given if several else [given])]
    if not pairs:
        raise DataError("there is no OOD set: give at least one name, path or array")
    return [
        _reference(folder, name, one, f"{usual}_{place}")
        for place, (name, one) in enumerate(pairs, 1)
    ]


def _reference(folder: Path, name: str | None, one: Any, usual: str) -> str:
    shown = "" if name in (None, "in_dist") else f"{name}="
    if isinstance(one, str | Path):
        return f"{shown}{one}"
    if isinstance(one, ImageSet):
        images, shown = one.images, shown or f"{one.name}="
    else:
        images = _pixels(one, name or usual)
    path = folder / f"{usual}.npy"
    np.save(path, images)
    return f"{shown or (name or usual) + '='}{path}"


def _pixels(given: Any, what: str) -> np.ndarray:
    """uint8 ``(N, C, H, W)`` of an array or a tensor."""
    try:
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except Exception as error:
        raise DataError(
            f"{what} is neither a name, a path nor an array of images: {error}"
        ) from error
    return channels_first(array, what)


def scores(
    folder: str | Path, *, model: str | None = None, scorer: str | None = None, ood: str | None = None
) -> pd.DataFrame:  # fmt: skip
    """The per-image scores of a run as one table, larger = more OOD.

    Parameters
    ----------
    folder : results folder of a run
    model, scorer, ood : take these alone; ``ood`` is a set's name or whole identifier

    Returns
    -------
    a line an image and scorer: ``model``, ``scorer``, ``group_size``, ``seed``, ``side`` (``in`` or ``ood``), ``set``,
    ``image`` (its place in the set, as ``load_images(set)`` has it; of groups the group's number) and ``score``. In-dist
    scores that several pairs share stand once, and images that were left out not at all.

    Raises
    ------
    StoreError : no such rows, or scores that are missing or damaged
    """
    import pandas as pd

    where = Path(folder)
    rows = [
        row
        for row in read_rows(where / "rows.jsonl")
        if row["status"] == "ok" and row.get("scores")
    ]
    wanted = {"model": model, "scorer": scorer}
    chosen = [
        row for row in rows if all(value in (None, row[name]) for name, value in wanted.items())
    ]
    chosen = [row for row in chosen if ood in (None, row["ood"], row["ood_name"])]
    if not chosen:
        raise StoreError(_nothing(where, rows, {**wanted, "ood": ood}))
    parts: dict[tuple[Any, ...], pd.DataFrame] = {}
    for row in chosen:
        for side, found in zip(("in", "ood"), scores_in_place(where, row), strict=True):
            parts.setdefault(_place(row, side), _column(row, side, found))
    return pd.concat(parts.values(), ignore_index=True)


def _place(row: Row, side: str) -> tuple[Any, ...]:
    column, _ = columns_of(row)[side]
    return row["model"], row["scorer"], row["group_size"], row["seed"], side, column


def _column(row: Row, side: str, found: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    shared = {name: row[name] for name in ("model", "scorer", "group_size", "seed")}
    named_set = row["in_dist"] if side == "in" else row["ood"]
    places = np.flatnonzero(~np.isnan(found))
    return pd.DataFrame(
        {**shared, "side": side, "set": named_set, "image": places, "score": found[places]}
    )


def _nothing(folder: Path, rows: list[Row], wanted: Mapping[str, str | None]) -> str:
    if not rows:
        return f"{folder} holds no rows with scores; name the results folder of a run"
    asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
    known = {
        name: sorted({str(row[name]) for row in rows}) for name in ("model", "scorer", "ood_name")
    }
    there = "; ".join(
        f"{name.removesuffix('_name')}: {', '.join(found)}" for name, found in known.items()
    )
    return f"{folder} has no scores of {asked}; there are {there}"
