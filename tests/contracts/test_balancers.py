"""What every balancer in the registry promises; a new entry is tested the day it is added."""

import dataclasses

import numpy as np
import pytest
import torch

from polyrank import config
from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint

NAMES = ["click", "like", "watch", "share"]
GRADIENTS = [name for name, entry in BALANCERS.items() if entry.kind.combines]
BY_PLACE = {"rlw", "pcgrad", "gradvac"}  # draws are a task's, or of an order of tasks
every_balancer = pytest.mark.parametrize("method", BALANCERS)


def made(method, tasks=3, **knobs):
    return build_balancer(method, NAMES[:tasks], BALANCERS[method].config(**knobs))


def stream(jacobian_step, tasks, *, seed=0, scales=None, present=None, order=None, kept=None):
    """Endless steps: losses that fall at different speeds, gradients that partly agree, metrics that rise.

    `scales` multiply losses and gradients, `order` permutes the tasks, `kept` leaves only some of them.
    """
    rng = np.random.default_rng(seed)
    scales = np.ones(tasks) if scales is None else np.asarray(scales)
    common = rng.normal(size=8)
    number = 0
    while True:
        number += 1
        losses = (0.5 + np.arange(tasks)) * np.exp(-number / (20.0 + 30 * np.arange(tasks)))
        losses = scales * losses * rng.uniform(0.9, 1.1, tasks)
        jacobian = scales[:, None] * (rng.normal(size=(tasks, 8)) * (1 + np.arange(tasks))[:, None] + common)
        second = scales[:, None] * (rng.normal(size=(tasks, 8)) + common)
        quality = np.minimum(0.5 + 0.01 * number + 0.1 * np.arange(tasks), 0.95)
        here = np.ones(tasks, bool) if present is None else present(number, rng)
        which = list(range(tasks)) if order is None else list(order)
        which = which if kept is None else [t for t in which if t in kept]
        yield jacobian_step(losses[which], jacobian[which], here[which], second[which], quality[which])


def weights_of(balancer, steps, count):
    """The weights of `count` steps, as a loop uses them, second looks included."""
    found = []
    for _, step in zip(range(count), steps, strict=False):
        again = balancer.again
        found.append(balancer.backward(step).clone())
        if again:
            balancer.after(step.losses * (0.9 - 0.1 * torch.tanh(step.losses)), step.present)
    return torch.stack(found)


@every_balancer
def test_pulls_and_pushes_once_and_gives_finite_weights(method, jacobian_step):
    for tasks in (2, 4):
        balancer, steps = made(method, tasks), stream(jacobian_step, tasks)
        for _, step in zip(range(45), steps, strict=False):
            weights = balancer.backward(step)
            assert weights.shape == (tasks,)
            assert weights.dtype == torch.float64
            assert torch.isfinite(weights).all()
            assert step.pushed is not None
            assert torch.isfinite(step.direction).all()
            assert step.direction.any() or method == "graddrop"


@every_balancer
def test_one_task_is_trained_plainly(method, jacobian_step):
    balancer = made(method, 1)
    for _, step in zip(range(30), stream(jacobian_step, 1), strict=False):
        assert balancer.backward(step).tolist() == [1.0]
        assert step.pulled.tolist() == step.pushed.tolist() == [1.0]


@every_balancer
@pytest.mark.parametrize("scales", [[1e-8] * 3, [1e8] * 3, [1e8, 1.0, 1e-8], [1e-8, 1e8, 1e8]])
def test_stays_finite_whatever_the_scale_of_losses(method, scales, jacobian_step):
    balancer, steps = made(method), stream(jacobian_step, 3, scales=scales)
    for _, step in zip(range(45), steps, strict=False):
        assert torch.isfinite(balancer.backward(step)).all()
        assert torch.isfinite(step.direction).all()
    assert all(torch.isfinite(value).all() for value in balancer.memory.values())


