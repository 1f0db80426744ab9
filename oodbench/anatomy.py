"""What functions, classes and objects of Python hold: closures, globals, slots, and what only an extension module sees."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterable
from typing import Any

SKIPPED = frozenset({"_abc_impl"})


def cells(function: types.FunctionType) -> list[Any]:
    """What a function's closure holds; a variable that is not set yet is left out."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(None)
    return found


def nested(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from nested(one)


def globals_of(code: types.CodeType) -> set[str]:
    steps = [step for one in nested(code) for step in dis.get_instructions(one)]
    return {str(step.argval) for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def all_names(code: types.CodeType) -> set[str]:
    return {name for one in nested(code) for name in one.co_names}


def counts(name: str, member: Any) -> bool:
    """Whether a class's own attribute can change numbers: all but what Python writes there."""
    if name in SKIPPED or isinstance(
        member, (types.GetSetDescriptorType, types.MemberDescriptorType)
    ):
        return False
    dunder = name.startswith("__") and name.endswith("__")
    return not dunder or isinstance(member, (types.FunctionType, classmethod, staticmethod))


def slots(value: Any) -> dict[str, Any]:
    found = {}
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            mangled = (
                f"_{kind.__name__.lstrip('_')}{name}"
                if name.startswith("__") and not name.endswith("__")
                else name
            )
            if name not in ("__dict__", "__weakref__") and hasattr(value, mangled):
                found[mangled] = getattr(value, mangled)
    return found


def holds_more(kind: type) -> bool:
    """Whether objects of a class hold what no attribute shows, since an extension module made it or one of its bases."""
    made_by_python = 1 << 9
    bases = [base for base in kind.__mro__ if base is not object]
    return type(kind).__name__ == "pybind11_type" or any(
        not base.__flags__ & made_by_python for base in bases
    )


def is_torch_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def shape_of_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Size)
