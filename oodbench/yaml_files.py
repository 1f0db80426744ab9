"""Reading YAML strictly: duplicate keys are refused, ``1e-3`` is a number, and every fault names file, line and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from oodbench.errors import SuiteError, did_you_mean
from oodbench.foreign import check_size, printable, reason_of, shown_path

Model = TypeVar("Model", bound=BaseModel)
LARGEST = 500_000
"""Bytes of a YAML file that is read."""
DEEPEST = 40
"""Levels of lists and mappings inside each other."""
MOST = 50_000
"""Values that a YAML file may stand for, those that an alias repeats counted each time."""
FAULTS = 20
"""Faults of a file that are told one by one."""


def read_own(path: Path) -> Any:
    """The value of one of the package's own YAML files, read by libyaml where it is there: in a tenth of the time."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text("utf-8"), Loader=loader)


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads YAML 1.2 floats."""


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        try:
            doubled = key in seen
        except TypeError as error:
            raise _at(key_node, "a key must be one name, not a list or a mapping") from error
        if doubled:
            raise _at(key_node, f"the key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _at(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(path: Path, model: type[Model], **extra: Any) -> Model:
    """Read and validate a YAML file; ``extra`` are fields that the file does not hold.

    Raises
    ------
    SuiteError : all faults at once, a line each: ``file:line: field: what is wrong``
    """
    try:
        check_size(path, LARGEST, SuiteError, "YAML")
        root, loaded = _parsed(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{shown_path(path)} cannot be read: {reason_of(error)}") from error
    except (SuiteError, MemoryError):
        raise
    except Exception as error:  # a date 2026-13-45 is a ValueError, and there are others
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SuiteError(f"{where}: not valid YAML: {_problem(error)}") from error
    if not isinstance(loaded, dict):
        raise SuiteError(f"{path}: expected `field: value` lines, found {type(loaded).__name__}")
    strange = [key for key in loaded if not isinstance(key, str)]
    if strange:
        raise SuiteError(f"{path}: the field {strange[0]!r} is no text; put quotes around it")
    try:
        return model.model_validate({**loaded, **extra})
    except ValidationError as error:
        faults = error.errors(include_input=False, include_context=False, include_url=False)
        told = [_sentence(path, root, model, fault) for fault in faults[:FAULTS]]
        told += [f"{path}: {len(faults) - FAULTS} more faults"] * (len(faults) > FAULTS)
        raise SuiteError("\n".join(told)) from error


def load_value(text: str) -> Any:
    """The value of a piece of YAML, as on a command line; raises what YAML raises, or ValueError."""
    return _parsed(text)[1]


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested more than {DEEPEST} levels deep"
    return printable(getattr(error, "problem", None) or reason_of(error))


def _parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a YAML text, for line numbers, and its value."""
    loader = StrictLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _weigh(root, {}, 0)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many values a node stands for; :class:`ValueError` for too many, too deep ones, and one that holds itself."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_weigh(part, known, depth + 1) for part in parts)
    if known[id(node)] > MOST:
        raise ValueError(f"its aliases stand for more than {MOST:,} values")
    return known[id(node)]


def _sentence(path: Path, root: yaml.Node | None, model: type[BaseModel], fault: Any) -> str:
    *above, last = fault["loc"] or ("",)
    forbidden = (
        fault["type"] == "extra_forbidden"
    )  # whose last part is the file's word, whatever it holds
    location = [part for part in above if not _is_of_pydantic(part)]
    location += [last] if forbidden or not _is_of_pydantic(last) else []
    message = printable(fault["msg"].removeprefix("Value error, "))
    if forbidden:
        message = f"no such field{did_you_mean(str(location[-1]), _fields(model, location[:-1]))}"
    dotted = printable(".".join(map(str, location)))
    return (
        f"{path}:{_line(root, location)}: {dotted}: {message}" if dotted else f"{path}: {message}"
    )


def _is_of_pydantic(part: Any) -> bool:
    """Whether a part of a location names one of several types that were tried, as ``dict[str,str]``."""
    return part == "" or (isinstance(part, str) and "[" in part)


def _fields(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Field names valid at a nested location."""
    for part in location:
        if isinstance(part, int):
            continue
        if part not in model.model_fields:
            return []
        annotation = model.model_fields[part].annotation
        nested = [
            a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)
        ]
        models = [a for a in nested if issubclass(a, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _line(node: yaml.Node | None, location: list[Any]) -> int:
    """The line where a field stands, or the nearest enclosing one."""
    line = node.start_mark.line if node else 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1
