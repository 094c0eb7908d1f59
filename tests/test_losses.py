"""The references are the textbook formulas in plain Python, and the same rows without the masked ones."""

import math

import pytest
import torch

from polyrank.losses import (
    LOSSES,
    binary_cross_entropy,
    masked_mean,
    poisson_deviance,
    row_losses,
    smoothed,
    squared_error,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def drawn(rows=40, share=0.6):
    """Logits, targets, mask and weights of a binary and a regression task; targets are 0 outside the mask."""
    logits = torch.randn(rows, 2) * 3
    where = torch.rand(rows, 2) < share
    targets = torch.stack([(torch.rand(rows) < 0.4).float(), torch.randn(rows)], dim=1) * where
    return logits, targets, where, torch.rand(rows, 2)


KINDS = ("binary", "regression")


def task_losses(logits, targets, *, kinds, where, weights=None):
    return masked_mean(row_losses(logits, targets, kinds), where, weights)


class TestElementwise:
    def test_binary_cross_entropy_by_hand(self):
        found = binary_cross_entropy(torch.tensor([0.0, 2.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.0, 0.25]))
        p = sigmoid(-1.0)
        soft = -0.25 * math.log(p) - 0.75 * math.log(1 - p)
        expected = [math.log(2), -math.log(sigmoid(2)), -math.log(1 - sigmoid(2)), soft]
        assert found.tolist() == pytest.approx(expected, rel=1e-6)

    def test_squared_error_by_hand(self):
        assert squared_error(torch.tensor([1.0, -2.0]), torch.tensor([4.0, -2.0])).tolist() == [9.0, 0.0]

    @pytest.mark.parametrize("label", [0.0, 1.0])
    @pytest.mark.parametrize("logit", [1e4, -1e4])
    def test_extreme_logits_cost_themselves(self, logit, label):
        z = torch.tensor([logit], requires_grad=True)
        loss = binary_cross_entropy(z, torch.tensor([label]))
        loss.sum().backward()
        wrong = (logit > 0) != (label == 1)
        assert loss.item() == (1e4 if wrong else 0.0)
        assert z.grad.item() == ((1.0 if logit > 0 else -1.0) if wrong else 0.0)

    def test_the_gradient_is_probability_minus_label(self):
        z = torch.randn(9, requires_grad=True)
        y = (torch.rand(9) < 0.5).float()
        binary_cross_entropy(z, y).sum().backward()
        torch.testing.assert_close(z.grad, torch.sigmoid(z.detach()) - y)

    def test_poisson_deviance_by_hand(self):
        # e^z − yz + ln y! is 1.712318 at y = 3, z = ln 2, and 3 − 3 ln 3 + ln 6 at μ = y.
        found = poisson_deviance(torch.tensor([math.log(2), math.log(3), 0.5]), torch.tensor([3.0, 3.0, 0.0]))
        assert found.tolist() == pytest.approx([1.712318 - 1.495923, 0.0, math.exp(0.5)], abs=1e-6)

    def test_poisson_deviance_has_the_gradient_of_the_likelihood_and_is_never_negative(self):
        z = (torch.randn(200) * 3).requires_grad_()
        y = torch.randint(0, 9, (200,)).float()
        loss = poisson_deviance(z, y)
        loss.sum().backward()
        torch.testing.assert_close(z.grad, torch.exp(z.detach()) - y)
        assert (loss > -1e-5).all()

    @pytest.mark.parametrize(("logit", "slope"), [(1e4, 0.0), (-1e4, -3.0)])
    def test_extreme_rates_stay_finite(self, logit, slope):
        z = torch.tensor([logit], requires_grad=True)
        loss = poisson_deviance(z, torch.tensor([3.0]))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert z.grad.item() == slope

    def test_a_task_kind_of_one_logit_has_a_loss(self):
        assert set(LOSSES) == {"binary", "regression", "count"}


class TestMaskedMean:
    def test_by_hand(self):
        values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
        where = torch.tensor([[True, False], [False, False], [True, True]])
        assert masked_mean(values, where).tolist() == [2.0, 30.0]
        weights = torch.tensor([[3.0, 9.0], [9.0, 9.0], [1.0, 0.5]])
        assert masked_mean(values, where, weights).tolist() == [(3 * 1 + 1 * 3) / 4, 30.0]

    def test_no_row_gives_zero(self):
        assert masked_mean(torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.bool)).tolist() == [0.0]
        assert masked_mean(torch.ones(0, 2), torch.zeros(0, 2, dtype=torch.bool)).tolist() == [0.0, 0.0]

    def test_weights_below_one_are_no_floor(self):
        # A floor of 1 under the total would shrink these to 0.001 of the mean.
        found = masked_mean(torch.tensor([[2.0], [4.0]]), torch.ones(2, 1, dtype=torch.bool), torch.full((2, 1), 5e-4))
        assert found.item() == pytest.approx(3.0, rel=1e-6)

    def test_a_common_factor_of_the_weights_cancels(self):
        values, where = torch.rand(9, 2), torch.rand(9, 2) < 0.7
        weights = torch.rand(9, 2)
        torch.testing.assert_close(masked_mean(values, where, weights), masked_mean(values, where, weights * 1000))


