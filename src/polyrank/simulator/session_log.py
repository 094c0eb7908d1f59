"""A session log on disk, and beside it what a log cannot tell: the world, who explored, the seed, the reward.

K fusion weights.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from polyrank.errors import ConfigError
from polyrank.files import file_sha256, write_json, writing
from polyrank.fusion.explore import BoundedUniform, Explorer, Gaussian, half_and_half
from polyrank.fusion.policy import Policy, StaticPolicy, load_policy, policy_in
from polyrank.fusion.sessions import write_sessions
from polyrank.metrics.checks import Rows
from polyrank.progress import Progress
from polyrank.simulator.oracle import OracleConfig, Rehearsal, best_static
from polyrank.simulator.sessions import STATE, simulate
from polyrank.simulator.world import World, WorldConfig

_SEARCHED = 1_200  # sessions of the search for the best static weights


@dataclass(frozen=True)
class LogConfig:
    """How much is logged, and how it is explored.

    Attributes:
        sessions: how many.
        explore: `bounded`: evenly within the centre ± width (UnifiedRL). `gaussian`: the centre with a standard
            deviation of width. `mixed`: half of the requests like that, half with a standard deviation of `near`
            (BatchRL-MTF).
        around: the centre: `best`, static weights that are searched in the world, as a formula that was tuned on its
            users for long; `start`, 1 for every head and −1 for hate; weights such as `1,0.5,1,1,1,-1`; or a policy's
            directory, for a further round of exploration around it.
        width: half of the width of the box, or a standard deviation, in units of weights; `best` has a mean |w| of 1.
        near: see `mixed`.
        seed: of users, candidates, luck, exploration and the search.
    """

    sessions: Annotated[int, Gt(0)] = 200_000
    explore: Literal["bounded", "gaussian", "mixed"] = "bounded"
    around: str = "best"
    width: Annotated[float, Gt(0)] = 0.7
    near: Annotated[float, Gt(0)] = 0.1
    seed: Annotated[int, Ge(0)] = 0


def write_log(world: WorldConfig, config: LogConfig, out: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Write `out`, a session log (`fusion.sessions`), and beside it, with the suffix `.json`, what is returned.

    Returns:
        `world` and `explore`, the configs; `heads` and `state`, names of the weights and of the state's numbers;
        `weights`, the centre where it is static; `box`, where the exploration has one; `sessions`, `requests`,
        `mean_return`; the log's `sha256`, and the command.

    Raises:
        ConfigError: the centre is no weights of this world and no policy.
        RunError: a policy's directory is damaged.
        StorageError: `out` cannot be written.
    """
    made = World(world)
    centre = _centre(config, made, progress)
    explorer = _explorer(config, centre)
    log = simulate(made, explorer, config.sessions, config.seed, progress)
    with writing(out) as temporary:
        write_sessions(log, temporary)
    box = explorer.box
    document = {
        "format": 1,
        "world": asdict(world),
        "explore": asdict(config),
        "heads": list(made.heads),
        "state": list(STATE),
        "weights": _numbers(centre.weights) if isinstance(centre, StaticPolicy) else None,
        "box": None if box is None else {"low": _numbers(box.low), "high": _numbers(box.high)},
        "sessions": len(log.sessions),
        "requests": len(log.rewards),
        "mean_return": float(log.rewards.sum() / len(log.sessions)),
        "sha256": file_sha256(out),
        "command": command,
    }
    write_json(beside(out), document)
    return document


def beside(log: Path) -> Path:
    """Where the facts of a log are."""
    return log.with_suffix(".json")


def _centre(config: LogConfig, world: World, progress: Progress) -> Policy:
    if config.around == "best":
        return best_static(Rehearsal(world, _SEARCHED, config.seed), OracleConfig(), progress)
    if config.around == "start":
        return StaticPolicy(world.static_start())
    if config.around and Path(config.around).is_dir():
        policy = load_policy(policy_in(Path(config.around)))
        try:
            weights = policy.act(np.zeros((1, len(STATE)), np.float32)).shape[1]
        except ValueError as error:
            raise ConfigError(
                f"a policy of these sessions follows the {len(STATE)} numbers of their state",
                received=f"{config.around}: {error}",
                mend="name one that was learned from a log of polyrank simulate",
            ) from error
        _check_weights(weights, config.around, world)
        return policy
    try:
        numbers = np.array([float(part) for part in config.around.split(",")], np.float32)
        policy = StaticPolicy(numbers)
    except ValueError as error:
        raise ConfigError(
            "exploration is around best, start, weights, or a policy",
            received=config.around,
            mend="write best, start, numbers such as 1,0.5,1,1,1,-1, or a directory that holds a policy",
        ) from error
    _check_weights(len(numbers), config.around, world)
    return policy


def _check_weights(count: int, received: str, world: World) -> None:
    if count != len(world.heads):
        raise ConfigError(
            f"a weight must be given for each of the {len(world.heads)} heads",
            received=f"{count}: {received}",
            mend=f"the heads are {', '.join(world.heads)}",
        )


def _explorer(config: LogConfig, centre: Policy) -> Explorer:
    if config.explore == "bounded":
        return BoundedUniform(centre, config.width)
    if config.explore == "gaussian":
        return Gaussian(centre, config.width)
    return half_and_half(centre, centre, config.width, config.near)


def _numbers(values: Rows) -> list[float]:
    return [float(value) for value in values]
