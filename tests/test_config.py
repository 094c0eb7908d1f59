from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Lt, MinLen

from polyrank.config import build, nearest, override, read_toml, to_table, write_toml
from polyrank.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    width: Annotated[int, Gt(0)]
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0


@dataclass(frozen=True)
class Train:
    kind: ClassVar[str] = "train"
    seed: int = 1
    learning_rate: Annotated[float, Gt(0)] = 0.01
    precision: Literal["float32", "BF16"] = "float32"
    name: Annotated[str, MinLen(1)] = "run"
    layers: tuple[Layer, ...] = ()
    last: Layer | None = None
    towers: dict[str, Layer] = field(default_factory=dict)
    derived: int = field(default=0, init=False)


@dataclass(frozen=True)
class Whole:
    train: Train
    title: str = ""


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.seed=3", 3),
        ("train.seed = -3", -3),
        ("train.seed=1e-3", 1e-3),
        ("train.seed=true", True),
        ("train.seed=[1, 2]", [1, 2]),
        ("train.seed=mmoe", "mmoe"),
        ('train.seed="3"', "3"),
        ("train.seed=a=b", "a=b"),
        ("train.seed=", ""),
        ("train.seed=s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_override_reads_toml_or_a_bare_string(assignment: str, expected: Any) -> None:
    result = override({"train": {"seed": 1, "epochs": 2}}, [assignment])

    assert result == {"train": {"seed": expected, "epochs": 2}}
    assert type(result["train"]["seed"]) is type(expected)


def test_override_makes_sections_and_leaves_the_original_alone() -> None:
    table = {"model": {"mmoe": {"experts": 4}}}

    result = override(table, ["model.mmoe.experts=8", "model.ple.levels=2", "seed=1"])

    assert result == {"model": {"mmoe": {"experts": 8}, "ple": {"levels": 2}}, "seed": 1}
    assert table == {"model": {"mmoe": {"experts": 4}}}


@pytest.mark.parametrize("assignment", ["train.seed", "=3", "train.=3", ".seed=3", "train.seed.x=3"])
def test_override_refuses_what_is_no_assignment(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({"train": {"seed": 1}}, [assignment])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sede": 3}, r"\[train\] has no key 'sede'[\s\S]*did you mean 'seed'"),
        ({"kind": "x"}, r"has no key 'kind'"),  # a class variable is no knob
        ({"derived": 3}, r"has no key 'derived'"),
        ({"learning_rate": 0}, r"train.learning_rate: input should be greater than 0[\s\S]*received: 0"),
        ({"learning_rate": float("nan")}, r"greater than 0"),
        ({"seed": "many"}, r"train.seed: input should be a valid integer[\s\S]*received: 'many'"),
        ({"precision": "bf16"}, r"train.precision: input should be 'float32' or 'BF16'"),
        ({"name": ""}, r"train.name"),
        ({"layers": [{"width": 1}, {"widht": 1}]}, r"\[train.layers\[1\]\] has no key 'widht'[\s\S]*'width'"),
        ({"layers": [{"width": 1}, {"width": 0}]}, r"train.layers\[1\].width: input should be greater than 0"),
        ({"layers": [{}]}, r"train.layers\[0\].width must be given"),
        ({"last": {"width": 1, "dropuot": 0}}, r"\[train.last\] has no key 'dropuot'"),
        ({"towers": {"click": {"widht": 1}}}, r"\[train.towers.click\] has no key 'widht'"),
        ({"layers": 3}, r"train.layers: input should be a valid tuple"),
    ],
)
def test_build_names_the_key_the_rule_and_the_value(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Train, table, "train")


def test_build_of_no_table() -> None:
    with pytest.raises(ConfigError, match=r"train: input should be a dictionary[\s\S]*received: 3"):
        build(Whole, override({}, ["train=3"]), "")
    with pytest.raises(ConfigError, match=r"train: input should be a dictionary"):
        build(Train, 3, "train")  # type: ignore[arg-type]  # what `--set train=3` leads to
    with pytest.raises(ConfigError, match=r"^the file has no key 'tarin'"):
        build(Whole, {"tarin": {}}, "")


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    train = Train(
        seed=7,
        learning_rate=1e-5,
        name='a "quoted"\n\\name',
        layers=(Layer(1), Layer(2, 0.5)),
        towers={"click": Layer(3)},
    )
    whole = Whole(train, "Δ")

    write_toml(tmp_path / "config.toml", to_table(whole) | {"nothing": None})

    table = read_toml(tmp_path / "config.toml")
    assert "nothing" not in table
    assert table["train"].pop("derived") == 0
    assert build(Whole, table, "") == whole


def test_to_table_is_what_build_reads() -> None:
    layer = Layer(3, 0.25)

    assert to_table(layer) == {"width": 3, "dropout": 0.25}
    assert build(Layer, to_table(layer), "layer") == layer


def test_written_tables_keep_their_levels(tmp_path: Path) -> None:
    table = {"rows": [{"x": 1}, {"x": 2}], "b": 2, "c": {"d": [{"z": 1}], "e": 3}}
    write_toml(tmp_path / "a.toml", table)

    assert read_toml(tmp_path / "a.toml") == table


def test_unreadable_toml_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("seed = = 3")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")

    for name, message in (
        ("none.toml", "must be a TOML file"),
        (".", "must be a TOML file"),
        ("bad.toml/x.toml", "must be a TOML file"),
        ("bad.toml", "line 1"),
        ("binary.toml", "valid TOML"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_toml(tmp_path / name)


def test_nearest() -> None:
    assert nearest("mmoee", ["mmoe", "ple"]) == "did you mean 'mmoe'?"
    assert nearest("zzz", ["mmoe", "ple"]) == "one of: mmoe, ple"
    assert nearest("zzz", []) == "one of: (none)"
