"""Golden values by hand; torchjd's PCGrad; chance that can be repeated."""

import pytest
import torch
from torchjd.aggregation import GradVacWeighting, PCGradWeighting

from polyrank.balancing.surgery import (
    GradDrop,
    GradDropConfig,
    GradVac,
    GradVacConfig,
    PCGrad,
    PCGradConfig,
    passed,
    vaccinated,
)

TASKS = ["click", "like", "watch"]
A = torch.tensor([[1.0, 2.0, 0.0, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.5, -2.0, 1.0, 2.0]], dtype=torch.float64)
G = A @ A.T
LOSSES = [0.7, 0.2, 1.5]
ASCENDING = [[1, 2], [0, 2], [0, 1]]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=tolerance)


class TestPCGrad:
    def test_two_tasks_by_hand(self, jacobian_step):
        step = jacobian_step(LOSSES[:2], [[1.0, 0.0], [-0.5, 2.0]])
        close(PCGrad(TASKS[:2], PCGradConfig(scale="paper")).backward(step), (1.5, 1.117647))

    def test_every_order_and_their_mean(self, jacobian_step):
        """The first task in the order (1, 2, 3) gives (1.25, 1.416667, 1.324324); the mean over orders is known too."""
        balancer = PCGrad(TASKS, PCGradConfig(scale="paper"))
        found = torch.stack([balancer.backward(jacobian_step(LOSSES, A)) for _ in range(150)])
        distances = (found - torch.tensor([1.25, 1.416667, 1.324324])).abs().amax(dim=1)
        assert distances.min() < 1e-6
        close(found.mean(dim=0), (1.208333, 1.458333, 1.324324), 0.02)

    def test_is_torchjds_on_a_generator_of_its_own(self, jacobian_step):
        torch.manual_seed(7)
        theirs = PCGradWeighting()(G)
        balancer = PCGrad(TASKS, PCGradConfig(scale="paper", seed=7))
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        close(balancer.backward(jacobian_step(LOSSES, A)), theirs.tolist())
        assert torch.equal(torch.rand(3), expected)  # torch's generator is where it was

    def test_without_conflict_nothing_is_cut(self, jacobian_step):
        step = jacobian_step(LOSSES, [[1.0, 0.1], [0.5, 0.5], [0.0, 2.0]])
        assert PCGrad(TASKS, PCGradConfig(scale="paper")).backward(step).tolist() == [1.0] * 3


class TestGradVac:
    def test_golden(self):
        first, targets = vaccinated(G.numpy(), torch.zeros(3, 3).double().numpy(), 0.5, ASCENDING)
        close(first.sum(axis=0), (1.25, 1.416667, 1.324324))
        close(
            [targets[0, 1], targets[1, 0], targets[0, 2], targets[2, 0], targets[1, 2], targets[2, 1]],
            (0.117851, 0.117851, -0.100673, -0.100673, -0.142374, -0.121125),
        )
        close(vaccinated(G.numpy(), targets, 0.5, ASCENDING)[0].sum(axis=0), (1.126935, 1.254265, 1.165974))
        slow = vaccinated(G.numpy(), torch.zeros(3, 3).double().numpy(), 0.01, ASCENDING)[1]
        close(vaccinated(G.numpy(), slow, 0.01, ASCENDING)[0].sum(axis=0), (1.247551, 1.413441, 1.321181))

    def test_is_torchjds_for_two_tasks(self, jacobian_step):
        balancer, theirs = GradVac(TASKS[:2], GradVacConfig(step=0.3, scale="paper")), GradVacWeighting(beta=0.3)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            rows = torch.randn(2, 3, generator=generator, dtype=torch.float64)
            close(balancer.backward(jacobian_step(LOSSES[:2], rows)), theirs(rows @ rows.T).tolist())

    @pytest.mark.parametrize("target", [1.0, -1.0])
    def test_a_target_of_one_divides_by_nothing(self, target):
        targets = torch.full((3, 3), target, dtype=torch.float64).numpy()
        found, _ = vaccinated(G.numpy(), targets, 0.01, ASCENDING)
        assert torch.isfinite(torch.from_numpy(found)).all()

    def test_the_running_cosines_of_absent_tasks_rest(self, jacobian_step):
        balancer = GradVac(TASKS, GradVacConfig(step=0.5))
        balancer.backward(jacobian_step(LOSSES, A, [True, False, True]))
        targets = balancer.memory["targets"]
        assert not targets[1].any()
        assert not targets[:, 1].any()
        close(targets[0, 2], 0.5 * -1.5 / (6 * 9.25) ** 0.5)


class TestGradDrop:
    @pytest.mark.parametrize(("draw", "expected"), [(0.5, (1.5, 3.0, 2.0, 3.0)), (0.75, (-1.0, -2.0, 2.0, 3.0))])
    def test_by_hand(self, draw, expected):
        masks = passed(A, torch.full((4,), draw, dtype=torch.float64))
        close((masks * A).sum(dim=0), expected)

    def test_the_expected_direction(self, jacobian_step):
        balancer = GradDrop(TASKS, GradDropConfig())
        directions = []
        for _ in range(1000):
            step = jacobian_step(LOSSES, A)
            balancer.backward(step)
            directions.append(step.direction)
        close(torch.stack(directions).mean(dim=0), (0.5, 1.0, 2.0, 3.0), 0.15)

    def test_a_leak_of_one_masks_nothing(self, jacobian_step):
        step = jacobian_step(LOSSES, A)
        assert GradDrop(TASKS, GradDropConfig(leak=1.0)).backward(step).tolist() == [1.0] * 3
        close(step.direction, A.sum(dim=0).tolist())

    def test_a_unit_that_nobody_moves(self):
        assert passed(torch.zeros(3, 2).double(), torch.tensor([0.3, 0.7]).double()).isfinite().all()
