"""The file system whose server says nothing lets go of whoever sleeps on it, in the end."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support import fuse


def test_who_sleeps_on_it_is_told_that_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    monkeypatch.setattr(fuse, "_SAYS_NOTHING", 0.3)
    with fuse.silent_file(tmp_path) as (fd, asked):
        with pytest.raises(OSError, match=r"connection abort|Transport endpoint|not connected"):
            os.fstat(fd)
        assert asked.is_set()
        with contextlib.suppress(OSError):
            os.close(fd)
