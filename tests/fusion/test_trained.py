"""What fusions with a network share: see also tests/contracts/test_learned.py, which trains, saves and loads them."""

import numpy as np
import pytest
import torch

from polyrank.errors import ConfigError
from polyrank.fusion.listwise import ListwiseFusion
from polyrank.fusion.listwise_nets import ListwiseConfig, ListwiseNet, RivalryNet
from polyrank.fusion.monotone import MonotoneConfig, MonotoneFusion
from polyrank.fusion.scaling import Scaling

COLUMNS = {"click": np.linspace(0.1, 0.9, 9), "length": np.arange(9.0)}


def fusion_of(kind=MonotoneFusion, **knobs):
    torch.manual_seed(0)
    scaling = Scaling.fit(COLUMNS, ("click",), ("length",), ())
    config = kind.configured(**knobs)
    return kind(scaling, config, kind.network(scaling, config))


@pytest.mark.parametrize("kind", [MonotoneFusion, ListwiseFusion])
def test_it_scores_in_float64_with_nothing_dropped(kind):
    fusion = fusion_of(kind)
    assert (fusion.heads, fusion.context) == (("click",), ("length",))
    assert not fusion.net.training
    assert {values.dtype for values in fusion.arrays().values()} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(fusion.score(COLUMNS), fusion.score(COLUMNS))


def test_the_network_is_the_one_that_the_config_says():
    assert isinstance(fusion_of(ListwiseFusion).net, ListwiseNet)
    monotone = fusion_of(ListwiseFusion, monotone=True)
    assert isinstance(monotone.net, RivalryNet)
    again = ListwiseFusion.restore(monotone.document(), monotone.arrays())
    assert isinstance(again.net, RivalryNet)
    np.testing.assert_array_equal(again.score(COLUMNS), monotone.score(COLUMNS))


def test_arrays_of_another_network_are_refused():
    fusion = fusion_of()
    with pytest.raises(ValueError, match="size mismatch"):
        MonotoneFusion.restore(fusion.document(), fusion_of(hidden=3).arrays())
    with pytest.raises(ValueError, match="Missing key"):
        MonotoneFusion.restore(fusion.document(), {})


def test_a_knob_that_is_unknown_is_named():
    document = fusion_of().document()
    document["config"]["hiden"] = 3
    with pytest.raises(ConfigError, match="hiden"):
        MonotoneFusion.restore(document, fusion_of().arrays())
    assert MonotoneFusion.configured is MonotoneConfig
    assert ListwiseFusion.configured is ListwiseConfig
