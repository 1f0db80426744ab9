"""Source files as content: which files a piece of code needs, and the digest of their syntax trees."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from oodbench.paths import PACKAGE

INIT = "__init__.py"
LIBRARIES = tuple(
    Path(sysconfig.get_path(kind)).resolve()
    for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
"""Folders of installed libraries, which a version identifies."""


def in_library(file: Path) -> bool:
    """Whether a source file belongs to an installed library rather than to a user."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(folder) for folder in LIBRARIES) or file.is_relative_to(PACKAGE)


def module_file(folder: Path, dotted: str) -> Path | None:
    """The file of a module below ``folder``, where there is one: ``a.b`` is ``a/b.py`` or ``a/b/__init__.py``."""
    place = folder.joinpath(*dotted.split("."))
    for file in (place / INIT, place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    return None


def is_neighbour(folder: Path, dotted: str) -> bool:
    """Whether ``import dotted`` in a plugin in ``folder`` means a module or package beside it.

    One beside it comes before an installed one, as it does for a script. A folder without ``__init__.py`` is a package only
    where nothing of its name is installed.
    """
    top = dotted.partition(".")[0]
    if top in sys.stdlib_module_names or top == PACKAGE.name:
        return False
    if module_file(folder, top):
        return True
    return (
        (folder / top).is_dir()
        and module_file(folder, dotted) is not None
        and _importable(top) is None
    )


def _importable(top: str) -> Path | None:
    """The folder from which Python imports a top-level module, where that is one of source files."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module without a spec, such as __main__
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    return file.parent.parent if file.name == INIT else file.parent


@dataclass(frozen=True)
class Scope:
    """Where imports are followed: below a package of ours, or beside a plugin."""

    base: Path
    """The folder to which dotted names are relative."""
    prefix: str = ""
    """The package whose modules count; empty for all beside a plugin."""

    @classmethod
    def of(cls, within: str | Path) -> Scope:
        if isinstance(within, Path):
            return cls(within.resolve())
        base = _importable(within.partition(".")[0])
        if base is None:
            raise ModuleNotFoundError(f"no package {within!r}")
        return cls(base, within)

    def find(self, dotted: str) -> Path | None:
        """The file of an imported module, where it counts."""
        if self.prefix:
            inside = f"{dotted}.".startswith(f"{self.prefix}.")
            return module_file(self.base, dotted) if inside else None
        if is_neighbour(self.base, dotted):
            return module_file(self.base, dotted)
        folder = _importable(dotted.partition(".")[0])
        file = module_file(folder, dotted) if folder else None
        return None if file is None or in_library(file.resolve()) else file

    @property
    def top(self) -> Path:
        """The folder of the package that counts, or that of the plugin."""
        return self.base.joinpath(*self.prefix.split(".")) if self.prefix else self.base

    def packages(self, file: Path) -> Iterator[Path]:
        """The ``__init__.py`` of each package that importing ``file`` runs, below the scope's own."""
        for folder in file.parents:
            if folder == self.top or not (folder / INIT).is_file():
                return
            yield folder / INIT

    def imported(self, file: Path) -> Iterator[Path]:
        """Files that a file imports, wherever in it."""
        for folder, dotted in _imports(file, file.read_bytes()):
            found = self.find(dotted) if folder is None else module_file(folder, dotted)
            if found is not None and (found.is_relative_to(self.top) or not self.prefix):
                yield found
                yield from self.packages(found)

    def name(self, file: Path) -> str:
        """A file's name that does not depend on where its folder lies."""
        if file.is_relative_to(self.base):
            return file.relative_to(self.base).as_posix()
        return file.relative_to(import_root(file)).as_posix()


def import_root(file: Path) -> Path:
    """The folder that a module's dotted name is relative to, as its packages' ``__init__.py`` tell."""
    return next(folder for folder in file.parents if not (folder / INIT).is_file())


@lru_cache(maxsize=1024)
def _imports(file: Path, source: bytes) -> tuple[tuple[Path | None, str], ...]:
    """Each import of a file: the folder that a relative one starts from, else None, and a dotted name."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return ()
    found: list[tuple[Path | None, str]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(None, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[node.level - 1] if node.level else None
            names = [alias.name for alias in node.names]
            found += [(folder, node.module)] if node.module else [(folder, "")] if folder else []
            found += [(folder, f"{node.module}.{name}" if node.module else name) for name in names]
    return tuple((folder, dotted) for folder, dotted in found if dotted and "*" not in dotted)


def source_files(*roots: str | Path, within: str | Path) -> list[Path]:
    """The files of modules and of all that they import from ``within``, deferred imports included.

    Parameters
    ----------
    roots : dotted names of modules, or files
    within : a package (``"oodbench.models"``), or the folder of a plugin, from which the modules that it imports are taken, and
        with them a user's importable modules that lie elsewhere; never the whole folder
    """
    scope = Scope.of(within)
    waiting = [_root(root) for root in roots]
    found: dict[Path, None] = {}
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = None
            waiting += scope.imported(file)
    return list(found)


def _root(root: str | Path) -> Path:
    if isinstance(root, Path):
        return root.resolve()
    base = _importable(root.partition(".")[0])
    file = module_file(base, root) if base else None
    if file is None:
        raise ModuleNotFoundError(f"no module {root!r}")
    return file


def code_digest(*roots: str | Path, within: str | Path) -> str:
    """SHA-256 of the syntax trees of modules and of all that they import from ``within``.

    Comments, docstrings and layout do not count, nor does the name of a root. Nothing is imported to read it.
    See :func:`source_files` for the parameters.
    """
    scope = Scope.of(within)
    own = [_root(root) for root in roots]
    parts = [("", syntax_digest(file.read_bytes())) for file in own]
    for file in source_files(*roots, within=within):
        if file not in own:
            parts.append((scope.name(file), syntax_digest(file.read_bytes())))
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()


@lru_cache(maxsize=1024)
def syntax_digest(source: bytes) -> str:
    """SHA-256 of a file's syntax tree; of its bytes where they are no Python.

    The key of what is remembered is the content: two edits within one tick of the clock
    may leave a file's size and time alike.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return hashlib.sha256(source).hexdigest()
    return hashlib.sha256(written(tree).encode()).hexdigest()


def written(node: Any) -> str:
    """A syntax tree as text without positions and docstrings, the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(written(one) for one in node if not _is_docstring(one))}]"
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: getattr(node, name, None) for name in node._fields}
    # fields that later versions added are empty in code that earlier ones read
    stated = [
        f"{name}={written(value)}"
        for name, value in fields.items()
        if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(stated)})"


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a bare string: a docstring, or what stands below a constant to explain it."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
