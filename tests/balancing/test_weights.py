"""Golden values of weights that are functions of step, chance or losses, by hand from the formulas."""

import pytest
import torch
from torchjd.scalarization import GeometricMean

from polyrank.balancing.weights import (
    Geometric,
    GeometricConfig,
    PLEDynamic,
    PLEDynamicConfig,
    Random,
    RandomConfig,
    ScaleInvariant,
    ScaleInvariantConfig,
    Static,
    StaticConfig,
    slopes,
)
from polyrank.errors import TrainingDiverged

TASKS = ["click", "like", "watch"]
LOSSES = [0.7, 0.2, 1.5]
ANY = [[1.0], [1.0], [1.0]]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=tolerance)


class TestStatic:
    def test_by_hand(self, jacobian_step):
        step = jacobian_step(LOSSES, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        weights = Static(TASKS, StaticConfig({"like": 0.5, "watch": 2.0})).backward(step)
        assert weights.tolist() == [1.0, 0.5, 2.0]
        assert float(weights @ step.losses.double()) == pytest.approx(3.8)
        assert step.direction.tolist() == [3.0, 2.5]

    @pytest.mark.parametrize("unknown", ["Click", "purchase"])
    def test_a_weight_for_a_task_that_is_not_there_is_refused(self, unknown):
        with pytest.raises(ValueError, match=f"must name tasks .*Received: {unknown}"):
            Static(TASKS, StaticConfig({unknown: 1.0}))


class TestPLEDynamic:
    CONFIG = PLEDynamicConfig({"like": 0.8, "watch": 0.5}, {"click": 0.9, "watch": 1.1}, unit=2)

    def test_by_hand_at_whole_and_half_units(self, jacobian_step):
        balancer = PLEDynamic(TASKS, self.CONFIG)
        found = [balancer.backward(jacobian_step(LOSSES, ANY)) for _ in range(7)]
        close(found[0], (1.0, 0.8, 0.5))
        close(found[1], (0.948683, 0.8, 0.524404))  # t = 0.5
        close(found[2], (0.9, 0.8, 0.55))  # t = 1
        close(found[6], (0.729, 0.8, 0.6655))  # t = 3

    def test_never_underflows(self, jacobian_step):
        balancer = PLEDynamic(TASKS, PLEDynamicConfig({"like": 0.0}, {"click": 0.5}, unit=1, floor=0.01))
        balancer.memory["step"] += 10_000
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (0.01, 0.0, 1.0))

    def test_an_unknown_task_is_refused(self):
        with pytest.raises(ValueError, match="decays must name tasks"):
            PLEDynamic(TASKS, PLEDynamicConfig(decays={"nobody": 0.9}))


class TestRandom:
    def test_is_the_softmax_of_gaussian_numbers(self, jacobian_step):
        balancer = Random(TASKS, RandomConfig(scale="paper", seed=4))
        draws = torch.randn(3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        close(balancer.backward(jacobian_step(LOSSES, ANY)), torch.softmax(draws, dim=0).tolist())
        close(torch.softmax(torch.tensor([0.5, -1.0, 0.0]), dim=0), (0.546549, 0.121952, 0.331499))

    def test_seeds_differ(self, jacobian_step):
        one, other = (Random(TASKS, RandomConfig(seed=s)).backward(jacobian_step(LOSSES, ANY)) for s in (0, 1))
        assert not torch.equal(one, other)


class TestGeometric:
    def test_by_hand(self, jacobian_step):
        balancer = Geometric(TASKS, GeometricConfig())
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (0.283044, 0.990654, 0.132087))
        close(balancer.backward(jacobian_step(LOSSES, ANY, [True, False, True])), (0.731925, 0.0, 0.341565))

    def test_torchjds_slope_of_the_mean(self):
        values = torch.tensor(LOSSES, dtype=torch.float64)
        assert GeometricMean()(values).item() == pytest.approx(0.594392, abs=1e-6)
        close(slopes(GeometricMean(), values), (0.283044, 0.990654, 0.132087))

    def test_rescaled_it_is_the_scale_invariant_loss(self, jacobian_step):
        one = Geometric(TASKS, GeometricConfig(scale="tasks")).backward(jacobian_step(LOSSES, ANY))
        close(one, ScaleInvariant(TASKS, ScaleInvariantConfig()).backward(jacobian_step(LOSSES, ANY)).tolist())


class TestScaleInvariant:
    def test_by_hand(self, jacobian_step):
        paper = ScaleInvariant(TASKS, ScaleInvariantConfig(scale="paper"))
        close(paper.backward(jacobian_step(LOSSES, ANY)), (1.428571, 5.0, 0.666667))
        close(
            ScaleInvariant(TASKS, ScaleInvariantConfig()).backward(jacobian_step(LOSSES, ANY)),
            (0.604027, 2.114094, 0.281879),
        )

    def test_a_negative_loss_has_no_logarithm(self, jacobian_step):
        with pytest.raises(TrainingDiverged, match=r"needs losses .*\n.*negative loss of like"):
            ScaleInvariant(TASKS, ScaleInvariantConfig()).backward(jacobian_step([0.7, -0.2, 1.5], ANY))
