"""PRL-PUTS: a contextual bandit over a grid of weights, with a Q for every component of the reward.

N steps, K weights, C components.
"""

import itertools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from polyrank import config as configs
from polyrank.errors import ConfigError, TrainingDiverged
from polyrank.fusion.learners.grid import GridPolicy
from polyrank.fusion.learners.returns import known, returns_to_go
from polyrank.fusion.policy import Box, Fitted, Standard
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress

REWARD = "reward"  # the first component
_CELLS = 4_096  # of a grid, at most
_LOOKS = 50
_STATES, _OTHERS = 512, 16  # on which the weights that matter are found


@dataclass(frozen=True)
class BanditConfig:
    """How it is learned.

    Attributes:
        components: signals of the log that Q predicts beside the reward, for another scalarisation later on.
        alpha: what the reward and each component count when a cell is chosen; empty: the reward 1, the rest 0.
        gamma: 0, as published: Q is what a step brings at once. Above 0: what it and the rest of its session bring,
            discounted, if the log's policy goes on; one step of policy improvement.
        varied: how many of the weights the grid varies; the others stay at the middle of the box.
        levels: values of each, evenly from one side of the box to the other; odd: the middle is one.
        hidden: the layers of the network.
        learning_rate: Adam's.
        batch_size: steps of the log a training step.
        steps: training steps.
        seed: of initial weights and batches.
    """

    components: tuple[str, ...] = ()
    alpha: tuple[float, ...] = ()
    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    varied: Annotated[int, Gt(0)] = 2
    levels: Annotated[int, Ge(2)] = 7
    hidden: tuple[Annotated[int, Gt(0)], ...] = (64, 64)
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    batch_size: Annotated[int, Gt(0)] = 1_024
    steps: Annotated[int, Gt(0)] = 6_000
    seed: Annotated[int, Ge(0)] = 0


def fit(log: SessionLog, box: Box, config: BanditConfig, progress: Progress) -> Fitted:
    """Regress every component on state and action, `min Σ_c (Q_c(s, a) − y_c)²`, and choose among the cells of a grid.

    The grid varies the `varied` weights that matter most: those k for which choosing a_k by the state, the others as
    logged, raises Q most. (The paper takes the two heads with the largest share of the utility, and ranges
    from their contribution curves; a log of weights does not hold the heads' scores. The range is the box.)

    Departures: the log's weights may be continuous, as an action is an input of Q; with a log that explored the grid
    itself it is the paper's method, and `polyrank.fusion.ope.snips` with the cells' probabilities its Reward@HIT.
    Components are standardised before the regression and predicted in their own units.

    Source: PRL-PUTS (Pinterest 2026, arXiv 2605.16344).

    Raises:
        ConfigError: a component is not a signal of the log, or the grid has too many cells.
        DataError: γ > 0, and every session was cut off.
        TrainingDiverged: the loss is not finite.
    """
    weights = log.actions.shape[1]
    _check(log, config, weights)
    names = (REWARD, *config.components)
    targets = np.stack([log.rewards, *(np.nan_to_num(log.signals[name]) for name in config.components)], axis=1)
    targets = returns_to_go(log, targets, config.gamma)
    rows = known(log, config.gamma)
    mean, spread = targets[rows].mean(axis=0), targets[rows].std(axis=0)
    spread[spread == 0] = 1.0
    standard = Standard.of(log)
    x = np.hstack([standard(log.states), box.normalised(log.actions)])
    y = ((targets - mean) / spread).astype(np.float32)
    network, curve = _regressed(x[rows], y[rows], config, progress)
    layers = [
        (m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy())
        for m in network
        if isinstance(m, nn.Linear)
    ]
    matrix, bias = layers[-1]
    layers[-1] = ((matrix * spread).astype(np.float32), (bias * spread + mean).astype(np.float32))
    alpha = np.array(config.alpha or (1.0, *(0.0 for _ in config.components)), np.float32)
    policy = GridPolicy(standard, box, np.zeros((1, weights), np.float32), tuple(layers), names, alpha)
    levels = np.linspace(-1, 1, config.levels, dtype=np.float32)
    rng = np.random.default_rng(config.seed)
    some, others = (rng.integers(0, len(log.states), rows) for rows in (_STATES, _OTHERS))
    gains = _gains(policy, log.states[some], box.normalised(log.actions[others]), levels)
    varied = np.sort(np.argsort(-gains, kind="stable")[: config.varied])
    grid = np.zeros((config.levels ** len(varied), weights), np.float32)
    grid[:, varied] = list(itertools.product(levels, repeat=len(varied)))
    chosen = GridPolicy(standard, box, grid, policy.layers, names, alpha)
    return Fitted(chosen, {"loss": curve})


def _gains(policy: GridPolicy, states: Rows, others: Rows, levels: Rows) -> Floats:
    """`[K]` mean over states and other weights `[A, K]` of max − mean of Q over the levels of one weight."""
    gains = np.empty(others.shape[1])
    for k in range(len(gains)):
        moved = np.repeat(others, len(levels), axis=0)
        moved[:, k] = np.tile(levels, len(others))
        q = (policy.q(states, moved) @ policy.alpha).reshape(len(states), len(others), len(levels))
        gains[k] = (q.max(axis=2) - q.mean(axis=2)).mean()
    return gains


def _regressed(
    x: Rows, y: Rows, config: BanditConfig, progress: Progress
) -> tuple[nn.Sequential, list[tuple[int, float]]]:
    """The network, and (step, mean loss since the last look)."""
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        widths = (x.shape[1], *config.hidden, y.shape[1])
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    inputs, wanted = torch.from_numpy(x), torch.from_numpy(y)
    curve: list[tuple[int, float]] = []
    every = max(1, config.steps // _LOOKS)
    total, since = torch.zeros(()), 0
    with progress.bar("the bandit's Q", config.steps, unit="steps") as bar:
        for step in range(1, config.steps + 1):
            for group in optimizer.param_groups:  # to 0 in a line: the noise of the last batches stays out of argmax
                group["lr"] = config.learning_rate * (1 - (step - 1) / config.steps)
            at = torch.randint(len(inputs), (config.batch_size,), generator=generator)
            loss: Tensor = (network(inputs[at]) - wanted[at]).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, since = total + loss.detach(), since + 1
            if step % every == 0 or step == config.steps:
                curve.append((step, float(total) / since))
                bar.advance(since)
                total, since = torch.zeros(()), 0
                if not np.isfinite(curve[-1][1]):
                    received, mend = f"{curve[-1][1]} after {step:,} steps", "lower its learning_rate"
                    raise TrainingDiverged("the loss of the bandit's Q must be finite", received=received, mend=mend)
    return network, curve


def _check(log: SessionLog, config: BanditConfig, weights: int) -> None:
    for name in config.components:
        if name not in log.signals:
            rule, mend = "a component of the bandit is a signal of the log", configs.nearest(name, log.signals)
            raise ConfigError(rule, received=f"{name!r}; it has {', '.join(log.signals) or 'none'}", mend=mend)
    if config.alpha and len(config.alpha) != 1 + len(config.components):
        rule = "alpha has a number for the reward and one for each component"
        raise ConfigError(rule, received=f"{len(config.alpha)}", mend=f"give {1 + len(config.components)}, or none")
    cells = config.levels ** min(config.varied, weights)
    if cells > _CELLS:
        rule = f"a grid has at most {_CELLS:,} cells"
        raise ConfigError(
            rule, received=f"{config.levels}^{min(config.varied, weights)}", mend="lower varied or levels"
        )
