"""Sample spaces as a tree of `given` relations: losses on a task's own rows, on the entire space, or corrected.

B rows, T tasks, π(t) the parent of t, ROOT where it has none; p_t = σ(z_t) = p(t | π(t)). Conversions are seen on
clicks only, but a ranker asks p(conversion | click) of every exposure; who clicks converts otherwise than who does not,
and a model of clicked rows alone learns that (sample selection bias). The five trainings of a task with a parent:

    own     the masked loss: mean of ℓ(z_t, y_t) over the rows of its sample space
    entire  ESMM (Ma et al., SIGIR 2018), on any tree: cross-entropy of c_t = Π p_s over the path to t, and the joint
            label, over all rows where that is defined; p_t itself has no loss
    direct  AITM (Xi et al., KDD 2021): z_t is the logit of the joint event itself, with that same cross-entropy, and
            the calibrator α · mean max(σ(z_t) − σ(z_π(t)), 0), since no more can convert than click
    ips     ESCM²-IPS (Wang et al., SIGIR 2022): λ_c · inverse-propensity risk + λ_g · the loss of `entire`
    dr      ESCM²-DR: λ_c · (doubly robust risk + imputation risk) + λ_g · the loss of `entire`

The propensity of t's sample space is c_π(t), clipped below and without gradient. Tasks that are roots always have their
masked loss, and so have, under `entire` and `direct`, tasks that are not binary: a number has no probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional

from polyrank.data.paths import ROOT
from polyrank.losses import binary_cross_entropy, masked_mean

Training = Literal["auto", "own", "entire", "direct", "ips", "dr"]


@dataclass(frozen=True)
class SpaceConfig:
    """`[space]`: on which rows a task `given` another is trained.

    Attributes:
        training: `own`, `entire`, `direct`, `ips` or `dr`, see `polyrank.spaces`; `auto`: what the architecture's paper
            does, which is `own` but for the ESMM family and AITM.
        correction_weight: λ_c of `ips` and `dr`, the weight of the corrected risk.
        joint_weight: λ_g of `ips` and `dr`, the weight of the joint loss over all rows.
        propensity_floor: propensities count as no less: no row weighs more than its inverse. A higher floor means less
            variance, and more bias where few click.
        self_normalised: divide by the sum of the inverse propensities instead of the number of rows: less variance, and
            a bias that vanishes with the batch size.
        imputation: what the imputation tower of `dr` predicts for binary tasks. `error`: a row's error, as in ESCM²; so
            the task's own tower gets the gradient of `ips`, and only shared layers feel the imputation. `label`: a
            pseudo label, whose loss is the imputed error, so that rows without a label teach the task too.
        calibrator_weight: α of `direct`; AITM uses 0.6 with two tasks.
    """

    training: Training = "auto"
    correction_weight: Annotated[float, Ge(0)] = 0.5
    joint_weight: Annotated[float, Ge(0)] = 0.5
    propensity_floor: Annotated[float, Interval(gt=0, le=1)] = 0.05
    self_normalised: bool = False
    imputation: Literal["error", "label"] = "error"
    calibrator_weight: Annotated[float, Ge(0)] = 0.6


OWN = SpaceConfig("own")


def log_joint(logits: Tensor, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The logarithms of c_t and of 1 − c_t, c_t = Π σ(z_s) over the path to t.

    1 − c is the probability that the chain stops at some node: Σ_k (1 − p_k)·Π_{j<k} p_j. Summed as logarithms this
    needs no clamp, and keeps its gradient where c rounds to 1.

    Args:
        logits: `[B, T]` z, of binary tasks at least along every path.
        parents: `[T]`.

    Returns:
        Both `[B, T]`.
    """
    happens, stops = functional.logsigmoid(logits).unbind(1), functional.logsigmoid(-logits).unbind(1)

    def chain(task: int) -> tuple[Tensor, Tensor]:
        if parents[task] == ROOT:
            return happens[task], stops[task]
        before, already = chain(parents[task])
        return before + happens[task], torch.logaddexp(already, before + stops[task])

    pairs = [chain(task) for task in range(len(parents))]
    return torch.stack([yes for yes, _ in pairs], dim=1), torch.stack([no for _, no in pairs], dim=1)


def conditional(logits: Tensor, parents: Sequence[int]) -> Tensor:
    """p(t | π(t)) = σ(z_t) / σ(z_π(t)), at most 1, where z are joint logits (`direct`): `[B, T]` → `[B, T]`."""
    happens = functional.logsigmoid(logits)
    above = [happens[:, parent] if parent != ROOT else torch.zeros_like(happens[:, 0]) for parent in parents]
    return torch.exp((happens - torch.stack(above, dim=1)).clamp(max=0.0))


@dataclass(frozen=True)
class Seen:
    """Which rows of an exposure space D show a label, and how likely that was.

    Attributes:
        observed: `[B]` bool, o.
        propensities: `[B]` p̂ > 0, without gradient.
        weights: `[B]` the rows' weights, 0 outside D; |D| is their sum.
        self_normalised: divide corrections by Σ o/p̂ instead of |D|.
    """

    observed: Tensor
    propensities: Tensor
    weights: Tensor
    self_normalised: bool = False


def inverse_propensity(errors: Tensor, seen: Seen) -> Tensor:
    """R = (1/|D|) Σ_D o·e/p̂: without bias for the mean of e over D where p̂ is right.

    Args:
        errors: `[B]` e, finite also where it is not observed.
        seen: o, p̂ and D.

    Returns:
        A scalar; 0 where the divisor is 0.
    """
    inverse = seen.weights * seen.observed / seen.propensities
    return _mean(errors, inverse, inverse if seen.self_normalised else seen.weights)


