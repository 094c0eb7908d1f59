"""What can be said of an expression without data: its range, and which way it moves with each head.

Interval arithmetic with a sign per head. It is what types a formula: `logit` of something that is no probability, a
divisor that may be negative, a condition on a head are refused before any row is scored, and a head that a formula
cannot be proved to rise with is shown to the user.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from polyrank.config import nearest
from polyrank.errors import ConfigError
from polyrank.fusion import transforms
from polyrank.fusion.expression import COMPARISONS, FITTED, Call, Name, Node, Number, names
from polyrank.fusion.scope import RANGES, Scope

_INCREASING: Final = {
    "log": transforms.log,
    "log1p": transforms.log1p,
    "exp": transforms.exp,
    "sigmoid": transforms.sigmoid,
    "logit": transforms.logit,
}


@dataclass(frozen=True)
class Shape:
    """An expression's range, and how it moves with each head it reads.

    Attributes:
        low: it is never below.
        high: it is never above.
        directions: +1: it never falls when the head rises; −1: it never rises; 0: neither is proved.
    """

    low: float
    high: float
    directions: Mapping[str, int] = field(default_factory=dict)

    def moved(self, sign: int) -> Mapping[str, int]:
        """The directions of a function that moves with this by `sign`."""
        return {head: sign * direction for head, direction in self.directions.items()}


def analyse(node: Node, scope: Scope) -> Shape:
    """The shape of an expression.

    Raises:
        ConfigError: it uses an unknown name, or a function on what that does not take.
    """
    if isinstance(node, Number):
        return Shape(node.value, node.value)
    if isinstance(node, Name):
        return _named(node.name, scope)
    function, arguments = node.function, [analyse(argument, scope) for argument in node.arguments]
    _check_types(node, arguments, scope)
    first = arguments[0]
    if function in _INCREASING:
        apply = _INCREASING[function]
        return Shape(float(apply(first.low)), float(apply(first.high)), first.directions)
    if function in FITTED:  # the second argument of quantile chooses the curve
        return Shape(0.0, 1.0, first.directions)
    if function == "rank":
        return Shape(1.0, math.inf, first.moved(-1))
    if function == "negate":
        return Shape(-first.high, -first.low, first.moved(-1))
    if function == "band":
        return Shape(-math.inf, math.inf, first.directions)
    if function in COMPARISONS:
        return Shape(0.0, 1.0)
    if function == "where":
        return _either(arguments[1], arguments[2])
    if function == "clip":
        low, high = arguments[1].low, arguments[2].high
        return Shape(max(first.low, low) if low <= high else low, min(first.high, high), first.directions)
    return _ARITHMETIC[function](first, arguments[1])


def _named(name: str, scope: Scope) -> Shape:
    if name in scope.heads:
        return Shape(*RANGES[scope.heads[name]], {name: 1})
    if name in scope.parameters:
        return Shape(scope.parameters[name].low, scope.parameters[name].high)
    if name in scope.context:
        return Shape(-math.inf, math.inf)
    known = [*scope.heads, *scope.context, *scope.parameters]
    raise ConfigError(
        "a formula may name tasks, numeric columns and its parameters", received=repr(name), mend=nearest(name, known)
    )


def _check_types(node: Call, arguments: list[Shape], scope: Scope) -> None:
    function = node.function
    for index, argument in enumerate(node.arguments):
        condition = isinstance(argument, Call) and argument.function in COMPARISONS
        if condition != (function == "where" and index == 0):
            raise ConfigError(
                "a comparison stands as the first argument of where, and nowhere else",
                received=f"argument {index + 1} of {function}",
                mend="write where(video_seconds > 10, x, y)",
            )
    # Where a condition or an exponent moved with a head, no direction could be promised.
    constant = {"^": (1,), "clip": (1, 2), "band": (1, 2, 3), "<": (0, 1)}
    constant |= dict.fromkeys(COMPARISONS, (0, 1)) | {"quantile": (1,)}
    for index in constant.get(function, ()):
        if index < len(arguments) and arguments[index].directions:
            what = {"^": "an exponent", "clip": "a bound of clip", "band": "a bound of band", "quantile": "a bucket"}
            raise ConfigError(
                f"{what.get(function, 'a condition')} may read columns and parameters, not a task's prediction",
                received=", ".join(arguments[index].directions),
                mend="use a number, a parameter or a context column there",
            )
    if function == "logit" and not (arguments[0].low >= 0 and arguments[0].high <= 1):
        received = f"{', '.join(names(node.arguments[0])) or 'a number'} in [{arguments[0].low}, {arguments[0].high}]"
        raise ConfigError("logit takes a probability", received=received, mend="use log or log1p for amounts")
    if function == "/" and arguments[1].low < 0:
        raise ConfigError(
            "a divisor must not be negative",
            received=f"{', '.join(names(node.arguments[1])) or 'a number'}, which may be {arguments[1].low}",
            mend="bound it: x / max(y, 1)",
        )
    if function in FITTED or function == "rank":
        if not names(node.arguments[0]):
            raise ConfigError(f"{function} takes a column", received=f"{function} of a number", mend="name a task")
        for name in names(node):
            if name in scope.parameters:
                raise ConfigError(
                    f"{function} takes an expression without parameters",
                    received=name,
                    mend=f"put the parameter outside: weight * {function}(…)",
                )


def _sum(a: Shape, b: Shape) -> Shape:
    return Shape(a.low + b.low, a.high + b.high, _together(a.directions, b.directions))


def _difference(a: Shape, b: Shape) -> Shape:
    return _sum(a, Shape(-b.high, -b.low, b.moved(-1)))


def _product(a: Shape, b: Shape) -> Shape:
    corners = [_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    directions = _together(a.moved(_sign(b)), b.moved(_sign(a)))
    return Shape(min(corners), max(corners), directions)


def _quotient(a: Shape, b: Shape) -> Shape:
    inverse = Shape(1 / max(b.high, transforms.FLOOR), 1 / max(b.low, transforms.FLOOR), b.moved(-1))
    return _product(a, inverse)


def _power(a: Shape, b: Shape) -> Shape:
    with np.errstate(all="ignore"):
        corners = [float(transforms.power(x, y)) for x in (a.low, a.high) for y in (b.low, b.high)]
        if a.low < 1 < a.high and b.low < b.high:
            corners.append(1.0)
    corners = [0.0 if math.isnan(c) else c for c in corners]
    return Shape(min(corners), max(corners), a.moved(_sign(b)))


def _smaller(a: Shape, b: Shape) -> Shape:
    return Shape(min(a.low, b.low), min(a.high, b.high), _together(a.directions, b.directions))


def _larger(a: Shape, b: Shape) -> Shape:
    return Shape(max(a.low, b.low), max(a.high, b.high), _together(a.directions, b.directions))


_ARITHMETIC: Final = {
    "+": _sum,
    "-": _difference,
    "*": _product,
    "/": _quotient,
    "^": _power,
    "min": _smaller,
    "max": _larger,
}


def _either(a: Shape, b: Shape) -> Shape:
    return Shape(min(a.low, b.low), max(a.high, b.high), _together(a.directions, b.directions))


def _together(a: Mapping[str, int], b: Mapping[str, int]) -> Mapping[str, int]:
    """Directions of what moves with both."""
    both = {head: a[head] if a[head] == b[head] else 0 for head in a.keys() & b.keys()}
    return {**a, **b, **both}


def _sign(shape: Shape) -> int:
    return 1 if shape.low >= 0 else -1 if shape.high <= 0 else 0


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y
