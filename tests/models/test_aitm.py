import torch

from polyrank.models.aitm import AITM, AITMConfig
from polyrank.nn.inputs import Inputs


def model_of(tasks=2, parents=None, width=2):
    """Each task's network and every matrix is the identity (for x ≥ 0)."""
    model = AITM(width, tasks, AITMConfig(widths=(width,)), parents=parents)
    with torch.no_grad():
        model.networks.groups[0].weight.copy_(torch.eye(width).repeat(1, tasks))
        for transfer in model.transfers:
            transfer.weight.copy_(torch.eye(width)[None])
        if model.attention is not None:
            model.attention.weight.copy_(torch.eye(width).expand(3, -1, -1))
    return model


class TestGolden:
    TOKENS = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])  # q = (1, 1), p = (2, 0)
    WANTED = torch.tensor([[1.804430, 0.195570]])

    def test_attention_of_two_tokens(self):
        """Scores 2/√2 and 4/√2, weights .195570 and .804430."""
        torch.testing.assert_close(model_of().attend(self.TOKENS), self.WANTED, rtol=0, atol=1e-6)

    def test_the_second_task_attends_over_its_own_vector_and_the_first(self):
        """Task 1 hands on (2, 0); task 2's network is made to give (1, 1)."""
        model = model_of()
        with torch.no_grad():
            model.networks.groups[0].weight[:, 2:] = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
        found = model(Inputs(torch.tensor([[2.0, 0.0]])))
        torch.testing.assert_close(found[0], torch.tensor([[2.0, 0.0]]))
        torch.testing.assert_close(found[1], self.WANTED, rtol=0, atol=1e-6)

    def test_values_keys_and_queries_are_three_matrices(self):
        model = model_of()
        with torch.no_grad():
            model.attention.weight[0] *= 3  # values
            model.attention.weight[1] *= 0  # keys: both tokens weigh alike
        torch.testing.assert_close(model.attend(self.TOKENS), torch.tensor([[4.5, 1.5]]))


def gradients_of(model, task):
    x = torch.rand(4, 2)
    model.zero_grad()
    model(Inputs(x))[task].sum().backward()
    weight = model.networks.groups[0].weight.grad
    return [bool(weight[:, 2 * t : 2 * t + 2].any()) for t in range(len(model.parents))]


def test_without_a_tree_the_order_is_the_chain():
    for parents in (None, (-1, -1, -1)):
        model = model_of(3, parents)
        assert model.parents == [-1, 0, 1]
        assert gradients_of(model, 0) == [True, False, False]
        assert gradients_of(model, 2) == [True, True, True]


def test_a_tree_says_who_hands_on_to_whom():
    """2 → 0 → 3, 2 → 1: children may stand before their parents."""
    model = model_of(4, (2, 2, -1, 0))
    assert gradients_of(model, 3) == [True, False, True, True]
    assert gradients_of(model, 1) == [False, True, True, False]
    assert gradients_of(model, 2) == [False, False, True, False]


def test_one_task_is_its_network_alone():
    model = model_of(1)
    x = torch.rand(3, 2)
    torch.testing.assert_close(model(Inputs(x))[0], x)
    assert model.attention is None


def test_the_papers_sizes():
    assert AITMConfig().widths == (128, 64, 32)
