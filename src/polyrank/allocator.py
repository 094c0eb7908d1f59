"""What the C library does with memory that is given back: for programs that are Polyrank's own, set by the CLI."""

import ctypes
import os

# From malloc.h of glibc, where also the environment variables of the same meaning are documented.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, 2**30),
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, 2**31 - 1),
    "MALLOC_TOP_PAD_": (_TOP_PAD, 2**26),
}


def keep_memory() -> bool:
    """Keep freed memory for the next training step instead of giving it back to the system after each.

    By default glibc maps large blocks anew each time, and the system clears every page of them again: on small models
    that is a quarter of a step. Holds for this process and those it starts; a user's own settings in the environment
    go before.

    Returns:
        Whether it did anything: False without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    done = True
    for name, (parameter, value) in _SETTINGS.items():
        if name not in os.environ:
            os.environ[name] = str(value)
            done = mallopt(parameter, value) == 1 and done
    return done
