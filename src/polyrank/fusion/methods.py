"""The ways to learn a policy from a session log."""

from collections.abc import Mapping
from types import MappingProxyType

from polyrank.fusion.learners import bandit, batchrl_mtf, cql, gaussian, iql, linear_cem, td3, td3_bc, unified_rl
from polyrank.fusion.policy import Method

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "batchrl_mtf": Method(batchrl_mtf.BatchRLMTFConfig, batchrl_mtf.fit),
        "unified_rl": Method(unified_rl.UnifiedRLConfig, unified_rl.fit),
        "cql": Method(cql.CQLConfig, cql.fit),
        "iql": Method(iql.IQLConfig, iql.fit),
        "td3_bc": Method(td3_bc.TD3BCConfig, td3_bc.fit),
        "td3": Method(td3.TD3Config, td3.fit),
        "linear_cem": Method(linear_cem.LinearCEMConfig, linear_cem.fit),
        "bandit": Method(bandit.BanditConfig, bandit.fit),
        "gaussian": Method(gaussian.GaussianConfig, gaussian.fit),
    }
)
