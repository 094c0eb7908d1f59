"""TOML ↔ frozen dataclasses. An unknown key is an error that names its nearest neighbour; `--set a.b=v` overrides.

A knob is written once: as a field of the frozen dataclass beside the class it configures. Bounds are `annotated_types`
annotations (`Annotated[int, Gt(0)]`), checked here through pydantic; this module knows no section by name.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomlkit
from pydantic import TypeAdapter, ValidationError

from polyrank.errors import ConfigError
from polyrank.files import write_text

T = TypeVar("T")
Table = dict[str, Any]


def read_toml(path: Path, what: str = "config") -> Table:
    """Read a TOML file; `what` it is, for messages.

    Raises:
        ConfigError: it is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        received = f"{path}: {error.strerror}"
        raise ConfigError(f"a {what} must be a TOML file", received=received, mend="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        received = f"{path}: {error}"
        raise ConfigError(f"a {what} must be valid TOML", received=received, mend="correct that line") from error


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as TOML, atomically; keys whose value is None are left out (TOML has no null)."""
    write_text(path, tomlkit.dumps(_without_none(table)))


def override(table: Table, assignments: Iterable[str]) -> Table:
    """Apply `section.key=value` assignments; the value is read as TOML, or as a bare string where it is not TOML.

    >>> override({"train": {"seed": 1}}, ["train.seed=3", "model.architecture=ple"])
    {'train': {'seed': 3}, 'model': {'architecture': 'ple'}}
    """
    result: Table = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not equals or not all(keys):
            raise ConfigError(
                "--set takes key=value, or section.key=value",
                received=assignment,
                mend="for instance --set train.seed=3",
            )
        level = result
        for key in keys[:-1]:
            inner = level.get(key, {})
            if not isinstance(inner, dict):
                raise ConfigError("--set must name a key in a section", received=assignment, mend=f"{key} is a value")
            level[key] = dict(inner)
            level = level[key]
        level[keys[-1]] = _value(text.strip())
    return result


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """Make a config dataclass from a table, every key checked.

    Args:
        kind: a frozen dataclass; fields may be dataclasses, or tuples of them.
        table: what the user wrote.
        where: the section's name, for messages ("train", "features[3]").

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a missing one, or a value out of bounds.
    """
    _check_keys(kind, table, where)
    try:
        return TypeAdapter(kind).validate_python(dict(table) if isinstance(table, Mapping) else table)
    except ValidationError as error:
        first = error.errors()[0]
        name = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        name, rule = name.strip("."), first["msg"][:1].lower() + first["msg"][1:]
        if first["type"] == "missing":
            raise ConfigError(f"{name} must be given", received="nothing", mend="add the key") from error
        received = repr(first["input"])
        raise ConfigError(f"{name}: {rule}", received=received, mend="give such a one, or leave it out") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Advice on an unknown name: its nearest neighbour, or all names there are.

    >>> nearest("mmoee", ["mmoe", "ple"])
    "did you mean 'mmoe'?"
    """
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {match[0]!r}?" if match else f"one of: {', '.join(known) or '(none)'}"


def to_table(config: Any) -> Table:
    """The table that `build` makes an equal config from."""
    table: Table = _without_none(dataclasses.asdict(config))
    return table


def _check_keys(kind: Any, table: Any, where: str) -> None:
    """Walk a table beside the dataclass it is for; refuse the first key that has no field."""
    if dataclasses.is_dataclass(kind) and isinstance(table, Mapping):
        assert isinstance(kind, type)
        hints = get_type_hints(kind)
        known = [field.name for field in dataclasses.fields(kind) if field.init]
        for key, value in table.items():
            if key not in known:
                section = f"[{where}]" if where else "the file"
                received = f"{key} = {value!r}"
                raise ConfigError(f"{section} has no key {key!r}", received=received, mend=nearest(key, known))
            _check_keys(hints[key], value, f"{where}.{key}".strip("."))
    for inner in get_args(kind):  # tuple[X, ...], dict[str, X], X | None
        if isinstance(table, Sequence) and not isinstance(table, str):
            for index, value in enumerate(table):
                _check_keys(inner, value, f"{where}[{index}]")
        elif isinstance(table, Mapping) and get_origin(kind) is dict:
            for key, value in table.items():
                _check_keys(inner, value, f"{where}.{key}")
        else:
            _check_keys(inner, table, where)


def _value(text: str) -> Any:
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
