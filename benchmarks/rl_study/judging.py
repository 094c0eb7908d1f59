"""What the estimators say of a policy, from sessions that did not train it, and what the simulator says: the truth."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import Estimate, estimate
from polyrank.fusion.fqe import FQEConfig, fitted_q
from polyrank.fusion.linear_fqe import linear_fqe
from polyrank.fusion.policy import Box, Policy, Standard
from polyrank.fusion.ratios import kernel_ratio, lepski
from polyrank.fusion.sequential import paths, wpdis
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent

BANDWIDTHS = (0.15, 0.3, 0.6)  # of kernels, in half-widths of the box
REPLICATES = 100
EXITS = 0.01  # a policy that leaves the box in more than this share of states is not deployed


@dataclass(frozen=True)
class Judge:
    """A log held out for estimation, with states standardised and actions of [−1, 1] over the box."""

    log: SessionLog
    scaled: SessionLog
    standard: Standard
    box: Box
    gamma: float
    steps: int
    conservative: float

    @classmethod
    def of(cls, log: SessionLog, box: Box, gamma: float, steps: int, conservative: float) -> "Judge":
        """A judge that estimates from this log."""
        standard = Standard.of(log)
        scaled = replace(log, states=standard(log.states), actions=box.normalised(log.actions))
        return cls(log, scaled, standard, box, gamma, steps, conservative)

    def estimates(self, policy: Policy, seed: int) -> dict[str, Any]:
        """Linear FQE, FQE, conservative FQE and kernel PDIS of its value, its box-exit rate, and why it is unsafe."""
        actions = policy.act(self.log.states)
        exits = float(self.box.outside(actions).mean())
        found = {
            "linear": self._linear(policy),
            "fqe": self._fqe(actions, 0.0, seed),
            "conservative": self._fqe(actions, self.conservative, seed),
            "kernel": self._kernel(actions),
        }
        behaviour = float(np.mean(self.returns()))
        reasons = []
        if exits > EXITS:
            reasons.append(f"it leaves the box in {exits:.1%} of states")
        reasons += [
            f"{name}: {said['refusal']}" for name, said in found.items() if name != "kernel" and said["refusal"]
        ]
        return {**found, "exits": exits, "behaviour": behaviour, "unsafe": reasons}

    def returns(self) -> np.ndarray:
        """`[S]` the discounted return of each session of the log."""
        rewards = self.log.padded(self.log.rewards)
        return rewards @ self.gamma ** np.arange(rewards.shape[1])

    def _fqe(self, actions: np.ndarray, conservative: float, seed: int) -> dict[str, Any]:
        table = torch.from_numpy(self.box.normalised(actions))
        first = table[torch.from_numpy(self.log.starts[:-1])]

        def act(states: Tensor) -> Tensor:  # fitted_q asks for the whole log, and for the beginnings of its sessions
            return table if len(states) == len(table) else first

        config = FQEConfig(self.gamma, steps=self.steps, conservative=conservative, seed=seed)
        try:
            return _said(estimate(fitted_q(self.scaled, act, config, Silent()).terms, replicates=REPLICATES))
        except TrainingDiverged as error:
            return {"value": None, "refusal": f"it diverges ({error.received})"}

    def _linear(self, policy: Policy) -> dict[str, Any]:
        try:
            return _said(estimate(linear_fqe(self.log, policy.act, self.gamma), replicates=REPLICATES))
        except TrainingDiverged as error:
            return {"value": None, "refusal": f"it diverges ({error.received})"}

    def _kernel(self, actions: np.ndarray) -> dict[str, Any]:
        box, found = (self.box.low, self.box.high), []
        for bandwidth in BANDWIDTHS:
            try:
                ratios = kernel_ratio(
                    actions, self.log.actions, self.log.log_densities, bandwidth * self.box.half, box=box
                )
            except ValueError as error:
                return {"value": None, "refusal": str(error)}
            with np.errstate(divide="ignore"):
                terms = wpdis(paths(self.log, np.log(ratios) + self.log.log_densities, self.gamma))
            found.append(estimate(terms, replicates=REPLICATES))
        try:
            widths = [(one.interval.high - one.interval.low) / 2 for one in found]
            return _said(found[lepski([one.value for one in found], widths)])
        except ValueError:
            return {"value": None, "refusal": found[-1].refusal}


def _said(found: Estimate) -> dict[str, Any]:
    value = found.value if math.isfinite(found.value) else None
    return {"value": value, "low": found.interval.low, "high": found.interval.high, "refusal": found.refusal}
