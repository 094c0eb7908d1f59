"""Text ↔ expression: `click * (like + 1e-4)^0.2 * log1p(video_seconds)`.

    comparison = sum (("<" | "<=" | ">" | ">=") sum)?          loosest
    sum        = product (("+" | "-") product)*
    product    = signed (("*" | "/") signed)*
    signed     = "-" signed | power
    power      = atom (("^" | "**") signed)?                   from right to left, as in mathematics
    atom       = number | name | "quoted name" | function "(" comparison ("," comparison)* ")" | "(" comparison ")"

A name that is not a word of letters, digits and `_` stands in double quotes. Length, depth and size are bounded, and
only functions of the allow-list are known: text from a config file or a request can do no more than arithmetic.
"""

import math
import re
from typing import Final, NoReturn

from polyrank.config import nearest
from polyrank.errors import ConfigError
from polyrank.fusion.expression import ARITIES, COMPARISONS, Call, Name, Node, Number

LONGEST: Final = 10_000  # characters
DEEPEST: Final = 64  # levels of the tree; nested brackets count the same
LARGEST: Final = 1_000  # nodes

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<name>[^\W\d]\w*)
    | "(?P<quoted>[^"\n]+)"
    | (?P<operator>\*\*|<=|>=|[-+*/^(),<>])
    )""",
    re.VERBOSE | re.ASCII,
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LEVELS: Final = {**dict.fromkeys(COMPARISONS, 1), "+": 2, "-": 2, "*": 3, "/": 3, "negate": 4, "^": 5}
_ATOM: Final = 6


def parse(text: str) -> Node:
    """The expression that `text` writes.

    Raises:
        ConfigError: it writes none, is longer, deeper or larger than allowed, or calls an unknown function.
    """
    if len(text) > LONGEST:
        raise ConfigError(
            f"a formula has at most {LONGEST} characters", received=f"{len(text)} characters", mend="shorten it"
        )
    return _Parser(text).whole()


def write(node: Node) -> str:
    """The one way an expression is written; `parse(write(node)) == node` for all that `parse` gives."""
    return _write(node)[0]


class _Parser:
    """Precedence climbing over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._at, self._depth = text, list[tuple[str, str, int]](), 0, 0
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                place += len(text[place:]) - len(text[place:].lstrip())
                self._refuse(f"{text[place]!r} cannot stand here", place)
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind].replace("**", "^"), match.start(kind)))
            place = match.end()
        self._tokens.append(("end", "", len(text)))

    def whole(self) -> Node:
        node = self._climb(1)
        if self._tokens[self._at][0] != "end":
            self._refuse("an operator is missing, or a bracket is closed that was not opened")
        nodes, depth = _measure(node)
        if nodes > LARGEST or depth > DEEPEST:
            raise ConfigError(
                f"a formula has at most {LARGEST} nodes, {DEEPEST} deep (a sum of n terms is n deep)",
                received=f"{nodes} nodes, {depth} deep",
                mend="write a shorter one, or pair the terms by brackets",
            )
        return node

    def _climb(self, level: int) -> Node:
        left = self._signed()
        while (operator := self._operator()) and level <= _LEVELS[operator] <= 3:
            self._at += 1
            right = self._climb(_LEVELS[operator] + 1)
            left = Call(operator, (left, right))
            if operator in COMPARISONS:
                break
        return left

    def _signed(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"nested more than {DEEPEST} deep")
        if self._operator() == "-":
            self._at += 1
            inner = self._signed()
            # A number carries its own sign, so that a weight of −0.5 is written and read as one.
            node: Node = Number(-inner.value) if isinstance(inner, Number) else Call("negate", (inner,))
        else:
            node = self._atom()
            if self._operator() == "^":
                self._at += 1
                node = Call("^", (node, self._signed()))
        self._depth -= 1
        return node

    def _atom(self) -> Node:
        kind, token, _ = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            value = float(token)
            if not math.isfinite(value):
                self._refuse(f"{token} is too large", self._tokens[self._at - 1][2])
            return Number(value)
        if kind == "quoted":
            return Name(token)
        if kind == "name":
            return self._call(token) if self._tokens[self._at][1:2] == ("(",) else Name(token)
        if token != "(":
            self._at -= 1
            self._refuse("a number, a name or a bracket must stand here")
        node = self._climb(1)
        self._expect(")")
        return node

    def _call(self, function: str) -> Node:
        place = self._tokens[self._at - 1][2]
        callable_ = [name for name in ARITIES if name.isalnum() and name != "negate"]
        if function not in callable_:
            mend = nearest(function, callable_)
            raise ConfigError("a formula calls functions of a fixed list", received=f"{function} at {place}", mend=mend)
        self._expect("(")
        arguments = [self._climb(1)]
        while self._tokens[self._at][1] == "," and self._tokens[self._at][0] == "operator":
            self._at += 1
            arguments.append(self._climb(1))
        self._expect(")")
        if len(arguments) not in ARITIES[function]:
            wanted = " or ".join(map(str, ARITIES[function]))
            self._refuse(f"{function} takes {wanted} arguments, not {len(arguments)}", place)
        return Call(function, tuple(arguments))

    def _operator(self) -> str:
        kind, token, _ = self._tokens[self._at]
        return token if kind == "operator" and token in _LEVELS else ""

    def _expect(self, token: str) -> None:
        if self._tokens[self._at][:2] != ("operator", token):
            self._refuse(f"{token!r} must stand here")
        self._at += 1

    def _refuse(self, reason: str, place: int | None = None) -> NoReturn:
        place = self._tokens[self._at][2] if place is None else place
        start = max(0, place - 30)
        shown = f"{'…' if start else ''}{self._text[start:place]}⟨here⟩{self._text[place : place + 30]}"
        raise ConfigError(
            f"a formula must be an expression: {reason}", received=shown, mend="see docs/fusion.md for what it may hold"
        )


