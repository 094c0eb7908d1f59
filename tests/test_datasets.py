import hashlib
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from polyrank.data.encoders import Encoders
from polyrank.datasets import absolute, open_data, open_schema
from polyrank.errors import ConfigError, DataError

NOWHERE = Path("nowhere")
ROWS = {"train": 199_523, "valid": 49_881, "test": 49_881}


@pytest.fixture(scope="module")
def parts():
    return {part: open_data(f"builtin:census/{part}", NOWHERE) for part in ROWS}


@pytest.fixture(scope="module")
def tables(parts):
    return {part: source.dataset.to_table() for part, source in parts.items()}


def as_lines(table):
    """Each row as one string."""
    columns = [column.cast(pa.string()).fill_null("null") for column in table.columns]
    return pc.binary_join_element_wise(*columns, "|").combine_chunks()


@pytest.mark.parametrize("part", ROWS)
def test_rows(parts, tables, part):
    assert parts[part].count_rows() == len(tables[part]) == ROWS[part]
    assert tables[part].num_columns == 42


def test_the_short_name_is_the_training_part(parts):
    source = open_data("builtin:census", NOWHERE)
    assert source.count_rows() == ROWS["train"]
    assert source.fingerprint == parts["train"].fingerprint


def test_valid_and_test_are_the_test_file_cut_in_two(tables):
    published = pq.read_table(Path(str(files("polyrank"))) / "builtin/census/test.parquet")
    both = pa.concat_arrays([as_lines(tables[part]) for part in ("valid", "test")])
    # Equal as multisets, with as many rows: no row is in both parts, and none is lost.
    assert both.sort().equals(as_lines(published).sort())
    # In file order, and not the first half and the second.
    lines = as_lines(published).to_pylist()
    first = {}
    for place, line in enumerate(lines):
        first.setdefault(line, place)
    alone = {
        line
        for line, n in zip(*(x.to_pylist() for x in pc.value_counts(pa.array(lines)).flatten()), strict=True)
        if n == 1
    }
    places = [first[line] for line in as_lines(tables["valid"]).to_pylist() if line in alone]
    assert places == sorted(places)
    assert abs(sum(place < len(lines) // 2 for place in places) / len(places) - 0.5) < 0.01


@pytest.mark.parametrize(
    ("part", "row", "digest"),
    [
        ("train", 0, "dd8642a3ef5ed272"),
        ("train", 199_522, "82c199b7bc2e426c"),
        ("valid", 0, "0e2fd3c92f0ade9e"),
        ("valid", 49_880, "a9ec60bc3f8f3fd3"),
        ("test", 0, "45d769943736eda7"),
        ("test", 1, "7adfe5342fba3046"),
        ("test", 49_880, "95a9295ecabd5ee2"),
    ],
)
def test_the_split_never_moves(tables, part, row, digest):
    # A published number is worth nothing if the next release splits the data in another way.
    found = repr(tables[part].slice(row, 1).to_pylist())
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == digest


def test_fingerprints_tell_the_parts_apart_and_stay(parts):
    assert len({source.fingerprint for source in parts.values()}) == 3
    for part, source in parts.items():
        assert open_data(f"builtin:census/{part}", Path("elsewhere")).fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("part", "income", "never_married"),
    [("train", 12_382, 86_485), ("valid", 3_104, 21_561), ("test", 3_082, 21_582)],
)
def test_base_rates(tables, part, income, never_married):
    table = tables[part]
    assert pc.sum(pc.equal(table["income_50k"], "50000+.")).as_py() == income
    assert pc.sum(pc.equal(table["marital_stat"], "Never married")).as_py() == never_married


@pytest.mark.parametrize("name", ["paper", "full"])
def test_schemas_fit_every_part(parts, name):
    schema = open_schema(f"builtin:census/{name}", NOWHERE)
    assert schema.task_names == ("income", "never_married")
    for source in parts.values():
        schema.check(source.schema, source.name)


@pytest.mark.parametrize("name", ["paper", "full"])
def test_schemas_encode(tables, in_memory, name):
    encoders = Encoders.fit(open_schema(f"builtin:census/{name}", NOWHERE), in_memory(tables["train"].slice(0, 4_000)))
    encoded = encoders.encode(tables["test"].slice(0, 500).combine_chunks().to_batches()[0])
    assert encoded.labels.shape == (500, 2)
    assert set(encoded.labels.ravel()) == {0.0, 1.0}


def test_the_papers_protocol_leaves_two_columns_and_the_labels_out(tables):
    # Ma et al. 2018, section 6.3: 40 attributes less education; the survey weight is no attribute of a person.
    everything = set(tables["train"].column_names)
    paper, full = (open_schema(f"builtin:census/{name}", NOWHERE) for name in ("paper", "full"))
    labels = {"income_50k", "marital_stat"}
    assert {f.source for f in paper.features} == everything - labels - {"education", "instance_weight"}
    assert {f.source for f in full.features} == everything - labels - {"instance_weight"}
    assert open_schema("builtin:census", NOWHERE) == paper


@pytest.mark.parametrize(
    ("opener", "place", "advice"),
    [
        (open_data, "builtin:census/trian", "did you mean 'census/train'?"),
        (open_data, "builtin:cesus", "did you mean 'census'?"),
        (open_data, "builtin:census/paper", "census/"),
        (open_data, "builtin:", "one of: census, census/train, census/valid, census/test"),
        (open_data, "builtin:census/valid/x", "did you mean 'census/valid'?"),
        (open_schema, "builtin:census/papr", "did you mean 'census/paper'?"),
        (open_schema, "builtin:adult", "one of: census, census/paper, census/full"),
    ],
)
def test_unknown_names(opener, place, advice):
    with pytest.raises(ConfigError, match="built-in data goes by its name") as raised:
        opener(place, NOWHERE)
    assert raised.value.received == place
    assert advice in raised.value.mend


def test_paths_start_from_the_base(feedback_log, tmp_path, monkeypatch):
    log = feedback_log(20, name="logs/a.parquet")
    assert open_data("logs/a.parquet", tmp_path).count_rows() == 20
    assert open_data("logs/*.parquet", tmp_path).count_rows() == 20
    assert open_data(str(log), NOWHERE).count_rows() == 20
    monkeypatch.chdir(tmp_path)
    assert open_data("logs", Path()).count_rows() == 20
    with pytest.raises(DataError, match="must be a file, a directory or a glob"):
        open_data("logs/a.parquet", tmp_path / "logs")


def test_schema_file_relative_to_the_base(tmp_path):
    (tmp_path / "s.toml").write_text(
        '[[features]]\nname = "video"\nkind = "id"\n[[tasks]]\nname = "click"\nkind = "binary"\n'
    )
    assert open_schema("s.toml", tmp_path).task_names == ("click",)
    with pytest.raises(ConfigError):
        open_schema("s.toml", NOWHERE)


def test_absolute(tmp_path, monkeypatch):
    for place in ("", "builtin:census/test", "s3://bucket/logs", str(tmp_path / "a.parquet")):
        assert absolute(place, NOWHERE) == place
    assert absolute("logs/*.parquet", tmp_path) == str(tmp_path / "logs/*.parquet")
    monkeypatch.chdir(tmp_path)
    assert absolute("a.csv", Path("data")) == str(tmp_path / "data/a.csv")
