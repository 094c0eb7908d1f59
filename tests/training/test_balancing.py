"""Balancers at work on a small network: second looks, records, penalties, saved and loaded."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.errors import ConfigError
from polyrank.training.balancing import Balancing

NAMES = ["click", "watch"]
PRESENT = torch.tensor([True, True])


class Architecture(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x @ self.weight).expand(2, -1, -1)


class Network(nn.Module):
    """As much of a ranker as balancing knows."""

    def __init__(self, kinds=("binary", "regression")):
        super().__init__()
        self.architecture = Architecture()
        self.towers = nn.Linear(4, 1)
        self.heads = nn.Module()
        self.kinds = list(kinds)
        self.added = None
        self.space = SimpleNamespace(training="own")

    def values(self, logits, ids):
        return torch.sigmoid(logits)

    def dense_parameters(self):
        return self.named_parameters()

    def penalty(self):
        return self.added

    def forward(self, batch):
        return self.towers(self.architecture(batch.x)).squeeze(2).t()

    def losses(self, batch):
        """And the logits, of one forward pass."""
        logits = self(batch)
        return (logits - batch.labels).square().mean(dim=0), logits.detach()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch_of(rows=32):
    labels = (torch.rand(rows, 2) < 0.5).float()
    return SimpleNamespace(ids=None, x=torch.randn(rows, 3), labels=labels, where=torch.ones(rows, 2, dtype=torch.bool))


def made(method, network, steps=100, **knobs):
    return Balancing(network, build_balancer(method, NAMES, BALANCERS[method].config(**knobs)), NAMES, steps)


def ready(network, batch):
    losses, logits = network.losses(batch)
    return losses, PRESENT, logits


def run(balancing, batch, number=1):
    network = balancing.ranker
    balancing.before()
    losses, logits = network.losses(batch)
    balancing.backward(losses, PRESENT, logits, batch, number)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.05 * parameter.grad
            parameter.grad = None
    balancing.after(lambda: network.losses(batch)[0], PRESENT)


def test_a_second_look_is_at_the_same_batch_with_the_same_dropout():
    network = Network()
    balancing, seen = made("famo", network, every=2), []
    balancing.balancer.after = lambda losses, present: seen.append(losses)
    batch = batch_of()
    run(balancing, batch)
    assert seen == []
    balancing.before()
    losses, logits = network.losses(batch)
    balancing.backward(losses, PRESENT, logits, batch, 2)
    place = torch.get_rng_state()
    balancing.after(lambda: network.losses(batch)[0], PRESENT)  # nothing was updated in between
    assert torch.equal(seen[0], losses.detach())
    assert not seen[0].requires_grad
    assert torch.equal(torch.get_rng_state(), place)
    assert not torch.equal(network.losses(batch)[0], losses)  # with another dropout it is another loss


def test_the_record_has_gradients_even_of_methods_that_ask_for_none():
    network = Network()
    network.architecture.levels = list  # says that nothing is known
    balancing = made("static", network, steps=100)  # windows of 2 steps
    for number in range(1, 6):
        run(balancing, batch_of(), number)
    points = balancing.log.take(5)
    assert [point["step"] for point in points] == [2, 4, 5]
    assert points[0]["cosines"] == [[None, None], [None, None]]  # not cheap to measure: not measured
    measured = made("mgda", Network(), steps=100)
    run(measured, batch_of())
    (point,) = measured.log.take(1)
    assert point["cosines"][0][0] == pytest.approx(1.0)
    assert point["norms"]["click"] > 0
    assert point["weights"] == {name: pytest.approx(w, rel=1e-4) for name, w in measured.by_task().items()}


def test_a_penalty_is_added_whatever_the_weights():
    network = Network()
    batch = batch_of()
    network.architecture.dropout.p = 0.0
    balancing = made("mgda", network)
    balancing.backward(*ready(network, batch), batch, 1)
    plain = network.architecture.weight.grad.clone()
    network.zero_grad()
    network.added = 3.0 * network.architecture.weight.square().sum()
    balancing.backward(*ready(network, batch), batch, 2)
    expected = plain + 6.0 * network.architecture.weight.detach()
    torch.testing.assert_close(network.architecture.weight.grad, expected)


def test_dtp_asks_for_the_batchs_metric():
    balancing = made("dtp", Network(("binary", "binary")), metric="accuracy", every=1)
    run(balancing, batch_of())
    assert (balancing.balancer.memory["quality"] > 0).all()
    ranking = made("dtp", Network(), every=1)
    run(ranking, batch_of(200))
    assert (ranking.balancer.memory["quality"] > 0).all()


@pytest.mark.parametrize(
    ("method", "knobs"), [("dwa", {"window": 5, "temperature": 0.1}), ("gradnorm", {}), ("dtp", {"metric": "accuracy"})]
)
def test_acts_within_the_first_epoch(method, knobs):
    """Forty steps on a task that can be learnt and one that cannot: by their end weights are no longer equal."""
    network = Network(("binary", "binary"))
    balancing = made(method, network, steps=40, **knobs)
    for number in range(1, 41):
        batch = batch_of()
        batch.labels[:, 1] = batch.x[:, 0] > 0
        run(balancing, batch, number)
    weights = balancing.by_task()
    assert abs(weights["click"] - weights["watch"]) > 0.02
    assert sum(weights.values()) == pytest.approx(2.0)


def test_accuracy_is_for_binary_tasks():
    with pytest.raises(ConfigError, match=r"accuracy is a metric of binary tasks[\s\S]*watch"):
        run(made("dtp", Network(), metric="accuracy"), batch_of())


def test_state_round_trip():
    network = Network()
    balancing = made("gradnorm", network, steps=200)
    for number in range(1, 8):
        run(balancing, batch_of(), number)
    other = made("gradnorm", Network(), steps=200)
    other.load_state_dict(balancing.state_dict())
    assert other.by_task() == balancing.by_task()
    assert other.log.take(7) == balancing.log.take(7)
    assert all(torch.equal(v, other.balancer.memory[k]) for k, v in balancing.balancer.memory.items())
