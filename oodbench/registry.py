"""What can be named: statistics, scorers and models, built in or from plugins.

A registry imports the package that holds its built-in entries at the first look-up, and then the installed plugins
(entry points in the group ``oodbench.plugins``), so that importing oodbench costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from oodbench.errors import OodbenchError, ScorerError, UnknownNameError, did_you_mean
from oodbench.paths import PACKAGE
from oodbench.types import Pass, Scorer, split_need

T = TypeVar("T")


_portable: list[bool] = []
"""Not empty while what is registered comes from an entry point or a plugin file, which workers load too."""


@contextmanager
def _found_by_workers() -> Iterator[None]:
    _portable.append(True)
    try:
        yield
    finally:
        _portable.pop()


class Registry(Mapping[str, T], Generic[T]):
    """Names to things of one kind; unknown names raise :class:`UnknownNameError` with the nearest ones."""

    def __init__(self, kind: str, builtin: str = ""):
        self.kind, self._builtin, self._loaded = kind, builtin, False
        self._entries: dict[str, T] = {}
        self.local: set[str] = set()
        """Names that a script or notebook registered itself, which worker processes cannot know."""

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            with _found_by_workers():
                if self._builtin:
                    importlib.import_module(self._builtin)
                load_entry_points()

    def add(self, name: str, entry: T) -> None:
        """Register an entry; a name is given once, unless the same file is loaded again."""
        existing = self._entries.get(name)
        if existing is not None and _origin(existing) != _origin(entry):
            raise ScorerError(f"the {self.kind} name {name!r} is taken, by {_origin(existing)}; choose another")
        self._entries[name] = entry
        if not (_portable or _origin(entry).startswith(str(PACKAGE))):
            self.local.add(name)

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)


def _origin(entry: Any) -> str:
    """The file that an entry's code stands in."""
    if isinstance(entry, Scorer):
        return entry.origin
    code = entry.compute if isinstance(entry, Pass) else entry
    return inspect.getsourcefile(code) or ""


statistics: Registry[Pass] = Registry("statistic", "oodbench.statistics")
scorers: Registry[Scorer] = Registry("scorer", "oodbench.scorers")
models: Registry[Callable[[], Any]] = Registry("model")

broken_plugins: dict[str, str] = {}
"""Name of an installed plugin that failed to load → why; it is reported and left out."""


def scorer(name: str) -> Scorer:
    """The scorer called ``name``; :class:`UnknownNameError` offers the nearest ones."""
    return scorers[name]