@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_common_factor_of_all_losses_changes_no_gradient_methods_weights(method, factor, jacobian_step):
    """No absolute epsilon anywhere: torchjd's would switch methods off for gradients as small as a ranker's."""
    plain = weights_of(made(method), stream(jacobian_step, 3), 20)
    small = weights_of(made(method), stream(jacobian_step, 3, scales=[factor] * 3), 20)
    if method == "db_mtl":  # its losses are logarithms: weights of the losses themselves are divided by them
        small = small * (plain.sum(dim=1, keepdim=True) / small.sum(dim=1, keepdim=True))
    torch.testing.assert_close(small, plain, rtol=1e-4, atol=1e-6)


@every_balancer
def test_permuting_tasks_permutes_weights(method, jacobian_step):
    """Of two tasks there is one order to look at the others in; random weights are alike on average."""
    order = [1, 0] if method in BY_PLACE else [2, 0, 1]
    knobs, count = {"target": "like"} if method == "metabalance" else {}, len(order)
    permuted = build_balancer(method, [NAMES[t] for t in order], BALANCERS[method].config(**knobs))
    if method == "rlw":
        weights = weights_of(permuted, stream(jacobian_step, count), 1500)
        assert (weights.mean(dim=0) - 1.0).abs().max() < 0.06
        return
    plain = weights_of(made(method, count, **knobs), stream(jacobian_step, count), 60)
    other = weights_of(permuted, stream(jacobian_step, count, order=order), 60)
    torch.testing.assert_close(other, plain[:, order], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["rlw", "famo", "mgda", "pe_ltr", "excess_mtl", "sdmgrad"])
def test_published_weights_of_some_sum_to_one(method, jacobian_step):
    balancer = made(method, 4, scale="paper")
    steps = stream(jacobian_step, 4, present=lambda number, rng: rng.random(4) < 0.7)
    for _, step in zip(range(60), steps, strict=False):
        weights = balancer.backward(step)
        present = step.present.sum().item()
        # one task alone is trained plainly; a combination of none is none
        assert weights.sum().item() == pytest.approx(min(present, 1), abs=1e-6)


@pytest.mark.parametrize(
    "method",
    [n for n, e in BALANCERS.items() if getattr(e.config(), "scale", "") == "tasks" and n != "db_mtl"]
    + ["dwa", "gradnorm", "lbtw"],
)
def test_weights_sum_to_the_number_of_tasks_present(method, jacobian_step):
    balancer = made(method, 4)
    steps = stream(jacobian_step, 4, present=lambda number, rng: rng.random(4) < 0.7)
    for _, step in zip(range(80), steps, strict=False):
        weights = balancer.backward(step)
        if (step.pushed[step.present] > 0).all() or method != "imtl_g":
            assert weights.sum().item() == pytest.approx(step.present.sum().item(), abs=1e-6)


@pytest.mark.parametrize("method", [name for name in BALANCERS if name != "rlw"])
def test_a_task_that_is_never_there_is_as_if_it_did_not_exist(method, jacobian_step):
    """Not for random weights: their draws are shared out over all tasks."""
    never = stream(jacobian_step, 3, present=lambda number, rng: np.array([True, False, True]))
    three = weights_of(made(method), never, 60)
    two = build_balancer(method, [NAMES[0], NAMES[2]], BALANCERS[method].config())
    alone = weights_of(two, stream(jacobian_step, 3, kept=[0, 2]), 60)
    assert not three[:, 1].any()
    torch.testing.assert_close(three[:, [0, 2]], alone, rtol=1e-6, atol=1e-7)


@every_balancer
def test_what_is_remembered_of_an_absent_task_stays_as_it_is(method, jacobian_step):
    balancer = made(method)
    weights_of(balancer, stream(jacobian_step, 3), 45)
    before = {name: value.clone() for name, value in balancer.memory.items()}
    absent = stream(jacobian_step, 3, seed=1, present=lambda number, rng: np.array([True, False, True]))
    weights_of(balancer, absent, 30)
    for name, value in balancer.memory.items():
        if name in ("weights", "solved") and method in GRADIENTS:  # those of the last step, not of the task
            continue
        if value.dim() >= 1:
            assert torch.equal(value[1], before[name][1]), name
        if value.dim() == 2 and value.shape == (3, 3):
            assert torch.equal(value[:, 1], before[name][:, 1]), name


