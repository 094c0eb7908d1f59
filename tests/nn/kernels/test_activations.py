"""The references are torch's own operations and their autograd."""

import math

import numpy as np
import pytest
import torch

from polyrank.nn.kernels import activations as kernels
from polyrank.nn.kernels.threads import follow_torch
from polyrank.nn.layers import Dropout

SHAPES = [(1, 1, 1, 1), (1, 7, 16, 16), (3, 130, 40, 32), (2, 64, 33, 33), (2, 65, 20, 17)]  # G, B, N, H


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("groups", "rows", "columns", "width"), SHAPES)
@pytest.mark.parametrize("strided", [False, True])
def test_rectify_is_bias_and_relu_on_the_first_columns(groups, rows, columns, width, strided):
    values = torch.randn(rows, groups, columns).transpose(0, 1) if strided else torch.randn(groups, rows, columns)
    before, bias = values.clone(), torch.randn(groups, width)
    kernels.rectify(values.numpy(), bias.numpy())
    assert torch.equal(values[:, :, :width], torch.relu(before[:, :, :width] + bias[:, None]))
    assert torch.equal(values[:, :, width:], before[:, :, width:])


def test_not_a_number_and_infinities_pass_as_in_torch():
    strange = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1e-45])
    values = strange.view(1, 1, 7).clone()
    kernels.rectify(values.numpy(), np.zeros((1, 7), np.float32))
    torch.testing.assert_close(values[0, 0], torch.relu(strange), equal_nan=True, rtol=0, atol=0)
    bias = torch.full((1, 7), math.nan)
    kernels.rectify(values.numpy(), bias.numpy())
    assert values.isnan().all()


@pytest.mark.parametrize(("groups", "rows", "columns", "width"), SHAPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drop_is_the_dropout_of_the_same_bits(groups, rows, columns, width, p):
    dropout = Dropout(p)
    values = torch.randn(groups, rows, columns)
    before, bits = values.clone(), dropout.bits(torch.Size((groups, rows, width)))
    kernels.drop(values.numpy(), bits.numpy(), dropout.dropped, np.float32(dropout.scale))
    assert torch.equal(values[:, :, :width], before[:, :, :width] * dropout.factors(bits, torch.float32))
    assert torch.equal(values[:, :, width:], before[:, :, width:])


def test_drop_at_the_ends_of_sixteen_bits():
    bits = torch.tensor([-32_768, -32_767, 0, 32_767], dtype=torch.int16).view(1, 1, 4)
    for dropped, kept in ((0, 4), (1, 3), (32_768, 2), (32_769, 1), (65_535, 1)):
        values = torch.ones(1, 1, 4)
        kernels.drop(values.numpy(), bits.numpy(), dropped, np.float32(2.0))
        assert values.flatten().tolist() == [0.0] * (4 - kept) + [2.0] * kept


@pytest.mark.parametrize(("groups", "rows", "columns", "width"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_rectify_back_agrees_with_autograd(groups, rows, columns, width, scale):
    given = torch.randn(groups, rows, width, dtype=torch.float64, requires_grad=True)
    output = torch.relu(given) * scale
    gradient = torch.randn(groups, rows, columns)
    output.backward(gradient[:, :, :width].double())
    untouched = gradient[:, :, width:].clone()
    partial = torch.full((math.ceil(rows / kernels.CHUNK), groups, width), math.nan)
    kernels.rectify_back(gradient.numpy(), output.detach().float().numpy(), np.float32(scale), partial.numpy())
    torch.testing.assert_close(gradient[:, :, :width].double(), given.grad, rtol=1e-6, atol=0)
    torch.testing.assert_close(partial.sum(dim=0).double(), given.grad.sum(dim=1), rtol=1e-5, atol=1e-5)
    assert torch.equal(gradient[:, :, width:], untouched)


def test_gradients_of_what_is_not_a_number_pass_as_in_torch():
    value = torch.tensor([math.nan, 1.0, -1.0], requires_grad=True)
    torch.relu(value).backward(torch.tensor([1.0, 2.0, 3.0]))
    gradient, partial = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3), torch.empty(1, 1, 3)
    kernels.rectify_back(
        gradient.numpy(), torch.relu(value.detach()).view(1, 1, 3).numpy(), np.float32(1), partial.numpy()
    )
    assert gradient.flatten().tolist() == value.grad.tolist()


def test_bf16_is_rounded_once():
    values, bias, gradient = torch.randn(2, 70, 40).bfloat16(), torch.randn(2, 33), torch.randn(2, 70, 40).bfloat16()
    exact, exact_gradient = values.float(), gradient.float()
    kernels.rectify(values.view(torch.uint16).numpy(), bias.numpy())
    kernels.rectify(exact.numpy(), bias.numpy())
    assert torch.equal(values, exact.bfloat16())
    bits, dropped = Dropout(0.4).bits(torch.Size((2, 70, 33))), values.float()
    kernels.drop(values.view(torch.uint16).numpy(), bits.numpy(), 20_000, np.float32(1.25))
    kernels.drop(dropped.numpy(), bits.numpy(), 20_000, np.float32(1.25))
    assert torch.equal(values, dropped.bfloat16())
    dropped = values.float()
    partial, exact_partial = torch.empty(2, 2, 33), torch.empty(2, 2, 33)
    kernels.rectify_back(
        gradient.view(torch.uint16).numpy(), values.view(torch.uint16).numpy(), np.float32(1.25), partial.numpy()
    )
    kernels.rectify_back(exact_gradient.numpy(), dropped.numpy(), np.float32(1.25), exact_partial.numpy())
    assert torch.equal(gradient, exact_gradient.bfloat16())
    assert torch.equal(partial, exact_partial)


def test_threads_change_no_bit():
    values, bias, gradient = torch.randn(2, 1000, 48), torch.randn(2, 40), torch.randn(2, 1000, 48)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        assert follow_torch() == count
        own, back, partial = values.clone(), gradient.clone(), torch.empty(16, 2, 40)
        kernels.rectify(own.numpy(), bias.numpy())
        kernels.rectify_back(back.numpy(), own.numpy(), np.float32(1.5), partial.numpy())
        results.append((own, back, partial))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
