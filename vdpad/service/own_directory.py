"""A directory of ours alone, whose files outlive this process though not a reboot.

A file is written beside its place and renamed into it, so a reader finds all of it or what was
there before. Nothing is synced: what is written outlives the process as it is. What changes in
place does so through a shared mapping, by stores into memory; so the directory belongs on tmpfs,
where a store never waits for a disk.

Only one process may have the directory. Whatever stands in it may be somebody else's doing: links
are not followed, and nothing but a file is read.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path

from vdpad.errors import NotWritten, VdpadError, why

# Mapped pages are there at once, so that the first store meets no page fault.
_IN_PLACE = mmap.MAP_SHARED | mmap.MAP_POPULATE


class NoDirectory(VdpadError):
    """The directory cannot be used."""


class NoFile(VdpadError):
    """Something else than a file has its name."""


def take_directory(directory: Path, what: str) -> int:
    """A directory, open, and nobody else's until the descriptor is closed; made where missing.

    Args:
        directory: on tmpfs.
        what: it is for, for people: "records".

    Raises:
        NoDirectory: it cannot be used.
    """
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(0o700)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NoDirectory(
            f"{directory}: expected a directory for {what}, or to make one: {why(error)}; choose "
            "one that this user can have"
        ) from error
    try:
        _refuse_strangers(directory, os.fstat(fd))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        why_not = why(error)
        if isinstance(error, BlockingIOError):
            why_not = f"another vdpad keeps its {what} there; choose another, each has its own"
        raise NoDirectory(f"{directory}: {why_not}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_strangers(directory: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise NoDirectory(
            f"{directory}: expected a directory that only uid {os.geteuid()} can write, got mode "
            f"{stat.S_IMODE(status.st_mode):04o} of uid {status.st_uid}"
        )


def write_file(
    name: str, directory: int, whole: bytes, most: int, *, changing: int = 0
) -> mmap.mmap | None:
    """Puts a file in its place at once, and maps so many bytes of its beginning.

    Args:
        name: with a stem that no other file has.
        directory: open.
        whole: all of the file.
        most: how many bytes it may have.
        changing: how many of them change in place; 0 maps nothing.

    Raises:
        OSError: it is not written, and what was there before is as it was.
    """
    if len(whole) > most:
        raise NotWritten(errno.EFBIG, f"expected at most {most} bytes, got {len(whole)}")
    new = f".{name.partition('.')[0]}.new"
    fd = _open_new(new, directory)
    try:
        if os.write(fd, whole) != len(whole):
            raise NotWritten(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mapped = mmap.mmap(fd, changing, _IN_PLACE) if changing else None
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    return mapped


def _open_new(name: str, directory: int) -> int:
    """An empty file that nobody else has open, in place of whatever has its name."""
    # Never what is there already: to write to another's FIFO would never end.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
    return os.open(name, flags, 0o600, dir_fd=directory)


def read_file(name: str, directory: int, most: int) -> bytes:
    """A file's bytes; of a longer one the end is missed.

    Raises:
        NoFile: it is something else.
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK a FIFO of this name would hang the start.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NoFile("expected a file")
        return os.read(fd, most)
    finally:
        os.close(fd)


def set_aside(name: str, aside: str, directory: int) -> str:
    """Keeps a file that cannot be read under another name, and says what became of it."""
    try:
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        return f"could not be set aside: {why(error)}"
    return f"was set aside as {aside}"
