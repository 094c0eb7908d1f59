"""The page's table of methods is made of the registry's docstrings, and is up to date."""

import importlib.util
from pathlib import Path

import pytest

from polyrank.balancing.balancer import BALANCERS

SCRIPT = Path(__file__).parent.parent / "docs/make_balancing.py"
SPEC = importlib.util.spec_from_file_location("make_balancing", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


def test_the_page_has_not_drifted():
    assert make.page() == make.PAGE.read_text(encoding="utf-8"), "python docs/make_balancing.py"


@pytest.mark.parametrize("method", BALANCERS)
def test_every_docstring_has_what_the_table_shows(method):
    found = make.parts(BALANCERS[method].kind.__doc__)
    assert all(found.get(field) for field in ("Idea", "Formula", "Cost", "When", "Source"))
    assert (
        "=" in found["Formula"] or "←" in found["Formula"] or "argmin" in found["Formula"] or "e^" in found["Formula"]
    )


def test_the_page_shows_every_method_and_its_knobs():
    page = make.PAGE.read_text(encoding="utf-8")
    for method, entry in BALANCERS.items():
        assert f"| `{method}` |" in page
        assert f"::: {entry.config.__module__}.{entry.config.__name__}\n" in page
