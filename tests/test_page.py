"""Numbers in words; what a document must be; a page's few parts."""

import pytest

from polyrank.errors import DataError
from polyrank.page import (
    check_document,
    count_text,
    delta_text,
    listed,
    number_text,
    share_text,
    value_text,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (delta_text(0.00123), "+0.0012"),
        (delta_text(-0.00123), "−0.0012"),
        (delta_text(-0.00001), "±0.0000"),
        (delta_text(None), "–"),
        (number_text(0.94188), "0.9419"),
        (number_text(float("nan")), "–"),
        (count_text(199523), "199,523"),
        (value_text(15342.8), "15,343"),
        (value_text(0.00123456), "0.0012346"),
        (value_text(-3), "−3"),
        (share_text(0.062007), "6.20 %"),
        (share_text(0.482), "48.2 %"),
        (share_text(0.00001), "<0.01 %"),
        (share_text(0), "0 %"),
        (share_text(1), "100.0 %"),
    ],
)
def test_numbers_in_words(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(("names", "expected"), [(["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")])
def test_lists_in_words(names: list[str], expected: str) -> None:
    assert listed(names) == expected


def test_a_document_needs_its_format_and_its_named_entries() -> None:
    check_document({"format": 1, "tasks": [{"name": "click"}]}, "x.json", ["tasks"])
    with pytest.raises(DataError, match=r"a x\.json of format 1 is needed"):
        check_document({"format": 2, "tasks": []}, "x.json", ["tasks"])
    with pytest.raises(DataError, match=r"`tasks` of a x\.json is a list of tables"):
        check_document({"format": 1, "tasks": [{}]}, "x.json", ["tasks"])
