import math

import numpy as np
import pytest
from scipy import stats

from polyrank.data.groups import NO_GROUP
from polyrank.evaluation.seesaw import Difference, XaucSweep, difference, differences, lack, sweep, verdict
from polyrank.metrics.ranking import AucSweep, auc, xauc
from polyrank.progress import Silent


def labels_of(rows, rng):
    labels = (rng.random(rows) < 0.4).astype(np.float32)
    labels[:2] = [0, 1]
    return labels


def auc_sweeps(labels, signals, rng, common=0.0):
    """One sweep a signal; a positive scores N(signal, 1), a negative N(0, 1): AUC = Φ(signal / √2)."""
    noise = math.sqrt(1 - common**2)
    shared = common * rng.normal(size=len(labels))
    return [AucSweep(s * labels + shared + noise * rng.normal(size=len(labels)), labels) for s in signals]


def expected_auc(signal):
    return stats.norm.cdf(signal / math.sqrt(2))


class TestDifference:
    def test_one_seed_leaves_the_bootstrap_alone(self):
        # Five replicates: variance 0.025, four degrees of freedom, t = 2.776445.
        found = difference(np.array([0.5]), 0.1 * np.array([-2.0, -1, 0, 1, 2]), 0.95)
        assert found.mean == 0.5
        assert found.high - found.mean == pytest.approx(2.776445 * math.sqrt(0.025), rel=1e-6)
        assert found.verdict == "gain"

    def test_seeds_alone(self):
        # σ_s² / S = 1/3 with two degrees of freedom, t = 4.302653.
        found = difference(np.array([1.0, 2.0, 3.0]), np.full(10, 2.0), 0.95)
        assert found.high - found.mean == pytest.approx(4.302653 * math.sqrt(1 / 3), rel=1e-6)
        assert found.verdict == "tie"

    def test_equal_parts_of_two_degrees_each_have_four(self):
        # σ_b² = 1 of three replicates and σ_s²/S = 3/3 of three seeds: (1 + 1)² / (1/2 + 1/2) = 4.
        found = difference(-10.0 + math.sqrt(3) * np.array([-1, 0, 1]), np.array([-1.0, 0, 1]), 0.95)
        assert found.mean - found.low == pytest.approx(2.776445 * math.sqrt(2), rel=1e-6)
        assert found.verdict == "loss"

    def test_welch_satterthwaite_between_them(self):
        # σ_b² = 8/3 · 1e-6 of four replicates, σ_s²/S = 100/3 · 1e-6 of three seeds: together 0.006².
        found = difference(np.array([0.01, 0.02, 0.03]), np.array([0.018, 0.022, 0.02, 0.02]), 0.9)
        freedom = 36**2 / ((8 / 3) ** 2 / 3 + (100 / 3) ** 2 / 2)
        assert freedom == pytest.approx(2.3229, rel=1e-4)
        quantile = (found.high - found.mean) / 0.006
        assert stats.t.cdf(quantile, freedom) == pytest.approx(0.95, rel=1e-9)

    def test_interval_is_symmetric_and_grows_with_the_level(self):
        rng = np.random.default_rng(1)
        by_seed, by_replicate = rng.normal(size=4), rng.normal(size=60)
        widths = []
        for level in (0.6, 0.9, 0.99):
            found = difference(by_seed, by_replicate, level)
            assert found.high - found.mean == pytest.approx(found.mean - found.low)
            widths.append(found.high - found.low)
        assert widths == sorted(widths)

    @pytest.mark.parametrize("value", [0.0, 0.25, 0.1, -1 / 3])
    def test_where_nothing_varies_there_is_no_evidence(self, value):
        for seeds in (1, 3):
            found = difference(np.full(seeds, value), np.full(20, value), 0.95)
            assert found == Difference(pytest.approx(value), None, None, "tie")

    @pytest.mark.parametrize("replicates", [[], [0.2]])
    def test_fewer_than_two_replicates_are_no_evidence(self, replicates):
        found = difference(np.array([0.2, 0.3]), np.array(replicates), 0.95)
        assert found == Difference(0.25, None, None, "tie")

    def test_a_few_replicates_without_a_value_are_passed_over(self):
        whole = 0.5 + 0.01 * np.arange(18)
        holed = np.concatenate([whole[:9], [np.nan], whole[9:], [np.nan]])
        assert difference(np.array([0.2]), holed, 0.95) == difference(np.array([0.2]), whole, 0.95)

    def test_many_replicates_without_a_value_are_no_evidence(self):
        holed = np.concatenate([0.5 + 0.001 * np.arange(17), np.full(3, np.nan)])
        assert difference(np.array([0.5, 0.51]), holed, 0.95) == Difference(0.505, None, None, "tie")

    def test_undefined_metric_is_a_tie(self):
        found = difference(np.array([np.nan, np.nan]), np.full(5, np.nan), 0.95)
        assert math.isnan(found.mean)
        assert (found.low, found.high, found.verdict) == (None, None, "tie")

    @pytest.mark.parametrize(("low", "high", "said"), [(0.1, 0.2, "gain"), (-0.2, -0.1, "loss"), (-0.1, 0.1, "tie")])
    def test_verdict(self, low, high, said):
        assert verdict(low, high) == said

    @pytest.mark.parametrize("bounds", [(0.0, 0.1), (-0.1, 0.0), (0.0, 0.0)])
    def test_an_interval_that_touches_zero_is_a_tie(self, bounds):
        assert verdict(*bounds) == "tie"