def _write(node: Node) -> tuple[str, int]:
    """The text, and how tightly its outermost operator binds."""
    if isinstance(node, Number):
        # A negative number is read as a sign before a number: it binds like one.
        return _number(node.value), _ATOM if math.copysign(1.0, node.value) > 0 else _LEVELS["negate"]
    if isinstance(node, Name):
        return node.name if _WORD.fullmatch(node.name) else f'"{node.name}"', _ATOM
    function, arguments = node.function, [_write(argument) for argument in node.arguments]
    level = _LEVELS.get(function, _ATOM)
    if function == "negate":
        inner = _bracketed(*arguments[0], level)
        # "-" directly before a number would become part of the number.
        return f"-({inner})" if isinstance(node.arguments[0], Number) else f"-{inner}", level
    if level == _ATOM:
        return f"{function}({', '.join(text for text, _ in arguments)})", _ATOM
    if function == "^":
        return f"{_bracketed(*arguments[0], _ATOM)}^{_bracketed(*arguments[1], _LEVELS['negate'])}", level
    left = _bracketed(*arguments[0], level + (function in COMPARISONS))
    return f"{left} {function} {_bracketed(*arguments[1], level + 1)}", level


def _bracketed(text: str, level: int, least: int) -> str:
    return text if level >= least else f"({text})"


def _number(value: float) -> str:
    return (
        str(int(value)) if value == int(value) and abs(value) < 1e15 and value != 0 else repr(value).removesuffix(".0")
    )


def _measure(node: Node) -> tuple[int, int]:
    """Nodes and depth, without recursion: the tree may still be deeper than Python's stack."""
    nodes, deepest, left = 0, 0, [(node, 1)]
    while left:
        inner, depth = left.pop()
        nodes, deepest = nodes + 1, max(deepest, depth)
        if isinstance(inner, Call):
            left += [(argument, depth + 1) for argument in inner.arguments]
    return nodes, deepest
