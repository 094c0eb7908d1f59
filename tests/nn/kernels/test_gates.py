"""The references are torch's softmax and sums, and their autograd in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from polyrank.nn.fused import _addresses
from polyrank.nn.kernels import gates as kernels
from polyrank.nn.kernels.threads import follow_torch

ALL = np.empty((0, 0), np.float32)  # no masks
ROWS = 75  # not a multiple of the rows that a thread takes at a time
GATES = [[0, 1, 4], [3], [1, 0, 2, 3], [4, 4]]  # an expert alone, in any order, and twice


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def plan(gates):
    starts = np.cumsum([0, *map(len, gates)]).astype(np.int64)
    return starts, np.array([e for gate in gates for e in gate], np.int64)


def mixed(experts, logits, gates, width):
    """The kernel's mixtures `[I, B, H]` and weights; `experts` as groups of `[M, B, H]`, however they lie in memory."""
    out = torch.full((len(gates), len(logits), width), torch.nan)
    weights = torch.full(logits.shape, torch.nan)
    kernels.mix(*_addresses(experts), logits.numpy(), *plan(gates), weights.numpy(), out.numpy())
    return out, weights


def reference(experts, logits, gates):
    starts = plan(gates)[0]
    shares = [torch.softmax(logits[:, a:z], dim=1) for a, z in pairwise(starts)]
    out = [
        sum(share[:, k, None] * experts[e] for k, e in enumerate(gate))
        for share, gate in zip(shares, gates, strict=True)
    ]
    return torch.stack(out), torch.cat(shares, dim=1)


def laid_out(layout, experts, width):
    """The same experts `[E, B, H]` in groups: each expert's rows together, or all experts' rows side by side."""
    if layout == "stacked":
        return [experts[:2].contiguous(), experts[2:].contiguous()]
    count, rows, _ = experts.shape
    product = torch.full((rows, count * width + 5), torch.nan)  # beside them stand gate logits
    product[:, : count * width] = experts.transpose(0, 1).flatten(1)
    return [product[:, : count * width].unflatten(1, (count, width)).transpose(0, 1)]


@pytest.mark.parametrize("layout", ["stacked", "strided"])
@pytest.mark.parametrize("width", [16, 32, 64, 80, 128])
@pytest.mark.parametrize("count", [1, 2])
def test_mixtures_and_gradients_agree_with_autograd(layout, width, count):
    torch.set_num_threads(count)
    assert follow_torch() == count
    experts = torch.randn(5, ROWS, width)
    logits = torch.randn(ROWS, 10) * 3
    groups = laid_out(layout, experts, width)
    out, weights = mixed(groups, logits, GATES, width)
    exact, exact_logits = experts.double().requires_grad_(), logits.double().requires_grad_()
    expected, shares = reference(exact, exact_logits, GATES)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(weights.double(), shares, rtol=1e-5, atol=1e-7)
    gradient = torch.randn_like(out)
    (expected * gradient.double()).sum().backward()
    slopes = torch.full_like(logits, torch.nan)
    targets = laid_out(layout, torch.full_like(experts, torch.nan), width)
    given = (*_addresses(groups), weights.numpy(), *plan(GATES))
    kernels.mix_back(*given, ALL, gradient.numpy(), *_addresses(targets), slopes.numpy())
    torch.testing.assert_close(torch.cat(targets).double(), exact.grad, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(slopes.double(), exact_logits.grad, rtol=1e-5, atol=2e-5)
    if layout == "strided":
        assert targets[0].transpose(0, 1)._base is None or torch.isnan(targets[0]._base[:, -5:]).all()


@pytest.mark.parametrize("width", [16, 48, 64, 112])
def test_masks_act_on_what_experts_are_given_and_on_nothing_else(width):
    experts, logits, masks = torch.randn(5, ROWS, width), torch.randn(ROWS, 10), torch.rand(10, width)
    _, weights = mixed([experts], logits, GATES, width)
    gradient, starts = torch.randn(len(GATES), ROWS, width), plan(GATES)[0]
    expected = torch.zeros_like(experts, dtype=torch.float64)
    for i, gate in enumerate(GATES):
        for k, e in enumerate(gate, start=starts[i]):
            expected[e] += weights[:, k, None].double() * masks[k] * gradient[i]
    found, plain = torch.full_like(experts, torch.nan), torch.empty_like(experts)
    slopes, same = torch.empty_like(logits), torch.empty_like(logits)
    given = (*_addresses([experts]), weights.numpy(), *plan(GATES))
    kernels.mix_back(*given, masks.numpy(), gradient.numpy(), *_addresses([found]), slopes.numpy())
    kernels.mix_back(*given, ALL, gradient.numpy(), *_addresses([plain]), same.numpy())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=5e-6)
    assert torch.equal(slopes, same)


