import pytest
import torch

from polyrank.training import precision


@pytest.mark.parametrize("chosen", ["bf16", "float32"])
def test_what_is_asked_for_is_taken(chosen):
    assert precision.resolve(chosen) == chosen


@pytest.mark.parametrize(
    ("units", "times", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, 0.5, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, 2.3, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, 0.5, "float32"),
        ({"amx_bf16": False, "avx512_bf16": True}, 1.1, "float32"),
        ({"amx_bf16": False, "avx512_bf16": False}, 2.3, "float32"),
    ],
)
def test_auto_is_bf16_where_products_of_it_are_clearly_faster(monkeypatch, units, times, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    monkeypatch.setattr(precision, "speedup", lambda: times)
    assert precision.resolve("auto") == expected


def test_the_speedup_is_measured_once_in_a_process():
    assert precision.speedup() == precision.speedup() > 0


def test_a_processor_that_says_nothing_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert precision.resolve("auto") == "float32"


def test_products_are_in_that_precision():
    x = torch.full((2, 2), 1.0 + 2**-12)  # not a bf16 number
    with precision.computing_in("float32"):
        assert (x @ torch.eye(2)).dtype == torch.float32
    with precision.computing_in("bf16"):
        product = x @ torch.eye(2)
    assert product.dtype == torch.bfloat16
    assert product.float().eq(1.0).all()
