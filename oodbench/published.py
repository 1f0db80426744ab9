"""Published columns: per-image statistics of a suite as one file, for scorers that are judged without torch, weights or images.

The file is a ``.tar`` of ``index.json`` and one ``.npy`` a distinct column, called by the SHA-256 of its bytes. Columns are
float32, within the 1e-5 by which a number may differ between machines; the index holds what rows say of each pair.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.errors import DataError
from oodbench.passes.columns import kept_columns
from oodbench.paths import write_whole
from oodbench.plan import Plan, Trial
from oodbench.registry import statistics
from oodbench.report import refuse_foreign, write_report
from oodbench.store import SCHEMA, Row, key_of
from oodbench.trials.comparison import SHARED, Compared, compared, comparison_digest
from oodbench.trials.given import About, GivenTask, Side, given_task, possible
from oodbench.trials.number_files import Numbers
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import Judged, kept_places, trial_task
from oodbench.trials.scores import ScoreFiles
from oodbench.types import Scorer, side_by_side, split_need

INDEX, VERSION = "index.json", 1
ROLES = ("test", "ood", "ref")
PAIR = (
    "suite", "model", "likelihood", "log_prob_of", "in_dist", "ood", "in_dist_name", "ood_name", "synthetic", "nearness", "seed",
    "bootstrap", "dimensions", "training_seed", "solver", "solver_steps", "trace_probes", "left_out", "left_out_checked",
)  # fmt: skip
"""Fields of a row that are its pair's, whatever the scorer."""


