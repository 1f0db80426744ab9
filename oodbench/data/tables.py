"""Tables with a column of pictures: parquet files, and folders saved by Hugging Face's ``datasets``; read with pyarrow.

A picture in a table is the bytes of a file, alone or as ``{bytes, path}``, the way ``datasets`` keeps its ``Image``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from oodbench.data.folders import shown
from oodbench.data.pictures import Picture
from oodbench.data.reading import Pictures
from oodbench.errors import DataError
from oodbench.foreign import inside, parsing, read_json

STATE, DICTIONARY = "state.json", "dataset_dict.json"
"""Files that ``datasets`` writes into a folder of one split, and of several."""
AGAIN = "save the dataset again"
AT_ONCE = 64
"""Rows that are in memory at a time."""


def table_source(files: tuple[Path, ...], column: str = "") -> Pictures:
    """The pictures of one column of parquet files, joined in the order given.

    Raises
    ------
    DataError : pyarrow is missing, a file is damaged, or no column holds pictures
    """
    where = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name}"
    parquet = _pyarrow("pyarrow.parquet", files[0])
    opened = [_opened(partial(parquet.ParquetFile, file), file) for file in files]
    columns = {
        _column(one.schema_arrow, file, column) for one, file in zip(opened, files, strict=True)
    }
    if len(columns) > 1:
        raise DataError(
            f"{where} keep their pictures in different columns, {sorted(columns)}; name one"
        )
    n = sum(one.metadata.num_rows for one in opened)
    (name,) = columns
    pictures = partial(_from_parquet, files, name)
    return Pictures(where, files, n, "", pictures=pictures).through("")


def saved_source(folder: Path, column: str = "") -> Pictures:
    """The pictures of a split that ``datasets`` saved to a folder; raises as :func:`table_source`."""
    state = _json(folder / STATE)
    with parsing(folder / STATE, DataError, "the state of a saved dataset", AGAIN):
        named = [entry["filename"] for entry in state.get("_data_files", [])]
    files = tuple(inside(folder, name, DataError, folder / STATE) for name in named)
    if state.get("_indices_files") or not files:
        raise DataError(
            f"{shown(folder)} was saved by `datasets` in a form that is not read (a selection of rows, or no rows); "
            "save it again with flatten_indices().save_to_disk(…)"
        )
    batches = [_record_batches(file) for file in files]
    name = _column(next(iter(batches[0])).schema, folder, column)
    n = sum(batch.num_rows for file in files for batch in _record_batches(file))
    pictures = partial(_from_arrow, files, name)
    return Pictures(shown(folder), files, n, "", pictures=pictures).through("")


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, DataError, "the state of a saved dataset", AGAIN)


def _pyarrow(module: str, file: Path) -> Any:
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{shown(file)} is a table, which needs the package pyarrow: `pip install 'oodbench[datasets]'`"
        )
    return importlib.import_module(module)


def _opened(opening: Any, file: Path) -> Any:
    with parsing(file, DataError, "a table", "it may be cut short: get it again"):
        return opening()


def _each(file: Path, items: Iterable[Any]) -> Iterator[Any]:
    """The items of a table's reader, which finds damage only as it comes to it."""
    coming = iter(items)
    done = object()
    while (item := _opened(partial(next, coming, done), file)) is not done:
        yield item


def _column(schema: Any, file: Path, wanted: str) -> str:
    """The column that holds pictures; :class:`DataError` says which there are."""
    columns = {field.name: field.type for field in schema}
    pictures = [name for name, kind in columns.items() if _holds_pictures(kind)]
    if wanted in pictures or (not wanted and len(pictures) == 1):
        return wanted or pictures[0]
    listed = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    if wanted or not pictures:
        named = f"no column {wanted!r} of pictures" if wanted else "no column of pictures"
        raise DataError(
            f"{shown(file)} has {named}; it has {listed}. Pictures are the bytes of files, as `datasets` keeps them"
        )
    raise DataError(
        f"{shown(file)} has several columns of pictures; name the one that is meant: {shown(file)}#{pictures[0]}"
    )


def _holds_pictures(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0
    binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    return bool(binary)


def _from_parquet(files: Iterable[Path], column: str) -> Iterator[Picture]:
    parquet = importlib.import_module("pyarrow.parquet")
    for file in files:
        opened = _opened(partial(parquet.ParquetFile, file), file)
        batches = _each(file, opened.iter_batches(AT_ONCE, columns=[column]))
        yield from _pictures(file, (batch.column(0) for batch in batches))


def _from_arrow(files: Iterable[Path], column: str) -> Iterator[Picture]:
    for file in files:
        parts = (batch.column(column) for batch in _record_batches(file))
        yield from _pictures(file, parts)


def _record_batches(file: Path) -> Iterator[Any]:
    arrow = _pyarrow("pyarrow", file)
    ipc = importlib.import_module("pyarrow.ipc")
    with _opened(partial(arrow.memory_map, str(file)), file) as mapped:
        yield from _each(file, _opened(partial(ipc.open_stream, mapped), file))


def _pictures(file: Path, columns: Iterable[Any]) -> Iterator[Picture]:
    row = 0
    for column in columns:
        for start in range(0, len(column), AT_ONCE):
            for value in _opened(column.slice(start, AT_ONCE).to_pylist, file):
                yield _picture(file, row, value)
                row += 1


def _picture(file: Path, row: int, value: bytes | Mapping[str, Any] | None) -> Picture:
    name = f"row {row:,} of {file}"
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if content:
        return Picture(name, content)
    path = value.get("path") if isinstance(value, Mapping) else None
    if not path:
        raise DataError(f"{shown(name)} holds no picture; leave such rows out")
    beside = inside(file.parent, path, DataError, file)
    if not beside.is_file():
        raise DataError(
            f"{shown(name)} names the file {shown(path)}, which is not here; save the pictures with the table"
        )
    return Picture(str(beside), beside)
