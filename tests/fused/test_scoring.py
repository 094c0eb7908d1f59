"""`polyrank fuse attach`, and the column `score` from then on."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrank import experiment
from polyrank.errors import ConfigError, DataError, RunError
from polyrank.fusion.formula import Formula
from polyrank.fusion.scope import Scope
from polyrank.fusion.store import load_fusion
from polyrank.scoring import load_scorable


def scores(folder: Path, out: Path) -> pa.Table:
    experiment.score(folder / "run", str(folder / "test.parquet"), out)
    return pq.read_table(out)


def test_a_formula_scores_row_by_row(folder: Path, tmp_path: Path) -> None:
    experiment.fuse_attach(folder / "run", "click^0.9 * (like + 1e-4)^0.2 * log1p(seconds)")
    table = scores(folder, tmp_path / "s.parquet")
    assert table.column_names == ["p_click", "p_like", "p_hate", "score"]
    seconds = pq.read_table(folder / "test.parquet")["seconds"].to_numpy()
    p = {name: table[f"p_{name}"].to_numpy().astype(float) for name in ("click", "like")}
    np.testing.assert_allclose(
        table["score"].to_numpy(), p["click"] ** 0.9 * (p["like"] + 1e-4) ** 0.2 * np.log1p(seconds)
    )


def test_a_search_is_attached_by_its_directory(folder: Path, searched: Path, tmp_path: Path) -> None:
    experiment.fuse_attach(folder / "run", str(searched))
    table = scores(folder, tmp_path / "s.parquet")
    expected = load_fusion(searched).score({n: table[f"p_{n}"].to_numpy() for n in ("click", "like", "hate")})
    np.testing.assert_array_equal(table["score"].to_numpy(), expected)
    assert load_scorable(folder / "run").attached.request == ("user", "day")  # type: ignore[union-attr]


def test_ranks_are_taken_within_requests(folder: Path, tmp_path: Path) -> None:
    text = "1 / (rank(click) + 2) + 3 / (rank(like) + 2)"
    with pytest.raises(ConfigError, match="--request"):
        experiment.fuse_attach(folder / "run", text)
    experiment.fuse_attach(folder / "run", text, ["user"])
    table = scores(folder, tmp_path / "s.parquet")
    users = pq.read_table(folder / "test.parquet")["user"].to_numpy()
    made = Formula.parse(text, Scope({"click": "probability", "like": "probability"}))
    for user in np.unique(users)[:5]:
        mine = users == user
        expected = made.score({name: table[f"p_{name}"].to_numpy()[mine] for name in ("click", "like")})
        np.testing.assert_allclose(table["score"].to_numpy()[mine], expected)


def test_what_does_not_suit_the_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task"):
        experiment.fuse_attach(folder / "run", "clik * 2")
    with pytest.raises(ConfigError, match="did you mean 'like'"):
        experiment.fuse_attach(folder / "run", "click * lke")
    for path in ("runs/fused", "./fused", "fused/", str(tmp_path)):
        with pytest.raises(RunError, match="no such directory" if path != str(tmp_path) else "holds no fusion"):
            experiment.fuse_attach(folder / "run", path)
    experiment.fuse_attach(folder / "run", "like/exp(click)")
    poor = tmp_path / "poor.parquet"
    pq.write_table(pq.read_table(folder / "test.parquet").drop_columns("seconds"), poor)
    experiment.fuse_attach(folder / "run", "click * seconds")
    with pytest.raises(DataError, match="'seconds'"):
        experiment.score(folder / "run", str(poor), tmp_path / "s.parquet")
    attached = folder / "run/fusion/fusion.json"
    attached.write_text("{}")
    with pytest.raises(RunError):
        scores(folder, tmp_path / "s.parquet")
    shutil.rmtree(attached.parent)
