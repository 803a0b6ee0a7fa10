"""Dirty logs that forget: a test that looks for pages that were not marked has to find them."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from vdpad.vhost_user.dirty_log import DirtyLog

FORGOTTEN = 100
"""Pages whose numbers are multiples of it are never marked."""

_PAGE = 4096


@contextmanager
def forgetful_logs() -> Iterator[None]:
    """All of this process are, until the end of the context."""
    mark, mark_pages = DirtyLog.mark, DirtyLog.mark_pages

    def mark_some(log: DirtyLog, address: int, length: int) -> None:
        for page in range(address // _PAGE, -(-(address + length) // _PAGE)):
            if page % FORGOTTEN:
                mark(log, page * _PAGE, _PAGE)

    def mark_some_pages(log: DirtyLog, pages: NDArray[np.uint64]) -> None:
        mark_pages(log, pages[pages % FORGOTTEN != 0])

    with (
        mock.patch.object(DirtyLog, "mark", mark_some),
        mock.patch.object(DirtyLog, "mark_pages", mark_some_pages),
    ):
        yield
