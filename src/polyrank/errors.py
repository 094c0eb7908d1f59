"""Every error Polyrank raises on purpose.

PolyrankError                 says: the rule, what was received, how to mend it
├── UserError                 the user's input is wrong           → exit code 2
│   ├── ConfigError           a key or a value of a config or a schema file
│   ├── DataError             the contents of a data file
│   └── RunError              a run directory: missing, damaged, of another format
└── RunFailed                 the input was fine, the work was not → exit code 1
    ├── StorageError          a full disk, a directory that cannot be written
    ├── TrainingDiverged      a loss that is no longer finite
    └── Interrupted           ctrl-C; what was reached is saved
"""

from typing import ClassVar


class PolyrankError(Exception):
    """A message in three parts: the rule that was broken, what was received, how to mend it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, *, received: str = "", mend: str = "") -> None:
        self.rule, self.received, self.mend = rule, received, mend
        lines = [rule]
        if received:
            lines.append(f"  received: {received}")
        if mend:
            lines.append(f"  to mend:  {mend}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by pickling their positional arguments; ours are keywords.
        return _rebuild, (type(self), self.rule, self.received, self.mend)


class UserError(PolyrankError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(UserError):
    """A key or a value of a config or schema file breaks its rule."""


class DataError(UserError):
    """A data file is missing, damaged, empty, or does not hold what the schema says."""


class RunError(UserError):
    """A run directory is missing, damaged, or was written by another format."""


class RunFailed(PolyrankError):
    """The input was fine; the work could not be finished."""


class StorageError(RunFailed):
    """A file could not be written: disk full, no permission."""


class TrainingDiverged(RunFailed):
    """A loss is no longer a finite number."""


class Interrupted(RunFailed):
    """The user stopped the work; what was reached is saved."""


def _rebuild(kind: type[PolyrankError], rule: str, received: str, mend: str) -> PolyrankError:
    return kind(rule, received=received, mend=mend)
