"""The kinds of policies that `load_policy` reads."""

from collections.abc import Mapping
from types import MappingProxyType

from polyrank.fusion.actors import ActorPolicy, CandidatePolicy
from polyrank.fusion.learners.gaussian import GaussianPolicy
from polyrank.fusion.learners.grid import GridPolicy
from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.policy import Policy, StaticPolicy

KINDS: tuple[type[Policy], ...] = (
    StaticPolicy, LinearPolicy, GridPolicy, GaussianPolicy, ActorPolicy, CandidatePolicy,
)  # fmt: skip
POLICIES: Mapping[str, type[Policy]] = MappingProxyType({kind.kind: kind for kind in KINDS})
