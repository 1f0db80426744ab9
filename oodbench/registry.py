"""What can be named: statistics, scorers and models, built in or from plugins.

A registry imports the package that holds its built-in entries at the first look-up, and then the installed plugins
(entry points in the group ``oodbench.plugins``), so that importing oodbench costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, get_args

from oodbench.digests import code_digest, source_file, value_digest
from oodbench.errors import OodbenchError, ScorerError, UnknownNameError, did_you_mean
from oodbench.names import checked_identifier, checked_name
from oodbench.paths import PACKAGE
from oodbench.plugin_files import execute, module_of, purge
from oodbench.syntax import source_files
from oodbench.types import BACKGROUNDS, Groups, Pass, PreparedOn, Scorer, TunesOn, split_need

T = TypeVar("T")


ZOO = PACKAGE / "zoo" / "weights"
INSTALLED = Path()
"""Stands for an installed plugin where a plugin's file is asked for."""
_loading: list[Path | None] = []
"""What is being loaded: a plugin's file, :data:`INSTALLED`, or None for what is built in; the innermost one last."""


@contextmanager
def _during(what: Path | None) -> Iterator[None]:
    _loading.append(what)
    try:
        yield
    finally:
        _loading.pop()


@dataclass(frozen=True)
class Source:
    """Where a registered entry comes from.

    Attributes
    ----------
    place : as shown where two places give one name
    code : gives the digest of the code
    plugin : the plugin's file that registered it
    local : registered by a script or notebook itself, which worker processes cannot know
    """

    place: str
    code: Callable[[], str]
    plugin: Path | None = None
    local: bool = False

    @classmethod
    def of(cls, code: Any, builtin: str, *read: Any) -> Source:
        """Of code that is being registered; ``read`` is all else that a notebook's entry depends on."""
        file, module = source_file(code), getattr(code, "__module__", None) or ""
        place = str(file) if file else "this notebook or script"
        if builtin and _shipped(code, builtin):
            return cls(place, cache(partial(code_digest, module, within=builtin)))
        loading = _loading[-1] if _loading else None
        if loading == INSTALLED:
            top = module.partition(".")[0]
            digest = code_digest(module, within=top) if file else value_digest((code, *read))
            return cls(place, lambda: digest)
        if loading is not None:
            return cls(place, partial(_plugin_digest, loading), loading)
        return cls(place, partial(_local_digest, code, *read), None, True)


def _local_digest(*read: Any) -> str:
    return value_digest(read)


class Registry(Mapping[str, T], Generic[T]):
    """Names to things of one kind; unknown names raise :class:`UnknownNameError` with the nearest ones.

    Parameters
    ----------
    kind : what the things are, in sentences
    builtin : the package that registers the built-in ones when it is imported
    folder : one whose folders' names are taken by what is shipped
    """

    def __init__(self, kind: str, builtin: str = "", folder: Path | None = None):
        self.kind, self.builtin, self._folder, self._loaded = kind, builtin, folder, False
        self._entries: dict[str, T] = {}
        self._sources: dict[str, Source] = {}

    @property
    def local(self) -> set[str]:
        """Names that a script or notebook registered itself, which worker processes cannot know."""
        return {name for name in self._entries if self._sources[name].local}

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            if self.builtin:
                with _during(None):
                    importlib.import_module(self.builtin)
            load_entry_points()

    def add(self, name: str, entry: T, source: Source) -> None:
        """Register an entry; a name is given once, unless the same file or notebook gives it again.

        Raises
        ------
        OodbenchError : the name is none
        ScorerError : it is taken, which names both places
        """
        checked_name(self.kind, name)
        shipped = self.builtin and source.place.startswith(str(PACKAGE))
        if not shipped:
            self._load()  # so that what is built in has its names before others ask for them
        taken = self._taken(name)
        if taken not in ("", source.place):
            raise ScorerError(
                f"the {self.kind} name {name!r} is taken, by {taken}; choose another in {source.place}"
            )
        self._entries[name], self._sources[name] = entry, source

    def _taken(self, name: str) -> str:
        """The place that has given a name already; empty where none has."""
        if self._folder and (self._folder / name).is_dir():
            return str(self._folder / name)
        return self._sources[name].place if name in self._entries else ""

    def digest(self, name: str) -> str:
        """The digest of the code that registered ``name``."""
        self[name]
        return self._sources[name].code()

    def by_plugin(self, path: Path) -> list[str]:
        """Names that a plugin's file registered, itself or through the modules beside it."""
        return sorted(name for name in self._entries if self._sources[name].plugin == path)

    def drop(self, path: Path) -> None:
        """Take back what a plugin's file registered."""
        for name in self.by_plugin(path):
            del self._entries[name], self._sources[name]

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


