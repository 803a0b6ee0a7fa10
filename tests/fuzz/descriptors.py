"""Descriptors as a client may send them with a request, each kind by a byte."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial

_FULL = (1 << 64) - 2

_SHRINK, _GROW = fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW
_WRITE, _SEAL = fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SEAL


def _memory(size: int, seals: int, written: int | None = None) -> int:
    """A memfd of whose bytes so many are there; all, where that is None."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, bytes(size if written is None else written), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _pipe(end: int) -> int:
    ends = os.pipe2(os.O_CLOEXEC)
    os.close(ends[1 - end])
    return ends[end]


def _eventfd(count: int, flags: int) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | flags)
    if count:
        os.eventfd_write(fd, count)
    return fd


def _socket(kind: socket.SocketKind) -> int:
    return socket.socket(socket.AF_UNIX, kind).detach()


# The first is what tests/fuzz/corpus/requests/*-lent are about.
_KINDS: tuple[Callable[[], int], ...] = (
    partial(_memory, 1 << 16, _SHRINK),
    partial(_eventfd, 0, os.EFD_NONBLOCK),
    partial(_eventfd, 0, 0),
    partial(_eventfd, _FULL, 0),
    partial(_eventfd, _FULL, os.EFD_SEMAPHORE),
    partial(_memory, 1 << 16, _SHRINK | _GROW | _SEAL),
    partial(_memory, 1 << 16, _SHRINK | _WRITE),
    partial(_memory, 1 << 16, 0),
    partial(_memory, 1 << 16, _SHRINK, 4096),
    partial(_memory, 1 << 46, _SHRINK, 0),
    partial(_memory, 4097, _SHRINK),
    partial(_memory, 0, _SHRINK),
    partial(_pipe, 0),
    partial(_pipe, 1),
    partial(_socket, socket.SOCK_DGRAM),
    partial(_socket, socket.SOCK_STREAM),
)


def made(kinds: Iterable[int]) -> list[int]:
    """A descriptor for each byte. They are the caller's to close."""
    return [_KINDS[kind % len(_KINDS)]() for kind in kinds]
