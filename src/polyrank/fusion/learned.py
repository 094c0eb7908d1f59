"""Learned rankers by name: what `polyrank fuse learn` can train. Each gives a `Fusion`, saved like every other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final

from annotated_types import Ge, Interval, MinLen

from polyrank.config import nearest
from polyrank.errors import ConfigError, DataError
from polyrank.evaluation.requests import Requests
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.lambdarank import LambdaRankConfig, learn_lambdarank
from polyrank.fusion.listwise import learn_listwise
from polyrank.fusion.listwise_nets import ListwiseConfig
from polyrank.fusion.monotone import MonotoneConfig, learn_monotone
from polyrank.progress import Bar


@dataclass(frozen=True)
class LearnConfig:
    """`[fusion.learn]`: which rankers are trained, and on what.

    Attributes:
        rankers: keys of `LEARNERS`.
        context: numeric columns that they may use besides the heads (a video's length, a user's activity).
        held: the share of the validation users that stops training early and chooses among the rankers.
        against: a directory of `fuse search` (relative to the config's file, or absolute): what rankers must beat.
        seed: of that split.
        lambdarank: `[fusion.learn.lambdarank]`.
        monotone: `[fusion.learn.monotone]`.
        listwise: `[fusion.learn.listwise]`.
    """

    rankers: Annotated[tuple[str, ...], MinLen(1)] = ("lambdarank", "monotone", "listwise")
    context: tuple[str, ...] = ()
    held: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    against: str = ""
    seed: Annotated[int, Ge(0)] = 0
    lambdarank: LambdaRankConfig = field(default_factory=LambdaRankConfig)
    monotone: MonotoneConfig = field(default_factory=MonotoneConfig)
    listwise: ListwiseConfig = field(default_factory=ListwiseConfig)


@dataclass(frozen=True)
class Learner:
    """One kind of learned ranker.

    Attributes:
        config: its knobs.
        learn: `(train, valid, context, negative, config, bar)` → the fusion.
        rounds: the knob that says how many rounds its bar has.
        source: where it comes from.
    """

    config: type
    learn: Callable[..., Fusion]
    rounds: str
    source: str


LEARNERS: Final[Mapping[str, Learner]] = MappingProxyType(
    {
        "lambdarank": Learner(LambdaRankConfig, learn_lambdarank, "trees", "LightGBM's LambdaRank"),
        "monotone": Learner(MonotoneConfig, learn_monotone, "epochs", "UMRE, arXiv 2508.07613"),
        "listwise": Learner(ListwiseConfig, learn_listwise, "epochs", "EMER, arXiv 2508.05093"),
    }
)


def learn(
    name: str,
    train: Requests,
    valid: Requests,
    context: tuple[str, ...] = (),
    negative: tuple[str, ...] = (),
    config: Any = None,
    bar: Bar | None = None,
) -> Fusion:
    """Train the learned ranker `name` to the rows' reward.

    Args:
        name: a key of `LEARNERS`.
        train: training rows: not those that the heads were trained on, where predictions are better than they will be.
        valid: rows of other users, for early stopping.
        context: columns besides the heads that it may use.
        negative: heads that speak against a candidate.
        config: its knobs; None for the defaults.
        bar: is advanced by 1 a round, `rounds` in all.

    Raises:
        ConfigError: the name is unknown, a column is, or a knob does not suit the heads.
        DataError: in training or validation no request has rows of different reward.
    """
    if name not in LEARNERS:
        raise ConfigError("a learned ranker must be known", received=name, mend=nearest(name, LEARNERS))
    for column in context:
        if column not in train.columns:
            raise ConfigError(
                "context must name columns of the data", received=column, mend=nearest(column, train.columns)
            )
    for head in negative:
        if head not in train.heads:
            raise ConfigError("negative must name heads", received=head, mend=nearest(head, train.heads))
    for part, data in (("training", train), ("validation", valid)):
        if not data.ranks_something():
            raise DataError(
                f"a learned ranker needs {part} requests whose rows differ in reward",
                received=f"{data.rows:,} rows, none better than another of its request",
                mend="give more rows, coarser requests, or another [fusion.reward]",
            )
    learner = LEARNERS[name]
    try:
        return learner.learn(train, valid, context, negative, config or learner.config(), bar)
    except ValueError as error:
        raise ConfigError(f"[fusion.{name}] must suit the heads", received=str(error), mend="correct it") from error
