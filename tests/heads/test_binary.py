"""The reference is autograd through the plain twin, and the same rows without the masked ones."""

import math

import pytest
import torch

from polyrank.heads import binary
from polyrank.heads.binary import mean_cross_entropies, mean_cross_entropies_plainly
from polyrank.losses import binary_cross_entropy

BOTH = [mean_cross_entropies, mean_cross_entropies_plainly]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def drawn(rows=200, tasks=3):
    """Logits, labels (NaN where missing), which count, weights."""
    where = torch.rand(rows, tasks) < 0.7
    labels = torch.where(where, (torch.rand(rows, tasks) < 0.3).float(), torch.nan)
    return torch.randn(rows, tasks) * 3, labels, where, torch.rand(rows, tasks)


def slopes(function, logits, *others, seeds=None):
    """The losses, and the logits' gradient of their sum, or of that weighed with `seeds`."""
    leaf = logits.clone().requires_grad_()
    losses = function(leaf, *others)
    losses.backward(torch.ones_like(losses) if seeds is None else seeds)
    return losses.detach(), leaf.grad


def assert_near(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 17, 1024, 5000])
@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_autograd(rows, tasks, weighted):
    logits, labels, where, weights = drawn(rows, tasks)
    case = (logits, labels, where, weights if weighted else None)
    seeds = torch.randn(tasks)
    assert_near(
        slopes(mean_cross_entropies, *case, seeds=seeds), slopes(mean_cross_entropies_plainly, *case, seeds=seeds)
    )


@pytest.mark.parametrize("function", BOTH)
def test_masked_is_removed(function):
    logits, labels, where, weights = drawn(tasks=1)
    inside = where[:, 0]
    losses, gradient = slopes(function, logits, labels, where, weights)
    short = [part[inside] for part in (logits, labels, where, weights)]
    assert_near((losses, gradient[inside]), slopes(function, *short))
    assert not gradient[~inside].any()
    assert losses.item() == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(short[0], short[1], short[3]).item()
        * len(short[3]) / short[3].sum().item(), rel=1e-5
    )  # fmt: skip


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class(function, label):
    logits = torch.randn(50, 2)
    losses, gradient = slopes(function, logits, torch.full((50, 2), label), torch.ones(50, 2, dtype=torch.bool))
    torch.testing.assert_close(losses, binary_cross_entropy(logits, torch.full((50, 2), label)).mean(dim=0))
    torch.testing.assert_close(gradient, (torch.sigmoid(logits) - label) / 50)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_task_without_rows_has_loss_zero_and_zero_gradient(function, weighted):
    logits, labels, where, weights = drawn()
    where[:, 1] = False
    losses, gradient = slopes(function, logits, labels, where, weights if weighted else None)
    assert losses[1].item() == 0.0
    assert (losses[[0, 2]] > 0).all()
    assert not gradient[:, 1].any()


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("counts", [True, False])
def test_what_is_not_a_number_shows_in_its_task(function, counts):
    logits, labels, where, _ = drawn()
    logits[3, 1], where[3, 1] = math.nan, counts
    losses = function(logits, torch.nan_to_num(labels), where)
    assert losses.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("function", BOTH)
def test_infinite_logits_are_seen(function):
    logits, labels, where, _ = drawn()
    logits[3, 1] = math.inf
    assert torch.isfinite(function(logits, torch.nan_to_num(labels), where)).tolist() == [True, False, True]


@pytest.mark.parametrize("logit", [1e4, -1e4, 88.8, -88.8, 104.0, -104.0])
def test_extreme_logits(logit):
    logits = torch.full((4, 2), logit)
    where = torch.tensor([[True, True]] * 3 + [[False, False]])
    case = (logits, torch.eye(4)[:, :2], where)
    found = slopes(mean_cross_entropies, *case)
    assert_near(found, slopes(mean_cross_entropies_plainly, *case))
    assert all(torch.isfinite(part).all() for part in found)


def test_weight_zero_is_masked_bit_for_bit():
    logits, labels, where, weights = drawn()
    labels = torch.nan_to_num(labels)
    by_mask = slopes(mean_cross_entropies, logits, labels, where, weights)
    by_weight = slopes(mean_cross_entropies, logits, labels, torch.ones_like(where), weights * where)
    assert all(torch.equal(one, other) for one, other in zip(by_mask, by_weight, strict=True))


def test_parts_of_larger_tensors_give_the_same():
    parts = drawn()
    expected = slopes(mean_cross_entropies, *parts)
    turned = [part.t().contiguous().t() for part in parts]
    wider = [torch.cat([part, part], dim=1)[:, :3] for part in parts]
    for case in (turned, wider):
        assert not any(part.is_contiguous() for part in case)
        leaf = case[0].detach().requires_grad_()
        losses = mean_cross_entropies(leaf, *case[1:])
        losses.sum().backward()
        assert torch.equal(losses, expected[0])
        assert torch.equal(leaf.grad, expected[1])


def test_threads_change_no_bit():
    parts, found = drawn(rows=40_000), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(slopes(mean_cross_entropies, *parts))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_can_be_asked_for_gradients_again_and_again():
    logits, *others = drawn()
    leaf = logits.clone().requires_grad_()
    losses = mean_cross_entropies(leaf, *others)
    _, whole = slopes(mean_cross_entropies, logits, *others)
    for _ in range(2):
        for task in range(3):
            (found,) = torch.autograd.grad(losses[task] * (task + 2), leaf, retain_graph=True)
            expected = torch.zeros_like(whole)
            expected[:, task] = whole[:, task] * (task + 2)
            assert torch.equal(found, expected)


def test_needs_no_graph():
    parts = drawn()
    with torch.no_grad():
        losses = mean_cross_entropies(parts[0].clone().requires_grad_(), *parts[1:])
    assert not losses.requires_grad
    assert torch.equal(losses, mean_cross_entropies(*parts))


def test_arguments_stay_as_they_are():
    parts = drawn()
    copies = [part.clone() for part in parts]
    slopes(mean_cross_entropies, *parts)
    for part, copy in zip(parts, copies, strict=True):
        torch.testing.assert_close(part, copy, rtol=0, atol=0, equal_nan=True)


def test_without_numba_it_is_the_plain_twin(monkeypatch):
    parts = drawn()
    monkeypatch.setattr(binary, "kernels", None)
    found, expected = slopes(mean_cross_entropies, *parts), slopes(mean_cross_entropies_plainly, *parts)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
