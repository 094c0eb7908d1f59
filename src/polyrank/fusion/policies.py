"""The kinds of policies that `load_policy` reads."""

from collections.abc import Mapping
from types import MappingProxyType

from polyrank.fusion.policy import Policy, StaticPolicy

KINDS: tuple[type[Policy], ...] = (StaticPolicy,)
POLICIES: Mapping[str, type[Policy]] = MappingProxyType({kind.kind: kind for kind in KINDS})
