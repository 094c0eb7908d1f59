import sys

import pytest

from polyrank.errors import ConfigError
from polyrank.options import check_config, command_line, delta_of, text_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.12345, "0.1235"),
        (12, "12"),
        (1_234_567, "1,234,567"),
        (1234.6, "1,235"),
        (-0.5, "-0.5000"),
        ([0.25, 0.75], "0.250–0.750"),
        ([999.0, 1500.0], "999.000–1,500"),
    ],
)
def test_numbers_as_they_are_printed(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (None, ""),
        ({"mean": None, "low": None, "high": None}, ""),
        ({"mean": 0.00123, "low": None, "high": None}, "+0.0012"),
        ({"mean": -0.001, "low": -0.0025, "high": 0.0005}, "-0.0010 \\[-0.0025, +0.0005]"),
    ],
)
def test_differences_as_they_are_printed(delta, text):
    assert delta_of(delta) == text


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/polyrank", "train", "my config.toml", "--set", "train.seed=3"])
    assert command_line() == "polyrank train 'my config.toml' --set train.seed=3"


def test_a_file_that_is_no_config_is_told_without_torch(tmp_path):
    (tmp_path / "c.toml").write_text("[data\n")
    with pytest.raises(ConfigError):
        check_config(tmp_path / "c.toml", None)
    (tmp_path / "c.toml").write_text("[train]\nseed = 1\n")
    check_config(tmp_path / "c.toml", ["train.seed=2"])
    with pytest.raises(ConfigError):
        check_config(tmp_path / "c.toml", ["train.seed"])
