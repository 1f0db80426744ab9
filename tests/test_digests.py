"""Laws of digests: what can change a number changes the digest; what cannot, and another process, does not."""

from __future__ import annotations

import copy
import enum
import functools
import math
import os
import subprocess
import sys
import threading
import types
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from oodbench.digests import code_digest, source_file, value_digest
from oodbench.errors import UnhashableError
from oodbench.paths import PACKAGE
from oodbench.syntax import source_files


@dataclass
class Settings:
    levels: int = 256
    centre: float = 0.0


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Holds:
    """A plain class around anything."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Colour(enum.Enum):
    RED, BLUE = 1, 2


def adds(k):
    return lambda x: x + k


def network(change=None, hook=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net.register_buffer("unsaved", torch.zeros(2), persistent=False)
    if change:
        change(net)
    if hook:
        net.register_forward_hook(hook)
    return Holds(shape=(1, 28, 28), net=net)


def linear(order):
    return nn.Sequential(
        OrderedDict((name, nn.Linear(2, 2, bias=False).requires_grad_(False)) for name in order)
    )


def circle(k):
    holder = Holds(k=k)
    holder.self, holder.list = holder, [k]
    holder.list.append(holder.list)
    return holder


PAIRS = {
    "none and false": (None, False),
    "integer and float": (1, 1.0),
    "true and one": (True, 1),
    "signs of zero": (0.0, -0.0),
    "the last bit": (0.1 + 0.2, 0.3),
    "complex": (1j, 2j),
    "text": ("a", "b"),
    "text and bytes": ("a", b"a"),
    "lists of text": (["ab", "c"], ["a", "bc"]),
    "order of a list": ([1, 2], [2, 1]),
    "nesting": ([[1], 2], [[1, 2]]),
    "list and tuple": ([1], (1,)),
    "a deep element": ({"a": [{"b": (1, [2])}]}, {"a": [{"b": (1, [3])}]}),
    "keys": ({"a": 1}, {"b": 1}),
    "keys and values exchanged": ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    "sets": ({"a", "b"}, {"a", "c"}),
    "order of an OrderedDict": (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    "default of a dict": (defaultdict(int), defaultdict(list)),
    "enum": (Colour.RED, Colour.BLUE),
    "path": (Path("a"), Path("b")),
    "array": (np.arange(3), np.array([0, 1, 3])),
    "dtype of an array": (np.arange(3), np.arange(3.0)),
    "shape of an array": (np.zeros((2, 3)), np.zeros((3, 2))),
    "array of objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "array scalar": (np.float32(1), np.float64(1)),
    "state of a generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "state of an old generator": (np.random.RandomState(0), np.random.RandomState(1)),
    "tensor": (torch.zeros(2), torch.tensor([0.0, 1])),
    "dtype of a tensor": (torch.zeros(2), torch.zeros(2).bfloat16()),
    "bfloat16": (torch.ones(2).bfloat16(), torch.tensor([1, 1.01]).bfloat16()),
    "empty tensors": (torch.zeros(0, 2), torch.zeros(2, 0)),
    "scalar tensor": (torch.tensor(1.0), torch.tensor(2.0)),
    "torch's dtype": (torch.float32, torch.float64),
    "torch's generator": (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    "a weight": (network(), network(lambda net: net[0].weight.data[0, 0].add_(1e-6))),
    "a buffer": (network(), network(lambda net: net[1].running_mean.add_(1))),
    "a buffer that no state dict has": (network(), network(lambda net: net.unsaved.add_(1))),
    "mode": (network(), network(lambda net: net.eval())),
    "a number in a module": (network(), network(lambda net: setattr(net[1], "eps", 1e-3))),
    "a hook": (network(), network(hook=lambda module, given, out: out * 2)),
    "two hooks": (
        network(hook=lambda module, given, out: out * 2),
        network(hook=lambda module, given, out: out * 3),
    ),
    "order of layers": (linear("ab"), linear("ba")),
    "activation": (nn.ReLU(), nn.GELU()),
    "dataclass": (Settings(), Settings(255)),
    "slots": (Slotted(1), Slotted(2)),
    "attribute": (Holds(a=1), Holds(a=2)),
    "name of an attribute": (Holds(a=1), Holds(b=1)),
    "circle": (circle(1), circle(2)),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "operator": (lambda x: x + 1, lambda x: x - 1),
    "function read": (lambda x: math.sin(x), lambda x: math.cos(x)),
    "closure": (adds(1), adds(2)),
    "default": (lambda x, k=1: x + k, lambda x, k=2: x + k),
    "partial": (functools.partial(adds, 1), functools.partial(adds, 2)),
    "cached": (functools.lru_cache(adds(1)), functools.lru_cache(adds(2))),
    "bound method": (Holds(a=1).__init__, Holds(a=2).__init__),
    "built-in method": ([1].append, [2].append),
    "library's function": (np.sin, np.cos),
    "library's class": (nn.Linear, nn.Conv2d),
    "pickled only": (range(3), range(4)),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_another_value_has_another_digest(one, other):
    assert value_digest(Holds(x=one)) != value_digest(Holds(x=other))
    assert value_digest(one) != value_digest(other)


SAME = {
    "nan": (float("nan"), -float("nan")),
    "order of keys": ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    "order of attributes": (Holds(a=1, b=2), Holds(b=2, a=1)),
    "layout in memory": (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()),
    "gradient": (torch.ones(2), torch.ones(2, requires_grad=True)),
    "parameter": (torch.ones(2), nn.Parameter(torch.ones(2))),
    "view": (torch.arange(6).reshape(2, 3).T, torch.arange(6).reshape(2, 3).T.contiguous()),
    "networks made alike": (network(), network()),
    "copies": (network(), copy.deepcopy(network())),
    "device": (torch.device("cpu"), torch.device("cuda")),
    "locks": (threading.Lock(), threading.Lock()),
    "sentinels": (object(), object()),
    "closures made alike": (adds(1), adds(1)),
    "circles made alike": (circle(1), circle(1)),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_what_changes_no_number_changes_no_digest(one, other):
    assert value_digest(one) == value_digest(other)


def test_hooks_do_not_count_the_hooks_of_the_process():
    def twice(module, given, out):
        return out * 2

    first = value_digest(network(hook=twice))
    nn.ReLU().register_forward_hook(twice)
    assert value_digest(network(hook=twice)) == first


UNHASHABLE = {
    "file": open(os.devnull),  # noqa: SIM115
    "generator": (x for x in ()),
    "meta": torch.zeros(1, device="meta"),
}


@pytest.mark.parametrize("thing", UNHASHABLE.values(), ids=UNHASHABLE.keys())
def test_what_cannot_be_hashed_is_named(thing):
    with pytest.raises(UnhashableError, match=r"`\.net\.tokenizer`.*identity\(\)"):
        value_digest(Holds(net=Holds(tokenizer=thing)))


NOTEBOOK = """
import numpy as np
SCALE = {scale}
def helper(x):
    return x * SCALE
