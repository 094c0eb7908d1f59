"""`[fusion]`: what is fused, what is wanted of the list, and how it is searched."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, MinLen

from polyrank.evaluation.fused import JudgeConfig
from polyrank.fusion.learned import LearnConfig
from polyrank.fusion.reward import RewardConfig
from polyrank.fusion.sampling import SearchConfig
from polyrank.fusion.scope import Parameter


@dataclass(frozen=True)
class FusionConfig:
    """`[fusion]`: how a run's predictions become one score.

    Attributes:
        run: the run directory whose predictions are fused (relative to the config's file, or absolute).
        formula: a preset's name, or an expression over task names, context columns and `parameters`.
        heads: the tasks that a preset fuses; all tasks of the run where empty. Behaviours are the same tasks' labels.
        negative: those of them that speak against a candidate (hate, report). Their behaviour is that they do not
            happen: `no hate`, which counts in the composite only where [fusion.judge] weights says so.
        context: the column of a preset's context term (a video's length, a price).
        parameters: of an expression: what is searched, by name: `w_like = {value = 1, low = 0.01, high = 100}`.
        current: the formula in production: searches start from it, and everything is compared with it.
        request: the columns that together name a request (user, day, page); the schema's group alone where empty.
        smallest: requests of fewer rows are left out: they hardly tell two orders apart.
        segment: a column of whole numbers, a trait of the user (new, active): each value gets weights of its own.
        shrinkage: how many requests of its own a segment needs to be believed as much as the whole.
        show: columns that name a candidate in the report's example lists.
        reward: `[fusion.reward]`: what a row was worth; each positive binary behaviour 1 where nothing is said.
        judge: `[fusion.judge]`: how orders are judged; its weights are each positive behaviour 1 where nothing is said.
        search: `[fusion.search]`: how weights are searched.
        learn: `[fusion.learn]`: which rankers are trained.
    """

    run: str = ""
    formula: Annotated[str, MinLen(1)] = "log_sum"
    heads: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    context: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    current: str = ""
    request: tuple[str, ...] = ()
    smallest: Annotated[int, Ge(1)] = 2
    segment: str = ""
    shrinkage: Annotated[float, Ge(0)] = 200.0
    show: tuple[str, ...] = ()
    reward: RewardConfig = field(default_factory=RewardConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
