import numpy as np
import pytest

from polyrank.fusion.scaling import Scaling

COLUMNS = {
    "like": np.array([np.exp(-1.0), np.exp(-3.0)]),
    "hate": np.array([0.0, 0.4]),
    "length": np.array([10.0, 20.0]),
}


def fitted():
    return Scaling.fit(COLUMNS, ("like", "hate"), ("length",), ("hate",))


def test_by_hand():
    z, c = fitted().inputs(COLUMNS)
    # Logarithms −1 and −3 have mean −2 and deviation 1. Of hate, 0 becomes the floor .2, and the sign is turned.
    np.testing.assert_allclose(z, [[1, 1], [-1, -1]])
    # The quantiles of two values are ¼ and ¾.
    np.testing.assert_allclose(c, [[-0.5], [0.5]])


def test_beyond_the_training_rows_heads_go_on_and_context_stays():
    far = {"like": np.array([1.0, 0.0]), "hate": np.array([1.0, 1.0]), "length": np.array([-1e9, 1e9])}
    z, c = fitted().inputs(far)
    assert z[0, 0] == pytest.approx(2.0)
    assert z[1, 0] == pytest.approx(-1 - np.log(2))  # 0 is the floor: half the smallest
    np.testing.assert_allclose(c, [[-0.5], [0.5]])


def test_a_constant_and_a_never_positive_head_are_harmless():
    columns = {"like": np.full(3, 0.2), "hate": np.zeros(3)}
    z, _ = Scaling.fit(columns, ("like", "hate"), (), ()).inputs(columns)
    np.testing.assert_array_equal(z, np.zeros((3, 2)))


def test_document_and_back():
    scaling = fitted()
    assert Scaling.restore(scaling.document()) == scaling
    with pytest.raises(ValueError, match="as many"):
        Scaling.restore({**scaling.document(), "means": [0.0]})
