"""The reference is a product in float64."""

import math

import numpy as np
import pytest
import torch

from polyrank.nn.kernels import scores as kernels

CHUNK = kernels.CHUNK
TASKS = 3
ROWS = [1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5]
WIDTHS = [16, 32, 48, 80, 144]
KINDS = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def held(values):
    return values.numpy() if values.dtype == torch.float32 else values.view(torch.uint16).numpy()


def run(values, weight, bias):
    out = torch.full((values.shape[1], TASKS), math.nan)
    kernels.scores(held(values), weight.numpy(), bias.numpy(), out.numpy())
    return out


def back(values, weight, gradient):
    to = torch.full_like(values, math.nan)
    parts = torch.full((math.ceil(values.shape[1] / CHUNK), TASKS, values.shape[2]), math.nan)
    kernels.scores_back(held(values), weight.numpy(), gradient.numpy(), held(to), parts.numpy())
    return to, parts


def assert_near(found, exact):
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 * exact.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "width"), [*((rows, 48) for rows in ROWS), *((CHUNK + 1, width) for width in WIDTHS)])
def test_agrees_with_a_product(rows, width, kind):
    values, weight, bias = torch.randn(TASKS, rows, width).to(kind), torch.randn(TASKS, width), torch.randn(TASKS)
    exact = torch.einsum("tbh,th->bt", values.double(), weight.double()) + bias.double()
    assert_near(run(values, weight, bias), exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "width"), [*((rows, 48) for rows in ROWS), *((CHUNK + 1, width) for width in WIDTHS)])
def test_gradients_agree_with_products(rows, width, kind):
    values, weight, gradient = torch.randn(TASKS, rows, width).to(kind), torch.randn(TASKS, width), torch.randn(rows, 3)
    to, parts = back(values, weight, gradient)
    assert torch.equal(to, (gradient.t()[:, :, None] * weight[:, None]).to(kind))  # rounded once, if at all
    for chunk, part in enumerate(parts):
        own = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        assert_near(part, torch.einsum("tbh,bt->th", values[:, own].double(), gradient[own].double()))


def test_by_hand():
    values, weight = torch.zeros(TASKS, 2, 16), torch.zeros(TASKS, 16)
    values[0, 0, 0], values[0, 1, 15], values[2, 1, 3] = 2.0, 3.0, 5.0
    weight[0, 0], weight[0, 15], weight[2, 3] = 10.0, 100.0, -1.0
    assert run(values, weight, torch.tensor([0.5, 0.25, 0.0])).tolist() == [[20.5, 0.25, 0.0], [300.5, 0.25, -5.0]]
    to, parts = back(values, weight, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert to[0, 0, [0, 15]].tolist() == [10.0, 100.0]
    assert to[0, 1, [0, 15]].tolist() == [40.0, 400.0]
    assert to[2, :, 3].tolist() == [-3.0, -6.0]
    assert not to[1].any()
    assert parts[0, 0, [0, 15]].tolist() == [2.0, 12.0]
    assert parts[0, 2, 3] == 30.0
    assert not parts[0, 1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_in_its_row_and_task(kind):
    values, weight, gradient = torch.randn(TASKS, 5, 32).to(kind), torch.randn(TASKS, 32), torch.randn(5, TASKS)
    values[1, 3, 17] = math.nan
    gradient[2, 0] = math.nan
    assert run(values, weight, torch.zeros(TASKS)).isnan().nonzero().tolist() == [[3, 1]]
    to, parts = back(values, weight, gradient)
    assert to[0, 2].isnan().all()
    assert to.isnan().sum() == 32
    assert parts[0, 0].isnan().all()
    assert parts[0, 1].isnan().nonzero().tolist() == [[17]]
    assert not parts[0, 2].isnan().any()


def test_weights_need_not_be_contiguous():
    """As the only column of a larger array."""
    whole = np.zeros((TASKS, 16, 1), np.float32)
    whole[:] = torch.randn(TASKS, 16, 1).numpy()
    values, out, expected = np.ones((TASKS, 4, 16), np.float32), np.empty((4, TASKS), np.float32), whole.sum((1, 2))
    kernels.scores(values, whole[:, :, 0], np.zeros(TASKS, np.float32), out)
    np.testing.assert_allclose(out, np.tile(expected, (4, 1)), rtol=1e-5, atol=1e-6)
