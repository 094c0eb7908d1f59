"""Where a search of weights starts: equal contributions, each head alone, the formula in production.

What a search of a product or a sum finds in few trials depends on two choices that cost next to nothing: which head has
the fixed weight, and where the others' ranges are centred. `prepared` makes both from how each head ranks alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from polyrank.evaluation.requests import Requests
from polyrank.fusion.expression import Call, Known, Name, Node, Number, evaluate, names, substitute
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.fusion import Columns, read_columns
from polyrank.fusion.objective import Objective
from polyrank.fusion.plan import ordinal
from polyrank.fusion.presets import preset, weight
from polyrank.fusion.scope import HeadKind
from polyrank.metrics.checks import Rows

Values = dict[str, float]


def prepared(
    name: str,
    heads: Mapping[str, HeadKind],
    negative: Sequence[str],
    context: str,
    data: Requests,
    objective: Objective,
) -> Template:
    """The preset `name`, ready to be searched on `data`.

    The head that ranks best alone has the fixed weight: with a weak one fixed, all others would have to be found far
    out. The ranges of the others are centred on equal contributions, each scaled by its merit, how much better than
    chance the head ranks alone, beside the first one's.

    Raises:
        ConfigError: as in `preset`.
    """
    chance = objective.measure(np.zeros(data.rows)).value
    merit = {}
    for head in heads:
        alone = np.asarray(data.columns[head], np.float64)[objective.order] * (-1.0 if head in negative else 1.0)
        merit[head] = objective.measure(alone).value - chance
    order = sorted(heads, key=lambda head: (head in negative, -merit[head]))
    template = preset(name, {head: heads[head] for head in order}, negative, context)
    values = equal_contribution(template, data.columns, data.requests)
    best = max(merit[order[0]], 1e-6)
    for term in _terms(ordinal(template.expression, template.scope)):
        of, parameter = _heads(term, template), weight_of(term, template)
        if parameter and len(of) == 1 and template.parameters[parameter].log:
            values[parameter] *= float(np.clip(merit[of.pop()] / best, 0.02, 1.0))
    return centred(template, values)


def equal_contribution(template: Template, rows: Columns, requests: Rows | None = None) -> Values:
    """Weights with which every term of the formula contributes alike.

    A term `w · g` of a sum whose g is never negative gets `w = mean g_0 / mean g`, g_0 being the first term: the rule
    of Twitter's heavy ranker. Terms that may be negative (logarithms, so all products) have no mean that matters to an
    order: there the standard deviations are made equal. A weight inside (`1 + w · p`) gets `w = 1 / mean p`. Terms that
    are constant, and other parameters, keep what they have.

    Args:
        template: fitted, if it has fitted transforms.
        rows: `[N ≥ 1]` columns.
        requests: `[N]`, as in `Fusion.score`.

    Returns:
        A value for every parameter, which may lie outside of its bounds.
    """
    columns = read_columns(rows, [name for name in names(template.expression) if name not in template.parameters])
    known = Known(columns, requests, template.tables)
    values = {name: parameter.value for name, parameter in template.parameters.items()}

    def sizes(node: Node, *, spread: bool) -> float:
        with np.errstate(over="ignore", under="ignore"):
            found = np.asarray(evaluate(substitute(node, values), known), np.float64)
        return float(found.std() if spread else np.abs(found).mean())

    terms = list(_terms(ordinal(template.expression, template.scope)))
    outer = {weight_of(term, template) for term in terms}
    for node in _calls(template.expression):
        inner = weight_of(node, template)
        if inner and inner not in outer and node.function == "*" and (size := sizes(node.arguments[1], spread=False)):
            values[inner] = 1 / size
    logarithms = any("log" in _functions(term) for term in terms)
    plain = {index: _without_weight(term, template) for index, term in enumerate(terms)}
    fixed = next((index for index, term in enumerate(terms) if not weight_of(term, template)), 0)
    reference = sizes(plain[fixed], spread=logarithms)
    for index, term in enumerate(terms):
        name = weight_of(term, template)
        if name and template.parameters[name].log and reference and (size := sizes(plain[index], spread=logarithms)):
            values[name] = reference / size
    return values


def heads_alone(template: Template) -> dict[str, Values]:
    """For each head that something of a sum or a product reads alone: its weights high, all others low."""
    terms = list(_terms(ordinal(template.expression, template.scope)))
    found: dict[str, Values] = {}
    for head in template.scope.heads:
        if not any(_heads(term, template) == {head} for term in terms):
            continue
        values = {name: parameter.value for name, parameter in template.parameters.items()}
        for term in terms:
            name = weight_of(term, template)
            if name and template.parameters[name].log:
                parameter = template.parameters[name]
                values[name] = parameter.high if _heads(term, template) == {head} else parameter.low
        found[head] = values
    return found


def match(template: Template, formula: Formula) -> Values | None:
    """The parameters with which the template is this formula; None where it never is."""
    values: Values = {}

    def same(pattern: Node, node: Node) -> bool:
        if isinstance(pattern, Name) and pattern.name in template.parameters:
            return isinstance(node, Number) and values.setdefault(pattern.name, node.value) == node.value
        if isinstance(pattern, Call) and isinstance(node, Call):
            return (
                pattern.function == node.function
                and len(pattern.arguments) == len(node.arguments)
                and all(map(same, pattern.arguments, node.arguments))
            )
        return pattern == node

    return values if same(template.expression, formula.expression) else None


def centred(template: Template, values: Mapping[str, float]) -> Template:
    """The template with its weights' bounds around these values, from a thirtieth to thirtyfold."""
    parameters = {
        name: weight(values[name]) if parameter.log and values[name] > 0 else parameter
        for name, parameter in template.parameters.items()
    }
    return replace(template, scope=replace(template.scope, parameters=parameters))


def within(template: Template, values: Mapping[str, float]) -> Values:
    """These values, each moved into its bounds."""
    return {
        name: float(min(max(values.get(name, parameter.value), parameter.low), parameter.high))
        for name, parameter in template.parameters.items()
    }


def weight_of(node: Node, template: Template) -> str:
    """The parameter that multiplies (or is divided in) a term, or ""."""
    first = node.arguments[0] if isinstance(node, Call) and node.function in ("*", "/") else None
    return first.name if isinstance(first, Name) and first.name in template.parameters else ""


def _without_weight(term: Node, template: Template) -> Node:
    if isinstance(term, Call) and weight_of(term, template):
        return Call(term.function, (Number(1.0), *term.arguments[1:]))
    return term


def _terms(node: Node) -> Iterator[Node]:
    """The terms of a sum, whatever their signs."""
    if isinstance(node, Call) and node.function in ("+", "-", "negate"):
        for argument in node.arguments:
            yield from _terms(argument)
    else:
        yield node


def _calls(node: Node) -> Iterator[Call]:
    if isinstance(node, Call):
        yield node
        for argument in node.arguments:
            yield from _calls(argument)


def _functions(node: Node) -> set[str]:
    return {call.function for call in _calls(node)}


def _heads(node: Node, template: Template) -> set[str]:
    return set(names(node)) & set(template.scope.heads)
