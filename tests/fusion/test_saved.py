"""Whole or not at all: what lies on disk of a fusion or a policy."""

import json

import numpy as np
import pytest

from polyrank.errors import RunError
from polyrank.fusion.saved import read_saved, write_saved

KINDS = {"list": list, "tuple": tuple}


def restored(kind, document, arrays):
    return kind([document["word"], *arrays["numbers"].tolist()])


def write(directory, **changes):
    parts = {"kind": "tuple", "document": {"word": "a"}, "arrays": {"numbers": np.arange(3.0)[::2]}} | changes
    write_saved("thing", parts["kind"], parts["document"], parts["arrays"], directory)


def test_what_was_written_is_read(tmp_path):
    write(tmp_path)
    assert read_saved("thing", KINDS, restored, tmp_path) == ("a", 0.0, 2.0)  # a strided array is saved as it reads


def test_without_arrays_none_of_an_earlier_one_stay(tmp_path):
    write(tmp_path)
    write(tmp_path, arrays={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing.json"]
    assert read_saved("thing", KINDS, lambda kind, document, arrays: (kind, arrays), tmp_path) == (tuple, {})


def test_arrays_of_another_one_are_refused(tmp_path):
    write(tmp_path)
    kept = (tmp_path / "thing.json").read_text()
    write(tmp_path, arrays={"numbers": np.ones(2)})
    (tmp_path / "thing.json").write_text(kept)
    with pytest.raises(RunError, match=r"thing\.safetensors is not the file that was saved with it"):
        read_saved("thing", KINDS, restored, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"kind": "tupel"}, "did you mean 'tuple'"), ({"format": 2}, "format 2"), ({"word": None}, "must be whole")],
)
def test_what_is_not_known_is_refused_with_its_neighbour(tmp_path, change, said):
    write(tmp_path)
    path = tmp_path / "thing.json"
    document = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    with pytest.raises(RunError, match=said):
        read_saved("thing", KINDS, restored, tmp_path)
