"""The page of a policy is whole, offline, and shows values, refusals and controls."""

import copy
import re

import pytest

from polyrank.errors import DataError
from polyrank.rl_report import policy_html


def own(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_it_is_one_document_that_loads_nothing(document) -> None:
    page = policy_html(document)
    assert "default-src 'none'" in own(page)
    assert not re.search(r"(src|href)=\"(https?:)?//", own(page))
    # two of estimates, two weights, Q and fitted Q, two cohorts
    assert page.count('class="chart"') == 2 + 2 + 2 + 1
    for words in ("Matched static", "box-exit rate", "kernel DR", "conservative FQE", "signal:activity", "linear_cem"):
        assert words in own(page), words


def test_a_refusal_is_told_where_a_value_would_stand(document) -> None:
    refused = copy.deepcopy(document)
    entry = refused["estimates"]["policies"]["policy"]["kernel_dr"]
    entry |= {"value": None, "low": None, "high": None, "refusal": "only <3> rows"}
    page = own(policy_html(refused))
    assert "refused" in page
    assert "only &lt;3&gt; rows" in page


def test_without_an_answer_or_cohorts_it_still_stands(document) -> None:
    bare = copy.deepcopy(document) | {
        "headline": None,
        "cohorts": [],
        "curves": {},
        "believed": None,
        "verdict": "unsafe",
    }
    page = own(policy_html(bare))
    assert "No estimator has an answer" in page
    assert "Unsafe" in page
    assert 'id="cohorts"' not in page


def test_names_are_text(document) -> None:
    named = copy.deepcopy(document)
    named["where"]["weights"][0]["name"] = "<b>x</b>"
    named["title"] = "<i>t</i>"
    page = policy_html(named)
    assert "<b>x</b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "<i>t</i>" not in page


def test_another_format_is_refused(document) -> None:
    with pytest.raises(DataError, match="format 1"):
        policy_html({**document, "format": 2})
