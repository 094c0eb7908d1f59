"""How accurate one model for both tasks is on Census-Income, with the protocol of the MMoE paper, on built-in data.

    python benchmarks/accuracy_census.py search [--jobs 16] [--out runs/accuracy_census]
    python benchmarks/accuracy_census.py final  [--jobs 16] [--out runs/accuracy_census]

`search` tries options and architectures on top of configs/census_best.toml, by validation data; `final` trains that
file with ten seeds, and other architectures in it with three; and the file once more with the halves of the published
test file exchanged, since which half is the test moves never married more than any setting does. Every figure is of
test data. Finished trainings are kept: the same command goes on. Writes
benchmarks/results/<date>-accuracy-census-<stage>.{json,md}.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from accuracy.search import Plan, arguments, conclude
from accuracy.trials import Study

PLAN = Plan(
    ablations={
        "no crosses": ("model.cross.layers=0",),
        "no first-order terms": ("model.first_order=false",),
        "scaled numbers": ("model.number.encoding=scaled",),
    },
    options={
        "two members": ("model.ensemble.members=2",),  # the longest first
        "periodic numbers": ("model.number.encoding=periodic", "model.number.frequency_scale=0.1"),
        "leaves": ("data.leaves.trees=50", "train.epochs=8"),
        "leaves, more dropout": ("data.leaves.trees=50", "train.epochs=10", "model.embedding_dropout=0.7"),
        "three crosses": ("model.cross.layers=3",),
        "crosses of rank 128": ("model.cross.rank=128",),
        "feature gate": ("model.feature_gate.on=true",),
        "more dropout": ("model.embedding_dropout=0.65", "train.epochs=20"),
        "average of weights": ("train.average=0.999",),
        "label smoothing": ("train.label_smoothing=0.01",),
    },
    architectures=("mmoe", "ple", "cgc", "omoe", "shared_bottom", "dselect_k"),
    seeds=(0, 1, 2),
    final=tuple(range(10)),
)

# The protocol halves the test file at random: validation here is test there.
EXCHANGED = {"halves exchanged": ("data.valid=builtin:census/test", "data.test=builtin:census/valid")}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = arguments(parser, "census")
    study = Study(Path(__file__).parents[1] / "configs/census_best.toml", (), given.out)
    plan = replace(PLAN, contrasts=EXCHANGED) if given.stage == "final" else PLAN
    conclude(study, plan, given, "census", f"python benchmarks/accuracy_census.py {given.stage}")


if __name__ == "__main__":
    main()
