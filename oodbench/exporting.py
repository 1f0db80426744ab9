"""Rows and per-image scores in the formats that other programs read: CSV, Parquet, JSON and LaTeX."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodbench.data.division import image_digests
from oodbench.data.images import load_images
from oodbench.errors import OodbenchError, StoreError
from oodbench.evaluation import scores
from oodbench.frames import results
from oodbench.report.comparison import lead
from oodbench.report.order import pair_key
from oodbench.report.results import Results, Subject, read_results, subject_of
from oodbench.report.tables import distinct, set_name, short_names, trial_of
from oodbench.store import Row
from oodbench.trials.counted import is_counted

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First letters by which a spreadsheet takes a cell for a formula."""
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\to$", "×": r"$\times$",
}  # fmt: skip
HASHES = "image_sha256"


def export(
    folder: Path, kind: str, group_size: int | None = None, of_scores: bool = False
) -> bytes:
    """A folder's rows, or its per-image scores, as the bytes of a file.

    Parameters
    ----------
    kind : ``csv``, ``parquet``, ``json`` or ``latex``; LaTeX is of rows alone: a booktabs table a model, the best and what the
        paired test does not tell from it in bold
    of_scores : a line an image and scorer, with the image's hash where its set is here

    Raises
    ------
    StoreError : no rows, no scores, or a format that cannot hold them
    """
    if kind == "latex":
        if of_scores:
            raise StoreError(
                "per-image scores are no table of a paper; export them as csv, parquet or json"
            )
        return latex(read_results(folder), group_size or 1).encode()
    frame = scores_with_hashes(folder) if of_scores else results(folder, group_size=group_size)
    return {"csv": as_csv, "parquet": as_parquet, "json": as_json}[kind](frame)


def scores_with_hashes(folder: Path) -> pd.DataFrame:
    """:func:`oodbench.scores` with the column ``image_sha256``: the SHA-256 of the image's uint8 pixels ``(C, H, W)``.

    It is empty where the set is not on this machine, and of groups, which are of several images.
    """
    frame = scores(folder)
    hashes = {name: _hashes(name) for name in distinct(frame["set"])}
    single = frame["group_size"] == 1
    frame[HASHES] = [
        hashes[name][place] if alone and hashes[name] else ""
        for name, place, alone in zip(frame["set"], frame["image"], single, strict=True)
    ]
    return frame


def _hashes(name: str) -> list[str]:
    try:
        return [one.hex() for one in image_digests(load_images(name).images)]
    except OodbenchError:  # not here: the scores stand without
        return []


def as_csv(frame: pd.DataFrame) -> bytes:
    """UTF-8 with a head; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    texts = frame.select_dtypes(exclude="number").columns
    safe = frame.assign(**{name: frame[name].map(_as_text) for name in texts})
    return safe.to_csv(index=False).encode()


def _as_text(value: Any) -> Any:
    shown = str(value) if isinstance(value, list | dict) else value
    return f"'{shown}" if isinstance(shown, str) and shown.startswith(FORMULA) else shown


def as_json(frame: pd.DataFrame) -> bytes:
    """A list of objects; a number that does not exist is null."""
    text: str = frame.to_json(orient="records", double_precision=15, force_ascii=False)
    return f"{text}\n".encode()


def as_parquet(frame: pd.DataFrame) -> bytes:
    """:class:`StoreError` where no library that writes it is installed."""
    buffer = io.BytesIO()
    lists = [
        name
        for name in frame
        if frame[name].map(lambda value: isinstance(value, list | dict)).any()
    ]
    plain = frame.assign(**{str(name): frame[name].map(_text_or_none) for name in lists})
    try:
        plain.to_parquet(buffer, index=False)
    except ImportError as error:
        raise StoreError(
            "writing parquet needs pyarrow: `pip install oodbench[datasets]`"
        ) from error
    return buffer.getvalue()


def _text_or_none(value: Any) -> str | None:
    return str(value) if isinstance(value, list | dict) else None


def latex(found: Results, group_size: int = 1) -> str:
    """A booktabs table a model: a line a scorer, a column an OOD set of real images, AUROC with the best ones in bold."""
    rows = [row for row in found.tried if row["group_size"] == group_size and not row["synthetic"]]
    if group_size == 1:
        rows = [row for row in rows if is_counted(row)]
    if not rows:
        raise StoreError(f"{found.folder} has no rows on real images of group size {group_size}")
    best = _best(found, rows)
    subjects = distinct_subjects(rows)
    head = "% Generated by `oodbench export --format latex`; needs \\usepackage{booktabs}.\n"
    return head + "\n".join(_table(found, one, rows, best) for one in subjects)


def distinct_subjects(rows: Sequence[Row]) -> list[Subject]:
    """Subjects in the order of the paper's pairs."""
    return list(dict.fromkeys(subject_of(row) for row in sorted(rows, key=pair_key)))


def _best(found: Results, rows: Sequence[Row]) -> set[str]:
    """Keys of the rows in bold: of each pair the best with a model and its ties by the paired test; without one the largest."""
    ahead = {trial_of({"seed": 0, **row}): lead(row) for row in found.comparisons}
    trials: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok" and not row["baseline"] and not row.get("seen"):
            trials.setdefault(trial_of(row), []).append(row)
    bold: set[str] = set()
    for trial, own in trials.items():
        known = ahead.get(trial) if own[0]["group_size"] == 1 else None
        names = {known.best, *known.as_good} if known else set()
        highest = max(round(row["auroc"], 3) for row in own)
        bold |= {
            row["key"]
            for row in own
            if (row["scorer"] in names if known else round(row["auroc"], 3) == highest)
        }
    return bold


def _table(found: Results, subject: Subject, rows: Sequence[Row], best: set[str]) -> str:
    own = sorted((row for row in rows if subject_of(row) == subject), key=pair_key)
    oods = short_names(distinct(row["ood"] for row in own), set_name)
    lines = [rf"{escaped(name)} & {cells} \\" for name, cells in _lines(own, oods, best)]
    heads = " & ".join(["scorer", *map(escaped, oods.values())])
    caption = f"AUROC with {found.name_of(subject)}, in-dist {set_name(subject.in_dist)}."
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}", rf"\begin{{tabular}}{{l{'r' * len(oods)}}}",
            r"\toprule", rf"{heads} \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
        ]
    )  # fmt: skip


def _lines(
    rows: Sequence[Row], oods: Mapping[str, str], best: set[str]
) -> Iterator[tuple[str, str]]:
    """Scorers by their mean AUROC, baselines below, each with its cells."""
    by_scorer: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_scorer.setdefault(row["scorer"], {})[row["ood"]] = row
    for name, own in sorted(by_scorer.items(), key=_rank):
        yield name, " & ".join(_cell(own.get(ood), best) for ood in oods)


def _rank(scorer: tuple[str, Mapping[str, Row]]) -> tuple[bool, float, str]:
    name, own = scorer
    sound = [row["auroc"] for row in own.values() if row["status"] == "ok"]
    return next(iter(own.values()))["baseline"], -sum(sound) / max(len(sound), 1), name


def _cell(row: Row | None, best: set[str]) -> str:
    """Blank where there is no result: a missing one is no zero."""
    if row is None or row["status"] != "ok":
        return ""
    seen = r"$^{\S}$" if row.get("seen") else ""
    number = f"{row['auroc']:.3f}"
    return (rf"\textbf{{{number}}}" if row["key"] in best else number) + seen


def escaped(text: str) -> str:
    """A text that LaTeX shows letter by letter."""
    return re.sub(r"[\\&%$#_{}~^→×]", lambda found: LATEX[found[0]], text)
