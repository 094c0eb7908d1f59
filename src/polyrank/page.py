"""What every page for people is made of: panels, numbers as text, and one self-contained HTML document.

A page loads nothing: the plotly bundle, the style and the numbers are inside it, and its content security policy
forbids every request, so that it can be mailed, opened from a disk, and read in five years. Text is escaped by jinja2;
figures travel as JSON that cannot close its script element. Nothing is written here.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import plotly.graph_objects as go
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from polyrank import plots
from polyrank.errors import DataError
from polyrank.plots import Panel

FORMAT: Final = 1
METRICS: Final = {
    "auc": "AUC",
    "xauc": "XAUC",
    "gauc": "GAUC",
    "log_loss": "Log loss",
    "normalised_entropy": "Normalised entropy",
    "ece": "ECE",
    "mae": "MAE",
    "rmse": "RMSE",
    "xgauc": "XAUC within groups",
    "mean_ratio": "Mean prediction / mean label",
    "poisson_deviance": "Poisson deviance",
}
_MINUS: Final = "\u2212"


def render(template: str, **context: object) -> str:
    """A template of `polyrank/templates` as a whole document."""
    page = _environment().get_template(template)
    return page.render(plotly=Markup(get_plotlyjs()), verdicts=plots.VERDICTS, **context)


def check_document(document: Mapping[str, Any], name: str, lists: Sequence[str]) -> None:
    """Refuse a document of another format, or without the lists of named entries that its page is about.

    Raises:
        DataError: it is one.
    """
    if document.get("format") != FORMAT:
        raise DataError(
            f"a {name} of format {FORMAT} is needed",
            received=f"format {document.get('format')!r}",
            mend="write it again with this version of Polyrank",
        )
    for key in lists:
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) and "name" in e for e in entries):
            raise DataError(
                f"`{key}` of a {name} is a list of tables, each with a `name`", received=repr(entries)[:200]
            )


def drawn(panels: Iterable[Panel]) -> list[Panel]:
    """The panels that have something to show."""
    return [panel for panel in panels if panel.figure.data]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def number_text(value: object, digits: int = 4) -> str:
    """`0.9412`; a dash where there is no number."""
    number = plots.finite(value)
    return "–" if number is None else f"{number:,.{digits}f}".replace("-", _MINUS)


def delta_text(value: object, digits: int = 4) -> str:
    """`+0.0012`, `−0.0004`, `±0.0000`: a difference always carries its sign."""
    number = plots.finite(value)
    if number is None:
        return "–"
    text = f"{number:+.{digits}f}"
    return f"±{text[1:]}" if float(text) == 0 else text.replace("-", _MINUS)


def interval_text(delta: Mapping[str, Any]) -> str:
    """`[−0.0003, +0.0027]`; empty where the interval is not known."""
    low, high = plots.finite(delta.get("low")), plots.finite(delta.get("high"))
    return "" if low is None or high is None else f"[{delta_text(low)}, {delta_text(high)}]"


def count_text(value: object) -> str:
    """`199,523`."""
    return number_text(value, 0)


def value_text(value: object) -> str:
    """A number of unknown size in five significant digits: `15,343`, `0.0012346`."""
    number = plots.finite(value)
    if number is None:
        return "–"
    return (f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.5g}").replace("-", _MINUS)


def setting_text(value: object) -> str:
    """A value of a config in few characters: `0.001234`, `adam`, `[64, 32]`; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def share_text(value: object) -> str:
    """A share of one as per cent, small ones with more digits: `6.20 %`, `48.2 %`, `<0.01 %`."""
    number = plots.finite(value)
    if number is None:
        return "–"
    if number == 0:
        return "0 %"
    if 0 < number < 0.0001:
        return "<0.01 %"
    return f"{100 * number:.{2 if 0 < number < 0.1 else 1}f} %"


def _figure_json(figure: go.Figure) -> Markup:
    # "<" never reaches the page, so that no name can close the script element or open a comment in it.
    text: str = figure.to_json(remove_uids=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("polyrank", "templates"),
        autoescape=True,
        undefined=ChainableUndefined,  # every part of a document may be missing; the filters show a dash
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "number": number_text,
        "delta": delta_text,
        "interval": interval_text,
        "count": count_text,
        "value": value_text,
        "share": share_text,
        "setting": setting_text,
        "display": plots.display_name,
        "figure_json": _figure_json,
    }
    environment.filters |= filters
    return environment