statistics: Registry[Pass] = Registry("statistic", "oodbench.statistics")
scorers: Registry[Scorer] = Registry("scorer", "oodbench.scorers")
models: Registry[Callable[[], Any]] = Registry("model", folder=ZOO)
KINDS: tuple[Registry[Any], ...] = (statistics, scorers, models)

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
    prepared_on: PreparedOn = "ref",
    least_prepared: Callable[[int], int] | None = None,
    built_with: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a pass over the images under its function's name.

    Parameters
    ----------
    units : name → unit of each statistic that the function returns
    version : a new one whenever the numbers change; part of every cache key, as the code of a plugin is
    built_with : versions of the libraries that the numbers depend on
    model_free : the function takes ``(images)`` as uint8 numpy ``(B, C, H, W)`` instead of ``(model, images)`` as tensors
    capability, package, differentiates, prepare, prepared_on, least_prepared : see :class:`oodbench.types.Pass`
    """

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        read = (prepare, prepared_on, model_free, differentiates, capability)
        source = Source.of(compute, statistics.builtin, *read)
        entry = Pass(
            name=compute.__name__,
            statistics=units,
            compute=compute,
            version=version,
            model_free=model_free,
            capability=capability,
            package=package,
            differentiates=differentiates,
            prepare=prepare,
            prepared_on=prepared_on,
            least_prepared=least_prepared,
            built_with=built_with,
            code=str if _shipped(compute, statistics.builtin) else source.code,
        )
        for name in units:
            statistics.add(checked_identifier("statistic", name), entry, source)
        return compute

    return register


def _shipped(code: Any, builtin: str) -> bool:
    return (getattr(code, "__module__", None) or "").startswith(f"{builtin}.")


def register_scorer(
    name: str,
    cite: str = "",
    baseline: bool | None = None,
    tunes_on: TunesOn | None = None,
    least_reference: int = 1,
    grid: Mapping[str, Sequence[Any] | str] | None = None,
    groups: Groups | None = None,
) -> Callable[[Any], Any]:
    """Register a scorer: a function of statistics, or a class with ``score`` and, where it needs them, ``fit`` and ``tune``.

    The argument names of ``fit`` and ``score`` are the list of needs; ``background_X`` asks X of the model's background model,
    ``ensemble_X`` of each of the K members of its ensemble, ``(N, K)``, and ``backgrounds_X`` of each of its backgrounds.

    ``fit(self, …)`` makes a state of columns of in-dist reference images. ``tune(self, in_dist, validation)`` is given two
    mappings, need → column, of in-dist reference and of the suite's validation OOD images, and returns parameter → value, each of
    the grid. ``score`` takes the state first, then what was tuned, then columns; ``tune`` takes the state first too.

    Parameters
    ----------
    name : as in suites and leaderboards
    cite : authors, venue, year, arXiv
    baseline : what its author takes it for. Whether it is one is derived: a scorer all of whose needs are model-free is, and is
        ranked apart; ``oodbench check`` says where the author is wrong
    tunes_on : ``none``, ``in-dist ref``, ``in-dist train`` or ``validation OOD``; by default what it fits, tunes and needs imply
    least_reference : in-dist reference images without which it cannot be fitted; a plan skips it with a sentence
    grid : what ``tune`` chooses from: parameter → numbers or texts, or ``"backgrounds"``, one of the model's by its number
    groups : how a group of images is judged as one. ``mean of columns``: by the group's mean log p(x), for scorers that take
        nothing else; ``mean of scores``: by the mean of its images' scores; ``own test``: by ``score_groups``, which takes what
        ``score`` takes, with columns ``(G, M)`` of G groups. Without it a suite's ``group_sizes`` are refused for the scorer

    Raises
    ------
    ScorerError : an argument that is no statistic, a class without ``score``, ``tune`` without a grid, or groups that cannot be
        judged as declared

    Example
    -------
    >>> import oodbench as ob
    >>> @ob.register_scorer("per-image-surprise")
    ... def surprise(log_prob):
    ...     return -log_prob
    >>> ob.scorer("per-image-surprise").needs
    ('log_prob',)
    """

    if tunes_on not in (None, *get_args(TunesOn)):
        raise ScorerError(
            f"the scorer {name!r} tunes on {tunes_on!r}; there are {', '.join(get_args(TunesOn))}"
        )

    def register(code: Any) -> Any:
        instance = code() if inspect.isclass(code) else code
        fit = getattr(instance, "fit", None)
        score = getattr(instance, "score", None) if inspect.isclass(code) else instance
        if not callable(score):
            raise ScorerError(f"the scorer {name!r} is a class without a method `score`")
        tune = getattr(instance, "tune", None) if inspect.isclass(code) else None
        needs = _checked(name, _arguments(name, score)[bool(fit) + bool(tune) :])
        fit_needs = _checked(name, _arguments(name, fit)) if fit else ()
        _check_tuning(name, tune, bool(fit), grid, tunes_on, needs)
        own_test = getattr(instance, "score_groups", None) if inspect.isclass(code) else None
        _check_groups(name, groups, own_test, score, needs)
        source = Source.of(code, scorers.builtin, grid, groups)
        entry = Scorer(
            name=name,
            needs=needs,
            fit_needs=fit_needs,
            fit=fit,
            score=score,
            cite=cite,
            summary=(inspect.getdoc(code) or "")
            .split("\n\n")[0]
            .replace("\n", " ")
            .replace("``", ""),
            baseline=is_model_free((*needs, *fit_needs)),
            said_baseline=baseline,
            tunes_on=tunes_on or _tunes_on(fit, tune, (*needs, *fit_needs)),
            least_reference=least_reference,
            tune=tune,
            grid=dict(grid or {}),
            groups=groups,
            score_groups=own_test,
            origin=source.place,
            code=source.code,
        )
        scorers.add(name, entry, source)
        return code

    return register


def _tunes_on(fit: object, tune: object, needs: tuple[str, ...]) -> TunesOn:
    if tune:
        return "validation OOD"
    if passes_prepared_on("train", needs):
        return "in-dist train"
    return "in-dist ref" if reads_reference(fit, needs) else "none"


def _check_tuning(
    name: str, tune: Callable[..., Any] | None, fits: bool, grid: Any, tunes_on: Any, needs: tuple[str, ...]
) -> None:  # fmt: skip
    """Raise :class:`ScorerError` where a scorer tunes without saying what from, or says so and does not."""
    if tune is None:
        if grid:
            raise ScorerError(
                f"the scorer {name!r} has a grid, and no method `tune` that chooses from it"
            )
        return
    if not grid:
        raise ScorerError(
            f"the scorer {name!r} tunes; say what from, grid={{parameter: (value, …)}}, so that its rows can say it too"
        )
    takes = len(_arguments(name, tune)) - fits
    if takes != 2:
        raise ScorerError(
            f"`tune` of the scorer {name!r} must take columns of in-dist and of validation images"
            f"{', after what `fit` returns' if fits else ''}"
        )
    if tunes_on not in (None, "validation OOD"):
        raise ScorerError(
            f"the scorer {name!r} has a method `tune`: it tunes on validation OOD, not on {tunes_on}"
        )
    for parameter, values in grid.items():
        _check_candidates(name, parameter, values, needs)


def _check_groups(
    name: str, groups: Any, own_test: Callable[..., Any] | None, score: Callable[..., Any], needs: tuple[str, ...]
) -> None:  # fmt: skip
    """Raise :class:`ScorerError` where a scorer cannot judge groups as it says."""
    if groups not in (None, *get_args(Groups)):
        raise ScorerError(
            f"the scorer {name!r} judges groups by {groups!r}; there are {', '.join(get_args(Groups))}"
        )
    if (groups == "own test") != callable(own_test):
        raise ScorerError(
            f'the scorer {name!r} must have both or neither: groups="own test" and a method `score_groups`'
        )
    if own_test and _arguments(name, own_test) != _arguments(name, score):
        raise ScorerError(
            f"`score_groups` of the scorer {name!r} must take the arguments of its `score`, in that order"
        )
    others = [need for need in needs if split_need(need)[0] != "log_prob"]
    if groups == "mean of columns" and others:
        raise ScorerError(
            f"the scorer {name!r} takes {', '.join(others)}: only scorers that are linear in log_prob may judge a group by the "
            'mean of its columns; declare groups="mean of scores", or "own test" with a method `score_groups`'
        )


def _check_candidates(name: str, parameter: str, values: Any, needs: tuple[str, ...]) -> None:
    if values == BACKGROUNDS and all(split_need(need)[1] != BACKGROUNDS for need in needs):
        raise ScorerError(
            f"the scorer {name!r} chooses a background, and needs no statistic of them: backgrounds_log_prob, for instance"
        )
    listed = isinstance(values, list | tuple) and values
    plain = listed and all(isinstance(value, bool | int | float | str) for value in values)
    if values != BACKGROUNDS and not plain:
        raise ScorerError(
            f"the grid of the scorer {name!r} must give a list of numbers or texts for {parameter!r}, not {values!r}"
        )


def reads_reference(fit: object, needs: tuple[str, ...]) -> bool:
    """Whether a scorer looks at in-dist reference images: to fit or tune, or since a pass that it needs is prepared on some."""
    return bool(fit) or bool(passes_prepared_on("ref", needs))


def passes_prepared_on(split: PreparedOn, needs: Iterable[str]) -> list[Pass]:
    """The passes that give these needs and are prepared on in-dist images of a split."""
    entries = (statistics[split_need(need)[0]] for need in needs)
    passes = {entry.name: entry for entry in entries if entry.prepare}
    return [entry for entry in passes.values() if entry.prepared_on == split]


def is_model_free(needs: tuple[str, ...]) -> bool:
    """Whether no need is a model's: a scorer with such needs alone is a baseline, whatever its author says."""
    return all(statistics[split_need(need)[0]].model_free for need in needs)


