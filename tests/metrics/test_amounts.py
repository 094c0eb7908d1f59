import numpy as np
import pytest

from polyrank.metrics.amounts import count_metrics, duration_metrics, poisson_deviance
from polyrank.metrics.summary import regression_metrics


class TestPoissonDeviance:
    def test_by_hand(self):
        found = poisson_deviance(np.array([2.0, 1.0, 3.0]), np.array([3.0, 0.0, 3.0]))
        assert found == pytest.approx((2 * (3 * np.log(1.5) - 1) + 2 * 1.0 + 0.0) / 3)

    def test_agrees_with_scikit_learn(self):
        from sklearn.metrics import mean_poisson_deviance

        rng = np.random.default_rng(0)
        y, mu = rng.poisson(2.0, 500), rng.gamma(2.0, 1.0, 500)
        assert poisson_deviance(mu, y) == pytest.approx(mean_poisson_deviance(y, mu))

    def test_of_the_true_rate_is_about_one(self):
        rng = np.random.default_rng(0)
        mu = rng.gamma(9.0, 1.0, 20_000)
        assert poisson_deviance(mu, rng.poisson(mu)) == pytest.approx(1.0, abs=0.05)

    def test_no_row(self):
        assert np.isnan(poisson_deviance(np.zeros(0), np.zeros(0)))

    @pytest.mark.parametrize(("prediction", "label"), [(0.0, 1.0), (-1.0, 0.0), (1.0, -1.0)])
    def test_out_of_bounds(self, prediction, label):
        with pytest.raises(ValueError, match="Poisson"):
            poisson_deviance(np.array([prediction]), np.array([label]))

    def test_zero_predicted_where_it_is_zero_is_exact(self):
        assert poisson_deviance(np.array([0.0]), np.array([0.0])) == 0.0


class TestDocuments:
    Y, P, G = np.array([0.0, 2.0, 4.0]), np.array([1.0, 1.5, 3.0]), np.array([5, 5, 5])

    def test_a_count_adds_its_deviance(self):
        found = count_metrics(self.P, self.Y, replicates=0)
        assert found == regression_metrics(self.P, self.Y, replicates=0) | {
            "poisson_deviance": poisson_deviance(self.P, self.Y)
        }

    def test_a_duration_adds_its_ratio_and_xgauc(self):
        found = duration_metrics(self.P, self.Y, self.G, replicates=0)
        assert found == regression_metrics(self.P, self.Y, replicates=0) | {"mean_ratio": 5.5 / 6.0, "xgauc": 1.0}

    @pytest.mark.parametrize("measure", [count_metrics, duration_metrics])
    def test_what_is_undefined_is_none(self, measure):
        none = np.zeros(0)
        found = measure(none, none, np.zeros(0, np.int64), replicates=3)
        assert found.pop("rows") == 0
        assert set(found.values()) == {None}

    def test_all_zero_has_no_ratio(self):
        assert duration_metrics(self.P, np.zeros(3), self.G, replicates=0)["mean_ratio"] is None
