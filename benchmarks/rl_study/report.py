"""The page: the bars first, then every method in both modes, then the estimators beside the truth."""

from collections.abc import Mapping
from typing import Any

from rl_study.tables import ESTIMATORS, World, above, estimated

Document = Mapping[str, Any]


def bars(document: Document) -> list[dict[str, Any]]:
    """What the study should show, what it shows, and whether that is enough."""
    c, a = document["modes"]["c"], document["modes"]["a"]
    best = c["methods"][document["best"]]
    rows = [_bar("mode C headroom, oracle over best static", "≥ 10 %", c["headroom"], 0.10)]
    rows.append(_bar(f"{document['best']}: share of the headroom", "≥ 50 %", best["captured"], 0.50))
    rows.append(_bar(f"{document['best']}: gain over the best static formula", "≥ 5 %", best["gain"], 0.05))
    gains = list(best["gains"].values())
    p = above(gains, 0.0) if len(gains) > 1 else None
    reached = "–" if p is None else f"p = {p:.2g}, {sum(gain > 0 for gain in gains)} of {len(gains)} worlds"
    rows.append({"bar": "that gain is above 0, one-sided, paired by world", "asked": "p < 0.01", "reached": reached})
    rows[-1]["met"] = p is not None and p < 0.01
    personal = best["personal"]
    row = _bar(f"{document['best']}: gain over its matched static formula", "interval above 0", personal, 0.0)
    rows.append(row | {"met": personal["low"] is not None and personal["low"] > 0})
    in_a = a["methods"].get(document["best"])
    if in_a is not None and in_a["gain"]["mean"] is not None:
        rows.append(_bar(f"{document['best']} in mode A, against the best static", "≥ −0.5 %", in_a["gain"], -0.005))
    for estimator in ESTIMATORS[:3]:
        rhos = [entry[estimator]["spearman"] for entry in document["estimators"].values()]
        counts = [entry[estimator]["policies"] for entry in document["estimators"].values()]
        rhos = [rho for rho in rhos if rho is not None]
        if rhos:
            reached = ", ".join(f"{rho:.2f}" for rho in rhos) + f" over {min(counts)} to {max(counts)} policies"
            met = min(rhos) >= 0.8 and min(counts) >= 12
            rows.append({"bar": f"Spearman of {estimator} and truth, by world", "asked": "≥ 0.8 over ≥ 12 policies"})
            rows[-1] |= {"reached": reached, "met": met}
    td3 = c["methods"].get("td3")
    if td3 is not None and td3["seeds"]:
        flagged = [seed for seed in td3["seeds"] if td3["unsafe"].get(seed) or seed in td3["diverged"]]
        rows.append({"bar": "TD3 flagged unsafe before it is deployed", "asked": "in every world"})
        rows[-1] |= {"reached": f"{len(flagged)} of {len(td3['seeds'])}", "met": len(flagged) == len(td3["seeds"])}
    return rows


def page(document: Document, worlds: Mapping[int, World]) -> str:
    """Markdown."""
    lines = [f"`{document['command']}`", "", "| bar | asked | reached | met |", "|---|---|---|---|"]
    lines += [
        f"| {r['bar']} | {r['asked']} | {r['reached']} | {'yes' if r['met'] else 'no'} |" for r in document["bars"]
    ]
    for mode, found in document["modes"].items():
        lines += [
            "",
            f"Mode {mode.upper()}: headroom (oracle over best static formula) {_share(found['headroom'])}.",
            "",
        ]
        lines += [
            "| method | worlds | over best static | of the headroom | over matched static | outside | diverged |",
            "|---|---:|---|---|---|---:|---:|",
        ]
        ranked = sorted(found["methods"].items(), key=lambda item: -(item[1]["gain"]["mean"] or -9.0))
        for name, m in ranked:
            if m["seeds"]:
                exits = m["exits"]["mean"]
                lines.append(
                    f"| {name} | {len(m['seeds'])} | {_share(m['gain'])} | {_share(m['captured'])} | "
                    f"{_share(m['personal'])} | {'–' if exits is None else f'{exits:.1%}'} | {len(m['diverged'])} |"
                )
    lines += ["", *document["notes"]]
    lines += ["", "Means over worlds with Student's 95 % intervals; shares of the best static formula's value.", ""]
    for seed, agreement in document["estimators"].items():
        said = "; ".join(
            f"{name} ρ = {'–' if e['spearman'] is None else format(e['spearman'], '.2f')} ({e['policies']} policies, "
            f"{e['refused']} refused)"
            for name, e in agreement.items()
        )
        lines += [f"World C {seed}: estimates beside the truth; {said}.", ""]
        lines += [
            "| policy | true value | linear FQE | FQE | conservative FQE | kernel PDIS | flagged |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]
        for row in sorted(estimated(worlds[seed]), key=lambda row: -row["truth"]):
            cells = " | ".join(_value(row[estimator]["value"]) for estimator in ESTIMATORS)
            lines.append(f"| {row['policy']} | {row['truth']:.3f} | {cells} | {'; '.join(row['unsafe'])} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def _bar(name: str, asked: str, found: Mapping[str, Any], bar: float) -> dict[str, Any]:
    return {
        "bar": name,
        "asked": asked,
        "reached": _share(found),
        "met": found["mean"] is not None and found["mean"] >= bar,
    }


def _share(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "–"
    if found["low"] is None:
        return f"{found['mean']:+.1%}"
    return f"{found['mean']:+.1%} [{found['low']:+.1%}, {found['high']:+.1%}]"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
