import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrank.errors import ConfigError
from polyrank.fusion.expression import ARITIES, COMPARISONS, Call, Name, Node, Number, substitute
from polyrank.fusion.parse import parse, write

OPERATORS = ["+", "-", "*", "/", "^"]
WORDS = [name for name in ARITIES if name.isalpha() and name != "negate"]


def plus(*terms: Node) -> Node:
    return Call("+", terms)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a + b * c", Call("+", (Name("a"), Call("*", (Name("b"), Name("c")))))),
        ("a - b - c", Call("-", (Call("-", (Name("a"), Name("b"))), Name("c")))),
        ("a ^ b ** c", Call("^", (Name("a"), Call("^", (Name("b"), Name("c")))))),
        ("-a^2", Call("negate", (Call("^", (Name("a"), Number(2.0))),))),
        ("a^-2", Call("^", (Name("a"), Number(-2.0)))),
        ("(-2)^a", Call("^", (Number(-2.0), Name("a")))),
        ("-2 * a", Call("*", (Number(-2.0), Name("a")))),
        ('"comment-stay" + 1e-4', plus(Name("comment-stay"), Number(1e-4))),
        ("where(x > 10, a, 1)", Call("where", (Call(">", (Name("x"), Number(10.0))), Name("a"), Number(1.0)))),
        ("log", Name("log")),  # a column may be called like a function
        (".5 + 1.", plus(Number(0.5), Number(1.0))),
    ],
)
def test_known_trees(text: str, node: Node) -> None:
    assert parse(text) == node
    assert parse(write(node)) == node


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((a)) + (b*c)", "a + b * c"),
        ("a**0.50 *(b+1E-4)", "a^0.5 * (b + 0.0001)"),
        ("a/(b*c)", "a / (b * c)"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a^b)^c", "(a^b)^c"),
        ("--a", "--a"),
        ("- (1)", "-1"),
        ("10.0", "10"),
        ("clip( a ,0,1.5 )", "clip(a, 0, 1.5)"),
    ],
)
def test_one_way_of_writing(text: str, canonical: str) -> None:
    assert write(parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "a b", "(a", "a)", "1..2", "1if", "a.b", "a[0]", "f(a)", "log()", "log(a, b)", "a = 1", "a; b",
        "__import__('os')", "lambda: 1", "1e999", "a < b < c", '""', '"a', "a,b", "log a", "0x10", "a\\", "é",
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.received
    assert caught.value.mend


@pytest.mark.parametrize(
    "text", ["(" * 4_000, "-" * 4_000 + "a", "+".join(["a"] * 4_000), "a^" * 3_000 + "a", "a" * 10_001]
)
def test_size_and_depth_are_bounded(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_an_unknown_function_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sigmoid'"):
        parse("sigmoit(a)")


finite = st.floats(allow_nan=False, allow_infinity=False).map(abs) | st.integers(0, 1_000).map(float)
leaves = finite.map(Number) | st.sampled_from(["a", "b", "w_1", "comment-stay", "log", "a b"]).map(Name)


def branches(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    binary = st.tuples(st.sampled_from([*OPERATORS, *COMPARISONS]), inner, inner).map(lambda t: Call(t[0], t[1:]))
    negated = inner.map(lambda x: Number(-x.value) if isinstance(x, Number) else Call("negate", (x,)))
    called = st.sampled_from(WORDS).flatmap(
        lambda name: st.lists(inner, min_size=ARITIES[name][0], max_size=ARITIES[name][0]).map(
            lambda arguments: Call(name, tuple(arguments))
        )
    )
    return binary | negated | called


@given(st.recursive(leaves, branches, max_leaves=30))
@settings(max_examples=400)
def test_every_expression_survives_printing(node: Node) -> None:
    assert parse(write(node)) == node
    assert write(parse(write(node))) == write(node)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_refused_clearly_or_is_a_formula(text: str) -> None:
    assert_clear(text)


def test_ten_thousand_jumbles_are_refused_clearly_or_are_formulas() -> None:
    rng = np.random.default_rng(0)
    tokens = [
        "a",
        "b1",
        "1",
        ".5",
        "1e9",
        "(",
        ")",
        ",",
        *"+-*/^<",
        "**",
        " ",
        '"',
        "log(",
        "where(",
        "\n",
        "é",
        "\x00",
    ]
    letters = list("ab19.e()+-*/^<>=, \"'[]{}_\\\t:;é")
    formulas = sum(
        assert_clear("".join(rng.choice(tokens if i % 2 else letters, rng.integers(0, 12)))) for i in range(10_000)
    )
    assert 300 < formulas < 9_000  # both outcomes were seen


def assert_clear(text: str) -> bool:
    try:
        node = parse(text)
    except ConfigError as error:
        if not (error.rule and error.received and error.mend):
            pytest.fail(f"unclear: {error}")
        return False
    assert parse(write(node)) == node
    return True


def test_a_number_in_place_of_a_name_reads_back() -> None:
    bound = substitute(parse("-w * a - v^2"), {"w": 2.0, "v": -3.0})
    assert write(bound) == "-2 * a - (-3)^2"
    assert parse(write(bound)) == bound


def test_numbers_are_written_to_the_last_bit() -> None:
    for value in (0.1, 1 / 3, 1e-300, 1e15, 1e16, 123456789.0, math.pi):
        assert parse(write(Number(value))) == Number(value)