def _arguments(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    if any(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters
    ):
        raise ScorerError(
            f"the scorer {name!r} takes *args or **kwargs; name the statistics that it needs instead"
        )
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
        models.add(name, factory, Source.of(factory, models.builtin))
        return factory

    return register


@contextmanager
def lent_model(model: Any) -> Iterator[str]:
    """A name for a model object, or the class of one, while a call lasts: that of its class."""
    owner = model if inspect.isclass(model) else type(model)
    wanted = re.sub(r"[^\w.+=-]", "-", owner.__name__.strip("_")) or "model"
    taken = {*models, *(path.name for path in ZOO.iterdir())}
    name = next(
        one for one in (wanted, *(f"{wanted}-{n}" for n in range(2, 99))) if one not in taken
    )
    # by a built-in function, since the file that a factory stands in counts as the model's code
    factory = (
        model if inspect.isclass(model) else partial(getattr, SimpleNamespace(own=model), "own")
    )
    models.add(name, factory, Source("this call", partial(_local_digest, factory), None, True))
    try:
        yield name
    finally:
        del models._entries[name], models._sources[name]


_entry_points_loaded = False


def load_entry_points() -> None:
    """Load installed plugins, once; a broken one is noted in :data:`broken_plugins` and left out."""
    global _entry_points_loaded
    if _entry_points_loaded or None in _loading:
        return
    _entry_points_loaded = (
        True  # before loading, since plugins look into registries, which ask for plugins
    )
    for kind in KINDS:
        kind._load()
    for point in importlib.metadata.entry_points(group="oodbench.plugins"):
        try:
            with _during(INSTALLED):
                point.load()
        except Exception as error:  # whatever a plugin does wrong must not stop the others
            broken_plugins[point.name] = f"{type(error).__name__}: {error}"


def registered_by(path: Path) -> tuple[list[str], list[str]]:
    """Names of the scorers and of the models that a plugin file registered."""
    path, _ = plugin_parts(path)
    return scorers.by_plugin(path), models.by_plugin(path)


@dataclass(frozen=True)
class _Loaded:
    """A plugin as it was when it was loaded: its digest, and the SHA-256 of each file that it is made of."""

    digest: str
    files: Mapping[Path, str]


_plugins: dict[Path, _Loaded] = {}


def _plugin_digest(path: Path) -> str:
    loaded = _plugins.get(path) or _as_it_is(path)  # a plugin may ask while it is being loaded
    return loaded.digest


def _as_it_is(path: Path) -> _Loaded:
    files = {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in source_files(path, within=path.parent)
    }
    return _Loaded(code_digest(path, within=path.parent), files)


MODEL_OF_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^/\\:]+)")


