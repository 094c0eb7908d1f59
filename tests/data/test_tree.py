import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.encoders import Encoders
from polyrank.data.paths import ROOT
from polyrank.data.profile import profile
from polyrank.data.readers import table_source
from polyrank.data.schema import Feature, Schema, Task, load_schema, save_schema
from polyrank.data.tree import contradictions, joint_labels, parents, refuse, settled, told
from polyrank.errors import DataError
from polyrank.progress import Silent

NAN = np.nan
# A child listed before its parent; two children of one parent; a task that is not binary.
TASKS = (
    Task("purchase", "binary", given="cart"),
    Task("click", "binary"),
    Task("cart", "binary", given="click"),
    Task("share", "binary", given="click"),
    Task("watch", "regression", given="click"),
)


def schema(rule="trust_parent", tasks=TASKS):
    return Schema((Feature("x", "number"),), tasks, contradiction=rule)


def rows(*values):
    return np.array(values, np.float32)


def test_parents_do_not_come_first():
    assert parents(TASKS) == (2, ROOT, 1, 1, 1)


def test_a_parent_that_is_not_among_the_tasks_makes_a_root():
    assert parents(TASKS[:2]) == (ROOT, ROOT)


@pytest.mark.parametrize(
    ("purchase", "click", "cart", "joint"),
    [
        (1, 1, 1, 1),
        (0, 1, 1, 0),
        (NAN, 1, 1, NAN),
        (NAN, 0, NAN, 0),  # no click: whatever is not known of the rest
        (NAN, 1, 0, 0),
        (1, NAN, 1, NAN),
        (0, NAN, NAN, 0),
        (1, 0, 1, 0),  # a contradiction: by itself the parent is believed
    ],
)
def test_a_joint_label_is_the_product_along_the_path(purchase, click, cart, joint):
    found = joint_labels(schema(), rows([purchase, click, cart, 0, 7]))
    np.testing.assert_array_equal(found[0, 0], np.float32(joint))
    np.testing.assert_array_equal(found[0, 1], np.float32(click))
    assert np.isnan(found[0, 4])  # a product with a number is no event


LABELS = rows(
    [1, 1, 1, 1, 3],
    [1, 0, 1, 0, 0],  # cart and purchase without a click
    [1, 1, 0, 0, 5],  # a purchase without a cart
    [1, 0, NAN, NAN, NAN],  # a purchase without a click
    [0, 0, 0, 0, 9],  # a number does not contradict
    [1, NAN, NAN, 1, NAN],  # what is missing does not contradict
)


def test_a_contradiction_is_a_one_below_a_zero():
    expected = np.zeros((6, 5), bool)
    expected[1, [0, 2]] = expected[2, 0] = expected[3, 0] = True
    np.testing.assert_array_equal(contradictions(schema(), LABELS), expected)


def test_trusting_the_parent_changes_no_label():
    assert settled(schema(), LABELS) is LABELS


def test_trusting_the_child_makes_its_ancestors_ones():
    found = settled(schema("trust_child"), LABELS)
    expected = LABELS.copy()
    expected[1, 1] = expected[2, 2] = expected[3, 1] = 1  # what is missing stays missing
    np.testing.assert_array_equal(found, expected)
    assert not contradictions(schema(), found).any()
    assert LABELS[1, 1] == 0


def test_dropping_believes_neither():
    found = settled(schema("drop"), LABELS)
    expected = LABELS.copy()
    expected[1, [0, 1, 2]] = expected[2, [0, 2]] = expected[3, [0, 1]] = NAN
    np.testing.assert_array_equal(found, expected)
    inside = schema().sample_spaces(found)
    assert not inside[1:4, [0, 2]].any()
    assert inside[2, 3]  # the click of that row is believed


def test_an_error_counts_them():
    with pytest.raises(
        DataError, match=r"purchase: 3 rows have purchase = 1 although cart = 0 or a task above it"
    ) as e:
        settled(schema("error"), LABELS)
    assert "cart: 1 rows have cart = 1 although click = 0;" in str(e.value)
    assert settled(schema("error"), LABELS[[0, 4, 5]]).shape == (3, 5)
    refuse(schema("error"), np.zeros(5))
    refuse(schema("drop"), np.ones(5))


@pytest.mark.parametrize(
    ("rule", "says"),
    [("trust_parent", "outside the sample space of cart"), ("trust_child", "taken as 1"), ("drop", "as missing")],
)
def test_what_is_told_names_the_rule(rule, says):
    (sentence,) = told(schema(rule), np.array([0, 0, 1234, 0, 0]))
    assert sentence.startswith("cart: 1,234 rows have cart = 1 although click = 0;")
    assert says in sentence
    assert repr(rule) in sentence


def test_the_rule_survives_a_file(tmp_path):
    save_schema(schema("drop"), tmp_path / "schema.toml")
    assert load_schema(tmp_path / "schema.toml") == schema("drop")
    save_schema(schema(), tmp_path / "schema.toml")
    assert "contradiction" not in (tmp_path / "schema.toml").read_text()


class Told(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


TABLE = pa.table(
    {
        "x": [1.0, 2, 3, 4, 5],
        "click": [1, 1, 0, 0, 0],
        "buy": [1, 0, 1, 1, 0],
    }
)
FUNNEL = (Task("click", "binary"), Task("buy", "binary", given="click"))


@pytest.mark.parametrize(
    ("rule", "clicks", "buys"),
    [("trust_parent", (5, 0.4), (2, 0.5)), ("trust_child", (5, 0.8), (4, 0.75)), ("drop", (3, 2 / 3), (2, 0.5))],
)
def test_training_data_is_counted_told_and_settled(rule, clicks, buys):
    said = Told()
    source = table_source("log", TABLE, "0")
    encoders = Encoders.fit(schema(rule, FUNNEL), source, said)
    assert [line.startswith("contradiction in log: buy: 2 rows have buy = 1") for line in said.lines] == [True]
    for statistics, (count, mean) in zip(encoders.statistics, (clicks, buys), strict=True):
        assert (statistics.rows, statistics.mean) == (count, pytest.approx(mean))
    (batch,) = source.batches(encoders.schema.columns(labels=True))
    labels = encoders.encode(batch).labels
    assert np.nansum(labels[:, 0]) == pytest.approx(clicks[0] * clicks[1])


def test_a_profile_counts_them_under_every_rule():
    for rule in ("trust_parent", "trust_child", "drop", "error"):
        found = profile(schema(rule, FUNNEL), table_source("log", TABLE, "0"))
        assert found["tasks"][1]["contradictions"] == 2
        assert any(repr(rule) in warning for warning in found["warnings"])


def test_refused_data_is_counted_whole(tmp_path):
    big = pa.concat_tables([TABLE] * 50_000).combine_chunks()
    with pytest.raises(DataError, match="buy: 100,000 rows"):
        Encoders.fit(schema("error", FUNNEL), table_source("log", big, "0"))
