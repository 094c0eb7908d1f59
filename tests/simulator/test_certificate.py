import json

import pytest

from polyrank.simulator.certificate import CertificateConfig, certificate
from polyrank.simulator.oracle import OracleConfig
from polyrank.simulator.world import WorldConfig

SMALL = CertificateConfig(sessions=200, judged=2_000, search=OracleConfig(static_generations=8, generations=8))


def test_a_certificate_says_what_was_found():
    found = certificate(WorldConfig(mode="d", longest=4), SMALL)
    assert json.loads(json.dumps(found)) == found
    assert found["oracle"]["gain"] == pytest.approx(found["oracle"]["value"] / found["static"]["value"] - 1)
    assert found["stale"]["error"] > 0
    assert found["accepted"] is None


def test_a_world_without_headroom_is_no_world_of_mode_c():
    # states tell nothing of users
    found = certificate(WorldConfig(mode="c", longest=2, blur=1_000.0), SMALL)
    assert found["accepted"] is False
    assert found["stale"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "low", "high"), [("a", -0.005, 0.005), ("c", 0.10, 0.30)])
def test_the_modes_have_the_headroom_that_they_claim(mode, low, high):
    found = certificate(WorldConfig(mode=mode, seed=7), CertificateConfig(judged=20_000))
    assert low <= found["oracle"]["gain"] <= high
    assert found["accepted"] is True


@pytest.mark.slow
def test_myopic_weights_are_the_best_in_mode_a_and_lose_in_b():
    found = {
        mode: certificate(WorldConfig(mode=mode), CertificateConfig(judged=20_000))["myopic"]["gain"] for mode in "ab"
    }
    assert found["a"] > -0.01
    assert found["b"] < -0.03
