import torch

from polyrank.training import sums as module
from polyrank.training.sums import Sums


def weighted(values, weights):
    return values * weights, weights, torch.isfinite(values)


def given(steps):
    torch.manual_seed(0)
    return [(torch.randn(3), torch.rand(3) * 10) for _ in range(steps)]


def one_by_one(steps):
    total = torch.zeros(3, 3, dtype=torch.float64)
    for values, weights in steps:
        total += torch.stack([values * weights, weights, torch.isfinite(values)])
    return total


def test_they_are_those_of_adding_up_step_by_step_to_the_last_bit():
    steps = given(2 * module._MANY + 5)
    sums = Sums(weighted, 3, 3)
    for step in steps:
        sums.add(*step)
    assert torch.equal(sums.total(), one_by_one(steps))
    assert torch.equal(sums[1], sums.total()[1])


def test_being_looked_at_changes_nothing():
    steps = given(20)
    looked_at, other = Sums(weighted, 3, 3), Sums(weighted, 3, 3)
    for step in steps:
        looked_at.add(*step)
        looked_at.total()
        other.add(*step)
    assert torch.equal(looked_at.total(), other.total())


def test_what_waits_does_not_pile_up():
    sums = Sums(weighted, 3, 3)
    for step in given(1000):
        sums.add(*step)
        assert len(sums._waiting) < module._MANY


def test_they_begin_anew_and_go_on_from_where_others_stood():
    first, rest = given(30)[:10], given(30)[10:]
    sums, resumed = Sums(weighted, 3, 3), Sums(weighted, 3, 3)
    for step in first:
        sums.add(*step)
        resumed.add(*step)
    resumed.clear()
    assert torch.equal(resumed.total(), torch.zeros(3, 3, dtype=torch.float64))
    resumed.add(*first[0])  # waits, and is overwritten
    resumed.load(sums.total())
    for step in rest:
        sums.add(*step)
        resumed.add(*step)
    assert torch.equal(resumed.total(), sums.total())
    assert torch.equal(sums.total(), one_by_one(first + rest))


def test_what_is_not_finite_shows():
    sums = Sums(weighted, 3, 3)
    sums.add(torch.tensor([1.0, float("inf"), float("nan")]), torch.ones(3))
    assert sums[0].isfinite().tolist() == [True, False, False]
    assert sums[2].tolist() == [1.0, 0.0, 0.0]
