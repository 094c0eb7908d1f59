"""The document → Markdown: what is asked, what is reached, and what each side does."""

from collections.abc import Iterable
from typing import Any

ASKED = {
    ("census_mmoe", "train"): 6.0,
    ("census_ple", "train"): 6.0,
    ("large_mmoe", "train"): 100.0,
    ("census_mmoe", "predict"): 5.0,
    ("census_ple", "predict"): 5.0,
    ("large_mmoe", "predict"): 5.0,
}
LABELS = {
    "ours": "Polyrank",
    "ours_float32": "Polyrank, float32",
    "deepctr": "DeepCTR-Torch 0.3.0",
    "rechub": "torch-rechub 0.9.0",
    "ours:adagrad": "Polyrank, embeddings by row-wise Adagrad",
    "deepctr:init_std": "DeepCTR-Torch, init_std=0.05",
}
OPTIMISERS = {"adam": "lazy Adam", "adagrad": "row-wise Adagrad"}
WHAT = {
    "train": ("training", "rows/s", "{:,.0f}"),
    "predict": ("prediction", "rows/s", "{:,.0f}"),
    "latency": ("1 user × 500 candidates", "ms", "{:.2f}"),
}
PROTOCOL = """\
**How.** One persistent process a side on the same {threads} threads, taking turns: a unit of work of one side, then of
the next, while the others wait on a pipe; every side warms up with an untimed unit; the order turns round every other
round. A ratio compares Polyrank with the *better* peer *of the same round*: median and [least, greatest].

**The same for all.** Data: encoded once by Polyrank's encoders and handed over as arrays (Census-Income: 38 id columns,
of which 7 are binned numbers also given as scaled numbers, 2 tasks; large: 26 columns of 1,000,000 Zipf-like ids,
exponent 1.1, 2 tasks). Model: MMoE with 8 experts 128-64, linear gates, towers 32; PLE with 2 levels, 2 specific + 2
shared experts 128-64, towers 32; embedding width 8, no dropout. Dense parameters: Adam 1e-3. Batch 1,024 (Census) and
4,096 (large), reshuffled every epoch.

**What differs.** Polyrank's embeddings are updated by lazy Adam (Census) or row-wise Adagrad (large), the rows of the
batch only; both peers use dense Adam on whole tables, as their trainers do: that is a part of what is compared.
Polyrank's gradients are clipped, the peers' are not. Its timed part is the real loop: loading, shuffling, balancing,
clipping, updates; theirs is their own `fit` and `train_one_epoch`. Where Polyrank's precision is bf16, its float32
numbers stand beside; the peers have no such option. torch-rechub puts batch normalisation after every layer, gates
included, and cannot leave it out: its model is a little heavier. DeepCTR-Torch computes a shared gate in PLE's last
level that nothing reads. DeepCTR-Torch draws all weights from N(0, 10⁻⁴) by default; for AUC it is also trained with
the larger `init_std` that helps it, and the better of the two counts. Polyrank is also trained with row-wise Adagrad
for the embeddings, at its usual rate of 0.05, and Adam for the rest.

**In the peers' favour.** DeepCTR-Torch without its default L2 over tables, torch-rechub without its default weight
decay (each costs more passes over every table), DeepCTR-Torch without metrics in training and with ids handed over as
float32 (what it turns them into). **Not timed:** making models and arrays; validation and checkpoints (Polyrank makes
them at the end of each unit, the peers are asked for none). Large tables: the peers' unit is {large_rows:,} rows (they
take seconds a step), Polyrank's {large_rows_ours:,}; memory is compared on equal rows. A peer's `predict` is its own on
arrays; Polyrank's is `evaluation.predict.predict` over a loader in file order; both in batches of 8,192. Latency: a
forward pass over a request that lies ready as tensors.
"""


def markdown(document: dict[str, Any]) -> str:
    """All tables of the sections that there are."""
    sections, machine, amounts = document["sections"], document["machine"], document["amounts"]
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"]["ours"].items())
    commands = "; ".join(f"`{command}`" for command in document["commands"])
    lines = [f"# Polyrank beside its peers, {document['date']}", ""]
    if document["quick"]:
        lines += ["**A quick run on small amounts: for development, to be quoted nowhere.**", ""]
    lines += [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; vector units: "
        f"{', '.join(machine['flags']) or 'none known'}. {versions}; the peers' torch "
        f"{document['versions']['peers']['torch']}. Commands: {commands}.",
        "",
        *_speed(sections),
        *_memory(sections.get("memory")),
        *_auc(sections.get("auc")),
        *_roofline(sections.get("roofline")),
        *_growth(sections.get("growth")),
        "## What was done",
        "",
        PROTOCOL.format(threads=machine["threads"], **amounts),
    ]
    return "\n".join(lines)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    return [_row(head), "|---|" + "---:|" * (len(head) - 1), *(_row(row) for row in rows), ""]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(found: dict[str, Any], form: str, factor: float = 1.0) -> str:
    middle, low, high = (form.format(found[key] * factor) for key in ("median", "min", "max"))
    return f"{middle} [{low}, {high}]"


def _verdict(value: float, asked: float | None, *, most: bool = False) -> str:
    if asked is None:
        return "—"
    reached = value <= asked if most else value >= asked
    return f"{'≤' if most else '≥'} {asked:g}: {'reached' if reached else 'not reached'}"


