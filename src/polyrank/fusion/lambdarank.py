"""LambdaRank: boosted trees over scores and context, monotone in the scores.

Burges, From RankNet to LambdaRank to LambdaMART, Microsoft Research 2010; Ke et al., LightGBM, NeurIPS 2017.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from polyrank import config as configs
from polyrank.evaluation.requests import Requests
from polyrank.fusion.fusion import Columns, Document, Fusion, read_columns
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Bar

LEVELS = 31  # grades of relevance; LightGBM's own default


@dataclass(frozen=True)
class LambdaRankConfig:
    """`[fusion.lambdarank]`: small trees, because there are few columns and few requests.

    Attributes:
        trees: at most.
        patience: stop after so many trees without a better validation NDCG.
        learning_rate: shrinkage.
        leaves: of a tree.
        leaf_rows: the fewest rows in a leaf.
        k: places that count, in training and validation.
        monotone: the score never falls in a head (never rises in one that speaks against a candidate).
        threads: processor threads; 0 for all.
        seed: of LightGBM.
    """

    trees: Annotated[int, Gt(0)] = 500
    patience: Annotated[int, Gt(0)] = 40
    learning_rate: Annotated[float, Gt(0)] = 0.05
    leaves: Annotated[int, Gt(1)] = 8
    leaf_rows: Annotated[int, Gt(0)] = 50
    k: Annotated[int, Gt(0)] = 10
    monotone: bool = True
    threads: Annotated[int, Ge(0)] = 0
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, eq=False)
class LambdaRankFusion(Fusion):
    """A boosted ranker; it is saved as LightGBM's own text.

    Attributes:
        heads: its first columns.
        config: how it was trained.
        text: the model.
        context: its further columns.
    """

    kind: ClassVar[str] = "lambdarank"
    heads: tuple[str, ...]
    config: LambdaRankConfig
    text: str
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Read the model."""
        # Here, because it takes a second to import, which every command would wait.
        import lightgbm

        try:
            object.__setattr__(self, "_booster", lightgbm.Booster(model_str=self.text))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"a LightGBM model must be whole: {error}") from error

    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """See `Fusion.score`."""
        booster: Any = self._booster  # type: ignore[attr-defined]  # set in __post_init__, so that it is no field
        matrix = _matrix(read_columns(rows, (*self.heads, *self.context)), self.heads, self.context)
        if not len(matrix):
            return np.zeros(0)
        return np.asarray(booster.predict(matrix, num_threads=self.config.threads or None), np.float64)

    def document(self) -> Document:
        """Everything."""
        return {"heads": list(self.heads), "context": list(self.context), "config": asdict(self.config)} | {
            "model": self.text
        }

    @classmethod
    def restore(cls, document: Document, arrays: Mapping[str, Rows]) -> Self:
        """See `Fusion.restore`."""
        config = configs.build(LambdaRankConfig, document["config"], "lambdarank")
        return cls(tuple(document["heads"]), config, str(document["model"]), tuple(document["context"]))


def learn_lambdarank(
    train: Requests,
    valid: Requests,
    context: tuple[str, ...],
    negative: tuple[str, ...],
    config: LambdaRankConfig,
    bar: Bar | None = None,
) -> LambdaRankFusion:
    """Boost trees towards the reward's NDCG@k.

    LightGBM takes whole numbers as relevance: rewards become at most 31 grades (0 and quantiles of the others), each
    of which gains the mean reward of its rows, not 2^grade − 1.

    Args:
        train: training rows.
        valid: rows of other users, for early stopping.
        context: columns without a direction.
        negative: heads that speak against a candidate.
        config: the knobs.
        bar: is advanced by 1 a tree, and by what early stopping saved.
    """
    import lightgbm

    edges = _edges(train.reward)
    grades = np.searchsorted(edges, train.reward, side="left")
    levels = np.arange(len(edges) + 1)
    gains = [float(train.reward[grades == level].mean()) if (grades == level).any() else 0.0 for level in levels]

    def dataset(data: Requests) -> Any:
        order = np.argsort(data.requests, kind="stable")
        _, sizes = np.unique(data.requests, return_counts=True)
        matrix = _matrix(data.columns, data.heads, context)[order]
        labels = np.searchsorted(edges, data.reward[order], side="left")
        return lightgbm.Dataset(matrix, labels, group=sizes, free_raw_data=False)

    signs = [-1 if head in negative else 1 for head in train.heads] + [0] * len(context)
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [config.k],
        "lambdarank_truncation_level": config.k,
        "label_gain": gains,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.leaf_rows,
        "learning_rate": config.learning_rate,
        "monotone_constraints": signs if config.monotone else [0] * len(signs),
        "num_threads": config.threads,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    training, validation = dataset(train), dataset(valid)
    validation.set_reference(training)
    done = 0

    def advance(environment: Any) -> None:
        nonlocal done
        done += 1
        if bar is not None:
            shown = environment.evaluation_result_list[0][2] if done % 50 == 0 else None
            bar.advance(1, "" if shown is None else f"validation NDCG@{config.k} {shown:.4f}")

    stop = lightgbm.early_stopping(config.patience, verbose=False)
    booster = lightgbm.train(parameters, training, config.trees, valid_sets=[validation], callbacks=[advance, stop])
    if bar is not None:
        bar.advance(config.trees - done)
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return LambdaRankFusion(train.heads, config, text, context)


def _edges(rewards: Floats) -> Floats:
    """Upper ends of all grades but the last; a reward on an edge is of the lower grade."""
    distinct = np.unique(rewards)
    if len(distinct) > LEVELS:
        above = rewards[rewards > distinct[0]]
        inner = np.quantile(above, np.arange(1, LEVELS - 1) / (LEVELS - 1), method="lower")
        return np.unique(np.concatenate((distinct[:1], inner)))
    return distinct[:-1]


def _matrix(columns: Mapping[str, Rows], heads: tuple[str, ...], context: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(columns[name], np.float64) for name in (*heads, *context)], axis=1)
