from pathlib import Path

import pytest

from polyrank.errors import ConfigError
from polyrank.rankers import build_ranker
from polyrank.settings import parse_settings

NOWHERE = Path("nowhere")


def settings(architecture="mmoe", tasks=(), **sections):
    data = {"schema": "schema.toml", "train": "log.parquet", "tasks": list(tasks)}
    return parse_settings(
        {"data": data, "model": {"architecture": architecture, "embedding_width": 4}} | sections, NOWHERE
    )


def test_all_tasks_of_the_schema_where_none_is_named(fitted):
    encoders, _ = fitted()
    ranker = build_ranker(encoders.schema, encoders, settings(), NOWHERE)
    assert list(ranker.heads.kinds) == [task.kind for task in encoders.schema.tasks]


def test_only_the_tasks_that_are_named_in_their_order(fitted):
    encoders, _ = fitted()
    count = len(encoders.schema.tasks)
    chosen = list(reversed(encoders.schema.task_names))[:2]
    ranker = build_ranker(encoders.schema, encoders, settings(tasks=chosen), NOWHERE)
    assert list(ranker.heads.kinds) == [encoders.schema.tasks[p].kind for p in (count - 1, count - 2)]


def test_an_architecture_that_cannot_take_the_tasks_says_so_as_a_user_would_want(fitted):
    encoders, _ = fitted()
    with pytest.raises(ConfigError, match=r"model\.architecture 'single_task' must suit the data"):
        build_ranker(encoders.schema, encoders, settings("single_task"), NOWHERE)
