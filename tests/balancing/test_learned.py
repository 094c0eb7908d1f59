"""Golden values by hand and against torchjd; GradNorm's toy problem."""

import pytest
import torch
from torchjd.scalarization import FAMO as TorchFAMO
from torchjd.scalarization import IMTLL as TorchIMTLL
from torchjd.scalarization import UW as TorchUW

from polyrank.balancing.learned import (
    FAMO,
    IMTLL,
    FAMOConfig,
    GradNorm,
    GradNormConfig,
    IMTLLConfig,
    Uncertainty,
    UncertaintyConfig,
    gradnorm_slopes,
)
from polyrank.balancing.weights import Static, StaticConfig

TASKS = ["click", "like", "watch"]
LOSSES, START = [0.7, 0.2, 1.5], [1.4, 0.25, 1.5]
ANY = [[1.0], [1.0], [1.0]]
A = [[1.0, 2.0, 0.0, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.5, -2.0, 1.0, 2.0]]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=tolerance)


def slopes_of(balancer):
    """What the balancer's Adam was given at its only step: its first moment is a tenth of it."""
    return balancer.memory["scales_moment"] / 0.1


class TestUncertainty:
    @pytest.mark.parametrize(
        ("form", "weights", "slopes"),
        [
            ("regression", (0.5, 0.303265, 0.824361), (0.15, 0.439347, -0.736541)),
            ("classification", (1.0, 0.606531, 1.648721), (-0.2, 0.378694, -1.973082)),
        ],
    )
    def test_by_hand(self, form, weights, slopes, jacobian_step):
        balancer = Uncertainty(TASKS, UncertaintyConfig(form=form))
        balancer.memory["scales"][:] = torch.tensor([0.0, 0.5, -0.5])
        close(balancer.backward(jacobian_step(LOSSES, ANY)), weights)
        close(slopes_of(balancer), slopes)

    @pytest.mark.parametrize(("form", "factor"), [("regression", 1.0), ("classification", 2.0)])
    def test_is_torchjds(self, form, factor, jacobian_step):
        balancer, theirs = Uncertainty(TASKS, UncertaintyConfig(learning_rate=0.02, form=form)), TorchUW(3).double()
        adam = torch.optim.Adam(theirs.parameters(), lr=0.02)
        for number in range(20):
            losses = (torch.tensor(LOSSES) * 0.9**number).requires_grad_()
            adam.zero_grad()
            theirs(factor * losses.double()).backward()
            close(balancer.backward(jacobian_step(losses.detach(), ANY)), losses.grad.tolist())
            adam.step()
            close(balancer.memory["scales"], theirs.log_var.tolist())

    def test_settles_at_half_over_the_loss_and_may_raise_a_weight(self, jacobian_step):
        balancer = Uncertainty(TASKS, UncertaintyConfig(learning_rate=0.1))
        for _ in range(600):
            weights = balancer.backward(jacobian_step(LOSSES, ANY))
        close(weights, [1 / (2 * loss) for loss in LOSSES], 1e-3)
        assert weights[1] > 1

    def test_s_comes_back_from_its_bound(self, jacobian_step):
        balancer = Uncertainty(TASKS, UncertaintyConfig(learning_rate=1.0, bound=2.0))
        for _ in range(10):
            balancer.backward(jacobian_step([1e-6] * 3, ANY))
        assert balancer.memory["scales"].tolist() == [-2.0] * 3
        for _ in range(60):
            balancer.backward(jacobian_step([5.0] * 3, ANY))
        assert (balancer.memory["scales"] > 0).all()


class TestIMTLL:
    def test_by_hand(self, jacobian_step):
        balancer = IMTLL(TASKS, IMTLLConfig())
        balancer.memory["scales"][:] = torch.tensor([0.0, 0.5, -0.5])
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (1.0, 1.648721, 0.606531))
        close(slopes_of(balancer), (-0.3, -0.670256, -0.090204))

    def test_is_torchjds(self, jacobian_step):
        balancer, theirs = IMTLL(TASKS, IMTLLConfig(learning_rate=0.02)), TorchIMTLL(3).double()
        adam = torch.optim.Adam(theirs.parameters(), lr=0.02)
        for number in range(20):
            losses = (torch.tensor(LOSSES) * 0.9**number).requires_grad_()
            adam.zero_grad()
            theirs(losses.double()).backward()
            close(balancer.backward(jacobian_step(losses.detach(), ANY)), losses.grad.tolist())
            adam.step()


