"""A record of all released code that makes numbers: its digest may change only together with its version.

Another kind of code joins with one function that gives ``name → (version, digest)`` and one line of :data:`KINDS`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from pathlib import Path

import pytest
from test_zoo import released_families, released_samplers, released_scoring

from oodbench.registry import statistics
from oodbench.syntax import module_file, written

RECORD = Path(__file__).parent / "released.json"
ROOT = Path(__file__).parents[1]


def definitions(module):
    """Name → statements of a module that define it, and name → (module, its name there) of what it imports from oodbench."""
    defined, imported = {}, {}
    for node in ast.walk(ast.parse(module_file(ROOT, module).read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("oodbench."):
            imported |= {
                alias.asname or alias.name: (node.module, alias.name) for alias in node.names
            }
    for node in ast.parse(module_file(ROOT, module).read_bytes()).body:
        for name in names_set(node):
            defined.setdefault(name, []).append(node)
    return defined, imported


def names_set(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    stored = (child for child in ast.walk(node) if isinstance(child, ast.Name))
    return [child.id for child in stored if isinstance(child.ctx, ast.Store)]


def definition_digest(*functions):
    """SHA-256 of functions and of all definitions of oodbench's statistics and models that they reach, without ``register_…``."""
    waiting, found = [(function.__module__, function.__name__) for function in functions], {}
    while waiting:
        module, name = waiting.pop()
        if (module, name) in found or not module.startswith(
            ("oodbench.statistics", "oodbench.models")
        ):
            continue
        defined, imported = definitions(module)
        nodes = [without_registration(node) for node in defined.get(name, [])]
        found[module, name] = [written(node) for node in nodes]
        used = {
            child.id for node in nodes for child in ast.walk(node) if isinstance(child, ast.Name)
        }
        waiting += [(module, other) for other in used & defined.keys()]
        waiting += [imported[other] for other in used & imported.keys()]
    return hashlib.sha256(
        json.dumps(sorted(map(list, found.items())), default=list).encode()
    ).hexdigest()


def without_registration(node):
    """A definition without the decorator that holds its version and units."""
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = [
            one for one in node.decorator_list if not ast.unparse(one).startswith("register_")
        ]
    return node


def statistics_now():
    passes = {entry.name: entry for entry in statistics.values() if not entry.digest}
    return {
        name: (entry.version, definition_digest(*filter(None, (entry.compute, entry.prepare))))
        for name, entry in passes.items()
    }


KINDS = {
    "statistics": statistics_now,
    "families": released_families,
    "samplers": released_samplers,
    "scoring": lambda: {"folded form": released_scoring()},
}


def fault(record, kind, name, version, digest):
    """What is wrong with a piece of code, in a sentence; empty where the record has it."""
    released = record.get(kind, {}).get(name, {})
    if released.get(version) == digest:
        return ""
    line = f'"{version}": "{digest}"'
    if version in released:
        return (
            f"the code of {name} changed under the version {version!r}, so columns of the old code would be served as its own: "
            f"give it a new version and add, beside the old ones under {kind}.{name} in {RECORD.name}, the line "
            f'"<new version>": "{digest}"'
        )
    return f"{name} has a new version: add the line {line} under {kind}.{name} in {RECORD.name}"


@pytest.mark.parametrize("kind", KINDS)
def test_code_changes_only_with_its_version(kind):
    record = json.loads(RECORD.read_text("utf-8"))
    found = [fault(record, kind, name, *now) for name, now in KINDS[kind]().items()]
    assert [sentence for sentence in found if sentence] == []


def test_a_changed_digest_asks_for_a_version_and_a_new_version_for_a_line():
    record = {"statistics": {"density": {"3": "aa"}}}
    assert fault(record, "statistics", "density", "3", "aa") == ""
    assert "changed under the version '3'" in fault(record, "statistics", "density", "3", "bb")
    assert '"<new version>": "bb"' in fault(record, "statistics", "density", "3", "bb")
    assert 'add the line "4": "bb"' in fault(record, "statistics", "density", "4", "bb")
    assert "add the line" in fault(record, "statistics", "other", "1", "cc")


def test_the_record_reaches_helpers_constants_and_models():
    from oodbench.statistics.diffusion import reconstructions
    from oodbench.statistics.regret import regret

    def names(function):
        defined, imported = definitions(function.__module__)
        used = {
            node.id
            for node in ast.walk(defined[function.__name__][0])
            if isinstance(node, ast.Name)
        }
        return (used & defined.keys()) | (used & imported.keys())

    assert {"STARTS", "_times", "_ddim_step", "keyed_normal"} <= names(reconstructions)
    assert {"STEPS", "DRAWS", "log_mean_exp"} <= names(regret)
    assert inspect.isfunction(regret)
