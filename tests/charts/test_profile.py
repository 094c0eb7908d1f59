"""Figures of a profile hold exactly its numbers, and nothing where nothing was measured."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from polyrank.charts import profile as charts

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def profile() -> dict[str, Any]:
    return json.loads((FIXTURES / "profile.json").read_text(encoding="utf-8"))


def test_the_profile_figures_hold_the_profile(profile: dict[str, Any]) -> None:
    (bars,) = charts.positives_figure(profile["tasks"], profile["rows"]).data
    assert bars.y == ("click", "long_view", "like", "follow")
    assert bars.x == (448213, 313102, 18231, 1044)
    assert bars.customdata[0] == 448213 / 1186059
    (cells,) = charts.conditional_figure(profile["funnel"]).data
    assert [list(row) for row in cells.z] == profile["funnel"]["conditional"]
    assert [list(row) for row in cells.customdata] == profile["funnel"]["counts"]
    (cells,) = charts.correlation_figure(profile["correlations"]).data
    assert [list(row) for row in cells.z] == profile["correlations"]["values"]
    assert (cells.zmin, cells.zmax) == (-1, 1)


def test_cardinalities_are_sorted_capped_and_marked_where_they_are_a_bound(profile: dict[str, Any]) -> None:
    (bars,) = charts.cardinality_figure(profile["features"], most=3).data
    assert bars.x == (100000, 100000, 21844)
    assert bars.texttemplate == ("≥ %{x:,}", "≥ %{x:,}", "%{x:,}")
    (one,) = charts.cardinality_figure([{"name": "constant", "distinct": 1}]).data
    assert one.x == (1,)


def test_nothing_to_show_is_a_figure_without_traces() -> None:
    assert not charts.positives_figure([{"name": "watch", "positives": None}], 0).data
    assert not charts.conditional_figure({}).data
    assert not charts.correlation_figure({"tasks": [], "values": []}).data
    assert not charts.cardinality_figure([]).data
    assert not charts.share_figure({"a": None, "b": math.nan}).data


def test_shares_keep_their_order_and_a_zero_share_is_shown() -> None:
    (bars,) = charts.share_figure({"b": 0.0, "a": 0.25, "c": None}).data
    assert (bars.y, bars.x) == (("b", "a"), (0.0, 0.25))


def test_names_are_text_and_never_markup() -> None:
    figure = charts.share_figure({"<b>like</b> & more": 0.5})
    assert figure.data[0].y == ("&lt;b&gt;like&lt;/b&gt; &amp; more",)
