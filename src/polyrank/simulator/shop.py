"""A shop with a known truth: exposure → click → purchase, where who clicks is who would buy.

Every exposure shows an item to a user. Their interest a, from the user's taste for the item's category and how far its
price is from the user's budget, moves both the click and the purchase after it:

    logit p(click) = c + γ·a + popularity,   logit p(purchase | click) = v + a + 2·min(a, 0) − 0.4·price

so purchases are seen where interest is high, and little can be learned there of the steeper fall below. γ is the
strength of the selection: with γ = 0 clicks are blind, and there is no bias to correct. p(purchase | click) is known
for all exposures, clicked or not: an answer to compare estimates with, which no log gives.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Gt

from polyrank.data.schema import Feature, Schema, Task, save_schema
from polyrank.files import writing

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SCHEMA = Schema(
    features=(
        Feature("user_id", "id"),
        Feature("segment", "category"),
        Feature("budget", "number"),
        Feature("item_id", "id"),
        Feature("category", "category"),
        Feature("price", "number"),
    ),
    tasks=(
        Task("click", "binary", column="is_click"),
        Task("purchase", "binary", column="is_purchase", given="click"),
    ),
    group="user_id",
)


@dataclass(frozen=True)
class ShopConfig:
    """The size of the shop, and how strongly clicks select.

    Attributes:
        exposures: rows in all; 80 % become training, 10 % validation, 10 % test data.
        users: how many users.
        items: how many items.
        selection: γ, how much interest moves clicks; 0 for none.
        hidden: the standard deviation of a part of the interest that no column tells: selection that no correction by
            features can undo.
        seed: of everything.
    """

    exposures: Annotated[int, Ge(100)] = 250_000
    users: Annotated[int, Gt(0)] = 2_000
    items: Annotated[int, Gt(0)] = 400
    selection: Annotated[float, Ge(0)] = 1.0
    hidden: Annotated[float, Ge(0)] = 0.0
    seed: Annotated[int, Ge(0)] = 0


def simulate_shop(config: ShopConfig) -> pa.Table:
    """A log of exposures, in random order.

    Returns:
        The columns of `SCHEMA` and `true_click`, `true_purchase`: p(click) and p(purchase | click) as the shop has
        them. They are no features. `is_purchase` is 0 where there was no click.
    """
    rng = np.random.default_rng(config.seed)
    segments, categories = 8, 12
    taste = rng.normal(size=(segments, categories))
    segment, budget = rng.integers(0, segments, config.users), rng.normal(size=config.users)
    category, price = rng.integers(0, categories, config.items), rng.normal(size=config.items)
    popularity = rng.normal(size=config.items) * 0.3
    user = rng.integers(0, config.users, config.exposures)
    item = rng.integers(0, config.items, config.exposures)
    interest = taste[segment[user], category[item]] - 0.3 * np.square(price[item] - budget[user]) + 0.3
    interest += config.hidden * rng.normal(size=config.exposures)
    click = _sigmoid(-1.5 + config.selection * interest + popularity[item])
    purchase = _sigmoid(interest + 2.0 * np.minimum(interest, 0.0) - 0.4 * price[item])
    clicked = rng.random(config.exposures) < click
    bought = clicked & (rng.random(config.exposures) < purchase)
    return pa.table(
        {
            "user_id": user,
            "segment": segment[user],
            "budget": budget[user].astype(np.float32),
            "item_id": item,
            "category": category[item],
            "price": price[item].astype(np.float32),
            "is_click": clicked.astype(np.int8),
            "is_purchase": bought.astype(np.int8),
            "true_click": click,
            "true_purchase": purchase,
        }
    )


def write_shop(out: Path, config: ShopConfig) -> dict[str, int]:
    """Write `train.parquet`, `valid.parquet`, `test.parquet` and `schema.toml` into `out`; the rows of each part.

    Raises:
        StorageError: `out` cannot be written.
    """
    table = simulate_shop(config)
    rows, start = {}, 0
    for name, share in SHARES.items():
        end = start + round(share * len(table))
        part = table.slice(start, end - start) if name != "test" else table.slice(start)
        with writing(out / f"{name}.parquet") as temporary:
            pq.write_table(part, temporary)
        rows[name], start = len(part), end
    save_schema(SCHEMA, out / "schema.toml")
    return rows


def _sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1.0 / (1.0 + np.exp(-x))
    return result
