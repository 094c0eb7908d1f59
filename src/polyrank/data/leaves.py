"""Tree leaves as categories: for every row the leaf that it reaches in each tree of a LightGBM per task.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 3.1: boosted trees as a
supervised feature encoding. n rows, T tasks, K folds.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Ge, Gt

from polyrank.data.layout import Encoded, Field, Layout
from polyrank.data.schema import Schema
from polyrank.data.tabular import tree_columns, tree_matrix
from polyrank.errors import DataError
from polyrank.progress import Progress

_PREDICTED_AT_ONCE = 65_536


@dataclass(frozen=True)
class LeavesConfig:
    """`[data.leaves]`: tree leaves as further features.

    Attributes:
        trees: trees of each task's LightGBM; 0 for no such features.
        leaves: leaves of a tree, at most.
        learning_rate: of the boosting.
        folds: K: of the training rows each is encoded by trees that were grown without it.
        bag: so many trees, one after the other, share an embedding: the mean over their leaves.
        rows: grow trees on at most so many rows, chosen at random: they are held in memory.
        seed: of that choice and of LightGBM.
    """

    trees: Annotated[int, Ge(0)] = 0
    leaves: Annotated[int, Ge(2)] = 31
    learning_rate: Annotated[float, Gt(0)] = 0.1
    folds: Annotated[int, Ge(2)] = 4
    bag: Annotated[int, Gt(0)] = 10
    rows: Annotated[int, Gt(0)] = 2_000_000
    seed: Annotated[int, Ge(0)] = 0


class Leaves:
    """Grown trees, and the leaves that rows reach in them.

    A row belongs to fold hash(its features) mod K. The trees of fold f were grown on the rows of all other folds, and
    rows of fold f, of any data, are encoded by them. So a training row never meets trees that have seen its label, nor
    that of a row with the same features; and what is encoded later is encoded by the same rule, by trees that have
    seen as much as those that encoded the training rows. Leaves of different folds have embeddings of their own, each
    of which learns from 1/K of the rows.

    Args:
        config: the knobs.
        tasks: names of the tasks that trees were grown for.
        boosters: `[K][T]` `lightgbm.Booster`.
    """

    def __init__(self, config: LeavesConfig, tasks: Sequence[str], boosters: Sequence[Sequence[Any]]) -> None:
        self.config, self.tasks, self.boosters = config, tuple(tasks), boosters

    @classmethod
    def grow(
        cls, config: LeavesConfig, schema: Schema, layout: Layout, data: Encoded, threads: int, progress: Progress
    ) -> Self:
        """Grow K times T boosted ensembles on encoded training rows.

        Raises:
            DataError: outside some fold a task has no row, or a binary one rows of one class only.
        """
        import lightgbm  # here, because it takes a second to import

        ids, dense, labels = data.ids, data.dense, data.labels
        where = schema.sample_spaces(labels, data.weights)
        folds = _folds(ids, dense, config.folds)
        chosen = np.arange(len(ids))
        if len(chosen) > config.rows:
            chosen = np.sort(np.random.default_rng(config.seed).choice(chosen, config.rows, replace=False))
        names = tree_columns(layout)
        matrix = tree_matrix(layout, ids[chosen], dense[chosen])
        boosters: list[list[Any]] = []
        with progress.bar("growing trees", config.folds * len(schema.tasks), unit="ensembles") as bar:
            for fold in range(config.folds):
                boosters.append([])
                for position, task in enumerate(schema.tasks):
                    own = where[chosen, position] & (folds[chosen] != fold)
                    found = labels[chosen, position][own]
                    binary = task.kind == "binary"
                    if not len(found) or (binary and (found == found[0]).all()):
                        raise DataError(
                            f"trees need training rows of task {task.name!r} in every part of the data"
                            + (", of both classes" if binary else ""),
                            received=f"{len(found):,} rows outside fold {fold + 1} of {config.folds}",
                            mend="give more data, or set data.leaves.trees = 0",
                        )
                    weights = data.weights[chosen, position][own] if data.weights.shape[1] else None
                    training = lightgbm.Dataset(
                        matrix[own],
                        found,
                        weight=weights,
                        feature_name=[name for name, _ in names],
                        categorical_feature=[name for name, kind in names if kind == "category"],
                        free_raw_data=True,
                    )
                    booster = lightgbm.train(_parameters(config, binary, threads), training, config.trees)
                    boosters[fold].append(booster.free_dataset())
                    bar.advance(1)
        return cls(config, schema.task_names, boosters)

    def fields(self, first_column: int) -> tuple[tuple[Field, ...], Mapping[str, int]]:
        """The bags that leaves are encoded as, from this id column on, and their tables' rows."""
        fields: list[Field] = []
        tables = {}
        for task in self.tasks:
            for first in range(0, self.config.trees, self.config.bag):
                trees = min(self.config.bag, self.config.trees - first)
                name = f"leaves of {task} {first + 1}"
                start = fields[-1].stop if fields else first_column
                fields.append(Field(name, "tags", start, start + trees, name, derived=True))
                tables[name] = 1 + trees * self.config.folds * self.config.leaves
        return tuple(fields), tables

    def ids(self, layout: Layout, ids: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """`[n, T·trees]` int32, local to each bag's table: 1 + (tree·K + fold)·leaves + leaf.

        Args:
            layout: the encoded matrix; leaves' own fields are passed over.
            ids: `[n, F]` int32 without leaves.
            dense: `[n, D]` float32.
        """
        config = self.config
        folds = _folds(ids, dense, config.folds)
        result = np.zeros((len(ids), len(self.tasks) * config.trees), np.int32)
        tree = np.arange(config.trees) % config.bag
        for fold, boosters in enumerate(self.boosters):
            rows = np.flatnonzero(folds == fold)
            for chunk in np.array_split(rows, -(-len(rows) // _PREDICTED_AT_ONCE)) if len(rows) else ():
                matrix = tree_matrix(layout, ids[chunk], dense[chunk])
                for task, booster in enumerate(boosters):
                    found = np.asarray(booster.predict(matrix, pred_leaf=True), np.int64).reshape(len(chunk), -1)
                    # Boosting ends early where no split helps any more: trees that are not there hold no value.
                    grown = found.shape[1]
                    codes = 1 + (tree[:grown] * config.folds + fold) * config.leaves + found
                    first = task * config.trees
                    result[chunk, first : first + grown] = codes
        return result

    def json(self) -> Iterator[str]:
        """Its state as JSON text."""
        models = [[booster.model_to_string() for booster in of_fold] for of_fold in self.boosters]
        yield json.dumps({"config": asdict(self.config), "tasks": self.tasks, "models": models})

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """From what `json` says.

        Raises:
            KeyError, TypeError, ValueError: it does not say that.
        """
        import lightgbm

        try:
            boosters = [[lightgbm.Booster(model_str=text) for text in of_fold] for of_fold in state["models"]]
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from error
        return cls(LeavesConfig(**state["config"]), state["tasks"], boosters)


def _parameters(config: LeavesConfig, binary: bool, threads: int) -> dict[str, Any]:
    return {
        "objective": "binary" if binary else "regression",
        "num_leaves": config.leaves,
        "learning_rate": config.learning_rate,
        "num_threads": threads,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _folds(ids: np.ndarray, dense: np.ndarray, folds: int) -> np.ndarray:
    """`[n]` int64 in 0 … K − 1, a hash of the row's encoded features (a polynomial, then SplitMix64's finaliser)."""
    value = np.zeros(len(ids), np.uint64)
    bits = np.ascontiguousarray(dense, np.float32).view(np.uint32)
    for column in (*ids.T, *bits.T):
        value = value * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return ((value ^ (value >> np.uint64(31))) % np.uint64(folds)).astype(np.int64)
