"""References are products in float64 of what the layers read: in bf16, of the operands rounded."""

import math
from itertools import pairwise

import pytest
import torch

from polyrank.nn import stacked
from polyrank.nn.kernels import products, scores
from polyrank.nn.kernels.threads import follow_torch
from polyrank.nn.layers import Dropout

NETWORKS = 3
CHUNK = products.CHUNK
ROWS = [1, 2, 3, 4, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5]
WIDTHS = [16, 32, 48, 80, 128, 144]
NONE = Dropout(0.0)

needs_floats = pytest.mark.skipif(not products.able(half=False), reason="the processor has no AVX512")
needs_halves = pytest.mark.skipif(
    not products.able(half=True), reason="the processor has no AVX512-BF16, or has AMX, which is faster"
)
KINDS = [torch.float32, pytest.param(torch.bfloat16, marks=needs_halves)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """`threads(n)`; afterwards as before."""
    before = torch.get_num_threads()

    def use(count):
        torch.set_num_threads(count)
        assert follow_torch() == count

    yield use
    torch.set_num_threads(before)
    follow_torch()


@pytest.fixture
def torch_only(monkeypatch):
    """`torch_only()`: from now on no layer is a kernel's."""
    return lambda: monkeypatch.setattr(stacked, "_suits", lambda *_: False)


@pytest.fixture
def called(monkeypatch):
    """The names of the kernels of layers that were called, in turn."""
    names = []

    def count(name):
        kernel = getattr(products, name)

        def counting(*arguments):
            names.append(name)
            return kernel(*arguments)

        monkeypatch.setattr(products, name, counting)

    count("layer")
    count("layer_back")
    return names


def operands(rows, inputs, width, rectified=None, kind=torch.float32, networks=NETWORKS):
    """x, weight and bias; outputs are about 1."""
    x = torch.randn(networks, rows, inputs).to(kind)
    weight = torch.randn(networks, inputs, width) / math.sqrt(inputs)
    return x, weight, torch.randn(networks, width if rectified is None else rectified)


def gradient_of(layer):
    """A random gradient of a layer's output; 0 where that is filled up to sixteen numbers."""
    gradient = torch.randn(layer.output.shape).to(layer.output.dtype)
    gradient[:, :, layer.weight.shape[2] :] = 0.0
    return gradient


def in_a_larger_product(x, extra=16):
    """The same values as a part of `[B, extra + M·K + extra]`; and that, elsewhere 7."""
    networks, rows, width = x.shape
    whole = torch.full((rows, networks * width + 2 * extra), 7.0, dtype=x.dtype)
    part = whole[:, extra:-extra].view(rows, networks, width).transpose(0, 1)
    part.copy_(x)
    return part, whole


def assert_near(found, exact, *, relative=0.0, largest=2e-6):
    """Within `relative` of every number and `largest` of the largest."""
    assert found.shape == exact.shape
    bound = largest * exact.abs().max().item() if exact.numel() else 0.0
    torch.testing.assert_close(found.double(), exact, rtol=relative, atol=bound)


def bounds(kind):
    """Of numbers in `kind`: bf16 has eight bits, so that one rounding is at most 2⁻⁸."""
    return {} if kind == torch.float32 else {"relative": 2.0**-8, "largest": 1e-5}


def held_weight(weight, kind):
    """As products read it."""
    return weight.to(kind).double()


def assert_layer(layer, bias):
    """A layer without dropout gives what float64 gives."""
    exact = layer.read.double() @ held_weight(layer.weight, layer.read.dtype)
    exact[:, :, : layer.rectified] = (exact[:, :, : layer.rectified] + bias.double()[:, None]).clamp(min=0)
    width = layer.weight.shape[2]
    assert_near(layer.output[:, :, :width], exact, **bounds(layer.read.dtype))
    assert not layer.output[:, :, width:].any()


def assert_back(layer, gradient, scale, found):
    """So does its backward, where its own output says what the ReLU stopped.

    In bf16 the bias' gradient is the sum of what is not rounded yet, and products read what is.
    """
    kind, width, rectified = layer.read.dtype, layer.weight.shape[2], layer.rectified
    passed = gradient[:, :, :width].clone().float()
    passed[:, :, :rectified] *= scale
    passed[:, :, :rectified][layer.output[:, :, :rectified] <= 0] = 0.0
    read = passed.to(kind).double()
    weight, bias, to = found
    largest = 2e-6 if kind == torch.float32 else 1e-5
    assert weight.dtype == bias.dtype == torch.float32
    assert to.dtype == kind
    assert_near(weight, layer.read.double().transpose(1, 2) @ read, largest=largest)
    assert_near(bias, passed[:, :, :rectified].double().sum(dim=1), largest=largest)
    assert_near(to, read @ held_weight(layer.weight, kind).transpose(1, 2), **bounds(kind))


def assert_right(x, weight, bias, *, scale=1.0, to=None):
    layer = stacked.run(x, weight, bias, NONE)
    assert_layer(layer, bias)
    gradient = gradient_of(layer)
    found = stacked.run_back(layer, gradient.clone(), scale, to)
    assert_back(layer, gradient, scale, found)
    return layer, found


class TestRun:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rows", ROWS)
    def test_any_number_of_rows(self, rows, kind):
        assert_right(*operands(rows, 48, 80, kind=kind))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("inputs", WIDTHS)
    def test_any_widths(self, inputs, width, kind):
        assert_right(*operands(7, inputs, width, kind=kind))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("networks", [1, 2, products.PARTS - 1, products.PARTS + 1])
    def test_any_number_of_networks(self, networks, kind):
        """Few are split into parts, each with sums of its own."""
        assert_right(*operands(3 * CHUNK + 2, 16, 32, kind=kind, networks=networks))

    @pytest.mark.parametrize("kind", KINDS)
    def test_more_chunks_than_parts(self, kind):
        assert_right(*operands((products.PARTS + 3) * CHUNK + 1, 16, 16, kind=kind, networks=1))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rows", [1, 5, CHUNK + 1])
    @pytest.mark.parametrize(("width", "rectified"), [(37, 32), (17, 16), (95, 64), (130, 128), (48, 16), (144, 32)])
    def test_outputs_beyond_the_rectified_have_neither_bias_nor_relu(self, width, rectified, rows, kind):
        layer, found = assert_right(*operands(rows, 32, width, rectified, kind))
        assert layer.rectified == rectified
        assert found[0].shape == (NETWORKS, 32, width)
        assert found[1].shape == (NETWORKS, rectified)
        assert (layer.output[:, :, rectified:] < 0).any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_none_need_be_rectified(self, kind):
        assert_right(*operands(CHUNK + 3, 16, 21, 0, kind))

    @needs_floats
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("width", "padded"), [(32, 32), (33, 48), (47, 48)])
    def test_outputs_are_filled_up_to_sixteen(self, width, padded, kind, called):
        x, weight, bias = operands(5, 16, width, 32, kind)
        assert stacked.run(x, weight, bias, NONE).output.shape == (NETWORKS, 5, padded)
        assert called == ["layer"]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rows", [1, 6, CHUNK + 3])
    def test_input_and_its_gradient_may_be_parts_of_larger_products(self, rows, kind):
        x, weight, bias = operands(rows, 48, 37, 32, kind)
        part, _ = in_a_larger_product(x)
        to, whole = in_a_larger_product(torch.full_like(x, 5.0), extra=32)
        layer, found = assert_right(part, weight, bias, to=to)
        assert torch.equal(layer.output, stacked.run(x, weight, bias, NONE).output)
        assert found[2].data_ptr() == to.data_ptr()
        assert torch.equal(found[2], to)
        assert (whole[:, :32] == 7).all()
        assert (whole[:, -32:] == 7).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_networks_may_read_the_same_input(self, kind):
        x, weight, bias = operands(CHUNK + 1, 32, 48, kind=kind)
        assert_right(x[:1].expand(NETWORKS, -1, -1), weight, bias)

    def test_the_weight_need_not_be_contiguous(self):
        x, weight, bias = operands(5, 32, 48)
        assert_right(x, weight.transpose(1, 2).contiguous().transpose(1, 2), bias)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("scale", [1.25, 3.0])
    def test_the_scale_of_dropout(self, scale, kind):
        assert_right(*operands(CHUNK + 1, 48, 37, 32, kind), scale=scale)

    @pytest.mark.parametrize("kind", KINDS)
    def test_dropout_of_what_is_rectified(self, kind):
        dropout = Dropout(0.3)
        x, weight, bias = operands(CHUNK + 1, 48, 80, 48, kind)
        without = stacked.run(x, weight, bias, NONE).output
        torch.manual_seed(3)
        layer = stacked.run(x, weight, bias, dropout)
        torch.manual_seed(3)
        factors = dropout.factors(dropout.bits(torch.Size((NETWORKS, CHUNK + 1, 48))), torch.float32)
        assert torch.equal(layer.output[:, :, :48], (without[:, :, :48].float() * factors).to(kind))
        assert torch.equal(layer.output[:, :, 48:], without[:, :, 48:])
        gradient = gradient_of(layer)
        assert_back(layer, gradient, dropout.scale, stacked.run_back(layer, gradient.clone(), dropout.scale))

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_not_a_number_stays_so(self, kind):
        x, weight, bias = operands(6, 32, 37, 32, kind)
        x[1, 3, 9] = math.nan
        bias[2, 20] = math.nan
        expected = torch.zeros(NETWORKS, 6, 37, dtype=torch.bool)
        expected[1, 3] = expected[2, :, 20] = True
        layer = stacked.run(x, weight, bias, NONE)
        assert torch.equal(layer.output[:, :, :37].isnan(), expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_of_what_is_not_a_number_pass(self, kind):
        x, weight, bias = operands(CHUNK + 1, 32, 48, kind=kind)
        bias[1, 20] = math.nan
        layer = stacked.run(x, weight, bias, NONE)
        gradient = gradient_of(layer)
        own, bias_gradient, _ = stacked.run_back(layer, gradient.clone(), 1.25)
        exact = 1.25 * gradient[1, :, 20].double().sum()
        torch.testing.assert_close(bias_gradient[1, 20].double(), exact, rtol=1e-5, atol=1e-4)
        assert not own.isnan().any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_gradient_that_is_not_a_number_passes_where_the_relu_lets_it(self, kind):
        x, weight, bias = operands(6, 32, 48, kind=kind)
        bias[0, 3], bias[1, 4] = 1e3, -1e3
        layer = stacked.run(x, weight, bias, NONE)
        gradient = gradient_of(layer)
        gradient[0, 2, 3] = gradient[1, 5, 4] = math.nan
        own, bias_gradient, to = stacked.run_back(layer, gradient, 1.0)
        assert own.isnan().any(dim=1).nonzero().tolist() == [[0, 3]]
        assert own[0, :, 3].isnan().all()
        assert bias_gradient.isnan().nonzero().tolist() == [[0, 3]]
        assert to.isnan().any(dim=2).nonzero().tolist() == [[0, 2]]
        assert to[0, 2].isnan().all()

    @needs_floats
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("networks", [1, 3])
    def test_threads_change_no_bit(self, networks, kind, threads, called):
        x, weight, bias = operands(5 * CHUNK + 3, 48, 80, kind=kind, networks=networks)
        results = []
        for count in (1, 2):
            threads(count)
            layer = stacked.run(x, weight, bias, NONE)
            torch.manual_seed(1)
            results.append([layer.output, *stacked.run_back(layer, gradient_of(layer), 1.25)])
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
        assert called == ["layer", "layer_back"] * 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_row_does_not_depend_on_the_others(self, kind):
        x, weight, bias = operands(2 * CHUNK + 5, 48, 80, kind=kind)
        whole = stacked.run(x, weight, bias, NONE).output
        for row in (0, 3, CHUNK - 1, CHUNK, 2 * CHUNK + 4):
            alone = stacked.run(x[:, row : row + 1], weight, bias, NONE).output
            assert_near(alone, whole[:, row : row + 1].double(), **bounds(kind))


class TestWithoutKernels:
    @pytest.mark.parametrize(("width", "rectified"), [(48, 48), (37, 32)])
    def test_torch_gives_the_same(self, width, rectified, torch_only, called):
        x, weight, bias = operands(CHUNK + 1, 32, width, rectified)
        layer, found = assert_right(x, weight, bias, scale=1.25)
        before = len(called)
        torch_only()
        other, others = assert_right(x, weight, bias, scale=1.25)
        assert len(called) == before
        assert_near(layer.output[:, :, :width], other.output.double())
        assert [each.shape for each in found] == [each.shape for each in others]

    @needs_halves
    def test_torch_gives_the_same_in_bf16(self, torch_only):
        x, weight, bias = operands(CHUNK + 1, 32, 48, kind=torch.bfloat16)
        layer = stacked.run(x, weight, bias, NONE)
        gradient = gradient_of(layer)
        found = stacked.run_back(layer, gradient.clone(), 1.25)
        torch_only()
        # Rounded also between the product and the bias, and the weight's gradient too.
        assert_near(layer.output, stacked.run(x, weight, bias, NONE).output.double(), relative=2**-6, largest=2**-8)
        others = stacked.run_back(layer, gradient.clone(), 1.25)
        for one, other in zip(found, others, strict=True):
            assert one.dtype == other.dtype
            assert_near(one, other.double(), relative=2**-7, largest=2**-9)

    def test_torch_writes_where_it_is_told(self, torch_only):
        x, weight, bias = operands(6, 32, 48)
        to, whole = in_a_larger_product(torch.full_like(x, 5.0))
        torch_only()
        _, found = assert_right(x, weight, bias, to=to)
        assert found[2].data_ptr() == to.data_ptr()
        assert (whole[:, :16] == 7).all()
        assert (whole[:, -16:] == 7).all()

    @pytest.mark.parametrize(("inputs", "width", "rectified"), [(17, 32, 32), (1, 16, 16), (32, 17, 17), (32, 40, 33)])
    def test_other_widths_are_torchs(self, inputs, width, rectified, called):
        layer, _ = assert_right(*operands(9, inputs, width, rectified))
        assert layer.output.shape[2] == width
        assert called == []

    @needs_floats
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("inputs", "width", "kernels"), [(256, 256, True), (256, 272, False), (272, 256, False)])
    def test_large_layers_are_torchs(self, inputs, width, kernels, kind, called):
        assert (inputs * width <= stacked._LARGEST) == kernels
        x, weight, bias = operands(5, inputs, width, kind=kind, networks=1)
        layer = stacked.run(x, weight, bias, NONE)
        stacked.run_back(layer, gradient_of(layer), 1.0)
        assert called == (["layer", "layer_back"] if kernels else [])

    @needs_floats
    def test_large_layers_are_right_either_way(self):
        assert_right(*operands(CHUNK + 1, 256, 256, networks=1))
        assert_right(*operands(CHUNK + 1, 256, 272, networks=1))


