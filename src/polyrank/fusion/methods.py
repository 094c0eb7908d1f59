"""The ways to learn a policy from a session log."""

from collections.abc import Mapping
from types import MappingProxyType

from polyrank.fusion.policy import Method

METHODS: Mapping[str, Method] = MappingProxyType({})
