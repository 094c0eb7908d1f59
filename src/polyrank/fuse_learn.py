"""Learned rankers, from a run's predictions to a document: trained on validation rows, reported on test rows.

OUT/fusion.json …       the ranker that was chosen     OUT/<ranker>/     each one, which a resumed call does not train
OUT/learned.json        all that the page shows        OUT/report.html   again
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.candidates import Candidates, cohorts, judge_config
from polyrank.config import nearest
from polyrank.errors import ConfigError
from polyrank.evaluation.requests import Requests
from polyrank.files import read_json, write_json
from polyrank.fusion.config import FusionConfig
from polyrank.fusion.formula import Formula
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.judged import judged
from polyrank.fusion.learned import LEARNERS, learn
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import preset
from polyrank.fusion.seeds import equal_contribution, within
from polyrank.fusion.store import FILE, load_fusion, save_fusion
from polyrank.progress import Progress

SEARCHED, CURRENT, EQUAL = "searched formula", "current formula", "equal contributions"


@dataclass(frozen=True)
class Learned:
    """The ranker that was chosen, and what the page shows, for `learned.json`."""

    fusion: Fusion
    document: dict[str, Any]


def run_learn(
    config: FusionConfig,
    parts: Mapping[str, Candidates],
    current: Formula | None,
    against: Fusion | None,
    out: Path,
    progress: Progress,
) -> Learned:
    """Train every ranker on `parts["valid"]`, choose on the held part of it, judge all on `parts["test"]`.

    Args:
        config: `[fusion]`.
        parts: rows that choose and rows that judge.
        current: the formula in production.
        against: the searched formula; what all are compared with, or else `current`, or else equal contributions.
        out: where every ranker is saved; one that is there already is not trained again.
        progress: where to report.

    Raises:
        ConfigError: the config does not suit the run or the data.
        DataError: no request has rows that differ in reward.
    """
    valid, test = parts["valid"].requests, parts["test"].requests
    learning, held = valid.split(1 - config.learn.held, seed=config.learn.seed)
    judge_by = judge_config(config, valid)
    for name in config.learn.rankers:
        if name not in LEARNERS:
            raise ConfigError("fusion.learn.rankers must be known", received=name, mend=nearest(name, LEARNERS))
    fusions: dict[str, Fusion] = {}
    told = []
    for name in config.learn.rankers:
        fusions[name], seconds = _one(name, config, learning, held, out / name, progress)
        told.append({"name": name, "source": LEARNERS[name].source, "seconds": seconds})
    objective = Objective(held, config.search.goal, judge_by)
    goals = {
        name: objective.measure(fusion.score(held.columns, held.requests)[objective.order]).value
        for name, fusion in fusions.items()
    }
    chosen = max(goals, key=lambda name: goals[name])
    given = {SEARCHED: against, CURRENT: current}
    rivals = {name: fusion for name, fusion in given.items() if fusion} or {EQUAL: _equal(config, parts["valid"])}
    document = judged(
        test,
        {**rivals, **fusions},
        next(iter(rivals)),
        judge_by,
        negative=config.negative,
        cohorts=cohorts(config, test),
        seed=config.learn.seed,
        progress=progress,
    )
    notes = list(dict.fromkeys(note for part in parts.values() for note in part.notes))
    notes.append(f"chosen: {chosen}, by the {config.search.goal} of {len(np.unique(held.users)):,} held users")
    about = {"learned": told, "chosen": chosen, "held": goals, "request": list(parts["valid"].request), "notes": notes}
    return Learned(fusions[chosen], {**document, **about})


def _one(
    name: str, config: FusionConfig, learning: Requests, held: Requests, place: Path, progress: Progress
) -> tuple[Fusion, float]:
    """The ranker, trained or read, and how long training took."""
    if not (place / FILE).exists():
        learner, knobs = LEARNERS[name], getattr(config.learn, name)
        began = time.perf_counter()
        with progress.bar(f"learning {name}", getattr(knobs, learner.rounds), learner.rounds) as bar:
            fusion = learn(name, learning, held, config.learn.context, config.negative, knobs, bar)
        write_json(place / "seconds.json", time.perf_counter() - began)
        save_fusion(fusion, place)
    return load_fusion(place), float(read_json(place / "seconds.json"))


def _equal(config: FusionConfig, valid: Candidates) -> Formula:
    """The log-sum whose terms move the score alike."""
    positive = sorted(valid.kinds, key=lambda head: head in config.negative)
    template = preset("log_sum", {head: valid.kinds[head] for head in positive}, config.negative)
    values = equal_contribution(template, valid.requests.columns, valid.requests.requests)
    return template.bind(within(template, values))
