"""The Balancer protocol: task losses → one gradient; and the registry of balancers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor

from polyrank.balancing import adaptive, gradients, learned, magnitudes, surgery, weights
from polyrank.balancing.step import Step


class Balancer(Protocol):
    """Sees losses and a way to ask for gradients, never the model or a config file. Made as `cls(task names, config)`.

    Everything is counted in steps, so that it acts within the first epoch. A task without a row in the batch has no
    part in that step. `state_dict` and `load_state_dict` carry what is remembered, so that a resumed run equals an
    uninterrupted one.
    """

    combines: bool
    """Whether it combines gradients, instead of weighing losses."""

    again: bool
    """Before the forward pass: whether it wants this step's losses once more after the update."""

    def backward(self, step: Step) -> Tensor:
        """Accumulate one gradient for the whole model: `step.pull`, then `step.push`.

        Returns:
            `[T]` the weights that were used, detached, 0 for an absent task.
        """

    def after(self, losses: Tensor, present: Tensor) -> None:
        """The same batch's losses `[T]` after the update, where `again` was true."""

    def state_dict(self) -> dict[str, Any]:
        """What must be saved."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What was saved."""


@dataclass(frozen=True)
class Entry:
    """A balancer and its config."""

    kind: Any
    config: Any


BALANCERS: Mapping[str, Entry] = MappingProxyType(
    {
        "static": Entry(weights.Static, weights.StaticConfig),
        "ple_dynamic": Entry(weights.PLEDynamic, weights.PLEDynamicConfig),
        "uncertainty": Entry(learned.Uncertainty, learned.UncertaintyConfig),
        "dwa": Entry(adaptive.DWA, adaptive.DWAConfig),
        "dtp": Entry(adaptive.DTP, adaptive.DTPConfig),
        "gradnorm": Entry(learned.GradNorm, learned.GradNormConfig),
        "gls": Entry(weights.Geometric, weights.GeometricConfig),
        "rlw": Entry(weights.Random, weights.RandomConfig),
        "imtl_l": Entry(learned.IMTLL, learned.IMTLLConfig),
        "famo": Entry(learned.FAMO, learned.FAMOConfig),
        "stch": Entry(adaptive.STCHWeighting, adaptive.STCHConfig),
        "scale_invariant": Entry(weights.ScaleInvariant, weights.ScaleInvariantConfig),
        "lbtw": Entry(adaptive.LBTW, adaptive.LBTWConfig),
        "mgda": Entry(gradients.MGDA, gradients.MGDAConfig),
        "pcgrad": Entry(surgery.PCGrad, surgery.PCGradConfig),
        "gradvac": Entry(surgery.GradVac, surgery.GradVacConfig),
        "cagrad": Entry(gradients.CAGrad, gradients.CAGradConfig),
        "imtl_g": Entry(gradients.IMTLG, gradients.IMTLGConfig),
        "nash_mtl": Entry(gradients.NashMTL, gradients.NashMTLConfig),
        "aligned_mtl": Entry(gradients.AlignedMTL, gradients.AlignedMTLConfig),
        "graddrop": Entry(surgery.GradDrop, surgery.GradDropConfig),
        "fairgrad": Entry(gradients.FairGrad, gradients.FairGradConfig),
        "db_mtl": Entry(magnitudes.DBMTL, magnitudes.DBMTLConfig),
        "sdmgrad": Entry(magnitudes.SDMGrad, magnitudes.SDMGradConfig),
        "excess_mtl": Entry(magnitudes.ExcessMTL, magnitudes.ExcessMTLConfig),
        "upgrad": Entry(gradients.UPGrad, gradients.UPGradConfig),
        "metabalance": Entry(magnitudes.MetaBalance, magnitudes.MetaBalanceConfig),
        "pe_ltr": Entry(gradients.PELTR, gradients.PELTRConfig),
    }
)


def build_balancer(method: str, tasks: Sequence[str], config: Any) -> Balancer:
    """Make the balancer `method` for tasks of these names."""
    balancer: Balancer = BALANCERS[method].kind(tasks, config)
    return balancer
