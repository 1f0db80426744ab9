"""Running a plugin's file so that it finds the modules beside it, and no other plugin's.

Each plugin is a private package whose folder is the plugin's own: ``import helper`` in it, or in a module beside it, means the
``helper`` beside it, also when it runs later, inside a function. Nothing of it stands in ``sys.modules`` under its plain name.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from oodbench.syntax import is_neighbour

PRIVATE = "oodbench_plugin_"


def package_of(path: Path) -> str:
    """The private package of a plugin's file."""
    return PRIVATE + hashlib.sha256(str(path).encode()).hexdigest()[:12]


def execute(path: Path) -> None:
    """Run a plugin's file as a module of its private package; what it raises passes."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    importlib.invalidate_caches()
    package = ModuleType(package_of(path))
    package.__path__ = [str(path.parent)]
    sys.modules[package.__name__] = package
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _module_name(path: Path) -> str:
    return f"{package_of(path)}.{path.stem.replace('.', '_')}"


def module_of(path: Path) -> ModuleType:
    """The module that a plugin's file was run as."""
    return sys.modules[_module_name(path)]


def purge(path: Path, files: Iterable[Path]) -> None:
    """Forget the modules of a plugin, those beside it and any other that one of ``files`` made."""
    places, package = {str(file) for file in files}, package_of(path)
    for name, module in list(sys.modules.items()):
        private = f"{name}.".startswith(f"{package}.")
        if private or (name != "__main__" and getattr(module, "__file__", None) in places):
            del sys.modules[name]


class _Loader(SourceFileLoader):
    """Compiles the source each time, since compiled files are told apart by size and whole seconds alone."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        package = sys.modules[module.__name__.partition(".")[0]]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import_from(package)}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PRIVATE):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def _import_from(package: ModuleType) -> Any:
    """The ``__import__`` of a plugin's modules: what stands beside the plugin is taken from its private package."""
    folder = Path(package.__path__[0])

    def import_module(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not is_neighbour(folder, name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        private = f"{package.__name__}.{name}"
        found = builtins.__import__(private, globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{package.__name__}.{name.partition('.')[0]}"]

    return import_module
