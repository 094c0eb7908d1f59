import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import polyrank
from polyrank import errors, experiment
from polyrank.data import infer, loader, schema
from polyrank.evaluation import predict

HEAVY = ("torch", "pyarrow", "lightgbm", "scipy", "plotly", "numpy")


def run(code):
    """Run code in a fresh interpreter; what it printed, as JSON."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loaded_after(code):
    loaded = run(f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))")
    return {name for name in HEAVY if name in loaded}


def test_import_is_light():
    assert loaded_after("import polyrank") == set()


def test_a_name_loads_what_it_needs_only():
    assert "torch" not in loaded_after("from polyrank import Schema, infer_schema")
    assert loaded_after("from polyrank import PolyrankError") == set()
    assert "torch" in loaded_after("from polyrank import Ranker")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["data", "--help"], ["nonsense"]])
def test_help_is_light(arguments):
    code = f"""
from polyrank.cli import main
sys.argv = {["polyrank", *arguments]!r}
try:
    main()
except SystemExit:
    pass
"""
    assert loaded_after(code) == set()


def test_every_public_name_is_there():
    for name in polyrank.__all__:
        assert getattr(polyrank, name) is not None
    assert set(polyrank.__all__) <= set(dir(polyrank))
    assert sorted(polyrank.__all__) == polyrank.__all__


def test_names_are_the_very_objects():
    assert polyrank.Schema is schema.Schema
    assert polyrank.load_schema is schema.load_schema
    assert polyrank.infer_schema is infer.infer_schema
    assert polyrank.Batch is loader.Batch
    assert polyrank.ScoreTable is predict.ScoreTable
    assert polyrank.PolyrankError is errors.PolyrankError
    for verb in ("train", "compare", "evaluate", "score", "demo", "infer"):
        assert getattr(polyrank, verb) is getattr(experiment, verb)


def test_importing_modules_does_not_shadow_names():
    # A submodule is set on its package as an attribute when it is imported; none may bear a public name.
    modules = {path.stem for path in Path(polyrank.__file__).parent.iterdir()}
    assert modules.isdisjoint(polyrank.__all__)


def test_version_is_the_installed_one():
    assert polyrank.__version__ == version("polyrank")


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'polyrank' has no attribute 'Rankr'"):
        _ = polyrank.Rankr
    with pytest.raises(ImportError):
        from polyrank import Rankr  # noqa: F401


def test_modules_are_still_importable_from_the_package():
    from polyrank import metrics

    assert metrics.__name__ == "polyrank.metrics"