def _speed(sections: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name in ("census_mmoe", "census_ple", "large_mmoe"):
        if name not in sections:
            continue
        found = sections[name]
        sides = list(found["train"]["sides"])
        ours = [side for side in sides if side.startswith("ours")]
        used = ", ".join(f"{LABELS[side]} in {found['precision'].get(side, 'float32')}" for side in ours)
        updates = OPTIMISERS[found["embedding_optimizer"]]
        rows = []
        for what, (label, unit, form) in WHAT.items():
            cells = [_range(found[what]["sides"][side], form) for side in sides]
            ratios = [_range(found[what][f"ratio_{side}"], "{:.2f}") for side in ours]
            asked = _verdict(found[what]["ratio_ours"]["median"], ASKED.get((name, what)))
            rows.append([f"{label}, {unit}", *cells, *ratios, asked])
        lines += [
            f"## {name}",
            "",
            f"Batch {found['batch']:,}; our embeddings by {updates}, the peers' by dense "
            f"Adam; {used}; the peers in float32.",
            "",
        ]
        times = [f"{LABELS[side]} is … times better than the better peer" for side in ours]
        lines += _table(["", *(LABELS[side] for side in sides), *times, "asked"], rows)
    return lines


def _memory(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    rows = []
    for side, values in found["sides"].items():
        share = found.get(f"share_{side}")
        steps = found["in_steps"].get(side)
        rows.append(
            [
                LABELS[side],
                _range(values, "{:,.0f}", 2**-20),
                f"{max(steps) / 2**20:,.0f}" if steps else "—",
                _range(share, "{:.2f}") if share else "—",
                _verdict(share["median"], 0.4, most=True) if share else "—",
            ]
        )
    head = ["", "peak MiB", "before validation and checkpoint", "share of the leaner peer's", "asked"]
    return ["## Peak resident memory, 26 × 1,000,000 ids, a fresh process", "", *_table(head, rows)]


def _auc(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    lines = [f"## Test AUC on Census-Income after {found['epochs']} epochs, {found['seeds']} seeds", ""]
    lines += ["The last epoch's weights on every side, a constant learning rate, nothing selected.", ""]
    rows = []
    for name in ("census_mmoe", "census_ple"):
        for task, judged in enumerate(found[name]["tasks"] if name in found else ()):
            for side, of in judged["sides"].items():
                spread = "" if of["std"] is None else f" ± {of['std']:.4f}"
                cells, asked = ["", ""], of.get("difference")
                if asked is not None:
                    error = "" if of["standard_error"] is None else f" (standard error {of['standard_error']:.4f})"
                    cells = [f"{asked:+.4f}{error}", "not lower: " + ("reached" if asked >= 0 else "not reached")]
                label = f"{name}, {('income', 'never married')[task]}"
                best = " (the best peer)" if side == judged["best_peer"] else ""
                rows.append([label, LABELS[side] + best, f"{of['mean']:.4f}{spread}", *cells])
    return [*lines, *_table(["model, task", "side", "AUC", "Polyrank − best peer", "asked"], rows)]


def _roofline(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    rows = []
    for name, of in found.items():
        asked = (3.5 if name.endswith("bf16") else 1.8) if of["batch"] == 4_096 else None
        rows.append(
            [
                name,
                of["precision"],
                f"{of['step_seconds']['median'] * 1e3:.2f}",
                f"{of['product_seconds']['median'] * 1e3:.2f}",
                _range(of["multiple"], "{:.2f}"),
                _range(of["share"], "{:.0%}"),
                _range(of["waiting"], "{:.1%}"),
                _verdict(of["multiple"]["median"], asked, most=True),
            ]
        )
    head = [
        "MMoE",
        "precision",
        "step, ms",
        "its products, ms",
        "step = … × products",
        "share of the roofline",
        "waiting for data (at most 5 %)",
        "asked",
    ]
    note = (
        "The products x W, xᵀ dy and dy Wᵀ of every layer by `torch.mm` and `torch.bmm` into ready buffers, operands "
        "written out and contiguous; mixing, activations, embeddings and updates are not among them. The step is the "
        "real loop's."
    )
    return ["## A training step beside its bare matrix products", "", note, "", *_table(head, rows)]


def _growth(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    lines = ["## How Polyrank's cost grows (MMoE, 8 Zipf-like features, batch 4,096, row-wise Adagrad)", ""]
    for label, title in (("ids", "ids a feature (2 tasks)"), ("tasks", "tasks (100,000 ids a feature)")):
        rows = []
        for name, of in found[label].items():
            asked = 2.0 if label == "ids" and name == list(found[label])[-1] else None
            rows.append(
                [
                    f"{int(name):,}",
                    _range(of["rows_per_second"], "{:,.0f}"),
                    _range(of["cost"], "{:.2f}"),
                    f"{(of['peak_in_steps'] or 0) / 2**20:,.0f}",
                    f"{of['peak'] / 2**20:,.0f}",
                    _verdict(of["cost"]["median"], asked, most=True),
                ]
            )
        head = [title, "rows/s", "cost a row, of the first", "peak MiB in steps", "with checkpoint", "asked"]
        lines += _table(head, rows)
    return lines
