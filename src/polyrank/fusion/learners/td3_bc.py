"""TD3+BC: TD3 whose actor is also drawn to the log's actions.

Fujimoto, Gu, "A Minimalist Approach to Offline Reinforcement Learning", NeurIPS 2021.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from polyrank.fusion.learners.td3 import TD3Config, fit_by
from polyrank.fusion.policy import Box, Fitted
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress


@dataclass(frozen=True)
class TD3BCConfig(TD3Config):
    """The paper's α.

    Has the fields of `TD3Config` too.

    Attributes:
        alpha: α: Q against imitation. Q is divided by its mean size: where rewards are far from 0 what actions change
            is a small part of Q, and α must be larger for the same pull.
        reach: see `TD3Config`; 1 keeps the actor in the box.
    """

    alpha: Annotated[float, Gt(0)] = 2.5
    reach: Annotated[float, Gt(0)] = 1.0


def fit(log: SessionLog, box: Box, config: TD3BCConfig, progress: Progress) -> Fitted:
    """Learn it from a log: max_π λ Q_1(s, π(s)) − mean (π(s) − a)², λ = α / mean |Q_1(s, π(s))|.

    Departure: λ is of π(s), as in the authors' code, not of the log's actions.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    return fit_by("td3_bc", log, box, config, partial(actor_loss, alpha=config.alpha), progress)


def actor_loss(q: Tensor, chosen: Tensor, logged: Tensor, alpha: float) -> Tensor:
    """Mean (π(s) − a)² − λ mean Q, λ = α / mean |Q|: see `fit`; gradients do not pass through λ."""
    scale = alpha / q.detach().abs().mean().clamp_min(1e-6)
    return (chosen - logged).square().mean() - scale * q.mean()
