"""Averages, references and Adam by hand and against torch."""

import pytest
import torch

from polyrank.balancing.streams import Adam, Average, Reference, zeros

ALL, SECOND = torch.tensor([0, 1]), torch.tensor([1])


def test_an_average_of_a_constant_is_the_constant():
    average = Average({}, "loss", 2, half_life=10.0)
    for _ in range(4):
        assert average.add(torch.tensor([3.0, 5.0]).double(), ALL).tolist() == pytest.approx([3.0, 5.0])


def test_an_average_forgets_half_in_its_half_life():
    memory = {}
    average = Average(memory, "loss", 2, half_life=2.0)
    average.add(torch.tensor([0.0, 1.0]).double(), ALL)
    average.add(torch.tensor([1.0]).double(), SECOND)
    found = average.add(torch.tensor([4.0]).double(), SECOND)
    beta = 0.5**0.5
    assert found.item() == pytest.approx((4 + beta + beta**2) / (1 + beta + beta**2))
    assert memory["loss_steps"].tolist() == [1.0, 3.0]


def test_half_life_zero_is_the_last_value():
    average = Average({}, "loss", 2, half_life=0.0)
    for value in (1.0, 7.0):
        assert average.add(torch.tensor([value, value]).double(), ALL).tolist() == [value, value]


def test_a_reference_is_the_mean_of_the_first_steps():
    reference = Reference({}, "start", 2, steps=2, skipped=1)
    found = [reference.add(torch.tensor([value, value]).double(), ALL).tolist()[0] for value in (9.0, 1.0, 3.0, 100.0)]
    assert found == [9.0, 1.0, 2.0, 2.0]
    assert reference.settled(ALL).tolist() == [True, True]


def test_each_tasks_reference_is_of_its_own_steps():
    reference = Reference({}, "start", 2, steps=2)
    reference.add(torch.tensor([1.0, 10.0]).double(), ALL)
    assert reference.settled(ALL).tolist() == [False, False]
    reference.add(torch.tensor([20.0]).double(), SECOND)
    assert reference.settled(ALL).tolist() == [False, True]
    assert reference.add(torch.tensor([3.0, 99.0]).double(), ALL).tolist() == [2.0, 15.0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_torchs(decay):
    generator = torch.Generator().manual_seed(0)
    memory = {"value": zeros(2)}
    ours = Adam(memory, "value", 0.05, decay)
    theirs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.05, weight_decay=decay)
    for _ in range(20):
        theirs.grad = torch.randn(2, generator=generator, dtype=torch.float64)
        optimizer.step()
        ours.step(theirs.grad, ALL)
        torch.testing.assert_close(memory["value"], theirs.detach(), rtol=0, atol=1e-12)


def test_adam_leaves_absent_tasks_alone():
    memory = {"value": zeros(2)}
    adam = Adam(memory, "value", 0.05)
    adam.step(torch.tensor([1.0, 1.0]).double(), ALL)
    before = {name: value[0].clone() for name, value in memory.items()}
    adam.step(torch.tensor([1.0]).double(), SECOND)
    assert all(torch.equal(value[0], before[name]) for name, value in memory.items())
    assert memory["value_steps"].tolist() == [1.0, 2.0]
