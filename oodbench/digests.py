"""Digests of code and of values: equal ones mean equal numbers, in any process and on any device.

A value is walked: its attributes, what its methods' code is, and what that code reads. What an installed library made is
identified by its name and version. Nothing here depends on addresses, on ``hash``, or on the order of a set.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import logging
import math
import pathlib
import random
import struct
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.anatomy import (
    all_names,
    cells,
    counts,
    globals_of,
    holds_more,
    is_torch_module,
    shape_of_torch,
    slots,
)
from oodbench.errors import UnhashableError
from oodbench.origins import (
    file_digest,
    file_of,
    from_library,
    joined,
    library_digest,
    plain_name,
    source_file,
)
from oodbench.syntax import code_digest

__all__ = ["code_digest", "source_file", "value_digest"]

SILENT = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.local,
    logging.Logger,
)
"""Kinds of things that say nothing about numbers."""
BUILT_IN = (
    types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, np.ufunc,
)  # fmt: skip
TYPE_HINTS = (types.GenericAlias, types.UnionType, type(list[int]), type(Callable[[], int]))
LIVE = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.FrameType,
    types.TracebackType,
)
"""Kinds of things that hold a place in a running program."""
PLAIN = frozenset({bool, int, float, str})


def value_digest(value: Any) -> str:
    """SHA-256 of all in a value that can change its numbers.

    Numbers, text, arrays and tensors count by content, objects by class and attributes, modules of torch with hooks and mode,
    functions by their code, defaults, closure and the globals that they read, classes of a user by their file and attributes.
    The device of a tensor, whether it requires gradients, and the order of a set or of a plain dict's keys do not count.

    Raises
    ------
    UnhashableError : a part of it cannot be hashed; the message names the attribute
    """
    return _Walk().digest(value, "")


class _Walk:
    """One walk over a value; objects met again are named by the number of their first meeting."""

    def __init__(self) -> None:
        self.met: dict[int, int] = {}
        self.kept: list[Any] = []
        """What was met: while it lives, no other object has its address."""
        self.open: dict[int, int] = {}
        """Lists and dicts around the present value, which would lead in a circle."""

    def digest(self, value: Any, path: str) -> str:
        for kinds, method in METHODS:
            if isinstance(value, kinds):
                return str(method(self, value, path))
        tensor = self.of_torch(value, path)
        return tensor or self.object(value, path)

    def all(self, values: Iterable[Any], path: str) -> list[str]:
        return [self.digest(value, f"{path}[{number}]") for number, value in enumerate(values)]

    def once(self, value: Any) -> str | None:
        """What stands for an object that was met before."""
        if id(value) in self.met:
            return joined("met", str(self.met[id(value)]))
        self.met[id(value)] = len(self.met)
        self.kept.append(value)
        return None

    # numbers and text

    def constant(self, value: Any, path: str) -> str:
        return joined(type(value).__name__, repr(value))

    def real(self, value: float, path: str) -> str:
        content = "nan" if math.isnan(value) else struct.pack("<d", value).hex()
        return joined("float", content, self.extra(value, float, path))

    def whole(self, value: int, path: str) -> str:
        return joined("int", str(int(value)), self.extra(value, int, path))

    def complex(self, value: complex, path: str) -> str:
        return joined("complex", self.real(value.real, path), self.real(value.imag, path))

    def text(self, value: str, path: str) -> str:
        return joined("str", str.__str__(value), self.extra(value, str, path))

    def raw(self, value: Any, path: str) -> str:
        return joined("bytes", bytes(value).hex())

    def enum(self, value: enum.Enum, path: str) -> str:
        return joined("enum", plain_name(type(value)), value.name, self.digest(value.value, path))

    def path(self, value: pathlib.PurePath, path: str) -> str:
        return joined("path", str(value))

    def silent(self, value: Any, path: str) -> str:
        return joined("silent")

    def live(self, value: Any, path: str) -> str:
        raise _unhashable(path, value)

    # arrays

    def array(self, value: np.ndarray, path: str) -> str:
        if isinstance(value, np.ma.MaskedArray):
            return joined(
                "masked", self.array(value.data, path), self.array(np.ma.getmaskarray(value), path)
            )
        shape, kind = (
            str(value.shape),
            str(value.dtype.descr if value.dtype.names else value.dtype.str),
        )
        if value.dtype.hasobject:
            return joined("objects", shape, kind, *self.all(value.reshape(-1).tolist(), path))
        return joined(
            "array", shape, kind, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        )

    def array_scalar(self, value: np.generic, path: str) -> str:
        return joined("scalar", self.array(np.asarray(value), path))

    def dtype(self, value: np.dtype, path: str) -> str:
        return joined("dtype", str(value.descr if value.names else value.str))

    def generator(self, value: np.random.Generator, path: str) -> str:
        return joined("generator", self.digest(value.bit_generator.state, path))

    def old_generator(self, value: np.random.RandomState, path: str) -> str:
        return joined("generator", self.digest(value.get_state(legacy=False), path))

    def python_generator(self, value: random.Random, path: str) -> str:
        return joined("generator", self.digest(value.getstate(), path))

    def of_torch(self, value: Any, path: str) -> str | None:
        """A tensor, or another value of torch that has no attributes to walk."""
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        if isinstance(value, torch.Tensor):
            return self.tensor(torch, value, path)
        if isinstance(value, torch.device):
            return joined("device")
        if isinstance(value, torch.Generator):
            return joined("generator", self.tensor(torch, value.get_state(), path))
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return joined("torch", str(value))
        return None

    def tensor(self, torch: Any, value: Any, path: str) -> str:
        if value.is_meta or value.is_quantized:
            raise _unhashable(path, value)
        dense = value.detach().to("cpu").resolve_conj().resolve_neg()
        if dense.layout != torch.strided:
            dense = dense.to_dense()
        content = dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        shape = str(tuple(value.shape))
        return joined(
            "tensor",
            shape,
            str(value.dtype),
            str(value.layout),
            hashlib.sha256(content).hexdigest(),
        )

    # containers

    def inside(self, value: Any, parts: Callable[[], list[str]]) -> str:
        """The digest of a container; one that holds itself is named by its depth."""
        if id(value) in self.open:
            return joined("around", str(self.open[id(value)]))
        self.open[id(value)] = len(self.open)
        try:
            return joined(*parts())
        finally:
            del self.open[id(value)]

    def sequence(self, value: Any, path: str) -> str:
        kind = list if isinstance(value, list) else tuple
        if shape_of_torch(value):
            return joined("size", *self.all(tuple(value), path))
        if all(type(one) in PLAIN for one in kind.__iter__(value)):
            return joined(
                kind.__name__, self.extra(value, kind, path), repr(list(kind.__iter__(value)))
            )
        return self.inside(
            value,
            lambda: [
                kind.__name__,
                self.extra(value, kind, path),
                *self.all(kind.__iter__(value), path),
            ],
        )

    def set(self, value: Any, path: str) -> str:
        return joined("set", *sorted(_Walk().digest(one, f"{path}{{}}") for one in value))

    def dict(self, value: Any, path: str) -> str:
        # the order of an OrderedDict is meant, that of a plain one may come from a set
        return self.inside(
            value, lambda: self.items(value, path, ordered=isinstance(value, OrderedDict))
        )

    def items(self, value: Any, path: str, ordered: bool = False) -> list[str]:
        pairs = [(_Walk().digest(key, f"{path} key"), key, one) for key, one in dict(value).items()]
        pairs = pairs if ordered else sorted(pairs, key=lambda pair: pair[0])
        content = [
            part
            for name, key, one in pairs
            for part in (name, self.digest(one, f"{path}[{key!r}]"))
        ]
        default = self.digest(getattr(value, "default_factory", None), path)
        return ["dict", default, self.extra(value, dict, path), *content]

    def proxy(self, value: Any, path: str) -> str:
        return self.dict(dict(value), path)

    def extra(self, value: Any, kind: type, path: str) -> str:
        """What a user's subclass of a plain type adds to it."""
        if type(value) in (kind, frozenset, OrderedDict):
            return ""
        return joined(self.digest(type(value), path), self.attributes(value, path))

    # code

    def function(self, value: types.FunctionType, path: str) -> str:
        known = self.once(value)
        if known:
            return known
        if from_library(value):
            bound = [value.__defaults__, value.__kwdefaults__, cells(value)]
            return joined("function", library_digest(value), self.digest(bound, path))
        file = file_of(value)
        own = file_digest(value.__module__ or "", file) if file else ""
        bound = [value.__defaults__, value.__kwdefaults__, cells(value), value.__dict__]
        code = self.code(value.__code__, path)
        return joined("function", own, code, self.digest(bound, path), self.reads(value, path))

    def code(self, value: types.CodeType, path: str) -> str:
        """Instructions with the constants and names that they mean, but no positions and no docstring."""
        steps = [
            joined(step.opname, self.argument(value, step, path))
            for step in dis.get_instructions(value)
        ]
        arguments = value.co_varnames[: value.co_argcount + value.co_kwonlyargcount]
        counts = (
            value.co_argcount,
            value.co_posonlyargcount,
            value.co_kwonlyargcount,
            value.co_flags & 0x2C,
        )
        return joined("code", repr(arguments), repr(counts), *steps)

    def argument(self, code: types.CodeType, step: dis.Instruction, path: str) -> str:
        if isinstance(step.argval, types.CodeType):
            return self.code(step.argval, path)
        if step.opcode in dis.hasconst:
            return self.digest(step.argval, path)
        return (
            repr(step.argval) if isinstance(step.argval, (str, int, tuple)) else str(step.argrepr)
        )

    def reads(self, value: types.FunctionType, path: str) -> str:
        """The module-level values that a function's code reads, and the attributes that it reads of a user's modules."""
        where, names = value.__globals__, all_names(value.__code__)
        found = [
            (name, self.digest(where[name], f"{path}<{name}>"))
            for name in sorted(globals_of(value.__code__))
            if name in where
        ]
        for name in sorted(globals_of(value.__code__)):
            module = where.get(name)
            if inspect.ismodule(module) and not from_library(module):
                read = sorted(names & vars(module).keys())
                found += [
                    (f"{name}.{one}", self.digest(vars(module)[one], f"{path}<{name}.{one}>"))
                    for one in read
                ]
        return joined(*(part for pair in found for part in pair))

    def method(self, value: types.MethodType, path: str) -> str:
        return joined(
            "method", self.digest(value.__func__, path), self.digest(value.__self__, path)
        )

    def built_in(self, value: Any, path: str) -> str:
        owner = getattr(value, "__self__", None)
        bound = "" if owner is None or inspect.ismodule(owner) else self.digest(owner, path)
        return joined("built-in", getattr(value, "__qualname__", ""), value.__name__, bound)

    def partial(self, value: Any, path: str) -> str:
        return joined("partial", self.digest([value.func, value.args, value.keywords], path))

    def cached(self, value: Any, path: str) -> str:
        return joined("cached", self.digest(value.__wrapped__, path))

    def property(self, value: Any, path: str) -> str:
        return joined("property", self.digest([value.fget, value.fset], path))

    def wrapped_method(self, value: Any, path: str) -> str:
        return joined(type(value).__name__, self.digest(value.__func__, path))

    def cached_property(self, value: Any, path: str) -> str:
        return joined("cached property", self.digest(value.func, path))

    def reference(self, value: Any, path: str) -> str:
        return joined("reference", self.digest(value(), path))

    def module(self, value: types.ModuleType, path: str) -> str:
        if from_library(value):
            return library_digest(value)
        file = (
            Path(value.__file__).resolve()
            if value.__file__ and Path(value.__file__).is_file()
            else None
        )
        return joined("module", file_digest(value.__name__, file) if file else value.__name__)

    def hint(self, value: Any, path: str) -> str:
        return joined("hint", repr(value))

    def type(self, value: type, path: str) -> str:
        known = self.once(value)
        if known:
            return known
        if from_library(value):
            return joined("class", library_digest(value))
        file = file_of(value)
        own = file_digest(value.__module__, file) if file else ""
        bases = self.all(value.__bases__, path)
        kept = {name: one for name, one in vars(value).items() if counts(name, one)}
        members = [
            part
            for name in sorted(kept)
            for part in (name, self.digest(kept[name], f"{path}.{name}"))
        ]
        return joined("class", value.__qualname__, own, *bases, *members)

    # objects

    def object(self, value: Any, path: str) -> str:
        known = self.once(value)
        if known:
            return known
        if type(value) is object:
            return joined("sentinel")
        kind = self.digest(type(value), path)
        walkable = hasattr(value, "__dict__") or bool(slots(value))
        own = self.attributes(value, path) if walkable else ""
        hidden = self.reduced(value, path) if holds_more(type(value)) or not walkable else ""
        return joined("object", kind, own, hidden)

    def attributes(self, value: Any, path: str) -> str:
        """``__dict__`` and ``__slots__``; of a torch module, submodules in their order and hooks without their numbers."""
        torch_module = is_torch_module(value)
        found = {**slots(value), **getattr(value, "__dict__", {})}
        parts = []
        for name in sorted(found):
            inner = found[name]
            if torch_module and name == "_modules":
                inner = list(inner.items())
            elif (
                torch_module
                and name.startswith("_")
                and "_hooks" in name
                and isinstance(inner, dict)
            ):
                inner = list(inner.values())  # keys count all hooks of the process
            shown = (
                path
                if torch_module and name in ("_modules", "_parameters", "_buffers")
                else f"{path}.{name}"
            )
            parts += [name, self.digest(inner, shown)]
        return joined(*parts)

    def reduced(self, value: Any, path: str) -> str:
        """What ``pickle`` would keep of an object of an extension module."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            kept = registered(value) if registered else value.__reduce_ex__(4)
        except Exception as error:
            raise _unhashable(path, value) from error
        if isinstance(kept, str):
            return joined("global", plain_name(type(value)), kept)
        make, arguments, state, items, pairs = (*kept, None, None, None)[:5]
        held = [arguments, state, list(items or ()), list(pairs or ())]
        if (
            len(arguments) == 1
            and arguments[0] is type(value)
            and state is None
            and not any(held[2:])
        ):
            raise _unhashable(path, value)  # pickle would keep nothing of it
        self.kept.append(held)
        return joined("reduced", self.digest(make, path), self.digest(held, path))


def _unhashable(path: str, value: Any) -> UnhashableError:
    where = f"`{path}`, a {type(value).__qualname__}," if path else f"a {type(value).__qualname__}"
    return UnhashableError(
        f"{where} cannot be hashed; give what holds it a method `identity()` that returns a text, another one whenever its "
        "numbers are others"
    )


METHODS: tuple[tuple[Any, Callable[..., str]], ...] = (
    (enum.Enum, _Walk.enum),
    ((type(None), bool, type(Ellipsis), type(NotImplemented)), _Walk.constant),
    (np.generic, _Walk.array_scalar),
    (int, _Walk.whole),
    (float, _Walk.real),
    (complex, _Walk.complex),
    (str, _Walk.text),
    ((bytes, bytearray, memoryview), _Walk.raw),
    (pathlib.PurePath, _Walk.path),
    (np.ndarray, _Walk.array),
    (np.dtype, _Walk.dtype),
    (np.random.Generator, _Walk.generator),
    (np.random.RandomState, _Walk.old_generator),
    (random.Random, _Walk.python_generator),
    ((list, tuple), _Walk.sequence),
    ((set, frozenset), _Walk.set),
    (dict, _Walk.dict),
    (types.MappingProxyType, _Walk.proxy),
    (types.FunctionType, _Walk.function),
    (types.CodeType, _Walk.code),
    (types.MethodType, _Walk.method),
    (BUILT_IN, _Walk.built_in),
    (functools.partial, _Walk.partial),
    (functools._lru_cache_wrapper, _Walk.cached),
    (property, _Walk.property),
    ((classmethod, staticmethod), _Walk.wrapped_method),
    (functools.cached_property, _Walk.cached_property),
    (weakref.ReferenceType, _Walk.reference),
    (types.ModuleType, _Walk.module),
    (TYPE_HINTS, _Walk.hint),
    (type, _Walk.type),
    (SILENT, _Walk.silent),
    (LIVE, _Walk.live),
)
"""How each kind of value is hashed; the first that fits."""