def register_statistics(
    units: Mapping[str, str],
    version: str,
    model_free: bool = False,
    capability: str | Mapping[str, str] = "",
    package: tuple[str, str] | None = None,
    differentiates: bool = False,
    prepare: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a pass over the images under its function's name.

    Parameters
    ----------
    units : name → unit of each statistic that the function returns
    version : a new one whenever the numbers change; part of every cache key
    model_free : the function takes ``(images)`` as uint8 numpy ``(B, C, H, W)`` instead of ``(model, images)`` as tensors
    capability, package, differentiates, prepare : see :class:`oodbench.types.Pass`
    """

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        entry = Pass(
            compute.__name__, units, compute, version, model_free, capability, package, differentiates, prepare
        )
        for name in units:
            statistics.add(name, entry)
        return compute

    return register


def register_scorer(
    name: str, cite: str = "", baseline: bool = False, tunes_on: str | None = None
) -> Callable[[Any], Any]:
    """Register a scorer: a function of statistics, or a class with ``fit`` (reference columns → state) and ``score``.

    The argument names are the list of needs; ``background_X`` asks X of the model's background model, and
    ``ensemble_X`` of each of the K members of its ensemble, ``(N, K)``. In a class, ``score`` takes the state first.

    Parameters
    ----------
    name : as in suites and leaderboards
    cite : authors, venue, year, arXiv
    baseline : model-free; ranked apart
    tunes_on : ``none``, ``in-dist ref`` or ``validation OOD``; by default what :func:`reads_reference` implies

    Raises
    ------
    ScorerError : an argument that is no statistic, or a class without ``score``

    Example
    -------
    >>> import oodbench as ob
    >>> @ob.register_scorer("per-image-surprise")
    ... def surprise(log_prob):
    ...     return -log_prob
    >>> ob.scorer("per-image-surprise").needs
    ('log_prob',)
    """

    def register(code: Any) -> Any:
        instance = code() if inspect.isclass(code) else code
        fit = getattr(instance, "fit", None)
        score = getattr(instance, "score", None) if inspect.isclass(code) else instance
        if not callable(score):
            raise ScorerError(f"the scorer {name!r} is a class without a method `score`")
        needs = _checked(name, _arguments(name, score)[1 if fit else 0 :])
        scorers.add(
            name,
            Scorer(
                name=name,
                needs=needs,
                fit_needs=_checked(name, _arguments(name, fit)) if fit else (),
                fit=fit,
                score=score,
                cite=cite,
                summary=(inspect.getdoc(code) or "").split("\n\n")[0].replace("\n", " ").replace("``", ""),
                baseline=baseline,
                tunes_on=tunes_on or ("in-dist ref" if reads_reference(fit, needs) else "none"),  # type: ignore[arg-type]
                origin=inspect.getsourcefile(code) or "",
            ),
        )
        return code

    return register


def reads_reference(fit: Callable[..., Any] | None, needs: tuple[str, ...]) -> bool:
    """Whether a scorer looks at in-dist reference images: to fit, or because a pass that it needs is prepared on some."""
    return fit is not None or any(statistics[split_need(need)[0]].prepare for need in needs)


def _arguments(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        raise ScorerError(f"the scorer {name!r} takes *args or **kwargs; name the statistics that it needs instead")
    return tuple(parameter.name for parameter in parameters)


def _checked(name: str, needs: tuple[str, ...]) -> tuple[str, ...]:
    for need in needs:
        if split_need(need)[0] not in statistics:
            raise ScorerError(
                f"the scorer {name!r} asks for {need!r}, which is no statistic{did_you_mean(need, statistics)}"
            )
    return needs


def register_model(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a factory (a class or function without arguments) of a user's own density model.

    The object needs ``shape`` ``(C, H, W)``, ``log_prob(images)`` and, to take part in a suite, ``trained_on``
    (the name of its image set); ``likelihood`` (``exact``, or the name of the bound) is shown in the leaderboard.
    """

    def register(factory: Callable[[], Any]) -> Callable[[], Any]:
        models.add(name, factory)
        return factory

    return register


_entry_points_loaded = False


def load_entry_points() -> None:
    """Load installed plugins, once; a broken one is noted in :data:`broken_plugins` and left out."""
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True  # before loading, since plugins look into registries, which ask for plugins
    for point in importlib.metadata.entry_points(group="oodbench.plugins"):
        try:
            point.load()
        except Exception as error:  # whatever a plugin does wrong must not stop the others
            broken_plugins[point.name] = f"{type(error).__name__}: {error}"


def registered_by(path: Path) -> tuple[list[str], list[str]]:
    """Names of the scorers and of the models that a plugin file registered."""
    file = str(path.resolve())
    found = [[name for name, entry in kind.items() if _origin(entry) == file] for kind in (scorers, models)]
    return found[0], found[1]


def load_plugin(path: Path) -> str:
    """Run a plugin file, which registers what it holds; returns the file's SHA-256.

    Raises
    ------
    OodbenchError : no such file, or the file raises; the message has the line
    """
    path = path.resolve()
    if not path.is_file():
        raise OodbenchError(f"the plugin file {path} does not exist")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"oodbench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name in sys.modules:
        return digest
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OodbenchError(f"the plugin {path} is not a Python file; its name must end in .py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        with _found_by_workers():
            spec.loader.exec_module(module)
    except OodbenchError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename != str(path):
            trace = trace.tb_next
        line = (
            f", line {trace.tb_lineno}" if trace else f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        )
        raise OodbenchError(f"the plugin {path}{line} raised {type(error).__name__}: {error}") from error
    return digest
