"""Heads from a schema's tasks and what was learned of their labels."""

import numpy as np
import pytest

from polyrank.data.encoders import Field, Layout, TaskStatistics
from polyrank.data.schema import Task
from polyrank.heads.build import HeadsConfig, build_heads
from polyrank.heads.cread import Cread, CreadConfig
from polyrank.heads.d2q import D2Q
from polyrank.heads.log_normal import LogNormal
from polyrank.heads.ordinal import Ordinal, OrdinalConfig

QUANTILES = tuple(np.linspace(0.0, 9.0, 513).tolist())
DURATION = TaskStatistics(9, 4.0, 2.0, QUANTILES, (QUANTILES, QUANTILES))
LAYOUT = Layout(
    (Field("video", "id", 0, 1, "video"), Field("length", "number", 1, 2, "length", 0)), {"video": 9, "length": 2}
)


def heads(*tasks, config=None):
    statistics = [DURATION if task.kind == "duration" else TaskStatistics(9, 0.5, 0.5) for task in tasks]
    return build_heads(tasks, statistics, LAYOUT, config or HeadsConfig())


@pytest.mark.parametrize(
    ("head", "kind"), [(None, LogNormal), ("log_normal", LogNormal), ("ordinal", Ordinal), ("cread", Cread)]
)
def test_each_head_by_its_name(head, kind):
    found = heads(Task("click", "binary"), Task("watch", "duration", head=head))
    assert list(found.wide) == ["1"]
    assert isinstance(found.wide["1"], kind)
    assert found.columns == {}


def test_d2q_reads_its_bins_where_the_feature_stands():
    found = heads(Task("watch", "duration", head="d2q", item_duration="length"), Task("click", "binary"))
    assert isinstance(found.wide["0"], D2Q)
    assert found.columns == {0: 1}


def test_each_head_has_its_own_knobs():
    config = HeadsConfig(ordinal=OrdinalConfig(bins=5), cread=CreadConfig(bins=7))
    found = heads(Task("a", "duration", head="ordinal"), Task("b", "duration", head="cread"), config=config)
    assert [head.logits for head in found.wide.values()] == [5, 7]
