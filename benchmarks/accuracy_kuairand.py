"""How accurate one model for five tasks is on KuaiRand-Pure, beside a LightGBM per task.

    python benchmarks/accuracy_kuairand.py search PATH [--jobs 16] [--out runs/accuracy_kuairand]
    python benchmarks/accuracy_kuairand.py final  PATH [--jobs 16] [--out runs/accuracy_kuairand]

PATH is a folder with train.parquet and valid.parquet (see configs/kuairand.toml); the data is not shipped. `search`
holds out the newest tenth of train.parquet and tries options and architectures on top of the config by it; `final`
trains the config, and what was seen to move tasks against one another, for as many epochs as they say, on all of
train.parquet and keeps the last weights, with five seeds.
Figures are of valid.parquet, by which nothing is chosen. Finished trainings are kept: the same command goes on. Writes
benchmarks/results/<date>-accuracy-kuairand-<stage>.{json,md}.
"""

import argparse
from pathlib import Path

import pyarrow.parquet as pq
from accuracy.search import Plan, arguments, conclude
from accuracy.trials import Study

ABLATIONS = {
    "no first-order terms": ("model.first_order=false",),
    "histories as means": ("model.sequence.pooling=mean",),
    "no leaves": ("data.leaves.trees=0",),
}
OPTIONS = {
    "two members": ("model.ensemble.members=2",),  # the longest first
    "wider embeddings": ("model.embedding_width=32",),
    "less dropout": ("model.embedding_dropout=0.6", "train.epochs=4"),
    "crosses": ("model.cross.layers=2",),
    "piecewise numbers": ("model.number.encoding=piecewise",),
    "feature gate": ("model.feature_gate.on=true",),
    "higher rate": ("train.learning_rate=2e-3",),
    "smaller batches": ("train.batch_size=512",),
    "more leaves": ("data.leaves.trees=100",),
    "no average of weights": ("train.average=0",),
    "dropout in towers": ("model.tower_dropout=0.3",),
    "learned weights": ("balance.method=uncertainty",),
}
_SMALLER = ("model.architecture=cgc", "train.batch_size=512", "train.epochs=4")
# What was seen to move the tasks against one another, shown with all seeds beside the config itself.
CONTRASTS = {
    "cgc": ("model.architecture=cgc",),
    "cgc, smaller batches": _SMALLER,
    # Of the variations of the line above that the held-out rows saw, the best (width 24 and 32, two and four members,
    # wider experts, more dropout, a longer average, click counting double).
    "cgc, smaller batches, wider, two members": (*_SMALLER, "model.embedding_width=32", "model.ensemble.members=2"),
}


def newest(train: Path, out: Path) -> Path:
    """The newest tenth of the training rows, as a file: what a model is shown to that trains on all of them."""
    target = out / "newest.parquet"
    if not target.exists():
        out.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(train).sort_by("time_ms")
        pq.write_table(table.slice(table.num_rows * 9 // 10), target)
    return target


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = arguments(parser, "kuairand", path="folder with train.parquet and valid.parquet")
    train, test = (given.path.resolve() / f"{part}.parquet" for part in ("train", "valid"))
    study = Study(
        Path(__file__).parents[1] / "configs/kuairand.toml", (f"data.train={train}", f"data.test={test}"), given.out
    )
    refit = (f"data.valid={newest(train, given.out.resolve())}", "train.keep=last")
    architectures = ("mmoe", "ple", "shared_bottom", "adatt", "home", "stem") if given.stage == "search" else ()
    plan = Plan(ABLATIONS, OPTIONS, architectures, (0, 1), tuple(range(5)), refit, CONTRASTS)
    conclude(study, plan, given, "kuairand", f"python benchmarks/accuracy_kuairand.py {given.stage} PATH")


if __name__ == "__main__":
    main()