class TestFAMO:
    CONFIG = FAMOConfig(every=1, scale="paper")

    def test_by_hand(self, jacobian_step):
        balancer = FAMO(TASKS, self.CONFIG)
        assert balancer.again
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (0.201342, 0.704698, 0.093960))
        balancer.after(torch.tensor([0.65, 0.21, 1.2]), torch.ones(3, dtype=torch.bool))
        close(balancer.memory["logits_moment"] / 0.1, (-0.002904, -0.043870, 0.046774))
        close(balancer.memory["logits"], (0.025, 0.025, -0.025))
        close(balancer.backward(jacobian_step([0.65, 0.21, 1.2], ANY)), (0.216897, 0.671347, 0.111756))
        balancer.after(torch.tensor([0.6, 0.2, 1.1]), torch.ones(3, dtype=torch.bool))
        close(balancer.memory["logits"], (0.023910, 0.044729, -0.043603))

    def test_is_torchjds(self, jacobian_step):
        balancer = FAMO(TASKS, FAMOConfig(decay=1e-3, every=1, scale="paper"))
        theirs = TorchFAMO(3, lr=0.025, weight_decay=1e-3).double()
        for number in range(20):
            losses = (torch.tensor(LOSSES) * torch.tensor([0.9, 0.95, 0.99]) ** number).double().requires_grad_()
            theirs(losses).backward()
            close(balancer.backward(jacobian_step(losses.detach(), ANY)), losses.grad.tolist())
            after = losses.detach() * torch.tensor([0.8, 0.9, 1.01])
            theirs.update(after)
            balancer.after(after, torch.ones(3, dtype=torch.bool))
        close(balancer.memory["logits"], theirs._w.tolist())

    def test_asks_for_a_second_look_now_and_then(self, jacobian_step):
        balancer, asked = FAMO(TASKS, FAMOConfig(every=3)), []
        for _ in range(7):
            asked.append(balancer.again)
            balancer.backward(jacobian_step(LOSSES, ANY))
        assert asked == [False, False, True, False, False, True, False]


class TestGradNorm:
    def test_slopes_by_hand(self):
        norms = torch.tensor(A).double().norm(dim=1)
        rates = torch.tensor(LOSSES).double() / torch.tensor(START).double()
        close(rates / rates.mean(), (0.652174, 1.043478, 1.304348))
        ones = torch.ones(3, dtype=torch.float64)
        found = gradnorm_slopes(norms, ones, rates, 1.5)
        close(found, (2.449490, -1.732051, -3.041381))
        moved = 1.0 - 0.025 * found
        moved *= 3 / moved.sum()
        close(moved, (0.920928, 1.023480, 1.055592))
        again = moved - 0.025 * gradnorm_slopes(moved * norms, moved, rates, 1.5)
        close(again * 3 / again.sum(), (0.843358, 1.046515, 1.110127))

    def test_a_step_by_hand(self, jacobian_step):
        balancer = GradNorm(TASKS, GradNormConfig(reference_steps=1, half_life=0))
        assert balancer.backward(jacobian_step(START, A)).tolist() == [1.0] * 3
        step = jacobian_step(LOSSES, A)
        assert balancer.backward(step).tolist() == [1.0] * 3
        assert step.pulled.tolist() == [1.0] * 3
        assert step.pushed.tolist() == [1.0] * 3  # a loss weighting: own parameters are weighed too
        moved = torch.tensor([-0.025, 0.025, 0.025]).double().exp()  # Adam's first step
        close(balancer.memory["logs"].exp(), (moved * 3 / moved.sum()).tolist())

    def test_rests_while_the_starting_loss_is_averaged(self, jacobian_step):
        balancer = GradNorm(TASKS, GradNormConfig(reference_steps=5))
        for _ in range(5):
            balancer.backward(jacobian_step(START, A))
        assert balancer.memory["logs"].tolist() == [0.0] * 3

    def test_every_task_has_a_target_of_its_own(self, jacobian_step):
        """A peer steers all tasks to one target: then a task that lags behind is not helped."""
        balancer = GradNorm(TASKS, GradNormConfig(reference_steps=1, half_life=0))
        balancer.backward(jacobian_step([1.0, 1.0, 1.0], torch.eye(3)))
        for _ in range(60):
            balancer.backward(jacobian_step([0.2, 0.5, 1.0], torch.eye(3)))
        weights = balancer.memory["logs"]
        assert weights[0] < weights[1] < weights[2]


