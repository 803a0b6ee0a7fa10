"""Keeps Python's garbage collector out of commits.

What `prepare` leaves behind are millions of small objects where many migrations wait, and one full
collection over them takes longer than a commit. So while any commit runs there is none.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class _Pauses:
    count = 0


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection until the last of those who asked for it is done."""
    gc.disable()
    _Pauses.count += 1
    try:
        yield
    finally:
        _Pauses.count -= 1
        if not _Pauses.count:
            gc.enable()
