"""A fusion that is a trained network: the network, the scaling of what it reads, and both saved without pickle."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from polyrank import config as configs
from polyrank.fusion.fusion import Document, Fusion
from polyrank.fusion.networks import NetworkConfig
from polyrank.fusion.scaling import Scaling
from polyrank.metrics.checks import Rows


@dataclass(frozen=True, eq=False)
class NetworkFusion(Fusion):
    """What learned fusions with a network share; they score in float64.

    In float32 rounding might turn close candidates round, and scores would depend on how requests are batched.

    Attributes:
        configured: the class of its knobs.
        scaling: of its heads and context.
        config: its knobs.
        net: the network, for scoring alone.
    """

    configured: ClassVar[type[NetworkConfig]]
    scaling: Scaling
    config: Any
    net: nn.Module

    def __post_init__(self) -> None:
        """Ready to score."""
        object.__setattr__(self, "heads", self.scaling.heads)
        object.__setattr__(self, "context", self.scaling.context)
        self.net.double().eval()

    @staticmethod
    @abstractmethod
    def network(scaling: Scaling, config: Any) -> nn.Module:
        """An untrained network of these sizes."""

    def document(self) -> Document:
        """Scaling and knobs."""
        return {"scaling": self.scaling.document(), "config": asdict(self.config)}

    def arrays(self) -> dict[str, Rows]:
        """The network's parameters."""
        return {name: values.numpy() for name, values in self.net.state_dict().items()}

    @classmethod
    def restore(cls, document: Document, arrays: Mapping[str, Rows]) -> Self:
        """See `Fusion.restore`."""
        scaling = Scaling.restore(document["scaling"])
        config = configs.build(cls.configured, document["config"], cls.kind)
        net = cls.network(scaling, config).double()
        try:
            net.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in arrays.items()})
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        return cls(scaling, config, net)