def plugin_parts(reference: str | Path) -> tuple[Path, str]:
    """``file.py:Name`` as the file and the name, which is empty where none is given."""
    match = MODEL_OF_FILE.fullmatch(str(reference))
    file, name = (match["file"], match["name"]) if match else (str(reference), "")
    return Path(file).expanduser().resolve(), name


def load_plugin(reference: str | Path) -> str:
    """Run a plugin file, which registers what it holds; returns the digest of its code and of what it imports from beside it.

    A file that changed since it was loaded, or a module beside it that did, is loaded anew: what it had registered is taken
    back first. ``file.py:Name`` registers the class or function ``Name`` of the file as a model, unless the file itself
    registers a model of that name.

    Raises
    ------
    OodbenchError : no such file, the file raises (the message has the line), or it has no such model
    """
    path, name = plugin_parts(reference)
    digest = _load_file(path)
    if name and name not in models.by_plugin(path):
        _register_unregistered(path, name)
    return digest


def _register_unregistered(path: Path, name: str) -> None:
    """Register a model of a loaded plugin that it did not register itself."""
    code = getattr(module_of(path), name, None)
    if not callable(code):
        raise OodbenchError(f"{path} has no model {name!r}{did_you_mean(name, models_in(path))}")
    with _during(path):
        register_model(name)(code)


