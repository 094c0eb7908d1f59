"""The registry and its one constructor."""

import pytest
import torch

from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.balancing.weights import Static, StaticConfig


def test_builds_by_name():
    balancer = build_balancer("static", ["click", "like"], StaticConfig({"like": 3.0}))
    assert isinstance(balancer, Static)
    losses = torch.ones(2, requires_grad=True)
    assert balancer.backward(losses, torch.tensor([True, True])).tolist() == [1.0, 3.0]


def test_an_unknown_name_is_no_balancer():
    with pytest.raises(KeyError, match="gradnrom"):
        build_balancer("gradnrom", ["click"], StaticConfig())


def test_the_registry_cannot_be_written():
    with pytest.raises(TypeError):
        BALANCERS["mine"] = BALANCERS["static"]