@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 128])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", ["stacked", "strided"])
def test_in_bf16_only_what_goes_in_and_out_is_rounded(layout, masked, width):
    experts, logits = torch.randn(5, ROWS, width).bfloat16(), torch.randn(ROWS, 10)
    exact, weights = mixed([experts.float()], logits, GATES, width)
    groups = [group.bfloat16() for group in laid_out(layout, experts.float(), width)]
    out = torch.zeros(len(GATES), ROWS, width, dtype=torch.bfloat16)
    shares = torch.empty_like(logits)
    kernels.mix(*_addresses(groups), logits.numpy(), *plan(GATES), shares.numpy(), out.view(torch.uint16).numpy())
    assert torch.equal(shares, weights)
    assert torch.equal(out, exact.bfloat16())
    gradient = torch.randn(out.shape).bfloat16()
    found, slopes, exact_slopes = torch.zeros_like(experts), torch.empty_like(logits), torch.empty_like(logits)
    target = torch.empty(experts.shape)
    masks = np.random.default_rng(0).random((10, width), np.float32) if masked else ALL
    given = (weights.numpy(), *plan(GATES), masks)
    held = gradient.view(torch.uint16).numpy()
    kernels.mix_back(*_addresses(groups), *given, held, *_addresses([found]), slopes.numpy())
    whole = experts.float()
    kernels.mix_back(
        *_addresses([whole]), *given, gradient.float().numpy(), *_addresses([target]), exact_slopes.numpy()
    )
    assert torch.equal(found, target.bfloat16())
    assert torch.equal(slopes, exact_slopes)


def test_an_expert_that_no_gate_sees_gets_zero():
    experts, logits = torch.randn(3, ROWS, 16), torch.randn(ROWS, 2)
    _, weights = mixed([experts], logits, [[0, 2]], 16)
    target, slopes = torch.full_like(experts, torch.nan), torch.empty_like(logits)
    gradient = torch.randn(1, ROWS, 16)
    kernels.mix_back(
        *_addresses([experts]),
        weights.numpy(),
        *plan([[0, 2]]),
        ALL,
        gradient.numpy(),
        *_addresses([target]),
        slopes.numpy(),
    )
    assert not target[1].any()
    assert target[[0, 2]].any(dim=2).all()


def test_by_hand():
    experts = torch.tensor([2.0, 4.0])[:, None, None].expand(2, 1, 16).contiguous()
    out, weights = mixed([experts], torch.tensor([[0.0, math.log(3.0)]]), [[0, 1]], 16)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(out, torch.full((1, 1, 16), 3.5))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4, 3e38])
def test_large_logits_do_not_overflow(shift):
    experts = torch.randn(3, 4, 16)
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, -100.0, 0.0], [0.0, 90.0, 89.0], [-3e38, 0.0, -1e30]]) + shift
    out, weights = mixed([experts], logits, [[0, 1, 2]], 16)
    torch.testing.assert_close(weights, torch.softmax(logits, dim=1), rtol=1e-6, atol=1e-30)
    assert out.isfinite().all()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_stays_in_its_row_and_gate(place):
    experts, logits = torch.randn(3, 4, 16), torch.randn(4, 5)
    logits[1, place] = torch.nan
    out, weights = mixed([experts], logits, [[0, 1, 2], [1, 2]], 16)
    assert weights[1, :3].isnan().all()
    assert out[0, 1].isnan().all()
    assert not weights[[0, 2, 3]].isnan().any()
    assert not out[1].isnan().any()


@pytest.mark.parametrize("experts", [1, 3, 16, 17, 35])
def test_as_many_experts_as_there_are(experts):
    """More than a vector's lanes, and numbers of them that no vector is filled by."""
    gates = [list(range(experts)), [experts - 1], list(range(experts // 2, experts))]
    values, logits = torch.randn(experts, ROWS, 32), torch.randn(ROWS, sum(map(len, gates)))
    out, weights = mixed([values], logits, gates, 32)
    exact, exact_logits = values.double().requires_grad_(), logits.double().requires_grad_()
    expected, shares = reference(exact, exact_logits, gates)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(weights.double(), shares, rtol=1e-5, atol=1e-7)
    gradient = torch.randn_like(out)
    (expected * gradient.double()).sum().backward()
    target, slopes = torch.full_like(values, torch.nan), torch.full_like(logits, torch.nan)
    given = (*_addresses([values]), weights.numpy(), *plan(gates))
    kernels.mix_back(*given, ALL, gradient.numpy(), *_addresses([target]), slopes.numpy())
    torch.testing.assert_close(target.double(), exact.grad, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(slopes.double(), exact_logits.grad, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("masks", [ALL, np.random.default_rng(0).random((10, 48), np.float32)])
def test_threads_change_no_bit(masks):
    experts, logits = torch.randn(5, 500, 48), torch.randn(500, 10)
    gradient = torch.randn(len(GATES), 500, 48)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        assert follow_torch() == count
        out, weights = mixed([experts], logits, GATES, 48)
        target, slopes = torch.full_like(experts, torch.nan), torch.full_like(logits, torch.nan)
        given = (*_addresses([experts]), weights.numpy(), *plan(GATES), masks, gradient.numpy())
        kernels.mix_back(*given, *_addresses([target]), slopes.numpy())
        results.append((out, weights, target, slopes))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
