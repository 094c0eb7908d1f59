"""TensorBoard event files, if asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polyrank.errors import RunFailed


@contextmanager
def tensorboard(folder: Path, *, wanted: bool) -> Iterator[Any]:
    """A TensorBoard writer into `folder`, or None.

    Raises:
        RunFailed: the package is not installed.
    """
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunFailed(
            "train.tensorboard needs the package tensorboard",
            received=str(error),
            mend="pip install 'polyrank[tensorboard]'",
        ) from error
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