class TestTaskLosses:
    @pytest.mark.parametrize("weighted", [False, True])
    def test_agrees_with_a_loop_over_rows(self, weighted):
        logits, targets, where, weights = drawn()
        found = task_losses(logits, targets, kinds=KINDS, where=where, weights=weights if weighted else None)
        for task in range(2):
            total = mass = 0.0
            for row in range(len(logits)):
                if not where[row, task]:
                    continue
                z, y = logits[row, task].item(), targets[row, task].item()
                w = weights[row, task].item() if weighted else 1.0
                p = sigmoid(z)
                total += w * ((z - y) ** 2 if task else -y * math.log(p) - (1 - y) * math.log(1 - p))
                mass += w
            assert found[task].item() == pytest.approx(total / mass, rel=1e-5)

    @pytest.mark.parametrize(
        "kinds", [("binary", "binary"), ("regression", "regression"), KINDS, KINDS[::-1], ("count", "binary")]
    )
    def test_every_task_gets_its_own_loss(self, kinds):
        logits, targets, where, _ = drawn()
        targets = (targets > 0).float()
        found = task_losses(logits, targets, kinds=kinds, where=where)
        for task, kind in enumerate(kinds):
            inside = where[:, task]
            expected = LOSSES[kind](logits[inside, task], targets[inside, task]).mean()
            torch.testing.assert_close(found[task], expected)

    def test_masked_is_removed(self):
        logits, targets, where, weights = drawn()
        where[:, 1] = where[:, 0]  # so that whole rows can be taken out
        leaf, short = logits.clone().requires_grad_(), logits[where[:, 0]].requires_grad_()
        inside = where[:, 0]
        masked = task_losses(leaf, targets, kinds=KINDS, where=where, weights=weights)
        removed = task_losses(short, targets[inside], kinds=KINDS, where=where[inside], weights=weights[inside])
        torch.testing.assert_close(masked, removed)
        masked.sum().backward()
        removed.sum().backward()
        torch.testing.assert_close(leaf.grad[inside], short.grad)
        assert not leaf.grad[~inside].any()

    def test_what_stands_in_a_masked_row_is_never_seen(self):
        logits, targets, where, weights = drawn()
        other = torch.where(where, targets, torch.rand_like(targets))
        strange = torch.where(where, logits, torch.full_like(logits, 1e4))
        one = task_losses(logits, targets, kinds=KINDS, where=where, weights=weights)
        assert torch.equal(one, task_losses(strange, other, kinds=KINDS, where=where, weights=weights))

    def test_weight_zero_is_masked_bit_for_bit(self):
        logits, targets, where, weights = drawn()
        one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        everywhere = torch.ones_like(where)
        by_weight = task_losses(one, targets, kinds=KINDS, where=everywhere, weights=weights * where)
        by_mask = task_losses(other, targets, kinds=KINDS, where=where, weights=weights)
        assert torch.equal(by_weight, by_mask)
        by_weight.sum().backward()
        by_mask.sum().backward()
        assert torch.equal(one.grad, other.grad)

    def test_weights_of_one_are_no_weights(self):
        logits, targets, where, weights = drawn()
        plain = task_losses(logits, targets, kinds=KINDS, where=where)
        assert torch.equal(task_losses(logits, targets, kinds=KINDS, where=where, weights=weights**0), plain)

    @pytest.mark.parametrize("kinds", [("binary", "binary"), KINDS])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_task_without_rows_has_loss_zero_and_zero_gradient(self, kinds, weighted):
        logits, targets, where, weights = drawn()
        targets, where[:, 0] = (targets > 0).float(), False
        logits.requires_grad_()
        found = task_losses(logits, targets, kinds=kinds, where=where, weights=weights if weighted else None)
        assert found[0].item() == 0.0
        assert found[1].item() > 0.0
        found.sum().backward()
        assert not logits.grad[:, 0].any()
        assert torch.isfinite(logits.grad).all()

    @pytest.mark.parametrize("logit", [1e4, -1e4])
    def test_extreme_logits_stay_finite(self, logit):
        logits = torch.full((4, 2), logit, requires_grad=True)
        where = torch.tensor([[True, True]] * 3 + [[False, False]])
        found = task_losses(logits, torch.eye(4)[:, :2], kinds=KINDS, where=where)
        found.sum().backward()
        assert torch.isfinite(found).all()
        assert torch.isfinite(logits.grad).all()


def test_smoothed_labels_by_hand():
    labels = torch.tensor([[0.0, 0.0], [1.0, 7.0]])
    expected = torch.tensor([[0.1, 0.0], [0.9, 7.0]])
    torch.testing.assert_close(smoothed(labels, ["binary", "regression"], 0.2), expected)
    assert smoothed(labels, ["binary", "binary"], 0.0) is labels