class TestDifferences:
    def test_known_gaps_come_out(self):
        rng = np.random.default_rng(5)
        labels = labels_of(4000, rng)
        models = {
            "better": auc_sweeps(labels, [1.6] * 3, rng),
            "worse": auc_sweeps(labels, [1.0] * 3, rng),
            "alike": auc_sweeps(labels, [1.3] * 3, rng),
        }
        references = {"single_task": auc_sweeps(labels, [1.3] * 3, rng), "lightgbm": auc_sweeps(labels, [0.7], rng)}
        found = differences(models, references, None, len(labels), replicates=60, level=0.95)
        assert {name: each["single_task"].verdict for name, each in found.items()} == {
            "better": "gain",
            "worse": "loss",
            "alike": "tie",
        }
        assert all(each["lightgbm"].verdict == "gain" for each in found.values())
        for name, signal in (("better", 1.6), ("worse", 1.0), ("alike", 1.3)):
            for reference, other in (("single_task", 1.3), ("lightgbm", 0.7)):
                gap = expected_auc(signal) - expected_auc(other)
                assert found[name][reference].mean == pytest.approx(gap, abs=0.03)

    def test_mean_is_the_difference_of_exact_metrics(self):
        rng = np.random.default_rng(2)
        labels = labels_of(200, rng)
        mine, other = rng.normal(size=(2, 200)), rng.normal(size=(2, 200))
        found = differences(
            {"m": [AucSweep(s, labels) for s in mine]},
            {"r": [AucSweep(s, labels) for s in other]},
            None,
            200,
            replicates=10,
            level=0.95,
        )["m"]["r"]
        by_hand = [auc(a, labels) - auc(b, labels) for a, b in zip(mine, other, strict=True)]
        assert found.mean == pytest.approx(np.mean(by_hand), abs=1e-15)

    def test_identical_predictions_tie_at_exactly_zero(self):
        rng = np.random.default_rng(3)
        labels = labels_of(300, rng)
        same = auc_sweeps(labels, [1.0, 1.2], rng)
        found = differences({"m": same}, {"r": same}, None, 300, replicates=20, level=0.95)
        assert found["m"]["r"] == Difference(0.0, None, None, "tie")

    def test_without_replicates_there_is_no_verdict(self):
        rng = np.random.default_rng(13)
        labels = labels_of(300, rng)
        models, references = {"m": auc_sweeps(labels, [2.0, 2.1], rng)}, {"r": auc_sweeps(labels, [0.1, 0.2], rng)}
        found = differences(models, references, None, 300, replicates=0, level=0.95)["m"]["r"]
        assert found.mean > 0.2
        assert (found.low, found.high, found.verdict) == (None, None, "tie")

    def test_progress_counts_replicates(self):
        class Counting(Silent):
            count = 0

            def advance(self, rows, note=""):
                self.count += rows

        labels = np.arange(20) % 2
        each = {"m": [AucSweep(np.arange(20.0), labels)]}
        bar = Counting()
        differences(each, each, None, 20, replicates=15, level=0.95, bar=bar)
        assert bar.count == 15

    def test_no_true_difference_is_rarely_called_one(self):
        # Model and reference are exchangeable; both the rows and the training (noise of its own per seed) are random.
        called = 0
        for study in range(200):
            rng = np.random.default_rng([7, study])
            labels = labels_of(150, rng)
            quality = 1.0 + 0.15 * rng.normal(size=6)  # what the seed makes of a training
            sweeps = auc_sweeps(labels, quality, rng, common=0.8)
            found = differences({"m": sweeps[:3]}, {"r": sweeps[3:]}, None, 150, replicates=40, level=0.95, seed=study)
            called += found["m"]["r"].verdict != "tie"
        assert called <= 16

    def test_pairs_by_seed(self):
        # Each seed moves model and reference together; pairing takes that out, other pairs would not.
        rng = np.random.default_rng(11)
        labels = labels_of(3000, rng)
        models = {"m": auc_sweeps(labels, [0.8, 1.3, 1.8], rng, common=0.95)}
        reference = auc_sweeps(labels, [0.6, 1.1, 1.6], np.random.default_rng(12), common=0.95)
        paired, crossed = (
            differences(models, {"r": order}, None, len(labels), replicates=40, level=0.95)["m"]["r"]
            for order in (reference, reference[::-1])
        )
        assert paired.mean == pytest.approx(crossed.mean)
        assert paired.verdict == "gain"
        assert crossed.verdict == "tie"
        assert crossed.high - crossed.low > 3 * (paired.high - paired.low)

    def test_models_see_the_same_resample(self):
        # Two models with nearly the same scores: unpaired, the interval would be as wide as the metric's own.
        rng = np.random.default_rng(4)
        labels = labels_of(400, rng)
        scores = labels + rng.normal(size=400)
        close = scores + 0.01 * rng.normal(size=400)
        found = differences(
            {"m": [AucSweep(close, labels)], "coin": [AucSweep(rng.normal(size=400), labels)]},
            {"r": [AucSweep(scores, labels)]},
            None,
            400,
            replicates=100,
            level=0.95,
        )
        assert found["m"]["r"].high - found["m"]["r"].low < 0.1 * (found["coin"]["r"].high - found["coin"]["r"].low)

    def test_groups_are_resampled_whole(self):
        # Every row stands there ten times: rows alone would make the interval √10 too narrow.
        rng = np.random.default_rng(6)
        labels = labels_of(200, rng)
        mine, other = (np.repeat(labels + rng.normal(size=200), 10) for _ in range(2))
        labels = np.repeat(labels, 10)
        sweeps = {"m": [AucSweep(mine, labels)]}, {"r": [AucSweep(other, labels)]}
        widths = []
        for groups in (np.repeat(np.arange(200), 10), None):
            found = differences(*sweeps, groups, 2000, replicates=300, level=0.95)["m"]["r"]
            widths.append(found.high - found.low)
        assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.2)

    def test_same_seed_same_interval(self):
        rng = np.random.default_rng(8)
        labels = labels_of(100, rng)
        sweeps = {"m": auc_sweeps(labels, [1.0], rng)}, {"r": auc_sweeps(labels, [1.0], rng)}
        one, two, other = (differences(*sweeps, None, 100, replicates=20, level=0.95, seed=seed) for seed in (0, 0, 1))
        assert one == two != other

    @pytest.mark.parametrize("kind", ["binary", "regression"])
    def test_task_without_rows(self, kind):
        none = [sweep(kind, np.zeros(0), np.zeros(0))]
        found = differences({"m": none}, {"r": none}, None, 0, replicates=10, level=0.95)["m"]["r"]
        assert math.isnan(found.mean)
        assert found.verdict == "tie"

    def test_task_with_one_class(self):
        one = [AucSweep(np.arange(5.0), np.ones(5))]
        assert math.isnan(differences({"m": one}, {"r": one}, None, 5, replicates=10, level=0.95)["m"]["r"].mean)


