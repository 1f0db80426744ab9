"""Where code comes from: a user's file, an installed library, or a notebook; and what stands for it in a digest."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import sys
import types
from pathlib import Path
from typing import Any

from oodbench.paths import PACKAGE
from oodbench.plugin_files import PRIVATE
from oodbench.syntax import code_digest, import_root, in_library


def source_file(code: Any) -> Path | None:
    """The file in which a function or class stands; None for what was typed in a notebook."""
    code = code.func if isinstance(code, functools.partial) else inspect.unwrap(code)
    return file_of(code.__func__ if isinstance(code, types.MethodType) else code)


def file_of(code: Any) -> Path | None:
    if isinstance(code, types.FunctionType):
        return _existing(code.__code__.co_filename)
    owner = code if inspect.isclass(code) else type(code)
    methods = (one for one in vars(owner).values() if isinstance(one, types.FunctionType))
    own = [one.__code__.co_filename for one in methods if one.__module__ == owner.__module__]
    found = next(filter(None, map(_existing, own)), None)
    if found is not None:
        return found
    file = _existing(getattr(sys.modules.get(owner.__module__), "__file__", None))
    # the main module of a notebook, or of whatever was started, is not where a user's class stands
    return None if file and owner.__module__ == "__main__" and in_library(file) else file


def _existing(name: str | None) -> Path | None:
    return Path(name).resolve() if name and Path(name).is_file() else None


def joined(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def plain_name(code: Any) -> str:
    """A qualified name, without the name of a plugin's private package or of the file that holds it."""
    module: str = getattr(code, "__module__", None) or ""
    inside: str = getattr(code, "__qualname__", None) or code.__name__
    own = module.startswith(PRIVATE) or module == "__main__"
    return inside if own else f"{module}.{inside}"


@functools.cache
def version(module: str) -> str:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
    found = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(found, str):
        try:
            found = importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            return ""
    return found.partition("+")[
        0
    ]  # what stands behind the plus tells builds for CPUs from those for CUDA


def from_library(code: Any) -> bool:
    """Whether an installed library (or oodbench) holds a function, class or module."""
    file = None if inspect.ismodule(code) else file_of(code)
    if file is not None:
        return in_library(file)
    module = sys.modules.get(
        code.__name__ if inspect.ismodule(code) else getattr(code, "__module__", None) or ""
    )
    if isinstance(code, types.FunctionType) and code.__module__ == "builtins":
        return False  # executed from text, without a module
    if module is None or module.__name__ == "__main__":
        return False
    return not has_file(module) or in_library(Path(module.__file__ or "").resolve())


def has_file(module: types.ModuleType) -> bool:
    return bool(getattr(module, "__file__", None))


def file_digest(module: str, file: Path) -> str:
    """The digest of a user's file with those that it imports from beside it, or from beside its plugin."""
    package = module.partition(".")[0]
    root = import_root(file)
    if package.startswith(PRIVATE) and package in sys.modules:
        root = Path(sys.modules[package].__path__[0])
    elif module != "__main__" and "." in module:
        depth = module.count(".") - (file.name != "__init__.py")
        root = file.parents[depth + 1] if depth + 1 < len(file.parents) else root
    return code_digest(file, within=root)


def library_digest(code: Any) -> str:
    """Name and version; of oodbench, the code of the module and of the models that it builds on."""
    module = code.__name__ if inspect.ismodule(code) else getattr(code, "__module__", None) or ""
    name = module if inspect.ismodule(code) else plain_name(code)
    if module.partition(".")[0] != PACKAGE.name or inspect.ismodule(code):
        return joined("library", name, version(module))
    return joined("oodbench", name, code_digest(module, within=f"{PACKAGE.name}.models"))
