"""A ranker from an experiment's settings and what was learned of its training data."""

from pathlib import Path
from typing import Any

from polyrank.data.encoders import Encoders
from polyrank.data.schema import Schema
from polyrank.errors import ConfigError
from polyrank.heads.build import build_heads
from polyrank.models.extension import ExtendedRanker
from polyrank.models.ranker import Ranker, resolve_space
from polyrank.settings import Settings
from polyrank.warm_start import base_settings


def build_ranker(schema: Schema, encoders: Encoders, settings: Settings, directory: Path) -> Any:
    """A fresh ranker for the experiment's tasks; in a run that was warm-started, the old model with the new tasks.

    Args:
        schema: the schema.
        encoders: fitted on the training data.
        settings: the experiment.
        directory: of the run, which knows what it was warm-started from.

    Raises:
        ConfigError: the architecture cannot take these tasks.
    """
    names = settings.data.tasks or schema.task_names
    if settings.train.warm_start:
        base = build_ranker(schema, encoders, base_settings(directory), directory)
        new = [schema.task_names.index(name) for name in names[len(base.heads.kinds) :]]
        model = settings.model
        heads = build_heads(
            [schema.tasks[p] for p in new], [encoders.statistics[p] for p in new], encoders.layout, model.heads
        )
        return ExtendedRanker(base, heads, model, frozen=settings.train.freeze == "shared")
    positions = [schema.task_names.index(name) for name in names]
    tasks = [schema.tasks[p] for p in positions]
    statistics = [encoders.statistics[p] for p in positions]
    architecture = settings.model.architecture
    try:
        space = resolve_space(settings.space, architecture)
        return Ranker(tasks, statistics, encoders.layout, settings.model, settings.options[architecture], space)
    except ValueError as error:
        raise ConfigError(
            f"model.architecture {architecture!r} must suit the data", received=str(error), mend="change one of them"
        ) from error
