"""Formulas: an expression over task scores that ranks; and templates, whose parameters a search chooses.

`click^0.9 * (like + 1e-4)^0.2 * log1p(video_seconds)` is a formula; with `like^w_like` and a range for `w_like` it is a
template. Both are checked against the schema's tasks when they are made, and are written back in one canonical way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from polyrank.errors import ConfigError
from polyrank.fusion.expression import FITTED, Call, Known, Node, Table, evaluate, names, substitute, walk
from polyrank.fusion.fusion import Columns, Document, Fusion, read_columns
from polyrank.fusion.parse import parse, write
from polyrank.fusion.plan import ordinal
from polyrank.fusion.scope import HeadKind, Parameter, Scope
from polyrank.fusion.shapes import analyse
from polyrank.fusion.transforms import BucketCurves, Curve, bucket_quantiles, learned_curve, quantile_curve
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class Template:
    """A formula with parameters.

    Attributes:
        expression: what it computes.
        scope: the names it may use; the parameters among them are those a search chooses.
        tables: what `fit` made of `quantile` and `learned`, by the call.
    """

    expression: Node
    scope: Scope
    tables: Mapping[Node, Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types, and that something can be ranked by it."""
        shape = analyse(self.expression, self.scope)
        if not shape.directions:
            raise ConfigError(
                "a formula must read the prediction of a task",
                received=write(self.expression),
                mend=f"the tasks are {', '.join(self.scope.heads)}",
            )
        unused = [name for name in self.scope.parameters if name not in names(self.expression)]
        if unused:
            raise ConfigError(
                "every parameter must occur in the formula", received=", ".join(unused), mend="remove the others"
            )

    @classmethod
    def parse(cls, text: str, scope: Scope) -> Self:
        """Read a template.

        Raises:
            ConfigError: see `parse.parse` and `shapes.analyse`.
        """
        return cls(parse(text), scope)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What a search may choose."""
        return self.scope.parameters

    def bind(self, values: Mapping[str, float] | None = None) -> "Formula":
        """The formula with these values; a parameter that is not among them has its own."""
        chosen = {name: parameter.value for name, parameter in self.parameters.items()} | dict(values or {})
        tables = {substitute(node, chosen): table for node, table in self.tables.items()}
        return Formula(substitute(self.expression, chosen), replace(self.scope, parameters={}), tables)

    def fit(self, rows: Columns, reward: Rows | None = None) -> Self:
        """Fit `quantile(x)`, `quantile(x, by)` and `learned(x)` on rows, which need no request.

        Args:
            rows: `[N ≥ 1]` columns, as in `Fusion.score`.
            reward: `[N]` finite: what `learned` regresses on; needed only where it occurs.

        Raises:
            ConfigError: `learned` occurs and there is no reward.
            ValueError: as in `Fusion.score`, or no rows.
        """
        wanted = _fitted_calls(self.expression)
        if not wanted:
            return self
        columns = read_columns(rows, [n for n in names(self.expression) if n not in self.parameters])
        tables: dict[Node, Table] = {}
        for node in sorted(wanted, key=lambda call: len(list(walk(call)))):  # an inner one before the one around it
            x, *by = (np.asarray(evaluate(inner, Known(columns, tables=tables))) for inner in node.arguments)
            if len(x) == 0:
                raise ValueError("a fitted transform needs rows")
            if node.function == "quantile":
                tables[node] = bucket_quantiles(x, np.broadcast_to(by[0], x.shape)) if by else quantile_curve(x)
            elif reward is None:
                raise ConfigError("learned needs a reward", received=write(node), mend="declare the value of each task")
            else:
                tables[node] = learned_curve(x, reward)
        return replace(self, tables=tables)


@dataclass(frozen=True)
class Formula(Template, Fusion):
    """A template without parameters: ready to rank."""

    kind: ClassVar[str] = "formula"
    _ordinal: Node = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the types; and work out once what serving needs."""
        super().__post_init__()
        if self.scope.parameters:
            raise ValueError("a formula has no parameters: bind them")
        used, calls = names(self.expression), [n for n in walk(self.expression) if isinstance(n, Call)]
        heads = {name: self.scope.heads[name] for name in used if name in self.scope.heads}
        context = tuple(name for name in used if name in self.scope.context)
        ready = {
            "scope": Scope(heads, context),  # what it might have used is no part of it
            "heads": tuple(heads),
            "context": context,
            "within_request": any(call.function == "rank" for call in calls),
            "_ordinal": ordinal(self.expression, self.scope),
        }
        for name, value in ready.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return write(self.expression)

    @property
    def directions(self) -> Mapping[str, int]:
        """For each head: +1 raising it never lowers the score, −1 never raises it, 0 neither can be proved."""
        return analyse(self.expression, self.scope).directions

    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """The formula's value of every row; see `Fusion.score`."""
        return self._value(self.expression, rows, requests)

    def rank(self, request: Columns) -> npt.NDArray[np.intp]:
        """See `Fusion.rank`; a product is compared by its logarithm, which tells apart what underflows to one score."""
        return np.argsort(-self.order(request), kind="stable")

    def order(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """Numbers that order every request as the score does: of a product, its logarithm; see `plan.ordinal`."""
        return self._value(self._ordinal, rows, requests)

    def document(self) -> Document:
        """See `Fusion.document`."""
        return {
            "formula": write(self.expression),
            "heads": dict(self.scope.heads),
            "context": list(self.context),
            "tables": [{"call": write(node), **_table_document(table)} for node, table in self.tables.items()],
        }

    @classmethod
    def restore(cls, document: Document, arrays: Mapping[str, Rows]) -> Self:
        """See `Fusion.restore`."""
        scope = Scope(dict(document["heads"]), tuple(document["context"]))
        tables = {parse(entry["call"]): _table(entry) for entry in document["tables"]}
        return cls(parse(document["formula"]), scope, tables)

    def _value(self, node: Node, rows: Columns, requests: Rows | None) -> Floats:
        columns = read_columns(rows, (*self.heads, *self.context))
        for call in _fitted_calls(node):
            if call not in self.tables:
                raise ValueError(f"{write(call)} must be fitted before it scores")
        with np.errstate(over="ignore", under="ignore"):
            value = np.asarray(evaluate(node, Known(columns, requests, self.tables)), np.float64)
        length = len(columns[self.heads[0]])
        return value if value.shape == (length,) else np.full(length, value)


def scope_of(heads: Mapping[str, HeadKind], text: str, parameters: Mapping[str, Parameter] | None = None) -> Scope:
    """The scope of a formula whose other names are context columns: for scripts, where no schema lists the columns."""
    known = {*heads, *(parameters or {})}
    return Scope(heads, tuple(name for name in names(parse(text)) if name not in known), parameters or {})


def _fitted_calls(node: Node) -> list[Call]:
    return list(dict.fromkeys(n for n in walk(node) if isinstance(n, Call) and n.function in FITTED))


def _table_document(table: Table) -> dict[str, Any]:
    if isinstance(table, Curve):
        return {"x": list(table.x), "y": list(table.y)}
    return {"edges": list(table.edges), "curves": [_table_document(curve) for curve in table.curves]}


def _table(document: Mapping[str, Any]) -> Table:
    if "edges" in document:
        curves = (Curve(tuple(curve["x"]), tuple(curve["y"])) for curve in document["curves"])
        return BucketCurves(tuple(document["edges"]), tuple(curves))
    return Curve(tuple(document["x"]), tuple(document["y"]))
