"""Records that this vdpad cannot read: set aside under another name, for one that can.

    HASH.operation ──cannot be read──▶ HASH.unreadable ──can be read──▶ HASH.operation

They may be another version's, after a downgrade. Each start looks whether it can read them by now.
One goes when its migration has another record, since what came later counts; and the oldest go
where there are too many.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from vdpad.daemon.records.file import MAX_RECORD

MAX_FILES = 1024
"""As many as there are records by default."""

MAX_BYTES = 32 << 20
"""All together. They lie in memory that is charged to the daemon (MemoryMax=)."""

_NAME = re.compile(r"[0-9a-f]{32}\.unreadable")


class Aside:
    """Those of one directory."""

    def __init__(self, directory: int) -> None:
        """
        Args:
            directory: open, and ours alone, until its owner closes it.
        """
        self._directory = directory
        self._names = {name for name in os.listdir(directory) if _NAME.fullmatch(name)}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Of each the name that it has, and the name of the record that it would be."""
        return iter([(name, f"{_stem(name)}.operation") for name in self._names])

    def take(self, name: str) -> str:
        """Sets a record aside, or removes what can be none; says what became of it."""
        aside = f"{_stem(name)}.unreadable"
        with contextlib.suppress(OSError):
            if self._may_be_a_record(name):
                os.rename(name, aside, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                self._names.add(aside)
                return f"it was set aside as {aside}"
        self._unlink(name)
        return "it was removed"

    def bring_back(self, name: str) -> None:
        """It can be read: it is a record again."""
        record = f"{_stem(name)}.operation"
        os.rename(name, record, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._names.discard(name)

    def drop(self, record: str) -> None:
        """The migration of a record has another one, or none; costs nothing where none is aside."""
        name = f"{_stem(record)}.unreadable"
        if name in self._names:
            self._unlink(name)
            self._names.discard(name)

    def trim(self) -> None:
        """Removes the oldest where there are too many."""
        found = []
        for name in self._names:
            with contextlib.suppress(OSError):
                status = os.lstat(name, dir_fd=self._directory)
                found.append((status.st_mtime_ns, name, status.st_size))
        room = MAX_BYTES
        for place, (_, name, size) in enumerate(sorted(found, reverse=True)):
            room -= size
            if place >= MAX_FILES or room < 0:
                self._unlink(name)
                self._names.discard(name)

    def _may_be_a_record(self, name: str) -> bool:
        status = os.lstat(name, dir_fd=self._directory)
        return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_RECORD

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)


def _stem(name: str) -> str:
    return name.partition(".")[0]
