"""Expressions made ready for a search: products as sums of logarithms, and what no parameter touches evaluated once."""

from collections.abc import Collection
from typing import Any

from polyrank.fusion.expression import FITTED, Call, Known, Name, Node, Number, evaluate, names
from polyrank.fusion.scope import Scope
from polyrank.fusion.shapes import analyse


def ordinal(node: Node, scope: Scope) -> Node:
    """An expression that orders every request as this one does: a product becomes the sum of its logarithms.

    `Π x_k^{w_k}` and `Σ w_k ln x_k` rank alike, but the sum neither under- nor overflows, and costs a search one
    multiplication per trial and head where the product costs a power. A product that may be negative is left alone.
    (A factor below FLOOR, smaller than any positive float32, counts as FLOOR.)
    """
    product = isinstance(node, Call) and node.function in ("*", "/", "^")
    return _log(node, scope) if product and analyse(node, scope).low >= 0 else node


def _log(node: Node, scope: Scope) -> Node:
    if isinstance(node, Call) and node.function == "^":
        return Call("*", (node.arguments[1], Call("log", (node.arguments[0],))))
    if isinstance(node, Call) and node.function in ("*", "/"):
        parts = [analyse(argument, scope) for argument in node.arguments]
        if all(part.low >= 0 for part in parts):
            left, right = (_log(argument, scope) for argument in node.arguments)
            return Call("+" if node.function == "*" else "-", (left, right))
    return Call("log", (node,))


def fold(node: Node, known: Known, free: Collection[str]) -> tuple[Node, dict[str, Any]]:
    """Evaluate once what does not depend on the names in `free`.

    Returns:
        The expression with a name for every largest part that is free of them, and those parts' values: a search
        evaluates the rest alone, once a trial.
    """
    values: dict[str, Any] = {}

    def visit(inner: Node) -> Node:
        if isinstance(inner, Number):
            return inner
        if not any(name in free for name in names(inner)):
            key = f"#{len(values)}"  # no column's name: a formula cannot write it
            values[key] = evaluate(inner, known)
            return Name(key)
        if isinstance(inner, Call) and inner.function not in FITTED:
            return Call(inner.function, tuple(map(visit, inner.arguments)))
        return inner

    return visit(node), values
