"""Reading YAML strictly: duplicate keys are refused, ``1e-3`` is a number, and every fault names file, line and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from oodbench.errors import SuiteError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


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
        root, loaded = _parsed(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} cannot be read: {error}") from error
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        TypeError,
    ) as error:  # a date 2026-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SuiteError(
            f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from error
    if not isinstance(loaded, dict):
        raise SuiteError(f"{path}: expected `field: value` lines, found {type(loaded).__name__}")
    strange = [key for key in loaded if not isinstance(key, str)]
    if strange:
        raise SuiteError(f"{path}: the field {strange[0]!r} is no text; put quotes around it")
    try:
        return model.model_validate({**loaded, **extra})
    except ValidationError as error:
        raise SuiteError(
            "\n".join(_sentence(path, root, model, fault) for fault in error.errors())
        ) from error


def _parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a YAML text, for line numbers, and its value."""
    loader = StrictLoader(text)
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _sentence(path: Path, root: yaml.Node | None, model: type[BaseModel], fault: Any) -> str:
    location = [part for part in fault["loc"] if not (isinstance(part, str) and "[" in part)]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"no such field{did_you_mean(str(location[-1]), _fields(model, location[:-1]))}"
    dotted = ".".join(map(str, location))
    return (
        f"{path}:{_line(root, location)}: {dotted}: {message}" if dotted else f"{path}: {message}"
    )


def _fields(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Field names valid at a nested location."""
    for part in location:
        if isinstance(part, int):
            continue
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
