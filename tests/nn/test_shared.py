"""The references write the gradients at the experts out, and autograd."""

import pytest
import torch

from polyrank.nn import shared
from polyrank.nn.experts import Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.ownership import reading

ROWS = 150  # no multiple of the parts that the kernel sums
CASES = {
    "every gate sees every expert": [[0, 1, 2], [3, 4, 5]],
    "shared ones among others": [[1, 2], [5, 4], [-1, 7]],
    "one output for all": [[], [], []],
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def case(name, width):
    columns = torch.tensor(CASES[name], dtype=torch.int64).view(len(CASES[name]), -1)
    gradients = torch.randn(len(columns), ROWS, width)
    return gradients, torch.rand(ROWS, 8), columns


def written_out(gradients, weights, columns):
    """∂L_t/∂f_s `[T, S, B, H]` by loops."""
    tasks, rows, width = gradients.shape
    if not columns.shape[1]:
        return gradients[:, None]
    found = torch.zeros(tasks, columns.shape[1], rows, width)
    for task in range(tasks):
        for s, column in enumerate(columns[task].tolist()):
            if column >= 0:
                found[task, s] = weights[:, column, None] * gradients[task]
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [16, 64, 20])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_gramian(name, width, threads):
    torch.set_num_threads(threads)
    parts = case(name, width)
    rows = written_out(*parts).flatten(1).double()
    for found in (shared.gramian(*parts), shared.gramian_plainly(*parts)):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, rows @ rows.T, rtol=1e-5, atol=1e-5 * rows.square().sum().item())
        assert torch.equal(found, found.T) or width == 20


def test_the_gramian_is_the_same_whatever_the_number_of_threads():
    parts = case("every gate sees every expert", 32)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(shared.gramian(*parts))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", CASES)
def test_sums_over_rows(name):
    parts = case(name, 16)
    expected = written_out(*parts).sum(dim=2).flatten(1)
    torch.testing.assert_close(shared.summed(*parts), expected, rtol=1e-4, atol=1e-4)


def test_these_are_autograds_gradients_at_the_experts():
    level = Level(6, [(3, 6)], [range(3)] * 2, (16,))
    torch.nn.init.normal_(level.groups[0].weight)
    x = torch.randn(ROWS, 6)
    experts, logits = level.groups[0](x)
    weights = logits.view(ROWS, 2, 3).softmax(dim=2)
    mixed = torch.einsum("bte,ebh->tbh", weights, experts)
    seeds = torch.randn(2, ROWS, 16)
    rows = torch.stack([torch.autograd.grad(mixed[t], experts, seeds[t], retain_graph=True)[0] for t in range(2)])
    rows = rows.flatten(1).double()
    _, found = level([Inputs(x)])
    columns = reading([(level, (0, 1))], 2)
    gramian = shared.gramian(seeds, found, columns)
    torch.testing.assert_close(gramian, rows @ rows.T, rtol=1e-4, atol=1e-4)
