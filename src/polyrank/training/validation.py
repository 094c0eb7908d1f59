"""What validation data can say, and which evaluation is the best."""

import math
from collections.abc import Mapping, Sequence

import torch

from polyrank.data.loader import Loader
from polyrank.errors import DataError, UserError
from polyrank.progress import Progress


def check_plan(metric: str, tasks: Sequence[str], smoothing: float, space: str) -> None:
    """What training asks of its config.

    Raises:
        UserError: the metric is neither `mean` nor a task, or labels are smoothed where losses are of their products.
    """
    if metric not in ("mean", *tasks):
        raise UserError(
            "train.metric must be 'mean' or a task's name",
            received=metric,
            mend=f"one of: mean, {', '.join(tasks)}",
        )
    if smoothing and space != "own":
        raise UserError(
            "train.label_smoothing is for tasks that are trained on their own rows",
            received=f"label_smoothing = {smoothing} with space.training = {space!r}, whose losses are of joint labels",
            mend="set label_smoothing = 0, or space.training = 'own'",
        )


def check_validation(valid: Loader, tasks: Sequence[str], metric: str, progress: Progress) -> None:
    """Before the first step: which tasks can validation rank, that is, have two different labels there?

    Raises:
        DataError: none of those that the metric looks at.
    """
    low = torch.full((len(tasks),), math.inf)
    high = -low
    for batch in valid.in_order():
        low = torch.minimum(low, torch.where(batch.where, batch.labels, math.inf).amin(dim=0))
        high = torch.maximum(high, torch.where(batch.where, batch.labels, -math.inf).amax(dim=0))
    blind = [name for name, ranks in zip(tasks, (low < high).tolist(), strict=True) if not ranks]
    if metric in blind or len(blind) == len(tasks):
        raise DataError(
            f"validation data must be able to rank by the metric {metric!r}: it needs two different labels",
            received=", ".join(f"{name}: one class" for name in blind),
            mend="give more validation data, or another train.metric",
        )
    if blind and metric == "mean":
        progress.say(
            f"validation cannot rank {', '.join(blind)} (one class): the best checkpoint is chosen by the mean "
            "over the other tasks"
        )


def chosen(values: Mapping[str, float], metric: str) -> float:
    """The declared metric of an evaluation; a task that validation cannot rank (nan) is left out of the mean."""
    known = [v for name, v in values.items() if metric in ("mean", name) and not math.isnan(v)]
    return sum(known) / len(known)
