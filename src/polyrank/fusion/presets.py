"""Formulas by name, each with its source, for any set of tasks.

In all of them the first head's weight is 1: a list's order does not change when every weight of a sum, or every
exponent of a product, is multiplied by one number, and a search should not look for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Final

from polyrank.config import nearest
from polyrank.errors import ConfigError
from polyrank.fusion.expression import Call, Name, Node, Number
from polyrank.fusion.formula import Template
from polyrank.fusion.scope import HeadKind, Parameter, Scope

BETA: Final = 1e-4  # of log_sum: what a probability is smoothed by
# A weight of a search's start over or under it by this factor is as good as infinite or zero.
REACH: Final = 30.0


@dataclass(frozen=True)
class Ask:
    """What a preset is made for.

    Attributes:
        heads: the tasks, with what their predictions are; the first is the one whose weight is fixed.
        negative: those of them that speak against a candidate (hate, report).
        context: the column of the context term, or "".
    """

    heads: Mapping[str, HeadKind]
    negative: frozenset[str] = frozenset()
    context: str = ""


@dataclass(frozen=True)
class Preset:
    """A family of formulas.

    Attributes:
        build: makes the expression, and the parameters in it.
        source: where it comes from.
        context: what its context column is: "needed", "optional" or "none".
    """

    build: Callable[[Ask], tuple[Node, dict[str, Parameter]]]
    source: str
    context: str = "none"


def preset(name: str, heads: Mapping[str, HeadKind], negative: Sequence[str] = (), context: str = "") -> Template:
    """The preset `name` for these tasks, the first of which has the fixed weight.

    Raises:
        ConfigError: there is none of this name, or the tasks or the context do not suit it.
    """
    if name not in PRESETS:
        raise ConfigError("a preset must be known", received=name, mend=nearest(name, PRESETS))
    chosen = PRESETS[name]
    positive = [head for head in heads if head not in negative]
    if len(heads) < 2 or not positive or next(iter(heads)) in negative:
        raise ConfigError(
            f"the preset {name} needs at least two tasks, and a positive one first",
            received=", ".join(heads) or "none",
            mend="name the tasks in [fusion] heads",
        )
    for head in negative:
        if heads.get(head) != "probability":
            raise ConfigError(
                "a negative task must be a binary task among the heads", received=head, mend=nearest(head, heads)
            )
    if (chosen.context == "needed" and not context) or (chosen.context == "none" and context):
        raise ConfigError(
            f"the preset {name} {'needs a' if not context else 'has no'} context column",
            received=context or "none",
            mend="set [fusion] context" if not context else "leave context out, or write a formula of your own",
        )
    expression, parameters = chosen.build(Ask(heads, frozenset(negative), context))
    return Template(expression, Scope(heads, (context,) if context else (), parameters))


def weight(value: float = 1.0, reach: float = REACH) -> Parameter:
    """A weight on a log scale around `value`."""
    return Parameter(value, value / reach, value * reach)


def _good(head: str, ask: Ask) -> Node:
    """The head as something to be raised: `p`, or `1 − p` of a negative one."""
    return Call("-", (Number(1.0), Name(head))) if head in ask.negative else Name(head)


def _weights(ask: Ask, prefix: str = "w") -> tuple[dict[str, Node], dict[str, Parameter]]:
    """A weight per head: 1 for the first, a parameter for each other."""
    first, *rest = ask.heads
    nodes: dict[str, Node] = {first: Number(1.0)}
    nodes.update((head, Name(f"{prefix}_{head}")) for head in rest)
    return nodes, {f"{prefix}_{head}": weight() for head in rest}


def _ple(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    nodes, parameters = _weights(ask)
    factors = [_power(_good(head, ask), nodes[head]) for head in ask.heads]
    if ask.context:
        factors.append(Call("^", (Call("log1p", (Name(ask.context),)), Name("w_length"))))
        parameters["w_length"] = Parameter(0.0, -2.0, 2.0, log=False)
    return _joined("*", factors), parameters


def _log_sum(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    nodes, parameters = _weights(ask)
    logs = {head: Call("log", (Call("+", (_good(head, ask), Number(BETA))),)) for head in ask.heads}
    return _joined("+", [_times(nodes[head], logs[head]) for head in ask.heads]), parameters


def _weighted_sum(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    nodes, parameters = _weights(ask)
    total, *rest = [_times(nodes[head], Name(head)) for head in ask.heads]
    for head, term in zip(list(ask.heads)[1:], rest, strict=True):
        total = Call("-" if head in ask.negative else "+", (total, term))
    return total, parameters


def _product_plus(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    powers, parameters = _weights(ask, "a")
    factors = []
    for head in ask.heads:
        parameters[f"w_{head}"] = weight(10.0)
        grown = Call("+", (Number(1.0), _times(Name(f"w_{head}"), _good(head, ask))))
        factors.append(_power(grown, powers[head]))
    return _joined("*", factors), parameters


def _ensemble_sort(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    nodes, parameters = _weights(ask)
    terms = []
    for head in ask.heads:
        parameters[f"a_{head}"] = Parameter(1.0, 0.25, 4.0)
        steps = Call("^", (Call("rank", (_good(head, ask),)), Name(f"a_{head}")))
        terms.append(Call("/", (nodes[head], Call("+", (steps, Name("beta"))))))
    parameters["beta"] = Parameter(10.0, 0.1, 1000.0)
    return _joined("+", terms), parameters


def _ecommerce(ask: Ask) -> tuple[Node, dict[str, Parameter]]:
    node, parameters = _ple(replace(ask, context=""))
    parameters["w_price"] = Parameter(1.0, 0.01, 10.0)
    return Call("*", (node, Call("^", (Name(ask.context), Name("w_price"))))), parameters


def _joined(operator: str, parts: Sequence[Node]) -> Node:
    return reduce(lambda left, right: Call(operator, (left, right)), parts)


def _times(factor: Node, node: Node) -> Node:
    return node if factor == Number(1.0) else Call("*", (factor, node))


def _power(node: Node, exponent: Node) -> Node:
    return node if exponent == Number(1.0) else Call("^", (node, exponent))


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "ple": Preset(
            _ple,
            "pVTR^wVTR × pVCR^wVCR × pSHR^wSHR × … × pCMR^wCMR × f(video_len): Tang et al., Progressive Layered "
            "Extraction, RecSys 2020, section 3. f is only said to be non-linear; here f = log1p(length)^w_length. A "
            "negative task takes part as 1 − p",
            "optional",
        ),
        "log_sum": Preset(
            _log_sum,
            "Σ α_i log(o_i + β_i): Zhang et al., BatchRL-MTF, KDD 2022. Their β_i are not published; here 1e-4 for all",
        ),
        "weighted_sum": Preset(
            _weighted_sum,
            "Σ w_k p_k: twitter/the-algorithm-ml, projects/home/recap/README.md (2023), whose weights were first set "
            "so that each term contributes a near-equal amount on average: where a search starts, too (seeds.py)",
        ),
        "product_plus": Preset(
            _product_plus,
            "(1 + w1·p1)^α1 · (1 + w2·p2)^α2 …: Wang Shusen, lectures on recommender systems, as used for short video",
        ),
        "ensemble_sort": Preset(
            _ensemble_sort,
            "Σ w_k / (rank_k^α_k + β): Wang Shusen, lectures on recommender systems (his β_k is one β here). It sees "
            "ranks within the request alone: no calibration of a head matters, the number of candidates does",
        ),
        "ecommerce": Preset(
            _ecommerce,
            "p_click^α1 · p_cart^α2 · p_pay^α3 · price^α4: Wang Shusen, lectures on recommender systems, e-commerce",
            "needed",
        ),
    }
)
