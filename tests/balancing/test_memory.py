"""What is saved is loaded, generators included; torch's own generator can be lent and given back."""

import pytest
import torch

from polyrank.balancing.memory import Memory, by_task, instead_of_torchs


def test_state_round_trip_with_a_generator():
    one = Memory(["a", "b"], seed=3, values=torch.tensor([1.0, 2.0]))
    torch.rand(5, generator=one.generator)
    other = Memory(["a", "b"], seed=9, values=torch.zeros(2))
    other.load_state_dict(one.state_dict())
    assert other.memory["values"].tolist() == [1.0, 2.0]
    assert torch.equal(torch.rand(3, generator=other.generator), torch.rand(3, generator=one.generator))
    other.memory["values"] += 1.0
    assert one.memory["values"].tolist() == [1.0, 2.0]


def test_a_lent_generator_moves_and_torchs_does_not():
    generator = torch.Generator().manual_seed(5)
    expected = torch.rand(6, generator=torch.Generator().manual_seed(5))
    before = torch.get_rng_state()
    with instead_of_torchs(generator):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.cat([first, torch.rand(3, generator=generator)]), expected)


def test_values_by_task():
    assert by_task({"b": 2}, ["a", "b"], 0.5, "bounds").tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match=r"bounds must name tasks \(a, b\). Received: c"):
        by_task({"c": 2}, ["a", "b"], 0.5, "bounds")
