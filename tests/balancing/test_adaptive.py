"""Golden values by hand, and that the methods act on windows of steps."""

import math

import pytest
import torch

from polyrank.balancing.adaptive import (
    DTP,
    DWA,
    LBTW,
    DTPConfig,
    DWAConfig,
    LBTWConfig,
    STCHConfig,
    STCHWeighting,
)

TASKS = ["click", "like", "watch"]
ANY = [[1.0], [1.0], [1.0]]
LOSSES, START = [0.7, 0.2, 1.5], [1.4, 0.25, 1.5]


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=1e-6)


class TestDWA:
    def test_by_hand(self, jacobian_step):
        balancer = DWA(TASKS, DWAConfig(window=2))
        for losses in ([0.9, 0.4, 1.9], [1.1, 0.6, 2.1], [0.8, 0.1, 1.4], [0.6, 0.3, 1.6]):  # means (1, .5, 2), A
            assert balancer.backward(jacobian_step(losses, ANY)).tolist() == pytest.approx([1.0] * 3)
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (1.039493, 0.894700, 1.065808))

    @pytest.mark.parametrize(
        ("temperature", "expected"),
        [(2.0, (0.990017, 0.999967, 1.010016)), (0.1, (0.807922, 0.986799, 1.205279))],
    )
    def test_the_temperature(self, temperature, expected, jacobian_step):
        balancer = DWA(TASKS, DWAConfig(temperature, window=1))
        for losses in ([1.0, 1.0, 1.0], [0.98, 1.0, 1.02]):
            balancer.backward(jacobian_step(losses, ANY))
        close(balancer.backward(jacobian_step(LOSSES, ANY)), expected)

    def test_a_tasks_window_is_of_its_own_labelled_steps(self, jacobian_step):
        balancer = DWA(TASKS, DWAConfig(temperature=0.1, window=2))
        for number in range(8):
            present = [True, number % 2 == 0, True]
            balancer.backward(jacobian_step([1.0 - 0.1 * number, 2.0 - 0.1 * number, 1.0], ANY, present))
        # like was there at steps 0, 2, 4, 6: windows (2, 1.8), (1.6, 1.4)
        assert balancer.memory["older"][1].item() == pytest.approx(1.9, abs=1e-6)
        assert balancer.memory["newer"][1].item() == pytest.approx(1.5, abs=1e-6)
        assert balancer.memory["newer"][0].item() == pytest.approx(0.35, abs=1e-6)


class TestDTP:
    @pytest.mark.parametrize(
        ("focus", "expected"), [(1.0, (0.192776, 0.012819, 0.774815)), (2.0, (0.075182, 0.001410, 0.526874))]
    )
    def test_by_hand(self, focus, expected, jacobian_step):
        balancer = DTP(TASKS, DTPConfig(focus=focus, metric="accuracy", every=1, scale="paper"))
        balancer.backward(jacobian_step(LOSSES, ANY, quality=[0.6, 0.9, 0.3]))
        close(balancer.backward(jacobian_step(LOSSES, ANY, quality=[0.7, 0.8, 0.5])), expected)
        close(balancer.memory["quality"], (0.61, 0.89, 0.32))

    def test_rescaled(self, jacobian_step):
        balancer = DTP(TASKS, DTPConfig(metric="accuracy", every=1))
        balancer.backward(jacobian_step(LOSSES, ANY, quality=[0.6, 0.9, 0.3]))
        found = balancer.backward(jacobian_step(LOSSES, ANY, quality=[0.7, 0.8, 0.5]))
        close(found, (0.589883, 0.039225, 2.370893))

    def test_without_focus_it_is_the_cross_entropy_of_the_metric(self, jacobian_step):
        balancer = DTP(TASKS, DTPConfig(focus=0.0, every=1, scale="paper"))
        found = balancer.backward(jacobian_step(LOSSES, ANY, quality=[0.75, 0.9, 0.6]))  # AUC
        close(found, [-math.log(2 * auc - 1) for auc in (0.75, 0.9, 0.6)])

    def test_looks_now_and_then_and_keeps_what_is_not_defined(self, jacobian_step):
        balancer = DTP(TASKS, DTPConfig(metric="accuracy", every=3))
        for number, quality in enumerate([0.6, 0.1, 0.1, math.nan, 0.2, 0.2, 0.7]):
            balancer.backward(jacobian_step(LOSSES, ANY, quality=[quality, 0.5, 0.5]))
            if number < 6:
                assert balancer.memory["quality"][0].item() == pytest.approx(0.6)
        assert balancer.memory["quality"][0].item() == pytest.approx(0.61)


class TestLBTW:
    def test_by_hand(self, jacobian_step):
        balancer = LBTW(TASKS, LBTWConfig(reference_steps=1, half_life=0))
        balancer.backward(jacobian_step(START, ANY))
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (0.815411, 1.031423, 1.153166))

    def test_the_reference_is_a_mean_over_steps(self, jacobian_step):
        balancer = LBTW(TASKS, LBTWConfig(reference_steps=2, half_life=0))
        for losses in ([1.0, 0.2, 1.5], [1.8, 0.3, 1.5], LOSSES):
            found = balancer.backward(jacobian_step(losses, ANY))
        close(found, (0.815411, 1.031423, 1.153166))


class TestSTCH:
    def test_by_hand(self, jacobian_step):
        balancer = STCHWeighting(TASKS, STCHConfig(warmup=2, scale="paper"))
        # the first half of the warm-up leaves no trace; the nadir is the loss of the second
        close(balancer.backward(jacobian_step([9.0, 9.0, 9.0], ANY)), (1 / 9, 1 / 9, 1 / 9))
        balancer.backward(jacobian_step(START, ANY))
        close(balancer.backward(jacobian_step(LOSSES, ANY)), (0.931677, 5.217391, 0.869565))

    def test_little_smoothing_leaves_the_worst_task(self, jacobian_step):
        balancer = STCHWeighting(TASKS, STCHConfig(smoothing=1e-3, warmup=2))
        for losses in (START, START, LOSSES):
            found = balancer.backward(jacobian_step(losses, ANY))
        close(found, (0.0, 0.0, 3.0))
