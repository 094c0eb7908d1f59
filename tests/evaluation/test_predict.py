import dataclasses

import numpy as np
import pytest
import torch

from polyrank.data.groups import NO_GROUP
from polyrank.data.loader import Loader
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.store import encode_to
from polyrank.evaluation.predict import PRIMARY, predict, primary_metrics, score_table, task_metrics, with_truth
from polyrank.metrics.summary import binary_metrics, regression_metrics
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ranker import Ranker, RankerConfig
from polyrank.progress import Silent

NAN = np.nan
CLICK = Task("click", "binary")
LIKE = Task("like", "binary", given="click")
SHARE = Task("share", "binary", given="like")
WATCH = Task("watch", "regression", given="click")
CHAIN = Schema((Feature("video", "id"),), (CLICK, LIKE, SHARE, WATCH), group="user")
NO_GROUPS = np.zeros(0, np.int64)


def random_log(rows=400, seed=0):
    """Predictions, labels and groups of the chain; some labels missing, some set where they cannot count."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 4)) < 0.6).astype(np.float32)
    labels[:, 3] = rng.exponential(30, rows)
    labels[rng.random((rows, 4)) < 0.1] = NAN
    predictions = rng.random((rows, 4)).astype(np.float32)
    return predictions, labels, rng.integers(0, 40, rows)


class TestWithTruth:
    LABELS = np.array(
        [  # click, like, share, watch
            [1, 1, 1, 7.5],
            [1, 1, 0, NAN],
            [1, 0, 1, 3.0],
            [0, 1, 1, 9.0],
            [1, NAN, 1, 2.0],
            [NAN, 1, 1, 8.0],
        ],
        np.float32,
    )
    WHERE = np.array(
        [
            [1, 1, 1, 1],
            [1, 1, 1, 0],
            [1, 1, 0, 1],
            [1, 0, 0, 0],
            [1, 0, 0, 1],
            [0, 0, 0, 0],
        ],
        bool,
    )

    def test_own_rows_along_the_chain(self):
        table = with_truth(CHAIN, CHAIN.tasks, np.zeros((6, 4), np.float32), self.LABELS, NO_GROUPS)
        np.testing.assert_array_equal(table.where, self.WHERE)
        assert table.groups is None

    @pytest.mark.parametrize("names", [("watch",), ("share", "click"), ("watch", "like")])
    def test_some_tasks_keep_the_whole_schemas_sample_spaces(self, names):
        columns = [CHAIN.task_names.index(name) for name in names]
        tasks = [CHAIN.tasks[column] for column in columns]
        table = with_truth(CHAIN, tasks, np.zeros((6, len(names)), np.float32), self.LABELS, np.arange(6))
        assert table.tasks == tuple(tasks)
        np.testing.assert_array_equal(table.where, self.WHERE[:, columns])
        np.testing.assert_array_equal(table.labels, self.LABELS[:, columns])

    def test_a_row_of_weight_0_is_not_judged_on_its_task_but_on_those_given_it(self):
        weights = np.ones((6, 4), np.float32)
        weights[[0, 3], 0] = 0
        table = with_truth(CHAIN, CHAIN.tasks, np.zeros((6, 4), np.float32), self.LABELS, NO_GROUPS, weights)
        expected = self.WHERE.copy()
        expected[[0, 3], 0] = False
        np.testing.assert_array_equal(table.where, expected)

    def test_rows_of_a_task(self):
        predictions = np.arange(24, dtype=np.float32).reshape(6, 4)
        table = with_truth(CHAIN, CHAIN.tasks, predictions, self.LABELS, np.arange(10, 16))
        scored, labels, groups = table.rows(3)
        assert scored.tolist() == [3, 11, 19]
        assert labels.tolist() == [7.5, 3.0, 2.0]
        assert groups.tolist() == [10, 12, 14]


class TestTaskMetrics:
    def test_by_hand(self):
        # click: positives score .9 .8 .3, negatives .5 .1: five of six pairs are right. Users: 1 has one pair of two
        # right (weight 3 rows), 2 both classes and its pair right (2 rows).
        labels = np.array([[1, NAN], [1, 4.0], [0, 100.0], [1, 8.0], [0, NAN]], np.float32)
        predictions = np.array([[0.9, 0.0], [0.3, 5.0], [0.5, 9.0], [0.8, 6.0], [0.1, 1.0]], np.float32)
        schema = dataclasses.replace(CHAIN, tasks=(CLICK, WATCH))
        table = with_truth(schema, schema.tasks, predictions, labels, np.array([1, 1, 1, 2, 2]))
        found = task_metrics(table, replicates=0)
        assert found["click"]["auc"] == pytest.approx(5 / 6)
        assert (found["click"]["rows"], found["click"]["positives"]) == (5, 3)
        assert found["click"]["gauc"] == pytest.approx((3 * 0.5 + 2 * 1.0) / 5)
        # watch: only the clicked rows with a label, 4 → 5 and 8 → 6.
        assert found["watch"]["rows"] == 2
        assert found["watch"]["mae"] == pytest.approx(1.5)
        assert found["watch"]["rmse"] == pytest.approx(np.sqrt((1 + 4) / 2))
        assert found["watch"]["xauc"] == 1.0
        assert primary_metrics(table) == {"click": pytest.approx(5 / 6), "watch": 1.0}

    def test_rows_outside_the_sample_space_never_matter(self):
        predictions, labels, groups = random_log()
        table = with_truth(CHAIN, CHAIN.tasks, predictions, labels, groups)
        before = task_metrics(table, replicates=20), primary_metrics(table)
        rng = np.random.default_rng(1)
        poisoned, lied = predictions.copy(), labels.copy()
        poisoned[~table.where] = rng.choice([NAN, np.inf, -7.0, 0.5], (~table.where).sum())
        # The labels of click and like decide who is in a sample space: only those outside one are free to lie.
        for column in (2, 3):
            outside = ~table.where[:, column] & ~np.isnan(labels[:, column])
            lied[outside, column] = rng.choice([0.0, 1.0, 1e30], outside.sum())
        outside = ~table.where[:, 1] & (labels[:, 0] == 0)
        lied[outside, 1] = 5.0
        other = with_truth(CHAIN, CHAIN.tasks, poisoned, lied, groups)
        np.testing.assert_array_equal(other.where, table.where)
        assert (task_metrics(other, replicates=20), primary_metrics(other)) == before

    def test_leaving_them_out_by_hand_gives_the_same(self):
        predictions, labels, groups = random_log(seed=2)
        found = task_metrics(with_truth(CHAIN, CHAIN.tasks, predictions, labels, groups), replicates=10)
        click, like, share, watch = (labels[:, column] for column in range(4))
        own = {
            "click": ~np.isnan(click),
            "like": (click == 1) & ~np.isnan(like),
            "share": (click == 1) & (like == 1) & ~np.isnan(share),
            "watch": (click == 1) & ~np.isnan(watch),
        }
        for index, (name, rows) in enumerate(own.items()):
            measure = regression_metrics if name == "watch" else binary_metrics
            assert found[name] == measure(predictions[rows, index], labels[rows, index], groups[rows], replicates=10)

    def test_missing_labels_are_as_rows_that_are_not_there(self):
        predictions, labels, groups = random_log(seed=3)
        hidden = np.random.default_rng(0).random(len(labels)) < 0.5
        labels[hidden, 0] = NAN
        all_rows = task_metrics(with_truth(CHAIN, [CLICK], predictions[:, :1], labels, groups), replicates=0)
        fewer = with_truth(CHAIN, [CLICK], predictions[~hidden, :1], labels[~hidden], groups[~hidden])
        assert all_rows == task_metrics(fewer, replicates=0)

    @pytest.mark.parametrize("labels", [np.full((5, 4), NAN), np.zeros((0, 4))], ids=["none labelled", "empty"])
    def test_task_without_rows_has_no_values(self, labels):
        groups = np.zeros(len(labels), np.int64)
        table = with_truth(CHAIN, CHAIN.tasks, np.full(labels.shape, 0.5), labels, groups)
        for name, found in task_metrics(table).items():
            assert found["rows"] == 0
            assert found["xauc" if name == "watch" else "auc"] is None
            assert {value for value in found.values() if value is not None} == {0}  # counts
        assert all(np.isnan(value) for value in primary_metrics(table).values())

    def test_one_class_has_no_auc_but_a_log_loss(self):
        labels = np.ones((4, 4), np.float32)
        table = with_truth(CHAIN, [CLICK], np.full((4, 1), 0.5, np.float32), labels, NO_GROUPS)
        found = task_metrics(table)["click"]
        assert found["auc"] is None
        assert found["auc_ci"] is None
        assert found["log_loss"] == pytest.approx(np.log(2))
        assert np.isnan(primary_metrics(table)["click"])

    def test_rows_without_a_group_count_for_all_but_gauc(self):
        predictions, labels, groups = random_log(seed=4)
        groups[:150] = NO_GROUP
        found = task_metrics(with_truth(CHAIN, [CLICK], predictions[:, :1], labels, groups), replicates=5)["click"]
        named = with_truth(CHAIN, [CLICK], predictions[150:, :1], labels[150:], groups[150:])
        plain = task_metrics(with_truth(CHAIN, [CLICK], predictions[:, :1], labels, NO_GROUPS), replicates=5)["click"]
        assert found["gauc"] == task_metrics(named, replicates=0)["click"]["gauc"]
        assert found["gauc_ungrouped"] == np.isfinite(labels[:150, 0]).sum()
        for key in ("rows", "auc", "ece"):
            assert found[key] == plain[key]

    def test_without_groups_there_is_no_gauc(self):
        predictions, labels, _ = random_log()
        assert "gauc" not in task_metrics(with_truth(CHAIN, [CLICK], predictions[:, :1], labels, NO_GROUPS))["click"]

    def test_every_kind_has_a_primary_metric_that_task_metrics_gives(self):
        predictions, labels, groups = random_log()
        table = with_truth(CHAIN, CHAIN.tasks, predictions, labels, groups)
        found = task_metrics(table, replicates=0)
        assert {t.name: found[t.name][PRIMARY[t.kind]] for t in table.tasks} == primary_metrics(table)


class TestPredict:
    @pytest.fixture(scope="class")
    @staticmethod
    def prepared(fitted, tmp_path_factory):
        encoders, source = fitted(300)
        return encoders, encode_to(tmp_path_factory.mktemp("encoded") / "data", encoders, source)

    @staticmethod
    def ranker(encoders, names, **knobs):
        torch.manual_seed(0)
        schema = encoders.schema
        positions = [schema.task_names.index(name) for name in names]
        ranker = Ranker(
            [schema.tasks[p] for p in positions],
            [encoders.statistics[p] for p in positions],
            encoders.layout,
            RankerConfig(embedding_width=4, towers=(4,), **knobs),
            MMoEConfig(),
        )
        for parameter in ranker.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return ranker

    def test_order_does_not_depend_on_the_batches(self, prepared):
        encoders, data = prepared
        ranker = self.ranker(encoders, encoders.schema.task_names)
        whole = predict(ranker, Loader(encoders.schema, data, 300).in_order(), 3)
        assert whole.shape == (300, 3)
        assert whole.dtype == np.float32
        assert len(np.unique(whole, axis=0)) > 290  # rows differ, or their order would not show
        for size in (1, 7, 299):
            parts = predict(ranker, Loader(encoders.schema, data, size).in_order(), 3)
            np.testing.assert_allclose(parts, whole, rtol=1e-5)

    def test_dropout_is_off_even_in_the_middle_of_training(self, prepared):
        encoders, data = prepared
        ranker = self.ranker(encoders, encoders.schema.task_names, embedding_dropout=0.5, tower_dropout=0.5)
        ranker.train()
        first, second = (predict(ranker, Loader(encoders.schema, data, 64).in_order(), 3) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_no_batch_no_rows(self, prepared):
        encoders, _ = prepared
        assert predict(self.ranker(encoders, ["click"]), [], 1).shape == (0, 1)

    def test_progress_counts_every_row(self, prepared):
        class Counting(Silent):
            rows = 0

            def advance(self, rows, note=""):
                self.rows += rows

        encoders, data = prepared
        bar = Counting()
        score_table(self.ranker(encoders, encoders.schema.task_names), Loader(encoders.schema, data, 64), bar)
        assert bar.rows == 300

    def test_table_of_some_tasks(self, prepared, feedback_table):
        encoders, data = prepared
        table = score_table(self.ranker(encoders, ["watch"]), Loader(encoders.schema, data, 64, tasks=("watch",)))
        log = feedback_table(300)
        clicked = log["is_click"].to_numpy() == 1
        assert [task.name for task in table.tasks] == ["watch"]
        np.testing.assert_array_equal(table.where[:, 0], clicked)
        np.testing.assert_array_equal(table.rows(0)[1], log["play_time"].to_numpy()[clicked].astype(np.float32))
        np.testing.assert_array_equal(table.groups, log["user_id"].to_numpy())