def doubly_robust(errors: Tensor, imputed: Tensor, seen: Seen) -> Tensor:
    """R = (1/|D|) Σ_D [ê + o·(e − ê)/p̂]: without bias where p̂ is right, and where ê is, whatever the other is.

    Arguments as in `inverse_propensity`; `imputed` `[B]` is ê. Self-normalised, the correction alone is.
    """
    return _mean(imputed, seen.weights, seen.weights) + inverse_propensity(errors - imputed, seen)


def imputation_risk(errors: Tensor, imputed: Tensor, seen: Seen) -> Tensor:
    """R = (1/|D|) Σ_D o·(e − ê)²/p̂, with gradient for ê alone."""
    return inverse_propensity((errors.detach() - imputed).square(), seen)


def calibrator(lower: Tensor, upper: Tensor, weights: Tensor) -> Tensor:
    """AITM's behavioural expectation calibrator: mean of max(ŷ_t − ŷ_π(t), 0) over rows, from joint logits `[B]`."""
    return _mean(torch.relu(torch.sigmoid(lower) - torch.sigmoid(upper)), weights, weights)


def space_losses(
    errors: Tensor,
    logits: Tensor,
    imputations: Tensor,
    *,
    config: SpaceConfig,
    parents: Sequence[int],
    binary: Sequence[bool],
    labels: Tensor,
    where: Tensor,
    joint: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Each task's loss under a training. C tasks have a parent.

    A label that is missing inside a task's sample space counts as not observed: propensities know of clicks, not of it.

    Args:
        errors: `[B, T]` each row's own loss on each task, finite also where `where` is False.
        logits: `[B, T]` z of binary tasks; what stands in other columns is not looked at.
        imputations: `[B, C]` the imputation towers' outputs, in the order of the tasks; looked at under `dr` alone.
        config: the training, resolved (not `auto`), and its knobs.
        parents: `[T]`.
        binary: `[T]`.
        labels: `[B, T]`, 0 where `where` is False.
        where: `[B, T]` bool, the tasks' own rows.
        joint: `[B, T]` joint labels, −1 where not defined; needed wherever a task has a parent.
        weights: `[B, T]` row weights or None.

    Returns:
        `[T]`; 0 without gradient where no row counts.
    """
    losses = masked_mean(errors, where, weights)
    children = [task for task, parent in enumerate(parents) if parent != ROOT]
    if config.training == "own" or not children:
        return losses
    assert joint is not None, "a tree needs joint labels"
    direct = config.training == "direct"
    log_yes, log_no = log_joint(logits, [ROOT] * len(parents) if direct else parents)
    entire = masked_mean(-torch.where(joint > 0, log_yes, log_no), joint >= 0, weights)  # 0 where a task is not binary
    counting = counting_rows(config, parents, binary, where, joint, weights)
    found = list(losses.unbind())
    for place, task in enumerate(children):
        above, rows = parents[task], counting[:, task]
        if config.training in ("entire", "direct"):
            if binary[task]:
                excess = calibrator(logits[:, task], logits[:, above], rows) if direct else 0.0
                found[task] = entire[task] + config.calibrator_weight * excess
            continue
        propensities = log_yes[:, above].detach().exp().clamp(min=config.propensity_floor)
        seen = Seen(where[:, task], propensities, rows, config.self_normalised)
        if config.training == "ips":
            corrected = inverse_propensity(errors[:, task], seen)
        else:
            pseudo = logits[:, task] if binary[task] and config.imputation == "label" else None
            corrected = _corrected(errors[:, task], imputations[:, place], seen, pseudo, labels[:, task])
        found[task] = config.correction_weight * corrected + config.joint_weight * entire[task]
    return torch.stack(found)


def counting_rows(
    config: SpaceConfig,
    parents: Sequence[int],
    binary: Sequence[bool],
    where: Tensor,
    joint: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """The weight with which each row stands behind each task's loss; arguments as in `space_losses`.

    A task's own rows; under `entire` and `direct` all on which a binary child's joint label is defined; under `ips` and
    `dr` all on which a child's parent was, or was not, reached.

    Returns:
        `[B, T]`.
    """
    rows = where
    if config.training != "own" and joint is not None:
        known, columns = joint >= 0, list(where.unbind(1))
        for task, parent in enumerate(parents):
            if parent != ROOT and config.training in ("ips", "dr"):
                columns[task] = known[:, parent]
            elif parent != ROOT and binary[task]:
                columns[task] = known[:, task]
        rows = torch.stack(columns, dim=1)
    return rows.float() if weights is None else rows * weights


def _corrected(error: Tensor, guess: Tensor, seen: Seen, logit: Tensor | None, label: Tensor) -> Tensor:
    """The doubly robust risk, and that of the imputation, which alone teaches the imputation tower."""
    if logit is None:
        imputed = functional.softplus(guess)
        return doubly_robust(error, imputed.detach(), seen) + imputation_risk(error, imputed, seen)
    imputed = binary_cross_entropy(logit, torch.sigmoid(guess).detach())
    return doubly_robust(error, imputed, seen) + inverse_propensity(binary_cross_entropy(guess, label), seen)


def _mean(values: Tensor, weights: Tensor, divisor: Tensor) -> Tensor:
    """Σ w·v / Σ divisor, 0 where that is 0."""
    total = divisor.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))
