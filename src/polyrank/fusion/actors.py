"""What learned policies are when they serve: numpy alone, weights and a few products. S state numbers, K weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from polyrank.fusion.forward import Network
from polyrank.fusion.learners.linear import scale_arrays, scales
from polyrank.fusion.policy import Box, Policy, Standard
from polyrank.metrics.checks import Rows

_ROWS = 8_192  # states at a time: what candidates of many of them take of memory


@dataclass(frozen=True, eq=False)
class ActorPolicy(Policy):
    """w = reach · tanh f(s) in half-widths of the box: 1 cannot leave it."""

    kind = "actor"
    standard: Standard
    box: Box
    actor: Network
    reach: float

    def act(self, states: Rows) -> Rows:
        """See `Policy`."""
        return self.box.weights(self.reach * np.tanh(self.actor(self.standard(states))[0]))

    def arrays(self) -> dict[str, Rows]:
        """The scales' and the network's."""
        return scale_arrays(self.standard, self.box) | self.actor.arrays("actor")

    def document(self) -> dict[str, Any]:
        """The reach."""
        return {"reach": self.reach}

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        return cls(*scales(arrays), Network.of(arrays, "actor"), float(document["reach"]))


@dataclass(frozen=True, eq=False)
class CandidatePolicy(Policy):
    """argmax_i min_j Q_j(s, a_i) of candidates a_i = D(s, z_i) + ρ · tanh P(s, D(s, z_i)), within the box.

    Attributes:
        latents: `[n, L]` z_i, the same for every state.
        rho: ρ.
    """

    kind = "candidates"
    standard: Standard
    box: Box
    decoder: Network
    perturbation: Network
    critics: Network
    latents: Rows
    rho: float

    def act(self, states: Rows) -> Rows:
        """See `Policy`."""
        states = self.standard(states)
        chosen = [self._best(states[at : at + _ROWS]) for at in range(0, len(states), _ROWS)]
        return self.box.weights(np.concatenate([np.empty((0, len(self.box.low)), np.float32), *chosen]))

    def _best(self, states: Rows) -> Rows:
        seen = states[:, None]
        made = np.tanh(self.decoder(seen, self.latents[None])[0])
        moved = np.clip(made + self.rho * np.tanh(self.perturbation(seen, made)[0]), -1, 1)
        best = self.critics(seen, moved).min(axis=0)[..., 0].argmax(axis=1)
        return np.asarray(moved[np.arange(len(states)), best])

    def arrays(self) -> dict[str, Rows]:
        """The scales', the networks', the latents."""
        networks = {"decoder": self.decoder, "perturbation": self.perturbation, "critics": self.critics}
        found = scale_arrays(self.standard, self.box) | {"latents": self.latents}
        for name, network in networks.items():
            found |= network.arrays(name)
        return found

    def document(self) -> dict[str, Any]:
        """ρ."""
        return {"rho": self.rho}

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        decoder, perturbation, critics = (Network.of(arrays, name) for name in ("decoder", "perturbation", "critics"))
        return cls(*scales(arrays), decoder, perturbation, critics, arrays["latents"], float(document["rho"]))
