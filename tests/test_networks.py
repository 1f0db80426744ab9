"""Networks as density models: against densities that are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import oodbench as ob
from oodbench.digests import value_digest
from oodbench.errors import ModelError
from oodbench.model_tests import check_model
from oodbench.models.noise import keyed_normal
from oodbench.models.probability_flow import (
    evenly,
    integrated_log_density,
    noise_angles,
    spread,
    velocity_and_trace,
)
from oodbench.plan import make_plan
from oodbench.registry import register_model
from oodbench.suite import Suite
from oodbench.trials.rows import trial_tasks

SHAPE = (1, 4, 4)


@pytest.fixture
def images():
    return torch.from_numpy(
        ob.load_images("fashionmnist/test[:6]@resize4-bilinear-aa").images.copy()
    )


class GaussianVelocity(nn.Module):
    """The exact velocity of rectified flow onto ``N(µ, s²)`` at ``t = 1``, from noise at ``t = 0``.

    ``x_t = (1 − t)·ε + t·x`` is ``N(tµ, (1 − t)² + t²s²)``, and ``v = E[x − ε | x_t]``.
    """

    def __init__(self, mean=0.2, std=0.5):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.std = std

    def forward(self, x, t):
        t = t.reshape(-1, 1, 1, 1)
        variance = (1 - t) ** 2 + (t * self.std) ** 2
        slope = (t * self.std**2 - (1 - t)) / variance
        return self.mean + slope * (x - t * self.mean)


class GaussianNoise(nn.Module):
    """The exact ``E[ε | x_t]`` of a diffusion of ``N(µ, s²)``."""

    def __init__(self, kept, mean=0.2, std=0.5):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.std, self.kept = std, kept

    def forward(self, x, t):
        assert t.dtype == torch.int64
        kept = self.kept[t].reshape(-1, 1, 1, 1)
        variance = kept * self.std**2 + 1 - kept
        return (1 - kept).sqrt() * (x - kept.sqrt() * self.mean) / variance


def ddpm(times=1000):
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, times, dtype=torch.float64), 0)


def scaled(images, low=-1.0, high=1.0, seed=0, probes=0):
    drawn = keyed_normal(images, seed, (1 + probes, *images.shape[1:]))[:, 0]
    return low + (high - low) * (images.double() + torch.special.ndtr(drawn)) / 256


def gaussian(y, mean, std):
    return torch.distributions.Normal(mean, std).log_prob(y).flatten(1).sum(1)


@pytest.mark.parametrize("solver", ["heun", "rk4"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_velocity_of_a_gaussian_gives_its_density(images, solver, turned):
    net, times = GaussianVelocity(), {}
    if turned:  # t counts towards the noise, and the velocity with it
        forward = net.forward
        net.forward = lambda x, t: -forward(x, 1 - t)
        times = {"noise_time": 1.0, "data_time": 0.0}
    model = ob.from_velocity(net, SHAPE, solver=solver, steps=100, probes=None, **times)
    expected = gaussian(scaled(images), 0.2, 0.5) + 16 * math.log(2 / 256)
    bits = ob.bits_per_dim((model.log_prob(images) - expected).detach().numpy(), SHAPE)
    assert np.abs(bits).max() < (1e-3 if solver == "heun" else 1e-6)
    assert model.likelihood == (
        f"uniform dequantisation, one draw; ODE in 100 steps of {solver}, exact trace"
    )


def test_solvers_have_their_order(images):
    expected = gaussian(scaled(images), 0.2, 0.5) + 16 * math.log(2 / 256)

    def error(solver, steps):
        model = ob.from_velocity(GaussianVelocity(), SHAPE, solver=solver, steps=steps, probes=None)
        return (model.log_prob(images) - expected).abs().max().item()

    assert error("heun", 20) / error("heun", 40) == pytest.approx(4, rel=0.15)
    assert error("rk4", 20) / error("rk4", 40) == pytest.approx(16, rel=0.25)


def test_a_noise_predictor_of_a_gaussian_gives_its_density_at_the_least_noise(images):
    kept = ddpm()
    expected = 16 * math.log(2 / 256) + gaussian(
        scaled(images), 0.2 * kept[0].sqrt(), (kept[0] * 0.25 + 1 - kept[0]).sqrt()
    )
    model = ob.from_noise_predictor(GaussianNoise(kept), kept, SHAPE, steps=200, probes=None)
    bits = ob.bits_per_dim((model.log_prob(images) - expected).detach().numpy(), SHAPE)
    assert np.abs(bits).max() < 5e-3
    assert model.solver_steps == 200
    betas = torch.cat([1 - kept[:1], 1 - kept[1:] / kept[:-1]])
    spent = kept.clone()
    spent[-1] = 0  # a zero terminal signal-to-noise ratio
    assert torch.isfinite(
        ob.from_noise_predictor(GaussianNoise(kept), spent, SHAPE).log_prob(images)
    ).all()
    for schedule, said in [
        (betas, r"are these betas\? Give torch\.cumprod"), (kept[:200], "of the signal is left"),
        (kept.flip(0), "must fall from below 1"), (3, "a vector"), ("linear", "not a str"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=said):
            ob.from_noise_predictor(GaussianNoise(kept), schedule, SHAPE)


def test_steps_stop_at_training_times_of_about_equal_change():
    log_ratio = torch.log(torch.tan(noise_angles(ddpm())))
    stops = spread(log_ratio, 50)
    assert (stops[0], stops[-1], len(stops)) == (0, 999, 51)
    assert (np.diff(stops) > 0).all()
    changes = log_ratio[stops].diff()
    assert changes[10:].max() < 3 * changes[10:].median()
    assert spread(log_ratio, 5000) == list(range(1000))


class Mixing(nn.Module):
    """A velocity with a Jacobian that is no diagonal: a random linear map of all pixels and a bend."""

    def __init__(self, dims):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dims, dims, dtype=torch.float64) / dims)

    def forward(self, x, t):
        flat = x.flatten(1)
        return torch.sin(flat @ self.weight.T + t[:, None]).reshape(x.shape)


def test_traces_are_those_of_the_jacobian():
    torch.manual_seed(0)
    net = Mixing(9)
    x = torch.randn(4, 1, 3, 3, dtype=torch.float64)

    def field(x, t):
        return net(x, torch.full((len(x),), t, dtype=x.dtype))

    expected = [
        torch.autograd.functional.jacobian(lambda y: field(y, 0.3), one).reshape(9, 9).trace()
        for one in x.split(1)
    ]
    with torch.no_grad():
        _, exact = velocity_and_trace(field, x, 0.3, None)
        signs = torch.where(torch.rand(4, 4000, 1, 3, 3) < 0.5, -1.0, 1.0).double()
        _, estimate = velocity_and_trace(field, x, 0.3, signs)
    assert torch.allclose(exact, torch.stack(expected), rtol=1e-10)
    assert torch.allclose(estimate, exact, atol=0.1)
    assert not torch.allclose(estimate, exact, atol=1e-6)


def test_density_and_change_of_variables_agree():
    """log p of the solution equals that of the map which the solver itself is, with its Jacobian by autograd."""
    torch.manual_seed(1)
    net = Mixing(4)
    y = torch.randn(1, 1, 2, 2, dtype=torch.float64)

    def field(x, t):
        return net(x, x.new_full((len(x),), t))

    found = integrated_log_density(field, y, evenly(1.0, 0.0, 100), "rk4", None)

    def carried(flat):
        x = flat.reshape(y.shape)
        for t in evenly(1.0, 0.0, 100)[:-1]:
            h = -1 / 100
            k1 = field(x, t)
            x = x + h * field(x + h / 2 * k1, t + h / 2)
        return x.flatten()

    jacobian = torch.autograd.functional.jacobian(carried, y.flatten())
    z = carried(y.flatten())
    expected = -0.5 * (z**2).sum() - 2 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_probes_and_noise_are_keyed_by_the_image(images):
    model = ob.from_velocity(Mixing(16), SHAPE, steps=4, probes=2)
    whole = model.log_prob(images)
    assert torch.equal(model.log_prob(images.flip(0)).flip(0), whole)
    assert torch.allclose(model.log_prob(images[:1]), whole[:1], rtol=1e-12)
    torch.manual_seed(5)
    made = [ob.from_velocity(Mixing(16), SHAPE, steps=4, probes=2, seed=seed) for seed in (0, 1)]
    made[1].network.load_state_dict(made[0].network.state_dict())
    assert not torch.allclose(made[0].log_prob(images), made[1].log_prob(images), rtol=1e-6)
    changes = [{}, {"steps": 5}, {"probes": 1}, {"low": 0.0}, {"solver": "rk4"}, {"data_time": 0.9}]
    net = made[0].network
    settings = [{"steps": 4, "probes": 2} | change for change in changes]
    digests = {value_digest(ob.from_velocity(net, SHAPE, **setting)) for setting in settings}
    assert len(digests) == len(changes)


def test_a_continuous_density_has_its_constant_for_every_range(images):
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        mean, std = low + 0.4 * (high - low), 0.3 * (high - low)

        def density(y, mean=mean, std=std):
            return gaussian(y, mean, std)

        found = ob.from_continuous(density, SHAPE, low, high).log_prob(images)
        one = ob.from_continuous(lambda y: gaussian(y, 0.4, 0.3), SHAPE, 0, 1).log_prob(images)
        assert torch.allclose(found, one, rtol=1e-5)  # the units of y do not matter
    flat = ob.from_continuous(
        lambda y: gaussian(y.reshape(-1, *SHAPE), 0.4, 0.3), SHAPE, 0, 1, flat=True
    )
    assert torch.equal(flat.log_prob(images), one)


def test_what_cannot_be_a_density_is_named(images):
    with pytest.raises(ModelError, match=r"low < high, not to \[1, 1\]"):
        ob.from_continuous(lambda y: y, SHAPE, 1, 1)
    with pytest.raises(ModelError, match="must be a function of scaled pixels"):
        ob.from_continuous(3, SHAPE, 0, 1)
    with pytest.raises(ModelError, match="gives a float"):
        ob.from_continuous(lambda y: 1.0, SHAPE, 0, 1).log_prob(images)
    net = GaussianVelocity()
    for change, said in [
        ({"solver": "euler"}, "no solver is called 'euler'"), ({"steps": 0}, "at least 1"), ({"probes": 0.5}, "at least 1"),
        ({"data_time": 0.0}, "two different times"), ({"low": 2.0}, "low < high"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=said):
            ob.from_velocity(net, SHAPE, **change)
    with pytest.raises(ModelError, match=r"gives \(6, 16\) for images"):
        ob.from_velocity(lambda x, t: x.flatten(1), SHAPE).log_prob(images)
    with torch.no_grad(), pytest.raises(ModelError, match=r"under torch\.no_grad"):
        ob.from_velocity(torch.no_grad()(lambda x, t: 2 * x), SHAPE).log_prob(images)


class Stiff(GaussianVelocity):
    """A velocity that turns quickly, for which few steps are too few."""

    def forward(self, x, t):
        return super().forward(x, t) + torch.sin(40 * x) * 2


def said_of(caplog, net, steps):
    caplog.clear()
    model = ob.from_velocity(net, SHAPE, trained_on="fashionmnist", steps=steps)
    faults = [one for one in check_model(model) if "uniform noise" not in one]
    return faults, caplog.text


def test_check_halves_the_steps_and_prints_the_largest_move(caplog):
    faults, told = said_of(caplog, GaussianVelocity(), 32)
    assert faults == []
    assert "halving the 32 steps of its ODE moves log p by up to" in told
    faults, told = said_of(caplog, Stiff(), 8)
    (fault,) = [one for one in faults if "halving the 8 steps" in one]
    assert "too few steps flatter a model" in fault
    assert told == ""


def test_a_row_tells_the_solver():
    @register_model("velocity-told")
    def make():
        return ob.from_velocity(
            GaussianVelocity(), (1, 28, 28), trained_on="fashionmnist", steps=2, probes=1
        )

    suite = Suite(
        name="velocity", title="t", models=["velocity-told"], limit=4, bootstrap=0, scorers=["likelihood"],
        pairs=[{"in_dist": "fashionmnist", "ood": ["mnist"]}],
    )  # fmt: skip
    (task,) = trial_tasks(make_plan(suite))
    told = (task.head["solver"], task.head["solver_steps"], task.head["trace_probes"])
    assert told == ("heun", 2, 1)
    assert "ODE in 2 steps of heun, trace of 1 probe" in task.head["likelihood"]
    images = ob.load_images("fashionmnist/test[:2]")
    found = ob.measure(ob.load_model("velocity-told"), images, "log_prob")["log_prob"]
    assert np.isfinite(found).all()
