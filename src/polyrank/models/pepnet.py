"""PEPNet: gates by domain features on the embeddings (EPNet), gates by personal features on every layer (PPNet).

Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior Information",
KDD 2023.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, TaskNetworks
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.layers import NetworkConfig, StackedLinear
from polyrank.nn.ownership import Owned, of_networks, of_stack

GAMMA = 2.0
"""γ: gates are in (0, 2), 1 at a logit of zero."""


@dataclass(frozen=True)
class PEPNetConfig(NetworkConfig):
    """Layers' widths are not in the paper. Has the fields of `NetworkConfig` too: the layers of each task's network.

    Attributes:
        domain: features that tell the domain (scenario) apart, by name: what EPNet's gate reads beside the embeddings.
        prior: features of the user, the item and its author, by name: what PPNet's gates read beside the embeddings.
        gate_width: units of the gates' hidden layer.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128, 64)
    domain: tuple[str, ...] = ()
    prior: tuple[str, ...] = ()
    gate_width: Annotated[int, Gt(0)] = 64


class PEPNet(nn.Module):
    """O = δ_domain ⊙ E and h_t^l = ReLU(h_t^{l−1} W_t^l + b_t^l) ⊙ δ_t^l, h_t⁰ = O.

    E is the input x. δ_domain = GateNU([e_domain; sg[E]]), δ_t^l = GateNU_t^l([e_prior; sg[O]]), with
    GateNU(a) = γ σ(W₁ ReLU(W₀ a + b₀) + b₁), γ = 2; sg stops the gradient, so that gates do not rewrite the embeddings
    that they personalise. Without names the gates read the stopped input alone.

    The paper's last layer is linear and has no gate: that is the tower, so `model.towers = []` is the paper's network,
    and a tower with hidden layers adds ungated ones. Domain features are part of x too.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x.

    Raises:
        ValueError: a name that no feature has.
    """

    domain: Tensor
    prior: Tensor

    def __init__(self, in_width: int, tasks: int, config: PEPNetConfig, columns: InputColumns) -> None:
        super().__init__()
        domain, prior = columns.of(config.domain), columns.of(config.prior)
        self.register_buffer("domain", torch.tensor(domain, dtype=torch.int64), persistent=False)
        self.register_buffer("prior", torch.tensor(prior, dtype=torch.int64), persistent=False)
        self.epnet = GateNU(len(domain) + in_width, config.gate_width, [in_width], 1)
        self.ppnet = GateNU(len(prior) + in_width, config.gate_width, list(config.widths), tasks)
        self.networks = TaskNetworks(in_width, tasks, config.widths, **config.style)
        self.out_width = self.networks.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        embedded = x.written()
        (gate,) = self.epnet(torch.cat([embedded[:, self.domain], embedded.detach()], dim=1))
        personal = gate[0] * embedded
        deltas = self.ppnet(torch.cat([embedded[:, self.prior], personal.detach()], dim=1))
        return cast("Tensor", self.networks(Inputs(personal), lambda layer, hidden: hidden * deltas[layer]))

    def owned(self) -> Owned:
        """Each network and its gates; the domain's gate is everyone's."""
        tasks = self.ppnet.groups
        first = self.ppnet.first
        columns = torch.arange(tasks).repeat_interleave(first.weight.shape[2] // tasks)
        gates = [
            *((parameter, columns) for parameter in first.parameters()),
            *of_stack(self.ppnet.second, range(tasks)),
        ]
        return [*gates, *of_networks(self.networks, tasks)]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """None that mix experts: its gates scale units."""
        return []


class GateNU(nn.Module):
    """γ σ(W₁ ReLU(W₀ a + b₀) + b₁) for each of G groups and each of several layers; all first layers are one product.

    Args:
        in_width: A.
        hidden: units of each gate's hidden layer.
        widths: each layer's width.
        groups: G.
    """

    def __init__(self, in_width: int, hidden: int, widths: list[int], groups: int) -> None:
        super().__init__()
        self.groups, self.layers = groups, len(widths)
        self.first = StackedLinear(1, in_width, groups * len(widths) * hidden)
        self.second = nn.ModuleList(StackedLinear(groups, hidden, width) for width in widths)

    def forward(self, a: Tensor) -> list[Tensor]:
        """`[B, A]` → each layer's `[G, B, width]`."""
        hidden = torch.relu(self.first(a.unsqueeze(0))[0]).view(len(a), self.groups, self.layers, -1)
        return [
            GAMMA * torch.sigmoid(second(hidden[:, :, layer].transpose(0, 1)))
            for layer, second in enumerate(self.second)
        ]
