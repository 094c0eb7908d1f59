"""Features by hand."""

import numpy as np

from polyrank.fusion.quadratic import features


def test_features_by_hand():
    found = features(np.array([[2.0, 3.0]], np.float32), np.array([[0.5, -1.0]], np.float32))
    seen, done = [1, 2, 3], [1, 0.5, -1, 0.25, 1]
    expected = [s * d for s in seen for d in done] + [0.5 * -1] + [4, 6, 9]
    np.testing.assert_allclose(found, [expected])
