"""Expressions: three kinds of node, the allow-list of functions, and what they evaluate to.

Whatever a formula can do is a line of `FUNCTIONS` or `FITTED`; there is no eval, no attribute, no index, no loop.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from polyrank.fusion import transforms
from polyrank.fusion.transforms import BucketCurves, Curve
from polyrank.metrics.checks import Rows

Table: TypeAlias = Curve | BucketCurves


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Name:
    """A head, a context column or a parameter."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operator or a function of the allow-list, applied."""

    function: str
    arguments: tuple["Node", ...]


Node: TypeAlias = Number | Name | Call

COMPARISONS: Final = ("<", "<=", ">", ">=")
# What may be called, on how many arguments, elementwise. A name not in here is an error.
FUNCTIONS: Final[Mapping[str, tuple[int, Callable[..., Any]]]] = {
    "+": (2, operator.add),
    "-": (2, operator.sub),
    "*": (2, transforms.times),
    "/": (2, transforms.divide),
    "^": (2, transforms.power),
    "negate": (1, operator.neg),
    "<": (2, np.less),
    "<=": (2, np.less_equal),
    ">": (2, np.greater),
    ">=": (2, np.greater_equal),
    "log": (1, transforms.log),
    "log1p": (1, transforms.log1p),
    "exp": (1, transforms.exp),
    "sigmoid": (1, transforms.sigmoid),
    "logit": (1, transforms.logit),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "clip": (3, lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "where": (3, np.where),
    "band": (4, transforms.band),
}
# What looks beyond the row, and on how many arguments: at the request (rank), or at what was fitted.
FITTED: Final[Mapping[str, tuple[int, ...]]] = {"quantile": (1, 2), "learned": (1,)}
ARITIES: Final[Mapping[str, tuple[int, ...]]] = {n: (a,) for n, (a, _) in FUNCTIONS.items()} | {"rank": (1,), **FITTED}


@dataclass(frozen=True)
class Known:
    """What an expression is evaluated on.

    Attributes:
        columns: values by name: `[N]` float64, or a number (a parameter).
        requests: `[N]`, or None where all rows are one request.
        tables: what was fitted, by the call's node.
    """

    columns: Mapping[str, Any]
    requests: Rows | None = None
    tables: Mapping[Node, Table] = field(default_factory=dict)


def evaluate(node: Node, known: Known) -> Any:
    """The node's value: `[N]`, or a number where it reads no column."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        return known.columns[node.name]
    arguments = [evaluate(argument, known) for argument in node.arguments]
    if node.function == "rank":
        return transforms.rank_within(np.asarray(arguments[0]), known.requests)
    if node.function in FITTED:
        return known.tables[node](*arguments)
    return FUNCTIONS[node.function][1](*arguments)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, from left to right."""
    yield node
    if isinstance(node, Call):
        for argument in node.arguments:
            yield from walk(argument)


def names(node: Node) -> tuple[str, ...]:
    """Every name in it, once, from left to right."""
    return tuple(dict.fromkeys(inner.name for inner in walk(node) if isinstance(inner, Name)))


def substitute(node: Node, values: Mapping[str, float]) -> Node:
    """The expression with numbers in the place of some names."""
    if isinstance(node, Name) and node.name in values:
        return Number(float(values[node.name]))
    if isinstance(node, Call):
        arguments = tuple(substitute(argument, values) for argument in node.arguments)
        if node.function == "negate" and isinstance(arguments[0], Number):
            return Number(-arguments[0].value)  # as it would be read
        return Call(node.function, arguments)
    return node
