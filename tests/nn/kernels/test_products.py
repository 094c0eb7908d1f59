"""Layouts by hand; the products themselves are tested with the layers that use them (tests/nn/test_stacked.py)."""

import math

import numpy as np
import pytest
import torch

from polyrank.nn.kernels import products


def halves(values):
    """bf16 as the uint16 that kernels take."""
    return torch.as_tensor(values, dtype=torch.float32).bfloat16().view(torch.uint16).numpy()


# K = 4, H = 3
WEIGHT = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]], np.float32)
WIDTHS = [1, 15, 16, 17, 31, 32, 48, 128]


class TestPacked:
    def test_by_hand(self):
        """Two neighbours in k side by side."""
        out = np.full((1, 2, 16, 2), 99, np.uint16)
        products.packed(WEIGHT, out)
        zeros = [[0, 0]] * 13
        expected = [[[1, 4], [2, 5], [3, 6], *zeros], [[7, 10], [8, 11], [9, 12], *zeros]]
        assert (out == halves([expected])).all()

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("inputs", [2, 32, 48])
    def test_networks_and_whole_vectors(self, width, inputs):
        weight = torch.randn(3, inputs, width)
        padded = torch.nn.functional.pad(weight, (0, -width % 16))
        pairs = np.full((3, inputs // 2, padded.shape[2], 2), 99, np.uint16)
        products.packed(weight.numpy(), pairs)
        assert (pairs == halves(padded.view(3, inputs // 2, 2, -1).transpose(2, 3))).all()

    def test_rounded_to_the_nearest_and_then_to_even(self):
        weight = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 3e38, 0.1]).view(1, 2, 3)
        out = np.empty((1, 1, 16, 2), np.uint16)
        products.packed(weight.numpy(), out)
        expected = torch.tensor([1, 1 + 2**-6, 1 + 2**-7, -1, 3e38, 0.1]).bfloat16().view(torch.uint16).numpy()
        assert out[0, 0, :3].T.flatten().tolist() == expected.tolist()


class TestTurned:
    """K is 16 at least: the hand's four inputs come first."""

    weight = np.concatenate([WEIGHT, np.zeros((1, 12, 3), np.float32)], axis=1)

    def test_floats_by_hand(self):
        out = np.full((1, 16, 16, 1), 99, np.float32)
        products.turned(self.weight, out)
        expected = np.zeros((1, 16, 16, 1), np.float32)
        expected[0, :3, :4, 0] = WEIGHT[0].T
        assert (out == expected).all()

    def test_halves_by_hand(self):
        """Two neighbours in h side by side; the last one's is 0."""
        out = np.full((1, 8, 16, 2), 99, np.uint16)
        products.turned(self.weight, out)
        zeros = [[[0, 0]] * 4] * 6
        expected = [[[1, 2], [4, 5], [7, 8], [10, 11]], [[3, 0], [6, 0], [9, 0], [12, 0]], *zeros]
        assert (out[:, :, :4] == halves([expected])).all()
        assert not out[:, :, 4:].any()

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("inputs", [16, 32, 48])
    def test_networks_and_whole_vectors(self, width, inputs):
        weight = torch.randn(3, inputs, width)
        padded = torch.nn.functional.pad(weight, (0, -width % 16)).transpose(1, 2)
        floats = np.full((3, padded.shape[1], inputs, 1), 99, np.float32)
        products.turned(weight.numpy(), floats)
        assert (floats[..., 0] == padded.numpy()).all()
        pairs = np.full((3, padded.shape[1] // 2, inputs, 2), 99, np.uint16)
        products.turned(weight.numpy(), pairs)
        assert (pairs == halves(padded.reshape(3, -1, 2, inputs).transpose(2, 3))).all()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 2.0**-126, -(2.0**-126)])
def test_numbers_of_their_own_kind_stay_so(number):
    """Smaller ones than 2⁻¹²⁶ may become 0, as wherever bf16 is stored."""
    weight = np.full((1, 16, 16), number, np.float32)
    for kernel in (products.packed, products.turned):
        out = np.empty((1, 8, 16, 2), np.uint16)
        kernel(weight, out)
        found = torch.tensor(out).view(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(found, np.float32(number))
        assert math.isnan(number) or (np.signbit(found) == np.signbit(number)).all()


@pytest.mark.parametrize(
    ("units", "floats", "pairs"),
    [
        ({}, False, False),
        ({"avx512f": False, "avx512bf16": False}, False, False),
        ({"avx512f": True}, True, False),
        ({"avx512f": True, "avx512bf16": True}, True, True),
        ({"avx512f": True, "avx512bf16": True, "amx-bf16": False}, True, True),
        ({"avx512f": True, "avx512bf16": True, "amx-bf16": True}, True, False),
    ],
)
def test_able_by_the_processors_units(units, floats, pairs, monkeypatch):
    monkeypatch.setattr(products, "UNITS", units)
    assert products.able(half=False) is floats
    assert products.able(half=True) is pairs


def test_a_chunk_is_whole_pairs_of_rows():
    assert products.CHUNK % 2 == 0
