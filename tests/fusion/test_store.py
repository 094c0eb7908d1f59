from pathlib import Path

import numpy as np
import pytest

from polyrank.errors import RunError
from polyrank.files import read_json, write_json
from polyrank.fusion.formula import Formula
from polyrank.fusion.scope import Scope
from polyrank.fusion.segments import Segmented
from polyrank.fusion.store import FUSIONS, load_fusion, save_fusion

SCOPE = Scope({"click": "probability", "comment-stay": "probability"}, ("seconds",))
FORMULA = Formula.parse('click^0.1 * ("comment-stay" + 1e-4) * log1p(seconds)', SCOPE)
SEGMENTED = Segmented("active", {0: Formula.parse("click", SCOPE), 1: FORMULA}, FORMULA)


@pytest.mark.parametrize("fusion", [FORMULA, SEGMENTED])
def test_a_saved_fusion_is_the_same_fusion(fusion: Formula | Segmented, tmp_path: Path) -> None:
    save_fusion(fusion, tmp_path)
    again = load_fusion(tmp_path)
    assert again == fusion
    rng = np.random.default_rng(0)
    rows = {name: rng.random(20) for name in ("click", "comment-stay", "seconds")} | {"active": rng.integers(0, 3, 20)}
    np.testing.assert_array_equal(again.score(rows), fusion.score(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["fusion.json"]  # JSON alone: nothing to unpickle


def test_the_registry_names_each_kind() -> None:
    assert all(kind.kind == name for name, kind in FUSIONS.items())


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"kind": "formulas"}, {"formula": "click +"}, {"formula": "other"}, {"heads": None}]
)
def test_a_damaged_one_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    save_fusion(FORMULA, tmp_path)
    write_json(tmp_path / "fusion.json", read_json(tmp_path / "fusion.json") | change)
    with pytest.raises(RunError):
        load_fusion(tmp_path)


def test_a_missing_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        load_fusion(tmp_path)
