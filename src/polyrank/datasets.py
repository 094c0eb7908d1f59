"""Where data comes from: a path, or the built-in `builtin:census`.

Census-Income (KDD), UCI Machine Learning Repository, CC BY 4.0: 199,523 training and 99,762 test rows of the 1994 and
1995 surveys of the US Census Bureau. The test file is split 1:1 at random, with a fixed seed, into validation and test.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from polyrank.config import nearest
from polyrank.data.readers import Source, open_source, table_source
from polyrank.data.schema import Schema, load_schema
from polyrank.errors import ConfigError

PREFIX = "builtin:"
SPLIT_SEED = 2018
_PARTS = ("train", "valid", "test")
_SCHEMAS = ("paper", "full")


def open_data(place: str, base: Path) -> Source:
    """Open `builtin:census`, its parts `builtin:census/valid` and `/test`, or what lies at a path (relative to `base`).

    Raises:
        ConfigError: a built-in name that is not known.
        DataError: nothing usable is at the path.
    """
    if not place.startswith(PREFIX):
        return open_source(place if "://" in place else base / place)
    part = _builtin(place, _PARTS, "train")
    if part == "train":
        return open_source(_directory() / "train.parquet")
    table = pq.read_table(_directory() / "test.parquet")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(table))
    half = len(table) // 2
    rows = np.sort(order[:half] if part == "valid" else order[half:])
    fingerprint = hashlib.sha256(f"{place} {SPLIT_SEED} {len(table)}".encode()).hexdigest()
    return table_source(f"{PREFIX}census/{part}", table.take(rows), fingerprint)


def absolute(place: str, base: Path) -> str:
    """A place (relative to `base`) as it can be given from anywhere; built-in names and URIs are that already."""
    if not place or place.startswith(PREFIX) or "://" in place:
        return place
    return str((base / place).absolute())


def open_schema(place: str, base: Path) -> Schema:
    """Load `builtin:census/paper`, `builtin:census/full`, or the schema file at a path (relative to `base`).

    Raises:
        ConfigError: missing, not TOML, or breaks a rule.
    """
    if place.startswith(PREFIX):
        return load_schema(_directory() / f"{_builtin(place, _SCHEMAS, 'paper')}.toml")
    return load_schema(base / place)


def _builtin(place: str, known: tuple[str, ...], default: str) -> str:
    name, _, part = place.removeprefix(PREFIX).partition("/")
    names = [f"census/{part}" for part in known]
    if name != "census" or (part or default) not in known:
        raise ConfigError(
            "built-in data goes by its name",
            received=place,
            mend=nearest(place.removeprefix(PREFIX), ["census", *names]),
        )
    return part or default


def _directory() -> Path:
    return Path(str(files("polyrank") / "builtin" / "census"))
