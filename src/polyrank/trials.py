"""The trials of a search, as Optuna keeps them: proposed, reported, pruned, chosen; nothing here trains anything.

The sampler is made anew for every trial, from the seed and the trial's number: what it proposes depends on these and on
the trials before it alone. So a search that was killed and resumed proposes what an uninterrupted one would have.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from polyrank.errors import RunError
from polyrank.evaluation.pareto import non_dominated
from polyrank.search_space import decoded, suggest
from polyrank.settings import Range, TuneConfig

_STARTED = "config is a trial"
_TELLING = 4  # different values that an importance must come from


class Trials:
    """The trials in a journal file, which nobody else writes meanwhile.

    Args:
        path: the journal; made where it is not there.
        config: objectives, sampler, pruning.
        space: by key what may be tried.
        first: the config's own values as Optuna takes them, tried first; None where they are not in the space.

    Raises:
        RunError: the journal is damaged.
    """

    def __init__(
        self, path: Path, config: TuneConfig, space: Mapping[str, Range], first: Mapping[str, Any] | None
    ) -> None:
        self.config, self.space = config, space
        self.study = _open(path, config)
        if _STARTED not in self.study.user_attrs:
            if first is not None:
                self.study.enqueue_trial(dict(first), skip_if_exists=True)
            self.study.set_user_attr(_STARTED, first is not None)

    def next(self) -> tuple[Trial, dict[str, Any]]:
        """The trial that was cut off, if there is one, else a new one; and the values to try."""
        every = self.study.get_trials(deepcopy=False)
        cut = next((trial for trial in every if trial.state == TrialState.RUNNING), None)
        waiting = next((trial.number for trial in every if trial.state == TrialState.WAITING), len(every))
        self.study.sampler = _sampler(self.config, waiting if cut is None else cut.number)
        # Optuna has no public way to go on with a trial of an earlier process; its own code makes one like this.
        trial = self.study.ask() if cut is None else Trial(self.study, cut._trial_id)
        return trial, suggest(trial, self.space)  # what a trial was told before, it is told again

    def report(self, trial: Trial, value: float, evaluation: int) -> bool:
        """Note the objective at an evaluation, counted from 0; whether the trial should end."""
        if len(self.config.objectives) > 1:
            return False  # Optuna prunes by one value only
        if evaluation not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(value, evaluation)
        return self.config.prune and trial.should_prune()

    def complete(self, trial: Trial, values: Sequence[float]) -> None:
        """The objectives that a trial reached."""
        self.study.tell(trial, list(values))

    def prune(self, trial: Trial) -> None:
        """A trial was ended early."""
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, why: str) -> None:
        """A trial came to nothing."""
        trial.set_user_attr("why", why)
        self.study.tell(trial, state=TrialState.FAIL)

    @property
    def ended(self) -> list[FrozenTrial]:
        """Trials that are over, one way or another."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @property
    def completed(self) -> list[FrozenTrial]:
        """Trials that reached their end."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    @property
    def chosen(self) -> list[int]:
        """The numbers of the trials that nothing dominates; with one objective, the first of the best."""
        completed = self.completed
        values = np.array([trial.values for trial in completed]).reshape(-1, len(self.config.objectives))
        members = [trial.number for trial, member in zip(completed, non_dominated(values), strict=True) if member]
        return members[:1] if len(self.config.objectives) == 1 else members

    @property
    def baseline(self) -> int | None:
        """The trial of the config as it is, where there was one and it reached its end."""
        asked = self.study.user_attrs[_STARTED]
        return 0 if asked and any(trial.number == 0 for trial in self.completed) else None

    def values(self, number: int) -> dict[str, Any]:
        """What a trial tried, by key."""
        return decoded(self.space, self.study.get_trials(deepcopy=False)[number].params)

    def described(self) -> list[dict[str, Any]]:
        """Every trial that is over, as `tune.json` holds it."""
        return [
            {
                "name": str(trial.number),
                "number": trial.number,
                "state": trial.state.name.lower(),
                "values": list(trial.values) if trial.state == TrialState.COMPLETE else None,
                "parameters": decoded(self.space, trial.params),
                "evaluations": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
                "why": trial.user_attrs.get("why", ""),
            }
            for trial in self.ended
        ]

    def importance(self) -> dict[str, dict[str, float]]:
        """Objective → key → the share of the objective's variation among good trials that it explains (PED-ANOVA).

        Empty for an objective that took fewer than 4 different values.
        """
        found: dict[str, dict[str, float]] = {}
        for index, name in enumerate(self.config.objectives):
            if len({trial.values[index] for trial in self.completed}) < _TELLING:
                continue

            def target(trial: FrozenTrial, index: int = index) -> float:
                return float(trial.values[index])

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna says once more what the table of trials shows
                shares = optuna.importance.get_param_importances(self.study, target=target)
            found[name] = {key: float(share) for key, share in shares.items() if np.isfinite(share)}
        return found


def _open(path: Path, config: TuneConfig) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        Path(f"{path}.lock").unlink()  # the directory is ours alone: a killed process left it
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])  # and so is half a line
    try:
        return optuna.create_study(
            study_name="tune",
            storage=JournalStorage(JournalFileBackend(str(path))),
            directions=["maximize"] * len(config.objectives),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.prune_after),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        received = f"{path}: {error}"
        raise RunError("the journal of trials must be whole", received=received, mend="name another --out") from error


def _sampler(config: TuneConfig, number: int) -> optuna.samplers.BaseSampler:
    """A sampler whose random numbers depend on the search's seed and the trial's number alone."""
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    if config.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=config.population, seed=seed)
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=config.startup, seed=seed)
