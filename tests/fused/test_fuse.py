"""`polyrank fuse search`, from files to files."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from polyrank import experiment
from polyrank.candidates import read_parts
from polyrank.config import read_toml
from polyrank.errors import ConfigError, DataError, RunError
from polyrank.evaluation.fused import JudgeConfig, measure
from polyrank.fusion.store import load_fusion
from polyrank.progress import Silent
from polyrank.scoring import load_scorable
from polyrank.settings import parse_settings


def search(folder: Path, out: Path, *sets: str, resume: bool = False) -> dict:
    return experiment.fuse_search(folder / "config.toml", sets, out, resume=resume, command="polyrank fuse search")


def test_it_finds_a_list_that_is_better_for_all_that_counts(searched: Path) -> None:
    found = json.loads((searched / "search.json").read_text())
    rankings = {ranking["name"]: ranking for ranking in found["judged"]["rankings"]}
    assert list(rankings) == [
        "click alone", "like alone", "searched", "current formula", "equal contributions", "Sobol, equal budget",
    ]  # fmt: skip
    delta = rankings["searched"]["against"]["composite"]["gauc"]
    assert delta["verdict"] == "gain"  # against the likes alone, clicks count too
    assert rankings["searched"]["metrics"]["gauc"]["like"]["value"] > 0.6
    assert found["judged"]["behaviours"] == ["click", "like", "no hate"]
    assert found["directions"] == {"like": 1, "click": 1, "hate": -1}
    assert found["against"]["Sobol, equal budget"]["searched"]["composite"]["gauc"]["mean"] is not None
    assert any("without a request" in note for note in found["notes"])
    assert len(found["trials"]) == 40
    assert found["lists"][0]["rows"][0]["show"].keys() == {"video"}


def test_what_is_written(searched: Path) -> None:
    names = {path.name for path in searched.iterdir() if not path.name.startswith(".")}
    assert names == {"fusion.json", "search.json", "trials.jsonl", "sobol.jsonl", "trials.parquet", "report.html"}
    trials = pq.read_table(searched / "trials.parquet")
    assert len(trials) == 40
    assert {"origin", "value", "violation", "front", "gauc:click"} <= set(trials.column_names)
    formula = load_fusion(searched)
    assert str(formula) == json.loads((searched / "search.json").read_text())["formulas"]["searched"]
    page = (searched / "report.html").read_text()
    assert "Before and after" in page
    assert "http" not in page.split("<body>")[1].split("<script>")[0]


def test_its_numbers_are_those_of_the_saved_formula_on_the_test_rows(folder: Path, searched: Path) -> None:
    settings = parse_settings(read_toml(folder / "config.toml"), folder)
    test = read_parts(load_scorable(folder / "run"), settings, Silent())["test"].requests
    scores = load_fusion(searched).score(test.columns, test.requests)
    expected = measure(test, scores, JudgeConfig())
    table = json.loads((searched / "search.json").read_text())["judged"]["rankings"]
    found = next(ranking for ranking in table if ranking["name"] == "searched")["metrics"]["gauc"]
    for name in ("click", "like", "no hate"):
        assert found[name]["value"] == pytest.approx(expected["gauc", name].mean(), abs=1e-9)


def test_a_resumed_search_is_the_same(folder: Path, searched: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="of its own"):
        search(folder, searched)
    lines = (searched / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:11]) + lines[11][:20])
    search(folder, tmp_path, resume=True)
    assert (tmp_path / "trials.jsonl").read_bytes() == b"".join(lines)
    assert (tmp_path / "fusion.json").read_bytes() == (searched / "fusion.json").read_bytes()


def test_a_formula_of_ones_own_with_context_and_segments(folder: Path, tmp_path: Path) -> None:
    text = 'fusion.formula="click * (like + 0.01)^w * log1p(seconds)^v * quantile(like)"'
    document = search(
        folder, tmp_path, text, "fusion.parameters.w={value=1.0, low=0.1, high=10.0}",
        "fusion.parameters.v={value=0.0, low=-1.0, high=1.0, log=false}", "fusion.segment=active",
        "fusion.search.trials=15",
    )  # fmt: skip
    assert document["segments"].keys() == {"0"}
    assert [(row["cohort"], row["value"]) for row in document["judged"]["cohorts"]] == [("active", 0)]
    assert document["parameters"].keys() == {"w", "v"}
    fusion = load_fusion(tmp_path)
    assert fusion.context == ("active", "seconds")
    assert fusion.otherwise.tables  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["fusion.run="], "needs a run"),
        (["fusion.heads=['clik']"], "did you mean 'click'"),
        (["fusion.formula=log_summ"], "did you mean 'log_sum'"),
        (["fusion.formula=click * lik^2"], "must have the column 'lik'"),
        (["fusion.formula=click * like"], "needs a formula with parameters"),
        (["fusion.request=['user', 'hour']"], "'hour'"),
        (["fusion.judge.weights={clicks=1.0}"], "did you mean 'click'"),
        (["fusion.reward.weights={clicks=1.0}"], "reward"),
        (["fusion.segment=seconds"], "segment"),
        (["fusion.smallest=1000"], "at least 1000 rows"),
        (["fusion.current=", "fusion.search.epsilon=0.1"], "current"),
        (["fusion.search.method=cmaess"], "cmaes"),
        (["fusion.formula=click * like^w_like"], "fusion.parameters"),
        (["fusion.parameters.w={value=1.0, low=2.0, high=3.0}"], "low ≤ value"),
        (["fusion.parameters.w={value=1.0, low=0.5, high=3.0}"], "own parameters"),
    ],
)  # fmt: skip
def test_mistakes_are_told(folder: Path, tmp_path: Path, sets: list[str], words: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        search(folder, tmp_path / "out", *sets)
    assert words in str(caught.value)
