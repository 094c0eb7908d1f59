import pytest
import torch

from polyrank.training import precision


@pytest.mark.parametrize("chosen", ["bf16", "float32"])
def test_what_is_asked_for_is_taken(chosen):
    assert precision.resolve(chosen) == chosen


@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16"), (False, "float32")])
def test_auto_is_bf16_only_where_the_processor_has_tiles(monkeypatch, amx, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx, "avx512_bf16": True})
    assert precision.resolve("auto") == expected


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
