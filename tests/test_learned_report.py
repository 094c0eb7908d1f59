"""The page of learned fusions is whole, offline, and holds the document's numbers."""

import re

import numpy as np
import pytest

from polyrank.errors import DataError
from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Formula
from polyrank.fusion.judged import judged
from polyrank.fusion.scope import Scope
from polyrank.learned_report import columns, learned_html


@pytest.fixture(scope="module")
def document():
    rng = np.random.default_rng(0)
    click, like = rng.uniform(0.05, 0.95, (2, 240))
    labels = {"click": (rng.random(240) < click) * 1.0, "like": (rng.random(240) < like) * 1.0}
    data = Requests(
        columns={"click": click, "like": like},
        heads=("click", "like"),
        labels=labels,
        numeric=frozenset(),
        requests=np.arange(240) // 6,
        users=np.arange(240) // 12,
        reward=labels["click"] + labels["like"],
    )
    scope = Scope({"click": "probability", "like": "probability"})
    fusions = {"sum": Formula.parse("click + like", scope), "<i>x</i>": Formula.parse("click * like", scope)}
    cohorts = {"half": np.where(data.users < 10, "early", "late")}
    return judged(data, fusions, "click alone", JudgeConfig(replicates=20), cohorts=cohorts)


def test_it_is_one_document_that_loads_nothing(document):
    page = learned_html({**document, "title": "Study", "command": "polyrank fuse learn", "notes": ["careful"]})
    # The bundle holds addresses as text, which the page's own policy forbids it to ask for.
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "default-src 'none'" in own
    assert not re.search(r"(src|href)=\"(https?:)?//", own)
    assert page.count('class="chart"') == 5 + 2 + 3 + 1  # differences, curves, influence, agreement
    assert "careful" in own
    assert "<td>half early</td>" in own


def test_it_holds_every_number_and_escapes_names(document):
    page = learned_html(document)
    for ranking in document["rankings"]:
        assert f"{ranking['metrics']['mtf_gauc']['reward']['value']:.4f}" in page
        assert f"{ranking['metrics']['expected']['like']['value']:.4f}<small>" in page
        assert f"{ranking['metrics']['observed']['like']['value']:.4f} happened" in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "<i>x</i>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_columns_without_a_number_are_left_out(document):
    assert [title for *_, title in columns(document)] == [
        "Composite",
        "MTF-GAUC",
        "Reward-NDCG@3",
        "GAUC click",
        "GAUC like",
    ]
    bare = {"rankings": [{"name": "a", "metrics": {"gauc": {"click": {"value": None}}}}], "behaviours": ["click"]}
    assert columns(bare) == []


def test_another_format_is_refused(document):
    with pytest.raises(DataError, match="format 1"):
        learned_html({**document, "format": 2})
