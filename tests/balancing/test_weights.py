"""L = Σ_k w_k L_k by hand."""

import pytest
import torch

from polyrank.balancing.weights import Static, StaticConfig

TASKS = ["click", "like", "watch"]
PRESENT = torch.tensor([True, True, True])


class TestStatic:
    def test_by_hand(self):
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        balancer = Static(TASKS, StaticConfig({"watch": 0.25, "click": 2.0}))
        weights = balancer.backward(x.square(), PRESENT)
        assert weights.tolist() == [2.0, 1.0, 0.25]
        # d(2·x₀² + x₁² + ¼·x₂²)
        assert x.grad.tolist() == [4.0, 4.0, 1.5]

    def test_weights_are_one_where_not_given(self):
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        Static(TASKS, StaticConfig()).backward(x * 5, PRESENT)
        assert x.grad.tolist() == [5.0, 5.0, 5.0]

    def test_gradients_accumulate(self):
        x = torch.ones(3, requires_grad=True)
        balancer = Static(TASKS, StaticConfig())
        for _ in range(2):
            balancer.backward(x * 1.0, PRESENT)
        assert x.grad.tolist() == [2.0, 2.0, 2.0]

    def test_weight_zero_leaves_a_task_untrained(self):
        x = torch.ones(3, requires_grad=True)
        Static(TASKS, StaticConfig({"like": 0.0})).backward(x * 1.0, PRESENT)
        assert x.grad.tolist() == [1.0, 0.0, 1.0]

    @pytest.mark.parametrize("unknown", ["Click", "purchase"])
    def test_a_weight_for_a_task_that_is_not_there_is_refused(self, unknown):
        with pytest.raises(ValueError, match=f"must name tasks .*Received: {unknown}"):
            Static(TASKS, StaticConfig({unknown: 1.0}))