def decorated(k):
    def wrap(function):
        function.k = k
        return function
    return wrap
class Model:
    shape = (1, 2, 2)
    power = {power}
    names = {{"a", "b", "c", "d"}}
    def __init__(self):
        {doc}
        self.mean = np.array([0.5, {mean}])  # {comment}
        self.rule = lambda x: x + {shift}
    @decorated({argument})
    def log_prob(self, x):
        return helper(self.rule(x)) ** self.power - self.mean.sum()
"""
PLAIN = {
    "scale": "1", "power": "1", "doc": "pass", "mean": "0.1", "comment": "a", "shift": "0", "argument": "1"
}  # fmt: skip


def typed(**changes):
    """A model whose class was typed in a notebook."""
    module = types.ModuleType("__main__")
    exec(compile(NOTEBOOK.format(**PLAIN | changes), "<cell>", "exec"), vars(module))
    return module.Model()


@pytest.mark.parametrize("change", ["scale", "power", "mean", "shift", "argument"])
def test_a_class_typed_in_a_notebook_is_its_code(change):
    assert value_digest(typed(**{change: "7"})) != value_digest(typed())


def test_comments_docstrings_and_lines_of_a_notebook_do_not_count():
    assert value_digest(typed(comment="b\n\n\n")) == value_digest(typed())
    assert value_digest(typed(doc="'''Words.'''")) == value_digest(typed(doc="'''Other words.'''"))


MODULE = '''"""{doc}"""
import helper
K = {k}

def score(x):
    """{doc}"""
    from late import L  # {comment}
    return helper.H * x + K + L
'''


def files(folder, doc="d", k="1", comment="c", helper="H = 1\n", late="L = 1\n", other=""):
    contents = {
        "mine": MODULE.format(doc=doc, k=k, comment=comment),
        "helper": helper,
        "late": late,
        "other": other,
    }
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.py").write_text(content)
    return code_digest(folder / "mine.py", within=folder)


@pytest.mark.parametrize(
    "change",
    [{"k": "2"}, {"helper": "H = 2\n"}, {"late": "L = 2\n"}, {"helper": "broken ("}],
    ids=str,
)
def test_code_changes_with_itself_and_with_what_it_imports(tmp_path, change):
    assert files(tmp_path, **change) != files(tmp_path)


def test_two_neighbours_that_exchange_their_content_are_a_change(tmp_path):
    one, other = "H = 1\nL = 2\n", "H = 2\nL = 1\n"
    assert files(tmp_path, helper=one, late=other) != files(tmp_path, helper=other, late=one)


@pytest.mark.parametrize(
    "change",
    [{"doc": "e"}, {"comment": "e"}, {"helper": "\n\n'''x'''\nH = (1)\n"}, {"other": "1"}],
    ids=str,
)
def test_code_does_not_change_with_words_lines_or_files_that_it_does_not_import(tmp_path, change):
    assert files(tmp_path / "a", **change) == files(tmp_path / "b")


def test_a_plugin_in_a_home_directory_reads_only_what_it_imports(tmp_path):
    files(tmp_path)
    found = source_files(tmp_path / "mine.py", within=tmp_path)
    assert {file.name for file in found} == {"mine.py", "helper.py", "late.py"}


def test_packages_count_with_their_init_and_relative_imports(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    contents = {
        "__init__": "I = 1",
        "deep": "from .next import N\nimport pkg.third",
        "next": "N = 1",
        "third": "",
        "free": "",
    }
    for name, content in contents.items():
        (package / f"{name}.py").write_text(content)
    (tmp_path / "mine.py").write_text("from pkg import deep\n")
    found = source_files(tmp_path / "mine.py", within=tmp_path)
    assert {file.stem for file in found} == {"mine", "__init__", "deep", "next", "third"}


def test_built_in_code_is_read_without_importing_it():
    program = (
        "import sys\nfrom oodbench.digests import code_digest\n"
        "print(code_digest('oodbench.models.glow', within='oodbench.models'), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        code_digest("oodbench.models.glow", within="oodbench.models"),
        "False",
    ]
    glow = source_files("oodbench.models.glow", within="oodbench.models")
    assert PACKAGE / "models" / "noise.py" in glow
    assert {file.parent for file in glow} == {PACKAGE / "models"}


def test_the_file_of_a_class_and_of_what_has_none():
    assert (
        source_file(Holds)
        == source_file(adds)
        == source_file(functools.partial(adds, 1))
        == Path(__file__).resolve()
    )
    assert source_file(typed().log_prob) is None


PROGRAM = """
import sys; sys.path.insert(0, {folder!r})
import test_digests as t
from oodbench.digests import value_digest
for pair in [*t.PAIRS.values(), *t.SAME.values()]:
    for value in pair:
        print(value_digest(value))
