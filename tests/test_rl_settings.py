"""`[rl]`: its keys, the method's own section, and configs that have no other."""

from pathlib import Path

import pytest

from polyrank.errors import ConfigError
from polyrank.fusion.methods import METHODS
from polyrank.rl_settings import parse_rl
from polyrank.settings import load_rl, load_settings

METHOD = next(iter(METHODS))


def test_a_methods_knobs_stand_in_its_own_part(tmp_path: Path) -> None:
    table = {"log": "a.parquet", "method": METHOD, METHOD: {"seed": 7}}
    settings = parse_rl(table, tmp_path)
    assert settings.knobs == METHODS[METHOD].config(seed=7)
    assert settings.table()[METHOD]["seed"] == 7
    assert parse_rl(settings.table(), tmp_path) == settings


def test_no_other_section_is_needed_and_others_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    assert load_rl(path, ["rl.log=a", f"rl.method={METHOD}"]).base == tmp_path.resolve()
    path.write_text("[train]\nepochs = 3\n")
    assert load_rl(path, ["rl.log=a", f"rl.method={METHOD}"]).rl.log == "a"


def test_other_commands_know_the_section(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[data]\nschema = "s"\ntrain = "t"\n[rl]\nlog = "a"\nmethod = "{METHOD}"\n')
    load_settings(path)
    with pytest.raises(ConfigError, match="helt"):
        load_settings(path, ["rl.helt=0.5"])


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([], "section \\[rl\\]"),
        (["rl.method=x"], "rl.log must be given"),
        (["rl.log=a", "rl.method=linear_cme"], "linear_cem"),
        (["rl.log=a", "rl.linear_cme.seed=1"], "linear_cem"),
        (["rl.log=a", "rl.lov=[1.0]"], "low"),
        (["rl.log=a", "rl.held=1.5"], "rl.held"),
        (["rl.log=a", f"rl.method={METHOD}", "rl.low=[1.0]"], "two sides"),
        (["rl.log=a", f"rl.method={METHOD}", "rl.low=[1.0]", "rl.high=[0.0]"], "two sides"),
        (["rl.log=a", "rl.estimate.gama=1"], "gamma"),
        (["rl.log=a", "rll.log=a"], "did you mean 'rl'"),
    ],
)
def test_mistakes(tmp_path: Path, sets: list[str], words: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match=words):
        load_rl(path, sets)
