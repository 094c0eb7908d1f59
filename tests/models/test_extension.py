"""The new tasks' branch against the formula; an extended ranker against its parts."""

import pytest
import torch

from polyrank.data.encoders import Field, Layout, TaskStatistics
from polyrank.data.loader import Batch
from polyrank.data.schema import Task
from polyrank.heads.build import HeadsConfig, build_heads
from polyrank.models.extension import Branch, ExtendedRanker, ExtensionConfig
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ranker import Ranker, RankerConfig
from polyrank.nn.inputs import Inputs

LAYOUT = Layout((Field("video", "id", 0, 1, "video"),), {"video": 9})
OLD, NEW = [Task("click", "binary"), Task("watch", "regression")], [Task("like", "binary", given="click")]
STATISTICS = [TaskStatistics(9, 0.5, 0.5), TaskStatistics(9, 7.0, 2.0)]
ROWS = 12


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def base():
    config = RankerConfig(architecture="mmoe", embedding_width=4, embedding_dropout=0.5, towers=(8,))
    return Ranker(OLD, STATISTICS, LAYOUT, config, MMoEConfig(experts=2, widths=(16,), dropout=0.5))


def extended(old, *, frozen):
    heads = build_heads(NEW, [TaskStatistics(9, 0.3, 0.4)], LAYOUT, HeadsConfig())
    config = RankerConfig(towers=(8,), extension=ExtensionConfig(experts=2, widths=(8,)))
    return ExtendedRanker(old, heads, config, frozen=frozen)


def batch(rows=ROWS):
    where = torch.rand(rows, 3) < 0.7
    labels = torch.stack([torch.ones(rows), torch.rand(rows) * 9, (torch.rand(rows) < 0.4).float()], dim=1)
    ids = torch.randint(0, 9, (rows, 1), dtype=torch.int32)
    return Batch(ids, torch.zeros(rows, 0), labels * where, where, torch.rand(rows, 3) + 0.1)


def test_branch_by_hand():
    """One expert relu(2x) = 6 at x = 3, old vectors 1 and 5; gate logits 0, 0, ln 3: weights 1, 1, 3 of 5."""
    branch = Branch(1, 2, 1, 16, ExtensionConfig(experts=1, widths=()))
    [group] = branch.experts.groups
    with torch.no_grad():
        group.weight.fill_(2.0)
        branch.gate.copy_(torch.tensor([[0.0, 0.0, torch.log(torch.tensor(3.0)) / 3]]))
    old = torch.stack([torch.full((1, 16), 1.0), torch.full((1, 16), 5.0)])
    found = branch(Inputs(torch.tensor([[3.0]])), old)
    torch.testing.assert_close(found, torch.full((1, 1, 16), (6.0 + 1.0 + 3 * 5.0) / 5))


def test_a_new_gate_starts_as_the_mean():
    branch = Branch(3, 2, 2, 16, ExtensionConfig(experts=2))
    torch.testing.assert_close(branch.weights(Inputs(torch.randn(5, 3))), torch.full((5, 2, 4), 0.25))


@pytest.mark.parametrize("frozen", [True, False])
def test_old_tasks_are_the_old_model_s(frozen):
    old, rows = base().eval(), batch()
    before, losses = old.predict(rows), old.losses(old(rows), Batch(*_first(rows)))
    whole = extended(old, frozen=frozen).eval()
    assert whole.predict(rows).shape == (ROWS, 3)
    torch.testing.assert_close(whole.predict(rows)[:, :2], before)
    torch.testing.assert_close(whole.losses(whole(rows), rows)[:2], losses)


def _first(rows):
    return rows.ids, rows.dense, rows.labels[:, :2], rows.where[:, :2], rows.weights[:, :2]


def test_frozen_nothing_of_the_old_model_moves_not_even_its_dropout():
    old, rows = base(), batch()
    whole = extended(old, frozen=True).train()
    assert whole.training
    assert not any(module.training for module in old.modules())
    assert torch.equal(whole(rows)[:, :2], whole(rows)[:, :2])
    whole.losses(whole(rows), rows).sum().backward()
    assert whole.embeddings.touched() == []
    assert all(p.grad is None for p in old.parameters())
    trained = dict(whole.dense_parameters())
    assert trained
    assert not [name for name in trained if name.startswith("base.")]
    assert all(p.grad.any() for p in trained.values())
    assert whole.penalty() is None


def test_free_the_new_task_teaches_the_old_model_too():
    old, rows = base(), batch()
    whole = extended(old, frozen=False).train()
    whole.losses(whole(rows), rows)[2].backward()
    found = {name for name, p in old.named_parameters() if p.grad is not None and p.grad.any()}
    assert "architecture.level.groups.0.weight" in found
    assert whole.embeddings.touched()
    assert whole.parameter_count() > old.parameter_count()


def test_every_parameter_receives_a_gradient():
    whole, rows = extended(base(), frozen=False), batch(200)
    whole.eval()
    whole.losses(whole(rows), rows).sum().backward()
    assert [name for name, p in whole.dense_parameters() if p.grad is None or not p.grad.any()] == []


def test_gates_of_both():
    whole, rows = extended(base(), frozen=True).eval(), batch()
    gates = whole.gates(rows)
    assert [gate.owner for gate in gates] == [0, 1, 2]
    assert gates[2].experts == ((2, 0), (2, 1), (0, 0), (1, 0))
