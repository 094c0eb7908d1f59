import copy

import pytest

from polyrank import errors
from polyrank.errors import ConfigError, DataError, Interrupted, PolyrankError, RunFailed, UserError


def test_message_has_three_parts() -> None:
    error = DataError("labels must be 0 or 1", received="2", mend="clean the column")

    assert str(error) == "labels must be 0 or 1\n  received: 2\n  to mend:  clean the column"
    assert str(DataError("labels must be 0 or 1")) == "labels must be 0 or 1"


def test_crossing_a_process_border_keeps_kind_and_parts() -> None:
    error = copy.copy(ConfigError("rule", received="this", mend="so"))  # by __reduce__, as pickle does

    assert type(error) is ConfigError
    assert (error.rule, error.received, error.mend) == ("rule", "this", "so")
    assert str(error) == str(ConfigError("rule", received="this", mend="so"))


@pytest.mark.parametrize(("kind", "code"), [(ConfigError, 2), (DataError, 2), (RunFailed, 1), (Interrupted, 1)])
def test_exit_codes(kind: type[PolyrankError], code: int) -> None:
    assert kind("rule").exit_code == code


def test_every_error_is_a_user_error_or_a_failed_run() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, PolyrankError)]

    for kind in set(kinds) - {PolyrankError}:
        assert issubclass(kind, UserError) != issubclass(kind, RunFailed)