def models_in(path: Path) -> list[str]:
    """Names of the models of a loaded plugin: those that it registers, and its own classes with a method ``log_prob``."""
    module = module_of(path)
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and hasattr(value, "log_prob")
    ]
    registered = models.by_plugin(path)
    made = {models[name] for name in registered if inspect.isclass(models[name])}
    return [*registered, *(name for name in own if getattr(module, name) not in made)]


def _load_file(path: Path) -> str:
    if not path.is_file():
        raise OodbenchError(f"the plugin file {path} does not exist")
    if path.suffix != ".py":
        raise OodbenchError(f"the plugin {path} is not a Python file; its name must end in .py")
    loaded, now = _plugins.get(path), _as_it_is(path)
    if loaded == now:
        return now.digest
    if loaded is not None:
        _unload(path, loaded)
    try:
        with _during(path):
            execute(path)
    except (Exception, SystemExit) as error:  # a script that reads its command line ends so
        _unload(path, now)
        raise (
            error if isinstance(error, OodbenchError) else OodbenchError(_fault(path, error))
        ) from error
    # after it ran, since it may have put other folders on the path
    _plugins[path] = _as_it_is(path)
    return _plugins[path].digest


def _unload(path: Path, loaded: _Loaded) -> None:
    for kind in KINDS:
        kind.drop(path)
    purge(path, loaded.files)
    _plugins.pop(path, None)


def _fault(path: Path, error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    number = trace.tb_lineno if trace else error.lineno if isinstance(error, SyntaxError) else None
    line = f", line {number}" if number else ""
    if isinstance(error, SystemExit):
        return (
            f"the plugin {path}{line} ends the program when it is loaded, as a script does; put what it runs below "
            "`if __name__ == '__main__':`"
        )
    return f"the plugin {path}{line} raised {type(error).__name__}: {error}"
