"""What an accelerator needs, tried on the CPU: noise drawn ahead, batches that fit, a float64 to sum in."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.commands.options import check_device
from oodbench.errors import ModelError, OodbenchError
from oodbench.models.noise import Noise, drawn_ahead, keyed_normal, keyed_uniform
from oodbench.passes import batches
from oodbench.passes.batches import batch_size_of, loaded, run_pass
from oodbench.registry import statistics


def random_images(n=10, shape=(1, 4, 4)):
    images = np.random.default_rng(0).integers(0, 256, (n, *shape))
    return images.astype(np.uint8)


def bits_of(image, seed, n):
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(seed).encode()).digest()
    stream = np.random.Philox(key=int.from_bytes(digest, "little"))
    return stream.random_raw(-(-n // 2)).view(np.uint32)[:n]


def test_the_noise_of_an_image_is_that_of_a_philox_stream_of_its_own():
    images = random_images(3, (3, 5, 7))
    found = keyed_uniform(torch.from_numpy(images), 4)
    expected = [(bits_of(image, 4, 105) >> 8) / 2**24 for image in images]
    assert found.dtype == torch.float32
    assert np.array_equal(found.reshape(3, -1).numpy(), np.array(expected, np.float32))


def test_vmap_goes_over_images_that_need_noise():
    images = torch.from_numpy(random_images(4))
    for noise in (
        lambda some: keyed_uniform(some, 1),
        lambda some: keyed_normal(some, 1, (2, 3)),
    ):
        together = torch.vmap(lambda image, noise=noise: noise(image[None])[0])(images)
        assert torch.equal(together, noise(images))


def test_noise_is_drawn_ahead_and_is_the_model_s_own(monkeypatch):
    of, drawn = Noise.of, []

    def counted(noise, images):
        drawn.append((noise.seed, len(images)))
        return of(noise, images)

    images = random_images(10)
    expected = keyed_uniform(torch.from_numpy(images), 7)
    monkeypatch.setattr(Noise, "of", counted)
    found = []
    for number, batch in enumerate(loaded(images, 3, "cpu", ahead=True)):
        with drawn_ahead(batch):
            before = len(drawn)
            found.append(keyed_uniform(batch.images, 7))
            # the second batch may have been loaded before the first one asked
            assert number < 2 or len(drawn) - before <= 1
            if number >= 2:
                assert set(batch.drawn) == batch.asked
    assert torch.equal(torch.cat(found), expected)
    other = torch.from_numpy(random_images(2))
    with drawn_ahead(batch):
        assert torch.equal(keyed_uniform(other, 7), keyed_uniform(other.clone(), 7))


class Greedy(torch.nn.Module):
    """A model that the memory holds few images of."""

    shape = (1, 4, 4)

    def __init__(self, holds):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.holds, self.seen = holds, []

    def log_prob(self, images):
        self.seen.append(len(images))
        if len(images) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return -(self.weight * images).double().flatten(1).sum(1)


@pytest.fixture
def as_if_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(batches, "_device", lambda model: torch.device("meta"))
    monkeypatch.setattr(
        batches, "loaded", lambda images, size, device, ahead: loaded(images, size, "cpu", ahead)
    )


@pytest.mark.usefixtures("as_if_on_an_accelerator")
def test_a_batch_that_does_not_fit_is_halved_and_scores_stay():
    images, model = random_images(10), Greedy(3)
    model.batch_size = 1
    assert batch_size_of(model) == 16
    found = run_pass(statistics["log_prob"], model, images)["log_prob"]
    assert np.array_equal(found, -images.astype(float).sum((1, 2, 3)))
    assert model.seen == [10, 8, 4, 2, 2, 2, 2, 2]
    assert batch_size_of(model) == 2
    with pytest.raises(ModelError, match="Greedy needs more memory for one image"):
        run_pass(statistics["log_prob"], Greedy(0), images)


def test_batches_on_the_cpu_are_the_model_s():
    assert batch_size_of(ob.load_model("glow-fashionmnist")) == batches.BATCH


def test_a_device_without_float64_is_refused(monkeypatch):
    class OnMetal:
        def sum(self, dtype):
            raise TypeError(f"Cannot convert a MPS Tensor to {dtype}")

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: OnMetal())
    with pytest.raises(OodbenchError, match=r"'mps' has no float64.*use --device cpu"):
        check_device("mps")


@pytest.fixture
def cuda_script():
    path = Path(__file__).parents[1] / "benchmarks" / "cuda.py"
    spec = importlib.util.spec_from_file_location("cuda_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_for_a_gpu_says_that_there_is_none(cuda_script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda_script.main([])
    assert capsys.readouterr().out.count(".") == 1


def test_the_script_for_a_gpu_walks_its_code_on_a_cpu(cuda_script, monkeypatch, capsys):
    monkeypatch.setattr(cuda_script, "MODELS", ("glow-cifar10",))
    cuda_script.main(["--device", "cpu", "--images", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1::4]] == ["TF32", "float32"]
    of_speed, of_values, of_paper = lines[2:5]
    rate, share = re.search(r"([\d,]+) images/s +([\d.]+)% of peak", of_speed).groups()
    assert int(rate.replace(",", "")) >= 1
    assert 0 < float(share) < 150
    assert "log p at most 0.0e+00 apart" in of_values
    assert of_paper.startswith("paper-size Glow")
