"""How accurate one model for five tasks (and the watch time) is on KuaiRand-Pure, beside a LightGBM per task.

    python benchmarks/accuracy_kuairand.py search PATH [--jobs 16] [--out runs/accuracy_kuairand]
    python benchmarks/accuracy_kuairand.py final  PATH [--jobs 16] [--out runs/accuracy_kuairand]

PATH is a folder with train.parquet and valid.parquet (see configs/kuairand.toml); the data is not shipped. `search`
holds out the newest tenth of train.parquet and tries options and architectures on top of the config by it; `final`
trains the config for as many epochs as it says, on all of train.parquet, and keeps the last weights, with five seeds.
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
    "without watch time": ("balance.static.weights.play=0.0",),  # its leaves stay
}
OPTIONS = {
    "four members": ("model.ensemble.members=4",),  # the longest first
    "one member": ("model.ensemble.members=1",),
    "narrower embeddings": ("model.embedding_width=16",),
    "attention that sums to 1": ("model.sequence.softmax=true",),
    "crosses": ("model.cross.layers=2",),
    "piecewise numbers": ("model.number.encoding=piecewise",),
    "feature gate": ("model.feature_gate.on=true",),
    "more dropout": ("model.embedding_dropout=0.8",),
    "higher rate": ("train.learning_rate=2e-3",),
    "larger batches": ("train.batch_size=1024", "train.epochs=5"),
    "more leaves": ("data.leaves.trees=100",),
    "dropout in towers": ("model.tower_dropout=0.3",),
    "watch time counts in full": ("balance.static.weights.play=1.0",),
    "learned weights": ("balance.method=uncertainty",),
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
    architectures = ("cgc", "mmoe", "ple", "shared_bottom", "adatt", "home", "stem") if given.stage == "search" else ()
    plan = Plan(ABLATIONS, OPTIONS, architectures, (0, 1), tuple(range(5)), refit)
    conclude(study, plan, given, "kuairand", f"python benchmarks/accuracy_kuairand.py {given.stage} PATH")


if __name__ == "__main__":
    main()
