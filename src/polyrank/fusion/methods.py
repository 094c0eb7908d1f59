"""The ways to learn a policy from a session log."""

from collections.abc import Mapping
from types import MappingProxyType

from polyrank.fusion.learners import bandit, gaussian, linear_cem
from polyrank.fusion.policy import Method

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "linear_cem": Method(linear_cem.LinearCEMConfig, linear_cem.fit),
        "bandit": Method(bandit.BanditConfig, bandit.fit),
        "gaussian": Method(gaussian.GaussianConfig, gaussian.fit),
    }
)