@every_balancer
def test_a_step_without_any_row_changes_nothing(method, jacobian_step):
    balancer = made(method)
    weights_of(balancer, stream(jacobian_step, 3), 30)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    step = next(stream(jacobian_step, 3, present=lambda number, rng: np.zeros(3, bool)))
    assert not balancer.backward(step).any()
    assert not step.direction.any()
    assert all(torch.equal(value, before[name]) for name, value in balancer.state_dict().items())


@every_balancer
def test_random_absences_never_give_nan(method, jacobian_step):
    balancer = made(method, 4)
    steps = stream(jacobian_step, 4, present=lambda number, rng: rng.random(4) < rng.choice([0.1, 0.5, 0.9]))
    for _, step in zip(range(100), steps, strict=False):
        weights = balancer.backward(step)
        assert torch.isfinite(weights).all()
        assert torch.isfinite(step.direction).all()
        assert not weights[~step.present].any()


@every_balancer
@pytest.mark.parametrize(
    "jacobian",
    [
        [[1.0, 0.0], [-1.0, 0.0], [0.5, 1.0]],  # two tasks that cannot both gain
        [[1.0, 2.0], [1.0, 2.0], [2.0, 4.0]],  # all the same
        [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]],  # one without a gradient
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],  # none with one
        [[1e-20, 0.0], [0.0, 1e20], [1.0, 1.0]],
    ],
)
def test_strange_gradients_give_finite_weights(method, jacobian, jacobian_step):
    balancer = made(method)
    for _ in range(30):
        step = jacobian_step([0.5, 1.0, 2.0], jacobian, quality=[0.6, 0.7, 0.8])
        assert torch.isfinite(balancer.backward(step)).all()
        assert torch.isfinite(step.direction).all()


@every_balancer
def test_a_loss_of_zero_is_survived(method, jacobian_step):
    balancer = made(method)
    for _ in range(50):
        step = jacobian_step([0.0, 1.0, 2.0], np.eye(3), quality=[1.0, 0.7, 0.0])
        assert torch.isfinite(balancer.backward(step)).all()


@every_balancer
def test_resumed_equals_uninterrupted(method, jacobian_step, tmp_path):
    def some(number, rng):
        return rng.random(3) < 0.8

    balancer, steps = made(method), stream(jacobian_step, 3, present=some)
    weights_of(balancer, steps, 37)
    save_checkpoint(tmp_path / "last.safetensors", {"balancer": balancer.state_dict()})
    coming = [step for _, step in zip(range(50), steps, strict=False)]
    copies = [jacobian_step(s.losses, s.jacobian, s.present, s.second, s.known_quality) for s in coming]
    going_on = weights_of(balancer, iter(coming), 50)
    resumed = made(method)
    resumed.load_state_dict(load_checkpoint(tmp_path / "last.safetensors")["balancer"])
    assert torch.equal(weights_of(resumed, iter(copies), 50), going_on)


@pytest.mark.parametrize(
    ("method", "knobs"), [("dwa", {"temperature": 0.1}), ("gradnorm", {}), ("dtp", {}), ("lbtw", {}), ("famo", {})]
)
def test_acts_within_the_first_steps(method, knobs, jacobian_step):
    """Peers wait for the end of an epoch or two: in one-epoch training they never act."""
    weights = weights_of(made(method, **knobs), stream(jacobian_step, 3), 80)
    assert (weights[-1] - 1.0).abs().max() > 0.02


@every_balancer
def test_leaves_torchs_generator_alone(method, jacobian_step):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    weights_of(made(method), stream(jacobian_step, 3), 12)
    assert torch.equal(torch.rand(4), expected)


@every_balancer
def test_the_default_config_survives_a_file(method, tmp_path):
    kind = BALANCERS[method].config
    assert config.build(kind, config.to_table(kind()), method) == kind()
    config.write_toml(tmp_path / "config.toml", config.to_table(kind()))
    assert config.build(kind, config.read_toml(tmp_path / "config.toml"), method) == kind()


@every_balancer
def test_every_knob_is_explained(method):
    kind = BALANCERS[method].config
    texts = "\n".join(cls.__doc__ or "" for cls in kind.__mro__)
    assert [field.name for field in dataclasses.fields(kind) if f"{field.name}:" not in texts.replace("`", "")] == []
