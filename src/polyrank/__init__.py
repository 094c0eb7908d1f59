"""Polyrank: feedback logs with many labels → one ranking, and an honest account of who paid for whose gain.

The public names are imported when they are first used, so that `import polyrank` loads neither torch nor pyarrow.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOMES = {
    "ARCHITECTURES": "polyrank.models.ranker",
    "Architecture": "polyrank.models.ranker",
    "BALANCERS": "polyrank.balancing.balancer",
    "Balancer": "polyrank.balancing.balancer",
    "Batch": "polyrank.data.loader",
    "Feature": "polyrank.data.schema",
    "Formula": "polyrank.fusion.formula",
    "Fusion": "polyrank.fusion.fusion",
    "PolyrankError": "polyrank.errors",
    "Ranker": "polyrank.models.ranker",
    "RankerConfig": "polyrank.models.ranker",
    "Schema": "polyrank.data.schema",
    "Scope": "polyrank.fusion.scope",
    "ScoreTable": "polyrank.evaluation.predict",
    "Task": "polyrank.data.schema",
    "calibrate": "polyrank.experiment",
    "compare": "polyrank.experiment",
    "demo": "polyrank.experiment",
    "evaluate": "polyrank.experiment",
    "fuse_attach": "polyrank.experiment",
    "fuse_rl": "polyrank.rl_experiment",
    "fuse_search": "polyrank.experiment",
    "infer": "polyrank.experiment",
    "infer_schema": "polyrank.data.infer",
    "load_fusion": "polyrank.fusion.store",
    "load_policy": "polyrank.fusion.policy",
    "load_schema": "polyrank.data.schema",
    "ope": "polyrank.rl_experiment",
    "score": "polyrank.experiment",
    "train": "polyrank.experiment",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("polyrank")
    if name not in _HOMES:
        raise AttributeError(f"module 'polyrank' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