print(value_digest(t.typed()))
"""


def test_another_process_finds_the_same_digests():
    program = PROGRAM.format(folder=str(Path(__file__).parent))
    printed = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert len(printed[0]) == 2 * (len(PAIRS) + len(SAME)) + 1
    assert printed[0] == printed[1]


def nflows_flow(nflows):
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import MaskedAffineAutoregressiveTransform

    return Flow(MaskedAffineAutoregressiveTransform(3, 4), StandardNormal([3]))


def normflows_flow(normflows):
    base = normflows.distributions.DiagGaussian(3)
    return normflows.NormalizingFlow(base, [normflows.flows.LULinearPermute(3)])


def pythae_vae(pythae):
    from pythae.models import VAE, VAEConfig

    return VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2))


def diffusers_unet(diffusers):
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return diffusers.UNet2DModel(8, 1, 1, block_out_channels=(32,), **blocks)


LIBRARIES = {
    "zuko": lambda zuko: zuko.flows.MAF(3, transforms=1),
    "nflows": nflows_flow,
    "normflows": normflows_flow,
    "pythae": pythae_vae,
    "diffusers": diffusers_unet,
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_of_other_libraries_can_be_hashed(library):
    module = pytest.importorskip(library)
    one, other = (LIBRARIES[library](module) for _ in range(2))
    assert value_digest(one) == value_digest(copy.deepcopy(one)) != value_digest(other)
