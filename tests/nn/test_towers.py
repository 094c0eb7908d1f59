"""Towers: a network per task, and as many logits as the task needs."""

import weakref

import pytest
import torch

from polyrank.nn.towers import RaggedLinear, Towers


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestTowers:
    @pytest.mark.parametrize("plainly", [True, False])
    @pytest.mark.parametrize("widths", [(), (5,), (5, 3)])
    def test_agrees_with_a_loop_over_tasks(self, widths, plainly):
        towers = Towers(3, 4, widths, biases=[[0.5], [-1.0], [2.0]])
        x = torch.randn(3, 7, 4)
        logits = towers.plainly(x) if plainly else towers(x)
        for task in range(3):
            hidden = x[task]
            for layer in towers.hidden.layers:
                hidden = torch.relu(hidden @ layer.weight[task] + layer.bias[task])
            logit = hidden @ towers.output.weight[task] + towers.output.bias[task]
            torch.testing.assert_close(logits[:, task], logit[:, 0])

    def test_one_row_and_one_task_keep_their_axes(self):
        assert Towers(1, 4, (3,), biases=[[0.0]])(torch.randn(1, 1, 4)).shape == (1, 1)

    def test_the_output_is_no_relu(self):
        towers = Towers(1, 4, (8,), biases=[[-3.0]])
        assert towers(torch.zeros(1, 5, 4)).tolist() == [[-3.0]] * 5

    @pytest.mark.parametrize("plainly", [True, False])
    @pytest.mark.parametrize("widths", [(), (5,), (5, 3)])
    def test_tasks_of_several_logits_agree_with_a_loop(self, widths, plainly):
        towers = Towers(3, 4, widths, biases=[[0.5], [-1.0, 2.0, 3.0], [1.0, 1.5]])
        assert isinstance(towers.output, RaggedLinear)
        x = torch.randn(3, 7, 4, requires_grad=True)
        logits = towers.plainly(x) if plainly else towers(x)
        assert logits.shape == (7, 6)
        expected = []
        for task, (first, end) in enumerate([(0, 1), (1, 4), (4, 6)]):
            hidden = x[task]
            for layer in towers.hidden.layers:
                hidden = torch.relu(hidden @ layer.weight[task] + layer.bias[task])
            expected.append(hidden @ towers.output.weight[:, first:end] + towers.output.bias[first:end])
        expected = torch.cat(expected, dim=1)
        torch.testing.assert_close(logits, expected)
        parameters = [x, *towers.parameters()]
        weights = torch.randn(7, 6)
        found = torch.autograd.grad((logits * weights).sum(), parameters)
        by_loop = torch.autograd.grad((expected * weights).sum(), parameters)
        torch.testing.assert_close(found, by_loop)

    def test_both_paths_drop_the_same(self):
        towers = Towers(2, 4, (8, 8), dropout=0.5, biases=[[0.0, 0.0], [0.0]])
        x = torch.randn(2, 6, 4)
        torch.manual_seed(1)
        one = towers(x)
        torch.manual_seed(1)
        torch.testing.assert_close(one, towers.plainly(x))

    def test_a_batch_leaves_no_graph_behind(self):
        """What the backward keeps must not hold the output that holds the backward."""
        towers = Towers(2, 4, (8,), biases=[[0.0, 0.0], [0.0]])
        x = torch.randn(2, 6, 4)
        kept = weakref.ref(x)
        towers(x)
        del x
        assert kept() is None

    def test_each_task_of_several_logits_starts_within_its_own_bounds(self):
        layer = RaggedLinear(6, [1, 30])
        assert layer.weight[:, 0].abs().max() <= 1.0
        assert layer.weight[:, 1:].abs().max() <= 1 / 30
        assert layer.weight[:, 1:].std().item() == pytest.approx(3**-0.5 / 30, rel=0.15)
