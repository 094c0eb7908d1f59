"""What every architecture lets one choose: widths, dropout, layer normalisation, residuals, and what its gates read."""

import dataclasses

import pytest
import torch

from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Field, Layout
from polyrank.data.loader import Batch
from polyrank.data.schema import Task
from polyrank.models.home import SwishNetworks
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.nn.layers import StackedBatchNorm, StackedNorm

TASKS = (Task("click", "binary"), Task("like", "binary"))
STATISTICS = (TaskStatistics(50, 0.5, 0.5),) * 2
LAYOUT = Layout((Field("user", "id", 0, 1, "user"), Field("scene", "id", 1, 2, "scene")), {"user": 20, "scene": 5})
GATED = [name for name, entry in ARCHITECTURES.items() if hasattr(entry.config(), "gate_features")]
every = pytest.mark.parametrize("name", ARCHITECTURES)


def ranker_of(name, **knobs):
    tasks = 1 if name == "single_task" else 2
    entry = ARCHITECTURES[name]
    same = {field.name for field in dataclasses.fields(entry.config)} & {"task_widths", "relation_widths"}
    options = entry.config(**({"widths": (6, 6)} | dict.fromkeys(same, (6, 6)) | knobs))
    torch.manual_seed(0)
    config = RankerConfig(architecture=name, embedding_width=4, towers=(8,))
    return Ranker(TASKS[:tasks], STATISTICS[:tasks], LAYOUT, config, options)


def batch_of(rows=32):
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(high, (rows,), generator=generator) for high in (20, 5)], dim=1)
    return Batch(ids.int(), torch.zeros(rows, 0), torch.zeros(rows, 2), torch.ones(rows, 2, dtype=torch.bool))


@every
def test_widths(name):
    first, second = (ranker_of(name, widths=widths) for widths in ((6, 6), (10, 6)))
    assert second.parameter_count() > first.parameter_count()


@every
def test_layer_norm_makes_hidden_layers_blind_to_their_scale(name):
    """Normalised over units, a layer's sums times 9 are the sums."""
    ranker = ranker_of(name, layer_norm=True).eval()
    assert any(isinstance(module, StackedNorm) for module in ranker.modules())
    assert not any(isinstance(module, StackedBatchNorm) for module in ranker.modules())
    plain = ranker_of(name).eval()
    for each in (ranker, plain):
        torch.nn.init.normal_(each.embeddings.table)  # sums beside which ε is nothing
    before = ranker(batch_of())
    assert before.shape == plain(batch_of()).shape
    assert not torch.allclose(before, plain(batch_of()))
    for module in ranker.modules():
        if hasattr(module, "norm") and isinstance(module.norm, StackedNorm):
            with torch.no_grad():
                module.weight[:, : module.hidden] *= 9.0
                module.bias *= 9.0
        if isinstance(module, SwishNetworks):
            with torch.no_grad():
                module.layers[0].weight *= 9.0
    torch.testing.assert_close(ranker(batch_of()), before, rtol=1e-3, atol=1e-3)  # but for ε


@every
def test_residuals_act_and_add_no_parameters(name):
    plain, residual = (ranker_of(name, residual=flag).eval() for flag in (False, True))
    residual.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(batch_of()), residual(batch_of()))
    residual(batch_of()).square().sum().backward()
    assert [key for key, p in residual.dense_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_whose_gates_can_be_told_what_to_read():
    assert {"omoe", "mmoe", "cgc", "ple", "dselect_k", "adatt", "stem", "home", "escm2_ips", "escm2_dr"} == set(GATED)
    # The others have no gates by the row, but for PEPNet, which names what its gates read by `domain` and `prior`.
    assert all(not ranker_of(name).gates(batch_of()) for name in set(ARCHITECTURES) - set(GATED))


@pytest.mark.parametrize("name", GATED)
def test_first_gates_read_what_they_are_told(name):
    ranker, batch = ranker_of(name, gate_features=("scene",)), batch_of()
    optimizer = torch.optim.Adam([parameter for _, parameter in ranker.dense_parameters()], lr=0.1)
    for _ in range(3):  # gates start uniform
        optimizer.zero_grad()
        (ranker(batch) - 1.0).square().sum().backward()
        optimizer.step()
    ranker.eval()
    others = dataclasses.replace(batch, ids=torch.stack([batch.ids[:, 0].flip(0), batch.ids[:, 1]], dim=1))
    for gate, same in zip(ranker.gates(batch), ranker.gates(others), strict=True):
        assert gate.level > 1 or torch.equal(gate.weights, same.weights)
    moved = dataclasses.replace(batch, ids=(batch.ids + torch.tensor([0, 1], dtype=torch.int32)) % 5)
    assert not torch.equal(ranker.gates(batch)[0].weights, ranker.gates(moved)[0].weights)