def pack(plan: Plan, out: Path) -> str:
    """Write the columns of a plan's single-image trials, which have to be in the cache; returns the file's SHA-256.

    The same columns give the same bytes.

    Raises
    ------
    LostError : a column was not measured yet, or is not in the cache any more
    DataError : the plan has no trial
    """
    entries: dict[tuple[str, str, str], Row] = {}
    files: dict[str, bytes] = {}
    for trial in (one for one in plan.trials if one.group_size == 1):
        _add(entries, files, plan, trial)
    if not entries:
        raise DataError("the plan has no trial on single images, and so no columns")
    index = {"version": VERSION, "schema": SCHEMA, "pairs": list(entries.values())}
    content = json.dumps(index, sort_keys=True, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, own in [(INDEX, content), *sorted(files.items())]:
            member = tarfile.TarInfo(name)
            member.size = len(own)
            archive.addfile(member, io.BytesIO(own))
    whole = buffer.getvalue()
    write_whole(out, lambda file: file.write(whole))
    return hashlib.sha256(whole).hexdigest()


def _add(entries: dict[Any, Row], files: dict[str, bytes], plan: Plan, trial: Trial) -> None:
    """Add a trial's columns to those of its pair."""
    task = trial_task(plan, trial)
    pair = task.head["model"], task.head["in_dist"], task.head["ood"]
    empty = {name: task.head[name] for name in PAIR} | {"columns": {}, "ref": None, "of": {}}
    entry = entries.setdefault(pair, empty | {"images": task.head["inputs"]["images"]})
    for role in (role for role in ROLES if role in task.reads):
        own = entry["columns"].setdefault(role, {})
        for need, passes in task.reads[role].items():
            if need not in own:
                left_out = task.left_out if role == "ood" else ()
                own[need] = _stored(files, _column(need, passes, left_out))
    entry["ref"] = entry["ref"] or task.head["ref"]
    for kind in map(_reads, trial.scorer.all_needs):
        told = _training_of(task.head, kind)
        known = entry["of"].setdefault(kind, told)
        if len(told["trained_on"]) < len(known["trained_on"]):  # of a trial that reads no others
            entry["of"][kind] = told


def _reads(need: str) -> str:
    """What a need reads: ``image`` alone, the ``model``, or a relative of it such as ``background``."""
    statistic, of = split_need(need)
    return "image" if statistics[statistic].model_free else of or "model"


def _training_of(head: Row, kind: str) -> Row:
    """What a row says of the training of the model, or of the relatives, that a need reads."""
    names = [name for name in head["trained_on"] if (name == head["model"]) == (kind == "model")]
    kept = [] if kind == "image" else names
    return {
        "trained_on": {name: head["trained_on"][name] for name in kept},
        "seen": [name for name in head["seen"] if name in kept],
    }


def _column(need: str, passes: Sequence[tuple[str, ...]], left_out: Sequence[int]) -> np.ndarray:
    statistic, of = split_need(need)
    column = side_by_side([kept_columns(keys).columns[statistic] for keys in passes], of)
    return column[kept_places(len(column), left_out)]


def _stored(files: dict[str, bytes], column: np.ndarray) -> str:
    """The name of a column's file, which is added unless it is there."""
    narrow = np.asarray(column, "<f4")
    kept = column if np.isfinite(column).all() and not np.isfinite(narrow).all() else narrow
    buffer = io.BytesIO()
    np.save(buffer, kept, allow_pickle=False)
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.npy"
    files.setdefault(name, buffer.getvalue())
    return name


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        opened = archive.extractfile(member)
        if opened is not None:
            yield member.name, opened.read()


class Published:
    """The pairs of a file of columns.

    Raises
    ------
    DataError : no such file, or one that is damaged or of a newer version
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with tarfile.open(path) as archive:
                self._files = dict(_members(archive))
            index = json.loads(self._files[INDEX])
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise DataError(
                f"{path} is no file of columns ({error}); `oodbench columns` writes one"
            ) from error
        if index.get("version") != VERSION:
            raise DataError(
                f"{path} is of version {index.get('version')}; this oodbench reads {VERSION}"
            )
        self.pairs: list[Row] = index["pairs"]

    def columns(self, pair: Row, role: str) -> dict[str, np.ndarray]:
        """Need → column of one role, float64; each is compared with its hash."""
        named = pair["columns"].get(role, {})
        return {need: self._column(name) for need, name in named.items()}

    def _column(self, name: str) -> np.ndarray:
        content = self._files.get(name, b"")
        if f"{hashlib.sha256(content).hexdigest()}.npy" != name:
            raise DataError(
                f"{self.path} is damaged: its column {name[:12]}… is not what was written"
            )
        return np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)


def judge_columns(
    path: Path, folder: Path, scorers: Iterable[str] = (), models: Iterable[str] = ()
) -> list[Row]:
    """Judge scorers on published columns into a results folder, with comparisons and pages; returns its rows.

    ``scorers`` and ``models`` restrict; by default every registered scorer whose needs are in the file is judged.
    """
    refuse_foreign(folder)
    published, names, only = Published(path), set(scorers), set(models)
    results, files = ResultsFolder(folder), ScoreFiles(folder)
    tables: dict[str, list[Row]] = {"rows": [], "curves": [], "comparisons": []}
    for pair in (one for one in published.pairs if not only or one["model"] in only):
        judged = [task.perform() for task in _tasks(published, pair, names)]
        for one in judged:
            tables["rows"] += one.rows["rows"]
            tables["curves"] += one.rows["curves"] if not pair["synthetic"] else []
            if one.scores is not None:
                files.add(one.row, one.scores)
        tables["comparisons"] += _comparison(judged)
    if not tables["rows"]:
        raise DataError(f"{path} has no pair on which a scorer of these could be judged")
    results.check_suite(tables["rows"][0]["suite"])
    with results.held():
        results.merge(tables)
        files.write()
        files.keep_only(results.rows("rows"))
        write_report(folder)
    return results.rows("rows")


def _tasks(published: Published, pair: Row, names: set[str]) -> list[GivenTask]:
    """The trials of one pair."""
    sides = {role: published.columns(pair, role) for role in ROLES}
    both = sides["test"].keys() & sides["ood"].keys()
    takes = possible(set(both), set(sides["ref"]))
    return [
        _task(published.path, pair, sides, scorer)
        for scorer in takes
        if not names or scorer.name in names
    ]


def _task(
    path: Path, pair: Row, sides: Mapping[str, Mapping[str, np.ndarray]], scorer: Scorer
) -> GivenTask:
    about = About(
        pair["suite"], pair["model"], pair["likelihood"], pair["dimensions"], pair["seed"], pair["bootstrap"]
    )  # fmt: skip
    test, ood = (
        Side(pair[name], Numbers(path, sides[role]))
        for name, role in (("in_dist", "test"), ("ood", "ood"))
    )
    ref = Side(pair["ref"], Numbers(path, sides["ref"])) if pair["ref"] else None
    task = given_task(about, test, ood, ref, scorer)
    relatives = [pair["of"].get(_reads(need), {}) for need in scorer.all_needs]
    seen = sorted({name for one in relatives for name in one.get("seen", ())})
    trained = {name: on for one in relatives for name, on in one.get("trained_on", {}).items()}
    inputs = task.head["inputs"] | {"images": pair["images"]}
    kept = {name: pair[name] for name in PAIR} | {
        "seen": seen,
        "trained_on": trained,
        "inputs": inputs,
    }
    key = key_of(task.key, kept)
    return replace(task, key=key, head=task.head | kept | {"key": key})


def _comparison(judged: Sequence[Judged]) -> list[Row]:
    """The comparison of a pair's scorers on the same images."""
    sound = {
        one.row["scorer"]: one for one in judged if one.scores is not None and not one.row["seen"]
    }
    if len(sound) < 2 or next(iter(sound.values())).row["synthetic"]:
        return []
    found = {name: _compared(one) for name, one in sound.items()}
    first = next(iter(sound.values())).row
    key = key_of(SCHEMA, comparison_digest(), [one.row["key"] for one in sound.values()])
    return [
        {"schema": SCHEMA, "key": key, **{name: first[name] for name in SHARED}, **compared(found)}
    ]


def _compared(judged: Judged) -> Compared:
    assert judged.scores is not None
    scores = judged.scores["in"], judged.scores["ood"]
    return Compared(judged.row, scores, judged.replicates)
