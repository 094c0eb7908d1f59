"""Golden values by hand on the gradients A, then A′ (rows times 0.5, 1, 0.9)."""

import numpy as np
import pytest
import torch
from torchjd.aggregation import SDMGradWeighting

from polyrank.balancing.magnitudes import (
    DBMTL,
    DBMTLConfig,
    ExcessMTL,
    ExcessMTLConfig,
    MetaBalance,
    MetaBalanceConfig,
    SDMGrad,
    SDMGradConfig,
    sdm_descent,
)
from polyrank.balancing.solvers import least_norm

TASKS = ["click", "like", "watch"]
A = torch.tensor([[1.0, 2.0, 0.0, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.5, -2.0, 1.0, 2.0]], dtype=torch.float64)
LATER = A * torch.tensor([[0.5], [1.0], [0.9]])
SECOND = torch.tensor([[1.0, 1.0, 0.0, 1.0], [-1.0, 2.0, 1.0, 0.0], [0.0, -1.0, 1.0, 2.0]], dtype=torch.float64)
LOSSES = [0.7, 0.2, 1.5]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=tolerance)


class TestDBMTL:
    def test_by_hand(self, jacobian_step):
        step = jacobian_step(LOSSES, A)
        found = DBMTL(TASKS, DBMTLConfig(half_life=0, scale="paper")).backward(step)
        close(step.pulled, (1 / 0.7, 5.0, 1 / 1.5))  # own parameters descend log L
        close(found, (3.535534, 5.0, 2.847474))
        close(step.direction, (-0.040729, 6.376120, 7.847474, 9.230482), 5e-6)

    def test_rescaled_it_points_the_same_way(self, jacobian_step):
        step = jacobian_step(LOSSES, A)
        DBMTL(TASKS, DBMTLConfig(half_life=0)).backward(step)
        assert step.pulled.sum().item() == pytest.approx(3.0, abs=1e-6)
        assert step.pushed.sum().item() == pytest.approx(3.0, abs=1e-6)
        golden = torch.tensor([-0.040729, 6.376120, 7.847474, 9.230482], dtype=torch.float64)
        close(step.direction / step.direction.norm(), (golden / golden.norm()).tolist())

    def test_norms_are_averaged_without_bias(self, jacobian_step):
        balancer = DBMTL(TASKS, DBMTLConfig(half_life=3.0, scale="paper"))
        for _ in range(3):
            close(balancer.backward(jacobian_step(LOSSES, A)), (3.535534, 5.0, 2.847474))


class TestMetaBalance:
    def test_by_hand(self, jacobian_step):
        balancer = MetaBalance(TASKS, MetaBalanceConfig(scale="paper"))
        step = jacobian_step(LOSSES, A)
        close(balancer.backward(step), (1.0, 1.289949, 0.863771))
        close(step.direction, (0.141936, 1.562407, 2.153721, 2.727542), 5e-6)
        step = jacobian_step(LOSSES, LATER)
        close(balancer.backward(step), (1.0, 1.029436, 0.738489))
        close(step.direction, (-0.197117, 0.700157, 1.694076, 1.829280), 5e-6)

    @pytest.mark.parametrize(
        ("which", "expected"), [("shrink", (1.0, 1.0, 0.863771)), ("enlarge", (1.0, 1.289949, 1.0))]
    )
    def test_one_way_only(self, which, expected, jacobian_step):
        balancer = MetaBalance(TASKS, MetaBalanceConfig(which=which, scale="paper"))
        close(balancer.backward(jacobian_step(LOSSES, A)), expected)

    def test_the_target_is_named(self, jacobian_step):
        balancer = MetaBalance(TASKS, MetaBalanceConfig(target="watch", relax=1.0, scale="paper"))
        step = jacobian_step(LOSSES, A)
        weights = balancer.backward(step)
        close(weights * A.norm(dim=1), [9.25**0.5] * 3)
        with pytest.raises(ValueError, match=r"target must name a task .*Received: nobody"):
            MetaBalance(TASKS, MetaBalanceConfig(target="nobody"))

    def test_until_the_target_was_seen_nothing_changes(self, jacobian_step):
        balancer = MetaBalance(TASKS, MetaBalanceConfig())
        assert balancer.backward(jacobian_step(LOSSES, A, [False, True, True])).tolist() == [0.0, 1.0, 1.0]


class TestExcessMTL:
    def test_by_hand(self, jacobian_step):
        balancer = ExcessMTL(TASKS, ExcessMTLConfig(reference_steps=1, scale="paper"))
        close(balancer.backward(jacobian_step(LOSSES, A)), [1 / 3] * 3)
        close(balancer.memory["excess"], (4.0, 3.0, 5.5))
        close(balancer.backward(jacobian_step(LOSSES, LATER)), (0.332376, 0.333987, 0.333637))
        # e on A′: (0.894427, 2.121320, 3.311375)
        rises = 0.01 * torch.tensor([0.894427 / 4, 2.121320 / 3, 3.311375 / 5.5]).double()
        close(balancer.memory["logits"].softmax(dim=0), torch.softmax(rises, dim=0).tolist())

    def test_noise_does_not_count_twice(self, jacobian_step):
        """Gradients that keep coming, as a noisy task's, count less and less."""
        balancer = ExcessMTL(TASKS, ExcessMTLConfig(reference_steps=1))
        rises = []
        for _ in range(40):
            before = balancer.memory["logits"].clone()
            balancer.backward(jacobian_step(LOSSES, A))
            rises.append((balancer.memory["logits"] - before).abs().max().item())
        assert balancer.memory["squares"].shape == (3, 4)
        close(balancer.memory["logits"], [0.0] * 3)  # all alike


class TestSDMGrad:
    def test_converged(self, jacobian_step):
        cross = (A @ SECOND.T).numpy()
        assert cross.tolist() == [[4.0, 3.0, 0.0], [0.0, 4.0, 0.0], [0.5, -3.5, 7.0]]
        config = SDMGradConfig(learning_rate=0.1, iterations=2000, scale="paper")
        step = jacobian_step(LOSSES, A, second=SECOND)
        balancer = SDMGrad(TASKS, config)
        close(balancer.backward(step), (0.108527, 0.434109, 0.457364))
        close(balancer.memory["shares"], (0.041085, 0.464341, 0.494574))

    def test_the_default_rate_converges_where_the_authors_jumps(self, jacobian_step):
        cross = A @ SECOND.T
        theirs = SDMGradWeighting()(cross)
        close(theirs, (0.076923, 0.076923, 0.846154))  # a vertex
        balancer = SDMGrad(TASKS, SDMGradConfig(scale="paper"))
        for _ in range(10):
            found = balancer.backward(jacobian_step(LOSSES, A, second=SECOND))
        close(found, (0.108527, 0.434109, 0.457364), 1e-4)

    def test_without_pull_and_noise_it_is_mgda(self):
        gramian = (A @ A.T).numpy()
        size = np.sqrt(gramian.diagonal()).mean()
        config = SDMGradConfig(pull=0.0, learning_rate=0.1, iterations=5000)
        close(sdm_descent(gramian / size**2, np.full(3, 1 / 3), config), least_norm(gramian).tolist(), 1e-5)

    def test_an_absent_tasks_share_waits_for_it(self, jacobian_step):
        balancer = SDMGrad(TASKS, SDMGradConfig())
        for _ in range(5):
            balancer.backward(jacobian_step(LOSSES, A, [True, False, True], second=SECOND))
        shares = balancer.memory["shares"]
        assert shares[1].item() == pytest.approx(1 / 3)
        assert shares.sum().item() == pytest.approx(1.0)