class TestLayers:
    def parameters(self, widths):
        found = []
        for inputs, outputs in pairwise(widths):
            _, weight, bias = operands(1, inputs, outputs)
            found += [weight.requires_grad_(), bias[:, None].requires_grad_()]
        return found

    @pytest.mark.parametrize("widths", [(32, 48), (48, 80, 32), (32, 20, 16), (80, 64, 33, 48)])
    @pytest.mark.parametrize("rows", [1, 5, CHUNK + 1])
    def test_agrees_with_autograd(self, widths, rows):
        """Some layers by kernels, others by torch."""
        parameters = self.parameters(widths)
        exact = [p.detach().double().requires_grad_() for p in parameters]
        x = torch.randn(NETWORKS, rows, widths[0])
        read = y = x.double().requires_grad_()
        for weight, bias in zip(exact[::2], exact[1::2], strict=True):
            y = torch.relu(y @ weight + bias)
        layers = stacked.forward([p.detach() for p in parameters], x, NONE)
        assert_near(layers[-1].output, y.detach())
        gradient = torch.randn(y.shape)
        y.backward(gradient.double())
        to, whole = in_a_larger_product(torch.empty_like(x))
        found, back = stacked.backward(layers, gradient, 1.0, to)
        assert back.data_ptr() == to.data_ptr()
        assert (whole[:, :16] == 7).all()
        assert (whole[:, -16:] == 7).all()
        for one, other in zip([back, *found], [read, *exact], strict=True):
            assert_near(one, other.grad, largest=5e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_layer_reads_what_the_one_before_gave(self, kind):
        dropout = Dropout(0.25)
        parameters = self.parameters((32, 48, 80))
        x = torch.randn(NETWORKS, CHUNK + 1, 32).to(kind)
        torch.manual_seed(4)
        first, second = stacked.forward([p.detach() for p in parameters], x, dropout)
        torch.manual_seed(4)
        expected = stacked.run(x, parameters[0].detach(), parameters[1].detach()[:, 0], dropout)
        assert torch.equal(first.output, expected.output)
        expected = stacked.run(first.output, parameters[2].detach(), parameters[3].detach()[:, 0], dropout)
        assert torch.equal(second.output, expected.output)
        assert second.read is first.output
        gradient = gradient_of(second)
        found, back = stacked.backward([first, second], gradient.clone(), dropout.scale)
        *last, middle = stacked.run_back(second, gradient.clone(), dropout.scale)
        *own, to = stacked.run_back(first, middle, dropout.scale)
        assert torch.equal(back, to)
        for one, other in zip(found, [*own, *last], strict=True):
            assert torch.equal(one.view(other.shape), other)
        assert [each.shape for each in found] == [p.shape for p in parameters]

    def test_no_layers(self):
        gradient = torch.randn(2, 3, 16)
        assert stacked.forward([], gradient, NONE) == []
        found, back = stacked.backward([], gradient, 1.0)
        assert found == []
        assert back is gradient


class TestLast:
    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("width", [1, 15, 16, 17, 40, 48, 144])
    @pytest.mark.parametrize("rows", [1, 5, scores.CHUNK, 2 * scores.CHUNK + 5])
    def test_agrees_with_a_product(self, rows, width, kind):
        read, weight, _ = operands(rows, width, 1, kind=kind)
        bias = torch.randn(NETWORKS, 1, 1)
        found = stacked.last(read, weight, bias)
        assert found.dtype == torch.float32
        assert_near(found, (read.double() @ weight.double() + bias.double())[:, :, 0].t())
        gradient = torch.randn(rows, NETWORKS)
        own, bias_gradient, to = stacked.last_back(read, weight, gradient)
        outer = gradient.double().t()[:, :, None]
        assert_near(own, read.double().transpose(1, 2) @ outer)
        assert_near(bias_gradient, outer.sum(dim=1, keepdim=True))
        assert to.dtype == kind
        assert torch.equal(to, (outer.float() * weight[:, None, :, 0]).to(kind))  # rounded once, if at all

    @pytest.mark.parametrize("width", [16, 17])
    def test_the_gradient_need_not_be_contiguous(self, width):
        read, weight, _ = operands(9, width, 1)
        gradient = torch.randn(NETWORKS, 9).t()
        found = stacked.last_back(read, weight, gradient)
        expected = stacked.last_back(read, weight, gradient.contiguous())
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other.double())

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    def test_threads_change_no_bit(self, kind, threads):
        read, weight, _ = operands(3 * scores.CHUNK + 1, 48, 1, kind=kind)
        bias, gradient = torch.randn(NETWORKS, 1, 1), torch.randn(len(read[0]), NETWORKS)
        results = []
        for count in (1, 2):
            threads(count)
            results.append([stacked.last(read, weight, bias), *stacked.last_back(read, weight, gradient)])
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("layout", ["shared", "by row", "a part"])
    @pytest.mark.parametrize("width", [16, 17])
    def test_what_it_reads_need_not_be_contiguous(self, width, layout, kind):
        """As a linear tower reads one vector for all tasks."""
        if layout == "shared":
            read = torch.randn(1, 9, width).to(kind).expand(NETWORKS, -1, -1)
        elif layout == "by row":
            read = torch.randn(9, NETWORKS, width).transpose(0, 1).to(kind)
        else:
            read = torch.randn(NETWORKS, 9, 2 * width).to(kind)[:, :, :width]
        _, weight, _ = operands(1, width, 1)
        bias, gradient = torch.randn(NETWORKS, 1, 1), torch.randn(9, NETWORKS)
        same = read.contiguous()
        assert_near(stacked.last(read, weight, bias), stacked.last(same, weight, bias).double())
        found, expected = (stacked.last_back(each, weight, gradient) for each in (read, same))
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other.double())


class TestNoRows:
    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_are_zero(self, kind):
        layer = stacked.run(*operands(0, 32, 48, kind=kind), NONE)
        assert layer.output.shape == (NETWORKS, 0, 48)
        weight, bias, to = stacked.run_back(layer, gradient_of(layer), 1.0)
        assert (weight == 0).all()
        assert (bias == 0).all()
        assert to.shape == (NETWORKS, 0, 32)

    @pytest.mark.parametrize("width", [16, 17])
    def test_nor_are_there_scores(self, width):
        read, weight, _ = operands(0, width, 1)
        assert stacked.last(read, weight, torch.zeros(NETWORKS, 1, 1)).shape == (0, NETWORKS)
        own, bias, to = stacked.last_back(read, weight, torch.zeros(0, NETWORKS))
        assert not own.any()
        assert not bias.any()
        assert to.shape == read.shape


class TestAnyStrides:
    @pytest.mark.parametrize("kind", KINDS)
    def test_numbers_of_a_row_may_lie_apart(self, kind):
        x, weight, bias = operands(9, 32, 48, kind=kind)
        assert_right(x.transpose(1, 2).contiguous().transpose(1, 2), weight, bias)
