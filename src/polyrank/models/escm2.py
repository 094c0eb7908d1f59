"""ESCM²: an MMoE whose conversion task is corrected by inverse propensities, or doubly robustly.

Wang et al., "ESCM²: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation", SIGIR
2022.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, Level
from polyrank.nn.inputs import InputColumns, Inputs


@dataclass(frozen=True)
class ESCM2Config(GatedConfig):
    """Experts and their layers, see `GatedConfig`; sizes are those of PaddleRec, the paper's own were not recovered.

    Attributes:
        experts: E.
    """

    experts: Annotated[int, Gt(0)] = 8
    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (16,)


class ESCM2(nn.Module):
    """The backbone: f_t(x) = Σ_e softmax(W_t x)_e · f_e(x), a gate per task, without bias.

    What makes it ESCM² is its loss, L_CTR + λ_c·L_CVR + λ_g·L_CTCVR (see `polyrank.spaces`), the default with
    `escm2_ips` (`space.training = "ips"`) and `escm2_dr` (`"dr"`, where each task with a parent has one more gate and
    tower, for the imputation). PaddleRec's weights are λ_c = λ_g = 0.5.

    Departures: propensities are clipped from below (0.05) instead of capping their inverse at 15, and carry no gradient
    (ports leak it); the imputation tower learns from its own risk alone, and the task from the corrected one, as in
    doubly robust joint learning; an imputed error is a softplus, since cross-entropy has no upper bound (in PaddleRec
    it is a probability).

    Args:
        in_width: D.
        tasks: T, imputation towers among them.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: ESCM2Config, columns: InputColumns | None = None) -> None:
        super().__init__()
        self.tasks, self.experts = tasks, config.experts
        gates = [range(config.experts)] * tasks
        read = config.gate_columns(columns)
        groups = [(config.experts, tasks * config.experts)]
        self.level = Level(in_width, groups, gates, config.widths, gate_columns=read, **config.style)
        self.out_width = self.level.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        mixed: Tensor = self.level([x])[0]
        return mixed

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The gates' weights over the E experts."""
        weights = self.level([x])[1].unflatten(1, (self.tasks, self.experts))
        names = tuple((SHARED, index) for index in range(self.experts))
        return [GateWeights(1, task, names, weights[:, task]) for task in range(self.tasks)]