class Toy:
    """Section 4 of the paper, smaller: f_t(x) = σ_t tanh((B + ε_t) x), scales σ from 1 to 100, one small shared trunk.

    Predictions are scaled by σ too: tasks differ in the scale of their losses (up to 10⁴ times) and in nothing else.
    """

    TASKS, IN, OUT, WIDTH = 10, 20, 5, 16

    def __init__(self, balancer):
        generator = torch.Generator().manual_seed(0)
        self.sigma = torch.logspace(0, 2, self.TASKS)
        base = torch.randn(self.IN, self.OUT, generator=generator) * 10**0.5
        own = torch.randn(self.TASKS, self.IN, self.OUT, generator=generator) * 3.5**0.5
        self.matrices = (base + own) / self.IN**0.5 / 3
        sizes = (self.IN, self.WIDTH), (self.WIDTH, self.WIDTH)
        self.trunk = [torch.randn(a, b, generator=generator) * (2 / a) ** 0.5 for a, b in sizes]
        self.heads = torch.randn(self.TASKS, self.WIDTH, self.OUT, generator=generator) / self.WIDTH**0.5
        self.parameters = [p.requires_grad_() for p in (*self.trunk, self.heads)]
        self.adam = torch.optim.Adam(self.parameters, lr=3e-3, betas=(0.9, 0.95))
        self.generator, self.balancer = generator, balancer
        self.present = torch.ones(self.TASKS, dtype=torch.bool)

    def run(self, steps):
        rates = []
        for _ in range(steps):
            x = torch.randn(64, self.IN, generator=self.generator)
            targets = self.sigma[:, None, None] * torch.tanh(x @ self.matrices)
            h = x
            for matrix in self.trunk:
                h = torch.relu(h @ matrix)
            self.h, self.leaf = h, h.detach().expand(self.TASKS, -1, -1).clone().requires_grad_()
            self.attached = (self.sigma[:, None, None] * (self.leaf @ self.heads) - targets).square().mean(dim=(1, 2))
            self.losses = self.attached.detach()
            self.adam.zero_grad()
            self.balancer.backward(self)
            self.adam.step()
            rates.append(self.losses / self.sigma**2)
        return torch.stack(rates)

    def pull(self, scale=None):
        self.attached.backward(scale)

    def gramian(self, scope="representation"):
        rows = self.leaf.grad.flatten(1).double()
        return rows @ rows.T

    def push(self, weights=None):
        assert weights is None
        self.h.backward(self.leaf.grad.sum(dim=0))


def test_gradnorm_equalises_training_rates_on_its_toy_and_static_weights_do_not():
    names = [str(task) for task in range(Toy.TASKS)]
    spreads = {}
    for name, balancer in (
        ("static", Static(names, StaticConfig())),
        ("gradnorm", GradNorm(names, GradNormConfig(restoring=0.12))),
    ):
        torch.manual_seed(0)
        relative = Toy(balancer).run(450)
        left = relative[-50:].mean(dim=0) / relative[:10].mean(dim=0)
        spreads[name] = (left.max() / left.min()).item()
    assert spreads["static"] > 4.0
    assert spreads["gradnorm"] < 2.0
