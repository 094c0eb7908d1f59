"""The lazy average against one that is taken of everything at every step."""

import pytest
import torch

from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Field, Layout
from polyrank.data.loader import Batch
from polyrank.data.schema import Task
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.training.averaging import WeightAverage
from polyrank.training.optimizers import EMBEDDING_OPTIMIZERS

LAYOUT = Layout((Field("user", "id", 0, 1, "user"), Field("seen", "tags", 1, 3, "seen")), {"user": 9, "seen": 5})
STEPS = 30


def trained(decay, optimizer="adam", steps=STEPS, average=None, ranker=None, first=0):
    """A ranker after some steps, its average, and the plain average of every weight after every step."""
    torch.manual_seed(0)
    if ranker is None:
        config = RankerConfig("mmoe", embedding_width=4, towers=(5,))
        ranker = Ranker(
            (Task("y", "binary"),), (TaskStatistics(9, 0.5, 0.5),), LAYOUT, config, ARCHITECTURES["mmoe"].config()
        )
    average = average or WeightAverage(ranker, decay)
    sparse = EMBEDDING_OPTIMIZERS[optimizer](average)
    dense = torch.optim.SGD([p for _, p in ranker.dense_parameters()], lr=0.1)
    plain = {name: value.detach().clone() for name, value in ranker.named_parameters()}
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 5, (3, 3), generator=generator, dtype=torch.int32)  # rows 5 … 8 are never touched
        batch = Batch(ids, torch.zeros(3, 0), torch.zeros(3, 1), torch.ones(3, 1, dtype=torch.bool))
        dense.zero_grad()
        ranker(batch).square().sum().backward()
        dense.step()
        sparse.step(0.05)
        average.step()
        used = min(decay, (2.0 + step) / (11.0 + step))
        for name, value in ranker.named_parameters():
            plain[name] = used * plain[name] + (1 - used) * value.detach()
    return ranker, average, plain


@pytest.mark.parametrize("optimizer", EMBEDDING_OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_it_is_the_average_of_all_weights_after_every_step(decay, optimizer):
    ranker, average, plain = trained(decay, optimizer)
    own = {name: value.clone() for name, value in ranker.state_dict().items()}
    with average.applied():
        for name, value in ranker.named_parameters():
            torch.testing.assert_close(value.detach(), plain[name], rtol=1e-5, atol=1e-6)
        assert (ranker.embeddings.table[:5] != own["embeddings.table"][:5]).any()
    assert all(torch.equal(value, own[name]) for name, value in ranker.state_dict().items())


def test_looking_changes_nothing():
    ranker, average, _ = trained(0.9, steps=10)
    with average.applied():
        first = ranker.embeddings.table.clone()
    with average.applied():
        assert torch.equal(ranker.embeddings.table, first)


def test_weights_come_back_after_an_error():
    ranker, average, _ = trained(0.9, steps=5)
    before = ranker.embeddings.table.clone()
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert torch.equal(ranker.embeddings.table, before)


def test_its_state_is_all_there_is():
    ranker, average, _ = trained(0.9, steps=10)
    again = WeightAverage(ranker, 0.9)
    again.load_state_dict(average.state_dict())
    with average.applied():
        expected = ranker.embeddings.table.clone()
    with again.applied():
        assert torch.equal(ranker.embeddings.table, expected)
    assert again.steps == 10
