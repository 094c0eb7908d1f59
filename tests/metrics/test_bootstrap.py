"""Replicates are checked against what resampling promises: counts, coverage, widths."""

import math

import numpy as np
import pytest
from scipy import stats

from polyrank.data.groups import NO_GROUP
from polyrank.metrics import bootstrap, ranking


class TestBootstrap:
    def test_is_deterministic_in_the_seed(self):
        groups = np.array([3, 3, 9, 1, 9])
        first, again, other = (np.stack(list(bootstrap.group_weights(groups, 5, 30, seed))) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_groups_are_drawn_whole_and_as_many_as_there_are(self):
        groups = np.array([3, 3, 9, 1, 9])
        for weights in bootstrap.group_weights(groups, 5, 50, seed=0):
            assert weights.dtype == np.float64
            assert weights[0] == weights[1]
            assert weights[2] == weights[4]
            assert weights[0] + weights[2] + weights[3] == 3

    def test_a_row_without_a_group_is_drawn_by_itself(self):
        groups = np.array([NO_GROUP, 3, NO_GROUP, 3, NO_GROUP, NO_GROUP + 1])
        weights = np.stack(list(bootstrap.group_weights(groups, 6, 400, seed=0)))
        assert (weights[:, 1] == weights[:, 3]).all()
        drawn = weights[:, [0, 1, 2, 4, 5]]  # five things to draw, five draws
        assert (drawn.sum(axis=1) == 5).all()
        correlations = np.corrcoef(drawn.T)[np.triu_indices(5, 1)]
        assert correlations == pytest.approx(np.full(10, -0.25), abs=0.15)  # −1/(n − 1), as of single rows
        strangers = np.stack(list(bootstrap.group_weights(np.full(6, NO_GROUP), 6, 20, seed=0)))
        np.testing.assert_array_equal(strangers, np.stack(list(bootstrap.group_weights(None, 6, 20, seed=0))))

    def test_rows_are_drawn_as_many_as_there_are(self):
        weights = np.stack(list(bootstrap.group_weights(None, 40, 500, seed=0)))
        assert (weights.sum(axis=1) == 40).all()
        # Multinomial: mean 1, variance 1 − 1/40.
        assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.25)
        assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.05)

    def test_no_rows(self):
        assert [len(weights) for weights in bootstrap.group_weights(None, 0, 3, seed=0)] == [0, 0, 0]
        assert len(list(bootstrap.group_weights(np.zeros(0, dtype=np.int64), 0, 3, seed=0))) == 3

    def test_several_statistics_share_the_replicates(self):
        values = np.arange(6.0)

        def both(weights):
            mean = np.average(values, weights=weights)
            return np.array([mean, mean + 1])

        stacked = bootstrap.bootstrap_values(both, None, 6, replicates=20, seed=0)
        assert stacked.shape == (20, 2)
        np.testing.assert_array_equal(stacked[:, 1], stacked[:, 0] + 1)
        alone = bootstrap.bootstrap_values(lambda w: both(w)[0], None, 6, replicates=20, seed=0)
        np.testing.assert_array_equal(alone, stacked[:, 0])

    def test_interval_holds_the_truth_in_about_95_of_100(self):
        rng = np.random.default_rng(0)
        truth, trials, held = 0.3, 200, 0
        for trial in range(trials):
            clicks = (rng.random(150) < truth).astype(float)
            interval = bootstrap.bootstrap_interval(
                lambda weights, clicks=clicks: float(weights @ clicks) / 150, None, 150, seed=trial
            )
            held += interval.low <= truth <= interval.high
        # The percentile interval's true coverage is a little below its level; 0.999 of either binomial lies inside.
        assert stats.binom.ppf(0.0005, trials, 0.92) <= held <= stats.binom.ppf(0.9995, trials, 0.97)

    def test_resampling_users_widens_the_interval_when_their_rows_are_copies(self):
        rng = np.random.default_rng(1)
        users = np.repeat(np.arange(100), 20)
        clicks = np.repeat((rng.random(100) < 0.4).astype(float), 20)

        def rate(weights):
            return float(weights @ clicks) / float(weights.sum())

        by_row = bootstrap.bootstrap_interval(rate, None, 2000)
        by_user = bootstrap.bootstrap_interval(rate, users, 2000)
        # √20 ≈ 4.5 times as wide
        assert 3 < (by_user.high - by_user.low) / (by_row.high - by_row.low) < 6

    def test_level_widens_the_interval(self, tied_rows):
        scores, labels, _ = tied_rows(0)
        value = ranking.AucSweep(scores, labels).value
        narrow = bootstrap.bootstrap_interval(value, None, len(scores), level=0.5)
        wide = bootstrap.bootstrap_interval(value, None, len(scores), level=0.99)
        assert wide.low < narrow.low < ranking.auc(scores, labels) < narrow.high < wide.high

    def test_undefined_replicates_are_ignored(self):
        # With one positive among three rows, some replicates lack a class.
        sweep = ranking.AucSweep(np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1]))
        values = bootstrap.bootstrap_values(sweep.value, None, 3, replicates=200, seed=0)
        assert 0 < np.isnan(values).sum() < 200
        assert bootstrap.bootstrap_interval(sweep.value, None, 3) == bootstrap.Interval(1.0, 1.0)
        undefined = bootstrap.bootstrap_interval(lambda weights: math.nan, None, 3)
        assert math.isnan(undefined.low)
        assert math.isnan(undefined.high)
