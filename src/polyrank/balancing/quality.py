"""How well a batch's predictions fit its labels, task by task: the key metrics of DTP. B rows, T tasks."""

import torch
from torch import Tensor

_SHIFTS = 4  # each row is compared with so many others


def concordance(predictions: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    """The share of pairs of rows with different labels that predictions order alike, ties half; NaN without a pair.

    For binary labels it is an unbiased estimate of the AUC. Pairs are each row and a few that stand at fixed distances
    after it, so that nothing is sorted: rows are in random order anyway.

    Args:
        predictions: `[B, T]`.
        labels: `[B, T]`.
        where: `[B, T]` bool: which rows count.

    Returns:
        `[T]` float64.
    """
    rows, tasks = labels.shape
    right = torch.zeros(tasks, dtype=torch.float64)
    pairs = torch.zeros(tasks, dtype=torch.float64)
    for number in range(1, _SHIFTS + 1):
        shift = max(1, rows * number // (2 * _SHIFTS + 1))
        # Twice a difference that is 0 where rows tie: −1, 0 or 1 for the order of each.
        order = torch.sign(labels - labels.roll(shift, 0)) * (where & where.roll(shift, 0))
        alike = order * torch.sign(predictions - predictions.roll(shift, 0))
        count = order.abs().nan_to_num().sum(dim=0, dtype=torch.float64)
        pairs += count
        right += 0.5 * (count + alike.nan_to_num().sum(dim=0, dtype=torch.float64))
    return right / pairs


def accuracy(predictions: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    """The share of rows on whose side of ½ the prediction is, `[T]` float64; NaN without a row. For binary labels."""
    right = ((predictions > 0.5) == (labels > 0.5)) & where
    return right.sum(dim=0).double() / where.sum(dim=0).double()
