"""The registry and its one constructor."""

import pytest

from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.balancing.weights import Static, StaticConfig


def test_builds_by_name(jacobian_step):
    balancer = build_balancer("static", ["click", "like"], StaticConfig({"like": 3.0}))
    assert isinstance(balancer, Static)
    assert balancer.backward(jacobian_step([1.0, 1.0], [[1.0], [1.0]])).tolist() == [1.0, 3.0]


def test_an_unknown_name_is_no_balancer():
    with pytest.raises(KeyError, match="gradnrom"):
        build_balancer("gradnrom", ["click"], StaticConfig())


def test_the_registry_cannot_be_written():
    with pytest.raises(TypeError):
        BALANCERS["mine"] = BALANCERS["static"]
