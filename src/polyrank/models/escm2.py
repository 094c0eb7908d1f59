"""ESCM²: an MMoE whose conversion task is corrected by inverse propensities, or doubly robustly.

Wang et al., "ESCM²: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation", SIGIR
2022.

The network is that of `polyrank.models.mmoe`; what makes it ESCM² is its loss, L_CTR + λ_c·L_CVR + λ_g·L_CTCVR (see
`polyrank.spaces`), the default with `escm2_ips` (`space.training = "ips"`) and `escm2_dr` (`"dr"`, where each task with
a parent has one more gate and tower, for the imputation). PaddleRec's weights are λ_c = λ_g = 0.5.

Departures: propensities are clipped from below (0.05) instead of capping their inverse at 15, and carry no gradient
(ports leak it); the imputation tower learns from its own risk alone, and the task from the corrected one, as in doubly
robust joint learning; an imputed error is a softplus, since cross-entropy has no upper bound (in PaddleRec it is a
probability).
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen

from polyrank.nn.experts import GatedConfig


@dataclass(frozen=True)
class ESCM2Config(GatedConfig):
    """Experts and their layers, see `GatedConfig`; sizes are those of PaddleRec, the paper's own were not recovered.

    Attributes:
        experts: E.
    """

    experts: Annotated[int, Gt(0)] = 8
    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (16,)