class TestLack:
    @pytest.mark.parametrize(
        ("positives", "negatives", "said"),
        [
            (10, 10, ""),
            (9, 500, "9 test rows hold positives, 10 are needed"),
            (500, 9, "9 test rows hold negatives, 10 are needed"),
            (0, 0, "0 test rows hold positives, 10 are needed"),
        ],
    )
    def test_rows(self, positives, negatives, said):
        assert lack("binary", np.repeat([1.0, 0.0], [positives, negatives]), None) == said

    def test_groups_and_not_their_rows_count(self):
        labels = np.tile([1.0, 0.0], 500)
        assert lack("binary", labels, np.arange(1000) // 2 % 10) == ""
        assert lack("binary", labels, np.arange(1000) // 2 % 9) == "9 test groups hold positives, 10 are needed"
        # A hundred users, of whom three ever click.
        groups = np.arange(1000) // 10
        assert lack("binary", (groups < 3).astype(float), groups) == "3 test groups hold positives, 10 are needed"

    def test_a_row_without_a_group_is_one_by_itself(self):
        labels = np.tile([1.0, 0.0], 12)
        assert lack("binary", labels, np.full(24, NO_GROUP)) == ""
        groups = np.where(np.arange(24) < 14, 3, NO_GROUP)  # seven positives and negatives of user 3, five of nobody
        assert lack("binary", labels, groups) == "6 test groups hold positives, 10 are needed"

    def test_regression_needs_groups_alone(self):
        assert lack("regression", np.arange(10.0), None) == ""
        assert lack("regression", np.arange(50.0), np.arange(50) % 4) == "4 test groups hold its rows, 10 are needed"


class TestXaucSweep:
    @pytest.fixture(scope="class")
    @staticmethod
    def watch():
        rng = np.random.default_rng(9)
        labels = np.round(rng.exponential(20, 500))  # with ties
        return np.round(labels + 20 * rng.normal(size=500)), labels

    def test_is_exact_without_weights(self, watch):
        assert XaucSweep(*watch).value() == xauc(*watch)

    def test_even_weights_come_close_to_it(self, watch):
        assert XaucSweep(*watch).value(np.ones(500)) == pytest.approx(xauc(*watch), abs=0.002)

    def test_a_weight_is_a_repeated_row(self, watch):
        weights = np.random.default_rng(10).integers(0, 4, 500) * np.where(watch[1] > 20, 3, 1)
        repeated = xauc(*(np.repeat(column, weights) for column in watch))
        assert abs(repeated - xauc(*watch)) > 0.004  # or the next line would say nothing
        assert XaucSweep(*watch).value(weights.astype(float)) == pytest.approx(repeated, abs=0.003)

    def test_one_pair_by_hand(self):
        assert XaucSweep(np.array([1.0, 2.0]), np.array([5.0, 9.0])).value(np.array([1.0, 3.0])) == 1.0
        assert XaucSweep(np.array([2.0, 1.0]), np.array([5.0, 9.0])).value(np.ones(2)) == 0.0
        assert XaucSweep(np.array([2.0, 2.0]), np.array([5.0, 9.0])).value(np.ones(2)) == 0.5

    def test_all_models_of_a_task_are_judged_on_the_same_pairs(self, watch):
        predictions, labels = watch
        one, other = XaucSweep(predictions, labels), XaucSweep(-predictions, labels)
        weights = np.random.default_rng(0).random(500)
        untied = predictions + 1e-3 * np.arange(500)
        assert one.value(weights) + other.value(weights) == pytest.approx(1.0, abs=1e-12)
        assert XaucSweep(untied, labels).value(weights) + XaucSweep(-untied, labels).value(weights) == pytest.approx(
            1.0
        )

    @pytest.mark.parametrize(
        ("labels", "weights"),
        [([3.0, 3.0], [1.0, 1.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [1.0, 0.0]), ([], [])],
        ids=["labels alike", "no weight", "one row left", "no rows"],
    )
    def test_no_pair_no_value(self, labels, weights):
        assert math.isnan(XaucSweep(np.arange(len(labels), dtype=float), np.array(labels)).value(np.array(weights)))

    def test_sweep_takes_the_kind(self, watch):
        assert isinstance(sweep("regression", *watch), XaucSweep)
        assert isinstance(sweep("binary", watch[0], (watch[1] > 9).astype(float)), AucSweep)
