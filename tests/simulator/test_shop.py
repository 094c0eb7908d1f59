import numpy as np
import pyarrow.parquet as pq
import pytest

from polyrank.data.schema import load_schema
from polyrank.data.tree import contradictions
from polyrank.simulator.shop import SCHEMA, ShopConfig, simulate_shop, write_shop


@pytest.fixture(scope="module")
def shop():
    table = simulate_shop(ShopConfig(exposures=200_000))
    return {name: table[name].to_numpy() for name in table.column_names}


def test_events_follow_the_true_probabilities(shop):
    click, buy = shop["is_click"] == 1, shop["is_purchase"] == 1
    for event, chance, rows in ((click, shop["true_click"], click >= 0), (buy, shop["true_purchase"], click)):
        for part in np.array_split(np.flatnonzero(rows)[np.argsort(chance[rows])], 5):
            expected = chance[part].mean()
            error = np.sqrt((chance[part] * (1 - chance[part])).sum()) / len(part)
            assert event[part].mean() == pytest.approx(expected, abs=4 * error)


def test_no_purchase_without_a_click(shop):
    labels = np.stack([shop["is_click"], shop["is_purchase"]], axis=1).astype(np.float32)
    assert not contradictions(SCHEMA, labels).any()
    assert 0.05 < labels[:, 0].mean() < 0.4
    assert labels[:, 1].sum() > 1_000


def test_who_clicks_is_who_would_buy(shop):
    clicked = shop["is_click"] == 1
    assert shop["true_purchase"][clicked].mean() > shop["true_purchase"].mean() + 0.15


def test_without_selection_the_clicked_are_like_all():
    table = simulate_shop(ShopConfig(exposures=200_000, selection=0.0))
    clicked, purchase = table["is_click"].to_numpy() == 1, table["true_purchase"].to_numpy()
    # what remains is popularity, which a purchase knows nothing of
    assert purchase[clicked].mean() == pytest.approx(purchase.mean(), abs=0.01)


def test_the_truth_is_a_function_of_the_columns_unless_something_is_hidden():
    for hidden in (0.0, 1.0):
        table = simulate_shop(ShopConfig(exposures=20_000, users=5, items=5, hidden=hidden))
        key = table["user_id"].to_numpy() * 5 + table["item_id"].to_numpy()
        spread = max(np.ptp(table["true_purchase"].to_numpy()[key == k]) for k in np.unique(key))
        assert (spread > 0.2) if hidden else (spread < 1e-12)


def test_a_seed_is_a_shop():
    small = ShopConfig(exposures=500)
    assert simulate_shop(small).equals(simulate_shop(small))
    assert not simulate_shop(small).equals(simulate_shop(ShopConfig(exposures=500, seed=1)))


def test_written_parts_are_the_whole_and_fit_the_schema(tmp_path):
    config = ShopConfig(exposures=1_003)
    rows = write_shop(tmp_path, config)
    assert rows == {"train": 802, "valid": 100, "test": 101}
    parts = [pq.read_table(tmp_path / f"{name}.parquet") for name in rows]
    whole = simulate_shop(config)
    assert [len(part) for part in parts] == list(rows.values())
    np.testing.assert_array_equal(
        np.concatenate([part["true_click"].to_numpy() for part in parts]), whole["true_click"].to_numpy()
    )
    schema = load_schema(tmp_path / "schema.toml")
    assert schema == SCHEMA
    schema.check(parts[0].schema, "train")
    assert not {"true_click", "true_purchase"} & set(schema.columns(labels=True))
